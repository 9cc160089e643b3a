//! Copies that the service is making, and what comes of them.
//!
//! What was made is compared with what was meant: the original may have been replaced just before.
//! The times of a copy are those of its making; the right ones are sent in a request of their own,
//! which on business drives makes one more version.

use std::time::Duration;

use onedrivefs_core::{DriveKind, Ino, ItemId, NameKey, RemoteItem, kill_point, name};
use onedrivefs_graph::{CopyMonitor, CopyStatus, Disposition, GraphError};
use onedrivefs_store::{Item, RemoteCopy, StoreError, Unanswered};

use super::Step;
use super::adopt::{Uploaded, Verdict, is_rewritten_kind};
use super::copy::Original;
use crate::apply::remote_of;
use crate::engine::Engine;
use crate::error::EngineError;

/// First pause between two looks at a monitor; it grows to [`POLL_MAX`].
pub(super) const POLL_FIRST: Duration = Duration::from_millis(300);

/// Longest pause between two looks.
const POLL_MAX: Duration = Duration::from_secs(10);

/// Looks after which a copy counts as stuck: two hours.
const POLLS_MAX: u32 = 720;

/// As how many looks one counts at a copy that is said to be there and cannot be seen. The service
/// may show it a moment later; or somebody has deleted it.
const HIDDEN_POLLS: u32 = POLLS_MAX / 8;

/// Pause between two of those.
const HIDDEN_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a copy.
enum Seen {
    /// The item that was made.
    Made(Box<RemoteItem>),
    /// The service works on it, or cannot be asked.
    Nothing,
    /// It is said to be there.
    Hidden,
    /// It was not made, for this reason, if there is one.
    Failed(String),
}

impl Engine {
    /// Looks how a copy goes that the service was asked to make.
    pub(super) async fn follow_copy(
        &self,
        item: &Item,
        copy: &RemoteCopy,
    ) -> Result<Step, EngineError> {
        kill_point("before-copy-status");
        let sent = self.store.read(|r| r.unanswered_of(item.ino))?;
        let Some(sent) = sent.into_iter().rfind(|sent| sent.size.is_some()) else {
            // A page of changes told of it already.
            self.forget_copy(item.ino)?;
            return Ok(Step::Progress);
        };
        let seen = self.look_at_copy(copy, &sent).await?;
        kill_point("copy-status-known");
        let (looks, pause) = match seen {
            Seen::Made(there) => {
                let body = (copy.body, copy.generation);
                return self.copy_made(item, body, &sent, &there).await;
            }
            Seen::Failed(code) => return self.copy_failed(item, copy.body, &code).await,
            Seen::Nothing => {
                let pause = POLL_FIRST.saturating_mul(1 << copy.polls.min(8));
                (copy.polls + 1, pause.min(POLL_MAX))
            }
            Seen::Hidden => (copy.polls + HIDDEN_POLLS, HIDDEN_PAUSE),
        };
        if looks > POLLS_MAX {
            return self.copy_failed(item, copy.body, "").await;
        }
        self.note_looks(item.ino, looks)?;
        Ok(Step::Wait(pause))
    }

    /// Asks the monitor, and where that does not help the service, for what was made.
    async fn look_at_copy(
        &self,
        copy: &RemoteCopy,
        sent: &Unanswered,
    ) -> Result<Seen, EngineError> {
        let made = |there: RemoteItem| Seen::Made(Box::new(there));
        let status = self.graph.copy_status(&CopyMonitor(copy.url.clone())).await;
        match status {
            Ok(CopyStatus::Running { .. }) => Ok(Seen::Nothing),
            Ok(CopyStatus::Failed { code, message }) => {
                tracing::debug!(code, message, "The service failed to make a copy.");
                Ok(Seen::Failed(code))
            }
            Ok(CopyStatus::Completed { item }) => {
                let there = match item {
                    Some(id) => self.copied_item(&id).await?,
                    None => self.find_copy(sent).await?,
                };
                Ok(there.map_or(Seen::Hidden, made))
            }
            Err(error) => {
                let lost = is_lost(error)?;
                // A monitor is often on another host, which says nothing about the service itself;
                // and one that is gone was perhaps done long ago.
                let there = self.find_copy(sent).await?;
                let otherwise = if lost {
                    Seen::Failed(String::new())
                } else {
                    Seen::Nothing
                };
                Ok(there.map_or(otherwise, made))
            }
        }
    }

