//! What is pinned is kept whole on this machine, in its newest version: what of it is not here is
//! fetched in the background, and the evictor leaves it alone.

mod fetch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{KeptItem, Place, Store, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::net_state::Net;
use crate::transfers::Transfer;

/// Changed inodes that are looked at one by one; more mean a look at everything that is pinned.
const TOUCHED_MAX: usize = 1024;

/// Pins that `status` names at most.
const NAMED_MAX: usize = 100;

/// Attempts after which whoever waits is told that a file cannot be fetched.
const TRIES: u32 = 3;

/// How often whoever waits is told how far it is, at least.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What is not here yet of what is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToFetch {
    /// Files of which bytes are missing.
    pub files: u64,
    /// Bytes that are missing.
    pub bytes: u64,
}

/// What keeping something here comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is not here yet.
    pub to_fetch: ToFetch,
    /// Folders of which it is not known yet what is in them.
    pub unlisted: u64,
}

/// What pins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinnedBy {
    /// A pin of its own.
    #[serde(rename = "self")]
    Itself,
    /// A folder above it.
    Folder,
}

impl PinnedBy {
    /// What pins an inode when `by` is the nearest that has a pin.
    #[must_use]
    pub fn of(ino: Ino, by: Ino) -> Self {
        if by == ino {
            Self::Itself
        } else {
            Self::Folder
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Itself => "self",
            Self::Folder => "folder",
        }
    }
}

/// Answer to a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Whether it had no pin of its own before.
    pub new: bool,
    /// What is kept by it.
    #[serde(flatten)]
    pub kept: Kept,
    /// Whether the service can be reached, without which nothing is fetched.
    pub online: bool,
}

/// Something pinned that could not be fetched and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinTrouble {
    /// Path in the mount.
    pub path: String,
    /// Why.
    pub error: String,
}

/// How waiting for what is pinned ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinOutcome {
    /// All of it is here.
    Done(Kept),
    /// It is not pinned any more.
    Unpinned,
    /// There is no network.
    Offline(Kept),
    /// Somebody has to sign in again.
    NeedsLogin(Kept),
    /// What is left cannot be fetched for now.
    Failed(Kept, PinTrouble),
}

/// All that is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsStatus {
    /// Paths in the mount that have a pin of their own, at most a hundred.
    pub paths: Vec<String>,
    /// How many there are.
    pub count: u64,
    /// Files that are kept by them.
    pub files: u64,
    /// Bytes in those.
    pub bytes: u64,
    /// What is not here yet.
    pub to_fetch: ToFetch,
    /// Whether it is more than the content cache may hold: nothing else is kept for long.
    pub over_limit: bool,
    /// What could not be fetched and is tried again, at most a hundred files.
    pub failing: Vec<PinTrouble>,
}

/// What the engine remembers about pins beside the database.
pub(crate) struct Pins {
    /// Whether there may be any.
    any: AtomicBool,
    touched: Mutex<Touched>,
    wake: Notify,
    /// Notified whenever a fetch ended.
    stepped: Notify,
    fetching: Mutex<HashMap<Ino, Fetching>>,
    failing: Mutex<HashMap<Ino, Failing>>,
    /// Nothing is begun before, since the service could not be reached.
    pause: Mutex<Option<(u32, Instant)>>,
}

/// Inodes that were changed since somebody looked.
#[derive(Default)]
struct Touched {
    some: HashSet<Ino>,
    too_many: bool,
}

/// A fetch under way.
struct Fetching {
    abort: AbortHandle,
    /// Bytes that it will still bring.
    left: Arc<AtomicU64>,
}

/// A file that could not be fetched.
struct Failing {
    attempts: u32,
    not_before: Instant,
    error: String,
}

impl Pins {
    /// Follows what changes in a database.
    pub(crate) fn watch(store: &Store) -> Result<Arc<Self>, StoreError> {
        let pins = Arc::new(Self {
            any: AtomicBool::new(store.read(|r| r.has_pins())?),
            touched: Mutex::default(),
            wake: Notify::new(),
            stepped: Notify::new(),
            fetching: Mutex::default(),
            failing: Mutex::default(),
            pause: Mutex::default(),
        });
        let told = Arc::clone(&pins);
        store.set_on_change(move |changed| told.note(changed));
        Ok(pins)
    }

    fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Notes that inodes were changed. Costs nothing while nothing is pinned.
    pub(crate) fn note(&self, changed: &[Ino]) {
        if changed.is_empty() || !self.any() {
            return;
        }
        let mut touched = self.touched.lock();
        if touched.some.len() + changed.len() > TOUCHED_MAX {
            touched.too_many = true;
            touched.some.clear();
        } else if !touched.too_many {
            touched.some.extend(changed);
        }
        drop(touched);
        self.wake.notify_one();
    }

