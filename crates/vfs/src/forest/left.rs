//! Folders of other drives that nothing shows any more, while something waits in them: the paths by
//! which commands name what is in them, and how all that waits comes to be listed.

use std::collections::HashSet;

use onedrivefs_core::Ino;
use onedrivefs_store::{Reader, Slot, SlotState, StoreError};
use onedrivefs_sync::Engine;

use super::Forest;

/// Why a change waits for a person in a folder that is neither shown nor to be seen on the service.
const OUT_OF_SIGHT: &str = "nothing shows this folder any more, and the service does not let this \
                            account see it";

impl Forest {
    /// The folders that nothing shows any more, each with the path by which commands name it. It is
    /// where it was shown last, with words behind that no other folder has there.
    pub(super) fn left(&self) -> Result<Vec<(Slot, String)>, StoreError> {
        self.main.store().read(|r| {
            let slots = r.slots()?.into_iter();
            let mut taken = HashSet::new();
            let mut left = Vec::new();
            for slot in slots.filter(|slot| slot.state == SlotState::Left) {
                let path = free_path(r, &slot, &taken)?;
                taken.insert(path.clone());
                left.push((slot, path));
            }
            Ok(left)
        })
    }

    /// The slot of a folder that nothing shows any more in which a path is, and the path there.
    pub(super) fn in_left(&self, path: &str) -> Result<Option<(u32, String)>, StoreError> {
        let path = path.trim_matches('/');
        let found = self.left()?.into_iter().find_map(|(slot, top)| {
            let rest = path.strip_prefix(&top)?;
            let inside = rest.is_empty() || rest.starts_with('/');
            inside.then(|| (slot.number, format!("/{}", rest.trim_start_matches('/'))))
        });
        Ok(found)
    }

    /// The path by which commands name a folder that nothing shows any more.
    pub(super) fn left_path(&self, slot: u32) -> Option<String> {
        let left = self.left().ok()?;
        let found = left.into_iter().find(|(one, _)| one.number == slot);
        found.map(|(_, path)| path)
    }

    /// Takes in folders that are on this disk and in no slot, since the database with the slots was
    /// built anew: what waits in them would be out of reach. Those that a shortcut shows are found by it
    /// sooner or later.
    pub(super) fn take_in_strays(&self) -> Result<(), StoreError> {
        let Some(nursery) = &self.nursery else {
            return Ok(());
        };
        let slots = self.main.store().read(|r| r.slots())?;
        for stray in nursery.strays(&slots) {
            self.main.store().write(|tx| {
                let known = |slot: &Slot| {
                    slot.drive == stray.drive
                        && slot.item == stray.item
                        && slot.above == stray.above
                };
                // A shortcut may have been found meanwhile.
                if tx.slots()?.iter().any(known) {
                    return Ok::<_, StoreError>(());
                }
                tx.take_in(&stray)
            })?;
            let (drive, item) = (&stray.drive, &stray.item);
            tracing::warn!(%drive, %item, "Changes wait in a folder that nothing shows any more.");
        }
        Ok(())
    }
}

/// A path for a folder that nothing shows any more: nothing in the mount has it.
fn free_path(r: &Reader<'_>, slot: &Slot, taken: &HashSet<String>) -> Result<String, StoreError> {
    let last = slot.last_path.as_deref().filter(|path| !path.is_empty());
    let last = last.map_or_else(|| format!("Folder {}", slot.number), str::to_owned);
    let mut number = 1;
    loop {
        let path = match number {
            1 => format!("{last} (not shown any more)"),
            _ => format!("{last} (not shown any more, {number})"),
        };
        if !taken.contains(&path) && !exists(r, &path)? {
            return Ok(path);
        }
        number += 1;
    }
}

fn exists(r: &Reader<'_>, path: &str) -> Result<bool, StoreError> {
    let mut at = Ino::ROOT;
    for name in path.split('/') {
        let Some(item) = r.child(at, name)? else {
            return Ok(false);
        };
        at = item.ino;
    }
    Ok(true)
}

/// Has what waits in a folder that nothing shows any more wait for a person, where the service does
/// not let it be sent: nobody would learn of it otherwise, nor could do anything about it.
pub(super) fn give_to_a_person(engine: &Engine) {
    if !engine.is_denied() && !engine.is_folder_gone() {
        return;
    }
    match engine.park_all(OUT_OF_SIGHT) {
        Ok(0) => {}
        Ok(changes) => tracing::warn!(
            drive = %engine.config.drive.id,
            changes,
            "Changes in a folder that nothing shows any more cannot be sent and wait for a person."
        ),
        Err(error) => tracing::warn!(%error, "What cannot be sent could not be noted."),
    }
}
