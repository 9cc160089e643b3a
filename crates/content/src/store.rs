//! The content cache and the spool as a whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use onedrivefs_core::kill_point;
use rangemap::RangeSet;
use tracing::{debug, warn};

use crate::layout::{Layout, PROVISIONAL_BIT, open_if_there, remove_if_there};
use crate::relocate::{Moves, relocate};
use crate::{Body, BodyId, ContentError, Place, Presence, fileops, ranges};

/// Bytes in the unit that `stat` counts allocated space in.
const STAT_BLOCK_BYTES: u64 = 512;
/// No body has this id; its name serves the probe at start.
const PROBE: BodyId = BodyId(u64::MAX);

/// The two folders of bodies of one drive. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    layout: Arc<Layout>,
    moves: Moves,
}

/// A body that was found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBody {
    /// Its identity.
    pub id: BodyId,
    /// Space it takes, in bytes.
    pub bytes_allocated: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Names the file has; more than one while it is being taken in.
    pub links: u64,
    /// Whether it may never have been recorded: see [`Content::duplicate`].
    pub provisional: bool,
}

impl Content {
    /// Opens both folders, creates what is absent of them, and finds out whether bodies can be
    /// renamed from one to the other.
    ///
    /// # Errors
    /// When a folder cannot be created or written.
    pub fn open(spool_dir: &Path, cache_dir: &Path) -> Result<Self, ContentError> {
        let layout = Layout::open(spool_dir, cache_dir)?;
        let moves = probe(&layout)?;
        debug!(?moves, "opened the spool and the content cache");
        Ok(Self {
            layout: Arc::new(layout),
            moves,
        })
    }

    /// Copies even where a rename would do.
    #[cfg(test)]
    pub(crate) fn copying(mut self) -> Self {
        self.moves = Moves::Copy;
        self
    }

