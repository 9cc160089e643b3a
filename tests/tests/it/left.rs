//! What waits in folders of other drives that nothing shows any more is within reach.

use std::fs;
use std::path::PathBuf;

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Ran, Service, needs, process, wait};

use crate::followed::{ARRIVAL, followed, shared, text};

/// Has the service refuse files in a drive.
fn refuse_files(service: &Service, drive: &DriveHandle) {
    for op in ["put_content", "create_session"] {
        service.faults().add(FaultRule {
            path: Some(pattern(drive)),
            ..FaultRule::on(op, FaultAction::status(403))
        });
    }
}

/// What the addresses of requests about a drive look like.
fn pattern(drive: &DriveHandle) -> String {
    format!("*{}*", drive.id().replace('!', "*"))
}

/// The paths of what is parked.
fn parked(mount: &Mount<'_>) -> Vec<String> {
    let status = mount.status();
    let list = status["parked"].as_array().expect("list").iter();
    let mut paths: Vec<_> = list
        .filter_map(|one| one["path"].as_str())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths
}

/// The directory of the state of the drive that is mounted.
fn state_dir(home: &Home<'_>) -> PathBuf {
    let dirs = fs::read_dir(home.account_state()).expect("account");
    let mut dirs = dirs.flatten().map(|dir| dir.path());
    let found = dirs.find(|dir| dir.join("lock").exists());
    found.expect("state of the drive")
}

/// Runs a command about a path of the mount, in a directory outside of it.
fn command(home: &Home<'_>, verb: &str, path: &str) -> Ran {
    let path = home.mountpoint().join(path);
    let mut command = home.command(&[verb, path.to_str().expect("UTF-8")]);
    command.current_dir(home.work());
    process::run(command, wait::secs(60))
}

#[test]
fn what_waits_in_a_folder_that_nothing_shows_is_named_exported_retried_and_given_up() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    refuse_files(&service, &theirs);
    home.sh(r#"cd "$M/Folder/Plans"; for f in a b c; do printf $f > parked-$f.txt; done"#);
    wait::until("what is parked", ARRIVAL, || parked(&mount).len() == 3);
    own.delete("/Folder/Plans").expect("delete");
    wait::until("the end of the shortcut", ARRIVAL, || {
        !mount.at("Folder/Plans").exists()
    });
    let left = "Folder/Plans (not shown any more)";
    let all = ["a", "b", "c"].map(|one| format!("{left}/parked-{one}.txt"));
    wait::until("their new names", ARRIVAL, || parked(&mount) == all);
    // Also after a crash, and when something else gets that name.
    mount.crash();
    drop(mount);
    let mount = home.mount_args(&["--poll", "1"]);
    wait::until("what is parked", ARRIVAL, || parked(&mount) == all);
    fs::create_dir(mount.at(left)).expect("folder");
    let left = "Folder/Plans (not shown any more, 2)";
    let [a, b, c] = ["a", "b", "c"].map(|one| format!("{left}/parked-{one}.txt"));
    assert_eq!(parked(&mount), [a.clone(), b.clone(), c.clone()]);
    let status = followed(&mount.status());
    assert!(status["path"].is_null(), "{status:#}");
    assert_eq!(status["left_path"], left, "{status:#}");
    let told = home
        .run(&["status", mount.path().to_str().expect("UTF-8")])
        .ok();
    assert!(
        told.contains(&format!("{left}: nothing shows it any more")) && told.contains(&a),
        "{told}"
    );
    command(&home, "export", &a).ok();
    assert_eq!(
        fs::read(home.work().join("parked-a.txt")).expect("read"),
        b"a"
    );
    command(&home, "discard", &a).ok();
    command(&home, "discard", &a).explained(1, "nothing is parked");
    assert_eq!(parked(&mount), [b.clone(), c.clone()]);
    service.faults().clear();
    command(&home, "retry", &b).ok();
    wait::until("what was tried again", ARRIVAL, || {
        text(&theirs, "/Plans/parked-b.txt") == "b"
    });
    command(&home, "discard", &c).ok();
    wait::until("the end of it", ARRIVAL, || {
        mount.status()["drives"]
            .as_array()
            .expect("list")
            .is_empty()
    });
    assert!(!theirs.exists("/Plans/parked-a.txt") && !theirs.exists("/Plans/parked-c.txt"));
    assert_eq!(text(&theirs, "/Plans/a.txt"), "theirs");
    mount.unmount();
}

