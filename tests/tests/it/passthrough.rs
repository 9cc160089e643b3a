//! Files that the kernel reads by itself, where the daemon has the privilege that this needs.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::home::Who;
use onedrivefs_tests::mount::Mount;
use onedrivefs_tests::{Home, Need, Service, needs, wait};
use rustix::process::Signal;

/// Large enough to be read by the kernel itself.
const SIZE: usize = 3 << 20;

/// Longest time for a transfer.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest time for a read that needs nobody. One that needs the daemon never ends while that stands
/// still.
const ALONE: Duration = Duration::from_secs(2);

/// What the memory of a machine is a file system of.
const TMPFS: u64 = 0x0102_1994;

fn content(seed: u8) -> Vec<u8> {
    (0..SIZE)
        .map(|at| seed ^ u8::try_from(at / 4096 % 251).unwrap_or(0))
        .collect()
}

/// Tells whether the kernel can read files by itself and lets this user have it do so.
fn can_pass() -> bool {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return false;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(9)) {
        needs::cannot("the kernel cannot read files by itself");
        return false;
    }
    let kind = rustix::fs::statfs(std::env::temp_dir()).expect("file system");
    if u64::try_from(kind.f_type).is_ok_and(|kind| kind == TMPFS) {
        needs::cannot("files in memory are not left to the kernel");
        return false;
    }
    true
}

/// Puts a file on the drive and has it fetched without a program reading it.
fn bring(mount: &Mount<'_>, home: &Home<'_>, drive: &DriveHandle, bytes: &[u8]) -> PathBuf {
    bring_as("file", mount, home, drive, bytes)
}

fn bring_as(
    name: &str,
    mount: &Mount<'_>,
    home: &Home<'_>,
    drive: &DriveHandle,
    bytes: &[u8],
) -> PathBuf {
    drive
        .put(&format!("/{name}"), bytes.to_vec())
        .expect("file");
    mount.sync();
    let path = mount.at(name);
    home.run(&["pin", path.to_str().expect("UTF-8")]).ok();
    wait_for(mount, name);
    path
}

fn wait_here(mount: &Mount<'_>) {
    wait_for(mount, "file");
}

fn wait_for(mount: &Mount<'_>, name: &str) {
    wait::until("the file here", LIMIT, || {
        mount.status_of(name)["cached_bytes"] == mount.status_of(name)["size"]
            && mount.status()["pending"]["ops"] == 0
    });
}

fn read_all(file: &File) -> Vec<u8> {
    let mut all = Vec::new();
    let mut block = vec![0; 256 << 10];
    loop {
        let count = file.read_at(&mut block, all.len() as u64).expect("read");
        if count == 0 {
            return all;
        }
        all.extend_from_slice(&block[..count]);
    }
}

/// Tells whether all threads of a process were stopped, which takes them a moment.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name may hold anything, the state follows it.
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with('T'))
    })
}

/// Does something with an open file while the daemon stands still. `None` when it cannot be done like
/// that.
fn without_daemon<T: Send + 'static>(
    mount: &Mount<'_>,
    file: &File,
    work: impl FnOnce(&File) -> T + Send + 'static,
) -> Option<T> {
    let file = file.try_clone().expect("handle");
    mount.send(Signal::STOP);
    wait::until("a daemon that stands still", LIMIT, || {
        stands_still(mount.pid())
    });
    let (done, working) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = work(&file);
        let _nobody_waits = done.send(());
        result
    });
    let in_time = working.recv_timeout(ALONE).is_ok();
    mount.send(Signal::CONT);
    let result = worker.join().expect("worker");
    in_time.then_some(result)
}

/// Reads an open file while the daemon stands still. `None` when it cannot be read like that.
fn read_without_daemon(mount: &Mount<'_>, file: &File) -> Option<Vec<u8>> {
    without_daemon(mount, file, read_all)
}

/// Writes to an open file while the daemon stands still. Tells whether that can be done. It was
/// written in any case.
fn write_without_daemon(mount: &Mount<'_>, file: &File, bytes: &'static [u8], at: u64) -> bool {
    let work = move |file: &File| file.write_all_at(bytes, at).expect("written");
    without_daemon(mount, file, work).is_some()
}

