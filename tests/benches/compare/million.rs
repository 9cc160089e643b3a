//! A drive with very many items.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_sim::FileBody;
use onedrivefs_tests::{Home, Service, wait};

use crate::measure::{self, Scale, once, quoted, resident_mib, tell, time};
use crate::names::lasting;

/// Files in each folder.
const FOLDER: usize = 1000;

/// Folders in each folder above them.
const ABOVE: usize = 100;

/// Pause between two looks whether everything is known.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest time for an enumeration.
const ENUMERATION_LIMIT: Duration = Duration::from_secs(900);

fn folder(number: usize) -> String {
    format!("f{:02}/g{:02}", number / ABOVE, number % ABOVE)
}

fn file(number: usize) -> String {
    format!("file number {number}")
}

/// Enumeration, start, and lookups of a drive with very many items.
pub fn million(scale: &Scale) {
    let service = Service::start();
    let drive = service.default_drive();
    let folders = scale.million.div_ceil(FOLDER);
    for number in 0..folders {
        let files = (0..FOLDER).map(|n| {
            let body = FileBody::Generated {
                seed: n as u64,
                size: 1000,
            };
            (file(n), body, 1_700_000_000_000)
        });
        drive
            .put_all(&format!("/{}", folder(number)), files)
            .expect("files");
    }
    // The folder at the top counts there and not here.
    let items = drive.count() - 1;
    let home = Home::signed_in(&service);
    let start = Instant::now();
    let mut mount = home.mount_with(lasting());
    let listed = once(|| assert!(fs::read_dir(mount.path()).expect("root").count() > 0));
    let known = || {
        // Asking counts a million rows by then: not all the time.
        std::thread::sleep(LOOK_EVERY);
        let status = mount.status();
        status["state"] == "online" && status["items"].as_u64() >= Some(items)
    };
    wait::until("the whole drive known", ENUMERATION_LIMIT, known);
    let took = start.elapsed();
    tell(
        &format!("first enumeration of {items} items"),
        &format!(
            "{:.0} items/s (first ls of the root {}, at most {} MiB resident)",
            items as f64 / took.as_secs_f64(),
            time(listed),
            mount.peak_memory_bytes() >> 20
        ),
        &[],
        "goal 20,000 items/s, 1 s, flat",
    );
    mount.unmount();

    measure::forget(true);
    let begun = Instant::now();
    mount = home.mount_with(lasting());
    let up = begun.elapsed();
    let listed = once(|| assert!(fs::read_dir(mount.path()).expect("root").count() > 0));
    let resident = resident_mib(mount.pid());
    let walked = once(|| {
        drop(measure::sh(&format!(
            "find {} > /dev/null",
            quoted(mount.path())
        )));
    });
    tell(
        &format!("mount with {items} items known"),
        &format!(
            "first ls {} ({} after the command), {resident} MiB resident; after a walk of {} {} MiB",
            time(listed),
            time(up + listed),
            time(walked),
            resident_mib(mount.pid())
        ),
        &[],
        "goals 200 ms, 60 MiB, 100 MiB",
    );
    for clients in [1, 2] {
        measure::forget(false);
        let (count, took) = lookups(mount.path(), folders, clients);
        tell(
            &format!("cold lookups, {clients} at a time"),
            &format!("{:.0} per second", count as f64 / took.as_secs_f64()),
            &[],
            if clients == 1 {
                "goal 30,000"
            } else {
                "goal 100,000"
            },
        );
    }
    mount.unmount();
}

/// Looks up files that the kernel does not know, for some seconds.
fn lookups(mount: &Path, folders: usize, clients: usize) -> (u64, Duration) {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    let until = Duration::from_secs(5);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let count = &count;
            scope.spawn(move || {
                for number in (client..folders).step_by(clients) {
                    let dir = mount.join(folder(number));
                    for n in 0..FOLDER {
                        assert!(fs::symlink_metadata(dir.join(file(n))).is_ok());
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    if start.elapsed() > until {
                        return;
                    }
                }
            });
        }
    });
    (count.load(Ordering::Relaxed), start.elapsed())
}
