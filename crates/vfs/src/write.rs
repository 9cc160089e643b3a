//! Writing into the spool.
//!
//! The first write after a save notes in the database that the body is being written; only then
//! is a byte of it changed. So a daemon that is killed finds every body that differs from its last
//! save, and an upload under way can tell that it sends something older. What is written to is a
//! copy of the saved body unless that is large, so that a power cut leaves the one or the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use onedrivefs_content::{Body, Presence};
use onedrivefs_core::{ByteRange, Ino};
use onedrivefs_store::Place;
use onedrivefs_sync::source_of;

use crate::error::VfsError;
use crate::handle::{FileState, OpenFile};
use crate::vfs::Vfs;

/// Bytes that stay free on the disk of the spool, so that the database can still commit.
const DISK_RESERVE: u64 = 16 << 20;

/// Bytes that may be written between two looks at the disk.
const ROOM_STEP: u64 = 64 << 20;

/// Largest file the service takes, in bytes (250 GiB).
pub(crate) const FILE_MAX: u64 = 250 << 30;

impl Vfs {
    /// Writes into a file.
    ///
    /// # Errors
    /// `NoSpace` when the drive or the disk has no room; `Stale` when the file was replaced on the
    /// service since it was opened; `BadHandle`.
    pub fn write(&self, _ino: Ino, fh: u64, offset: u64, data: &[u8]) -> Result<u32, VfsError> {
        let handle = self.handle(fh)?;
        if !handle.flags.write {
            return Err(VfsError::BadHandle);
        }
        let file = &handle.file;
        let mut state = file.state.lock();
        let body = self.begin_write(&mut state, file)?;
        let offset = if handle.flags.append {
            body.size()
        } else {
            offset
        };
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(VfsError::TooLarge)?;
        self.check_room(&mut state, &body, end)?;
        self.before_overwriting(&mut state, &body, offset..end)?;
        let was_complete = body.is_complete();
        let written = body.write_at(offset, data)?;
        if written.presence_grew && !was_complete {
            self.note_presence(&body)?;
        }
        state.mtime = Some(Self::now());
        state.copying = None;
        u32::try_from(data.len()).map_err(VfsError::io)
    }

    /// Makes the body of a file ready to be changed.
    pub(crate) fn begin_write(
        &self,
        state: &mut FileState,
        file: &OpenFile,
    ) -> Result<Arc<Body>, VfsError> {
        if state.stale {
            return Err(VfsError::Stale);
        }
        state.catch_up();
        if state.dirty
            && let Some(body) = &state.body
        {
            return Ok(Arc::clone(body));
        }
        self.check_writable()?;
        if state.body.is_none() || self.is_outdated(state, file)? {
            self.attach_body(state, file)?;
        }
        file.used.store(true, Ordering::Relaxed);
        let bodies = &self.engine.bodies;
        let mut unmarked = false;
        let mut duplicated = false;
        let body = self.store().write(|tx| {
            let mut item = tx.item(file.ino)?.ok_or(VfsError::Stale)?;
            let Some(body) = state.body.clone() else {
                let (row, body) = bodies.create_empty(tx, file.ino, None, Self::now())?;
                item.body = Some(row.id);
                tx.update_item(&item)?;
                state.source = None;
                return Ok::<_, VfsError>(body);
            };
            let Some(mut row) = tx.body(body.id().0)? else {
                return Err(VfsError::Stale);
            };
            if !row.dirty
                && body.has_any(0..body.size())
                && state.backing().is_none()
                && let Some((copy, made)) = bodies.duplicate(tx, &row, &body)?
            {
                item.body = Some(copy.id);
                tx.update_item(&item)?;
                state.source = source_of(&self.engine.config.drive.id, &copy);
                duplicated = true;
                return Ok(made);
            }
            if row.place == Place::Cache {
                // Of the service's version nothing has to be kept but what can be had there.
                row.durable = None;
                unmarked = true;
            }
            // Whatever the row says: a daemon that was killed may have moved the file only.
            bodies.content().promote(&body)?;
            row.place = Place::Spool;
            row.dirty = true;
            row.hash = None;
            tx.update_body(&row)?;
            state.source = source_of(&self.engine.config.drive.id, &row);
            Ok(body)
        })?;
        if duplicated && let Err(error) = body.confirm() {
            tracing::debug!(%error, "A body stays marked as provisional.");
        }
        state.body = Some(Arc::clone(&body));
        state.dirty = true;
        state.unmarked = unmarked;
        state.room_until = 0;
        Ok(body)
    }

    /// Tells whether an open file that nobody has used yet has lost its body to new content.
    fn is_outdated(&self, state: &FileState, file: &OpenFile) -> Result<bool, VfsError> {
        let Some(body) = state
            .body
            .as_ref()
            .filter(|_| !file.used.load(Ordering::Relaxed))
        else {
            return Ok(false);
        };
        Ok(self.store().read(|r| r.body(body.id().0))?.is_none())
    }

    /// Called before bytes of a body are overwritten that may be the service's. They are trusted
    /// after a power cut unless the database says that the body differs by now: before the first
    /// such byte changes, that has to be on stable storage. Only bodies that are too large to be
    /// copied first come here, and only once between two uploads.
    fn before_overwriting(
        &self,
        state: &mut FileState,
        body: &Body,
        range: ByteRange,
    ) -> Result<(), VfsError> {
        if state.unmarked && body.has_any(range) {
            self.store().sync()?;
            state.unmarked = false;
        }
        Ok(())
    }

