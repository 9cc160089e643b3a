//! What lies on disk: modes, names, wiped caches, full disks, moves between file systems.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};

use onedrivefs_content::{Body, BodyId, Content, Place, Presence, is_missing};
use onedrivefs_core::Timestamp;
use tempfile::TempDir;

fn open(dir: &TempDir) -> Content {
    Content::open(&dir.path().join("spool"), &dir.path().join("cache")).expect("open")
}

fn read_all(body: &Body) -> Vec<u8> {
    let mut buf = vec![0; usize::try_from(body.size()).expect("small")];
    assert_eq!(body.read_at(0, &mut buf).expect("read"), buf.len());
    buf
}

#[test]
fn files_are_private_and_the_cache_is_tagged() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    content
        .create(Place::Spool, BodyId(0xabcd))
        .expect("create");
    let file = dir.path().join("spool/cd/000000000000abcd");
    for (path, mode) in [
        (dir.path().join("spool"), 0o700),
        (dir.path().join("cache"), 0o700),
        (dir.path().join("spool/cd"), 0o700),
        (file, 0o600),
    ] {
        let found = fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(found & 0o777, mode, "{}", path.display());
    }
    let tag = fs::read_to_string(dir.path().join("cache/CACHEDIR.TAG")).expect("tag");
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert!(!dir.path().join("spool/CACHEDIR.TAG").exists());
    content.sync_dir(Place::Spool).expect("sync");
    assert!(content.free_bytes(Place::Cache).expect("space") > 0);
}

#[test]
fn bodies_come_back_after_a_restart() {
    let dir = TempDir::new().expect("tempdir");
    let presence = {
        let content = open(&dir);
        let body = content.create_sparse(BodyId(1), 1000).expect("create");
        body.fill(100, &[7; 50]).expect("fill");
        fs::write(dir.path().join("cache/tmp/unfinished"), b"x").expect("litter");
        body.presence()
    };
    let content = open(&dir);
    assert!(!dir.path().join("cache/tmp/unfinished").exists());
    let body = content
        .load(Place::Cache, BodyId(1), Some(1000), presence.clone())
        .expect("load")
        .expect("there");
    assert_eq!(body.missing(0..2000), vec![0..100, 150..1000]);
    let mut buf = [0; 50];
    assert_eq!(body.read_at(100, &mut buf).expect("read"), 50);
    assert_eq!(buf, [7; 50]);
    assert!(is_missing(
        &body.read_at(99, &mut buf).expect_err("missing")
    ));
    let gone = content.load(Place::Cache, BodyId(2), Some(1), Presence::Complete);
    assert!(gone.expect("load").is_none());
    let shortened = content.load(Place::Cache, BodyId(1), Some(1001), presence);
    assert!(shortened.expect("load").is_none());
}

#[test]
fn a_spool_file_counts_as_it_is() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    content
        .create(Place::Spool, BodyId(3))
        .expect("create")
        .write_at(0, b"accepted and more")
        .expect("write");
    for recorded in [8, 17, 40] {
        let body = content
            .load(Place::Spool, BodyId(3), Some(recorded), Presence::Complete)
            .expect("load")
            .expect("there");
        assert_eq!(read_all(&body), b"accepted and more");
        assert!(body.is_complete());
    }
}

#[test]
fn an_interrupted_move_is_found_in_the_other_folder() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create(Place::Spool, BodyId(4)).expect("create");
    body.write_at(0, b"moved").expect("write");
    content.demote(&body).expect("demote");
    let found = content
        .load(Place::Spool, BodyId(4), Some(5), Presence::Complete)
        .expect("load")
        .expect("there");
    assert_eq!(found.place(), Place::Cache);
    assert_eq!(read_all(&found), b"moved");
}

#[test]
fn a_move_inside_a_file_system_is_a_rename() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create_sparse(BodyId(5), 10).expect("create");
    body.fill(0, b"0123456789").expect("fill");
    let inode = |path: &str| fs::metadata(dir.path().join(path)).map(|m| m.ino()).ok();
    let before = inode("cache/05/0000000000000005");
    assert!(before.is_some());
    content.promote(&body).expect("promote");
    content.promote(&body).expect("again");
    assert_eq!(inode("spool/05/0000000000000005"), before);
    assert_eq!(inode("cache/05/0000000000000005"), None);
    content.demote(&body).expect("demote");
    assert_eq!(inode("cache/05/0000000000000005"), before);
    assert_eq!(read_all(&body), b"0123456789");
}

