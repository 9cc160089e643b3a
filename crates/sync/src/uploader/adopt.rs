//! Taking the service's answers into the database: ids, tags and what is settled by them.

use std::time::{Duration, Instant};

use onedrivefs_core::{ETag, Ino, QuickXorHash, RemoteItem, Timestamp, name};
use onedrivefs_store::{Item, Ops, Place, Remote, StoreError, Tx};

use crate::apply::{Applier, rebase_body, reclaim, reclaim_places, remote_of};
use crate::change::KernelChange;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::{HydrateError, Source};
use crate::journal::{self, stored_name};
use crate::merge::content_changed;

/// What was uploaded.
pub(super) struct Uploaded {
    pub ino: Ino,
    /// The body and its generation; `None` for a file that never had a body.
    pub body: Option<(u64, u64)>,
    pub size: u64,
    pub hash: Option<QuickXorHash>,
    pub mtime: Timestamp,
    /// Where it was sent to.
    pub parent: Option<Ino>,
    pub name: String,
    /// Whether the times were sent along.
    pub times_sent: bool,
}

/// What a request to rename or move asked for.
#[derive(Clone, Copy)]
pub(super) struct Moved<'a> {
    /// The name it has on the service in the end, before encoding.
    pub name: &'a str,
    /// Whether that name was asked for, or is the one it had anyway.
    pub named: bool,
    /// Whether the folder it is in here was asked for.
    pub placed: bool,
    /// Whether more has to be asked for: the name is one for the moment.
    pub more: bool,
}

/// The tag of a version that nobody has seen the tag of: no request with it as a condition succeeds.
const OVERTAKEN: &str = "\"overtaken\"";

/// Tries to find out whether somebody replaced what was sent, before it is sent anew.
const OVERTAKEN_TRIES: u32 = 4;

/// Pause between two of them.
const OVERTAKEN_PAUSE: Duration = Duration::from_secs(1);

/// How the service's answer compares with what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has what was sent.
    Same,
    /// It changed the content on arrival, as it does with some kinds of files: its version is the
    /// base from now on.
    Rewritten,
    /// It has something else; it must be sent again.
    Different,
}

impl Engine {
    /// A folder was created, or found.
    pub(super) fn adopt_created(&self, item: &Item, there: &RemoteItem) -> Result<(), EngineError> {
        let epoch = self.answer_epoch()?;
        self.store.write(|tx| {
            tx.forget_unanswered(item.ino)?;
            let Some(mut now) = tx.item(item.ino)? else {
                return Ok(());
            };
            if tx
                .item_by_id(&there.id)?
                .is_some_and(|other| other.ino != now.ino)
            {
                // It is known here under another inode already; the next round sorts it out.
                return Ok(());
            }
            now.remote = Some(remote_of(there, item.parent, stored_name(item), &now));
            now.epoch = now.epoch.max(epoch);
            tx.update_item(&now)?;
            let times = if now
                .remote
                .as_ref()
                .is_some_and(|r| r.mtime.same_second(now.mtime))
            {
                Ops::TIMES
            } else {
                Ops::NONE
            };
            settle(tx, &now, Ops::CREATE.with(times))
        })?;
        Ok(())
    }

