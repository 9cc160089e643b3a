//! What the doctor finds, and what it tells strangers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use onedrivefs_tests::{Home, Need, needs, wait};
use serde_json::Value;

use crate::world::{self, SECRET, TENANT, app_login, text};

/// The checks by name.
fn examine(home: &Home<'_>) -> Vec<(String, String, String)> {
    let ran = home.run(&["doctor", "--json"]);
    let checks: Value = serde_json::from_str(&ran.out).expect("JSON");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let all = checks.as_array().expect("list").iter();
    all.map(|check| {
        (
            text(check, "check"),
            text(check, "verdict"),
            text(check, "detail"),
        )
    })
    .collect()
}

fn find<'a>(checks: &'a [(String, String, String)], name: &str) -> &'a (String, String, String) {
    let found = checks.iter().find(|(check, ..)| check.contains(name));
    found.unwrap_or_else(|| panic!("no check of {name}: {checks:#?}"))
}

#[test]
fn everything_from_fuse_to_the_bytes_of_files_is_looked_at() {
    let service = world::start();
    service.default_drive().put("/file.txt", "x").expect("file");
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let checks = examine(&home);
    for name in [
        "FUSE",
        "fusermount3",
        "state directory",
        "cache directory",
        "configuration",
        "systemd",
        "keyring",
        "proxy",
        "sign-in host: DNS",
        "sign-in host",
        "Graph host",
        "clock",
        "kept in",
        ": sign-in",
        ": permissions",
        ": drive",
        "content host",
    ] {
        find(&checks, name);
    }
    for name in [
        "Graph host",
        "content host",
        ": sign-in",
        ": permissions",
        ": drive",
    ] {
        assert_eq!(find(&checks, name).1, "ok", "{name}");
    }
}

#[test]
fn cf_18_fe_14_ap_11_requested_and_granted_permissions_are_compared() {
    let service = world::start();
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public", "--sites"])
        .ok();
    let checks = examine(&home);
    let (_, verdict, detail) = find(&checks, ": permissions");
    assert_eq!(verdict, "ok", "{detail}");
    assert!(detail.contains("Sites.Read.All"), "{detail}");
    service.set_knobs(|knobs| {
        knobs.grant_only = Some(vec![
            "Files.ReadWrite.All".into(),
            "User.Read".into(),
            "offline_access".into(),
        ]);
    });
    let warned = home.run(&["login", "--device-code", "--client-id", "public", "--sites"]);
    assert!(
        warned
            .err
            .contains("not granted, though asked for: Sites.Read.All"),
        "{}",
        warned.err
    );
    let checks = examine(&home);
    let (_, verdict, detail) = find(&checks, ": permissions");
    assert_eq!(verdict, "warn", "{detail}");
    assert!(detail.contains("not granted: Sites.Read.All"), "{detail}");
}

#[test]
fn al_12_the_three_roles_of_an_application_are_listed() {
    let service = world::start();
    let home = Home::new(&service);
    app_login(&home, &["--user", "ada@example.com"]).ok();
    let checks = examine(&home);
    let (_, verdict, detail) = find(&checks, ": permissions");
    assert_eq!(verdict, "ok", "{detail}");
    for role in ["Files.ReadWrite.All", "Sites.Read.All", "User.Read.All"] {
        assert!(detail.contains(role), "{detail}");
    }
    service.set_client("daemon", |client| {
        client.roles = vec!["Files.Read.All".into()];
    });
    service.expire_tokens();
    // The kept token is still fresh by this machine's clock; a new sign-in tells what holds now.
    app_login(&home, &["--user", "ada@example.com"]).ok();
    let checks = examine(&home);
    let (_, verdict, detail) = find(&checks, ": permissions");
    assert_eq!(verdict, "warn", "{detail}");
    assert!(
        detail.contains("Files.ReadWrite.All for changing files"),
        "{detail}"
    );
}

