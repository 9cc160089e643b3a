//! What a run has done, told at its end.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Figures by name, over all tests of the process.
static FIGURES: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Adds to a figure.
pub fn add(what: &str, count: u64) {
    let mut figures = FIGURES.lock().unwrap_or_else(|broken| broken.into_inner());
    *figures.entry(what.to_owned()).or_default() += count;
}

/// A figure.
pub fn get(what: &str) -> u64 {
    let figures = FIGURES.lock().unwrap_or_else(|broken| broken.into_inner());
    figures.get(what).copied().unwrap_or(0)
}

/// All figures so far, one line each.
pub fn summary() -> String {
    let figures = FIGURES.lock().unwrap_or_else(|broken| broken.into_inner());
    let lines = figures
        .iter()
        .map(|(what, count)| format!("  {what}: {count}\n"));
    lines.collect()
}
