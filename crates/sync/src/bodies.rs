//! The bodies in use: one [`Body`] object per body, however many handles and transfers share it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use onedrivefs_content::{Body, BodyId, Content, ContentError, Place, Presence};
use onedrivefs_core::{CTag, ETag, Ino, Timestamp};
use onedrivefs_store::{BodyRow, Item, Store, StoreError, Tx};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use crate::hydrate::Source;

/// Bodies of which more than this is here, in bytes, are changed in place where the file system
/// cannot share blocks: copying them would keep a program waiting for longer than a millisecond.
pub const DUPLICATE_MAX_BYTES: u64 = 1 << 20;

/// An error of a body or of its row.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Bytes that exist nowhere else are gone from the spool.
    #[error("the unsent body {0} is missing from the spool")]
    Missing(BodyId),
}

/// Converts the database's word for a place into that of the files.
#[must_use]
pub const fn place_on_disk(place: onedrivefs_store::Place) -> Place {
    match place {
        onedrivefs_store::Place::Cache => Place::Cache,
        onedrivefs_store::Place::Spool => Place::Spool,
    }
}

/// Finds and makes bodies.
pub struct Bodies {
    content: Content,
    live: Mutex<HashMap<BodyId, Weak<Body>>>,
    /// Bodies whose rows are gone and whose files are still there.
    dead: Mutex<Vec<u64>>,
    /// Notified when a body was saved or files wait to be removed.
    pub(crate) changed: Notify,
}

impl Bodies {
    /// Wraps the files on disk.
    #[must_use]
    pub fn new(content: Content) -> Self {
        Self {
            content,
            live: Mutex::default(),
            dead: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The files on disk.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The body in use, if any handle or transfer holds it.
    #[must_use]
    pub fn live(&self, id: u64) -> Option<Arc<Body>> {
        self.live.lock().get(&BodyId(id)).and_then(Weak::upgrade)
    }

    /// Registers a body that was just made.
    fn adopt(&self, body: &Arc<Body>) {
        let mut live = self.live.lock();
        // Bodies come and go with every open; sweeping now and then keeps the map small.
        if live.len() > 64 && live.len().is_power_of_two() {
            live.retain(|_, body| body.strong_count() > 0);
        }
        live.insert(body.id(), Arc::downgrade(body));
    }

    /// Opens the body of a row. `None` when its file is gone from the content cache: the caller
    /// forgets the row and downloads again.
    ///
    /// # Errors
    /// `Missing` when the file of an unsent body is gone; errors of the disk.
    pub fn open(&self, row: &BodyRow) -> Result<Option<Arc<Body>>, BodyError> {
        let id = BodyId(row.id);
        let mut live = self.live.lock();
        if let Some(body) = live.get(&id).and_then(Weak::upgrade) {
            return Ok(Some(body));
        }
        let presence = row
            .ranges
            .clone()
            .map_or(Presence::Complete, Presence::Ranges);
        // What lies past the last recorded size of a body in the spool was written here, even if
        // the daemon was killed before it could note that. What a power cut did is undone before
        // anybody opens a body.
        let known = !row.dirty || row.place == onedrivefs_store::Place::Spool;
        let size = known.then_some(row.size);
        let place = place_on_disk(row.place);
        let mut found = self.content.load(place, id, size, presence.clone())?;
        if found.is_none() {
            // Killed between moving the file and the commit: it is in the other place.
            found = self.content.load(place.other(), id, size, presence)?;
        }
        match &found {
            Some(body) => {
                // Wherever its file is: a daemon that was killed may have moved it only.
                let sent = row.place == onedrivefs_store::Place::Cache && !row.dirty;
                body.set_pristine(sent || row.copy_of().is_some());
                live.insert(id, Arc::downgrade(body));
            }
            None if row.place == onedrivefs_store::Place::Spool => {
                return Err(BodyError::Missing(id));
            }
            None => {}
        }
        Ok(found)
    }

    /// Makes an empty body in the spool, marked as being written. `previous` is the saved body that
    /// it takes the place of once it is saved itself.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn create_empty(
        &self,
        tx: &Tx<'_>,
        ino: Ino,
        previous: Option<u64>,
        now: Timestamp,
    ) -> Result<(BodyRow, Arc<Body>), BodyError> {
        let mut row = new_row(ino, now);
        row.previous = previous;
        row.place = onedrivefs_store::Place::Spool;
        row.dirty = true;
        row.id = tx.insert_body(&row)?;
        let body = self.content.create(Place::Spool, BodyId(row.id))?;
        self.adopt(&body);
        Ok((row, body))
    }

    /// Makes a body in the content cache for the service's version of an item; nothing of it is
    /// here yet.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn create_sparse(
        &self,
        tx: &Tx<'_>,
        item: &Item,
        now: Timestamp,
    ) -> Result<(BodyRow, Arc<Body>), BodyError> {
        let mut row = new_row(item.ino, now);
        if let Some(remote) = &item.remote {
            row.set_base(remote);
            // Not the service's figure: downloads are known to be longer or shorter than that.
            row.size = item.size;
            row.base_size = item.size;
        }
        row.ranges = (row.size > 0).then(Default::default);
        row.id = tx.insert_body(&row)?;
        let body = self.content.create_sparse(BodyId(row.id), row.size)?;
        self.adopt(&body);
        Ok((row, body))
    }

