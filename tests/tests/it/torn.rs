//! A file that is replaced on the service while programs open it here, again and again.

use std::fs::{self, File};
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::files;

/// Versions that the file goes through at most.
const VERSIONS: u32 = 60;

/// The content of a version: its number, as often as fits into a length that jumps up and down
/// across pages and blocks.
fn content(version: u32) -> Vec<u8> {
    let length = [10, 70_000, 300, 5000, 4096, 1][version as usize % 6] + version as usize;
    let word = format!("{version:09} ");
    word.bytes().cycle().take(length).collect()
}

/// Tells whether bytes are one version from its first byte to its last.
fn is_whole(bytes: &[u8]) -> bool {
    (0..=VERSIONS).any(|version| content(version) == bytes)
}

#[test]
fn a_file_that_is_replaced_in_the_middle_of_a_read_is_read_to_its_end() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = mount.at("file");
    for (old, new) in
        [(1, 2), (2, 3), (3, 9), (9, 5), (4, 1)].map(|(a, b)| (content(a), content(b)))
    {
        drive.put("/file", old.clone()).expect("file");
        mount.sync();
        let mut file = File::open(&path).expect("opened");
        let mut read = vec![0; 1];
        file.read_exact(&mut read).expect("read");
        drive.put("/file", new.clone()).expect("version");
        mount.sync();
        assert_eq!(
            fs::metadata(&path).expect("metadata").len(),
            new.len() as u64
        );
        assert!(fs::read(&path).expect("read") == new);
        file.read_to_end(&mut read).expect("the rest");
        assert!(read == old, "{} of {} bytes", read.len(), old.len());
        assert_eq!(file.metadata().expect("metadata").len(), old.len() as u64);
        drop(file);
        assert!(fs::read(&path).expect("read") == new);
    }
    mount.unmount();
}

#[test]
fn whoever_opens_a_file_reads_one_version_of_it_from_its_first_byte_to_its_last() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/file", content(0)).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let path = mount.at("file");
    let versions = if files::is_long() { VERSIONS } else { 8 };
    let over = AtomicBool::new(false);
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let read = |count: &AtomicU64| {
        while !over.load(Ordering::Relaxed) {
            match fs::read(&path) {
                Ok(bytes) => {
                    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
                    assert!(is_whole(&bytes), "{} bytes of {start:?}", bytes.len());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // The version it began with is not to be had any more.
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"),
            }
        }
    };
    thread::scope(|scope| {
        let readers = counts.each_ref().map(|count| scope.spawn(|| read(count)));
        for version in 1..=versions {
            drive.put("/file", content(version)).expect("version");
            mount.sync();
            // Each version is read to its end before it is replaced.
            for (count, reader) in counts.iter().zip(&readers) {
                let before = count.load(Ordering::Relaxed);
                wait::until("a reader", wait::secs(30), || {
                    reader.is_finished() || count.load(Ordering::Relaxed) >= before + 2
                });
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(!mount.log().contains("could not be told"));
    assert_eq!(fs::read(&path).expect("read"), content(versions));
    mount.unmount();
}
