//! The ways to say what is to be mounted, beside one's own drive.

use std::fs;

use onedrivefs_sim::{DriveKind, DriveSpec, FaultAction, FaultRule, SharedList, UserSpec};
use onedrivefs_tests::{Home, Mount, Need, Service, needs, process, wait};
use serde_json::Value;

use crate::company::{self, LIBRARY, SITE, TEAM, TEAM_DRIVE, bens, drive};
use crate::world::{self, app_login};

/// Which drive is mounted.
fn drive_of(mount: &Mount<'_>) -> String {
    mount.status()["drive"]["id"]
        .as_str()
        .expect("id")
        .to_owned()
}

/// Mounts, looks, and unmounts.
fn look(home: &Home<'_>, arguments: &[&str], file: &str) -> (String, String) {
    let mount = home.mount_args(arguments);
    let text = fs::read_to_string(mount.at(file)).unwrap_or_else(|error| {
        panic!("{arguments:?}: {file}: {error}");
    });
    let found = (drive_of(&mount), text);
    mount.unmount();
    found
}

fn listed(home: &Home<'_>, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["drives", "--json"];
    all.extend(arguments);
    serde_json::from_str(&home.run(&all).ok()).expect("JSON")
}

#[test]
fn kl_20_kl_22_a_library_is_mounted_by_address_search_or_drive() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    drive(&service, LIBRARY)
        .put("/plan.txt", "plan")
        .expect("file");
    drive(&service, "b!archive")
        .put("/old.txt", "old")
        .expect("file");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All", "Sites.Read.All"]);
    for arguments in [
        &["--site", SITE][..],
        &["--site", "plans"],
        &["--site", SITE, "--library", "Documents"],
        &["--drive", LIBRARY],
    ] {
        let found = look(&home, arguments, "plan.txt");
        assert_eq!(
            found,
            (LIBRARY.to_owned(), "plan".to_owned()),
            "{arguments:?}"
        );
    }
    let (found, _) = look(
        &home,
        &["--site", "plans", "--library", "Archive"],
        "old.txt",
    );
    assert_eq!(found, "b!archive");
    let shown = listed(&home, &["--site", "plan"]);
    assert_eq!(shown[0]["mount"], format!("--drive {LIBRARY}"));
    home.try_mount(&["--site", "nowhere"])
        .explained(1, "no site has that in its name");
    home.try_mount(&["--site", SITE, "--library", "Wrong"])
        .explained(2, "there is no such library");
}

#[test]
fn kl_21_a_library_is_mounted_by_an_application() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    drive(&service, LIBRARY)
        .put("/in/plan.txt", "plan")
        .expect("file");
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let found = look(&home, &["--site", SITE, "--folder", "in"], "plan.txt");
    assert_eq!(found, (LIBRARY.to_owned(), "plan".to_owned()));
    let mount = home.mount_args(&["--site", "plans"]);
    fs::write(mount.at("new.txt"), "new").expect("written");
    mount.sync();
    assert!(drive(&service, LIBRARY).exists("/new.txt"));
    mount.unmount();
}

#[test]
fn kl_24_teams_are_listed_and_the_files_of_channels_mounted() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let team = drive(&service, TEAM_DRIVE);
    team.put("/Site work/bridge.txt", "bridge").expect("file");
    drive(&service, "b!private")
        .put("/Board/vote.txt", "vote")
        .expect("file");
    let home = Home::new(&service);
    // The list of the guide has no permission to list channels.
    company::log_in(
        &home,
        &[
            "Files.ReadWrite.All",
            "Team.ReadBasic.All",
            "User.ReadBasic.All",
        ],
    );
    let shown = listed(&home, &["--teams"]);
    assert_eq!(shown[0]["name"], "Bridge builders");
    assert_eq!(shown[0]["mount"], "--team 'Bridge builders'");
    let all = ["--team", "Bridge builders"];
    let found = look(&home, &all, "Site work/bridge.txt");
    assert_eq!(found, (TEAM_DRIVE.to_owned(), "bridge".to_owned()));
    let channel = ["--team", "bridge BUILDERS", "--channel", "Site work"];
    let found = look(&home, &channel, "bridge.txt");
    assert_eq!(found, (TEAM_DRIVE.to_owned(), "bridge".to_owned()));
    home.try_mount(&["--team", "Nobody"])
        .explained(1, "there is no such team");
    // With it, private channels are found where they are.
    company::log_in(
        &home,
        &[
            "Files.ReadWrite.All",
            "Team.ReadBasic.All",
            "Channel.ReadBasic.All",
        ],
    );
    let board = ["--team", TEAM, "--channel", "Board"];
    let found = look(&home, &board, "vote.txt");
    assert_eq!(found, ("b!private".to_owned(), "vote".to_owned()));
    home.try_mount(&["--team", TEAM, "--channel", "Wrong"])
        .explained(2, "there is no such channel");
}

