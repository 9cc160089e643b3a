//! One drive, kept in step with the service: owns the state and supervises the tasks.

mod opening;
mod refresh;
mod telling;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, NameKey, Quota, Timestamp, kill_point};
use onedrivefs_graph::{GraphClient, Lane, in_lane};
use onedrivefs_store::{BodyRow, ConflictRow, Item, Reader, Store, StoreError};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::announce::{Announcement, Announcing, Unannounced};
use crate::apply::{Applier, Facts};
use crate::bodies::Bodies;
use crate::brake::Brake;
use crate::change::KernelChange;
use crate::config::EngineConfig;
use crate::enumerate::Listing;
use crate::error::EngineError;
use crate::event::{Event, EventListener};
use crate::evict::Evictor;
use crate::hydrate::{HydrateConfig, Hydrator};
use crate::net_state::{Net, NetState};
use crate::past::Past;
use crate::pins::Pins;
use crate::presence::PresenceToStore;
use crate::push::Push;
use crate::recent::Recent;
use crate::rescue::Rescue;
use crate::rights::{META_READ_ONLY, Standing};
use crate::scope::Scope;
use crate::uploader::COPIES_WAITING_MAX;
use crate::waiters::Waiters;
use crate::{durable, links, power, rescue, transfers::Transfers};
use opening::{lock_state, make_private_dir, open_state_in_any_room, sync_folders};

/// How long tasks get to end by themselves when the engine stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Key of the metadata table under which the number of the current enumeration is kept.
pub(crate) const META_EPOCH: &str = "epoch";

/// The number of the first enumeration. Each takes two: see [`Engine::answer_epoch`].
pub(crate) const FIRST_EPOCH: i64 = 2;
/// Key under which the delta link is kept.
pub(crate) const META_DELTA_LINK: &str = "delta_link";
/// Key under which it is kept when changes of others were last looked for, in nanoseconds.
pub(crate) const META_LAST_DELTA: &str = "last_delta";
/// Key under which the last seen quota is kept, as `total used`.
const META_QUOTA: &str = "quota";

/// Who is told what the kernel must forget.
pub type KernelListener = Box<dyn Fn(Announcement) + Send + Sync>;

/// Who learns before a commit what the kernel must forget after it. Called inside the transaction.
pub type Foreseer = Box<dyn Fn(&[KernelChange]) + Send + Sync>;

/// Tells whether a program has an inode open.
pub type OpenFiles = Box<dyn Fn(Ino) -> bool + Send + Sync>;

/// The listener, as the engine shares it with what finds things out for itself.
pub(crate) type SharedListener = Arc<RwLock<Option<KernelListener>>>;

