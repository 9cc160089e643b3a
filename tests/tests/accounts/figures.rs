//! What a process costs, as the kernel tells it.

use std::fs;

/// Figures of one process at one moment.
pub(crate) struct Figures {
    /// Clock ticks it ran for.
    pub(crate) ticks: u64,
    /// Bytes it has in memory.
    pub(crate) bytes: u64,
    /// Those of them that no other process has.
    pub(crate) own_bytes: u64,
    /// How often a thread of it began to run after it had waited.
    pub(crate) wake_ups: u64,
    /// Its threads.
    pub(crate) threads: usize,
}

impl Figures {
    /// Those of a process now.
    pub(crate) fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        let tasks = tasks(pid);
        let woken = |task: &String| field(&format!("{task}/status"), "voluntary_ctxt_switches:");
        let memory = format!("/proc/{pid}/smaps_rollup");
        Self {
            ticks: ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0),
            bytes: field(&memory, "Rss:") << 10,
            own_bytes: (field(&memory, "Private_Dirty:") + field(&memory, "Private_Clean:")) << 10,
            wake_ups: tasks.iter().map(woken).sum(),
            threads: tasks.len(),
        }
    }
}

/// A number behind a word at the beginning of a line.
fn field(file: &str, word: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

fn tasks(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let paths = tasks.into_iter().flatten().flatten();
    paths
        .map(|task| task.path().display().to_string())
        .collect()
}

/// The processes that a process started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let lists = tasks(pid).into_iter();
    let lists = lists.filter_map(|task| fs::read_to_string(format!("{task}/children")).ok());
    let all: String = lists.collect::<Vec<_>>().join(" ");
    all.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}
