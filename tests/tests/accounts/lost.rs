//! Sign-ins that end while they are in use, and what each refusal says.

use std::fs;

use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_tests::{Desktop, Home, Need, needs, tree, wait};

use crate::world::{self, begin_login, text};

#[test]
fn a_lost_sign_in_keeps_the_mount_and_a_new_one_takes_it_up() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = world::start();
    let drive = service.default_drive();
    drive.put("/cached", "cached").expect("file");
    let home = Home::new(&service);
    let desktop = Desktop::start(&service, &home.path("run"));
    home.run(&[
        "login",
        "--account",
        "work",
        "--client-id",
        "public",
        "--device-code",
    ])
    .ok();
    let mount = home.mount_args(&["--account", "work", "--poll", "1"]);
    assert_eq!(fs::read(mount.at("cached")).expect("read"), b"cached");
    let pid = mount.pid();
    // The password was changed.
    service.set_knobs(|knobs| knobs.refresh_error = Some(50_173));
    service.expire_tokens();
    wait::until("the state", wait::secs(60), || {
        mount.status()["state"] == "needs-login"
    });
    let note = desktop.wait_for("sign-in needed");
    assert!(
        note.body.contains("onedrivefs login --account work"),
        "{note:?}"
    );
    let told = home.run(&["status", text(mount.path())]).ok();
    assert!(told.contains("onedrivefs login --account work"), "{told}");
    // Local work goes on.
    home.sh(
        r#"cat "$M/cached"; echo kept > "$M/new"; mkdir "$M/folder"; mv "$M/new" "$M/folder/""#,
    );
    assert!(!drive.exists("/folder"));
    service.set_knobs(|knobs| knobs.refresh_error = None);
    begin_login(&home, &["--account", "work"])
        .expect("an address")
        .browse()
        .ok();
    wait::until("the file", wait::secs(60), || drive.exists("/folder/new"));
    mount.sync();
    assert_eq!(mount.status()["state"], "online");
    assert_eq!(mount.pid(), pid, "it is the same mount");
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn what_a_policy_wants_proven_is_passed_on_by_the_next_sign_in() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    begin_login(&home, &["--client-id", "public"])
        .expect("an address")
        .browse()
        .ok();
    let mount = home.mount_args(&["--poll", "1"]);
    mount.sync();
    let claims = r#"{"access_token":{"capolids":{"essential":true,"values":["c-1"]}}}"#;
    service.set_knobs(|knobs| knobs.refresh_claims = Some(claims.into()));
    service.expire_tokens();
    fs::write(mount.at("meanwhile"), "kept").expect("written");
    wait::until("the state", wait::secs(60), || {
        mount.status()["state"] == "needs-login"
    });
    let problem = mount.status()["sign_in"]["problem"].to_string();
    assert!(problem.contains("another proof of identity"), "{problem}");
    // A sign-in without them would be accepted, and its renewals refused like those of the last one.
    let login = begin_login(&home, &[]).expect("an address");
    let passed_on = world::parameter(&login.address, "claims");
    assert!(
        passed_on.is_some_and(|passed_on| passed_on.contains("capolids")),
        "{}",
        login.address
    );
    login.browse().ok();
    wait::until("the file", wait::secs(60), || {
        service.default_drive().exists("/meanwhile")
    });
    service.expire_tokens();
    fs::write(mount.at("later"), "x").expect("written");
    mount.sync();
    assert_eq!(mount.status()["state"], "online");
    // They are asked for once.
    let login = begin_login(&home, &[]).expect("an address");
    assert_eq!(world::parameter(&login.address, "claims"), None);
    login.kill();
    mount.unmount();
}

