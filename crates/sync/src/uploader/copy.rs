//! Files that are copies of what the service has: it is asked to make them itself.
//!
//! The request is written down before it is sent, since its answer may get lost. The service works in
//! the background ([`copied`](super::copied) follows it), under the address of a monitor that is in
//! the journal for as long. Whatever the service does not want to copy is uploaded like any other
//! file.

use onedrivefs_core::{DriveKind, Ino, ItemId, NameKey, RemoteItem, kill_point, name};
use onedrivefs_graph::{CopyMonitor, Disposition, OnConflict};
use onedrivefs_store::{BodyRow, Item, JournalRow, Remote, RemoteCopy, StoreError, Unanswered};

use super::Step;
use super::copied::POLL_FIRST;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::stored_name;
use crate::merge::content_changed;

/// Failed tries after which a copy is uploaded instead.
const TRIES_MAX: u32 = 3;

/// What the service has of an original by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Original {
    /// The version that the copy was made from.
    Same,
    /// Another version.
    Replaced,
    /// Nothing.
    Gone,
}

impl Engine {
    /// Asks the service to make a file that is a copy of one it has. `None` when it has to be
    /// uploaded.
    pub(super) async fn send_copy(
        &self,
        item: &Item,
        row: &JournalRow,
        body: &BodyRow,
        parent: &ItemId,
    ) -> Result<Option<Step>, EngineError> {
        let (Some(original), Some(hash)) = (body.copy_of(), body.base_hash) else {
            return Ok(None);
        };
        if row.attempts >= TRIES_MAX {
            return self.copy_is_uploaded(item, body.id, "it failed too often");
        }
        if let Some(sent) = self.copy_sent(item, body)?
            && let Some(there) = self.find_copy(&sent).await?
        {
            let copy = (body.id, body.generation);
            return self.copy_made(item, copy, &sent, &there).await.map(Some);
        }
        let drive = &self.config.drive.id;
        if self.look_at_original(body, original).await? != Original::Same {
            return self.copy_is_uploaded(item, body.id, "the original was replaced");
        }
        let noted = self.note_unanswered(item, Some(body.size), Some(hash));
        if !noted.await? {
            return Ok(Some(Step::Cancelled));
        }
        kill_point("before-copy");
        let personal = self.config.drive.kind == DriveKind::Personal;
        let begun = self
            .graph
            .copy_item(
                drive,
                original,
                &(drive.clone(), parent.clone()),
                &name::encode(&stored_name(item)),
                (!personal).then_some(OnConflict::Fail),
            )
            .await;
        let error = match begun {
            Ok(monitor) => {
                kill_point("copy-begun");
                self.note_copy(item, &monitor, body)?;
                return Ok(Some(Step::Wait(POLL_FIRST)));
            }
            Err(error) => error,
        };
        match error.disposition() {
            Disposition::Offline
            | Disposition::Retry
            | Disposition::RetryAfter(_)
            | Disposition::Reauth => Err(error.into()),
            Disposition::Conflict | Disposition::NotFound => {
                self.refused(item, Some(parent), error).await.map(Some)
            }
            _ => self.copy_is_uploaded(item, body.id, &error.to_string()),
        }
    }

    /// Has a file uploaded that was to be copied.
    pub(super) fn copy_is_uploaded(
        &self,
        item: &Item,
        body: u64,
        reason: &str,
    ) -> Result<Option<Step>, EngineError> {
        let path = self.path_of(item.ino).unwrap_or_default();
        tracing::info!(
            path,
            reason,
            "A file is uploaded instead of being copied by the service."
        );
        self.store.write(|tx| tx.forget_copied(body))?;
        Ok(None)
    }

    /// The request for this very copy, if one was sent before.
    fn copy_sent(&self, item: &Item, body: &BodyRow) -> Result<Option<Unanswered>, StoreError> {
        let key = NameKey::of(&stored_name(item));
        let here = |sent: &Unanswered| {
            Some(sent.parent) == item.parent
                && NameKey::of(&sent.name) == key
                && sent.made(Some(body.size), body.base_hash)
        };
        let sent = self.store.read(|r| r.unanswered_of(item.ino))?;
        Ok(sent.into_iter().find(here))
    }

    /// Looks for what a request for a copy made.
    pub(super) async fn find_copy(
        &self,
        sent: &Unanswered,
    ) -> Result<Option<RemoteItem>, EngineError> {
        let found = self.find_named(sent).await?;
        Ok(found.filter(|there| sent.made(there.size, there.hash)))
    }

    /// The item that has the name that a request asked for.
    pub(super) async fn find_named(
        &self,
        sent: &Unanswered,
    ) -> Result<Option<RemoteItem>, EngineError> {
        let folder = self.store.item(sent.parent)?;
        let Some(folder) = folder.and_then(|folder| folder.item_id().cloned()) else {
            return Ok(None);
        };
        let drive = &self.config.drive.id;
        let name = name::encode(&sent.name);
        let found = self.graph.child_by_name(drive, &folder, &name).await?;
        Ok(found.map(|mut there| {
            there.parent = Some(folder);
            there
        }))
    }

    /// Compares the service's version of an original with what a copy was made from.
    pub(super) async fn look_at_original(
        &self,
        body: &BodyRow,
        original: &ItemId,
    ) -> Result<Original, EngineError> {
        match self.graph.item(&self.config.drive.id, original).await {
            Ok(there) => {
                let base = Remote {
                    id: original.clone(),
                    parent: None,
                    name: String::new(),
                    etag: body.base_etag.clone(),
                    ctag: body.base_ctag.clone(),
                    hash: body.base_hash,
                    size: body.base_size,
                    mtime: there.modified.unwrap_or_default(),
                    author: None,
                };
                Ok(if content_changed(&base, &there) {
                    Original::Replaced
                } else {
                    Original::Same
                })
            }
            Err(error) if error.is_not_found() => Ok(Original::Gone),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down where to ask how a copy goes.
    fn note_copy(
        &self,
        item: &Item,
        monitor: &CopyMonitor,
        body: &BodyRow,
    ) -> Result<(), EngineError> {
        self.store.write(|tx| {
            let parent = item.parent.unwrap_or(Ino::ROOT);
            let asked = tx.unanswered_at(parent, &stored_name(item))?;
            let asked = asked
                .into_iter()
                .find(|sent| sent.made(Some(body.size), body.base_hash));
            // Meanwhile the inode may have become another item's. Then the request is that of a stray,
            // which is deleted when the copy is there. A page of changes that told of the copy before
            // leaves nothing to follow.
            let owner = asked.map(|sent| tx.journal(sent.ino)).transpose()?;
            if let Some(mut row) = owner.flatten() {
                row.copy = Some(RemoteCopy {
                    url: monitor.0.clone(),
                    body: body.id,
                    generation: body.generation,
                    polls: 0,
                });
                tx.put_journal(&row)?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }
}
