//! Taking in what was set aside: every body becomes a file of a new folder.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use onedrivefs_content::{BodyId, Place, RangeSet};
use onedrivefs_core::{Ino, Timestamp, kill_point, name};
use onedrivefs_store::{
    BodyRow, ConflictRow, Item, Kind, Salvaged, SalvagedBody, Store, StoreError, Tx,
};

use super::Rescue;
use super::aside::{self, Aside, FoundBody};
use crate::bodies::Bodies;
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::fold::Change;
use crate::journal;

/// What is added to the name of a file of which only parts are here, and to that of its note.
const PARTS: &str = ".parts";
const NOTE: &str = ".parts.txt";

/// How much of a body is here.
enum Extent {
    Whole,
    /// Only these ranges.
    Parts(RangeSet<u64>),
    /// There are gaps in the file, and nobody knows any more whether they are zeros.
    Unknown,
}

/// A rescue under way.
struct Adoption<'a> {
    tx: &'a Tx<'a>,
    config: &'a EngineConfig,
    bodies: &'a Bodies,
    now: Timestamp,
    /// The folder for everything, and its name.
    top: Ino,
    top_name: String,
    /// Folders below it, by the path of names.
    folders: HashMap<Vec<String>, Ino>,
    files: usize,
    partial: usize,
    /// Bodies whose rows are known after the commit.
    made: Vec<BodyId>,
}

/// Takes in what is in a directory.
pub(super) fn take_in(
    config: &EngineConfig,
    store: &Store,
    bodies: &Bodies,
    aside: &Aside,
) -> Result<Rescue, EngineError> {
    let mut rescue = Rescue {
        kept: aside.dir().to_owned(),
        database: aside.is_of_database(),
        reason: aside.reason(),
        folder: None,
        files: 0,
        partial: 0,
        failed: None,
    };
    let key = aside.key();
    let found = aside.bodies();
    if store.read(|r| r.meta(&key))?.is_none() {
        let salvaged = Salvaged::read(aside.dir());
        let made = store.write(|tx| {
            let mut made = Vec::new();
            let links = unsent_links(&salvaged);
            if !found.is_empty() || !links.is_empty() {
                let mut adoption = Adoption::begin(tx, config, bodies)?;
                for body in &found {
                    adoption.take_body(&salvaged, body)?;
                }
                for ino in links {
                    adoption.take_link(&salvaged, ino)?;
                }
                rescue.folder = Some(adoption.top_name);
                rescue.files = adoption.files;
                rescue.partial = adoption.partial;
                made = adoption.made;
            }
            tx.set_meta(&key, Some("1"))?;
            Ok::<_, EngineError>(made)
        })?;
        for id in made {
            if let Err(error) = bodies.content().confirm(id) {
                tracing::warn!(%error, "A body that was taken in is known, and could not be marked so.");
            }
        }
        // Only when they are safe in their new places do they lose the old ones.
        bodies.content().sync_dir(Place::Spool)?;
        store.sync()?;
    }
    aside.empty()?;
    // Its name may be given to another one in the same second, or when the clock was set back.
    store.write(|tx| tx.set_meta(&key, None))?;
    kill_point("rescue-forgotten");
    aside.leave()?;
    Ok(rescue)
}

/// Symbolic links that the service does not have: their target was in the database only.
fn unsent_links(salvaged: &Salvaged) -> Vec<Ino> {
    let links = salvaged
        .items
        .iter()
        .filter(|(_, item)| item.target.is_some() && !item.is_remote && item.parent.is_some());
    let mut links: Vec<Ino> = links.map(|(&ino, _)| ino).collect();
    links.sort();
    links
}

impl<'a> Adoption<'a> {
    /// Makes the folder for everything.
    fn begin(
        tx: &'a Tx<'a>,
        config: &'a EngineConfig,
        bodies: &'a Bodies,
    ) -> Result<Self, EngineError> {
        let now = Timestamp::now();
        let mut adoption = Self {
            tx,
            config,
            bodies,
            now,
            top: Ino::ROOT,
            top_name: String::new(),
            folders: HashMap::new(),
            files: 0,
            partial: 0,
            made: Vec::new(),
        };
        let name = format!(
            "Recovered files ({} {})",
            config.host_name,
            aside::date(now)
        );
        adoption.top_name = adoption.free_name(Ino::ROOT, &name)?;
        let folder = Item::new(Kind::Directory, Ino::ROOT, &adoption.top_name, now);
        adoption.top = adoption.add(folder)?.ino;
        Ok(adoption)
    }