    /// Creates an empty body, which is complete.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(&self, place: Place, id: BodyId) -> Result<Arc<Body>, ContentError> {
        self.create_sized(place, id, 0)
    }

    /// Creates a body in the spool with these bytes. It is provisional, as one from
    /// [`Content::duplicate`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create_provisional(&self, id: BodyId, bytes: &[u8]) -> Result<(), ContentError> {
        let path = self.layout.path(Place::Spool, id);
        let create = || {
            let mut file = self.layout.create_file(Place::Spool, &path)?;
            Layout::set_provisional(&file, true)?;
            kill_point("provisional-body-created");
            file.write_all(bytes)
        };
        create().map_err(|error| ContentError::new("creating", &path, error))
    }

    /// Says that a body in the spool is known by now that may be provisional.
    ///
    /// # Errors
    /// When the file is not there.
    pub fn confirm(&self, id: BodyId) -> Result<(), ContentError> {
        let path = self.layout.path(Place::Spool, id);
        let confirm = || Layout::set_provisional(&File::open(&path)?, false);
        confirm().map_err(|error| ContentError::new("confirming", &path, error))
    }

    /// Creates a body in the cache of which nothing is present.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_sparse(&self, id: BodyId, size: u64) -> Result<Arc<Body>, ContentError> {
        self.create_sized(Place::Cache, id, size)
    }

    /// Creates a body in the spool that equals another one, which may then be changed without
    /// touching that. `None` when the other holds more than `copy_max_bytes` and its file system
    /// cannot share blocks between files. It is provisional until [`Body::confirm`] is called, after
    /// the commit that makes it known: a copy that is left over by a crash is nobody's content.
    ///
    /// # Errors
    /// When the file cannot be created or the bytes cannot be copied.
    pub fn duplicate(
        &self,
        body: &Body,
        id: BodyId,
        copy_max_bytes: u64,
    ) -> Result<Option<Arc<Body>>, ContentError> {
        let state = body.shared.state.read();
        let path = self.layout.path(Place::Spool, id);
        let copy = || {
            let file = self.layout.create_file(Place::Spool, &path)?;
            Layout::set_provisional(&file, true)?;
            if fileops::share(&state.file, &file).is_ok() {
                return Ok(Some(file));
            }
            if ranges::total(state.present.iter()) > copy_max_bytes {
                return Ok(None);
            }
            file.set_len(state.size)?;
            for range in state.present.iter() {
                fileops::copy(&state.file, &file, range)?;
            }
            Ok(Some(file))
        };
        kill_point("before-body-duplicate");
        let copied = copy();
        kill_point("body-duplicated");
        if !matches!(copied, Ok(Some(_))) {
            // Best effort: a file that nobody knows is removed at the next start.
            let _left_behind = remove_if_there(&path);
        }
        let copied = copied.map_err(|error| ContentError::new("copying", &path, error))?;
        let made = copied.map(|file| {
            let layout = Arc::clone(&self.layout);
            let (size, present) = (state.size, state.present.clone());
            Arc::new(Body::new(layout, id, file, Place::Spool, size, present))
        });
        Ok(made)
    }

    /// Puts a body's bytes and its folder's entry on stable storage.
    ///
    /// # Errors
    /// When the system cannot.
    pub fn make_durable(&self, body: &Body) -> Result<(), ContentError> {
        let id = body.id();
        let place = body.place();
        body.sync_data()
            .map_err(|error| ContentError::new("syncing", &self.layout.path(place, id), error))?;
        self.sync_dir(place)?;
        // It may have been moved meanwhile.
        let now = body.place();
        if now == place {
            Ok(())
        } else {
            self.sync_dir(now)
        }
    }

    /// Moves the file of a body out of its folder, because nobody knows whether its bytes are what
    /// was written. Tells whether there was one.
    ///
    /// # Errors
    /// When it is there and cannot be moved.
    pub fn set_aside(&self, id: BodyId, to: &Path) -> Result<bool, ContentError> {
        for place in [Place::Spool, Place::Cache] {
            let path = self.layout.path(place, id);
            match fs::rename(&path, to) {
                Ok(()) => {
                    self.layout.mark_unsynced(place, &path);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ContentError::new("setting aside", &path, error)),
            }
        }
        Ok(false)
    }

    /// Makes a body in the spool of which nothing is present, in place of whatever has its name.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_unfilled(&self, id: BodyId, size: u64) -> Result<Arc<Body>, ContentError> {
        self.create_sized(Place::Spool, id, size)
    }

    /// A file without a name, for bytes of which nobody knows yet whether they are the right ones.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn nameless_file(&self) -> Result<File, ContentError> {
        let dir = self.layout.dir(Place::Spool);
        self.layout
            .nameless_file()
            .map_err(|error| ContentError::new("creating a file in", dir, error))
    }

    fn create_sized(&self, place: Place, id: BodyId, size: u64) -> Result<Arc<Body>, ContentError> {
        let path = self.layout.path(place, id);
        let create = || {
            kill_point("before-body-create");
            let file = self.layout.create_file(place, &path)?;
            kill_point("body-created-empty");
            // An empty file that is made empty is taken for one that is replaced: ext4 writes it to
            // the disk when it is closed.
            if size > 0 {
                file.set_len(size)?;
            }
            kill_point("body-created");
            Ok(file)
        };
        let file = create().map_err(|error| ContentError::new("creating", &path, error))?;
        let layout = Arc::clone(&self.layout);
        Ok(Arc::new(Body::new(
            layout,
            id,
            file,
            place,
            size,
            RangeSet::new(),
        )))
    }

    /// Opens a body that was created earlier. It is looked for in `place`, then in the other
    /// folder, because a daemon may have been killed between moving it and recording that;
    /// [`Body::place`] says where it is.
    ///
    /// A cached body must be `size` long or longer, in which case it is cut. A spool file is the
    /// only copy, so its own length counts, and bytes past `size` are local ones and present.
    ///
    /// `None` when the file is gone, or is a cached one that lost bytes.
    ///
    /// # Errors
    /// When the file is there and cannot be opened.
    pub fn load(
        &self,
        place: Place,
        id: BodyId,
        size: Option<u64>,
        present: Presence,
    ) -> Result<Option<Arc<Body>>, ContentError> {
        for place in [place, place.other()] {
            let path = self.layout.path(place, id);
            let loaded = self
                .load_from(place, id, size, &present)
                .map_err(|error| ContentError::new("opening", &path, error))?;
            if let Some(body) = loaded {
                return Ok(Some(Arc::new(body)));
            }
        }
        Ok(None)
    }

    fn load_from(
        &self,
        place: Place,
        id: BodyId,
        size: Option<u64>,
        present: &Presence,
    ) -> io::Result<Option<Body>> {
        let Some(file) = open_if_there(&self.layout.path(place, id))? else {
            return Ok(None);
        };
        let file_len = file.metadata()?.len();
        let recorded = size.unwrap_or(file_len);
        let len = match place {
            Place::Spool => file_len,
            Place::Cache => recorded,
        };
        if len > file_len {
            debug!(%id, len, file_len, "found a cached body too short");
            return Ok(None);
        }
        if len < recorded {
            warn!(%id, recorded, file_len, "found a spool body shorter than recorded");
        }
        if len < file_len {
            kill_point("before-body-cut");
            file.set_len(len)?;
            kill_point("body-cut");
        }
        let mut set = match present {
            Presence::Complete => std::iter::once(0..recorded)
                .filter(|r| !r.is_empty())
                .collect(),
            Presence::Ranges(set) => set.clone(),
        };
        ranges::insert(&mut set, recorded..len);
        let set = ranges::clipped(&set, &(0..len));
        let layout = Arc::clone(&self.layout);
        Ok(Some(Body::new(layout, id, file, place, len, set)))
    }

    /// Moves a body into the spool, because it is about to differ from the service's. Handles of
    /// it go on working. A body whose cache file was deleted is recovered from the open file.
    ///
    /// The new entry is on stable storage after [`Content::sync_dir`] of the spool.
    ///
    /// # Errors
    /// When it cannot be moved; it stays where it was.
    pub fn promote(&self, body: &Body) -> Result<(), ContentError> {
        relocate(&body.shared, Place::Spool, self.moves)
    }

    /// Moves a body into the cache, because the service has its bytes now.
    ///
    /// # Errors
    /// When it cannot be moved; it stays where it was.
    pub fn demote(&self, body: &Body) -> Result<(), ContentError> {
        relocate(&body.shared, Place::Cache, self.moves)
    }

    /// Takes a file from elsewhere into the spool as a body. The file stays where it was, too: as
    /// another name of the same bytes where the file system can do that. Elsewhere the body is a copy
    /// and provisional until [`Content::confirm`] is called.
    ///
    /// # Errors
    /// When it can be neither linked nor copied.
    pub fn take_in(&self, source: &Path, id: BodyId) -> Result<(), ContentError> {
        let path = self.layout.path(Place::Spool, id);
        self.layout
            .link(source, Place::Spool, &path)
            .map_err(|error| ContentError::new("taking in", &path, error))
    }

    /// Moves a body that nothing refers to out of the spool.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn move_out(&self, id: BodyId, target: &Path) -> Result<(), ContentError> {
        let path = self.layout.path(Place::Spool, id);
        fs::rename(&path, target).map_err(|error| ContentError::new("moving", &path, error))?;
        self.layout.mark_unsynced(Place::Spool, &path);
        Ok(())
    }

    /// Tells whether bodies keep their file when they move between the folders.
    #[must_use]
    pub fn moves_by_renaming(&self) -> bool {
        self.moves == Moves::Rename
    }

    /// Tells whether a body has a file in any of the folders.
    #[must_use]
    pub fn has_file(&self, id: BodyId) -> bool {
        let there = |place| self.layout.path(place, id).exists();
        there(Place::Spool) || there(Place::Cache)
    }

    /// Removes a body's file; handles of it go on working. It may be absent.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn remove(&self, place: Place, id: BodyId) -> Result<(), ContentError> {
        let path = self.layout.path(place, id);
        kill_point("before-body-remove");
        let removed =
            remove_if_there(&path).map_err(|error| ContentError::new("removing", &path, error))?;
        if removed {
            kill_point("body-removed");
            self.layout.mark_unsynced(place, &path);
        }
        Ok(())
    }

    /// All bodies of a folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, place: Place) -> Result<Vec<StoredBody>, ContentError> {
        let mut bodies = Vec::new();
        self.layout.for_each(place, |id, metadata| {
            bodies.push(StoredBody {
                id,
                bytes_allocated: metadata.blocks().saturating_mul(STAT_BLOCK_BYTES),
                len: metadata.len(),
                links: metadata.nlink(),
                provisional: metadata.mode() & PROVISIONAL_BIT != 0,
            });
        })?;
        Ok(bodies)
    }

    /// Space left in the file system of a folder, in bytes.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn free_bytes(&self, place: Place) -> Result<u64, ContentError> {
        self.layout.free_bytes(place)
    }

    /// Size of the file system of a folder, in bytes.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn disk_bytes(&self, place: Place) -> Result<u64, ContentError> {
        self.layout.disk_bytes(place)
    }

    /// Puts the entries of a folder, but not the bodies' bytes, on stable storage.
    ///
    /// # Errors
    /// When the system cannot; the next call tries again.
    pub fn sync_dir(&self, place: Place) -> Result<(), ContentError> {
        self.layout.sync(place)
    }
}

/// Tries a rename between the folders.
fn probe(layout: &Layout) -> Result<Moves, ContentError> {
    let from = layout.temp_path(Place::Spool, PROBE);
    let to = layout.temp_path(Place::Cache, PROBE);
    let attempt = || {
        layout.create_file(Place::Spool, &from)?;
        let renamed = fs::rename(&from, &to);
        remove_if_there(&from)?;
        remove_if_there(&to)?;
        renamed
    };
    match attempt() {
        Ok(()) => Ok(Moves::Rename),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(Moves::Copy),
        Err(error) => Err(ContentError::new(
            "probing",
            layout.dir(Place::Cache),
            error,
        )),
    }
}
