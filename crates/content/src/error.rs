//! What can go wrong with files on this machine.
//!
//! A full disk is the one failure that a caller treats differently (it evicts and tries again, or
//! answers `ENOSPC`), so it has a variant of its own.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A failure of the content cache or the spool.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The disk, or the user's share of it, is full.
    #[error("no space left for {}", path.display())]
    NoSpace {
        /// The file or folder that could not grow.
        path: PathBuf,
        /// What the system said; its kind is `StorageFull` or `QuotaExceeded`.
        source: io::Error,
    },
    /// Any other failure of a system call.
    #[error("{action} {} failed", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ContentError {
    /// Sorts a failed system call into the two kinds.
    pub(crate) fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_no_space(&source) {
            Self::NoSpace { path, source }
        } else {
            Self::Io {
                action,
                path,
                source,
            }
        }
    }

    /// Tells whether the disk is full.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// The error of the system call, with its kind.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        match self {
            Self::NoSpace { source, .. } | Self::Io { source, .. } => source,
        }
    }
}

/// Tells whether an error means a full disk or an exhausted share of it.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
