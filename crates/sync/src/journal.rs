//! Recording changes in the journal, inside the transaction that makes them.

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{Item, JournalRow, Kind, Ops, Reader, Session, Store, StoreError, Tx};

use crate::fold::{Change, Standing, fold};

/// Tells whether the item is where the service has it, under the very same spelling.
#[must_use]
pub fn is_home(item: &Item) -> bool {
    item.remote.as_ref().is_some_and(|remote| {
        item.parent == remote.parent && item.name == remote_display_name(item, &remote.name)
    })
}

/// Tells whether an item is shown under another name than the service has for it only because that
/// one is taken here. Nobody gave it the name it has.
///
/// # Errors
/// The store's errors.
pub fn is_displaced(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    let Some(remote) = &item.remote else {
        return Ok(false);
    };
    if item.parent.is_none() || item.parent != remote.parent || is_home(item) {
        return Ok(false);
    }
    let moves = r
        .journal(item.ino)?
        .is_some_and(|row| row.ops.has(Ops::MOVE));
    Ok(!moves && !is_perhaps_moved(r, item)?)
}

/// Tells whether an item may be in another place on the service than was last seen, because a
/// request that moves it was not answered.
///
/// # Errors
/// The store's errors.
pub(crate) fn is_perhaps_moved(r: &Reader<'_>, item: &Item) -> Result<bool, StoreError> {
    let moves = item
        .item_id()
        .map(|id| r.unanswered_moves(id))
        .transpose()?;
    Ok(moves.is_some_and(|moves| !moves.is_empty()))
}

/// The suffix under which symbolic links are stored, the one other clients use.
pub const LINK_SUFFIX: &str = ".rclonelink";

/// The name an item of the service has in the mount.
fn remote_display_name<'a>(item: &Item, remote_name: &'a str) -> &'a str {
    if item.kind == Kind::Symlink {
        remote_name.strip_suffix(LINK_SUFFIX).unwrap_or(remote_name)
    } else {
        remote_name
    }
}

/// The name under which an item is stored on the service, before encoding.
#[must_use]
pub fn stored_name(item: &Item) -> String {
    if item.kind == Kind::Symlink {
        format!("{}{LINK_SUFFIX}", item.name)
    } else {
        item.name.clone()
    }
}

/// The beginning of the names that items have on the service for a moment, while their own are not
/// free yet. What tells this machine from others follows.
const SWAP_PREFIX: &str = ".onedrivefs-swap-";

/// Key of what tells this machine's names of that kind from those of others.
const META_SWAP: &str = "swap_names";

/// A name for the moment in which two items swap theirs.
///
/// # Errors
/// The store's errors.
pub(crate) fn swap_name(store: &Store) -> Result<String, StoreError> {
    let known = store.read(|r| r.meta(META_SWAP))?;
    let own = match known {
        Some(own) => own,
        None => {
            let own = format!("{:08x}", rand::random::<u32>());
            store.write(|tx| tx.set_meta(META_SWAP, Some(&own)))?;
            // Before anything on the service has such a name.
            store.sync()?;
            own
        }
    };
    Ok(format!("{SWAP_PREFIX}{own}-{:08x}", rand::random::<u32>()))
}

/// Tells whether this machine gave an item its name, on the way to another one.
///
/// # Errors
/// The store's errors.
pub(crate) fn is_swap_name(r: &Reader<'_>, name: &str) -> Result<bool, StoreError> {
    let Some(rest) = name.strip_prefix(SWAP_PREFIX) else {
        return Ok(false);
    };
    let own = r.meta(META_SWAP)?;
    Ok(own.is_some_and(|own| rest.starts_with(&own)))
}

/// Records a change of an item. Items that never leave this machine have no row.
///
/// # Errors
/// The store's errors.
pub fn record(
    tx: &Tx<'_>,
    item: &Item,
    change: Change,
    in_flight: bool,
    now: Timestamp,
) -> Result<Ops, StoreError> {
    if item.local_only {
        return Ok(Ops::NONE);
    }
    let change = match change {
        // Perhaps it is not home any more: a request that moved it has not been answered.
        Change::Moved { home: true } if is_perhaps_moved(tx, item)? => {
            Change::Moved { home: false }
        }
        other => other,
    };
    let standing = if item.remote.is_some() {
        Standing::Known
    } else if in_flight || !tx.unanswered_of(item.ino)?.is_empty() {
        Standing::InFlight
    } else {
        Standing::Unknown
    };
    let mut row = open_row(tx, item.ino, now)?;
    if matches!(change, Change::Moved { .. }) && item.remote.is_none() {
        // It would make the file under the name it was begun for.
        disown_session(&mut row);
    }
    row.ops = fold(row.ops, change, standing);
    let ops = row.ops;
    if ops.is_empty() {
        forget(tx, item.ino, now)?;
    } else {
        tx.put_journal(&row)?;
    }
    Ok(ops)
}

/// Forgets what waits for an inode. An upload session that was begun for it is ended, and what the
/// service is making for it is deleted.
///
/// # Errors
/// The store's errors.
pub fn forget(tx: &Tx<'_>, ino: Ino, now: Timestamp) -> Result<(), StoreError> {
    if tx.journal(ino)?.is_some_and(|row| row.copy.is_some()) {
        abandon_unanswered(tx, ino, now)?;
    }
    if let Some(session) = tx.journal(ino)?.and_then(|row| row.session) {
        abandon(tx, session, now)?;
    }
    tx.delete_journal(ino)
}

