//! Uploads that meet every refusal the service knows, and programs and daemons that do not wait for
//! their end.

use onedrivefs_sim::{DriveKind, FaultAction, FaultRule};
use onedrivefs_tests::{Home, Need, needs};

use super::{Bench, Row, do_here, lost, row, service};

fn refusal(status: u16, code: &str) -> FaultAction {
    FaultAction::Status {
        status,
        code: Some(code.to_owned()),
        inner: None,
        retry_after: None,
        form: onedrivefs_sim::BodyForm::Json,
        body: None,
        after_effect: false,
    }
}

/// What happens to one fragment each, whichever it is.
fn misfortunes() -> Vec<FaultAction> {
    vec![
        refusal(404, "itemNotFound"),
        refusal(409, "nameAlreadyExists"),
        refusal(409, "resourceModified"),
        refusal(412, "resourceModified"),
        refusal(416, "invalidRange"),
        refusal(400, "invalidRange"),
        refusal(401, "unauthenticated"),
        refusal(403, "accessDenied"),
        refusal(423, "resourceLocked"),
        refusal(500, "generalException"),
        FaultAction::retry_after(429, "1"),
        FaultAction::retry_after(503, "1"),
        FaultAction::DropBefore,
        FaultAction::DropAfter,
        FaultAction::Truncate { bytes: 10 },
        FaultAction::ExpireTokens,
        FaultAction::ExpireSessions,
        refusal(507, "quotaLimitReached"),
    ]
}

/// Refusals that wait for a person where they come instead of a session.
fn is_final(action: &FaultAction) -> bool {
    matches!(action, FaultAction::Status { status, .. } if matches!(status, 400 | 403 | 404 | 416))
}

/// New and old, small and of two fragments.
const FILES: &[Row] = &[
    row("new 1", "", "f=@10500000.1", "", "f=@10500000.1"),
    row("new 2", "", "f=@900000.2", "", "f=@900000.2"),
    row("new 3", "", "f=@50000.3", "", "f=@50000.3"),
    row("new 4", "", "f=@50000.4", "", "f=@50000.4"),
    row("new 5", "", "f=@500000.5", "", "f=@500000.5"),
    row("new 6", "", "f=x", "", "f=x"),
    row("old 1", "f=0", "f=@10500000.6", "", "f=@10500000.6").same_item("f", "f"),
    row("old 2", "f=0", "f=@900000.7", "", "f=@900000.7").same_item("f", "f"),
    row("old 3", "f=0", "f=@50000.8", "", "f=@50000.8").same_item("f", "f"),
    row("old 4", "f=0", "f=@50000.9", "", "f=@50000.9").same_item("f", "f"),
    row("old 5", "f=0", "f=@500000.10", "", "f=@500000.10").same_item("f", "f"),
    row("old 6", "f=0", "~f=x", "", "f=x").same_item("f", "f"),
];

fn misfortune(kind: DriveKind, op: &str) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(kind);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "3600", "--option", "upload_delay=200"];
    let bench = Bench::new(&home, FILES, &arguments, format!("{kind:?}, {op}"));
    let ids = bench.ids(FILES);
    for action in misfortunes() {
        if op == "create_session" && is_final(&action) {
            continue;
        }
        service.faults().add(FaultRule::on(op, action).times(1));
    }
    bench.here(FILES);
    bench.come_to_rest();
    bench.check(FILES, &ids);
    bench.mount.unmount();
}

#[test]
fn fragments_meet_every_misfortune() {
    misfortune(DriveKind::Business, "upload_fragment");
}

#[test]
fn sessions_meet_every_misfortune() {
    misfortune(DriveKind::Personal, "create_session");
}

/// What programs do while both fragments of a body are on their way; the column for there is what
/// they do next.
const LARGE: &[Row] = &[
    row(
        "large, written",
        "f=0",
        "f=@10500000.1",
        "f=@10500000.2",
        "f=@10500000.2",
    ),
    row(
        "large, renamed",
        "f=0",
        "f=@10500000.3",
        "f > g",
        "g=@10500000.3",
    )
    .same_item("f", "g"),
    row("large, deleted", "f=0", "f=@10500000.4", "-f", ""),
    row(
        "large, new, folder renamed",
        "d/",
        "d/f=@10500000.5",
        "d > e",
        "e/f=@10500000.5",
    ),
    row(
        "large, new, folder deleted",
        "d/",
        "d/f=@10500000.6",
        "-d",
        "",
    ),
];

/// The rows of lost answers that send content, and large files.
fn rows() -> Vec<Row> {
    let sending = lost::ROWS
        .iter()
        .filter(|row| row.only_writes() && !row.here.is_empty());
    sending.chain(LARGE).copied().collect()
}

fn next(bench: &Bench<'_>, rows: &[Row]) {
    for row in rows {
        do_here(&bench.mount.at(row.name), row.there);
    }
}

/// Holds the second fragments of large bodies and the only ones of small ones.
fn hold(home: &Home<'_>) -> Vec<u64> {
    let faults = home.service.faults();
    // Gates of their own, so that some fragments of large bodies come through.
    let first = FaultRule::on("upload_fragment", FaultAction::Hold).each();
    let puts = FaultRule::on("put_content", FaultAction::Hold);
    vec![faults.add(first), faults.add(puts)]
}

#[test]
fn programs_do_not_wait_for_the_end_of_an_upload() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let rows = rows();
    let service = service(DriveKind::Business);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "1", "--option", "upload_delay=200"];
    let bench = Bench::new(&home, &rows, &arguments, "busy".to_owned());
    let ids = bench.ids(&rows);
    let gates = hold(&home);
    bench.here(&rows);
    bench.settle(&gates);
    next(&bench, &rows);
    for gate in gates {
        service.faults().remove(gate);
    }
    bench.come_to_rest();
    bench.check(&rows, &ids);
    bench.mount.unmount();
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_uploads_goes_on_with_what_holds_then() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let rows = rows();
    let service = service(DriveKind::Business);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "1", "--option", "upload_delay=200"];
    let mut bench = Bench::new(&home, &rows, &arguments, "killed".to_owned());
    let ids = bench.ids(&rows);
    let gates = hold(&home);
    bench.here(&rows);
    bench.settle(&gates);
    bench.mount.crash();
    for gate in gates {
        service.faults().remove(gate);
    }
    drop(bench.mount);
    bench.mount = home.mount_args(&arguments);
    next(&bench, &rows);
    bench.come_to_rest();
    bench.check(&rows, &ids);
    bench.mount.unmount();
}
