//! Connections and transactions.
//!
//! Commits are durable against `kill -9` at once (WAL, the kernel holds the pages) and against
//! power loss after [`Store::sync`], which `fsync(2)` asks for. What a power cut leaves is always
//! the database after some commit that is not before the last sync: the log is checked frame by
//! frame when it is read again, and SQLite syncs it before anything of it reaches the database file.
//! Whoever does something that cannot be undone because of a commit syncs it first: sends a request,
//! removes a file.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lru::LruCache;
use onedrivefs_core::{Ino, kill_point};
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, InterruptHandle, OpenFlags};

use crate::checkpoint::Checkpoints;
use crate::watch::Watch;
use crate::{Item, StoreError, files, schema};

/// Hot inodes kept decoded in memory. At about 500 bytes each this is 8 MB when full.
const HOT_INODES: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();

/// Prepared statements kept per connection; more than the number of distinct statements here.
const STATEMENTS: usize = 128;

/// How long a connection waits for another process that looks into the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages that a connection keeps, in KiB: the inner pages of a database of a million items. Mapping
/// the file instead would make all of it count as memory of this process, once for each connection.
const CACHE_KIB: i64 = 4096;

/// Commits that change at most this many rows leave them in memory.
pub(crate) const KEPT_OF_A_COMMIT: usize = 16;

/// What a transaction changed, in order, with the rows as they became where that is known.
type Touched = Vec<(Ino, Option<Arc<Item>>)>;

/// Who is told which inodes a commit changed.
type ChangeListener = Box<dyn Fn(&[Ino]) + Send + Sync>;

/// The metadata database. Shared by all threads.
pub struct Store {
    path: PathBuf,
    /// The directory of the database, for questions about its file system.
    dir: Arc<Path>,
    /// Declared before the writer: its connection is closed first.
    checkpoints: Checkpoints,
    writer: Mutex<Connection>,
    readers: Mutex<Readers>,
    /// How many times a commit has begun or ended.
    state: AtomicU64,
    hot: Mutex<Hot>,
    /// The log, whose name SQLite fixes. It is there for as long as a connection is open.
    log: File,
    /// How many commits are on stable storage. Held while more of them are put there.
    synced: Mutex<u64>,
    /// A value of the key-value table that the next commit writes along.
    with_next: Mutex<Option<(&'static str, String)>>,
    /// Set for good by the first sign of damage.
    damaged: AtomicBool,
    on_damage: OnceLock<Box<dyn Fn() + Send + Sync>>,
    on_change: OnceLock<ChangeListener>,
    /// Ends a check that is under way.
    check: Mutex<Option<InterruptHandle>>,
    unclean: bool,
}

/// The cache of hot inodes with the counter that keeps stale rows out of it.
struct Hot {
    items: LruCache<Ino, Arc<Item>>,
    /// Raised when a commit begins, and again when it has ended, together with `Store::state`, which is
    /// read without this lock. A row that was read before a commit must not enter the cache after it.
    /// Nor may one while a commit is under way, when the count is odd: some read the state before it and
    /// some the state after it, and whoever has seen a new row must not be given the old one from memory.
    commits: u64,
}

impl Hot {
    /// Tells whether a row that was read when the count was `commits` may be kept.
    fn may_keep(&self, commits: u64) -> bool {
        self.commits == commits && commits.is_multiple_of(2)
    }
}

/// A commit that is under way, for as long as it lives.
struct CommitMark<'s> {
    hot: &'s Mutex<Hot>,
    state: &'s AtomicU64,
}

impl<'s> CommitMark<'s> {
    /// Forgets the rows that the commit changes.
    fn begin(hot: &'s Mutex<Hot>, state: &'s AtomicU64, changed: &Touched) -> Self {
        let mut cache = hot.lock();
        cache.commits += 1;
        state.store(cache.commits, Ordering::Release);
        for (ino, _) in changed {
            cache.items.pop(ino);
        }
        drop(cache);
        Self { hot, state }
    }

