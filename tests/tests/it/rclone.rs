//! An independent client works against the simulator: the client under test is not its only
//! judge.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use onedrivefs_sim::DriveKind;
use onedrivefs_sim::SimConfig;
use onedrivefs_tests::{Need, Ran, Service, needs, process, wait};

use crate::files::{self, MIB};

struct Rclone {
    program: PathBuf,
    dir: tempfile::TempDir,
}

impl Rclone {
    fn for_service(service: &Service) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let drive = service.default_drive();
        let login = service.login_url();
        let token = service.token_response("rclone");
        let config = format!(
            "[sim]\ntype = onedrive\nclient_id = rclone\nclient_secret = rclone\n\
             auth_url = {login}/common/oauth2/v2.0/authorize\n\
             token_url = {login}/common/oauth2/v2.0/token\n\
             tenant_url = {login}\ndrive_id = {}\ndrive_type = {}\ntoken = {token}\n",
            drive.id(),
            drive.kind().as_str(),
        );
        fs::write(dir.path().join("rclone.conf"), config).expect("configuration");
        Self {
            program: needs::rclone().expect("rclone"),
            dir,
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .arg("--config")
            .arg(self.dir.path().join("rclone.conf"))
            // Fragments of one MiB and a quarter, so that a few MiB make several.
            .args(["--retries=1", "--low-level-retries=3"])
            .args(["--onedrive-chunk-size=1280Ki"])
            .args(arguments)
            .current_dir(self.dir.path());
        process::run(command, wait::secs(120))
    }
}

fn works_with(kind: DriveKind) {
    let service = Service::with(|config| config.drives = SimConfig::with_kind(kind).drives);
    let drive = service.default_drive();
    let rclone = Rclone::for_service(&service);
    let local = rclone.dir.path().join("src");
    fs::create_dir_all(local.join("sub dir")).expect("directory");
    fs::write(local.join("small.txt"), "small").expect("file");
    fs::write(local.join("empty"), "").expect("file");
    fs::write(local.join("sub dir/ünï 🚀.txt"), "names").expect("file");
    fs::write(local.join("colon: and <more>?"), "encoded").expect("file");
    files::write(&local.join("sub dir/several fragments"), 5 * MIB + 3, 1);

    rclone.run(&["mkdir", "sim:made/er"]).ok();
    assert!(drive.entry("/made/er").is_some_and(|e| e.folder));
    rclone.run(&["copy", "src", "sim:copied"]).ok();
    let fragments = service.upload_since(0);
    assert!(fragments.fragments >= 5, "{fragments:?}");
    rclone
        .run(&["check", "--download", "src", "sim:copied"])
        .ok();
    rclone.run(&["check", "src", "sim:copied"]).ok();
    rclone
        .run(&["moveto", "sim:copied/small.txt", "sim:made/er/moved.txt"])
        .ok();
    assert_eq!(
        drive.read("/made/er/moved.txt").as_deref(),
        Some(b"small".as_slice())
    );
    assert!(!drive.exists("/copied/small.txt"));
    // A second copy sends only what is missing.
    rclone.run(&["sync", "src", "sim:copied"]).ok();
    assert_eq!(
        drive.read("/copied/small.txt").as_deref(),
        Some(b"small".as_slice())
    );
    let listed = rclone.run(&["lsf", "-R", "sim:"]).ok();
    assert!(listed.contains("copied/sub dir/ünï 🚀.txt"), "{listed}");
    rclone.run(&["purge", "sim:copied"]).ok();
    assert!(!drive.exists("/copied"));
    let about = rclone.run(&["about", "--json", "sim:"]).ok();
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    assert_eq!(about["total"], 1_u64 << 40);
}

#[test]
fn rclone_works_against_the_simulated_business_drive() {
    if needs::met(&[Need::Rclone]) {
        works_with(DriveKind::Business);
    }
}

#[test]
fn rclone_works_against_the_simulated_personal_drive() {
    if needs::met(&[Need::Rclone]) {
        works_with(DriveKind::Personal);
    }
}