/// Tells whether the kernel writes to an open file by itself. Before the first write, and whenever it
/// learned of new attributes, it asks the daemon whether the file has capabilities to lose. That may be
/// between two writes, but not each time.
fn writes_alone(mount: &Mount<'_>, file: &File, bytes: &'static [u8], at: u64) -> bool {
    (0..3).any(|_| {
        // Other bytes, so that it is the write without the daemon that is found later.
        let others = bytes.to_ascii_uppercase();
        file.write_all_at(&others, at).expect("written");
        write_without_daemon(mount, file, bytes, at)
    })
}

/// Tells whether what is open is read by the kernel itself.
fn is_passed(mount: &Mount<'_>, file: &File) -> bool {
    read_without_daemon(mount, file).is_some()
}

/// Compares content that is too long to be shown, and says where it begins to differ.
fn assert_same(found: &[u8], expected: &[u8]) {
    let alike = found.iter().zip(expected).take_while(|(a, b)| a == b);
    let at = alike.count();
    let rest = |bytes: &[u8]| bytes[at..].iter().take(8).copied().collect::<Vec<_>>();
    assert!(
        found == expected,
        "differs from byte {at} on: {:?} of {} bytes, expected {:?} of {}",
        rest(found),
        found.len(),
        rest(expected),
        expected.len()
    );
}

fn writer(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).expect("opened")
}

#[test]
fn what_is_here_is_read_without_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let (first, second) = (File::open(&path), File::open(&path));
    let (first, second) = (first.expect("opened"), second.expect("opened"));
    for file in [&first, &second] {
        let read = read_without_daemon(&mount, file).expect("a read without the daemon");
        assert!(read == content(1));
        assert_eq!(file.metadata().expect("metadata").len(), SIZE as u64);
    }
    drop((first, second));
    assert!(fs::read(&path).expect("read") == content(1));
    mount.unmount();
}

#[test]
fn it_can_be_switched_off() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--option", "passthrough=off"]);
    let path = bring(&mount, &home, &drive, &content(1));
    let file = File::open(&path).expect("opened");
    assert!(!is_passed(&mount, &file));
    assert!(read_all(&file) == content(1));
    drop(file);
    mount.unmount();
}

#[test]
fn an_ordinary_user_does_without_and_is_told_nothing() {
    if !needs::met(&[Need::FuseForUsers]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::of(&service, Who::Nobody);
    home.log_in();
    let mount = home.mount();
    drive.put("/file", content(1)).expect("file");
    mount.sync();
    let path = mount.at("file");
    let local = home.path("local");
    fs::write(&local, content(1)).expect("local");
    for _ in 0..2 {
        home.sh(&format!(
            "cat '{}' | cmp - '{}'",
            path.display(),
            local.display()
        ));
    }
    assert!(!mount.log().contains("WARN"), "{}", mount.log());
    mount.unmount();
}

#[test]
fn a_reader_sees_what_is_written_meanwhile() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let mut expected = content(1);
    // Overwriting, appending, cutting, extending, emptying.
    writer(&path)
        .write_all_at(b"written", 100_000)
        .expect("written");
    expected[100_000..100_007].copy_from_slice(b"written");
    assert!(read_all(&reader) == expected);
    let mut appending = OpenOptions::new().append(true).open(&path).expect("opened");
    appending.write_all(b"appended").expect("written");
    expected.extend_from_slice(b"appended");
    assert!(read_all(&reader) == expected);
    assert_eq!(
        reader.metadata().expect("metadata").len(),
        expected.len() as u64
    );
    drop(appending);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    let cutting = writer(&path);
    cutting.set_len(2_000_000).expect("cut");
    expected.truncate(2_000_000);
    assert!(read_all(&reader) == expected);
    cutting.set_len(2_100_000).expect("extended");
    expected.resize(2_100_000, 0);
    assert!(read_all(&reader) == expected);
    drop(cutting);
    mount.sync();
    fs::write(&path, b"anew").expect("written");
    assert_eq!(read_all(&reader), b"anew");
    assert_eq!(reader.metadata().expect("metadata").len(), 4);
    mount.sync();
    assert_eq!(drive.read("/file").expect("content"), b"anew");
    assert_eq!(read_all(&reader), b"anew");
    drop(reader);
    assert_eq!(fs::read(&path).expect("read"), b"anew");
    mount.unmount();
}

