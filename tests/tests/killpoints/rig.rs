//! One run of the scenario, with a daemon that dies at a point, and the comparison at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule, Reach};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Service};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use rustix::process::Signal;
use serde_json::Value;

use crate::model::{Model, is_partly_written};
use crate::scenario::{self, Act, How, SAME};
use crate::sys;
use crate::tree::{self, Tree};

/// Longest time until both sides are in step.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// Time after which a file that is not being sent may have been sent already.
const SENT_LIMIT: Duration = Duration::from_secs(1);

/// Longest time in which the death of the daemon shows once a call has failed.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// Longest time for what the kernel was told to forget to be forgotten.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// How long after a file was removed one that is made under its name is its next version.
const NEXT_VERSION_LIMIT: Duration = Duration::from_secs(10);

/// How long a fragment takes while they are slow, in milliseconds.
const FRAGMENT_MS: u64 = 300;

const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// Versions that a file may have more for each death: half of what was being written is what a
/// local disk would hold, too, and is sent, with a time of its own.
const VERSIONS_MORE: usize = 2;

/// Lifetime of upload sessions in seconds: the answer that begins one may be lost with the daemon,
/// and with it the only way to end it. On the real service the name is held for a quarter of an
/// hour, for which no test can wait.
const SESSION_TTL_S: i64 = 3;

/// Where a second file system is found.
const OTHER_FILE_SYSTEM: &str = "/dev/shm";

/// What is to happen in a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Whether spool and cache lie on different file systems.
    pub apart: bool,
    /// Where the first daemon dies.
    pub kill: Option<String>,
    /// Where the one after it dies.
    pub kill_again: Option<String>,
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Points that the first daemon passed, in order.
    pub passed: Vec<String>,
    /// Points that the second daemon passed.
    pub passed_after: Vec<String>,
    /// How often a daemon died.
    pub deaths: usize,
}

/// A running scenario.
struct Rig<'h> {
    home: &'h Home<'h>,
    drive: DriveHandle,
    plan: &'h Plan,
    mount: Option<Mount<'h>>,
    /// Mounts of dead daemons, in whose place new ones are.
    dead: Vec<Mount<'h>>,
    model: Model,
    open: BTreeMap<u32, File>,
    /// When files were removed, and how many daemons had died by then.
    removed: BTreeMap<&'static str, (Instant, usize)>,
    /// Files that were made anew so late, because a daemon had to be started in between, that they
    /// are others.
    made_late: BTreeSet<&'static str>,
    trace: Vec<String>,
}

/// Plays the scenario once. An error says what was wrong, and what led there.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let service = Service::with(|config| config.knobs.session_ttl_s = SESSION_TTL_S);
    let drive = service.default_drive();
    let seeded = scenario::seed(&drive);
    let ids = ids(&drive);
    let home = Home::new(&service);
    // Lives as long as the home.
    let other = plan.apart.then(|| {
        let dir = tempfile::tempdir_in(OTHER_FILE_SYSTEM).expect("directory");
        fs::remove_dir(home.path("cache")).expect("removed");
        symlink(dir.path(), home.path("cache")).expect("link");
        dir
    });
    home.log_in();
    let mut rig = Rig {
        home: &home,
        drive,
        plan,
        mount: None,
        dead: Vec::new(),
        model: Model::new(seeded),
        open: BTreeMap::new(),
        removed: BTreeMap::new(),
        made_late: BTreeSet::new(),
        trace: Vec::new(),
    };
    let outcome = rig.play(&ids);
    if outcome.is_err() {
        keep_log(&rig);
    }
    let told =
        outcome.map_err(|why| format!("{why}\n--- what led there ---\n{}", rig.trace.join("\n")));
    drop(rig);
    drop(other);
    told
}

/// Keeps what the daemons logged in a run that failed, if that is wanted.
fn keep_log(rig: &Rig<'_>) {
    if let Some(dir) = std::env::var_os("ONEDRIVEFS_KILLPOINTS_LOG") {
        let name = format!("{:?} {:?}", rig.plan.kill, rig.plan.kill_again);
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = Path::new(&dir).join(name);
        let requests = rig.home.service.request_lines().join("\n");
        let text = format!("{}\n=== requests\n{requests}\n", rig.home.logs());
        drop(fs::write(path, text));
    }
}

