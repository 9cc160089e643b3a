//! Nothing is ever lost: one scenario that touches every transition of journal, spool and upload,
//! played again and again with the daemon killed at one transition after the other, also while it
//! recovers from having been killed. What is there afterwards must be what was acknowledged, on
//! this machine and on the service, with nothing twice and nothing left over.
//!
//! A point is named by what happens and the line of code where, and counted: `NAME#2` is the second
//! pass. Debug builds only; release builds have no such points.
//!
//! `ONEDRIVEFS_KILLPOINTS_COUNT` (how many points) and `ONEDRIVEFS_KILLPOINTS_SEED` (which) choose
//! for the short form. `tests/killpoints` is the long form: all of them, some, or a single one.

mod model;
mod rig;
mod scenario;
#[path = "../model/sys.rs"]
mod sys;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use onedrivefs_tests::{Need, needs};
use rig::{Outcome, Plan};

/// Points of the short form.
const COUNT: u64 = 10;

/// Runs at a time.
const THREADS: u64 = 2;

/// The last point of a recovery.
const RECOVERED: &str = "orphans-removed";

/// All points of the scenario.
struct Sweep {
    plans: Vec<Plan>,
}

/// What a sweep has found.
#[derive(Default)]
struct Found {
    done: usize,
    deaths: usize,
    unreached: Vec<String>,
    failures: Vec<String>,
    /// For each point of a recovery, a point whose kill leads there.
    recoveries: BTreeMap<String, Plan>,
}

impl Sweep {
    /// Plays the scenario without a kill, on one file system and on two.
    fn new() -> Self {
        let calm = |apart| {
            let plan = Plan {
                apart,
                ..Plan::default()
            };
            rig::run(&plan).unwrap_or_else(|why| panic!("without a kill: {why}"))
        };
        let (one, two) = (calm(false), calm(true));
        let names: BTreeSet<&String> = one.passed.iter().collect();
        let only_apart = two.passed.iter().filter(|name| !names.contains(name));
        let mut plans = Vec::new();
        for (apart, passed) in [
            (false, one.passed.clone()),
            (true, only_apart.cloned().collect()),
        ] {
            plans.extend(numbered(&passed).into_iter().map(|kill| Plan {
                apart,
                kill: Some(kill),
                kill_again: None,
            }));
        }
        Self { plans }
    }

    /// One run, judged.
    fn judge(plan: &Plan) -> Result<Outcome, String> {
        let played = panic::catch_unwind(AssertUnwindSafe(|| rig::run(plan)));
        played.unwrap_or_else(|_| Err("see the panic above".to_owned()))
    }

    /// Runs plans, several at a time.
    fn run(plans: &[Plan]) -> Found {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Found::default());
        let start = Instant::now();
        let threads = number("ONEDRIVEFS_KILLPOINTS_THREADS").unwrap_or(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let judged = Self::judge(plan);
                        let mut found = found.lock().expect("not poisoned");
                        found.take(plan, judged);
                        tell(&format!(
                            "{}/{} in {} s: {}\n",
                            found.done,
                            plans.len(),
                            start.elapsed().as_secs(),
                            told(plan)
                        ));
                    }
                });
            }
        });
        found.into_inner().expect("not poisoned")
    }
}

impl Found {
    fn take(&mut self, plan: &Plan, judged: Result<Outcome, String>) {
        self.done += 1;
        let outcome = match judged {
            Ok(outcome) => outcome,
            Err(why) => {
                let failure = format!("{}: {why}\nreplay with: {}", told(plan), replay(plan));
                tell(&format!("FAILED {failure}\n"));
                self.failures.push(failure);
                return;
            }
        };
        self.deaths += outcome.deaths;
        let wanted = usize::from(plan.kill.is_some()) + usize::from(plan.kill_again.is_some());
        if outcome.deaths < wanted {
            self.unreached.push(told(plan));
        }
        if plan.kill_again.is_some() {
            return;
        }
        let recovery = outcome.passed_after.iter();
        let end = recovery
            .clone()
            .position(|name| name.starts_with(RECOVERED));
        let recovery: Vec<String> = recovery
            .take(end.map_or(0, |end| end + 1))
            .cloned()
            .collect();
        for point in numbered(&recovery) {
            self.recoveries
                .entry(point.clone())
                .or_insert_with(|| Plan {
                    kill_again: Some(point),
                    ..plan.clone()
                });
        }
    }

    /// The figures, and whether nothing is wrong.
    fn end(self, what: &str) {
        tell(&format!(
            "killpoints, {what}: {} points tried, {} kills, {} not reached, {} losses\n",
            self.done,
            self.deaths,
            self.unreached.len(),
            self.failures.len()
        ));
        for point in &self.unreached {
            tell(&format!("  not reached: {point}\n"));
        }
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n\n"));
    }
}

