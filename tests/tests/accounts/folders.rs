//! A folder in the place of a drive's root: what is in it, what leaves it and what comes into it.

use std::fs;
use std::path::Path;

use onedrivefs_sim::{DriveHandle, DriveKind, FaultAction, FaultRule, SubfolderDelta};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};

use crate::company::{self, bens};

/// The ways in which changes of a folder can be had.
const FEEDS: [&str; 4] = ["folder", "drive only", "drive instead", "none"];

/// Makes a service give changes in one of these ways.
fn feed(service: &Service, feed: &str) {
    service.set_knobs(|knobs| {
        knobs.subfolder_delta = match feed {
            "drive only" => SubfolderDelta::NotSupported,
            "drive instead" => SubfolderDelta::WholeDrive,
            _ => SubfolderDelta::Supported,
        };
        knobs.delta_unsupported = feed == "none";
    });
}

/// Names in a directory.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("listing").map(|entry| {
        let name = entry.expect("entry").file_name();
        name.into_string().expect("UTF-8")
    });
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// A drive with a folder that is mounted, and another one beside it.
fn fill(drive: &DriveHandle) {
    drive.put("/desk/plan.txt", "plan").expect("file");
    drive.put("/desk/deep/er/old.txt", "old").expect("file");
    drive.put("/private/diary.txt", "diary").expect("file");
    drive
        .put("/private/box/letter.txt", "letter")
        .expect("file");
}

/// Nothing that others do becomes known here until the faults are cleared.
fn deaf(service: &Service) {
    service
        .faults()
        .add(FaultRule::on("delta", FaultAction::Hold));
}

fn mounted<'h>(home: &'h Home<'h>) -> Mount<'h> {
    let mount = home.mount_args(&["--folder", "desk"]);
    mount.sync();
    mount
}

#[test]
fn only_the_folder_is_shown_and_what_is_done_in_it_stays_in_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in [DriveKind::Personal, DriveKind::Business] {
        let service = Service::with(|config| config.drives[0].kind = kind);
        let drive = service.default_drive();
        fill(&drive);
        let home = Home::signed_in(&service);
        let mount = mounted(&home);
        assert_eq!(names(mount.path()), ["deep", "plan.txt"]);
        let items = mount.status()["items"].as_u64().expect("number");
        assert!(items <= 5, "{items} items are known");
        home.sh(
            r#"cd "$M"; echo new > new.txt; mkdir -p a/b; echo x > a/b/x; mv plan.txt a/plan.md
               rm deep/er/old.txt; cp a/plan.md copy.md; test "$(cat copy.md)" = plan"#,
        );
        mount.sync();
        for (path, there) in [
            ("/desk/new.txt", true),
            ("/desk/a/b/x", true),
            ("/desk/a/plan.md", true),
            ("/desk/copy.md", true),
            ("/desk/plan.txt", false),
            ("/desk/deep/er/old.txt", false),
            ("/private/diary.txt", true),
            ("/private/box/letter.txt", true),
        ] {
            assert_eq!(drive.exists(path), there, "{path}");
        }
        mount.unmount();
        // The next mount begins at what is known.
        let mount = mounted(&home);
        assert_eq!(names(mount.path()), ["a", "copy.md", "deep", "new.txt"]);
        mount.unmount();
    }
}

