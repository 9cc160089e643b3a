//! When to look for changes of others: when the service announces some, after a wake-up, at every
//! poll interval while nothing is announced, and with growing pauses while the service does not
//! answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_core::Timestamp;
use onedrivefs_graph::Disposition;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::{Engine, META_LAST_DELTA};
use crate::error::EngineError;
use crate::net_state::{Net, backoff};
use crate::push::Announced;
use crate::walk::WALK_EVERY;

/// How often the quota is asked for, in poll intervals.
const QUOTA_EVERY: u32 = 20;

/// Longest pause between two tries while the service does not answer.
const OFFLINE_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Pause between two looks while changes are announced. It bounds the damage of an announcement
/// that got lost, and keeps the delta link from growing old.
const SAFETY_INTERVAL: Duration = Duration::from_secs(3600);

/// Pause that every drive of an account adds to those of the others while they are asked for changes and
/// have none: all of them together ask about once in this time.
const SHARE: Duration = Duration::from_secs(1);

/// Longest pause that comes of that.
const SHARED_PAUSE_MAX: Duration = Duration::from_secs(600);

/// Looks in a row that brought nothing new, after which a drive counts as quiet.
const QUIET_AFTER: u32 = 3;

/// How long an announcement rests: what is made together is announced one by one.
const SETTLE: Duration = Duration::from_millis(100);

/// Shortest pause between two looks for announced changes.
const SPACING_MIN: Duration = Duration::from_secs(1);

/// The same while the looks bring nothing new: what this machine sends is announced to it, too.
const SPACING_MAX: Duration = Duration::from_secs(5);

/// What leads from one look to the next.
struct Rhythm {
    channel: watch::Receiver<Announced>,
    /// Reasons that the last look took care of.
    seen: u64,
    /// When the last look ended.
    ended: Instant,
    /// Announced looks in a row that brought nothing new.
    in_vain: u32,
    /// Looks in a row that brought nothing new, announced or not.
    quiet: u32,
    /// Failures since the last success.
    failures: u32,
    /// When the quota was asked for, and the announcements until then.
    quota: Option<(Instant, u64)>,
    /// When it was asked for what was shared how.
    rights: Option<Instant>,
}

impl Rhythm {
    /// A look begins: what was announced until now is found by it. Tells whether anything was.
    fn begin(&mut self) -> bool {
        let reasons = self.channel.borrow_and_update().reasons;
        std::mem::replace(&mut self.seen, reasons) != reasons
    }

    /// A look that was announced brought something new, or did not.
    fn learn(&mut self, news: bool) {
        self.in_vain = if news { 0 } else { self.in_vain + 1 };
    }

    /// Shortest pause until the next announced look. A single one in vain means nothing: it may
    /// have been announced while the one before it was under way.
    fn spacing(&self) -> Duration {
        let doublings = self.in_vain.saturating_sub(1).min(8);
        (SPACING_MIN * (1 << doublings)).min(SPACING_MAX)
    }
}

