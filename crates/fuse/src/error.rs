//! Why a mount or an unmount did not work, each with the next step for a person.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// A mount that could not be made or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mountpoint does not exist.
    #[error("{} does not exist; create the directory first", path.display())]
    Missing {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The mountpoint is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The mountpoint has entries, which the mount would hide.
    #[error("{} is not empty; choose an empty directory", path.display())]
    NotEmpty {
        /// The mountpoint.
        path: PathBuf,
    },
    /// Something is mounted there already.
    #[error("{} is already a mountpoint of {source_name} ({fs_type}); unmount it first", path.display())]
    AlreadyMounted {
        /// The mountpoint.
        path: PathBuf,
        /// The type of the filesystem that is mounted.
        fs_type: String,
        /// The name of its source.
        source_name: String,
    },
    /// The user may not mount there.
    #[error("no permission to mount on {}; it must belong to you and be writable", path.display())]
    NoAccess {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The kernel offers no FUSE device.
    #[error("/dev/fuse is missing; load the kernel module with `modprobe fuse`")]
    DeviceMissing,
    /// The FUSE device may not be opened.
    #[error("/dev/fuse cannot be opened; it needs read and write permission for you (mode 0666)")]
    DeviceDenied,
    /// The setuid helper that mounts for ordinary users is not installed.
    #[error("fusermount3 was not found; install the package fuse3")]
    HelperMissing,
    /// The administrator has not allowed mounts that other users can see.
    #[error("other users may be admitted only when /etc/fuse.conf has the line user_allow_other")]
    AllowOtherDenied,
    /// fusermount3 refused for a reason of its own.
    #[error("fusermount3 refused {}: {reason}", path.display())]
    Refused {
        /// The mountpoint.
        path: PathBuf,
        /// What fusermount3 said.
        reason: String,
    },
    /// fusermount3 did not end in time and was killed.
    #[error("fusermount3 did not finish within {} s on {}", limit.as_secs(), path.display())]
    HelperStuck {
        /// The mountpoint.
        path: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    System {
        /// What was being done, as a verb.
        action: &'static str,
        /// The path it was done to.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel and this program could not agree on a protocol, or no thread could be started.
    #[error("the FUSE session could not be started")]
    Session {
        /// What went wrong.
        source: io::Error,
    },
    /// Nothing is mounted there.
    #[error("{} is not mounted", path.display())]
    NotMounted {
        /// The mountpoint.
        path: PathBuf,
    },
    /// What is mounted there is somebody else's.
    #[error("{} is a mount of type {fs_type}, not of onedrivefs; left alone", path.display())]
    NotOurs {
        /// The mountpoint.
        path: PathBuf,
        /// The type of the filesystem that is mounted.
        fs_type: String,
    },
    /// Programs have files open or their working directory in the mount.
    #[error("{} is in use; close the programs that use it (`fuser -vm` lists them)", path.display())]
    Busy {
        /// The mountpoint.
        path: PathBuf,
    },
}

impl MountError {
    /// Makes an error of a failed system call on a path.
    pub(crate) fn system(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::System {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}
