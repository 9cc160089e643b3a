//! Copying inside the mount, without moving a byte where the service can make the copy itself.
//!
//! The kernel passes on what programs ask with `copy_file_range`. A file that is here is copied here.
//! Of any other the bytes become bytes that the copy lacks and that are to be had from the version of
//! the original, exactly like those of a file that was changed in place. Nobody waits for them.
//! A copy that is saved as a whole and unchanged is noted as one, so that the uploader has the
//! service make it. Whatever does not fit is refused, and the kernel copies by reading and writing.

use std::sync::Arc;

use onedrivefs_content::{Body, Presence};
use onedrivefs_core::ByteRange;
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Reader, StoreError, Tx};
use onedrivefs_sync::bodies::base_on;
use onedrivefs_sync::hydrate::Source;
use onedrivefs_sync::{Net, source_of};

use crate::error::VfsError;
use crate::handle::{Copying, FileState, OpenFile};
use crate::vfs::Vfs;
use crate::write::FILE_MAX;

/// Most bytes that one request copies here: a kernel's thread is busy with it that long.
const AT_ONCE_MAX: u64 = 16 << 20;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Longest length that can be answered: the kernel's answer has 32 bits.
const ANSWER_MAX: u64 = 0xffff_f000;

/// A file that is copied from: a version of an item, and what of it is here.
struct Original {
    source: Source,
    body: Arc<Body>,
    row: BodyRow,
}

impl Copying {
    /// Notes in the row of a body, which was just saved, that it is a copy, if it is all of one.
    pub(crate) fn record(
        &self,
        tx: &Tx<'_>,
        row: &mut BodyRow,
        body: &Body,
    ) -> Result<(), StoreError> {
        if self.reached != self.source.size || row.size != self.source.size {
            return Ok(());
        }
        base_on(row, &self.source);
        row.copied = Some(row.generation);
        if row.ranges.is_some() {
            // Not to be had from bytes that are not here. Of others it is made when it is needed.
            row.hash = self.source.hash;
        }
        body.set_pristine(true);
        tx.update_body(row)
    }
}

impl Vfs {
    /// Copies a range of one open file to the same place of another. May copy less than asked for.
    ///
    /// # Errors
    /// `Unsupported` for what is better read and written; `BadHandle`; as [`Vfs::write`].
    pub fn copy_file_range(
        &self,
        (from_fh, from_offset): (u64, u64),
        (to_fh, to_offset): (u64, u64),
        len: u64,
    ) -> Result<u32, VfsError> {
        let (from, to) = (self.handle(from_fh)?, self.handle(to_fh)?);
        if !from.flags.read || !to.flags.write {
            return Err(VfsError::BadHandle);
        }
        if from.file.ino == to.file.ino || from_offset != to_offset || to.flags.append {
            return Err(VfsError::Unsupported);
        }
        self.check_writable()?;
        let original = self.original(&from.file)?.ok_or(VfsError::Unsupported)?;
        let end = original
            .source
            .size
            .min(from_offset.saturating_add(len.min(ANSWER_MAX)));
        if from_offset >= end {
            return Ok(0);
        }
        let unannounced = || self.engine.is_unannounced(from.file.ino);
        if !from.file.note_used(&original.body, unannounced) {
            return Err(VfsError::Unsupported);
        }
        from.note_handed_out(&original.body);
        // The lock of one file only: nobody takes two.
        let file = &to.file;
        let mut state = file.state.lock();
        if !self.may_go_on(&mut state, file, &original.source, to_offset)? {
            return Err(VfsError::Unsupported);
        }
        let range = from_offset..end;
        let copied = if original.body.is_complete() {
            self.copy_here(&mut state, file, &original, range)?
        } else {
            // Also what is here of it: that is not compared with the hash before all of it is.
            self.copy_missing(&mut state, file, &original, range)?
        };
        state.copying = Some(Copying {
            source: original.source,
            reached: copied.end,
        });
        state.mtime = Some(Self::now());
        u32::try_from(copied.end - copied.start).map_err(VfsError::io)
    }

    /// The version of an item that an open file is, without unsent changes; `None` when it is not
    /// certain that it is one.
    fn original(&self, file: &OpenFile) -> Result<Option<Original>, VfsError> {
        let mut state = file.state.lock();
        if state.stale || state.dirty {
            return Ok(None);
        }
        if state.body.is_none() {
            self.attach_body(&mut state, file)?;
        }
        let Some(body) = state.body.clone() else {
            return Ok(None);
        };
        drop(state);
        let row = self.store().read(|r| version_row(r, file, &body))?;
        // What is in another drive cannot be copied from this one.
        let row = row.filter(|_| !self.is_elsewhere(file));
        let drive = &self.engine.config.drive.id;
        Ok(row.and_then(|row| {
            let source = source_of(drive, &row).filter(|source| source.hash.is_some())?;
            Some(Original { source, body, row })
        }))
    }

    /// Tells whether the content of a file is in another drive.
    fn is_elsewhere(&self, file: &OpenFile) -> bool {
        let item = self.store().item(file.ino).ok().flatten();
        item.is_some_and(|item| self.engine.link_of(&item).is_some())
    }

