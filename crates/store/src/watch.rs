//! What SQLite's errors tell about the disk and the database, noticed where they come up.
//!
//! Errors travel through closures that turn them into errors of their own. Whatever happens to them
//! on the way, a sign of damage must not be overlooked, so it is noted on the thread when SQLite's
//! error becomes one of this crate. The same place knows which file system the database is on,
//! which tells what is behind a system call that failed for a reason SQLite keeps to itself.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::StoreError;

/// Less than this left, in bytes, is a full disk.
const NOTHING_LEFT: u64 = 64 * 1024;

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen { depth: 0, dir: None, damage: None }) };
}

struct Seen {
    depth: u32,
    dir: Option<Arc<Path>>,
    damage: Option<String>,
}

/// Notices what happens on this thread while it lives.
pub(crate) struct Watch;

impl Watch {
    /// Begins to notice. `dir` is where the database is.
    pub(crate) fn begin(dir: &Arc<Path>) -> Self {
        SEEN.with_borrow_mut(|seen| {
            if seen.depth == 0 {
                seen.dir = Some(Arc::clone(dir));
                seen.damage = None;
            }
            seen.depth += 1;
        });
        Self
    }

    /// How damage showed, if it did.
    #[expect(clippy::unused_self, reason = "only meaningful while one lives")]
    pub(crate) fn damage(&self) -> Option<String> {
        SEEN.with_borrow(|seen| seen.damage.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        SEEN.with_borrow_mut(|seen| {
            seen.depth -= 1;
            if seen.depth == 0 {
                seen.dir = None;
            }
        });
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let error = Self::Sqlite(error);
        if error.is_damage() {
            SEEN.with_borrow_mut(|seen| {
                seen.damage.get_or_insert_with(|| error.to_string());
            });
        }
        if error.is_vague() {
            let dir = SEEN.with_borrow(|seen| seen.dir.clone());
            return dir.and_then(|dir| behind(&dir)).unwrap_or(error);
        }
        error
    }
}

/// What is wrong with a file system.
fn behind(dir: &Path) -> Option<StoreError> {
    let stat = statvfs(dir).ok()?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some(StoreError::ReadOnly);
    }
    let left = stat.f_bavail.saturating_mul(stat.f_frsize);
    (left < NOTHING_LEFT).then_some(StoreError::NoSpace)
}
