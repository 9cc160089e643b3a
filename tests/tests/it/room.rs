//! A drive without room, and other ways to lose a file by accident.

use std::fs;

use onedrivefs_tests::{Home, Need, Service, needs};
use serde_json::Value;

#[test]
fn what_a_full_drive_refuses_is_named_and_sent_when_there_is_room() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    // The mount learnt a generous quota; meanwhile others filled the drive.
    drive.set_quota(1000);
    fs::write(mount.at("report.bin"), vec![7; 5000]).expect("accepted: it is safe here");
    let refused = home.try_sync(60);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let status = mount.status();
    let parked = &status["parked"][0];
    assert_eq!(parked["path"], "report.bin");
    let error = parked["error"].as_str().expect("error");
    assert!(error.contains("the drive is full"), "{error}");
    assert_eq!(
        fs::read(mount.at("report.bin")).expect("still here").len(),
        5000
    );

    drive.set_quota(1 << 30);
    mount.sync();
    assert_eq!(mount.status()["parked"], Value::Array(Vec::new()));
    assert_eq!(drive.read("/report.bin").expect("sent").len(), 5000);
    mount.unmount();
}

#[test]
fn copying_a_file_onto_another_spelling_of_itself_does_not_empty_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/readme", "precious").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let copied = home.sh(r#"cd "$M"; if cp readme README 2>/dev/null; then echo copied; fi"#);
    assert_eq!(copied, "");
    assert_eq!(
        fs::read_to_string(mount.at("readme")).expect("read"),
        "precious"
    );
    mount.sync();
    assert_eq!(
        drive.read("/readme").expect("there"),
        b"precious".as_slice()
    );
    mount.unmount();
}
