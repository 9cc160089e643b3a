//! Looks for what keeps a mount from working, from the kernel to the drive.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use onedrivefs_core::Timestamp;
use onedrivefs_graph::{Endpoints, probe};
use serde::Serialize;
use url::Url;

use crate::account::{self, AccountRecord};
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph};
use crate::control::registry;
use crate::failure::{Failure, Outcome};
use crate::paths::{AccountName, Dirs, check_writable};
use crate::size::ByteSize;

/// Free space below which writing will soon fail, in bytes.
const SPACE_FAIL: u64 = 100 << 20;

/// Free space below which large files will not fit, in bytes.
const SPACE_WARN: u64 = 2 << 30;

/// Difference of clocks from which tokens and times go wrong, in seconds: the identity platform
/// tolerates five minutes.
const CLOCK_FAIL: u64 = 300;

/// Difference of clocks that shows in modification times, in seconds.
const CLOCK_WARN: u64 = 30;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the examination.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) name: String,
    /// How it went.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) next: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict,
            detail: detail.into(),
            next: None,
        }
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, detail)
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..Self::new(name, Verdict::Warn, detail)
        }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..Self::new(name, Verdict::Fail, detail)
        }
    }

    fn failure(name: impl Into<String>, failure: &Failure) -> Self {
        Self {
            next: failure.remedy().map(str::to_owned),
            ..Self::new(name, Verdict::Fail, failure.reason())
        }
    }
}

/// Looks at everything. What depends on something that failed is left out.
pub(crate) async fn examine() -> Vec<Check> {
    let mut checks = vec![fuse_device(Path::new("/dev/fuse")), mount_helper()];
    let dirs = match Dirs::from_env() {
        Ok(dirs) => dirs,
        Err(failure) => {
            checks.push(Check::failure("directories", &failure));
            return checks;
        }
    };
    checks.push(writable("state", &dirs.state));
    checks.push(writable("cache", &dirs.cache));
    checks.push(writable("runtime", &dirs.runtime));
    let config = match Layer::load(&dirs.config_file) {
        Ok(config) => config,
        Err(failure) => {
            checks.push(Check::failure("configuration", &failure));
            return checks;
        }
    };
    checks.push(configuration(&dirs.config_file));
    checks.extend(mounts(&dirs));
    checks.extend(service(&dirs, &config).await);
    checks
}

