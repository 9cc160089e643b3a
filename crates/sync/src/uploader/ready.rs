//! What has to be sent before a row can be.
//!
//! A row waits for its folder to exist on the service, for the name it wants to be free there, and
//! for the things that have to leave a folder before it is deleted. Everything else is sent in
//! parallel.

use std::time::Duration;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{Item, JournalRow, Kind, Ops, Reader, StoreError};

use super::until;
use crate::apply::is_aside;
use crate::engine::Engine;
use crate::journal::stored_name;

/// How long a file that is still open for writing must have rested before what was saved of it is
/// sent: programs that keep a file open save again soon.
const OPEN_SETTLE: Duration = Duration::from_secs(10);

/// How long a file that is saved again and again is not sent for that reason.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// The same for a file that is open for writing all the time: each time all of it is sent.
const OPEN_SETTLE_MAX: Duration = Duration::from_secs(900);

/// Deepest chain of folders that is followed; the service allows far less.
const DEPTH_MAX: u32 = 4096;

/// Whether a row can be sent.
pub(crate) enum Readiness {
    /// It can.
    Now,
    /// It can after this long, unless something changes.
    In(Duration),
    /// Another row has to go first.
    Blocked,
}

impl Engine {
    /// Tells whether a row can be sent now.
    pub(crate) fn readiness(&self, row: &JournalRow) -> Result<Readiness, StoreError> {
        let now = Timestamp::now();
        let settled = earlier(
            later(row.touched, self.config.settle),
            later(row.since, SETTLE_MAX.max(self.config.settle)),
        );
        let at = settled.max(row.not_before);
        // A copy does not rest whose bytes are nowhere but in the version that it was made from:
        // somebody may take the original away.
        let unmade = |r: &Reader<'_>| r.is_unmade_copy(row.ino);
        if at > now && (row.not_before > now || !self.store.read(unmade)?) {
            return Ok(Readiness::In(until(at, now)));
        }
        if row.copy.is_some() {
            // To be asked after, whatever became of the file.
            return Ok(Readiness::Now);
        }
        let writing = self.writers.lock().contains_key(&row.ino);
        if writing && !row.ops.has(Ops::DELETE) {
            let rested = earlier(
                later(row.touched, OPEN_SETTLE),
                later(row.since, OPEN_SETTLE_MAX),
            );
            if rested > now {
                return Ok(Readiness::In(until(rested, now)));
            }
        }
        if row.ops.has(Ops::DELETE) {
            if self.holds.lock().contains(&row.ino) {
                return Ok(Readiness::Blocked);
            }
            if let Some(rest) = self.deletions_rest().or(self.waits_for_copy(row)?) {
                return Ok(Readiness::In(rest));
            }
        }
        self.store.read(|r| {
            let Some(item) = r.item(row.ino)? else {
                return Ok(Readiness::Now);
            };
            let free = if row.ops.has(Ops::DELETE) {
                can_delete(r, &item)?
            } else if is_aside(&item) {
                // Where it is will be asked: what is sent before would take it from there.
                false
            } else {
                !is_being_saved(r, &item, row, writing)? && can_place(r, &item, row)?
            };
            Ok(if free {
                Readiness::Now
            } else {
                Readiness::Blocked
            })
        })
    }
}

/// The earlier of two times.
fn earlier(a: Timestamp, b: Timestamp) -> Timestamp {
    if a < b { a } else { b }
}

/// A time after another.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_nanos(
        time.as_nanos()
            .saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)),
    )
}

/// A file that is written to and was not closed since is not sent: its content is nobody's save.
/// Neither is a new one that somebody is about to write.
fn is_being_saved(
    r: &Reader<'_>,
    item: &Item,
    row: &JournalRow,
    writing: bool,
) -> Result<bool, StoreError> {
    if !row.ops.has(Ops::CONTENT) && !row.ops.has(Ops::CREATE) {
        return Ok(false);
    }
    let Some(body) = item.body.map(|id| r.body(id)).transpose()?.flatten() else {
        return Ok(writing && item.kind == Kind::File);
    };
    Ok(body.dirty)
}

/// A folder is deleted after everything in it has left.
fn can_delete(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    if !item.is_dir() {
        return Ok(true);
    }
    // What unanswered requests may have put there has to leave it first.
    let made = r.unanswered_in(item.ino)?;
    for sent in made.into_iter().chain(r.unanswered_moves_into(item.ino)?) {
        if r.journal(sent.ino)?.is_some_and(|row| !row.parked) {
            return Ok(false);
        }
    }
    Ok(!r.is_being_left(item.ino)?)
}

