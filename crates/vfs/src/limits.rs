//! Limits that the service has for names and paths, told to whoever gives a name: an upload that
//! fails minutes later has nobody left to tell.

use onedrivefs_core::{DriveKind, Ino, NameError, name};
use onedrivefs_store::{Item, Kind};
use onedrivefs_sync::journal::LINK_SUFFIX;

use crate::error::VfsError;
use crate::vfs::Vfs;

/// Longest path on personal drives, counted in UTF-16 units with a slash before each name.
const PATH_MAX_PERSONAL: usize = 430;

/// Longest path on all other drives, counted in the same way.
const PATH_MAX_BUSINESS: usize = 400;

/// Deepest tree that is walked.
const DEPTH_MAX: usize = 4096;

/// Says of a name that no entry can have that it is too long, as a local disk does also where
/// nothing is created.
pub(crate) fn check_length(name: &str) -> Result<(), VfsError> {
    match name::check_local(name) {
        Err(NameError::TooLong) => Err(VfsError::NameTooLong),
        _ => Ok(()),
    }
}

/// Length of a name on the service with the slash before it.
fn stored_len(name: &str, kind: Kind) -> usize {
    let suffix = if kind == Kind::Symlink {
        LINK_SUFFIX.len()
    } else {
        0
    };
    1 + name::encode(name).encode_utf16().count() + suffix
}

impl Vfs {
    /// Checks that the service can take an item under this name in this directory.
    pub(crate) fn check_new_path(
        &self,
        parent: Ino,
        name: &str,
        kind: Kind,
    ) -> Result<(), VfsError> {
        let len = stored_len(name, kind);
        if len - 1 > name::NAME_MAX_UTF16 || self.path_len(parent)? + len > self.path_max() {
            return Err(VfsError::NameTooLong);
        }
        Ok(())
    }

    /// Checks that the service can take an item, and all in it, under another name. What gets no
    /// longer by that always fits: it is there already.
    pub(crate) fn check_moved_path(
        &self,
        item: &Item,
        parent: Ino,
        name: &str,
    ) -> Result<(), VfsError> {
        let here = match item.parent {
            Some(own) => self.path_len(own)? + stored_len(&item.name, item.kind),
            None => 0,
        };
        let there = self.path_len(parent)? + stored_len(name, item.kind);
        if there <= here && !item.local_only {
            return Ok(());
        }
        self.check_new_path(parent, name, item.kind)?;
        if item.is_dir() {
            let below = self.store().read(|r| r.longest_path_below(item.ino))?;
            if there + below > self.path_max() {
                return Err(VfsError::NameTooLong);
            }
        }
        Ok(())
    }

    fn path_max(&self) -> usize {
        match self.engine.config.drive.kind {
            DriveKind::Personal => PATH_MAX_PERSONAL,
            DriveKind::Business | DriveKind::DocumentLibrary => PATH_MAX_BUSINESS,
        }
    }

    /// Length of a directory's path on the service.
    fn path_len(&self, directory: Ino) -> Result<usize, VfsError> {
        let mut len = 0;
        let mut at = directory;
        for _ in 0..DEPTH_MAX {
            let Some(item) = self.store().item(at)? else {
                break;
            };
            let Some(parent) = item.parent else { break };
            len += stored_len(&item.name, item.kind);
            at = parent;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_as_the_service_stores_them() {
        assert_eq!(stored_len("a", Kind::File), 2);
        assert_eq!(stored_len("a", Kind::Symlink), 13);
        assert_eq!(stored_len("CON", Kind::File), 5);
        assert_eq!(stored_len("🚀", Kind::Directory), 3);
    }

    #[test]
    fn a_name_too_long_for_any_entry_is_told_so() {
        assert!(check_length(&"x".repeat(255)).is_ok());
        assert!(check_length(&"ü".repeat(255)).is_ok());
        let long = check_length(&"x".repeat(256));
        assert!(matches!(long, Err(VfsError::NameTooLong)));
        assert!(check_length("..").is_ok());
    }
}
