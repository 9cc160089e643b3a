//! The drive mounted by the built binary, in a process of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::home::Home;
use crate::needs::is_root;
use crate::process;
use crate::wait;
use crate::watchdog::{self, Watchdog};

/// Time a mount has to come up.
const UP_LIMIT: Duration = Duration::from_secs(30);

/// Time a daemon has to end after it was told to.
const END_LIMIT: Duration = Duration::from_secs(45);

/// Time a killed daemon has to be gone.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// Lines of a daemon's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 150;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// Further arguments of `onedrivefs mount`.
    pub arguments: Vec<String>,
    /// Where; the home's usual place by default.
    pub mountpoint: Option<PathBuf>,
    /// After this time the watchdog aborts the connection.
    pub limit: Duration,
    /// Variables for the daemon alone.
    pub env: Vec<(String, String)>,
}

impl Default for MountSpec {
    fn default() -> Self {
        Self {
            arguments: Vec::new(),
            mountpoint: None,
            limit: Duration::from_secs(180),
            env: Vec::new(),
        }
    }
}

impl MountSpec {
    /// One that may take longer.
    #[must_use]
    pub fn lasting(seconds: u64) -> Self {
        Self {
            limit: Duration::from_secs(seconds),
            ..Self::default()
        }
    }
}

/// A running mount. Dropping it ends the daemon and takes the mount away.
pub struct Mount<'h> {
    home: &'h Home<'h>,
    path: PathBuf,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
    watchdog: Option<Watchdog>,
}

impl<'h> Mount<'h> {
    pub(crate) fn start(home: &'h Home<'h>, spec: MountSpec) -> Self {
        let mut mount = Self::begin(home, spec);
        assert!(mount.comes_up(), "the daemon ended while mounting");
        mount
    }

    /// Starts the daemon and does not wait for it.
    pub(crate) fn begin(home: &'h Home<'h>, spec: MountSpec) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = spec.mountpoint.unwrap_or_else(|| home.mountpoint());
        let log = home.path(&format!("daemon-{number}.log"));
        let mut command = home.command(&["mount"]);
        command
            .args(&spec.arguments)
            .envs(spec.env)
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(File::create(&log).expect("log"))
            .stderr(File::options().append(true).open(&log).expect("log"));
        let child = command.spawn().expect("daemon");
        let watchdog = Watchdog::start(&path, child.id(), spec.limit);
        Self {
            home,
            path,
            log,
            child,
            ended: None,
            watchdog: Some(watchdog),
        }
    }

    /// Waits until the daemon answers. `false` when it ended before it did.
    ///
    /// # Panics
    /// When it does neither.
    pub fn comes_up(&mut self) -> bool {
        let path = self.path.clone();
        wait::value("an answer of the daemon", UP_LIMIT, || {
            if self.has_ended() {
                return Some(false);
            }
            if !is_mounted(&path) {
                return None;
            }
            let ran = self.home.run(&["status", "--json", path_text(&path)]);
            (ran.code == Some(0)).then_some(true)
        })
    }

    /// Tells whether the daemon has ended, for whatever reason.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("daemon");
            if self.ended.is_some() {
                self.watchdog = None;
            }
        }
        self.ended.is_some()
    }

    /// How the daemon ended, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the mount.
    #[must_use]
    pub fn at(&self, below: &str) -> PathBuf {
        self.path.join(below)
    }

    /// The daemon's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the daemon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `onedrivefs status --json`.
    ///
    /// # Panics
    /// When the daemon does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let ran = self.home.run(&["status", "--json", path_text(&self.path)]);
        serde_json::from_str(&ran.ok()).expect("JSON")
    }

    /// `onedrivefs status --json PATH`.
    ///
    /// # Panics
    /// When the daemon does not know the path.
    #[must_use]
    pub fn status_of(&self, below: &str) -> Value {
        let path = self.at(below);
        let ran = self.home.run(&["status", "--json", path_text(&path)]);
        serde_json::from_str(&ran.ok()).expect("JSON")
    }

    /// Waits until everything is sent and fresh.
    ///
    /// # Panics
    /// When that fails.
    pub fn sync(&self) {
        self.home.sync();
    }

    /// Waits until nothing waits to be sent, without asking for it.
    ///
    /// # Panics
    /// When something still does after `limit`.
    pub fn wait_sent(&self, limit: Duration) {
        wait::until("everything sent", limit, || {
            self.status()["pending"]["ops"] == 0
        });
    }

    /// Most memory the daemon has had resident so far, in bytes.
    ///
    /// # Panics
    /// When the daemon has ended.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("VmHWM");
        let kib: u64 = line
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("number");
        kib * 1024
    }

    /// Ends the daemon as a crash would. The mount stays in the tree with nobody to answer.
    ///
    /// # Panics
    /// When it survives.
    pub fn crash(&mut self) {
        if self.has_ended() {
            return;
        }
        watchdog::kill(self.pid());
        self.ended = process::wait(&mut self.child, DEATH_LIMIT);
        if self.ended.is_none() {
            // One of its threads waits in the kernel for a folder in which a program waits for an
            // answer of the dead. The next mount there frees both; a test is not that patient.
            watchdog::abort(&self.path);
            self.ended = process::wait(&mut self.child, END_LIMIT);
        }
        assert!(self.ended.is_some(), "the daemon survived SIGKILL");
        self.watchdog = None;
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Panics
    /// When the daemon does not end.
    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        self.send(signal);
        self.wait_end()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When that fails.
    pub fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("process id"), signal).expect("signal");
    }

    /// Waits for the end of a daemon that has been told to end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let status = process::wait(&mut self.child, END_LIMIT);
        self.ended = status;
        self.watchdog = None;
        status.expect("the daemon did not end")
    }

    /// Unmounts with the command, and expects it to be clean.
    ///
    /// # Panics
    /// When it is not.
    pub fn unmount(mut self) {
        self.home.run(&["unmount", path_text(&self.path)]).ok();
        let status = self.wait_end();
        assert!(status.success(), "{status}");
        assert!(!is_mounted(&self.path), "the mount is still there");
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() && self.child.try_wait().ok().flatten().is_none() {
            let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            if process::wait(&mut self.child, END_LIMIT).is_none() {
                watchdog::kill(self.pid());
                drop(self.child.wait());
            }
        }
        detach(&self.path);
        let log = self.log();
        let defect = log.contains("Stopped because of a defect") || log.contains("panicked at");
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            println!("--- the daemon's log (end) ---\n{}\n---", shown.join("\n"));
        } else {
            assert!(!defect, "the daemon panicked:\n{log}");
        }
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Tells whether something is mounted there, without asking whatever is.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .any(|mounted| Path::new(mounted) == path)
}

/// Takes away whatever is still mounted there.
pub(crate) fn detach(path: &Path) {
    while is_mounted(path) {
        let command = if is_root() {
            Command::new("umount").arg("-l").arg(path).status()
        } else {
            Command::new("fusermount3").arg("-uz").arg(path).status()
        };
        if !command.is_ok_and(|status| status.success()) {
            return;
        }
    }
}
