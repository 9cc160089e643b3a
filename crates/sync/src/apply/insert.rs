//! An item that is new here.

use onedrivefs_core::{Ino, ItemKind, LinkTarget, RemoteItem};
use onedrivefs_store::{Item, Kind, Ops, Role, StoreError};

use super::link::Standing;
use super::place::{Place, base_at};
use super::{Applied, Applier};
use crate::change::KernelChange;
use crate::journal;

impl Applier<'_> {
    /// An item that is new here.
    pub(super) fn create(
        &mut self,
        place: Place,
        occupant: Option<Item>,
        there: &RemoteItem,
    ) -> Result<Applied, StoreError> {
        let kind = place.standing.kind;
        if let Some(applied) = self.claim_unanswered(kind, &place, there)? {
            return Ok(applied);
        }
        let Some(mut occupant) = occupant else {
            let free = place.shown.clone();
            return self
                .insert_as((place.parent, free), &place, there)
                .map(|()| Applied::Done);
        };
        if occupant.remote.is_none()
            && ((self.facts.in_flight)(occupant.ino) || self.is_copy_followed(occupant.ino)?)
        {
            // Most likely the request that is on its way made this very item.
            self.tx.defer(there)?;
            return Ok(Applied::Deferred);
        }
        if occupant.remote.is_none() && !occupant.local_only {
            let both_folders = kind == Kind::Directory && occupant.is_dir();
            let same_file = kind == occupant.kind
                && kind != Kind::Directory
                && !self.being_written(&occupant)?
                && self.same_bytes(&occupant, there)? == Some(true);
            if both_folders || same_file {
                return self.adopt(occupant, &place, there).map(|()| Applied::Done);
            }
            let waiting = self.waiting(occupant.ino)?;
            self.make_conflict_copy(&mut occupant, waiting)?;
        }
        self.insert(&place, there).map(|()| Applied::Done)
    }

    /// The service has what was created here: they are one item from now on.
    pub(super) fn adopt(
        &mut self,
        mut item: Item,
        place: &Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        let remote = base_at(place, there, &item);
        item.epoch = self.facts.epoch;
        let mut left = Ops::NONE;
        if item.is_dir() {
            // Theirs may hold more than ours.
            item.children_known = self.facts.children_come_along;
        } else if item.size == 0 && !remote.mtime.same_second(item.mtime) {
            // Most likely ours: nothing carries the times of an empty file along.
            left = Ops::TIMES;
        } else {
            self.take_time(&mut item, &remote);
        }
        item.remote = Some(remote);
        self.tx.update_item(&item)?;
        let waiting = self.waiting(item.ino)?;
        let settled = Ops::CREATE.with(settled_by_equal_content(&item));
        if !journal::is_home(&item) {
            left = left.with(Ops::MOVE);
        }
        self.set_waiting(item.ino, waiting.without(settled).with(left))?;
        self.disown_session(item.ino)
    }

    /// Inserts a row for an item that nothing here stands for.
    pub(super) fn insert(&mut self, place: &Place, there: &RemoteItem) -> Result<(), StoreError> {
        self.insert_at((place.parent, &place.shown), place, there)
    }

    /// As [`Self::insert`], shown in a folder and under a name that may differ from the service's.
    pub(super) fn insert_at(
        &mut self,
        (parent, shown): (Ino, &str),
        place: &Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        let name = self.free_place(Ino(0), parent, shown)?;
        self.insert_as((parent, name), place, there)
    }

    /// As [`Self::insert_at`], under a name that nothing has.
    fn insert_as(
        &mut self,
        (parent, name): (Ino, String),
        place: &Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        let Standing { kind, role, .. } = place.standing;
        let mut item = Item::new(kind, parent, &name, self.facts.now);
        item.role = role;
        item.mtime = there.modified.unwrap_or(self.facts.now);
        item.ctime = item.mtime;
        item.atime = item.mtime;
        item.btime = there.created.unwrap_or(item.mtime);
        item.size = if kind == Kind::Directory {
            0
        } else {
            there.size.unwrap_or(0)
        };
        item.children_known =
            kind == Kind::Directory && (self.facts.children_come_along || role != Role::Ordinary);
        item.web_url.clone_from(&there.web_url);
        item.epoch = self.facts.epoch;
        item.remote = Some(base_at(place, there, &item));
        let ino = self.tx.insert_item(&item)?;
        self.note_target(ino, there)?;
        // Once for all that come into one folder in a row.
        let of_parent = KernelChange::Attributes { ino: parent };
        if self.changes.last() == Some(&of_parent) {
            self.changes.pop();
        }
        self.changes.push(KernelChange::Entry { parent, name });
        self.changes.push(of_parent);
        Ok(())
    }

    /// Notes where a shortcut leads. What is there is shown in its place.
    pub(super) fn note_target(&self, ino: Ino, there: &RemoteItem) -> Result<(), StoreError> {
        match (&there.link, &there.kind) {
            (Some(link), _) => self.tx.put_link(&there.id, link),
            (None, ItemKind::Shortcut(target)) if target.is_folder => {
                (self.tx).follow(ino, &target.drive, &target.item, target.kind)
            }
            (None, ItemKind::Shortcut(target)) => {
                // A file that cannot be seen now, and perhaps later.
                let link = LinkTarget {
                    drive: target.drive.clone(),
                    item: target.item.clone(),
                    read_only: false,
                };
                self.tx.put_link(&there.id, &link)
            }
            _ => Ok(()),
        }
    }
}

/// What does not wait any more once the service has the same content. A body still has to leave
/// the spool, which its sender does without sending anything.
pub(super) fn settled_by_equal_content(item: &Item) -> Ops {
    if item.body.is_some() {
        Ops::NONE
    } else {
        Ops::CONTENT
    }
}
