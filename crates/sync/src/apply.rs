//! Applying what the service says to the database, inside one transaction.
//!
//! The hard part is that programs work here meanwhile: every item is a three-way decision between
//! the base (what the service said last), what holds here and what the service says now. Nothing
//! that was saved on either side is thrown away: where both sides changed, both are kept.

mod aside;
mod bring_back;
mod give_up;
mod insert;
#[cfg(test)]
mod kept_tests;
mod link;
mod place;
#[cfg(test)]
mod tests;
mod tombstone;
mod unanswered;
mod upsert;

pub(crate) use aside::{is_aside, last_name};
pub(crate) use unanswered::{is_made_here, rebase_body};

use onedrivefs_core::{Ino, ItemId, ItemKind, QuickXorHash, RemoteItem, Timestamp, name};
use onedrivefs_store::{
    BodyRow, ConflictRow, Item, Kind, Ops, Place, Reader, Remote, Role, StoreError, Tx,
};

use crate::authorship::Oneself;
use crate::bodies::Bodies;
use crate::change::KernelChange;
use crate::conflict_name::free_conflict_name;
use crate::journal::{self, LINK_SUFFIX};

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in the database (or does not concern us).
    Done,
    /// Its folder is not known yet.
    Orphan,
    /// A request for it is on its way; it was set aside until that ends.
    Deferred,
}

/// Facts that do not change while items are applied.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The time of the transaction.
    pub now: Timestamp,
    /// The name of this machine, for conflict copies.
    pub host: &'a str,
    /// Who is signed in here.
    pub oneself: &'a Oneself,
    /// The enumeration that is under way or was the last.
    pub epoch: i64,
    /// Whether the children of folders that appear come along in the same round.
    pub children_come_along: bool,
    /// Whether rows confirmed in this enumeration are newer than the item at hand.
    pub prefer_confirmed: bool,
    /// Whether requests are on their way that may have made items not known here yet.
    pub creating: bool,
    /// Tells whether a request for an inode is on its way.
    pub in_flight: &'a dyn Fn(Ino) -> bool,
    /// The files of bodies; absent where there are only rows.
    pub bodies: Option<&'a Bodies>,
}

/// Applies items one by one and collects what follows from it.
pub struct Applier<'a> {
    pub(crate) tx: &'a Tx<'a>,
    pub(crate) facts: Facts<'a>,
    /// What the kernel must forget after the commit.
    pub changes: Vec<KernelChange>,
    /// Bodies whose files go after the commit.
    pub dropped: Vec<BodyRow>,
    /// Whether something now waits to be sent.
    pub wake_uploader: bool,
    /// Conflicts that were settled by keeping both sides.
    pub conflicts: Vec<ConflictRow>,
    /// What stepped aside in this transaction.
    aside: Vec<Ino>,
    /// The folder of the last new item. Most of them come folder by folder.
    folder: Option<(ItemId, Ino)>,
}

impl<'a> Applier<'a> {
    /// Begins with nothing applied.
    #[must_use]
    pub fn new(tx: &'a Tx<'a>, facts: Facts<'a>) -> Self {
        Self {
            tx,
            facts,
            changes: Vec::new(),
            dropped: Vec::new(),
            wake_uploader: false,
            conflicts: Vec::new(),
            aside: Vec::new(),
            folder: None,
        }
    }

    /// Applies the state of one item.
    ///
    /// # Errors
    /// The store's errors.
    pub fn apply(&mut self, there: &RemoteItem) -> Result<Applied, StoreError> {
        let known = self.tx.item_by_id(&there.id)?;
        if let Some(item) = &known
            && (self.facts.in_flight)(item.ino)
        {
            self.tx.defer(there)?;
            return Ok(Applied::Deferred);
        }
        self.tx.undefer(&there.id)?;
        if known.is_some() {
            // It may be that folder, and may be another one or none afterwards.
            self.folder = None;
        }
        if there.deleted {
            return match known {
                Some(item) if item.ino != Ino::ROOT => self.tombstone(item).map(|()| Applied::Done),
                // Perhaps a request made it whose answer is still to come.
                None if self.facts.creating => {
                    self.tx.defer(there)?;
                    Ok(Applied::Deferred)
                }
                _ => Ok(Applied::Done),
            };
        }
        let is_root = known.as_ref().is_some_and(|item| item.ino == Ino::ROOT);
        if there.is_root || is_root {
            return self.root(there).map(|()| Applied::Done);
        }
        self.upsert(known, there)
    }

    /// The root: only its id and times are of interest.
    fn root(&mut self, there: &RemoteItem) -> Result<(), StoreError> {
        let Some(mut root) = self.tx.item(Ino::ROOT)? else {
            return Ok(());
        };
        let remote = remote_of(there, None, String::new(), &root);
        if root.remote.as_ref() != Some(&remote) {
            root.mtime = there.modified.unwrap_or(root.mtime);
            root.web_url.clone_from(&there.web_url);
            root.remote = Some(remote);
            self.tx.update_item(&root)?;
        }
        Ok(())
    }

