//! Where things are in the mount, across drives.

use std::collections::HashMap;
use std::sync::Arc;

use onedrivefs_core::Ino;
use onedrivefs_store::{Slot, SlotState, StoreError};
use onedrivefs_sync::{Engine, EngineError, Event};

use super::Forest;
use crate::error::VfsError;
use crate::graft::{MAIN, number, split};
use crate::types::FileKind;

/// A folder of another drive that the mount shows, or did.
pub struct Followed {
    /// Which one.
    pub slot: Slot,
    /// Where it is shown; `None` when nothing shows it any more.
    pub path: Option<String>,
    /// The path by which commands name it then.
    pub left_path: Option<String>,
    /// What serves it, if anything does.
    pub engine: Option<Arc<Engine>>,
}

impl Followed {
    /// The path by which commands name it.
    #[must_use]
    pub fn top(&self) -> &str {
        let path = self.path.as_deref().or(self.left_path.as_deref());
        path.unwrap_or_default()
    }
}

impl Forest {
    /// What has exactly this name in a directory, as far as is known here.
    #[must_use]
    pub fn kind_at(&self, parent: Ino, name: &str) -> Option<FileKind> {
        let spot = self.within_now(parent).ok()?;
        spot.vfs.kind_at(spot.ino, name)
    }

    /// The directory and the name of something that has one.
    #[must_use]
    pub fn place_of(&self, thing: Ino) -> Option<(Ino, String)> {
        let spot = self.about(thing).ok()?;
        let (parent, name) = spot.vfs.place_of(spot.ino)?;
        Some((spot.vfs.shown(parent), name))
    }

    /// The path of something from the root, without a slash at its beginning.
    #[must_use]
    pub fn path_of(&self, thing: Ino) -> Option<String> {
        let (slot, ino) = split(thing);
        if slot == MAIN {
            return self.main.path_of(ino);
        }
        let shortcut = self.main.store().read(|r| r.slot(slot)).ok()??.ino?;
        let top = self.path_of(shortcut)?;
        if ino == Ino::ROOT {
            return Some(top);
        }
        let spot = self.within_now(thing).ok()?;
        Some(format!("{top}/{}", spot.vfs.path_of(ino)?))
    }

    /// An event in a drive, with paths in the mount.
    pub(super) fn as_seen(&self, slot: u32, event: Event) -> Event {
        let top = match slot {
            MAIN => None,
            _ => self
                .path_of(number(slot, Ino::ROOT))
                .or_else(|| self.left_path(slot)),
        };
        let full = |path: String| match &top {
            Some(top) => join(top, &path),
            None => path,
        };
        match event {
            Event::Parked { path, reason } => Event::Parked {
                path: full(path),
                reason,
            },
            Event::ConflictCopy { path, copy } => Event::ConflictCopy {
                path: full(path),
                copy: full(copy),
            },
            held @ Event::DeletionsHeld { .. } => held,
        }
    }

    /// The folders of other drives, with where they are shown.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn followed(&self) -> Result<Vec<Followed>, StoreError> {
        let slots = self.main.store().read(|r| r.slots())?;
        let left: HashMap<u32, String> = self
            .left()?
            .into_iter()
            .map(|(slot, path)| (slot.number, path))
            .collect();
        let planted: HashMap<u32, Arc<Engine>> = {
            let planted = self.planted.read();
            let engines = planted.iter();
            engines
                .map(|(slot, vfs)| (*slot, Arc::clone(vfs.engine())))
                .collect()
        };
        let own = &self.main.engine().config.drive.id;
        let is_shown = |slot: &Slot| match slot.ino.map(|ino| split(ino).0) {
            _ if slot.above.is_empty() => slot.drive != *own,
            // A shortcut in a folder that nobody has looked into since the start leads nowhere yet.
            Some(host) => planted.contains_key(&host),
            None => true,
        };
        let followed = slots
            .into_iter()
            .filter(|slot| slot.state != SlotState::Discarded && is_shown(slot));
        Ok(followed
            .map(|slot| Followed {
                engine: planted.get(&slot.number).cloned(),
                path: self.path_of(number(slot.number, Ino::ROOT)),
                left_path: left.get(&slot.number).cloned(),
                slot,
            })
            .collect())
    }

    /// The engine in whose drive a path is, and the path there. A folder that is not served yet
    /// begins to be. Waits for the local disk.
    ///
    /// # Errors
    /// Errors of the database and of the local disk.
    pub fn route(self: &Arc<Self>, path: &str) -> Result<(Arc<Engine>, String), EngineError> {
        if let Some((slot, inside)) = self.in_left(path)? {
            let left = self.plant(slot).map_err(as_engine_error)?;
            return Ok((Arc::clone(left.engine()), inside));
        }
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let (mut vfs, mut inside) = (Arc::clone(&self.main), path.to_owned());
        let mut at = Ino::ROOT;
        for (depth, name) in names.iter().enumerate() {
            let Some(item) = vfs.store().read(|r| r.child(at, name))? else {
                break;
            };
            at = item.ino;
            if let Some(slot) = vfs.graft(&item) {
                vfs = self.plant(slot).map_err(as_engine_error)?;
                inside = format!("/{}", names[depth + 1..].join("/"));
                at = Ino::ROOT;
            }
        }
        Ok((Arc::clone(vfs.engine()), inside))
    }

    /// The path in the mount of something in a drive that is being served.
    #[must_use]
    pub fn full_path(&self, engine: &Arc<Engine>, path: &str) -> String {
        let followed = self.followed().unwrap_or_default();
        let is_here = |one: &&Followed| {
            let own = one.engine.as_ref();
            own.is_some_and(|own| Arc::ptr_eq(own, engine))
        };
        match followed.iter().find(is_here) {
            Some(shown) => join(shown.top(), path),
            None => path.to_owned(),
        }
    }
}

/// A path below another, both without a slash at the beginning.
fn join(top: &str, path: &str) -> String {
    match path.trim_start_matches('/') {
        "" => top.to_owned(),
        path => format!("{top}/{path}"),
    }
}

/// What planting failed with, for whoever knows engines only.
fn as_engine_error(error: VfsError) -> EngineError {
    EngineError::NotServed {
        reason: error.to_string(),
    }
}
