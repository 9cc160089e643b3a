//! Rounds of changes: pages are fetched into the stage, and take effect with their delta link.
//!
//! A round that is cut short changes nothing, or is taken up where it stopped: the pages that came
//! are in the stage, the next link is noted. A big round takes effect in several transactions, so
//! that programs are not held up; until the last of them the round counts as unfinished and is
//! applied again from the stage after a crash, which changes nothing twice.

mod page;

use std::sync::atomic::Ordering;
use std::time::Instant;

use onedrivefs_core::{Ino, NameKey, Provenance, RemoteItem, kill_point};
use onedrivefs_graph::{DeltaFrom, DeltaNext, DeltaPage, Disposition, GraphError, Lane, in_lane};
use onedrivefs_store::{Item, Reader, StoreError};
use tokio_util::task::AbortOnDropHandle;

use crate::apply::{Applied, Applier, decoded_name, needs_hash};
use crate::engine::{Engine, META_DELTA_LINK, META_EPOCH, Outcome};
use crate::error::EngineError;
use crate::scope::is_withheld;

/// Items applied per transaction. At about 10 µs each, programs wait for at most a few ms.
const CHUNK: u32 = 500;

/// Where an unfinished round goes on.
const META_NEXT_LINK: &str = "delta_next";
/// The delta link of a round whose pages are all staged.
pub(crate) const META_STAGED_LINK: &str = "delta_staged";
/// Set while the round is an enumeration of the whole drive.
pub(crate) const META_ENUMERATING: &str = "enumerating";

impl Engine {
    /// Fetches and applies one round.
    pub(crate) async fn run_round(&self) -> Result<(), EngineError> {
        if self.config.groups {
            return self.look_at_links().await;
        }
        self.run_drive_round().await?;
        if let Err(error) = self.look_at_links().await {
            // They are in other drives, which does not concern this one.
            tracing::debug!(%error, "A file of another drive could not be asked for.");
        }
        Ok(())
    }

