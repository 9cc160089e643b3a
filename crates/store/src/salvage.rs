//! What can still be read of a damaged database: names of items, and what is known of bodies.
//!
//! SQLite gives up on a database whose first page is gone, and on a table one of whose inner pages
//! is. The rows are in the leaves, and a leaf explains itself, so the pages are gone through one by
//! one without asking how they hang together (<https://www.sqlite.org/fileformat2.html>). Pages in
//! the log are newer than those in the database. Where the same row is found twice, one of them on
//! a page that was given up, the newer one by its own account counts.
//!
//! What comes out is for people to recognise their files by. Nothing is ever decided by it that
//! concerns the service.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use onedrivefs_core::Ino;
use rangemap::RangeSet;

use crate::{DATABASE_FILES, decode_ranges, files};

/// Size of a page when the database does not say.
const PAGE_DEFAULT: usize = 4096;

/// First byte of a page that is the leaf of a table.
const LEAF: u8 = 13;

/// Bytes of the first page that come before its rows.
const FILE_HEADER: usize = 100;

/// Bytes of a leaf before the positions of its rows.
const LEAF_HEADER: usize = 8;

/// Bytes of a log before its first frame, and before the page of each frame.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Longest row that is put together from several pages, in bytes.
const ROW_MAX: usize = 16 << 20;

/// Columns of the tables of items and bodies. Later versions add some at the end.
const ITEM_COLUMNS: usize = 28;
const BODY_COLUMNS: usize = 16;

/// An item as far as its row can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedItem {
    /// The folder it was in here, or on the service if it was unlinked here.
    pub parent: Option<Ino>,
    /// Its name there.
    pub name: String,
    /// Whether the service has it.
    pub is_remote: bool,
    /// Modification time in nanoseconds.
    pub mtime: i64,
    /// Its target, for a symbolic link that the service does not have.
    pub target: Option<Vec<u8>>,
    ctime: i64,
}

/// A body as far as its row can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedBody {
    /// The inode it belongs to.
    pub ino: Ino,
    /// Size in bytes at its last save.
    pub size: u64,
    /// Which bytes of it are on this machine; `None` when all are.
    pub ranges: Option<RangeSet<u64>>,
    /// Whether missing bytes were to come from the service.
    pub has_base: bool,
    generation: i64,
}

/// Everything that could be read.
#[derive(Debug, Default)]
pub struct Salvaged {
    /// Items by inode.
    pub items: HashMap<Ino, SalvagedItem>,
    /// Bodies by number.
    pub bodies: HashMap<u64, SalvagedBody>,
}

impl Salvaged {
    /// Reads what can be read of the database in a directory. Nothing is changed.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let mut salvaged = Self::default();
        let Some(pages) = Pages::open(dir) else {
            return salvaged;
        };
        for number in 1..=pages.count {
            if let Some(page) = pages.get(number) {
                salvaged.read_leaf(&pages, number, &page);
            }
        }
        salvaged
    }

    /// The path of an item from the root, as far as it is known.
    #[must_use]
    pub fn path(&self, ino: Ino) -> Vec<&str> {
        let mut names = Vec::new();
        let mut at = Some(ino);
        while let Some(item) = at
            .filter(|&at| at != Ino::ROOT)
            .and_then(|at| self.items.get(&at))
        {
            names.push(item.name.as_str());
            at = item.parent;
            // Nothing is that deep; damage can make a circle.
            if names.len() > 256 {
                break;
            }
        }
        names.reverse();
        names
    }

    fn read_leaf(&mut self, pages: &Pages, number: u32, page: &[u8]) {
        let start = if number == 1 { FILE_HEADER } else { 0 };
        if page.get(start) != Some(&LEAF) {
            return;
        }
        let count = usize::from(short(page, start + 3).unwrap_or(0));
        for index in 0..count {
            let position = short(page, start + LEAF_HEADER + 2 * index);
            let row = position.and_then(|at| read_row(pages, page, usize::from(at)));
            if let Some((id, values)) = row {
                self.take(id, &values);
            }
        }
    }

    /// Takes a row whose columns look like those of an item or a body.
    fn take(&mut self, id: u64, values: &[Value]) {
        if let Some(item) = as_item(values) {
            let known = self.items.get(&Ino(id));
            if known.is_none_or(|known| known.ctime <= item.ctime) {
                self.items.insert(Ino(id), item);
            }
        } else if let Some(body) = as_body(values) {
            let known = self.bodies.get(&id);
            if known.is_none_or(|known| known.generation <= body.generation) {
                self.bodies.insert(id, body);
            }
        }
    }
}

