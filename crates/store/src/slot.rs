//! Folders of other drives that this drive shows, by the number that each has for good.

use std::path::Path;
use std::time::Duration;

use onedrivefs_core::{DriveId, DriveKind, Ino, ItemId, kill_point};
use rusqlite::{Connection, OpenFlags, Row};

use crate::{Reader, StoreError, Tx};

/// How long a look into a database waits that somebody else is writing.
const BUSY: Duration = Duration::from_secs(1);

/// What is to become of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// A shortcut shows it.
    Followed,
    /// Nothing shows it any more. What waits to be sent is sent, then it goes.
    Left,
    /// The shortcut was removed here: it goes, and what waits to be sent with it.
    Discarded,
}

/// A folder of another drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// The shortcut that shows it: an inode of this drive, or the number by which the mount knows one
    /// in another slot.
    pub ino: Option<Ino>,
    /// What leads to the slot that this shortcut is in; empty where that is this drive.
    pub above: String,
    /// The drive.
    pub drive: DriveId,
    /// The folder in it.
    pub item: ItemId,
    /// The kind of the drive, if the shortcut told.
    pub kind: Option<DriveKind>,
    /// What is to become of it.
    pub state: SlotState,
    /// The path under which it was shown last, if nothing shows it any more.
    pub last_path: Option<String>,
}

/// Begins the keys of the metadata table under which the last paths are kept; the number follows.
const META_LAST_PATH: &str = "last_path_";

const COLUMNS: &str = "SELECT slot, ino, drive, item, kind, state, above,
                              (SELECT value FROM meta WHERE key = 'last_path_' || slot)
                       FROM slots";

fn decode(row: &Row<'_>) -> rusqlite::Result<Slot> {
    let kind: Option<String> = row.get(4)?;
    Ok(Slot {
        number: row.get(0)?,
        ino: row.get::<_, Option<u64>>(1)?.map(Ino),
        drive: DriveId::new(row.get::<_, String>(2)?),
        item: ItemId::new(row.get::<_, String>(3)?),
        above: row.get(6)?,
        kind: kind.and_then(|kind| DriveKind::parse(&kind)),
        state: match row.get::<_, i64>(5)? {
            0 => SlotState::Followed,
            1 => SlotState::Left,
            _ => SlotState::Discarded,
        },
        last_path: row.get(7)?,
    })
}

impl Slot {
    /// What leads to it, which tells it from any other also where the database is built anew.
    #[must_use]
    pub fn key(&self) -> String {
        let own = format!("{}+{}", self.drive.key(), self.item.key());
        if self.above.is_empty() {
            own
        } else {
            format!("{}>{own}", self.above)
        }
    }
}

impl Reader<'_> {
    /// The slot that a shortcut shows.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn slot_of(&self, shortcut: Ino) -> Result<Option<u32>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT slot FROM slots WHERE ino = ?1 AND state = 0")?;
        let mut rows = statement.query((shortcut.0,))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }

    /// A slot by its number.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn slot(&self, number: u32) -> Result<Option<Slot>, StoreError> {
        let sql = format!("{COLUMNS} WHERE slot = ?1");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query((number,))?;
        Ok(rows.next()?.map(decode).transpose()?)
    }

    /// All slots.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn slots(&self) -> Result<Vec<Slot>, StoreError> {
        let sql = format!("{COLUMNS} ORDER BY slot");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let rows = statement.query_map((), decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Tx<'_> {
    /// Notes where a shortcut leads. The first shortcut to a folder shows it, others to the same
    /// one show nothing: two paths to one folder would have programs see, and copy, everything twice.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn follow(
        &self,
        shortcut: Ino,
        drive: &DriveId,
        item: &ItemId,
        kind: Option<DriveKind>,
    ) -> Result<(), StoreError> {
        self.follow_below("", shortcut, drive, item, kind)
    }

    /// The same for a shortcut in the slot that `above` leads to.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn follow_below(
        &self,
        above: &str,
        shortcut: Ino,
        drive: &DriveId,
        item: &ItemId,
        kind: Option<DriveKind>,
    ) -> Result<(), StoreError> {
        let known = self.slots()?.into_iter().find(|slot| {
            slot.state != SlotState::Discarded
                && slot.drive == *drive
                && slot.item == *item
                && slot.above == above
        });
        if known.as_ref().is_some_and(|slot| slot.ino.is_some()) {
            if known.is_some_and(|slot| slot.ino != Some(shortcut)) {
                self.leave_slot(shortcut)?;
            }
            return Ok(());
        }
        self.leave_slot(shortcut)?;
        match known {
            Some(left) => {
                let sql = "UPDATE slots SET ino = ?2, state = 0 WHERE slot = ?1";
                let mut statement = self.conn.prepare_cached(sql)?;
                statement.execute((left.number, shortcut.0))?;
                self.note_last_path(left.number, None)?;
            }
            None => {
                let sql = "INSERT INTO slots (ino, drive, item, kind, above, state)
                           VALUES (?1, ?2, ?3, ?4, ?5, 0)";
                let kind = kind.map(DriveKind::as_str);
                let row = (shortcut.0, drive.as_str(), item.as_str(), kind, above);
                self.conn.prepare_cached(sql)?.execute(row)?;
            }
        }
        kill_point("slot-taken");
        Ok(())
    }

    /// A shortcut leads elsewhere, or is about to go: its row is still there, if it is in this drive.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn leave_slot(&self, shortcut: Ino) -> Result<(), StoreError> {
        let sql = "UPDATE slots SET ino = NULL, state = 1 WHERE ino = ?1 RETURNING slot";
        let mut statement = self.conn.prepare_cached(sql)?;
        let left: Vec<u32> = statement
            .query_map((shortcut.0,), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for slot in left {
            // The path of one in another slot is not known here.
            let path = self.path(shortcut)?;
            let path = Some(path.as_str()).filter(|path| !path.is_empty());
            self.note_last_path(slot, path)?;
            kill_point("slot-left");
        }
        Ok(())
    }

    /// Notes where something was shown that nothing shows any more, for those who look for what
    /// waits in it.
    fn note_last_path(&self, slot: u32, path: Option<&str>) -> Result<(), StoreError> {
        self.set_meta(&format!("{META_LAST_PATH}{slot}"), path)
    }

    /// A slot is given up with all that waits in it.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn discard_slot(&self, number: u32) -> Result<(), StoreError> {
        let sql = "UPDATE slots SET ino = NULL, state = 2 WHERE slot = ?1";
        self.conn.prepare_cached(sql)?.execute((number,))?;
        kill_point("slot-discarded");
        Ok(())
    }

    /// A slot is gone from the disk.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn forget_slot(&self, number: u32) -> Result<(), StoreError> {
        let sql = "DELETE FROM slots WHERE slot = ?1 AND ino IS NULL";
        self.conn.prepare_cached(sql)?.execute((number,))?;
        self.note_last_path(number, None)?;
        kill_point("slot-forgotten");
        Ok(())
    }
}

