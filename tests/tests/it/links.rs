//! Symbolic links, and files that somebody else made to look like some.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_sim::{
    DriveHandle, DriveKind, DriveSpec, FaultAction, FaultRule, SimConfig, UserSpec,
};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};

/// What somebody would like to see followed.
const SECRET: &str = "/etc/passwd";

/// One drive of the signed-in person, into which Ben may write, too.
fn shared(kind: DriveKind) -> Service {
    Service::with(|config| {
        config.drives = SimConfig::with_kind(kind).drives;
        config.users.push(UserSpec {
            id: "ben".into(),
            upn: "ben@example.com".into(),
            name: "Ben Example".into(),
            ..UserSpec::default()
        });
    })
}

fn link(mount: &Mount<'_>, name: &str) -> Option<PathBuf> {
    fs::read_link(mount.at(name)).ok()
}

/// Looks at what must be a file and nothing else.
#[track_caller]
fn assert_file(mount: &Mount<'_>, name: &str, text: &str) {
    let file = format!("{name}.rclonelink");
    let found = fs::symlink_metadata(mount.at(&file)).expect("metadata");
    assert!(found.is_file(), "{file} is {:?}", found.file_type());
    assert_eq!(fs::read_to_string(mount.at(&file)).expect("text"), text);
    let gone = fs::symlink_metadata(mount.at(name)).map(|found| found.file_type());
    assert!(gone.is_err(), "{name} is {gone:?}");
}

#[track_caller]
fn assert_link(mount: &Mount<'_>, name: &str, target: &str) {
    let found = fs::read_link(mount.at(name)).expect("link");
    assert_eq!(found, PathBuf::from(target));
    let file = format!("{name}.rclonelink");
    assert!(fs::symlink_metadata(mount.at(&file)).is_err(), "{file}");
}

#[test]
fn links_of_others_are_the_files_they_are() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in [DriveKind::Personal, DriveKind::Business] {
        let service = shared(kind);
        let drive = service.default_drive();
        drive.put("/file", "text").expect("file");
        drive.put("/ours.rclonelink", "file").expect("file");
        let ben = drive.by("ben");
        ben.put("/theirs.rclonelink", SECRET).expect("file");
        ben.put("/renamed.rclonelink", SECRET).expect("file");
        // By that we are the one who changed it last.
        drive
            .rename("/renamed.rclonelink", "/old.rclonelink")
            .expect("rename");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        assert_link(&mount, "ours", "file");
        assert_file(&mount, "theirs", SECRET);
        assert_file(&mount, "old", SECRET);
        // A new one while the mount is up, beside a link that another client of ours makes.
        ben.put("/later.rclonelink", SECRET).expect("file");
        drive.put("/own.rclonelink", "file").expect("file");
        mount.sync();
        assert_file(&mount, "later", SECRET);
        assert_link(&mount, "own", "file");
        // What we rename or write ourselves stays the file that it is here.
        fs::rename(mount.at("theirs.rclonelink"), mount.at("moved.rclonelink")).expect("rename");
        fs::write(mount.at("later.rclonelink"), "elsewhere").expect("written");
        mount.sync();
        assert_file(&mount, "moved", SECRET);
        assert_file(&mount, "later", "elsewhere");
        ben.put("/moved.rclonelink", "/etc/shadow").expect("file");
        mount.sync();
        assert_file(&mount, "moved", "/etc/shadow");
        mount.unmount();
        let mount = home.mount();
        mount.sync();
        assert_file(&mount, "moved", "/etc/shadow");
        assert_link(&mount, "ours", "file");
        mount.unmount();
    }
}

#[test]
fn a_link_that_somebody_rewrites_is_a_file_until_we_write_it_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in [DriveKind::Personal, DriveKind::Business] {
        let service = shared(kind);
        let drive = service.default_drive();
        let ben = drive.by("ben");
        drive.put("/seen.rclonelink", "first").expect("file");
        // Its target is not known here yet when it is rewritten.
        drive.put("/unseen.rclonelink", "first").expect("file");
        // The name without the suffix is taken as well.
        drive.put("/seen", "a file").expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        symlink("here", mount.at("made")).expect("link");
        mount.sync();
        let beside = ["seen", "seen (2)"];
        assert!(
            beside.iter().any(|name| link(&mount, name).is_some()),
            "a link is beside the file"
        );
        for name in ["seen", "unseen", "made"] {
            ben.put(&format!("/{name}.rclonelink"), SECRET)
                .expect("file");
        }
        mount.sync();
        for name in ["unseen", "made"] {
            assert_file(&mount, name, SECRET);
        }
        assert_eq!(
            fs::read_to_string(mount.at("seen.rclonelink")).expect("text"),
            SECRET
        );
        assert_eq!(
            fs::read_to_string(mount.at("seen")).expect("text"),
            "a file"
        );
        let mut open = File::open(mount.at("unseen.rclonelink")).expect("open");
        drive.put("/unseen.rclonelink", "second").expect("file");
        mount.sync();
        assert_link(&mount, "unseen", "second");
        let mut text = String::new();
        open.read_to_string(&mut text).expect("read");
        assert_eq!(text, SECRET, "who has the file open goes on with it");
        drop(open);
        mount.unmount();
    }
}

