//! Many mounts in one process.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use onedrivefs_sim::{DriveSpec, FaultAction, FaultRule, UserSpec};
use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Home, Need, Service, needs, process, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

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
        let mut config = String::new();
        let mut places = Vec::new();
        for (index, person) in people.iter().enumerate() {
            let place = home.make_dir(&format!("all-{index}"));
            config += &format!("[mounts.\"{}\"]\nuser = \"{person}\"\n", place.display());
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

/// Clock ticks of a process and bytes it has in memory.
fn figures(pid: u32) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    let ticks = number(11).unwrap_or(0) + number(12).unwrap_or(0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    (ticks, kib.unwrap_or(0) << 10)
}

/// The processes that a process started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: String = lists.collect::<Vec<_>>().join(" ");
    all.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
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
    let (ticks, _) = figures(pid);
    let asked = service.requests().since(0).len();
    std::thread::sleep(LOOK);
    let (later, bytes) = figures(pid);
    let requests = service.requests().since(0).len() - asked;
    let guards = children(pid);
    let aside: u64 = guards.iter().map(|&pid| figures(pid).1).sum();
    println!(
        "idle for {} s: {requests} requests, {} tokens since the start, CPU {:.2} s, RSS {} MiB, \
         {} guards with {} MiB (shared pages counted in each)",
        LOOK.as_secs(),
        service.requests().count("token"),
        (later - ticks) as f64 / 100.0,
        bytes >> 20,
        guards.len(),
        aside >> 20,
    );
    all.end();
}
