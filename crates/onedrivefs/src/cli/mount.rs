//! `onedrivefs mount`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use onedrivefs_core::DriveId;
use onedrivefs_graph::{DriveInfo, Feature, GraphClient, GraphError};

use super::MountArgs;
use super::consent::user_failure;
use crate::account::{self, AccountRecord, DriveRecord, SignInKind};
use crate::config::{Layer, MountLayer};
use crate::connect::{self, Patience, explain_graph};
use crate::daemon::{self, Access, Plan};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs, absolute};
use crate::sign_in::SignInReport;

/// First pause between two looks for a drive that is not set up yet; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Mounts a drive and serves it until it is unmounted.
pub(crate) async fn run(args: MountArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = layers(&args, Layer::load(&dirs.config_file)?)?;
    let mountpoint = absolute(&args.mountpoint)?;
    let mut wanted = wanted(args, mount_layer(&config, &mountpoint));
    let (account, mut record) = account::choose(&dirs, &config, wanted.account.as_ref())?;
    let nobody = wanted.drive.is_none() && wanted.site.is_none() && wanted.user.is_none();
    if nobody && record.sign_in == SignInKind::App {
        wanted.user.clone_from(&record.mailbox);
    }
    let graph = connect::client(&dirs, &config, &account, &record, Patience::Daemon)?;
    let selection = Selection::of(&wanted);
    selection.check(&account, &record)?;
    let drive = selection
        .resolve(&dirs, &account, &mut record, &graph)
        .await?;
    let forbidden = record.permissions().read_only();
    if forbidden {
        tracing::info!("The sign-in has no permission to change anything; the mount is read-only");
    }
    daemon::serve(Plan {
        sign_in: Some(SignInReport::new(&dirs, &config, &account)),
        dirs,
        account,
        drive,
        graph,
        config,
        access: Access {
            read_only: wanted.read_only.unwrap_or(false) || forbidden,
            allow_other: wanted.allow_other.unwrap_or(false),
        },
        greeting: io::stderr().is_terminal().then(|| greeting(&mountpoint)),
        mountpoint,
    })
    .await
}

fn greeting(mountpoint: &Path) -> String {
    format!(
        "Mounted at {0}. Ctrl-C ends it, as does `onedrivefs unmount {0}` elsewhere.",
        mountpoint.display()
    )
}

/// The command line over the environment and the file.
fn layers(args: &MountArgs, below: Layer) -> Outcome<Layer> {
    let mut layer = below;
    for option in &args.options {
        layer = Layer::from_option(option)?.over(layer);
    }
    let flags = Layer {
        cache_size: args.cache_size,
        poll: args.poll,
        ..Layer::default()
    };
    Ok(flags.over(layer))
}

/// What the configuration says about a mountpoint.
fn mount_layer(config: &Layer, mountpoint: &Path) -> MountLayer {
    config
        .mounts
        .iter()
        .find(|(path, _)| path.as_path() == mountpoint)
        .map(|(_, layer)| layer.clone())
        .unwrap_or_default()
}

/// The command line over what the configuration says about the mountpoint. A drive named on the
/// command line replaces the configured one altogether.
fn wanted(args: MountArgs, below: MountLayer) -> MountLayer {
    let named = args.drive.is_some() || args.site.is_some() || args.user.is_some();
    let (drive, user, site, library) = if named {
        (args.drive, args.user, args.site, args.library)
    } else {
        (below.drive, below.user, below.site, below.library)
    };
    MountLayer {
        account: args.account.account.or(below.account),
        drive,
        user,
        site,
        library,
        read_only: Some(args.read_only || below.read_only.unwrap_or(false)),
        allow_other: Some(args.allow_other || below.allow_other.unwrap_or(false)),
    }
}

/// Which drive is meant.
enum Selection {
    /// The signed-in person's own.
    Own,
    /// The one of this id.
    Id(DriveId),
    /// The one of a person of the organisation.
    User(String),
    /// A library of a site.
    Site {
        url: String,
        library: Option<String>,
    },
}

impl Selection {
    fn of(wanted: &MountLayer) -> Self {
        match (&wanted.drive, &wanted.user, &wanted.site) {
            (Some(id), ..) => Self::Id(DriveId::new(id.as_str())),
            (None, Some(user), _) => Self::User(user.clone()),
            (None, None, Some(url)) => Self::Site {
                url: url.trim_end_matches('/').to_owned(),
                library: wanted.library.clone(),
            },
            (None, None, None) => Self::Own,
        }
    }

