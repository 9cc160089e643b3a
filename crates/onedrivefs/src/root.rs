//! What a mount begins at: which drive is meant, and which folder of it.
//!
//! What was found once is remembered by the words in which it was asked for, with the ids that were
//! found, so that the next mount needs no network, and a folder that was renamed meanwhile is still
//! the one that was meant.

mod again;
mod shared;

use std::time::Duration;

use onedrivefs_core::{DriveId, DriveKind, ItemId, ItemKind, RemoteItem};
use onedrivefs_graph::{DriveInfo, Feature, GraphClient, GraphError, SharedItem, SiteInfo, Team};
use parking_lot::Mutex;

use crate::account::{AccountRecord, DriveRecord, FolderRecord, RootRecord, SignInKind};
use crate::cli::consent::user_failure;
use crate::config::MountLayer;
use crate::connect::{self, explain_graph};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs};

pub(crate) use self::again::Again;
pub(crate) use self::shared::shared_items;

/// First pause between two looks for a drive that is not set up yet; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The known folder that belongs to the application.
const APP_FOLDER: &str = "approot";

/// Held while a record is read, added to and written.
static SAVING: Mutex<()> = Mutex::new(());

/// Begins a folder that is named by its id. No name on the service has a colon.
const BY_ID: &str = "id:";

/// What is done about somebody who has no drive yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// It is waited for.
    Wait,
    /// It is told, to be tried again.
    Fail,
}

/// Where a mount begins, found.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// The drive.
    pub(crate) drive: DriveRecord,
    /// The folder of it, or the file, if it is not its root.
    pub(crate) folder: Option<FolderRecord>,
    /// Whether it is a single file, which is shown in a folder made for it.
    pub(crate) is_file: bool,
}

impl Root {
    /// All of a drive.
    pub(crate) fn whole(drive: DriveRecord) -> Self {
        Self {
            drive,
            folder: None,
            is_file: false,
        }
    }
}

/// What is meant, in a person's words.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    whose: Whose,
    /// A folder of it.
    folder: Option<String>,
}

/// Whose files.
#[derive(Clone, Debug)]
enum Whose {
    /// The signed-in person's own.
    Own,
    /// Those of the drive of this id.
    Id(DriveId),
    /// Those of a person of the organisation.
    User(String),
    /// Those in a library of a site, by its address or words of its name.
    Site {
        site: String,
        library: Option<String>,
    },
    /// Those of a team, or of one of its channels.
    Team {
        team: String,
        channel: Option<String>,
    },
    /// A folder or file that somebody shared, by its name or a link.
    Shared(String),
    /// The application's own, in one's own drive, or in that of a person.
    App(Option<String>),
}

impl Selection {
    /// What the command line and the configuration say.
    pub(crate) fn of(wanted: &MountLayer) -> Self {
        let whose = if wanted.app_folder == Some(true) {
            Whose::App(wanted.drive.clone())
        } else if let Some(id) = &wanted.drive {
            Whose::Id(DriveId::new(id.as_str()))
        } else if let Some(user) = &wanted.user {
            Whose::User(user.clone())
        } else if let Some(site) = &wanted.site {
            Whose::Site {
                site: site.trim_end_matches('/').to_owned(),
                library: wanted.library.clone(),
            }
        } else if let Some(team) = &wanted.team {
            Whose::Team {
                team: team.clone(),
                channel: wanted.channel.clone(),
            }
        } else if let Some(shared) = &wanted.shared {
            Whose::Shared(shared.clone())
        } else {
            Whose::Own
        };
        Self {
            whose,
            folder: wanted.folder.clone(),
        }
    }