    /// Reads the item that a monitor names.
    async fn copied_item(&self, id: &ItemId) -> Result<Option<RemoteItem>, EngineError> {
        match self.graph.item(&self.config.drive.id, id).await {
            Ok(there) => Ok(Some(there)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes that the service is not done.
    fn note_looks(&self, ino: Ino, looks: u32) -> Result<(), EngineError> {
        self.store.write(|tx| {
            if let Some(mut row) = tx.journal(ino)?
                && let Some(copy) = &mut row.copy
            {
                copy.polls = looks;
                tx.put_journal(&row)?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }

    /// The service follows no copy for an inode any more.
    fn forget_copy(&self, ino: Ino) -> Result<(), EngineError> {
        self.store.write(|tx| {
            if let Some(mut row) = tx.journal(ino)? {
                row.copy = None;
                tx.put_journal(&row)?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }

    /// The service did not make a copy.
    async fn copy_failed(&self, item: &Item, body: u64, code: &str) -> Result<Step, EngineError> {
        self.forget_copy(item.ino)?;
        if item.parent.is_none() || item.remote.is_some() {
            return Ok(Step::Progress);
        }
        if code.eq_ignore_ascii_case("nameAlreadyExists")
            && let Some(parent) = self.folder_id(item)?
            && let Some(step) = self.look_at_taken_name(item, &parent).await?
        {
            return Ok(step);
        }
        self.copy_is_uploaded(item, body, "the service could not copy it")?;
        Ok(Step::Progress)
    }

    /// The service made a copy: takes it, if it is what was meant.
    pub(super) async fn copy_made(
        &self,
        item: &Item,
        body: (u64, u64),
        sent: &Unanswered,
        there: &RemoteItem,
    ) -> Result<Step, EngineError> {
        if item.parent.is_none() {
            return self.copy_unwanted(item, sent, there).await;
        }
        if self.is_name_taken(sent, there).await? {
            // The service gave the copy another one.
            if !self.is_written_since(sent, there).await? {
                self.store.write(|tx| self.adopt_stray(tx, there))?;
            }
            self.forget_copy(item.ino)?;
            if let Some(parent) = self.folder_id(item)?
                && let Some(step) = self.look_at_taken_name(item, &parent).await?
            {
                return Ok(step);
            }
            return Ok(Step::Progress);
        }
        if self.is_written_since(sent, there).await? {
            // Two files by now: the copy is theirs, and ours is uploaded.
            self.forget_asked(item.ino, there)?;
            self.copy_is_uploaded(item, body.0, "somebody changed it meanwhile")?;
            return Ok(Step::Progress);
        }
        let verdict = self.judge_copy(body.0, sent, there).await?;
        if verdict == Verdict::Different {
            // It is ours all the same, and its content the next thing to be sent.
            self.copy_is_uploaded(item, body.0, "the original was replaced meanwhile")?;
        }
        let sent = Uploaded {
            ino: item.ino,
            body: Some(body),
            size: sent.size.unwrap_or(0),
            hash: sent.hash,
            mtime: item.mtime,
            parent: Some(sent.parent),
            name: sent.name.clone(),
            times_sent: false,
        };
        self.adopt_content(&sent, there, verdict)?;
        self.forget_copy(item.ino)?;
        Ok(Step::Progress)
    }

    /// Tells whether a copy has another name than was asked for because another item has that one,
    /// and not because somebody renamed it since.
    async fn is_name_taken(
        &self,
        sent: &Unanswered,
        there: &RemoteItem,
    ) -> Result<bool, EngineError> {
        let other_name = |name: &str| NameKey::of(&name::decode(name)) != NameKey::of(&sent.name);
        if !there.name.as_deref().is_some_and(other_name) {
            return Ok(false);
        }
        let holder = self.find_named(sent).await?;
        Ok(holder.is_some_and(|holder| holder.id != there.id))
    }

    /// A copy was made of which nobody wants anything any more: it is deleted again, unless somebody
    /// has taken to it.
    async fn copy_unwanted(
        &self,
        item: &Item,
        sent: &Unanswered,
        there: &RemoteItem,
    ) -> Result<Step, EngineError> {
        let theirs = self.is_written_since(sent, there).await?;
        self.store.write(|tx| {
            let known = theirs || tx.item_by_id(&there.id)?.is_some();
            if let Some(mut now) = tx.item(item.ino)?.filter(|_| !known) {
                now.remote = Some(remote_of(there, Some(sent.parent), sent.name.clone(), &now));
                tx.update_item(&now)?;
            }
            Ok::<(), StoreError>(())
        })?;
        self.forget_asked(item.ino, there)?;
        Ok(Step::Progress)
    }

    /// Neither follows a copy for an inode any more nor takes anything for what was asked for.
    fn forget_asked(&self, ino: Ino, copy: &RemoteItem) -> Result<(), EngineError> {
        self.store.write(|tx| tx.forget_answered(ino, &copy.id))?;
        self.forget_copy(ino)
    }

    /// Tells whether somebody has written into a copy since the service made it. Its tag does not tell,
    /// since nobody has seen the one that it was made with; nor does its content, which may be that of
    /// a later version of the original. But a copy begins with one version.
    async fn is_written_since(
        &self,
        sent: &Unanswered,
        there: &RemoteItem,
    ) -> Result<bool, EngineError> {
        if sent.made(there.size, there.hash) {
            return Ok(false);
        }
        let versions = self.graph.versions(&self.config.drive.id, &there.id).await;
        let known = match versions {
            Ok(versions) => versions.len(),
            Err(error) => match error.disposition() {
                Disposition::NotFound | Disposition::Permanent | Disposition::Unsupported => 0,
                _ => return Err(error.into()),
            },
        };
        // The hash of what was just made may be late; and what libraries do on arrival may take a while.
        let looks_right = there.hash.is_none() && there.size == sent.size;
        let times_tell = !looks_right && !self.may_be_rewritten(&sent.name);
        Ok(known > 1 || times_tell && are_times_set(there))
    }

    /// Tells whether the service may change a file with this name on arrival.
    fn may_be_rewritten(&self, name: &str) -> bool {
        self.config.drive.kind != DriveKind::Personal && is_rewritten_kind(name)
    }

    /// Compares a copy with what was meant.
    async fn judge_copy(
        &self,
        body: u64,
        sent: &Unanswered,
        there: &RemoteItem,
    ) -> Result<Verdict, EngineError> {
        if sent.made(there.size, there.hash) {
            return Ok(Verdict::Same);
        }
        let Some(row) = self.store.read(|r| r.body(body))? else {
            return Ok(Verdict::Different);
        };
        let original = match &row.base_item {
            Some(original) => self.look_at_original(&row, original).await?,
            None => return Ok(Verdict::Different),
        };
        // The hash of what was just made may be late.
        let looks_right = there.hash.is_none() && there.size == sent.size;
        let rewritten = self.may_be_rewritten(&sent.name);
        Ok(match original {
            Original::Same | Original::Gone if looks_right => Verdict::Same,
            Original::Same if rewritten => Verdict::Rewritten,
            // There is nothing else left of it.
            Original::Gone if row.ranges.is_some() => Verdict::Rewritten,
            _ => Verdict::Different,
        })
    }
}

/// Tells whether the times of an item are not those of its making, which a copy begins with. That is
/// what remains of a change where a library keeps no versions.
fn are_times_set(there: &RemoteItem) -> bool {
    let times = there.created.zip(there.modified);
    times.is_some_and(|(created, modified)| !modified.same_second(created))
}

/// Tells whether nothing will be heard of a copy any more from its monitor.
///
/// # Errors
/// The service asks for some patience.
fn is_lost(error: GraphError) -> Result<bool, GraphError> {
    match error.disposition() {
        Disposition::RetryAfter(_) => Err(error),
        Disposition::Offline | Disposition::Retry => Ok(false),
        // Addresses are signed, and expire.
        _ => Ok(true),
    }
}