    /// An item was renamed or moved.
    pub(super) fn adopt_moved(
        &self,
        item: &Item,
        there: Option<&RemoteItem>,
        sent: Moved<'_>,
    ) -> Result<(), EngineError> {
        let asked = Instant::now();
        let mut changes = Vec::new();
        let news = self.store.write(|tx| {
            // A save by rename may have given the identity to another inode meanwhile; what holds
            // for that one now is decided by where it is.
            let owner = item.item_id().map(|id| tx.item_by_id(id)).transpose()?;
            let Some(mut now) = owner.flatten() else {
                return Ok(false);
            };
            let Some(mut remote) = now.remote.clone() else {
                return Ok(false);
            };
            tx.forget_moves(&remote.id)?;
            let left = remote.parent.map(|parent| (parent, remote.name.clone()));
            // What nobody here asked for is somebody else's move, and not our base.
            let elsewhere = there
                .map(|there| is_elsewhere(tx, &remote, there, sent))
                .transpose()?
                .unwrap_or_default();
            if sent.placed {
                remote.parent = folder_told(tx, there)?.or(item.parent);
            }
            if sent.named {
                remote.name = there
                    .and_then(|there| there.name.as_deref().map(name::decode))
                    .unwrap_or_else(|| sent.name.to_owned());
            }
            if now.ino != item.ino {
                now.remote = Some(remote);
                tx.update_item(&now)?;
                self.recent.note(now.ino);
                return Self::settle_place(tx, &now).map(|()| elsewhere);
            }
            let news = !now.is_dir() && there.is_some_and(|there| has_news(&remote, there));
            if let Some(there) = there.filter(|_| !news) {
                take_tags(&mut remote, there);
            }
            let time_was_reset = !remote.mtime.same_second(now.mtime) && !now.is_dir();
            let renamed_there = sent.named && remote.name != sent.name;
            now.remote = Some(remote);
            tx.update_item(&now)?;
            // Whoever finds it gone from where it was a moment ago is to know that this is why.
            self.recent.note(now.ino);
            settle(tx, &now, if sent.more { Ops::NONE } else { Ops::MOVE })?;
            let mut waiting = tx.journal(now.ino)?.map_or(Ops::NONE, |row| row.ops);
            let before = waiting;
            if time_was_reset && !sent.more && !news {
                waiting = waiting.with(Ops::TIMES);
            }
            let wanted = stored_name(&now) == sent.name && now.parent == item.parent;
            if renamed_there && !sent.more && wanted {
                // The service has its own idea of the name. Asking again would not end.
                waiting = waiting.without(Ops::MOVE);
            }
            if waiting != before {
                journal::set_ops(tx, now.ino, waiting, Timestamp::now())?;
            }
            if let Some((parent, name)) = left {
                changes = reclaim(tx, parent, &name)?;
            }
            Ok::<_, EngineError>(news || elsewhere)
        })?;
        self.tell_kernel(changes);
        self.look_at_news(item.ino, there.filter(|_| news), asked)
    }

    /// Notes whether an item waits to be moved, now that its place on the service is known.
    fn settle_place(tx: &Tx<'_>, item: &Item) -> Result<(), EngineError> {
        let waiting = tx.journal(item.ino)?.map_or(Ops::NONE, |row| row.ops);
        let left = if waiting.has(Ops::DELETE) || item.parent.is_none() {
            waiting
        } else if journal::is_home(item) && !journal::is_perhaps_moved(tx, item)? {
            waiting.without(Ops::MOVE)
        } else {
            waiting.with(Ops::MOVE)
        };
        if left != waiting {
            journal::set_ops(tx, item.ino, left, Timestamp::now())?;
        }
        Ok(())
    }

    /// An answer shows that somebody else changed or moved the item. Its tags must not become our base,
    /// under which our next upload would replace what nobody here has seen; the merge decides.
    fn look_at_news(
        &self,
        ino: Ino,
        news: Option<&RemoteItem>,
        asked: Instant,
    ) -> Result<(), EngineError> {
        match news {
            Some(there) => self.apply_now(std::slice::from_ref(there), Some(ino), asked),
            None => Ok(()),
        }
    }

    /// The times of an item were set.
    pub(super) fn adopt_times(&self, item: &Item, there: &RemoteItem) -> Result<(), EngineError> {
        let asked = Instant::now();
        let news = self.store.write(|tx| {
            let Some(mut now) = tx.item(item.ino)? else {
                return Ok(false);
            };
            let Some(mut remote) = now.remote.clone() else {
                return Ok(false);
            };
            if remote.id != there.id {
                // A save by rename passed another identity on meanwhile.
                return Ok(false);
            }
            let news = has_news(&remote, there);
            if !news {
                take_tags(&mut remote, there);
                remote.mtime = there.modified.unwrap_or(item.mtime);
            }
            now.remote = Some(remote);
            let unchanged = now.mtime == item.mtime;
            tx.update_item(&now)?;
            settle(tx, &now, if unchanged { Ops::TIMES } else { Ops::NONE })?;
            Ok::<_, EngineError>(news)
        })?;
        self.look_at_news(item.ino, Some(there).filter(|_| news), asked)
    }

