//! Why a file system call failed, in terms of its meaning. One table turns these into numbers, in
//! the crate that speaks to the kernel.

use std::error::Error;
use std::io;

use onedrivefs_content::ContentError;
use onedrivefs_core::NameError;
use onedrivefs_store::StoreError;
use onedrivefs_sync::EngineError;
use onedrivefs_sync::bodies::BodyError;
use onedrivefs_sync::hydrate::HydrateError;
use thiserror::Error;

/// A failed call.
#[derive(Debug, Error)]
pub enum VfsError {
    /// There is no such entry.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The drive or the local disk is full.
    #[error("no space left")]
    NoSpace,
    /// The name is too long for the service.
    #[error("the name is too long")]
    NameTooLong,
    /// The name cannot be expressed on the service.
    #[error("the name is not valid UTF-8")]
    NotUtf8,
    /// The service refuses the name, and the configuration says not to encode it.
    #[error("the service does not accept the name")]
    InvalidName,
    /// An argument makes no sense.
    #[error("invalid argument")]
    InvalidArgument,
    /// The mount is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// Nobody may do this here.
    #[error("operation not permitted")]
    NotPermitted,
    /// The service does not allow this.
    #[error("access denied")]
    AccessDenied,
    /// Somebody has to sign in again first.
    #[error("the sign-in has expired")]
    NeedsLogin,
    /// The bytes are not here, and the service cannot be reached.
    #[error("the service cannot be reached")]
    Offline,
    /// The service did not answer in time.
    #[error("the service did not answer in time")]
    TimedOut,
    /// The file was replaced on the service while it was open.
    #[error("the file was replaced meanwhile")]
    Stale,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// This file system does not do that.
    #[error("not supported")]
    Unsupported,
    /// The handle is not open in the right mode.
    #[error("bad file handle")]
    BadHandle,
    /// The file would be too large.
    #[error("the file is too large")]
    TooLarge,
    /// There is no data after this offset.
    #[error("no such offset")]
    NoSuchOffset,
    /// Something is in use.
    #[error("busy")]
    Busy,
    /// The file is a program that runs.
    #[error("the program is running")]
    Executed,
    /// A folder that is shown elsewhere in the mount, or would have itself in it.
    #[error("this folder is not followed any further")]
    Loop,
    /// This cannot be done by a rename.
    #[error("cannot be moved there")]
    CrossDevice,
    /// Anything else.
    #[error("{0}")]
    Io(Box<dyn Error + Send + Sync>),
}

impl VfsError {
    /// Wraps an error that has no meaning of its own.
    pub(crate) fn io(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Io(error.into())
    }
}

impl From<NameError> for VfsError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::NotUtf8 => Self::NotUtf8,
            NameError::TooLong => Self::NameTooLong,
            _ => Self::InvalidArgument,
        }
    }
}

impl From<io::Error> for VfsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::FileTooLarge => Self::TooLarge,
            io::ErrorKind::InvalidInput => Self::InvalidArgument,
            io::ErrorKind::Unsupported => Self::Unsupported,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::io(error),
        }
    }
}

impl From<StoreError> for VfsError {
    fn from(error: StoreError) -> Self {
        if error.is_disk_full() {
            Self::NoSpace
        } else if error.is_read_only() {
            Self::ReadOnly
        } else {
            Self::io(error)
        }
    }
}

impl From<ContentError> for VfsError {
    fn from(error: ContentError) -> Self {
        match &error {
            ContentError::NoSpace { .. } => Self::NoSpace,
            ContentError::Io { source, .. }
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                Self::ReadOnly
            }
            _ => Self::io(error),
        }
    }
}

impl From<BodyError> for VfsError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Store(error) => error.into(),
            BodyError::Content(error) => error.into(),
            other => Self::io(other),
        }
    }
}

impl From<HydrateError> for VfsError {
    fn from(error: HydrateError) -> Self {
        match error {
            HydrateError::Offline | HydrateError::ShuttingDown => Self::Offline,
            HydrateError::TimedOut => Self::TimedOut,
            HydrateError::NeedsLogin => Self::NeedsLogin,
            HydrateError::Changed | HydrateError::Gone => Self::Stale,
            HydrateError::NoSpace => Self::NoSpace,
            denied if denied.is_denied() => Self::AccessDenied,
            other => Self::io(other),
        }
    }
}

impl From<EngineError> for VfsError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Content(error) => error.into(),
            EngineError::Hydrate(error) => error.into(),
            EngineError::NoSuchPath { .. } => Self::NotFound,
            other if other.is_denied() => Self::AccessDenied,
            other => match other.reach() {
                Some(onedrivefs_sync::Net::Offline) => Self::Offline,
                Some(onedrivefs_sync::Net::NeedsLogin) => Self::NeedsLogin,
                _ => Self::io(other),
            },
        }
    }
}
