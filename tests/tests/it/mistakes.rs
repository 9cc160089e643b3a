//! Whatever is wrong is said in a sentence with the next step, and costs nothing that was saved.

use std::fs;
use std::path::Path;
use std::process::Command;

use onedrivefs_sim::{ClientSpec, DeviceOutcome, Reach};
use onedrivefs_tests::disk::SmallDisk;
use onedrivefs_tests::{Home, Need, Ran, Service, Who, needs, process, tree, wait};

use crate::files;

const LOGIN: &[&str] = &["login", "--device-code", "--client-id", "test"];

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_wrong_mountpoint_is_explained() {
    let service = Service::start();
    let home = Home::signed_in(&service);
    fs::write(home.path("file"), "x").expect("file");
    fs::create_dir(home.path("full")).expect("directory");
    fs::write(home.path("full/file"), "x").expect("file");
    let refused = |place: &str, reason: &str| {
        home.run(&["mount", utf8(&home.path(place))])
            .explained(1, reason);
    };
    refused("missing", "does not exist");
    refused("file", "not a directory");
    refused("full", "not empty");
    assert_eq!(fs::read(home.path("full/file")).expect("file"), b"x");
}

#[test]
fn a_mountpoint_of_somebody_else_is_explained() {
    if !needs::met(&[Need::FuseForUsers, Need::Root]) {
        return;
    }
    let service = Service::start();
    let home = Home::of(&service, Who::Nobody);
    home.log_in();
    fs::create_dir(home.path("roots")).expect("directory");
    let refused = home.run(&["mount", utf8(&home.path("roots"))]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    refused.explained(1, "roots");
}

#[test]
fn a_mountpoint_in_use_is_explained() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let other = Home::signed_in(&service);
    let mount = home.mount();
    let refused = other.run(&["mount", utf8(mount.path())]);
    refused.explained(1, "already a mountpoint");
    mount.unmount();
}

/// Runs a command of a home in a mount namespace that a script has prepared.
fn in_namespace(home: &Home<'_>, prepare: &str, arguments: &[&str]) -> Ran {
    let mut command: Command = home.program("unshare");
    command
        .args(["-m", "sh", "-euc", &format!("{prepare}\nexec \"$@\""), "sh"])
        .arg(home.binary())
        .args(arguments);
    process::run(command, wait::secs(30))
}

