//! Renames, and the saves that programs build from them.
//!
//! Programs save by writing a temporary file and renaming it over the original, often with a
//! backup in between. To everybody else that is one file with a new version, so the identity on
//! the service (its id, hence its history and its share links) passes from the old inode to the
//! new one.

use std::ffi::OsStr;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Place, Role, Tx};
use onedrivefs_sync::apply::reclaim;
use onedrivefs_sync::fold::Change;
use onedrivefs_sync::{heir_of, journal};

use crate::error::VfsError;
use crate::namespace::{Removal, check_visible, touch};
use crate::types::RenameMode;
use crate::vfs::Vfs;

/// How young a file must be for its rename over another one to be a save. Older ones are files in
/// their own right.
const SAVE_AGE_NANOS: i64 = 120 * 1_000_000_000;

/// Deepest tree that is walked.
const DEPTH_MAX: u32 = 4096;

impl Vfs {
    /// Renames an entry, moves it, or swaps two.
    ///
    /// # Errors
    /// Those of rename(2); `CrossDevice` for moving something the service has into a directory that
    /// never leaves this machine, so that the caller copies instead.
    pub fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let old = name.to_str().ok_or(VfsError::NotUtf8)?;
        let new = self.new_name(new_name)?;
        self.writable_directory(parent)?;
        self.writable_directory(new_parent)?;
        self.check_rename_paths((parent, old), (new_parent, new), mode)?;
        let now = Self::now();
        let (dropped, stored, replaced, shown) = self.store().write(|tx| {
            let source = tx.child(parent, old)?.ok_or(VfsError::NotFound)?;
            let target = tx
                .child(new_parent, new)?
                .filter(|target| target.ino != source.ino || mode == RenameMode::Exchange);
            if source.is_dir() && is_inside(tx, new_parent, source.ino)? {
                return Err(VfsError::InvalidArgument);
            }
            self.check_renaming(&source, target.as_ref(), (new_parent, new), mode)?;
            let replaced = target
                .as_ref()
                .filter(|target| target.is_dir() && mode == RenameMode::Replace)
                .map(|target| target.ino);
            let stored = (
                source.name.clone(),
                target.as_ref().map(|target| target.name.clone()),
            );
            // Otherwise its name is free when the rename was sent.
            let leaves = mode != RenameMode::Exchange && !journal::is_home(&source);
            let dropped = match (mode, target) {
                // Two spellings of one name.
                (RenameMode::Exchange, Some(target)) if target.ino == source.ino => None,
                (RenameMode::Exchange, Some(target)) => {
                    self.exchange(tx, source, target, now)?;
                    None
                }
                (RenameMode::Exchange, None) => return Err(VfsError::NotFound),
                (RenameMode::NoReplace, Some(_)) => return Err(VfsError::Exists),
                (_, target) => self.replace(tx, source, target, (new_parent, new), now)?,
            };
            for directory in [parent, new_parent] {
                if let Some(item) = tx.item(directory)? {
                    touch(tx, item, now)?;
                }
            }
            let shown = if leaves {
                reclaim(tx, parent, &stored.0)?
            } else {
                Vec::new()
            };
            Ok::<_, VfsError>((dropped, stored, replaced, shown))
        })?;
        if let Some(directory) = replaced {
            self.directory_removed(directory);
        }
        self.forget_other_spellings(new_parent, new);
        if mode == RenameMode::Exchange {
            // The kernel swaps what it remembers of the two names, and for how long.
            self.forget_asked_spelling(parent, old, &stored.0);
            self.forget_asked_spelling(new_parent, new, stored.1.as_deref().unwrap_or(old));
        }
        self.forget_stored_spelling(parent, old, stored.0);
        if let Some(target) = stored.1 {
            self.forget_stored_spelling(new_parent, new, target);
        }
        self.forget_entries(shown);
        self.engine.bodies.remove_files(dropped.as_slice());
        self.engine.wake_uploader();
        Ok(())
    }

    /// Checks that the service can take what is renamed. Done before the transaction, since it looks
    /// at all that is in a folder; what is created there meanwhile is not seen.
    fn check_rename_paths(
        &self,
        (parent, name): (Ino, &str),
        (new_parent, new_name): (Ino, &str),
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let child = |parent, name| self.store().read(|r| r.child(parent, name));
        let stays = |item: &Item, parent, name| {
            let local = self.directory(parent)?.local_only;
            let unsent = item.local_only || item.remote.is_none();
            Ok::<_, VfsError>(local || unsent && self.engine.config.local_only.matches(name))
        };
        if let Some(item) = child(parent, name)?
            && !stays(&item, new_parent, new_name)?
        {
            self.check_moved_path(&item, new_parent, new_name)?;
        }
        if mode == RenameMode::Exchange
            && let Some(item) = child(new_parent, new_name)?
            && !stays(&item, parent, name)?
        {
            self.check_moved_path(&item, parent, name)?;
        }
        Ok(())
    }

    /// Moves `source` to a name, in the place of `target` if there is one.
    fn replace(
        &self,
        tx: &Tx<'_>,
        mut source: Item,
        target: Option<Item>,
        (parent, name): (Ino, &str),
        now: Timestamp,
    ) -> Result<Option<BodyRow>, VfsError> {
        let local_only = self.stays_local(tx, &source, parent, name)?;
        if local_only && !source.local_only {
            journal::abandon_unanswered(tx, source.ino, now)?;
            journal::forget(tx, source.ino, now)?;
        }
        let mut dropped = None;
        let mut shown_as = None;
        if let Some(mut target) = target {
            check_replaceable(tx, &source, &target)?;
            let unsent = target.remote.is_none() && !target.is_dir();
            if !local_only && self.is_save(tx, &source, &target, now)? {
                if journal::is_displaced(tx, &target)? {
                    shown_as = Some(target.name.clone());
                }
                self.drop_identity(tx, &mut source, now)?;
                source = self.hand_over(tx, &mut target, source, now)?;
            }
            keep_until_durable(tx, &source, &target)?;
            if unsent {
                // A save of something that was not sent yet: what people pinned is the name.
                tx.move_pin(target.ino, source.ino)?;
            }
            dropped = self.unlink_item(tx, target, Removal::Replaced, now)?;
        }
        let published = source.local_only && !local_only;
        source.parent = Some(parent);
        source.name = shown_as.clone().unwrap_or_else(|| name.to_owned());
        source.local_only = local_only;
        source.ctime = now;
        tx.update_item(&source)?;
        if published {
            self.publish(tx, &source, now, 0)?;
        } else if shown_as.is_some() {
            // The name that was saved to is not one to send.
            let waiting = tx.journal(source.ino)?.map_or(Ops::NONE, |row| row.ops);
            journal::set_ops(tx, source.ino, waiting.without(Ops::MOVE), now)?;
        } else {
            self.record_move(tx, &source, now)?;
        }
        Ok(dropped)
    }

    fn record_move(&self, tx: &Tx<'_>, item: &Item, now: Timestamp) -> Result<(), VfsError> {
        let home = journal::is_home(item);
        let in_flight = self.engine.is_in_flight(item.ino);
        journal::record(tx, item, Change::Moved { home }, in_flight, now)?;
        Ok(())
    }

    /// Swaps the names of two items.
    fn exchange(
        &self,
        tx: &Tx<'_>,
        mut a: Item,
        mut b: Item,
        now: Timestamp,
    ) -> Result<(), VfsError> {
        if a.local_only != b.local_only {
            return Err(VfsError::CrossDevice);
        }
        if b.is_dir()
            && a.parent
                .is_some_and(|p| is_inside(tx, p, b.ino).unwrap_or(true))
        {
            return Err(VfsError::InvalidArgument);
        }
        std::mem::swap(&mut a.parent, &mut b.parent);
        std::mem::swap(&mut a.name, &mut b.name);
        (a.ctime, b.ctime) = (now, now);
        // Names are unique at every moment, so one of them steps aside.
        let mut aside = a.clone();
        aside.parent = None;
        tx.update_item(&aside)?;
        tx.update_item(&b)?;
        tx.update_item(&a)?;
        self.record_move(tx, &a, now)?;
        self.record_move(tx, &b, now)
    }

    /// Tells whether an item will be one that never leaves this machine.
    fn stays_local(
        &self,
        tx: &Tx<'_>,
        source: &Item,
        parent: Ino,
        name: &str,
    ) -> Result<bool, VfsError> {
        let into_local = tx
            .item(parent)?
            .is_some_and(|directory| directory.local_only);
        if into_local {
            if source.remote.is_some() || !source.local_only && source.is_dir() {
                return Err(VfsError::CrossDevice);
            }
            return Ok(true);
        }
        // What is in a folder is on its way already, and so may be the item itself.
        let can_stay = source.local_only
            || source.remote.is_none() && !source.is_dir() && !self.engine.is_in_flight(source.ino);
        Ok(can_stay && self.engine.config.local_only.matches(name))
    }

    /// Begins to send an item, and all in it, that never left this machine until now.
    fn publish(
        &self,
        tx: &Tx<'_>,
        item: &Item,
        now: Timestamp,
        depth: u32,
    ) -> Result<(), VfsError> {
        journal::record(tx, item, Change::Created, false, now)?;
        if item.kind == Kind::File && item.body.is_some() {
            journal::record(tx, item, Change::Saved, false, now)?;
        }
        if !item.is_dir() || depth > DEPTH_MAX {
            return Ok(());
        }
        for mut child in tx.children(item.ino)? {
            if child.local_only && !self.engine.config.local_only.matches(&child.name) {
                child.local_only = false;
                tx.update_item(&child)?;
                self.publish(tx, &child, now, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Tells whether renaming `source` over `target` saves a new version of `target`.
    fn is_save(
        &self,
        tx: &Tx<'_>,
        source: &Item,
        target: &Item,
        now: Timestamp,
    ) -> Result<bool, VfsError> {
        let files = source.kind == Kind::File && target.kind == Kind::File;
        if !files || target.role != Role::Ordinary || target.remote.is_none() {
            return Ok(false);
        }
        if source.remote.is_none() {
            return Ok(true);
        }
        // Already sent under its temporary name: still a save while it is young, if all of its
        // bytes are here to be sent again.
        let young = now.as_nanos().saturating_sub(source.btime.as_nanos()) < SAVE_AGE_NANOS;
        let whole = match source.body {
            None => source.size == 0,
            Some(id) => match tx.body(id)?.filter(|row| row.ranges.is_none()) {
                // The cache may have been wiped.
                Some(row) => self.engine.bodies.open(&row)?.is_some(),
                None => false,
            },
        };
        Ok(young && whole)
    }

    /// Takes from an item the identity it got under a temporary name; the service's item of that
    /// name is deleted.
    fn drop_identity(&self, tx: &Tx<'_>, item: &mut Item, now: Timestamp) -> Result<(), VfsError> {
        self.engine.cancel_in_flight(item.ino);
        let Some(remote) = item.remote.take() else {
            return Ok(());
        };
        tx.update_item(item)?;
        let id = remote.id.clone();
        let mut stray = Item::new(Kind::File, Ino::ROOT, &item.name, now);
        stray.parent = None;
        stray.remote = Some(remote);
        let ino = tx.insert_item(&stray)?;
        tx.pass_unanswered(&id, ino)?;
        Ok(journal::set_ops(tx, ino, Ops::DELETE, now)?)
    }

    /// The file that was created under the name that an item has on the service, while the item
    /// itself was renamed out of its way: the next version of it, once the item is unlinked.
    pub(crate) fn heir_of(&self, tx: &Tx<'_>, item: &Item) -> Result<Option<Item>, VfsError> {
        if self.engine.is_in_flight(item.ino) {
            return Ok(None);
        }
        Ok(heir_of(tx, item)?)
    }

    /// Passes the identity on the service from `old` to `new`, whose content becomes the next
    /// version. Returns `new` as it is now.
    pub(crate) fn hand_over(
        &self,
        tx: &Tx<'_>,
        old: &mut Item,
        new: Item,
        now: Timestamp,
    ) -> Result<Item, VfsError> {
        // What is on its way for either of them would arrive under the wrong name.
        self.engine.cancel_in_flight(old.ino);
        self.engine.cancel_in_flight(new.ino);
        self.keep_in_spool(tx, &new)?;
        Ok(journal::inherit(tx, old, new, now)?)
    }

    /// Brings the body of an item back into the spool: the service has it under an identity that
    /// is about to be deleted, so that it counts as unsent again.
    fn keep_in_spool(&self, tx: &Tx<'_>, item: &Item) -> Result<(), VfsError> {
        let Some(mut row) = item.body.map(|id| tx.body(id)).transpose()?.flatten() else {
            return Ok(());
        };
        let Some(body) = self.engine.bodies.open(&row)? else {
            return Err(VfsError::Stale);
        };
        self.engine.bodies.content().promote(&body)?;
        row.place = Place::Spool;
        Ok(tx.update_body(&row)?)
    }
}

/// A file that takes the name of another one, and is not on stable storage yet, must not leave
/// nothing under that name after a power cut: the other's body is kept until it is.
fn keep_until_durable(tx: &Tx<'_>, source: &Item, target: &Item) -> Result<(), VfsError> {
    let body_of = |item: &Item| item.body.map(|id| tx.body(id)).transpose();
    let (Some(new), Some(old)) = (body_of(source)?.flatten(), body_of(target)?.flatten()) else {
        return Ok(());
    };
    if new.is_durable() {
        return Ok(());
    }
    // The end of what it takes the place of already.
    let mut last = new;
    while let Some(previous) = last.previous.map(|id| tx.body(id)).transpose()?.flatten() {
        if previous.is_durable() {
            return Ok(());
        }
        last = previous;
    }
    let mut kept = Some(old);
    while let Some(body) = kept {
        if body.is_durable() {
            last.previous = Some(body.id);
            return Ok(tx.update_body(&last)?);
        }
        kept = body.previous.map(|id| tx.body(id)).transpose()?.flatten();
    }
    Ok(())
}

/// Checks that one entry may take the place of another.
fn check_replaceable(tx: &Tx<'_>, source: &Item, target: &Item) -> Result<(), VfsError> {
    check_visible(target)?;
    if target.is_dir() && target.role == Role::Shortcut {
        // What it shows is not to be lost sight of by the way.
        return Err(VfsError::Busy);
    }
    match (source.is_dir(), target.is_dir()) {
        (true, false) => Err(VfsError::NotDirectory),
        (false, true) => Err(VfsError::IsDirectory),
        (true, true) if !target.children_known || tx.has_children(target.ino)? => {
            Err(VfsError::NotEmpty)
        }
        _ => Ok(()),
    }
}

/// Tells whether a directory is another one or inside of it.
fn is_inside(tx: &Tx<'_>, directory: Ino, ancestor: Ino) -> Result<bool, VfsError> {
    let mut at = directory;
    for _ in 0..DEPTH_MAX {
        if at == ancestor {
            return Ok(true);
        }
        match tx.item(at)?.and_then(|item| item.parent) {
            Some(parent) => at = parent,
            None => return Ok(false),
        }
    }
    Ok(true)
}
