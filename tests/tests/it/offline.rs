//! Without a network the mount is a disk that has what was used before.

use std::fs;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use onedrivefs_sim::{FaultAction, FaultRule, FileBody, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};
use rustix::process::Signal;

/// Time in which everything has to arrive by itself once the service is back.
const RETURN_LIMIT: Duration = wait::secs(90);

/// Longest time for a system call that needs no network.
const LOCAL_LIMIT: Duration = Duration::from_secs(2);

fn wait_for_state(mount: &Mount<'_>, state: &str) {
    wait::until(&format!("state {state}"), wait::secs(60), || {
        mount.status()["state"] == state
    });
}

fn seeded(service: &Service) {
    let drive = service.default_drive();
    drive.put("/dir/cached.txt", "cached").expect("file");
    drive.put("/dir/rename me", "renamed").expect("file");
    drive.put("/dir/remove me", "removed").expect("file");
    drive.put("/deep/er/down.txt", "down").expect("file");
    let body = FileBody::Generated {
        seed: 1,
        size: 500_000,
    };
    drive.put("/dir/never read.bin", body).expect("file");
}

/// Works on the mount, and expects every step to be quick.
fn work_offline(home: &Home<'_>) {
    let start = Instant::now();
    home.sh(r#"cd "$M"
        ls -lR > /dev/null; stat dir/cached.txt > /dev/null
        test "$(cat dir/cached.txt)" = cached
        mkdir new; echo written > new/file; echo more >> dir/cached.txt
        mv "dir/rename me" new/renamed; rm "dir/remove me"
        mkdir gone; rmdir gone; mv deep/er deep/rer; cp dir/cached.txt new/copy
        test "$(cat new/file)" = written; df . > /dev/null; sync new/file"#);
    assert!(
        start.elapsed() < LOCAL_LIMIT * 10,
        "{:?} for local work",
        start.elapsed()
    );
}

fn assert_work_arrived(service: &Service, mount: &Mount<'_>) {
    let drive = service.default_drive();
    // By itself: no command asks for it.
    wait::until("everything on the service", RETURN_LIMIT, || {
        drive.exists("/new/renamed")
            && drive.read("/new/file").as_deref() == Some(b"written\n")
            && drive.read("/dir/cached.txt").as_deref() == Some(b"cachedmore\n")
            && !drive.exists("/dir/remove me")
            && drive.exists("/deep/rer/down.txt")
            && drive.exists("/new/copy")
    });
    mount.wait_sent(wait::secs(30));
    wait_for_state(mount, "online");
    tree::assert_in_step(mount.path(), &drive);
}

#[test]
fn work_goes_on_without_the_service_and_arrives_by_itself_when_it_is_back() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    seeded(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "2"]);
    home.sh(r#"cat "$M/dir/cached.txt"; ls -R "$M" > /dev/null"#);
    mount.sync();
    service.set_reach(Reach::Offline);
    work_offline(&home);
    wait_for_state(&mount, "offline");
    assert!(mount.status()["pending"]["ops"].as_u64() > Some(0));
    let start = Instant::now();
    let error = fs::read(mount.at("dir/never read.bin")).expect_err("not here");
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NETDOWN.raw_os_error()),
        "{error}"
    );
    assert!(start.elapsed() < wait::secs(5), "{:?}", start.elapsed());
    let sync = home.try_sync(5);
    sync.explained(1, "network");
    service.set_reach(Reach::Online);
    assert_work_arrived(&service, &mount);
    mount.unmount();
}

