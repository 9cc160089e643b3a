//! Files that the kernel reads and overwrites by itself, where it may.

use onedrivefs_tests::Service;

use super::{Story, put_all};
use crate::act::{Act, Body, How, at, elsewhere};
use crate::tree::Tree;

pub const STORY: Story = Story {
    name: "passed",
    seed,
    acts,
    same: &[
        ("disk.img", "disk.img"),
        ("moved/longer.img", "longer.img"),
        ("kept.img", "kept.img"),
    ],
    ..Story::PLAIN
};

/// Large enough to be left to the kernel.
const SIZE: usize = 1_500_000;

const SEED: &[(&str, Body)] = &[
    ("disk.img", Body(1, SIZE)),
    ("longer.img", Body(2, SIZE)),
    ("kept.img", Body(3, SIZE)),
];

fn seed(service: &Service) -> Tree {
    put_all(&service.default_drive(), SEED)
}

fn acts() -> Vec<Act> {
    let read = |path| Act::Read(path, 0, SIZE);
    vec![
        Act::Sync,
        read("disk.img"),
        read("longer.img"),
        read("kept.img"),
        Act::Mkdir("moved"),
        Act::Open(1, "disk.img", How::Overwrite),
        Act::Open(2, "longer.img", How::Overwrite),
        Act::Write(1, 0, Body(10, 100_000)),
        Act::Write(2, 700_000, Body(11, 200_000)),
        Act::Fsync(1),
        Act::Write(1, 1_000_000, Body(12, 100_000)),
        // Another one that writes, beside the kernel.
        Act::Open(3, "disk.img", How::Write),
        Act::Write(3, 500_000, Body(13, 1_000)),
        Act::Close(3),
        Act::Write(2, SIZE + 10_000, Body(14, 50_000)),
        Act::Rename("longer.img", "moved/longer.img"),
        Act::SetLen(1, 1_400_000),
        Act::Write(1, 1_390_000, Body(15, 30_000)),
        Act::Close(1),
        Act::Close(2),
        Act::Open(1, "kept.img", How::Overwrite),
        Act::Close(1),
        Act::Sync,
        Act::Open(1, "disk.img", How::Overwrite),
        Act::Write(1, 3, Body(16, 10)),
        Act::Close(1),
        Act::There(
            "an image changed that was opened and not written",
            |drive| {
                let put = drive.put("kept.img", Body(20, SIZE).make());
                put.expect("changed");
            },
            || vec![at("kept.img", Some(elsewhere(Body(20, SIZE))))],
        ),
        Act::Sync,
    ]
}
