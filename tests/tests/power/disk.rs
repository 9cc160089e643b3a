//! The judge: a disk that remembers what is on stable storage and what only its cache has.
//!
//! Everything that is done to it is a list of events behind an image that a power cut cannot touch.
//! What the disk shows is the image with all events; what it holds after a power cut is the image
//! with those that were synced, and with whatever else [`Mode`] lets through. The same code applies
//! events in both cases.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use crate::rng::Rng;

/// Unit in which data reaches the disk, in bytes: a write of several may arrive in parts.
pub const SECTOR: u64 = 4096;

/// The root directory.
pub const ROOT: u64 = 1;

/// What a power cut leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing. Data is there when its file was synced, a name when its directory was; neither
    /// brings the other along. The least that POSIX allows.
    Strict,
    /// As a file system with a journal: names, sizes that were set and holes survive in the order
    /// in which they were made, up to some moment; of the data written, any sectors do. Syncing a
    /// file keeps all that was done to names up to the last change of its inode.
    Torn,
    /// The same, and files are as long as they were written although their data is not there, so
    /// that they hold zeros.
    Zeros,
}

/// All modes.
pub const MODES: [Mode; 3] = [Mode::Strict, Mode::Torn, Mode::Zeros];

/// Something that was done to the disk.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file or directory was made.
    Make {
        parent: u64,
        name: OsString,
        ino: u64,
        directory: bool,
        mode: u32,
    },
    /// A file got one more name.
    Link {
        parent: u64,
        name: OsString,
        ino: u64,
    },
    /// A name was removed.
    Remove {
        parent: u64,
        name: OsString,
        ino: u64,
    },
    /// A name was changed; whatever had the new one lost it, or has the old one now.
    Rename {
        from: (u64, OsString),
        to: (u64, OsString),
        ino: u64,
        exchange: bool,
    },
    /// A file was cut or extended with zeros.
    Resize { ino: u64, size: u64 },
    /// A range inside a file was made a hole.
    Punch { ino: u64, start: u64, end: u64 },
    /// Bytes were written.
    Write { ino: u64, at: u64, data: Arc<[u8]> },
    /// The data of a file is on stable storage.
    Sync { ino: u64 },
    /// The names in a directory are on stable storage.
    SyncDir { ino: u64 },
}

impl Event {
    /// Whether the file system has it in its journal rather than in the data area.
    fn is_metadata(&self) -> bool {
        !matches!(
            self,
            Self::Write { .. } | Self::Sync { .. } | Self::SyncDir { .. }
        )
    }

    /// The directories whose names it changes.
    fn directories(&self) -> Vec<u64> {
        match self {
            Self::Make { parent, .. } | Self::Link { parent, .. } | Self::Remove { parent, .. } => {
                vec![*parent]
            }
            Self::Rename { from, to, .. } => vec![from.0, to.0],
            _ => Vec::new(),
        }
    }

    /// The inode it is about.
    fn inode(&self) -> u64 {
        match self {
            Self::Make { ino, .. }
            | Self::Link { ino, .. }
            | Self::Remove { ino, .. }
            | Self::Rename { ino, .. }
            | Self::Resize { ino, .. }
            | Self::Punch { ino, .. }
            | Self::Write { ino, .. }
            | Self::Sync { ino }
            | Self::SyncDir { ino } => *ino,
        }
    }
}

