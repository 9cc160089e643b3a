//! An item that exists on the service: new, moved, changed, or all of it.

use std::time::Duration;

use onedrivefs_core::{Ino, ItemId, ItemKind, LinkTarget, RemoteItem};
use onedrivefs_store::{Item, Kind, Ops, Remote, Role, StoreError};

use super::link::Standing;
use super::{
    Applied, Applier, aside, decoded_name, is_aside, kind_of, rebase_body, reclaim, remote_of,
    shown_name,
};
use crate::change::KernelChange;
use crate::journal;
use crate::merge::{ContentVerdict, PlaceVerdict, content_changed, decide_content, decide_place};
use crate::uploader::{Original, make_backup, next_version_of};

/// Deepest chain of folders that is followed; the service allows far less.
const DEPTH_MAX: u32 = 4096;

/// Deepest nesting that is looked into by going down.
const NESTING_MAX: u32 = 512;

/// How long a save takes at most, from its last byte to the rename that ends it.
const SAVING: Duration = Duration::from_secs(10);

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
    /// Applies an item that exists there.
    pub(super) fn upsert(
        &mut self,
        known: Option<Item>,
        there: &RemoteItem,
    ) -> Result<Applied, StoreError> {
        let as_known = self.as_known(known.as_ref(), there)?;
        let there = as_known.as_ref().unwrap_or(there);
        let Some(plain) = kind_of(there) else {
            tracing::debug!(item = %there.id, "An item of unknown kind was left out.");
            return Ok(Applied::Done);
        };
        let Some(remote_name) = decoded_name(there) else {
            tracing::warn!(item = %there.id, "An item without a usable name was left out.");
            return Ok(Applied::Done);
        };
        let parent = match (&there.parent, &known) {
            (Some(id), None) => self.folder_of_new(id)?,
            (Some(id), Some(_)) => self.tx.directory_by_id(id)?,
            (None, _) => known.as_ref().and_then(|item| item.remote.as_ref()?.parent),
        };
        let Some(parent) = parent else {
            return Ok(Applied::Orphan);
        };
        let parent = match &known {
            Some(item) if item.parent.is_some() && !is_in(item, parent) => {
                self.standing_unless_sent(parent)?
            }
            _ => parent,
        };
        let standing = self.standing(known.as_ref(), plain, there, &remote_name)?;
        let known = match known {
            Some(item) if !self.is_confirmed(&item) => Some(self.take_kind(item, standing.kind)?),
            other => other,
        };
        let kind = known.as_ref().map_or(standing.kind, |item| item.kind);
        let shown = self.name_to_show(known.as_ref(), &remote_name, kind)?;
        let place = Place {
            parent,
            remote_name,
            shown,
            standing,
        };
        let occupant = self.tx.child(place.parent, &place.shown)?;
        if let Some(occupant) = &occupant
            && self.is_in_motion(known.as_ref(), occupant)?
        {
            self.tx.defer(there)?;
            return Ok(Applied::Deferred);
        }
        match known {
            Some(item) => {
                if item.parent.is_some() {
                    self.note_target(item.ino, there)?;
                }
                self.update(item, place, there)
            }
            None => self.create(place, occupant, there),
        }
    }

    /// A shortcut to a file that was asked for in vain: what is known of the file is told in its place.
    fn as_known(
        &self,
        known: Option<&Item>,
        there: &RemoteItem,
    ) -> Result<Option<RemoteItem>, StoreError> {
        let ItemKind::Shortcut(target) = &there.kind else {
            return Ok(None);
        };
        let plain = |item: &&Item| item.kind != Kind::Directory && item.role == Role::Ordinary;
        let base = known.filter(plain).and_then(|item| item.remote.as_ref());
        let Some(base) = base.filter(|_| target.unanswered && !target.is_folder) else {
            return Ok(None);
        };
        let link = self.tx.link(&there.id)?;
        let same = |link: &LinkTarget| link.drive == target.drive && link.item == target.item;
        let Some(link) = link.filter(same) else {
            return Ok(None);
        };
        Ok(Some(RemoteItem {
            kind: ItemKind::File,
            size: Some(base.size),
            etag: base.etag.clone(),
            ctag: base.ctag.clone(),
            modified: Some(base.mtime),
            hash: base.hash,
            link: Some(link),
            ..there.clone()
        }))
    }

    /// Tells whether a row was confirmed by this enumeration, or by an answer since it began.
    fn is_confirmed(&self, item: &Item) -> bool {
        self.facts.prefer_confirmed && item.epoch >= self.facts.epoch - 1
    }

    /// The folder that new items are in, looked up once for those that follow each other.
    fn folder_of_new(&mut self, id: &ItemId) -> Result<Option<Ino>, StoreError> {
        if let Some((last, ino)) = &self.folder
            && last == id
        {
            return Ok(Some(*ino));
        }
        let Some(found) = self.tx.directory_by_id(id)? else {
            return Ok(None);
        };
        let standing = self.standing_unless_sent(found)?;
        self.folder = Some((id.clone(), standing));
        Ok(Some(standing))
    }

    /// Tells whether the item that has the name goes elsewhere in the same round, but cannot be touched
    /// because a request for it is on its way.
    fn is_in_motion(&self, known: Option<&Item>, occupant: &Item) -> Result<bool, StoreError> {
        let is_other = known.is_none_or(|item| item.ino != occupant.ino);
        match occupant.item_id() {
            Some(id) if is_other && (self.facts.in_flight)(occupant.ino) => {
                Ok(self.tx.staged_item(id)?.is_some())
            }
            _ => Ok(false),
        }
    }

    /// An item that is known here.
    fn update(
        &mut self,
        mut item: Item,
        place: Place,
        there: &RemoteItem,
    ) -> Result<Applied, StoreError> {
        let Some(base) = item.remote.clone() else {
            return Ok(Applied::Done);
        };
        if self.is_confirmed(&item) {
            return self.update_confirmed(item, &place, there);
        }
        let mut waiting = self.waiting(item.ino)?;
        let changed = item.kind != Kind::Directory && content_changed(&base, there);
        if changed && let Some(heir) = self.made_in_place_of(&item, waiting, there)? {
            return self.update(heir, place, there);
        }
        if waiting.has(Ops::DELETE) {
            // What others change in the file that it stands for speaks for the file, which stays.
            let changed = changed && there.link.is_none();
            return self
                .update_unlinked(item, changed, place, there)
                .map(|()| Applied::Done);
        }
        // One that stepped aside has no place of its own until it is told one.
        let moved =
            base.parent != Some(place.parent) || base.name != place.remote_name || is_aside(&item);
        let remote = base_at(&place, there, &item);
        let before = item.clone();
        item.role = place.standing.role;
        item.epoch = item.epoch.max(self.facts.epoch);
        item.web_url = there.web_url.clone().or(item.web_url);
        if journal::is_swap_name(self.tx, &place.remote_name)? {
            // Nobody but this machine has given it that name, on its way to the one it has here.
            if is_aside(&item) {
                self.show_again(&mut item)?;
            }
            if moved {
                self.set_waiting(item.ino, waiting.with(Ops::MOVE))?;
            }
        } else if moved && !is_aside(&item) && self.is_our_move(&there.id, &place)? {
            waiting = self.claim_move(&item, &remote, waiting)?;
        } else if decide_place(moved) == PlaceVerdict::TakeTheirs {
            self.tx.forget_moves(&there.id)?;
            let to = (place.parent, place.remote_name.as_str(), &*place.shown);
            self.move_item(&mut item, to)?;
            waiting = waiting.without(Ops::MOVE);
        }
        let written = self.being_written(&item)?;
        let same = if changed {
            self.same_bytes(&item, there)?
        } else {
            None
        };
        let mut verdict = decide_content(waiting, written, changed, same);
        if verdict == ContentVerdict::KeepBoth && self.is_our_content(there)? {
            // What is there is an earlier save of ours; the one that waits builds on it.
            rebase_body(self.tx, &item, &remote)?;
            verdict = ContentVerdict::KeepOurs;
        }
        match verdict {
            ContentVerdict::KeepOurs => self.keep_content(&mut item, &base, remote, waiting)?,
            ContentVerdict::TakeTheirs => {
                self.drop_body(&mut item)?;
                item.size = remote.size;
                item.mtime = remote.mtime;
                item.target = None;
                item.remote = Some(remote);
                self.changes.push(KernelChange::Content { ino: item.ino });
            }
            ContentVerdict::Adopt => {
                self.adopt_content(&mut item, remote, waiting)?;
            }
            ContentVerdict::KeepBoth => {
                return self.keep_both(item, place, there).map(|()| Applied::Done);
            }
        }
        if item != before {
            self.tx.update_item(&item)?;
            self.reclaim_left(&item, before.remote)?;
        }
        Ok(Applied::Done)
    }

    /// An item whose row may be newer than its description.
    fn update_confirmed(
        &mut self,
        mut item: Item,
        place: &Place,
        there: &RemoteItem,
    ) -> Result<Applied, StoreError> {
        let is = item.kind;
        let Some(base) = item.remote.as_mut() else {
            return Ok(Applied::Done);
        };
        if base.etag.is_none() || base.etag != there.etag {
            // Which of the two is older cannot be told: the service is asked again.
            self.tx.defer(there)?;
            return Ok(Applied::Deferred);
        }
        if is == place.standing.kind {
            base.author = place.standing.author;
        }
        item.epoch = self.facts.epoch;
        self.tx.update_item(&item)?;
        Ok(Applied::Done)
    }

    /// A file that was saved in the place of one that is a backup now, on which a change there bears
    /// that the program did not know. It takes over the identity right away, since that change
    /// must not end up in the backup.
    fn made_in_place_of(
        &mut self,
        old: &Item,
        waiting: Ops,
        there: &RemoteItem,
    ) -> Result<Option<Item>, StoreError> {
        let Some(bodies) = self.facts.bodies.filter(|_| !waiting.has(Ops::DELETE)) else {
            return Ok(None);
        };
        let Some(heir) = next_version_of(self.tx, old, waiting)? else {
            return Ok(None);
        };
        if (self.facts.in_flight)(heir.ino) || self.is_our_content(there)? {
            return Ok(None);
        }
        let row = old.body.map(|id| self.tx.body(id)).transpose()?.flatten();
        let original = match row {
            None => Original::Empty,
            Some(row) if row.ranges.is_none() => Original::Body(row.id),
            Some(_) => return Ok(None),
        };
        let heir = make_backup(self.tx, bodies, (old.clone(), original), heir)?;
        self.wake_uploader |= heir.is_some();
        Ok(heir)
    }

    /// The content there is what it was: tags and times may be new.
    fn keep_content(
        &mut self,
        item: &mut Item,
        base: &Remote,
        remote: Remote,
        waiting: Ops,
    ) -> Result<(), StoreError> {
        let ours = Ops::CONTENT.with(Ops::TIMES);
        if remote.mtime != base.mtime && waiting.without(ours) == waiting {
            self.take_time(item, &remote);
        }
        // Bytes that are still missing come from the version with the new tag as well.
        if let Some(mut row) = item.body.map(|id| self.tx.body(id)).transpose()?.flatten()
            && row.base_item.as_ref() == Some(&base.id)
            && row.base_etag == base.etag
            && (row.base_etag != remote.etag || row.base_ctag != remote.ctag)
        {
            row.base_etag.clone_from(&remote.etag);
            row.base_ctag.clone_from(&remote.ctag);
            self.tx.update_body(&row)?;
        }
        item.remote = Some(remote);
        Ok(())
    }

    /// The content there is the one that waits here.
    fn adopt_content(
        &mut self,
        item: &mut Item,
        remote: Remote,
        waiting: Ops,
    ) -> Result<(), StoreError> {
        let mut left = waiting.without(settled_by_equal_content(item));
        // An empty one is most likely ours: nothing carries the times of an empty file along. And
        // what a program set stays.
        let keeps_time = item.size == 0 || waiting.has(Ops::TIMES) && was_time_set(item);
        if keeps_time && !remote.mtime.same_second(item.mtime) {
            left = left.with(Ops::TIMES);
        } else {
            left = left.without(Ops::TIMES);
            self.take_time(item, &remote);
        }
        // Whatever was sent before was for another version than this one.
        self.tx.forget_contents(&remote.id)?;
        item.remote = Some(remote);
        self.set_waiting(item.ino, left)?;
        self.disown_session(item.ino)
    }

    /// An item that was unlinked here: if its content changed there, theirs comes back.
    fn update_unlinked(
        &mut self,
        mut item: Item,
        changed: bool,
        place: Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        let remote = base_at(&place, there, &item);
        if changed && !self.is_our_content(there)? {
            self.drop_body(&mut item)?;
            item.size = remote.size;
            item.mtime = remote.mtime;
            item.remote = Some(remote);
            self.restore(&mut item, &place.shown, place.parent)?;
            let path = self.tx.path(item.ino)?;
            tracing::info!(
                path,
                "An item deleted here was changed on the service and came back."
            );
            return Ok(());
        }
        let left = item.remote.replace(remote);
        self.tx.update_item(&item)?;
        self.reclaim_left(&item, left)
    }

    /// An item has left a place on the service, where another one may be that had to be shown beside
    /// it.
    fn reclaim_left(&mut self, item: &Item, left: Option<Remote>) -> Result<(), StoreError> {
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
    fn back_to_its_name(&self, item: &Item) -> Result<Ops, StoreError> {
        let name = item.remote.as_ref().map_or("", |remote| &remote.name);
        if journal::is_swap_name(self.tx, name)? {
            Ok(Ops::MOVE)
        } else {
            Ok(Ops::NONE)
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

    /// Both sides have content of their own: the service's keeps the name.
    fn keep_both(
        &mut self,
        mut ours: Item,
        place: Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        let waiting = self.waiting(ours.ino)?;
        let theirs = self.name_to_show(None, &place.remote_name, place.standing.kind)?;
        let mut shown = (place.parent, theirs);
        if journal::is_swap_name(self.tx, &place.remote_name)?
            && let Some(parent) = ours.parent
        {
            // On its way to where it was moved to here: that is where it goes.
            shown = (parent, aside::wanted_name(&ours).to_owned());
        }
        ours.remote = None;
        self.make_conflict_copy(
            &mut ours,
            waiting
                .without(Ops::MOVE)
                .with(Ops::CREATE)
                .with(Ops::CONTENT),
        )?;
        self.insert_at((shown.0, &shown.1), &place, there)?;
        // The pin goes with the item of the service, which keeps the name.
        if let Some(theirs) = self.tx.item_by_id(&there.id)? {
            self.tx.move_pin(ours.ino, theirs.ino)?;
            let left = self.back_to_its_name(&theirs)?;
            self.set_waiting(theirs.ino, left)?;
        }
        Ok(())
    }

    /// An item that is new here.
    fn create(
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
    fn adopt(
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

    /// Content that is the same on both sides has the service's time from now on. The precise one
    /// of this machine stays where the service's is the same, rounded.
    fn take_time(&mut self, item: &mut Item, remote: &Remote) {
        if !remote.mtime.same_second(item.mtime) {
            item.mtime = remote.mtime;
            self.changes
                .push(KernelChange::Attributes { ino: item.ino });
        }
    }

    /// Inserts a row for an item that nothing here stands for.
    fn insert(&mut self, place: &Place, there: &RemoteItem) -> Result<(), StoreError> {
        self.insert_at((place.parent, &place.shown), place, there)
    }

    /// As [`Self::insert`], shown in a folder and under a name that may differ from the service's.
    fn insert_at(
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
    fn note_target(&self, ino: Ino, there: &RemoteItem) -> Result<(), StoreError> {
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

    /// Moves an item to where the service has it; a rename that waits here is dropped.
    fn move_item(
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
fn is_in(item: &Item, folder: Ino) -> bool {
    item.remote
        .as_ref()
        .is_some_and(|remote| remote.parent == Some(folder))
}

/// Tells whether a program set the time of a file to another one than that of its last change.
fn was_time_set(item: &Item) -> bool {
    let apart = item.mtime.as_nanos().abs_diff(item.ctime.as_nanos());
    u128::from(apart) > SAVING.as_nanos()
}

/// What does not wait any more once the service has the same content. A body still has to leave
/// the spool, which its sender does without sending anything.
fn settled_by_equal_content(item: &Item) -> Ops {
    if item.body.is_some() {
        Ops::NONE
    } else {
        Ops::CONTENT
    }
}
