//! Saving: what `close` and `fsync` promise.
//!
//! `close` records the body and its upload in one transaction, which survives the death of the
//! daemon; `fsync` also makes both survive a power cut, which happens to what was closed a moment
//! later anyway (`onedrivefs_sync::durable`). Neither waits for the service, unless the
//! configuration asks `close` to.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::Ino;
use onedrivefs_store::{BodyRow, Item, Place, Tx};
use onedrivefs_sync::bodies::Bodies;
use onedrivefs_sync::fold::Change;
use onedrivefs_sync::{Net, journal};

use crate::error::VfsError;
use crate::handle::{FileState, Handle, OpenFile};
use crate::types::Outcome;
use crate::vfs::Vfs;

/// Longest wait of a `close` that waits for the service. What was saved is sent later all the same.
const CLOSE_DEADLINE: Duration = Duration::from_secs(300);

/// How often `fsync` begins again because the file was saved anew while the disk worked.
const FSYNC_TRIES: u32 = 8;

/// Pause before what could not be recorded is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(2);

/// How often a waiting `close` looks, at least.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a save did.
pub(crate) struct Saved {
    /// The item, if it is still there.
    item: Option<Item>,
    /// Bodies that are not needed any more.
    needless: Vec<BodyRow>,
}

impl Vfs {
    /// Called at every `close` of a descriptor: saves what was written.
    ///
    /// # Errors
    /// `NoSpace` and errors of the disk; with `upload = "on-close"` also the service's.
    pub fn flush(self: &Arc<Self>, ino: Ino, fh: u64) -> Result<Outcome<()>, VfsError> {
        let handle = self.handle(fh)?;
        if !handle.flags.write {
            return Ok(Outcome::Now(()));
        }
        let file = &handle.file;
        let awaited = {
            let mut state = file.state.lock();
            state.awaited |= state.dirty;
            self.save(&mut state, file)?;
            // What is lent is sent when it comes back, which is after this.
            state.awaited && state.lent.is_none()
        };
        // A shell closes the first descriptor of a file that it made for a program, long before
        // the program writes to it: nothing is sent by then.
        if !awaited || !self.engine.config.upload_on_close_wait {
            return Ok(Outcome::Now(()));
        }
        let vfs = Arc::clone(self);
        Ok(Outcome::Later(Box::pin(async move {
            vfs.wait_until_sent(ino).await
        })))
    }