#[test]
fn wiping_the_cache_costs_nothing_that_is_open() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create_sparse(BodyId(6), 8).expect("create");
    body.fill(0, b"half").expect("fill");
    let clean = content.create_sparse(BodyId(7), 4).expect("create");
    let spooled = content.create(Place::Spool, BodyId(8)).expect("create");
    spooled.write_at(0, b"mine").expect("write");
    fs::remove_dir_all(dir.path().join("cache")).expect("wipe");

    body.fill(4, b"more").expect("fill goes on");
    assert_eq!(read_all(&body), b"halfmore");
    content
        .promote(&body)
        .expect("recovered from the open file");
    body.write_at(8, b"!").expect("write");
    let stored = fs::read(dir.path().join("spool/06/0000000000000006")).expect("file");
    assert_eq!(stored, b"halfmore!");

    clean.fill(0, b"gone").expect("fill");
    assert_eq!(read_all(&clean), b"gone");
    content.demote(&spooled).expect("the cache is made again");
    assert!(dir.path().join("cache/CACHEDIR.TAG").exists());
    assert_eq!(read_all(&spooled), b"mine");
    let fresh = content.create_sparse(BodyId(9), 4).expect("create");
    fresh.fill(0, b"abcd").expect("fill");
    content.sync_dir(Place::Cache).expect("sync");
    let listed = content.list(Place::Cache).expect("list");
    let mut ids: Vec<u64> = listed.iter().map(|stored| stored.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [8, 9]);
    content
        .remove(Place::Cache, BodyId(7))
        .expect("absent is fine");
}

#[test]
fn a_foreign_file_under_a_wiped_name_is_not_taken_for_the_body() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create_sparse(BodyId(6), 4).expect("create");
    body.fill(0, b"ours").expect("fill");
    let path = dir.path().join("cache/06/0000000000000006");
    fs::remove_file(&path).expect("remove");
    fs::write(&path, b"fake").expect("write");
    content.promote(&body).expect("promote");
    assert_eq!(
        fs::read(dir.path().join("spool/06/0000000000000006")).expect("file"),
        b"ours"
    );
}

#[test]
fn removed_bodies_can_still_be_read() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create(Place::Spool, BodyId(10)).expect("create");
    body.write_at(0, b"old handle").expect("write");
    content.remove(Place::Spool, BodyId(10)).expect("remove");
    assert_eq!(read_all(&body), b"old handle");
    assert!(content.list(Place::Spool).expect("list").is_empty());
}

#[test]
fn moves_between_file_systems() {
    // Memory-backed on nearly every Linux; where it is not a file system of its own the test
    // still holds, only by renames.
    let Ok(other) = TempDir::new_in("/dev/shm") else {
        return;
    };
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("tempdir");
    let content = Content::open(dir.path(), &other.path().join("cache")).expect("open");
    let body = content.create_sparse(BodyId(11), 1 << 20).expect("create");
    body.fill(4096, &[9; 4096]).expect("fill");
    content.promote(&body).expect("promote");
    assert!(dir.path().join("0b/000000000000000b").exists());
    assert!(!other.path().join("cache/0b/000000000000000b").exists());
    body.write_at(0, &[1; 10]).expect("write");
    content.demote(&body).expect("demote");
    assert_eq!(body.missing(0..8192), vec![10..4096]);
}

#[test]
fn impossible_sizes_are_refused_and_change_nothing() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create(Place::Spool, BodyId(12)).expect("create");
    body.write_at(0, b"kept").expect("write");
    let error = body
        .allocate(0, 1 << 60, false)
        .expect_err("no disk is so large");
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge
        ),
        "{error}"
    );
    assert_eq!(body.size(), 4);
    assert_eq!(read_all(&body), b"kept");
    let error = body
        .write_at(u64::MAX - 1, b"xy")
        .expect_err("past the end of numbers");
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn forgetting_spares_local_changes() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create_sparse(BodyId(13), 8).expect("create");
    body.fill(0, b"rottenxx").expect("fill");
    assert!(body.is_complete() && body.is_pristine());
    assert_eq!(body.times_forgotten(), 0);
    assert!(body.forget_downloaded());
    assert!(body.forget_downloaded(), "nobody can have read anything");
    assert_eq!(body.times_forgotten(), 1);
    assert_eq!(body.missing(0..8), vec![0..8]);
    body.fill(0, b"good").expect("fill");
    body.write_at(4, b"mine").expect("write");
    assert!(!body.is_pristine());
    assert!(!body.forget_downloaded(), "it was changed here");
    assert_eq!(read_all(&body), b"goodmine");
}

