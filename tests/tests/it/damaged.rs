//! A database that cannot be used any more costs nobody a byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onedrivefs_sim::{FileBody, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree};

use crate::files;

/// Bytes in a page of the database.
const PAGE: usize = 4096;

/// The directory of the state of the only drive.
fn state_dir(home: &Home<'_>) -> PathBuf {
    let dirs = fs::read_dir(home.account_state()).expect("account");
    let mut found = dirs
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("lock").exists());
    found.next().expect("state of the drive")
}

/// What stays in the damaged state's place.
fn kept(home: &Home<'_>) -> Vec<PathBuf> {
    let dir = state_dir(home);
    let mut kept: Vec<PathBuf> = fs::read_dir(&dir)
        .expect("state")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("meta.db.damaged-") || name.starts_with("spool.unknown-")
        })
        .collect();
    kept.sort();
    kept
}

/// A drive with files, of which some are read.
fn seeded(service: &Service) {
    let drive = service.default_drive();
    drive.put("/docs/old.txt", "the old text").expect("file");
    drive.put("/docs/untouched.txt", "untouched").expect("file");
    let body = FileBody::Generated {
        seed: 7,
        size: 3_000_000,
    };
    drive.put("/docs/large.bin", body).expect("file");
    for number in 0..300 {
        let path = format!("/many/{number}.txt");
        drive
            .put(&path, format!("{number}").as_str())
            .expect("file");
    }
}

/// The files that are written while the service cannot be reached, by their path.
fn unsent() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("docs/new folder/new.txt", b"something new".to_vec()),
        ("docs/old.txt", b"the new text".to_vec()),
        ("noise.bin", files::noise(3, 300_000)),
        ("renamed twice.txt", b"named".to_vec()),
    ])
}

/// Works without the service, so that nothing of it arrives.
fn work_unsent(home: &Home<'_>, mount: &Mount<'_>) {
    fs::create_dir(mount.at("docs/new folder")).expect("folder");
    for (path, body) in unsent() {
        let path = match path {
            "renamed twice.txt" => "first name.txt",
            path => path,
        };
        fs::write(mount.at(path), body).expect("written");
    }
    home.sh(r#"cd "$M"; mv "first name.txt" x; mv x "renamed twice.txt"
        rm many/7.txt; mv many/8.txt many/eight.txt; ln -s docs/old.txt "new link""#);
    // Bytes 1,000,000 to 1,000,009 of a file of which nothing else is here.
    let large = File::options()
        .write(true)
        .open(mount.at("docs/large.bin"))
        .expect("open");
    large
        .write_all_at(b"0123456789", 1_000_000)
        .expect("written");
}

/// What a test does to the files of a database.
type Damage = fn(&Path);

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("database");
    file.write_all_at(bytes, at).expect("written");
}

/// How the daemon ended before the damage.
#[derive(Clone, Copy)]
enum End {
    /// What was written last is in the log.
    Killed,
    /// All of it is in the database.
    Unmounted,
}

impl End {
    fn of(self, mut mount: Mount<'_>) {
        match self {
            Self::Killed => mount.crash(),
            Self::Unmounted => mount.unmount(),
        }
    }
}

