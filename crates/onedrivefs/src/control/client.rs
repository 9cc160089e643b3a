//! The asking side of the control socket.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::registry::Running;
use super::{Answer, LINE_MAX, Request};
use crate::failure::{Explain, Failure, Outcome};
use crate::paths::SOCKET_PATH_MAX;

/// Time a daemon has for an answer that only concerns what it holds in memory.
const QUICK_ANSWER: Duration = Duration::from_secs(10);

/// A path short enough for a socket address: a long one is reached through its open directory.
pub(crate) struct ReachablePath {
    path: PathBuf,
    /// Keeps the directory's entry in `/proc/self/fd` alive.
    _dir: Option<File>,
}

impl ReachablePath {
    /// Opens the directory if the path is too long for `sun_path`.
    pub(crate) fn new(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self {
                path: socket.to_owned(),
                _dir: None,
            });
        }
        let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = File::open(parent)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok(Self {
            path,
            _dir: Some(dir),
        })
    }
}

impl AsRef<Path> for ReachablePath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// How far a daemon is with something that takes its time.
pub(crate) struct Progress {
    /// Changes not sent yet, or files not here yet.
    pub(crate) ops: u64,
    /// Bytes not sent yet, or not here yet.
    pub(crate) bytes: u64,
    /// What of that fails, and why.
    pub(crate) obstacle: Option<String>,
}

/// Asks a daemon something it can answer at once.
pub(crate) async fn ask(daemon: &Running, request: &Request) -> Outcome<Value> {
    match tokio::time::timeout(QUICK_ANSWER, converse(daemon, request, |_| {})).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::new(what(daemon), "it does not answer")
            .next(format!("look at its log, or end process {}", daemon.pid))),
    }
}

/// Asks a daemon something that takes its time, and hears about the progress.
pub(crate) async fn converse(
    daemon: &Running,
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Outcome<Value> {
    let unreachable = |error: io::Error| {
        Failure::because(what(daemon), error).next(format!(
            "if process {} is no onedrivefs any more, mount {} again",
            daemon.pid,
            daemon.mountpoint.display()
        ))
    };
    let path = ReachablePath::new(&daemon.socket).map_err(unreachable)?;
    let mut stream = UnixStream::connect(&path).await.map_err(unreachable)?;
    let mut line = serde_json::to_vec(request).explain(|| what(daemon))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(unreachable)?;
    let mut reader = BufReader::new(stream);
    loop {
        match read_answer(&mut reader).await.map_err(unreachable)? {
            Some(Answer::Progress {
                ops,
                bytes,
                obstacle,
            }) => progress(Progress {
                ops,
                bytes,
                obstacle,
            }),
            Some(Answer::Done { value }) => return Ok(value),
            Some(Answer::Failed { why, next }) => {
                let failure = Failure::new(request.verb(), why);
                return Err(match next {
                    Some(next) => failure.next(next),
                    None => failure,
                });
            }
            None => {
                return Err(
                    Failure::new(what(daemon), "it ended before it had answered")
                        .next("look at its log"),
                );
            }
        }
    }
}

async fn read_answer(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Answer>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    reader.take(limit).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(io::Error::from)
}

fn what(daemon: &Running) -> String {
    format!("asking the daemon of {}", daemon.mountpoint.display())
}
