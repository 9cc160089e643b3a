//! The commands as people and scripts meet them: the built binary, directories of its own, and the
//! simulator instead of Microsoft. Nothing here mounts.

#![allow(
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::Path;
use std::process::{Command, Output};

use onedrivefs_sim::{DeviceOutcome, Reach, SimConfig, Simulator};
use serde_json::Value;

/// A user's home, and the service that user knows.
struct Home {
    dir: tempfile::TempDir,
    sim: Simulator,
}

/// What a command left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Home {
    async fn new() -> Self {
        let mut config = SimConfig::default();
        config.knobs.device_polls = 0;
        config.knobs.device_interval_s = 1;
        let sim = Simulator::start(config).await.expect("simulator");
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            sim,
        }
    }

    fn path(&self, below: &str) -> std::path::PathBuf {
        self.dir.path().join(below)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onedrivefs"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("ONEDRIVEFS_GRAPH_URL", self.sim.graph_url())
            .env("ONEDRIVEFS_LOGIN_URL", self.sim.login_url());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        self.finish(self.command(arguments)).await
    }

    async fn finish(&self, mut command: Command) -> Ran {
        let output: Output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("joined")
            .expect("started");
        let ran = Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        };
        let token = self.sim.access_token();
        assert!(
            !ran.out.contains(&token) && !ran.err.contains(&token),
            "a token was shown"
        );
        ran
    }

    async fn log_in(&self) {
        let ran = self
            .run(&["login", "--device-code", "--client-id", "test"])
            .await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
}

