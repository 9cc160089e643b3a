//! Several drives under one mount: the drive that is mounted, and folders of other drives in the
//! place of the shortcuts that lead to them.
//!
//! Each has a [`Vfs`] and an engine of its own, with its own state, change feed and journal. The
//! forest knows which one a number belongs to, begins to serve a folder when somebody looks into it,
//! and ends that when its shortcut is gone.

mod left;
mod paths;
mod tending;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use onedrivefs_core::{Ino, kill_point};
use onedrivefs_store::{Ops, Slot, SlotState, StoreError, WhichFolder};
use onedrivefs_sync::{Announcement, Engine, EngineError, Event, KernelChange, Net, Stir};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::edition::Edition;
use crate::error::VfsError;
use crate::graft::{Lineage, MAIN, number, split};
use crate::types::{Outcome, Pending};
use crate::vfs::Vfs;

pub use paths::Followed;

/// Rows read per query.
const WINDOW: u32 = 256;

/// Makes and clears away what serves the folders of other drives.
pub trait Nursery: Send + Sync {
    /// Opens the state of a folder and begins to serve it. Waits for no network.
    ///
    /// # Errors
    /// Those of the local disk.
    fn plant(&self, slot: &Slot) -> Result<Arc<Vfs>, EngineError>;

    /// Tells whether something is to be done in a folder although nobody looks into it.
    fn has_work(&self, slot: &Slot) -> bool;

    /// Folders with state on this disk that none of these slots stands for.
    fn strays(&self, slots: &[Slot]) -> Vec<WhichFolder>;

    /// Removes all state of a folder that is not served.
    ///
    /// # Errors
    /// Those of the local disk.
    fn clear(&self, slot: &Slot) -> io::Result<()>;
}

/// The listener and the forgetter of names that all drives share.
type Listener = Arc<dyn Fn(Announcement) + Send + Sync>;
type Forgetter = Arc<dyn Fn() -> bool + Send + Sync>;
type EventTeller = Arc<dyn Fn(Event) + Send + Sync>;

/// Who is told what the kernel must forget.
struct KernelSide {
    listener: Listener,
    forget_names: Forgetter,
}

/// The drives of one mount.
pub struct Forest {
    main: Arc<Vfs>,
    /// Whether the main one is no drive and only groups others.
    groups: bool,
    nursery: Option<Box<dyn Nursery>>,
    planted: RwLock<BTreeMap<u32, Arc<Vfs>>>,
    /// Held by whoever plants or removes: one at a time.
    turn: Mutex<()>,
    kernel: OnceLock<KernelSide>,
    events: OnceLock<EventTeller>,
    passthrough: AtomicBool,
    /// The slots that shortcuts show, also those that did until a moment ago.
    known: Mutex<HashMap<Ino, u32>>,
    /// Slots that are not served and in which nothing is to be done.
    idle: Mutex<HashSet<u32>>,
    wake: Notify,
    /// Held by whoever looks after all folders. A second look at the same time would take one that
    /// is being cleared away for one that nobody serves and in which nothing is left.
    looking: tokio::sync::Mutex<()>,
    /// Notified when one more slot is served.
    another: Notify,
    /// Whether the end has begun, so that nothing is planted any more.
    ending: AtomicBool,
}

/// Where something is: in which drive, and its inode there.
pub struct Spot {
    /// The drive.
    pub vfs: Arc<Vfs>,
    /// The inode.
    pub ino: Ino,
}

impl Forest {
    /// A drive whose shortcuts are followed with the help of a nursery, or not at all. Where it only
    /// `groups` other drives, it is none that the service knows, and nothing is asked about it.
    #[must_use]
    pub fn new(main: Arc<Vfs>, groups: bool, nursery: Option<Box<dyn Nursery>>) -> Arc<Self> {
        if nursery.is_some() {
            // Until what waits in other drives is looked after.
            main.engine().config.family.begin_gathering();
        }
        let engine = main.engine();
        let config = &engine.config;
        let own = (!groups).then(|| (config.drive.id.clone(), None));
        // There is one forest.
        let _first = main.lineage.set(Lineage {
            numbers: Arc::clone(&engine.store),
            above: String::new(),
            shown: own.into_iter().collect(),
        });
        Arc::new(Self {
            main,
            groups,
            nursery,
            planted: RwLock::default(),
            turn: Mutex::default(),
            kernel: OnceLock::new(),
            events: OnceLock::new(),
            passthrough: AtomicBool::new(false),
            known: Mutex::default(),
            idle: Mutex::default(),
            wake: Notify::new(),
            looking: tokio::sync::Mutex::default(),
            another: Notify::new(),
            ending: AtomicBool::new(false),
        })
    }

    /// The drive that is mounted.
    #[must_use]
    pub fn main(&self) -> &Arc<Vfs> {
        &self.main
    }

