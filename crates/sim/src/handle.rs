//! A drive as "another client" sees it: changes that appear on the service without the client
//! under test having made them, and a view of what is really there.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::access;
use crate::actor::{self, Actor};
use crate::body::FileBody;
use crate::clock::iso;
use crate::config::DriveKind;
use crate::drive::{Content, Drive, FsTimes, Idx, Kind, ROOT, Remote, Tree};
use crate::error::{ApiError, ApiResult};
use crate::item_json;
use crate::quickxor;
use crate::world::World;

/// A scripted change that the service's rules forbid.
#[derive(Debug)]
pub struct SimError {
    /// HTTP status that a client would have got.
    pub status: u16,
    /// Error code that a client would have got.
    pub code: String,
    message: String,
}

impl std::fmt::Display for SimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for SimError {}

impl From<ApiError> for SimError {
    fn from(error: ApiError) -> Self {
        SimError {
            status: error.status,
            code: error.code,
            message: error.message,
        }
    }
}

/// One live item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Path below the root with a leading slash; empty for the root.
    pub path: String,
    /// Item id.
    pub id: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Bytes; of everything below for folders.
    pub size: u64,
    /// quickXorHash in base64; absent for folders and empty files.
    pub hash: Option<String>,
    /// Client-side modification time.
    pub mtime: String,
    /// Metadata tag.
    pub etag: String,
    /// Content tag.
    pub ctag: Option<String>,
    /// How many versions there are.
    pub versions: usize,
}

/// One version of a file, newest first in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionEntry {
    /// Version id, such as `3.0`.
    pub id: String,
    /// Bytes.
    pub size: u64,
}

/// Access to one drive.
#[derive(Clone)]
pub struct DriveHandle {
    world: Arc<World>,
    drive: Arc<Drive>,
    /// Who makes the changes; the owner by default.
    by: Option<Actor>,
}

type Result<T> = std::result::Result<T, SimError>;

impl DriveHandle {
    pub(crate) fn new(world: Arc<World>, drive: Arc<Drive>) -> Self {
        DriveHandle {
            world,
            drive,
            by: None,
        }
    }

    /// The drive as another person changes it.
    #[must_use]
    pub fn by(&self, user: &str) -> Self {
        Self {
            by: Some(Actor::person(&self.world, user)),
            ..self.clone()
        }
    }

    /// The drive's id.
    pub fn id(&self) -> &str {
        &self.drive.spec.id
    }

    /// The drive's kind.
    pub fn kind(&self) -> DriveKind {
        self.drive.spec.kind
    }

    /// Number of live items, the root included.
    pub fn count(&self) -> u64 {
        self.drive.tree.lock().live
    }

    /// Bytes that count against the quota.
    pub fn used(&self) -> u64 {
        self.drive.tree.lock().used
    }

    /// Changes the quota.
    pub fn set_quota(&self, bytes: u64) {
        self.drive.tree.lock().quota = bytes;
    }

