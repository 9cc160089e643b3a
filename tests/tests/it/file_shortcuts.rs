//! Shortcuts to files of other drives are those files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use onedrivefs_sim::{DriveHandle, DriveSpec, FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Need, Service, needs, wait};

/// Time in which everything has to arrive by itself.
const ARRIVAL: Duration = wait::secs(60);

/// A drive with a shortcut to a file of somebody else's drive, which is returned.
fn shared(service: &Service) -> DriveHandle {
    let theirs = service.add_drive(DriveSpec::default());
    let file = theirs.put("/private/plan.txt", "theirs").expect("file");
    let drive = service.default_drive();
    drive.put("/Folder/own.txt", "own").expect("file");
    drive
        .add_shortcut("/Folder/plan.txt", theirs.id(), &file)
        .expect("shortcut");
    theirs
}

/// Has something happen to every request that is about a drive.
fn strike(service: &Service, drive: &DriveHandle, action: FaultAction, count: Option<u64>) {
    service.faults().add(FaultRule {
        path: Some(format!("*{}*", drive.id().replace('!', "*"))),
        count,
        action,
        ..FaultRule::default()
    });
}

fn text(drive: &DriveHandle, path: &str) -> String {
    String::from_utf8(drive.read(path).unwrap_or_default()).expect("UTF-8")
}

#[test]
fn fe_03_a_shortcut_to_a_file_is_that_file_and_saved_in_its_drive() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let file = theirs.entry("/private/plan.txt").expect("entry").id;
    let shortcut = own.entry("/Folder/plan.txt").expect("entry").id;
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(
        r#"cd "$M/Folder"; test "$(ls)" = "$(printf 'own.txt\nplan.txt')"; test -f plan.txt
        test "$(stat -c %s plan.txt)" = 6; test "$(cat plan.txt)" = theirs; printf + >> plan.txt"#,
    );
    mount.sync();
    assert_eq!(text(&theirs, "/private/plan.txt"), "theirs+");
    // Saved as editors do, with and without a backup that stays.
    home.sh(
        r#"cd "$M/Folder"; printf one > plan.tmp; mv plan.tmp plan.txt
        test "$(cat plan.txt)" = one"#,
    );
    mount.sync();
    assert_eq!(text(&theirs, "/private/plan.txt"), "one");
    home.sh(
        r#"cd "$M/Folder"; mv plan.txt plan.txt~; printf two > plan.txt
        test "$(cat plan.txt~)" = one; test "$(cat plan.txt)" = two"#,
    );
    mount.sync();
    assert_eq!(text(&theirs, "/private/plan.txt"), "two");
    assert_eq!(text(&own, "/Folder/plan.txt~"), "one");
    assert_eq!(theirs.entry("/private/plan.txt").expect("entry").id, file);
    assert_eq!(own.entry("/Folder/plan.txt").expect("entry").id, shortcut);
    let names = theirs.names_ever();
    let ours = ["plan.tmp", "plan.txt~"].map(str::to_owned);
    assert!(ours.iter().all(|name| !names.contains(name)), "{names:?}");
    // A copy of it is a file of one's own.
    home.sh(
        r#"cd "$M"; cp Folder/plan.txt copy.txt; touch -d 2001-02-03T04:05:06Z Folder/plan.txt"#,
    );
    mount.sync();
    assert_eq!(text(&own, "/copy.txt"), "two");
    let now = theirs.entry("/private/plan.txt").expect("entry");
    assert_eq!(now.id, file);
    assert!(
        now.mtime.starts_with("2001-02-03T04:05:06"),
        "{}",
        now.mtime
    );
    // What others change there arrives, although this drive's feed says nothing of it.
    theirs.put("/private/plan.txt", "three").expect("put");
    wait::until("a change of others", ARRIVAL, || {
        fs::read(mount.at("Folder/plan.txt")).is_ok_and(|now| now == b"three")
    });
    mount.unmount();
}

