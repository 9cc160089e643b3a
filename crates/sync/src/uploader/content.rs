//! Sending the body of a file.
//!
//! The body is frozen first: programs that write on meanwhile do not wait and do not disturb what
//! is sent.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use onedrivefs_content::{Body, Snapshot};
use onedrivefs_core::{Ino, ItemId, ItemKind, QuickXorHash, RemoteItem, kill_point, name};
use onedrivefs_graph::{Conditions, Disposition, GraphError, OnConflict, UploadTarget};
use onedrivefs_store::{BodyRow, Item, JournalRow, Kind};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Step;
use super::adopt::{Uploaded, Verdict};
use super::fragment;
use super::frozen::{Hashed, io_error, pieces};
use super::session::{SESSIONS_MAX, Sent, fits};
use crate::delta::tombstone_for;
use crate::durable::Barrier;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::stored_name;

/// Largest body that is sent in one request when no session can be had, in bytes: it is in memory
/// meanwhile. The service takes more.
const AT_ONCE_MAX: u64 = 4 << 20;

/// What is being sent: a frozen body and where it goes.
pub(super) struct Job<'a> {
    pub(super) item: &'a Item,
    pub(super) row: &'a BodyRow,
    pub(super) body: &'a Arc<Body>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) size: u64,
    /// What has to be waited for before the service may have all of it.
    pub(super) barrier: Mutex<Option<Barrier>>,
    /// The hash of what was sent so far.
    pub(super) hashed: Arc<Hashed>,
    /// The hash, once it was made.
    pub(super) hash: OnceLock<QuickXorHash>,
    /// The folder, for a file that the service does not have.
    pub(super) parent: Option<ItemId>,
}

impl Engine {
    /// Sends the content of a file or symbolic link, creating it if need be.
    pub(super) async fn send_content(
        &self,
        item: &Item,
        row: &JournalRow,
        token: &CancellationToken,
    ) -> Result<Step, EngineError> {
        // Item and body are read at one moment: a body that is replaced in between must not look
        // like none, which would be sent as an empty file.
        let Some((item, body_row)) = self.with_body(item.ino)? else {
            return Ok(Step::Cancelled);
        };
        let item = &item;
        let parent = if item.remote.is_none() {
            let Some(parent) = self.folder_id(item)? else {
                return Ok(Step::Blocked);
            };
            if self.find_unanswered(item).await? {
                return Ok(Step::Progress);
            }
            self.note_creating(item, &parent);
            Some(parent)
        } else {
            None
        };
        if item.kind == Kind::Symlink {
            return self
                .send_small(item, parent, item.target.clone().unwrap_or_default(), None)
                .await;
        }
        let Some(body_row) = body_row else {
            if item.size > 0 {
                let missing = io::ErrorKind::NotFound.into();
                return Err(io_error(item.body.unwrap_or_default(), missing));
            }
            return self.send_small(item, parent, Vec::new(), None).await;
        };
        // What the service has is what is here, also after a power cut. It has nothing of a body
        // that is sent in fragments before the last one.
        let mut barrier = Some(self.barrier_for(&body_row));
        let copied = parent.is_some() && body_row.copy_of().is_some();
        if (copied || body_row.size <= fragment::FIRST)
            && let Some(barrier) = barrier.take()
        {
            barrier.passed().await?;
        }
        if let Some(parent) = &parent
            && let Some(step) = self.send_copy(item, row, &body_row, parent).await?
        {
            return Ok(step);
        }
        let Some((body, snapshot)) = self.freeze(&body_row)? else {
            return Ok(Step::Blocked);
        };
        if let Some(there) = self.same_there(item, body_row.size, body_row.hash)? {
            if let Some(barrier) = barrier {
                barrier.passed().await?;
            }
            self.drop_session(item, row).await?;
            let body = Some((body_row.id, body_row.generation));
            let unsent = unsent(item, body, body_row.size, body_row.hash);
            return self.arrived(&unsent, &there).await;
        }
        if snapshot.size() == 0 {
            self.drop_session(item, row).await?;
            return self
                .send_small(item, parent, Vec::new(), Some(&body_row))
                .await;
        }
        let job = Job {
            item,
            row: &body_row,
            body: &body,
            size: snapshot.size(),
            snapshot: Arc::new(snapshot),
            barrier: Mutex::new(barrier),
            hashed: Arc::default(),
            hash: OnceLock::new(),
            parent,
        };
        self.send_through_session(&job, row, token).await
    }