fn fuse_device(device: &Path) -> Check {
    let name = "FUSE";
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Check::ok(name, format!("{} can be opened", device.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::fail(
            name,
            format!("{} does not exist", device.display()),
            "load the kernel module: `sudo modprobe fuse`",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::fail(
            name,
            format!("{} may not be opened", device.display()),
            format!(
                "`sudo chmod 0666 {}`; a distribution's udev rule normally does it",
                device.display()
            ),
        ),
        // Without its module loaded, or in some containers.
        Err(error) => Check::fail(
            name,
            format!("{}: {error}", device.display()),
            "load the kernel module: `sudo modprobe fuse`",
        ),
    }
}

fn mount_helper() -> Check {
    let name = "fusermount3";
    let root = rustix::process::geteuid().is_root();
    let Some(path) = in_path("fusermount3") else {
        return if root {
            Check::warn(
                name,
                "not found; root mounts without it",
                "for other users, install fuse3",
            )
        } else {
            Check::fail(name, "not found", "install the package fuse3")
        };
    };
    let setuid = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0);
    if setuid || root {
        Check::ok(name, path.display().to_string())
    } else {
        Check::fail(
            name,
            format!("{} is not setuid root", path.display()),
            "reinstall the package fuse3; inside a container, setuid may be disabled altogether",
        )
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether a directory can be written to, and how much room its disk has.
fn writable(name: &str, dir: &Path) -> Check {
    let name = format!("{name} directory");
    if let Err(failure) = check_writable(dir) {
        return Check::failure(name, &failure);
    }
    let Ok(disk) = rustix::fs::statvfs(dir) else {
        return Check::ok(name, dir.display().to_string());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let detail = format!("{}, {} free", dir.display(), ByteSize(free));
    let next = "free some space on that disk";
    // The runtime directory is small by design and holds next to nothing.
    match free {
        _ if name.starts_with("runtime") => Check::ok(name, detail),
        0..SPACE_FAIL => Check::fail(name, detail, next),
        SPACE_FAIL..SPACE_WARN => Check::warn(name, detail, next),
        _ => Check::ok(name, detail),
    }
}

fn configuration(file: &Path) -> Check {
    let name = "configuration";
    if file.exists() {
        Check::ok(name, file.display().to_string())
    } else {
        Check::ok(
            name,
            format!("built-in values; {} does not exist", file.display()),
        )
    }
}

/// The running daemons, and mounts that have none any more.
fn mounts(dirs: &Dirs) -> Vec<Check> {
    let running = match registry::list(dirs) {
        Ok(running) => running,
        Err(failure) => return vec![Check::failure("mounts", &failure)],
    };
    let mut checks: Vec<Check> = running
        .iter()
        .map(|daemon| {
            let place = daemon.mountpoint.display();
            Check::ok("mount", format!("{place}, process {}", daemon.pid))
        })
        .collect();
    checks.extend(registry::dead_mounts().iter().map(|place| {
        let place = place.display();
        Check::fail(
            "mount",
            format!("{place} has lost its daemon"),
            format!("`onedrivefs mount '{place}'` again, or `onedrivefs unmount '{place}'`"),
        )
    }));
    checks
}

/// The hosts, then every account on them.
async fn service(dirs: &Dirs, config: &Layer) -> Vec<Check> {
    let accounts = match account::list(dirs) {
        Ok(accounts) => accounts,
        Err(failure) => return vec![Check::failure("accounts", &failure)],
    };
    let mut checks = Vec::new();
    if accounts.is_empty() {
        checks.extend(endpoints(config, "").await);
        let next = "`onedrivefs login`; to try without one: `onedrivefs demo ~/OneDrive-demo`";
        checks.push(Check::warn("account", "nobody has signed in yet", next));
    }
    let mut seen = Vec::new();
    for name in accounts {
        match AccountRecord::load(dirs, &name) {
            Ok(record) => {
                let record = record.unwrap_or_default();
                if !seen.contains(&record.cloud) {
                    checks.extend(endpoints(config, &record.cloud).await);
                    seen.push(record.cloud.clone());
                }
                checks.extend(one_account(dirs, config, &name, &record).await);
            }
            Err(failure) => checks.push(Check::failure(format!("account {name}"), &failure)),
        }
    }
    checks
}

/// Whether the two hosts answer, and what time they think it is.
async fn endpoints(config: &Layer, cloud: &str) -> Vec<Check> {
    let Endpoints { graph, login, .. } = match connect::endpoints(config, cloud) {
        Ok(endpoints) => endpoints,
        Err(failure) => return vec![Check::failure("endpoints", &failure)],
    };
    let mut checks = Vec::new();
    for (role, url) in [("sign-in", login), ("Graph", graph)] {
        checks.extend(endpoint(config, role, &url).await);
    }
    checks
}

async fn endpoint(config: &Layer, role: &str, url: &Url) -> Vec<Check> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let name = format!("{role} host");
    match probe(url, &connect::http_options(config, Patience::Person)).await {
        Ok(answer) => {
            let detail = format!("{host} answers after {} ms", answer.took.as_millis());
            let mut checks = vec![Check::ok(name, detail)];
            checks.extend(answer.date.map(|date| clock(&host, date, Timestamp::now())));
            checks
        }
        Err(error) => {
            let failure = explain_graph(&name, error);
            let next = format!("check the network and the proxy; {host} must be allowed");
            vec![Check::fail(name, failure.reason(), next)]
        }
    }
}

fn clock(host: &str, theirs: Timestamp, ours: Timestamp) -> Check {
    let name = "clock";
    let skew = theirs.seconds().abs_diff(ours.seconds());
    let detail = format!("differs by {skew} s from the one of {host}");
    let next = "set the clock: `sudo timedatectl set-ntp true`";
    match skew {
        CLOCK_FAIL.. => Check::fail(name, detail, next),
        CLOCK_WARN.. => Check::warn(name, detail, next),
        _ => Check::ok(name, detail),
    }
}

/// Whether somebody is signed in, the sign-in is accepted and the drive can be read.
async fn one_account(
    dirs: &Dirs,
    config: &Layer,
    name: &AccountName,
    record: &AccountRecord,
) -> Vec<Check> {
    let label = format!("account {name}");
    if !dirs.token_file(name).exists() {
        let next = format!("onedrivefs login --account {name}");
        return vec![Check::warn(label, "signed out", next)];
    }
    let mut checks = vec![token_file(&label, &dirs.token_file(name))];
    let graph = match connect::client(dirs, config, name, record, Patience::Person) {
        Ok(graph) => graph,
        Err(failure) => {
            checks.push(Check::failure(label, &failure));
            return checks;
        }
    };
    if let Err(error) = graph.tokens().access_token().await {
        let failure = explain_graph(&label, error);
        checks.push(Check::failure(format!("{label}: sign-in"), &failure));
        return checks;
    }
    checks.push(Check::ok(format!("{label}: sign-in"), "accepted"));
    checks.extend(drives(&label, record, &graph).await);
    checks
}

fn token_file(label: &str, path: &Path) -> Check {
    let name = format!("{label}: token file");
    match fs::metadata(path) {
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Check::warn(
            name,
            format!("{} can be read by others", path.display()),
            format!("chmod 600 '{}'", path.display()),
        ),
        Ok(_) => Check::ok(name, path.display().to_string()),
        Err(error) => Check::fail(name, error.to_string(), "check the owner and the mode"),
    }
}

async fn drives(
    label: &str,
    record: &AccountRecord,
    graph: &onedrivefs_graph::GraphClient,
) -> Vec<Check> {
    let read = |drive: Outcome<onedrivefs_graph::DriveInfo>| match drive {
        Ok(drive) => {
            let space = drive.quota.map_or_else(String::new, |quota| {
                format!(
                    ", {} of {} used",
                    ByteSize(quota.used),
                    ByteSize(quota.total)
                )
            });
            Check::ok(format!("{label}: drive"), format!("{}{space}", drive.name))
        }
        Err(failure) => Check::failure(format!("{label}: drive"), &failure),
    };
    let explain = |error| explain_graph("drive", error);
    if record.drives.is_empty() {
        return vec![read(graph.my_drive().await.map_err(explain))];
    }
    let mut checks = Vec::new();
    for drive in &record.drives {
        checks.push(read(graph.drive(&drive.id).await.map_err(explain)));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_has_a_remedy() {
        let check = fuse_device(Path::new("/nonexistent/fuse"));
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.next.is_some_and(|next| next.contains("modprobe")));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_found() {
        let root = tempfile::tempdir().expect("temporary directory");
        assert_ne!(
            writable("state", &root.path().join("new")).verdict,
            Verdict::Fail
        );
        let file = root.path().join("file");
        fs::write(&file, b"").expect("written");
        let check = writable("state", &file.join("below"));
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.next.is_some());
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let at = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
        assert_eq!(clock("h", at(100), at(110)).verdict, Verdict::Ok);
        assert_eq!(clock("h", at(200), at(100)).verdict, Verdict::Warn);
        assert_eq!(clock("h", at(100), at(4_000)).verdict, Verdict::Fail);
    }
}
