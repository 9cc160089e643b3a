//! Changes as the service tells them at its worst: every conflict again with pages in a bad order,
//! repeated items and void links, and what a listing that fails must not do.

use std::fs;
use std::time::Duration;

use onedrivefs_sim::{DriveKind, FaultAction, FaultRule, Knobs};
use onedrivefs_tests::{Home, Need, needs, tree, wait};

use super::conflicts;
use super::{Bench, Meeting, Row, row, run_with, service};

/// All rows of conflicts while the service has its habits.
fn with_habits(kind: DriveKind, meeting: Meeting, habits: impl FnOnce(&mut Knobs)) {
    if needs::met(&[Need::Fuse]) {
        run_with(&conflicts::rows(), kind, meeting, habits);
    }
}

#[test]
fn children_before_parents_repeated_items_and_a_tombstone_for_each() {
    with_habits(DriveKind::Business, Meeting::ByDelta, |knobs| {
        knobs.delta_child_first = true;
        knobs.delta_repeats = true;
        knobs.delta_descendant_tombstones = true;
        knobs.delta_page_size = 7;
    });
}

#[test]
fn bare_tombstones_empty_pages_and_answers_without_bodies() {
    with_habits(DriveKind::Personal, Meeting::AfterDays, |knobs| {
        knobs.delta_bare_tombstones = true;
        knobs.delta_empty_page = true;
        knobs.delta_page_size = 3;
        knobs.patch_no_content = true;
        knobs.empty_commit_body = true;
        knobs.delete_if_match_fails = true;
    });
}

/// Both ways in which a link can be void, in the middle of a round and of the enumeration that
/// follows.
#[test]
fn void_links() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for (inner, kind, rows) in [
        (
            "resyncApplyDifferences",
            DriveKind::Business,
            conflicts::rows(),
        ),
        (
            "resyncUploadDifferences",
            DriveKind::Personal,
            conflicts::CONTENT.to_vec(),
        ),
    ] {
        let service = service(kind);
        service.set_knobs(|knobs| {
            knobs.delta_gone_inner = inner.to_owned();
            knobs.delta_page_size = 20;
        });
        let home = Home::signed_in(&service);
        let arguments = ["--poll", "1", "--option", "upload_delay=2000"];
        let mut bench = Bench::new(&home, &rows, &arguments, format!("{kind:?}, {inner}"));
        // The enumeration may take longer than ours is held back.
        bench.ours_last = true;
        // The second page of the round, and the third of the enumeration.
        for page in [1, 4] {
            let void = FaultRule::on("delta", FaultAction::ExpireDelta).after(page);
            service.faults().add(void.times(1));
        }
        bench.meet(&rows, Meeting::ByDelta);
        wait::until("a void link", wait::secs(30), || {
            service
                .request_lines()
                .iter()
                .any(|line| line.ends_with(" 410"))
        });
        bench.come_to_rest();
        bench.check(&rows, &vec![None; rows.len()]);
        bench.mount.unmount();
    }
}

/// What is told when nothing can be believed: nothing is deleted, and programs go on.
#[test]
fn a_page_that_fails_for_ever() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    const ROWS: &[Row] = &[
        row("kept", "a=1; d/b=2", "", "", "a=1; d/b=2"),
        row("changed here", "a=1", "a=ours; new=x", "", "a=ours; new=x"),
        row("changed there", "a=1", "", "a=theirs; b=t", "a=theirs; b=t"),
        row("deleted there", "a=1; b=2", "", "-a", "b=2"),
    ];
    let service = service(DriveKind::Business);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "1", "--option", "upload_delay=200"];
    let bench = Bench::new(&home, ROWS, &arguments, "failing pages".to_owned());
    service.set_knobs(|knobs| knobs.delta_page_size = 1);
    for action in [
        FaultAction::status(500),
        FaultAction::Truncate { bytes: 300 },
        FaultAction::Status {
            status: 200,
            code: None,
            inner: None,
            retry_after: None,
            form: onedrivefs_sim::BodyForm::Raw,
            body: Some("{\"value\":[]}".into()),
            after_effect: false,
        },
    ] {
        let faults = service.faults();
        bench.mount.sync();
        let before = tree::of_directory(bench.mount.path());
        // The first page comes, the ones after it never do.
        let fails = faults.add(FaultRule::on("delta", action).after(1));
        bench.there(&ROWS[2..3]);
        wait::until("failing pages", wait::secs(30), || faults.hits(fails) > 1);
        assert_eq!(tree::of_directory(bench.mount.path()), before);
        faults.remove(fails);
    }
    let fails = FaultRule::on("delta", FaultAction::status(500)).after(1);
    let fails = service.faults().add(fails);
    bench.there(&ROWS[3..]);
    bench.here(ROWS);
    // What programs do here arrives all the same.
    wait::until("what was done here", wait::secs(30), || {
        bench.drive.read("/changed here/new").as_deref() == Some(b"x")
    });
    assert!(bench.mount.at("deleted there/a").exists());
    service.faults().remove(fails);
    bench.come_to_rest();
    bench.check(ROWS, &vec![None; ROWS.len()]);
    bench.mount.unmount();
}

/// Hours between the two clocks: no change is missed, and none is taken for newer by its time.
#[test]
fn clocks_that_differ_by_hours() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let hours = Duration::from_secs(5 * 3600);
    for (case, ahead) in [
        ("the service is ahead", true),
        ("the service is behind", false),
    ] {
        let service = service(DriveKind::Business);
        if ahead {
            service.advance(hours);
        } else {
            service.set_back(hours);
        }
        super::run_on(
            &service,
            conflicts::CONTENT,
            Meeting::ByDelta,
            case.to_owned(),
        );
    }
}

/// Items that the service has no longer without ever having said so: its feed names the folder
/// only, and they were moved into that in the same round.
#[test]
fn ghosts_go_when_somebody_looks_for_their_bytes() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(DriveKind::Business);
    let drive = service.default_drive();
    drive.put("/folder/other", "other").expect("file");
    drive.put("/ghost.txt", "ghost").expect("file");
    drive.put("/d/ghost.txt", "ghost").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "3600"]);
    mount.sync();
    for (ghost, to) in [("/ghost.txt", "/folder/a"), ("/d", "/folder/d")] {
        drive.rename(ghost, to).expect("moved");
    }
    drive.delete("/folder").expect("deleted");
    mount.sync();
    for ghost in ["ghost.txt", "d/ghost.txt"] {
        let read = fs::read(mount.at(ghost));
        assert!(read.is_err(), "{ghost}: {read:?}");
        wait::until("the ghost to go", wait::secs(10), || {
            !mount.at(ghost).exists()
        });
    }
    // The folder of the second one as well.
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}
