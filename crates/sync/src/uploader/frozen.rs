//! Frozen bodies: what is sent and hashed while programs may write on.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use onedrivefs_content::{Body, Snapshot};
use onedrivefs_core::{ByteRange, HashAccumulator, QuickXorHash};
use onedrivefs_graph::{Disposition, GraphError};
use onedrivefs_store::{BodyRow, Item, StoreError};

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
        let hash = self
            .hash_in_background(job.row.id, Arc::clone(&job.snapshot))
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
    ) -> Result<QuickXorHash, EngineError> {
        self.handle
            .spawn_blocking(move || hash_snapshot(&snapshot))
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
        let hash = self.hash_in_background(row.id, Arc::new(snapshot)).await?;
        self.store_hash(&row, hash)
    }
}

/// Hashes a snapshot from its beginning to its end.
fn hash_snapshot(snapshot: &Snapshot) -> io::Result<QuickXorHash> {
    let mut hash = HashAccumulator::new();
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < snapshot.size() {
        let got = snapshot.read_at(at, &mut buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..got]);
        at += got as u64;
    }
    Ok(hash.finish())
}

/// Reads a range of a snapshot piece by piece. Exactly as many bytes come as were announced, or an
/// error that breaks the request off.
pub(super) fn pieces(
    snapshot: Arc<Snapshot>,
    range: ByteRange,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    stream::iter(PieceReader { snapshot, range })
}

struct PieceReader {
    snapshot: Arc<Snapshot>,
    range: ByteRange,
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
