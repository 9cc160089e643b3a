//! The values that calls take and return.

use std::pin::Pin;
use std::sync::Arc;

use onedrivefs_core::{Ino, Timestamp};

use crate::VfsError;
use crate::edition::Edition;
use crate::passthrough::Backing;

/// A result that needs the network. It has a deadline of its own.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, VfsError>> + Send + 'static>>;

/// A result that is there, or one that will be.
pub enum Outcome<T> {
    /// It is there.
    Now(T),
    /// It has to be waited for, on another thread than the kernel's.
    Later(Pending<T>),
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// Which edition of it they describe.
    pub edition: Edition,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Size in blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last modification.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Permission bits.
    pub perm: u16,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The attributes of the inode.
    pub attr: Attr,
    /// Whether the name was asked for under another spelling than it has. The kernel must not
    /// remember it, since it would not learn when the name changes.
    pub other_spelling: bool,
}

/// An entry of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'l> {
    /// Its inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Its name.
    pub name: &'l str,
    /// Where a listing goes on after it.
    pub next_offset: u64,
    /// Its attributes.
    pub attr: Attr,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The handle.
    pub fh: u64,
    /// Whether what the kernel has cached of the content is still true.
    pub keep_cache: bool,
    /// Whether the kernel must not cache the content.
    pub direct_io: bool,
    /// The file that the kernel is to read by itself, unless it refuses.
    pub backing: Option<Arc<Backing>>,
    /// Whether it may write to that file by itself as well.
    pub kernel_writes: bool,
}

/// Under what name a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// The one it has.
    OwnName,
    /// Another spelling of it, which the kernel takes for another file.
    OtherSpelling,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Timestamp),
}

/// Attributes to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// The handle the call was made through, if any.
    pub fh: Option<u64>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Writes go to the end.
    pub append: bool,
    /// The content goes. Only of a file that is opened for writing.
    pub truncate: bool,
    /// Only opened for writing because the content goes: the kernel did not look whether it is a
    /// program that runs.
    pub blind: bool,
    /// A program that is to be run.
    pub execute: bool,
    /// The name must be free.
    pub exclusive: bool,
    /// Each write is to survive a power cut.
    pub sync: bool,
}

impl OpenFlags {
    /// Tells whether bytes of what is there are to be replaced, and nothing else.
    pub(crate) fn only_overwrites(self) -> bool {
        self.write && !self.read && !self.append && !self.truncate && !self.sync
    }
}

/// What a rename does with an entry that has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It stays, and the call fails.
    NoReplace,
    /// It gets the old name.
    Exchange,
}

/// Space and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// Free, in bytes.
    pub free_bytes: u64,
    /// Items there are.
    pub files: u64,
    /// Items there can still be.
    pub free_files: u64,
    /// Unit of the figures above for the kernel, in bytes.
    pub block_size: u32,
    /// Longest name, in bytes.
    pub name_max: u32,
}
