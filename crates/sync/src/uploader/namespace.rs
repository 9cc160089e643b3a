//! Folders, renames, deletions and times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, ItemId, ItemKind, NameKey, RemoteItem, kill_point, name};
use onedrivefs_graph::{Disposition, GraphError, ItemPatch, OnConflict};
use onedrivefs_store::{Item, JournalRow, Kind, Ops, Remote, Role};

use super::adopt::Moved;
use super::{Step, ready};
use crate::apply::{Applier, is_made_here, reclaim};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{self, LINK_SUFFIX, stored_name};
use crate::merge::content_changed;

/// Tries of a deletion that say which state of the item they mean. Some services answer such a
/// request with an error of their own for ever.
const TAGGED_TRIES: u32 = 5;

/// How long a look at what is to be deleted holds good. A request may wait for its turn, for minutes
/// if the service says so, and others may put something into a folder meanwhile. Longer than the
/// distance that requests keep while the budget is low.
const LOOK_LASTS: Duration = Duration::from_secs(3);

/// The same for a deletion that is sent once more because the service wanted another token, for which
/// nothing but the way there and back has to be waited.
const LOOK_LASTS_AGAIN: Duration = Duration::from_millis(300);

impl Engine {
    /// The id of the folder an item is in, which is known when the item is ready.
    pub(super) fn folder_id(&self, item: &Item) -> Result<Option<ItemId>, EngineError> {
        let Some(parent) = item.parent else {
            return Ok(None);
        };
        Ok(self
            .store
            .item(parent)?
            .and_then(|folder| folder.item_id().cloned()))
    }

    /// Notes what a request is about to make, so that news of it are not taken for somebody else's.
    pub(super) fn note_creating(&self, item: &Item, parent: &ItemId) {
        let made = (parent.key(), NameKey::of(&stored_name(item)));
        self.creating.lock().insert(item.ino, made);
    }

