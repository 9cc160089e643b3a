//! Brings the bytes of files here, just the ones that somebody needs, and each of them once.
//!
//! A read that meets missing bytes calls [`Hydrator::ensure`], which waits until they are in the
//! body. Ranges are fetched in whole blocks; a block that is under way is waited for, not fetched
//! again. Bytes go into the body as they arrive and every waiter goes on as soon as its own are
//! there. Readers that go forward get read-ahead on several connections, which grows with what
//! they have read and vanishes when they jump, so that looking at the end of a huge file costs a
//! block.
//!
//! What is fetched belongs to one pinned version, the [`Source`]: the version is compared whenever
//! an address is fetched, and whenever the content host labels an answer differently than before.
//! The last bytes of a body become readable only after its hash was checked; a file of one block
//! not at all before that.
//!
//! Lock order: the table of flights, then the state of one flight, then the body.

mod claim;
mod error;
mod flight;
mod passing;
mod pattern;
mod room;
mod transfer;
mod urls;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onedrivefs_content::{Body, BodyId, Presence, Snapshot};
use onedrivefs_core::{ByteRange, CTag, DriveId, ETag, ItemId, QuickXorHash};
use onedrivefs_graph::{GraphClient, Lane, in_lane};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use claim::Claim;
pub use error::HydrateError;
use flight::Flight;
use passing::Passing;
use pattern::{Pattern, Plan};
pub use room::Room;
use urls::Urls;

/// How long after it was met a full disk is taken for full without trying.
const FULL_FOR: Duration = Duration::from_secs(5);

/// How content is fetched.
#[derive(Clone, Copy, Debug)]
pub struct HydrateConfig {
    /// Smallest unit that is fetched, in bytes. A request costs about as much time as this many
    /// bytes on a good line.
    pub block_bytes: u64,
    /// Most that is fetched ahead of one reader, in bytes.
    pub max_readahead_bytes: u64,
    /// Longest range of one request, in bytes: what a stopped transfer can cost at most.
    pub max_request_bytes: u64,
    /// Connections that fetch ahead of one reader.
    pub connections_per_stream: usize,
    /// Transfers at a time that somebody waits for.
    pub foreground_transfers: usize,
    /// Transfers at a time that nobody waits for: read-ahead and uploads composing their content.
    pub background_transfers: usize,
    /// Transfers at a time for what is pinned.
    pub pin_transfers: usize,
    /// Longest rest of those between two pieces while programs read. However much is read, what is
    /// pinned gets here in the end.
    pub pin_rest: Duration,
    /// Without any progress for this long, whoever waits is told.
    pub first_byte_deadline: Duration,
    /// How long an address is used without asking the service again.
    pub url_lifetime: Duration,
    /// What is present is recorded after this many bytes, at the latest.
    pub save_after_bytes: u64,
    /// What is present is recorded when nothing was fetched for this long.
    pub save_after_idle: Duration,
}

impl Default for HydrateConfig {
    fn default() -> Self {
        Self {
            block_bytes: 256 * 1024,
            max_readahead_bytes: 16 * 1024 * 1024,
            max_request_bytes: 4 * 1024 * 1024,
            connections_per_stream: 4,
            foreground_transfers: 16,
            background_transfers: 8,
            pin_transfers: 4,
            pin_rest: Duration::from_secs(3),
            first_byte_deadline: Duration::from_secs(15),
            url_lifetime: Duration::from_secs(300),
            save_after_bytes: 64 * 1024 * 1024,
            save_after_idle: Duration::from_secs(2),
        }
    }
}

/// The version of an item's content that a body is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The drive of the item.
    pub drive: DriveId,
    /// The item.
    pub item: ItemId,
    /// Its eTag, which also changes with names and the like.
    pub etag: Option<ETag>,
    /// Its cTag, which changes with the content only.
    pub ctag: Option<CTag>,
    /// Number of bytes the service sends: as in the metadata, or as learnt from
    /// [`HydrateError::TrueSize`].
    pub size: u64,
    /// Hash of the content, when the service told one.
    pub hash: Option<QuickXorHash>,
}

/// Why bytes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A system call waits.
    Foreground,
    /// A reader will probably want them.
    ReadAhead,
    /// An upload composes its content from them.
    Upload,
    /// They are to be here one day. Such transfers rest while programs read.
    Pin,
}