#[test]
fn what_leaves_the_folder_vanishes_and_what_comes_into_it_appears() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in FEEDS {
        let service = Service::start();
        let drive = service.default_drive();
        fill(&drive);
        feed(&service, kind);
        let home = Home::signed_in(&service);
        let mount = mounted(&home);
        drive
            .rename("/desk/plan.txt", "/private/plan.txt")
            .expect("moved");
        drive.rename("/desk/deep/er", "/private/er").expect("moved");
        drive.rename("/private/box", "/desk/box").expect("moved");
        drive
            .put("/private/box2/inner/more.txt", "more")
            .expect("file");
        drive
            .rename("/private/box2", "/desk/deep/box2")
            .expect("moved");
        mount.sync();
        assert_eq!(names(mount.path()), ["box", "deep"], "{kind}");
        assert_eq!(names(&mount.at("deep")), ["box2"], "{kind}");
        assert_eq!(
            fs::read(mount.at("box/letter.txt")).expect("read"),
            b"letter",
            "{kind}"
        );
        let more = fs::read(mount.at("deep/box2/inner/more.txt"));
        assert_eq!(more.expect("read"), b"more", "{kind}");
        for path in [
            "/private/plan.txt",
            "/private/er/old.txt",
            "/private/diary.txt",
        ] {
            assert!(drive.exists(path), "{kind}: {path}");
        }
        assert_eq!(service.requests().count("delete"), 0, "{kind}");
        // Back again, as what it was.
        drive
            .rename("/private/plan.txt", "/desk/plan.txt")
            .expect("moved");
        mount.sync();
        assert_eq!(
            fs::read(mount.at("plan.txt")).expect("read"),
            b"plan",
            "{kind}"
        );
        mount.unmount();
    }
}

#[test]
fn what_was_removed_here_after_others_moved_it_out_stays_where_they_moved_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    fill(&drive);
    drive.put("/desk/keep/one.txt", "1").expect("file");
    drive.put("/desk/gone.txt", "gone").expect("file");
    let home = Home::signed_in(&service);
    let mount = mounted(&home);
    names(&mount.at("deep/er"));
    names(&mount.at("keep"));
    deaf(&service);
    // The file itself, a folder above it, and a folder.
    drive
        .rename("/desk/plan.txt", "/private/plan.txt")
        .expect("moved");
    drive.rename("/desk/deep", "/private/deep").expect("moved");
    drive.rename("/desk/keep", "/private/keep").expect("moved");
    home.sh(r#"cd "$M"; rm plan.txt deep/er/old.txt gone.txt; rm -r keep"#);
    wait::until("what was still there is deleted", wait::secs(30), || {
        !drive.exists("/desk/gone.txt")
    });
    wait::until("nothing waits", wait::secs(60), || {
        mount.status()["pending"]["ops"] == 0
    });
    for path in [
        "/private/plan.txt",
        "/private/deep/er/old.txt",
        "/private/keep/one.txt",
    ] {
        assert!(drive.exists(path), "{path} was deleted");
    }
    assert_eq!(service.requests().count("delete"), 1);
    service.faults().clear();
    mount.sync();
    assert_eq!(names(mount.path()), Vec::<String>::new());
    mount.unmount();
}

#[test]
fn what_was_changed_here_after_others_moved_it_out_is_kept_in_both_places() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    fill(&drive);
    let home = Home::signed_in(&service);
    let mount = mounted(&home);
    fs::read(mount.at("plan.txt")).expect("read");
    deaf(&service);
    drive
        .rename("/desk/plan.txt", "/private/plan.txt")
        .expect("moved");
    drive
        .rename("/desk/deep/er/old.txt", "/private/old.txt")
        .expect("moved");
    home.sh(r#"cd "$M"; echo changed > plan.txt; mv deep/er/old.txt deep/new.txt"#);
    wait::until("it is sent", wait::secs(60), || {
        drive.exists("/desk/plan.txt")
    });
    service.faults().clear();
    mount.sync();
    assert_eq!(
        drive.read("/desk/plan.txt").as_deref(),
        Some(&b"changed\n"[..])
    );
    assert_eq!(
        drive.read("/private/plan.txt").as_deref(),
        Some(&b"plan"[..])
    );
    assert_eq!(drive.read("/private/old.txt").as_deref(), Some(&b"old"[..]));
    mount.unmount();
}

