//! The journal: for each inode, what the service does not know yet.
//!
//! A change is recorded in the transaction that makes it. Changes of one inode share a row, so
//! that create, rename, write and rename again are one upload under the last name; the row keeps
//! the position of the first of them.

use onedrivefs_core::ExposeSecret as _;
use onedrivefs_core::{Ino, SecretString, Timestamp};
use rusqlite::{OptionalExtension as _, Row, ToSql};

use crate::{Reader, StoreError, Tx};

/// A set of changes that one inode waits to have sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ops(u8);

impl Ops {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The item does not exist on the service.
    pub const CREATE: Self = Self(1);
    /// The body differs from the service's.
    pub const CONTENT: Self = Self(2);
    /// The name or the folder differs from the service's.
    pub const MOVE: Self = Self(4);
    /// The times differ from the service's.
    pub const TIMES: Self = Self(8);
    /// The item was unlinked here.
    pub const DELETE: Self = Self(16);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other's members.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether all of `other` is in this set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether nothing waits.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The word people see for the most important change of the set.
    #[must_use]
    pub const fn word(self) -> &'static str {
        if self.has(Self::DELETE) {
            "delete"
        } else if self.has(Self::CREATE) {
            "create"
        } else if self.has(Self::CONTENT) {
            "upload"
        } else if self.has(Self::MOVE) {
            "move"
        } else {
            "set times"
        }
    }
}

/// An upload session that was begun.
#[derive(Clone, Debug)]
pub struct Session {
    /// The pre-authenticated address. Stored before the first byte is sent.
    pub url: SecretString,
    /// Bytes the service has acknowledged.
    pub offset: u64,
    /// The body that is being sent.
    pub body: u64,
    /// The generation of that body; another one needs another session.
    pub generation: u64,
    /// Size in bytes announced to the service.
    pub size: u64,
}

/// A copy that the service was asked to make.
#[derive(Clone, Debug)]
pub struct RemoteCopy {
    /// Where to ask how it goes: pre-authenticated.
    pub url: SecretString,
    /// The body that it is a copy of, too.
    pub body: u64,
    /// The generation of that body.
    pub generation: u64,
    /// How often was asked.
    pub polls: u32,
}

/// What waits to be sent for one inode.
#[derive(Clone, Debug)]
pub struct JournalRow {
    /// The inode.
    pub ino: Ino,
    /// Position in the order of changes.
    pub seq: u64,
    /// What waits.
    pub ops: Ops,
    /// Raised by every change: tells a sender that something happened meanwhile.
    pub change: u64,
    /// When the first change happened.
    pub since: Timestamp,
    /// When the last change happened.
    pub touched: Timestamp,
    /// Earliest time of the next try.
    pub not_before: Timestamp,
    /// Failed tries since the last change.
    pub attempts: u32,
    /// Whether it waits for a person.
    pub parked: bool,
    /// Whether it is one of many deletions that are held back until a person says what to do.
    /// Such a row is parked, too.
    pub held: bool,
    /// Why the last try failed.
    pub error: Option<String>,
    /// The upload session, if one was begun.
    pub session: Option<Session>,
    /// The copy, if the service makes one.
    pub copy: Option<RemoteCopy>,
}

const COLUMNS: &str = "ino, seq, ops, change, since, touched, not_before, attempts, parked, error, \
     session_url, session_offset, session_body, session_generation, session_size, held, \
     copy_url, copy_body, copy_generation, copy_polls";

