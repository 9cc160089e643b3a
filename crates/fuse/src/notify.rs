//! Tells the kernel what to forget, from one thread of its own.
//!
//! Each notification is a system call that may wait: dropping pages waits for reads of the inode
//! that are under way, forgetting a name waits for lookups and creations in its directory. Sent
//! from a thread that answers such requests it would wait for itself, so nothing but this thread
//! ever sends one, and it holds no lock meanwhile. The one exception never waits, and goes out
//! before [`NotifyQueue::send`] returns: that the attributes of a file are others now. Callers publish their change first and hand
//! over the notification afterwards; the other way round a racing lookup would cache the old
//! state again.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use onedrivefs_core::Ino;
use onedrivefs_vfs::{Announcement, Edition, KernelChange};
use rustix::io::Errno;

use crate::call::edition_node;
use crate::open_files::OpenFiles;
use crate::watchers::Watchers;

/// Batches that may wait. A batch is what one committed change set brought; when so many wait,
/// the source of further changes is held up rather than a notification lost.
const QUEUE_BATCHES: usize = 256;

/// Notifications sent in a row before requests get a chance: each one locks a directory or an
/// inode in the kernel.
const BURST: usize = 128;

/// The pause after a burst.
const PAUSE: Duration = Duration::from_millis(1);

/// An offset that makes the kernel forget attributes and leave the pages alone.
const ATTRIBUTES_ONLY: i64 = -1;

/// What the kernel can be told.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Forgets a name, present or absent.
    fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()>;
    /// Forgets the attributes of an inode.
    fn forget_attributes(&self, ino: Ino) -> io::Result<()>;
    /// Forgets attributes and pages of an inode.
    fn forget_content(&self, ino: Ino) -> io::Result<()>;
    /// Forgets a name and tells those who watch the file that it is gone.
    fn announce_deletion(&self, parent: Ino, child: Ino, name: &OsStr) -> io::Result<()>;
}

/// The kernel's end of a mount.
pub(crate) struct Connected {
    notifier: Notifier,
    edition: Box<dyn Fn(Ino) -> Edition + Send + Sync>,
}

impl Connected {
    /// `edition` tells which edition of an inode its path leads to.
    pub(crate) fn new(
        notifier: Notifier,
        edition: impl Fn(Ino) -> Edition + Send + Sync + 'static,
    ) -> Self {
        Self {
            notifier,
            edition: Box::new(edition),
        }
    }

    fn node(&self, ino: Ino) -> INodeNo {
        edition_node(ino, (self.edition)(ino))
    }
}

impl Kernel for Connected {
    fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()> {
        self.notifier.inval_entry(self.node(parent), name)
    }

    fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
        self.notifier
            .inval_inode(self.node(ino), ATTRIBUTES_ONLY, 0)
    }

    fn forget_content(&self, ino: Ino) -> io::Result<()> {
        self.notifier.inval_inode(self.node(ino), 0, 0)
    }

    fn announce_deletion(&self, parent: Ino, child: Ino, name: &OsStr) -> io::Result<()> {
        let (parent, child) = (self.node(parent), self.node(child));
        self.notifier.delete(parent, child, name)
    }
}

/// What the thread is handed.
#[derive(Debug)]
enum Message {
    /// Changes to announce, in order, and the inodes whose attributes are forgotten already. The
    /// announcement is dropped when it is done.
    Changes(Announcement, HashSet<Ino>),
    /// A file with deferred pages was closed.
    Closed,
    /// The end.
    Stop,
}

/// The entrance to the notification thread.
#[derive(Clone, Debug)]
pub(crate) struct NotifyQueue {
    sender: SyncSender<Message>,
    stopping: Arc<AtomicBool>,
    kernel: SharedKernel,
}

/// The kernel, once there is a mount.
#[derive(Clone, Default)]
struct SharedKernel(Arc<OnceLock<Arc<dyn Kernel>>>);

impl fmt::Debug for SharedKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedKernel")
            .field(&self.0.get().is_some())
            .finish()
    }
}

/// The other end of a [`NotifyQueue`], until its thread is started.
pub(crate) struct NotifyWork {
    receiver: Receiver<Message>,
    stopping: Arc<AtomicBool>,
    kernel: SharedKernel,
    files: Arc<OpenFiles>,
    watchers: Option<Arc<Watchers>>,
}

