//! The request handlers: each turns one kernel request into one call of the vfs and its result
//! into one reply.
//!
//! Handlers run on the threads that receive requests, so none of them ever waits. A call that
//! needs the network comes back as a future; the reply moves into a task with it and the thread
//! takes the next request.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use onedrivefs_core::Ino;
use onedrivefs_vfs::{
    Ahead, DirEntry, Forest, KernelChange, Outcome, SetAttr, Spot, Vfs, VfsError,
};
use rustix::fs::{FileType, OFlags, XattrFlags};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::attention::Attention;
use crate::call::{
    Call, MODE_MASK, check_attribute, expected_edition, file_flags, ino, is_other_spelling,
    is_user_attribute, rename_mode,
};
use crate::init::{self, Passthrough};
use crate::notify::NotifyQueue;
use crate::open_files::OpenFiles;
use crate::reply::{self, Access, Refuse};
use crate::watchers::{self, Deed, Watchers};

/// Serves the requests of one mount.
pub(crate) struct Adapter {
    forest: Arc<Forest>,
    runtime: Handle,
    /// Cancelled when the mount goes away: whoever waits is answered.
    shutdown: CancellationToken,
    files: Arc<OpenFiles>,
    notify: NotifyQueue,
    kernel: init::Kernel,
    passthrough: Passthrough,
    watchers: Arc<Watchers>,
    attention: Arc<Attention>,
}

impl Adapter {
    /// Serves the drives of `forest`.
    pub(crate) fn new(
        forest: Arc<Forest>,
        runtime: Handle,
        shutdown: CancellationToken,
        files: Arc<OpenFiles>,
        notify: NotifyQueue,
        passthrough: Passthrough,
        watchers: Arc<Watchers>,
    ) -> Self {
        Self {
            forest,
            runtime,
            shutdown,
            files,
            notify,
            kernel: init::Kernel::default(),
            passthrough,
            watchers,
            attention: Arc::default(),
        }
    }

    /// What has to know the connection once there is one.
    pub(crate) fn attention(&self) -> Arc<Attention> {
        Arc::clone(&self.attention)
    }

    /// What a handle is for.
    fn access(&self, flags: onedrivefs_vfs::OpenFlags) -> Access {
        if !flags.write {
            Access::Read
        } else if !flags.read && self.kernel.drops_pages_at_direct_writes {
            Access::WriteOnly
        } else {
            Access::Write
        }
    }

    /// Where to do something with a thing itself.
    fn about(&self, node: INodeNo) -> Result<Spot, VfsError> {
        self.forest.about(ino(node))
    }

    /// Where to do something with what is in a directory that was looked into.
    fn within(&self, directory: INodeNo) -> Result<Spot, VfsError> {
        self.forest.within_now(ino(directory))
    }

    /// Answers a request from what is here.
    fn now<T, R: Refuse>(
        &self,
        call: &Call,
        reply: R,
        spot: Result<Spot, VfsError>,
        work: impl FnOnce(&Spot) -> Result<T, VfsError>,
        send: impl FnOnce(R, T),
    ) {
        call.span
            .in_scope(|| call.answer(reply, spot.and_then(|spot| work(&spot)), send));
        self.attention.answered();
    }

    /// Has another thread read what is going to be asked for next. This one is about to answer, and
    /// whoever gets the answer goes on on its processor, as soon as this one sleeps.
    fn read_ahead(&self, vfs: &Arc<Vfs>, ahead: Option<Ahead>) {
        if let Some(ahead) = ahead {
            let vfs = Arc::clone(vfs);
            drop(self.runtime.spawn_blocking(move || vfs.read_ahead(&ahead)));
        }
    }

