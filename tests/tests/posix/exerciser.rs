//! fsx: random reads, writes, mappings, truncations, holes and copies within one file, each compared
//! with what must be there; and in the end with what the service has.

use std::fs;

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Need, Service, Who, needs, process, wait};

use crate::tool;

/// Operations in total unless another number is given: a taste, for every change.
const OPERATIONS: u64 = 40_000;

/// Files that are exercised one after the other, each with a seed of its own.
const SEEDS: u64 = 4;

/// Most operations a second on a slow machine, for the limits on time.
const SLOWEST_PER_S: u64 = 100;

/// Everything fsx can do, as often as programs do it, roughly. Never with no bytes at all: it takes
/// the kernel's answer to that for a file system that does not support the call.
const CONFIGURATION: &str = "
flen = 262144
[opsize]
min = 1
max = 65536
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 0.2
fdatasync = 0.2
posix_fallocate = 3
punch_hole = 3
sendfile = 3
posix_fadvise = 2
copy_file_range = 3
";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn exercise(who: Who, first_seed: u64) {
    let per_seed = (number("ONEDRIVEFS_FSX_OPERATIONS", OPERATIONS) / (2 * SEEDS)).max(1);
    let limit_s = 60 + per_seed / SLOWEST_PER_S;
    let service = Service::start();
    let home = Home::of(&service, who);
    home.log_in();
    let mount = home.mount_with(MountSpec::lasting(SEEDS * limit_s));
    let configuration = home.path("fsx.toml");
    fs::write(&configuration, CONFIGURATION).expect("configuration");
    let program = tool::copy_for(&home, "fsx");
    let first = number("ONEDRIVEFS_FSX_SEED", first_seed);
    for seed in first..first + SEEDS {
        let name = format!("seed-{seed}");
        let mut command = home.program(&program);
        command
            .arg("-f")
            .arg(&configuration)
            .args(["-N", &per_seed.to_string(), "-S", &seed.to_string(), "-P"])
            .arg(home.work())
            .arg(mount.at(&name));
        process::run(command, wait::secs(limit_s)).ok();
        mount.sync();
        // By the mount's owner: nobody else may look into it.
        home.sh(&format!("cp \"$M/{name}\" \"$W/{name}\""));
        let here = fs::read(home.work().join(&name)).expect("file");
        let there = service.default_drive().read(&format!("/{name}"));
        assert!(
            there == Some(here),
            "seed {seed}: the service has something else"
        );
    }
    mount.unmount();
}

#[test]
fn random_operations_on_a_file_leave_what_they_should() {
    if needs::met(&[Need::Fuse, Need::Program("fsx")]) {
        exercise(Who::Me, 1);
    }
}

#[test]
fn random_operations_of_an_ordinary_user_leave_what_they_should() {
    if needs::met(&[Need::FuseForUsers, Need::Program("fsx")]) {
        exercise(Who::Nobody, 101);
    }
}
