//! The tree of one drive. A million items must fit and answer quickly, so items are numbers into
//! one vector, their public ids and tags are computed from the number, children are ordered maps,
//! and folder sizes are kept up to date instead of summed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::access::Share;
use crate::actor::{Actor, ActorNo, OWNER};
use crate::body::FileBody;
use crate::config::{DriveKind, DriveSpec};
use crate::error::{ApiError, ApiResult};
use crate::names;

/// Number of an item inside its drive; 0 is the root.
pub(crate) type Idx = u32;

/// The root of every drive.
pub(crate) const ROOT: Idx = 0;

/// A drive: what never changes, the tree behind a lock, and a signal for push channels.
pub(crate) struct Drive {
    pub(crate) spec: DriveSpec,
    pub(crate) tree: Mutex<Tree>,
    pub(crate) changed: watch::Sender<u64>,
}

/// Life of an item number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    /// In the recycle bin; `true` when it was the top of what was deleted.
    Deleted(bool),
}

/// What an item is.
pub(crate) enum Kind {
    Folder(BTreeMap<Box<str>, Idx>),
    File(Box<FileData>),
    Package,
    Shortcut(Box<Remote>),
}

/// Where a shortcut points.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) drive: String,
    pub(crate) item: String,
}

/// Content of a file with its history.
pub(crate) struct FileData {
    pub(crate) body: FileBody,
    pub(crate) hash: OnceLock<[u8; 20]>,
    pub(crate) version: u32,
    pub(crate) older: Vec<Version>,
}

/// An earlier content.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) body: FileBody,
    pub(crate) modified: i64,
    pub(crate) modified_by: ActorNo,
}

/// Rare properties, kept out of the common item.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) description: Option<String>,
    pub(crate) special: Option<String>,
    pub(crate) malware: bool,
    pub(crate) locked: bool,
    /// A vault: listed, but nothing in it can be reached.
    pub(crate) vault: bool,
    /// Under retention: may not be deleted while it holds something.
    pub(crate) held: bool,
    pub(crate) links: Vec<String>,
    /// With whom it is shared.
    pub(crate) shares: Vec<Share>,
    /// Last move: change number and the folder it came from.
    pub(crate) moved: Option<(u64, Idx)>,
}

/// One item.
pub(crate) struct Node {
    pub(crate) name: Box<str>,
    pub(crate) parent: Idx,
    pub(crate) life: Life,
    pub(crate) kind: Kind,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) fs_created: i64,
    pub(crate) fs_modified: i64,
    pub(crate) created_by: ActorNo,
    pub(crate) modified_by: ActorNo,
    pub(crate) etag_n: u32,
    pub(crate) ctag_n: u32,
    /// Number of the last change; its place in the change log.
    pub(crate) seq: u64,
    /// Bytes of a file, or of everything below a folder.
    pub(crate) size: u64,
    pub(crate) extra: Option<Box<Extra>>,
}

impl Node {
    pub(crate) fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }

    pub(crate) fn file(&self) -> Option<&FileData> {
        match &self.kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn children(&self) -> Option<&BTreeMap<Box<str>, Idx>> {
        match &self.kind {
            Kind::Folder(children) => Some(children),
            _ => None,
        }
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }
}

/// Client-side times given with a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FsTimes {
    pub(crate) created: Option<i64>,
    pub(crate) modified: Option<i64>,
}

/// New content on its way into the tree.
pub(crate) struct Content {
    pub(crate) body: FileBody,
    /// Known already for uploads, computed when asked for otherwise.
    pub(crate) hash: Option<[u8; 20]>,
    pub(crate) times: FsTimes,
    pub(crate) now: i64,
}

/// What to do when a name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Fail,
    Replace,
    Rename,
}

impl Conflict {
    pub(crate) fn parse(text: Option<&str>, default: Conflict) -> ApiResult<Conflict> {
        match text {
            None => Ok(default),
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "fail" => Ok(Conflict::Fail),
                "replace" => Ok(Conflict::Replace),
                "rename" => Ok(Conflict::Rename),
                _ => Err(ApiError::bad_request("Invalid conflict behavior.")),
            },
        }
    }
}

