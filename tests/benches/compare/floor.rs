//! The least that a file system like ours costs: one that answers what it is asked for from an array of
//! names, and from one file. What it takes is the kernel's own time for such a file system, and the way
//! to the daemon and back.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectoryPlus, ReplyEntry, Request,
};

/// As long as ours.
const TTL: Duration = Duration::from_secs(3600);

/// What ours sets as well where it may, in KiB.
const READ_AHEAD_KIB: &str = "512";

/// One folder of files that have the same content.
struct Floor {
    names: Vec<String>,
    content: File,
    size: u64,
}

/// Mounts a folder of files with these names and the content of a file. It ends with what is returned.
pub fn mount(names: Vec<String>, content: &Path, at: &Path) -> BackgroundSession {
    let content = File::open(content).expect("content");
    let size = content.metadata().expect("content").len();
    let mut config = Config::default();
    config.n_threads = std::thread::available_parallelism().ok().map(usize::from);
    config.clone_fd = true;
    let floor = Floor {
        names,
        content,
        size,
    };
    fs::create_dir(at).expect("mountpoint");
    let session = fuser::spawn_mount(floor, at, &config).expect("mount");
    let device = rustix::fs::minor(fs::metadata(at).expect("mount").dev());
    let read_ahead = format!("/sys/class/bdi/0:{device}/read_ahead_kb");
    // Where that may not be set it is not set for ours either.
    let _kept = fs::write(read_ahead, READ_AHEAD_KIB);
    session
}

fn attr(ino: INodeNo, size: u64) -> FileAttr {
    let (kind, perm) = match ino {
        INodeNo::ROOT => (FileType::Directory, 0o755),
        _ => (FileType::RegularFile, 0o644),
    };
    FileAttr {
        ino,
        size,
        blocks: 1,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

thread_local! {
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Floor {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            // An old kernel does without, and so do we on it.
            let _unknown = config.add_capabilities(flag);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.names.iter().position(|known| name == known.as_str()) {
            Some(index) => {
                let attr = attr(INodeNo(index as u64 + 2), self.size);
                reply.entry(&TTL, &attr, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino, self.size));
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BLOCK.with_borrow_mut(|block| {
            block.resize(block.len().max(size as usize), 0);
            match self.content.read_at(&mut block[..size as usize], offset) {
                Ok(count) => reply.data(&block[..count]),
                Err(_) => reply.error(Errno::EIO),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, name) in self.names.iter().enumerate().skip(from) {
            let (next, ino) = (index as u64 + 1, INodeNo(index as u64 + 2));
            if reply.add(ino, next, name, &TTL, &attr(ino, self.size), Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
