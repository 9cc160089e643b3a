//! Which daemons run: a small record beside each socket, so that a path leads to the daemon that
//! serves it.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use onedrivefs_core::DriveId;
use serde::{Deserialize, Serialize};

use super::client::ReachablePath;
use crate::failure::{Explain, Failure, Outcome};
use crate::paths::{AccountName, Dirs, absolute, remove_file, unreadable, write_private};

/// File system type that the kernel shows for our mounts.
pub(crate) const MOUNT_TYPE: &str = "fuse.onedrivefs";

/// Time after which a process that has lost its first thread counts as unable to end.
const ENDING_TIME: Duration = Duration::from_millis(500);

/// Time a killed daemon has to be gone once nothing holds it.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Pause between two looks whether it is.
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// A running daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// The account it uses.
    pub(crate) account: AccountName,
    /// The drive it serves.
    pub(crate) drive: DriveId,
    /// Where it is mounted.
    pub(crate) mountpoint: PathBuf,
    /// Where it listens.
    pub(crate) socket: PathBuf,
}

/// The record of a daemon, removed when the daemon ends.
#[derive(Debug)]
pub(crate) struct Record {
    file: PathBuf,
}

impl Record {
    /// Writes the record.
    pub(crate) fn write(dirs: &Dirs, stem: &str, running: &Running) -> Outcome<Self> {
        let file = dirs.runtime.join(format!("{stem}.json"));
        let bytes = serde_json::to_vec(running).explain(|| "recording the daemon".to_owned())?;
        write_private(&file, &bytes)?;
        Ok(Self { file })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Err(failure) = remove_file(&self.file) {
            tracing::warn!(reason = failure.reason(), "Left the daemon's record behind");
        }
    }
}

/// Lists the daemons that listen; records of dead ones are removed.
pub(crate) fn list(dirs: &Dirs) -> Outcome<Vec<Running>> {
    let entries = match fs::read_dir(&dirs.runtime) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| unreadable(&dirs.runtime, error))?,
    };
    let mut running = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(daemon) = serde_json::from_slice::<Running>(&bytes) else {
            continue;
        };
        if is_dying(daemon.pid) {
            release(&daemon);
        }
        if is_listening(&daemon.socket) {
            running.push(daemon);
        } else {
            forget(dirs, &path, &bytes, &daemon)?;
        }
    }
    running.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    Ok(running)
}

/// Waits until nobody else changes records and sockets, and keeps them from it while the result
/// lives.
pub(crate) fn turn(dirs: &Dirs) -> Outcome<File> {
    let lock = || {
        let dir = File::open(&dirs.runtime)?;
        dir.lock()?;
        Ok(dir)
    };
    lock().map_err(|error| unreadable(&dirs.runtime, error))
}

/// Removes the record and the socket of a dead daemon, unless another one has begun to serve in its
/// place since they were looked at.
fn forget(dirs: &Dirs, record: &Path, seen: &[u8], daemon: &Running) -> Outcome {
    let _turn = turn(dirs)?;
    let unchanged = fs::read(record).is_ok_and(|now| now == seen);
    if unchanged && !is_listening(&daemon.socket) {
        remove_file(record)?;
        remove_file(&daemon.socket)?;
    }
    Ok(())
}

/// Tells whether somebody listens on a socket. A process id would prove less: it may be in use
/// again for something else.
fn is_listening(socket: &Path) -> bool {
    let connected = ReachablePath::new(socket).and_then(|path| UnixStream::connect(&path));
    !matches!(
        connected.map_err(|error| error.kind()),
        Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
    )
}

/// Tells whether a process was killed and is not gone: its first thread has ended and another one
/// cannot. A process that is just ending is in that state for a moment, too.
fn is_dying(pid: u32) -> bool {
    if !has_lost_its_first_thread(pid) {
        return false;
    }
    thread::sleep(ENDING_TIME);
    has_lost_its_first_thread(pid)
}

fn has_lost_its_first_thread(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let ended = field("State:").is_some_and(|state| state.trim_start().starts_with('Z'));
    let threads = field("Threads:").and_then(|count| count.trim().parse::<u32>().ok());
    ended && threads.is_some_and(|count| count > 1)
}

/// Lets a killed daemon go, and the programs that wait for it.
fn release(daemon: &Running) {
    tracing::warn!(
        pid = daemon.pid,
        path = %daemon.mountpoint.display(),
        "Ended the connection of a killed daemon that could not leave"
    );
    if let Err(error) = onedrivefs_fuse::abort(&daemon.mountpoint) {
        tracing::warn!(%error, "The connection could not be ended");
    }
    let deadline = Instant::now() + RELEASE_LIMIT;
    while is_listening(&daemon.socket) && Instant::now() < deadline {
        thread::sleep(RELEASE_POLL);
    }
}

/// Mountpoints of ours whose daemon is gone. What the kernel's table cannot tell is left out.
pub(crate) fn dead_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            (kind == MOUNT_TYPE).then(|| PathBuf::from(unescape(place)))
        })
        .filter(|place| onedrivefs_fuse::is_stale(place))
        .collect()
}

