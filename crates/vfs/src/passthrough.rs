//! Files that the kernel reads by itself, from the body's file, where it is permitted to.
//!
//! The kernel wants one decision for a file as long as somebody has it open: it asks for all bytes,
//! or it reads all of them from one and the same file. So the first one who opens a file decides, and
//! what the kernel reads by itself is a body that stays the same as far as is known: complete, clean,
//! and the service's. The daemon does not learn of such reads.
//!
//! Who opens such a file for writing writes through the daemon as always, with two differences. The
//! body is changed in place instead of being copied or exchanged, for those who read it see one file
//! only. And whoever can both write and read it may map that very file, and change it without the
//! daemon, also after having closed it. So the body counts as being written, and is not sent, until
//! that handle is closed and nothing is mapped; only then the handle ends here.
//!
//! When the first one who opens it only overwrites, the kernel also writes by itself. Then the body
//! counts as being written in the same way. What became of it is asked whenever size or time matter.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_content::{Body, Place};
use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{BodyRow, Ops};
use onedrivefs_sync::bodies::DUPLICATE_MAX_BYTES;
use parking_lot::Mutex;

use crate::error::VfsError;
use crate::handle::{FileState, Handle, OpenFile};
use crate::types::OpenFlags;
use crate::vfs::{Vfs, content_version};

