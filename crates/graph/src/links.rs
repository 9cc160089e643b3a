//! Items that stand for a file of another drive: shortcuts to files, and files that others shared.
//!
//! Such an item has two identities. Its own id is what is renamed, moved and deleted, which never
//! touches the file. Content, tags, size and times are the file's. To the layers above both are one
//! item, which is put together and taken apart here and nowhere else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use onedrivefs_core::{DriveId, ItemId, ItemKind, LinkTarget, RemoteItem, ShortcutTarget};
use parking_lot::RwLock;

use crate::client::GraphClient;
use crate::error::GraphError;

/// How long an answer holds that tells what may be done with a file.
const RIGHTS_LAST: Duration = Duration::from_secs(3600);

/// How long a page waits for the files that its shortcuts lead to.
const PAGE_PATIENCE: Duration = Duration::from_secs(5);

/// How many of them are asked for at a time.
const ASKED_AT_ONCE: usize = 4;

/// What is known of such items, by drive and id.
#[derive(Default)]
pub(crate) struct Links(RwLock<HashMap<(String, String), Link>>);

/// Where the content of an item is.
#[derive(Clone)]
struct Link {
    target: LinkTarget,
    /// Whether the service has no such item, only the file.
    alone: bool,
    /// When it was asked what may be done with the file.
    asked: Option<Instant>,
}

impl Links {
    fn get(&self, drive: &DriveId, item: &ItemId) -> Option<Link> {
        let known = self.0.read();
        if known.is_empty() {
            return None;
        }
        known.get(&(drive.key(), item.key())).cloned()
    }

    /// What is known of an item, if that leads to this file.
    fn to(&self, drive: &DriveId, item: &ItemId, file: (&DriveId, &ItemId)) -> Option<Link> {
        let known = self.get(drive, item);
        known.filter(|known| (&known.target.drive, &known.target.item) == file)
    }

    fn put(&self, drive: &DriveId, item: &ItemId, link: Link) {
        self.0.write().insert((drive.key(), item.key()), link);
    }
}

impl GraphClient {
    /// Notes that an item stands for a file of another drive, as was found out before. One that is
    /// `alone` is known to this machine only: the service has the file, and nothing that leads to it.
    pub fn know_link(&self, drive: &DriveId, item: &ItemId, target: LinkTarget, alone: bool) {
        let known = self.links.to(drive, item, (&target.drive, &target.item));
        // What was asked since is newer.
        let link = known.map_or(
            Link {
                target,
                alone,
                asked: None,
            },
            |known| Link { alone, ..known },
        );
        self.links.put(drive, item, link);
    }

    /// The file of another drive that an item stands for.
    #[must_use]
    pub fn link(&self, drive: &DriveId, item: &ItemId) -> Option<LinkTarget> {
        self.links.get(drive, item).map(|link| link.target)
    }

    pub(crate) fn is_link_alone(&self, drive: &DriveId, item: &ItemId) -> bool {
        self.links.get(drive, item).is_some_and(|link| link.alone)
    }

    /// Where the content of an item is.
    pub(crate) fn content_of(&self, drive: &DriveId, item: &ItemId) -> (DriveId, ItemId) {
        match self.link(drive, item) {
            Some(target) => (target.drive, target.item),
            None => (drive.clone(), item.clone()),
        }
    }

    /// An answer about the content of an item, as one about the item: if it stands for a file of
    /// another drive, where that file is and what it is called there says nothing about it.
    #[must_use]
    pub fn as_link(&self, drive: &DriveId, item: &ItemId, told: RemoteItem) -> RemoteItem {
        let Some(link) = self.links.get(drive, item) else {
            return told;
        };
        RemoteItem {
            id: item.clone(),
            parent: None,
            drive: None,
            name: told.name.filter(|_| link.alone),
            link: Some(link.target),
            ..told
        }
    }

    /// The file that an item is known to stand for, as [`Self::as_link`] describes it.
    ///
    /// # Errors
    /// As every request; not found when the file is gone.
    pub async fn linked_file(
        &self,
        drive: &DriveId,
        item: &ItemId,
    ) -> Result<RemoteItem, GraphError> {
        let (there, id) = self.content_of(drive, item);
        let told = self.item_itself(&there, &id).await?;
        if let Some(link) = self.links.get(drive, item) {
            let link = self.with_rights(link).await;
            self.links.put(drive, item, link);
        }
        Ok(self.as_link(drive, item, told))
    }

