//! The work of programs here and of somebody else there: every transition of journal, spool and
//! upload.

use onedrivefs_tests::Service;

use super::{Story, put_all};
use crate::act::{Act, Body, How, LARGE, at, elsewhere, ours};
use crate::tree::{Node, Tree};

pub const STORY: Story = Story {
    name: "work",
    apart: true,
    seed,
    acts,
    same: SAME,
    // The one that is provoked.
    conflicts: 1,
    ..Story::PLAIN
};

/// Files that are on the service before anything else, and the bodies they have.
const SEED: &[(&str, Body)] = &[
    ("doc.txt", Body(1, 3_000)),
    ("report.bin", Body(2, 300_000)),
    ("big.dat", Body(3, 3_000_000)),
    ("notes.txt", Body(4, 5_000)),
    ("rewritten.txt", Body(5, 2_000)),
    ("log.txt", Body(6, 1_000)),
    ("gone.txt", Body(7, 100)),
    ("old/keep.txt", Body(8, 4_000)),
    ("old/inner/deep.txt", Body(9, 500)),
    ("a.txt", Body(10, 600)),
    ("b.txt", Body(11, 700)),
    ("theirs/changed.txt", Body(12, 800)),
    ("theirs/gone.txt", Body(13, 900)),
    ("theirs/folder/x.txt", Body(14, 1_000)),
    ("both.txt", Body(15, 1_100)),
    ("deleted-here.txt", Body(16, 1_200)),
    ("deleted-there.txt", Body(17, 1_300)),
    ("moved-here.txt", Body(18, 1_400)),
    ("theirs/late.txt", Body(19, 1_500)),
    ("inwards", Body(20, 1_600)),
    ("draft.txt", Body(21, 200_000)),
    ("anew.txt", Body(22, 1_700)),
    ("films/a.mkv", Body(23, 700_000)),
    ("films/b.mkv", Body(24, 800_000)),
    ("films/c.mkv", Body(25, 900_000)),
    ("films/d.mkv", Body(26, 1_000_000)),
];

/// Puts what is there at the beginning on the service.
fn seed(service: &Service) -> Tree {
    let drive = service.default_drive();
    let mut tree = put_all(&drive, SEED);
    drive.mkdir("empty").expect("seeded");
    tree.insert("empty".to_owned(), Node::Folder);
    tree
}

/// Files that keep their identity on the service: where each ends, and where it began. Those with a
/// backup are not among them: changes are sent so soon here that the backup's name may be on its
/// way already when the backup goes, or when the file is made anew after a kill.
const SAME: &[(&str, &str)] = &[
    ("doc.txt", "doc.txt"),
    ("big.dat", "big.dat"),
    ("notes.txt", "notes.txt"),
    ("rewritten.txt", "rewritten.txt"),
    ("log.txt", "log.txt"),
    ("new/kept.txt", "old/keep.txt"),
    ("new/older", "old"),
    ("new/older/inner/deep.txt", "old/inner/deep.txt"),
    ("a.txt", "b.txt"),
    ("b.txt", "a.txt"),
    ("theirs/changed.txt", "theirs/changed.txt"),
    ("theirs/moved/x.txt", "theirs/folder/x.txt"),
    ("both.txt", "both.txt"),
    ("new/moved-here.txt", "moved-here.txt"),
    ("inwards/inwards", "inwards"),
    ("anew.txt", "anew.txt"),
    ("films/c.mkv", "films/c.mkv"),
];

/// All steps.
fn acts() -> Vec<Act> {
    [
        vec![Act::Sync],
        new_files(),
        saves(),
        edits(),
        names(),
        vec![Act::Sync],
        during_uploads(),
        copies(),
        changes_there(),
        conflicts(),
        vec![Act::Sync],
    ]
    .concat()
}

fn new_files() -> Vec<Act> {
    vec![
        Act::Mkdir("new"),
        Act::Mkdir("new/sub"),
        Act::Mkdir("new/sub/deep"),
        Act::Open(1, "new/small.txt", How::Create),
        Act::Write(1, 0, Body(100, 4_000)),
        Act::Fsync(1),
        Act::Write(1, 4_000, Body(101, 2_000)),
        Act::Close(1),
        Act::Open(1, "new/empty", How::Create),
        Act::Close(1),
        Act::Open(1, "new/sub/deep/large.bin", How::Create),
        Act::Write(1, 0, Body(102, LARGE)),
        Act::Close(1),
        Act::Link("new/link", "small.txt"),
        Act::Times("new/small.txt", 1_100_000_000),
    ]
}

/// The ways in which programs save.
fn saves() -> Vec<Act> {
    vec![
        // A temporary file renamed over the original.
        Act::Read("doc.txt", 0, 3_000),
        Act::Open(1, "doc.txt.tmp", How::Create),
        Act::Write(1, 0, Body(110, 3_500)),
        Act::Fsync(1),
        Act::Close(1),
        Act::Rename("doc.txt.tmp", "doc.txt"),
        // Emptied and written anew.
        Act::Open(1, "rewritten.txt", How::Truncate),
        Act::Write(1, 0, Body(112, 2_500)),
        Act::Close(1),
    ]
}

