//! What a person can do with changes that were parked: try again, save a copy elsewhere, give up.

use std::io::Write as _;
use std::path::Path;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{Item, JournalRow};

use crate::apply::Applier;
use crate::engine::{Engine, Outcome};
use crate::error::EngineError;
use crate::journal;

/// Bytes copied at a time by `export`.
const PIECE: usize = 1 << 20;

impl Engine {
    /// Lets parked changes at or below a path be tried again; returns how many.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn retry(&self, path: &str) -> Result<u64, EngineError> {
        let rows = self.parked_below(path)?;
        self.store.write(|tx| {
            for row in &rows {
                let mut row = journal::open_row(tx, row.ino, Timestamp::now())?;
                row.session = None;
                tx.put_journal(&row)?;
            }
            Ok::<(), EngineError>(())
        })?;
        self.wake_uploader();
        Ok(rows.len() as u64)
    }

    /// Copies the body of this machine's version to a file outside of the mount.
    ///
    /// # Errors
    /// `NotParked`, `Incomplete`, `Export`; errors of the disk and the database.
    pub fn export(&self, path: &str, to: &Path) -> Result<u64, EngineError> {
        let (item, _) = self.parked_at(path)?;
        let failed = |source| EngineError::Export {
            path: to.to_owned(),
            source,
        };
        let mut file = std::fs::File::create_new(to).map_err(failed)?;
        let row = item
            .body
            .map(|id| self.store.read(|r| r.body(id)))
            .transpose()?
            .flatten();
        let Some(row) = row else { return Ok(0) };
        let body = self
            .bodies
            .open(&row)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let body =
            body.filter(|body| body.is_complete())
                .ok_or_else(|| EngineError::Incomplete {
                    path: path.to_owned(),
                })?;
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        loop {
            let got = body.read_at(at, &mut buffer).map_err(failed)?;
            if got == 0 {
                break;
            }
            file.write_all(&buffer[..got]).map_err(failed)?;
            at += got as u64;
        }
        file.sync_all().map_err(failed)?;
        Ok(at)
    }

    /// Gives up this machine's version: the service's takes its place, or nothing does.
    ///
    /// # Errors
    /// `NotParked`, or errors of the database.
    pub fn discard(&self, path: &str) -> Result<(), EngineError> {
        let (item, _) = self.parked_at(path)?;
        let in_flight = |_: Ino| false;
        let facts = self.facts(&in_flight, self.epoch()?);
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            applier.give_up(item.ino)?;
            Ok::<_, EngineError>(Outcome::from(applier))
        })?;
        self.after_apply(outcome);
        self.wake_freshness();
        Ok(())
    }

    /// The parked change of one item. An unlinked item is found under its last name.
    fn parked_at(&self, path: &str) -> Result<(Item, JournalRow), EngineError> {
        let wanted = path.trim_matches('/');
        self.store.read(|r| {
            for row in r.parked()? {
                if r.path(row.ino)? == wanted
                    && let Some(item) = r.item(row.ino)?
                {
                    return Ok((item, row));
                }
            }
            Err(EngineError::NotParked {
                path: path.to_owned(),
            })
        })
    }

    /// Parked changes at or below a path.
    fn parked_below(&self, path: &str) -> Result<Vec<JournalRow>, EngineError> {
        let wanted = path.trim_matches('/');
        self.store.read(|r| {
            let mut found = Vec::new();
            for row in r.parked()? {
                let at = r.path(row.ino)?;
                let below = at
                    .strip_prefix(wanted)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                if wanted.is_empty() || below {
                    found.push(row);
                }
            }
            Ok(found)
        })
    }
}