/// Damages the state that a daemon left, and mounts again. `named` tells whether the names of what
/// was not sent can still be found out.
fn survives(end: End, damage: Damage, named: Names) {
    let service = Service::start();
    seeded(&service);
    let before = tree::of_drive(&service.default_drive());
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    home.sh(r#"cat "$M/docs/old.txt" "$M/docs/untouched.txt""#);
    service.set_reach(Reach::Offline);
    work_unsent(&home, &mount);
    end.of(mount);
    damage(&state_dir(&home));

    // Without the service first: what was not sent is there at once.
    let mount = home.mount_args(&["--poll", "2"]);
    let (top, partial) = assert_recovered(&mount);
    assert_named(&home, &top, named);
    assert_eq!(tree::of_drive(&service.default_drive()), before);
    service.set_reach(Reach::Online);
    mount.sync();
    assert_sent(&service, &mount, &before, &top, &partial);
    let told = mount.log();
    assert!(told.contains(&top), "{told}");
    mount.unmount();
    // Once is enough.
    let kept_before = kept(&home);
    let mount = home.mount();
    mount.sync();
    assert_eq!(kept(&home), kept_before);
    assert_sent(&service, &mount, &before, &top, &partial);
    mount.unmount();
}

/// Expects every unsent body under the folder that `status` names, byte for byte. Returns that
/// folder, and the names in the mount that stay here.
fn assert_recovered(mount: &Mount<'_>) -> (String, Vec<String>) {
    let status = mount.status();
    let conflicts = status["conflicts"].as_array().expect("list").clone();
    let told = |index: usize, key: &str| conflicts[index][key].as_str().expect("path").to_owned();
    let copies: Vec<String> = (0..conflicts.len()).map(|i| told(i, "copy")).collect();
    let top = copies[0].split('/').next().expect("folder").to_owned();
    assert!(top.starts_with("Recovered files ("), "{top}");
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut partial = Vec::new();
    for copy in &copies {
        assert!(copy.starts_with(&format!("{top}/")), "{copy}");
        let body = fs::read(mount.at(copy)).expect("recovered");
        if body.len() == 3_000_000 {
            assert_eq!(&body[1_000_000..1_000_010], b"0123456789");
            assert!(copy.ends_with(".parts"), "{copy}");
            let note = fs::read_to_string(mount.at(&format!("{copy}.txt"))).expect("note");
            assert!(
                note.contains("1000000 to 1000009") || note.contains("not known any more"),
                "{note}"
            );
            partial = vec![format!("/{copy}"), format!("/{copy}.txt")];
        } else {
            bodies.push(body);
        }
    }
    for (path, body) in unsent() {
        assert!(bodies.contains(&body), "{path} is not among {copies:?}");
    }
    assert_eq!(partial.len(), 2, "the edited part: {copies:?}");
    (top, partial)
}

/// Expects the service to have what it had, and the recovered files in their folder.
fn assert_sent(
    service: &Service,
    mount: &Mount<'_>,
    before: &tree::Tree,
    top: &str,
    partial: &[String],
) {
    let now = tree::of_drive(&service.default_drive());
    for (path, node) in before {
        assert_eq!(now.get(path), Some(node), "{path} on the service");
    }
    let top = format!("/{top}");
    for path in now.keys().filter(|path| !before.contains_key(*path)) {
        assert!(path.starts_with(&top), "{path} came from nowhere");
    }
    let mut here = tree::of_directory(mount.path());
    for path in partial {
        assert!(here.remove(path).is_some(), "{path} stays here");
    }
    // A link is a small text file on the service.
    here.retain(|path, _| !path.ends_with("new link"));
    let mut there = now;
    there.retain(|path, _| !path.ends_with("new link.rclonelink"));
    tree::assert_same(&here, &there);
}

fn meta(dir: &Path) -> PathBuf {
    dir.join("meta.db")
}

/// Which names can still be found out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    All,
    Some,
    None,
}

/// Expects the names and the link that can still be found out.
fn assert_named(home: &Home<'_>, top: &str, names: Names) {
    let list = r#"find . -type f | sort; readlink "new link" || true"#;
    let listed = home.sh(&format!(r#"cd "$M/{top}"; {list}"#));
    for name in unsent().keys() {
        match names {
            Names::All => assert!(listed.contains(name), "{name} in {listed}"),
            Names::Some => {}
            Names::None => assert!(!listed.contains(name), "{name} in {listed}"),
        }
    }
    if names == Names::All {
        assert!(listed.contains("docs/old.txt\n"), "the link: {listed}");
    }
}

#[test]
fn an_overwritten_header_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Unmounted,
        |dir| {
            overwrite(&meta(dir), 0, &[0x5a; 100]);
        },
        Names::All,
    );
}

#[test]
fn a_database_replaced_by_text_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Killed,
        |dir| {
            fs::write(meta(dir), "This is not a database.\n".repeat(1000)).expect("written");
            drop(fs::remove_file(dir.join("meta.db-wal")));
        },
        Names::None,
    );
}

#[test]
fn an_emptied_database_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Unmounted,
        |dir| {
            fs::write(meta(dir), "").expect("written");
        },
        Names::None,
    );
}

#[test]
fn a_missing_database_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Killed,
        |dir| {
            for name in ["meta.db", "meta.db-wal", "meta.db-shm"] {
                drop(fs::remove_file(dir.join(name)));
            }
        },
        Names::None,
    );
}

#[test]
fn a_truncated_database_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Unmounted,
        |dir| {
            let file = File::options()
                .write(true)
                .open(meta(dir))
                .expect("database");
            let len = file.metadata().expect("length").len();
            file.set_len(len / 2).expect("cut");
        },
        Names::Some,
    );
}

#[test]
fn pages_of_noise_are_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Unmounted,
        |dir| {
            let pages = fs::metadata(meta(dir)).expect("database").len() / PAGE as u64;
            for page in (1..pages).step_by(3) {
                overwrite(&meta(dir), page * PAGE as u64, &files::noise(page, PAGE));
            }
        },
        Names::Some,
    );
}

#[test]
fn an_overwritten_log_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    survives(
        End::Killed,
        |dir| {
            let log = dir.join("meta.db-wal");
            let len = fs::metadata(&log).expect("log").len();
            assert!(len > 0, "the log holds what was written last");
            let len = usize::try_from(len).expect("length");
            fs::write(&log, files::noise(5, len)).expect("written");
        },
        Names::Some,
    );
}

