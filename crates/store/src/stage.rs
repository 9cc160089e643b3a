//! Delta pages on their way in, items set aside, and conflicts to tell people about.

use onedrivefs_core::{ItemId, RemoteItem, Timestamp};

use crate::{Reader, StoreError, Tx};

/// A conflict that was settled by keeping both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictRow {
    /// The path in the mount that the service's version has.
    pub path: String,
    /// The path in the mount that our version got.
    pub copy: String,
    /// When.
    pub at: Timestamp,
}

fn parse(text: &str) -> Result<RemoteItem, StoreError> {
    serde_json::from_str(text).map_err(|_ignored| StoreError::Malformed {
        what: "staged item",
    })
}

fn encode(item: &RemoteItem) -> Result<String, StoreError> {
    serde_json::to_string(item).map_err(|_ignored| StoreError::Malformed { what: "item" })
}

impl Reader<'_> {
    /// Staged items in the order they came, from `position` on. That is the number of their rows, by
    /// which a drive of a million items is read in pieces without being looked through for each: the
    /// column of that name, which has no index, only says the same.
    ///
    /// # Errors
    /// SQLite's errors, or `Malformed`.
    pub fn staged(&self, position: u64, limit: u32) -> Result<Vec<(u64, RemoteItem)>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT rowid, item FROM stage WHERE rowid >= ?1 ORDER BY rowid LIMIT ?2",
        )?;
        let rows = statement.query_map((position, limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (position, text): (u64, String) = row?;
            Ok((position, parse(&text)?))
        })
        .collect()
    }

    /// The staged state of one item.
    ///
    /// # Errors
    /// SQLite's errors, or `Malformed`.
    pub fn staged_item(&self, id: &ItemId) -> Result<Option<RemoteItem>, StoreError> {
        if self.is_stage_blank()? {
            return Ok(None);
        }
        let mut statement = self
            .conn
            .prepare_cached("SELECT item FROM stage WHERE item_key = ?1")?;
        let mut rows = statement.query((id.key(),))?;
        rows.next()?
            .map(|row| parse(&row.get::<_, String>(0)?))
            .transpose()
    }

    fn is_stage_blank(&self) -> Result<bool, StoreError> {
        let any = "SELECT 1 FROM stage LIMIT 1";
        self.blank.stage.is_so(self.conn, any)
    }

    /// Number of staged items.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn count_staged(&self) -> Result<u64, StoreError> {
        Ok(self
            .conn
            .query_row("SELECT count(*) FROM stage", (), |row| row.get(0))?)
    }

    /// Items set aside until a running request for them ends.
    ///
    /// # Errors
    /// SQLite's errors, or `Malformed`.
    pub fn deferred(&self) -> Result<Vec<RemoteItem>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT item FROM deferred")?;
        let rows = statement.query_map((), |row| row.get::<_, String>(0))?;
        rows.map(|text| parse(&text?)).collect()
    }

    /// Settled conflicts, newest first.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn conflicts(&self, limit: u32) -> Result<Vec<ConflictRow>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT path, copy, at FROM conflicts ORDER BY id DESC LIMIT ?1")?;
        let rows = statement.query_map((limit,), |row| {
            Ok(ConflictRow {
                path: row.get(0)?,
                copy: row.get(1)?,
                at: Timestamp::from_nanos(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Tx<'_> {
    /// Stages the items of a page; a later occurrence of an item replaces an earlier one.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn stage(&self, items: &[RemoteItem]) -> Result<(), StoreError> {
        if items.is_empty() {
            return Ok(());
        }
        self.blank.stage.end();
        let next: u64 = self
            .conn
            .prepare_cached("SELECT coalesce(max(rowid), 0) + 1 FROM stage")?
            .query_row((), |row| row.get(0))?;
        let mut statement = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO stage (rowid, position, item_key, item) VALUES (?1, ?1, ?2, ?3)",
        )?;
        for (position, item) in (next..).zip(items) {
            statement.execute((position, item.id.key(), encode(item)?))?;
        }
        Ok(())
    }

    /// Forgets staged items up to and including `position`.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unstage_through(&self, position: u64) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("DELETE FROM stage WHERE rowid <= ?1")?
            .execute((position,))?;
        Ok(())
    }

    /// Forgets one staged item.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unstage_item(&self, id: &ItemId) -> Result<(), StoreError> {
        if self.is_stage_blank()? {
            return Ok(());
        }
        self.conn
            .prepare_cached("DELETE FROM stage WHERE item_key = ?1")?
            .execute((id.key(),))?;
        Ok(())
    }

    /// Forgets everything staged.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn clear_stage(&self) -> Result<(), StoreError> {
        self.conn.execute("DELETE FROM stage", ())?;
        Ok(())
    }

    /// Sets an item aside; a later state of it replaces an earlier one.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn defer(&self, item: &RemoteItem) -> Result<(), StoreError> {
        self.blank.deferred.end();
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO deferred VALUES (?1, ?2)")?
            .execute((item.id.key(), encode(item)?))?;
        Ok(())
    }

    /// Takes an item off the ones set aside.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn undefer(&self, id: &ItemId) -> Result<(), StoreError> {
        let any = "SELECT 1 FROM deferred LIMIT 1";
        if self.blank.deferred.is_so(self.conn, any)? {
            return Ok(());
        }
        self.conn
            .prepare_cached("DELETE FROM deferred WHERE item_key = ?1")?
            .execute((id.key(),))?;
        Ok(())
    }

    /// Records a conflict that was settled by keeping both sides.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn add_conflict(&self, conflict: &ConflictRow) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("INSERT INTO conflicts (path, copy, at) VALUES (?1, ?2, ?3)")?
            .execute((&conflict.path, &conflict.copy, conflict.at.as_nanos()))?;
        Ok(())
    }
}
