//! Where things lie on this machine, after the XDG rules, so that two users (or two tests) never
//! meet.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::account::RootRecord;
use crate::failure::{Explain, Failure, Outcome};

/// Directory of ours below every XDG base directory.
const APPLICATION: &str = "onedrivefs";

/// Longest file name used for a drive or a socket, in bytes: leaves room for suffixes below the
/// 255 bytes that file systems allow.
const COMPONENT_MAX: usize = 120;

/// Longest path of a socket, in bytes: `sun_path` holds 108 including the final NUL (unix(7)).
pub(crate) const SOCKET_PATH_MAX: usize = 107;

/// Size of a trial file in bytes: as much as the records of an account.
const PROBE_BYTES: usize = 8192;

/// The name under which an account is kept; it becomes a directory name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct AccountName(String);

impl AccountName {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for AccountName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
        if text.is_empty() || text.len() > 64 || text.starts_with(['.', '-']) {
            return Err(
                "an account name has 1 to 64 bytes and begins with neither a dot nor a dash"
                    .to_owned(),
            );
        }
        if text == RUN_DIR || !text.chars().all(allowed) {
            return Err("an account name consists of letters, digits and . _ - @ +".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AccountName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.0
    }
}

/// Stands in for the runtime directory inside the state directory; no account may be called so.
const RUN_DIR: &str = "run";

/// The base directories in force.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    /// `config.toml`.
    pub(crate) config_file: PathBuf,
    /// Parent of the accounts' state.
    pub(crate) state: PathBuf,
    /// Parent of the accounts' caches.
    pub(crate) cache: PathBuf,
    /// Sockets and the records of running daemons.
    pub(crate) runtime: PathBuf,
    /// systemd's user units.
    pub(crate) user_units: PathBuf,
}

impl Dirs {
    /// Reads the XDG variables.
    pub(crate) fn from_env() -> Outcome<Self> {
        let base = etcetera::base_strategy::Xdg::new().map_err(|_| {
            Failure::new("finding the home directory", "HOME is not set")
                .next("set HOME, or XDG_CONFIG_HOME, XDG_STATE_HOME and XDG_CACHE_HOME")
        })?;
        let state_home = base
            .state_dir()
            .unwrap_or_else(|| base.home_dir().join(".local/state"));
        let state = state_home.join(APPLICATION);
        Ok(Self {
            config_file: base.config_dir().join(APPLICATION).join("config.toml"),
            cache: base.cache_dir().join(APPLICATION),
            runtime: base
                .runtime_dir()
                .map_or_else(|| state.join(RUN_DIR), |dir| dir.join(APPLICATION)),
            user_units: base.config_dir().join("systemd/user"),
            state,
        })
    }

    /// The directories of a demonstration: all of them below one, which is removed afterwards.
    pub(crate) fn below(root: &Path, runtime: PathBuf) -> Self {
        Self {
            config_file: root.join("config.toml"),
            state: root.join("state"),
            cache: root.join("cache"),
            runtime,
            user_units: root.join("units"),
        }
    }

    /// Everything of one account.
    pub(crate) fn account(&self, account: &AccountName) -> PathBuf {
        self.state.join(account.as_str())
    }

    /// What is remembered about an account.
    pub(crate) fn account_file(&self, account: &AccountName) -> PathBuf {
        self.account(account).join("account.json")
    }

    /// The tokens of an account.
    pub(crate) fn token_file(&self, account: &AccountName) -> PathBuf {
        self.account(account).join("token.json")
    }

    /// Metadata, journal and spool of a drive.
    pub(crate) fn drive_state(&self, account: &AccountName, root: &RootRecord) -> PathBuf {
        self.account(account).join(component(&root_key(root)))
    }

    /// Everything that may be wiped of one account.
    pub(crate) fn account_cache(&self, account: &AccountName) -> PathBuf {
        self.cache.join(account.as_str())
    }

    /// The content cache of a drive.
    pub(crate) fn drive_cache(&self, account: &AccountName, root: &RootRecord) -> PathBuf {
        self.account_cache(account).join(component(&root_key(root)))
    }

    /// The same for what answers in the place of a mount that did not come up.
    pub(crate) fn standby_stem(&self, mountpoint: &Path) -> String {
        digest(&format!("standby {}", mountpoint.display()))
    }

    /// File name, without suffix, of a daemon's socket and record in the runtime directory. It is
    /// shortened so that the socket's path fits, if the directory leaves room at all.
    pub(crate) fn daemon_stem(&self, account: &AccountName, root: &RootRecord) -> String {
        let full = component(&format!("{account}-{}", root_key(root)));
        let room = SOCKET_PATH_MAX.saturating_sub(self.runtime.as_os_str().len() + "/.sock".len());
        if full.len() <= room {
            return full;
        }
        digest(&full)
    }
}

/// What tells the state of one drive, or of one mounted folder of it, from any other.
fn root_key(root: &RootRecord) -> String {
    match &root.folder {
        Some(folder) => format!("{}+{}", root.drive.key(), folder.id.key()),
        None => root.drive.key(),
    }
}