#[test]
fn kl_24_a_team_needs_its_permission_and_nothing_else_does() {
    let service = company::start();
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    home.try_mount(&["--team", "Bridge builders"])
        .explained(1, "Team.ReadBasic.All");
    let all = listed(&home, &[]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["found"], "own");
}

#[test]
fn fe_03_what_others_share_is_found_by_name_link_or_shortcut() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let theirs = bens(&service);
    theirs.put("/papers/a.txt", "a").expect("file");
    theirs.put("/single.txt", "single").expect("file");
    let papers = theirs.share("/papers", "ada", false).expect("shared");
    theirs.share("/single.txt", "ada", false).expect("shared");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let shown = listed(&home, &["--shared"]);
    let names: Vec<&str> = shown
        .iter()
        .filter_map(|item| item["name"].as_str())
        .collect();
    assert_eq!(names, ["papers", "single.txt"]);
    let way = format!("--drive {} --folder id:{papers}", theirs.id());
    assert_eq!(shown[0]["mount"], way.as_str());
    let expected = (theirs.id().to_owned(), "a".to_owned());
    assert_eq!(look(&home, &["--shared", "Papers"], "a.txt"), expected);
    let by_id: Vec<&str> = way.split(' ').collect();
    assert_eq!(look(&home, &by_id, "a.txt"), expected);
    let single = (theirs.id().to_owned(), "single".to_owned());
    let alone = look(&home, &["--shared", "single.txt"], "single.txt");
    assert_eq!(alone, single, "in a folder of its own");
    // The address under which the folder is shown in a browser.
    let address = format!("{}/web/{}/papers", service.content_url(), theirs.id());
    assert_eq!(look(&home, &["--shared", &address], "a.txt"), expected);
    // The service gives its list up: what has a shortcut is found all the same, with the name it has.
    service.set_knobs(|knobs| knobs.shared_list = SharedList::Gone);
    home.try_mount(&["--shared", "single"])
        .explained(1, "there is nothing of that name");
    let own = service.default_drive();
    own.add_shortcut("/Ben's papers", theirs.id(), &papers)
        .expect("shortcut");
    assert_eq!(
        look(&home, &["--shared", "Ben's papers"], "a.txt"),
        expected
    );
    assert_eq!(
        look(&home, &["--folder", "Ben's papers"], "a.txt"),
        expected
    );
    let table = home.run(&["drives"]).ok();
    assert!(
        table.contains("Ben's papers") && table.contains("shared folder"),
        "{table}"
    );
}

#[test]
fn fe_03_what_the_list_of_shared_items_does_not_name_any_more_is_found_by_search() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let theirs = bens(&service);
    let many = 130;
    for number in 0..many {
        let path = format!("/shared/{number:03}");
        theirs.put(&format!("{path}/a.txt"), "a").expect("file");
        theirs.share(&path, "ada", true).expect("shared");
    }
    theirs.put("/single.txt", "single").expect("file");
    theirs.share("/single.txt", "ada", false).expect("shared");
    theirs.put("/private/a.txt", "private").expect("file");
    theirs.share("/private", "new", true).expect("shared");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    for list in [SharedList::Gone, SharedList::Empty, SharedList::Latest] {
        service.set_knobs(|knobs| knobs.shared_list = list);
        let ran = home.run(&["drives", "--shared"]);
        assert!(
            !ran.err.contains("could not be listed"),
            "{list:?}: {}",
            ran.err
        );
        assert!(ran.out.contains("shared file"), "{list:?}: {}", ran.out);
        let mut names: Vec<String> = listed(&home, &["--shared"])
            .iter()
            .filter_map(|item| item["name"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        assert_eq!(names.len(), many + 1, "{list:?}: {names:?}");
        assert_eq!(
            (names[7].as_str(), names[many].as_str()),
            ("007", "single.txt")
        );
    }
    service.set_knobs(|knobs| knobs.shared_list = SharedList::Gone);
    let mount = home.mount_args(&["--shared", "042"]);
    assert_eq!(fs::read(mount.at("a.txt")).expect("read"), b"a");
    fs::write(mount.at("b.txt"), "b").expect("written");
    mount.sync();
    assert!(theirs.exists("/shared/042/b.txt"));
    mount.unmount();
    // What is in the index and not there any more is not shown.
    let gone = FaultRule::on("item", FaultAction::status(404))
        .at("/items/")
        .times(1);
    service.faults().add(gone);
    assert_eq!(listed(&home, &["--shared"]).len(), many);
    // Where there is no search either, it is said why nothing is found, and what works.
    service
        .faults()
        .add(FaultRule::on("search", FaultAction::status(501)));
    let ran = home.try_mount(&["--shared", "008"]);
    ran.explained(1, "the service lists nothing else");
    assert!(ran.err.contains("--shared https://"), "{}", ran.err);
}

#[test]
fn fe_03_a_personal_account_has_its_shortcuts_when_the_list_of_shared_items_ends() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::with(|config| {
        world::organisation(config);
        config.users.push(UserSpec {
            id: "sam".into(),
            upn: "sam@outlook.example".into(),
            tenant: "consumers".into(),
            ..UserSpec::default()
        });
        config.drives.push(DriveSpec {
            owner: "sam".into(),
            kind: DriveKind::Personal,
            ..DriveSpec::default()
        });
        config.knobs.shared_list = SharedList::Gone;
    });
    let drives = service.drives();
    let (own, theirs) = (&drives[2], &drives[3]);
    theirs.put("/album/a.jpg", "a").expect("file");
    let album = theirs.share("/album", "pat", true).expect("shared");
    let home = Home::new(&service);
    let login = [
        "login",
        "--device-code",
        "--client-id",
        "public",
        "--tenant",
        "consumers",
    ];
    home.run(&login).ok();
    let ran = home.run(&["drives"]);
    assert!(
        ran.err.contains("without a shortcut could not be listed"),
        "{}",
        ran.err
    );
    ran.ok();
    home.try_mount(&["--shared", "album"])
        .explained(1, "the service lists nothing else");
    own.add_shortcut("/Sam's album", theirs.id(), &album)
        .expect("shortcut");
    let (found, _) = look(&home, &["--shared", "Sam's album"], "a.jpg");
    assert_eq!(found, theirs.id());
    assert_eq!(
        service.requests().count("search"),
        0,
        "personal accounts have none"
    );
}

