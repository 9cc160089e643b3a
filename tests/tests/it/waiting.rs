//! Whoever waits for the service is answered in time, and at once where waiting makes no sense.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use onedrivefs_sim::{FaultAction, FaultRule, FileBody, Reach};
use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Home, Logind, Mount, Need, Service, Who, needs, process, wait};
use rustix::io::Errno;
use rustix::process::Signal;

/// Files in a folder that is listed page by page.
const MANY: usize = 10_000;

/// Longest time for an answer that waits for nothing.
const AT_ONCE: Duration = Duration::from_secs(5);

/// No call of a test waits for so long.
const PATIENT: &[&str] = &[
    "--poll",
    "300",
    "--option",
    "metadata_timeout=120",
    "--option",
    "read_timeout=120",
];

/// Has the service take requests of a kind, and not answer.
fn hold(service: &Service, op: &str) -> u64 {
    let rule = FaultRule::on(op, FaultAction::Hold);
    service.faults().add(rule)
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// A call on another thread, and how it ends.
struct Waiting(JoinHandle<Option<io::Error>>);

impl Waiting {
    /// Makes a call, and waits until the service is asked for it.
    fn begin(
        service: &Service,
        rule: u64,
        call: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Self {
        let before = service.faults().hits(rule);
        let thread = thread::spawn(move || call().err());
        wait::until("somebody waits", wait::secs(20), || {
            service.faults().hits(rule) > before
        });
        Self(thread)
    }

    /// Expects that the call ended because the service cannot be had, at once.
    fn was_told(self, since: Instant) {
        let error = self.0.join().expect("thread").expect("an error");
        assert_eq!(errno(&error), Some(Errno::NETDOWN), "{error}");
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    }
}

/// A drive with a folder that is not known, in which there are files that are not here.
fn with_folder() -> Service {
    let service = Service::start();
    for number in 0..4 {
        let body = FileBody::Generated {
            seed: number,
            size: 900_000,
        };
        let path = format!("/dir/{number}");
        service.default_drive().put(&path, body).expect("file");
    }
    service
}

fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("directory");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("entry").file_name();
    entries
        .map(|entry| name(entry).into_string().expect("UTF-8"))
        .collect()
}

/// Expects `ETIMEDOUT` after about so long.
fn times_out(what: &str, limit: Duration, call: impl FnOnce() -> io::Result<()>) {
    let start = Instant::now();
    let error = call().expect_err(what);
    let took = start.elapsed();
    assert_eq!(errno(&error), Some(Errno::TIMEDOUT), "{what}: {error}");
    let slack = Duration::from_millis(200);
    assert!(
        took + slack > limit && took < limit + AT_ONCE,
        "{what}: {took:?}"
    );
}

#[test]
fn looking_into_a_folder_that_is_not_known_ends_at_metadata_timeout() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for (options, limit) in [(&[][..], 2), (&["--option", "metadata_timeout=1"], 1)] {
        let service = with_folder();
        let home = Home::signed_in(&service);
        hold(&service, "delta");
        let mount = home.mount_args(options);
        assert_eq!(names_in(mount.path()), ["dir"]);
        let held = hold(&service, "children");
        let limit = wait::secs(limit);
        times_out("lookup", limit, || {
            fs::metadata(mount.at("dir/0")).map(drop)
        });
        times_out("lookup of nothing", limit, || {
            fs::metadata(mount.at("dir/none")).map(drop)
        });
        times_out("listing", limit, || fs::read_dir(mount.at("dir")).map(drop));
        // The listing went on for whoever comes next.
        let asked = service.faults().hits(held);
        assert_eq!(asked, 1, "one listing for all of them");
        service.faults().remove(held);
        assert_eq!(names_in(&mount.at("dir")).len(), 4);
        mount.unmount();
    }
}

#[test]
fn whoever_looks_into_a_folder_is_told_at_once_when_the_network_goes() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = with_folder();
    let home = Home::signed_in(&service);
    hold(&service, "delta");
    let mount = home.mount_args(PATIENT);
    assert_eq!(names_in(mount.path()), ["dir"]);
    let held = hold(&service, "children");
    let file = mount.at("dir/0");
    let lookup = Waiting::begin(&service, held, move || fs::metadata(file).map(drop));
    let start = Instant::now();
    service.set_reach(Reach::Offline);
    lookup.was_told(start);
    let start = Instant::now();
    let error = fs::read_dir(mount.at("dir")).expect_err("no network");
    assert_eq!(errno(&error), Some(Errno::NETDOWN), "{error}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    service.faults().clear();
    service.set_reach(Reach::Online);
    mount.sync();
    assert_eq!(names_in(&mount.at("dir")).len(), 4);
    mount.unmount();
}