    /// Makes all delta tokens of this drive stale.
    pub fn expire_delta(&self) {
        self.drive.tree.lock().epoch += 1;
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tree, i64) -> ApiResult<T>) -> Result<T> {
        let now = self.world.now();
        let mut tree = self.drive.tree.lock();
        let done = actor::acting(self.by.as_ref(), || change(&mut tree, now))?;
        drop(tree);
        self.world.announce(&self.drive);
        Ok(done)
    }

    /// Creates or replaces a file; missing folders are created.
    pub fn put(&self, path: &str, body: impl Into<FileBody>) -> Result<String> {
        self.put_at(path, body, None)
    }

    /// Like [`put`](Self::put), with a modification time in milliseconds since the epoch.
    pub fn put_at(
        &self,
        path: &str,
        body: impl Into<FileBody>,
        mtime_ms: Option<i64>,
    ) -> Result<String> {
        let body = body.into();
        self.change(|tree, now| {
            let (parent, name) = parent_of(tree, path, now)?;
            let times = FsTimes {
                created: mtime_ms,
                modified: mtime_ms,
            };
            let idx = tree.put(
                parent,
                name,
                Content {
                    body,
                    hash: None,
                    times,
                    now,
                },
            )?;
            Ok(tree.id_of(idx))
        })
    }

    /// Creates many files in one folder with name, body and modification time.
    pub fn put_all(
        &self,
        folder: &str,
        files: impl IntoIterator<Item = (String, FileBody, i64)>,
    ) -> Result<()> {
        self.change(|tree, now| {
            let parent = mkdirs(tree, folder, now)?;
            for (name, body, mtime) in files {
                let times = FsTimes {
                    created: Some(mtime),
                    modified: Some(mtime),
                };
                tree.put(
                    parent,
                    &name,
                    Content {
                        body,
                        hash: None,
                        times,
                        now,
                    },
                )?;
            }
            Ok(())
        })
    }

    /// Creates a folder and what is missing above it; an existing one is fine.
    pub fn mkdir(&self, path: &str) -> Result<String> {
        self.change(|tree, now| {
            let idx = mkdirs(tree, path, now)?;
            Ok(tree.id_of(idx))
        })
    }

    /// Moves or renames an item.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.change(|tree, now| {
            let idx = find(tree, from)?;
            let (parent, name) = parent_of(tree, to, now)?;
            tree.relocate(idx, parent, name, now)
        })
    }

    /// Moves an item to the recycle bin.
    pub fn delete(&self, path: &str) -> Result<()> {
        let below = self.world.knobs.read().delta_descendant_tombstones;
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            tree.delete(idx, now, below)
        })
    }

    /// Brings a deleted item back from the recycle bin.
    pub fn restore(&self, id: &str) -> Result<()> {
        self.change(|tree, now| {
            let idx = tree.find_id(id).ok_or_else(ApiError::not_found)?;
            tree.restore(idx, None, None, now)
        })
    }

    /// Like [`delete`](Self::delete). Returns what files held that went.
    pub fn take(&self, path: &str) -> Result<Vec<FileBody>> {
        let below = self.world.knobs.read().delta_descendant_tombstones;
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            let mut bodies: Vec<FileBody> = Vec::new();
            for idx in tree.descendants(idx).into_iter().chain([idx]) {
                bodies.extend(tree.node(idx).file().map(|file| file.body.clone()));
            }
            tree.delete(idx, now, below)?;
            Ok(bodies)
        })
    }

    /// Like [`put`](Self::put). Returns the tag of the new state, and what the file held before.
    pub fn replace(
        &self,
        path: &str,
        body: impl Into<FileBody>,
    ) -> Result<(String, Option<FileBody>)> {
        let body = body.into();
        self.change(|tree, now| {
            let before = tree.lookup(path);
            let before = before.and_then(|idx| tree.node(idx).file().map(|f| f.body.clone()));
            let (parent, name) = parent_of(tree, path, now)?;
            let content = Content {
                body,
                hash: None,
                times: FsTimes::default(),
                now,
            };
            let idx = tree.put(parent, name, content)?;
            Ok((tree.etag(idx, tree.node(idx)), before))
        })
    }

    /// Sets the client-side modification time.
    pub fn set_mtime(&self, path: &str, mtime_ms: i64) -> Result<()> {
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            tree.set_times(
                idx,
                FsTimes {
                    created: None,
                    modified: Some(mtime_ms),
                },
                now,
            );
            Ok(())
        })
    }

    /// Adds a OneNote notebook.
    pub fn add_package(&self, path: &str) -> Result<String> {
        self.add(path, Kind::Package)
    }

    /// Adds a shortcut to an item of another drive.
    pub fn add_shortcut(&self, path: &str, drive: &str, item: &str) -> Result<String> {
        let remote = Remote {
            drive: drive.to_owned(),
            item: item.to_owned(),
        };
        self.add(path, Kind::Shortcut(Box::new(remote)))
    }

    /// Shares an item with a user, by id; a folder with all in it.
    pub fn share(&self, path: &str, user: &str, write: bool) -> Result<String> {
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            access::share(tree, idx, user, write, now);
            Ok(tree.id_of(idx))
        })
    }

    /// Selects an item for those whose permissions cover selected items only.
    pub fn select(&self, path: &str, write: bool) -> Result<String> {
        self.share(path, access::SELECTED, write)
    }

    /// Ends that.
    pub fn unshare(&self, path: &str, user: &str) -> Result<()> {
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            access::unshare(tree, idx, user, now);
            Ok(())
        })
    }

    fn add(&self, path: &str, kind: Kind) -> Result<String> {
        self.change(|tree, now| {
            let (parent, name) = parent_of(tree, path, now)?;
            let idx = tree.insert(parent, name, kind, FsTimes::default(), now)?;
            Ok(tree.id_of(idx))
        })
    }

    /// Marks a file as infected.
    pub fn set_malware(&self, path: &str, malware: bool) -> Result<()> {
        self.change(|tree, now| {
            let idx = find(tree, path)?;
            tree.node_mut(idx).extra_mut().malware = malware;
            tree.touch(idx, now);
            Ok(())
        })
    }

    /// Locks a file against changes, as an open Office document is.
    pub fn set_locked(&self, path: &str, locked: bool) -> Result<()> {
        self.change(|tree, _| {
            let idx = find(tree, path)?;
            tree.node_mut(idx).extra_mut().locked = locked;
            Ok(())
        })
    }

    /// Makes a folder behave like the personal vault: shown, but its listing is refused.
    pub fn set_vault(&self, path: &str, vault: bool) -> Result<()> {
        self.change(|tree, _| {
            let idx = find(tree, path)?;
            tree.node_mut(idx).extra_mut().vault = vault;
            Ok(())
        })
    }

    /// Puts a folder under retention: it cannot be deleted while it is not empty.
    pub fn set_held(&self, path: &str, held: bool) -> Result<()> {
        self.change(|tree, _| {
            let idx = find(tree, path)?;
            tree.node_mut(idx).extra_mut().held = held;
            Ok(())
        })
    }

    /// Every name that an item of this drive has or ever had, of deleted items as well: all that
    /// another client may have seen.
    pub fn names_ever(&self) -> BTreeSet<String> {
        let tree = self.drive.tree.lock();
        let items = tree.nodes.iter().skip(1).map(|node| &node.name);
        let all = items.chain(&tree.former_names);
        all.map(|name| name.to_string()).collect()
    }

    /// Whether something is at that path.
    pub fn exists(&self, path: &str) -> bool {
        self.drive.tree.lock().lookup(path).is_some()
    }

    /// The item at a path.
    pub fn entry(&self, path: &str) -> Option<Entry> {
        let tree = self.drive.tree.lock();
        let idx = tree.lookup(path)?;
        Some(entry(&tree, idx))
    }

    /// The item with an id, if it is live.
    pub fn entry_by_id(&self, id: &str) -> Option<Entry> {
        let tree = self.drive.tree.lock();
        let idx = tree.find_id(id).filter(|idx| tree.node(*idx).is_live())?;
        Some(entry(&tree, idx))
    }

    /// The content of a file, whole. Meant for files that fit into memory.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let body = self.body(path)?;
        let size = usize::try_from(body.size()).ok()?;
        body.read(0, size).ok().map(|bytes| bytes.to_vec())
    }

    /// The body of a file.
    pub fn body(&self, path: &str) -> Option<FileBody> {
        let tree = self.drive.tree.lock();
        let idx = tree.lookup(path)?;
        tree.node(idx).file().map(|f| f.body.clone())
    }

    /// The versions of a file, newest first.
    pub fn versions(&self, path: &str) -> Vec<VersionEntry> {
        let tree = self.drive.tree.lock();
        let file = tree.lookup(path).and_then(|idx| tree.node(idx).file());
        let Some(file) = file else { return Vec::new() };
        let older = file.older.iter().rev().map(|v| (v.number, v.body.size()));
        std::iter::once((file.version, file.body.size()))
            .chain(older)
            .map(|(number, size)| VersionEntry {
                id: format!("{number}.0"),
                size,
            })
            .collect()
    }

    /// The content of one version.
    pub fn version_body(&self, path: &str, id: &str) -> Option<FileBody> {
        let number = id.strip_suffix(".0")?.parse().ok()?;
        let tree = self.drive.tree.lock();
        tree.version_body(tree.lookup(path)?, number)
    }

    /// Everything on the drive but the root, parents before children, sorted by path.
    pub fn dump(&self) -> Vec<Entry> {
        let tree = self.drive.tree.lock();
        let mut all: Vec<Entry> = tree
            .descendants(ROOT)
            .into_iter()
            .map(|idx| entry(&tree, idx))
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Adds many items in one go: `{"path": …, "folder": true}`, `{"path": …, "text": …}`, or
    /// `{"path": …, "size": …, "seed": …}`.
    pub fn seed(&self, items: &[Value]) -> Result<usize> {
        self.change(|tree, now| {
            for item in items {
                seed_one(tree, item, now)?;
            }
            Ok(items.len())
        })
    }

    /// Whole tree as JSON, for the control interface.
    pub(crate) fn dump_json(&self) -> Value {
        json!(self.dump())
    }
}

