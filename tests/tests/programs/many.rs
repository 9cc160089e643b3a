//! Many files, threads and levels.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use onedrivefs_sim::Reach;
use onedrivefs_tests::tree;

use crate::{mount_anew, on_a_mount};

/// Threads in one directory.
const THREADS: usize = 64;

/// Entries of the large directory.
const ENTRIES: usize = 10_000;

#[test]
fn a_thousand_files_are_verified_in_parallel() {
    on_a_mount(
        &[],
        |service| {
            let drive = service.default_drive();
            for number in 0..1_000_usize {
                let body = format!("{number} ").repeat(number * 13 % 4_000);
                let path = format!("/set/{}/{number}", number % 20);
                drive.put(&path, body.as_str()).expect("file");
            }
        },
        |home, mount| {
            let drive = home.service.default_drive();
            for entry in drive.dump().iter().filter(|entry| !entry.folder) {
                let path = home.work().join(entry.path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().expect("folder")).expect("folder");
                fs::write(path, drive.read(&entry.path).expect("file")).expect("file");
            }
            home.sh(
                r#"cd "$W/set"; find . -type f -print0 | xargs -0 sha256sum > "$W/sums"
                test "$(wc -l < "$W/sums")" = 1000; split -n l/8 "$W/sums" "$W/sums-"
                cd "$M/set"; ls "$W"/sums-* | xargs -P 8 -n 1 sha256sum --quiet -c
                ls "$W"/sums-* | xargs -P 8 -n 1 sha256sum --quiet -c"#,
            );
            mount
        },
    );
}

/// What one of many threads does in the directory that all share.
fn work_in(dir: &Path, thread: usize) -> std::io::Result<()> {
    for round in 0..10 {
        let own = dir.join(format!("own {thread}-{round}"));
        fs::write(&own, format!("{thread} {round}"))?;
        let moved = dir.join(format!("moved {thread}-{round}"));
        fs::rename(&own, &moved)?;
        assert_eq!(fs::read_to_string(&moved)?, format!("{thread} {round}"));
        // One thread of all makes it; everybody sees it from then on.
        let shared = dir.join(format!("shared {round}"));
        match fs::File::create_new(&shared) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::metadata(&shared)?;
            }
            Err(error) => return Err(error),
        }
        let listed = fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
        let names: BTreeSet<_> = listed.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(names.len(), listed.len(), "a name twice in one listing");
        assert!(names.contains(moved.file_name().expect("name")));
        if round % 2 == 1 {
            fs::remove_file(&moved)?;
            assert!(!moved.exists());
        }
    }
    Ok(())
}

#[test]
fn many_threads_work_in_one_directory() {
    on_a_mount(
        &[],
        |_| {},
        |home, mount| {
            let dir = mount.at("crowd");
            fs::create_dir(&dir).expect("directory");
            std::thread::scope(|scope| {
                let started: Vec<_> = (0..THREADS)
                    .map(|thread| {
                        scope.spawn({
                            let dir = &dir;
                            move || work_in(dir, thread)
                        })
                    })
                    .collect();
                for (thread, worker) in started.into_iter().enumerate() {
                    let ended = worker.join().unwrap_or_else(|_| panic!("thread {thread}"));
                    ended.unwrap_or_else(|error| panic!("thread {thread}: {error}"));
                }
            });
            assert_eq!(
                fs::read_dir(&dir).expect("directory").count(),
                THREADS * 5 + 10
            );
            mount.sync();
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            mount
        },
    );
}

#[test]
fn a_directory_of_ten_thousand_entries_is_used_like_any_other() {
    on_a_mount(
        &[],
        |service| {
            let drive = service.default_drive();
            for number in 0..ENTRIES {
                drive
                    .put(&format!("/large/{number:05}"), "x")
                    .expect("file");
            }
        },
        |home, mount| {
            // Coming before all of it is known is tested in `it/waiting.rs`.
            mount.sync();
            home.sh(&format!(
                r#"cd "$M/large"; test "$(ls | wc -l)" = {ENTRIES}; ls -U | sort | uniq -d | wc -l | grep -qx 0
                test "$(find . -type f | wc -l)" = {ENTRIES}; test "$(stat -c %s 0777? | wc -l)" = 10
                echo new > new; mv 05000 renamed; rm 09999; mkdir sub; mv 0000? sub
                test "$(ls | wc -l)" = {}; test "$(ls -f sub | wc -l)" = 12"#,
                ENTRIES + 1 - 10
            ));
            mount.sync();
            let drive = home.service.default_drive();
            assert_eq!(
                drive.count(),
                ENTRIES as u64 + 3,
                "with the root and two folders"
            );
            // Made here, by one program, and gone before the service is back.
            home.service.set_reach(Reach::Offline);
            home.sh(r#"mkdir "$M/made"; cd "$M/made"; seq 10000 | xargs touch
                test "$(ls | wc -l)" = 10000; cd "$M"; rm -r made; test "$(ls)" = large"#);
            home.service.set_reach(Reach::Online);
            mount.sync();
            assert!(!drive.names_ever().contains("made"));
            mount
        },
    );
}

#[test]
fn names_of_250_bytes_and_40_levels_are_kept_both_ways() {
    on_a_mount(
        &[],
        |service| {
            let path: String = (0..40).map(|level| format!("/t{level}")).collect();
            service
                .default_drive()
                .put(&format!("{path}/file"), "deep")
                .expect("file");
        },
        |home, mount| {
            let drive = home.service.default_drive();
            let names = [
                "x".repeat(250),
                "é".repeat(125),
                "漢".repeat(83),
                "🚀".repeat(62),
            ];
            for name in &names {
                fs::write(mount.at(name), name).unwrap_or_else(|error| panic!("{name}: {error}"));
                let folder: String = name.chars().skip(1).chain(['d']).collect();
                fs::create_dir(mount.at(&folder))
                    .unwrap_or_else(|error| panic!("{folder}: {error}"));
            }
            let deep: String = (0..40).map(|level| format!("h{level}/")).collect();
            fs::create_dir_all(mount.at(&deep)).expect("levels");
            fs::write(mount.at(&format!("{deep}file")), "deep").expect("file");
            let there = deep.replace('h', "t");
            assert_eq!(
                fs::read(mount.at(&format!("{there}file"))).expect("file"),
                b"deep"
            );
            fs::rename(mount.at(&there), mount.at(&format!("{deep}t39"))).expect("rename");
            mount.sync();
            tree::assert_in_step(mount.path(), &drive);
            let mount = mount_anew(home, mount);
            for name in &names {
                assert_eq!(fs::read_to_string(mount.at(name)).expect("file"), *name);
            }
            assert_eq!(
                drive.read(&format!("/{deep}t39/file")).expect("file"),
                b"deep"
            );
            mount
        },
    );
}
