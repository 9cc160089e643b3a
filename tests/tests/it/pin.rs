//! What is pinned is kept whole here and current; what is evicted leaves the disk and nothing else.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::disk::SmallDisk;
use onedrivefs_tests::process::{self, Ran};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};
use serde_json::Value;

use crate::files;

/// Time in which something has to happen by itself.
const LIMIT: Duration = wait::secs(90);

/// The simulator's name for requests of content.
const DOWNLOAD: &str = "download";

/// Runs `onedrivefs VERB [OPTIONS] PATH` for something in the mount.
fn cli(home: &Home<'_>, verb: &[&str], mount: &Mount<'_>, below: &str) -> Ran {
    let mut command = home.command(verb);
    command.arg(mount.at(below));
    process::run(command, wait::secs(120))
}

fn pin_and_wait(home: &Home<'_>, mount: &Mount<'_>, below: &str) {
    cli(home, &["pin", "--wait"], mount, below).ok();
}

fn state_of(mount: &Mount<'_>, below: &str) -> String {
    let status = mount.status_of(below);
    status["status"].as_str().expect("status").to_owned()
}

fn wait_for_state(mount: &Mount<'_>, below: &str, state: &str) {
    wait::until(&format!("{below} {state}"), LIMIT, || {
        state_of(mount, below) == state
    });
}

fn pins(mount: &Mount<'_>) -> Value {
    mount.status()["pins"].clone()
}

fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut value = [0_u8; 64];
    let got = rustix::fs::getxattr(path, name, &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..got]).into_owned())
}

/// Bytes that bodies take on the disk of the content cache.
fn cache_on_disk(home: &Home<'_>) -> u64 {
    fn below(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => below(&entry.path()),
            Ok(found) if entry.file_name() != "CACHEDIR.TAG" => found.blocks() * 512,
            _ => 0,
        });
        sizes.sum()
    }
    below(&home.path("cache"))
}

/// Has the service refuse or hold all content from its next request on.
fn fault(service: &Service, action: FaultAction) -> u64 {
    service.faults().add(FaultRule::on(DOWNLOAD, action))
}

#[test]
fn a_pinned_folder_is_fetched_stays_current_and_is_there_offline_after_a_restart() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let large = files::noise(1, 9 << 20);
    drive.put("/trip/large.bin", large.clone()).expect("file");
    drive.put("/trip/deep/er/small", "small").expect("file");
    drive.put("/elsewhere.txt", "elsewhere").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let said = cli(&home, &["pin"], &mount, "trip").ok();
    assert!(said.contains("pinned; 2 files, 9.0 MiB"), "{said}");
    wait_for_state(&mount, "trip", "pinned");
    for (below, by) in [("trip", "self"), ("trip/large.bin", "folder")] {
        let path = mount.at(below);
        assert_eq!(
            xattr(&path, "user.onedrive.status").as_deref(),
            Some("pinned")
        );
        assert_eq!(xattr(&path, "user.onedrive.pinned").as_deref(), Some(by));
    }
    let elsewhere = mount.at("elsewhere.txt");
    assert_eq!(xattr(&elsewhere, "user.onedrive.pinned"), None);
    assert_eq!(
        xattr(&elsewhere, "user.onedrive.status").as_deref(),
        Some("cloud")
    );

    // What appears in it and what changes is fetched, though nobody reads it.
    drive.put("/trip/deep/new", "new").expect("file");
    drive.put("/trip/deep/er/small", "changed").expect("file");
    wait::until("all of it again", LIMIT, || {
        mount.at("trip/deep/new").exists()
            && mount.status_of("trip/deep/er/small")["size"] == 7
            && pins(&mount)["to_fetch"]["files"] == 0
    });
    let status = mount.status();
    assert_eq!(status["pins"]["paths"], serde_json::json!(["trip"]));
    assert_eq!(status["pins"]["files"], 3);
    assert_eq!(status["cache"]["pinned"], (9 << 20) + 7 + 3);
    assert_eq!(status["pins"]["over_limit"], false);
    mount.unmount();

    service.set_reach(Reach::Offline);
    let mount = home.mount_args(&["--poll", "1"]);
    assert_eq!(state_of(&mount, "trip"), "pinned");
    assert!(fs::read(mount.at("trip/large.bin")).expect("here") == large);
    let text = home.sh(r#"cat "$M/trip/deep/er/small" "$M/trip/deep/new""#);
    assert_eq!(text, "changednew");
    fs::read(mount.at("elsewhere.txt")).expect_err("it is not pinned");
    mount.unmount();
}

