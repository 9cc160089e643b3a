//! What the configuration says about names, owners and modes holds on the mount.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use onedrivefs_sim::{DriveKind, Reach, SimConfig};
use onedrivefs_tests::{Home, Need, Service, needs, wait};

/// `ENAMETOOLONG`, for which the standard library has no name of its own.
fn is_too_long<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::InvalidFilename)
}

#[test]
fn owner_and_modes_are_those_of_the_configuration_until_a_program_sets_others() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    service
        .default_drive()
        .put("/Folder/file", "x")
        .expect("file");
    let home = Home::signed_in(&service);
    home.configure("umask = \"027\"\ngid = 4711\n");
    let mount = home.mount();
    let shown = home.sh(r#"stat -c '%a %g %U' "$M/Folder" "$M/Folder/file""#);
    let user = home.sh("id -un");
    let user = user.trim();
    assert_eq!(shown, format!("750 4711 {user}\n640 4711 {user}\n"));
    home.sh(
        r#"cd "$M"; umask 077; echo x > own; test "$(stat -c %a own)" = 600
        chmod 644 Folder/file; test "$(stat -c %a Folder/file)" = 644"#,
    );
    mount.unmount();
    let mount = home.mount_args(&[
        "--option",
        "file_mode=444",
        "--option",
        "dir_mode=555",
        "--option",
        "uid=4712",
    ]);
    let shown = home.sh(r#"stat -c '%a %u' "$M/Folder" "$M/Folder/file" "$M/own""#);
    assert_eq!(
        shown, "555 4712\n644 4712\n600 4712\n",
        "what programs set stays"
    );
    mount.unmount();
}

#[test]
fn times_modes_and_attributes_outlive_a_restart() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(
        r#"cd "$M"; echo x > file; chmod 750 file; mkdir folder; chmod 700 folder
        python3 -c 'import os
os.setxattr("file", "user.comment", b"kept \x00 whole"); os.setxattr("folder", "user.tag", b"1")
assert sorted(os.listxattr("folder"))[-1] == "user.tag"
for name, code in ("security.x", 95), ("trusted.x", 95), ("user.onedrive.id", 1):
    try: os.setxattr("file", name, b"x"); raise SystemExit(name)
    except OSError as error: assert error.errno == code, error'
        touch -d '2001-02-03 04:05:06.123456789 UTC' file folder"#,
    );
    mount.sync();
    mount.unmount();
    let mount = home.mount();
    let shown = home.sh(
        r#"cd "$M"; stat -c '%a %y' file folder; python3 -c 'import os
assert os.getxattr("file", "user.comment") == b"kept \x00 whole"
assert os.getxattr("folder", "user.tag") == b"1"
os.removexattr("file", "user.comment"); assert "user.comment" not in os.listxattr("file")'"#,
    );
    let time = "2001-02-03 04:05:06.123456789 +0000";
    assert_eq!(shown, format!("750 {time}\n700 {time}\n"));
    mount.unmount();
}

#[test]
fn attributes_tell_what_the_service_knows_of_a_file() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/file", "text").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let told = home.sh(r#"cd "$M"; python3 -c '
import os
for name in "id", "hash", "etag", "status", "weburl":
    print(os.getxattr("file", "user.onedrive." + name).decode())'"#);
    let told: Vec<_> = told.lines().collect();
    let file = drive.entry("/file").expect("file");
    let hash = file.hash.expect("hash");
    assert_eq!(told[..4], [&file.id, &hash, &file.etag, "cloud"]);
    assert!(told[4].ends_with("/file"), "{told:?}");
    // Of what the service does not have there is nothing to tell.
    service.set_reach(Reach::Offline);
    let names = home.sh(
        r#"cd "$M"; echo x > new; cat new > /dev/null; python3 -c 'import os
print(*sorted(os.listxattr("new")))'"#,
    );
    assert_eq!(names, "user.onedrive.status\n");
    service.set_reach(Reach::Online);
    mount.unmount();
}

