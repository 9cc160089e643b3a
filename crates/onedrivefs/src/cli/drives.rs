//! `onedrivefs drives`.

use onedrivefs_graph::{DriveInfo, Feature, GraphClient};
use serde_json::{Value, json};

use super::DrivesArgs;
use crate::account::{self, DriveRecord, SignInKind};
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::Dirs;
use crate::size::ByteSize;

/// Most sites whose libraries are listed for one search; a name that finds more is too short.
const SITES_MAX: usize = 20;

/// A drive and the site it belongs to.
struct Found {
    drive: DriveInfo,
    own: bool,
    site: Option<String>,
}

/// Lists the drives an account can mount.
pub(crate) async fn run(args: &DrivesArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let (name, mut record) = account::choose(&dirs, &config, args.account.account.as_ref())?;
    let graph = connect::client(&dirs, &config, &name, &record, Patience::Person)?;
    if args.site.is_some() {
        connect::require(&record, &name, Feature::Sites)?;
    } else if record.sign_in == SignInKind::App {
        return Err(Failure::usage("listing drives", "an application has no drives of its own").next(
            "`onedrivefs users` lists the people whose drives `mount --user UPN` takes; --site NAME \
             finds libraries",
        ));
    }
    let found = match &args.site {
        None => own_drives(&graph).await?,
        Some(search) => site_drives(&graph, search).await?,
    };
    for entry in &found {
        record.remember(DriveRecord {
            id: entry.drive.id.clone(),
            kind: entry.drive.kind,
            name: entry.drive.name.clone(),
            own: entry.own,
            mailbox: None,
            site: None,
            site_default: false,
        });
    }
    record.save(&dirs, &name)?;
    if args.json {
        return output::json(&found.iter().map(as_json).collect::<Vec<_>>());
    }
    if found.is_empty() {
        output::note("Nothing was found.");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = found.iter().map(as_row).collect();
    output::raw(&output::table(
        &["NAME", "KIND", "OWNER OR SITE", "USED", "ID"],
        &rows,
    ))
}

/// The person's own drive first, then the others the service lists.
async fn own_drives(graph: &GraphClient) -> Outcome<Vec<Found>> {
    let own = graph
        .my_drive()
        .await
        .map_err(|error| explain_graph("reading your drive", error))?;
    let listed = graph
        .drives()
        .await
        .map_err(|error| explain_graph("listing drives", error))?;
    let others: Vec<Found> = listed
        .into_iter()
        .filter(|drive| drive.id != own.id)
        .map(|drive| Found {
            drive,
            own: false,
            site: None,
        })
        .collect();
    let mut found = vec![Found {
        drive: own,
        own: true,
        site: None,
    }];
    found.extend(others);
    Ok(found)
}

/// The libraries of the site at an address, or of all sites a search finds.
async fn site_drives(graph: &GraphClient, search: &str) -> Outcome<Vec<Found>> {
    let sites = if search.contains("://") {
        vec![(search.to_owned(), search.to_owned())]
    } else {
        graph
            .search_sites(search)
            .await
            .map_err(|error| explain_graph("searching sites", error))?
            .into_iter()
            .map(|site| {
                let shown = site
                    .web_url
                    .or(site.name)
                    .unwrap_or_else(|| site.id.clone());
                (site.id, shown)
            })
            .collect()
    };
    if sites.len() > SITES_MAX {
        output::note(format!(
            "{} sites match; the first {SITES_MAX} are shown.",
            sites.len()
        ));
    }
    let mut found = Vec::new();
    for (id, shown) in sites.into_iter().take(SITES_MAX) {
        let drives = graph
            .site_drives(&id)
            .await
            .map_err(|error| explain_graph(&format!("listing the libraries of {shown}"), error))?;
        found.extend(drives.into_iter().map(|drive| Found {
            drive,
            own: false,
            site: Some(shown.clone()),
        }));
    }
    Ok(found)
}

fn as_json(found: &Found) -> Value {
    json!({
        "id": found.drive.id.as_str(),
        "type": found.drive.kind.as_str(),
        "name": found.drive.name,
        "owner": found.drive.owner,
        "site": found.site,
        "own": found.own,
        "web_url": found.drive.web_url,
        "quota": found.drive.quota,
    })
}

fn as_row(found: &Found) -> Vec<String> {
    let owner = found.site.clone().or_else(|| found.drive.owner.clone());
    let used = found.drive.quota.map_or_else(String::new, |quota| {
        format!("{} of {}", ByteSize(quota.used), ByteSize(quota.total))
    });
    vec![
        printable(&found.drive.name),
        found.drive.kind.as_str().to_owned(),
        printable(&owner.unwrap_or_default()),
        used,
        found.drive.id.as_str().to_owned(),
    ]
}
