//! So many deletions that they look like an accident are held back, and a person is asked.

use std::fs;

use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};
use serde_json::Value;

/// Items in the folder that is deleted.
const FILES: usize = 120;

/// A drive with a folder of files and a few others, at which a third is soon reached.
fn filled() -> (Service, DriveHandle) {
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..FILES {
        let put = drive.put(
            &format!("/many/file {number}"),
            format!("{number}").as_str(),
        );
        put.expect("file");
    }
    for number in 0..20 {
        drive
            .put(&format!("/other/{number}"), "other")
            .expect("file");
    }
    (service, drive)
}

/// The mount of a home, once all of the drive is known.
fn mounted<'h>(home: &'h Home<'_>) -> Mount<'h> {
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    mount
}

/// Lets changes rest long enough that all of a burst is recorded before anything is sent.
const SLOW: &str = "upload_delay = 3000\n";

fn deletions(service: &Service) -> usize {
    let lines = service.request_lines();
    lines.iter().filter(|l| l.starts_with("delete ")).count()
}

fn held(status: &Value) -> Vec<String> {
    let parked = status["parked"].as_array().expect("list");
    let of = |entry: &Value, key: &str| entry[key].as_str().expect("text").to_owned();
    let held = parked
        .iter()
        .filter(|e| of(e, "error").contains("held back"));
    held.map(|entry| of(entry, "path")).collect()
}