    /// What to do after a file was changed: if it was under another spelling than it has, what the
    /// kernel keeps of it under its own is outdated.
    fn changed(&self, node: INodeNo) -> impl FnOnce() + Send + 'static {
        let told = is_other_spelling(node).then(|| (self.runtime.clone(), self.notify.clone()));
        move || {
            if let Some((runtime, notify)) = told {
                let changes = vec![KernelChange::Content { ino: ino(node) }];
                drop(runtime.spawn_blocking(move || notify.send(changes)));
            }
        }
    }

    /// What to do after a name in a directory was given or taken: if the directory is known under
    /// another spelling than it has, what the kernel keeps of it under its own is outdated, and
    /// what it moved here is not to stay.
    fn changed_below(&self, directory: INodeNo, name: &OsStr) {
        let Some(name) = name.to_str().filter(|_| is_other_spelling(directory)) else {
            return;
        };
        let mut changes: Vec<KernelChange> = [ino(directory), Ino(directory.0)]
            .into_iter()
            .map(|parent| KernelChange::Entry {
                parent,
                name: name.to_owned(),
            })
            .collect();
        changes.push(KernelChange::Attributes {
            ino: ino(directory),
        });
        let notify = self.notify.clone();
        drop(self.runtime.spawn_blocking(move || notify.send(changes)));
    }

    /// Whether a request is made for those who watch.
    fn judge(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        deed: Deed,
    ) -> watchers::Request {
        (self.watchers).judge(request, parent, name, |one| one == deed)
    }

    /// Lets the kernel believe that what is there was made just now.
    fn show(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let call = Call::new("show", request, parent);
        let work = |at: &Spot| at.vfs.lookup(at.ino, name);
        self.soon(
            call,
            reply,
            self.within(parent),
            work,
            move |reply, found| match found {
                Some(found) => reply::entry_or_absent(reply, parent, Some(found)),
                None => reply.error(Errno::ENOENT),
            },
        );
    }

    /// Lets the kernel believe that what is gone was removed just now.
    fn confirm_gone(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let is_there = name
            .to_str()
            .and_then(|name| self.forest.kind_at(ino(parent), name));
        match is_there {
            // It was made again.
            Some(_) => reply.error(Errno::EBUSY),
            None => reply.ok(),
        }
    }

    /// Answers a request at once or, when it has to wait, from a task.
    fn soon<T: Send + 'static, R: Refuse>(
        &self,
        call: Call,
        reply: R,
        spot: Result<Spot, VfsError>,
        work: impl FnOnce(&Spot) -> Result<Outcome<T>, VfsError>,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        let done = call.span.in_scope(|| spot.and_then(|spot| work(&spot)));
        self.settle(call, reply, done, send);
    }

    /// As [`Self::soon`], in a directory that may be one of a drive that is not served yet.
    fn soon_within<T: Send + 'static, R: Refuse>(
        &self,
        call: Call,
        reply: R,
        directory: INodeNo,
        work: impl FnOnce(&Spot) -> Result<Outcome<T>, VfsError> + Send + 'static,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        match self.forest.within(ino(directory)) {
            Ok(Outcome::Now(spot)) => self.soon(call, reply, Ok(spot), work, send),
            Err(error) => reply.refuse(call.errno(&error)),
            Ok(Outcome::Later(planted)) => {
                let pending = Box::pin(async move {
                    match work(&planted.await?)? {
                        Outcome::Now(value) => Ok(value),
                        Outcome::Later(pending) => pending.await,
                    }
                });
                self.settle(call, reply, Ok(Outcome::Later(pending)), send);
            }
        }
    }

    /// Sends what a request comes to, from a task when that is still to be seen.
    fn settle<T: Send + 'static, R: Refuse>(
        &self,
        call: Call,
        reply: R,
        done: Result<Outcome<T>, VfsError>,
        send: impl FnOnce(R, T) + Send + 'static,
    ) {
        match done {
            Ok(Outcome::Now(value)) => {
                send(reply, value);
                self.attention.answered();
            }
            Err(error) => {
                reply.refuse(call.errno(&error));
                self.attention.answered();
            }
            Ok(Outcome::Later(pending)) => {
                let shutdown = self.shutdown.clone();
                // All drives of the mount count together.
                let waiter = self.forest.main().engine().waiters.enter();
                let span = call.span.clone();
                let task = async move {
                    let waiting = waiter.wait_for(pending);
                    let result = shutdown.run_until_cancelled(waiting).await.flatten();
                    call.answer(reply, result.unwrap_or(Err(VfsError::Offline)), send);
                    drop(waiter);
                };
                drop(self.runtime.spawn(task.instrument(span)));
            }
        }
    }
}

/// The content of a file was changed. If it is known under another spelling than it has, no program
/// is to meet the size that the kernel keeps under its own, nor the pages below that.
fn content_known_of(vfs: &Vfs, node: INodeNo) {
    if is_other_spelling(node) {
        // Where it cannot be done at once it is done after the answer.
        let _at_once = vfs.forget_names();
    }
}

