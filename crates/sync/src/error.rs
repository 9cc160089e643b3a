//! What can go wrong with an engine as a whole.

use std::path::PathBuf;

use onedrivefs_content::ContentError;
use onedrivefs_graph::{Disposition, GraphError};
use onedrivefs_store::StoreError;
use thiserror::Error;

use crate::hydrate::HydrateError;
use crate::net_state::Net;

/// An error of an engine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Another daemon serves this drive.
    #[error("this drive is already mounted by process {pid}")]
    AlreadyRunning {
        /// The other daemon.
        pid: u32,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}: {source}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A body failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The bytes of a body could not be read or written.
    #[error("the body {body} in the spool failed: {source}")]
    Body {
        /// Its number.
        body: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The service refused or did not answer.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An upload that nobody goes on with holds the name of a file on the service.
    #[error("an unfinished upload holds the name: {0}")]
    NameHeld(#[source] GraphError),
    /// Content could not be fetched.
    #[error(transparent)]
    Hydrate(#[from] HydrateError),
    /// The service stored something else than what was sent.
    #[error("the service stored something else than what was sent")]
    Altered,
    /// The service renamed an item without moving it.
    #[error("the service did not move the item to its new folder")]
    NotMoved,
    /// The service refused to move an item. It does so while the new folder is in the item there,
    /// which is known here only after the next round of changes.
    #[error("moving it was refused: {0}")]
    MoveRefused(#[source] GraphError),
    /// It is in a folder that is of no drive.
    #[error(
        "no drive stands behind this folder, so that it stays on this machine; copy it into a drive, \
         such as My files, or export it"
    )]
    NoDrive,
    /// There is nothing at this path.
    #[error("there is no {path} in the mount")]
    NoSuchPath {
        /// The path in the mount.
        path: String,
    },
    /// A folder of another drive cannot be served.
    #[error("this folder cannot be served now: {reason}")]
    NotServed {
        /// Why.
        reason: String,
    },
    /// Nothing is parked there.
    #[error("nothing is parked at {path}")]
    NotParked {
        /// The path in the mount.
        path: String,
    },
    /// A folder that would be given up holds what only this machine has.
    #[error("{inside} is only on this machine, and would go with the folder {path}")]
    HoldsUnsent {
        /// The folder's path in the mount.
        path: String,
        /// That of a file in it.
        inside: String,
    },
    /// It is pinned, but not by itself.
    #[error("{path} is pinned with its folder {folder}")]
    PinnedByFolder {
        /// The path in the mount.
        path: String,
        /// The folder that pins it.
        folder: String,
    },
    /// It is not pinned.
    #[error("{path} is not pinned")]
    NotPinned {
        /// The path in the mount.
        path: String,
    },
    /// It has no content that could be exported.
    #[error("{path} is a folder; export the files in it")]
    NotAFile {
        /// The path in the mount.
        path: String,
    },
    /// Nothing of the content is on this machine.
    #[error("this machine has no content of {path} that the service does not have")]
    NothingHere {
        /// The path in the mount.
        path: String,
    },
    /// The body is not whole on this machine, and what is missing cannot be fetched.
    #[error("parts of {path} were never downloaded and cannot be fetched now")]
    Incomplete {
        /// The path in the mount.
        path: String,
        /// Why.
        source: Option<HydrateError>,
    },
    /// A file outside of the state could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl EngineError {
    /// Tells whether the service does not let this account see, or change, what was asked for.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Graph(GraphError::FolderGone) => true,
            Self::Graph(error) => error.status() == Some(403),
            _ => false,
        }
    }

    /// Tells whether the service has nothing like what was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Graph(error) if error.is_not_found())
    }

    /// Tells whether there is no room on this machine, or nothing may be written there.
    #[must_use]
    pub fn is_local_disk(&self) -> bool {
        match self {
            Self::Store(error) => error.is_disk_full() || error.is_read_only(),
            Self::Content(error) => error.is_no_space(),
            Self::Hydrate(error) => matches!(error, HydrateError::NoSpace),
            Self::Body { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }

    /// What the error tells about the reachability of the service, if anything.
    #[must_use]
    pub fn reach(&self) -> Option<Net> {
        match self {
            Self::Graph(error) => match error.disposition() {
                Disposition::Offline => Some(Net::Offline),
                Disposition::Reauth => Some(Net::NeedsLogin),
                // Without a token nothing can be asked, as without a network.
                _ if matches!(error, GraphError::Login(_)) => Some(Net::Offline),
                _ => None,
            },
            Self::Hydrate(HydrateError::Offline) => Some(Net::Offline),
            _ => None,
        }
    }
}
