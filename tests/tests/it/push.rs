//! Changes of others that are announced by the service instead of being polled for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, wait};
use rustix::process::Signal;

/// So seldom that nothing is found by polling while a test runs.
const SELDOM: [&str; 2] = ["--poll", "3600"];

/// Time that an announced change may take on a machine that does other things, too.
const SOON: Duration = Duration::from_secs(10);

fn wait_announced(mount: &Mount<'_>) {
    wait::until("a channel for announcements", SOON, || {
        mount.status()["push"] == true
    });
}

fn wait_polled(mount: &Mount<'_>) {
    wait::until("no channel for announcements", SOON, || {
        mount.status()["push"] == false
    });
}

fn requests(service: &Service, op: &str) -> usize {
    let all = service.requests().since(0).into_iter();
    all.filter(|record| record.op == op).count()
}

/// Waits until no request has been made for a while, and returns how many there were.
fn quiet(service: &Service) -> u64 {
    let mut last = (service.last_request(), Instant::now());
    wait::value("silence", wait::secs(60), || {
        let now = service.last_request();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > wait::secs(3)).then_some(now)
    })
}

#[test]
fn announced_changes_show_at_once_also_to_open_programs() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["open", "deleted", "renamed"] {
        drive.put(&format!("/d/{name}"), "first").expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    mount.sync();
    wait_announced(&mount);
    let open = File::open(mount.at("d/open")).expect("opened");
    let mut page = [0; 5];
    open.read_exact_at(&mut page, 0).expect("read");
    assert_eq!(&page, b"first");
    assert!(mount.at("d/deleted").exists() && !mount.at("d/new").exists());

    drive.put("/d/new", "new").expect("file");
    wait::until("the new file", SOON, || mount.at("d/new").exists());
    drive.put("/d/open", "other").expect("change");
    wait::until("the new content", SOON, || {
        fs::read(mount.at("d/open")).is_ok_and(|bytes| bytes == b"other")
    });
    drive.rename("/d/renamed", "/d/name").expect("rename");
    wait::until("the new name", SOON, || {
        mount.at("d/name").exists() && !mount.at("d/renamed").exists()
    });
    drive.delete("/d/deleted").expect("deletion");
    wait::until("the deletion", SOON, || !mount.at("d/deleted").exists());
    // Whoever opens it anew sees the new bytes; an open handle keeps one version whole.
    open.read_exact_at(&mut page, 0).expect("read");
    assert!(matches!(&page, b"first" | b"other"), "{page:?}");
    drop(open);
    mount.unmount();
}

#[test]
fn the_address_of_the_channel_is_renewed_before_it_expires() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| config.knobs.socket_ttl_s = 12);
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    wait_announced(&mount);
    let began = Instant::now();
    while began.elapsed() < wait::secs(20) {
        assert_eq!(mount.status()["push"], true, "the channel was lost");
        std::thread::sleep(wait::secs(1));
    }
    // One for each half of a life, and none for an expired one.
    let addresses = requests(&service, "socketio");
    assert!((3..=6).contains(&addresses), "{addresses} addresses");
    drive.put("/late", "x").expect("file");
    wait::until("a late change", SOON, || mount.at("late").exists());
    assert!(!mount.log().contains("looking every"), "{}", mount.log());
    mount.unmount();
}

#[test]
fn what_happens_while_the_channel_is_cut_is_caught_up_with() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    wait_announced(&mount);
    for round in 0..3 {
        let refused = service
            .faults()
            .add(FaultRule::on("socketio", FaultAction::status(503)));
        service.close_sockets();
        wait_polled(&mount);
        let name = format!("missed {round}");
        drive.put(&format!("/{name}"), "x").expect("file");
        service.faults().remove(refused);
        wait::until("what was missed", wait::secs(30), || {
            mount.at(&name).exists()
        });
        wait_announced(&mount);
    }
    mount.unmount();
}

#[test]
fn a_channel_that_falls_silent_is_replaced() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        config.knobs.socket_ping_ms = 1000;
        config.knobs.socket_pong_ms = 2000;
    });
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    wait_announced(&mount);
    // Answered pings keep it alive for longer than silence would.
    let sockets = requests(&service, "socket");
    std::thread::sleep(wait::secs(5));
    assert_eq!(requests(&service, "socket"), sockets);

    service.set_knobs(|knobs| knobs.socket_silent = true);
    drive.put("/unsaid", "x").expect("file");
    wait_polled(&mount);
    service.set_knobs(|knobs| knobs.socket_silent = false);
    wait::until("what was not announced", wait::secs(60), || {
        mount.at("unsaid").exists()
    });
    mount.unmount();
}

