//! Two trees are the same when every name, size, hash and time is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use onedrivefs_sim::DriveHandle;
use quickxorhash::QuickXorHash;

/// One file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Whether it is a folder.
    pub folder: bool,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// quickXorHash in base64; absent for folders and empty files.
    pub hash: Option<String>,
    /// Modification time in whole seconds, which every kind of drive keeps; absent for folders,
    /// whose time changes with every entry here and not on the service.
    pub modified_s: Option<i64>,
}

/// Everything below a root, by path with a leading slash.
pub type Tree = BTreeMap<String, Node>;

/// Reads a tree through the file system, every byte of it.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn of_directory(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    tree
}

fn walk(root: &Path, below: &str, tree: &mut Tree) {
    let dir = root.join(below.trim_start_matches('/'));
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = format!("{below}/{name}");
        let node = of_file(&entry.path());
        let folder = node.folder;
        tree.insert(path.clone(), node);
        if folder {
            walk(root, &path, tree);
        }
    }
}

/// Reads one file or folder.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn of_file(path: &Path) -> Node {
    let failed = |error: std::io::Error| -> ! { panic!("{}: {error}", path.display()) };
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| failed(error));
    if found.is_dir() {
        return Node {
            folder: true,
            size: 0,
            hash: None,
            modified_s: None,
        };
    }
    let (hash, read) = hash_of(path).unwrap_or_else(|error| failed(error));
    assert_eq!(read, found.len(), "{}: size and bytes", path.display());
    Node {
        folder: false,
        size: read,
        hash: (read > 0).then_some(hash),
        modified_s: Some(found.mtime()),
    }
}

fn hash_of(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hash = QuickXorHash::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((STANDARD.encode(hash.finalize()), total));
        }
        hash.update(&buffer[..count]);
        total += count as u64;
    }
}

/// What is on the service.
///
/// # Panics
/// When the service shows a time that is none.
#[must_use]
pub fn of_drive(drive: &DriveHandle) -> Tree {
    let nodes = drive.dump().into_iter().map(|entry| {
        let time: jiff::Timestamp = entry.mtime.parse().expect("time");
        let node = Node {
            folder: entry.folder,
            size: if entry.folder { 0 } else { entry.size },
            hash: entry.hash,
            modified_s: (!entry.folder).then(|| time.as_second()),
        };
        (entry.path, node)
    });
    nodes.collect()
}

/// Expects two trees to be the same.
///
/// # Panics
/// When they differ, naming every difference.
pub fn assert_same(here: &Tree, there: &Tree) {
    let paths: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter(|path| here.get(*path) != there.get(*path))
        .map(|path| {
            format!(
                "{path}\n  here:  {:?}\n  there: {:?}",
                here.get(path),
                there.get(path)
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "the trees differ:\n{}",
        differences.join("\n")
    );
}

/// Expects a mount and a drive to hold the same.
///
/// # Panics
/// When they differ, naming every difference.
pub fn assert_in_step(mount: &Path, drive: &DriveHandle) {
    assert_same(&of_directory(mount), &of_drive(drive));
}
