//! Applications that sign in by themselves, with a secret.

use std::fs;

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::world::{self, SECRET, TENANT, app_login, private_file, run_with_input, text};

fn organisation() -> Service {
    let service = world::start();
    let drives = service.drives();
    drives[0].put("/of-ada.txt", "ada").expect("file");
    drives[1].put("/of-ben.txt", "ben").expect("file");
    service
}

#[test]
fn cf_15_an_application_mounts_a_drive_with_nobody_signed_in() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    let login = app_login(&home, &["--user", "ada@example.com"]);
    let shown = login.out.clone();
    assert!(
        shown.contains("Signed in as the application daemon"),
        "{shown}"
    );
    assert!(shown.contains("Files.ReadWrite.All"), "{shown}");
    login.ok();
    let mount = home.mount();
    assert_eq!(fs::read(mount.at("of-ada.txt")).expect("read"), b"ada");
    fs::write(mount.at("new.txt"), "new").expect("written");
    mount.sync();
    assert_eq!(
        service.drives()[0].read("/new.txt").as_deref(),
        Some(b"new".as_slice())
    );
    // Push does not exist for applications, which is said.
    let status = mount.status();
    assert_eq!(status["sign_in"]["kind"], "app", "{status}");
    assert_eq!(status["push"], false, "{status}");
    let told = home.run(&["status", text(mount.path())]).ok();
    assert!(
        told.contains("an application gets no announcements"),
        "{told}"
    );
    mount.unmount();
}

#[test]
fn an_application_follows_its_own_links_and_nobody_elses() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let drive = &service.drives()[0];
    drive
        .put("/of-ada.rclonelink", "/etc/passwd")
        .expect("file");
    let target = |path: std::path::PathBuf| fs::read_link(path).expect("link");
    let home = Home::new(&service);
    app_login(&home, &["--user", "ada@example.com"]).ok();
    let mount = home.mount();
    std::os::unix::fs::symlink("of-ada.txt", mount.at("own")).expect("link");
    mount.sync();
    assert!(drive.exists("/own.rclonelink"));
    mount.unmount();
    // Elsewhere, where nothing is known but what the service tells.
    let other = Home::new(&service);
    app_login(&other, &["--user", "ada@example.com"]).ok();
    let mount = other.mount();
    mount.sync();
    assert_eq!(target(mount.at("own")).to_str(), Some("of-ada.txt"));
    let found = fs::symlink_metadata(mount.at("of-ada.rclonelink")).expect("metadata");
    assert!(found.is_file(), "the drive's owner is somebody else");
    mount.unmount();
    // To her it is the other way round: what the application wrote is not hers.
    let ada = Home::new(&service);
    ada.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let mount = ada.mount();
    mount.sync();
    assert_eq!(target(mount.at("of-ada")).to_str(), Some("/etc/passwd"));
    let found = fs::symlink_metadata(mount.at("own.rclonelink")).expect("metadata");
    assert!(found.is_file(), "an application wrote it");
    mount.unmount();
}

#[test]
fn cf_16_a_token_is_renewed_without_a_refresh_token_terminal_or_session() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &["--user", "ada@example.com"]).ok();
    let kept = fs::read_to_string(home.account_state().join("token.json")).expect("token");
    assert!(
        kept.contains("\"refresh_token\": null"),
        "no refresh token is kept"
    );
    let mount = home.mount_args(&["--poll", "1"]);
    for number in 0..3 {
        service.expire_tokens();
        let name = format!("after-{number}");
        fs::write(mount.at(&name), "x").expect("written");
        mount.sync();
        assert!(service.drives()[0].exists(&format!("/{name}")));
    }
    assert_ne!(mount.status()["state"], "needs-login");
    mount.unmount();
}

#[test]
fn al_04_a_profile_works_after_months_unused() {
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    service.advance(wait::secs(200 * 86_400));
    service.expire_tokens();
    home.run(&["users"]).ok();
}

