//! Lets programs that watch directories learn of what others changed.
//!
//! The kernel tells watchers (inotify, fanotify) of what programs do on this machine, and there is no
//! notification by which a FUSE server could have it tell them of anything else but the end of a
//! watched file. So a program does it: a process outside, the [`Herald`], makes, removes or touches
//! in the mount what others have made, removed or changed on the service. We recognise its requests
//! and answer them with what there is already; nothing changes by them, and the kernel tells whoever
//! watches.
//!
//! Only where somebody watches: the kernel lists the watches of every process below `/proc`, as far as
//! this user may look.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fuser::INodeNo;
use onedrivefs_core::Ino;
use onedrivefs_vfs::{FileKind, Forest, KernelChange};
use parking_lot::Mutex;

use crate::call::ino;

/// Shortest time between two looks who watches what. Whoever begins to watch is told from then on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looking takes at most one part in this many of the time.
const LOOK_SHARE: u32 = 50;

/// What a herald does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Make an empty file.
    MakeFile,
    /// Make a directory.
    MakeDirectory,
    /// Make a symbolic link.
    MakeLink,
    /// Remove whatever is there.
    Remove,
    /// Set the time of modification.
    Touch,
}

/// Something to be done in the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// What to do.
    pub deed: Deed,
    /// Where, relative to the mountpoint.
    pub path: String,
}

/// A process beside this one that runs errands, one at a time.
pub trait Herald: Send {
    /// The thread whose requests are errands, by its number in the kernel; `None` when it is gone.
    fn thread(&self) -> Option<u32>;

    /// Has an errand run and waits for its end, but not for long.
    ///
    /// # Errors
    /// What the system call said; `TimedOut`; `BrokenPipe` when there is no herald any more.
    fn run(&mut self, errand: &Errand) -> io::Result<()>;
}

/// Who watches what in a mount, and how they are told.
pub(crate) struct Watchers {
    forest: Arc<Forest>,
    /// Number of the connection, which the kernel calls the device.
    connection: OnceLock<u32>,
    herald: Mutex<Option<Box<dyn Herald>>>,
    /// Its thread.
    thread: AtomicU32,
    current: Mutex<Option<Current>>,
    seen: Mutex<Seen>,
}

/// Of which thread an errand cannot be.
const NO_THREAD: u32 = 0;

/// What a request is to those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Nothing: a program made it.
    Real,
    /// The errand that is being run.
    Errand,
    /// One that was given up. It must do nothing, whatever it finds.
    Late,
}

/// The errand that is being run.
struct Current {
    deed: Deed,
    /// The directory, or what is touched.
    at: Ino,
    name: String,
}

/// The last look who watches.
#[derive(Default)]
struct Seen {
    next: Option<Instant>,
    nodes: HashSet<Ino>,
}

