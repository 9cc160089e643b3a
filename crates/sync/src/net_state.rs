//! Whether the service can be reached, as the last requests showed it.

use std::time::Duration;

use onedrivefs_graph::{Disposition, GraphError};
use tokio::sync::watch;

use crate::family::Stir;

/// What the last answer, or its absence, told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// The service answers.
    Online,
    /// There is no answer.
    Offline,
    /// Somebody has to sign in again.
    NeedsLogin,
}

/// Shared knowledge of the reachability of the service.
pub struct NetState {
    state: watch::Sender<Net>,
    stir: Stir,
}

impl NetState {
    /// Starts with the hope that the service answers. Changes are told to whoever follows `stir`, too.
    #[must_use]
    pub fn new(stir: Stir) -> Self {
        Self {
            state: watch::Sender::new(Net::Online),
            stir,
        }
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> Net {
        *self.state.borrow()
    }

    /// Follows the state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Net> {
        self.state.subscribe()
    }

    /// Sets the state and tells whether it changed.
    pub fn set(&self, net: Net) -> bool {
        let changed = self
            .state
            .send_if_modified(|now| std::mem::replace(now, net) != net);
        if changed {
            tracing::info!(state = ?net, "The connection to the service changed.");
            self.stir.reach_changed();
        }
        changed
    }

    /// Learns from the outcome of a request.
    pub fn learn<T>(&self, outcome: &Result<T, GraphError>) {
        match outcome {
            Ok(_) => {
                self.set(Net::Online);
            }
            Err(error) => self.learn_error(error),
        }
    }

    /// Learns from a failed request.
    pub fn learn_error(&self, error: &GraphError) {
        match error.disposition() {
            Disposition::Offline => {
                self.set(Net::Offline);
            }
            Disposition::Reauth => {
                self.set(Net::NeedsLogin);
            }
            // Any answer at all shows that the service is there.
            _ if error.status().is_some() => {
                self.set(Net::Online);
            }
            _ => {}
        }
    }
}

/// Shortest pause between two tries.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two tries: a person who repaired something waits at most this long.
const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// The pause before the next try: doubling, capped, with up to a quarter taken off at random so
/// that many rows do not come back at the same instant.
#[must_use]
pub fn backoff(attempts: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << attempts.min(10));
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(1.0 - rand::random::<f64>() * 0.25)
}