/// Makes text that came from elsewhere into one harmless file name; different texts stay different.
pub(crate) fn component(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '!' | '_' | '-' | '@' | '+');
    let dotless = !text.starts_with('.');
    let harmless = text.chars().all(|c| plain(c) || c == '.') && dotless;
    if harmless && !text.is_empty() && text.len() <= COMPONENT_MAX {
        return text.to_owned();
    }
    format!("x{}", digest(text))
}

/// 128 bits of SHA-256 in hexadecimal: enough that two drives of one user never share a name.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Creates a directory, and those above it, that only this user can enter.
pub(crate) fn create_private_dir(path: &Path) -> Outcome {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| unwritable(path, error))
}

/// Writes a file that only this user can read: all of it or none, also after a power cut.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Outcome {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_private_dir(parent)?;
    let write = || -> io::Result<()> {
        // Created with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|error| unwritable(path, error))
}

/// Explains why nothing can be written somewhere.
pub(crate) fn unwritable(path: &Path, error: io::Error) -> Failure {
    let next = disk_remedy(error.kind());
    Failure::because(format!("writing {}", path.display()), error).next(next)
}

/// Explains why something cannot be read.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> Failure {
    let next = disk_remedy(error.kind());
    Failure::because(format!("reading {}", path.display()), error).next(next)
}

/// What to do about a failure of the disk.
pub(crate) fn disk_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on that disk, then try again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "make that file system writable, or point the XDG variables somewhere else"
        }
        io::ErrorKind::PermissionDenied => {
            "check the owner and the mode of that directory, or point the XDG variables somewhere \
             else"
        }
        _ => "check that path, then run `onedrivefs doctor`",
    }
}

/// Tries whether files can be created in a directory, before work is done that needs them.
pub(crate) fn check_writable(dir: &Path) -> Outcome {
    create_private_dir(dir)?;
    tempfile::tempfile_in(dir)
        .and_then(|mut file| file.write_all(&[0; PROBE_BYTES]))
        .map_err(|error| unwritable(dir, error))
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove_file(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).explain(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a path absolute and removes `.` and `..` without touching the file system, because a
/// mount may be in the way that does not answer.
pub(crate) fn absolute(path: &Path) -> Outcome<PathBuf> {
    let full = std::path::absolute(path).explain(|| format!("reading {}", path.display()))?;
    let mut clean = PathBuf::new();
    for part in full.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::FolderRecord;
    use onedrivefs_core::{DriveId, ItemId};
    use std::os::unix::fs::PermissionsExt;

    fn drive(id: &str) -> RootRecord {
        RootRecord {
            drive: DriveId::new(id),
            folder: None,
            is_file: false,
        }
    }

    fn dirs(runtime: &str) -> Dirs {
        Dirs::below(Path::new("/s"), PathBuf::from(runtime))
    }

    #[test]
    fn account_names_are_safe_file_names() {
        for good in ["default", "ada@example.com", "büro", "a-b_c.d+e"] {
            assert!(good.parse::<AccountName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "-x", "run", "a\n"] {
            assert!(bad.parse::<AccountName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(65).parse::<AccountName>().is_err());
    }

    #[test]
    fn hostile_drive_ids_stay_inside_their_directory() {
        let dirs = dirs("/run/user/1/onedrivefs");
        let account = AccountName::default();
        for id in ["..", "../../etc", "a/b", "", "x\0y", &"l".repeat(4000)] {
            let path = dirs.drive_state(&account, &drive(id));
            assert_eq!(path.parent(), Some(Path::new("/s/state/default")), "{id:?}");
            assert!(path.file_name().is_some_and(|name| name.len() < 200));
        }
        let plain = dirs.drive_state(&account, &drive("b!AbC-1_2"));
        assert_eq!(plain, Path::new("/s/state/default/b!AbC-1_2"));
        let folder = RootRecord {
            folder: Some(FolderRecord {
                id: ItemId::new("../01X"),
                name: "..".to_owned(),
            }),
            ..drive("b!AbC-1_2")
        };
        let inside = dirs.drive_state(&account, &folder);
        assert_eq!(inside.parent(), Some(Path::new("/s/state/default")));
        assert_ne!(inside, plain);
    }

    #[test]
    fn socket_names_are_shortened_to_fit() {
        let account: AccountName = "ada".parse().expect("valid");
        let drive = drive("b!0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        let roomy = dirs("/run/user/1000/onedrivefs");
        assert_eq!(
            roomy.daemon_stem(&account, &drive),
            format!("ada-{}", drive.drive.as_str())
        );
        let tight = dirs("/tmp/a-rather-long-directory/for-a-test/run");
        let stem = tight.daemon_stem(&account, &drive);
        assert_eq!(stem.len(), 32);
        assert!(tight.runtime.join(format!("{stem}.sock")).as_os_str().len() <= SOCKET_PATH_MAX);
        assert_ne!(stem, tight.daemon_stem(&AccountName::default(), &drive));
    }

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a/b/secret.json");
        write_private(&path, b"one").expect("first write");
        write_private(&path, b"two").expect("second write");
        assert_eq!(fs::read(&path).expect("read back"), b"two");
        let mode = |p: &Path| fs::metadata(p).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
    }

    #[test]
    fn paths_are_cleaned_without_looking_at_the_disk() {
        let clean = absolute(Path::new("/nowhere/a/./b/../c")).expect("absolute");
        assert_eq!(clean, Path::new("/nowhere/a/c"));
    }
}