    /// Has everything that is pinned looked at, and what failed tried again at once.
    pub(crate) fn try_again(&self) {
        let now = Instant::now();
        for failing in self.failing.lock().values_mut() {
            failing.not_before = now;
        }
        *self.pause.lock() = None;
        self.touched.lock().too_many = true;
        self.wake.notify_one();
    }

    /// There may be room for what found none.
    pub(crate) fn room_was_made(&self) {
        if !self.failing.lock().is_empty() {
            self.try_again();
        }
    }
}

/// Bytes of a pinned item that are to be fetched; `None` when nothing is.
fn missing(item: &KeptItem) -> Option<u64> {
    if item.is_dir || !item.fetchable || item.size == 0 {
        return None;
    }
    match item.body {
        None => Some(item.size),
        // What is in the spool is fetched by its upload.
        Some(body) => (body.place == Place::Cache && body.missing > 0).then_some(body.missing),
    }
}

impl Kept {
    fn add(&mut self, item: &KeptItem, missing: Option<u64>) {
        self.unlisted += u64::from(item.unlisted);
        if item.is_dir {
            return;
        }
        self.files += 1;
        self.bytes += item.size;
        if let Some(bytes) = missing {
            self.to_fetch.files += 1;
            self.to_fetch.bytes += bytes;
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.to_fetch.files == 0 && self.unlisted == 0
    }
}

impl Engine {
    /// Pins what is at a path, and all that is or will be in it.
    ///
    /// # Errors
    /// `NoSuchPath`; errors of the database.
    pub fn pin(&self, path: &str) -> Result<Pinned, EngineError> {
        let item = self.item_at(path)?;
        // Before the commit, which is noted only then.
        self.pins.any.store(true, Ordering::Release);
        let new = self.store.write(|tx| tx.pin(item.ino, Timestamp::now()))?;
        self.store.sync()?;
        self.pins.try_again();
        Ok(Pinned {
            new,
            kept: self.kept_below(item.ino)?,
            online: self.net.get() == Net::Online,
        })
    }

    /// Ends the pin that is at a path. What was fetched stays until the room is needed. Returns the
    /// path of the folder that keeps it pinned all the same, if there is one.
    ///
    /// # Errors
    /// `NoSuchPath`; `PinnedByFolder` and `NotPinned` when it has no pin of its own; errors of the
    /// database.
    pub fn unpin(&self, path: &str) -> Result<Option<String>, EngineError> {
        let item = self.item_at(path)?;
        let (removed, by) = self.store.write(|tx| {
            let removed = tx.unpin(item.ino)?;
            let by = tx.pin_of(item.ino)?.map(|by| tx.path(by)).transpose()?;
            Ok::<_, StoreError>((removed, by))
        })?;
        match (removed, by) {
            (true, by) => {
                self.store.sync()?;
                self.pins
                    .any
                    .store(self.store.read(|r| r.has_pins())?, Ordering::Release);
                self.stop_unpinned()?;
                self.pins.room_was_made();
                self.evictor.wake();
                Ok(by)
            }
            (false, Some(folder)) => Err(EngineError::PinnedByFolder {
                path: path.to_owned(),
                folder: format!("/{folder}"),
            }),
            (false, None) => Err(EngineError::NotPinned {
                path: path.to_owned(),
            }),
        }
    }

    /// Waits until all that is at or below a pinned path is here.
    ///
    /// # Errors
    /// `NoSuchPath`; errors of the database.
    pub async fn wait_pinned(
        &self,
        path: &str,
        progress: impl Fn(&Kept, Option<&PinTrouble>) + Send,
    ) -> Result<PinOutcome, EngineError> {
        loop {
            let stepped = self.pins.stepped.notified();
            let item = self.item_at(path)?;
            if self.store.read(|r| r.pin_of(item.ino))?.is_none() {
                return Ok(PinOutcome::Unpinned);
            }
            let kept = self.kept_below(item.ino)?;
            if kept.is_here() {
                return Ok(PinOutcome::Done(kept));
            }
            match self.net.get() {
                Net::Online => {}
                Net::Offline => return Ok(PinOutcome::Offline(kept)),
                Net::NeedsLogin => return Ok(PinOutcome::NeedsLogin(kept)),
            }
            let (stuck, trouble) = self.stuck_below_pin(item.ino)?;
            if let Some(trouble) = &trouble
                && stuck >= kept.to_fetch.files + kept.unlisted
            {
                return Ok(PinOutcome::Failed(kept, trouble.clone()));
            }
            progress(&kept, trouble.as_ref());
            let _either = tokio::time::timeout(TELL_EVERY, stepped).await;
        }
    }