/// Gives each pass its number among those of the same name.
fn numbered(passed: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
    let mut all: Vec<String> = Vec::new();
    for name in passed {
        let count = counts.entry(name).or_default();
        *count += 1;
        all.push(format!("{name}#{count}"));
    }
    all
}

fn told(plan: &Plan) -> String {
    let mut text = plan.kill.clone().unwrap_or_default();
    if let Some(again) = &plan.kill_again {
        text.push_str(", then ");
        text.push_str(again);
    }
    if plan.apart {
        text.push_str(", on two file systems");
    }
    text
}

fn replay(plan: &Plan) -> String {
    let mut line = format!(
        "tests/killpoints --at '{}'",
        plan.kill.as_deref().unwrap_or_default()
    );
    if let Some(again) = &plan.kill_again {
        line.push_str(&format!(" --then '{again}'"));
    }
    if plan.apart {
        line.push_str(" --apart");
    }
    line
}

/// Writes past the capturing of the test runner: the figures are the result.
fn tell(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[test]
fn release_builds_have_no_such_points() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/core/src/kill_point.rs");
    let dir = tempfile::tempdir().expect("directory");
    let compiled = |assertions: &str| {
        let target = dir.path().join(assertions);
        let status = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
            .args([
                "--edition=2024",
                "--crate-type=lib",
                "--crate-name=kill_point",
            ])
            .args(["--emit=asm", "-Copt-level=3", "-Ccodegen-units=1"])
            .arg(format!("-Cdebug-assertions={assertions}"))
            .arg("-o")
            .args([&target, &source])
            .status();
        assert!(status.expect("rustc").success());
        fs::read_to_string(target).expect("assembly")
    };
    // Neither the hook nor a function that would ask for it; and nothing can install one, since
    // there is no function for that either.
    assert!(compiled("on").contains("HOOK"));
    let release = compiled("off");
    for word in ["HOOK", "install", "call"] {
        assert!(!release.contains(word), "{word} in:\n{release}");
    }
}

/// Tells whether there is something to kill.
fn can_run() -> bool {
    let built = if cfg!(debug_assertions) {
        Need::Fuse
    } else {
        Need::Unmet("a debug build, which has points to be killed at")
    };
    needs::met(&[built, Need::Fuse])
}

#[test]
fn killed_at_some_points() {
    if !can_run() {
        return;
    }
    let sweep = Sweep::new();
    let seed = number("ONEDRIVEFS_KILLPOINTS_SEED").unwrap_or(1);
    let count = number("ONEDRIVEFS_KILLPOINTS_COUNT").unwrap_or(COUNT);
    println!("ONEDRIVEFS_KILLPOINTS_SEED={seed} ONEDRIVEFS_KILLPOINTS_COUNT={count}");
    // Spread evenly, beginning anywhere.
    let all = sweep.plans.len() as u64;
    let first = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % all;
    let plans: Vec<Plan> = (0..count.min(all))
        .map(|n| (first + n * all / count.min(all)) % all)
        .map(|at| sweep.plans[usize::try_from(at).expect("index")].clone())
        .collect();
    Sweep::run(&plans).end("some points");
}

/// The long form: goes on after failures, and tells all of them at the end.
#[test]
#[ignore = "takes an hour; run by tests/killpoints"]
fn killed_at_all_points() {
    if !can_run() {
        return;
    }
    let sweep = Sweep::new();
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(point) = text("ONEDRIVEFS_KILLPOINTS_AT") {
        let plan = Plan {
            kill: Some(point),
            kill_again: text("ONEDRIVEFS_KILLPOINTS_THEN"),
            apart: text("ONEDRIVEFS_KILLPOINTS_APART").is_some(),
        };
        Sweep::run(&[plan]).end("one point");
        return;
    }
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    for plan in &sweep.plans {
        let name = plan.kill.as_deref().unwrap_or_default();
        *names
            .entry(name.rsplit_once('#').map_or(name, |n| n.0))
            .or_default() += 1;
    }
    for (name, count) in &names {
        tell(&format!("  {count} x {name}\n"));
    }
    tell(&format!(
        "{} points of {} names\n",
        sweep.plans.len(),
        names.len()
    ));
    let all = sweep.plans.len();
    let bound = |name: &str, other: usize| {
        number(name).map_or(other, |n| usize::try_from(n).expect("index").min(all))
    };
    let from = bound("ONEDRIVEFS_KILLPOINTS_FROM", 1).max(1);
    let to = bound("ONEDRIVEFS_KILLPOINTS_TO", all).max(from);
    let mut found = Sweep::run(&sweep.plans[from - 1..to]);
    let recoveries: Vec<Plan> = std::mem::take(&mut found.recoveries)
        .into_values()
        .collect();
    tell(&format!("{} points of recoveries\n", recoveries.len()));
    let again = Sweep::run(&recoveries);
    let both = panic::catch_unwind(AssertUnwindSafe(|| found.end("while it serves")));
    again.end("while it recovers");
    both.unwrap_or_else(|panic| panic::resume_unwind(panic));
}
