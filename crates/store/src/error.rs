//! What can go wrong with the database.

use std::path::PathBuf;

use rusqlite::{Error, ErrorCode, ffi};
use thiserror::Error;

/// An error of the metadata store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("the metadata database failed: {0}")]
    Sqlite(#[source] Error),
    /// The log could not be put on stable storage.
    #[error("the metadata database could not be put on disk: {0}")]
    Sync(#[source] std::io::Error),
    /// The database was written by a later version of this program.
    #[error(
        "{path} was written by a newer version (schema {found}, this program knows {known}); \
         install the newer version again"
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Schema version in the file.
        found: i64,
        /// Newest schema version known here.
        known: i64,
    },
    /// A stored row does not mean anything.
    #[error("the metadata database holds a malformed {what}")]
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// The database is damaged and is used no more: whatever it says could be wrong.
    #[error("the metadata database is damaged: {reason}")]
    Damaged {
        /// How that showed.
        reason: String,
    },
    /// The database is gone or empty although there is content that it must have known.
    #[error("the metadata database is missing")]
    Lost,
    /// The disk of the database is full.
    #[error("no space left for the metadata database")]
    NoSpace,
    /// The file system of the database is read-only.
    #[error("the metadata database lies on a read-only file system")]
    ReadOnly,
}

impl StoreError {
    /// Tells whether the disk or the quota of the state directory is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoSpace => true,
            Self::Sqlite(Error::SqliteFailure(e, _)) => {
                // The shared memory of the log is a file beside the database, which must grow, too.
                e.code == ErrorCode::DiskFull || e.extended_code == ffi::SQLITE_IOERR_SHMSIZE
            }
            _ => false,
        }
    }

    /// Tells whether the database cannot be written because its file system is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Sqlite(Error::SqliteFailure(e, _)) => e.code == ErrorCode::ReadOnly,
            _ => false,
        }
    }

    /// Tells whether a system call on the database's files failed for a reason that SQLite does not
    /// tell.
    pub(crate) fn is_vague(&self) -> bool {
        matches!(self, Self::Sqlite(Error::SqliteFailure(e, _))
            if matches!(e.code, ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
            && !self.is_disk_full()
    }

    /// Tells whether the file is not a usable database. Columns have strict types, so that a value
    /// of another type, or one that is no text, shows damage just like a page that is none.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Lost => true,
            Self::Sqlite(error) => match error {
                Error::SqliteFailure(e, _) | Error::SqlInputError { error: e, .. } => {
                    matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                }
                Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::Utf8Error(..) => true,
                _ => false,
            },
            _ => false,
        }
    }

    /// Tells whether a unique name or id was taken.
    #[must_use]
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Sqlite(Error::SqliteFailure(e, _))
            if e.code == ErrorCode::ConstraintViolation)
    }
}
