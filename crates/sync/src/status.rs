//! What `status` shows.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{BodyRow, Item, JournalRow, Ops, Place, Reader, StoreError};
use serde::{Deserialize, Serialize};

use crate::brake;
use crate::engine::{Engine, item_at};
use crate::error::EngineError;
use crate::net_state::Net;
use crate::parked::Paths;
use crate::pins::{Kept, PinnedBy, PinsStatus, ToFetch};

/// How old the sum of waiting bytes may be.
const PENDING_AGE: Duration = Duration::from_secs(1);

/// Conflicts listed at most.
const CONFLICTS_MAX: usize = 100;

/// Parked changes listed at most, deletions that are held back aside: an answer has a limit.
const PARKED_MAX: usize = 10_000;

/// Deletions listed at most that are held back. The error of each says how many there are.
const HELD_MAX: u32 = 1000;

/// Changes listed at most that fail and are tried again.
const FAILING_MAX: u32 = 100;

/// How the drive is doing as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The service answers.
    Online,
    /// The service does not answer.
    Offline,
    /// The service asked for a pause.
    Throttled,
    /// Somebody has to sign in again.
    NeedsLogin,
    /// The drive is being listed for the first time.
    Enumerating,
    /// The service does not let this account see it any more, or never did.
    NoAccess,
}

/// The drive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriveStatus {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub r#type: String,
    /// Its name.
    pub name: String,
    /// Whether the folder that is mounted is gone, or not shared any more.
    #[serde(default)]
    pub folder_gone: bool,
}

/// Space on the drive in bytes; zero when the service gives no figures.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// All of it.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// Waiting to be uploaded.
    pub pending: u64,
}

/// The content cache, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CacheStatus {
    /// On disk.
    pub bytes: u64,
    /// At most.
    pub limit: u64,
    /// Among them, those that are kept whatever the limit says.
    pub pinned: u64,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Changes.
    pub ops: u64,
    /// Bytes of file bodies among them.
    pub bytes: u64,
}

/// A transfer under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransferStatus {
    /// Path in the mount.
    pub path: String,
    /// `up` or `down`.
    pub direction: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A change that waits for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parked {
    /// Path in the mount.
    pub path: String,
    /// What was to be sent.
    pub op: String,
    /// Why it was not.
    pub error: String,
    /// Since when.
    pub since: String,
}

/// A conflict that was settled by keeping both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// Path of the service's version.
    pub path: String,
    /// Path of the version of this machine; an absolute one where that is outside of the mount.
    pub copy: String,
    /// When.
    pub when: String,
}

/// A change that fails and is tried again by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failing {
    /// Path in the mount.
    pub path: String,
    /// What is to be sent.
    pub op: String,
    /// Why it failed the last time.
    pub error: String,
}

/// What a person is shown beyond what scripts get.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// How many changes wait for a person, deletions that are held back aside.
    pub parked: u64,
    /// How many deletions are held back.
    pub held: u64,
    /// Why they are.
    pub held_reason: String,
    /// Changes that fail and are tried again.
    pub failing: Vec<Failing>,
}

/// A folder of another drive that is shown in the mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FollowedStatus {
    /// Path in the mount; absent when nothing shows it any more and only its changes are still sent.
    pub path: Option<String>,
    /// The path by which `export`, `retry` and `discard` name it then.
    #[serde(default)]
    pub left_path: Option<String>,
    /// The id of the drive.
    pub drive: String,
    /// The id of the folder in it.
    pub item: String,
    /// How it is doing; absent while nobody has looked into it.
    pub state: Option<State>,
    /// Whether it was shared for reading only.
    pub read_only: bool,
    /// Whether changes of others are announced instead of polled.
    pub push: bool,
    /// Items in it.
    pub items: u64,
    /// What waits to be sent there.
    pub pending: Pending,
}