    /// Keeps what the commit made of the rows. What a program changed it asks for next; a round of
    /// changes from the service would only push out what programs use.
    fn keep(&self, changed: &Touched) {
        if changed.len() > KEPT_OF_A_COMMIT {
            return;
        }
        let mut cache = self.hot.lock();
        // The last one counts of several of one inode.
        for (ino, item) in changed {
            match item {
                Some(item) => drop(cache.items.put(*ino, Arc::clone(item))),
                None => drop(cache.items.pop(ino)),
            }
        }
    }
}

impl Drop for CommitMark<'_> {
    fn drop(&mut self) {
        let mut cache = self.hot.lock();
        cache.commits += 1;
        self.state.store(cache.commits, Ordering::Release);
    }
}

/// The connections that nobody reads with at the moment.
struct Readers {
    idle: Vec<Snapshots>,
    /// Whether read transactions stay open between two reads.
    keep_snapshots: bool,
}

impl Readers {
    /// Ends the read transactions that were left open: while there is one, the log cannot be written
    /// from its beginning.
    fn end_snapshots(&mut self) {
        self.idle.iter_mut().for_each(Snapshots::end);
    }
}

/// A connection that reads, by one transaction after another. To begin and end one takes longer than
/// to look up a row, so the last one stays open, and is gone on with while nothing was committed.
struct Snapshots {
    conn: Connection,
    /// The state that is read by the transaction that is open.
    open: Option<u64>,
}

impl Snapshots {
    /// Begins a transaction, or goes on with the one that is open if it reads this state. Statements
    /// are kept by the connection: most of them read one row, and parsing them anew would take as long
    /// as that.
    fn begin(&mut self, state: u64) -> rusqlite::Result<()> {
        if self.open == Some(state) && !self.conn.is_autocommit() {
            return Ok(());
        }
        self.end();
        self.conn.prepare_cached("BEGIN DEFERRED")?.execute(())?;
        // While a commit is under way it may be read or not. SQLite looks when it reads first.
        self.open = state.is_multiple_of(2).then_some(state);
        Ok(())
    }

    /// Ends the transaction that is open, if there is one.
    fn end(&mut self) {
        self.open = None;
        // SQLite ends a transaction by itself when it meets certain errors.
        if self.conn.is_autocommit() {
            return;
        }
        let ended = self.conn.prepare_cached("ROLLBACK");
        if let Err(error) = ended.and_then(|mut statement| statement.execute(())) {
            tracing::warn!(%error, "A read of the metadata database did not end.");
        }
    }
}

/// A transaction that writes, with statements that are kept. What is not committed never was.
struct Transaction<'c> {
    conn: &'c Connection,
}

impl<'c> Transaction<'c> {
    fn begin(conn: &'c Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
        Ok(Self { conn })
    }

    fn commit(self) -> rusqlite::Result<()> {
        self.conn.prepare_cached("COMMIT")?.execute(())?;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // A commit ended it, or an error did.
        if self.conn.is_autocommit() {
            return;
        }
        if let Err(error) = self.conn.execute_batch("ROLLBACK") {
            tracing::warn!(%error, "A change of the metadata database was not rolled back.");
        }
    }
}

/// Read access to one consistent state.
pub struct Reader<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) blank: Blanks,
}

/// Tables that have no rows most of the time, and are asked about every item of a drive of a million.
#[derive(Default)]
pub(crate) struct Blanks {
    pub(crate) stage: Blank,
    pub(crate) deferred: Blank,
    pub(crate) unanswered: Blank,
}

/// Whether a table is known to have no rows, in the state that is read.
#[derive(Default)]
pub(crate) struct Blank(Cell<Option<bool>>);

impl Blank {
    /// Tells whether the table has no rows. `any` asks for one.
    pub(crate) fn is_so(&self, conn: &Connection, any: &str) -> Result<bool, StoreError> {
        if let Some(known) = self.0.get() {
            return Ok(known);
        }
        let blank = !conn.prepare_cached(any)?.exists(())?;
        self.0.set(Some(blank));
        Ok(blank)
    }

    /// Notes that rows are put into the table.
    pub(crate) fn end(&self) {
        self.0.set(Some(false));
    }
}

impl<'c> Reader<'c> {
    fn new(conn: &'c Connection) -> Self {
        Self {
            conn,
            blank: Blanks::default(),
        }
    }
}

/// A write transaction. Everything a [`Reader`] can do, and changes.
pub struct Tx<'c> {
    reader: Reader<'c>,
    pub(crate) touched: RefCell<Touched>,
}

