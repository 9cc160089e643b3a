//! Answers about items that are something else by the time they arrive, or that never come.

use std::fs::{self, File};
use std::io::Write;

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// A service that announces no changes, so that they are heard of when a test wants it.
fn unannounced() -> Service {
    let service = Service::start();
    let refused = FaultRule::on("socketio", FaultAction::status(500));
    service.faults().add(refused);
    service
}

/// Waits until a rule has hit a request.
fn wait_for_hit(service: &Service, rule: u64) {
    wait::until("held request", wait::secs(30), || {
        service.faults().hits(rule) > 0
    });
}

fn write(mount: &Mount<'_>, below: &str, text: &str) {
    // In place, so that it stays the same item.
    let file = File::options().write(true).open(mount.at(below));
    let mut file = file.unwrap_or_else(|error| panic!("{below}: {error}"));
    file.write_all(text.as_bytes()).expect("write");
}

/// Has the file "name" change here, and go on the service while it is being sent, so that it cannot go
/// here. Returns the rule that holds its upload.
fn delete_while_it_is_sent(home: &Home<'_>, mount: &Mount<'_>) -> u64 {
    let uploads = FaultRule::on("create_session", FaultAction::Hold).times(1);
    let uploads = home.service.faults().add(uploads);
    write(mount, "name", "new");
    wait_for_hit(home.service, uploads);
    let drive = home.service.default_drive();
    drive.delete("/name").expect("deletion");
    home.look_for_news();
    uploads
}

/// The file that is reported to be gone has the identity of another one meanwhile.
#[test]
fn what_is_reported_gone_is_what_was_asked_for() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/new", "new").expect("file");
    drive.put("/kept", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("new")).expect("file"), b"new");
    mount.sync();

    drive.delete("/new").expect("deletion");
    let held = service
        .faults()
        .add(FaultRule::on("item", FaultAction::Hold).times(1));
    write(&mount, "new", "new!");
    // The upload was refused, and the file is looked for.
    wait_for_hit(&service, held);
    fs::rename(mount.at("new"), mount.at("kept")).expect("save");
    drive.rename("/kept", "/renamed").expect("rename");
    home.look_for_news();
    service.faults().remove(held);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    assert_eq!(drive.read("/renamed").as_deref(), Some(&b"new!"[..]));
    mount.unmount();
}

/// The daemon dies before it hears that a file arrived, and the file was replaced meanwhile.
#[test]
fn a_save_over_a_file_whose_arrival_was_never_heard_of_is_no_conflict() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/file", "old").expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    assert_eq!(fs::read(mount.at("file")).expect("file"), b"old");
    mount.sync();

    let silent = FaultRule::on("upload_fragment", FaultAction::StallBody { bytes: 0 }).times(1);
    service.faults().add(silent);
    write(&mount, "file", "sent");
    wait::until("arrival", wait::secs(30), || {
        drive.read("/file").as_deref() == Some(&b"sent"[..])
    });
    fs::write(mount.at("temporary"), "saved").expect("file");
    fs::rename(mount.at("temporary"), mount.at("file")).expect("save");
    mount.crash();
    drop(mount);

    // What is found out is found out by the next upload.
    let rounds = service
        .faults()
        .add(FaultRule::on("delta", FaultAction::Hold));
    let mount = home.mount();
    wait::until("upload", wait::secs(30), || {
        let sent = |entry: &onedrivefs_sim::Entry| drive.read(&entry.path);
        drive
            .dump()
            .iter()
            .any(|entry| sent(entry).as_deref() == Some(&b"saved"[..]))
    });
    service.faults().remove(rounds);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    assert_eq!(drive.read("/file").as_deref(), Some(&b"saved"[..]));
    mount.unmount();
}

/// The kernel swaps what it remembers of two names, also of two spellings of one name.
#[test]
fn a_file_swapped_with_itself_is_found_under_every_spelling_after_it_was_replaced() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    fs::write(mount.at("Name"), "old").expect("file");
    let (a, b) = (mount.at("Name"), mount.at("name"));
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).expect("exchange");
    assert_eq!(fs::read(mount.at("name")).expect("file"), b"old");
    fs::write(mount.at("other"), "new").expect("file");
    fs::rename(mount.at("other"), mount.at("Name")).expect("rename");
    wait::until("the new file", wait::secs(10), || {
        let read = |name| fs::read(mount.at(name)).ok();
        let new = Some(b"new".to_vec());
        read("Name") == new && read("name") == new
    });
    mount.unmount();
}

