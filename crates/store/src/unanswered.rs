//! Requests that make something on the service, from before they are sent until their answer came.
//!
//! An answer may be lost, and this daemon may be killed, after the request took effect. What then
//! appears on the service is nobody else's: these rows are how it is recognised.

use onedrivefs_core::{Ino, ItemId, NameKey, QuickXorHash};
use rusqlite::Row;

use crate::{Reader, StoreError, Tx};

/// What a request makes of the service if it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The inode it was sent for.
    pub ino: Ino,
    /// The item whose content it replaces, or that it moves; `None` for one that creates an item.
    pub item: Option<ItemId>,
    /// The folder it creates something in.
    pub parent: Ino,
    /// The name it creates, before encoding.
    pub name: String,
    /// Size in bytes of the content; absent for a folder, and for an item that is only moved.
    pub size: Option<u64>,
    /// Hash of the content.
    pub hash: Option<QuickXorHash>,
}

impl Unanswered {
    /// Tells whether content of this size and hash may be what the request made.
    #[must_use]
    pub fn made(&self, size: Option<u64>, hash: Option<QuickXorHash>) -> bool {
        self.size == size && (size.is_none_or(|size| size == 0) || self.hash == hash)
    }
}

const COLUMNS: &str = "ino, item_id, parent, name, size, hash";

fn decode(row: &Row<'_>) -> rusqlite::Result<Unanswered> {
    Ok(Unanswered {
        ino: Ino(row.get(0)?),
        item: row.get::<_, Option<String>>(1)?.map(ItemId::new),
        parent: Ino(row.get(2)?),
        name: row.get(3)?,
        size: row.get(4)?,
        hash: row
            .get::<_, Option<String>>(5)?
            .and_then(|hash| QuickXorHash::parse(&hash)),
    })
}

impl Reader<'_> {
    /// Requests that may have created something for an inode.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_of(&self, ino: Ino) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered("ino = ?1 AND item_key IS NULL", (ino.0,))
    }

    /// Requests that may have created something of this name in a folder.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_at(&self, parent: Ino, name: &str) -> Result<Vec<Unanswered>, StoreError> {
        let key = NameKey::of(name);
        self.unanswered(
            "parent = ?1 AND name_key = ?2 AND item_key IS NULL",
            (parent.0, key.as_str()),
        )
    }

    /// Requests that may have created a file of this size somewhere.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_sized(&self, size: u64) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered("size = ?1 AND item_key IS NULL", (size,))
    }

    /// Requests that may have created something in a folder.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_in(&self, parent: Ino) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered("parent = ?1 AND item_key IS NULL", (parent.0,))
    }

    /// Requests that may have moved something into a folder.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_moves_into(&self, parent: Ino) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered(
            "parent = ?1 AND item_key IS NOT NULL AND size IS NULL",
            (parent.0,),
        )
    }

    /// Requests that may have replaced the content of an item.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_for(&self, item: &ItemId) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered("item_key = ?1", (item.key(),))
    }

    /// Requests that may have moved an item.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unanswered_moves(&self, item: &ItemId) -> Result<Vec<Unanswered>, StoreError> {
        self.unanswered("item_key = ?1 AND size IS NULL", (item.key(),))
    }

    fn unanswered(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Unanswered>, StoreError> {
        let any = "SELECT 1 FROM unanswered LIMIT 1";
        if self.blank.unanswered.is_so(self.conn, any)? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {COLUMNS} FROM unanswered WHERE {condition}");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map(params, decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Tx<'_> {
    /// Notes a request that is about to be sent.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn add_unanswered(&self, sent: &Unanswered) -> Result<(), StoreError> {
        self.blank.unanswered.end();
        self.conn
            .prepare_cached(
                "INSERT OR IGNORE INTO unanswered
                 (ino, item_id, item_key, parent, name, name_key, size, hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                sent.ino.0,
                sent.item.as_ref().map(ItemId::as_str),
                sent.item.as_ref().map(ItemId::key),
                sent.parent.0,
                &sent.name,
                NameKey::of(&sent.name).as_str(),
                sent.size,
                sent.hash.map(|hash| hash.to_string()),
            ))?;
        Ok(())
    }

    /// Forgets the requests that moved an item: where it is now is known.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_moves(&self, item: &ItemId) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("DELETE FROM unanswered WHERE item_key = ?1 AND size IS NULL")?
            .execute((item.key(),))?;
        Ok(())
    }

    /// Forgets the requests that replaced the content of an item: what became of them is known.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_contents(&self, item: &ItemId) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("DELETE FROM unanswered WHERE item_key = ?1 AND size IS NOT NULL")?
            .execute((item.key(),))?;
        Ok(())
    }

    /// Forgets the requests of an inode that made something or replaced its content: what became of
    /// them is known.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_unanswered(&self, ino: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(
                "DELETE FROM unanswered
                 WHERE ino = ?1 AND (item_key IS NULL OR size IS NOT NULL)",
            )?
            .execute((ino.0,))?;
        Ok(())
    }

    /// Forgets the requests of an inode that made an item or replaced its content. Those that were
    /// sent for another item, whose identity came to the inode since, are still unanswered.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_answered(&self, ino: Ino, item: &ItemId) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(
                "DELETE FROM unanswered
                 WHERE ino = ?1 AND (item_key IS NULL OR item_key = ?2 AND size IS NOT NULL)",
            )?
            .execute((ino.0, item.key()))?;
        Ok(())
    }

    /// Gives the requests that may have changed an item to the inode that stands for it from now on.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn pass_unanswered(&self, item: &ItemId, to: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE OR REPLACE unanswered SET ino = ?2 WHERE item_key = ?1")?
            .execute((item.key(), to.0))?;
        Ok(())
    }

    /// Gives the requests that may have created something for one inode to another.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn move_unanswered(&self, from: Ino, to: Ino) -> Result<(), StoreError> {
        self.conn
            .prepare_cached("UPDATE unanswered SET ino = ?2 WHERE ino = ?1 AND item_key IS NULL")?
            .execute((from.0, to.0))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    /// A save by rename passed an identity on whose content was being replaced; then the answer
    /// to an earlier request of the inode arrives.
    #[test]
    fn an_answer_settles_what_was_sent_for_its_item_only() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let (answered, passed_on) = (ItemId::new("A"), ItemId::new("P"));
        let sent = |ino, item: &ItemId| Unanswered {
            ino: Ino(ino),
            item: Some(item.clone()),
            parent: Ino::ROOT,
            name: "name".into(),
            size: Some(0),
            hash: None,
        };
        store
            .write(|tx| {
                tx.add_unanswered(&sent(7, &answered))?;
                tx.add_unanswered(&sent(8, &passed_on))?;
                tx.pass_unanswered(&passed_on, Ino(7))?;
                tx.forget_answered(Ino(7), &answered)
            })
            .expect("records");
        let left = |id: &ItemId| store.read(|r| r.unanswered_for(id)).expect("records");
        assert!(left(&answered).is_empty());
        assert_eq!(left(&passed_on).len(), 1);
    }
}
