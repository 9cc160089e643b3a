//! All drives of an account under one mount: `onedrivefs mount --tree`.
//!
//! The root and the folders that group the drives are of no drive. They are rows of a database of
//! their own, whose engine asks the service for single files only, and nobody may change them. Each drive
//! in them is what a shortcut is in an ordinary mount: a slot that is served from the first look into
//! it. A single file that somebody shared is a row of that database like any file. What there is to be
//! shown is asked for now and then; where that fails, all stays as it was.
//!
//! A mount of a single file is the same, with nothing else in it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::{DriveId, DriveKind, Ino, ItemId, LinkTarget, Quota, Timestamp, name};
use onedrivefs_graph::{Feature, GraphClient, GraphError};
use onedrivefs_store::{Item, Kind, Remote, Role, StoreError, Tx};
use onedrivefs_sync::{Engine, KernelChange};

use crate::account::{self, AccountRecord, DriveRecord, FolderRecord, SignInKind};
use crate::config::Layer;
use crate::failure::{Failure, Outcome};
use crate::paths::{AccountName, Dirs};
use crate::places::{self, Found, Place, Way};

/// Pause between two looks what there is.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The same after one that failed, in whole or in part.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Longest wait of a mount for the first look, when nothing is known yet.
const FIRST_LOOK: Duration = Duration::from_secs(15);

/// Longest name that is given, in bytes; room is left for a number.
const NAME_MAX: usize = 200;

/// The name of the person's own drive.
const OWN: &str = "My files";

/// The id of the root, which only this machine knows.
const ROOT: &str = "root:";

/// Begins the keys of folders that group drives.
const GROUP: &str = "group:";

/// What stands in the place of a drive for the root.
pub(crate) fn root() -> DriveRecord {
    DriveRecord {
        id: DriveId::new("tree"),
        kind: DriveKind::Business,
        name: "All drives".to_owned(),
        own: false,
        mailbox: None,
        site: None,
        site_default: false,
    }
}

/// A drive or a shared folder, and where it is shown.
#[derive(Debug)]
struct Leaf {
    /// What it is recognised by. The words before the first colon say how it was found.
    key: String,
    /// The folders it is in.
    folders: Vec<String>,
    name: String,
    drive: DriveId,
    /// The folder, or the file, if it is not the whole drive.
    folder: Option<ItemId>,
    is_file: bool,
    kind: Option<DriveKind>,
    quota: Option<Quota>,
}

/// What a look found, and in which ways nothing was left out.
#[derive(Default)]
struct Looked {
    leaves: Vec<Leaf>,
    whole: HashSet<&'static str>,
    failed: bool,
}

/// Keeps the root of a mount up to date.
pub(crate) struct Tree {
    /// Of the root.
    pub(crate) engine: Arc<Engine>,
    /// The way to the service.
    pub(crate) graph: GraphClient,
    /// Where the account's record lies.
    pub(crate) dirs: Dirs,
    /// Settings.
    pub(crate) config: Layer,
    /// The account.
    pub(crate) account: AccountName,
    /// The one file that is shown, with its drive, where that is all.
    pub(crate) only: Option<(DriveId, FolderRecord)>,
}

impl Tree {
    /// Makes the root ready to be looked into. If nothing is known of what is to be in it, that is
    /// waited for, but not for long.
    pub(crate) async fn prepare(&self) -> Outcome {
        let known = self.engine.store.write(|tx| {
            if let Some(mut root) = tx.item(Ino::ROOT)? {
                root.children_known = true;
                root.remote = Some(local_identity(ROOT, None, ""));
                tx.update_item(&root)?;
            }
            tx.has_children(Ino::ROOT)
        });
        let known = known.map_err(|error: StoreError| {
            Failure::because("mounting all drives", error).next("run `onedrivefs doctor`")
        })?;
        if !known {
            let looking = tokio::time::timeout(FIRST_LOOK, self.look());
            let _shown_later = looking.await;
        }
        Ok(())
    }

    /// Looks now and then what there is, for as long as the mount lasts.
    pub(crate) async fn run(self) {
        loop {
            let complete = self.look().await;
            let pause = if complete { LOOK_EVERY } else { LOOK_AGAIN };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks what there is and shows it. Tells whether nothing was left out.
    async fn look(&self) -> bool {
        if let Some((drive, file)) = &self.only {
            return self.show_file(&only_leaf(drive, file)).await;
        }
        let record = match account::known(&self.dirs, &self.config, &self.account) {
            Ok(Some(record)) => record,
            Ok(None) => return false,
            Err(failure) => {
                tracing::warn!(why = failure.sentence(), "The account could not be read");
                return false;
            }
        };
        let looked = self.find(&record).await;
        let complete = !looked.failed;
        let gone = match self.gone(&looked).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::debug!(%error, "What is not listed any more could not be asked for.");
                Vec::new()
            }
        };
        let quotas = looked.leaves.iter().filter_map(|leaf| leaf.quota);
        let sum = quotas.reduce(|sum, one| Quota {
            total: sum.total.saturating_add(one.total),
            used: sum.used.saturating_add(one.used),
        });
        if sum.is_some() {
            self.engine.set_quota(sum);
        }
        match self
            .engine
            .store
            .write(|tx| show(tx, &looked.leaves, &gone))
        {
            Ok(changes) => self.engine.tell_kernel(changes),
            Err::<_, StoreError>(error) => {
                tracing::warn!(%error, "What there is could not be noted");
                return false;
            }
        }
        let mut complete = complete & self.look_for_lost_files(&looked).await;
        for leaf in looked.leaves.iter().filter(|leaf| leaf.is_file) {
            complete &= self.show_file(leaf).await;
        }
        complete
    }