#[test]
fn what_was_read_before_is_not_taken_for_what_was_written_since() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    drive.put("/file", content(1)).expect("file");
    mount.sync();
    let path = mount.at("file");
    // The kernel keeps pages of it.
    assert!(fs::read(&path).expect("read") == content(1));
    wait_here(&mount);
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    writer(&path).write_all_at(b"new", 5000).expect("written");
    drop(reader);
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("opened");
    let mut expected = content(1);
    expected[5000..5003].copy_from_slice(b"new");
    assert!(read_all(&both) == expected);
    drop(both);
    mount.unmount();
}

#[test]
fn a_mapping_of_a_writer_is_seen_by_a_reader_and_sent() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let mut expected = content(1);
    // The descriptor is closed, and saved, before the last change.
    home.sh(&format!(
        "python3 - '{}' <<'END'\n\
         import mmap, os, sys\n\
         file = os.open(sys.argv[1], os.O_RDWR)\n\
         memory = mmap.mmap(file, 0)\n\
         memory[10:16] = b'mapped'\n\
         os.close(file)\n\
         memory[2000000:2000005] = b'later'\n\
         memory.close()\n\
         END",
        path.display()
    ));
    expected[10..16].copy_from_slice(b"mapped");
    expected[2_000_000..2_000_005].copy_from_slice(b"later");
    assert!(read_all(&reader) == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    // Saved once, as far as the service can tell.
    assert_eq!(drive.entry("/file").expect("entry").versions, 2);
    drop(reader);
    assert!(fs::read(&path).expect("read") == expected);
    mount.unmount();
}

/// A program that maps a file, changes it, closes the file, and changes it once more when it is told
/// to. Its mapping lives as long as it does.
struct Mapper(Child);

impl Mapper {
    fn start(path: &Path) -> Self {
        let script = format!(
            "import ctypes, os, sys\n\
             libc = ctypes.CDLL(None)\n\
             libc.mmap.restype = ctypes.c_void_p\n\
             file = os.open(sys.argv[1], os.O_RDWR)\n\
             size, none = ctypes.c_size_t({SIZE}), ctypes.c_long(0)\n\
             memory = libc.mmap(None, size, 3, 1, file, none)\n\
             assert memory != ctypes.c_void_p(-1).value\n\
             ctypes.memmove(memory + 10, b'mapped', 6)\n\
             os.close(file)\n\
             print('closed', flush=True)\n\
             sys.stdin.readline()\n\
             ctypes.memmove(memory + 2000000, b'later', 5)\n"
        );
        let mut child = Command::new("python3")
            .args(["-c", &script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("read");
        assert_eq!(line, "closed\n");
        Self(child)
    }

    fn go_on(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("end").success());
    }
}

/// Has a file sent that was written now.
fn have_another_sent(mount: &Mount<'_>, drive: &DriveHandle) {
    fs::write(mount.at("other"), "other").expect("written");
    wait::until("another file there", LIMIT, || {
        drive.entry("/other").is_some()
    });
}

#[test]
fn a_mapping_that_outlives_its_descriptor_is_waited_for() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let mapper = Mapper::start(&path);
    let mut expected = content(1);
    expected[10..16].copy_from_slice(b"mapped");
    assert!(read_all(&reader) == expected);
    have_another_sent(&mount, &drive);
    // Neither half of it is.
    assert!(drive.read("/file").expect("content") == content(1));
    mapper.go_on();
    expected[2_000_000..2_000_005].copy_from_slice(b"later");
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    // Saved once, as far as the service can tell.
    assert_eq!(drive.entry("/file").expect("entry").versions, 2);
    assert!(read_all(&reader) == expected);
    drop(reader);
    assert!(fs::read(&path).expect("read") == expected);
    mount.unmount();
}

