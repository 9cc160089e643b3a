//! What a deletion waits for that is not in its own drive.
//!
//! A program moves a file into another drive by copying it and deleting the original. The original
//! stays on the service until that has the copy, whose hash is compared when it arrives. Which file
//! is a copy of which nobody says, so a deletion waits for files of the same size that were saved
//! before it: new ones, and such that were there and got another content.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::Timestamp;
use onedrivefs_store::{JournalRow, Kind, Ops, StoreError};

use crate::engine::Engine;

/// Pause between two looks whether a copy was sent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Rows read per query.
const WINDOW: u32 = 256;

/// Sizes of files whose content the service does not have, and when the first of each was saved.
pub(crate) struct UnsentSizes {
    looked: Timestamp,
    sizes: Arc<HashMap<u64, Timestamp>>,
}

impl Engine {
    /// For how long deletions still rest, because the last one was a moment ago.
    pub(super) fn deletions_rest(&self) -> Option<Duration> {
        let rested = self.standing.last_deletion.lock().elapsed();
        (self.config.deletion_rest)
            .checked_sub(rested)
            .filter(|rest| !rest.is_zero())
    }

    /// Whether a deletion waits for a file in another drive that may be the copy of what is deleted,
    /// and when to look again.
    pub(super) fn waits_for_copy(&self, row: &JournalRow) -> Result<Option<Duration>, StoreError> {
        let others = self.config.family.members();
        let mut others = others
            .iter()
            .filter(|other| !std::ptr::eq(other.as_ref(), self))
            .peekable();
        let gathering = self.config.family.is_gathering();
        if others.peek().is_none() && !gathering {
            return Ok(None);
        }
        let Some(item) = self.store.item(row.ino)? else {
            return Ok(None);
        };
        if item.kind != Kind::File || item.size == 0 || item.remote.is_none() {
            return Ok(None);
        }
        if gathering {
            // The copy may wait in a drive that is not served again yet.
            return Ok(Some(LOOK_EVERY));
        }
        for other in others {
            let made = other.unsent_sizes(row.touched)?.get(&item.size).copied();
            if made.is_some_and(|made| made <= row.touched) {
                return Ok(Some(LOOK_EVERY));
            }
        }
        Ok(None)
    }

    /// How many deletions wait for copies in other drives that wait for a person, if nothing else is
    /// waited for: then there is nothing to wait for.
    pub(crate) fn waits_for_parked_copies(&self) -> Result<Option<u64>, StoreError> {
        let mut parked = HashSet::new();
        for other in self.config.family.members() {
            if std::ptr::eq(other.as_ref(), self) {
                continue;
            }
            other.store.read(|r| {
                for row in r.parked()?.iter().filter(|row| may_be_copy(row.ops)) {
                    parked.extend(r.item(row.ino)?.map(|item| item.size));
                }
                Ok::<_, StoreError>(())
            })?;
        }
        if parked.is_empty() {
            return Ok(None);
        }
        self.store.read(|r| {
            let (mut waiting, mut after) = (0, 0);
            loop {
                let rows = r.journal_after(after, WINDOW)?;
                let Some(last) = rows.last() else {
                    return Ok((waiting > 0).then_some(waiting));
                };
                after = last.seq;
                for row in rows {
                    let item = r.item(row.ino)?.filter(|_| row.ops.has(Ops::DELETE));
                    match item {
                        // A folder waits for what is in it.
                        Some(item) if item.is_dir() => {}
                        Some(item) if parked.contains(&item.size) => waiting += 1,
                        _ => return Ok(None),
                    }
                }
            }
        })
    }

    /// The sizes of files whose content waits to be sent, as they were at a time or later.
    fn unsent_sizes(&self, since: Timestamp) -> Result<Arc<HashMap<u64, Timestamp>>, StoreError> {
        let mut known = self.standing.unsent_sizes.lock();
        let now = Timestamp::now();
        let fresh = |known: &UnsentSizes| {
            let age = now.as_nanos().saturating_sub(known.looked.as_nanos());
            known.looked > since && u128::try_from(age).is_ok_and(|age| age < LOOK_EVERY.as_nanos())
        };
        if let Some(known) = known.as_ref().filter(|known| fresh(known)) {
            return Ok(Arc::clone(&known.sizes));
        }
        let sizes = self.store.read(|r| {
            let mut sizes = HashMap::new();
            let mut after = 0;
            loop {
                let rows = r.whole_journal_after(after, WINDOW)?;
                let Some(last) = rows.last() else {
                    return Ok::<_, StoreError>(sizes);
                };
                after = last.seq;
                for row in rows.iter().filter(|row| may_be_copy(row.ops)) {
                    let item = r.item(row.ino)?.filter(|item| item.kind == Kind::File);
                    if let Some(item) = item {
                        let first = sizes.entry(item.size).or_insert(row.since);
                        *first = (*first).min(row.since);
                    }
                }
            }
        })?;
        let sizes = Arc::new(sizes);
        *known = Some(UnsentSizes {
            looked: now,
            sizes: Arc::clone(&sizes),
        });
        Ok(sizes)
    }
}

/// Tells whether what waits to be sent for a file may be the copy of another one.
fn may_be_copy(ops: Ops) -> bool {
    ops.has(Ops::CREATE) || ops.has(Ops::CONTENT)
}