#[test]
fn a_large_cut_under_a_snapshot_gives_it_the_old_file() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create(Place::Spool, BodyId(14)).expect("create");
    let old: Vec<u8> = (0..4 << 20).map(|i: u32| (i % 251) as u8).collect();
    body.write_at(0, &old).expect("write");
    let snapshot = body.snapshot().expect("first");
    body.write_at(100, b"changed").expect("write");
    body.set_len(50).expect("cut");
    body.write_at(50, b"new tail").expect("write");
    let mut seen = vec![0; old.len()];
    assert_eq!(snapshot.read_at(0, &mut seen).expect("read"), old.len());
    assert!(seen == old, "the snapshot changed");
    let mut expected = old[..50].to_vec();
    expected.extend_from_slice(b"new tail");
    assert_eq!(read_all(&body), expected);
    drop(snapshot);
    let file = dir.path().join("spool/0e/000000000000000e");
    assert_eq!(fs::read(file).expect("file"), expected);
}

#[test]
fn a_lent_body_tells_whether_it_was_changed_and_whether_it_can_be_still() {
    // On a disk, whatever the directory for temporary files is on.
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("tempdir");
    let content = open(&dir);
    let body = content.create_sparse(BodyId(1), 100).expect("create");
    body.fill(0, &[7; 100]).expect("fill");
    let handed_out = body.hand_out().expect("handed out");
    assert!(body.has_file(&handed_out).expect("files"));
    // What is lent is not frozen, and keeps its file when it moves.
    body.lend().expect("lent");
    assert!(body.snapshot().is_none());
    content.promote(&body).expect("moved");
    assert!(body.has_file(&handed_out).expect("files"));
    assert_eq!(body.touched_at().expect("time"), None);
    assert!(!body.is_held().expect("answer"));
    let path = dir.path().join("spool/01/0000000000000001");
    let outside = fs::File::options().write(true).open(path);
    let outside = outside.expect("opened");
    assert!(body.is_held().expect("answer"));
    assert_eq!(body.touched_at().expect("time"), None);
    let before = Timestamp::from(
        handed_out
            .metadata()
            .expect("metadata")
            .modified()
            .expect("time"),
    );
    outside.write_all_at(b"new", 0).expect("written");
    assert!(body.touched_at().expect("time") > Some(before));
    drop(outside);
    assert!(!body.is_held().expect("answer"));
    body.take_back();
    assert!(body.snapshot().is_some());
    // The body goes on as it was.
    body.write_at(3, b"er").expect("written");
    assert_eq!(read_all(&body)[..6], *b"newer\x07");
}

#[test]
fn a_snapshot_keeps_what_is_changed_by_others() {
    let dir = TempDir::new().expect("tempdir");
    let content = open(&dir);
    let body = content.create(Place::Spool, BodyId(1)).expect("create");
    body.write_at(0, b"as it was").expect("written");
    let snapshot = body.snapshot().expect("frozen");
    body.lend().expect("lent");
    let path = dir.path().join("spool/01/0000000000000001");
    fs::write(path, "as it is!").expect("written");
    let mut buf = [0; 9];
    assert_eq!(snapshot.read_at(0, &mut buf).expect("read"), 9);
    assert_eq!(&buf, b"as it was");
    assert_eq!(read_all(&body), b"as it is!");
}

#[test]
fn what_is_in_memory_is_not_handed_out_since_a_mapping_changes_it_unnoticed() {
    let Ok(dir) = TempDir::new_in("/dev/shm") else {
        return;
    };
    let content = open(&dir);
    let body = content.create_sparse(BodyId(1), 100).expect("create");
    body.fill(0, &[7; 100]).expect("fill");
    let error = body.hand_out().expect_err("kept");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
