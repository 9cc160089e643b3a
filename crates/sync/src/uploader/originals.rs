//! Originals of copies that the service has not made yet.
//!
//! Such a copy may consist of nothing but a note of the version that it was made from. Before a change
//! from here takes that version away, the copy is made, or the bytes are brought here.

use onedrivefs_content::BodyId;
use onedrivefs_store::{BodyRow, Item, Place};

use super::{Step, ready};
use crate::bodies::Bodies;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::{Demand, HydrateError};
use crate::uploader::source_of;

impl Engine {
    /// Called before an item is replaced or deleted on the service: copies that need its version are
    /// to be made first, or, where that has to wait, get its bytes. `None` when there are none.
    pub(super) async fn see_to_copies(&self, item: &Item) -> Result<Option<Step>, EngineError> {
        let Some(remote) = &item.remote else {
            return Ok(None);
        };
        for row in self.store.read(|r| r.unsent_based_on(&remote.id))? {
            let owner = self.store.item(row.ino)?;
            let Some(owner) = owner.filter(|o| o.body == Some(row.id) && o.ino != item.ino) else {
                continue;
            };
            if row.ranges.is_none() {
                // After a power cut the version would be what it is taken from.
                self.barrier_for(&row).passed().await?;
                continue;
            }
            if self.is_sent_soon(&owner)? {
                return Ok(Some(Step::Blocked));
            }
            self.complete(&row).await?;
        }
        Ok(None)
    }

    /// Tells whether nothing stands in the way of sending an item.
    fn is_sent_soon(&self, item: &Item) -> Result<bool, EngineError> {
        if self.is_in_flight(item.ino) {
            return Ok(true);
        }
        let Some(row) = self.store.read(|r| r.journal(item.ino))? else {
            return Ok(false);
        };
        if row.parked || row.attempts > 0 {
            return Ok(false);
        }
        let saved = self.readiness(&row)?;
        Ok(!matches!(saved, ready::Readiness::Blocked))
    }

    /// Brings all bytes here that a body lacks.
    async fn complete(&self, row: &BodyRow) -> Result<(), EngineError> {
        debug_assert_eq!(row.place, Place::Spool);
        let body = self.bodies.open(row).map_err(super::body_error)?;
        let (Some(body), Some(source)) = (body, source_of(&self.config.drive.id, row)) else {
            return Ok(());
        };
        let whole = 0..body.size();
        let fetched = self
            .hydrator
            .ensure(&body, &source, whole, Demand::Upload)
            .await;
        let fetched = match fetched {
            Err(error @ HydrateError::Changed) => self.fetch_past(&body, &source, error).await,
            fetched => fetched,
        };
        match fetched {
            // What would be taken away is not there any more.
            Err(HydrateError::Changed | HydrateError::Gone) => return Ok(()),
            fetched => fetched?,
        }
        let presence = body.presence();
        let synced = self.handle.spawn_blocking(move || body.sync_data()).await;
        if let Ok(synced) = synced {
            synced.map_err(|error| super::frozen::io_error(row.id, error))?;
        }
        Bodies::save_presence(&self.store, BodyId(row.id), &presence)?;
        self.barrier().await
    }
}
