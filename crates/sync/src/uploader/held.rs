//! Names on the service that belong to items whose deletion is held back, or was refused.
//!
//! What takes such a name here must neither wait for a person nor become a conflict. A new file is
//! the next version of the old one, and a new folder the one that was there; whatever else wants
//! the name gets it, and the item that is to be deleted is renamed for the time being.

use onedrivefs_core::{Ino, Timestamp, name};
use onedrivefs_graph::ItemPatch;
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Reader, Role, StoreError, Tx};

use super::namespace::link_tag;
use super::{InFlight, Step, ready};
use crate::apply::last_name;
use crate::conflict_name::marked_name;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal;

/// The item that holds the name an item wants on the service, and whose deletion waits for a
/// person; and whether that is held back rather than refused.
fn waiting_occupant(r: &Reader<'_>, item: &Item) -> Result<Option<(Item, bool)>, StoreError> {
    let Some(other) = ready::occupant(r, item)? else {
        return Ok(None);
    };
    let row = r.journal(other.ino)?;
    let waits = row.filter(|row| row.parked && row.ops.has(Ops::DELETE));
    Ok(waits.map(|row| (other, row.held)))
}

/// Tells whether a new item is what an item that was deleted here goes on as.
pub(crate) fn is_successor(old: &Item, new: &Item) -> bool {
    old.kind == new.kind
        && old.kind != Kind::Symlink
        && old.role == Role::Ordinary
        && new.remote.is_none()
        && !new.local_only
}

impl Engine {
    /// Tells whether a deletion that was about to be sent is still wanted: it may have been held
    /// back, or taken back, since the work on it began.
    pub(super) fn may_delete(&self, ino: Ino) -> Result<bool, StoreError> {
        let row = self.store.read(|r| r.journal(ino))?;
        Ok(row.is_some_and(|row| !row.parked && row.ops.has(Ops::DELETE)))
    }

    /// Makes room for an item whose name on the service belongs to one whose deletion waits for a
    /// person. `None` when there is no such item.
    pub(super) async fn make_way(&self, item: &Item) -> Result<Option<Step>, EngineError> {
        let Some((old, held)) = self.store.read(|r| waiting_occupant(r, item))? else {
            return Ok(None);
        };
        if self.is_in_flight(old.ino) {
            return Ok(Some(Step::Blocked));
        }
        if !is_successor(&old, item) {
            // What must not be deleted there can most likely not be renamed either.
            return match held {
                true => self.move_held_aside(&old).await.map(Some),
                false => Ok(None),
            };
        }
        let dropped = self.store.write(|tx| {
            let Some(new) = tx.item(item.ino)? else {
                return Ok(None);
            };
            match waiting_occupant(tx, &new)? {
                Some((old, _)) if is_successor(&old, &new) => self.succeed(tx, old, new),
                _ => Ok(None),
            }
        })?;
        self.bodies.remove_files(dropped.as_slice());
        Ok(Some(Step::Progress))
    }

    /// Makes a new item the one that an item deleted here was on the service. Returns the body of
    /// the old one when nobody needs it any more.
    pub(crate) fn succeed(
        &self,
        tx: &Tx<'_>,
        mut old: Item,
        new: Item,
    ) -> Result<Option<BodyRow>, StoreError> {
        journal::inherit(tx, &mut old, new, Timestamp::now())?;
        let in_use =
            self.holds.lock().contains(&old.ino) || self.writers.lock().contains_key(&old.ino);
        if in_use {
            // It goes with the last handle.
            return Ok(None);
        }
        let body = old.body.map(|id| tx.body(id)).transpose()?.flatten();
        if let Some(row) = &body {
            tx.delete_body(row.id)?;
        }
        tx.delete_item(old.ino)?;
        Ok(body)
    }

    /// Renames an item on the service whose deletion is held back, since something else has its
    /// name here.
    async fn move_held_aside(&self, held: &Item) -> Result<Step, EngineError> {
        let Some(remote) = &held.remote else {
            return Ok(Step::Blocked);
        };
        let _busy = InFlight::begin(self, held.ino);
        if self.store.item(held.ino)?.as_deref() != Some(held) {
            return Ok(Step::Progress);
        }
        let mark = format!(" (deletion held back {})", held.ino);
        let aside = marked_name(last_name(&remote.name), &mark);
        let patch = ItemPatch {
            name: Some(name::encode(&aside)),
            ..ItemPatch::default()
        };
        let drive = &self.config.drive.id;
        match self
            .graph
            .update_item(drive, &remote.id, &patch, link_tag(remote))
            .await
        {
            Ok(there) => {
                self.store.write(|tx| {
                    let Some(mut now) = tx.item(held.ino)? else {
                        return Ok(());
                    };
                    if let Some(remote) = &mut now.remote {
                        remote.name = aside;
                        remote.etag = there.etag.clone().or(remote.etag.take());
                    }
                    tx.update_item(&now)
                })?;
                Ok(Step::Progress)
            }
            Err(error) if error.is_not_found() => self.item_gone(held, error).await,
            Err(error) => Err(error.into()),
        }
    }
}
