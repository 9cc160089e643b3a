//! Keeping the content cache within its limits: least recently used bodies go first. What is
//! open, and what the service does not have, never goes.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_content::Place;
use onedrivefs_store::{BodyRow, Ops};

use crate::engine::Engine;
use crate::error::EngineError;

/// Pause between two looks at the size of the cache.
const EVERY: Duration = Duration::from_secs(60);

impl Engine {
    /// Keeps the limits for as long as the engine runs.
    pub(crate) async fn run_eviction(self: Arc<Self>) {
        loop {
            let engine = Arc::clone(&self);
            let evicted = self.handle.spawn_blocking(move || engine.evict()).await;
            match evicted {
                Ok(Err(error)) => tracing::warn!(%error, "The content cache could not be trimmed."),
                Err(error) => tracing::warn!(%error, "Trimming the content cache broke off."),
                Ok(Ok(())) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Removes bodies until the cache is within its limits.
    fn evict(&self) -> Result<(), EngineError> {
        let content = self.bodies.content();
        let stored = content.list(Place::Cache)?;
        let mut used: u64 = stored.iter().map(|body| body.bytes_allocated).sum();
        let mut free = content.free_bytes(Place::Cache)?;
        let (limit, floor) = (
            self.config.cache_limit_bytes,
            self.config.free_disk_floor_bytes,
        );
        if used <= limit && free >= floor {
            return Ok(());
        }
        let sizes: std::collections::HashMap<u64, u64> = stored
            .iter()
            .map(|body| (body.id.0, body.bytes_allocated))
            .collect();
        for row in self.store.read(|r| r.cached_bodies())? {
            if used <= limit && free >= floor {
                break;
            }
            let Some(&bytes) = sizes.get(&row.id) else {
                continue;
            };
            if self.evict_body(&row)? {
                used = used.saturating_sub(bytes);
                free = free.saturating_add(bytes);
            }
        }
        self.bodies.bury(&self.store);
        Ok(())
    }

    /// Removes one body from the cache unless it is in use. Tells whether it went.
    fn evict_body(&self, row: &BodyRow) -> Result<bool, EngineError> {
        if self.bodies.live(row.id).is_some() {
            return Ok(false);
        }
        let gone = self.store.write(|tx| {
            // Somebody may have begun to write to it since it was listed.
            let Some(row) = tx.body(row.id)? else {
                return Ok(false);
            };
            if row.place != onedrivefs_store::Place::Cache || row.dirty {
                return Ok(false);
            }
            let unsent = tx
                .journal(row.ino)?
                .is_some_and(|row| row.ops.has(Ops::CREATE) || row.ops.has(Ops::CONTENT));
            // Asked again, since somebody may have opened it meanwhile.
            if unsent || self.bodies.live(row.id).is_some() || tx.is_previous(row.id)? {
                return Ok(false);
            }
            if let Some(mut item) = tx.item(row.ino)?.filter(|item| item.body == Some(row.id)) {
                item.body = None;
                tx.update_item(&item)?;
            }
            tx.delete_body(row.id)?;
            Ok::<_, EngineError>(true)
        })?;
        if gone {
            self.bodies.remove_files(std::slice::from_ref(row));
        }
        Ok(gone)
    }

    /// Bytes on disk in the content cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        let listed = self.bodies.content().list(Place::Cache);
        listed.map_or(0, |bodies| {
            bodies.iter().map(|body| body.bytes_allocated).sum()
        })
    }
}
