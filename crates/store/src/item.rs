//! Rows of items: one per inode, with what holds here and what the service said last.

use std::sync::Arc;

use onedrivefs_core::{CTag, ETag, Ino, ItemId, NameKey, QuickXorHash, Timestamp};
use rusqlite::{OptionalExtension as _, Row, ToSql};

use crate::db::KEPT_OF_A_COMMIT;
use crate::{Reader, StoreError, Tx};

/// What an inode is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What makes an item of the service special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    Ordinary,
    /// A notebook or the like: shown as an empty directory.
    Package,
    /// A link to an item of another drive.
    Shortcut,
    /// Content that the service refuses to hand out.
    Malware,
}

/// Who wrote the content that the service has of an item, as this machine judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Whoever is signed in here.
    Own,
    /// Somebody else, or nobody knows who.
    Other,
    /// Whoever is signed in here wrote the content that has the tag in the base. Whether that is
    /// what the service has could not be told.
    Doubtful,
}

/// What the service said last about an item: the base of every three-way decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// Identity on the service.
    pub id: ItemId,
    /// Folder there; `None` for the root of the drive.
    pub parent: Option<Ino>,
    /// Name there, decoded.
    pub name: String,
    /// Tag of metadata and content.
    pub etag: Option<ETag>,
    /// Tag of the content.
    pub ctag: Option<CTag>,
    /// Hash of the content.
    pub hash: Option<QuickXorHash>,
    /// Size of the content in bytes.
    pub size: u64,
    /// Modification time there.
    pub mtime: Timestamp,
    /// Who wrote this version of the content; `None` while nobody has judged that.
    pub author: Option<Author>,
}

/// One inode.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its number.
    pub ino: Ino,
    /// What it is to the kernel.
    pub kind: Kind,
    /// What makes it special.
    pub role: Role,
    /// The directory it is in; `None` for the root and for unlinked items.
    pub parent: Option<Ino>,
    /// Its name here.
    pub name: String,
    /// What the service said last; `None` while it has not reached the service.
    pub remote: Option<Remote>,
    /// Size in bytes as programs see it (of the last closed state).
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
    /// The body on this machine, whole or in part.
    pub body: Option<u64>,
    /// Whether all children are in the database.
    pub children_known: bool,
    /// Whether it never leaves this machine.
    pub local_only: bool,
    /// Target of a symbolic link, once known.
    pub target: Option<Vec<u8>>,
    /// Where people see it in a browser.
    pub web_url: Option<String>,
    /// The enumeration in which the row was last confirmed.
    pub epoch: i64,
}

impl Item {
    /// A new item that only exists here. `ino` is assigned by [`Tx::insert_item`].
    #[must_use]
    pub fn new(kind: Kind, parent: Ino, name: &str, now: Timestamp) -> Self {
        Self {
            ino: Ino(0),
            kind,
            role: Role::Ordinary,
            parent: Some(parent),
            name: name.to_owned(),
            remote: None,
            size: 0,
            mtime: now,
            ctime: now,
            btime: now,
            atime: now,
            mode: None,
            body: None,
            // Nobody but this machine knows what a new directory holds.
            children_known: kind == Kind::Directory,
            local_only: false,
            target: None,
            web_url: None,
            epoch: 0,
        }
    }

    /// Tells whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// The id on the service, if it has one.
    #[must_use]
    pub fn item_id(&self) -> Option<&ItemId> {
        self.remote.as_ref().map(|remote| &remote.id)
    }
}

/// The columns of a row, in the order in which they are decoded.
macro_rules! columns {
    () => {
        "ino, kind, role, parent, name, item_id, r_parent, r_name, etag, ctag, hash, r_size, \
         r_mtime, size, mtime, ctime, btime, atime, mode, body, children_known, local_only, target, \
         web_url, epoch, author"
    };
}

/// Asks for rows. Put together once: the text is how the prepared statement is found.
macro_rules! select {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM items WHERE ", $condition)
    };
}

