//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the condition holds.
///
/// # Panics
/// When it still does not after `limit`.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    value(what, limit, || holds().then_some(()));
}

/// Tells whether the condition holds before `limit` is over.
pub fn holds(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Waits until there is a value.
///
/// # Panics
/// When there is none after `limit`.
pub fn value<T>(what: &str, limit: Duration, mut get: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = get() {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "{what}: not within {} s",
            limit.as_secs_f32()
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Seconds as a duration.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
