//! Names and attributes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use onedrivefs_sim::FileBody;
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Service, wait};

use crate::floor;
use crate::measure::{
    self, LATENCY_MS, LINE, Scale, medians, medians_of, once, processor_time, quoted, ratio, tell,
    time,
};
use crate::rclone::Rclone;

/// Files in a folder of a drive that is walked.
const FOLDER: usize = 100;

/// Longest time until everything has arrived on the service.
const SENT_LIMIT: Duration = Duration::from_secs(300);

fn small(number: usize) -> (String, FileBody, i64) {
    let body = FileBody::Generated {
        seed: number as u64,
        size: 1000,
    };
    (format!("file {number:05}.txt"), body, 1_700_000_000_000)
}

/// Fills a drive with folders of small files.
fn fill(service: &Service, items: usize) {
    let drive = service.default_drive();
    for folder in 0..items.div_ceil(FOLDER) {
        let files = (0..FOLDER.min(items - folder * FOLDER)).map(small);
        drive
            .put_all(&format!("/walk/{folder:03}"), files)
            .expect("files");
    }
}

/// The same on the local disk.
fn fill_local(dir: &Path, items: usize) {
    for folder in 0..items.div_ceil(FOLDER) {
        let folder_dir = dir.join(format!("walk/{folder:03}"));
        fs::create_dir_all(&folder_dir).expect("folder");
        for number in 0..FOLDER.min(items - folder * FOLDER) {
            fs::write(folder_dir.join(small(number).0), [1; 1000]).expect("file");
        }
    }
}

pub fn lasting() -> MountSpec {
    MountSpec::lasting(3600)
}

/// Sets the line between the clients and the service.
pub fn set_line(service: &Service, slow: bool) {
    service.set_knobs(|knobs| {
        knobs.latency_ms = if slow { LATENCY_MS } else { 0 };
        knobs.line_bandwidth = if slow { LINE } else { 0 };
    });
}

/// A walk of everything that is known.
pub fn walk(scale: &Scale) {
    let service = Service::start();
    fill(&service, scale.items);
    let home = Home::signed_in(&service);
    let mut mount = home.mount_with(lasting());
    mount.sync();
    set_line(&service, true);
    let local = home.work().join("local");
    fill_local(&local, scale.items);
    let least = home.work().join("least");
    let folders = (0..scale.items.div_ceil(FOLDER)).map(|folder| format!("{folder:03}"));
    let names = (0..FOLDER).map(|number| small(number).0).collect();
    let content = local.join("walk/000").join(small(0).0);
    let floor = floor::mount_folders(folders.collect(), names, &content, &least);
    for (what, command) in [("find -ls", "find . -ls"), ("du", "du -s .")] {
        let run = |dir: &Path| measure::sh(&format!("cd {}; {command} > /dev/null", quoted(dir)));
        let before = service.last_request();
        let used = processor_time(mount.pid());
        let [ours, disk, floor_took] = medians_of(
            scale.runs,
            || measure::forget(false),
            [
                &mut || drop(run(&mount.at("walk"))),
                &mut || drop(run(&local.join("walk"))),
                &mut || drop(run(&least)),
            ],
        );
        let requests = service.last_request() - before;
        let used = processor_time(mount.pid()).saturating_sub(used) / scale.runs as u32;
        mount.unmount();
        mount = home.mount_with(lasting());
        let restarted = once(|| drop(run(&mount.at("walk"))));
        let peer = Rclone::mount(&service);
        let first = once(|| drop(run(&peer.at("walk"))));
        drop(peer);
        tell(
            &format!("{what} of {} items", scale.items),
            &format!(
                "{} ({requests} requests; {} of the daemon; right after a restart {})",
                time(ours),
                time(used),
                time(restarted)
            ),
            &[
                ("ext4", time(disk)),
                ("the least possible", time(floor_took)),
                ("rclone's first", time(first)),
            ],
            &format!(
                "{:.2} x ext4 (goal 1.5; the least possible {:.2}), {:.0} x faster than rclone (goal 20)",
                ratio(ours, disk),
                ratio(floor_took, disk),
                ratio(first, ours)
            ),
        );
    }
    floor.umount_and_join().expect("unmounted");
    mount.unmount();
}

/// `stat` of one entry again and again.
pub fn stat(scale: &Scale) {
    let service = Service::start();
    service.default_drive().put("/file", "x").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    let local = home.work().join("file");
    fs::write(&local, "x").expect("file");
    let many = |path: &Path| {
        for _ in 0..scale.calls {
            assert!(fs::symlink_metadata(path).is_ok());
        }
    };
    let [ours, disk] = medians(
        scale.runs,
        || (),
        || many(&mount.at("file")),
        || many(&local),
    );
    let each = |took: Duration| format!("{:.0} ns", took.as_secs_f64() * 1e9 / scale.calls as f64);
    tell(
        "stat of a cached entry",
        &each(ours),
        &[("ext4", each(disk))],
        &format!("{:.2} of ext4's speed (goal 0.85)", ratio(disk, ours)),
    );
    mount.unmount();
}

