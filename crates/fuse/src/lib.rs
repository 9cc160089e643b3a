//! The border with the kernel: a FUSE mount on one side, [`onedrivefs_vfs`] on the other.
//!
//! Everything that is peculiar to FUSE, to mounting and to the fuser library stays in this crate:
//! the request handlers, the only table from errors to errno, the life of a mount from its checks
//! to its teardown, and the thread that tells the kernel what to forget. What a call *means* is
//! decided by the vfs.

mod adapter;
mod attention;
mod call;
mod detach;
mod device;
mod epoch;
mod errno;
mod error;
mod fusermount;
mod init;
mod mountpoint;
mod mounts;
mod notify;
mod open_files;
mod readahead;
mod reply;
mod session;
mod users;
mod watchers;

pub use detach::unmount_path;
pub use error::MountError;
pub use init::Passthrough;
pub use mounts::{abort, abort_connection, is_stale};
pub use session::{MountOptions, Mounted, SessionEnd, Teardown, mount};
pub use users::{User, users_of};
pub use watchers::{Deed, Errand, Herald};
