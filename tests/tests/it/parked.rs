//! Changes that cannot be sent are named, block nothing else, and are dealt with by a person.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};
use serde_json::Value;

use crate::files;

/// Has the service refuse every change.
fn refuse_changes(service: &Service) {
    for op in ["create_session", "put_content", "mkdir", "patch", "delete"] {
        let refused = FaultRule::on(op, FaultAction::status(403));
        service.faults().add(refused);
    }
}

/// What is parked: paths with what was to be sent.
fn parked(mount: &Mount<'_>) -> Vec<(String, String)> {
    let status = mount.status();
    let text = |entry: &Value, key: &str| entry[key].as_str().expect("text").to_owned();
    let entries = status["parked"].as_array().expect("list").iter();
    let mut parked: Vec<_> = entries
        .inspect(|entry| assert!(text(entry, "error").contains("403"), "{entry}"))
        .map(|entry| (text(entry, "path"), text(entry, "op")))
        .collect();
    parked.sort();
    parked
}

fn pair(path: &str, op: &str) -> (String, String) {
    (path.to_owned(), op.to_owned())
}

#[test]
fn what_is_refused_is_named_survives_kill_9_and_is_dealt_with() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["doc.txt", "old.txt", "gone.txt", "kept.txt", "moved.txt"] {
        drive.put(&format!("/{name}"), name).expect("file");
    }
    let home = Home::signed_in(&service);
    let mut mount = home.mount();
    mount.sync();
    refuse_changes(&service);
    home.sh(
        r#"cd "$M"; echo mine > doc.txt; mv old.txt new.txt; rm gone.txt kept.txt
        mkdir dir; echo inner > dir/inner; mkdir folly; mv moved.txt folly/"#,
    );
    let all = [
        pair("dir", "create"),
        pair("doc.txt", "upload"),
        pair("folly", "create"),
        pair("gone.txt", "delete"),
        pair("kept.txt", "delete"),
        pair("new.txt", "move"),
    ];
    wait::until("all parked", wait::secs(60), || parked(&mount) == all);
    home.try_sync(5).explained(1, "");
    mount.crash();
    drop(mount);
    service.faults().clear();
    let mount = home.mount();
    assert_eq!(parked(&mount), all, "after the death of the daemon");
    fs::write(mount.at("unrelated"), "x").expect("written");
    wait::until("the unrelated one", wait::secs(60), || {
        drive.exists("/unrelated")
    });
    assert_eq!(mount.status_of("doc.txt")["status"], "parked");
    assert!(mount.status()["last_delta"].is_string());

    let command = |verb: &str, below: &str| {
        let path = mount.at(below);
        let mut command = home.command(&[verb, path.to_str().expect("UTF-8")]);
        command.current_dir(home.work());
        onedrivefs_tests::process::run(command, wait::secs(60))
    };
    command("export", "doc.txt").ok();
    assert_eq!(
        fs::read(home.work().join("doc.txt")).expect("read"),
        b"mine\n"
    );
    command("export", "dir").explained(1, "folder");
    command("discard", "doc.txt").ok();
    assert_eq!(home.sh(r#"cat "$M/doc.txt""#), "doc.txt");
    command("discard", "gone.txt").ok();
    assert_eq!(home.sh(r#"cat "$M/gone.txt""#), "gone.txt");
    command("discard", "folly").ok();
    assert!(!mount.at("folly").exists() && mount.at("moved.txt").exists());
    command("discard", "doc.txt").explained(1, "nothing is parked");
    command("retry", "new.txt").ok();
    command("retry", "kept.txt").ok();
    command("retry", "dir").ok();
    mount.sync();
    assert_eq!(parked(&mount), []);
    let paths: Vec<String> = drive.dump().into_iter().map(|e| e.path).collect();
    let expected = [
        "/dir",
        "/dir/inner",
        "/doc.txt",
        "/gone.txt",
        "/moved.txt",
        "/new.txt",
        "/unrelated",
    ];
    assert_eq!(paths, expected);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// Giving up a folder that the service refuses does not give up what nobody has named.
#[test]
fn a_folder_that_holds_what_is_only_here_is_not_given_up() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/edited.txt", "there").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    refuse_changes(&service);
    home.sh(
        r#"cd "$M"; mkdir -p dir/deeper; echo new > dir/deeper/new.txt; echo part > dir/x.part
        echo mine > edited.txt; mv edited.txt dir/"#,
    );
    wait::until("parked", wait::secs(60), || {
        parked(&mount).contains(&pair("dir", "create"))
    });
    let path = mount.at("dir");
    let discard = || home.run(&["discard", path.to_str().expect("UTF-8")]);
    for (inside, text) in [
        ("dir/deeper/new.txt", "new\n"),
        ("dir/x.part", "part\n"),
        ("dir/edited.txt", "mine\n"),
    ] {
        discard().explained(1, "only on this machine");
        let kept = fs::read_to_string(mount.at(inside));
        assert_eq!(kept.expect("still there"), text, "{inside}");
        let name = Path::new(inside).file_name().expect("name");
        fs::rename(mount.at(inside), mount.path().join(name)).expect("moved out");
    }
    discard().ok();
    assert!(!path.exists());
    service.faults().clear();
    home.run(&["retry", mount.path().to_str().expect("UTF-8")])
        .ok();
    mount.sync();
    assert_eq!(drive.read("/new.txt").as_deref(), Some(&b"new\n"[..]));
    assert_eq!(drive.read("/edited.txt").as_deref(), Some(&b"mine\n"[..]));
    assert_eq!(fs::read(mount.at("x.part")).expect("here"), b"part\n");
    mount.unmount();
}

#[test]
fn an_export_fetches_what_was_never_here_or_leaves_nothing() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let mut body = files::noise(1, 12 << 20);
    drive.put("/large.bin", body.clone()).expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    refuse_changes(&service);
    let file = fs::File::options().write(true).open(mount.at("large.bin"));
    let file = file.expect("opened");
    file.write_all_at(b"edited in place", 5 << 20)
        .expect("written");
    drop(file);
    body[5 << 20..(5 << 20) + 15].copy_from_slice(b"edited in place");
    // Before anything of it was fetched for the upload, and so that it stays so.
    let export = || {
        let path = mount.at("large.bin");
        let mut command = home.command(&["export", path.to_str().expect("UTF-8")]);
        command.current_dir(home.work());
        onedrivefs_tests::process::run(command, wait::secs(120))
    };
    wait::until("parked", wait::secs(60), || parked(&mount).len() == 1);
    service.set_reach(Reach::Offline);
    wait::until("offline", wait::secs(60), || {
        drop(home.try_sync(1));
        mount.status()["state"] == "offline"
    });
    export().explained(1, "never downloaded");
    assert!(
        !home.work().join("large.bin").exists(),
        "half a file was left"
    );
    service.set_reach(Reach::Online);
    wait::until("the export", wait::secs(90), || export().code == Some(0));
    let exported = fs::read(home.work().join("large.bin")).expect("read");
    assert!(exported == body, "other bytes");
    mount.unmount();
}

#[test]
fn conflicts_are_listed_once_and_as_long_as_their_copy_is_there() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/a.txt", "base").expect("file");
    let home = Home::signed_in(&service);
    home.configure("upload_delay = 2000\n");
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    fs::write(mount.at("a.txt"), "here").expect("written");
    drive.put("/a.txt", "there").expect("changed");
    mount.sync();
    let conflicts = || {
        mount.status()["conflicts"]
            .as_array()
            .expect("list")
            .clone()
    };
    let listed = conflicts();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let copy = listed[0]["copy"].as_str().expect("text");
    fs::remove_file(mount.at(copy)).expect("removed");
    assert_eq!(conflicts().len(), 0);
    mount.unmount();
}
