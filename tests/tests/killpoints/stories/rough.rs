//! A service that breaks off, refuses and forgets, while others change what is being sent.

use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_tests::Service;

use super::{Story, put_all};
use crate::act::{Act, Body, How, LARGE, at, elsewhere, make, nothing, ours, rewrite};
use crate::tree::Tree;

pub const STORY: Story = Story {
    name: "rough",
    // As some drives do.
    config: |config| config.knobs.delete_if_match_fails = true,
    seed,
    acts,
    same: &[
        ("outdated.bin", "outdated.bin"),
        ("films/target.mkv", "films/target.mkv"),
    ],
    conflicts: 1,
    ..Story::PLAIN
};

const SEED: &[(&str, Body)] = &[
    ("gone.txt", Body(1, 1_000)),
    ("folder/gone.txt", Body(2, 1_100)),
    ("outdated.bin", Body(3, 1_200)),
    ("films/b.mkv", Body(4, 800_000)),
    ("films/target.mkv", Body(5, 700_000)),
];

fn seed(service: &Service) -> Tree {
    put_all(&service.default_drive(), SEED)
}

fn acts() -> Vec<Act> {
    [
        vec![Act::Sync],
        deletions(),
        broken_off(),
        outdated(),
        superseded(),
    ]
    .concat()
}

/// Has requests wait until faults are cleared.
fn hold(service: &Service, op: &str) {
    service.faults().add(FaultRule::on(op, FaultAction::Hold));
}

fn deletions() -> Vec<Act> {
    vec![
        Act::Unlink("gone.txt"),
        Act::Unlink("folder/gone.txt"),
        Act::Rmdir("folder"),
        Act::Sync,
    ]
}

/// Uploads that are gone on with, or not, after the second fragment did not arrive.
fn broken_off() -> Vec<Act> {
    let mut acts = vec![Act::Elsewhere(
        "a fragment is said to be at the wrong place",
        |service| {
            let wrong = FaultRule::on("upload_fragment", FaultAction::status(416));
            service.faults().add(wrong.after(1).times(1).each());
        },
        nothing,
    )];
    acts.extend(make("misplaced.bin", Body(10, LARGE)));
    acts.extend([
        Act::Sync,
        Act::Swift,
        Act::Elsewhere(
            "all fragments but the first of a session have to wait",
            |service| {
                let waits = FaultRule::on("upload_fragment", FaultAction::Hold);
                service.faults().add(waits.after(1).each());
            },
            nothing,
        ),
    ]);
    acts.extend(make("broken-off.bin", Body(11, LARGE)));
    acts.extend([
        Act::Sent("broken-off.bin"),
        Act::Offline,
        // Nothing of it is on its way then.
        Act::Until("that is known", |status, _| status["state"] == "offline"),
    ]);
    acts.extend(rewrite("broken-off.bin", Body(12, 20_000)));
    acts.extend([Act::Swift, Act::Online, Act::Sync]);
    acts
}

/// A file that somebody else changes while a large new version of it is sent.
fn outdated() -> Vec<Act> {
    let mut acts = vec![Act::Elsewhere(
        "fragments and changes have to wait",
        |service| {
            hold(service, "upload_fragment");
            hold(service, "delta");
        },
        nothing,
    )];
    acts.extend(rewrite("outdated.bin", Body(20, LARGE)));
    acts.extend([
        Act::Begun("outdated.bin"),
        Act::There(
            "the same file changed",
            |drive| {
                let put = drive.put("outdated.bin", Body(21, 1_300).make());
                put.expect("changed");
            },
            || {
                vec![
                    at("outdated.bin", Some(elsewhere(Body(21, 1_300)))),
                    at("outdated (conflict).bin", Some(ours(Body(20, LARGE)))),
                ]
            },
        ),
        Act::Swift,
        Act::Sync,
    ]);
    acts
}

/// A copy that waits for bytes from the service, and takes the place of another file meanwhile.
fn superseded() -> Vec<Act> {
    vec![
        Act::Open(1, "films/copy.tmp", How::Create),
        Act::Copy(1, "films/b.mkv"),
        Act::Write(1, 1_000, Body(30, 5_000)),
        Act::Elsewhere(
            "bytes have to wait",
            |service| hold(service, "download"),
            nothing,
        ),
        Act::Close(1),
        Act::Begun("copy.tmp"),
        Act::Rename("films/copy.tmp", "films/target.mkv"),
        Act::Swift,
        Act::Sync,
    ]
}
