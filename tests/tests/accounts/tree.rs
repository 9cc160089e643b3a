//! All drives of an account under one mount.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use onedrivefs_sim::{DriveSpec, FaultAction, FaultRule, Reach, SimConfig, SiteSpec};
use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Desktop, Home, Need, Service, Systemd, needs, wait};

use crate::company::{self, LIBRARY, TEAM_DRIVE, bens, drive};
use crate::figures::Figures;
use crate::world::app_login;

/// Time in which everything has to arrive by itself.
const ARRIVAL: Duration = wait::secs(60);

/// What a sign-in has to be allowed for everything to be shown.
const SCOPES: [&str; 4] = [
    "Files.ReadWrite.All",
    "Sites.Read.All",
    "Team.ReadBasic.All",
    "Channel.ReadBasic.All",
];

/// Has the service refuse files in a drive.
fn refuse_files(service: &Service, drive: &str) {
    for op in ["put_content", "create_session"] {
        service.faults().add(FaultRule {
            path: Some(format!("*{}*", drive.replace('!', "*"))),
            ..FaultRule::on(op, FaultAction::status(403))
        });
    }
}

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
    company::log_in(&home, &SCOPES);
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
    service.set_reach(Reach::Offline);
    home.sh(r#"printf unsent > "$M/Sites/plans/Archive/unsent.txt""#);
    mount.crash();
    drop(mount);
    service.set_reach(Reach::Online);
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
fn al_a_lost_sign_in_is_told_once_for_all_drives_and_a_new_one_takes_up_all_of_them() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    let library = drive(&service, LIBRARY);
    own.put("/own.txt", "own").expect("file");
    library.put("/site.txt", "site").expect("file");
    let home = Home::new(&service);
    let desktop = Desktop::start(&service, &home.path("run"));
    company::log_in(&home, &SCOPES);
    let mount = home.mount_args(&["--tree", "--poll", "1"]);
    wait::until("both drives", ARRIVAL, || {
        mount.at("My files/own.txt").exists() && mount.at("Sites/plans/Documents/site.txt").exists()
    });
    home.sh(r#"cat "$M/My files/own.txt" "$M/Sites/plans/Documents/site.txt""#);
    // The password was changed.
    service.set_knobs(|knobs| knobs.refresh_error = Some(50_173));
    service.expire_tokens();
    wait::until("the state", ARRIVAL, || {
        mount.status()["state"] == "needs-login"
    });
    let note = desktop.wait_for("sign-in needed");
    assert!(
        note.body.contains("onedrivefs login --account default"),
        "{note:?}"
    );
    let told = home
        .run(&["status", mount.path().to_str().expect("UTF-8")])
        .ok();
    assert!(
        told.contains("onedrivefs login --account default"),
        "{told}"
    );
    // Local work goes on, and a mount that is made meanwhile says the same before anybody looked
    // into a drive.
    home.sh(
        r#"cd "$M"; cat "My files/own.txt" Sites/plans/Documents/site.txt
        printf kept > "My files/kept.txt"; printf kept > Sites/plans/Documents/kept.txt"#,
    );
    assert!(!own.exists("/kept.txt") && !library.exists("/kept.txt"));
    assert_eq!(desktop.shown().len(), 1, "{:?}", desktop.shown());
    mount.unmount();
    let mount = home.mount_args(&["--tree", "--poll", "1"]);
    wait::until("the state", ARRIVAL, || {
        mount.status()["state"] == "needs-login"
    });
    service.set_knobs(|knobs| knobs.refresh_error = None);
    company::log_in(&home, &SCOPES);
    wait::until("what was kept", ARRIVAL, || {
        own.exists("/kept.txt") && library.exists("/kept.txt")
    });
    mount.sync();
    let status = mount.status();
    assert_eq!(status["state"], "online", "{status:#}");
    library.put("/later.txt", "later").expect("file");
    wait::until("what others change", ARRIVAL, || {
        mount.at("Sites/plans/Documents/later.txt").exists()
    });
    // Once by each of the two daemons at most.
    assert!(desktop.shown().len() <= 2, "{:?}", desktop.shown());
    mount.unmount();
}

#[test]
fn al_systemd_is_told_of_all_drives_of_a_tree() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let home = Home::new(&service);
    company::log_in(&home, &SCOPES);
    let systemd = Systemd::listen(&home.path("notify"));
    let mount = home.mount_with(MountSpec {
        arguments: vec!["--tree".into(), "--poll".into(), "1".into()],
        env: vec![systemd.variable()],
        ..MountSpec::default()
    });
    wait::until("the drives", ARRIVAL, || {
        mount.at("Sites/plans/Archive").is_dir() && mount.at("Teams/Bridge builders").is_dir()
    });
    home.sh(r#"cd "$M"; ls "My files" "Teams/Bridge builders" Sites/plans/Archive"#);
    mount.sync();
    systemd.wait_for("To send: nothing");
    refuse_files(&service, "b!archive");
    home.sh(r#"printf x > "$M/Sites/plans/Archive/refused.txt""#);
    let told = systemd.wait_for("waiting for you: 1 change");
    assert!(told.starts_with("To send: nothing"), "{told}");
    service.set_reach(Reach::Offline);
    home.sh(r#"printf x > "$M/Teams/Bridge builders/a.txt"; printf x > "$M/My files/b.txt""#);
    let told = systemd.wait_for("offline");
    assert!(told.contains("waiting for you: 1 change"), "{told}");
    systemd.wait_for("To send: 2 changes");
    service.set_reach(Reach::Online);
    service.faults().clear();
    mount.unmount();
}

/// The organisation with so many more sites, each with a library of its own.
fn with_sites(count: usize, change: impl FnOnce(&mut SimConfig)) -> Service {
    Service::with(|config| {
        company::company(config);
        let plans = config.sites[0].clone();
        config.sites.extend((0..count).map(|number| SiteSpec {
            id: format!("contoso.sharepoint.com,{number},9"),
            path: format!("/sites/s{number:02}"),
            name: format!("Site {number}"),
            drives: vec![format!("b!of-site-{number}")],
            ..plans.clone()
        }));
        let library = config.drives.iter().find(|drive| drive.id == LIBRARY);
        let library = library.expect("library").clone();
        config.drives.extend((0..count).map(|number| DriveSpec {
            id: format!("b!of-site-{number}"),
            ..library.clone()
        }));
        change(config);
    })
}

#[test]
fn al_sites_come_in_pages_and_what_is_left_out_is_told() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = with_sites(30, |config| config.knobs.sites_page_size = 7);
    let home = Home::new(&service);
    company::log_in(&home, &SCOPES);
    let mount = home.mount_args(&["--tree"]);
    wait::until("all sites", ARRIVAL, || {
        mount
            .at("Sites")
            .read_dir()
            .is_ok_and(|sites| sites.count() == 31)
    });
    assert!(mount.at("Sites/s29/Documents").is_dir());
    assert!(mount.status()["note"].is_null());
    mount.unmount();
    // Another home, where fewer are wanted.
    let home = Home::new(&service);
    home.configure("tree_sites = 25\n");
    company::log_in(&home, &SCOPES);
    let mount = home.mount_args(&["--tree"]);
    wait::until("the note", ARRIVAL, || {
        let note = mount.status()["note"].clone();
        note.as_str()
            .is_some_and(|note| note.contains("31 sites match; the first 25 are shown"))
    });
    let entries = fs::read_dir(mount.at("Sites")).expect("listed").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let listed: Vec<String> = names.collect();
    assert_eq!(listed.len(), 25);
    let text = home
        .run(&["status", mount.path().to_str().expect("UTF-8")])
        .ok();
    assert!(text.contains("tree_sites"), "{text}");
    // One that is not listed is found by its name, and is listed from then on.
    let missing = (0..30).map(|number| format!("s{number:02}"));
    let missing: Vec<_> = missing
        .filter(|name| listed.iter().all(|one| one != name))
        .collect();
    assert_eq!(missing.len(), 6, "{missing:?}");
    home.sh(&format!(
        r#"cd "$M/Sites"; test ! -e none; test ! -e .hidden; test "$(ls {0})" = Documents
        ls | grep -qx {0}; printf x > {0}/Documents/x"#,
        missing[0]
    ));
    mount.sync();
    let number = missing[0].trim_start_matches(['s', '0']);
    let number = if number.is_empty() { "0" } else { number };
    assert!(drive(&service, &format!("b!of-site-{number}")).exists("/x"));
    mount.unmount();
}

#[test]
fn al_what_waits_in_a_drive_that_left_the_tree_is_within_reach() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let bens = bens(&service);
    bens.put("/Papers/shared.txt", "shared").expect("file");
    bens.share("/Papers", "ada", true).expect("share");
    let home = Home::new(&service);
    company::log_in(&home, &SCOPES);
    let mount = home.mount_args(&["--tree", "--poll", "1"]);
    wait::until("the folder", ARRIVAL, || {
        mount.at("Shared/Papers/shared.txt").exists()
    });
    refuse_files(&service, bens.id());
    home.sh(r#"printf parked > "$M/Shared/Papers/parked.txt""#);
    let parked = || mount.status()["parked"].as_array().expect("list").clone();
    wait::until("what is parked", ARRIVAL, || parked().len() == 1);
    bens.unshare("/Papers", "ada").expect("unshared");
    // What there is is looked up anew after a sign-in.
    company::log_in(&home, &SCOPES);
    wait::until("the end of the folder", ARRIVAL, || {
        !mount.at("Shared/Papers").exists()
    });
    let left = "Shared/Papers (not shown any more)";
    let file = format!("{left}/parked.txt");
    wait::until("its new name", ARRIVAL, || {
        parked()[0]["path"] == file.as_str()
    });
    let path = mount.at(&file);
    let path = path.to_str().expect("UTF-8");
    let mut export = home.command(&["export", path]);
    export.current_dir(home.work());
    onedrivefs_tests::process::run(export, ARRIVAL).ok();
    assert_eq!(
        fs::read(home.work().join("parked.txt")).expect("read"),
        b"parked"
    );
    home.run(&["discard", path]).ok();
    let drives = || mount.status()["drives"].clone();
    let gone = || {
        drives()
            .as_array()
            .expect("list")
            .iter()
            .all(|one| one["left_path"].is_null())
    };
    wait::until("the end of its state", ARRIVAL, gone);
    assert_eq!(parked().len(), 0);
    mount.unmount();
}

#[test]
fn al_all_drives_of_a_tree_stay_within_one_cache() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let places = [
        ("My files", service.default_drive()),
        ("Sites/plans/Documents", drive(&service, LIBRARY)),
        ("Sites/plans/Archive", drive(&service, "b!archive")),
    ];
    for (_, drive) in &places {
        for name in ["a", "b", "c"] {
            drive
                .put(&format!("/{name}.bin"), vec![7_u8; 2 << 20])
                .expect("file");
        }
    }
    let home = Home::new(&service);
    company::log_in(&home, &SCOPES);
    let mount = home.mount_args(&["--tree", "--option", "cache_size=8MiB"]);
    wait::until("the drives", ARRIVAL, || {
        places
            .iter()
            .all(|(place, _)| mount.at(place).join("c.bin").exists())
    });
    // Each drive by itself stays below the limit; together they are more than twice of it.
    for (place, _) in &places {
        for name in ["a", "b", "c"] {
            let bytes = fs::read(mount.at(place).join(format!("{name}.bin"))).expect("read");
            assert_eq!(bytes.len(), 2 << 20);
        }
    }
    let kept = || mount.status()["cache"]["bytes"].as_u64().expect("number");
    wait::until("room", ARRIVAL, || kept() <= 8 << 20);
    assert!(kept() > 0, "what was read last stays");
    mount.unmount();
}

/// What a drive of a tree costs that somebody looked into once. Prints figures; run it by name with
/// `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn al_figures_of_a_hundred_idle_drives_of_a_tree() {
    const COUNT: usize = 100;
    const LOOK: Duration = Duration::from_secs(60);
    let service = with_sites(COUNT, |_| {});
    let home = Home::new(&service);
    company::log_in(&home, &SCOPES);
    let mount = home.mount_with(MountSpec {
        arguments: vec!["--tree".into()],
        ..MountSpec::lasting(400)
    });
    let last = format!("Sites/s{}/Documents", COUNT - 1);
    wait::until("all sites", ARRIVAL, || mount.at(&last).is_dir());
    let look = |what: &str| {
        std::thread::sleep(Duration::from_secs(20));
        let (before, asked) = (Figures::of(mount.pid()), service.last_request());
        std::thread::sleep(LOOK);
        let after = Figures::of(mount.pid());
        println!(
            "{what}, idle for {} s: {} requests, CPU {:.2} s, {} wake-ups, RSS {} KiB, {} threads",
            LOOK.as_secs(),
            service.last_request() - asked,
            (after.ticks - before.ticks) as f64 / 100.0,
            after.wake_ups - before.wake_ups,
            after.bytes >> 10,
            after.threads,
        );
    };
    look("no drive open");
    for number in 0..COUNT {
        let site = mount.at(&format!("Sites/s{number:02}/Documents"));
        assert_eq!(fs::read_dir(site).expect("listed").count(), 0);
    }
    look("all drives open");
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
