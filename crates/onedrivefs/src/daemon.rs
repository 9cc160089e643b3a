//! A mount from its start to its end.
//!
//! Nothing here waits for the network: the mount comes up from what is on this disk, and the
//! service is asked behind it. The end has an order, each step with a deadline, because programs,
//! systemd and a person at a keyboard may all be waiting for it: answer what waits, take the mount
//! out of the tree, bring what is in memory to disk, leave. Nothing that was accepted depends on
//! reaching the last step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_core::local_only::LocalOnly;
use onedrivefs_fuse::{MountError, MountOptions, Mounted, Passthrough, SessionEnd, Teardown};
use onedrivefs_graph::{GraphClient, Lane, in_lane};
use onedrivefs_sync::{
    Company, DriveIdentity, Engine, EngineConfig, EngineError, Family, Oneself, Rescue,
};
use onedrivefs_vfs::{Forest, Vfs, VfsOptions};
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::account::{DriveRecord, FolderRecord, RootRecord};
use crate::config::{Layer, ModeBits, NameMode, PassthroughMode, SymlinkMode, UploadMode};
use crate::control::registry::{self, Record, Running};
use crate::control::server::Listener;
use crate::desktop::{self, Reminders};
use crate::failure::{Explain, Failure, Outcome};
use crate::folders::Folders;
use crate::guard::Guard;
use crate::handler::Control;
use crate::output;
use crate::paths::{AccountName, Dirs, create_private_dir, unwritable};
use crate::report::{self, Gist};
use crate::root::Again;
use crate::sign_in::SignInReport;
use crate::sleep;
use crate::tree::{Notes, Tree};

/// Time the engine has to bring everything to disk. Together with the unmount's own limits this
/// stays below the unit's TimeoutStopSec.
const ENGINE_STOP: Duration = Duration::from_secs(8);

/// Pause between two looks whether another daemon has ended.
const ENDING_POLL: Duration = Duration::from_millis(50);

/// Exit code after a second signal, as a shell reports a death by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Who may do what in the mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Whether changes are refused.
    pub(crate) read_only: bool,
    /// Whether changes are refused in what others share, since the sign-in does not allow them.
    pub(crate) read_only_elsewhere: bool,
    /// Whether other users are let in.
    pub(crate) allow_other: bool,
}

/// What a mount shares with others of its process.
#[derive(Clone, Default)]
pub(crate) struct Common {
    /// What their engines share.
    pub(crate) company: Company,
    /// When somebody was last reminded to sign in to its account.
    pub(crate) reminders: Arc<Reminders>,
}

/// Everything that is decided before mounting.
pub(crate) struct Plan {
    /// Where state, cache and sockets lie.
    pub(crate) dirs: Dirs,
    /// The account.
    pub(crate) account: AccountName,
    /// The drive.
    pub(crate) drive: DriveRecord,
    /// The folder of it that is mounted, or the file, if it is not its root.
    pub(crate) folder: Option<FolderRecord>,
    /// How that folder is found again if it is made anew.
    pub(crate) again: Option<Again>,
    /// Whether it is a single file, in a folder that is made for it.
    pub(crate) is_file: bool,
    /// Who is signed in, as the service names them.
    pub(crate) oneself: Oneself,
    /// Whether all drives of the account are mounted, and the drive is what stands for them.
    pub(crate) tree: bool,
    /// The way to the service.
    pub(crate) graph: GraphClient,
    /// Settings.
    pub(crate) config: Layer,
    /// Who may do what.
    pub(crate) access: Access,
    /// Where to mount.
    pub(crate) mountpoint: PathBuf,
    /// What is told about the sign-in.
    pub(crate) sign_in: Option<SignInReport>,
    /// Whether this mount warns before a secret ends.
    pub(crate) warns: bool,
    /// What it shares with other mounts.
    pub(crate) common: Common,
    /// What a person is told once the mount answers.
    pub(crate) greeting: Option<String>,
}

impl Plan {
    /// What the mount begins at.
    fn root(&self) -> RootRecord {
        RootRecord {
            drive: self.drive.id.clone(),
            folder: self.folder.clone(),
            is_file: self.is_file,
        }
    }

    /// Whether the root is of no drive, and only shows what is in several, or a single file.
    fn groups(&self) -> bool {
        self.tree || self.is_file
    }

    /// What keeps such a root up to date.
    fn tree(&self, engine: &Arc<Engine>) -> Option<Tree> {
        self.groups().then(|| Tree::new(engine, self))
    }