#[test]
fn each_refusal_of_a_renewal_is_told_with_its_cause_and_next_step() {
    let service = world::start();
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    for (error, says) in [
        ("invalid_grant 700082", "not used for too long"),
        ("invalid_grant 50173", "password or a policy changed"),
        ("interaction_required 50076", "another proof of identity"),
        (
            "interaction_required 53003",
            "policy of the organization forbids",
        ),
        ("invalid_grant 65001", "not approved"),
        ("invalid_grant 90094", "only administrators approve"),
        ("invalid_grant 50057", "account is disabled"),
        ("invalid_grant 50055", "password expired"),
        ("invalid_grant 50105", "not assigned to this application"),
        ("invalid_request 90002", "no such tenant"),
        ("invalid_request 50194", "one tenant only"),
        ("invalid_request 9002332", "work accounts only"),
        ("invalid_request 90038", "another cloud"),
        ("unauthorized_client 700016", "unknown in this tenant"),
        ("unauthorized_client 7000112", "disabled in this tenant"),
        ("invalid_client 7000218", "does not allow public clients"),
        ("invalid_client 700025", "must not send a secret"),
        ("invalid_client 7000215", "secret is wrong"),
        ("invalid_client 7000222", "secret has expired"),
        ("invalid_client 700027", "certificate does not fit"),
        ("invalid_scope 70011", "permission does not exist"),
        ("invalid_request 900144", "not understood"),
    ] {
        service.set_knobs(|knobs| knobs.token_error = Some(error.into()));
        service.expire_tokens();
        let ran = home.run(&["drives"]);
        ran.explained(1, says);
        let number = error.rsplit(' ').next().expect("number");
        assert!(ran.err.contains(&format!("AADSTS{number}")), "{}", ran.err);
        let login = home.run(&["login", "--device-code", "--client-id", "public"]);
        assert_eq!(login.code, Some(1), "{}", login.err);
        assert!(
            login.err.contains(says) && login.err.contains("next: "),
            "{}",
            login.err
        );
    }
    // Trouble of the platform is no reason to sign in again.
    service.set_knobs(|knobs| knobs.token_error = Some("temporarily_unavailable 90033".into()));
    service.expire_tokens();
    let ran = home.run(&["drives"]);
    ran.explained(1, "trouble");
    assert!(!ran.err.contains("sign in again"), "{}", ran.err);
    service.set_knobs(|knobs| knobs.token_error = None);
    home.run(&["drives"]).ok();
}

#[test]
fn each_refusal_of_graph_is_told_with_what_to_do() {
    let service = world::start();
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    for (status, code, says) in [
        (403, "accessDenied", "lacks a permission"),
        (403, "accessRestricted", "from this device or place"),
        (403, "serviceReadOnly", "read-only for this application"),
        (403, "provisioningNotAllowed", "no OneDrive yet"),
        (404, "itemNotFound", "onedrivefs drives"),
        (423, "resourceLocked", "locked"),
        (403, "malwareDetected", "takes this file for malware"),
        (
            403,
            "Authorization_RequestDenied",
            "permission for the directory",
        ),
        (400, "invalidRequest", "does not understand this request"),
        (400, "pathIsTooLong", "refuses this name or path"),
        (400, "totalAffectedItemCountExceeded", "Do it in parts"),
        (
            404,
            "Request_ResourceNotFound",
            "nobody and nothing of that name",
        ),
        (404, "uploadSessionNotFound", "begins again by itself"),
        (405, "invalidAcceptType", "does not offer that"),
        (409, "nameAlreadyExists", "something of that name already"),
        (
            409,
            "childItemCountExceeded",
            "as many items as the service allows",
        ),
        (410, "syncStateNotFound", "lost track of what changed"),
        (412, "resourceModified", "Somebody else changed it"),
        (413, "maxFileSizeExceeded", "larger than the service takes"),
        (416, "invalidRange", "begins again by itself"),
        (423, "lockMismatch", "locked or checked out"),
        (501, "notSupported", "does not offer that"),
        (507, "quotaLimitReached", "drive is full"),
        (402, "quotaLimitReached", "drive is full"),
        (500, "generalException", "Try again in a few minutes"),
    ] {
        let mut action = FaultAction::status(status);
        if let FaultAction::Status { code: named, .. } = &mut action {
            *named = Some(code.into());
        }
        service.faults().add(FaultRule::on("drive", action));
        let ran = home.run(&["drives"]);
        assert_eq!(ran.code, Some(1), "{status} {code}: {}", ran.err);
        assert!(ran.err.contains(says), "{status} {code}: {}", ran.err);
        assert!(ran.err.contains("next: "), "{}", ran.err);
        service.faults().clear();
    }
}
