//! Real mounts of a filesystem with one file, in every way a mount can end.
//!
//! They need /dev/fuse and root, and are skipped with a message without them.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Generation, INodeNo, KernelConfig, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request,
};
use onedrivefs_core::Ino;
use rustix::mount::{MountFlags, UnmountFlags};

use super::*;
use crate::notify::{Connected, Kernel as _};
use crate::{init, is_stale, mounts, unmount_path};

/// Longer than any machine needs; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells a re-executed test binary where to mount.
const CHILD_MOUNTPOINT: &str = "ONEDRIVEFS_TEST_MOUNTPOINT";

const CONTENT: &[u8] = b"one file\n";
const NOBODY: u32 = 65534;

/// A root directory with the file `file`.
#[derive(Default)]
struct OneFile {
    lookups: Arc<AtomicU32>,
}

fn attr(ino: u64) -> FileAttr {
    let root = ino == 1;
    FileAttr {
        ino: INodeNo(ino),
        size: if root { 0 } else { CONTENT.len() as u64 },
        blocks: 1,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: if root {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: 0o755,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

const TTL: Duration = Duration::from_secs(3600);

impl Filesystem for OneFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::configure(config);
        Ok(())
    }
    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if name == "file" {
            reply.entry(&TTL, &attr(2), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }
    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino.0));
    }
    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        _size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = usize::try_from(offset).unwrap().min(CONTENT.len());
        reply.data(&CONTENT[start..]);
    }
    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            assert!(!reply.add(INodeNo(2), 1, FileType::RegularFile, "file"));
        }
        reply.ok();
    }
}

/// Says why a test does nothing, or that it can run.
fn can_mount() -> bool {
    let able = rustix::process::geteuid().is_root() && device::can_open();
    if !able {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    able
}

fn options(path: &Path) -> MountOptions {
    MountOptions {
        mountpoint: path.to_owned(),
        fs_name: "onedrivefs:test".to_owned(),
        read_only: false,
        allow_other: false,
        passthrough: Passthrough::Auto,
        threads: None,
    }
}

fn serve_one_file(options: &MountOptions) -> Result<(Mounted, Notifier), MountError> {
    let filesystem = OneFile::default();
    serve_this(filesystem, options)
}

fn serve_this(fs: OneFile, options: &MountOptions) -> Result<(Mounted, Notifier), MountError> {
    let (queue, _work) = notify::queue(Arc::default());
    let shutdown = Shutdown {
        requested: Arc::default(),
        waiting: CancellationToken::new(),
        notify: queue,
    };
    let (served, notifier) = serve(fs, Handle::current(), shutdown, options)?;
    let watchers = None;
    Ok((Mounted { served, watchers }, notifier))
}

fn mounted_at(path: &Path) -> Option<String> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let table = mounts::read().unwrap();
    mounts::topmost(&table, &path).map(|entry| entry.fs_type.clone())
}

