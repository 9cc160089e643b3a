//! The life of a mount: made, served, ended, in every case without leaving anything behind.
//!
//! A FUSE mount outlives a careless server in many ways: it stays in the tree with nobody to
//! answer, it is unmounted behind the server's back, it is detached while programs hold files in
//! it. This module is the only one that knows them. fuser is given a device that is mounted
//! already and never unmounts.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fuser::{Config, Filesystem, Notifier, Session, SessionACL};
use onedrivefs_vfs::Forest;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::adapter::Adapter;
use crate::detach::{OwnMount, WhenBusy};
use crate::device::{self, MountRequest};
use crate::epoch::KernelNames;
use crate::errno::chain;
use crate::error::MountError;
use crate::init::Passthrough;
use crate::mountpoint;
use crate::notify::{self, Connected, NotifyQueue};
use crate::open_files::OpenFiles;
use crate::readahead;
use crate::watchers::{Herald, Watchers};

/// Fewest threads that serve requests: with one, a request that is slow for whatever reason
/// holds up every other.
const MIN_THREADS: usize = 2;

/// How long taking the mount out of the tree may take. It waits for dirty memory-mapped pages
/// to be written, and for fusermount3 to start.
const DETACH_LIMIT: Duration = Duration::from_secs(30);

/// How long the kernel may take to end the connection of a mount that is out of the tree. It does
/// so at once unless a program has something open.
const END_LIMIT: Duration = Duration::from_secs(3);

/// How and where to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// An existing empty directory.
    pub mountpoint: PathBuf,
    /// The source that mount tables and `df` show; unsafe characters are replaced.
    pub fs_name: String,
    /// Whether the kernel refuses every change.
    pub read_only: bool,
    /// Whether users other than the mounting one are admitted, as far as the mode bits go.
    pub allow_other: bool,
    /// Whether the kernel reads files by itself.
    pub passthrough: Passthrough,
    /// Threads that serve requests; by default one per CPU and at least two.
    pub threads: Option<NonZeroUsize>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// [`Mounted::unmount`] did it.
    Requested,
    /// Somebody else unmounted, or aborted the connection.
    External,
    /// Requests could no longer be received.
    Failed {
        /// What the kernel answered.
        reason: String,
    },
}

/// What [`Mounted::unmount`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teardown {
    /// The mount is gone and so are its users.
    Complete,
    /// The mount is out of the tree, but programs still have files open in it. Their next access
    /// after the end of this process fails with `ENOTCONN`.
    StillInUse,
}

/// A mount that is being served. Dropping it unmounts; [`Self::unmount`] also waits and reports.
#[derive(Debug)]
pub struct Mounted {
    served: Served,
    watchers: Option<Arc<Watchers>>,
}

/// The parts of a running session that do not depend on what is served.
#[derive(Debug)]
struct Served {
    path: PathBuf,
    own: OwnMount,
    runtime: Handle,
    ended: watch::Receiver<Option<SessionEnd>>,
    shutdown: Shutdown,
    /// Whether nothing is left for the destructor.
    released: bool,
}

/// What begins with the end of a session.
#[derive(Clone, Debug)]
struct Shutdown {
    /// Set when we unmount, so that the end is not taken for somebody else's doing.
    requested: Arc<AtomicBool>,
    /// Answers all requests that wait for the network.
    waiting: CancellationToken,
    /// Ends notifications.
    notify: NotifyQueue,
}

impl Shutdown {
    /// Answers what waits and stops notifications.
    fn begin(&self) {
        self.waiting.cancel();
        self.notify.stop();
    }
}

/// Mounts the drives of `forest` and starts to serve them. Requests that need the network wait on `runtime`.
///
/// The mount of a dead daemon at the same place is cleared away first.
///
/// # Errors
/// When the mountpoint is unfit, FUSE is not available or not permitted; see [`MountError`].
pub fn mount(
    forest: Arc<Forest>,
    runtime: Handle,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    let files = Arc::new(OpenFiles::default());
    let (queue, work) = notify::queue(Arc::clone(&files));
    let shutdown = Shutdown {
        requested: Arc::new(AtomicBool::new(false)),
        waiting: CancellationToken::new(),
        notify: queue.clone(),
    };
    let watchers = Arc::new(Watchers::new(Arc::clone(&forest)));
    let adapter = Adapter::new(
        Arc::clone(&forest),
        runtime.clone(),
        shutdown.waiting.clone(),
        files,
        queue.clone(),
        options.passthrough,
        Arc::clone(&watchers),
    );
    let attention = adapter.attention();
    // Listening begins before the kernel can cache anything. Should the mount fail, the queue has
    // no reader and swallows what it is sent.
    let names = KernelNames::default();
    forest.connect(
        Arc::new(move |announcement| queue.announce(announcement)),
        {
            let names = names.clone();
            Arc::new(move || names.forget_all())
        },
    );
    let (served, notifier) = serve(adapter, runtime, shutdown, options)?;
    names.connect(served.own.connection()?);
    attention.connect(served.own.connection()?);
    readahead::raise(served.own.number());
    work.with(Arc::clone(&watchers))
        .start(Connected::new(notifier, move |ino| forest.edition(ino)))
        .map_err(|source| MountError::Session { source })?;
    Ok(Mounted {
        served,
        watchers: Some(watchers),
    })
}

