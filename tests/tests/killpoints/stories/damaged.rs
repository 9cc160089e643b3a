//! A database that cannot be used any more, while much waits to be sent.

use std::fs::File;
use std::os::unix::fs::FileExt;

use onedrivefs_sim::Reach;
use onedrivefs_tests::{Home, Service};

use super::{RECOVERED, Story, lent, put_all, set_aside, state_dir};
use crate::act::{Act, Body, How, at, make, ours, rewrite};
use crate::model::Model;
use crate::tree::{self, Node, Tree};

pub const STORY: Story = Story {
    name: "damaged",
    seed,
    before,
    between,
    acts,
    same: &[
        ("docs/old.txt", "docs/old.txt"),
        ("docs/large.bin", "docs/large.bin"),
        ("gone.txt", "gone.txt"),
        ("name.txt", "name.txt"),
    ],
    conflicts: 4,
    stays: &[
        "Recovered files/docs/large.bin.parts",
        "Recovered files/docs/large.bin.parts.txt",
    ],
    there: lent::there,
    check,
    ..Story::PLAIN
};

const SEED: &[(&str, Body)] = &[
    ("docs/old.txt", Body(1, 3_000)),
    ("docs/large.bin", Body(2, 3_000_000)),
    ("gone.txt", Body(3, 900)),
    ("name.txt", Body(4, 950)),
];

/// Files in a folder of somebody else's drive.
const LENT: &[(&str, Body)] = &[("a.txt", Body(5, 1_000))];

/// What is written into a file of which nothing else is here.
const PART: Body = Body(15, 10);
const PART_AT: usize = 1_000_000;

const NOTE: &str = "The file \"large.bin\" was edited on this computer, and the changes had not \
    been uploaded when the local\ndatabase of onedrivefs was damaged. Only parts of the file were \
    on this computer. They are in\n\"large.bin.parts\", at their places; the bytes between them \
    are zeros and mean nothing.\n\nParts that are there (first byte to last byte, counted from \
    0):\n  1000000 to 1000009\n\nBoth files stay on this computer. Delete them when they are of no \
    use, or rename a file to have it\nuploaded.\n";

fn seed(service: &Service) -> Tree {
    let mut tree = put_all(&service.default_drive(), SEED);
    tree.extend(lent::lend(service, "lent", "Lent", LENT));
    tree
}

fn before() -> Vec<Act> {
    let mut acts = vec![
        Act::Sync,
        Act::Read("docs/old.txt", 0, 3_000),
        Act::Read("lent/a.txt", 0, 1_000),
        Act::Offline,
        Act::Mkdir("docs/new"),
    ];
    acts.extend(make("docs/new/new.txt", Body(10, 4_000)));
    acts.extend(rewrite("docs/old.txt", Body(11, 5_000)));
    acts.extend(make("first-name.bin", Body(12, 300_000)));
    acts.extend([
        Act::Rename("first-name.bin", "last-name.bin"),
        Act::Link("link", "docs/old.txt"),
        Act::Unlink("gone.txt"),
        Act::Rename("name.txt", "docs/name.txt"),
        Act::Open(1, "docs/large.bin", How::Write),
        Act::Write(1, PART_AT, PART),
        Act::Close(1),
    ]);
    acts.extend(make("lent/unsent.txt", Body(13, 2_000)));
    acts
}

fn between(home: &Home<'_>, model: &mut Model) {
    let database = state_dir(home).join("meta.db");
    let file = File::options().write(true).open(database);
    let file = file.expect("database");
    file.write_all_at(&[0x5a; 100], 0).expect("damaged");
    *model = Model::new(recovered());
    // All that the service has is found again, and what was not sent to another drive has its own
    // database.
    let service = home.service;
    let there = lent::there(service).expect("service");
    let found = there.into_iter().map(|(path, node)| (path, Some(node)));
    model.expect(found.chain([at("lent/unsent.txt", Some(ours(Body(13, 2_000))))]));
    service.set_reach(Reach::Online);
}

/// What was not sent, in its new place.
fn recovered() -> Tree {
    let mut part = vec![0; 3_000_000];
    part[PART_AT..PART_AT + PART.1].copy_from_slice(&PART.make());
    let file = |bytes| Node::File(tree::File::here(bytes));
    let below = [
        ("", Node::Folder),
        ("/docs", Node::Folder),
        ("/docs/new", Node::Folder),
        ("/docs/new/new.txt", ours(Body(10, 4_000))),
        ("/docs/old.txt", ours(Body(11, 5_000))),
        ("/last-name.bin", ours(Body(12, 300_000))),
        ("/link", Node::Link("docs/old.txt".to_owned())),
        ("/docs/large.bin.parts", file(part)),
        ("/docs/large.bin.parts.txt", file(NOTE.as_bytes().to_vec())),
    ];
    let named = below.map(|(path, node)| (format!("{RECOVERED}{path}"), node));
    named.into_iter().collect()
}

fn acts() -> Vec<Act> {
    let mut acts = vec![Act::Sync];
    // It can be used like any other.
    acts.extend(rewrite("docs/old.txt", Body(20, 2_500)));
    acts.extend(make("new.txt", Body(21, 800)));
    acts.push(Act::Sync);
    acts
}

/// The damaged database is kept once, and nothing beside it.
fn check(home: &Home<'_>) -> Result<(), String> {
    let kept = set_aside(home);
    let is_done = |dir: &std::path::Path| {
        dir.join("README.txt").exists()
            && dir.join("meta.db").exists()
            && !dir.join("spool").exists()
    };
    match kept.as_slice() {
        [one] if is_done(one) => Ok(()),
        _ => Err(format!("kept of the database: {kept:?}")),
    }
}
