//! The uploads under way, for `status`.

use std::collections::BTreeMap;

use onedrivefs_core::Ino;
use parking_lot::Mutex;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// All uploads under way.
#[derive(Default)]
pub struct Transfers {
    uploads: Mutex<BTreeMap<Ino, Transfer>>,
}

impl Transfers {
    /// Notes how far the upload of an inode is.
    pub fn set(&self, ino: Ino, done: u64, total: u64) {
        self.uploads.lock().insert(ino, Transfer { done, total });
    }

    /// Notes that the upload of an inode ended.
    pub fn remove(&self, ino: Ino) {
        self.uploads.lock().remove(&ino);
    }

    /// How far the upload of an inode is, if there is one.
    #[must_use]
    pub fn get(&self, ino: Ino) -> Option<Transfer> {
        self.uploads.lock().get(&ino).copied()
    }

    /// All uploads.
    #[must_use]
    pub fn all(&self) -> Vec<(Ino, Transfer)> {
        self.uploads
            .lock()
            .iter()
            .map(|(&ino, &transfer)| (ino, transfer))
            .collect()
    }
}
