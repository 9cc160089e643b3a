//! Upload sessions: beginning, resuming, sending fragment after fragment.
//!
//! The address of a session is in the journal before its first byte is sent, and the position after
//! every fragment, so that a killed daemon goes on where it was.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use onedrivefs_core::{
    ByteRange, DriveId, ExposeSecret as _, RemoteItem, Timestamp, kill_point, name,
};
use onedrivefs_graph::{Disposition, FragmentOutcome, GraphError, UploadProps};
use onedrivefs_store::{BodyRow, Item, JournalRow, Session, StoreError};
use tokio_util::sync::CancellationToken;

use super::content::Job;
use super::fragment::{self, FragmentSize};
use super::frozen::{io_error, pieces};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::{Demand, HydrateError, Source};
use crate::journal::{self, stored_name};
use crate::merge::content_changed;

/// How often one piece of work may begin a new session, or ask for its position, before it waits
/// for its next try.
pub(super) const SESSIONS_MAX: u32 = 3;

/// How sending fragments ended.
pub(super) enum Sent {
    /// The body is there.
    Arrived(Option<Box<RemoteItem>>),
    /// The session is gone.
    Gone,
    /// The service refused to put the body in place.
    Refused(GraphError),
    /// Nobody wants the body there any more.
    Cancelled,
}

impl Engine {
    /// Begins a session and writes its address down before anything is sent.
    pub(super) async fn begin_session(&self, job: &Job<'_>) -> Result<Session, EngineError> {
        let (target, conditions) = self.destination(job.item, job.parent.clone());
        let name = job
            .item
            .remote
            .as_ref()
            .map_or_else(|| stored_name(job.item), |r| r.name.clone());
        let props = UploadProps {
            name: name::encode(&name),
            size: job.size,
            created: Some(job.item.btime),
            modified: Some(job.item.mtime),
        };
        kill_point("before-session");
        let begun = self
            .graph
            .create_upload_session(&target, &props, &conditions)
            .await?;
        kill_point("session-begun");
        let session = Session {
            url: begun.url,
            offset: begun.next_offset,
            body: job.row.id,
            generation: job.row.generation,
            size: job.size,
        };
        self.note_session(job.item, &session)?;
        if job.size > fragment::FIRST {
            // Worth going on with, and it holds the name until it ends.
            self.barrier().await?;
        }
        Ok(session)
    }

    /// Writes the state of a session into the journal.
    pub(super) fn note_session(&self, item: &Item, session: &Session) -> Result<(), EngineError> {
        self.store.write(|tx| {
            let Some(mut row) = tx.journal(item.ino)? else {
                // Nothing waits for it any more.
                return journal::abandon(tx, session.clone(), Timestamp::now());
            };
            let other = row
                .session
                .replace(session.clone())
                .filter(|other| other.url.expose_secret() != session.url.expose_secret());
            if let Some(other) = other {
                journal::abandon(tx, other, Timestamp::now())?;
            }
            let place = |item: &Item| (item.parent, item.name.clone());
            if item.remote.is_none() && tx.item(item.ino)?.as_ref().map(place) != Some(place(item))
            {
                // It makes the file under the name it had: nobody is to go on with it later.
                journal::disown_session(&mut row);
            }
            tx.put_journal(&row)
        })?;
        Ok(())
    }