#[test]
fn what_was_mapped_survives_the_death_of_the_daemon() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let mapper = Mapper::start(&path);
    mount.crash();
    mapper.go_on();
    drop(reader);
    let mut expected = content(1);
    expected[10..16].copy_from_slice(b"mapped");
    expected[2_000_000..2_000_005].copy_from_slice(b"later");
    let mount = home.mount();
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn nothing_is_sent_of_a_file_that_was_opened_for_writing_and_not_written() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let before = mount.status_of("file");
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let both = File::options().read(true).write(true).open(&path);
    let both = both.expect("opened");
    both.sync_all().expect("synced");
    drop((both.try_clone().expect("clone"), both));
    have_another_sent(&mount, &drive);
    wait_here(&mount);
    assert_eq!(mount.status_of("file"), before);
    // Now something is written, and in two ways.
    let both = File::options().read(true).write(true).open(&path);
    both.expect("opened")
        .write_all_at(b"written", 70)
        .expect("written");
    writer(&path).write_all_at(b"again", 90).expect("written");
    let mut expected = content(1);
    expected[70..77].copy_from_slice(b"written");
    expected[90..95].copy_from_slice(b"again");
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    assert!(read_all(&reader) == expected);
    drop(reader);
    mount.unmount();
}

#[test]
fn a_file_has_the_time_of_its_last_change_or_the_one_that_a_program_set() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let modified = || fs::metadata(&path).expect("metadata").modified();
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let both = || {
        let both = File::options().read(true).write(true).open(&path);
        both.expect("opened")
    };
    // What is written through the daemon has a time at once, and no other one later.
    let writing = both();
    writing.write_all_at(b"written", 70).expect("written");
    let written = modified().expect("time");
    drop(writing);
    mount.sync();
    assert_eq!(modified().expect("time"), written);
    // A time that was set stays.
    let set = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let timing = both();
    timing.write_all_at(b"again", 90).expect("written");
    timing.set_modified(set).expect("set");
    drop(timing);
    mount.sync();
    assert_eq!(modified().expect("time"), set);
    let there = drive.entry("/file").expect("entry").mtime;
    assert!(there.starts_with("2001-09-09T01:46:40"), "{there}");
    // What is written to a mapping is as good as any other change.
    let before = SystemTime::now() - Duration::from_millis(20);
    Mapper::start(&path).go_on();
    mount.sync();
    assert!(modified().expect("time") > before);
    drop(reader);
    mount.unmount();
}

#[test]
fn copies_from_and_into_files_that_are_read_without_the_daemon() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let from = bring(&mount, &home, &drive, &content(1));
    let into = bring_as("into", &mount, &home, &drive, &content(2));
    let id = drive.entry("/into").expect("entry").id;
    let readers = [&from, &into].map(|path| File::open(path).expect("opened"));
    for reader in &readers {
        assert!(is_passed(&mount, reader));
    }
    home.sh(r#"cp -p "$M/file" "$M/new"; cp "$M/file" "$M/into"; cmp "$M/file" "$M/into""#);
    assert!(read_all(&readers[1]) == content(1));
    mount.sync();
    assert_eq!(drive.entry("/into").expect("entry").id, id);
    for name in ["/file", "/into", "/new"] {
        assert!(drive.read(name).expect("content") == content(1), "{name}");
    }
    // What is copied into a mapping, and what is mapped is copied.
    home.sh(r#"python3 - "$M/file" "$M/into" "$M/third" <<'END'
import mmap, os, sys
file, into = (os.open(path, os.O_RDWR) for path in sys.argv[1:3])
third = os.open(sys.argv[3], os.O_RDWR | os.O_CREAT)
size = os.fstat(file).st_size
os.ftruncate(into, 0)
os.ftruncate(into, size)
both = [mmap.mmap(fd, 0) for fd in (file, into)]
def copy(source, target):
    at = 0
    while at < size:
        at += os.copy_file_range(source, target, size - at, at, at)
both[0][10:16] = b'mapped'
copy(file, into)
both[1][20:25] = b'again'
copy(file, third)
for one in both: one.close()
END"#);
    let mut expected = content(1);
    expected[10..16].copy_from_slice(b"mapped");
    assert!(fs::read(mount.at("third")).expect("read") == expected);
    assert!(read_all(&readers[0]) == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    assert!(drive.read("/third").expect("content") == expected);
    expected[20..25].copy_from_slice(b"again");
    assert!(read_all(&readers[1]) == expected);
    assert!(drive.read("/into").expect("content") == expected);
    drop(readers);
    mount.unmount();
}

#[test]
fn what_was_open_for_reading_and_writing_once_is_read_through_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    drop(
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .expect("opened"),
    );
    let reader = File::open(&path).expect("opened");
    assert!(!is_passed(&mount, &reader));
    assert!(read_all(&reader) == content(1));
    drop(reader);
    mount.unmount();
}

#[test]
fn being_asked_for_a_lease_ends_nothing() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.send(Signal::IO);
    fs::write(mount.at("file"), "content").expect("written");
    mount.sync();
    mount.unmount();
}

