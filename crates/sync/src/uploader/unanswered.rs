//! Requests whose answer was lost.
//!
//! Before a request that makes something is sent, it is written down what it makes. If no answer
//! comes, be it that it was lost or that this daemon was killed, what is found on the service later
//! is recognised as ours: it is neither a change of somebody else nor to be made a second time, and
//! it does not stay behind when it was unlinked or renamed here meanwhile.

use std::time::Instant;

use onedrivefs_core::{Ino, ItemId, NameKey, QuickXorHash, name};
use onedrivefs_store::{Item, StoreError, Unanswered};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::stored_name;

impl Engine {
    /// Writes down what a request that is about to be sent makes, so that it is known even after a
    /// power cut. Tells whether it is to be sent: not if the inode stands for another item by now,
    /// which a save by rename gave it. What it made could not be told from what others made.
    pub(super) async fn note_unanswered(
        &self,
        item: &Item,
        size: Option<u64>,
        hash: Option<QuickXorHash>,
    ) -> Result<bool, EngineError> {
        let sent = Unanswered {
            ino: item.ino,
            item: item.item_id().cloned(),
            parent: item.parent.unwrap_or(Ino::ROOT),
            name: stored_name(item),
            size,
            hash,
        };
        let noted = self.store.write(|tx| {
            let now = tx.item(item.ino)?;
            if now.is_none_or(|now| now.item_id() != item.item_id()) {
                return Ok(false);
            }
            tx.add_unanswered(&sent)?;
            Ok::<_, StoreError>(true)
        })?;
        if noted {
            self.barrier().await?;
        }
        Ok(noted)
    }

    /// Tells whether an item may have other content on the service than was last seen, because a
    /// request that replaces it was not answered: that content here is the same as then is no reason
    /// not to send it.
    pub(super) fn is_content_in_doubt(&self, id: &ItemId) -> Result<bool, EngineError> {
        let sent = self.store.read(|r| r.unanswered_for(id))?;
        Ok(sent.iter().any(|sent| sent.size.is_some()))
    }

    /// Tells whether a request that is on its way may make what an inode stands for that is to be
    /// deleted: what it makes is found when it was answered.
    pub(super) fn is_being_made_for(&self, ino: Ino) -> Result<bool, EngineError> {
        let making: Vec<_> = self.creating.lock().values().cloned().collect();
        self.store.read(|r| {
            for sent in r.unanswered_of(ino)? {
                let folder = r.item(sent.parent)?;
                let folder = folder.and_then(|folder| folder.item_id().map(ItemId::key));
                let name = NameKey::of(&sent.name);
                if making
                    .iter()
                    .any(|(parent, made)| Some(parent) == folder.as_ref() && *made == name)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Writes down where a request that is about to be sent moves an item.
    pub(super) fn note_move(
        &self,
        item: &Item,
        id: &ItemId,
        name: &str,
    ) -> Result<(), EngineError> {
        let sent = Unanswered {
            ino: item.ino,
            item: Some(id.clone()),
            parent: item.parent.unwrap_or(Ino::ROOT),
            name: name.to_owned(),
            size: None,
            hash: None,
        };
        self.store.write(|tx| tx.add_unanswered(&sent))?;
        Ok(())
    }

    /// Looks for what earlier requests made for an inode that is not there under the name it was
    /// sent under any more. Tells whether something was found and became the inode's item.
    pub(super) async fn find_unanswered(&self, item: &Item) -> Result<bool, EngineError> {
        let sent = self.store.read(|r| r.unanswered_of(item.ino))?;
        let here = NameKey::of(&stored_name(item));
        for sent in sent {
            if item.parent == Some(sent.parent) && NameKey::of(&sent.name) == here {
                // The same request again will tell.
                continue;
            }
            let folder = self.store.item(sent.parent)?;
            let Some(folder) = folder.and_then(|folder| folder.item_id().cloned()) else {
                continue;
            };
            let name = name::encode(&sent.name);
            let drive = &self.config.drive.id;
            let asked = Instant::now();
            let found = self.graph.child_by_name(drive, &folder, &name).await?;
            tracing::debug!(
                ino = %item.ino,
                name = sent.name,
                found = found.is_some(),
                "Looked for what an unanswered request had made."
            );
            let Some(mut there) = found else {
                continue;
            };
            there.parent = Some(folder);
            self.apply_now(&[there], Some(item.ino), asked)?;
            if self
                .store
                .item(item.ino)?
                .is_some_and(|now| now.remote.is_some())
            {
                return Ok(true);
            }
        }
        let settled =
            self.store.read(|r| {
                let sent = r.unanswered_of(item.ino)?;
                Ok::<_, StoreError>(sent.iter().any(|sent| {
                    item.parent != Some(sent.parent) || NameKey::of(&sent.name) != here
                }))
            })?;
        if settled {
            self.store.write(|tx| tx.forget_unanswered(item.ino))?;
        }
        Ok(false)
    }
}
