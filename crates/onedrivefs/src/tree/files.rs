//! Single files in a tree: each is a row of its root's database that stands for a file of a drive.

use std::collections::HashSet;

use onedrivefs_core::{DriveId, ItemId, LinkTarget};
use onedrivefs_store::StoreError;

use super::{Leaf, Looked, ROOT, Tree, rows};
use crate::account::FolderRecord;

impl Tree {
    /// Shows the single files that were found, after those that were lost are gone. Tells whether
    /// nothing was left out.
    pub(super) async fn show_files(&self, looked: &Looked) -> bool {
        let mut complete = self.look_for_lost_files(looked).await;
        for leaf in looked.leaves.iter().filter(|leaf| leaf.is_file) {
            complete &= self.show_file(leaf).await;
        }
        complete
    }

    /// Shows a single file. Tells whether that went well, also if there is nothing to show.
    pub(super) async fn show_file(&self, leaf: &Leaf) -> bool {
        let Some(item) = leaf.folder.clone() else {
            return true;
        };
        let mut changes = Vec::new();
        let folder = self.engine.store.write(|tx| {
            let folder = rows::ensure_folders(tx, &leaf.folders, &mut changes)?;
            let folder = tx.item(folder)?;
            Ok::<_, StoreError>(folder.and_then(|folder| folder.item_id().cloned()))
        });
        self.engine.tell_kernel(changes);
        let folder = match folder {
            Ok(folder) => folder.unwrap_or_else(|| ItemId::new(ROOT)),
            Err(error) => {
                tracing::warn!(%error, "What there is could not be noted");
                return false;
            }
        };
        let target = LinkTarget {
            drive: leaf.drive.clone(),
            item,
            read_only: false,
        };
        let id = ItemId::new(&*leaf.key);
        match self.engine.show_file(&folder, &id, target).await {
            Ok(()) => true,
            // Not everything that is listed can be seen.
            Err(error) if error.is_denied() || error.is_not_found() => true,
            Err(error) => {
                tracing::info!(name = leaf.name, %error, "A shared file could not be shown");
                false
            }
        }
    }

    /// Looks at single files that are shown and were not found any more. Tells whether all could be
    /// asked for.
    async fn look_for_lost_files(&self, looked: &Looked) -> bool {
        if !looked.whole.contains("shared") {
            return true;
        }
        let found: HashSet<&str> = looked.leaves.iter().map(|leaf| leaf.key.as_str()).collect();
        let lost = self.engine.store.read(|r| {
            let mut lost = Vec::new();
            for (id, _) in r.links()? {
                if !found.contains(id.as_str()) {
                    lost.extend(r.item_by_id(&id)?);
                }
            }
            Ok::<_, StoreError>(lost)
        });
        for file in lost.unwrap_or_default() {
            if let Err(error) = self.engine.look_whether_gone(file.ino).await {
                tracing::debug!(%error, "A file that is not listed any more could not be asked for.");
                return false;
            }
        }
        true
    }
}

/// The only thing that is shown.
pub(super) fn only_leaf(drive: &DriveId, file: &FolderRecord) -> Leaf {
    Leaf {
        key: format!("file:{}:{}", drive.key(), file.id.key()),
        folders: Vec::new(),
        name: file.name.clone(),
        drive: drive.clone(),
        folder: Some(file.id.clone()),
        is_file: true,
        kind: None,
        quota: None,
    }
}
