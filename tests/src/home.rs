//! A person's home directory with nothing in it yet, and the built binary used from there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::mount::{Mount, MountSpec, detach};
use crate::needs::is_root;
use crate::process::{self, Ran};
use crate::service::Service;
use crate::wait;

/// Longest time for a command that is not meant to take any.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Longest time for `sync`, which waits for uploads.
const SYNC_LIMIT_S: u64 = 240;

/// Who uses the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs the tests.
    Me,
    /// An ordinary user: `nobody` when root runs the tests, else whoever does.
    Nobody,
}

impl Who {
    /// User and group id to become, unless already so.
    pub(crate) fn ids(self) -> Option<(u32, u32)> {
        if self == Self::Me || !is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let fields: Vec<&str> = users
            .lines()
            .find(|line| line.starts_with("nobody:"))?
            .split(':')
            .collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    }
}

/// A home directory and the service that its owner knows.
pub struct Home<'s> {
    /// The service.
    pub service: &'s Service,
    dir: TempDir,
    who: Who,
    binary: PathBuf,
    extra_env: Vec<(String, String)>,
}

impl<'s> Home<'s> {
    /// Makes a home for whoever runs the tests.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(service: &'s Service) -> Self {
        Self::of(service, Who::Me)
    }

    /// Makes a home and signs in.
    ///
    /// # Panics
    /// When either fails.
    #[must_use]
    pub fn signed_in(service: &'s Service) -> Self {
        let home = Self::new(service);
        home.log_in();
        home
    }

    /// Makes a home for somebody.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn of(service: &'s Service, who: Who) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("onedrivefs-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("temporary directory");
        let home = Self {
            service,
            who,
            binary: binary_for(who, dir.path()),
            dir,
            extra_env: Vec::new(),
        };
        for name in ["config", "state", "cache", "run", "home", "work", "mnt"] {
            home.make_dir(name);
        }
        home
    }

    /// Sets a variable for everything that is run from here on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.extra_env.push((name.to_owned(), value.to_owned()));
    }

    /// Makes a directory that belongs to the owner and nobody else can enter.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("mode");
        if let Some((uid, gid)) = self.who.ids() {
            chown(&path, Some(uid), Some(gid)).expect("owner");
        }
        path
    }

    /// Something below the test's directory.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Where programs look for the system bus: nowhere, unless a test starts one there.
    fn system_bus(&self) -> String {
        format!("unix:path={}", self.path("run/system-bus").display())
    }

    /// Where the drive is mounted unless a test says otherwise.
    #[must_use]
    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// A directory outside the mount for the test's own files.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The directory of the account's state.
    #[must_use]
    pub fn account_state(&self) -> PathBuf {
        self.path("state/onedrivefs/default")
    }

    /// Writes the configuration file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, text: &str) {
        let dir = self.path("config/onedrivefs");
        fs::create_dir_all(&dir).expect("directory");
        fs::write(dir.join("config.toml"), text).expect("configuration");
        if let Some((uid, gid)) = self.who.ids() {
            chown(&dir, Some(uid), Some(gid)).expect("owner");
        }
    }

    /// Looks for news until a whole round of them was applied, whatever still waits to be sent.
    ///
    /// # Panics
    /// When none is within a minute.
    pub fn look_for_news(&self) {
        let rounds = || self.service.requests().count("delta");
        let before = rounds();
        // The second round begins when the first one is over.
        wait::until("news", wait::secs(60), || {
            self.try_sync(1);
            rounds() >= before + 2
        });
    }

    /// Any program, run by the owner in this home.
    #[must_use]
    pub fn program(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.system_bus())
            .env("ONEDRIVEFS_GRAPH_URL", self.service.graph_url())
            .env("ONEDRIVEFS_LOGIN_URL", self.service.login_url())
            .env("ONEDRIVEFS_LOG", "info,onedrivefs_sync=debug")
            .env("RUST_BACKTRACE", "1")
            .envs(self.extra_env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path());
        if let Some((uid, gid)) = self.who.ids() {
            command.gid(gid).uid(uid);
        }
        command
    }

    /// The built binary with arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&self.binary);
        command.args(arguments);
        command
    }

    /// The path of the binary that [`Self::command`] runs.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Runs the built binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        process::run(self.command(arguments), COMMAND_LIMIT)
    }

    /// Runs a shell script to its end, stopping at the first command that fails. `$M` is the
    /// mountpoint and `$W` the working directory outside it.
    ///
    /// # Panics
    /// When it fails or does not end in time.
    pub fn sh(&self, script: &str) -> String {
        self.sh_for(script, Duration::from_secs(150))
    }

    /// Like [`Self::sh`], with another limit.
    ///
    /// # Panics
    /// When it fails or does not end in time.
    pub fn sh_for(&self, script: &str, limit: Duration) -> String {
        let mut command = self.program("bash");
        command
            .args(["-euc", script])
            .env("M", self.mountpoint())
            .env("W", self.work())
            .current_dir(self.work());
        process::run(command, limit).ok()
    }

    /// Signs in with a device code, which the simulated person approves.
    ///
    /// # Panics
    /// When that fails.
    pub fn log_in(&self) {
        self.run(&["login", "--device-code", "--client-id", "test"])
            .ok();
    }

    /// Mounts at the usual place.
    ///
    /// # Panics
    /// When the mount does not come up.
    #[must_use]
    pub fn mount(&self) -> Mount<'_> {
        self.mount_with(MountSpec::default())
    }

    /// Mounts.
    ///
    /// # Panics
    /// When the mount does not come up.
    #[must_use]
    pub fn mount_with(&self, spec: MountSpec) -> Mount<'_> {
        Mount::start(self, spec)
    }

    /// Starts a daemon that may end before it mounts; see [`Mount::comes_up`].
    #[must_use]
    pub fn begin_mount(&self, spec: MountSpec) -> Mount<'_> {
        Mount::begin(self, spec)
    }

    /// Mounts with further arguments.
    ///
    /// # Panics
    /// When the mount does not come up.
    #[must_use]
    pub fn mount_args(&self, arguments: &[&str]) -> Mount<'_> {
        self.mount_with(MountSpec {
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            ..MountSpec::default()
        })
    }

    /// Tries to mount, for failures.
    pub fn try_mount(&self, arguments: &[&str]) -> Ran {
        let mountpoint = self.mountpoint();
        let mut all = vec!["mount"];
        all.extend(arguments);
        all.push(mountpoint.to_str().expect("UTF-8"));
        self.run(&all)
    }

    /// Waits until everything is sent and fresh.
    ///
    /// # Panics
    /// When that fails.
    pub fn sync(&self) {
        self.try_sync(SYNC_LIMIT_S).ok();
    }

    /// `onedrivefs sync --timeout`.
    pub fn try_sync(&self, timeout_s: u64) -> Ran {
        let command = self.command(&["sync", "--timeout", &timeout_s.to_string()]);
        process::run(command, Duration::from_secs(timeout_s + 30))
    }

    /// Copies everything that lies in this home's logs, for looking through.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.dir.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.path().extension().is_some_and(|e| e == "log") {
                text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
        text
    }

    /// Whose home this is.
    #[must_use]
    pub fn who(&self) -> Who {
        self.who
    }
}

impl Drop for Home<'_> {
    fn drop(&mut self) {
        // Of a daemon that a failed test could not wait for.
        detach(&self.mountpoint());
    }
}

/// The built binary, where its user can run it: a checkout may lie in a place that is closed to
/// others.
fn binary_for(who: Who, dir: &Path) -> PathBuf {
    let built = built_binary("onedrivefs");
    if who.ids().is_none() {
        return built;
    }
    let copy = dir.join("onedrivefs");
    fs::copy(&built, &copy).expect("copy of the binary");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("mode");
    copy
}

/// A binary of this workspace: from `ONEDRIVEFS_TEST_BIN_DIR`, or from beside the test's own.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn built_binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("ONEDRIVEFS_TEST_BIN_DIR").map_or_else(
        || {
            let own = std::env::current_exe().expect("own path");
            let deps = own.parent().expect("directory");
            deps.parent().expect("target directory").to_owned()
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: use tests/run, or `cargo build -p onedrivefs` first",
        path.display()
    );
    path
}