    /// Creates a folder. One that is there already is taken as ours: folders merge.
    pub(super) async fn send_folder(&self, item: &Item) -> Result<Step, EngineError> {
        let Some(parent) = self.folder_id(item)? else {
            return Ok(Step::Blocked);
        };
        if self.find_unanswered(item).await? {
            return Ok(Step::Progress);
        }
        self.note_creating(item, &parent);
        if !self.note_unanswered(item, None, None).await? {
            return Ok(Step::Cancelled);
        }
        let name = name::encode(&item.name);
        let drive = &self.config.drive.id;
        kill_point("before-folder-create");
        match self
            .graph
            .create_folder(drive, &parent, &name, OnConflict::Fail)
            .await
        {
            Ok(there) => {
                kill_point("folder-created");
                self.adopt_created(item, &there)?;
                Ok(Step::Progress)
            }
            Err(error) if error.disposition() == Disposition::Conflict => {
                self.resolve_taken_name(item, &parent, error).await
            }
            Err(error) if error.is_not_found() => self.folder_gone(item, error).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The name is taken on the service: looks at who has it, and lets the merge decide.
    pub(super) async fn resolve_taken_name(
        &self,
        item: &Item,
        parent: &ItemId,
        error: GraphError,
    ) -> Result<Step, EngineError> {
        // When nobody has it any more, or nobody we can see, another try will show.
        self.look_at_taken_name(item, parent)
            .await?
            .ok_or_else(|| error.into())
    }

    /// Looks at who has the name of an item on the service, and lets the merge decide. `None` when
    /// nobody has.
    pub(super) async fn look_at_taken_name(
        &self,
        item: &Item,
        parent: &ItemId,
    ) -> Result<Option<Step>, EngineError> {
        let name = name::encode(&stored_name(item));
        let drive = &self.config.drive.id;
        let asked = Instant::now();
        let Some(mut there) = self.graph.child_by_name(drive, parent, &name).await? else {
            return Ok(None);
        };
        there.parent = Some(parent.clone());
        self.hash_for_decisions(Some(&there)).await?;
        let before = self.store.item(item.ino)?;
        self.apply_now(&[there.clone()], Some(item.ino), asked)?;
        if self.is_leaving(&there.id, item.ino)? {
            // It is one of ours that goes elsewhere, as will be known when its request ends.
            return Ok(Some(Step::Blocked));
        }
        if self.has_left(&there, asked)? {
            return Ok(Some(Step::Progress));
        }
        let wants = |now: &Item| now.parent == item.parent && now.name == item.name;
        // It may have another name by now, which the next request asks for.
        if before.as_deref().is_some_and(wants) && self.store.item(item.ino)? == before {
            // Applying it changed nothing here: it is an item that holds the name for good.
            self.yield_name(item)?;
        }
        Ok(Some(Step::Progress))
    }

    /// Tells whether the item that holds a name on the service is about to leave it, or may turn out
    /// to be what a request on its way made.
    fn is_leaving(&self, holder: &ItemId, wanted_by: Ino) -> Result<bool, EngineError> {
        self.store.read(|r| {
            let Some(holder) = r.item_by_id(holder)? else {
                return Ok(r.deferred()?.iter().any(|item| item.id == *holder));
            };
            if holder.ino == wanted_by {
                return Ok(false);
            }
            let waiting = r.journal(holder.ino)?.filter(|row| !row.parked);
            Ok(waiting.is_some_and(|row| row.ops.has(Ops::MOVE) || row.ops.has(Ops::DELETE)))
        })
    }

    /// Tells whether an item that was found somewhere on the service is not there any more: a request of
    /// ours that ended since then moved or deleted it.
    fn has_left(&self, found: &RemoteItem, asked: Instant) -> Result<bool, EngineError> {
        if self.recent.deleted_since(&found.id, asked) {
            return Ok(true);
        }
        let Some(name) = found.name.as_deref().map(name::decode) else {
            return Ok(false);
        };
        self.store.read(|r| {
            let Some(item) = r.item_by_id(&found.id)? else {
                return Ok(false);
            };
            let folder = found.parent.as_ref().map(|id| r.directory_by_id(id));
            let folder = folder.transpose()?.flatten();
            let moved = |base: &Remote| base.parent != folder || base.name != name;
            Ok(self.recent.since(item.ino, asked) && item.remote.as_ref().is_some_and(moved))
        })
    }

    /// The service's item keeps the name; ours gets a conflict name.
    fn yield_name(&self, item: &Item) -> Result<(), EngineError> {
        let owner = item.ino;
        let in_flight = |ino| ino != owner && self.is_in_flight(ino);
        let facts = self.facts(&in_flight, self.answer_epoch()?);
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            if let Some(mut item) = tx.item(owner)? {
                let ops = tx.journal(owner)?.map_or(Ops::NONE, |row| row.ops);
                let needs_move = if item.remote.is_some() {
                    Ops::MOVE
                } else {
                    Ops::NONE
                };
                let left = item.parent.map(|parent| (parent, item.name.clone()));
                applier.make_conflict_copy(&mut item, ops.with(needs_move))?;
                if let Some((parent, name)) = left {
                    applier.changes.extend(reclaim(tx, parent, &name)?);
                }
            }
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.after_apply(outcome);
        Ok(())
    }

    /// Renames or moves an item.
    pub(super) async fn send_move(&self, item: &Item) -> Result<Step, EngineError> {
        let Some(remote) = &item.remote else {
            return Ok(Step::Blocked);
        };
        if self.store.read(|r| ready::is_in_own_way(r, item))? {
            return self.step_aside(item, remote).await;
        }
        let Some(parent) = self.folder_id(item)? else {
            return Ok(Step::Blocked);
        };
        let (swap, waits) = self.store.read(|r| {
            Ok::<_, EngineError>((ready::is_cycle(r, item)?, ready::waits_for_name(r, item)?))
        })?;
        if waits {
            // Another one of the same ring has gone by way of a third name since this one was ready.
            return Ok(Step::Blocked);
        }
        let wanted = stored_name(item);
        let name = if swap {
            journal::swap_name(&self.store)?
        } else {
            wanted
        };
        // After an unanswered request nobody knows where it is: all is said again.
        let doubtful = self.store.read(|r| journal::is_perhaps_moved(r, item))?;
        let sent = Moved {
            name: &name,
            named: doubtful || remote.name != name,
            placed: doubtful || remote.parent != item.parent,
            more: swap,
        };
        let patch = ItemPatch {
            name: sent.named.then(|| name::encode(&name)),
            parent: sent.placed.then(|| parent.clone()),
            ..ItemPatch::default()
        };
        if patch == ItemPatch::default() {
            self.adopt_moved(item, None, sent)?;
            return Ok(Step::Progress);
        }
        self.note_move(item, &remote.id, &name)?;
        kill_point("before-move");
        match self
            .graph
            .update_item(&self.config.drive.id, &remote.id, &patch, link_tag(remote))
            .await
        {
            Ok(there) => {
                kill_point("moved");
                let ignored_parent =
                    patch.parent.is_some() && there.parent.as_ref().is_some_and(|id| *id != parent);
                if ignored_parent {
                    // The service is known to rename without moving: what it did is taken, and the
                    // rest is tried again.
                    self.adopt_moved(item, Some(&there), Moved { more: true, ..sent })?;
                    return Err(EngineError::NotMoved);
                }
                self.adopt_moved(item, Some(&there), sent)?;
                Ok(Step::Progress)
            }
            Err(error) if error.disposition() == Disposition::Conflict => {
                self.resolve_taken_name(item, &parent, error).await
            }
            Err(error) if error.is_not_found() => self.item_gone(item, error).await,
            Err(error) if sent.placed && error.disposition() == Disposition::Permanent => {
                self.wake_freshness();
                Err(EngineError::MoveRefused(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives an item a third name, since the folder it moves into waits for the name it has.
    async fn step_aside(&self, item: &Item, remote: &Remote) -> Result<Step, EngineError> {
        let sent = journal::swap_name(&self.store)?;
        let patch = ItemPatch {
            name: Some(sent.clone()),
            ..ItemPatch::default()
        };
        let drive = &self.config.drive.id;
        kill_point("before-step-aside");
        let tag = link_tag(remote);
        match self.graph.update_item(drive, &remote.id, &patch, tag).await {
            Ok(mut there) => {
                kill_point("stepped-aside");
                // It is still where it was, also when the answer does not say so.
                if there.parent.is_none() {
                    let folder = item.remote.as_ref().and_then(|remote| remote.parent);
                    let folder = folder.map(|ino| self.store.item(ino)).transpose()?;
                    there.parent = folder.flatten().and_then(|f| f.item_id().cloned());
                }
                let sent = Moved {
                    name: &sent,
                    named: true,
                    placed: false,
                    more: true,
                };
                self.adopt_moved(item, Some(&there), sent)?;
                Ok(Step::Progress)
            }
            Err(error) if error.is_not_found() => self.item_gone(item, error).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the times of an item.
    pub(super) async fn send_times(
        &self,
        item: &Item,
        row: &JournalRow,
    ) -> Result<Step, EngineError> {
        let Some(remote) = &item.remote else {
            return Ok(Step::Blocked);
        };
        if remote.mtime.same_second(item.mtime) {
            self.forget_ops(item.ino, Ops::TIMES)?;
            return Ok(Step::Progress);
        }
        let drive = &self.config.drive.id;
        if row.attempts > 0 {
            // The answer may have been lost, and some drives keep a version for every change.
            let there = match self.graph.item(drive, &remote.id).await {
                Ok(there) => there,
                Err(error) if error.is_not_found() => return self.item_gone(item, error).await,
                Err(error) => return Err(error.into()),
            };
            if there
                .modified
                .is_some_and(|time| time.same_second(item.mtime))
            {
                self.adopt_times(item, &there)?;
                return Ok(Step::Progress);
            }
        }
        let patch = ItemPatch {
            modified: Some(item.mtime),
            created: Some(item.btime),
            ..ItemPatch::default()
        };
        kill_point("before-times");
        match self
            .graph
            .update_item(drive, &remote.id, &patch, link_tag(remote))
            .await
        {
            Ok(there) => {
                kill_point("times-sent");
                self.adopt_times(item, &there)?;
                Ok(Step::Progress)
            }
            Err(error) if error.is_not_found() => self.item_gone(item, error).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an item, unless somebody changed it since: then theirs comes back.
    pub(super) async fn send_delete(
        &self,
        item: &Item,
        row: &JournalRow,
    ) -> Result<Step, EngineError> {
        if item.remote.is_none() && self.is_being_made_for(item.ino)? {
            return Ok(Step::Blocked);
        }
        if let Some(session) = &row.session {
            // An unfinished upload of a file that is gone, for which the name may be held.
            kill_point("before-abandoned-session-cancel");
            match self.graph.cancel_upload(&session.url).await {
                // One that can never be asked ends by itself.
                Err(error) if is_passing(&error) && !self.is_cut_off(&error).await => {
                    return Err(error.into());
                }
                _ => kill_point("abandoned-session-cancelled"),
            }
        }
        let Some(remote) = &item.remote else {
            if !self.find_unanswered(item).await? {
                self.forget_item(item.ino)?;
            }
            return Ok(Step::Progress);
        };
        if self.config.groups {
            // Only this machine knows of it: there is nothing to delete.
            self.forget_item(item.ino)?;
            return Ok(Step::Progress);
        }
        let there = match self.find_item(&remote.id).await {
            Ok(there) => there,
            Err(error) if error.is_not_found() => {
                self.forget_item(item.ino)?;
                return Ok(Step::Progress);
            }
            Err(error) => return Err(error.into()),
        };
        let mut looked = Instant::now();
        let stands_for_other = there.link.is_some() || matches!(there.kind, ItemKind::Shortcut(_));
        let changed = if item.role == Role::Shortcut || stands_for_other {
            // It holds nothing itself, and what it leads to stays where it is.
            false
        } else if item.kind == Kind::Directory {
            let news = self.folder_has_news(item, &remote.id).await?;
            looked = Instant::now();
            news
        } else {
            content_changed(remote, &there) && !self.store.read(|r| is_made_here(r, &there))?
        };
        if changed {
            self.come_back(item, there)?;
            return Ok(Step::Progress);
        }
        if !self.may_delete(item.ino)? {
            return Ok(Step::Cancelled);
        }
        let sent = AtomicBool::new(false);
        let is_wanted = || {
            let lasts = match sent.swap(true, Ordering::Relaxed) {
                false => LOOK_LASTS,
                true => LOOK_LASTS_AGAIN,
            };
            looked.elapsed() < lasts && self.is_deletion_wanted(item)
        };
        if self
            .delete_unchanged(&remote.id, &there, row, &is_wanted)
            .await?
        {
            self.forget_item(item.ino)?;
        }
        Ok(Step::Progress)
    }

    /// Tells whether nothing has become known meanwhile that speaks against a deletion.
    fn is_deletion_wanted(&self, item: &Item) -> bool {
        let empty = || {
            self.store
                .read(|r| Ok::<_, EngineError>(r.remote_children(item.ino)?.is_empty()))
        };
        let is_folder = item.kind == Kind::Directory && item.role != Role::Shortcut;
        let holds_nothing = !is_folder || empty().unwrap_or(false);
        holds_nothing && self.may_delete(item.ino).unwrap_or(false)
    }

    /// Deletes an item in the state that was just looked at. Tells whether it is gone; if not, it
    /// was changed this very moment. Some services refuse any tag here; those are asked without one.
    async fn delete_unchanged(
        &self,
        id: &ItemId,
        seen: &RemoteItem,
        row: &JournalRow,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, EngineError> {
        let drive = &self.config.drive.id;
        let refused = || self.delete_tags_refused.load(Ordering::Relaxed);
        let tag = seen
            .etag
            .as_ref()
            .filter(|_| row.attempts < TAGGED_TRIES && !refused());
        kill_point("before-delete");
        let tag_text = tag.map(|t| t.as_str());
        let deleted = self.graph.delete_item(drive, id, tag_text, is_wanted);
        match deleted.await {
            Ok(sent) => {
                kill_point("deleted");
                return Ok(sent);
            }
            Err(error) if tag.is_some() && error.disposition() == Disposition::Changed => {}
            Err(error) => return Err(error.into()),
        }
        match self.graph.item(drive, id).await {
            Ok(now) if now.etag != seen.etag => return Ok(false),
            Ok(_) => self.delete_tags_refused.store(true, Ordering::Relaxed),
            Err(error) if error.is_not_found() => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let sent = self.graph.delete_item(drive, id, None, is_wanted).await?;
        kill_point("deleted-without-tag");
        Ok(sent)
    }

    /// Tells whether a folder that was removed here holds something on the service.
    async fn folder_has_news(&self, item: &Item, id: &ItemId) -> Result<bool, EngineError> {
        let known = self.store.read(|r| r.remote_children(item.ino))?;
        if !known.is_empty() {
            return Ok(true);
        }
        let mut next: Option<String> = None;
        let (mut items, asked) = loop {
            let asked = Instant::now();
            let page = self
                .graph
                .children_page(&self.config.drive.id, id, next.as_deref())
                .await?;
            if !page.items.is_empty() {
                break (page.items, asked);
            }
            // A page may be empty without being the last.
            next = page.next;
            if next.is_none() {
                return Ok(false);
            }
        };
        for child in &mut items {
            child.parent = Some(id.clone());
        }
        self.apply_now(&items, None, asked)?;
        Ok(true)
    }

    /// Brings an item back that was deleted here and changed there.
    fn come_back(&self, item: &Item, mut there: RemoteItem) -> Result<(), EngineError> {
        let owner = item.ino;
        let in_flight = |ino| ino != owner && self.is_in_flight(ino);
        let facts = self.facts(&in_flight, self.answer_epoch()?);
        if there.parent.is_none() {
            let parent = item.remote.as_ref().and_then(|r| r.parent);
            there.parent = parent
                .map(|ino| self.store.item(ino))
                .transpose()?
                .flatten()
                .and_then(|p| p.item_id().cloned());
        }
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            applier.bring_back(owner, &there)?;
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.after_apply(outcome);
        Ok(())
    }

    /// An item that somebody moved out of the mounted folder is none of its any more: what waits for
    /// it goes the way of what waits for deleted items.
    pub(super) async fn left_the_folder(&self, item: &Item) -> Result<Option<Step>, EngineError> {
        let Some(remote) = item
            .remote
            .as_ref()
            .filter(|_| self.mounted_folder().is_some())
        else {
            return Ok(None);
        };
        match self.find_item(&remote.id).await {
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => self.item_gone(item, error).await.map(Some),
            Err(error) => Err(error.into()),
        }
    }

    /// The service did not find what a request was about: the item, or something it needs.
    pub(super) async fn item_gone(
        &self,
        item: &Item,
        error: GraphError,
    ) -> Result<Step, EngineError> {
        let Some(remote) = &item.remote else {
            return Err(error.into());
        };
        let asked = Instant::now();
        match self.find_item(&remote.id).await {
            // The item is there: it was its folder that was not found, or the answer was late.
            Ok(there) => {
                self.apply_now(&[there], Some(item.ino), asked)?;
                self.folder_gone(item, error).await
            }
            Err(gone) if gone.is_not_found() => {
                self.bury(item.ino, &remote.id, asked).await?;
                Ok(Step::Progress)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The service did not find what a request was about, most likely the folder that something was
    /// to be put into: if it is gone there, it is made again first.
    pub(super) async fn folder_gone(
        &self,
        item: &Item,
        error: GraphError,
    ) -> Result<Step, EngineError> {
        let folder = item.parent.map(|ino| self.store.item(ino)).transpose()?;
        let folder = folder.filter(|_| !self.config.groups);
        let Some(folder) = folder.flatten().filter(|f| !self.is_in_flight(f.ino)) else {
            return Err(error.into());
        };
        let Some(id) = folder.item_id() else {
            return Ok(Step::Blocked);
        };
        let asked = Instant::now();
        match self.find_item(id).await {
            Ok(_) => Err(error.into()),
            Err(gone) if gone.is_not_found() => {
                self.apply_now(&[crate::delta::tombstone_for(&folder)], None, asked)?;
                Ok(Step::Progress)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The tag under which an item that is stored like a symbolic link may be renamed or given other
/// times. By such a request we become the one who changed it last, and content that nobody here has
/// seen would look as if it were ours.
pub(super) fn link_tag(remote: &Remote) -> Option<&str> {
    let tag = remote.etag.as_ref().map(|tag| tag.as_str());
    let tag = tag.or_else(|| remote.ctag.as_ref().map(|tag| tag.as_str()));
    tag.filter(|_| remote.name.ends_with(LINK_SUFFIX))
}

/// Tells whether the same request may succeed later.
fn is_passing(error: &GraphError) -> bool {
    matches!(
        error.disposition(),
        Disposition::Offline
            | Disposition::Retry
            | Disposition::RetryAfter(_)
            | Disposition::Reauth
    )
}