/// The content of a file: what has never been written is a hole.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub size: u64,
    sectors: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Body {
    /// Reads; short at the end.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let end = self.size.min(at.saturating_add(len as u64));
        if at >= end {
            return Vec::new();
        }
        let mut bytes = vec![0; to_usize(end - at)];
        for (sector, data) in self.sectors.range(at / SECTOR..=(end - 1) / SECTOR) {
            let start = sector * SECTOR;
            let (from, to) = (at.max(start), end.min(start + SECTOR));
            bytes[to_usize(from - at)..to_usize(to - at)]
                .copy_from_slice(&data[to_usize(from - start)..to_usize(to - start)]);
        }
        bytes
    }

    /// Writes into one sector; the file grows to hold it.
    fn write_sector(&mut self, at: u64, data: &[u8]) {
        let sector = at / SECTOR;
        let bytes = self.sectors.entry(sector).or_insert_with(new_sector);
        let start = to_usize(at - sector * SECTOR);
        Arc::make_mut(bytes)[start..start + data.len()].copy_from_slice(data);
        self.size = self.size.max(at + data.len() as u64);
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size.next_multiple_of(SECTOR));
        }
        self.size = size;
    }

    fn punch(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let touched: Vec<u64> = self
            .sectors
            .range(start / SECTOR..end.div_ceil(SECTOR))
            .map(|(sector, _)| *sector)
            .collect();
        for sector in touched {
            let begin = sector * SECTOR;
            let (from, to) = (start.max(begin), end.min(begin + SECTOR));
            if (from, to) == (begin, begin + SECTOR) {
                self.sectors.remove(&sector);
            } else if let Some(data) = self.sectors.get_mut(&sector) {
                Arc::make_mut(data)[to_usize(from - begin)..to_usize(to - begin)].fill(0);
            }
        }
    }

    /// The first byte at or after an offset that is not in a hole.
    pub fn seek_data(&self, at: u64) -> Option<u64> {
        let sector = self.sectors.range(at / SECTOR..).next()?.0;
        Some(at.max(sector * SECTOR)).filter(|&found| found < self.size)
    }

    /// The first hole at or after an offset; the end is one.
    pub fn seek_hole(&self, at: u64) -> Option<u64> {
        let mut sector = at / SECTOR;
        while self.sectors.contains_key(&sector) {
            sector += 1;
        }
        (at < self.size).then(|| at.max(sector * SECTOR).min(self.size))
    }

    /// Sectors that take up space.
    pub fn allocated(&self) -> u64 {
        self.sectors.len() as u64
    }
}

fn new_sector() -> Arc<Vec<u8>> {
    Arc::new(vec![0; to_usize(SECTOR)])
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("memory")
}

/// The parts of a write, one per sector.
fn sectors_of(at: u64, data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (at, data);
    while !rest.is_empty() {
        let room = to_usize(SECTOR - at % SECTOR);
        let (part, others) = rest.split_at(room.min(rest.len()));
        parts.push((at, part));
        at += part.len() as u64;
        rest = others;
    }
    parts
}

/// A file or a directory.
#[derive(Clone, Debug)]
pub enum Node {
    File(Body),
    Directory(BTreeMap<OsString, u64>),
}

/// All files and directories at one moment.
#[derive(Clone, Debug)]
pub struct Image {
    pub nodes: HashMap<u64, Node>,
    pub modes: HashMap<u64, u32>,
}

impl Image {
    fn empty() -> Self {
        Self {
            nodes: HashMap::from([(ROOT, Node::Directory(BTreeMap::new()))]),
            modes: HashMap::from([(ROOT, 0o755)]),
        }
    }

    /// The names in a directory.
    pub fn names(&self, ino: u64) -> Option<&BTreeMap<OsString, u64>> {
        match self.nodes.get(&ino)? {
            Node::Directory(names) => Some(names),
            Node::File(_) => None,
        }
    }

    /// The content of a file.
    pub fn body(&self, ino: u64) -> Option<&Body> {
        match self.nodes.get(&ino)? {
            Node::File(body) => Some(body),
            Node::Directory(_) => None,
        }
    }

    /// What has a name.
    pub fn child(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.names(parent)?.get(name).copied()
    }

    /// Names that lead to an inode.
    pub fn links(&self, ino: u64) -> u32 {
        let all = self.nodes.values().filter_map(|node| match node {
            Node::Directory(names) => Some(names.values().filter(|&&n| n == ino).count()),
            Node::File(_) => None,
        });
        u32::try_from(all.sum::<usize>()).unwrap_or(u32::MAX)
    }

    fn body_mut(&mut self, ino: u64) -> Option<&mut Body> {
        match self.nodes.get_mut(&ino)? {
            Node::File(body) => Some(body),
            Node::Directory(_) => None,
        }
    }

