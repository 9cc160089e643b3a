//! The store through its public interface.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_core::{
    DriveId, DriveKind, ETag, ExposeSecret as _, Ino, ItemId, SecretString, Timestamp,
};
use onedrivefs_store::{
    Author, BodyRow, Item, Kind, Ops, Place, Reader, Remote, Session, Slot, SlotState, Store,
    StoreError, Tx, decode_ranges, encode_ranges,
};
use rusqlite::Connection;

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("meta.db")).unwrap()
}

fn file(name: &str) -> Item {
    Item::new(Kind::File, Ino::ROOT, name, Timestamp::from_nanos(1))
}

fn insert(store: &Store, item: &Item) -> Ino {
    store.write(|tx| tx.insert_item(item)).unwrap()
}

fn remote(id: &str, parent: Ino, name: &str) -> Remote {
    Remote {
        id: ItemId::new(id),
        parent: Some(parent),
        name: name.into(),
        etag: Some(ETag::new("\"e\"")),
        ctag: None,
        hash: None,
        size: 7,
        mtime: Timestamp::from_nanos(9),
        author: Some(Author::Doubtful),
    }
}

#[test]
fn inode_numbers_are_never_reused_also_not_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let first = insert(&store, &file("a"));
    store.write(|tx| tx.delete_item(first)).unwrap();
    drop(store);
    let store = open(&dir);
    assert!(insert(&store, &file("a")) > first);
}

#[test]
fn rows_come_back_as_they_were_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut item = file("Thesis.odt");
    item.remote = Some(remote("AB12CD34EF56789!s1", Ino::ROOT, "Thesis.odt"));
    item.mode = Some(0o640);
    item.target = Some(b"x".to_vec());
    item.ino = insert(&store, &item);
    assert_eq!(
        store.read(|r| r.item(item.ino)).unwrap().as_ref(),
        Some(&item)
    );
    // A personal id is found under every spelling of its drive.
    let other = ItemId::new("0ab12cd34ef56789!s1");
    assert_eq!(store.read(|r| r.item_by_id(&other)).unwrap(), Some(item));
    assert_eq!(
        DriveId::new("AB12CD34EF56789"),
        DriveId::new("0ab12cd34ef56789")
    );
}

#[test]
fn what_a_commit_changed_is_in_memory_as_it_became() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut item = file("a");
    item.ino = insert(&store, &item);
    assert_eq!(store.item(item.ino).unwrap().as_deref(), Some(&item));
    item.size = 5;
    // The last change counts, and the one that failed does not.
    let changed: Result<_, StoreError> = store.write(|tx| {
        tx.update_item(&Item {
            size: 3,
            ..item.clone()
        })?;
        tx.update_item(&item)
    });
    changed.unwrap();
    let failed: Result<(), StoreError> = store.write(|tx| {
        tx.update_item(&Item {
            size: 9,
            ..item.clone()
        })?;
        Err(StoreError::Lost)
    });
    assert!(failed.is_err());
    assert_eq!(store.item(item.ino).unwrap().as_deref(), Some(&item));
    // No row, no entry: it was deleted by the time of the update.
    store
        .write(|tx| {
            tx.delete_item(item.ino)?;
            tx.update_item(&item)
        })
        .unwrap();
    assert_eq!(store.item(item.ino).unwrap(), None);
}

#[test]
fn names_are_found_as_the_service_compares_them_and_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let ino = insert(&store, &file("E\u{301}te\u{301} 2026"));
    for spelling in ["E\u{301}te\u{301} 2026", "ÉTÉ 2026", "été 2026"] {
        let found = store.read(|r| r.child(Ino::ROOT, spelling)).unwrap();
        assert_eq!(found.map(|item| item.ino), Some(ino), "{spelling}");
    }
    let taken = store.write(|tx| tx.insert_item(&file("été 2026")));
    assert!(matches!(taken, Err(error) if error.is_constraint()));
}

