//! All points of all stories, and runs of many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use onedrivefs_tests::needs;

use crate::rig::{self, Outcome, Plan};
use crate::stories::Story;
use crate::{declared, number, tell};

/// Runs at a time.
const THREADS: u64 = 2;

/// The last point of a recovery, and of one in which something was to be rescued.
const RECOVERED: &str = "orphans-removed";
const RESCUED: &str = "rescued-names-removed";

/// All points of all stories.
pub struct Sweep {
    pub plans: Vec<Plan>,
    /// What was passed without a kill.
    pub passed: BTreeSet<String>,
}

/// What a sweep has found.
#[derive(Default)]
pub struct Found {
    done: usize,
    deaths: usize,
    unreached: Vec<String>,
    failures: Vec<String>,
    /// For each point of a story's recoveries, a point whose kill leads there.
    pub recoveries: BTreeMap<(&'static str, String), Plan>,
}

impl Sweep {
    /// Plays stories without a kill: on one file system, and on two where that matters.
    pub fn new(stories: &[&'static Story]) -> Self {
        let stories = stories.iter().filter(|story| needs::met(story.needs));
        let calm: Vec<Plan> = stories
            .flat_map(|story| {
                let apart = story.apart.then(|| Plan::calm(story, true));
                [Plan::calm(story, false)].into_iter().chain(apart)
            })
            .collect();
        let outcomes = several(&calm, rig::run);
        let mut sweep = Self {
            plans: Vec::new(),
            passed: BTreeSet::new(),
        };
        let mut together = BTreeSet::new();
        for (plan, outcome) in calm.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|why| panic!("{}, no kill: {why}", told(plan)));
            sweep.passed.extend(outcome.passed_before);
            sweep.passed.extend(outcome.passed.iter().cloned());
            let mut passed = outcome.passed;
            if plan.apart {
                passed.retain(|name| !together.contains(name));
            } else {
                together = passed.iter().cloned().collect();
            }
            sweep
                .plans
                .extend(numbered(&passed).into_iter().map(|kill| Plan {
                    kill: Some(kill),
                    ..plan.clone()
                }));
        }
        sweep
    }

    /// The points of the sources that no story passes.
    pub fn unpassed(&self) -> Vec<String> {
        let declared = declared::points().into_iter();
        declared
            .filter(|point| !self.passed.iter().any(|passed| point.is_passed_by(passed)))
            .map(|point| point.to_string())
            .collect()
    }

    /// One run, judged.
    fn judge(plan: &Plan) -> Result<Outcome, String> {
        let played = panic::catch_unwind(AssertUnwindSafe(|| rig::run(plan)));
        played.unwrap_or_else(|_| Err("see the panic above".to_owned()))
    }

    /// Runs plans, and judges each.
    pub fn run(plans: &[Plan]) -> Found {
        let found = Mutex::new(Found::default());
        let start = Instant::now();
        several(plans, |plan| {
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
        });
        found.into_inner().expect("not poisoned")
    }
}

/// Does something with each plan, several at a time.
fn several<T: Send>(plans: &[Plan], act: impl Fn(&Plan) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let threads = number("ONEDRIVEFS_KILLPOINTS_THREADS").unwrap_or(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(at) else { break };
                    let result = act(plan);
                    done.lock().expect("not poisoned").insert(at, result);
                }
            });
        }
    });
    done.into_inner()
        .expect("not poisoned")
        .into_values()
        .collect()
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
        let mut recovery = outcome.passed_after;
        let last = |end| recovery.iter().position(|name| name.starts_with(end));
        let end = last(RESCUED).or_else(|| last(RECOVERED));
        recovery.truncate(end.map_or(0, |end| end + 1));
        for point in numbered(&recovery) {
            let key = (plan.story.name, point.clone());
            self.recoveries.entry(key).or_insert_with(|| Plan {
                kill_again: Some(point),
                ..plan.clone()
            });
        }
    }

    /// The figures, and whether nothing is wrong.
    pub fn end(self, what: &str) {
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
    let mut text = format!("{:?}", plan.story);
    if let Some(kill) = &plan.kill {
        text.push_str(": ");
        text.push_str(kill);
    }
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
    let mut line = format!("tests/killpoints --story {:?}", plan.story);
    for (option, point) in [("--at", &plan.kill), ("--then", &plan.kill_again)] {
        if let Some(point) = point {
            line.push_str(&format!(" {option} '{point}'"));
        }
    }
    if plan.apart {
        line.push_str(" --apart");
    }
    line
}
