//! The answering side of the control socket.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::client::ReachablePath;
use super::{Answer, LINE_MAX, Request};
use crate::failure::Outcome;
use crate::paths::{create_private_dir, remove_file, unwritable};

/// Connections served at the same time; more wait. A `status --watch` per terminal is far fewer.
const CONNECTIONS_MAX: usize = 32;

/// Time a client has to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where answers go.
pub(crate) struct Reply {
    stream: OwnedWriteHalf,
}

impl Reply {
    /// Sends one line. A client that went away is told nothing more.
    pub(crate) async fn send(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }
}

/// What a daemon does with requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request; the last line sent is final.
    fn handle(&self, request: Request, reply: Reply) -> impl Future<Output = ()> + Send;
}

/// A socket that only this user reaches, removed when the daemon ends.
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Creates the socket in place of one that a killed daemon left. The caller holds the lock of
    /// the drive, so that no living daemon listens there.
    pub(crate) fn bind(path: &Path) -> Outcome<Self> {
        if let Some(parent) = path.parent() {
            create_private_dir(parent)?;
        }
        remove_file(path)?;
        let bind = || -> io::Result<UnixListener> {
            // Kept until the address was used: a long path leads through its open directory.
            let reachable = ReachablePath::new(path)?;
            let listener = UnixListener::bind(&reachable)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bind().map_err(|error| unwritable(path, error))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self, handler: Arc<impl Handler>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "Could not accept a control connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let handler = Arc::clone(&handler);
            tokio::spawn(async move {
                serve_one(stream, handler).await;
                drop(place);
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(failure) = remove_file(&self.path) {
            tracing::warn!(reason = failure.reason(), "Left the control socket behind");
        }
    }
}

async fn serve_one(stream: UnixStream, handler: Arc<impl Handler>) {
    if !is_same_user(&stream) {
        tracing::warn!("Refused a control connection of another user");
        return;
    }
    let (read, write) = stream.into_split();
    let mut reply = Reply { stream: write };
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(read).take(limit);
    let reading = reader.read_until(b'\n', &mut line);
    if !matches!(
        tokio::time::timeout(REQUEST_TIMEOUT, reading).await,
        Ok(Ok(1..))
    ) {
        return;
    }
    match serde_json::from_slice(&line) {
        Ok(request) => handler.handle(request, reply).await,
        Err(error) => {
            let answer = Answer::Failed {
                why: format!("the request was not understood: {error}"),
                next: Some("use the onedrivefs that runs the mount, or mount again".to_owned()),
            };
            // A client that went away needs no answer.
            drop(reply.send(&answer).await);
        }
    }
}

/// The directory already keeps others out; this holds should somebody loosen its mode.
fn is_same_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::client;
    use crate::control::registry::Running;
    use onedrivefs_core::DriveId;
    use serde_json::json;

    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, request: Request, mut reply: Reply) {
            if matches!(request, Request::Sync { .. }) {
                reply
                    .send(&Answer::Progress {
                        ops: 2,
                        bytes: 9,
                        obstacle: Some("a.txt: locked".to_owned()),
                    })
                    .await
                    .expect("sent");
            }
            let answer = match request {
                Request::Retry { path } => Answer::Failed {
                    why: format!("no {path}"),
                    next: None,
                },
                other => Answer::Done {
                    value: json!(format!("{other:?}")),
                },
            };
            reply.send(&answer).await.expect("sent");
        }
    }

    #[tokio::test]
    async fn requests_are_answered_also_through_long_paths() {
        let root = tempfile::tempdir().expect("temporary directory");
        let long = root.path().join("d".repeat(120));
        for dir in [root.path(), &long] {
            let socket = dir.join("x.sock");
            let server = tokio::spawn(
                Listener::bind(&socket)
                    .expect("bound")
                    .serve(Arc::new(Echo)),
            );
            let mode = std::fs::metadata(&socket)
                .expect("socket")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            let daemon = Running {
                pid: std::process::id(),
                account: crate::paths::AccountName::default(),
                drive: DriveId::new("b!x"),
                mountpoint: "/m".into(),
                socket: socket.clone(),
            };
            let value = client::ask(&daemon, &Request::Status)
                .await
                .expect("answered");
            assert_eq!(value, json!("Status"));
            let mut seen = Vec::new();
            let sync = Request::Sync {
                path: None,
                timeout_s: None,
            };
            client::converse(&daemon, &sync, |told| {
                seen.push((told.ops, told.bytes, told.obstacle));
            })
            .await
            .expect("answered");
            assert_eq!(seen, [(2, 9, Some("a.txt: locked".to_owned()))]);
            let retry = Request::Retry { path: "/a".into() };
            let refused = client::ask(&daemon, &retry).await.expect_err("refused");
            assert!(refused.to_string().contains("retry: no /a"), "{refused}");
            server.abort();
            assert!(server.await.expect_err("aborted").is_cancelled());
            assert!(!socket.exists());
        }
    }
}