/// Changes in place.
fn edits() -> Vec<Act> {
    vec![
        // Only a part of it is here.
        Act::Read("big.dat", 2_900_000, 4_096),
        Act::Open(1, "big.dat", How::Write),
        Act::Write(1, 1_000_000, Body(120, 5_000)),
        Act::Write(1, 3_000_000, Body(121, 1_000)),
        Act::Close(1),
        Act::Truncate("notes.txt", 1_000),
        Act::Open(1, "log.txt", How::Append),
        Act::Append(1, Body(122, 300)),
        Act::Append(1, Body(123, 200)),
        Act::Close(1),
        Act::Open(1, "new/small.txt", How::Write),
        Act::SetLen(1, 0),
        Act::Write(1, 0, Body(124, 1_500)),
        Act::SetLen(1, 2_000),
        Act::Zero(1, 100, 50),
        Act::Punch(1, 300, 50),
        Act::Close(1),
        Act::Times("new/small.txt", 1_100_000_100),
    ]
}

/// Names that come, go and change.
fn names() -> Vec<Act> {
    vec![
        Act::Rename("old/keep.txt", "new/kept.txt"),
        Act::Rename("old", "new/older"),
        Act::Unlink("gone.txt"),
        Act::Rmdir("empty"),
        Act::Mkdir("brief"),
        Act::Rmdir("brief"),
        Act::Exchange("a.txt", "b.txt"),
        // Into a folder that takes its name.
        Act::Rename("inwards", "inwards.old"),
        Act::Mkdir("inwards"),
        Act::Rename("inwards.old", "inwards/inwards"),
        // Nothing of the service's until it is renamed.
        Act::Open(1, "fetched.part", How::Create),
        Act::Write(1, 0, Body(134, 5_000)),
        Act::Close(1),
        Act::Rename("fetched.part", "fetched.zip"),
        // Renamed and unlinked while it is open.
        Act::Open(1, "open.txt", How::Create),
        Act::Write(1, 0, Body(130, 1_000)),
        Act::Rename("open.txt", "new/open.txt"),
        Act::Write(1, 1_000, Body(131, 1_000)),
        Act::Close(1),
        Act::Open(1, "scratch.txt", How::Create),
        Act::Write(1, 0, Body(132, 1_000)),
        Act::Unlink("scratch.txt"),
        Act::Write(1, 1_000, Body(133, 1_000)),
        Act::Close(1),
    ]
}

/// Files that change while they are being sent.
fn during_uploads() -> Vec<Act> {
    vec![
        Act::Slow,
        // Saved again.
        Act::Open(1, "new/sub/deep/large.bin", How::Write),
        Act::Write(1, 0, Body(140, 100_000)),
        Act::Close(1),
        Act::Sent("large.bin"),
        Act::Open(1, "new/sub/deep/large.bin", How::Write),
        Act::Write(1, 200_000, Body(141, 100_000)),
        Act::Close(1),
        // Renamed.
        Act::Open(1, "new/first-name.bin", How::Create),
        Act::Write(1, 0, Body(142, LARGE)),
        Act::Close(1),
        Act::Sent("first-name.bin"),
        Act::Rename("new/first-name.bin", "new/second-name.bin"),
        // Unlinked.
        Act::Open(1, "new/unwanted.bin", How::Create),
        Act::Write(1, 0, Body(143, LARGE)),
        Act::Close(1),
        Act::Begun("unwanted.bin"),
        Act::Unlink("new/unwanted.bin"),
        // Cut.
        Act::Open(1, "new/cut.bin", How::Create),
        Act::Write(1, 0, Body(144, 2_000_000)),
        Act::Close(1),
        Act::Begun("cut.bin"),
        Act::Open(1, "new/cut.bin", How::Write),
        Act::SetLen(1, 50_000),
        Act::Close(1),
        // Emptied.
        Act::Open(1, "new/emptied.bin", How::Create),
        Act::Write(1, 0, Body(145, 1_000_000)),
        Act::Close(1),
        Act::Begun("emptied.bin"),
        Act::Truncate("new/emptied.bin", 0),
        Act::Swift,
        Act::Sync,
    ]
}

/// `cp` of a file to a new name.
fn cp(from: &'static str, to: &'static str) -> [Act; 3] {
    [
        Act::Open(1, to, How::Create),
        Act::Copy(1, from),
        Act::Close(1),
    ]
}