/// An answer about a file comes before the pages of an enumeration that do not mention it.
#[test]
fn what_goes_between_an_answer_and_an_enumeration_is_gone() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/file", "old").expect("file");
    drive.put("/other", "other").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("file")).expect("file"), b"old");
    mount.sync();

    service.expire_delta();
    // One is refused, the next begins the enumeration.
    let held = service
        .faults()
        .add(FaultRule::on("delta", FaultAction::Hold).after(1));
    wait::until("enumeration", wait::secs(30), || {
        home.try_sync(1);
        service.faults().hits(held) > 0
    });
    write(&mount, "file", "new");
    wait::until("upload", wait::secs(30), || {
        let sent = drive.read("/file").as_deref() == Some(&b"new"[..]);
        sent && mount.status()["pending"]["ops"] == 0
    });
    drive.delete("/file").expect("deletion");
    service.faults().remove(held);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert!(!mount.at("file").exists());
    mount.unmount();
}

/// What is in its way on this machine is unlinked before it was sent.
#[test]
fn an_item_gets_its_name_back_when_what_had_it_here_is_unlinked() {
    assert_name_is_given_back(|mount| {
        fs::remove_file(mount.at("name")).expect("removal");
    });
}

#[test]
fn an_item_gets_its_name_back_when_what_had_it_here_is_renamed() {
    assert_name_is_given_back(|mount| {
        fs::rename(mount.at("name"), mount.at("other")).expect("rename");
    });
}

/// A folder is shown under another name than it has on the service, because a file that was not sent
/// has that here. Then the file `leaves`.
fn assert_name_is_given_back(leaves: impl FnOnce(&Mount<'_>)) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/name", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("name")).expect("file"), b"old");
    mount.sync();

    let uploads = delete_while_it_is_sent(&home, &mount);
    drive.mkdir("/name").expect("folder");
    home.look_for_news();
    assert!(mount.at("name (2)").is_dir());
    // It turns out to be gone, and is about to be made again.
    let again = service.faults().add(FaultRule::on(
        "create_session",
        FaultAction::retry_after(429, "3600"),
    ));
    service.faults().remove(uploads);
    wait_for_hit(&service, again);
    leaves(&mount);
    wait::until("the name", wait::secs(20), || mount.at("name").is_dir());
    assert!(!mount.at("name (2)").exists());
    mount.unmount();
}

/// To the kernel a folder that was removed is dead for as long as somebody has it open.
#[test]
fn a_folder_that_comes_back_shows_what_is_in_it_also_to_who_had_it_open() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    for folder in ["/removed", "/replaced", "/replacing"] {
        drive.mkdir(folder).expect("folder");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let open = |name: &str| File::open(mount.at(name)).expect("folder");
    let held = [open("removed"), open("replaced")];
    mount.sync();

    let deletions = service
        .faults()
        .add(FaultRule::on("item", FaultAction::Hold));
    fs::remove_dir(mount.at("removed")).expect("removal");
    fs::rename(mount.at("replacing"), mount.at("replaced")).expect("rename");
    for file in ["/removed/theirs", "/replaced/theirs"] {
        drive.put(file, "theirs").expect("file");
    }
    service.faults().remove(deletions);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let files = || drive.dump().into_iter().filter(|entry| !entry.folder);
    assert_eq!(files().count(), 2);
    for entry in files() {
        let file = mount.at(entry.path.trim_start_matches('/'));
        assert_eq!(fs::read(&file).expect("file"), b"theirs");
        fs::write(file.with_file_name("ours"), "ours").expect("file");
    }
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    drop(held);
    mount.unmount();
}

/// A program saves to the name that a file is shown under because its own is taken here.
#[test]
fn a_save_to_a_name_for_the_moment_does_not_give_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/name", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("name")).expect("file"), b"old");
    mount.sync();

    let uploads = delete_while_it_is_sent(&home, &mount);
    drive.put("/name", "theirs").expect("file");
    let id = drive.entry("/name").expect("entry").id;
    home.look_for_news();
    assert_eq!(fs::read(mount.at("name (2)")).expect("file"), b"theirs");
    fs::write(mount.at("save.tmp"), "saved").expect("file");
    fs::rename(mount.at("save.tmp"), mount.at("name (2)")).expect("save");
    service.faults().remove(uploads);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let there: Vec<String> = drive.dump().into_iter().map(|entry| entry.path).collect();
    assert!(!there.iter().any(|path| path.contains("(2)")), "{there:?}");
    assert_eq!(drive.read("/name").as_deref(), Some(&b"saved"[..]));
    assert_eq!(drive.entry("/name").expect("entry").id, id);
    let is_new = |path: &String| drive.read(path).as_deref() == Some(b"new");
    assert!(there.iter().any(is_new), "{there:?}");
    mount.unmount();
}

