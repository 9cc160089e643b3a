//! What every request handler needs: a span, the answer to an error, and the kernel's flags in the
//! words of the vfs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use fuser::{Errno, INodeNo, RenameFlags, Request};
use onedrivefs_core::Ino;
use onedrivefs_vfs::{EDITION_MAX, Edition, OpenFlags as FileFlags, RenameMode, VfsError};
use rustix::fs::OFlags;
use tracing::Span;

use crate::errno::{chain, errno};
use crate::reply::Refuse;

/// The permission bits that are kept: never setuid and setgid, which the kernel would not clear
/// on a write under the negotiated capabilities.
pub(crate) const MODE_MASK: u32 = 0o1777;

/// The only namespace of extended attributes that exists here. Others are refused before anything
/// is looked up, in the way that makes programs stop asking.
const XATTR_NAMESPACE: &[u8] = b"user.";

/// What a log needs to know about a request.
pub(crate) struct Call {
    op: &'static str,
    ino: u64,
    req: u64,
    pub(crate) span: Span,
}

impl Call {
    /// Begins a request.
    pub(crate) fn new(op: &'static str, request: &Request, ino: INodeNo) -> Self {
        let (ino, req) = (ino.0, request.unique().0);
        let span = tracing::debug_span!("request", op, ino, req);
        Self { op, ino, req, span }
    }

    /// The number for an error. The last resort is logged with its causes, for the program that
    /// gets it learns nothing.
    pub(crate) fn errno(&self, error: &VfsError) -> Errno {
        let errno = errno(error);
        let (op, ino, req) = (self.op, self.ino, self.req);
        if let VfsError::Io(cause) = error {
            let error = chain(cause.as_ref());
            tracing::warn!(op, ino, req, error, "a request failed");
        } else {
            tracing::debug!(op, ino, req, %error, "a request was refused");
        }
        errno
    }

    /// Sends the reply.
    pub(crate) fn answer<T, R: Refuse>(
        &self,
        reply: R,
        result: Result<T, VfsError>,
        send: impl FnOnce(R, T),
    ) {
        match result {
            Ok(value) => send(reply, value),
            Err(error) => reply.refuse(self.errno(&error)),
        }
    }
}

/// Marks the number under which the kernel knows a file that was found under another spelling than
/// it has. With one number for both spellings the kernel takes them for two links to one file, and
/// renaming one to the other, which is how people change the case of a name, does nothing.
const OTHER_SPELLING: u64 = 1 << 62;

/// Where the number of an edition begins in a node's number. The bits below are the inode's.
const EDITION_SHIFT: u32 = 48;

/// The bits of a node's number that say which edition it is.
const EDITION_BITS: u64 = (EDITION_MAX as u64) << EDITION_SHIFT;

/// What an opening for execve(2) has among its flags: `__FMODE_EXEC` of the kernel's
/// `include/linux/fs.h`, which it does not keep from file systems.
const EXECUTE: OFlags = OFlags::from_bits_retain(0x20);

/// The inode number in the vfs's type.
pub(crate) fn ino(node: INodeNo) -> Ino {
    Ino(node.0 & !OTHER_SPELLING & !EDITION_BITS)
}

/// The edition that a node is. One under another spelling stands for whatever its path leads to.
pub(crate) fn expected_edition(node: INodeNo) -> Option<Edition> {
    let edition = (node.0 & EDITION_BITS) >> EDITION_SHIFT;
    (!is_other_spelling(node)).then(|| Edition::try_from(edition).unwrap_or(EDITION_MAX))
}

/// The kernel's number for an edition of an inode.
pub(crate) fn edition_node(ino: Ino, edition: Edition) -> INodeNo {
    INodeNo(ino.0 | u64::from(edition) << EDITION_SHIFT)
}

/// The kernel's number for an inode that was found under another spelling.
pub(crate) fn other_spelling(node: INodeNo) -> INodeNo {
    INodeNo(node.0 | OTHER_SPELLING)
}

