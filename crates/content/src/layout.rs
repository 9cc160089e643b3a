//! Where bodies lie on disk, and when their folders are safe there.
//!
//! A body is `<folder>/<low byte of the id>/<id>`, both in hexadecimal: 256 sub-folders keep each
//! one short without making a walk expensive. Unfinished copies lie in `<folder>/tmp`, which is
//! emptied at start. Any folder may vanish while we run, because wiping a cache is always
//! allowed; it is made again when the next body needs it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::is_no_space;
use crate::{BodyId, ContentError, Place};

/// Folders are their owner's only.
const DIR_MODE: u32 = 0o700;
/// Bodies are their owner's only.
const FILE_MODE: u32 = 0o600;
/// Set in the mode of a file whose row may not be in the database yet: the owner's permission to
/// execute, which gives nobody anything.
pub(crate) const PROVISIONAL_BIT: u32 = 0o100;
/// Sub-folder for unfinished copies.
const TMP: &str = "tmp";
/// Marks a folder that backup programs may skip, and says how to recognise it
/// (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # Files here are copies of what is on OneDrive. They may be deleted at any time.\n";

/// The two folders.
pub(crate) struct Layout {
    spool: Root,
    cache: Root,
}

/// One of the two folders.
struct Root {
    dir: PathBuf,
    tagged: bool,
    /// Folders whose entries changed since they were last on stable storage.
    unsynced: Mutex<HashSet<PathBuf>>,
    /// Held while folders are written out, so that nobody takes another's unfinished work for done.
    syncing: Mutex<()>,
}

impl Layout {
    /// Creates both folders and empties their `tmp`.
    pub(crate) fn open(spool: &Path, cache: &Path) -> Result<Self, ContentError> {
        let layout = Self {
            spool: Root::new(spool, false),
            cache: Root::new(cache, true),
        };
        for root in [&layout.spool, &layout.cache] {
            root.make()?;
            root.clear_tmp()?;
            root.sync_names()?;
        }
        Ok(layout)
    }

    fn root(&self, place: Place) -> &Root {
        match place {
            Place::Cache => &self.cache,
            Place::Spool => &self.spool,
        }
    }

    /// The folder itself.
    pub(crate) fn dir(&self, place: Place) -> &Path {
        &self.root(place).dir
    }

    /// Where a body lies.
    pub(crate) fn path(&self, place: Place, id: BodyId) -> PathBuf {
        self.dir(place).join(sub_dir(id)).join(id.to_string())
    }

    /// Where a body's unfinished copy lies.
    pub(crate) fn temp_path(&self, place: Place, id: BodyId) -> PathBuf {
        self.dir(place).join(TMP).join(id.to_string())
    }