/// Names that the service refuses, or that the encoding itself uses: every character of it at the
/// beginning, in the middle and at the end. The quote of the encoding is not among them, since rclone
/// cannot read local files of such names, nor are names that it does not encode although the service
/// refuses them (devices of Windows, a wide space at the beginning).
fn odd_names() -> Vec<String> {
    const ODD: &str = " ~.\"*:<>?|\\#%&+'／：～．␠␡␀␟\u{7f}\u{1}\n\u{1f}é";
    let mut names: Vec<String> = ["plain", "a ~b", "x：y", "...a...", "~~", "  a  ", "é🚀漢"]
        .map(str::to_owned)
        .to_vec();
    for odd in ODD.chars() {
        // Names that differ in a twin or in case alone are one name to the service.
        let code = u32::from(odd);
        names.push(format!("{odd}first {code}"));
        names.push(format!("mid{odd}dle {code}"));
        names.push(format!("last {code}{odd}"));
    }
    names
}

#[test]
fn what_rclone_writes_is_in_the_mount_and_the_other_way_round() {
    if !needs::met(&[Need::Rclone, Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let rclone = Rclone::for_service(&service);
    let home = onedrivefs_tests::Home::signed_in(&service);
    let mount = home.mount();
    fs::create_dir(rclone.dir.path().join("src")).expect("directory");
    fs::create_dir(mount.at("ours")).expect("folder");
    let names = odd_names();
    for name in &names {
        for place in [rclone.dir.path().join("src"), mount.at("ours")] {
            fs::write(place.join(name), name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
            let folder = place.join(format!("in {name}"));
            fs::create_dir(&folder).unwrap_or_else(|e| panic!("{name:?}: {e}"));
            fs::write(folder.join("file"), name).unwrap_or_else(|e| panic!("{name:?}: {e}"));
        }
    }
    rclone.run(&["copy", "src", "sim:theirs"]).ok();
    mount.sync();
    for name in &names {
        for below in [name.clone(), format!("in {name}/file")] {
            let text = fs::read(mount.at("theirs").join(&below));
            let text = text.unwrap_or_else(|error| panic!("{below:?}: {error}"));
            assert_eq!(text, name.as_bytes(), "{below:?}");
        }
    }
    rclone.run(&["check", "--download", "src", "sim:ours"]).ok();
    // Both call everything the same on the service.
    let below = |folder: &str| -> BTreeSet<String> {
        let all = drive.dump().into_iter();
        all.filter_map(|entry| entry.path.strip_prefix(folder).map(str::to_owned))
            .collect()
    };
    let (ours, theirs) = (below("/ours/"), below("/theirs/"));
    let differing: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert_eq!(ours.len(), 3 * names.len());
    mount.unmount();
}

#[test]
fn links_that_rclone_stores_are_links_here_and_the_other_way_round() {
    if !needs::met(&[Need::Rclone, Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let rclone = Rclone::for_service(&service);
    let home = onedrivefs_tests::Home::signed_in(&service);
    let mount = home.mount();
    let target = |path: PathBuf| fs::read_link(path).expect("link");
    let src = rclone.dir.path().join("src");
    fs::create_dir(&src).expect("directory");
    symlink("../a file/ü", src.join("theirs")).expect("link");
    rclone.run(&["copy", "--links", "src", "sim:dir"]).ok();
    mount.sync();
    assert_eq!(target(mount.at("dir/theirs")), PathBuf::from("../a file/ü"));
    symlink("/nowhere/at all", mount.at("dir/ours")).expect("link");
    mount.sync();
    rclone.run(&["copy", "--links", "sim:dir", "back"]).ok();
    let back = rclone.dir.path().join("back");
    assert_eq!(target(back.join("theirs")), PathBuf::from("../a file/ü"));
    assert_eq!(target(back.join("ours")), PathBuf::from("/nowhere/at all"));
    mount.unmount();
}