    /// Shows a single file. Tells whether that went well, also if there is nothing to show.
    async fn show_file(&self, leaf: &Leaf) -> bool {
        let Some(item) = leaf.folder.clone() else {
            return true;
        };
        let mut changes = Vec::new();
        let folder = self.engine.store.write(|tx| {
            let folder = ensure_folders(tx, &leaf.folders, &mut changes)?;
            let folder = tx.item(folder)?;
            Ok::<_, StoreError>(folder.and_then(|folder| folder.item_id().cloned()))
        });
        self.engine.tell_kernel(changes);
        let folder = match folder {
            Ok(folder) => folder.unwrap_or_else(|| ItemId::new(ROOT)),
            Err(error) => {
                tracing::warn!(%error, "What there is could not be noted");
                return false;
            }
        };
        let target = LinkTarget {
            drive: leaf.drive.clone(),
            item,
            read_only: false,
        };
        let id = ItemId::new(&*leaf.key);
        match self.engine.show_file(&folder, &id, target).await {
            Ok(()) => true,
            // Not everything that is listed can be seen.
            Err(error) if error.is_denied() || error.is_not_found() => true,
            Err(error) => {
                tracing::info!(name = leaf.name, %error, "A shared file could not be shown");
                false
            }
        }
    }

    /// Looks at single files that are shown and were not found any more. Tells whether all could be
    /// asked for.
    async fn look_for_lost_files(&self, looked: &Looked) -> bool {
        if !looked.whole.contains("shared") {
            return true;
        }
        let found: HashSet<&str> = looked.leaves.iter().map(|leaf| leaf.key.as_str()).collect();
        let lost = self.engine.store.read(|r| {
            let mut lost = Vec::new();
            for (id, _) in r.links()? {
                if !found.contains(id.as_str()) {
                    lost.extend(r.item_by_id(&id)?);
                }
            }
            Ok::<_, StoreError>(lost)
        });
        for file in lost.unwrap_or_default() {
            if let Err(error) = self.engine.look_whether_gone(file.ino).await {
                tracing::debug!(%error, "A file that is not listed any more could not be asked for.");
                return false;
            }
        }
        true
    }

    async fn find(&self, record: &AccountRecord) -> Looked {
        let graph = &self.graph;
        let may = record.permissions();
        let mut looked = Looked::default();
        if record.sign_in == SignInKind::Person {
            looked.add(&["own", "listed"], places::own(graph).await);
            if may.allow(Feature::ReadOthers) {
                looked.add(&["shared"], places::shared(graph, record).await);
            }
        }
        if may.is_known() && may.allow(Feature::Sites) {
            looked.add(&["site"], places::sites(graph, "*").await);
        }
        if may.is_known() && may.allow(Feature::Teams) {
            looked.add(&["team"], places::teams(graph, record).await);
        }
        if record.sign_in == SignInKind::App && may.allow(Feature::Users) {
            self.find_people(&mut looked).await;
        }
        looked
    }

    /// The drives of the people of the organisation. Whoever was seen before is not asked for again.
    async fn find_people(&self, looked: &mut Looked) {
        let people = match self.graph.users().await {
            Ok(people) => people,
            Err(error) => return looked.miss("the people of the organisation", &error),
        };
        let mut whole = true;
        for person in people {
            let name = person.user_principal_name.unwrap_or(person.id.clone());
            let key = format!("user:{}", person.id);
            let known = self
                .engine
                .store
                .read(|r| r.item_by_id(&ItemId::new(&*key)));
            let shown = match known {
                Ok(Some(item)) => self.engine.store.read(|r| match r.slot_of(item.ino)? {
                    Some(slot) => r.slot(slot),
                    None => Ok::<_, StoreError>(None),
                }),
                _ => Ok(None),
            };
            let drive = match shown {
                Ok(Some(slot)) => Ok((slot.drive, slot.kind, None)),
                _ => {
                    let drive = self.graph.user_drive(&person.id).await;
                    drive.map(|drive| (drive.id, Some(drive.kind), drive.quota))
                }
            };
            match drive {
                Ok((drive, kind, quota)) => looked.leaves.push(Leaf {
                    key,
                    folders: vec!["Users".to_owned()],
                    name,
                    drive,
                    folder: None,
                    is_file: false,
                    kind,
                    quota,
                }),
                // Not everybody has a drive.
                Err(error) if error.is_unprovisioned() || error.is_not_found() => {}
                Err(error) => {
                    whole = false;
                    looked.miss(&name, &error);
                }
            }
        }
        if whole {
            looked.whole.insert("user");
        }
    }

