//! Two change the same: every case of files and folders, and what must not become a conflict.

use onedrivefs_sim::DriveKind;
use onedrivefs_tests::{Home, Need, needs};

use super::{Bench, Meeting, Row, do_here, row, run, service};

/// Contents of one file.
pub(super) const CONTENT: &[Row] = &[
    row(
        "only here",
        "note.txt=base",
        "note.txt=ours",
        "",
        "note.txt=ours",
    )
    .versions("note.txt", 2)
    .same_item("note.txt", "note.txt"),
    row(
        "changed alike",
        "note.txt=base",
        "note.txt=same",
        "note.txt=same",
        "note.txt=same",
    )
    .versions("note.txt", 2)
    .same_item("note.txt", "note.txt"),
    row(
        "both changed",
        "note.txt=base",
        "note.txt=ours",
        "note.txt=theirs",
        "note.txt=theirs; note (conflict).txt=ours",
    )
    .same_item("note.txt", "note.txt"),
    row(
        "both appended",
        "note.txt=base",
        "note.txt+=ours",
        "note.txt+=theirs",
        "note.txt=basetheirs; note (conflict).txt=baseours",
    ),
    row(
        "changed, deleted",
        "note.txt=base",
        "note.txt=ours",
        "-note.txt",
        "note.txt=ours",
    ),
    row(
        "deleted, changed",
        "note.txt=base",
        "-note.txt",
        "note.txt=theirs",
        "note.txt=theirs",
    )
    .same_item("note.txt", "note.txt"),
    row(
        "both deleted",
        "note.txt=base",
        "-note.txt",
        "-note.txt",
        "",
    ),
    row(
        "created alike",
        "",
        "new.txt=same",
        "new.txt=same",
        "new.txt=same",
    ),
    row(
        "both created",
        "",
        "new.txt=ours",
        "new.txt=theirs",
        "new.txt=theirs; new (conflict).txt=ours",
    ),
    row(
        "created empty alike",
        "",
        "new.txt=",
        "new.txt=",
        "new.txt=",
    ),
    row(
        "created empty, created",
        "",
        "new.txt=",
        "new.txt=theirs",
        "new.txt=theirs; new (conflict).txt= | new.txt=theirs",
    ),
    row(
        "emptied, changed",
        "note.txt=base",
        "note.txt=",
        "note.txt=theirs",
        "note.txt=theirs; note (conflict).txt=",
    ),
    row(
        "replaced, changed",
        "note.txt=base",
        "-note.txt; note.txt=ours",
        "note.txt=theirs",
        "note.txt=theirs; note (conflict).txt=ours",
    ),
    row(
        "replaced",
        "note.txt=base",
        "-note.txt; note.txt=ours",
        "",
        "note.txt=ours",
    ),
    row(
        "replaced, deleted",
        "note.txt=base",
        "-note.txt; note.txt=ours",
        "-note.txt",
        "note.txt=ours",
    ),
    row(
        "saved anew",
        "note.txt=base",
        "~note.txt=ours",
        "",
        "note.txt=ours",
    )
    .versions("note.txt", 2)
    .same_item("note.txt", "note.txt"),
    row(
        "saved twice",
        "note.txt=base",
        "~note.txt=one; ~note.txt=two",
        "",
        "note.txt=two",
    )
    .same_item("note.txt", "note.txt"),
    row(
        "saved by a backup",
        "note.txt=base",
        "^note.txt=ours",
        "",
        "note.txt=ours",
    )
    .versions("note.txt", 2)
    .same_item("note.txt", "note.txt"),
    row(
        "saved anew, changed",
        "note.txt=base",
        "~note.txt=ours",
        "note.txt=theirs",
        "note.txt=theirs; note (conflict).txt=ours",
    )
    .same_item("note.txt", "note.txt"),
    row(
        "saved by a backup, changed",
        "note.txt=base",
        "^note.txt=ours",
        "note.txt=theirs",
        "note.txt=theirs; note (conflict).txt=ours",
    ),
    row(
        "saved anew alike",
        "note.txt=base",
        "~note.txt=same",
        "note.txt=same",
        "note.txt=same",
    )
    .versions("note.txt", 2)
    .same_item("note.txt", "note.txt"),
    row(
        "saved anew, deleted",
        "note.txt=base",
        "~note.txt=ours",
        "-note.txt",
        "note.txt=ours",
    ),
    row(
        "saved anew, renamed",
        "note.txt=base",
        "~note.txt=ours",
        "note.txt > theirs.txt",
        "theirs.txt=ours",
    )
    .same_item("note.txt", "theirs.txt"),
];

