//! Nothing is ever lost: random histories of system calls on the real mount, with the daemon
//! killed at random instants, with everything going wrong on the way to the service, and with a
//! second client that changes the same files. At the end of each history, once nothing goes wrong
//! any more, the mount, the service and a model must hold the same, byte for byte.
//!
//! `ONEDRIVEFS_MODEL_SEED` (first seed, decimal or 0x…) and `ONEDRIVEFS_MODEL_HISTORIES` (how many
//! per test) replay a failure; each prints the command. Histories mostly wait, so several are played
//! side by side, each on a mount and a service of its own: `ONEDRIVEFS_MODEL_LANES`.
//! `ONEDRIVEFS_MODEL_LOG=DIR` keeps the logs of those that failed, `ONEDRIVEFS_MODEL_TRACE=1` tells
//! what one client did in all of them. `tests/model` is the long form.

mod chaos;
mod counts;
mod disk;
mod exact;
mod names;
mod plan;
mod rig;
mod rng;
mod sys;
mod two;

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use chaos::Chaos;
use exact::{Exact, Perils};
use onedrivefs_tests::{Home, Need, Service, needs};
use rig::Rig;
use two::Two;

/// Seed of the first history unless another is given.
const FIRST_SEED: u64 = 1;

/// Histories that share a mount and a service.
const BATCH: u64 = 10;

/// Batches that are played at the same time unless another number is given.
const LANES: u64 = 4;

/// Lifetime of upload sessions where some get lost, in seconds: a quarter of an hour on the real
/// service, which no test can wait for.
const SESSION_TTL_S: i64 = 2;

/// Runs histories in batches. None is begun after one has failed.
fn histories(test: &str, count: u64, perils: Perils) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let first = number("ONEDRIVEFS_MODEL_SEED").unwrap_or(FIRST_SEED);
    let end = first + number("ONEDRIVEFS_MODEL_HISTORIES").unwrap_or(count);
    let next = AtomicU64::new(first);
    let failures = in_lanes(|failures| {
        let seed = next.fetch_add(BATCH, Ordering::Relaxed);
        (seed < end && failures == 0).then(|| (test, seed..end.min(seed + BATCH), perils))
    });
    // Past the capturing of the test runner: the figures are the result.
    let told = format!("model, after {test}:\n{}", counts::summary());
    drop(io::stderr().write_all(told.as_bytes()));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Plays batches side by side until `next`, which is told how many have failed, gives no more.
/// Returns the failures.
fn in_lanes<'t>(
    next: impl Fn(usize) -> Option<(&'t str, Range<u64>, Perils)> + Sync,
) -> Vec<String> {
    let failures = Mutex::new(Vec::new());
    let lane = || {
        loop {
            let failed = failures.lock().expect("failures").len();
            let Some((test, seeds, perils)) = next(failed) else {
                break;
            };
            if let Err(failure) = batch(test, seeds, perils) {
                println!("FAILED: {failure}");
                failures.lock().expect("failures").push(failure);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..number("ONEDRIVEFS_MODEL_LANES").unwrap_or(LANES) {
            scope.spawn(lane);
        }
    });
    failures.into_inner().expect("failures")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// Runs some histories on one mount. An error tells which failed, and how to replay it.
fn batch(test: &str, seeds: Range<u64>, perils: Perils) -> Result<(), String> {
    let service = Service::with(|config| {
        // Otherwise nothing tells of an item that was moved into a folder and deleted with it.
        config.knobs.delta_descendant_tombstones = perils.second_client;
        if perils.kills || perils.faults {
            // The answer that begins a session may be lost, and with it the only way to end it.
            // The name is held until the session expires by itself.
            config.knobs.session_ttl_s = SESSION_TTL_S;
        }
    });
    let home = Home::signed_in(&service);
    let mut rig = Rig::new(&home, 30);
    for seed in seeds {
        println!("history {seed:#x} of {test}");
        let model = home.work().join(format!("model-{seed:x}"));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let chaos = Chaos::new(&service, seed, perils.faults);
            if perils.second_client {
                Two::run(&mut rig, seed, perils, chaos)
            } else {
                Exact::run(&mut rig, seed, model, perils, chaos)
            }
        }));
        let failure = match outcome {
            Ok(Ok(())) => {
                counts::add("histories", 1);
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "see the panic above".to_owned(),
        };
        counts::add("failed histories", 1);
        if let Some(dir) = std::env::var_os("ONEDRIVEFS_MODEL_LOG") {
            let requests = service.request_lines().join("\n");
            let log = format!("{}\n=== requests\n{requests}\n", home.logs());
            let dir = PathBuf::from(dir);
            let path = dir.join(format!("{test}-{seed:#x}.log"));
            fs::write(path, log).expect("log");
            keep_state(&home, &dir.join(format!("{test}-{seed:#x}.state")));
        }
        // A failed mount would fail once more when it is taken down.
        let ended = panic::catch_unwind(AssertUnwindSafe(|| drop(rig)));
        let at_the_end = if ended.is_ok() { "" } else { " (and its end)" };
        return Err(format!(
            "history {seed:#x}{at_the_end}: {failure}\nreplay with: ONEDRIVEFS_MODEL_SEED={seed:#x} \
             ONEDRIVEFS_MODEL_HISTORIES=1 cargo test --workspace --test model -- --exact {test} --nocapture"
        ));
    }
    rig.end();
    Ok(())
}

