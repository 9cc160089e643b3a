//! An item that no longer exists on the service.

use onedrivefs_store::{Item, Ops, StoreError};

use super::{ASIDE, Applier, reclaim};
use crate::change::KernelChange;
use crate::journal;

impl Applier<'_> {
    /// Removes an item here, unless something of it was not sent yet: then it is created there
    /// again. A folder takes what the service knew of its content along, and stays while anything
    /// remains in it.
    pub(super) fn tombstone(&mut self, item: Item) -> Result<(), StoreError> {
        let waiting = self.waiting(item.ino)?;
        if waiting.has(Ops::DELETE) || item.parent.is_none() {
            return self.remove(item);
        }
        if item.is_dir() {
            return self.tombstone_folder(item);
        }
        if waiting.has(Ops::CONTENT) || self.being_written(&item)? {
            return self.detach(item, Ops::CREATE.with(Ops::CONTENT));
        }
        self.remove(item)
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
        // Items that were unlinked or moved away here have nothing left to be sent about the
        // folder: moved ones are found missing when their turn comes.
        for child in self.tx.remote_children(folder.ino)? {
            if child.parent.is_none() {
                self.remove(child)?;
            }
        }
        if self.tx.has_children(folder.ino)? {
            return self.detach(folder, Ops::CREATE);
        }
        self.remove(folder)
    }

    /// The item stays here and is sent anew.
    fn detach(&mut self, mut item: Item, ops: Ops) -> Result<(), StoreError> {
        tracing::info!(ino = %item.ino, "An item with unsent changes was deleted on the service and will be created again.");
        item.remote = None;
        if let (Some(parent), Some((name, _))) = (item.parent, item.name.split_once(ASIDE)) {
            // It had stepped aside for an item that has its name now, or had.
            let name = name.to_owned();
            let taken = self.tx.child(parent, &name)?.is_some();
            item.name = name;
            if taken {
                return self.make_conflict_copy(&mut item, ops);
            }
        }
        self.tx.update_item(&item)?;
        self.set_waiting(item.ino, ops)?;
        self.disown_session(item.ino)
    }

    /// The item goes.
    fn remove(&mut self, mut item: Item) -> Result<(), StoreError> {
        journal::forget(self.tx, item.ino, self.facts.now)?;
        self.drop_body(&mut item)?;
        self.tx.delete_item(item.ino)?;
        let Some(parent) = item.parent else {
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
