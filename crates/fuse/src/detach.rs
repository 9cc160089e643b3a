//! Removes mounts, and only ours.
//!
//! A mount is recognised by its filesystem, not by its path: between mounting and unmounting,
//! somebody may have unmounted it and put something else in its place.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::MountError;
use crate::fusermount;
use crate::mounts::{self, Device, MountEntry};

/// What to do when programs still use the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenBusy {
    /// Leave it mounted and say so.
    Refuse,
    /// Take it out of the tree at once; those programs keep their open files.
    Detach,
}

/// A mount of ours.
#[derive(Clone, Debug)]
pub(crate) struct OwnMount {
    id: u64,
    device: Device,
    /// Our end of the connection with the kernel, kept to see whether it still stands.
    connection: Arc<OwnedFd>,
}

impl OwnMount {
    /// Remembers the mount that was just made at `path` for `connection`.
    pub(crate) fn find(path: &Path, connection: OwnedFd) -> Result<Self, MountError> {
        let table = read_table(path)?;
        match mounts::topmost(&table, path) {
            Some(entry) if entry.is_onedrivefs() => Ok(Self {
                id: entry.id,
                device: entry.device,
                connection: Arc::new(connection),
            }),
            Some(entry) => Err(not_ours(entry)),
            None => Err(MountError::NotMounted {
                path: path.to_owned(),
            }),
        }
    }

    /// Number of the connection.
    pub(crate) const fn number(&self) -> u32 {
        self.device.connection()
    }

    /// One more descriptor of our end of the connection.
    pub(crate) fn connection(&self) -> Result<OwnedFd, MountError> {
        self.connection
            .try_clone()
            .map_err(|source| MountError::Session { source })
    }

    /// Tells whether the kernel still has the filesystem. If so, its device number is nobody
    /// else's; the moment it is gone, the next mount may get the same numbers.
    fn is_connected(&self) -> bool {
        let mut poll = [PollFd::new(&self.connection, PollFlags::empty())];
        let polled = rustix::io::retry_on_intr(|| {
            rustix::event::poll(&mut poll, Some(&Timespec::default()))
        });
        polled.is_ok() && !poll[0].revents().contains(PollFlags::ERR)
    }

    /// Unmounts it if it is still in the tree, wherever it may have been moved; `path` is for
    /// messages.
    pub(crate) fn detach(&self, path: &Path, when_busy: WhenBusy) -> Result<(), MountError> {
        let connected = self.is_connected();
        let table = read_table(path)?;
        let own = table
            .iter()
            .find(|entry| entry.id == self.id && entry.device == self.device);
        let Some(entry) = own else {
            return Ok(());
        };
        // After an abort the mount is still there, and dead; a living one is somebody else's.
        let dead = || entry.is_onedrivefs() && entry.is_dead();
        if !connected && !dead() {
            return Ok(());
        }
        match mounts::topmost(&table, &entry.path) {
            Some(top) if top.id != entry.id => Err(not_ours(top)),
            _ => unmount_entry(entry, when_busy),
        }
    }
}

/// Unmounts the onedrivefs mount at `path`, whichever process serves it. Its server notices and
/// ends. A mount whose server is dead is removed even when it is in use.
///
/// # Errors
/// When nothing is mounted there, something else is, or programs use the mount.
pub fn unmount_path(path: &Path) -> Result<(), MountError> {
    let resolved = mounts::resolve(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => MountError::Missing {
            path: path.to_owned(),
        },
        _ => MountError::system("look up", path, error),
    })?;
    let table = read_table(&resolved)?;
    match mounts::topmost(&table, &resolved) {
        Some(entry) if !entry.is_onedrivefs() => Err(not_ours(entry)),
        Some(entry) if entry.is_dead() => unmount_entry(entry, WhenBusy::Detach),
        Some(entry) => unmount_entry(entry, WhenBusy::Refuse),
        None => Err(MountError::NotMounted { path: resolved }),
    }
}

/// Unmounts an entry that is on top at its path.
pub(crate) fn unmount_entry(entry: &MountEntry, when_busy: WhenBusy) -> Result<(), MountError> {
    match unmount_once(&entry.path, false) {
        Err(MountError::Busy { .. }) if when_busy == WhenBusy::Detach => {
            unmount_once(&entry.path, true)
        }
        other => other,
    }
}

/// Unmounts by umount2(2), or by fusermount3 where that needs a privilege we lack.
fn unmount_once(path: &Path, lazily: bool) -> Result<(), MountError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazily);
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount::unmount(path, lazily),
        Err(Errno::BUSY) => Err(MountError::Busy {
            path: path.to_owned(),
        }),
        Err(error) => Err(MountError::system("unmount", path, error)),
    }
}

/// Reads the mount table.
fn read_table(path: &Path) -> Result<Vec<MountEntry>, MountError> {
    mounts::read().map_err(|error| MountError::system("read the mount table for", path, error))
}

/// Says that a mount belongs to somebody else.
fn not_ours(entry: &MountEntry) -> MountError {
    MountError::NotOurs {
        path: entry.path.clone(),
        fs_type: entry.fs_type.clone(),
    }
}
