//! Numbers of inodes where one mount shows several drives, and the shortcuts that lead from one to
//! another.
//!
//! Each drive has inode numbers of its own. To the kernel they are one space: a number has the slot
//! of the drive in its upper bits, and a shortcut to a folder is the root of the slot that it shows.
//! The drive that is mounted keeps the numbers of all slots, also of those that are shown in others.

use std::sync::Arc;

use onedrivefs_core::{DriveId, Ino, ItemId};
use onedrivefs_store::{Figures, Item, Kind, Slot, Store, StoreError};
use onedrivefs_sync::KernelChange;

use crate::error::VfsError;
use crate::types::{Outcome, Pending};
use crate::vfs::Vfs;

/// The slot of the drive that has all others in it.
pub const MAIN: u32 = 0;

/// Where the slot begins in a number. Numbers are never used again, and this many suffice for
/// hundreds of new files in every second of a year.
const SLOT_SHIFT: u32 = 35;

/// The highest slot. Above it, numbers have other meanings at the border with the kernel.
pub const SLOT_MAX: u32 = (1 << 13) - 1;

/// The number under which the kernel knows an inode of a slot.
pub(crate) const fn number(slot: u32, ino: Ino) -> Ino {
    Ino((slot as u64) << SLOT_SHIFT | ino.0)
}

/// The slot and the inode that a number stands for.
pub(crate) fn split(number: Ino) -> (u32, Ino) {
    let slot = (number.0 >> SLOT_SHIFT) & u64::from(SLOT_MAX);
    let ino = number.0 & ((1 << SLOT_SHIFT) - 1);
    (u32::try_from(slot).unwrap_or(MAIN), Ino(ino))
}

/// Most slots that are shown in one another.
const DEPTH_MAX: usize = 8;

/// Where a drive is among those that one mount shows.
pub(crate) struct Lineage {
    /// Has the numbers of all slots.
    pub(crate) numbers: Arc<Store>,
    /// What leads to its own slot; empty for the one that has the others in it.
    pub(crate) above: String,
    /// The drives that it is in, itself last, each with the folder that is shown of it, if not all is.
    pub(crate) shown: Vec<(DriveId, Option<ItemId>)>,
}

impl Lineage {
    /// Tells whether following a shortcut would lead to what is shown above it, or too deep.
    fn leads_back(&self, drive: &DriveId, item: &ItemId) -> bool {
        let holds = |(shown, folder): &(DriveId, Option<ItemId>)| {
            shown == drive && folder.as_ref().is_none_or(|folder| folder == item)
        };
        self.shown.len() >= DEPTH_MAX || self.shown.iter().any(holds)
    }
}

impl Vfs {
    /// The number under which the kernel knows an inode.
    pub(crate) fn shown(&self, ino: Ino) -> Ino {
        number(self.slot, ino)
    }

    /// The number under which the kernel knows what has these figures: a shortcut is what it shows.
    pub(crate) fn number_of(&self, figures: &Figures) -> Ino {
        match self.graft_of(figures) {
            Some(slot) => number(slot, Ino::ROOT),
            None => self.shown(figures.ino),
        }
    }

    /// The slot that an item shows, if it is a shortcut that is followed. One that leads back to what
    /// is shown above it is not: there would be no end to it.
    pub(crate) fn graft(&self, item: &Item) -> Option<u32> {
        self.graft_of(&Figures::from(item))
    }

    fn graft_of(&self, figures: &Figures) -> Option<u32> {
        if !figures.is_shortcut || figures.kind != Kind::Directory {
            return None;
        }
        let slot = self.store().read(|r| match r.slot_of(figures.ino)? {
            Some(number) => r.slot(number),
            None => Ok(None),
        });
        let slot = slot.ok().flatten()?;
        let lineage = self.lineage.get()?;
        if lineage.leads_back(&slot.drive, &slot.item) {
            return None;
        }
        let number = if self.slot == MAIN {
            slot.number
        } else {
            self.numbered(lineage, &slot).ok().flatten()?
        };
        (number <= SLOT_MAX).then_some(number)
    }

    /// The number in the whole mount of what a shortcut in this slot shows, given if it has none yet.
    fn numbered(&self, lineage: &Lineage, shown: &Slot) -> Result<Option<u32>, StoreError> {
        let Some(shortcut) = shown.ino.map(|ino| self.shown(ino)) else {
            return Ok(None);
        };
        let known = lineage.numbers.read(|r| match r.slot_of(shortcut)? {
            Some(number) => r.slot(number),
            None => Ok::<_, StoreError>(None),
        })?;
        let same = |known: &Slot| known.drive == shown.drive && known.item == shown.item;
        if let Some(known) = known.filter(same) {
            return Ok(Some(known.number));
        }
        lineage.numbers.write(|tx| {
            let above = &lineage.above;
            tx.follow_below(above, shortcut, &shown.drive, &shown.item, shown.kind)?;
            tx.slot_of(shortcut)
        })
    }

    /// What looking into a shortcut comes to that is not followed. Where it leads may not be known
    /// yet; then the service is asked, and the kernel looks at it again.
    pub(crate) fn unfollowed<T: Send + 'static>(
        self: &Arc<Self>,
        shortcut: &Item,
    ) -> Result<Outcome<T>, VfsError> {
        let ino = shortcut.ino;
        if self.store().read(|r| r.slot_of(ino))?.is_some() {
            return Err(VfsError::Loop);
        }
        let vfs = Arc::clone(self);
        let pending: Pending<T> = Box::pin(async move {
            let asked = vfs.engine.refresh_item(ino);
            let limit = vfs.engine.config.metadata_deadline;
            let answered = tokio::time::timeout(limit, asked).await;
            answered.map_err(|_elapsed| VfsError::TimedOut)??;
            let item = vfs.item(ino)?;
            if vfs.graft(&item).is_none() {
                return Err(VfsError::Loop);
            }
            let entry = item.parent.map(|parent| KernelChange::Entry {
                parent,
                name: item.name.clone(),
            });
            vfs.forget_entries(entry.into_iter().collect());
            Err(VfsError::Stale)
        });
        Ok(Outcome::Later(pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_tells_its_slot_and_the_main_one_changes_nothing() {
        assert_eq!(number(MAIN, Ino(7)), Ino(7));
        let last = Ino((1 << SLOT_SHIFT) - 1);
        for (slot, ino) in [(MAIN, Ino::ROOT), (1, Ino::ROOT), (SLOT_MAX, last)] {
            assert_eq!(split(number(slot, ino)), (slot, ino));
        }
        assert!(number(SLOT_MAX, last).0 < 1 << 48, "editions begin there");
    }
}