/// All items of a drive and the log of their changes.
pub(crate) struct Tree {
    pub(crate) kind: DriveKind,
    pub(crate) drive_id: String,
    pub(crate) classic: bool,
    pub(crate) key: u64,
    pub(crate) ae_rule: bool,
    pub(crate) quota: u64,
    pub(crate) nodes: Vec<Node>,
    /// Change number to item: each item stands here once, at its latest change.
    pub(crate) log: BTreeMap<u64, Idx>,
    pub(crate) seq: u64,
    pub(crate) live: u64,
    /// Bytes of live files including older versions.
    pub(crate) used: u64,
    /// Bytes in the recycle bin.
    pub(crate) bin: u64,
    /// Raised to make all delta tokens stale.
    pub(crate) epoch: u32,
    /// All items that ever were shortcuts.
    pub(crate) shortcuts: Vec<Idx>,
    /// All items that ever were shared.
    pub(crate) shared: Vec<Idx>,
    /// Names that items had before they got others.
    pub(crate) former_names: Vec<Box<str>>,
    /// Those who ever changed something, the owner first.
    pub(crate) actors: Vec<Actor>,
}

impl Tree {
    pub(crate) fn new(spec: &DriveSpec, owner: Actor, key: u64, now: i64) -> Self {
        let root = Node {
            name: "root".into(),
            parent: ROOT,
            life: Life::Live,
            kind: Kind::Folder(BTreeMap::new()),
            created: now,
            modified: now,
            fs_created: now,
            fs_modified: now,
            created_by: OWNER,
            modified_by: OWNER,
            etag_n: 1,
            ctag_n: 0,
            seq: 1,
            size: 0,
            extra: None,
        };
        Tree {
            kind: spec.kind,
            drive_id: spec.id.clone(),
            classic: spec.classic_ids,
            key,
            ae_rule: false,
            quota: spec.quota,
            nodes: vec![root],
            log: BTreeMap::from([(1, ROOT)]),
            seq: 1,
            live: 1,
            used: 0,
            bin: 0,
            epoch: 1,
            shortcuts: Vec::new(),
            shared: Vec::new(),
            former_names: Vec::new(),
            actors: vec![owner],
        }
    }

    pub(crate) fn node(&self, idx: Idx) -> &Node {
        &self.nodes[idx as usize]
    }

    pub(crate) fn node_mut(&mut self, idx: Idx) -> &mut Node {
        &mut self.nodes[idx as usize]
    }

    pub(crate) fn fold(&self, name: &str) -> Box<str> {
        names::fold(name, self.ae_rule).into()
    }

    pub(crate) fn child(&self, parent: Idx, name: &str) -> Option<Idx> {
        self.node(parent).children()?.get(&self.fold(name)).copied()
    }

    /// Walks a path from `from`.
    pub(crate) fn walk<S: AsRef<str>>(&self, from: Idx, path: &[S]) -> Option<Idx> {
        path.iter()
            .try_fold(from, |at, name| self.child(at, name.as_ref()))
    }

