//! Names that differ in case only are one name here, but several to the kernel.

use std::fs;
use std::io::{ErrorKind, Write as _};

use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Enough for the kernel to be asked in the moment in which it could still be wrong.
const ROUNDS: u32 = 300;

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