/// Passes on the result of giving or taking names in directories. If one of them is known under
/// another spelling than it has, no program is to meet what the kernel keeps under its own.
fn names_known_in<T>(
    spot: &Spot,
    directories: &[INodeNo],
    result: Result<T, VfsError>,
) -> Result<T, VfsError> {
    if result.is_ok() && directories.iter().copied().any(is_other_spelling) {
        // Where it cannot be done at once it is done after the answer.
        let _at_once = spot.vfs.forget_names();
    }
    result
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.kernel = init::configure(config);
        if self.passthrough == Passthrough::Auto && init::ask_for_passthrough(config) {
            self.forest.allow_passthrough();
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let to_be_made = self.watchers.judge(request, parent, name, Deed::makes);
        if to_be_made == watchers::Request::Errand {
            return reply.error(Errno::ENOENT);
        }
        let call = Call::new("lookup", request, parent);
        let name = name.to_owned();
        let work = move |at: &Spot| at.vfs.lookup(at.ino, &name);
        self.soon_within(call, reply, parent, work, move |reply, found| {
            reply::entry_or_absent(reply, parent, found);
        });
    }

    fn getattr(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let call = Call::new("getattr", request, node);
        self.now(
            &call,
            reply,
            self.about(node),
            |at| match expected_edition(node) {
                Some(edition) => at.vfs.getattr_of(at.ino, edition),
                None => at.vfs.getattr(at.ino),
            },
            |reply, attr| reply::attributes(reply, node, &attr),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.watchers.judge_touch(request, node) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.getattr(request, node, handle, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("setattr", request, node);
        let wanted = SetAttr {
            mode: mode.map(|mode| mode & MODE_MASK),
            uid,
            gid,
            size,
            atime: atime.map(reply::set_time),
            mtime: mtime.map(reply::set_time),
            fh: handle.map(|handle| handle.0),
        };
        let work = |at: &Spot| {
            at.vfs.check_edition(at.ino, expected_edition(node))?;
            at.vfs.setattr(at.ino, &wanted)
        };
        let changed = self.changed(node);
        let at = self.about(node);
        let sized = at.as_ref().ok().filter(|_| size.is_some());
        let sized = sized.map(|at| Arc::clone(&at.vfs));
        self.soon(call, reply, at, work, move |reply, attr| {
            if let Some(vfs) = sized {
                content_known_of(&vfs, node);
            }
            reply::attributes(reply, node, &attr);
            changed();
        });
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let call = Call::new("readlink", request, node);
        let work = |at: &Spot| at.vfs.readlink(at.ino);
        self.soon(call, reply, self.about(node), work, reply::bytes);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        match self.judge(request, parent, name, Deed::MakeFile) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.show(request, parent, name, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("mknod", request, parent);
        let work = |at: &Spot| {
            if FileType::from_raw_mode(mode) != FileType::RegularFile {
                return Err(VfsError::NotPermitted);
            }
            let flags = file_flags((OFlags::WRONLY | OFlags::EXCL).bits().cast_signed());
            at.vfs.mknod(at.ino, name, mode & MODE_MASK, flags)
        };
        self.now(&call, reply, self.within(parent), work, |reply, attr| {
            reply::entry(reply, parent, attr);
        });
        self.changed_below(parent, name);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        match self.judge(request, parent, name, Deed::MakeDirectory) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.show(request, parent, name, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("mkdir", request, parent);
        let work = |at: &Spot| {
            let made = at.vfs.mkdir(at.ino, name, mode & MODE_MASK);
            names_known_in(at, &[parent], made)
        };
        self.now(&call, reply, self.within(parent), work, |reply, attr| {
            reply::entry(reply, parent, attr);
        });
        self.changed_below(parent, name);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.judge(request, parent, name, Deed::Remove) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.confirm_gone(parent, name, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("unlink", request, parent);
        self.now(
            &call,
            reply,
            self.within(parent),
            |at| names_known_in(at, &[parent], at.vfs.unlink(at.ino, name)),
            reply::done,
        );
        self.changed_below(parent, name);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.judge(request, parent, name, Deed::Remove) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.confirm_gone(parent, name, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("rmdir", request, parent);
        let removed = call.span.in_scope(|| self.forest.rmdir(ino(parent), name));
        let removed = match removed {
            Ok(Outcome::Now(())) => self
                .within(parent)
                .and_then(|at| names_known_in(&at, &[parent], Ok(Outcome::Now(())))),
            other => other,
        };
        self.settle(call, reply, removed, reply::done);
        self.changed_below(parent, name);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        match self.judge(request, parent, name, Deed::MakeLink) {
            watchers::Request::Real => {}
            watchers::Request::Errand => return self.show(request, parent, name, reply),
            watchers::Request::Late => return reply.error(Errno::EBUSY),
        }
        let call = Call::new("symlink", request, parent);
        let work = |at: &Spot| names_known_in(at, &[parent], at.vfs.symlink(at.ino, name, target));
        self.now(&call, reply, self.within(parent), work, |reply, attr| {
            reply::entry(reply, parent, attr);
        });
        self.changed_below(parent, name);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("rename", request, parent);
        let work = |from: &Spot| {
            let mode = rename_mode(flags)?;
            let to = self.within(new_parent)?;
            if !Arc::ptr_eq(&from.vfs, &to.vfs) {
                // Programs copy then, and remove the original.
                return Err(VfsError::CrossDevice);
            }
            let renamed = from.vfs.rename(from.ino, name, to.ino, new_name, mode);
            names_known_in(from, &[parent, new_parent], renamed)
        };
        self.now(&call, reply, self.within(parent), work, reply::done);
        self.changed_below(parent, name);
        self.changed_below(new_parent, new_name);
    }

    fn link(
        &self,
        _request: &Request,
        _node: INodeNo,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        // The service knows no hard links.
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let call = Call::new("open", request, node);
        let flags = file_flags(flags.0);
        let access = self.access(flags);
        let work = |at: &Spot| {
            // `cp a A` cannot see that both are one file, and would empty it while reading it.
            if flags.truncate && is_other_spelling(node) && at.vfs.is_open(at.ino) {
                return Err(VfsError::Busy);
            }
            let vfs = Arc::clone(&at.vfs);
            Ok(match at.vfs.open(at.ino, expected_edition(node), flags)? {
                Outcome::Now(opened) => Outcome::Now((vfs, opened)),
                Outcome::Later(pending) => {
                    Outcome::Later(Box::pin(async move { Ok((vfs, pending.await?)) }))
                }
            })
        };
        let files = Arc::clone(&self.files);
        self.soon(
            call,
            reply,
            self.about(node),
            work,
            move |reply, (vfs, mut opened)| {
                if flags.truncate {
                    content_known_of(&vfs, node);
                }
                files.opened(ino(node));
                // Its pages are kept under the spelling that the file has.
                opened.direct_io |= is_other_spelling(node);
                reply::opened(&vfs, reply, &opened, access);
            },
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let call = Call::new("create", request, parent);
        let flags = file_flags(flags);
        let access = self.access(flags);
        let work = |at: &Spot| {
            let created = at.vfs.create(at.ino, name, mode & MODE_MASK, flags);
            let created = names_known_in(at, &[parent], created)?;
            Ok((Arc::clone(&at.vfs), created))
        };
        self.now(
            &call,
            reply,
            self.within(parent),
            work,
            |reply, (vfs, made)| {
                self.files.opened(made.0.ino);
                reply::created(&vfs, reply, parent, &made, access);
            },
        );
        self.changed_below(parent, name);
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let call = Call::new("read", request, node);
        let work = |at: &Spot| at.vfs.read(at.ino, handle.0, offset, size);
        self.soon(call, reply, self.about(node), work, reply::content);
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let call = Call::new("write", request, node);
        let work = |at: &Spot| at.vfs.write(at.ino, handle.0, offset, data);
        self.now(&call, reply, self.about(node), work, reply::written);
    }

    fn flush(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("flush", request, node);
        let at = self.about(node);
        let was_written =
            is_other_spelling(node) && at.as_ref().is_ok_and(|at| at.vfs.is_written(handle.0));
        let written = at.as_ref().ok().filter(|_| was_written);
        let written = written.map(|at| Arc::clone(&at.vfs));
        let work = |at: &Spot| at.vfs.flush(at.ino, handle.0);
        let changed = self.changed(node);
        self.soon(call, reply, at, work, move |reply, ()| {
            if let Some(vfs) = written {
                content_known_of(&vfs, node);
            }
            reply::done(reply, ());
            changed();
        });
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("release", request, node);
        call.span.in_scope(|| {
            // One that is not there any more has nothing open.
            if let Ok(at) = self.about(node) {
                at.vfs.release(at.ino, handle.0);
            }
        });
        if self.files.closed(ino(node)) {
            self.notify.closed();
        }
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("fsync", request, node);
        let work = |at: &Spot| at.vfs.fsync(at.ino, handle.0, datasync);
        self.now(&call, reply, self.about(node), work, reply::done);
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let call = Call::new("opendir", request, node);
        let work = |at: &Spot| at.vfs.opendir(at.ino);
        self.soon_within(call, reply, node, work, reply::opened_directory);
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let call = Call::new("readdir", request, node);
        let mut sink = |entry: DirEntry<'_>| reply::add_name(&mut reply, &entry);
        let at = match self.within(node) {
            Ok(at) => at,
            Err(error) => return reply.error(call.errno(&error)),
        };
        let listed = call
            .span
            .in_scope(|| at.vfs.readdir(at.ino, handle.0, offset, &mut sink));
        let listed = listed.map(|ahead| self.read_ahead(&at.vfs, ahead));
        call.answer(reply, listed, |reply, ()| reply.ok());
    }

    fn readdirplus(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let call = Call::new("readdirplus", request, node);
        let mut sink = |entry: DirEntry<'_>| reply::add_plus(&mut reply, node, &entry);
        let at = match self.within(node) {
            Ok(at) => at,
            Err(error) => return reply.error(call.errno(&error)),
        };
        let listed = call
            .span
            .in_scope(|| at.vfs.readdir(at.ino, handle.0, offset, &mut sink));
        let listed = listed.map(|ahead| self.read_ahead(&at.vfs, ahead));
        call.answer(reply, listed, |reply, ()| reply.ok());
    }

    fn releasedir(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        if let Ok(at) = self.within(node) {
            at.vfs.releasedir(handle.0);
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("fsyncdir", request, node);
        let work = |at: &Spot| at.vfs.fsyncdir(at.ino);
        self.now(&call, reply, self.within(node), work, reply::done);
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let at = self.within(node);
        let vfs = at.as_ref().map_or(self.forest.main(), |at| &at.vfs);
        reply::figures(reply, &vfs.statfs());
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("setxattr", request, node);
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let create = flags.contains(XattrFlags::CREATE);
        let replace = flags.contains(XattrFlags::REPLACE);
        let work = |at: &Spot| {
            check_attribute(name)?;
            at.vfs.setxattr(at.ino, name, value, create, replace)
        };
        self.now(&call, reply, self.about(node), work, reply::done);
    }

    fn getxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        buffer: u32,
        reply: ReplyXattr,
    ) {
        if !is_user_attribute(name) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let call = Call::new("getxattr", request, node);
        let work = |at: &Spot| at.vfs.getxattr(at.ino, name);
        self.now(&call, reply, self.about(node), work, |reply, value| {
            reply::attribute_value(reply, &value, buffer);
        });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, buffer: u32, reply: ReplyXattr) {
        let call = Call::new("listxattr", request, node);
        let work = |at: &Spot| at.vfs.listxattr(at.ino);
        self.now(&call, reply, self.about(node), work, |reply, names| {
            reply::attribute_value(reply, &names, buffer);
        });
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let call = Call::new("removexattr", request, node);
        let work = |at: &Spot| {
            check_attribute(name)?;
            at.vfs.removexattr(at.ino, name)
        };
        self.now(&call, reply, self.about(node), work, reply::done);
    }

    fn access(&self, _request: &Request, _node: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks the mode bits by itself; once told so, it does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; once told so, the kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let call = Call::new("fallocate", request, node);
        let work = |at: &Spot| at.vfs.fallocate(at.ino, handle.0, offset, length, mode);
        self.now(&call, reply, self.about(node), work, reply::done);
    }

    fn lseek(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let call = Call::new("lseek", request, node);
        let work = |at: &Spot| at.vfs.lseek(at.ino, handle.0, offset, whence);
        self.now(&call, reply, self.about(node), work, reply::position);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        from_handle: FileHandle,
        from_offset: u64,
        to: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // Refused as not supported, the kernel copies by reading and writing, this once.
        let call = Call::new("copy_file_range", request, to);
        let work = |at: &Spot| {
            if !Arc::ptr_eq(&at.vfs, &self.about(from)?.vfs) {
                return Err(VfsError::CrossDevice);
            }
            at.vfs.copy_file_range(
                (from_handle.0, from_offset),
                (to_handle.0, to_offset),
                length,
            )
        };
        self.now(&call, reply, self.about(to), work, reply::written);
    }
}
