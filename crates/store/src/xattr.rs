//! Extended attributes that programs set. They stay on this machine.

use onedrivefs_core::Ino;

use crate::{Reader, StoreError, Tx};

impl Reader<'_> {
    /// The value of an attribute.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT value FROM xattrs WHERE ino = ?1 AND name = ?2")?;
        let mut rows = statement.query((ino.0, name))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }

    /// The names of the attributes of an inode.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT name FROM xattrs WHERE ino = ?1")?;
        let rows = statement.query_map((ino.0,), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Tx<'_> {
    /// Sets an attribute.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO xattrs VALUES (?1, ?2, ?3)")?
            .execute((ino.0, name, value))?;
        Ok(())
    }

    /// Removes an attribute and tells whether it was there.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<bool, StoreError> {
        let removed = self
            .conn
            .prepare_cached("DELETE FROM xattrs WHERE ino = ?1 AND name = ?2")?
            .execute((ino.0, name))?;
        Ok(removed > 0)
    }

    /// Gives the attributes of one inode to another, which replaces a file by its new version.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn move_xattrs(&self, from: Ino, to: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE OR IGNORE xattrs SET ino = ?2 WHERE ino = ?1")?
            .execute((from.0, to.0))?;
        Ok(())
    }
}
