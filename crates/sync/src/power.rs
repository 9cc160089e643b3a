//! What is made of bodies after the machine went down without a goodbye.
//!
//! The database is as it was after some commit, and every file may hold any part of what was
//! written to it since it was last synced. A body whose last save is noted as being on stable
//! storage is trusted. Of any other nobody knows whether its bytes are what a program wrote; it must
//! neither be read under the file's name nor replace a good version on the service. The file goes
//! back to what is certain: the save before, the version on the service, or, if it had neither,
//! nothing. The doubtful bytes are set aside in the state directory and listed by `status`.

use std::fs;
use std::path::{Path, PathBuf};

use onedrivefs_content::{Body, BodyId, Place as Folder, RangeSet};
use onedrivefs_core::Timestamp;
use onedrivefs_store::{BodyRow, ConflictRow, Durable, Item, Ops, Place, Store, StoreError, Tx};

use crate::bodies::Bodies;
use crate::error::EngineError;
use crate::fold::Change;
use crate::journal;

/// Key of the metadata table under which the machine's start is kept at which the state was in use.
/// Absent while it is in order.
const META_BOOT: &str = "boot";

/// Folder of the state directory that takes what is in doubt.
const KEPT: &str = "recovered";

/// Longest part of a name that is kept in the name of a doubtful file, in bytes.
const NAME_MAX_BYTES: usize = 150;

/// Tells which start of the machine this is; `None` where the kernel does not say.
fn boot_id() -> Option<String> {
    let file = PathBuf::from("/proc/sys/kernel/random/boot_id");
    #[cfg(debug_assertions)]
    let file = std::env::var_os("ONEDRIVEFS_BOOT_ID_FILE").map_or(file, PathBuf::from);
    let text = fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Tells whether the machine went down while the state was in use.
pub(crate) fn was_cut(store: &Store) -> Result<bool, StoreError> {
    let then = store.read(|r| r.meta(META_BOOT))?;
    Ok(then.is_some() && boot_id().is_some_and(|now| Some(now) != then))
}

/// Notes that the state is in use, as soon as anything in it changes.
pub(crate) fn note_in_use(store: &Store) {
    if let Some(now) = boot_id() {
        store.set_meta_with_next_commit(META_BOOT, now);
    }
}

/// Notes that the state is in order: whatever happens to the machine now does it no harm. Must be
/// called after everything is on stable storage, and does nothing if something is not.
pub(crate) fn note_in_order(store: &Store) -> Result<(), StoreError> {
    if store.read(|r| r.meta(META_BOOT))?.is_none() {
        return Ok(());
    }
    store.write(|tx| {
        if tx.unsynced_bodies()?.is_empty() && tx.dirty_bodies()?.is_empty() {
            tx.set_meta(META_BOOT, None)?;
        }
        Ok::<_, StoreError>(())
    })?;
    store.sync()
}

/// Takes every file back to what is certain. Running it again changes nothing.
pub(crate) fn undo_uncertain(
    store: &Store,
    bodies: &Bodies,
    state_dir: &Path,
) -> Result<(), EngineError> {
    tracing::warn!("The machine went down while this drive was mounted.");
    for row in store.read(|r| r.spooled_bodies())? {
        let owner = store.read(|r| r.item(row.ino))?;
        let Some(owner) = owner.filter(|item| item.body == Some(row.id)) else {
            continue;
        };
        if row.copy_of().is_some() && !row.is_durable() {
            renew_copy(store, bodies, row)?;
            continue;
        }
        let body = bodies.open(&row).unwrap_or_else(|error| {
            tracing::error!(path = owner.name, %error, "A body could not be opened.");
            None
        });
        match &row.durable {
            Some(durable) if body.as_ref().is_some_and(|b| b.size() >= durable.size) => {
                trust(store, row, body)?;
            }
            _ => distrust(store, bodies, &owner, row, body.as_deref(), state_dir)?,
        }
    }
    bring_home(store, bodies)?;
    bring_back(store, bodies)?;
    for place in [Folder::Spool, Folder::Cache] {
        bodies.content().sync_dir(place)?;
    }
    Ok(())
}

/// An unchanged copy of a version that the service has: whatever of it was here is in doubt, and all
/// of it can be had there.
fn renew_copy(store: &Store, bodies: &Bodies, mut row: BodyRow) -> Result<(), EngineError> {
    let content = bodies.content();
    let body = content.create_unfilled(BodyId(row.id), row.size)?;
    content.make_durable(&body)?;
    row.place = Place::Spool;
    row.ranges = Some(RangeSet::new());
    row.hash = row.base_hash;
    row.durable = Some(Durable {
        generation: row.generation,
        size: row.size,
        ranges: row.ranges.clone(),
    });
    Ok(store.write(|tx| tx.update_body(&row))?)
}

/// A body with a save on stable storage: it is what it was at that save. What was written later in
/// place, to a body too large to be copied first, may be there or not, sector by sector, as on a
/// local disk; it is the only copy.
fn trust(
    store: &Store,
    mut row: BodyRow,
    body: Option<std::sync::Arc<Body>>,
) -> Result<(), EngineError> {
    let (Some(body), Some(mut durable)) = (body, row.durable.clone()) else {
        return Ok(());
    };
    if body.size() > durable.size {
        body.set_len(durable.size)
            .map_err(|source| EngineError::Body {
                body: row.id,
                source,
            })?;
    }
    if row.is_durable() {
        return Ok(());
    }
    // Other bytes than those of the last save: what was begun to be sent of that is not gone on with.
    row.generation += 1;
    durable.generation = row.generation;
    row.dirty = false;
    row.hash = None;
    row.size = durable.size;
    row.ranges.clone_from(&durable.ranges);
    row.durable = Some(durable);
    store.write(|tx| {
        tx.update_body(&row)?;
        if let Some(mut item) = tx.item(row.ino)? {
            item.size = row.size;
            tx.update_item(&item)?;
            if item.parent.is_some() {
                journal::record(tx, &item, Change::Saved, false, Timestamp::now())?;
            }
        }
        Ok::<_, EngineError>(())
    })
}

/// A body of which no save is on stable storage.
fn distrust(
    store: &Store,
    bodies: &Bodies,
    owner: &Item,
    row: BodyRow,
    body: Option<&Body>,
    state_dir: &Path,
) -> Result<(), EngineError> {
    // Less than was saved is no use to anybody.
    let whole =
        row.size > 0 && row.ranges.is_none() && body.is_some_and(|body| body.size() >= row.size);
    let kept = if whole {
        set_aside(bodies, owner, row.id, state_dir)?
    } else {
        None
    };
    store.write(|tx| {
        let Some(mut item) = tx.item(row.ino)? else {
            return Ok(());
        };
        let path = tx.path(item.ino)?;
        go_back(tx, bodies, &mut item, &row)?;
        tracing::error!(
            path,
            size = item.size,
            kept = kept.as_ref().map(|kept| kept.display().to_string()),
            "What was saved last was not on disk yet when the machine went down; an earlier state is back."
        );
        if let Some(kept) = &kept {
            tx.add_conflict(&ConflictRow {
                path,
                copy: kept.display().to_string(),
                at: Timestamp::now(),
            })?;
        }
        Ok::<_, EngineError>(())
    })?;
    // Its row is gone, so that its file goes with the others that nobody knows.
    Ok(())
}

/// Takes an item back to what is certain.
fn go_back(tx: &Tx<'_>, bodies: &Bodies, item: &mut Item, row: &BodyRow) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let waiting = tx.journal(item.ino)?.map_or(Ops::NONE, |row| row.ops);
    let mut left = waiting;
    item.body = None;
    let mut doubtful = row.clone();
    let mut certain = None;
    while let Some(previous) = doubtful.previous.take() {
        tx.update_body(&doubtful)?;
        tx.delete_body(doubtful.id)?;
        let Some(previous) = tx.body(previous)? else {
            break;
        };
        // The cache may have been wiped since.
        if previous.is_durable() && matches!(bodies.open(&previous), Ok(Some(_))) {
            certain = Some(previous);
            break;
        }
        doubtful = previous;
    }
    if let Some(previous) = certain {
        // It may be the content of a file that this one replaced, which has an item of its own.
        let is_sent = previous.place == Place::Cache
            && item.remote.is_some()
            && previous.base_item.as_ref() == item.item_id();
        left = match is_sent {
            true => left.without(Ops::CONTENT),
            false => left.with(Ops::CONTENT),
        };
        Bodies::give_back(tx, item, previous)?;
    } else {
        tx.delete_body(doubtful.id)?;
        match &item.remote {
            Some(remote) => {
                item.size = remote.size;
                item.mtime = remote.mtime;
                left = left.without(Ops::CONTENT);
            }
            None => item.size = 0,
        }
    }
    tx.update_item(item)?;
    if left != waiting && item.parent.is_some() && !item.local_only {
        journal::set_ops(tx, item.ino, left, now)?;
    }
    Ok(())
}

/// Moves a doubtful body out of the spool; `None` when there is nothing to move.
fn set_aside(
    bodies: &Bodies,
    owner: &Item,
    id: u64,
    state_dir: &Path,
) -> Result<Option<PathBuf>, EngineError> {
    let now = Timestamp::now().seconds();
    let kept = kept_folder(state_dir)?.join(kept_name(&format!("{now}-{id:x}"), &owner.name));
    let moved = bodies.content().set_aside(BodyId(id), &kept)?;
    Ok(moved.then_some(kept))
}

/// The folder of a state directory that takes what is in doubt, or has no place any more.
pub(crate) fn kept_folder(state_dir: &Path) -> Result<PathBuf, EngineError> {
    let folder = state_dir.join(KEPT);
    match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(EngineError::State {
            path: folder,
            source,
        }),
    }
}

