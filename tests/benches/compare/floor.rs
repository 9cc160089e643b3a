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

/// The first inode that is not the root: those of the folders come first, then those of the files in
/// each of them.
const FIRST: u64 = 2;

/// As long as ours.
const TTL: Duration = Duration::from_secs(3600);

/// What ours sets as well where it may, in KiB.
const READ_AHEAD_KIB: &str = "512";

/// A folder of files that have the same content, or of folders with such files.
struct Floor {
    /// Folders in the root. Without any, the files are there.
    folders: Vec<String>,
    /// The files in each folder.
    names: Vec<String>,
    content: File,
    size: u64,
}

/// Mounts a folder of files with these names and the content of a file. It ends with what is returned.
pub fn mount(names: Vec<String>, content: &Path, at: &Path) -> BackgroundSession {
    mount_folders(Vec::new(), names, content, at)
}

/// Mounts a folder of folders, each with files of these names. It ends with what is returned.
pub fn mount_folders(
    folders: Vec<String>,
    names: Vec<String>,
    content: &Path,
    at: &Path,
) -> BackgroundSession {
    let content = File::open(content).expect("content");
    let size = content.metadata().expect("content").len();
    let mut config = Config::default();
    config.n_threads = std::thread::available_parallelism().ok().map(usize::from);
    config.clone_fd = true;
    let floor = Floor {
        folders,
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

impl Floor {
    /// The names in a folder, and the inode of the first one.
    fn children(&self, folder: INodeNo) -> (&[String], u64) {
        let first = FIRST + self.folders.len() as u64;
        match folder {
            INodeNo::ROOT if self.folders.is_empty() => (&self.names, first),
            INodeNo::ROOT => (&self.folders, FIRST),
            INodeNo(ino) => (&self.names, first + (ino - FIRST) * self.names.len() as u64),
        }
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm) = if ino.0 < FIRST + self.folders.len() as u64 {
            (FileType::Directory, 0o755)
        } else {
            (FileType::RegularFile, 0o644)
        };
        figures(ino, kind, perm, self.size)
    }
}

fn figures(ino: INodeNo, kind: FileType, perm: u16, size: u64) -> FileAttr {
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

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (names, first) = self.children(parent);
        match names.iter().position(|known| name == known.as_str()) {
            Some(index) => {
                let attr = self.attr(INodeNo(first + index as u64));
                reply.entry(&TTL, &attr, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
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
        folder: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let (names, first) = self.children(folder);
        for (index, name) in names.iter().enumerate().skip(from) {
            let (next, ino) = (index as u64 + 1, INodeNo(first + index as u64));
            if reply.add(ino, next, name, &TTL, &self.attr(ino), Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
