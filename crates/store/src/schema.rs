//! The schema and its migrations, numbered by `user_version`.

use std::collections::BTreeSet;
use std::path::Path;

use onedrivefs_core::{Ino, Timestamp, kill_point};
use rusqlite::Connection;

use crate::StoreError;

/// Each entry brings the schema from its index to the next version. Entries are never edited.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11];

/// Fewer pages for the log to take when a file is made and saved, of which every one costs as much as a
/// row: no index has a body of the spool for when it was used, one index has it until its save is on
/// stable storage, a row of the journal is in one index, and the counter of those rows shares the
/// page of those that count inodes and bodies.
const V11: &str = "
DROP INDEX bodies_by_use;
DROP INDEX bodies_dirty;
DROP INDEX bodies_unsynced;
CREATE INDEX bodies_cached ON bodies (used_at) WHERE place = 0;
CREATE INDEX bodies_unsettled ON bodies (id)
  WHERE dirty = 1 OR place = 1 AND (synced IS NULL OR synced < generation);
CREATE TABLE journal_new (
  ino INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  ops INTEGER NOT NULL,
  change INTEGER NOT NULL,
  since INTEGER NOT NULL,
  touched INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  parked INTEGER NOT NULL,
  error TEXT,
  session_url TEXT,
  session_offset INTEGER,
  session_body INTEGER,
  session_generation INTEGER,
  session_size INTEGER,
  held INTEGER NOT NULL DEFAULT 0,
  copy_url TEXT,
  copy_body INTEGER,
  copy_generation INTEGER,
  copy_polls INTEGER
) STRICT;
INSERT INTO journal_new SELECT ino, seq, ops, change, since, touched, not_before, attempts, parked, error,
  session_url, session_offset, session_body, session_generation, session_size, held, copy_url, copy_body,
  copy_generation, copy_polls FROM journal;
DROP TABLE journal;
ALTER TABLE journal_new RENAME TO journal;
CREATE INDEX journal_free ON journal (seq) WHERE parked = 0;
CREATE INDEX journal_parked ON journal (seq) WHERE parked = 1;
CREATE INDEX journal_held ON journal (seq) WHERE held = 1;
INSERT INTO sqlite_sequence (name, seq) VALUES ('journal.seq', max(
  coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'journal_seq'), 0),
  coalesce((SELECT max(seq) FROM journal), 0)));
DELETE FROM meta WHERE key = 'journal_seq';
";

/// Items that stand for files of other drives; and what leads to a folder of another drive, if a
/// shortcut in another such folder shows it.
const V10: &str = "
CREATE TABLE links (
  item_key TEXT PRIMARY KEY,
  item_id TEXT NOT NULL,
  drive TEXT NOT NULL,
  target TEXT NOT NULL,
  read_only INTEGER NOT NULL
) STRICT;
ALTER TABLE slots ADD COLUMN above TEXT NOT NULL DEFAULT '';
";

/// Folders of other drives that are shown in this one. Numbers are never used again.
const V9: &str = "
CREATE TABLE slots (
  slot INTEGER PRIMARY KEY AUTOINCREMENT,
  ino INTEGER UNIQUE,
  drive TEXT NOT NULL,
  item TEXT NOT NULL,
  kind TEXT,
  state INTEGER NOT NULL
) STRICT;
";

/// Who wrote the content that the service has of an item. Of items known before this was noted it
/// is to be asked before it matters.
const V8: &str = "
ALTER TABLE items ADD COLUMN author INTEGER;
";

/// Files that are copies of what the service has, which save of a body is one, and how the copy
/// goes that was asked for.
const V7: &str = "
ALTER TABLE bodies ADD COLUMN copied INTEGER;
CREATE INDEX bodies_unsent_by_base ON bodies (base_item)
  WHERE place = 1 AND (complete = 0 OR copied IS NOT NULL);
ALTER TABLE journal ADD COLUMN copy_url TEXT;
ALTER TABLE journal ADD COLUMN copy_body INTEGER;
ALTER TABLE journal ADD COLUMN copy_generation INTEGER;
ALTER TABLE journal ADD COLUMN copy_polls INTEGER;
";

/// What is kept whole on this machine, and since when.
const V6: &str = "
CREATE TABLE pins (ino INTEGER PRIMARY KEY, since INTEGER NOT NULL) STRICT;
";

/// Bodies whose rows are gone and whose files may still be there: only those may be removed from
/// the spool without a row that says so.
const V5: &str = "
CREATE TABLE removed_bodies (id INTEGER PRIMARY KEY) STRICT;
";

/// Which save of a body is on stable storage. Bodies that were saved before this was noted wait to
/// be put there like new ones.
const V4: &str = "
ALTER TABLE bodies ADD COLUMN synced INTEGER;
ALTER TABLE bodies ADD COLUMN synced_size INTEGER;
ALTER TABLE bodies ADD COLUMN synced_ranges BLOB;
CREATE INDEX bodies_unsynced ON bodies (id)
  WHERE place = 1 AND dirty = 0 AND (synced IS NULL OR synced < generation);
CREATE INDEX bodies_previous ON bodies (previous) WHERE previous IS NOT NULL;
";

const V3: &str = "
ALTER TABLE journal ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX journal_held ON journal (seq) WHERE held = 1;
CREATE INDEX journal_free ON journal (seq) WHERE parked = 0;
";

