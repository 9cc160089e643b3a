//! What `close` and `fsync` accepted survives the death of the daemon.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Need, Service, needs, tree, wait};

use crate::files::{self, GIB, MIB};

/// Largest fragment a client may send, in bytes: 60 MiB, rounded down to the unit of 320 KiB. Ours
/// are smaller; the test measures how large.
const FRAGMENT_MAX: u64 = 192 * 327_680;

#[test]
fn a_large_upload_goes_on_where_it_was_after_kill_9() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount_with(MountSpec::lasting(300));
    mount.sync();
    let before = service.last_request();
    let pause = FaultRule::on("upload_fragment", FaultAction::Delay { ms: 100 });
    service.faults().add(pause);
    files::write(&mount.at("large.bin"), GIB, 1);
    let received = || service.sessions()[0]["received"].as_u64().unwrap_or(0);
    wait::until("90 % on the service", wait::secs(120), || {
        received() >= GIB / 10 * 9
    });
    mount.crash();
    let acknowledged = received();
    assert!(acknowledged < GIB, "killed too late to prove anything");
    let first = service.upload_since(before);
    assert_eq!(first.sessions, 1);
    let fragment = acknowledged / (first.fragments - 1).max(1);
    assert!(fragment <= FRAGMENT_MAX, "{fragment}");
    service.faults().clear();
    drop(mount);

    let mount = home.mount_with(MountSpec::lasting(300));
    mount.sync();
    let all = service.upload_since(before);
    assert_eq!(all.sessions, 1, "the same session: {all:?}");
    assert_eq!(all.puts, 0, "{all:?}");
    println!(
        "killed after {} MiB of 1024: {} bytes sent twice, a fragment has {fragment}",
        acknowledged / MIB,
        all.bytes - GIB
    );
    assert!(
        all.bytes < GIB + fragment,
        "sent twice: {} bytes, a fragment is {fragment}",
        all.bytes - GIB
    );
    let drive = service.default_drive();
    assert_eq!(drive.dump().len(), 1, "nothing is duplicated");
    assert_eq!(drive.entry("/large.bin").expect("entry").versions, 1);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn five_hundred_small_files_arrive_although_the_daemon_was_killed_right_after_the_last_close() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    fs::create_dir(mount.at("many")).expect("folder");
    for number in 0..500 {
        let path = mount.at(&format!("many/file {number}.txt"));
        fs::write(path, format!("content of {number}")).expect("written");
    }
    mount.crash();
    drop(mount);
    let drive = service.default_drive();
    let mount = home.mount();
    mount.sync();
    assert_eq!(drive.dump().len(), 501, "the folder and its files, once");
    for number in 0..500 {
        let body = drive.read(&format!("/many/file {number}.txt"));
        let expected = format!("content of {number}");
        assert_eq!(body.as_deref(), Some(expected.as_bytes()), "{number}");
    }
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_daemon_killed_while_it_asks_for_upload_sessions_leaves_no_name_blocked() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    // Every session is made, and none of the answers is heard.
    service
        .faults()
        .add(FaultRule::on("create_session", FaultAction::DropAfter));
    fs::create_dir(mount.at("dir")).expect("folder");
    for number in 0..8 {
        let path = mount.at(&format!("dir/{number}"));
        fs::write(path, files::noise(number, 10_000)).expect("written");
    }
    wait::until("a session for each file", wait::secs(60), || {
        service.sessions().as_array().is_some_and(|s| s.len() == 8)
    });
    mount.crash();
    service.faults().clear();
    drop(mount);
    let mount = home.mount();
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn what_fsync_accepted_is_there_although_the_file_was_never_closed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/old.txt", "0123456789").expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let mut new = File::create(mount.at("new.txt")).expect("created");
    new.write_all(b"safe").expect("written");
    new.sync_all().expect("synced");
    let old = File::options()
        .write(true)
        .open(mount.at("old.txt"))
        .expect("opened");
    old.write_all_at(b"AB", 2).expect("written");
    old.sync_data().expect("synced");
    mount.crash();
    drop((new, old));
    drop(mount);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("new.txt")).expect("read"), b"safe");
    assert_eq!(fs::read(mount.at("old.txt")).expect("read"), b"01AB456789");
    mount.sync();
    assert_eq!(drive.read("/new.txt").as_deref(), Some(b"safe".as_slice()));
    assert_eq!(
        drive.read("/old.txt").as_deref(),
        Some(b"01AB456789".as_slice())
    );
    mount.unmount();
}

#[test]
fn renames_and_deletions_survive_kill_9() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..20 {
        let put = drive.put(&format!("/a/{number}"), format!("{number}").as_str());
        put.expect("file");
    }
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    home.sh(r#"cd "$M"; ls a > /dev/null; mkdir b
        for i in 0 1 2 3 4 5 6 7 8 9; do mv a/$i b/moved-$i; done
        rm a/10 a/11 a/12; mv b c; mkdir a/new; echo x > a/new/x"#);
    mount.crash();
    drop(mount);
    let mount = home.mount();
    let here = tree::of_directory(mount.path());
    assert!(here.contains_key("/c/moved-3") && !here.contains_key("/a/10"));
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 2 + 17 + 2);
    mount.unmount();
}

