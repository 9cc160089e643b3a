//! Every account: whether the sign-in is accepted, what was granted, and whether the drives can be
//! read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use onedrivefs_core::{DriveId, ExposeSecret as _, ItemKind};
use onedrivefs_graph::auth::claims;
use onedrivefs_graph::{DriveInfo, Feature, GraphClient, Permissions, Reach, default_scopes};
use url::Url;

use super::{Check, network};
use crate::account::{self, AccountRecord, SignInKind};
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph};
use crate::credentials::Expiry;
use crate::failure::Outcome;
use crate::output::printable;
use crate::paths::{AccountName, Dirs};
use crate::secrets::Place;
use crate::size::ByteSize;

/// Share of a drive that may be used before it is warned about, in percent.
const FULL_WARN: u64 = 95;

/// The hosts, then every account on them.
pub(super) async fn examine(dirs: &Dirs, config: &Layer) -> Vec<Check> {
    let accounts = match account::all(dirs, config) {
        Ok(accounts) => accounts,
        Err(failure) => return vec![Check::failure("accounts", &failure)],
    };
    let mut checks = Vec::new();
    if accounts.is_empty() {
        checks.extend(network::endpoints(config, "").await);
        let next = "`onedrivefs login`; to try without one: `onedrivefs demo ~/OneDrive-demo`";
        checks.push(Check::warn("account", "nobody has signed in yet", next));
    }
    let mut seen = Vec::new();
    for name in accounts {
        match account::known(dirs, config, &name) {
            Ok(record) => {
                let record = record.unwrap_or_default();
                if !seen.contains(&record.cloud) {
                    checks.extend(network::endpoints(config, &record.cloud).await);
                    seen.push(record.cloud.clone());
                }
                checks.extend(one(dirs, config, &name, &record).await);
            }
            Err(failure) => checks.push(Check::failure(format!("account {name}"), &failure)),
        }
    }
    checks
}

/// Whether somebody is signed in, the sign-in is accepted and the drive can be read.
async fn one(
    dirs: &Dirs,
    config: &Layer,
    name: &AccountName,
    record: &AccountRecord,
) -> Vec<Check> {
    let label = format!("account {name}");
    match record.is_signed_in(dirs, name) {
        Ok(true) => {}
        Ok(false) => {
            let next = format!("onedrivefs login --account {name}");
            return vec![Check::warn(label, "signed out", next)];
        }
        Err(failure) => return vec![Check::failure(label, &failure)],
    }
    let mut checks = vec![place(&label, record, &dirs.token_file(name))];
    checks.extend(expiry(&label, name, record));
    let graph = match connect::client(dirs, config, name, record, Patience::Person) {
        Ok(graph) => graph,
        Err(failure) => {
            checks.push(Check::failure(label, &failure));
            return checks;
        }
    };
    match graph.tokens().access_token().await {
        Ok(token) => {
            checks.push(Check::ok(format!("{label}: sign-in"), "accepted"));
            let told = claims(&token);
            let granted = match (&told, graph.tokens().granted_scopes()) {
                (Some(claims), scopes) if scopes.is_empty() => {
                    [claims.roles.clone(), claims.scopes.clone()].concat()
                }
                (_, scopes) => scopes,
            };
            checks.push(permissions(&label, name, record, &granted));
        }
        Err(error) => {
            let failure = explain_graph(&label, error);
            checks.push(Check::failure(format!("{label}: sign-in"), &failure));
            return checks;
        }
    }
    checks.extend(drives(&label, config, record, &graph).await);
    checks
}

/// Where the sign-in is kept, and whether it lies open.
fn place(label: &str, record: &AccountRecord, path: &Path) -> Check {
    let name = format!("{label}: kept in");
    if record.kept_in == Place::Keyring {
        return Check::ok(name, "the keyring");
    }
    match fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Check::warn(
            name,
            format!("{} can be read by others", path.display()),
            format!("chmod 600 '{}'", path.display()),
        ),
        Ok(_) => Check::ok(name, path.display().to_string()),
        Err(_) if record.sign_in == SignInKind::App => Check::ok(name, "not yet"),
        Err(error) => Check::fail(name, error.to_string(), "check the owner and the mode"),
    }
}