fn ids(drive: &DriveHandle) -> BTreeMap<String, String> {
    let all = drive.dump().into_iter();
    all.map(|entry| (entry.path.trim_start_matches('/').to_owned(), entry.id))
        .collect()
}

impl Rig<'_> {
    fn play(&mut self, ids: &BTreeMap<String, String>) -> Result<Outcome, String> {
        if !self.begin_mount(0) {
            self.note_death();
            self.mount_until_alive();
        }
        for act in scenario::acts() {
            self.step(&act)?;
        }
        loop {
            match self.compare(ids) {
                Err(_) if self.has_died() => {
                    self.note_death();
                    self.mount_until_alive();
                    self.step(&Act::Sync)?;
                }
                compared => return compared.and_then(|()| self.end()),
            }
        }
    }

    fn root(&self) -> PathBuf {
        self.home.mountpoint()
    }

    fn log_of(&self, daemon: usize) -> PathBuf {
        self.home.path(&format!("points-{daemon}"))
    }

    /// Mounts with the daemon of this number. Tells whether it comes up.
    fn begin_mount(&mut self, daemon: usize) -> bool {
        let arguments = ["--poll", "1", "--option", "upload_delay=30"];
        let mut spec = MountSpec::lasting(120);
        spec.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        let kill = match daemon {
            0 => &self.plan.kill,
            1 => &self.plan.kill_again,
            _ => &None,
        };
        let mut set = |name: &str, value: &str| spec.env.push((name.to_owned(), value.to_owned()));
        if daemon < 2 {
            let log = self.log_of(daemon);
            set("ONEDRIVEFS_KILL_LOG", log.to_str().expect("UTF-8"));
        }
        if let Some(point) = kill {
            set("ONEDRIVEFS_KILL_AT", point);
        }
        let mut mount = self.home.begin_mount(spec);
        let up = mount.comes_up();
        self.mount = Some(mount);
        up
    }

    fn note_death(&mut self) {
        let mount = self.mount.take().expect("mounted");
        self.trace
            .push(format!("the daemon died: {:?}", mount.ended()));
        self.dead.push(mount);
        self.open.clear();
    }

    fn mount_until_alive(&mut self) {
        while !self.begin_mount(self.dead.len()) {
            self.note_death();
        }
        self.trace.push("mounted again".to_owned());
    }

    fn has_died(&mut self) -> bool {
        self.mount.as_mut().expect("mounted").has_ended()
    }

    /// One step. If the daemon dies meanwhile, what was acknowledged is looked for, and the step
    /// is taken again unless it turns out to have been taken.
    fn step(&mut self, act: &Act) -> Result<(), String> {
        if let Act::Unlink(path) = act {
            self.removed.insert(path, (Instant::now(), self.dead.len()));
        }
        loop {
            match self.try_act(act) {
                Ok(()) => {
                    self.trace.push(format!("{act:?}"));
                    self.model.apply(act);
                    self.note_made(act);
                    return Ok(());
                }
                Err(error) => {
                    self.trace.push(format!("{act:?} -> {error}"));
                    if !self.is_dying() {
                        return Err(format!("{act:?}: {error}"));
                    }
                }
            }
            if self.recover(act)? {
                return Ok(());
            }
        }
    }

    /// Notes what was made in the place of a removed file, if that was so late because the daemon was
    /// dead for a while.
    fn note_made(&mut self, act: &Act) {
        if let Act::Open(_, path, How::Create) = act
            && let Some((removed, deaths)) = self.removed.get(path)
            && self.dead.len() > *deaths
            && removed.elapsed() > NEXT_VERSION_LIMIT
        {
            self.trace.push(format!("{path} was made anew too late"));
            self.made_late.insert(path);
        }
    }

    /// Tells whether a failure may be due to the daemon's death.
    fn is_dying(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < DEATH_LIMIT {
            if self.has_died() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn try_act(&mut self, act: &Act) -> io::Result<()> {
        let root = self.root();
        let at = |path: &str| root.join(path);
        match act {
            Act::Mkdir(path) => fs::create_dir(at(path))?,
            Act::Rmdir(path) => fs::remove_dir(at(path))?,
            Act::Unlink(path) => fs::remove_file(at(path))?,
            Act::Rename(from, to) => fs::rename(at(from), at(to))?,
            Act::Exchange(a, b) => {
                renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE)?;
            }
            Act::Open(slot, path, how) => {
                let mut options = OpenOptions::new();
                match how {
                    How::Create => options.write(true).create_new(true),
                    How::Write => options.read(true).write(true),
                    How::Truncate => options.write(true).truncate(true),
                    How::Append => options.append(true),
                };
                let file = options.open(at(path))?;
                self.open.insert(*slot, file);
            }
            Act::Write(slot, offset, body) => {
                if let Some(file) = self.file(*slot)? {
                    file.write_all_at(&body.make(), *offset as u64)?;
                }
            }
            Act::Append(slot, body) => {
                if let Some(mut file) = self.file(*slot)? {
                    file.write_all(&body.make())?;
                }
            }
            Act::Copy(slot, from) => {
                if let Some(file) = self.file(*slot)? {
                    sys::copy(&at(from), file)?;
                }
            }
            Act::SetLen(slot, len) => {
                if let Some(file) = self.file(*slot)? {
                    file.set_len(*len as u64)?;
                }
            }
            Act::Zero(slot, offset, len) => self.fallocate(*slot, ZERO, *offset, *len)?,
            Act::Punch(slot, offset, len) => self.fallocate(*slot, PUNCH, *offset, *len)?,
            Act::Fsync(slot) => {
                if let Some(file) = self.file(*slot)? {
                    file.sync_all()?;
                }
            }
            Act::Close(slot) => {
                if let Some(file) = self.open.remove(slot) {
                    sys::close(file)?;
                }
            }
            Act::Truncate(path, len) => sys::truncate(&at(path), *len as u64)?,
            Act::Times(path, seconds) => set_time(&at(path), *seconds)?,
            Act::Link(path, target) => symlink(target, at(path))?,
            Act::Read(path, offset, len) => {
                File::open(at(path))?.read_exact_at(&mut vec![0; *len], *offset)?;
            }
            Act::There(_, deed, _) => deed(&self.drive),
            Act::Offline => self.home.service.set_reach(Reach::Offline),
            Act::Online => self.home.service.set_reach(Reach::Online),
            Act::Slow => {
                let slow = FaultAction::Delay { ms: FRAGMENT_MS };
                let rule = FaultRule::on("upload_fragment", slow);
                self.home.service.faults().add(rule);
                self.home.service.set_knobs(|knobs| knobs.copy_polls = 3);
            }
            Act::Swift => {
                self.home.service.faults().clear();
                self.home.service.set_knobs(|knobs| knobs.copy_polls = 1);
            }
            Act::Begun(name) => self.wait_on_its_way(name, |rig, name| rig.is_sent(name, false))?,
            Act::Sent(name) => self.wait_on_its_way(name, |rig, name| rig.is_sent(name, true))?,
            Act::Copying(name) => self.wait_on_its_way(name, Self::is_copied)?,
            Act::Sync => self.sync()?,
        }
        Ok(())
    }

    /// An open file; none if it was unlinked and died with its daemon.
    fn file(&self, slot: u32) -> io::Result<Option<&File>> {
        match self.open.get(&slot) {
            Some(file) => Ok(Some(file)),
            None if self
                .model
                .slots
                .get(&slot)
                .is_some_and(|s| s.path.is_none()) =>
            {
                Ok(None)
            }
            None => Err(io::Error::other("not open")),
        }
    }

    fn fallocate(&self, slot: u32, how: FallocateFlags, at: usize, len: usize) -> io::Result<()> {
        match self.file(slot)? {
            Some(file) => Ok(fallocate(file, how, at as u64, len as u64)?),
            None => Ok(()),
        }
    }

    /// Tells whether an upload session for a name has begun, and whether bytes have arrived.
    fn is_sent(&self, name: &str, partly: bool) -> bool {
        let sessions = self.home.service.sessions();
        let mut rows = sessions.as_array().into_iter().flatten();
        rows.any(|row| row["name"] == name && (row["received"] != 0) == partly)
    }

    /// Tells whether the service is making a copy of a name.
    fn is_copied(&self, name: &str) -> bool {
        let monitors = self.home.service.monitors();
        let mut rows = monitors.as_array().into_iter().flatten();
        rows.any(|row| row["name"] == name && row["done"] == false)
    }

    /// Waits until a file is on its way, or was.
    fn wait_on_its_way(
        &mut self,
        name: &str,
        is_on_its_way: fn(&Self, &str) -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < SYNC_LIMIT {
            if is_on_its_way(self, name) {
                return Ok(());
            }
            if self.has_died() {
                return Err(io::Error::other("the daemon is dead"));
            }
            let idle = || {
                self.status()
                    .is_some_and(|told| told["pending"]["ops"] == 0)
            };
            if start.elapsed() > SENT_LIMIT && idle() {
                // A daemon died when it was nearly done, and the next one was quick.
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("it is not being sent"))
    }

    /// What the daemon tells of itself, unless it is dead.
    fn status(&self) -> Option<Value> {
        let root = self.root();
        let ran = self.home.run(&["status", "--json", root.to_str()?]);
        serde_json::from_str(&ran.out).ok()
    }

    fn sync(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let ran = self.home.try_sync(20);
            if ran.code == Some(0) {
                return Ok(());
            }
            if self.has_died() {
                return Err(io::Error::other("the daemon is dead"));
            }
            if start.elapsed() > SYNC_LIMIT {
                let told = format!("never in step: {}{}", ran.out, ran.err);
                return Err(io::Error::other(told));
            }
        }
    }

    /// After the daemon's death: what is there must be what was acknowledged, with or without the
    /// step that was under way. Tells whether the step was taken.
    fn recover(&mut self, act: &Act) -> Result<bool, String> {
        self.note_death();
        self.mount_until_alive();
        let without = self.model.clone();
        let mut with = self.model.clone();
        if !matches!(act, Act::Sync) {
            with.apply(act);
        }
        let mut wrong = (Vec::new(), Vec::new());
        let start = Instant::now();
        // A change from elsewhere may arrive just now; then the tree is read once more.
        while start.elapsed() < KERNEL_LIMIT {
            let is = match self.read_here() {
                Ok(is) => is,
                Err(_) if self.has_died() => {
                    self.note_death();
                    self.mount_until_alive();
                    continue;
                }
                Err(error) => {
                    wrong.0 = vec![error.to_string()];
                    continue;
                }
            };
            wrong = (without.wrong_with(&is), with.wrong_with(&is));
            let partly = is_partly_written(act, &is, &without, &with);
            if wrong.0.is_empty() || wrong.1.is_empty() || partly {
                let taken = wrong.1.is_empty() && !wrong.0.is_empty();
                if taken {
                    self.trace.push(format!("{act:?} was taken"));
                    self.model = with;
                }
                self.reopen()
                    .map_err(|error| format!("after the crash: {error}"))?;
                return Ok(taken);
            }
        }
        Err(format!(
            "LOST after the crash\nif the last step was not taken:\n{}\nif it was:\n{}",
            wrong.0.join("\n"),
            wrong.1.join("\n")
        ))
    }

    /// What the mount shows, with the bytes of what is certain to be here.
    fn read_here(&self) -> io::Result<Tree> {
        tree::of_mount(&self.root(), &|path| self.model.is_here(path))
    }

    /// Opens again what was open, and brings it to the state it was in, as a program would.
    fn reopen(&mut self) -> io::Result<()> {
        for (slot, file) in self.model.slots.clone() {
            let Some(path) = file.path else { continue };
            let mut options = OpenOptions::new();
            let options = options
                .read(!file.append)
                .write(!file.append)
                .append(file.append);
            let opened = options.open(self.root().join(path))?;
            let len = self.model.len_of(slot).unwrap_or(0) as u64;
            if opened.metadata()?.len() != len {
                opened.set_len(len)?;
            }
            self.open.insert(slot, opened);
        }
        Ok(())
    }

    /// The comparison at the end.
    fn compare(&mut self, ids: &BTreeMap<String, String>) -> Result<(), String> {
        let unlike = self.unlike_here();
        if !unlike.is_empty() {
            return Err(format!("the mount differs:\n{}", unlike.join("\n")));
        }
        let there = tree::of_service(&self.drive)?;
        let unlike = tree::differences(&there, &self.model.tree);
        if !unlike.is_empty() {
            return Err(format!("the service differs:\n{}", unlike.join("\n")));
        }
        self.check_identities(ids)?;
        self.check_versions()?;
        self.check_nothing_left()
    }

    /// Ends the daemon, which may die in doing so if it has not by now.
    fn end(&mut self) -> Result<Outcome, String> {
        let mount = self.mount.as_mut().expect("mounted");
        if mount.has_ended() || !mount.signal(Signal::TERM).success() {
            self.note_death();
            self.mount_until_alive();
            let unlike = self.unlike_here();
            if !unlike.is_empty() {
                return Err(format!("after the end:\n{}", unlike.join("\n")));
            }
        }
        let passed = |daemon| {
            let text = fs::read_to_string(self.log_of(daemon)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        Ok(Outcome {
            passed: passed(0),
            passed_after: passed(1),
            deaths: self.dead.len(),
        })
    }

    fn unlike_here(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let unlike = match tree::of_mount(&self.root(), &|_| true) {
                Ok(here) => tree::differences(&here, &self.model.tree),
                Err(error) => vec![error.to_string()],
            };
            if unlike.is_empty() || start.elapsed() > KERNEL_LIMIT {
                return unlike;
            }
        }
    }

    /// Saves and renames keep the identity on the service.
    fn check_identities(&self, before: &BTreeMap<String, String>) -> Result<(), String> {
        let now = ids(&self.drive);
        for (path, from) in SAME {
            if now.get(*path) != before.get(*from) && !self.made_late.contains(path) {
                return Err(format!("{path} is not the item that {from} was"));
            }
        }
        Ok(())
    }

    /// Nothing waits, nothing is parked, there is no conflict but the one that was provoked, the
    /// spool is empty, and no upload session was left half-done.
    fn check_nothing_left(&mut self) -> Result<(), String> {
        let status = self.status().ok_or("no answer to `status`")?;
        let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
        if status["pending"]["ops"] != 0 || count("parked") > 0 {
            return Err(format!("something still waits: {status}"));
        }
        if count("conflicts") != scenario::CONFLICTS {
            return Err(format!("other conflicts than provoked: {status}"));
        }
        let spool = self.home.account_state();
        let left = files_in_spool(&spool);
        if !left.is_empty() {
            return Err(format!("the spool is not empty: {left:?}"));
        }
        let sessions = self.home.service.sessions();
        let half = sessions.as_array().into_iter().flatten();
        let half: Vec<_> = half.filter(|row| row["received"] != 0).collect();
        if !half.is_empty() {
            return Err(format!("upload sessions were left: {half:?}"));
        }
        Ok(())
    }

    /// Nothing was sent more often than can be explained: what was there at first, what was saved,
    /// the time of a body that could not carry it along, and what a death adds.
    fn check_versions(&self) -> Result<(), String> {
        for entry in self.drive.dump().iter().filter(|entry| !entry.folder) {
            let path = entry.path.trim_start_matches('/');
            let saves = self.model.saves.get(path).copied().unwrap_or(1);
            let most = 2 + saves + VERSIONS_MORE * self.dead.len();
            if entry.versions > most {
                let versions = entry.versions;
                return Err(format!("{path} has {versions} versions, {most} at most"));
            }
        }
        Ok(())
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        self.home.service.set_reach(Reach::Online);
        drop(self.mount.take());
        self.dead.clear();
    }
}

/// Body files in the spools of all drives below an account's state.
fn files_in_spool(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = fs::read_dir(state)
        .into_iter()
        .flatten()
        .flatten()
        .map(|drive| drive.path().join("spool"))
        .collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        rustix::fs::AtFlags::empty(),
    )?)
}