    /// Refuses what the sign-in cannot do, with what is missing.
    pub(crate) fn check(&self, account: &AccountName, record: &AccountRecord) -> Outcome {
        let app = record.sign_in == SignInKind::App;
        let need = |feature| connect::require(record, account, feature);
        match &self.whose {
            Whose::Own | Whose::Shared(_) | Whose::App(None) if app => Err(Failure::usage(
                format!("account {account}"),
                "an application has no drive of its own",
            )
            .next("name whose drive it is: --user UPN; `onedrivefs users` lists the people")),
            Whose::Own | Whose::App(None) => need(Feature::ReadOwn),
            Whose::Id(id) if record.own_drive().is_some_and(|own| own.id == *id) => {
                need(Feature::ReadOwn)
            }
            Whose::Id(_) | Whose::User(_) | Whose::Shared(_) | Whose::App(_) => {
                need(Feature::ReadOthers)
            }
            // What was found before needs no more looking for.
            Whose::Site { .. } | Whose::Team { .. } if self.remembered(record).is_some() => {
                need(Feature::ReadOthers)
            }
            Whose::Site { .. } => need(Feature::Sites),
            // Its files are there for whoever knows the id.
            Whose::Team { team, .. } if connect::is_guid(team) => need(Feature::ReadOthers),
            Whose::Team { .. } => {
                need(Feature::ReadOthers)?;
                need(Feature::Teams)
            }
        }
    }

    /// Finds it: from memory when it was seen before, so that no network is needed.
    pub(crate) async fn resolve(
        &self,
        dirs: &Dirs,
        account: &AccountName,
        record: &mut AccountRecord,
        graph: &GraphClient,
        unready: Unready,
    ) -> Outcome<Root> {
        if let Some(known) = self.remembered(record) {
            return Ok(known);
        }
        let found = self.find(graph, record, unready).await?;
        // Mounts that begin at the same time find something each.
        let _turn = SAVING.lock();
        let mut latest = AccountRecord::load(dirs, account)?.unwrap_or_else(|| record.clone());
        for record in [&mut latest, record] {
            record.remember(found.drive.clone());
            let root = RootRecord {
                drive: found.drive.id.clone(),
                folder: found.folder.clone(),
                is_file: found.is_file,
            };
            record.roots.insert(self.words(), root);
        }
        latest.save(dirs, account)?;
        Ok(found)
    }

    /// The words in which it is remembered.
    fn words(&self) -> String {
        let part = |name: &str, value: &Option<String>| match value {
            Some(value) => format!(" {name}={value}"),
            None => String::new(),
        };
        let whose = match &self.whose {
            Whose::Own => "own".to_owned(),
            Whose::Id(id) => format!("drive={}", id.key()),
            Whose::User(user) => format!("user={}", user.to_lowercase()),
            Whose::Site { site, library } => format!("site={site}{}", part("library", library)),
            Whose::Team { team, channel } => format!("team={team}{}", part("channel", channel)),
            Whose::Shared(name) => format!("shared={name}"),
            Whose::App(drive) => format!("app{}", part("drive", drive)),
        };
        format!("{whose}{}", part("folder", &self.folder))
    }

    fn remembered(&self, record: &AccountRecord) -> Option<Root> {
        if let Some(root) = record.roots.get(&self.words()) {
            return Some(Root {
                drive: record.drive(&root.drive)?.clone(),
                folder: root.folder.clone(),
                is_file: root.is_file,
            });
        }
        if self.folder.is_some() {
            return None;
        }
        let drive = match &self.whose {
            Whose::Own => record.own_drive(),
            Whose::Id(id) => record.drive(id),
            Whose::User(name) => record.drive_of(name),
            Whose::Site { site, library } => record.library(site, library.as_deref()),
            Whose::Team { .. } | Whose::Shared(_) | Whose::App(_) => None,
        };
        drive.cloned().map(Root::whole)
    }

    async fn find(
        &self,
        graph: &GraphClient,
        record: &AccountRecord,
        unready: Unready,
    ) -> Outcome<Root> {
        let base = match &self.whose {
            Whose::Own => Root::whole(own(graph).await?),
            Whose::Id(id) => match record.drive(id) {
                Some(known) => Root::whole(known.clone()),
                None => Root::whole(by_id(graph, id).await?),
            },
            Whose::User(name) => Root::whole(wait_for(graph, name, unready).await?),
            Whose::Site { site, library } => {
                Root::whole(find_library(graph, site, library.as_deref()).await?)
            }
            Whose::Team { team, channel } => {
                find_team(graph, record, team, channel.as_deref()).await?
            }
            Whose::Shared(name) => find_shared(graph, record, name).await?,
            Whose::App(drive) => find_app_folder(graph, drive.as_deref()).await?,
        };
        match &self.folder {
            Some(path) => find_folder(graph, base, path).await,
            None => Ok(base),
        }
    }
}

