//! Ends the daemon at a chosen point, for the tests that look what is lost. Not in release builds.
//!
//! `ONEDRIVEFS_KILL_LOG=FILE` appends the name of every point that is passed, one line each.
//! `ONEDRIVEFS_KILL_AT=NAME#N` ends the process with SIGKILL at the N-th pass of the point of that
//! name. A name is what happens and the line of code where, as the log shows them.

use std::fs::File;
use std::io::Write as _;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use onedrivefs_core::kill_point;
use rustix::process::{Signal, getpid, kill_process};

const AT: &str = "ONEDRIVEFS_KILL_AT";
const LOG: &str = "ONEDRIVEFS_KILL_LOG";

/// What a test wants to happen.
struct Plan {
    at: Option<(String, u64)>,
    passes: AtomicU64,
    log: Option<File>,
}

/// Does what the environment asks for, which ordinarily is nothing.
pub(crate) fn install() {
    let at = std::env::var(AT).ok().and_then(|text| {
        let (name, pass) = text.rsplit_once('#')?;
        Some((name.to_owned(), pass.parse().ok()?))
    });
    let log = std::env::var_os(LOG).and_then(|path| {
        let mut options = File::options();
        options.create(true).append(true).open(path).ok()
    });
    if at.is_none() && log.is_none() {
        return;
    }
    let plan = Plan {
        at,
        passes: AtomicU64::new(0),
        log,
    };
    kill_point::install(Box::new(move |name, place| plan.pass(name, place)));
}

impl Plan {
    fn pass(&self, name: &str, place: &Location<'_>) {
        let file = place.file().trim_start_matches("crates/");
        let point = format!("{name} {}:{}", file.replace("/src/", "/"), place.line());
        if let Some(mut log) = self.log.as_ref() {
            // One call, so that lines of several threads do not mix.
            let _best_effort = log.write_all(format!("{point}\n").as_bytes());
        }
        let Some((at, wanted)) = &self.at else {
            return;
        };
        if *at == point && self.passes.fetch_add(1, Ordering::SeqCst) + 1 == *wanted {
            let _never_fails = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
