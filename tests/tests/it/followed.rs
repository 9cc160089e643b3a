//! Shortcuts to folders of other drives are folders of the mount.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveHandle, DriveSpec, FaultAction, FaultRule, Reach, SubfolderDelta};
use onedrivefs_tests::{Home, Need, Service, needs, wait};
use serde_json::Value;

/// Time in which everything has to arrive by itself.
pub(crate) const ARRIVAL: Duration = wait::secs(60);

/// A drive with a shortcut to a folder of somebody else's drive, which is returned.
pub(crate) fn shared(service: &Service) -> DriveHandle {
    let theirs = service.add_drive(DriveSpec::default());
    let folder = theirs.mkdir("/Plans").expect("folder");
    theirs.put("/Plans/a.txt", "theirs").expect("file");
    theirs.put("/Plans/deep/b.txt", "deep").expect("file");
    theirs.put("/private.txt", "private").expect("file");
    let drive = service.default_drive();
    drive.put("/Folder/own.txt", "own").expect("file");
    drive
        .add_shortcut("/Folder/Plans", theirs.id(), &folder)
        .expect("shortcut");
    theirs
}

/// The text of a file.
pub(crate) fn text(drive: &DriveHandle, path: &str) -> String {
    let bytes = drive.read(path).unwrap_or_default();
    String::from_utf8(bytes).expect("UTF-8")
}

/// What `status` says about the one folder that is followed.
pub(crate) fn followed(status: &Value) -> Value {
    status["drives"][0].clone()
}

#[test]
fn a_shortcut_is_a_folder_in_which_everything_can_be_done() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "2"]);
    home.sh(
        r#"cd "$M/Folder/Plans"; test "$(cat a.txt)" = theirs; test "$(cat deep/b.txt)" = deep
        test "$(ls)" = "$(printf 'a.txt\ndeep')"; test ! -e private.txt
        printf more >> a.txt; printf new > new.txt; mkdir -p made/deeper; printf x > made/deeper/x
        mv new.txt deep/renamed.txt; rm deep/b.txt; ln -s a.txt link; sync deep/renamed.txt"#,
    );
    mount.sync();
    assert_eq!(text(&theirs, "/Plans/a.txt"), "theirsmore");
    assert_eq!(text(&theirs, "/Plans/deep/renamed.txt"), "new");
    assert_eq!(text(&theirs, "/Plans/made/deeper/x"), "x");
    assert!(!theirs.exists("/Plans/deep/b.txt"), "{:?}", theirs.dump());
    assert!(!theirs.exists("/made") && !theirs.exists("/new.txt"));
    assert!(
        service
            .default_drive()
            .dump()
            .iter()
            .all(|one| one.path != "/Folder/Plans/a.txt")
    );
    // What others change there arrives by itself.
    theirs.put("/Plans/later.txt", "later").expect("file");
    theirs.delete("/Plans/made/deeper/x").expect("delete");
    wait::until("changes of others", ARRIVAL, || {
        fs::read(mount.at("Folder/Plans/later.txt")).is_ok_and(|bytes| bytes == b"later")
            && !mount.at("Folder/Plans/made/deeper/x").exists()
    });
    let status = mount.status();
    assert_eq!(followed(&status)["path"], "Folder/Plans", "{status:#}");
    assert_eq!(followed(&status)["state"], "online", "{status:#}");
    assert_eq!(mount.status_of("Folder/Plans/a.txt")["status"], "cached");
    mount.unmount();
}