/// A value of a row.
#[derive(Debug)]
enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
    Other,
}

impl Value {
    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    fn unsigned(&self) -> Option<u64> {
        self.integer().and_then(|value| u64::try_from(value).ok())
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_text_or_null(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Null)
    }
}

fn as_item(values: &[Value]) -> Option<SalvagedItem> {
    if values.len() < ITEM_COLUMNS || !matches!(values[0], Value::Null) {
        return None;
    }
    let texts_fit = [6, 7, 9, 10, 11, 12, 13, 26]
        .into_iter()
        .all(|column| values[column].is_text_or_null());
    let kind = values[1].integer()?;
    let (here, there) = (values[3].unsigned(), values[8].unsigned());
    let (parent, name) = match (here, there) {
        (None, Some(there)) => (Some(there), values[9].text()?),
        _ => (here, values[4].text()?),
    };
    let is_remote = matches!(values[6], Value::Text(_));
    let target = match &values[25] {
        Value::Blob(target) if kind == 2 && !is_remote => Some(target.clone()),
        _ => None,
    };
    (texts_fit && (0..=2).contains(&kind)).then(|| SalvagedItem {
        parent: parent.map(Ino),
        name: name.to_owned(),
        is_remote,
        mtime: values[17].integer().unwrap_or(0),
        target,
        ctime: values[18].integer().unwrap_or(0),
    })
}

fn as_body(values: &[Value]) -> Option<SalvagedBody> {
    if !(BODY_COLUMNS..ITEM_COLUMNS).contains(&values.len()) || !matches!(values[0], Value::Null) {
        return None;
    }
    let texts_fit = (6..=9).all(|column| values[column].is_text_or_null());
    let flags_fit = [2, 4, 11].into_iter().all(|column| {
        values[column]
            .integer()
            .is_some_and(|flag| (0..=1).contains(&flag))
    });
    if !texts_fit || !flags_fit {
        return None;
    }
    let ranges = match (&values[4], &values[5]) {
        (Value::Integer(1), _) => None,
        (_, Value::Blob(ranges)) => Some(decode_ranges(ranges)),
        _ => Some(RangeSet::new()),
    };
    Some(SalvagedBody {
        ino: Ino(values[1].unsigned()?),
        size: values[3].unsigned()?,
        ranges,
        has_base: matches!(values[6], Value::Text(_)),
        generation: values[12].integer()?,
    })
}

/// The pages of a database, those in the log before those in the database.
struct Pages {
    database: Option<File>,
    log: Option<File>,
    /// Where in the log the newest version of a page is.
    in_log: HashMap<u32, u64>,
    size: usize,
    /// Bytes of a page that hold rows.
    usable: usize,
    count: u32,
}