#[test]
fn a_pin_goes_with_what_is_moved_and_ends_for_what_leaves_the_folder() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["kept/a", "kept/sub/b", "outside", "doc", "backed", "gone"] {
        drive.put(&format!("/{name}"), name).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    for name in ["kept", "doc", "backed", "gone"] {
        pin_and_wait(&home, &mount, name);
    }
    assert_eq!(state_of(&mount, "outside"), "cloud");
    // Into it, renamed with it, out of it, saved over, deleted.
    home.sh(
        r#"cd "$M"; mv outside kept/inside; mv kept renamed; mv renamed/sub out
        echo new version > .tmp; mv .tmp doc; rm gone
        mv backed backed~; echo anew > backed; rm backed~; echo first > unsent"#,
    );
    cli(&home, &["pin"], &mount, "unsent").ok();
    home.sh(r#"cd "$M"; echo second > .tmp2; mv .tmp2 unsent"#);
    mount.sync();
    wait_for_state(&mount, "backed", "pinned");
    wait_for_state(&mount, "unsent", "pinned");
    wait_for_state(&mount, "renamed/inside", "pinned");
    wait_for_state(&mount, "doc", "pinned");
    assert_eq!(drive.read("/doc").expect("sent"), b"new version\n");
    assert_eq!(state_of(&mount, "renamed/a"), "pinned");
    assert_eq!(state_of(&mount, "out/b"), "cached");
    assert_eq!(mount.status_of("out/b")["pinned_by"], Value::Null);
    let mut paths: Vec<_> = pins(&mount)["paths"].as_array().expect("list").clone();
    paths.sort_by_key(ToString::to_string);
    assert_eq!(paths, ["backed", "doc", "renamed", "unsent"]);
    // Moves made elsewhere count the same.
    drive.rename("/out/b", "/renamed/b").expect("moved");
    drive.rename("/renamed/a", "/a").expect("moved");
    mount.sync();
    wait_for_state(&mount, "renamed/b", "pinned");
    assert_eq!(state_of(&mount, "a"), "cached");

    cli(&home, &["unpin"], &mount, "renamed/b").explained(1, "with its folder /renamed");
    cli(&home, &["unpin"], &mount, "a").explained(1, "is not pinned");
    cli(&home, &["pin"], &mount, "nowhere").explained(1, "nowhere");
    // A pin of its own outlives that of the folder.
    cli(&home, &["pin"], &mount, "renamed/b").ok();
    let still = cli(&home, &["unpin"], &mount, "renamed/b").ok();
    assert!(
        still.contains("stays pinned with its folder /renamed"),
        "{still}"
    );
    cli(&home, &["pin"], &mount, "renamed/b").ok();
    cli(&home, &["unpin"], &mount, "renamed").ok();
    assert_eq!(state_of(&mount, "renamed/b"), "pinned");
    assert_eq!(state_of(&mount, "renamed/inside"), "cached");
    mount.unmount();
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_fetch_goes_on_with_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = files::noise(2, 20 << 20);
    drive.put("/large.bin", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    let rule = FaultRule::on(DOWNLOAD, FaultAction::Hold).after(2);
    service.faults().add(rule);
    let summary = cli(&home, &["pin", "--json"], &mount, "large.bin").ok();
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary[0]["files"], 1);
    assert_eq!(summary[0]["to_fetch"]["bytes"], body.len());
    wait::until("a part", LIMIT, || {
        mount.status_of("large.bin")["cached_bytes"].as_u64() >= Some(4 << 20)
    });
    let transfers = mount.status()["transfers"].clone();
    assert_eq!(transfers[0]["path"], "large.bin");
    assert_eq!(transfers[0]["direction"], "down");
    assert_eq!(state_of(&mount, "large.bin"), "partial");
    mount.crash();
    drop(mount);
    service.faults().clear();
    let mount = home.mount();
    wait_for_state(&mount, "large.bin", "pinned");
    service.set_reach(Reach::Offline);
    assert!(fs::read(mount.at("large.bin")).expect("here") == body);
    mount.unmount();
}

#[test]
fn what_is_unpinned_while_it_is_fetched_is_fetched_no_further() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive
        .put("/large.bin", files::noise(3, 40 << 20))
        .expect("file");
    drive.put("/other", "other").expect("file");
    let home = Home::signed_in(&service);
    // A transfer that hangs does not end by itself.
    let mount = home.mount_args(&["--option", "read_timeout=600"]);
    mount.sync();
    let rule = FaultRule::on(DOWNLOAD, FaultAction::Hold).after(1);
    service.faults().add(rule);
    cli(&home, &["pin"], &mount, "large.bin").ok();
    wait::until("under way", LIMIT, || {
        mount.status()["transfers"]
            .as_array()
            .is_some_and(|t| !t.is_empty())
    });
    cli(&home, &["unpin"], &mount, "large.bin").ok();
    wait::until("its end", LIMIT, || {
        mount.status()["transfers"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    service.faults().clear();
    // Had it been waiting for its turn, it would come before this.
    pin_and_wait(&home, &mount, "other");
    let status = mount.status_of("large.bin");
    assert!(status["cached_bytes"].as_u64() < Some(30 << 20), "{status}");
    assert_eq!(status["to_fetch"], Value::Null);
    assert_eq!(pins(&mount)["count"], 1);
    mount.unmount();
}

#[test]
fn what_is_pinned_stays_when_the_cache_is_far_too_small() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..4 {
        let body = files::noise(number, 2 << 20);
        drive
            .put(&format!("/pinned/{number}"), body.clone())
            .expect("file");
        drive.put(&format!("/read/{number}"), body).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"cat "$M"/read/* "$M"/pinned/3 > "$W/all""#);
    pin_and_wait(&home, &mount, "pinned");
    mount.unmount();
    let before = service.last_request();
    // The limit is kept as soon as there is a mount.
    let mount = home.mount_args(&["--cache-size", "1MiB"]);
    wait::until("the others gone", LIMIT, || {
        (0..4).all(|number| state_of(&mount, &format!("read/{number}")) == "cloud")
    });
    assert_eq!(state_of(&mount, "pinned"), "pinned");
    let status = mount.status();
    assert_eq!(status["pins"]["over_limit"], true);
    assert_eq!(status["cache"]["pinned"], 8 << 20);
    let text = home.run(&["status"]).ok();
    assert!(
        text.contains("more than the cache may hold (1.0 MiB)"),
        "{text}"
    );
    // Nothing was evicted to be fetched again.
    let requests = service.requests().since(before);
    let fetched = requests
        .iter()
        .filter(|record| record.op == DOWNLOAD)
        .count();
    assert_eq!(fetched, 0);
    // Unpinned, it makes room.
    cli(&home, &["unpin"], &mount, "pinned").ok();
    wait::until("room", LIMIT, || cache_on_disk(&home) <= 1 << 20);
    mount.unmount();
}

#[test]
fn evict_frees_what_the_service_has_and_names_what_stays() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = files::noise(5, 3 << 20);
    for name in ["a", "dir/b", "dir/part", "dir/open", "dir/pinned"] {
        drive.put(&format!("/{name}"), body.clone()).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(
        r#"cd "$M"; cat a dir/b > /dev/null; head -c 100 dir/part > /dev/null
        echo mine > dir/sent; echo swap > dir/.x.swp"#,
    );
    mount.sync();
    pin_and_wait(&home, &mount, "dir/pinned");
    let before = cache_on_disk(&home);
    let said = cli(&home, &["evict"], &mount, "a").ok();
    assert!(said.contains("3.0 MiB freed (1 file)"), "{said}");
    assert_eq!(before - cache_on_disk(&home), 3 << 20);
    assert_eq!(state_of(&mount, "a"), "cloud");

    let mut open = File::open(mount.at("dir/open")).expect("opened");
    let mut some = [0; 1000];
    open.read_exact(&mut some).expect("read");
    service.set_reach(Reach::Offline);
    fs::write(mount.at("dir/unsent"), "only here").expect("written");
    home.sh(r#"printf edited | dd of="$M/dir/b" conv=notrunc status=none"#);
    let refused = cli(&home, &["evict"], &mount, "dir");
    for (name, reason) in [
        ("dir/unsent", "it is not sent yet"),
        ("dir/b", "it is not sent yet"),
        ("dir/open", "a program has it open"),
        ("dir/pinned", "it is pinned"),
        ("dir/.x.swp", "it stays on this machine"),
    ] {
        let line = format!("{}: {reason}", mount.at(name).display());
        assert!(refused.err.contains(&line), "{line}: {refused:?}");
    }
    assert!(
        refused.out.contains("(2 files)"),
        "dir/part and dir/sent: {refused:?}"
    );
    refused.explained(1, "the content of 5 files stays here");
    assert_eq!(
        fs::read(mount.at("dir/unsent")).expect("here"),
        b"only here"
    );
    assert!(fs::read(mount.at("dir/pinned")).expect("here") == body);
    fs::read(mount.at("dir/sent")).expect_err("offline and not here");
    drop(open);

    // Once it is sent and closed, the rest goes as well; and everything comes back as it was.
    service.set_reach(Reach::Online);
    wait::until("all sent", LIMIT, || home.try_sync(30).code == Some(0));
    let json = cli(&home, &["evict", "--json"], &mount, "dir");
    assert_eq!(json.code, Some(1), "the pinned one stays: {json:?}");
    let json: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json[0]["files"], 3, "{json}");
    assert_eq!(json[0]["staying"], 2, "{json}");
    for name in ["dir/b", "dir/open", "dir/unsent"] {
        assert_eq!(state_of(&mount, name), "cloud", "{name}");
        let there = drive.read(&format!("/{name}")).expect("there");
        assert!(fs::read(mount.at(name)).expect("read") == there, "{name}");
    }
    mount.unmount();
}

/// The kernel tells of a file that was closed a moment after the program that closed it goes on.
#[test]
fn evict_waits_a_moment_for_a_file_to_be_closed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/file", files::noise(5, 1 << 20)).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let mut open = File::open(mount.at("file")).expect("opened");
    let mut some = [0; 1000];
    open.read_exact(&mut some).expect("read");
    let closing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(open);
    });
    let said = cli(&home, &["evict"], &mount, "file").ok();
    assert!(said.contains("(1 file)"), "{said}");
    closing.join().expect("closed");
    assert_eq!(state_of(&mount, "file"), "cloud");
    mount.unmount();
}

