//! Every way in at every kind of tenant in every cloud: it works, or it says why not.

use std::fs;

use onedrivefs_sim::DriveKind;
use onedrivefs_tests::{Home, Need, Ran, Service, needs};

use crate::world::{self, OTHER_TENANT, SECRET, TENANT, begin_login, private_file, text};

/// How somebody signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Browser,
    DeviceCode,
    Secret,
    Certificate,
}

const WAYS: [Way; 4] = [Way::Browser, Way::DeviceCode, Way::Secret, Way::Certificate];

const TENANTS: [&str; 6] = [
    "",
    "common",
    "organizations",
    "consumers",
    TENANT,
    "example.com",
];

fn certificate(home: &Home<'_>, service: &Service) {
    world::tool(
        &home.work(),
        "openssl",
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out",
            "cert.pem", "-days", "100", "-subj", "/CN=x",
        ],
    );
    home.sh("chmod 600 key.pem");
    let pem = fs::read_to_string(home.work().join("cert.pem")).expect("certificate");
    service.set_client("daemon", |client| client.certificates = vec![pem]);
}

fn sign_in(home: &Home<'_>, way: Way, client: &str, tenant: &str, cloud: &str) -> Ran {
    let base = ["--client-id", client, "--tenant", tenant, "--cloud", cloud];
    let (secret, cert, key) = (
        home.work().join("secret"),
        home.work().join("cert.pem"),
        home.work().join("key.pem"),
    );
    match way {
        Way::Browser => match begin_login(home, &base) {
            Ok(login) => {
                let (_, location, page) = world::visit(&login.address);
                match location {
                    Some(back) => {
                        world::visit(&back);
                        login.end("")
                    }
                    // What the page says is all there is.
                    None => {
                        login.kill();
                        Ran {
                            code: None,
                            out: String::new(),
                            err: page,
                            line: "a page".into(),
                        }
                    }
                }
            }
            Err(ran) => ran,
        },
        Way::DeviceCode => home.run(&[&["login", "--device-code"], &base[..]].concat()),
        Way::Secret => home.run(
            &[
                &["login", "--app-only", "--client-secret-file", text(&secret)],
                &base[..],
            ]
            .concat(),
        ),
        Way::Certificate => home.run(
            &[
                &[
                    "login",
                    "--app-only",
                    "--certificate",
                    text(&cert),
                    "--key",
                    text(&key),
                ],
                &base[..],
            ]
            .concat(),
        ),
    }
}

#[test]
fn fe_08_cf_07_ap_15_every_way_at_every_tenant_and_cloud_works_or_is_refused_with_the_reason() {
    let service = world::start();
    let home = Home::new(&service);
    private_file(&home, "secret", SECRET);
    certificate(&home, &service);
    for cloud in ["global", "usgov-l4", "usgov-l5", "china"] {
        for tenant in TENANTS {
            for way in WAYS {
                let app = matches!(way, Way::Secret | Way::Certificate);
                let client = if app { "daemon" } else { "public" };
                let ran = sign_in(&home, way, client, tenant, cloud);
                let told = format!(
                    "{way:?} at {tenant:?} in {cloud}: {:?} {}",
                    ran.code, ran.err
                );
                let shared = matches!(tenant, "" | "common" | "organizations" | "consumers");
                if app && shared {
                    assert_eq!(ran.code, Some(2), "{told}");
                    ran.explained(2, "belongs to one tenant");
                } else if tenant == "consumers" && cloud != "global" {
                    ran.explained(2, "global cloud only");
                } else {
                    assert_eq!(ran.code, Some(0), "{told}");
                }
                home.run(&["logout", "--forget"]);
            }
        }
    }
    for (cloud, reason) in [("germany", "closed"), ("moon", "unknown cloud")] {
        sign_in(&home, Way::DeviceCode, "public", "common", cloud).explained(2, reason);
    }
    sign_in(&home, Way::DeviceCode, "public", "a/b", "global").explained(2, "tenant must be");
}

#[test]
fn al_07_each_account_type_of_a_registration_says_which_tenant_it_needs() {
    let service = world::start();
    let home = Home::new(&service);
    for (client, tenant, says) in [
        ("public", "common", None),
        ("public", "organizations", None),
        ("public", "consumers", None),
        ("public", TENANT, None),
        ("work", "organizations", None),
        ("work", "common", None),
        ("work", "example.com", None),
        ("work", "consumers", Some("\"organizations\"")),
        ("single", TENANT, None),
        ("single", "common", Some("instead of \"common\"")),
        ("single", "organizations", Some("one tenant only")),
        ("single", OTHER_TENANT, Some("unknown in this tenant")),
        ("home", "consumers", None),
        ("home", "common", Some("\"consumers\"")),
        ("home", TENANT, Some("\"consumers\"")),
        ("public", "nowhere.example", Some("no such tenant")),
        (
            "public",
            "other.example",
            Some("does not exist in this tenant"),
        ),
    ] {
        let ran = sign_in(&home, Way::DeviceCode, client, tenant, "global");
        match says {
            None => assert_eq!(ran.code, Some(0), "{client} at {tenant}: {}", ran.err),
            Some(says) => ran.explained(1, says),
        }
        home.run(&["logout", "--forget"]);
    }
}

