//! Listings: which inodes a directory has, and what a listing tells of each.

use std::ops::RangeInclusive;

use onedrivefs_core::{Ino, NameKey, Timestamp};
use rusqlite::{CachedStatement, OptionalExtension as _, Row};

use crate::item::kind_of;
use crate::{Item, Kind, Reader, Role, StoreError};

/// How many rows may lie between the first and the last of some for each that is wanted, for them to
/// be read in one go.
const SPREAD_MAX: u64 = 4;

/// What a listing tells of an item: the part of its row that attributes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Its number.
    pub ino: Ino,
    /// What it is to the kernel.
    pub kind: Kind,
    /// Whether a directory has it.
    pub has_name: bool,
    /// Whether it stands for something in another drive.
    pub is_shortcut: bool,
    /// Size in bytes as programs see it, of the last closed state; of a symbolic link, the length of
    /// its target.
    pub size: u64,
    /// Modification time, to the nanosecond.
    pub mtime: Timestamp,
    /// Time of the last change of the inode.
    pub ctime: Timestamp,
    /// Creation time.
    pub btime: Timestamp,
    /// Access time.
    pub atime: Timestamp,
    /// Permission bits, when a program set them.
    pub mode: Option<u32>,
}

impl Figures {
    /// Tells whether it is a folder of this drive.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.kind == Kind::Directory && !self.is_shortcut
    }
}

impl From<&Item> for Figures {
    fn from(item: &Item) -> Self {
        let target = match item.kind {
            Kind::Symlink => item.target.as_ref(),
            Kind::Directory | Kind::File => None,
        };
        Self {
            ino: item.ino,
            kind: item.kind,
            has_name: item.parent.is_some(),
            is_shortcut: item.role == Role::Shortcut,
            size: target.map_or(item.size, |target| target.len() as u64),
            mtime: item.mtime,
            ctime: item.ctime,
            btime: item.btime,
            atime: item.atime,
            mode: item.mode,
        }
    }
}

/// The columns of a listing. The name comes last, and the name that is compared before it.
macro_rules! columns {
    () => {
        "ino, parent, kind, size, mtime, ctime, btime, atime, mode, \
         CASE WHEN kind = 2 THEN length(target) END, role = 2, name_key, name"
    };
}

/// Those of the inodes whose numbers are in a range.
const IN_RANGE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM items WHERE ino BETWEEN ?1 AND ?2"
);

/// Those of the entry of a directory.
const CHILD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM items WHERE parent = ?1 AND name_key = ?2"
);

fn figures(row: &Row<'_>) -> rusqlite::Result<Figures> {
    let target: Option<u64> = row.get(9)?;
    let size = match target {
        Some(length) => length,
        None => row.get(3)?,
    };
    Ok(Figures {
        ino: Ino(row.get(0)?),
        kind: kind_of(row.get(2)?)?,
        has_name: true,
        is_shortcut: row.get(10)?,
        size,
        mtime: Timestamp::from_nanos(row.get(4)?),
        ctime: Timestamp::from_nanos(row.get(5)?),
        btime: Timestamp::from_nanos(row.get(6)?),
        atime: Timestamp::from_nanos(row.get(7)?),
        mode: row.get(8)?,
    })
}

/// An entry of a directory: its figures, its name as it is compared, and its name.
pub type Visit<'v> = dyn FnMut(Figures, &str, &str) + 'v;

impl Reader<'_> {
    /// Visits the inodes of a directory with their names as they are compared, in no particular
    /// order, for as long as `visit` wants more. Tells whether that were all.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn each_name(
        &self,
        directory: Ino,
        mut visit: impl FnMut(Ino, &str) -> bool,
    ) -> Result<bool, StoreError> {
        // All of it is in the index.
        let sql = "SELECT ino, name_key FROM items WHERE parent = ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query((directory.0,))?;
        while let Some(row) = rows.next()? {
            if !visit(Ino(row.get(0)?), text(row, 1)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The inode that has a name in a directory. The name is given as it is compared.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn child_of_key(&self, directory: Ino, key: &str) -> Result<Option<Ino>, StoreError> {
        let sql = "SELECT ino FROM items WHERE parent = ?1 AND name_key = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let found = statement.query_row((directory.0, key), |row| row.get(0).map(Ino));
        Ok(found.optional()?)
    }

    /// The entry of a directory, compared the way the service compares names, and whether it is
    /// spelled exactly so.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn child_figures(
        &self,
        directory: Ino,
        name: &str,
    ) -> Result<Option<(Figures, bool)>, StoreError> {
        let mut statement = self.conn.prepare_cached(CHILD)?;
        let mut rows = statement.query((directory.0, NameKey::of(name).as_str()))?;
        let found = rows.next()?;
        found
            .map(|row| Ok((figures(row)?, text(row, 12)? == name)))
            .transpose()
    }

    /// Visits those of some inodes, given in ascending order, that a directory still has.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn each_entry(
        &self,
        directory: Ino,
        inos: &[Ino],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (inos.first(), inos.last()) else {
            return Ok(());
        };
        let mut statement = self.conn.prepare_cached(IN_RANGE)?;
        if (last.0 - first.0) / SPREAD_MAX > inos.len() as u64 {
            let mut one =
                |ino: &Ino| visit_rows(&mut statement, *ino..=*ino, directory, inos, visit);
            return inos.iter().try_for_each(&mut one);
        }
        visit_rows(&mut statement, *first..=*last, directory, inos, visit)
    }
}

/// Visits the wanted ones of the rows in a range.
fn visit_rows(
    statement: &mut CachedStatement<'_>,
    range: RangeInclusive<Ino>,
    directory: Ino,
    inos: &[Ino],
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut left = &inos[inos.partition_point(|ino| *ino < *range.start())..];
    let mut rows = statement.query((range.start().0, range.end().0))?;
    while let Some(row) = rows.next()? {
        let ino = Ino(row.get(0)?);
        let before = left.iter().take_while(|wanted| **wanted < ino).count();
        left = &left[before..];
        let parent: Option<u64> = row.get(1)?;
        if left.first() == Some(&ino) && parent == Some(directory.0) {
            visit(figures(row)?, text(row, 11)?, text(row, 12)?);
        }
    }
    Ok(())
}

/// A column that holds text.
fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, StoreError> {
    let value = row.get_ref(column)?;
    Ok(value.as_str().map_err(rusqlite::Error::from)?)
}
