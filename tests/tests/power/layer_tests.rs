//! The mounted disk does what programs ask of it, and forgets at a power cut what it may.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use onedrivefs_tests::{Need, needs};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::disk::{Disk, Mode};
use crate::layer::Layer;

#[test]
fn a_mounted_disk_is_a_file_system_that_forgets() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let layer = Layer::mount(Disk::empty(), dir.path());
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).expect("mkdir");
    fs::write(at("d/temp"), vec![b'x'; 10_000]).expect("write");
    fs::rename(at("d/temp"), at("d/file")).expect("rename");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(at("d/file"))
        .expect("open");
    file.set_len(100_000).expect("length");
    rustix::fs::fallocate(
        &file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        4096,
    )
    .expect("punch");
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(4096));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(4096)), Ok(12_288));
    assert_eq!(file.metadata().expect("stat").size(), 100_000);
    file.sync_all().expect("fsync");
    for folder in [at("d"), dir.path().to_owned()] {
        let folder = File::open(folder).expect("folder");
        folder.sync_all().expect("fsync");
    }
    file.write_all_at(b"lost", 5000).expect("write");
    fs::write(at("d/lost"), "lost").expect("write");
    let mut seen = [0; 4];
    file.read_exact_at(&mut seen, 5000).expect("read");
    assert_eq!(&seen, b"lost");
    drop(file);
    let layer = layer.cut(Mode::Strict, 1);
    assert!(!at("d/lost").exists());
    let bytes = fs::read(at("d/file")).expect("read");
    assert_eq!(bytes.len(), 100_000);
    assert!(bytes[..4096].iter().all(|&b| b == 0));
    assert!(bytes[4096..10_000].iter().all(|&b| b == b'x'));
    assert!(bytes[10_000..].iter().all(|&b| b == 0));
    assert_eq!(fs::read_dir(at("d")).expect("list").count(), 1);
    fs::remove_file(at("d/file")).expect("unlink");
    fs::remove_dir(at("d")).expect("rmdir");
    drop(layer);
}
