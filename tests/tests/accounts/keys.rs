//! Applications that prove themselves with a certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onedrivefs_tests::{Home, Need, Ran, Service, needs, wait};
use serde_json::Value;

use crate::world::{self, TENANT, private_file, run_with_input, text, tool};

const PASSPHRASE: &str = "a passphrase of several words";

/// Makes a self-signed certificate with its key: RSA 4096 and a very long life, as guides say.
fn make(home: &Home<'_>, bits: u32) {
    let key = format!("rsa:{bits}");
    tool(
        &home.work(),
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            &key,
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            "18250",
            "-subj",
            "/C=DE/ST=Any/O=Anything at all/CN=whatever",
        ],
    );
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(home.work().join("key.pem"), mode).expect("mode");
}

/// Has the application know the certificate instead of a secret.
fn register(service: &Service, home: &Home<'_>) {
    let pem = fs::read_to_string(home.work().join("cert.pem")).expect("certificate");
    service.set_client("daemon", |client| {
        client.secret = None;
        client.certificates = vec![pem];
    });
}

fn login(home: &Home<'_>, key: &str, more: &[&str]) -> Ran {
    let (cert, key) = (home.work().join("cert.pem"), home.work().join(key));
    let mut arguments = vec![
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--certificate",
        text(&cert),
        "--key",
        text(&key),
    ];
    arguments.extend(more);
    home.run(&arguments)
}

fn openssl() -> bool {
    needs::met(&[Need::Program("openssl")])
}

#[test]
fn kl_07_kl_08_an_application_signs_in_with_a_certificate_and_no_secret() {
    if !openssl() || !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 4096);
    register(&service, &home);
    let signed_in = login(&home, "key.pem", &["--user", "ada@example.com"]);
    assert!(
        !signed_in.err.contains("expires in"),
        "it is good for 50 years: {}",
        signed_in.err
    );
    signed_in.ok();
    let mount = home.mount_args(&["--poll", "1"]);
    service.expire_tokens();
    fs::write(mount.at("new.txt"), "new").expect("written");
    mount.sync();
    assert!(service.drives()[0].exists("/new.txt"));
    assert_eq!(mount.status()["sign_in"]["expires"]["what"], "certificate");
    mount.unmount();
    let key = fs::read_to_string(home.work().join("key.pem")).expect("key");
    let line = key.lines().nth(3).expect("a line of the key");
    world::assert_hidden(&home, &[], &[line]);
}

#[test]
fn kl_10_keys_of_every_form_are_read_and_a_wrong_passphrase_has_its_own_error() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    register(&service, &home);
    let pass = format!("pass:{PASSPHRASE}");
    let convert = |arguments: &[&str]| tool(&home.work(), "openssl", arguments);
    convert(&["rsa", "-traditional", "-in", "key.pem", "-out", "pkcs1.pem"]);
    for (cipher, out) in [
        ("-aes256", "old-aes256.pem"),
        ("-aes128", "old-aes128.pem"),
        ("-des3", "old-des3.pem"),
    ] {
        convert(&[
            "rsa",
            "-traditional",
            cipher,
            "-passout",
            &pass,
            "-in",
            "key.pem",
            "-out",
            out,
        ]);
    }
    for (options, out) in [
        (&["-v2", "aes-256-cbc"][..], "new-aes256.pem"),
        (&["-v2", "des3", "-v2prf", "hmacWithSHA1"], "new-des3.pem"),
        (&["-scrypt", "-scrypt_N", "1024"], "new-scrypt.pem"),
    ] {
        let all = [
            &[
                "pkcs8", "-topk8", "-in", "key.pem", "-passout", &pass, "-out", out,
            ],
            options,
        ]
        .concat();
        convert(&all);
    }
    login(&home, "pkcs1.pem", &[]).ok();
    let good = private_file(&home, "passphrase", &format!("{PASSPHRASE}\n"));
    let bad = private_file(&home, "wrong", "another passphrase\n");
    for key in [
        "old-aes256.pem",
        "old-aes128.pem",
        "old-des3.pem",
        "new-aes256.pem",
        "new-des3.pem",
        "new-scrypt.pem",
    ] {
        let ran = login(&home, key, &["--key-passphrase-file", text(&good)]);
        assert_eq!(ran.code, Some(0), "{key}: {}", ran.err);
        let wrong = login(&home, key, &["--key-passphrase-file", text(&bad)]);
        wrong.explained(2, "passphrase of the private key is wrong");
        login(&home, key, &["--account", "fresh"]).explained(2, "no terminal");
    }
    // Piped in, it is kept for later.
    let (cert, key) = (
        home.work().join("cert.pem"),
        home.work().join("new-aes256.pem"),
    );
    let arguments = [
        "login",
        "--account",
        "piped",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--certificate",
        text(&cert),
        "--key",
        text(&key),
        "--key-passphrase-file",
        "-",
    ];
    let ran = run_with_input(&home, &arguments, &format!("{PASSPHRASE}\n"));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    service.expire_tokens();
    let users = home.run(&["users", "--account", "piped"]);
    world::assert_hidden(&home, &[&ran, &users], &[PASSPHRASE]);
    users.ok();
}

