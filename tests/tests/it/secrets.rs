//! What grants access is seen by nobody but its owner.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use onedrivefs_sim::FileBody;
use onedrivefs_tests::{Home, Need, Service, needs, wait};
use serde_json::Value;

use crate::files::MIB;

/// Shortest text that counts as a secret, in bytes: shorter ones occur by chance.
const SECRET_LEN_MIN: usize = 16;

/// Everything in the request log and the token file that would let somebody in.
fn secrets(service: &Service, home: &Home<'_>) -> Vec<String> {
    let mut all = Vec::new();
    let file = fs::read(home.account_state().join("token.json")).expect("token file");
    collect_tokens(&serde_json::from_slice(&file).expect("JSON"), &mut all);
    assert!(all.len() >= 2, "access and refresh token: {}", all.len());
    for record in service.requests().since(0) {
        match record.op {
            "download" => all.push(record.query.clone()),
            "upload_fragment" | "upload_status" | "upload_cancel" => {
                all.push(record.query.clone());
                all.extend(record.path.rsplit('/').next().map(str::to_owned));
            }
            _ => {}
        }
    }
    all.retain(|secret| secret.len() >= SECRET_LEN_MIN);
    all.sort();
    all.dedup();
    all
}

fn collect_tokens(value: &Value, all: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= 40 => all.push(text.clone()),
        Value::Object(fields) => fields.values().for_each(|v| collect_tokens(v, all)),
        Value::Array(items) => items.iter().for_each(|v| collect_tokens(v, all)),
        _ => {}
    }
}

fn assert_free_of(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(
            !text.contains(secret.as_str()),
            "{what} shows a secret of {} bytes: {}…",
            secret.len(),
            &secret[..8]
        );
    }
    for mark in ["tempauth=", "Bearer ey", "refresh_token="] {
        assert!(!text.contains(mark), "{what} shows {mark}");
    }
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    found.permissions().mode() & 0o777
}

#[test]
fn no_token_and_no_upload_or_download_address_is_shown_anywhere() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let body = FileBody::Generated {
        seed: 1,
        size: 12 * MIB,
    };
    drive.put("/there.bin", body).expect("file");
    let mut home = Home::new(&service);
    // All that a person could be asked to turn on for a report.
    home.set_env("ONEDRIVEFS_LOG", "trace");
    home.log_in();
    let mut shown = String::new();
    let mount = home.mount_args(&["--poll", "1"]);
    fs::read(mount.at("there.bin")).expect("read");
    fs::write(mount.at("here.bin"), vec![7; 12 << 20]).expect("written");
    mount.sync();
    // Failures are where addresses leak.
    service.expire_urls();
    service.expire_tokens();
    drive
        .put(
            "/there.bin",
            FileBody::Generated {
                seed: 2,
                size: 12 * MIB,
            },
        )
        .expect("file");
    mount.sync();
    fs::read(mount.at("there.bin")).expect("read with a renewed address");
    fs::write(mount.at("here.bin"), vec![8; 12 << 20]).expect("written");
    wait::until("an upload", wait::secs(30), || {
        service.sessions().as_array().is_some_and(|s| !s.is_empty())
            || mount.status()["pending"]["ops"] == 0
    });
    service.set_reach(onedrivefs_sim::Reach::Offline);
    fs::write(mount.at("later.bin"), vec![9; 1 << 20]).expect("written");
    wait::until("offline", wait::secs(60), || {
        mount.status()["state"] == "offline"
    });
    let status = home.run(&["status", "--json"]);
    shown.push_str(&status.out);
    shown.push_str(&status.err);
    for arguments in [
        ["status"].as_slice(),
        &["doctor"],
        &["accounts", "--json"],
        &["drives"],
        &["sync", "--timeout", "2"],
    ] {
        let ran = home.run(arguments);
        shown.push_str(&ran.out);
        shown.push_str(&ran.err);
    }
    service.set_reach(onedrivefs_sim::Reach::Online);
    mount.sync();
    let command = fs::read(format!("/proc/{}/cmdline", mount.pid())).expect("command line");
    let names: Vec<String> = drive.dump().into_iter().map(|e| e.path).collect();
    let secrets = secrets(&service, &home);
    assert!(secrets.len() > 5, "the test has nothing to look for");
    assert_free_of("the log", &mount.log(), &secrets);
    assert_free_of("a command", &shown, &secrets);
    assert_free_of("ps", &String::from_utf8_lossy(&command), &secrets);
    assert_free_of("the drive", &names.join("\n"), &secrets);
    assert!(mount.log().len() > 10_000, "trace was not on");
    mount.unmount();
}

#[test]
fn state_is_closed_to_other_users() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    home.configure("poll = 30\n");
    let mount = home.mount();
    fs::write(mount.at("file"), "text").expect("written");
    mount.sync();
    let account = home.account_state();
    assert_eq!(mode(&account), 0o700);
    assert_eq!(mode(&account.join("token.json")), 0o600);
    let mut seen = 0;
    let mut open = vec![
        account.parent().expect("state").to_owned(),
        home.path("cache/onedrivefs"),
        home.path("run/onedrivefs"),
    ];
    while let Some(path) = open.pop() {
        let kind = fs::symlink_metadata(&path).expect("metadata");
        if kind.is_dir() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
            let entries = fs::read_dir(&path).expect("directory").flatten();
            open.extend(entries.map(|entry| entry.path()));
        } else if !path.ends_with("CACHEDIR.TAG") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    mount.unmount();
}
