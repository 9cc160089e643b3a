//! Keeping a channel open on which the service announces changes, so that nobody has to ask.
//!
//! The channel says no more than "something changed", and what happens while it is not open is never
//! said. So it only decides when to look: [`crate::freshness`] does, once for every connection and
//! for what is announced through it. As long as there is no channel, changes are polled for.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_graph::{Disposition, GraphError, PushChannel};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::net_state::Net;

/// Shortest pause before a channel is opened again.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest such pause while channels are known to work.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest such pause if none ever did: something between here and there may not let them through.
const PAUSE_MAX_NEVER: Duration = Duration::from_secs(900);

/// Pause after the service said that it has no channel for us. Rights may be granted.
const REFUSED_PAUSE: Duration = Duration::from_secs(3600);

/// A channel that lasted for so long works, and the next failure is the first one again.
const STEADY: Duration = Duration::from_secs(120);

/// How long before its end an address is replaced.
const MARGIN: Duration = Duration::from_secs(120);

/// Shortest time between two addresses, whatever life the service gives them.
const RENEWAL_MIN: Duration = Duration::from_secs(5);

/// What the channel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Whether a channel is open, so that changes are announced.
    pub open: bool,
    /// Number of reasons to look for changes so far: connections and events.
    pub reasons: u64,
}

/// The channel as others see it.
#[derive(Default)]
pub(crate) struct Push {
    state: watch::Sender<Announced>,
    reopen: Notify,
}

impl Push {
    /// Follows the channel.
    pub(crate) fn watch(&self) -> watch::Receiver<Announced> {
        self.state.subscribe()
    }

    /// Whether changes are announced.
    pub(crate) fn is_open(&self) -> bool {
        self.state.borrow().open
    }

    /// The channel is most likely dead, or should be tried now.
    pub(crate) fn reopen(&self) {
        self.reopen.notify_waiters();
    }

    /// A channel was opened, or something was announced.
    fn announce(&self) {
        self.state.send_modify(|state| {
            state.open = true;
            state.reasons += 1;
        });
    }

