//! All mounts of the configuration in one process: `onedrivefs mount --all`.
//!
//! Those of one account share its tokens, its connections and the pace at which the service lets it
//! ask. Each has an engine, a socket and a fate of its own: one that fails is tried again with growing
//! pauses, says so in `status`, and keeps none of the others from serving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onedrivefs_core::DriveId;
use onedrivefs_graph::{Feature, GraphClient};
use onedrivefs_sync::Company;
use onedrivefs_vfs::Forest;
use parking_lot::Mutex;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::account::{self, AccountRecord, SignInKind};
use crate::config::{Layer, MountLayer};
use crate::connect::{self, Patience};
use crate::control::registry::{self, Record, Running};
use crate::control::server::{Handler, Listener, Reply};
use crate::control::{Answer, Request};
use crate::daemon::{Access, Common, End, Plan, Served, Signals};
use crate::desktop::Reminders;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs, create_private_dir};
use crate::report::{self, Gist};
use crate::root::{Again, Root, Selection, Unready};
use crate::sign_in::SignInReport;
use crate::tree;

/// First pause after a mount failed; it doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What all mounts of the process share.
struct Shared {
    dirs: Dirs,
    config: Layer,
    /// The way to the service, by account, and when somebody was last reminded to sign in to it.
    clients: Mutex<BTreeMap<AccountName, (GraphClient, Arc<Reminders>)>>,
    /// What the engines of all mounts share.
    company: Company,
    /// What is being served, by its place.
    serving: Mutex<BTreeMap<PathBuf, Arc<Forest>>>,
    /// Raised when the process is to end.
    stop: watch::Receiver<bool>,
    /// How many mounts there are to be, and were tried once.
    wanted: usize,
    tried: AtomicUsize,
}

/// One mount of the configuration.
struct Wanted {
    place: PathBuf,
    layer: MountLayer,
}

/// How a mount left off.
enum Left {
    /// Somebody unmounted it, or the process is to end.
    Ended,
    /// It failed, and is tried again.
    Failed(Failure),
}

/// Mounts everything that the configuration names, and serves it until all of it is unmounted.
pub(crate) async fn serve(dirs: Dirs, config: Layer) -> Outcome {
    let mut signals = Signals::install()?;
    create_private_dir(&dirs.runtime)?;
    let mut wanted = Vec::new();
    for (place, layer) in &config.mounts {
        wanted.push(Wanted {
            place: crate::paths::absolute(place)?,
            layer: layer.clone(),
        });
    }
    if wanted.is_empty() {
        return Err(
            Failure::usage("mounting all", "the configuration names no mount")
                .next("add one: [mounts.\"/home/you/OneDrive\"] in config.toml"),
        );
    }
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        dirs,
        config,
        clients: Mutex::default(),
        company: Company::default(),
        serving: Mutex::default(),
        stop: stopped,
        wanted: wanted.len(),
        tried: AtomicUsize::new(0),
    });
    let mut mounts = JoinSet::new();
    for mount in wanted {
        mounts.spawn(keep(Arc::clone(&shared), mount));
    }
    let all = async { while mounts.join_next().await.is_some() {} };
    tokio::pin!(all);
    tokio::select! {
        () = &mut all => return Ok(()),
        () = shared.go_on_reporting() => {}
        signal = signals.next() => tracing::info!(signal, "Asked to end"),
    }
    signals.end_at_next();
    report::tell(&[NotifyState::Stopping]);
    stop.send_replace(true);
    all.await;
    Ok(())
}

/// Serves one mount for as long as it is wanted.
async fn keep(shared: Arc<Shared>, wanted: Wanted) {
    let mut pause = FIRST_PAUSE;
    let mut standby: Option<Standby> = None;
    let mut stop = shared.stop.clone();
    let mut tried = Some(&shared.tried);
    loop {
        let failure = match attempt(&shared, &wanted, &mut standby, &mut pause, &mut tried).await {
            Left::Ended => return,
            Left::Failed(failure) => failure,
        };
        tracing::warn!(
            path = %wanted.place.display(),
            why = failure.sentence(),
            "A mount failed; it is tried again"
        );
        shared.report();
        match &standby {
            Some(standby) => standby.tell(&failure),
            None => {
                output::note(failure.to_string());
                standby = Standby::listen(&shared, &wanted, &failure);
            }
        }
        let told = standby.as_ref().map(|standby| Arc::clone(&standby.told));
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = hurried(told.as_deref()) => pause = FIRST_PAUSE,
            _ = stop.wait_for(|&stop| stop) => return,
        }
        if standby.as_ref().is_some_and(Standby::is_given_up) {
            return;
        }
    }
}

