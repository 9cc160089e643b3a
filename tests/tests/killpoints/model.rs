//! What has to be there: everything that was acknowledged, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::act::{Act, How};
use crate::tree::{File, Node, Tree};

/// What the mount must show.
#[derive(Clone, Default)]
pub struct Model {
    pub tree: Tree,
    /// What somebody else did, which arrives here sooner or later.
    coming: Vec<(String, Option<Node>)>,
    /// What open files held that were emptied and not written since: a crash may leave either.
    emptied: BTreeMap<String, File>,
    /// How often each file was saved or its time set.
    pub saves: BTreeMap<String, usize>,
    /// The files that are open, by slot; those without a path were unlinked.
    pub slots: BTreeMap<u32, Slot>,
    /// What is pinned.
    pub pins: BTreeSet<&'static str>,
    /// What was exported, by name.
    pub exports: BTreeMap<String, Vec<u8>>,
}

/// An open file.
#[derive(Clone)]
pub struct Slot {
    pub path: Option<String>,
    pub append: bool,
}

impl Model {
    pub fn new(tree: Tree) -> Self {
        Self {
            tree,
            ..Self::default()
        }
    }

    /// Takes a call that was acknowledged.
    pub fn apply(&mut self, act: &Act) {
        self.count(act);
        match act {
            Act::Mkdir(path) => drop(self.tree.insert((*path).to_owned(), Node::Folder)),
            Act::Rmdir(path) => drop(self.tree.remove(*path)),
            Act::Unlink(path) => {
                self.tree.remove(*path);
                self.lose(path);
            }
            Act::Rename(from, to) => self.rename(from, to),
            Act::Exchange(a, b) => {
                self.rename(a, "\0");
                self.rename(b, a);
                self.rename("\0", b);
            }
            Act::Open(slot, path, how) => self.open(*slot, path, *how),
            Act::Write(slot, at, body) => {
                self.change(*slot, |bytes| write(bytes, *at, &body.make()));
            }
            Act::Append(slot, body) => self.change(*slot, |bytes| bytes.extend(body.make())),
            Act::Copy(slot, from) => self.copy(*slot, from),
            Act::SetLen(slot, len) => self.set_len(*slot, *len),
            Act::Zero(slot, at, len) | Act::Punch(slot, at, len) => {
                self.change(*slot, |bytes| bytes[*at..*at + *len].fill(0));
            }
            Act::Fsync(slot) => self.settle(*slot),
            Act::Close(slot) => {
                self.settle(*slot);
                self.slots.remove(slot);
            }
            Act::Truncate(path, len) => self.change_at(path, |bytes| bytes.resize(*len, 0)),
            Act::Times(path, seconds) => {
                if let Some(Node::File(file)) = self.tree.get_mut(*path) {
                    file.time = Some(*seconds);
                }
            }
            Act::Link(path, target) => {
                let link = Node::Link((*target).to_owned());
                self.tree.insert((*path).to_owned(), link);
            }
            Act::There(_, _, effects) | Act::Elsewhere(_, _, effects) => {
                self.coming.extend(effects());
            }
            Act::Command(verb, path, effects) => self.command(verb, path, effects()),
            Act::Export(path) => self.export(path),
            Act::Sync => self.arrive(),
            Act::Read(..)
            | Act::Offline
            | Act::Online
            | Act::Slow
            | Act::Swift
            | Act::Begun(_)
            | Act::Copying(_)
            | Act::Until(..)
            | Act::Sent(_) => {}
        }
    }

    /// Counts what may become a version on the service.
    fn count(&mut self, act: &Act) {
        let path = match act {
            Act::Fsync(slot) | Act::Close(slot) => self.path_of(*slot),
            Act::Truncate(path, _) | Act::Times(path, _) => Some((*path).to_owned()),
            _ => None,
        };
        if let Some(path) = path {
            *self.saves.entry(path).or_default() += 1;
        }
    }

    fn command(&mut self, verb: &str, path: &'static str, effects: Vec<(String, Option<Node>)>) {
        match verb {
            "pin" => drop(self.pins.insert(path)),
            "unpin" => drop(self.pins.remove(path)),
            _ => {}
        }
        self.take(effects);
    }

    fn export(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or(path);
        if let Some(Node::File(file)) = self.tree.get(path) {
            self.exports.insert(name.to_owned(), file.bytes.to_vec());
        }
    }

    /// What is there already and shows here sooner or later.
    pub fn expect(&mut self, effects: impl IntoIterator<Item = (String, Option<Node>)>) {
        self.coming.extend(effects);
    }

    fn arrive(&mut self) {
        let coming = std::mem::take(&mut self.coming);
        self.take(coming);
    }

    fn take(&mut self, effects: Vec<(String, Option<Node>)>) {
        for (path, node) in effects {
            *self.saves.entry(path.clone()).or_default() += 1;
            match node {
                Some(node) => drop(self.tree.insert(path, node)),
                None => drop(self.tree.remove(&path)),
            }
        }
    }

    fn open(&mut self, slot: u32, path: &str, how: How) {
        let empty = || Node::File(File::here(Vec::new()));
        if how == How::Create {
            self.tree.entry(path.to_owned()).or_insert_with(empty);
        }
        let append = how == How::Append;
        let path = Some(path.to_owned());
        self.slots.insert(slot, Slot { path, append });
        if how == How::Truncate {
            self.set_len(slot, 0);
        }
    }

