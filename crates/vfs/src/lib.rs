//! What file system calls mean on a drive: POSIX semantics over the engine, without the kernel's
//! wire format.
//!
//! Everything here is answered from this machine, synchronously and in microseconds, with two
//! exceptions that return [`Outcome::Later`]: looking into a folder that was never listed, and
//! reading bytes that are not here. Those have deadlines of their own, so that no system call can
//! hang.
//!
//! Lock order: an `OpenFile`'s state, then a store transaction, then a body's
//! own lock. The table of open files is only held to look something up.

mod attr;
mod buffer;
mod copy;
mod dir;
mod edition;
mod error;
mod forest;
mod graft;
mod group;
mod handle;
mod limits;
mod listing;
mod namespace;
mod passthrough;
mod place;
mod read;
mod readahead;
mod rename;
mod save;
mod setattr;
mod spelling;
mod types;
mod vfs;
mod walk;
mod write;
mod xattr;

pub use buffer::Buffer;
pub use dir::Ahead;
pub use edition::{EDITION_MAX, Edition};
pub use error::VfsError;
pub use forest::{Followed, Forest, Nursery, Spot};
pub use graft::{MAIN, SLOT_MAX};
pub use onedrivefs_sync::{Announcement, KernelChange};
pub use passthrough::Backing;
pub use types::{
    Attr, DirEntry, Entry, FileKind, OpenFlags, Opened, Outcome, Pending, RenameMode, SetAttr,
    SetTime, StatFs,
};
pub use vfs::{Further, NamesForgetter, Vfs, VfsOptions};
