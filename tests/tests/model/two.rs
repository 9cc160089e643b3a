//! Histories of two clients: programs on the mount, and somebody else on the service. What the end
//! looks like depends on who was first, so the model is a rule instead of a tree: no body that
//! anybody saved is lost unless the same side, knowing it, replaced or removed it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onedrivefs_sim::{DriveHandle, FileBody};
use onedrivefs_tests::Service;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::chaos::Chaos;
use crate::counts;
use crate::disk;
use crate::exact::Perils;
use crate::names::{NAMES, TEMPORARY};
use crate::rig::Rig;
use crate::rng::Rng;

/// The bits of the number of a file in the mount that are the same for all its editions and spellings.
const INODE_BITS: u64 = (1 << 48) - 1;

/// Steps of one history at most.
const STEPS: u64 = 60;

/// What became of a body that somebody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It must exist somewhere.
    Kept,
    /// It may exist: whether it was saved is not known, or who knew it replaced or removed it.
    Free,
}

/// A body that somebody wrote.
#[derive(Debug)]
struct Body {
    len: usize,
    /// Whether whoever wrote it got to the end of it.
    whole: bool,
    /// Whether it was copied here, which may have been interrupted as well.
    copied: bool,
    fate: Fate,
    written: String,
    /// The item that it was written to here, if the service had it, and how many names had been removed
    /// here by then.
    item: Option<(String, usize)>,
    put: Option<Put>,
    /// Where somebody put it on the service, or moved it to.
    placed: Vec<Placed>,
}

/// Somebody put a body on the service.
#[derive(Debug)]
struct Put {
    /// The last requests before and after it.
    between: (u64, u64),
    /// The tag of the file with it.
    tag: String,
}

/// Somebody put a body into folders on the service, or moved it there.
#[derive(Clone, Debug)]
struct Placed {
    /// The folders, by id.
    folders: Vec<String>,
    /// The last request before it was there.
    after: u64,
    at: Instant,
}

/// One history.
pub struct Two<'r, 'h, 's> {
    rig: &'r mut Rig<'h>,
    folder: String,
    here: PathBuf,
    there: DriveHandle,
    rng: Rng,
    perils: Perils,
    chaos: Chaos<'s>,
    bodies: BTreeMap<u64, Body>,
    next_body: u64,
    removals: Vec<Removal>,
    /// What programs here last saw in each inode, or wrote to it.
    held: BTreeMap<u64, u64>,
    /// What somebody deleted on the service, with its earlier versions.
    deleted_there: BTreeSet<u64>,
    /// Names that a save gave, because what was shown under them for a moment had gone elsewhere.
    given: BTreeSet<String>,
    trace: Vec<String>,
}

/// A name was removed here.
struct Removal {
    /// What programs saw under it.
    seen: Option<u64>,
    /// What the service had under it.
    there: Vec<u64>,
    /// The tag of that, and the ones that were known here before it was looked at and when it went.
    tags: [Option<String>; 3],
    /// The inode, until it went, and its tag when it was opened: it may lose it to what replaces it.
    held: Option<(OwnedFd, Option<String>)>,
    /// Where there was none.
    created: Option<PathBuf>,
    /// The tag of what has taken its place: a save builds on what it took the place of.
    base: Option<String>,
    /// The inode that was opened and emptied, if it is not the one that was looked at: somebody's
    /// rename brought it to this path in between.
    emptied: Option<u64>,
    /// What programs had last seen in that inode, or written to it.
    unseen: Option<u64>,
    /// The last request before it was looked at.
    since: u64,
    /// Whether the daemon, which was alive, knew nothing of it any more right after it had gone: the
    /// service had deleted it by then.
    settled: bool,
    /// Whether what was looked at had got other content by the time it went, which the inode that was
    /// held cannot tell the tag of.
    outdated: bool,
}