#[test]
fn answers_that_get_lost_do_not_duplicate_anything() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    // The address of a session is lost with the answer that had it, and the service keeps the name
    // reserved until the session has run out. Small files need not wait for that.
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/old.txt", "old").expect("file");
    drive.put("/gone.txt", "gone").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    for op in [
        "mkdir",
        "create_session",
        "upload_fragment",
        "put_content",
        "patch",
        "delete",
    ] {
        let lost = FaultRule::on(op, FaultAction::DropAfter).times(2);
        service.faults().add(lost);
    }
    home.sh(
        r#"cd "$M"; mkdir -p new/er; echo text > new/er/text; : > new/empty
        mv old.txt new/renamed.txt; rm gone.txt; head -c 300000 /dev/zero > new/zeros"#,
    );
    mount.sync();
    service.faults().clear();
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let paths: Vec<String> = drive.dump().into_iter().map(|e| e.path).collect();
    let expected = [
        "/new",
        "/new/empty",
        "/new/er",
        "/new/er/text",
        "/new/renamed.txt",
        "/new/zeros",
    ];
    assert_eq!(paths, expected);
    // Times that are sent on their own make a version on this kind of drive.
    assert!(drive.entry("/new/zeros").expect("entry").versions <= 2);
    mount.unmount();
}

#[test]
fn a_time_whose_answer_was_lost_is_not_set_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/old.txt", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let before = drive.entry("/old.txt").expect("entry").versions;
    let lost = FaultRule::on("patch", FaultAction::DropAfter).times(1);
    service.faults().add(lost);
    home.sh(r#"touch -d "2001-02-03 04:05:06 UTC" "$M/old.txt""#);
    mount.sync();
    assert_eq!(service.requests().count("patch"), 1);
    // Every change makes a version on this kind of drive.
    assert_eq!(drive.entry("/old.txt").expect("entry").versions, before + 1);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn an_empty_file_or_link_whose_answer_was_lost_is_recognised_and_not_sent_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let before = service.last_request();
    service
        .faults()
        .add(FaultRule::on("put_content", FaultAction::DropAfter).times(2));
    home.sh(r#"cd "$M"; : > empty; ln -s empty link"#);
    mount.sync();
    // One that took effect for each, and at most one that was told so: the service may announce
    // them before.
    let puts = service.upload_since(before).puts;
    assert!((2..=4).contains(&puts), "{puts}");
    assert_eq!(drive.dump().len(), 2);
    // Times that are sent on their own make a version on this kind of drive.
    for path in ["/empty", "/link.rclonelink"] {
        let versions = drive.entry(path).expect(path).versions;
        assert!(versions <= 2, "{path}: {versions}");
    }
    mount.unmount();
}

#[test]
fn a_time_that_a_program_set_on_an_open_file_survives_kill_9() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = mount.at("photo.jpg");
    let mut file = File::create(&path).expect("created");
    file.write_all(b"a picture").expect("written");
    let taken = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(taken).expect("time set");
    mount.crash();
    drop((file, mount));
    let mount = home.mount();
    let found = fs::metadata(&path).expect("metadata");
    assert_eq!(found.modified().expect("time"), taken);
    assert_eq!(fs::read(&path).expect("read"), b"a picture");
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn an_empty_file_stays_empty_when_the_daemon_is_killed_at_the_start_of_a_later_write() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    for name in ["once", "twice"] {
        let mut file = File::create(mount.at(name)).expect("created");
        file.write_all(b"older").expect("written");
        file.sync_all().expect("synced");
        drop(file);
        // What is certain is kept until this is.
        drop(File::create(mount.at(name)).expect("emptied"));
    }
    let open = |name| {
        let file = File::options().write(true).open(mount.at(name));
        file.expect("opened")
    };
    // The body is made ready for a write that turns out to be too large.
    let once = open("once");
    let far = 1 << 40;
    assert!(once.write_all_at(b"x", far).is_err());
    let twice = open("twice");
    twice.write_all_at(b"never saved", 0).expect("written");
    twice.set_len(0).expect("emptied");
    mount.crash();
    drop((once, twice, mount));

    let mount = home.mount();
    for name in ["once", "twice"] {
        assert_eq!(fs::read(mount.at(name)).expect("file"), b"", "{name}");
    }
    mount.sync();
    let drive = service.default_drive();
    assert_eq!(drive.read("/once").as_deref(), Some(&b""[..]));
    assert_eq!(drive.read("/twice").as_deref(), Some(&b""[..]));
    mount.unmount();
}

/// What was closed a moment before a power cut is in doubt: the file is what is certain, which is nothing
/// here, and the bytes are kept where `status` says.
#[test]
fn what_a_power_cut_leaves_in_doubt_is_set_aside_and_named() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let mut home = Home::new(&service);
    let boot = home.path("boot");
    fs::write(&boot, "before the cut").expect("boot id");
    home.set_env("ONEDRIVEFS_BOOT_ID_FILE", boot.to_str().expect("UTF-8"));
    home.log_in();
    let mut mount = home.mount();
    mount.sync();
    service.set_reach(Reach::Offline);
    fs::create_dir(mount.at("dir")).expect("folder");
    fs::write(mount.at("dir/closed.txt"), "just closed").expect("written");
    // Sooner than it would be put on disk by itself.
    mount.crash();
    drop(mount);
    fs::write(&boot, "after the cut").expect("boot id");
    for _mount in 0..2 {
        let mount = home.mount();
        assert_eq!(fs::read(mount.at("dir/closed.txt")).expect("file"), b"");
        let told = mount.status()["conflicts"].clone();
        assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
        assert_eq!(told[0]["path"], "dir/closed.txt", "{told}");
        let kept = told[0]["copy"].as_str().expect("path");
        assert_eq!(fs::read(kept).expect("set aside"), b"just closed");
        let shown = home.run(&["status"]).ok();
        assert!(shown.contains(kept), "{shown}");
        mount.unmount();
    }
}
