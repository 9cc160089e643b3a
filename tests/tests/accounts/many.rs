//! Many mounts in one process.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveSpec, FaultAction, FaultRule, Reach, UserSpec};
use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Desktop, Home, Need, Service, Systemd, needs, process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::company::{self, LIBRARY};
use crate::figures::{self, Figures};
use crate::world::{self, TENANT, app_login};

/// People with a drive each, and one without.
fn crowd(count: usize) -> Service {
    Service::with(|config| {
        world::organisation(config);
        let person = |index: usize| UserSpec {
            id: format!("person-{index}"),
            upn: format!("person-{index}@example.com"),
            name: format!("Person {index}"),
            tenant: TENANT.into(),
            ..UserSpec::default()
        };
        config.users.extend((0..count).map(person));
        config.drives.extend((0..count).map(|index| DriveSpec {
            owner: format!("person-{index}"),
            ..DriveSpec::default()
        }));
    })
}

/// `onedrivefs mount --all`.
struct All<'h> {
    home: &'h Home<'h>,
    child: Child,
    places: Vec<PathBuf>,
}

impl<'h> All<'h> {
    /// Mounts the drives of these people.
    fn start(home: &'h Home<'h>, people: &[String]) -> Self {
        let wanted = people.iter().map(|person| format!("user = \"{person}\""));
        Self::of(home, "", &wanted.collect::<Vec<_>>())
    }

    /// Mounts what these keys name, one each, with further settings.
    fn of(home: &'h Home<'h>, settings: &str, wanted: &[String]) -> Self {
        let mut config = format!("{settings}\n");
        let mut places = Vec::new();
        for (index, keys) in wanted.iter().enumerate() {
            let place = home.make_dir(&format!("all-{index}"));
            config += &format!("[mounts.\"{}\"]\n{keys}\n", place.display());
            places.push(place);
        }
        home.configure(&config);
        let log = fs::File::create(home.path("all.log")).expect("log");
        let child = home
            .command(&["mount", "--all"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("daemon");
        Self {
            home,
            child,
            places,
        }
    }

    fn status(&self, index: usize) -> Value {
        let place = self.places[index].to_str().expect("UTF-8");
        let ran = self.home.run(&["status", "--json", place]);
        serde_json::from_str(&ran.out).unwrap_or(Value::Null)
    }

    fn wait_up(&self, index: usize) {
        wait::until(&format!("mount {index}"), wait::secs(60), || {
            is_mounted(&self.places[index]) && self.status(index)["state"] == "online"
        });
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.child.id()).expect("pid");
        Pid::from_raw(pid).expect("pid")
    }

    /// Ends all of them.
    fn end(mut self) {
        kill_process(self.pid(), Signal::TERM).expect("signal");
        let ended = process::wait(&mut self.child, Duration::from_secs(60));
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}",
            self.home.logs()
        );
        for place in &self.places {
            assert!(!is_mounted(place), "{} is left", place.display());
        }
    }
}

impl Drop for All<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for place in &self.places {
            drop(
                Command::new("fusermount3")
                    .args(["-uzq"])
                    .arg(place)
                    .status(),
            );
        }
    }
}

fn people(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("person-{index}@example.com"))
        .collect()
}

#[test]
fn al_02_many_mounts_of_one_profile_share_one_token_and_stand_apart() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    const COUNT: usize = 20;
    let service = crowd(COUNT);
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    // Nothing is left of the sign-in but what an application needs to sign in by itself.
    fs::remove_file(home.account_state().join("token.json")).expect("a token");
    let before = service.requests().count("token");
    let mut who = people(COUNT);
    who.push("new@example.com".into());
    let all = All::start(&home, &who);
    for index in 0..COUNT {
        all.wait_up(index);
        fs::write(all.places[index].join("own.txt"), format!("{index}")).expect("written");
    }
    for index in 0..COUNT {
        let place = all.places[index].to_str().expect("UTF-8");
        home.run(&["sync", "--timeout", "60", place]).ok();
        let drive = service.drives().into_iter().nth(3 + index).expect("drive");
        let sent = drive.read("/own.txt").expect("sent");
        assert_eq!(sent, format!("{index}").into_bytes());
    }
    assert_eq!(
        service.requests().count("token") - before,
        1,
        "one token for all"
    );
    // The one without a drive says so, harms nobody, and comes up by itself once there is one.
    assert!(!is_mounted(&all.places[COUNT]));
    let failing = all.status(COUNT);
    assert_eq!(failing["state"], "not-mounted", "{failing}");
    let place = all.places[COUNT].to_str().expect("UTF-8");
    let text = home.run(&["status", place]).ok();
    assert!(text.contains("not provisioned"), "{text}");
    service.add_drive(DriveSpec {
        owner: "new".into(),
        ..DriveSpec::default()
    });
    all.wait_up(COUNT);
    // One that is unmounted stays so.
    home.run(&["unmount", all.places[0].to_str().expect("UTF-8")])
        .ok();
    assert!(!is_mounted(&all.places[0]) && is_mounted(&all.places[1]));
    all.end();
}

