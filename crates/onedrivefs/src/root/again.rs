//! A folder that is mounted by its path, deleted, and made anew: another folder to the service, and the
//! same one to whoever wrote the path.
//!
//! As long as the folder that was found first exists it is the one that is meant, wherever it is moved
//! to. Only when it is gone does the path count again.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::DriveId;
use onedrivefs_graph::GraphClient;
use onedrivefs_sync::Engine;

use super::{BY_ID, Root, Selection, Unready};
use crate::account::AccountRecord;

/// First pause before a folder at the path is asked for; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Longest pause between two requests for a folder at the path.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Looks for a folder at the path of the one that is gone.
#[derive(Clone, Debug)]
pub(crate) struct Again {
    selection: Selection,
    record: AccountRecord,
}

impl Again {
    /// For what was selected by a path; nothing else can be found again.
    pub(crate) fn of(selection: &Selection, record: &AccountRecord) -> Option<Self> {
        let path = selection.folder.as_deref()?;
        (!path.starts_with(BY_ID)).then(|| Self {
            selection: selection.clone(),
            record: record.clone(),
        })
    }

    /// Does so whenever the folder that an engine serves is gone.
    pub(crate) async fn watch(self, engine: Arc<Engine>, graph: GraphClient, drive: DriveId) {
        let mut pause = FIRST_PAUSE;
        loop {
            engine.until_folder_gone().await;
            tokio::time::sleep(pause).await;
            if !engine.is_folder_gone() {
                pause = FIRST_PAUSE;
                continue;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self
                .selection
                .find(&graph, &self.record, Unready::Fail)
                .await
            {
                Ok(found) if found.drive.id == drive => take(&engine, found).await,
                Ok(_) => tracing::debug!("The path leads into another drive now"),
                Err(failure) => {
                    tracing::debug!(why = failure.sentence(), "No other folder was found");
                }
            }
        }
    }
}

/// Goes on with what was found, if it is another folder.
async fn take(engine: &Engine, found: Root) {
    let Some(folder) = found.folder.map(|folder| folder.id) else {
        return;
    };
    if engine.mounted_folder().as_ref() == Some(&folder) {
        return;
    }
    if let Err(error) = engine.replace_folder(folder).await {
        tracing::warn!(%error, "The folder that was made anew cannot be taken yet");
    }
}
