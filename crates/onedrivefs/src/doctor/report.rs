//! One file for a bug report: what the machine is, what is set, what the checks found and what the
//! mounts do. It goes to strangers, so nothing in it names a person, a file or a secret.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{Check, network};
use crate::account::{self, AccountRecord};
use crate::config::{self, Layer};
use crate::control::registry::{self, Running};
use crate::control::{Request, client};
use crate::failure::Outcome;
use crate::output::printable;
use crate::paths::{Dirs, write_private};

/// Largest file of the machine that is quoted, in bytes.
const QUOTED_MAX: usize = 4096;

/// Settings whose values say nothing about anybody.
const HARMLESS: &[&str] = &[
    "cache_size",
    "free_space",
    "poll",
    "upload",
    "parallel_uploads",
    "upload_delay",
    "names",
    "symlinks",
    "umask",
    "file_mode",
    "dir_mode",
    "metadata_timeout",
    "read_timeout",
    "tree_sites",
    "hold_deletions",
    "hold_share",
    "notifications",
    "secrets",
    "read_only",
    "allow_other",
    "app_only",
    "cloud",
    "scopes",
];

/// Writes the file, readable by its owner only.
pub(crate) async fn write(path: &Path, checks: &[Check]) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file).unwrap_or_default();
    let mut text = String::new();
    machine(&mut text);
    section(&mut text, "checks");
    for check in checks {
        line(
            &mut text,
            &format!("{:?} {}: {}", check.verdict, check.name, check.detail),
        );
        if let Some(next) = &check.next {
            line(&mut text, &format!("    next: {next}"));
        }
    }
    section(&mut text, "configuration");
    for file in [config::machine_file(), dirs.config_file.clone()] {
        settings(&mut text, &file);
    }
    if let Some(proxy) = &config.proxy {
        line(
            &mut text,
            &format!("proxy in use: {}", network::without_secret(proxy)),
        );
    }
    let mut names = Redaction::default();
    section(&mut text, "accounts");
    for name in account::all(&dirs, &config).unwrap_or_default() {
        if let Ok(Some(record)) = account::known(&dirs, &config, &name) {
            names.learn_account(name.as_str(), &record);
            line(&mut text, &about(&record).to_string());
        }
    }
    section(&mut text, "mounts");
    for daemon in registry::list(&dirs).unwrap_or_default() {
        names.learn_mount(&daemon);
        let status = client::ask(&daemon, &Request::Status).await;
        line(
            &mut text,
            &status.map_or_else(|failure| failure.sentence(), |all| counts(&all).to_string()),
        );
    }
    names.learn_home();
    write_private(path, names.apply(&text).as_bytes())
}

fn section(text: &mut String, title: &str) {
    line(text, &format!("\n== {title}"));
}

fn line(text: &mut String, what: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}",
        if what.starts_with('\n') {
            what.to_owned()
        } else {
            printable(what)
        }
    );
}

/// What the program runs on.
fn machine(text: &mut String) {
    line(text, &format!("onedrivefs {}", env!("CARGO_PKG_VERSION")));
    let system = rustix::system::uname();
    line(
        text,
        &format!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
    );
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find(|line| line.starts_with("PRETTY_NAME="));
    line(text, name.unwrap_or("an unknown distribution"));
    line(
        text,
        &format!("root: {}", rustix::process::geteuid().is_root()),
    );
}

/// The settings of a file: the keys, and the values of those that are harmless.
fn settings(text: &mut String, file: &Path) {
    let Ok(content) = std::fs::read_to_string(file) else {
        return;
    };
    let content: String = content.chars().take(QUOTED_MAX).collect();
    let Ok(table) = content.parse::<toml::Table>() else {
        line(text, "a file that is no TOML");
        return;
    };
    show_table(text, "", &table);
}