/// A drive that is being served.
pub struct Engine {
    /// Settings.
    pub config: EngineConfig,
    /// Metadata and journal.
    pub store: Arc<Store>,
    /// Bodies on disk.
    pub bodies: Arc<Bodies>,
    /// The service.
    pub graph: GraphClient,
    /// Downloads.
    pub hydrator: Hydrator,
    /// Reachability.
    pub net: Arc<NetState>,
    /// Requests of programs that wait for the service.
    pub waiters: Arc<Waiters>,
    pub(crate) handle: Handle,
    /// Requests on their way, by inode.
    pub(crate) in_flight: Mutex<HashMap<Ino, CancellationToken>>,
    /// What requests on their way make: the folder's id and the name, by inode.
    pub(crate) creating: Mutex<HashMap<Ino, (String, NameKey)>>,
    /// Whether the service answers "changed" to deletions with any tag.
    pub(crate) delete_tags_refused: AtomicBool,
    /// Requests that ended lately.
    pub(crate) recent: Recent,
    /// When the files of other drives were last asked for that items of this one stand for.
    pub(crate) links_looked: Mutex<Option<Instant>>,
    /// When the oldest page of the round at hand was asked for.
    pub(crate) round_began: Mutex<Instant>,
    /// The bytes that waited to be sent, and when they were summed up.
    pub(crate) pending_bytes: Mutex<Option<(Instant, u64)>>,
    /// Held while items that were set aside are looked at again.
    pub(crate) deferred_turn: tokio::sync::Mutex<()>,
    /// Bodies whose bytes are being looked for among older versions.
    pub(crate) past: Past,
    /// Copies that the service is making and that hold up nothing else.
    pub(crate) copies: Arc<Semaphore>,
    /// Open write handles, by inode.
    pub(crate) writers: Mutex<HashMap<Ino, u32>>,
    /// Unlinked inodes that are still being read and are not wholly here.
    pub(crate) holds: Mutex<HashSet<Ino>>,
    pub(crate) transfers: Transfers,
    pub(crate) wake_uploader: Notify,
    pub(crate) wake_freshness: Notify,
    /// Notified after a sign-in, when there may be more to be seen than before, and after sleep.
    pub(crate) look_wanted: Notify,
    /// Notified whenever the journal got shorter or a round of changes was applied.
    pub(crate) progress: Notify,
    /// Serialises rounds of changes and listings; held across requests, never by a kernel thread.
    pub(crate) rounds: tokio::sync::Mutex<()>,
    pub(crate) last_delta: AtomicI64,
    /// Changes that rounds brought and the kernel was told of.
    pub(crate) news: AtomicU64,
    /// The channel on which changes of others are announced.
    pub(crate) push: Push,
    pub(crate) enumerating: AtomicBool,
    /// Whether the drive has no change feed.
    pub(crate) walks: AtomicBool,
    /// The folder that is mounted, if it is not the drive's root.
    pub(crate) scope: Scope,
    pub(crate) listings: Mutex<HashMap<Ino, Arc<Listing>>>,
    quota: Mutex<Option<Quota>>,
    /// Files with new content whose old sizes the kernel still takes for true.
    unannounced: Arc<Unannounced>,
    /// Files with new content that a lookup under way may still bring old attributes of.
    unknown: Arc<Unannounced>,
    listener: SharedListener,
    foreseer: RwLock<Option<Foreseer>>,
    pub(crate) events: RwLock<Option<EventListener>>,
    /// Deletions of the last minute.
    pub(crate) brake: Brake,
    pub(crate) evictor: Arc<Evictor>,
    /// What is to be kept here.
    pub(crate) pins: Arc<Pins>,
    pub(crate) open_files: RwLock<Option<OpenFiles>>,
    /// Whether a failure could not be noted in the database, most likely because its disk is full.
    pub(crate) unwritable: AtomicBool,
    /// What others let this account do, and what that means for what is sent.
    pub(crate) standing: Standing,
    rescues: Vec<Rescue>,
    /// Cancelled when the database turns out to be damaged.
    damaged: CancellationToken,
    pub(crate) cancel: CancellationToken,
    tasks: TaskTracker,
    _lock: File,
}

impl Engine {
    /// Opens the state of a drive and repairs what a killed daemon left. Sends no request.
    ///
    /// # Errors
    /// `AlreadyRunning` when another daemon serves the drive; `State` when the directory cannot
    /// be used; errors of the database.
    pub fn open(
        config: EngineConfig,
        graph: GraphClient,
        handle: Handle,
    ) -> Result<Arc<Self>, EngineError> {
        let engine = Self::make(config, graph, handle)?;
        engine.config.family.join(&engine);
        Ok(engine)
    }