#[test]
fn symbolic_links_are_small_files_for_other_clients_and_links_for_this_one() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive
        .put("/theirs.rclonelink", "Folder/file")
        .expect("file");
    drive.put("/Folder/file", "text").expect("file");
    // The same name with and without the suffix: both are to be reached.
    drive.put("/both", "a file").expect("file");
    drive.put("/both.rclonelink", "Folder").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(
        r#"cd "$M"; test "$(readlink theirs)" = Folder/file; test "$(cat theirs)" = text
        ln -s ../Folder/file Folder/ours; test "$(cat Folder/ours)" = text
        ln -s /nowhere dangling; mv dangling moved; test "$(readlink moved)" = /nowhere
        test "$(ls | grep -c both)" = 2; ln -sfn Folder moved; test "$(readlink moved)" = Folder"#,
    );
    mount.sync();
    let read = |path: &str| {
        drive
            .read(path)
            .map(|body| String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(
        read("/Folder/ours.rclonelink").as_deref(),
        Some("../Folder/file")
    );
    assert_eq!(read("/moved.rclonelink").as_deref(), Some("Folder"));
    assert_eq!(read("/both").as_deref(), Some("a file"));
    // With the suffix it has to fit, too.
    assert!(is_too_long(symlink("x", mount.at(&"l".repeat(250)))));
    mount.unmount();

    home.configure("symlinks = \"off\"\n");
    let mount = home.mount();
    let refused = symlink("x", mount.at("new")).expect_err("refused");
    assert_eq!(refused.raw_os_error(), Some(1), "{refused}");
    assert_eq!(home.sh(r#"readlink "$M/theirs""#), "Folder/file\n");
    mount.unmount();
}

#[test]
fn a_read_only_mount_shows_everything_and_changes_nothing() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/Folder/file", "text").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--read-only"]);
    home.sh(
        r#"cd "$M/Folder"; test "$(cat file)" = text; python3 - <<'PYTHON'
import errno, os
calls = {
    "create": lambda: open("new", "w"), "write": lambda: open("file", "a"),
    "mkdir": lambda: os.mkdir("d"), "unlink": lambda: os.unlink("file"),
    "rename": lambda: os.rename("file", "other"), "chmod": lambda: os.chmod("file", 0o600),
    "truncate": lambda: os.truncate("file", 0), "symlink": lambda: os.symlink("a", "b"),
    "utime": lambda: os.utime("file", (1, 1)), "rmdir": lambda: os.rmdir("../Folder"),
    "setxattr": lambda: os.setxattr("file", "user.x", b""),
}
for name, call in calls.items():
    try:
        call()
        raise SystemExit(name)
    except OSError as error:
        assert error.errno == errno.EROFS, (name, error)
PYTHON"#,
    );
    assert_eq!(drive.entry("/Folder/file").expect("entry").versions, 1);
    mount.unmount();
}

#[test]
fn other_users_see_the_mount_only_if_they_are_let_in() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let service = Service::start();
    service.default_drive().put("/file", "text").expect("file");
    let home = Home::signed_in(&service);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(home.mountpoint(), open).expect("mode");
    let other = r#"setpriv --reuid 65534 --regid 65534 --clear-groups cat "$M/file" 2>&1 || true"#;
    let mount = home.mount();
    assert!(home.sh(other).contains("Permission denied"));
    mount.unmount();
    let mount = home.mount_args(&["--allow-other"]);
    assert_eq!(home.sh(other), "text");
    // Let in, but with the rights of others.
    let write = home.sh(r#"setpriv --reuid 65534 --regid 65534 --clear-groups bash -c 'echo x > "$M/file"' 2>&1 || true"#);
    assert!(write.contains("Permission denied"), "{write}");
    mount.unmount();
}

#[test]
fn names_that_the_service_refuses_are_refused_here_if_so_configured() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    home.configure("names = \"reject\"\nlocal_only = [\"*.mine\", \"~$*\"]\n");
    let mount = home.mount();
    for name in ["a:b", "what?", "trailing ", "CON", "dot."] {
        let refused = fs::write(mount.at(name), "x").expect_err(name);
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{name}: {refused}");
        assert!(fs::create_dir(mount.at(name)).is_err(), "{name}");
    }
    home.sh(r#"cd "$M"; echo x > good; ! mv good 'ba:d' 2> /dev/null
        echo x > 'a:b.mine'; echo x > '~$letter.docx'; echo x > film.part
        mkdir sub.mine; echo x > sub.mine/inside; ls > /dev/null"#);
    mount.sync();
    let seen: Vec<String> = drive.names_ever().into_iter().collect();
    assert_eq!(
        seen,
        ["film.part", "good"],
        "the list is the configured one"
    );
    assert_eq!(mount.status_of("sub.mine/inside")["status"], "local-only");
    mount.unmount();
}

