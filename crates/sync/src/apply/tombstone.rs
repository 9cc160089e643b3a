//! An item that no longer exists on the service.

use onedrivefs_core::Ino;
use onedrivefs_store::{Item, Kind, Ops, StoreError};

use super::{Applier, aside, reclaim, reclaim_places, shown_name};
use crate::change::KernelChange;
use crate::journal;

impl Applier<'_> {
    /// Removes an item here, unless something of it was not sent yet: then it is created there
    /// again. A folder takes what the service knew of its content along, and stays while anything
    /// remains in it.
    ///
    /// # Errors
    /// The store's errors.
    pub fn tombstone(&mut self, item: Item) -> Result<(), StoreError> {
        let waiting = self.waiting(item.ino)?;
        if waiting.has(Ops::DELETE) || item.parent.is_none() {
            return self.tombstone_unlinked(item);
        }
        if item.is_dir() {
            return self.tombstone_folder(item);
        }
        if waiting.has(Ops::CONTENT) || self.being_written(&item)? {
            return self.detach(item, Ops::CREATE.with(Ops::CONTENT));
        }
        if self.went_with_its_folder(&item)? {
            return self.survive(item);
        }
        self.remove(item)
    }

    /// Tells whether an item was moved here out of a folder that was deleted on the service: nobody
    /// there deleted the item for itself.
    fn went_with_its_folder(&self, item: &Item) -> Result<bool, StoreError> {
        let base = item.remote.as_ref().and_then(|remote| remote.parent);
        let Some(base) = base.filter(|base| Some(*base) != item.parent) else {
            return Ok(false);
        };
        let Some(folder) = self.tx.item(base)? else {
            return Ok(true);
        };
        let Some(id) = folder.item_id() else {
            return Ok(true);
        };
        Ok(self
            .tx
            .staged_item(id)?
            .is_some_and(|folder| folder.deleted))
    }

    /// An item that was moved out of a folder before that was deleted on the service: what of it is
    /// here is created there again.
    fn survive(&mut self, item: Item) -> Result<(), StoreError> {
        if (self.facts.in_flight)(item.ino) {
            // Its request will not find it, which brings it back here.
            return Ok(());
        }
        let again = Ops::CREATE.with(Ops::CONTENT);
        if self.waiting(item.ino)?.has(Ops::CONTENT) || self.being_written(&item)? {
            return self.detach(item, again);
        }
        if item.is_dir() {
            let empty = !self.tx.has_children(item.ino)?;
            for child in self.tx.children(item.ino)? {
                let remote = child.remote.as_ref();
                if remote.is_some_and(|remote| remote.parent == Some(item.ino)) {
                    self.survive(child)?;
                }
            }
            self.leave_folder(item.ino)?;
            return if empty || self.tx.has_children(item.ino)? {
                self.detach(item, Ops::CREATE)
            } else {
                self.remove(item)
            };
        }
        let here = match item.body.map(|id| self.tx.body(id)).transpose()?.flatten() {
            Some(row) => self.keep_body(row)?,
            None => item.size == 0 || item.kind == Kind::Symlink && item.target.is_some(),
        };
        if here {
            return self.detach(item, again);
        }
        let path = self.tx.path(item.ino)?;
        tracing::warn!(
            path,
            "A file that was moved here was deleted on the service with its old folder; its content is only in the recycle bin there."
        );
        self.remove(item)
    }

    /// What has left a folder here, but not on the service, before that is gone there.
    fn leave_folder(&mut self, folder: Ino) -> Result<(), StoreError> {
        for child in self.tx.remote_children(folder)? {
            match child.parent {
                None => self.remove_unlinked(child)?,
                Some(parent) if parent != folder => self.survive(child)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A folder: first what is in it.
    fn tombstone_folder(&mut self, folder: Item) -> Result<(), StoreError> {
        for child in self.tx.children(folder.ino)? {
            // What was moved into it here is not in it there, and still exists.
            let inside = child
                .remote
                .as_ref()
                .is_some_and(|remote| remote.parent == Some(folder.ino));
            if inside && !(self.facts.in_flight)(child.ino) {
                self.tombstone(child)?;
            }
        }
        self.leave_folder(folder.ino)?;
        if self.tx.has_children(folder.ino)? {
            return self.detach(folder, Ops::CREATE);
        }
        self.remove(folder)
    }

    /// An item that was unlinked here. A folder into which something came while its deletion was on
    /// its way has its name again for as long as that is there.
    fn tombstone_unlinked(&mut self, item: Item) -> Result<(), StoreError> {
        if !item.is_dir() || !self.tx.has_children(item.ino)? {
            return self.remove_unlinked(item);
        }
        let folder = self.standing_folder(item.ino)?;
        match self.tx.item(folder)? {
            Some(folder) if folder.parent.is_some() => self.tombstone_folder(folder),
            _ => Ok(()),
        }
    }

    /// An item that was unlinked here, with what was unlinked in it.
    fn remove_unlinked(&mut self, item: Item) -> Result<(), StoreError> {
        if item.is_dir() {
            for child in self.tx.remote_children(item.ino)? {
                if child.parent.is_none() && !(self.facts.in_flight)(child.ino) {
                    self.remove_unlinked(child)?;
                }
            }
        }
        self.remove(item)
    }

    /// The item stays here and is sent anew.
    fn detach(&mut self, mut item: Item, ops: Ops) -> Result<(), StoreError> {
        let path = self.tx.path(item.ino)?;
        tracing::info!(
            path,
            "An item with unsent changes was deleted on the service and will be created again."
        );
        let waiting = self.waiting(item.ino)?;
        let mut freed = None;
        let mut name = Some(aside::wanted_name(&item).to_owned()).filter(|name| *name != item.name);
        if let Some(gone) = item.remote.take() {
            self.tx.forget_moves(&gone.id)?;
            let shown = shown_name(&gone.name, item.kind);
            let at_home = item.parent == gone.parent && !waiting.has(Ops::MOVE);
            if name.is_none() && at_home && item.name != shown {
                name = Some(shown.to_owned());
            }
            freed = gone.parent.map(|parent| (parent, shown.to_owned()));
        }
        if let (Some(parent), Some(name)) = (item.parent, name) {
            // It had stepped aside for an item that has its name now, or had, or was shown beside
            // it under a name that nobody gave.
            let taken = self
                .tx
                .child(parent, &name)?
                .is_some_and(|it| it.ino != item.ino);
            let left = std::mem::replace(&mut item.name, name.clone());
            for name in [left, name] {
                self.changes.push(KernelChange::Entry { parent, name });
            }
            if taken {
                return self.make_conflict_copy(&mut item, ops);
            }
        }
        self.tx.update_item(&item)?;
        self.set_waiting(item.ino, ops)?;
        self.disown_session(item.ino)?;
        if let Some((parent, name)) = freed {
            self.changes.extend(reclaim(self.tx, parent, &name)?);
        }
        Ok(())
    }

    /// The item goes.
    fn remove(&mut self, mut item: Item) -> Result<(), StoreError> {
        journal::forget(self.tx, item.ino, self.facts.now)?;
        if let Some(id) = item.item_id() {
            self.tx.forget_moves(id)?;
        }
        self.drop_body(&mut item)?;
        self.tx.delete_item(item.ino)?;
        let Some(parent) = item.parent else {
            self.changes.extend(reclaim_places(self.tx, &item)?);
            return Ok(());
        };
        self.changes.push(KernelChange::Deleted {
            parent,
            child: item.ino,
            name: item.name.clone(),
        });
        self.changes.push(KernelChange::Attributes { ino: parent });
        self.changes.extend(reclaim(self.tx, parent, &item.name)?);
        Ok(())
    }
}