    /// Takes in a body.
    fn take_body(&mut self, salvaged: &Salvaged, found: &FoundBody) -> Result<(), EngineError> {
        let row = salvaged.bodies.get(&found.id.0);
        let path = self.old_path(salvaged, row.map(|row| row.ino));
        let extent = extent_of(found, row)?;
        let (folders, own) = match path.split_last() {
            Some((own, folders)) => (folders, own.clone()),
            None => (&[][..], format!("unsent file {}", found.id.0)),
        };
        let parent = self.folder(folders)?;
        let mtime = row
            .and_then(|row| salvaged.items.get(&row.ino))
            .map_or(found.mtime, |item| item.mtime.max(found.mtime));
        let whole = matches!(extent, Extent::Whole);
        let name = if whole {
            own.clone()
        } else {
            format!("{own}{PARTS}")
        };
        let name = self.free_name(parent, &name)?;
        let mut item = Item::new(Kind::File, parent, &name, self.now);
        item.mtime = Timestamp::from_nanos(mtime);
        item.local_only = !whole || self.config.local_only.matches(&name);
        item.size = found.len;
        let id = self.add_file(item)?;
        self.bodies.content().take_in(&found.path, id)?;
        kill_point("body-taken-in");
        let copy = self.shown(folders, &name);
        let original = match path.is_empty() {
            false => path.join("/"),
            true => format!("a file whose name is not known any more ({})", found.id),
        };
        tracing::warn!(original, kept = copy, "Unsent content was recovered.");
        self.files += 1;
        if !whole {
            self.partial += 1;
            self.add_note(parent, &own, &name, &extent)?;
        }
        self.tx.add_conflict(&ConflictRow {
            path: original,
            copy,
            at: self.now,
        })?;
        Ok(())
    }

    /// Makes a symbolic link anew.
    fn take_link(&mut self, salvaged: &Salvaged, ino: Ino) -> Result<(), EngineError> {
        let path = self.old_path(salvaged, Some(ino));
        let target = salvaged
            .items
            .get(&ino)
            .and_then(|item| item.target.clone());
        let (Some((own, folders)), Some(target)) = (path.split_last(), target) else {
            return Ok(());
        };
        let parent = self.folder(folders)?;
        let name = self.free_name(parent, own)?;
        let mut item = Item::new(Kind::Symlink, parent, &name, self.now);
        item.size = target.len() as u64;
        item.target = Some(target);
        item.local_only = self.config.local_only.matches(&name);
        self.add(item)?;
        self.files += 1;
        Ok(())
    }

    /// Writes down which parts of a file are here.
    fn add_note(
        &mut self,
        parent: Ino,
        own: &str,
        name: &str,
        extent: &Extent,
    ) -> Result<(), EngineError> {
        let text = note(own, name, extent);
        let note = self.free_name(parent, &format!("{own}{NOTE}"))?;
        let mut item = Item::new(Kind::File, parent, &note, self.now);
        item.local_only = true;
        item.size = text.len() as u64;
        let id = self.add_file(item)?;
        self.bodies
            .content()
            .create_provisional(id, text.as_bytes())?;
        Ok(())
    }

    /// Adds a file with a body in the spool, whose bytes are yet to come.
    fn add_file(&mut self, item: Item) -> Result<BodyId, EngineError> {
        let mut item = self.add(item)?;
        let row = BodyRow {
            id: 0,
            ino: item.ino,
            place: onedrivefs_store::Place::Spool,
            size: item.size,
            ranges: None,
            base_item: None,
            base_etag: None,
            base_ctag: None,
            base_hash: None,
            base_size: 0,
            dirty: false,
            generation: 1,
            hash: None,
            used_at: self.now,
            previous: None,
            durable: None,
            copied: None,
        };
        let id = self.tx.insert_body(&row)?;
        item.body = Some(id);
        self.tx.update_item(&item)?;
        journal::record(self.tx, &item, Change::Saved, false, self.now)?;
        self.made.push(BodyId(id));
        Ok(BodyId(id))
    }