#[test]
fn a_known_drive_can_be_mounted_without_the_service() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    seeded(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cat "$M/dir/cached.txt"; ls -R "$M" > /dev/null"#);
    mount.sync();
    mount.unmount();
    service.set_reach(Reach::Offline);
    let mount = home.mount_args(&["--poll", "2"]);
    work_offline(&home);
    wait_for_state(&mount, "offline");
    // What was done offline also survives an end and a start offline.
    mount.unmount();
    let mount = home.mount_args(&["--poll", "2"]);
    assert_eq!(home.sh(r#"cat "$M/new/file""#), "written\n");
    service.set_reach(Reach::Online);
    assert_work_arrived(&service, &mount);
    mount.unmount();
}

#[test]
fn a_service_that_swallows_everything_hangs_nobody() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    seeded(&service);
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&[
        "--option",
        "read_timeout=3",
        "--option",
        "metadata_timeout=1",
    ]);
    home.sh(r#"cat "$M/dir/cached.txt"; ls -R "$M" > /dev/null"#);
    mount.sync();
    service.set_reach(Reach::BlackHole);
    work_offline(&home);
    let start = Instant::now();
    fs::read(mount.at("dir/never read.bin")).expect_err("never answered");
    assert!(start.elapsed() < wait::secs(8), "{:?}", start.elapsed());
    let start = Instant::now();
    mount.unmount();
    assert!(start.elapsed() < wait::secs(20), "{:?}", start.elapsed());
}

#[test]
fn whoever_waits_is_told_at_once_when_the_network_goes_and_when_the_mount_ends() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..2 {
        let body = FileBody::Generated {
            seed: number,
            size: 900_000,
        };
        drive.put(&format!("/{number}"), body).expect("file");
    }
    let home = Home::signed_in(&service);
    let mut mount = home.mount_args(&["--poll", "1", "--option", "read_timeout=120"]);
    mount.sync();
    let stall = FaultRule::on("download", FaultAction::Stall);
    let rule = service.faults().add(stall);
    // Waits for bytes that nobody sends, and tells how that ended.
    let reader = |mount: &Mount<'_>, name: &str| {
        let before = service.faults().hits(rule);
        let path = mount.at(name);
        let reader = thread::spawn(move || fs::read(path).expect_err("no bytes").raw_os_error());
        wait::until("somebody waits", wait::secs(20), || {
            service.faults().hits(rule) > before
        });
        reader
    };
    let waiting = reader(&mount, "0");
    let start = Instant::now();
    service.set_reach(Reach::Offline);
    let told = waiting.join().expect("reader");
    let down = rustix::io::Errno::NETDOWN.raw_os_error();
    assert_eq!(told, Some(down));
    assert!(start.elapsed() < wait::secs(10), "{:?}", start.elapsed());
    service.set_reach(Reach::Online);
    wait_for_state(&mount, "online");

    let waiting = reader(&mount, "1");
    let start = Instant::now();
    assert!(mount.signal(Signal::TERM).success());
    waiting.join().expect("reader");
    assert!(start.elapsed() < wait::secs(15), "{:?}", start.elapsed());
}

#[test]
fn closing_waits_for_the_service_where_that_is_asked_for() {
    if !needs::met(&[Need::Fuse, Need::Program("python3")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    home.configure("upload = \"on-close\"\n");
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    // The shell closes a descriptor of it before anything is written, and `touch` writes nothing.
    let start = Instant::now();
    home.sh(r#"echo sent > "$M/file"; touch "$M/empty""#);
    assert!(start.elapsed() < wait::secs(30), "{:?}", start.elapsed());
    assert_eq!(drive.read("/file").as_deref(), Some(&b"sent\n"[..]));
    let close = r#"cd "$M"; python3 -c '
import os
file = os.open("file", os.O_WRONLY | os.O_APPEND)
os.write(file, b"more")
try:
    os.close(file)
    print("sent")
except OSError as error:
    print(error.errno)'"#;
    assert_eq!(home.sh(close), "sent\n");
    service.set_reach(Reach::Offline);
    let start = Instant::now();
    let down = rustix::io::Errno::NETDOWN.raw_os_error();
    assert_eq!(home.sh(close), format!("{down}\n"));
    assert!(start.elapsed() < wait::secs(30), "{:?}", start.elapsed());
    // It was kept all the same.
    assert_eq!(home.sh(r#"cat "$M/file""#), "sent\nmoremore");
    service.set_reach(Reach::Online);
    mount.sync();
    let there = drive.read("/file");
    assert_eq!(there.as_deref(), Some(&b"sent\nmoremore"[..]));
    mount.unmount();
}

#[test]
fn closing_waits_for_what_another_close_saved() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    home.configure("upload = \"on-close\"\n");
    let mount = home.mount();
    mount.sync();
    let file = fs::File::create(mount.at("file")).expect("file");
    let other = file.try_clone().expect("descriptor");
    (&file).write_all(b"all of it").expect("written");
    let faults = service.faults();
    let slow = FaultRule::on("upload_fragment", FaultAction::Delay { ms: 1000 });
    let slow = faults.add(slow);
    let first = thread::spawn(move || drop(other));
    wait::until("the first close sends it", wait::secs(20), || {
        faults.hits(slow) > 0
    });
    assert_eq!(drive.read("/file"), None);
    drop(file);
    assert_eq!(drive.read("/file").as_deref(), Some(&b"all of it"[..]));
    first.join().expect("closed");
    mount.unmount();
}

#[test]
fn closing_tells_what_the_service_refuses_where_that_is_waited_for() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    for op in ["create_session", "put_content"] {
        let refused = FaultRule::on(op, FaultAction::status(403));
        service.faults().add(refused);
    }
    let home = Home::signed_in(&service);
    home.configure("upload = \"on-close\"\n");
    let mount = home.mount();
    mount.sync();
    let told = home.sh(r#"cd "$M"; printf kept > "$W/source"
        cp "$W/source" file 2>&1 || echo "exit code $?"; cat file"#);
    assert!(told.contains("error"), "{told}");
    assert!(told.ends_with("exit code 1\nkept"), "{told}");
    assert_eq!(mount.status()["parked"][0]["path"], "file");
    mount.unmount();
}