/// Names of files and folders.
const NAMES: &[Row] = &[
    row(
        "renamed, changed",
        "a.txt=base",
        "a.txt > b.txt",
        "a.txt=theirs",
        "b.txt=theirs",
    )
    .same_item("a.txt", "b.txt"),
    row(
        "changed, renamed",
        "a.txt=base",
        "a.txt=ours",
        "a.txt > b.txt",
        "b.txt=ours",
    )
    .versions("b.txt", 2)
    .same_item("a.txt", "b.txt"),
    row(
        "changed and renamed, changed",
        "a.txt=base",
        "a.txt=ours; a.txt > b.txt",
        "a.txt=theirs",
        "a.txt=theirs; b (conflict).txt=ours | b.txt=theirs; b (conflict).txt=ours",
    ),
    row(
        "changed and renamed, deleted",
        "a.txt=base",
        "a.txt=ours; a.txt > b.txt",
        "-a.txt",
        "b.txt=ours",
    ),
    row(
        "both renamed",
        "a.txt=base",
        "a.txt > b.txt",
        "a.txt > c.txt",
        "c.txt=base",
    )
    .ours_last("b.txt=base")
    .same_item("a.txt", "c.txt"),
    row(
        "renamed alike",
        "a.txt=base",
        "a.txt > b.txt",
        "a.txt > b.txt",
        "b.txt=base",
    )
    .same_item("a.txt", "b.txt"),
    row(
        "renamed, deleted",
        "a.txt=base",
        "a.txt > b.txt",
        "-a.txt",
        "",
    ),
    row(
        "deleted, renamed",
        "a.txt=base",
        "-a.txt",
        "a.txt > b.txt",
        "",
    ),
    row(
        "moved, changed",
        "a.txt=base; d/",
        "a.txt > d/a.txt",
        "a.txt=theirs",
        "d/a.txt=theirs",
    )
    .same_item("a.txt", "d/a.txt"),
    row(
        "changed, moved",
        "a.txt=base; d/",
        "a.txt=ours",
        "a.txt > d/a.txt",
        "d/a.txt=ours",
    )
    .same_item("a.txt", "d/a.txt"),
    row(
        "both moved",
        "a.txt=base; d/; e/",
        "a.txt > d/a.txt",
        "a.txt > e/a.txt",
        "d/; e/a.txt=base",
    )
    .ours_last("d/a.txt=base; e/"),
    row(
        "moved, renamed",
        "a.txt=base; d/",
        "a.txt > d/a.txt",
        "a.txt > b.txt",
        "d/; b.txt=base",
    )
    .ours_last("d/b.txt=base"),
    row(
        "renamed, moved",
        "a.txt=base; d/",
        "a.txt > b.txt",
        "a.txt > d/a.txt",
        "d/a.txt=base",
    )
    .ours_last("d/b.txt=base"),
    row(
        "created, renamed to it",
        "a.txt=base",
        "b.txt=ours",
        "a.txt > b.txt",
        "b.txt=base; b (conflict).txt=ours",
    ),
    row(
        "renamed to it, created",
        "a.txt=base",
        "a.txt > b.txt",
        "b.txt=theirs",
        "b.txt=theirs; b (conflict).txt=base",
    ),
    row(
        "both renamed to it",
        "a.txt=1; b.txt=2",
        "a.txt > c.txt",
        "b.txt > c.txt",
        "c.txt=2; c (conflict).txt=1",
    ),
    row(
        "renamed over, changed",
        "a.txt=1; b.txt=2",
        "a.txt > b.txt",
        "b.txt=theirs",
        "b.txt=theirs; b (conflict).txt=1",
    ),
    row(
        "renamed over, deleted",
        "a.txt=1; b.txt=2",
        "a.txt > b.txt",
        "-b.txt",
        "b.txt=1",
    ),
    row(
        "other case here",
        "note.txt=base",
        "note.txt > Note.txt",
        "",
        "Note.txt=base",
    )
    .same_item("note.txt", "Note.txt"),
    row(
        "other case there",
        "note.txt=base",
        "",
        "note.txt > Note.txt",
        "Note.txt=base",
    )
    .same_item("note.txt", "Note.txt"),
    row(
        "other case, changed",
        "note.txt=base",
        "note.txt > Note.txt",
        "note.txt=theirs",
        "Note.txt=theirs",
    ),
    row(
        "changed, other case",
        "note.txt=base",
        "note.txt=ours",
        "note.txt > Note.txt",
        "Note.txt=ours",
    ),
    row(
        "both other cases",
        "note.txt=base",
        "note.txt > Note.txt",
        "note.txt > NOTE.txt",
        "NOTE.txt=base",
    )
    .ours_last("Note.txt=base"),
    row(
        "created in another case",
        "",
        "New.txt=same",
        "new.txt=same",
        "new.txt=same | New.txt=same",
    ),
    row("swapped here", "a=1; b=2", "a <> b", "", "a=2; b=1").same_item("a", "b"),
    row("swapped there", "a=1; b=2", "", "a <> b", "a=2; b=1").same_item("a", "b"),
    row("swapped alike", "a=1; b=2", "a <> b", "a <> b", "a=2; b=1"),
    row(
        "swapped, changed",
        "a=1; b=2",
        "a <> b",
        "a=theirs",
        "a=2; b=theirs",
    ),
    row(
        "changed, swapped",
        "a=1; b=2",
        "a=ours",
        "a <> b",
        "a=2; b=ours",
    ),
    row(
        "turned here",
        "a=1; b=2; c=3",
        "a > x; b > a; c > b; x > c",
        "",
        "a=2; b=3; c=1",
    ),
    row(
        "turned there",
        "a=1; b=2; c=3",
        "",
        "a > x; b > a; c > b; x > c",
        "a=2; b=3; c=1",
    ),
];