    /// Refuses what the sign-in cannot do, with what is missing.
    fn check(&self, account: &AccountName, record: &AccountRecord) -> Outcome {
        let app = record.sign_in == SignInKind::App;
        match self {
            Self::Own if app => Err(Failure::usage(
                format!("account {account}"),
                "an application has no drive of its own",
            )
            .next("name whose drive it is: --user UPN; `onedrivefs users` lists the people")),
            Self::Own => connect::require(record, account, Feature::ReadOwn),
            Self::Id(id) if record.own_drive().is_some_and(|own| own.id == *id) => {
                connect::require(record, account, Feature::ReadOwn)
            }
            Self::Id(_) | Self::User(_) => connect::require(record, account, Feature::ReadOthers),
            // A library that was found before needs no more looking for.
            Self::Site { .. } if self.remembered(record).is_some() => {
                connect::require(record, account, Feature::ReadOthers)
            }
            Self::Site { .. } => connect::require(record, account, Feature::Sites),
        }
    }

    /// Finds the drive: from memory when it was seen before, so that no network is needed.
    async fn resolve(
        &self,
        dirs: &Dirs,
        account: &AccountName,
        record: &mut AccountRecord,
        graph: &GraphClient,
    ) -> Outcome<DriveRecord> {
        if let Some(known) = self.remembered(record) {
            return Ok(known.clone());
        }
        let found = self.wait_for(graph).await?;
        record.remember(found.clone());
        record.save(dirs, account)?;
        Ok(found)
    }

    fn remembered<'a>(&self, record: &'a AccountRecord) -> Option<&'a DriveRecord> {
        match self {
            Self::Own => record.own_drive(),
            Self::Id(id) => record.drive(id),
            Self::User(name) => record.drive_of(name),
            Self::Site { url, library } => record.library(url, library.as_deref()),
        }
    }

    /// Asks for the drive. Somebody's who has none yet is waited for: setting one up takes hours, and
    /// a mount that is made in advance should not have to be made again.
    async fn wait_for(&self, graph: &GraphClient) -> Outcome<DriveRecord> {
        let Self::User(name) = self else {
            return self.ask(graph).await;
        };
        let mut pause = FIRST_PAUSE;
        loop {
            match graph.user_drive(name).await {
                Err(error) if error.is_unprovisioned() => {
                    if pause == FIRST_PAUSE {
                        let what = format!("looking up the drive of {name}");
                        output::note(user_failure(&what, error).to_string());
                        output::note(
                            "Waiting for it; this mount comes up by itself. Ctrl-C ends it.",
                        );
                    }
                }
                found => {
                    let drive = found.map_err(|error| unknown_user(name, error))?;
                    return Ok(DriveRecord {
                        mailbox: Some(name.clone()),
                        ..remembered_form(drive)
                    });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, graph: &GraphClient) -> Outcome<DriveRecord> {
        let first = |what: String| {
            move |error| explain_graph(&format!("{what}, which the first mount needs"), error)
        };
        match self {
            Self::Own => {
                let drive = graph.my_drive().await;
                let drive = drive.map_err(first("looking up your drive".to_owned()))?;
                Ok(DriveRecord {
                    own: true,
                    ..remembered_form(drive)
                })
            }
            Self::Id(id) => {
                let drive = graph.drive(id).await;
                drive
                    .map(remembered_form)
                    .map_err(first(format!("looking up drive {}", id.as_str())))
            }
            Self::User(name) => {
                let drive = graph.user_drive(name).await;
                drive
                    .map(remembered_form)
                    .map_err(|error| unknown_user(name, error))
            }
            Self::Site { url, library } => {
                let drives = graph.site_drives(url).await;
                let drives = drives.map_err(first(format!("looking up {url}")))?;
                choose_library(drives, url, library.as_deref())
            }
        }
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

/// The library of the name given, or the first one, which is the site's default.
fn choose_library(
    drives: Vec<DriveInfo>,
    url: &str,
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
            site: Some(url.to_owned()),
            site_default: index == 0,
            ..remembered_form(drive)
        }),
        (None, Some(name)) => Err(Failure::usage(
            format!("library {name} of {url}"),
            "there is no such library",
        )
        .next(format!("name one of: {}", names.join(", ")))),
        (None, None) => Err(Failure::new(url, "the site has no document library")
            .next("search with `onedrivefs drives --site NAME`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onedrivefs_core::DriveKind;

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
}
