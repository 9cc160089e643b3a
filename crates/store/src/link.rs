//! Items that stand for files of other drives, by their ids on the service.
//!
//! A save by rename gives the id of an item to another inode; where its content goes stays with the
//! id.

use onedrivefs_core::{DriveId, Ino, ItemId, LinkTarget};
use rusqlite::{OptionalExtension as _, Row};

use crate::{Reader, StoreError, Tx};

fn decode(row: &Row<'_>) -> rusqlite::Result<(ItemId, LinkTarget)> {
    let target = LinkTarget {
        drive: DriveId::new(row.get::<_, String>(1)?),
        item: ItemId::new(row.get::<_, String>(2)?),
        read_only: row.get(3)?,
    };
    Ok((ItemId::new(row.get::<_, String>(0)?), target))
}

impl Reader<'_> {
    /// All items that stand for files of other drives.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn links(&self) -> Result<Vec<(ItemId, LinkTarget)>, StoreError> {
        let sql = "SELECT item_id, drive, target, read_only FROM links";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map((), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many there are.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn link_count(&self) -> Result<u32, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT count(*) FROM links")?;
        Ok(statement.query_row((), |row| row.get(0))?)
    }

    /// The file that an item stands for.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn link(&self, item: &ItemId) -> Result<Option<LinkTarget>, StoreError> {
        let sql = "SELECT item_id, drive, target, read_only FROM links WHERE item_key = ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let found = statement.query_row((item.key(),), decode).optional()?;
        Ok(found.map(|(_, target)| target))
    }

    /// Tells whether any is in a directory.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn holds_link(&self, directory: Ino) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM items JOIN links USING (item_key) WHERE parent = ?1 LIMIT 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.exists((directory.0,))?)
    }

    /// Shortcuts to files that are not known as such yet. Looks at all items.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unknown_links(&self) -> Result<Vec<Ino>, StoreError> {
        let sql = "SELECT ino FROM items WHERE role = 2 AND kind = 1
                     AND item_key NOT IN (SELECT item_key FROM links)";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map((), |row| row.get(0).map(Ino))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Tx<'_> {
    /// Notes which file an item stands for.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn put_link(&self, item: &ItemId, target: &LinkTarget) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO links (item_key, item_id, drive, target, read_only)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        self.conn.prepare_cached(sql)?.execute((
            item.key(),
            item.as_str(),
            target.drive.as_str(),
            target.item.as_str(),
            target.read_only,
        ))?;
        Ok(())
    }

    /// Forgets what is known of items that are gone.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_old_links(&self) -> Result<(), StoreError> {
        let sql = "DELETE FROM links WHERE NOT EXISTS
                     (SELECT 1 FROM items WHERE items.item_key = links.item_key)";
        self.conn.prepare_cached(sql)?.execute(())?;
        Ok(())
    }
}
