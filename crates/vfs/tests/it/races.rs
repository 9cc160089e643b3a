//! Requests of this machine and changes of others that cross each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onedrivefs_sim::{FaultAction, FaultRule, Reach};

use onedrivefs_vfs::{OpenFlags, Outcome, VfsError};
use parking_lot::Mutex;

use crate::fixture::{Mount, RW, settle};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn news_from_before_an_upload_do_not_undo_it() {
    let m = Mount::new().await;
    m.write("f", b"one").await;
    m.sent().await;
    let slow = FaultRule::on("upload_fragment", FaultAction::Delay { ms: 1500 });
    let rule = m.sim.faults().add(slow);
    m.write("f", b"two, longer").await;
    let ino = m.ino("f");
    m.until("the upload is under way", || m.engine.is_in_flight(ino))
        .await;
    let deltas = || m.sim.requests().count("delta");
    let before = deltas();
    // The echo of the first version comes while the second one is being sent.
    m.engine.wake_freshness();
    m.until("a round was fetched", || deltas() > before).await;
    m.sent().await;
    m.sim.faults().remove(rule);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let downloads = m.sim.requests().count("download");
    assert_eq!(m.engine.item_at("f").expect("f").size, 11);
    assert_eq!(m.read("f").await, b"two, longer");
    assert_eq!(m.sim.requests().count("download"), downloads, "it was here");
    m.write("f", b"three").await;
    m.sync().await;
    assert_eq!(m.there(), ["/f"]);
    assert_eq!(m.drive.read("/f").as_deref(), Some(&b"three"[..]));
}

