//! Where sign-ins are kept, who shares them, and what holds for the whole machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Desktop, Home, Keyring, Need, Service, needs, wait};

use crate::world::{self, SECRET, TENANT, private_file, run_with_input, text};

const LOGIN: &[&str] = &["login", "--device-code", "--client-id", "public"];

fn bus() -> bool {
    needs::met(&[Need::Fuse, Need::Program("dbus-daemon")])
}

#[test]
fn the_keyring_keeps_the_sign_in_where_there_is_one() {
    if !bus() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    let _desktop = Desktop::start(&service, &home.path("run"));
    let keyring = Keyring::start(&service, &home.path("run"));
    home.run(LOGIN).ok();
    let kept = keyring.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].attributes["account"], "default");
    assert!(kept[0].label.contains("onedrivefs"), "{}", kept[0].label);
    assert!(kept[0].value.contains("refresh_token"));
    assert!(
        !home.account_state().join("token.json").exists(),
        "no copy in a file"
    );
    let mount = home.mount_args(&["--poll", "1"]);
    service.expire_tokens();
    fs::write(mount.at("new"), "x").expect("written");
    mount.sync();
    // The renewed one is kept there, too.
    assert_ne!(keyring.kept()[0].value, kept[0].value);
    mount.unmount();
    let accounts = home.run(&["accounts", "--json"]).ok();
    assert!(accounts.contains("\"secrets\": \"keyring\""), "{accounts}");
    assert!(home.run(&["doctor"]).out.contains("kept in: the keyring"));
    home.run(&["logout"]).ok();
    assert!(keyring.kept().is_empty(), "{:?}", keyring.kept());
    home.run(LOGIN).ok();
    // Whoever wants files gets files, and nothing stays behind in the keyring.
    home.configure("secrets = \"file\"\n");
    home.run(LOGIN).ok();
    assert!(keyring.kept().is_empty(), "{:?}", keyring.kept());
    assert!(home.account_state().join("token.json").exists());
    home.configure("secrets = \"keyring\"\n");
    drop(keyring);
    home.run(LOGIN).explained(1, "this session has none");
}

#[test]
fn a_locked_keyring_delays_the_network_and_nothing_else() {
    if !bus() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    let _desktop = Desktop::start(&service, &home.path("run"));
    let keyring = Keyring::start(&service, &home.path("run"));
    home.run(LOGIN).ok();
    let mount = home.mount();
    fs::write(mount.at("before"), "x").expect("written");
    mount.sync();
    mount.unmount();
    keyring.set_locked(true);
    let mount = home.mount_args(&["--poll", "1"]);
    fs::write(mount.at("meanwhile"), "kept").expect("written");
    assert_eq!(fs::read(mount.at("meanwhile")).expect("read"), b"kept");
    let explained = home.run(&["drives"]);
    explained.explained(1, "keyring");
    assert_ne!(
        mount.status()["state"],
        "needs-login",
        "nobody has to sign in"
    );
    keyring.set_locked(false);
    wait::until("the file", wait::secs(120), || {
        service.default_drive().exists("/meanwhile")
    });
    mount.unmount();
}

#[test]
fn a_mount_follows_its_sign_in_to_another_place() {
    if !bus() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    home.run(LOGIN).ok();
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let _desktop = Desktop::start(&service, &home.path("run"));
    let keyring = Keyring::start(&service, &home.path("run"));
    // By itself it stays where it is.
    home.run(LOGIN).ok();
    assert!(keyring.kept().is_empty() && home.account_state().join("token.json").exists());
    home.configure("secrets = \"keyring\"\n");
    home.run(LOGIN).ok();
    assert!(!home.account_state().join("token.json").exists());
    let before = keyring.kept()[0].value.clone();
    service.expire_tokens();
    fs::write(mount.at("new"), "x").expect("written");
    mount.sync();
    assert_ne!(
        keyring.kept()[0].value,
        before,
        "the renewed one is kept there"
    );
    mount.unmount();
}

#[test]
fn typed_secrets_of_applications_are_in_the_keyring_too() {
    if !bus() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    let _desktop = Desktop::start(&service, &home.path("run"));
    let keyring = Keyring::start(&service, &home.path("run"));
    let arguments = [
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--client-secret-file",
        "-",
    ];
    let ran = run_with_input(&home, &arguments, SECRET);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(keyring.kept().iter().any(|kept| kept.value == SECRET));
    service.expire_tokens();
    let users = home.run(&["users"]);
    world::assert_hidden(&home, &[&ran, &users], &[SECRET]);
    users.ok();
    home.run(&["logout"]).ok();
    assert!(keyring.kept().is_empty());
}

#[test]
fn a_mount_of_an_application_comes_up_while_the_keyring_is_locked() {
    if !bus() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    let _desktop = Desktop::start(&service, &home.path("run"));
    let keyring = Keyring::start(&service, &home.path("run"));
    let arguments = [
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--user",
        "ada@example.com",
        "--client-secret-file",
        "-",
    ];
    assert_eq!(run_with_input(&home, &arguments, SECRET).code, Some(0));
    let mount = home.mount();
    mount.sync();
    mount.unmount();
    keyring.set_locked(true);
    let mount = home.mount_args(&["--poll", "1"]);
    fs::write(mount.at("meanwhile"), "kept").expect("written");
    assert_ne!(mount.status()["state"], "needs-login");
    keyring.set_locked(false);
    service.expire_tokens();
    wait::until("the file", wait::secs(120), || {
        service.default_drive().exists("/meanwhile")
    });
    mount.unmount();
}

