//! Asks the system whether anybody has a file open for writing, or mapped so that it can be written
//! to. Nothing else tells that of a mapping whose descriptor was closed.
//!
//! Whoever asks for a lease on a file is refused it while there are such. `rustix` has no leases.

#![allow(
    unsafe_code,
    reason = "the system call has no safe form in the libraries used"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Tells whether a file is open for writing, through whatever descriptor or mapping. `file` itself
/// must be open for reading only.
///
/// # Errors
/// What the system says; it has no leases on every file system, nor for everybody.
pub(crate) fn is_open_for_writing(file: &File) -> io::Result<bool> {
    match set(file, libc::F_RDLCK) {
        Ok(()) => set(file, libc::F_UNLCK).map(|()| false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn set(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` lives, and the call takes no pointer.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_for_writing_while_somebody_has_it_open() {
        let named = tempfile::NamedTempFile::new().expect("file");
        let reader = File::open(named.path()).expect("opened");
        let other = File::open(named.path()).expect("opened");
        assert!(is_open_for_writing(&reader).expect("answer"));
        let path = named.into_temp_path();
        assert!(!is_open_for_writing(&reader).expect("answer"));
        let writer = File::options().append(true).open(&path).expect("opened");
        assert!(is_open_for_writing(&reader).expect("answer"));
        drop(writer);
        assert!(!is_open_for_writing(&reader).expect("answer"));
        drop(other);
    }
}
