//! Every change of a drive, whoever makes it: the routes and the scripted "other client" call the
//! same functions, so both obey the same rules and show up in the same change log.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::body::FileBody;
use crate::drive::{Content, FileData, FsTimes, Idx, Kind, Life, Node, ROOT, Tree, Version};
use crate::error::{ApiError, ApiResult};

/// Most older versions kept per file.
const MAX_VERSIONS: usize = 500;

impl Tree {
    /// Adds an item under a name that must be free, in a folder that still exists.
    pub(crate) fn insert(
        &mut self,
        parent: Idx,
        name: &str,
        kind: Kind,
        times: FsTimes,
        now: i64,
    ) -> ApiResult<Idx> {
        // It may have been deleted since the request was resolved.
        if !self.node(parent).is_live() {
            return Err(ApiError::not_found());
        }
        self.check_name(parent, name)?;
        let key = self.fold(name);
        let idx = Idx::try_from(self.nodes.len())
            .map_err(|_| ApiError::new(507, "maxItemCountExceeded", "Too many items."))?;
        let Kind::Folder(children) = &mut self.node_mut(parent).kind else {
            return Err(ApiError::bad_request("The parent is not a folder."));
        };
        if children.contains_key(&key) {
            return Err(ApiError::exists());
        }
        children.insert(key, idx);
        let now = self.stamp(now);
        let size = if let Kind::File(file) = &kind {
            file.body.size()
        } else {
            0
        };
        if matches!(kind, Kind::Shortcut(_)) {
            self.shortcuts.push(idx);
        }
        let by = self.actor();
        self.nodes.push(Node {
            name: name.into(),
            parent,
            life: Life::Live,
            kind,
            created: now,
            modified: now,
            fs_created: self.stamp(times.created.unwrap_or(now)),
            fs_modified: self.stamp(times.modified.unwrap_or(now)),
            created_by: by,
            modified_by: by,
            etag_n: 1,
            ctag_n: 1,
            seq: 0,
            size,
            extra: None,
        });
        self.live += 1;
        self.used += size;
        self.log_change(idx);
        self.touch_ancestors(idx, size.cast_signed());
        Ok(idx)
    }

    pub(crate) fn mkdir(
        &mut self,
        parent: Idx,
        name: &str,
        times: FsTimes,
        now: i64,
    ) -> ApiResult<Idx> {
        self.insert(parent, name, Kind::Folder(BTreeMap::new()), times, now)
    }

    pub(crate) fn add_file(&mut self, parent: Idx, name: &str, content: Content) -> ApiResult<Idx> {
        self.check_quota(content.body.size())?;
        let file = FileData {
            body: content.body,
            hash: content.hash.map(OnceLock::from).unwrap_or_default(),
            version: 1,
            older: Vec::new(),
        };
        self.insert(
            parent,
            name,
            Kind::File(Box::new(file)),
            content.times,
            content.now,
        )
    }

    /// Replaces the content of a file; the old one becomes a version.
    pub(crate) fn replace(&mut self, idx: Idx, content: Content) -> ApiResult<()> {
        self.check_unlocked(idx)?;
        let size = content.body.size();
        self.check_quota(size)?;
        let now = self.stamp(content.now);
        let fs_modified = self.stamp(content.times.modified.unwrap_or(now));
        let fs_created = content.times.created.map(|t| self.stamp(t));
        let by = self.actor();
        let node = self.node_mut(idx);
        let (modified, modified_by) = (node.modified, node.modified_by);
        let old = node.size;
        let Kind::File(file) = &mut node.kind else {
            return Err(ApiError::exists());
        };
        let body = std::mem::replace(&mut file.body, content.body);
        file.older.push(Version {
            number: file.version,
            body,
            modified,
            modified_by,
        });
        file.version += 1;
        file.hash = content.hash.map(OnceLock::from).unwrap_or_default();
        let dropped = if file.older.len() > MAX_VERSIONS {
            file.older.remove(0).body.size()
        } else {
            0
        };
        node.size = size;
        node.ctag_n += 1;
        node.etag_n += 1;
        node.modified = now;
        node.modified_by = by;
        node.fs_modified = fs_modified;
        node.fs_created = fs_created.unwrap_or(node.fs_created);
        self.used = (self.used + size).saturating_sub(dropped);
        self.log_change(idx);
        self.touch_ancestors(idx, size.cast_signed() - old.cast_signed());
        Ok(())
    }

