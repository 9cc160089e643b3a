//! The state of one body behind its lock: size, what is present, and what a snapshot still needs.
//!
//! Invariants, which hold whenever the lock is free:
//! - the file is as long as `size`, and `present` lies inside `0..size`;
//! - a byte outside `present` is nobody's: it may be overwritten by downloaded bytes only;
//! - while a snapshot lives, each byte of it that changed is in `touched`, and if it was present
//!   before the change it is in `kept`, too.

use std::fs::File;
use std::io;
use std::sync::Arc;

use onedrivefs_core::{ByteRange, kill_point};
use rangemap::RangeSet;

use crate::layout::Layout;
use crate::{BodyId, Place, fileops, ranges};

/// A truncation gives the snapshot the whole old file when it would otherwise have to copy at
/// least this many bytes. Below it, copying costs less than creating and renaming a file.
///
/// Tests work with bodies of a few kilobytes and must come here, too.
const DETACH_MIN_BYTES: u64 = if cfg!(test) { 512 } else { 1024 * 1024 };

/// What the lock of a body protects.
pub(crate) struct State {
    pub(crate) file: Arc<File>,
    pub(crate) place: Place,
    pub(crate) size: u64,
    pub(crate) present: RangeSet<u64>,
    /// A local change was made since the last snapshot.
    pub(crate) changed: bool,
    /// No local change was ever made: every present byte came from the service.
    pub(crate) pristine: bool,
    /// How often bytes were forgotten that could be read before.
    pub(crate) forgotten: u64,
    pub(crate) snapshot: Option<Preserved>,
    /// The kernel reads the file without asking: the body must not go on with another one.
    pub(crate) handed_out: bool,
    /// How many programs may change the file without asking.
    pub(crate) lent: u32,
    /// While the body is copied elsewhere: what changed since the copier last looked.
    pub(crate) uncopied: Option<RangeSet<u64>>,
}

/// What a living snapshot needs beyond the body's own file.
pub(crate) struct Preserved {
    pub(crate) size: u64,
    /// Made when the first byte must be kept.
    overlay: Option<File>,
    /// Ranges of the snapshot that are in the overlay.
    kept: RangeSet<u64>,
    /// Ranges of the snapshot that changed in the body.
    touched: RangeSet<u64>,
    /// The file the body left to the snapshot, with the ranges of it that are the snapshot's.
    left: Option<(Arc<File>, RangeSet<u64>)>,
}

/// A part of a snapshot and the file that has it.
pub(crate) struct Piece<'a> {
    pub(crate) range: ByteRange,
    pub(crate) file: &'a File,
}

impl State {
    /// Notes that the bytes of `range` are others now.
    pub(crate) fn note_changed(&mut self, range: ByteRange) {
        if let Some(uncopied) = &mut self.uncopied {
            ranges::insert(uncopied, range);
        }
    }

    /// Notes a local change, after [`State::preserve`].
    pub(crate) fn note_local_change(&mut self, range: ByteRange) {
        self.changed = true;
        self.pristine = false;
        self.note_changed(range);
    }

    /// Tells whether every byte of the range is present.
    pub(crate) fn has(&self, range: &ByteRange) -> bool {
        range.start >= range.end || self.present.gaps(range).next().is_none()
    }

    /// Keeps the snapshot's bytes of `range`, which is about to change.
    pub(crate) fn preserve(&mut self, layout: &Layout, range: &ByteRange) -> io::Result<()> {
        let Some(snapshot) = &mut self.snapshot else {
            return Ok(());
        };
        let range = ranges::overlap(range, &(0..snapshot.size));
        let fresh = ranges::outside(&snapshot.touched, &range);
        for part in &fresh {
            for present in ranges::inside(&self.present, part) {
                let overlay = snapshot.overlay(layout)?;
                fileops::copy_literally(&self.file, overlay, &present)?;
                ranges::insert(&mut snapshot.kept, present);
            }
        }
        for part in fresh {
            ranges::insert(&mut snapshot.touched, part);
        }
        Ok(())
    }

    /// Puts downloaded bytes where none are present, and where the snapshot lacks them.
    pub(crate) fn fill(&mut self, layout: &Layout, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        for gap in ranges::outside(&self.present, &(offset..end.min(self.size))) {
            let bytes = slice(data, offset, &gap);
            fileops::write_all(&self.file, gap.start, bytes).map_err(|partial| partial.error)?;
            kill_point("body-filled");
            ranges::insert(&mut self.present, gap.clone());
            self.note_changed(gap);
        }
        let Some(snapshot) = &mut self.snapshot else {
            return Ok(());
        };
        let range = ranges::overlap(&(offset..end), &(0..snapshot.size));
        for part in snapshot.needed(&range) {
            let bytes = slice(data, offset, &part);
            let overlay = snapshot.overlay(layout)?;
            fileops::write_all(overlay, part.start, bytes).map_err(|partial| partial.error)?;
            ranges::insert(&mut snapshot.kept, part);
        }
        Ok(())
    }

