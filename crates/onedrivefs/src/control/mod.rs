//! Talking to a running daemon: `status`, `sync` and the like need what only it knows.
//!
//! Each daemon listens on a Unix socket in the user's runtime directory and leaves a record beside
//! it that says which mountpoint it serves. A connection carries one request, a line of JSON, and
//! as many lines in answer as it takes; the last one is final.

pub(crate) mod client;
pub(crate) mod registry;
pub(crate) mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line of the protocol, in bytes. A status of 10,000 parked paths fits.
pub(crate) const LINE_MAX: usize = 16 << 20;

/// What can be asked of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The state of the whole mount.
    Status,
    /// The state of one file or folder, named by its path inside the mount.
    PathStatus {
        /// Path inside the mount, beginning with a slash.
        path: String,
    },
    /// Wait until local changes are sent and remote ones applied.
    Sync {
        /// Restricts the wait to what is below this path inside the mount.
        path: Option<String>,
        /// Longest wait in seconds.
        timeout_s: Option<u64>,
    },
    /// Keep what is at a path on this machine.
    Pin {
        /// Path inside the mount.
        path: String,
    },
    /// Wait until all of what is pinned at or below a path is here.
    AwaitPinned {
        /// Path inside the mount.
        path: String,
    },
    /// No longer keep what is at a path.
    Unpin {
        /// Path inside the mount.
        path: String,
    },
    /// Free the space of the content at or below a path.
    Evict {
        /// Path inside the mount.
        path: String,
    },
    /// Try a parked change again.
    Retry {
        /// Path inside the mount.
        path: String,
    },
    /// Copy the local body of a parked change out of the spool.
    Export {
        /// Path inside the mount.
        path: String,
        /// The file to create.
        to: String,
    },
    /// Give up a parked change and its local body.
    Discard {
        /// Path inside the mount.
        path: String,
    },
    /// Somebody signed in or out.
    CredentialsChanged,
    /// Unmount and end.
    Unmount,
}

impl Request {
    /// The request in one word, as on the command line.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Status | Self::PathStatus { .. } => "status",
            Self::Sync { .. } => "sync",
            Self::Pin { .. } | Self::AwaitPinned { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::Evict { .. } => "evict",
            Self::Retry { .. } => "retry",
            Self::Export { .. } => "export",
            Self::Discard { .. } => "discard",
            Self::CredentialsChanged => "telling the mount about the sign-in",
            Self::Unmount => "unmount",
        }
    }
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Final: it worked.
    Done {
        /// What was asked for.
        value: Value,
    },
    /// More follows.
    Progress {
        /// Changes not sent yet, or files not here yet.
        ops: u64,
        /// Bytes not sent yet, or not here yet.
        bytes: u64,
        /// What of that fails, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        obstacle: Option<String>,
    },
    /// Final: it did not work.
    Failed {
        /// Why.
        why: String,
        /// What to do next.
        next: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_a_stable_form() {
        let request = Request::Sync {
            path: Some("/a".into()),
            timeout_s: None,
        };
        let text = serde_json::to_string(&request).expect("serialised");
        assert_eq!(text, r#"{"request":"sync","path":"/a","timeout_s":null}"#);
        let back: Request = serde_json::from_str(&text).expect("parsed");
        assert_eq!(back, request);
        assert!(serde_json::from_str::<Request>(r#"{"request":"format-disk"}"#).is_err());
    }
}
