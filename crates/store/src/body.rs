//! Rows of bodies: which bytes of a file are on this machine, and which version they are from.

use onedrivefs_core::{CTag, ETag, Ino, ItemId, QuickXorHash, Timestamp};
use rangemap::RangeSet;
use rusqlite::{OptionalExtension as _, Row, ToSql};

use crate::{Reader, Remote, StoreError, Tx};

/// Where the bytes of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the content cache: the service has them too.
    Cache,
    /// In the spool: they are not on the service yet.
    Spool,
}

/// A save of a body that is on stable storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Durable {
    /// Which save: [`BodyRow::generation`] as it was then.
    pub generation: u64,
    /// Size in bytes at that save.
    pub size: u64,
    /// Bytes that were present at that save; `None` when all were.
    pub ranges: Option<RangeSet<u64>>,
}

/// One body.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyRow {
    /// Its number, which names the file on disk. Assigned by [`Tx::insert_body`].
    pub id: u64,
    /// The inode it belongs to.
    pub ino: Ino,
    /// Where its bytes are.
    pub place: Place,
    /// Size in bytes.
    pub size: u64,
    /// Which bytes are present; `None` when all are.
    pub ranges: Option<RangeSet<u64>>,
    /// The item that missing bytes come from.
    pub base_item: Option<ItemId>,
    /// The version that missing bytes come from.
    pub base_etag: Option<ETag>,
    /// The content version that missing bytes come from.
    pub base_ctag: Option<CTag>,
    /// Hash of that version.
    pub base_hash: Option<QuickXorHash>,
    /// Size of that version.
    pub base_size: u64,
    /// Whether it was written to since the last journalled save.
    pub dirty: bool,
    /// Number of journalled saves.
    pub generation: u64,
    /// Hash of the body at that generation, once computed.
    pub hash: Option<QuickXorHash>,
    /// When it was last used; decides what is evicted first.
    pub used_at: Timestamp,
    /// The saved body that this one takes the place of. It is kept until a save of this one is on
    /// stable storage, since until then a power cut leaves nothing else of the file.
    pub previous: Option<u64>,
    /// The last save that is on stable storage, of a body in the spool.
    pub durable: Option<Durable>,
    /// The save, by its generation, at which the body is what its base is: a copy of another item
    /// that nobody changed.
    pub copied: Option<u64>,
}

impl BodyRow {
    /// Has the body build on what the service has of an item.
    pub fn set_base(&mut self, remote: &Remote) {
        self.base_item = Some(remote.id.clone());
        self.base_etag.clone_from(&remote.etag);
        self.base_ctag.clone_from(&remote.ctag);
        self.base_hash = remote.hash;
        self.base_size = remote.size;
    }

    /// The item that the body is an unchanged copy of.
    #[must_use]
    pub fn copy_of(&self) -> Option<&ItemId> {
        let copied = !self.dirty && self.copied == Some(self.generation);
        self.base_item
            .as_ref()
            .filter(|_| copied && self.base_size == self.size && self.base_hash.is_some())
    }

    /// Tells whether a power cut leaves all that was saved. What is in the content cache was put on
    /// stable storage before its row said so, and is not changed there.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        let saved = self.durable.as_ref().map(|durable| durable.generation);
        !self.dirty && (self.place == Place::Cache || saved == Some(self.generation))
    }
}

const COLUMNS: &str = "id, ino, place, size, complete, ranges, base_item, base_etag, base_ctag, \
     base_hash, base_size, dirty, generation, hash, used_at, previous, \
     synced, synced_size, synced_ranges, copied";

/// Packs ranges as pairs of little-endian offsets.
#[must_use]
pub fn encode_ranges(ranges: &RangeSet<u64>) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|r| [r.start.to_le_bytes(), r.end.to_le_bytes()])
        .flatten()
        .collect()
}

/// Unpacks ranges; anything malformed is left out, so that it is downloaded again.
#[must_use]
pub fn decode_ranges(bytes: &[u8]) -> RangeSet<u64> {
    let number = |b: &[u8]| b.try_into().ok().map(u64::from_le_bytes);
    bytes
        .chunks_exact(16)
        .filter_map(|pair| Some(number(&pair[..8])?..number(&pair[8..])?))
        .filter(|range| range.start < range.end)
        .collect()
}

fn decode(row: &Row<'_>) -> rusqlite::Result<BodyRow> {
    let complete: bool = row.get(4)?;
    let ranges: Option<Vec<u8>> = row.get(5)?;
    let hash = |text: Option<String>| text.and_then(|h| QuickXorHash::parse(&h));
    let durable = match row.get(16)? {
        Some(generation) => Some(Durable {
            generation,
            size: row.get(17)?,
            ranges: row
                .get::<_, Option<Vec<u8>>>(18)?
                .map(|bytes| decode_ranges(&bytes)),
        }),
        None => None,
    };
    Ok(BodyRow {
        id: row.get(0)?,
        ino: Ino(row.get(1)?),
        place: if row.get::<_, i64>(2)? == 1 {
            Place::Spool
        } else {
            Place::Cache
        },
        size: row.get(3)?,
        ranges: (!complete).then(|| decode_ranges(&ranges.unwrap_or_default())),
        base_item: row.get::<_, Option<String>>(6)?.map(ItemId::new),
        base_etag: row.get::<_, Option<String>>(7)?.map(ETag::new),
        base_ctag: row.get::<_, Option<String>>(8)?.map(CTag::new),
        base_hash: hash(row.get(9)?),
        base_size: row.get(10)?,
        dirty: row.get(11)?,
        generation: row.get(12)?,
        hash: hash(row.get(13)?),
        used_at: Timestamp::from_nanos(row.get(14)?),
        previous: row.get(15)?,
        durable,
        copied: row.get(19)?,
    })
}