    fn make(
        config: EngineConfig,
        graph: GraphClient,
        handle: Handle,
    ) -> Result<Arc<Self>, EngineError> {
        make_private_dir(&config.state_dir)?;
        sync_folders(&config.state_dir);
        let lock = lock_state(&config.state_dir)?;
        kill_point("state-locked");
        let (store, bodies) = open_state_in_any_room(&config)?;
        let rescues = rescue::take_in_all(&config, &store, &bodies);
        links::make_known(&config, &store, &graph)?;
        let cancel = CancellationToken::new();
        let damaged = stop_on_damage(&store, cancel.clone());
        let pins = Pins::watch(&store)?;
        let evictor = Arc::new(Evictor::new(&config, store.clone(), bodies.clone()));
        let net = Arc::new(NetState::new(config.family.stir().clone()));
        let listener = SharedListener::default();
        let presence = Arc::new(PresenceToStore::new(
            Arc::clone(&store),
            Arc::clone(&listener),
            Arc::clone(&evictor),
        ));
        let hydrate = HydrateConfig {
            first_byte_deadline: config.first_byte_deadline,
            ..HydrateConfig::default()
        };
        let hydrator = Hydrator::new(graph.clone(), handle.clone(), hydrate, presence);
        let (quota, last_delta, read_only) = store.read(remembered)?;
        let scope = store.read(|r| Scope::remembered(r, config.folder.clone()))?;
        Ok(Arc::new(Self {
            waiters: config.family.waiters(),
            config,
            store,
            bodies,
            graph,
            hydrator,
            net,
            handle,
            in_flight: Mutex::default(),
            creating: Mutex::default(),
            past: Past::default(),
            copies: Arc::new(Semaphore::new(COPIES_WAITING_MAX)),
            delete_tags_refused: AtomicBool::new(false),
            recent: Recent::default(),
            links_looked: Mutex::default(),
            round_began: Mutex::new(Instant::now()),
            pending_bytes: Mutex::default(),
            deferred_turn: tokio::sync::Mutex::default(),
            writers: Mutex::default(),
            holds: Mutex::default(),
            transfers: Transfers::default(),
            wake_uploader: Notify::new(),
            wake_freshness: Notify::new(),
            look_wanted: Notify::new(),
            progress: Notify::new(),
            rounds: tokio::sync::Mutex::default(),
            last_delta: AtomicI64::new(last_delta),
            news: AtomicU64::new(0),
            push: Push::default(),
            enumerating: AtomicBool::new(false),
            walks: AtomicBool::new(false),
            scope,
            listings: Mutex::default(),
            quota: Mutex::new(quota),
            unannounced: Arc::default(),
            unknown: Arc::default(),
            listener,
            foreseer: RwLock::default(),
            events: RwLock::default(),
            brake: Brake::default(),
            evictor,
            pins,
            open_files: RwLock::default(),
            unwritable: AtomicBool::new(false),
            standing: Standing::new(read_only),
            rescues,
            damaged,
            cancel,
            tasks: TaskTracker::new(),
            _lock: lock,
        }))
    }

    /// Starts the tasks that send and receive changes. Must be called once, inside the runtime.
    pub fn start(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        self.spawn(async move { engine.run_uploader().await });
        let engine = Arc::clone(self);
        self.spawn(in_lane(Lane::Background, async move {
            engine.run_freshness().await;
        }));
        if !self.config.groups {
            let engine = Arc::clone(self);
            self.spawn(async move { engine.run_push().await });
        }
        let engine = Arc::clone(self);
        self.spawn(async move { engine.run_resume().await });
        let engine = Arc::clone(self);
        self.spawn(async move { engine.run_eviction().await });
        let engine = Arc::clone(self);
        self.spawn(in_lane(Lane::Background, async move {
            engine.run_pins().await;
        }));
        let engine = Arc::clone(self);
        self.spawn(async move { engine.run_durability().await });
        let engine = Arc::clone(self);
        self.spawn(async move { engine.run_offline_switch().await });
        self.check_database();
    }

    /// What was rescued of a damaged state when this one was opened.
    #[must_use]
    pub fn rescues(&self) -> &[Rescue] {
        &self.rescues
    }

    /// Waits until the database turns out to be damaged. Nothing is sent any more then, and calls
    /// fail; the next [`Engine::open`] repairs it.
    pub async fn wait_damaged(&self) {
        self.damaged.cancelled().await;
    }

    /// Looks through the database for damage, if the last daemon was killed or the power failed.
    fn check_database(&self) {
        if !self.store.was_unclean() {
            return;
        }
        let store = Arc::clone(&self.store);
        let check = move || {
            // Damage is told by the store itself.
            if let Err(error) = store.check() {
                tracing::debug!(%error, "The database was not looked through to its end.");
            }
        };
        // A thread of its own, which the end of the process does not wait for.
        let started = std::thread::Builder::new()
            .name("check".to_owned())
            .spawn(check);
        if let Err(error) = started {
            tracing::warn!(%error, "The database could not be looked through.");
        }
    }