#[test]
fn cf_03_the_hosts_to_allow_are_printed_with_those_of_the_bytes() {
    let service = world::start();
    let home = Home::new(&service);
    let ran = home.run(&["doctor", "--network"]);
    for host in [
        "127.0.0.1",
        "*.sharepoint.com",
        "my.microsoftpersonalcontent.com",
        "*.1drv.com",
    ] {
        assert!(ran.out.contains(host), "{}", ran.out);
    }
    let ran = ran.ok();
    assert!(ran.contains("answers"), "{ran}");
    for (cloud, host) in [
        ("china", "*.sharepoint.cn"),
        ("usgov-l4", "*.sharepoint.us"),
        ("usgov-l5", "*.sharepoint-mil.us"),
    ] {
        let home = Home::new(&service);
        home.run(&[
            "login",
            "--device-code",
            "--client-id",
            "public",
            "--cloud",
            cloud,
            "--tenant",
            TENANT,
        ])
        .ok();
        let ran = home.run(&["doctor", "--network"]);
        assert!(
            ran.out.contains(host) && !ran.out.contains("1drv"),
            "{}",
            ran.out
        );
    }
    service.set_reach(onedrivefs_sim::Reach::Offline);
    let ran = home.run(&["doctor", "--network", "--json"]);
    assert_eq!(ran.code, Some(1));
    let hosts: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(hosts[0]["verdict"], "fail", "{hosts}");
}

#[test]
fn a_full_drive_an_open_file_and_a_lost_sign_in_are_found() {
    let service = world::start();
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let drive = service.default_drive();
    drive.set_quota(1_000_000);
    drive.put("/large", vec![1_u8; 990_000]).expect("file");
    let checks = examine(&home);
    assert_eq!(find(&checks, ": drive").1, "warn");
    drop(drive);
    service.revoke_refresh_tokens();
    service.expire_tokens();
    let token = home.account_state().join("token.json");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("mode");
    let checks = examine(&home);
    assert_eq!(find(&checks, "kept in").1, "warn");
    assert_eq!(find(&checks, ": drive").1, "fail");
    let ran = home.run(&["doctor"]);
    assert!(ran.out.contains("next: "), "{}", ran.out);
}

#[test]
fn a_wrong_clock_a_name_that_nobody_knows_and_a_full_disk_are_found() {
    let service = world::start();
    let mut home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    service.set_back(Duration::from_secs(600));
    let checks = examine(&home);
    let (_, verdict, detail) = find(&checks, "clock");
    assert_eq!(verdict, "fail", "{detail}");
    assert!(detail.contains("differs by 6"), "{detail}");
    if needs::met(&[Need::Namespaces]) {
        let mut command = home.program("unshare");
        command
            .args([
                "-m",
                "sh",
                "-euc",
                "mount -t tmpfs -o size=40m none \"$XDG_CACHE_HOME\"; exec \"$BIN\" doctor",
            ])
            .env("BIN", home.binary());
        fs::create_dir_all(home.path("cache")).expect("directory");
        let ran = onedrivefs_tests::process::run(command, wait::secs(60));
        assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
        assert!(
            ran.out.contains("free some space on that disk"),
            "{}",
            ran.out
        );
    }
    // A top-level name that is never given to anybody.
    home.set_env("ONEDRIVEFS_GRAPH_URL", "https://graph.invalid/v1.0");
    let ran = home.run(&["doctor"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains("graph.invalid is not found"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("name server"), "{}", ran.out);
}

#[test]
fn a_report_for_strangers_names_nobody_and_nothing_secret() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    home.configure("proxy = \"http://ada:hush-hush@127.0.0.1:9\"\npoll = 31\n");
    app_login(
        &home,
        &["--account", "secret-project", "--user", "ada@example.com"],
    )
    .ok();
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    service
        .default_drive()
        .put("/private name.txt", "x")
        .expect("file");
    let mount = home.mount();
    mount.sync();
    let file = home.work().join("report.txt");
    let written = home.run(&["doctor", "--report", text(&file)]);
    assert!(
        written.out.contains("report.txt"),
        "{}{}",
        written.out,
        written.err
    );
    let mode = fs::metadata(&file).expect("report").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let report = fs::read_to_string(&file).expect("report");
    for told in [
        "onedrivefs 0",
        "FUSE",
        "poll = 31",
        "\"state\":\"",
        "business",
        "granted",
        "== checks",
    ] {
        assert!(report.contains(told), "{told}: {report}");
    }
    let drive = service.default_drive().id().to_owned();
    for hidden in [
        SECRET,
        "hush-hush",
        "ada@example.com",
        "ada Example",
        TENANT,
        "secret-project",
        "private name",
        drive.as_str(),
        text(mount.path()),
        text(&home.path("state")),
    ] {
        assert!(!report.contains(hidden), "{hidden}: {report}");
    }
    mount.unmount();
}