#[test]
fn kl_02_a_personal_account_at_an_application_for_work_is_sent_to_organizations() {
    let service = Service::with(|config| {
        world::organisation(config);
        config.users.retain(|user| user.id == "pat");
    });
    let home = Home::new(&service);
    sign_in(&home, Way::DeviceCode, "work", "common", "global").explained(1, "\"organizations\"");
    let ran = sign_in(&home, Way::Browser, "work", "common", "global");
    ran.explained(1, "not registered for personal accounts");
}

#[test]
fn cf_04_cf_05_cf_27_personal_and_business_accounts_sign_in() {
    let service = world::start();
    for (tenant, says) in [
        ("consumers", "(personal)"),
        ("organizations", "(business)"),
        ("", "(business)"),
    ] {
        let home = Home::new(&service);
        let ran = sign_in(&home, Way::DeviceCode, "public", tenant, "global");
        assert!(ran.out.contains(says), "{}{}", ran.out, ran.err);
    }
    assert_eq!(service.drives()[2].kind(), DriveKind::Personal);
}

#[test]
fn cf_04_cf_05_drives_of_both_kinds_of_account_are_mounted() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    for (tenant, number, kind) in [
        ("consumers", 2, "personal"),
        ("organizations", 0, "business"),
    ] {
        let drive = &service.drives()[number];
        drive.put("/Photos/sea.jpg", "sea").expect("file");
        let home = Home::new(&service);
        sign_in(&home, Way::DeviceCode, "public", tenant, "global").ok();
        let mount = home.mount();
        assert_eq!(mount.status()["drive"]["type"], kind);
        let sea = fs::read(mount.at("Photos/sea.jpg")).expect("read");
        assert_eq!(sea, b"sea", "{kind}");
        fs::create_dir(mount.at("Letters")).expect("folder");
        fs::write(mount.at("Letters/new.txt"), "new").expect("written");
        fs::rename(mount.at("Photos/sea.jpg"), mount.at("Photos/coast.jpg")).expect("renamed");
        mount.sync();
        assert_eq!(drive.read("/Letters/new.txt").as_deref(), Some(&b"new"[..]));
        assert!(drive.exists("/Photos/coast.jpg") && !drive.exists("/Photos/sea.jpg"));
        drive.put("/Photos/theirs.jpg", "theirs").expect("file");
        mount.sync();
        assert!(mount.at("Photos/theirs.jpg").exists(), "{kind}");
        mount.unmount();
    }
}

#[test]
fn fe_15_ap_12_ap_14_ap_16_ap_18_a_blank_tenant_is_common_and_removing_the_key_returns_to_it() {
    let service = world::start();
    let home = Home::new(&service);
    let asked = |home: &Home<'_>, more: &[&str]| {
        let login = begin_login(home, more).expect("an address");
        let address = login.address.clone();
        login.kill();
        address
    };
    for more in [
        &["--client-id", "public"][..],
        &["--client-id", "public", "--tenant", ""],
    ] {
        assert!(asked(&home, more).contains("/common/oauth2/"), "{more:?}");
    }
    home.configure(&format!(
        "[accounts.default]\nclient_id = \"public\"\ntenant = \"{TENANT}\"\n"
    ));
    assert!(asked(&home, &[]).contains(&format!("/{TENANT}/oauth2/")));
    home.run(&["login", "--device-code"]).ok();
    service.expire_tokens();
    home.run(&["drives"]).ok();
    home.configure("[accounts.default]\nclient_id = \"public\"\n");
    service.expire_tokens();
    // Until the next sign-in it stays.
    let before = service.last_request();
    home.run(&["drives"]).ok();
    let renewals = service.requests().since(before);
    assert!(
        renewals
            .iter()
            .all(|record| !record.path.contains("/common/"))
    );
    assert!(asked(&home, &[]).contains("/common/oauth2/"));
}

#[test]
fn al_07_public_and_confidential_clients_are_held_apart() {
    let service = world::start();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    // A public client must not send a secret.
    let login = begin_login(
        &home,
        &[
            "--client-id",
            "public",
            "--client-secret-file",
            text(&secret),
        ],
    );
    login
        .expect("an address")
        .browse_to_end()
        .explained(1, "must not send a secret");
    // A confidential one has no device codes.
    home.run(&["login", "--device-code", "--client-id", "web"])
        .explained(1, "Allow public client flows");
}