    fn copy(&mut self, slot: u32, from: &str) {
        let Some(Node::File(original)) = self.tree.get(from).cloned() else {
            return;
        };
        self.settle(slot);
        let path = self.path_of(slot);
        if let Some(Node::File(file)) = path.and_then(|path| self.tree.get_mut(&path)) {
            file.bytes = original.bytes;
            file.time = None;
            file.here = original.here;
        }
    }

    fn set_len(&mut self, slot: u32, len: usize) {
        let file = self.file_of(slot).cloned();
        let before = file.filter(|file| len == 0 && !file.bytes.is_empty());
        self.change(slot, |bytes| bytes.resize(len, 0));
        if let (Some(path), Some(before)) = (self.path_of(slot), before) {
            self.emptied.insert(path, before);
        }
    }

    fn path_of(&self, slot: u32) -> Option<String> {
        self.slots.get(&slot)?.path.clone()
    }

    fn file_of(&self, slot: u32) -> Option<&File> {
        match self.tree.get(self.slots.get(&slot)?.path.as_ref()?)? {
            Node::File(file) => Some(file),
            _ => None,
        }
    }

    /// Length of an open file.
    pub fn len_of(&self, slot: u32) -> Option<usize> {
        Some(self.file_of(slot)?.bytes.len())
    }

    fn settle(&mut self, slot: u32) {
        if let Some(path) = self.path_of(slot) {
            self.emptied.remove(&path);
        }
    }

    fn change(&mut self, slot: u32, change: impl FnOnce(&mut Vec<u8>)) {
        self.settle(slot);
        if let Some(path) = self.path_of(slot) {
            self.change_at(&path, change);
        }
    }

    fn change_at(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Node::File(file)) = self.tree.get_mut(path) {
            change(Arc::make_mut(&mut file.bytes));
            file.time = None;
            file.here |= file.bytes.is_empty();
        }
    }

    fn lose(&mut self, path: &str) {
        for slot in self.slots.values_mut() {
            if slot.path.as_deref() == Some(path) {
                slot.path = None;
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.lose(to);
        let inside = format!("{from}/");
        let moved: Vec<String> = self
            .tree
            .keys()
            .filter(|path| *path == from || path.starts_with(&inside))
            .cloned()
            .collect();
        for path in moved {
            let new = format!("{to}{}", &path[from.len()..]);
            if let Some(node) = self.tree.remove(&path) {
                self.tree.insert(new.clone(), node);
            }
            if let Some(saves) = self.saves.remove(&path) {
                *self.saves.entry(new.clone()).or_default() += saves;
            }
            if let Some(before) = self.emptied.remove(&path) {
                self.emptied.insert(new.clone(), before);
            }
            for slot in self.slots.values_mut() {
                if slot.path.as_ref() == Some(&path) {
                    slot.path = Some(new.clone());
                }
            }
        }
    }

    /// Tells whether a file's bytes are certain to be on this machine.
    pub fn is_here(&self, path: &str) -> bool {
        // One that was emptied may hold again what it held.
        let before = self.emptied.get(path).is_none_or(|file| file.here);
        before && matches!(self.tree.get(path), Some(Node::File(file)) if file.here)
    }

    /// Names what is wrong with a tree after a crash. `read` tells which files were read.
    pub fn wrong_with(&self, is: &Tree) -> Vec<String> {
        let mut wanted = self.tree.clone();
        for (path, before) in &self.emptied {
            let empty = matches!(is.get(path), Some(Node::File(file)) if file.bytes.is_empty());
            if !empty {
                wanted.insert(path.clone(), Node::File(before.clone()));
            }
        }
        for (path, node) in &self.coming {
            if same(is.get(path), node.as_ref()) {
                match node {
                    Some(node) => drop(wanted.insert(path.clone(), node.clone())),
                    None => drop(wanted.remove(path)),
                }
            }
        }
        for (path, node) in &mut wanted {
            // Nobody read it; its size must do.
            if let (Node::File(wanted), Some(Node::File(is))) = (node, is.get(path))
                && !is.here
                && is.bytes.len() == wanted.bytes.len()
            {
                wanted.bytes = Arc::clone(&is.bytes);
            }
        }
        crate::tree::differences(is, &wanted)
    }
}

fn same(is: Option<&Node>, wanted: Option<&Node>) -> bool {
    match (is, wanted) {
        (Some(Node::File(is)), Some(Node::File(wanted))) if !is.here => {
            is.bytes.len() == wanted.bytes.len()
        }
        (is, wanted) => is == wanted,
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    let end = at + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(new);
}

/// Tells whether a tree is what it would be if a long write had been cut by the crash: up to some
/// point new, from there on old.
pub fn is_partly_written(act: &Act, is: &Tree, without: &Model, with: &Model) -> bool {
    let (Act::Write(slot, ..) | Act::Append(slot, _) | Act::Copy(slot, _)) = act else {
        return false;
    };
    let Some(path) = with.path_of(*slot) else {
        return false;
    };
    let (Some(Node::File(now)), Some(new), Some(old)) =
        (is.get(&path), with.file_of(*slot), without.file_of(*slot))
    else {
        return false;
    };
    let mut others = is.clone();
    others.insert(path, Node::File(old.clone()));
    if matches!(act, Act::Copy(..)) || !now.here {
        // Perhaps nobody can read it yet. What comes of it is compared in the end.
        let fits = now.bytes.len() <= new.bytes.len();
        return fits && without.wrong_with(&others).is_empty();
    }
    let cut = now.bytes.iter().zip(new.bytes.iter());
    let cut = cut.take_while(|(a, b)| a == b).count();
    let rest = old.bytes.get(cut..).unwrap_or_default();
    now.bytes.get(cut..) == Some(rest) && without.wrong_with(&others).is_empty()
}