#[test]
fn content_that_is_replaced_on_the_service_is_read_to_its_end() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    drive.put("/file", content(2)).expect("version");
    mount.sync();
    assert_same(&fs::read(&path).expect("read"), &content(2));
    assert!(read_all(&reader) == content(1));
    wait_here(&mount);
    let fresh = File::open(&path).expect("opened");
    assert!(read_all(&fresh) == content(2));
    assert!(read_without_daemon(&mount, &reader).expect("alone") == content(1));
    drop((reader, fresh));
    assert!(fs::read(&path).expect("read") == content(2));
    mount.unmount();
}

#[test]
fn removing_the_file_or_the_cache_takes_nothing_from_a_reader() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    home.sh(&format!(
        "find '{}' -type f -size +1M -delete",
        home.path("cache").display()
    ));
    assert!(read_all(&reader) == content(1));
    let second = File::open(&path).expect("opened");
    assert!(read_all(&second) == content(1));
    // Its body is copied now, and both go on as they were.
    writer(&path).write_all_at(b"written", 0).expect("written");
    assert!(read_all(&second).len() == SIZE);
    fs::remove_file(&path).expect("removed");
    assert!(read_all(&reader).len() == SIZE);
    drop((reader, second));
    mount.sync();
    assert!(drive.entry("/file").is_none());
    mount.unmount();
}

#[test]
fn what_was_written_beside_a_reader_survives_the_death_of_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let writing = writer(&path);
    let mut expected = content(1);
    for at in (0..SIZE).step_by(100_000) {
        writing.write_all_at(b"kept", at as u64).expect("written");
        expected[at..at + 4].copy_from_slice(b"kept");
    }
    mount.crash();
    drop((reader, writing));
    let mount = home.mount();
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn what_only_overwrites_is_written_without_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let mut expected = content(1);
    let before = fs::metadata(&path).expect("metadata");
    let writing = writer(&path);
    assert!(writes_alone(&mount, &writing, b"written", 100_000));
    expected[100_000..100_007].copy_from_slice(b"written");
    let after = fs::metadata(&path).expect("metadata");
    assert_eq!(after.len(), before.len());
    assert!(after.modified().expect("time") > before.modified().expect("time"));
    // Who reads or writes meanwhile does it in the same file.
    let reader = File::open(&path).expect("opened");
    assert!(read_without_daemon(&mount, &reader).expect("alone") == expected);
    writer(&path).write_all_at(b"beside", 50).expect("written");
    expected[50..56].copy_from_slice(b"beside");
    assert!(read_all(&reader) == expected);
    // More than there was, with a gap.
    let end = expected.len() + 5000;
    assert!(writes_alone(&mount, &writing, b"the end", end as u64));
    expected.resize(end, 0);
    expected.extend_from_slice(b"the end");
    assert_eq!(
        fs::metadata(&path).expect("metadata").len(),
        expected.len() as u64
    );
    assert!(read_all(&reader) == expected);
    let mut appending = OpenOptions::new().append(true).open(&path).expect("opened");
    appending.write_all(b", really").expect("written");
    drop(appending);
    expected.extend_from_slice(b", really");
    writing.set_len(3_000_000).expect("cut");
    expected.truncate(3_000_000);
    expected.resize(3_000_000, 0);
    assert!(writes_alone(&mount, &writing, b"cut", 2_999_997));
    expected[2_999_997..].copy_from_slice(b"cut");
    assert!(read_all(&reader) == expected);
    drop((reader, writing));
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    assert!(fs::read(&path).expect("read") == expected);
    // And once more, now that it is what the service has.
    let writing = writer(&path);
    assert!(writes_alone(&mount, &writing, b"again", 0));
    expected[..5].copy_from_slice(b"again");
    drop(writing);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn who_opens_to_overwrite_and_does_not_has_nothing_sent() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let before = mount.status_of("file");
    let writing = writer(&path);
    writing.sync_all().expect("synced");
    drop((writing.try_clone().expect("clone"), writing));
    have_another_sent(&mount, &drive);
    wait_here(&mount);
    assert_eq!(mount.status_of("file"), before);
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    drop(reader);
    mount.unmount();
}