/// Keeps the databases of a failed history, as they are.
fn keep_state(home: &Home, to: &Path) {
    let databases = ["meta.db", "meta.db-wal"];
    let mut todo = vec![home.path("state")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                todo.push(path);
            } else if databases.iter().any(|known| name == *known) {
                fs::create_dir_all(to).expect("directory");
                fs::copy(path, to.join(name)).expect("copy");
            }
        }
    }
}

/// One client, and nothing goes wrong.
const CALM: Perils = Perils {
    kills: false,
    faults: false,
    second_client: false,
};

/// One client whose daemon is killed.
const KILLED: Perils = Perils {
    kills: true,
    ..CALM
};

/// One client, kills, and a service that fails in every way.
const FAULTY: Perils = Perils {
    faults: true,
    ..KILLED
};

/// Two clients, and nothing goes wrong.
const TWO: Perils = Perils {
    second_client: true,
    ..CALM
};

/// Everything.
const TWO_FAULTY: Perils = Perils {
    second_client: true,
    ..FAULTY
};

#[test]
fn one_client() {
    histories("one_client", 20, CALM);
}

#[test]
fn killed() {
    histories("killed", 40, KILLED);
}

#[test]
fn faulty_service() {
    histories("faulty_service", 40, FAULTY);
}

#[test]
fn two_clients() {
    histories("two_clients", 20, TWO);
}

#[test]
fn two_clients_killed_and_faulty() {
    histories("two_clients_killed_and_faulty", 200, TWO_FAULTY);
}

/// The long form: goes on after failures, and tells all of them at the end.
#[test]
#[ignore = "takes hours; run by tests/model"]
fn until_killed_often_enough() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let wanted = number("ONEDRIVEFS_MODEL_KILLS").unwrap_or(10_000);
    let first = number("ONEDRIVEFS_MODEL_SEED").unwrap_or(FIRST_SEED);
    let kinds = [
        ("killed", KILLED),
        ("faulty_service", FAULTY),
        ("two_clients_killed_and_faulty", TWO_FAULTY),
    ];
    let begun = AtomicU64::new(0);
    let failures = in_lanes(|_| {
        println!("so far:\n{}", counts::summary());
        if counts::get("kills") >= wanted {
            return None;
        }
        let turn = begun.fetch_add(1, Ordering::Relaxed);
        let (test, perils) = kinds[usize::try_from(turn).expect("small") % kinds.len()];
        let seed = first + turn * BATCH;
        Some((test, seed..seed + BATCH, perils))
    });
    println!("at the end:\n{}", counts::summary());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