/// Everything `status --json` prints, and what it prints for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// How the drive is doing.
    pub state: State,
    /// The drive.
    pub drive: DriveStatus,
    /// Items in the mount.
    pub items: u64,
    /// When changes of others were last looked for; absent before the first time.
    pub last_delta: Option<String>,
    /// Whether changes of others are announced instead of polled.
    pub push: bool,
    /// Space on the drive.
    pub quota: QuotaStatus,
    /// The content cache.
    pub cache: CacheStatus,
    /// What waits to be sent.
    pub pending: Pending,
    /// What is kept here whatever the limit says.
    #[serde(default)]
    pub pins: PinsStatus,
    /// Transfers under way.
    pub transfers: Vec<TransferStatus>,
    /// Changes that wait for a person.
    pub parked: Vec<Parked>,
    /// Conflicts.
    pub conflicts: Vec<Conflict>,
    /// Folders of other drives. All figures but the quota are sums over these and the mount's drive.
    #[serde(default)]
    pub drives: Vec<FollowedStatus>,
    /// For people only.
    pub details: Details,
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// On the service only.
    Cloud,
    /// Partly here.
    Partial,
    /// Here too.
    Cached,
    /// Here for good.
    Pinned,
    /// Waiting to be sent.
    Pending,
    /// Being sent.
    Uploading,
    /// Waiting for a person.
    Parked,
    /// Never sent.
    LocalOnly,
}

impl FileState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Partial => "partial",
            Self::Cached => "cached",
            Self::Pinned => "pinned",
            Self::Pending => "pending",
            Self::Uploading => "uploading",
            Self::Parked => "parked",
            Self::LocalOnly => "local-only",
        }
    }
}

/// What `status PATH --json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathStatus {
    /// Where the bytes are.
    pub status: FileState,
    /// The id on the service.
    pub id: Option<String>,
    /// The eTag.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that are here.
    pub cached_bytes: u64,
    /// Whether it is pinned, and if so whether by itself.
    #[serde(default)]
    pub pinned: Option<PinnedBy>,
    /// The path in the mount of what pins it: itself or a folder above it.
    #[serde(default)]
    pub pinned_by: Option<String>,
    /// What of it is not here yet, if it is pinned; of a folder, what of all that is below it.
    #[serde(default)]
    pub to_fetch: Option<ToFetch>,
}