    /// Creates or replaces, whichever applies.
    pub(crate) fn put(&mut self, parent: Idx, name: &str, content: Content) -> ApiResult<Idx> {
        match self.child(parent, name) {
            Some(idx) => self.replace(idx, content).map(|()| idx),
            None => self.add_file(parent, name, content),
        }
    }

    /// Renames and moves in one step. The name must be free at the destination.
    pub(crate) fn relocate(
        &mut self,
        idx: Idx,
        parent: Idx,
        name: &str,
        now: i64,
    ) -> ApiResult<()> {
        if idx == ROOT {
            return Err(ApiError::bad_request(
                "The root cannot be moved or renamed.",
            ));
        }
        if !self.node(idx).is_live() || !self.node(parent).is_live() {
            return Err(ApiError::not_found());
        }
        self.check_unlocked(idx)?;
        if self.is_within(parent, idx) {
            return Err(ApiError::bad_request(
                "An item cannot be moved into itself.",
            ));
        }
        let (old_parent, old_name) = {
            let node = self.node(idx);
            (node.parent, node.name.clone())
        };
        if parent == old_parent && *old_name == *name {
            return Ok(());
        }
        self.check_name(parent, name)?;
        let key = self.fold(name);
        match self.node(parent).children() {
            None => return Err(ApiError::bad_request("The destination is not a folder.")),
            Some(children) if children.get(&key).is_some_and(|found| *found != idx) => {
                return Err(ApiError::exists());
            }
            Some(_) => {}
        }
        let size = self.node(idx).size.cast_signed();
        let old_key = self.fold(&old_name);
        self.unlink(old_parent, &old_key);
        self.touch_ancestors(idx, -size);
        if let Kind::Folder(children) = &mut self.node_mut(parent).kind {
            children.insert(key, idx);
        }
        let node = self.node_mut(idx);
        node.name = name.into();
        node.parent = parent;
        self.former_names.push(old_name);
        self.touch_ancestors(idx, size);
        let now = self.stamp(now);
        self.touch(idx, now);
        if parent != old_parent {
            let seq = self.node(idx).seq;
            self.node_mut(idx).extra_mut().moved = Some((seq, old_parent));
        }
        Ok(())
    }

    fn unlink(&mut self, parent: Idx, key: &str) {
        if let Kind::Folder(children) = &mut self.node_mut(parent).kind {
            children.remove(key);
        }
    }

    /// Sets the client-side times; business drives make a version of a file by that.
    pub(crate) fn set_times(&mut self, idx: Idx, times: FsTimes, now: i64) {
        let business = self.is_business();
        let created = times.created.map(|t| self.stamp(t));
        let modified = times.modified.map(|t| self.stamp(t));
        let now = self.stamp(now);
        let node = self.node_mut(idx);
        node.fs_created = created.unwrap_or(node.fs_created);
        node.fs_modified = modified.unwrap_or(node.fs_modified);
        let (before, size) = (node.modified, node.size);
        let modified_by = node.modified_by;
        let mut added = 0;
        if business && let Kind::File(file) = &mut node.kind {
            let body = file.body.clone();
            file.older.push(Version {
                number: file.version,
                body,
                modified: before,
                modified_by,
            });
            file.version += 1;
            added = size;
        }
        self.used += added;
        self.touch(idx, now);
        if business && let Some(modified) = modified {
            self.node_mut(idx).modified = modified;
        }
    }

    /// Moves an item and all below it to the recycle bin.
    pub(crate) fn delete(&mut self, idx: Idx, now: i64, log_descendants: bool) -> ApiResult<()> {
        if idx == ROOT {
            return Err(ApiError::new(
                403,
                "accessDenied",
                "The root cannot be deleted.",
            ));
        }
        self.check_unlocked(idx)?;
        let below = self.descendants(idx);
        let node = self.node(idx);
        let (parent, size) = (node.parent, node.size.cast_signed());
        let key = self.fold(&node.name);
        self.unlink(parent, &key);
        self.touch_ancestors(idx, -size);
        for item in below {
            self.bury(item, false);
            if log_descendants {
                self.log_change(item);
            }
        }
        self.bury(idx, true);
        let now = self.stamp(now);
        self.node_mut(idx).modified = now;
        self.log_change(idx);
        Ok(())
    }