    /// Tells downloads when there is no network, so that nobody waits for them.
    async fn run_offline_switch(self: Arc<Self>) {
        let mut net = self.net.watch();
        loop {
            self.hydrator
                .set_offline(*net.borrow_and_update() == Net::Offline);
            if net.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs a task that ends when the engine stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = task => {}
                }
            },
            &self.handle,
        );
    }

    /// Stops all tasks. What they were doing is taken up again by the next daemon.
    pub async fn shutdown(&self) {
        self.hydrator
            .fail_all(&crate::hydrate::HydrateError::ShuttingDown);
        self.hydrator.save_all().await;
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("Some tasks did not end in time.");
        }
        self.put_in_order().await;
        if let Err(error) = self.store.checkpoint() {
            tracing::warn!(%error, "The database log could not be folded into the database.");
        }
    }

    /// Puts everything on stable storage, and notes that nothing is in doubt whatever happens to the
    /// machine before the next daemon starts.
    async fn put_in_order(&self) {
        let (store, bodies) = (Arc::clone(&self.store), Arc::clone(&self.bodies));
        let done = self.handle.spawn_blocking(move || {
            durable::sync_saved(&store, &bodies)?;
            Ok::<_, EngineError>(power::note_in_order(&store)?)
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(%error, "Not everything could be put on stable storage.");
        }
    }

    /// Makes the uploader look at the journal now.
    pub fn wake_uploader(&self) {
        self.wake_uploader.notify_one();
        self.config.family.stir().journal_grew();
    }

    /// Sends what waits for an inode without letting it rest.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn send_now(&self, ino: Ino) -> Result<(), EngineError> {
        self.store.write(|tx| {
            let Some(mut row) = tx.journal(ino)? else {
                return Ok(());
            };
            row.touched = Timestamp::from_nanos(0);
            tx.put_journal(&row)
        })?;
        self.wake_uploader();
        Ok(())
    }

    /// Makes the next look for changes of others happen now.
    pub fn wake_freshness(&self) {
        self.wake_freshness.notify_one();
    }

    /// Waits until somebody signed in again or the machine woke from sleep. For whoever shows more
    /// than the engine looks for by itself.
    pub async fn look_wanted(&self) {
        self.look_wanted.notified().await;
    }

    /// Told after somebody signed in again.
    pub fn credentials_changed(&self) {
        self.net.set(Net::Online);
        self.wake_freshness();
        self.look_wanted.notify_one();
        self.wake_uploader();
    }

    /// Tells whether a request for an inode is on its way.
    #[must_use]
    pub fn is_in_flight(&self, ino: Ino) -> bool {
        self.in_flight.lock().contains_key(&ino)
    }

    /// Gives up the request that is on its way for an inode, whose result nobody wants any more.
    pub fn cancel_in_flight(&self, ino: Ino) {
        if let Some(token) = self.in_flight.lock().get(&ino) {
            token.cancel();
        }
    }

    /// Notes that an inode was opened for writing: it is not sent half-written.
    pub fn writer_opened(&self, ino: Ino) {
        *self.writers.lock().entry(ino).or_insert(0) += 1;
    }

    /// Notes that a write handle of an inode was closed.
    pub fn writer_closed(&self, ino: Ino) {
        let mut writers = self.writers.lock();
        if let Some(count) = writers.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&ino);
            }
        }
        drop(writers);
        self.wake_uploader();
    }

    /// Keeps an unlinked item on the service until [`Engine::release_hold`], for somebody still
    /// reads from it.
    pub fn hold(&self, ino: Ino) {
        self.holds.lock().insert(ino);
    }

    /// Ends what [`Engine::hold`] began.
    pub fn release_hold(&self, ino: Ino) {
        if self.holds.lock().remove(&ino) {
            self.wake_uploader();
        }
    }

    /// The quota as last seen; `None` when the service gives no believable figures.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        *self.quota.lock()
    }

    /// Notes the quota.
    pub fn set_quota(&self, quota: Option<Quota>) {
        if *self.quota.lock() == quota {
            return;
        }
        *self.quota.lock() = quota;
        let text = quota.map(|q| format!("{} {}", q.total, q.used));
        if let Err(error) = self
            .store
            .write(|tx| tx.set_meta(META_QUOTA, text.as_deref()))
        {
            tracing::warn!(%error, "The quota could not be noted.");
        }
    }

    /// The facts under which items are applied now.
    pub(crate) fn facts<'a>(&'a self, in_flight: &'a dyn Fn(Ino) -> bool, epoch: i64) -> Facts<'a> {
        Facts {
            now: Timestamp::now(),
            host: &self.config.host_name,
            oneself: &self.config.oneself,
            epoch,
            children_come_along: false,
            prefer_confirmed: false,
            creating: !self.in_flight.lock().is_empty(),
            in_flight,
            bodies: Some(&self.bodies),
        }
    }

    /// Does what follows from applied items once their transaction is committed.
    pub(crate) fn after_apply(&self, outcome: Outcome) {
        self.bodies.remove_files(&outcome.dropped);
        if outcome.wake_uploader {
            self.wake_uploader();
        }
        self.announce(outcome.changes, Some(outcome.announcing));
        for ConflictRow { path, copy, .. } in outcome.conflicts {
            self.tell(Event::ConflictCopy { path, copy });
        }
    }

    /// What follows from applied items. Called at the end of their transaction.
    pub(crate) fn outcome(&self, mut applier: Applier<'_>) -> Result<Outcome, StoreError> {
        applier.show_aside()?;
        Ok(Outcome {
            announcing: self.announce_soon(&applier.changes),
            changes: applier.changes,
            dropped: applier.dropped,
            wake_uploader: applier.wake_uploader,
            conflicts: applier.conflicts,
        })
    }

    /// The number of the current enumeration: the mark of items that its pages confirmed.
    pub(crate) fn epoch(&self) -> Result<i64, StoreError> {
        let text = self.store.read(|r| r.meta(META_EPOCH))?;
        Ok(text.and_then(|t| t.parse().ok()).unwrap_or(FIRST_EPOCH))
    }

    /// The mark of items that an answer about themselves confirmed since the current enumeration
    /// began. That answer may be older than the pages: what they do not mention may be gone since,
    /// and no later round would say so.
    pub(crate) fn answer_epoch(&self) -> Result<i64, StoreError> {
        Ok(self.epoch()? - 1)
    }

    /// Finds the item at a path of the mount.
    ///
    /// # Errors
    /// `NoSuchPath`, or errors of the database.
    pub fn item_at(&self, path: &str) -> Result<Item, EngineError> {
        let found = self.store.read(|r| item_at(r, path))?;
        found.ok_or_else(|| EngineError::NoSuchPath {
            path: path.to_owned(),
        })
    }
}

