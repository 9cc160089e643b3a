//! Files that the kernel reads by itself, as the kernel would have them opened.

use onedrivefs_core::Ino;
use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_vfs::{OpenFlags, Opened};

use crate::fixture::{Mount, RW, settle};

const MIB: usize = 1 << 20;
const READ: OpenFlags = OpenFlags { write: false, ..RW };

/// What the memory of a machine is a file system of.
const TMPFS: u64 = 0x0102_1994;

/// Tells whether bodies are where a mapping cannot be watched.
fn in_memory(m: &Mount) -> bool {
    let kind = rustix::fs::statfs(m.dir.path()).expect("file system");
    u64::try_from(kind.f_type).is_ok_and(|kind| kind == TMPFS)
}

async fn open(m: &Mount, ino: Ino, own_name: bool, flags: OpenFlags) -> Opened {
    let edition = own_name.then_some(0);
    settle(m.vfs.open(ino, edition, flags)).await.expect("open")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_from_before_are_not_kept_whoever_opened_the_file_meanwhile() {
    let m = Mount::new().await;
    if in_memory(&m) {
        return;
    }
    m.write("f", &vec![1; 2 * MIB]).await;
    m.sync().await;
    let ino = m.ino("f");
    m.vfs.release(ino, open(&m, ino, true, READ).await.fh);
    let opened = open(&m, ino, true, READ).await;
    assert!(opened.keep_cache, "the kernel has pages");
    m.vfs.release(ino, opened.fh);
    // Nothing is sent, so that the file goes on being the same version.
    let unsent = FaultRule::on("upload_fragment", FaultAction::Hold);
    m.sim.faults().add(unsent);
    m.vfs.allow_passthrough();
    let reading = open(&m, ino, true, READ).await;
    assert!(reading.backing.is_some() && !reading.keep_cache);
    let writing = open(&m, ino, true, RW).await;
    let other_spelling = open(&m, ino, false, READ).await;
    assert!(other_spelling.backing.is_none());
    m.vfs.write(ino, writing.fh, 0, b"new").expect("write");
    for opened in [writing, other_spelling, reading] {
        m.vfs.release(ino, opened.fh);
    }
    let opened = open(&m, ino, true, READ).await;
    assert!(opened.backing.is_none() && !opened.keep_cache);
    m.vfs.release(ino, opened.fh);
    assert_eq!(m.read("f").await[..4], *b"new\x01");
}
