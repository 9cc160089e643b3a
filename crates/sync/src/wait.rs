//! Waiting until this machine and the service agree.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_graph::Disposition;
use onedrivefs_store::{Ops, Reader, StoreError};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::net_state::{Net, backoff};
use crate::parked::{Paths, is_at_or_below};
use crate::status::Pending;

/// How often somebody who waits is told how far it is, at least.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Tries to fetch changes that fail with something that may pass, before it is said to have failed.
const TRIES_MAX: u32 = 5;

/// Rows read per query.
const WINDOW: u32 = 256;

/// How waiting ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum SyncOutcome {
    /// Everything was sent, and changes of others were fetched.
    Done,
    /// Time was up.
    TimedOut {
        /// What still waits.
        pending: Pending,
        /// A change among it that fails, and why.
        obstacle: Option<String>,
    },
    /// Everything was sent except what waits for a person.
    Parked {
        /// How many changes wait for a person, deletions that are held back aside.
        parked: u64,
        /// How many deletions are held back.
        held: u64,
    },
    /// The service does not answer.
    Offline,
    /// Somebody has to sign in again.
    NeedsLogin,
}

impl Engine {
    /// Sends everything at or below a path, applies one fresh round of changes, and puts everything
    /// on stable storage.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn sync(
        self: &Arc<Self>,
        path: Option<&str>,
        timeout: Option<Duration>,
        progress: impl Fn(&Pending, Option<&str>) + Send,
    ) -> Result<SyncOutcome, EngineError> {
        let work = self.sync_all(path, &progress);
        match timeout {
            None => work.await,
            Some(timeout) => match tokio::time::timeout(timeout, work).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Ok(SyncOutcome::TimedOut {
                    pending: self.waiting_below(path)?,
                    obstacle: self.obstacle_below(path)?,
                }),
            },
        }
    }

    async fn sync_all(
        self: &Arc<Self>,
        path: Option<&str>,
        progress: &(impl Fn(&Pending, Option<&str>) + Send),
    ) -> Result<SyncOutcome, EngineError> {
        self.links_are_old();
        self.refresh_quota().await;
        self.store.write(|tx| tx.hurry_journal())?;
        self.wake_uploader();
        if let Err(EngineError::Graph(error)) = self.refresh().await {
            self.net.learn_error(&error);
            match self.net.get() {
                Net::Offline => return Ok(SyncOutcome::Offline),
                Net::NeedsLogin => return Ok(SyncOutcome::NeedsLogin),
                Net::Online => {}
            }
        }
        loop {
            let stepped = self.progress.notified();
            let waiting = self.waiting_below(path)?;
            if waiting.ops == 0 {
                break;
            }
            if let Some(parked) = self.waits_for_parked_copies()? {
                return Ok(SyncOutcome::Parked { parked, held: 0 });
            }
            progress(&waiting, self.obstacle_below(path)?.as_deref());
            match self.net.get() {
                Net::Offline => return Ok(SyncOutcome::Offline),
                Net::NeedsLogin => return Ok(SyncOutcome::NeedsLogin),
                Net::Online => {}
            }
            let _either = tokio::time::timeout(TELL_EVERY, stepped).await;
        }
        self.links_are_old();
        if let Some(outcome) = self.refresh_patiently().await? {
            return Ok(outcome);
        }
        self.sync_to_disk().await?;
        Ok(match self.stuck_below(path)? {
            (0, 0) => SyncOutcome::Done,
            (parked, held) => SyncOutcome::Parked { parked, held },
        })
    }

    /// Fetches a round of changes, trying again while the service has a passing trouble.
    async fn refresh_patiently(&self) -> Result<Option<SyncOutcome>, EngineError> {
        let mut tries = 0;
        loop {
            let Err(error) = self.refresh().await else {
                return Ok(None);
            };
            match error.reach() {
                Some(Net::Offline) => return Ok(Some(SyncOutcome::Offline)),
                Some(Net::NeedsLogin) => return Ok(Some(SyncOutcome::NeedsLogin)),
                _ => {}
            }
            if self.is_denied() {
                // Somebody has to share it again.
                return Err(error);
            }
            tries += 1;
            let EngineError::Graph(trouble) = &error else {
                return Err(error);
            };
            let pause = match trouble.disposition() {
                Disposition::RetryAfter(pause) => pause,
                Disposition::Retry => backoff(tries),
                _ => return Err(error),
            };
            if tries > TRIES_MAX {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// What waits to be sent at or below a path, without what waits for a person.
    fn waiting_below(&self, path: Option<&str>) -> Result<Pending, EngineError> {
        let Some(top) = top(path) else {
            let (ops, bytes) = self.store.read(|r| r.pending())?;
            let (parked, held) = self.stuck_below(None)?;
            let ops = ops.saturating_sub(parked + held);
            return Ok(Pending { ops, bytes });
        };
        self.store.read(|r| {
            let mut paths = Paths::default();
            let mut waiting = Pending::default();
            let mut after = 0;
            loop {
                let rows = r.journal_after(after, WINDOW)?;
                let Some(last) = rows.last() else {
                    return Ok(waiting);
                };
                after = last.seq;
                for row in rows {
                    if !is_at_or_below(&paths.of(r, row.ino)?, top) {
                        continue;
                    }
                    waiting.ops += 1;
                    if row.ops.has(Ops::CONTENT) {
                        waiting.bytes += r.item(row.ino)?.map_or(0, |item| item.size);
                    }
                }
            }
        })
    }

    /// How many changes wait for a person at or below a path, and how many of the deletions that
    /// are held back are there.
    fn stuck_below(&self, path: Option<&str>) -> Result<(u64, u64), EngineError> {
        let Some(top) = top(path) else {
            let stuck = |r: &Reader<'_>| Ok::<_, StoreError>((r.parked()?.len(), r.count_held()?));
            let (parked, held) = self.store.read(stuck)?;
            return Ok((parked as u64, held));
        };
        let rows = self.waiting_below_path(top)?;
        let held = rows.iter().filter(|row| row.held).count() as u64;
        Ok((rows.len() as u64 - held, held))
    }

    /// A change at or below a path that fails and is tried again, with the reason.
    fn obstacle_below(&self, path: Option<&str>) -> Result<Option<String>, EngineError> {
        let top = top(path).unwrap_or_default();
        self.store.read(|r| {
            for row in r.failing(WINDOW)? {
                let at = r.path(row.ino)?;
                if is_at_or_below(&at, top) {
                    let error = row.error.unwrap_or_default();
                    return Ok(Some(format!("{at}: {error}")));
                }
            }
            Ok(None)
        })
    }
}

/// The path that limits what is waited for; `None` for the whole mount.
fn top(path: Option<&str>) -> Option<&str> {
    path.map(|path| path.trim_matches('/'))
        .filter(|path| !path.is_empty())
}
