//! Where an item is: its name and folder here and on the service, and what has to make way for it.

use onedrivefs_core::{Ino, RemoteItem};
use onedrivefs_store::{Item, Kind, Ops, Remote, StoreError};

use super::link::Standing;
use super::{Applier, aside, decoded_name, is_aside, reclaim, remote_of, shown_name};
use crate::change::KernelChange;
use crate::journal;

/// Deepest chain of folders that is followed; the service allows far less.
const DEPTH_MAX: u32 = 4096;

/// Deepest nesting that is looked into by going down.
const NESTING_MAX: u32 = 512;

/// Where the service has an item.
pub(super) struct Place {
    pub(super) parent: Ino,
    /// Decoded name, with the suffix of a link.
    pub(super) remote_name: String,
    /// Name in the mount.
    pub(super) shown: String,
    /// What it is there.
    pub(super) standing: Standing,
}

impl Applier<'_> {
    /// An item has left a place on the service, where another one may be that had to be shown beside
    /// it.
    pub(super) fn reclaim_left(
        &mut self,
        item: &Item,
        left: Option<Remote>,
    ) -> Result<(), StoreError> {
        let now = item.remote.as_ref();
        let place = |base: &Remote| base.parent.map(|parent| (parent, base.name.clone()));
        let left = left.as_ref().and_then(place);
        if let Some((parent, name)) = left.filter(|left| now.and_then(place).as_ref() != Some(left))
        {
            let shown = shown_name(&name, item.kind).to_owned();
            self.changes.extend(reclaim(self.tx, parent, &shown)?);
        }
        Ok(())
    }

    /// The name under which an item of the service is shown; not one that this machine gave it for a
    /// moment.
    pub(super) fn name_to_show(
        &self,
        item: Option<&Item>,
        remote_name: &str,
        kind: Kind,
    ) -> Result<String, StoreError> {
        let name = shown_name(remote_name, kind);
        match item {
            Some(item) if journal::is_swap_name(self.tx, name)? => {
                Ok(aside::wanted_name(item).to_owned())
            }
            _ => Ok(name.to_owned()),
        }
    }

    /// What waits for an item that has on the service a name which this machine gave it for a moment.
    pub(super) fn back_to_its_name(&self, item: &Item) -> Result<Ops, StoreError> {
        let name = item.remote.as_ref().map_or("", |remote| &remote.name);
        if journal::is_swap_name(self.tx, name)? {
            Ok(Ops::MOVE)
        } else {
            Ok(Ops::NONE)
        }
    }

    /// Moves an item to where the service has it; a rename that waits here is dropped.
    pub(super) fn move_item(
        &mut self,
        item: &mut Item,
        (into, remote_name, shown): (Ino, &str, &str),
    ) -> Result<(), StoreError> {
        self.break_ring(item.ino, into)?;
        let waiting = self.waiting(item.ino)?;
        let name = self.free_place(item.ino, into, shown)?;
        // What waits for it could not be sent while it had no place.
        self.wake_uploader |= is_aside(item) && !waiting.is_empty();
        let left = item.parent.map(|parent| (parent, item.name.clone()));
        if let Some(parent) = item.parent {
            self.changes.push(KernelChange::Entry {
                parent,
                name: item.name.clone(),
            });
            self.changes.push(KernelChange::Attributes { ino: parent });
        }
        item.parent = Some(into);
        item.name = name;
        if let Some(remote) = &mut item.remote {
            // It holds its old name no longer there either.
            remote.parent = item.parent;
            remote_name.clone_into(&mut remote.name);
        }
        self.changes.push(KernelChange::Entry {
            parent: into,
            name: item.name.clone(),
        });
        self.changes.push(KernelChange::Attributes { ino: into });
        if waiting.has(Ops::MOVE) {
            self.set_waiting(item.ino, waiting.without(Ops::MOVE))?;
        }
        // The name must be free for what follows in the same round.
        self.tx.update_item(item)?;
        if let Some((parent, name)) = left {
            self.changes.extend(reclaim(self.tx, parent, &name)?);
        }
        Ok(())
    }

    /// The service moved a folder into one that was moved into the first one here, and is about to
    /// be: neither would be in reach any more. The move that was made here is taken back.
    fn break_ring(&mut self, ino: Ino, into: Ino) -> Result<(), StoreError> {
        let mut moved_here = None;
        let mut at = into;
        for _ in 0..DEPTH_MAX {
            if at == ino {
                break;
            }
            let Some(item) = self.tx.item(at)? else {
                return Ok(());
            };
            let Some(parent) = item.parent else {
                return Ok(());
            };
            let elsewhere = |base: &Remote| base.parent.is_some_and(|it| it != parent);
            if moved_here.is_none()
                && item.remote.as_ref().is_some_and(elsewhere)
                && self.waiting(at)?.has(Ops::MOVE)
            {
                moved_here = Some(item);
            }
            at = parent;
        }
        let Some((mut item, base)) = moved_here
            .filter(|_| at == ino)
            .and_then(|item| item.remote.clone().map(|base| (item, base)))
        else {
            return Ok(());
        };
        let Some(parent) = base.parent else {
            return Ok(());
        };
        let shown = shown_name(&base.name, item.kind).to_owned();
        self.move_item(&mut item, (parent, &base.name, &shown))
    }

    /// Makes a name free for an item of the service and returns the name to use.
    pub(super) fn free_place(
        &mut self,
        ino: Ino,
        parent: Ino,
        name: &str,
    ) -> Result<String, StoreError> {
        let Some(mut occupant) = self.tx.child(parent, name)?.filter(|item| item.ino != ino) else {
            return Ok(name.to_owned());
        };
        let Some(remote) = occupant.remote.clone() else {
            let waiting = self.waiting(occupant.ino)?;
            self.make_conflict_copy(&mut occupant, waiting)?;
            return Ok(name.to_owned());
        };
        if let Some(staged) = self.tx.staged_item(&remote.id)?
            && self.goes_elsewhere(&remote, &staged)?
        {
            // The same round says where the occupant goes: it steps aside, by way of a name that
            // nobody uses, since the two may be swapping names. One that goes for good is not
            // removed yet, for what is in it may still be moved out of it by the same round.
            if staged.deleted && self.outlives_deletion(&occupant)? {
                let waiting = self.waiting(occupant.ino)?;
                self.make_conflict_copy(&mut occupant, waiting)?;
            } else {
                self.step_aside(occupant, &staged)?;
            }
            return Ok(name.to_owned());
        }
        if journal::is_home(&occupant) {
            // The service has two items under what is one name here. Both are shown.
            return aside::free_name(self.tx, parent, name);
        }
        // It was renamed here to a name that somebody else took there: theirs wins the name.
        let waiting = self.waiting(occupant.ino)?;
        self.make_conflict_copy(&mut occupant, waiting.with(Ops::MOVE))?;
        Ok(name.to_owned())
    }

    /// Tells whether an item whose deletion on the service is known will be made there again, under
    /// the name it has here: one with unsent content, or a folder that was renamed here and has
    /// something unsent in it.
    fn outlives_deletion(&self, item: &Item) -> Result<bool, StoreError> {
        let waiting = self.waiting(item.ino)?;
        if item.is_dir() {
            return Ok(waiting.has(Ops::MOVE) && self.holds_unsent(item.ino, 0)?);
        }
        Ok(waiting.has(Ops::CONTENT) || self.being_written(item)?)
    }

    /// Tells whether something in a folder was not sent yet.
    fn holds_unsent(&self, folder: Ino, depth: u32) -> Result<bool, StoreError> {
        for child in self.tx.children(folder)? {
            let unsent = !self.waiting(child.ino)?.is_empty() || self.being_written(&child)?;
            if unsent || depth < NESTING_MAX && self.holds_unsent(child.ino, depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether the round at hand moves an item away from where it was. One that is only
    /// mentioned, such as an echo of our own upload, stays where it was renamed to here.
    fn goes_elsewhere(&self, base: &Remote, staged: &RemoteItem) -> Result<bool, StoreError> {
        if staged.deleted || decoded_name(staged).is_some_and(|name| name != base.name) {
            return Ok(true);
        }
        let Some(folder) = &staged.parent else {
            return Ok(false);
        };
        let folder = self.tx.item_by_id(folder)?;
        Ok(folder.map(|folder| folder.ino) != base.parent)
    }
}

/// The base that an item of the service makes in a place.
pub(super) fn base_at(place: &Place, there: &RemoteItem, item: &Item) -> Remote {
    let mut remote = remote_of(there, Some(place.parent), place.remote_name.clone(), item);
    remote.author = place.standing.author.or(remote.author);
    remote
}

/// Tells whether the service has an item in a folder, as far as is known here.
pub(super) fn is_in(item: &Item, folder: Ino) -> bool {
    item.remote
        .as_ref()
        .is_some_and(|remote| remote.parent == Some(folder))
}
