//! Files of other drives that items of this one stand for.
//!
//! Such an item is a file like any other to everything here: the client of the service sends what
//! concerns its content to where the file is (`onedrivefs_graph`). What differs is that no feed tells
//! of changes there, so that each file is asked for by itself, and that it may be shared for reading
//! only.

use std::time::{Duration, Instant};

use onedrivefs_core::{Ino, ItemId, LinkTarget, RemoteItem};
use onedrivefs_graph::{GraphClient, GraphError};
use onedrivefs_store::{Item, Role, Store, StoreError};

use crate::config::EngineConfig;
use crate::delta::tombstone_for;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::scope::is_withheld;

/// How much the pause between two looks grows with each file: every one costs a request.
const PAUSE_PER_FILE: Duration = Duration::from_secs(1);

/// The part of that pause after which a round looks again: rounds come when they come.
const DUE: f32 = 0.9;

/// How long a look waits for one file.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// After how many files that could not be asked for a look gives up.
const FAILURES_MAX: usize = 2;

/// Set once the items that an older version of the program listed were looked through.
const META_LINKS_KNOWN: &str = "links_known";

/// Tells the client what is known, before anything is sent.
pub(crate) fn make_known(
    config: &EngineConfig,
    store: &Store,
    graph: &GraphClient,
) -> Result<(), StoreError> {
    if let Err(error) = store.write(|tx| tx.forget_old_links()) {
        tracing::debug!(%error, "What is known of items that are gone stays for now.");
    }
    for (id, target) in store.read(|r| r.links())? {
        graph.know_link(&config.drive.id, &id, target, config.groups);
    }
    Ok(())
}

/// What went wrong in a look at several files: each may be in a drive with troubles of its own.
#[derive(Default)]
struct Failures {
    first: Option<EngineError>,
    count: usize,
}

impl Failures {
    /// Notes how it went with one. An error ends the look: this machine's own, and the last of many.
    fn note(&mut self, outcome: Result<(), EngineError>) -> Result<(), EngineError> {
        match outcome {
            Err(error @ EngineError::Graph(_)) if self.count < FAILURES_MAX => {
                self.count += 1;
                self.first.get_or_insert(error);
                Ok(())
            }
            other => other,
        }
    }
}

/// A look at one file, which does not hold up the rounds of the drive for long.
async fn soon(look: impl Future<Output = Result<(), EngineError>>) -> Result<(), EngineError> {
    let looked = tokio::time::timeout(LOOK_PATIENCE, look).await;
    looked.unwrap_or_else(|_elapsed| {
        let late = GraphError::Stalled {
            host: "the drive of a shared file".to_owned(),
            route: "/drives/{drive}/items/{item}",
            after: LOOK_PATIENCE,
        };
        Err(late.into())
    })
}

impl Engine {
    /// The file of another drive that an item stands for.
    #[must_use]
    pub fn link_of(&self, item: &Item) -> Option<LinkTarget> {
        let id = item.item_id()?;
        self.graph.link(&self.config.drive.id, id)
    }

    /// Whether the content of an item may not be changed, because it is in another drive and this
    /// account may only read it.
    #[must_use]
    pub fn is_read_only_link(&self, item: &Item) -> bool {
        let link = self.link_of(item);
        link.is_some_and(|link| link.read_only || self.config.read_only_elsewhere)
    }

    /// Pause between two looks; `None` where there is nothing to look at.
    pub(crate) fn links_pause(&self) -> Option<Duration> {
        let count = self.store.read(|r| r.link_count()).unwrap_or(0);
        let more = PAUSE_PER_FILE.saturating_mul(count);
        (count > 0).then(|| self.config.poll_interval.max(more))
    }

    /// Makes the next round look at all of them, however short ago the last one did.
    pub(crate) fn links_are_old(&self) {
        self.links_looked.lock().take();
    }

    /// Looks for changes of all of them.
    pub(crate) async fn look_at_links(&self) -> Result<(), EngineError> {
        let pause = self.links_pause();
        if pause.is_none() && self.links_listed()? {
            return Ok(());
        }
        let pause = pause.unwrap_or_default();
        let recent = |looked: &Instant| looked.elapsed() < pause.mul_f32(DUE);
        if self.links_looked.lock().as_ref().is_some_and(recent) {
            return Ok(());
        }
        *self.links_looked.lock() = Some(Instant::now());
        let mut failures = Failures::default();
        let listed = self.links_listed()?;
        if !listed {
            for ino in self.store.read(|r| r.unknown_links())? {
                failures.note(soon(self.refresh_item(ino)).await)?;
            }
            if failures.first.is_none() {
                self.store
                    .write(|tx| tx.set_meta(META_LINKS_KNOWN, Some("1")))?;
            }
        }
        for (id, known) in self.store.read(|r| r.links())? {
            if let Some(item) = self.store.read(|r| r.item_by_id(&id))? {
                failures.note(soon(self.look_at_link(&item, &id, &known)).await)?;
            }
        }
        failures.first.map_or(Ok(()), Err)
    }

    fn links_listed(&self) -> Result<bool, StoreError> {
        let listed = self.store.read(|r| r.meta(META_LINKS_KNOWN))?;
        Ok(listed.is_some())
    }

    /// Asks for one file, and has the merge decide if it is not what it was.
    async fn look_at_link(
        &self,
        item: &Item,
        id: &ItemId,
        known: &LinkTarget,
    ) -> Result<(), EngineError> {
        let there = match self.graph.linked_file(&self.config.drive.id, id).await {
            Ok(there) => there,
            Err(error) if is_withheld(&error) && item.role == Role::Shortcut => return Ok(()),
            Err(error) if is_withheld(&error) => return self.look_whether_gone(item.ino).await,
            Err(error) => return Err(error.into()),
        };
        if let Some(link) = there.link.as_ref().filter(|link| *link != known) {
            self.store.write(|tx| tx.put_link(id, link))?;
        }
        let base = item.remote.as_ref();
        let same = base.is_some_and(|base| base.etag.is_some() && base.etag == there.etag);
        if same && item.role != Role::Shortcut {
            return Ok(());
        }
        self.refresh_item(item.ino).await
    }

    /// Shows a file of another drive, to which nothing on the service leads, in a folder that is of no
    /// drive.
    ///
    /// # Errors
    /// Those of the service and of the database.
    pub async fn show_file(
        &self,
        folder: &ItemId,
        id: &ItemId,
        target: LinkTarget,
    ) -> Result<(), EngineError> {
        let drive = &self.config.drive.id;
        self.graph.know_link(drive, id, target, true);
        let asked = Instant::now();
        let there = self.graph.item(drive, id).await?;
        let there = RemoteItem {
            parent: Some(folder.clone()),
            ..there
        };
        self.hash_for_decisions(Some(&there)).await?;
        self.apply_now(&[there], None, asked)
    }

    /// Looks whether the file is gone, or cannot be seen any more, that an item stands for. Then it is
    /// not shown any more; what was not sent of it stays under its name.
    ///
    /// # Errors
    /// Those of the service and of the database.
    pub async fn look_whether_gone(&self, ino: Ino) -> Result<(), EngineError> {
        let Some(item) = self.store.item(ino)? else {
            return Ok(());
        };
        let asked = Instant::now();
        match self.refresh_item(ino).await {
            Err(EngineError::Graph(error)) if self.config.groups && is_withheld(&error) => {
                self.apply_now(&[tombstone_for(&item)], None, asked)
            }
            other => other,
        }
    }
}
