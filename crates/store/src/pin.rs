//! Pins: files and folders that are kept whole on this machine. A pin belongs to an inode, so it
//! goes where that goes; what is in a pinned folder is pinned by it.

use onedrivefs_core::{Ino, Timestamp};
use rusqlite::Row;

use crate::body::decode_ranges;
use crate::{Place, Reader, StoreError, Tx};

/// An item at or below a place, as far as keeping it here is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptItem {
    /// The inode.
    pub ino: Ino,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Whether it is a folder of which the service has not said yet what is in it.
    pub unlisted: bool,
    /// Size in bytes.
    pub size: u64,
    /// Whether its content can be had from the service.
    pub fetchable: bool,
    /// Its body on this machine.
    pub body: Option<KeptBody>,
}

/// The body of a [`KeptItem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBody {
    /// Its number.
    pub id: u64,
    /// Where its bytes are.
    pub place: Place,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are not here, as recorded last.
    pub missing: u64,
}

/// What is read of an item: its content can be had unless it never leaves this machine, was never
/// sent, is no ordinary file (role 0), or is a link whose target is known.
const KEPT: &str = "SELECT items.ino, items.kind, items.children_known, items.size,
       items.item_id IS NOT NULL AND items.local_only = 0 AND items.role = 0
         AND items.target IS NULL,
       bodies.id, bodies.place, bodies.size, bodies.complete,
       CASE bodies.complete WHEN 0 THEN bodies.ranges END
     FROM tree JOIN items ON items.ino = tree.ino LEFT JOIN bodies ON bodies.id = items.body";

/// The folders below those that a tree begins with.
const DOWN: &str = "UNION SELECT items.ino FROM tree JOIN items ON items.parent = tree.ino";

fn decode(row: &Row<'_>) -> rusqlite::Result<KeptItem> {
    let is_dir = row.get::<_, i64>(1)? == 0;
    let fetchable: bool = row.get(4)?;
    let body = match row.get::<_, Option<u64>>(5)? {
        None => None,
        Some(id) => {
            let size: u64 = row.get(7)?;
            let present = match row.get::<_, bool>(8)? {
                true => size,
                false => {
                    let ranges: Option<Vec<u8>> = row.get(9)?;
                    let ranges = decode_ranges(&ranges.unwrap_or_default());
                    ranges.iter().map(|range| range.end - range.start).sum()
                }
            };
            Some(KeptBody {
                id,
                place: match row.get::<_, i64>(6)? {
                    1 => Place::Spool,
                    _ => Place::Cache,
                },
                size,
                missing: size.saturating_sub(present),
            })
        }
    };
    Ok(KeptItem {
        ino: Ino(row.get(0)?),
        is_dir,
        unlisted: is_dir && fetchable && !row.get::<_, bool>(2)?,
        size: row.get(3)?,
        fetchable,
        body,
    })
}

impl Reader<'_> {
    /// Inodes with a pin of their own that are in the mount, longest pinned first.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn pins(&self) -> Result<Vec<Ino>, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT ino FROM pins JOIN items USING (ino)
             WHERE items.parent IS NOT NULL OR ino = 1 ORDER BY pins.since, ino",
        )?;
        let rows = statement.query_map((), |row| row.get(0).map(Ino))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Tells whether there is any pin, also of what was unlinked and may come back.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn has_pins(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pins)";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |row| row.get(0))?)
    }

    /// What pins an inode: itself, or the nearest folder above it that has a pin. What was unlinked
    /// is not pinned.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn pin_of(&self, ino: Ino) -> Result<Option<Ino>, StoreError> {
        // A path deeper than this would be a cycle, which no transaction makes.
        let mut statement = self.conn.prepare_cached(
            "WITH RECURSIVE up (ino, parent, height) AS (
               SELECT ino, parent, 0 FROM items
               WHERE ino = ?1 AND (parent IS NOT NULL OR ino = 1)
               UNION ALL
               SELECT items.ino, items.parent, height + 1
               FROM up JOIN items ON items.ino = up.parent WHERE height < 4096
             )
             SELECT up.ino FROM up JOIN pins ON pins.ino = up.ino ORDER BY height LIMIT 1",
        )?;
        let mut rows = statement.query((ino.0,))?;
        Ok(rows.next()?.map(|row| row.get(0).map(Ino)).transpose()?)
    }

    /// Shows every pinned item once.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn each_pinned(&self, see: impl FnMut(KeptItem)) -> Result<(), StoreError> {
        let top = "SELECT pins.ino FROM pins JOIN items ON items.ino = pins.ino
                   WHERE items.parent IS NOT NULL OR items.ino = 1";
        self.each_kept(top, (), see)
    }

    /// Shows an item and all that is below it, pinned or not.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn each_below(&self, top: Ino, see: impl FnMut(KeptItem)) -> Result<(), StoreError> {
        self.each_kept("SELECT ?1", (top.0,), see)
    }

    fn each_kept(
        &self,
        top: &str,
        params: impl rusqlite::Params,
        mut see: impl FnMut(KeptItem),
    ) -> Result<(), StoreError> {
        let sql = format!("WITH RECURSIVE tree (ino) AS ({top} {DOWN}) {KEPT}");
        let mut statement = self.conn.prepare_cached(&sql)?;
        for item in statement.query_map(params, decode)? {
            see(item?);
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Pins an inode. Tells whether it had no pin of its own yet.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn pin(&self, ino: Ino, now: Timestamp) -> Result<bool, StoreError> {
        self.touched.borrow_mut().push((ino, None));
        let pinned = self
            .conn
            .prepare_cached("INSERT OR IGNORE INTO pins VALUES (?1, ?2)")?
            .execute((ino.0, now.as_nanos()))?;
        Ok(pinned > 0)
    }

    /// Removes the pin that an inode has of its own. Tells whether there was one.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unpin(&self, ino: Ino) -> Result<bool, StoreError> {
        self.touched.borrow_mut().push((ino, None));
        let unpinned = self
            .conn
            .prepare_cached("DELETE FROM pins WHERE ino = ?1")?
            .execute((ino.0,))?;
        Ok(unpinned > 0)
    }

    /// What one inode was to people and to the service is another from now on, with its pin.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn move_pin(&self, from: Ino, to: Ino) -> Result<(), StoreError> {
        let moved = self
            .conn
            .prepare_cached("UPDATE OR REPLACE pins SET ino = ?2 WHERE ino = ?1")?
            .execute((from.0, to.0))?;
        if moved > 0 {
            self.touched.borrow_mut().extend([(from, None), (to, None)]);
        }
        Ok(())
    }
}
