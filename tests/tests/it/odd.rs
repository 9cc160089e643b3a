//! What a drive can hold besides files and folders is shown in a way that harms nobody.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use onedrivefs_sim::{BodyForm, DriveKind, DriveSpec, FaultAction, FaultRule, SimConfig};
use onedrivefs_tests::{Home, Need, Service, needs, wait};

/// A drive with one of each, next to an ordinary folder.
fn oddities() -> Service {
    let service =
        Service::with(|config| config.drives = SimConfig::with_kind(DriveKind::Personal).drives);
    let drive = service.default_drive();
    drive.put("/Folder/ordinary.txt", "ordinary").expect("file");
    drive.add_package("/Folder/Notebook").expect("package");
    drive.put("/Folder/infected.exe", "EICAR").expect("file");
    drive
        .set_malware("/Folder/infected.exe", true)
        .expect("mark");
    drive.mkdir("/Vault").expect("folder");
    drive.set_vault("/Vault", true).expect("mark");
    let theirs = service.add_drive(DriveSpec::default());
    let shared = theirs.mkdir("/Shared").expect("folder");
    theirs.put("/Shared/theirs.txt", "theirs").expect("file");
    drive
        .add_shortcut("/Folder/Shared with me", theirs.id(), &shared)
        .expect("shortcut");
    drive
        .add_shortcut("/Folder/Broken", theirs.id(), "01NOSUCHITEM")
        .expect("shortcut");
    service
}

#[test]
fn everything_that_is_no_file_or_folder_is_listed_and_stops_no_program() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = oddities();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let listed =
        home.sh(r#"cd "$M"; ls -laR; find . | sort; du -sh . > /dev/null; df . > /dev/null"#);
    assert!(!listed.contains("??"), "{listed}");
    for name in [
        "Notebook",
        "infected.exe",
        "Vault",
        "Shared with me",
        "ordinary.txt",
    ] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    assert_eq!(home.sh(r#"cat "$M/Folder/ordinary.txt""#), "ordinary");
    let infected = fs::read(mount.at("Folder/infected.exe")).expect_err("withheld");
    assert_eq!(infected.kind(), ErrorKind::PermissionDenied, "{infected}");
    let into = fs::write(mount.at("Folder/Notebook/page.txt"), "x").expect_err("refused");
    assert_eq!(into.kind(), ErrorKind::PermissionDenied, "{into}");
    // Looking around again and again asks the service for nothing: no loop.
    let before = service.last_request();
    home.sh(r#"cd "$M"; for i in 1 2 3; do ls -laR > /dev/null; find . > /dev/null; done"#);
    let asked = service.requests().since(before);
    let listings = asked.iter().filter(|record| record.op.contains("children"));
    assert_eq!(listings.count(), 0, "{:#?}", service.request_lines());
    mount.unmount();
}

#[test]
fn tidying_up_empty_folders_spares_a_notebook() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = oddities();
    let drive = service.default_drive();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"cd "$M/Folder"; mkdir empty; ! rmdir Notebook 2> /dev/null
        ! mv -T empty Notebook 2> /dev/null; find . -depth -type d -name Notebook -empty -delete 2> /dev/null || true
        rmdir empty; mv Notebook Renamed; test -d Renamed"#);
    mount.sync();
    assert!(drive.exists("/Folder/Renamed"), "{:?}", drive.dump());
    assert!(!drive.exists("/Folder/empty"));
    mount.unmount();
}

#[test]
fn a_shortcut_is_removed_without_touching_what_it_leads_to() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = oddities();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"rm -r "$M/Folder/Shared with me""#);
    mount.sync();
    assert!(!service.default_drive().exists("/Folder/Shared with me"));
    let theirs = service.drives().into_iter().find(|d| d.exists("/Shared"));
    assert_eq!(
        theirs
            .and_then(|drive| drive.read("/Shared/theirs.txt"))
            .as_deref(),
        Some(b"theirs".as_slice())
    );
    mount.unmount();
}

#[test]
fn a_file_that_somebody_has_locked_is_saved_here_and_sent_when_it_is_free() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let id = drive.put("/budget.xlsx", "first").expect("file");
    drive.set_locked("/budget.xlsx", true).expect("lock");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(
        r#"cd "$M"; test "$(cat budget.xlsx)" = first; printf second > budget.xlsx
        test "$(cat budget.xlsx)" = second; printf x > other.txt"#,
    );
    wait::until("the other file", Duration::from_secs(20), || {
        drive.exists("/other.txt")
    });
    assert_eq!(
        drive.read("/budget.xlsx").as_deref(),
        Some(b"first".as_slice())
    );
    assert_eq!(mount.status_of("budget.xlsx")["id"], id);
    assert_ne!(mount.status()["pending"]["ops"], 0, "{}", mount.status());
    drive.set_locked("/budget.xlsx", false).expect("unlock");
    home.run(&["retry", mount.path().to_str().expect("UTF-8")]);
    mount.wait_sent(wait::secs(60));
    assert_eq!(
        drive.read("/budget.xlsx").as_deref(),
        Some(b"second".as_slice())
    );
    assert_eq!(drive.entry("/budget.xlsx").expect("entry").id, id);
    mount.unmount();
}

/// Libraries may want a file to be checked out before it is changed, or somebody else has done so.
#[test]
fn a_file_that_is_checked_out_can_be_read_and_what_is_saved_waits() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let id = drive.put("/plan.txt", "first").expect("file");
    let refused = FaultAction::Status {
        status: 423,
        code: Some("accessDenied".into()),
        inner: None,
        retry_after: None,
        form: BodyForm::default(),
        body: Some("The file is checked out for editing by ben@example.com.".into()),
        after_effect: false,
    };
    let ops = ["create_session", "put_content", "patch"];
    for op in ops {
        service.faults().add(FaultRule::on(op, refused.clone()));
    }
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(
        r#"cd "$M"; test "$(cat plan.txt)" = first; printf second > plan.txt
        touch -d 2020-01-01 plan.txt; test "$(cat plan.txt)" = second"#,
    );
    wait::until("a refusal", Duration::from_secs(20), || {
        ops.iter().any(|op| service.requests().count(op) > 0)
    });
    assert_ne!(mount.status()["pending"]["ops"], 0, "{}", mount.status());
    assert_eq!(mount.status()["parked"], serde_json::json!([]));
    service.faults().clear();
    home.run(&["retry", mount.path().to_str().expect("UTF-8")]);
    mount.wait_sent(wait::secs(60));
    assert_eq!(
        drive.read("/plan.txt").as_deref(),
        Some(b"second".as_slice())
    );
    assert_eq!(drive.entry("/plan.txt").expect("entry").id, id);
    mount.unmount();
}