impl Demand {
    /// Tells whether somebody waits for the bytes.
    const fn is_awaited(self) -> bool {
        !matches!(self, Self::ReadAhead)
    }

    /// Tells whether whoever waits does not wait behind others.
    const fn is_urgent(self) -> bool {
        matches!(self, Self::Foreground | Self::Upload)
    }

    /// Whom its requests let go first.
    const fn lane(self) -> Lane {
        match self {
            Self::Foreground => Lane::Interactive,
            Self::ReadAhead => Lane::ReadAhead,
            Self::Upload => Lane::Upload,
            Self::Pin => Lane::Background,
        }
    }

    /// Tells whether a program reads the bytes, now or in a moment.
    const fn is_reading(self) -> bool {
        matches!(self, Self::Foreground | Self::ReadAhead)
    }
}

/// Keeps what the hydrator finds out. Called on threads that may block.
pub trait PresenceSink: Send + Sync {
    /// These bytes of a body are on stable storage. `verified` tells that all are here and have
    /// the hash that the service gave.
    fn save(&self, id: BodyId, presence: &Presence, verified: bool);

    /// The body's bytes were not the service's and are gone; nothing of it may be kept anywhere,
    /// not even by the kernel. With `was_readable`, handles may have been given wrong bytes; see
    /// [`Body::times_forgotten`].
    fn corrupt(&self, id: BodyId, was_readable: bool);

    /// This many bytes are about to come. Promises room for them, if there is some.
    fn make_room(&self, bytes: u64, demand: Demand) -> Option<Room> {
        let _any = demand;
        Some(Room::promise(&Arc::default(), bytes))
    }
}

/// Fetches content. Cheap to clone.
#[derive(Clone)]
pub struct Hydrator {
    inner: Arc<Inner>,
}

/// What all clones and all tasks share.
struct Inner {
    graph: GraphClient,
    handle: Handle,
    config: HydrateConfig,
    sink: Arc<dyn PresenceSink>,
    urls: Urls,
    flights: Mutex<HashMap<BodyId, Arc<Flight>>>,
    readers: Mutex<HashMap<u64, Pattern>>,
    foreground: Semaphore,
    background: Semaphore,
    pins: Semaphore,
    /// Transfers under way of bytes that programs read.
    reading: watch::Sender<usize>,
    passing: Passing,
    offline: AtomicBool,
    /// When there was no room for what came.
    full_at: Mutex<Option<Instant>>,
}

/// Keeps a flight in the table while somebody uses it.
struct User(Arc<Flight>);

