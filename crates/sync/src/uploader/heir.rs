//! Saves that take the original out of the way first and leave it there: as a backup beside the
//! file, or deleted. What is made under its name is its next version all the same, so it takes over
//! the identity on the service, and a backup becomes an item of its own.
//!
//! That is decided when the rename or the deletion is about to be sent: each rests for a moment, by
//! the end of which such a program has made the new file, and what the new one is called and how old
//! it is tells a save from two files that have nothing to do with each other. Until then nothing on
//! the service has changed; after the rename or deletion was sent it is too late, and the new file
//! is a new item.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::{Timestamp, kill_point};
use onedrivefs_store::{Durable, Item, JournalRow, Kind, Ops, Place, Reader, Role, StoreError, Tx};

use super::settle::is_lasting;
use super::{Step, body_error, ready, source_of};
use crate::bodies::Bodies;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::Demand;
use crate::journal;

/// How long after the original was taken away the new file may be created. Programs need much less;
/// people who rename a file and make another one need more.
const CREATED_WITHIN: Duration = Duration::from_secs(10);

/// Largest original that is fetched, in bytes, so that it can become an item of its own. One that is
/// larger, and not here, keeps its identity under the name of the backup.
const FETCH_MAX: u64 = 64 << 20;

/// What programs and people append to a name to say that it is an older state of the file, after
/// a full stop. A number may follow.
const BACKUP_WORDS: &[&str] = &["bak", "backup", "old", "orig", "prev", "sav", "save"];

/// The file that was created under the name that an item has on the service, while the item itself
/// was renamed or unlinked.
///
/// # Errors
/// The store's errors.
pub fn heir_of(r: &Reader<'_>, item: &Item) -> Result<Option<Item>, StoreError> {
    if item.kind != Kind::File || item.role != Role::Ordinary || journal::is_home(item) {
        return Ok(None);
    }
    let remote = item.remote.as_ref();
    let Some((parent, name)) = remote.and_then(|r| Some((r.parent?, &r.name))) else {
        return Ok(None);
    };
    let heir = r.child(parent, name)?;
    Ok(heir.filter(|heir| {
        heir.ino != item.ino && heir.kind == Kind::File && heir.remote.is_none() && !heir.local_only
    }))
}

/// The file that is the next version of an item, although the item waits to be renamed or deleted.
pub(crate) fn next_version_of(
    r: &Reader<'_>,
    item: &Item,
    ops: Ops,
) -> Result<Option<Item>, StoreError> {
    let away = ops.has(Ops::DELETE) || ops.has(Ops::MOVE) && is_backup(item);
    if !away {
        return Ok(None);
    }
    let Some(heir) = heir_of(r, item)? else {
        return Ok(None);
    };
    // Perhaps it is elsewhere by now, and its name somebody else's.
    let elsewhere = journal::is_perhaps_moved(r, item)?;
    let soon = heir.btime <= ready::later(item.ctime, CREATED_WITHIN);
    Ok((soon && !elsewhere).then_some(heir))
}

/// Tells whether an item was given the name of a backup of itself, beside where it was.
fn is_backup(item: &Item) -> bool {
    item.remote.as_ref().is_some_and(|remote| {
        item.parent.is_some()
            && item.parent == remote.parent
            && is_backup_name(&item.name, &remote.name)
    })
}

/// Tells whether a name is that of a backup of the file `original`: `a.txt~`, `a.txt.~1~`,
/// `a.txt.bak`, `a.bak`.
fn is_backup_name(name: &str, original: &str) -> bool {
    let stem = original.rsplit_once('.').map(|(stem, _extension)| stem);
    let suffix = |of: &str| name.strip_prefix(of).filter(|_| !of.is_empty());
    suffix(original).is_some_and(|suffix| suffix == "~" || is_numbered(suffix) || is_word(suffix))
        || stem.and_then(suffix).is_some_and(is_word)
}

