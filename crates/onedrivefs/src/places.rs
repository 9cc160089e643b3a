//! What an account can mount: its own drive, what others share, libraries of sites, files of teams.

use futures_util::StreamExt as _;
use futures_util::stream;
use onedrivefs_core::{DriveId, ItemId};
use onedrivefs_graph::{DriveInfo, Feature, GraphClient, GraphError, Team};

use crate::account::{AccountRecord, SignInKind};
use crate::connect::explain_graph;
use crate::failure::Outcome;
use crate::root;

/// Most sites whose libraries are listed for one search; a name that finds more is too short.
pub(crate) const SITES_MAX: usize = 20;

/// Sites whose libraries are asked for at the same time.
const SITES_AT_ONCE: usize = 8;

/// How somebody comes to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the signed-in person's own drive.
    Own,
    /// The service lists it for that person.
    Listed,
    /// Somebody shared it.
    Shared,
    /// It is a library of a site.
    Site,
    /// It is where a team has its files.
    Team,
}

impl Way {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Listed => "listed",
            Self::Shared => "shared",
            Self::Site => "site",
            Self::Team => "team",
        }
    }
}

/// Something that can be mounted.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// How somebody comes to it.
    pub(crate) way: Way,
    /// The name people see.
    pub(crate) name: String,
    /// The drive it is in.
    pub(crate) drive: DriveId,
    /// What is known of the drive, if it was asked for.
    pub(crate) info: Option<DriveInfo>,
    /// The folder of the drive, or the file, if it is not all of it.
    pub(crate) folder: Option<ItemId>,
    /// Whether it is a single file.
    pub(crate) is_file: bool,
    /// The site it belongs to.
    pub(crate) site: Option<String>,
    /// What `mount` is told to get it.
    pub(crate) options: String,
}

impl Place {
    fn of_drive(way: Way, drive: DriveInfo) -> Self {
        Self {
            way,
            name: drive.name.clone(),
            drive: drive.id.clone(),
            folder: None,
            is_file: false,
            site: None,
            options: format!("--drive {}", drive.id.as_str()),
            info: Some(drive),
        }
    }
}

/// Places, and what could not be looked for.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The places.
    pub(crate) places: Vec<Place>,
    /// What is missing and why, in a sentence each.
    pub(crate) missing: Vec<String>,
    /// That there is more than is shown, in a sentence.
    pub(crate) cut: Option<String>,
}

impl Found {
    /// Adds another search.
    pub(crate) fn add(&mut self, other: Self) {
        self.places.extend(other.places);
        self.missing.extend(other.missing);
        self.cut = self.cut.take().or(other.cut);
    }
}

/// The person's own drive first, then the others the service lists. The list may fail, or name drives
/// that answer nothing, while one's own is fine.
pub(crate) async fn own(graph: &GraphClient) -> Outcome<Found> {
    let own = graph
        .my_drive()
        .await
        .map_err(|error| explain_graph("reading your drive", error))?;
    let mut found = Found::default();
    let id = own.id.clone();
    let mut place = Place::of_drive(Way::Own, own);
    place.options = String::new();
    found.places.push(place);
    match graph.drives().await {
        Ok(listed) => {
            let others = listed.into_iter().filter(|drive| drive.id != id);
            let others = others.map(|drive| Place::of_drive(Way::Listed, drive));
            found.places.extend(others);
        }
        Err(error) => found.missing.push(missing("further drives", &error)),
    }
    Ok(found)
}

/// What others shared.
pub(crate) async fn shared(graph: &GraphClient, record: &AccountRecord) -> Outcome<Found> {
    let (items, error) = root::shared_items(graph, record).await?;
    let places = items.into_iter().map(|item| Place {
        way: Way::Shared,
        options: root::way_to(&item),
        is_file: !item.is_folder,
        name: item.name,
        drive: item.drive,
        info: None,
        folder: Some(item.item),
        site: None,
    });
    Ok(Found {
        places: places.collect(),
        missing: error
            .iter()
            .map(|error| missing("shared items without a shortcut", error))
            .collect(),
        cut: None,
    })
}

/// The files of the person's teams, or of all teams for an application.
pub(crate) async fn teams(graph: &GraphClient, record: &AccountRecord) -> Outcome<Found> {
    let teams = match record.sign_in {
        SignInKind::App => graph.all_teams().await,
        SignInKind::Person => graph.joined_teams().await,
    };
    let teams = teams.map_err(|error| explain_graph("listing teams", error))?;
    let mut found = Found::default();
    for team in teams {
        match graph.group_drive(&team.id).await {
            Ok(drive) => found.places.push(team_place(&team, drive)),
            Err(error) => {
                let what = format!("the files of {}", team.name);
                found.missing.push(missing(&what, &error));
            }
        }
    }
    Ok(found)
}

fn team_place(team: &Team, drive: DriveInfo) -> Place {
    let mut place = Place::of_drive(Way::Team, drive);
    place.options = format!("--team {}", quoted(&team.name));
    place.name.clone_from(&team.name);
    place
}

/// The libraries of the site at an address.
pub(crate) async fn site(graph: &GraphClient, address: &str) -> Outcome<Found> {
    let drives = graph.site_drives(address).await;
    let drives = drives
        .map_err(|error| explain_graph(&format!("listing the libraries of {address}"), error))?;
    Ok(Found {
        places: libraries(address, drives),
        ..Found::default()
    })
}

/// The libraries of a site.
pub(crate) fn libraries(site: &str, drives: Vec<DriveInfo>) -> Vec<Place> {
    let place = |drive| Place {
        site: Some(site.to_owned()),
        ..Place::of_drive(Way::Site, drive)
    };
    drives.into_iter().map(place).collect()
}

/// The libraries of the sites that a search finds, of so many of them at most.
pub(crate) async fn sites(graph: &GraphClient, search: &str, most: usize) -> Outcome<Found> {
    let sites = graph.search_sites(search).await;
    let sites = sites.map_err(|error| explain_graph("searching sites", error))?;
    let mut found = Found::default();
    if sites.len() > most {
        found.cut = Some(format!(
            "{} sites match; the first {most} are shown",
            sites.len()
        ));
    }
    let asked = sites.into_iter().take(most).map(|site| async move {
        let drives = graph.site_drives(&site.id).await;
        (site.web_url.or(site.name).unwrap_or(site.id), drives)
    });
    let mut answers = stream::iter(asked).buffered(SITES_AT_ONCE);
    while let Some((shown, drives)) = answers.next().await {
        match drives {
            Ok(drives) => found.places.extend(libraries(&shown, drives)),
            Err(error) => {
                let what = format!("the libraries of {shown}");
                found.missing.push(missing(&what, &error));
            }
        }
    }
    Ok(found)
}

/// Everything that an account's sign-in can list without being told what to search for.
pub(crate) async fn all(graph: &GraphClient, record: &AccountRecord) -> Outcome<Found> {
    let permissions = record.permissions();
    let mut found = Found::default();
    if record.sign_in == SignInKind::Person {
        found.add(own(graph).await?);
        if permissions.allow(Feature::ReadOthers) {
            found.add(shared(graph, record).await?);
        }
    }
    // Where nobody knows what was granted, this is not worth a refusal.
    if permissions.is_known() && permissions.allow(Feature::Teams) {
        found.add(teams(graph, record).await?);
    }
    Ok(found)
}

fn missing(what: &str, error: &GraphError) -> String {
    format!("{what} could not be listed: {error}")
}

/// A word of a command line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