    /// Fetches and applies one round of the drive.
    async fn run_drive_round(&self) -> Result<(), EngineError> {
        if self.store.read(|r| r.meta(META_STAGED_LINK))?.is_none() {
            self.learn_root().await?;
            let walks = self.walks.load(Ordering::Relaxed);
            if !walks && self.has_walked()? {
                // The daemon was started anew: perhaps there is a change feed by now.
                self.begin_enumeration()?;
            }
            let fetched = if walks {
                self.walk().await
            } else {
                self.fetch_round().await
            };
            let fetched = self.fetch_otherwise(fetched).await;
            match fetched {
                Ok(()) => {}
                Err(EngineError::Graph(error)) if self.has_no_feed(&error) => {
                    self.check_folder().await?;
                    self.walks.store(true, Ordering::Relaxed);
                    self.walk().await?;
                }
                Err(EngineError::Graph(error)) if self.learn_walking(&error) => self.walk().await?,
                Err(EngineError::Graph(error)) if self.has_link()? && must_restart(&error) => {
                    tracing::info!(%error, "The service asked for a new enumeration.");
                    self.begin_enumeration()?;
                    self.fetch_round().await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.apply_stage().await
    }

    /// As a round of the mounted folder was refused: makes sure that it is not gone, or goes on with
    /// the feed of the whole drive if that is all there is.
    async fn fetch_otherwise(&self, fetched: Result<(), EngineError>) -> Result<(), EngineError> {
        match fetched {
            Err(EngineError::Graph(error)) if self.learn_whole_feed(&error) => {
                self.fetch_round().await
            }
            Err(EngineError::Graph(error)) if is_withheld(&error) => {
                self.check_folder().await?;
                Err(error.into())
            }
            other => other,
        }
    }

    /// Learns the id of the root, without which nothing can be created.
    pub(crate) async fn learn_root(&self) -> Result<(), EngineError> {
        if self
            .store
            .item(Ino::ROOT)?
            .is_some_and(|root| root.remote.is_some())
        {
            return Ok(());
        }
        let asked = Instant::now();
        let root = match self.mounted_folder() {
            Some(folder) => {
                let root = self.find_item(&folder).await?;
                // Before anybody can write anything.
                self.learn_rights().await?;
                root
            }
            None => self.graph.root(&self.config.drive.id).await?,
        };
        let root = RemoteItem {
            is_root: true,
            ..root
        };
        self.apply_now(&[root], None, asked)?;
        Ok(())
    }

    /// Forgets the delta link: the next round enumerates the drive, and what it does not confirm
    /// is looked at when it ends.
    pub(crate) fn begin_enumeration(&self) -> Result<(), EngineError> {
        let epoch = self.epoch()? + 2;
        self.store.write(|tx| {
            tx.clear_stage()?;
            tx.set_meta(META_NEXT_LINK, None)?;
            tx.set_meta(META_STAGED_LINK, None)?;
            tx.set_meta(META_DELTA_LINK, None)?;
            tx.set_meta(META_EPOCH, Some(&epoch.to_string()))
        })?;
        Ok(())
    }

    /// Tells whether a round would begin or go on with a stored link.
    fn has_link(&self) -> Result<bool, StoreError> {
        self.store.read(|r| {
            Ok(r.meta(META_NEXT_LINK)?
                .or(r.meta(META_DELTA_LINK)?)
                .is_some())
        })
    }

    /// Fetches all pages of a round into the stage.
    async fn fetch_round(&self) -> Result<(), EngineError> {
        let (next, link) = self
            .store
            .read(|r| Ok::<_, StoreError>((r.meta(META_NEXT_LINK)?, r.meta(META_DELTA_LINK)?)))?;
        let whole = link.is_none();
        if next.is_none() {
            *self.round_began.lock() = Instant::now();
        }
        self.enumerating.store(whole, Ordering::Relaxed);
        let drive = &self.config.drive.id;
        let from = next.or(link).map_or_else(|| self.feed(), DeltaFrom::Link);
        let mut page = self.graph.delta_page(drive, &from).await?;
        loop {
            kill_point("page-fetched");
            let items = self.admit(page.items)?;
            let next = match page.next {
                DeltaNext::More(link) => link,
                DeltaNext::Done(link) => {
                    return self.take_page(items, whole, META_STAGED_LINK, &link);
                }
            };
            let from = DeltaFrom::Link(next.clone());
            let ahead = self.fetch_ahead(&from);
            // Taking a page in keeps this thread. What was woken last waits for the thread that
            // woke it, and that would be the request.
            tokio::task::yield_now().await;
            self.take_page(items, whole, META_NEXT_LINK, &next)?;
            page = match ahead.await {
                Ok(fetched) => fetched?,
                // The task is gone, which says nothing of the page.
                Err(_) => self.graph.delta_page(drive, &from).await?,
            };
        }
    }

    /// Fetches a page in a task of its own, so that it comes and is decoded while the one before it
    /// is taken in.
    fn fetch_ahead(&self, from: &DeltaFrom) -> AbortOnDropHandle<Result<DeltaPage, GraphError>> {
        let graph = self.graph.clone();
        let drive = self.config.drive.id.clone();
        let from = from.clone();
        let fetch = async move { graph.delta_page(&drive, &from).await };
        AbortOnDropHandle::new(tokio::spawn(in_lane(Lane::Background, fetch)))
    }

    /// Applies the staged items: first what exists, parents before children, then tombstones.
    async fn apply_stage(&self) -> Result<(), EngineError> {
        let whole = self.store.read(|r| r.meta(META_ENUMERATING))?.is_some();
        if !whole {
            self.list_arrived().await?;
        }
        self.hash_for_decisions(None).await?;
        loop {
            let (applied, left) = self.apply_pass(whole).await?;
            tracing::debug!(applied, left, "Applied a part of a round.");
            if applied == 0 || left == 0 {
                break;
            }
        }
        self.settle_strays(whole).await?;
        let sweep = if whole {
            self.confirm_missing().await?
        } else {
            Vec::new()
        };
        self.finish_round(whole, &sweep)?;
        self.apply_deferred().await
    }

    /// One pass over the stage. Returns how many items were applied and how many upserts remain.
    async fn apply_pass(&self, whole: bool) -> Result<(u64, u64), EngineError> {
        let mut position = 0;
        let (mut applied, mut left) = (0, 0);
        loop {
            let outcome = self.apply_chunk(position, whole)?;
            applied += outcome.applied;
            left += outcome.left;
            match outcome.next {
                Some(next) => position = next,
                None => return Ok((applied, left)),
            }
            // Programs get a turn at the database between two chunks.
            tokio::task::yield_now().await;
        }
    }

    /// Applies the next items of the stage in one transaction.
    fn apply_chunk(&self, position: u64, whole: bool) -> Result<Chunk, EngineError> {
        let began = *self.round_began.lock();
        let in_flight = |ino| self.is_in_flight(ino) || self.recent.since(ino, began);
        let mut facts = self.facts(&in_flight, self.epoch()?);
        let enumerated = whole || self.store.read(|r| r.meta(META_DELTA_LINK))?.is_some();
        facts.children_come_along = enumerated;
        facts.prefer_confirmed = whole;
        let (chunk, outcome) = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            let mut chunk = Chunk::default();
            let staged = tx.staged(position, CHUNK)?;
            chunk.next =
                (staged.len() == CHUNK as usize).then(|| staged.last().map_or(0, |s| s.0 + 1));
            for (_, item) in staged.into_iter().filter(|(_, item)| !item.deleted) {
                self.note_round(whole, &item);
                if self.apply_in_round(tx, &mut applier, &item, began)? {
                    tx.unstage_item(&item.id)?;
                    chunk.applied += 1;
                } else {
                    chunk.left += 1;
                }
            }
            Ok::<_, EngineError>((chunk, self.outcome(applier)?))
        })?;
        self.note_news(&outcome);
        self.after_apply(outcome);
        Ok(chunk)
    }

    /// Tells whether an item that is not known here is most likely what a request on its way makes,
    /// under whatever name that has here by now.
    pub(crate) fn is_being_made(
        &self,
        r: &Reader<'_>,
        there: &RemoteItem,
    ) -> Result<bool, StoreError> {
        let (Some(parent), Some(name)) = (&there.parent, decoded_name(there)) else {
            return Ok(false);
        };
        let made = (parent.key(), NameKey::of(&name));
        let under_way = self.creating.lock().values().any(|making| *making == made);
        Ok(under_way && r.item_by_id(&there.id)?.is_none())
    }

    /// Remembers that a round said something of an item. Not during an enumeration, whose items are
    /// too many, and as old as those that were asked for one by one.
    fn note_round(&self, whole: bool, item: &RemoteItem) {
        if !whole || item.deleted {
            self.recent.note_applied(&item.id);
        }
    }

    /// Counts what a round brought that was not known here.
    fn note_news(&self, outcome: &Outcome) {
        let news = outcome.changes.len() as u64;
        self.news.fetch_add(news, Ordering::Relaxed);
    }

    /// Applies tombstones and what an enumeration showed to be gone, and sets the delta link.
    fn finish_round(&self, whole: bool, gone: &[RemoteItem]) -> Result<(), EngineError> {
        let began = *self.round_began.lock();
        let in_flight = |ino| self.is_in_flight(ino) || self.recent.since(ino, began);
        let mut facts = self.facts(&in_flight, self.epoch()?);
        facts.children_come_along = true;
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            let mut position = 0;
            loop {
                let staged = tx.staged(position, CHUNK)?;
                let Some(&(last, _)) = staged.last() else {
                    break;
                };
                position = last + 1;
                for (_, item) in staged {
                    // What has no folder even now is tried again when the folder appears.
                    if item.deleted {
                        self.note_round(whole, &item);
                        applier.apply(&item)?;
                    } else {
                        tx.defer(&item)?;
                    }
                }
            }
            for item in gone {
                applier.apply(item)?;
            }
            tx.clear_stage()?;
            let link = tx.meta(META_STAGED_LINK)?;
            tx.set_meta(META_DELTA_LINK, link.as_deref())?;
            tx.set_meta(META_STAGED_LINK, None)?;
            tx.set_meta(META_ENUMERATING, None)?;
            if whole {
                tx.all_children_known()?;
            }
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.enumerating.store(false, Ordering::Relaxed);
        self.note_news(&outcome);
        self.after_apply(outcome);
        if whole {
            tracing::info!("The whole drive is known now.");
        }
        self.recent.forget_before(began);
        Ok(())
    }

    /// After an enumeration: items it did not mention are asked for one by one, for a missing line
    /// in a listing is no proof of a deletion.
    async fn confirm_missing(&self) -> Result<Vec<RemoteItem>, EngineError> {
        let epoch = self.epoch()?;
        let suspects = self.store.read(|r| r.unconfirmed(epoch))?;
        let mut gone = Vec::new();
        for item in suspects {
            let Some(id) = item.item_id() else { continue };
            let asked = Instant::now();
            match self.find_item(id).await {
                Ok(there) => self.apply_now(&[there], None, asked)?,
                Err(error) if error.is_not_found() => {
                    let base = item.remote.as_ref().and_then(|remote| remote.parent);
                    gone.push((base != item.parent, tombstone_for(&item)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Whether what was moved here went with its old folder shows once that is gone.
        gone.sort_by_key(|(moved, _)| *moved);
        Ok(gone.into_iter().map(|(_, item)| item).collect())
    }

    /// Tries items again that were set aside. They are asked for anew: the state that was set aside
    /// may be older than what our own request made of the item.
    pub(crate) async fn apply_deferred(&self) -> Result<(), EngineError> {
        let _turn = self.deferred_turn.lock().await;
        let mut fresh = Vec::new();
        for (mut there, known) in self.ready_deferred()? {
            let asked = Instant::now();
            if known || !there.deleted {
                match self.find_item(&there.id).await {
                    Ok(now) => there = now,
                    Err(error) if error.is_not_found() => there.deleted = true,
                    Err(error) => return Err(error.into()),
                }
            }
            fresh.push((there, known, asked));
        }
        // What goes, and what may move away, makes room for what comes.
        fresh.sort_by_key(|(there, known, _)| (!there.deleted, !known));
        for (there, _, asked) in fresh {
            self.hash_for_decisions(Some(&there)).await?;
            self.apply_now(&[there], None, asked)?;
        }
        Ok(())
    }

    /// The items set aside that can be applied, and whether each is known here.
    fn ready_deferred(&self) -> Result<Vec<(RemoteItem, bool)>, EngineError> {
        self.store.read(|r| {
            let mut ready = Vec::new();
            for there in r.deferred()? {
                match r.item_by_id(&there.id)? {
                    Some(item) if self.is_in_flight(item.ino) => {}
                    Some(_) => ready.push((there, true)),
                    None => {
                        let folder = there.parent.as_ref().map(|id| r.item_by_id(id));
                        if there.deleted || folder.transpose()?.flatten().is_some() {
                            ready.push((there, false));
                        }
                    }
                }
            }
            Ok(ready)
        })
    }

    /// Applies items outside of a round. `owner` is the inode whose own request brought them;
    /// `asked` is when they were asked for.
    pub(crate) fn apply_now(
        &self,
        items: &[RemoteItem],
        owner: Option<Ino>,
        asked: Instant,
    ) -> Result<(), EngineError> {
        let busy = |ino| self.is_in_flight(ino) || self.recent.since(ino, asked);
        let in_flight = |ino| Some(ino) != owner && busy(ino);
        let mut facts = self.facts(&in_flight, self.answer_epoch()?);
        facts.children_come_along = self.store.read(|r| r.meta(META_DELTA_LINK))?.is_some();
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            for item in items {
                if self.recent.deleted_since(&item.id, asked) {
                    continue;
                }
                // Which of the two is newer cannot be told: the service is asked again.
                let doubtful = owner.is_none()
                    && (self.recent.applied_since(&item.id, asked)
                        || self.is_being_made(tx, item)?);
                if doubtful || applier.apply(item)? == Applied::Orphan {
                    tx.defer(item)?;
                }
            }
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.after_apply(outcome);
        Ok(())
    }

    /// Hashes bodies here whose equality with the service's decides what happens next. With `only`
    /// just for that item, else for everything staged.
    pub(crate) async fn hash_for_decisions(
        &self,
        only: Option<&RemoteItem>,
    ) -> Result<(), EngineError> {
        let items: Vec<Item> = self.store.read(|r| {
            if r.is_journal_empty()? {
                return Ok(Vec::new());
            }
            let mut found = Vec::new();
            match only {
                Some(item) => found.extend(needs_hash(r, item)?),
                None => {
                    let mut position = 0;
                    loop {
                        let staged = r.staged(position, CHUNK)?;
                        let Some(&(last, _)) = staged.last() else {
                            break;
                        };
                        position = last + 1;
                        for (_, item) in &staged {
                            found.extend(needs_hash(r, item)?);
                        }
                    }
                }
            }
            Ok::<_, StoreError>(found)
        })?;
        for item in items {
            self.hash_body(&item).await?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Chunk {
    applied: u64,
    left: u64,
    next: Option<u64>,
}

/// Tells whether a link is of no use any more, so that only a new enumeration helps.
fn must_restart(error: &GraphError) -> bool {
    matches!(
        error.disposition(),
        Disposition::Resync(_) | Disposition::NotFound
    ) || error.status() == Some(400)
        // A stored link that is refused would be refused for ever.
        || matches!(error, GraphError::ForeignLink { .. })
}

/// The tombstone of an item that the service does not have.
pub(crate) fn tombstone_for(item: &Item) -> RemoteItem {
    RemoteItem {
        id: item
            .item_id()
            .cloned()
            .unwrap_or_else(|| onedrivefs_core::ItemId::new("")),
        parent: None,
        drive: None,
        name: None,
        kind: onedrivefs_core::ItemKind::Unknown,
        deleted: true,
        is_root: false,
        size: None,
        etag: None,
        ctag: None,
        created: None,
        modified: None,
        hash: None,
        web_url: None,
        malware: false,
        provenance: Provenance::default(),
        link: None,
    }
}