    /// What is shown and was not found any more: only what the service confirms to be gone.
    async fn gone(&self, looked: &Looked) -> Result<Vec<Ino>, GraphError> {
        let found: HashSet<&str> = looked.leaves.iter().map(|leaf| leaf.key.as_str()).collect();
        let shown = self.engine.store.read(|r| {
            let mut shown = Vec::new();
            for slot in r.slots()? {
                let item = slot.ino.map(|ino| r.item(ino)).transpose()?.flatten();
                shown.extend(item.map(|item| (slot, item)));
            }
            Ok::<_, StoreError>(shown)
        });
        let mut gone = Vec::new();
        for (slot, item) in shown.unwrap_or_default() {
            let key = item.item_id().map_or("", ItemId::as_str);
            let way = key.split(':').next().unwrap_or_default();
            if found.contains(key) || !looked.whole.contains(way) {
                continue;
            }
            let asked = match slot.item.as_str() {
                "" => self.graph.drive(&slot.drive).await.map(drop),
                _ => self.graph.item(&slot.drive, &slot.item).await.map(drop),
            };
            match asked {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.status() == Some(403) => {
                    gone.push(item.ino);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}

impl Looked {
    /// Adds a search, which found what there is in some ways.
    fn add(&mut self, ways: &[&'static str], found: Outcome<Found>) {
        match found {
            Ok(found) => {
                if found.missing.is_empty() {
                    self.whole.extend(ways);
                } else {
                    self.failed = true;
                }
                for missing in &found.missing {
                    tracing::info!(missing, "Not all of what there is could be listed");
                }
                self.leaves.extend(found.places.into_iter().map(leaf));
            }
            Err(failure) => {
                self.failed = true;
                tracing::info!(
                    why = failure.sentence(),
                    "Not all of what there is could be listed"
                );
            }
        }
    }

    fn miss(&mut self, what: &str, error: &GraphError) {
        self.failed = true;
        tracing::info!(what, %error, "Not all of what there is could be listed");
    }
}

/// The only thing that is shown.
fn only_leaf(drive: &DriveId, file: &FolderRecord) -> Leaf {
    Leaf {
        key: format!("file:{}:{}", drive.key(), file.id.key()),
        folders: Vec::new(),
        name: file.name.clone(),
        drive: drive.clone(),
        folder: Some(file.id.clone()),
        is_file: true,
        kind: None,
        quota: None,
    }
}

/// Where a place is shown.
fn leaf(place: Place) -> Leaf {
    let (folders, name) = match place.way {
        Way::Own => (Vec::new(), OWN.to_owned()),
        Way::Listed => (vec!["Drives".to_owned()], place.name),
        Way::Shared => (vec!["Shared".to_owned()], place.name),
        Way::Team => (vec!["Teams".to_owned()], place.name),
        Way::Site => {
            let site = place.site.as_deref().unwrap_or("Site");
            (vec!["Sites".to_owned(), site_name(site)], place.name)
        }
    };
    let folder = place.folder.as_ref().map_or("", ItemId::as_str);
    Leaf {
        key: format!("{}:{}:{folder}", place.way.word(), place.drive.key()),
        folders,
        name,
        kind: place.info.as_ref().map(|info| info.kind),
        quota: place.info.and_then(|info| info.quota),
        drive: place.drive,
        folder: place.folder,
        is_file: place.is_file,
    }
}

/// What a site is called: the last part of its address, or all that is known of it.
fn site_name(site: &str) -> String {
    let last = site.trim_end_matches('/').rsplit('/').next();
    last.filter(|last| !last.is_empty())
        .unwrap_or(site)
        .to_owned()
}

/// Shows what was found, and no longer what is gone.
fn show(tx: &Tx<'_>, leaves: &[Leaf], gone: &[Ino]) -> Result<Vec<KernelChange>, StoreError> {
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
    let mut seen = HashSet::new();
    for leaf in leaves {
        let target = (leaf.drive.key(), leaf.folder.as_ref().map(ItemId::key));
        // The first way to a drive is the one that shows it.
        if !seen.insert(target) {
            continue;
        }
        if leaf.is_file {
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

/// The folders that a drive or a file is shown in, made if need be.
fn ensure_folders(
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
fn local_identity(key: &str, parent: Option<Ino>, name: &str) -> Remote {
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
        assert_eq!(site_name("https://x.example/sites/team/"), "team");
        assert_eq!(site_name("Team"), "Team");
    }
}
