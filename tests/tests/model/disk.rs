//! One system call at a time, on the mount and on a plain directory beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{names, sys};

/// Longest time until the daemon has found out that the service can be reached again.
const ONLINE_LIMIT: Duration = Duration::from_secs(20);

/// Modification times before this (September 2001 to January 2008) were set by a history; later
/// ones came from the clock and may differ.
const SET_BEFORE_S: i64 = 1_200_000_000;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    pub append: bool,
}

/// One system call. Paths are relative to the history's folder.
#[derive(Clone, Debug)]
pub enum Step {
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String),
    RenameNoReplace(String, String),
    Exchange(String, String),
    Open(u32, String, How),
    /// Handle, offset (none: where the handle is), number of the body, bytes.
    Write(u32, Option<u64>, u64, usize),
    /// Handle of an empty file, path of what is copied into it.
    Copy(u32, String),
    SetLen(u32, u64),
    Fsync(u32),
    Close(u32),
    Truncate(String, u64),
    /// Path, seconds, nanoseconds.
    Times(String, u64, u32),
    Read(String),
    ReadRange(String, u64, usize),
    List(String),
    Stat(String),
}

/// What a call showed.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    Done,
    Bytes(Vec<u8>),
    Names(BTreeSet<String>),
    Size(u64),
    Folder,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            Self::Bytes(bytes) => write!(f, "{}", describe(bytes)),
            Self::Names(names) => write!(f, "{names:?}"),
            Self::Size(size) => write!(f, "{size} bytes"),
            Self::Folder => write!(f, "folder"),
        }
    }
}

