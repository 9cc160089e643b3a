//! Changes that other people make, and what happens when two change the same.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};

fn names(mount: &Mount<'_>, below: &str) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(mount.at(below))
        .expect("directory")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    all.sort();
    all
}

fn text(mount: &Mount<'_>, below: &str) -> String {
    fs::read_to_string(mount.at(below)).unwrap_or_else(|e| panic!("{below}: {e}"))
}

#[test]
fn changes_made_elsewhere_are_here_after_sync() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["changed", "renamed", "deleted", "moved", "kept"] {
        drive.put(&format!("/d/{name}"), "before").expect("file");
    }
    drive.put("/folder/inside", "inside").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    // Everything is in the kernel's caches now.
    tree::assert_in_step(mount.path(), &drive);
    let inode = fs::metadata(mount.at("d/renamed")).expect("metadata").ino();
    assert!(!mount.at("d/new").exists());

    drive.put("/d/new", "new").expect("file");
    drive.put("/d/changed", "changed and longer").expect("file");
    drive.rename("/d/renamed", "/d/other name").expect("rename");
    drive.rename("/d/moved", "/folder/moved").expect("move");
    drive.delete("/d/deleted").expect("deletion");
    drive.rename("/folder", "/directory").expect("rename");
    drive.mkdir("/made/here").expect("folder");
    mount.sync();
    assert_eq!(names(&mount, "d"), ["changed", "kept", "new", "other name"]);
    assert_eq!(names(&mount, ""), ["d", "directory", "made"]);
    assert_eq!(text(&mount, "d/new"), "new");
    assert_eq!(text(&mount, "d/changed"), "changed and longer");
    assert_eq!(text(&mount, "directory/moved"), "before");
    let renamed = fs::metadata(mount.at("d/other name")).expect("metadata");
    assert_eq!(renamed.ino(), inode, "a rename keeps the inode");
    assert!(!mount.at("d/renamed").exists() && !mount.at("d/deleted").exists());
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn changes_made_elsewhere_show_within_the_poll_interval_also_in_cached_pages() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/file", "first").expect("file");
    drive.put("/gone", "gone").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    let limit = wait::secs(10);
    let open = File::open(mount.at("file")).expect("opened");
    let mut page = [0; 5];
    open.read_exact_at(&mut page, 0).expect("read");
    assert_eq!(text(&mount, "file"), "first");
    assert_eq!(text(&mount, "gone"), "gone");
    // The same size, so that only the pages can tell.
    drive.put("/file", "other").expect("file");
    drive.delete("/gone").expect("deletion");
    drive.put("/new", "new").expect("file");
    wait::until("the new content", limit, || text(&mount, "file") == "other");
    wait::until("the new name", limit, || mount.at("new").exists());
    wait::until("the deletion", limit, || !mount.at("gone").exists());
    drop(open);
    let again = File::open(mount.at("file")).expect("opened");
    again.read_exact_at(&mut page, 0).expect("read");
    assert_eq!(&page, b"other");
    drop(again);
    // Longer and shorter.
    for body in ["much longer than before", "x"] {
        drive.put("/file", body).expect("file");
        wait::until(body, limit, || text(&mount, "file") == body);
        let size = fs::metadata(mount.at("file")).expect("metadata").len();
        assert_eq!(size, body.len() as u64);
    }
    mount.unmount();
}

