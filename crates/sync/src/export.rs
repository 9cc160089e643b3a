//! Copying the body of a parked change to a file outside of the mount.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use onedrivefs_content::Body;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::Demand;
use crate::uploader::source_of;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

impl Engine {
    /// Copies the body of this machine's version to a new file outside of the mount; returns its
    /// size in bytes. What of it was never downloaded is fetched first. When that fails nothing
    /// is left behind.
    ///
    /// # Errors
    /// `NotParked`, `NotAFile`, `Incomplete`, `Export`; errors of the disk and the database.
    pub async fn export(&self, path: &str, to: &Path) -> Result<u64, EngineError> {
        let row = self.parked_at(path)?;
        let item = self.store.item(row.ino)?;
        let Some(item) = item.filter(|item| !item.is_dir()) else {
            return Err(EngineError::NotAFile {
                path: path.to_owned(),
            });
        };
        if let Some(target) = &item.target {
            return write_new(to, |file| {
                file.write_all(target).map(|()| target.len() as u64)
            });
        }
        let row = item
            .body
            .map(|id| self.store.read(|r| r.body(id)))
            .transpose()?
            .flatten();
        let Some(row) = row else {
            if item.size > 0 {
                return Err(EngineError::NothingHere {
                    path: path.to_owned(),
                });
            }
            return write_new(to, |_| Ok(0));
        };
        let body = self
            .bodies
            .open(&row)
            .map_err(|error| EngineError::Export {
                path: to.to_owned(),
                source: io::Error::other(error),
            })?;
        let Some(body) = body else {
            return Err(EngineError::NothingHere {
                path: path.to_owned(),
            });
        };
        if !body.is_complete() {
            let incomplete = |source| EngineError::Incomplete {
                path: path.to_owned(),
                source,
            };
            let source = source_of(&self.config.drive.id, &row);
            let source = source.ok_or_else(|| incomplete(None))?;
            let whole = 0..body.size();
            let fetched = self
                .hydrator
                .ensure(&body, &source, whole, Demand::Upload)
                .await;
            fetched.map_err(|error| incomplete(Some(error)))?;
        }
        let to = to.to_owned();
        let copied = self
            .handle
            .spawn_blocking(move || write_new(&to, |file| copy(&body, file)));
        copied.await.map_err(|error| EngineError::Body {
            body: row.id,
            source: io::Error::other(error),
        })?
    }
}

/// Writes a new file; one that cannot be written whole is removed again.
fn write_new(
    to: &Path,
    write: impl FnOnce(&mut std::fs::File) -> io::Result<u64>,
) -> Result<u64, EngineError> {
    let failed = |source| EngineError::Export {
        path: to.to_owned(),
        source,
    };
    let mut file = std::fs::File::create_new(to).map_err(failed)?;
    let written = write(&mut file).and_then(|size| file.sync_all().map(|()| size));
    written.map_err(|error| {
        // Half a file would look like the whole one.
        drop(std::fs::remove_file(to));
        failed(error)
    })
}

fn copy(body: &Arc<Body>, file: &mut std::fs::File) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let got = body.read_at(at, &mut buffer)?;
        if got == 0 {
            return Ok(at);
        }
        file.write_all(&buffer[..got])?;
        at += got as u64;
    }
}
