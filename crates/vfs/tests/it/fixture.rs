//! A mount without a kernel, on a simulated drive.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_core::{DriveId, DriveKind, Ino, SecretString};
use onedrivefs_graph::auth::TokenSource;
use onedrivefs_graph::{Cloud, Endpoints, GraphClient, HttpOptions};
use onedrivefs_sim::{DriveHandle, SimConfig, Simulator};
use onedrivefs_sync::{DriveIdentity, Engine, EngineConfig, Oneself, SyncOutcome};
use onedrivefs_vfs::{OpenFlags, Outcome, RenameMode, Vfs, VfsError, VfsOptions};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Long enough for any machine; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reading and writing.
pub const RW: OpenFlags = OpenFlags {
    read: true,
    write: true,
    append: false,
    truncate: false,
    exclusive: false,
    blind: false,
    execute: false,
    sync: false,
};

pub struct Mount {
    pub sim: Simulator,
    pub drive: DriveHandle,
    pub engine: Arc<Engine>,
    pub vfs: Arc<Vfs>,
    pub dir: TempDir,
}

impl Mount {
    /// Mounts an empty drive and waits until it is known.
    pub async fn new() -> Self {
        Self::with(SimConfig::default(), DriveKind::Personal).await
    }

    /// Mounts a drive of a kind.
    pub async fn with(sim: SimConfig, kind: DriveKind) -> Self {
        let sim = Simulator::start(sim).await.expect("simulator");
        let drive = sim.default_drive();
        let dir = TempDir::new().expect("tempdir");
        let (engine, vfs) = open(&sim, &drive, &dir, kind);
        let mount = Self {
            sim,
            drive,
            engine,
            vfs,
            dir,
        };
        mount.sync().await;
        mount
    }

    /// Sends everything and fetches all changes.
    pub async fn sync(&self) {
        let outcome = self.engine.sync(None, Some(PATIENCE), |_, _| {}).await;
        let waiting = self.engine.store.read(|r| r.journal_after(0, 100));
        let waiting: Vec<_> = waiting
            .expect("journal")
            .into_iter()
            .map(|row| (self.engine.store.item(row.ino), row))
            .collect();
        let done = outcome.expect("sync") == SyncOutcome::Done;
        assert!(done, "not all was sent: {waiting:#?}");
    }

    /// Waits until nothing waits to be sent. Fetches nothing.
    pub async fn sent(&self) {
        self.until("everything is sent", || {
            self.engine.pending().expect("pending").ops == 0
        })
        .await;
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(
                began.elapsed() < PATIENCE,
                "waited in vain until {what}: {:#?}",
                self.engine.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The inode of a path here.
    pub fn ino(&self, path: &str) -> Ino {
        self.engine.item_at(path).expect("an item").ino
    }

    fn split<'p>(&self, path: &'p str) -> (Ino, &'p OsStr) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(parent), OsStr::new(name))
    }

    /// Opens a file for reading and writing, creating it if need be.
    pub fn open(&self, path: &str) -> (Ino, u64) {
        let (parent, name) = self.split(path);
        let (attr, opened) = self.vfs.create(parent, name, 0o644, RW).expect("open");
        (attr.ino, opened.fh)
    }

    /// Closes a handle the way the kernel does.
    pub async fn close(&self, ino: Ino, fh: u64) -> Result<(), VfsError> {
        let flushed = settle(self.vfs.flush(ino, fh)).await;
        self.vfs.release(ino, fh);
        flushed
    }

    /// Saves a file anew.
    pub async fn write(&self, path: &str, data: &[u8]) {
        let (parent, name) = self.split(path);
        let flags = OpenFlags {
            truncate: true,
            ..RW
        };
        let (attr, opened) = self.vfs.create(parent, name, 0o644, flags).expect("open");
        for (index, part) in data.chunks(1 << 20).enumerate() {
            let offset = (index << 20) as u64;
            self.vfs
                .write(attr.ino, opened.fh, offset, part)
                .expect("write");
        }
        self.close(attr.ino, opened.fh).await.expect("close");
    }

    /// Reads a whole file through the file system.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        let ino = self.ino(path);
        let flags = OpenFlags { write: false, ..RW };
        let opened = settle(self.vfs.open(ino, None, flags)).await.expect("open");
        let mut all = Vec::new();
        loop {
            let at = all.len() as u64;
            let part = settle(self.vfs.read(ino, opened.fh, at, 1 << 20))
                .await
                .expect("read");
            if part.is_empty() {
                break;
            }
            all.extend_from_slice(&part);
        }
        self.vfs.release(ino, opened.fh);
        all
    }

    pub fn mkdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.vfs.mkdir(parent, name, 0o755).expect("mkdir");
    }

    pub fn rename(&self, from: &str, to: &str) {
        let (parent, name) = self.split(from);
        let (new_parent, new_name) = self.split(to);
        self.vfs
            .rename(parent, name, new_parent, new_name, RenameMode::Replace)
            .expect("rename");
    }

    pub fn unlink(&self, path: &str) {
        let (parent, name) = self.split(path);
        self.vfs.unlink(parent, name).expect("unlink");
    }

    /// The paths of all files on the service.
    pub fn there(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.drive.dump().into_iter().map(|e| e.path).collect();
        paths.retain(|path| path != "/" && !path.is_empty());
        paths.sort();
        paths
    }
}

/// Waits for an outcome.
pub async fn settle<T>(outcome: Result<Outcome<T>, VfsError>) -> Result<T, VfsError> {
    match outcome? {
        Outcome::Now(value) => Ok(value),
        Outcome::Later(pending) => pending.await,
    }
}

/// Opens the state in `dir` and puts a file system over it.
fn open(
    sim: &Simulator,
    drive: &DriveHandle,
    dir: &TempDir,
    kind: DriveKind,
) -> (Arc<Engine>, Arc<Vfs>) {
    let (graph, login) = (sim.graph_url(), sim.login_url());
    let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), Some(&login));
    let token = TokenSource::fixed(SecretString::from(sim.access_token()));
    let client = GraphClient::new(endpoints.expect("endpoints"), HttpOptions::default(), token);
    let identity = DriveIdentity {
        id: DriveId::new(drive.id()),
        kind,
        name: "test".to_owned(),
    };
    let config = EngineConfig {
        // Rounds happen when a test asks for them.
        poll_interval: Duration::from_secs(3600),
        settle: Duration::from_millis(20),
        free_disk_floor_bytes: Some(0),
        host_name: "here".to_owned(),
        oneself: Oneself {
            person: Some("user-1".to_owned()),
            ..Oneself::default()
        },
        ..EngineConfig::new(dir.path().join("state"), dir.path().join("cache"), identity)
    };
    let handle = Handle::current();
    let engine = Engine::open(config, client.expect("client"), handle.clone()).expect("engine");
    engine.start();
    let vfs = Vfs::new(Arc::clone(&engine), VfsOptions::for_this_user(), handle);
    vfs.set_kernel_listener(Box::new(|_| {}));
    (engine, vfs)
}