pub(crate) fn kind_of(code: i64) -> rusqlite::Result<Kind> {
    match code {
        0 => Ok(Kind::Directory),
        1 => Ok(Kind::File),
        2 => Ok(Kind::Symlink),
        _ => Err(rusqlite::Error::IntegralValueOutOfRange(1, code)),
    }
}

fn role_of(code: i64) -> rusqlite::Result<Role> {
    match code {
        0 => Ok(Role::Ordinary),
        1 => Ok(Role::Package),
        2 => Ok(Role::Shortcut),
        3 => Ok(Role::Malware),
        _ => Err(rusqlite::Error::IntegralValueOutOfRange(2, code)),
    }
}

const fn kind_code(kind: Kind) -> i64 {
    match kind {
        Kind::Directory => 0,
        Kind::File => 1,
        Kind::Symlink => 2,
    }
}

const fn role_code(role: Role) -> i64 {
    match role {
        Role::Ordinary => 0,
        Role::Package => 1,
        Role::Shortcut => 2,
        Role::Malware => 3,
    }
}

const fn author_code(author: Author) -> i64 {
    match author {
        Author::Own => 1,
        Author::Other => 2,
        Author::Doubtful => 3,
    }
}

fn author_of(code: Option<i64>) -> rusqlite::Result<Option<Author>> {
    match code {
        None => Ok(None),
        Some(1) => Ok(Some(Author::Own)),
        Some(2) => Ok(Some(Author::Other)),
        Some(3) => Ok(Some(Author::Doubtful)),
        Some(code) => Err(rusqlite::Error::IntegralValueOutOfRange(25, code)),
    }
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Item> {
    let id: Option<String> = row.get(5)?;
    let remote = match id {
        None => None,
        Some(id) => Some(Remote {
            id: ItemId::new(id),
            parent: row.get::<_, Option<u64>>(6)?.map(Ino),
            name: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
            etag: row.get::<_, Option<String>>(8)?.map(ETag::new),
            ctag: row.get::<_, Option<String>>(9)?.map(CTag::new),
            hash: row
                .get::<_, Option<String>>(10)?
                .and_then(|h| QuickXorHash::parse(&h)),
            size: row.get::<_, Option<u64>>(11)?.unwrap_or(0),
            mtime: Timestamp::from_nanos(row.get::<_, Option<i64>>(12)?.unwrap_or(0)),
            author: author_of(row.get(25)?)?,
        }),
    };
    Ok(Item {
        ino: Ino(row.get(0)?),
        kind: kind_of(row.get(1)?)?,
        role: role_of(row.get(2)?)?,
        parent: row.get::<_, Option<u64>>(3)?.map(Ino),
        name: row.get(4)?,
        remote,
        size: row.get(13)?,
        mtime: Timestamp::from_nanos(row.get(14)?),
        ctime: Timestamp::from_nanos(row.get(15)?),
        btime: Timestamp::from_nanos(row.get(16)?),
        atime: Timestamp::from_nanos(row.get(17)?),
        mode: row.get(18)?,
        body: row.get(19)?,
        children_known: row.get(20)?,
        local_only: row.get(21)?,
        target: row.get(22)?,
        web_url: row.get(23)?,
        epoch: row.get(24)?,
    })
}

impl Reader<'_> {
    fn items(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Item>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params, decode)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn one_item(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Option<Item>, StoreError> {
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row(params, decode)
            .optional()?)
    }

    /// The row of an inode.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn item(&self, ino: Ino) -> Result<Option<Item>, StoreError> {
        self.one_item(select!("ino = ?1"), (ino.0,))
    }

    /// The item with this id on the service.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn item_by_id(&self, id: &ItemId) -> Result<Option<Item>, StoreError> {
        self.one_item(select!("item_key = ?1"), (id.key(),))
    }

    /// The directory with this id on the service.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn directory_by_id(&self, id: &ItemId) -> Result<Option<Ino>, StoreError> {
        let sql = "SELECT ino FROM items WHERE item_key = ?1 AND kind = 0";
        let mut statement = self.conn.prepare_cached(sql)?;
        let found = statement.query_row((id.key(),), |row| row.get(0).map(Ino));
        Ok(found.optional()?)
    }

    /// The entry of a directory, compared the way the service compares names.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn child(&self, parent: Ino, name: &str) -> Result<Option<Item>, StoreError> {
        self.one_item(
            select!("parent = ?1 AND name_key = ?2"),
            (parent.0, NameKey::of(name).as_str()),
        )
    }

    /// The items that hold this name on the service, as far as is known here.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn remote_children_named(&self, parent: Ino, name: &str) -> Result<Vec<Item>, StoreError> {
        self.items(
            select!("r_parent = ?1 AND r_key = ?2"),
            (parent.0, NameKey::of(name).as_str()),
        )
    }

    /// The entries of a directory, in no particular order.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn children(&self, parent: Ino) -> Result<Vec<Item>, StoreError> {
        self.items(select!("parent = ?1"), (parent.0,))
    }

    /// Length of the longest path below a directory, counted in characters with a slash before
    /// each name. What never leaves this machine does not count.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn longest_path_below(&self, ino: Ino) -> Result<usize, StoreError> {
        let mut statement = self.conn.prepare_cached(
            // Only directories are gone through one by one: whatever else is in each of them counts
            // by the longest name alone, which takes a quarter of the time.
            "WITH RECURSIVE folders (ino, len) AS (
               SELECT ?1, 0
               UNION ALL
               SELECT items.ino, len + 1 + length(name) FROM folders
                 JOIN items ON items.parent = folders.ino
                 WHERE kind = 0 AND local_only = 0 AND len < 100000
             ) SELECT max(len + coalesce((SELECT max(1 + length(name)) FROM items
                 WHERE parent = folders.ino AND local_only = 0), 0)) FROM folders",
        )?;
        let longest: Option<i64> = statement.query_row((ino.0,), |row| row.get(0))?;
        Ok(longest.map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX)))
    }

    /// What the folder holds on the service, as far as is known here.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn remote_children(&self, parent: Ino) -> Result<Vec<Item>, StoreError> {
        self.items(select!("r_parent = ?1"), (parent.0,))
    }

    /// Tells whether a directory has an entry.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn has_children(&self, parent: Ino) -> Result<bool, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT 1 FROM items WHERE parent = ?1 LIMIT 1")?;
        Ok(statement.exists((parent.0,))?)
    }

    /// Items on the service that the enumeration `epoch` has not confirmed, the root aside.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn unconfirmed(&self, epoch: i64) -> Result<Vec<Item>, StoreError> {
        self.items(
            select!("item_id IS NOT NULL AND epoch < ?1 AND ino != 1"),
            (epoch,),
        )
    }

    /// Items that no directory holds any more and that nothing remains to be sent for.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn orphans(&self) -> Result<Vec<Item>, StoreError> {
        self.items(
            select!(
                "parent IS NULL AND ino != 1
                 AND ino NOT IN (SELECT ino FROM journal)"
            ),
            (),
        )
    }

    /// Number of items in the mount.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn count_items(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM items WHERE parent IS NOT NULL";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |row| row.get(0))?)
    }

    /// Number of items in the mount that the service has, too.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn count_known(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM items WHERE parent IS NOT NULL AND item_id IS NOT NULL";
        Ok(self
            .conn
            .prepare_cached(sql)?
            .query_row((), |row| row.get(0))?)
    }

    /// The path of an inode from the root of the mount, without a leading slash; empty for the
    /// root. Unlinked items have the path they were last known under on the service, if any.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn path(&self, ino: Ino) -> Result<String, StoreError> {
        let mut names = Vec::new();
        let mut at = ino;
        // A path deeper than this would be a cycle, which no transaction makes.
        for _ in 0..4096 {
            let Some(item) = self.item(at)? else { break };
            let remote = item
                .remote
                .as_ref()
                .and_then(|r| r.parent.map(|p| (p, r.name.clone())));
            let Some((parent, name)) = item.parent.map(|p| (p, item.name)).or(remote) else {
                break;
            };
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(names.join("/"))
    }
}

