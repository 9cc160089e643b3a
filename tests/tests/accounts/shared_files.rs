//! Single files that others share: in the tree of all drives, and mounted by themselves.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};

use crate::company::{self, bens};

/// Time in which everything has to arrive by itself.
const ARRIVAL: Duration = wait::secs(60);

/// When a shared file was changed last, in milliseconds.
const CHANGED_MS: i64 = 1_700_000_000_000;

/// A company in which Ben shares two files with Ada, one of them for reading only, and a folder.
fn sharing() -> Service {
    let service = company::start();
    let bens = bens(&service);
    bens.put("/private/report.txt", "theirs").expect("file");
    bens.set_mtime("/private/report.txt", CHANGED_MS)
        .expect("time");
    bens.put("/private/fixed.txt", "fixed").expect("file");
    bens.put("/private/diary.txt", "diary").expect("file");
    bens.put("/Papers/paper.txt", "paper").expect("file");
    bens.share("/private/report.txt", "ada", true)
        .expect("share");
    bens.share("/private/fixed.txt", "ada", false)
        .expect("share");
    bens.share("/Papers", "ada", true).expect("share");
    service
}

/// All drives of Ada, once what Ben shares is there.
fn tree<'h>(home: &'h Home<'h>) -> Mount<'h> {
    let mount = home.mount_args(&["--tree", "--poll", "1"]);
    wait::until("what is shared", ARRIVAL, || {
        mount.at("Shared/report.txt").exists() && mount.at("Shared/fixed.txt").exists()
    });
    mount
}

fn home(service: &Service) -> Home<'_> {
    let home = Home::new(service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    home
}

fn text(drive: &DriveHandle, path: &str) -> String {
    String::from_utf8(drive.read(path).unwrap_or_default()).expect("UTF-8")
}

/// The one entry of `Shared` whose name speaks of a conflict.
fn conflict_copy(mount: &Mount<'_>) -> Option<String> {
    let names = fs::read_dir(mount.at("Shared")).expect("listing");
    let mut names = names.map(|entry| entry.expect("entry").file_name().into_string());
    names.find_map(|name| name.ok().filter(|name| name.contains("(conflict ")))
}

#[test]
fn fe_03_files_that_others_share_are_in_the_tree_and_saved_where_they_are() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = sharing();
    let bens = bens(&service);
    let id = bens.entry("/private/report.txt").expect("entry").id;
    let home = home(&service);
    let mount = tree(&home);
    assert_eq!(
        home.sh(r#"ls "$M/Shared""#),
        "Papers\nfixed.txt\nreport.txt\n"
    );
    let found = fs::metadata(mount.at("Shared/report.txt")).expect("stat");
    assert_eq!((found.len(), found.mtime() * 1000), (6, CHANGED_MS));
    home.sh(
        r#"cd "$M/Shared"; test "$(cat report.txt)" = theirs; test "$(cat fixed.txt)" = fixed
        printf more >> report.txt; test "$(cat report.txt)" = theirsmore
        chmod 600 report.txt; test "$(stat -c %a report.txt)" = 600"#,
    );
    mount.sync();
    assert_eq!(text(&bens, "/private/report.txt"), "theirsmore");
    // Saved by way of another file, as editors do.
    home.sh(
        r#"cd "$M/Shared"; printf saved > .goutputstream-1; mv .goutputstream-1 report.txt
        test "$(cat report.txt)" = saved; touch -d 2001-02-03T04:05:06Z report.txt"#,
    );
    mount.sync();
    assert_eq!(text(&bens, "/private/report.txt"), "saved");
    let now = bens.entry("/private/report.txt").expect("entry");
    assert_eq!(now.id, id);
    assert!(
        now.mtime.starts_with("2001-02-03T04:05:06"),
        "{}",
        now.mtime
    );
    assert!(
        !bens
            .names_ever()
            .iter()
            .any(|name| name.contains("goutput")),
        "{:?}",
        bens.names_ever()
    );
    assert_eq!(mount.status_of("Shared/report.txt")["status"], "cached");
    // A file larger than one fragment.
    home.sh(r#"head -c 9000000 /dev/zero > "$M/Shared/report.txt""#);
    mount.sync();
    let now = bens.entry("/private/report.txt").expect("entry");
    assert_eq!((now.id, now.size), (id, 9_000_000));
    // What others change there.
    bens.put("/private/report.txt", "changed there")
        .expect("put");
    wait::until("a change of others", ARRIVAL, || {
        fs::read(mount.at("Shared/report.txt")).is_ok_and(|now| now == b"changed there")
    });
    assert_eq!(text(&bens, "/private/diary.txt"), "diary");
    mount.unmount();
}

#[test]
fn fe_03_what_may_not_be_done_with_a_shared_file_is_refused_at_once() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = sharing();
    let bens = bens(&service);
    let home = home(&service);
    let mount = tree(&home);
    home.sh(
        r#"cd "$M/Shared"
        refused() { what="$1"; shift; if out=$(LC_ALL=C "$@" 2>&1); then echo "$* worked"; exit 1; fi
            case "$out" in *"$what"*) ;; *) echo "$*: $out"; exit 1;; esac; }
        refused "Permission denied" sh -c 'printf x >> fixed.txt'
        refused "Permission denied" truncate -s 1 fixed.txt
        printf x > .goutputstream-2
        refused "Permission denied" mv -f .goutputstream-2 fixed.txt
        rm .goutputstream-2
        refused "Read-only" rm -f report.txt
        refused "Read-only" mv report.txt other.txt
        refused "Read-only" mv report.txt fixed.txt
        refused "Read-only" touch new.txt
        refused "Read-only" mkdir new
        refused "Read-only" rmdir Papers
        test "$(cat fixed.txt)" = fixed; test "$(cat report.txt)" = theirs"#,
    );
    mount.sync();
    assert_eq!(text(&bens, "/private/fixed.txt"), "fixed");
    assert_eq!(service.requests().count("delete"), 0);
    // Not shared any more.
    bens.unshare("/private/fixed.txt", "ada").expect("unshare");
    wait::until("its end", ARRIVAL, || {
        !mount.at("Shared/fixed.txt").exists()
    });
    assert!(mount.at("Shared/report.txt").exists());
    mount.unmount();
}

