//! The file system: its options, its tables of open files and directories.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lru::LruCache;
use onedrivefs_content::{Body, Place};
use onedrivefs_core::{Ino, Timestamp, name};
use onedrivefs_store::{Item, Role, Store};
use onedrivefs_sync::{Engine, KernelChange, KernelListener};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle as Runtime;

use crate::dir::DirHandle;
use crate::edition::{Edition, Editions};
use crate::error::VfsError;
use crate::graft::{Lineage, MAIN};
use crate::handle::{Handle, OpenFile};
use crate::readahead::ReadAhead;
use crate::spelling::AbsentNames;
use crate::types::{OpenFlags, Opened, Outcome, Pending, StatFs, Under};
use crate::walk::Walk;

/// Files whose content version is remembered for the kernel's page cache.
const VERSIONS: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// Files of which is remembered that programs may have mapped them to write to.
const MAPPED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Unit of space figures, in bytes.
const BLOCK: u32 = 4096;

/// Space shown when the service does not tell: 1 TiB, so that programs do not refuse to write.
const UNKNOWN_TOTAL: u64 = 1 << 40;

/// Longest name the kernel can pass on, in bytes.
const NAME_MAX: u32 = 255;

/// Items there can still be; the service's limits are far away and not told.
const FREE_FILES: u64 = 1 << 30;

/// How a mount looks to programs.
#[derive(Clone, Copy, Debug)]
pub struct VfsOptions {
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Permission bits of files that no program set others for.
    pub file_mode: u32,
    /// Permission bits of directories that no program set others for.
    pub dir_mode: u32,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether symbolic links can be made.
    pub symlinks: bool,
}

impl VfsOptions {
    /// Everything belongs to the user who runs this process, and only to them.
    #[must_use]
    pub fn for_this_user() -> Self {
        Self {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            file_mode: 0o644,
            dir_mode: 0o755,
            read_only: false,
            symlinks: true,
        }
    }
}

/// Does what [`Vfs::forget_names`] tells.
pub type NamesForgetter = Box<dyn Fn() -> bool + Send + Sync>;

/// Looks for a name that a directory does not have, where there may be more than it lists. If it is
/// found it is in the directory afterwards; `None` says that there is no point in looking.
pub type Further = Box<dyn Fn(&Item, &str) -> Option<Pending<()>> + Send + Sync>;

/// The file system of one drive.
pub struct Vfs {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: VfsOptions,
    pub(crate) runtime: Runtime,
    pub(crate) files: Mutex<HashMap<Ino, Arc<OpenFile>>>,
    pub(crate) handles: RwLock<HashMap<u64, Arc<Handle>>>,
    pub(crate) dirs: RwLock<HashMap<u64, Arc<DirHandle>>>,
    pub(crate) walk: Walk,
    next_fh: AtomicU64,
    /// Content versions that the kernel may have pages of.
    versions: Mutex<LruCache<Ino, String>>,
    /// Whether the kernel can read files by itself.
    pub(crate) passthrough: AtomicBool,
    /// Files that were opened for reading and writing at once.
    pub(crate) mapped: Mutex<LruCache<Ino, ()>>,
    /// Names that the kernel may remember as absent.
    pub(crate) absent: AbsentNames,
    forget_names: OnceLock<NamesForgetter>,
    pub(crate) further: OnceLock<Further>,
    pub(crate) editions: Editions,
    /// Its number among those that one mount shows; zero for the one that has the others in it.
    pub(crate) slot: u32,
    /// Where it is among them, once it is one of them.
    pub(crate) lineage: OnceLock<Lineage>,
}

