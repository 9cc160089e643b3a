//! Names that differ in case only are one name here, but several to the kernel.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Enough for the kernel to be asked in the moment in which it could still be wrong.
const ROUNDS: u32 = 300;

/// How often others take a file away while a program makes one in its place.
const TAKEN: u32 = 5;

/// Files that others take away along with it: the kernel is told of them first, which gives the
/// program the time to come before.
const OTHERS: u32 = 400;

/// Time in which what others did has to arrive.
const ARRIVAL: Duration = wait::secs(30);

/// What others put behind the name of a file that they rename.
const MOVED_SUFFIX: &str = ".moved";

/// Where the file is then.
const MOVED: &str = "/A.txt.moved";

/// First version of Linux that can forget all names at once: until then a name may lead to where it
/// did for a moment after it was taken away under another spelling.
const FORGETS_AT_ONCE: (u32, u32) = (6, 16);

fn kernel_forgets_at_once() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let is_new = matches!(version, (Some(major), Some(minor)) if (major, minor) >= FORGETS_AT_ONCE);
    if !is_new {
        needs::cannot("Linux before 6.16 forgets other spellings a moment later");
    }
    is_new
}

/// Makes a file and lets the kernel know it.
fn make(mount: &Mount, name: &str, content: &str) {
    fs::write(mount.at(name), content).expect("file");
    fs::metadata(mount.at(name)).expect("file");
}

