//! People who sign in through a browser or with a code.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::world::{self, SECRET, TENANT, begin_login, parameter, private_file, text};

#[test]
fn fe_05_cf_28_cf_30_a_browser_ends_the_login_by_itself() {
    let service = world::start();
    let home = Home::new(&service);
    let login = begin_login(&home, &["--client-id", "public"]).expect("an address");
    for name in ["state", "code_challenge"] {
        assert!(
            parameter(&login.address, name).is_some_and(|value| value.len() > 20),
            "{name}"
        );
    }
    assert_eq!(
        parameter(&login.address, "code_challenge_method").as_deref(),
        Some("S256")
    );
    let ran = login.browse();
    assert!(
        ran.out
            .contains("Signed in as ada Example <ada@example.com>"),
        "{}{}",
        ran.out,
        ran.err
    );
    ran.ok();
    // CF-28: later commands need nothing.
    service.expire_tokens();
    home.run(&["drives"]).ok();
}

#[test]
fn cf_08_cf_09_fe_09_kl_04_a_web_registration_sends_its_secret_and_its_redirect_byte_for_byte() {
    let service = world::start();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    let redirect = "http://localhost:9090/register_microsoft_graph_api/";
    let web = |more: &[&str]| {
        let base = ["--client-id", "web", "--redirect-uri", redirect];
        begin_login(&home, &[&base[..], more].concat())
    };
    let login = web(&["--client-secret-file", text(&secret)]).expect("an address");
    assert_eq!(
        parameter(&login.address, "redirect_uri").as_deref(),
        Some(redirect)
    );
    login.browse().ok();
    service.expire_tokens();
    home.run(&["drives"]).ok();
    // Without the secret the code is worth nothing.
    home.run(&["logout", "--forget"]).ok();
    let ran = web(&[]).expect("an address").browse();
    ran.explained(1, "AADSTS7000218");
    // A redirect that differs in one byte is refused by the page.
    let wrong = begin_login(
        &home,
        &[
            "--client-id",
            "web",
            "--redirect-uri",
            "http://localhost:9090/register_microsoft_graph_api",
        ],
    )
    .expect("an address");
    let (status, _, page) = world::visit(&wrong.address);
    assert_eq!(status, 400);
    assert!(page.contains("AADSTS50011"), "{page}");
    wrong.kill();
}

#[test]
fn cf_10_ap_04_an_https_redirect_is_ended_by_pasting() {
    let service = world::start();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    let begin = || {
        begin_login(
            &home,
            &[
                "--client-id",
                "web",
                "--redirect-uri",
                "https://own.host/callback",
                "--client-secret-file",
                text(&secret),
            ],
        )
        .expect("an address")
    };
    let login = begin();
    let back = login.approve();
    assert!(back.starts_with("https://own.host/callback?"), "{back}");
    login.end(&format!("{back}\n")).ok();
    let nothing = begin().end("");
    nothing.explained(2, "no address was pasted");
    let stray = begin().end("https://own.host/callback?code=x&state=y\n");
    stray.explained(1, "does not belong to this sign-in");
    let elsewhere = begin().end("https://own.host:8443/callback?code=x&state=y\n");
    elsewhere.explained(
        1,
        "redirect URI mismatch: registered https://own.host/callback",
    );
}

#[test]
fn cf_11_a_port_that_cannot_be_listened_on_is_a_mismatch_with_both_names() {
    let service = world::start();
    let home = Home::new(&service);
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("port");
    let port = taken.local_addr().expect("address").port();
    let _other = TcpListener::bind(("::1", port));
    let redirect = format!("http://localhost:{port}/");
    let ran = home.run(&[
        "login",
        "--client-id",
        "public",
        "--redirect-uri",
        &redirect,
    ]);
    ran.explained(2, &format!("redirect URI mismatch: registered {redirect}"));
    assert!(!ran.err.contains("AADSTS"), "{}", ran.err);
    for bad in ["http://own.host/x", "nonsense", "ftp://localhost/"] {
        home.run(&["login", "--client-id", "public", "--redirect-uri", bad])
            .explained(2, "redirect URI");
    }
}

#[test]
fn a_browser_on_another_machine_is_served_by_pasting() {
    let service = world::start();
    let home = Home::new(&service);
    let login = begin_login(&home, &["--client-id", "public", "--paste"]).expect("an address");
    let back = login.approve();
    login.end(&format!("  {back}  \n")).ok();
}

#[test]
fn kl_13_ap_10_a_sign_in_that_would_end_within_hours_is_told_at_once() {
    let service = world::start();
    let home = Home::new(&service);
    service.set_knobs(|knobs| {
        knobs.grant_only = Some(vec!["Files.ReadWrite.All".into(), "User.Read".into()]);
    });
    let ran = home.run(&["login", "--device-code", "--client-id", "public"]);
    assert!(
        ran.err.contains("offline_access") && ran.err.contains("within hours"),
        "{}",
        ran.err
    );
    ran.ok();
}