#[test]
fn a_machine_without_fuse_is_explained() {
    if !needs::met(&[Need::Namespaces]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let bare_dev = "mount -t tmpfs none /dev
        mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9";
    let mountpoint = home.mountpoint();
    let ran = in_namespace(&home, bare_dev, &["mount", utf8(&mountpoint)]);
    ran.explained(1, "/dev/fuse");
    let doctor = in_namespace(&home, bare_dev, &["doctor"]);
    assert_eq!(doctor.code, Some(1), "{}", doctor.out);
    assert!(doctor.out.contains("/dev/fuse"), "{}", doctor.out);
}

#[test]
fn fuse_that_is_closed_to_ordinary_users_is_explained() {
    if !needs::met(&[
        Need::Namespaces,
        Need::FuseForUsers,
        Need::Program("setpriv"),
    ]) {
        return;
    }
    let service = Service::start();
    let home = Home::of(&service, Who::Nobody);
    home.log_in();
    // Root prepares the namespace, then becomes the user.
    let mut command = Command::new("unshare");
    let prepare = "mount -t tmpfs none /dev
        mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9
        mknod -m 600 /dev/fuse c 10 229
        exec setpriv --reuid=nobody --clear-groups --regid=nogroup \"$@\"";
    command.args(["-m", "sh", "-euc", prepare, "sh"]);
    let own = home.command(&["mount", utf8(&home.mountpoint())]);
    command.arg(own.get_program()).args(own.get_args());
    command.env_clear();
    for (name, value) in own.get_envs() {
        command.env(name, value.expect("set"));
    }
    process::run(command, wait::secs(30)).explained(1, "/dev/fuse");
}

#[test]
fn a_missing_fusermount_is_explained_to_an_ordinary_user() {
    if !needs::met(&[Need::FuseForUsers]) {
        return;
    }
    let service = Service::start();
    let mut home = Home::of(&service, Who::Nobody);
    home.log_in();
    home.set_env("FUSERMOUNT_PATH", "/nonexistent/fusermount3");
    let refused = home.try_mount(&[]);
    refused.explained(1, "fusermount3");
    assert!(refused.err.contains("fuse3"), "{}", refused.err);
}

#[test]
fn a_wrong_configuration_is_explained_with_its_line() {
    let service = Service::start();
    let home = Home::signed_in(&service);
    for (text, reason) in [
        ("poll = 30\ncahce_size = \"1G\"\n", "line 2"),
        ("cache_size = \"much\"\n", "cache_size"),
        ("poll = \n", "line 1"),
        ("names = \"maybe\"\n", "names"),
        ("ca_bundle = \"/nonexistent.pem\"\n", "/nonexistent.pem"),
    ] {
        home.configure(text);
        home.try_mount(&[]).explained(2, reason);
    }
    home.configure("");
    home.try_mount(&["--option", "pool=1"]).explained(2, "pool");
    home.try_mount(&["--account", "nobody-here"])
        .explained(1, "nobody-here");
    let usage = home.run(&["mount"]);
    assert_eq!(usage.code, Some(2), "{}", usage.err);
}

#[test]
fn sign_ins_that_fail_are_explained_and_leave_nothing() {
    let service = Service::with(|config| {
        config.clients = vec![ClientSpec {
            id: "test".into(),
            ..ClientSpec::default()
        }];
    });
    let home = Home::new(&service);
    home.run(&["login"]).explained(2, "client");
    let wrong = home.run(&["login", "--device-code", "--client-id", "wrong"]);
    assert!(
        matches!(wrong.code, Some(1 | 2)),
        "{:?} {}",
        wrong.code,
        wrong.err
    );
    wrong.explained(wrong.code.expect("code"), "client");
    service.set_knobs(|knobs| knobs.device_outcome = DeviceOutcome::Decline);
    home.run(LOGIN).explained(1, "declined");
    service.set_knobs(|knobs| {
        knobs.device_outcome = DeviceOutcome::Expire;
        knobs.device_ttl_s = 2;
    });
    home.run(LOGIN).explained(1, "expired");
    service.set_reach(Reach::Offline);
    home.run(LOGIN).explained(1, "");
    let unreachable = home.run(LOGIN);
    assert!(unreachable.err.contains("network"), "{}", unreachable.err);
    assert!(!home.account_state().join("token.json").exists());
    service.set_reach(Reach::Online);
    service.set_knobs(|knobs| knobs.device_outcome = DeviceOutcome::Approve);
    home.run(LOGIN).ok();
    home.try_mount(&["--drive", "b!nothing"])
        .explained(1, "b!nothing");
}

#[test]
fn an_expired_sign_in_keeps_what_is_written_until_the_next_one() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/cached", "cached").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    home.sh(r#"cat "$M/cached""#);
    service.revoke_refresh_tokens();
    service.expire_tokens();
    home.sh(r#"echo kept > "$M/new"; cat "$M/cached""#);
    wait::until("the state", wait::secs(30), || {
        mount.status()["state"] == "needs-login"
    });
    home.try_sync(5).explained(1, "sign-in");
    home.log_in();
    wait::until("the file", wait::secs(60), || drive.exists("/new"));
    mount.wait_sent(wait::secs(30));
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_full_disk_is_told_at_once_and_loses_nothing() {
    if !needs::met(&[Need::Fuse, Need::Namespaces]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::new(&service);
    let disk = SmallDisk::at(home.path("state"), 40);
    home.log_in();
    let mount = home.mount();
    fs::write(mount.at("first"), "first").expect("written");
    files::write(&home.work().join("large"), 40 << 20, 1);
    let full = home
        .sh(r#"if cp "$W/large" "$M/large" 2> "$W/error"; then echo no error; fi; cat "$W/error""#);
    assert!(full.contains("No space left on device"), "{full}");
    // The mount goes on, and a deletion makes room again.
    home.sh(r#"cat "$M/first"; ls -l "$M"; rm "$M/large""#);
    let room = || fs::write(mount.at("second"), "second");
    wait::until("room again", wait::secs(20), || room().is_ok());
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.read("/first").as_deref(), Some(b"first".as_slice()));
    mount.unmount();
    // Full before the start: what is there can still be read, and nothing is accepted that cannot
    // be kept.
    let _ballast = disk.fill();
    let mount = home.mount();
    assert_eq!(home.sh(r#"cat "$M/first""#), "first");
    let error = fs::write(mount.at("third"), vec![1; 100_000]).expect_err("full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    mount.unmount();
    fs::remove_dir_all(home.account_state()).expect("removed");
    let _more = disk.fill();
    home.run(LOGIN).explained(1, "space");
}

#[test]
fn a_read_only_state_directory_is_explained() {
    if !needs::met(&[Need::Fuse, Need::Namespaces]) {
        return;
    }
    let service = Service::start();
    let home = Home::new(&service);
    let disk = SmallDisk::at(home.path("state"), 24);
    home.log_in();
    let mount = home.mount();
    fs::write(mount.at("kept"), "kept").expect("written");
    mount.sync();
    mount.unmount();
    disk.make_read_only();
    home.try_mount(&[]).explained(1, "ead-only");
    home.run(LOGIN).explained(1, "ead-only");
}

#[test]
fn a_state_directory_of_somebody_else_is_explained() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let service = Service::start();
    let home = Home::of(&service, Who::Nobody);
    std::os::unix::fs::chown(home.path("state"), Some(0), Some(0)).expect("owner");
    home.run(LOGIN).explained(1, "ermission denied");
}