#[test]
fn no_name_outlives_a_file_that_went_under_another_spelling() {
    if !needs::met(&[Need::Fuse]) || !kernel_forgets_at_once() {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let gone = |name: &str, round: u32| {
        let opened = fs::File::open(mount.at(name)).map_err(|error| error.kind());
        assert_eq!(opened.err(), Some(ErrorKind::NotFound), "round {round}");
    };
    for round in 0..ROUNDS {
        make(&mount, "name", "first");
        fs::rename(mount.at("NAME"), mount.at("moved")).expect("rename");
        gone("name", round);
        fs::remove_file(mount.at("MOVED")).expect("removal");
        gone("moved", round);
        fs::create_dir(mount.at("folder")).expect("folder");
        fs::metadata(mount.at("folder")).expect("folder");
        fs::remove_dir(mount.at("FOLDER")).expect("removal");
        gone("folder", round);
        // Known to be absent under one spelling, made under another.
        gone("File", round);
        fs::write(mount.at("FILE"), "text").expect("file");
        assert!(fs::read(mount.at("File")).is_ok_and(|it| it == b"text"));
        fs::remove_file(mount.at("FILE")).expect("removal");
    }
    mount.unmount();
}

#[test]
fn swapped_names_lead_to_the_other_at_once_under_every_spelling() {
    if !needs::met(&[Need::Fuse]) || !kernel_forgets_at_once() {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    fs::create_dir(mount.at("d")).expect("folder");
    fs::write(mount.at("d/inside"), "d").expect("file");
    make(&mount, "file", "text");
    for round in 0..ROUNDS {
        let (folder, file) = if round % 2 == 0 {
            ("d", "file")
        } else {
            ("file", "d")
        };
        assert!(mount.at(folder).is_dir() && mount.at(file).is_file());
        let (a, b) = (mount.at(&folder.to_uppercase()), mount.at(file));
        renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchange");
        // What is made in the folder now must be in the folder.
        fs::create_dir(mount.at(file).join("new")).expect("folder");
        fs::remove_dir(mount.at(&file.to_uppercase()).join("NEW")).expect("removal");
        assert!(!mount.at(file).join("new").exists(), "round {round}");
        let read = fs::read_to_string(mount.at(folder)).expect("file");
        assert_eq!(read, "text", "round {round}");
    }
    mount.unmount();
}

#[test]
fn a_file_that_was_emptied_under_another_spelling_is_empty_at_once() {
    if !needs::met(&[Need::Fuse]) || !kernel_forgets_at_once() {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    for round in 0..ROUNDS {
        make(&mount, "file", "text");
        assert_eq!(fs::read(mount.at("file")).expect("file"), b"text");
        let mut other = if round % 2 == 0 {
            // Not before the kernel has let go of whoever has read it.
            let emptied = || fs::File::create(mount.at("FILE")).ok();
            wait::value("emptied", wait::secs(10), emptied)
        } else {
            let other = fs::File::options().write(true).open(mount.at("FILE"));
            let other = other.expect("file");
            other.set_len(0).expect("emptied");
            other
        };
        let len = fs::metadata(mount.at("file")).expect("file").len();
        assert_eq!(len, 0, "round {round}");
        // By copy_file_range, in which the kernel reads pages that it has.
        fs::copy(mount.at("file"), mount.at("copy")).expect("copy");
        let copied = fs::read(mount.at("copy")).expect("copy");
        assert!(copied.is_empty(), "round {round}: {copied:?}");
        other.write_all(b"more than before").expect("write");
        drop(other);
        let read = fs::read(mount.at("file")).expect("file");
        assert_eq!(read, b"more than before", "round {round}");
    }
    mount.unmount();
}

/// Others take a file away whose name the kernel remembers, and a program makes one under another
/// spelling of that name before the kernel is told: every spelling leads to the new file at once.
fn made_anew_before_the_kernel_is_told(take: fn(&DriveHandle, &str)) {
    if !needs::met(&[Need::Fuse]) || !kernel_forgets_at_once() {
        return;
    }
    let service = Service::with(|config| config.knobs.delta_page_size = 2 * OTHERS as usize);
    // What others do is heard of when the test wants it.
    let refused = FaultRule::on("socketio", FaultAction::status(500));
    service.faults().add(refused);
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    for round in 0..TAKEN {
        let others = (0..OTHERS).map(|number| format!("/others {round}/{number}"));
        let taken: Vec<String> = others.chain(["/A.txt".to_owned()]).collect();
        for path in &taken {
            drive.put(path, "theirs").expect("file");
        }
        mount.sync();
        home.sh(r#"ls -lR "$M" > "$W/listed""#);
        let news = FaultRule::on("delta", FaultAction::Hold);
        let news = service.faults().add(news);
        wait::until("a look for news", ARRIVAL, || {
            service.faults().hits(news) > 0
        });
        for path in &taken {
            take(&drive, path);
        }
        service.faults().remove(news);
        let begun = Instant::now();
        while mount.at("a.txt").exists() {
            assert!(begun.elapsed() < ARRIVAL, "round {round}: never taken away");
        }
        fs::write(mount.at("a.txt"), "mine").expect("file");
        let other = fs::File::options().append(true).open(mount.at("A.txt"));
        let mut other = other.unwrap_or_else(|error| panic!("round {round}: A.txt: {error}"));
        other.write_all(b" and more").expect("write");
        drop(other);
        let read = fs::read_to_string(mount.at("a.txt")).expect("file");
        assert_eq!(read, "mine and more", "round {round}");
        mount.sync();
        let there = |path: &str| drive.read(path).unwrap_or_default();
        assert_eq!(there("/a.txt"), b"mine and more", "round {round}");
        let moved = drive.read(MOVED);
        assert!(
            moved.is_none_or(|bytes| bytes == b"theirs"),
            "round {round}"
        );
        fs::remove_file(mount.at("A.txt")).expect("removal");
        assert!(!mount.at("a.txt").exists(), "round {round}");
        if drive.exists(MOVED) {
            drive.delete(MOVED).expect("deletion");
        }
    }
    mount.unmount();
}

#[test]
fn a_file_that_others_removed_hides_no_new_one_under_another_spelling() {
    made_anew_before_the_kernel_is_told(|drive, path| drive.delete(path).expect("deletion"));
}

#[test]
fn nothing_written_to_a_new_file_ends_up_in_one_that_others_renamed() {
    made_anew_before_the_kernel_is_told(|drive, path| {
        let moved = format!("{path}{MOVED_SUFFIX}");
        drive.rename(path, &moved).expect("rename");
    });
}