fn decode(row: &Row<'_>) -> rusqlite::Result<JournalRow> {
    let url: Option<String> = row.get(10)?;
    let session = match url {
        None => None,
        Some(url) => Some(Session {
            url: SecretString::from(url),
            offset: row.get::<_, Option<u64>>(11)?.unwrap_or(0),
            body: row.get::<_, Option<u64>>(12)?.unwrap_or(0),
            generation: row.get::<_, Option<u64>>(13)?.unwrap_or(0),
            size: row.get::<_, Option<u64>>(14)?.unwrap_or(0),
        }),
    };
    let copy = match row.get::<_, Option<String>>(16)? {
        None => None,
        Some(url) => Some(RemoteCopy {
            url: SecretString::from(url),
            body: row.get::<_, Option<u64>>(17)?.unwrap_or(0),
            generation: row.get::<_, Option<u64>>(18)?.unwrap_or(0),
            polls: row.get::<_, Option<u32>>(19)?.unwrap_or(0),
        }),
    };
    Ok(JournalRow {
        ino: Ino(row.get(0)?),
        seq: row.get(1)?,
        ops: Ops(row.get(2)?),
        change: row.get(3)?,
        since: Timestamp::from_nanos(row.get(4)?),
        touched: Timestamp::from_nanos(row.get(5)?),
        not_before: Timestamp::from_nanos(row.get(6)?),
        attempts: row.get(7)?,
        parked: row.get(8)?,
        held: row.get(15)?,
        error: row.get(9)?,
        session,
        copy,
    })
}

impl Reader<'_> {
    /// What waits for one inode.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn journal(&self, ino: Ino) -> Result<Option<JournalRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM journal WHERE ino = ?1");
        Ok(self
            .conn
            .prepare_cached(&sql)?
            .query_row((ino.0,), decode)
            .optional()?)
    }

    /// The next rows in order after `seq`, parked ones left out.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn journal_after(&self, seq: u64, limit: u32) -> Result<Vec<JournalRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM journal WHERE seq > ?1 AND parked = 0 ORDER BY seq LIMIT ?2"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((seq, limit), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The next rows in order after `seq`, also parked ones.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn whole_journal_after(&self, seq: u64, limit: u32) -> Result<Vec<JournalRow>, StoreError> {
        // Each half has an index of its own.
        let sql = format!(
            "SELECT {COLUMNS} FROM journal WHERE seq > ?1 AND parked = 0
             UNION ALL SELECT {COLUMNS} FROM journal WHERE seq > ?1 AND parked = 1
             ORDER BY seq LIMIT ?2"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((seq, limit), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Tells whether nothing waits.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_journal_empty(&self) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT 1 FROM journal LIMIT 1")?;
        Ok(!statement.exists(())?)
    }

    /// Tells whether something that is in a folder on the service waits to leave it, parked rows
    /// left out.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_being_left(&self, folder: Ino) -> Result<bool, StoreError> {
        let leaving = Ops::DELETE.with(Ops::MOVE);
        let mut statement = self.conn.prepare_cached(
            "SELECT 1 FROM items i JOIN journal j ON j.ino = i.ino
             WHERE i.r_parent = ?1 AND j.parked = 0 AND j.ops & ?2 != 0 LIMIT 1",
        )?;
        Ok(statement.exists((folder.0, leaving.0))?)
    }

    /// Rows that wait for a person because they cannot be sent. Deletions that are held back are
    /// not among them.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn parked(&self) -> Result<Vec<JournalRow>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM journal WHERE parked = 1 AND held = 0 ORDER BY seq");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The next deletions in order after `seq` that are held back.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn held_after(&self, seq: u64, limit: u32) -> Result<Vec<JournalRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM journal WHERE held = 1 AND seq > ?1 ORDER BY seq LIMIT ?2"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((seq, limit), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Rows in order whose last try failed and that are tried again by themselves.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn failing(&self, limit: u32) -> Result<Vec<JournalRow>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM journal WHERE parked = 0 AND error IS NOT NULL
             ORDER BY seq LIMIT ?1"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((limit,), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Number of deletions that are held back.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn count_held(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM journal WHERE held = 1";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |row| row.get(0))?)
    }

    /// Tells whether deletions are held back.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_holding(&self) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM journal WHERE held = 1 LIMIT 1";
        Ok(self.conn.prepare_cached(sql)?.exists(())?)
    }

    /// Number of waiting rows, and the bytes of the bodies among them. Parked rows count.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn pending(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), coalesce(sum(CASE WHEN j.ops & 19 IN (1, 2, 3) THEN i.size
                   ELSE 0 END), 0) FROM journal j JOIN items i ON i.ino = j.ino";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |r| Ok((r.get(0)?, r.get(1)?)))?)
    }

    /// The number of changes that are going to be sent and of their bytes, and how many changes wait
    /// for a person.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn outlook(&self) -> Result<(u64, u64, u64), StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE j.parked = 0),
                          coalesce(sum(i.size) FILTER
                            (WHERE j.parked = 0 AND j.ops & 19 IN (1, 2, 3)), 0),
                          count(*) FILTER (WHERE j.parked = 1)
                   FROM journal j JOIN items i ON i.ino = j.ino";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?)
    }
}

