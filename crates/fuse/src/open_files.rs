//! Knows which inodes the kernel has open, because that decides how a change may be announced.
//!
//! Dropping the page cache of an inode waits for every read of it that is under way. While a file
//! is open only its attributes are therefore announced; its pages are dropped when the last handle
//! is released.

use std::collections::{HashMap, HashSet};

use onedrivefs_core::Ino;
use parking_lot::Mutex;

/// The open files of one mount.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of handles per inode; never zero.
    handles: HashMap<Ino, u32>,
    /// Inodes whose pages are to be dropped once nobody has them open.
    outdated: HashSet<Ino>,
}

impl OpenFiles {
    /// Counts a handle. Called before the kernel learns of it.
    pub(crate) fn opened(&self, ino: Ino) {
        *self.state.lock().handles.entry(ino).or_insert(0) += 1;
    }

    /// Uncounts a handle. Returns whether pages wait to be dropped now.
    pub(crate) fn closed(&self, ino: Ino) -> bool {
        let mut state = self.state.lock();
        if let Some(count) = state.handles.get_mut(&ino) {
            *count -= 1;
            if *count > 0 {
                return false;
            }
            state.handles.remove(&ino);
        }
        state.outdated.contains(&ino)
    }

    /// Tells whether an inode is open; if so, [`Self::take_closed`] will return it later.
    pub(crate) fn defer_if_open(&self, ino: Ino) -> bool {
        let mut state = self.state.lock();
        let open = state.handles.contains_key(&ino);
        if open {
            state.outdated.insert(ino);
        }
        open
    }

    /// Takes the deferred inodes that nobody has open any more.
    pub(crate) fn take_closed(&self) -> Vec<Ino> {
        let mut state = self.state.lock();
        let State { handles, outdated } = &mut *state;
        let closed: Vec<Ino> = outdated
            .iter()
            .copied()
            .filter(|ino| !handles.contains_key(ino))
            .collect();
        for ino in &closed {
            outdated.remove(ino);
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_deferred_until_the_last_handle_is_gone() {
        let files = OpenFiles::default();
        let ino = Ino(7);
        assert!(!files.defer_if_open(ino));
        assert!(files.take_closed().is_empty());
        files.opened(ino);
        files.opened(ino);
        assert!(files.defer_if_open(ino));
        assert!(!files.closed(ino));
        assert!(files.take_closed().is_empty());
        assert!(files.closed(ino));
        assert_eq!(files.take_closed(), [ino]);
        assert!(files.take_closed().is_empty());
        assert!(!files.closed(ino));
    }
}