async fn hurried(told: Option<&Told>) {
    match told {
        Some(told) => told.hurry.notified().await,
        None => std::future::pending().await,
    }
}

/// One try: finds what is meant, mounts it, and serves it to its end.
async fn attempt(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    standby: &mut Option<Standby>,
    pause: &mut Duration,
    tried: &mut Option<&AtomicUsize>,
) -> Left {
    let mut stop = shared.stop.clone();
    let started = tokio::select! {
        _ = stop.wait_for(|&stop| stop) => return Left::Ended,
        started = start(shared, wanted) => started,
    };
    if let Some(tried) = tried.take() {
        tried.fetch_add(1, Ordering::Relaxed);
    }
    let served = match started {
        Ok(served) => served,
        Err(failure) => return Left::Failed(failure),
    };
    *standby = None;
    *pause = FIRST_PAUSE;
    let forest = Arc::clone(&served.forest);
    shared.serving.lock().insert(wanted.place.clone(), forest);
    shared.report();
    let end = tokio::select! {
        end = served.wait() => end,
        _ = stop.wait_for(|&stop| stop) => End::requested(),
    };
    let again = end.is_failure();
    // Nobody else holds on to it: its state is free for others when it has ended.
    shared.serving.lock().remove(&wanted.place);
    let outcome = served.end(end).await;
    shared.report();
    match outcome {
        Err(failure) if again => Left::Failed(failure),
        Err(failure) => {
            output::note(failure.to_string());
            Left::Ended
        }
        Ok(()) => Left::Ended,
    }
}

/// Finds what is meant and mounts it.
async fn start(shared: &Arc<Shared>, wanted: &Wanted) -> Outcome<Served> {
    let (dirs, config) = (&shared.dirs, &shared.config);
    let mut layer = wanted.layer.clone();
    let (account, mut record) = account::choose(dirs, config, layer.account.as_ref())?;
    let tree = layer.tree == Some(true);
    if !layer.names_whose() && !tree && record.sign_in == SignInKind::App {
        layer.user.clone_from(&record.mailbox);
    }
    let (graph, reminders, is_first) = shared.client(&account, &record)?;
    let selection = Selection::of(&layer);
    let root = if tree {
        Root::whole(tree::root())
    } else {
        selection.check(&account, &record)?;
        selection
            .resolve(dirs, &account, &mut record, &graph, Unready::Fail)
            .await?
    };
    let forbidden = record.permissions().read_only();
    let plan = Plan {
        sign_in: Some(SignInReport::new(dirs, config, &account)),
        // One mount of an account is enough to warn of what concerns all of them.
        warns: is_first,
        common: Common {
            company: shared.company.clone(),
            reminders,
        },
        dirs: dirs.clone(),
        account,
        oneself: record.oneself(&root.drive),
        drive: root.drive,
        folder: root.folder,
        again: Again::of(&selection, &record).filter(|_| !tree && !root.is_file),
        is_file: root.is_file,
        tree,
        graph,
        config: config.clone(),
        access: Access {
            read_only: layer.read_only.unwrap_or(false) || forbidden,
            read_only_elsewhere: !record.permissions().allow(Feature::WriteOthers),
            allow_other: layer.allow_other.unwrap_or(false),
        },
        mountpoint: wanted.place.clone(),
        greeting: None,
    };
    Served::start(plan).await
}

impl Shared {
    /// The way to the service that all mounts of an account share, and whether it was made just now.
    fn client(
        &self,
        account: &AccountName,
        record: &AccountRecord,
    ) -> Outcome<(GraphClient, Arc<Reminders>, bool)> {
        let mut clients = self.clients.lock();
        if let Some((graph, reminders)) = clients.get(account) {
            return Ok((graph.clone(), Arc::clone(reminders), false));
        }
        let made = connect::client(&self.dirs, &self.config, account, record, Patience::Daemon)?;
        let reminders = Arc::<Reminders>::default();
        clients.insert(account.clone(), (made.clone(), Arc::clone(&reminders)));
        Ok((made, reminders, true))
    }