/// Has deleted what unanswered requests may have created for an inode, which is about to stand for
/// another item of the service. An upload session that was begun for it is ended first: until then
/// it may still create something.
///
/// # Errors
/// The store's errors.
pub fn abandon_unanswered(tx: &Tx<'_>, ino: Ino, now: Timestamp) -> Result<(), StoreError> {
    let Some(sent) = tx.unanswered_of(ino)?.pop() else {
        return Ok(());
    };
    let kind = if sent.size.is_some() {
        Kind::File
    } else {
        Kind::Directory
    };
    let mut stray = Item::new(kind, Ino::ROOT, &sent.name, now);
    stray.parent = None;
    let stray = tx.insert_item(&stray)?;
    tx.move_unanswered(ino, stray)?;
    set_ops(tx, stray, Ops::DELETE, now)?;
    let (Some(mut row), Some(mut stray)) = (tx.journal(ino)?, tx.journal(stray)?) else {
        return Ok(());
    };
    // A copy that the service is still making has to be followed to its end first.
    stray.copy = row.copy.take();
    stray.session = row.session.take();
    tx.put_journal(&row)?;
    tx.put_journal(&stray)
}

/// Has an upload session ended that nothing goes on with. Until it is ended the service may hold
/// the name it was begun for, so it gets a row of its own: that of a file that is gone.
///
/// # Errors
/// The store's errors.
pub fn abandon(tx: &Tx<'_>, session: Session, now: Timestamp) -> Result<(), StoreError> {
    let mut stray = Item::new(Kind::File, Ino::ROOT, "", now);
    stray.parent = None;
    let ino = tx.insert_item(&stray)?;
    let mut row = tx.new_journal(ino, now)?;
    row.ops = Ops::DELETE;
    row.session = Some(session);
    tx.put_journal(&row)
}

/// The row of an inode, new or existing, made ready for another change: what happened meanwhile
/// ends any waiting for a next try or for a person. Only a deletion that is held back stays so.
///
/// # Errors
/// The store's errors.
pub fn open_row(tx: &Tx<'_>, ino: Ino, now: Timestamp) -> Result<JournalRow, StoreError> {
    let mut row = match tx.journal(ino)? {
        Some(row) => row,
        None => tx.new_journal(ino, now)?,
    };
    row.change += 1;
    row.touched = now;
    row.not_before = Timestamp::from_nanos(0);
    row.attempts = 0;
    row.parked = row.held;
    row.error = None;
    Ok(row)
}

/// Replaces the set of an inode by another, keeping its place in the order.
///
/// # Errors
/// The store's errors.
pub fn set_ops(tx: &Tx<'_>, ino: Ino, ops: Ops, now: Timestamp) -> Result<(), StoreError> {
    if ops.is_empty() {
        return forget(tx, ino, now);
    }
    let mut row = open_row(tx, ino, now)?;
    row.ops = ops;
    if !ops.has(Ops::DELETE) {
        (row.held, row.parked) = (false, false);
    }
    tx.put_journal(&row)
}

/// Lets a row be sent that waits for a person.
///
/// # Errors
/// The store's errors.
pub fn release(tx: &Tx<'_>, ino: Ino, now: Timestamp) -> Result<(), StoreError> {
    let mut row = open_row(tx, ino, now)?;
    (row.held, row.parked) = (false, false);
    disown_session(&mut row);
    tx.put_journal(&row)
}

/// Passes the identity on the service from `old`, which was unlinked here, to `new`, which has
/// taken its name: its content becomes the next version, and a folder is the one that was there.
/// Nothing waits for `old` any more, and nothing on the service stands for it. Returns `new` as it
/// is now. The body of `new` must be in the spool.
///
/// # Errors
/// The store's errors.
pub fn inherit(
    tx: &Tx<'_>,
    old: &mut Item,
    mut new: Item,
    now: Timestamp,
) -> Result<Item, StoreError> {
    let remote = old.remote.take();
    old.parent = None;
    tx.update_item(old)?;
    tx.move_pin(old.ino, new.ino)?;
    let begun = tx.journal(old.ino)?.and_then(|row| row.session);
    tx.delete_journal(old.ino)?;
    abandon_unanswered(tx, new.ino, now)?;
    if let Some(remote) = &remote {
        tx.pass_unanswered(&remote.id, new.ino)?;
    }
    new.remote = remote;
    new.epoch = old.epoch;
    new.local_only = false;
    if new.is_dir() {
        tx.move_remote_children(old.ino, new.ino)?;
    }
    tx.update_item(&new)?;
    let mut row = open_row(tx, new.ino, now)?;
    row.ops = match new.kind {
        Kind::Directory => Ops::NONE,
        // An empty file has no body to speak of; its content is new all the same.
        _ => Ops::CONTENT.with(Ops::TIMES),
    };
    if !is_home(&new) {
        row.ops = row.ops.with(Ops::MOVE);
    }
    // Neither goes where this content goes now. The one for the old file is ended first of all,
    // since the service may allow one at a time for a name.
    if let Some(other) = begun.as_ref().and(row.session.take()) {
        abandon(tx, other, now)?;
    }
    row.session = begun.or(row.session);
    disown_session(&mut row);
    tx.put_journal(&row)?;
    Ok(new)
}

/// Makes sure that a begun upload session is not gone on with but ended: the content has another
/// destination than the one it was begun for.
pub fn disown_session(row: &mut JournalRow) {
    if let Some(session) = &mut row.session {
        // No body has this number.
        session.body = 0;
    }
}
