//! What a daemon answers on its control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_fuse::MountError;
use onedrivefs_graph::GraphClient;
use onedrivefs_sync::{EngineError, Kept, Pending, PinOutcome, PinTrouble, SyncOutcome};
use onedrivefs_vfs::Forest;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::control::server::{Handler, Reply};
use crate::control::{Answer, Request};
use crate::sign_in::SignInReport;
use crate::size::ByteSize;
use crate::status::{counted, held_next, pending_text};
use crate::together;
use crate::tree::Notes;
use crate::unmounting;

/// Progress lines waiting for a slow client; more are left out, the next one says it all.
const PROGRESS_QUEUE: usize = 16;

/// Answers for one mount.
pub(crate) struct Control {
    forest: Arc<Forest>,
    graph: GraphClient,
    mountpoint: PathBuf,
    sign_in: Option<SignInReport>,
    notes: Notes,
}

impl Control {
    /// Prepares to answer.
    pub(crate) fn new(
        forest: Arc<Forest>,
        graph: GraphClient,
        mountpoint: PathBuf,
        sign_in: Option<SignInReport>,
        notes: Notes,
    ) -> Self {
        Self {
            forest,
            graph,
            mountpoint,
            sign_in,
            notes,
        }
    }

    /// The state of the mount, with what is known about its sign-in.
    async fn status(&self) -> Answer {
        let forest = Arc::clone(&self.forest);
        let (sign_in, note) = (self.sign_in.clone(), self.notes.get());
        let tokens = self.graph.tokens();
        let problem = tokens.needs_login().then(|| tokens.problem()).flatten();
        blocking(move || {
            let status = match together::status(&forest) {
                Ok(status) => status,
                Err(error) => return failed(describe(&error), "run `onedrivefs doctor`"),
            };
            let mut status = serde_json::to_value(&status).unwrap_or_default();
            status["note"] = note.into();
            if let Some(report) = sign_in {
                status["sign_in"] = report.to_json();
                status["sign_in"]["problem"] = problem.into();
            }
            done(&status)
        })
        .await
    }

    /// Takes over a sign-in that happened elsewhere.
    async fn take_over(&self) -> Answer {
        let tokens = Arc::clone(self.graph.tokens());
        let sign_in = self.sign_in.clone();
        let answer = blocking(move || {
            if let Some(store) = sign_in.and_then(|report| report.tokens()) {
                tokens.set_store(store);
            }
            if let Err(error) = tokens.reload() {
                tracing::warn!(%error, "Could not read the new sign-in");
            }
            done(&Value::Null)
        });
        let answer = answer.await;
        for engine in self.forest.engines() {
            engine.credentials_changed();
        }
        answer
    }

    async fn answer(&self, request: Request, reply: &mut Reply) -> Answer {
        match request {
            Request::Status => self.status().await,
            Request::PathStatus { path } => {
                let forest = Arc::clone(&self.forest);
                blocking(move || match together::path_status(&forest, &path) {
                    Ok(status) => done(&status),
                    Err(error) => failed(
                        describe(&error),
                        "check the spelling; what is in a folder is known once it was listed",
                    ),
                })
                .await
            }
            Request::Sync { path, timeout_s } => self.sync(path, timeout_s, reply).await,
            Request::Pin { path } => {
                let forest = Arc::clone(&self.forest);
                let pin = move || {
                    let (engine, path) = forest.route(&path)?;
                    engine.pin(&path)
                };
                blocking(move || pinning(pin())).await
            }
            Request::AwaitPinned { path } => self.await_pinned(&path, reply).await,
            Request::Unpin { path } => {
                let forest = Arc::clone(&self.forest);
                let unpin = move || {
                    let (engine, path) = forest.route(&path)?;
                    let by = engine.unpin(&path)?;
                    Ok(by.map(|by| forest.full_path(&engine, &by)))
                };
                blocking(move || pinning(unpin())).await
            }
            Request::Evict { path } => pinning(together::evict(&self.forest, &path).await),
            Request::Retry { path } => parked(together::retry(&self.forest, &path).await),
            Request::Discard { path } => parked(together::discard(&self.forest, &path).await),
            Request::Export { path, to } => {
                let to = Path::new(&to);
                parked(together::export(&self.forest, &path, to).await)
            }
            Request::CredentialsChanged => self.take_over().await,
            Request::Unmount => {
                let tried =
                    unmounting::unmount(self.forest.main().engine(), &self.mountpoint).await;
                unmounted(tried, &self.mountpoint).await
            }
        }
    }

