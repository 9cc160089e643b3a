//! Items of which something turned out beside the feed: they are asked for by themselves.

use std::sync::Arc;
use std::time::Instant;

use onedrivefs_content::Body;
use onedrivefs_core::{Ino, ItemId};
use onedrivefs_store::{BodyRow, StoreError};

use super::Engine;
use crate::bodies::BodyError;
use crate::error::EngineError;

impl Engine {
    /// Reads the current state of an item from the service and applies it.
    ///
    /// # Errors
    /// Errors of the service and the database.
    pub async fn refresh_item(&self, ino: Ino) -> Result<(), EngineError> {
        let Some(id) = self
            .store
            .item(ino)?
            .and_then(|item| item.item_id().cloned())
        else {
            return Ok(());
        };
        let asked = Instant::now();
        match self.find_item(&id).await {
            Ok(there) => {
                self.hash_for_decisions(Some(&there)).await?;
                self.apply_now(&[there], None, asked)
            }
            Err(error) if error.is_not_found() => self.bury(ino, &id, asked).await,
            Err(error) => {
                self.net.learn_error(&error);
                Err(error.into())
            }
        }
    }

    /// Removes an item here that the service does not find, with the folders above it that are
    /// gone, too: the feed need not say that of what was moved into a folder and deleted with it.
    /// `ino` is the inode whose work found that out. It may be another item by now, since saves by
    /// rename pass identities on.
    pub(crate) async fn bury(
        &self,
        ino: Ino,
        id: &ItemId,
        asked: Instant,
    ) -> Result<(), EngineError> {
        let mut gone = Vec::new();
        let mut at = self.store.read(|r| r.item_by_id(id))?;
        while let Some(item) = at {
            let base = item.remote.as_ref().and_then(|remote| remote.parent);
            gone.push(crate::delta::tombstone_for(&item));
            if self.config.groups {
                break;
            }
            at = base
                .map(|folder| self.store.read(|r| r.item(folder)))
                .transpose()?
                .flatten();
            let Some(id) = at.as_ref().and_then(|folder| folder.item_id()) else {
                break;
            };
            match self.find_item(id).await {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        // From above, so that each is known to have gone with its folder.
        gone.reverse();
        self.apply_now(&gone, Some(ino), asked)
    }

    /// Opens the body of a row; a body that is gone from the content cache is forgotten.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn open_body(&self, row: &BodyRow) -> Result<Option<Arc<Body>>, BodyError> {
        let body = self.bodies.open(row)?;
        if body.is_none() {
            tracing::info!(
                body = row.id,
                "A body was gone from the content cache and will be downloaded again."
            );
            self.store.write(|tx| {
                if let Some(mut item) = tx.item(row.ino)?.filter(|item| item.body == Some(row.id)) {
                    item.body = None;
                    tx.update_item(&item)?;
                }
                tx.delete_body(row.id)
            })?;
        }
        Ok(body)
    }

    /// The service sends another number of bytes than it says: what it sends counts. Tells whether
    /// that is so from now on; unsent bytes outweigh those that cannot be had.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn learn_size(&self, ino: Ino, true_size: u64) -> Result<bool, StoreError> {
        let (learnt, dropped) = self.store.write(|tx| {
            let Some(mut item) = tx.item(ino)? else {
                return Ok((false, None));
            };
            let row = item.body.map(|id| tx.body(id)).transpose()?.flatten();
            if let Some(row) = &row {
                if row.place == onedrivefs_store::Place::Spool {
                    return Ok((false, None));
                }
                tx.delete_body(row.id)?;
            }
            item.body = None;
            item.size = true_size;
            tx.update_item(&item)?;
            Ok::<_, StoreError>((true, row))
        })?;
        self.bodies.remove_files(dropped.as_slice());
        Ok(learnt)
    }
}