/// Somebody looks into a folder that is not known when the mount ends.
fn ended_for_whoever_looks(end: impl FnOnce(&Home<'_>, &mut Mount<'_>) -> ExitStatus) {
    let service = with_folder();
    let home = Home::signed_in(&service);
    hold(&service, "delta");
    let mut mount = home.mount_args(PATIENT);
    assert_eq!(names_in(mount.path()), ["dir"]);
    let held = hold(&service, "children");
    let dir = mount.at("dir");
    let listing = Waiting::begin(&service, held, move || fs::read_dir(dir).map(drop));
    let start = Instant::now();
    let ended = end(&home, &mut mount);
    listing.was_told(start);
    assert!(ended.success(), "{ended}");
    assert!(!is_mounted(mount.path()));
}

#[test]
fn whoever_looks_into_a_folder_is_told_at_once_when_the_mount_ends() {
    if needs::met(&[Need::Fuse]) {
        ended_for_whoever_looks(|_, mount| mount.signal(Signal::TERM));
    }
}

#[test]
fn unmounting_frees_whoever_looks_into_a_folder() {
    if needs::met(&[Need::Fuse]) {
        ended_for_whoever_looks(|home, mount| {
            let path = mount.path().to_str().expect("UTF-8").to_owned();
            home.run(&["unmount", &path]).ok();
            mount.wait_end()
        });
    }
}

/// Starts a program that reads what the service does not send.
fn start_reading(home: &Home<'_>, rule: u64, path: PathBuf) -> Child {
    let before = home.service.faults().hits(rule);
    let mut command = home.program("cat");
    command
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn().expect("cat");
    wait::until("the reader waits", wait::secs(20), || {
        home.service.faults().hits(rule) > before
    });
    child
}

fn failed(reader: &mut Child) {
    let ended = process::wait(reader, wait::secs(20)).expect("the reader still waits");
    assert_eq!(ended.code(), Some(1));
}

fn unmounting_frees_readers(who: Who) {
    let service = with_folder();
    let home = Home::of(&service, who);
    home.log_in();
    let mut mount = home.mount_args(PATIENT);
    mount.sync();
    let path = mount.path().to_str().expect("UTF-8").to_owned();
    let held = hold(&service, "download");

    // A program that does more than wait is not overrun.
    let mut shell = home.program("sh");
    shell
        .args([
            "-c",
            r#"cd "$1" && echo there > "$2" && exec sleep 1000"#,
            "sh",
        ])
        .args([&path, home.work().join("there").to_str().expect("UTF-8")]);
    let mut user = shell.spawn().expect("sh");
    wait::until("the program in the mount", wait::secs(20), || {
        home.work().join("there").exists()
            && fs::read_to_string(format!("/proc/{}/comm", user.id())).is_ok_and(|c| c == "sleep\n")
    });
    let mut reader = start_reading(&home, held, mount.at("dir/0"));
    let reason = format!("is in use by sleep ({})", user.id());
    home.run(&["unmount", &path]).explained(1, &reason);
    failed(&mut reader);
    assert!(is_mounted(mount.path()));
    user.kill().expect("killed");
    user.wait().expect("ended");

    // Those who come afterwards wait again.
    let mut reader = start_reading(&home, held, mount.at("dir/1"));
    service.faults().remove(held);
    let read = process::wait(&mut reader, wait::secs(20)).expect("read");
    assert!(read.success(), "{read}");

    let held = hold(&service, "download");
    let mut reader = start_reading(&home, held, mount.at("dir/2"));
    let start = Instant::now();
    home.run(&["unmount", &path]).ok();
    assert!(start.elapsed() < AT_ONCE * 2, "{:?}", start.elapsed());
    failed(&mut reader);
    let ended = mount.wait_end();
    assert!(ended.success(), "{ended}");
    assert!(!is_mounted(mount.path()));
}

