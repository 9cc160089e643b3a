//! One body: reading, writing, filling in and cutting, for all handles of a file at once.
//!
//! The lock is held for one system call on a local file at a time, never across the network. A
//! local write always wins over downloaded bytes, whichever comes first.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use onedrivefs_core::{ByteRange, kill_point};
use parking_lot::{Mutex, RwLock};
use rangemap::RangeSet;

use crate::layout::Layout;
use crate::state::{Preserved, State};
use crate::{BodyId, Place, Presence, Snapshot, fileops, ranges};

/// Bytes in the unit that `stat` counts allocated space in.
const STAT_BLOCK_BYTES: u64 = 512;

/// The content of a file on this machine, shared by all its handles.
pub struct Body {
    pub(crate) shared: Arc<Shared>,
}

/// What a body and its snapshot share.
pub(crate) struct Shared {
    pub(crate) id: BodyId,
    pub(crate) layout: Arc<Layout>,
    pub(crate) state: RwLock<State>,
    /// Held while the body moves between the folders. Taken before `state`.
    pub(crate) moving: Mutex<()>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The body has missing ranges and the stored presence is out of date now.
    pub presence_grew: bool,
}

/// The error for bytes that are not on this machine.
pub(crate) fn missing_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "these bytes are not on this machine",
    )
}

