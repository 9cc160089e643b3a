//! The disk as a file system: what lies on it is what a power cut takes away.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::{Disk, Event, Mode, Node, ROOT, SECTOR};

/// How long the kernel may remember what it was told. Nobody but the kernel changes the disk.
const TTL: Duration = Duration::from_secs(3600);

/// Size of the disk in sectors.
const SECTORS: u64 = 1 << 28;

/// Threads that serve the kernel: one waits for nobody, and two find races.
const THREADS: usize = 2;

/// A disk, mounted.
pub struct Layer {
    disk: Arc<Mutex<Disk>>,
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
}

impl Layer {
    /// Mounts a disk.
    pub fn mount(disk: Disk, mountpoint: &Path) -> Self {
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("power".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(THREADS);
        let server = Server {
            disk: Arc::clone(&disk),
            times: Mutex::default(),
        };
        let session = fuser::spawn_mount(server, mountpoint, &config).expect("mount");
        Self {
            disk,
            mountpoint: mountpoint.to_owned(),
            session: Some(session),
        }
    }

    /// Looks at the disk.
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("disk")
    }

    /// Cuts the power: what lies on the disk afterwards is mounted anew in the same place.
    /// Nobody may have a file open.
    pub fn cut(mut self, mode: Mode, seed: u64) -> Self {
        // Before the kernel is told to let go: it would write out what it has in memory.
        let after = self.disk().cut(mode, seed);
        self.unmount();
        Self::mount(after, &self.mountpoint)
    }