/// An error has a sentence, a next step, and no inside of the program.
fn assert_explained(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("onedrivefs: ") && ran.err.contains("next: "),
        "{}",
        ran.err
    );
    for inside in ["panicked", "Error {", "Os {", "Some("] {
        assert!(!ran.err.contains(inside), "{}", ran.err);
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .expect("metadata")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_is_proven_kept_and_undone() {
    let home = Home::new().await;
    let ran = home
        .run(&["login", "--device-code", "--client-id", "test"])
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out
            .contains("Signed in as Ada Example <ada@example.com>"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("Drive: OneDrive (business)"),
        "{}",
        ran.out
    );
    let state = home.path(".local/state/onedrivefs/default");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("token.json")), 0o600);
    assert_eq!(mode(&state.join("account.json")), 0o600);

    let ran = home.run(&["accounts", "--json"]).await;
    let accounts: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(accounts[0]["user"], "ada@example.com");
    assert_eq!(accounts[0]["signed_in"], true);

    let ran = home.run(&["drives", "--json"]).await;
    let drives: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(drives[0]["id"], home.sim.default_drive().id());
    assert_eq!(drives[0]["own"], true);

    assert_eq!(home.run(&["logout"]).await.code, Some(0));
    assert!(!state.join("token.json").exists());
    assert_explained(&home.run(&["drives"]).await, 1);
    assert_eq!(home.run(&["logout", "--forget"]).await.code, Some(0));
    assert!(!state.exists());
    assert_explained(&home.run(&["drives"]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sign_in_says_why_and_keeps_nothing() {
    let home = Home::new().await;
    assert_explained(&home.run(&["login"]).await, 2);
    let login = ["login", "--device-code", "--client-id", "test"];

    home.sim
        .set_knobs(|knobs| knobs.device_outcome = DeviceOutcome::Decline);
    let declined = home.run(&login).await;
    assert_explained(&declined, 1);
    assert!(declined.err.contains("declined"), "{}", declined.err);

    home.sim.set_knobs(|knobs| {
        knobs.device_outcome = DeviceOutcome::Expire;
        knobs.device_ttl_s = 2;
    });
    let expired = home.run(&login).await;
    assert_explained(&expired, 1);
    assert!(expired.err.contains("expired"), "{}", expired.err);

    home.sim.set_reach(Reach::Offline);
    assert_explained(&home.run(&login).await, 1);
    let ran = home.run(&["accounts"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_person_cannot_take_an_account_over() {
    let home = Home::new().await;
    home.log_in().await;
    let record = home.path(".local/state/onedrivefs/default/account.json");
    let text = std::fs::read_to_string(&record).expect("record");
    std::fs::write(&record, text.replace("user-1", "somebody-else")).expect("changed");
    let refused = home
        .run(&["login", "--device-code", "--client-id", "test"])
        .await;
    assert_explained(&refused, 1);
    assert!(refused.err.contains("--account OTHER"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_configuration_are_named() {
    let home = Home::new().await;
    home.log_in().await;
    let file = home.path(".config/onedrivefs/config.toml");
    std::fs::create_dir_all(file.parent().expect("parent")).expect("directory");
    std::fs::write(&file, "poll = 30\ncahce_size = \"1G\"\n").expect("written");
    let ran = home.run(&["drives"]).await;
    assert_explained(&ran, 2);
    assert!(
        ran.err
            .contains("config.toml: line 2: unknown key \"cahce_size\""),
        "{}",
        ran.err
    );
    std::fs::write(&file, "ca_bundle = \"/nonexistent.pem\"\n").expect("written");
    assert_explained(&home.run(&["drives"]).await, 2);
    std::fs::remove_file(&file).expect("removed");

    let mut plain = home.command(&["drives"]);
    plain.env("ONEDRIVEFS_GRAPH_URL", "http://graph.example/v1.0");
    let ran = home.finish(plain).await;
    assert_explained(&ran, 2);
    assert!(ran.err.contains("https"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_mountpoints_are_refused_with_a_reason() {
    let home = Home::new().await;
    home.log_in().await;
    std::fs::write(home.path("file"), b"x").expect("file");
    std::fs::create_dir(home.path("full")).expect("directory");
    std::fs::write(home.path("full/file"), b"x").expect("file");
    for (place, reason) in [
        ("missing", "does not exist"),
        ("file", "is not a directory"),
        ("full", "is not empty"),
    ] {
        let path = home.path(place);
        let ran = home.run(&["mount", path.to_str().expect("UTF-8")]).await;
        assert_explained(&ran, 1);
        assert!(ran.err.contains(reason), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_never_seen_needs_the_network_once() {
    let home = Home::new().await;
    home.log_in().await;
    std::fs::create_dir(home.path("m")).expect("directory");
    home.sim.set_reach(Reach::Offline);
    let path = home.path("m");
    let ran = home
        .run(&["mount", "--drive", "b!other", path.to_str().expect("UTF-8")])
        .await;
    assert_explained(&ran, 1);
    assert!(ran.err.contains("first mount needs"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_a_mount_say_when_there_is_none() {
    let home = Home::new().await;
    for arguments in [
        ["status"].as_slice(),
        &["status", "--json"],
        &["sync"],
        &["retry", "/nowhere/x"],
        &["export", "/nowhere/x"],
        &["discard", "/nowhere/x"],
        &["unmount", "/nowhere"],
    ] {
        assert_explained(&home.run(arguments).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_what_is_wrong() {
    let home = Home::new().await;
    home.log_in().await;
    let ran = home.run(&["doctor", "--json"]).await;
    let checks: Value = serde_json::from_str(&ran.out).expect("JSON");
    let verdict = |name: &str| {
        checks
            .as_array()
            .expect("list")
            .iter()
            .find(|check| {
                check["check"]
                    .as_str()
                    .is_some_and(|text| text.contains(name))
            })
            .map(|check| check["verdict"].clone())
    };
    assert_eq!(verdict("Graph host"), Some("ok".into()));
    assert_eq!(verdict("default: drive"), Some("ok".into()));
    assert!(verdict("state directory").is_some());

    home.sim.set_reach(Reach::Offline);
    let ran = home.run(&["doctor"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("FAIL  Graph host"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_know_every_command_and_a_closed_pipe_is_no_error() {
    let home = Home::new().await;
    let ran = home.run(&["completions", "bash"]).await;
    for command in [
        "login", "mount", "unmount", "demo", "status", "sync", "doctor",
    ] {
        assert!(ran.out.contains(command), "{command}");
    }
    let mut closed = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_onedrivefs");
    closed.args(["-c", &format!("'{binary}' completions zsh 2>&1 >/dev/full | head -n 1; '{binary}' completions zsh | true")]);
    let ran = home.finish(closed).await;
    assert_eq!(ran.code, Some(0));
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}
