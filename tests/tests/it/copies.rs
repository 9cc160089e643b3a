//! Copying a file that the service has moves no bytes, and loses none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use onedrivefs_sim::{DriveHandle, DriveKind, FaultAction, FaultRule, FileBody, Reach};
use onedrivefs_tests::mount::Mount;
use onedrivefs_tests::{Home, Need, Service, needs, tree, wait};

use crate::files::MIB;

/// A file that the service has and that is not here.
fn original(size: u64) -> FileBody {
    FileBody::Generated { seed: 11, size }
}

/// Tells whether there is FUSE.
fn met() -> bool {
    needs::met(&[Need::Fuse])
}

/// Bytes of content that went over the line in either direction.
fn moved(service: &Service) -> u64 {
    service.downloaded_bytes() + service.upload_since(0).bytes
}

/// Compares a file on the service with what it should be.
fn assert_there(drive: &DriveHandle, path: &str, body: &FileBody) {
    let entry = drive
        .entry(path)
        .unwrap_or_else(|| panic!("{path} is missing"));
    let FileBody::Generated { size, .. } = body else {
        panic!("{path} is generated");
    };
    assert_eq!(entry.size, *size, "{path}");
    let there = drive.read(path).expect("content");
    let expected = body.read(0, there.len()).expect("body");
    assert!(there == expected, "{path} has other content");
}

/// Waits until the service was asked for something.
fn wait_for(service: &Service, op: &str) {
    wait::until("a request", wait::secs(20), || {
        service.requests().count(op) > 0
    });
}