#[test]
fn what_is_overwritten_is_sent_whole_after_the_last_close() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let mut expected = content(1);
    let writing = writer(&path);
    writing.write_all_at(b"one", 10).expect("written");
    expected[10..13].copy_from_slice(b"one");
    // A program that was started has closed its descriptor, and the next one goes on.
    drop(writing.try_clone().expect("clone"));
    writing.sync_all().expect("synced");
    assert!(writes_alone(&mount, &writing, b"two", 2_000_000));
    expected[2_000_000..2_000_003].copy_from_slice(b"two");
    have_another_sent(&mount, &drive);
    assert!(drive.read("/file").expect("content") == content(1));
    drop(writing);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn what_the_kernel_wrote_survives_the_death_of_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let writing = writer(&path);
    let mut expected = content(1);
    for at in (0..SIZE).step_by(100_000) {
        writing.write_all_at(b"kept", at as u64).expect("written");
        expected[at..at + 4].copy_from_slice(b"kept");
    }
    // Recorded in between, and longer since.
    drop(writing.try_clone().expect("clone"));
    writing
        .write_all_at(b"the end", SIZE as u64)
        .expect("written");
    expected.extend_from_slice(b"the end");
    mount.crash();
    drop(writing);
    let mount = home.mount();
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn who_goes_on_writing_when_the_daemon_died_disturbs_nobody() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let mut expected = content(1);
    let writing = writer(&path);
    let write = |bytes: &[u8], at: u64| writing.write_all_at(bytes, at).expect("written");
    write(b"before", 0);
    expected[..6].copy_from_slice(b"before");
    mount.crash();
    // The old mount knows of no death as long as nobody has to be asked.
    write(b"orphaned", 1000);
    expected[1000..1008].copy_from_slice(b"orphaned");
    let mount = home.mount();
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    // What comes now is not of this mount, and whoever wrote it learns that.
    write(b"into nothing", 2000);
    write(b"and longer", SIZE as u64);
    assert!(writing.sync_all().is_err());
    OpenOptions::new()
        .append(true)
        .open(mount.at("file"))
        .and_then(|mut file| file.write_all(b"appended"))
        .expect("appended");
    expected.extend_from_slice(b"appended");
    mount.sync();
    drop(writing);
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn a_mapping_that_outlives_its_daemon_disturbs_nobody() {
    if !can_pass() || !needs::met(&[Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let reader = File::open(&path).expect("opened");
    assert!(is_passed(&mount, &reader));
    let mapper = Mapper::start(&path);
    drop(reader);
    mount.crash();
    let mount = home.mount();
    // What is changed by it now is in no file of this mount.
    mapper.go_on();
    let mut expected = content(1);
    expected[10..16].copy_from_slice(b"mapped");
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.unmount();
}

#[test]
fn what_was_synced_while_the_kernel_writes_survives_a_power_cut() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let mut home = Home::new(&service);
    let boot = home.path("boot");
    fs::write(&boot, "before the cut").expect("boot id");
    home.set_env("ONEDRIVEFS_BOOT_ID_FILE", boot.to_str().expect("UTF-8"));
    home.log_in();
    let mut mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let writing = writer(&path);
    writing.write_all_at(b"synced", 0).expect("written");
    writing.sync_all().expect("synced");
    mount.crash();
    drop((writing, mount));
    fs::write(&boot, "after the cut").expect("boot id");
    let mount = home.mount();
    let mut expected = content(1);
    expected[..6].copy_from_slice(b"synced");
    assert!(fs::read(mount.at("file")).expect("read") == expected);
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    mount.unmount();
}

#[test]
fn what_is_written_synchronously_is_written_by_the_daemon() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    for flag in [libc::O_SYNC, libc::O_DSYNC] {
        wait_here(&mount);
        let mut options = OpenOptions::new();
        let writing = options.write(true).custom_flags(flag).open(&path);
        let writing = writing.expect("opened");
        writing.write_all_at(b"first", 0).expect("written");
        assert!(!write_without_daemon(&mount, &writing, b"first", 0));
        drop(writing);
        mount.sync();
    }
    mount.unmount();
}