    /// Forgets the body of an item, whose content is another one now.
    pub(crate) fn drop_body(&mut self, item: &mut Item) -> Result<(), StoreError> {
        if let Some(id) = item.body.take()
            && let Some(row) = self.tx.body(id)?
        {
            self.tx.delete_body(id)?;
            self.dropped.push(row);
        }
        Ok(())
    }

    /// Moves the body of a row into the spool, because the service is about to have it no longer.
    /// Tells whether all of it is there now.
    pub(crate) fn keep_body(&self, mut row: BodyRow) -> Result<bool, StoreError> {
        let Some(bodies) = self.facts.bodies.filter(|_| row.ranges.is_none()) else {
            return Ok(false);
        };
        let kept = match bodies.open(&row) {
            Ok(Some(body)) => bodies.content().promote(&body).map_err(Into::into),
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::error!(body = row.id, %error, "A body could not be moved into the spool.");
            return Ok(false);
        }
        row.place = Place::Spool;
        self.tx.update_body(&row)?;
        Ok(true)
    }

    /// What waits for an item.
    pub(crate) fn waiting(&self, ino: Ino) -> Result<Ops, StoreError> {
        Ok(self.tx.journal(ino)?.map_or(Ops::NONE, |row| row.ops))
    }

    /// Ends a begun upload session, which would put the content where it does not belong any more.
    pub(crate) fn disown_session(&self, ino: Ino) -> Result<(), StoreError> {
        let Some(mut row) = self.tx.journal(ino)? else {
            return Ok(());
        };
        journal::disown_session(&mut row);
        self.tx.put_journal(&row)
    }

    /// Replaces what waits for an item.
    pub(crate) fn set_waiting(&mut self, ino: Ino, ops: Ops) -> Result<(), StoreError> {
        self.wake_uploader |= !ops.is_empty();
        journal::set_ops(self.tx, ino, ops, self.facts.now)
    }

    /// Tells whether the body of an item is being written right now.
    pub(crate) fn being_written(&self, item: &Item) -> Result<bool, StoreError> {
        let Some(id) = item.body else {
            return Ok(false);
        };
        Ok(self.tx.body(id)?.is_some_and(|row| row.dirty))
    }

    /// Compares the body here with the service's content, where the hash here is known.
    pub(crate) fn same_bytes(
        &self,
        item: &Item,
        there: &RemoteItem,
    ) -> Result<Option<bool>, StoreError> {
        if there.size.is_some_and(|size| size != item.size) {
            return Ok(Some(false));
        }
        if there.size == Some(0) && item.size == 0 {
            return Ok(Some(true));
        }
        if let Some(target) = item.target.as_ref().filter(|_| item.body.is_none()) {
            return Ok(there.hash.map(|hash| hash == QuickXorHash::of(target)));
        }
        let Some(row) = item.body.map(|id| self.tx.body(id)).transpose()?.flatten() else {
            return Ok(None);
        };
        Ok(row.hash.zip(there.hash).map(|(here, there)| here == there))
    }

    /// Gives an item a conflict name in its directory, as an item that the service does not have.
    pub(crate) fn make_conflict_copy(
        &mut self,
        item: &mut Item,
        ops: Ops,
    ) -> Result<(), StoreError> {
        let parent = item.parent.unwrap_or(Ino::ROOT);
        // The name it had before it stepped aside, if it did.
        let wanted = aside::wanted_name(item).to_owned();
        let path = self.tx.path(item.parent.unwrap_or(Ino::ROOT))?;
        let path = if path.is_empty() {
            wanted.clone()
        } else {
            format!("{path}/{wanted}")
        };
        let copy = free_conflict_name(self.tx, parent, &wanted, self.facts.host, self.facts.now)?;
        let old = std::mem::replace(&mut item.name, copy.clone());
        self.changes.push(KernelChange::Entry { parent, name: old });
        self.changes
            .push(KernelChange::Entry { parent, name: copy });
        self.tx.update_item(item)?;
        self.set_waiting(item.ino, ops)?;
        self.disown_session(item.ino)?;
        let copy_path = self.tx.path(item.ino)?;
        tracing::warn!(
            path,
            copy = copy_path,
            "Both sides changed a file; both were kept."
        );
        let conflict = ConflictRow {
            path,
            copy: copy_path,
            at: self.facts.now,
        };
        self.tx.add_conflict(&conflict)?;
        self.conflicts.push(conflict);
        Ok(())
    }
}