/// Makes a queue for a mount whose open files are `files`.
pub(crate) fn queue(files: Arc<OpenFiles>) -> (NotifyQueue, NotifyWork) {
    let (sender, receiver) = sync_channel(QUEUE_BATCHES);
    let stopping = Arc::new(AtomicBool::new(false));
    let kernel = SharedKernel::default();
    let queue = NotifyQueue {
        sender,
        stopping: Arc::clone(&stopping),
        kernel: kernel.clone(),
    };
    let work = NotifyWork {
        receiver,
        stopping,
        kernel,
        files,
        watchers: None,
    };
    (queue, work)
}

impl NotifyQueue {
    /// Hands over changes. Waits while the queue is full, so this must not be called from a
    /// request handler. After [`Self::stop`] it does nothing.
    pub(crate) fn send(&self, changes: Vec<KernelChange>) {
        self.announce(Announcement::from(changes));
    }

    /// As [`Self::send`], for changes that others wait to see announced.
    pub(crate) fn announce(&self, announcement: Announcement) {
        if announcement.changes.is_empty() || self.stopping.load(Ordering::Acquire) {
            return;
        }
        let told = self.forget_attributes(&announcement.changes);
        // The thread is gone only after the end, when there is nothing left to announce to.
        drop(self.sender.send(Message::Changes(announcement, told)));
    }

    /// Makes the kernel forget attributes at once. Returns the inodes of which it had some.
    ///
    /// Each is told of once: the kernel throws away the answer to a question for attributes that
    /// was under way meanwhile, and the program that made it ask goes on with the old size.
    fn forget_attributes(&self, changes: &[KernelChange]) -> HashSet<Ino> {
        let mut told = HashSet::new();
        let Some(kernel) = self.kernel.0.get() else {
            return told;
        };
        for change in changes {
            if let KernelChange::Content { ino } | KernelChange::Attributes { ino } = change
                && !told.contains(ino)
                && kernel.forget_attributes(*ino).is_ok()
            {
                told.insert(*ino);
            }
        }
        told
    }

    /// Says that a file with deferred pages was closed. Never waits: while the queue is full the
    /// thread looks for closed files anyway.
    pub(crate) fn closed(&self) {
        drop(self.sender.try_send(Message::Closed));
    }

    /// Ends the thread. What has not been announced no longer matters to a mount that goes away.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // A full queue wakes the thread as well.
        drop(self.sender.try_send(Message::Stop));
    }
}

impl NotifyWork {
    /// Those who watch are told as well.
    pub(crate) fn with(mut self, watchers: Arc<Watchers>) -> Self {
        self.watchers = Some(watchers);
        self
    }

    /// Starts the thread.
    pub(crate) fn start(self, kernel: impl Kernel) -> io::Result<()> {
        let kernel: Arc<dyn Kernel> = Arc::new(kernel);
        let _first = self.kernel.0.set(Arc::clone(&kernel));
        thread::Builder::new()
            .name("fuse-notify".to_owned())
            .spawn(move || self.run(kernel.as_ref()))
            .map(drop)
    }