impl Engine {
    /// How everything is.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn status(&self) -> Result<Status, EngineError> {
        let drive = &self.config.drive;
        let pending = self.pending()?;
        let quota = self.quota().unwrap_or_default();
        let (items, conflicts) = self
            .store
            .read(|r| Ok::<_, StoreError>((r.count_items()?, conflicts(r)?)))?;
        let (parked, details) = self.store.read(waiting_for_a_person)?;
        let (pins, pinned) = self.pins_status()?;
        let last_delta = self.last_delta.load(Ordering::Relaxed);
        Ok(Status {
            state: self.state(),
            drive: DriveStatus {
                id: drive.id.to_string(),
                r#type: drive.kind.as_str().to_owned(),
                name: drive.name.clone(),
                folder_gone: self.is_folder_gone(),
            },
            items,
            last_delta: (last_delta != 0).then(|| Timestamp::from_nanos(last_delta).to_service()),
            push: self.push.is_open(),
            quota: QuotaStatus {
                total: quota.total,
                used: quota.used,
                pending: pending.bytes,
            },
            cache: CacheStatus {
                bytes: self.cache_bytes(),
                limit: self.config.cache_limit_bytes,
                pinned,
            },
            pending,
            pins,
            transfers: self.transfer_list()?,
            parked,
            conflicts,
            drives: Vec::new(),
            details,
        })
    }

    /// The state in one word.
    #[must_use]
    pub fn state(&self) -> State {
        match self.net.get() {
            Net::Offline => State::Offline,
            Net::NeedsLogin => State::NeedsLogin,
            Net::Online if self.standing.denied.load(Ordering::Relaxed) => State::NoAccess,
            Net::Online if self.graph.throttled_until().is_some() => State::Throttled,
            Net::Online if self.enumerating.load(Ordering::Relaxed) => State::Enumerating,
            Net::Online => State::Online,
        }
    }

    /// What waits to be sent.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn pending(&self) -> Result<Pending, EngineError> {
        let (ops, bytes) = self.store.read(|r| r.pending())?;
        Ok(Pending { ops, bytes })
    }

    /// What is going to be sent, and how many changes wait for a person.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn outlook(&self) -> Result<(Pending, u64), EngineError> {
        let (ops, bytes, stuck) = self.store.read(|r| r.outlook())?;
        Ok((Pending { ops, bytes }, stuck))
    }

    /// Bytes that wait to be sent, as they were at most a second ago: the sum goes over the whole
    /// journal, too much for every new file of a large copy.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        let mut known = self.pending_bytes.lock();
        if let Some((at, bytes)) = *known
            && at.elapsed() < PENDING_AGE
        {
            return bytes;
        }
        let bytes = self.pending().map_or(0, |pending| pending.bytes);
        *known = Some((Instant::now(), bytes));
        bytes
    }

    fn transfer_list(&self) -> Result<Vec<TransferStatus>, EngineError> {
        let uploads = self.transfers.all().into_iter();
        let uploads = uploads.map(|(ino, transfer)| (ino, transfer, "up"));
        let downloads = self.pin_transfers()?.into_iter();
        let downloads = downloads.map(|(ino, transfer)| (ino, transfer, "down"));
        self.store.read(|r| {
            uploads
                .chain(downloads)
                .map(|(ino, transfer, direction)| {
                    Ok(TransferStatus {
                        path: r.path(ino)?,
                        direction: direction.to_owned(),
                        done: transfer.done,
                        total: transfer.total,
                    })
                })
                .collect()
        })
    }

    /// How one item is.
    ///
    /// # Errors
    /// `NoSuchPath`, or errors of the database.
    pub fn path_status(&self, path: &str) -> Result<PathStatus, EngineError> {
        self.status_of(&self.item_at(path)?, |ino| self.kept_below(ino))
    }

    /// Where the bytes of an item are. What is in a pinned folder is not looked through.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn file_state(&self, item: &Item) -> Result<FileState, EngineError> {
        let kept = |ino| match item.is_dir() {
            true => Ok(Kept::default()),
            false => self.kept_below(ino),
        };
        Ok(self.status_of(item, kept)?.status)
    }

    fn status_of(
        &self,
        item: &Item,
        kept_below: impl FnOnce(Ino) -> Result<Kept, EngineError>,
    ) -> Result<PathStatus, EngineError> {
        let (body, waiting, pin) = self.store.read(|r| {
            let body = item.body.map(|id| r.body(id)).transpose()?.flatten();
            Ok::<_, StoreError>((body, r.journal(item.ino)?, r.pin_of(item.ino)?))
        })?;
        let kept = pin.map(|_| kept_below(item.ino)).transpose()?;
        let body = body.map(|row| self.with_live_presence(row));
        let uploading = self.transfers.get(item.ino).is_some();
        let status = match &waiting {
            _ if item.local_only => FileState::LocalOnly,
            Some(row) if row.parked => FileState::Parked,
            _ if uploading => FileState::Uploading,
            Some(row) if !row.ops.without(Ops::TIMES).is_empty() => FileState::Pending,
            _ => match kept {
                Some(kept) if kept.is_here() => FileState::Pinned,
                Some(_) if item.is_dir() => FileState::Partial,
                _ => presence_state(item, body.as_ref()),
            },
        };
        let pinned_by = pin.map(|ino| self.path_of(ino)).transpose()?;
        Ok(PathStatus {
            status,
            id: item.item_id().map(ToString::to_string),
            etag: item
                .remote
                .as_ref()
                .and_then(|r| r.etag.as_ref())
                .map(|t| t.as_str().to_owned()),
            size: item.size,
            cached_bytes: body.as_ref().map_or(0, present_bytes),
            pinned: pin.map(|by| PinnedBy::of(item.ino, by)),
            pinned_by: pinned_by.map(|path| format!("/{path}")),
            to_fetch: kept.map(|kept| kept.to_fetch),
        })
    }

    /// The row of a body with what is present right now: rows of bodies in use lag behind.
    fn with_live_presence(&self, mut row: BodyRow) -> BodyRow {
        if let Some(body) = self.bodies.live(row.id) {
            row.ranges = body.presence().into_ranges();
        }
        row
    }

    /// The path of an inode in the mount.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn path_of(&self, ino: Ino) -> Result<String, EngineError> {
        Ok(self.store.read(|r| r.path(ino))?)
    }
}