#[test]
fn a_name_stays_with_the_kind_of_sign_in_that_it_has() {
    let service = world::start();
    let home = Home::new(&service);
    home.run(LOGIN).ok();
    world::app_login(&home, &["--user", "ada@example.com"]).explained(1, "belongs to a person");
    world::app_login(&home, &["--account", "app", "--user", "ada@example.com"]).ok();
    home.run(&[LOGIN, &["--account", "app"]].concat())
        .explained(1, "belongs to an application");
}

#[test]
fn fe_23_fe_24_profiles_are_private_and_whole_and_the_configuration_has_no_secret() {
    let service = world::start();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    home.configure(&format!(
        "[accounts.default]\napp_only = true\nclient_id = \"daemon\"\ntenant = \"{TENANT}\"\n\
         client_secret_file = \"{}\"\n",
        secret.display()
    ));
    home.run(&["login"]).ok();
    for name in ["account.json", "token.json"] {
        let mode = fs::metadata(home.account_state().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let file = home.account_state().join("account.json");
    let record = fs::read_to_string(&file).expect("record");
    assert!(!record.contains(SECRET));
    // A new one takes the place of the old one as a whole: whoever has that open sees it to its end.
    let before = home.account_state().join("before");
    fs::hard_link(&file, &before).expect("link");
    home.run(&["login", "--user", "ada@example.com"]).ok();
    assert_eq!(fs::read_to_string(&before).expect("old record"), record);
    assert_ne!(fs::read_to_string(&file).expect("new record"), record);
    fs::remove_file(&before).expect("removed");
    // There is no key that takes a secret itself.
    home.configure("[accounts.default]\nclient_secret = \"x\"\n");
    home.run(&["login"])
        .explained(2, "unknown key \"client_secret\"");
}

#[test]
fn several_daemons_of_one_account_share_a_rotated_refresh_token() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        world::organisation(config);
        // The service forgets a refresh token once it was used: whoever uses an old one is out.
        config.knobs.refresh_single_use = true;
        let own = config.drives[0].clone();
        config.drives.push(onedrivefs_sim::DriveSpec {
            name: "Second".into(),
            ..own.clone()
        });
        config.drives.push(onedrivefs_sim::DriveSpec {
            name: "Third".into(),
            ..own
        });
    });
    let home = Home::new(&service);
    home.run(LOGIN).ok();
    let drives: Vec<_> = service
        .drives()
        .into_iter()
        .filter(|drive| drive.kind() == onedrivefs_sim::DriveKind::Business)
        .collect();
    let wanted = [&drives[0], &drives[2], &drives[3]];
    let mounts: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(number, drive)| {
            home.mount_with(MountSpec {
                arguments: vec![
                    "--drive".into(),
                    drive.id().into(),
                    "--poll".into(),
                    "1".into(),
                ],
                mountpoint: Some(home.make_dir(&format!("m{number}"))),
                ..MountSpec::default()
            })
        })
        .collect();
    for round in 0..5 {
        service.expire_tokens();
        for mount in &mounts {
            fs::write(mount.at(&format!("round {round}")), "x").expect("written");
        }
        for drive in wanted {
            let name = format!("/round {round}");
            wait::until(&name, wait::secs(60), || drive.exists(&name));
        }
    }
    for mount in mounts {
        assert_ne!(mount.status()["state"], "needs-login");
        mount.unmount();
    }
}

#[test]
fn ap_08_kl_38_a_profile_of_the_machine_serves_everybody_and_can_be_overridden() {
    let service = world::start();
    let mut home = Home::new(&service);
    let machine = home.work().join("machine.toml");
    fs::write(
        &machine,
        format!("poll = 77\n[accounts.default]\nclient_id = \"single\"\ntenant = \"{TENANT}\"\n"),
    )
    .expect("written");
    home.set_env("ONEDRIVEFS_SYSTEM_CONFIG", text(&machine));
    home.run(&["login", "--device-code"]).ok();
    assert!(home.run(&["doctor"]).out.contains("machine.toml"));
    // One key is overridden, the others stay.
    home.configure("[accounts.default]\nclient_id = \"nobody\"\n");
    let ran = home.run(&["login", "--device-code"]);
    ran.explained(1, "unknown in this tenant");
    // A mistake is told with the file it is in.
    fs::write(&machine, "pol = 1\n").expect("written");
    home.run(&["login", "--device-code"])
        .explained(2, "machine.toml: line 1");
}

#[test]
fn ap_08_the_machines_profile_lies_in_etc() {
    if !needs::met(&[Need::Namespaces]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    let dir = home.work().join("etc-onedrivefs");
    fs::create_dir(&dir).expect("directory");
    fs::write(
        dir.join("config.toml"),
        "[accounts.default]\nclient_id = \"public\"\n",
    )
    .expect("written");
    let mut command = home.program("unshare");
    command
        .args([
            "-m",
            "sh",
            "-euc",
            "mount -t tmpfs none /etc; cp -r \"$W/etc-onedrivefs\" /etc/onedrivefs
             exec \"$BIN\" login --device-code",
        ])
        .env("W", home.work())
        .env("BIN", home.binary());
    onedrivefs_tests::process::run(command, wait::secs(60)).ok();
}