    /// The body of an inode, made in the content cache when nothing of it is here. `None` for what
    /// is gone.
    ///
    /// # Errors
    /// As [`Bodies::open`]; errors of the disk and the database.
    pub fn find_or_create(
        &self,
        tx: &Tx<'_>,
        ino: Ino,
        now: Timestamp,
    ) -> Result<Option<(BodyRow, Arc<Body>)>, BodyError> {
        let Some(mut item) = tx.item(ino)? else {
            return Ok(None);
        };
        let known = item.body.map(|id| tx.body(id)).transpose()?.flatten();
        if let Some(row) = known {
            if let Some(body) = self.open(&row)? {
                return Ok(Some((row, body)));
            }
            tx.delete_body(row.id)?;
        }
        let made = self.create_sparse(tx, &item, now)?;
        item.body = Some(made.0.id);
        tx.update_item(&item)?;
        Ok(Some(made))
    }

    /// Has the files of bodies removed whose rows are gone. Handles that are still open keep theirs.
    ///
    /// That is done by `bury`: until the commit that deleted the row is on stable storage,
    /// a power cut may bring the row back, and it would find nothing.
    pub fn remove_files(&self, bodies: &[BodyRow]) {
        if bodies.is_empty() {
            return;
        }
        let ids = bodies.iter().flat_map(|row| [Some(row.id), row.previous]);
        self.dead.lock().extend(ids.flatten());
        self.changed.notify_one();
    }

    /// Has what was saved put on stable storage in a while.
    pub fn note_saved(&self) {
        self.changed.notify_one();
    }

    /// Removes the files of bodies whose rows are gone for good. Waits for the disk.
    pub(crate) fn bury(&self, store: &Store) {
        let dead = std::mem::take(&mut *self.dead.lock());
        if dead.is_empty() {
            return;
        }
        if let Err(error) = store.sync() {
            tracing::warn!(%error, "Bodies that are no longer needed could not be removed yet.");
            self.dead.lock().extend(dead);
            return;
        }
        for id in dead {
            // One that another body is to take the place of has kept its row.
            if !matches!(store.read(|r| r.body(id)), Ok(None)) {
                continue;
            }
            for place in [Place::Cache, Place::Spool] {
                if let Err(error) = self.content.remove(place, BodyId(id)) {
                    tracing::warn!(body = id, %error, "A body that is no longer needed could not be removed.");
                }
            }
        }
    }