/// Folders and what is in them.
const FOLDERS: &[Row] = &[
    row(
        "folder both made",
        "",
        "d/; d/ours=o",
        "d/theirs=t",
        "d/ours=o; d/theirs=t",
    ),
    row(
        "folder both made, deep",
        "",
        "d/e/; d/e/o=o; d/f=f",
        "d/e/t=t; d/g/",
        "d/e/o=o; d/e/t=t; d/f=f; d/g/",
    ),
    row(
        "folder both renamed",
        "d/f=x",
        "d > ours",
        "d > theirs",
        "theirs/f=x",
    )
    .ours_last("ours/f=x"),
    row(
        "folder renamed, changed inside",
        "d/f=x",
        "d > ours",
        "d/f=theirs",
        "ours/f=theirs",
    ),
    row(
        "folder changed inside, renamed",
        "d/f=x",
        "d/f=ours",
        "d > theirs",
        "theirs/f=ours",
    )
    .same_item("d/f", "theirs/f"),
    row(
        "folder changed inside, moved",
        "d/f=x; e/",
        "d/f=ours",
        "d > e/d",
        "e/d/f=ours",
    ),
    row(
        "folder made inside, renamed",
        "d/f=x",
        "d/new=ours",
        "d > theirs",
        "theirs/f=x; theirs/new=ours",
    ),
    row(
        "folder made inside, moved",
        "d/f=x; e/",
        "d/new=ours",
        "d > e/d",
        "e/d/f=x; e/d/new=ours",
    ),
    row(
        "folder changed inside, deleted",
        "d/f=x; d/g=y",
        "d/f=ours",
        "-d",
        "d/f=ours",
    ),
    row(
        "folder made inside, deleted",
        "d/f=x",
        "d/new=ours",
        "-d",
        "d/new=ours",
    ),
    row(
        "folder made deep inside, deleted",
        "d/e/f=x",
        "d/e/g/; d/e/g/new=ours",
        "-d",
        "d/e/g/new=ours",
    ),
    row(
        "folder moved in, deleted",
        "d/g=y; f=x",
        "f > d/f",
        "-d",
        "d/f=x",
    ),
    row(
        "folder moved out, deleted",
        "d/f=x; d/g=y",
        "d/f > f",
        "-d",
        "f=x",
    ),
    row(
        "folder changed and moved out, deleted",
        "d/f=x",
        "d/f=ours; d/f > f",
        "-d",
        "f=ours",
    ),
    row(
        "folder folder moved out, deleted",
        "d/e/f=x",
        "d/e > e",
        "-d",
        "e/f=x",
    ),
    row(
        "folder moved out deep, deleted",
        "d/e/f=x; d/g=y",
        "d/e/f > f",
        "-d",
        "f=x",
    ),
    row(
        "folder moved away and deleted, deleted",
        "d/f=x",
        "d/f > f; -d",
        "-d",
        "f=x",
    ),
    row(
        "folder deleted, changed inside",
        "d/f=x; d/g=y",
        "-d",
        "d/f=theirs",
        "d/f=theirs",
    ),
    row(
        "folder deleted, made inside",
        "d/f=x",
        "-d",
        "d/new=theirs",
        "d/new=theirs",
    ),
    row(
        "folder deleted, moved out",
        "d/f=x",
        "-d",
        "d/f > f",
        " | f=x",
    ),
    row(
        "folder deleted, moved in",
        "d/f=x; g=y",
        "-d",
        "g > d/g",
        "d/g=y",
    ),
    row("folder both deleted", "d/f=x", "-d", "-d", ""),
    row("folder deleted, renamed", "d/f=x", "-d", "d > theirs", ""),
    row("folder renamed, deleted", "d/f=x", "d > ours", "-d", ""),
    row(
        "folder renamed and changed inside, deleted",
        "d/f=x",
        "d > ours; ours/f=ours",
        "-d",
        "ours/f=ours",
    ),
    row(
        "folder remade, made inside",
        "d/f=x",
        "-d; d/; d/o=o",
        "d/t=t",
        "d/o=o; d/t=t",
    ),
    row(
        "folder moved out there, then deleted",
        "d/f=x",
        "",
        "d/f > f; -d",
        "f=x",
    )
    .same_item("d/f", "f"),
    row(
        "folder folder moved out there, then deleted",
        "d/e/f=x",
        "",
        "d/e > e; -d",
        "e/f=x",
    )
    .same_item("d/e/f", "e/f"),
    row(
        "folder changed, moved out there, then deleted",
        "d/f=x",
        "d/f=ours",
        "d/f > f; -d",
        "f=ours",
    )
    // The folder is kept for the file while that is on its way.
    .ours_last("d/; f=ours")
    .same_item("d/f", "f"),
    row(
        "folder moved between, both renamed",
        "d/f=x; e/",
        "d/f > e/f",
        "d > D1; e > E1",
        "D1/; E1/f=x",
    ),
    row(
        "folder replaced by a file",
        "x/f=1",
        "",
        "-x; x=file",
        "x=file",
    ),
    row(
        "folder changed inside, replaced by a file",
        "x/f=1",
        "x/f=ours",
        "-x; x=file",
        "x=file; x (conflict)/f=ours",
    ),
    row(
        "folder made inside, replaced by a file",
        "x/f=1",
        "x/g=ours",
        "-x; x=file",
        "x=file; x (conflict)/g=ours",
    ),
    row(
        "folder renamed and filled, deleted, name taken",
        "d/f=x; g=t",
        "d > n; n/o=ours",
        "-d; g > n",
        "n=t; n (conflict)/o=ours",
    ),
    row(
        "folder file replaced by it",
        "x=1",
        "",
        "-x; x/f=2",
        "x/f=2",
    ),
    row(
        "folder changed, file replaced by it",
        "x=1",
        "x=ours",
        "-x; x/f=2",
        "x/f=2; x (conflict)=ours",
    ),
    row(
        "folder file made, made",
        "",
        "x=ours",
        "x/t=t",
        "x/t=t; x (conflict)=ours",
    ),
    row(
        "folder made, file made",
        "",
        "x/; x/o=o",
        "x=theirs",
        "x=theirs; x (conflict)/o=o",
    ),
    row(
        "folder into each other",
        "a/f=1; b/g=2",
        "a > b/a",
        "b > a/b",
        "a/f=1; a/b/g=2",
    )
    .ours_last("b/g=2; b/a/f=1"),
    row(
        "folder other case here",
        "dir/f=x",
        "dir > Dir",
        "dir/g=t",
        "Dir/f=x; Dir/g=t",
    ),
    row(
        "folder other case there",
        "dir/f=x",
        "dir/g=o",
        "dir > Dir",
        "Dir/f=x; Dir/g=o",
    ),
    row(
        "folder swapped here",
        "d/f=x; e/g=y",
        "d <> e",
        "d/t=t",
        "e/f=x; e/t=t; d/g=y",
    ),
    row(
        "folder swapped there",
        "d/f=x; e/g=y",
        "d/o=o",
        "d <> e",
        "e/f=x; e/o=o; d/g=y",
    ),
];

