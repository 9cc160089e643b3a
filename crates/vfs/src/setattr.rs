//! Setting attributes.

use std::sync::Arc;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::Kind;
use onedrivefs_sync::fold::Change;
use onedrivefs_sync::journal;

use crate::error::VfsError;
use crate::types::{Attr, Outcome, SetAttr, SetTime};
use crate::vfs::Vfs;

/// Permission bits that are kept. Set-id and sticky bits would mean something that this file
/// system cannot stand for.
const MODE_BITS: u32 = 0o777;

impl SetTime {
    fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::At(time) => time,
        }
    }
}

impl Vfs {
    /// Sets attributes of an inode.
    ///
    /// # Errors
    /// `NotPermitted` for another owner; as [`Vfs::write`] for a size.
    pub fn setattr(self: &Arc<Self>, ino: Ino, set: &SetAttr) -> Result<Outcome<Attr>, VfsError> {
        self.check_writable()?;
        if set.size.is_some() || set.mtime.is_some() || self.engine.config.groups {
            // One that was unlinked has no row any more, and nothing to be asked about.
            if let Some(item) = self.store().item(ino)? {
                self.check_changing(&item)?;
            }
        }
        let foreign_owner = set.uid.is_some_and(|uid| uid != self.options.uid);
        let foreign_group = set.gid.is_some_and(|gid| gid != self.options.gid);
        if foreign_owner || foreign_group {
            return Err(VfsError::NotPermitted);
        }
        if let Some(size) = set.size {
            self.set_size(ino, size, set.fh)?;
        }
        if set.mode.is_some() || set.atime.is_some() || set.mtime.is_some() {
            self.set_times_and_mode(ino, set)?;
        }
        Ok(Outcome::Now(self.getattr(ino)?))
    }

    fn set_size(&self, ino: Ino, size: u64, fh: Option<u64>) -> Result<(), VfsError> {
        let item = match fh {
            Some(_) => None,
            None => Some(self.item(ino)?),
        };
        if item.as_ref().is_some_and(|item| item.kind != Kind::File) {
            return Err(VfsError::IsDirectory);
        }
        let file = match (fh, &item) {
            (Some(fh), _) => Arc::clone(&self.handle(fh)?.file),
            (None, Some(item)) => self.acquire(item),
            (None, None) => return Err(VfsError::NotFound),
        };
        let outcome = {
            let mut state = file.state.lock();
            let truncated = self.truncate(&mut state, &file, size);
            // truncate(2) has no close that would save it. A body that was made ready in vain is
            // saved too, lest it count as being written for ever.
            let saved = match fh {
                None => self.save(&mut state, &file),
                Some(_) => Ok(()),
            };
            truncated.and(saved)
        };
        if item.is_some() {
            self.give_back(&file);
        }
        outcome
    }

    fn set_times_and_mode(&self, ino: Ino, set: &SetAttr) -> Result<(), VfsError> {
        let now = Self::now();
        let file = self.open_file(ino);
        let mut state = file.as_ref().map(|file| file.state.lock());
        if let Some(state) = &mut state {
            state.catch_up();
        }
        let saved = self.store().write(|tx| {
            let saved = match (&file, &state) {
                // What was written so far has the time that is set, also if the daemon dies before
                // the file is closed.
                (Some(file), Some(state)) if set.mtime.is_some() && !state.stale => {
                    self.save_in(tx, state, file)?
                }
                _ => None,
            };
            let in_flight = self.engine.is_in_flight(ino);
            let Some(mut item) = tx.item(ino)? else {
                return Ok(saved);
            };
            if let Some(mode) = set.mode {
                item.mode = Some(mode & MODE_BITS);
            }
            if let Some(time) = set.atime {
                item.atime = time.resolve(now);
            }
            if let Some(time) = set.mtime {
                item.mtime = time.resolve(now);
            }
            item.ctime = now;
            tx.update_figures(&item)?;
            if set.mtime.is_some() && item.parent.is_some() && item.kind != Kind::Symlink {
                journal::record(tx, &item, Change::Touched, in_flight, now)?;
            }
            Ok::<_, VfsError>(saved)
        })?;
        if let Some(state) = &mut state {
            self.saved(state, saved);
        }
        if let Some(state) = &mut state
            && set.mtime.is_some()
        {
            // A time that a program sets stays, also when earlier writes are saved later.
            state.mtime = None;
            state.note_timed(now);
        }
        drop(state);
        if set.mtime.is_some() {
            self.engine.wake_uploader();
        }
        Ok(())
    }
}