fn show_table(text: &mut String, above: &str, table: &toml::Table) {
    for (index, (key, value)) in table.iter().enumerate() {
        // Names of accounts and paths of mounts are keys, too.
        let key = match above {
            "accounts." | "mounts." => format!("{above}#{index}"),
            _ => format!("{above}{key}"),
        };
        match value {
            toml::Value::Table(inner) => show_table(text, &format!("{key}."), inner),
            value => {
                let last = key.rsplit('.').next().unwrap_or_default();
                let harmless = HARMLESS.contains(&last);
                let shown = if harmless {
                    value.to_string()
                } else {
                    "(set)".to_owned()
                };
                line(text, &format!("{key} = {shown}"));
            }
        }
    }
}

/// What kind of account it is.
fn about(record: &AccountRecord) -> Value {
    let tenant = match record.tenant.as_str() {
        shared @ ("common" | "organizations" | "consumers") => shared,
        _ => "a tenant of its own",
    };
    let drives: Vec<&str> = record
        .drives
        .iter()
        .map(|drive| drive.kind.as_str())
        .collect();
    json!({
        "sign_in": record.sign_in,
        "tenant": tenant,
        "cloud": record.cloud,
        "asked": record.scopes,
        "granted": record.granted,
        "proof": match (&record.certificate, &record.client_secret_file, record.secret_kept) {
            (Some(_), ..) => "certificate",
            (None, None, false) => "none",
            _ => "secret",
        },
        "secrets": record.kept_in,
        "drives": drives,
    })
}

/// What a mount counts, without a path in it.
fn counts(status: &Value) -> Value {
    let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
    json!({
        "state": status["state"],
        "type": status["drive"]["type"],
        "items": status["items"],
        "last_delta": status["last_delta"],
        "push": status["push"],
        "quota": status["quota"],
        "cache": status["cache"],
        "pending": status["pending"],
        "transfers": count("transfers"),
        "parked": count("parked"),
        "conflicts": count("conflicts"),
    })
}

/// Names that are replaced wherever they show up.
#[derive(Debug, Default)]
struct Redaction(Vec<(String, &'static str)>);

impl Redaction {
    fn learn(&mut self, name: impl Into<String>, shown: &'static str) {
        /// Shorter names would blot out innocent words.
        const MIN_LEN: usize = 3;
        let name = name.into();
        if name.len() >= MIN_LEN {
            self.0.push((name, shown));
        }
    }

    fn learn_account(&mut self, name: &str, record: &AccountRecord) {
        if name != "default" {
            self.learn(format!("account {name}"), "account (name)");
            self.learn(format!("--account {name}"), "--account (name)");
            self.learn(format!("/{name}/"), "/(account)/");
        }
        self.learn(record.client_id.as_str(), "(client id)");
        if !matches!(
            record.tenant.as_str(),
            "common" | "organizations" | "consumers"
        ) {
            self.learn(record.tenant.as_str(), "(tenant)");
        }
        if let Some(user) = &record.user {
            self.learn(user.principal.as_str(), "(user)");
            self.learn(user.name.as_str(), "(name)");
            self.learn(user.id.as_str(), "(user id)");
        }
        self.learn(record.mailbox.clone().unwrap_or_default(), "(user)");
        for drive in &record.drives {
            self.learn(drive.id.as_str(), "(drive id)");
            self.learn(drive.site.clone().unwrap_or_default(), "(site)");
            self.learn(drive.mailbox.clone().unwrap_or_default(), "(user)");
            if drive.name != "OneDrive" && drive.name != "Documents" {
                self.learn(drive.name.as_str(), "(drive)");
            }
        }
    }

    fn learn_mount(&mut self, daemon: &Running) {
        self.learn(daemon.mountpoint.display().to_string(), "(mountpoint)");
    }

    fn learn_home(&mut self) {
        for variable in [
            "XDG_CONFIG_HOME",
            "XDG_STATE_HOME",
            "XDG_CACHE_HOME",
            "XDG_RUNTIME_DIR",
            "HOME",
        ] {
            let value = std::env::var(variable).unwrap_or_default();
            if value.len() > 1 {
                self.learn(value, "~");
            }
        }
    }

    /// The text without those names; the longest go first, since one may hold another.
    fn apply(mut self, text: &str) -> String {
        self.0
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let mut text = text.to_owned();
        for (name, shown) in &self.0 {
            text = text.replace(name.as_str(), shown);
        }
        text
    }
}