#[test]
fn a_folder_whose_feed_tells_of_the_whole_drive_shows_only_what_is_in_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for feed in [SubfolderDelta::WholeDrive, SubfolderDelta::NotSupported] {
        let service = Service::with(|config| config.knobs.subfolder_delta = feed);
        let theirs = shared(&service);
        let home = Home::signed_in(&service);
        let mount = home.mount_args(&["--poll", "1"]);
        mount.sync();
        home.sh(r#"test "$(cd "$M/Folder/Plans"; find . | sort | tr '\n' ' ')" = ". ./a.txt ./deep ./deep/b.txt ""#);
        theirs.put("/elsewhere/c.txt", "c").expect("file");
        theirs
            .rename("/Plans/a.txt", "/elsewhere/a.txt")
            .expect("rename");
        theirs
            .rename("/elsewhere/c.txt", "/Plans/deep/c.txt")
            .expect("rename");
        mount.sync();
        wait::until("moves in and out", ARRIVAL, || {
            mount.sync();
            !mount.at("Folder/Plans/a.txt").exists() && mount.at("Folder/Plans/deep/c.txt").exists()
        });
        home.sh(r#"test "$(cat "$M/Folder/Plans/deep/c.txt")" = c; ! test -e "$M/Folder/Plans/elsewhere""#);
        mount.unmount();
    }
}

#[test]
fn mv_and_cp_between_drives_copy_and_the_original_goes_when_the_copy_is_there() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    own.put("/moves.bin", vec![7_u8; 300_000]).expect("file");
    for (name, len) in [("over.bin", 200_000), ("again.bin", 100_000)] {
        own.put(&format!("/{name}"), vec![8_u8; len]).expect("file");
        theirs
            .put(&format!("/Plans/{name}"), "there before")
            .expect("file");
    }
    own.put("/tree/one.txt", "one").expect("file");
    own.put("/tree/two/three.txt", "three").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"ls -R "$M/Folder/Plans" > /dev/null"#);
    // Nothing can be stored in the other drive for now.
    refuse_content(&service, &theirs);
    home.sh(r#"cd "$M"; mv moves.bin Folder/Plans/; cp -a tree Folder/Plans/copy; mv -n tree/one.txt Folder/Plans/
        cat over.bin > Folder/Plans/over.bin; rm over.bin; mv -f again.bin Folder/Plans/again.bin
        test ! -e moves.bin; test "$(stat -c %s Folder/Plans/moves.bin)" = 300000"#);
    let refused = || {
        let lines = service.request_lines();
        lines.iter().filter(|line| line.ends_with(" 503")).count()
    };
    // The deletions have had the time to be sent that they need by themselves.
    let begun = Instant::now();
    wait::until("refused uploads", ARRIVAL, || {
        refused() >= 4 && begun.elapsed() > Duration::from_secs(4)
    });
    assert!(
        own.exists("/moves.bin"),
        "the original went before the copy was there"
    );
    assert!(own.exists("/tree/one.txt"));
    for name in ["over.bin", "again.bin"] {
        assert!(own.exists(&format!("/{name}")), "{name} went too early");
    }
    service.faults().clear();
    mount.sync();
    for (name, len) in [("over.bin", 200_000), ("again.bin", 100_000)] {
        let copy = theirs.read(&format!("/Plans/{name}")).expect("copy");
        assert!(copy == vec![8_u8; len], "{name}");
        wait::until("the end of the original", ARRIVAL, || {
            !own.exists(&format!("/{name}"))
        });
    }
    assert_eq!(
        theirs.read("/Plans/moves.bin").expect("copy").len(),
        300_000
    );
    assert_eq!(text(&theirs, "/Plans/copy/two/three.txt"), "three");
    assert_eq!(text(&theirs, "/Plans/one.txt"), "one");
    assert!(!own.exists("/moves.bin") && own.exists("/tree/two/three.txt"));
    // And back.
    home.sh(r#"cd "$M"; mv Folder/Plans/deep back; test "$(cat back/b.txt)" = deep"#);
    mount.sync();
    assert_eq!(text(&own, "/back/b.txt"), "deep");
    assert!(!theirs.exists("/Plans/deep/b.txt"));
    let renamed = rustix::fs::rename(mount.at("back"), mount.at("Folder/Plans/back"));
    assert_eq!(renamed.expect_err("rename"), rustix::io::Errno::XDEV);
    mount.unmount();
}

/// Has the service store nothing in a drive.
fn refuse_content(service: &Service, drive: &DriveHandle) {
    let pattern = format!("*{}*", drive.id().replace('!', "*"));
    for op in [
        "put_content",
        "put_item",
        "create_session",
        "upload_fragment",
    ] {
        service.faults().add(FaultRule {
            path: Some(pattern.clone()),
            ..FaultRule::on(op, FaultAction::status(503))
        });
    }
}

/// The daemon dies between the copy and the end of its upload: the next one does not delete the original
/// before it knows of the copy, which is in a drive that it serves a moment later.
#[test]
fn the_original_of_a_move_between_drives_outlives_the_daemon_until_the_copy_is_there() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    own.put("/moves.bin", vec![7_u8; 300_000]).expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    home.sh(r#"ls -R "$M/Folder/Plans" > /dev/null; cat "$M/moves.bin" > "$W/read""#);
    service.set_reach(Reach::Offline);
    home.sh(r#"mv "$M/moves.bin" "$M/Folder/Plans/""#);
    mount.crash();
    drop(mount);
    refuse_content(&service, &theirs);
    service.set_reach(Reach::Online);
    let mount = home.mount();
    let refused = || {
        let lines = service.request_lines();
        lines.iter().filter(|line| line.ends_with(" 503")).count()
    };
    wait::until("refused uploads", ARRIVAL, || refused() >= 2);
    assert!(
        own.exists("/moves.bin"),
        "the original went before the copy was there"
    );
    service.faults().clear();
    mount.sync();
    let copy = theirs.read("/Plans/moves.bin").expect("copy");
    assert_eq!(copy.len(), 300_000);
    wait::until("the end of the original", ARRIVAL, || {
        !own.exists("/moves.bin")
    });
    mount.unmount();
}

#[test]
fn numbers_stay_and_unsent_changes_are_sent_after_kill_9_although_nobody_looks() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    let number = |path: &str| {
        fs::metadata(home.mountpoint().join(path))
            .expect("stat")
            .ino()
    };
    let paths = [
        "Folder/Plans",
        "Folder/Plans/a.txt",
        "Folder/Plans/deep",
        "Folder/own.txt",
    ];
    let before = paths.map(number);
    let mut distinct = before.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), paths.len());
    service.set_reach(Reach::Offline);
    home.sh(r#"cd "$M/Folder/Plans"; printf unsent > unsent.txt; printf + >> a.txt"#);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
    let mount = home.mount();
    wait::until("what was not sent", ARRIVAL, || {
        text(&theirs, "/Plans/unsent.txt") == "unsent" && text(&theirs, "/Plans/a.txt") == "theirs+"
    });
    assert_eq!(paths.map(number), before);
    mount.unmount();
}

#[test]
fn removing_a_shortcut_never_deletes_what_it_leads_to() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(
        r#"cd "$M/Folder"; cat Plans/a.txt; ! rmdir Plans 2> /dev/null
        mkdir empty; ! mv -T empty Plans 2> /dev/null; test -e Plans/a.txt
        rm -r Plans; test ! -e Plans"#,
    );
    wait::until("the end of the shortcut", ARRIVAL, || {
        mount.sync();
        !own.exists("/Folder/Plans")
            && mount.status()["drives"]
                .as_array()
                .expect("list")
                .is_empty()
    });
    assert_eq!(text(&theirs, "/Plans/a.txt"), "theirs");
    assert_eq!(text(&theirs, "/Plans/deep/b.txt"), "deep");
    // It can be added again, and is as it was.
    let folder = theirs.entry("/Plans").expect("entry").id;
    own.add_shortcut("/Again", theirs.id(), &folder)
        .expect("shortcut");
    mount.sync();
    home.sh(
        r#"test "$(cat "$M/Again/a.txt")" = theirs; mv "$M/Again" "$M/Folder/Moved"
        test "$(cat "$M/Folder/Moved/deep/b.txt")" = deep"#,
    );
    mount.sync();
    assert!(own.exists("/Folder/Moved") && !own.exists("/Again"));
    // Removed there, with a change that was not sent: that is sent, and nothing else happens.
    service
        .faults()
        .add(FaultRule::on("put_content", FaultAction::status(503)));
    service
        .faults()
        .add(FaultRule::on("create_session", FaultAction::status(503)));
    home.sh(r#"printf kept > "$M/Folder/Moved/kept.txt""#);
    own.delete("/Folder/Moved").expect("delete");
    wait::until("the end of the shortcut", ARRIVAL, || {
        let _fails = home.try_sync(1);
        !mount.at("Folder/Moved").exists()
    });
    service.faults().clear();
    wait::until("what was not sent", ARRIVAL, || {
        text(&theirs, "/Plans/kept.txt") == "kept"
    });
    assert_eq!(text(&theirs, "/Plans/a.txt"), "theirs");
    mount.unmount();
}

/// Somebody removes the shortcut while a file lies in the folder that never leaves this machine.
#[test]
fn what_is_only_here_of_a_folder_that_is_not_shown_any_more_is_kept_and_named() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(
        r#"ls "$M/Folder/Plans/deep"; printf 'half a film' > "$M/Folder/Plans/deep/film.part""#,
    );
    mount.sync();
    service
        .default_drive()
        .delete("/Folder/Plans")
        .expect("delete");
    wait::until("the end of the shortcut", ARRIVAL, || {
        mount.sync();
        let drives = mount.status()["drives"].clone();
        drives.as_array().is_some_and(Vec::is_empty) && !mount.at("Folder/Plans").exists()
    });
    let told = mount.status()["conflicts"].clone();
    assert_eq!(told[0]["path"], "deep/film.part", "{told}");
    let kept = told[0]["copy"].as_str().expect("path");
    assert_eq!(fs::read(kept).expect("kept"), b"half a film");
    assert!(!theirs.exists("/Plans/deep/film.part") && theirs.exists("/Plans/a.txt"));
    mount.unmount();
}

