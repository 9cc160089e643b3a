//! Items that were unlinked here and have a name again.

use onedrivefs_core::{Ino, RemoteItem};
use onedrivefs_store::{BodyRow, Item, Ops, Place, Remote, StoreError};

use super::{Applier, decoded_name, kind_of, remote_of, shown_name};
use crate::change::KernelChange;
use crate::journal;
use crate::uploader::is_successor;

/// Deepest chain of folders that is followed; the service allows far less.
const DEPTH_MAX: u32 = 512;

impl Applier<'_> {
    /// Brings an item that was unlinked here back under a name.
    pub(super) fn restore(
        &mut self,
        item: &mut Item,
        shown: &str,
        parent: Ino,
    ) -> Result<(), StoreError> {
        let standing = self.standing_folder(parent)?;
        if let Some(remote) = &mut item.remote
            && remote.parent == Some(parent)
        {
            remote.parent = Some(standing);
        }
        self.place(item, shown, standing)
    }

    /// Gives an item that was unlinked here a name again. Nothing waits for it any more.
    pub(super) fn place(
        &mut self,
        item: &mut Item,
        shown: &str,
        parent: Ino,
    ) -> Result<(), StoreError> {
        let name = self.free_place(item.ino, parent, shown)?;
        item.parent = Some(parent);
        item.name = name;
        self.tx.update_item(item)?;
        let left = self.back_to_its_name(item)?;
        self.set_waiting(item.ino, left)?;
        self.changes.push(KernelChange::Entry {
            parent,
            name: item.name.clone(),
        });
        self.changes.push(KernelChange::Attributes { ino: parent });
        Ok(())
    }

    /// Brings an item back that was unlinked here, because the service has news of it.
    ///
    /// # Errors
    /// The store's errors.
    pub fn bring_back(&mut self, ino: Ino, there: &RemoteItem) -> Result<(), StoreError> {
        let Some(mut item) = self.tx.item(ino)? else {
            return Ok(());
        };
        let parent = there
            .parent
            .as_ref()
            .map(|id| self.tx.item_by_id(id))
            .transpose()?
            .flatten();
        let parent = parent
            .filter(Item::is_dir)
            .map_or(Ino::ROOT, |parent| parent.ino);
        let remote_name = decoded_name(there).unwrap_or_else(|| item.name.clone());
        let mut author = None;
        if let Some(plain) = kind_of(there) {
            let standing = self.standing(Some(&item), plain, there, &remote_name)?;
            author = standing.author;
            item = self.take_kind(item, standing.kind)?;
        }
        let shown = self.name_to_show(Some(&item), &remote_name, item.kind)?;
        if !item.is_dir() {
            self.drop_body(&mut item)?;
            item.size = there.size.unwrap_or(0);
            item.mtime = there.modified.unwrap_or(item.mtime);
        }
        item.remote = Some(Remote {
            author,
            ..remote_of(there, Some(parent), remote_name, &item)
        });
        match self.tx.child(parent, &shown)? {
            // A folder was made here under the same name since: folders merge.
            Some(made) if item.is_dir() && self.may_merge(&made) => self.merge_into(made, item),
            _ => {
                self.restore(&mut item, &shown, parent)?;
                let path = self.tx.path(item.ino)?;
                tracing::info!(
                    path,
                    "An item deleted here was changed on the service and came back."
                );
                Ok(())
            }
        }
    }

    /// Tells whether an item is a folder that the service does not have yet.
    fn may_merge(&self, item: &Item) -> bool {
        let own = item.is_dir() && item.remote.is_none() && !item.local_only;
        own && !(self.facts.in_flight)(item.ino)
    }

    /// A folder that was made here takes over the identity of one that was deleted here, with all
    /// that others put into that.
    fn merge_into(&mut self, mut made: Item, mut old: Item) -> Result<(), StoreError> {
        made.remote = old.remote.take();
        made.children_known = old.children_known;
        made.epoch = old.epoch;
        journal::forget(self.tx, old.ino, self.facts.now)?;
        self.tx.update_item(&old)?;
        self.tx.update_item(&made)?;
        self.tx.move_pin(old.ino, made.ino)?;
        let mut left = self.waiting(made.ino)?.without(Ops::CREATE);
        if !journal::is_home(&made) {
            // Another spelling of the same name.
            left = left.with(Ops::MOVE);
        }
        self.set_waiting(made.ino, left)?;
        for mut child in self.tx.remote_children(old.ino)? {
            if let Some(remote) = &mut child.remote {
                remote.parent = Some(made.ino);
            }
            self.tx.update_item(&child)?;
        }
        self.move_children(old.ino, made.ino)?;
        self.changes
            .push(KernelChange::Attributes { ino: made.ino });
        self.tx.delete_item(old.ino)
    }

    /// Takes a deletion back that was not sent: the item has its name again, and the folders it was
    /// in are there.
    ///
    /// # Errors
    /// The store's errors.
    pub fn undelete(&mut self, mut item: Item) -> Result<(), StoreError> {
        let Some(remote) = item.remote.clone() else {
            return Ok(());
        };
        let unsent = self.unsent_of(&mut item, &remote)?;
        let shown = self.name_to_show(Some(&item), &remote.name, item.kind)?;
        let parent = remote.parent.unwrap_or(Ino::ROOT);
        self.restore(&mut item, &shown, parent)?;
        let left = self.waiting(item.ino)?;
        self.set_waiting(item.ino, left.with(unsent))
    }

    /// Looks what of an item that comes back was not sent before it was deleted. A body of which
    /// parts are missing and of which it is not certain where they come from goes.
    fn unsent_of(&mut self, item: &mut Item, remote: &Remote) -> Result<Ops, StoreError> {
        let row = item.body.map(|id| self.tx.body(id)).transpose()?.flatten();
        let times = if item.is_dir() || remote.mtime.same_second(item.mtime) {
            Ops::NONE
        } else {
            Ops::TIMES
        };
        Ok(match row {
            Some(row) if row.place == Place::Spool => Ops::CONTENT.with(Ops::TIMES),
            Some(row) if is_of_other_version(&row, remote) => {
                self.drop_body(item)?;
                item.size = remote.size;
                times
            }
            _ => times,
        })
    }

    /// The folder in which something is, that the service has in `folder`. One that was unlinked
    /// here comes back, with the folders it was in; if another one has its name by now, they are
    /// one. A folder whose deletion is on its way is left to that, which finds it filled.
    ///
    /// # Errors
    /// The store's errors.
    pub fn standing_folder(&mut self, folder: Ino) -> Result<Ino, StoreError> {
        self.stand(folder, 0)
    }

    fn stand(&mut self, folder: Ino, depth: u32) -> Result<Ino, StoreError> {
        if folder == Ino::ROOT || depth > DEPTH_MAX || (self.facts.in_flight)(folder) {
            return Ok(folder);
        }
        let unlinked = |item: &Item| item.parent.is_none();
        let Some(remote) = (self.tx.item(folder)?.filter(unlinked)).and_then(|item| item.remote)
        else {
            return Ok(folder);
        };
        let parent = self.stand(remote.parent.unwrap_or(Ino::ROOT), depth + 1)?;
        // What it is in may be another inode now.
        let Some(mut item) = self.tx.item(folder)? else {
            return Ok(folder);
        };
        if let Some(new) = self.successor(&item, parent)? {
            let new = journal::inherit(self.tx, &mut item, new, self.facts.now)?;
            self.move_children(folder, new.ino)?;
            self.tx.delete_item(folder)?;
            self.wake_uploader = true;
            return Ok(new.ino);
        }
        let shown = self.name_to_show(Some(&item), &remote.name, item.kind)?;
        self.place(&mut item, &shown, parent)?;
        Ok(folder)
    }

    /// Moves what is in one folder here into another one.
    pub(super) fn move_children(&mut self, from: Ino, to: Ino) -> Result<(), StoreError> {
        for mut child in self.tx.children(from)? {
            child.name = self.free_place(child.ino, to, &child.name)?;
            child.parent = Some(to);
            self.changes.push(KernelChange::Entry {
                parent: to,
                name: child.name.clone(),
            });
            self.tx.update_item(&child)?;
        }
        Ok(())
    }

    /// What was made here under the name that an unlinked item had, and is to be the same item.
    pub(crate) fn successor(&self, old: &Item, parent: Ino) -> Result<Option<Item>, StoreError> {
        let Some(remote) = &old.remote else {
            return Ok(None);
        };
        let new = self
            .tx
            .child(parent, shown_name(&remote.name, old.kind))?
            .filter(|new| is_successor(old, new) && !(self.facts.in_flight)(new.ino));
        Ok(new)
    }

    /// Brings a folder back whose deletion is held back, since the service put something into it.
    pub(super) fn standing_unless_sent(&mut self, folder: Ino) -> Result<Ino, StoreError> {
        if self.tx.journal(folder)?.is_some_and(|row| row.held) {
            return self.standing_folder(folder);
        }
        Ok(folder)
    }
}

/// Tells whether the missing bytes of a body belong to another version than the service has.
fn is_of_other_version(row: &BodyRow, remote: &Remote) -> bool {
    row.ranges.is_some() && (row.base_etag != remote.etag || row.base_ctag != remote.ctag)
}