impl Watchers {
    /// Nobody is told yet.
    pub(crate) fn new(forest: Arc<Forest>) -> Self {
        Self {
            forest,
            connection: OnceLock::new(),
            herald: Mutex::default(),
            thread: AtomicU32::new(NO_THREAD),
            current: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// From now on watchers of what is mounted by this connection are told.
    pub(crate) fn set_herald(&self, connection: u32, herald: Box<dyn Herald>) {
        let _same = self.connection.set(connection);
        *self.herald.lock() = Some(herald);
    }

    /// Tells of what is gone. The kernel believes in a removal only as long as it knows the name.
    pub(crate) fn before(&self, change: &KernelChange) {
        let (parent, name, child) = match change {
            KernelChange::Entry { parent, name } => (*parent, name, None),
            KernelChange::Deleted {
                parent,
                child,
                name,
            } => (*parent, name, Some(*child)),
            KernelChange::Attributes { .. } | KernelChange::Content { .. } => return,
        };
        let watched = self.is_watched(parent) || child.is_some_and(|child| self.is_watched(child));
        if watched && self.forest.kind_at(parent, name).is_none() {
            self.run(Deed::Remove, parent, name, parent);
        }
    }

    /// Tells of what is new, now that the kernel has forgotten what was.
    pub(crate) fn after(&self, change: &KernelChange) {
        match change {
            KernelChange::Entry { parent, name } if self.is_watched(*parent) => {
                let deed = match self.forest.kind_at(*parent, name) {
                    Some(FileKind::File) => Deed::MakeFile,
                    Some(FileKind::Directory) => Deed::MakeDirectory,
                    Some(FileKind::Symlink) => Deed::MakeLink,
                    None => return,
                };
                self.run(deed, *parent, name, *parent);
            }
            KernelChange::Content { ino } if self.has_watches() => {
                let Some((parent, name)) = self.forest.place_of(*ino) else {
                    return;
                };
                if self.is_watched(parent) || self.is_watched(*ino) {
                    self.run(Deed::Touch, *ino, &name, parent);
                }
            }
            _ => {}
        }
    }

    /// Has an errand run at something that has this name in this directory.
    fn run(&self, deed: Deed, at: Ino, name: &str, parent: Ino) {
        let Some(folder) = self.forest.path_of(parent) else {
            return;
        };
        let path = if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        let mut herald = self.herald.lock();
        let thread = herald.as_ref().and_then(|herald| herald.thread());
        self.thread
            .store(thread.unwrap_or(NO_THREAD), Ordering::Release);
        let Some(running) = herald.as_mut().filter(|_| thread.is_some()) else {
            return;
        };
        *self.current.lock() = Some(Current {
            deed,
            at,
            name: name.to_owned(),
        });
        let done = running.run(&Errand { deed, path });
        *self.current.lock() = None;
        match done {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => *herald = None,
            // The kernel knew the name already, or did not know it, or permits nothing here.
            Err(error) => tracing::debug!(?deed, %error, "Watchers could not be told."),
        }
    }

    /// What a request of this thread for a name in a directory is, if an errand would be this deed.
    pub(crate) fn judge(
        &self,
        request: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        is_deed: impl Fn(Deed) -> bool,
    ) -> Request {
        self.judge_by(request, |errand| {
            let here = errand.at == ino(parent) && errand.name.as_str() == name;
            here && errand.deed != Deed::Touch && is_deed(errand.deed)
        })
    }

    /// What a request to change attributes is.
    pub(crate) fn judge_touch(&self, request: &fuser::Request, node: INodeNo) -> Request {
        self.judge_by(request, |errand| {
            errand.deed == Deed::Touch && errand.at == ino(node)
        })
    }

    fn judge_by(&self, request: &fuser::Request, fits: impl Fn(&Current) -> bool) -> Request {
        if request.pid() != self.thread.load(Ordering::Acquire) || request.pid() == NO_THREAD {
            return Request::Real;
        }
        if self.current.lock().as_ref().is_some_and(fits) {
            Request::Errand
        } else {
            Request::Late
        }
    }

    fn has_watches(&self) -> bool {
        self.look();
        !self.seen.lock().nodes.is_empty()
    }

    fn is_watched(&self, ino: Ino) -> bool {
        self.look();
        self.seen.lock().nodes.contains(&ino)
    }

    /// Looks who watches, unless that was seen a moment ago.
    fn look(&self) {
        let Some(connection) = self.connection.get() else {
            return;
        };
        let mut seen = self.seen.lock();
        let begun = Instant::now();
        if seen.next.is_some_and(|next| begun < next) {
            return;
        }
        seen.nodes = watched_nodes(*connection);
        let took = begun.elapsed();
        seen.next = Some(begun + LOOK_EVERY.max(took * LOOK_SHARE));
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchers")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Deed {
    /// Tells whether something is made.
    pub(crate) const fn makes(self) -> bool {
        matches!(self, Self::MakeFile | Self::MakeDirectory | Self::MakeLink)
    }
}

/// The inodes on a device that any process watches.
fn watched_nodes(device: u32) -> HashSet<Ino> {
    let mut nodes = HashSet::new();
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        // Those of other people cannot be seen, and are gone as quickly as they came.
        let files = fs::read_dir(process.path().join("fd"));
        for file in files.into_iter().flatten().flatten() {
            let kind = fs::read_link(file.path());
            let watches = kind.is_ok_and(|kind| {
                let kind = kind.as_os_str();
                kind == "anon_inode:inotify" || kind == "anon_inode:[fanotify]"
            });
            if watches {
                let list = process.path().join("fdinfo").join(file.file_name());
                let list = fs::read_to_string(list).unwrap_or_default();
                nodes.extend(list.lines().filter_map(|line| watched(line, device)));
            }
        }
    }
    nodes
}

/// The inode that a line of a list of watches names, if it is on the device.
fn watched(line: &str, device: u32) -> Option<Ino> {
    if !line.starts_with("inotify ") && !line.starts_with("fanotify ino:") {
        return None;
    }
    let field = |name: &str| {
        let value = line.split(' ').find_map(|field| field.strip_prefix(name))?;
        u64::from_str_radix(value, 16).ok()
    };
    (field("sdev:")? == u64::from(device)).then(|| field("ino:").map(|node| ino(INodeNo(node))))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lists_of_watches() {
        let inotify = "inotify wd:2 ino:1c sdev:2d mask:fc6 ignored_mask:0 fhandle-bytes:c \
                       fhandle-type:81 f_handle:1c";
        assert_eq!(watched(inotify, 0x2d), Some(Ino(0x1c)));
        assert_eq!(watched(inotify, 0x2e), None);
        let fanotify = "fanotify ino:4f969 sdev:800013 mflags:0 mask:3b ignored_mask:40000000";
        assert_eq!(watched(fanotify, 0x0080_0013), Some(Ino(0x4f969)));
        // A file with editions is watched under the number of one of them.
        assert_eq!(
            watched("inotify wd:1 ino:300000000001c sdev:2d mask:2", 0x2d),
            Some(Ino(0x1c))
        );
        for other in [
            "",
            "pos:\t0",
            "inotify wd:1 sdev:2d",
            "inotify ino:x sdev:2d",
        ] {
            assert_eq!(watched(other, 0x2d), None);
        }
    }
}
