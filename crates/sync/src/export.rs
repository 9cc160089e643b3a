//! Copying the body of a parked change to a file outside of the mount.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use onedrivefs_content::Body;
use onedrivefs_core::kill_point;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::Demand;
use crate::uploader::source_of;

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Permissions of a new file, of which the umask takes some.
const FILE_MODE: u32 = 0o666;

impl Engine {
    /// Copies the body of this machine's version to a new file outside of the mount; returns its
    /// size in bytes. What of it was never downloaded is fetched first. When that fails nothing
    /// is left behind.
    ///
    /// # Errors
    /// `NotParked`, `NotAFile`, `Incomplete`, `Export`; errors of the disk and the database.
    pub async fn export(&self, path: &str, to: &Path) -> Result<u64, EngineError> {
        let row = self.parked_at(path)?;
        let item = self.store.item(row.ino)?;
        let Some(item) = item.filter(|item| !item.is_dir()) else {
            return Err(EngineError::NotAFile {
                path: path.to_owned(),
            });
        };
        if let Some(target) = &item.target {
            return write_new(to, |file| {
                file.write_all(target).map(|()| target.len() as u64)
            });
        }
        let row = item
            .body
            .map(|id| self.store.read(|r| r.body(id)))
            .transpose()?
            .flatten();
        let Some(row) = row else {
            if item.size > 0 {
                return Err(EngineError::NothingHere {
                    path: path.to_owned(),
                });
            }
            return write_new(to, |_| Ok(0));
        };
        let body = self
            .bodies
            .open(&row)
            .map_err(|error| EngineError::Export {
                path: to.to_owned(),
                source: io::Error::other(error),
            })?;
        let Some(body) = body else {
            return Err(EngineError::NothingHere {
                path: path.to_owned(),
            });
        };
        if !body.is_complete() {
            let incomplete = |source| EngineError::Incomplete {
                path: path.to_owned(),
                source,
            };
            let source = source_of(&self.config.drive.id, &row);
            let source = source.ok_or_else(|| incomplete(None))?;
            let whole = 0..body.size();
            let fetched = self
                .hydrator
                .ensure(&body, &source, whole, Demand::Upload)
                .await;
            fetched.map_err(|error| incomplete(Some(error)))?;
        }
        let to = to.to_owned();
        let copied = self
            .handle
            .spawn_blocking(move || write_new(&to, |file| copy(&body, file)));
        copied.await.map_err(|error| EngineError::Body {
            body: row.id,
            source: io::Error::other(error),
        })?
    }
}

/// Writes a new file, which gets its name when it is whole: half a file would look like it, should the
/// daemon die meanwhile.
fn write_new(
    to: &Path,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
) -> Result<u64, EngineError> {
    let failed = |source| EngineError::Export {
        path: to.to_owned(),
        source,
    };
    if to.symlink_metadata().is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let mut file = Unnamed::create(to).map_err(failed)?;
    let written = write(&mut file.file).and_then(|size| file.file.sync_all().map(|()| size));
    kill_point("export-written");
    let size = written
        .and_then(|size| file.name(to).map(|()| size))
        .map_err(failed)?;
    kill_point("exported");
    Ok(size)
}

/// A file that is not whole yet. It goes when it gets no name.
struct Unnamed {
    file: File,
    /// Its name for the time being, where a file must have one. There it stays behind when the daemon
    /// dies.
    path: Option<PathBuf>,
}

impl Unnamed {
    /// One in the directory in which it is to have its name.
    fn create(to: &Path) -> io::Result<Self> {
        let dir = match to.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match openat(CWD, dir, flags, Mode::from_raw_mode(FILE_MODE)) {
            Ok(file) => Ok(Self {
                file: file.into(),
                path: None,
            }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let path = to.with_file_name(unfinished_name());
                Ok(Self {
                    file: File::create_new(&path)?,
                    path: Some(path),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it its name unless there is something of that name.
    fn name(mut self, to: &Path) -> io::Result<()> {
        match &self.path {
            None => {
                let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                Ok(linkat(CWD, open, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
            }
            Some(path) => {
                name_new(path, to)?;
                self.path = None;
                Ok(())
            }
        }
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(std::fs::remove_file(path));
        }
    }
}

/// A name for a file that is not whole yet.
fn unfinished_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(".onedrivefs-export-{}-{number}", std::process::id())
}

/// Gives a file its name unless there is one of that name.
fn name_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot promise that.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => {
            std::fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn copy(body: &Arc<Body>, file: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let got = body.read_at(at, &mut buffer)?;
        if got == 0 {
            return Ok(at);
        }
        file.write_all(&buffer[..got])?;
        at += got as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("directory").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_no_other_before() {
        let dir = tempfile::tempdir().expect("directory");
        let to = dir.path().join("exported");
        let written = write_new(&to, |file| {
            file.write_all(b"whole")?;
            // Where the file system can do that.
            assert!(names(dir.path()).iter().all(|name| name.starts_with('.')));
            Ok(5)
        });
        assert_eq!(written.expect("written"), 5);
        assert_eq!(names(dir.path()), ["exported"]);
        assert_eq!(std::fs::read(&to).expect("read"), b"whole");
    }

    #[test]
    fn what_failed_or_came_too_late_leaves_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let to = dir.path().join("exported");
        let failed = write_new(&to, |_| Err(io::ErrorKind::StorageFull.into()));
        failed.expect_err("no room");
        assert_eq!(names(dir.path()), [""; 0]);
        let late = write_new(&to, |file| {
            std::fs::write(&to, b"somebody else's")?;
            file.write_all(b"mine").map(|()| 4)
        });
        late.expect_err("the name is taken");
        assert_eq!(names(dir.path()), ["exported"]);
        assert_eq!(std::fs::read(&to).expect("read"), b"somebody else's");
    }

    #[test]
    fn a_file_that_must_have_a_name_goes_when_it_gets_no_other() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join(unfinished_name());
        let unnamed = || Unnamed {
            file: File::create_new(&path).expect("file"),
            path: Some(path.clone()),
        };
        drop(unnamed());
        assert_eq!(names(dir.path()), [""; 0]);
        unnamed().name(&dir.path().join("named")).expect("named");
        assert_eq!(names(dir.path()), ["named"]);
    }
}