#[test]
fn kl_10_the_thumbprint_can_be_set_in_either_form() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    register(&service, &home);
    let print = |digest: &str| {
        let out = home.sh(&format!(
            "openssl x509 -in cert.pem -noout -fingerprint -{digest}"
        ));
        out.trim()
            .rsplit('=')
            .next()
            .expect("thumbprint")
            .to_owned()
    };
    for digest in ["sha1", "sha256"] {
        login(&home, "key.pem", &["--thumbprint", &print(digest)]).ok();
    }
    let other = "00".repeat(32);
    login(&home, "key.pem", &["--thumbprint", &other]).explained(1, "not registered there");
    login(&home, "key.pem", &["--thumbprint", "xyz"]).explained(2, "thumbprint");
}

#[test]
fn kl_36_an_open_key_is_refused_and_any_subject_will_do() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    register(&service, &home);
    let key = home.work().join("key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("mode");
    let ran = login(&home, "key.pem", &[]);
    ran.explained(2, "can be read by others");
    assert!(ran.err.contains("chmod 600"), "{}", ran.err);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("mode");
    login(&home, "key.pem", &[]).ok();
}

#[test]
fn keys_and_certificates_that_are_none_are_each_explained() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    register(&service, &home);
    let convert = |arguments: &[&str]| tool(&home.work(), "openssl", arguments);
    convert(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "ec.pem",
    ]);
    convert(&["genrsa", "-out", "other.pem", "2048"]);
    for name in ["ec.pem", "other.pem"] {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(home.work().join(name), mode).expect("mode");
    }
    private_file(&home, "none.pem", "not a key");
    login(&home, "ec.pem", &[]).explained(2, "not an RSA key");
    login(&home, "other.pem", &[]).explained(2, "does not belong to the certificate");
    login(&home, "none.pem", &[]).explained(2, "no private key");
    login(&home, "missing.pem", &[]).explained(1, "missing.pem");
    // Another certificate than the registered one.
    make(&home, 2048);
    login(&home, "key.pem", &[]).explained(1, "certificate does not fit");
    private_file(&home, "cert.pem", "nonsense");
    login(&home, "key.pem", &[]).explained(2, "no certificate");
}

#[test]
fn kl_08_a_certificate_is_warned_about_before_its_end() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    tool(
        &home.work(),
        "openssl",
        &[
            "req", "-x509", "-new", "-key", "key.pem", "-out", "cert.pem", "-days", "5", "-subj",
            "/CN=x",
        ],
    );
    register(&service, &home);
    let ran = login(&home, "key.pem", &[]);
    assert!(
        ran.err.contains("certificate") && ran.err.contains("expires in"),
        "{}",
        ran.err
    );
    let listed = home.run(&["accounts"]);
    assert!(listed.err.contains("expires in"), "{}", listed.err);
}