/// Tells whether a read failed because bytes it needs are not present (any more): the caller
/// fetches them and reads again.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The end of a range that a system call names by offset and length; `EFBIG` past what files can be.
fn checked_end(offset: u64, len: u64) -> io::Result<u64> {
    offset
        .checked_add(len)
        .filter(|&end| i64::try_from(end).is_ok())
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl Body {
    /// Wraps an open file.
    pub(crate) fn new(
        layout: Arc<Layout>,
        id: BodyId,
        file: std::fs::File,
        place: Place,
        size: u64,
        present: RangeSet<u64>,
    ) -> Self {
        let state = State {
            file: Arc::new(file),
            place,
            size,
            present,
            changed: false,
            pristine: place == Place::Cache,
            forgotten: 0,
            snapshot: None,
            handed_out: false,
            lent: 0,
            uncopied: None,
        };
        Self {
            shared: Arc::new(Shared {
                id,
                layout,
                state: RwLock::new(state),
                moving: Mutex::default(),
            }),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> BodyId {
        self.shared.id
    }

    /// Says that a body from [`Content::duplicate`](crate::Content::duplicate) is known by now.
    ///
    /// # Errors
    /// What the system says; the body is as good without.
    pub fn confirm(&self) -> io::Result<()> {
        Layout::set_provisional(&self.shared.state.read().file, false)
    }

    /// The folder it lies in now.
    #[must_use]
    pub fn place(&self) -> Place {
        self.shared.state.read().place
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.state.read().size
    }

    /// Tells whether every byte is present.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let state = self.shared.state.read();
        state.has(&(0..state.size))
    }

    /// Tells whether every present byte is the service's: nothing was ever changed here.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.shared.state.read().pristine
    }

    /// Says whether every byte, present or not, is the service's.
    pub fn set_pristine(&self, pristine: bool) {
        self.shared.state.write().pristine = pristine;
    }

    /// What is present, in the form that is stored.
    #[must_use]
    pub fn presence(&self) -> Presence {
        let state = self.shared.state.read();
        if state.has(&(0..state.size)) {
            Presence::Complete
        } else {
            Presence::Ranges(state.present.clone())
        }
    }

    /// The parts of `range` inside the body that are not present, in order.
    #[must_use]
    pub fn missing(&self, range: ByteRange) -> Vec<ByteRange> {
        let state = self.shared.state.read();
        ranges::outside(&state.present, &ranges::overlap(&range, &(0..state.size)))
    }

    /// Tells whether any byte of a range is present.
    #[must_use]
    pub fn has_any(&self, range: ByteRange) -> bool {
        let state = self.shared.state.read();
        range.start < range.end && state.present.overlaps(&range)
    }

    /// The first byte at or after `from` that is not present; `None` when there is none.
    #[must_use]
    pub fn first_missing(&self, from: u64) -> Option<u64> {
        let state = self.shared.state.read();
        if from >= state.size {
            return None;
        }
        let gap = state.present.gaps(&(from..state.size)).next();
        gap.map(|gap| gap.start)
    }

    /// Tells whether bytes are missing, and all of them lie in `range`.
    #[must_use]
    pub fn completes(&self, range: &ByteRange) -> bool {
        let state = self.shared.state.read();
        if state.size == 0 {
            return false;
        }
        let whole = 0..state.size;
        let mut gaps = state.present.gaps(&whole).peekable();
        gaps.peek().is_some() && gaps.all(|gap| range.start <= gap.start && gap.end <= range.end)
    }

    /// Reads; short only at the end.
    ///
    /// # Errors
    /// One that [`is_missing`] recognises when bytes are not present; what the system says else.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.shared.state.read();
        let wanted = offset..offset.saturating_add(buf.len() as u64);
        let range = ranges::overlap(&wanted, &(0..state.size));
        if range.is_empty() {
            return Ok(0);
        }
        if !state.has(&range) {
            return Err(missing_error());
        }
        let len = usize::try_from(range.end - range.start).unwrap_or(buf.len());
        fileops::read_exact(&state.file, offset, &mut buf[..len])?;
        Ok(len)
    }

    /// Has the disk fetch bytes that will be read soon. Does not wait for them.
    pub fn read_ahead(&self, range: &ByteRange) {
        let file = Arc::clone(&self.shared.state.read().file);
        fileops::read_ahead(&file, range);
    }

    /// Puts downloaded bytes where none are present; what lies past the end is dropped.
    ///
    /// # Errors
    /// What the system says; `StorageFull` for a full disk. Parts may have been filled.
    pub fn fill(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.shared.state.write();
        state.fill(&self.shared.layout, offset, data)
    }

    /// Writes. A gap between the old end and `offset` becomes zeros.
    ///
    /// # Errors
    /// What the system says; `StorageFull` for a full disk. Bytes before the old end may have been
    /// written, the size is unchanged.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<Written> {
        let end = checked_end(offset, data.len() as u64)?;
        let mut state = self.shared.state.write();
        let state = &mut *state;
        if data.is_empty() {
            return Ok(Written {
                presence_grew: false,
            });
        }
        let old_size = state.size;
        state.preserve(&self.shared.layout, &(offset..end))?;
        let was_complete = state.has(&(0..old_size));
        let was_there = state.has(&(offset..end));
        kill_point("before-body-write");
        if let Err(partial) = fileops::write_all(&state.file, offset, data) {
            let reached = (offset + partial.done as u64).min(old_size);
            // What is lent may have been added to by others meanwhile.
            if partial.done > 0 && end > old_size && state.lent == 0 {
                state.file.set_len(old_size)?;
            }
            if offset < reached {
                ranges::insert(&mut state.present, offset..reached);
                state.note_local_change(offset..reached);
            }
            return Err(partial.error);
        }
        kill_point("body-written");
        state.size = old_size.max(end);
        ranges::insert(&mut state.present, offset..end);
        ranges::insert(&mut state.present, old_size..state.size);
        state.note_local_change(offset.min(old_size)..end);
        Ok(Written {
            presence_grew: !was_complete && !was_there,
        })
    }

    /// Cuts or extends. Added bytes are zeros.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        checked_end(len, 0)?;
        let mut state = self.shared.state.write();
        let old_size = state.size;
        if len < old_size {
            let shared = &self.shared;
            if !state.detach(&shared.layout, shared.id, len)? {
                state.preserve(&shared.layout, &(len..old_size))?;
                state.file.set_len(len)?;
                kill_point("body-shortened");
            }
            ranges::remove(&mut state.present, len..old_size);
            state.size = len;
            state.note_local_change(len..old_size);
        } else if len > old_size {
            state.extend(len)?;
        }
        Ok(())
    }

    /// Grows by bytes that are not present, because they can be had elsewhere.
    ///
    /// # Errors
    /// What the system says; the size is unchanged.
    pub fn extend_missing(&self, len: u64) -> io::Result<()> {
        checked_end(len, 0)?;
        let mut state = self.shared.state.write();
        let added = state.size..len;
        if !added.is_empty() {
            state.file.set_len(len)?;
            kill_point("body-extended-unfilled");
            state.size = len;
            state.note_local_change(added);
        }
        Ok(())
    }

    /// Reserves space. Without `keep_size` the body grows to hold the range.
    ///
    /// # Errors
    /// What the system says; `StorageFull` when the space is not there.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let end = checked_end(offset, len)?;
        let mut state = self.shared.state.write();
        fileops::reserve(&state.file, &(offset..end))?;
        if !keep_size && end > state.size {
            state.extend(end)?;
        }
        Ok(())
    }

    /// Makes a range read as zeros and gives its space back; the size stays.
    ///
    /// # Errors
    /// What the system says.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = checked_end(offset, len)?;
        let mut state = self.shared.state.write();
        let range = ranges::overlap(&(offset..end), &(0..state.size));
        state.preserve(&self.shared.layout, &range)?;
        fileops::punch(&state.file, &range)?;
        kill_point("body-punched");
        state.zeroed(range);
        Ok(())
    }

    /// Makes a range read as zeros and keeps space for it. Without `keep_size` the body grows to
    /// hold the range.
    ///
    /// # Errors
    /// What the system says.
    pub fn zero_range(&self, offset: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let end = checked_end(offset, len)?;
        let mut state = self.shared.state.write();
        let range = ranges::overlap(&(offset..end), &(0..state.size));
        state.preserve(&self.shared.layout, &range)?;
        fileops::zero(&state.file, &range)?;
        kill_point("body-zeroed");
        state.zeroed(range);
        if !keep_size && end > state.size {
            state.extend(end)?;
        }
        Ok(())
    }

    /// The first byte at or after `offset` that may differ from zero; missing bytes may. `None`
    /// when there is none up to the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn seek_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let state = self.shared.state.read();
        if offset >= state.size {
            return Ok(None);
        }
        let data = fileops::seek_data(&state.file, offset)?;
        let missing = state.present.gaps(&(offset..state.size)).next();
        let first = data.into_iter().chain(missing.map(|gap| gap.start)).min();
        Ok(first.filter(|&at| at < state.size))
    }

    /// The first hole at or after `offset`; the end is one. `None` when `offset` is past the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn seek_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        let state = self.shared.state.read();
        if offset >= state.size {
            return Ok(None);
        }
        let mut at = offset;
        loop {
            at = fileops::seek_hole(&state.file, at)?.unwrap_or(state.size);
            if at >= state.size {
                return Ok(Some(state.size));
            }
            match state.present.gaps(&(at..state.size)).next() {
                Some(gap) if gap.start == at => at = gap.end,
                _ => return Ok(Some(at)),
            }
            if at >= state.size {
                return Ok(Some(state.size));
            }
        }
    }

    /// Takes an immutable view of the body as it is now; `None` while another one is alive, and
    /// while others may change the body at any time.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let mut state = self.shared.state.write();
        if state.snapshot.is_some() || state.lent > 0 {
            return None;
        }
        state.snapshot = Some(Preserved::new(state.size));
        state.changed = false;
        Some(Snapshot::new(Arc::clone(&self.shared), state.size))
    }

    /// Tells whether a snapshot is alive.
    #[must_use]
    pub fn has_snapshot(&self) -> bool {
        self.shared.state.read().snapshot.is_some()
    }

    /// Tells whether a local change was made since the last snapshot was taken, or since the body
    /// was opened when there was none.
    #[must_use]
    pub fn changed_since_snapshot(&self) -> bool {
        self.shared.state.read().changed
    }

    /// Forgets all bytes, because they turned out not to be the service's. A body that was changed
    /// here is left alone. Tells whether the bytes were forgotten.
    #[must_use]
    pub fn forget_downloaded(&self) -> bool {
        let mut state = self.shared.state.write();
        if !state.pristine {
            return false;
        }
        if !state.present.is_empty() {
            state.forgotten += 1;
        }
        // The file keeps them until others come: a power cut may bring a presence back that was
        // recorded earlier, and zeros under that name would be worse than what was read before.
        state.present = RangeSet::new();
        let size = state.size;
        state.note_changed(0..size);
        true
    }

    /// How often bytes were forgotten that could be read before: whoever has read any between two
    /// different values of this was given wrong ones.
    #[must_use]
    pub fn times_forgotten(&self) -> u64 {
        self.shared.state.read().forgotten
    }

    /// Puts the bytes, but not the folder's entry, on stable storage.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync_data(&self) -> io::Result<()> {
        // Outside the lock: writing out a large body takes long, and a body that moves meanwhile
        // was synced by the move.
        let file = Arc::clone(&self.shared.state.read().file);
        file.sync_data()?;
        kill_point("body-synced");
        Ok(())
    }

    /// Space it takes on disk, in bytes.
    #[must_use]
    pub fn bytes_allocated(&self) -> u64 {
        let state = self.shared.state.read();
        let blocks = state
            .file
            .metadata()
            .map_or(0, |metadata| metadata.blocks());
        blocks.saturating_mul(STAT_BLOCK_BYTES)
    }
}

impl State {
    /// Grows the file with zeros, which are present.
    fn extend(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        kill_point("body-extended");
        let added = self.size..len;
        ranges::insert(&mut self.present, added.clone());
        self.size = len;
        self.note_local_change(added);
        Ok(())
    }

    /// Notes that a range holds zeros now.
    fn zeroed(&mut self, range: ByteRange) {
        if !range.is_empty() {
            ranges::insert(&mut self.present, range.clone());
            self.note_local_change(range);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.read();
        f.debug_struct("Body")
            .field("id", &self.shared.id)
            .field("place", &state.place)
            .field("size", &state.size)
            .finish_non_exhaustive()
    }
}
