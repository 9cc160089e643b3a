//! The brake on mass deletions.
//!
//! A program that runs wild, or a person in the wrong directory, deletes thousands of files in
//! seconds. Here they are gone at once, as they must be; but what would delete them on the service
//! is held back, and a person is asked.
//!
//! Counted are deletions that would be sent: an unlink or rmdir of something that the service has.
//! What replaces a file, as a save or a rename does, is none. The decision is made in the
//! transaction that records the deletion, so that nothing is sent after it. While anything is held
//! back, every further deletion is held back, too. What is held is in the journal and survives
//! everything; the count of the last minute is in memory and begins anew with the daemon.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_core::Ino;
use onedrivefs_store::{Item, Reader, StoreError, Tx};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::event::Event;

/// The time within which deletions are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Fewest deletions that count as a share of the drive, so that small drives can be tidied: an
/// unpacked archive and its copy are soon 50 items, and nobody wants to be asked about them.
pub const SHARE_MIN: u64 = 100;

/// How old the size of the drive may be with which deletions are compared.
const SIZE_AGE: Duration = Duration::from_secs(10);

/// Key of the metadata table under which the reason is kept for which deletions are held back.
const META_REASON: &str = "held_reason";

/// How many deletions within a minute are sent without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeLimits {
    /// More than this many are held back; zero sets no limit.
    pub count: u64,
    /// More than this share of the drive, in percent, is held back; zero sets no limit. Only from
    /// [`SHARE_MIN`] deletions on.
    pub share_percent: u64,
}

impl Default for BrakeLimits {
    fn default() -> Self {
        Self {
            count: 1000,
            share_percent: 33,
        }
    }
}

/// Which limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Count(u64),
    Share(u64),
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(limit) => write!(f, "more than {limit} were made within a minute"),
            Self::Share(percent) => {
                write!(
                    f,
                    "more than {percent}% of the drive was deleted within a minute"
                )
            }
        }
    }
}

impl BrakeLimits {
    /// The limit that so many deletions within a minute pass, on a drive that had `before` items.
    fn passed(self, deletions: u64, before: u64) -> Option<Passed> {
        if self.count > 0 && deletions > self.count {
            return Some(Passed::Count(self.count));
        }
        let share = u128::from(before) * u128::from(self.share_percent);
        let is_share =
            self.share_percent > 0 && deletions >= SHARE_MIN && u128::from(deletions) * 100 > share;
        is_share.then_some(Passed::Share(self.share_percent))
    }

    /// Tells whether the size of the drive matters for so many deletions.
    const fn needs_size(self, deletions: u64) -> bool {
        self.share_percent > 0 && deletions >= SHARE_MIN
    }
}

/// The deletions of the last minute.
#[derive(Default)]
pub(crate) struct Brake {
    window: Mutex<Window>,
    /// Set by the transaction that holds back the first deletions.
    news: AtomicBool,
}

#[derive(Default)]
struct Window {
    deletions: VecDeque<(Instant, Ino)>,
    /// What the drive held before them, and when it was counted.
    drive: Option<(Instant, u64)>,
}

impl Window {
    fn add(&mut self, ino: Ino) -> u64 {
        let now = Instant::now();
        while let Some((at, _)) = self.deletions.front()
            && now.duration_since(*at) > WINDOW
        {
            self.deletions.pop_front();
        }
        self.deletions.push_back((now, ino));
        self.deletions.len() as u64
    }

    /// The number of items that the drive had before the deletions of the window.
    fn size_before(&mut self, r: &Reader<'_>) -> Result<u64, StoreError> {
        if let Some((at, items)) = self.drive
            && at.elapsed() < SIZE_AGE
        {
            return Ok(items);
        }
        // Counting goes over all items, too much for every single deletion.
        let items = r.count_known()? + self.deletions.len() as u64;
        self.drive = Some((Instant::now(), items));
        Ok(items)
    }
}

/// Deletions that are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, reason } = self;
        let (deletions, they) = if *count == 1 {
            ("deletion is", "it")
        } else {
            ("deletions are", "them")
        };
        write!(
            f,
            "{count} {deletions} held back, since {reason}; `onedrivefs retry` sends {they}, \
             `onedrivefs discard` brings the files back"
        )
    }
}

impl Engine {
    /// Counts a deletion in the transaction that records it, and holds it back when it is one too
    /// many, with all that were made in the minute before it and are not sent yet.
    ///
    /// # Errors
    /// The store's errors.
    pub fn count_deletion(&self, tx: &Tx<'_>, item: &Item) -> Result<(), StoreError> {
        *self.standing.last_deletion.lock() = Instant::now();
        if tx.is_holding()? {
            return tx.hold(item.ino);
        }
        let limits = self.config.brake;
        let mut window = self.brake.window.lock();
        let deletions = window.add(item.ino);
        let before = if limits.needs_size(deletions) {
            window.size_before(tx)?
        } else {
            0
        };
        let Some(passed) = limits.passed(deletions, before) else {
            return Ok(());
        };
        for (_, ino) in &window.deletions {
            tx.hold(*ino)?;
        }
        tx.set_meta(META_REASON, Some(&passed.to_string()))?;
        self.brake.news.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Holds back the deletion of a folder that makes room for another one, as long as deletions
    /// of what was in it may be held back.
    ///
    /// # Errors
    /// The store's errors.
    pub fn hold_with_content(&self, tx: &Tx<'_>, item: &Item) -> Result<(), StoreError> {
        if item.is_dir() && tx.is_holding()? {
            tx.hold(item.ino)?;
        }
        Ok(())
    }

    /// Tells about deletions that were held back just now. To be called after the commit.
    pub fn tell_held(&self) {
        if !self.brake.news.swap(false, Ordering::Relaxed) {
            return;
        }
        match self.held() {
            Ok(Some(held)) => {
                tracing::warn!(reason = held.reason, "Deletions are held back.");
                self.tell(Event::DeletionsHeld {
                    reason: held.reason,
                });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "Held deletions could not be counted."),
        }
    }

    /// The deletions that are held back.
    ///
    /// # Errors
    /// The store's errors.
    pub fn held(&self) -> Result<Option<Held>, StoreError> {
        self.store.read(held)
    }

    /// Begins to count anew: a person has decided about what was counted so far.
    pub(crate) fn count_anew(&self) {
        *self.brake.window.lock() = Window::default();
    }
}

/// The deletions that are held back.
pub(crate) fn held(r: &Reader<'_>) -> Result<Option<Held>, StoreError> {
    let count = r.count_held()?;
    if count == 0 {
        return Ok(None);
    }
    let reason = r.meta(META_REASON)?.unwrap_or_default();
    Ok(Some(Held { count, reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_both_can_be_switched_off() {
        let limits = BrakeLimits::default();
        assert_eq!(limits.passed(1000, 1_000_000), None);
        assert_eq!(limits.passed(1001, 1_000_000), Some(Passed::Count(1000)));
        assert_eq!(limits.passed(SHARE_MIN - 1, SHARE_MIN - 1), None);
        assert_eq!(limits.passed(SHARE_MIN, SHARE_MIN), Some(Passed::Share(33)));
        assert_eq!(limits.passed(SHARE_MIN - 1, 300), None);
        assert_eq!(limits.passed(SHARE_MIN, 400), None);
        assert_eq!(limits.passed(SHARE_MIN, 300), Some(Passed::Share(33)));
        let off = BrakeLimits {
            count: 0,
            share_percent: 0,
        };
        assert_eq!(off.passed(1_000_000, 1_000_000), None);
    }
}
