//! Many at once: programs that work in the same folders, databases, and people elsewhere.

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Need, Service, needs, tree, wait};

#[test]
fn databases_locks_and_shared_mappings_work() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cd "$M"; python3 - <<'PYTHON'
import fcntl, mmap, os, sqlite3
for mode in ("delete", "wal"):
    name = f"{mode}.db"
    one, two = sqlite3.connect(name), sqlite3.connect(name, timeout=0.1)
    assert one.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
    one.execute("create table t(x)")
    with one:
        one.executemany("insert into t values(?)", [(n,) for n in range(5000)])
    assert two.execute("select count(*), sum(x) from t").fetchone() == (5000, 12497500)
    one.execute("begin immediate")
    try:
        two.execute("insert into t values(1)")
        raise SystemExit("two writers at once")
    except sqlite3.OperationalError as error:
        assert "locked" in str(error), error
    one.rollback()
    assert two.execute("pragma integrity_check").fetchone() == ("ok",)
    one.close(), two.close()

with open("mapped", "wb") as file:
    file.truncate(100_000)
with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as map:
    map[50_000:50_005] = b"hello"
    map.flush()
with open("mapped", "rb") as file:
    file.seek(50_000)
    assert file.read(5) == b"hello"

first, second = open("mapped", "rb"), open("mapped", "rb")
fcntl.flock(first, fcntl.LOCK_EX)
try:
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    raise SystemExit("locked twice")
except BlockingIOError:
    pass
log = [os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
for number in range(100):
    os.write(log[number % 2], b"0123456789")
assert os.stat("log").st_size == 1000
PYTHON"#);
    mount.sync();
    let drive = service.default_drive();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(
        &drive.read("/mapped").expect("file")[50_000..50_005],
        b"hello"
    );
    mount.unmount();
}

#[test]
fn what_a_program_writes_is_seen_by_those_who_read_and_map_the_file() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cd "$M"; python3 - <<'PYTHON'
import mmap, os
with open("seen", "wb") as file:
    file.write(b"a" * 300_000)
reader = open("seen", "rb", buffering=0)
seen = mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ)
assert reader.read() == seen[:] == b"a" * 300_000
changer = open("seen", "r+b", buffering=0)
changed = mmap.mmap(changer.fileno(), 0)
writer = os.open("seen", os.O_WRONLY)

def expect(at, bytes):
    reader.seek(at)
    assert reader.read(len(bytes)) == bytes, reader.name
    assert seen[at:at + len(bytes)] == bytes, (at, seen[at:at + len(bytes)])

os.pwrite(writer, b"new", 150_000)
expect(149_999, b"anewa")
# One page, changed through the mapping and past it.
changed[200_000:200_003] = b"map"
os.pwrite(writer, b"call", 200_100)
changed[200_200:200_203] = b"map"
expect(199_999, b"amapa")
expect(200_099, b"acalla")
expect(200_199, b"amapa")
# Longer, shorter, and from a pipe.
os.pwrite(writer, b"end", 300_000)
reader.seek(300_000)
assert reader.read() == b"end" and os.stat("seen").st_size == 300_003
os.truncate("seen", 150_001)
reader.seek(150_000)
assert reader.read() == b"n"
with open("source", "wb") as file:
    file.write(b"s" * 100_000)
with open("source", "rb") as source:
    os.lseek(writer, 50_000, os.SEEK_SET)
    assert os.sendfile(writer, source.fileno(), 0, 100_000) > 0
expect(49_999, b"as")
appender = os.open("seen", os.O_WRONLY | os.O_APPEND)
size = os.stat("seen").st_size
os.write(appender, b"tail")
os.pwrite(appender, b"more", 0)
reader.seek(size)
assert reader.read() == b"tailmore"
emptier = os.open("seen", os.O_WRONLY | os.O_TRUNC)
assert os.stat("seen").st_size == 0
os.write(emptier, b"again")
reader.seek(0)
assert reader.read() == b"again"
PYTHON"#);
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn a_program_that_runs_is_not_emptied() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cd "$M"; python3 - <<'PYTHON'
import errno, os, shutil, subprocess, time
def emptied():
    try:
        os.close(os.open("program", os.O_RDONLY | os.O_TRUNC))
        return True
    except OSError as error:
        assert error.errno == errno.ETXTBSY, error
        return False
sleep = shutil.which("sleep")
size = os.stat(sleep).st_size
# The loader is at work for a moment: that is when a page that goes is noticed.
for turn in range(20):
    shutil.copyfile(sleep, "program")
    os.chmod("program", 0o755)
    running = subprocess.Popen(["./program", "1000"])
    for turn in range(3):
        assert not emptied()
        assert os.stat("program").st_size == size
    assert running.poll() is None, running.returncode
    running.kill()
    running.wait()
with open("program", "rb") as here, open(sleep, "rb") as there:
    assert here.read() == there.read()
# Once it has ended, whoever may write may do this, also without opening it for more than reading.
deadline = time.monotonic() + 20
while not emptied():
    assert time.monotonic() < deadline
    time.sleep(0.001)
assert os.stat("program").st_size == 0
PYTHON"#);
    mount.sync();
    let dump = service.default_drive().dump();
    assert_eq!(dump.len(), 1);
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

/// What each of several shells does in the same folders, `$N` being its number.
const WORKER: &str = r#"
set +e; cd "$M/shared"
for i in $(seq 25); do
  d=$((i % 5)); mkdir -p dir$d; echo "$N $i" > dir$d/file-$N-$i
  cat dir$d/* > /dev/null 2>&1 || true
  mv dir$d/file-$N-$i dir$(((i + 1) % 5))/moved-$N-$i 2> /dev/null || mkdir -p dir$(((i + 1) % 5))
  ls -l dir$d > /dev/null; echo more >> common-$((i % 3))
  if ((i % 4 == 0)); then rm -f dir$(((i + 1) % 5))/moved-$N-$i; fi
  if ((i % 9 == 0)); then mv dir$d other-$N-$i 2> /dev/null || true; fi
  find . -name "moved-$N-*" > /dev/null 2>&1 || true
done
"#;

#[test]
fn many_programs_and_somebody_elsewhere_in_the_same_folders_end_with_the_same_tree() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/shared/dir0/there", "there").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec {
        arguments: vec!["--poll".into(), "1".into()],
        ..MountSpec::default()
    });
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|number| {
                let home = &home;
                scope.spawn(move || home.sh(&format!("N={number}\n{WORKER}")))
            })
            .collect();
        for number in 0..30 {
            // Folders come and go under the other's hands, so that some of this is refused.
            let dir = format!("/shared/dir{}", number % 5);
            drop(drive.put(&format!("{dir}/theirs-{number}"), "theirs"));
            drop(drive.put(&format!("/shared/common-{}", number % 3), "theirs"));
            if number % 7 == 3 {
                drop(drive.delete(&format!("{dir}/theirs-{}", number - 1)));
                drop(drive.rename(&dir, &format!("/shared/renamed-{number}")));
            }
            std::thread::sleep(wait::secs(4) / 30);
        }
        for worker in workers {
            drop(worker.join());
        }
    });
    mount.sync();
    // Conflict copies that the first pass made may still be on their way.
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert!(drive.count() > 50, "{}", drive.count());
    mount.unmount();
}