    /// Announces until told to stop or the connection is gone.
    fn run(self, kernel: &dyn Kernel) {
        let mut sent = 0;
        while let Ok(message) = self.receiver.recv() {
            match message {
                Message::Changes(announcement, told) => {
                    for change in &announcement.changes {
                        self.tell_watchers(change, Watchers::before);
                        self.tell(&mut sent, || self.announce(kernel, change, &told));
                        self.tell_watchers(change, Watchers::after);
                    }
                }
                Message::Closed => {}
                Message::Stop => return,
            }
            for ino in self.files.take_closed() {
                self.tell(&mut sent, || kernel.forget_content(ino));
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn tell_watchers(&self, change: &KernelChange, tell: impl Fn(&Watchers, &KernelChange)) {
        if let Some(watchers) = &self.watchers
            && !self.stopping.load(Ordering::Acquire)
        {
            tell(watchers, change);
        }
    }

    /// Sends one notification unless the end has begun, and pauses after a burst.
    fn tell(&self, sent: &mut usize, send: impl FnOnce() -> io::Result<()>) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        match send() {
            Ok(()) => {}
            Err(error) if is_disconnected(&error) => self.stopping.store(true, Ordering::Release),
            // The kernel refuses what it has forgotten already, in one way or another.
            Err(error) => tracing::debug!(%error, "the kernel refused a notification"),
        }
        *sent += 1;
        if sent.is_multiple_of(BURST) {
            thread::sleep(PAUSE);
        }
    }

    /// Turns a change into notifications.
    fn announce(
        &self,
        kernel: &dyn Kernel,
        change: &KernelChange,
        told: &HashSet<Ino>,
    ) -> io::Result<()> {
        match change {
            KernelChange::Entry { parent, name } => kernel.forget_entry(*parent, OsStr::new(name)),
            KernelChange::Attributes { ino } if told.contains(ino) => Ok(()),
            KernelChange::Attributes { ino } => kernel.forget_attributes(*ino),
            KernelChange::Content { ino } if self.files.defer_if_open(*ino) => {
                if told.contains(ino) {
                    Ok(())
                } else {
                    kernel.forget_attributes(*ino)
                }
            }
            KernelChange::Content { ino } => kernel.forget_content(*ino),
            KernelChange::Deleted {
                parent,
                child,
                name,
            } => {
                let name = OsStr::new(name);
                // Refused for a directory that has cached children, and for a mountpoint.
                kernel
                    .announce_deletion(*parent, *child, name)
                    .or_else(|_| kernel.forget_entry(*parent, name))
            }
        }
    }
}

/// Tells whether the mount is gone.
fn is_disconnected(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;
    use std::time::Duration;

    use super::*;

    /// A kernel that writes down what it is told.
    struct Recorder {
        told: mpsc::Sender<String>,
        /// When set, a notification waits until a unit arrives.
        gate: Option<Mutex<Receiver<()>>>,
    }

    impl Recorder {
        fn write(&self, line: String) -> io::Result<()> {
            self.told.send(line).map_err(io::Error::other)?;
            if let Some(gate) = &self.gate {
                gate.lock().recv().map_err(io::Error::other)?;
            }
            Ok(())
        }
    }

    impl Kernel for Recorder {
        fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()> {
            self.write(format!("entry {parent} {}", name.display()))
        }
        fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
            self.write(format!("attributes {ino}"))
        }
        fn forget_content(&self, ino: Ino) -> io::Result<()> {
            self.write(format!("content {ino}"))
        }
        fn announce_deletion(&self, parent: Ino, child: Ino, name: &OsStr) -> io::Result<()> {
            if name == "full" {
                return Err(Errno::NOTEMPTY.into());
            }
            self.write(format!("deletion {parent} {child} {}", name.display()))
        }
    }

    /// Long enough for any machine; reached only when the test fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn entry(name: &str) -> KernelChange {
        KernelChange::Entry {
            parent: Ino(1),
            name: name.to_owned(),
        }
    }

    #[test]
    fn changes_arrive_in_order_and_open_files_keep_their_pages() {
        let files = Arc::new(OpenFiles::default());
        let (queue, work) = queue(Arc::clone(&files));
        let (told, heard) = mpsc::channel();
        work.start(Recorder { told, gate: None }).unwrap();
        files.opened(Ino(5));
        let deleted = |name: &str| KernelChange::Deleted {
            parent: Ino(1),
            child: Ino(9),
            name: name.to_owned(),
        };
        queue.send(vec![
            entry("a"),
            KernelChange::Attributes { ino: Ino(4) },
            KernelChange::Content { ino: Ino(4) },
            KernelChange::Content { ino: Ino(5) },
            deleted("gone"),
            deleted("full"),
        ]);
        let expect = |line: &str| assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), line);
        // Attributes before everything else, and once.
        expect("attributes 4");
        expect("attributes 5");
        expect("entry 1 a");
        expect("content 4");
        expect("deletion 1 9 gone");
        expect("entry 1 full");
        assert!(files.closed(Ino(5)));
        queue.closed();
        expect("content 5");
        queue.stop();
        assert!(heard.recv_timeout(PATIENCE).is_err());
    }

    #[test]
    fn a_full_queue_holds_the_sender_up_and_the_end_lets_it_go() {
        let (queue, work) = queue(Arc::new(OpenFiles::default()));
        let (told, heard) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        work.start(Recorder {
            told,
            gate: Some(Mutex::new(gate)),
        })
        .unwrap();
        let (done, finished) = mpsc::channel();
        let sender = queue.clone();
        thread::spawn(move || {
            for _ in 0..2 * QUEUE_BATCHES {
                sender.send(vec![entry("a"), entry("b")]);
            }
            done.send(()).unwrap();
        });
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "entry 1 a");
        assert!(finished.try_recv().is_err());
        queue.stop();
        open.send(()).unwrap();
        finished.recv_timeout(PATIENCE).unwrap();
        assert!(heard.recv_timeout(PATIENCE).is_err(), "sent after the end");
    }
}