/// A folder that had to be shown under another name for a while is made again under its own.
#[test]
fn a_name_for_the_moment_does_not_reach_the_service() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/name", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("name")).expect("file"), b"old");
    mount.sync();

    let uploads = delete_while_it_is_sent(&home, &mount);
    drive.mkdir("/name").expect("folder");
    home.look_for_news();
    let folders = service
        .faults()
        .add(FaultRule::on("mkdir", FaultAction::Hold).times(1));
    fs::create_dir(mount.at("name (2)/inside")).expect("folder in the folder");
    wait_for_hit(&service, folders);
    drive.delete("/name").expect("deletion");
    home.look_for_news();
    service.faults().remove(uploads);
    service.faults().remove(folders);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let mut there: Vec<String> = drive.dump().into_iter().map(|entry| entry.path).collect();
    there.sort();
    assert_eq!(there.len(), 3, "{there:?}");
    assert!(!there.iter().any(|path| path.contains("(2)")), "{there:?}");
    assert_eq!(drive.read("/name").as_deref(), Some(&b"new"[..]));
    mount.unmount();
}

/// A request creates a file that a save by rename took for another one meanwhile, and its answer is
/// lost. What it made is not there for good.
#[test]
fn what_a_request_makes_too_late_goes_again() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/kept", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("kept")).expect("file"), b"old");
    mount.sync();

    let once = |action| FaultRule::on("upload_fragment", action).times(1);
    let held = service.faults().add(once(FaultAction::Hold));
    service.faults().add(once(FaultAction::DropAfter));
    fs::write(mount.at("draft"), "new").expect("file");
    wait_for_hit(&service, held);
    fs::rename(mount.at("draft"), mount.at("kept")).expect("save");
    // Whatever was to be done about the draft by now was done before this.
    fs::write(mount.at("later"), "later").expect("file");
    wait::until("upload", wait::secs(30), || drive.read("/later").is_some());
    service.faults().remove(held);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.read("/draft"), None, "{:?}", drive.dump());
    assert_eq!(drive.read("/kept").as_deref(), Some(&b"new"[..]));
    mount.unmount();
}

/// The daemon dies while a new file is on its way, the file is renamed before the next one goes on,
/// and what that hears of it gets lost as well. Then the file is unlinked.
#[test]
fn what_a_later_daemon_makes_of_a_renamed_file_goes_with_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    let once = |action| FaultRule::on("upload_fragment", action).times(1);
    let stalled = service.faults().add(once(FaultAction::Stall));
    fs::write(mount.at("first"), "content").expect("file");
    wait_for_hit(&service, stalled);
    mount.crash();
    drop(mount);

    service.set_reach(Reach::Offline);
    let mount = home.mount();
    fs::rename(mount.at("first"), mount.at("second")).expect("rename");
    let lost = service.faults().add(once(FaultAction::DropAfter));
    service.set_reach(Reach::Online);
    wait_for_hit(&service, lost);
    fs::remove_file(mount.at("second")).expect("unlink");
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert!(drive.dump().is_empty(), "{:?}", drive.dump());
    mount.unmount();
}

