//! Listings. A handle sees the entries that the directory had when the listing began.

use std::sync::Arc;

use onedrivefs_core::Ino;
use onedrivefs_store::Role;
use parking_lot::Mutex;

use crate::error::VfsError;
use crate::listing::Listing;
use crate::types::{DirEntry, FileKind, Outcome};
use crate::vfs::Vfs;

/// Entries that every directory has: itself and the one above.
const DOTS: u64 = 2;

/// An open directory.
pub(crate) struct DirHandle {
    listing: Mutex<Option<Listing>>,
}

/// What whoever lists directories is going to ask for next.
pub struct Ahead(Next);

enum Next {
    /// More of what it lists.
    Part(Arc<DirHandle>),
    /// Another directory.
    Folder(Ino),
}

impl Vfs {
    /// Opens a directory. One that was never listed is listed first.
    ///
    /// # Errors
    /// `NotDirectory`; what listing failed with.
    pub fn opendir(self: &Arc<Self>, ino: Ino) -> Result<Outcome<u64>, VfsError> {
        let directory = self.directory(ino)?;
        if directory.role == Role::Shortcut {
            return self.unfollowed(&directory);
        }
        if directory.children_known {
            return Ok(Outcome::Now(self.add_dir_handle()));
        }
        let vfs = Arc::clone(self);
        Ok(Outcome::Later(Box::pin(async move {
            // A partial listing would look like a deletion to whoever compares it.
            vfs.make_children_known(ino).await?;
            Ok(vfs.add_dir_handle())
        })))
    }

    fn add_dir_handle(&self) -> u64 {
        let fh = self.next_fh();
        self.dirs.write().insert(
            fh,
            Arc::new(DirHandle {
                listing: Mutex::new(None),
            }),
        );
        fh
    }

    /// Hands entries to `sink`, beginning at `offset`, until it says that it is full. Returns what is
    /// going to be asked for next, for [`Vfs::read_ahead`].
    ///
    /// # Errors
    /// `BadHandle`; errors of the database.
    pub fn readdir(
        &self,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<Option<Ahead>, VfsError> {
        let handle = self.dir_handle(fh)?;
        let mut listing = handle.listing.lock();
        // Offset 0 is the beginning, or a rewind, which looks again.
        let listing = match &mut *listing {
            Some(listing) if offset > 0 => listing,
            listing => listing.insert(self.begin_listing(ino)?),
        };
        if offset < DOTS && self.add_dots(ino, offset, sink)? {
            return Ok(None);
        }
        let from = usize::try_from(offset.saturating_sub(DOTS)).unwrap_or(usize::MAX);
        listing.hand_out(self.store(), from, &mut |listed| {
            let attr = self.attr_of_figures(listed.figures);
            sink(DirEntry {
                ino: attr.ino,
                kind: attr.kind,
                name: listed.name,
                next_offset: listed.place as u64 + DOTS + 1,
                attr,
            })
        })?;
        let next = if listing.has_more() {
            Some(Next::Part(Arc::clone(&handle)))
        } else {
            let folders = listing.take_folders();
            let next = folders.and_then(|folders| self.walk_on(ino, folders));
            next.map(Next::Folder)
        };
        Ok(next.map(Ahead))
    }

    /// Adds `.` and `..`. Tells whether `sink` is full.
    fn add_dots(
        &self,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool, VfsError> {
        let attr = self.getattr(ino)?;
        let parent = self.store().item(ino)?.and_then(|item| item.parent);
        let dots = [(0, ".", ino), (1, "..", parent.unwrap_or(Ino::ROOT))];
        for (index, name, ino) in dots.into_iter().filter(|dot| dot.0 >= offset) {
            let entry = DirEntry {
                ino: self.shown(ino),
                kind: FileKind::Directory,
                name,
                next_offset: index + 1,
                attr,
            };
            if sink(entry) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads what is going to be asked for next, while the kernel works on what it got.
    pub fn read_ahead(&self, ahead: &Ahead) {
        let read = match &ahead.0 {
            // Somebody asks already if it is locked.
            Next::Part(handle) => match handle.listing.try_lock().as_deref_mut() {
                Some(Some(listing)) => listing.read_ahead(self.store()),
                _ => Ok(()),
            },
            Next::Folder(ino) => self.read_folder_ahead(*ino),
        };
        if let Err(error) = read {
            tracing::debug!(%error, "a listing was not read ahead");
        }
    }

    fn dir_handle(&self, fh: u64) -> Result<Arc<DirHandle>, VfsError> {
        let handle = self.dirs.read().get(&fh).cloned();
        handle.ok_or(VfsError::BadHandle)
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        let closed = self.dirs.write().remove(&fh);
        if let Some(listing) = closed.and_then(|handle| handle.listing.lock().take()) {
            self.keep_listing(listing);
        }
    }

    /// Makes a directory's entries survive a power cut.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn fsyncdir(&self, _ino: Ino) -> Result<(), VfsError> {
        Ok(self.store().sync()?)
    }
}