async fn end_of(mounted: &Mounted) -> SessionEnd {
    timeout(PATIENCE, mounted.wait_unmounted()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_serves_and_leaves_nothing() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
    assert_eq!(mounted_at(dir.path()).unwrap(), mounts::FS_TYPE);
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), CONTENT);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(table.contains("onedrivefs:test"));
    assert!(matches!(
        serve_one_file(&options(dir.path())),
        Err(MountError::AlreadyMounted { .. })
    ));
    assert!(!is_stale(dir.path()));
    assert_eq!(mounted.unmount().await.unwrap(), Teardown::Complete);
    assert_eq!(mounted_at(dir.path()), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_mount_refuses_changes() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.read_only = true;
    options.allow_other = true;
    let (mounted, _) = serve_one_file(&options).unwrap();
    let error = fs::write(dir.path().join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    drop(mounted);
    assert_eq!(mounted_at(dir.path()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmount_from_outside_is_an_event() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 3] = [
        &["umount"],
        &["fusermount3", "-u"],
        &["fusermount3", "-u", "-z"],
    ];
    for command in commands {
        let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
        let status = Command::new(command[0])
            .args(&command[1..])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "{command:?}");
        assert_eq!(end_of(&mounted).await, SessionEnd::External, "{command:?}");
        assert_eq!(mounted.unmount().await.unwrap(), Teardown::Complete);
    }
    let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
    unmount_path(dir.path()).unwrap();
    assert_eq!(end_of(&mounted).await, SessionEnd::External);
    assert!(matches!(
        unmount_path(dir.path()),
        Err(MountError::NotMounted { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_in_use_is_detached_and_ends_with_its_last_user() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
    let mut file = fs::File::open(dir.path().join("file")).unwrap();
    assert!(matches!(
        unmount_path(dir.path()),
        Err(MountError::Busy { .. })
    ));
    let mut ended = mounted.served.ended.clone();
    assert_eq!(mounted.unmount().await.unwrap(), Teardown::StillInUse);
    assert_eq!(mounted_at(dir.path()), None);
    let mut text = Vec::new();
    file.read_to_end(&mut text).unwrap();
    assert_eq!(text, CONTENT);
    drop(file);
    let end = timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
    assert_eq!(*end.unwrap().unwrap(), Some(SessionEnd::Requested));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_connection_leaves_no_dead_mount() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
    let file = fs::File::open(dir.path().join("file")).unwrap();
    // A forced unmount of a mount in use aborts the connection and then fails.
    rustix::mount::unmount(dir.path(), UnmountFlags::FORCE).unwrap_err();
    assert_eq!(end_of(&mounted).await, SessionEnd::External);
    assert_eq!(mounted_at(dir.path()), None);
    drop(file);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_mounted_is_left_alone() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for covered in [false, true] {
        let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
        if !covered {
            rustix::mount::unmount(dir.path(), UnmountFlags::empty()).unwrap();
        }
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        assert!(matches!(
            unmount_path(dir.path()),
            Err(MountError::NotOurs { fs_type, .. }) if fs_type == "tmpfs"
        ));
        assert_eq!(mounted.unmount().await.is_ok(), !covered);
        assert_eq!(mounted_at(dir.path()).unwrap(), "tmpfs");
        rustix::mount::unmount(dir.path(), UnmountFlags::empty()).unwrap();
        if covered {
            unmount_path(dir.path()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_reach_the_kernel() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let filesystem = OneFile::default();
    let lookups = Arc::clone(&filesystem.lookups);
    let (mounted, notifier) = serve_this(filesystem, &options(dir.path())).unwrap();
    let notifier = Connected::new(notifier, |_| 0);
    let path = dir.path().join("file");
    let looked_up = || {
        fs::metadata(&path).unwrap();
        lookups.load(Ordering::Relaxed)
    };
    assert_eq!((looked_up(), looked_up()), (1, 1));
    notifier.forget_entry(Ino(1), OsStr::new("file")).unwrap();
    assert_eq!((looked_up(), looked_up()), (2, 2));
    notifier.forget_attributes(Ino(2)).unwrap();
    notifier.forget_content(Ino(2)).unwrap();
    notifier.forget_content(Ino(77)).unwrap();
    notifier
        .announce_deletion(Ino(1), Ino(2), OsStr::new("file"))
        .unwrap();
    assert_eq!(looked_up(), 3);
    mounted.unmount().await.unwrap();
    // After the end it does no harm.
    drop(notifier.forget_entry(Ino(1), OsStr::new("file")));
}

/// Runs this binary again, to mount at `path` until its standard input ends. Returns the child's
/// error when it could not mount.
fn child_mounting(path: &Path, uid: u32) -> Result<Child, String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "session::tests::mount_in_a_child", "--ignored"])
        .arg("--nocapture")
        .env(CHILD_MOUNTPOINT, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .uid(uid)
        .gid(uid)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let verdict = stdout
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("VERDICT ")?.1.to_owned()))
        .unwrap();
    // The rest of what the test harness prints must find a reader.
    thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
    if verdict == "mounted" {
        return Ok(child);
    }
    child.wait().unwrap();
    Err(verdict)
}

/// The child's part of other tests.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by other tests in a process of its own"]
async fn mount_in_a_child() {
    let path = PathBuf::from(std::env::var_os(CHILD_MOUNTPOINT).unwrap());
    let mut stdout = io::stdout();
    let mounted = match serve_one_file(&options(&path)) {
        Ok((mounted, _)) => mounted,
        Err(error) => return writeln!(stdout, "VERDICT {error:?}").unwrap(),
    };
    writeln!(stdout, "VERDICT mounted").unwrap();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(mounted.unmount().await.unwrap(), Teardown::Complete);
}

/// Kills a child without giving it a chance to unmount.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_of_a_dead_daemon_is_recovered() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    kill(child_mounting(dir.path(), 0).unwrap());
    assert!(is_stale(dir.path()));
    let (mounted, _) = serve_one_file(&options(dir.path())).unwrap();
    assert!(!is_stale(dir.path()));
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), CONTENT);
    mounted.unmount().await.unwrap();
    assert_eq!(mounted_at(dir.path()), None);

    kill(child_mounting(dir.path(), 0).unwrap());
    unmount_path(dir.path()).unwrap();
    assert_eq!(mounted_at(dir.path()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_mounts_and_recovers_through_the_helper() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let device = fs::metadata("/dev/fuse").unwrap();
    if device.mode() & 0o006 != 0o006 {
        let error = child_mounting(dir.path(), NOBODY).unwrap_err();
        assert_eq!(error, "DeviceDenied");
        return eprintln!("skipped in part: /dev/fuse is not open to everybody");
    }
    kill(child_mounting(dir.path(), NOBODY).unwrap());
    assert_eq!(mounted_at(dir.path()).unwrap(), mounts::FS_TYPE);
    let mut child = child_mounting(dir.path(), NOBODY).unwrap();
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(table.contains(&format!("user_id={NOBODY}")));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(mounted_at(dir.path()), None);
}