#[test]
fn fe_03_unsent_changes_of_a_shared_file_survive_and_conflicts_lose_nothing() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = sharing();
    let bens = bens(&service);
    let home = home(&service);
    let mut mount = tree(&home);
    home.sh(r#"cat "$M/Shared/report.txt""#);
    let number = |mount: &Mount<'_>| {
        fs::metadata(mount.at("Shared/report.txt"))
            .expect("stat")
            .ino()
    };
    let before = number(&mount);
    // Saved offline, and killed.
    service.set_reach(Reach::Offline);
    home.sh(r#"printf offline > "$M/Shared/report.txt""#);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
    let mount = tree(&home);
    assert_eq!(number(&mount), before);
    wait::until("what was not sent", ARRIVAL, || {
        text(&bens, "/private/report.txt") == "offline"
    });
    mount.sync();
    // Changed here and there.
    service.set_reach(Reach::Offline);
    home.sh(r#"printf mine > "$M/Shared/report.txt""#);
    bens.put("/private/report.txt", "theirs again")
        .expect("put");
    service.set_reach(Reach::Online);
    let copy = wait::value("the conflict", ARRIVAL, || {
        let _parked = home.try_sync(5);
        conflict_copy(&mount)
    });
    assert_eq!(
        fs::read(mount.at("Shared/report.txt")).expect("read"),
        b"theirs again"
    );
    assert_eq!(text(&bens, "/private/report.txt"), "theirs again");
    let path = format!("Shared/{copy}");
    assert_eq!(fs::read(mount.at(&path)).expect("read"), b"mine");
    let parked = wait::value("what is parked", ARRIVAL, || {
        let status = mount.status();
        let first = status["parked"].get(0)?;
        Some((first["path"].clone(), first["error"].clone()))
    });
    assert_eq!(parked.0, *path);
    let reason = parked.1.as_str().expect("reason");
    assert!(reason.contains("copy it into a drive"), "{reason}");
    assert_eq!(mount.status()["conflicts"][0]["copy"], *path);
    // It is taken to where it can be sent.
    home.sh(&format!(r#"mv "$M/{path}" "$M/My files/mine.txt""#));
    mount.sync();
    assert_eq!(text(&service.default_drive(), "/mine.txt"), "mine");
    assert!(
        mount.status()["parked"]
            .as_array()
            .expect("list")
            .is_empty()
    );
    mount.unmount();
}

#[test]
fn fe_03_a_save_is_made_over_the_version_it_was_made_from() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = sharing();
    let bens = bens(&service);
    let home = home(&service);
    let mount = tree(&home);
    home.sh(r#"cat "$M/Shared/report.txt""#);
    // Nobody learns of the change before the save is sent.
    let id = bens.entry("/private/report.txt").expect("entry").id;
    service.faults().add(FaultRule {
        path: Some(format!("*{}*", id.replace('!', "*"))),
        ..FaultRule::on("item", FaultAction::status(503))
    });
    bens.put("/private/report.txt", "theirs again")
        .expect("put");
    home.sh(r#"printf mine > "$M/Shared/report.txt""#);
    wait::until("a refused save", ARRIVAL, || {
        let lines = service.request_lines();
        lines.iter().any(|line| line.ends_with(" 412"))
    });
    service.faults().clear();
    let copy = wait::value("the conflict", ARRIVAL, || {
        let _parked = home.try_sync(5);
        conflict_copy(&mount)
    });
    assert_eq!(text(&bens, "/private/report.txt"), "theirs again");
    home.sh(&format!(
        r#"test "$(cat "$M/Shared/{copy}")" = mine; rm "$M/Shared/{copy}""#
    ));
    mount.sync();
    mount.unmount();
}

#[test]
fn fe_03_a_shared_file_is_mounted_in_a_folder_of_its_own() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = sharing();
    let bens = bens(&service);
    let home = home(&service);
    let listed = home.run(&["drives", "--shared"]).ok();
    assert!(
        listed.contains("report.txt") && listed.contains("shared file"),
        "{listed}"
    );
    let mut mount = home.mount_args(&["--shared", "report.txt", "--poll", "1"]);
    home.sh(
        r#"cd "$M"; test "$(ls)" = report.txt; test "$(cat report.txt)" = theirs
        printf kept > report.txt
        if rm -f report.txt 2> /dev/null || touch other 2> /dev/null; then exit 1; fi"#,
    );
    mount.sync();
    assert_eq!(text(&bens, "/private/report.txt"), "kept");
    // What was found is remembered: no network is needed the next time.
    service.set_reach(Reach::Offline);
    home.sh(r#"printf offline > "$M/report.txt""#);
    mount.crash();
    drop(mount);
    let mount = home.mount_args(&["--shared", "report.txt", "--poll", "1"]);
    home.sh(r#"test "$(cat "$M/report.txt")" = offline"#);
    service.set_reach(Reach::Online);
    wait::until("what was not sent", ARRIVAL, || {
        text(&bens, "/private/report.txt") == "offline"
    });
    mount.unmount();
}
