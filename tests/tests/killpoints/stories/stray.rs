//! Files that are not as the database says: a body that it does not know, and one with more in it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use onedrivefs_tests::{Home, Service};

use super::{RECOVERED, Story, put_all, state_dir};
use crate::act::{Act, Body, How, make, ours};
use crate::model::Model;
use crate::tree::{Node, Tree};

pub const STORY: Story = Story {
    name: "stray",
    seed,
    before,
    between,
    acts,
    same: &[("doc.txt", "doc.txt")],
    conflicts: 1,
    check,
    ..Story::PLAIN
};

const DOC: Body = Body(1, 3_000);
const SEED: &[(&str, Body)] = &[("doc.txt", DOC)];

/// The number of the body.
const STRAY: u64 = 0x7777;

fn seed(service: &Service) -> Tree {
    put_all(&service.default_drive(), SEED)
}

fn before() -> Vec<Act> {
    let mut acts = vec![Act::Sync, Act::Read("doc.txt", 0, DOC.1)];
    acts.extend(make("sent.txt", Body(10, 500)));
    acts.push(Act::Sync);
    acts
}

fn between(home: &Home<'_>, model: &mut Model) {
    let folder = state_dir(home).join("spool").join("77");
    fs::create_dir_all(&folder).expect("folder of the spool");
    let body = Body(11, 200_000);
    fs::write(folder.join(format!("{STRAY:016x}")), body.make()).expect("body");
    model.tree.insert(RECOVERED.to_owned(), Node::Folder);
    let path = format!("{RECOVERED}/unsent file {STRAY}");
    model.tree.insert(path, ours(body));
    assert!(lengthen(&home.path("cache")), "nothing is cached");
}

/// Adds bytes to the cached body of a file.
fn lengthen(dir: &Path) -> bool {
    let mut found = false;
    for entry in fs::read_dir(dir).expect("cache").flatten() {
        let file = entry.metadata().expect("entry");
        if file.is_dir() {
            found |= lengthen(&entry.path());
        } else if file.len() == DOC.1 as u64 {
            let mut body = File::options()
                .append(true)
                .open(entry.path())
                .expect("body");
            body.write_all(b"more").expect("written");
            found = true;
        }
    }
    found
}

fn acts() -> Vec<Act> {
    vec![
        Act::Read("doc.txt", 0, DOC.1),
        Act::Open(1, "doc.txt", How::Append),
        Act::Append(1, Body(12, 100)),
        Act::Close(1),
        Act::Sync,
    ]
}

/// Nothing is left of what was set aside.
fn check(home: &Home<'_>) -> Result<(), String> {
    match super::set_aside(home) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("set aside and left: {left:?}")),
    }
}