    /// What people know it by.
    fn title(&self) -> String {
        match &self.folder {
            Some(folder) => format!("{}/{}", self.drive.name, folder.name),
            None => self.drive.name.clone(),
        }
    }
}

/// Mounts and serves until unmounted or told to end.
pub(crate) async fn serve(plan: Plan) -> Outcome {
    let mut signals = Signals::install()?;
    let greeting = plan.greeting.clone();
    let served = Served::start(plan).await?;
    let announcement = announce(&served.forest, &served.mounted);
    if let Some(greeting) = greeting {
        output::note(greeting);
    }
    let end = tokio::select! {
        end = served.wait() => end,
        signal = signals.next() => {
            tracing::info!(signal, "Asked to end");
            End::requested()
        }
    };
    signals.end_at_next();
    report::tell(&[NotifyState::Stopping]);
    announcement.abort();
    served.end(end).await
}

/// A mount that serves.
pub(crate) struct Served {
    pub(crate) forest: Arc<Forest>,
    mounted: Mounted,
    control: ControlPlane,
    guard: Option<Guard>,
    companions: Vec<JoinHandle<()>>,
}

impl Served {
    /// Mounts, and begins to serve.
    pub(crate) async fn start(plan: Plan) -> Outcome<Self> {
        create_private_dir(&plan.dirs.runtime)?;
        let engine = open_engine(&plan).await?;
        let tree = plan.tree(&engine);
        let notes = tree.as_ref().map(|tree| tree.notes.clone());
        if let Some(tree) = &tree {
            tree.prepare().await?;
        }
        let forest = plant(&plan, &engine);
        let mounted = match mount(&plan, &forest) {
            Ok(mounted) => mounted,
            Err(failure) => {
                stop_engines(&forest).await;
                return Err(failure);
            }
        };
        let guard = post_guard(&mounted);
        let mut companions = follow_buses(&plan, &forest, &mounted);
        engine.start();
        if let Some(tree) = tree {
            forest.main().set_further(tree.further());
            let looking = in_lane(Lane::Background, tree.run());
            companions.push(tokio::spawn(looking));
        }
        companions.push(tokio::spawn(Arc::clone(&forest).tend()));
        companions.extend(plan.again.clone().map(|again| {
            let (graph, drive) = (plan.graph.clone(), plan.drive.id.clone());
            tokio::spawn(again.watch(Arc::clone(forest.main().engine()), graph, drive))
        }));
        let control = match listen(&plan, &forest, &mounted, notes.unwrap_or_default()) {
            Ok(control) => control,
            Err(failure) => {
                finish(mounted, &forest).await?;
                return Err(failure);
            }
        };
        for rescue in engine.rescues() {
            output::note(output::printable(&rescue_text(rescue, mounted.path())));
        }
        Ok(Self {
            forest,
            mounted,
            control,
            guard,
            companions,
        })
    }

    /// Waits until it ends by itself: somebody unmounted it, or it cannot go on.
    pub(crate) async fn wait(&self) -> End {
        tokio::select! {
            end = self.mounted.wait_unmounted() => End::Session(end),
            () = self.forest.wait_damaged() => End::Damaged,
        }
    }

    /// Unmounts, and brings everything to disk.
    pub(crate) async fn end(self, end: End) -> Outcome {
        for companion in self.companions {
            companion.abort();
        }
        let outcome = finish(self.mounted, &self.forest).await;
        // The socket stays until the state is free: whoever waits for the end of this daemon waits
        // for it to close.
        self.control.server.abort();
        // It removes its socket when it has ended.
        drop(self.control.server.await);
        drop(self.control.record);
        drop(self.guard);
        outcome?;
        match end {
            End::Damaged => Err(Failure::new(
                "the mount ended",
                "the local database turned out to be damaged",
            )
            .next("mount again: the database is built anew, and nothing that was saved is lost")),
            End::Session(SessionEnd::Failed { reason }) => {
                Err(Failure::new("the mount ended", reason)
                    .next("mount again; nothing that was saved is lost"))
            }
            End::Session(_) => Ok(()),
        }
    }
}

/// Opens the state. Another daemon that is ending is waited for; one that serves is an error.
async fn open_engine(plan: &Plan) -> Outcome<Arc<Engine>> {
    let config = engine_config(plan);
    create_private_dir(&config.state_dir)?;
    create_private_dir(&config.cache_dir)?;
    let patience = Instant::now() + ENGINE_STOP;
    loop {
        match Engine::open(config.clone(), plan.graph.clone(), Handle::current()) {
            Ok(engine) => return Ok(engine),
            Err(EngineError::AlreadyRunning { pid })
                if Instant::now() < patience && serving(plan, pid).is_none() =>
            {
                tokio::time::sleep(ENDING_POLL).await;
            }
            Err(error) => return Err(explain_engine(plan, error)),
        }
    }
}