/// What is said about a request of the first mount that failed.
fn first(what: impl Into<String>) -> impl FnOnce(GraphError) -> Failure {
    let what = format!("{}, which the first mount needs", what.into());
    move |error| explain_graph(&what, error)
}

async fn own(graph: &GraphClient) -> Outcome<DriveRecord> {
    let drive = graph
        .my_drive()
        .await
        .map_err(first("looking up your drive"))?;
    Ok(DriveRecord {
        own: true,
        ..remembered_form(drive)
    })
}

/// A drive by its id. What is shared of a drive may be all that can be seen of it.
async fn by_id(graph: &GraphClient, id: &DriveId) -> Outcome<DriveRecord> {
    let drive = graph.drive(id).await;
    drive
        .map(remembered_form)
        .map_err(first(format!("looking up drive {}", id.as_str())))
}

/// A drive in which only a folder may be open.
async fn around(graph: &GraphClient, id: &DriveId) -> Outcome<DriveRecord> {
    match graph.drive(id).await {
        Ok(drive) => Ok(remembered_form(drive)),
        Err(error) if error.status() == Some(403) || error.is_not_found() => {
            Ok(remembered_form(DriveInfo {
                id: id.clone(),
                kind: kind_of(id),
                name: "OneDrive".to_owned(),
                owner: None,
                web_url: None,
                quota: None,
            }))
        }
        Err(error) => Err(first(format!("looking up drive {}", id.as_str()))(error)),
    }
}

/// The kind of a drive that tells nothing but its id.
fn kind_of(id: &DriveId) -> DriveKind {
    if id.as_str().starts_with("b!") {
        DriveKind::Business
    } else {
        DriveKind::Personal
    }
}