impl Engine {
    /// Looks for changes of others for as long as the engine runs.
    pub(crate) async fn run_freshness(self: Arc<Self>) {
        let mut rhythm = Rhythm {
            channel: self.push.watch(),
            seen: 0,
            ended: Instant::now(),
            in_vain: 0,
            quiet: 0,
            failures: 0,
            quota: None,
            rights: None,
        };
        loop {
            let announced = rhythm.begin();
            let known = self.news.load(Ordering::Relaxed);
            let outcome = self.refresh().await;
            rhythm.ended = Instant::now();
            match outcome {
                Ok(()) => {
                    rhythm.failures = 0;
                    let news = self.news.load(Ordering::Relaxed) != known;
                    rhythm.quiet = if news { 0 } else { rhythm.quiet + 1 };
                    if announced {
                        rhythm.learn(news);
                    }
                    self.refresh_old_quota(&mut rhythm).await;
                    self.refresh_old_rights(&mut rhythm.rights).await;
                    self.await_reason(&mut rhythm).await;
                }
                Err(error) => {
                    rhythm.failures += 1;
                    let failures = rhythm.failures;
                    tracing::debug!(%error, failures, "Looking for changes failed.");
                    let pause = self.pause_after(&error, failures);
                    tokio::select! {
                        () = self.wake_freshness.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Waits until there is a reason to look again.
    async fn await_reason(&self, rhythm: &mut Rhythm) {
        let mut noticed = None;
        loop {
            let state = *rhythm.channel.borrow_and_update();
            let mut due = rhythm.ended + self.pause(state.open, rhythm.quiet);
            if state.reasons != rhythm.seen {
                let noticed = *noticed.get_or_insert_with(Instant::now);
                let spacing = if self.walks.load(Ordering::Relaxed) {
                    WALK_EVERY
                } else {
                    rhythm.spacing()
                };
                due = due.min((rhythm.ended + spacing).max(noticed + SETTLE));
            }
            tokio::select! {
                () = self.wake_freshness.notified() => return,
                () = tokio::time::sleep_until(due) => return,
                // The sender lives as long as the engine.
                _ = rhythm.channel.changed() => {}
            }
        }
    }

    /// Pause until the next look when nothing is announced and nothing wakes it.
    fn pause(&self, announced: bool, quiet: u32) -> Duration {
        let poll = match self.links_pause() {
            Some(pause) if self.config.groups => pause,
            _ if quiet >= QUIET_AFTER && !announced => {
                crowded(self.config.poll_interval, self.crowd())
            }
            _ => self.config.poll_interval,
        };
        // That there is room again is not announced.
        if announced && !self.waits_for_room() {
            let unannounced = self.links_pause();
            unannounced.unwrap_or_else(|| poll.max(SAFETY_INTERVAL))
        } else if self.walks.load(Ordering::Relaxed) {
            poll.max(WALK_EVERY)
        } else {
            poll
        }
    }

    /// Tells whether a round asks the service anything: not that of a root that groups drives, while no
    /// single file is shown in it.
    fn asks_for_changes(&self) -> bool {
        !self.config.groups || self.links_pause().is_some()
    }

    /// How many drives of the account this process asks for changes, since none are announced.
    fn crowd(&self) -> u32 {
        let members = self.config.family.company().members();
        let asked = members.iter().filter(|other| {
            let same = Arc::ptr_eq(other.graph.tokens(), self.graph.tokens());
            same && !other.push.is_open() && !other.config.groups
        });
        u32::try_from(asked.count()).unwrap_or(u32::MAX)
    }

    /// One complete look for changes: a first enumeration, or what happened since the last one.
    pub(crate) async fn refresh(&self) -> Result<(), EngineError> {
        let _round = self.rounds.lock().await;
        let outcome = self.run_round().await;
        self.learn_access(outcome.as_ref().err());
        match &outcome {
            Ok(()) => {
                let now = Timestamp::now().as_nanos();
                self.last_delta.store(now, Ordering::Relaxed);
                if self.asks_for_changes() {
                    let text = now.to_string();
                    self.store
                        .write(|tx| tx.set_meta(META_LAST_DELTA, Some(&text)))?;
                }
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

    /// Asks for the quota when it may be another one: when changes wait for room, and every few
    /// polls, unless there is a channel and it announced nothing since.
    async fn refresh_old_quota(&self, rhythm: &mut Rhythm) {
        let fresh = rhythm.quota.is_some_and(|(asked, seen)| {
            let quiet = self.push.is_open() && seen == rhythm.seen;
            quiet || asked.elapsed() < self.config.poll_interval * QUOTA_EVERY
        });
        if !fresh || self.waits_for_room() {
            self.refresh_quota().await;
            rhythm.quota = Some((Instant::now(), rhythm.seen));
        }
    }

    /// Asks for the quota; failing is of no consequence.
    pub(crate) async fn refresh_quota(&self) {
        if self.config.groups {
            return;
        }
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

/// The pause of a quiet drive among many that are asked for changes.
fn crowded(poll: Duration, crowd: u32) -> Duration {
    poll.max(SHARE.saturating_mul(crowd).min(SHARED_PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_quiet_drives_are_asked_less_often_and_few_as_often_as_configured() {
        let seconds = Duration::from_secs;
        for (poll, crowd, pause) in [(30, 1, 30), (30, 30, 30), (30, 100, 100), (1, 9000, 600)] {
            assert_eq!(
                crowded(seconds(poll), crowd),
                seconds(pause),
                "{poll} {crowd}"
            );
        }
        assert_eq!(crowded(seconds(3600), 100), seconds(3600));
    }
}
