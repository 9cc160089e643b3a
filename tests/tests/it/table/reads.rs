//! Downloads that go wrong: what a program reads is right, or it is told that it is not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use onedrivefs_sim::{DriveKind, FaultAction, FaultRule, FileBody};
use onedrivefs_tests::{Home, Mount, Need, needs, wait};

use super::service;
use crate::files;

/// One case.
struct Fault {
    name: &'static str,
    action: FaultAction,
    /// How often it happens.
    times: u64,
    /// Size of the file in bytes.
    size: usize,
    /// Whether the first read succeeds all the same.
    mended: bool,
}

fn header(name: &str, value: &str) -> FaultAction {
    FaultAction::Header {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    }
}

fn faults() -> Vec<Fault> {
    let fault = |name, action, times, size, mended| Fault {
        name,
        action,
        times,
        size,
        mended,
    };
    vec![
        fault(
            "truncated",
            FaultAction::Truncate { bytes: 1000 },
            2,
            300_000,
            true,
        ),
        fault(
            "cut at once",
            FaultAction::Truncate { bytes: 0 },
            1,
            300_000,
            true,
        ),
        fault("dropped", FaultAction::DropBefore, 2, 300_000, true),
        fault(
            "corrupt, small",
            FaultAction::Corrupt { offset: 77 },
            1,
            100_000,
            true,
        ),
        fault(
            "corrupt, larger",
            FaultAction::Corrupt { offset: 77 },
            1,
            3_000_000,
            false,
        ),
        fault(
            "stalled in the middle",
            FaultAction::StallBody { bytes: 5000 },
            1,
            300_000,
            false,
        ),
        fault("stalled at once", FaultAction::Stall, 1, 300_000, false),
        fault("expired address", FaultAction::ExpireUrls, 1, 300_000, true),
        fault("401", FaultAction::status(401), 1, 300_000, true),
        fault("403", FaultAction::status(403), 1, 300_000, true),
        fault("404", FaultAction::status(404), 1, 300_000, true),
        fault("500", FaultAction::status(500), 1, 300_000, true),
        fault("429", FaultAction::retry_after(429, "1"), 1, 300_000, false),
        fault(
            "another range",
            header("content-range", "bytes 5-9/300000"),
            1,
            300_000,
            false,
        ),
        fault(
            "another total",
            header("content-range", "bytes 0-262143/9"),
            1,
            300_000,
            false,
        ),
        fault(
            "no range",
            header("content-range", "nonsense"),
            1,
            300_000,
            false,
        ),
        fault(
            "too short a length",
            header("content-length", "1000"),
            1,
            300_000,
            false,
        ),
        fault(
            "too long a length",
            header("content-length", "900000"),
            1,
            300_000,
            false,
        ),
    ]
}

#[test]
fn what_is_read_is_right_or_refused() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(DriveKind::Business);
    let drive = service.default_drive();
    let faults = faults();
    for (number, fault) in faults.iter().enumerate() {
        let body = files::noise(number as u64, fault.size);
        drive.put(&format!("/{}", fault.name), body).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--option", "read_timeout=2"]);
    mount.sync();
    let mut wrong = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let right = files::noise(number as u64, fault.size);
        let rule = FaultRule::on("download", fault.action.clone()).times(fault.times);
        let rule = service.faults().add(rule);
        let first = fs::read(mount.at(fault.name));
        if service.faults().hits(rule) == 0 {
            wrong.push(format!("{}: did not happen", fault.name));
        }
        match first {
            Ok(bytes) if bytes == right => {}
            Ok(_) => wrong.push(format!("{}: wrong bytes were read", fault.name)),
            Err(error) if fault.mended => wrong.push(format!("{}: {error}", fault.name)),
            Err(_) => {}
        }
        service.faults().remove(rule);
        wait::until(fault.name, wait::secs(20), || {
            match fs::read(mount.at(fault.name)) {
                Ok(bytes) if bytes == right => true,
                Ok(_) => panic!("{}: wrong bytes were read later", fault.name),
                Err(_) => false,
            }
        });
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    mount.unmount();
}

#[test]
fn servers_without_ranges_are_read_right() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(DriveKind::Personal);
    service.set_knobs(|knobs| knobs.ignore_range = true);
    let drive = service.default_drive();
    let body = files::noise(1, 2_000_000);
    drive.put("/file", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let file = File::open(mount.at("file")).expect("opened");
    let mut part = vec![0; 5000];
    for at in [1_500_000, 3, 900_000] {
        file.read_exact_at(&mut part, at as u64).expect("read");
        assert_eq!(part, body[at..at + 5000]);
    }
    drop(file);
    assert_eq!(fs::read(mount.at("file")).expect("read"), body);
    mount.unmount();
}

/// Reads the whole of a file through one handle, with something done after the first bytes.
fn read_around(
    mount: &Mount<'_>,
    name: &str,
    size: u64,
    then: impl FnOnce(),
) -> Result<Vec<u8>, ()> {
    let file = File::open(mount.at(name)).expect("opened");
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes[..4096], 0)
        .expect("first bytes");
    then();
    // From behind, so that read-ahead has nothing of it.
    let mut at = size;
    while at > 4096 {
        let from = at.saturating_sub(100_000).max(4096);
        let part = &mut bytes[from as usize..at as usize];
        file.read_exact_at(part, from).map_err(drop)?;
        at = from;
    }
    Ok(bytes)
}

#[test]
fn a_file_replaced_in_the_middle_of_a_read_is_never_a_mix() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = service(DriveKind::Business);
    let drive = service.default_drive();
    let size = 6_000_000;
    let version = |seed| FileBody::Generated { seed, size };
    let names = ["told", "not told", "longer", "shorter"];
    for name in names {
        drive.put(&format!("/{name}"), version(1)).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--poll", "3600"]);
    mount.sync();
    let old = version(1).read(0, size as usize).expect("bytes");
    for name in names {
        let path = format!("/{name}");
        let other = match name {
            "longer" => FileBody::Generated {
                seed: 2,
                size: size + 5,
            },
            "shorter" => FileBody::Generated {
                seed: 2,
                size: size - 5,
            },
            _ => version(2),
        };
        let read = read_around(&mount, name, size, || {
            drive.put(&path, other.clone()).expect("replaced");
            if name == "told" {
                mount.sync();
            }
        });
        if let Ok(bytes) = read {
            assert!(bytes == old, "{name}: a mix");
        }
        mount.sync();
        let now = fs::read(mount.at(name)).expect("the new version");
        assert!(
            Some(now) == drive.read(&path),
            "{name}: not the new version"
        );
    }
    mount.unmount();
}