    /// Tells whether the next bytes of a copy can be put into a file: it is empty, or holds what
    /// comes before them in the same version.
    fn may_go_on(
        &self,
        state: &mut FileState,
        file: &OpenFile,
        source: &Source,
        offset: u64,
    ) -> Result<bool, VfsError> {
        if state.body.is_none() {
            self.attach_body(state, file)?;
        }
        if state.body.as_ref().map_or(0, |body| body.size()) != offset {
            return Ok(false);
        }
        if state.lent.is_some() {
            // Somebody may change it by a mapping meanwhile.
            return Ok(false);
        }
        let goes_on = |copying: &Copying| copying.reached == offset && copying.source == *source;
        Ok(offset == 0 || state.copying.as_ref().is_some_and(goes_on))
    }

    /// Copies bytes that are here. Returns how far it got.
    fn copy_here(
        &self,
        state: &mut FileState,
        file: &OpenFile,
        original: &Original,
        range: ByteRange,
    ) -> Result<ByteRange, VfsError> {
        let end = range.end.min(range.start + AT_ONCE_MAX);
        let body = self.begin_write(state, file)?;
        self.check_room(state, &body, end)?;
        let mut buffer = vec![0; PIECE];
        let mut at = range.start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            let got = match original.body.read_at(at, &mut buffer[..left]) {
                Ok(got) if got > 0 => got,
                // Gone from under us, as what turned out to be corrupt.
                _ => break,
            };
            match body.write_at(at, &buffer[..got]) {
                Ok(_written) => at += got as u64,
                // What is there by now is told; the next request meets the error again.
                Err(_) if at > range.start => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !body.is_complete() {
            self.note_presence(&body)?;
        }
        // A write is noted before it is made: what was read is the version if nothing was noted.
        let row = self.store().read(|r| r.body(original.row.id))?;
        let same = |row: BodyRow| !row.dirty && row.generation == original.row.generation;
        if at == range.start
            || !row.is_some_and(same)
            || !original.body.missing(range.start..at).is_empty()
        {
            body.set_len(range.start)?;
            self.note_presence(&body)?;
            return Err(VfsError::Unsupported);
        }
        Ok(range.start..at)
    }

    /// Adds bytes to a copy that are not here.
    fn copy_missing(
        &self,
        state: &mut FileState,
        file: &OpenFile,
        original: &Original,
        range: ByteRange,
    ) -> Result<ByteRange, VfsError> {
        if self.engine.net.get() != Net::Online || !self.store().read(|r| is_new_there(r, file))? {
            return Err(VfsError::Unsupported);
        }
        if range.end > FILE_MAX {
            return Err(VfsError::TooLarge);
        }
        if range.end - range.start > self.space().1 {
            return Err(VfsError::NoSpace);
        }
        let body = self.begin_write(state, file)?;
        // Written down first: the file must never look as if its holes were its content.
        self.store().write(|tx| {
            let Some(mut row) = tx.body(body.id().0)? else {
                return Err(VfsError::Stale);
            };
            base_on(&mut row, &original.source);
            row.ranges = Some(match body.presence() {
                Presence::Ranges(ranges) => ranges,
                Presence::Complete => std::iter::once(0..body.size())
                    .filter(|range| !range.is_empty())
                    .collect(),
            });
            row.size = range.end;
            Ok(tx.update_body(&row)?)
        })?;
        body.extend_missing(range.end)?;
        state.source = Some(original.source.clone());
        Ok(range)
    }
}

/// The row of the body of a file, if it is a version of an item that nobody changed here.
fn version_row(
    r: &Reader<'_>,
    file: &OpenFile,
    body: &Body,
) -> Result<Option<BodyRow>, StoreError> {
    let Some(row) = r.body(body.id().0)?.filter(|row| !row.dirty) else {
        return Ok(None);
    };
    if row.size != row.base_size || row.size != body.size() {
        return Ok(None);
    }
    if row.copy_of().is_some() {
        // A copy itself, of a version that is there.
        return Ok(Some(row));
    }
    let Some(remote) = r.item(file.ino)?.and_then(|item| item.remote) else {
        return Ok(None);
    };
    let unsent = r
        .journal(file.ino)?
        .is_some_and(|row| row.ops.has(Ops::CONTENT));
    let same = row.base_item.as_ref() == Some(&remote.id)
        && row.base_ctag == remote.ctag
        && row.base_hash == remote.hash
        && row.base_size == remote.size;
    Ok((same && !unsent).then_some(row))
}

/// Tells whether a file will be a new one on the service, which can be made by copying.
fn is_new_there(r: &Reader<'_>, file: &OpenFile) -> Result<bool, StoreError> {
    let is_new = |item: &Item| {
        item.kind == Kind::File
            && item.remote.is_none()
            && item.parent.is_some()
            && !item.local_only
    };
    Ok(r.item(file.ino)?.as_ref().is_some_and(is_new) && r.unanswered_of(file.ino)?.is_empty())
}
