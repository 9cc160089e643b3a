//! Rounds on drives that have no change feed: a walk through all folders takes its place.
//!
//! What the walk finds goes through the same stage as the pages of a feed, as an enumeration of the
//! whole drive: an item that it does not find is asked for by id before it is taken for deleted.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, ItemId, ItemKind, RemoteItem};
use onedrivefs_graph::{Disposition, GraphError};
use onedrivefs_store::StoreError;

use crate::delta::{META_ENUMERATING, META_STAGED_LINK};
use crate::engine::{Engine, META_DELTA_LINK};
use crate::enumerate::is_unreadable;
use crate::error::EngineError;

/// Stands in the place of a delta link after a walk.
pub(crate) const WALKED: &str = "walked";

/// Shortest pause between two walks: each costs a request per folder.
pub(crate) const WALK_EVERY: Duration = Duration::from_secs(300);

impl Engine {
    /// Tells whether the last round was a walk, so that there is no link to go on with.
    pub(crate) fn has_walked(&self) -> Result<bool, StoreError> {
        self.store
            .read(|r| Ok(r.meta(META_DELTA_LINK)?.as_deref() == Some(WALKED)))
    }

    /// Learns from a refused change feed whether folders have to be walked from now on.
    pub(crate) fn learn_walking(&self, error: &GraphError) -> bool {
        let walks = error.disposition() == Disposition::Unsupported;
        if walks && !self.walks.swap(true, Ordering::Relaxed) {
            tracing::info!(%error, "The drive has no change feed. Its folders are listed instead.");
        }
        walks
    }

    /// Lists all folders of the drive into the stage.
    pub(crate) async fn walk(&self) -> Result<(), EngineError> {
        self.check_folder().await?;
        let first = self.store.read(|r| r.meta(META_DELTA_LINK))?.is_none();
        self.begin_enumeration()?;
        *self.round_began.lock() = Instant::now();
        self.enumerating.store(first, Ordering::Relaxed);
        let root = self.store.item(Ino::ROOT)?;
        let mut folders: VecDeque<ItemId> = root
            .iter()
            .filter_map(|item| item.item_id().cloned())
            .collect();
        while let Some(folder) = folders.pop_front() {
            let items = self.list_folder(&folder).await?;
            let inside = items.iter().filter(|item| item.kind == ItemKind::Folder);
            folders.extend(inside.map(|item| item.id.clone()));
            self.store.write(|tx| tx.stage(&items))?;
        }
        self.store.write(|tx| {
            tx.set_meta(META_ENUMERATING, Some("1"))?;
            tx.set_meta(META_STAGED_LINK, Some(WALKED))
        })?;
        Ok(())
    }

    /// All items of a folder.
    pub(crate) async fn list_folder(
        &self,
        folder: &ItemId,
    ) -> Result<Vec<RemoteItem>, EngineError> {
        let mut items = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let drive = &self.config.drive.id;
            let page = match self
                .graph
                .children_page(drive, folder, next.as_deref())
                .await
            {
                Ok(page) => page,
                // Deleted since its own folder was listed, or never opened to anybody.
                Err(error) if error.is_not_found() || is_unreadable(&error) => return Ok(items),
                Err(error) => return Err(error.into()),
            };
            items.extend(page.items.into_iter().map(|item| RemoteItem {
                parent: Some(folder.clone()),
                ..item
            }));
            next = page.next;
            if next.is_none() {
                return Ok(items);
            }
        }
    }
}
