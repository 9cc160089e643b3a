//! Requests that took effect and whose answers never came, each followed by something else that a
//! program does before they are repeated.

use onedrivefs_sim::{DriveKind, FaultAction, FaultRule};
use onedrivefs_tests::{Home, Need, needs, wait};

use super::{Bench, CHANGING, Row, do_here, row, service};

/// First what is sent without an answer (in the column for here), then what programs do next (in
/// the column for there).
pub(super) const ROWS: &[Row] = &[
    row("folder", "", "d/", "", "d/"),
    row("folder, renamed", "", "d/", "d > e", "e/"),
    row("folder, deleted", "", "d/", "-d", ""),
    row("folder, filled", "", "d/", "d/f=x", "d/f=x"),
    row(
        "folder, deleted and made again",
        "",
        "d/",
        "-d; d/; d/f=x",
        "d/f=x",
    ),
    row("folder, moved", "e/", "d/", "d > e/d", "e/d/"),
    row(
        "folder in a folder, that renamed",
        "e/",
        "e/d/",
        "e > E2; E2/d/f=x",
        "E2/d/f=x",
    ),
    row(
        "folder, renamed, another made",
        "",
        "d/",
        "d > e; d/; d/f=x",
        "d/f=x; e/",
    ),
    row("empty file", "", "f=", "", "f="),
    row("empty file, written", "", "f=", "f=x", "f=x"),
    row("empty file, renamed", "", "f=", "f > g", "g="),
    row("empty file, deleted", "", "f=", "-f", ""),
    row("file", "", "f=x", "", "f=x"),
    row("file, written", "", "f=x", "f=yy", "f=yy"),
    row(
        "file, written again and renamed",
        "",
        "f=x",
        "f=yy; f > g",
        "g=yy",
    ),
    row("file, renamed", "", "f=x", "f > g", "g=x"),
    row("file, deleted", "", "f=x", "-f", ""),
    row(
        "file, deleted and made again",
        "",
        "f=x",
        "-f; f=yy",
        "f=yy",
    ),
    row(
        "file, renamed, another made",
        "",
        "f=x",
        "f > g; f=yy",
        "f=yy; g=x",
    ),
    row("file, saved anew", "", "f=x", "~f=yy", "f=yy"),
    row("file, moved", "d/", "f=x", "f > d/f", "d/f=x"),
    row(
        "file in a folder, that renamed",
        "d/",
        "d/f=x",
        "d > e",
        "e/f=x",
    ),
    row("file in a folder, that deleted", "d/", "d/f=x", "-d", ""),
    row("content", "f=0", "f=x", "", "f=x").same_item("f", "f"),
    row("content, written", "f=0", "f=x", "f=yy", "f=yy").same_item("f", "f"),
    row("content, renamed", "f=0", "f=x", "f > g", "g=x").same_item("f", "g"),
    row("content, deleted", "f=0", "f=x", "-f", ""),
    row("content, saved anew", "f=0", "f=x", "~f=yy", "f=yy").same_item("f", "f"),
    row("content, saved by a backup", "f=0", "f=x", "^f=yy", "f=yy"),
    row(
        "content, deleted and made again",
        "f=0",
        "f=x",
        "-f; f=yy",
        "f=yy",
    ),
    row("content, emptied", "f=0", "f=x", "f=", "f=").same_item("f", "f"),
    row("emptied", "f=0", "f=", "", "f=").same_item("f", "f"),
    row("emptied, written", "f=0", "f=", "f=x", "f=x").same_item("f", "f"),
    row("renamed", "f=0", "f > g", "", "g=0").same_item("f", "g"),
    row("renamed, renamed", "f=0", "f > g", "g > h", "h=0").same_item("f", "h"),
    row("renamed, renamed back", "f=0", "f > g", "g > f", "f=0").same_item("f", "f"),
    row("renamed, moved", "f=0; d/", "f > g", "g > d/g", "d/g=0").same_item("f", "d/g"),
    row("renamed, written", "f=0", "f > g", "g=x", "g=x").same_item("f", "g"),
    row("renamed, deleted", "f=0", "f > g", "-g", ""),
    row("renamed, another made", "f=0", "f > g", "f=x", "f=x; g=0").same_item("f", "g"),
    row(
        "renamed, another renamed to it",
        "f=0; a=1",
        "f > g",
        "a > f",
        "f=1; g=0",
    )
    .same_item("a", "f"),
    row(
        "renamed, folder renamed",
        "d/f=0",
        "d/f > d/g",
        "d > e",
        "e/g=0",
    )
    .same_item("d/f", "e/g"),
    row("moved", "f=0; d/", "f > d/f", "", "d/f=0").same_item("f", "d/f"),
    row(
        "moved, moved back",
        "f=0; d/",
        "f > d/f",
        "d/f > f",
        "f=0; d/",
    )
    .same_item("f", "f"),
    row(
        "moved, moved on",
        "f=0; d/; e/",
        "f > d/f",
        "d/f > e/f",
        "d/; e/f=0",
    )
    .same_item("f", "e/f"),
    row("moved, folder deleted", "f=0; d/", "f > d/f", "-d", ""),
    row(
        "other case, another case",
        "note=0",
        "note > Note",
        "Note > NOTE",
        "NOTE=0",
    )
    .same_item("note", "NOTE"),
    row("swapped", "a=1; b=2", "a <> b", "", "a=2; b=1").same_item("a", "b"),
    row(
        "swapped, swapped back",
        "a=1; b=2",
        "a <> b",
        "a <> b",
        "a=1; b=2",
    )
    .same_item("a", "a"),
    row(
        "folder renamed, renamed",
        "d/f=0",
        "d > e",
        "e > g",
        "g/f=0",
    )
    .same_item("d/f", "g/f"),
    row(
        "folder renamed, filled",
        "d/f=0",
        "d > e",
        "e/g=x",
        "e/f=0; e/g=x",
    ),
    row(
        "folder renamed, another made",
        "d/f=0",
        "d > e",
        "d/; d/g=x",
        "d/g=x; e/f=0",
    ),
    row("deleted", "f=0", "-f", "", ""),
    row("deleted, made again", "f=0", "-f", "f=x", "f=x"),
    row("deleted, folder made", "f=0", "-f", "f/; f/g=x", "f/g=x"),
    row(
        "deleted, another renamed to it",
        "f=0; a=1",
        "-f",
        "a > f",
        "f=1",
    ),
    row("folder deleted", "d/f=0", "-d", "", ""),
    row(
        "folder deleted, made again",
        "d/f=0",
        "-d",
        "d/; d/g=x",
        "d/g=x",
    ),
];

