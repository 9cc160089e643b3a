//! An organisation with applications and people, and what tests do with it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use onedrivefs_sim::{Audience, ClientSpec, DriveKind, DriveSpec, SimConfig, TenantSpec, UserSpec};
use onedrivefs_tests::{Home, Ran, Service, process};

/// The organisation's id.
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";

/// Another organisation.
pub(crate) const OTHER_TENANT: &str = "99999999-2222-3333-4444-555555555555";

/// The secret of the confidential applications.
pub(crate) const SECRET: &str = "the~secret.Value-of_this-application";

/// An application of each kind, by client id.
pub(crate) fn clients() -> Vec<ClientSpec> {
    let base = || ClientSpec {
        tenant: TENANT.into(),
        ..ClientSpec::default()
    };
    vec![
        ClientSpec {
            id: "public".into(),
            ..base()
        },
        ClientSpec {
            id: "web".into(),
            public: false,
            secret: Some(SECRET.into()),
            redirect_uris: vec![
                "http://localhost:9090/register_microsoft_graph_api/".into(),
                "https://own.host/callback".into(),
            ],
            ..base()
        },
        ClientSpec {
            id: "daemon".into(),
            public: false,
            secret: Some(SECRET.into()),
            audience: Audience::OneTenant,
            ..base()
        },
        ClientSpec {
            id: "work".into(),
            audience: Audience::Organizations,
            ..base()
        },
        ClientSpec {
            id: "single".into(),
            audience: Audience::OneTenant,
            ..base()
        },
        ClientSpec {
            id: "home".into(),
            audience: Audience::Personal,
            ..base()
        },
    ]
}

/// Two organisations with people, one of whom has no drive yet, and a personal account.
pub(crate) fn organisation(config: &mut SimConfig) {
    let user = |id: &str, upn: &str, tenant: &str| UserSpec {
        id: id.into(),
        upn: upn.into(),
        name: format!("{id} Example"),
        tenant: tenant.into(),
        ..UserSpec::default()
    };
    config.tenants = vec![
        TenantSpec {
            id: TENANT.into(),
            domains: vec!["example.com".into()],
            ..TenantSpec::default()
        },
        TenantSpec {
            id: OTHER_TENANT.into(),
            domains: vec!["other.example".into()],
            ..TenantSpec::default()
        },
    ];
    config.users = vec![
        user("ada", "ada@example.com", TENANT),
        user("ben", "ben@example.com", TENANT),
        user("new", "new@example.com", TENANT),
        user("pat", "pat@outlook.example", "consumers"),
    ];
    let drive = |owner: &str, kind| DriveSpec {
        owner: owner.into(),
        kind,
        ..DriveSpec::default()
    };
    config.drives = vec![
        drive("ada", DriveKind::Business),
        drive("ben", DriveKind::Business),
        drive("pat", DriveKind::Personal),
    ];
    config.clients = clients();
}

/// That organisation, running.
pub(crate) fn start() -> Service {
    Service::with(organisation)
}

/// A file of the home that only its owner can read.
pub(crate) fn private_file(home: &Home<'_>, name: &str, text: &str) -> PathBuf {
    let path = home.work().join(name);
    fs::write(&path, text).expect("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
    path
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Signs in as an application with its secret.
pub(crate) fn app_login(home: &Home<'_>, more: &[&str]) -> Ran {
    let secret = private_file(home, "secret", SECRET);
    let mut arguments = vec![
        "login",
        "--app-only",
        "--client-id",
        "daemon",
        "--tenant",
        TENANT,
        "--client-secret-file",
    ];
    arguments.push(text(&secret));
    arguments.extend(more);
    home.run(&arguments)
}

/// Runs the built binary with something on its standard input.
pub(crate) fn run_with_input(home: &Home<'_>, arguments: &[&str], input: &str) -> Ran {
    let mut command = home.command(arguments);
    let line = format!("{command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        line,
    }
}

/// Runs a tool of the machine, such as openssl.
pub(crate) fn tool(dir: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir);
    process::run(command, Duration::from_secs(120)).ok();
}

/// Everything that a home holds and shows, for looking for secrets: files that others can read, and
/// what running programs were called with.
pub(crate) fn assert_hidden(home: &Home<'_>, shown: &[&Ran], secrets: &[&str]) {
    for ran in shown {
        for secret in secrets {
            let both = format!("{}{}", ran.out, ran.err);
            assert!(!both.contains(secret), "{} shows a secret", ran.line);
        }
    }
    let logs = home.logs();
    for secret in secrets {
        assert!(!logs.contains(secret), "a log shows a secret");
    }
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        for secret in secrets {
            assert!(!command.contains(secret), "ps shows a secret: {command}");
        }
    }
    let mut open = vec![
        home.path("state"),
        home.path("cache"),
        home.path("run"),
        home.path("config"),
    ];
    while let Some(path) = open.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path()),
            );
        } else if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = String::from_utf8_lossy(&bytes);
            for secret in secrets {
                assert!(
                    !found.contains(secret),
                    "{} can be read by others",
                    path.display()
                );
            }
        }
    }
}

