//! Reading: from this machine at once, from the service through a future.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_content::Body;
use onedrivefs_core::{ByteRange, Ino};
use onedrivefs_store::{Author, Item, Kind};
use onedrivefs_sync::hydrate::{Demand, HydrateError, Source};
use onedrivefs_sync::source_of;

use crate::buffer::Buffer;
use crate::error::VfsError;
use crate::handle::{FileState, Handle, OpenFile};
use crate::types::Outcome;
use crate::vfs::{Vfs, content_version};

/// How often one read begins again because the file turned out to be another one.
const RESTARTS_MAX: u32 = 3;

/// How often whoever waits for bytes of an older version looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A body and where its missing bytes come from.
struct Readable {
    body: Arc<Body>,
    source: Option<Source>,
    stale: bool,
}

impl Vfs {
    /// Reads from a file. Fewer bytes than asked for come only at its end.
    ///
    /// # Errors
    /// `BadHandle`; `Offline`, `TimedOut`, `NeedsLogin` for bytes that are not here; `Stale` when
    /// the file was replaced on the service and the old bytes are not here.
    pub fn read(
        self: &Arc<Self>,
        _ino: Ino,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Outcome<Buffer>, VfsError> {
        let handle = self.handle(fh)?;
        if !handle.flags.read {
            return Err(VfsError::BadHandle);
        }
        let file = &handle.file;
        // While the kernel is being told of new content, nobody begins with either.
        let unannounced =
            || !file.used.load(Ordering::Relaxed) && self.engine.is_unannounced(file.ino);
        if unannounced() {
            let size_known = file.state.lock().item.size;
            return Ok(self.read_later(handle, offset, size, size_known));
        }
        let Some(readable) = self.readable(file)? else {
            return Ok(Outcome::Now(Buffer::default()));
        };
        let size_known = readable.body.size();
        let end = readable
            .body
            .size()
            .min(offset.saturating_add(u64::from(size)));
        if offset >= end {
            return Ok(Outcome::Now(Buffer::default()));
        }
        if handle.was_misled(&readable.body) {
            return Err(VfsError::io(HydrateError::Corrupt));
        }
        if let Some(source) = readable.source.as_ref().filter(|_| !readable.stale) {
            self.engine
                .hydrator
                .note_read(&readable.body, source, fh, offset..end);
        }
        if readable.body.missing(offset..end).is_empty()
            && file.note_used(&readable.body, || self.engine.is_unannounced(file.ino))
        {
            handle.note_handed_out(&readable.body);
            let data = read_exactly(&readable.body, offset, end)?;
            return Ok(Outcome::Now(match handle.ahead.next(offset..end) {
                Some(range) => data.followed_by(readable.body, range),
                None => data,
            }));
        }
        Ok(self.read_later(handle, offset, size, size_known))
    }

    /// Reads in a task.
    fn read_later(
        self: &Arc<Self>,
        handle: Arc<Handle>,
        offset: u64,
        size: u32,
        size_known: u64,
    ) -> Outcome<Buffer> {
        let vfs = Arc::clone(self);
        Outcome::Later(Box::pin(async move {
            vfs.read_remote(&handle, offset, size, size_known).await
        }))
    }

    /// Reads bytes of which some have to be fetched.
    async fn read_remote(
        self: &Arc<Self>,
        handle: &Handle,
        offset: u64,
        size: u32,
        mut size_known: u64,
    ) -> Result<Buffer, VfsError> {
        let file = &handle.file;
        let unannounced = || self.engine.is_unannounced(file.ino);
        for _ in 0..RESTARTS_MAX {
            if !file.used.load(Ordering::Relaxed) {
                self.engine.announced(file.ino).await;
            }
            let readable = self.readable(file)?;
            let size_now = readable.as_ref().map_or(0, |r| r.body.size());
            if size_now < size_known && !file.state.lock().dirty {
                // The kernel fills up with zeros what comes short of the size that it knew when it
                // asked. If a program cut the file, it knows already.
                return Err(VfsError::Stale);
            }
            let Some(readable) = readable else {
                return Ok(Buffer::default());
            };
            let end = readable
                .body
                .size()
                .min(offset.saturating_add(u64::from(size)));
            if offset >= end {
                return Ok(Buffer::default());
            }
            match self.fetch(&readable, offset, end).await {
                Ok(passed) if file.note_used(&readable.body, unannounced) => {
                    handle.note_handed_out(&readable.body);
                    return match passed {
                        Some(data) => Ok(data.into()),
                        None => read_exactly(&readable.body, offset, end),
                    };
                }
                // The content was replaced meanwhile, and nobody has seen any of it.
                Ok(_) => {}
                Err(HydrateError::TrueSize(true_size)) => {
                    self.learn_size(file, true_size)?;
                    size_known = 0;
                }
                Err(HydrateError::Changed) if self.is_copy_of_past(file, &readable)? => {
                    self.wait_for_past(&readable, offset..end).await?;
                }
                Err(HydrateError::Changed | HydrateError::Gone) => {
                    self.engine.refresh_item(file.ino).await?;
                    self.engine.announced(file.ino).await;
                    self.look_again(file)?;
                }
                Err(error) => {
                    if matches!(error, HydrateError::Offline | HydrateError::TimedOut) {
                        self.engine.wake_freshness();
                    }
                    return Err(error.into());
                }
            }
        }
        Err(VfsError::Stale)
    }

    /// Tells whether what a body lacks is of another item than the file is: of the one that it was
    /// copied from.
    fn is_copy_of_past(&self, file: &OpenFile, readable: &Readable) -> Result<bool, VfsError> {
        let (row, item) = self
            .store()
            .read(|r| Ok::<_, VfsError>((r.body(readable.body.id().0)?, r.item(file.ino)?)))?;
        let base = row.and_then(|row| row.base_item);
        let (Some(base), Some(source)) = (base, &readable.source) else {
            return Ok(false);
        };
        let own = item.as_ref().and_then(|item| item.item_id());
        Ok(base == source.item && own != Some(&base))
    }

    /// Waits until a range is here of an original that was replaced before the copy was made on the
    /// service.
    async fn wait_for_past(&self, readable: &Readable, range: ByteRange) -> Result<(), VfsError> {
        if let Some(source) = &readable.source {
            self.engine.begin_past(&readable.body, source);
        }
        let here = async {
            while !readable.body.missing(range.clone()).is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let limit = self.engine.config.first_byte_deadline;
        tokio::time::timeout(limit, here)
            .await
            .map_err(|_elapsed| VfsError::TimedOut)
    }

    /// Makes a range present. Where there is no room for that, returns its bytes instead.
    async fn fetch(
        &self,
        readable: &Readable,
        offset: u64,
        end: u64,
    ) -> Result<Option<Vec<u8>>, HydrateError> {
        let Some(source) = &readable.source else {
            return Err(HydrateError::Gone);
        };
        let hydrator = &self.engine.hydrator;
        let fetched = if hydrator.has_no_room() {
            Err(HydrateError::NoSpace)
        } else {
            let demand = Demand::Foreground;
            hydrator
                .ensure(&readable.body, source, offset..end, demand)
                .await
        };
        match fetched {
            Err(HydrateError::NoSpace) => {
                let passed = hydrator.pass_through(&readable.body, source, offset..end);
                Ok(Some(passed.await?))
            }
            fetched => fetched.map(|()| None),
        }
    }

    /// The body of an open file; `None` for an empty file.
    fn readable(&self, file: &OpenFile) -> Result<Option<Readable>, VfsError> {
        let mut state = file.state.lock();
        if state.body.is_none() {
            self.attach_body(&mut state, file)?;
        }
        state.catch_up();
        Ok(state.body.clone().map(|body| Readable {
            body,
            source: state.source.clone(),
            stale: state.stale,
        }))
    }

    /// Finds or makes the body of an open file.
    pub(crate) fn attach_body(
        &self,
        state: &mut FileState,
        file: &OpenFile,
    ) -> Result<(), VfsError> {
        if state.stale {
            return Err(VfsError::Stale);
        }
        let Some(item) = self.store().item(file.ino)? else {
            return Err(VfsError::Stale);
        };
        if file.used.load(Ordering::Relaxed) && self.engine.is_unannounced(file.ino) {
            // The row is of the next edition.
            return Err(VfsError::Stale);
        }
        state.item = (*item).clone();
        let row = item
            .body
            .map(|id| self.store().read(|r| r.body(id)))
            .transpose()?
            .flatten();
        if let Some(row) = row
            && let Some(body) = self.engine.open_body(&row)?
        {
            state.source = source_of(&self.engine.config.drive.id, &row);
            state.body = Some(body);
            // A save may have failed before, on a full disk: the next one takes it along.
            state.dirty = row.dirty;
            state.unmarked = row.dirty;
            return Ok(());
        }
        if item.size == 0 {
            return Ok(());
        }
        let make = || {
            self.store().write(|tx| {
                // It may have got one since.
                let made = self
                    .engine
                    .bodies
                    .find_or_create(tx, file.ino, Self::now())?;
                made.ok_or(VfsError::Stale)
            })
        };
        let (row, body) = match make() {
            Err(VfsError::NoSpace) if self.engine.make_room_for_save(0) => make()?,
            made => made?,
        };
        state.source = source_of(&self.engine.config.drive.id, &row);
        state.body = Some(body);
        Ok(())
    }

    /// The service sends another number of bytes than it says: what it sends counts.
    fn learn_size(&self, file: &OpenFile, true_size: u64) -> Result<(), VfsError> {
        let mut state = file.state.lock();
        if state.dirty || state.stale {
            return Err(VfsError::Stale);
        }
        if !self.engine.learn_size(file.ino, true_size)? {
            return Err(VfsError::Stale);
        }
        state.body = None;
        self.attach_body(&mut state, file)?;
        drop(state);
        self.engine
            .tell_kernel(vec![onedrivefs_sync::KernelChange::Attributes {
                ino: file.ino,
            }]);
        Ok(())
    }

    /// Bytes of an open file were not to be had, since the service has another version. Unless its
    /// handles have to do without them, looks at the row again: there is new content for those who
    /// have seen nothing of the old one, or the same content under new tags.
    fn look_again(&self, file: &OpenFile) -> Result<(), VfsError> {
        let mut state = file.state.lock();
        if state.stale {
            return Err(VfsError::Stale);
        }
        let Some(body) = state.body.clone().filter(|_| state.dirty) else {
            state.body = None;
            return Ok(());
        };
        // What was written here stays. An earlier save may have been sent meanwhile, which is what
        // the other bytes are to be had from now.
        let row = self.store().read(|r| r.body(body.id().0))?;
        let source = row.and_then(|row| source_of(&self.engine.config.drive.id, &row));
        if source.is_none() || source == state.source {
            return Err(VfsError::Stale);
        }
        state.source = source;
        Ok(())
    }

    /// The target of a symbolic link, fetched when it is not known yet. Where it is not certain that
    /// whoever is signed in wrote it, the service is asked first.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else than a link; `Stale` for what turns out to be none any
    /// more; what reading fails with.
    pub fn readlink(self: &Arc<Self>, ino: Ino) -> Result<Outcome<Vec<u8>>, VfsError> {
        let item = self.item(ino)?;
        if item.kind != Kind::Symlink {
            return Err(VfsError::InvalidArgument);
        }
        let author = item.remote.as_ref().map(|remote| remote.author);
        if let Some(target) = &item.target
            && !matches!(author, Some(None | Some(Author::Doubtful)))
        {
            return Ok(Outcome::Now(target.clone()));
        }
        let vfs = Arc::clone(self);
        Ok(Outcome::Later(Box::pin(async move {
            vfs.find_target(ino).await
        })))
    }

    /// The target of a link, after asking the service what it needs to be asked.
    async fn find_target(self: &Arc<Self>, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let mut item = self.item(ino)?;
        let judged = |item: &Item| item.remote.as_ref().and_then(|remote| remote.author);
        if item.remote.is_some() && !matches!(judged(&item), Some(Author::Own | Author::Other)) {
            let looked = self.engine.look_at(ino);
            let looked = tokio::time::timeout(self.engine.config.first_byte_deadline, looked).await;
            if let Err(error) = looked.map_err(|_elapsed| VfsError::TimedOut)? {
                // What we wrote ourselves is known, whatever has become of it since.
                let own = judged(&item).and(item.target.clone());
                return own.ok_or_else(|| VfsError::from(error));
            }
            item = self.store().item(ino)?.ok_or(VfsError::Stale)?;
        }
        if let Some(target) = &item.target {
            return Ok(target.clone());
        }
        if item.kind != Kind::Symlink || judged(&item) != Some(Author::Own) {
            return Err(VfsError::Stale);
        }
        let file = OpenFile::new((*item).clone());
        let Some(readable) = self.readable(&file)? else {
            return Ok(Vec::new());
        };
        let size = readable.body.size();
        let target = match self.fetch(&readable, 0, size).await? {
            Some(passed) => passed,
            None => read_exactly(&readable.body, 0, size)?.to_vec(),
        };
        if target.is_empty() || target.contains(&0) {
            return Err(VfsError::InvalidArgument);
        }
        self.store().write(|tx| {
            let mut now = tx.item(ino)?.ok_or(VfsError::Stale)?;
            let same = content_version(&now) == content_version(&item);
            if now.kind != Kind::Symlink || !same || judged(&now) != Some(Author::Own) {
                // These bytes are perhaps not of what was judged.
                return Err(VfsError::Stale);
            }
            now.target = Some(target.clone());
            tx.update_item(&now)?;
            Ok(())
        })?;
        Ok(target)
    }

    /// Finds the next data or hole from an offset on. What is not here counts as data, and so does
    /// everything while another program may have changed it through a mapping.
    ///
    /// # Errors
    /// `NoSuchOffset` past the end; `InvalidArgument` for other questions.
    pub fn lseek(&self, _ino: Ino, fh: u64, offset: i64, whence: i32) -> Result<u64, VfsError> {
        let offset = u64::try_from(offset).map_err(|_negative| VfsError::NoSuchOffset)?;
        let handle = self.handle(fh)?;
        let Some(readable) = self.readable(&handle.file)? else {
            return Err(VfsError::NoSuchOffset);
        };
        let body = &readable.body;
        let inside = |at| (offset < body.size()).then_some(at);
        let found = match (whence, self.may_be_mapped_by_others(&handle)) {
            (libc::SEEK_DATA, false) => body.seek_data(offset)?,
            (libc::SEEK_HOLE, false) => body.seek_hole(offset)?,
            (libc::SEEK_DATA, true) => inside(offset),
            (libc::SEEK_HOLE, true) => inside(body.size()),
            _ => return Err(VfsError::InvalidArgument),
        };
        found.ok_or(VfsError::NoSuchOffset)
    }

    /// Tells whether another handle than this one lets a program change its file through a mapping,
    /// of which the kernel tells nothing until it writes the pages back.
    fn may_be_mapped_by_others(&self, handle: &Arc<Handle>) -> bool {
        if handle.file.handles.load(Ordering::Relaxed) < 2 {
            return false;
        }
        let handles = self.handles.read();
        handles.values().any(|other| {
            Arc::ptr_eq(&other.file, &handle.file)
                && !Arc::ptr_eq(other, handle)
                && other.flags.read
                && other.flags.write
        })
    }
}

/// Reads a range that is present. The kernel pads a short answer with zeros, so one is an error.
fn read_exactly(body: &Body, offset: u64, end: u64) -> Result<Buffer, VfsError> {
    let size = usize::try_from(end - offset).map_err(VfsError::io)?;
    let mut buffer = Buffer::of(size);
    let got = body.read_at(offset, &mut buffer)?;
    if got < size && offset + (got as u64) < body.size().min(end) {
        return Err(VfsError::io(
            "the body on disk is shorter than it should be",
        ));
    }
    buffer.truncate(got);
    Ok(buffer)
}
