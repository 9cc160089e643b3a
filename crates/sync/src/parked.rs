//! What a person can do with changes that wait for one: try again, give up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{BodyRow, JournalRow, Ops, Reader, StoreError};

use crate::apply::Applier;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::Event;
use crate::journal;

/// Rows changed per transaction, so that programs get their turn in between.
const CHUNK: usize = 256;

/// Rows read per query.
const WINDOW: u32 = 1024;

/// Longest wait for requests that were on their way when their deletions were held back.
const ON_ITS_WAY: Duration = Duration::from_secs(30);

/// Pause between two looks whether a request has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The paths of many items, most of which share their folders.
#[derive(Default)]
pub(crate) struct Paths {
    folders: HashMap<Ino, String>,
}

impl Paths {
    /// The path of an inode, as [`Reader::path`] gives it.
    pub(crate) fn of(&mut self, r: &Reader<'_>, ino: Ino) -> Result<String, StoreError> {
        let Some(item) = r.item(ino)? else {
            return Ok(String::new());
        };
        let there = item.remote.and_then(|r| r.parent.map(|p| (p, r.name)));
        let Some((parent, name)) = item.parent.map(|p| (p, item.name)).or(there) else {
            return Ok(String::new());
        };
        let folder = match self.folders.get(&parent) {
            Some(folder) => folder,
            None => {
                let path = r.path(parent)?;
                self.folders.entry(parent).or_insert(path)
            }
        };
        Ok(if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        })
    }
}