/// The condition of the index of bodies that were written to since their last save, or whose last save
/// is not on stable storage.
const UNSETTLED: &str = "(dirty = 1 OR place = 1 AND (synced IS NULL OR synced < generation))";

impl Reader<'_> {
    fn bodies(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<BodyRow>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM bodies WHERE {condition}"))?;
        let rows = statement.query_map(params, decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The row of a body.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn body(&self, id: u64) -> Result<Option<BodyRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM bodies WHERE id = ?1");
        Ok(self
            .conn
            .prepare_cached(&sql)?
            .query_row((id,), decode)
            .optional()?)
    }

    /// Bodies written to since their last journalled save.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn dirty_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies(&format!("{UNSETTLED} AND dirty = 1"), ())
    }

    /// Saved bodies of the spool whose last save is not on stable storage yet.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unsynced_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies(&format!("{UNSETTLED} AND place = 1 AND dirty = 0"), ())
    }

    /// Bodies of the spool.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn spooled_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies("place = 1 OR dirty = 1", ())
    }

    /// Tells whether a body is kept because the one that takes its place is not on stable storage.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_previous(&self, id: u64) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM bodies WHERE previous = ?1)";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((id,), |row| row.get(0))?)
    }

    /// Tells whether a body is the one of its item.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_owned(&self, id: u64) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM bodies JOIN items ON items.ino = bodies.ino
                   WHERE bodies.id = ?1 AND items.body = bodies.id)";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((id,), |row| row.get(0))?)
    }

    /// Bodies of the content cache, least recently used first.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn cached_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies("place = 0 ORDER BY used_at", ())
    }

    /// Bodies whose rows were removed and that nobody said of that their files are gone.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn removed_bodies(&self) -> Result<Vec<u64>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT id FROM removed_bodies")?;
        let rows = statement.query_map((), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bodies in the spool that nothing waits to be sent of: there was no room for them in the
    /// content cache when the service had them.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn sent_spool_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies(
            "place = 1 AND dirty = 0 AND base_item IS NOT NULL AND previous IS NULL
             AND ino NOT IN (SELECT ino FROM journal)
             AND ino IN (SELECT ino FROM items WHERE body = bodies.id AND item_id IS NOT NULL
                           AND local_only = 0)",
            (),
        )
    }

    /// Bodies in the spool that need what the service has of an item: they lack bytes of it, or are
    /// a copy of it that could be taken from there again.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unsent_based_on(&self, item: &ItemId) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies(
            "base_item = ?1 AND place = 1 AND (complete = 0 OR copied IS NOT NULL)",
            (item.as_str(),),
        )
    }

    /// Tells whether a file that the service does not have lacks bytes of the one that it is an
    /// unchanged copy of.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn is_unmade_copy(&self, ino: Ino) -> Result<bool, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM items JOIN bodies ON bodies.id = items.body
               WHERE items.ino = ?1 AND item_id IS NULL AND place = 1 AND complete = 0
                 AND dirty = 0 AND copied = generation)",
        )?;
        Ok(statement.query_row((ino.0,), |row| row.get(0))?)
    }

    /// Bodies that no item refers to.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unowned_bodies(&self) -> Result<Vec<BodyRow>, StoreError> {
        self.bodies(
            "id NOT IN (SELECT body FROM items WHERE body IS NOT NULL)
             AND id NOT IN (SELECT previous FROM bodies WHERE previous IS NOT NULL)",
            (),
        )
    }
}

