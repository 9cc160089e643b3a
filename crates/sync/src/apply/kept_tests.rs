//! What must hold between rounds, and what an item keeps that comes back or arrives.

use onedrivefs_core::{
    CTag, ETag, Ino, ItemId, ItemKind, Provenance, QuickXorHash, RemoteItem, Timestamp,
};
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Place, Remote, Store, StoreError, Tx};

use super::{Applied, Applier, Facts, is_aside};
use crate::authorship::Oneself;
use crate::bodies::new_row;

pub(super) static NOBODY: Oneself = Oneself {
    person: None,
    application: None,
    own_drive: false,
};

const DAY_NS: i64 = 86_400_000_000_000;

fn facts() -> Facts<'static> {
    Facts {
        now: Timestamp::from_nanos(DAY_NS),
        host: "host",
        oneself: &NOBODY,
        epoch: 1,
        children_come_along: true,
        prefer_confirmed: false,
        creating: false,
        in_flight: &|_| false,
        bodies: None,
    }
}

fn there(id: &str, name: &str, version: u32) -> RemoteItem {
    RemoteItem {
        id: ItemId::new(id),
        parent: Some(ItemId::new("ROOT")),
        drive: None,
        name: Some(name.into()),
        kind: ItemKind::File,
        deleted: false,
        is_root: false,
        size: Some(0),
        etag: Some(ETag::new(format!("e{id}-{version}"))),
        ctag: Some(CTag::new(format!("c{id}-{version}"))),
        created: None,
        modified: Some(Timestamp::from_nanos(DAY_NS)),
        hash: None,
        web_url: None,
        malware: false,
        provenance: Provenance::default(),
        link: None,
    }
}

fn folder(id: &str, name: &str) -> RemoteItem {
    RemoteItem {
        kind: ItemKind::Folder,
        ..there(id, name, 1)
    }
}

/// A store that knows the root and some items of the service.
fn store_with(items: &[RemoteItem]) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("meta.db")).unwrap();
    let root = RemoteItem {
        is_root: true,
        parent: None,
        name: None,
        ..folder("ROOT", "")
    };
    apply(&store, &[root]);
    apply(&store, items);
    (dir, store)
}

/// Applies items in a transaction of their own, as answers are.
fn apply(store: &Store, items: &[RemoteItem]) {
    change(store, |tx| {
        let mut applier = Applier::new(tx, facts());
        for item in items {
            assert_eq!(applier.apply(item)?, Applied::Done);
        }
        applier.show_aside()
    });
}

