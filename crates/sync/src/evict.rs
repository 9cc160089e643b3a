//! Keeping the content cache within its limits: least recently used bodies go first. What is
//! open, what is pinned, and what the service does not have, never goes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_content::{BodyId, Place};
use onedrivefs_store::{BodyRow, Ops, Reader, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bodies::Bodies;
use crate::config::EngineConfig;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::family::Company;
use crate::hydrate::{Demand, Room};
use crate::reserve::Reserve;

/// Pause between two looks at the disks while nothing is added to the cache.
const EVERY: Duration = Duration::from_secs(300);

/// The same after one that could not remove enough, since what was read is in use for a moment longer.
/// It doubles while that goes on.
const AGAIN: Duration = Duration::from_secs(2);

/// Bytes that are added to the cache between two looks.
const GROWTH: u64 = 256 << 20;

/// Shortest pause between two looks.
const PACE: Duration = Duration::from_secs(1);

/// Space that must be left beside a download, in bytes.
const BESIDES: u64 = 1 << 20;

/// Space that is made beside a download when there is too little, in bytes, so that it lasts for a
/// while; less on a small disk.
const AHEAD: u64 = 64 << 20;

/// What stays free unless it is configured, in bytes.
const FLOOR: u64 = 1 << 30;

/// The part of a small disk that stays free unless it is configured.
const FLOOR_SHARE: u64 = 8;

/// Makes room on the disks.
pub(crate) struct Evictor {
    store: Arc<Store>,
    bodies: Arc<Bodies>,
    reserve: Reserve,
    limit: u64,
    /// Bytes that the cache leaves free on its disk.
    floor: u64,
    /// Bytes that are made free at a time beside what is needed.
    ahead: u64,
    /// Bytes that downloads were promised and have not brought yet.
    promised: Arc<AtomicU64>,
    /// When it was found that nothing more can be removed.
    exhausted_at: Mutex<Option<Instant>>,
    /// Bytes in the cache at the last look.
    used: AtomicU64,
    /// The other engines whose caches count for the same limit.
    company: Company,
    /// Held by whoever makes room, so that others do not remove more than is needed.
    turn: Mutex<()>,
    wake: Notify,
}

/// When enough was removed.
struct Goal {
    used_at_most: u64,
    free_at_least: u64,
}

impl Evictor {
    pub(crate) fn new(config: &EngineConfig, store: Arc<Store>, bodies: Arc<Bodies>) -> Self {
        let disk = bodies.content().disk_bytes(Place::Cache);
        let disk = disk.unwrap_or(u64::MAX);
        let floor = config.free_disk_floor_bytes;
        Self {
            store,
            bodies,
            reserve: Reserve::new(&config.state_dir),
            limit: config.cache_limit_bytes,
            floor: floor.unwrap_or(FLOOR.min(disk / FLOOR_SHARE)),
            ahead: AHEAD.min(disk / 32),
            promised: Arc::default(),
            exhausted_at: Mutex::default(),
            used: AtomicU64::new(0),
            company: config.family.company().clone(),
            turn: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Space for what must be recorded although the disk is full.
    pub(crate) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Has a look taken soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Notes that bytes are added to the cache.
    pub(crate) fn note_growth(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let grown = self.company.grown();
        let much = grown.fetch_add(bytes, Ordering::Relaxed) + bytes >= GROWTH.min(self.limit / 4);
        if much || self.free() < self.floor {
            grown.store(0, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Brings the cache within its limits, and does what else waits for room. Tells whether it is within
    /// them now.
    fn trim(&self) -> Result<bool, EngineError> {
        self.reserve.take();
        self.forget_removed()?;
        self.drop_sent()?;
        self.reach(&Goal {
            used_at_most: self.limit,
            free_at_least: self.floor,
        })?;
        self.trim_together()?;
        Ok(self.is_within_limit())
    }

    /// Whether all caches that count for the same limit are within it together, as far as that is known
    /// without counting their files.
    fn is_within_limit(&self) -> bool {
        let members = self.company.members();
        let used = members.iter().map(|engine| &engine.evictor.used);
        used.map(|used| used.load(Ordering::Relaxed)).sum::<u64>() <= self.limit
    }

    /// Removes what was not used for the longest time in any cache that counts for the same limit,
    /// until all of them together are within it.
    fn trim_together(&self) -> Result<(), EngineError> {
        let members = self.company.members();
        let evictors = || members.iter().map(|engine| &engine.evictor);
        // Each counts its own files now and then; all of them are counted only if it may matter.
        if members.len() < 2 || self.is_within_limit() {
            return Ok(());
        }
        let mut used = 0;
        for evictor in evictors() {
            used += evictor.cache_bytes()?;
        }
        if used <= self.limit {
            return Ok(());
        }
        let mut oldest = Vec::new();
        for evictor in evictors() {
            let candidates = evictor.candidates()?;
            oldest.extend(candidates.into_iter().map(|found| (found, evictor)));
        }
        oldest.sort_by_key(|((row, _), _)| row.used_at);
        for ((row, bytes), evictor) in oldest {
            if used <= self.limit {
                break;
            }
            if evictor.evict_recorded(&row)? {
                used = used.saturating_sub(bytes);
                let left = evictor.used.load(Ordering::Relaxed);
                (evictor.used).store(left.saturating_sub(bytes), Ordering::Relaxed);
            }
        }
        evictors().for_each(|evictor| evictor.bury());
        Ok(())
    }

    /// Bytes of all files in the cache.
    fn cache_bytes(&self) -> Result<u64, EngineError> {
        let stored = self.bodies.content().list(Place::Cache)?;
        let used = stored.iter().map(|body| body.bytes_allocated).sum();
        self.used.store(used, Ordering::Relaxed);
        Ok(used)
    }

    /// What may be removed from the cache, with the bytes that it takes.
    fn candidates(&self) -> Result<Vec<(BodyRow, u64)>, EngineError> {
        let stored = self.bodies.content().list(Place::Cache)?;
        let sizes: HashMap<u64, u64> = stored
            .iter()
            .map(|body| (body.id.0, body.bytes_allocated))
            .collect();
        let (rows, pinned) = self
            .store
            .read(|r| Ok::<_, StoreError>((r.cached_bodies()?, pinned_bodies(r)?)))?;
        let removable = rows.into_iter().filter(|row| !pinned.contains(&row.id));
        Ok(removable
            .filter_map(|row| sizes.get(&row.id).map(|&bytes| (row, bytes)))
            .collect())
    }

    /// Makes room for a download, at once, and promises it. What an upload needs may take of what is
    /// to stay free: a save must not wait because of what is merely kept.
    pub(crate) fn make_room(&self, bytes: u64, demand: Demand) -> Option<Room> {
        let floor = match demand {
            Demand::Upload => BESIDES,
            Demand::Foreground | Demand::ReadAhead | Demand::Pin => {
                self.floor.saturating_add(BESIDES)
            }
        };
        let room = Room::promise(&self.promised, bytes);
        let needed = || {
            let promised = self.promised.load(Ordering::Acquire);
            promised.saturating_add(floor)
        };
        if self.free() < needed() {
            self.free_at_least(needed());
        }
        (self.free() >= needed()).then(|| {
            self.note_growth(bytes);
            room
        })
    }

    /// Makes room for what a program writes, unless there is some. Tells whether there is now.
    pub(crate) fn make_room_for_save(&self, bytes: u64) -> bool {
        let free = self.free();
        if free < self.floor {
            self.wake();
        }
        let needed = bytes.saturating_add(BESIDES);
        if free < needed {
            self.free_at_least(needed);
        }
        self.free() >= needed
    }

    /// Bytes free on the disk of the cache.
    fn free(&self) -> u64 {
        let free = self.bodies.content().free_bytes(Place::Cache);
        free.unwrap_or(0)
    }

    /// Removes bodies until this much is free and a bit more, unless a moment ago there was nothing
    /// left to remove.
    fn free_at_least(&self, needed: u64) {
        let exhausted = || {
            let at = *self.exhausted_at.lock();
            at.is_some_and(|at| at.elapsed() < PACE)
        };
        if exhausted() {
            return;
        }
        let goal = Goal {
            used_at_most: u64::MAX,
            free_at_least: needed.saturating_add(self.ahead),
        };
        if let Err(error) = self.reach(&goal) {
            tracing::warn!(%error, "No room could be made on the disk of the cache.");
        }
        if self.free() < needed {
            *self.exhausted_at.lock() = Some(Instant::now());
        }
    }

    /// Removes bodies until a goal is reached.
    fn reach(&self, goal: &Goal) -> Result<(), EngineError> {
        let _turn = self.turn.lock();
        let content = self.bodies.content();
        let stored = content.list(Place::Cache)?;
        let mut used: u64 = stored.iter().map(|body| body.bytes_allocated).sum();
        self.used.store(used, Ordering::Relaxed);
        let mut free = content.free_bytes(Place::Cache)?;
        let enough = |used, free| used <= goal.used_at_most && free >= goal.free_at_least;
        if enough(used, free) {
            return Ok(());
        }
        for (row, bytes) in self.candidates()? {
            if enough(used, free) {
                break;
            }
            if self.evict_recorded(&row)? {
                used = used.saturating_sub(bytes);
                free = free.saturating_add(bytes);
            }
        }
        self.used.store(used, Ordering::Relaxed);
        self.bodies.bury(&self.store);
        Ok(())
    }

    /// Tells whether there is room for this many bytes that nobody waits for, beside what is to stay
    /// free on the disk; what was not used for long makes room for them.
    pub(crate) fn has_room_to_spare(&self, bytes: u64) -> Result<(), Shortage> {
        let content = self.bodies.content();
        let free = || content.free_bytes(Place::Cache).unwrap_or(0);
        let needed = bytes.saturating_add(self.floor).saturating_add(BESIDES);
        if free() >= needed {
            return Ok(());
        }
        let goal = Goal {
            used_at_most: u64::MAX,
            free_at_least: needed,
        };
        if let Err(error) = self.reach(&goal) {
            tracing::warn!(%error, "No room could be made for what is pinned.");
        }
        match free() {
            free if free >= needed => Ok(()),
            free => Err(Shortage {
                free,
                floor: self.floor,
            }),
        }
    }

    /// Bytes that the files of all bodies take on the disks, by number.
    pub(crate) fn sizes_on_disk(&self) -> Result<HashMap<u64, u64>, EngineError> {
        let content = self.bodies.content();
        let mut stored = content.list(Place::Cache)?;
        stored.extend(content.list(Place::Spool)?);
        Ok(stored
            .iter()
            .map(|body| (body.id.0, body.bytes_allocated))
            .collect())
    }

    /// Removes the files of what was evicted.
    pub(crate) fn bury(&self) {
        self.bodies.bury(&self.store);
    }

    /// Removes one body, with the help of the reserve if there is no room to record that.
    pub(crate) fn evict_recorded(&self, row: &BodyRow) -> Result<bool, EngineError> {
        match self.evict_body(row) {
            Err(EngineError::Store(error)) if error.is_disk_full() && self.reserve.give_up() => {
                self.evict_body(row)
            }
            other => other,
        }
    }

    /// Removes one body from the cache unless it is in use. Tells whether it went.
    fn evict_body(&self, row: &BodyRow) -> Result<bool, EngineError> {
        if self.bodies.live(row.id).is_some() {
            return Ok(false);
        }
        let gone = self.store.write(|tx| {
            // Somebody may have begun to write to it since it was listed.
            let Some(row) = tx.body(row.id)?.filter(|now| now.place == row.place) else {
                return Ok(false);
            };
            if row.dirty {
                return Ok(false);
            }
            let unsent = tx
                .journal(row.ino)?
                .is_some_and(|row| row.ops.has(Ops::CREATE) || row.ops.has(Ops::CONTENT));
            // Asked again, since somebody may have opened it meanwhile.
            if unsent || self.bodies.live(row.id).is_some() || tx.is_previous(row.id)? {
                return Ok(false);
            }
            if tx.is_owned(row.id)? && tx.pin_of(row.ino)?.is_some() {
                return Ok(false);
            }
            if let Some(mut item) = tx.item(row.ino)?.filter(|item| item.body == Some(row.id)) {
                let same = |remote: &onedrivefs_store::Remote| {
                    remote.etag == row.base_etag && remote.ctag == row.base_ctag
                };
                let elsewhere = item.remote.as_ref().is_some_and(same);
                if row.place == onedrivefs_store::Place::Spool && !elsewhere {
                    return Ok(false);
                }
                item.body = None;
                tx.update_item(&item)?;
            }
            tx.delete_body(row.id)?;
            Ok::<_, EngineError>(true)
        })?;
        if gone {
            self.bodies.remove_files(std::slice::from_ref(row));
        }
        Ok(gone)
    }

    /// Removes bodies that the service has from the spool: there was no room for them in the cache.
    fn drop_sent(&self) -> Result<(), EngineError> {
        let (rows, pinned) = self
            .store
            .read(|r| Ok::<_, StoreError>((r.sent_spool_bodies()?, pinned_bodies(r)?)))?;
        for row in rows.into_iter().filter(|row| !pinned.contains(&row.id)) {
            if self.evict_recorded(&row)? {
                tracing::debug!(body = row.id, "A sent body was removed from the spool.");
            } else {
                // In use; perhaps not for long.
                self.wake();
            }
        }
        Ok(())
    }

    /// Bodies whose files are gone need not be remembered any more.
    fn forget_removed(&self) -> Result<(), EngineError> {
        let content = self.bodies.content();
        let mut gone = self.store.read(|r| r.removed_bodies())?;
        gone.retain(|&id| !content.has_file(BodyId(id)));
        if gone.is_empty() {
            return Ok(());
        }
        let forgotten = self
            .store
            .write(|tx| gone.iter().try_for_each(|&id| tx.forget_removed_body(id)));
        match forgotten {
            Err::<(), StoreError>(error) if !error.is_disk_full() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// There is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortage {
    /// Bytes free on the disk.
    pub(crate) free: u64,
    /// Bytes of them that are to stay free.
    pub(crate) floor: u64,
}

/// The bodies that are kept because they are pinned.
fn pinned_bodies(r: &Reader<'_>) -> Result<HashSet<u64>, StoreError> {
    let mut pinned = HashSet::new();
    r.each_pinned(|item| pinned.extend(item.body.map(|body| body.id)))?;
    Ok(pinned)
}

impl Engine {
    /// Keeps the limits for as long as the engine runs.
    pub(crate) async fn run_eviction(self: Arc<Self>) {
        let mut again = AGAIN;
        loop {
            let evictor = Arc::clone(&self.evictor);
            let evicted = self.handle.spawn_blocking(move || evictor.trim()).await;
            let mut pause = EVERY;
            match evicted {
                Ok(Ok(true)) => again = AGAIN,
                Ok(Ok(false)) => {
                    pause = again;
                    again = (again * 2).min(EVERY);
                }
                Ok(Err(error)) => tracing::warn!(%error, "The content cache could not be trimmed."),
                Err(error) => tracing::warn!(%error, "Trimming the content cache broke off."),
            }
            tokio::select! {
                () = self.evictor.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            // What was promised room is not there yet.
            tokio::time::sleep(PACE).await;
        }
    }

    /// Makes room for what is written, at the cost of what is merely kept. Tells whether there is
    /// some now.
    pub fn make_room_for_save(&self, bytes: u64) -> bool {
        self.evictor.make_room_for_save(bytes)
    }

    /// Lets a deletion have the space that was set aside for it. Tells whether there was any: the
    /// deletion may succeed now.
    pub fn give_up_reserve(&self) -> bool {
        self.evictor.reserve().give_up()
    }

    /// Bytes on disk in the content cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        let listed = self.bodies.content().list(Place::Cache);
        listed.map_or(0, |bodies| {
            bodies.iter().map(|body| body.bytes_allocated).sum()
        })
    }
}