    /// An item with the row of its body.
    fn with_body(&self, ino: Ino) -> Result<Option<(Item, Option<BodyRow>)>, EngineError> {
        self.store.read(|r| {
            let Some(item) = r.item(ino)? else {
                return Ok(None);
            };
            let body = item.body.map(|id| r.body(id)).transpose()?.flatten();
            Ok(Some((item, body)))
        })
    }

    /// Sends a small body in one request, which is the only way for an empty one.
    async fn send_small(
        &self,
        item: &Item,
        parent: Option<ItemId>,
        data: Vec<u8>,
        row: Option<&BodyRow>,
    ) -> Result<Step, EngineError> {
        let (target, conditions) = self.destination(item, parent.clone());
        let sent = Uploaded {
            ino: item.ino,
            body: row.map(|row| (row.id, row.generation)),
            size: data.len() as u64,
            hash: Some(QuickXorHash::of(&data)),
            mtime: item.mtime,
            parent: item.parent,
            name: stored_name(item),
            times_sent: false,
        };
        if let Some(there) = self.same_there(item, sent.size, sent.hash)? {
            let unsent = unsent(item, sent.body, sent.size, sent.hash);
            return self.arrived(&unsent, &there).await;
        }
        let noted = self.note_unanswered(item, Some(sent.size), sent.hash);
        if !noted.await? {
            return Ok(Step::Cancelled);
        }
        kill_point("before-put");
        let outcome = self
            .graph
            .put_small(&target, Bytes::from(data), &conditions)
            .await;
        kill_point("put-answered");
        match outcome {
            Ok(there) => self.arrived(&sent, &there).await,
            Err(error) => self.refused(item, parent.as_ref(), error).await,
        }
    }

    /// Where the content of an item goes, and under which condition.
    pub(super) fn destination(
        &self,
        item: &Item,
        parent: Option<ItemId>,
    ) -> (UploadTarget, Conditions) {
        let drive = self.config.drive.id.clone();
        match (&item.remote, parent) {
            (Some(remote), _) => {
                let tag = remote.ctag.as_ref().map(|t| t.as_str());
                let tag = tag.or_else(|| remote.etag.as_ref().map(|t| t.as_str()));
                let conditions = Conditions {
                    if_match: tag.map(str::to_owned),
                    if_none_match_any: false,
                    on_conflict: OnConflict::Replace,
                };
                (
                    UploadTarget::Replace {
                        drive,
                        item: remote.id.clone(),
                    },
                    conditions,
                )
            }
            (None, parent) => {
                let name = name::encode(&stored_name(item));
                let parent = parent.unwrap_or_else(|| self.top_folder());
                (
                    UploadTarget::Create {
                        drive,
                        parent,
                        name,
                    },
                    Conditions::default(),
                )
            }
        }
    }

