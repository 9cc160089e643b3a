//! What only this machine has of a folder of another drive that nothing shows any more: files that never
//! leave this machine, and what a power cut left in doubt there. Its state is about to be removed.

use std::fs;
use std::path::{Path, PathBuf};

use onedrivefs_content::BodyId;
use onedrivefs_core::{Timestamp, kill_point};
use onedrivefs_store::{ConflictRow, StoreError};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::power;

/// Conflicts that are looked through.
const ALL: u32 = u32::MAX;

impl Engine {
    /// Keeps the files of another engine that the service does not get, beside what a power cut left in
    /// doubt here, and has `status` name them. Doing it again changes nothing. `mark` tells the other
    /// engine from further ones.
    ///
    /// # Errors
    /// Errors of the disk and the database; what was not kept by then is still where it was.
    pub fn take_over(&self, other: &Self, mark: u32) -> Result<(), EngineError> {
        for (path, body) in other.files_only_here()? {
            let name = path.rsplit('/').next().unwrap_or_default();
            let name = power::kept_name(&format!("{mark}-{:x}", body.0), name);
            let kept = self.keep_as(&path, &name)?;
            other.bodies.content().set_aside(body, &kept)?;
            kill_point("local-file-kept");
        }
        for (path, doubtful) in other.doubtful_files()? {
            let name = doubtful.file_name().unwrap_or_default().to_string_lossy();
            let kept = self.keep_as(&path, &format!("{mark}-{name}"))?;
            fs::rename(&doubtful, &kept).map_err(|source| EngineError::State {
                path: doubtful,
                source,
            })?;
        }
        Ok(())
    }

    /// Files with content that never leave this machine: their paths and bodies.
    fn files_only_here(&self) -> Result<Vec<(String, BodyId)>, StoreError> {
        self.store.read(|r| {
            let mut files = Vec::new();
            for row in r.spooled_bodies()?.into_iter().filter(|row| row.size > 0) {
                let item = r.item(row.ino)?;
                let owned = item.filter(|item| item.local_only && item.body == Some(row.id));
                if owned.is_some_and(|item| item.parent.is_some()) {
                    files.push((r.path(row.ino)?, BodyId(row.id)));
                }
            }
            Ok(files)
        })
    }

    /// What a power cut left in doubt: where it was, and where it is kept.
    fn doubtful_files(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        let conflicts = self.store.read(|r| r.conflicts(ALL))?.into_iter();
        let kept = conflicts.map(|row| (row.path, PathBuf::from(row.copy)));
        Ok(kept
            .filter(|(_, kept)| kept.is_absolute() && kept.exists())
            .collect())
    }

    /// Names a file that is about to be kept: one that is kept and not named would be found by nobody.
    fn keep_as(&self, path: &str, name: &str) -> Result<PathBuf, EngineError> {
        let kept = power::kept_folder(&self.config.state_dir)?.join(name);
        let copy = kept.display().to_string();
        tracing::warn!(
            path,
            kept = copy,
            "A file that was only here is kept outside of the mount."
        );
        let named = |known: &[ConflictRow]| known.iter().any(|row| Path::new(&row.copy) == kept);
        self.store.write(|tx| {
            if named(&tx.conflicts(ALL)?) {
                return Ok(());
            }
            tx.add_conflict(&ConflictRow {
                path: path.to_owned(),
                copy,
                at: Timestamp::now(),
            })
        })?;
        Ok(kept)
    }
}