    fn unmount(&mut self) {
        if let Some(session) = self.session.take() {
            // Lazily: a test that failed may have left something open.
            let done = Command::new("umount")
                .arg("-l")
                .arg(&self.mountpoint)
                .status();
            assert!(done.is_ok_and(|status| status.success()), "unmounting");
            drop(session);
        }
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Serves the kernel.
struct Server {
    disk: Arc<Mutex<Disk>>,
    /// When files were last changed; not worth surviving anything.
    times: Mutex<HashMap<u64, SystemTime>>,
}

impl Server {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("disk")
    }

    fn touch(&self, ino: u64) {
        let mut times = self.times.lock().expect("times");
        times.insert(ino, SystemTime::now());
    }

    fn attr(&self, disk: &Disk, ino: u64) -> Option<FileAttr> {
        let node = disk.now.nodes.get(&ino)?;
        let (kind, size, sectors) = match node {
            Node::Directory(_) => (FileType::Directory, SECTOR, 1),
            Node::File(body) => (FileType::RegularFile, body.size, body.allocated()),
        };
        let times = self.times.lock().expect("times");
        let time = times.get(&ino).copied().unwrap_or(UNIX_EPOCH);
        let own = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let mode = disk.now.modes.get(&ino).copied().unwrap_or(0o600);
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: sectors * (SECTOR / 512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: UNIX_EPOCH,
            kind,
            perm: u16::try_from(mode & 0o7777).unwrap_or(0o600),
            nlink: if kind == FileType::Directory {
                2
            } else {
                disk.now.links(ino)
            },
            uid: own,
            gid: group,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        directory: bool,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let mut disk = self.disk();
        if disk.now.names(parent).is_none() {
            return Err(Errno::ENOENT);
        }
        if disk.now.child(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = disk.new_ino();
        self.touch(ino);
        disk.record(Event::Make {
            parent,
            name: name.to_owned(),
            ino,
            directory,
            mode: mode & 0o7777,
        });
        self.attr(&disk, ino).ok_or(Errno::EIO)
    }

    fn remove(&self, parent: u64, name: &OsStr, directory: bool) -> Result<(), Errno> {
        let mut disk = self.disk();
        let ino = disk.now.child(parent, name).ok_or(Errno::ENOENT)?;
        match disk.now.names(ino) {
            Some(_) if !directory => return Err(Errno::EISDIR),
            None if directory => return Err(Errno::ENOTDIR),
            Some(names) if !names.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        disk.record(Event::Remove {
            parent,
            name: name.to_owned(),
            ino,
        });
        Ok(())
    }

    fn rename(
        &self,
        from: (u64, OsString),
        to: (u64, OsString),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut disk = self.disk();
        let ino = disk.now.child(from.0, &from.1).ok_or(Errno::ENOENT)?;
        let target = disk.now.child(to.0, &to.1);
        let exchange = flags.contains(RenameFlags::RENAME_EXCHANGE);
        match target {
            None if exchange => return Err(Errno::ENOENT),
            Some(_) if flags.contains(RenameFlags::RENAME_NOREPLACE) => return Err(Errno::EEXIST),
            Some(target) if target == ino => return Ok(()),
            Some(target)
                if disk
                    .now
                    .names(target)
                    .is_some_and(|names| !names.is_empty()) =>
            {
                return Err(Errno::ENOTEMPTY);
            }
            _ => {}
        }
        disk.record(Event::Rename {
            from,
            to,
            ino,
            exchange,
        });
        Ok(())
    }

    fn fallocate(&self, ino: u64, at: u64, len: u64, mode: i32) -> Result<(), Errno> {
        let mut disk = self.disk();
        let size = disk.now.body(ino).ok_or(Errno::EBADF)?.size;
        let end = at.saturating_add(len);
        let zeroes = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !(zeroes | libc::FALLOC_FL_KEEP_SIZE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if mode & zeroes != 0 {
            disk.record(Event::Punch {
                ino,
                start: at,
                end: end.min(size),
            });
        }
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > size {
            disk.record(Event::Resize { ino, size: end });
        }
        Ok(())
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let found = disk.now.child(parent.0, name);
        entry(
            found
                .and_then(|ino| self.attr(&disk, ino))
                .ok_or(Errno::ENOENT),
            reply,
        );
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(&self.disk(), ino.0) {
            Some(attr) => reply.attr(&Duration::ZERO, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        if let Some(mode) = mode {
            disk.set_mode(ino.0, mode & 0o7777);
        }
        if let Some(size) = size {
            self.touch(ino.0);
            disk.record(Event::Resize { ino: ino.0, size });
        }
        match self.attr(&disk, ino.0) {
            Some(attr) => reply.attr(&Duration::ZERO, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.make(parent.0, name, true, mode & !umask), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (parent.0, name.to_owned());
        let to = (new_parent.0, new_name.to_owned());
        empty(self.rename(from, to, flags), reply);
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = self.disk();
        if disk.now.child(parent.0, name).is_some() {
            return reply.error(Errno::EEXIST);
        }
        disk.record(Event::Link {
            parent: parent.0,
            name: name.to_owned(),
            ino: ino.0,
        });
        entry(self.attr(&disk, ino.0).ok_or(Errno::ENOENT), reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent.0, name, false, mode & !umask) {
            Ok(attr) => reply.created(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.disk();
        match disk.now.body(ino.0) {
            Some(body) => reply.data(&body.read(offset, size as usize)),
            None => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.touch(ino.0);
        self.disk().record(Event::Write {
            ino: ino.0,
            at: offset,
            data: data.into(),
        });
        reply.written(u32::try_from(data.len()).expect("length"));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().record(Event::Sync { ino: ino.0 });
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().record(Event::SyncDir { ino: ino.0 });
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let disk = self.disk();
        let Some(names) = disk.now.names(ino.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        let dots = [OsString::from("."), OsString::from("..")].map(|dot| (dot, ino.0));
        let entries = names.iter().map(|(name, ino)| (name.clone(), *ino));
        let all = dots.into_iter().chain(entries).zip(1..);
        let skip = usize::try_from(offset).expect("offset");
        for ((name, ino), next) in all.skip(skip) {
            let kind = match disk.now.names(ino) {
                Some(_) => FileType::Directory,
                None => FileType::RegularFile,
            };
            if reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(SECTORS, SECTORS, SECTORS, 0, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(self.fallocate(ino.0, offset, length, mode), reply);
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let disk = self.disk();
        let (Some(body), Ok(at)) = (disk.now.body(ino.0), u64::try_from(offset)) else {
            return reply.error(Errno::EINVAL);
        };
        let found = match whence {
            libc::SEEK_DATA => body.seek_data(at),
            libc::SEEK_HOLE => body.seek_hole(at),
            _ => return reply.error(Errno::EINVAL),
        };
        match found.and_then(|found| i64::try_from(found).ok()) {
            Some(found) => reply.offset(found),
            None => reply.error(Errno::ENXIO),
        }
    }
}

/// The root of a mounted disk is its first inode, as the kernel wants it.
const _: () = assert!(ROOT == 1);
