//! Disks of this machine that are full or cannot be written: programs are told, nothing that was
//! accepted is lost, and everything goes on by itself when there is room.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write};

use onedrivefs_sim::{FileBody, Reach};
use onedrivefs_tests::disk::SmallDisk;
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};
use rustix::process::Signal;

use crate::files;

/// Time in which everything has to go on by itself.
const RESUME_LIMIT: std::time::Duration = wait::secs(90);

/// What a mount on small disks needs.
const NEEDS: &[Need] = &[Need::Fuse, Need::Root, Need::Namespaces];

/// Tells whether a file can be mounted as a disk, and says so if not.
fn has_loop_devices() -> bool {
    if !needs::met(&[Need::Program("mkfs.ext4")]) {
        return false;
    }
    let there = std::path::Path::new("/dev/loop-control").exists();
    if !there {
        needs::cannot("there are no loop devices");
    }
    there
}

/// Makes directories until there is no room to record one. Returns the names of those that were
/// made, and expects each refusal to say why.
fn exhaust(mount: &Mount<'_>) -> Vec<String> {
    let mut made = Vec::new();
    for number in 0..100_000 {
        let name = format!("made {number}");
        match fs::create_dir(mount.at(&name)) {
            Ok(()) => made.push(name),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                assert!(!mount.at(&name).exists(), "{name} was refused and is there");
                return made;
            }
        }
    }
    panic!("the disk is full and takes everything");
}

/// Reads a file past the kernel's cache until all of it stays here.
fn wait_cached(home: &Home<'_>, mount: &Mount<'_>, name: &str) {
    wait::until("bytes that stay", RESUME_LIMIT, || {
        home.sh(&format!(
            r#"dd if="$M/{name}" of=/dev/null bs=1M iflag=direct status=none"#
        ));
        mount.status_of(name)["status"] == "cached"
    });
}

