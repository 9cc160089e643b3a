//! What serves the folders of other drives that a mount shows: an engine each, whose state and cache
//! lie in those of the mount.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::{DriveId, DriveKind, kill_point};
use onedrivefs_store::{Slot, WhichFolder, has_work, which_folder};
use onedrivefs_sync::{DriveIdentity, Engine, EngineConfig, EngineError, Oneself};
use onedrivefs_vfs::{Nursery, Vfs, VfsOptions};
use tokio::runtime::Handle;

use crate::output::printable;
use crate::paths::component;

/// Holds what belongs to folders of other drives, in the directories of the mount's own drive.
const FOLLOWED: &str = "followed";

/// How long deletions rest after the last one. Whoever removes a shortcut with `rm -r` deletes what
/// is in it first; by then it shows that only the shortcut was meant. Longer than a listing takes
/// that such a program may wait for.
const DELETION_REST: Duration = Duration::from_secs(20);

/// Serves folders of other drives.
pub(crate) struct Folders {
    /// As the mount's own drive is served.
    config: EngineConfig,
    graph: onedrivefs_graph::GraphClient,
    options: VfsOptions,
    read_only: bool,
    /// Whether what the root shows cannot be removed from there.
    for_good: bool,
    runtime: Handle,
}

impl Folders {
    /// Beside an engine, with its settings. What its root shows `for_good` cannot be removed by mistake.
    pub(crate) fn new(
        engine: &Engine,
        options: VfsOptions,
        read_only: bool,
        for_good: bool,
    ) -> Self {
        Self {
            config: engine.config.clone(),
            graph: engine.graph.clone(),
            options,
            read_only,
            for_good,
            runtime: Handle::current(),
        }
    }

    fn state(&self, slot: &Slot) -> PathBuf {
        self.config.state_dir.join(FOLLOWED).join(name_of(slot))
    }

    fn cache(&self, slot: &Slot) -> PathBuf {
        self.config.cache_dir.join(FOLLOWED).join(name_of(slot))
    }

    /// How long deletions rest in a folder.
    fn rest_in(&self, slot: &Slot) -> Duration {
        if self.for_good && slot.above.is_empty() {
            Duration::ZERO
        } else {
            DELETION_REST
        }
    }

    fn config_of(&self, slot: &Slot) -> EngineConfig {
        let drive = DriveIdentity {
            id: slot.drive.clone(),
            kind: slot.kind.unwrap_or_else(|| kind_of(&slot.drive)),
            name: slot.drive.to_string(),
        };
        EngineConfig {
            state_dir: self.state(slot),
            cache_dir: self.cache(slot),
            drive,
            folder: Some(slot.item.clone()).filter(|item| !item.as_str().is_empty()),
            read_only: self.config.read_only || self.read_only,
            groups: false,
            deletion_rest: self.rest_in(slot),
            // Of what is in it anybody may be the author, also where that is not told.
            oneself: Oneself {
                own_drive: false,
                ..self.config.oneself.clone()
            },
            ..self.config.clone()
        }
    }
}

/// The kind of a drive that nobody told, going by its id.
fn kind_of(drive: &DriveId) -> DriveKind {
    if drive.as_str().starts_with("b!") {
        DriveKind::Business
    } else {
        DriveKind::Personal
    }
}

/// The name of the directories of a folder. It does not depend on the slot's number, so that a
/// database that is built anew finds them again.
fn name_of(slot: &Slot) -> String {
    component(&slot.key())
}

impl Nursery for Folders {
    fn plant(&self, slot: &Slot) -> Result<Arc<Vfs>, EngineError> {
        let config = self.config_of(slot);
        let engine = Engine::open(config, self.graph.clone(), self.runtime.clone())?;
        engine.store.write(|tx| tx.note_which(slot))?;
        for rescue in engine.rescues() {
            tracing::warn!(
                kept = %printable(&rescue.kept.display().to_string()),
                files = rescue.files,
                "The state of a folder of another drive could not be used and was built anew."
            );
        }
        let (options, runtime) = (self.options, self.runtime.clone());
        Ok(Vfs::in_slot(slot.number, engine, options, runtime))
    }

    fn has_work(&self, slot: &Slot) -> bool {
        let state = self.state(slot);
        // What a power cut left in doubt goes nowhere by itself.
        state.is_dir() && (has_work(&state.join("meta.db")) || state.join("recovered").is_dir())
    }

    fn strays(&self, slots: &[Slot]) -> Vec<WhichFolder> {
        let known: HashSet<String> = slots.iter().map(name_of).collect();
        let entries = std::fs::read_dir(self.config.state_dir.join(FOLLOWED));
        let databases = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                !entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| known.contains(name))
            })
            .map(|entry| entry.path().join("meta.db"));
        databases
            .filter(|database| database.is_file() && has_work(database))
            .filter_map(|database| which_folder(&database))
            .collect()
    }

    fn clear(&self, slot: &Slot) -> io::Result<()> {
        kill_point("before-slot-clear");
        remove(&self.state(slot))?;
        kill_point("slot-state-removed");
        remove(&self.cache(slot))?;
        kill_point("slot-cache-removed");
        Ok(())
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