fn seed_one(tree: &mut Tree, item: &Value, now: i64) -> ApiResult<()> {
    let path = item["path"]
        .as_str()
        .ok_or_else(|| ApiError::bad_request("path is missing"))?;
    if item["folder"].as_bool() == Some(true) {
        return mkdirs(tree, path, now).map(|_| ());
    }
    let body = body_from_json(item)?;
    let modified = item["mtime"].as_str().and_then(crate::clock::parse_iso);
    let times = FsTimes {
        created: modified,
        modified,
    };
    let (parent, name) = parent_of(tree, path, now)?;
    tree.put(
        parent,
        name,
        Content {
            body,
            hash: None,
            times,
            now,
        },
    )
    .map(|_| ())
}

pub(crate) fn body_from_json(item: &Value) -> ApiResult<FileBody> {
    use base64::Engine;
    if let Some(text) = item["text"].as_str() {
        return Ok(text.into());
    }
    if let Some(text) = item["base64"].as_str() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        let bytes = bytes.map_err(|_| ApiError::bad_request("base64 is not valid"))?;
        return Ok(bytes.into());
    }
    let size = item["size"].as_u64().unwrap_or(0);
    Ok(FileBody::Generated {
        seed: item["seed"].as_u64().unwrap_or(0),
        size,
    })
}

