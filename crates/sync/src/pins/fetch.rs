//! Fetching what is pinned and not here.
//!
//! Everything that is pinned is looked through at the start, and again when something in it changed:
//! the store says which inodes a commit touched. A look may take a second for a million files, so
//! looking takes a tenth of the time at most. What fails is tried again after growing pauses.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_content::{Body, BodyId};
use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::BodyRow;
use tokio::task::JoinSet;

use super::{Failing, Fetching, missing};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::evict::Shortage;
use crate::hydrate::{Demand, HydrateError};
use crate::net_state::{Net, backoff};
use crate::uploader::source_of;

/// Files fetched at a time.
const FILES: usize = 4;

/// Time for more changes to come before they are looked at.
const SETTLE: Duration = Duration::from_millis(200);

/// A look takes at most one part in this many of the time.
const LOOK_SHARE: u32 = 10;

/// Pause between two looks for files that were removed from the content cache behind our back.
const THOROUGHLY_EVERY: Duration = Duration::from_secs(3600);

/// Bytes of a file after which it is looked whether the rest of it still has room.
const PIECE: u64 = 64 << 20;

/// How often a fetch begins again because the file turned out to be another one.
const RESTARTS_MAX: u32 = 3;

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// At what the database says.
    Quick,
    /// Also whether the files on disk are there.
    Thorough,
}

/// Why a file is not here after all.
enum Stop {
    /// The service cannot be reached, or asks for a sign-in.
    Unreachable,
    /// It is tried again, and `status` says why it failed.
    Failed(String),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        match error.reach() {
            Some(_) => Self::Unreachable,
            None => Self::Failed(error.to_string()),
        }
    }
}

impl From<HydrateError> for Stop {
    fn from(error: HydrateError) -> Self {
        match error {
            HydrateError::Offline | HydrateError::NeedsLogin | HydrateError::ShuttingDown => {
                Self::Unreachable
            }
            HydrateError::Refused(why) => Self::Failed(format!("the service refused it: {why}")),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Takes a fetch off the table when its task ends, even by being aborted.
struct Under {
    engine: Arc<Engine>,
    ino: Ino,
}

impl Drop for Under {
    fn drop(&mut self) {
        self.engine.pins.fetching.lock().remove(&self.ino);
        self.engine.pins.stepped.notify_waiters();
    }
}

/// Stops the transfers of a body when nobody waits for them any more.
struct StopTransfers<'e>(&'e Engine, BodyId);

impl Drop for StopTransfers<'_> {
    fn drop(&mut self) {
        self.0.hydrator.stop_pin(self.1);
    }
}

impl Engine {
    /// Keeps here what is pinned, for as long as the engine runs.
    pub(crate) async fn run_pins(self: Arc<Self>) {
        let mut net = self.net.watch();
        let mut fetches = JoinSet::new();
        let mut queue = VecDeque::new();
        let mut look = Some(Look::Thorough);
        let mut looked_at = Instant::now();
        let mut look_from = looked_at;
        let mut thorough_at = Instant::now() + THOROUGHLY_EVERY;
        loop {
            let any = self.pins.any();
            if any && look.is_some() && Instant::now() >= look_from {
                looked_at = Instant::now();
                queue = self.look_for_missing(look.take()).await;
                look_from = Instant::now() + looked_at.elapsed() * LOOK_SHARE;
            }
            self.start_fetches(&mut queue, &mut fetches);
            let mut due = self.next_try(looked_at);
            if look.is_some() {
                due = due.min(Some(look_from)).or(Some(look_from));
            }
            let due = due.unwrap_or(thorough_at).min(thorough_at);
            tokio::select! {
                () = self.pins.wake.notified() => {
                    tokio::time::sleep(SETTLE).await;
                    if self.is_pinned_touched() {
                        look = look.max(Some(Look::Quick));
                    }
                }
                Some(_ended) = fetches.join_next() => {}
                Ok(()) = net.changed() => {
                    if *net.borrow_and_update() == Net::Online {
                        self.pins.try_again();
                    }
                }
                () = tokio::time::sleep_until(due.into()), if any => {
                    let thorough = Instant::now() >= thorough_at;
                    look = look.max(Some(if thorough { Look::Thorough } else { Look::Quick }));
                    if thorough {
                        thorough_at = Instant::now() + THOROUGHLY_EVERY;
                    }
                }
            }
        }
    }

    /// When to look for what failed, which is tried again then. What might have been tried again at
    /// the last look is on its way or waits for its turn.
    fn next_try(&self, looked_at: Instant) -> Option<Instant> {
        if self.net.get() != Net::Online {
            return None;
        }
        let pause = self.pins.pause.lock().map(|(_, until)| until);
        if let Some(until) = pause.filter(|until| *until > looked_at) {
            return Some(until);
        }
        let failing = self.pins.failing.lock();
        let times = failing.values().map(|failing| failing.not_before);
        times.filter(|time| *time > looked_at).min()
    }

