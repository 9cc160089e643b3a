//! The mount and the drive hold the same, whichever side it came from.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use onedrivefs_sim::{DriveKind, FileBody, SimConfig};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::tree::{self, Tree};
use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::files::{self, GIB, MIB};

/// Sizes at which something changes: empty, one byte, one fragment unit, the limit of small
/// uploads, several fragments, and large.
const SIZES: &[u64] = &[
    0,
    1,
    327_680,
    4 * MIB - 1,
    4 * MIB,
    4 * MIB + 1,
    26_000_000,
    GIB,
];

/// Names that the service takes as they are.
fn ordinary_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "with spaces in it",
        "#%&+'",
        "100% & more #1 + 'quotes' (x) [y] {z} = , ; @ ! $ ^ `",
        "emoji 🚀👩‍👩‍👧.txt",
        "NFC é",
        "NFD e\u{301} und u\u{308}",
        "日本語のファイル名.txt",
        "عربي",
        "%41%2F..%2e",
        "a%20b",
        ".hidden",
        "..double",
        "-rf",
        "no extension.",
        "CONsole",
        "tab-less",
    ]
    .iter()
    .map(|&name| name.to_owned())
    .filter(|name| !name.ends_with('.'))
    .collect();
    names.push("x".repeat(200));
    names.push("é".repeat(100));
    names
}

/// Names that Linux accepts and the service refuses.
const REFUSED: &[&str] = &[
    "a:b",
    "what?",
    "star*",
    "a<b>c",
    "pipe|",
    "back\\slash",
    "\"quoted\"",
    "trailing dot.",
    "trailing space ",
    " leading space",
    "CON",
    "con.txt",
    "NUL",
    "LPT1",
    "desktop.ini",
    ".lock",
    "x_vti_y",
    "~tilde",
    "line\nbreak",
    "\u{ff1a} full width already",
];

fn kinds() -> [DriveKind; 2] {
    [DriveKind::Business, DriveKind::Personal]
}

fn of_kind(kind: DriveKind) -> impl FnOnce(&mut SimConfig) {
    move |config| config.drives = SimConfig::with_kind(kind).drives
}

#[test]
fn every_size_arrives_on_the_service() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec::lasting(400));
    fs::create_dir(mount.at("sizes")).expect("folder");
    for &size in SIZES {
        files::write(&mount.at(&format!("sizes/{size}")), size, size);
    }
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn every_size_is_read_from_the_service() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for &size in SIZES {
        let path = format!("/sizes/{size}");
        let body = FileBody::Generated { seed: size, size };
        let mtime_ms = 1_000_000_000_000 + i64::try_from(size).expect("small") * 1000;
        drive.put_at(&path, body, Some(mtime_ms)).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec::lasting(400));
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn sizes_are_right_both_ways_on_every_kind_of_drive() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in [DriveKind::Personal, DriveKind::DocumentLibrary] {
        let service = Service::with(of_kind(kind));
        let drive = service.default_drive();
        let home = Home::signed_in(&service);
        for &size in SIZES.iter().filter(|size| **size < GIB) {
            let path = format!("/there/{size}");
            let body = FileBody::Generated { seed: size, size };
            drive.put(&path, body).expect("file");
        }
        let mount = home.mount();
        fs::create_dir(mount.at("here")).expect("folder");
        for &size in SIZES.iter().filter(|size| **size < GIB) {
            files::write(&mount.at(&format!("here/{size}")), size, size);
        }
        mount.sync();
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn all_names_that_the_service_takes_arrive_unchanged_both_ways() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in kinds() {
        let service = Service::with(of_kind(kind));
        let drive = service.default_drive();
        for name in ordinary_names() {
            let put = drive.put(&format!("/there/{name}"), name.as_str());
            put.unwrap_or_else(|error| panic!("{name}: {error}"));
            let made = drive.mkdir(&format!("/there/in {name}/x"));
            made.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let home = Home::signed_in(&service);
        let mount = home.mount();
        fs::create_dir(mount.at("here")).expect("folder");
        for name in ordinary_names() {
            let here = mount.at("here");
            fs::write(here.join(&name), &name).unwrap_or_else(|error| panic!("{name}: {error}"));
            let made = fs::create_dir_all(here.join(format!("in {name}/x")));
            made.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        mount.sync();
        tree::assert_in_step(mount.path(), &drive);
        let both = tree::of_directory(mount.path());
        for name in ordinary_names() {
            for side in ["here", "there"] {
                assert!(both.contains_key(&format!("/{side}/{name}")), "{name}");
                let folder = format!("/{side}/in {name}/x");
                assert!(both.contains_key(&folder), "{name}");
            }
        }
        mount.unmount();
    }
}

#[test]
fn names_that_the_service_refuses_are_kept_and_come_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in kinds() {
        let service = Service::with(of_kind(kind));
        let drive = service.default_drive();
        let home = Home::signed_in(&service);
        let mount = home.mount();
        let mut expected = Tree::new();
        for name in REFUSED {
            fs::write(mount.at(name), name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
            let node = tree::of_file(&mount.at(name));
            expected.insert(format!("/{name}"), node);
        }
        mount.sync();
        // On the service, each is there under a name of its own that the service takes.
        let there = tree::of_drive(&drive);
        let by_hash: BTreeMap<_, _> = there.values().map(|n| (n.hash.clone(), n)).collect();
        assert_eq!(there.len(), REFUSED.len(), "{there:#?}");
        for (name, node) in &expected {
            assert_eq!(
                by_hash.get(&node.hash).map(|n| n.size),
                Some(node.size),
                "{name:?}"
            );
        }
        assert!(
            there.contains_key("/a：b"),
            "readable for other clients: {there:#?}"
        );
        // Another machine that asks the service sees the names as they were given.
        mount.unmount();
        let other = Home::signed_in(&service);
        let mount = other.mount();
        tree::assert_same(&tree::of_directory(mount.path()), &expected);
        mount.unmount();
    }
}

#[test]
fn a_name_that_is_too_long_is_refused_at_once() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let error = fs::write(mount.at(&"x".repeat(256)), "x").expect_err("too long");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidFilename, "{error}");
    fs::write(mount.at(&"x".repeat(255)), "x").expect("just short enough");
    mount.sync();
    mount.unmount();
}