const V2: &str = "
CREATE TABLE unanswered (
  ino INTEGER NOT NULL,
  item_id TEXT,
  item_key TEXT,
  parent INTEGER NOT NULL,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL,
  size INTEGER,
  hash TEXT
) STRICT;
CREATE UNIQUE INDEX unanswered_once ON unanswered
  (ino, coalesce(item_key, ''), parent, name_key, coalesce(size, -1), coalesce(hash, ''));
CREATE INDEX unanswered_by_item ON unanswered (item_key) WHERE item_key IS NOT NULL;
CREATE INDEX unanswered_by_name ON unanswered (parent, name_key) WHERE item_key IS NULL;
";

const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE items (
  ino INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL,
  role INTEGER NOT NULL,
  parent INTEGER,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL,
  item_id TEXT,
  item_key TEXT UNIQUE,
  r_parent INTEGER,
  r_name TEXT,
  r_key TEXT,
  etag TEXT,
  ctag TEXT,
  hash TEXT,
  r_size INTEGER,
  r_mtime INTEGER,
  size INTEGER NOT NULL,
  mtime INTEGER NOT NULL,
  ctime INTEGER NOT NULL,
  btime INTEGER NOT NULL,
  atime INTEGER NOT NULL,
  mode INTEGER,
  body INTEGER,
  children_known INTEGER NOT NULL,
  local_only INTEGER NOT NULL,
  target BLOB,
  web_url TEXT,
  epoch INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX items_by_name ON items (parent, name_key) WHERE parent IS NOT NULL;
CREATE INDEX items_by_remote_name ON items (r_parent, r_key) WHERE r_parent IS NOT NULL;

CREATE TABLE bodies (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  ino INTEGER NOT NULL,
  place INTEGER NOT NULL,
  size INTEGER NOT NULL,
  complete INTEGER NOT NULL,
  ranges BLOB,
  base_item TEXT,
  base_etag TEXT,
  base_ctag TEXT,
  base_hash TEXT,
  base_size INTEGER NOT NULL,
  dirty INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  hash TEXT,
  used_at INTEGER NOT NULL,
  previous INTEGER
) STRICT;
CREATE INDEX bodies_by_use ON bodies (place, used_at);
CREATE INDEX bodies_dirty ON bodies (id) WHERE dirty = 1;

CREATE TABLE journal (
  ino INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  ops INTEGER NOT NULL,
  change INTEGER NOT NULL,
  since INTEGER NOT NULL,
  touched INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  parked INTEGER NOT NULL,
  error TEXT,
  session_url TEXT,
  session_offset INTEGER,
  session_body INTEGER,
  session_generation INTEGER,
  session_size INTEGER
) STRICT;

CREATE TABLE stage (item_key TEXT PRIMARY KEY, position INTEGER NOT NULL, item TEXT NOT NULL) STRICT;
CREATE TABLE deferred (item_key TEXT PRIMARY KEY, item TEXT NOT NULL) STRICT;
CREATE TABLE conflicts (
  id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, copy TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE xattrs (
  ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (ino, name)
) STRICT, WITHOUT ROWID;
";

/// The version of the schema in a database; 0 for an empty one.
///
/// # Errors
/// `TooNew` when a later version of the program wrote it; SQLite's errors otherwise.
pub fn version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let tables = names(conn)?.len();
    if found < 0 || (found == 0) != (tables == 0) {
        return Err(StoreError::Damaged {
            reason: format!("schema version {found} with {tables} tables and indexes"),
        });
    }
    Ok(found)
}

/// Compares a migrated database with one that was just made.
///
/// # Errors
/// `Damaged` when a table or an index is missing; SQLite's errors.
pub fn check(conn: &Connection) -> Result<(), StoreError> {
    let fresh = Connection::open_in_memory()?;
    for sql in MIGRATIONS {
        fresh.execute_batch(sql)?;
    }
    let here = names(conn)?;
    match names(&fresh)?.difference(&here).next() {
        Some(name) => Err(StoreError::Damaged {
            reason: format!("{name} is missing"),
        }),
        None => Ok(()),
    }
}

/// The names of all tables and indexes.
fn names(conn: &Connection) -> Result<BTreeSet<String>, StoreError> {
    let mut statement = conn.prepare("SELECT name FROM sqlite_schema")?;
    let names = statement.query_map((), |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Brings a database of schema version `found` to the newest schema, creating it when it is empty.
///
/// # Errors
/// SQLite's errors.
pub fn migrate(conn: &mut Connection, found: i64) -> Result<(), StoreError> {
    for (version, sql) in (0_i64..)
        .zip(MIGRATIONS)
        .filter(|(version, _)| *version >= found)
    {
        let tx = conn.transaction()?;
        tx.execute_batch(sql)?;
        if version == 0 {
            insert_root(&tx)?;
        }
        tx.pragma_update(None, "user_version", version + 1)?;
        kill_point("before-migration");
        tx.commit()?;
        kill_point("after-migration");
    }
    Ok(())
}

/// Inserts the root directory, whose inode number the kernel fixes.
fn insert_root(conn: &Connection) -> Result<(), StoreError> {
    let now = Timestamp::now().as_nanos();
    conn.execute(
        "INSERT INTO items (ino, kind, role, name, name_key, size, mtime, ctime, btime, atime,
                            children_known, local_only, epoch)
         VALUES (?1, 0, 0, '', '', 0, ?2, ?2, ?2, ?2, 0, 0, 0)",
        (Ino::ROOT.0, now),
    )?;
    Ok(())
}