#[test]
fn a_failed_transaction_leaves_nothing_and_the_hot_cache_is_never_stale() {
    /// Enough for readers to meet every moment of a commit.
    const COMMITS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir));
    let mut item = file("a");
    item.ino = insert(&store, &item);
    assert_eq!(store.item(item.ino).unwrap().unwrap().size, 0);
    let failed = store.write(|tx| {
        let mut changed = item.clone();
        changed.size = 5;
        tx.update_item(&changed)?;
        Err::<(), _>(StoreError::Malformed { what: "test" })
    });
    assert!(failed.is_err());
    assert_eq!(store.item(item.ino).unwrap().unwrap().size, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = Arc::clone(&store);
            scope.spawn(move || {
                let mut last = 0;
                while last < COMMITS {
                    let size = reader.item(Ino(2)).unwrap().unwrap().size;
                    assert!(size >= last, "a row went back in time");
                    last = size;
                }
            });
        }
        for size in 1..=COMMITS {
            let mut changed = item.clone();
            changed.size = size;
            store.write(|tx| tx.update_item(&changed)).unwrap();
            assert_eq!(store.item(item.ino).unwrap().unwrap().size, size);
        }
    });
}

/// A reader keeps its transaction open between two reads: it must neither show an old state nor keep
/// the log from being moved and written from its beginning.
#[test]
fn a_read_sees_what_was_committed_before_it_and_holds_up_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut item = file("a");
    item.ino = insert(&store, &item);
    let size = || {
        let row = store.read(|r| r.item(item.ino)).unwrap();
        row.unwrap().size
    };
    for saved in 1..=3 {
        let before = size();
        let new = Item {
            size: saved,
            ..item.clone()
        };
        let update = |tx: &Tx<'_>| {
            tx.update_item(&new)?;
            assert_eq!(size(), before);
            Ok::<_, StoreError>(())
        };
        store.write(update).unwrap();
        assert_eq!((size(), size()), (saved, saved));
    }
    let began = Instant::now();
    store.checkpoint().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "it waited");
    let log = fs::metadata(dir.path().join("meta.db-wal")).unwrap();
    assert_eq!(log.len(), 0);
    assert_eq!((size(), size()), (3, 3));
}

#[test]
fn the_journal_keeps_its_order_and_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let now = Timestamp::from_nanos(1);
    let inos: Vec<Ino> = ["a", "b", "c"]
        .iter()
        .map(|name| insert(&store, &file(name)))
        .collect();
    store
        .write(|tx| {
            for &ino in &inos {
                let mut row = tx.new_journal(ino, now)?;
                row.ops = Ops::CREATE.with(Ops::CONTENT);
                tx.put_journal(&row)?;
            }
            let mut row = tx.journal(inos[0])?.unwrap();
            row.session = Some(Session {
                url: SecretString::from("https://up.example/1"),
                offset: 327_680,
                body: 4,
                generation: 2,
                size: 700_000,
            });
            tx.put_journal(&row)?;
            let mut parked = tx.journal(inos[1])?.unwrap();
            parked.parked = true;
            tx.put_journal(&parked)
        })
        .unwrap();
    drop(store);
    let store = open(&dir);
    let rows = store.read(|r| r.journal_after(0, 10)).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.ino).collect::<Vec<_>>(),
        [inos[0], inos[2]]
    );
    assert_eq!(rows[0].session.as_ref().unwrap().offset, 327_680);
    assert_eq!(store.read(|r| r.parked()).unwrap().len(), 1);
    assert_eq!(store.read(|r| r.pending()).unwrap().0, 3);
    // An empty set is no row, and a position is not given out twice.
    store
        .write(|tx| {
            let mut row = tx.journal(inos[2])?.unwrap();
            let seq = row.seq;
            row.ops = Ops::NONE;
            tx.put_journal(&row)?;
            assert!(tx.new_journal(inos[2], now)?.seq > seq);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert!(store.read(|r| r.journal(inos[2])).unwrap().is_none());
}

#[test]
fn ranges_survive_packing_and_damage() {
    let ranges = [0..5_u64, 10..20].into_iter().collect();
    assert_eq!(decode_ranges(&encode_ranges(&ranges)), ranges);
    assert!(decode_ranges(&[1, 2, 3]).is_empty());
    assert!(
        decode_ranges(&[[9_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat(), vec![1]].concat())
            .is_empty()
    );
}

#[test]
fn bodies_of_a_killed_daemon_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let row = BodyRow {
        id: 0,
        ino: insert(&store, &file("a")),
        place: Place::Spool,
        size: 10,
        ranges: Some(std::iter::once(2..4_u64).collect()),
        base_item: Some(ItemId::new("1")),
        base_etag: None,
        base_ctag: None,
        base_hash: None,
        base_size: 10,
        dirty: true,
        generation: 3,
        hash: None,
        used_at: Timestamp::from_nanos(1),
        previous: None,
        durable: None,
        copied: None,
    };
    let id = store.write(|tx| tx.insert_body(&row)).unwrap();
    drop(store);
    let found = open(&dir).read(|r| r.dirty_bodies()).unwrap();
    assert_eq!(found, [BodyRow { id, ..row }]);
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let path = dir.path().join("meta.db");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 999)
        .unwrap();
    let refused = Store::open(&path);
    assert!(matches!(
        refused,
        Err(StoreError::TooNew { found: 999, .. })
    ));
}

