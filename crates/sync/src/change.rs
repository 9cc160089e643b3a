//! What the kernel must forget after a change that did not come through it.

use onedrivefs_core::Ino;

/// One thing the kernel may have cached and that is no longer true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelChange {
    /// What a name in a directory stands for, or that it stands for nothing.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: String,
    },
    /// Size, times and mode of an inode.
    Attributes {
        /// The inode.
        ino: Ino,
    },
    /// The content of an inode, and its attributes.
    Content {
        /// The inode.
        ino: Ino,
    },
    /// An inode under a name is gone; programs that watch it are told.
    Deleted {
        /// The directory.
        parent: Ino,
        /// The inode.
        child: Ino,
        /// The name.
        name: String,
    },
}