impl Removal {
    /// Notes which state of it was known here when it went: of the file that was `opened` and emptied,
    /// or else of the one that was looked at, if it is that one that has no name any more. What took
    /// its place is now `at` a path.
    fn done(&mut self, opened: Option<&File>, at: Option<&Path>) {
        let (held, created) = (self.held.take(), self.created.take());
        if held.is_none() && created.is_none() {
            return;
        }
        if let Some(opened) = opened {
            self.tags[2] = tag_of(opened);
            let looked_at = held.as_ref().and_then(|(held, _)| inode_of(held));
            self.emptied = inode_of(opened).filter(|&opened| looked_at != Some(opened));
        } else if let Some((held, tag)) = held {
            self.base = at.and_then(tag_here);
            let links = rustix::fs::fstat(&held).map(|stat| stat.st_nlink);
            self.tags[2] = match links {
                Ok(0) => try_tag_of(&held).unwrap_or_else(|error| {
                    self.settled = matches!(error, Errno::NOENT | Errno::STALE | Errno::NODATA);
                    tag
                }),
                // Another one had the name by then.
                Ok(_) => self.tags[0].clone(),
                Err(error) => {
                    self.outdated = error == Errno::STALE;
                    None
                }
            };
        } else if let Some(created) = created {
            // There was nothing a moment before it was opened and emptied.
            self.tags[2] = tag_here(&created);
        }
    }

    /// Tells whether a state on the service, or a later one, came here between the look and the
    /// removal.
    fn knew_at_last(&self, state: &str) -> bool {
        let knew = |tag: &Option<String>| tag.as_deref().is_some_and(|tag| is_as_new(tag, state));
        (knew(&self.tags[2]) || knew(&self.base)) && !knew(&self.tags[1])
    }

    /// Tells whether an item was what the service had under the name.
    fn removes(&self, item: &str) -> bool {
        let there = self.tags[0].as_deref().and_then(version);
        there.is_some_and(|(id, _)| id == item)
    }

    /// Tells whether the item that was looked at here was what the service had under the name.
    fn is_same_item(&self) -> bool {
        let seen = self.tags[1].as_deref().and_then(version);
        seen.is_some_and(|(id, _)| self.removes(id))
    }

    /// Tells whether what was looked at has no name any more.
    fn is_without_name(&self) -> bool {
        let stat = self.held.as_ref().map(|(held, _)| rustix::fs::fstat(held));
        stat.is_some_and(|stat| stat.is_ok_and(|stat| stat.st_nlink == 0))
    }

    /// Tells whether the state on the service came here between the look and the removal.
    fn came_in_between(&self) -> bool {
        let [there, seen, gone] = &self.tags;
        there.is_some() && gone == there && seen != there
    }
}