/// Files that are copies of what the service has, most of which is not here.
fn copies() -> Vec<Act> {
    let mut acts = cp("films/a.mkv", "new/whole.mkv").to_vec();
    // A part of it is here.
    acts.push(Act::Read("films/b.mkv", 300_000, 4_096));
    acts.extend(cp("films/b.mkv", "new/partly-here.mkv"));
    // Changed, renamed and unlinked while the service makes them.
    acts.push(Act::Slow);
    acts.extend(cp("films/b.mkv", "new/changed.mkv"));
    acts.extend(cp("films/b.mkv", "new/first.mkv"));
    acts.extend(cp("films/b.mkv", "new/unwanted.mkv"));
    acts.extend([
        Act::Copying("changed.mkv"),
        Act::Open(1, "new/changed.mkv", How::Write),
        Act::Write(1, 1_000, Body(160, 5_000)),
        Act::Close(1),
        Act::Copying("first.mkv"),
        Act::Rename("new/first.mkv", "new/last.mkv"),
        Act::Copying("unwanted.mkv"),
        Act::Unlink("new/unwanted.mkv"),
        Act::Swift,
        Act::Sync,
    ]);
    // The original goes, or gets another version, before the copy is there.
    acts.extend(cp("films/d.mkv", "new/saved.mkv"));
    acts.push(Act::Unlink("films/d.mkv"));
    acts.extend(cp("films/c.mkv", "new/older.mkv"));
    acts.extend([
        Act::Open(1, "films/c.mkv", How::Truncate),
        Act::Write(1, 0, Body(161, 5_000)),
        Act::Close(1),
        Act::Sync,
    ]);
    acts
}

/// Changes by somebody else that meet none of ours.
fn changes_there() -> Vec<Act> {
    vec![
        Act::There(
            "a file changed, one new, one gone",
            |drive| {
                let put = drive.put("theirs/changed.txt", Body(200, 900).make());
                put.expect("changed");
                let put = drive.put("theirs/new.txt", Body(201, 950).make());
                put.expect("new");
                // Not there any more if the daemon died between this and its note.
                drop(drive.delete("theirs/gone.txt"));
            },
            || {
                vec![
                    at("theirs/changed.txt", Some(elsewhere(Body(200, 900)))),
                    at("theirs/new.txt", Some(elsewhere(Body(201, 950)))),
                    at("theirs/gone.txt", None),
                ]
            },
        ),
        Act::There(
            "a folder renamed",
            |drive| drop(drive.rename("theirs/folder", "theirs/moved")),
            || {
                vec![
                    at("theirs/folder", None),
                    at("theirs/folder/x.txt", None),
                    at("theirs/moved", Some(Node::Folder)),
                    at("theirs/moved/x.txt", Some(elsewhere(Body(14, 1_000)))),
                ]
            },
        ),
        Act::Sync,
        // The whole drive has to be enumerated again, and shows that something is gone.
        Act::There(
            "a file gone and the delta links expired",
            |drive| {
                drop(drive.delete("theirs/late.txt"));
                drive.expire_delta();
            },
            || vec![at("theirs/late.txt", None)],
        ),
        Act::Sync,
    ]
}

/// Changes on both sides.
fn conflicts() -> Vec<Act> {
    vec![
        Act::Offline,
        // A save with a backup in between.
        Act::Rename("report.bin", "report.bin~"),
        Act::Open(1, "report.bin", How::Create),
        Act::Write(1, 0, Body(111, 280_000)),
        Act::Close(1),
        Act::Unlink("report.bin~"),
        // One with a backup that stays, and one that removes the original.
        Act::Rename("draft.txt", "draft.txt~"),
        Act::Open(1, "draft.txt", How::Create),
        Act::Write(1, 0, Body(113, 210_000)),
        Act::Close(1),
        Act::Unlink("anew.txt"),
        Act::Open(1, "anew.txt", How::Create),
        Act::Write(1, 0, Body(114, 1_750)),
        Act::Close(1),
        Act::Open(1, "both.txt", How::Truncate),
        Act::Write(1, 0, Body(150, 1_150)),
        Act::Close(1),
        Act::Unlink("deleted-here.txt"),
        Act::Open(1, "deleted-there.txt", How::Truncate),
        Act::Write(1, 0, Body(151, 1_350)),
        Act::Close(1),
        Act::Rename("moved-here.txt", "new/moved-here.txt"),
        Act::Open(1, "same.txt", How::Create),
        Act::Write(1, 0, Body(152, 2_000)),
        Act::Close(1),
        Act::Mkdir("met"),
        Act::There(
            "the same files changed",
            |drive| {
                let put = drive.put("both.txt", Body(210, 1_160).make());
                put.expect("changed");
                let put = drive.put("deleted-here.txt", Body(211, 1_250).make());
                put.expect("changed");
                drop(drive.delete("deleted-there.txt"));
                let put = drive.put("moved-here.txt", Body(212, 1_450).make());
                put.expect("changed");
                drive.put("same.txt", Body(152, 2_000).make()).expect("new");
                drive.mkdir("met/inside").expect("new");
            },
            || {
                vec![
                    at("both.txt", Some(elsewhere(Body(210, 1_160)))),
                    at("both (conflict).txt", Some(ours(Body(150, 1_150)))),
                    at("deleted-here.txt", Some(elsewhere(Body(211, 1_250)))),
                    at("new/moved-here.txt", Some(elsewhere(Body(212, 1_450)))),
                    at("met/inside", Some(Node::Folder)),
                ]
            },
        ),
        Act::Online,
        Act::Sync,
        // What came of it can be used like anything else.
        Act::Open(1, "both.txt", How::Append),
        Act::Append(1, Body(153, 100)),
        Act::Close(1),
    ]
}
