//! Sends what the journal holds: in order where one change needs another, in parallel otherwise.
//!
//! A row is taken when nothing stands in its way (see [`ready`]), worked on until nothing waits
//! for its inode or something fails, and put back with a time for the next try. Nothing is ever
//! dropped: what cannot succeed is parked, named in `status`, and blocks nothing unrelated.

mod adopt;
mod content;
mod copied;
mod copy;
mod elsewhere;
mod fragment;
mod frozen;
mod heir;
mod held;
mod namespace;
mod originals;
mod ready;
mod session;
mod settle;
mod unanswered;

pub(crate) use elsewhere::UnsentSizes;
pub(crate) use frozen::body_error;
pub use heir::heir_of;
pub(crate) use heir::{Original, make_backup, next_version_of};
pub(crate) use held::is_successor;
pub use session::source_of;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_graph::{Lane, in_lane};
use onedrivefs_store::{Item, JournalRow, Ops, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::net_state::Net;

/// Files from this size on, in bytes, are sent by few at a time: they share the line, while what
/// makes small ones slow is waiting for answers.
const LARGE: u64 = 4 << 20;

/// Rows looked at per query.
const WINDOW: u32 = 256;

/// Longest sleep of the scheduler; it is woken by every change.
const IDLE: Duration = Duration::from_secs(600);

/// Pause after the journal could not be read.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(60);

/// Longest sleep of the scheduler while rows wait for others. Whatever lets them go on wakes it;
/// this only bounds the damage of a wake-up that was forgotten.
const BLOCKED: Duration = Duration::from_secs(15);

/// Pause of a row that was ready but met an obstacle when it was to be sent.
const OBSTACLE_PAUSE: Duration = Duration::from_millis(500);

/// Shortest pause between two looks at the journal, so that a program that makes many changes does
/// not have it read for each of them.
const PACE: Duration = Duration::from_millis(50);

/// Pause between two looks whether the database can be written.
const UNWRITABLE_PAUSE: Duration = Duration::from_secs(5);

/// Copies that the service works on without holding up other changes. Each costs a request now and
/// then, so that more than these take the place of uploads.
pub(crate) const COPIES_WAITING_MAX: usize = 32;

/// How one piece of work on a row ended.
pub(crate) enum Step {
    /// Something was sent; look whether more waits.
    Progress,
    /// Another row has to go first, or the row is being changed.
    Blocked,
    /// The work was given up because its result is not wanted any more.
    Cancelled,
    /// The service works on it: to be looked at again after this time.
    Wait(Duration),
}

impl Engine {
    /// Sends changes for as long as the engine runs.
    pub(crate) async fn run_uploader(self: Arc<Self>) {
        let slots = Slots::new(self.config.upload_parallelism);
        let mut net = self.net.watch();
        loop {
            // Waiting here, not per row: without an answer every row would fail the same way.
            if net.wait_for(|&net| net == Net::Online).await.is_err() {
                return;
            }
            self.wait_writable().await;
            let pause = match self.dispatch(&slots).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "The journal could not be read.");
                    UNREADABLE_PAUSE
                }
            };
            tokio::select! {
                () = self.wake_uploader.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Waits until the database can be written again. What is sent must be recorded.
    async fn wait_writable(&self) {
        while self.unwritable.load(Ordering::Acquire) {
            self.evictor.reserve().give_up();
            match self.store.write(|tx| tx.hurry_journal()) {
                Ok(()) => self.unwritable.store(false, Ordering::Release),
                Err::<(), StoreError>(error) => {
                    tracing::warn!(%error, "Nothing is sent until the local database can be written.");
                    tokio::time::sleep(UNWRITABLE_PAUSE).await;
                }
            }
        }
    }

    /// Starts work on every row that is ready, as far as there are slots. Returns how long nothing
    /// else can become ready by itself.
    async fn dispatch(self: &Arc<Self>, slots: &Slots) -> Result<Duration, EngineError> {
        if self.standing.stopped_sending.load(Ordering::Acquire) {
            return Ok(IDLE);
        }
        let mut after = 0;
        let mut pause = IDLE;
        loop {
            let rows = self.store.read(|r| r.journal_after(after, WINDOW))?;
            let Some(last) = rows.last() else {
                return Ok(pause);
            };
            after = last.seq;
            for row in rows {
                if self.is_in_flight(row.ino) {
                    continue;
                }
                match self.readiness(&row)? {
                    ready::Readiness::Now => {}
                    ready::Readiness::In(wait) => {
                        pause = pause.min(wait);
                        continue;
                    }
                    ready::Readiness::Blocked => {
                        pause = pause.min(BLOCKED);
                        continue;
                    }
                }
                let large = row.ops.has(Ops::CONTENT)
                    && self.store.item(row.ino)?.is_some_and(|i| i.size >= LARGE);
                let Some(slot) = slots.take(large).await else {
                    // Whoever gives one back has the journal looked at again.
                    continue;
                };
                if self.net.get() != Net::Online {
                    return Ok(pause);
                }
                self.begin(row.ino, slot);
            }
        }
    }

    /// Starts work on one inode.
    fn begin(self: &Arc<Self>, ino: Ino, slot: Slot) {
        let token = self.cancel.child_token();
        self.in_flight.lock().insert(ino, token.clone());
        let engine = Arc::clone(self);
        let work = async move {
            let guard = InFlight {
                engine: &engine,
                ino,
            };
            let mut slot = Some(slot);
            while let Some(pause) = engine.work(ino, &token).await {
                slot = engine.wait_for_service(slot, pause).await;
                if slot.is_none() {
                    break;
                }
            }
            drop(guard);
            drop(slot);
            if let Err(error) = engine.apply_deferred().await {
                tracing::warn!(%error, "Items that were set aside could not be applied.");
            }
            engine.progress.notify_waiters();
            engine.wake_uploader();
        };
        self.spawn(in_lane(Lane::Upload, work));
    }

    /// Waits while the service works on something. Others get the slot meanwhile, unless many wait
    /// like this; the inode stays in flight, so that nobody takes what the service makes for
    /// somebody else's. `None` when the engine ends.
    async fn wait_for_service(&self, slot: Option<Slot>, pause: Duration) -> Option<Slot> {
        let Ok(_waiting) = self.copies.try_acquire() else {
            tokio::time::sleep(pause).await;
            return slot;
        };
        let lent = slot?.give_back();
        self.wake_uploader();
        tokio::time::sleep(pause).await;
        lent.take().await
    }

    /// Works on one inode until nothing waits for it or something stands in the way. Returns how
    /// long to wait when the service works on it.
    async fn work(&self, ino: Ino, token: &CancellationToken) -> Option<Duration> {
        // What looked a moment ago whether it is in flight must be known before it is read.
        self.store.wait_for_writer();
        loop {
            let mut change = 0;
            let outcome = match self.store.read(|r| Ok((r.item(ino)?, r.journal(ino)?))) {
                Ok((Some(item), Some(row))) if !row.parked => {
                    change = row.change;
                    self.step(&item, &row, token).await
                }
                Ok((None, Some(_))) => self
                    .store
                    .write(|tx| tx.delete_journal(ino))
                    .map_err(Into::into)
                    .map(|()| Step::Cancelled),
                Ok(_) => return None,
                Err(error) => {
                    let error: EngineError = error;
                    Err(error)
                }
            };
            match outcome {
                Ok(Step::Progress) => {}
                Ok(Step::Blocked) => {
                    self.rest(ino);
                    return None;
                }
                Ok(Step::Cancelled) => return None,
                Ok(Step::Wait(pause)) => return Some(pause),
                Err(error) => {
                    self.settle_failure(ino, change, error).await;
                    return None;
                }
            }
        }
    }

    /// Lets a row rest that could not be sent although nothing seemed to stand in its way, so that
    /// it is not taken up again at once.
    fn rest(&self, ino: Ino) {
        let rested = self.store.write(|tx| {
            let Some(mut row) = tx.journal(ino)? else {
                return Ok(());
            };
            if matches!(self.readiness(&row)?, ready::Readiness::Now) {
                row.not_before = ready::later(Timestamp::now(), OBSTACLE_PAUSE);
                tx.put_journal(&row)?;
            }
            Ok::<(), EngineError>(())
        });
        if let Err(error) = rested {
            let path = self.path_of(ino).unwrap_or_default();
            tracing::warn!(path, %error, "A change could not be put off.");
        }
    }

    /// Sends the next change of one inode.
    async fn step(
        &self,
        item: &Item,
        row: &JournalRow,
        token: &CancellationToken,
    ) -> Result<Step, EngineError> {
        if !matches!(self.readiness(row)?, ready::Readiness::Now) {
            return Ok(Step::Blocked);
        }
        // What is sent must be known here even after a power cut: a deletion whose unlink were
        // undone would look like one of somebody else's.
        self.barrier().await?;
        if let Some(copy) = &row.copy {
            return self.follow_copy(item, copy).await;
        }
        if !row.ops.has(Ops::DELETE)
            && let Some(step) = self.left_the_folder(item).await?
        {
            return Ok(step);
        }
        if row.ops.has(Ops::DELETE) || row.ops.has(Ops::CONTENT) {
            // What copies lack that were not made yet is about to be gone.
            if let Some(step) = self.see_to_copies(item).await? {
                return Ok(step);
            }
        }
        if let Some(step) = self.pass_identity_on(item, row).await? {
            return Ok(step);
        }
        if row.ops.has(Ops::DELETE) {
            return self.send_delete(item, row).await;
        }
        if self.config.groups && item.remote.is_none() {
            return Err(EngineError::NoDrive);
        }
        if (item.remote.is_none() || row.ops.has(Ops::MOVE))
            && let Some(step) = self.make_way(item).await?
        {
            return Ok(step);
        }
        if item.remote.is_none() {
            return if item.is_dir() {
                self.send_folder(item).await
            } else {
                self.send_content(item, row, token).await
            };
        }
        if row.ops.has(Ops::MOVE) {
            return self.send_move(item).await;
        }
        if row.ops.has(Ops::CONTENT) {
            return self.send_content(item, row, token).await;
        }
        self.send_times(item, row).await
    }
}

/// What limits how much is sent at the same time.
struct Slots {
    all: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The right to send one thing, until it is dropped.
struct Slot {
    all: OwnedSemaphorePermit,
    large: Option<OwnedSemaphorePermit>,
}

/// A slot that others have for a while.
struct Lent {
    all: Arc<Semaphore>,
    large: Option<Arc<Semaphore>>,
}

impl Slot {
    /// Lets others have it.
    fn give_back(self) -> Lent {
        Lent {
            all: Arc::clone(self.all.semaphore()),
            large: self.large.map(|large| Arc::clone(large.semaphore())),
        }
    }
}

impl Lent {
    /// Waits until it is free again; `None` when the engine ends.
    async fn take(self) -> Option<Slot> {
        let large = match self.large {
            Some(large) => Some(large.acquire_owned().await.ok()?),
            None => None,
        };
        let all = self.all.acquire_owned().await.ok()?;
        Some(Slot { all, large })
    }
}

impl Slots {
    fn new(count: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count)),
            large: Arc::new(Semaphore::new(count.div_ceil(2))),
        }
    }

    /// Waits until something may be sent; `None` when as many large files are under way as may be.
    async fn take(&self, large: bool) -> Option<Slot> {
        let large = match large {
            true => Some(Arc::clone(&self.large).try_acquire_owned().ok()?),
            false => None,
        };
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { all, large })
    }
}

/// Marks an inode as in flight for as long as it lives.
struct InFlight<'e> {
    engine: &'e Engine,
    ino: Ino,
}

impl<'e> InFlight<'e> {
    /// Marks an inode that another one's work is about, too. Its row is to be read after that.
    fn begin(engine: &'e Engine, ino: Ino) -> Self {
        let token = engine.cancel.child_token();
        engine.in_flight.lock().insert(ino, token);
        engine.store.wait_for_writer();
        Self { engine, ino }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.engine.recent.note(self.ino);
        self.engine.in_flight.lock().remove(&self.ino);
        self.engine.creating.lock().remove(&self.ino);
        self.engine.transfers.remove(self.ino);
    }
}

/// Time left until `at`, zero when it is past.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(at.as_nanos().saturating_sub(now.as_nanos())).unwrap_or(0))
}
