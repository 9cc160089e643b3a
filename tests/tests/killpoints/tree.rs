//! Trees as the mount and the service hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use onedrivefs_sim::DriveHandle;

/// Modification times before this (September 2001 to January 2008) were set by the scenario; later
/// ones came from the clock and may differ.
const SET_BEFORE_S: i64 = 1_200_000_000;

/// What a symbolic link's name ends with on the service.
const LINK_SUFFIX: &str = ".rclonelink";

/// One entry.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    Folder,
    /// A symbolic link and where it leads.
    Link(String),
    File(File),
}

/// A file.
#[derive(Clone)]
pub struct File {
    pub bytes: Arc<Vec<u8>>,
    /// Seconds, if the scenario has set them.
    pub time: Option<i64>,
    /// Whether it was made here, so that it can be read whatever the service does.
    pub here: bool,
}

impl File {
    /// A file that was made here.
    pub fn here(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            time: None,
            here: true,
        }
    }
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && (self.time == other.time || other.time.is_none())
    }
}

impl Eq for File {}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder => write!(f, "folder"),
            Self::Link(target) => write!(f, "link to {target}"),
            Self::File(file) => {
                let sum = file
                    .bytes
                    .iter()
                    .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &b| {
                        (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
                    });
                write!(f, "{} bytes #{:08x}", file.bytes.len(), sum >> 32)?;
                file.time.map_or(Ok(()), |time| write!(f, " of {time}"))
            }
        }
    }
}

/// Everything below a root, by path without a leading slash. The host and the time in the names of
/// conflict copies and of folders with what was recovered are left out.
pub type Tree = BTreeMap<String, Node>;

/// The path with the changing parts of names left out.
fn plain(path: &str) -> String {
    let mut path = path.to_owned();
    for (word, plain) in [(" (conflict ", " (conflict)"), (" files (", " files")] {
        if let Some((before, rest)) = path.split_once(word) {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            path = format!("{before}{plain}{after}");
        }
    }
    path
}

/// Reads a tree through the file system. Only those files are read that `reads` names; for others
/// the size must do.
pub fn of_mount(root: &Path, reads: &dyn Fn(&str) -> bool) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![String::new()];
    while let Some(below) = todo.pop() {
        for entry in fs::read_dir(root.join(&below))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            let node = of_entry(&root.join(&path), reads(&plain(&path)))
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
            if node == Node::Folder {
                todo.push(path.clone());
            }
            if tree.insert(plain(&path), node).is_some() {
                return Err(io::Error::other(format!("{path} is there twice")));
            }
        }
    }
    Ok(tree)
}

fn of_entry(path: &Path, read: bool) -> io::Result<Node> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() {
        return Ok(Node::Folder);
    }
    if found.is_symlink() {
        let target = fs::read_link(path)?;
        return Ok(Node::Link(target.to_string_lossy().into_owned()));
    }
    let bytes = if read {
        fs::read(path)?
    } else {
        vec![0; usize::try_from(found.len()).map_err(io::Error::other)?]
    };
    if bytes.len() as u64 != found.len() {
        let message = format!("stat says {} bytes, there are {}", found.len(), bytes.len());
        return Err(io::Error::other(message));
    }
    let time = (found.mtime() < SET_BEFORE_S).then(|| found.mtime());
    Ok(Node::File(File {
        bytes: Arc::new(bytes),
        time,
        here: read,
    }))
}

/// Reads what is on the service, with symbolic links as such.
pub fn of_service(drive: &DriveHandle) -> Result<Tree, String> {
    let mut tree = Tree::new();
    for entry in drive.dump() {
        let path = plain(entry.path.trim_start_matches('/'));
        let bytes = drive.read(&entry.path).unwrap_or_default();
        let time: jiff::Timestamp = entry.mtime.parse().expect("time");
        let (path, node) = if entry.folder {
            (path, Node::Folder)
        } else if let Some(path) = path.strip_suffix(LINK_SUFFIX) {
            let target = String::from_utf8_lossy(&bytes).into_owned();
            (path.to_owned(), Node::Link(target))
        } else {
            let time = Some(time.as_second()).filter(|&s| s < SET_BEFORE_S);
            let bytes = Arc::new(bytes);
            let here = false;
            (path, Node::File(File { bytes, time, here }))
        };
        if tree.insert(path.clone(), node).is_some() {
            return Err(format!("{path} is on the service twice"));
        }
    }
    Ok(tree)
}

/// Names every difference between two trees.
pub fn differences(is: &Tree, wanted: &Tree) -> Vec<String> {
    let paths: BTreeSet<&String> = is.keys().chain(wanted.keys()).collect();
    paths
        .into_iter()
        .filter(|path| is.get(*path) != wanted.get(*path))
        .map(|path| {
            format!(
                "  {path}\n    is:        {:?}\n    should be: {:?}",
                is.get(path),
                wanted.get(path)
            )
        })
        .collect()
}