    /// How many files at or below an inode were tried in vain several times, and one that failed.
    fn stuck_below_pin(&self, top: Ino) -> Result<(u64, Option<PinTrouble>), EngineError> {
        if self.pins.failing.lock().is_empty() {
            return Ok((0, None));
        }
        let mut below = Vec::new();
        self.store
            .read(|r| r.each_below(top, |item| below.push(item.ino)))?;
        let (stuck, first) = {
            let failing = self.pins.failing.lock();
            let found = below
                .iter()
                .filter_map(|ino| Some((ino, failing.get(ino)?)));
            let mut stuck = 0;
            let mut first = None;
            for (ino, failing) in found {
                stuck += u64::from(failing.attempts >= TRIES);
                first.get_or_insert_with(|| (*ino, failing.error.clone()));
            }
            (stuck, first)
        };
        let named = first.map(|(ino, error)| {
            let path = self.path_of(ino)?;
            Ok::<_, EngineError>(PinTrouble { path, error })
        });
        Ok((stuck, named.transpose()?))
    }

    /// What keeping an inode here, with all below it, comes to.
    pub(crate) fn kept_below(&self, top: Ino) -> Result<Kept, EngineError> {
        let mut kept = Kept::default();
        self.store.read(|r| {
            r.each_below(top, |item| {
                let missing = self.missing_now(&item);
                kept.add(&item, missing);
            })
        })?;
        Ok(kept)
    }

    /// Bytes of an item that are to be fetched. Rows of bodies that are being fetched lag behind.
    fn missing_now(&self, item: &KeptItem) -> Option<u64> {
        let recorded = missing(item)?;
        let live = item.body.and_then(|body| self.bodies.live(body.id));
        let Some(body) = live else {
            return Some(recorded);
        };
        let gaps = body.missing(0..body.size());
        let bytes = gaps.iter().map(|gap| gap.end - gap.start).sum();
        (bytes > 0).then_some(bytes)
    }

    /// What `status` shows of all that is pinned, and how many bytes of it are here.
    pub(crate) fn pins_status(&self) -> Result<(PinsStatus, u64), EngineError> {
        if !self.pins.any() {
            return Ok((PinsStatus::default(), 0));
        }
        let mut kept = Kept::default();
        let mut here = 0;
        let (count, paths) = self.store.read(|r| {
            r.each_pinned(|item| {
                let missing = self.missing_now(&item);
                kept.add(&item, missing);
                if item.body.is_some() {
                    here += item.size.saturating_sub(missing.unwrap_or(0));
                }
            })?;
            let pins = r.pins()?;
            let named = pins.iter().take(NAMED_MAX);
            let paths = named.map(|&ino| r.path(ino)).collect::<Result<_, _>>()?;
            Ok::<_, StoreError>((pins.len() as u64, paths))
        })?;
        let status = PinsStatus {
            paths,
            count,
            files: kept.files,
            bytes: kept.bytes,
            to_fetch: kept.to_fetch,
            over_limit: kept.bytes > self.config.cache_limit_bytes,
            failing: self.failing_pins()?,
        };
        Ok((status, here))
    }

    fn failing_pins(&self) -> Result<Vec<PinTrouble>, EngineError> {
        let mut failing: Vec<(Ino, String)> = {
            let all = self.pins.failing.lock();
            let named = all
                .iter()
                .map(|(&ino, failing)| (ino, failing.error.clone()));
            named.collect()
        };
        failing.sort();
        failing.truncate(NAMED_MAX);
        self.store.read(|r| {
            let named = failing.into_iter().map(|(ino, error)| {
                let path = r.path(ino)?;
                Ok(PinTrouble { path, error })
            });
            named.collect()
        })
    }

    /// What is fetched for pins right now.
    pub(crate) fn pin_transfers(&self) -> Result<Vec<(Ino, Transfer)>, EngineError> {
        let inodes: Vec<Ino> = self.pins.fetching.lock().keys().copied().collect();
        let mut transfers = Vec::new();
        for ino in inodes {
            let Some(item) = self.store.item(ino)? else {
                continue;
            };
            let Some(body) = item.body.and_then(|id| self.bodies.live(id)) else {
                continue;
            };
            let gaps = body.missing(0..body.size());
            let missing: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
            let total = body.size();
            let done = total.saturating_sub(missing);
            transfers.push((ino, Transfer { done, total }));
        }
        transfers.sort_unstable_by_key(|(ino, _)| *ino);
        Ok(transfers)
    }
}
