//! Directories that a damaged state was moved into.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use onedrivefs_content::BodyId;
use onedrivefs_core::{Timestamp, kill_point};
use onedrivefs_store::{DAMAGE_MARK, DATABASE_FILES};

use crate::error::EngineError;

/// The directory of unsent bodies in a state directory.
pub(super) const SPOOL: &str = "spool";

/// Beginnings of the names of these directories: for a damaged database with its spool, and for
/// bodies that a sound database does not know.
const DAMAGED: &str = "meta.db.damaged-";
const STRAYS: &str = "spool.unknown-";

/// Says that not everything has been moved yet, and what was wrong.
const MOVING: &str = "moving";

/// Says what was wrong.
const REASON: &str = "reason";

/// Says that everything was taken in, and what the rest is.
const README: &str = "README.txt";

/// One such directory.
pub(super) struct Aside {
    dir: PathBuf,
}

/// A body in such a directory.
pub(super) struct FoundBody {
    pub(super) id: BodyId,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    /// Modification time in nanoseconds.
    pub(super) mtime: i64,
}

/// Says what the system could not do with a file.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> EngineError {
    move |source| EngineError::State {
        path: path.to_owned(),
        source,
    }
}

impl Aside {
    /// Makes one for a database and its spool.
    pub(super) fn begin_damaged(state_dir: &Path, reason: &str) -> Result<Self, EngineError> {
        let aside = Self::make(state_dir, DAMAGED)?;
        aside.write(MOVING, reason)?;
        sync_dir(&aside.dir)?;
        sync_dir(state_dir)?;
        Ok(aside)
    }

    /// Makes one for unknown bodies.
    pub(super) fn begin_strays(state_dir: &Path) -> Result<Self, EngineError> {
        let aside = Self::make(state_dir, STRAYS)?;
        aside.write(REASON, "the database does not know of this content")?;
        Ok(aside)
    }

