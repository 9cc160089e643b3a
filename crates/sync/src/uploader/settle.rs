//! What happens with a row whose sending failed: when it is tried again, or that it is parked.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_graph::{Disposition, GraphError};
use onedrivefs_store::{JournalRow, Reader, StoreError};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::Event;
use crate::hydrate::HydrateError;
use crate::journal;
use crate::net_state::{Net, backoff};

/// Pause before a locked file is tried again: people keep documents open for minutes.
const LOCKED_PAUSE: Duration = Duration::from_secs(30);

/// Pause after there was no room on this machine.
const DISK_PAUSE: Duration = Duration::from_secs(3);

/// How the reason begins of changes that were parked because the drive is full. They are tried
/// again by themselves when there is room.
const DRIVE_FULL: &str = "the drive is full";

/// Pause after the first refusal that could be a passing one; it grows with every further one.
const DOUBT_PAUSE: Duration = Duration::from_secs(2);

/// Tries of a refusal that could be a passing one, before it counts as final. With the pauses in
/// between that is a quarter of an hour: as long as the service may hold a name for an upload
/// session that was lost.
const REFUSALS_MAX: u32 = 12;

/// Tries of a name that an unfinished upload holds: they take 27 minutes, and the service lets go
/// of the name after a quarter of an hour.
const HELD_MAX: u32 = 40;

/// Tries of a body that the service stores differently, or that is gone from the spool: each may
/// send all of it, and make another version.
const ALTERED_MAX: u32 = 3;

/// Tries of a copy that lacks bytes of an original which is no longer on the service: half a minute.
const GONE_MAX: u32 = 5;

/// Why changes are parked that lack bytes which the service has no more.
const LACKS_BYTES: &str = "parts of it were never downloaded, and the version they belong to is no \
    longer on the service; restore that there, from the recycle bin or the version history, and try \
    again";

/// Tells whether a change was parked because the drive is full.
fn is_full(row: &JournalRow) -> bool {
    let reason = row.error.as_deref().unwrap_or_default();
    reason.starts_with(DRIVE_FULL)
}

/// Tells whether the missing bytes of a body will most likely never be had.
pub(super) const fn is_lasting(error: &HydrateError) -> bool {
    matches!(
        error,
        HydrateError::Changed
            | HydrateError::Gone
            | HydrateError::TrueSize(_)
            | HydrateError::Corrupt
            | HydrateError::Refused(_)
    )
}

/// Tells whether some of the bytes of a file are not here.
fn lacks_bytes(r: &Reader<'_>, ino: Ino) -> Result<bool, StoreError> {
    let body = r.item(ino)?.and_then(|item| item.body);
    let row = body.map(|id| r.body(id)).transpose()?.flatten();
    Ok(row.is_some_and(|row| row.ranges.is_some()))
}

/// What becomes of a row.
enum Fate {
    /// Tried again after this long, without counting as a failure of the row.
    Later(Duration),
    /// Tried again after a pause that grows with the number of tries.
    Again,
    /// Tried again after a pause, or parked after this many tries.
    Doubtful(u32),
    /// Waits for a person.
    Parked,
    /// Waits for a person, or for room on the drive.
    Full,
}

impl Engine {
    /// Notes a failure in the row of an inode. `change` is the number that the row's last change had
    /// when the work began.
    pub(super) async fn settle_failure(&self, ino: Ino, change: u64, error: EngineError) {
        let error = self.explain_refusal(error).await;
        let cut_off = match &error {
            EngineError::Graph(error) => self.is_cut_off(error).await,
            _ => false,
        };
        let fate = match &error {
            EngineError::Graph(_) if cut_off => Fate::Again,
            EngineError::Graph(error) => self.fate(error),
            EngineError::Hydrate(HydrateError::Offline) => Fate::Later(Duration::from_secs(1)),
            EngineError::Hydrate(HydrateError::Gone) if self.lacks_original(ino) => {
                Fate::Doubtful(GONE_MAX)
            }
            EngineError::Hydrate(error) if is_lasting(error) => Fate::Doubtful(REFUSALS_MAX),
            error if error.is_local_disk() => {
                self.evictor.reserve().give_up();
                self.evictor.wake();
                Fate::Later(DISK_PAUSE)
            }
            EngineError::NoDrive => Fate::Parked,
            EngineError::NameHeld(_) => Fate::Doubtful(HELD_MAX),
            EngineError::MoveRefused(_) => Fate::Doubtful(REFUSALS_MAX),
            EngineError::Altered => Fate::Doubtful(ALTERED_MAX),
            EngineError::Body { source, .. } if source.kind() == ErrorKind::NotFound => {
                Fate::Doubtful(ALTERED_MAX)
            }
            _ => Fate::Again,
        };
        let changed = match &error {
            EngineError::Graph(error) => error.disposition() == Disposition::Changed,
            EngineError::Hydrate(error) => matches!(error, HydrateError::Changed),
            _ => false,
        };
        if changed && let Err(error) = self.look_again(ino, Some(ino)).await {
            tracing::debug!(%error, "An item that changed on the service could not be read.");
        }
        let path = self.path_of(ino).unwrap_or_default();
        tracing::debug!(path, %error, "Sending a change failed.");
        let noted = self.store.write(|tx| {
            // What is held back meanwhile was not to be sent.
            let Some(mut row) = tx.journal(ino)?.filter(|row| !row.held) else {
                return Ok(None);
            };
            // What somebody changed meanwhile has not been tried yet, and may well succeed.
            let fate = if row.change == change {
                &fate
            } else {
                &Fate::Again
            };
            let reason = match fate {
                Fate::Full => format!("{DRIVE_FULL}: {error}"),
                _ => error.to_string(),
            };
            apply_fate(&mut row, fate, reason);
            let base_is_gone = matches!(
                &error,
                EngineError::Hydrate(HydrateError::Changed | HydrateError::Gone)
            );
            if row.parked && base_is_gone && lacks_bytes(tx, ino)? {
                row.error = Some(LACKS_BYTES.to_owned());
            }
            tx.put_journal(&row)?;
            Ok::<_, EngineError>(row.error.filter(|_| row.parked))
        });
        match noted {
            Ok(Some(reason)) => {
                tracing::warn!(path, error = reason, "A change was parked.");
                self.tell(Event::Parked { path, reason });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(path, %error, "A failure could not be noted.");
                // Without a note it would be tried again at once, and for nothing.
                self.unwritable.store(true, Ordering::Release);
            }
        }
    }