/// Tells whether a suffix is like `.~12~`.
fn is_numbered(suffix: &str) -> bool {
    let number = suffix.strip_prefix(".~").and_then(|s| s.strip_suffix('~'));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Tells whether a suffix is a full stop with a word for backups.
fn is_word(suffix: &str) -> bool {
    let word = suffix.strip_prefix('.').map(|word| {
        let word = word.strip_suffix('~').unwrap_or(word);
        word.trim_end_matches(|c: char| c.is_ascii_digit())
    });
    word.is_some_and(|word| BACKUP_WORDS.iter().any(|w| w.eq_ignore_ascii_case(word)))
}

/// What was saved of an original.
#[derive(Clone, Copy)]
pub(crate) enum Original {
    /// It was empty.
    Empty,
    /// The body with this number, all of which is on stable storage.
    Body(u64),
}

impl Engine {
    /// Passes the identity of an item that waits to be renamed or deleted on to the file that was
    /// saved in its place. `None` when there is none, and the item is to be sent as it is.
    pub(super) async fn pass_identity_on(
        &self,
        item: &Item,
        row: &JournalRow,
    ) -> Result<Option<Step>, EngineError> {
        if self
            .store
            .read(|r| next_version_of(r, item, row.ops))?
            .is_none()
        {
            return Ok(None);
        }
        let original = match row.ops.has(Ops::DELETE) {
            true => None,
            false => match self.bring_here(item).await? {
                None => return Ok(None),
                original => original,
            },
        };
        kill_point("before-identity-is-passed-on");
        let dropped = self.store.write(|tx| {
            let waiting = tx.journal(item.ino)?.filter(|row| !row.parked);
            let (Some(old), Some(now)) = (tx.item(item.ino)?, waiting) else {
                return Ok(None);
            };
            if now.ops.has(Ops::DELETE) != original.is_none() {
                return Ok(None);
            }
            let Some(heir) = next_version_of(tx, &old, now.ops)? else {
                return Ok(None);
            };
            // What is on its way for it would arrive as an item of its own.
            self.cancel_in_flight(heir.ino);
            match original {
                None => Ok::<_, EngineError>(Some(self.succeed(tx, old, heir)?)),
                Some(original) => {
                    let heir = make_backup(tx, &self.bodies, (old, original), heir)?;
                    Ok(heir.map(|_| None))
                }
            }
        })?;
        let Some(dropped) = dropped else {
            return Ok(None);
        };
        kill_point("identity-passed-on");
        self.bodies.remove_files(dropped.as_slice());
        Ok(Some(Step::Progress))
    }

    /// Makes sure that all of an original is on stable storage here: the service is about to have
    /// something else under its identity. `None` when it cannot be had.
    async fn bring_here(&self, item: &Item) -> Result<Option<Original>, EngineError> {
        if item.size == 0 {
            return Ok(Some(Original::Empty));
        }
        let found = self.store.write(|tx| {
            let row = item.body.map(|id| tx.body(id)).transpose()?.flatten();
            let whole = row.is_some_and(|row| row.ranges.is_none());
            // What was changed there since is not the original any more.
            let changed = item
                .remote
                .as_ref()
                .is_none_or(|remote| remote.mtime > item.ctime);
            if !whole && (changed || item.size > FETCH_MAX) {
                return Ok(None);
            }
            let found = self.bodies.find_or_create(tx, item.ino, Timestamp::now());
            found.map_err(body_error)
        })?;
        let Some((row, body)) = found else {
            return Ok(None);
        };
        if !body.is_complete() {
            let Some(source) = source_of(&self.config.drive.id, &row) else {
                return Ok(None);
            };
            let all = 0..body.size();
            let fetched = self.hydrator.ensure(&body, &source, all, Demand::Upload);
            match fetched.await {
                Ok(()) => {}
                Err(error) if is_lasting(&error) => {
                    tracing::debug!(ino = %item.ino, %error, "An original could not be fetched.");
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let bodies = Arc::clone(&self.bodies);
        let sync = move || bodies.content().make_durable(&body);
        match self.handle.spawn_blocking(sync).await {
            Ok(synced) => {
                synced?;
                Ok(Some(Original::Body(row.id)))
            }
            // The runtime ends.
            Err(_shutdown) => Ok(None),
        }
    }
}

/// Makes an original an item of its own, which the service does not have yet, and its heir the next
/// version of what the service has. Returns the heir as it is now, or `None` when that cannot be
/// done.
pub(crate) fn make_backup(
    tx: &Tx<'_>,
    bodies: &Bodies,
    (mut old, original): (Item, Original),
    heir: Item,
) -> Result<Option<Item>, StoreError> {
    match original {
        Original::Empty if old.size == 0 => {}
        Original::Body(id) if old.body == Some(id) && keep_original(tx, bodies, id)? => {}
        // It was written to meanwhile.
        _ => return Ok(None),
    }
    let now = Timestamp::now();
    let parent = old.parent;
    let heir = journal::inherit(tx, &mut old, heir, now)?;
    old.parent = parent;
    tx.update_item(&old)?;
    journal::set_ops(tx, old.ino, Ops::CREATE.with(Ops::CONTENT), now)?;
    Ok(Some(heir))
}

/// Moves a body into the spool that is on stable storage. Tells whether it is whole and saved.
fn keep_original(tx: &Tx<'_>, bodies: &Bodies, id: u64) -> Result<bool, StoreError> {
    let Some(mut row) = tx.body(id)?.filter(|row| !row.dirty) else {
        return Ok(false);
    };
    let body = match bodies.open(&row) {
        Ok(Some(body)) if body.is_complete() => body,
        Ok(_) => return Ok(false),
        Err(error) => {
            tracing::error!(body = id, %error, "An original could not be opened.");
            return Ok(false);
        }
    };
    row.ranges = None;
    if row.place == Place::Cache {
        if let Err(error) = bodies.content().promote(&body) {
            tracing::warn!(body = id, %error, "An original could not be moved into the spool.");
            return Ok(false);
        }
        row.place = Place::Spool;
        row.durable = Some(Durable {
            generation: row.generation,
            size: row.size,
            ranges: None,
        });
    }
    tx.update_body(&row)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::is_backup_name;

    #[test]
    fn backups_are_known_by_their_names() {
        for name in [
            "a.txt~",
            "a.txt.~1~",
            "a.txt.~12~",
            "a.txt.bak",
            "a.txt.BAK",
            "a.txt.bak2",
            "a.txt.bak~",
            "a.txt.orig",
            "a.txt.old",
            "a.bak",
            "a.old",
        ] {
            assert!(is_backup_name(name, "a.txt"), "{name}");
        }
        for name in [
            "a.txt",
            "b.txt",
            "a.txt.1",
            "a.txt.",
            "a.txt~1",
            "a.txt.~~",
            "a.txt.~x~",
            "a~",
            "a.txt.gz",
            "a.txt-2026",
            "a.golden",
            "a.txtbak",
            "b.txt~",
            "b.bak",
            "~",
            ".bak",
        ] {
            assert!(!is_backup_name(name, "a.txt"), "{name}");
        }
        assert!(is_backup_name("Makefile.orig", "Makefile"));
        assert!(!is_backup_name(".bak", ".profile"));
    }
}
