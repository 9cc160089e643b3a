//! Bytes that pass through memory, because the disk has no room to keep them.
//!
//! They come in pieces of one size. The few that were used last are at hand: the kernel asks for
//! parts of one, and more than one program may. Whoever goes forward gets the next pieces fetched
//! ahead, told by the pieces before that were read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onedrivefs_content::BodyId;
use onedrivefs_core::ByteRange;
use onedrivefs_graph::{Lane, in_lane};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Demand, HydrateError, Inner, Source, transfer};

/// Length of a piece in bytes: what a look at a random place costs, and what one request brings to
/// whoever goes forward.
const PIECE_BYTES: u64 = 512 * 1024;

/// Pieces at hand for all readers together, which is 32 MiB.
const PIECES_MAX: usize = 64;

/// Pieces that were fetched ahead and not read yet, for all readers together.
const UNREAD_MAX: usize = 32;

/// Pieces that are fetched ahead of one reader.
const AHEAD_MAX: u64 = 8;

/// How long a piece is at hand that nobody reads.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The bytes of a piece, once they have come.
type Cell = Arc<OnceCell<Bytes>>;

/// What is at hand.
#[derive(Default)]
pub(super) struct Passing {
    pieces: Mutex<HashMap<(BodyId, u64), Piece>>,
}

struct Piece {
    source: Arc<Source>,
    cell: Cell,
    used: Instant,
    read: bool,
}

impl Passing {
    /// Finds a piece that is read now, or a place for it. Tells whether it is the first.
    fn enter(&self, source: &Arc<Source>, id: BodyId, number: u64) -> (Cell, bool) {
        let mut pieces = self.pieces.lock();
        let first = pieces.is_empty();
        let now = Instant::now();
        if let Some(piece) = pieces.get_mut(&(id, number))
            && piece.source == *source
        {
            piece.read = true;
            piece.used = now;
            return (Arc::clone(&piece.cell), first);
        }
        (add(&mut pieces, source, id, number, true), first)
    }

    /// Finds places for what will be wanted after a piece.
    fn ahead(&self, source: &Arc<Source>, id: BodyId, number: u64) -> Vec<(u64, Cell)> {
        let mut pieces = self.pieces.lock();
        let was_read = |back: &u64| {
            let before = number.checked_sub(*back);
            let piece = before.and_then(|before| pieces.get(&(id, before)));
            piece.is_some_and(|piece| piece.read)
        };
        let run = (1..=AHEAD_MAX / 2).take_while(was_read).count() as u64;
        let last = source.size.saturating_sub(1) / PIECE_BYTES;
        let mut unread = pieces.values().filter(|piece| !piece.read).count();
        let mut added = Vec::new();
        for next in number + 1..=last.min(number + 2 * run) {
            let known = pieces.get(&(id, next));
            if known.is_some_and(|piece| piece.source == *source) {
                continue;
            }
            if unread >= UNREAD_MAX {
                break;
            }
            unread += 1;
            added.push((next, add(&mut pieces, source, id, next, false)));
        }
        added
    }

    /// Lets go of what nobody read for a while. Tells whether anything is left.
    fn tidy(&self) -> bool {
        let mut pieces = self.pieces.lock();
        pieces.retain(|_, piece| piece.used.elapsed() < KEPT_FOR);
        if pieces.is_empty() {
            pieces.shrink_to_fit();
        }
        !pieces.is_empty()
    }
}

/// Makes a place for a piece.
fn add(
    pieces: &mut HashMap<(BodyId, u64), Piece>,
    source: &Arc<Source>,
    id: BodyId,
    number: u64,
    read: bool,
) -> Cell {
    if pieces.len() >= PIECES_MAX {
        let oldest = pieces.iter().min_by_key(|(_, piece)| piece.used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            pieces.remove(&key);
        }
    }
    let cell = Cell::default();
    let piece = Piece {
        source: Arc::clone(source),
        cell: Arc::clone(&cell),
        used: Instant::now(),
        read,
    };
    pieces.insert((id, number), piece);
    cell
}

/// The bytes of a piece that the service sends.
fn range_of(source: &Source, number: u64) -> ByteRange {
    let start = number * PIECE_BYTES;
    start..source.size.min(start.saturating_add(PIECE_BYTES))
}

impl Inner {
    /// Adds the bytes of a range to what was read so far.
    pub(super) async fn pass(
        self: &Arc<Self>,
        source: &Arc<Source>,
        id: BodyId,
        range: ByteRange,
        data: &mut Vec<u8>,
    ) -> Result<(), HydrateError> {
        if range.end > source.size {
            return Err(HydrateError::TrueSize(source.size));
        }
        let mut at = range.start;
        while at < range.end {
            let number = at / PIECE_BYTES;
            let (cell, first) = self.passing.enter(source, id, number);
            if first {
                self.handle.spawn(tidy(Arc::clone(self)));
            }
            self.pass_ahead(source, id, number);
            let whole = range_of(source, number);
            let fetch = || self.pass_piece(source, whole.clone(), Demand::Foreground);
            let bytes = cell.get_or_try_init(fetch).await?;
            let end = range.end.min(whole.end);
            let place = |at: u64| usize::try_from(at - whole.start).unwrap_or(usize::MAX);
            let part = bytes.get(place(at)..place(end));
            data.extend_from_slice(part.ok_or(HydrateError::TrueSize(source.size))?);
            at = end;
        }
        Ok(())
    }

    /// Fetches what whoever reads a piece will want next.
    fn pass_ahead(self: &Arc<Self>, source: &Arc<Source>, id: BodyId, number: u64) {
        for (next, cell) in self.passing.ahead(source, id, number) {
            let (inner, source) = (Arc::clone(self), Arc::clone(source));
            self.handle.spawn(async move {
                let range = range_of(&source, next);
                let fetch = || inner.pass_piece(&source, range, Demand::ReadAhead);
                if let Err(error) = cell.get_or_try_init(fetch).await {
                    // Whoever wants it asks for it again.
                    tracing::debug!(%error, "Bytes that would pass through did not come.");
                }
            });
        }
    }

    /// Fetches a piece.
    async fn pass_piece(
        self: &Arc<Self>,
        source: &Arc<Source>,
        range: ByteRange,
        demand: Demand,
    ) -> Result<Bytes, HydrateError> {
        let lane: Lane = demand.lane();
        let fetched = in_lane(lane, transfer::pass(self, source, range, demand));
        fetched.await.map(bytes::BytesMut::freeze)
    }
}

/// Lets go of pieces for as long as there are any.
async fn tidy(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(KEPT_FOR).await;
        if !inner.passing.tidy() {
            return;
        }
    }
}