/// While a folder is moved into another one here, somebody moves that into the first one, and back.
#[test]
fn a_move_that_is_refused_for_a_moment_is_not_given_up() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.mkdir("/a").expect("folder");
    drive.mkdir("/b").expect("folder");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert!(mount.at("a").is_dir() && mount.at("b").is_dir());
    mount.sync();

    let held = FaultRule::on("patch", FaultAction::Hold).times(1);
    let held = service.faults().add(held);
    fs::rename(mount.at("a"), mount.at("b/a")).expect("rename");
    wait_for_hit(&service, held);
    drive.rename("/b", "/a/b").expect("rename");
    service.faults().remove(held);
    let refused = || service.request_lines().join("\n").contains("? 400");
    wait::until("refusal", wait::secs(30), refused);
    drive.rename("/a/b", "/b").expect("rename");

    // If the move there is seen while it lasts, it wins, and the one here is taken back.
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 2, "{:?}", drive.dump());
    mount.unmount();
}

/// An answer shows a file as it was before an upload that was answered meanwhile, for another file
/// that took its place by a save.
#[test]
fn what_an_answer_saw_before_an_upload_that_a_save_took_over_is_no_conflict() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/file", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("file")).expect("file"), b"old");
    mount.sync();
    let once = |op, action| FaultRule::on(op, action).times(1);
    let etag = || {
        let mut tag = [0; 200];
        let len = rustix::fs::getxattr(mount.at("file"), "user.onedrive.etag", &mut tag);
        tag[..len.expect("tag")].to_vec()
    };

    // News of it come while it is on its way, and are put off.
    write(&mount, "file", "mine");
    let before = etag();
    wait::until("first upload", wait::secs(30), || etag() != before);
    let upload = service
        .faults()
        .add(once("upload_fragment", FaultAction::Hold));
    write(&mount, "file", "mine too");
    wait_for_hit(&service, upload);
    home.look_for_news();
    // Another file takes its place. As long as it is open it is not sent.
    let before = etag();
    let mut open = File::create(mount.at("temporary")).expect("file");
    open.write_all(b"saved").expect("write");
    open.sync_all().expect("sync");
    fs::rename(mount.at("temporary"), mount.at("file")).expect("save");
    // The end of any request is when what was put off is asked for.
    let id = drive.entry("/file").expect("file").id;
    let asked = once("item", FaultAction::HoldAnswer).at(&id);
    let asked = service.faults().add(asked);
    fs::write(mount.at("other"), "other").expect("file");
    wait_for_hit(&service, asked);
    service.faults().remove(upload);
    wait::until("answer", wait::secs(30), || etag() != before);
    service.faults().remove(asked);
    fs::write(mount.at("more"), "more").expect("file");
    wait::until("upload", wait::secs(30), || drive.read("/more").is_some());
    drop(open);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 3, "{:?}", drive.dump());
    assert_eq!(drive.read("/file").as_deref(), Some(&b"saved"[..]));
    mount.unmount();
}

/// Theirs was renamed to a name that was given up there, which is not known here yet: it is shown
/// beside it for a while. A save to it gives nobody that name.
#[test]
fn what_is_shown_beside_a_name_for_a_while_is_saved_under_its_own() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/left", "theirs").expect("file");
    drive.put("/moves", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();

    let deaf = FaultRule::on("delta", FaultAction::Hold);
    let deaf = service.faults().add(deaf);
    drive.delete("/left").expect("delete");
    drive.rename("/moves", "/left").expect("rename");
    write(&mount, "moves", "mine");
    // The upload learns of the new name, but not that it is free.
    let beside = mount.at("left (2)");
    wait::until("shown", wait::secs(30), || beside.exists());
    write(&mount, "left (2)", "mine too");
    let sent = || drive.read("/left").as_deref() == Some(b"mine too");
    wait::until("sent", wait::secs(30), sent);
    service.faults().remove(deaf);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(service.requests().count("patch"), 0, "nobody renamed it");
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    mount.unmount();
}

/// The same, when what holds the name is deleted here as well, and its deletion there becomes known
/// before the one here is sent.
#[test]
fn what_is_shown_beside_a_name_has_it_when_it_is_deleted_on_both_sides() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/left", "theirs").expect("file");
    drive.put("/moves", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let left = drive.entry("/left").expect("file").id;

    let deaf = FaultRule::on("delta", FaultAction::Hold);
    let deaf = service.faults().add(deaf);
    drive.delete("/left").expect("delete");
    drive.rename("/moves", "/left").expect("rename");
    write(&mount, "moves", "mine");
    let beside = mount.at("left (2)");
    wait::until("shown", wait::secs(30), || beside.exists());
    let asked = FaultRule::on("item", FaultAction::status(503)).at(&left);
    let asked = service.faults().add(asked);
    fs::remove_file(mount.at("left")).expect("unlink");
    service.faults().remove(deaf);
    home.look_for_news();
    let shown = || fs::read(mount.at("left")).is_ok_and(|content| content == b"mine");
    wait::until("its own name", wait::secs(30), shown);
    service.faults().remove(asked);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    mount.unmount();
}