    /// Waits until nothing waits to be sent for an inode.
    async fn wait_until_sent(&self, ino: Ino) -> Result<(), VfsError> {
        let sent = async {
            loop {
                let Some(row) = self.store().read(|r| r.journal(ino))? else {
                    return Ok(());
                };
                if row.parked {
                    return Err(VfsError::io(row.error.unwrap_or_default()));
                }
                match self.engine.net.get() {
                    Net::Offline => return Err(VfsError::Offline),
                    Net::NeedsLogin => return Err(VfsError::NeedsLogin),
                    Net::Online => {}
                }
                self.engine.send_now(ino)?;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(CLOSE_DEADLINE, sent)
            .await
            .unwrap_or(Err(VfsError::TimedOut))
    }

    /// Records what was written since the last save, and that it has to be sent.
    pub(crate) fn save(&self, state: &mut FileState, file: &OpenFile) -> Result<(), VfsError> {
        if !state.dirty {
            return Ok(());
        }
        state.catch_up();
        let saved = self.store().write(|tx| self.save_in(tx, state, file))?;
        self.saved(state, saved);
        Ok(())
    }

    /// The part of a save that is in a transaction; `None` when there is nothing to save. What it
    /// returns goes to [`Vfs::saved`] after the commit.
    pub(crate) fn save_in(
        &self,
        tx: &Tx<'_>,
        state: &FileState,
        file: &OpenFile,
    ) -> Result<Option<Saved>, VfsError> {
        let Some(body) = state.body.as_ref().filter(|_| state.dirty) else {
            return Ok(None);
        };
        if state.is_untouched() {
            return Ok(None);
        }
        // Asked inside the transaction, which whoever begins to send the file waits for.
        let in_flight = self.engine.is_in_flight(file.ino);
        let Some(mut row) = tx.body(body.id().0)? else {
            return Err(VfsError::Stale);
        };
        let needless = Bodies::record_save(tx, &mut row, body)?;
        if let Some(copying) = &state.copying {
            copying.record(tx, &mut row, body)?;
        }
        if state.lent.is_some() {
            // What follows is not told.
            row.dirty = true;
            tx.update_body(&row)?;
        }
        let Some(mut item) = tx.item(file.ino)? else {
            return Ok(Some(Saved {
                item: None,
                needless,
            }));
        };
        item.size = row.size;
        if let Some(time) = state.mtime {
            item.mtime = time;
            item.ctime = time;
        }
        tx.update_figures(&item)?;
        if item.parent.is_some() {
            journal::record(tx, &item, Change::Saved, in_flight, Self::now())?;
        }
        Ok(Some(Saved {
            item: Some(item),
            needless,
        }))
    }

    /// Takes note of a save that was committed.
    pub(crate) fn saved(&self, state: &mut FileState, saved: Option<Saved>) {
        let Some(saved) = saved else { return };
        self.engine.bodies.remove_files(&saved.needless);
        self.engine.bodies.note_saved();
        state.dirty = state.lent.is_some();
        state.copying = None;
        if let Some(time) = state.mtime.take() {
            state.note_timed(time);
        }
        if let Some(item) = saved.item {
            state.item = item;
        }
        self.engine.wake_uploader();
    }

    /// Makes a file survive a power cut.
    ///
    /// # Errors
    /// Errors of the disk and the database.
    pub fn fsync(&self, _ino: Ino, fh: u64, _datasync: bool) -> Result<(), VfsError> {
        let handle = self.handle(fh)?;
        let file = &handle.file;
        for _ in 0..FSYNC_TRIES {
            let (body, goes_on) = {
                let mut state = file.state.lock();
                self.save(&mut state, file)?;
                (state.body.clone(), state.lent.is_some())
            };
            // Others may look at the file, and write to it, while the disk works.
            let Some(body) = body else {
                break;
            };
            let row = self.store().read(|r| r.body(body.id().0))?;
            let done = match row {
                // What is in the cache is whole on the disk but for what a rename left unnoted.
                Some(row) if row.place == Place::Cache => {
                    self.engine.bodies.content().make_durable(&body)?;
                    true
                }
                Some(row) if row.dirty && !goes_on => {
                    self.engine.bodies.content().make_durable(&body)?;
                    false
                }
                Some(row) => self.engine.make_durable(&row)?,
                None => false,
            };
            if done {
                break;
            }
            // Another save took its place meanwhile: that one has what was written before.
        }
        Ok(self.store().sync()?)
    }

    /// Ends a handle, once nothing is mapped any more through which its file can be changed without
    /// us.
    pub fn release(self: &Arc<Self>, ino: Ino, fh: u64) {
        let Some(handle) = self.handles.write().remove(&fh) else {
            return;
        };
        self.engine.hydrator.cancel(fh);
        if handle.flags.execute {
            handle.file.state.lock().executed -= 1;
        }
        if self.may_be_mapped(&handle) {
            self.end_unmapped(ino, handle);
        } else {
            self.end_handle(ino, &handle);
        }
    }

    /// Ends a handle that the kernel has closed.
    pub(crate) fn end_handle(self: &Arc<Self>, ino: Ino, handle: &Handle) {
        let file = &handle.file;
        if handle.flags.write {
            // A shared mapping may have written after the last close.
            let saved = {
                let mut state = file.state.lock();
                let taken_back = self.take_back(&mut state, handle);
                let saved = self.save(&mut state, file);
                taken_back.and(saved)
            };
            if let Err(error) = saved {
                let path = self.engine.path_of(ino).unwrap_or_default();
                tracing::error!(path, %error, "What was written could not be recorded yet.");
                self.save_later(ino);
            }
            self.engine.writer_closed(ino);
        }
        if !self.give_back(file) {
            return;
        }
        self.engine.release_hold(ino);
        self.remove_if_unlinked(ino);
    }

    /// Records what was written as soon as the disk allows: the bytes were acknowledged.
    fn save_later(self: &Arc<Self>, ino: Ino) {
        let vfs = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SAVE_AGAIN).await;
                let Some(vfs) = vfs.upgrade() else { return };
                match vfs.save_unsaved(ino) {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%ino, %error, "Still not recorded."),
                }
            }
        });
    }

    /// Records what was written through a handle that is gone.
    fn save_unsaved(&self, ino: Ino) -> Result<(), VfsError> {
        let item = match self.item(ino) {
            Err(VfsError::NotFound) => return Ok(()),
            item => item?,
        };
        let file = self.acquire(&item);
        let saved = {
            let mut state = file.state.lock();
            let attached = match state.body {
                Some(_) => Ok(()),
                None => self.attach_body(&mut state, &file),
            };
            attached.and_then(|()| self.save(&mut state, &file))
        };
        self.give_back(&file);
        match saved {
            // Other content took its place: nothing waits any more.
            Err(VfsError::Stale) => Ok(()),
            saved => saved,
        }
    }

    /// Forgets an inode that has no name, no handle and nothing to be sent.
    fn remove_if_unlinked(&self, ino: Ino) {
        let removed = self
            .store()
            .item(ino)
            .map(|item| item.is_some_and(|item| item.parent.is_none()));
        if !matches!(removed, Ok(true)) || ino == Ino::ROOT {
            return;
        }
        let dropped = self.store().write(|tx| {
            if tx.journal(ino)?.is_some() {
                return Ok(None);
            }
            let Some(item) = tx.item(ino)?.filter(|item| item.parent.is_none()) else {
                return Ok(None);
            };
            let row = item.body.map(|id| tx.body(id)).transpose()?.flatten();
            if let Some(row) = &row {
                tx.delete_body(row.id)?;
            }
            tx.delete_item(ino)?;
            Ok::<_, VfsError>(row)
        });
        match dropped {
            Ok(row) => self.engine.bodies.remove_files(row.as_slice()),
            Err(error) => {
                tracing::warn!(%ino, %error, "An unlinked file could not be forgotten yet.");
            }
        }
    }
}