/// A mount that has seen the drive, cut off from the service while both sides change it.
fn both_change(
    seed: impl Fn(&DriveHandle),
    here: &str,
    there: impl Fn(&DriveHandle),
    check: impl Fn(&Service, &Mount<'_>),
) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    seed(&drive);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    home.sh(r#"cd "$M"; find . -type f -exec cat {} +; ls -lR > /dev/null"#);
    mount.sync();
    service.set_reach(Reach::Offline);
    home.sh(&format!("cd \"$M\"\n{here}"));
    there(&drive);
    service.set_reach(Reach::Online);
    wait::until("the service", wait::secs(60), || {
        mount.status()["state"] == "online"
    });
    mount.sync();
    mount.sync();
    check(&service, &mount);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

fn file(drive: &DriveHandle) {
    drive.put("/note.txt", "base").expect("file");
}

/// The one conflict copy there is, with its content.
fn conflict_copy(mount: &Mount<'_>) -> (String, String) {
    let all = names(mount, "");
    let copies: Vec<&String> = all.iter().filter(|n| n.contains("(conflict ")).collect();
    assert_eq!(copies.len(), 1, "{all:?}");
    (copies[0].clone(), text(mount, copies[0]))
}

#[test]
fn changed_here_and_there_keeps_both() {
    both_change(
        file,
        "printf ours > note.txt",
        |drive| drop(drive.put("/note.txt", "theirs")),
        |_, mount| {
            assert_eq!(text(mount, "note.txt"), "theirs");
            let (name, body) = conflict_copy(mount);
            assert_eq!(body, "ours");
            assert!(
                name.starts_with("note (conflict ") && name.ends_with(").txt"),
                "{name}"
            );
            let status = mount.status();
            assert_eq!(status["conflicts"][0]["path"], "note.txt", "{status}");
            assert_eq!(status["conflicts"][0]["copy"], name);
            assert_eq!(names(mount, "").len(), 2);
        },
    );
}

#[test]
fn changed_to_the_same_here_and_there_is_no_conflict() {
    both_change(
        file,
        "printf same > note.txt",
        |drive| drop(drive.put("/note.txt", "same")),
        |service, mount| {
            assert_eq!(names(mount, ""), ["note.txt"]);
            assert_eq!(text(mount, "note.txt"), "same");
            let entry = service.default_drive().entry("/note.txt");
            assert_eq!(entry.expect("entry").versions, 2, "nothing was sent");
        },
    );
}

#[test]
fn changed_here_and_deleted_there_is_uploaded_again() {
    both_change(
        file,
        "printf ours > note.txt",
        |drive| drive.delete("/note.txt").expect("deletion"),
        |_, mount| {
            assert_eq!(names(mount, ""), ["note.txt"]);
            assert_eq!(text(mount, "note.txt"), "ours");
        },
    );
}

#[test]
fn deleted_here_and_changed_there_comes_back() {
    both_change(
        file,
        "rm note.txt",
        |drive| drop(drive.put("/note.txt", "theirs")),
        |_, mount| {
            assert_eq!(names(mount, ""), ["note.txt"]);
            assert_eq!(text(mount, "note.txt"), "theirs");
        },
    );
}

#[test]
fn renamed_here_and_changed_there_has_our_name_and_their_content() {
    both_change(
        file,
        "mv note.txt renamed.txt",
        |drive| drop(drive.put("/note.txt", "theirs")),
        |_, mount| {
            assert_eq!(names(mount, ""), ["renamed.txt"]);
            assert_eq!(text(mount, "renamed.txt"), "theirs");
        },
    );
}

#[test]
fn renamed_here_and_there_has_their_name() {
    both_change(
        file,
        "mv note.txt ours.txt",
        |drive| drive.rename("/note.txt", "/theirs.txt").expect("rename"),
        |_, mount| {
            assert_eq!(names(mount, ""), ["theirs.txt"]);
            assert_eq!(text(mount, "theirs.txt"), "base");
        },
    );
}

#[test]
fn deleted_here_and_there_is_gone() {
    both_change(
        file,
        "rm note.txt",
        |drive| drive.delete("/note.txt").expect("deletion"),
        |_, mount| assert_eq!(names(mount, ""), [""; 0]),
    );
}

#[test]
fn created_here_and_there_with_the_same_content_is_one_file() {
    both_change(
        |_| {},
        "printf same > new.txt",
        |drive| drop(drive.put("/new.txt", "same")),
        |service, mount| {
            assert_eq!(names(mount, ""), ["new.txt"]);
            let entry = service.default_drive().entry("/new.txt");
            assert_eq!(entry.expect("entry").versions, 1, "nothing was sent");
        },
    );
}

#[test]
fn created_here_and_there_with_other_content_keeps_both() {
    both_change(
        |_| {},
        "printf ours > new.txt",
        |drive| drop(drive.put("/new.txt", "theirs")),
        |_, mount| {
            assert_eq!(text(mount, "new.txt"), "theirs");
            assert_eq!(conflict_copy(mount).1, "ours");
            assert_eq!(names(mount, "").len(), 2);
        },
    );
}

#[test]
fn folders_created_here_and_there_are_merged() {
    both_change(
        |_| {},
        "mkdir -p new/sub; printf ours > new/ours; printf o > new/sub/o",
        |drive| {
            drive.put("/new/theirs", "theirs").expect("file");
            drive.put("/new/sub/t", "t").expect("file");
        },
        |_, mount| {
            assert_eq!(names(mount, ""), ["new"]);
            assert_eq!(names(mount, "new"), ["ours", "sub", "theirs"]);
            assert_eq!(names(mount, "new/sub"), ["o", "t"]);
        },
    );
}

#[test]
fn a_folder_deleted_there_keeps_what_was_written_here() {
    both_change(
        |drive| drop(drive.put("/folder/old", "old")),
        "printf ours > folder/new; printf more >> folder/old",
        |drive| drive.delete("/folder").expect("deletion"),
        |_, mount| {
            assert_eq!(text(mount, "folder/new"), "ours");
            assert_eq!(text(mount, "folder/old"), "oldmore");
        },
    );
}

#[test]
fn a_folder_deleted_here_does_not_take_along_what_came_there() {
    both_change(
        |drive| drop(drive.put("/folder/old", "old")),
        "rm -r folder",
        |drive| drop(drive.put("/folder/new", "theirs")),
        |_, mount| {
            assert_eq!(text(mount, "folder/new"), "theirs");
            assert_eq!(names(mount, "folder"), ["new"]);
        },
    );
}

#[test]
fn what_somebody_saves_during_a_long_upload_is_kept() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/big.bin", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    // Two fragments; the service looks at our condition only when the session begins.
    let slow = FaultRule::on("upload_fragment", FaultAction::Delay { ms: 1500 }).times(1);
    service.faults().add(slow);
    home.sh(r#"head -c 12000000 /dev/urandom > "$M/big.bin""#);
    wait::until("upload session", Duration::from_secs(20), || {
        service.sessions().to_string().contains("big.bin")
    });
    drive.put("/big.bin", "theirs").expect("change");
    mount.sync();
    assert_eq!(text(&mount, "big.bin"), "theirs");
    let all = names(&mount, "");
    assert_eq!(all.len(), 2, "{all:?}");
    let copy = all
        .iter()
        .find(|name| name.contains("(conflict "))
        .expect("conflict copy");
    assert_eq!(
        fs::metadata(mount.at(copy)).expect("metadata").len(),
        12_000_000
    );
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_drive_without_a_change_feed_is_kept_in_step_by_listing_its_folders() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    service.set_knobs(|knobs| {
        knobs.delta_unsupported = true;
        knobs.children_page_size = 3;
    });
    let drive = service.default_drive();
    for n in 0..10 {
        drive
            .put(&format!("/folder/deep/{n}"), "text")
            .expect("file");
    }
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let change = || {
        drive.rename("/folder/deep", "/moved").expect("move");
        drive.delete("/moved/3").expect("deletion");
        drive.put("/moved/4", "changed").expect("change");
        drive.put("/new/file", "new").expect("file");
    };
    change();
    home.sh(r#"cd "$M"; echo mine > folder/mine; rm folder/deep/5"#);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(text(&mount, "moved/4"), "changed");
    assert!(!mount.at("moved/3").exists() && !mount.at("moved/5").exists());
    // A listing that breaks off deletes nothing, and neither does a new start.
    service.faults().add(
        FaultRule::on("children", FaultAction::DropBefore)
            .after(2)
            .times(3),
    );
    drive.put("/new/second", "new").expect("file");
    mount.crash();
    drop(mount);
    let mount = home.mount();
    mount.sync();
    assert_eq!(text(&mount, "new/second"), "new");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// What the first pages tell is there before the last one has come, whatever happens in between: the
/// drive changes, and the daemon dies.
#[test]
fn a_drive_fills_while_it_is_enumerated_and_is_right_in_the_end() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    service.set_knobs(|knobs| knobs.delta_page_size = 5);
    let drive = service.default_drive();
    for n in 0..8 {
        drive.put(&format!("/folder/{n}"), "text").expect("file");
        drive.put(&format!("/other/{n}"), "text").expect("file");
    }
    let hold = FaultRule::on("delta", FaultAction::Hold).after(2);
    let held = service.faults().add(hold.clone());
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let filled = |mount: &Mount<'_>| {
        wait::until("items of the first pages", wait::secs(30), || {
            service.faults().hits(held) > 0 && mount.status()["items"].as_u64() > Some(5)
        });
        assert_eq!(mount.status()["state"], "enumerating");
    };
    filled(&mount);
    mount.crash();
    drop(mount);
    mount = home.mount();
    filled(&mount);
    // Of what was told already, of what was not, and with names that change hands.
    for folder in ["folder", "other"] {
        let at = |name: &str| format!("/{folder}/{name}");
        drive.rename(&at("0"), &at("moved")).expect("move");
        drive.put(&at("0"), "another").expect("file");
        drive.put(&at("1"), "changed").expect("change");
        drive.delete(&at("2")).expect("deletion");
        drive.put(&at("2"), "again").expect("file");
        drive.delete(&at("3")).expect("deletion");
    }
    drive.rename("/folder/7", "/other/seven").expect("move");
    service.faults().remove(held);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(text(&mount, "folder/0"), "another");
    assert_eq!(text(&mount, "other/1"), "changed");
    mount.unmount();
}
