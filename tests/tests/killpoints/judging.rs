//! What has to hold when a story has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::rig::{KERNEL_LIMIT, Rig, ids};
use crate::tree;

/// Versions that a file may have more for each death: half of what was being written is what a
/// local disk would hold, too, and is sent, with a time of its own.
const VERSIONS_MORE: usize = 2;

impl Rig<'_> {
    /// The comparison at the end.
    pub fn compare(&mut self, ids: &BTreeMap<String, String>) -> Result<(), String> {
        let unlike = self.unlike_here();
        if !unlike.is_empty() {
            return Err(format!("the mount differs:\n{}", unlike.join("\n")));
        }
        let there = (self.story().there)(self.home.service)?;
        let mut wanted = self.model.tree.clone();
        wanted.retain(|path, _| !self.story().stays.contains(&path.as_str()));
        let unlike = tree::differences(&there, &wanted);
        if !unlike.is_empty() {
            return Err(format!("the service differs:\n{}", unlike.join("\n")));
        }
        self.check_identities(ids)?;
        self.check_versions()?;
        self.check_nothing_left()?;
        self.check_exports()?;
        (self.story().check)(self.home)
    }

    pub fn unlike_here(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let unlike = match tree::of_mount(&self.root(), &|_| true) {
                Ok(here) => tree::differences(&here, &self.model.tree),
                Err(error) => vec![error.to_string()],
            };
            if unlike.is_empty() || start.elapsed() > KERNEL_LIMIT {
                return unlike;
            }
        }
    }

    /// Saves and renames keep the identity on the service.
    fn check_identities(&self, before: &BTreeMap<String, String>) -> Result<(), String> {
        let now = ids(&self.drive);
        for (path, from) in self.story().same {
            if now.get(*path) != before.get(*from) && !self.made_late.contains(path) {
                return Err(format!("{path} is not the item that {from} was"));
            }
        }
        Ok(())
    }

    /// Nothing waits, nothing is parked, there is no conflict but the one that was provoked, the
    /// spool is empty, and no upload session was left half-done.
    fn check_nothing_left(&mut self) -> Result<(), String> {
        let status = self.status().ok_or("no answer to `status`")?;
        let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
        if status["pending"]["ops"] != 0 || count("parked") > 0 {
            return Err(format!("something still waits: {status}"));
        }
        if count("conflicts") != self.story().conflicts {
            return Err(format!("other conflicts than provoked: {status}"));
        }
        let pins = status["pins"]["paths"].as_array().into_iter().flatten();
        let pins: BTreeSet<&str> = pins.filter_map(Value::as_str).collect();
        if pins != self.model.pins {
            return Err(format!("other pins than asked for: {status}"));
        }
        let spool = self.home.account_state();
        let left = files_in_spool(&spool);
        if left.len() != self.story().stays.len() {
            return Err(format!("other files in the spool than stay: {left:?}"));
        }
        let sessions = self.home.service.sessions();
        let half = sessions.as_array().into_iter().flatten();
        let half: Vec<_> = half.filter(|row| row["received"] != 0).collect();
        if !half.is_empty() {
            return Err(format!("upload sessions were left: {half:?}"));
        }
        Ok(())
    }

    /// Nothing was sent more often than can be explained: what was there at first, what was saved,
    /// the time of a body that could not carry it along, and what a death adds.
    fn check_versions(&self) -> Result<(), String> {
        for entry in self.drive.dump().iter().filter(|entry| !entry.folder) {
            let path = entry.path.trim_start_matches('/');
            let saves = self.model.saves.get(path).copied().unwrap_or(1);
            let most = 2 + saves + VERSIONS_MORE * self.dead.len();
            if entry.versions > most {
                let versions = entry.versions;
                return Err(format!("{path} has {versions} versions, {most} at most"));
            }
        }
        Ok(())
    }

    /// What was exported is outside of the mount, and nothing else.
    fn check_exports(&self) -> Result<(), String> {
        let entries = fs::read_dir(self.home.work()).map_err(|error| error.to_string())?;
        let mut is = BTreeMap::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            is.insert(name, fs::read(entry.path()).unwrap_or_default());
        }
        let names = |exports: &BTreeMap<String, Vec<u8>>| format!("{:?}", exports.keys());
        if is == self.model.exports {
            return Ok(());
        }
        let (is, wanted) = (names(&is), names(&self.model.exports));
        Err(format!("exported is {is}, should be {wanted}"))
    }
}

/// Body files in the spools of all drives below an account's state.
fn files_in_spool(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = fs::read_dir(state)
        .into_iter()
        .flatten()
        .flatten()
        .map(|drive| drive.path().join("spool"))
        .collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found
}
