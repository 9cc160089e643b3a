//! Attributes and lookups.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onedrivefs_core::Ino;
use onedrivefs_store::{Figures, Item, Kind, Role};
use tokio::time::Instant;

use crate::error::VfsError;
use crate::handle::FileState;
use crate::limits::check_length;
use crate::types::{Attr, Entry, FileKind, Outcome};
use crate::vfs::Vfs;

/// Unit of the `blocks` attribute, in bytes.
const STAT_BLOCK: u64 = 512;

/// Permission bits of a symbolic link, by tradition.
const LINK_MODE: u32 = 0o777;

impl From<Kind> for FileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Directory => Self::Directory,
            Kind::File => Self::File,
            Kind::Symlink => Self::Symlink,
        }
    }
}

impl Vfs {
    /// Finds an entry of a directory. `None` says that there certainly is none.
    ///
    /// # Errors
    /// `NotDirectory`; `NotUtf8` for a name that cannot be.
    pub fn lookup(
        self: &Arc<Self>,
        parent: Ino,
        name: &OsStr,
    ) -> Result<Outcome<Option<Entry>>, VfsError> {
        let name = name.to_str().ok_or(VfsError::NotUtf8)?;
        if let Some(found) = self.store().read(|r| r.child_figures(parent, name))? {
            return Ok(Outcome::Now(Some(self.entry_of(found))));
        }
        let directory = self.directory(parent)?;
        if directory.role == Role::Shortcut {
            return self.unfollowed(&directory);
        }
        let further = self.further.get();
        let further = further.and_then(|further| further(&directory, name));
        if directory.children_known && further.is_none() {
            check_length(name)?;
            self.absent.note(parent, name);
            return Ok(Outcome::Now(None));
        }
        let vfs = Arc::clone(self);
        let name = name.to_owned();
        Ok(Outcome::Later(Box::pin(async move {
            match further {
                Some(looking) => looking.await?,
                None => vfs.make_children_known(parent).await?,
            }
            let found = vfs.store().read(|r| r.child_figures(parent, &name))?;
            if found.is_none() {
                check_length(&name)?;
                vfs.absent.note(parent, &name);
            }
            Ok(found.map(|found| vfs.entry_of(found)))
        })))
    }

    /// What a name that was asked for stands for, and whether it is spelled as it was asked for.
    fn entry_of(&self, (figures, as_asked): (Figures, bool)) -> Entry {
        Entry {
            attr: self.attr_of_figures(&figures),
            other_spelling: !as_asked,
        }
    }

    /// Lists a directory on the service if need be. Each page has to come within the deadline for
    /// metadata, and the last one within that for reads. A listing that takes longer goes on, so
    /// that the next one who asks finds it done.
    pub(crate) async fn make_children_known(self: &Arc<Self>, ino: Ino) -> Result<(), VfsError> {
        let mut pages = self.engine.pages_of(ino);
        let engine = Arc::clone(&self.engine);
        let mut listing = self
            .runtime
            .spawn(async move { engine.list_children(ino).await });
        let config = &self.engine.config;
        let end = Instant::now() + config.first_byte_deadline.max(config.metadata_deadline);
        loop {
            let quiet = Instant::now() + config.metadata_deadline;
            tokio::select! {
                listed = &mut listing => {
                    let listed = listed.map_err(VfsError::io)?.map_err(VfsError::from);
                    if ino == Ino::ROOT && listed.is_err() && self.engine.is_denied() {
                        return Err(VfsError::AccessDenied);
                    }
                    if matches!(listed, Err(VfsError::Offline)) {
                        // It finds out whether that is still so.
                        self.engine.wake_freshness();
                    }
                    return listed;
                }
                Ok(()) = pages.changed() => {}
                () = tokio::time::sleep_until(quiet.min(end)) => return Err(VfsError::TimedOut),
            }
        }
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    /// `NotFound` for an inode that is gone.
    pub fn getattr(&self, ino: Ino) -> Result<Attr, VfsError> {
        match self.store().item(ino)? {
            Some(item) => Ok(self.attr_of(&item)),
            // Unlinked and sent, but still open.
            None => {
                let file = self.open_file(ino).ok_or(VfsError::NotFound)?;
                let mut state = file.state.lock();
                state.catch_up();
                Ok(self.overlay(&state.item, &state))
            }
        }
    }

    /// The attributes of an item, with what writers did since the last save.
    pub(crate) fn attr_of(&self, item: &Item) -> Attr {
        self.attr_of_figures(&Figures::from(item))
    }

    /// The attributes of what has these figures, with what writers did since the last save.
    pub(crate) fn attr_of_figures(&self, figures: &Figures) -> Attr {
        let mut attr = self.plain_attr(figures);
        if figures.kind != Kind::File {
            attr.edition = self.edition(figures.ino);
            return attr;
        }
        let ino = figures.ino;
        loop {
            let (edition, open) = self.present_edition(ino);
            if edition == 0 && open.is_none() {
                return attr;
            }
            // Read anew, lest the attributes of one edition go out for another.
            let row = || {
                let row = self.store().item(ino).ok().flatten();
                row.map_or(*figures, |row| Figures::from(&*row))
            };
            attr = match open {
                Some(file) => {
                    let mut state = file.state.lock();
                    state.catch_up();
                    // Not before: what a save has just recorded is not to be told by the row of
                    // before it.
                    let row = row();
                    let used = file.used.load(Ordering::Relaxed);
                    if used && self.engine.is_unannounced(ino) {
                        // The new content is about to become the next edition.
                        self.overlay(&state.item, &state)
                    } else {
                        self.overlay_figures(row, &state)
                    }
                }
                None => self.plain_attr(&row()),
            };
            attr.edition = edition;
            if self.edition(ino) == edition {
                return attr;
            }
        }
    }

    /// The attributes of an open file.
    pub(crate) fn overlay(&self, item: &Item, state: &FileState) -> Attr {
        self.overlay_figures(Figures::from(item), state)
    }

    fn overlay_figures(&self, mut figures: Figures, state: &FileState) -> Attr {
        if let Some(body) = state.body.as_ref().filter(|_| state.dirty) {
            figures.size = body.size();
        }
        figures.mtime = state.mtime.unwrap_or(figures.mtime);
        self.plain_attr(&figures)
    }

    fn plain_attr(&self, figures: &Figures) -> Attr {
        let default_mode = match figures.kind {
            Kind::Directory => self.options.dir_mode,
            Kind::File => self.options.file_mode,
            Kind::Symlink => LINK_MODE,
        };
        Attr {
            ino: self.number_of(figures),
            edition: 0,
            kind: figures.kind.into(),
            size: figures.size,
            blocks: figures.size.div_ceil(STAT_BLOCK),
            atime: figures.atime,
            mtime: figures.mtime,
            ctime: figures.ctime.max(figures.mtime),
            btime: figures.btime,
            perm: u16::try_from(figures.mode.unwrap_or(default_mode) & 0o777).unwrap_or(0),
            // 1 for directories as well: it says that the number of sub-folders is not told, so
            // that find(1) looks into all of them.
            nlink: u32::from(figures.has_name || figures.ino == Ino::ROOT),
            uid: self.options.uid,
            gid: self.options.gid,
        }
    }
}