impl Tx<'_> {
    /// Inserts a new item and returns its inode number.
    ///
    /// # Errors
    /// A constraint violation when the name or id is taken; SQLite's errors.
    pub fn insert_item(&self, item: &Item) -> Result<Ino, StoreError> {
        self.store_item(item, None)?;
        let ino = Ino(u64::try_from(self.conn.last_insert_rowid()).unwrap_or(0));
        self.note(ino, || Item {
            ino,
            ..item.clone()
        });
        Ok(ino)
    }

    /// Replaces the row of an existing item.
    ///
    /// # Errors
    /// A constraint violation when the name or id is taken; SQLite's errors.
    pub fn update_item(&self, item: &Item) -> Result<(), StoreError> {
        if self.store_item(item, Some(item.ino))? > 0 {
            self.note(item.ino, || item.clone());
        } else {
            self.touched.borrow_mut().push((item.ino, None));
        }
        Ok(())
    }

    /// Writes size, times, mode and body of an item whose row is as it is stored otherwise. Most system
    /// calls change nothing else, and a whole row takes several times as long.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn update_figures(&self, item: &Item) -> Result<(), StoreError> {
        let written = self
            .conn
            .prepare_cached(
                "UPDATE items SET size = ?2, mtime = ?3, ctime = ?4, atime = ?5, mode = ?6, body = ?7
                 WHERE ino = ?1",
            )?
            .execute((
                item.ino.0,
                item.size,
                item.mtime.as_nanos(),
                item.ctime.as_nanos(),
                item.atime.as_nanos(),
                item.mode,
                item.body,
            ))?;
        if written > 0 {
            self.note(item.ino, || item.clone());
        } else {
            self.touched.borrow_mut().push((item.ino, None));
        }
        Ok(())
    }

    /// Notes that a row was written as a whole, or is known as a whole.
    fn note(&self, ino: Ino, item: impl FnOnce() -> Item) {
        let mut touched = self.touched.borrow_mut();
        // Large transactions are not kept in memory, so that they need not be twice.
        let row = (touched.len() < KEPT_OF_A_COMMIT).then(|| Arc::new(item()));
        touched.push((ino, row));
    }

    /// Removes the row of an item with its extended attributes and its pin. A folder of another drive
    /// that it showed is left.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn delete_item(&self, ino: Ino) -> Result<(), StoreError> {
        self.leave_slot(ino)?;
        self.touched.borrow_mut().push((ino, None));
        self.conn
            .prepare_cached("DELETE FROM items WHERE ino = ?1")?
            .execute((ino.0,))?;
        self.conn
            .prepare_cached("DELETE FROM xattrs WHERE ino = ?1")?
            .execute((ino.0,))?;
        self.conn
            .prepare_cached("DELETE FROM pins WHERE ino = ?1")?
            .execute((ino.0,))?;
        Ok(())
    }

    /// What one folder holds on the service is held by another from now on.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn move_remote_children(&self, from: Ino, to: Ino) -> Result<(), StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("UPDATE items SET r_parent = ?2 WHERE r_parent = ?1 RETURNING ino")?;
        let moved: Vec<u64> = statement
            .query_map((from.0, to.0), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let moved = moved.into_iter().map(|ino| (Ino(ino), None));
        self.touched.borrow_mut().extend(moved);
        self.conn
            .prepare_cached("UPDATE OR REPLACE unanswered SET parent = ?2 WHERE parent = ?1")?
            .execute((from.0, to.0))?;
        Ok(())
    }

    /// Declares that every directory's children are in the database.
    ///
    /// # Errors
    /// SQLite's errors.
    pub fn all_children_known(&self) -> Result<(), StoreError> {
        let sql = "SELECT ino FROM items WHERE kind = 0 AND children_known = 0";
        let mut statement = self.conn.prepare_cached(sql)?;
        let unknown: Vec<u64> = statement
            .query_map((), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let unknown = unknown.into_iter().map(|ino| (Ino(ino), None));
        self.touched.borrow_mut().extend(unknown);
        self.conn
            .prepare_cached(
                "UPDATE items SET children_known = 1 WHERE kind = 0 AND children_known = 0",
            )?
            .execute(())?;
        Ok(())
    }

    /// Writes a row; returns how many there were to write.
    fn store_item(&self, item: &Item, existing: Option<Ino>) -> Result<usize, StoreError> {
        let sql = match existing {
            Some(_) => {
                "UPDATE items SET kind = ?2, role = ?3, name = ?5, item_id = ?7, r_name = ?10,
                   etag = ?12, ctag = ?13, hash = ?14, r_size = ?15, r_mtime = ?16, size = ?17,
                   mtime = ?18, ctime = ?19, btime = ?20, atime = ?21, mode = ?22, body = ?23,
                   children_known = ?24, local_only = ?25, target = ?26, web_url = ?27, epoch = ?28,
                   author = ?29
                 WHERE ino = ?1"
            }
            None => {
                "INSERT INTO items (ino, kind, role, parent, name, name_key, item_id, item_key,
                   r_parent, r_name, r_key, etag, ctag, hash, r_size, r_mtime, size, mtime, ctime,
                   btime, atime, mode, body, children_known, local_only, target, web_url, epoch, author)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                   ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)"
            }
        };
        let remote = item.remote.as_ref();
        let kind = kind_code(item.kind);
        let role = role_code(item.role);
        let author = remote.and_then(|r| r.author).map(author_code);
        let name_key = NameKey::of(&item.name);
        let r_key = remote.map(|r| match r.name == item.name {
            true => name_key.clone(),
            false => NameKey::of(&r.name),
        });
        let r_key = r_key.as_ref().map(NameKey::as_str);
        let item_key = remote.map(|r| r.id.key());
        let hash = remote.and_then(|r| r.hash).map(|h| h.to_string());
        let params: &[&dyn ToSql] = &[
            &existing.map(|ino| ino.0),
            &kind,
            &role,
            &item.parent.map(|p| p.0),
            &item.name,
            &name_key.as_str(),
            &remote.map(|r| r.id.as_str()),
            &item_key,
            &remote.and_then(|r| r.parent).map(|p| p.0),
            &remote.map(|r| r.name.as_str()),
            &r_key,
            &remote.and_then(|r| r.etag.as_ref()).map(ETag::as_str),
            &remote.and_then(|r| r.ctag.as_ref()).map(CTag::as_str),
            &hash,
            &remote.map(|r| r.size),
            &remote.map(|r| r.mtime.as_nanos()),
            &item.size,
            &item.mtime.as_nanos(),
            &item.ctime.as_nanos(),
            &item.btime.as_nanos(),
            &item.atime.as_nanos(),
            &item.mode,
            &item.body,
            &item.children_known,
            &item.local_only,
            &item.target,
            &item.web_url,
            &item.epoch,
            &author,
        ];
        let written = self.conn.prepare_cached(sql)?.execute(params)?;
        if existing.is_none() {
            return Ok(written);
        }
        // SQLite writes the pages of an index anew for every update that names one of its columns,
        // whatever the values are; most updates leave all of them as they were.
        self.conn
            .prepare_cached(
                "UPDATE items SET parent = ?2, name_key = ?3, item_key = ?4, r_parent = ?5, r_key = ?6
                 WHERE ino = ?1 AND (parent IS NOT ?2 OR name_key IS NOT ?3 OR item_key IS NOT ?4
                   OR r_parent IS NOT ?5 OR r_key IS NOT ?6)",
            )?
            .execute((
                item.ino.0,
                item.parent.map(|p| p.0),
                name_key.as_str(),
                item_key,
                remote.and_then(|r| r.parent).map(|p| p.0),
                r_key,
            ))?;
        Ok(written)
    }
}
