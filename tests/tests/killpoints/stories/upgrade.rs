//! A state that the first version of the program left, in which changes wait to be sent.

use std::process::Command;

use onedrivefs_sim::Reach;
use onedrivefs_tests::{Home, Need, Service};

use super::{Story, put_all, state_dir};
use crate::act::{Act, Body, How, make, rewrite};
use crate::model::Model;
use crate::tree::Tree;

pub const STORY: Story = Story {
    name: "upgrade",
    needs: &[Need::Program("sqlite3")],
    seed,
    before,
    between,
    acts,
    same: &[
        ("doc.txt", "doc.txt"),
        ("large.bin", "large.bin"),
        ("new-name.txt", "old-name.txt"),
    ],
    ..Story::PLAIN
};

const SEED: &[(&str, Body)] = &[
    ("doc.txt", Body(1, 3_000)),
    ("large.bin", Body(2, 900_000)),
    ("old-name.txt", Body(3, 1_000)),
    ("gone.txt", Body(4, 1_100)),
    ("read.txt", Body(5, 1_200)),
];

/// What later versions have added to the schema, taken away from the last to the second.
const FIRST_SCHEMA: &str = "
    DROP INDEX bodies_cached;
    DROP INDEX bodies_unsettled;
    DROP INDEX journal_parked;
    CREATE INDEX bodies_by_use ON bodies (place, used_at);
    CREATE INDEX bodies_dirty ON bodies (id) WHERE dirty = 1;
    INSERT INTO meta SELECT 'journal_seq', CAST(seq AS TEXT) FROM sqlite_sequence
      WHERE name = 'journal.seq';
    DELETE FROM sqlite_sequence WHERE name = 'journal.seq';
    DROP TABLE links;
    ALTER TABLE slots DROP COLUMN above;
    DROP TABLE slots;
    ALTER TABLE items DROP COLUMN author;
    DROP INDEX bodies_unsent_by_base;
    ALTER TABLE bodies DROP COLUMN copied;
    ALTER TABLE journal DROP COLUMN copy_url;
    ALTER TABLE journal DROP COLUMN copy_body;
    ALTER TABLE journal DROP COLUMN copy_generation;
    ALTER TABLE journal DROP COLUMN copy_polls;
    DROP TABLE pins;
    DROP TABLE removed_bodies;
    DROP INDEX bodies_previous;
    ALTER TABLE bodies DROP COLUMN synced;
    ALTER TABLE bodies DROP COLUMN synced_size;
    ALTER TABLE bodies DROP COLUMN synced_ranges;
    DROP INDEX journal_held;
    DROP INDEX journal_free;
    ALTER TABLE journal DROP COLUMN held;
    DROP TABLE unanswered;
    PRAGMA user_version = 1;";

fn seed(service: &Service) -> Tree {
    put_all(&service.default_drive(), SEED)
}

fn before() -> Vec<Act> {
    let mut acts = vec![
        Act::Sync,
        Act::Read("read.txt", 0, 1_200),
        Act::Offline,
        Act::Mkdir("new"),
    ];
    acts.extend(make("new/new.txt", Body(10, 4_000)));
    acts.extend(rewrite("doc.txt", Body(11, 5_000)));
    acts.extend([
        Act::Rename("old-name.txt", "new-name.txt"),
        Act::Unlink("gone.txt"),
        Act::Link("link", "doc.txt"),
        // Of which nothing else is here.
        Act::Open(1, "large.bin", How::Write),
        Act::Write(1, 500_000, Body(12, 1_000)),
        Act::Close(1),
    ]);
    acts
}

fn between(home: &Home<'_>, _: &mut Model) {
    let mut sqlite = Command::new("sqlite3");
    let sqlite = sqlite.arg("-bail").arg(state_dir(home).join("meta.db"));
    let changed = sqlite.arg(FIRST_SCHEMA).output().expect("sqlite3");
    assert!(changed.status.success(), "{changed:?}");
    home.service.set_reach(Reach::Online);
}

fn acts() -> Vec<Act> {
    let mut acts = rewrite("new/new.txt", Body(20, 3_500)).to_vec();
    acts.push(Act::Sync);
    acts.extend(make("later.txt", Body(21, 700)));
    acts.push(Act::Sync);
    acts
}
