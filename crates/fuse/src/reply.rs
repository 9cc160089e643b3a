//! Turns results of the vfs into replies, and knows for how long the kernel may cache them.

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::call::{edition_node, is_other_spelling, other_spelling};
use fuser::{
    BackingId, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
};
use onedrivefs_core::Timestamp;
use onedrivefs_vfs::{Attr, Buffer, Entry, FileKind, Opened, SetTime, StatFs, Vfs};

/// How long the kernel may keep names and attributes. Every change from elsewhere is announced,
/// so this only bounds the damage of an announcement that was lost.
pub(crate) const CACHE_TTL: Duration = Duration::from_secs(3600);

/// How long the kernel may remember that a name is absent. Shorter, because programs probe for
/// countless names that nobody will ever announce and each costs kernel memory.
const NEGATIVE_TTL: Duration = Duration::from_secs(60);

/// Preferred size of reads and writes in bytes. Programs size their buffers by it, and a small
/// write costs as much as a large one because there is no writeback cache. Not larger, because
/// the same buffers are filled after every seek.
const BLOCK_SIZE: u32 = 64 * 1024;

/// Inode numbers are never reused within a mount, so one generation is enough.
const GENERATION: Generation = Generation(0);

/// A reply that can also carry an error.
pub(crate) trait Refuse: Send + 'static {
    /// Answers with an error.
    fn refuse(self, errno: fuser::Errno);
}

/// Implements [`Refuse`] by the method of the same meaning that every reply type has.
macro_rules! refuse_by_error {
    ($($reply:ty),* $(,)?) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: fuser::Errno) {
                self.error(errno);
            }
        })*
    };
}
refuse_by_error!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr,
);

/// Answers without data.
pub(crate) fn done(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// Answers with bytes.
pub(crate) fn bytes(reply: ReplyData, data: impl Deref<Target = [u8]>) {
    reply.data(&data);
}

/// Answers with bytes of a file.
pub(crate) fn content(reply: ReplyData, data: Buffer) {
    reply.data(&data);
    data.read_ahead();
}

/// Answers with the number of bytes taken.
pub(crate) fn written(reply: ReplyWrite, size: u32) {
    reply.written(size);
}

/// Answers with the attributes of a node.
pub(crate) fn attributes(reply: ReplyAttr, node: INodeNo, attr: &Attr) {
    if is_other_spelling(node) {
        reply.attr(&Duration::ZERO, &numbered(node, attr));
    } else {
        reply.attr(&CACHE_TTL, &numbered(node, attr));
    }
}

/// Answers with an entry of a directory that exists under the spelling that was asked for.
pub(crate) fn entry(reply: ReplyEntry, parent: INodeNo, attr: Attr) {
    let found = Entry {
        attr,
        other_spelling: false,
    };
    entry_or_absent(reply, parent, Some(found));
}

/// Answers with an entry of a directory, or with its absence, in a form that the kernel remembers
/// unless a spelling is not the one there is: changes are announced for that one only.
pub(crate) fn entry_or_absent(reply: ReplyEntry, parent: INodeNo, found: Option<Entry>) {
    match found {
        Some(found) => {
            let known = known_as(parent, &found.attr, found.other_spelling);
            reply.entry_with_ttls(&known.attr_ttl, &known.entry_ttl, &known.attr, GENERATION);
        }
        None if is_other_spelling(parent) => {
            reply.entry_with_ttls(&Duration::ZERO, &Duration::ZERO, &ABSENT, GENERATION);
        }
        None => reply.entry_with_ttls(&Duration::ZERO, &NEGATIVE_TTL, &ABSENT, GENERATION),
    }
}

/// How the kernel is to know an inode.
struct Known {
    attr: FileAttr,
    attr_ttl: Duration,
    entry_ttl: Duration,
}

/// How the kernel is to know what it found in a directory. A directory has one place in the
/// kernel's cache only, so below another spelling it needs another number as well.
fn known_as(parent: INodeNo, attr: &Attr, other: bool) -> Known {
    let below = is_other_spelling(parent);
    let marked = other || below && attr.kind == FileKind::Directory;
    let ttl = |keep: bool| if keep { CACHE_TTL } else { Duration::ZERO };
    let node = match (marked, attr.kind) {
        (true, FileKind::Directory) => other_spelling(edition_node(attr.ino, attr.edition)),
        (true, _) => other_spelling(INodeNo(attr.ino.0)),
        (false, _) => edition_node(attr.ino, attr.edition),
    };
    Known {
        attr: numbered(node, attr),
        attr_ttl: ttl(!marked),
        entry_ttl: ttl(!other && !below),
    }
}

/// An entry whose inode number zero says that the name is absent.
const ABSENT: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: BLOCK_SIZE,
    flags: 0,
};