impl<'c> Deref for Tx<'c> {
    type Target = Reader<'c>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

impl Store {
    /// Opens the database, creating or upgrading it.
    ///
    /// # Errors
    /// `TooNew` for a database of a later version, which is left as it is; errors that
    /// [`StoreError::is_damage`] knows for one that cannot be used; SQLite's errors otherwise.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, true)
    }

    /// Opens a database that must be there, because something is there that only it explains.
    ///
    /// # Errors
    /// `Lost` when it is missing or empty; otherwise as [`Store::open`].
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, may_create: bool) -> Result<Self, StoreError> {
        let _watch = Watch::begin(&directory(path));
        files::check(path)?;
        if !may_create && files::is_blank(path) {
            // Before SQLite looks at it: it removes the log of an empty database.
            return Err(StoreError::Lost);
        }
        let unclean = files::has_log(path);
        // SQLite gives the files it makes beside the database the mode of the database. A file
        // that cannot be made is reported by SQLite in its own words.
        drop(
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path),
        );
        let mut conn = Connection::open(path)?;
        // Files that turn out not to be usable stay as they were found.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        configure(&conn)?;
        let found = schema::version(&conn, path)?;
        if found == 0 && !may_create {
            return Err(StoreError::Lost);
        }
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        schema::migrate(&mut conn, found)?;
        schema::check(&conn)?;
        Checkpoints::take_over(&conn);
        let log = open_log(&conn, path)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(Self {
            path: path.to_owned(),
            dir: directory(path),
            checkpoints: Checkpoints::default(),
            writer: Mutex::new(conn),
            readers: Mutex::new(Readers {
                idle: Vec::new(),
                keep_snapshots: true,
            }),
            state: AtomicU64::new(0),
            hot: Mutex::new(Hot {
                items: LruCache::sparse(HOT_INODES),
                commits: 0,
            }),
            log,
            synced: Mutex::new(0),
            with_next: Mutex::default(),
            damaged: AtomicBool::new(false),
            on_damage: OnceLock::new(),
            on_change: OnceLock::new(),
            check: Mutex::default(),
            unclean,
        })
    }

    /// Tells whether the database was not closed in order the last time.
    #[must_use]
    pub fn was_unclean(&self) -> bool {
        self.unclean
    }

    /// Says who is told when the database turns out to be damaged. From then on nothing is read
    /// from it and nothing is written.
    pub fn set_on_damage(&self, told: impl Fn() + Send + Sync + 'static) {
        // Only the first one counts; there is one owner.
        let _taken = self.on_damage.set(Box::new(told));
    }

    /// Says who is told after every commit which inodes it changed. They are told with the writers'
    /// lock held: they return at once and ask the database nothing.
    pub fn set_on_change(&self, told: impl Fn(&[Ino]) + Send + Sync + 'static) {
        // Only the first one counts; there is one owner.
        let _taken = self.on_change.set(Box::new(told));
    }

    /// Looks through the whole database for damage. Takes seconds for a million items; programs do
    /// not wait for it. Ends early without a result when the database is being closed.
    ///
    /// # Errors
    /// `Damaged`; SQLite's errors when it could not be looked through.
    pub fn check(&self) -> Result<(), StoreError> {
        let watch = Watch::begin(&self.dir);
        let conn = self.open_reader()?;
        *self.check.lock() = Some(conn.get_interrupt_handle());
        let found = conn.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
        *self.check.lock() = None;
        match found.map_err(StoreError::from) {
            Ok(text) if text == "ok" => Ok(()),
            Ok(text) => Err(self.condemn(text)),
            Err(error) => Err(self.judge(&watch).err().unwrap_or(error)),
        }
    }

    /// Notes that the database is damaged, for this process and, if the disk lets us, for the
    /// next.
    fn condemn(&self, reason: String) -> StoreError {
        if !self.damaged.swap(true, Ordering::AcqRel) {
            tracing::error!(reason, "The metadata database is damaged.");
            files::mark_damaged(&self.path, &reason);
            if let Some(told) = self.on_damage.get() {
                told();
            }
        }
        StoreError::Damaged { reason }
    }

    /// Condemns the database if damage showed meanwhile.
    fn judge(&self, watch: &Watch) -> Result<(), StoreError> {
        match watch.damage() {
            Some(reason) => Err(self.condemn(reason)),
            None => Ok(()),
        }
    }

    /// Nothing is asked of a damaged database: its answers would be guesses.
    fn check_sound(&self) -> Result<(), StoreError> {
        if self.damaged.load(Ordering::Acquire) {
            return Err(StoreError::Damaged {
                reason: "it was found earlier".to_owned(),
            });
        }
        Ok(())
    }

    /// Runs `f` on a consistent view of the database.
    ///
    /// # Errors
    /// What `f` returns, and SQLite's errors.
    pub fn read<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&Reader<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check_sound()?;
        let watch = Watch::begin(&self.dir);
        let pooled = self.readers.lock().idle.pop();
        let mut reader = match pooled {
            Some(reader) => reader,
            None => Snapshots {
                conn: self.open_reader()?,
                open: None,
            },
        };
        let result = match reader.begin(self.state.load(Ordering::Acquire)) {
            Ok(()) => f(&Reader::new(&reader.conn)),
            Err(error) => Err(StoreError::from(error).into()),
        };
        if result.is_err() || reader.open.is_none() {
            reader.end();
        }
        let mut readers = self.readers.lock();
        if !readers.keep_snapshots {
            reader.end();
        }
        readers.idle.push(reader);
        drop(readers);
        self.judge(&watch)?;
        result
    }

    /// Waits until the transaction that is under way, if any, has ended. Whoever marks something in
    /// memory that transactions look at reads the database only after this: a transaction that
    /// missed the mark is in it then.
    pub fn wait_for_writer(&self) {
        drop(self.writer.lock());
    }

    /// Runs `f` in a write transaction and commits it when `f` succeeds; otherwise nothing of it
    /// remains. Must not be nested and must not wait for the network.
    ///
    /// # Errors
    /// What `f` returns, and SQLite's errors.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let conn = self.writer.lock();
        // Asked with the lock held: whoever waited for it must not write after damage was found.
        self.check_sound()?;
        let watch = Watch::begin(&self.dir);
        self.readers.lock().end_snapshots();
        let written = self.commit(&conn, &watch, f);
        self.judge(&watch)?;
        let (result, touched) = written?;
        self.readers.lock().end_snapshots();
        self.checkpoints.after_commit(&conn, &self.path);
        if let Some(told) = self.on_change.get() {
            let inos: Vec<Ino> = touched.iter().map(|(ino, _)| *ino).collect();
            told(&inos);
        }
        Ok(result)
    }

    /// Runs `f` in a transaction. Nothing is committed once damage showed, even if `f` overlooked it.
    #[cfg_attr(debug_assertions, track_caller)]
    fn commit<T, E: From<StoreError>>(
        &self,
        conn: &Connection,
        watch: &Watch,
        f: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Touched), E> {
        let tx = Transaction::begin(conn).map_err(StoreError::from)?;
        let scope = Tx {
            reader: Reader::new(tx.conn),
            touched: RefCell::default(),
        };
        if let Some((key, value)) = self.with_next.lock().as_ref() {
            scope.set_meta(key, Some(value))?;
        }
        let result = f(&scope)?;
        let touched = scope.touched.into_inner();
        if let Some(reason) = watch.damage() {
            return Err(StoreError::Damaged { reason }.into());
        }
        debug_assert!(
            are_stored(&Reader::new(tx.conn), &touched),
            "a row that is kept is the one that is stored"
        );
        kill_point("before-commit");
        let mark = CommitMark::begin(&self.hot, &self.state, &touched);
        tx.commit().map_err(StoreError::from)?;
        mark.keep(&touched);
        drop(mark);
        kill_point("after-commit");
        // Nobody else has the connection: it was this commit that wrote it. Whatever follows is to
        // find it, also after a power cut.
        if self.with_next.lock().take().is_some()
            && let Err(error) = self.log.sync_data()
        {
            tracing::warn!(%error, "The metadata database could not be put on disk.");
        }
        Ok((result, touched))
    }

    /// Sets a value of the key-value table together with whatever is committed next, which is put on
    /// stable storage at once. So it is there before anything that depends on it, and nothing is
    /// written before.
    pub fn set_meta_with_next_commit(&self, key: &'static str, value: String) {
        let _nobody_commits = self.writer.lock();
        *self.with_next.lock() = Some((key, value));
    }

    /// Makes every commit so far survive a power cut. Transactions go on meanwhile, and those who
    /// ask at the same time share one sync.
    ///
    /// # Errors
    /// `Sync`.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.check_sound()?;
        let wanted = self.hot.lock().commits;
        let mut synced = self.synced.lock();
        if *synced >= wanted {
            return Ok(());
        }
        let covered = self.hot.lock().commits;
        self.log.sync_data().map_err(StoreError::Sync)?;
        *synced = covered;
        kill_point("database-synced");
        Ok(())
    }

    /// Moves the log into the database file; for a clean stop.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        if let Some(check) = self.check.lock().as_ref() {
            check.interrupt();
        }
        let conn = self.writer.lock();
        self.checkpoints.stop();
        self.check_sound()?;
        kill_point("before-checkpoint");
        let mut readers = self.readers.lock();
        readers.keep_snapshots = false;
        readers.end_snapshots();
        drop(readers);
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?;
        kill_point("after-checkpoint");
        Ok(())
    }

    /// Which state of the database is read now: as long as this says the same, what was read since
    /// is what would be read again. `None` while a commit is under way.
    #[must_use]
    pub fn state(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Acquire);
        state.is_multiple_of(2).then_some(state)
    }

    /// The row of an inode, from memory when it is hot.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn item(&self, ino: Ino) -> Result<Option<Arc<Item>>, StoreError> {
        let commits = {
            let mut hot = self.hot.lock();
            if let Some(item) = hot.items.get(&ino) {
                return Ok(Some(Arc::clone(item)));
            }
            hot.commits
        };
        let found = self.read(|r| r.item(ino))?.map(Arc::new);
        if let Some(item) = &found {
            let mut hot = self.hot.lock();
            if hot.may_keep(commits) {
                hot.items.put(ino, Arc::clone(item));
            }
        }
        Ok(found)
    }

    /// Opens one more read-only connection.
    fn open_reader(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        configure(&conn)?;
        Ok(conn)
    }
}