    /// There is no channel any more.
    fn close(&self) {
        self.state
            .send_if_modified(|state| std::mem::take(&mut state.open));
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
enum End {
    /// It ended, or could not be opened.
    #[error("{0}")]
    Lost(GraphError),
    /// Other requests fail, so it is most likely dead without showing that yet.
    #[error("the service does not answer")]
    Unreachable,
    /// The machine slept.
    #[error("the connection is from before this machine slept")]
    Slept,
}

/// When to try again.
#[derive(Default)]
struct Pauses {
    failures: u32,
    worked: bool,
}

impl Pauses {
    /// A channel ended that had been open for a while.
    fn ended_after(&mut self, open: Duration) {
        self.worked = true;
        if open >= STEADY {
            self.failures = 0;
        }
    }

    /// The pause after a failure: doubling, capped, and spread, for a service that restarts ends
    /// the channels of everybody at the same instant.
    fn next(&mut self, end: &End) -> Duration {
        let max = if self.worked {
            PAUSE_MAX
        } else {
            PAUSE_MAX_NEVER
        };
        let doubled = PAUSE_MIN
            .saturating_mul(1 << self.failures.min(16))
            .min(max);
        self.failures += 1;
        let pause = doubled.mul_f64(rand::random_range(0.5..=1.0));
        let End::Lost(error) = end else {
            return pause;
        };
        match error.disposition() {
            Disposition::RetryAfter(asked) => asked.max(pause),
            // There is no channel for this drive or this sign-in.
            Disposition::Unsupported | Disposition::Permanent | Disposition::NotFound => {
                REFUSED_PAUSE
            }
            _ => pause,
        }
    }
}

/// How long an address is used.
fn renewal_after(life: Duration) -> Duration {
    life.saturating_sub(MARGIN).max(life / 2).max(RENEWAL_MIN)
}

/// An open channel and when to replace it.
struct Open {
    channel: PushChannel,
    renew_at: Instant,
}

impl Engine {
    /// Keeps a channel open for as long as the engine runs.
    pub(crate) async fn run_push(self: Arc<Self>) {
        let mut net = self.net.watch();
        let mut pauses = Pauses::default();
        // What the log says; a channel that comes back after a moment is not worth a line.
        let mut told = None;
        loop {
            if net.wait_for(|&net| net == Net::Online).await.is_err() {
                return;
            }
            let since = Instant::now();
            let (end, opened) = match self.open_channel().await {
                Ok(open) => {
                    if told.replace(true) != Some(true) {
                        tracing::info!("The service announces changes.");
                    }
                    let end = self.listen(open).await;
                    self.push.close();
                    pauses.ended_after(since.elapsed());
                    (end, true)
                }
                Err(error) => (End::Lost(error), false),
            };
            let pause = pauses.next(&end);
            if opened || told == Some(false) {
                tracing::debug!(reason = %end, ?pause, "No channel for announcements.");
            } else {
                told = Some(false);
                let poll = self.config.poll_interval.as_secs();
                tracing::info!(reason = %end, "No changes are announced; looking every {poll} s.");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.push.reopen.notified() => {}
            }
        }
    }

    /// Asks for an address and opens the channel behind it.
    async fn open_channel(&self) -> Result<Open, GraphError> {
        let asked = Instant::now();
        let endpoint = self.graph.push_endpoint(&self.config.drive.id).await;
        if let Err(error) = &endpoint {
            self.net.learn_error(error);
        }
        let endpoint = endpoint?;
        let channel = self.graph.push_channel(&endpoint).await?;
        let renew_at = asked + renewal_after(endpoint.life);
        Ok(Open { channel, renew_at })
    }

    /// Passes on what is announced until the channel is lost, and replaces it in time. Returns why
    /// it ended.
    async fn listen(&self, mut open: Open) -> End {
        let mut net = self.net.watch();
        self.push.announce();
        loop {
            tokio::select! {
                event = open.channel.event() => match event {
                    Ok(()) => self.push.announce(),
                    Err(error) => return End::Lost(error),
                },
                () = tokio::time::sleep_until(open.renew_at) => {
                    match self.renew(open.channel).await {
                        Ok(new) => open = new,
                        Err(error) => return End::Lost(error),
                    }
                    // Between the two something may have been announced to neither.
                    self.push.announce();
                }
                () = unreachable(&mut net) => return End::Unreachable,
                () = self.push.reopen.notified() => return End::Slept,
            }
        }
    }

    /// Opens the next channel while the old one is still listened to.
    async fn renew(&self, mut old: PushChannel) -> Result<Open, GraphError> {
        tracing::debug!("The channel for announcements is replaced before its address expires.");
        let opening = self.open_channel();
        tokio::pin!(opening);
        loop {
            tokio::select! {
                new = &mut opening => return new,
                event = old.event() => match event {
                    Ok(()) => self.push.announce(),
                    Err(_ended) => return opening.await,
                },
            }
        }
    }
}

/// Waits until the service does not answer, or refuses the sign-in.
async fn unreachable(net: &mut watch::Receiver<Net>) {
    // The sender lives as long as the engine.
    let _state = net.wait_for(|&net| net != Net::Online).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn addresses_are_replaced_before_they_expire_and_not_too_often() {
        for (life, used) in [
            (3600, 3480),
            (300, 180),
            (200, 100),
            (12, 6),
            (4, 5),
            (0, 5),
        ] {
            assert_eq!(renewal_after(seconds(life)), seconds(used), "{life}");
        }
    }

    #[test]
    fn pauses_grow_and_are_spread() {
        let error = End::Unreachable;
        let mut pauses = Pauses::default();
        pauses.ended_after(seconds(1));
        let mut last = Vec::new();
        for attempt in 0..12 {
            let pause = pauses.next(&error);
            let most = seconds(60).min(seconds(1 << attempt));
            assert!(pause <= most && pause >= most / 2, "{attempt}: {pause:?}");
            last.push(pause);
        }
        assert!(last[6..].iter().any(|pause| *pause != last[6]), "{last:?}");
        pauses.ended_after(STEADY);
        assert!(pauses.next(&error) <= PAUSE_MIN, "a steady channel ended");
        let mut never = Pauses::default();
        let pauses: Vec<_> = (0..20).map(|_| never.next(&error)).collect();
        assert!(pauses[19] > PAUSE_MAX, "{pauses:?}");
    }
}