#[test]
fn a_log_that_breaks_off_is_survived() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    // SQLite takes what comes before for everything there is; the spool knows better.
    survives(
        End::Killed,
        |dir| overwrite(&dir.join("meta.db-wal"), 32 + 24, &files::noise(5, PAGE)),
        Names::Some,
    );
}

#[test]
fn content_that_the_database_does_not_know_is_given_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    service.set_reach(Reach::Offline);
    fs::write(mount.at("kept.txt"), "kept").expect("written");
    fs::write(mount.at("removed.txt"), "removed").expect("written");
    fs::remove_file(mount.at("removed.txt")).expect("removed");
    mount.crash();
    drop(mount);
    // As after a power cut that took the last commits along.
    let folder = state_dir(&home).join("spool/ff");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(folder.join("00000000000003ff"), "forgotten").expect("written");
    let mount = home.mount_args(&["--poll", "2"]);
    let found = home.sh(r#"cd "$M"; cat Recovered*/*; ls | grep -v Recovered"#);
    assert_eq!(found, "forgottenkept.txt\n");
    assert!(kept(&home).is_empty(), "nothing is left beside");
    service.set_reach(Reach::Online);
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    service.set_reach(Reach::Offline);
    fs::write(mount.at("unsent.txt"), "unsent").expect("written");
    mount.unmount();
    let dir = state_dir(&home);
    // The version of the schema is in the header.
    let sound = fs::read(meta(&dir)).expect("read");
    overwrite(&meta(&dir), 60, &9999_u32.to_be_bytes());
    let before = fs::read(meta(&dir)).expect("read");
    home.try_mount(&[]).explained(1, "newer version");
    assert_eq!(fs::read(meta(&dir)).expect("read"), before);
    assert!(kept(&home).is_empty());
    fs::write(meta(&dir), sound).expect("written");
    service.set_reach(Reach::Online);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("unsent.txt")).expect("read"), b"unsent");
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn damage_that_shows_while_mounted_ends_the_mount_and_the_next_one_repairs_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    seeded(&service);
    let before = tree::of_drive(&service.default_drive());
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    mount.unmount();
    service.set_reach(Reach::Offline);
    let mut mount = home.mount_args(&["--poll", "2"]);
    for (path, body) in [("one.txt", "first"), ("two.txt", "second")] {
        fs::write(mount.at(path), body).expect("written");
    }
    // Everything but the first page, which SQLite has in memory.
    let database = meta(&state_dir(&home));
    let len = fs::metadata(&database).expect("database").len();
    for page in 1..len / PAGE as u64 {
        overwrite(&database, page * PAGE as u64, &[0xa5; PAGE]);
    }
    service.set_reach(Reach::Online);
    // Whatever looks into a folder finds out.
    let _errors = fs::read_dir(mount.at("many")).map(Iterator::count);
    let status = mount.wait_end();
    assert_eq!(status.code(), Some(1));
    let told = mount.log();
    assert!(
        told.contains("damaged") && told.contains("mount again"),
        "{told}"
    );
    drop(mount);
    assert_eq!(
        tree::of_drive(&service.default_drive()),
        before,
        "nothing was sent"
    );

    let mount = home.mount();
    mount.sync();
    let bodies = home.sh(r#"cd "$M"/Recovered*; find . -type f -exec cat {} +"#);
    for body in ["first", "second"] {
        assert!(bodies.contains(body), "{bodies}");
    }
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn a_rescue_that_is_killed_again_and_again_comes_to_its_end() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    seeded(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    service.set_reach(Reach::Offline);
    work_unsent(&home, &mount);
    mount.unmount();
    let dir = state_dir(&home);
    overwrite(&meta(&dir), 0, &[0x5a; 100]);
    let mountpoint = home.mountpoint();
    for kill in 1..=12 {
        let arguments = ["mount", mountpoint.to_str().expect("UTF-8")];
        let mut daemon = home.command(&arguments).spawn().expect("daemon");
        std::thread::sleep(Duration::from_millis(8 * kill));
        daemon.kill().expect("killed");
        daemon.wait().expect("gone");
    }
    let mount = home.mount_args(&["--poll", "2"]);
    let (top, _) = assert_recovered(&mount);
    assert_named(&home, &top, Names::All);
    let copies = mount.status()["conflicts"].as_array().map(Vec::len);
    assert_eq!(copies, Some(unsent().len() + 1), "each of them once");
    assert_eq!(kept(&home).len(), 1, "{:?}", kept(&home));
    service.set_reach(Reach::Online);
    mount.sync();
    mount.unmount();
}
