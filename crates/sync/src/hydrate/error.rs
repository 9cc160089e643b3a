//! Why bytes cannot be had.

use std::io;
use std::sync::Arc;

use onedrivefs_graph::GraphError;
use thiserror::Error;

/// Why bytes cannot be had. Cheap to clone, because one failure answers many waiters.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum HydrateError {
    /// There is no network, or the service cannot be reached.
    #[error("the service cannot be reached")]
    Offline,
    /// The service did not send a byte in time.
    #[error("the service did not send anything in time")]
    TimedOut,
    /// Somebody has to sign in again.
    #[error("the sign-in has expired")]
    NeedsLogin,
    /// The service has another version of the content by now.
    #[error("the content has changed on the service")]
    Changed,
    /// The service has no such item any more.
    #[error("the item is no longer on the service")]
    Gone,
    /// The content of the pinned version is this many bytes long, whatever the metadata says.
    #[error("the content is {0} bytes long, unlike its metadata says")]
    TrueSize(u64),
    /// What came is not what the service's hash says. It was thrown away; whoever read some of it
    /// before must not be left in the belief that all is well.
    #[error("the content that arrived does not have the hash it should have")]
    Corrupt,
    /// The disk is full.
    #[error("no space left for downloaded content")]
    NoSpace,
    /// The file system is being unmounted.
    #[error("the file system is being unmounted")]
    ShuttingDown,
    /// A local file could not be read or written.
    #[error("a local file could not be used")]
    Io(#[source] Arc<io::Error>),
    /// The service refused for good.
    #[error("the service refused the content")]
    Refused(#[source] Arc<GraphError>),
}

impl HydrateError {
    /// Tells whether whoever signed in may not have the content.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(error) if error.status() == Some(403))
    }
}

impl From<io::Error> for HydrateError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// How an attempt of a transfer ended before its end.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Trying again is of no use.
    Final(HydrateError),
    /// The address was used up.
    UrlExpired(GraphError),
    /// The service cannot be reached.
    Unreachable,
    /// It may pass.
    Passing(GraphError),
    /// Nothing came for a while.
    Silent,
}

impl From<HydrateError> for Trouble {
    fn from(error: HydrateError) -> Self {
        Self::Final(error)
    }
}
