//! A machine that nobody signs in to: no session, no terminal, no login, as a system service has it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onedrivefs_tests::mount::is_mounted;
use onedrivefs_tests::{Home, Need, Service, needs, process, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{self, SECRET, TENANT, private_file, text};

/// The unit of the manual: its lines by key.
fn unit() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manual/app-only-secret.md");
    let page = fs::read_to_string(page).expect("page");
    let (_, rest) = page.split_once("```ini\n").expect("a unit");
    let (unit, _) = rest.split_once("```").expect("the end of the unit");
    let pairs = unit.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn value<'a>(unit: &'a [(String, String)], key: &str) -> &'a str {
    let found = unit.iter().find(|(own, _)| own == key);
    &found.unwrap_or_else(|| panic!("no {key} in the unit")).1
}

/// A service as systemd starts it.
struct Unattended {
    child: Child,
    place: PathBuf,
}

impl Unattended {
    /// Starts what the unit says, with nothing in the environment but what a system service has, and
    /// waits until it says that it is ready.
    fn start(home: &Home<'_>, service: &Service, unit: &[(String, String)]) -> Self {
        assert_eq!(value(unit, "Type"), "notify");
        let line: Vec<&str> = value(unit, "ExecStart").split(' ').collect();
        assert_eq!(line[..2], ["/usr/bin/onedrivefs", "mount"]);
        let place = home.mountpoint();
        let notices = home.path("notices");
        // From an earlier start.
        drop(fs::remove_file(&notices));
        let socket = UnixDatagram::bind(&notices).expect("socket");
        let limit = Some(Duration::from_secs(30));
        socket.set_read_timeout(limit).expect("limit");
        let log = fs::File::create(home.path("unattended.log")).expect("log");
        let child = Command::new("setsid")
            .arg(home.binary())
            .args(["mount", text(&place)])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .env("HOME", home.path("home"))
            .env("NOTIFY_SOCKET", &notices)
            .env("ONEDRIVEFS_SYSTEM_CONFIG", home.work().join("machine.toml"))
            .env("ONEDRIVEFS_GRAPH_URL", service.graph_url())
            .env("ONEDRIVEFS_LOGIN_URL", service.login_url())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("daemon");
        let started = Self { child, place };
        let mut notice = [0; 4096];
        loop {
            let length = socket.recv(&mut notice).unwrap_or_else(|error| {
                let log = fs::read_to_string(home.path("unattended.log")).unwrap_or_default();
                panic!("it does not get ready: {error}\n{log}");
            });
            let notice = String::from_utf8_lossy(&notice[..length]).into_owned();
            if notice.lines().any(|line| line == "READY=1") {
                return started;
            }
        }
    }

    /// Stops it as systemd does.
    fn stop(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("pid"), Signal::TERM).expect("signal");
        let ended = process::wait(&mut self.child, Duration::from_secs(50));
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
        assert!(!is_mounted(&self.place));
    }
}

impl Drop for Unattended {
    fn drop(&mut self) {
        if is_mounted(&self.place) {
            drop(self.child.kill());
            let mut unmount = Command::new("fusermount3");
            drop(unmount.arg("-uzq").arg(&self.place).status());
        }
        drop(self.child.wait());
    }
}

#[test]
fn cf_16_a_system_service_mounts_with_no_session_terminal_or_login_and_renews_by_itself() {
    if !needs::met(&[Need::Fuse, Need::Program("setsid")]) {
        return;
    }
    let service = world::start();
    let drive = &service.drives()[0];
    drive.put("/there.txt", "there").expect("file");
    let home = Home::new(&service);
    let secret = private_file(&home, "secret", SECRET);
    fs::write(
        home.work().join("machine.toml"),
        format!(
            "poll = 1\n[accounts.default]\napp_only = true\nclient_id = \"daemon\"\n\
             tenant = \"{TENANT}\"\nclient_secret_file = \"{}\"\nuser = \"ada@example.com\"\n",
            secret.display()
        ),
    )
    .expect("configuration");
    let unit = unit();
    assert!(
        unit.iter().any(|(key, _)| key == "User"),
        "it is nobody's session"
    );
    for round in 0..2 {
        let daemon = Unattended::start(&home, &service, &unit);
        assert_eq!(
            fs::read(daemon.place.join("there.txt")).expect("read"),
            b"there"
        );
        service.expire_tokens();
        let name = format!("round-{round}");
        fs::write(daemon.place.join(&name), "x").expect("written");
        wait::until(&name, wait::secs(60), || drive.exists(&format!("/{name}")));
        daemon.stop();
    }
    let devices = service.requests().count("devicecode") + service.requests().count("authorize");
    assert_eq!(devices, 0, "nobody was asked to sign in");
}