/// Which folder a database of a folder of another drive is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhichFolder {
    /// The drive.
    pub drive: DriveId,
    /// The folder in it.
    pub item: ItemId,
    /// The kind of the drive, if that is known.
    pub kind: Option<DriveKind>,
    /// What leads to the slot that its shortcut was in, as in [`Slot`].
    pub above: String,
}

/// Key of the metadata table under which a database of a folder of another drive says which it is.
const META_WHICH: &str = "which_folder";

impl Tx<'_> {
    /// Notes which folder this is the database of, so that it is known without the one that shows it.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn note_which(&self, slot: &Slot) -> Result<(), StoreError> {
        let kind = slot.kind.map_or("", DriveKind::as_str);
        let (drive, item) = (slot.drive.as_str(), slot.item.as_str());
        let text = format!("{drive}\n{item}\n{kind}\n{}", slot.above);
        if self.meta(META_WHICH)?.as_ref() == Some(&text) {
            return Ok(());
        }
        self.set_meta(META_WHICH, Some(&text))
    }

    /// Takes in a folder that is on this disk and in no slot, as one that nothing shows any more.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn take_in(&self, stray: &WhichFolder) -> Result<(), StoreError> {
        let sql = "INSERT INTO slots (ino, drive, item, kind, above, state)
                   VALUES (NULL, ?1, ?2, ?3, ?4, 1)";
        let kind = stray.kind.map(DriveKind::as_str);
        let row = (
            stray.drive.as_str(),
            stray.item.as_str(),
            kind,
            &stray.above,
        );
        self.conn.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }
}

/// Which folder a database is for that nobody has open, if it says so.
#[must_use]
pub fn which_folder(database: &Path) -> Option<WhichFolder> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags).ok()?;
    conn.busy_timeout(BUSY).ok()?;
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let text: String = conn.query_row(sql, (META_WHICH,), |row| row.get(0)).ok()?;
    let mut parts = text.split('\n');
    let (drive, item) = (parts.next()?, parts.next()?);
    Some(WhichFolder {
        drive: DriveId::new(drive),
        item: ItemId::new(item),
        kind: parts.next().and_then(DriveKind::parse),
        above: parts.next().unwrap_or_default().to_owned(),
    })
}

/// Tells whether a database that nobody has open holds something that has to be done although
/// nobody looks into it: changes to send, saves that were cut short, pins. One that cannot be read
/// does: whoever opens it repairs it.
#[must_use]
pub fn has_work(database: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let asked = Connection::open_with_flags(database, flags).and_then(|conn| {
        conn.busy_timeout(BUSY)?;
        let sql = "SELECT EXISTS (SELECT 1 FROM journal) OR EXISTS (SELECT 1 FROM pins)
                     OR EXISTS (SELECT 1 FROM bodies WHERE place = 1)";
        conn.query_row(sql, (), |row| row.get(0))
    });
    asked.unwrap_or(true)
}