/// Whether a handle can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading only.
    Read,
    /// Writing, with or without reading.
    Write,
    /// Writing, by whoever can neither read nor map what is written: it comes here without a stay
    /// in the kernel's pages, which is half the work.
    WriteOnly,
}

/// Answers with a file handle.
pub(crate) fn opened(vfs: &Vfs, reply: ReplyOpen, file: &Opened, access: Access) {
    let handle = FileHandle(file.fh);
    match backing_id(vfs, file, |backing| reply.open_backing(backing)) {
        Some(id) => reply.opened_passthrough(handle, passthrough_flags(file, access), &id),
        None => reply.opened(handle, open_flags(file, access)),
    }
}

/// Answers with a new file and its handle.
pub(crate) fn created(
    vfs: &Vfs,
    reply: ReplyCreate,
    parent: INodeNo,
    made: &(Attr, Opened),
    access: Access,
) {
    let (attr, file) = made;
    let known = known_as(parent, attr, false);
    let (ttl, attr, handle) = (&known.entry_ttl, &known.attr, FileHandle(file.fh));
    match backing_id(vfs, file, |backing| reply.open_backing(backing)) {
        Some(id) => {
            let flags = passthrough_flags(file, access);
            reply.created_passthrough(ttl, attr, GENERATION, handle, flags, &id);
        }
        None => reply.created(ttl, attr, GENERATION, handle, open_flags(file, access)),
    }
}

/// What the kernel knows a file as that it is to read by itself. It may refuse that, which is noted
/// and nothing else: everything works without.
fn backing_id(
    vfs: &Vfs,
    file: &Opened,
    register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
) -> Option<Arc<BackingId>> {
    match file.backing.as_ref()?.registered(register) {
        Ok(id) => id,
        Err(error) => {
            tracing::debug!(%error, "the kernel was not allowed to read files by itself");
            vfs.forbid_passthrough();
            None
        }
    }
}

/// What the kernel may do with a handle on a file that it reads by itself. What is written comes to
/// us all the same, unless it was agreed upon that it need not.
fn passthrough_flags(file: &Opened, access: Access) -> FopenFlags {
    match access {
        Access::Read => FopenFlags::FOPEN_NOFLUSH,
        Access::Write | Access::WriteOnly if file.kernel_writes => FopenFlags::empty(),
        Access::Write | Access::WriteOnly => FopenFlags::FOPEN_DIRECT_IO,
    }
}

/// What the kernel may do with a handle.
fn open_flags(file: &Opened, access: Access) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(
        FopenFlags::FOPEN_DIRECT_IO,
        (file.direct_io && file.backing.is_none()) || access == Access::WriteOnly,
    );
    flags.set(
        FopenFlags::FOPEN_KEEP_CACHE,
        file.keep_cache && !file.direct_io,
    );
    // Closing what was only read has nothing to report; this saves a request.
    flags.set(FopenFlags::FOPEN_NOFLUSH, access == Access::Read);
    flags
}

/// Answers with a directory handle.
pub(crate) fn opened_directory(reply: ReplyOpen, handle: u64) {
    reply.opened(FileHandle(handle), FopenFlags::empty());
}

/// Answers with a position in a file.
pub(crate) fn position(reply: ReplyLseek, offset: u64) {
    match i64::try_from(offset) {
        Ok(offset) => reply.offset(offset),
        Err(_) => reply.error(fuser::Errno::EOVERFLOW),
    }
}