#[test]
fn al_01_one_profile_serves_every_mailbox_without_another_login() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    home.try_mount(&[]).explained(2, "no drive of its own");
    let at = |name: &str, user: &str| MountSpec {
        arguments: vec!["--user".into(), user.into()],
        mountpoint: Some(home.make_dir(name)),
        ..MountSpec::default()
    };
    let before = service.last_request();
    let ada = home.mount_with(at("ada", "ada@example.com"));
    // By id, too.
    let ben = home.mount_with(at("ben", "ben"));
    assert_eq!(fs::read(ada.at("of-ada.txt")).expect("read"), b"ada");
    assert_eq!(fs::read(ben.at("of-ben.txt")).expect("read"), b"ben");
    let tokens = service.requests().since(before);
    let tokens = tokens.iter().filter(|record| record.op == "token").count();
    assert_eq!(tokens, 0, "both use the token of the login");
    ada.unmount();
    ben.unmount();
}

#[test]
fn cf_21_an_application_needs_a_tenant_of_its_own() {
    let service = organisation();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    let before = service.last_request();
    for tenant in ["common", "organizations", "consumers", ""] {
        let ran = home.run(&[
            "login",
            "--app-only",
            "--client-id",
            "daemon",
            "--tenant",
            tenant,
            "--client-secret-file",
            text(&secret),
        ]);
        ran.explained(2, "belongs to one tenant");
        assert!(ran.err.contains("directory (tenant) id"), "{}", ran.err);
    }
    assert_eq!(service.last_request(), before, "nobody was asked");
    // By domain, too.
    home.run(&[
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        "example.com",
        "--client-secret-file",
        text(&secret),
    ])
    .ok();
}

#[test]
fn al_05_login_warns_of_what_the_secret_opens_and_names_the_way_to_limit_it() {
    let service = organisation();
    let home = Home::new(&service);
    let ran = app_login(&home, &["--user", "ada@example.com"]);
    assert!(
        ran.err.contains("can read the files of everybody") && ran.err.contains("Sites.Selected"),
        "{}",
        ran.err
    );
    ran.ok();
}

#[test]
fn cf_22_unknown_people_and_those_without_a_drive_are_told_apart() {
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &["--user", "nobody@example.com"]).explained(1, "no such user");
    let unprovisioned = app_login(&home, &["--user", "new@example.com"]);
    unprovisioned.explained(1, "new@example.com");
    assert!(
        unprovisioned.err.contains("not provisioned"),
        "{}",
        unprovisioned.err
    );
    app_login(&home, &[]).ok();
    home.try_mount(&["--user", "nobody@example.com"])
        .explained(1, "no such user");
}

#[test]
fn al_03_a_mount_in_advance_waits_until_the_drive_exists() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let mut mount = home.begin_mount(MountSpec {
        arguments: vec!["--user".into(), "new@example.com".into()],
        ..MountSpec::default()
    });
    wait::until("the report", wait::secs(30), || {
        mount.log().contains("not provisioned")
    });
    let drive = service.add_drive(onedrivefs_sim::DriveSpec {
        owner: "new".into(),
        ..onedrivefs_sim::DriveSpec::default()
    });
    drive.put("/there.txt", "there").expect("file");
    assert!(mount.comes_up());
    assert_eq!(fs::read(mount.at("there.txt")).expect("read"), b"there");
    mount.unmount();
}

#[test]
fn cf_17_missing_admin_consent_is_explained_with_the_address_that_gives_it() {
    let service = organisation();
    service.set_client("daemon", |client| client.app_roles = false);
    let home = Home::new(&service);
    let ran = app_login(&home, &[]);
    ran.explained(1, "nothing was granted");
    let address = format!(
        "{}/{TENANT}/adminconsent?client_id=daemon",
        service.login_url()
    );
    assert!(ran.err.contains(&address), "{}", ran.err);
    service.set_client("daemon", |client| client.app_roles = true);
    app_login(&home, &[]).ok();
}

#[test]
fn al_17_a_token_without_scp_or_roles_is_explained_wherever_it_is_met() {
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    service.set_client("daemon", |client| client.app_roles = false);
    service.expire_tokens();
    let ran = home.run(&["users"]);
    ran.explained(1, "scp or roles");
    assert!(ran.err.contains("administrator consent"), "{}", ran.err);
}

