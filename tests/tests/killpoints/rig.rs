//! One run of a story, with a daemon that dies at a point, and what is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveHandle, Reach};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Service};
use rustix::process::Signal;

use crate::act::{Act, How};
use crate::model::{Model, is_partly_written};
use crate::stories::Story;
use crate::tree::{self, Tree};

/// Longest time in which the death of the daemon shows once a call has failed.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// Longest time for what the kernel was told to forget to be forgotten.
pub const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// How long after a file was removed one that is made under its name is its next version.
const NEXT_VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Lifetime of upload sessions in seconds: the answer that begins one may be lost with the daemon,
/// and with it the only way to end it. On the real service the name is held for a quarter of an
/// hour, for which no test can wait.
const SESSION_TTL_S: i64 = 3;

/// Where a second file system is found.
const OTHER_FILE_SYSTEM: &str = "/dev/shm";

/// Under which name the daemon logs its points that comes before those that may die.
const BEFORE: &str = "before";

/// What is to happen in a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is played.
    pub story: &'static Story,
    /// Whether spool and cache lie on different file systems.
    pub apart: bool,
    /// Where the first daemon dies.
    pub kill: Option<String>,
    /// Where the one after it dies.
    pub kill_again: Option<String>,
}

impl Plan {
    /// One without a kill.
    pub fn calm(story: &'static Story, apart: bool) -> Self {
        Self {
            story,
            apart,
            kill: None,
            kill_again: None,
        }
    }
}

/// What happened in a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Points that were passed before the first daemon that may die.
    pub passed_before: Vec<String>,
    /// Points that the first daemon passed, in order.
    pub passed: Vec<String>,
    /// Points that the second daemon passed.
    pub passed_after: Vec<String>,
    /// How often a daemon died.
    pub deaths: usize,
}

/// A running story.
pub struct Rig<'h> {
    pub home: &'h Home<'h>,
    /// The drive that is mounted.
    pub drive: DriveHandle,
    plan: &'h Plan,
    pub mount: Option<Mount<'h>>,
    /// Mounts of dead daemons, in whose place new ones are.
    pub dead: Vec<Mount<'h>>,
    pub model: Model,
    pub open: BTreeMap<u32, File>,
    /// When files were removed, and how many daemons had died by then.
    removed: BTreeMap<&'static str, (Instant, usize)>,
    /// Files that were made anew so late, because a daemon had to be started in between, that they
    /// are others.
    pub made_late: BTreeSet<&'static str>,
    /// Whether a daemon died in the step that is taken now, which may have had its effect.
    pub is_again: bool,
    trace: Vec<String>,
}

/// Plays a story once. An error says what was wrong, and what led there.
pub fn run(plan: &Plan) -> Result<Outcome, String> {
    let service = Service::with(|config| {
        config.knobs.session_ttl_s = SESSION_TTL_S;
        (plan.story.config)(config);
    });
    let drive = service.default_drive();
    let seeded = (plan.story.seed)(&service);
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
        is_again: false,
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
        let name = format!(
            "{:?} {:?} {:?}",
            rig.plan.story, rig.plan.kill, rig.plan.kill_again
        );
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = Path::new(&dir).join(name);
        let requests = rig.home.service.request_lines().join("\n");
        let text = format!("{}\n=== requests\n{requests}\n", rig.home.logs());
        drop(fs::write(path, text));
    }
}

/// The identity of everything by its path.
pub fn ids(drive: &DriveHandle) -> BTreeMap<String, String> {
    let all = drive.dump().into_iter();
    all.map(|entry| (entry.path.trim_start_matches('/').to_owned(), entry.id))
        .collect()
}

impl Rig<'_> {
    pub fn story(&self) -> &'static Story {
        self.plan.story
    }

    fn play(&mut self, ids: &BTreeMap<String, String>) -> Result<Outcome, String> {
        self.prepare()?;
        if !self.begin_mount(0) {
            self.note_death();
            self.mount_until_alive();
        }
        for act in (self.story().acts)() {
            self.step(&act)?;
        }
        loop {
            match self.compare(ids) {
                Err(_) if self.is_dying() => {
                    self.note_death();
                    self.mount_until_alive();
                    self.step(&Act::Sync)?;
                }
                compared => return compared.and_then(|()| self.end()),
            }
        }
    }

    /// What comes before the first daemon that may die.
    fn prepare(&mut self) -> Result<(), String> {
        let acts = (self.story().before)();
        if !acts.is_empty() {
            if !self.mount_as(BEFORE, None) {
                return Err("the daemon ended while mounting".to_owned());
            }
            for act in acts {
                self.step(&act)?;
            }
            let mut mount = self.mount.take().expect("mounted");
            let ended = mount.signal(Signal::TERM);
            self.trace.push(format!("the daemon was stopped: {ended}"));
        }
        (self.story().between)(self.home, &mut self.model);
        Ok(())
    }

    pub fn root(&self) -> PathBuf {
        self.home.mountpoint()
    }

    fn log_of(&self, daemon: &str) -> PathBuf {
        self.home.path(&format!("points-{daemon}"))
    }

    /// Mounts with the daemon of this number. Tells whether it comes up.
    fn begin_mount(&mut self, daemon: usize) -> bool {
        let kill = match daemon {
            0 => self.plan.kill.as_deref(),
            1 => self.plan.kill_again.as_deref(),
            _ => None,
        };
        self.mount_as(&daemon.to_string(), kill)
    }

    /// Mounts with a daemon whose points are logged under a name.
    fn mount_as(&mut self, name: &str, kill: Option<&str>) -> bool {
        let arguments = ["--poll", "1", "--option", "upload_delay=30"];
        let mut spec = MountSpec::lasting(120);
        spec.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        let log = self.log_of(name);
        let log = log.to_str().expect("UTF-8");
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        spec.env.push(set("ONEDRIVEFS_KILL_LOG", log));
        if let Some(point) = kill {
            spec.env.push(set("ONEDRIVEFS_KILL_AT", point));
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

    pub fn has_died(&mut self) -> bool {
        self.mount.as_mut().expect("mounted").has_ended()
    }

    /// One step. If the daemon dies meanwhile, what was acknowledged is looked for, and the step
    /// is taken again unless it turns out to have been taken.
    fn step(&mut self, act: &Act) -> Result<(), String> {
        if let Act::Unlink(path) = act {
            self.removed.insert(path, (Instant::now(), self.dead.len()));
        }
        self.is_again = false;
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
            self.is_again = true;
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
            passed_before: passed(BEFORE),
            passed: passed("0"),
            passed_after: passed("1"),
            deaths: self.dead.len(),
        })
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        self.home.service.set_reach(Reach::Online);
        drop(self.mount.take());
        self.dead.clear();
    }
}
