//! An immutable view of a body, for an upload that must send one version while writing goes on.

use std::fmt;
use std::io;
use std::sync::Arc;

use onedrivefs_core::ByteRange;
use rangemap::RangeSet;

use crate::body::{Shared, missing_error};
use crate::{BodyId, fileops, ranges};

/// A body as it was at one moment. Writers pay only for the bytes they overwrite while it lives;
/// dropping it gives up what they kept for it.
pub struct Snapshot {
    shared: Arc<Shared>,
    size: u64,
}

impl Snapshot {
    pub(crate) fn new(shared: Arc<Shared>, size: u64) -> Self {
        Self { shared, size }
    }

    /// The body it is a view of.
    #[must_use]
    pub fn id(&self) -> BodyId {
        self.shared.id
    }

    /// Length in bytes at that moment.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads; short only at the end.
    ///
    /// # Errors
    /// One that [`crate::is_missing`] recognises when bytes are not present; what the system says
    /// else.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = offset..offset.saturating_add(buf.len() as u64);
        let range = ranges::overlap(&wanted, &(0..self.size));
        if range.is_empty() {
            return Ok(0);
        }
        let state = self.shared.state.read();
        let mut done = 0;
        for piece in state.pieces(&range) {
            if piece.range.start != offset + done as u64 {
                return Err(missing_error());
            }
            let len = usize::try_from(piece.range.end - piece.range.start).unwrap_or(buf.len());
            let part = &mut buf[done..done + len];
            fileops::read_exact(piece.file, piece.range.start, part)?;
            done += len;
        }
        if offset + done as u64 != range.end {
            return Err(missing_error());
        }
        Ok(done)
    }

    /// The parts of `range` that are not on this machine, in order.
    #[must_use]
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let range = ranges::overlap(&range, &(0..self.size));
        let state = self.shared.state.read();
        let there: RangeSet<u64> = state
            .pieces(&range)
            .into_iter()
            .map(|piece| piece.range)
            .collect();
        ranges::outside(&there, &range)
    }

    /// Puts downloaded bytes where none are present, in the snapshot and in its body.
    ///
    /// # Errors
    /// What the system says; `StorageFull` for a full disk. Parts may have been filled.
    pub fn fill(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.shared.state.write();
        state.fill(&self.shared.layout, offset, data)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let preserved = self.shared.state.write().snapshot.take();
        // Outside the lock: giving back the blocks of a large overlay takes long.
        drop(preserved);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("id", &self.shared.id)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