#[test]
fn a_folder_that_cannot_be_reached_is_shown_and_says_why() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let home = Home::signed_in(&service);
    let pattern = format!("*{}*", theirs.id().replace('!', "*"));
    service.faults().add(FaultRule {
        path: Some(pattern),
        action: FaultAction::status(403),
        ..FaultRule::default()
    });
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let listed = fs::read_dir(mount.at("Folder/Plans")).expect_err("denied");
    assert_eq!(listed.kind(), ErrorKind::PermissionDenied, "{listed}");
    home.sh(r#"test "$(ls "$M/Folder")" = "$(printf 'Plans\nown.txt')"; cat "$M/Folder/own.txt""#);
    wait::until("the reason in status", ARRIVAL, || {
        followed(&mount.status())["state"] == "no-access"
    });
    // The rest of the mount is in step.
    mount.sync();
    service.faults().clear();
    wait::until("access", ARRIVAL, || {
        fs::read(mount.at("Folder/Plans/a.txt")).is_ok_and(|bytes| bytes == b"theirs")
    });
    mount.unmount();
    // Offline from the start, what is known is there, and what is not says so in time.
    theirs.put("/Other/x.txt", "x").expect("file");
    let other = theirs.entry("/Other").expect("entry").id;
    let own = service.default_drive();
    own.add_shortcut("/Never seen", theirs.id(), &other)
        .expect("shortcut");
    let mount = home.mount();
    mount.sync();
    mount.unmount();
    service.set_reach(Reach::Offline);
    let mount = home.mount();
    home.sh(r#"test "$(cat "$M/Folder/Plans/a.txt")" = theirs; test -d "$M/Never seen""#);
    let begun = Instant::now();
    let listed = fs::read_dir(mount.at("Never seen")).expect_err("unreachable");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let errno = listed
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    assert!(
        matches!(
            errno,
            Some(rustix::io::Errno::TIMEDOUT | rustix::io::Errno::NETDOWN)
        ),
        "{listed}"
    );
    service.set_reach(Reach::Online);
    mount.unmount();
}

#[test]
fn shortcuts_that_would_have_no_end_are_not_followed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let own = service.default_drive();
    let folder = own.entry("/Folder").expect("entry").id;
    let plans = theirs.entry("/Plans").expect("entry").id;
    own.add_shortcut("/Folder/Self", own.id(), &folder)
        .expect("shortcut");
    own.add_shortcut("/Twice", theirs.id(), &plans)
        .expect("shortcut");
    theirs
        .add_shortcut("/Plans/Back", own.id(), &folder)
        .expect("shortcut");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"ls "$M/Folder/Plans" > /dev/null"#);
    for path in ["Folder/Self", "Folder/Plans/Back"] {
        let listed = fs::read_dir(mount.at(path)).expect_err(path);
        assert_eq!(
            listed.raw_os_error(),
            Some(rustix::io::Errno::LOOP.raw_os_error()),
            "{path}"
        );
        assert!(mount.at(path).is_dir());
    }
    let found = home.sh(r#"cd "$M"; find . 2> /dev/null | wc -l || true"#);
    assert!(
        found.trim().parse::<u32>().is_ok_and(|count| count < 20),
        "{found}"
    );
    home.sh(r#"rmdir "$M/Folder/Self""#);
    mount.sync();
    assert!(own.exists("/Folder/own.txt") && !own.exists("/Folder/Self"));
    mount.unmount();
}

/// A third drive, with a folder that a shortcut in the shared folder leads to, and back from there.
fn shared_on(service: &Service, theirs: &DriveHandle) -> DriveHandle {
    let third = service.add_drive(DriveSpec::default());
    let docs = third.mkdir("/Docs").expect("folder");
    third.put("/Docs/d.txt", "third").expect("file");
    third.put("/private.txt", "private").expect("file");
    let plans = theirs.entry("/Plans").expect("entry").id;
    theirs
        .add_shortcut("/Plans/Docs", third.id(), &docs)
        .expect("shortcut");
    third
        .add_shortcut("/Docs/Back", theirs.id(), &plans)
        .expect("shortcut");
    third
}

#[test]
fn fe_03_a_shortcut_in_a_followed_folder_is_followed_and_an_endless_one_is_not() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let third = shared_on(&service, &theirs);
    let file = third.put("/single.txt", "single").expect("file");
    theirs
        .add_shortcut("/Plans/single.txt", third.id(), &file)
        .expect("shortcut");
    let home = Home::signed_in(&service);
    let mut mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(
        r#"cd "$M/Folder/Plans"; test "$(cat Docs/d.txt)" = third; printf + >> Docs/d.txt
        printf new > Docs/new.txt; test "$(cat single.txt)" = single; printf + >> single.txt
        test ! -e Docs/private.txt; mv Docs Papers; test "$(cat Papers/new.txt)" = new"#,
    );
    mount.sync();
    assert_eq!(text(&third, "/Docs/d.txt"), "third+");
    assert_eq!(text(&third, "/Docs/new.txt"), "new");
    assert_eq!(text(&third, "/single.txt"), "single+");
    assert!(theirs.exists("/Plans/Papers") && !theirs.exists("/Plans/Docs"));
    let listed = fs::read_dir(mount.at("Folder/Plans/Papers/Back")).expect_err("loop");
    let looped = rustix::io::Errno::LOOP.raw_os_error();
    assert_eq!(listed.raw_os_error(), Some(looped));
    third.put("/Docs/later.txt", "later").expect("file");
    wait::until("changes of others", ARRIVAL, || {
        fs::read(mount.at("Folder/Plans/Papers/later.txt")).is_ok_and(|now| now == b"later")
    });
    let status = mount.status();
    let drives = status["drives"].as_array().expect("list").iter();
    let paths: Vec<_> = drives.filter_map(|one| one["path"].as_str()).collect();
    assert_eq!(paths, ["Folder/Plans", "Folder/Plans/Papers"], "{status:#}");
    let inside = "Folder/Plans/Papers/d.txt";
    assert_eq!(mount.status_of(inside)["status"], "cached");
    let number = || {
        fs::metadata(home.mountpoint().join(inside))
            .expect("stat")
            .ino()
    };
    let before = number();
    service.set_reach(Reach::Offline);
    home.sh(r#"cd "$M/Folder/Plans/Papers"; printf unsent > unsent.txt"#);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
    let mount = home.mount();
    wait::until("what was not sent", ARRIVAL, || {
        text(&third, "/Docs/unsent.txt") == "unsent"
    });
    home.sh(r#"ls "$M/Folder/Plans/Papers""#);
    assert_eq!(number(), before);
    mount.unmount();
}

#[test]
fn fe_03_removing_a_shortcut_in_a_followed_folder_never_deletes_what_it_leads_to() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let theirs = shared(&service);
    let third = shared_on(&service, &theirs);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    home.sh(
        r#"cd "$M/Folder/Plans"; cat Docs/d.txt; ! rmdir Docs 2> /dev/null
        rmdir Docs/Back; rm -r Docs; test ! -e Docs"#,
    );
    let shown = || mount.status()["drives"].as_array().expect("list").len();
    wait::until("the end of the shortcut", ARRIVAL, || {
        mount.sync();
        !theirs.exists("/Plans/Docs") && shown() == 1
    });
    assert_eq!(text(&third, "/Docs/d.txt"), "third");
    // Added again, and removed by others with a change that was not sent: that is sent.
    let docs = third.entry("/Docs").expect("entry").id;
    theirs
        .add_shortcut("/Plans/Again", third.id(), &docs)
        .expect("shortcut");
    mount.sync();
    home.sh(r#"test "$(cat "$M/Folder/Plans/Again/d.txt")" = third"#);
    for op in ["put_content", "create_session"] {
        service
            .faults()
            .add(FaultRule::on(op, FaultAction::status(503)));
    }
    home.sh(r#"printf kept > "$M/Folder/Plans/Again/kept.txt""#);
    theirs.delete("/Plans/Again").expect("delete");
    wait::until("the end of the shortcut", ARRIVAL, || {
        let _fails = home.try_sync(1);
        !mount.at("Folder/Plans/Again").exists()
    });
    service.faults().clear();
    wait::until("what was not sent", ARRIVAL, || {
        text(&third, "/Docs/kept.txt") == "kept"
    });
    wait::until("the end of the folder", ARRIVAL, || {
        mount.sync();
        shown() == 1
    });
    assert_eq!(text(&third, "/Docs/d.txt"), "third");
    mount.unmount();
}