#[test]
fn closing_does_not_wait_for_what_is_sent_only_later() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    home.configure("upload = \"on-close\"\n");
    let mount = home.mount();
    let path = bring(&mount, &home, &drive, &content(1));
    let writing = writer(&path);
    writing.write_all_at(b"FIRST", 0).expect("written");
    assert!(!write_without_daemon(&mount, &writing, b"first", 0));
    drop(writing);
    let mut expected = content(1);
    expected[..5].copy_from_slice(b"first");
    assert_same(&drive.read("/file").expect("content"), &expected);
    // What can be mapped is not sent before it is closed.
    wait_here(&mount);
    let reader = File::open(&path).expect("opened");
    let both = File::options().read(true).write(true).open(&path);
    let both = both.expect("opened");
    both.write_all_at(b"other", 0).expect("written");
    let (done, closing) = mpsc::channel();
    thread::spawn(move || {
        drop(both);
        let _nobody_waits = done.send(());
    });
    closing.recv_timeout(LIMIT).expect("closed");
    expected[..5].copy_from_slice(b"other");
    mount.sync();
    assert!(drive.read("/file").expect("content") == expected);
    drop(reader);
    mount.unmount();
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One step on the file in the mount and on a local one. Both give the same.
fn step(random: &mut Random, open: &mut Vec<[File; 2]>, paths: &[PathBuf; 2]) {
    let kind = random.below(12);
    if kind < 4 && open.len() < 5 {
        let options = match kind {
            0 | 1 => OpenOptions::new().read(true).clone(),
            2 => OpenOptions::new()
                .write(true)
                .truncate(random.below(4) == 0)
                .clone(),
            _ => OpenOptions::new().read(true).write(true).clone(),
        };
        open.push([&paths[0], &paths[1]].map(|path| options.open(path).expect("opened")));
        return;
    }
    if open.is_empty() {
        return;
    }
    let index = usize::try_from(random.below(open.len() as u64)).expect("small");
    if kind == 4 {
        drop(open.swap_remove(index));
        return;
    }
    let files = &open[index];
    let (at, len) = (random.below(SIZE as u64), 1 + random.below(300_000));
    let len = usize::try_from(len).expect("small");
    let fill = u8::try_from(random.below(251)).expect("small");
    let [ours, theirs] = files.each_ref().map(|file| match kind {
        5 | 6 => file
            .write_at(&vec![fill; len], at)
            .map(|count| (count, Vec::new())),
        7 => file.set_len(at).map(|()| (0, Vec::new())),
        8 => file.sync_all().map(|()| (0, Vec::new())),
        9 => file
            .metadata()
            .map(|data| (usize::try_from(data.len()).expect("small"), Vec::new())),
        _ => {
            let mut read = vec![0; len];
            file.read_at(&mut read, at).map(|count| {
                read.truncate(count);
                (count, read)
            })
        }
    });
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert!(ours == theirs, "step {kind} at {at}, {len} bytes"),
        (Err(ours), Err(theirs)) => assert_eq!(ours.raw_os_error(), theirs.raw_os_error()),
        (ours, theirs) => panic!("step {kind}: {:?} and {:?}", ours.err(), theirs.err()),
    }
}

#[test]
fn handles_of_all_kinds_agree_with_a_local_file() {
    if !can_pass() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let seed = std::env::var("ONEDRIVEFS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("ONEDRIVEFS_TEST_SEED={seed}");
    let mut random = Random(seed);
    for phase in 0..6 {
        let name = format!("file {phase}");
        let path = bring_as(&name, &mount, &home, &drive, &content(1));
        let local = home.work().join(&name);
        fs::write(&local, content(1)).expect("local");
        let paths = [path, local];
        // The first one of each phase decides what the kernel does by itself.
        let first = |path| match phase % 2 {
            0 => File::open(path).expect("opened"),
            _ => writer(path),
        };
        let mut open = vec![[&paths[0], &paths[1]].map(|path| first(path))];
        if phase % 2 == 0 {
            assert!(is_passed(&mount, &open[0][0]));
        }
        for _ in 0..80 {
            step(&mut random, &mut open, &paths);
        }
        drop(open);
        let [ours, theirs] = paths.each_ref().map(|path| fs::read(path).expect("read"));
        assert!(ours == theirs);
        mount.sync();
        assert!(drive.read(&format!("/{name}")).expect("content") == theirs);
    }
    mount.unmount();
}