    /// Adds an item, to be created on the service.
    fn add(&self, mut item: Item) -> Result<Item, StoreError> {
        item.ino = self.tx.insert_item(&item)?;
        journal::record(self.tx, &item, Change::Created, false, self.now)?;
        Ok(item)
    }

    /// The folder with a path below the folder for everything.
    fn folder(&mut self, path: &[String]) -> Result<Ino, StoreError> {
        let mut at = self.top;
        for depth in 1..=path.len() {
            let key = &path[..depth];
            at = match self.folders.get(key) {
                Some(&known) => known,
                None => {
                    let name = self.free_name(at, &path[depth - 1])?;
                    let made = self.add(Item::new(Kind::Directory, at, &name, self.now))?;
                    self.folders.insert(key.to_vec(), made.ino);
                    made.ino
                }
            };
        }
        Ok(at)
    }

    /// The path that an inode had, as far as it can be told.
    fn old_path(&self, salvaged: &Salvaged, ino: Option<Ino>) -> Vec<String> {
        let path = ino.map(|ino| salvaged.path(ino)).unwrap_or_default();
        path.into_iter()
            .map(|part| match name::check_local(part) {
                Ok(()) => part.to_owned(),
                Err(_) => "unknown".to_owned(),
            })
            .collect()
    }

    /// A name that is free in a directory.
    fn free_name(&self, parent: Ino, name: &str) -> Result<String, StoreError> {
        let mut n = 1;
        loop {
            let candidate = if n == 1 {
                name.to_owned()
            } else {
                numbered(name, n)
            };
            if self.tx.child(parent, &candidate)?.is_none() {
                return Ok(candidate);
            }
            n += 1;
        }
    }

    /// The path in the mount that people are told.
    fn shown(&self, folders: &[String], name: &str) -> String {
        let mut path = self.top_name.clone();
        for part in folders.iter().map(String::as_str).chain([name]) {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// A name with a number before its extension.
fn numbered(name: &str, n: u32) -> String {
    match name.rfind('.') {
        Some(at) if at > 0 => format!("{} ({n}){}", &name[..at], &name[at..]),
        _ => format!("{name} ({n})"),
    }
}

/// Finds out how much of a body is here.
fn extent_of(found: &FoundBody, row: Option<&SalvagedBody>) -> Result<Extent, EngineError> {
    let Some(row) = row else {
        let failed = aside::failed(&found.path);
        let file = File::open(&found.path).map_err(&failed)?;
        return Ok(if has_gaps(&file, found.len).map_err(failed)? {
            Extent::Unknown
        } else {
            Extent::Whole
        });
    };
    let Some(mut here) = row.ranges.clone().filter(|_| row.has_base) else {
        return Ok(Extent::Whole);
    };
    // What lies past the size at the last save was written here.
    if row.size < found.len {
        here.insert(row.size..found.len);
    }
    let whole = here.gaps(&(0..found.len)).next().is_none();
    Ok(if whole {
        Extent::Whole
    } else {
        Extent::Parts(here)
    })
}

/// Tells whether there are gaps in a file: bytes that were never written.
fn has_gaps(file: &File, len: u64) -> std::io::Result<bool> {
    let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0))?;
    let mut last = [0];
    file.read_exact_at(&mut last, len - 1)?;
    Ok(hole < len)
}

/// Explains a file of which only parts are here.
fn note(own: &str, name: &str, extent: &Extent) -> String {
    let mut text = format!(
        "The file \"{own}\" was edited on this computer, and the changes had not been uploaded when \
         the local\ndatabase of onedrivefs was damaged. Only parts of the file were on this \
         computer. They are in\n\"{name}\", at their places; the bytes between them are zeros and \
         mean nothing.\n"
    );
    match extent {
        Extent::Parts(ranges) => {
            text.push_str("\nParts that are there (first byte to last byte, counted from 0):\n");
            for range in ranges.iter() {
                // Writing to a string cannot fail.
                let _written = writeln!(text, "  {} to {}", range.start, range.end - 1);
            }
        }
        _ => text.push_str("\nWhich parts these are is not known any more.\n"),
    }
    text.push_str(
        "\nBoth files stay on this computer. Delete them when they are of no use, or rename a file \
         to have it\nuploaded.\n",
    );
    text
}