/// A deletion was looked at and then had to wait: what others put into the folder meanwhile is not
/// deleted with it.
#[test]
fn what_comes_into_a_folder_while_its_deletion_waits_to_be_sent_is_kept() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.mkdir("/folder").expect("folder");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();

    let expired = FaultRule::on("delete", FaultAction::status(401)).times(1);
    service.faults().add(expired);
    let renewal = FaultRule::on("token", FaultAction::Hold);
    let renewal = service.faults().add(renewal);
    fs::remove_dir(mount.at("folder")).expect("rmdir");
    wait_for_hit(&service, renewal);
    drive.put("/folder/theirs", "theirs").expect("file");
    // As long as a look at a folder holds good.
    std::thread::sleep(wait::secs(4));
    service.faults().remove(renewal);

    mount.sync();
    assert_eq!(
        drive.read("/folder/theirs").as_deref(),
        Some(&b"theirs"[..])
    );
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// A save gets there and the daemon dies before it hears of that. Then the file is made what the
/// service was last known to have.
#[test]
fn content_that_comes_back_is_sent_although_it_is_what_the_service_was_known_to_have() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/file", "").expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    assert_eq!(fs::read(mount.at("file")).expect("file"), b"");
    mount.sync();

    let silent = FaultRule::on("upload_fragment", FaultAction::StallBody { bytes: 0 }).times(1);
    service.faults().add(silent);
    write(&mount, "file", "sent");
    wait::until("arrival", wait::secs(30), || {
        drive.read("/file").as_deref() == Some(&b"sent"[..])
    });
    drop(File::create(mount.at("file")).expect("emptied"));
    mount.crash();
    drop(mount);

    // What is found out is found out by the next upload.
    let rounds = service
        .faults()
        .add(FaultRule::on("delta", FaultAction::Hold));
    let mount = home.mount();
    wait::until("nothing to send", wait::secs(30), || {
        mount.status()["pending"]["ops"] == 0
    });
    service.faults().remove(rounds);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    assert_eq!(drive.read("/file").as_deref(), Some(&b""[..]));
    mount.unmount();
}

/// The daemon dies while a new file is on its way, and the next one has the file saved over another
/// one. Until its upload session is ended it could still make the file.
#[test]
fn an_upload_of_a_dead_daemon_is_ended_when_a_save_takes_the_file_elsewhere() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.put("/kept", "old").expect("file");
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    assert_eq!(fs::read(mount.at("kept")).expect("file"), b"old");
    mount.sync();

    let stalled = FaultRule::on("upload_fragment", FaultAction::Stall).times(1);
    let stalled = service.faults().add(stalled);
    fs::write(mount.at("draft"), "new").expect("file");
    wait_for_hit(&service, stalled);
    mount.crash();
    drop(mount);
    let sessions = || service.sessions().as_array().map_or(0, Vec::len);
    assert_eq!(sessions(), 1);

    service.set_reach(Reach::Offline);
    let mount = home.mount();
    fs::rename(mount.at("draft"), mount.at("kept")).expect("save");
    // As long as it is open it is not sent.
    let open = File::options().append(true).open(mount.at("kept"));
    let mut open = open.expect("file");
    open.write_all(b"er").expect("write");
    let before = service.last_request();
    service.set_reach(Reach::Online);
    wait::until("end of the session", wait::secs(30), || sessions() == 0);
    let looked = || {
        let all = service.requests().since(before);
        let of = |op: &str| all.iter().position(|request| request.op == op);
        of("upload_cancel").zip(of("item"))
    };
    wait::until("a look at what was made", wait::secs(30), || {
        looked().is_some()
    });
    assert!(looked().is_some_and(|(ended, looked)| ended < looked));
    drop(open);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    assert_eq!(drive.read("/kept").as_deref(), Some(&b"newer"[..]));
    mount.unmount();
}