#[test]
fn al_16_people_are_listed_or_the_place_is_named_where_they_are() {
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let all = home.run(&["users"]).ok();
    assert!(
        all.contains("ada@example.com") && all.contains("ben@example.com"),
        "{all}"
    );
    assert_eq!(home.run(&["drives", "--users"]).ok(), all);
    let own = home.run(&["drives"]);
    own.explained(2, "no drives of its own");
    assert!(own.err.contains("--users"), "{}", own.err);
    service.set_client("daemon", |client| {
        client.roles = vec!["Files.ReadWrite.All".into()];
    });
    service.expire_tokens();
    for command in [
        &["users"][..],
        &["drives", "--users"],
        &["drives", "--users", "--json"],
    ] {
        let ran = home.run(command);
        ran.explained(1, "listing people");
        assert!(
            ran.err.contains("User.Read.All") && ran.err.contains("admin.microsoft.com"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn kl_16_an_application_needs_the_files_permission_only_and_more_does_no_harm() {
    let service = organisation();
    let home = Home::new(&service);
    for roles in [
        &["Files.ReadWrite.All"][..],
        &[
            "Directory.ReadWrite.All",
            "Files.ReadWrite.All",
            "Group.ReadWrite.All",
            "Sites.ReadWrite.All",
            "User.ReadWrite.All",
        ],
    ] {
        let roles: Vec<String> = roles.iter().map(|&role| role.to_owned()).collect();
        service.set_client("daemon", |client| client.roles = roles);
        app_login(&home, &["--user", "ada@example.com"]).ok();
    }
}

#[test]
fn cf_13_a_secret_comes_from_a_file_or_standard_input_and_is_never_an_argument() {
    let service = organisation();
    let mut home = Home::new(&service);
    home.set_env("ONEDRIVEFS_LOG", "trace");
    let base = [
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
    ];
    let piped = [&base[..], &["--client-secret-file", "-"]].concat();
    let first = run_with_input(&home, &piped, &format!("{SECRET}\n"));
    assert_eq!(first.code, Some(0), "{}", first.err);
    // What was piped in is kept for later renewals.
    service.expire_tokens();
    let users = home.run(&["users"]);
    assert_eq!(users.code, Some(0), "{}", users.err);
    home.set_env("ONEDRIVEFS_LOG", "error");
    let argument = [&base[..], &["--client-secret", SECRET]].concat();
    assert_eq!(home.run(&argument).code, Some(2));
    let no_terminal = [&base[..], &["--client-secret"]].concat();
    home.run(&no_terminal).explained(2, "no terminal");
    let empty = private_file(&home, "empty", "\n");
    let ran = home.run(&[&base[..], &["--client-secret-file", text(&empty)]].concat());
    ran.explained(2, "nothing in it");
    home.run(&[&base[..], &["--client-secret-file", "/nonexistent"]].concat())
        .explained(1, "/nonexistent");
    home.set_env("ONEDRIVEFS_LOG", "trace");
    service.set_client("daemon", |client| client.secret = Some("another".into()));
    service.expire_tokens();
    let refused = home.run(&["users"]);
    assert!(refused.err.contains("secret is wrong"), "{}", refused.err);
    world::assert_hidden(&home, &[&first, &users, &refused], &[SECRET]);
    home.set_env("ONEDRIVEFS_LOG", "error");
    home.run(&["logout"]).ok();
    assert!(!home.account_state().join("client-secret").exists());
    home.run(&["users"]).explained(1, "signed in");
}

#[test]
fn cf_13_a_secret_can_be_typed_and_is_not_shown() {
    if !needs::met(&[Need::Program("script")]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    private_file(&home, "typed", &format!("{SECRET}\n"));
    let typed = format!(
        "(sleep 2; cat typed) | script -qec '{} login --app-only --client-id daemon \
         --tenant {TENANT} --client-secret' /dev/null",
        home.binary().display()
    );
    let shown = home.sh(&typed);
    assert!(shown.contains("client secret:"), "{shown}");
    assert!(shown.contains("Signed in as the application"), "{shown}");
    assert!(!shown.contains(SECRET), "what is typed is shown");
    service.expire_tokens();
    home.run(&["users"]).ok();
}

#[test]
fn fe_11_the_id_of_a_secret_is_recognised_before_it_is_refused() {
    let service = organisation();
    let home = Home::new(&service);
    let id = private_file(&home, "id", "0f0e0d0c-1111-2222-3333-444444444444");
    let ran = home.run(&[
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--client-secret-file",
        text(&id),
    ]);
    ran.explained(1, "value");
    assert!(
        ran.err.contains("looks like a secret's *id*"),
        "{}",
        ran.err
    );
}

#[test]
fn cf_23_the_combined_name_of_another_program_is_imported() {
    let service = organisation();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    let import = |name: &str| {
        home.run(&[
            "app",
            "import",
            name,
            "--tenant",
            TENANT,
            "--user",
            "ada@example.com",
            "--client-secret-file",
            text(&secret),
        ])
    };
    import("daemon").explained(2, "app_permission~");
    import("app_permission~").explained(2, "app_permission~");
    import("app_permission~daemon").ok();
    let accounts = home.run(&["accounts"]).ok();
    assert!(accounts.contains("application daemon"), "{accounts}");
}

#[test]
fn cf_19_cf_20_al_15_ap_05_id_secret_tenant_and_user_are_set_in_the_configuration_or_by_flags() {
    let service = organisation();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    // All from the file, with no login at all: an unattended machine is set up by files.
    home.configure(&format!(
        "account = \"work\"\n[accounts.work]\napp_only = true\nclient_id = \"daemon\"\n\
         tenant = \"{TENANT}\"\nclient_secret_file = \"{}\"\nuser = \"ada@example.com\"\n",
        secret.display()
    ));
    let users = home.run(&["users"]).ok();
    assert!(users.contains("ada@example.com"), "{users}");
    assert!(home.run(&["accounts"]).ok().contains("application daemon"));
    assert!(
        home.run(&["doctor"])
            .out
            .contains("account work: permissions")
    );
    home.run(&["login"]).ok();
    // A flag wins over the file, and the environment gives the client id.
    let wrong = home.run(&["login", "--client-id", "nobody"]);
    wrong.explained(1, "unknown in this tenant");
    home.configure("");
    let mut home = home;
    home.set_env("ONEDRIVEFS_CLIENT_ID", "daemon");
    home.run(&[
        "login",
        "--account",
        "other",
        "--app-only",
        "--tenant",
        "example.com",
        "--client-secret-file",
        text(&secret),
    ])
    .ok();
}

#[test]
fn al_21_every_wrong_parameter_has_an_error_of_its_own() {
    let service = organisation();
    let home = Home::new(&service);
    let good = private_file(&home, "good", SECRET);
    let bad = private_file(&home, "bad", "not~the-secret-of_this.application");
    let attempt = |tenant: &str, id: &str, secret: &std::path::Path, user: &str| {
        home.run(&[
            "login",
            "--app-only",
            "--tenant",
            tenant,
            "--client-id",
            id,
            "--client-secret-file",
            text(secret),
            "--user",
            user,
        ])
    };
    let ada = "ada@example.com";
    let sentence = |ran: &onedrivefs_tests::Ran| {
        ran.err
            .lines()
            .find(|line| line.starts_with("onedrivefs: "))
            .unwrap_or_default()
            .to_owned()
    };
    let mut told = Vec::new();
    let mut check = |ran: onedrivefs_tests::Ran, says: &str| {
        ran.explained(1, says);
        told.push(sentence(&ran));
    };
    check(
        attempt("88888888-2222-3333-4444-555555555555", "daemon", &good, ada),
        "no such tenant",
    );
    check(
        attempt(world::OTHER_TENANT, "daemon", &good, ada),
        "unknown in this tenant",
    );
    check(attempt(TENANT, "daemon", &bad, ada), "secret is wrong");
    check(
        attempt(TENANT, "daemon", &good, "nobody@example.com"),
        "no such user",
    );
    check(
        attempt(TENANT, "daemon", &good, "new@example.com"),
        "mysite",
    );
    service.set_client("daemon", |client| client.app_roles = false);
    check(attempt(TENANT, "daemon", &good, ada), "nothing was granted");
    service.set_client("daemon", |client| {
        client.app_roles = true;
        client.roles = vec!["User.Read.All".into()];
    });
    let ran = attempt(TENANT, "daemon", &good, ada);
    assert!(ran.err.contains("Files.ReadWrite.All"), "{}", ran.err);
    check(ran, "ccess denied");
    service.set_client("daemon", |client| client.secret_expired = true);
    check(attempt(TENANT, "daemon", &good, ada), "secret has expired");
    service.set_client("daemon", |client| client.disabled = true);
    check(attempt(TENANT, "daemon", &good, ada), "disabled");
    let all = told.len();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), all, "two errors read the same: {told:#?}");
}

#[test]
fn fe_12_an_expired_secret_is_told_with_its_date_and_what_to_do() {
    let service = organisation();
    let home = Home::new(&service);
    service.set_client("daemon", |client| client.secret_expired = true);
    let ran = app_login(&home, &["--secret-expires", "2026-01-31"]);
    ran.explained(1, "AADSTS7000222");
    assert!(
        ran.err.contains("2026-01-31") && ran.err.contains("--client-secret-file"),
        "{}",
        ran.err
    );
}

#[test]
fn ap_06_a_secret_is_replaced_while_mounted_and_warned_about_before() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    let desktop = onedrivefs_tests::Desktop::start(&service, &home.path("run"));
    let soon = home.sh("date -u -d '+10 days' +%F");
    let login = app_login(
        &home,
        &["--user", "ada@example.com", "--secret-expires", soon.trim()],
    );
    assert!(login.err.contains("expires in 10 days"), "{}", login.err);
    login.ok();
    let mount = home.mount_args(&["--poll", "1"]);
    let note = desktop.wait_for("a sign-in ends soon");
    assert!(
        note.body.contains("onedrivefs login --account default"),
        "{note:?}"
    );
    let status = mount.status();
    assert_eq!(status["sign_in"]["expires"]["days"], 10, "{status}");
    let told = home.run(&["status", text(mount.path())]).ok();
    assert!(told.contains("expires in 10 days"), "{told}");
    assert!(
        mount.log().contains("expires in 10 days"),
        "{}",
        mount.log()
    );
    // The old secret is taken away; what is written meanwhile waits.
    service.set_client("daemon", |client| {
        client.secret = Some("brand~new_secret.value-here".into());
    });
    service.expire_tokens();
    fs::write(mount.at("meanwhile"), "kept").expect("written");
    wait::until("the state", wait::secs(60), || {
        mount.status()["state"] == "needs-login"
    });
    let note = desktop.wait_for("sign-in needed");
    assert!(
        note.body.contains("onedrivefs login --account default"),
        "{note:?}"
    );
    let told = home.run(&["status", text(mount.path())]).ok();
    assert!(told.contains("client secret is wrong"), "{told}");
    // Replacing the file is enough; nobody has to unmount or sign in.
    private_file(&home, "secret", "brand~new_secret.value-here");
    wait::until("the file", wait::secs(120), || {
        service.drives()[0].exists("/meanwhile")
    });
    wait::until("online", wait::secs(60), || {
        mount.status()["state"] == "online"
    });
    mount.unmount();
}

#[test]
fn fe_22_an_application_has_its_folder_in_a_drive_that_is_named() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = organisation();
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let drive = &service.drives()[1];
    home.try_mount(&["--app-folder"])
        .explained(2, "no drive of its own");
    let mount = home.mount_args(&["--app-folder", "--drive", drive.id()]);
    assert_eq!(fs::read_dir(mount.path()).expect("listing").count(), 0);
    fs::write(mount.at("own.txt"), "own").expect("written");
    mount.sync();
    assert_eq!(
        drive.read("/Apps/onedrivefs/own.txt").as_deref(),
        Some(&b"own"[..])
    );
    mount.unmount();
}
