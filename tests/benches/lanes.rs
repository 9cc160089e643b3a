//! How much a read slows down while ten thousand uploads wait.
//!
//! ```text
//! cargo bench --workspace --bench lanes -- [READS] [UPLOADS]
//! ```
//!
//! Needs `cargo build --release -p onedrivefs` first, or `ONEDRIVEFS_TEST_BIN_DIR`. The service is
//! simulated behind a line of 40 ms and 200 Mbit/s. Every read is of a small file of which nothing
//! is here.

use std::fs;
use std::time::{Duration, Instant};

use onedrivefs_sim::FileBody;
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Need, Service, needs};

/// Emulated delay of every answer, in milliseconds.
const LATENCY_MS: u64 = 40;

/// Emulated speed of the line, in bytes per second each way: 200 Mbit/s.
const LINE: u64 = 25_000_000;

/// Size of the files that are read, in bytes.
const READ: u64 = 64 << 10;

/// Size of the files that are uploaded, in bytes.
const UPLOAD: usize = 64 << 10;

fn main() {
    // `cargo bench` adds an option of its own.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let reads = numbers.next().unwrap_or(200);
    let uploads = numbers.next().unwrap_or(10_000);
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..reads * 2 {
        let body = FileBody::Generated {
            seed: number,
            size: READ,
        };
        drive.put(&format!("/read/{number}"), body).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec {
        limit: Duration::from_secs(600 + uploads / 5),
        ..MountSpec::default()
    });
    mount.sync();
    service.set_knobs(|knobs| {
        knobs.latency_ms = LATENCY_MS;
        knobs.line_bandwidth = LINE;
    });
    let idle = delays(&mount, 0..reads);
    fs::create_dir(mount.at("new")).expect("folder");
    let content = vec![7; UPLOAD];
    for number in 0..uploads {
        fs::write(mount.at(&format!("new/{number}")), &content).expect("written");
    }
    let before = waiting(&mount);
    let busy = delays(&mount, reads..reads * 2);
    let after = waiting(&mount);
    println!("{reads} reads of {READ} bytes at {LATENCY_MS} ms and 200 Mbit/s");
    println!("idle                      {}", figures(&idle));
    println!("{before:>5} to {after:>5} uploads wait  {}", figures(&busy));
    println!(
        "slowdown at p95: {:.2}",
        percentile(&busy, 95).as_secs_f64() / percentile(&idle, 95).as_secs_f64()
    );
    assert!(after > 0, "the uploads were done before the reads");
}

/// Reads each file once and returns how long that took, shortest first.
fn delays(mount: &Mount<'_>, numbers: std::ops::Range<u64>) -> Vec<Duration> {
    let read = |number: u64| {
        let begun = Instant::now();
        let got = fs::read(mount.at(&format!("read/{number}"))).expect("read");
        assert_eq!(got.len() as u64, READ);
        begun.elapsed()
    };
    let mut delays: Vec<_> = numbers.map(read).collect();
    delays.sort_unstable();
    delays
}

/// Changes that wait to be sent.
fn waiting(mount: &Mount<'_>) -> u64 {
    mount.status()["pending"]["ops"].as_u64().unwrap_or(0)
}

fn percentile(delays: &[Duration], percent: usize) -> Duration {
    delays[(delays.len() * percent / 100).min(delays.len() - 1)]
}

fn figures(delays: &[Duration]) -> String {
    let ms = |percent| percentile(delays, percent).as_secs_f64() * 1000.0;
    format!(
        "p50 {:6.1} ms   p95 {:6.1} ms   p99 {:6.1} ms",
        ms(50),
        ms(95),
        ms(99)
    )
}