    /// Takes changes off what waits for an inode.
    pub(super) fn forget_ops(&self, ino: Ino, ops: Ops) -> Result<(), EngineError> {
        self.store.write(|tx| match tx.item(ino)? {
            Some(item) => settle(tx, &item, ops),
            None => tx.delete_journal(ino),
        })?;
        Ok(())
    }

    /// Forgets an item that is gone on both sides.
    pub(super) fn forget_item(&self, ino: Ino) -> Result<(), EngineError> {
        let mut changes = Vec::new();
        let in_flight = |other| other != ino && self.is_in_flight(other);
        let facts = self.facts(&in_flight, self.answer_epoch()?);
        let mut filled = None;
        let dropped = self.store.write(|tx| {
            let sent = tx.unanswered_of(ino)?;
            tx.forget_unanswered(ino)?;
            tx.delete_journal(ino)?;
            let Some(item) = tx.item(ino)? else {
                return Ok(None);
            };
            if let Some(id) = item.item_id() {
                // News of it that came before must not bring it back.
                self.recent.note_deleted(id);
                tx.unstage_item(id)?;
                tx.undefer(id)?;
                tx.forget_moves(id)?;
            }
            if item.parent.is_some() {
                // It was created again here in the meantime.
                let mut item = item;
                item.remote = None;
                tx.update_item(&item)?;
                journal::set_ops(tx, ino, Ops::CREATE.with(Ops::CONTENT), Timestamp::now())?;
                return Ok(None);
            }
            if item.is_dir() && tx.has_children(ino)? {
                // Something came into it while its deletion was on its way.
                let mut applier = Applier::new(tx, facts);
                applier.tombstone(item)?;
                filled = Some(self.outcome(applier)?);
                return Ok(None);
            }
            if self.writers.lock().contains_key(&ino) {
                // Somebody still writes to it; what it is stays until the last handle is closed.
                let nameless = Item {
                    remote: None,
                    ..item.clone()
                };
                tx.update_item(&nameless)?;
                changes = reclaim_places(tx, &item)?;
                return Ok(None);
            }
            let body = item.body.map(|id| tx.body(id)).transpose()?.flatten();
            if let Some(row) = &body {
                tx.delete_body(row.id)?;
            }
            tx.delete_item(ino)?;
            changes = reclaim_places(tx, &item)?;
            for sent in sent {
                changes.extend(reclaim(tx, sent.parent, &sent.name)?);
            }
            Ok::<_, StoreError>(body)
        })?;
        self.bodies.remove_files(dropped.as_slice());
        self.tell_kernel(changes);
        if let Some(outcome) = filled {
            self.after_apply(outcome);
        }
        Ok(())
    }

    /// A body arrived. Returns what the service has compared with what was sent.
    pub(super) async fn adopt_uploaded(
        &self,
        sent: &Uploaded,
        there: &RemoteItem,
    ) -> Result<Verdict, EngineError> {
        let verdict = self.compare(sent, there);
        let doubtful = match verdict {
            Verdict::Same => false,
            // What is here becomes a copy of what is there, whoever made that.
            Verdict::Rewritten => !self.is_as_sent(sent)?,
            Verdict::Different => true,
        };
        if doubtful && self.is_overtaken(sent, there).await? {
            self.adopt_overtaken(sent, there)?;
            return Ok(Verdict::Same);
        }
        self.adopt_content(sent, there, verdict)?;
        Ok(verdict)
    }

    /// Tells whether a file was neither removed nor changed here since it was sent.
    fn is_as_sent(&self, sent: &Uploaded) -> Result<bool, StoreError> {
        self.store.read(|r| {
            let Some(item) = r.item(sent.ino)?.filter(|item| item.parent.is_some()) else {
                return Ok(false);
            };
            let row = item.body.map(|id| r.body(id)).transpose()?.flatten();
            let current = row.as_ref().map(|row| (row.id, row.generation));
            Ok(current == sent.body && row.is_none_or(|row| !row.dirty))
        })
    }