    fn bury(&mut self, idx: Idx, top: bool) {
        let bytes = self.stored_bytes(idx);
        let seq = self.node(idx).seq;
        self.node_mut(idx).life = Life::Deleted(top);
        self.live -= 1;
        self.used = self.used.saturating_sub(bytes);
        self.bin += bytes;
        self.log.remove(&seq);
    }

    /// Brings an item and what was deleted with it back.
    pub(crate) fn restore(
        &mut self,
        idx: Idx,
        parent: Option<Idx>,
        name: Option<&str>,
        now: i64,
    ) -> ApiResult<()> {
        if self.node(idx).life != Life::Deleted(true) {
            return Err(ApiError::not_found());
        }
        let parent = parent.unwrap_or(self.node(idx).parent);
        let name = name.map_or_else(|| self.node(idx).name.to_string(), str::to_owned);
        if !self.node(parent).is_live() {
            return Err(ApiError::not_found());
        }
        self.check_name(parent, &name)?;
        let key = self.fold(&name);
        match &mut self.node_mut(parent).kind {
            Kind::Folder(children) if !children.contains_key(&key) => {
                children.insert(key, idx);
            }
            _ => return Err(ApiError::exists()),
        }
        let node = self.node_mut(idx);
        node.name = name.into();
        node.parent = parent;
        let size = node.size.cast_signed();
        // Folders keep their child maps while they are in the bin.
        for item in std::iter::once(idx).chain(self.descendants(idx)) {
            let bytes = self.stored_bytes(item);
            self.node_mut(item).life = Life::Live;
            self.live += 1;
            self.used += bytes;
            self.bin = self.bin.saturating_sub(bytes);
            self.log_change(item);
        }
        self.touch_ancestors(idx, size);
        let now = self.stamp(now);
        self.touch(idx, now);
        Ok(())
    }

    /// Makes an older version the current one; that adds a version.
    pub(crate) fn restore_version(&mut self, idx: Idx, number: u32, now: i64) -> ApiResult<()> {
        let body = self
            .version_body(idx, number)
            .ok_or_else(ApiError::not_found)?;
        self.replace(
            idx,
            Content {
                body,
                hash: None,
                times: FsTimes::default(),
                now,
            },
        )
    }

    /// The content of one version, the current one included.
    pub(crate) fn version_body(&self, idx: Idx, number: u32) -> Option<FileBody> {
        let file = self.node(idx).file()?;
        if file.version == number {
            return Some(file.body.clone());
        }
        file.older
            .iter()
            .find(|v| v.number == number)
            .map(|v| v.body.clone())
    }

    /// Forgets an older version.
    pub(crate) fn delete_version(&mut self, idx: Idx, number: u32) -> ApiResult<()> {
        let Kind::File(file) = &mut self.node_mut(idx).kind else {
            return Err(ApiError::not_found());
        };
        let at = file.older.iter().position(|v| v.number == number);
        let version = file.older.remove(at.ok_or_else(ApiError::not_found)?);
        self.used = self.used.saturating_sub(version.body.size());
        Ok(())
    }

    fn stored_bytes(&self, idx: Idx) -> u64 {
        let older = |f: &FileData| f.older.iter().map(|v| v.body.size()).sum::<u64>();
        self.node(idx)
            .file()
            .map_or(0, |f| f.body.size() + older(f))
    }

    fn check_quota(&self, size: u64) -> ApiResult<()> {
        if size > self.remaining() {
            Err(ApiError::quota())
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_unlocked(&self, idx: Idx) -> ApiResult<()> {
        if self.node(idx).extra().is_some_and(|e| e.locked) {
            let message = "The file is locked for shared use.";
            return Err(ApiError::new(423, "notAllowed", message).inner("resourceLocked"));
        }
        Ok(())
    }

    /// Business drives and libraries know whole seconds only.
    pub(crate) fn stamp(&self, ms: i64) -> i64 {
        if self.is_business() {
            ms.div_euclid(1000) * 1000
        } else {
            ms
        }
    }
}
