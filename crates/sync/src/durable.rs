//! Putting what was saved on stable storage, and doing only then what cannot be undone.
//!
//! `close` returns as soon as the save is recorded; a power cut right after it may take the save
//! away, as on a local disk. What it leaves must be an earlier save, never bytes that nobody wrote.
//! So a saved body is not changed: whoever writes to it writes to a copy, or to an empty body that
//! takes its place, and the saved one stays until the other is on stable storage. That happens here
//! a moment after the save, and before the save is sent. [`crate::power`] is the other half: what is
//! made of the rest after a power cut.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::kill_point;
use onedrivefs_store::{BodyRow, Durable, Store};
use tokio::task::JoinHandle;

use crate::bodies::Bodies;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::uploader::body_error;

/// Pause after a save, so that those of a program that makes many share their syncs.
const REST: Duration = Duration::from_secs(2);

/// Something that is being put on stable storage.
pub(crate) struct Barrier(JoinHandle<Result<(), EngineError>>);

impl Barrier {
    /// Waits until it is there.
    pub(crate) async fn passed(self) -> Result<(), EngineError> {
        // When the runtime ends, so does the request behind it.
        self.0.await.unwrap_or(Ok(()))
    }
}

impl Engine {
    /// Puts saves on stable storage for as long as the engine runs.
    pub(crate) async fn run_durability(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REST).await;
            let (store, bodies) = (Arc::clone(&self.store), Arc::clone(&self.bodies));
            let done = self
                .handle
                .spawn_blocking(move || sync_saved(&store, &bodies));
            if let Ok(Err(error)) = done.await {
                tracing::warn!(%error, "What was saved could not be put on stable storage yet.");
                continue;
            }
            self.bodies.changed.notified().await;
        }
    }

    /// Puts the bytes of a saved body on stable storage and notes that. The note itself is there
    /// after the next [`onedrivefs_store::Store::sync`]. Waits for the disk. Tells whether the body
    /// is still there.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn make_durable(&self, row: &BodyRow) -> Result<bool, EngineError> {
        make_durable(&self.store, &self.bodies, row)
    }

    /// Puts every save on stable storage now.
    pub(crate) async fn sync_to_disk(&self) -> Result<(), EngineError> {
        let (store, bodies) = (Arc::clone(&self.store), Arc::clone(&self.bodies));
        let done = self
            .handle
            .spawn_blocking(move || sync_saved(&store, &bodies));
        done.await.unwrap_or(Ok(()))
    }

    /// Waits until every commit so far survives a power cut. Called before a request that changes
    /// something on the service: what the service did must not be unknown here afterwards.
    pub(crate) async fn barrier(&self) -> Result<(), EngineError> {
        let store = Arc::clone(&self.store);
        match self.handle.spawn_blocking(move || store.sync()).await {
            Ok(synced) => Ok(synced?),
            // The runtime ends, and the request with it.
            Err(_shutdown) => Ok(()),
        }
    }

    /// The same for a body that is about to be sent, and the save that it holds. It begins at once
    /// and ends with what it returns, or later.
    pub(crate) fn barrier_for(&self, row: &BodyRow) -> Barrier {
        let (store, bodies) = (Arc::clone(&self.store), Arc::clone(&self.bodies));
        let row = row.clone();
        Barrier(self.handle.spawn_blocking(move || {
            if !row.is_durable() {
                make_durable(&store, &bodies, &row)?;
            }
            Ok(store.sync()?)
        }))
    }
}

/// Puts every save on stable storage, and removes what is not needed any more. Waits for the disk.
///
/// # Errors
/// Errors of the disk and the database; what could be done was done.
pub(crate) fn sync_saved(store: &Store, bodies: &Bodies) -> Result<(), EngineError> {
    let mut outcome = Ok(());
    for row in store.read(|r| r.unsynced_bodies())? {
        if let Err(error) = make_durable(store, bodies, &row) {
            outcome = Err(error);
        }
    }
    store.sync()?;
    bodies.bury(store);
    outcome
}

/// Puts the bytes of a saved body on stable storage and notes that.
fn make_durable(store: &Store, bodies: &Bodies, row: &BodyRow) -> Result<bool, EngineError> {
    let Some(body) = bodies.open(row).map_err(body_error)? else {
        return Ok(false);
    };
    bodies.content().make_durable(&body)?;
    kill_point("save-made-durable");
    let durable = Durable {
        generation: row.generation,
        size: row.size,
        ranges: row.ranges.clone(),
    };
    let gone = store.write(|tx| {
        if !tx.note_durable(row.id, &durable)? {
            return Ok(None);
        }
        let now = tx.body(row.id)?.filter(BodyRow::is_durable);
        let gone = now.map(|mut now| tx.drop_previous(&mut now)).transpose()?;
        Ok::<_, EngineError>(Some(gone.unwrap_or_default()))
    })?;
    if let Some(gone) = &gone {
        bodies.remove_files(gone);
    }
    Ok(gone.is_some())
}