/// What an engine knew last of the quota, when it looked for changes, and whether it may only read.
fn remembered(r: &Reader<'_>) -> Result<(Option<Quota>, i64, bool), StoreError> {
    let quota = r.meta(META_QUOTA)?.as_deref().and_then(parse_quota);
    let last_delta = r.meta(META_LAST_DELTA)?.and_then(|text| text.parse().ok());
    let read_only = r.meta(META_READ_ONLY)?.is_some();
    Ok((quota, last_delta.unwrap_or(0), read_only))
}

/// The item at a path of the mount.
pub(crate) fn item_at(r: &Reader<'_>, path: &str) -> Result<Option<Item>, StoreError> {
    let mut item = r.item(Ino::ROOT)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        item = match item {
            Some(parent) => r.child(parent.ino, name)?,
            None => None,
        };
    }
    Ok(item)
}

/// What follows from applied items, to be done after the commit.
pub(crate) struct Outcome {
    pub changes: Vec<KernelChange>,
    pub dropped: Vec<BodyRow>,
    pub wake_uploader: bool,
    pub conflicts: Vec<ConflictRow>,
    announcing: Announcing,
}

fn parse_quota(text: &str) -> Option<Quota> {
    let (total, used) = text.split_once(' ')?;
    Some(Quota {
        total: total.parse().ok()?,
        used: used.parse().ok()?,
    })
}

/// Has everything stopped when damage shows in the database. The token that is returned says so; it is
/// not a child of the other: an engine that merely stops has no damage.
fn stop_on_damage(store: &Store, stop: CancellationToken) -> CancellationToken {
    let damaged = CancellationToken::new();
    let tell = damaged.clone();
    store.set_on_damage(move || {
        tell.cancel();
        // Nothing is sent any more on the word of a damaged database.
        stop.cancel();
    });
    damaged
}
