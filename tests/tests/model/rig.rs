//! A home with a mount whose daemon is killed now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::counts;

/// Longest time until everything is sent and fresh once nothing goes wrong any more. A request that
/// the service swallowed is given up after a minute; what it was about is sent again after that.
const SYNC_LIMIT: Duration = Duration::from_secs(100);

/// A batch of histories shares one.
pub struct Rig<'h> {
    pub home: &'h Home<'h>,
    arguments: Vec<String>,
    mount: Option<Mount<'h>>,
    /// Mounts of killed daemons, in whose place new ones are.
    dead: Vec<Mount<'h>>,
    killer: Option<Killer>,
}

/// Somebody who is about to kill the daemon.
struct Killer {
    struck: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl<'h> Rig<'h> {
    pub fn new(home: &'h Home<'h>, upload_delay_ms: u64) -> Self {
        let arguments = [
            "--poll",
            "1",
            "--option",
            &format!("upload_delay={upload_delay_ms}"),
            "--option",
            "read_timeout=1",
        ];
        let mut rig = Self {
            home,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            mount: None,
            dead: Vec::new(),
            killer: None,
        };
        rig.mount_again();
        rig
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.home.mountpoint()
    }

    pub fn mount(&self) -> &Mount<'h> {
        self.mount.as_ref().expect("mounted")
    }

    fn mount_again(&mut self) {
        let mut spec = MountSpec::lasting(900);
        spec.arguments.clone_from(&self.arguments);
        self.mount = Some(self.home.mount_with(spec));
    }

    /// Lets somebody kill the daemon after a while.
    pub fn arm(&mut self, after: Duration) {
        let struck = Arc::new(AtomicBool::new(false));
        let pid = i32::try_from(self.mount().pid())
            .ok()
            .and_then(Pid::from_raw);
        let told = Arc::clone(&struck);
        let thread = thread::spawn(move || {
            thread::sleep(after);
            told.store(true, Ordering::SeqCst);
            if let Some(pid) = pid {
                // Nobody has waited for it yet, so the number is still its own.
                kill_process(pid, Signal::KILL).expect("kill");
            }
        });
        self.killer = Some(Killer { struck, thread });
    }

    /// Tells whether the daemon is being killed or was.
    pub fn struck(&self) -> bool {
        let killer = self.killer.as_ref();
        killer.is_some_and(|killer| killer.struck.load(Ordering::SeqCst))
    }

    pub fn is_armed(&self) -> bool {
        self.killer.is_some()
    }

    /// Waits for the kill if there is to be one, and mounts again over the dead mount.
    pub fn after_kill(&mut self) {
        let Some(killer) = self.killer.take() else {
            return;
        };
        killer.thread.join().expect("killer");
        counts::add("kills", 1);
        if let Some(mut mount) = self.mount.take() {
            mount.crash();
            self.dead.push(mount);
        }
        self.mount_again();
    }

    /// Waits until everything is sent and fresh. An error tells what is not.
    pub fn quiesce(&self) -> Result<(), String> {
        match self.settle()?.as_slice() {
            [] => Ok(()),
            parked => Err(format!("something is parked: {parked:?}")),
        }
    }

    /// Waits until everything is sent and fresh that does not wait for a person. Returns what does.
    pub fn settle(&self) -> Result<Vec<Value>, String> {
        let start = Instant::now();
        loop {
            let ran = self.home.try_sync(25);
            // What waits for a person is not waited for.
            if ran.code == Some(0) || ran.err.contains("could not be sent") {
                break;
            }
            if start.elapsed() > SYNC_LIMIT {
                return Err(format!(
                    "never in step: {}{}\nstatus: {}",
                    ran.out,
                    ran.err,
                    self.mount().status()
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
        let status = self.mount().status();
        if status["pending"]["ops"] != 0 {
            return Err(format!("something still waits: {status}"));
        }
        let parked = status["parked"].as_array();
        parked
            .cloned()
            .ok_or_else(|| format!("no list of what is parked: {status}"))
    }

    /// Gives up what is parked at a path in the mount.
    pub fn discard(&self, path: &str) -> Result<(), String> {
        let path = self.mountpoint().join(path.trim_start_matches('/'));
        let ran = self.home.run(&["discard", &path.to_string_lossy()]);
        match ran.code {
            Some(0) => Ok(()),
            _ => Err(format!(
                "discard {}: {}{}",
                path.display(),
                ran.out,
                ran.err
            )),
        }
    }

    /// Takes everything down in an orderly way.
    pub fn end(mut self) {
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        drop(self.mount.take());
        self.dead.clear();
    }
}
