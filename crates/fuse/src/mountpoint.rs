//! Checks a mountpoint before mounting, so that a mistake gets a sentence instead of an errno.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::geteuid;

use crate::detach::{self, WhenBusy};
use crate::error::MountError;
use crate::mounts;

/// How many dead mounts, one on top of the other, are cleared away.
const MAX_STALE_LAYERS: usize = 16;

/// The placeholder that systemd mounts where an automount unit waits for us.
const AUTOFS: &str = "autofs";

/// Clears away dead mounts of ours, checks that one can mount at `path` and returns it absolute
/// and free of links.
pub(crate) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let resolved = mounts::resolve(path).map_err(|error| explain(path, error))?;
    clear_stale(&resolved)?;
    check(&resolved)?;
    Ok(resolved)
}

/// Detaches what dead daemons left behind; refuses when anything living is mounted.
fn clear_stale(path: &Path) -> Result<(), MountError> {
    for _ in 0..MAX_STALE_LAYERS {
        let table = mounts::read().map_err(|error| explain(path, error))?;
        match mounts::topmost(&table, path) {
            None => return Ok(()),
            Some(entry) if entry.fs_type == AUTOFS => return Ok(()),
            Some(entry) if entry.is_onedrivefs() && entry.is_dead() => {
                tracing::warn!(path = %path.display(), "found the mount of a dead daemon and detached it");
                detach::unmount_entry(entry, WhenBusy::Detach)?;
            }
            Some(entry) => return Err(occupied(entry)),
        }
    }
    let table = mounts::read().map_err(|error| explain(path, error))?;
    mounts::topmost(&table, path).map_or(Ok(()), |entry| Err(occupied(entry)))
}

/// Says what is mounted there.
fn occupied(entry: &mounts::MountEntry) -> MountError {
    MountError::AlreadyMounted {
        path: entry.path.clone(),
        fs_type: entry.fs_type.clone(),
        source_name: entry.source.clone(),
    }
}

/// Checks that `path` is an empty directory that this user may mount on.
fn check(path: &Path) -> Result<(), MountError> {
    let metadata = fs::metadata(path).map_err(|error| explain(path, error))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory {
            path: path.to_owned(),
        });
    }
    let mut entries = fs::read_dir(path).map_err(|error| explain(path, error))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty {
            path: path.to_owned(),
        });
    }
    // The same demand as fusermount3's; root needs no permission, not even a writable filesystem.
    if !geteuid().is_root() && rustix::fs::access(path, Access::WRITE_OK).is_err() {
        return Err(MountError::NoAccess {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Names the mistake behind a failed look at the mountpoint.
fn explain(path: &Path, error: io::Error) -> MountError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing { path },
        io::ErrorKind::NotADirectory => MountError::NotADirectory { path },
        io::ErrorKind::PermissionDenied => MountError::NoAccess { path },
        _ => MountError::system("look at", &path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_will_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            prepare(dir.path()).unwrap(),
            dir.path().canonicalize().unwrap()
        );
    }

    #[test]
    fn each_mistake_has_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(
            prepare(&missing),
            Err(MountError::Missing { path }) if path == missing
        ));
        assert!(matches!(
            prepare(&dir.path().join("no/such")),
            Err(MountError::Missing { .. })
        ));
        assert!(matches!(
            prepare(&file),
            Err(MountError::NotADirectory { .. })
        ));
        assert!(matches!(
            prepare(&file.join("below")),
            Err(MountError::NotADirectory { .. })
        ));
        assert!(matches!(
            prepare(dir.path()),
            Err(MountError::NotEmpty { .. })
        ));
        assert!(matches!(
            prepare(Path::new("/proc")),
            Err(MountError::AlreadyMounted { fs_type, .. }) if fs_type == "proc"
        ));
    }
}