    /// Sends a body through an upload session, going on with one that was begun before.
    async fn send_through_session(
        &self,
        job: &Job<'_>,
        journal: &JournalRow,
        token: &CancellationToken,
    ) -> Result<Step, EngineError> {
        let mut resumable = match &journal.session {
            Some(session) if fits(session, job) => Some(session.clone()),
            Some(_) => {
                self.drop_session(job.item, journal).await?;
                None
            }
            None => None,
        };
        let mut arrived = None;
        for _ in 0..SESSIONS_MAX {
            let sent = match resumable.take() {
                Some(session) => self.go_on(job, session, token).await,
                None => match self.begin_session(job).await {
                    Ok(session) => self.send_fragments(job, session, token).await,
                    Err(EngineError::Graph(error)) => {
                        self.note_hash(job, &error).await?;
                        let refused = self.refused(job.item, job.parent.as_ref(), error).await;
                        return match refused {
                            Err(EngineError::NameHeld(_)) if job.size <= AT_ONCE_MAX => {
                                self.send_at_once(job).await
                            }
                            other => other,
                        };
                    }
                    Err(error) => return Err(error),
                },
            };
            match sent {
                Ok(Sent::Arrived(there)) => {
                    arrived = Some(there.map(|there| self.as_sent(job.item, *there)));
                    break;
                }
                Ok(Sent::Cancelled) => return Ok(Step::Cancelled),
                Ok(Sent::Refused(error)) => {
                    self.abandon_session(job.item)?;
                    self.note_hash(job, &error).await?;
                    return self.refused(job.item, job.parent.as_ref(), error).await;
                }
                Ok(Sent::Gone) => {}
                Err(EngineError::Graph(error))
                    if job.size <= AT_ONCE_MAX && self.graph.is_elsewhere(&error) =>
                {
                    tracing::debug!(%error, "A small file is sent past the host of its session.");
                    self.abandon_session(job.item)?;
                    return self.send_at_once(job).await;
                }
                Err(error) => return Err(error),
            }
            // The session is gone. Perhaps because it was committed and the answer got lost.
            self.forget_session(job.item)?;
            if let Some(there) = self.find_committed(job).await? {
                arrived = Some(Some(there));
                break;
            }
        }
        let Some(there) = arrived else {
            return Err(GraphError::SessionUnclear.into());
        };
        let is_told = |told: &RemoteItem| !told.id.as_str().is_empty();
        let by_name = !there.as_ref().is_some_and(is_told);
        let there = match there {
            Some(there) if there.size.is_some() => there,
            partial => self.look_up(job, partial.as_ref()).await?,
        };
        let hash = self.hash_job(job).await?;
        let mut sent = uploaded(job, Some(hash));
        // A session that was begun earlier carried the time of then.
        let time = there.modified;
        sent.times_sent = time.is_none_or(|time| time.same_second(job.item.mtime));
        if let Some(parent) = job.parent.as_ref().filter(|_| by_name)
            && self.compare(&sent, &there) == Verdict::Different
            && !self.is_overtaken(&sent, &there).await?
        {
            // All that is known of it is that it has the name.
            self.forget_session(job.item)?;
            if let Some(step) = self.look_at_taken_name(job.item, parent).await? {
                return Ok(step);
            }
        }
        self.arrived(&sent, &there).await
    }

    /// The answer of a session, which knows the file only and not what stands for it here.
    fn as_sent(&self, item: &Item, told: RemoteItem) -> RemoteItem {
        match item.item_id() {
            Some(id) => self.graph.as_link(&self.config.drive.id, id, told),
            None => told,
        }
    }

    /// Sends a body in one request although that cannot carry its times along: an upload session
    /// that nobody can go on with, because the daemon died before it heard the address, holds the
    /// name against other sessions for a quarter of an hour. Or the host of sessions cannot be reached,
    /// which firewalls forget.
    async fn send_at_once(&self, job: &Job<'_>) -> Result<Step, EngineError> {
        self.fetch_base(job, 0..job.size).await?;
        let pieces: io::Result<Vec<Bytes>> = pieces(Arc::clone(&job.snapshot), 0..job.size, None)
            .try_collect()
            .await;
        let data = pieces
            .map_err(|error| io_error(job.row.id, error))?
            .concat();
        self.send_small(job.item, job.parent.clone(), data, Some(job.row))
            .await
    }

    /// Takes an answer that says the body arrived.
    async fn arrived(&self, sent: &Uploaded, there: &RemoteItem) -> Result<Step, EngineError> {
        match self.adopt_uploaded(sent, there).await? {
            Verdict::Same | Verdict::Rewritten => Ok(Step::Progress),
            Verdict::Different => Err(EngineError::Altered),
        }
    }

