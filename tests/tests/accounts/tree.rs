//! All drives of an account under one mount.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use onedrivefs_tests::{Home, Need, needs, wait};

use crate::company::{self, LIBRARY, TEAM_DRIVE, bens, drive};
use crate::world::app_login;

/// Time in which everything has to arrive by itself.
const ARRIVAL: Duration = wait::secs(60);

#[test]
fn al_all_drives_of_a_person_are_under_one_mount() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/own.txt", "own").expect("file");
    drive(&service, LIBRARY)
        .put("/site.txt", "site")
        .expect("file");
    drive(&service, TEAM_DRIVE)
        .put("/General/team.txt", "team")
        .expect("file");
    let bens = bens(&service);
    bens.put("/Papers/shared.txt", "shared").expect("file");
    bens.put("/private.txt", "private").expect("file");
    bens.share("/Papers", "ada", true).expect("share");
    let home = Home::new(&service);
    let scopes = [
        "Files.ReadWrite.All",
        "Sites.Read.All",
        "Team.ReadBasic.All",
        "Channel.ReadBasic.All",
    ];
    company::log_in(&home, &scopes);
    let mut mount = home.mount_args(&["--tree", "--poll", "2"]);
    wait::until("everything that there is", ARRIVAL, || {
        mount.at("Teams/Bridge builders/General/team.txt").exists()
            && mount.at("Sites/plans/Documents/site.txt").exists()
            && mount.at("Shared/Papers/shared.txt").exists()
    });
    home.sh(r#"cd "$M"; test "$(ls)" = "$(printf 'My files\nShared\nSites\nTeams')"
        test "$(cat "My files/own.txt")" = own; test "$(ls Sites/plans)" = "$(printf 'Archive\nDocuments')"
        ! mkdir new 2> /dev/null; ! touch Sites/x 2> /dev/null; ! rmdir "My files" 2> /dev/null
        df . > /dev/null; test ! -e Shared/Papers/private.txt"#);
    home.sh(
        r#"cd "$M"; printf made > "My files/made.txt"; printf made > Sites/plans/Archive/made.txt
        mv "My files/own.txt" "Teams/Bridge builders/General/moved.txt""#,
    );
    mount.sync();
    assert_eq!(own.read("/made.txt").as_deref(), Some(&b"made"[..]));
    let archive = drive(&service, "b!archive");
    assert_eq!(archive.read("/made.txt").as_deref(), Some(&b"made"[..]));
    let team = drive(&service, TEAM_DRIVE);
    assert_eq!(
        team.read("/General/moved.txt").as_deref(),
        Some(&b"own"[..])
    );
    assert!(!own.exists("/own.txt"));
    let status = mount.status();
    let drives = status["drives"].as_array().expect("list");
    let paths: Vec<_> = drives.iter().map(|one| one["path"].as_str()).collect();
    assert!(
        paths.contains(&Some("Sites/plans/Archive")) && paths.contains(&Some("My files")),
        "{status:#}"
    );
    assert_eq!(status["state"], "online", "{status:#}");
    assert_eq!(
        mount.status_of("My files/made.txt")["status"],
        "cached",
        "{status:#}"
    );
    // What was made offline is sent after a crash, and numbers stay.
    let number = |path: &str| {
        fs::metadata(home.mountpoint().join(path))
            .expect("stat")
            .ino()
    };
    let before = number("My files/made.txt");
    service.set_reach(onedrivefs_sim::Reach::Offline);
    home.sh(r#"printf unsent > "$M/Sites/plans/Archive/unsent.txt""#);
    mount.crash();
    drop(mount);
    service.set_reach(onedrivefs_sim::Reach::Online);
    let mount = home.mount_args(&["--tree"]);
    wait::until("what was not sent", ARRIVAL, || {
        archive.read("/unsent.txt").as_deref() == Some(&b"unsent"[..])
    });
    assert_eq!(number("My files/made.txt"), before);
    mount.unmount();
}

#[test]
fn al_an_application_has_everybody_under_one_mount() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    service
        .default_drive()
        .put("/own.txt", "own")
        .expect("file");
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let mount = home.mount_args(&["--tree"]);
    wait::until("everybody", ARRIVAL, || {
        mount.at("Users/ada@example.com/own.txt").exists()
            && mount.at("Users/ben@example.com").is_dir()
    });
    // Who has no drive is not there.
    assert!(!mount.at("Users/new@example.com").exists());
    home.sh(r#"printf x > "$M/Users/ben@example.com/x.txt""#);
    mount.sync();
    assert!(bens(&service).exists("/x.txt"));
    mount.unmount();
}

#[test]
fn fe_03_shortcuts_in_the_drives_of_a_tree_are_followed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    let bens = bens(&service);
    let papers = bens.mkdir("/Papers").expect("folder");
    bens.put("/Papers/shared.txt", "shared").expect("file");
    let single = bens.put("/private/single.txt", "single").expect("file");
    bens.share("/Papers", "ada", true).expect("share");
    bens.share("/private/single.txt", "ada", true)
        .expect("share");
    let library = drive(&service, LIBRARY);
    let plans = library.mkdir("/Plans").expect("folder");
    library.put("/Plans/site.txt", "site").expect("file");
    own.add_shortcut("/Work/Papers", bens.id(), &papers)
        .expect("shortcut");
    own.add_shortcut("/Work/single.txt", bens.id(), &single)
        .expect("shortcut");
    // From there into the library, and from the library back to where all of it began.
    bens.add_shortcut("/Papers/Plans", library.id(), &plans)
        .expect("shortcut");
    library
        .add_shortcut("/Plans/Back", bens.id(), &papers)
        .expect("shortcut");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All", "Sites.Read.All"]);
    let mount = home.mount_args(&["--tree", "--poll", "1"]);
    wait::until("what there is", ARRIVAL, || {
        mount.at("Sites/plans/Documents/Plans/site.txt").exists()
            && mount.at("My files/Work/Papers/shared.txt").exists()
    });
    home.sh(
        r#"cd "$M/My files/Work"; test "$(cat Papers/shared.txt)" = shared
        test "$(cat single.txt)" = single; printf + >> single.txt
        test "$(cat Papers/Plans/site.txt)" = site; printf made > Papers/Plans/made.txt
        test "$(cat "$M/Sites/plans/Documents/Plans/Back/shared.txt")" = shared
        find "$M" 2> /dev/null | wc -l > "$W/count" || true; test "$(cat "$W/count")" -lt 100"#,
    );
    mount.sync();
    assert_eq!(
        bens.read("/private/single.txt").as_deref(),
        Some(&b"single+"[..])
    );
    assert_eq!(
        library.read("/Plans/made.txt").as_deref(),
        Some(&b"made"[..])
    );
    let endless = fs::read_dir(mount.at("My files/Work/Papers/Plans/Back")).expect_err("loop");
    let looped = rustix::io::Errno::LOOP.raw_os_error();
    assert_eq!(endless.raw_os_error(), Some(looped));
    // A shortcut in a drive of the tree can be removed, and nothing goes with it.
    home.sh(
        r#"cd "$M/My files/Work"; rm -r Papers 2> /dev/null || true; test ! -e Papers/shared.txt"#,
    );
    wait::until("the end of the shortcut", ARRIVAL, || {
        mount.sync();
        !own.exists("/Work/Papers")
    });
    assert!(bens.exists("/Papers/shared.txt") && library.exists("/Plans/site.txt"));
    mount.unmount();
}