    fn set_name(&mut self, (parent, name): &(u64, OsString), ino: Option<u64>) {
        if let Some(Node::Directory(names)) = self.nodes.get_mut(parent) {
            match ino {
                Some(ino) => names.insert(name.clone(), ino),
                None => names.remove(name),
            };
        }
    }

    /// Makes sure that an inode which gets a name is there: its making may not have survived.
    fn ensure(&mut self, ino: u64, directory: bool) {
        self.nodes.entry(ino).or_insert_with(|| {
            if directory {
                Node::Directory(BTreeMap::new())
            } else {
                Node::File(Body::default())
            }
        });
    }

    /// Applies an event. Of a write, `keep` says which sectors.
    fn apply(&mut self, event: &Event, mut keep: impl FnMut() -> bool) {
        match event {
            Event::Make {
                parent,
                name,
                ino,
                directory,
                mode,
            } => {
                self.ensure(*ino, *directory);
                self.modes.insert(*ino, *mode);
                self.set_name(&(*parent, name.clone()), Some(*ino));
            }
            Event::Link { parent, name, ino } => {
                self.ensure(*ino, false);
                self.set_name(&(*parent, name.clone()), Some(*ino));
            }
            Event::Remove { parent, name, .. } => self.set_name(&(*parent, name.clone()), None),
            Event::Rename {
                from,
                to,
                ino,
                exchange,
            } => {
                self.ensure(*ino, false);
                let replaced = self.child(to.0, &to.1).filter(|_| *exchange);
                self.set_name(from, replaced);
                self.set_name(to, Some(*ino));
            }
            Event::Resize { ino, size } => {
                if let Some(body) = self.body_mut(*ino) {
                    body.resize(*size);
                }
            }
            Event::Punch { ino, start, end } => {
                if let Some(body) = self.body_mut(*ino) {
                    body.punch(*start, *end);
                }
            }
            Event::Write { ino, at, data } => {
                self.ensure(*ino, false);
                if let Some(body) = self.body_mut(*ino) {
                    for (at, part) in sectors_of(*at, data) {
                        if keep() {
                            body.write_sector(at, part);
                        }
                    }
                }
            }
            Event::Sync { .. } | Event::SyncDir { .. } => {}
        }
    }

    /// Forgets what no name leads to.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(ino) = todo.pop() {
            for &child in self.names(ino).into_iter().flat_map(BTreeMap::values) {
                if reached.insert(child) {
                    todo.push(child);
                }
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
        self.modes.retain(|ino, _| reached.contains(ino));
    }
}

/// The disk.
#[derive(Clone, Debug)]
pub struct Disk {
    stable: Image,
    /// What programs see.
    pub now: Image,
    events: Vec<Event>,
    next_ino: u64,
}

impl Disk {
    pub fn empty() -> Self {
        Self::of(Image::empty())
    }

    /// A disk all of which is on stable storage.
    fn of(image: Image) -> Self {
        let last = image.nodes.keys().copied().max().unwrap_or(ROOT);
        Self {
            stable: image.clone(),
            now: image,
            events: Vec::new(),
            next_ino: last + 1,
        }
    }

    /// A number for a new inode.
    pub fn new_ino(&mut self) -> u64 {
        self.next_ino += 1;
        self.next_ino - 1
    }

    /// Does something to the disk.
    pub fn record(&mut self, event: Event) {
        self.now.apply(&event, || true);
        self.events.push(event);
    }

    /// Sets permissions, which survive every power cut: nothing here depends on their order.
    pub fn set_mode(&mut self, ino: u64, mode: u32) {
        self.now.modes.insert(ino, mode);
        self.stable.modes.insert(ino, mode);
    }

    /// Puts everything on stable storage, as an orderly shutdown does.
    pub fn settle(&mut self) {
        let mut image = self.now.clone();
        image.sweep();
        // Files without a name may still be open.
        self.stable = image;
        self.events.clear();
    }