impl Drop for User {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Hydrator {
    /// Prepares to fetch. Tasks run on `handle`.
    #[must_use]
    pub fn new(
        graph: GraphClient,
        handle: Handle,
        config: HydrateConfig,
        presence: Arc<dyn PresenceSink>,
    ) -> Self {
        let inner = Inner {
            graph,
            handle,
            config,
            sink: presence,
            urls: Urls::default(),
            flights: Mutex::default(),
            readers: Mutex::default(),
            foreground: Semaphore::new(config.foreground_transfers.max(1)),
            background: Semaphore::new(config.background_transfers.max(1)),
            pins: Semaphore::new(config.pin_transfers.max(1)),
            reading: watch::Sender::new(0),
            passing: Passing::default(),
            offline: AtomicBool::new(false),
            full_at: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits until a range of a body is present; what lies past its end does not count.
    ///
    /// # Errors
    /// The bytes cannot be had; see [`HydrateError`]. Some of them may be present.
    pub async fn ensure(
        &self,
        body: &Arc<Body>,
        source: &Source,
        range: ByteRange,
        demand: Demand,
    ) -> Result<(), HydrateError> {
        let missing = || body.missing(range.clone());
        self.ensure_with(body, source, demand, &missing).await
    }

    /// Waits until a range of a snapshot of `body` is present. Unlike the body's, a snapshot's
    /// bytes may be missing where the body was written to since.
    ///
    /// # Errors
    /// As [`Hydrator::ensure`].
    pub async fn ensure_snapshot(
        &self,
        body: &Arc<Body>,
        snapshot: &Snapshot,
        source: &Source,
        range: ByteRange,
        demand: Demand,
    ) -> Result<(), HydrateError> {
        let missing = || snapshot.missing(range.clone());
        self.ensure_with(body, source, demand, &missing).await
    }

    /// Waits until nothing is missing any more.
    async fn ensure_with(
        &self,
        body: &Arc<Body>,
        source: &Source,
        demand: Demand,
        missing: &(dyn Fn() -> Vec<ByteRange> + Sync),
    ) -> Result<(), HydrateError> {
        if missing().is_empty() {
            return Ok(());
        }
        let source = Arc::new(source.clone());
        let user = self.enter(body);
        let flight = &user.0;
        let mut progress = flight.subscribe();
        let began = flight.failures_so_far();
        let mut last = (*progress.borrow_and_update(), Instant::now());
        loop {
            let lacking = missing();
            let Some(first) = lacking.first() else {
                return Ok(());
            };
            if first.start >= source.size {
                return Err(HydrateError::TrueSize(source.size));
            }
            if let Some(error) = flight.failure_since(began, &lacking) {
                return Err(error);
            }
            if self.inner.offline.load(Ordering::Acquire) {
                return Err(HydrateError::Offline);
            }
            let claim = Claim::awaited(demand, &self.inner.config);
            self.start(flight, &source, missing, claim);
            let deadline = last.1 + self.inner.config.first_byte_deadline;
            let woken = tokio::time::timeout_at(deadline, progress.changed()).await;
            let bytes = *progress.borrow_and_update();
            match woken {
                Err(_elapsed) if !flight.is_verifying() && bytes == last.0 => {
                    return Err(HydrateError::TimedOut);
                }
                Ok(_) if bytes == last.0 => {}
                _ => last = (bytes, Instant::now()),
            }
        }
    }

    /// Tells that a reader asked for a range, whether or not it was present: drives read-ahead.
    pub fn note_read(&self, body: &Arc<Body>, source: &Source, fh: u64, range: ByteRange) {
        let config = &self.inner.config;
        if body.is_complete() || self.inner.offline.load(Ordering::Acquire) || self.has_no_room() {
            return;
        }
        let plan = {
            let mut readers = self.inner.readers.lock();
            let pattern = readers.entry(fh).or_default();
            pattern.observe(&range, source.size, config)
        };
        match plan {
            Plan::Nothing => {}
            Plan::Stop => self.stop_readahead(body.id(), fh),
            Plan::Ahead { range, request } => {
                let end = range.end;
                let user = self.enter(body);
                let missing = || body.missing(range.clone());
                let claim = Claim::ahead(fh, request, config);
                let reached = self.start(&user.0, &Arc::new(source.clone()), &missing, claim);
                if let Some(pattern) = self.inner.readers.lock().get_mut(&fh) {
                    pattern.reached(reached.unwrap_or(end));
                }
            }
        }
    }

    /// Tells whether there was no room for what came a moment ago. What is asked for now is better
    /// [passed through](Self::pass_through).
    #[must_use]
    pub fn has_no_room(&self) -> bool {
        let full_at = *self.inner.full_at.lock();
        full_at.is_some_and(|at| at.elapsed() < FULL_FOR)
    }

    /// Reads a range of a body of which parts are missing, without keeping them: there is no room
    /// for them. What lies past its end does not count.
    ///
    /// # Errors
    /// As [`Hydrator::ensure`].
    pub async fn pass_through(
        &self,
        body: &Arc<Body>,
        source: &Source,
        range: ByteRange,
    ) -> Result<Vec<u8>, HydrateError> {
        let source = Arc::new(source.clone());
        let end = range.end.min(body.size());
        let mut at = range.start;
        let mut data = Vec::new();
        let read = |data: &mut Vec<u8>, from: u64, to: u64| {
            let old = data.len();
            data.resize(old + usize::try_from(to - from).unwrap_or(0), 0);
            body.read_at(from, &mut data[old..]).map(|_read| ())
        };
        for gap in body.missing(range) {
            if self.inner.offline.load(Ordering::Acquire) {
                return Err(HydrateError::Offline);
            }
            read(&mut data, at, gap.start)?;
            at = gap.end;
            let inner = &self.inner;
            inner.pass(&source, body.id(), gap, &mut data).await?;
        }
        if at < end {
            read(&mut data, at, end)?;
        }
        Ok(data)
    }

    /// Tells that a reader is gone: its read-ahead stops.
    pub fn cancel(&self, fh: u64) {
        if self.inner.readers.lock().remove(&fh).is_none() {
            return;
        }
        let flights: Vec<_> = self.inner.flights.lock().values().cloned().collect();
        for flight in flights {
            flight.stop_readahead(fh);
        }
    }

    /// Stops what is fetched of a body because it is pinned.
    pub fn stop_pin(&self, id: BodyId) {
        let flight = self.inner.flights.lock().get(&id).cloned();
        if let Some(flight) = flight {
            flight.stop_pin();
        }
    }

    /// Has what is known of a body recorded now instead of in a while, if nobody fetches it, so that
    /// nothing but a program keeps the body in use.
    pub fn let_go(&self, id: BodyId) {
        let flight = self.inner.flights.lock().get(&id).cloned();
        if let Some(flight) = flight {
            flight.hurry.notify_one();
        }
    }

    /// Answers everybody who waits, and stops all transfers.
    pub fn fail_all(&self, error: &HydrateError) {
        let flights: Vec<_> = self.inner.flights.lock().values().cloned().collect();
        for flight in flights {
            flight.fail_everything(error);
        }
    }

    /// Tells whether there is a network. Without one, whoever waits or comes to wait is told at
    /// once.
    pub fn set_offline(&self, offline: bool) {
        self.inner.offline.store(offline, Ordering::Release);
        if offline {
            self.fail_all(&HydrateError::Offline);
        }
    }

    /// Records what is present of every body that is being fetched, as before a shutdown.
    pub async fn save_all(&self) {
        let flights: Vec<_> = self.inner.flights.lock().values().cloned().collect();
        for flight in flights {
            self.inner.save(&flight).await;
        }
    }

    /// The flight of a body, made when there is none.
    fn enter(&self, body: &Arc<Body>) -> User {
        let mut flights = self.inner.flights.lock();
        let known = flights
            .get(&body.id())
            .filter(|flight| Arc::ptr_eq(flight.body(), body));
        let flight = known.cloned().unwrap_or_else(|| {
            let flight = Arc::new(Flight::new(Arc::clone(body)));
            flights.insert(body.id(), Arc::clone(&flight));
            let keeper = keep(Arc::clone(&self.inner), Arc::clone(&flight));
            self.inner.handle.spawn(keeper);
            flight
        });
        flight.join();
        User(flight)
    }

    /// Starts transfers for what is missing and not under way. Returns how far it got when the
    /// claim allowed no more.
    fn start(
        &self,
        flight: &Arc<Flight>,
        source: &Arc<Source>,
        missing: &dyn Fn() -> Vec<ByteRange>,
        claim: Claim,
    ) -> Option<u64> {
        let claimed = flight.claim(missing, source.size, &claim);
        for segment in claimed.segments {
            let inner = Arc::clone(&self.inner);
            let task = transfer::run(
                inner,
                Arc::clone(flight),
                Arc::clone(source),
                segment,
                claim.demand,
            );
            let task = in_lane(claim.demand.lane(), task);
            let task = self.inner.handle.spawn(task);
            flight.set_abort(segment, task.abort_handle());
        }
        claimed.reached
    }

    /// Stops the read-ahead of one reader of one body.
    fn stop_readahead(&self, id: BodyId, fh: u64) {
        let flight = self.inner.flights.lock().get(&id).cloned();
        if let Some(flight) = flight {
            flight.stop_readahead(fh);
        }
    }
}

/// Waits until a flight rests, records what is present, and takes the flight off the table.
async fn keep(inner: Arc<Inner>, flight: Arc<Flight>) {
    loop {
        let rest = tokio::select! {
            () = tokio::time::sleep(inner.config.save_after_idle) => inner.config.save_after_idle,
            () = flight.hurry.notified() => Duration::ZERO,
        };
        if !flight.is_resting(rest) {
            continue;
        }
        inner.save(&flight).await;
        let mut flights = inner.flights.lock();
        if flight.is_resting(Duration::ZERO) && !flight.has_unsaved() {
            let own = flights
                .get(&flight.body().id())
                .is_some_and(|known| Arc::ptr_eq(known, &flight));
            if own {
                flights.remove(&flight.body().id());
            }
            return;
        }
    }
}

impl fmt::Debug for Hydrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hydrator")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}
