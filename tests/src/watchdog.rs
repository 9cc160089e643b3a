//! A defect in a file system makes programs hang in system calls that no signal ends. The watchdog
//! aborts the kernel's connection, so that they get an error and the test fails instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Waits beside a mount; dropped, it lets go.
#[derive(Debug)]
pub(crate) struct Watchdog {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Ends the mount and its daemon unless dropped within `limit`.
    pub(crate) fn start(mountpoint: &Path, pid: u32, limit: Duration) -> Self {
        let (done, wait) = mpsc::channel::<()>();
        let mountpoint = mountpoint.to_owned();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let thread = thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "WATCHDOG {test}: {} s have passed; aborting {}",
                    limit.as_secs(),
                    mountpoint.display()
                );
                abort(&mountpoint);
                kill(pid);
            }
        });
        Self {
            done: Some(done),
            thread: Some(thread),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Aborts the connection of a mount; everybody who waits for an answer gets an error.
pub(crate) fn abort(mountpoint: &Path) {
    let Some(file) = connection(mountpoint).map(|dir| dir.join("abort")) else {
        return;
    };
    if let Err(error) = fs::write(&file, "1") {
        eprintln!("WATCHDOG: {}: {error}", file.display());
    }
}

/// The control directory of a mount's connection: it is named after the mount's device number.
fn connection(mountpoint: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (Path::new(fields.nth(1)?) == mountpoint).then(|| device.to_owned())
    })?;
    let minor = device.split_once(':')?.1;
    Some(Path::new("/sys/fs/fuse/connections").join(minor))
}

/// Ends a process that the tests have started.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}