#[test]
fn fe_03_a_read_share_refuses_what_it_does_not_allow_and_keeps_it() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let theirs = bens(&service);
    theirs.put("/papers/a.txt", "a").expect("file");
    theirs.share("/papers", "ada", true).expect("shared");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let mount = home.mount_args(&["--shared", "papers"]);
    mount.sync();
    // The right to write is taken away, which nobody tells.
    theirs.share("/papers", "ada", false).expect("shared");
    fs::write(mount.at("b.txt"), "b").expect("written");
    let parked = wait::value("the refusal", wait::secs(60), || {
        mount.status()["parked"][0]["error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(parked.contains("accessDenied"), "{parked}");
    assert_eq!(fs::read(mount.at("b.txt")).expect("kept"), b"b");
    assert!(!theirs.exists("/papers/b.txt"));
    mount.unmount();
    // It is asked at every start, and from then on nothing is accepted that could not be sent.
    let mount = home.mount_args(&["--shared", "papers"]);
    wait::until("a refusal at once", wait::secs(60), || {
        fs::write(mount.at("c.txt"), "c")
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    });
    assert_eq!(fs::read(mount.at("b.txt")).expect("kept"), b"b");
    mount.unmount();
}

#[test]
fn fe_18_what_others_share_can_be_read_with_permission_to_read_and_nothing_can_be_changed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let theirs = bens(&service);
    theirs.put("/papers/a.txt", "a").expect("file");
    let papers = theirs.share("/papers", "ada", true).expect("shared");
    let own = service.default_drive();
    own.put("/own.txt", "own").expect("file");
    own.add_shortcut("/Papers", theirs.id(), &papers)
        .expect("shortcut");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.Read.All"]);
    for (arguments, file) in [
        (&["--shared", "papers"][..], "a.txt"),
        (&[], "Papers/a.txt"),
    ] {
        let mount = home.mount_args(arguments);
        mount.sync();
        assert_eq!(
            fs::read(mount.at(file)).expect("read"),
            b"a",
            "{arguments:?}"
        );
        let before = service.last_request();
        let refused = fs::write(mount.at(file), "mine").expect_err("read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let refused = fs::remove_file(mount.at(file)).expect_err("read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let asked = service.requests().since(before);
        assert!(
            asked.iter().all(|record| record.method == "GET"),
            "{:#?}",
            service.request_lines()
        );
        mount.unmount();
    }
    assert_eq!(theirs.read("/papers/a.txt").as_deref(), Some(&b"a"[..]));
}

#[test]
fn fe_22_the_applications_folder_is_all_that_its_permission_opens() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/private.txt", "private").expect("file");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.AppFolder"]);
    let mount = home.mount_args(&["--app-folder"]);
    fs::write(mount.at("settings.json"), "{}").expect("written");
    mount.sync();
    assert_eq!(
        own.read("/Apps/onedrivefs/settings.json").as_deref(),
        Some(&b"{}"[..])
    );
    own.put("/Apps/onedrivefs/theirs.txt", "theirs")
        .expect("file");
    mount.sync();
    assert_eq!(fs::read(mount.at("theirs.txt")).expect("read"), b"theirs");
    assert_eq!(fs::read_dir(mount.path()).expect("listing").count(), 2);
    mount.unmount();
}