/// Pauses before it is asked again whether a file is mapped still; the last one is repeated. The
/// kernel lets go of a file a moment after it said that it was closed.
const ASK_AGAIN: [Duration; 4] = [
    Duration::from_millis(2),
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// In what way the kernel has a file open.
#[derive(Debug, Default)]
pub(crate) enum Way {
    /// Nobody has it open.
    #[default]
    Undecided,
    /// It asks for the bytes.
    Asks,
    /// It reads them by itself.
    Reads(Arc<Backing>),
}

/// The file that the kernel is to read by itself.
pub struct Backing {
    file: File,
    registered: Mutex<Registered>,
}

enum Registered {
    NotYet,
    Refused,
    As(Arc<dyn Any + Send + Sync>),
}

impl Backing {
    fn new(file: File) -> Arc<Self> {
        let registered = Mutex::new(Registered::NotYet);
        Arc::new(Self { file, registered })
    }

    /// What the kernel knows the file as, which it has to be told once for all handles. `None` when
    /// the kernel refused it, now or before: all handles do without.
    ///
    /// # Errors
    /// What the kernel said, if it refuses it now.
    pub fn registered<T: Send + Sync + 'static>(
        &self,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<Option<Arc<T>>> {
        let mut registered = self.registered.lock();
        match &*registered {
            Registered::Refused => Ok(None),
            Registered::As(id) => Ok(Arc::clone(id).downcast().ok()),
            Registered::NotYet => match register(self.file.as_fd()) {
                Ok(id) => {
                    let id = Arc::new(id);
                    *registered = Registered::As(Arc::<T>::clone(&id));
                    Ok(Some(id))
                }
                Err(error) => {
                    *registered = Registered::Refused;
                    Err(error)
                }
            },
        }
    }

    fn was_refused(&self) -> bool {
        matches!(*self.registered.lock(), Registered::Refused)
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backing").finish_non_exhaustive()
    }
}

/// A body that programs may change without the daemon.
pub(crate) struct Lent {
    body: Arc<Body>,
    /// Handles through which it can be mapped, or was, or written.
    handles: u32,
    /// Whether the kernel writes to it, or did.
    written: bool,
    /// Its row before, if that said that it was saved.
    before: Option<BodyRow>,
    /// Until when the file has the time that it should have: what was changed before was written
    /// through the daemon, or has the time that a program set.
    timed_until: Option<Timestamp>,
}

impl FileState {
    /// The file that the kernel reads by itself, if it does.
    pub(crate) fn backing(&self) -> Option<&Arc<Backing>> {
        match &self.way {
            Way::Reads(backing) if !backing.was_refused() => Some(backing),
            Way::Reads(_) | Way::Asks | Way::Undecided => None,
        }
    }

    /// Tells whether the body counts as being written only because it may be mapped.
    pub(crate) fn is_untouched(&self) -> bool {
        self.mtime.is_none()
            && self.lent.as_ref().is_some_and(|lent| {
                lent.before.is_some() && matches!(lent.body.touched_at(), Ok(None))
            })
    }

    /// Takes note of what the kernel has written by itself so far.
    pub(crate) fn catch_up(&mut self) {
        let Some(lent) = self.lent.as_ref().filter(|lent| lent.written) else {
            return;
        };
        match lent.body.catch_up() {
            Ok(touched_at) if touched_at > lent.timed_until => {
                self.mtime = self.mtime.max(touched_at);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "The size of a body is not known."),
        }
    }

    /// Notes that the file has the time now that it should have.
    pub(crate) fn note_timed(&mut self, now: Timestamp) {
        if let Some(lent) = &mut self.lent {
            lent.timed_until = lent.timed_until.max(Some(now));
        }
    }
}

impl Vfs {
    /// Says that the kernel can read files by itself.
    pub fn allow_passthrough(&self) {
        let possible = self.engine.bodies.content().moves_by_renaming();
        self.passthrough.store(possible, Ordering::Relaxed);
    }

    /// Says that the kernel cannot, as turned out. Nothing but speed is lost.
    pub fn forbid_passthrough(&self) {
        self.passthrough.store(false, Ordering::Relaxed);
    }

    /// Decides in what way the kernel has a file open for which a handle was just made, and makes
    /// the body ready for that.
    pub(crate) fn choose_way(
        &self,
        state: &mut FileState,
        handle: &Handle,
    ) -> Result<Option<Arc<Backing>>, VfsError> {
        let (file, flags) = (&handle.file, handle.flags);
        let undecided = matches!(state.way, Way::Undecided);
        let backing = match state.backing() {
            Some(backing) => Some(Arc::clone(backing)),
            None if undecided => self.passable(state, file, flags),
            None => None,
        };
        if flags.read && flags.write {
            self.mapped.lock().put(file.ino, ());
        }
        let Some(backing) = backing else {
            state.way = Way::Asks;
            return Ok(None);
        };
        state.way = Way::Reads(Arc::clone(&backing));
        // What the kernel may have kept of it from before does not follow what happens now.
        self.forget_version(file.ino);
        if flags.write {
            let written = undecided && flags.only_overwrites();
            if flags.read || written {
                self.lend(state, handle, &backing, written)?;
            }
            handle.counted.store(true, Ordering::Relaxed);
            state.kernel_writers += 1;
        }
        Ok(Some(backing))
    }

    /// The file of the body of a file that nobody has open, if the kernel can read it by itself, and
    /// write it if that is what it is opened for.
    fn passable(
        &self,
        state: &FileState,
        file: &OpenFile,
        flags: OpenFlags,
    ) -> Option<Arc<Backing>> {
        // A `close` that waits for the service needs to know the last one from the others, and nobody
        // looks whether there is room for what the kernel writes.
        let suits = !flags.write
            || flags.only_overwrites()
                && !self.engine.config.upload_on_close_wait
                && self.has_ample_room();
        if !self.passthrough.load(Ordering::Relaxed) || !suits || state.dirty || state.stale {
            return None;
        }
        let body = state.body.as_ref()?;
        // Smaller ones are copied before they are changed, and read by a request or two. Those that
        // programs like to write to in the way that mappings are written are better not lent.
        let fit = body.size() > DUPLICATE_MAX_BYTES
            && body.size() == state.item.size
            && body.place() == Place::Cache
            && body.is_complete()
            && !self.mapped.lock().contains(&file.ino);
        if !fit || !file.used.load(Ordering::Relaxed) && self.engine.is_unannounced(file.ino) {
            return None;
        }
        match body.hand_out() {
            Ok(handed_out) => {
                // Programs see its bytes from now on without our learning of it.
                file.used.store(true, Ordering::Relaxed);
                Some(Backing::new(handed_out))
            }
            Err(error) => {
                tracing::debug!(%error, "The kernel cannot be left to read files by itself.");
                self.forbid_passthrough();
                None
            }
        }
    }

    /// Makes a body ready to be changed through a mapping, or by the kernel.
    fn lend(
        &self,
        state: &mut FileState,
        handle: &Handle,
        backing: &Backing,
        written: bool,
    ) -> Result<(), VfsError> {
        let before = match &state.body {
            Some(body) if !state.dirty => self.store().read(|r| r.body(body.id().0))?,
            _ => None,
        };
        let body = self.begin_write(state, &handle.file)?;
        if !body.has_file(&backing.file)? {
            // Somebody removed the cached file, so that the body had to be copied. What is written
            // by a mapping of the old one would be lost.
            return Err(VfsError::Busy);
        }
        if state.unmarked {
            self.store().sync()?;
            state.unmarked = false;
        }
        body.lend()?;
        // What is copied into it need not stay what it was.
        state.copying = None;
        let lent = state.lent.get_or_insert_with(|| Lent {
            body,
            handles: 0,
            written: false,
            before,
            timed_until: None,
        });
        lent.handles += 1;
        lent.written |= written;
        handle.lent.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that the kernel has closed a handle. Tells whether a mapping that was made through it
    /// may still be there.
    pub(crate) fn may_be_mapped(&self, handle: &Handle) -> bool {
        let mut state = handle.file.state.lock();
        if handle.counted.swap(false, Ordering::Relaxed) {
            state.kernel_writers = state.kernel_writers.saturating_sub(1);
        }
        handle.lent.load(Ordering::Relaxed) && state.is_held()
    }

    /// Ends a handle once nothing is mapped any more that was mapped through it.
    pub(crate) fn end_unmapped(self: &Arc<Self>, ino: Ino, handle: Arc<Handle>) {
        let saved = self.save(&mut handle.file.state.lock(), &handle.file);
        if let Err(error) = saved {
            tracing::debug!(%ino, %error, "What was written is recorded later.");
        }
        let vfs = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let last = ASK_AGAIN[ASK_AGAIN.len() - 1];
            for pause in ASK_AGAIN.into_iter().chain(std::iter::repeat(last)) {
                tokio::time::sleep(pause).await;
                let Some(vfs) = vfs.upgrade() else { return };
                if !vfs.may_be_mapped(&handle) {
                    vfs.end_handle(ino, &handle);
                    return;
                }
            }
        });
    }

    /// Ends the use of a body through a handle that may have been mapped. What was changed that way
    /// is to be saved; a body that was not changed is as it was before.
    pub(crate) fn take_back(&self, state: &mut FileState, handle: &Handle) -> Result<(), VfsError> {
        if matches!(state.way, Way::Reads(_)) {
            // Opened under another spelling meanwhile, it was noted that the kernel has pages of it.
            self.forget_version(handle.file.ino);
        }
        if !handle.lent.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        state.catch_up();
        let untouched = state.is_untouched();
        let Some(lent) = &mut state.lent else {
            return Ok(());
        };
        lent.handles -= 1;
        let body = Arc::clone(&lent.body);
        let timed_until = lent.timed_until;
        let ended = state.lent.take_if(|lent| lent.handles == 0);
        let touched_at = body.touched_at().unwrap_or_else(|_error| Some(Self::now()));
        let noted = if touched_at.is_some() {
            self.begin_write(state, &handle.file).map(|_body| {
                if touched_at > timed_until {
                    state.mtime = state.mtime.max(touched_at);
                }
            })
        } else if untouched && let Some(before) = ended.and_then(|lent| lent.before) {
            let undone = self.undo_begin_write(state, &body, &before);
            undone.map(|undone| state.dirty &= !undone)
        } else {
            Ok(())
        };
        // Not before: what was saved a moment ago would be sent, and then once more.
        body.take_back();
        noted
    }

    /// Notes that a body is not being written after all. Tells whether its row could be put back: it
    /// may have become another one meanwhile.
    fn undo_begin_write(
        &self,
        state: &FileState,
        body: &Body,
        before: &BodyRow,
    ) -> Result<bool, VfsError> {
        self.store().write(|tx| {
            let (Some(item), Some(mut row)) = (tx.item(state.item.ino)?, tx.body(before.id)?)
            else {
                return Ok(false);
            };
            let in_cache = before.place == onedrivefs_store::Place::Cache;
            let unsent = tx
                .journal(item.ino)?
                .is_some_and(|journal| journal.ops.has(Ops::CONTENT));
            let same = row.dirty
                && row.generation == before.generation
                && item.body == Some(row.id)
                && content_version(&item) == content_version(&state.item)
                && !(in_cache && unsent);
            if !same {
                return Ok(false);
            }
            if in_cache {
                self.engine.bodies.content().demote(body)?;
            }
            row.place = before.place;
            row.dirty = false;
            row.hash = before.hash;
            row.durable.clone_from(&before.durable);
            tx.update_body(&row)?;
            Ok(true)
        })
    }
}

impl FileState {
    /// Tells whether others can change the lent body still.
    fn is_held(&self) -> bool {
        // Those who write through the kernel's own descriptors would count.
        self.kernel_writers > 0
            || self
                .lent
                .as_ref()
                .is_some_and(|lent| lent.body.is_held().unwrap_or(true))
    }
}
