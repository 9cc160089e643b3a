//! Histories of one client. The model is exact: the same calls on a plain local directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onedrivefs_sim::DriveHandle;

use crate::chaos::{self, Chaos};
use crate::counts;
use crate::disk::{self, Errno, Node, Seen, Side, Step, Tree};
use crate::names;
use crate::plan::Planner;
use crate::rig::Rig;

/// What may happen beside the calls of programs.
#[derive(Clone, Copy, Debug)]
pub struct Perils {
    pub kills: bool,
    pub faults: bool,
    /// Somebody else changes the same files on the service.
    pub second_client: bool,
}

/// Calls after one under another spelling for which the kernel may still be catching up.
const RESPELT_CALLS: u32 = 8;

/// Longest time until the kernel has forgotten what it knew under another spelling.
const FORGETTING_LIMIT: Duration = Duration::from_secs(2);

/// Calls of one history, in groups.
const GROUPS: u64 = 40;

/// One history.
pub struct Exact<'r, 'h, 's> {
    rig: &'r mut Rig<'h>,
    name: String,
    here: Side,
    model: Side,
    planner: Planner,
    perils: Perils,
    chaos: Chaos<'s>,
    /// Files that are open and were emptied, with what they held: until something is written or
    /// the handle is closed, a crash may leave either.
    emptied: BTreeMap<u32, Emptied>,
    /// What such files held, by inode, of which nothing was saved since although something was
    /// written: if they are emptied once more, a crash may leave that.
    unsaved: BTreeMap<u64, Vec<Vec<u8>>>,
    /// What files held in between while they were open, by inode: other histories start processes
    /// meanwhile, and a process that closes its copies of all handles saves what they wrote so far.
    between: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Whether bytes may have to come from the service.
    fetches: bool,
    /// Calls for which attributes may be outdated, since a file was used under another spelling.
    respelt: u32,
    trace: Vec<String>,
}

/// A call that was interrupted, what its file held if it empties one, and the model's tree before.
type Interrupted<'i> = (&'i Step, Option<Vec<u8>>, Tree);

/// What a file held before it was emptied.
#[derive(Clone)]
struct Emptied {
    inode: u64,
    before: Vec<u8>,
}