    /// Tells whether the disk has room for a while without being looked at.
    pub(crate) fn has_ample_room(&self) -> bool {
        self.disk_free() >= DISK_RESERVE + ROOM_STEP
    }

    /// Checks that a body may grow to a size.
    pub(crate) fn check_room(
        &self,
        state: &mut FileState,
        body: &Body,
        end: u64,
    ) -> Result<(), VfsError> {
        let size = body.size();
        if end <= size || end <= state.room_until {
            return Ok(());
        }
        if end > FILE_MAX {
            return Err(VfsError::TooLarge);
        }
        let room = if state.item.local_only {
            u64::MAX
        } else {
            self.space().1
        };
        let needed = (end - size).saturating_add(DISK_RESERVE);
        if self.disk_free() < needed.saturating_add(ROOM_STEP) {
            self.engine.make_room_for_save(needed);
        }
        let disk = self.disk_free().saturating_sub(DISK_RESERVE);
        if end - size > room.min(disk) {
            return Err(VfsError::NoSpace);
        }
        // Asking for every write would be slow; in between, a full disk shows by itself.
        state.room_until = end.saturating_add((room.min(disk) - (end - size)).min(ROOM_STEP));
        Ok(())
    }

    /// Notes which bytes of a partial body are its own.
    pub(crate) fn note_presence(&self, body: &Body) -> Result<(), VfsError> {
        let presence = body.presence();
        self.store().write(|tx| match &presence {
            Presence::Complete => tx.set_presence(body.id().0, None),
            Presence::Ranges(ranges) => tx.set_presence(body.id().0, Some(ranges)),
        })?;
        Ok(())
    }

    /// Sets the size of a file.
    pub(crate) fn truncate(
        &self,
        state: &mut FileState,
        file: &OpenFile,
        size: u64,
    ) -> Result<(), VfsError> {
        if state.stale {
            return Err(VfsError::Stale);
        }
        if size == 0 && state.backing().is_none() {
            return self.start_over(state, file);
        }
        let body = self.begin_write(state, file)?;
        self.check_room(state, &body, size)?;
        self.before_overwriting(state, &body, size..body.size().max(size))?;
        body.set_len(size)?;
        self.note_presence(&body)?;
        state.mtime = Some(Self::now());
        state.copying = None;
        Ok(())
    }

    /// Gives a file an empty body. The old one is not touched: an upload may be reading it, and if
    /// the daemon dies before the file is saved again, it is what was saved last.
    fn start_over(&self, state: &mut FileState, file: &OpenFile) -> Result<(), VfsError> {
        self.check_writable()?;
        let (body, dropped) = self.store().write(|tx| {
            let mut item = tx.item(file.ino)?.ok_or(VfsError::Stale)?;
            let mut old = item.body.map(|id| tx.body(id)).transpose()?.flatten();
            let mut saved_empty = 0;
            let previous = match &mut old {
                // Not saved since it was written to: what was saved before stays the last save.
                Some(row) if row.dirty => {
                    if row.size == 0 {
                        saved_empty = row.generation;
                    }
                    let saved = row.previous.take();
                    tx.update_body(row)?;
                    tx.delete_body(row.id)?;
                    saved
                }
                _ => old.take().map(|row| row.id),
            };
            let made = self
                .engine
                .bodies
                .create_empty(tx, file.ino, previous, Self::now());
            let (mut row, body) = made?;
            if saved_empty > 0 {
                // The last save is that of an empty file.
                row.generation = saved_empty;
                tx.update_body(&row)?;
            }
            item.body = Some(row.id);
            tx.update_item(&item)?;
            Ok::<_, VfsError>((body, old))
        })?;
        self.engine.bodies.remove_files(dropped.as_slice());
        state.body = Some(body);
        state.source = None;
        state.dirty = true;
        state.unmarked = false;
        state.copying = None;
        state.room_until = 0;
        state.mtime = Some(Self::now());
        Ok(())
    }

    /// Allocates, punches or zeroes a range.
    ///
    /// # Errors
    /// `Unsupported` for other modes; as [`Vfs::write`].
    pub fn fallocate(
        &self,
        _ino: Ino,
        fh: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Result<(), VfsError> {
        let handle = self.handle(fh)?;
        if !handle.flags.write {
            return Err(VfsError::BadHandle);
        }
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let kind = mode & !libc::FALLOC_FL_KEEP_SIZE;
        if !matches!(
            kind,
            0 | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE
        ) {
            return Err(VfsError::Unsupported);
        }
        let end = offset.checked_add(len).ok_or(VfsError::TooLarge)?;
        let file = &handle.file;
        let mut state = file.state.lock();
        let body = self.begin_write(&mut state, file)?;
        self.check_room(&mut state, &body, end)?;
        if kind != 0 {
            self.before_overwriting(&mut state, &body, offset..end)?;
        }
        match kind {
            0 => body.allocate(offset, len, keep_size)?,
            libc::FALLOC_FL_PUNCH_HOLE => body.punch_hole(offset, len)?,
            _ => body.zero_range(offset, len, keep_size)?,
        }
        self.note_presence(&body)?;
        state.mtime = Some(Self::now());
        state.copying = None;
        Ok(())
    }
}
