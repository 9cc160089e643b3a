//! Walks: programs like `find`, `du` and `grep -r` list one folder after the other. While one of them
//! looks at what it was told of a folder, the one that it will list next is read.
//!
//! What was read ahead is used only as long as nothing in the database has changed since, so that
//! nobody can tell it from a listing that begins when it is asked for.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use onedrivefs_core::Ino;
use onedrivefs_store::{Item, Role, StoreError};
use parking_lot::Mutex;

use crate::listing::{self, Listing};
use crate::vfs::Vfs;

/// Folders of which is known what folders are in them: more than are between the root of a drive and a
/// folder in it.
const KNOWN: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Where a walk is, and what was read ahead for it.
pub(crate) struct Walk {
    course: Mutex<Course>,
    /// The folder that is read ahead, so that those who list another one need not wait for it.
    ahead_of: AtomicU64,
    ahead: Mutex<Option<Listing>>,
    /// What was listed last: programs list the same folder again and again.
    kept: Mutex<Option<Listing>>,
}

/// Where a walk is.
struct Course {
    /// The folders in those that were listed to their end, in the order of the listing.
    folders: LruCache<Ino, Vec<Ino>>,
    /// What is listed next if this is a walk.
    next: Option<Ino>,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            course: Mutex::new(Course::new()),
            ahead_of: AtomicU64::new(0),
            ahead: Mutex::default(),
            kept: Mutex::default(),
        }
    }
}

impl Course {
    fn new() -> Self {
        Self {
            folders: LruCache::sparse(KNOWN),
            next: None,
        }
    }

    /// A folder was listed to its end, and these are in it. Returns where it goes from there, if it
    /// went where a walk goes so far.
    fn go_on(
        &mut self,
        folder: Ino,
        folders: Vec<Ino>,
        parent: impl Fn(Ino) -> Option<Ino>,
    ) -> Option<Ino> {
        let walks = self.next == Some(folder);
        self.folders.put(folder, folders);
        self.next = self.next_of(folder, parent);
        self.next.filter(|_| walks)
    }

    /// To the first folder in a folder, or to the one beside it, or beside the one that it is in.
    fn next_of(&mut self, folder: Ino, parent: impl Fn(Ino) -> Option<Ino>) -> Option<Ino> {
        if let Some(first) = self.folders.get(&folder).and_then(|inside| inside.first()) {
            return Some(*first);
        }
        let mut at = folder;
        // Not for ever, whatever the parents are.
        for _ in 0..KNOWN.get() {
            let above = parent(at)?;
            let beside = self.folders.get(&above)?;
            let place = beside.iter().position(|folder| *folder == at)?;
            if let Some(next) = beside.get(place + 1) {
                return Some(*next);
            }
            at = above;
        }
        None
    }
}

impl Vfs {
    /// Begins to list a folder, or goes on with what was read ahead or the last time.
    pub(crate) fn begin_listing(&self, folder: Ino) -> Result<Listing, StoreError> {
        let is_still = |listing: &mut Listing| listing.is_still(self.store(), folder);
        let mut ready = None;
        if self.walk.ahead_of.load(Ordering::Acquire) == folder.0 {
            ready = self.walk.ahead.lock().take_if(is_still);
        }
        let ready = ready.or_else(|| self.walk.kept.lock().take_if(is_still));
        match ready {
            Some(listing) => Ok(listing),
            None => Listing::begin(self.store(), folder),
        }
    }

    /// Keeps a listing that is not needed any more for who lists the same folder next.
    pub(crate) fn keep_listing(&self, listing: Listing) {
        let listing = listing.again(self.store());
        if listing.is_some() {
            *self.walk.kept.lock() = listing;
        }
    }

    /// A folder was listed to its end. If that was the next one of a walk, the walk goes on, and this is
    /// where.
    pub(crate) fn walk_on(&self, folder: Ino, folders: Vec<Ino>) -> Option<Ino> {
        let parent = |ino| self.store().item(ino).ok()??.parent;
        self.walk.course.lock().go_on(folder, folders, parent)
    }

    /// Begins to list a folder before anybody asks.
    pub(crate) fn read_folder_ahead(&self, folder: Ino) -> Result<(), StoreError> {
        // Somebody else is at it.
        let Some(mut ahead) = self.walk.ahead.try_lock() else {
            return Ok(());
        };
        let item = self.store().item(folder)?;
        let known = |item: &Item| item.children_known && item.role == Role::Ordinary;
        if !item.is_some_and(|item| known(&item)) {
            return Ok(());
        }
        self.walk.ahead_of.store(folder.0, Ordering::Release);
        *ahead = None;
        // What was read stays in memory until the next one is.
        let listing = Listing::begin_small(self.store(), folder, listing::KEPT_MAX)?;
        if let Some(mut listing) = listing {
            listing.read_ahead(self.store())?;
            *ahead = Some(listing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folders in a folder, and the one that it is in: 1 has 2 and 5, 2 has 3 and 4.
    fn inside(ino: u64) -> Vec<Ino> {
        match ino {
            1 => vec![Ino(2), Ino(5)],
            2 => vec![Ino(3), Ino(4)],
            _ => Vec::new(),
        }
    }

    fn parent(ino: Ino) -> Option<Ino> {
        match ino.0 {
            2 | 5 => Some(Ino(1)),
            3 | 4 => Some(Ino(2)),
            _ => None,
        }
    }

    fn course(listed: &[u64]) -> Vec<u64> {
        let mut course = Course::new();
        let mut go_on = |ino| course.go_on(Ino(ino), inside(ino), parent);
        listed
            .iter()
            .map(|ino| go_on(*ino).map_or(0, |next| next.0))
            .collect()
    }

    #[test]
    fn a_walk_goes_into_folders_and_then_beside_them() {
        assert_eq!(course(&[1, 2, 3, 4, 5]), [0, 3, 4, 5, 0]);
    }

    #[test]
    fn who_goes_elsewhere_does_not_walk() {
        assert_eq!(course(&[1, 5, 2, 4]), [0, 0, 0, 0]);
        assert_eq!(course(&[3, 3, 1, 2]), [0, 0, 0, 3]);
    }
}