#[test]
fn a_folder_that_is_renamed_or_moved_goes_on_and_one_that_is_deleted_loses_nothing() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in FEEDS {
        let service = Service::start();
        let drive = service.default_drive();
        fill(&drive);
        feed(&service, kind);
        let home = Home::signed_in(&service);
        let mount = mounted(&home);
        drive.rename("/desk", "/private/elsewhere").expect("moved");
        fs::write(mount.at("after.txt"), "after").expect("written");
        mount.sync();
        assert_eq!(
            drive.read("/private/elsewhere/after.txt").as_deref(),
            Some(&b"after"[..]),
            "{kind}"
        );
        fs::read(mount.at("plan.txt")).expect("read");
        drive.delete("/private/elsewhere").expect("deleted");
        fs::write(mount.at("unsent.txt"), "unsent").expect("written");
        mount_is_told(&home, &mount, kind);
        // What is here stays, whatever is done meanwhile.
        assert_eq!(
            fs::read(mount.at("plan.txt")).expect("read"),
            b"plan",
            "{kind}"
        );
        assert_eq!(
            fs::read(mount.at("unsent.txt")).expect("read"),
            b"unsent",
            "{kind}"
        );
        assert!(!drive.exists("/private/elsewhere"), "{kind}");
        assert!(
            mount.status()["pending"]["ops"].as_u64() >= Some(1),
            "{kind}"
        );
        mount.unmount();
        let mount = home.mount_args(&["--folder", "desk"]);
        assert_eq!(
            fs::read(mount.at("unsent.txt")).expect("read"),
            b"unsent",
            "{kind}"
        );
        mount.unmount();
    }
}

#[test]
fn a_folder_that_is_deleted_and_made_anew_is_taken_and_gets_what_was_not_sent() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for kind in FEEDS {
        let service = Service::start();
        let drive = service.default_drive();
        fill(&drive);
        feed(&service, kind);
        let home = Home::signed_in(&service);
        let mount = home.mount_args(&["--folder", "desk", "--poll", "1"]);
        mount.sync();
        fs::read(mount.at("plan.txt")).expect("read");
        drive.delete("/desk").expect("deleted");
        fs::write(mount.at("unsent.txt"), "unsent").expect("written");
        fs::create_dir_all(mount.at("deep/new")).expect("folder");
        fs::write(mount.at("deep/new/unsent.txt"), "deep").expect("written");
        mount_is_told(&home, &mount, kind);
        // A file is no folder, and another drive's is none of this mount's business.
        drive.put("/desk", "a file").expect("file");
        drive.delete("/desk").expect("deleted");
        drive.put("/desk/plan.txt", "another plan").expect("file");
        drive.put("/desk/there.txt", "there").expect("file");
        let all_sent = format!("everything is in the new folder ({kind})");
        wait::until(&all_sent, wait::secs(120), || {
            drive.read("/desk/unsent.txt").as_deref() == Some(&b"unsent"[..])
                && drive.read("/desk/deep/new/unsent.txt").as_deref() == Some(&b"deep"[..])
        });
        mount.sync();
        assert_eq!(mount.status()["drive"]["folder_gone"], false, "{kind}");
        assert_eq!(
            names(mount.path()),
            ["deep", "plan.txt", "there.txt", "unsent.txt"],
            "{kind}"
        );
        assert_eq!(
            fs::read(mount.at("plan.txt")).expect("read"),
            b"another plan",
            "{kind}"
        );
        drive.put("/desk/later.txt", "later").expect("file");
        mount.sync();
        assert_eq!(fs::read(mount.at("later.txt")).expect("read"), b"later");
        mount.unmount();
        // The next mount begins there.
        let mount = mounted(&home);
        fs::write(mount.at("last.txt"), "last").expect("written");
        mount.sync();
        assert!(drive.exists("/desk/last.txt"), "{kind}");
        assert_eq!(service.requests().count("delete"), 0, "{kind}");
        for path in ["/private/diary.txt", "/private/box/letter.txt"] {
            assert!(drive.exists(path), "{kind}: {path}");
        }
        mount.unmount();
    }
}