impl Tx<'_> {
    /// Stores what waits for an inode; an empty set removes the row.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn put_journal(&self, row: &JournalRow) -> Result<(), StoreError> {
        if row.ops.is_empty() {
            return self.delete_journal(row.ino);
        }
        let session = row.session.as_ref();
        let copy = row.copy.as_ref();
        let params: &[&dyn ToSql] = &[
            &row.ino.0,
            &row.seq,
            &row.ops.0,
            &row.change,
            &row.since.as_nanos(),
            &row.touched.as_nanos(),
            &row.not_before.as_nanos(),
            &row.attempts,
            &row.parked,
            &row.error,
            &session.map(|s| s.url.expose_secret().to_owned()),
            &session.map(|s| s.offset),
            &session.map(|s| s.body),
            &session.map(|s| s.generation),
            &session.map(|s| s.size),
            &row.held,
            &copy.map(|c| c.url.expose_secret().to_owned()),
            &copy.map(|c| c.body),
            &copy.map(|c| c.generation),
            &copy.map(|c| c.polls),
        ];
        // A row that keeps its place in the indexes leaves their pages alone.
        let kept = "UPDATE journal SET ops = ?3, change = ?4, since = ?5, touched = ?6,
               not_before = ?7, attempts = ?8, error = ?10, session_url = ?11, session_offset = ?12,
               session_body = ?13, session_generation = ?14, session_size = ?15,
               copy_url = ?17, copy_body = ?18, copy_generation = ?19, copy_polls = ?20
             WHERE ino = ?1 AND seq = ?2 AND parked = ?9 AND held = ?16";
        if self.conn.prepare_cached(kept)?.execute(params)? > 0 {
            return Ok(());
        }
        let sql = format!(
            "INSERT OR REPLACE INTO journal ({COLUMNS}) VALUES
               (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                ?17, ?18, ?19, ?20)"
        );
        self.conn.prepare_cached(&sql)?.execute(params)?;
        Ok(())
    }

    /// Forgets what waits for an inode.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn delete_journal(&self, ino: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("DELETE FROM journal WHERE ino = ?1")?
            .execute((ino.0,))?;
        Ok(())
    }

    /// A new row for an inode at the end of the order.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn new_journal(&self, ino: Ino, now: Timestamp) -> Result<JournalRow, StoreError> {
        // Counted like the keys that SQLite counts, so that a position is never used again even when
        // the journal was empty in between.
        let seq: u64 = self
            .conn
            .prepare_cached(
                "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'journal.seq' RETURNING seq",
            )?
            .query_row((), |row| row.get(0))?;
        Ok(JournalRow {
            ino,
            seq,
            ops: Ops::NONE,
            change: 0,
            since: now,
            touched: now,
            not_before: Timestamp::from_nanos(0),
            attempts: 0,
            parked: false,
            held: false,
            error: None,
            session: None,
            copy: None,
        })
    }

    /// Holds the deletion of an inode back, if one waits.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn hold(&self, ino: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(
                "UPDATE journal SET held = 1, parked = 1, attempts = 0, not_before = 0, error = NULL
                 WHERE ino = ?1 AND ops & ?2 != 0",
            )?
            .execute((ino.0, Ops::DELETE.0))?;
        Ok(())
    }

    /// Lets all deletions go that are held back; returns how many.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn release_held(&self, now: Timestamp) -> Result<u64, StoreError> {
        let released = self
            .conn
            .prepare_cached(
                "UPDATE journal SET held = 0, parked = 0, change = change + 1, touched = ?1
                 WHERE held = 1",
            )?
            .execute((now.as_nanos(),))?;
        Ok(released as u64)
    }

    /// Lets rows that wait for their next try be tried at once.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn hurry_journal(&self) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE journal SET not_before = 0 WHERE not_before != 0")?
            .execute(())?;
        Ok(())
    }
}