    /// Events that a power cut could undo, for the figures.
    pub fn unsynced_writes(&self) -> u64 {
        let forced = self.forced_data();
        let open = |(at, event): (usize, &Event)| {
            matches!(event, Event::Write { .. })
                && forced.get(&event.inode()).is_none_or(|&f| at > f)
        };
        self.events.iter().enumerate().filter(|&e| open(e)).count() as u64
    }

    /// The disk after a power cut. The seed decides where the mode leaves a choice.
    pub fn cut(&self, mode: Mode, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let forced = self.forced_data();
        let survives = match mode {
            Mode::Strict => self.strict_metadata(&forced),
            Mode::Torn | Mode::Zeros => self.journalled_metadata(&mut rng),
        };
        // How likely a sector of a file survives: nothing, little, most or all of it.
        let mut odds: HashMap<u64, u64> = HashMap::new();
        let mut image = self.stable.clone();
        for (at, event) in self.events.iter().enumerate() {
            let ino = event.inode();
            let is_forced = forced.get(&ino).is_some_and(|&last| at < last);
            match event {
                Event::Write { .. } if is_forced => image.apply(event, || true),
                Event::Write { .. } if mode == Mode::Strict => {}
                Event::Write { at, data, .. } => {
                    let odds = *odds
                        .entry(ino)
                        .or_insert_with(|| *rng.pick(&[0, 0, 20, 50, 90, 100]));
                    image.apply(event, || rng.percent(odds));
                    if mode == Mode::Zeros
                        && let Some(body) = image.body_mut(ino)
                    {
                        body.size = body.size.max(at + data.len() as u64);
                    }
                }
                _ if survives[at] => image.apply(event, || true),
                _ => {}
            }
        }
        image.sweep();
        Self::of(image)
    }

    /// The place of the last sync of each file.
    fn forced_data(&self) -> HashMap<u64, usize> {
        let syncs = self.events.iter().enumerate();
        syncs
            .filter_map(|(at, event)| match event {
                Event::Sync { ino } => Some((*ino, at)),
                _ => None,
            })
            .collect()
    }

    /// Which metadata survives where nothing does that was not asked for: sizes with the data of
    /// their file, names with their directory, together with what the same directories saw before.
    fn strict_metadata(&self, forced: &HashMap<u64, usize>) -> Vec<bool> {
        let mut survives = vec![false; self.events.len()];
        let mut wanted: HashMap<u64, usize> = HashMap::new();
        for (at, event) in self.events.iter().enumerate().rev() {
            match event {
                Event::SyncDir { ino } => {
                    wanted.entry(*ino).or_insert(at);
                }
                Event::Resize { ino, .. } | Event::Punch { ino, .. } => {
                    survives[at] = forced.get(ino).is_some_and(|&last| at < last);
                }
                _ => {
                    let directories = event.directories();
                    if directories.iter().any(|dir| wanted.contains_key(dir)) {
                        survives[at] = true;
                        for dir in directories {
                            wanted.entry(dir).or_insert(at);
                        }
                    }
                }
            }
        }
        survives
    }

    /// Which metadata survives where there is a journal: all of it up to some moment, which is not
    /// before what a sync asked for.
    fn journalled_metadata(&self, rng: &mut Rng) -> Vec<bool> {
        let mut forced = 0;
        for (at, event) in self.events.iter().enumerate() {
            let (Event::Sync { ino } | Event::SyncDir { ino }) = event else {
                continue;
            };
            let concerns = |event: &Event| {
                event.is_metadata() && (event.inode() == *ino || event.directories().contains(ino))
            };
            if let Some(last) = self.events[..at].iter().rposition(concerns) {
                forced = forced.max(last + 1);
            }
        }
        let end = self.events.len();
        let reached = match rng.below(4) {
            0 => forced,
            1 => end,
            _ => forced + to_usize(rng.below((end - forced) as u64 + 1)),
        };
        let metadata = self.events.iter().enumerate();
        metadata
            .map(|(at, event)| event.is_metadata() && at < reached)
            .collect()
    }
}