/// Waits until the status says that the folder is gone.
fn mount_is_told(home: &Home<'_>, mount: &Mount<'_>, feed: &str) {
    wait::until(
        &format!("the folder is missed ({feed})"),
        wait::secs(60),
        || mount.status()["drive"]["folder_gone"] == true,
    );
    let text = home
        .run(&["status", home.mountpoint().to_str().expect("UTF-8")])
        .ok();
    assert!(text.contains("gone on the service"), "{text}");
}

#[test]
fn fe_03_a_shared_folder_is_mounted_and_nothing_around_it_is_reached() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let drive = bens(&service);
    fill(&drive);
    drive.share("/desk", "ada", true).expect("shared");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let mount = home.mount_args(&["--shared", "desk"]);
    assert_eq!(names(mount.path()), ["deep", "plan.txt"]);
    assert_eq!(fs::read(mount.at("plan.txt")).expect("read"), b"plan");
    fs::write(mount.at("mine.txt"), "mine").expect("written");
    drive.put("/desk/theirs.txt", "theirs").expect("file");
    mount.sync();
    assert_eq!(drive.read("/desk/mine.txt").as_deref(), Some(&b"mine"[..]));
    assert_eq!(fs::read(mount.at("theirs.txt")).expect("read"), b"theirs");
    // Moved to where Ada sees nothing, removed here before that is known: it stays there.
    deaf(&service);
    drive
        .rename("/desk/plan.txt", "/private/plan.txt")
        .expect("moved");
    fs::remove_file(mount.at("plan.txt")).expect("removed");
    wait::until("nothing waits", wait::secs(60), || {
        mount.status()["pending"]["ops"] == 0
    });
    assert!(drive.exists("/private/plan.txt"));
    service.faults().clear();
    drive.unshare("/desk", "ada").expect("unshared");
    fs::write(mount.at("late.txt"), "late").expect("written");
    mount_is_told(&home, &mount, "unshared");
    assert_eq!(fs::read(mount.at("mine.txt")).expect("read"), b"mine");
    drive.share("/desk", "ada", true).expect("shared again");
    home.run(&["status", "--json"]).ok();
    wait::until("it goes on", wait::secs(90), || {
        drive.exists("/desk/late.txt")
    });
    mount.sync();
    assert_eq!(tree::of_directory(mount.path()).len(), 6);
    mount.unmount();
}

#[test]
fn fe_a_folder_shared_for_reading_only_refuses_changes_before_any_request() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let bens = bens(&service);
    bens.put("/Papers/a.txt", "theirs").expect("file");
    bens.put("/Papers/trap.rclonelink", "/etc/passwd")
        .expect("file");
    let folder = bens.share("/Papers", "ada", false).expect("share");
    let own = service.default_drive();
    let folder = bens.entry("/Papers").map_or(folder, |entry| entry.id);
    own.add_shortcut("/Papers", bens.id(), &folder)
        .expect("shortcut");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"cd "$M/Papers"; test "$(cat a.txt)" = theirs
        test ! -e trap; test "$(cat trap.rclonelink)" = /etc/passwd"#);
    let before = service.last_request();
    let refused = fs::write(mount.at("Papers/a.txt"), "mine").expect_err("read-only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    home.sh(r#"cd "$M/Papers"; ! mkdir new 2> /dev/null; ! rm a.txt 2> /dev/null; ! mv a.txt b.txt 2> /dev/null"#);
    let changes = service.requests().since(before);
    assert!(
        changes.iter().all(|record| record.method == "GET"),
        "{:#?}",
        service.request_lines()
    );
    assert_eq!(mount.status()["drives"][0]["read_only"], true);
    // The shortcut itself can be removed, and nothing else happens.
    home.sh(r#"rmdir "$M/Papers""#);
    mount.sync();
    assert!(!own.exists("/Papers") && bens.exists("/Papers/a.txt"));
    mount.unmount();
}
