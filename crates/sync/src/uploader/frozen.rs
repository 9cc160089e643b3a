//! Frozen bodies: what is sent and hashed while programs may write on.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use onedrivefs_content::{Body, Snapshot};
use onedrivefs_core::{ByteRange, HashAccumulator, QuickXorHash};
use onedrivefs_graph::{Disposition, GraphError};
use onedrivefs_store::{BodyRow, Item, StoreError};
use parking_lot::Mutex;

use super::content::Job;
use crate::bodies::BodyError;
use crate::engine::Engine;
use crate::error::EngineError;

/// Bytes read from disk at a time while sending or hashing.
const PIECE: usize = 256 * 1024;

impl Engine {
    /// Freezes a body; `None` when it is being written to.
    pub(super) fn freeze(
        &self,
        row: &BodyRow,
    ) -> Result<Option<(Arc<Body>, Snapshot)>, EngineError> {
        let body = self.bodies.open(row).map_err(body_error)?;
        let Some(body) = body else {
            return Err(io_error(row.id, io::ErrorKind::NotFound.into()));
        };
        let Some(snapshot) = body.snapshot() else {
            return Ok(None);
        };
        // A write is noted in the database before it is made: unless it is noted there now, the
        // snapshot has exactly what was saved.
        let still = self.store.read(|r| r.body(row.id))?;
        let saved = still.is_some_and(|now| !now.dirty && now.generation == row.generation);
        Ok(saved.then_some((body, snapshot)))
    }

    /// Hashes what is sent.
    pub(super) async fn hash_job(&self, job: &Job<'_>) -> Result<QuickXorHash, EngineError> {
        if let Some(hash) = job.row.hash.or_else(|| job.hash.get().copied()) {
            return Ok(hash);
        }
        self.fetch_base(job, 0..job.size).await?;
        let begun = job.hashed.take();
        let hash = self
            .hash_in_background(job.row.id, Arc::clone(&job.snapshot), begun)
            .await?;
        Ok(*job.hash.get_or_init(|| hash))
    }

    /// Writes the hash of a refused body down, because it decides what a taken name means. While the
    /// snapshot lives nobody else can take it.
    pub(super) async fn note_hash(
        &self,
        job: &Job<'_>,
        error: &GraphError,
    ) -> Result<(), EngineError> {
        let taken = error.disposition() == Disposition::Conflict && job.parent.is_some();
        if !taken || job.row.hash.is_some() || !job.snapshot.missing(0..job.size).is_empty() {
            return Ok(());
        }
        let hash = self.hash_job(job).await?;
        self.store_hash(job.row, hash)
    }

    /// Writes the hash of a body down, unless it was written to meanwhile.
    pub(super) fn store_hash(&self, row: &BodyRow, hash: QuickXorHash) -> Result<(), EngineError> {
        self.store.write(|tx| {
            let unchanged = |now: &BodyRow| now.generation == row.generation && !now.dirty;
            if let Some(mut now) = tx.body(row.id)?.filter(unchanged) {
                now.hash = Some(hash);
                tx.update_body(&now)?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }

    /// Hashes a snapshot on a thread that may block.
    pub(super) async fn hash_in_background(
        &self,
        body: u64,
        snapshot: Arc<Snapshot>,
        begun: HashedTo,
    ) -> Result<QuickXorHash, EngineError> {
        self.handle
            .spawn_blocking(move || hash_snapshot(&snapshot, begun))
            .await
            .map_err(|error| io_error(body, io::Error::other(error)))?
            .map_err(|error| io_error(body, error))
    }

    /// Hashes the body of an item and writes the hash down.
    pub(crate) async fn hash_body(&self, item: &Item) -> Result<(), EngineError> {
        let Some(row) = item
            .body
            .map(|id| self.store.read(|r| r.body(id)))
            .transpose()?
            .flatten()
        else {
            return Ok(());
        };
        let Some((_body, snapshot)) = self.freeze(&row)? else {
            return Ok(());
        };
        let snapshot = Arc::new(snapshot);
        let hash = self
            .hash_in_background(row.id, snapshot, HashedTo::default())
            .await?;
        self.store_hash(&row, hash)
    }
}

/// Hashes a snapshot from where that was left to its end.
fn hash_snapshot(snapshot: &Snapshot, mut begun: HashedTo) -> io::Result<QuickXorHash> {
    let mut buffer = vec![0; PIECE];
    while begun.end < snapshot.size() {
        let got = snapshot.read_at(begun.end, &mut buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        begun.append(&buffer[..got]);
    }
    Ok(begun.hash.finish())
}

/// The hash of the beginning of a snapshot, made while that was read to be sent: a large body is not
/// read twice.
#[derive(Default)]
pub(super) struct Hashed(Mutex<HashedTo>);

/// The hash of the bytes before an offset.
#[derive(Default)]
pub(super) struct HashedTo {
    end: u64,
    hash: HashAccumulator,
}

impl HashedTo {
    fn append(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.end += bytes.len() as u64;
    }
}

impl Hashed {
    /// Takes bytes that were read. Those it had before, when a fragment is sent again, and those
    /// that do not follow on, when an earlier upload is gone on with, are not new to it.
    fn note(&self, at: u64, bytes: &[u8]) {
        let mut done = self.0.lock();
        let Some(known) = done.end.checked_sub(at) else {
            return;
        };
        let new = usize::try_from(known).ok().and_then(|n| bytes.get(n..));
        done.append(new.unwrap_or_default());
    }

    /// What there is of it, to be finished.
    fn take(&self) -> HashedTo {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Reads a range of a snapshot piece by piece. Exactly as many bytes come as were announced, or an
/// error that breaks the request off.
pub(super) fn pieces(
    snapshot: Arc<Snapshot>,
    range: ByteRange,
    hashed: Option<&Arc<Hashed>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    stream::iter(PieceReader {
        snapshot,
        range,
        hashed: hashed.map(Arc::clone),
    })
}

struct PieceReader {
    snapshot: Arc<Snapshot>,
    range: ByteRange,
    hashed: Option<Arc<Hashed>>,
}

impl Iterator for PieceReader {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        if left == 0 {
            return None;
        }
        let mut buffer = vec![0; left.min(PIECE)];
        match self.snapshot.read_at(self.range.start, &mut buffer) {
            Ok(got) if got == buffer.len() => {
                if let Some(hashed) = &self.hashed {
                    hashed.note(self.range.start, &buffer);
                }
                self.range.start += got as u64;
                Some(Ok(Bytes::from(buffer)))
            }
            Ok(_) => {
                self.range.start = self.range.end;
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            Err(error) => {
                self.range.start = self.range.end;
                Some(Err(error))
            }
        }
    }
}

/// Wraps an error of a body.
pub(crate) fn body_error(error: BodyError) -> EngineError {
    match error {
        BodyError::Store(error) => error.into(),
        BodyError::Content(error) => error.into(),
        BodyError::Missing(id) => io_error(id.0, io::ErrorKind::NotFound.into()),
    }
}

/// An error of reading or writing a body.
pub(super) fn io_error(body: u64, source: io::Error) -> EngineError {
    EngineError::Body { body, source }
}
