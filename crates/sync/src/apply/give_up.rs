//! Taking the service's side because a person said so.

use onedrivefs_core::Ino;
use onedrivefs_store::{Item, Ops, StoreError};

use super::Applier;
use crate::change::KernelChange;

impl Applier<'_> {
    /// Forgets what waits for an item and what of it only exists here.
    ///
    /// # Errors
    /// The store's errors.
    pub fn give_up(&mut self, ino: Ino) -> Result<(), StoreError> {
        let Some(mut item) = self.tx.item(ino)? else {
            return Ok(());
        };
        let waiting = self.waiting(ino)?;
        if waiting.has(Ops::DELETE) {
            return self.undelete(item);
        }
        let Some(remote) = item.remote.clone() else {
            return self.drop_unsent(item);
        };
        self.set_waiting(ino, Ops::NONE)?;
        if waiting.has(Ops::CONTENT) {
            self.drop_body(&mut item)?;
            item.size = remote.size;
            item.mtime = remote.mtime;
            item.target = None;
            self.changes.push(KernelChange::Content { ino });
        }
        if let Some(parent) = item.parent {
            self.changes.push(KernelChange::Entry {
                parent,
                name: item.name.clone(),
            });
        }
        self.tx.forget_moves(&remote.id)?;
        let shown = self.name_to_show(Some(&item), &remote.name, item.kind)?;
        let parent = remote.parent.unwrap_or(Ino::ROOT);
        self.restore(&mut item, &shown, parent)
    }

    /// The path of a file in a folder that the service never had, if there is one of which this machine
    /// alone has the content. It would go with the folder, and nobody has named it.
    ///
    /// # Errors
    /// The store's errors.
    pub fn only_here_below(&self, folder: Ino) -> Result<Option<String>, StoreError> {
        let is_new = |item: &Item| item.is_dir() && item.remote.is_none();
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            if !self.tx.item(folder)?.is_some_and(|item| is_new(&item)) {
                continue;
            }
            for item in self.tx.children(folder)? {
                if item.is_dir() {
                    folders.push(item.ino);
                } else if item.remote.is_none()
                    || self.waiting(item.ino)?.has(Ops::CONTENT)
                    || self.being_written(&item)?
                {
                    return Ok(Some(self.tx.path(item.ino)?));
                }
            }
        }
        Ok(None)
    }

    /// Removes what the service never had. What was moved into such a folder goes back to where
    /// the service has it.
    fn drop_unsent(&mut self, mut item: Item) -> Result<(), StoreError> {
        for child in self.tx.children(item.ino)? {
            self.give_up(child.ino)?;
        }
        self.set_waiting(item.ino, Ops::NONE)?;
        self.drop_body(&mut item)?;
        self.tx.delete_item(item.ino)?;
        if let Some(parent) = item.parent {
            self.changes.push(KernelChange::Entry {
                parent,
                name: item.name,
            });
        }
        Ok(())
    }
}