    /// Walks a `/`-separated path from the root.
    pub(crate) fn lookup(&self, path: &str) -> Option<Idx> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        self.walk(ROOT, &parts)
    }

    /// The path below the root, with a leading slash; empty for the root itself.
    pub(crate) fn path_of(&self, idx: Idx) -> String {
        let mut parts = Vec::new();
        let mut at = idx;
        while at != ROOT {
            parts.push(&*self.node(at).name);
            at = self.node(at).parent;
        }
        let length = parts.iter().map(|part| part.len() + 1).sum();
        let mut path = String::with_capacity(length);
        for part in parts.iter().rev() {
            path.push('/');
            path.push_str(part);
        }
        path
    }

    /// Whether `idx` is `top` or below it.
    pub(crate) fn is_within(&self, idx: Idx, top: Idx) -> bool {
        let mut at = idx;
        loop {
            if at == top {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.node(at).parent;
        }
    }

    /// All live items below `top`, parents first, `top` not included.
    pub(crate) fn descendants(&self, top: Idx) -> Vec<Idx> {
        let mut found = Vec::new();
        let mut queue = vec![top];
        while let Some(at) = queue.pop() {
            if let Some(children) = self.node(at).children() {
                found.extend(children.values().copied());
                queue.extend(
                    children
                        .values()
                        .copied()
                        .filter(|c| self.node(*c).is_folder()),
                );
            }
        }
        found
    }

    /// Moves an item to the end of the change log.
    pub(crate) fn log_change(&mut self, idx: Idx) {
        self.seq += 1;
        let seq = self.seq;
        let old = std::mem::replace(&mut self.node_mut(idx).seq, seq);
        self.log.remove(&old);
        self.log.insert(seq, idx);
    }

    /// Records a change of metadata.
    pub(crate) fn touch(&mut self, idx: Idx, now: i64) {
        let by = self.actor();
        let node = self.node_mut(idx);
        node.modified_by = by;
        node.etag_n += 1;
        node.modified = now;
        self.log_change(idx);
        self.touch_ancestors(idx, 0);
    }

    /// Adds `delta` bytes to all folders above and marks them as changed below.
    pub(crate) fn touch_ancestors(&mut self, idx: Idx, delta: i64) {
        let mut at = idx;
        while at != ROOT {
            at = self.node(at).parent;
            let folder = self.node_mut(at);
            folder.size = folder.size.saturating_add_signed(delta);
            folder.ctag_n += 1;
        }
    }

    /// Refuses names that the service refuses at this place.
    pub(crate) fn check_name(&self, parent: Idx, name: &str) -> ApiResult<()> {
        names::check(name, self.kind, parent == ROOT).map_err(|e| match e {
            names::NameError::Html => ApiError::html(),
            names::NameError::Character => {
                ApiError::bad_request("The name contains invalid characters.")
                    .inner("nameContainsInvalidCharacters")
            }
            names::NameError::Reserved => ApiError::bad_request(
                "The provided name cannot contain a leading, or trailing, . or space, \
                 or be a reserved word.",
            ),
            names::NameError::TooLong => {
                ApiError::bad_request("The name is too long.").inner("pathIsTooLong")
            }
        })?;
        let path = self.path_of(parent) + "/" + name;
        if names::path_too_long(&path, self.kind) {
            return Err(ApiError::bad_request("The path is too long.").inner("pathIsTooLong"));
        }
        Ok(())
    }

    /// The name an item gets when `name` is taken and the caller asked for another one.
    pub(crate) fn free_name(&self, parent: Idx, name: &str) -> String {
        let (stem, extension) = match name.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
            _ => (name, String::new()),
        };
        let mut number = 1u32;
        loop {
            let candidate = format!("{stem} {number}{extension}");
            if self.child(parent, &candidate).is_none() {
                return candidate;
            }
            number += 1;
        }
    }

    /// Switches the wider name comparison; all children are filed anew.
    pub(crate) fn set_ae_rule(&mut self, on: bool) {
        if std::mem::replace(&mut self.ae_rule, on) == on {
            return;
        }
        for at in 0..self.nodes.len() {
            let Kind::Folder(children) = &mut self.nodes[at].kind else {
                continue;
            };
            let children: Vec<Idx> = std::mem::take(children).into_values().collect();
            let filed = children
                .into_iter()
                .map(|c| (self.fold(&self.node(c).name), c))
                .collect();
            self.nodes[at].kind = Kind::Folder(filed);
        }
    }

    /// Drive and item ids that shortcuts point to.
    pub(crate) fn shortcut_targets(&self) -> Vec<(String, String)> {
        let target = |idx: &Idx| match &self.node(*idx).kind {
            Kind::Shortcut(remote) => Some((remote.drive.clone(), remote.item.clone())),
            _ => None,
        };
        self.shortcuts.iter().filter_map(target).collect()
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.quota.saturating_sub(self.used)
    }

    pub(crate) fn is_business(&self) -> bool {
        self.kind != DriveKind::Personal
    }
}
