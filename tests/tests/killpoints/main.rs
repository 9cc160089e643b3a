//! Nothing is ever lost: stories that touch every transition of journal, spool, upload and of the state
//! as a whole, played again and again with the daemon killed at one transition after the other, also
//! while it recovers from having been killed. What is there afterwards must be what was acknowledged,
//! on this machine and on the service, with nothing twice and nothing left over.
//!
//! A point is named by what happens and the line of code where, and counted: `NAME#2` is the second
//! pass. Debug builds only; release builds have no such points. Every point that the sources declare
//! is passed by some story ([`declared`]).
//!
//! `ONEDRIVEFS_KILLPOINTS_COUNT` (how many points) and `ONEDRIVEFS_KILLPOINTS_SEED` (which) choose
//! for the short form. `tests/killpoints` is the long form: all of them, some, or a single one.

mod act;
mod declared;
mod doing;
mod judging;
mod model;
mod rig;
mod stories;
mod sweep;
#[path = "../model/sys.rs"]
mod sys;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;

use onedrivefs_tests::{Need, needs};
use rig::Plan;
use stories::Story;
use sweep::Sweep;

/// Points of the short form.
const COUNT: u64 = 10;

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

/// How often all stories are played in peace until every point was passed: some are only passed when
/// something happens while something else is on its way, which a busy machine can miss.
const CHANCES: usize = 2;

/// Plays all stories in peace, and expects them to pass every point that there is.
fn sweep() -> Sweep {
    let mut sweep = Sweep::new(stories::ALL);
    for _ in 1..CHANCES {
        let unpassed = sweep.unpassed();
        if unpassed.is_empty() {
            return sweep;
        }
        tell(&format!("missed: {}\n", unpassed.join(", ")));
        sweep.passed.extend(Sweep::new(stories::ALL).passed);
    }
    let unpassed = sweep.unpassed();
    assert!(
        unpassed.is_empty(),
        "no story passes:\n  {}",
        unpassed.join("\n  ")
    );
    sweep
}

#[test]
fn killed_at_some_points() {
    if !can_run() {
        return;
    }
    let sweep = sweep();
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
#[ignore = "takes hours; run by tests/killpoints"]
fn killed_at_all_points() {
    if !can_run() {
        return;
    }
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let story = text("ONEDRIVEFS_KILLPOINTS_STORY");
    if let Some(point) = text("ONEDRIVEFS_KILLPOINTS_AT") {
        let plan = Plan {
            story: Story::named(story.as_deref().unwrap_or("work")),
            kill: Some(point),
            kill_again: text("ONEDRIVEFS_KILLPOINTS_THEN"),
            apart: text("ONEDRIVEFS_KILLPOINTS_APART").is_some(),
        };
        Sweep::run(&[plan]).end("one point");
        return;
    }
    let mut plans = match story {
        None => sweep().plans,
        Some(name) => Sweep::new(&[Story::named(&name)]).plans,
    };
    let once = text("ONEDRIVEFS_KILLPOINTS_ONCE").is_some();
    if once {
        plans.retain(|plan| plan.kill.as_ref().is_some_and(|kill| kill.ends_with("#1")));
    }
    tell_names(&plans);
    let all = plans.len();
    let bound = |name: &str, other: usize| {
        number(name).map_or(other, |n| usize::try_from(n).expect("index").min(all))
    };
    let from = bound("ONEDRIVEFS_KILLPOINTS_FROM", 1).max(1);
    let to = bound("ONEDRIVEFS_KILLPOINTS_TO", all).max(from);
    let mut found = Sweep::run(&plans[from - 1..to]);
    let mut recoveries: Vec<Plan> = std::mem::take(&mut found.recoveries)
        .into_values()
        .collect();
    if once {
        let first = |plan: &Plan| plan.kill_again.as_ref().map(|kill| kill.ends_with("#1"));
        recoveries.retain(|plan| first(plan) == Some(true));
    }
    tell(&format!("{} points of recoveries\n", recoveries.len()));
    let again = Sweep::run(&recoveries);
    let both = panic::catch_unwind(AssertUnwindSafe(|| found.end("while it serves")));
    again.end("while it recovers");
    both.unwrap_or_else(|panic| panic::resume_unwind(panic));
}

/// Tells how often each name is passed.
fn tell_names(plans: &[Plan]) {
    let mut names: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for plan in plans {
        let name = plan.kill.as_deref().unwrap_or_default();
        let name = name.rsplit_once('#').map_or(name, |n| n.0);
        *names.entry((plan.story.name, name)).or_default() += 1;
    }
    for ((story, name), count) in &names {
        tell(&format!("  {story}: {count} x {name}\n"));
    }
    tell(&format!(
        "{} points of {} names\n",
        plans.len(),
        names.len()
    ));
}
