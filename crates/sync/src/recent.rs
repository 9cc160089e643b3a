//! Requests that ended and changes that were applied a moment ago.
//!
//! A page of changes is as old as the request that brought it. What it says about an item for which
//! a request of this machine ended since then may be older than what that request brought, and
//! must not undo it. The same holds for an item that was deleted since then: it must not appear
//! again. And an answer about one item may be older than what a round of changes brought meanwhile.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, ItemId};
use parking_lot::Mutex;

/// How long an ended request is remembered at least: longer than any single answer is under way.
const KEPT: Duration = Duration::from_secs(600);

/// When the last request for each inode ended.
#[derive(Default)]
pub(crate) struct Recent {
    ended: Mutex<HashMap<Ino, Instant>>,
    /// Items of the service that are unknown here, since this machine deleted them.
    deleted: Mutex<HashMap<String, Instant>>,
    /// Items that a round said something of.
    applied: Mutex<HashMap<String, Instant>>,
}

impl Recent {
    /// A request ended.
    pub(crate) fn note(&self, ino: Ino) {
        self.ended.lock().insert(ino, Instant::now());
    }

    /// Tells whether a request ended at or after a moment.
    pub(crate) fn since(&self, ino: Ino, moment: Instant) -> bool {
        self.ended.lock().get(&ino).is_some_and(|at| *at >= moment)
    }

    /// An item was deleted on the service, and is about to be forgotten here.
    pub(crate) fn note_deleted(&self, id: &ItemId) {
        self.deleted.lock().insert(id.key(), Instant::now());
    }

    /// Tells whether an item was deleted at or after a moment.
    pub(crate) fn deleted_since(&self, id: &ItemId, moment: Instant) -> bool {
        let deleted = self.deleted.lock();
        deleted.get(&id.key()).is_some_and(|at| *at >= moment)
    }

    /// A round said something of an item.
    pub(crate) fn note_applied(&self, id: &ItemId) {
        self.applied.lock().insert(id.key(), Instant::now());
    }

    /// Tells whether a round said something of an item at or after a moment.
    pub(crate) fn applied_since(&self, id: &ItemId, moment: Instant) -> bool {
        let applied = self.applied.lock();
        applied.get(&id.key()).is_some_and(|at| *at >= moment)
    }

    /// Forgets what ended before a moment.
    pub(crate) fn forget_before(&self, moment: Instant) {
        let oldest = Instant::now().checked_sub(KEPT).unwrap_or(moment);
        let limit = moment.min(oldest);
        self.ended.lock().retain(|_, at| *at >= limit);
        self.deleted.lock().retain(|_, at| *at >= limit);
        // Only single answers are compared with it, and a round may bring very many items.
        self.applied.lock().retain(|_, at| *at >= oldest);
    }
}
