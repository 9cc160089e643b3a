//! When to look for changes of others: after a wake-up, at every poll interval, and with growing
//! pauses while the service does not answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_core::Timestamp;
use onedrivefs_graph::Disposition;

use crate::engine::{Engine, META_LAST_DELTA};
use crate::error::EngineError;
use crate::net_state::{Net, backoff};
use crate::walk::WALK_EVERY;

/// How often the quota is asked for, in polls.
const QUOTA_EVERY: u32 = 20;

/// Longest pause between two tries while the service does not answer.
const OFFLINE_PAUSE_MAX: Duration = Duration::from_secs(15);

impl Engine {
    /// Looks for changes of others for as long as the engine runs.
    pub(crate) async fn run_freshness(self: Arc<Self>) {
        let mut failures = 0;
        let mut polls: u32 = 0;
        loop {
            let outcome = self.refresh().await;
            let pause = match &outcome {
                Ok(()) => {
                    failures = 0;
                    if polls.is_multiple_of(QUOTA_EVERY) || self.has_parked() {
                        self.refresh_quota().await;
                    }
                    polls += 1;
                    self.poll_pause()
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, failures, "Looking for changes failed.");
                    self.pause_after(error, failures)
                }
            };
            tokio::select! {
                () = self.wake_freshness.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Pause until the next look when nothing wakes it.
    fn poll_pause(&self) -> Duration {
        if self.walks.load(Ordering::Relaxed) {
            self.config.poll_interval.max(WALK_EVERY)
        } else {
            self.config.poll_interval
        }
    }

    /// One complete look for changes: a first enumeration, or what happened since the last one.
    pub(crate) async fn refresh(&self) -> Result<(), EngineError> {
        let _round = self.rounds.lock().await;
        let outcome = self.run_round().await;
        match &outcome {
            Ok(()) => {
                let now = Timestamp::now().as_nanos();
                self.last_delta.store(now, Ordering::Relaxed);
                let text = now.to_string();
                self.store
                    .write(|tx| tx.set_meta(META_LAST_DELTA, Some(&text)))?;
                if self.net.set(Net::Online) {
                    self.store.write(|tx| tx.hurry_journal())?;
                }
                self.wake_uploader();
                self.progress.notify_waiters();
            }
            Err(EngineError::Graph(error)) => self.net.learn_error(error),
            Err(_) => {}
        }
        outcome
    }

    /// Tells whether changes wait for a person, or for room on the drive.
    fn has_parked(&self) -> bool {
        self.store
            .read(|r| r.parked())
            .is_ok_and(|rows| !rows.is_empty())
    }

    /// Asks for the quota; failing is of no consequence.
    pub(crate) async fn refresh_quota(&self) {
        match self.graph.quota(&self.config.drive.id).await {
            Ok(quota) => {
                self.set_quota(quota);
                if let Err(error) = self.retry_what_fits() {
                    tracing::warn!(%error, "Changes that wait for room could not be looked at.");
                }
            }
            Err(error) => tracing::debug!(%error, "The quota could not be read."),
        }
    }

    /// How long to wait after a failed look.
    fn pause_after(&self, error: &EngineError, failures: u32) -> Duration {
        let EngineError::Graph(error) = error else {
            // The disk, most likely: nobody tells when there is room again.
            return backoff(failures).min(OFFLINE_PAUSE_MAX);
        };
        match error.disposition() {
            Disposition::RetryAfter(pause) => pause,
            Disposition::Offline => backoff(failures.saturating_sub(1)).min(OFFLINE_PAUSE_MAX),
            Disposition::Reauth => self.config.poll_interval,
            _ => backoff(failures),
        }
    }
}