#[test]
fn times_set_on_one_side_are_seen_on_the_other() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    // On the other kinds of drives the service makes a version of the file by that.
    let service = Service::with(of_kind(DriveKind::Personal));
    let drive = service.default_drive();
    drive.put("/there.txt", "x").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cd "$M"; echo x > here.txt; touch -d @1000000000 here.txt
        mkdir folder; touch -d @1000000000 folder; : > empty; touch -d @1000000000 empty"#);
    mount.sync();
    for path in ["/here.txt", "/folder", "/empty"] {
        let entry = drive.entry(path).expect("entry");
        assert!(entry.mtime.starts_with("2001-09-09T01:46:40"), "{entry:?}");
    }
    home.sh(r#"touch -d @1234567890.5 "$M/here.txt""#);
    drive
        .set_mtime("/there.txt", 999_999_999_000)
        .expect("time");
    mount.sync();
    let entry = drive.entry("/here.txt").expect("entry");
    assert!(
        entry.mtime.starts_with("2009-02-13T23:31:30"),
        "{}",
        entry.mtime
    );
    assert_eq!(entry.versions, 1, "a new time is no new version");
    assert_eq!(home.sh(r#"stat -c %Y "$M/there.txt""#), "999999999\n");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn the_case_of_a_name_can_be_changed_and_any_spelling_finds_the_file() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/README", "text").expect("file");
    let id = drive.entry("/README").expect("entry").id;
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(home.sh(r#"cat "$M/Readme""#), "text");
    home.sh(r#"mv "$M/README" "$M/readme""#);
    assert_eq!(home.sh(r#"ls "$M""#), "readme\n");
    fs::rename(mount.at("readme"), mount.at("ReadMe")).expect("rename");
    assert_eq!(home.sh(r#"ls "$M""#), "ReadMe\n");
    mount.sync();
    assert_eq!(drive.entry("/ReadMe").expect("entry").id, id);
    assert!(drive.dump().iter().any(|entry| entry.path == "/ReadMe"));

    // Folders as well, with what is in them.
    home.sh(
        r#"cd "$M"; mkdir -p Folder/Sub; echo x > Folder/Sub/file; stat folder/sub > /dev/null
        mv -T Folder folder; test "$(ls folder)" = Sub; test "$(cat FOLDER/SUB/FILE)" = x
        echo y > FOLDER/new; test "$(cat folder/new)" = y; rm -r FOLDER"#,
    );
    wait::until("the folder's end", Duration::from_secs(10), || {
        !mount.at("folder").exists()
    });

    fs::write(mount.at("README"), "written under another spelling").expect("write");
    // The kernel learns of it a moment later.
    wait::until("the new content", Duration::from_secs(10), || {
        fs::read(mount.at("ReadMe")).is_ok_and(|it| it == b"written under another spelling")
    });
    fs::rename(mount.at("readme"), mount.at("other")).expect("rename");
    wait::until("the old name's end", Duration::from_secs(10), || {
        !mount.at("ReadMe").exists()
    });
    fs::remove_file(mount.at("OTHER")).expect("removal");
    wait::until("the file's end", Duration::from_secs(10), || {
        !mount.at("other").exists()
    });
    mount.sync();
    assert_eq!(drive.count(), 1, "only the root is left");
    mount.unmount();
}
