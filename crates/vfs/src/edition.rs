//! Editions: what the kernel takes for another file, because its content was replaced on the service
//! while programs had the old one open.
//!
//! The kernel has one size and one page cache per file. A program that reads the old content, and
//! one that opens the file anew, cannot share them: one of the two would get bytes that are cut off
//! at the other's size, or zeros. So the kernel is given another node for the new content, as if
//! somebody had renamed a new file over the old one. Who has the old one open reads it to its end.
//! Files that nobody uses at that moment keep their node, unless they get shorter.
//!
//! A directory that was removed is dead to the kernel for as long as somebody has it open: nothing
//! is listed in it and nothing can be made in it. Should it come back, it is another edition.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use onedrivefs_core::Ino;
use onedrivefs_sync::KernelChange;
use parking_lot::Mutex;

use crate::error::VfsError;
use crate::handle::OpenFile;
use crate::types::{Attr, FileKind};
use crate::vfs::{Vfs, content_version};

/// How many inodes are noted before those that are gone for good are forgotten.
const NOTED_MIN: usize = 1024;

/// Number of an edition of an inode: how often it was replaced while it was used.
pub type Edition = u16;

/// The highest number; after it the first one follows again.
pub const EDITION_MAX: Edition = (1 << 13) - 1;

/// The editions of inodes that have more than one.
#[derive(Default)]
pub(crate) struct Editions {
    inodes: Mutex<HashMap<Ino, Known>>,
}

#[derive(Default)]
struct Known {
    current: Edition,
    past: HashMap<Edition, Weak<OpenFile>>,
}

impl Editions {
    fn current(&self, ino: Ino) -> Edition {
        self.inodes
            .lock()
            .get(&ino)
            .map_or(0, |known| known.current)
    }

    /// Makes the present edition a past one.
    fn begin(&self, ino: Ino, old: &Arc<OpenFile>) {
        let mut inodes = self.inodes.lock();
        let known = inodes.entry(ino).or_default();
        known.past.retain(|_, file| file.strong_count() > 0);
        known.past.insert(known.current, Arc::downgrade(old));
        known.current = (known.current + 1) % (EDITION_MAX + 1);
    }

    /// A directory was removed: what comes back is another edition. Tells whether it is time to
    /// forget inodes that are gone.
    fn begin_again(&self, directory: Ino) -> bool {
        let mut inodes = self.inodes.lock();
        let known = inodes.entry(directory).or_default();
        known.current = (known.current + 1) % (EDITION_MAX + 1);
        inodes.len() >= NOTED_MIN && inodes.len().is_power_of_two()
    }

    /// Forgets the editions of some inodes. Their numbers are never used again.
    fn forget(&self, gone: impl Fn(Ino) -> bool) {
        let noted: Vec<Ino> = self.inodes.lock().keys().copied().collect();
        for ino in noted.into_iter().filter(|ino| gone(*ino)) {
            self.inodes.lock().remove(&ino);
        }
    }

    /// The open file of a past edition.
    fn past(&self, ino: Ino, edition: Edition) -> Option<Arc<OpenFile>> {
        self.inodes.lock().get(&ino)?.past.get(&edition)?.upgrade()
    }
}

impl Vfs {
    /// The edition that the path of an inode leads to.
    #[must_use]
    pub fn edition(&self, ino: Ino) -> Edition {
        self.editions.current(ino)
    }

    /// That edition, and the open file of it if there is one.
    pub(crate) fn present_edition(&self, ino: Ino) -> (Edition, Option<Arc<OpenFile>>) {
        let files = self.files.lock();
        (self.editions.current(ino), files.get(&ino).cloned())
    }

    /// The attributes of an edition of an inode.
    ///
    /// # Errors
    /// `Stale` for a past edition that nobody has open any more: its path leads elsewhere.
    pub fn getattr_of(&self, ino: Ino, edition: Edition) -> Result<Attr, VfsError> {
        match self.getattr(ino) {
            // It is still open, and the path leads to the one that came back.
            Ok(attr) if attr.edition != edition && attr.kind == FileKind::Directory => {
                return Ok(Attr {
                    edition,
                    nlink: 0,
                    ..attr
                });
            }
            Ok(attr) if attr.edition != edition => {}
            other => return other,
        }
        let file = self.editions.past(ino, edition).ok_or(VfsError::Stale)?;
        let state = file.state.lock();
        Ok(self.overlay(&state.item, &state))
    }

    /// A directory was removed through the kernel.
    pub(crate) fn directory_removed(&self, ino: Ino) {
        if self.editions.begin_again(ino) {
            let store = self.store();
            let gone = |ino| matches!(store.item(ino), Ok(None)) && !self.is_open(ino);
            self.editions.forget(gone);
        }
    }

    /// A past edition that can still be read from its beginning to its end, with one more handle
    /// counted: its path was followed a moment before it led elsewhere.
    pub(crate) fn acquire_past(&self, ino: Ino, edition: Edition) -> Option<Arc<OpenFile>> {
        let file = self.editions.past(ino, edition)?;
        let whole = {
            let state = file.state.lock();
            state.body.as_ref().is_some_and(|body| body.is_complete())
        };
        if !whole {
            return None;
        }
        let _files = self.files.lock();
        file.handles.fetch_add(1, Ordering::Relaxed);
        Some(file)
    }

    /// Refuses a past edition, which makes the kernel follow the path again. `None` stands for the
    /// present one.
    ///
    /// # Errors
    /// `Stale`.
    pub fn check_edition(&self, ino: Ino, edition: Option<Edition>) -> Result<(), VfsError> {
        if edition.is_none_or(|edition| self.edition(ino) == edition) {
            Ok(())
        } else {
            Err(VfsError::Stale)
        }
    }

    /// The service has other content for an inode. Tells whether those that have opened it must not
    /// go on with the new one.
    pub(crate) fn is_pinned(&self, ino: Ino) -> bool {
        let Some(file) = self.open_file(ino) else {
            return false;
        };
        let row = self.store().item(ino).ok().flatten();
        let mut state = file.state.lock();
        let row = row.as_deref();
        let replaced = row.is_none_or(|row| content_version(row) != content_version(&state.item));
        if file.used.load(Ordering::Relaxed) {
            // Unless they began with the new one already.
            return replaced;
        }
        if replaced && row.is_none_or(|row| row.size < state.item.size) {
            // The kernel may have asked for bytes already that are past the new end, and would make
            // zeros of them.
            return true;
        }
        state.body = None;
        state.source = None;
        false
    }

    /// Leaves the content that was replaced to those who use it. Returns what the kernel must be
    /// told so that the path leads to the new one.
    pub(crate) fn begin_edition(&self, ino: Ino) -> Option<KernelChange> {
        let replaced = {
            let mut files = self.files.lock();
            let file = files.remove(&ino);
            if let Some(file) = &file {
                self.editions.begin(ino, file);
            }
            file
        };
        if let Some(file) = replaced {
            file.state.lock().stale = true;
        }
        self.entry_change(ino)
    }

    /// What the kernel must be told to look an inode up anew.
    pub(crate) fn entry_change(&self, ino: Ino) -> Option<KernelChange> {
        let item = self.store().item(ino).ok()??;
        Some(KernelChange::Entry {
            parent: item.parent?,
            name: item.name.clone(),
        })
    }
}
