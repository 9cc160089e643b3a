//! Letting those go who wait for the service, before their time is over.
//!
//! A request that the kernel has handed over cannot be interrupted, not even by killing the program
//! behind it. Where waiting makes no sense any more, as before the machine sleeps, everybody who
//! waits is told so, and so is everybody who comes until it makes sense again.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All who wait.
#[derive(Default)]
pub struct Waiters {
    /// Cancelled to let everybody go; replaced once waiting makes sense again.
    turn: Mutex<CancellationToken>,
    count: watch::Sender<usize>,
}

impl Waiters {
    /// One more waits, until what this returns is dropped: after the answer was sent.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Waiter {
        self.count.send_modify(|count| *count += 1);
        Waiter {
            all: Arc::clone(self),
            turn: self.turn(),
        }
    }

    /// Ends when those are let go who wait now.
    pub(crate) fn turn(&self) -> CancellationToken {
        self.turn.lock().clone()
    }

    /// Tells whether anybody waits.
    #[must_use]
    pub fn is_anybody_here(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Lets everybody go who waits, and everybody who comes until [`Waiters::admit`].
    pub fn turn_away(&self) {
        self.turn.lock().cancel();
    }

    /// Lets those wait who come from now on.
    pub fn admit(&self) {
        let mut turn = self.turn.lock();
        if turn.is_cancelled() {
            *turn = CancellationToken::new();
        }
    }

    /// Waits until nobody does.
    pub async fn gone(&self) {
        // The sender lives as long as this does.
        let mut count = self.count.subscribe();
        drop(count.wait_for(|&count| count == 0).await);
    }
}

/// Somebody who waits.
pub struct Waiter {
    all: Arc<Waiters>,
    turn: CancellationToken,
}

impl Waiter {
    /// Waits for something. `None` when nobody is to wait any more.
    pub async fn wait_for<T>(&self, pending: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // What is there already is had, whether or not waiting makes sense.
            biased;
            value = pending => Some(value),
            () = self.turn.cancelled() => None,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.all.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn everybody_is_let_go_until_waiting_makes_sense_again() {
        let waiters = Arc::new(Waiters::default());
        let waiter = waiters.enter();
        let waiting = tokio::spawn(async move { waiter.wait_for(pending::<()>()).await });
        assert!(waiters.is_anybody_here());
        waiters.turn_away();
        assert_eq!(waiting.await.unwrap(), None);
        waiters.gone().await;
        assert!(!waiters.is_anybody_here());

        let late = waiters.enter();
        assert_eq!(late.wait_for(pending::<()>()).await, None);
        assert_eq!(late.wait_for(ready(7)).await, Some(7));
        waiters.admit();
        let next = waiters.enter();
        let limit = std::time::Duration::from_millis(50);
        let waits = tokio::time::timeout(limit, next.wait_for(pending::<()>()));
        assert!(waits.await.is_err());
    }
}
