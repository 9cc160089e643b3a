//! A folder of a drive in the place of its root.
//!
//! What is not in that folder does not exist here: an item that somebody moves out of it vanishes like
//! one that was deleted, and one that comes into it appears. Whether an item is in it only the service
//! knows, for any folder above the item may have been moved by others a moment ago. So it is asked
//! before anything is done to an item, most of all before a deletion is sent: what was moved out of the
//! folder is none of this mount's business any more.
//!
//! Feeds of a folder are not to be had on every drive, and some services answer with that of the whole
//! drive. Both come down to the same here, since all that comes is looked at by the folder it is in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, ItemId, ItemKind, RemoteItem};
use onedrivefs_graph::{DeltaFrom, Disposition, GraphError};
use onedrivefs_store::{Item, Reader, StoreError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::delta::tombstone_for;
use crate::engine::Engine;
use crate::error::EngineError;

/// How long a folder that was found inside counts as being inside. As long as a look at what is to be
/// deleted holds good.
const INSIDE_LASTS: Duration = Duration::from_secs(3);

/// Deepest chain of folders that is followed; the service allows far less.
const DEPTH_MAX: usize = 4096;

/// Staged items looked at in one go.
const CHUNK: u32 = 500;

/// Where the store has the folder that took the place of the one that was mounted first.
const META_FOLDER: &str = "folder";

/// What is known of the folder that is mounted.
#[derive(Default)]
pub(crate) struct Scope {
    /// The folder, unless a whole drive is mounted.
    folder: RwLock<Option<ItemId>>,
    /// Folders that were found to be inside, and when.
    inside: Mutex<HashMap<String, Instant>>,
    /// Whether the folder is gone, or not shared any more.
    gone: watch::Sender<bool>,
    /// Whether only the whole drive has a feed.
    whole_feed: AtomicBool,
}

impl Scope {
    /// The scope of a mount that begins at a folder, or at the root of its drive.
    fn of(folder: Option<ItemId>) -> Self {
        Self {
            folder: RwLock::new(folder),
            ..Self::default()
        }
    }

    /// The same, with the folder that took the place of the first one meanwhile.
    pub(crate) fn remembered(r: &Reader<'_>, first: Option<ItemId>) -> Result<Self, StoreError> {
        let replaced = r.meta(META_FOLDER)?.map(ItemId::new);
        Ok(Self::of(first.map(|first| replaced.unwrap_or(first))))
    }

    fn is_inside(&self, id: &ItemId) -> bool {
        let mut inside = self.inside.lock();
        inside.retain(|_, found| found.elapsed() < INSIDE_LASTS);
        inside.contains_key(&id.key())
    }

    fn note_inside(&self, ids: &[ItemId]) {
        let now = Instant::now();
        let ids = ids.iter().map(|id| (id.key(), now));
        self.inside.lock().extend(ids);
    }
}

/// Tells whether something is withheld: gone, or out of what this sign-in may see.
pub(crate) fn is_withheld(error: &GraphError) -> bool {
    error.is_not_found() || error.status() == Some(403)
}

/// The mounted folder, as the root that it is here.
fn as_root(folder: RemoteItem) -> RemoteItem {
    RemoteItem {
        is_root: true,
        parent: None,
        ..folder
    }
}

impl Engine {
    /// The folder that is mounted in the place of the drive's root.
    #[must_use]
    pub fn mounted_folder(&self) -> Option<ItemId> {
        self.scope.folder.read().clone()
    }

    /// Goes on with another folder in the place of the one that is mounted, which is gone: it was made
    /// anew. What is here of the old one goes as if it was deleted; what was not sent goes into the new
    /// one.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn replace_folder(&self, folder: ItemId) -> Result<(), EngineError> {
        let _round = self.rounds.lock().await;
        self.begin_enumeration()?;
        self.store.write(|tx| {
            tx.set_meta(META_FOLDER, Some(folder.as_str()))?;
            if let Some(mut root) = tx.item(Ino::ROOT)? {
                root.remote = None;
                tx.update_item(&root)?;
            }
            tx.hurry_journal()
        })?;
        tracing::info!("The mounted folder was made anew; the mount goes on with the new one");
        *self.scope.folder.write() = Some(folder);
        self.scope.inside.lock().clear();
        self.wake_freshness();
        self.wake_uploader();
        Ok(())
    }

    /// Whether the folder that is mounted is gone on the service, or not shared any more.
    #[must_use]
    pub fn is_folder_gone(&self) -> bool {
        *self.scope.gone.borrow()
    }

    /// Waits until the folder that is mounted is gone.
    pub async fn until_folder_gone(&self) {
        // The sender lives as long as the engine.
        drop(self.scope.gone.subscribe().wait_for(|gone| *gone).await);
    }

    /// Reads an item by its id. One that is not in the mounted folder does not exist here.
    pub(crate) async fn find_item(&self, id: &ItemId) -> Result<RemoteItem, GraphError> {
        let found = self.graph.item(&self.config.drive.id, id).await;
        let Some(folder) = self.mounted_folder() else {
            return found;
        };
        match found {
            Ok(there) if there.id == folder => {
                self.scope.gone.send_replace(false);
                Ok(as_root(there))
            }
            Ok(there) if self.is_inside(&there, &folder).await? => Ok(there),
            Ok(_) => Err(GraphError::Outside),
            Err(error) if is_withheld(&error) => {
                self.check_folder().await?;
                Err(GraphError::Outside)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the mounted folder can be had.
    pub(crate) async fn check_folder(&self) -> Result<(), GraphError> {
        let Some(folder) = self.mounted_folder() else {
            return Ok(());
        };
        match self.graph.item(&self.config.drive.id, &folder).await {
            Ok(_) => {
                self.scope.gone.send_replace(false);
                Ok(())
            }
            Err(error) if is_withheld(&error) => Err(self.note_gone(&error)),
            Err(error) => Err(error),
        }
    }

    /// What a refusal means: that the mounted folder as a whole is not shared any more, or itself.
    pub(crate) async fn explain_refusal(&self, error: EngineError) -> EngineError {
        let refused = matches!(&error, EngineError::Graph(error) if error.status() == Some(403));
        if !refused {
            return error;
        }
        match self.check_folder().await {
            Err(GraphError::FolderGone) => GraphError::FolderGone.into(),
            _ => error,
        }
    }

    fn note_gone(&self, error: &dyn std::fmt::Display) -> GraphError {
        if !self.scope.gone.send_replace(true) {
            tracing::warn!(
                %error,
                "The mounted folder is gone, or not shared any more; what is here stays"
            );
        }
        GraphError::FolderGone
    }

    /// Tells whether an item that was just read is in the mounted folder, however deep.
    async fn is_inside(&self, item: &RemoteItem, folder: &ItemId) -> Result<bool, GraphError> {
        let mut passed = Vec::new();
        let mut parent = item.parent.clone();
        while let Some(id) = parent.filter(|_| passed.len() < DEPTH_MAX) {
            if id == *folder || self.scope.is_inside(&id) {
                self.scope.note_inside(&passed);
                return Ok(true);
            }
            let above = match self.graph.item(&self.config.drive.id, &id).await {
                Ok(above) => above,
                Err(error) if is_withheld(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            passed.push(id);
            parent = above.parent.filter(|_| !above.is_root);
        }
        Ok(false)
    }

    /// Where a round begins that has no link to go on with.
    pub(crate) fn feed(&self) -> DeltaFrom {
        match self.mounted_folder() {
            Some(folder) if !self.scope.whole_feed.load(Ordering::Relaxed) => {
                DeltaFrom::Folder(folder)
            }
            _ => DeltaFrom::Start,
        }
    }

    /// Learns from a refused feed of the mounted folder that the one of the whole drive has to do.
    pub(crate) fn learn_whole_feed(&self, error: &GraphError) -> bool {
        self.scope.folder.read().is_some()
            && error.disposition() == Disposition::Unsupported
            && !self.scope.whole_feed.swap(true, Ordering::Relaxed)
    }

    /// Tells whether a refusal means that not even the whole drive has a feed for this sign-in.
    pub(crate) fn has_no_feed(&self, error: &GraphError) -> bool {
        self.scope.whole_feed.load(Ordering::Relaxed) && is_withheld(error)
    }

    /// What of a page concerns this mount: not the root of the drive, and the mounted folder as root.
    pub(crate) fn admit(&self, items: Vec<RemoteItem>) -> Result<Vec<RemoteItem>, GraphError> {
        let Some(folder) = self.mounted_folder() else {
            return Ok(items);
        };
        let mut admitted = Vec::with_capacity(items.len());
        for item in items {
            if item.id == folder {
                if item.deleted {
                    return Err(self.note_gone(&"it was deleted"));
                }
                admitted.push(as_root(item));
            } else if !item.is_root {
                admitted.push(item);
            }
        }
        self.scope.gone.send_replace(false);
        Ok(admitted)
    }

    /// Lists folders that a round brings and that are not known here: one that was moved into the
    /// mounted folder comes alone where the feed is that of the whole drive.
    pub(crate) async fn list_arrived(&self) -> Result<(), EngineError> {
        if self.scope.folder.read().is_none() {
            return Ok(());
        }
        let mut arrived: VecDeque<ItemId> = self.store.read(|r| self.arriving(r))?.into();
        let mut seen: HashSet<String> = arrived.iter().map(ItemId::key).collect();
        while let Some(folder) = arrived.pop_front() {
            let items = self.list_folder(&folder).await?;
            let folders = items.iter().filter(|item| item.kind == ItemKind::Folder);
            let new = folders.filter(|item| seen.insert(item.id.key()));
            arrived.extend(new.map(|item| item.id.clone()));
            self.store.write(|tx| tx.stage(&items))?;
        }
        Ok(())
    }

    /// Staged folders that are not known here and that are put into one that is, or into each other.
    fn arriving(&self, r: &Reader<'_>) -> Result<Vec<ItemId>, StoreError> {
        let mut unknown = Vec::new();
        for item in staged(r)? {
            let is_new = item.kind == ItemKind::Folder
                && !item.deleted
                && !item.is_root
                && r.item_by_id(&item.id)?.is_none();
            if is_new && !self.is_being_made(r, &item)? {
                unknown.push(item);
            }
        }
        let mut arrived: Vec<ItemId> = Vec::new();
        let mut keys = HashSet::new();
        loop {
            let before = arrived.len();
            for item in &unknown {
                let Some(parent) = &item.parent else { continue };
                let lands = keys.contains(&parent.key()) || r.item_by_id(parent)?.is_some();
                if lands && keys.insert(item.id.key()) {
                    arrived.push(item.id.clone());
                }
            }
            if arrived.len() == before {
                return Ok(arrived);
            }
        }
    }

    /// After a round was applied as far as it can be: what is left is not in the mounted folder, or
    /// was, and left it.
    pub(crate) async fn settle_strays(&self, whole: bool) -> Result<(), EngineError> {
        if self.scope.folder.read().is_none() {
            return Ok(());
        }
        // Where what was left belongs, by folder: most of it is in few.
        let mut inside: HashMap<String, bool> = HashMap::new();
        let mut position = 0;
        while let Some((last, part)) = self.store.read(|r| left(r, position))? {
            position = last + 1;
            for (known, item) in part {
                let stays = match (&known, &item.parent) {
                    // An enumeration tells of every folder that is inside.
                    (None, _) if whole => false,
                    (None, Some(parent)) if inside.contains_key(&parent.key()) => {
                        inside[&parent.key()]
                    }
                    _ => match self.find_item(&item.id).await {
                        Ok(_) => true,
                        Err(error) if error.is_not_found() => false,
                        Err(error) => return Err(error.into()),
                    },
                };
                if let Some(parent) = item.parent.as_ref().filter(|_| known.is_none()) {
                    inside.insert(parent.key(), stays);
                }
                if !stays {
                    self.store.write(|tx| match &known {
                        Some(known) => tx.stage(&[tombstone_for(known)]),
                        None => tx.unstage_item(&item.id),
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// The next staged items that exist, each with what is known of it here, and the position of the last
/// one looked at.
#[allow(clippy::type_complexity, reason = "it is taken apart at once")]
fn left(
    r: &Reader<'_>,
    position: u64,
) -> Result<Option<(u64, Vec<(Option<Item>, RemoteItem)>)>, StoreError> {
    let part = r.staged(position, CHUNK)?;
    let Some(&(last, _)) = part.last() else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for (_, item) in part.into_iter().filter(|(_, item)| !item.deleted) {
        found.push((r.item_by_id(&item.id)?, item));
    }
    Ok(Some((last, found)))
}

/// Everything that is staged.
fn staged(r: &Reader<'_>) -> Result<Vec<RemoteItem>, StoreError> {
    let mut all = Vec::new();
    let mut position = 0;
    loop {
        let part = r.staged(position, CHUNK)?;
        let Some(&(last, _)) = part.last() else {
            return Ok(all);
        };
        position = last + 1;
        all.extend(part.into_iter().map(|(_, item)| item));
    }
}
