//! However a mount ends, nothing of it stays behind and the next one works.

use std::fs;
use std::process::Command;

use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Home, Need, Service, Who, needs, process, wait};
use rustix::process::Signal;

/// Mounts, writes a file, ends the mount in some way, and expects the file on the service after
/// the next mount on the same directory.
fn assert_clean_end(who: Who, end: impl Fn(&Home<'_>, &mut onedrivefs_tests::Mount<'_>)) {
    let service = Service::start();
    let home = Home::of(&service, who);
    home.log_in();
    let mut mount = home.mount();
    home.sh(r#"echo kept > "$M/kept.txt""#);
    end(&home, &mut mount);
    let log = mount.log();
    assert!(!is_mounted(mount.path()), "the mount is still there");
    assert!(!log.contains("ERROR"), "{log}");
    let left: Vec<_> = fs::read_dir(home.path("run/onedrivefs"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "sock"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    drop(mount);
    let again = home.mount();
    assert_eq!(home.sh(r#"cat "$M/kept.txt""#), "kept\n");
    again.sync();
    assert_eq!(
        service.default_drive().read("/kept.txt").as_deref(),
        Some(b"kept\n".as_slice())
    );
    again.unmount();
}

fn by_signal(signal: Signal) {
    if needs::met(&[Need::Fuse]) {
        assert_clean_end(Who::Me, |_, mount| {
            let status = mount.signal(signal);
            assert!(status.success(), "{status}");
        });
    }
}

#[test]
fn ctrl_c_ends_a_mount_cleanly() {
    by_signal(Signal::INT);
}

#[test]
fn sigterm_ends_a_mount_cleanly() {
    by_signal(Signal::TERM);
}

fn by_command(home: &Home<'_>, mount: &mut onedrivefs_tests::Mount<'_>) {
    let path = mount.path().to_owned();
    home.run(&["unmount", path.to_str().expect("UTF-8")]).ok();
    assert!(
        !is_mounted(&path),
        "unmount returned before the mount was gone"
    );
    let status = mount.wait_end();
    assert!(status.success(), "{status}");
}

#[test]
fn the_unmount_command_ends_a_mount_cleanly() {
    if needs::met(&[Need::Fuse]) {
        assert_clean_end(Who::Me, by_command);
    }
}

#[test]
fn the_unmount_command_ends_an_ordinary_users_mount_cleanly() {
    if needs::met(&[Need::FuseForUsers]) {
        assert_clean_end(Who::Nobody, by_command);
    }
}

fn by_fusermount(home: &Home<'_>, mount: &mut onedrivefs_tests::Mount<'_>) {
    let mut command = home.program("fusermount3");
    command.arg("-u").arg(mount.path());
    process::run(command, wait::secs(20)).ok();
    let status = mount.wait_end();
    assert!(status.success(), "{status}");
}

#[test]
fn fusermount_ends_a_mount_cleanly() {
    if needs::met(&[Need::Fuse, Need::Program("fusermount3")]) {
        assert_clean_end(Who::Me, by_fusermount);
    }
}

#[test]
fn fusermount_ends_an_ordinary_users_mount_cleanly() {
    if needs::met(&[Need::FuseForUsers]) {
        assert_clean_end(Who::Nobody, by_fusermount);
    }
}

/// As a process does that is just being started, which has for a moment what its parent has open.
#[test]
fn a_use_that_ends_by_itself_does_not_keep_a_mount() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let mut user = Command::new("sleep")
        .arg("0.2")
        .current_dir(mount.path())
        .spawn()
        .expect("program");
    by_command(&home, &mut mount);
    assert!(user.wait().expect("program").success());
}

#[test]
fn a_signal_ends_a_mount_that_is_in_use() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    service.default_drive().put("/a.txt", "text").expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let open = fs::File::open(mount.at("a.txt")).expect("open file");
    let busy = home.run(&["unmount", mount.path().to_str().expect("UTF-8")]);
    busy.explained(1, "in use");
    assert!(is_mounted(mount.path()));
    let status = mount.signal(Signal::TERM);
    assert!(status.success(), "{status}");
    assert!(!is_mounted(mount.path()));
    drop(open);
}

fn mounted_again_after_a_crash(who: Who) {
    let service = Service::start();
    let home = Home::of(&service, who);
    home.log_in();
    let mut mount = home.mount();
    home.sh(r#"echo kept > "$M/kept.txt""#);
    mount.crash();
    assert!(is_mounted(mount.path()), "a crash leaves the mount behind");
    std::mem::forget(mount);
    let again = home.mount();
    assert_eq!(home.sh(r#"cat "$M/kept.txt""#), "kept\n");
    again.sync();
    assert!(service.default_drive().exists("/kept.txt"));
    again.unmount();
}

#[test]
fn after_kill_9_the_next_mount_on_the_same_directory_works() {
    if needs::met(&[Need::Fuse]) {
        mounted_again_after_a_crash(Who::Me);
    }
}

#[test]
fn after_kill_9_an_ordinary_users_next_mount_works() {
    if needs::met(&[Need::FuseForUsers]) {
        mounted_again_after_a_crash(Who::Nobody);
    }
}

#[test]
fn unmount_frees_the_directory_of_a_killed_daemon() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.crash();
    let path = mount.path().to_owned();
    home.run(&["unmount", path.to_str().expect("UTF-8")]).ok();
    assert!(!is_mounted(&path));
    assert_eq!(fs::read_dir(&path).expect("directory").count(), 0);
}

#[test]
fn a_second_daemon_on_the_same_drive_is_refused_and_names_the_first() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let other = home.make_dir("other");
    let refused = home.run(&["mount", other.to_str().expect("UTF-8")]);
    refused.explained(1, &mount.pid().to_string());
    assert!(!is_mounted(&other));
    // The first goes on as if nothing had happened.
    home.sh(r#"echo fine > "$M/fine""#);
    mount.sync();
    mount.unmount();
}

#[test]
fn the_demo_starts_shows_a_drive_and_leaves_nothing_behind() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::new(&service);
    let place = home.path("demo");
    let tmp = home.make_dir("tmp");
    let log = fs::File::create(home.path("demo.log")).expect("log");
    let mut command: Command = home.command(&["demo"]);
    command
        .arg(&place)
        .env("TMPDIR", &tmp)
        .stdout(log.try_clone().expect("log"))
        .stderr(log);
    let mut child = command.spawn().expect("demo");
    let greeted = || fs::read_to_string(home.path("demo.log")).unwrap_or_default();
    wait::until("the greeting of the demo", wait::secs(30), || {
        greeted().contains("mounted at")
    });
    let listed = home
        .sh("ls -lR \"$M/../demo\"; tail -c 4096 \"$M/../demo/Videos/holiday-2025.mp4\" | wc -c");
    assert!(
        listed.contains("Welcome.md") && listed.ends_with("4096\n"),
        "{listed}"
    );
    home.sh("cp -r /etc/skel \"$M/../demo/Projects/\"; rm \"$M/../demo/Welcome.md\"");
    home.run(&["sync", place.to_str().expect("UTF-8")]).ok();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).expect("signal");
    let status = process::wait(&mut child, wait::secs(30));
    if status.is_none() {
        drop(child.kill());
    }
    assert!(
        status.is_some_and(|s| s.success()),
        "{status:?}\n{}",
        greeted()
    );
    assert!(!place.exists(), "the mountpoint is still there");
    assert_eq!(
        fs::read_dir(&tmp).expect("directory").count(),
        0,
        "files are left"
    );
}