fn entry(tree: &Tree, idx: Idx) -> Entry {
    let node = tree.node(idx);
    let file = node.file();
    let hash = file.filter(|_| node.size > 0).map(item_json::file_hash);
    Entry {
        path: tree.path_of(idx),
        id: tree.id_of(idx),
        folder: node.is_folder(),
        size: node.size,
        hash: hash.map(|h| quickxor::to_base64(&h)),
        mtime: iso(node.fs_modified),
        etag: tree.etag(idx, node),
        ctag: tree.ctag(idx, node),
        versions: file.map_or(0, |f| f.older.len() + 1),
    }
}

fn find(tree: &Tree, path: &str) -> ApiResult<Idx> {
    tree.lookup(path).ok_or_else(ApiError::not_found)
}

fn mkdirs(tree: &mut Tree, path: &str, now: i64) -> ApiResult<Idx> {
    let mut at = ROOT;
    for part in path.split('/').filter(|p| !p.is_empty()) {
        at = match tree.child(at, part) {
            Some(found) => found,
            None => tree.mkdir(at, part, FsTimes::default(), now)?,
        };
    }
    Ok(at)
}

fn parent_of<'a>(tree: &mut Tree, path: &'a str, now: i64) -> ApiResult<(Idx, &'a str)> {
    let (above, name) = path
        .trim_end_matches('/')
        .rsplit_once('/')
        .unwrap_or(("", path));
    Ok((mkdirs(tree, above, now)?, name))
}
