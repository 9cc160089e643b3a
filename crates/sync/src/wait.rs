//! Waiting until this machine and the service agree.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_graph::Disposition;
use onedrivefs_store::Ops;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::net_state::{Net, backoff};
use crate::status::Pending;

/// How often somebody who waits is told how far it is, at least.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Tries to fetch changes that fail with something that may pass, before it is said to have failed.
const TRIES_MAX: u32 = 5;

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum SyncOutcome {
    /// Everything was sent, and changes of others were fetched.
    Done,
    /// Time was up.
    TimedOut {
        /// What still waits.
        pending: Pending,
    },
    /// Everything was sent except what waits for a person.
    Parked {
        /// How many changes wait for a person.
        parked: u64,
    },
    /// The service does not answer.
    Offline,
    /// Somebody has to sign in again.
    NeedsLogin,
}

impl Engine {
    /// Sends everything at or below a path and applies one fresh round of changes.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn sync(
        self: &Arc<Self>,
        path: Option<&str>,
        timeout: Option<Duration>,
        progress: impl Fn(&Pending) + Send,
    ) -> Result<SyncOutcome, EngineError> {
        let work = self.sync_all(path, &progress);
        match timeout {
            None => work.await,
            Some(timeout) => match tokio::time::timeout(timeout, work).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Ok(SyncOutcome::TimedOut {
                    pending: self.pending()?,
                }),
            },
        }
    }

    async fn sync_all(
        self: &Arc<Self>,
        path: Option<&str>,
        progress: &(impl Fn(&Pending) + Send),
    ) -> Result<SyncOutcome, EngineError> {
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
        let parked = loop {
            let stepped = self.progress.notified();
            let (waiting, parked) = self.waiting_below(path)?;
            if waiting.ops == 0 {
                break parked;
            }
            progress(&waiting);
            match self.net.get() {
                Net::Offline => return Ok(SyncOutcome::Offline),
                Net::NeedsLogin => return Ok(SyncOutcome::NeedsLogin),
                Net::Online => {}
            }
            let _either = tokio::time::timeout(TELL_EVERY, stepped).await;
        };
        if let Some(outcome) = self.refresh_patiently().await? {
            return Ok(outcome);
        }
        Ok(if parked == 0 {
            SyncOutcome::Done
        } else {
            SyncOutcome::Parked { parked }
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

    /// What waits at or below a path, and how many parked changes are there.
    fn waiting_below(&self, path: Option<&str>) -> Result<(Pending, u64), EngineError> {
        let wanted = path.map(|p| p.trim_matches('/')).filter(|p| !p.is_empty());
        self.store.read(|r| {
            let mut parked = 0;
            let inside = |at: &str| {
                wanted.is_none_or(|w| {
                    at.strip_prefix(w)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            for row in r.parked()? {
                parked += u64::from(inside(&r.path(row.ino)?));
            }
            if wanted.is_none() {
                let (ops, bytes) = r.pending()?;
                return Ok((
                    Pending {
                        ops: ops.saturating_sub(parked),
                        bytes,
                    },
                    parked,
                ));
            }
            let mut waiting = Pending::default();
            let mut after = 0;
            loop {
                let rows = r.journal_after(after, 256)?;
                let Some(last) = rows.last() else { break };
                after = last.seq;
                for row in rows {
                    if inside(&r.path(row.ino)?) {
                        waiting.ops += 1;
                        if row.ops.has(Ops::CONTENT) {
                            waiting.bytes += r.item(row.ino)?.map_or(0, |item| item.size);
                        }
                    }
                }
            }
            Ok((waiting, parked))
        })
    }
}