#[test]
fn al_02_a_pause_that_the_service_asks_one_mount_for_holds_for_all_of_them() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    const COUNT: usize = 4;
    let service = crowd(COUNT);
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let all = All::start(&home, &people(COUNT));
    (0..COUNT).for_each(|index| all.wait_up(index));
    let pause = FaultRule::on("create_session", FaultAction::retry_after(429, "4")).times(1);
    let pause = service.faults().add(pause);
    fs::write(all.places[0].join("first.txt"), "first").expect("written");
    wait::until("the pause", wait::secs(30), || {
        service.faults().hits(pause) == 1
    });
    for place in &all.places[1..] {
        fs::write(place.join("later.txt"), "later").expect("written");
    }
    for index in 0..COUNT {
        let name = if index == 0 {
            "/first.txt"
        } else {
            "/later.txt"
        };
        let drive = service.drives().into_iter().nth(3 + index).expect("drive");
        wait::until(name, wait::secs(60), || drive.exists(name));
    }
    let requests = service.requests().since(0);
    let asked = requests
        .iter()
        .find(|record| record.status.load(Ordering::Relaxed) == 429)
        .expect("the pause");
    // What was on its way already may still arrive.
    let during = asked.at_ms + 300..asked.at_ms + 3_800;
    let impatient: Vec<_> = requests
        .iter()
        .filter(|record| record.host == "api" && during.contains(&record.at_ms))
        .collect();
    assert!(impatient.is_empty(), "{impatient:#?}");
    all.end();
}

/// Two drives of one person, as keys of mounts.
fn two_drives() -> [String; 2] {
    [String::new(), format!("drive = \"{LIBRARY}\"")]
}

#[test]
fn al_02_a_lost_sign_in_is_told_once_for_all_mounts_and_a_new_one_takes_up_all_of_them() {
    if !needs::met(&[Need::Fuse, Need::Program("dbus-daemon")]) {
        return;
    }
    let service = company::start();
    let drives = [service.default_drive(), company::drive(&service, LIBRARY)];
    let home = Home::new(&service);
    let desktop = Desktop::start(&service, &home.path("run"));
    let scopes = ["Files.ReadWrite.All", "Sites.Read.All"];
    company::log_in(&home, &scopes);
    let all = All::of(&home, "poll = 1", &two_drives());
    (0..2).for_each(|index| all.wait_up(index));
    service.set_knobs(|knobs| knobs.refresh_error = Some(50_173));
    service.expire_tokens();
    for index in 0..2 {
        wait::until("the state", wait::secs(60), || {
            all.status(index)["state"] == "needs-login"
        });
        fs::write(all.places[index].join("kept.txt"), "kept").expect("written");
    }
    let note = desktop.wait_for("sign-in needed");
    assert!(
        note.body.contains("onedrivefs login --account default"),
        "{note:?}"
    );
    service.set_knobs(|knobs| knobs.refresh_error = None);
    company::log_in(&home, &scopes);
    for (index, drive) in drives.iter().enumerate() {
        wait::until("what was kept", wait::secs(60), || {
            drive.exists("/kept.txt")
        });
        all.wait_up(index);
    }
    assert_eq!(desktop.shown().len(), 1, "{:?}", desktop.shown());
    all.end();
}