#[test]
fn what_a_mount_begins_at_stands_in_the_configuration_as_well() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/a/b/c.txt", "c").expect("file");
    let theirs = bens(&service);
    theirs.put("/papers/a.txt", "a").expect("file");
    theirs.share("/papers", "ada", true).expect("shared");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let place = home.mountpoint();
    let place = place.display();
    home.configure(&format!("[mounts.\"{place}\"]\nfolder = \"a/b\"\n"));
    assert_eq!(look(&home, &[], "c.txt").1, "c");
    home.configure(&format!("[mounts.\"{place}\"]\nshared = \"papers\"\n"));
    assert_eq!(look(&home, &[], "a.txt").1, "a");
    // What the command line names replaces it altogether.
    assert_eq!(look(&home, &["--folder", "a"], "b/c.txt").1, "c");
    home.try_mount(&["--folder", "a/none"])
        .explained(1, "there is no such folder");
    home.try_mount(&["--folder", "a/b/c.txt"])
        .explained(2, "a mount begins at a folder");
}

#[test]
fn two_folders_of_a_drive_are_two_mounts() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/a/one.txt", "one").expect("file");
    own.put("/b/two.txt", "two").expect("file");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All"]);
    let first = home.mount_args(&["--folder", "a"]);
    let other = home.make_dir("other");
    let second = home.mount_with(onedrivefs_tests::mount::MountSpec {
        arguments: vec!["--folder".into(), "b".into()],
        mountpoint: Some(other),
        ..onedrivefs_tests::mount::MountSpec::default()
    });
    assert_eq!(fs::read(first.at("one.txt")).expect("read"), b"one");
    assert_eq!(fs::read(second.at("two.txt")).expect("read"), b"two");
    // From one to the other is a copy, as between any two file systems.
    let mut command = home.program("mv");
    command.arg(first.at("one.txt")).arg(second.at("moved.txt"));
    process::run(command, wait::secs(30)).ok();
    for mount in [&first, &second] {
        wait::until("all is sent", wait::secs(60), || {
            mount.status()["pending"]["ops"] == 0
        });
    }
    assert_eq!(own.read("/b/moved.txt").as_deref(), Some(&b"one"[..]));
    assert!(!own.exists("/a/one.txt"));
    second.unmount();
    first.unmount();
}

#[test]
fn fe_20_only_what_was_selected_is_listed_and_none_of_it_can_be_changed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/private.txt", "private").expect("file");
    own.put("/in/chosen.txt", "chosen").expect("file");
    own.put("/in/other.txt", "other").expect("file");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.Read.Selected"]);
    let mount = home.mount();
    mount.sync();
    assert_eq!(
        fs::read_dir(mount.path()).expect("an empty root").count(),
        0
    );
    own.select("/in/chosen.txt", false).expect("selected");
    mount.sync();
    wait::until("it appears", wait::secs(60), || {
        mount.at("in/chosen.txt").exists()
    });
    assert_eq!(
        fs::read(mount.at("in/chosen.txt")).expect("read"),
        b"chosen"
    );
    assert_eq!(fs::read_dir(mount.at("in")).expect("listing").count(), 1);
    let refused = fs::write(mount.at("in/chosen.txt"), "x").expect_err("read-only");
    assert_eq!(
        refused.raw_os_error(),
        Some(rustix::io::Errno::ROFS.raw_os_error())
    );
    mount.unmount();
}

#[test]
fn fe_21_what_was_selected_can_be_changed_and_nothing_else() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let own = service.default_drive();
    own.put("/private.txt", "private").expect("file");
    own.put("/chosen/a.txt", "a").expect("file");
    own.select("/chosen", true).expect("selected");
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.Selected"]);
    let mount = home.mount();
    mount.sync();
    assert_eq!(fs::read_dir(mount.path()).expect("listing").count(), 1);
    fs::write(mount.at("chosen/b.txt"), "b").expect("written");
    mount.sync();
    assert_eq!(own.read("/chosen/b.txt").as_deref(), Some(&b"b"[..]));
    fs::write(mount.at("outside.txt"), "kept").expect("written");
    wait::until("the refusal", wait::secs(60), || {
        mount.status()["parked"][0]["error"].is_string()
    });
    assert_eq!(fs::read(mount.at("outside.txt")).expect("kept"), b"kept");
    assert!(!own.exists("/outside.txt"));
    mount.unmount();
}
