//! The guard of a mount: what lets a killed daemon go when the kernel cannot.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, MountOption,
    Notifier, RenameFlags, ReplyAttr, ReplyEmpty, ReplyEntry, Request,
};
use onedrivefs_tests::home::built_binary;
use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Home, Need, Service, needs, wait};
use rustix::io::Errno as SystemErrno;
use rustix::process::Signal;

/// Longest time for what takes a second.
const LIMIT: Duration = Duration::from_secs(20);

/// Tells the test binary, started again, where to mount what cannot leave.
const STUCK_AT: &str = "ONEDRIVEFS_TEST_STUCK_AT";

/// Processes that guard a mount of this daemon.
fn guards_of(daemon: u32) -> Vec<u32> {
    let children = fs::read_dir(format!("/proc/{daemon}/task"))
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect::<String>();
    let is_guard = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"guard")
    };
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    pids.filter(is_guard).collect()
}

/// Tells whether a process runs; one that has ended and was not asked for does not.
fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

#[test]
fn a_mount_has_one_guard_which_ends_with_it_and_holds_nothing_of_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let guards = guards_of(mount.pid());
    let [guard] = guards[..] else {
        panic!("{guards:?}");
    };
    let files: BTreeSet<PathBuf> = fs::read_dir(format!("/proc/{guard}/fd"))
        .expect("descriptors")
        .map(|fd| fs::read_link(fd.expect("descriptor").path()).expect("link"))
        .collect();
    let lasting = |file: &&PathBuf| file.starts_with("/") && !file.starts_with("/dev/null");
    assert_eq!(files.iter().find(lasting), None, "{files:?}");
    let environment = fs::read(format!("/proc/{guard}/environ")).expect("environment");
    assert!(environment.is_empty(), "secrets may be in there");

    // What is sent to all processes of a service or a terminal does not end it before its daemon.
    for signal in [Signal::TERM, Signal::INT] {
        let pid = rustix::process::Pid::from_raw(guard.cast_signed()).expect("pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }
    mount.crash();
    wait::until("the guard has left", LIMIT, || !runs(guard));
    drop(mount);

    let mount = home.mount();
    let guards = guards_of(mount.pid());
    assert_eq!(guards.len(), 1);
    mount.unmount();
    wait::until("the guard has left", LIMIT, || !runs(guards[0]));
}

#[test]
fn a_daemon_killed_while_a_program_keeps_it_from_leaving_lets_both_go() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let service = Service::start();
    let home = Home::new(&service);
    let place = home.make_dir("stuck");
    let mut server = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "guard::serves_what_cannot_leave", "--ignored"])
        .env(STUCK_AT, &place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("server");
    wait::until("mounted", LIMIT, || is_mounted(&place));
    wait::until("guarded", LIMIT, || !guards_of(server.id()).is_empty());
    let program = {
        let place = place.clone();
        thread::spawn(move || fs::rename(place.join("a"), place.join("b")))
    };
    wait::until("the kernel is being told", LIMIT, || {
        is_telling(server.id())
    });
    server.kill().expect("killed");
    let done = wait_for(&place, || program.is_finished());
    assert!(done, "the program got no answer");
    let renamed = program.join().expect("program").expect_err("no server");
    assert_eq!(
        renamed.raw_os_error(),
        Some(SystemErrno::CONNABORTED.raw_os_error())
    );
    assert_eq!(server.wait().expect("server").signal(), Some(9));
    let gone = Command::new("umount").arg("-l").arg(&place).status();
    assert!(gone.is_ok_and(|status| status.success()), "unmounted");
}

/// Waits for what the guard brings about. When it does not come, what hangs is let go, so that the
/// test can fail.
fn wait_for(place: &Path, mut holds: impl FnMut() -> bool) -> bool {
    for _look in 0..200 {
        if holds() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let number = connection_at(place);
    fs::write(format!("/sys/fs/fuse/connections/{number}/abort"), "1").expect("let go");
    false
}

/// Tells whether a thread of this process waits for the kernel and no signal will end that.
fn is_telling(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let states = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        Some(stat.rsplit(')').next()?.trim_start().starts_with('D'))
    });
    states.into_iter().any(|waits| waits)
}

/// Number of the connection of what is mounted there.
fn connection_at(place: &Path) -> u32 {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mount table");
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (device, path) = (fields.next()?, fields.nth(1)?);
            (Path::new(path) == place).then(|| device.split_once(':')?.1.parse().ok())?
        })
        .next_back()
        .expect("mounted")
}

/// Not a test: the process that is killed. In the middle of a rename it tells the kernel of a change
/// in the folder of that rename, which waits for the rename, which is never answered.
#[test]
#[ignore = "the server of another test"]
fn serves_what_cannot_leave() {
    let Some(place) = env::var_os(STUCK_AT).map(PathBuf::from) else {
        return;
    };
    let notifier = Arc::new(OnceLock::new());
    let server = NeverRenames {
        notifier: Arc::clone(&notifier),
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("stuck".to_owned())];
    let session = fuser::spawn_mount(server, &place, &config).expect("mount");
    assert!(notifier.set(session.notifier()).is_ok());
    let mut guard = Command::new(built_binary("onedrivefs"))
        .args(["guard", &connection_at(&place).to_string()])
        .arg(&place)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("guard");
    let _alive = guard.stdin.take();
    drop(guard.wait());
}

/// A folder in which renames never end.
struct NeverRenames {
    notifier: Arc<OnceLock<Notifier>>,
}

const TTL: Duration = Duration::from_secs(3600);

fn attr(ino: INodeNo) -> FileAttr {
    let folder = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if folder {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for NeverRenames {
    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "a" {
            reply.entry(&TTL, &attr(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let notifier = self.notifier.get().expect("mounted").clone();
        let name = name.to_owned();
        thread::spawn(move || notifier.inval_entry(parent, &name));
        std::mem::forget(reply);
    }
}