#[test]
fn a_database_of_every_earlier_version_is_brought_up_with_all_that_is_in_it() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let newest = {
        let dir = tempfile::tempdir().unwrap();
        drop(open(&dir));
        let conn = Connection::open(dir.path().join("meta.db")).unwrap();
        let version = conn.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
        version.unwrap()
    };
    for version in 1..=newest {
        let fixture = fixtures.join(format!("v{version}.sql"));
        let sql = fs::read_to_string(&fixture)
            .unwrap_or_else(|_| panic!("{} is missing", fixture.display()));
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("meta.db")).unwrap();
        conn.execute_batch(&sql).unwrap();
        drop(conn);
        let store = open(&dir);
        store.read(|r| check_upgraded(r, version)).unwrap();
        // It goes on from there.
        let next = store.write(|tx| tx.insert_item(&file("next"))).unwrap();
        assert_eq!(next, Ino(6), "version {version}");
        let row = store.write(|tx| tx.new_journal(next, Timestamp::from_nanos(1)));
        assert_eq!(row.unwrap().seq, 6, "version {version}");
    }
}

/// Looks for what every fixture holds.
fn check_upgraded(r: &Reader<'_>, version: u32) -> Result<(), StoreError> {
    let report = r.item(Ino(2))?.unwrap();
    assert_eq!((report.size, report.mode), (12, Some(0o640)));
    let base = report.remote.unwrap();
    assert_eq!(base.etag, Some(ETag::new("\"e2\"")));
    // Who wrote it is to be asked where an earlier version did not note it.
    assert_eq!(base.author, (version >= 8).then_some(Author::Own));
    let other = r.item(Ino(3))?.unwrap().remote.unwrap().author;
    assert_eq!(other, (version >= 8).then_some(Author::Other));
    let parked = r.parked()?;
    assert_eq!(parked.len(), 1, "version {version}");
    assert_eq!(parked[0].ino, Ino(2));
    assert_eq!(parked[0].error.as_deref(), Some("access denied"));
    assert_eq!((parked[0].change, parked[0].ops), (6, Ops::CONTENT));
    let deletion = r.journal(Ino(3))?.unwrap();
    assert_eq!(deletion.ops, Ops::DELETE);
    assert_eq!(deletion.held, version >= 3, "only version 3 knew of it");
    let session = r.journal(Ino(4))?.unwrap().session.unwrap();
    assert_eq!(session.url.expose_secret(), "https://upload.example/4");
    assert_eq!(
        (session.offset, session.body, session.size),
        (327_680, 5, 655_360)
    );
    let body = r.body(4)?.unwrap();
    assert_eq!((body.place, body.generation), (Place::Spool, 3));
    assert_eq!(body.ranges.unwrap().iter().collect::<Vec<_>>(), [&(0..4)]);
    assert_eq!(body.copied, (version >= 7).then_some(3));
    let copy = r.journal(Ino(4))?.unwrap().copy;
    let copy = copy.map(|copy| (copy.url.expose_secret().to_owned(), copy.body, copy.polls));
    let expected = ("https://monitor.example/4".to_owned(), 5, 2);
    assert_eq!(copy, (version >= 7).then_some(expected));
    assert_eq!(r.dirty_bodies()?.len(), 1);
    let link = r.item(Ino(5))?.unwrap();
    assert_eq!(
        (link.target, link.local_only),
        (Some(b"target".to_vec()), true)
    );
    let targets = r.links()?.into_iter().map(|(_, target)| target.read_only);
    let expected: &[bool] = if version >= 10 { &[true] } else { &[] };
    assert_eq!(targets.collect::<Vec<_>>(), expected);
    let above = r.slot(3)?.map(|slot| slot.above).unwrap_or_default();
    assert_eq!(above.is_empty(), version < 10, "version {version}");
    assert_eq!(r.meta("epoch")?.as_deref(), Some("1"));
    assert_eq!(r.count_staged()?, 1);
    assert_eq!(r.conflicts(10)?.len(), 1);
    assert_eq!(r.xattr(Ino(2), b"user.a")?, Some(b"b".to_vec()));
    let unanswered = usize::from(version >= 2);
    assert_eq!(r.unanswered_of(Ino(4))?.len(), unanswered);
    let pin = (version >= 6).then_some(Ino(2));
    assert_eq!(r.pin_of(Ino(2))?, pin, "version {version}");
    let slots: Vec<u32> = r.slots()?.iter().map(|slot| slot.number).collect();
    let expected: &[u32] = if version >= 9 { &[3] } else { &[] };
    assert_eq!(slots, expected, "version {version}");
    Ok(())
}