/// Copies `a` to `b`, which the service does without anybody being told. Returns the rule that holds
/// the answer back.
fn copy_without_news(home: &Home<'_>) -> u64 {
    let monitor = FaultRule::on("monitor", FaultAction::Hold);
    let hold = home.service.faults().add(monitor);
    home.sh(r#"cp "$M/a" "$M/b""#);
    let drive = home.service.default_drive();
    wait::until("the copy", wait::secs(20), || drive.entry("/b").is_some());
    hold
}

fn state(mount: &Mount<'_>, expected: &str) {
    wait::until(expected, wait::secs(30), || {
        mount.status()["state"] == expected
    });
}

#[test]
fn cp_of_a_file_that_is_not_here_moves_no_bytes() {
    if !met() {
        return;
    }
    for kind in [DriveKind::Business, DriveKind::Personal] {
        let service = Service::with(|config| config.drives[0].kind = kind);
        let drive = service.default_drive();
        let size = 200 * MIB;
        drive
            .put_at("/film.mkv", original(size), Some(1_600_000_000_000))
            .expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        home.sh(r#"mkdir "$M/to"; cp "$M/film.mkv" "$M/to/copy.mkv"; cp -p "$M/film.mkv" "$M/second.mkv""#);
        // Right at once, also what it is read from.
        let copy = File::open(mount.at("to/copy.mkv")).expect("opened");
        assert_eq!(copy.metadata().expect("metadata").len(), size);
        let mut tail = vec![0; 4096];
        copy.read_exact_at(&mut tail, size - 4096).expect("read");
        assert_eq!(tail, original(size).read(size - 4096, 4096).expect("body"));
        drop(copy);
        mount.sync();
        let bytes = moved(&service);
        assert!(bytes < MIB, "{kind:?}: {bytes} bytes were moved");
        assert_eq!(service.requests().count("copy"), 2);
        assert_eq!(drive.dump().len(), 4, "the folder and three files");
        let film = drive.entry("/film.mkv").expect("original");
        for path in ["/to/copy.mkv", "/second.mkv"] {
            let entry = drive.entry(path).expect("copy");
            assert_eq!((entry.size, &entry.hash), (film.size, &film.hash), "{path}");
        }
        assert_eq!(drive.entry("/second.mkv").expect("copy").mtime, film.mtime);
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn what_was_copied_can_be_read_from_the_copy_when_the_original_is_gone() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(5 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    // Its deletion waits for the copy, and the next version of the other one, too.
    drive.put("/c", body.clone()).expect("file");
    mount.sync();
    home.sh(r#"cp "$M/a" "$M/b"; rm "$M/a"; cp "$M/c" "$M/d"; echo new > "$M/c""#);
    mount.sync();
    assert_there(&drive, "/b", &body);
    assert_there(&drive, "/d", &body);
    assert!(drive.entry("/a").is_none());
    assert_eq!(drive.read("/c").expect("content"), b"new\n");
    assert_eq!(service.requests().count("copy"), 2);
    assert_eq!(drive.dump().len(), 3);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_name_that_the_original_has_to_leave_first_is_waited_for_with_the_bytes_here() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(2 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cp "$M/a" "$M/b"; rm "$M/a"; mkdir "$M/x"; mv "$M/b" "$M/a""#);
    mount.sync();
    assert_there(&drive, "/a", &body);
    assert_eq!(drive.dump().len(), 2);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_lost_answer_makes_no_second_copy() {
    if !met() {
        return;
    }
    for (op, action) in [
        ("copy", FaultAction::DropAfter),
        ("copy", FaultAction::DropBefore),
        ("copy", FaultAction::status(503)),
        ("monitor", FaultAction::DropAfter),
        ("monitor", FaultAction::status(404)),
        ("item", FaultAction::DropAfter),
    ] {
        let service = Service::start();
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a.docx", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        service
            .faults()
            .add(FaultRule::on(op, action.clone()).times(1));
        home.sh(r#"cp "$M/a.docx" "$M/b.docx""#);
        wait_for(&service, "copy");
        mount.wait_sent(wait::secs(60));
        mount.sync();
        assert_there(&drive, "/b.docx", &body);
        assert_eq!(drive.dump().len(), 2, "{op}, {action:?}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn what_the_service_does_not_copy_is_uploaded() {
    if !met() {
        return;
    }
    for refused in [true, false] {
        let service = Service::start();
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        if refused {
            service
                .faults()
                .add(FaultRule::on("copy", FaultAction::status(403)));
        } else {
            service.set_knobs(|knobs| knobs.copy_fails = true);
        }
        home.sh(r#"cp "$M/a" "$M/b""#);
        mount.sync();
        assert_there(&drive, "/b", &body);
        assert_eq!(service.requests().count("copy"), 1);
        assert_eq!(drive.dump().len(), 2);
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn offline_only_what_is_here_is_copied_and_the_service_copies_it_later() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let (here, elsewhere) = (original(3 * MIB), original(2 * MIB));
    drive.put("/here", here.clone()).expect("file");
    drive.put("/elsewhere", elsewhere).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cat "$M/here" > /dev/null"#);
    let read = moved(&service);
    service.set_reach(Reach::Offline);
    home.sh(r#"! cat "$M/elsewhere" > /dev/null 2>&1"#);
    state(&mount, "offline");
    home.sh(r#"cp "$M/here" "$M/copy"; cmp "$M/here" "$M/copy"; ! cp "$M/elsewhere" "$M/x" 2>/dev/null; rm -f "$M/x""#);
    service.set_reach(Reach::Online);
    state(&mount, "online");
    mount.sync();
    assert_there(&drive, "/copy", &here);
    assert_eq!(service.requests().count("copy"), 1);
    assert_eq!(moved(&service), read, "nothing was uploaded");
    assert_eq!(drive.dump().len(), 3);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_copy_has_what_was_copied_although_the_original_was_replaced_there() {
    if !met() {
        return;
    }
    // Before the service is asked, and while it copies.
    for held in ["item", "copy"] {
        let service = Service::start();
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        let hold = service.faults().add(FaultRule::on(held, FaultAction::Hold));
        home.sh(r#"cp "$M/a" "$M/b""#);
        wait_for(&service, held);
        drive.put("/a", "somebody else's").expect("replaced");
        service.faults().remove(hold);
        let first = fs::read(mount.at("b")).expect("read while it is not sent");
        assert!(first == body.read(0, 3 << 20).expect("body")[..], "{held}");
        mount.sync();
        assert_there(&drive, "/b", &body);
        assert_eq!(drive.read("/a").expect("content"), b"somebody else's");
        assert_eq!(drive.dump().len(), 2, "{held}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_copy_that_cannot_be_sent_yet_can_be_read_after_the_original_was_replaced_there() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    // Its folder is not there yet, so that nobody sends it.
    let hold = service
        .faults()
        .add(FaultRule::on("mkdir", FaultAction::Hold));
    home.sh(r#"mkdir "$M/x"; cp "$M/a" "$M/x/b""#);
    drive.put("/a", "somebody else's").expect("replaced");
    wait::until("it is known here", wait::secs(20), || {
        fs::metadata(mount.at("a")).is_ok_and(|a| a.len() == 15)
    });
    let read = fs::read(mount.at("x/b")).expect("read");
    assert!(read == body.read(0, 3 << 20).expect("body")[..]);
    service.faults().remove(hold);
    mount.sync();
    assert_there(&drive, "/x/b", &body);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_monitor_that_does_not_answer_stops_nothing() {
    if !met() {
        return;
    }
    for action in [
        FaultAction::status(401),
        FaultAction::status(404),
        FaultAction::status(500),
        FaultAction::DropBefore,
    ] {
        let service = Service::start();
        // Made at once; and nobody ever says so.
        service.set_knobs(|knobs| knobs.copy_polls = 0);
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        service
            .faults()
            .add(FaultRule::on("monitor", action.clone()));
        home.sh(r#"cp "$M/a" "$M/b""#);
        mount.sync();
        assert_eq!(mount.status()["state"], "online", "{action:?}");
        assert_there(&drive, "/b", &body);
        assert_eq!(service.requests().count("copy"), 1, "{action:?}");
        assert!(moved(&service) < MIB, "{action:?}");
        assert_eq!(drive.dump().len(), 2, "{action:?}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_copy_that_somebody_touched_before_it_was_known_here() {
    if !met() {
        return;
    }
    for deed in ["renamed", "deleted", "original deleted"] {
        let service = Service::start();
        service.set_knobs(|knobs| knobs.copy_polls = 0);
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        let hold = copy_without_news(&home);
        match deed {
            "renamed" => drive.rename("/b", "/theirs").expect("renamed"),
            "deleted" => drive.delete("/b").expect("deleted"),
            _ => drive.delete("/a").expect("deleted"),
        }
        // Changes are told before the monitor tells whose they are.
        home.look_for_news();
        service.faults().remove(hold);
        mount.wait_sent(wait::secs(60));
        mount.sync();
        // It was made here, under this name.
        assert_there(&drive, "/b", &body);
        let left = if deed == "original deleted" { 1 } else { 2 };
        assert_eq!(drive.dump().len(), left, "{deed}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_copy_whose_original_is_gone_there_is_never_taken_for_empty() {
    if !met() {
        return;
    }
    for restored in [false, true] {
        copy_without_original(restored);
    }
}

/// Somebody deletes the original of a copy before the service could make it, and brings it back or not.
fn copy_without_original(restored: bool) {
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    let id = drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let hold = service
        .faults()
        .add(FaultRule::on("item", FaultAction::Hold));
    home.sh(r#"cp "$M/a" "$M/b""#);
    wait_for(&service, "item");
    drive.delete("/a").expect("deleted");
    service.faults().remove(hold);
    wait::until("it is known here", wait::secs(30), || {
        !mount.at("a").exists()
    });
    fs::read(mount.at("b")).expect_err("nobody has its bytes");
    assert_eq!(fs::metadata(mount.at("b")).expect("there").len(), 3 * MIB);
    assert_eq!(mount.status()["pending"]["ops"], 1);
    assert_eq!(service.requests().count("copy"), 0);
    // Others are not held up.
    home.sh(r#"echo other > "$M/c""#);
    wait::until("another file", wait::secs(30), || {
        drive.entry("/c").is_some()
    });
    assert!(drive.entry("/b").is_none());
    // A person is asked, who may bring the original back.
    let parked = || mount.status()["parked"].as_array().expect("rows").clone();
    wait::until("it is parked", wait::secs(60), || !parked().is_empty());
    let reason = parked()[0]["error"].as_str().expect("reason").to_owned();
    assert!(reason.contains("recycle bin"), "{reason}");
    if restored {
        drive.restore(&id).expect("restored");
        home.run(&["retry", mount.at("b").to_str().expect("UTF-8")])
            .ok();
        mount.sync();
        assert_there(&drive, "/b", &body);
    } else {
        home.run(&["discard", mount.at("b").to_str().expect("UTF-8")])
            .ok();
        mount.sync();
        assert!(!mount.at("b").exists());
    }
    assert!(parked().is_empty());
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// Somebody takes to a copy before it is known here that the service has made it.
#[test]
fn what_somebody_wrote_into_a_copy_stays() {
    if !met() {
        return;
    }
    for (kind, wanted) in [
        (DriveKind::Business, false),
        (DriveKind::Personal, false),
        (DriveKind::Business, true),
    ] {
        let service = Service::with(|config| config.drives[0].kind = kind);
        service.set_knobs(|knobs| knobs.copy_polls = 0);
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        let hold = copy_without_news(&home);
        if !wanted {
            home.sh(r#"rm "$M/b""#);
        }
        drive.put("/b", "theirs").expect("written");
        service.faults().remove(hold);
        mount.wait_sent(wait::secs(60));
        mount.sync();
        assert_eq!(
            drive.read("/b").as_deref(),
            Some(&b"theirs"[..]),
            "{kind:?}"
        );
        let copies: Vec<_> = drive.dump().into_iter().map(|entry| entry.path).collect();
        assert_eq!(copies.len(), if wanted { 3 } else { 2 }, "{copies:?}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_handle_on_a_copy_outlives_the_original() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cp "$M/a" "$M/b""#);
    let copy = File::open(mount.at("b")).expect("opened");
    let mut head = vec![0; 4096];
    copy.read_exact_at(&mut head, 0).expect("read");
    mount.sync();
    drive.delete("/a").expect("deleted");
    mount.sync();
    let mut tail = vec![0; 4096];
    copy.read_exact_at(&mut tail, 2 * MIB).expect("read");
    assert_eq!(tail, body.read(2 * MIB, 4096).expect("body"));
    drop(copy);
    mount.unmount();
}

#[test]
fn a_folder_of_copies_moves_no_bytes_and_lets_others_pass() {
    if !met() {
        return;
    }
    let service = Service::start();
    // More at a time than are followed without taking the place of an upload.
    service.set_knobs(|knobs| knobs.copy_polls = 3);
    let drive = service.default_drive();
    let count: u64 = 60;
    for n in 0..count {
        let body = FileBody::Generated {
            seed: n,
            size: 100_000,
        };
        let time = 1_500_000_000_000 + i64::try_from(n).expect("small") * 1000;
        let put = drive.put_at(&format!("/from/{n}"), body, Some(time));
        put.expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cp -rp "$M/from" "$M/to"; echo other > "$M/other""#);
    mount.sync();
    assert!(moved(&service) < 1000, "{} bytes", moved(&service));
    for n in 0..count {
        let (from, to) = (format!("/from/{n}"), format!("/to/{n}"));
        let (from, to) = (drive.entry(&from), drive.entry(&to));
        let (from, to) = (from.expect("original"), to.expect("copy"));
        assert_eq!((&from.hash, &from.mtime), (&to.hash, &to.mtime), "{n}");
    }
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn copying_over_a_file_is_one_more_version_of_it() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let id = drive.put("/b", "older").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cp "$M/a" "$M/b"; cmp "$M/a" "$M/b""#);
    mount.sync();
    let entry = drive.entry("/b").expect("file");
    assert_eq!((entry.id, entry.versions), (id, 2));
    assert_there(&drive, "/b", &body);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_name_that_somebody_took_meanwhile_leaves_both() {
    if !met() {
        return;
    }
    for kind in [DriveKind::Business, DriveKind::Personal] {
        let service = Service::with(|config| config.drives[0].kind = kind);
        let drive = service.default_drive();
        let body = original(3 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        mount.sync();
        let delay = FaultRule::on("copy", FaultAction::Delay { ms: 1000 }).times(1);
        service.faults().add(delay);
        home.sh(r#"cp "$M/a" "$M/b.txt""#);
        wait_for(&service, "copy");
        drive.put("/b.txt", "somebody else's").expect("file");
        mount.wait_sent(wait::secs(60));
        mount.sync();
        assert_eq!(drive.read("/b.txt").expect("content"), b"somebody else's");
        let all = drive.dump();
        let copy = all.iter().find(|entry| entry.path.contains("(conflict"));
        assert_there(&drive, &copy.expect("a conflict copy").path, &body);
        assert_eq!(all.len(), 3, "{all:?}");
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_daemon_killed_on_the_way_to_a_copy_goes_on() {
    if !met() {
        return;
    }
    // Right after `cp`, and while the service copies.
    for asked in [false, true] {
        let service = Service::start();
        service.set_knobs(|knobs| knobs.copy_polls = 3);
        let drive = service.default_drive();
        let body = original(50 * MIB);
        drive.put("/a", body.clone()).expect("file");
        let home = Home::signed_in(&service);
        let mut mount = home.mount();
        mount.sync();
        home.sh(r#"cp "$M/a" "$M/b""#);
        if asked {
            wait::until("a look at the copy", wait::secs(20), || {
                service.requests().count("monitor") > 0
            });
        }
        mount.crash();
        drop(mount);
        let mount = home.mount();
        assert_eq!(fs::metadata(mount.at("b")).expect("there").len(), 50 * MIB);
        mount.sync();
        assert_there(&drive, "/b", &body);
        assert_eq!(service.requests().count("copy"), 1, "asked: {asked}");
        assert!(moved(&service) < MIB);
        // The right bytes, whichever way they are read.
        home.sh(r#"cmp "$M/a" "$M/b""#);
        if needs::met(&[Need::Program("python3")]) {
            home.sh(r#"python3 -c 'import mmap, os, sys
a, b = (mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ) for path in sys.argv[1:])
assert a[:] == b[:]' "$M/a" "$M/b""#);
        }
        assert_eq!(drive.dump().len(), 2);
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}

#[test]
fn a_part_of_a_file_and_one_that_was_changed_since_are_no_copies() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let size = 3 * MIB;
    let body = original(size);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let part = |name: &str, from: u64, to: u64, len: u64| {
        let source = File::open(mount.at("a")).expect("opened");
        let target = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(mount.at(name))
            .expect("created");
        let (mut at, mut into) = (from, to);
        while at < from + len {
            let left = usize::try_from(from + len - at).expect("length");
            let got =
                rustix::fs::copy_file_range(&source, Some(&mut at), &target, Some(&mut into), left);
            assert!(got.expect("copied") > 0);
        }
        target
    };
    drop(part("beginning", 0, 0, MIB));
    drop(part("end", MIB, 0, 2 * MIB));
    let changed = part("changed", 0, 0, size);
    changed.write_all_at(b"changed", 4096).expect("written");
    drop(changed);
    home.sh(r#"cp "$M/a" "$M/later"; printf later | dd of="$M/later" bs=1 seek=100 conv=notrunc status=none"#);
    mount.sync();
    let whole = body
        .read(0, usize::try_from(size).expect("length"))
        .expect("body");
    let mib = usize::try_from(MIB).expect("length");
    assert!(drive.read("/beginning").expect("content") == whole[..mib]);
    assert!(drive.read("/end").expect("content") == whole[mib..]);
    let mut expected = whole.to_vec();
    expected[4096..4103].copy_from_slice(b"changed");
    assert!(drive.read("/changed").expect("content") == expected);
    let mut expected = whole.to_vec();
    expected[100..105].copy_from_slice(b"later");
    assert!(drive.read("/later").expect("content") == expected);
    assert_eq!(drive.dump().len(), 5);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_copy_that_is_changed_renamed_or_deleted_while_the_service_makes_it() {
    if !met() {
        return;
    }
    let service = Service::start();
    service.set_knobs(|knobs| knobs.copy_polls = 4);
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    drive.put("/old", "older").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"cd "$M"; for i in changed renamed deleted saved; do cp a $i; done"#);
    wait::until("four copies under way", wait::secs(20), || {
        service.requests().count("monitor") >= 4
    });
    home.sh(
        r#"cd "$M"; printf changed | dd of=changed bs=1 seek=7 conv=notrunc status=none
        mv renamed elsewhere; rm deleted; mv saved old"#,
    );
    mount.wait_sent(Duration::from_secs(60));
    mount.sync();
    let mut expected = body.read(0, 3 << 20).expect("body").to_vec();
    assert_there(&drive, "/elsewhere", &body);
    assert_there(&drive, "/old", &body);
    expected[7..14].copy_from_slice(b"changed");
    assert!(drive.read("/changed").expect("content") == expected);
    let names: Vec<_> = drive.dump().into_iter().map(|entry| entry.path).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_copy_that_nobody_wants_any_more_when_the_service_begins_is_deleted_again() {
    if !met() {
        return;
    }
    let service = Service::start();
    service.set_knobs(|knobs| knobs.copy_polls = 4);
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    drive.put("/old", "older").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let hold = service
        .faults()
        .add(FaultRule::on("copy", FaultAction::Hold));
    home.sh(r#"cd "$M"; cp a saved; cp a unlinked"#);
    wait::until("two requests", wait::secs(20), || {
        service.requests().count("copy") >= 2
    });
    // The one takes over the identity of another file.
    home.sh(r#"cd "$M"; mv saved old; rm unlinked"#);
    service.faults().remove(hold);
    mount.wait_sent(wait::secs(60));
    mount.sync();
    assert_there(&drive, "/old", &body);
    let names: Vec<_> = drive.dump().into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["/a", "/old"]);
    mount.unmount();
}

#[test]
fn what_arrives_damaged_of_an_unmade_copy_is_not_taken_for_its_content() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    // Its folder is not there yet, so that nobody sends it.
    let hold = service
        .faults()
        .add(FaultRule::on("mkdir", FaultAction::Hold));
    home.sh(r#"mkdir "$M/x"; head -c 100000 "$M/a" > /dev/null; cp "$M/a" "$M/x/b"; cp "$M/a" "$M/x/c""#);
    let expected = body.read(0, 3 << 20).expect("body");
    for name in ["x/b", "x/c"] {
        let damage = FaultRule::on("download", FaultAction::Corrupt { offset: 77 });
        service.faults().add(damage.times(1));
        if let Ok(read) = fs::read(mount.at(name)) {
            assert!(read == expected[..], "{name}");
        }
        assert!(fs::read(mount.at(name)).expect("read") == expected[..]);
        // What was not read yet is as suspicious to the next daemon.
        mount.crash();
        drop(mount);
        mount = home.mount();
    }
    service.faults().remove(hold);
    mount.sync();
    assert_there(&drive, "/x/b", &body);
    assert_there(&drive, "/x/c", &body);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_removed_folder_waits_for_copies_of_what_was_in_it() {
    if !met() {
        return;
    }
    let service = Service::start();
    service.set_knobs(|knobs| knobs.copy_polls = 4);
    let drive = service.default_drive();
    let body = original(3 * MIB);
    for path in ["/d/a", "/d/e/a"] {
        drive.put(path, body.clone()).expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"cd "$M"; cp d/a b; cp d/e/a c; rm -r d"#);
    mount.sync();
    assert_there(&drive, "/b", &body);
    assert_there(&drive, "/c", &body);
    assert_eq!(service.requests().count("copy"), 2);
    let names: Vec<_> = drive.dump().into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["/b", "/c"]);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_copy_under_the_name_of_a_file_that_was_just_removed_or_is_its_own_original() {
    if !met() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = original(3 * MIB);
    drive.put("/a", body.clone()).expect("file");
    let id = drive.put("/b", "older").expect("file");
    drive.put("/c", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    // What has become an item under the name for a moment, and is not here, goes on as that item.
    let delay = FaultRule::on("copy", FaultAction::Delay { ms: 1000 });
    service.faults().add(delay);
    home.sh(r#"cd "$M"; cp --remove-destination a b; cp a n; mv n b; cp c n; mv n c"#);
    mount.sync();
    assert_there(&drive, "/b", &body);
    assert_there(&drive, "/c", &body);
    assert_eq!(drive.entry("/b").expect("file").id, id);
    assert_eq!(drive.dump().len(), 3);
    for name in ["b", "c"] {
        let read = fs::read(mount.at(name)).expect("read");
        assert!(read == body.read(0, 3 << 20).expect("body")[..], "{name}");
    }
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// The service copies what the original is when it gets to it. The copy is deleted here meanwhile, with
/// the folder it is in, and its arrival is heard of before the service says that it was made; or never
/// is, since the daemon died before it knew that the copy was begun.
#[test]
fn a_copy_of_a_later_version_that_nobody_wants_any_more_does_not_come_back() {
    if !met() {
        return;
    }
    for killed in [false, true] {
        let service = Service::start();
        service.set_knobs(|knobs| knobs.copy_polls = 0);
        service
            .faults()
            .add(FaultRule::on("socketio", FaultAction::status(500)));
        let drive = service.default_drive();
        drive.put("/a", original(3 * MIB)).expect("file");
        let home = Home::signed_in(&service);
        let mut mount = home.mount();
        mount.sync();
        // The later version does not wait for a copy that has all of its bytes here.
        home.sh(r#"cat "$M/a" > "$W/read""#);
        let add = |op, action| service.faults().add(FaultRule::on(op, action));
        let before = add("copy", FaultAction::Hold);
        let after = add(
            if killed { "copy" } else { "monitor" },
            FaultAction::HoldAnswer,
        );
        home.sh(r#"mkdir "$M/d"; cp "$M/a" "$M/d/b""#);
        wait_for(&service, "copy");
        home.sh(r#"printf later > "$M/a""#);
        wait::until("later version", wait::secs(30), || {
            drive.read("/a").as_deref() == Some(&b"later"[..])
        });
        home.sh(r#"rm "$M/d/b"; rmdir "$M/d""#);
        service.faults().remove(before);
        wait::until("copy", wait::secs(30), || drive.read("/d/b").is_some());
        assert_eq!(drive.read("/d/b").expect("copy"), b"later");
        if killed {
            mount.crash();
            drop(mount);
            mount = home.mount();
        }
        home.look_for_news();
        assert!(!mount.at("d").exists(), "killed: {killed}");
        service.faults().remove(after);

        mount.sync();
        assert_eq!(
            drive.dump().len(),
            1,
            "killed: {killed}: {:?}",
            drive.dump()
        );
        tree::assert_in_step(mount.path(), &drive);
        mount.unmount();
    }
}