    async fn sync(
        &self,
        path: Option<String>,
        timeout_s: Option<u64>,
        reply: &mut Reply,
    ) -> Answer {
        let (sender, receiver) = mpsc::channel::<Answer>(PROGRESS_QUEUE);
        let timeout = timeout_s.map(Duration::from_secs);
        let progress = move |pending: &Pending, obstacle: Option<&str>| {
            // When the queue is full, the client is told with the next change.
            let _told = sender.try_send(Answer::Progress {
                ops: pending.ops,
                bytes: pending.bytes,
                obstacle: obstacle.map(str::to_owned),
            });
        };
        let syncing = together::sync(&self.forest, path.as_deref(), timeout, progress);
        match tell_while(syncing, receiver, reply).await {
            Some(outcome) => self.sync_answer(outcome),
            None => client_gone(),
        }
    }

    async fn await_pinned(&self, path: &str, reply: &mut Reply) -> Answer {
        let (sender, receiver) = mpsc::channel::<Answer>(PROGRESS_QUEUE);
        let progress = move |kept: &Kept, trouble: Option<&PinTrouble>| {
            // When the queue is full, the client is told with the next file.
            let _told = sender.try_send(Answer::Progress {
                ops: kept.to_fetch.files,
                bytes: kept.to_fetch.bytes,
                obstacle: trouble.map(|trouble| format!("/{}: {}", trouble.path, trouble.error)),
            });
        };
        let (engine, inside) = match together::route(&self.forest, path).await {
            Ok(routed) => routed,
            Err(error) => return pinning::<()>(Err(error)),
        };
        let waiting = engine.wait_pinned(&inside, progress);
        match tell_while(waiting, receiver, reply).await {
            Some(Ok(outcome)) => pin_answer(&outcome, path),
            Some(Err(error)) => pinning::<()>(Err(error)),
            None => client_gone(),
        }
    }

    fn sync_answer(&self, outcome: Result<SyncOutcome, EngineError>) -> Answer {
        match outcome {
            Err(error) => failed(describe(&error), "run `onedrivefs doctor`"),
            Ok(SyncOutcome::Done) => done(&Value::Null),
            Ok(SyncOutcome::TimedOut { pending, obstacle }) => {
                let waits = obstacle.map_or_else(String::new, |why| format!("; waits for {why}"));
                failed(
                    format!(
                        "time ran out; still to send: {}{waits}",
                        pending_text(pending.ops, pending.bytes)
                    ),
                    "it goes on in the background; look with `onedrivefs status`",
                )
            }
            Ok(SyncOutcome::Parked { parked, held: 0 }) => failed(
                format!("{} could not be sent", counted(parked, "change")),
                "`onedrivefs status` names them and says why",
            ),
            Ok(SyncOutcome::Parked { parked, held }) => {
                let others = match parked {
                    0 => String::new(),
                    _ => format!("; {} could not be sent", counted(parked, "change")),
                };
                failed(
                    format!("{} held back{others}", counted(held, "deletion")),
                    &held_next(&self.mountpoint.display().to_string()),
                )
            }
            Ok(SyncOutcome::Offline) => failed(
                "there is no network".to_owned(),
                "changes are kept and sent as soon as there is one",
            ),
            Ok(SyncOutcome::NeedsLogin) => failed(
                "the sign-in has expired".to_owned(),
                "run `onedrivefs login`; changes are kept meanwhile",
            ),
        }
    }
}

impl Handler for Control {
    async fn handle(&self, request: Request, mut reply: Reply) {
        let answer = self.answer(request, &mut reply).await;
        // A client that went away needs no answer.
        drop(reply.send(&answer).await);
    }
}