/// Where the daemon of this process id serves, if it does.
fn serving(plan: &Plan, pid: u32) -> Option<PathBuf> {
    let running = registry::list(&plan.dirs).unwrap_or_default();
    let daemon = running.into_iter().find(|daemon| daemon.pid == pid)?;
    Some(daemon.mountpoint)
}

/// The engine's defaults with what is configured.
fn engine_config(plan: &Plan) -> EngineConfig {
    let drive = &plan.drive;
    let mut engine = EngineConfig::new(
        plan.dirs.drive_state(&plan.account, &plan.root()),
        plan.dirs.drive_cache(&plan.account, &plan.root()),
        DriveIdentity {
            id: drive.id.clone(),
            kind: drive.kind,
            name: drive.name.clone(),
        },
    );
    engine.oneself = plan.oneself.clone();
    engine.family = Family::within(plan.common.company.clone());
    let config = &plan.config;
    let seconds = |setting: Option<u64>, default: Duration| {
        setting.map_or(default, |seconds| Duration::from_secs(seconds.max(1)))
    };
    engine.poll_interval = seconds(config.poll, engine.poll_interval);
    engine.metadata_deadline = seconds(config.metadata_timeout, engine.metadata_deadline);
    engine.first_byte_deadline = seconds(config.read_timeout, engine.first_byte_deadline);
    if let Some(size) = config.cache_size {
        engine.cache_limit_bytes = size.0;
    }
    engine.free_disk_floor_bytes = config.free_space.map(|size| size.0);
    if let Some(count) = config.parallel_uploads {
        engine.upload_parallelism = usize::from(count.max(1));
    }
    if let Some(delay) = config.upload_delay {
        engine.settle = Duration::from_millis(delay);
    }
    if let Some(patterns) = &config.local_only {
        engine.local_only = LocalOnly::new(patterns.clone());
    }
    if let Some(count) = config.hold_deletions {
        engine.brake.count = count;
    }
    if let Some(share) = config.hold_share {
        engine.brake.share_percent = u64::from(share.0);
    }
    engine.upload_on_close_wait = config.upload == Some(UploadMode::OnClose);
    engine.reject_names = config.names == Some(NameMode::Reject);
    engine.read_only = plan.access.read_only;
    let own_file = plan.is_file && plan.drive.own;
    engine.read_only_elsewhere = plan.access.read_only_elsewhere && !own_file;
    engine.groups = plan.groups();
    let folder = plan.folder.as_ref().filter(|_| !plan.is_file);
    engine.folder = folder.map(|folder| folder.id.clone());
    engine
}

/// How the mount looks to programs.
fn vfs_options(config: &Layer, read_only: bool) -> VfsOptions {
    let usual = VfsOptions::for_this_user();
    let mode = |own: Option<ModeBits>, all: u32, usual: u32| match (own, config.umask) {
        (Some(own), _) => own.0,
        (None, Some(umask)) => all & !umask.0,
        (None, None) => usual,
    };
    VfsOptions {
        uid: config.uid.unwrap_or(usual.uid),
        gid: config.gid.unwrap_or(usual.gid),
        file_mode: mode(config.file_mode, 0o666, usual.file_mode),
        dir_mode: mode(config.dir_mode, 0o777, usual.dir_mode),
        read_only,
        symlinks: config.symlinks != Some(SymlinkMode::Off),
    }
}

/// The drive with what its shortcuts lead to.
fn plant(plan: &Plan, engine: &Arc<Engine>) -> Arc<Forest> {
    let options = vfs_options(&plan.config, plan.access.read_only);
    let nursery = Folders::new(engine, options, plan.access.read_only_elsewhere, plan.tree);
    let vfs = Vfs::new(Arc::clone(engine), options, Handle::current());
    Forest::new(vfs, plan.groups(), Some(Box::new(nursery)))
}

fn mount(plan: &Plan, forest: &Arc<Forest>) -> Outcome<Mounted> {
    let options = MountOptions {
        mountpoint: plan.mountpoint.clone(),
        fs_name: format!("{}:{}", plan.account, plan.title()),
        read_only: plan.access.read_only,
        allow_other: plan.access.allow_other,
        passthrough: match plan.config.passthrough {
            Some(PassthroughMode::Off) => Passthrough::Off,
            Some(PassthroughMode::Auto) | None => Passthrough::Auto,
        },
        threads: None,
    };
    onedrivefs_fuse::mount(Arc::clone(forest), Handle::current(), &options)
        .map_err(|error| explain_mount("mount", error))
}

