//! Files and directories that change while they are open. Readers during a change made elsewhere are
//! in `it/remote.rs`, `it/push.rs` and `it/economy.rs`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use onedrivefs_sim::{FaultAction, FaultRule, FileBody};
use onedrivefs_tests::tree;

use crate::on_a_mount;

/// Bytes of a file of which a part is here.
const SIZE: u64 = 5_000_000;

#[test]
fn open_files_outlive_their_names() {
    on_a_mount(
        &[],
        |service| {
            for name in ["unlinked", "replaced", "renamed"] {
                let body = FileBody::Generated {
                    seed: 3,
                    size: SIZE,
                };
                service
                    .default_drive()
                    .put(&format!("/dir/{name}"), body)
                    .expect("file");
            }
        },
        |home, mount| {
            let drive = home.service.default_drive();
            let whole = drive.read("/dir/unlinked").expect("file");
            let open = |name: &str| {
                let path = mount.at(&format!("dir/{name}"));
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(path)
                    .expect("open");
                let mut start = [0; 100];
                file.read_exact_at(&mut start, 0).expect("read");
                assert_eq!(start, whole[..100]);
                file
            };
            let (unlinked, replaced, renamed) =
                (open("unlinked"), open("replaced"), open("renamed"));
            let ino = renamed.metadata().expect("metadata").ino();
            fs::remove_file(mount.at("dir/unlinked")).expect("unlink");
            fs::write(mount.at("dir/other"), "another one").expect("write");
            fs::rename(mount.at("dir/other"), mount.at("dir/replaced")).expect("rename");
            fs::rename(mount.at("dir/renamed"), mount.at("elsewhere")).expect("rename");
            home.sh(r#"rm "$M/dir/replaced"; rmdir "$M/dir""#);
            for mut file in [unlinked, replaced] {
                // What was not read before is still to be had, and what is written as well.
                let mut read = Vec::new();
                file.seek(SeekFrom::Start(0)).expect("seek");
                file.read_to_end(&mut read).expect("read");
                assert!(read == whole);
                file.write_all(b"more").expect("write");
                file.sync_all().expect("fsync");
                let metadata = file.metadata().expect("metadata");
                assert_eq!((metadata.len(), metadata.nlink()), (SIZE + 4, 0));
                file.write_all_at(b"0123", 0).expect("write");
                let mut start = [0; 4];
                file.read_exact_at(&mut start, 0).expect("read");
                assert_eq!(&start, b"0123");
                file.set_len(10).expect("truncate");
                assert_eq!(file.metadata().expect("metadata").len(), 10);
            }
            renamed
                .write_all_at(b"under the new name", 0)
                .expect("write");
            assert_eq!(
                fs::metadata(mount.at("elsewhere")).expect("metadata").ino(),
                ino
            );
            drop(renamed);
            mount.sync();
            tree::assert_in_step(mount.path(), &drive);
            let paths: Vec<String> = drive.dump().into_iter().map(|entry| entry.path).collect();
            assert_eq!(paths, ["/elsewhere"]);
            assert!(
                drive
                    .read("/elsewhere")
                    .expect("file")
                    .starts_with(b"under the new name")
            );
            mount
        },
    );
}

#[test]
fn a_directory_is_listed_whole_while_it_changes() {
    on_a_mount(
        &[],
        |_| {},
        |home, mount| {
            home.sh(r#"mkdir "$M/dir"; cd "$M/dir"; seq -f 'stays %g' 1500 | tr '\n' '\0' | xargs -0 touch
                seq -f 'goes %g' 500 | tr '\n' '\0' | xargs -0 touch"#);
            let dir = mount.at("dir");
            let mut listed = Vec::new();
            for (at, entry) in fs::read_dir(&dir).expect("directory").enumerate() {
                let name = entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8");
                listed.push(name);
                if at % 4 == 0 {
                    let number = at / 4 + 1;
                    drop(fs::remove_file(dir.join(format!("goes {number}"))));
                    fs::write(dir.join(format!("comes {number}")), "x").expect("write");
                }
            }
            let names: BTreeSet<&String> = listed.iter().collect();
            assert_eq!(names.len(), listed.len(), "a name twice in one listing");
            let staying = names.iter().filter(|name| name.starts_with("stays"));
            assert_eq!(staying.count(), 1500);
            // One that is removed while somebody lists it, and is somebody's working directory.
            home.sh(
                r#"mkdir "$M/gone"; cd "$M/gone"; exec 3< .; rmdir "$M/gone"
                test -z "$(ls -A /proc/self/fd/3/)"; ! touch new 2> /dev/null; ! test -e "$M/gone"
                mkdir "$M/gone"; test -z "$(ls -A "$M/gone")"; ! touch new 2> /dev/null; touch "$M/gone/new""#,
            );
            mount.sync();
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}

#[test]
fn files_without_a_name_are_refused_cleanly_and_programs_take_named_ones() {
    on_a_mount(
        &["python3"],
        |_| {},
        |home, mount| {
            home.sh(r#"cd "$M"; python3 - <<'PYTHON'
import errno, os, tempfile
try:
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600))
    raise SystemExit("accepted: the file would have no name to be sent under")
except OSError as error:
    assert error.errno == errno.EOPNOTSUPP, error
with tempfile.TemporaryFile(dir=".") as file:
    file.write(b"x" * 100_000); file.seek(0)
    assert file.read() == b"x" * 100_000
assert os.listdir(".") == []
PYTHON"#);
            mount.sync();
            assert!(home.service.default_drive().names_ever().is_empty());
            mount
        },
    );
}

#[test]
fn two_writers_of_one_file_lose_nothing_of_each_other() {
    on_a_mount(
        &["python3"],
        |_| {},
        |home, mount| {
            // Blocks in turns, each by a process of its own; lines at the end, by several.
            home.sh(
                r#"cd "$M"; cat > "$W/blocks.py" <<'PYTHON'
import os, sys
me = int(sys.argv[1])
file = os.open("blocks", os.O_RDWR | os.O_CREAT)
for block in range(me, 400, 2):
    os.pwrite(file, bytes([me + 1]) * 5000, block * 5000)
    if block % 50 == me:
        os.fsync(file)
    if block % 30 == me:
        os.close(file); file = os.open("blocks", os.O_RDWR)
PYTHON
                for me in 0 1; do python3 "$W/blocks.py" $me & pids+=($!); done
                for me in 1 2 3; do (for i in $(seq 200); do echo "$me $i" >> lines; done) & pids+=($!); done
                for pid in "${pids[@]}"; do wait $pid; done
                test "$(sort -u lines | wc -l)" = 600; test "$(wc -l < lines)" = 600"#,
            );
            let blocks = fs::read(mount.at("blocks")).expect("file");
            assert_eq!(blocks.len(), 2_000_000);
            let wrong = blocks.chunks(5000).enumerate().find(|(number, block)| {
                block
                    .iter()
                    .any(|&byte| usize::from(byte) != number % 2 + 1)
            });
            assert_eq!(wrong.map(|(number, _)| number), None);
            mount.sync();
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}

#[test]
fn a_tree_that_is_removed_while_it_is_sent_leaves_nothing() {
    on_a_mount(
        &[],
        |_| {},
        |home, mount| {
            let drive = home.service.default_drive();
            let slow = home.service.faults().add(FaultRule::on(
                "upload_fragment",
                FaultAction::Delay { ms: 100 },
            ));
            home.sh(
                r#"mkdir "$M/tree"; cd "$M/tree"; for dir in $(seq 12); do mkdir -p $dir/sub
                for i in $(seq 15); do head -c $((i * 3000)) /dev/zero > $dir/sub/$i; done; done
                head -c 12000000 /dev/zero > large"#,
            );
            onedrivefs_tests::wait::until(
                "a part is sent",
                onedrivefs_tests::wait::secs(60),
                || drive.count() > 40,
            );
            let large = File::open(mount.at("tree/large")).expect("open");
            home.sh(r#"rm -rf "$M/tree"; test -z "$(ls -A "$M")""#);
            assert_eq!(large.metadata().expect("metadata").len(), 12_000_000);
            drop(large);
            home.service.faults().remove(slow);
            mount.sync();
            assert_eq!(drive.dump(), Vec::new());
            let status = mount.status();
            assert_eq!(status["pending"]["ops"], 0, "{status}");
            assert_eq!(status["parked"], serde_json::json!([]), "{status}");
            assert_eq!(home.service.sessions(), serde_json::json!([]));
            mount
        },
    );
}