    /// Tells whether the drive that is mounted is none and only groups others.
    #[must_use]
    pub fn only_groups(&self) -> bool {
        self.groups
    }

    /// The engines of all drives that are being served.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<Engine>> {
        let main = Arc::clone(self.main.engine());
        std::iter::once(main)
            .chain(self.planted_engines())
            .collect()
    }

    /// Where to wait for something to happen in any drive.
    #[must_use]
    pub fn stir(&self) -> &Stir {
        self.main.engine().config.family.stir()
    }

    /// Tells whether somebody has to sign in again before anything is sent or fetched.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        let refused = |engine: &Arc<Engine>| engine.net.get() == Net::NeedsLogin;
        self.main.engine().graph.tokens().needs_login() || self.engines().iter().any(refused)
    }

    /// Tells whether an engine is one of those: one whose folder was cleared away is not any more.
    #[must_use]
    pub fn is_served(&self, engine: &Arc<Engine>) -> bool {
        self.engines().iter().any(|one| Arc::ptr_eq(one, engine))
    }

    /// Those of the drives that are shown in the one that is mounted.
    fn planted_engines(&self) -> Vec<Arc<Engine>> {
        let planted = self.planted.read();
        planted
            .values()
            .map(|vfs| Arc::clone(vfs.engine()))
            .collect()
    }

    /// Says who is told what the kernel must forget, and how it is made to look up every name anew.
    pub fn connect(self: &Arc<Self>, listener: Listener, forget_names: Forgetter) {
        let side = KernelSide {
            listener,
            forget_names,
        };
        // There is one kernel.
        let _first = self.kernel.set(side);
        self.connect_one(&self.main);
    }

    fn connect_one(self: &Arc<Self>, vfs: &Arc<Vfs>) {
        let Some(kernel) = self.kernel.get() else {
            return;
        };
        let listener = Arc::clone(&kernel.listener);
        let (forest, slot) = (Arc::downgrade(self), vfs.slot);
        vfs.set_kernel_listener(Box::new(move |mut announcement| {
            if let Some(forest) = forest.upgrade() {
                let changes = std::mem::take(&mut announcement.changes);
                announcement.changes = forest.as_shown(slot, changes);
            }
            listener(announcement);
        }));
        let forget_names = Arc::clone(&kernel.forget_names);
        vfs.set_names_forgetter(Box::new(move || forget_names()));
        if self.passthrough.load(Ordering::Acquire) {
            vfs.allow_passthrough();
        }
    }

    /// Says who is told of what a person should know, in any drive.
    pub fn set_event_teller(self: &Arc<Self>, teller: EventTeller) {
        // There is one desktop.
        let _first = self.events.set(teller);
        self.follow_events(&self.main);
        let planted: Vec<_> = self.planted.read().values().cloned().collect();
        for vfs in planted {
            self.follow_events(&vfs);
        }
    }

    fn follow_events(self: &Arc<Self>, vfs: &Arc<Vfs>) {
        let Some(teller) = self.events.get().cloned() else {
            return;
        };
        let (forest, slot) = (Arc::downgrade(self), vfs.slot);
        vfs.engine().set_event_listener(Box::new(move |event| {
            if let Some(forest) = forest.upgrade() {
                teller(forest.as_seen(slot, event));
            }
        }));
    }

    /// Says that the kernel can read files by itself.
    pub fn allow_passthrough(&self) {
        self.passthrough.store(true, Ordering::Release);
        self.main.allow_passthrough();
        for vfs in self.planted.read().values() {
            vfs.allow_passthrough();
        }
    }

    /// Changes in a slot, with the numbers by which the kernel knows what they are about.
    fn as_shown(&self, slot: u32, changes: Vec<KernelChange>) -> Vec<KernelChange> {
        let mut known = self.known.lock();
        if let Ok(slots) = self.main.store().read(|r| r.slots()) {
            let shown = slots
                .iter()
                .filter_map(|slot| Some((slot.ino?, slot.number)));
            known.extend(shown);
            // A shortcut in this slot may be gone, or lead elsewhere.
            let is_host = |one: &Slot| one.ino.is_some_and(|ino| split(ino).0 == slot);
            let concerns =
                |one: &Slot| one.state != SlotState::Followed || (slot != MAIN && is_host(one));
            if slots.iter().any(concerns) {
                self.wake.notify_one();
            }
        }
        let shown = |ino| match known.get(&number(slot, ino)) {
            Some(graft) => number(*graft, Ino::ROOT),
            None => number(slot, ino),
        };
        let shown = |change| match change {
            KernelChange::Entry { parent, name } => KernelChange::Entry {
                parent: number(slot, parent),
                name,
            },
            KernelChange::Attributes { ino } => KernelChange::Attributes { ino: shown(ino) },
            KernelChange::Content { ino } => KernelChange::Content { ino: shown(ino) },
            KernelChange::Deleted {
                parent,
                child,
                name,
            } => KernelChange::Deleted {
                parent: number(slot, parent),
                child: shown(child),
                name,
            },
        };
        changes.into_iter().map(shown).collect()
    }

    /// Where to do something with a thing itself. The root of a folder of another drive is, seen by
    /// itself, the shortcut that shows it: its name, times and attributes belong here.
    ///
    /// # Errors
    /// `NotFound` for what is not shown any more.
    pub fn about(&self, thing: Ino) -> Result<Spot, VfsError> {
        match split(thing) {
            (MAIN, ino) => Ok(self.spot_in_main(ino)),
            (slot, Ino::ROOT) => {
                let slot = self.main.store().read(|r| r.slot(slot))?;
                let shortcut = slot.and_then(|slot| slot.ino).ok_or(VfsError::NotFound)?;
                self.within_now(shortcut)
            }
            (slot, ino) => self.spot_in_slot(slot, ino),
        }
    }

    /// Where to do something with what is in a directory. A folder of another drive that is not
    /// served yet begins to be, which takes a moment on the local disk.
    ///
    /// # Errors
    /// `NotFound` for what is not shown any more; those of the local disk.
    pub fn within(self: &Arc<Self>, directory: Ino) -> Result<Outcome<Spot>, VfsError> {
        let (slot, ino) = split(directory);
        if slot == MAIN {
            return Ok(Outcome::Now(self.spot_in_main(ino)));
        }
        if let Ok(spot) = self.spot_in_slot(slot, ino) {
            return Ok(Outcome::Now(spot));
        }
        let forest = Arc::clone(self);
        let planting = self.main.runtime.spawn_blocking(move || forest.plant(slot));
        let pending: Pending<Spot> = Box::pin(async move {
            let vfs = planting.await.map_err(VfsError::io)??;
            Ok(Spot { vfs, ino })
        });
        Ok(Outcome::Later(pending))
    }

    /// The same, for what is done to a directory after it was looked into.
    ///
    /// # Errors
    /// `NotFound` for a folder that is not served.
    pub fn within_now(&self, directory: Ino) -> Result<Spot, VfsError> {
        match split(directory) {
            (MAIN, ino) => Ok(self.spot_in_main(ino)),
            (slot, ino) => self.spot_in_slot(slot, ino),
        }
    }

    fn spot_in_main(&self, ino: Ino) -> Spot {
        Spot {
            vfs: Arc::clone(&self.main),
            ino,
        }
    }

    fn spot_in_slot(&self, slot: u32, ino: Ino) -> Result<Spot, VfsError> {
        let vfs = self.planted.read().get(&slot).cloned();
        let vfs = vfs.ok_or(VfsError::NotFound)?;
        Ok(Spot { vfs, ino })
    }

    /// The edition that the path of something leads to.
    #[must_use]
    pub fn edition(&self, thing: Ino) -> Edition {
        let spot = self.about(thing);
        spot.map_or(0, |spot| spot.vfs.edition(spot.ino))
    }

    /// Serves the folder of a slot, from now on if it was not yet, and the one that its shortcut is
    /// in. Waits for the local disk.
    fn plant(self: &Arc<Self>, number: u32) -> Result<Arc<Vfs>, VfsError> {
        let slot = self.main.store().read(|r| r.slot(number))?;
        let shortcut = slot.and_then(|slot| slot.ino);
        let host = match shortcut.map(|shortcut| split(shortcut).0) {
            // Each is in one that has a lower number, or was there before it.
            Some(host) if host != MAIN && host != number => self.plant(host)?,
            _ => Arc::clone(&self.main),
        };
        self.plant_in(&host, number)
    }

    /// The same, in what serves the folder that its shortcut is in.
    fn plant_in(self: &Arc<Self>, host: &Arc<Vfs>, number: u32) -> Result<Arc<Vfs>, VfsError> {
        let _turn = self.turn.lock();
        if let Some(vfs) = self.planted.read().get(&number) {
            return Ok(Arc::clone(vfs));
        }
        let slot = self.main.store().read(|r| r.slot(number))?;
        let slot = slot.filter(|slot| slot.state != SlotState::Discarded);
        let (Some(slot), Some(nursery)) = (slot, &self.nursery) else {
            return Err(VfsError::NotFound);
        };
        if self.ending.load(Ordering::Acquire) {
            return Err(VfsError::Offline);
        }
        if self.is_being_cleared(&slot)? {
            // It was removed a moment ago, and what is left of it is not gone yet.
            self.wake.notify_one();
            return Err(VfsError::Busy);
        }
        let vfs = nursery.plant(&slot)?;
        kill_point("slot-planted");
        // It was made just now.
        let _first = vfs.lineage.set(self.lineage_in(host, &slot));
        self.connect_one(&vfs);
        self.follow_events(&vfs);
        self.planted.write().insert(number, Arc::clone(&vfs));
        self.idle.lock().remove(&number);
        self.another.notify_waiters();
        vfs.engine().start();
        tracing::info!(slot = number, drive = %slot.drive, "A folder of another drive is served.");
        Ok(vfs)
    }

    /// The lineage of a slot whose shortcut is in another one, or in the drive that is mounted.
    fn lineage_in(&self, host: &Vfs, slot: &Slot) -> Lineage {
        let above = host.lineage.get().map(|lineage| lineage.shown.clone());
        let mut shown = above.unwrap_or_default();
        let folder = Some(slot.item.clone()).filter(|item| !item.as_str().is_empty());
        shown.push((slot.drive.clone(), folder));
        Lineage {
            numbers: Arc::clone(&self.main.engine().store),
            above: slot.key(),
            shown,
        }
    }

    /// Tells whether the same folder was shown in another slot that is not cleared away yet.
    fn is_being_cleared(&self, slot: &Slot) -> Result<bool, VfsError> {
        let slots = self.main.store().read(|r| r.slots())?;
        Ok(slots
            .iter()
            .any(|other| other.state == SlotState::Discarded && other.key() == slot.key()))
    }

    /// Removes an empty directory, or a shortcut.
    ///
    /// A shortcut can be removed when what it shows is empty here, and also when it may not be
    /// changed. What it leads to stays as it is: deletions that were made in it a moment ago, as by
    /// `rm -r`, are not sent any more.
    ///
    /// # Errors
    /// As [`Vfs::rmdir`].
    pub fn rmdir(self: &Arc<Self>, parent: Ino, name: &OsStr) -> Result<Outcome<()>, VfsError> {
        let spot = self.within_now(parent)?;
        let Some(slot) = self.shown_at(&spot, name)? else {
            return spot.vfs.rmdir(spot.ino, name).map(Outcome::Now);
        };
        spot.vfs.check_writable()?;
        if self.groups && spot.vfs.slot == MAIN {
            return Err(VfsError::ReadOnly);
        }
        let (forest, name) = (Arc::clone(self), name.to_owned());
        let removing = self
            .main
            .runtime
            .spawn_blocking(move || forest.remove_shortcut(&spot, &name, slot));
        let pending: Pending<()> = Box::pin(async move { removing.await.map_err(VfsError::io)? });
        Ok(Outcome::Later(pending))
    }

    /// The slot that is shown under a name.
    fn shown_at(&self, spot: &Spot, name: &OsStr) -> Result<Option<u32>, VfsError> {
        let name = name.to_str().ok_or(VfsError::NotUtf8)?;
        let item = spot.vfs.store().read(|r| r.child(spot.ino, name))?;
        Ok(item.and_then(|item| spot.vfs.graft(&item)))
    }

    fn remove_shortcut(
        self: &Arc<Self>,
        spot: &Spot,
        name: &OsStr,
        slot: u32,
    ) -> Result<(), VfsError> {
        let shown = self.plant(slot)?;
        shown.engine().stop_sending();
        let removed = check_removable(&shown).and_then(|()| {
            if spot.vfs.slot != MAIN {
                // Given up before its shortcut goes: should this be cut short between the two, what
                // was deleted in it must not be sent, and the shortcut shows it anew.
                self.main.store().write(|tx| tx.discard_slot(slot))?;
            }
            spot.vfs.remove_shortcut(spot.ino, name)
        });
        match &removed {
            Ok(()) => {
                kill_point("shortcut-removed");
                self.wake.notify_one();
            }
            Err(_) => shown.engine().go_on_sending(),
        }
        removed
    }
}

/// Tells whether anything but deletions waits to be sent in a folder.
fn has_unsent(shown: &Vfs) -> Result<bool, VfsError> {
    let deletions_only = shown.store().read(|r| {
        let mut after = 0;
        loop {
            let rows = r.whole_journal_after(after, WINDOW)?;
            let Some(last) = rows.last() else {
                return Ok::<_, StoreError>(true);
            };
            after = last.seq;
            if !rows.iter().all(|row| row.ops.has(Ops::DELETE)) {
                return Ok(false);
            }
        }
    })?;
    Ok(!deletions_only)
}

/// Checks that a shortcut may be removed, going by what it shows.
fn check_removable(shown: &Vfs) -> Result<(), VfsError> {
    if has_unsent(shown)? {
        return Err(VfsError::NotEmpty);
    }
    let engine = shown.engine();
    if engine.is_denied() || engine.is_read_only() {
        return Ok(());
    }
    let root = shown.item(Ino::ROOT)?;
    if !root.children_known || shown.store().read(|r| r.has_children(Ino::ROOT))? {
        return Err(VfsError::NotEmpty);
    }
    Ok(())
}