/// The kind an item has here, symbolic links aside; `None` for what is not shown.
pub(crate) fn kind_of(there: &RemoteItem) -> Option<(Kind, Role)> {
    match &there.kind {
        ItemKind::Folder => Some((Kind::Directory, Role::Ordinary)),
        ItemKind::Package => Some((Kind::Directory, Role::Package)),
        ItemKind::Shortcut(target) if target.is_folder => Some((Kind::Directory, Role::Shortcut)),
        ItemKind::Shortcut(_) => Some((Kind::File, Role::Shortcut)),
        ItemKind::File if there.malware => Some((Kind::File, Role::Malware)),
        ItemKind::File => Some((Kind::File, Role::Ordinary)),
        ItemKind::Unknown => None,
    }
}

/// The decoded name of an item of the service.
pub(crate) fn decoded_name(there: &RemoteItem) -> Option<String> {
    there
        .name
        .as_deref()
        .map(name::decode)
        .filter(|n| name::check_local(n).is_ok())
}

/// The name an item has in the mount.
pub(crate) fn shown_name(remote_name: &str, kind: Kind) -> &str {
    let name = last_name(remote_name);
    if kind == Kind::Symlink {
        name.strip_suffix(LINK_SUFFIX).unwrap_or(name)
    } else {
        name
    }
}

/// A name became free: an item that has it on the service, but had to be shown under another one,
/// gets it back.
///
/// # Errors
/// The store's errors.
pub fn reclaim(tx: &Tx<'_>, parent: Ino, name: &str) -> Result<Vec<KernelChange>, StoreError> {
    for mut item in tx.remote_children_named(parent, name)? {
        let Some(remote) = &item.remote else { continue };
        let shown = shown_name(&remote.name, item.kind).to_owned();
        let displaced = item.parent == Some(parent) && item.name != shown;
        let moves = || {
            tx.journal(item.ino)
                .map(|row| row.is_some_and(|r| r.ops.has(Ops::MOVE)))
        };
        if !displaced || moves()? || tx.child(parent, &shown)?.is_some() {
            continue;
        }
        let old = std::mem::replace(&mut item.name, shown.clone());
        tx.update_item(&item)?;
        let entry = |name| KernelChange::Entry { parent, name };
        return Ok(vec![entry(old), entry(shown)]);
    }
    Ok(Vec::new())
}

/// An item that was unlinked here is gone from the service as well: the names it had become free.
///
/// # Errors
/// The store's errors.
pub(crate) fn reclaim_places(tx: &Tx<'_>, item: &Item) -> Result<Vec<KernelChange>, StoreError> {
    let Some(base) = &item.remote else {
        return Ok(Vec::new());
    };
    let Some(parent) = base.parent else {
        return Ok(Vec::new());
    };
    let mut changes = reclaim(tx, parent, shown_name(&base.name, item.kind))?;
    // It may have been unlinked under another one.
    changes.extend(reclaim(tx, parent, &item.name)?);
    Ok(changes)
}

/// The base that an item of the service makes, with what it leaves out taken from the last one.
pub(crate) fn remote_of(
    there: &RemoteItem,
    parent: Option<Ino>,
    name: String,
    item: &Item,
) -> Remote {
    let last = item.remote.as_ref();
    let changed = last.is_none_or(|base| crate::merge::content_changed(base, there));
    let last_content = last.filter(|_| !changed);
    Remote {
        id: there.id.clone(),
        parent,
        name,
        etag: there
            .etag
            .clone()
            .or_else(|| last.and_then(|r| r.etag.clone())),
        ctag: there
            .ctag
            .clone()
            .or_else(|| last_content.and_then(|r| r.ctag.clone())),
        hash: there.hash.or_else(|| last_content.and_then(|r| r.hash)),
        size: there.size.or_else(|| last.map(|r| r.size)).unwrap_or(0),
        mtime: there
            .modified
            .or_else(|| last.map(|r| r.mtime))
            .unwrap_or_default(),
        author: last_content.and_then(|r| r.author),
    }
}

/// Tells whether an item of the service may be in conflict with a body here whose hash is not
/// known yet; such bodies are hashed before the transaction.
pub(crate) fn needs_hash(r: &Reader<'_>, there: &RemoteItem) -> Result<Option<Item>, StoreError> {
    if there.deleted || there.hash.is_none() {
        return Ok(None);
    }
    let item = match r.item_by_id(&there.id)? {
        Some(item) => Some(item),
        None => {
            let parent = there
                .parent
                .as_ref()
                .map(|id| r.item_by_id(id))
                .transpose()?
                .flatten();
            match (parent, decoded_name(there)) {
                (Some(parent), Some(name)) => r.child(parent.ino, &name)?,
                _ => None,
            }
        }
    };
    let Some(item) = item else { return Ok(None) };
    let waiting = r
        .journal(item.ino)?
        .is_some_and(|row| row.ops.has(Ops::CONTENT));
    let Some(row) = item.body.map(|id| r.body(id)).transpose()?.flatten() else {
        return Ok(None);
    };
    let same_size = there.size == Some(item.size);
    Ok(
        (waiting && same_size && row.hash.is_none() && !row.dirty && row.ranges.is_none())
            .then_some(item),
    )
}
