//! The manual, followed to the letter: every command of its pages is run, in the order in which they
//! stand there, by somebody with an empty home.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use onedrivefs_tests::{Home, Need, Service, needs, wait};

use crate::company;
use crate::world::{self, SECRET, TENANT, text};

/// Plays the browser: opens the page, which approves by itself, and goes where it leads.
const BROWSER: &str = "#!/bin/sh\nexec curl -sL -o /dev/null \"$1\"\n";

/// The commands of a page.
fn commands(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/manual")
        .join(page);
    let all = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut inside = false;
    let mut found = Vec::new();
    for line in all.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if inside => found.extend(line.strip_prefix("$ ").map(str::to_owned)),
            _ => {}
        }
    }
    found
}

/// Somebody who follows a page.
struct Reader<'h> {
    home: &'h Home<'h>,
    client: &'static str,
    mounts: Vec<Child>,
}

impl<'h> Reader<'h> {
    fn new(home: &'h Home<'h>, client: &'static str) -> Self {
        let bin = home.make_dir("bin");
        let browser = bin.join("xdg-open");
        fs::write(&browser, BROWSER).expect("browser");
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).expect("mode");
        std::os::unix::fs::symlink(home.binary(), bin.join("onedrivefs")).expect("link");
        Self {
            home,
            client,
            mounts: Vec::new(),
        }
    }

    fn shell(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.home.program("bash");
        command
            .args(["-euc", line])
            .env("PATH", format!("{}:{path}", text(&self.home.path("bin"))))
            .env("DISPLAY", ":0")
            .current_dir(self.home.path("home"));
        command
    }

    fn follow(&mut self, page: &str, service: &Service) {
        let all = commands(page);
        assert!(all.len() >= 2, "{page} has commands");
        for line in all {
            let line = line
                .replace("WEB-CLIENT-ID", "web")
                .replace("CLIENT-ID", self.client)
                .replace("TENANT-ID", TENANT);
            if line.contains("--certificate") {
                let pem = fs::read_to_string(self.home.path("home/cert.pem")).expect("certificate");
                service.set_client(self.client, |client| client.certificates = vec![pem]);
            }
            if line.starts_with("onedrivefs mount ") {
                self.mount(&line);
                continue;
            }
            let mut child = self
                .shell(&line)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("started");
            // Whoever asks for the secret gets it; nobody else reads it.
            let mut stdin = child.stdin.take().expect("standard input");
            drop(std::io::Write::write_all(&mut stdin, SECRET.as_bytes()));
            drop(stdin);
            let output = child.wait_with_output().expect("ended");
            let told = format!(
                "{page}: {line}\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            // What else is wrong with the machine of the test is not the page's fault.
            let doctor = line == "onedrivefs doctor" && output.status.code() == Some(1);
            assert!(output.status.success() || doctor, "{told}");
        }
    }

    fn mount(&mut self, line: &str) {
        let place = line.rsplit(' ').next().expect("mountpoint");
        let log = fs::File::create(self.home.path(&format!("manual-{}.log", self.mounts.len())))
            .expect("log");
        let child = self
            .shell(&format!("exec {line}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("daemon");
        self.mounts.push(child);
        wait::until(line, wait::secs(30), || {
            let status = self
                .shell(&format!("onedrivefs status {place}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        });
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        for daemon in &mut self.mounts {
            let pid = i32::try_from(daemon.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // One that has ended already is what is wanted.
                let _sent = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            drop(daemon.wait());
        }
    }
}

fn ready() -> bool {
    needs::met(&[Need::Fuse, Need::Program("curl"), Need::Program("openssl")])
}

fn follow(page: &str, client: &'static str) {
    follow_at(world::start(), page, client);
}

fn follow_at(service: Service, page: &str, client: &'static str) {
    if !ready() {
        return;
    }
    service.set_client("web", |client| {
        client
            .redirect_uris
            .push("http://localhost:8400/callback".into());
    });
    let home = Home::new(&service);
    Reader::new(&home, client).follow(page, &service);
}

#[test]
fn kl_35_the_page_for_personal_accounts_holds() {
    follow("personal.md", "public");
}

#[test]
fn kl_35_the_page_for_work_accounts_holds() {
    follow("business.md", "public");
}

#[test]
fn kl_35_the_page_for_applications_with_a_secret_holds() {
    follow("app-only-secret.md", "daemon");
}

#[test]
fn kl_35_the_page_for_applications_with_a_certificate_holds() {
    follow("app-only-certificate.md", "daemon");
}

#[test]
fn kl_35_the_page_for_sharepoint_holds() {
    follow_at(company::start(), "sharepoint.md", "public");
}

#[test]
fn kl_35_the_page_for_teams_holds() {
    follow_at(company::start(), "teams.md", "public");
}

#[test]
fn the_page_for_national_clouds_holds() {
    follow("national-clouds.md", "public");
}

#[test]
fn the_page_for_proxies_holds() {
    follow("proxies.md", "public");
}

#[test]
fn the_page_for_all_drives_holds() {
    if !ready() {
        return;
    }
    let service = company::start();
    let home = Home::new(&service);
    // It is read by somebody who has followed another page.
    home.run(&[
        "login",
        "--device-code",
        "--client-id",
        "public",
        "--sites",
        "--teams",
    ])
    .ok();
    Reader::new(&home, "public").follow("tree.md", &service);
}
