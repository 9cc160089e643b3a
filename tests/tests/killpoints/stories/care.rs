//! What people ask for: files that are kept here, and changes that the service refuses.

use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_tests::Service;
use serde_json::Value;

use super::{Story, put_all};
use crate::act::{Act, Body, at, elsewhere, make, nothing, rewrite};
use crate::tree::Tree;

pub const STORY: Story = Story {
    name: "care",
    seed,
    acts,
    same: &[
        ("trip/changed.txt", "trip/changed.txt"),
        ("given-up.txt", "given-up.txt"),
        ("again.txt", "again.txt"),
        ("taken-back.txt", "taken-back.txt"),
        ("new-name.txt", "old-name.txt"),
    ],
    ..Story::PLAIN
};

const SEED: &[(&str, Body)] = &[
    ("trip/changed.txt", Body(1, 3_000)),
    ("trip/deep/large.bin", Body(2, 900_000)),
    ("single.txt", Body(3, 2_000)),
    ("freed.bin", Body(4, 500_000)),
    ("given-up.txt", Body(5, 1_000)),
    ("again.txt", Body(6, 1_100)),
    ("taken-back.txt", Body(7, 1_200)),
    ("gone.txt", Body(8, 1_300)),
    ("old-name.txt", Body(9, 1_400)),
];

/// Changes that wait for a person as soon as the service has refused them. A move that may have been
/// made by a daemon that died is tried for a while.
const REFUSED: [&str; 5] = [
    "given-up.txt",
    "again.txt",
    "taken-back.txt",
    "gone.txt",
    "dir",
];

fn seed(service: &Service) -> Tree {
    put_all(&service.default_drive(), SEED)
}

fn acts() -> Vec<Act> {
    [vec![Act::Sync], pins(), refused(), by_a_person()].concat()
}

/// Files that are kept here.
fn pins() -> Vec<Act> {
    vec![
        Act::Command("pin", "trip", nothing),
        Act::Until("all that is pinned is here", is_here),
        Act::There(
            "a pinned file changed, one new",
            |drive| {
                let put = drive.put("trip/changed.txt", Body(20, 3_100).make());
                put.expect("changed");
                let put = drive.put("trip/deep/new.txt", Body(21, 700).make());
                put.expect("new");
            },
            || {
                vec![
                    at("trip/changed.txt", Some(elsewhere(Body(20, 3_100)))),
                    at("trip/deep/new.txt", Some(elsewhere(Body(21, 700)))),
                ]
            },
        ),
        Act::Sync,
        Act::Until("all that is pinned is here", is_here),
        Act::Command("pin", "single.txt", nothing),
        Act::Until("all that is pinned is here", is_here),
        Act::Command("unpin", "single.txt", nothing),
        Act::Read("freed.bin", 0, 500_000),
        Act::Command("evict", "freed.bin", nothing),
        Act::Command("evict", "single.txt", nothing),
    ]
}

fn is_here(status: &Value, _: &Service) -> bool {
    status["pins"]["to_fetch"]["files"] == 0
}

/// Changes that the service refuses.
fn refused() -> Vec<Act> {
    let mut acts = vec![Act::Elsewhere("all changes are refused", refuse, nothing)];
    acts.extend(rewrite("given-up.txt", Body(30, 2_000)));
    acts.extend(rewrite("again.txt", Body(31, 2_100)));
    acts.extend([
        Act::Unlink("taken-back.txt"),
        Act::Unlink("gone.txt"),
        Act::Rename("old-name.txt", "new-name.txt"),
        Act::Mkdir("dir"),
    ]);
    acts.extend(make("dir/inner.txt", Body(32, 600)));
    acts.push(Act::Until("all is refused", |status, _| {
        let parked = status["parked"].as_array().into_iter().flatten();
        let paths: Vec<_> = parked.filter_map(|one| one["path"].as_str()).collect();
        REFUSED.iter().all(|path| paths.contains(path))
    }));
    acts
}

fn refuse(service: &Service) {
    for op in ["create_session", "put_content", "mkdir", "patch", "delete"] {
        let refused = FaultRule::on(op, FaultAction::status(403));
        service.faults().add(refused);
    }
}

/// What a person does about that.
fn by_a_person() -> Vec<Act> {
    vec![
        Act::Export("given-up.txt"),
        Act::Command("discard", "given-up.txt", || {
            vec![at("given-up.txt", Some(elsewhere(Body(5, 1_000))))]
        }),
        Act::Command("discard", "taken-back.txt", || {
            vec![at("taken-back.txt", Some(elsewhere(Body(7, 1_200))))]
        }),
        Act::Elsewhere(
            "changes are accepted",
            |service| service.faults().clear(),
            nothing,
        ),
        Act::Command("retry", "again.txt", nothing),
        Act::Command("retry", "", nothing),
        Act::Sync,
    ]
}