    /// Creates an empty file, replacing what an interrupted attempt left there.
    pub(crate) fn create_file(&self, place: Place, path: &Path) -> io::Result<File> {
        let create = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(FILE_MODE)
                .open(path)
        };
        self.with_parent(place, path, || match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_if_there(path)?;
                create()
            }
            created => created,
        })
    }

    /// Marks a file as one whose row is not in the database yet, or as one whose row is. Nothing else
    /// uses this bit.
    pub(crate) fn set_provisional(file: &File, provisional: bool) -> io::Result<()> {
        let mode = FILE_MODE | if provisional { PROVISIONAL_BIT } else { 0 };
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// A nameless file in the spool's file system, which vanishes when it is closed.
    pub(crate) fn nameless_file(&self) -> io::Result<File> {
        let dir = self.spool.dir.join(TMP);
        self.with_parent(Place::Spool, &dir.join("-"), || tempfile::tempfile_in(&dir))
    }

    /// Renames a file to its final name in `place`.
    pub(crate) fn rename(&self, from: &Path, place: Place, to: &Path) -> io::Result<()> {
        self.with_parent(place, to, || fs::rename(from, to))
    }

    /// Gives a file another name in `place`, or makes a provisional copy where that cannot be.
    pub(crate) fn link(&self, from: &Path, place: Place, to: &Path) -> io::Result<()> {
        remove_if_there(to)?;
        self.with_parent(place, to, || match fs::hard_link(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && !is_no_space(&error) => {
                self.copy_provisionally(from, place, to)
            }
            linked => linked,
        })
    }

    /// Copies a file to one that is provisional from its first byte on.
    pub(crate) fn copy_provisionally(
        &self,
        from: &Path,
        place: Place,
        to: &Path,
    ) -> io::Result<()> {
        let mut from = File::open(from)?;
        let mut copy = self.create_file(place, to)?;
        Self::set_provisional(&copy, true)?;
        io::copy(&mut from, &mut copy).map(|_bytes| ())
    }

    /// Runs `action`, and once more after making the parent folder when something was not found.
    fn with_parent<T>(
        &self,
        place: Place,
        path: &Path,
        action: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        let parent = path.parent().unwrap_or(path);
        let result = match action() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !parent.is_dir() => {
                let root = self.root(place);
                root.make().map_err(ContentError::into_io)?;
                make_dir(parent)?;
                root.unsynced.lock().insert(root.dir.clone());
                action()
            }
            other => other,
        };
        if result.is_ok() {
            self.mark_unsynced(place, path);
        }
        result
    }

    /// Notes that the folder of `path` must be written out by the next [`Layout::sync`].
    pub(crate) fn mark_unsynced(&self, place: Place, path: &Path) {
        if let Some(parent) = path.parent() {
            self.root(place).unsynced.lock().insert(parent.to_owned());
        }
    }

    /// Puts every changed folder of `place` on stable storage.
    pub(crate) fn sync(&self, place: Place) -> Result<(), ContentError> {
        let root = self.root(place);
        let _syncing = root.syncing.lock();
        let dirs: Vec<PathBuf> = root.unsynced.lock().drain().collect();
        for (index, dir) in dirs.iter().enumerate() {
            match sync_dir(dir) {
                Ok(()) => {}
                // A wiped cache has nothing left to write out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    root.unsynced.lock().extend(dirs[index..].iter().cloned());
                    return Err(ContentError::new("syncing folder", dir, error));
                }
            }
        }
        Ok(())
    }

    /// Bytes that an unprivileged user may still write in the file system of `place`.
    pub(crate) fn free_bytes(&self, place: Place) -> Result<u64, ContentError> {
        let stat = self.stat_disk(place)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Size of the file system of `place`, in bytes.
    pub(crate) fn disk_bytes(&self, place: Place) -> Result<u64, ContentError> {
        let stat = self.stat_disk(place)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn stat_disk(&self, place: Place) -> Result<rustix::fs::StatVfs, ContentError> {
        let dir = self.dir(place);
        let stat = match rustix::fs::statvfs(dir) {
            Err(rustix::io::Errno::NOENT) => {
                self.root(place).make()?;
                rustix::fs::statvfs(dir)
            }
            other => other,
        };
        stat.map_err(|e| ContentError::new("asking for space in", dir, e.into()))
    }

    /// Visits every body file of `place`.
    pub(crate) fn for_each(
        &self,
        place: Place,
        mut visit: impl FnMut(BodyId, &fs::Metadata),
    ) -> Result<(), ContentError> {
        for low_byte in 0..=u8::MAX {
            let dir = self.dir(place).join(format!("{low_byte:02x}"));
            for_each_in(&dir, &mut visit)
                .map_err(|error| ContentError::new("listing", &dir, error))?;
        }
        Ok(())
    }
}

impl Root {
    fn new(dir: &Path, tagged: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            tagged,
            unsynced: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    /// Makes the folder with its `tmp` and its tag, where they are not there.
    fn make(&self) -> Result<(), ContentError> {
        let tmp = self.dir.join(TMP);
        make_dir(&tmp).map_err(|error| ContentError::new("creating folder", &tmp, error))?;
        if self.tagged {
            let tag = self.dir.join("CACHEDIR.TAG");
            if !tag.exists() {
                match fs::write(&tag, CACHEDIR_TAG) {
                    Ok(()) => {}
                    // A courtesy to backup programs, which can wait for room.
                    Err(error) if is_no_space(&error) => drop(fs::remove_file(&tag)),
                    Err(error) => return Err(ContentError::new("writing", &tag, error)),
                }
            }
        }
        Ok(())
    }

    /// Puts the folder's own name, and those in it, on stable storage: bodies are synced together
    /// with the folder they are in, and with no other.
    fn sync_names(&self) -> Result<(), ContentError> {
        for dir in [Some(self.dir.as_path()), self.dir.parent()]
            .into_iter()
            .flatten()
        {
            sync_dir(dir).map_err(|error| ContentError::new("syncing folder", dir, error))?;
        }
        Ok(())
    }

    /// Removes what interrupted copies left behind.
    fn clear_tmp(&self) -> Result<(), ContentError> {
        let tmp = self.dir.join(TMP);
        let clear = || {
            for entry in fs::read_dir(&tmp)? {
                remove_if_there(&entry?.path())?;
            }
            Ok(())
        };
        clear().map_err(|error| ContentError::new("emptying", &tmp, error))
    }
}

/// The sub-folder of a body.
fn sub_dir(id: BodyId) -> String {
    format!("{:02x}", id.0 & 0xff)
}

/// Makes a folder and its parents.
fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Puts a folder's entries on stable storage.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a body for reading and writing; `None` when it is not there.
pub(crate) fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; tells whether it was there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Visits the body files of one sub-folder, which may be absent. Foreign files are skipped.
fn for_each_in(dir: &Path, visit: &mut impl FnMut(BodyId, &fs::Metadata)) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(parse_id) else {
            continue;
        };
        match entry.metadata() {
            Ok(metadata) => visit(id, &metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Parses a file name; only the spelling that [`BodyId`] prints is one.
fn parse_id(name: &str) -> Option<BodyId> {
    let id = BodyId(u64::from_str_radix(name, 16).ok()?);
    (id.to_string() == name).then_some(id)
}
