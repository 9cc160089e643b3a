//! How things are measured and told.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The line that slow groups are measured on: round trip in milliseconds, bytes per second.
pub const LATENCY_MS: u64 = 40;
pub const LINE: u64 = 200_000_000 / 8;

/// How long whoever the kernel tells of 10,000 dropped inodes is given to work on that.
const FORGETTING: Duration = Duration::from_millis(150);

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Scale {
    pub name: &'static str,
    /// Runs of which the median is told.
    pub runs: usize,
    /// Items of a drive that is walked, and entries of a large folder.
    pub items: usize,
    /// Files in an archive.
    pub archived: usize,
    /// Size of a large file that is copied, in bytes.
    pub large: u64,
    /// Size of a large file on a slow line, in bytes.
    pub sent: u64,
    /// Items of a huge drive.
    pub million: usize,
    /// Calls in a loop of quick ones.
    pub calls: usize,
}

impl Scale {
    pub const FULL: Self = Self {
        name: "full",
        runs: 5,
        items: 10_000,
        archived: 1000,
        large: 1 << 30,
        sent: 256 << 20,
        million: 1_000_000,
        calls: 200_000,
    };
    /// Only proves that everything runs.
    pub const SHORT: Self = Self {
        name: "short",
        runs: 1,
        items: 300,
        archived: 30,
        large: 16 << 20,
        sent: 4 << 20,
        million: 3000,
        calls: 1000,
    };
}

/// Prints what the figures depend on.
pub fn tell_conditions(scale: &Scale) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name"));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{} form; kernel {}; {cores} cores{}; load {}",
        scale.name,
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or_default().trim_start_matches(['\t', ' ']),
        read("/proc/loadavg").trim(),
    );
}

/// Prints one figure.
pub fn tell(what: &str, ours: &str, others: &[(&str, String)], judged: &str) {
    let others: Vec<String> = others
        .iter()
        .map(|(who, figure)| format!("{who} {figure}"))
        .collect();
    println!(
        "{what:<44} onedrivefs {ours}; {}; {judged}",
        others.join(", ")
    );
}

/// The median time of some runs, each with what has to happen before the clock runs.
pub fn median(runs: usize, mut before: impl FnMut(), mut work: impl FnMut()) -> Duration {
    let mut took: Vec<Duration> = (0..runs.max(1))
        .map(|_| {
            before();
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// The median times of two things that are measured in turns, so that both meet the same machine.
pub fn medians(
    runs: usize,
    before: impl FnMut(),
    mut ours: impl FnMut(),
    mut theirs: impl FnMut(),
) -> [Duration; 2] {
    medians_of(runs, before, [&mut ours, &mut theirs])
}

/// As [`medians`], of any number of things.
pub fn medians_of<const N: usize>(
    runs: usize,
    mut before: impl FnMut(),
    mut works: [&mut dyn FnMut(); N],
) -> [Duration; N] {
    let mut took = [const { Vec::new() }; N];
    for _ in 0..runs.max(1) {
        for (work, took) in works.iter_mut().zip(&mut took) {
            before();
            took.push(once(work));
        }
    }
    took.map(|mut took| {
        took.sort_unstable();
        took[took.len() / 2]
    })
}

/// The time of one run.
pub fn once(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Makes the kernel forget names and attributes; with `pages`, content as well.
pub fn forget(pages: bool) {
    rustix::fs::sync();
    let what = if pages { "3" } else { "2" };
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", what) {
        // In a container, where only the short form is of use.
        eprintln!("what is called cold is not: the kernel keeps its caches ({error})");
    }
    // File systems like ours are told of every inode that was dropped, and work on that for a moment.
    thread::sleep(FORGETTING);
}

/// Runs a shell script to its end.
pub fn sh(script: &str) -> String {
    let done = Command::new("bash").args(["-euc", script]).output();
    let done = done.expect("bash");
    assert!(
        done.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A path for a shell script.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

/// A duration as people read it.
pub fn time(took: Duration) -> String {
    let micros = took.as_secs_f64() * 1e6;
    match micros {
        m if m < 1000.0 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.1} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// How often one duration goes into another.
pub fn ratio(large: Duration, small: Duration) -> f64 {
    large.as_secs_f64() / small.as_secs_f64().max(1e-9)
}

/// Bytes in a time, as a speed in MB/s.
pub fn speed(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9)
}

/// Processor time that the threads of a process have used so far.
pub fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let used = threads.flatten().filter_map(|thread| {
        let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// Memory that a process has resident now, in MiB.
pub fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
