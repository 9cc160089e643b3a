//! What a handle lists: the inodes that a directory had when the listing began, each in its place,
//! whatever happens to the directory meanwhile.
//!
//! What is told of them is read in parts, when it is asked for. What is gone by then is left out, and
//! what has another name has it in the listing. A name that led to an inode at the beginning and leads
//! to another by then, as after a save by rename, is listed at the end.

use std::ops::Range;

use onedrivefs_core::Ino;
use onedrivefs_store::{Figures, Reader, Store, StoreError};

/// Entries of the first part: about what the kernel takes at once.
const FIRST_PART: usize = 192;

/// Entries of the smallest part.
const SMALL_PART: usize = 32;

/// The inodes of a directory, and what is told of some of them.
pub(crate) struct Listing {
    directory: Ino,
    places: Vec<Place>,
    /// Places below this are in ascending order of their inodes; the others were added later.
    sorted: usize,
    /// The names that the inodes had at the beginning, as they are compared.
    names: String,
    part: Part,
    /// Entries that are read ahead.
    step: usize,
}

/// An inode in a listing.
struct Place {
    ino: Ino,
    /// Where its name is.
    name: (u32, u32),
}

/// What was read of some places in a row.
#[derive(Default)]
struct Part {
    /// The places.
    range: Range<usize>,
    /// The state of the database that it was read from.
    state: Option<u64>,
    entries: Vec<PartEntry>,
    names: String,
}

struct PartEntry {
    place: usize,
    figures: Figures,
    name: Range<usize>,
}

/// An entry of a listing.
pub(crate) struct Listed<'l> {
    /// Its place.
    pub(crate) place: usize,
    pub(crate) figures: &'l Figures,
    pub(crate) name: &'l str,
}

impl Listing {
    /// Begins to list a directory.
    pub(crate) fn begin(store: &Store, directory: Ino) -> Result<Self, StoreError> {
        let mut listing = Self {
            directory,
            places: Vec::new(),
            sorted: 0,
            names: String::new(),
            part: Part::default(),
            step: FIRST_PART,
        };
        store.read(|r| r.each_name(directory, |ino, name| listing.add(ino, name)))?;
        listing.places.sort_unstable_by_key(|place| place.ino);
        listing.sorted = listing.places.len();
        Ok(listing)
    }

    fn add(&mut self, ino: Ino, name: &str) {
        let at = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let start = at(self.names.len());
        self.names.push_str(name);
        let name = (start, at(self.names.len()));
        self.places.push(Place { ino, name });
    }

    /// The name that an inode had at the beginning, as it is compared.
    fn name_of(&self, place: usize) -> &str {
        let (start, end) = self.places[place].name;
        self.names
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// Hands entries to `take`, beginning at a place, until it says that it is full.
    pub(crate) fn hand_out(
        &mut self,
        store: &Store,
        from: usize,
        take: &mut dyn FnMut(Listed<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let mut at = from;
        let mut count = 0;
        while at < self.places.len() {
            let current = store.state();
            if !self.part.range.contains(&at) || current.is_none() || self.part.state != current {
                self.read(store, at)?;
            }
            let first = self.part.entries.partition_point(|e| e.place < at);
            for entry in &self.part.entries[first..] {
                let listed = Listed {
                    place: entry.place,
                    figures: &entry.figures,
                    name: &self.part.names[entry.name.clone()],
                };
                if take(listed) {
                    // What comes next is about as much.
                    self.step = (count + count / 8).max(SMALL_PART);
                    self.part.range.start = entry.place;
                    return Ok(());
                }
                count += 1;
            }
            at = self.part.range.end;
        }
        self.part.range.start = at;
        Ok(())
    }

    /// Reads what will be asked for next.
    pub(crate) fn read_ahead(&mut self, store: &Store) -> Result<(), StoreError> {
        let next = self.part.range.start;
        if next < self.places.len() {
            self.read(store, next)?;
        }
        Ok(())
    }

    /// Reads a part.
    fn read(&mut self, store: &Store, from: usize) -> Result<(), StoreError> {
        // What was added at the end is in no order and read one by one.
        let end = if from < self.sorted {
            self.sorted.min(from + self.step)
        } else {
            from + 1
        };
        let mut part = std::mem::take(&mut self.part);
        part.entries.clear();
        part.names.clear();
        part.range = from..end;
        part.state = store.state();
        store.read(|r| self.fill(r, &mut part))?;
        self.part = part;
        Ok(())
    }

    fn fill(&mut self, r: &Reader<'_>, part: &mut Part) -> Result<(), StoreError> {
        let range = part.range.clone();
        let inos: Vec<Ino> = self.places[range.clone()].iter().map(|p| p.ino).collect();
        let mut place = range.start;
        let mut left: Vec<usize> = Vec::new();
        r.each_entry(self.directory, &inos, &mut |figures, key, name| {
            while self.places[place].ino != figures.ino {
                left.push(place);
                place += 1;
            }
            if self.name_of(place) != key {
                left.push(place);
            }
            let start = part.names.len();
            part.names.push_str(name);
            part.entries.push(PartEntry {
                place,
                figures,
                name: start..part.names.len(),
            });
            place += 1;
        })?;
        left.extend(place..range.end);
        for place in left {
            self.follow_name(r, place)?;
        }
        Ok(())
    }

    /// Adds the inode that a name leads to now, unless it is listed anyway.
    fn follow_name(&mut self, r: &Reader<'_>, place: usize) -> Result<(), StoreError> {
        let name = self.name_of(place).to_owned();
        if let Some(ino) = r.child_of_key(self.directory, &name)?
            && !self.has(ino)
        {
            self.add(ino, &name);
        }
        Ok(())
    }

    fn has(&self, ino: Ino) -> bool {
        let (sorted, added) = self.places.split_at(self.sorted);
        sorted.binary_search_by_key(&ino, |place| place.ino).is_ok()
            || added.iter().any(|place| place.ino == ino)
    }
}