#[test]
fn a_machine_that_was_asleep_catches_up() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        config.knobs.socket_ping_ms = 500;
        config.knobs.socket_pong_ms = 500;
    });
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    wait_announced(&mount);
    let sockets = requests(&service, "socket");
    mount.send(Signal::STOP);
    // The service gives up a client that answers no ping.
    std::thread::sleep(wait::secs(3));
    drive.put("/meanwhile", "x").expect("file");
    mount.send(Signal::CONT);
    wait::until("what happened meanwhile", wait::secs(30), || {
        mount.at("meanwhile").exists()
    });
    wait_announced(&mount);
    assert!(requests(&service, "socket") > sockets);
    mount.unmount();
}

#[test]
fn the_channel_comes_back_after_an_outage() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        config.knobs.socket_ping_ms = 1000;
        config.knobs.socket_pong_ms = 2000;
    });
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    wait_announced(&mount);
    for reach in [Reach::Offline, Reach::BlackHole] {
        service.set_reach(reach);
        wait_polled(&mount);
        let name = format!("during {reach:?}");
        drive.put(&format!("/{name}"), "x").expect("file");
        service.set_reach(Reach::Online);
        wait::until("the change", wait::secs(60), || mount.at(&name).exists());
        wait_announced(&mount);
    }
    mount.unmount();
}

#[test]
fn without_a_channel_changes_are_polled_for() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    service
        .faults()
        .add(FaultRule::on("socketio", FaultAction::status(403)));
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "1"]);
    for round in 0..4 {
        let name = format!("file {round}");
        drive.put(&format!("/{name}"), "x").expect("file");
        wait::until("a polled change", SOON, || mount.at(&name).exists());
    }
    assert_eq!(mount.status()["push"], false);
    assert_eq!(requests(&service, "socketio"), 1, "a refusal is final");
    assert_eq!(requests(&service, "socket"), 0);
    let log = mount.log();
    let told = log
        .lines()
        .filter(|line| line.contains("looking every 1 s"));
    assert_eq!(told.count(), 1, "said once, with the reason: {log}");
    mount.unmount();
}

#[test]
fn a_channel_that_flaps_brings_no_storm_of_requests() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| config.knobs.socket_life_ms = Some(300));
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    mount.sync();
    let before = service.last_request();
    std::thread::sleep(wait::secs(20));
    // Growing pauses leave room for five or six channels, with three requests each.
    let made = service.last_request() - before;
    println!("{made} requests in 20 s");
    assert!((3..=24).contains(&made), "{made} requests in 20 s");
    mount.unmount();
}

#[test]
fn own_uploads_are_announced_too_and_cost_few_requests() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&SELDOM);
    mount.sync();
    wait_announced(&mount);
    quiet(&service);
    let (before, began) = (requests(&service, "delta"), Instant::now());
    for number in 0..200 {
        fs::write(mount.at(&format!("own {number}")), "x").expect("written");
    }
    mount.wait_sent(wait::secs(120));
    quiet(&service);
    let (looks, took) = (requests(&service, "delta") - before, began.elapsed());
    println!("{looks} looks in {took:?}");
    assert!(looks >= 1, "nothing was announced");
    let most = 4 + took.as_secs() / 4;
    assert!(looks as u64 <= most, "{looks} looks in {took:?}");
    mount.unmount();
}

#[test]
fn nothing_happens_while_nothing_happens() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    service.default_drive().put("/file", "x").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    wait_announced(&mount);
    let before = quiet(&service);
    let written = written_bytes(&mount);
    // More than a poll interval.
    std::thread::sleep(wait::secs(40));
    assert_eq!(
        service.last_request(),
        before,
        "{:?}",
        service.request_lines()
    );
    assert_eq!(written_bytes(&mount), written, "bytes were written");
    mount.unmount();
}

/// Bytes that the daemon caused to be written to disks.
fn written_bytes(mount: &Mount<'_>) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", mount.pid())).expect("io");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.expect("write_bytes").parse().expect("number")
}