/// Undoes the octal escapes of the kernel's table (proc(5)): blank, tab, line end, backslash.
fn unescape(field: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(field.to_owned(), |text, (escape, plain)| {
        text.replace(escape, plain)
    })
}

/// Finds the daemon that serves a path, and the path inside its mount; without a path, the only
/// daemon there is.
pub(crate) fn find(dirs: &Dirs, path: Option<&Path>) -> Outcome<(Running, Option<String>)> {
    let running = list(dirs)?;
    let Some(path) = path else {
        return only(running).map(|daemon| (daemon, None));
    };
    let (daemon, inside) = serving(&running, path)?;
    Ok((daemon.clone(), Some(inside)))
}

fn only(mut running: Vec<Running>) -> Outcome<Running> {
    match running.len() {
        0 => Err(nothing_mounted()),
        1 => Ok(running.remove(0)),
        _ => {
            let places: Vec<String> = running
                .iter()
                .map(|daemon| daemon.mountpoint.display().to_string())
                .collect();
            Err(Failure::usage(
                "finding the mount",
                format!("there are several: {}", places.join(", ")),
            )
            .next("name a path inside the one you mean"))
        }
    }
}

fn nothing_mounted() -> Failure {
    match dead_mounts().first() {
        Some(place) => Failure::new(
            place.display().to_string(),
            "its daemon is gone; what was saved is safe",
        )
        .next(format!(
            "run `onedrivefs mount '{}'` again",
            place.display()
        )),
        None => Failure::new("finding the mount", "nothing is mounted by onedrivefs")
            .next("mount with `onedrivefs mount MOUNTPOINT`"),
    }
}

/// The daemon whose mountpoint contains the path, the innermost if there are several.
fn serving<'a>(running: &'a [Running], path: &Path) -> Outcome<(&'a Running, String)> {
    let lexical = absolute(path)?;
    let innermost = |path: &Path| {
        running
            .iter()
            .filter(|daemon| path.starts_with(&daemon.mountpoint))
            .max_by_key(|daemon| daemon.mountpoint.as_os_str().len())
    };
    let (daemon, full) = match innermost(&lexical) {
        Some(daemon) => (daemon, lexical),
        // Perhaps through a symbolic link. The last component need not exist any more.
        None => {
            let real = resolve_parent(&lexical);
            match innermost(&real) {
                Some(daemon) => (daemon, real),
                None => {
                    return Err(Failure::new(
                        path.display().to_string(),
                        "is not inside a running onedrivefs mount",
                    )
                    .next("`onedrivefs accounts` lists what is mounted"));
                }
            }
        }
    };
    let inside = full
        .strip_prefix(&daemon.mountpoint)
        .unwrap_or(Path::new(""))
        .to_str()
        .ok_or_else(|| Failure::new(path.display().to_string(), "is not valid UTF-8"))?;
    Ok((daemon, format!("/{inside}")))
}

fn resolve_parent(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (
        path.parent().and_then(|parent| parent.canonicalize().ok()),
        path.file_name(),
    ) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(mountpoint: &str) -> Running {
        Running {
            pid: std::process::id(),
            account: AccountName::default(),
            drive: DriveId::new("b!x"),
            mountpoint: mountpoint.into(),
            socket: "/run/x.sock".into(),
        }
    }

    #[test]
    fn mountpoints_with_blanks_are_read_from_the_table() {
        assert_eq!(
            unescape("/home/ada/One\\040Drive\\134x"),
            "/home/ada/One Drive\\x"
        );
    }

    #[test]
    fn a_path_leads_to_the_innermost_mount() {
        let running = [daemon("/m"), daemon("/m/inner"), daemon("/m2")];
        for (path, mountpoint, inside) in [
            ("/m/a/b", "/m", "/a/b"),
            ("/m/inner/x", "/m/inner", "/x"),
            ("/m2", "/m2", "/"),
            ("/m/inner/../y", "/m", "/y"),
        ] {
            let (found, rest) = serving(&running, Path::new(path)).expect("found");
            assert_eq!(
                (found.mountpoint.to_str(), rest.as_str()),
                (Some(mountpoint), inside)
            );
        }
        assert!(serving(&running, Path::new("/m3")).is_err());
    }

    #[test]
    fn links_into_a_mount_are_followed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let real = root.path().canonicalize().expect("real path").join("mount");
        fs::create_dir(&real).expect("directory");
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&real, &link).expect("link");
        let running = [daemon(real.to_str().expect("UTF-8"))];
        let (_, inside) = serving(&running, &link.join("gone.txt")).expect("found");
        assert_eq!(inside, "/gone.txt");
    }

    #[test]
    fn records_of_the_dead_are_removed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let socket = root.path().join("alive.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let living = Running {
            socket,
            ..daemon("/m")
        };
        let alive = Record::write(&dirs, "alive", &living).expect("written");
        let dead = Running {
            socket: root.path().join("dead.sock"),
            ..daemon("/dead")
        };
        std::mem::forget(Record::write(&dirs, "dead", &dead).expect("written"));
        assert_eq!(list(&dirs).expect("listed"), vec![living]);
        assert!(!dirs.runtime.join("dead.json").exists());
        drop(alive);
        assert!(find(&dirs, None).is_err());
    }
}
