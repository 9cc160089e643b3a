//! Stepping aside: an item whose new place comes with the same round, or is not known yet, leaves
//! its name to another one.
//!
//! Two items may be swapping names, so the first of them needs a third name for a moment. That name
//! does not outlast the transaction: at its end an item that was not told its place yet is shown
//! under the name it had, or one beside it. Until then it is set aside, so that the service is asked
//! for it even if the round is never applied, and nothing of it is sent.

use onedrivefs_core::{Ino, RemoteItem};
use onedrivefs_store::{Item, StoreError, Tx};

use super::Applier;
use crate::change::KernelChange;

/// Marks the name of an item for the rest of a transaction. Its number follows.
const ASIDE: char = '\u{1}';

/// Ends the name in the base of an item that has left it on the service. No name has it.
const LEFT: char = '/';

/// Tells whether an item has left its place on the service for one that is not known here yet.
pub(crate) fn is_aside(item: &Item) -> bool {
    let base = item.remote.as_ref();
    base.is_some_and(|remote| remote.name.ends_with(LEFT))
}

/// The name in a base, which the item may have left.
pub(crate) fn last_name(base: &str) -> &str {
    base.strip_suffix(LEFT).unwrap_or(base)
}

/// The name an item has here, or had before it stepped aside.
pub(super) fn wanted_name(item: &Item) -> &str {
    let mark = format!("{ASIDE}{}", item.ino);
    item.name.strip_suffix(&mark).unwrap_or(&item.name)
}

impl Applier<'_> {
    /// Has an item leave its name here, because it has left it on the service.
    pub(super) fn step_aside(
        &mut self,
        mut item: Item,
        staged: &RemoteItem,
    ) -> Result<(), StoreError> {
        if let Some(parent) = item.parent {
            let name = item.name.clone();
            self.changes.push(KernelChange::Entry { parent, name });
        }
        item.name = format!("{}{ASIDE}{}", item.name, item.ino);
        if let Some(remote) = &mut item.remote
            && !remote.name.ends_with(LEFT)
        {
            // So that it holds the name no longer, and that its move is not skipped.
            remote.name.push(LEFT);
        }
        item.epoch = 0;
        self.tx.update_item(&item)?;
        self.aside.push(item.ino);
        self.tx.defer(staged)
    }

    /// Shows what stepped aside and was not told its place: at the end of the transaction.
    ///
    /// # Errors
    /// The store's errors.
    pub fn show_aside(&mut self) -> Result<(), StoreError> {
        for ino in std::mem::take(&mut self.aside) {
            if let Some(mut item) = self.tx.item(ino)? {
                self.show_again(&mut item)?;
            }
        }
        Ok(())
    }

    /// Gives an item that stepped aside the name it had, or one beside it.
    pub(super) fn show_again(&mut self, item: &mut Item) -> Result<(), StoreError> {
        let wanted = wanted_name(item).to_owned();
        let Some(parent) = item.parent.filter(|_| wanted != item.name) else {
            return Ok(());
        };
        item.name = free_name(self.tx, parent, &wanted)?;
        let name = item.name.clone();
        self.changes.push(KernelChange::Entry { parent, name });
        self.tx.update_item(item)
    }
}

/// A name, or one beside it that is free.
pub(super) fn free_name(tx: &Tx<'_>, parent: Ino, name: &str) -> Result<String, StoreError> {
    let mut free = name.to_owned();
    let mut n = 2;
    while tx.child(parent, &free)?.is_some() {
        free = format!("{name} ({n})");
        n += 1;
    }
    Ok(free)
}