impl<'r, 'h, 's: 'h> Exact<'r, 'h, 's> {
    /// Runs a history in a folder of its own.
    pub fn run(
        rig: &'r mut Rig<'h>,
        seed: u64,
        model: PathBuf,
        perils: Perils,
        chaos: Chaos<'s>,
    ) -> Result<(), String> {
        let name = format!("h{seed:x}");
        std::fs::create_dir_all(&model).expect("directory");
        let here = Side::mount(rig.mountpoint().join(&name));
        let mut planner = Planner::new(seed);
        planner.whole_only = perils.faults && chaos::corrupts(seed);
        let mut history = Self {
            here,
            model: Side::local(model),
            planner,
            name,
            rig,
            perils,
            chaos,
            emptied: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            between: BTreeMap::new(),
            fetches: false,
            respelt: 0,
            trace: Vec::new(),
        };
        let outcome = history.play();
        history.chaos.end();
        if std::env::var_os("ONEDRIVEFS_MODEL_TRACE").is_some() {
            println!("{}", history.trace.join("\n"));
        }
        outcome.map_err(|why| {
            format!(
                "{why}\n--- what led there ---\n{}",
                history.trace.join("\n")
            )
        })
    }

    fn play(&mut self) -> Result<(), String> {
        std::fs::create_dir(self.here.root()).map_err(|e| format!("mkdir: {e}"))?;
        let groups = 5 + self.planner.rng.below(GROUPS);
        for _ in 0..groups {
            self.peril();
            let tree = self.model_tree()?;
            for step in self.planner.next(&tree) {
                self.step(&step)?;
            }
        }
        for step in self.planner.close_all() {
            self.step(&step)?;
        }
        if self.perils.kills && !self.rig.is_armed() && self.planner.rng.percent(60) {
            let ms = self.planner.rng.below(400);
            self.trace
                .push(format!("kill while sending, after {ms} ms"));
            self.rig.arm(Duration::from_millis(ms));
        }
        if self.perils.faults {
            let told = self.chaos.while_sending();
            self.trace.extend(told);
        }
        if self.rig.is_armed() {
            self.recover(None)?;
        }
        self.chaos.end();
        self.rig.quiesce()?;
        self.compare()
    }

    /// Perhaps lets something go wrong.
    fn peril(&mut self) {
        if self.perils.kills && !self.rig.is_armed() && self.planner.rng.percent(6) {
            let us = self.planner.rng.below(60_000);
            self.trace.push(format!("kill after {us} us"));
            self.rig.arm(Duration::from_micros(us));
        }
        if self.perils.faults {
            if let Some(what) = self.chaos.strike() {
                self.trace.push(format!("fault: {what}"));
            }
            if self.planner.rng.percent(2) {
                self.trace.push("cache wiped".into());
                chaos::wipe_cache(&self.rig.home.path("cache"));
                self.fetches = true;
            }
        }
        if self.planner.rng.percent(10) {
            std::thread::sleep(Duration::from_millis(self.planner.rng.below(150)));
        }
    }

    fn model_tree(&self) -> Result<Tree, String> {
        disk::read_tree(self.model.root()).map_err(|e| format!("model: {e}"))
    }

    /// One call on both sides.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        counts::add("calls", 1);
        let before = self.before_emptying(step);
        let here = self.here.apply(step);
        if self.rig.struck() && here.is_err() {
            self.trace
                .push(format!("{step:?} -> interrupted ({here:?})"));
            let without = self.model_tree()?;
            drop(self.model.apply(step));
            return self.recover(Some((step, before, without)));
        }
        if here.is_err() && self.is_out_of_reach(step, &here) {
            return self.out_of_reach(step, &here);
        }
        let without = self.rig.is_armed().then(|| self.model_tree()).transpose()?;
        let model = self.model.apply(step);
        self.respelt = if self.is_respelt(step) {
            RESPELT_CALLS
        } else {
            self.respelt.saturating_sub(1)
        };
        let here = self.once_more(step, here, &model);
        if let Some(without) = without.filter(|_| here.is_err() && model.is_ok())
            && self.rig.struck()
        {
            self.trace.push(format!(
                "{step:?} -> interrupted when made again ({here:?})"
            ));
            return self.recover(Some((step, before, without)));
        }
        self.trace.push(format!("{step:?} -> {here:?}"));
        if here != model && !is_same_refusal(step, &here, &model) {
            return Err(format!(
                "{step:?}\n    is:        {here:?}\n    should be: {model:?}"
            ));
        }
        self.note_emptied(step, before);
        self.note_between(step);
        Ok(())
    }

    fn note_between(&mut self, step: &Step) {
        let (Step::Write(slot, ..) | Step::Copy(slot, _) | Step::SetLen(slot, _)) = step else {
            return;
        };
        let Some(inode) = self.model.inode_of(*slot).filter(|_| self.perils.kills) else {
            return;
        };
        let path = self.path_of(inode);
        if let Some(Ok(held)) = path.map(|path| std::fs::read(self.model.root().join(path))) {
            self.between.entry(inode).or_default().push(held);
        }
    }

    /// Tells whether a call names something under another spelling than it has.
    fn is_respelt(&self, step: &Step) -> bool {
        let (Step::Open(_, path, _) | Step::Truncate(path, _) | Step::Times(path, ..)) = step
        else {
            return false;
        };
        self.model.resolve(path) != self.model.root().join(path)
    }

    /// What the kernel knows of a name and its file under another spelling, it forgets a moment
    /// after they changed under this one. A call in that moment is made again.
    fn once_more(
        &mut self,
        step: &Step,
        here: Result<Seen, Errno>,
        model: &Result<Seen, Errno>,
    ) -> Result<Seen, Errno> {
        let looks = matches!(
            step,
            Step::Read(_) | Step::ReadRange(..) | Step::List(_) | Step::Stat(_)
        );
        let is_stale = |here: &Result<Seen, Errno>| {
            // The kernel lets go of a file a moment after it was closed; until then it must not be
            // emptied under another spelling.
            let gone = [Err(libc::ENOENT), Err(libc::EBUSY)].contains(here);
            here != model && (gone || (looks && self.respelt > 0))
        };
        if !is_stale(&here) {
            return here;
        }
        counts::add("calls made again for another spelling", 1);
        let start = Instant::now();
        let mut again = here;
        while is_stale(&again) && start.elapsed() < FORGETTING_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
            again = self.here.apply(step);
        }
        again
    }

    /// Tells whether a call may have failed because its bytes are on the service only.
    fn is_out_of_reach(&self, step: &Step, here: &Result<Seen, Errno>) -> bool {
        let reads = matches!(step, Step::Read(_) | Step::ReadRange(..) | Step::Copy(..));
        let errno = here.as_ref().err().copied().unwrap_or(0);
        self.perils.faults
            && self.fetches
            && reads
            && [libc::ENETDOWN, libc::ETIMEDOUT, libc::EIO, libc::EACCES].contains(&errno)
    }

    fn out_of_reach(&mut self, step: &Step, here: &Result<Seen, Errno>) -> Result<(), String> {
        self.trace
            .push(format!("{step:?} -> out of reach ({here:?})"));
        counts::add("reads out of reach", 1);
        Ok(())
    }

    /// What the file of a call that empties it holds.
    fn before_emptying(&self, step: &Step) -> Option<Vec<u8>> {
        match step {
            Step::Open(_, path, how) if how.truncate && self.perils.kills => {
                std::fs::read(self.model.resolve(path)).ok()
            }
            Step::SetLen(slot, 0) if self.perils.kills => {
                let path = self.path_of(self.model.inode_of(*slot)?)?;
                std::fs::read(self.model.root().join(path)).ok()
            }
            _ => None,
        }
    }

    fn note_emptied(&mut self, step: &Step, before: Option<Vec<u8>>) {
        match step {
            Step::Open(slot, ..) | Step::SetLen(slot, 0) => {
                if let (Some(inode), Some(before)) = (self.model.inode_of(*slot), before) {
                    self.emptied
                        .entry(*slot)
                        .or_insert(Emptied { inode, before });
                }
            }
            Step::Write(slot, _, _, len) if *len > 0 => self.note_filled(*slot),
            Step::Copy(slot, _) if self.model.len_of(*slot) > Some(0) => self.note_filled(*slot),
            Step::SetLen(slot, _) => self.note_filled(*slot),
            Step::Fsync(slot) | Step::Close(slot) => {
                for (inode, _) in self.take_emptied(*slot) {
                    self.unsaved.remove(&inode);
                }
            }
            _ => {}
        }
    }

    /// A file is not empty any more, or is meant to be, but was not saved.
    fn note_filled(&mut self, slot: u32) {
        for (inode, before) in self.take_emptied(slot) {
            self.unsaved.entry(inode).or_default().extend(before);
        }
    }

    /// Forgets that the file behind a handle was emptied. Returns its inodes, that of before a kill as
    /// well, with what it held.
    fn take_emptied(&mut self, slot: u32) -> Vec<(u64, Vec<Vec<u8>>)> {
        let inode = self.model.inode_of(slot);
        let same = self.emptied.get(&slot).map(|e| e.inode);
        let inodes: BTreeSet<u64> = inode.into_iter().chain(same).collect();
        let mut taken: Vec<_> = inodes
            .into_iter()
            .map(|inode| (inode, Vec::new()))
            .collect();
        self.emptied.retain(|_, emptied| {
            let of = taken.iter_mut().find(|(inode, _)| *inode == emptied.inode);
            let Some((_, before)) = of else { return true };
            before.push(std::mem::take(&mut emptied.before));
            false
        });
        taken
    }

    /// The path of an inode of the model.
    fn path_of(&self, inode: u64) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let tree = self.model_tree().ok()?;
        tree.into_keys().find(|path| {
            std::fs::metadata(self.model.root().join(path)).is_ok_and(|m| m.ino() == inode)
        })
    }

    /// After a kill: what is there must be what was acknowledged, with or without the call that
    /// was interrupted, which the model has already made.
    fn recover(&mut self, interrupted: Option<Interrupted<'_>>) -> Result<(), String> {
        self.rig.after_kill();
        self.here.drop_handles();
        self.planner.open.clear();
        let with = self.model_tree()?;
        let mut without = with.clone();
        let mut emptied: Vec<Emptied> = Vec::new();
        let mut cut = None;
        if let Some((step, before, tree)) = interrupted {
            // The call that would have settled it may not have arrived.
            emptied.extend(self.emptied.values().cloned());
            self.note_emptied(step, before);
            without = tree;
            cut = Some(step);
        }
        let mut either: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        emptied.extend(std::mem::take(&mut self.emptied).into_values());
        for emptied in emptied {
            if let Some(path) = self.path_of(emptied.inode) {
                // Emptied through several handles, the first of them while it held something.
                let may_hold = either.entry(path).or_default();
                may_hold.push(emptied.before);
                for held in [&self.unsaved, &self.between] {
                    may_hold.extend(held.get(&emptied.inode).into_iter().flatten().cloned());
                }
            }
        }
        // A file that was only emptied is what the service has of it again.
        self.fetches |= self.perils.faults && !either.is_empty();
        if self.fetches {
            // What is not here has to be fetched to be compared.
            self.chaos.end();
        }
        self.unsaved.clear();
        self.between.clear();
        self.model.drop_handles();
        let is = disk::read_tree_of(self.here.root(), self.fetches)
            .map_err(|e| format!("after the kill: {e}"))?;
        let matches = |wanted: &Tree| {
            let wanted = settle_emptied(wanted, &is, &either);
            disk::differences(&is, &wanted)
        };
        let (unlike_with, unlike_without) = (matches(&with), matches(&without));
        if !unlike_with.is_empty()
            && !unlike_without.is_empty()
            && !cut.is_some_and(|step| is_partly_written(step, &is, &without, &with))
        {
            return Err(format!(
                "after a kill\n  without the interrupted call:\n{}\n  with it:\n{}",
                unlike_without.join("\n"),
                unlike_with.join("\n")
            ));
        }
        self.trace.push("mounted again".into());
        disk::write_tree(self.model.root(), &is).map_err(|e| format!("model: {e}"))
    }

    /// Here, there and the model hold the same.
    fn compare(&mut self) -> Result<(), String> {
        let wanted = self.model_tree()?;
        let here = disk::read_tree_of(self.here.root(), self.fetches)
            .map_err(|e| format!("at the end: {e}"))?;
        let unlike = disk::differences(&here, &wanted);
        if !unlike.is_empty() {
            return Err(format!("the mount differs:\n{}", unlike.join("\n")));
        }
        let drive = self.rig.home.service.default_drive();
        let unlike = unlike_service(&drive, &self.name, &wanted, false);
        if !unlike.is_empty() {
            return Err(format!("the service differs:\n{}", unlike.join("\n")));
        }
        let status = self.rig.mount().status();
        if status["conflicts"].as_array().is_none_or(|c| !c.is_empty()) {
            return Err(format!("a conflict without a second client: {status}"));
        }
        Ok(())
    }
}