/// A file is saved over another one, whose identity it takes over, and deleted, all while an upload to
/// the identity that it had before is on its way.
#[test]
fn a_deletion_waits_on_when_an_upload_to_an_earlier_identity_is_answered() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    fs::write(mount.at("first"), "first").expect("file");
    fs::write(mount.at("second"), "second").expect("file");
    mount.sync();

    let held = FaultRule::on("upload_fragment", FaultAction::HoldAnswer).times(1);
    let held = service.faults().add(held);
    write(&mount, "first", "again");
    wait_for_hit(&service, held);
    fs::rename(mount.at("first"), mount.at("second")).expect("save");
    fs::remove_file(mount.at("second")).expect("deletion");
    service.faults().remove(held);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert!(drive.dump().is_empty(), "{:?}", drive.dump());
    mount.unmount();
}

/// The answer to an upload shows what somebody put in its place a moment after it arrived. What was
/// sent is among the older versions then, and what the answer shows is neither replaced nor deleted
/// unseen.
#[test]
fn what_replaces_an_upload_before_its_answer_is_made_is_not_taken_for_its_result() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    // Libraries write into documents on arrival, which looks the same.
    for name in ["doc", "doc.docx"] {
        for known in [false, true] {
            for meanwhile in ["nothing", "rm", "more"] {
                replaced_before_the_answer(name, known, meanwhile);
            }
        }
    }
}

fn replaced_before_the_answer(name: &str, known: bool, meanwhile: &str) {
    let case = format!("{name}, known: {known}, {meanwhile}");
    let there = format!("/{name}");
    let service = unannounced();
    service.set_knobs(|knobs| knobs.empty_commit_body = true);
    let drive = service.default_drive();
    if known {
        drive.put(&there, "older").expect("file");
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let held = FaultRule::on("item", FaultAction::Hold).times(1);
    let held = service.faults().add(held);
    fs::write(mount.at(name), "ours").expect("file");
    wait_for_hit(&service, held);
    assert_eq!(drive.read(&there).as_deref(), Some(&b"ours"[..]));
    drive.put(&there, "theirs, a moment later").expect("file");
    match meanwhile {
        "rm" => fs::remove_file(mount.at(name)).expect("deletion"),
        "more" => write(&mount, name, "ours again"),
        _ => {}
    }
    service.faults().remove(held);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let theirs = fs::read_to_string(mount.at(name)).expect("theirs");
    assert_eq!(theirs, "theirs, a moment later", "{case}");
    let expected = if meanwhile == "more" { 2 } else { 1 };
    assert_eq!(drive.dump().len(), expected, "{case}: {:?}", drive.dump());
    mount.unmount();
}

/// The answer to an upload says nothing, and somebody has renamed what arrived and put another file in
/// its place: that has the name, and is not ours for it.
#[test]
fn what_has_the_name_of_an_upload_is_not_taken_for_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    service.set_knobs(|knobs| knobs.empty_commit_body = true);
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let held = FaultRule::on("item", FaultAction::Hold).times(1);
    let held = service.faults().add(held);
    fs::write(mount.at("doc"), "ours").expect("file");
    wait_for_hit(&service, held);
    drive.rename("/doc", "/moved").expect("renamed");
    let other = drive.put("/doc", "theirs").expect("file");
    service.faults().remove(held);
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(drive.read("/doc").as_deref(), Some(&b"theirs"[..]));
    let entry = drive.entry("/doc").expect("entry");
    assert_eq!((entry.id, entry.versions), (other, 1));
    assert_eq!(drive.read("/moved").as_deref(), Some(&b"ours"[..]));
    mount.unmount();
}

