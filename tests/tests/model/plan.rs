//! What programs do, at random: single calls and the ways in which programs save.

use crate::disk::{How, Node, Step, Tree};
use crate::names::{NAMES, TEMPORARY, is_same, stays_here};
use crate::rng::Rng;

/// Deepest folder that histories make.
const DEPTH_MAX: usize = 4;

/// Makes up the calls of one history.
pub struct Planner {
    pub rng: Rng,
    next_slot: u32,
    next_body: u64,
    /// Handles that are open, and what they were opened on.
    pub open: Vec<u32>,
    /// Whether files are only written anew, never changed in place.
    pub whole_only: bool,
}

impl Planner {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            next_slot: 0,
            // Bodies of different histories differ, too.
            next_body: (seed & 0xffff) << 16,
            open: Vec::new(),
            whole_only: false,
        }
    }

    /// The next few calls, given what is there.
    pub fn next(&mut self, tree: &Tree) -> Vec<Step> {
        let steps = self.choose(tree);
        if self.open.is_empty() {
            return steps;
        }
        // While a file is open, the kernel may know old attributes of it under other spellings.
        steps
            .into_iter()
            .map(|step| with_paths(step, |path| as_stored(tree, &path)))
            .collect()
    }

    fn choose(&mut self, tree: &Tree) -> Vec<Step> {
        if !self.open.is_empty() && self.rng.percent(40) {
            return self.go_on();
        }
        match self.rng.below(100) {
            0..=17 => self.write_whole(tree),
            18..=25 => self.save_by_rename(tree),
            26..=30 => self.save_by_backup(tree),
            31..=51 if self.whole_only => self.write_whole(tree),
            31..=37 => self.append(tree),
            38..=46 => self.change_in_place(tree),
            47..=51 => self.keep_open(tree),
            52..=59 => vec![Step::Mkdir(self.new_place(tree))],
            60..=72 => self.rename(tree),
            73..=78 => vec![Step::Unlink(self.a_file(tree))],
            79 => vec![Step::Rmdir(self.a_folder(tree))],
            80..=81 => self.copy(tree),
            82..=84 => self.remove_tree(tree),
            85..=87 if !self.whole_only => vec![self.truncate(tree)],
            88..=90 => vec![self.times(tree)],
            91..=94 => vec![Step::Read(self.a_file(tree))],
            95..=96 => vec![self.read_range(tree)],
            97..=98 => vec![Step::List(self.a_folder(tree))],
            _ => vec![Step::Stat(self.any(tree))],
        }
    }

    /// Closes everything that is open.
    pub fn close_all(&mut self) -> Vec<Step> {
        self.open.drain(..).map(Step::Close).collect()
    }

    fn go_on(&mut self) -> Vec<Step> {
        let slot = *self.rng.pick(&self.open);
        match self.rng.below(10) {
            0..=3 => vec![self.write(slot, None)],
            4 => {
                let at = self.rng.below(10_000);
                vec![self.write(slot, Some(at))]
            }
            5 => vec![Step::SetLen(slot, self.rng.below(20_000))],
            6 => vec![Step::Fsync(slot)],
            _ => {
                self.open.retain(|&other| other != slot);
                vec![Step::Close(slot)]
            }
        }
    }

    fn slot(&mut self) -> u32 {
        self.next_slot += 1;
        self.next_slot
    }

    fn body_len(&mut self) -> usize {
        let len = match self.rng.below(100) {
            0..=9 => 0,
            10..=59 => self.rng.below(300),
            60..=89 => self.rng.below(64 << 10),
            90..=98 => self.rng.below(1 << 20),
            _ => self.rng.below(5 << 20),
        };
        usize::try_from(len).expect("small")
    }

    fn write(&mut self, slot: u32, at: Option<u64>) -> Step {
        self.next_body += 1;
        Step::Write(slot, at, self.next_body, self.body_len())
    }

    fn write_whole(&mut self, tree: &Tree) -> Vec<Step> {
        let path = if self.rng.percent(50) {
            self.a_file(tree)
        } else {
            self.new_place(tree)
        };
        let slot = self.slot();
        let how = How {
            create: true,
            exclusive: self.rng.percent(10),
            truncate: true,
            ..How::default()
        };
        let mut steps = vec![Step::Open(slot, path, how)];
        for _ in 0..self.rng.below(3) {
            steps.push(self.write(slot, None));
        }
        if self.rng.percent(15) {
            steps.push(Step::Fsync(slot));
        }
        steps.push(Step::Close(slot));
        steps
    }

    /// `cp` of a file.
    fn copy(&mut self, tree: &Tree) -> Vec<Step> {
        let from = self.a_file(tree);
        let to = if self.rng.percent(30) {
            self.a_file(tree)
        } else {
            self.new_place(tree)
        };
        let slot = self.slot();
        let how = How {
            create: true,
            truncate: true,
            ..How::default()
        };
        vec![
            Step::Open(slot, to, how),
            Step::Copy(slot, from),
            Step::Close(slot),
        ]
    }

    fn keep_open(&mut self, tree: &Tree) -> Vec<Step> {
        let path = if self.rng.percent(60) {
            self.a_file(tree)
        } else {
            self.new_place(tree)
        };
        let slot = self.slot();
        let how = How {
            create: true,
            truncate: self.rng.percent(40),
            append: self.rng.percent(20),
            ..How::default()
        };
        self.open.push(slot);
        vec![Step::Open(slot, path, how), self.write(slot, None)]
    }

    /// Writes a temporary file and renames it over the original.
    fn save_by_rename(&mut self, tree: &Tree) -> Vec<Step> {
        let target = if self.rng.percent(80) {
            self.a_file(tree)
        } else {
            self.new_place(tree)
        };
        let temporary = sibling(&target, self.rng.pick(TEMPORARY).here);
        let mut steps = self.fill(&temporary);
        steps.push(Step::Rename(temporary, target));
        steps
    }

    /// Moves the original aside, writes anew, and removes what was moved aside.
    fn save_by_backup(&mut self, tree: &Tree) -> Vec<Step> {
        let target = self.a_file(tree);
        let backup = sibling(&target, "a.txt~");
        let mut steps = vec![Step::Rename(target.clone(), backup.clone())];
        if self.rng.percent(50) {
            steps.extend(self.fill(&target));
        } else {
            let temporary = sibling(&target, "save.tmp");
            steps.extend(self.fill(&temporary));
            steps.push(Step::Rename(temporary, target));
        }
        if self.rng.percent(70) {
            steps.push(Step::Unlink(backup));
        }
        steps
    }

    fn fill(&mut self, path: &str) -> Vec<Step> {
        let slot = self.slot();
        let how = How {
            create: true,
            truncate: true,
            ..How::default()
        };
        vec![
            Step::Open(slot, path.to_owned(), how),
            self.write(slot, None),
            Step::Close(slot),
        ]
    }

    fn append(&mut self, tree: &Tree) -> Vec<Step> {
        let slot = self.slot();
        let how = How {
            create: self.rng.percent(50),
            append: true,
            ..How::default()
        };
        vec![
            Step::Open(slot, self.a_file(tree), how),
            self.write(slot, None),
            Step::Close(slot),
        ]
    }

    fn change_in_place(&mut self, tree: &Tree) -> Vec<Step> {
        let path = self.a_file(tree);
        let size = match tree.get(&path) {
            Some(Node::File(bytes, _)) => bytes.len() as u64,
            _ => 0,
        };
        let slot = self.slot();
        let mut steps = vec![Step::Open(slot, path, How::default())];
        for _ in 0..=self.rng.below(2) {
            let at = self.rng.below(size + size / 8 + 10);
            steps.push(self.write(slot, Some(at)));
        }
        if self.rng.percent(20) {
            steps.push(Step::SetLen(slot, self.rng.below(size + 1000)));
        }
        steps.push(Step::Close(slot));
        steps
    }

    fn rename(&mut self, tree: &Tree) -> Vec<Step> {
        let from = self.any(tree);
        let to = match self.rng.below(10) {
            // Another spelling of the same name.
            0..=1 => respelt(&from),
            2..=5 => self.any(tree),
            _ => self.new_place(tree),
        };
        vec![match self.rng.below(10) {
            0 => Step::RenameNoReplace(from, to),
            1 => Step::Exchange(from, to),
            _ => Step::Rename(from, to),
        }]
    }

    /// `rm -r` of a small tree.
    fn remove_tree(&mut self, tree: &Tree) -> Vec<Step> {
        let folder = self.a_folder(tree);
        if folder.is_empty() {
            return vec![Step::List(folder)];
        }
        let inside = format!("{folder}/");
        let below = tree
            .iter()
            .rev()
            .filter(|(path, _)| path.starts_with(&inside));
        let mut steps: Vec<Step> = below
            .map(|(path, node)| match node {
                Node::Folder => Step::Rmdir(path.clone()),
                Node::File(..) => Step::Unlink(path.clone()),
            })
            .collect();
        steps.push(Step::Rmdir(folder));
        steps
    }

    fn truncate(&mut self, tree: &Tree) -> Step {
        let len = if self.rng.percent(30) {
            0
        } else {
            self.rng.below(40_000)
        };
        Step::Truncate(self.a_file(tree), len)
    }

    fn times(&mut self, tree: &Tree) -> Step {
        // From September 2001: recognised as set by a history.
        let seconds = 1_000_000_000 + self.rng.below(100_000_000);
        let nanos = u32::try_from(self.rng.below(1_000_000_000)).expect("below 2^32");
        Step::Times(self.a_file(tree), seconds, nanos)
    }

    fn read_range(&mut self, tree: &Tree) -> Step {
        let at = self.rng.below(100_000);
        Step::ReadRange(self.a_file(tree), at, 5000)
    }

    /// The path of some file, usually one that is there.
    pub fn a_file(&mut self, tree: &Tree) -> String {
        self.existing(tree, |node| matches!(node, Node::File(..)))
    }

    fn a_folder(&mut self, tree: &Tree) -> String {
        self.existing(tree, |node| *node == Node::Folder)
    }

    fn any(&mut self, tree: &Tree) -> String {
        self.existing(tree, |_| true)
    }

    fn existing(&mut self, tree: &Tree, wanted: impl Fn(&Node) -> bool) -> String {
        let found: Vec<&String> = tree
            .iter()
            .filter(|(path, node)| wanted(node) && !stays_here(path))
            .map(|(path, _)| path)
            .collect();
        if found.is_empty() || self.rng.percent(8) {
            return self.new_place(tree);
        }
        let path = (*self.rng.pick(&found)).clone();
        if self.rng.percent(10) {
            respelt(&path)
        } else {
            path
        }
    }

    /// A path in some folder, which may be taken.
    pub fn new_place(&mut self, tree: &Tree) -> String {
        let folders: Vec<&String> = tree
            .iter()
            .filter(|(path, node)| {
                **node == Node::Folder && path.matches('/').count() + 1 < DEPTH_MAX
            })
            .map(|(path, _)| path)
            .collect();
        let name = self.rng.pick(NAMES).here;
        if folders.is_empty() || self.rng.percent(35) {
            return name.to_owned();
        }
        format!("{}/{name}", self.rng.pick(&folders))
    }
}