/// Mounts any filesystem and starts its threads.
fn serve<F: Filesystem>(
    filesystem: F,
    runtime: Handle,
    shutdown: Shutdown,
    options: &MountOptions,
) -> Result<(Served, Notifier), MountError> {
    let path = mountpoint::prepare(&options.mountpoint)?;
    let connection = device::connect(&MountRequest {
        path: &path,
        fs_name: &options.fs_name,
        read_only: options.read_only,
        allow_other: options.allow_other,
    })?;
    let own = connection
        .try_clone()
        .map_err(|error| MountError::system("keep the connection of", &path, error))
        .and_then(|connection| OwnMount::find(&path, connection))?;
    let (publish, ended) = watch::channel(None);
    // From here on every early return drops this value, which takes the mount down again.
    let served = Served {
        path,
        own,
        runtime,
        ended,
        shutdown,
        released: false,
    };
    let started = Session::from_fd(filesystem, connection, acl(options), config(options))
        .and_then(|session| start(session, &served, publish));
    let notifier = started.map_err(|source| MountError::Session { source })?;
    tracing::info!(path = %served.path.display(), "mounted");
    Ok((served, notifier))
}

/// Whom fuser lets in; the kernel checks as well.
fn acl(options: &MountOptions) -> SessionACL {
    if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    }
}

/// The settings of the request loops.
fn config(options: &MountOptions) -> Config {
    let cpus = thread::available_parallelism().map_or(MIN_THREADS, NonZeroUsize::get);
    let threads = options
        .threads
        .map_or(cpus.max(MIN_THREADS), NonZeroUsize::get);
    let mut config = Config::default();
    config.acl = acl(options);
    config.n_threads = Some(threads);
    // A device of its own for each thread; not to be had where only fusermount3 may open it.
    config.clone_fd = device::can_open();
    config
}

/// Starts the threads of a session.
fn start<F: Filesystem>(
    session: Session<F>,
    served: &Served,
    publish: watch::Sender<Option<SessionEnd>>,
) -> io::Result<Notifier> {
    let notifier = session.notifier();
    let own = served.own.clone();
    let (path, shutdown) = (served.path.clone(), served.shutdown.clone());
    thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(move || {
            let result = session.run();
            shutdown.begin();
            // An abort leaves the mount in the tree with nobody to answer.
            if let Err(error) = own.detach(&path, WhenBusy::Detach) {
                tracing::warn!(error = chain(&error), "a dead mount could not be detached");
            }
            let end = match result {
                _ if shutdown.requested.load(Ordering::Acquire) => SessionEnd::Requested,
                Ok(()) => SessionEnd::External,
                Err(error) => SessionEnd::Failed {
                    reason: error.to_string(),
                },
            };
            tracing::info!(path = %path.display(), ?end, "the FUSE session ended");
            publish.send_replace(Some(end));
        })?;
    Ok(notifier)
}

impl Mounted {
    /// Where it is mounted: absolute and free of links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.served.path
    }

    /// Lets programs that watch directories learn of what others changed, with the help of a process
    /// that runs errands in the mount.
    pub fn set_herald(&self, herald: Box<dyn Herald>) {
        if let Some(watchers) = &self.watchers {
            watchers.set_herald(self.connection(), herald);
        }
    }

    /// Number of the connection with the kernel, by which [`crate::abort_connection`] ends it.
    #[must_use]
    pub fn connection(&self) -> u32 {
        self.served.own.number()
    }

    /// Waits until the session has ended, for whatever reason.
    pub async fn wait_unmounted(&self) -> SessionEnd {
        self.served.wait_ended().await
    }

    /// Unmounts. Requests that wait for the network are answered with an error at once. A mount
    /// that is in use is taken out of the tree all the same.
    ///
    /// # Errors
    /// When the mount could not be taken out of the tree.
    pub async fn unmount(self) -> Result<Teardown, MountError> {
        self.served.unmount().await
    }
}

impl Served {
    /// Waits for the end of the session.
    async fn wait_ended(&self) -> SessionEnd {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        end.ok()
            .and_then(|end| end.clone())
            .unwrap_or_else(|| SessionEnd::Failed {
                reason: "the session thread ended early".to_owned(),
            })
    }

    /// Tells whether the session has ended.
    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Takes the mount out of the tree and waits for the session to end.
    async fn unmount(mut self) -> Result<Teardown, MountError> {
        if self.has_ended() {
            self.released = true;
            return Ok(Teardown::Complete);
        }
        self.shutdown.requested.store(true, Ordering::Release);
        self.shutdown.begin();
        let (own, path) = (self.own.clone(), self.path.clone());
        let detach = self
            .runtime
            .spawn_blocking(move || own.detach(&path, WhenBusy::Detach));
        let detached = match timeout(DETACH_LIMIT, detach).await {
            Ok(Ok(detached)) => detached,
            Ok(Err(join)) => Err(MountError::Session {
                source: io::Error::other(join),
            }),
            Err(_) => Err(MountError::HelperStuck {
                path: self.path.clone(),
                limit: DETACH_LIMIT,
            }),
        };
        // Only the destructor's own attempt would follow, and it could do no better.
        self.released = true;
        match (detached, timeout(END_LIMIT, self.wait_ended()).await) {
            (_, Ok(_)) => Ok(Teardown::Complete),
            (Ok(()), Err(_)) => Ok(Teardown::StillInUse),
            (Err(error), Err(_)) => Err(error),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.released || self.has_ended() {
            return;
        }
        self.shutdown.requested.store(true, Ordering::Release);
        self.shutdown.begin();
        if let Err(error) = self.own.detach(&self.path, WhenBusy::Detach) {
            tracing::warn!(
                path = %self.path.display(),
                error = chain(&error),
                "the mount could not be removed"
            );
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