/// Says which bodies some bytes are made of.
pub fn describe(bytes: &[u8]) -> String {
    let head: String = bytes
        .iter()
        .take(28)
        .map(|&b| {
            if (32..127).contains(&b) {
                char::from(b)
            } else {
                '·'
            }
        })
        .collect();
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &b| {
        (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    format!("{} bytes {head:?} #{:08x}", bytes.len(), sum >> 32)
}

/// The bytes of a body: its number again and again, so that every part tells whose it is.
pub fn body(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 32);
    let mut line = 0_u64;
    while bytes.len() < len {
        bytes.extend(format!("<{number:x}.{line:x}>").bytes());
        line += 1;
    }
    bytes.truncate(len);
    bytes
}

/// The number of the call's error.
pub type Errno = i32;

/// One of the two places.
pub struct Side {
    root: PathBuf,
    /// Whether names have to be compared as the mount does, because the disk does not.
    folds: bool,
    slots: BTreeMap<u32, File>,
}

impl Side {
    /// The mount.
    pub fn mount(root: PathBuf) -> Self {
        Self {
            root,
            folds: false,
            slots: BTreeMap::new(),
        }
    }

    /// A local disk.
    pub fn local(root: PathBuf) -> Self {
        Self {
            root,
            folds: true,
            slots: BTreeMap::new(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Forgets all handles, whose daemon is gone.
    pub fn drop_handles(&mut self) {
        self.slots.clear();
    }

    /// The inode of a handle's file.
    pub fn inode_of(&self, slot: u32) -> Option<u64> {
        Some(self.slots.get(&slot)?.metadata().ok()?.ino())
    }

    /// The length of a handle's file.
    pub fn len_of(&self, slot: u32) -> Option<u64> {
        Some(self.slots.get(&slot)?.metadata().ok()?.len())
    }

    /// Where a path is, under the spelling that is there.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let mut at = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let found = if self.folds {
                entry_like(&at, part)
            } else {
                None
            };
            at.push(found.unwrap_or_else(|| part.to_owned()));
        }
        at
    }

    pub fn apply(&mut self, step: &Step) -> Result<Seen, Errno> {
        self.try_apply(step)
            .map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn try_apply(&mut self, step: &Step) -> io::Result<Seen> {
        match step {
            Step::Mkdir(path) => fs::create_dir(self.resolve(path))?,
            Step::Rmdir(path) => fs::remove_dir(self.resolve(path))?,
            Step::Unlink(path) => fs::remove_file(self.resolve(path))?,
            Step::Rename(from, to) => self.rename(from, to, false)?,
            Step::RenameNoReplace(from, to) => self.rename(from, to, true)?,
            Step::Exchange(a, b) => {
                let (a, b) = (self.resolve(a), self.resolve(b));
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
            }
            Step::Open(slot, path, how) => self.open(*slot, path, *how)?,
            Step::Write(slot, at, number, len) => {
                let bytes = body(*number, *len);
                let file = self.slot(*slot)?;
                match at {
                    Some(at) => file.write_all_at(&bytes, *at)?,
                    None => file.write_all(&bytes)?,
                }
            }
            Step::Copy(slot, from) => {
                let from = self.resolve(from);
                let to = self.slot(*slot)?;
                if let Err(error) = sys::copy(&from, to) {
                    // Some of it may be there.
                    to.set_len(0)?;
                    return Err(error);
                }
            }
            Step::SetLen(slot, len) => self.slot(*slot)?.set_len(*len)?,
            Step::Fsync(slot) => self.slot(*slot)?.sync_all()?,
            Step::Close(slot) => self.close(*slot)?,
            Step::Truncate(path, len) => {
                sys::truncate(&self.resolve(path), *len)?;
            }
            Step::Times(path, seconds, nanos) => set_times(&self.resolve(path), *seconds, *nanos)?,
            Step::Read(path) => return Ok(Seen::Bytes(fs::read(self.resolve(path))?)),
            Step::ReadRange(path, at, len) => {
                let file = File::open(self.resolve(path))?;
                let mut bytes = vec![0; *len];
                let got = read_fully(&file, &mut bytes, *at)?;
                bytes.truncate(got);
                return Ok(Seen::Bytes(bytes));
            }
            Step::List(path) => return Ok(Seen::Names(list(&self.resolve(path))?)),
            Step::Stat(path) => {
                let found = fs::symlink_metadata(self.resolve(path))?;
                return Ok(if found.is_dir() {
                    Seen::Folder
                } else {
                    Seen::Size(found.len())
                });
            }
        }
        Ok(Seen::Done)
    }

    fn slot(&mut self, slot: u32) -> io::Result<&mut File> {
        let missing = || io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error());
        self.slots.get_mut(&slot).ok_or_else(missing)
    }

    fn open(&mut self, slot: u32, path: &str, how: How) -> io::Result<()> {
        let mut options = OpenOptions::new();
        if how.append {
            options.read(true).append(true);
        } else {
            options.read(true).write(true).truncate(how.truncate);
        }
        if how.exclusive {
            options.create_new(true);
        } else {
            options.create(how.create);
        }
        let file = options.open(self.resolve(path))?;
        self.slots.insert(slot, file);
        Ok(())
    }

    fn close(&mut self, slot: u32) -> io::Result<()> {
        self.slot(slot)?;
        self.slots.remove(&slot).map_or(Ok(()), sys::close)
    }

    fn rename(&self, from: &str, to: &str, keep: bool) -> io::Result<()> {
        let (source, target) = (self.resolve(from), self.resolve(to));
        let flags = if keep {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::empty()
        };
        let rename = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, flags);
        if !self.folds {
            return Ok(rename(&source, &target)?);
        }
        let wanted = to.rsplit('/').next().unwrap_or(to);
        let spelt = target.with_file_name(wanted);
        if source == target {
            // Another spelling of the same name.
            fs::symlink_metadata(&source)?;
            if keep {
                // As on every disk that folds names: the name is taken.
                return Err(rustix::io::Errno::EXIST.into());
            }
            // One spelling to itself changes nothing, whichever the stored one is.
            if spelt != source && from != to {
                renameat_with(CWD, &source, CWD, &spelt, RenameFlags::empty())?;
            }
            return Ok(());
        }
        rename(&source, &target)?;
        if spelt != target {
            fs::rename(&target, &spelt)?;
        }
        Ok(())
    }
}

