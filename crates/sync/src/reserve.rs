//! Space that is set aside for the time when the disk is full.
//!
//! A deletion makes room, but has to be recorded first, and so has an upload, after which a body may
//! leave the spool. Both get the reserve when the database finds no room to commit; nothing else
//! does. It is taken again when there is room.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Size of the reserve in bytes: as much as the log of the database grows between two checkpoints.
const RESERVE_BYTES: u64 = 4 << 20;

/// Its file in the state directory.
const NAME: &str = "reserve";

/// Space that must be left besides before the reserve is taken, in bytes.
const LEFT_BESIDES: u64 = 4 << 20;

/// The reserve of a state directory.
pub(crate) struct Reserve {
    path: PathBuf,
    /// Whether it is there.
    held: Mutex<bool>,
}

impl Reserve {
    /// Takes the reserve, or finds the one that was taken before.
    pub(crate) fn new(state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let held = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES);
        let reserve = Self {
            path,
            held: Mutex::new(held),
        };
        reserve.take();
        reserve
    }

    /// Takes the reserve if there is room for it.
    pub(crate) fn take(&self) {
        let mut held = self.held.lock();
        if *held {
            return;
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        let room = statvfs(dir).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        if room < RESERVE_BYTES + LEFT_BESIDES {
            return;
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let taken = options.open(&self.path).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?;
            Ok(())
        });
        match taken {
            Ok(()) => *held = true,
            // Without a reserve a full disk is more of a nuisance, nothing else.
            Err(error) => {
                tracing::debug!(%error, "No space could be reserved.");
                drop(fs::remove_file(&self.path));
            }
        }
    }

    /// Gives the reserve up before the state was opened, which can take a little room.
    pub(crate) fn give_up_early(state_dir: &Path) -> bool {
        fs::remove_file(state_dir.join(NAME)).is_ok()
    }

    /// Gives the reserve up. Tells whether there was one: what failed may succeed now.
    pub(crate) fn give_up(&self) -> bool {
        let mut held = self.held.lock();
        if !*held {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                *held = false;
                tracing::warn!(
                    "The disk of the state directory is full. Its reserve is used for deletions \
                     and uploads; make room there."
                );
                true
            }
            Err(error) => {
                tracing::warn!(%error, "The reserve could not be given up.");
                false
            }
        }
    }
}