/// An item needs its folder to be on the service and its name to be free there.
fn can_place(r: &Reader<'_>, item: &Item, row: &JournalRow) -> Result<bool, StoreError> {
    let moves = item.remote.is_none() || row.ops.has(Ops::MOVE);
    if !moves {
        return Ok(true);
    }
    let Some(parent) = item.parent else {
        return Ok(true);
    };
    if is_in_own_way(r, item)? {
        return Ok(true);
    }
    let Some(folder) = r.item(parent)?.filter(|folder| folder.remote.is_some()) else {
        return Ok(false);
    };
    if item.is_dir() && is_below(r, &folder, item.ino)? {
        return Ok(false);
    }
    for sent in r.unanswered_at(parent, &stored_name(item))? {
        // What may have been made there for another inode, which is gone by now, goes first.
        let goes = r
            .journal(sent.ino)?
            .is_some_and(|row| !row.parked && row.ops.has(Ops::DELETE));
        if goes && sent.ino != item.ino {
            return Ok(false);
        }
    }
    Ok(!waits_for_name(r, item)?)
}

/// Tells whether the name an item wants is about to become free on the service. Of items that want
/// each other's names one does not wait: it goes by way of a third name.
pub(super) fn waits_for_name(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    let Some(other) = occupant(r, item)? else {
        return Ok(false);
    };
    let leaves = leaves(r, &other)?;
    Ok(leaves.is_some_and(|moves| !moves || !is_cycle(r, item).unwrap_or(false)))
}

/// Tells whether an item moves into a folder that in turn waits for the name which the item has on
/// the service, as after `mv x y; mkdir x; mv y x`. It goes by way of a third name.
pub(super) fn is_in_own_way(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    if item.remote.is_none() {
        return Ok(false);
    }
    let mut at = item.parent;
    for _ in 0..DEPTH_MAX {
        let Some(folder) = at.map(|ino| r.item(ino)).transpose()?.flatten() else {
            return Ok(false);
        };
        let waits = folder.remote.is_none()
            || r.journal(folder.ino)?
                .is_some_and(|row| row.ops.has(Ops::MOVE));
        if !waits {
            return Ok(false);
        }
        if occupant(r, &folder)?.is_some_and(|other| other.ino == item.ino) {
            return Ok(true);
        }
        at = folder.parent;
    }
    Ok(false)
}

/// Tells whether a folder is, on the service, below another one.
fn is_below(r: &Reader<'_>, folder: &Item, ancestor: Ino) -> Result<bool, StoreError> {
    let mut at = Some(folder.clone());
    for _ in 0..DEPTH_MAX {
        let Some(item) = at else { return Ok(false) };
        if item.ino == ancestor {
            return Ok(true);
        }
        at = match item.remote.and_then(|remote| remote.parent) {
            Some(parent) => r.item(parent)?,
            None => None,
        };
    }
    Ok(false)
}

/// The item that holds the name an item wants on the service.
pub(super) fn occupant(r: &Reader<'_>, item: &Item) -> Result<Option<Item>, StoreError> {
    let Some(parent) = item.parent else {
        return Ok(None);
    };
    let holders = r.remote_children_named(parent, &stored_name(item))?;
    Ok(holders.into_iter().find(|other| other.ino != item.ino))
}

/// Tells whether an item waits to leave its name on the service; `None` when nothing waits for it
/// or it waits for a person, so that waiting for it is of no use.
fn leaves(r: &Reader<'_>, item: &Item) -> Result<Option<bool>, StoreError> {
    let Some(row) = r.journal(item.ino)?.filter(|row| !row.parked) else {
        return Ok(None);
    };
    if row.ops.has(Ops::DELETE) {
        return Ok(Some(false));
    }
    Ok(row.ops.has(Ops::MOVE).then_some(true))
}

/// Tells whether the chain of names that have to become free leads back to its beginning.
pub(super) fn is_cycle(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    let mut at = item.clone();
    for _ in 0..DEPTH_MAX {
        let Some(next) = occupant(r, &at)? else {
            return Ok(false);
        };
        if next.ino == item.ino {
            return Ok(true);
        }
        if leaves(r, &next)? != Some(true) {
            return Ok(false);
        }
        at = next;
    }
    Ok(false)
}