    /// An item as it was told, or if it is a shortcut to a file, the file in its place. A file that
    /// cannot be seen leaves the shortcut.
    pub(crate) async fn with_link(
        &self,
        drive: &DriveId,
        item: RemoteItem,
    ) -> Result<RemoteItem, GraphError> {
        let target = match &item.kind {
            ItemKind::Shortcut(target) if !target.is_folder && !item.deleted => target.clone(),
            _ => return Ok(item),
        };
        let file = match self.item_itself(&target.drive, &target.item).await {
            Ok(file) => file,
            Err(error) if error.is_not_found() || error.status() == Some(403) => return Ok(item),
            Err(error) => return Err(error),
        };
        match file.kind {
            ItemKind::File => {}
            // Not every list tells what a shortcut leads to.
            ItemKind::Folder | ItemKind::Package => {
                let kind = ItemKind::Shortcut(ShortcutTarget {
                    is_folder: true,
                    ..target
                });
                return Ok(RemoteItem { kind, ..item });
            }
            ItemKind::Shortcut(_) | ItemKind::Unknown => return Ok(item),
        }
        let link = self.learn_link(drive, &item.id, target).await;
        Ok(RemoteItem {
            id: item.id,
            parent: item.parent,
            drive: item.drive,
            name: item.name,
            is_root: false,
            link: Some(link),
            ..file
        })
    }

    /// The items of a page, as [`Self::with_link`] gives them. Another drive in trouble does not hold
    /// up this one: a shortcut that it does not answer for stays one, which says so.
    pub(crate) async fn with_links(
        &self,
        drive: &DriveId,
        items: Vec<RemoteItem>,
    ) -> Vec<RemoteItem> {
        let deadline = Instant::now() + PAGE_PATIENCE;
        stream::iter(items)
            .map(|item| self.with_link_by(deadline, drive, item))
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await
    }

    async fn with_link_by(
        &self,
        deadline: Instant,
        drive: &DriveId,
        item: RemoteItem,
    ) -> RemoteItem {
        let ItemKind::Shortcut(target) = &item.kind else {
            return item;
        };
        let unanswered = ShortcutTarget {
            unanswered: true,
            ..target.clone()
        };
        let asked = self.with_link(drive, item.clone());
        match tokio::time::timeout_at(deadline.into(), asked).await {
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => {
                tracing::debug!(%error, item = %item.id, "A shortcut's file could not be asked for.");
            }
            Err(_elapsed) => {
                tracing::debug!(item = %item.id, "A shortcut's file was not told in time.");
            }
        }
        let kind = ItemKind::Shortcut(unanswered);
        RemoteItem { kind, ..item }
    }

    /// Notes where a shortcut leads, and what may be done there.
    async fn learn_link(
        &self,
        drive: &DriveId,
        item: &ItemId,
        target: ShortcutTarget,
    ) -> LinkTarget {
        let known = self.links.to(drive, item, (&target.drive, &target.item));
        let link = known.unwrap_or(Link {
            target: LinkTarget {
                drive: target.drive,
                item: target.item,
                read_only: false,
            },
            alone: false,
            asked: None,
        });
        let link = self.with_rights(link).await;
        let target = link.target.clone();
        self.links.put(drive, item, link);
        target
    }

    /// Asks what may be done with a file, if that was not asked lately. Where the service does not
    /// tell, changes are tried.
    async fn with_rights(&self, mut link: Link) -> Link {
        if link
            .asked
            .is_some_and(|asked| asked.elapsed() < RIGHTS_LAST)
        {
            return link;
        }
        link.asked = Some(Instant::now());
        match self
            .is_read_only(&link.target.drive, &link.target.item)
            .await
        {
            Ok(read_only) => link.target.read_only = read_only,
            Err(error) => {
                tracing::debug!(%error, "The service does not tell what may be done with a file.");
            }
        }
        link
    }
}