    /// Forgets a session that is of no use any more.
    pub(super) fn forget_session(&self, item: &Item) -> Result<(), EngineError> {
        self.store.write(|tx| {
            if let Some(mut row) = tx.journal(item.ino)? {
                row.session = None;
                tx.put_journal(&row)?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }

    /// Has a session ended that cannot be finished.
    pub(super) fn abandon_session(&self, item: &Item) -> Result<(), EngineError> {
        self.store.write(|tx| {
            if let Some(mut row) = tx.journal(item.ino)?
                && let Some(session) = row.session.take()
            {
                tx.put_journal(&row)?;
                journal::abandon(tx, session, Timestamp::now())?;
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(())
    }

    /// Ends a session for a body that is no longer the one to send. The service holds the name
    /// until it is ended on some drives.
    pub(super) async fn drop_session(
        &self,
        item: &Item,
        journal: &JournalRow,
    ) -> Result<(), EngineError> {
        let Some(session) = &journal.session else {
            return Ok(());
        };
        kill_point("before-session-cancel");
        match self.graph.cancel_upload(&session.url).await {
            Err(error)
                if error.disposition() == Disposition::Offline
                    && !self.is_cut_off(&error).await =>
            {
                return Err(error.into());
            }
            _ => kill_point("session-cancelled"),
        }
        self.forget_session(item)
    }

    /// Asks a session from an earlier run how far it is; `None` when it is gone.
    async fn realign(&self, mut session: Session) -> Result<Option<Session>, EngineError> {
        kill_point("before-session-status");
        match self.graph.upload_status(&session.url).await {
            Ok(status) => {
                kill_point("session-status-known");
                session.offset = status.next_offset;
                Ok(Some(session))
            }
            Err(error) => match error.disposition() {
                Disposition::SessionGone
                | Disposition::NotFound
                | Disposition::UrlExpired
                | Disposition::Permanent => Ok(None),
                _ => Err(error.into()),
            },
        }
    }

    /// Goes on with a session from an earlier run, after asking how far it is.
    pub(super) async fn go_on(
        &self,
        job: &Job<'_>,
        session: Session,
        token: &CancellationToken,
    ) -> Result<Sent, EngineError> {
        match self.realign(session).await? {
            Some(session) => self.send_fragments(job, session, token).await,
            None => Ok(Sent::Gone),
        }
    }

    /// Tells whether somebody changed the item since the session began. The condition of a session
    /// is only looked at when it begins, and a big body takes long: what is saved meanwhile would be
    /// overwritten by the last fragment.
    async fn changed_meanwhile(&self, job: &Job<'_>) -> Result<bool, EngineError> {
        let Some(base) = &job.item.remote else {
            return Ok(false);
        };
        match self.graph.item(&self.config.drive.id, &base.id).await {
            Ok(there) => Ok(content_changed(base, &there)),
            // Its last fragment will be refused.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends fragment after fragment.
    pub(super) async fn send_fragments(
        &self,
        job: &Job<'_>,
        mut session: Session,
        token: &CancellationToken,
    ) -> Result<Sent, EngineError> {
        let mut realigned = 0;
        let mut size = FragmentSize::new();
        loop {
            self.transfers.set(job.item.ino, session.offset, job.size);
            let end = session.offset.saturating_add(size.bytes());
            let range = session.offset..job.size.min(end);
            if range.is_empty() {
                return Ok(Sent::Gone);
            }
            if session.offset > 0 && range.end == job.size && self.changed_meanwhile(job).await? {
                let _unimportant = self.graph.cancel_upload(&session.url).await;
                kill_point("outdated-session-cancelled");
                self.forget_session(job.item)?;
                return Err(HydrateError::Changed.into());
            }
            // The last fragment is not broken off: it may have taken effect all the same, and
            // nobody would know of the file it made.
            let unwanted = async {
                if range.end == job.size && !token.is_cancelled() {
                    std::future::pending::<()>().await;
                }
                token.cancelled().await;
            };
            let begun = Instant::now();
            let outcome = tokio::select! {
                biased;
                () = unwanted => {
                    // On shutdown the session is kept: the next daemon goes on with it.
                    if !self.cancel.is_cancelled() {
                        let _unimportant = self.graph.cancel_upload(&session.url).await;
                        kill_point("unwanted-session-cancelled");
                    }
                    return Ok(Sent::Cancelled);
                }
                outcome = self.send_fragment(job, &session, range.clone()) => outcome,
            };
            kill_point("fragment-answered");
            match outcome {
                Ok(None) => {
                    let _unimportant = self.graph.cancel_upload(&session.url).await;
                    kill_point("superseded-session-cancelled");
                    return Ok(Sent::Cancelled);
                }
                Ok(Some(FragmentOutcome::Done(there))) => {
                    return Ok(Sent::Arrived(there.map(Box::new)));
                }
                Ok(Some(FragmentOutcome::Continue { next_offset, .. })) => {
                    size.note(next_offset.saturating_sub(session.offset), begun.elapsed());
                    session.offset = next_offset;
                    self.note_session(job.item, &session)?;
                }
                Err(EngineError::Graph(error)) => match error.disposition() {
                    Disposition::RangeMismatch if realigned < SESSIONS_MAX => {
                        realigned += 1;
                        match self.realign(session).await? {
                            Some(aligned) => session = aligned,
                            None => return Ok(Sent::Gone),
                        }
                    }
                    Disposition::SessionGone | Disposition::NotFound | Disposition::UrlExpired => {
                        return Ok(Sent::Gone);
                    }
                    Disposition::Conflict | Disposition::Changed => {
                        return Ok(Sent::Refused(error));
                    }
                    _ => return Err(error.into()),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one fragment, after fetching what is missing of it from the base version. `None` when the
    /// last one would make something that is not wanted under this identity any more.
    pub(super) async fn send_fragment(
        &self,
        job: &Job<'_>,
        session: &Session,
        range: ByteRange,
    ) -> Result<Option<FragmentOutcome>, EngineError> {
        self.fetch_base(job, range.clone()).await?;
        if range.end == job.size {
            let barrier = job.barrier.lock().take();
            if let Some(barrier) = barrier {
                barrier.passed().await?;
            }
            let hash = self.hash_job(job).await?;
            let noted = self.note_unanswered(job.item, Some(job.size), Some(hash));
            if !noted.await? {
                return Ok(None);
            }
        }
        kill_point("before-fragment");
        let body = pieces(Arc::clone(&job.snapshot), range.clone(), Some(&job.hashed));
        let sent = self
            .graph
            .upload_fragment(&session.url, range, job.size, body);
        Ok(Some(sent.await?))
    }

    /// Fetches what is missing of a range from the version that the body was edited from.
    pub(super) async fn fetch_base(
        &self,
        job: &Job<'_>,
        range: ByteRange,
    ) -> Result<(), EngineError> {
        if job.snapshot.missing(range.clone()).is_empty() {
            return Ok(());
        }
        let Some(source) = source_of(&self.config.drive.id, job.row) else {
            return Err(io_error(job.row.id, io::ErrorKind::UnexpectedEof.into()));
        };
        let fetched =
            self.hydrator
                .ensure_snapshot(job.body, &job.snapshot, &source, range, Demand::Upload);
        match fetched.await {
            // A copy whose original was replaced has a right to what it was made from.
            Err(error @ HydrateError::Changed) if job.item.item_id() != Some(&source.item) => {
                self.fetch_past(job.body, &source, error).await?;
                Ok(())
            }
            fetched => Ok(fetched?),
        }
    }
}

/// Tells whether a session from an earlier run is for this very body.
pub(super) fn fits(session: &Session, job: &Job<'_>) -> bool {
    session.body == job.row.id
        && session.generation == job.row.generation
        && session.size == job.size
}

/// The version that the missing bytes of a body come from.
pub fn source_of(drive: &DriveId, row: &BodyRow) -> Option<Source> {
    Some(Source {
        drive: drive.clone(),
        item: row.base_item.clone()?,
        etag: row.base_etag.clone(),
        ctag: row.base_ctag.clone(),
        size: row.base_size,
        hash: row.base_hash,
    })
}