    fn make(state_dir: &Path, kind: &str) -> Result<Self, EngineError> {
        let date = date(Timestamp::now());
        let mut n = 1;
        loop {
            let count = if n == 1 {
                String::new()
            } else {
                format!("-{n}")
            };
            let dir = state_dir.join(format!("{kind}{date}{count}"));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    kill_point("aside-made");
                    return Ok(Self { dir });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(error) => return Err(failed(&dir)(error)),
            }
        }
    }

    /// All of a state directory, oldest first.
    pub(super) fn list(state_dir: &Path) -> Result<Vec<Self>, EngineError> {
        let mut dirs = Vec::new();
        for entry in fs::read_dir(state_dir).map_err(failed(state_dir))? {
            let entry = entry.map_err(failed(state_dir))?;
            let name = entry.file_name();
            let ours = [DAMAGED, STRAYS]
                .into_iter()
                .any(|kind| name.to_string_lossy().starts_with(kind));
            if ours && entry.path().is_dir() {
                dirs.push(entry.path());
            }
        }
        dirs.sort();
        Ok(dirs.into_iter().map(|dir| Self { dir }).collect())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A name for it that no other one of the drive has at the same time.
    pub(super) fn key(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default();
        format!("rescued {}", name.to_string_lossy())
    }

    /// Whether it holds a database, damaged or not.
    pub(super) fn is_of_database(&self) -> bool {
        let name = self.dir.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(DAMAGED)
    }

    pub(super) fn is_moving(&self) -> bool {
        self.dir.join(MOVING).exists()
    }

    pub(super) fn is_done(&self) -> bool {
        self.dir.join(README).exists()
    }

    /// Removes it if there is nothing in it: it was made, and the daemon was killed before it said
    /// so. A second one was made then.
    pub(super) fn remove_unused(&self) {
        if fs::remove_dir(&self.dir).is_ok() {
            tracing::debug!(dir = %self.dir.display(), "A directory that nothing was moved into is removed.");
        }
    }

    /// What was wrong.
    pub(super) fn reason(&self) -> String {
        fs::read_to_string(self.dir.join(REASON)).unwrap_or_default()
    }

    /// Moves the spool and the database here, as far as they have not been yet. The spool goes
    /// first: without its database it would be found and set aside, but not the other way round.
    pub(super) fn move_state(&self, state_dir: &Path) -> Result<(), EngineError> {
        let names = [SPOOL]
            .into_iter()
            .chain(DATABASE_FILES)
            .chain([DAMAGE_MARK]);
        for name in names {
            let (from, to) = (state_dir.join(name), self.dir.join(name));
            match fs::rename(&from, &to) {
                Ok(()) => kill_point("state-part-set-aside"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&from)(error)),
            }
        }
        sync_dir(&self.dir)?;
        sync_dir(state_dir)?;
        let moving = self.dir.join(MOVING);
        fs::rename(&moving, self.dir.join(REASON)).map_err(failed(&moving))?;
        sync_dir(&self.dir)
    }

    /// The bodies here.
    pub(super) fn bodies(&self) -> Vec<FoundBody> {
        bodies_below(&self.dir.join(SPOOL))
    }

    /// Where a body goes here.
    pub(super) fn spool_path(&self, id: BodyId) -> Result<PathBuf, EngineError> {
        let dir = self.dir.join(SPOOL).join("00");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed(&dir))?;
        Ok(dir.join(id.to_string()))
    }

    /// Everything here was taken in: the bodies are elsewhere now. What remains of a database is
    /// kept for whoever wants to look at it.
    pub(super) fn empty(&self) -> Result<(), EngineError> {
        let spool = self.dir.join(SPOOL);
        match fs::remove_dir_all(&spool) {
            Ok(()) => kill_point("rescued-names-removed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&spool)(error)),
        }
        if self.is_of_database() {
            self.write(
                README,
                "onedrivefs found this database damaged and made a new one. Content that had not \
                 been uploaded was\ntaken over; `onedrivefs status` says where it is. This \
                 directory is not used any more and may be deleted.\n",
            )?;
        }
        // What a power cut brings back must not be taken in once more.
        sync_dir(&self.dir)
    }

    /// Removes what is left of one for unknown bodies.
    pub(super) fn leave(&self) -> Result<(), EngineError> {
        if self.is_of_database() {
            return Ok(());
        }
        fs::remove_dir_all(&self.dir).map_err(failed(&self.dir))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), EngineError> {
        let path = self.dir.join(name);
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed(&path))
    }
}

/// A time as people read it, fit for a file name.
pub(super) fn date(time: Timestamp) -> String {
    let text = time.to_service();
    let (day, clock) = text.split_once('T').unwrap_or((&text, ""));
    let clock: String = clock.chars().filter(char::is_ascii_digit).take(6).collect();
    format!("{day}-{clock}")
}

/// The bodies below a directory of bodies that hold anything. What cannot be looked at is skipped
/// and stays where it is.
pub(super) fn bodies_below(spool: &Path) -> Vec<FoundBody> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let mut bodies = Vec::new();
    for folder in entries(spool) {
        for entry in entries(&folder.path()) {
            let name = entry.file_name();
            let id = u64::from_str_radix(&name.to_string_lossy(), 16).map(BodyId);
            let (Ok(id), Ok(found)) = (id, entry.metadata()) else {
                continue;
            };
            if found.is_file() && found.len() > 0 && *name == *id.to_string() {
                bodies.push(FoundBody {
                    id,
                    path: entry.path(),
                    len: found.len(),
                    mtime: found
                        .mtime()
                        .saturating_mul(1_000_000_000)
                        .saturating_add(found.mtime_nsec()),
                });
            }
        }
    }
    bodies.sort_by_key(|body| body.id);
    bodies
}

fn sync_dir(dir: &Path) -> Result<(), EngineError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed(dir))
}
