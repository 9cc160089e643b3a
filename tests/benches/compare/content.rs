//! Content.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use onedrivefs_sim::FileBody;
use onedrivefs_tests::{Home, Service, wait};

use crate::floor;
use crate::measure::{
    self, LATENCY_MS, Scale, median, medians, medians_of, once, quoted, ratio, speed, tell, time,
};
use crate::names::{finish, lasting, set_line};

/// Size of a file of which little is read or changed, in bytes.
const HUGE: u64 = 10 << 30;

/// Bytes of one read of a program that reads a file through.
const CHUNK: usize = 1 << 20;

/// Longest time until something large has arrived on the service.
const SENT_LIMIT: Duration = Duration::from_secs(600);

fn generated(seed: u64, size: u64) -> FileBody {
    FileBody::Generated { seed, size }
}

/// Writes a file of a size.
fn write_file(path: &Path, size: u64) {
    let mut file = File::create(path).expect("file");
    let block: Vec<u8> = (0..CHUNK)
        .map(|n| u8::try_from(n % 251).unwrap_or(0))
        .collect();
    let mut left = size;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(&block[..count]).expect("written");
        left -= count as u64;
    }
}

/// Reads a file through.
fn read_file(path: &Path) -> u64 {
    let mut file = File::open(path).expect("file");
    let mut block = vec![0; CHUNK];
    let mut all = 0;
    loop {
        match file.read(&mut block).expect("read") {
            0 => return all,
            count => all += count as u64,
        }
    }
}

/// Reads a file through, for the time it takes.
fn read_through(path: &Path) {
    assert!(read_file(path) > 0);
}

/// A large file is copied into the mount, and sent.
pub fn write(scale: &Scale) {
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    let source = home.work().join("source");
    write_file(&source, scale.large);
    let mut number = 0;
    let mut copy = |dir: &Path| {
        number += 1;
        let (from, to) = (quoted(&source), quoted(&dir.join(format!("copy {number}"))));
        measure::sh(&format!("cp {from} {to}"));
    };
    let disk = median(scale.runs.min(3), rustix::fs::sync, || copy(&home.work()));
    // A copy does not compete with the sending of the one before, but its own goes on meanwhile.
    let ready = || {
        mount.wait_sent(SENT_LIMIT);
        rustix::fs::sync();
    };
    let ours = median(scale.runs.min(3), ready, || copy(mount.path()));
    mount.wait_sent(SENT_LIMIT);
    tell(
        &format!("cp of {} MiB into the mount", scale.large >> 20),
        &format!(
            "{} (at most {} MiB resident)",
            time(ours),
            mount.peak_memory_bytes() >> 20
        ),
        &[("ext4", time(disk))],
        &format!("{:.2} of ext4's speed (goal 0.5)", ratio(disk, ours)),
    );
    set_line(&service, true);
    let source = home.work().join("sent");
    write_file(&source, scale.sent);
    let drive = service.default_drive();
    let there = |name: &str| drive.entry(name).is_some_and(|e| e.size == scale.sent);
    let (from, to) = (quoted(&source), quoted(&mount.at("sent")));
    measure::sh(&format!("cp {from} {to}"));
    // With the second for which every change rests first.
    let start = Instant::now();
    wait::until("the file on the service", SENT_LIMIT, || there("/sent"));
    let sent = start.elapsed();
    let line = upload_by_curl(&service, &source);
    tell(
        &format!(
            "upload of {} MiB over 200 Mbit/s, {LATENCY_MS} ms",
            scale.sent >> 20
        ),
        &format!("{:.1} MB/s", speed(scale.sent, sent)),
        &[("curl", format!("{:.1} MB/s", speed(scale.sent, line)))],
        &format!("{:.2} of curl's speed (goal 0.9)", ratio(line, sent)),
    );
    finish(mount);
}

/// What curl needs for the same bytes: one fragment after the other, as the service wants them.
fn upload_by_curl(service: &Service, source: &Path) -> Duration {
    const FRAGMENT: u64 = 32 * 327_680;
    let drive = service.default_drive();
    let token = service.access_token();
    let made = measure::sh(&format!(
        "curl -sf -X POST -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
         -d '{{}}' '{}/drives/{}/root:/curl:/createUploadSession'",
        service.graph_url(),
        drive.id(),
    ));
    let made: serde_json::Value = serde_json::from_str(&made).expect("session");
    let url = made["uploadUrl"].as_str().expect("address");
    let size = fs::metadata(source).expect("source").len();
    let mut file = File::open(source).expect("source");
    let part = source.with_extension("part");
    let mut config = String::new();
    let mut at = 0;
    // All fragments by one process, on one connection.
    while at < size {
        let end = (at + FRAGMENT).min(size);
        let path = part.with_extension(format!("{at}"));
        let mut bytes = vec![0; usize::try_from(end - at).expect("small")];
        file.seek(SeekFrom::Start(at)).expect("seek");
        file.read_exact(&mut bytes).expect("read");
        fs::write(&path, bytes).expect("part");
        if at > 0 {
            config.push_str("next\n");
        }
        config.push_str(&format!(
            "url = \"{url}\"\nupload-file = \"{}\"\nheader = \"Content-Range: bytes {at}-{}/{size}\"\n\
             header = \"Expect:\"\noutput = \"/dev/null\"\nsilent\nfail\n",
            path.display(),
            end - 1,
        ));
        at = end;
    }
    let file = source.with_extension("curl");
    fs::write(&file, config).expect("configuration");
    once(|| drop(measure::sh(&format!("curl -K {}", quoted(&file)))))
}