impl Pages {
    fn open(dir: &Path) -> Option<Self> {
        let database = File::open(dir.join(DATABASE_FILES[0])).ok();
        let log = File::open(dir.join(DATABASE_FILES[1])).ok();
        let mut header = [0; FILE_HEADER];
        let told = database
            .as_ref()
            .is_some_and(|file| file.read_exact_at(&mut header, 0).is_ok())
            && header.starts_with(b"SQLite format 3\0");
        let size = match short(&header, 16) {
            Some(1) if told => 65536,
            Some(size) if told && size >= 512 && size.is_power_of_two() => usize::from(size),
            _ => PAGE_DEFAULT,
        };
        let reserved = if told { usize::from(header[20]) } else { 0 };
        let len = database
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |found| found.len());
        let mut pages = Self {
            database,
            log,
            in_log: HashMap::new(),
            size,
            usable: size.checked_sub(reserved).filter(|&usable| usable >= 480)?,
            count: u32::try_from(len.div_ceil(size as u64)).ok()?,
        };
        pages.read_log();
        Some(pages)
    }

    /// Finds the pages in the log: as far as its frames carry the mark of its header, up to the
    /// last one that ends a commit.
    fn read_log(&mut self) {
        let Some(log) = &self.log else { return };
        let mut header = [0; LOG_HEADER];
        if log.read_exact_at(&mut header, 0).is_err() || !files::is_log(&header) {
            return;
        }
        let mut at = LOG_HEADER as u64;
        let mut open = Vec::new();
        let mut frame = [0; FRAME_HEADER];
        while log.read_exact_at(&mut frame, at).is_ok() && frame[8..16] == header[16..24] {
            let page = long(&frame, 0).unwrap_or(0);
            open.push((page, at + FRAME_HEADER as u64));
            if long(&frame, 4) != Some(0) {
                self.count = self
                    .count
                    .max(open.iter().map(|(page, _)| *page).max().unwrap_or(0));
                self.in_log.extend(open.drain(..));
            }
            at += (FRAME_HEADER + self.size) as u64;
        }
    }

    fn get(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; self.size];
        let read = match self.in_log.get(&number) {
            Some(&at) => self.log.as_ref()?.read_exact_at(&mut page, at),
            None => {
                let at = u64::from(number.checked_sub(1)?) * self.size as u64;
                self.database.as_ref()?.read_exact_at(&mut page, at)
            }
        };
        read.ok().map(|()| page)
    }

    /// Puts the bytes of a row together that begins on a page and goes on on others.
    fn payload(&self, page: &[u8], at: usize, len: usize) -> Option<Vec<u8>> {
        let most = self.usable - 35;
        if len <= most {
            return page.get(at..at + len).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (len - least) % (self.usable - 4);
        let here = if fitting <= most { fitting } else { least };
        let mut payload = page.get(at..at + here)?.to_vec();
        let mut next = long(page, at + here)?;
        while payload.len() < len {
            let page = self.get(next)?;
            let part = (len - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + part)?);
            next = long(&page, 0)?;
        }
        Some(payload)
    }
}

/// Reads the row at a position of a leaf.
fn read_row(pages: &Pages, page: &[u8], at: usize) -> Option<(u64, Vec<Value>)> {
    let (len, at) = varint(page, at)?;
    let (id, at) = varint(page, at)?;
    let len = usize::try_from(len).ok().filter(|&len| len <= ROW_MAX)?;
    let payload = pages.payload(page, at, len)?;
    let (header_len, mut at) = varint(&payload, 0)?;
    let header_len = usize::try_from(header_len).ok()?;
    let mut data = header_len;
    let mut values = Vec::new();
    while at < header_len {
        let (kind, next) = varint(&payload, at)?;
        at = next;
        let (value, len) = read_value(kind, payload.get(data..)?)?;
        data += len;
        values.push(value);
    }
    Some((u64::try_from(id).ok()?, values))
}

/// Reads a value, and tells its length in bytes.
fn read_value(kind: i64, bytes: &[u8]) -> Option<(Value, usize)> {
    let integer = |len: usize| {
        let bytes = bytes.get(..len)?;
        let first = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
        let value = bytes
            .iter()
            .fold(first, |value, &b| (value << 8) | i64::from(b));
        Some((Value::Integer(value), len))
    };
    match kind {
        0 => Some((Value::Null, 0)),
        1..=4 => integer(usize::try_from(kind).ok()?),
        5 => integer(6),
        6 => integer(8),
        7 => Some((Value::Other, 8)),
        8 | 9 => Some((Value::Integer(kind - 8), 0)),
        12.. => {
            let len = usize::try_from((kind - 12) / 2).ok()?;
            let bytes = bytes.get(..len)?.to_vec();
            let value = if kind % 2 == 0 {
                Value::Blob(bytes)
            } else {
                String::from_utf8(bytes).map_or(Value::Other, Value::Text)
            };
            Some((value, len))
        }
        _ => None,
    }
}