#[test]
fn kl_12_kl_14_kl_15_the_sets_of_the_guides_are_enough() {
    let service = world::start();
    for (number, set) in [
        &[
            "offline_access",
            "profile",
            "openid",
            "Files.ReadWrite.All",
            "User.Read",
        ][..],
        &[
            "offline_access",
            "Files.ReadWrite.All",
            "Sites.Manage.All",
            "User.Read",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let home = Home::new(&service);
        let account = format!("set-{number}");
        let mut arguments = vec![
            "login",
            "--device-code",
            "--client-id",
            "public",
            "--account",
            &account,
        ];
        for scope in set {
            arguments.extend(["--scope", scope]);
        }
        let ran = home.run(&arguments);
        assert!(!ran.err.contains("warning"), "{}", ran.err);
        ran.ok();
        home.run(&["drives"]).ok();
    }
}

#[test]
fn fe_13_fe_19_ap_09_login_asks_for_no_more_than_the_mode_needs() {
    let service = world::start();
    let home = Home::new(&service);
    for (flags, asked) in [
        (&[][..], "Files.ReadWrite.All+User.Read+offline_access"),
        (&["--read-only"], "Files.Read.All+User.Read+offline_access"),
        (
            &["--sites"],
            "Files.ReadWrite.All+Sites.Read.All+User.Read+offline_access",
        ),
    ] {
        let login =
            begin_login(&home, &[&["--client-id", "public"], flags].concat()).expect("an address");
        assert_eq!(parameter(&login.address, "scope").as_deref(), Some(asked));
        login.kill();
    }
}

fn sign_in_with(home: &Home<'_>, scopes: &[&str]) {
    let mut arguments = vec![
        "login",
        "--device-code",
        "--client-id",
        "public",
        "--scope",
        "offline_access",
    ];
    for scope in scopes {
        arguments.extend(["--scope", scope]);
    }
    home.run(&arguments).ok();
}

#[test]
fn fe_16_fe_18_read_permissions_make_a_read_only_mount_that_refuses_before_asking() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    for scopes in [&["Files.Read", "User.Read"][..], &["Files.Read.All"]] {
        let service = world::start();
        let drive = service.default_drive();
        drive.put("/there.txt", "there").expect("file");
        let home = Home::new(&service);
        sign_in_with(&home, scopes);
        let mount = home.mount();
        mount.sync();
        assert_eq!(fs::read(mount.at("there.txt")).expect("read"), b"there");
        let before = service.last_request();
        let error = fs::write(mount.at("new.txt"), "x").expect_err("read-only");
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{error}");
        let error = fs::remove_file(mount.at("there.txt")).expect_err("read-only");
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{error}");
        let asked = service.requests().since(before);
        let changes: Vec<_> = asked
            .iter()
            .filter(|record| record.method != "GET")
            .collect();
        assert!(changes.is_empty(), "{changes:?}");
        assert!(drive.exists("/there.txt"));
        mount.unmount();
    }
}

#[test]
fn fe_17_kl_11_what_was_not_granted_is_unavailable_and_nothing_else_is() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    sign_in_with(&home, &["Files.ReadWrite"]);
    let mount = home.mount();
    fs::write(mount.at("own.txt"), "own").expect("written");
    mount.sync();
    assert!(service.default_drive().exists("/own.txt"));
    mount.unmount();
    let other = service.drives()[1].id().to_owned();
    let before = service.last_request();
    let ran = home.try_mount(&["--drive", &other]);
    ran.explained(1, "Files.Read.All was not granted");
    assert!(ran.err.contains("onedrivefs login"), "{}", ran.err);
    let ran = home.run(&["drives", "--site", "Team"]);
    ran.explained(1, "Sites.Read.All was not granted");
    assert!(ran.err.contains("--sites"), "{}", ran.err);
    assert_eq!(service.last_request(), before, "nobody was asked");
}

#[test]
fn cf_29_an_account_without_the_permission_is_detected_at_login() {
    let service = world::start();
    let home = Home::new(&service);
    service.set_knobs(|knobs| {
        knobs.grant_only = Some(vec!["User.Read".into(), "offline_access".into()]);
    });
    let ran = home.run(&["login", "--device-code", "--client-id", "public"]);
    ran.explained(
        1,
        "signed in as ada@example.com, but reading the drive failed",
    );
    assert!(!home.account_state().join("token.json").exists());
}

