//! Only what is needed is fetched, and copying in needs little memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use onedrivefs_sim::{FaultAction, FaultRule, FileBody};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::files::{self, GIB, MIB};

#[test]
fn reading_4_kib_at_the_end_of_a_10_gib_file_moves_less_than_2_mib() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let size = 10 * GIB;
    let body = FileBody::Generated { seed: 10, size };
    drive.put("/film.mkv", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let file = File::open(mount.at("film.mkv")).expect("opened");
    assert_eq!(file.metadata().expect("metadata").len(), size);
    let mut tail = vec![0; 4096];
    file.read_exact_at(&mut tail, size - 4096).expect("read");
    assert_eq!(tail, body.read(size - 4096, 4096).expect("body"));
    drop(file);
    // Whatever was read ahead has arrived or been given up when the daemon has ended.
    mount.unmount();
    let moved = service.downloaded_bytes();
    assert!(moved < 2 * MIB, "{moved} bytes were moved");
    assert!(moved >= 4096);
}

#[test]
fn looking_around_moves_no_content_and_what_was_read_once_is_not_fetched_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..300 {
        let body = FileBody::Generated {
            seed: number,
            size: 100_000,
        };
        drive
            .put(&format!("/f{}/{number}.bin", number % 7), body)
            .expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(
        r#"cd "$M"; ls -lR > /dev/null; find . -newer f1 > /dev/null; du -s . > /dev/null
        stat f2/2.bin > /dev/null; mv f3/3.bin f4/; mkdir x; rm -r f5; touch f6/6.bin
        exec 3< f2/2.bin 4<> f1/1.bin; exec 3<&- 4<&-"#,
    );
    mount.sync();
    assert_eq!(service.downloaded_bytes(), 0);
    home.sh(r#"cat "$M/f2/2.bin" > "$W/copy"; cmp "$W/copy" "$M/f2/2.bin""#);
    let once = service.downloaded_bytes();
    assert!(once >= 100_000, "{once}");
    home.sh(r#"cat "$M/f2/2.bin" > /dev/null"#);
    mount.unmount();
    let mount = home.mount();
    home.sh(r#"cmp "$W/copy" "$M/f2/2.bin""#);
    assert_eq!(service.downloaded_bytes(), once, "also after a restart");
    mount.unmount();
}

#[test]
fn memory_stays_below_100_mib_while_large_files_are_copied_in() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let gibs = if files::is_long() { 4 } else { 1 };
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount_with(MountSpec::lasting(200 + gibs * 100));
    files::write(&home.work().join("large"), GIB / 2, 7);
    for number in 0..gibs * 2 {
        let copied = fs::copy(
            home.work().join("large"),
            mount.at(&format!("copy {number}")),
        );
        copied.expect("copied");
    }
    mount.sync();
    let peak = mount.peak_memory_bytes();
    println!("peak: {} MiB", peak / MIB);
    assert!(peak < 100 * MIB, "{} MiB", peak / MIB);
    let copies = service.default_drive().dump();
    assert_eq!(copies.len() as u64, gibs * 2);
    assert!(copies.iter().all(|e| e.hash == copies[0].hash));
    mount.unmount();
}

#[test]
fn a_change_in_the_middle_of_a_large_file_fetches_no_more_than_the_upload_needs() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let size = 40 * MIB;
    let body = FileBody::Generated { seed: 3, size };
    drive.put("/base.bin", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let file = File::options()
        .write(true)
        .open(mount.at("base.bin"))
        .expect("opened");
    file.write_all_at(b"changed here", 20 * MIB + 5)
        .expect("written");
    drop(file);
    mount.sync();
    let mut expected = body.read(0, 40 << 20).expect("body").to_vec();
    expected[(20 << 20) + 5..][..12].copy_from_slice(b"changed here");
    assert!(drive.read("/base.bin").expect("file") == expected);
    assert_eq!(drive.entry("/base.bin").expect("entry").versions, 2);
    let downloaded = service.downloaded_bytes();
    assert!(
        downloaded <= size + MIB,
        "{downloaded} bytes for {size}:\n{}",
        service.download_lines().join("\n")
    );
    // Emptying a file needs nothing of it.
    let before = service.downloaded_bytes();
    fs::write(mount.at("base.bin"), "short").expect("written");
    mount.sync();
    assert_eq!(service.downloaded_bytes(), before);
    mount.unmount();
}

#[test]
fn a_change_made_while_an_earlier_one_is_sent_builds_on_what_was_sent() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = FileBody::Generated {
        seed: 5,
        size: 3 * MIB,
    };
    drive.put("/large", body).expect("file");
    let mut wanted = drive.read("/large").expect("content");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let patch = |at: usize, bytes: &[u8]| {
        let file = File::options().write(true).open(mount.at("large"));
        let file = file.expect("open");
        file.write_all_at(bytes, at as u64).expect("written");
    };
    let slow = FaultRule::on("download", FaultAction::Hold);
    let held = service.faults().add(slow);
    patch(1_000_000, b"first");
    wait::until("the rest of it being fetched", wait::secs(30), || {
        service.faults().hits(held) > 0
    });
    patch(2_000_000, b"second");
    // Open, and in want of bytes that are not here, when the version changes under it.
    let file = File::options()
        .read(true)
        .write(true)
        .open(mount.at("large"));
    let file = file.expect("open");
    file.write_all_at(b"third", 10).expect("written");
    service.faults().remove(held);
    wait::until("the first change", wait::secs(30), || {
        drive
            .read("/large")
            .is_some_and(|now| now[1_000_000..].starts_with(b"first"))
    });
    let mut far = [0; 4096];
    file.read_exact_at(&mut far, 2_900_000)
        .expect("bytes of the base");
    assert_eq!(far[..], wanted[2_900_000..][..4096]);
    drop(file);
    mount.sync();
    for (at, bytes) in [
        (1_000_000, &b"first"[..]),
        (2_000_000, b"second"),
        (10, b"third"),
    ] {
        wanted[at..at + bytes.len()].copy_from_slice(bytes);
    }
    assert_eq!(drive.read("/large").as_deref(), Some(&wanted[..]));
    assert_eq!(drive.dump().len(), 1, "no conflict copy");
    mount.unmount();
}
