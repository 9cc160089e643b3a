//! All drives of an account under one mount: `onedrivefs mount --tree`.
//!
//! The root and the folders that group the drives are of no drive. They are rows of a database of
//! their own, whose engine asks the service for single files only, and nobody may change them. Each drive
//! in them is what a shortcut is in an ordinary mount: a slot that is served from the first look into
//! it. A single file that somebody shared is a row of that database like any file. What there is to be
//! shown is asked for now and then; where that fails, all stays as it was.
//!
//! A mount of a single file is the same, with nothing else in it.

mod by_name;
mod files;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::{DriveId, DriveKind, Ino, ItemId, Quota};
use onedrivefs_graph::{Feature, GraphClient, GraphError};
use onedrivefs_store::StoreError;
use onedrivefs_sync::Engine;
use parking_lot::Mutex;

use self::by_name::Hosts;
use crate::account::{self, AccountRecord, DriveRecord, FolderRecord, SignInKind};
use crate::config::Layer;
use crate::daemon::Plan;
use crate::failure::{Failure, Outcome};
use crate::paths::{AccountName, Dirs};
use crate::places::{self, Found, Place, Way};

/// Pause between two looks what there is.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The same after one that failed, in whole or in part. It doubles while that goes on.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Most sites that are shown unless the configuration says otherwise: each is asked for its libraries
/// at every look.
const SITES_MAX: u32 = 200;

/// Longest wait of a mount for the first look, when nothing is known yet.
const FIRST_LOOK: Duration = Duration::from_secs(15);

/// The name of the person's own drive.
const OWN: &str = "My files";

/// The id of the root, which only this machine knows.
const ROOT: &str = "root:";

/// Begins the keys of folders that group drives.
const GROUP: &str = "group:";

/// The folder of sites.
const SITES: &str = "Sites";

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
    /// That there is more than is shown.
    cut: Option<String>,
    /// The addresses of sites.
    sites: Vec<String>,
}

/// What people are told about a tree beside what is in it.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Option<String>>>);

impl Notes {
    /// A sentence, if there is anything to tell.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn set(&self, text: Option<String>) {
        let mut now = self.0.lock();
        if *now != text {
            if let Some(text) = &text {
                tracing::warn!("{text}");
            }
            *now = text;
        }
    }
}

/// Keeps the root of a mount up to date.
#[derive(Clone)]
pub(crate) struct Tree {
    /// Of the root.
    engine: Arc<Engine>,
    graph: GraphClient,
    /// Where the account's record lies.
    dirs: Dirs,
    config: Layer,
    account: AccountName,
    /// The one file that is shown, with its drive, where that is all.
    only: Option<(DriveId, FolderRecord)>,
    /// What is told in `status`.
    pub(crate) notes: Notes,
    hosts: Hosts,
}

impl Tree {
    /// For the root of a mount.
    pub(crate) fn new(engine: &Arc<Engine>, plan: &Plan) -> Self {
        let file = plan.folder.clone().filter(|_| plan.is_file);
        Self {
            engine: Arc::clone(engine),
            graph: plan.graph.clone(),
            dirs: plan.dirs.clone(),
            config: plan.config.clone(),
            account: plan.account.clone(),
            only: file.map(|file| (plan.drive.id.clone(), file)),
            notes: Notes::default(),
            hosts: Hosts::default(),
        }
    }

    /// Makes the root ready to be looked into. If nothing is known of what is to be in it, that is
    /// waited for, but not for long.
    pub(crate) async fn prepare(&self) -> Outcome {
        let known = self.engine.store.write(|tx| {
            if let Some(mut root) = tx.item(Ino::ROOT)? {
                root.children_known = true;
                root.remote = Some(rows::local_identity(ROOT, None, ""));
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
        let mut again = LOOK_AGAIN;
        loop {
            let complete = self.look().await;
            let pause = if complete { LOOK_EVERY } else { again };
            again = match complete {
                true => LOOK_AGAIN,
                false => (again * 2).min(LOOK_EVERY),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Somebody signed in, perhaps with other permissions.
                () = self.engine.look_wanted() => again = LOOK_AGAIN,
            }
        }
    }

    /// Looks what there is and shows it. Tells whether nothing was left out.
    async fn look(&self) -> bool {
        if let Some((drive, file)) = &self.only {
            return self.show_file(&files::only_leaf(drive, file)).await;
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
        self.notes.set(looked.cut.clone());
        self.hosts.learn(&looked);
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
        self.show(&looked, &gone) && complete
    }

    /// Shows what was found, and no longer what is gone. Tells whether it could.
    fn show(&self, looked: &Looked, gone: &[Ino]) -> bool {
        let shown = (self.engine.store).write(|tx| rows::show(tx, &looked.leaves, gone));
        match shown {
            Ok(changes) => self.engine.tell_kernel(changes),
            Err::<_, StoreError>(error) => {
                tracing::warn!(%error, "What there is could not be noted");
                return false;
            }
        }
        true
    }

    /// Looks in all ways, and shows what was found in each before it goes on.
    async fn find(&self, record: &AccountRecord) -> Looked {
        let graph = &self.graph;
        let may = record.permissions();
        let mut looked = Looked::default();
        if record.sign_in == SignInKind::Person {
            looked.add(&["own", "listed"], places::own(graph).await);
            self.show(&looked, &[]);
            if may.allow(Feature::ReadOthers) {
                looked.add(&["shared"], places::shared(graph, record).await);
                self.show(&looked, &[]);
                looked.failed |= !self.show_files(&looked).await;
            }
        }
        if may.is_known() && may.allow(Feature::Sites) {
            let most = self.config.tree_sites.unwrap_or(SITES_MAX);
            let found = places::sites(graph, "*", most as usize).await;
            looked.add(&["site"], found);
            self.show(&looked, &[]);
        }
        if may.is_known() && may.allow(Feature::Teams) {
            looked.add(&["team"], places::teams(graph, record).await);
            self.show(&looked, &[]);
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
                if !found.missing.is_empty() {
                    self.failed = true;
                } else if found.cut.is_none() {
                    self.whole.extend(ways);
                }
                let cut = found
                    .cut
                    .map(|cut| format!("{cut}; `tree_sites` sets how many"));
                self.cut = self.cut.take().or(cut);
                for missing in &found.missing {
                    tracing::info!(missing, "Not all of what there is could be listed");
                }
                let sites = found.places.iter().filter_map(|place| place.site.clone());
                self.sites.extend(sites);
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

/// Where a place is shown.
fn leaf(place: Place) -> Leaf {
    let (folders, name) = match place.way {
        Way::Own => (Vec::new(), OWN.to_owned()),
        Way::Listed => (vec!["Drives".to_owned()], place.name),
        Way::Shared => (vec!["Shared".to_owned()], place.name),
        Way::Team => (vec!["Teams".to_owned()], place.name),
        Way::Site => {
            let site = place.site.as_deref().unwrap_or("Site");
            (vec![SITES.to_owned(), site_name(site)], place.name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_called_by_the_end_of_their_addresses() {
        assert_eq!(site_name("https://x.example/sites/team/"), "team");
        assert_eq!(site_name("Team"), "Team");
    }
}
