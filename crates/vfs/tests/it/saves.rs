//! What programs do to save a file, and what must never come of it.

use onedrivefs_sim::{FaultAction, FaultRule, Reach};

use crate::fixture::{Mount, RW, settle};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_was_sent_under_its_temporary_name_survives_a_wiped_cache() {
    let m = Mount::new().await;
    m.write("f", b"old").await;
    m.sync().await;
    m.write("f.tmp", b"new and precious").await;
    m.sent().await;
    m.sim.set_reach(Reach::Offline);
    m.rename("f.tmp", "f");
    std::fs::remove_dir_all(m.dir.path().join("cache")).expect("wipe");
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.sync().await;
    assert_eq!(m.there(), ["/f"]);
    let there = m.drive.read("/f");
    assert_eq!(there.as_deref(), Some(&b"new and precious"[..]));
    assert_eq!(m.read("f").await, b"new and precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_does_not_lose_what_was_written_before() {
    let m = Mount::new().await;
    m.drive.put("/big", vec![1; 4 * MIB]).expect("put");
    m.sync().await;
    let ino = m.ino("big");
    let fh = settle(m.vfs.open(ino, None, RW)).await.expect("open").fh;
    m.vfs.write(ino, fh, 0, b"mine").expect("write");
    m.drive.put("/big", vec![2; 4 * MIB]).expect("put");
    let read = settle(m.vfs.read(ino, fh, 3 * MIB as u64, 4096)).await;
    assert!(read.is_err(), "those bytes are nowhere any more");
    m.close(ino, fh).await.expect("close");
    let row = m.engine.store.read(|r| r.journal(ino)).expect("store");
    assert!(row.is_some(), "the save was not recorded");
    let item = m.engine.store.item(ino).expect("store").expect("item");
    let body = m.engine.store.read(|r| r.body(item.body.unwrap_or(0)));
    assert!(!body.expect("store").expect("row").dirty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_gets_a_local_name_is_not_sent() {
    let m = Mount::new().await;
    m.sim.set_reach(Reach::Offline);
    m.write("a.txt", b"x").await;
    m.rename("a.txt", "a.txt.part");
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.sync().await;
    assert!(m.there().is_empty(), "{:?}", m.there());
    m.rename("a.txt.part", "a.txt");
    m.sync().await;
    assert_eq!(m.there(), ["/a.txt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_temporary_file_is_never_seen() {
    let m = Mount::new().await;
    m.write("f", b"old").await;
    m.sync().await;
    let id = m.drive.entry("/f").expect("entry").id;
    let fail = FaultRule::on("upload_fragment", FaultAction::status(500)).after(1);
    m.sim.faults().add(fail);
    let body = vec![9; 12 * MIB];
    m.write("f.tmp", &body).await;
    let temp = m.ino("f.tmp");
    m.until("half of it was sent", || {
        let row = m.engine.store.read(|r| r.journal(temp)).expect("row");
        let begun = row
            .and_then(|row| row.session)
            .is_some_and(|s| s.offset > 0);
        begun && !m.engine.is_in_flight(temp)
    })
    .await;
    m.rename("f.tmp", "f");
    m.sim.faults().clear();
    m.sync().await;
    assert_eq!(m.there(), ["/f"]);
    assert_eq!(m.drive.entry("/f").expect("entry").id, id);
    assert!(m.drive.read("/f").is_some_and(|there| there == body));
    assert_eq!(m.sim.requests().count("delete"), 0, "a stray was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_lies_in_the_cache_is_written_to_in_the_spool() {
    let m = Mount::new().await;
    m.sim.set_reach(Reach::Offline);
    m.write("f", b"one").await;
    // As after a kill between moving the file and recording that.
    let item = m.engine.item_at("f").expect("f");
    let row = m.engine.store.read(|r| r.body(item.body.unwrap_or(0)));
    let row = row.expect("store").expect("row");
    let body = m.engine.bodies.open(&row).expect("open").expect("body");
    m.engine.bodies.content().demote(&body).expect("demote");
    drop(body);
    let (ino, fh) = m.open("f");
    m.vfs.write(ino, fh, 0, b"two").expect("write");
    m.close(ino, fh).await.expect("close");
    std::fs::remove_dir_all(m.dir.path().join("cache")).expect("wipe");
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.sync().await;
    assert_eq!(m.drive.read("/f").as_deref(), Some(&b"two"[..]));
}