    /// Deals with a refusal: a taken name and a changed item are conflicts, the rest is an error.
    ///
    /// A name that nobody has and that is refused all the same, and a refused name of the very file
    /// that is replaced, are held by an upload session whose address was lost.
    pub(super) async fn refused(
        &self,
        item: &Item,
        parent: Option<&ItemId>,
        error: GraphError,
    ) -> Result<Step, EngineError> {
        match (error.disposition(), parent) {
            (Disposition::Conflict, Some(parent)) => {
                match self.resolve_taken_name(item, parent, error).await {
                    Err(EngineError::Graph(error)) if error.has_code("nameAlreadyExists") => {
                        Err(EngineError::NameHeld(error))
                    }
                    other => other,
                }
            }
            (Disposition::Conflict, None) if error.has_code("nameAlreadyExists") => {
                Err(EngineError::NameHeld(error))
            }
            (Disposition::NotFound, None) => self.item_gone(item, error).await,
            (Disposition::NotFound, Some(_)) => self.folder_gone(item, error).await,
            _ => Err(error.into()),
        }
    }

    /// Looks whether the service has the body although the session is gone.
    async fn find_committed(&self, job: &Job<'_>) -> Result<Option<RemoteItem>, EngineError> {
        let there = match self.look_up(job, None).await {
            Ok(there) => there,
            Err(EngineError::Graph(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if there.size != Some(job.size) {
            return Ok(None);
        }
        let hash = self.hash_job(job).await?;
        Ok((there.hash == Some(hash)).then_some(there))
    }

    /// Reads the item that was uploaded.
    async fn look_up(
        &self,
        job: &Job<'_>,
        partial: Option<&RemoteItem>,
    ) -> Result<RemoteItem, EngineError> {
        let drive = &self.config.drive.id;
        let id = partial.map(|p| &p.id).or_else(|| job.item.item_id());
        if let Some(id) = id.filter(|id| !id.as_str().is_empty()) {
            return Ok(self.graph.item(drive, id).await?);
        }
        let parent = job.parent.clone().unwrap_or_else(|| self.top_folder());
        let name = name::encode(&stored_name(job.item));
        let found = self.graph.child_by_name(drive, &parent, &name).await?;
        match found {
            Some(there) => Ok(there),
            None => Err(GraphError::Truncated {
                expected: job.size,
                got: 0,
            }
            .into()),
        }
    }

    /// The service's item, when it is known to have content of this size and hash.
    fn same_there(
        &self,
        item: &Item,
        size: u64,
        hash: Option<QuickXorHash>,
    ) -> Result<Option<RemoteItem>, EngineError> {
        let Some(remote) = &item.remote else {
            return Ok(None);
        };
        let hashes = hash.zip(remote.hash);
        let same = remote.size == size && (size == 0 || hashes.is_some_and(|(a, b)| a == b));
        if !same || self.is_content_in_doubt(&remote.id)? {
            return Ok(None);
        }
        Ok(Some(RemoteItem {
            deleted: false,
            kind: ItemKind::File,
            size: Some(remote.size),
            etag: remote.etag.clone(),
            ctag: remote.ctag.clone(),
            modified: Some(remote.mtime),
            hash: remote.hash,
            ..tombstone_for(item)
        }))
    }
}

/// Describes content that did not have to be sent.
fn unsent(
    item: &Item,
    body: Option<(u64, u64)>,
    size: u64,
    hash: Option<QuickXorHash>,
) -> Uploaded {
    Uploaded {
        ino: item.ino,
        body,
        size,
        hash,
        mtime: item.mtime,
        parent: item.remote.as_ref().map_or(item.parent, |r| r.parent),
        name: item
            .remote
            .as_ref()
            .map_or_else(|| stored_name(item), |r| r.name.clone()),
        times_sent: false,
    }
}

/// Describes what was sent.
fn uploaded(job: &Job<'_>, hash: Option<QuickXorHash>) -> Uploaded {
    Uploaded {
        ino: job.item.ino,
        body: Some((job.row.id, job.row.generation)),
        size: job.size,
        hash,
        mtime: job.item.mtime,
        parent: job
            .item
            .remote
            .as_ref()
            .map_or(job.item.parent, |r| r.parent),
        name: job
            .item
            .remote
            .as_ref()
            .map_or_else(|| stored_name(job.item), |r| r.name.clone()),
        times_sent: true,
    }
}