/// Tells whether a number is one that [`other_spelling`] made.
pub(crate) fn is_other_spelling(node: INodeNo) -> bool {
    node.0 & OTHER_SPELLING != 0
}

/// The flags of open(2) that matter here.
pub(crate) fn file_flags(flags: i32) -> FileFlags {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let mode = flags & OFlags::RWMODE;
    let asked_to_write = mode == OFlags::WRONLY || mode == OFlags::RDWR;
    let truncate = flags.contains(OFlags::TRUNC);
    FileFlags {
        read: mode != OFlags::WRONLY,
        // Who may write may truncate without opening the file for more than reading.
        write: asked_to_write || truncate,
        append: flags.contains(OFlags::APPEND),
        truncate,
        blind: truncate && !asked_to_write,
        execute: flags.contains(EXECUTE),
        exclusive: flags.contains(OFlags::EXCL),
        sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
    }
}

/// What a rename does with an existing target.
pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, VfsError> {
    match flags {
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        flags if flags.is_empty() => Ok(RenameMode::Replace),
        _ => Err(VfsError::InvalidArgument),
    }
}

/// Tells whether an extended attribute may exist.
pub(crate) fn is_user_attribute(name: &OsStr) -> bool {
    name.as_bytes().starts_with(XATTR_NAMESPACE)
}

/// Admits attributes of the one namespace that exists.
pub(crate) fn check_attribute(name: &OsStr) -> Result<(), VfsError> {
    if is_user_attribute(name) {
        Ok(())
    } else {
        Err(VfsError::Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_keep_their_meaning() {
        let flags = |bits: OFlags| file_flags(bits.bits().cast_signed());
        let read = flags(OFlags::RDONLY);
        assert!(read.read && !read.write && !read.truncate);
        let write = flags(OFlags::WRONLY | OFlags::TRUNC | OFlags::EXCL);
        assert!(!write.read && write.write && write.truncate && write.exclusive);
        let both = flags(OFlags::RDWR | OFlags::APPEND);
        assert!(both.read && both.write && both.append && !both.blind);
        let emptied = flags(OFlags::RDONLY | OFlags::TRUNC);
        assert!(emptied.read && emptied.write && emptied.truncate && emptied.blind);
        let run = flags(OFlags::RDONLY | EXECUTE);
        assert!(run.execute && !run.write && !read.execute && !write.blind);
    }

    #[test]
    fn another_spelling_has_a_number_of_its_own() {
        let node = other_spelling(INodeNo(7));
        assert_ne!(node, INodeNo(7));
        assert!(is_other_spelling(node) && !is_other_spelling(INodeNo(7)));
        assert_eq!(ino(node), Ino(7));
        assert_eq!(ino(INodeNo(7)), Ino(7));
    }

    #[test]
    fn an_edition_has_a_number_of_its_own() {
        let node = edition_node(Ino(7), EDITION_MAX);
        assert_eq!(
            (ino(node), expected_edition(node)),
            (Ino(7), Some(EDITION_MAX))
        );
        assert!(!is_other_spelling(node));
        assert_eq!(edition_node(Ino(7), 0), INodeNo(7));
        assert_eq!(expected_edition(other_spelling(INodeNo(7))), None);
    }

    #[test]
    fn rename_flags_exclude_each_other() {
        let mode = |bits| rename_mode(RenameFlags::from_bits_retain(bits)).ok();
        assert!(matches!(mode(0), Some(RenameMode::Replace)));
        assert!(matches!(mode(1), Some(RenameMode::NoReplace)));
        assert!(matches!(mode(2), Some(RenameMode::Exchange)));
        assert!(mode(3).is_none());
        assert!(mode(4).is_none());
    }

    #[test]
    fn only_user_attributes_exist() {
        assert!(is_user_attribute(OsStr::new("user.comment")));
        for name in [
            "security.capability",
            "system.posix_acl_access",
            "trusted.x",
            "user",
        ] {
            assert!(!is_user_attribute(OsStr::new(name)), "{name}");
        }
    }
}