/// A large file that is not here is read through.
pub fn read(scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..2 * scale.runs {
        drive
            .put(&format!("/{number}"), generated(number as u64, scale.sent))
            .expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    set_line(&service, true);
    let url = |number: usize| {
        let token = service.access_token();
        let api = service.graph_url();
        let id = drive.entry(&format!("/{number}")).expect("file").id;
        format!(
            "-H 'Authorization: Bearer {token}' '{api}/drives/{}/items/{id}/content'",
            drive.id()
        )
    };
    let mut number = 0;
    let ours = median(
        scale.runs.min(3),
        || (),
        || {
            assert_eq!(read_file(&mount.at(&format!("{number}"))), scale.sent);
            number += 1;
        },
    );
    let theirs = median(
        scale.runs.min(3),
        || (),
        || {
            measure::sh(&format!("curl -sfL -o /dev/null {}", url(0)));
        },
    );
    tell(
        &format!(
            "read of {} MiB over 200 Mbit/s, {LATENCY_MS} ms",
            scale.sent >> 20
        ),
        &format!("{:.1} MB/s", speed(scale.sent, ours)),
        &[("curl", format!("{:.1} MB/s", speed(scale.sent, theirs)))],
        &format!("{:.2} of curl's speed (goal 0.9)", ratio(theirs, ours)),
    );
    let first = median(
        scale.runs,
        || (),
        || {
            let file = File::open(mount.at(&format!("{number}"))).expect("file");
            file.read_exact_at(&mut [0; 1], 0).expect("first byte");
            number += 1;
            if number == 2 * scale.runs {
                number = scale.runs;
            }
        },
    );
    let trip = Duration::from_millis(LATENCY_MS);
    tell(
        "first byte of a file that is not here",
        &time(first),
        &[],
        &format!("{:.1} round trips (goal 2)", ratio(first, trip)),
    );
    mount.unmount();
}

/// A little of a huge file.
pub fn random(scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/huge", generated(7, HUGE)).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_with(lasting());
    mount.sync();
    set_line(&service, true);
    let file = File::open(mount.at("huge")).expect("file");
    let (requests, bytes) = (service.last_request(), service.downloaded_bytes());
    let mut place: u64 = 0x1234_5678_9abc;
    let reads = 4 * scale.runs as u64;
    let mut first = None;
    let took = median(
        4 * scale.runs,
        || (),
        || {
            place = place
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (place >> 16) % (HUGE / 4096) * 4096;
            let took = once(|| file.read_exact_at(&mut [0; 4096], at).expect("read"));
            first.get_or_insert(took);
        },
    );
    let trip = Duration::from_millis(LATENCY_MS);
    tell(
        "4 KiB somewhere in a file of 10 GiB",
        &format!(
            "{} (first {}; {:.1} requests and {} KiB each)",
            time(took),
            time(first.unwrap_or_default()),
            (service.last_request() - requests) as f64 / reads as f64,
            (service.downloaded_bytes() - bytes) / reads / 1024,
        ),
        &[],
        &format!("{:.1} round trips (goal 2)", ratio(took, trip)),
    );
    drop(file);
    mount.unmount();
}

/// Content that is here, which the kernel reads by itself, or asks for.
pub fn here(scale: &Scale) {
    here_read("auto", "with passthrough, ", [0.95, 0.8, 0.95], scale);
    here_read("off", "", [0.9, 0.0, 0.0], scale);
}

fn here_read(passthrough: &str, how: &str, goals: [f64; 3], scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    drive
        .put("/large", generated(3, scale.large))
        .expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount_with(onedrivefs_tests::mount::MountSpec {
        arguments: ["--option", &format!("passthrough={passthrough}")]
            .map(str::to_owned)
            .to_vec(),
        ..lasting()
    });
    mount.sync();
    let (theirs, local) = (mount.at("large"), home.work().join("large"));
    assert_eq!(read_file(&theirs), scale.large);
    wait::until("the whole file here", SENT_LIMIT, || {
        mount.status_of("large")["status"] == "cached"
    });
    fs::copy(&theirs, &local).expect("copy");
    let cold = || measure::forget(true);
    let least = home.work().join("least");
    let floor = floor::mount(vec!["file".to_owned()], &local, &least);
    let [ours, disk, floor_took] = medians_of(
        // A disk that others use as well has a speed of the moment.
        3 * scale.runs,
        cold,
        [
            &mut || read_through(&theirs),
            &mut || read_through(&local),
            &mut || read_through(&least.join("file")),
        ],
    );
    floor.umount_and_join().expect("unmounted");
    tell(
        &format!("read of {} MiB that is here, disk cold", scale.large >> 20),
        &format!("{how}{:.0} MB/s", speed(scale.large, ours)),
        &[
            ("ext4", format!("{:.0} MB/s", speed(scale.large, disk))),
            (
                "the least possible",
                format!("{:.0} MB/s", speed(scale.large, floor_took)),
            ),
        ],
        &format!(
            "{:.2} of ext4's speed (goal {}; the least possible without passthrough {:.2})",
            ratio(disk, ours),
            goals[0],
            ratio(disk, floor_took)
        ),
    );
    here_in_memory(how, &home, [&theirs, &local], scale);
    let place = Cell::new(99_u64);
    let random = |path: &Path| {
        let file = File::open(path).expect("file");
        for _ in 0..scale.calls / 50 {
            let next = place.get().wrapping_mul(6_364_136_223_846_793_005);
            place.set(next.wrapping_add(1));
            let at = (place.get() >> 16) % (scale.large / 4096) * 4096;
            file.read_exact_at(&mut [0; 4096], at).expect("read");
        }
    };
    let [ours, disk] = medians(scale.runs, cold, || random(&theirs), || random(&local));
    tell(
        &format!("  {} reads of 4 KiB, disk cold", scale.calls / 50),
        &format!("{how}{}", time(ours)),
        &[("ext4", time(disk))],
        &format!("{:.2} of ext4's speed{}", ratio(disk, ours), goal(goals[1])),
    );
    let sent = || {
        mount.sync();
        wait::until("nothing to send", SENT_LIMIT, || {
            mount.status_of("large")["status"] == "cached"
        });
        cold();
        read_file(&local);
        read_file(&theirs);
    };
    let size = scale.large;
    let [ours, disk] = medians(
        scale.runs,
        sent,
        || overwrite(&theirs, size),
        || overwrite(&local, size),
    );
    tell(
        &format!("  overwriting {} MiB", size >> 20),
        &format!("{how}{:.0} MB/s", speed(size, ours)),
        &[("ext4", format!("{:.0} MB/s", speed(size, disk)))],
        &format!("{:.2} of ext4's speed{}", ratio(disk, ours), goal(goals[2])),
    );
    mount.unmount();
}

/// A goal as it is told; none is zero.
fn goal(goal: f64) -> String {
    if goal > 0.0 {
        format!(" (goal {goal})")
    } else {
        String::new()
    }
}

/// Replaces all bytes of a file, and closes it.
fn overwrite(path: &Path, size: u64) {
    let mut file = File::options().write(true).open(path).expect("file");
    let block = vec![7; CHUNK];
    for _ in 0..size / CHUNK as u64 {
        file.write_all(&block).expect("write");
    }
}

/// What is in the page cache of the disk, and not in that of the mount; then what is in both.
fn here_in_memory(how: &str, home: &Home<'_>, paths: [&Path; 2], scale: &Scale) {
    let [theirs, local] = paths;
    let body = measure::sh(&format!(
        "find {} -type f -size +{}k -path '*content*' | head -1",
        quoted(&home.path("cache")),
        scale.large / 2048,
    ));
    let in_memory = || {
        measure::forget(true);
        read_file(Path::new(body.trim()));
    };
    let first = median(scale.runs, in_memory, || read_through(theirs));
    read_file(local);
    let [next, page] = medians(
        scale.runs,
        || (),
        || read_through(theirs),
        || read_through(local),
    );
    tell(
        "  in memory",
        &format!(
            "{how}{:.0} MB/s, then {:.0} MB/s",
            speed(scale.large, first),
            speed(scale.large, next)
        ),
        &[("ext4", format!("{:.0} MB/s", speed(scale.large, page)))],
        &format!(
            "goal 2000 MB/s; then {:.2} of ext4's speed",
            ratio(page, next)
        ),
    );
}

/// One byte of a huge file of which nothing is here.
pub fn edit(scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..scale.runs {
        drive
            .put(&format!("/{number}"), generated(number as u64, HUGE))
            .expect("file");
    }
    let home = Home::signed_in(&service);
    // What is changed is not sent while this is measured: that would move all of it.
    let mount = home.mount_with(onedrivefs_tests::mount::MountSpec {
        arguments: ["--option", "upload_delay=3600000"]
            .map(str::to_owned)
            .to_vec(),
        ..lasting()
    });
    mount.sync();
    set_line(&service, true);
    let mut number = 0;
    let ours = median(
        scale.runs,
        || (),
        || {
            let path = mount.at(&format!("{number}"));
            let file = File::options().write(true).open(path).expect("file");
            file.write_all_at(b"!", HUGE / 2).expect("written");
            number += 1;
        },
    );
    tell(
        "one byte changed in a file of 10 GiB",
        &time(ours),
        &[],
        "goal 10 ms for open, write and close",
    );
    mount.unmount();
}
