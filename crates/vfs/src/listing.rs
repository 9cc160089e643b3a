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

/// Folders in a folder that are noted for walks.
const FOLDERS_MAX: usize = 4096;

/// Entries of the smallest part.
const SMALL_PART: usize = 32;

/// Entries that are kept in memory after they were handed out, for who lists the directory next, and
/// of the largest directory that is read before anybody asks.
pub(crate) const KEPT_MAX: usize = 10_000;

/// The inodes of a directory, and what is told of some of them.
pub(crate) struct Listing {
    directory: Ino,
    places: Vec<Place>,
    /// Places below this are in ascending order of their inodes; the others were added later.
    sorted: usize,
    /// The names that the inodes had at the beginning, as they are compared.
    names: String,
    part: Part,
    /// The place that is handed out next.
    next: usize,
    /// Entries that are read ahead.
    step: usize,
    /// The state of the database when it began.
    begun: Option<u64>,
    /// Folders that were handed out, until the end was reached.
    folders: Option<Vec<Ino>>,
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
        let mut listing = Self::new(store, directory);
        listing.read_names(store, usize::MAX)?;
        Ok(listing)
    }

    /// Begins to list a directory, unless it has more than so many entries.
    pub(crate) fn begin_small(
        store: &Store,
        directory: Ino,
        entries_max: usize,
    ) -> Result<Option<Self>, StoreError> {
        let mut listing = Self::new(store, directory);
        let all = listing.read_names(store, entries_max)?;
        Ok(all.then_some(listing))
    }

    fn new(store: &Store, directory: Ino) -> Self {
        Self {
            directory,
            places: Vec::new(),
            sorted: 0,
            names: String::new(),
            part: Part::default(),
            next: 0,
            step: FIRST_PART,
            begun: store.state(),
            folders: Some(Vec::new()),
        }
    }

    /// Tells whether those were all.
    fn read_names(&mut self, store: &Store, entries_max: usize) -> Result<bool, StoreError> {
        let directory = self.directory;
        let all = store.read(|r| {
            r.each_name(directory, |ino, name| {
                self.add(ino, name);
                self.places.len() <= entries_max
            })
        })?;
        self.places.sort_unstable_by_key(|place| place.ino);
        self.sorted = self.places.len();
        Ok(all)
    }

    /// Tells whether a listing of this directory would be this one if it began now.
    pub(crate) fn is_still(&self, store: &Store, directory: Ino) -> bool {
        self.directory == directory && self.begun.is_some() && self.begun == store.state()
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

    /// Begins again, if all of it is in memory and nothing has changed.
    pub(crate) fn again(mut self, store: &Store) -> Option<Self> {
        self.next = 0;
        self.folders = Some(Vec::new());
        let whole = self.part.range == (0..self.places.len());
        (whole && self.is_still(store, self.directory)).then_some(self)
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
                let (ino, is_folder) = (entry.figures.ino, entry.figures.is_folder());
                if take(listed) {
                    // What comes next is about as much.
                    self.step = (count + count / 8).max(SMALL_PART);
                    self.next = entry.place;
                    return Ok(());
                }
                count += 1;
                if is_folder
                    && let Some(folders) = &mut self.folders
                    && folders.len() < FOLDERS_MAX
                {
                    folders.push(ino);
                }
            }
            at = self.part.range.end;
        }
        self.next = at;
        Ok(())
    }

    /// Tells whether there is more than was handed out.
    pub(crate) fn has_more(&self) -> bool {
        self.next < self.places.len()
    }

    /// Reads what will be asked for next.
    pub(crate) fn read_ahead(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.has_more() && !self.part.range.contains(&self.next) {
            self.read(store, self.next)?;
        }
        Ok(())
    }

    /// The folders that were handed out. Only once: the listing is at its end.
    pub(crate) fn take_folders(&mut self) -> Option<Vec<Ino>> {
        self.folders.take()
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
        let state = store.state();
        let follows = from == part.range.end && state.is_some() && part.state == state;
        if !follows || part.entries.len() >= KEPT_MAX {
            part.entries.clear();
            part.names.clear();
            part.range.start = from;
        }
        part.range.end = end;
        part.state = state;
        store.read(|r| self.fill(r, &mut part, from..end))?;
        self.part = part;
        Ok(())
    }

    fn fill(
        &mut self,
        r: &Reader<'_>,
        part: &mut Part,
        range: Range<usize>,
    ) -> Result<(), StoreError> {
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