fn change(store: &Store, act: impl Fn(&Tx<'_>) -> Result<(), StoreError>) {
    store.write(|tx| act(tx)).unwrap();
}

fn item(store: &Store, id: &str) -> Item {
    let found = store.read(|r| r.item_by_id(&ItemId::new(id)));
    found.unwrap().unwrap()
}

fn waiting(store: &Store, ino: Ino) -> Ops {
    let row = store.read(|r| r.journal(ino)).unwrap();
    row.map_or(Ops::NONE, |row| row.ops)
}

/// Has something wait for an item.
fn wait(tx: &Tx<'_>, ino: Ino, ops: Ops) -> Result<(), StoreError> {
    let mut row = tx.new_journal(ino, facts().now)?;
    row.ops = ops;
    tx.put_journal(&row)
}

/// An answer brings what has the name of an item by now, while the page that says where that went
/// is only staged. Then the round is given up: its link is refused.
#[test]
fn what_stepped_aside_for_an_answer_has_a_usable_name_and_is_asked_for() {
    let (_dir, store) = store_with(&[there("OLD", "a.md", 1)]);
    change(&store, |tx| tx.stage(&[there("OLD", "b", 2)]));
    apply(&store, &[there("NEW", "a.md", 1)]);
    change(&store, |tx| tx.clear_stage());
    assert_eq!(item(&store, "NEW").name, "a.md");
    let old = item(&store, "OLD");
    assert_eq!(old.name, "a.md (2)", "no mark may be seen or sent");
    assert!(
        is_aside(&old),
        "nothing may be sent from a place it has left"
    );
    let asked = store.read(|r| r.deferred()).unwrap();
    assert!(asked.iter().any(|it| it.id == ItemId::new("OLD")));
    // The answer that says where it is.
    apply(&store, &[there("OLD", "b", 2)]);
    let old = item(&store, "OLD");
    assert_eq!(old.name, "b");
    assert!(!is_aside(&old) && store.read(|r| r.deferred()).unwrap().is_empty());
}

/// A file was changed on both sides while it was on its way, by way of a name for the moment, to the
/// place it was moved to here.
#[test]
fn what_both_sides_changed_on_its_way_arrives_where_it_was_moved_to() {
    let (_dir, store) = store_with(&[
        folder("F", "folder"),
        there("S", "sub", 1),
        there("I", "D", 1),
    ]);
    let swap = crate::journal::swap_name(&store).unwrap();
    let (moved, into) = (item(&store, "I").ino, item(&store, "F").ino);
    change(&store, |tx| {
        let mut item = tx.item(moved)?.unwrap();
        (item.parent, item.name) = (Some(into), "sub".into());
        item.remote.as_mut().unwrap().name.clone_from(&swap);
        tx.update_item(&item)?;
        wait(tx, moved, Ops::MOVE.with(Ops::CONTENT))
    });
    let changed = RemoteItem {
        size: Some(7),
        ..there("I", &swap, 2)
    };
    apply(&store, &[changed]);
    let theirs = item(&store, "I");
    assert_eq!((theirs.parent, theirs.name.as_str()), (Some(into), "sub"));
    assert_eq!(waiting(&store, theirs.ino), Ops::MOVE);
    let ours = store.read(|r| r.item(moved)).unwrap().unwrap();
    assert_eq!(ours.parent, Some(into));
    assert!(ours.name.starts_with("sub (conflict "), "{}", ours.name);
    assert_eq!(item(&store, "S").name, "sub");
}

/// The same with a rename that waits here.
#[test]
fn a_rename_of_what_stepped_aside_gives_way_to_the_one_on_the_service() {
    let (_dir, store) = store_with(&[there("OLD", "first", 1)]);
    let ino = item(&store, "OLD").ino;
    change(&store, |tx| {
        let mut old = tx.item(ino)?.unwrap();
        old.name = "a.md".into();
        tx.update_item(&old)?;
        tx.stage(&[there("OLD", "b", 2)])?;
        wait(tx, ino, Ops::MOVE)
    });
    apply(&store, &[there("NEW", "a.md", 1)]);
    assert!(is_aside(&item(&store, "OLD")));
    apply(&store, &[there("OLD", "b", 2)]);
    assert_eq!(item(&store, "OLD").name, "b");
    assert_eq!(waiting(&store, ino), Ops::NONE);
}

/// A folder that was removed here got something on the service; its name was taken here meanwhile.
#[test]
fn a_folder_that_merges_keeps_the_spelling_it_was_made_with() {
    let (_dir, store) = store_with(&[folder("F", "b")]);
    let old = item(&store, "F").ino;
    change(&store, |tx| {
        let mut unlinked = tx.item(old)?.unwrap();
        unlinked.parent = None;
        tx.update_item(&unlinked)?;
        wait(tx, old, Ops::DELETE)?;
        let made = Item::new(Kind::Directory, Ino::ROOT, "B", facts().now);
        let made = tx.insert_item(&made)?;
        wait(tx, made, Ops::CREATE)?;
        Applier::new(tx, facts()).bring_back(old, &folder("F", "b"))
    });
    let made = item(&store, "F");
    assert_eq!(made.name, "B");
    assert_eq!(waiting(&store, made.ino), Ops::MOVE);
}

/// A folder held the name of a file that is new there, was moved away here, and is gone there.
#[test]
fn a_name_that_a_folder_leaves_by_being_deleted_there_goes_to_what_has_it_there() {
    let (_dir, store) = store_with(&[folder("F", "sub")]);
    let ino = item(&store, "F").ino;
    let busy = |at: Ino| at == ino;
    change(&store, |tx| {
        let in_flight = Facts {
            in_flight: &busy,
            ..facts()
        };
        Applier::new(tx, in_flight).apply(&there("NEW", "sub", 1))?;
        let mut moved = tx.item(ino)?.unwrap();
        moved.name = "B".into();
        tx.update_item(&moved)?;
        let mut inside = Item::new(Kind::File, ino, "unsent", facts().now);
        inside.ino = tx.insert_item(&inside)?;
        wait(tx, ino, Ops::MOVE)
    });
    assert_eq!(item(&store, "NEW").name, "sub (2)");
    let gone = RemoteItem {
        deleted: true,
        ..folder("F", "sub")
    };
    apply(&store, &[gone]);
    assert_eq!(item(&store, "NEW").name, "sub");
}

/// A folder was removed here, and is gone there as well, but something that was not sent yet came
/// into it meanwhile.
#[test]
fn what_came_into_a_folder_that_was_going_is_in_reach() {
    let (_dir, store) = store_with(&[folder("F", "folder"), there("I", "inside", 1)]);
    let (ino, inside) = (item(&store, "F").ino, item(&store, "I").ino);
    change(&store, |tx| {
        let mut unlinked = tx.item(ino)?.unwrap();
        unlinked.parent = None;
        tx.update_item(&unlinked)?;
        wait(tx, ino, Ops::DELETE)?;
        let mut item = tx.item(inside)?.unwrap();
        (item.parent, item.remote) = (Some(ino), None);
        tx.update_item(&item)?;
        wait(tx, inside, Ops::CREATE.with(Ops::CONTENT))
    });
    let gone = RemoteItem {
        deleted: true,
        ..folder("F", "folder")
    };
    apply(&store, &[gone]);
    let path = store.read(|r| r.path(inside)).unwrap();
    assert_eq!(path, "folder/inside");
    assert_eq!(waiting(&store, ino), Ops::CREATE);
    let folder = store.read(|r| r.item(ino)).unwrap().unwrap();
    assert!(folder.parent == Some(Ino::ROOT) && folder.remote.is_none());
}

/// A request that emptied a file on the service was not answered.
#[test]
fn an_empty_file_keeps_the_time_that_was_set_here() {
    let (_dir, store) = store_with(&[]);
    let set = Timestamp::from_nanos(1_034_441_575_499_648_970);
    let full = Remote {
        size: 9,
        ..base_of(&there("E", "empty", 1))
    };
    let mut empty = Item::new(Kind::File, Ino::ROOT, "empty", facts().now);
    empty.mtime = set;
    empty.remote = Some(full);
    let mut ino = Ino::ROOT;
    store
        .write(|tx| {
            ino = tx.insert_item(&empty)?;
            wait(tx, ino, Ops::CONTENT.with(Ops::TIMES))
        })
        .unwrap();
    apply(&store, &[there("E", "empty", 2)]);
    assert_eq!(item(&store, "E").mtime, set);
    assert_eq!(waiting(&store, ino), Ops::TIMES);
}

/// The answer to the request that set a time got lost, and the feed has it in whole seconds.
#[test]
fn a_time_that_the_service_rounded_stays_what_was_set_here() {
    let (_dir, store) = store_with(&[there("E", "empty", 1)]);
    let set = Timestamp::from_nanos(1_034_441_575_499_648_970);
    let mut known = item(&store, "E");
    known.mtime = set;
    store.write(|tx| tx.update_item(&known)).unwrap();
    let rounded = RemoteItem {
        modified: Some(Timestamp::from_nanos(1_034_441_575_000_000_000)),
        ctag: there("E", "empty", 1).ctag,
        ..there("E", "empty", 2)
    };
    apply(&store, &[rounded]);
    assert_eq!(item(&store, "E").mtime, set);
    apply(&store, &[there("E", "empty", 1)]);
    assert_eq!(item(&store, "E").mtime, Timestamp::from_nanos(DAY_NS));
}

fn base_of(there: &RemoteItem) -> Remote {
    Remote {
        id: there.id.clone(),
        parent: Some(Ino::ROOT),
        name: there.name.clone().unwrap(),
        etag: there.etag.clone(),
        ctag: there.ctag.clone(),
        hash: None,
        size: 0,
        mtime: Timestamp::from_nanos(0),
        author: None,
    }
}

/// A program set the time of a file whose content was being sent. The answer was lost, and the
/// service shows the content with a time of its own.
#[test]
fn a_time_that_was_set_here_stays_when_the_content_turns_out_to_be_ours() {
    let (_dir, store) = store_with(&[there("FILE", "file", 1)]);
    let before = item(&store, "FILE");
    let hash = QuickXorHash::from_bytes([7; 20]);
    let set = Timestamp::from_nanos(3 * DAY_NS + 5);
    change(&store, |tx| {
        let row = BodyRow {
            size: 9,
            hash: Some(hash),
            place: Place::Spool,
            ..new_row(before.ino, facts().now)
        };
        let body = Some(tx.insert_body(&row)?);
        tx.update_item(&Item {
            body,
            size: 9,
            mtime: set,
            ..before.clone()
        })?;
        wait(tx, before.ino, Ops::CONTENT.with(Ops::TIMES))
    });
    apply(
        &store,
        &[RemoteItem {
            size: Some(9),
            hash: Some(hash),
            ..there("FILE", "file", 2)
        }],
    );
    assert_eq!(item(&store, "FILE").mtime, set);
    assert!(waiting(&store, before.ino).has(Ops::TIMES));
}

/// Theirs has the name of a file that was deleted here and renamed there, in this order of news.
#[test]
fn a_name_that_a_deleted_file_has_left_there_is_given_to_what_is_shown_beside_it() {
    let (_dir, store) = store_with(&[there("GONE", "name", 1), there("THEIRS", "other", 1)]);
    apply(&store, &[there("THEIRS", "name", 2)]);
    assert_eq!(item(&store, "THEIRS").name, "name (2)");
    let gone = item(&store, "GONE");
    change(&store, |tx| {
        tx.update_item(&Item {
            parent: None,
            ..gone.clone()
        })?;
        wait(tx, gone.ino, Ops::DELETE)
    });
    apply(&store, &[there("GONE", "elsewhere", 2)]);
    assert_eq!(item(&store, "THEIRS").name, "name");
}