/// Reads a number of one to nine bytes, and tells where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    for index in 0..9 {
        let byte = *bytes.get(at + index)?;
        if index == 8 {
            return Some(((value << 8) | i64::from(byte), at + 9));
        }
        value = (value << 7) | i64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use onedrivefs_core::Timestamp;

    use super::*;
    use crate::{BodyRow, Item, Kind, Place, Store};

    /// A store with a thousand files in a folder, the last with a body of many parts.
    fn filled(dir: &Path) -> Store {
        let store = Store::open(&dir.join(DATABASE_FILES[0])).expect("open");
        let now = Timestamp::now();
        let made = store.write(|tx| {
            let folder = tx.insert_item(&Item::new(Kind::Directory, Ino::ROOT, "Ordner", now))?;
            for number in 0..1000 {
                let mut item = Item::new(Kind::File, folder, &format!("file {number}"), now);
                item.ino = tx.insert_item(&item)?;
                if number == 999 {
                    let ranges = (0..2000).map(|n| n * 10..n * 10 + 5).collect();
                    let row = BodyRow {
                        id: 0,
                        ino: item.ino,
                        place: Place::Spool,
                        size: 20_000,
                        ranges: Some(ranges),
                        base_item: None,
                        base_etag: None,
                        base_ctag: None,
                        base_hash: None,
                        base_size: 0,
                        dirty: false,
                        generation: 3,
                        hash: None,
                        used_at: now,
                        previous: None,
                        durable: None,
                        copied: None,
                    };
                    tx.insert_body(&row)?;
                }
            }
            Ok::<_, crate::StoreError>(())
        });
        made.expect("written");
        store
    }

    fn assert_all(salvaged: &Salvaged) {
        assert_eq!(
            salvaged.items.len(),
            1002,
            "the root, a folder and its files"
        );
        let body = &salvaged.bodies[&1];
        assert_eq!(salvaged.path(body.ino), ["Ordner", "file 999"]);
        assert_eq!(body.ranges.as_ref().map(|r| r.iter().count()), Some(2000));
        assert!(!body.has_base);
    }

    #[test]
    fn rows_are_found_in_the_log_and_in_the_database() {
        let dir = tempfile::tempdir().expect("directory");
        let store = filled(dir.path());
        assert_all(&Salvaged::read(dir.path()));
        store.checkpoint().expect("checkpoint");
        assert_all(&Salvaged::read(dir.path()));
    }

    #[test]
    fn the_first_page_is_not_needed() {
        let dir = tempfile::tempdir().expect("directory");
        filled(dir.path()).checkpoint().expect("checkpoint");
        let file = File::options()
            .write(true)
            .open(dir.path().join(DATABASE_FILES[0]))
            .expect("open");
        file.write_all_at(&[0x5a; PAGE_DEFAULT], 0)
            .expect("written");
        assert_all(&Salvaged::read(dir.path()));
    }

    #[test]
    fn noise_is_survived() {
        let dir = tempfile::tempdir().expect("directory");
        filled(dir.path()).checkpoint().expect("checkpoint");
        let path = dir.path().join(DATABASE_FILES[0]);
        let sound = std::fs::read(&path).expect("read");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            let mut bytes = sound.clone();
            for _ in 0..500 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap_or(0) % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            std::fs::write(&path, &bytes).expect("written");
            let salvaged = Salvaged::read(dir.path());
            for &ino in salvaged.items.keys() {
                assert!(salvaged.path(ino).len() <= 257);
            }
        }
    }
}