#[test]
fn a_pin_made_offline_is_fetched_when_the_service_is_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/file", "content").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    service.set_reach(Reach::Offline);
    wait::until("offline", LIMIT, || {
        drop(home.try_sync(1));
        mount.status()["state"] == "offline"
    });
    let said = cli(&home, &["pin"], &mount, "dir").ok();
    assert!(
        said.contains("as soon as the service can be reached"),
        "{said}"
    );
    cli(&home, &["pin", "--wait"], &mount, "dir").explained(1, "no network");
    assert_eq!(pins(&mount)["to_fetch"]["files"], 1);
    service.set_reach(Reach::Online);
    wait_for_state(&mount, "dir", "pinned");
    mount.unmount();
}

#[test]
fn what_cannot_be_fetched_is_named_and_tried_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/refused", "refused").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let rule = fault(&service, FaultAction::status(423));
    cli(&home, &["pin", "--wait"], &mount, "dir").explained(1, "/dir/refused");
    assert_eq!(pins(&mount)["failing"][0]["path"], "dir/refused");
    let text = home.run(&["status"]).ok();
    assert!(text.contains("retrying   fetch"), "{text}");
    service.faults().remove(rule);
    wait_for_state(&mount, "dir", "pinned");
    assert_eq!(pins(&mount)["failing"], serde_json::json!([]));
    mount.unmount();
}