/// How long the application can still prove itself.
fn expiry(label: &str, account: &AccountName, record: &AccountRecord) -> Option<Check> {
    let end = Expiry::of(record)?;
    let name = format!("{label}: {}", end.what);
    let detail = format!("good until {}", end.date);
    Some(match end.warning(account.as_str()) {
        None => Check::ok(name, detail),
        Some(warning) if end.days < 0 => Check::fail(name, format!("it was {detail}"), warning),
        Some(warning) => Check::warn(name, detail, warning),
    })
}

/// What was asked for against what was granted.
fn permissions(
    label: &str,
    account: &AccountName,
    record: &AccountRecord,
    granted: &[String],
) -> Check {
    let name = format!("{label}: permissions");
    let own = Permissions::new(granted);
    if !own.is_known() {
        return Check::ok(name, "the service does not tell what was granted");
    }
    let shown = printable(&granted.join(", "));
    if record.sign_in == SignInKind::App {
        let lacking: Vec<String> = [
            (Feature::WriteOthers, "changing files"),
            (Feature::Sites, "finding sites"),
            (Feature::Users, "listing people"),
        ]
        .into_iter()
        .filter(|(feature, _)| !own.allow(*feature))
        .map(|(feature, what)| format!("{} for {what}", feature.needs()))
        .collect();
        return match lacking.as_slice() {
            [] => Check::ok(name, format!("granted: {shown}")),
            lacking => Check::warn(
                name,
                format!("granted: {shown}; not granted: {}", lacking.join(", ")),
                "fine if you do not need that; otherwise add it to the registration and have an \
                 administrator grant it",
            ),
        };
    }
    let asked = match record.scopes.as_slice() {
        [] => default_scopes(Reach::default()),
        scopes => scopes.to_vec(),
    };
    let missing = own.missing(&asked);
    if missing.is_empty() {
        return Check::ok(name, format!("asked for and granted: {shown}"));
    }
    Check::warn(
        name,
        format!(
            "granted: {shown}; asked for and not granted: {}",
            missing.join(", ")
        ),
        format!(
            "onedrivefs login --account {account}, and accept all permissions; an administrator may have to"
        ),
    )
}

/// Whether each drive can be read, how full it is, and whether the host of its bytes answers.
async fn drives(
    label: &str,
    config: &Layer,
    record: &AccountRecord,
    graph: &GraphClient,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let explain = |error| explain_graph("drive", error);
    if record.drives.is_empty() && record.sign_in == SignInKind::Person {
        checks.extend(drive(label, graph.my_drive().await.map_err(explain)));
    }
    for known in &record.drives {
        checks.extend(drive(label, graph.drive(&known.id).await.map_err(explain)));
    }
    if let Some(known) = record.drives.first()
        && let Some(url) = content_host(graph, &known.id).await
    {
        checks.extend(network::host(config, "content host", &url).await);
    }
    checks
}

fn drive(label: &str, drive: Outcome<DriveInfo>) -> Vec<Check> {
    let name = format!("{label}: drive");
    let drive = match drive {
        Ok(drive) => drive,
        Err(failure) => return vec![Check::failure(name, &failure)],
    };
    let shown = printable(&drive.name);
    let Some(quota) = drive.quota else {
        return vec![Check::ok(name, shown)];
    };
    let detail = format!(
        "{shown}, {} of {} used",
        ByteSize(quota.used),
        ByteSize(quota.total)
    );
    let full = quota.total > 0 && quota.used / (quota.total / 100).max(1) >= FULL_WARN;
    let next = "delete something and empty the recycle bin, or get more space";
    vec![if full {
        Check::warn(name, detail, next)
    } else {
        Check::ok(name, detail)
    }]
}

/// The host that hands out the bytes of a drive: that of the first file's address, without what is
/// secret in it.
async fn content_host(graph: &GraphClient, drive: &DriveId) -> Option<Url> {
    let root = graph.root(drive).await.ok()?;
    let page = graph.children_page(drive, &root.id, None).await.ok()?;
    let file = page
        .items
        .iter()
        .find(|item| matches!(item.kind, ItemKind::File))?;
    let source = graph.download_source(drive, &file.id).await.ok()?;
    let mut url = Url::parse(source.url.expose_secret()).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    url.set_path("/");
    Some(url)
}