/// A file is written to, and saved again and again, as when a process that was started meanwhile closes
/// its copy of the handle.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_was_told_is_never_that_of_before_a_save() {
    const WRITES: u64 = 400;
    let m = Mount::new().await;
    m.write("f", b"").await;
    let (ino, fh) = m.open("f");
    let (vfs, written) = (&m.vfs, &AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while written.load(Ordering::Acquire) < WRITES {
                    let least = written.load(Ordering::Acquire);
                    let size = vfs.getattr(ino).expect("attributes").size;
                    assert!(size >= least, "{size} instead of {least}");
                }
            });
        }
        for at in 0..WRITES {
            vfs.write(ino, fh, at, b"x").expect("write");
            written.store(at + 1, Ordering::Release);
            assert!(matches!(vfs.flush(ino, fh), Ok(Outcome::Now(()))));
        }
    });
    m.vfs.release(ino, fh);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_does_not_go_on_over_the_version_of_others() {
    let m = Mount::new().await;
    m.write("f", b"base").await;
    m.sync().await;
    // The first fragment arrives, the second one never does.
    let fail = FaultRule::on("upload_fragment", FaultAction::status(500)).after(1);
    m.sim.faults().add(fail);
    let ours = vec![7; 12 * MIB];
    m.write("f", &ours).await;
    let ino = m.ino("f");
    let begun = || {
        let row = m.engine.store.read(|r| r.journal(ino)).expect("row");
        row.and_then(|row| row.session)
            .is_some_and(|s| s.offset > 0)
    };
    m.until("half of it was sent", || {
        begun() && !m.engine.is_in_flight(ino)
    })
    .await;
    m.drive.put("/f", "theirs").expect("put");
    m.engine.wake_freshness();
    m.until("their version is known", || {
        m.engine.item_at("f").is_ok_and(|item| item.size == 6)
    })
    .await;
    m.sim.faults().clear();
    m.sync().await;
    assert_eq!(m.drive.read("/f").as_deref(), Some(&b"theirs"[..]));
    let there = m.there();
    assert_eq!(there.len(), 2, "{there:?}");
    let copy = there.iter().find(|p| p.contains("conflict")).expect("copy");
    assert!(m.drive.read(copy).is_some_and(|body| body == ours));
    assert_eq!(m.read("f").await, b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_does_not_hide_a_change_of_others_from_the_next_save() {
    let m = Mount::new().await;
    m.write("f", b"base").await;
    m.sync().await;
    m.sim.set_reach(Reach::Offline);
    m.rename("f", "g");
    m.write("g", b"ours").await;
    m.drive.put("/f", "theirs!").expect("put");
    // What others did is not known here when the rename and the save are sent.
    let deaf = FaultRule::on("delta", FaultAction::status(500));
    let rule = m.sim.faults().add(deaf);
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.until("the rename arrived", || m.drive.exists("/g")).await;
    m.sim.faults().remove(rule);
    m.sync().await;
    let bodies: Vec<_> = m.there().iter().filter_map(|p| m.drive.read(p)).collect();
    assert!(bodies.contains(&b"theirs!".to_vec()), "{:?}", m.there());
    assert!(bodies.contains(&b"ours".to_vec()), "{:?}", m.there());
    assert_eq!(m.read("g").await, b"theirs!");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moved_into_a_folder_outlives_the_folder() {
    let m = Mount::new().await;
    m.mkdir("d");
    m.write("f", b"thesis").await;
    m.sync().await;
    m.sim.set_reach(Reach::Offline);
    m.rename("f", "d/f");
    m.drive.delete("/d").expect("delete");
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.sync().await;
    m.sync().await;
    assert_eq!(m.read("d/f").await, b"thesis");
    assert_eq!(m.there(), ["/d", "/d/f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_file_that_is_open_can_still_be_written() {
    let m = Mount::new().await;
    m.write("f", b"old").await;
    m.sync().await;
    let (ino, fh) = {
        let ino = m.ino("f");
        (
            ino,
            settle(m.vfs.open(ino, None, RW)).await.expect("open").fh,
        )
    };
    settle(m.vfs.read(ino, fh, 0, 3)).await.expect("read");
    m.unlink("f");
    m.until("it is gone there", || !m.drive.exists("/f")).await;
    m.sent().await;
    m.vfs.write(ino, fh, 0, b"new").expect("write");
    m.close(ino, fh).await.expect("close");
    m.sync().await;
    assert!(m.there().is_empty());
    assert!(m.engine.store.item(ino).expect("store").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_created_alike_is_one_file() {
    let m = Mount::new().await;
    let body = vec![3; 2 * MIB];
    m.drive.put("/n.bin", body.clone()).expect("put");
    // The upload finds out before any round does.
    m.write("n.bin", &body).await;
    m.sent().await;
    m.sync().await;
    assert_eq!(m.there(), ["/n.bin"]);
    assert!(m.engine.status().expect("status").conflicts.is_empty());
    assert_eq!(
        m.engine.path_status("n.bin").expect("status").status.word(),
        "cached"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_answer_was_lost_is_not_made_twice() {
    let m = Mount::new().await;
    let lost = FaultRule::on("put_content", FaultAction::DropAfter).times(1);
    m.sim.faults().add(lost);
    m.vfs
        .symlink(m.ino(""), "l".as_ref(), "target".as_ref())
        .expect("symlink");
    m.sent().await;
    m.sync().await;
    assert_eq!(m.there(), ["/l.rclonelink"]);
    assert!(m.engine.status().expect("status").conflicts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_to_a_name_that_was_taken_elsewhere_is_not_undone() {
    let m = Mount::new().await;
    m.drive.put("/b", "theirs").expect("put");
    m.write("b.tmp", b"ours").await;
    m.sent().await;
    m.sim.set_reach(Reach::Offline);
    m.rename("b.tmp", "b");
    // The next round brings their file together with the echo of our upload.
    let patch = FaultRule::on("patch", FaultAction::status(500));
    let rule = m.sim.faults().add(patch);
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.until("theirs is here", || {
        m.engine.item_at("b").is_ok_and(|item| item.size == 6)
    })
    .await;
    m.sim.faults().remove(rule);
    m.sync().await;
    assert_eq!(m.read("b").await, b"theirs");
    let there = m.there();
    assert_eq!(there.len(), 2, "{there:?}");
    let copy = there.iter().find(|p| p.contains("conflict")).expect("copy");
    assert_eq!(m.drive.read(copy).as_deref(), Some(&b"ours"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_the_moment_of_a_deletion_comes_back() {
    let m = Mount::new().await;
    m.write("f", b"old").await;
    m.sync().await;
    let slow = FaultRule::on("delete", FaultAction::Delay { ms: 1000 }).times(1);
    m.sim.faults().add(slow);
    m.unlink("f");
    m.until("the deletion is under way", || {
        m.sim.requests().count("delete") > 0
    })
    .await;
    m.drive.put("/f", "news").expect("put");
    m.sync().await;
    assert_eq!(m.drive.read("/f").as_deref(), Some(&b"news"[..]));
    assert_eq!(m.read("f").await, b"news");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_every_tag_still_deletes() {
    let m = Mount::new().await;
    m.sim.set_knobs(|knobs| knobs.delete_if_match_fails = true);
    m.write("f", b"1").await;
    m.write("g", b"2").await;
    m.sync().await;
    m.unlink("f");
    m.sync().await;
    m.unlink("g");
    m.sync().await;
    assert!(m.there().is_empty(), "{:?}", m.there());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsent_edit_of_a_file_that_was_made_anew_elsewhere_is_kept() {
    let m = Mount::new().await;
    m.write("f", b"base").await;
    m.sync().await;
    m.sim.set_reach(Reach::Offline);
    m.write("f", b"ours").await;
    m.drive.delete("/f").expect("delete");
    m.drive.put("/f", "theirs").expect("put");
    // The round comes first.
    let deaf = FaultRule::on("create_session", FaultAction::status(500));
    let rule = m.sim.faults().add(deaf);
    m.sim.set_reach(Reach::Online);
    m.engine.credentials_changed();
    m.until("theirs is here", || {
        m.engine.item_at("f").is_ok_and(|item| item.size == 6)
    })
    .await;
    m.sim.faults().remove(rule);
    m.sync().await;
    assert_eq!(m.read("f").await, b"theirs");
    let there = m.there();
    assert_eq!(there.len(), 2, "{there:?}");
    let copy = there.iter().find(|p| p.contains("conflict")).expect("copy");
    assert_eq!(m.drive.read(copy).as_deref(), Some(&b"ours"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_tried_again_spares_what_was_changed_at_that_moment() {
    let m = Mount::new().await;
    m.write("f", b"base").await;
    m.sync().await;
    let faults = m.sim.faults();
    let fails = faults.add(FaultRule::on("delete", FaultAction::status(500)).times(1));
    m.unlink("f");
    m.until("it failed once", || faults.hits(fails) == 1).await;
    let held = faults.add(FaultRule::on("delete", FaultAction::Hold));
    m.until("it is on its way again", || faults.hits(held) == 1)
        .await;
    m.drive.put("/f", "theirs").expect("put");
    faults.clear();
    m.sync().await;
    assert_eq!(m.read("f").await, b"theirs");
    assert_eq!(m.drive.read("/f").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_was_not_used_yet_goes_on_with_what_replaced_the_content() {
    let m = Mount::new().await;
    m.drive.put("/f", "old").expect("file");
    m.sync().await;
    let ino = m.ino("f");
    let open = async || settle(m.vfs.open(ino, Some(0), RW)).await;
    let opened = open().await.expect("open");
    m.drive.put("/f", "new and longer").expect("version");
    m.sync().await;
    assert_eq!(m.vfs.edition(ino), 0);
    let read = settle(m.vfs.read(ino, opened.fh, 0, 100)).await;
    assert_eq!(*read.expect("read"), *b"new and longer");
    m.close(ino, opened.fh).await.expect("close");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_comes_while_the_kernel_is_told_of_new_content_follows_the_path_again() {
    let m = Mount::new().await;
    m.drive.put("/f", "old").expect("file");
    m.sync().await;
    let ino = m.ino("f");
    let flags = OpenFlags { write: false, ..RW };
    let open = async || settle(m.vfs.open(ino, Some(0), flags)).await;
    let read = async |fh| settle(m.vfs.read(ino, fh, 0, 100)).await.expect("read");
    let old = open().await.expect("open").fh;
    assert_eq!(*read(old).await, *b"old");
    let telling = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&telling);
    m.vfs
        .set_kernel_listener(Box::new(move |told| listener.lock().push(told)));
    m.drive.put("/f", "new").expect("version");
    m.sync().await;
    assert_eq!(m.vfs.edition(ino), 1);
    let opening = m.vfs.open(ino, Some(0), flags).expect("open");
    assert!(matches!(opening, Outcome::Later(_)));
    telling.lock().clear();
    let refused = settle(Ok(opening)).await;
    assert!(matches!(refused, Err(VfsError::Stale)), "{refused:?}");
    // No path leads there any more: who asks has it open, as /proc/self/fd does.
    let again = open().await.expect("open").fh;
    assert_eq!(*read(again).await, *b"old");
    m.close(ino, again).await.expect("close");
    m.close(ino, old).await.expect("close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_was_used_goes_on_with_what_it_has_and_the_path_leads_elsewhere() {
    let m = Mount::new().await;
    m.drive.put("/f", "old and longer").expect("file");
    m.sync().await;
    let ino = m.ino("f");
    let open = async |edition| settle(m.vfs.open(ino, edition, RW)).await;
    let old = open(Some(0)).await.expect("open").fh;
    let read = async |fh, at| {
        let bytes = settle(m.vfs.read(ino, fh, at, 100)).await.expect("read");
        bytes.to_vec()
    };
    assert_eq!(read(old, 0).await, b"old and longer");
    m.drive.put("/f", "new").expect("version");
    m.sync().await;
    assert_eq!(m.vfs.edition(ino), 1);
    assert_eq!(read(old, 4).await, b"and longer");
    assert_eq!(m.vfs.getattr_of(ino, 0).expect("attributes").size, 14);
    let now = m.vfs.getattr(ino).expect("attributes");
    assert_eq!((now.size, now.edition), (3, 1));
    let refused = open(Some(0)).await;
    assert!(matches!(refused, Err(VfsError::Stale)), "{refused:?}");
    let new = open(Some(1)).await.expect("open").fh;
    assert_eq!(read(new, 0).await, b"new");
    let written = m.vfs.write(ino, old, 0, b"mix");
    assert!(matches!(written, Err(VfsError::Stale)), "{written:?}");
    m.close(ino, new).await.expect("close");
    m.close(ino, old).await.expect("close");
    assert!(m.vfs.getattr_of(ino, 0).is_err());
    m.sync().await;
    assert_eq!(m.drive.read("/f").expect("file"), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlinked_file_is_opened_again_only_by_way_of_a_handle() {
    let m = Mount::new().await;
    m.write("f", b"content").await;
    let (ino, fh) = m.open("f");
    m.unlink("f");
    // As /proc/self/fd does.
    let again = settle(m.vfs.open(ino, None, RW)).await.expect("open").fh;
    m.close(ino, again).await.expect("close");
    m.close(ino, fh).await.expect("close");

    m.write("g", b"content").await;
    m.sync().await;
    let ino = m.ino("g");
    m.sim.set_reach(Reach::Offline);
    m.unlink("g");
    // By an entry of the kernel that is outdated.
    let stale = settle(m.vfs.open(ino, None, RW)).await;
    assert!(matches!(stale, Err(VfsError::Stale)), "{stale:?}");
}
