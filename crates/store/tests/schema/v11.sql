-- A state directory's database as version 11 of the schema left it. Never edited.
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
ALTER TABLE journal ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX journal_held ON journal (seq) WHERE held = 1;
CREATE INDEX journal_free ON journal (seq) WHERE parked = 0;

ALTER TABLE bodies ADD COLUMN synced INTEGER;
ALTER TABLE bodies ADD COLUMN synced_size INTEGER;
ALTER TABLE bodies ADD COLUMN synced_ranges BLOB;
CREATE INDEX bodies_unsynced ON bodies (id)
  WHERE place = 1 AND dirty = 0 AND (synced IS NULL OR synced < generation);
CREATE INDEX bodies_previous ON bodies (previous) WHERE previous IS NOT NULL;
CREATE TABLE removed_bodies (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE pins (ino INTEGER PRIMARY KEY, since INTEGER NOT NULL) STRICT;
ALTER TABLE bodies ADD COLUMN copied INTEGER;
CREATE INDEX bodies_unsent_by_base ON bodies (base_item)
  WHERE place = 1 AND (complete = 0 OR copied IS NOT NULL);
ALTER TABLE journal ADD COLUMN copy_url TEXT;
ALTER TABLE journal ADD COLUMN copy_body INTEGER;
ALTER TABLE journal ADD COLUMN copy_generation INTEGER;
ALTER TABLE journal ADD COLUMN copy_polls INTEGER;
ALTER TABLE items ADD COLUMN author INTEGER;
CREATE TABLE slots (
  slot INTEGER PRIMARY KEY AUTOINCREMENT,
  ino INTEGER UNIQUE,
  drive TEXT NOT NULL,
  item TEXT NOT NULL,
  kind TEXT,
  state INTEGER NOT NULL
) STRICT;
ALTER TABLE slots ADD COLUMN above TEXT NOT NULL DEFAULT '';
CREATE TABLE links (
  item_key TEXT PRIMARY KEY,
  item_id TEXT NOT NULL,
  drive TEXT NOT NULL,
  target TEXT NOT NULL,
  read_only INTEGER NOT NULL
) STRICT;
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
UPDATE sqlite_sequence SET seq = 5 WHERE name = 'journal.seq';
INSERT INTO meta VALUES ('epoch', '1'), ('delta_link', 'https://graph.example/delta?token=1');
INSERT INTO items (ino, kind, role, name, name_key, size, mtime, ctime, btime, atime, children_known, local_only, epoch)
  VALUES (1, 0, 0, '', '', 0, 7, 7, 7, 7, 1, 0, 1);
INSERT INTO items VALUES
  (2, 1, 0, 1, 'report.odt', 'report.odt', 'ID!2', 'ID!2', 1, 'report.odt', 'report.odt', '"e2"', '"c2"', NULL, 10,
   1000000000, 12, 2000000000, 2, 2, 2, 416, 4, 0, 0, NULL, 'https://example/2', 1, 1),
  (3, 1, 0, NULL, 'gone.txt', 'gone.txt', 'ID!3', 'ID!3', 1, 'gone.txt', 'gone.txt', '"e3"', '"c3"', NULL, 4,
   1000000000, 4, 1000000000, 3, 3, 3, NULL, NULL, 0, 0, NULL, NULL, 1, 2),
  (4, 1, 0, 1, 'large.bin', 'large.bin', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, 655360, 4, 4, 4, 4, NULL, 5, 0, 0, NULL, NULL, 0, NULL),
  (5, 2, 0, 1, 'link', 'link', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, 6, 5, 5, 5, 5, NULL, NULL, 0, 1, x'746172676574', NULL, 0, NULL);
INSERT INTO bodies VALUES
  (4, 2, 1, 12, 0, x'00000000000000000400000000000000', 'ID!2', '"e2"', '"c2"', NULL, 10, 0, 3, NULL, 9, NULL, 3, 12,
   x'00000000000000000400000000000000', 3),
  (5, 4, 1, 655360, 1, NULL, NULL, NULL, NULL, NULL, 0, 1, 1, NULL, 9, NULL, NULL, NULL, NULL, NULL);
INSERT INTO journal (ino, seq, ops, change, since, touched, not_before, attempts, parked, error, session_url,
                     session_offset, session_body, session_generation, session_size) VALUES
  (2, 1, 2, 6, 100, 200, 300, 1, 1, 'access denied', NULL, NULL, NULL, NULL, NULL),
  (3, 2, 16, 1, 101, 201, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, 3, 3, 2, 102, 202, 0, 2, 0, 'locked', 'https://upload.example/4', 327680, 5, 1, 655360);
INSERT INTO stage VALUES ('ID!9', 1, '{"id":"ID!9"}');
INSERT INTO deferred VALUES ('ID!8', '{"id":"ID!8"}');
INSERT INTO conflicts (path, copy, at) VALUES ('a.txt', 'a (conflict ada 2026-11-21).txt', 50);
INSERT INTO xattrs VALUES (2, x'757365722e61', x'62');
INSERT INTO unanswered VALUES (4, NULL, NULL, 1, 'large.bin', 'large.bin', 655360, NULL);
INSERT INTO removed_bodies VALUES (3);
INSERT INTO pins VALUES (2, 1000);
UPDATE journal SET held = 1, parked = 1 WHERE ino = 3;
UPDATE journal SET copy_url = 'https://monitor.example/4', copy_body = 5, copy_generation = 1, copy_polls = 2
  WHERE ino = 4;
INSERT INTO slots VALUES (3, NULL, 'b!theirs', '01THEIRS', 'business', 1, 'b!team+01TEAM');
INSERT INTO links VALUES ('ID!2', 'ID!2', 'b!theirs', '01FILE', 1);
PRAGMA user_version = 11;