    /// Makes a body in the spool that equals a saved one and takes its place, marked as being
    /// written: what was saved stays untouched until the new one is on stable storage, so that a
    /// power cut leaves one or the other. `None` when the saved one is too large for that.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn duplicate(
        &self,
        tx: &Tx<'_>,
        saved: &BodyRow,
        body: &Body,
    ) -> Result<Option<(BodyRow, Arc<Body>)>, BodyError> {
        let mut row = saved.clone();
        row.place = onedrivefs_store::Place::Spool;
        row.dirty = true;
        row.hash = None;
        row.durable = None;
        row.copied = None;
        row.previous = Some(saved.id);
        row.ranges = body.presence().into_ranges();
        row.id = tx.insert_body(&row)?;
        let copy = self
            .content
            .duplicate(body, BodyId(row.id), DUPLICATE_MAX_BYTES)?;
        let Some(copy) = copy else {
            row.previous = None;
            tx.update_body(&row)?;
            tx.delete_body(row.id)?;
            return Ok(None);
        };
        self.adopt(&copy);
        Ok(Some((row, copy)))
    }

    /// Records a save in a body's row. What the body took the place of is kept while a power cut
    /// would leave nothing else of the file; returns what is not needed for that.
    ///
    /// # Errors
    /// The store's errors.
    pub fn record_save(
        tx: &Tx<'_>,
        row: &mut BodyRow,
        body: &Body,
    ) -> Result<Vec<BodyRow>, StoreError> {
        row.dirty = false;
        row.generation += 1;
        row.size = body.size();
        row.hash = None;
        row.ranges = body.presence().into_ranges();
        let mut needless = Vec::new();
        while let Some(previous) = row.previous.map(|id| tx.body(id)).transpose()?.flatten() {
            if previous.is_durable() {
                break;
            }
            // An older save than the one at hand, and no more certain.
            row.previous = previous.previous;
            if !tx.is_owned(previous.id)? {
                needless.push(previous);
            }
        }
        tx.update_body(row)?;
        for previous in &mut needless {
            // What it took the place of belongs to the new one now.
            previous.previous = None;
            tx.update_body(previous)?;
            tx.delete_body(previous.id)?;
        }
        Ok(needless)
    }

    /// Makes a save that was kept, while another body was to take its place, the body of a file
    /// again. It may be the last save of another file that this one replaced: that one is gone from
    /// here, and must not take the body along when it is forgotten.
    ///
    /// # Errors
    /// The store's errors.
    pub fn give_back(tx: &Tx<'_>, item: &mut Item, mut saved: BodyRow) -> Result<(), StoreError> {
        item.body = Some(saved.id);
        item.size = saved.size;
        if saved.ino == item.ino {
            return Ok(());
        }
        if let Some(mut former) = tx.item(saved.ino)?
            && former.body == Some(saved.id)
        {
            former.body = None;
            tx.update_item(&former)?;
        }
        saved.ino = item.ino;
        tx.update_body(&saved)
    }

    /// Writes down which bytes of a body are here, after they are safely on disk.
    ///
    /// # Errors
    /// Errors of the database.
    pub fn save_presence(store: &Store, id: BodyId, presence: &Presence) -> Result<(), StoreError> {
        store.write(|tx| match presence {
            Presence::Complete => tx.set_presence(id.0, None),
            Presence::Ranges(ranges) => tx.set_presence(id.0, Some(ranges)),
        })
    }
}

/// Has a body build on a version of an item.
pub fn base_on(row: &mut BodyRow, source: &Source) {
    row.base_item = Some(source.item.clone());
    row.base_etag.clone_from(&source.etag);
    row.base_ctag.clone_from(&source.ctag);
    row.base_hash = source.hash;
    row.base_size = source.size;
}

/// A row of an empty, complete and clean body.
pub(crate) fn new_row(ino: Ino, now: Timestamp) -> BodyRow {
    BodyRow {
        id: 0,
        ino,
        place: onedrivefs_store::Place::Cache,
        size: 0,
        ranges: None,
        base_item: None,
        base_etag: None::<ETag>,
        base_ctag: None::<CTag>,
        base_hash: None,
        base_size: 0,
        dirty: false,
        generation: 0,
        hash: None,
        used_at: now,
        previous: None,
        durable: None,
        copied: None,
    }
}