#[test]
fn a_path_that_is_too_long_for_the_service_is_refused_at_once() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for (kind, limit) in [(DriveKind::Business, 400), (DriveKind::Personal, 430)] {
        let service = Service::with(|config| config.drives = SimConfig::with_kind(kind).drives);
        let drive = service.default_drive();
        let home = Home::signed_in(&service);
        let mount = home.mount();
        let deep = format!("{}/{}", "d".repeat(199), "e".repeat(99));
        fs::create_dir_all(mount.at(&deep)).expect("folders");
        // `/` before each name counts.
        let room = limit - deep.len() - 2;
        let fits = format!("{deep}/{}", "f".repeat(room));
        let over = format!("{deep}/{}", "g".repeat(room + 1));
        fs::write(mount.at(&fits), "fits").expect("fits");
        assert!(is_too_long(fs::write(mount.at(&over), "x")), "{kind:?}");
        assert!(is_too_long(fs::create_dir(mount.at(&over))));
        assert!(is_too_long(fs::rename(mount.at(&fits), mount.at(&over))));
        // A colon is stored as one character; a link has a suffix there.
        assert!(is_too_long(symlink(
            "x",
            mount.at(&format!("{deep}/{}", "l".repeat(room - 5)))
        )));
        // What is in a folder moves along.
        let longer = "d".repeat(200);
        assert!(is_too_long(fs::rename(
            mount.at(&"d".repeat(199)),
            mount.at(&longer)
        )));
        fs::rename(mount.at(&"d".repeat(199)), mount.at(&"s".repeat(199))).expect("as long");
        // What never leaves this machine may be anywhere.
        let folder = fits.rsplit_once('/').expect("folder").0.replace('d', "s");
        fs::write(
            mount.at(&format!("{folder}/{}.part", "p".repeat(room))),
            "x",
        )
        .expect("local");
        mount.sync();
        assert_eq!(mount.status()["parked"].as_array().map(Vec::len), Some(0));
        assert!(
            drive.exists(&format!("/{}", fits.replace('d', "s"))),
            "{kind:?}"
        );
        mount.unmount();
    }
}

#[test]
fn spellings_of_one_name_in_unicode_are_one_file() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let (composed, decomposed) = ("Caf\u{e9}.txt", "Cafe\u{301}.txt");
    fs::write(mount.at(composed), "composed").expect("file");
    assert_eq!(
        fs::read(mount.at(decomposed)).expect("same file"),
        b"composed"
    );
    let again = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(mount.at(decomposed));
    assert_eq!(again.expect_err("taken").kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_dir(mount.path()).expect("listing").count(), 1);
    mount.sync();
    assert_eq!(drive.count(), 2, "the root and one file");
    mount.unmount();
}

/// What `df` and file managers ask for: size of a block, and blocks in all, free and available; and
/// the longest name.
fn space(home: &Home<'_>) -> (u64, u64, u64, u64, u64) {
    let told = home.sh(r#"stat -f -c '%S %b %f %a %l' "$M""#);
    let figures: Vec<u64> = told
        .split_whitespace()
        .map(|figure| figure.parse().expect("number"))
        .collect();
    let [block, total, free, available, name_max] = figures[..] else {
        panic!("{told}");
    };
    (block, total, free, available, name_max)
}

#[test]
fn figures_of_space_are_those_of_the_quota() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.set_quota(10 << 30);
    drive.put("/file", vec![0_u8; 1 << 20]).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let (block, total, free, available, name_max) = space(&home);
    assert_eq!((block * total, free, name_max), (10 << 30, available, 255));
    assert_eq!(block * (total - free), 1 << 20);
    home.sh(r#"df --output=size,used,avail "$M" > /dev/null; test "$(df --output=itotal "$M" | tail -1)" != 0"#);
    // What waits to be sent is taken off.
    service.set_reach(Reach::Offline);
    home.sh(r#"head -c 4194304 /dev/zero > "$M/waiting""#);
    wait::until("less room", wait::secs(10), || {
        block * (free - space(&home).2) == 4 << 20
    });
    service.set_reach(Reach::Online);
    mount.sync();
    mount.unmount();
}

#[test]
fn a_drive_whose_quota_is_not_told_has_room_for_what_programs_write() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| config.knobs.quota_missing = true);
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let (block, total, free, available, _) = space(&home);
    assert_eq!(
        (free, available),
        (total, total),
        "a terabyte, all of it free"
    );
    assert_eq!(block * total, 1 << 40);
    // `cp` and the like do not ask, some others do.
    home.sh(r#"cd "$M"; fallocate -l 50000000 large; head -c 1000000 /dev/zero > small; df "$M" > /dev/null"#);
    mount.sync();
    let there = service.default_drive().entry("/large").expect("sent");
    assert_eq!(there.size, 50_000_000);
    mount.unmount();
}
