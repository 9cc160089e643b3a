//! `onedrivefs drives`.

use onedrivefs_graph::Feature;
use serde_json::{Value, json};

use super::{DrivesArgs, users};
use crate::account::{self, DriveRecord, SignInKind};
use crate::config::Layer;
use crate::connect::{self, Patience};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::Dirs;
use crate::places::{self, Place, Way};
use crate::size::ByteSize;

/// Lists the drives an account can mount.
pub(crate) async fn run(args: &DrivesArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let (name, mut record) = account::choose(&dirs, &config, args.account.account.as_ref())?;
    let graph = connect::client(&dirs, &config, &name, &record, Patience::Person)?;
    if args.users {
        return users::list(&graph, args.json).await;
    }
    let app = record.sign_in == SignInKind::App;
    let found = if let Some(search) = &args.site {
        connect::require(&record, &name, Feature::Sites)?;
        if search.contains("://") {
            places::site(&graph, search).await?
        } else {
            places::sites(&graph, search, places::SITES_MAX).await?
        }
    } else if args.teams {
        connect::require(&record, &name, Feature::Teams)?;
        places::teams(&graph, &record).await?
    } else if app {
        return Err(Failure::usage("listing drives", "an application has no drives of its own").next(
            "--users lists the people whose drives `mount --user UPN` takes; --site NAME finds libraries, \
             --teams the files of teams",
        ));
    } else if args.shared {
        connect::require(&record, &name, Feature::ReadOthers)?;
        places::shared(&graph, &record).await?
    } else {
        places::all(&graph, &record).await?
    };
    let known = found.places.iter().filter_map(|place| {
        let drive = place.info.as_ref()?;
        Some(DriveRecord {
            id: drive.id.clone(),
            kind: drive.kind,
            name: drive.name.clone(),
            own: place.way == Way::Own,
            mailbox: None,
            site: None,
            site_default: false,
        })
    });
    for drive in known {
        record.remember(drive);
    }
    record.save(&dirs, &name)?;
    for missing in found.missing.iter().chain(&found.cut) {
        output::note(printable(missing));
    }
    if args.json {
        return output::json(&found.places.iter().map(as_json).collect::<Vec<_>>());
    }
    if found.places.is_empty() {
        output::note("Nothing was found.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.places.iter().map(as_row).collect();
    output::raw(&output::table(
        &["NAME", "KIND", "OWNER OR SITE", "USED", "ID", "MOUNT WITH"],
        &rows,
    ))
}

fn as_json(place: &Place) -> Value {
    let info = place.info.as_ref();
    json!({
        "id": place.drive.as_str(),
        "type": info.map(|drive| drive.kind.as_str()),
        "name": place.name,
        "owner": info.and_then(|drive| drive.owner.as_ref()),
        "site": place.site,
        "own": place.way == Way::Own,
        "found": place.way.word(),
        "folder": place.folder.as_ref().map(|folder| folder.as_str()),
        "file": place.is_file,
        "mount": place.options,
        "web_url": info.and_then(|drive| drive.web_url.as_ref()),
        "quota": info.and_then(|drive| drive.quota),
    })
}

fn as_row(place: &Place) -> Vec<String> {
    let info = place.info.as_ref();
    let owner = place
        .site
        .clone()
        .or_else(|| info.and_then(|drive| drive.owner.clone()));
    let used = info
        .and_then(|drive| drive.quota)
        .map_or_else(String::new, |quota| {
            format!("{} of {}", ByteSize(quota.used), ByteSize(quota.total))
        });
    let kind = match (place.way, info) {
        (Way::Shared, _) if place.is_file => "shared file",
        (Way::Shared, _) => "shared folder",
        (_, Some(drive)) => drive.kind.as_str(),
        (_, None) => place.way.word(),
    };
    vec![
        printable(&place.name),
        kind.to_owned(),
        printable(&owner.unwrap_or_default()),
        used,
        place.drive.as_str().to_owned(),
        printable(&place.options),
    ]
}