#[test]
fn cf_25_cf_26_a_full_state_disk_refuses_what_it_cannot_record_and_takes_deletions() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["kept", "deleted", "moved"] {
        drive.put(&format!("/{name}"), name).expect("file");
    }
    let home = Home::new(&service);
    let disk = SmallDisk::at(home.path("state"), 32);
    home.log_in();
    let mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    home.sh(r#"cat "$M/kept" "$M/moved""#);
    service.set_reach(Reach::Offline);
    fs::write(mount.at("before"), "before").expect("written");
    let ballast = disk.fill();
    let made = exhaust(&mount);
    let refused = fs::rename(mount.at("moved"), mount.at("elsewhere")).expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert!(mount.at("moved").exists() && !mount.at("elsewhere").exists());
    let refused = fs::write(mount.at("after"), vec![1; 100_000]).expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    // What is here can be read, and deletions have room of their own.
    assert_eq!(home.sh(r#"cat "$M/kept" "$M/before""#), "keptbefore");
    fs::remove_file(mount.at("deleted")).expect("a deletion");
    if let Some(first) = made.first() {
        fs::remove_dir(mount.at(first)).expect("a deletion");
    }
    drop(ballast);
    service.set_reach(Reach::Online);
    wait::until("everything sent", RESUME_LIMIT, || {
        drive.exists("/before") && !drive.exists("/deleted")
    });
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert!(drive.exists("/moved") && drive.exists("/kept"));
    mount.unmount();
}

#[test]
fn cf_26_bytes_that_were_accepted_before_the_disk_was_full_are_sent_when_there_is_room() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::new(&service);
    let disk = SmallDisk::at(home.path("state"), 32);
    home.log_in();
    let mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    service.set_reach(Reach::Offline);
    let body = files::noise(1, 2 << 20);
    let mut file = File::create(mount.at("accepted.bin")).expect("created");
    file.write_all(&body).expect("accepted");
    let ballast = disk.fill();
    exhaust(&mount);
    let refused = file.sync_all().expect_err("cannot be recorded");
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    // Nobody is there any more who could try again.
    drop(file);
    drop(ballast);
    service.set_reach(Reach::Online);
    wait::until("the file", RESUME_LIMIT, || {
        drive
            .read("/accepted.bin")
            .is_some_and(|there| there == body)
    });
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn uploads_go_on_with_a_full_state_disk() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/there", "there").expect("file");
    let home = Home::new(&service);
    let disk = SmallDisk::at(home.path("state"), 32);
    home.log_in();
    let mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    service.set_reach(Reach::Offline);
    let body = files::noise(2, 3 << 20);
    fs::write(mount.at("waiting.bin"), &body).expect("written");
    let ballast = disk.fill();
    service.set_reach(Reach::Online);
    wait::until("the file", RESUME_LIMIT, || {
        drive
            .read("/waiting.bin")
            .is_some_and(|there| there == body)
    });
    mount.wait_sent(RESUME_LIMIT);
    drop(ballast);
    // Changes of others come in again, too.
    drive.put("/later", "later").expect("file");
    wait::until("the change", RESUME_LIMIT, || mount.at("later").exists());
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_file_is_read_although_the_cache_disk_is_full() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = files::noise(3, 3_000_000);
    drive.put("/large.bin", body.clone()).expect("file");
    drive.put("/small.txt", "small").expect("file");
    let home = Home::signed_in(&service);
    let disk = SmallDisk::at(home.path("cache"), 16);
    let mount = home.mount();
    mount.sync();
    let ballast = disk.fill();
    assert!(fs::read(mount.at("large.bin")).expect("read") == body);
    assert_eq!(home.sh(r#"cat "$M/small.txt""#), "small");
    let log = mount.log();
    assert!(
        log.contains("The disk of the content cache is full"),
        "{log}"
    );
    drop(ballast);
    wait_cached(&home, &mount, "large.bin");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_download_that_needs_room_has_it_made_at_once() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    // Two of them fit on the disk.
    let size = 6 << 20;
    for seed in 0..5 {
        let path = format!("/{seed}.bin");
        let body = FileBody::Generated { seed, size };
        drive.put(&path, body).expect("file");
    }
    let home = Home::signed_in(&service);
    let _disk = SmallDisk::at(home.path("cache"), 16);
    // Nothing but the need for room may have anything removed.
    let mount = home.mount_args(&["--option", "free_space=0", "--cache-size", "1G"]);
    mount.sync();
    for seed in 0..5 {
        wait_cached(&home, &mount, &format!("{seed}.bin"));
    }
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_file_larger_than_the_disk_is_read_and_a_save_beside_it_has_room() {
    if !needs::met(NEEDS) || !has_loop_devices() {
        return;
    }
    const FLOOR: u64 = 32 << 20;
    let service = Service::start();
    let drive = service.default_drive();
    let (size, small) = (200 << 20, files::noise(5, 1 << 20));
    let body = FileBody::Generated { seed: 6, size };
    drive.put("/huge.bin", body.clone()).expect("file");
    drive.put("/saved.txt", "before").expect("file");
    drive.put("/small.bin", small.clone()).expect("file");
    let mut home = Home::new(&service);
    // One disk for everything, as most people have it.
    let disk = SmallDisk::with_journal(home.path("state"), home.path("image"), 128);
    let cache = home.make_dir("state/cache");
    home.set_env("XDG_CACHE_HOME", cache.to_str().expect("path"));
    home.log_in();
    home.configure("free_space = \"32MiB\"\n");
    let mount = home.mount();
    mount.sync();

    let mut file = File::open(mount.at("huge.bin")).expect("open");
    let (mut at, mut least_free) = (0, u64::MAX);
    let mut piece = vec![0; 1 << 20];
    while at < size {
        file.read_exact(&mut piece).expect("read");
        assert!(piece == body.read(at, piece.len()).expect("sim"), "at {at}");
        at += piece.len() as u64;
        least_free = least_free.min(disk.free());
        if at == 160 << 20 {
            // An editor that cuts the file before it writes it.
            fs::write(mount.at("saved.txt"), files::noise(7, 8 << 20)).expect("saved");
            least_free = u64::MAX;
        }
        if at == 159 << 20 {
            // The database has some use for the disk, too.
            assert!(least_free >= FLOOR - (8 << 20), "{least_free} are free");
        }
    }
    assert!(fs::read(mount.at("small.bin")).expect("read") == small);
    let moved = service.downloaded_bytes();
    assert!(moved < size + size / 4, "{moved} bytes were moved");
    mount.sync();
    let saved = drive.read("/saved.txt").expect("there");
    assert!(saved == files::noise(7, 8 << 20));
    // What was read goes when something else needs the room.
    drop(file);
    wait_cached(&home, &mount, "small.bin");
    mount.unmount();
}

#[test]
fn what_was_sent_leaves_the_spool_although_the_cache_disk_is_full() {
    if !needs::met(NEEDS) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let disk = SmallDisk::at(home.path("cache"), 4);
    let mount = home.mount();
    mount.sync();
    let _ballast = disk.fill();
    let body = files::noise(4, 2 << 20);
    fs::write(mount.at("sent.bin"), &body).expect("written");
    mount.sync();
    assert!(drive.read("/sent.bin").is_some_and(|there| there == body));
    let spooled = || home.sh(r#"find ../state -path '*/spool/*' -type f -size +0 | wc -l"#);
    wait::until("an empty spool", RESUME_LIMIT, || spooled().trim() == "0");
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.entry("/sent.bin").expect("entry").versions, 1);
    mount.unmount();
}

#[test]
fn a_state_disk_that_becomes_read_only_refuses_changes_and_loses_nothing() {
    if !needs::met(NEEDS) || !has_loop_devices() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/cached", "cached").expect("file");
    let home = Home::new(&service);
    let disk = SmallDisk::with_journal(home.path("state"), home.path("image"), 64);
    home.log_in();
    let mut mount = home.mount_args(&["--poll", "2"]);
    mount.sync();
    home.sh(r#"cat "$M/cached""#);
    service.set_reach(Reach::Offline);
    let mut file = File::create(mount.at("unsent")).expect("created");
    file.write_all(b"unsent").expect("written");
    file.sync_all().expect("on disk");
    drop(file);
    disk.break_down();
    for refused in [
        fs::create_dir(mount.at("new")).expect_err("read-only"),
        fs::write(mount.at("cached"), "other").expect_err("read-only"),
        fs::remove_file(mount.at("cached")).expect_err("read-only"),
    ] {
        let number = refused.raw_os_error();
        assert!(matches!(number, Some(libc::EROFS | libc::EIO)), "{refused}");
    }
    assert_eq!(
        home.sh(r#"ls "$M"; cat "$M/cached""#),
        "cached\nunsent\ncached"
    );
    assert_eq!(mount.status()["pending"]["ops"], 1);
    mount.signal(Signal::TERM);
    drop(mount);
    home.try_mount(&[]).explained(1, "ead-only");

    disk.repair();
    service.set_reach(Reach::Online);
    let mount = home.mount();
    mount.sync();
    assert_eq!(drive.read("/unsent").as_deref(), Some(b"unsent".as_slice()));
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}