/// A path in the same folder.
fn sibling(path: &str, name: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

/// The same name in another spelling, where there is one.
fn respelt(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let class = NAMES.iter().find(|n| n.here == name).map(|n| n.class);
    let other = NAMES
        .iter()
        .find(|n| Some(n.class) == class && n.here != name);
    other.map_or_else(|| path.to_owned(), |other| sibling(path, other.here))
}

/// A path under the spelling that is there.
fn as_stored(tree: &Tree, path: &str) -> String {
    let mut stored = String::new();
    for part in path.split('/') {
        let prefix = if stored.is_empty() {
            String::new()
        } else {
            format!("{stored}/")
        };
        let found = tree.keys().find(|known| {
            known
                .strip_prefix(&prefix)
                .is_some_and(|name| !name.contains('/') && is_same(name, part))
        });
        stored = found.cloned().unwrap_or_else(|| format!("{prefix}{part}"));
    }
    stored
}

/// The same call on other paths.
fn with_paths(step: Step, map: impl Fn(String) -> String) -> Step {
    match step {
        Step::Mkdir(path) => Step::Mkdir(map(path)),
        Step::Rmdir(path) => Step::Rmdir(map(path)),
        Step::Unlink(path) => Step::Unlink(map(path)),
        Step::Rename(from, to) => Step::Rename(map(from), map(to)),
        Step::RenameNoReplace(from, to) => Step::RenameNoReplace(map(from), map(to)),
        Step::Exchange(a, b) => Step::Exchange(map(a), map(b)),
        Step::Open(slot, path, how) => Step::Open(slot, map(path), how),
        Step::Copy(slot, from) => Step::Copy(slot, map(from)),
        Step::Truncate(path, len) => Step::Truncate(map(path), len),
        Step::Times(path, seconds, nanos) => Step::Times(map(path), seconds, nanos),
        Step::Read(path) => Step::Read(map(path)),
        Step::ReadRange(path, at, len) => Step::ReadRange(map(path), at, len),
        Step::List(path) => Step::List(map(path)),
        Step::Stat(path) => Step::Stat(map(path)),
        other => other,
    }
}
