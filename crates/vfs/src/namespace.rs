//! Making and removing entries. Every call is one transaction with its journal row.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Role, Tx};
use onedrivefs_sync::apply::reclaim;
use onedrivefs_sync::fold::Change;
use onedrivefs_sync::journal;

use crate::error::VfsError;
use crate::handle::OpenFile;
use crate::passthrough::Way;
use crate::types::{Attr, OpenFlags, Opened};
use crate::vfs::Vfs;

/// Longest target of a symbolic link, in bytes (`PATH_MAX`).
const TARGET_MAX: usize = 4095;

/// Why an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It was deleted.
    Deleted,
    /// Another one takes its name.
    Replaced,
}

impl Vfs {
    /// Creates a file and opens it.
    ///
    /// # Errors
    /// `Exists` with `exclusive`; errors about the name; errors of the database.
    pub fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Attr, Opened), VfsError> {
        let name = self.new_name(name)?;
        let mut opened = None;
        let made = self.make(parent, name, Kind::File, |tx, item| {
            item.mode = Some(mode & 0o777);
            if flags.write {
                opened = Some(self.open_empty(tx, item)?);
            }
            Ok(())
        });
        if made.is_err()
            && let Some(file) = opened.take()
        {
            // Not committed.
            self.give_back(&file);
        }
        let item = match made {
            Ok(item) => item,
            // The kernel did not know that there is one: it came from the service a moment ago.
            Err(error) => match self.store().read(|r| r.child(parent, name))? {
                None => return Err(error),
                Some(_) if flags.exclusive => return Err(VfsError::Exists),
                Some(existing) => return self.open_existing(existing.ino, flags),
            },
        };
        let file = opened.unwrap_or_else(|| self.acquire(&item));
        file.used.store(true, Ordering::Relaxed);
        file.state.lock().way = Way::Asks;
        let (fh, _handle) = self.add_handle(file, flags);
        Ok((
            self.attr_of(&item),
            Opened {
                fh,
                keep_cache: true,
                direct_io: false,
                kernel_writes: false,
                backing: None,
            },
        ))
    }

    /// Creates a file without opening it.
    ///
    /// # Errors
    /// As [`Vfs::create`].
    pub fn mknod(
        self: &Arc<Self>,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: OpenFlags,
    ) -> Result<Attr, VfsError> {
        let (attr, opened) = self.create(parent, name, mode, flags)?;
        let file = self.handle(opened.fh)?.file.ino;
        self.release(file, opened.fh);
        Ok(attr)
    }

    /// Opens a file that was to be created. Its size goes to the kernel with the answer.
    fn open_existing(
        self: &Arc<Self>,
        ino: Ino,
        flags: OpenFlags,
    ) -> Result<(Attr, Opened), VfsError> {
        let opened = self.open_now(ino, flags)?;
        Ok((self.getattr(ino)?, opened))
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// `Exists`; errors about the name; errors of the database.
    pub fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32) -> Result<Attr, VfsError> {
        let name = self.new_name(name)?;
        let item = self.make(parent, name, Kind::Directory, |_, item| {
            item.mode = Some(mode & 0o777);
            Ok(())
        })?;
        Ok(self.attr_of(&item))
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// `Exists`; errors about the name and the target; errors of the database.
    pub fn symlink(&self, parent: Ino, name: &OsStr, target: &Path) -> Result<Attr, VfsError> {
        if !self.options.symlinks {
            return Err(VfsError::NotPermitted);
        }
        let name = self.new_name(name)?;
        let target = target.as_os_str().as_bytes();
        if target.is_empty() {
            return Err(VfsError::NotFound);
        }
        if target.len() > TARGET_MAX {
            return Err(VfsError::NameTooLong);
        }
        let item = self.make(parent, name, Kind::Symlink, |_, item| {
            item.size = target.len() as u64;
            item.target = Some(target.to_vec());
            Ok(())
        })?;
        Ok(self.attr_of(&item))
    }

    /// Gives a new file an empty body and opens it for writing, in the transaction that makes it:
    /// most files are made to be written at once, and the first write then finds all it needs.
    fn open_empty(&self, tx: &Tx<'_>, item: &mut Item) -> Result<Arc<OpenFile>, VfsError> {
        let bodies = &self.engine.bodies;
        let (row, body) = bodies.create_empty(tx, item.ino, None, Self::now())?;
        item.body = Some(row.id);
        Ok(self.acquire_new(item, body))
    }

    /// Makes an entry. `fill` gets the item with its number, inside the transaction.
    fn make(
        &self,
        parent: Ino,
        name: &str,
        kind: Kind,
        fill: impl FnOnce(&Tx<'_>, &mut Item) -> Result<(), VfsError>,
    ) -> Result<Item, VfsError> {
        let directory = self.writable_directory(parent)?;
        self.check_making(parent, name, kind)?;
        if !directory.local_only && !self.engine.config.local_only.matches(name) {
            self.check_new_path(parent, name, kind)?;
        }
        let now = Self::now();
        let item = self.store().write(|tx| {
            let directory = tx.item(parent)?.ok_or(VfsError::NotFound)?;
            if tx.child(parent, name)?.is_some() {
                return Err(VfsError::Exists);
            }
            let mut item = Item::new(kind, parent, name, now);
            item.local_only = directory.local_only || self.engine.config.local_only.matches(name);
            item.ino = tx.insert_item(&item)?;
            fill(tx, &mut item)?;
            match kind {
                Kind::File | Kind::Directory => tx.update_figures(&item)?,
                Kind::Symlink => tx.update_item(&item)?,
            }
            journal::record(tx, &item, Change::Created, false, now)?;
            touch(tx, directory, now)?;
            Ok(item)
        })?;
        self.forget_other_spellings(parent, name);
        self.engine.wake_uploader();
        Ok(item)
    }

    /// Removes a file. Handles that are open on it go on with what it was.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`; errors of the database.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.with_reserve(|| {
            self.remove_entry(parent, name, |_, item| {
                if item.is_dir() {
                    Err(VfsError::IsDirectory)
                } else {
                    Ok(())
                }
            })
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotDirectory`, `NotEmpty`; `NotPermitted` for what only looks empty; errors of
    /// the database.
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.with_reserve(|| {
            self.remove_entry(parent, name, |tx, item| {
                if !item.is_dir() {
                    return Err(VfsError::NotDirectory);
                }
                if self.graft(item).is_some() {
                    // Became one a moment ago; only the forest knows what is in it.
                    return Err(VfsError::Busy);
                }
                check_visible(item)?;
                // What was never listed may hold anything.
                if !item.children_known || tx.has_children(item.ino)? {
                    return Err(VfsError::NotEmpty);
                }
                Ok(())
            })
        })
    }

    /// Removes a shortcut, and gives up the slot that it shows with all that waits there.
    pub(crate) fn remove_shortcut(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.with_reserve(|| {
            self.remove_entry(parent, name, |tx, item| {
                let slot = tx.slot_of(item.ino)?.ok_or(VfsError::Busy)?;
                Ok(tx.discard_slot(slot)?)
            })
        })
    }

    /// Does what makes room, a second time with the space reserved for it if there is none.
    fn with_reserve(&self, remove: impl Fn() -> Result<(), VfsError>) -> Result<(), VfsError> {
        match remove() {
            Err(VfsError::NoSpace) if self.engine.give_up_reserve() => remove(),
            other => other,
        }
    }

    fn remove_entry(
        &self,
        parent: Ino,
        name: &OsStr,
        check: impl FnOnce(&Tx<'_>, &Item) -> Result<(), VfsError>,
    ) -> Result<(), VfsError> {
        let name = name.to_str().ok_or(VfsError::NotUtf8)?;
        self.writable_directory(parent)?;
        let now = Self::now();
        let (dropped, stored, directory, shown) = self.store().write(|tx| {
            let item = tx.child(parent, name)?.ok_or(VfsError::NotFound)?;
            check(tx, &item)?;
            self.check_removing(&item)?;
            let stored = item.name.clone();
            let (ino, removed) = (item.ino, item.is_dir().then_some(item.ino));
            let dropped = self.unlink_item(tx, item, Removal::Deleted, now)?;
            if let Some(directory) = tx.item(parent)? {
                touch(tx, directory, now)?;
            }
            // Otherwise whoever sends the deletion does it.
            let shown = match tx.journal(ino)? {
                None => reclaim(tx, parent, &stored)?,
                Some(_) => Vec::new(),
            };
            Ok::<_, VfsError>((dropped, stored, removed, shown))
        })?;
        if let Some(directory) = directory {
            self.directory_removed(directory);
        }
        self.forget_stored_spelling(parent, name, stored);
        self.forget_entries(shown);
        self.engine.bodies.remove_files(dropped.as_slice());
        self.engine.tell_held();
        self.engine.wake_uploader();
        Ok(())
    }

    /// Takes an item out of its directory. Returns its body when nobody needs it any more.
    pub(crate) fn unlink_item(
        &self,
        tx: &Tx<'_>,
        mut item: Item,
        removal: Removal,
        now: Timestamp,
    ) -> Result<Option<BodyRow>, VfsError> {
        if let Some(heir) = self.heir_of(tx, &item)? {
            // A save that kept a backup for a moment: the new file is the next version of the old.
            self.hand_over(tx, &mut item, heir, now)?;
        }
        let in_flight = self.engine.is_in_flight(item.ino);
        item.parent = None;
        item.ctime = now;
        tx.update_item(&item)?;
        let left = journal::record(tx, &item, Change::Unlinked, in_flight, now)?;
        if left.has(Ops::DELETE) && item.remote.is_some() {
            match removal {
                Removal::Deleted => self.engine.count_deletion(tx, &item)?,
                Removal::Replaced => self.engine.hold_with_content(tx, &item)?,
            }
        }
        if in_flight {
            // Nobody wants it there any more.
            self.engine.cancel_in_flight(item.ino);
        }
        let open = self.open_file(item.ino);
        if let Some(file) = &open
            && left.has(Ops::DELETE)
            && item.remote.is_some()
            && item.size > 0
            && file
                .state
                .try_lock()
                .is_none_or(|s| s.body.as_ref().is_none_or(|b| !b.is_complete()))
        {
            self.engine.hold(item.ino);
        }
        if !left.is_empty() || open.is_some() {
            return Ok(None);
        }
        let row = item.body.map(|id| tx.body(id)).transpose()?.flatten();
        if let Some(row) = &row {
            tx.delete_body(row.id)?;
        }
        tx.delete_item(item.ino)?;
        Ok(row)
    }
}

/// Refuses to remove a directory that looks empty only because the service does not let anybody look
/// into it, such as a OneNote notebook: whoever removes empty directories does not mean it.
pub(crate) fn check_visible(directory: &Item) -> Result<(), VfsError> {
    if directory.role == Role::Package {
        return Err(VfsError::NotPermitted);
    }
    Ok(())
}

/// Notes that a directory's entries changed.
pub(crate) fn touch(tx: &Tx<'_>, mut directory: Item, now: Timestamp) -> Result<(), VfsError> {
    directory.mtime = now;
    directory.ctime = now;
    Ok(tx.update_figures(&directory)?)
}