/// Changes a file so that neither its size nor its time shows it.
fn rewrite_alike(drive: &DriveHandle, path: &str, text: &str) {
    let entry = drive.entry(path).expect("file");
    assert_eq!(entry.size, text.len() as u64);
    drive.put(path, text).expect("file");
    let time = entry.mtime.parse::<jiff::Timestamp>().expect("time");
    drive
        .set_mtime(path, time.as_millisecond())
        .expect("time set");
}

#[test]
fn a_rewrite_that_shows_in_no_tag_and_no_hash_is_not_followed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = shared(DriveKind::Business);
    service.set_knobs(|knobs| knobs.hash_missing = true);
    let drive = service.default_drive();
    let ben = drive.by("ben");
    drive
        .put("/unseen.rclonelink", "aaaaaaaaaaa")
        .expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    symlink("aaaaaaaaaaa", mount.at("made")).expect("link");
    symlink("aaaaaaaaaaa", mount.at("moved")).expect("link");
    mount.sync();
    for path in ["/unseen.rclonelink", "/made.rclonelink"] {
        rewrite_alike(&ben, path, SECRET);
    }
    // Somebody may rename a link of ours: its content is still ours.
    ben.rename("/moved.rclonelink", "/there.rclonelink")
        .expect("rename");
    mount.sync();
    for name in ["unseen", "made"] {
        assert_ne!(link(&mount, name), Some(PathBuf::from(SECRET)));
        assert_file(&mount, name, SECRET);
    }
    assert_link(&mount, "there", "aaaaaaaaaaa");
    mount.unmount();
}

#[test]
fn renaming_a_link_here_does_not_make_a_rewrite_ours() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in [DriveKind::Personal, DriveKind::Business] {
        let service = shared(kind);
        let drive = service.default_drive();
        let ben = drive.by("ben");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        for name in ["before", "beside"] {
            symlink("aaaaaaaaaaa", mount.at(name)).expect("link");
        }
        mount.sync();
        // Our requests are answered before anything tells of the rewrite.
        let quiet = service
            .faults()
            .add(FaultRule::on("delta", FaultAction::Hold));
        let before = service.last_request();
        rewrite_alike(&ben, "/before.rclonelink", SECRET);
        fs::rename(mount.at("before"), mount.at("after")).expect("rename");
        wait::until("our rename", Duration::from_secs(30), || {
            drive.exists("/after.rclonelink")
        });
        let renames = service.requests().since(before).into_iter();
        let statuses: Vec<u16> = renames
            .filter(|record| record.op == "patch")
            .map(|record| record.status.load(Ordering::Relaxed))
            .collect();
        assert_eq!(statuses[0], 412, "what was not seen before is looked at");
        service.faults().remove(quiet);
        mount.sync();
        assert_file(&mount, "after", SECRET);
        assert_link(&mount, "beside", "aaaaaaaaaaa");
        mount.unmount();
    }
}

#[test]
fn where_the_service_does_not_tell_who_wrote_it_only_links_on_ones_own_drive_are_followed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        config.knobs.authors_missing = true;
        config.drives.push(DriveSpec {
            kind: DriveKind::DocumentLibrary,
            owner: "team".into(),
            ..DriveSpec::default()
        });
    });
    let (own, library) = (&service.drives()[0], &service.drives()[1]);
    own.put("/l.rclonelink", "target").expect("file");
    library.put("/l.rclonelink", "target").expect("file");
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "test", "--sites"])
        .ok();
    let mount = home.mount();
    mount.sync();
    assert_link(&mount, "l", "target");
    mount.unmount();
    let mount = home.mount_args(&["--drive", library.id()]);
    mount.sync();
    assert_file(&mount, "l", "target");
    // What was made here is known to be ours.
    symlink("here", mount.at("made")).expect("link");
    mount.sync();
    assert_link(&mount, "made", "here");
    mount.unmount();
    let mount = home.mount_args(&["--drive", library.id()]);
    assert_link(&mount, "made", "here");
    mount.unmount();
}