/// Fetches an address as a browser does; the status and where it leads, if anywhere.
pub(crate) fn visit(address: &str) -> (u16, Option<String>, String) {
    use std::io::Read as _;
    let rest = address.strip_prefix("http://").expect("plain http");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.split('#').next().unwrap_or_default();
    let mut stream = std::net::TcpStream::connect(authority).expect("connection");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("limit");
    let head = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("request");
    let mut answer = Vec::new();
    // A server that closes without ado has said everything.
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location")
            .then(|| value.to_owned())
    });
    (status.unwrap_or(0), location, body.to_owned())
}

/// A sign-in that waits for a browser.
pub(crate) struct Pending {
    child: std::process::Child,
    line: String,
    reader: std::io::BufReader<std::process::ChildStderr>,
    err: String,
    /// The address for the browser.
    pub(crate) address: String,
}

/// Begins a sign-in through a browser, and reads the address for it.
#[allow(
    clippy::zombie_processes,
    reason = "whoever gets the pending sign-in waits for its end"
)]
pub(crate) fn begin_login(home: &Home<'_>, more: &[&str]) -> Result<Pending, Ran> {
    use std::io::{BufRead as _, Read as _};
    let mut command = home.command(&["login"]);
    command.args(more);
    let line = format!("{command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut reader = std::io::BufReader::new(child.stderr.take().expect("standard error"));
    let mut err = String::new();
    loop {
        let mut text = String::new();
        let count = reader.read_line(&mut text).expect("standard error");
        err.push_str(&text);
        if text.starts_with("http") {
            let address = text.trim().to_owned();
            return Ok(Pending {
                child,
                line,
                reader,
                err,
                address,
            });
        }
        if count == 0 {
            let mut out = String::new();
            let mut stdout = child.stdout.take().expect("standard output");
            stdout.read_to_string(&mut out).expect("text");
            let code = child.wait().expect("ended").code();
            return Err(Ran {
                code,
                out,
                err,
                line,
            });
        }
    }
}

impl Pending {
    /// Opens the sign-in page; where that leads.
    pub(crate) fn approve(&self) -> String {
        let (status, location, body) = visit(&self.address);
        location.unwrap_or_else(|| panic!("{status}: {body}"))
    }

    /// Opens the sign-in page and goes where it leads.
    pub(crate) fn browse(self) -> Ran {
        let back = self.approve();
        let (status, _, page) = visit(&back);
        assert_eq!(status, 200, "{page}");
        assert!(page.contains("can close this page"), "{page}");
        self.end("")
    }

    /// Opens the sign-in page and goes where it leads, whatever comes of it.
    pub(crate) fn browse_to_end(self) -> Ran {
        visit(&self.approve());
        self.end("")
    }

    /// Gives up.
    pub(crate) fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Types something and waits for the end.
    pub(crate) fn end(mut self, typed: &str) -> Ran {
        use std::io::Read as _;
        let mut stdin = self.child.stdin.take().expect("standard input");
        // A sign-in that has ended reads nothing any more.
        drop(stdin.write_all(typed.as_bytes()));
        drop(stdin);
        self.reader.read_to_string(&mut self.err).expect("text");
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().expect("standard output");
        stdout.read_to_string(&mut out).expect("text");
        let code = self.child.wait().expect("ended").code();
        Ran {
            code,
            out,
            err: self.err,
            line: self.line,
        }
    }
}

/// The value of a parameter of an address, as it stands there.
pub(crate) fn parameter(address: &str, name: &str) -> Option<String> {
    let (_, query) = address.split_once('?')?;
    let pairs = query
        .split(['&', '#'])
        .filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(key, _)| *key == name);
    found.map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
}
