//! Which file is the next version of one that was renamed or removed, and which is not.

use onedrivefs_core::Timestamp;
use onedrivefs_sim::Reach;

use crate::fixture::{Mount, settle};

const MIB: usize = 1 << 20;

impl Mount {
    async fn online(&self) {
        self.sim.set_reach(Reach::Online);
        self.engine.credentials_changed();
        self.sync().await;
    }

    fn id(&self, path: &str) -> String {
        self.drive.entry(path).expect("an entry").id
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        self.drive.read(path).expect("a file")
    }

    /// Has every change so far happen earlier.
    fn age(&self, path: &str, seconds: i64) {
        let ino = self.ino(path);
        let aged = self.engine.store.write(|tx| {
            let mut item = tx.item(ino)?.expect("item");
            let before = item.ctime.as_nanos() - seconds * 1_000_000_000;
            item.ctime = Timestamp::from_nanos(before);
            tx.update_item(&item)
        });
        aged.expect("aged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_new_item_and_the_file_goes_on_as_the_old_one() {
    let m = Mount::new().await;
    m.write("a.txt", b"one").await;
    m.sync().await;
    let id = m.id("/a.txt");
    m.sim.set_reach(Reach::Offline);
    m.rename("a.txt", "a.txt~");
    m.write("a.txt", b"two").await;
    // A save more before any of it is sent.
    m.rename("a.txt", "a.txt~");
    m.write("a.txt", b"three").await;
    m.online().await;
    assert_eq!(m.there(), ["/a.txt", "/a.txt~"]);
    assert_eq!(m.id("/a.txt"), id);
    assert_eq!(m.bytes("/a.txt"), b"three");
    assert_eq!(m.bytes("/a.txt~"), b"two");
    assert_eq!(m.drive.entry("/a.txt").expect("entry").versions, 2);
    assert_eq!(m.sim.requests().count("delete"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_to_something_else_stays_what_it_was() {
    let m = Mount::new().await;
    m.write("a.txt", b"one").await;
    m.sync().await;
    let id = m.id("/a.txt");
    m.sim.set_reach(Reach::Offline);
    m.rename("a.txt", "b.txt");
    m.write("a.txt", b"two").await;
    m.online().await;
    assert_eq!(m.id("/b.txt"), id);
    assert_eq!(m.bytes("/b.txt"), b"one");
    assert_eq!(m.bytes("/a.txt"), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_made_long_after_is_a_new_one() {
    let m = Mount::new().await;
    m.write("kept", b"one").await;
    m.sync().await;
    let kept = m.id("/kept");
    m.sim.set_reach(Reach::Offline);
    m.rename("kept", "kept.old");
    m.age("kept.old", 11);
    m.write("kept", b"two").await;
    m.online().await;
    assert_eq!(m.id("/kept.old"), kept);
    assert_eq!(m.bytes("/kept"), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_sent_stays_one() {
    let m = Mount::new().await;
    m.write("a", b"one").await;
    m.sync().await;
    let id = m.id("/a");
    m.rename("a", "a.bak");
    m.sent().await;
    m.write("a", b"two").await;
    m.sync().await;
    assert_eq!(m.id("/a.bak"), id);
    assert_eq!(m.bytes("/a.bak"), b"one");
    assert_eq!(m.bytes("/a"), b"two");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_is_not_here_is_fetched_unless_it_is_large() {
    let m = Mount::new().await;
    let (small, large) = (vec![1; 3 * MIB], vec![2; 65 * MIB]);
    m.drive.put("/small", small.clone()).expect("put");
    m.drive.put("/large", large.clone()).expect("put");
    m.sync().await;
    let (small_id, large_id) = (m.id("/small"), m.id("/large"));
    m.sim.set_reach(Reach::Offline);
    for name in ["small", "large"] {
        m.rename(name, &format!("{name}.orig"));
        m.write(name, b"new").await;
    }
    m.online().await;
    assert_eq!(m.id("/small"), small_id);
    assert!(m.bytes("/small.orig") == small);
    assert_eq!(m.id("/large.orig"), large_id);
    assert!(m.bytes("/large.orig") == large);
    assert_eq!(m.bytes("/small"), b"new");
    assert_eq!(m.bytes("/large"), b"new");
    assert!(m.read("small.orig").await == small);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_was_changed_elsewhere_keeps_the_name_there() {
    let m = Mount::new().await;
    for name in ["backed", "removed"] {
        m.write(name, b"one").await;
    }
    m.sync().await;
    m.sim.set_reach(Reach::Offline);
    m.rename("backed", "backed~");
    m.unlink("removed");
    for name in ["backed", "removed"] {
        m.drive.put(&format!("/{name}"), "theirs").expect("put");
        m.write(name, b"ours").await;
    }
    m.online().await;
    let there = m.there();
    assert_eq!(there.len(), 5, "{there:?}");
    for name in ["backed", "removed"] {
        assert_eq!(m.bytes(&format!("/{name}")), b"theirs");
        let copy = format!("/{name} (conflict");
        let copy = there.iter().find(|path| path.starts_with(&copy));
        assert_eq!(m.bytes(copy.expect("a conflict copy")), b"ours");
    }
    assert_eq!(m.bytes("/backed~"), b"one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_anew_is_the_next_version_of_the_one_that_was_removed() {
    let m = Mount::new().await;
    m.write("a", b"one").await;
    m.sync().await;
    let id = m.id("/a");
    m.sim.set_reach(Reach::Offline);
    let (ino, fh) = m.open("a");
    m.unlink("a");
    m.write("a", b"two").await;
    m.online().await;
    assert_eq!(m.id("/a"), id);
    assert_eq!(m.bytes("/a"), b"two");
    // Who had it open has the old one.
    let read = m.vfs.read(ino, fh, 0, 10);
    let read = settle(read).await.expect("read");
    assert_eq!(read[..], b"one"[..]);
    m.close(ino, fh).await.expect("close");
    m.sync().await;
    assert_eq!(m.there(), ["/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_written_to_keeps_its_identity() {
    let m = Mount::new().await;
    m.write("a", b"one").await;
    m.sync().await;
    let id = m.id("/a");
    m.sim.set_reach(Reach::Offline);
    m.rename("a", "a~");
    m.write("a", b"two").await;
    let (ino, fh) = m.open("a~");
    m.vfs.write(ino, fh, 3, b", more").expect("write");
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.until("the name was left", || m.drive.entry("/a~").is_some())
        .await;
    m.close(ino, fh).await.expect("close");
    m.sync().await;
    assert_eq!(m.id("/a~"), id);
    assert_eq!(m.bytes("/a~"), b"one, more");
    assert_eq!(m.bytes("/a"), b"two");
}
