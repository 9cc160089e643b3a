//! What `fsync` acknowledged survives a power cut, and nothing comes back as garbage: the state lies
//! on a disk that loses what was not synced, as a file system would lose it, while the built binary
//! serves a real mount from it.
//!
//! `ONEDRIVEFS_POWER_SEED` (first seed, decimal or 0x…) and `ONEDRIVEFS_POWER_HISTORIES` (how many)
//! replay a failure; each prints the command. `tests/power` is the long form.

mod book;
#[path = "../model/counts.rs"]
mod counts;
mod disk;
mod disk_tests;
mod history;
mod layer;
mod layer_tests;
#[path = "../model/rng.rs"]
mod rng;
#[path = "../model/sys.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod sys;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};

use disk::MODES;
use history::{CUTS, Cache, History};
use onedrivefs_tests::{Need, Service, needs};

/// Seed of the first history unless another is given.
const FIRST_SEED: u64 = 1;

/// Histories under `cargo test`.
const HISTORIES: u64 = 3;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Plays one history. An error tells how to replay it.
fn play(seed: u64) -> Result<(), String> {
    println!("history {seed:#x}");
    let service = Service::with(|config| {
        // The answer that begins a session dies with the machine now and then, and the name is held
        // until the session expires by itself: a quarter of an hour on the real service.
        config.knobs.session_ttl_s = 2;
    });
    let cache = if seed.is_multiple_of(3) {
        Cache::Elsewhere
    } else {
        Cache::OnTheDisk
    };
    let mut told = Vec::new();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut history = History::new(&service, seed, cache);
        for cut in 0..CUTS {
            let mode = MODES[usize::try_from((seed + cut) % 3).unwrap_or(0)];
            let outcome = history.round(mode);
            told.clone_from(&history.told);
            outcome?;
        }
        Ok(())
    }));
    let failure = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(_) => "see the panic above".to_owned(),
    };
    Err(format!(
        "history {seed:#x} ({cache:?}): {failure}\nwhat was done:\n  {}\nreplay with: \
         ONEDRIVEFS_POWER_SEED={seed:#x} ONEDRIVEFS_POWER_HISTORIES=1 cargo test \
         --workspace --test power -- --exact after_a_power_cut --nocapture",
        told.join("\n  ")
    ))
}

#[test]
fn after_a_power_cut() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let first = number("ONEDRIVEFS_POWER_SEED").unwrap_or(FIRST_SEED);
    let count = number("ONEDRIVEFS_POWER_HISTORIES").unwrap_or(HISTORIES);
    for seed in first..first + count {
        if let Err(failure) = play(seed) {
            panic!("{failure}\nso far:\n{}", counts::summary());
        }
    }
    // Past the capturing of the test runner: the figures are the result.
    let told = format!("power:\n{}", counts::summary());
    drop(io::stderr().write_all(told.as_bytes()));
}

/// The long form: goes on after failures, and tells all of them at the end.
#[test]
#[ignore = "takes long; run by tests/power"]
fn until_cut_often_enough() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let wanted = number("ONEDRIVEFS_POWER_CUTS").unwrap_or(1000);
    let mut seed = number("ONEDRIVEFS_POWER_SEED").unwrap_or(FIRST_SEED);
    let mut failures = Vec::new();
    while counts::get("cuts") < wanted {
        if let Err(failure) = play(seed) {
            println!("FAILED: {failure}");
            counts::add("failed histories", 1);
            failures.push(failure);
        }
        counts::add("histories", 1);
        seed += 1;
        if seed.is_multiple_of(10) {
            println!("so far:\n{}", counts::summary());
        }
    }
    println!("in all:\n{}", counts::summary());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