#[test]
fn what_waits_in_a_folder_that_is_not_shared_any_more_waits_for_a_person_once_nothing_shows_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(r#"cat "$M/Folder/Plans/a.txt""#);
    service.faults().add(FaultRule {
        path: Some(pattern(&theirs)),
        action: FaultAction::status(403),
        ..FaultRule::default()
    });
    home.sh(r#"printf kept > "$M/Folder/Plans/kept.txt""#);
    own.delete("/Folder/Plans").expect("delete");
    let file = "Folder/Plans (not shown any more)/kept.txt";
    wait::until("what waits for a person", wait::secs(90), || {
        parked(&mount) == [file]
    });
    command(&home, "export", file).ok();
    assert_eq!(
        fs::read(home.work().join("kept.txt")).expect("read"),
        b"kept"
    );
    command(&home, "discard", file).ok();
    wait::until("the end of it", ARRIVAL, || {
        mount.status()["drives"]
            .as_array()
            .expect("list")
            .is_empty()
    });
    service.faults().clear();
    mount.unmount();
}

#[test]
fn what_waits_in_a_folder_is_within_reach_although_the_database_that_knew_of_it_is_gone() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    home.sh(r#"cat "$M/Folder/Plans/a.txt""#);
    service.set_reach(Reach::Offline);
    home.sh(r#"printf unsent > "$M/Folder/Plans/unsent.txt""#);
    mount.crash();
    drop(mount);
    let state = state_dir(&home);
    for end in ["", "-wal", "-shm"] {
        drop(fs::remove_file(state.join(format!("meta.db{end}"))));
    }
    own.delete("/Folder/Plans").expect("delete");
    service.set_reach(Reach::Online);
    refuse_files(&service, &theirs);
    let mount = home.mount();
    let path = wait::value("what was not sent", ARRIVAL, || parked(&mount).pop());
    assert_eq!(path, "Folder 1 (not shown any more)/unsent.txt");
    service.faults().clear();
    command(&home, "retry", &path).ok();
    wait::until("what was not sent", ARRIVAL, || {
        text(&theirs, "/Plans/unsent.txt") == "unsent"
    });
    mount.unmount();
}

#[test]
fn what_is_only_here_is_kept_however_many_look_after_a_folder_that_nothing_shows_any_more() {
    const FOLDERS: usize = 6;
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    for number in 0..FOLDERS {
        let folder = theirs.mkdir(&format!("/Lent {number}")).expect("folder");
        let shortcut = own.add_shortcut(&format!("/Lent {number}"), theirs.id(), &folder);
        shortcut.expect("shortcut");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(r#"for dir in "$M"/Lent*; do ls "$dir"; printf only > "$dir/here.part"; done"#);
    for number in 0..FOLDERS {
        own.delete(&format!("/Lent {number}")).expect("delete");
    }
    // Each looks after all folders before anything else.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..4).for_each(|_| home.sync()));
        }
    });
    let state = state_dir(&home);
    let entries = |name: &str| {
        fs::read_dir(state.join(name))
            .into_iter()
            .flatten()
            .flatten()
    };
    wait::until("the end of the folders", ARRIVAL, || {
        // But for the one that is still shown, if anybody has looked into it.
        entries("followed").count() <= 1
    });
    let kept: Vec<_> = entries("recovered")
        .map(|one| fs::read(one.path()).expect("kept"))
        .collect();
    assert_eq!(kept, vec![b"only".to_vec(); FOLDERS]);
    assert_eq!(
        mount.status()["conflicts"].as_array().map(Vec::len),
        Some(FOLDERS)
    );
    mount.unmount();
}