impl Tx<'_> {
    /// Inserts a body and returns its number.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn insert_body(&self, body: &BodyRow) -> Result<u64, StoreError> {
        self.store_body(body, None)?;
        Ok(u64::try_from(self.conn.last_insert_rowid()).unwrap_or(0))
    }

    /// Replaces the row of a body.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn update_body(&self, body: &BodyRow) -> Result<(), StoreError> {
        self.store_body(body, Some(body.id))
    }

    /// Notes which bytes of a body are present.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn set_presence(&self, id: u64, ranges: Option<&RangeSet<u64>>) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE bodies SET complete = ?2, ranges = ?3 WHERE id = ?1")?
            .execute((id, ranges.is_none(), ranges.map(encode_ranges)))?;
        Ok(())
    }

    /// Notes that a body is not to be taken for a copy of another item any more.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_copied(&self, id: u64) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE bodies SET copied = NULL WHERE id = ?1")?
            .execute((id,))?;
        Ok(())
    }

    /// Notes that a body was used, which postpones its eviction.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn touch_body(&self, id: u64, now: Timestamp) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE bodies SET used_at = ?2 WHERE id = ?1")?
            .execute((id, now.as_nanos()))?;
        Ok(())
    }

    /// Removes the row of a body, with those it was to take the place of, and remembers that their
    /// files may go. A row that another body is to take the place of stays. The caller has the files
    /// removed after the commit.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn delete_body(&self, id: u64) -> Result<(), StoreError> {
        let mut next = Some(id);
        while let Some(id) = next {
            if self.is_previous(id)? {
                return Ok(());
            }
            next = self.body(id)?.and_then(|row| row.previous);
            self.conn
                .prepare_cached(
                    "INSERT OR IGNORE INTO removed_bodies SELECT id FROM bodies WHERE id = ?1",
                )?
                .execute((id,))?;
            self.conn
                .prepare_cached("DELETE FROM bodies WHERE id = ?1")?
                .execute((id,))?;
            if let Some(previous) = next
                && self.is_owned(previous)?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives up what a body takes the place of, now that the body itself is enough. Returns the
    /// rows that went.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn drop_previous(&self, row: &mut BodyRow) -> Result<Vec<BodyRow>, StoreError> {
        let mut gone = Vec::new();
        let mut next = row.previous.take();
        self.update_body(row)?;
        while let Some(id) = next {
            next = None;
            if !self.is_previous(id)?
                && !self.is_owned(id)?
                && let Some(mut previous) = self.body(id)?
            {
                next = previous.previous.take();
                self.update_body(&previous)?;
                self.delete_body(id)?;
                gone.push(previous);
            }
        }
        Ok(gone)
    }

    /// Notes that a save of a body is on stable storage. Tells whether the body is still there.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn note_durable(&self, id: u64, durable: &Durable) -> Result<bool, StoreError> {
        let Some(mut row) = self.body(id)? else {
            return Ok(false);
        };
        let older = |known: &Durable| known.generation <= durable.generation;
        if row.durable.as_ref().is_none_or(older) {
            row.durable = Some(durable.clone());
            self.update_body(&row)?;
        }
        Ok(true)
    }

    /// The file of a body whose row was removed is gone.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_removed_body(&self, id: u64) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("DELETE FROM removed_bodies WHERE id = ?1")?
            .execute((id,))?;
        Ok(())
    }

    fn store_body(&self, body: &BodyRow, existing: Option<u64>) -> Result<(), StoreError> {
        let durable = body.durable.as_ref();
        let params: &[&dyn ToSql] = &[
            &existing,
            &body.ino.0,
            &i64::from(body.place == Place::Spool),
            &body.size,
            &body.ranges.is_none(),
            &body.ranges.as_ref().map(encode_ranges),
            &body.base_item.as_ref().map(ItemId::as_str),
            &body.base_etag.as_ref().map(ETag::as_str),
            &body.base_ctag.as_ref().map(CTag::as_str),
            &body.base_hash.map(|h| h.to_string()),
            &body.base_size,
            &body.dirty,
            &body.generation,
            &body.hash.map(|h| h.to_string()),
            &body.used_at.as_nanos(),
            &body.previous,
            &durable.map(|durable| durable.generation),
            &durable.map(|durable| durable.size),
            &durable
                .and_then(|durable| durable.ranges.as_ref())
                .map(encode_ranges),
            &body.copied,
        ];
        let sql = match existing {
            Some(_) => {
                "UPDATE bodies SET ino = ?2, size = ?4, complete = ?5, ranges = ?6, base_item = ?7,
                   base_etag = ?8, base_ctag = ?9, base_hash = ?10, base_size = ?11, hash = ?14,
                   synced_size = ?18, synced_ranges = ?19,
                   copied = ?20
                 WHERE id = ?1"
            }
            None => {
                "INSERT INTO bodies VALUES
                   (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                    ?17, ?18, ?19, ?20)"
            }
        };
        self.conn.prepare_cached(sql)?.execute(params)?;
        if existing.is_none() {
            return Ok(());
        }
        // Apart from the rest, because every update that names a column of an index writes pages of
        // that index, whatever the values are.
        let place = i64::from(body.place == Place::Spool);
        let synced = durable.map(|durable| durable.generation);
        self.conn
            .prepare_cached(
                "UPDATE bodies SET place = ?2, used_at = ?3
                 WHERE id = ?1 AND (place != ?2 OR used_at != ?3)",
            )?
            .execute((body.id, place, body.used_at.as_nanos()))?;
        self.conn
            .prepare_cached(
                "UPDATE bodies SET dirty = ?2, generation = ?3, synced = ?4
                 WHERE id = ?1 AND (dirty != ?2 OR generation != ?3 OR synced IS NOT ?4)",
            )?
            .execute((body.id, body.dirty, body.generation, synced))?;
        self.conn
            .prepare_cached("UPDATE bodies SET previous = ?2 WHERE id = ?1 AND previous IS NOT ?2")?
            .execute((body.id, body.previous))?;
        Ok(())
    }
}