#[test]
fn fe_03_renaming_or_removing_a_shortcut_to_a_file_leaves_the_file() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let shortcut = own.entry("/Folder/plan.txt").expect("entry").id;
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(
        r#"cd "$M"; cat Folder/plan.txt; mv Folder/plan.txt renamed.txt; printf + >> renamed.txt"#,
    );
    mount.sync();
    assert_eq!(own.entry("/renamed.txt").expect("entry").id, shortcut);
    assert!(!own.exists("/Folder/plan.txt"));
    assert_eq!(text(&theirs, "/private/plan.txt"), "theirs+");
    own.rename("/renamed.txt", "/Folder/back.txt")
        .expect("move");
    mount.sync();
    home.sh(r#"test "$(cat "$M/Folder/back.txt")" = theirs+"#);
    // Also when its content was changed there a moment ago.
    theirs.put("/private/plan.txt", "newer").expect("put");
    home.sh(r#"rm "$M/Folder/back.txt""#);
    mount.sync();
    assert!(!own.exists("/Folder/back.txt"));
    assert_eq!(text(&theirs, "/private/plan.txt"), "newer");
    assert!(!mount.at("Folder/back.txt").exists());
    mount.unmount();
}

#[test]
fn fe_03_unsent_changes_of_a_shortcut_to_a_file_go_to_its_drive_and_conflicts_stay_here() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    home.sh(r#"cat "$M/Folder/plan.txt""#);
    let number = || {
        fs::metadata(home.mountpoint().join("Folder/plan.txt"))
            .expect("stat")
            .ino()
    };
    let before = number();
    service.set_reach(Reach::Offline);
    home.sh(r#"printf offline > "$M/Folder/plan.txt""#);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
    let mount = home.mount();
    wait::until("what was not sent", ARRIVAL, || {
        text(&theirs, "/private/plan.txt") == "offline"
    });
    assert_eq!(number(), before);
    mount.sync();
    service.set_reach(Reach::Offline);
    home.sh(r#"printf mine > "$M/Folder/plan.txt""#);
    theirs
        .put("/private/plan.txt", "theirs again")
        .expect("put");
    service.set_reach(Reach::Online);
    let copy = wait::value("the conflict", ARRIVAL, || {
        let _later = home.try_sync(5);
        let mut names = own.dump().into_iter().map(|one| one.path);
        names.find(|path| path.contains("(conflict "))
    });
    mount.sync();
    assert_eq!(text(&own, &copy), "mine");
    assert!(copy.starts_with("/Folder/"), "{copy}");
    assert_eq!(text(&theirs, "/private/plan.txt"), "theirs again");
    home.sh(r#"test "$(cat "$M/Folder/plan.txt")" = "theirs again""#);
    mount.unmount();
}

#[test]
fn fe_03_a_file_that_cannot_be_seen_any_more_says_so_and_is_back_with_the_access() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    strike(&service, &theirs, FaultAction::status(403), None);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let refused = fs::read(mount.at("Folder/plan.txt")).expect_err("denied");
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::PermissionDenied,
        "{refused}"
    );
    home.sh(r#"test "$(cat "$M/Folder/own.txt")" = own"#);
    service.faults().clear();
    wait::until("access", ARRIVAL, || {
        fs::read(mount.at("Folder/plan.txt")).is_ok_and(|now| now == b"theirs")
    });
    mount.unmount();
}

#[test]
fn fe_03_another_drive_in_trouble_holds_up_nothing_and_changes_nothing() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for action in [FaultAction::status(500), FaultAction::Stall] {
        let service = Service::start();
        let theirs = shared(&service);
        let own = service.default_drive();
        let home = Home::signed_in(&service);
        let mount = home.mount_args(&["--poll", "1"]);
        mount.sync();
        let is_theirs = || fs::read(mount.at("Folder/plan.txt")).is_ok_and(|now| now == b"theirs");
        assert!(is_theirs());
        strike(&service, &theirs, action, None);
        // A page with the shortcut under a new name, one that is new, and a file of one's own.
        let second = theirs.put("/private/second.txt", "second").expect("file");
        own.rename("/Folder/plan.txt", "/Folder/renamed.txt")
            .expect("rename");
        own.add_shortcut("/Folder/second.txt", theirs.id(), &second)
            .expect("shortcut");
        own.put("/Folder/more.txt", "more").expect("file");
        wait::until("one's own changes", ARRIVAL, || {
            fs::read(mount.at("Folder/more.txt")).is_ok_and(|now| now == b"more")
        });
        home.sh(
            r#"cd "$M/Folder"; test ! -e plan.txt; test "$(cat renamed.txt)" = theirs
            test "$(stat -c %s renamed.txt)" = 6; test -f second.txt"#,
        );
        service.faults().clear();
        wait::until("the new shortcut's file", ARRIVAL, || {
            fs::read(mount.at("Folder/second.txt")).is_ok_and(|now| now == b"second")
        });
        mount.unmount();
    }
}

#[test]
fn fe_03_a_share_that_is_withdrawn_while_mounted_is_told_and_comes_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let read = || fs::read(mount.at("Folder/plan.txt"));
    assert_eq!(read().expect("file"), b"theirs");
    strike(&service, &theirs, FaultAction::status(403), None);
    theirs.put("/private/plan.txt", "newer").expect("file");
    wait::until("the refusal", ARRIVAL, || {
        read().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    // It is still named, and nothing else is touched.
    home.sh(r#"cd "$M/Folder"; test "$(cat own.txt)" = own; test -e plan.txt"#);
    service.faults().clear();
    wait::until("access", ARRIVAL, || {
        read().is_ok_and(|now| now == b"newer")
    });
    mount.unmount();
}

/// What the version before the one that shows such files left of one.
const AS_BEFORE: &str = r#"
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    assert db.execute("DELETE FROM links").rowcount == 1
    assert db.execute("DELETE FROM meta WHERE key = 'links_known'").rowcount == 1
    assert db.execute("UPDATE items SET role = 2 WHERE name = 'plan.txt'").rowcount == 1
"#;

#[test]
fn fe_03_a_shortcut_that_an_earlier_version_listed_becomes_its_file() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    mount.unmount();
    let mut dirs = fs::read_dir(home.account_state()).expect("account");
    let drive = dirs.find_map(|dir| Some(dir.ok()?.path()).filter(|dir| dir.join("lock").exists()));
    let made = Command::new("python3")
        .args(["-c", AS_BEFORE])
        .arg(drive.expect("state of the drive").join("meta.db"))
        .status();
    assert!(made.expect("python3").success());
    // The first that is asked about gets no answer, and is asked about again.
    strike(&service, &theirs, FaultAction::status(500), Some(8));
    let mount = home.mount_args(&["--poll", "1"]);
    wait::until("the file", ARRIVAL, || {
        fs::read(mount.at("Folder/plan.txt")).is_ok_and(|now| now == b"theirs")
    });
    mount.unmount();
}