/// The plan of a query, as SQLite explains it.
fn plan(path: &Path, query: &str) -> String {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn
        .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
        .unwrap();
    let rows = statement
        .query_map((), |row| row.get::<_, String>(3))
        .unwrap();
    rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
}

#[test]
fn hot_queries_use_an_index() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    for query in [
        "SELECT rowid, item FROM stage WHERE rowid >= 1 ORDER BY rowid LIMIT 500",
        "DELETE FROM stage WHERE rowid <= 1",
        "SELECT * FROM items WHERE parent = 1 AND name_key = 'a'",
        "SELECT * FROM items WHERE parent = 1",
        "SELECT * FROM items WHERE r_parent = 1 AND r_key = 'a'",
        "SELECT * FROM items WHERE r_parent = 1",
        "SELECT * FROM items WHERE item_key = 'x'",
        "SELECT * FROM journal WHERE seq > 5 AND parked = 0 ORDER BY seq LIMIT 10",
        "SELECT * FROM journal WHERE seq > 5 AND parked = 0
           UNION ALL SELECT * FROM journal WHERE seq > 5 AND parked = 1 ORDER BY seq LIMIT 10",
        "SELECT * FROM bodies WHERE (dirty = 1 OR place = 1 AND (synced IS NULL OR synced < generation))
           AND dirty = 1",
        "SELECT * FROM bodies WHERE place = 0 ORDER BY used_at",
        "SELECT * FROM bodies WHERE base_item = 'x' AND place = 1
           AND (complete = 0 OR copied IS NOT NULL)",
        "WITH RECURSIVE tree (ino) AS (SELECT 1 UNION SELECT items.ino FROM tree JOIN items
           ON items.parent = tree.ino) SELECT * FROM tree",
    ] {
        let plan = plan(&dir.path().join("meta.db"), query);
        assert!(
            (plan.contains("SEARCH") || plan.contains("USING INDEX")) && !plan.contains("TEMP B-TREE"),
            "{query}: {plan}"
        );
    }
}