/// Whoever has a name that a new file wants has left it by the time that is heard, because of what was
/// done here: the name is free then, and no conflict copy is made.
#[test]
fn a_name_that_was_left_meanwhile_is_taken() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for renamed in [true, false] {
        let service = unannounced();
        let drive = service.default_drive();
        drive.put("/a", "first").expect("file");
        let home = Home::signed_in(&service);
        let mount = home.mount();
        assert_eq!(fs::read(mount.at("a")).expect("file"), b"first");
        mount.sync();

        drive.rename("/a", "/b").expect("rename");
        let held = FaultRule::on("item", FaultAction::HoldAnswer).times(1);
        let held = service.faults().add(held);
        fs::write(mount.at("b"), "second").expect("new file");
        wait_for_hit(&service, held);
        if renamed {
            fs::rename(mount.at("a"), mount.at("c")).expect("rename");
        } else {
            fs::remove_file(mount.at("a")).expect("unlink");
        }
        wait::until("what was done", wait::secs(30), || {
            drive.entry("/b").is_none()
        });
        service.faults().remove(held);

        mount.sync();
        tree::assert_in_step(mount.path(), &drive);
        let names: Vec<String> = drive.dump().into_iter().map(|entry| entry.path).collect();
        let expected: &[&str] = if renamed { &["/b", "/c"] } else { &["/b"] };
        assert_eq!(names, expected, "renamed: {renamed}");
        assert_eq!(drive.read("/b").as_deref(), Some(&b"second"[..]));
        mount.unmount();
    }
}

/// The service takes two names for one that are two here, and somebody has the other one: the new file
/// gets another name at once.
#[test]
fn a_name_that_only_the_service_takes_for_another_one_is_given_up() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| config.knobs.ae_rule = true);
    let drive = service.default_drive();
    drive.put("/ae.txt", "first").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    fs::write(mount.at("æ.txt"), "second").expect("new file");
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    let contents: Vec<Option<Vec<u8>>> = (drive.dump().iter())
        .map(|entry| drive.read(&entry.path))
        .collect();
    assert_eq!(contents.len(), 2, "{:?}", drive.dump());
    assert_eq!(drive.read("/ae.txt").as_deref(), Some(&b"first"[..]));
    assert!(
        contents.contains(&Some(b"second".to_vec())),
        "{:?}",
        drive.dump()
    );
    mount.unmount();
}

/// The service wants another token before it deletes a folder, and somebody puts a file into that
/// while the token is waited for.
#[test]
fn a_folder_is_looked_into_again_when_its_deletion_had_to_wait() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = unannounced();
    let drive = service.default_drive();
    drive.mkdir("/folder").expect("folder");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let faults = service.faults();
    faults.add(FaultRule::on("delete", FaultAction::ExpireTokens).times(1));
    let tokens = faults.add(FaultRule::on("token", FaultAction::Hold).times(1));
    fs::remove_dir(mount.at("folder")).expect("rmdir");
    wait_for_hit(&service, tokens);
    drive.put("/folder/theirs", "theirs").expect("file");
    // Longer than what the service was asked before counts for.
    std::thread::sleep(wait::secs(1));
    faults.remove(tokens);

    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    assert_eq!(
        drive.read("/folder/theirs").as_deref(),
        Some(&b"theirs"[..])
    );
    mount.unmount();
}

/// Files swap names in rings, many at once. Each ring is broken by a third name, and the others of it
/// meet what is half done.
#[test]
fn rings_of_names_end_without_conflict_copies() {
    const RINGS: usize = 60;
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for ring in 0..RINGS {
        drive.mkdir(&format!("/{ring}")).expect("folder");
        for name in ["a", "b", "c"] {
            drive.put(&format!("/{ring}/{name}"), name).expect("file");
        }
    }
    let home = Home::signed_in(&service);
    let mount = home.mount_args(&["--option", "parallel_uploads=64"]);
    mount.sync();
    for _ in 0..3 {
        for ring in 0..RINGS {
            for (from, to) in [("a", "x"), ("b", "a"), ("c", "b"), ("x", "c")] {
                let at = |name: &str| mount.at(&format!("{ring}/{name}"));
                fs::rename(at(from), at(to)).expect("rename");
            }
        }
        mount.sync();
    }
    tree::assert_in_step(mount.path(), &drive);
    for ring in 0..RINGS {
        for name in ["a", "b", "c"] {
            let path = format!("/{ring}/{name}");
            assert_eq!(
                drive.read(&path).as_deref(),
                Some(name.as_bytes()),
                "{path}"
            );
        }
    }
    assert_eq!(drive.dump().len(), RINGS * 4, "{:?}", drive.dump());
    mount.unmount();
}