    /// Tells whether a new file lacks bytes, which are those of another item then.
    fn lacks_original(&self, ino: Ino) -> bool {
        let lacks = |r: &Reader<'_>| {
            let is_new = r.item(ino)?.is_some_and(|item| item.remote.is_none());
            Ok::<_, StoreError>(is_new && lacks_bytes(r, ino)?)
        };
        self.store.read(lacks).unwrap_or(false)
    }

    /// Tells whether changes wait for room on the drive.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.store
            .read(|r| r.parked())
            .is_ok_and(|rows| rows.iter().any(is_full))
    }

    /// Lets changes be tried again that were parked because the drive was full, as far as there is
    /// room for them now.
    ///
    /// # Errors
    /// Errors of the database.
    pub(crate) fn retry_what_fits(&self) -> Result<(), EngineError> {
        let Some(quota) = self.quota() else {
            return Ok(());
        };
        let mut room = quota.total.saturating_sub(quota.used);
        let freed = self.store.write(|tx| {
            let mut freed = 0;
            for row in tx.parked()?.into_iter().filter(is_full) {
                let size = tx.item(row.ino)?.map_or(0, |item| item.size);
                if size <= room {
                    room -= size;
                    freed += 1;
                    let row = journal::open_row(tx, row.ino, Timestamp::now())?;
                    tx.put_journal(&row)?;
                }
            }
            Ok::<_, EngineError>(freed)
        })?;
        if freed > 0 {
            tracing::info!(freed, "There is room on the drive again.");
            self.wake_uploader();
        }
        Ok(())
    }

    /// Tells whether a host of content cannot be reached although Graph answers: that is no want of a
    /// network, and would look like one for ever behind a proxy that lets only Graph through.
    pub(super) async fn is_cut_off(&self, error: &GraphError) -> bool {
        if !self.graph.is_elsewhere(error) {
            return false;
        }
        let top = self.top_folder();
        match self.graph.item(&self.config.drive.id, &top).await {
            Ok(_) => true,
            Err(error) => error.status().is_some(),
        }
    }

    /// What a failed request means for its row.
    fn fate(&self, error: &GraphError) -> Fate {
        match error.disposition() {
            Disposition::RetryAfter(pause) => Fate::Later(pause),
            Disposition::Offline => {
                self.net.set(Net::Offline);
                self.wake_freshness();
                Fate::Later(Duration::ZERO)
            }
            Disposition::Reauth => {
                self.net.set(Net::NeedsLogin);
                Fate::Later(Duration::ZERO)
            }
            Disposition::Locked => Fate::Later(LOCKED_PAUSE),
            Disposition::QuotaFull => Fate::Full,
            Disposition::Permanent | Disposition::Unsupported => Fate::Parked,
            Disposition::NotFound | Disposition::Conflict | Disposition::Changed => {
                Fate::Doubtful(REFUSALS_MAX)
            }
            _ => Fate::Again,
        }
    }

    /// Reads an item that changed on the service, so that the merge can decide.
    /// `owner` is the inode whose own request that is for.
    pub(crate) async fn look_again(&self, ino: Ino, owner: Option<Ino>) -> Result<(), EngineError> {
        let Some(id) = self
            .store
            .item(ino)?
            .and_then(|item| item.item_id().cloned())
        else {
            return Ok(());
        };
        let asked = Instant::now();
        let there = self.find_item(&id).await?;
        self.hash_for_decisions(Some(&there)).await?;
        self.apply_now(&[there], owner, asked)
    }
}

/// Writes a fate into a row.
fn apply_fate(row: &mut JournalRow, fate: &Fate, error: String) {
    let pause = match fate {
        Fate::Later(pause) => *pause,
        Fate::Again => {
            row.attempts += 1;
            backoff(row.attempts)
        }
        Fate::Doubtful(tries) => {
            row.attempts += 1;
            row.parked = row.attempts > *tries;
            DOUBT_PAUSE.saturating_mul(row.attempts)
        }
        Fate::Parked | Fate::Full => {
            row.parked = true;
            Duration::ZERO
        }
    };
    row.error = Some(error);
    let nanos = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
    row.not_before = Timestamp::from_nanos(Timestamp::now().as_nanos().saturating_add(nanos));
}