    /// Tells whether what was sent did arrive, and somebody has replaced it before the answer was made:
    /// it is among the older versions then.
    pub(super) async fn is_overtaken(
        &self,
        sent: &Uploaded,
        there: &RemoteItem,
    ) -> Result<bool, EngineError> {
        let source = Source {
            drive: self.config.drive.id.clone(),
            item: there.id.clone(),
            etag: None,
            ctag: None,
            size: sent.size,
            hash: sent.hash,
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.is_past(&source).await {
                Ok(found) => return Ok(found),
                // Not every service has versions.
                Err(HydrateError::Gone | HydrateError::Refused(_)) => return Ok(false),
                // Sending it anew would not tell more.
                Err(HydrateError::TimedOut) if tries < OVERTAKEN_TRIES => {
                    tokio::time::sleep(OVERTAKEN_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What was sent arrived, and an answer shows what somebody has replaced it with: that must not
    /// become our base, under which it would be replaced or deleted. It is asked for like everything
    /// else that somebody changed while something was on its way.
    fn adopt_overtaken(&self, sent: &Uploaded, there: &RemoteItem) -> Result<(), EngineError> {
        let base = self.store.write(|tx| {
            tx.defer(there)?;
            Ok::<_, StoreError>(tx.item(sent.ino)?.and_then(|item| item.remote))
        })?;
        let base = base.filter(|base| base.id == there.id);
        let etag = base.as_ref().and_then(|base| base.etag.clone());
        let ours = RemoteItem {
            size: Some(sent.size),
            hash: sent.hash,
            etag: etag.or_else(|| Some(ETag::new(OVERTAKEN))),
            ctag: base.and_then(|base| base.ctag),
            ..there.clone()
        };
        self.adopt_content(sent, &ours, Verdict::Same)
    }

    /// Content arrived that compares in this way with what was sent.
    pub(super) fn adopt_content(
        &self,
        sent: &Uploaded,
        there: &RemoteItem,
        verdict: Verdict,
    ) -> Result<(), EngineError> {
        let epoch = self.answer_epoch()?;
        let asked = Instant::now();
        let mut elsewhere = false;
        let mut changes = Vec::new();
        let mut dropped = Vec::new();
        let mut announcing = None;
        self.store.write(|tx| {
            tx.forget_answered(sent.ino, &there.id)?;
            let Some(mut now) = tx.item(sent.ino)? else {
                return self.adopt_stray(tx, there);
            };
            let owner = tx.item_by_id(&there.id)?;
            let mine = now
                .remote
                .as_ref()
                .is_none_or(|remote| remote.id == there.id);
            if let Some(mut owner) = owner.filter(|owner| owner.ino != now.ino) {
                // A save by rename gave the identity to another inode meanwhile.
                let (parent, name) = (
                    owner.remote.as_ref().and_then(|r| r.parent),
                    owner.remote.as_ref().map(|r| r.name.clone()),
                );
                owner.remote = Some(remote_of(there, parent, name.unwrap_or_default(), &owner));
                tx.update_item(&owner)?;
                // What was asked for before is older than this answer for it as well.
                self.recent.note(owner.ino);
                // One that was unlinked since, and has taken over the identity of a third item in
                // between, still has that one to delete.
                return if now.parent.is_none() && now.remote.is_none() {
                    tx.delete_journal(now.ino).map_err(Into::into)
                } else {
                    Ok(())
                };
            }
            if !mine {
                return self.adopt_stray(tx, there);
            }
            now.epoch = now.epoch.max(epoch);
            let (parent, stored) = match &now.remote {
                // Only content was sent: another place is somebody else's move.
                Some(base) => {
                    elsewhere = is_elsewhere(tx, base, there, Moved::NOT)?;
                    (base.parent, base.name.clone())
                }
                None => {
                    let name = there.name.as_deref();
                    let name = name.map_or_else(|| sent.name.clone(), name::decode);
                    (folder_told(tx, Some(there))?.or(sent.parent), name)
                }
            };
            let mut remote = remote_of(there, parent, stored, &now);
            let base = now.remote.as_ref();
            let was_sent = base.is_none_or(|base| base.etag.is_none() || base.etag != there.etag);
            if was_sent {
                remote.author = Some(match verdict {
                    Verdict::Same | Verdict::Rewritten => self.config.oneself.judge_sent(there),
                    Verdict::Different => self.config.oneself.judge(base, there),
                });
            }
            if verdict == Verdict::Same {
                remote.size = sent.size;
                remote.hash = sent.hash.or(remote.hash);
            }
            now.remote = Some(remote);
            let settled =
                self.settle_body(tx, &mut now, sent, verdict, &mut changes, &mut dropped)?;
            tx.update_item(&now)?;
            settle(tx, &now, settled)?;
            // Only a session carries times along; they follow in a request of their own.
            let times_open = settled.has(Ops::CONTENT) && !settled.has(Ops::TIMES);
            if times_open && !sent.times_sent && now.parent.is_some() {
                let waiting = tx.journal(now.ino)?.map_or(Ops::NONE, |row| row.ops);
                journal::set_ops(tx, now.ino, waiting.with(Ops::TIMES), Timestamp::now())?;
            }
            announcing = Some(self.announce_soon(&changes));
            Ok::<(), EngineError>(())
        })?;
        self.bodies.remove_files(&dropped);
        self.announce(changes, announcing);
        self.look_at_news(sent.ino, Some(there).filter(|_| elsewhere), asked)
    }

    /// Updates the body of an item that arrived; returns what does not wait any more.
    fn settle_body(
        &self,
        tx: &Tx<'_>,
        now: &mut Item,
        sent: &Uploaded,
        verdict: Verdict,
        changes: &mut Vec<KernelChange>,
        dropped: &mut Vec<onedrivefs_store::BodyRow>,
    ) -> Result<Ops, EngineError> {
        let row = now.body.map(|id| tx.body(id)).transpose()?.flatten();
        let current = row.as_ref().map(|row| (row.id, row.generation));
        let unchanged = current == sent.body && row.as_ref().is_none_or(|row| !row.dirty);
        let mut settled = Ops::CREATE;
        if verdict == Verdict::Same && !unchanged {
            // What was written meanwhile builds on what was sent.
            if let Some(remote) = &now.remote {
                rebase_body(tx, now, remote)?;
            }
        }
        if verdict == Verdict::Different || !unchanged {
            return Ok(settled);
        }
        settled = settled.with(Ops::CONTENT);
        let remote_mtime = now.remote.as_ref().map_or(sent.mtime, |r| r.mtime);
        if now.mtime == sent.mtime && (sent.times_sent || remote_mtime.same_second(now.mtime)) {
            settled = settled.with(Ops::TIMES);
        }
        let Some(mut row) = row else {
            return Ok(settled);
        };
        if verdict == Verdict::Rewritten {
            now.size = now.remote.as_ref().map_or(now.size, |r| r.size);
            now.body = None;
            tx.delete_body(row.id)?;
            dropped.push(row);
            changes.push(KernelChange::Content { ino: now.ino });
            return Ok(settled);
        }
        if let Some(body) = self.bodies.open(&row).unwrap_or_default() {
            match self.bodies.content().demote(&body) {
                Ok(()) => {
                    row.place = Place::Cache;
                    self.evictor.note_growth(row.size);
                }
                Err(error) if error.is_no_space() => {
                    // It leaves the spool when nobody uses it any more.
                    tracing::debug!(body = row.id, %error, "A sent body stays in the spool for now.");
                    self.evictor.wake();
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(remote) = &now.remote {
            row.set_base(remote);
        }
        row.hash = sent.hash;
        row.copied = None;
        row.used_at = Timestamp::now();
        tx.update_body(&row)?;
        Ok(settled)
    }

    /// The service made an item that nothing here stands for any more: it is deleted again, since
    /// it was an unfinished step of this machine that nobody asked to keep.
    pub(super) fn adopt_stray(&self, tx: &Tx<'_>, there: &RemoteItem) -> Result<(), EngineError> {
        if tx.item_by_id(&there.id)?.is_some() {
            return Ok(());
        }
        let now = Timestamp::now();
        let mut stray = Item::new(
            onedrivefs_store::Kind::File,
            Ino::ROOT,
            there.name.as_deref().unwrap_or_default(),
            now,
        );
        stray.parent = None;
        stray.remote = Some(remote_of(there, None, stray.name.clone(), &stray));
        let ino = tx.insert_item(&stray)?;
        Ok(journal::set_ops(tx, ino, Ops::DELETE, now)?)
    }

    /// Compares the service's answer with what was sent.
    pub(super) fn compare(&self, sent: &Uploaded, there: &RemoteItem) -> Verdict {
        let same_size = there.size.is_none_or(|size| size == sent.size);
        let same_hash = there.hash.zip(sent.hash).is_none_or(|(a, b)| a == b);
        if same_size && same_hash {
            return Verdict::Same;
        }
        let personal = self.config.drive.kind == onedrivefs_core::DriveKind::Personal;
        if !personal && is_rewritten_kind(&sent.name) {
            Verdict::Rewritten
        } else {
            Verdict::Different
        }
    }
}

impl Moved<'_> {
    /// Nothing was asked for.
    const NOT: Self = Self {
        name: "",
        named: false,
        placed: false,
        more: false,
    };
}

/// Tells whether an answer shows an item in a place that is neither its base nor was asked for.
fn is_elsewhere(
    tx: &Tx<'_>,
    base: &Remote,
    there: &RemoteItem,
    sent: Moved<'_>,
) -> Result<bool, StoreError> {
    let renamed = |name: &str| name::decode(name) != base.name;
    if !sent.named && there.name.as_deref().is_some_and(renamed) {
        return Ok(true);
    }
    let Some(folder) = there.parent.as_ref().filter(|_| !sent.placed) else {
        return Ok(false);
    };
    let folder = tx.item_by_id(folder)?.map(|folder| folder.ino);
    Ok(folder.is_none() || folder != base.parent)
}

/// The folder that the service says an item is in, if it is known here.
fn folder_told(tx: &Tx<'_>, there: Option<&RemoteItem>) -> Result<Option<Ino>, StoreError> {
    let folder = there
        .and_then(|there| there.parent.as_ref())
        .map(|id| tx.item_by_id(id))
        .transpose()?
        .flatten();
    Ok(folder.map(|folder| folder.ino))
}

/// Tells whether an answer about an item that nothing was sent for but its name or times certainly
/// describes other content than the base. Times alone say nothing here.
fn has_news(base: &Remote, there: &RemoteItem) -> bool {
    let by_tag = base.ctag.is_some() && there.ctag.is_some();
    let by_hash = base.hash.is_some() && there.hash.is_some();
    (by_tag || by_hash) && content_changed(base, there)
}

/// Takes the tags and the time of an answer that describes the same content.
fn take_tags(remote: &mut Remote, there: &RemoteItem) {
    remote.etag.clone_from(&there.etag);
    if there.ctag.is_some() {
        remote.ctag.clone_from(&there.ctag);
    }
    remote.mtime = there.modified.unwrap_or(remote.mtime);
}

/// Extensions of files into which document libraries write properties of their own on arrival.
const REWRITTEN: &[&str] = &[
    "docx", "docm", "dotx", "xlsx", "xlsm", "xlsb", "xltx", "pptx", "pptm", "potx", "ppsx", "doc",
    "xls", "ppt", "vsdx", "one", "onetoc2", "pdf", "html", "htm", "aspx", "mht", "jpg", "jpeg",
    "heic", "png", "tif", "tiff",
];

/// Tells whether document libraries are known to change files of this kind.
pub(super) fn is_rewritten_kind(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, extension)| REWRITTEN.iter().any(|e| e.eq_ignore_ascii_case(extension)))
}

/// Takes changes off what waits for an item; a place that differs meanwhile waits again.
fn settle(tx: &Tx<'_>, item: &Item, done: Ops) -> Result<(), StoreError> {
    let Some(mut row) = tx.journal(item.ino)? else {
        return Ok(());
    };
    let mut left = row.ops.without(done);
    if done.has(Ops::CONTENT) || done.has(Ops::CREATE) {
        row.session = None;
        row.copy = None;
    }
    let placed = journal::is_home(item) || item.parent.is_none();
    left = if placed && journal::is_perhaps_moved(tx, item)? {
        left
    } else if placed {
        left.without(Ops::MOVE)
    } else if row.ops.has(Ops::CREATE) || done.has(Ops::MOVE) {
        left.with(Ops::MOVE)
    } else {
        // It may be shown under another name only because its own is taken here.
        left
    };
    if left.has(Ops::DELETE) {
        left = Ops::DELETE;
    }
    row.ops = left;
    row.attempts = 0;
    row.error = None;
    row.not_before = Timestamp::from_nanos(0);
    tx.put_journal(&row)
}
