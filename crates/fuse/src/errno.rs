//! The only table from errors of the vfs to the numbers a program sees.

use std::error::Error;

use fuser::Errno;
use onedrivefs_vfs::VfsError;

/// The number for an error. Exhaustive, so that a new error cannot reach a program by accident.
pub(crate) fn errno(error: &VfsError) -> Errno {
    match error {
        VfsError::NotFound => Errno::ENOENT,
        VfsError::Exists => Errno::EEXIST,
        VfsError::NotDirectory => Errno::ENOTDIR,
        VfsError::IsDirectory => Errno::EISDIR,
        VfsError::NotEmpty => Errno::ENOTEMPTY,
        VfsError::NoSpace => Errno::ENOSPC,
        VfsError::NameTooLong => Errno::ENAMETOOLONG,
        VfsError::NotUtf8 => Errno::EILSEQ,
        VfsError::InvalidName | VfsError::InvalidArgument => Errno::EINVAL,
        VfsError::ReadOnly => Errno::EROFS,
        VfsError::NotPermitted => Errno::EPERM,
        VfsError::AccessDenied | VfsError::NeedsLogin => Errno::EACCES,
        VfsError::Offline => Errno::ENETDOWN,
        VfsError::TimedOut => Errno::ETIMEDOUT,
        VfsError::Stale => Errno::ESTALE,
        VfsError::NoAttribute => Errno::ENODATA,
        VfsError::Unsupported => Errno::EOPNOTSUPP,
        VfsError::BadHandle => Errno::EBADF,
        VfsError::TooLarge => Errno::EFBIG,
        VfsError::NoSuchOffset => Errno::ENXIO,
        VfsError::Busy => Errno::EBUSY,
        VfsError::Executed => Errno::ETXTBSY,
        VfsError::Loop => Errno::ELOOP,
        VfsError::CrossDevice => Errno::EXDEV,
        VfsError::Io(_) => Errno::EIO,
    }
}

/// Joins an error and its causes into one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Transparent wrappers repeat the text of their cause.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_row() {
        let rows: [(VfsError, &str); 27] = [
            (VfsError::NotFound, "ENOENT"),
            (VfsError::Exists, "EEXIST"),
            (VfsError::NotDirectory, "ENOTDIR"),
            (VfsError::IsDirectory, "EISDIR"),
            (VfsError::NotEmpty, "ENOTEMPTY"),
            (VfsError::NoSpace, "ENOSPC"),
            (VfsError::NameTooLong, "ENAMETOOLONG"),
            (VfsError::NotUtf8, "EILSEQ"),
            (VfsError::InvalidName, "EINVAL"),
            (VfsError::InvalidArgument, "EINVAL"),
            (VfsError::ReadOnly, "EROFS"),
            (VfsError::NotPermitted, "EPERM"),
            (VfsError::AccessDenied, "EACCES"),
            (VfsError::NeedsLogin, "EACCES"),
            (VfsError::Executed, "ETXTBSY"),
            (VfsError::Loop, "ELOOP"),
            (VfsError::Offline, "ENETDOWN"),
            (VfsError::TimedOut, "ETIMEDOUT"),
            (VfsError::Stale, "ESTALE"),
            (VfsError::NoAttribute, "ENODATA"),
            (VfsError::Unsupported, "EOPNOTSUPP"),
            (VfsError::BadHandle, "EBADF"),
            (VfsError::TooLarge, "EFBIG"),
            (VfsError::NoSuchOffset, "ENXIO"),
            (VfsError::Busy, "EBUSY"),
            (VfsError::CrossDevice, "EXDEV"),
            (VfsError::Io(Box::new(io::Error::other("disk"))), "EIO"),
        ];
        for (error, name) in rows {
            let expected = number(name);
            assert_eq!(errno(&error).code(), expected, "{error:?} should be {name}");
        }
    }

    /// The numbers of the kernel's ABI, written out so that the table is not compared to itself.
    fn number(name: &str) -> i32 {
        match name {
            "EPERM" => 1,
            "ENOENT" => 2,
            "EIO" => 5,
            "ENXIO" => 6,
            "EBADF" => 9,
            "EACCES" => 13,
            "EBUSY" => 16,
            "EEXIST" => 17,
            "EXDEV" => 18,
            "ENOTDIR" => 20,
            "EISDIR" => 21,
            "EINVAL" => 22,
            "ETXTBSY" => 26,
            "EFBIG" => 27,
            "ENOSPC" => 28,
            "EROFS" => 30,
            "ENAMETOOLONG" => 36,
            "ENOTEMPTY" => 39,
            "ELOOP" => 40,
            "ENODATA" => 61,
            "EILSEQ" => 84,
            "EOPNOTSUPP" => 95,
            "ENETDOWN" => 100,
            "ETIMEDOUT" => 110,
            "ESTALE" => 116,
            other => panic!("{other} is not in the list"),
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: io::Error,
    }

    #[test]
    fn causes_are_joined_once() {
        let layer = |text| Layer {
            text,
            source: io::Error::other("disk on fire"),
        };
        assert_eq!(chain(&layer("cannot write")), "cannot write: disk on fire");
        assert_eq!(
            chain(&layer("broken: disk on fire")),
            "broken: disk on fire"
        );
    }
}