#[test]
fn al_02_systemd_is_told_of_all_mounts() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    let mut home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All", "Sites.Read.All"]);
    let systemd = Systemd::listen(&home.path("notify"));
    let (name, value) = systemd.variable();
    home.set_env(&name, &value);
    let all = All::of(&home, "poll = 1", &two_drives());
    (0..2).for_each(|index| all.wait_up(index));
    systemd.wait_for("2 of 2 mounted. To send: nothing");
    service.set_reach(Reach::Offline);
    for place in &all.places {
        fs::write(place.join("waits.txt"), "waits").expect("written");
    }
    let told = systemd.wait_for("To send: 2 changes, 10 B");
    assert!(told.starts_with("2 of 2 mounted. "), "{told}");
    systemd.wait_for("offline");
    service.set_reach(Reach::Online);
    systemd.wait_for("2 of 2 mounted. To send: nothing");
    let place = all.places[1].to_str().expect("UTF-8");
    home.run(&["unmount", place]).ok();
    systemd.wait_for("1 of 2 mounted");
    all.end();
}

#[test]
fn al_02_all_mounts_stay_within_one_cache() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = company::start();
    for drive in [service.default_drive(), company::drive(&service, LIBRARY)] {
        for name in ["a", "b", "c"] {
            let path = format!("/{name}.bin");
            drive.put(&path, vec![7_u8; 2 << 20]).expect("file");
        }
    }
    let home = Home::new(&service);
    company::log_in(&home, &["Files.ReadWrite.All", "Sites.Read.All"]);
    let all = All::of(&home, "cache_size = \"8MiB\"", &two_drives());
    (0..2).for_each(|index| all.wait_up(index));
    for place in &all.places {
        for name in ["a.bin", "b.bin", "c.bin"] {
            let bytes = fs::read(place.join(name)).expect("read");
            assert_eq!(bytes.len(), 2 << 20);
        }
    }
    let kept = || -> u64 {
        let one = |index| {
            all.status(index)["cache"]["bytes"]
                .as_u64()
                .expect("number")
        };
        one(0) + one(1)
    };
    wait::until("room", wait::secs(60), || kept() <= 8 << 20);
    assert!(kept() > 0, "what was read last stays");
    all.end();
}

#[test]
fn al_02_many_quiet_drives_are_asked_for_changes_less_often() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    const COUNT: usize = 12;
    let service = crowd(COUNT);
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let wanted = people(COUNT);
    let wanted = wanted.iter().map(|person| format!("user = \"{person}\""));
    let all = All::of(&home, "poll = 1", &wanted.collect::<Vec<_>>());
    (0..COUNT).for_each(|index| all.wait_up(index));
    // An application gets no announcements: each drive is asked once a second, until it was quiet
    // for a while. Then all of them together are.
    let looks = || service.requests().count("delta");
    wait::until("quiet", wait::secs(90), || {
        let before = looks();
        std::thread::sleep(Duration::from_secs(6));
        looks() - before <= 2 * COUNT
    });
    // What others change arrives all the same.
    let drive = service.drives().into_iter().nth(3).expect("drive");
    drive.put("/later.txt", "later").expect("file");
    wait::until("a change of others", wait::secs(60), || {
        all.places[0].join("later.txt").exists()
    });
    all.end();
}

/// What a hundred idle mounts cost. Prints figures; run it by name with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn al_02_figures_of_a_hundred_idle_mounts() {
    const COUNT: usize = 100;
    const LOOK: Duration = Duration::from_secs(120);
    let service = crowd(COUNT);
    let home = Home::new(&service);
    app_login(&home, &[]).ok();
    let begun = Instant::now();
    let all = All::start(&home, &people(COUNT));
    (0..COUNT).for_each(|index| all.wait_up(index));
    println!("up after {:.1} s", begun.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(30));
    let pid = all.child.id();
    let before = Figures::of(pid);
    let asked = service.requests().since(0).len();
    std::thread::sleep(LOOK);
    let after = Figures::of(pid);
    let requests = service.requests().since(0).len() - asked;
    let guards = figures::children(pid);
    let aside: u64 = guards.iter().map(|&pid| Figures::of(pid).own_bytes).sum();
    println!(
        "idle for {} s: {requests} requests, {} tokens since the start, CPU {:.2} s, {} wake-ups, RSS \
         {} MiB, {} threads, {} guards with {} MiB of their own",
        LOOK.as_secs(),
        service.requests().count("token"),
        (after.ticks - before.ticks) as f64 / 100.0,
        after.wake_ups - before.wake_ups,
        after.bytes >> 20,
        after.threads,
        guards.len(),
        aside >> 20,
    );
    all.end();
}
