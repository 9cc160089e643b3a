//! A service that accepts and never answers: whatever needs no bytes from it stays as quick as a
//! disk, and whoever waits is told in time.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use onedrivefs_sim::{FileBody, Reach};
use onedrivefs_tests::{Home, Need, Service, needs, wait};
use rustix::process::Signal;

/// How often each call is made.
const ROUNDS: usize = 25;

/// Longest time of a call that needs nothing from the service. On a quiet machine it is a
/// hundredth of this.
const LOCAL_MAX: Duration = Duration::from_secs(1);

/// What programs do; each with the number of the round.
type Call = (&'static str, fn(&Path, usize) -> std::io::Result<()>);

const CALLS: &[Call] = &[
    ("stat", |m, _| fs::metadata(m.join("dir/cached")).map(drop)),
    ("stat of what is not here", |m, _| {
        fs::metadata(m.join("dir/big 1")).map(drop)
    }),
    ("stat of nothing", |m, n| {
        assert!(!m.join(format!("dir/none {n}")).exists());
        Ok(())
    }),
    ("readdir", |m, _| {
        fs::read_dir(m.join("dir")).map(|d| assert!(d.count() > 3))
    }),
    ("statfs", |m, _| Ok(rustix::fs::statvfs(m).map(drop)?)),
    ("cached read", |m, _| {
        fs::read(m.join("dir/cached")).map(drop)
    }),
    ("mkdir", |m, n| fs::create_dir(m.join(format!("d{n}")))),
    ("write and close", |m, n| {
        fs::write(m.join(format!("d{n}/new")), b"new")
    }),
    ("append and close", |m, n| {
        let mut file = File::options()
            .append(true)
            .open(m.join(format!("d{n}/new")))?;
        file.write_all(b"more")
    }),
    ("write and fsync", |m, n| {
        let mut file = File::create(m.join(format!("d{n}/synced")))?;
        file.write_all(b"synced")?;
        file.sync_all()
    }),
    ("rename", |m, n| {
        fs::rename(m.join(format!("d{n}/new")), m.join(format!("d{n}/renamed")))
    }),
    ("rename of a folder", |m, n| {
        fs::rename(m.join(format!("d{n}")), m.join(format!("e{n}")))
    }),
    ("unlink", |m, n| {
        fs::remove_file(m.join(format!("e{n}/renamed")))
    }),
    ("unlink of what the service has", |m, n| {
        fs::remove_file(m.join(format!("dir/old {n}")))
    }),
];

/// The call whose time is that of the disk below.
const WAITS_FOR_THE_DISK: &str = "write and fsync";

/// Prints how long calls took.
fn tell(what: &str, took: &mut [Duration]) {
    took.sort();
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{what}, {} times: p50 {half:?}, p99 {most:?}", took.len());
}

#[test]
fn a_black_hole_slows_nothing_that_needs_no_bytes() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/cached", "cached").expect("file");
    for n in 0..ROUNDS {
        drive.put(&format!("/dir/old {n}"), "old").expect("file");
    }
    for n in 0..4 {
        let body = FileBody::Generated {
            seed: n,
            size: 900_000,
        };
        drive.put(&format!("/dir/big {n}"), body).expect("file");
    }
    let home = Home::signed_in(&service);
    let options = [
        "--option",
        "read_timeout=3",
        "--option",
        "metadata_timeout=1",
    ];
    let mut mount = home.mount_args(&options);
    mount.sync();
    fs::read(mount.at("dir/cached")).expect("cached");
    service.set_reach(Reach::BlackHole);

    let waiting = |n: usize| {
        let path = mount.at(&format!("dir/big {n}"));
        thread::spawn(move || {
            let start = Instant::now();
            (fs::read(path).is_err(), start.elapsed())
        })
    };
    // Readers wait all the while, which must hold nobody up.
    let readers: Vec<_> = (0..3).map(waiting).collect();
    let mut all = Vec::new();
    for (name, call) in CALLS {
        let mut each = Vec::new();
        for n in 0..ROUNDS {
            let start = Instant::now();
            call(mount.path(), n).unwrap_or_else(|error| panic!("{name}: {error}"));
            let took = start.elapsed();
            assert!(took < LOCAL_MAX, "{name} took {took:?}");
            each.push(took);
        }
        tell(name, &mut each);
        if *name != WAITS_FOR_THE_DISK {
            all.append(&mut each);
        }
    }
    tell("all but fsync", &mut all);
    let mut plain = Vec::new();
    for n in 0..ROUNDS {
        let start = Instant::now();
        let mut file = File::create(home.path(&format!("plain {n}"))).expect("local file");
        file.write_all(b"synced").expect("written");
        file.sync_all().expect("synced");
        plain.push(start.elapsed());
    }
    tell("write and fsync on the disk below", &mut plain);
    for reader in readers {
        let (failed, took) = reader.join().expect("reader");
        assert!(
            failed && took < wait::secs(8),
            "a read ended after {took:?}"
        );
    }
    let start = Instant::now();
    assert!(mount.status()["pending"]["ops"].as_u64() > Some(0));
    assert!(start.elapsed() < wait::secs(5), "{:?}", start.elapsed());

    // Whoever waits when the daemon is told to end is let go.
    let path = mount.at("dir/big 3");
    let reader = thread::spawn(move || fs::read(path).is_err());
    thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    assert!(mount.signal(Signal::TERM).success());
    assert!(start.elapsed() < wait::secs(15), "{:?}", start.elapsed());
    assert!(reader.join().expect("reader"));
    drop(mount);

    // All of it arrives once there is somebody to hear it.
    service.set_reach(Reach::Online);
    let mount = home.mount_args(&options);
    mount.sync();
    onedrivefs_tests::tree::assert_in_step(mount.path(), &drive);
    assert!(drive.exists("/e3/synced") && !drive.exists("/dir/old 3"));
    mount.unmount();
}