/// Tells whether the rows that a commit leaves in memory are those that it stores. What cannot be
/// read is not told to be wrong.
fn are_stored(r: &Reader<'_>, touched: &Touched) -> bool {
    touched.len() > KEPT_OF_A_COMMIT
        || touched.iter().enumerate().all(|(at, (ino, item))| {
            let last = touched[at + 1..].iter().all(|(later, _)| later != ino);
            match item.as_deref().filter(|_| last) {
                Some(item) => r.item(*ino).map_or(true, |row| row.as_ref() == Some(item)),
                None => true,
            }
        })
}

/// Opens the log and makes sure that it and the database have names that survive a power cut.
fn open_log(conn: &Connection, path: &Path) -> Result<File, StoreError> {
    // Nothing is written, for the disk may be full; reading makes the log.
    conn.query_row("SELECT count(*) FROM meta", (), |_| Ok(()))?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = File::open(log).map_err(StoreError::Sync)?;
    // What an earlier daemon left in it.
    log.sync_data().map_err(StoreError::Sync)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(StoreError::Sync)?;
    Ok(log)
}

/// The directory that a file is in.
fn directory(path: &Path) -> Arc<Path> {
    Arc::from(path.parent().unwrap_or(Path::new(".")))
}

/// Settings that every connection needs.
fn configure(conn: &Connection) -> Result<(), StoreError> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(())
}

impl Reader<'_> {
    /// A value of the key-value table.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        let mut rows = statement.query((key,))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }
}

impl Tx<'_> {
    /// Sets or removes a value of the key-value table.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn set_meta(&self, key: &str, value: Option<&str>) -> Result<(), StoreError> {
        match value {
            Some(value) => self
                .conn
                .prepare_cached(
                    "INSERT INTO meta VALUES (?1, ?2)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                )?
                .execute((key, value))?,
            None => self
                .conn
                .prepare_cached("DELETE FROM meta WHERE key = ?1")?
                .execute((key,))?,
        };
        Ok(())
    }
}
