//! Open files: what handles of one inode share, and what each has for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use onedrivefs_content::Body;
use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::Item;
use onedrivefs_sync::hydrate::Source;
use parking_lot::Mutex;

use crate::passthrough::{Lent, Way};
use crate::readahead::ReadAhead;
use crate::types::OpenFlags;

/// What all handles share that were opened on the same content of an inode. It is pinned to that
/// content once it is used: what replaces the content then belongs to another edition.
pub(crate) struct OpenFile {
    pub ino: Ino,
    /// Handles there are. Only changed while the table of open files is locked, so that a file
    /// cannot be opened while it is being taken out of the table.
    pub handles: AtomicU32,
    /// Whether programs may have seen bytes of it or changed some. Only set while the state is
    /// locked.
    pub used: AtomicBool,
    pub state: Mutex<FileState>,
}

/// The state of an open file.
pub(crate) struct FileState {
    /// The body, once somebody read or wrote.
    pub body: Option<Arc<Body>>,
    /// Where missing bytes come from.
    pub source: Option<Source>,
    /// Whether it was written to since the last save.
    pub dirty: bool,
    /// Whether a power cut may leave a database that takes the body for the service's version,
    /// although the body is about to be changed in place.
    pub unmarked: bool,
    /// When it was last written to, unless a program set the time since.
    pub mtime: Option<Timestamp>,
    /// Whether the service has other content by now: what is here of the old content can be read,
    /// nothing is fetched or written any more.
    pub stale: bool,
    /// Whether a `close` saved what was written: with another one that comes before that was sent, the
    /// same is waited for. One process may close it for another, as the child of a fork does.
    pub awaited: bool,
    /// What it is a copy of so far, if nothing else was written to it.
    pub copying: Option<Copying>,
    /// Size up to which the drive has room.
    pub room_until: u64,
    /// In what way the kernel has the file open under its own name.
    pub way: Way,
    /// Handles through which it runs as a program.
    pub executed: u32,
    /// Handles that write to a file which the kernel reads by itself, and that it has not closed.
    pub kernel_writers: u32,
    /// The body, while programs may change it by a mapping.
    pub lent: Option<Lent>,
    /// The row as last seen, for calls on a file that has no name any more.
    pub item: Item,
}

/// A copy that is being made.
#[derive(Clone)]
pub(crate) struct Copying {
    /// The version that it is a copy of.
    pub source: Source,
    /// Up to where.
    pub reached: u64,
}

impl OpenFile {
    /// A file that nobody read or wrote yet.
    pub(crate) fn new(item: Item) -> Self {
        Self {
            ino: item.ino,
            handles: AtomicU32::new(0),
            used: AtomicBool::new(false),
            state: Mutex::new(FileState {
                body: None,
                source: None,
                dirty: false,
                unmarked: false,
                mtime: None,
                stale: false,
                awaited: false,
                copying: None,
                room_until: 0,
                way: Way::default(),
                executed: 0,
                kernel_writers: 0,
                lent: None,
                item,
            }),
        }
    }

    /// A file that was just made and is about to be written: its body is marked as such.
    pub(crate) fn with_body(item: Item, body: Arc<Body>) -> Self {
        let mut file = Self::new(item);
        let state = file.state.get_mut();
        state.body = Some(body);
        state.dirty = true;
        file
    }
}

impl OpenFile {
    /// Notes that bytes of a body are seen by programs from now on. `false` when the file has
    /// another body by now, or is about to: `unannounced` tells so.
    pub(crate) fn note_used(&self, body: &Arc<Body>, unannounced: impl Fn() -> bool) -> bool {
        let state = self.state.lock();
        let current = state
            .body
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, body));
        if !current || self.used.load(Ordering::Relaxed) {
            return current;
        }
        let usable = !unannounced();
        self.used.store(usable, Ordering::Relaxed);
        usable
    }
}

/// One handle.
pub(crate) struct Handle {
    /// The file.
    pub file: Arc<OpenFile>,
    /// How it was opened.
    pub flags: OpenFlags,
    /// Whether bytes of this content were handed out.
    pub has_read: AtomicBool,
    /// How often the body had forgotten bytes when the first ones were handed out.
    pub forgotten: AtomicU64,
    /// Whether it counts among [`FileState::kernel_writers`].
    pub counted: AtomicBool,
    /// Whether the body is lent through it: the kernel lets it map a file that it reads by itself.
    pub lent: AtomicBool,
    /// What the disk was asked for ahead of its reader.
    pub ahead: ReadAhead,
}

impl Handle {
    /// Notes that bytes of a body are handed out.
    pub(crate) fn note_handed_out(&self, body: &Body) {
        if !self.has_read.swap(true, Ordering::Relaxed) {
            self.forgotten
                .store(body.times_forgotten(), Ordering::Relaxed);
        }
    }

    /// Tells whether bytes it handed out turned out to be corrupt. Its reader must not go on as if
    /// nothing had happened.
    pub(crate) fn was_misled(&self, body: &Body) -> bool {
        self.has_read.load(Ordering::Relaxed)
            && self.forgotten.load(Ordering::Relaxed) < body.times_forgotten()
    }
}