#[test]
fn a_mass_deletion_is_held_back_until_a_person_sends_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure(SLOW);
    let mut mount = mounted(&home);
    home.sh(r#"rm -r "$M/many"; test ! -e "$M/many""#);
    home.try_sync(60).explained(1, "121 deletions held back");
    assert_eq!(deletions(&service), 0, "nothing was sent");
    let status = mount.status();
    assert_eq!(held(&status).len(), FILES + 1);
    assert!(held(&status).contains(&"many/file 7".to_owned()));
    let entry = &status["parked"][0];
    assert_eq!(entry["op"], "delete");
    let error = entry["error"].as_str().expect("text");
    assert!(
        error.starts_with("121 deletions are held back, since more than 33%"),
        "{error}"
    );
    assert!(status.get("details").is_none(), "{status}");
    let shown = home.run(&["status"]).ok();
    assert!(shown.contains("held back  121 deletions"), "{shown}");
    assert!(shown.contains("onedrivefs discard"), "{shown}");
    assert!(!shown.contains("file 7"), "{shown}");
    // It holds across the death of the daemon, also for what is deleted after it.
    mount.crash();
    drop(mount);
    let mount = mounted_anew(&home);
    home.sh(r#"rm "$M/other/3"; test ! -e "$M/many"; echo new > "$M/other/new""#);
    wait::until("the new file", wait::secs(60), || {
        drive.exists("/other/new")
    });
    home.try_sync(60).explained(1, "122 deletions held back");
    assert_eq!(deletions(&service), 0, "nothing was sent");
    // Some of it, then all of it.
    let released = home.run(&["retry", mount.at("other/3").to_str().expect("UTF-8")]);
    assert!(released.ok().contains("1 change to be sent"));
    wait::until("the deletion", wait::secs(60), || !drive.exists("/other/3"));
    assert_eq!(held(&mount.status()).len(), FILES + 1);
    home.run(&["retry", mount.path().to_str().expect("UTF-8")])
        .ok();
    mount.sync();
    assert!(!drive.exists("/many"));
    // What follows is counted anew.
    home.sh(r#"rm "$M/other/4""#);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// The mount without waiting for anything to be sent.
fn mounted_anew<'h>(home: &'h Home<'_>) -> Mount<'h> {
    home.mount_args(&["--poll", "1"])
}

#[test]
fn what_is_held_back_is_brought_back_without_a_download() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure(SLOW);
    let mount = mounted(&home);
    home.sh(r#"cat "$M/many/file 1"; mkdir "$M/many/deep"; echo x > "$M/many/deep/x""#);
    mount.sync();
    let before = tree::of_directory(mount.path());
    let read = service.downloaded_bytes();
    home.sh(r#"rm -r "$M/many""#);
    home.try_sync(60).explained(1, "held back");
    let discard = |below: &str| {
        home.run(&["discard", mount.at(below).to_str().expect("UTF-8")])
            .ok();
    };
    discard("many/deep/x");
    assert_eq!(home.sh(r#"ls "$M/many"; ls "$M/many/deep""#), "deep\nx\n");
    assert_eq!(held(&mount.status()).len(), FILES);
    discard("");
    assert_eq!(held(&mount.status()), Vec::<String>::new());
    assert_eq!(service.downloaded_bytes(), read);
    assert_eq!(tree::of_directory(mount.path()), before);
    let again = home.run(&["discard", mount.path().to_str().expect("UTF-8")]);
    again.explained(1, "nothing is parked");
    mount.sync();
    assert_eq!(deletions(&service), 0, "nothing was deleted");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_name_that_is_held_back_can_be_used_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure(SLOW);
    let mount = mounted(&home);
    let id = |path: &str| drive.entry(path).expect("entry").id;
    let (file, folder) = (id("/many/file 5"), id("/many"));
    home.sh(
        r#"rm -r "$M/many"; mkdir "$M/many"; echo again > "$M/many/file 5"
        mkdir "$M/many/file 6"; mv "$M/other/1" "$M/many/file 7"; mv "$M/other" "$M/many/file 8""#,
    );
    let sent = || drive.exists("/many/file 8/2");
    wait::until("what took the names", wait::secs(60), sent);
    home.try_sync(60).explained(1, "deletions held back");
    // A new file is the next version, a new folder the one that was there; nothing is lost.
    assert_eq!(
        drive.read("/many/file 5").as_deref(),
        Some(b"again\n".as_slice())
    );
    assert_eq!((id("/many/file 5"), id("/many")), (file, folder));
    assert_eq!(drive.entry("/many/file 5").expect("entry").versions, 2);
    assert_eq!(deletions(&service), 0, "nothing was sent");
    assert_eq!(mount.status()["conflicts"], serde_json::json!([]));
    assert_eq!(held(&mount.status()).len(), FILES - 1);
    home.run(&["discard", mount.at("many/file 9").to_str().expect("UTF-8")])
        .ok();
    assert_eq!(home.sh(r#"cat "$M/many/file 9""#), "9");
    home.run(&["retry", mount.path().to_str().expect("UTF-8")])
        .ok();
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let left: Vec<String> = drive.dump().into_iter().map(|e| e.path).collect();
    assert_eq!(left.len(), 1 + 4 + 1 + 19 - 1 + 1, "{left:?}");
    mount.unmount();
}

#[test]
fn changes_from_elsewhere_settle_what_is_held_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure(SLOW);
    let mount = mounted(&home);
    home.sh(r#"rm -r "$M/many""#);
    home.try_sync(60).explained(1, "held back");
    drive.put("/many/file 3", "changed there").expect("changed");
    drive.delete("/many/file 4").expect("removed");
    drive.put("/many/new there", "new").expect("new");
    wait::until("the news", wait::secs(60), || {
        mount.at("many/file 3").exists() && mount.at("many/new there").exists()
    });
    wait::until("the settled ones", wait::secs(60), || {
        held(&mount.status()).len() == FILES - 2
    });
    assert_eq!(
        fs::read(mount.at("many/file 3")).expect("read"),
        b"changed there"
    );
    assert!(!mount.at("many/file 2").exists());
    // The whole folder goes there: nothing is left to be decided.
    drive.delete("/many").expect("removed");
    wait::until("nothing held", wait::secs(60), || {
        held(&mount.status()).is_empty()
    });
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn deletions_on_their_way_when_the_limit_is_passed_are_the_last() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure("upload_delay = 0\nhold_share = 0\nhold_deletions = 40\n");
    let mount = mounted(&home);
    // The look at the item before its deletion takes long: many are in the midst of it.
    service
        .faults()
        .add(FaultRule::on("item", FaultAction::Delay { ms: 1000 }));
    home.sh(r#"cd "$M/many"; for i in $(seq 0 49); do rm "file $i"; done"#);
    wait::until("the brake", wait::secs(30), || {
        !held(&mount.status()).is_empty()
    });
    let sent = deletions(&service);
    home.try_sync(60).explained(1, "held back");
    assert_eq!(deletions(&service), sent, "sent after the limit was passed");
    service.faults().clear();
    home.run(&["discard", mount.at("many").to_str().expect("UTF-8")])
        .ok();
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 2 + FILES + 20 - sent);
    mount.unmount();
}

#[test]
fn ordinary_work_is_not_held_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let (service, drive) = filled();
    let home = Home::signed_in(&service);
    home.configure(SLOW);
    let mount = mounted(&home);
    // Never sent; replaced by a rename; fewer than count on a drive as small as this.
    home.sh(
        r#"cd "$M"; mkdir tmp; for i in $(seq 100); do echo x > "tmp/$i"; done; rm -r tmp
        for i in $(seq 0 59); do echo new > many/tmp; mv many/tmp "many/file $i"; done
        rm other/1?; rm "many/file 1" "many/file 2""#,
    );
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.entry("/many/file 3").expect("entry").versions, 2);
    mount.unmount();
    // Switched off.
    let mount = home.mount_args(&["--option", "hold_share=0"]);
    home.sh(r#"rm -r "$M"/*"#);
    mount.sync();
    assert_eq!(drive.dump().len(), 0);
    mount.unmount();
}
