//! An item that exists on the service: new, moved, changed, or all of it.

use std::time::Duration;

use onedrivefs_core::{Ino, ItemId, ItemKind, LinkTarget, RemoteItem};
use onedrivefs_store::{Item, Kind, Ops, Remote, Role, StoreError};

use super::insert::settled_by_equal_content;
use super::place::{Place, base_at, is_in};
use super::{Applied, Applier, aside, decoded_name, is_aside, kind_of, rebase_body};
use crate::change::KernelChange;
use crate::journal;
use crate::merge::{ContentVerdict, PlaceVerdict, content_changed, decide_content, decide_place};
use crate::uploader::{Original, make_backup, next_version_of};

/// How long a save takes at most, from its last byte to the rename that ends it.
const SAVING: Duration = Duration::from_secs(10);

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

    /// Content that is the same on both sides has the service's time from now on. The precise one
    /// of this machine stays where the service's is the same, rounded.
    pub(super) fn take_time(&mut self, item: &mut Item, remote: &Remote) {
        if !remote.mtime.same_second(item.mtime) {
            item.mtime = remote.mtime;
            self.changes
                .push(KernelChange::Attributes { ino: item.ino });
        }
    }
}

/// Tells whether a program set the time of a file to another one than that of its last change.
fn was_time_set(item: &Item) -> bool {
    let apart = item.mtime.as_nanos().abs_diff(item.ctime.as_nanos());
    u128::from(apart) > SAVING.as_nanos()
}
