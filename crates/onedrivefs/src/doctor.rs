//! Looks for what keeps a mount from working, from the kernel to the drive.

mod accounts;
mod machine;
pub(crate) mod network;
pub(crate) mod report;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{self, Layer};
use crate::control::registry;
use crate::failure::Failure;
use crate::paths::{Dirs, check_writable};
use crate::size::ByteSize;

/// Free space below which writing will soon fail, in bytes.
const SPACE_FAIL: u64 = 100 << 20;

/// Free space below which large files will not fit, in bytes.
const SPACE_WARN: u64 = 2 << 30;

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
    checks.push(machine::systemd().await);
    checks.push(machine::keyring(&config).await);
    checks.extend(mounts(&dirs));
    checks.push(network::proxy(&config));
    checks.extend(accounts::examine(&dirs, &config).await);
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
    let machine = config::machine_file();
    let there: Vec<String> = [file, &machine]
        .iter()
        .filter(|file| file.exists())
        .map(|file| file.display().to_string())
        .collect();
    match there.as_slice() {
        [] => Check::ok(
            name,
            format!("built-in values; {} does not exist", file.display()),
        ),
        files => Check::ok(name, files.join(", over ")),
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
}