/// Loses the first answers to every request, and lets programs go on after the first loss.
fn lose(kind: DriveKind, times: u64, poll: &str, delay: &str) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(kind);
    let home = Home::signed_in(&service);
    let case = format!("{kind:?}, {times} answers lost, poll {poll}");
    let arguments = ["--poll", poll, "--option", delay];
    let bench = Bench::new(&home, ROWS, &arguments, case);
    let ids = bench.ids(ROWS);
    let faults = service.faults();
    for op in CHANGING {
        // The session of a file that is sent is learnt of; its last fragment is what is lost.
        if *op != "create_session" {
            let lost = FaultRule::on(op, FaultAction::DropAfter).times(times);
            faults.add(lost.each());
        }
    }
    bench.here(ROWS);
    let hits = || faults.list().iter().map(|f| f.hits).sum::<u64>();
    let mut last = (0, std::time::Instant::now());
    // Until all of them are lost, but not so long that they are repeated.
    wait::until("lost answers", wait::secs(30), || {
        let now = hits();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        now > 0 && last.1.elapsed().as_millis() > 300
    });
    for row in ROWS {
        do_here(&bench.mount.at(row.name), row.there);
    }
    bench.come_to_rest();
    bench.check(ROWS, &ids);
    bench.mount.unmount();
}

#[test]
fn one_answer_and_then_a_round_of_changes() {
    lose(DriveKind::Business, 1, "1", "upload_delay=1500");
}

#[test]
fn one_answer_and_then_the_request_again() {
    lose(DriveKind::Personal, 1, "3600", "upload_delay=200");
}

#[test]
fn three_answers_in_a_row_on_a_personal_drive() {
    lose(DriveKind::Personal, 3, "1", "upload_delay=500");
}

#[test]
fn three_answers_in_a_row_on_a_business_drive() {
    lose(DriveKind::Business, 3, "3600", "upload_delay=200");
}

/// The addresses of sessions are lost, which hold the names against others on business drives.
#[test]
fn addresses_of_upload_sessions() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let rows: Vec<Row> = ROWS
        .iter()
        .filter(|row| row.only_writes())
        .copied()
        .collect();
    let service = service(DriveKind::Business);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "1", "--option", "upload_delay=300"];
    let bench = Bench::new(&home, &rows, &arguments, "lost sessions".to_owned());
    let ids = bench.ids(&rows);
    let lost = FaultRule::on("create_session", FaultAction::DropAfter).times(1);
    let lost = service.faults().add(lost.each());
    bench.here(&rows);
    wait::until("lost answers", wait::secs(30), || {
        service.faults().hits(lost) > 0
    });
    for row in &rows {
        do_here(&bench.mount.at(row.name), row.there);
    }
    bench.come_to_rest();
    bench.check(&rows, &ids);
    bench.mount.unmount();
}
