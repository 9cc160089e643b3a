//! Listings. A handle sees the directory as it was when the listing began.

use std::sync::Arc;

use onedrivefs_core::Ino;
use onedrivefs_store::Item;
use parking_lot::Mutex;

use crate::error::VfsError;
use crate::types::{DirEntry, FileKind, Outcome};
use crate::vfs::Vfs;

/// An open directory.
pub(crate) struct DirHandle {
    entries: Mutex<Option<Arc<Vec<Item>>>>,
}

impl Vfs {
    /// Opens a directory. One that was never listed is listed first.
    ///
    /// # Errors
    /// `NotDirectory`; what listing failed with.
    pub fn opendir(self: &Arc<Self>, ino: Ino) -> Result<Outcome<u64>, VfsError> {
        let directory = self.directory(ino)?;
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
                entries: Mutex::new(None),
            }),
        );
        fh
    }

    /// Hands entries to `sink`, beginning at `offset`, until it says that it is full.
    ///
    /// # Errors
    /// `BadHandle`; errors of the database.
    pub fn readdir(
        &self,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), VfsError> {
        let handle = self
            .dirs
            .read()
            .get(&fh)
            .cloned()
            .ok_or(VfsError::BadHandle)?;
        let entries = {
            let mut entries = handle.entries.lock();
            // Offset 0 is the beginning, or a rewind, which looks again.
            let fresh = if offset == 0 { None } else { entries.clone() };
            let listed = match fresh {
                Some(listed) => listed,
                None => Arc::new(self.store().read(|r| r.children(ino))?),
            };
            *entries = Some(Arc::clone(&listed));
            listed
        };
        let directory = self.getattr(ino)?;
        let parent = self
            .store()
            .item(ino)?
            .and_then(|item| item.parent)
            .unwrap_or(Ino::ROOT);
        for (index, name) in [(0, "."), (1, "..")] {
            if offset > index {
                continue;
            }
            let entry = DirEntry {
                ino: if index == 0 { ino } else { parent },
                kind: FileKind::Directory,
                name: name.to_owned(),
                next_offset: index + 1,
                attr: directory,
            };
            if sink(entry) {
                return Ok(());
            }
        }
        let skip = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        for (index, item) in entries.iter().enumerate().skip(skip) {
            let attr = self.attr_of(item);
            let entry = DirEntry {
                ino: item.ino,
                kind: attr.kind,
                name: item.name.clone(),
                next_offset: index as u64 + 3,
                attr,
            };
            if sink(entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        self.dirs.write().remove(&fh);
    }

    /// Makes a directory's entries survive a power cut.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn fsyncdir(&self, _ino: Ino) -> Result<(), VfsError> {
        Ok(self.store().sync()?)
    }
}
