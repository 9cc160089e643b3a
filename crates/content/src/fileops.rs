//! System calls on one open file: positional I/O, holes and copies that keep them.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;

use onedrivefs_core::ByteRange;
use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Bytes moved by one read and one write of a copy: large enough to make the calls' cost vanish,
/// small enough to stay in the processor's cache.
const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// A write that stopped early.
pub(crate) struct PartialWrite {
    /// Bytes that did reach the file.
    pub(crate) done: usize,
    /// Why it stopped.
    pub(crate) error: io::Error,
}

/// Reads until `buf` is full. The end of the file inside it is an error.
pub(crate) fn read_exact(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buf, offset)
}

/// Has the disk fetch a range. Where it cannot, reading will.
pub(crate) fn read_ahead(file: &File, range: &ByteRange) {
    let Some(len) = NonZeroU64::new(range.end.saturating_sub(range.start)) else {
        return;
    };
    let _hint = rustix::fs::fadvise(file, range.start, Some(len), Advice::WillNeed);
}

/// Writes all of `data`, or tells how much was written.
pub(crate) fn write_all(file: &File, offset: u64, data: &[u8]) -> Result<(), PartialWrite> {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], offset + done as u64) {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(PartialWrite { done, error });
            }
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PartialWrite { done, error }),
        }
    }
    Ok(())
}

/// The first data at or after `offset`, as the file system knows it.
pub(crate) fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, SeekFrom::Data(offset))
}

/// The first hole at or after `offset`, where the end of the file counts as one.
pub(crate) fn seek_hole(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, SeekFrom::Hole(offset))
}

/// `ENXIO` says that there is nothing of that kind up to the end of the file.
fn seek(file: &File, from: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, from) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a range inside the file read as zeros and gives its blocks back where possible.
pub(crate) fn punch(file: &File, range: &ByteRange) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    zero_with(file, range, flags)
}

/// Makes a range inside the file read as zeros and keeps blocks reserved for it where possible.
pub(crate) fn zero(file: &File, range: &ByteRange) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    zero_with(file, range, flags)
}

/// Zeros a range by `fallocate`, or by writing where the file system lacks the operation.
fn zero_with(file: &File, range: &ByteRange, flags: FallocateFlags) -> io::Result<()> {
    if range.start >= range.end {
        return Ok(());
    }
    match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(error) => write_zeros(file, range),
        Err(error) => Err(error.into()),
    }
}

/// Writes zeros over a range.
fn write_zeros(file: &File, range: &ByteRange) -> io::Result<()> {
    let zeros = vec![0; COPY_CHUNK_BYTES];
    let mut at = range.start;
    while at < range.end {
        let chunk = chunk_len(at, range.end);
        write_all(file, at, &zeros[..chunk]).map_err(|partial| partial.error)?;
        at += chunk as u64;
    }
    Ok(())
}

/// Reserves blocks for a range; file systems that cannot reserve are let off.
pub(crate) fn reserve(file: &File, range: &ByteRange) -> io::Result<()> {
    if range.start >= range.end {
        return Ok(());
    }
    let len = range.end - range.start;
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, range.start, len) {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a file system lacks an operation.
fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS)
}

/// Makes an empty file equal to another one by sharing its blocks, which few file systems can.
pub(crate) fn share(from: &File, to: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

/// Copies a range to the same offsets of another file, leaving holes alone. The target must hold
/// zeros where the source has holes.
pub(crate) fn copy(from: &File, to: &File, range: &ByteRange) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let Some(data) = seek_data(from, at)?.filter(|&data| data < range.end) else {
            break;
        };
        let hole = seek_hole(from, data)?.unwrap_or(range.end);
        let end = hole.min(range.end);
        copy_literally(from, to, &(data..end))?;
        at = end;
    }
    Ok(())
}

/// Copies every byte of a range, zeros too.
pub(crate) fn copy_literally(from: &File, to: &File, range: &ByteRange) -> io::Result<()> {
    let mut buf = vec![0; chunk_len(range.start, range.end)];
    let mut at = range.start;
    while at < range.end {
        let chunk = chunk_len(at, range.end);
        read_exact(from, at, &mut buf[..chunk])?;
        write_all(to, at, &buf[..chunk]).map_err(|partial| partial.error)?;
        at += chunk as u64;
    }
    Ok(())
}

/// Length of the next chunk of a copy.
fn chunk_len(at: u64, end: u64) -> usize {
    usize::try_from(end - at).map_or(COPY_CHUNK_BYTES, |left| left.min(COPY_CHUNK_BYTES))
}