    /// Tells whether anything pinned was changed since the last time.
    fn is_pinned_touched(&self) -> bool {
        let touched = std::mem::take(&mut *self.pins.touched.lock());
        if let Err(error) = self.stop_unpinned() {
            tracing::warn!(%error, "What is no longer pinned could not be found out.");
        }
        touched.too_many
            || touched
                .some
                .into_iter()
                .any(|ino| matches!(self.store.read(|r| r.pin_of(ino)), Ok(Some(_))))
    }

    /// Ends fetches of what is no longer pinned.
    pub(super) fn stop_unpinned(&self) -> Result<(), EngineError> {
        let inodes: Vec<Ino> = {
            let (fetching, failing) = (self.pins.fetching.lock(), self.pins.failing.lock());
            fetching.keys().chain(failing.keys()).copied().collect()
        };
        for ino in inodes {
            if self.store.read(|r| r.pin_of(ino))?.is_some() {
                continue;
            }
            self.pins.failing.lock().remove(&ino);
            if let Some(fetching) = self.pins.fetching.lock().get(&ino) {
                fetching.abort.abort();
            }
        }
        Ok(())
    }

    /// Finds everything that is pinned and not here.
    async fn look_for_missing(self: &Arc<Self>, look: Option<Look>) -> VecDeque<Ino> {
        let engine = Arc::clone(self);
        let find = move || {
            if look == Some(Look::Thorough) {
                engine.forget_lost_bodies()?;
            }
            // What is not listed yet will be by the enumeration, if one is under way.
            let listing = engine.enumerating.load(Ordering::Relaxed);
            let mut found = VecDeque::new();
            engine.store.read(|r| {
                r.each_pinned(|item| {
                    if missing(&item).is_some() || item.unlisted && !listing {
                        found.push_back(item.ino);
                    }
                })
            })?;
            Ok::<_, EngineError>(found)
        };
        match self.handle.spawn_blocking(find).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "What is pinned could not be looked through.");
                VecDeque::new()
            }
            Err(_shutdown) => VecDeque::new(),
        }
    }

    /// Forgets bodies whose files somebody removed from the content cache.
    fn forget_lost_bodies(&self) -> Result<(), EngineError> {
        let mut bodies = Vec::new();
        self.store
            .read(|r| r.each_pinned(|item| bodies.extend(item.body.map(|body| body.id))))?;
        let content = self.bodies.content();
        bodies.retain(|&id| !content.has_file(BodyId(id)));
        for id in bodies {
            if let Some(row) = self.store.read(|r| r.body(id))? {
                // Its absence is noted on the way.
                let _gone = self.open_body(&row);
            }
        }
        Ok(())
    }

    /// Begins to fetch, as many files at a time as may be.
    fn start_fetches(self: &Arc<Self>, queue: &mut VecDeque<Ino>, fetches: &mut JoinSet<()>) {
        // The number of attempts is kept until one succeeds.
        let pause = self.pins.pause.lock().map(|(_, until)| until);
        let pausing = pause.is_some_and(|until| until > Instant::now());
        if pausing || self.net.get() != Net::Online {
            return;
        }
        let mut fetching = self.pins.fetching.lock();
        while fetching.len() < FILES {
            let Some(ino) = queue.pop_front() else { return };
            let now = Instant::now();
            let failing = self.pins.failing.lock();
            let waits = failing
                .get(&ino)
                .is_some_and(|failing| failing.not_before > now);
            drop(failing);
            if waits || fetching.contains_key(&ino) {
                continue;
            }
            let left = Arc::new(AtomicU64::new(0));
            let under = Under {
                engine: Arc::clone(self),
                ino,
            };
            let (engine, own) = (Arc::clone(self), Arc::clone(&left));
            let fetch = async move {
                let _under = under;
                let ended = engine.fetch_pinned(ino, &own).await;
                engine.note_fetched(ino, ended);
            };
            let abort = fetches.spawn_on(fetch, &self.handle);
            fetching.insert(ino, Fetching { abort, left });
        }
    }

    /// Learns how a fetch ended.
    fn note_fetched(&self, ino: Ino, ended: Result<(), Stop>) {
        let mut pause = self.pins.pause.lock();
        let mut failing = self.pins.failing.lock();
        match ended {
            Ok(()) => {
                *pause = None;
                failing.remove(&ino);
            }
            Err(Stop::Unreachable) => {
                let attempts = pause.map_or(0, |(attempts, _)| attempts) + 1;
                *pause = Some((attempts, Instant::now() + backoff(attempts)));
                // It finds out whether the service can be reached.
                self.wake_freshness();
            }
            Err(Stop::Failed(error)) => {
                let attempts = failing.get(&ino).map_or(0, |failing| failing.attempts) + 1;
                tracing::info!(
                    ino = ino.0,
                    attempts,
                    error,
                    "A pinned file could not be fetched."
                );
                let not_before = Instant::now() + backoff(attempts);
                failing.insert(
                    ino,
                    Failing {
                        attempts,
                        not_before,
                        error,
                    },
                );
            }
        }
    }

    /// Brings all of a file here, or finds out what is in a folder. `left` follows what remains.
    async fn fetch_pinned(self: &Arc<Self>, ino: Ino, left: &AtomicU64) -> Result<(), Stop> {
        let item = |ino| self.store.item(ino).map_err(EngineError::from);
        if item(ino)?.is_some_and(|item| item.is_dir()) {
            return Ok(self.list_children(ino).await?);
        }
        for _ in 0..RESTARTS_MAX {
            let Some((row, body)) = self.body_to_fill(ino)? else {
                return Ok(());
            };
            let Some(source) = source_of(&self.config.drive.id, &row) else {
                return Ok(());
            };
            let _stop = StopTransfers(self, body.id());
            match self.fill(&body, &source, left).await {
                Ok(()) => {
                    if item(ino)?.is_none_or(|item| item.body == Some(row.id)) {
                        return Ok(());
                    }
                    // There is a newer version.
                }
                Err(Unfilled::NoRoom(bytes, shortage)) => {
                    return Err(Stop::Failed(no_room(bytes, shortage)));
                }
                Err(Unfilled::Error(HydrateError::TrueSize(size))) => {
                    let learnt = self.learn_size(ino, size).map_err(EngineError::from)?;
                    if !learnt {
                        return Ok(());
                    }
                    self.tell_kernel(vec![crate::KernelChange::Attributes { ino }]);
                }
                Err(Unfilled::Error(HydrateError::Changed | HydrateError::Gone)) => {
                    self.refresh_item(ino).await?;
                }
                Err(Unfilled::Error(error)) => return Err(error.into()),
            }
        }
        Err(Stop::Failed("it changes all the time".to_owned()))
    }

    /// The body of a pinned file, if there is anything to fetch for it.
    fn body_to_fill(&self, ino: Ino) -> Result<Option<(BodyRow, Arc<Body>)>, EngineError> {
        self.store.write(|tx| {
            let pinned = tx.pin_of(ino)?.is_some();
            let Some(item) = tx.item(ino)?.filter(|item| pinned && item.size > 0) else {
                return Ok(None);
            };
            if item.remote.is_none() || item.local_only {
                return Ok(None);
            }
            let made = self.bodies.find_or_create(tx, ino, Timestamp::now());
            let made = made.map_err(|error| EngineError::Body {
                body: item.body.unwrap_or(0),
                source: std::io::Error::other(error),
            })?;
            Ok(made.filter(|(row, _)| row.place == onedrivefs_store::Place::Cache))
        })
    }

    /// Fetches what is missing of a body, piece by piece.
    async fn fill(
        self: &Arc<Self>,
        body: &Arc<Body>,
        source: &crate::hydrate::Source,
        left: &AtomicU64,
    ) -> Result<(), Unfilled> {
        let size = body.size();
        while let Some(start) = body.first_missing(0) {
            let gaps = body.missing(0..size);
            let bytes = gaps.iter().map(|gap| gap.end - gap.start).sum();
            left.store(bytes, Ordering::Relaxed);
            self.check_room(bytes).await?;
            let piece = start..start.saturating_add(PIECE).min(size);
            let fetched = self.hydrator.ensure(body, source, piece, Demand::Pin);
            fetched.await.map_err(Unfilled::Error)?;
        }
        Ok(())
    }

    /// Makes sure that there is room for all that is being fetched, beside what stays free.
    async fn check_room(self: &Arc<Self>, own: u64) -> Result<(), Unfilled> {
        let all: u64 = {
            let fetching = self.pins.fetching.lock();
            let left = fetching
                .values()
                .map(|one| one.left.load(Ordering::Relaxed));
            left.sum()
        };
        let evictor = Arc::clone(&self.evictor);
        let look = move || evictor.has_room_to_spare(all.max(own));
        match self.handle.spawn_blocking(look).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(shortage)) => Err(Unfilled::NoRoom(own, shortage)),
            Err(_shutdown) => Err(Unfilled::Error(HydrateError::ShuttingDown)),
        }
    }
}

/// Why a body was not filled.
enum Unfilled {
    /// This many bytes have no room.
    NoRoom(u64, Shortage),
    Error(HydrateError),
}

fn no_room(bytes: u64, shortage: Shortage) -> String {
    format!(
        "no room for {}: {} are free on the disk of the cache, of which {} stay free (`free_space`)",
        human(bytes),
        human(shortage.free),
        human(shortage.floor)
    )
}

/// A number of bytes, for people.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} B"),
        _ => format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit]),
    }
}