#[test]
fn kl_32_kl_33_kl_34_admin_approval_is_explained_and_the_login_goes_on_after_it() {
    let service = Service::with(|config| {
        world::organisation(config);
        config.tenants[0].consent_by_admin = true;
    });
    let home = Home::new(&service);
    let arguments = ["login", "--client-id", "public", "--tenant", "example.com"];
    let login = begin_login(&home, &arguments[1..]).expect("an address");
    let back = login.approve();
    world::visit(&back);
    let ran = login.end("");
    ran.explained(1, "lets only administrators approve");
    assert!(
        ran.err.contains("ask for approval on the sign-in page"),
        "{}",
        ran.err
    );
    let address = format!(
        "{}/example.com/adminconsent?client_id=public&redirect_uri=http%3A%2F%2Flocalhost",
        service.login_url()
    );
    assert!(ran.err.contains(&address), "{}", ran.err);
    // The same address can be asked for, and the administrator follows it.
    let printed = home.run(&["login", "--admin-consent-url"]).ok();
    assert_eq!(printed.trim(), address);
    let (_, back, page) = world::visit(&address);
    let back = back.unwrap_or_else(|| panic!("{page}"));
    let told = home.run(&["login", "--admin-consent-result", &back]).ok();
    assert!(
        told.contains(&format!("approved the application in the tenant {TENANT}")),
        "{told}"
    );
    let refused = home.run(&[
        "login",
        "--admin-consent-result",
        "http://localhost/?error=access_denied&error_description=AADSTS65004%3A+declined",
    ]);
    refused.explained(1, "declined");
    home.run(&["login", "--admin-consent-result", "http://localhost/"])
        .explained(2, "admin_consent");
    // One word takes it up: what was set is remembered.
    begin_login(&home, &[]).expect("an address").browse().ok();
    // With a code instead of a browser the same is said.
    let other = Home::new(&service);
    other
        .run(&[
            "login",
            "--device-code",
            "--client-id",
            "work",
            "--tenant",
            TENANT,
        ])
        .explained(1, "lets only administrators approve");
}

#[test]
fn kl_33_a_login_waits_while_an_administrator_is_asked() {
    let service = Service::with(|config| {
        world::organisation(config);
        config.tenants[0].consent_by_admin = true;
    });
    let home = Home::new(&service);
    let arguments = ["--client-id", "public", "--tenant", "example.com"];
    let login = begin_login(&home, &arguments).expect("an address");
    // The page offers to ask for approval; whoever does that does not come back from it.
    let (_, refused, _) = world::visit(&login.address);
    assert!(refused.is_some_and(|back| back.contains("error=")));
    let address = home
        .run(&[&["login", "--admin-consent-url"], &arguments[..]].concat())
        .ok();
    let (_, granted, page) = world::visit(address.trim());
    assert!(
        granted.is_some_and(|back| back.contains("admin_consent=True")),
        "{page}"
    );
    // The page is opened anew after the mail that says that it was approved.
    login.browse().ok();
    home.run(&["drives"]).ok();
}

#[test]
fn al_08_al_13_al_14_the_consent_address_takes_its_redirect_from_the_settings() {
    let service = world::start();
    let home = Home::new(&service);
    let redirect = "https://entra.microsoft.com/TokenAuthorize";
    let out = home
        .run(&[
            "login",
            "--admin-consent-url",
            "--client-id",
            "web",
            "--redirect-uri",
            redirect,
        ])
        .ok();
    let expected = format!(
        "{}/common/adminconsent?client_id=web&redirect_uri=https%3A%2F%2Fentra.microsoft.com%2FTokenAuthorize",
        service.login_url()
    );
    assert_eq!(out.trim(), expected);
    let (status, _, page) = world::visit(&expected);
    assert_eq!(status, 400, "it is not registered: {page}");
    assert!(page.contains("AADSTS50011"), "{page}");
    service.set_client("web", |client| client.redirect_uris.push(redirect.into()));
    let (_, back, _) = world::visit(&expected);
    let back = back.expect("redirect");
    assert!(back.contains("admin_consent=True&tenant="), "{back}");
    home.run(&["login", "--admin-consent-result", &back]).ok();
    // A browser that shows the blank page may add this.
    home.run(&["login", "--admin-consent-result", &format!("{back}#")])
        .ok();
}

#[test]
fn ap_07_ids_are_told_apart_before_anybody_is_asked() {
    let service = world::start();
    let mut home = Home::new(&service);
    // Against the genuine hosts, where ids have a known form; nothing is sent there.
    home.set_env("ONEDRIVEFS_LOGIN_URL", "");
    home.set_env("ONEDRIVEFS_GRAPH_URL", "");
    let ran = home.run(&["login", "--client-id", "my-app"]);
    ran.explained(2, "application (client) id must have the form");
    assert!(ran.err.contains("overview page"), "{}", ran.err);
    assert!(
        home.run(&["login", "--help"])
            .ok()
            .contains("http://localhost"),
        "FE-25"
    );
}

#[test]
fn cf_24_what_a_person_may_not_reach_is_refused_and_no_more() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    use onedrivefs_sim::{FaultAction, FaultRule};
    let service = world::start();
    let drive = service.default_drive();
    drive.put("/closed.txt", "x").expect("file");
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let mount = home.mount();
    mount.sync();
    for op in ["content", "item"] {
        service
            .faults()
            .add(FaultRule::on(op, FaultAction::status(403)));
    }
    let error = fs::read(mount.at("closed.txt")).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    service.faults().clear();
    wait::until("the file", wait::secs(60), || {
        fs::read(mount.at("closed.txt")).is_ok()
    });
    mount.unmount();
    // Nor is another's drive opened by its id, whatever the permission's name says.
    let others = &service.drives()[1];
    others.put("/theirs.txt", "theirs").expect("file");
    home.try_mount(&["--drive", others.id()])
        .explained(1, "accessDenied");
}
