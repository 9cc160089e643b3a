//! Files whose content was replaced a moment ago and of which the kernel still has the old size.
//!
//! The kernel cuts what it reads at the size it knows. A file that is opened between the commit of
//! a change and the kernel's being told of it would look like the new content cut off at the old
//! size, so whoever opens it then waits for that moment. An inode is entered before the
//! commit and taken out after the kernel was told: whoever finds the new row finds the entry, too.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::Ino;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::change::KernelChange;

/// Longest wait for the kernel to be told, which takes milliseconds unless it is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the kernel is to be told of one commit. Dropped when it knows all of it.
pub struct Announcement {
    /// What it must forget.
    pub changes: Vec<KernelChange>,
    pub(crate) _lookups: Option<Announcing>,
}

impl From<Vec<KernelChange>> for Announcement {
    /// Changes that nobody waits for.
    fn from(changes: Vec<KernelChange>) -> Self {
        Self {
            changes,
            _lookups: None,
        }
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.fmt(f)
    }
}

/// The inodes that the kernel is still to be told of, and how many times each.
#[derive(Default)]
pub(crate) struct Unannounced {
    inodes: Mutex<HashMap<Ino, u32>>,
    told: Notify,
}

impl Unannounced {
    /// Enters the inodes whose content changes; they stay until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, changes: &[KernelChange]) -> Announcing {
        let inodes: Vec<Ino> = changes
            .iter()
            .filter_map(|change| match change {
                KernelChange::Content { ino } => Some(*ino),
                _ => None,
            })
            .collect();
        if !inodes.is_empty() {
            let mut entered = self.inodes.lock();
            for ino in &inodes {
                *entered.entry(*ino).or_insert(0) += 1;
            }
        }
        Announcing {
            table: Arc::clone(self),
            inodes,
        }
    }

    /// Tells whether the kernel is still to be told of an inode.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.inodes.lock().contains_key(&ino)
    }

    /// Waits until the kernel was told of an inode.
    pub(crate) async fn wait(&self, ino: Ino) {
        let told = self.wait_for_ever(ino);
        if tokio::time::timeout(PATIENCE, told).await.is_err() {
            tracing::warn!(%ino, "The kernel could not be told of a change yet.");
        }
    }

    async fn wait_for_ever(&self, ino: Ino) {
        loop {
            let mut told = std::pin::pin!(self.told.notified());
            told.as_mut().enable();
            if !self.has(ino) {
                return;
            }
            told.await;
        }
    }
}

/// Keeps inodes entered until it is dropped, be it because the kernel was told or because the
/// transaction failed.
pub(crate) struct Announcing {
    table: Arc<Unannounced>,
    inodes: Vec<Ino>,
}

impl Drop for Announcing {
    fn drop(&mut self) {
        if self.inodes.is_empty() {
            return;
        }
        let mut entered = self.table.inodes.lock();
        for ino in &self.inodes {
            if let Some(count) = entered.get_mut(ino) {
                *count -= 1;
                if *count == 0 {
                    entered.remove(ino);
                }
            }
        }
        drop(entered);
        self.table.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_entered_until_the_last_change_of_it_was_announced() {
        let table = Arc::new(Unannounced::default());
        let content = |ino| vec![KernelChange::Content { ino: Ino(ino) }];
        let first = table.enter(&content(7));
        let second = table.enter(&content(7));
        let names_only = table.enter(&[KernelChange::Attributes { ino: Ino(8) }]);
        assert!(table.has(Ino(7)) && !table.has(Ino(8)));
        drop((first, names_only));
        assert!(table.has(Ino(7)));
        drop(second);
        assert!(!table.has(Ino(7)));
    }
}