/// A rename can be wrong in several ways at once, and which one is told depends on the spelling
/// under which the kernel knows the folders.
fn is_same_refusal(step: &Step, here: &Result<Seen, Errno>, model: &Result<Seen, Errno>) -> bool {
    let wrong = [
        libc::EINVAL,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::ENOTEMPTY,
        libc::EEXIST,
    ];
    let refused =
        |outcome: &Result<Seen, Errno>| outcome.as_ref().is_err_and(|errno| wrong.contains(errno));
    let renames = matches!(
        step,
        Step::Rename(..) | Step::RenameNoReplace(..) | Step::Exchange(..)
    );
    renames && refused(here) && refused(model)
}

/// Where a file may be empty or hold what it held, takes what is there.
fn settle_emptied(wanted: &Tree, is: &Tree, either: &BTreeMap<String, Vec<Vec<u8>>>) -> Tree {
    let mut wanted = wanted.clone();
    for (path, before) in either {
        if let (Some(Node::File(now, time)), Some(Node::File(bytes, _))) =
            (is.get(path), wanted.get(path))
            && bytes.is_empty()
            && before.contains(now)
        {
            wanted.insert(path.clone(), Node::File(now.clone(), *time));
        }
    }
    wanted
}

/// A long write may be cut by a kill between two requests of the kernel.
fn is_partly_written(step: &Step, is: &Tree, without: &Tree, with: &Tree) -> bool {
    if !matches!(step, Step::Write(..) | Step::Copy(..)) {
        return false;
    }
    let changed = disk::differences(with, without);
    let unlike = disk::differences(is, without);
    if changed.len() != 1 || unlike.len() != 1 {
        return false;
    }
    with.iter().any(|(path, node)| {
        let (Node::File(new, _), Some(Node::File(old, _)), Some(Node::File(now, _))) =
            (node, without.get(path), is.get(path))
        else {
            return false;
        };
        // Up to some point new, from there on old.
        let cut = now.iter().zip(new).take_while(|(a, b)| a == b).count();
        new != old && now.get(cut..) == Some(old.get(cut..).unwrap_or_default())
    })
}

