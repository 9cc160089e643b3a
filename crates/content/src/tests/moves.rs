//! Moves with copying forced, which the public API chooses by itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Body, BodyId, Content, Place, Presence};

fn content(dir: &tempfile::TempDir) -> Content {
    Content::open(&dir.path().join("spool"), &dir.path().join("cache"))
        .expect("open")
        .copying()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

fn read_all(body: &Body) -> Vec<u8> {
    let mut buf = vec![0; usize::try_from(body.size()).expect("small")];
    assert_eq!(body.read_at(0, &mut buf).expect("read"), buf.len());
    buf
}

#[test]
fn a_copy_keeps_bytes_gaps_and_holes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let content = content(&dir);
    let body = content
        .create_sparse(BodyId(0x1234), 100 << 20)
        .expect("create");
    body.fill(5 << 20, &pattern(70_000, 1)).expect("fill");
    body.punch_hole(60 << 20, 1 << 20).expect("punch");
    let missing = body.missing(0..u64::MAX);
    content.promote(&body).expect("promote");
    assert_eq!(body.place(), Place::Spool);
    assert_eq!(body.missing(0..u64::MAX), missing);
    assert!(body.bytes_allocated() < 1 << 20, "holes stay holes");
    let mut buf = vec![0; 70_000];
    body.read_at(5 << 20, &mut buf).expect("read");
    assert_eq!(buf, pattern(70_000, 1));
    assert!(content.list(Place::Cache).expect("list").is_empty());
    content.demote(&body).expect("demote");
    content.sync_dir(Place::Cache).expect("sync");
    assert!(content.list(Place::Spool).expect("list").is_empty());
    let again = content
        .load(
            Place::Cache,
            BodyId(0x1234),
            Some(100 << 20),
            body.presence(),
        )
        .expect("load")
        .expect("there");
    again.read_at(5 << 20, &mut buf).expect("read");
    assert_eq!(buf, pattern(70_000, 1));
}

#[test]
fn writing_goes_on_while_a_body_is_copied() {
    let dir = tempfile::tempdir().expect("tempdir");
    let content = content(&dir);
    let body = content.create(Place::Cache, BodyId(7)).expect("create");
    let mut model = pattern(24 << 20, 3);
    body.write_at(0, &model).expect("write");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (body, stop) = (Arc::clone(&body), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut rounds = 0_usize;
            loop {
                let at = (rounds * 1_234_577) % (23 << 20);
                let data = pattern(40_000, rounds as u8);
                body.write_at(at as u64, &data).expect("write");
                model[at..at + data.len()].copy_from_slice(&data);
                if rounds % 7 == 3 {
                    let len = model.len() - 4_097;
                    body.set_len(len as u64).expect("cut");
                    body.set_len(model.len() as u64).expect("grow");
                    model[len..].fill(0);
                }
                rounds += 1;
                if stop.load(Ordering::Relaxed) {
                    return model;
                }
            }
        })
    };
    for _ in 0..3 {
        content.promote(&body).expect("promote");
        content.demote(&body).expect("demote");
    }
    stop.store(true, Ordering::Relaxed);
    let model = writer.join().expect("writer");
    assert!(read_all(&body) == model, "bodies differ");
    let on_disk = fs::read(dir.path().join("cache/07/0000000000000007")).expect("file");
    assert!(on_disk == model, "file differs");
    assert!(!dir.path().join("spool/07/0000000000000007").exists());
}

#[test]
fn a_failed_copy_leaves_the_body_where_it_was() {
    let dir = tempfile::tempdir().expect("tempdir");
    let content = content(&dir);
    let body = content.create(Place::Cache, BodyId(9)).expect("create");
    body.write_at(0, b"precious").expect("write");
    // A file in the place of the sub-folder: it can neither be made nor be used.
    fs::write(dir.path().join("spool/09"), b"").expect("block");
    let error = content.promote(&body).expect_err("blocked");
    assert!(!error.is_no_space());
    assert_eq!(body.place(), Place::Cache);
    assert_eq!(read_all(&body), b"precious");
    body.write_at(8, b"!").expect("write");
    fs::remove_file(dir.path().join("spool/09")).expect("unblock");
    content.promote(&body).expect("promote");
    assert_eq!(read_all(&body), b"precious!");
    let stored = content
        .load(Place::Spool, BodyId(9), None, Presence::Complete)
        .expect("load")
        .expect("there");
    assert_eq!(read_all(&stored), b"precious!");
}