impl Vfs {
    /// Puts a file system over an engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, options: VfsOptions, runtime: Runtime) -> Arc<Self> {
        Self::in_slot(MAIN, engine, options, runtime)
    }

    /// The same for one that is shown inside of another, under this number.
    #[must_use]
    pub fn in_slot(
        slot: u32,
        engine: Arc<Engine>,
        options: VfsOptions,
        runtime: Runtime,
    ) -> Arc<Self> {
        let vfs = Arc::new(Self {
            engine,
            options,
            runtime,
            files: Mutex::default(),
            handles: RwLock::default(),
            dirs: RwLock::default(),
            walk: Walk::default(),
            next_fh: AtomicU64::new(1),
            versions: Mutex::new(LruCache::sparse(VERSIONS)),
            passthrough: AtomicBool::new(false),
            mapped: Mutex::new(LruCache::sparse(MAPPED)),
            absent: AbsentNames::new(),
            forget_names: OnceLock::new(),
            further: OnceLock::new(),
            editions: Editions::default(),
            slot,
            lineage: OnceLock::new(),
        });
        let own = Arc::downgrade(&vfs);
        vfs.engine.set_open_files(Box::new(move |ino| {
            own.upgrade().is_some_and(|vfs| vfs.is_open(ino))
        }));
        vfs
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The runtime on which pending outcomes run.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Says who is told what the kernel must forget. Open files learn of it first.
    pub fn set_kernel_listener(self: &Arc<Self>, listener: KernelListener) {
        let vfs = Arc::downgrade(self);
        self.engine
            .set_kernel_listener(Box::new(move |mut announcement| {
                if let Some(vfs) = vfs.upgrade() {
                    let changes = std::mem::take(&mut announcement.changes);
                    announcement.changes = vfs.learn(changes);
                }
                listener(announcement);
            }));
        let vfs = Arc::downgrade(self);
        self.engine.set_foreseer(Box::new(move |changes| {
            if let Some(vfs) = vfs.upgrade() {
                vfs.absent.note_all_told(changes);
            }
        }));
    }

    /// Says how the kernel is made to look up every name anew.
    pub fn set_names_forgetter(&self, forgetter: NamesForgetter) {
        // Only the first one counts; there is one kernel.
        let _first = self.forget_names.set(forgetter);
    }

    /// Says who looks for names that a directory does not have.
    pub fn set_further(&self, further: Further) {
        // Only the first one counts.
        let _first = self.further.set(further);
    }

    /// Makes the kernel look up every name anew, without waiting for anything. Tells whether it
    /// could; it knows names as they are from then on.
    #[must_use]
    pub fn forget_names(&self) -> bool {
        self.forget_names.get().is_some_and(|forget| forget())
    }

    /// Learns of changes, and returns what the kernel must be told of them.
    fn learn(&self, changes: Vec<KernelChange>) -> Vec<KernelChange> {
        let mut told = Vec::with_capacity(changes.len());
        let mut others = Vec::new();
        for change in changes {
            if let KernelChange::Content { ino } = &change {
                // The kernel forgets in its own time; an open that comes before that must not keep
                // pages, which may be of this very version and wrong all the same.
                self.versions.lock().pop(ino);
            }
            match change {
                KernelChange::Content { ino } if self.is_pinned(ino) => {
                    told.extend(self.begin_edition(ino));
                }
                KernelChange::Content { ino } => {
                    told.push(KernelChange::Content { ino });
                    // A lookup that is under way may bring the old attributes of a file that the
                    // kernel does not know yet. Forgetting the name waits for it.
                    told.extend(self.entry_change(ino));
                    told.push(KernelChange::Attributes { ino });
                }
                KernelChange::Entry { parent, name } => {
                    others.extend(self.absent.take_others(parent, &name));
                    self.absent.note_told(parent, &name);
                    told.push(KernelChange::Entry { parent, name });
                }
                change => told.push(change),
            }
        }
        told.extend(others);
        told
    }

    /// A name came into being through the kernel itself, which knows this spelling of it only.
    pub(crate) fn forget_other_spellings(&self, parent: Ino, name: &str) {
        self.forget_entries(self.absent.take_others(parent, name));
    }

    /// An entry was taken away under the spelling that was asked for: the kernel may remember it
    /// under the one it had.
    pub(crate) fn forget_stored_spelling(&self, parent: Ino, asked: &str, stored: String) {
        if asked != stored {
            self.forget_entry(parent, stored);
        }
    }

    /// An entry was put under the spelling that was asked for, as far as the kernel can tell, but
    /// has another one.
    pub(crate) fn forget_asked_spelling(&self, parent: Ino, asked: &str, stored: &str) {
        if asked != stored {
            self.forget_entry(parent, asked.to_owned());
        }
    }

    fn forget_entry(&self, parent: Ino, name: String) {
        self.forget_entries(vec![KernelChange::Entry { parent, name }]);
    }

    /// Makes the kernel forget names during a request that it waits for: all names at once where it
    /// can do that without a lock, otherwise these a moment after the answer.
    pub(crate) fn forget_entries(&self, entries: Vec<KernelChange>) {
        if entries.is_empty() || self.forget_names() {
            return;
        }
        let engine = Arc::clone(&self.engine);
        self.runtime
            .spawn_blocking(move || engine.tell_kernel(entries));
    }

    pub(crate) fn store(&self) -> &Store {
        &self.engine.store
    }

    pub(crate) fn next_fh(&self) -> u64 {
        self.next_fh.fetch_add(1, Ordering::Relaxed)
    }

    /// The row of an inode.
    pub(crate) fn item(&self, ino: Ino) -> Result<Arc<Item>, VfsError> {
        self.store().item(ino)?.ok_or(VfsError::NotFound)
    }

    /// A directory.
    pub(crate) fn directory(&self, ino: Ino) -> Result<Arc<Item>, VfsError> {
        let item = self.item(ino)?;
        if item.is_dir() {
            Ok(item)
        } else {
            Err(VfsError::NotDirectory)
        }
    }

    /// A directory in which entries can be made and removed.
    pub(crate) fn writable_directory(&self, ino: Ino) -> Result<Arc<Item>, VfsError> {
        self.check_writable()?;
        let item = self.directory(ino)?;
        if item.role != Role::Ordinary {
            return Err(VfsError::AccessDenied);
        }
        if item.parent.is_none() && ino != Ino::ROOT {
            return Err(VfsError::NotFound);
        }
        Ok(item)
    }

    pub(crate) fn check_writable(&self) -> Result<(), VfsError> {
        if self.options.read_only || self.engine.is_read_only() {
            Err(VfsError::ReadOnly)
        } else {
            Ok(())
        }
    }

    /// A name for a new entry.
    pub(crate) fn new_name<'n>(&self, name: &'n OsStr) -> Result<&'n str, VfsError> {
        let name = name.to_str().ok_or(VfsError::NotUtf8)?;
        name::check_local(name)?;
        let refused = self.engine.config.reject_names && name::encode(name) != name;
        // What is never sent needs no name that the service takes.
        if refused && !self.engine.config.local_only.matches(name) {
            return Err(VfsError::InvalidName);
        }
        Ok(name)
    }

    /// The handle that the kernel names.
    pub(crate) fn handle(&self, fh: u64) -> Result<Arc<Handle>, VfsError> {
        self.handles
            .read()
            .get(&fh)
            .cloned()
            .ok_or(VfsError::BadHandle)
    }

    /// The open file of an inode, if there is one.
    pub(crate) fn open_file(&self, ino: Ino) -> Option<Arc<OpenFile>> {
        self.files.lock().get(&ino).cloned()
    }

    /// Tells whether somebody has any file open.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.files.lock().is_empty()
    }

    /// Tells whether somebody has a file open.
    #[must_use]
    pub fn is_open(&self, ino: Ino) -> bool {
        self.open_file(ino).is_some()
    }

    /// Tells whether what was written to an open file has not been saved yet.
    #[must_use]
    pub fn is_written(&self, fh: u64) -> bool {
        let handle = self.handle(fh);
        handle.is_ok_and(|handle| handle.flags.write && handle.file.state.lock().dirty)
    }

    /// The open file of an item, made if need be, with one more handle counted.
    pub(crate) fn acquire(&self, item: &Item) -> Arc<OpenFile> {
        let mut files = self.files.lock();
        let file = files
            .entry(item.ino)
            .or_insert_with(|| Arc::new(OpenFile::new(item.clone())));
        file.handles.fetch_add(1, Ordering::Relaxed);
        Arc::clone(file)
    }

    /// Counts the first handle of a file that is made by the transaction under way: nobody else can
    /// know of it yet.
    pub(crate) fn acquire_new(&self, item: &Item, body: Arc<Body>) -> Arc<OpenFile> {
        let file = Arc::new(OpenFile::with_body(item.clone(), body));
        file.handles.store(1, Ordering::Relaxed);
        self.files.lock().insert(item.ino, Arc::clone(&file));
        file
    }

    /// Counts one handle less. Tells whether it was the last one.
    pub(crate) fn give_back(&self, file: &Arc<OpenFile>) -> bool {
        let mut files = self.files.lock();
        let last = file.handles.fetch_sub(1, Ordering::Relaxed) == 1;
        if last
            && files
                .get(&file.ino)
                .is_some_and(|current| Arc::ptr_eq(current, file))
        {
            files.remove(&file.ino);
        }
        last
    }

    /// Registers a handle on a file that was acquired for it.
    pub(crate) fn add_handle(&self, file: Arc<OpenFile>, flags: OpenFlags) -> (u64, Arc<Handle>) {
        let fh = self.next_fh();
        if flags.write {
            self.engine.writer_opened(file.ino);
        }
        if flags.execute {
            file.state.lock().executed += 1;
        }
        let handle = Arc::new(Handle {
            file,
            flags,
            has_read: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            lent: AtomicBool::new(false),
            ahead: ReadAhead::default(),
        });
        self.handles.write().insert(fh, Arc::clone(&handle));
        (fh, handle)
    }

    /// Opens a file. Never downloads, also not to throw the content away. Waits only while the
    /// kernel is being told that the content was replaced.
    ///
    /// # Errors
    /// `IsDirectory`, `ReadOnly`, `AccessDenied` for content the service withholds; `Stale` for
    /// another edition than the present one.
    pub fn open(
        self: &Arc<Self>,
        ino: Ino,
        edition: Option<Edition>,
        flags: OpenFlags,
    ) -> Result<Outcome<Opened>, VfsError> {
        if let Some(opened) = self.open_if_announced(ino, edition, flags)? {
            return Ok(Outcome::Now(opened));
        }
        let vfs = Arc::clone(self);
        Ok(Outcome::Later(Box::pin(async move {
            loop {
                vfs.engine.known(ino).await;
                // Its path leads elsewhere by now, and the kernel follows it again.
                vfs.check_edition(ino, edition)?;
                if let Some(opened) = vfs.open_if_announced(ino, edition, flags)? {
                    return Ok(opened);
                }
            }
        })))
    }

    /// Opens a file, unless the kernel is being told of new content of it.
    fn open_if_announced(
        self: &Arc<Self>,
        ino: Ino,
        edition: Option<Edition>,
        flags: OpenFlags,
    ) -> Result<Option<Opened>, VfsError> {
        let under = match edition {
            Some(_) => Under::OwnName,
            None => Under::OtherSpelling,
        };
        let file = self.acquire(&*self.openable(ino, flags)?);
        let pinned = self.pin(&file);
        if let Err(other) = self.check_edition(ino, edition) {
            self.give_back(&file);
            let past = edition.filter(|_| !flags.write);
            if past.is_some() && self.engine.is_unknown(ino) {
                return Ok(None);
            }
            return match past.and_then(|edition| self.acquire_past(ino, edition)) {
                Some(past) => self.open_acquired(past, flags, under, true).map(Some),
                None => Err(other),
            };
        }
        let Some(keep_cache) = pinned else {
            self.give_back(&file);
            return Ok(None);
        };
        self.open_acquired(file, flags, under, keep_cache).map(Some)
    }

    /// Opens a file whose size goes to the kernel with the answer.
    pub(crate) fn open_now(
        self: &Arc<Self>,
        ino: Ino,
        flags: OpenFlags,
    ) -> Result<Opened, VfsError> {
        loop {
            let file = self.acquire(&*self.openable(ino, flags)?);
            let keep_cache = self.pin(&file).unwrap_or(false);
            match self.open_acquired(file, flags, Under::OwnName, keep_cache) {
                // Replaced at this very moment: the next edition is there to be opened.
                Err(VfsError::Stale) => {}
                opened => return opened,
            }
        }
    }

    /// A file that may be opened in this way.
    fn openable(&self, ino: Ino, flags: OpenFlags) -> Result<Arc<Item>, VfsError> {
        if flags.write {
            self.check_writable()?;
        }
        let item = self.item(ino)?;
        if item.is_dir() {
            return Err(VfsError::IsDirectory);
        }
        if flags.write {
            self.check_changing(&item)?;
        }
        if item.parent.is_none() && !self.is_open(ino) {
            // Unlinked under another spelling, and the kernel has not heard of that yet. Told that
            // its entry is stale it looks the name up again; what is written here would be lost.
            return Err(VfsError::Stale);
        }
        if item.role != Role::Ordinary {
            return Err(VfsError::AccessDenied);
        }
        Ok(item)
    }

    /// Takes hold of what is here of a file that was just acquired, so that its handles go on with
    /// it whatever happens to the file. Tells whether the kernel may keep its pages; `None` when
    /// the content is being replaced.
    fn pin(&self, file: &OpenFile) -> Option<bool> {
        let mut state = file.state.lock();
        // Read only now: what replaces the content from here on finds the file among the open ones.
        let item = self.store().item(file.ino).ok()??;
        if self.engine.is_unknown(file.ino) {
            return None;
        }
        if state.body.is_none() && !file.used.load(Ordering::Relaxed) {
            state.item = (*item).clone();
        }
        if state.body.is_none()
            && item.body.is_some()
            && let Err(error) = self.attach_body(&mut state, file)
        {
            tracing::debug!(ino = %file.ino, %error, "A body could not be opened yet.");
        }
        let keep_cache = !state.stale && self.is_version_cached(&item);
        if keep_cache {
            // The kernel has pages, which programs see without asking.
            file.used.store(true, Ordering::Relaxed);
        } else {
            self.note_version_cached(&item);
        }
        Some(keep_cache)
    }

    /// Makes a handle of a file that was acquired for it.
    fn open_acquired(
        self: &Arc<Self>,
        file: Arc<OpenFile>,
        flags: OpenFlags,
        under: Under,
        keep_cache: bool,
    ) -> Result<Opened, VfsError> {
        let ino = file.ino;
        let (fh, handle) = self.add_handle(Arc::clone(&file), flags);
        let ready = {
            let mut state = file.state.lock();
            let backing = match under {
                // Its memory would be taken from under it, and the caller told that it was not.
                _ if flags.blind && state.executed > 0 => Err(VfsError::Executed),
                Under::OwnName => self.choose_way(&mut state, &handle),
                Under::OtherSpelling => Ok(None),
            };
            backing.and_then(|backing| {
                if flags.truncate {
                    self.truncate(&mut state, &file, 0)?;
                }
                Ok(backing)
            })
        };
        match ready {
            Ok(backing) => Ok(Opened {
                fh,
                keep_cache: keep_cache && backing.is_none(),
                direct_io: backing.is_some() && flags.write,
                kernel_writes: flags.only_overwrites() && handle.lent.load(Ordering::Relaxed),
                backing,
            }),
            Err(error) => {
                self.release(ino, fh);
                Err(error)
            }
        }
    }

    /// Notes that the kernel's pages of a file are of no known version.
    pub(crate) fn forget_version(&self, ino: Ino) {
        self.versions.lock().pop(&ino);
    }

    /// Tells whether the kernel's pages of a file are of its present version.
    fn is_version_cached(&self, item: &Item) -> bool {
        let version = content_version(item);
        version.is_some() && self.versions.lock().get(&item.ino).map(String::as_str) == version
    }

    /// Notes that the kernel's pages of a file are of this version from now on.
    fn note_version_cached(&self, item: &Item) {
        if let Some(version) = content_version(item) {
            self.versions.lock().put(item.ino, version.to_owned());
        }
    }

    /// Space and limits, from memory.
    #[must_use]
    pub fn statfs(&self) -> StatFs {
        let (total, free) = self.space();
        StatFs {
            total_bytes: total,
            free_bytes: free,
            files: 0,
            free_files: FREE_FILES,
            block_size: BLOCK,
            name_max: NAME_MAX,
        }
    }

    /// All space of the drive and what is free of it, less what waits to be uploaded.
    pub(crate) fn space(&self) -> (u64, u64) {
        let waiting = self.engine.pending_bytes();
        match self.engine.quota() {
            Some(quota) => {
                let used = quota.used.saturating_add(waiting).min(quota.total);
                (quota.total, quota.total - used)
            }
            None => (UNKNOWN_TOTAL, UNKNOWN_TOTAL.saturating_sub(waiting)),
        }
    }

    /// Bytes free on the disk of the spool.
    pub(crate) fn disk_free(&self) -> u64 {
        self.engine
            .bodies
            .content()
            .free_bytes(Place::Spool)
            .unwrap_or(u64::MAX)
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::now()
    }
}

/// What tells one content of a file from another; `None` when the service does not say.
pub(crate) fn content_version(item: &Item) -> Option<&str> {
    let Some(remote) = &item.remote else {
        return Some("");
    };
    let ctag = remote.ctag.as_ref().map(|tag| tag.as_str());
    ctag.or_else(|| remote.etag.as_ref().map(|tag| tag.as_str()))
}
