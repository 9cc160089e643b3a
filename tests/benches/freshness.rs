//! How soon a change made elsewhere shows here, and what a mount costs while nothing happens.
//!
//! ```text
//! cargo bench --workspace --bench freshness -- [CHANGES] [IDLE_SECONDS]
//! ```
//!
//! Needs `cargo build --release -p onedrivefs` first, or `ONEDRIVEFS_TEST_BIN_DIR`. The service is
//! simulated, on loopback, and announces changes at once: what is measured is our own part.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};

/// Longest time for a change to show.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two looks at the mount.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Longest pause between two changes: people and programs do not wait for one to show.
const PAUSE_MAX_MS: u64 = 2000;

/// What is done elsewhere.
const KINDS: [&str; 4] = ["new", "changed", "renamed", "deleted"];

fn main() {
    // `cargo bench` adds an option of its own.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let changes = numbers.next().unwrap_or(200);
    let idle = numbers.next().unwrap_or(120);
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..changes {
        drive.put(&format!("/d/{number}"), "before").expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec {
        limit: Duration::from_secs(60 + idle + changes * 10),
        ..MountSpec::default()
    });
    mount.sync();
    wait::until("a channel for announcements", LIMIT, || {
        mount.status()["push"] == true
    });
    delays(&mount, &drive, changes);
    at_rest(&mount, &service, idle);
    mount.unmount();
}

/// Makes changes one after the other and prints how long each kind took to show.
fn delays(mount: &Mount<'_>, drive: &DriveHandle, changes: u64) {
    let seed = u64::from(std::process::id());
    println!("changes: {changes}, seed {seed}");
    let mut random = seed;
    let mut by_kind: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for number in 0..changes {
        // Whatever the kernel is to forget, it knows now.
        let old = format!("d/{number}");
        let new = format!("d/other {number}");
        fs::read(mount.at(&old)).expect("read");
        assert!(!mount.at(&new).exists());
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_millis((random >> 33) % PAUSE_MAX_MS));
        let kind = KINDS[usize::try_from(number).expect("small") % KINDS.len()];
        let (from, to) = (format!("/{old}"), format!("/{new}"));
        match kind {
            "new" => drop(drive.put(&to, "new").expect("file")),
            "changed" => drop(drive.put(&from, "after!").expect("file")),
            "renamed" => drive.rename(&from, &to).expect("rename"),
            _ => drive.delete(&from).expect("deletion"),
        }
        let made = Instant::now();
        let shows = || match kind {
            "changed" => fs::read(mount.at(&old)).is_ok_and(|bytes| bytes == b"after!"),
            "deleted" => !mount.at(&old).exists(),
            _ => mount.at(&new).exists(),
        };
        while !shows() {
            assert!(made.elapsed() < LIMIT, "{kind} {number} does not show");
            std::thread::sleep(LOOK_EVERY);
        }
        by_kind.entry(kind).or_default().push(made.elapsed());
    }
    let all: Vec<Duration> = by_kind.values().flatten().copied().collect();
    for (kind, mut took) in by_kind.into_iter().chain([("all", all)]) {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        println!(
            "{kind:>8}: {:3} changes, visible after p50 {:4} ms, p99 {:4} ms, at most {:4} ms",
            took.len(),
            at(50).as_millis(),
            at(99).as_millis(),
            at(100).as_millis(),
        );
    }
}

/// Leaves the mount alone and prints what it does meanwhile.
fn at_rest(mount: &Mount<'_>, service: &Service, seconds: u64) {
    // What the last change brought with it is over by then.
    std::thread::sleep(wait::secs(20));
    let requests = service.last_request();
    let before = Usage::of(mount);
    std::thread::sleep(wait::secs(seconds));
    let after = Usage::of(mount);
    let made = service.last_request() - requests;
    println!(
        "at rest for {seconds} s: {made} requests, {} wake-ups of threads, {} bytes written, {} ms \
         of processor time",
        after.wakeups - before.wakeups,
        after.written - before.written,
        (after.ticks - before.ticks) * 1000 / TICKS_PER_SECOND,
    );
    for (thread, count) in &after.by_thread {
        let woken = count - before.by_thread.get(thread).unwrap_or(&0);
        if woken > 0 {
            println!("    {thread}: {woken}");
        }
    }
}

/// Unit of processor time in `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used so far.
struct Usage {
    /// How often its threads went to sleep by themselves, hence were woken.
    wakeups: u64,
    by_thread: BTreeMap<String, u64>,
    /// Bytes caused to be written to disks.
    written: u64,
    ticks: u64,
}

impl Usage {
    fn of(mount: &Mount<'_>) -> Self {
        let proc = format!("/proc/{}", mount.pid());
        let mut by_thread = BTreeMap::new();
        for entry in fs::read_dir(format!("{proc}/task")).expect("threads") {
            let path = entry.expect("thread").path();
            // A thread may end while it is looked at.
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let name = field(&status, "Name:").unwrap_or("gone").to_owned();
            let count = field(&status, "voluntary_ctxt_switches:");
            let count = count.and_then(|text| text.parse().ok()).unwrap_or(0);
            let id = path.file_name().unwrap_or_default().to_string_lossy();
            by_thread.insert(format!("{name} {id}"), count);
        }
        let io = fs::read_to_string(format!("{proc}/io")).expect("io");
        let stat = fs::read_to_string(format!("{proc}/stat")).expect("stat");
        let times = stat.rsplit(") ").next().unwrap_or_default();
        let times = times.split(' ').skip(11).take(2);
        Self {
            wakeups: by_thread.values().sum(),
            by_thread,
            written: field(&io, "write_bytes:")
                .and_then(|text| text.parse().ok())
                .expect("write_bytes"),
            ticks: times.filter_map(|text| text.parse::<u64>().ok()).sum(),
        }
    }
}

/// The value of a line in a file of `/proc`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(str::trim)
}