/// Asks for a person's drive. One who has none yet is waited for: setting one up takes hours, and a
/// mount that is made in advance should not have to be made again.
async fn wait_for(graph: &GraphClient, name: &str, unready: Unready) -> Outcome<DriveRecord> {
    let mut pause = FIRST_PAUSE;
    loop {
        match graph.user_drive(name).await {
            Err(error) if error.is_unprovisioned() && unready == Unready::Wait => {
                if pause == FIRST_PAUSE {
                    let what = format!("looking up the drive of {name}");
                    output::note(user_failure(&what, error).to_string());
                    output::note("Waiting for it; this mount comes up by itself. Ctrl-C ends it.");
                }
            }
            found => {
                let drive = found.map_err(|error| unknown_user(name, error))?;
                return Ok(DriveRecord {
                    mailbox: Some(name.to_owned()),
                    ..remembered_form(drive)
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a person's drive was not found.
fn unknown_user(name: &str, error: GraphError) -> Failure {
    let what = format!("looking up the drive of {name}, which the first mount needs");
    if error.is_not_found() || error.is_unprovisioned() {
        return user_failure(&what, error);
    }
    explain_graph(&what, error)
}

fn remembered_form(drive: DriveInfo) -> DriveRecord {
    DriveRecord {
        id: drive.id,
        kind: drive.kind,
        name: drive.name,
        own: false,
        mailbox: None,
        site: None,
        site_default: false,
    }
}

/// A library of the site at an address, of an id, or whose name is meant.
async fn find_library(
    graph: &GraphClient,
    site: &str,
    library: Option<&str>,
) -> Outcome<DriveRecord> {
    let id = if site.contains("://") || site.contains(',') {
        site.to_owned()
    } else {
        let found = graph.search_sites(site).await;
        choose_site(
            found.map_err(first(format!("searching the site {site}")))?,
            site,
        )?
    };
    let drives = graph.site_drives(&id).await;
    let drives = drives.map_err(first(format!("looking up {site}")))?;
    choose_library(drives, site, library)
}

/// The only site that a search found, or the one of that very name.
fn choose_site(mut found: Vec<SiteInfo>, wanted: &str) -> Outcome<String> {
    let named = |site: &SiteInfo| {
        let name = site.name.as_deref().unwrap_or_default();
        name.eq_ignore_ascii_case(wanted)
    };
    if found.iter().filter(|site| named(site)).count() == 1 {
        found.retain(named);
    }
    let what = format!("site {wanted}");
    match found.len() {
        0 => Err(Failure::new(what, "no site has that in its name")
            .next("`onedrivefs drives --site WORDS` searches; or name it by its address")),
        1 => Ok(found.remove(0).id),
        _ => {
            let shown = |site: &SiteInfo| site.web_url.clone().or(site.name.clone());
            let names: Vec<String> = found.iter().filter_map(shown).collect();
            Err(Failure::usage(what, "there are several").next(format!(
                "name one of them by its address: {}",
                names.join(", ")
            )))
        }
    }
}

/// The library of the name given, or the first one, which is the site's default.
fn choose_library(
    drives: Vec<DriveInfo>,
    site: &str,
    library: Option<&str>,
) -> Outcome<DriveRecord> {
    let names: Vec<String> = drives.iter().map(|drive| drive.name.clone()).collect();
    let chosen = drives
        .into_iter()
        .enumerate()
        .find(|(_, drive)| match library {
            Some(name) => drive.name == name,
            None => true,
        });
    match (chosen, library) {
        (Some((index, drive)), _) => Ok(DriveRecord {
            site: Some(site.to_owned()),
            site_default: index == 0,
            ..remembered_form(drive)
        }),
        (None, Some(name)) => Err(Failure::usage(
            format!("library {name} of {site}"),
            "there is no such library",
        )
        .next(format!("name one of: {}", names.join(", ")))),
        (None, None) => Err(Failure::new(site, "the site has no document library")
            .next("search with `onedrivefs drives --site NAME`")),
    }
}

/// The drive of a team, or the folder of one of its channels.
async fn find_team(
    graph: &GraphClient,
    record: &AccountRecord,
    wanted: &str,
    channel: Option<&str>,
) -> Outcome<Root> {
    let team = if connect::is_guid(wanted) {
        wanted.to_owned()
    } else {
        let teams = match record.sign_in {
            SignInKind::App => graph.all_teams().await,
            SignInKind::Person => graph.joined_teams().await,
        };
        choose_team(teams.map_err(first("listing teams"))?, wanted)?
    };
    let Some(channel) = channel else {
        let drive = graph.group_drive(&team).await;
        let drive = drive.map_err(first(format!("looking up the files of {wanted}")))?;
        return Ok(Root::whole(remembered_form(drive)));
    };
    let what = format!("channel {channel} of {wanted}");
    let folder = match graph.channels(&team).await {
        Ok(channels) => {
            let named = |name: &str| name.eq_ignore_ascii_case(channel);
            let found = channels.iter().find(|known| named(&known.name));
            let Some(found) = found else {
                let names: Vec<&str> = channels.iter().map(|known| known.name.as_str()).collect();
                return Err(Failure::usage(what, "there is no such channel")
                    .next(format!("name one of: {}", names.join(", "))));
            };
            let folder = graph.channel_folder(&team, &found.id).await;
            folder.map_err(first(format!("looking up {what}")))?
        }
        // Without the permission to list channels: ordinary ones are folders of the team's drive.
        Err(error) if error.status() == Some(403) => {
            let drive = graph.group_drive(&team).await;
            let drive = drive.map_err(first(format!("looking up the files of {wanted}")))?;
            let base = Root::whole(remembered_form(drive));
            return find_folder(graph, base, channel).await;
        }
        Err(error) => return Err(first(format!("listing the channels of {wanted}"))(error)),
    };
    folder_root(graph, folder, &what).await
}

fn choose_team(teams: Vec<Team>, wanted: &str) -> Outcome<String> {
    let named = |team: &&Team| team.name.eq_ignore_ascii_case(wanted);
    let found: Vec<&Team> = teams.iter().filter(named).collect();
    let what = format!("team {wanted}");
    match found.as_slice() {
        [team] => Ok(team.id.clone()),
        [] => {
            let names: Vec<&str> = teams.iter().map(|team| team.name.as_str()).collect();
            Err(
                Failure::new(what, "there is no such team").next(match names.is_empty() {
                    true => "`onedrivefs drives --teams` lists them".to_owned(),
                    false => format!("name one of: {}", names.join(", ")),
                }),
            )
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|team| team.id.as_str()).collect();
            Err(Failure::usage(what, "there are several")
                .next(format!("name one of them by its id: {}", ids.join(", "))))
        }
    }
}

/// A folder or file that somebody shared: by a link, or by its name among the shortcuts of one's own drive and
/// in the service's list, which is being given up.
async fn find_shared(graph: &GraphClient, record: &AccountRecord, name: &str) -> Outcome<Root> {
    let what = format!("what was shared as {name}");
    if name.contains("://") {
        let item = graph.shared_item(name).await;
        let item = item.map_err(first(format!("opening {name}")))?;
        return folder_root(graph, item, &what).await;
    }
    let (known, missing) = shared_items(graph, record).await?;
    let named = |item: &SharedItem| item.name.eq_ignore_ascii_case(name);
    let mut found: Vec<SharedItem> = known.iter().filter(|item| named(item)).cloned().collect();
    match found.len() {
        1 => {}
        0 => {
            let why = missing.map_or_else(String::new, |error| {
                format!(" among your shortcuts, and the service lists nothing else: {error}")
            });
            return Err(
                Failure::new(what, format!("there is nothing of that name{why}")).next(
                    "`onedrivefs drives --shared` lists what is known; or pass the sharing link \
                     itself: --shared https://…",
                ),
            );
        }
        _ => {
            let ways: Vec<String> = found.iter().map(way_to).collect();
            return Err(Failure::usage(what, "there are several")
                .next(format!("choose by id: {}", ways.join(" or "))));
        }
    }
    let item = found.remove(0);
    Ok(Root {
        drive: around(graph, &item.drive).await?,
        is_file: !item.is_folder,
        folder: Some(FolderRecord {
            id: item.item,
            name: item.name,
        }),
    })
}

/// The options that lead to something that was shared.
pub(crate) fn way_to(item: &SharedItem) -> String {
    format!(
        "--drive {} --folder {BY_ID}{}",
        item.drive.as_str(),
        item.item.as_str()
    )
}

/// The application's own folder. Nothing but this folder may be open, not even the drive around it.
async fn find_app_folder(graph: &GraphClient, drive: Option<&str>) -> Outcome<Root> {
    let what = "the application's own folder";
    let folder = match drive {
        None => graph.my_special(APP_FOLDER).await,
        Some(id) => graph.special(&DriveId::new(id), APP_FOLDER).await,
    };
    let folder = folder.map_err(first(format!("looking up {what}")))?;
    folder_root(graph, folder, what).await
}

/// A folder of a drive, by its path or id. Shortcuts on the way are followed.
async fn find_folder(graph: &GraphClient, base: Root, path: &str) -> Outcome<Root> {
    let what = format!("folder {path}");
    let drive = base.drive.id.clone();
    if let Some(id) = path.strip_prefix(BY_ID) {
        let item = graph.item(&drive, &ItemId::new(id)).await;
        let mut item = item.map_err(first(format!("looking up {what}")))?;
        if let Some(link) = item.link.take() {
            // The file itself, not what leads to it.
            item.id = link.item;
            return rooted(around(graph, &link.drive).await?, item, &what);
        }
        return rooted(base.drive, item, &what);
    }
    let top = match &base.folder {
        Some(folder) => folder.id.clone(),
        None => {
            let root = graph.root(&drive).await;
            root.map_err(first(format!("looking up {what}")))?.id
        }
    };
    let found = graph.item_at_path(&drive, &top, path).await;
    let found = found.map_err(first(format!("looking up {what}")))?;
    let Some((there, item)) = found else {
        return Err(Failure::new(what, "there is no such folder")
            .next("check the spelling; the path begins at the top of the drive"));
    };
    if item.kind == ItemKind::File {
        let reason = "it is a file, and a mount begins at a folder";
        return Err(Failure::usage(format!("folder {path}"), reason).next(
            "name the folder it is in; a file that others share is mounted by --shared NAME",
        ));
    }
    let drive = if there == drive {
        base.drive
    } else {
        around(graph, &there).await?
    };
    rooted(drive, item, &format!("folder {path}"))
}

/// A folder that tells by itself in which drive it is.
async fn folder_root(graph: &GraphClient, folder: RemoteItem, what: &str) -> Outcome<Root> {
    let (drive, item) = match &folder.kind {
        ItemKind::Shortcut(target) => {
            let item = graph.item(&target.drive, &target.item).await;
            let item = item.map_err(first(format!("looking up {what}")))?;
            (Some(target.drive.clone()), item)
        }
        _ => (folder.drive.clone(), folder),
    };
    let drive = drive.ok_or_else(|| {
        Failure::new(what, "the service does not say in which drive it is")
            .next("name the drive: --drive ID --folder PATH")
    })?;
    rooted(around(graph, &drive).await?, item, what)
}

fn rooted(drive: DriveRecord, item: RemoteItem, what: &str) -> Outcome<Root> {
    if item.is_root {
        return Ok(Root::whole(drive));
    }
    let is_file = match item.kind {
        ItemKind::Folder => false,
        ItemKind::File => true,
        _ => {
            return Err(Failure::usage(
                what,
                "it is neither a folder nor a file that can be opened",
            )
            .next("name a folder or a file"));
        }
    };
    Ok(Root {
        drive,
        folder: Some(FolderRecord {
            id: item.id,
            name: item.name.unwrap_or_else(|| "folder".to_owned()),
        }),
        is_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(id: &str, name: &str) -> DriveInfo {
        DriveInfo {
            id: DriveId::new(id),
            kind: DriveKind::DocumentLibrary,
            name: name.to_owned(),
            owner: None,
            web_url: None,
            quota: None,
        }
    }

    #[test]
    fn a_library_is_chosen_by_name_or_the_first_is_taken() {
        let all = || vec![library("b!1", "Documents"), library("b!2", "Plans")];
        let first = choose_library(all(), "https://x/s", None).expect("first");
        assert_eq!((first.id.as_str(), first.site_default), ("b!1", true));
        let named = choose_library(all(), "https://x/s", Some("Plans")).expect("named");
        assert_eq!((named.id.as_str(), named.site_default), ("b!2", false));
        let wrong = choose_library(all(), "https://x/s", Some("Plan")).expect_err("wrong");
        assert!(wrong.to_string().contains("Documents, Plans"), "{wrong}");
        assert!(choose_library(Vec::new(), "https://x/s", None).is_err());
    }

    #[test]
    fn a_site_is_chosen_by_its_very_name_or_when_there_is_one_only() {
        let site = |id: &str, name: &str| SiteInfo {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            web_url: Some(format!("https://x/sites/{id}")),
        };
        let all = || vec![site("a", "Plans"), site("b", "Old plans")];
        assert_eq!(choose_site(all(), "plans").expect("the very name"), "a");
        let several = choose_site(all(), "plan").expect_err("several");
        assert!(
            several.to_string().contains("https://x/sites/b"),
            "{several}"
        );
        assert_eq!(choose_site(all().split_off(1), "plan").expect("one"), "b");
        assert!(choose_site(Vec::new(), "plan").is_err());
    }

    #[test]
    fn what_is_meant_is_remembered_in_its_own_words() {
        let words = |layer: MountLayer| Selection::of(&layer).words();
        let folder = Some("Documents".to_owned());
        let own = words(MountLayer {
            folder: folder.clone(),
            ..MountLayer::default()
        });
        let shared = words(MountLayer {
            shared: Some("Docs".to_owned()),
            folder,
            ..MountLayer::default()
        });
        assert_ne!(own, shared);
        assert_ne!(own, words(MountLayer::default()));
    }
}