    /// How all that is served is doing; `None` when a part cannot be read.
    fn gist(&self) -> Option<Gist> {
        let serving: Vec<_> = self.serving.lock().values().cloned().collect();
        let mut all = Gist::default();
        for forest in serving {
            all.add(&Gist::of(&forest).ok()?);
        }
        Some(all)
    }

    /// How many mounts serve.
    fn up(&self) -> String {
        format!("{} of {} mounted", self.serving.lock().len(), self.wanted)
    }

    /// Tells systemd how many mounts serve, and that the start is over once each was tried.
    fn report(&self) {
        let status = self.up();
        let mut states = vec![NotifyState::Status(&status)];
        if self.tried.load(Ordering::Relaxed) >= self.wanted {
            states.push(NotifyState::Ready);
        }
        report::tell(&states);
        self.company.stir().changed();
    }

    /// Goes on telling systemd how all of them are doing.
    async fn go_on_reporting(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let line = |gist: &Gist| format!("{}. {}", self.up(), gist.text());
        report::go_on(self.company.stir().clone(), move || shared.gist(), line).await;
        std::future::pending::<()>().await;
    }
}

/// Answers in the place of a mount that did not come up.
struct Standby {
    told: Arc<Told>,
    server: tokio::task::JoinHandle<()>,
    _record: Record,
}

/// What is said about it.
struct Told {
    place: PathBuf,
    failure: Mutex<(String, Option<String>)>,
    /// Somebody wants another try now, or none any more.
    hurry: Notify,
    given_up: std::sync::atomic::AtomicBool,
}

impl Standby {
    /// Begins to answer. A socket that cannot be had is only a pity.
    fn listen(shared: &Shared, wanted: &Wanted, failure: &Failure) -> Option<Self> {
        let listen = || -> Outcome<Self> {
            let account = wanted.layer.account.clone().unwrap_or_default();
            let stem = shared.dirs.standby_stem(&wanted.place);
            let running = Running {
                pid: std::process::id(),
                account,
                drive: DriveId::new("-"),
                mountpoint: wanted.place.clone(),
                socket: shared.dirs.runtime.join(format!("{stem}.sock")),
            };
            let _turn = registry::turn(&shared.dirs)?;
            let listener = Listener::bind(&running.socket)?;
            let record = Record::write(&shared.dirs, &stem, &running)?;
            let told = Arc::new(Told::new(&wanted.place, failure));
            let server = tokio::spawn(listener.serve(Arc::new(Answering(Arc::clone(&told)))));
            Ok(Self {
                told,
                server,
                _record: record,
            })
        };
        let listening = listen();
        if let Err(failure) = &listening {
            tracing::warn!(
                why = failure.sentence(),
                "A failed mount cannot be asked about"
            );
        }
        listening.ok()
    }

    fn tell(&self, failure: &Failure) {
        *self.told.failure.lock() = said(failure);
    }

    fn is_given_up(&self) -> bool {
        self.told.given_up.load(Ordering::Relaxed)
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn said(failure: &Failure) -> (String, Option<String>) {
    (failure.sentence(), failure.remedy().map(str::to_owned))
}

impl Told {
    fn new(place: &Path, failure: &Failure) -> Self {
        Self {
            place: place.to_owned(),
            failure: Mutex::new(said(failure)),
            hurry: Notify::new(),
            given_up: std::sync::atomic::AtomicBool::new(false),
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let (why, next) = self.failure.lock().clone();
        match request {
            Request::Status => Answer::Done {
                value: json!({"state": "not-mounted", "error": why, "next": next}),
            },
            Request::CredentialsChanged => {
                self.hurry.notify_one();
                Answer::Done {
                    value: serde_json::Value::Null,
                }
            }
            Request::Unmount => {
                self.given_up.store(true, Ordering::Relaxed);
                self.hurry.notify_one();
                Answer::Done {
                    value: serde_json::Value::Null,
                }
            }
            _ => Answer::Failed {
                why: format!("{} is not mounted: {why}", self.place.display()),
                next,
            },
        }
    }
}

/// The handler of a mount that did not come up.
struct Answering(Arc<Told>);

impl Handler for Answering {
    async fn handle(&self, request: Request, mut reply: Reply) {
        // A client that went away needs no answer.
        drop(reply.send(&self.0.answer(&request)).await);
    }
}
