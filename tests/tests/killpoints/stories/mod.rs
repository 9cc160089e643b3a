//! What is played. Each story is played without a kill first, and then with one at each point that was
//! passed.

mod care;
mod damaged;
mod lent;
mod passed;
mod rough;
mod stray;
mod upgrade;
mod work;

use std::fs;
use std::path::PathBuf;

use onedrivefs_sim::{DriveHandle, SimConfig};
use onedrivefs_tests::{Home, Need, Service};

use crate::act::{Act, Body, elsewhere};
use crate::model::Model;
use crate::tree::{self, Node, Tree};

/// All of them.
pub const ALL: &[&Story] = &[
    &work::STORY,
    &care::STORY,
    &rough::STORY,
    &lent::STORY,
    &passed::STORY,
    &damaged::STORY,
    &stray::STORY,
    &upgrade::STORY,
];

/// Where unsent content is found whose rows were lost.
const RECOVERED: &str = "Recovered files";

/// A course of events.
pub struct Story {
    pub name: &'static str,
    /// What it needs of the machine.
    pub needs: &'static [Need],
    /// What the service is like.
    pub config: fn(&mut SimConfig),
    /// Puts what is there at the beginning on the service, and tells how the mount shows it.
    pub seed: fn(&Service) -> Tree,
    /// What a daemon has done that nobody kills, and that was stopped then.
    pub before: fn() -> Vec<Act>,
    /// What happens to the state that it left, and what has to be there afterwards.
    pub between: fn(&Home<'_>, &mut Model),
    /// What is done while the daemon may die.
    pub acts: fn() -> Vec<Act>,
    /// Files that keep their identity on the service: where each ends, and where it began.
    pub same: &'static [(&'static str, &'static str)],
    /// Conflicts that `status` names in the end.
    pub conflicts: usize,
    /// Files that never leave this machine.
    pub stays: &'static [&'static str],
    /// What the service has, as the mount shows it.
    pub there: fn(&Service) -> Result<Tree, String>,
    /// What else has to hold in the end.
    pub check: fn(&Home<'_>) -> Result<(), String>,
    /// Whether to play it also with spool and cache on two file systems.
    pub apart: bool,
}

impl Story {
    /// One in which nothing happens.
    const PLAIN: Self = Self {
        name: "",
        needs: &[],
        config: |_| {},
        seed: |_| Tree::new(),
        before: Vec::new,
        between: |_, _| {},
        acts: Vec::new,
        same: &[],
        conflicts: 0,
        stays: &[],
        there: |service| tree::of_service(&service.default_drive()),
        check: |_| Ok(()),
        apart: false,
    };

    /// The one of a name.
    pub fn named(name: &str) -> &'static Self {
        let found = ALL.iter().find(|story| story.name == name);
        found.unwrap_or_else(|| panic!("there is no story {name}"))
    }
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Puts files on a drive, and tells how the mount shows them and the folders they are in.
fn put_all(drive: &DriveHandle, files: &[(&str, Body)]) -> Tree {
    let mut tree = Tree::new();
    for (path, body) in files {
        drive.put(path, body.make()).expect("seeded");
        tree.insert((*path).to_owned(), elsewhere(*body));
        for (at, _) in path.match_indices('/') {
            tree.insert(path[..at].to_owned(), Node::Folder);
        }
    }
    tree
}

/// The directory of the state of the drive that is mounted.
fn state_dir(home: &Home<'_>) -> PathBuf {
    let dirs = fs::read_dir(home.account_state()).expect("account");
    let mut dirs = dirs.flatten().map(|entry| entry.path());
    let found = dirs.find(|path| path.join("lock").exists());
    found.expect("state of the drive")
}

/// What was set aside of a state and is still there.
fn set_aside(home: &Home<'_>) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir(home)).expect("state").flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("meta.db.damaged-") || name.starts_with("spool.unknown-")
    });
    named.map(|entry| entry.path()).collect()
}