fn read_fully(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], at + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

fn set_times(path: &Path, seconds: u64, nanos: u32) -> io::Result<()> {
    let time = rustix::fs::Timespec {
        tv_sec: i64::try_from(seconds).expect("time"),
        tv_nsec: nanos.into(),
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        rustix::fs::AtFlags::empty(),
    )?)
}

fn entry_like(dir: &Path, name: &str) -> Option<String> {
    let names = list(dir).ok()?;
    if names.contains(name) {
        return Some(name.to_owned());
    }
    names.into_iter().find(|found| names::is_same(found, name))
}

fn list(dir: &Path) -> io::Result<BTreeSet<String>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    Folder,
    /// Bytes, and the modification time if a history has set it.
    File(Vec<u8>, Option<(i64, i64)>),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder => write!(f, "folder"),
            Self::File(bytes, time) => write!(f, "{} {time:?}", describe(bytes)),
        }
    }
}

/// Everything below a root, by path without a leading slash.
pub type Tree = BTreeMap<String, Node>;

/// Reads the tree of a mount, after everything that went wrong has ended. If bytes may have to come
/// from the service, they can be had as soon as the daemon has found out that it is online.
pub fn read_tree_of(root: &Path, fetches: bool) -> io::Result<Tree> {
    let out_of_reach = [io::ErrorKind::NetworkDown, io::ErrorKind::TimedOut];
    let start = Instant::now();
    loop {
        match read_tree(root) {
            Err(error)
                if fetches
                    && out_of_reach.contains(&error.kind())
                    && start.elapsed() < ONLINE_LIMIT =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            read => return read,
        }
    }
}

/// Reads a tree.
pub fn read_tree(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![String::new()];
    while let Some(below) = todo.pop() {
        for name in list(&root.join(&below))? {
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            let at = root.join(&path);
            let found = fs::symlink_metadata(&at)?;
            if found.is_dir() {
                todo.push(path.clone());
                tree.insert(path, Node::Folder);
                continue;
            }
            let bytes = fs::read(&at)
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
            if bytes.len() as u64 != found.len() {
                return Err(io::Error::other(format!(
                    "{path}: stat says {} bytes, there are {}",
                    found.len(),
                    bytes.len()
                )));
            }
            let time = (found.mtime() < SET_BEFORE_S).then(|| (found.mtime(), found.mtime_nsec()));
            tree.insert(path, Node::File(bytes, time));
        }
    }
    Ok(tree)
}

/// Makes a directory hold a tree and nothing else.
pub fn write_tree(root: &Path, tree: &Tree) -> io::Result<()> {
    for name in list(root)? {
        let path = root.join(name);
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            Node::Folder => fs::create_dir(path)?,
            Node::File(bytes, time) => {
                fs::write(&path, bytes)?;
                if let Some((seconds, nanos)) = time {
                    let seconds = Duration::from_secs(seconds.unsigned_abs());
                    let nanos = Duration::from_nanos(nanos.unsigned_abs());
                    File::options()
                        .write(true)
                        .open(&path)?
                        .set_modified(UNIX_EPOCH + seconds + nanos)?;
                }
            }
        }
    }
    Ok(())
}

/// Names every difference between two trees.
pub fn differences(here: &Tree, wanted: &Tree) -> Vec<String> {
    let paths: BTreeSet<&String> = here.keys().chain(wanted.keys()).collect();
    paths
        .into_iter()
        .filter(|path| !is_same_node(here.get(*path), wanted.get(*path)))
        .map(|path| {
            format!(
                "{path}\n    is:        {:?}\n    should be: {:?}",
                here.get(path),
                wanted.get(path)
            )
        })
        .collect()
}

/// Compares; a time that the history did not set may be any.
fn is_same_node(is: Option<&Node>, wanted: Option<&Node>) -> bool {
    match (is, wanted) {
        (Some(Node::File(is, _)), Some(Node::File(wanted, None))) => is == wanted,
        (is, wanted) => is == wanted,
    }
}