    /// Where the bytes of a part of the snapshot are, in order; missing ones have no piece.
    pub(crate) fn pieces(&self, range: &ByteRange) -> Vec<Piece<'_>> {
        let Some(snapshot) = &self.snapshot else {
            return Vec::new();
        };
        let range = ranges::overlap(range, &(0..snapshot.size));
        let mut pieces = Vec::new();
        if let Some(overlay) = &snapshot.overlay {
            let kept = ranges::inside(&snapshot.kept, &range);
            pieces.extend(kept.into_iter().map(|range| Piece {
                range,
                file: overlay,
            }));
        }
        for gap in ranges::outside(&snapshot.kept, &range) {
            if let Some((file, present)) = &snapshot.left {
                let there = ranges::inside(present, &gap);
                pieces.extend(there.into_iter().map(|range| Piece { range, file }));
                continue;
            }
            for part in ranges::outside(&snapshot.touched, &gap) {
                let there = ranges::inside(&self.present, &part);
                let file = &self.file;
                pieces.extend(there.into_iter().map(|range| Piece { range, file }));
            }
        }
        pieces.sort_by_key(|piece| piece.range.start);
        pieces
    }

    /// Leaves the file to the snapshot and goes on with a copy of its first `len` bytes, when that
    /// is cheaper than copying the rest. Tells whether it did.
    pub(crate) fn detach(&mut self, layout: &Layout, id: BodyId, len: u64) -> io::Result<bool> {
        let Some(snapshot) = self.snapshot.as_mut().filter(|_| !self.handed_out) else {
            return Ok(false);
        };
        let cut = ranges::overlap(&(len..self.size), &(0..snapshot.size));
        let to_keep: u64 = ranges::outside(&snapshot.touched, &cut)
            .iter()
            .map(|part| ranges::total(&ranges::inside(&self.present, part)))
            .sum();
        let rest = ranges::inside(&self.present, &(0..len));
        if to_keep < DETACH_MIN_BYTES || ranges::total(&rest) > to_keep {
            return Ok(false);
        }
        let temp = layout.temp_path(self.place, id);
        let file = layout.create_file(self.place, &temp)?;
        file.set_len(len)?;
        for part in &rest {
            fileops::copy(&self.file, &file, part)?;
        }
        if !rest.is_empty() {
            // The old file may be on stable storage by promise; its successor must not be less.
            file.sync_data()?;
        }
        kill_point("before-body-detach");
        layout.rename(&temp, self.place, &layout.path(self.place, id))?;
        kill_point("body-detached");
        let mut present = ranges::clipped(&self.present, &(0..snapshot.size));
        for touched in snapshot.touched.iter() {
            ranges::remove(&mut present, touched.clone());
        }
        let old = std::mem::replace(&mut self.file, Arc::new(file));
        snapshot.left = Some((old, present));
        ranges::insert(&mut snapshot.touched, 0..snapshot.size);
        let all = 0..self.size;
        self.note_changed(all);
        Ok(true)
    }
}

impl Preserved {
    /// Starts a snapshot of a body that is `size` bytes long.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            overlay: None,
            kept: RangeSet::new(),
            touched: RangeSet::new(),
            left: None,
        }
    }

    /// The overlay, made on first use.
    fn overlay(&mut self, layout: &Layout) -> io::Result<&File> {
        let overlay = match self.overlay.take() {
            Some(overlay) => overlay,
            None => layout.nameless_file()?,
        };
        Ok(self.overlay.insert(overlay))
    }

    /// The parts of `range` that changed in the body before the snapshot had them.
    fn needed(&self, range: &ByteRange) -> Vec<ByteRange> {
        let mut needed = Vec::new();
        for gap in ranges::outside(&self.kept, range) {
            for part in ranges::inside(&self.touched, &gap) {
                match &self.left {
                    Some((_, present)) => needed.extend(ranges::outside(present, &part)),
                    None => needed.push(part),
                }
            }
        }
        needed
    }
}

/// The bytes of `part` in `data`, which begins at `offset`.
fn slice<'a>(data: &'a [u8], offset: u64, part: &ByteRange) -> &'a [u8] {
    let index = |at: u64| usize::try_from(at - offset).unwrap_or(data.len());
    &data[index(part.start)..index(part.end)]
}