impl<'r, 'h, 's: 'h> Two<'r, 'h, 's> {
    /// Runs a history in a folder of its own.
    pub fn run(
        rig: &'r mut Rig<'h>,
        seed: u64,
        perils: Perils,
        chaos: Chaos<'s>,
    ) -> Result<(), String> {
        let folder = format!("t{seed:x}");
        let here = rig.mountpoint().join(&folder);
        let there = rig.home.service.default_drive();
        let mut history = Self {
            rig,
            folder,
            here,
            there,
            rng: Rng::new(seed),
            perils,
            chaos,
            bodies: BTreeMap::new(),
            next_body: (seed & 0xffff) << 16,
            removals: Vec::new(),
            held: BTreeMap::new(),
            deleted_there: BTreeSet::new(),
            given: BTreeSet::new(),
            trace: Vec::new(),
        };
        let outcome = history.play();
        history.chaos.end();
        outcome.map_err(|why| {
            format!(
                "{why}\n--- what led there ---\n{}",
                history.trace.join("\n")
            )
        })
    }

    fn play(&mut self) -> Result<(), String> {
        fs::create_dir(&self.here).map_err(|e| format!("mkdir: {e}"))?;
        let steps = 10 + self.rng.below(STEPS);
        for _ in 0..steps {
            self.peril();
            if self.rng.percent(60) {
                let outcome = self.act_here();
                self.note(&outcome);
            } else {
                self.act_there();
            }
            if self.rig.struck() {
                self.rig.after_kill();
                self.tell("mounted again");
            }
        }
        if self.perils.kills && !self.rig.is_armed() && self.rng.percent(60) {
            let ms = self.rng.below(1000);
            self.tell(format!("kill while sending, after {ms} ms"));
            self.rig.arm(Duration::from_millis(ms));
        }
        if self.perils.faults {
            let told = self.chaos.while_sending();
            for told in told {
                self.tell(told);
            }
        }
        self.rig.after_kill();
        self.chaos.end();
        self.settle()?;
        self.check()
    }

    /// Waits until both sides are in step. A copy that somebody deleted the original of before the
    /// service could make it has no bytes anywhere, and waits for a person, who gives it up.
    fn settle(&mut self) -> Result<(), String> {
        for row in self.rig.settle()? {
            let path = row["path"].as_str().unwrap_or_default();
            let lacks_bytes = row["error"]
                .as_str()
                .is_some_and(|error| error.contains("no longer on the service"));
            let mut deleted = self.deleted_there.iter();
            let copied = |number: &u64| self.bodies.get(number).is_some_and(|body| body.copied);
            if !lacks_bytes || !deleted.any(copied) {
                return Err(format!("something is parked: {row}"));
            }
            self.rig.discard(path)?;
            counts::add("copies whose original was deleted first", 1);
        }
        self.rig.quiesce()
    }

    fn peril(&mut self) {
        if self.perils.kills && !self.rig.is_armed() && self.rng.percent(5) {
            let us = self.rng.below(60_000);
            self.tell(format!("kill after {us} us"));
            self.rig.arm(Duration::from_micros(us));
        }
        if self.perils.faults
            && let Some(what) = self.chaos.strike()
        {
            self.tell(format!("fault: {what}"));
        }
        if self.rng.percent(25) {
            std::thread::sleep(Duration::from_millis(self.rng.below(250)));
        }
    }

    /// Adds a line to what led there, with the time as in the log of requests.
    fn tell(&mut self, text: impl std::fmt::Display) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = now.map_or(0, |since| since.as_millis());
        self.trace.push(format!("{ms} {text}"));
    }

    fn note(&mut self, outcome: &io::Result<()>) {
        if let Some(last) = self.trace.last_mut() {
            match outcome {
                Ok(()) => last.push_str(" -> done"),
                Err(error) => last.push_str(&format!(" -> {error}")),
            }
        }
    }

    /// Makes up a body.
    fn new_body(&mut self, written: String) -> (u64, Vec<u8>) {
        self.next_body += 1;
        let len = match self.rng.below(10) {
            0..=6 => 20 + self.rng.below(300),
            7..=8 => 20 + self.rng.below(50_000),
            _ => 20 + self.rng.below(600_000),
        };
        let len = usize::try_from(len).expect("small");
        let number = self.next_body;
        let body = Body {
            len,
            whole: false,
            copied: false,
            fate: Fate::Free,
            written,
            item: None,
            put: None,
            placed: Vec::new(),
        };
        self.bodies.insert(number, body);
        (number, disk::body(number, len))
    }

    fn set(&mut self, number: Option<u64>, fate: Fate) {
        if let Some(body) = number.and_then(|number| self.bodies.get_mut(&number)) {
            body.fate = fate;
        }
    }

    /// Somebody wrote a body to its end.
    fn finish(&mut self, number: u64) {
        if let Some(body) = self.bodies.get_mut(&number) {
            body.whole = true;
            body.fate = Fate::Kept;
        }
    }

    /// Which body these bytes are; an error for bytes that nobody wrote. Of a body whose writing was
    /// interrupted it may be the beginning.
    fn recognise(&self, bytes: &[u8]) -> Result<Option<u64>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let head: Vec<u8> = bytes.iter().copied().take(20).collect();
        let text = String::from_utf8_lossy(&head);
        let number = text
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(number, _)| u64::from_str_radix(number, 16).ok());
        let known = number.and_then(|number| Some((number, self.bodies.get(&number)?)));
        match known {
            Some((number, body)) if disk::body(number, body.len) == bytes => Ok(Some(number)),
            Some((number, body))
                if (!body.whole || body.copied)
                    && disk::body(number, body.len).starts_with(bytes) =>
            {
                Ok(Some(number))
            }
            _ => Err(format!("nobody wrote {}", disk::describe(bytes))),
        }
    }

    // --- here ---

    fn act_here(&mut self) -> io::Result<()> {
        match self.rng.below(100) {
            0..=34 => self.write_here(),
            35..=45 => self.save_here(),
            46..=49 => self.copy_here(),
            50..=57 => self.mkdir_here(),
            58..=77 => self.rename_here(),
            78..=91 => self.unlink_here(),
            _ => {
                let path = self.path_here(true);
                self.tell(format!("here: rmdir {path}"));
                fs::remove_dir(self.here.join(path))
            }
        }
    }

    /// What programs see at a path before they replace or remove it. Not to see it is no reason
    /// to, so that an error ends the step.
    fn seen_here(&mut self, path: &str) -> io::Result<Option<u64>> {
        let mut file = match File::open(self.here.join(path)) {
            Ok(file) if !file.metadata()?.is_dir() => file,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let seen = self.recognise(&bytes).map_err(io::Error::other)?;
        if let (Some(inode), Some(seen)) = (inode_of(&file), seen) {
            self.held.insert(inode, seen);
        }
        Ok(seen)
    }

    fn fill(&mut self, path: &str) -> io::Result<u64> {
        let (number, bytes) = self.new_body(format!("here {path}"));
        let mut file = File::options()
            .write(true)
            .truncate(true)
            .create(!is_for_a_moment(path))
            .open(self.here.join(path))?;
        self.note_removed(Some(&file));
        if let Some(inode) = inode_of(&file) {
            self.held.insert(inode, number);
        }
        let item = tag_of(&file).and_then(|tag| Some(version(&tag)?.0.to_owned()));
        let item = item.map(|item| (item, self.removals.len()));
        if let Some(body) = self.bodies.get_mut(&number) {
            body.item = item;
        }
        file.write_all(&bytes)?;
        crate::sys::close(file)?;
        self.finish(number);
        Ok(number)
    }

    fn write_here(&mut self) -> io::Result<()> {
        let path = self.path_here(false);
        self.tell(format!("here: write {:x} to {path}", self.next_body + 1));
        let seen = self.seen_last(&path)?;
        self.set(seen, Fate::Free);
        if let Some(removal) = self.removals.last_mut() {
            // Its content may be found as an earlier version of the file.
            removal.seen = None;
        }
        self.fill(&path).map(drop)
    }

    fn save_here(&mut self) -> io::Result<()> {
        let path = self.path_here(false);
        let temporary = sibling(&path, self.rng.pick(TEMPORARY).here);
        self.tell(format!(
            "here: save {:x} to {path} by {temporary}",
            self.next_body + 1
        ));
        let before = self.seen_here(&temporary)?;
        self.set(before, Fate::Free);
        self.fill(&temporary)?;
        let seen = self.seen_last(&path)?;
        let outcome = fs::rename(self.here.join(&temporary), self.here.join(&path));
        let replaced = self.removals.last().is_some_and(Removal::is_without_name);
        if !replaced && is_for_a_moment(&path) && (outcome.is_ok() || self.rig.struck()) {
            self.given.insert(path.clone());
        }
        self.note_removed_if(outcome.is_ok(), Some(&path));
        if outcome.is_ok() || self.rig.struck() {
            self.set(seen, Fate::Free);
        }
        outcome
    }

    /// Copies a file that was looked at over another one, or to a new name.
    fn copy_here(&mut self) -> io::Result<()> {
        let from = self.path_here(false);
        let to = if self.rng.percent(30) {
            self.target_here(false)
        } else {
            self.new_place_here()
        };
        self.tell(format!("here: copy {from} to {to}"));
        if from == to {
            return Ok(());
        }
        let copied = self.seen_here(&from)?;
        if let Some(body) = copied.and_then(|number| self.bodies.get_mut(&number)) {
            body.copied = true;
        }
        let seen = self.seen_last(&to)?;
        self.set(seen, Fate::Free);
        if let Some(removal) = self.removals.last_mut() {
            removal.seen = None;
        }
        let file = File::options()
            .write(true)
            .truncate(true)
            .create(true)
            .open(self.here.join(&to))?;
        self.note_removed(Some(&file));
        crate::sys::copy(&self.here.join(&from), &file)?;
        crate::sys::close(file)
    }

    fn mkdir_here(&mut self) -> io::Result<()> {
        let path = self.new_place_here();
        self.tell(format!("here: mkdir {path}"));
        fs::create_dir(self.here.join(path))
    }

    fn rename_here(&mut self) -> io::Result<()> {
        let folders = self.rng.percent(30);
        let from = self.path_here(folders);
        let to = if self.rng.percent(40) {
            self.target_here(folders)
        } else {
            self.new_place_here()
        };
        self.tell(format!("here: rename {from} to {to}"));
        let moved = self.seen_here(&from)?;
        let seen = self.seen_last(&to)?;
        let outcome = fs::rename(self.here.join(from), self.here.join(&to));
        self.note_removed_if(outcome.is_ok() && seen != moved, Some(&to));
        if (outcome.is_ok() || self.rig.struck()) && seen != moved {
            self.set(seen, Fate::Free);
        }
        outcome
    }

    fn unlink_here(&mut self) -> io::Result<()> {
        let path = self.path_here(false);
        self.tell(format!("here: unlink {path}"));
        let seen = self.seen_last(&path)?;
        let outcome = fs::remove_file(self.here.join(path));
        self.note_removed_if(outcome.is_ok(), None);
        if outcome.is_ok() || self.rig.struck() {
            self.set(seen, Fate::Free);
        }
        outcome
    }

    /// Like [`Self::seen_here`], as the last thing before a call that removes the name: what comes
    /// in between goes unseen, and nothing can prevent that.
    fn seen_last(&mut self, path: &str) -> io::Result<Option<u64>> {
        let since = self.last_request();
        let spelt = self.spelt_there(path);
        let there = self.bodies_there(&spelt);
        let entry = self.there.entry(&self.at(&spelt));
        let tag = entry.map(|entry| unquoted(&entry.etag));
        let at = self.here.join(path);
        let before = tag_here(&at);
        let seen = self.seen_here(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::open(&at, flags, Mode::empty()).ok();
        if let Some(last) = self.trace.last_mut() {
            last.push_str(&format!(" (seen {seen:x?}, there {there:x?})"));
        }
        self.removals.push(Removal {
            seen,
            there,
            tags: [tag, before, None],
            created: held.is_none().then_some(at),
            base: None,
            emptied: None,
            unseen: None,
            since,
            settled: false,
            outdated: false,
            held: held.map(|held| {
                let tag = tag_of(&held);
                (held, tag)
            }),
        });
        Ok(seen)
    }

    /// Ends what [`Self::seen_last`] began.
    fn note_removed(&mut self, opened: Option<&File>) {
        if let Some(removal) = self.removals.last_mut() {
            removal.done(opened, None);
            let emptied = removal.emptied.take();
            if let Some(&unseen) = emptied.and_then(|inode| self.held.get(&inode)) {
                removal.unseen = Some(unseen);
                if let Some(last) = self.trace.last_mut() {
                    last.push_str(&format!(" (emptied {unseen:x} unseen)"));
                }
            }
        }
    }

    /// As [`Self::note_removed`], if something went. What took its place is at a path.
    fn note_removed_if(&mut self, went: bool, at: Option<&str>) {
        let at = at.map(|at| self.here.join(at));
        if went {
            if let Some(removal) = self.removals.last_mut() {
                removal.done(None, at.as_deref());
                if removal.settled {
                    removal.tags[2] = deleted_since(self.rig.home.service, removal.since);
                }
            }
        } else if let Some(removal) = self.removals.last_mut() {
            (removal.held, removal.created) = (None, None);
        }
    }

    /// Finds out which state went in the removals that could not tell: the one that the daemon deleted.
    fn date_removals(&mut self) {
        let records = self.rig.home.service.requests().since(0);
        for removal in self.removals.iter_mut().filter(|removal| removal.outdated) {
            let looked_at = removal.tags[1].as_deref().and_then(version);
            let Some((item, _)) = looked_at else { continue };
            let mut deletions = records.iter().filter(|record| {
                record.number > removal.since
                    && record.method == "DELETE"
                    && record
                        .if_match
                        .as_deref()
                        .is_some_and(|tag| tag.contains(item))
            });
            removal.tags[2] = deletions
                .next()
                .and_then(|record| record.if_match.as_deref().map(unquoted));
        }
    }

    /// Tells whether a body was put into a folder after that was found empty, and before it was
    /// deleted: no condition that a deletion can carry excludes that, for the tags of a folder
    /// do not change with what is in it.
    fn went_with_a_folder(&self, body: &Body) -> bool {
        let records = self.rig.home.service.requests().since(0);
        body.placed.iter().any(|placed| {
            placed.folders.iter().any(|id| {
                let (folder, listing) = (format!("/items/{id}"), format!("/items/{id}/children"));
                let mut listed = None;
                for record in &records {
                    if record.method == "GET" && record.path.ends_with(&listing) {
                        listed = Some(record.number);
                    }
                    // One without a token that holds good is sent again.
                    let refused = record.status.load(Ordering::Relaxed) == 401;
                    if record.method == "DELETE" && record.path.ends_with(&folder) && !refused {
                        let in_time = listed.take().is_some_and(|listed| listed <= placed.after);
                        if in_time && record.ended.get().is_none_or(|ended| *ended > placed.at) {
                            return true;
                        }
                    }
                }
                false
            })
        })
    }

    /// The number of the last request.
    fn last_request(&self) -> u64 {
        let records = self.rig.home.service.requests().since(0);
        records.last().map_or(0, |record| record.number)
    }

    /// The ids of the folders that a path on the service is in.
    fn folders_of(&self, path: &str) -> Vec<String> {
        let ends = path.match_indices('/').map(|(at, _)| at);
        ends.filter_map(|at| self.there.entry(&self.at(&path[..at])))
            .map(|folder| folder.id)
            .collect()
    }

    /// Tells whether a body was removed in the very moment in which it took the name of another,
    /// which is still there, or its place. System calls remove names, so nothing can prevent that.
    fn is_crossed(&self, number: u64, found: &BTreeSet<u64>) -> bool {
        let body = self.bodies.get(&number);
        let put = body.and_then(|body| body.put.as_ref());
        let item = body.and_then(|body| body.item.as_ref());
        self.removals.iter().enumerate().any(|(at, removal)| {
            if removal.unseen == Some(number) {
                return true;
            }
            if put.is_some_and(|put| removal.knew_at_last(&put.tag)) {
                return true;
            }
            // It was written here before, to the very item that somebody's rename brought to the name.
            let came = removal.came_in_between() && !removal.is_same_item();
            if came && item.is_some_and(|(of, before)| at >= *before && removal.removes(of)) {
                return true;
            }
            let seen = removal.seen.filter(|&seen| seen != number);
            removal.there.contains(&number)
                && (seen.is_some_and(|seen| found.contains(&seen)) || removal.came_in_between())
        })
    }

    /// Paths of files (or folders) in the mount.
    fn paths_here(&self, folders: bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(below) = todo.pop() {
            for entry in fs::read_dir(self.here.join(&below))
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = join(&below, &name);
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_dir {
                    todo.push(path.clone());
                }
                if is_dir == folders {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Where something is moved to.
    fn target_here(&mut self, folders: bool) -> String {
        let path = self.path_here(folders);
        if is_for_a_moment(&path) {
            return self.new_place_here();
        }
        path
    }

    fn path_here(&mut self, folders: bool) -> String {
        let found = self.paths_here(folders);
        if found.is_empty() || self.rng.percent(25) {
            return self.new_place_here();
        }
        self.rng.pick(&found).clone()
    }

    fn new_place_here(&mut self) -> String {
        let folders = self.paths_here(true);
        self.new_place(&folders)
    }

    fn new_place(&mut self, folders: &[String]) -> String {
        // Names that the service refuses are the business of the other histories.
        let plain: Vec<&str> = NAMES
            .iter()
            .filter(|name| name.here == name.there)
            .map(|name| name.here)
            .collect();
        let name = *self.rng.pick(&plain);
        let shallow: Vec<&String> = folders
            .iter()
            .filter(|path| path.matches('/').count() < 2)
            .collect();
        if shallow.is_empty() || self.rng.percent(50) {
            return name.to_owned();
        }
        let folder = *self.rng.pick(&shallow);
        join(folder, name)
    }

    // --- there ---

    fn at(&self, path: &str) -> String {
        format!("/{}/{path}", self.folder)
    }

    fn entries_there(&self) -> Vec<(String, bool)> {
        let inside = format!("/{}/", self.folder);
        let all = self.there.dump().into_iter();
        all.filter_map(|entry| Some((entry.path.strip_prefix(&inside)?.to_owned(), entry.folder)))
            .collect()
    }

    fn path_there(&mut self, files_only: bool) -> String {
        let entries = self.entries_there();
        let found: Vec<&String> = entries
            .iter()
            .filter(|(_, folder)| !(files_only && *folder))
            .map(|(path, _)| path)
            .collect();
        if found.is_empty() || self.rng.percent(25) {
            return self.new_place_there();
        }
        (*self.rng.pick(&found)).clone()
    }

    fn new_place_there(&mut self) -> String {
        let entries = self.entries_there();
        let folders: Vec<String> = entries
            .into_iter()
            .filter_map(|(path, folder)| folder.then_some(path))
            .collect();
        self.new_place(&folders)
    }

    /// Bodies that are at or below a path on the service.
    fn bodies_there(&self, path: &str) -> Vec<u64> {
        let below = format!("{path}/");
        let entries = self.entries_there().into_iter();
        entries
            .filter(|(at, folder)| !folder && (at == path || at.starts_with(&below)))
            .filter_map(|(at, _)| self.there.read(&self.at(&at)))
            .filter_map(|bytes| self.recognise(&bytes).ok().flatten())
            .collect()
    }

    fn act_there(&mut self) {
        let told = match self.rng.below(100) {
            0..=49 => self.put_there(),
            50..=59 => {
                let path = self.new_place_there();
                let done = self.there.mkdir(&self.at(&path));
                format!("there: mkdir {path} -> {:?}", done.map(drop))
            }
            60..=79 => {
                let (from, to) = (self.path_there(false), self.new_place_there());
                let moved = self.bodies_there(&self.spelt_there(&from));
                let (folders, at) = (self.folders_of(&to), Instant::now());
                let done = self.there.rename(&self.at(&from), &self.at(&to));
                if done.is_ok() {
                    let placed = self.placed(&to, folders, at);
                    for number in moved {
                        self.place(number, placed.clone());
                    }
                }
                format!("there: rename {from} to {to} -> {done:?}")
            }
            _ => {
                let path = self.path_there(false);
                let path = self.spelt_there(&path);
                let older = self.older_versions(&path);
                // What it held when it went: something of ours may arrive at any moment.
                let done = self.there.take(&self.at(&path));
                for body in done.as_deref().unwrap_or_default() {
                    let number = self.number_of(body);
                    self.deleted_there.extend(number);
                    self.set(number, Fate::Free);
                }
                if done.is_ok() {
                    self.deleted_there.extend(older);
                }
                format!("there: delete {path} -> {:?}", done.map(drop))
            }
        };
        self.tell(told);
    }

    /// What is at a path on the service since a moment ago, with the folders that the path led through
    /// before that: they may be gone by now.
    fn placed(&self, path: &str, mut folders: Vec<String>, at: Instant) -> Placed {
        folders.extend(self.folders_of(path));
        Placed {
            folders,
            after: self.last_request(),
            at,
        }
    }

    fn place(&mut self, number: u64, placed: Placed) {
        if let Some(body) = self.bodies.get_mut(&number) {
            body.placed.push(placed);
        }
    }

    /// Which body this is.
    fn number_of(&self, body: &FileBody) -> Option<u64> {
        let size = usize::try_from(body.size()).ok()?;
        let bytes = body.read(0, size).ok()?;
        self.recognise(&bytes).ok().flatten()
    }

    /// The spelling that a path has on the service.
    fn spelt_there(&self, path: &str) -> String {
        let inside = format!("/{}/", self.folder);
        let entry = self.there.entry(&self.at(path));
        entry
            .and_then(|entry| Some(entry.path.strip_prefix(&inside)?.to_owned()))
            .unwrap_or_else(|| path.to_owned())
    }

    fn put_there(&mut self) -> String {
        let path = self.path_there(true);
        let path = self.spelt_there(&path);
        let (number, bytes) = self.new_body(format!("there {path}"));
        let before = self.last_request();
        let (folders, at) = (self.folders_of(&path), Instant::now());
        let done = self.there.replace(&self.at(&path), bytes);
        if let Ok((tag, replaced)) = &done {
            let replaced = replaced.as_ref().and_then(|body| self.number_of(body));
            self.finish(number);
            self.place(number, self.placed(&path, folders, at));
            let put = Put {
                between: (before, self.last_request()),
                tag: unquoted(tag),
            };
            if let Some(body) = self.bodies.get_mut(&number) {
                body.put = Some(put);
            }
            self.set(replaced, Fate::Free);
        }
        format!("there: put {number:x} at {path} -> {:?}", done.map(drop))
    }

    // --- the end ---

    fn check(&mut self) -> Result<(), String> {
        let here = disk::read_tree_of(&self.here, self.perils.faults)
            .map_err(|e| format!("at the end: {e}"))?;
        let unlike = crate::exact::unlike_service(&self.there, &self.folder, &here, true);
        if !unlike.is_empty() {
            return Err(format!("the service differs:\n{}", unlike.join("\n")));
        }
        let mut found = BTreeSet::new();
        for (path, node) in &here {
            let name = last_name(path);
            let mut names = NAMES.iter().chain(TEMPORARY).map(|n| n.here);
            let mut given = self.given.iter().map(|path| last_name(path));
            let known = names.any(|known| known == name) || given.any(|given| given == name);
            if name.contains(" (conflict ") {
                counts::add("conflict copies", 1);
            } else if !known {
                return Err(format!("{path}: a name that nobody gave"));
            }
            if let disk::Node::File(bytes, _) = node {
                let body = self
                    .recognise(bytes)
                    .map_err(|why| format!("{path}: {why}"))?;
                found.extend(body);
            }
        }
        found.extend(self.older_versions(""));
        self.date_removals();
        let lost: Vec<String> = self
            .bodies
            .iter()
            .filter(|(number, body)| body.fate == Fate::Kept && !found.contains(number))
            .filter(|(number, body)| {
                let crossed = self.is_crossed(**number, &found);
                counts::add("removed in the moment of a change", u64::from(crossed));
                let went = !crossed && self.went_with_a_folder(body);
                counts::add("put into a folder that was being deleted", u64::from(went));
                !crossed && !went
            })
            .map(|(number, body)| self.describe_lost(*number, body))
            .collect();
        counts::add("losses", lost.len() as u64);
        counts::add("bodies saved", self.bodies.len() as u64);
        if lost.is_empty() {
            return Ok(());
        }
        let tree: Vec<String> = here.iter().map(|(p, n)| format!("{p}: {n:?}")).collect();
        Err(format!(
            "LOST: {}\nwhat is there:\n{}",
            lost.join(", "),
            tree.join("\n")
        ))
    }

    /// A body that is lost, and what the removals that may bear on it knew.
    fn describe_lost(&self, number: u64, body: &Body) -> String {
        let mut text = format!("{number:x} ({} bytes, {})", body.len, body.written);
        let Some(put) = &body.put else { return text };
        text.push_str(&format!("\n  put as {} {:?}", put.tag, put.between));
        let item = version(&put.tag).map(|(id, _)| id);
        for removal in &self.removals {
            let tags = removal.tags.iter().chain([&removal.base]).flatten();
            let mut items = tags.filter_map(|tag| Some(version(tag)?.0));
            if removal.there.contains(&number) || items.any(|of| Some(of) == item) {
                text.push_str(&format!(
                    "\n  removal since {}: seen {:x?}, there {:x?}, tags {:?}, base {:?}, settled {}, outdated {}",
                    removal.since,
                    removal.seen,
                    removal.there,
                    removal.tags,
                    removal.base,
                    removal.settled,
                    removal.outdated
                ));
            }
        }
        text
    }

    /// Bodies that are earlier versions of what is at or below a path on the service.
    fn older_versions(&self, path: &str) -> Vec<u64> {
        let below = format!("{path}/");
        let is_meant = |at: &str| path.is_empty() || at == path || at.starts_with(&below);
        let mut found = Vec::new();
        for (path, folder) in self.entries_there() {
            if folder || !is_meant(&path) {
                continue;
            }
            let at = self.at(&path);
            for version in self.there.versions(&at) {
                let body = self.there.version_body(&at, &version.id);
                found.extend(body.and_then(|body| self.number_of(&body)));
            }
        }
        found
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Tells whether a name is shown for a moment because two items of the service have one. Whoever makes
/// something under it gives it.
fn is_for_a_moment(path: &str) -> bool {
    path.ends_with(')') && !path.contains(" (conflict ")
}

/// The tag of the state of a file that is known here.
fn tag_here(path: &Path) -> Option<String> {
    try_tag_here(path).ok()
}

fn try_tag_here(path: &Path) -> Result<String, Errno> {
    let mut tag = [0; 200];
    let len = rustix::fs::getxattr(path, "user.onedrive.etag", &mut tag)?;
    Ok(unquoted(&String::from_utf8_lossy(&tag[..len])))
}

/// The tag of the state of a file that is held.
fn tag_of(file: &impl AsRawFd) -> Option<String> {
    try_tag_of(file).ok().flatten()
}

fn try_tag_of(file: &impl AsRawFd) -> Result<Option<String>, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    try_tag_here(Path::new(&path)).map(Some)
}

/// The tag with which the last file was deleted on the service since a request.
fn deleted_since(service: &Service, since: u64) -> Option<String> {
    let records = service.requests().since(since).into_iter();
    let tags = records.filter(|record| record.method == "DELETE");
    tags.filter_map(|record| record.if_match.as_deref().map(unquoted))
        .next_back()
}

/// The inode of a file, whatever spelling it was opened under and whatever edition it is.
fn inode_of(file: &impl AsFd) -> Option<u64> {
    let stat = rustix::fs::fstat(file).ok()?;
    Some(stat.st_ino & INODE_BITS)
}

/// The item and the number of its version in a tag.
fn version(tag: &str) -> Option<(&str, u64)> {
    let (id, number) = tag.rsplit_once(',')?;
    Some((id, number.parse().ok()?))
}

/// Tells whether a tag is that of a state or of a later one of the same item.
fn is_as_new(tag: &str, state: &str) -> bool {
    let both = version(tag).zip(version(state));
    both.is_some_and(|((of, known), (id, number))| of == id && known >= number)
}

fn unquoted(tag: &str) -> String {
    tag.trim_matches('"').to_owned()
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn sibling(path: &str, name: &str) -> String {
    join(path.rsplit_once('/').map_or("", |(folder, _)| folder), name)
}