/// Tells whether a path is another one or below it. Everything is below the empty path.
pub(crate) fn is_at_or_below(path: &str, top: &str) -> bool {
    top.is_empty()
        || path
            .strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Engine {
    /// Lets changes at or below a path be sent that wait for a person; returns how many.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn retry(&self, path: &str) -> Result<u64, EngineError> {
        let top = path.trim_matches('/');
        let mut freed = 0;
        if top.is_empty() {
            freed += self.store.write(|tx| tx.release_held(Timestamp::now()))?;
        }
        let rows = self.waiting_below_path(top)?;
        for rows in rows.chunks(CHUNK) {
            self.store.write(|tx| {
                for row in rows {
                    if tx.journal(row.ino)?.is_some_and(|row| row.parked) {
                        journal::release(tx, row.ino, Timestamp::now())?;
                        freed += 1;
                    }
                }
                Ok::<(), EngineError>(())
            })?;
            tokio::task::yield_now().await;
        }
        if freed > 0 {
            // What was released is not counted a second time, nor are those that follow added.
            self.count_anew();
            tracing::info!(
                path,
                changes = freed,
                "Changes that waited for a person are sent."
            );
        }
        self.wake_uploader();
        Ok(freed)
    }

    /// Has everything wait for a person that waits to be sent and is not on its way; returns how
    /// many changes those are.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn park_all(&self, reason: &str) -> Result<u64, EngineError> {
        let mut parked = 0;
        let mut after = 0;
        loop {
            let rows = self.store.read(|r| r.journal_after(after, WINDOW))?;
            let Some(last) = rows.last() else {
                return Ok(parked);
            };
            after = last.seq;
            for row in rows.iter().filter(|row| !self.is_in_flight(row.ino)) {
                let waits = self.store.write(|tx| {
                    let Some(mut row) = tx.journal(row.ino)?.filter(|row| !row.parked) else {
                        return Ok::<_, StoreError>(false);
                    };
                    row.parked = true;
                    row.error = Some(reason.to_owned());
                    tx.put_journal(&row)?;
                    Ok(true)
                })?;
                if waits {
                    parked += 1;
                    let (path, reason) = (self.path_of(row.ino)?, reason.to_owned());
                    self.tell(Event::Parked { path, reason });
                }
            }
        }
    }

    /// Gives up what waits for a person at a path: the service's version takes the place of this
    /// machine's, or nothing does. Deletions are taken back at and below the path, without
    /// downloading anything. Returns how many changes were given up.
    ///
    /// # Errors
    /// `NotParked`; `HoldsUnsent` for a folder with files that nobody named; errors of the database.
    pub async fn discard(&self, path: &str) -> Result<u64, EngineError> {
        let top = path.trim_matches('/');
        let (deletions, changes): (Vec<_>, Vec<_>) = self
            .waiting_below_path(top)?
            .into_iter()
            .partition(|row| row.ops.has(Ops::DELETE));
        let mut given_up = 0;
        // Only deletions are taken back by the folder: nothing that was saved is given up unless
        // it is named.
        for row in changes {
            if self.path_of(row.ino)? == top {
                self.give_up(row.ino)?;
                tracing::info!(
                    path,
                    op = row.ops.word(),
                    "A change was given up: the service's version holds."
                );
                given_up += 1;
            }
        }
        let mut taken_back = 0;
        for rows in deletions.chunks(CHUNK) {
            taken_back += self.take_back(rows).await?;
        }
        if taken_back > 0 {
            self.count_anew();
            tracing::info!(path, deletions = taken_back, "Deletions were taken back.");
        }
        if given_up + taken_back == 0 {
            return Err(EngineError::NotParked {
                path: path.to_owned(),
            });
        }
        self.wake_freshness();
        Ok(given_up + taken_back)
    }

    fn give_up(&self, ino: Ino) -> Result<(), EngineError> {
        let in_flight = |_: Ino| false;
        let facts = self.facts(&in_flight, self.answer_epoch()?);
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            if let Some(inside) = applier.only_here_below(ino)? {
                let path = tx.path(ino)?;
                return Err(EngineError::HoldsUnsent { path, inside });
            }
            applier.give_up(ino)?;
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.after_apply(outcome);
        Ok(())
    }

    /// Takes deletions back that wait for a person; returns how many.
    async fn take_back(&self, rows: &[JournalRow]) -> Result<u64, EngineError> {
        let patience = Instant::now() + ON_ITS_WAY;
        while rows.iter().any(|row| self.is_in_flight(row.ino)) && Instant::now() < patience {
            // It was on its way when it was held back.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let taken_back = self.take_back_at_once(rows)?;
        tokio::task::yield_now().await;
        Ok(taken_back)
    }

    fn take_back_at_once(&self, rows: &[JournalRow]) -> Result<u64, EngineError> {
        let in_flight = |ino: Ino| self.is_in_flight(ino);
        let facts = self.facts(&in_flight, self.answer_epoch()?);
        let mut taken_back = 0;
        let mut unused: Vec<BodyRow> = Vec::new();
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            for row in rows.iter().filter(|row| !in_flight(row.ino)) {
                let parked = |row: &JournalRow| row.parked && row.ops.has(Ops::DELETE);
                if tx.journal(row.ino)?.is_some_and(|row| parked(&row)) {
                    unused.extend(self.undelete(&mut applier, row.ino)?);
                }
                // Or it came back with something that is in it.
                taken_back += 1;
            }
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.bodies.remove_files(&unused);
        self.after_apply(outcome);
        Ok(taken_back)
    }

    /// Takes one deletion back. What was made here under the same name since is the next version
    /// of the item; then the body it had is returned, which nobody needs any more.
    fn undelete(
        &self,
        applier: &mut Applier<'_>,
        ino: Ino,
    ) -> Result<Option<BodyRow>, EngineError> {
        let tx = applier.tx;
        let folder = tx.item(ino)?.and_then(|item| item.remote?.parent);
        let folder = applier.standing_folder(folder.unwrap_or(Ino::ROOT))?;
        let Some(item) = tx.item(ino)? else {
            return Ok(None);
        };
        if let Some(new) = applier.successor(&item, folder)? {
            applier.wake_uploader = true;
            return Ok(self.succeed(tx, item, new)?);
        }
        applier.undelete(item)?;
        Ok(None)
    }

    /// What waits for a person at or below a path, in order.
    pub(crate) fn waiting_below_path(&self, top: &str) -> Result<Vec<JournalRow>, EngineError> {
        self.store.read(|r| {
            let mut paths = Paths::default();
            let mut found = Vec::new();
            let mut after = 0;
            let mut rows = r.parked()?;
            loop {
                for row in rows {
                    if top.is_empty() || is_at_or_below(&paths.of(r, row.ino)?, top) {
                        found.push(row);
                    }
                }
                rows = r.held_after(after, WINDOW)?;
                match rows.last() {
                    Some(last) => after = last.seq,
                    None => return Ok(found),
                }
            }
        })
    }

    /// The change that waits for a person at a path. An unlinked item is found under its last name.
    pub(crate) fn parked_at(&self, path: &str) -> Result<JournalRow, EngineError> {
        let top = path.trim_matches('/');
        for row in self.waiting_below_path(top)? {
            if self.path_of(row.ino)? == top {
                return Ok(row);
            }
        }
        Err(EngineError::NotParked {
            path: path.to_owned(),
        })
    }
}