/// The name under which a file is kept there.
pub(crate) fn kept_name(mark: &str, name: &str) -> String {
    let mut end = name.len().min(NAME_MAX_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{mark}-{}", &name[..end])
}

/// Bodies of the spool that an answer moved to the cache, where anybody may delete them, in a commit
/// that is not there any more.
fn bring_back(store: &Store, bodies: &Bodies) -> Result<(), EngineError> {
    for row in store.read(|r| r.spooled_bodies())? {
        if row.place == Place::Spool
            && let Some(body) = bodies.open(&row).ok().flatten()
        {
            bodies.content().promote(&body)?;
        }
    }
    Ok(())
}

/// Bodies of the cache that were moved to the spool to be written, by a commit that is not there any
/// more. Nothing they held then was touched before that commit was on stable storage.
fn bring_home(store: &Store, bodies: &Bodies) -> Result<(), EngineError> {
    for stored in bodies.content().list(Folder::Spool)? {
        let row = store.read(|r| r.body(stored.id.0))?;
        let Some(row) = row.filter(|row| row.place == Place::Cache && !row.dirty) else {
            continue;
        };
        let Some(body) = bodies.open(&row).ok().flatten() else {
            continue;
        };
        if body.size() > row.size {
            body.set_len(row.size).map_err(|source| EngineError::Body {
                body: row.id,
                source,
            })?;
        }
        bodies.content().demote(&body)?;
    }
    Ok(())
}