#[test]
fn a_pin_reaches_down_and_goes_with_the_inode() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let now = Timestamp::from_nanos(1);
    let (folder, inner, leaf) = store
        .write(|tx| {
            let folder = tx.insert_item(&Item::new(Kind::Directory, Ino::ROOT, "folder", now))?;
            let inner = tx.insert_item(&Item::new(Kind::Directory, folder, "inner", now))?;
            let leaf = tx.insert_item(&Item::new(Kind::File, inner, "leaf", now))?;
            assert!(tx.pin(folder, now)?);
            assert!(!tx.pin(folder, now)?, "it was pinned already");
            Ok::<_, StoreError>((folder, inner, leaf))
        })
        .unwrap();
    let pin_of = |ino| store.read(|r| r.pin_of(ino)).unwrap();
    let pinned = || {
        let mut seen = Vec::new();
        store
            .read(|r| r.each_pinned(|item| seen.push(item.ino)))
            .unwrap();
        seen.sort();
        seen
    };
    assert_eq!((pin_of(leaf), pin_of(Ino::ROOT)), (Some(folder), None));
    assert_eq!(pinned(), [folder, inner, leaf]);
    // A pin of its own counts before that of the folder, and nothing is shown twice.
    store.write(|tx| tx.pin(inner, now)).unwrap();
    assert_eq!((pin_of(leaf), pinned().len()), (Some(inner), 3));
    // Moved out, it has only its own.
    let mut moved = store.item(inner).unwrap().unwrap().as_ref().clone();
    moved.parent = Some(Ino::ROOT);
    store.write(|tx| tx.update_item(&moved)).unwrap();
    assert_eq!(pin_of(leaf), Some(inner));
    assert!(store.write(|tx| tx.unpin(inner)).unwrap());
    assert_eq!((pin_of(leaf), pinned()), (None, vec![folder]));
    // Unlinked, it is pinned no more; brought back, it is.
    let mut gone = store.item(folder).unwrap().unwrap().as_ref().clone();
    gone.parent = None;
    store.write(|tx| tx.update_item(&gone)).unwrap();
    assert_eq!((pin_of(folder), pinned()), (None, vec![]));
    gone.parent = Some(Ino::ROOT);
    store.write(|tx| tx.update_item(&gone)).unwrap();
    store.write(|tx| tx.move_pin(folder, inner)).unwrap();
    assert_eq!((pin_of(folder), pin_of(leaf)), (None, Some(inner)));
    store.write(|tx| tx.delete_item(inner)).unwrap();
    assert!(!store.read(|r| r.has_pins()).unwrap());
}

#[test]
fn a_slot_keeps_its_number_and_no_number_is_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let (drive, item) = (DriveId::new("b!theirs"), ItemId::new("01THEIRS"));
    let shortcut = |name: &str| store.write(|tx| tx.insert_item(&file(name))).unwrap();
    let follow = |ino| {
        let followed = store.write(|tx| tx.follow(ino, &drive, &item, Some(DriveKind::Business)));
        followed.unwrap();
        store.read(|r| r.slot_of(ino)).unwrap()
    };
    let states = || {
        let slots = store.read(|r| r.slots()).unwrap();
        let state = |slot: &Slot| (slot.number, slot.ino, slot.state);
        slots.iter().map(state).collect::<Vec<_>>()
    };
    let first = shortcut("first");
    assert_eq!((follow(first), follow(first)), (Some(1), Some(1)));
    // A second way to the same folder shows nothing.
    let second = shortcut("second");
    assert_eq!(follow(second), None);
    // The first is gone: what waits in the slot is still to be sent, and the second takes it over.
    store.write(|tx| tx.delete_item(first)).unwrap();
    assert_eq!(states(), [(1, None, SlotState::Left)]);
    let last_path = || store.read(|r| r.slot(1)).unwrap().unwrap().last_path;
    assert_eq!(last_path().as_deref(), Some("first"));
    assert_eq!(follow(second), Some(1));
    assert_eq!(last_path(), None);
    // What was discarded is not taken up again.
    store.write(|tx| tx.discard_slot(1)).unwrap();
    assert_eq!(follow(second), Some(2));
    store.write(|tx| tx.forget_slot(1)).unwrap();
    store.write(|tx| tx.discard_slot(2)).unwrap();
    store.write(|tx| tx.forget_slot(2)).unwrap();
    assert_eq!(states(), []);
    assert_eq!(follow(second), Some(3));
}
