//! The desktop is told what needs attention, once and in words.

use std::fs;

use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_tests::{Desktop, Home, Need, Service, needs, wait};

/// Has the service refuse every upload of a file.
fn refuse_uploads(service: &Service) {
    for op in ["create_session", "put_content"] {
        let refused = FaultRule::on(op, FaultAction::status(403));
        service.faults().add(refused);
    }
}

fn parked(mount: &onedrivefs_tests::Mount<'_>) -> usize {
    mount.status()["parked"].as_array().expect("list").len()
}

#[test]
fn parked_changes_conflicts_and_held_deletions_are_shown() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for number in 0..120 {
        drive.put(&format!("/many/{number}"), "x").expect("file");
    }
    drive.put("/both.txt", "base").expect("file");
    let home = Home::signed_in(&service);
    home.configure("upload_delay = 3000\n");
    let desktop = Desktop::start(&service, &home.path("run"));
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    assert!(desktop.shown().is_empty(), "{:?}", desktop.shown());

    refuse_uploads(&service);
    fs::write(mount.at("<b>bold & loud<b>\u{1b}[2J.txt"), "x").expect("written");
    let note = desktop.wait_for("a change could not be sent");
    assert!(
        note.body.contains("&lt;b&gt;bold &amp; loud&lt;"),
        "{note:?}"
    );
    assert!(
        !note.body.contains('\u{1b}') && !note.body.contains('<'),
        "{note:?}"
    );

    for number in 0..12 {
        fs::write(mount.at(&format!("refused {number}")), "x").expect("written");
    }
    wait::until("all parked", wait::secs(60), || parked(&mount) == 13);
    let note = desktop.wait_for("changes could not be sent");
    assert!(note.body.contains("onedrivefs status"), "{note:?}");

    service.faults().clear();
    home.sh(r#"rm -r "$M/many""#);
    let note = desktop.wait_for("deletions held back");
    assert!(note.summary.contains("121 deletions"), "{note:?}");
    assert!(note.body.contains("onedrivefs retry"), "{note:?}");

    drive.put("/both.txt", "changed there").expect("changed");
    fs::write(mount.at("both.txt"), "changed here").expect("written");
    let note = desktop.wait_for("both versions were kept");
    assert!(note.body.contains("both (conflict "), "{note:?}");
    // A few of many: they come as numbers.
    let shown = desktop.shown();
    assert!(shown.len() <= 8, "{shown:?}");
    mount.unmount();
}

#[test]
fn an_expired_sign_in_is_shown_once() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let desktop = Desktop::start(&service, &home.path("run"));
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    service.revoke_refresh_tokens();
    service.expire_tokens();
    // Something is announced, so that it is noticed.
    service.default_drive().put("/new", "x").expect("file");
    let note = desktop.wait_for("sign-in needed");
    assert!(note.body.contains("onedrivefs login"), "{note:?}");
    let before = service.last_request();
    wait::until("several more tries", wait::secs(60), || {
        service.last_request() > before + 5
    });
    assert_eq!(desktop.shown().len(), 1, "{:?}", desktop.shown());
    mount.unmount();
}

#[test]
fn notifications_can_be_switched_off_and_need_no_bus() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let desktop = Desktop::start(&service, &home.path("run"));
    refuse_uploads(&service);
    let mount = home.mount_args(&["--option", "notifications=false"]);
    fs::write(mount.at("refused"), "x").expect("written");
    wait::until("parked", wait::secs(60), || parked(&mount) == 1);
    mount.unmount();
    assert!(desktop.shown().is_empty(), "{:?}", desktop.shown());
    drop(desktop);
    let mount = home.mount();
    fs::write(mount.at("refused too"), "x").expect("written");
    wait::until("parked", wait::secs(60), || parked(&mount) == 2);
    mount.unmount();
}
