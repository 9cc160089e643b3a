//! Holes, reserved space and direct access, whatever of a file is here: nothing, a part, a part that
//! was changed, all of it. Each call is made on a file beside the mount as well.

use onedrivefs_sim::FileBody;
use onedrivefs_tests::tree;

use crate::{mount_anew, on_a_mount};

/// Bytes of each file.
const SIZE: u64 = 3_000_000;

/// How much of each file is here.
const STATES: [&str; 4] = ["absent", "partial", "changed", "whole"];

/// What all scripts need: the two files, brought into one of the states.
const PRELUDE: &str = r#"
import ctypes, errno, mmap, os, sys
state = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
KEEP, PUNCH, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")
def outcome(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
here, there = (os.open(f"{os.environ[place]}/{state}", os.O_RDWR) for place in "MW")
if state == "partial":
    os.pread(here, 4096, 1_000_000)
if state == "changed":
    os.pread(here, 4096, 1_000_000)
    for fd in (here, there):
        os.pwrite(fd, b"changed" * 1000, 500_000)
if state == "whole":
    while os.read(here, 1 << 20): pass
def holes(fd):
    size, at, found = os.fstat(fd).st_size, 0, []
    while at < size:
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        if hole == size: break
        data = outcome(os.lseek, fd, hole, os.SEEK_DATA)
        at = size if data == "ENXIO" else data
        found.append((hole, at))
    return found
def check_holes():
    for hole, end in holes(here):
        part = os.pread(there, end - hole, hole)
        assert not any(part), (state, hole, end)
"#;

/// Runs a script on a drive with a file for each state, and expects the same content in the mount,
/// beside it and on the service.
fn on_all_states(script: &str, downloads: Option<u64>) {
    on_a_mount(
        &["python3"],
        |service| {
            for (seed, state) in (40..).zip(STATES) {
                let body = FileBody::Generated { seed, size: SIZE };
                let path = format!("/{state}");
                service.default_drive().put(&path, body).expect("file");
            }
        },
        |home, mount| {
            home.sh(r#"cp "$M"/* "$W""#);
            let mut mount = mount_anew(home, mount);
            for state in STATES {
                let before = home.service.downloaded_bytes();
                home.sh(&format!(
                    "cd \"$M\"; python3 - {state} <<'PYTHON'\n{PRELUDE}\n{script}\nPYTHON"
                ));
                let moved = home.service.downloaded_bytes() - before;
                if let Some(most) = downloads.filter(|_| state == "absent") {
                    assert!(moved <= most, "{moved} bytes were fetched");
                }
            }
            mount.sync();
            home.sh(r#"cd "$W"; for f in *; do cmp "$f" "$M/$f"; done"#);
            mount = mount_anew(home, mount);
            home.sh(r#"cd "$W"; for f in *; do cmp "$f" "$M/$f"; done"#);
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}

const SEEKS: &str = r#"
# Nothing was written but what is no zeros anywhere.
assert holes(here) == [], (state, holes(here))
assert outcome(os.lseek, here, 0, os.SEEK_DATA) == 0
assert outcome(os.lseek, here, 2_900_000, os.SEEK_DATA) == 2_900_000
assert outcome(os.lseek, here, 2_900_000, os.SEEK_HOLE) == 3_000_000
for whence in (os.SEEK_DATA, os.SEEK_HOLE):
    for offset in (3_000_000, 5_000_000):
        assert outcome(os.lseek, here, offset, whence) == outcome(os.lseek, there, offset, whence)
# A hole in the middle of what may not be here, and one at the end.
for fd in (here, there):
    fallocate(fd, PUNCH | KEEP, 1_998_848, 65536)
    os.ftruncate(fd, 3_500_000)
check_holes()
punched = (1_998_848, 1_998_848 + 65536)
assert (punched in holes(here)) == (punched in holes(there)), (holes(here), holes(there))
assert os.lseek(here, 1_998_847, os.SEEK_DATA) == 1_998_847
# Data in it, again.
for fd in (here, there):
    os.pwrite(fd, b"data", 2_031_616)
check_holes()
assert os.lseek(here, 2_031_616, os.SEEK_DATA) == 2_031_616
for fd in (here, there):
    os.ftruncate(fd, 2_050_000)
check_holes()
"#;

#[test]
fn what_is_not_here_is_never_said_to_be_a_hole() {
    // Asking needs none of it.
    on_all_states(SEEKS, Some(0));
}

/// A program fills a hole through a mapping, and others look at the file before that is written back.
const MAPPED: &str = r#"
import mmap, os, subprocess
with open("mapped", "w+b") as file:
    file.truncate(1 << 20)
    with open("mapped", "rb") as other, mmap.mmap(file.fileno(), 1 << 20) as map:
        map[524_288:524_292] = b"data"
        assert os.lseek(other.fileno(), 0, os.SEEK_DATA) <= 524_288
        assert os.lseek(other.fileno(), 524_288, os.SEEK_HOLE) > 524_288
        target = os.environ["W"] + "/copy"
        subprocess.run(["cp", "--sparse=auto", "--reflink=never", "mapped", target], check=True)
        assert open(target, "rb").read() == bytes(524_288) + b"data" + bytes(524_284)
        map.flush()
with open("mapped", "rb") as file:
    assert os.lseek(file.fileno(), 0, os.SEEK_DATA) > 0
"#;

#[test]
fn what_a_program_changed_through_a_mapping_is_no_hole_to_others() {
    on_a_mount(
        &["python3"],
        |_| {},
        |home, mount| {
            home.sh(&format!("cd \"$M\"; python3 -c '{MAPPED}'"));
            mount
        },
    );
}

const RESERVING: &str = r#"
for mode, offset, length in [
    (0, 100_000, 50_000), (0, 2_990_000, 20_000), (KEEP, 3_000_000, 1_000_000),
    (PUNCH | KEEP, 400_000, 300_000), (PUNCH | KEEP, 999_999, 1), (PUNCH | KEEP, 2_950_001, 500_000),
    (PUNCH | KEEP, 9_000_000, 4096), (ZERO, 1_200_000, 70_001), (ZERO | KEEP, 2_900_000, 4_000_000),
    (ZERO, 2_980_000, 200_000), (PUNCH, 0, 4096), (0, 0, 0), (PUNCH | KEEP, 0, 0), (0, -1, 10),
    (0, 1 << 62, 1 << 62),
]:
    ours, theirs = (outcome(fallocate, fd, mode, offset, length) for fd in (here, there))
    assert ours == theirs, (state, mode, offset, length, ours, theirs)
    ours, theirs = (os.fstat(fd).st_size for fd in (here, there))
    assert ours == theirs, (state, mode, offset, length, ours, theirs)
    check_holes()
for mode in (COLLAPSE, INSERT):
    refused = outcome(fallocate, here, mode, 4096, 4096)
    assert refused == "ENOTSUP", (state, mode, refused)
# More than any drive has.
refused = outcome(fallocate, here, 0, 0, 1 << 50)
assert refused in ("ENOSPC", "EFBIG"), (state, refused)
assert os.fstat(here).st_size == os.fstat(there).st_size
"#;

#[test]
fn space_is_reserved_and_given_back_whatever_of_a_file_is_here() {
    on_all_states(RESERVING, Some(0));
}

const DIRECT: &str = r#"
direct = os.open(f"{os.environ['M']}/{state}", os.O_RDWR | os.O_DIRECT)
buffer = mmap.mmap(-1, 65536)
def read(offset, length):
    got = os.preadv(direct, [memoryview(buffer)[:length]], offset)
    return buffer[:got]
# Everywhere, across the end, and past it.
for offset, length in [(1_000_448, 4096), (0, 4096), (499_712, 65536), (2_998_272, 4096), (3_002_368, 4096)]:
    assert read(offset, length) == os.pread(there, length, offset), (state, offset)
# What is written past the pages is read through them, and the other way round.
assert os.pread(here, 4096, 1_101_824) == os.pread(there, 4096, 1_101_824)
for offset, byte in [(1_101_824, b"a"), (2_199_552, b"b"), (2_998_272, b"c")]:
    buffer[:8192] = byte * 8192
    for fd in (direct, there):
        assert os.pwritev(fd, [memoryview(buffer)[:8192]], offset) == 8192
    assert os.pread(here, 16384, offset) == os.pread(there, 16384, offset), (state, offset)
for fd in (here, there):
    os.pwrite(fd, b"through pages", 1_105_000)
assert read(1_101_824, 8192) == os.pread(there, 8192, 1_101_824)
with mmap.mmap(here, 0) as ours, mmap.mmap(there, 0) as theirs:
    ours[2_203_648:2_203_654] = theirs[2_203_648:2_203_654] = b"mapped"
    assert read(2_199_552, 8192) == theirs[2_199_552:2_199_552 + 8192]
os.fsync(direct)
assert os.fstat(direct).st_size == os.fstat(there).st_size
os.close(direct)
"#;

#[test]
fn direct_access_and_access_through_pages_agree() {
    on_all_states(DIRECT, None);
}

#[test]
fn files_are_made_and_copied_directly_and_sparsely() {
    on_a_mount(
        &["python3", "rsync"],
        |service| {
            let body = FileBody::Generated {
                seed: 50,
                size: SIZE,
            };
            service.default_drive().put("/film", body).expect("file");
        },
        |home, mount| {
            let mount = mount_anew(home, mount);
            // By those who leave holes out, of what is not here.
            home.sh(
                r#"cd "$M"; cp --sparse=always film "$W/film"; cmp film "$W/film"
                truncate -s 10000000 sparse; printf end | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
                for how in always auto never; do
                    cp --sparse=$how sparse "$W/$how"; cmp sparse "$W/$how"
                    cp --sparse=$how --reflink=never "$W/always" "back-$how"; cmp sparse "back-$how"
                done
                tar -cSf "$W/all.tar" film sparse; mkdir un; tar -C un -xf "$W/all.tar"; cmp film un/film
                cmp sparse un/sparse; rsync -S sparse rsynced; cmp sparse rsynced
                dd if=film of=direct bs=65536 iflag=direct oflag=direct status=none; cmp film direct"#,
            );
            mount.sync();
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}
