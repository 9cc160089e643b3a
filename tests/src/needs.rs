//! What a test needs of the machine, and what happens where it is missing: at home the test is
//! skipped, loudly and counted; in continuous integration, where everything is meant to be there,
//! it fails.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::home::Who;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A mount can be made by whoever runs the tests.
    Fuse,
    /// A mount can be made by an ordinary user.
    FuseForUsers,
    /// The tests run as root.
    Root,
    /// Mount namespaces can be made.
    Namespaces,
    /// This program is installed.
    Program(&'static str),
    /// rclone, from the path or from `ONEDRIVEFS_TEST_RCLONE`.
    Rclone,
    /// Something that a test has found missing by itself.
    Unmet(&'static str),
}

/// Tells whether everything is there. If not, the test is to return at once.
///
/// # Panics
/// With `CI` set, when something is missing.
#[must_use]
pub fn met(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: {}", missing.join("; "));
    assert!(std::env::var_os("CI").is_none(), "cannot run {line}");
    skip(&line);
    false
}

/// Skips a test for want of something that containers do not have, also in continuous integration.
/// The test is to return at once.
pub fn cannot(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    skip(&format!("{test}: {what}"));
}

fn skip(line: &str) {
    let line = format!("SKIPPED {line}");
    match std::env::var_os("ONEDRIVEFS_TEST_SKIPS") {
        // Counted and shown at the end by whoever runs the tests.
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            drop(file.and_then(|mut file| writeln!(file, "{line}")));
        }
        // Past the capturing of the test runner: a skipped test must be seen.
        None => drop(writeln!(std::io::stderr(), "{line}")),
    }
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Fuse if is_root() => fuse_device(),
            Self::Fuse => fuse_device().or_else(fuse_for_users),
            Self::FuseForUsers => fuse_device().or_else(fuse_for_users).or_else(|| {
                (is_root() && Who::Nobody.ids().is_none())
                    .then(|| "there is no user nobody".to_owned())
            }),
            Self::Root => (!is_root()).then(|| "needs root".to_owned()),
            Self::Namespaces => namespaces(),
            Self::Unmet(what) => Some(what.to_owned()),
            Self::Program(name) => find_program(name)
                .is_none()
                .then(|| format!("the program {name} is not installed")),
            Self::Rclone => rclone()
                .is_none()
                .then(|| "rclone is not installed".to_owned()),
        }
    }
}

/// Tells whether the tests run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds a program on the path.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// Finds rclone.
#[must_use]
pub fn rclone() -> Option<PathBuf> {
    std::env::var_os("ONEDRIVEFS_TEST_RCLONE")
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .or_else(|| find_program("rclone"))
}

fn fuse_device() -> Option<String> {
    (!Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".to_owned())
}

fn fuse_for_users() -> Option<String> {
    let open_to_all =
        fs::metadata("/dev/fuse").is_ok_and(|device| device.permissions().mode() & 0o006 == 0o006);
    if !open_to_all {
        return Some("/dev/fuse is closed to ordinary users (chmod 0666 /dev/fuse)".to_owned());
    }
    let Some(helper) = find_program("fusermount3") else {
        return Some("fusermount3 is not installed (package fuse3)".to_owned());
    };
    let setuid = fs::metadata(helper)
        .is_ok_and(|file| file.uid() == 0 && file.permissions().mode() & 0o4000 != 0);
    (!setuid).then(|| "fusermount3 is not setuid root".to_owned())
}

fn namespaces() -> Option<String> {
    if !is_root() {
        return Some("mount namespaces need root".to_owned());
    }
    let made = Command::new("unshare").args(["-m", "true"]).output();
    (!made.is_ok_and(|ran| ran.status.success()))
        .then(|| "mount namespaces cannot be made here".to_owned())
}