#[test]
fn unmounting_frees_readers_who_wait_and_leaves_programs_alone_that_do_more() {
    if needs::met(&[Need::Fuse]) {
        unmounting_frees_readers(Who::Me);
    }
}

#[test]
fn an_ordinary_user_can_unmount_while_readers_wait() {
    if needs::met(&[Need::FuseForUsers]) {
        unmounting_frees_readers(Who::Nobody);
    }
}

#[test]
fn whoever_waits_is_answered_before_the_machine_sleeps() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = with_folder();
    let home = Home::signed_in(&service);
    let logind = Logind::start(&service, &home.path("run"));
    let delta = hold(&service, "delta");
    let mount = home.mount_args(PATIENT);
    logind.wait_for_locks(1, wait::secs(20));
    assert_eq!(logind.held(), ["sleep onedrivefs delay"]);
    assert_eq!(names_in(mount.path()), ["dir"]);

    // Somebody looks into a folder, somebody reads.
    let children = hold(&service, "children");
    let dir = mount.at("dir");
    let listing = Waiting::begin(&service, children, move || fs::read_dir(dir).map(drop));
    let start = Instant::now();
    logind.prepare_for_sleep(true);
    listing.was_told(start);
    logind.wait_for_locks(0, wait::secs(20));
    // Nobody comes to wait in the moment that is left.
    let start = Instant::now();
    let error = fs::read_dir(mount.at("dir")).expect_err("about to sleep");
    assert_eq!(errno(&error), Some(Errno::NETDOWN), "{error}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    service.faults().remove(children);
    logind.prepare_for_sleep(false);
    logind.wait_for_locks(1, wait::secs(20));
    assert_eq!(names_in(&mount.at("dir")).len(), 4);
    service.faults().remove(delta);
    mount.sync();

    let download = hold(&service, "download");
    let file = mount.at("dir/0");
    let reader = Waiting::begin(&service, download, move || fs::read(file).map(drop));
    let start = Instant::now();
    logind.prepare_for_sleep(true);
    reader.was_told(start);
    logind.wait_for_locks(0, wait::secs(20));
    service.faults().remove(download);
    // What happened meanwhile is looked for at once, though the next look is minutes away.
    let looks = FaultRule::on("delta", FaultAction::Pass);
    let looks = service.faults().add(looks);
    logind.prepare_for_sleep(false);
    wait::until("a look for changes", AT_ONCE, || {
        service.faults().hits(looks) > 0
    });
    logind.wait_for_locks(1, wait::secs(20));
    assert_eq!(fs::read(mount.at("dir/0")).expect("read").len(), 900_000);
    mount.unmount();
    assert_eq!(logind.held(), [""; 0]);
}

/// A folder of many entries whose pages take a while each, on a drive that is not known.
fn with_slow_pages(each: Duration) -> Service {
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..MANY {
        let path = format!("/large/{number:05}");
        drive.put(&path, "x").expect("file");
    }
    hold(&service, "delta");
    let ms = u64::try_from(each.as_millis()).expect("a short while");
    // Not the listing of the root.
    let slow = FaultRule::on("children", FaultAction::Delay { ms }).after(1);
    service.faults().add(slow);
    service
}

#[test]
fn a_folder_of_ten_thousand_entries_is_waited_for_while_pages_come() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = with_slow_pages(Duration::from_millis(700));
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(names_in(mount.path()), ["large"]);
    let start = Instant::now();
    assert_eq!(names_in(&mount.at("large")).len(), MANY);
    // More than a single page may take.
    assert!(start.elapsed() > wait::secs(3), "{:?}", start.elapsed());
    mount.unmount();
}

#[test]
fn a_listing_takes_no_longer_than_a_read_however_many_pages_come() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = with_slow_pages(Duration::from_millis(1000));
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--option", "read_timeout=4"]);
    assert_eq!(names_in(mount.path()), ["large"]);
    times_out("listing", wait::secs(4), || {
        fs::read_dir(mount.at("large")).map(drop)
    });
    // It goes on behind, and is found done.
    wait::until("all of it", wait::secs(60), || {
        fs::read_dir(mount.at("large")).is_ok_and(|entries| entries.count() == MANY)
    });
    mount.unmount();
}
