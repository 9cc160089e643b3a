//! Programs that change files in place, watch, lock and map them.

use onedrivefs_sim::FileBody;
use onedrivefs_tests::tree;

use crate::{mount_anew, on_a_mount};

/// Bytes of the file that programs change in place.
const SIZE: u64 = 3_000_000;

#[test]
fn dd_truncate_and_fallocate_change_a_file_in_place_as_one_version_each() {
    on_a_mount(
        &["fallocate"],
        |service| {
            let body = FileBody::Generated {
                seed: 7,
                size: SIZE,
            };
            service.default_drive().put("/image", body).expect("file");
        },
        |home, mount| {
            let drive = home.service.default_drive();
            let first = drive.entry("/image").expect("file");
            home.sh(r#"cat "$M/image" > "$W/image""#);
            let mount = mount_anew(home, mount);
            for (number, change) in [
                "echo patch | dd of=image conv=notrunc bs=1 seek=1500000 status=none",
                "truncate -s +1000 image",
                "truncate -s 2000000 image",
                "fallocate -o 1900000 -l 500000 image",
                "fallocate -n -o 0 -l 9000000 image; test $(stat -c %s image) = 2400000",
                "fallocate -p -o 100000 -l 50000 image",
                "fallocate -z -o 2300000 -l 200000 image",
                "dd if=/dev/zero of=image bs=64k count=3 seek=10 conv=notrunc,fsync status=none",
            ]
            .into_iter()
            .enumerate()
            {
                for place in ["M", "W"] {
                    home.sh(&format!("cd \"${place}\"; {change}"));
                }
                home.sh(r#"cmp "$W/image" "$M/image""#);
                mount.sync();
                let now = drive.entry("/image").expect("file");
                assert_eq!(now.id, first.id, "{change}");
                // To set a size below zero bytes of new content changes nothing.
                assert!(now.versions <= first.versions + number + 1, "{change}");
            }
            home.sh(
                r#"cd "$M"; ! fallocate -c -o 0 -l 4096 image 2> "$W/error"; cmp "$W/image" image"#,
            );
            tree::assert_in_step(mount.path(), &drive);
            mount
        },
    );
}

#[test]
fn files_are_moved_across_folders_with_their_identity() {
    on_a_mount(
        &[],
        |service| {
            let drive = service.default_drive();
            drive.put("/from/deep/file", "text").expect("file");
            drive.mkdir("/to/other").expect("folder");
        },
        |home, mount| {
            let drive = home.service.default_drive();
            let id = |path: &str| drive.entry(path).expect("it").id;
            let (file, folder) = (id("/from/deep/file"), id("/from/deep"));
            home.sh(
                r#"cd "$M"; i=$(stat -c %i from/deep/file); mv from/deep/file to/other/moved
                test "$(stat -c %i to/other/moved)" = $i; mv from/deep to/; rmdir from"#,
            );
            mount.sync();
            assert_eq!((id("/to/other/moved"), id("/to/deep")), (file, folder));
            assert_eq!(drive.entry("/to/other/moved").expect("it").versions, 1);
            assert_eq!(home.service.downloaded_bytes(), 0);
            tree::assert_in_step(mount.path(), &drive);
            mount
        },
    );
}

#[test]
fn locks_hold_between_processes_and_end_with_them() {
    on_a_mount(
        &["flock", "python3"],
        |_| {},
        |home, mount| {
            home.sh(r#"cd "$M"; : > lock; : > told
                flock lock -c 'echo held > told; read _ < "$W/end"' & mkfifo "$W/end" || true
                until test -s told; do sleep 0.02; done
                ! flock -n lock true; ! flock -s -n lock true; flock -n told true
                echo go > "$W/end"; wait; flock -n lock true
                flock -s lock -c 'flock -s -n lock true; ! flock -n -x lock true'
                # Waiting for a lock that its holder takes to the grave.
                python3 -c 'import fcntl, time
fcntl.flock(open("lock"), fcntl.LOCK_EX); open("told", "w").write("again"); time.sleep(100)' & holder=$!
                until grep -q again told; do sleep 0.02; done
                flock -w 20 lock true & waiter=$!
                kill -9 $holder; wait $waiter; wait $holder || true"#);
            home.sh(r#"cd "$M"; python3 - <<'PYTHON'
import fcntl, os
with open("ranges", "w+b") as file:
    file.write(bytes(100)); file.flush()
    fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
    if os.fork() == 0:
        other = open("ranges", "r+b")
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
        try:
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
            os._exit(1)
        except (BlockingIOError, PermissionError):
            os._exit(0)
    assert os.wait()[1] == 0
PYTHON"#);
            mount
        },
    );
}

#[test]
fn watchers_are_told_what_programs_do() {
    on_a_mount(
        &["inotifywait"],
        |_| {},
        |home, mount| {
            let told = home.sh(
                r#"cd "$M"; mkdir watched
                inotifywait -mq -e create,close_write,moved_from,moved_to,delete,attrib --format '%e %f' \
                  -o "$W/events" watched 2> "$W/told" & watcher=$!
                until grep -q "^inotify" /proc/$watcher/fdinfo/* 2> /dev/null; do sleep 0.02; done
                echo x > watched/one; mv watched/one watched/two; chmod 600 watched/two
                mkdir watched/sub; rm watched/two; rmdir watched/sub
                until grep -q 'DELETE,ISDIR sub' "$W/events"; do sleep 0.02; done
                kill $watcher; cat "$W/events""#,
            );
            let expected = "CREATE one\nCLOSE_WRITE,CLOSE one\nMOVED_FROM one\nMOVED_TO two\n\
                ATTRIB two\nCREATE,ISDIR sub\nDELETE two\nDELETE,ISDIR sub\n";
            assert_eq!(told, expected);
            mount
        },
    );
}

/// Two processes map one file: what one writes the other sees at once, and who reads sees it, too.
const MAPPED: &str = r#"
import mmap, os
size = 1 << 20
with open("mapped", "w+b") as file:
    file.truncate(size)
    shared = mmap.mmap(file.fileno(), size)
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with open("mapped", "r+b") as own, mmap.mmap(own.fileno(), size) as map:
            for page in range(0, size, 4096):
                os.read(to_child[0], 1)
                assert map[page:page + 6] == b"parent", page
                map[page + 100:page + 105] = b"child"
                os.write(to_parent[1], b".")
        os._exit(0)
    for page in range(0, size, 4096):
        shared[page:page + 6] = b"parent"
        os.write(to_child[1], b".")
        os.read(to_parent[0], 1)
        assert shared[page + 100:page + 105] == b"child", page
        assert os.pread(file.fileno(), 5, page + 100) == b"child", page
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.pwrite(file.fileno(), b"written", 8192)
    assert shared[8192:8199] == b"written"
    shared.flush(); shared.close()
"#;

#[test]
fn processes_that_map_a_file_see_each_others_changes() {
    on_a_mount(
        &["python3"],
        |service| {
            let body = FileBody::Generated {
                seed: 8,
                size: SIZE,
            };
            service.default_drive().put("/there", body).expect("file");
        },
        |home, mount| {
            home.sh(&format!("cd \"$M\"; python3 -c '{MAPPED}'"));
            // Pages of what is not here come when they are touched.
            home.sh(r#"cd "$M"; python3 -c '
import mmap
with open("there", "r+b") as file, mmap.mmap(file.fileno(), 0) as map:
    part = map[2_900_000:2_900_100]
    map[10:20] = b"0123456789"
    assert map[2_900_000:2_900_100] == part
'"#);
            mount.sync();
            let read = home.service.default_drive().read("/mapped").expect("file");
            assert_eq!(&read[8192..8199], b"written");
            assert_eq!(&read[1_040_384 + 100..1_040_384 + 105], b"child");
            let mount = mount_anew(home, mount);
            let there = home.service.default_drive().read("/there").expect("file");
            assert_eq!(&there[10..20], b"0123456789");
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}

/// What programs for films do: the index is at the end, packets are read from everywhere; a file is
/// written with a hole for its length, which is filled in last, and then moved by the length of the
/// index, which goes to the front.
const FILM: &str = r#"
import os, random, struct
draw = random.Random(4)
with open(os.environ["W"] + "/film", "rb") as local, open("film", "rb") as film:
    size = os.fstat(film.fileno()).st_size
    spots = [(0, 64), (size - 65536, 65536), (0, 4096)]
    spots += [(draw.randrange(size - 70000), draw.randrange(70000)) for _ in range(60)]
    start = size // 3
    spots += [(start + n * 30000, 30000) for n in range(40)]
    for offset, length in spots:
        film.seek(offset); local.seek(offset)
        assert film.read(length) == local.read(length), (offset, length)
packets = [draw.randbytes(draw.randrange(1, 50000)) for _ in range(120)]
with open("made.mp4", "w+b") as film:
    film.write(struct.pack(">I4sI4s", 16, b"ftyp", 0, b"mdat"))
    for number, packet in enumerate(packets):
        film.write(packet)
        if number % 20 == 0:
            at = film.tell(); film.seek(8); film.write(struct.pack(">I", at)); film.seek(at)
    end = film.tell()
    index = struct.pack(">I4s", 5000, b"moov") + draw.randbytes(4992)
    film.write(index); film.seek(8); film.write(struct.pack(">I", end)); film.flush()
    # The index goes to the front: all else moves, from the end to the beginning.
    step = 32768
    for at in range((end - 16 - 1) // step * step + 16, 15, -step):
        film.seek(at); part = film.read(min(step, end - at))
        film.seek(at + len(index)); film.write(part)
    film.seek(16); film.write(index); film.truncate(end + len(index))
expected = struct.pack(">I4sI4s", 16, b"ftyp", end, b"mdat") + index + b"".join(packets)
assert open("made.mp4", "rb").read() == expected
open(os.environ["W"] + "/expected", "wb").write(expected)
"#;

#[test]
fn films_are_read_here_and_there_and_rewritten_in_place() {
    on_a_mount(
        &["python3"],
        |service| {
            let body = FileBody::Generated {
                seed: 9,
                size: 60_000_000,
            };
            service.default_drive().put("/film", body).expect("file");
        },
        |home, mount| {
            let body = home.service.default_drive().read("/film").expect("film");
            std::fs::write(home.work().join("film"), body).expect("film");
            home.sh(&format!("cd \"$M\"; python3 -c '{FILM}'"));
            mount.sync();
            let expected = std::fs::read(home.work().join("expected")).expect("file");
            let there = home.service.default_drive().read("/made.mp4");
            assert!(there == Some(expected), "the service has another film");
            assert_eq!(
                home.service
                    .default_drive()
                    .entry("/made.mp4")
                    .expect("it")
                    .versions,
                1
            );
            mount
        },
    );
}