/// All rows.
pub(super) fn rows() -> Vec<Row> {
    [CONTENT, NAMES, FOLDERS].concat()
}

/// Runs all rows that make sense for a meeting.
fn all(kind: DriveKind, meeting: Meeting) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let mut rows = rows();
    if meeting == Meeting::WhileSending {
        rows.retain(Row::only_writes);
    }
    run(&rows, kind, meeting);
}

#[test]
fn business_by_delta() {
    all(DriveKind::Business, Meeting::ByDelta);
}

#[test]
fn personal_by_delta() {
    all(DriveKind::Personal, Meeting::ByDelta);
}

#[test]
fn business_after_days() {
    all(DriveKind::Business, Meeting::AfterDays);
}

#[test]
fn personal_after_days() {
    all(DriveKind::Personal, Meeting::AfterDays);
}

#[test]
fn business_while_asking() {
    all(DriveKind::Business, Meeting::WhileAsking);
}

#[test]
fn personal_while_asking() {
    all(DriveKind::Personal, Meeting::WhileAsking);
}

#[test]
fn business_while_sending() {
    all(DriveKind::Business, Meeting::WhileSending);
}

#[test]
fn personal_while_sending() {
    all(DriveKind::Personal, Meeting::WhileSending);
}

/// Files that libraries write properties into on arrival; the column for there is the save that
/// follows here.
const REWRITTEN: &[Row] = &[
    row(
        "document",
        "r.docx=base",
        "r.docx=ours",
        "r.docx=again",
        "r.docx=again<!-- properties promoted by the library -->",
    )
    .same_item("r.docx", "r.docx"),
    row(
        "new page",
        "",
        "p.html=ours",
        "~p.html=again",
        "p.html=again<!-- properties promoted by the library -->",
    ),
    row(
        "sheet of a backup",
        "s.pdf=base",
        "~s.pdf=ours",
        "^s.pdf=again",
        "s.pdf=again<!-- properties promoted by the library -->",
    )
    .same_item("s.pdf", "s.pdf"),
    row(
        "text",
        "t.txt=base",
        "t.txt=ours",
        "t.txt+= and more",
        "t.txt=ours and more",
    )
    .versions("t.txt", 3),
];

#[test]
fn what_the_service_rewrote_is_the_base_of_the_next_save() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(DriveKind::DocumentLibrary);
    service.set_knobs(|knobs| knobs.office_rewrite = true);
    let home = Home::signed_in(&service);
    let arguments = ["--poll", "1", "--option", "upload_delay=200"];
    let bench = Bench::new(&home, REWRITTEN, &arguments, "rewritten".to_owned());
    let ids = bench.ids(REWRITTEN);
    bench.here(REWRITTEN);
    bench.come_to_rest();
    for row in REWRITTEN {
        do_here(&bench.mount.at(row.name), row.there);
    }
    bench.come_to_rest();
    bench.check(REWRITTEN, &ids);
    bench.mount.unmount();
}