/// One large folder.
pub fn list(scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    drive
        .put_all("/large", (0..scale.items).map(small))
        .expect("files");
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    let local = home.work().join("large");
    fs::create_dir(&local).expect("folder");
    for number in 0..scale.items {
        fs::write(local.join(small(number).0), "x").expect("file");
    }
    let attributes = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("folder");
        let seen = entries.map(|entry| entry.expect("entry").metadata().expect("metadata"));
        assert_eq!(seen.count(), scale.items);
    };
    let least = home.work().join("least");
    let names = (0..scale.items).map(|number| small(number).0).collect();
    let floor = floor::mount(names, &local.join(small(0).0), &least);
    let used = processor_time(mount.pid());
    let [ours, disk, floor_took] = medians_of(
        // They differ more from run to run than others do.
        3 * scale.runs,
        || measure::forget(false),
        [
            &mut || attributes(&mount.at("large")),
            &mut || attributes(&local),
            &mut || attributes(&least),
        ],
    );
    floor.umount_and_join().expect("unmounted");
    let used = processor_time(mount.pid()).saturating_sub(used) / (3 * scale.runs) as u32;
    tell(
        &format!("names and attributes of {} entries", scale.items),
        &format!("{} ({} of the daemon)", time(ours), time(used)),
        &[
            ("ext4", time(disk)),
            ("the least possible", time(floor_took)),
        ],
        &format!(
            "{:.2} of ext4's time (goal 0.75; the least possible {:.2})",
            ratio(ours, disk),
            ratio(floor_took, disk)
        ),
    );
    mount.unmount();
}

/// Names that change, over a slow line.
pub fn change(scale: &Scale) {
    let service = Service::start();
    let home = Home::signed_in(&service);
    // Most of what is here is removed at once, and means to be.
    home.configure("hold_deletions = 0\nhold_share = 0\n");
    let mount = home.mount_with(lasting());
    mount.sync();
    set_line(&service, true);
    let count = (scale.calls / 2000).max(5);
    let peer = Rclone::mount(&service);
    let drive = service.default_drive();
    // What is renamed and removed is on the service, as most files are.
    let arrived = |folder: &str, count: usize| {
        wait::until("files on the service", SENT_LIMIT, || {
            (0..count).all(|n| drive.entry(&format!("/{folder}/f {n}")).is_some())
        });
    };
    let ours = changes(&mount.at("ours"), count, || arrived("ours", count));
    let few = count.min(10);
    let theirs = changes(&peer.at("theirs"), few, || arrived("theirs", few));
    let disk = changes(&home.work().join("disk"), count, || ());
    for (at, what) in ["mkdir", "rename", "unlink"].into_iter().enumerate() {
        tell(
            &format!("{what} over {LATENCY_MS} ms"),
            &time(ours[at]),
            &[("ext4", time(disk[at])), ("rclone", time(theirs[at]))],
            &format!(
                "goal 300 us; {:.0} x rclone (goal 100)",
                ratio(theirs[at], ours[at])
            ),
        );
    }
    drop(peer);
    mount.wait_sent(SENT_LIMIT);
    mount.unmount();
}

/// Medians of mkdir, rename and unlink, in a folder that is made for them.
fn changes(dir: &Path, count: usize, arrived: impl Fn()) -> [Duration; 3] {
    fs::create_dir(dir).expect("folder");
    let at = |name: &str, number: usize| dir.join(format!("{name} {number}"));
    let each = |work: &dyn Fn(usize)| {
        let mut took: Vec<Duration> = (0..count).map(|n| once(|| work(n))).collect();
        took.sort_unstable();
        took[took.len() / 2]
    };
    let mkdir = each(&|n| fs::create_dir(at("d", n)).expect("mkdir"));
    for n in 0..count {
        fs::write(at("f", n), "x").expect("file");
    }
    arrived();
    let rename = each(&|n| fs::rename(at("f", n), at("g", n)).expect("rename"));
    let unlink = each(&|n| fs::remove_file(at("g", n)).expect("unlink"));
    [mkdir, rename, unlink]
}

/// An archive of small files.
pub fn tar(scale: &Scale) {
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    let source = home.make_dir("source");
    fs::create_dir(source.join("t")).expect("folder");
    for number in 0..scale.archived {
        let bytes = vec![u8::try_from(number % 251).unwrap_or(0); 4096];
        fs::write(source.join(format!("t/{number}")), bytes).expect("file");
    }
    let archive = home.path("t.tar");
    let (from, tar) = (quoted(&source), quoted(&archive));
    measure::sh(&format!("tar -C {from} -cf {tar} t"));
    set_line(&service, true);
    let drive = service.default_drive();
    let unpack = |dir: &Path, name: &str| {
        let dir = dir.join(name);
        fs::create_dir(&dir).expect("folder");
        let to = quoted(&dir);
        once(|| drop(measure::sh(&format!("tar -C {to} -xf {tar}"))))
    };
    // The files, their folder, and the one that holds it.
    let all = scale.archived as u64 + 2;
    let arrived = |before: u64| {
        wait::until("files on the service", SENT_LIMIT, || {
            drive.count() >= before + all
        });
    };
    let disk = unpack(&home.work(), "disk");
    let (before, start) = (drive.count(), std::time::Instant::now());
    let ours = unpack(mount.path(), "ours");
    arrived(before);
    let ours_there = start.elapsed();
    let peer = Rclone::mount(&service);
    let (before, start) = (drive.count(), std::time::Instant::now());
    let theirs = unpack(&peer.at(""), "theirs");
    arrived(before);
    let theirs_there = start.elapsed();
    drop(peer);
    tell(
        &format!("tar x of {} files", scale.archived),
        &time(ours),
        &[("ext4", time(disk)), ("rclone", time(theirs))],
        "goal 500 ms",
    );
    tell(
        "  until all are on the service",
        &time(ours_there),
        &[("rclone", time(theirs_there))],
        &format!(
            "{:.2} of rclone's time (goal 0.33)",
            ratio(ours_there, theirs_there)
        ),
    );
    finish(mount);
}

/// Ends a mount after everything was sent.
pub fn finish(mount: Mount<'_>) {
    mount.wait_sent(SENT_LIMIT);
    mount.unmount();
}