/// What waits for a person, and what else a person wants to know of what is to be sent.
fn waiting_for_a_person(r: &Reader<'_>) -> Result<(Vec<Parked>, Details), StoreError> {
    let mut paths = Paths::default();
    let mut entry = |row: &JournalRow, error: String| {
        Ok::<_, StoreError>(Parked {
            path: paths.of(r, row.ino)?,
            op: row.ops.word().to_owned(),
            error,
            since: row.since.to_service(),
        })
    };
    let rows = r.parked()?;
    let mut details = Details {
        parked: rows.len() as u64,
        ..Details::default()
    };
    let mut parked = Vec::new();
    if let Some(held) = brake::held(r)? {
        for row in r.held_after(0, HELD_MAX)? {
            parked.push(entry(&row, held.to_string())?);
        }
        details.held = held.count;
        details.held_reason = held.reason;
    }
    for row in rows.iter().take(PARKED_MAX) {
        parked.push(entry(row, row.error.clone().unwrap_or_default())?);
    }
    for row in r.failing(FAILING_MAX)? {
        let failing = entry(&row, row.error.clone().unwrap_or_default())?;
        details.failing.push(Failing {
            path: failing.path,
            op: failing.op,
            error: failing.error,
        });
    }
    Ok((parked, details))
}

/// Conflicts whose copy is still there, newest first.
fn conflicts(r: &Reader<'_>) -> Result<Vec<Conflict>, StoreError> {
    let mut listed: Vec<Conflict> = Vec::new();
    for row in r.conflicts(u32::MAX)? {
        let again = listed.iter().any(|conflict| conflict.copy == row.copy);
        if again || !is_kept(r, &row.copy)? {
            continue;
        }
        listed.push(Conflict {
            path: row.path,
            copy: row.copy,
            when: row.at.to_service(),
        });
        if listed.len() == CONFLICTS_MAX {
            break;
        }
    }
    Ok(listed)
}

/// Tells whether a copy is still there. What a power cut left in doubt is outside of the mount.
fn is_kept(r: &Reader<'_>, copy: &str) -> Result<bool, StoreError> {
    if Path::new(copy).is_absolute() {
        return Ok(Path::new(copy).exists());
    }
    Ok(item_at(r, copy)?.is_some())
}

/// The state of a file that nothing waits for.
fn presence_state(item: &Item, body: Option<&BodyRow>) -> FileState {
    match body {
        _ if item.size == 0 => FileState::Cached,
        None => FileState::Cloud,
        Some(row) if row.place == Place::Spool => FileState::Pending,
        Some(row) if row.ranges.is_none() => FileState::Cached,
        Some(row) if present_bytes(row) == 0 => FileState::Cloud,
        Some(_) => FileState::Partial,
    }
}

/// Bytes of a body that are here.
fn present_bytes(row: &BodyRow) -> u64 {
    match &row.ranges {
        None => row.size,
        Some(ranges) => ranges.iter().map(|range| range.end - range.start).sum(),
    }
}
