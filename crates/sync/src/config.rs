//! What an engine is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use onedrivefs_core::local_only::LocalOnly;
use onedrivefs_core::{DriveId, DriveKind, ItemId};

use crate::authorship::Oneself;
use crate::brake::BrakeLimits;
use crate::family::Family;

/// The drive an engine serves.
#[derive(Clone, Debug)]
pub struct DriveIdentity {
    /// Its id.
    pub id: DriveId,
    /// Its kind, hence its rules.
    pub kind: DriveKind,
    /// The name people see.
    pub name: String,
}

/// Settings of an engine. [`EngineConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Holds the database and the spool of this drive.
    pub state_dir: PathBuf,
    /// Holds the content cache of this drive.
    pub cache_dir: PathBuf,
    /// The drive.
    pub drive: DriveIdentity,
    /// The folder of the drive that is the root of the mount; `None` for the drive's own.
    pub folder: Option<ItemId>,
    /// Who is signed in.
    pub oneself: Oneself,
    /// Pause between two looks for changes of others.
    pub poll_interval: Duration,
    /// Most bytes the content cache may take; the least recently used bodies go first.
    pub cache_limit_bytes: u64,
    /// Bytes that stay free on the disk of the content cache; `None` for 1 GiB, or an eighth of a
    /// disk where that is less.
    pub free_disk_floor_bytes: Option<u64>,
    /// Whether `close` waits until the service has the body.
    pub upload_on_close_wait: bool,
    /// Names that are never uploaded.
    pub local_only: LocalOnly,
    /// Whether names that the service refuses give an error instead of being encoded.
    pub reject_names: bool,
    /// The name of this machine in the names of conflict copies.
    pub host_name: String,
    /// How long whoever wants a listing of a folder that is not known yet waits for its first page,
    /// and for each further one.
    pub metadata_deadline: Duration,
    /// How long a read waits for its first byte, and a listing that makes progress for its end.
    pub first_byte_deadline: Duration,
    /// How long a change rests before it is sent, so that a save by rename is seen whole.
    pub settle: Duration,
    /// Changes that are sent at the same time; half as many of large files.
    pub upload_parallelism: usize,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether nothing may be changed in what others share.
    pub read_only_elsewhere: bool,
    /// Whether it serves no drive of the service, but folders of this machine that show what is in
    /// others. Of the service it knows the files that it shows, each by itself.
    pub groups: bool,
    /// How many deletions within a minute are sent without asking.
    pub brake: BrakeLimits,
    /// How long after the last deletion all of them rest. Until then they can be taken back.
    pub deletion_rest: Duration,
    /// What it shares with the other engines of its mount.
    pub family: Family,
}

impl EngineConfig {
    /// The defaults for a drive.
    #[must_use]
    pub fn new(state_dir: PathBuf, cache_dir: PathBuf, drive: DriveIdentity) -> Self {
        Self {
            state_dir,
            cache_dir,
            drive,
            folder: None,
            oneself: Oneself::default(),
            poll_interval: Duration::from_secs(30),
            cache_limit_bytes: 10 << 30,
            free_disk_floor_bytes: None,
            upload_on_close_wait: false,
            local_only: LocalOnly::default(),
            reject_names: false,
            host_name: host_name(),
            metadata_deadline: Duration::from_secs(2),
            first_byte_deadline: Duration::from_secs(15),
            settle: Duration::from_secs(1),
            upload_parallelism: 16,
            read_only: false,
            read_only_elsewhere: false,
            groups: false,
            brake: BrakeLimits::default(),
            deletion_rest: Duration::ZERO,
            family: Family::default(),
        }
    }
}

/// The name of this machine, without its domain and fit for a file name.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let short: String = name
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .take(40)
        .collect();
    if short.is_empty() {
        "this computer".to_owned()
    } else {
        short
    }
}