/// Has somebody end the connection should this process be killed and be unable to leave, and tell
/// programs that watch directories what others changed. Without that, the next mount in the same
/// place does the one, and nobody the other.
fn post_guard(mounted: &Mounted) -> Option<Guard> {
    match Guard::post(mounted.connection(), mounted.path()) {
        Ok((guard, herald)) => {
            mounted.set_herald(herald);
            Some(guard)
        }
        Err(error) => {
            tracing::warn!(%error, "The mount has no guard");
            None
        }
    }
}

/// Tells the desktop what needs attention, warns before a secret ends, and hears from the system when
/// the machine sleeps.
fn follow_buses(plan: &Plan, forest: &Arc<Forest>, mounted: &Mounted) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![sleep::start(forest)];
    let desktop = plan.config.notifications.unwrap_or(true).then(|| {
        let reminders = Arc::clone(&plan.common.reminders);
        desktop::start(forest, mounted.path(), &plan.account, reminders)
    });
    let notices = desktop.as_ref().map(desktop::Desktop::notices);
    tasks.extend(desktop.map(desktop::Desktop::into_task));
    let report = plan.sign_in.clone().filter(|_| plan.warns);
    tasks.extend(report.map(|report| {
        tokio::spawn(async move {
            let tell = |text| {
                if let Some(notices) = &notices {
                    notices.expiry(text);
                }
            };
            report.watch(tell).await;
        })
    }));
    tasks
}

/// The control socket and the record that leads to it.
struct ControlPlane {
    server: JoinHandle<()>,
    record: Record,
}

fn listen(
    plan: &Plan,
    forest: &Arc<Forest>,
    mounted: &Mounted,
    notes: Notes,
) -> Outcome<ControlPlane> {
    let stem = plan.dirs.daemon_stem(&plan.account, &plan.root());
    let running = Running {
        pid: std::process::id(),
        account: plan.account.clone(),
        drive: plan.drive.id.clone(),
        mountpoint: mounted.path().to_owned(),
        socket: plan.dirs.runtime.join(format!("{stem}.sock")),
    };
    // Somebody may be clearing away what a killed daemon left under the same names.
    let _turn = registry::turn(&plan.dirs)?;
    let listener = Listener::bind(&running.socket)?;
    let record = Record::write(&plan.dirs, &stem, &running)?;
    let control = Control::new(
        Arc::clone(forest),
        plan.graph.clone(),
        running.mountpoint,
        plan.sign_in.clone(),
        notes,
    );
    let server = tokio::spawn(listener.serve(Arc::new(control)));
    Ok(ControlPlane { server, record })
}

/// Tells a person what was rescued of a damaged state, and where it is.
fn rescue_text(rescue: &Rescue, mountpoint: &Path) -> String {
    let kept = rescue.kept.display();
    if let Some(error) = &rescue.failed {
        return format!(
            "Content that has not been uploaded is in {kept} and could not be taken over yet: \
             {error}. It is tried again at the next mount."
        );
    }
    let mut text = String::new();
    if rescue.database {
        text = format!(
            "The local database could not be used ({}). It is kept as {kept}, and a new one is \
             being built. Renames and deletions that had not been sent are undone. ",
            rescue.reason
        );
    }
    match &rescue.folder {
        Some(folder) => {
            let folder = mountpoint.join(folder);
            text += &format!(
                "{} with content that had not been uploaded: see {}",
                counted(rescue.files),
                folder.display()
            );
        }
        None => text += "Nothing was waiting to be uploaded.",
    }
    if rescue.partial > 0 {
        text += &format!(
            ". Only parts of {} were on this computer; the notes beside them say which",
            counted(rescue.partial)
        );
    }
    text
}

fn counted(files: usize) -> String {
    match files {
        1 => "1 file".to_owned(),
        _ => format!("{files} files"),
    }
}

/// Says that the mount answers, to systemd or to a person, and goes on reporting to systemd.
fn announce(forest: &Arc<Forest>, mounted: &Mounted) -> JoinHandle<()> {
    let status = format!("Mounted at {}", mounted.path().display());
    report::tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    let (stir, forest) = (forest.stir().clone(), Arc::clone(forest));
    // A database that cannot be read shows in the log and in `status`.
    let gist = move || Gist::of(&forest).ok();
    tokio::spawn(report::go_on(stir, gist, Gist::text))
}

