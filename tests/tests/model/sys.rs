//! System calls that the standard library does not offer: `close` with its result, `truncate` by path,
//! and copying between files that are open.
#![expect(
    unsafe_code,
    reason = "the standard library drops the result of close(2) and has no truncate(2)"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Closes a file and tells what the file system said.
pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor belongs to nobody else.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the size of a file that is not open.
pub fn truncate(path: &Path, len: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the path ends with a NUL.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Copies all of a file into one that is open and empty, as `cp` does.
pub fn copy(from: &Path, to: &File) -> io::Result<()> {
    let from = File::open(from)?;
    let (mut at, mut into) = (0, 0);
    while rustix::fs::copy_file_range(&from, Some(&mut at), to, Some(&mut into), 1 << 30)? > 0 {}
    Ok(())
}
