//! The rows of a tree: folders that group drives, and a shortcut for each drive.

use std::collections::HashMap;

use onedrivefs_core::{Ino, ItemId, Timestamp, name};
use onedrivefs_store::{Item, Kind, Remote, Role, StoreError, Tx};
use onedrivefs_sync::KernelChange;

use super::{GROUP, Leaf};

/// Longest name that is given, in bytes; room is left for a number.
const NAME_MAX: usize = 200;

/// Shows the drives and folders that were found, and no longer what is gone.
pub(super) fn show(
    tx: &Tx<'_>,
    leaves: &[Leaf],
    gone: &[Ino],
) -> Result<Vec<KernelChange>, StoreError> {
    let mut changes = Vec::new();
    for &ino in gone {
        let Some(item) = tx.item(ino)? else { continue };
        tx.delete_item(ino)?;
        changes.extend(item.parent.map(|parent| KernelChange::Deleted {
            parent,
            child: ino,
            name: item.name,
        }));
    }
    let mut shown = shown(tx)?;
    for leaf in leaves.iter().filter(|leaf| !leaf.is_file) {
        let folder = leaf.folder.as_ref().map(ItemId::key).unwrap_or_default();
        let by = shown.entry((leaf.drive.key(), folder));
        // The first way to a drive is the one that shows it.
        if by.or_insert_with(|| leaf.key.clone()) != &leaf.key {
            continue;
        }
        let parent = ensure_folders(tx, &leaf.folders, &mut changes)?;
        let shortcut = ensure(
            tx,
            parent,
            &leaf.name,
            &leaf.key,
            Role::Shortcut,
            &mut changes,
        )?;
        let folder = leaf.folder.clone().unwrap_or_else(|| ItemId::new(""));
        tx.follow(shortcut, &leaf.drive, &folder, leaf.kind)?;
    }
    Ok(changes)
}

/// What shows which folder of which drive, by the keys of all three.
fn shown(tx: &Tx<'_>) -> Result<HashMap<(String, String), String>, StoreError> {
    let mut shown = HashMap::new();
    for slot in tx.slots()? {
        let item = slot.ino.map(|ino| tx.item(ino)).transpose()?.flatten();
        if let Some(key) = item.as_ref().and_then(|item| item.item_id()) {
            let target = (slot.drive.key(), slot.item.key());
            shown.insert(target, key.as_str().to_owned());
        }
    }
    Ok(shown)
}

/// The folders that a drive or a file is shown in, made if need be.
pub(super) fn ensure_folders(
    tx: &Tx<'_>,
    folders: &[String],
    changes: &mut Vec<KernelChange>,
) -> Result<Ino, StoreError> {
    let mut parent = Ino::ROOT;
    let mut key = GROUP.to_owned();
    for folder in folders {
        key = format!("{key}/{folder}");
        parent = ensure(tx, parent, folder, &key, Role::Ordinary, changes)?;
    }
    Ok(parent)
}

/// The directory of this key, made if there is none. It keeps the name that it was given first.
fn ensure(
    tx: &Tx<'_>,
    parent: Ino,
    wanted: &str,
    key: &str,
    role: Role,
    changes: &mut Vec<KernelChange>,
) -> Result<Ino, StoreError> {
    let id = ItemId::new(key);
    if let Some(item) = tx.item_by_id(&id)? {
        return Ok(item.ino);
    }
    let name = free_name(tx, parent, &fit_name(wanted))?;
    let now = Timestamp::now();
    let mut item = Item::new(Kind::Directory, parent, &name, now);
    item.role = role;
    item.children_known = true;
    item.remote = Some(local_identity(key, Some(parent), &name));
    let ino = tx.insert_item(&item)?;
    changes.push(KernelChange::Entry { parent, name });
    Ok(ino)
}

/// The identity of a folder that only this machine knows.
pub(super) fn local_identity(key: &str, parent: Option<Ino>, name: &str) -> Remote {
    Remote {
        id: ItemId::new(key),
        parent,
        name: name.to_owned(),
        etag: None,
        ctag: None,
        hash: None,
        size: 0,
        mtime: Timestamp::now(),
        author: None,
    }
}

/// A name that can be one of an entry.
fn fit_name(wanted: &str) -> String {
    let harmless = |c: char| if c == '/' || c.is_control() { '_' } else { c };
    let mut fit: String = wanted.trim().chars().map(harmless).collect();
    while fit.len() > NAME_MAX {
        fit.pop();
    }
    if name::check_local(&fit).is_err() {
        return "_".to_owned();
    }
    fit
}

/// The name, or with a number behind it the first that nobody has.
fn free_name(tx: &Tx<'_>, parent: Ino, wanted: &str) -> Result<String, StoreError> {
    let mut name = wanted.to_owned();
    let mut number = 1;
    while tx.child(parent, &name)?.is_some() {
        number += 1;
        name = format!("{wanted} ({number})");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drives_become_names_of_folders() {
        assert_eq!(fit_name("Plans"), "Plans");
        assert_eq!(fit_name("a/b\n"), "a_b");
        for odd in ["", "  ", ".", ".."] {
            assert_eq!(fit_name(odd), "_");
        }
        assert!(fit_name(&"ü".repeat(300)).len() <= NAME_MAX);
    }
}