#[test]
fn kl_07_a_person_signs_in_at_a_web_registration_with_a_certificate() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    let pem = fs::read_to_string(home.work().join("cert.pem")).expect("certificate");
    service.set_client("web", |client| {
        client.secret = None;
        client.certificates = vec![pem];
    });
    let (cert, key) = (home.work().join("cert.pem"), home.work().join("key.pem"));
    let arguments = [
        "--client-id",
        "web",
        "--redirect-uri",
        "https://own.host/callback",
        "--certificate",
        text(&cert),
        "--key",
        text(&key),
    ];
    let login = world::begin_login(&home, &arguments).expect("an address");
    let back = login.approve();
    let ran = login.end(&format!("{back}\n"));
    assert!(
        ran.out.contains("ada@example.com"),
        "{}{}",
        ran.out,
        ran.err
    );
    ran.ok();
    // Renewals are signed as well.
    service.expire_tokens();
    home.run(&["drives"]).ok();
    // Codes are for public clients, whatever they prove themselves with.
    home.run(&["login", "--device-code"])
        .explained(1, "Allow public client flows");
}

#[test]
fn ap_06_a_certificate_is_replaced_while_mounted() {
    if !openssl() || !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    register(&service, &home);
    login(&home, "key.pem", &["--user", "ada@example.com"]).ok();
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let pid = mount.pid();
    // Another one is registered in its place, with a key of its own.
    home.sh("mkdir old; mv cert.pem key.pem old/");
    make(&home, 2048);
    register(&service, &home);
    home.sh("mkdir new; mv cert.pem key.pem new/; cp -p old/*.pem .");
    service.expire_tokens();
    fs::write(mount.at("meanwhile"), "kept").expect("written");
    wait::until("the state", wait::secs(60), || {
        mount.status()["state"] == "needs-login"
    });
    let problem = mount.status()["sign_in"]["problem"].to_string();
    assert!(problem.contains("certificate does not fit"), "{problem}");
    let (cert, key) = (
        home.work().join("new/cert.pem"),
        home.work().join("new/key.pem"),
    );
    home.run(&["login", "--certificate", text(&cert), "--key", text(&key)])
        .ok();
    wait::until("the file", wait::secs(60), || {
        service.drives()[0].exists("/meanwhile")
    });
    mount.sync();
    assert_eq!(mount.status()["state"], "online");
    assert_eq!(mount.pid(), pid);
    mount.unmount();
}

/// What openssl says about a certificate, as the portal shows it.
fn sha1(dir: &Path, home: &Home<'_>) -> String {
    let out = home.sh(&format!(
        "openssl x509 -in {}/cert.pem -outform DER | openssl dgst -sha1 -binary | base64",
        dir.display()
    ));
    out.trim().to_owned()
}

#[test]
fn kl_09_kl_37_the_manifest_entry_of_a_certificate_is_printed() {
    if !openssl() {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    make(&home, 2048);
    let cert = home.work().join("cert.pem");
    let out = home.run(&["app", "cert", text(&cert)]).ok();
    let entry: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(entry["type"], "AsymmetricX509Cert");
    assert_eq!(entry["usage"], "Verify");
    assert_eq!(entry["customKeyIdentifier"], sha1(&home.work(), &home));
    let der = home.sh("openssl x509 -in cert.pem -outform DER | base64 -w0");
    assert_eq!(entry["value"], der.trim());
    let id = entry["keyId"].as_str().expect("id");
    assert_eq!(id.len(), 36, "{id}");
    let fields: Vec<_> = entry.as_object().expect("object").keys().collect();
    assert_eq!(
        fields,
        ["customKeyIdentifier", "keyId", "type", "usage", "value"]
    );
    home.run(&["app", "cert", "/nonexistent.pem"])
        .explained(1, "/nonexistent.pem");
}