/// Names every difference between a folder on the service and a tree. With `renamed`, files that the
/// service had may have been given names under which new ones stay here; they are files as all
/// others.
pub fn unlike_service(
    drive: &DriveHandle,
    folder: &str,
    wanted: &Tree,
    renamed: bool,
) -> Vec<String> {
    let inside = format!("/{folder}/");
    let mut unlike = Vec::new();
    let mut there: BTreeMap<String, onedrivefs_sim::Entry> = drive
        .dump()
        .into_iter()
        .filter_map(|entry| Some((entry.path.strip_prefix(&inside)?.to_owned(), entry)))
        .collect();
    for (path, node) in wanted {
        let name = path.rsplit('/').next().unwrap_or(path);
        let stored = names::on_service(path);
        if names::stays_here(name) && !(renamed && there.contains_key(&stored)) {
            continue;
        }
        let Some(entry) = there.remove(&stored) else {
            unlike.push(format!("{stored} is missing on the service: {node:?}"));
            continue;
        };
        match node {
            Node::Folder if entry.folder => {}
            Node::File(bytes, time) if !entry.folder => {
                let body = drive.read(&entry.path).unwrap_or_default();
                if body != *bytes {
                    unlike.push(format!(
                        "{stored}\n    on the service: {}\n    should be:      {}",
                        disk::describe(&body),
                        disk::describe(bytes)
                    ));
                }
                let mtime: jiff::Timestamp = entry.mtime.parse().expect("time");
                if time.is_some_and(|(seconds, _)| seconds != mtime.as_second()) {
                    unlike.push(format!("{stored}: time {mtime} instead of {time:?}"));
                }
            }
            _ => unlike.push(format!("{stored} is of another kind: {entry:?}")),
        }
    }
    unlike.extend(
        there
            .into_values()
            .map(|entry| format!("{} is too much on the service", entry.path)),
    );
    unlike
}