/// The signals that ask for an orderly end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn install() -> Outcome<Self> {
        let one = |kind| signal(kind).explain(|| "preparing for signals".to_owned());
        // The kernel asks for leases back with it, which are held for a moment only; whoever does
        // not expect it is ended. It stays caught when nobody listens.
        drop(one(SignalKind::io())?);
        Ok(Self {
            interrupt: one(SignalKind::interrupt())?,
            terminate: one(SignalKind::terminate())?,
            hangup: one(SignalKind::hangup())?,
        })
    }

    /// From now on another signal ends the process at once, which is safe: what was accepted is on
    /// disk.
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!(signal, "Asked again; ending at once");
            std::process::exit(EXIT_INTERRUPTED);
        });
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Why a mount ends.
pub(crate) enum End {
    /// The session was ended, by somebody or by the kernel.
    Session(SessionEnd),
    /// The database cannot be used any more.
    Damaged,
}

impl End {
    /// This process was told to end.
    pub(crate) const fn requested() -> Self {
        Self::Session(SessionEnd::Requested)
    }

    /// Tells whether nobody wanted that.
    pub(crate) const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Damaged | Self::Session(SessionEnd::Failed { .. })
        )
    }
}

/// Unmounts and brings everything to disk.
async fn finish(mounted: Mounted, forest: &Forest) -> Outcome {
    let path = mounted.path().to_owned();
    let unmounted = mounted.unmount().await;
    stop_engines(forest).await;
    match unmounted {
        Ok(Teardown::Complete) => Ok(()),
        Ok(Teardown::StillInUse) => {
            tracing::warn!(
                path = %path.display(),
                "Programs still have files of the mount open; they get errors from now on"
            );
            Ok(())
        }
        Err(error) => Err(explain_mount("unmount", error)),
    }
}

async fn stop_engines(forest: &Forest) {
    let stopping = async {
        tokio::join!(forest.main().engine().shutdown(), forest.shutdown());
    };
    if tokio::time::timeout(ENGINE_STOP, stopping).await.is_err() {
        tracing::warn!("The engine did not stop in time; the next mount goes on from its journal");
    }
}

fn explain_engine(plan: &Plan, error: EngineError) -> Failure {
    let what = format!("mounting {}", plan.title());
    match error {
        EngineError::AlreadyRunning { pid } => {
            let place = serving(plan, pid);
            let failure = Failure::because(what, EngineError::AlreadyRunning { pid });
            match place {
                Some(place) => failure.next(format!(
                    "use {0}, or run `onedrivefs unmount {0}` first",
                    place.display()
                )),
                None => failure.next(format!("end process {pid} first")),
            }
        }
        EngineError::State { path, source } => unwritable(&path, source),
        error if error.is_local_disk() => {
            let state = plan.dirs.drive_state(&plan.account, &plan.root());
            Failure::because(what, error).next(format!(
                "make room on the disk of {}, and see that it can be written; nothing that was \
                 saved is lost",
                state.display()
            ))
        }
        error => Failure::because(what, error).next("run `onedrivefs doctor`"),
    }
}

/// Says what to do about a mount or an unmount that failed.
pub(crate) fn explain_mount(what: &str, error: MountError) -> Failure {
    let next = match &error {
        MountError::Missing { path } => format!("mkdir -p '{}'", path.display()),
        MountError::AlreadyMounted { path, fs_type, .. } if fs_type == registry::MOUNT_TYPE => {
            format!("onedrivefs unmount '{}'", path.display())
        }
        MountError::NotADirectory { .. }
        | MountError::NotEmpty { .. }
        | MountError::AlreadyMounted { .. } => "choose an empty directory".to_owned(),
        MountError::NoAccess { .. } => "choose a directory of your own".to_owned(),
        MountError::DeviceMissing => "sudo modprobe fuse".to_owned(),
        MountError::DeviceDenied => "sudo chmod 0666 /dev/fuse".to_owned(),
        MountError::HelperMissing => "install the package fuse3".to_owned(),
        MountError::NotMounted { .. } | MountError::NotOurs { .. } => {
            "`onedrivefs accounts` lists what is mounted".to_owned()
        }
        MountError::AllowOtherDenied => {
            "add the line user_allow_other to /etc/fuse.conf, or leave --allow-other out".to_owned()
        }
        MountError::Busy { path } => format!("fuser -vm '{}' shows who uses it", path.display()),
        _ => "run `onedrivefs doctor`".to_owned(),
    };
    Failure::because(what, error).next(next)
}