/// What unmounting came to.
async fn unmounted(tried: Result<(), MountError>, mountpoint: &Path) -> Answer {
    match tried {
        Ok(()) => done(&Value::Null),
        Err(error @ MountError::Busy { .. }) => {
            let users = unmounting::users_text(mountpoint).await;
            let why = match users.as_str() {
                "" => error.to_string(),
                users => format!("{} is in use by {users}", mountpoint.display()),
            };
            failed(
                why,
                "close what uses it, or send the daemon SIGTERM to detach the mount",
            )
        }
        Err(error) => failed(error.to_string(), "run `onedrivefs doctor`"),
    }
}

/// Does something and passes on what it tells meanwhile. `None` when the client went away.
async fn tell_while<T>(
    work: impl Future<Output = T>,
    mut receiver: mpsc::Receiver<Answer>,
    reply: &mut Reply,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return Some(outcome),
            Some(told) = receiver.recv() => reply.send(&told).await.ok()?,
        }
    }
}

fn client_gone() -> Answer {
    failed("the client went away".to_owned(), "run it again")
}

/// How waiting for pinned content ended.
fn pin_answer(outcome: &PinOutcome, path: &str) -> Answer {
    let left = |kept: &Kept| {
        let size = ByteSize(kept.to_fetch.bytes);
        format!("{}, {size}", counted(kept.to_fetch.files, "file"))
    };
    match outcome {
        PinOutcome::Done(kept) => done(kept),
        PinOutcome::Unpinned => failed(
            format!("{path} was unpinned meanwhile"),
            "pin it again to have it fetched",
        ),
        PinOutcome::Offline(kept) => failed(
            format!("there is no network; still to fetch: {}", left(kept)),
            "it stays pinned and is fetched as soon as there is one",
        ),
        PinOutcome::NeedsLogin(kept) => failed(
            format!("the sign-in has expired; still to fetch: {}", left(kept)),
            "run `onedrivefs login`; it stays pinned and is fetched then",
        ),
        PinOutcome::Failed(kept, trouble) => failed(
            format!(
                "/{}: {}; still to fetch: {}",
                trouble.path,
                trouble.error,
                left(kept)
            ),
            "it stays pinned and is tried again; `onedrivefs status` names all that fails",
        ),
    }
}

/// What pinning, unpinning or evicting came to.
fn pinning<T: Serialize>(result: Result<T, EngineError>) -> Answer {
    match result {
        Ok(value) => done(&value),
        Err(error) => {
            let next = match &error {
                EngineError::PinnedByFolder { folder, .. } => {
                    &format!("unpin {folder}, or move the file out of it")
                }
                EngineError::NotPinned { .. } => "`onedrivefs status` lists what is pinned",
                EngineError::NoSuchPath { .. } => {
                    "check the spelling; what is in a folder is known once it was listed"
                }
                _ => "run `onedrivefs doctor`",
            };
            failed(describe(&error), next)
        }
    }
}

fn parked<T: Serialize>(result: Result<T, EngineError>) -> Answer {
    match result {
        Ok(value) => done(&value),
        Err(error) => {
            let next = match &error {
                EngineError::Incomplete { .. } => {
                    "export it when the service can be reached, or copy out of the mount what can \
                     be read"
                }
                EngineError::NotAFile { .. } => "name a file in it",
                EngineError::HoldsUnsent { .. } => {
                    "move what you need out of the folder and delete the rest in it, then discard it"
                }
                EngineError::Export { .. } => "make room there, or go to another directory",
                _ => "`onedrivefs status` lists what is parked",
            };
            failed(describe(&error), next)
        }
    }
}

/// An error with its causes, in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| failed(error.to_string(), "look at the daemon's log"))
}

fn done(value: &impl Serialize) -> Answer {
    match serde_json::to_value(value) {
        Ok(value) => Answer::Done { value },
        Err(error) => failed(error.to_string(), "please report this"),
    }
}

fn failed(why: String, next: &str) -> Answer {
    Answer::Failed {
        why,
        next: Some(next.to_owned()),
    }
}