/// Answers with the figures of the drive.
pub(crate) fn figures(reply: ReplyStatfs, figures: &StatFs) {
    let block = u64::from(figures.block_size.max(1));
    let free = figures.free_bytes / block;
    reply.statfs(
        figures.total_bytes / block,
        free,
        free,
        figures.files,
        figures.free_files,
        figures.block_size,
        figures.name_max,
        figures.block_size,
    );
}

/// Answers with an attribute value, its size, or that the buffer is too small.
pub(crate) fn attribute_value(reply: ReplyXattr, value: &[u8], buffer: u32) {
    match u32::try_from(value.len()) {
        Ok(size) if buffer == 0 => reply.size(size),
        Ok(size) if size <= buffer => reply.data(value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(_) => reply.error(fuser::Errno::E2BIG),
    }
}

/// Adds an entry with its attributes. Returns whether it did not fit.
pub(crate) fn add_plus(
    reply: &mut ReplyDirectoryPlus,
    directory: INodeNo,
    entry: &onedrivefs_vfs::DirEntry<'_>,
) -> bool {
    let known = known_as(directory, &entry.attr, false);
    reply.add(
        known.attr.ino,
        entry.next_offset,
        entry.name,
        &known.entry_ttl,
        &known.attr,
        GENERATION,
    )
}

/// Adds an entry by name only. Returns whether it did not fit.
pub(crate) fn add_name(reply: &mut ReplyDirectory, entry: &onedrivefs_vfs::DirEntry<'_>) -> bool {
    reply.add(
        edition_node(entry.ino, entry.attr.edition),
        entry.next_offset,
        file_type(entry.kind),
        entry.name,
    )
}

/// The kernel's word for a kind of file.
fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
    }
}

/// Attributes under another number.
fn numbered(node: INodeNo, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: node,
        ..file_attr(attr)
    }
}

/// Attributes in fuser's shape.
fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.into(),
        mtime: attr.mtime.into(),
        ctime: attr.ctime.into(),
        crtime: attr.btime.into(),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A time that a program wants to set.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(timestamp(time)),
    }
}

/// Undoes fuser 0.18's mistake with times before 1970: the kernel sends negative seconds and
/// positive nanoseconds, and fuser subtracts both.
fn timestamp(time: SystemTime) -> Timestamp {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) if before.subsec_nanos() > 0 => {
            let whole = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(before.as_secs()));
            let nanos = Duration::from_nanos(u64::from(before.subsec_nanos()));
            whole
                .and_then(|whole| whole.checked_add(nanos))
                .map_or_else(|| Timestamp::from(time), Timestamp::from)
        }
        _ => Timestamp::from(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser makes of the kernel's two numbers when the seconds are negative.
    fn mistaken(seconds: u64, nanos: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH - Duration::new(seconds, nanos)
    }

    #[test]
    fn times_before_1970_are_repaired() {
        // 0.2 s before 1970 is -1 s plus 0.8 s.
        let repaired = timestamp(mistaken(1, 800_000_000));
        assert_eq!(repaired.as_nanos(), -200_000_000);
        assert_eq!(timestamp(mistaken(5, 0)).as_nanos(), -5_000_000_000);
        let after = SystemTime::UNIX_EPOCH + Duration::new(7, 123_456_789);
        assert_eq!(timestamp(after).as_nanos(), 7_123_456_789);
    }

    #[test]
    fn handles_keep_pages_unless_direct_and_flush_only_what_was_written() {
        let file = |keep_cache, direct_io| Opened {
            fh: 1,
            keep_cache,
            direct_io,
            backing: None,
            kernel_writes: false,
        };
        let flags = open_flags(&file(true, false), Access::Write);
        assert_eq!(flags, FopenFlags::FOPEN_KEEP_CACHE);
        let flags = open_flags(&file(true, true), Access::Read);
        assert_eq!(
            flags,
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH
        );
        // What others have read stays.
        let flags = open_flags(&file(true, false), Access::WriteOnly);
        assert_eq!(
            flags,
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_KEEP_CACHE
        );
    }
}
