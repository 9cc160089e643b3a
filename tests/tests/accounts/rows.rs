//! What integrations take for granted once they are signed in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onedrivefs_sim::Reach;
use onedrivefs_tests::{Home, Need, needs, tree, wait};

use crate::world::{self, SECRET, TENANT, app_login, begin_login, private_file, text};

#[test]
fn cf_14_kl_01_kl_05_delegated_and_application_permissions_both_work_with_ones_own_keys() {
    let service = world::start();
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    let login = begin_login(
        &home,
        &[
            "--account",
            "person",
            "--client-id",
            "web",
            "--client-secret-file",
            text(&secret),
            "--redirect-uri",
            "https://own.host/callback",
            "--tenant",
            TENANT,
        ],
    );
    let login = login.expect("an address");
    let back = login.approve();
    login.end(&format!("{back}\n")).ok();
    app_login(&home, &["--account", "app", "--user", "ben@example.com"]).ok();
    let accounts = home.run(&["accounts"]).ok();
    assert!(
        accounts.contains("ada@example.com") && accounts.contains("application daemon"),
        "{accounts}"
    );
    let drives = home.run(&["drives", "--account", "person", "--json"]).ok();
    assert!(drives.contains(service.drives()[0].id()), "{drives}");
}

#[test]
fn cf_01_al_18_all_goes_to_graph_or_where_it_points_and_the_token_to_graph_alone() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let drive = service.default_drive();
    drive.put("/there.bin", vec![3_u8; 6 << 20]).expect("file");
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let mount = home.mount();
    fs::read(mount.at("there.bin")).expect("read");
    fs::write(mount.at("here.bin"), vec![4_u8; 6 << 20]).expect("written");
    mount.sync();
    // An address that expired is replaced.
    service.expire_urls();
    drive.put("/later.bin", vec![5_u8; 1 << 20]).expect("file");
    mount.sync();
    assert_eq!(
        fs::read(mount.at("later.bin")).expect("read").len(),
        1 << 20
    );
    for record in service.requests().since(0) {
        let sign_in = matches!(record.op, "token" | "devicecode" | "authorize");
        let bytes = record.host == "content";
        assert!(sign_in || bytes || record.authorization, "{record:?}");
        assert!(
            !bytes || !record.authorization,
            "a token left Graph: {record:?}"
        );
        assert!(
            sign_in || bytes || record.path.starts_with("/v1.0/"),
            "{record:?}"
        );
    }
    mount.unmount();
}

/// Bytes of the bodies below a directory.
fn bytes_in(dir: &Path) -> u64 {
    let mut all = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let metadata = entry.metadata().expect("metadata");
        all += if metadata.is_dir() {
            bytes_in(&entry.path())
        } else {
            metadata.len()
        };
    }
    all
}

#[test]
fn cf_25_cf_26_the_spool_is_private_survives_a_crash_and_is_cleared() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let mut mount = home.mount();
    mount.sync();
    service.set_reach(Reach::Offline);
    fs::write(mount.at("large.bin"), vec![1_u8; 2 << 20]).expect("written");
    let state = home.account_state();
    let drive = fs::read_dir(&state)
        .expect("state")
        .flatten()
        .map(|e| e.path())
        .find(|p| p.is_dir());
    let spool = drive.expect("drive").join("spool");
    assert!(bytes_in(&spool) >= 2 << 20, "it is kept here first");
    let mode = fs::metadata(&spool).expect("spool").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
    let mount = home.mount();
    mount.sync();
    let sent = service.default_drive().read("/large.bin");
    assert_eq!(sent.map(|body| body.len()), Some(2 << 20));
    wait::until("an empty spool", wait::secs(30), || bytes_in(&spool) == 0);
    mount.unmount();
}

#[test]
fn fe_01_fe_02_fe_04_files_folders_and_space_are_as_on_a_disk() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = world::start();
    let drive = service.default_drive();
    drive.set_quota(50 << 30);
    let home = Home::new(&service);
    home.run(&["login", "--device-code", "--client-id", "public"])
        .ok();
    let mount = home.mount();
    home.sh(
        r#"cd "$M"; mkdir a; echo text > a/one; mv a b; mv b/one b/two; mkdir gone; rmdir gone
           test "$(cat b/two)" = text"#,
    );
    mount.sync();
    tree::assert_in_step(mount.path(), &drive);
    wait::until("the size of the drive", wait::secs(60), || {
        let space = rustix::fs::statvfs(mount.path()).expect("statfs");
        space.f_blocks * space.f_frsize == 50 << 30
    });
    mount.unmount();
}
