//! What can go wrong with the database.

use std::path::PathBuf;

use thiserror::Error;

/// An error of the metadata store.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("the metadata database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
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
}

impl StoreError {
    /// Tells whether the disk or the quota of the state directory is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(e, _))
            if e.code == rusqlite::ErrorCode::DiskFull)
    }

    /// Tells whether the file is not a usable database.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(e, _))
            if matches!(e.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
    }

    /// Tells whether a unique name or id was taken.
    #[must_use]
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Sqlite(rusqlite::Error::SqliteFailure(e, _))
            if e.code == rusqlite::ErrorCode::ConstraintViolation)
    }
}