#[test]
fn a_read_only_mount_keeps_what_is_pinned_too() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/file", "content").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--read-only"]);
    mount.sync();
    pin_and_wait(&home, &mount, "");
    assert_eq!(state_of(&mount, "dir/file"), "pinned");
    cli(&home, &["evict"], &mount, "dir/file").explained(1, "stays here");
    cli(&home, &["unpin"], &mount, "").ok();
    cli(&home, &["evict"], &mount, "dir").ok();
    assert_eq!(state_of(&mount, "dir/file"), "cloud");
    mount.unmount();
}

#[test]
fn a_wiped_cache_is_filled_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = files::noise(6, 1 << 20);
    drive.put("/dir/file", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    pin_and_wait(&home, &mount, "dir");
    mount.unmount();
    fs::remove_dir_all(home.path("cache/onedrivefs")).expect("wiped");
    let mount = home.mount();
    wait::until("it back", LIMIT, || cache_on_disk(&home) >= 1 << 20);
    wait_for_state(&mount, "dir", "pinned");
    service.set_reach(Reach::Offline);
    assert!(fs::read(mount.at("dir/file")).expect("here") == body);
    mount.unmount();
}

#[test]
fn fetching_stops_where_the_disk_is_to_stay_free_and_goes_on_when_there_is_room() {
    if !needs::met(&[Need::Fuse, Need::Root, Need::Namespaces]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..4 {
        let body = files::noise(number, 8 << 20);
        drive.put(&format!("/dir/{number}"), body).expect("file");
    }
    let home = Home::signed_in(&service);
    home.configure("free_space = \"10MiB\"\n");
    let disk = SmallDisk::at(home.path("cache"), 64);
    fs::write(disk.path().join("somebody else's"), vec![1; 30 << 20]).expect("written");
    let mount = home.mount();
    mount.sync();
    let stuck = cli(&home, &["pin", "--wait"], &mount, "dir");
    stuck.explained(1, "stay free (`free_space`)");
    let status = pins(&mount);
    assert!(status["to_fetch"]["files"].as_u64() >= Some(1), "{status}");
    let error = status["failing"][0]["error"].as_str().expect("error");
    assert!(error.starts_with("no room for 8.0 MiB"), "{error}");
    let free = rustix::fs::statvfs(disk.path()).expect("statvfs");
    assert!(free.f_bavail * free.f_frsize >= 10 << 20, "below the floor");
    fs::remove_file(disk.path().join("somebody else's")).expect("removed");
    wait_for_state(&mount, "dir", "pinned");
    mount.unmount();
}
