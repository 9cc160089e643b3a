//! `onedrivefs service`: a systemd user service per mountpoint.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ServiceAction, ServiceArgs};
use crate::failure::{Explain, Failure, Outcome};
use crate::output;
use crate::paths::{Dirs, absolute};
use crate::unit;

/// Directories in which a package puts user units.
const SYSTEM_UNITS: [&str; 3] = [
    "/usr/lib/systemd/user",
    "/usr/local/lib/systemd/user",
    "/etc/systemd/user",
];

/// What a service mounts.
struct Unit {
    /// The unit systemd knows.
    instance: String,
    /// The file it is made from.
    file: &'static str,
    /// What that holds, for this binary.
    text: fn(&Path) -> String,
    /// What people call it.
    shown: String,
}

impl Unit {
    fn of(mountpoint: &Path) -> Self {
        Self {
            instance: unit::instance(mountpoint),
            file: unit::TEMPLATE_NAME,
            text: unit::template_for,
            shown: mountpoint.display().to_string(),
        }
    }

    fn all() -> Self {
        Self {
            instance: unit::ALL_NAME.to_owned(),
            file: unit::ALL_NAME,
            text: unit::all_for,
            shown: "Everything in the configuration".to_owned(),
        }
    }
}

/// Enables, disables or shows the service of a mountpoint, or of all that the configuration names.
pub(crate) fn run(args: &ServiceArgs) -> Outcome {
    let unit = match &args.mountpoint {
        Some(mountpoint) => {
            let mountpoint = absolute(mountpoint)?;
            if args.action == ServiceAction::Enable {
                check_mountpoint(&mountpoint)?;
            }
            Unit::of(&mountpoint)
        }
        None => Unit::all(),
    };
    match args.action {
        ServiceAction::Enable => enable(&unit),
        ServiceAction::Disable => {
            systemctl(&["disable", "--now", &unit.instance])?;
            output::line(format!("{} is no longer mounted at login.", unit.shown))
        }
        ServiceAction::Status => show(&unit),
    }
}

fn check_mountpoint(mountpoint: &Path) -> Outcome {
    if mountpoint.is_dir() {
        return Ok(());
    }
    Err(
        Failure::usage(mountpoint.display().to_string(), "is not a directory")
            .next(format!("create it: mkdir -p {}", shell_quoted(mountpoint))),
    )
}

fn enable(unit: &Unit) -> Outcome {
    // Asked first, so that nothing is written where no user service can run.
    systemctl(&["show-environment"])?;
    let binary = std::env::current_exe().explain(|| "finding this program".to_owned())?;
    let packaged = binary == Path::new(unit::PACKAGED_BINARY)
        && SYSTEM_UNITS
            .iter()
            .any(|dir| Path::new(dir).join(unit.file).exists());
    if !packaged {
        let dir = Dirs::from_env()?.user_units;
        let file = dir.join(unit.file);
        fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&file, (unit.text)(&binary)))
            .explain(|| format!("writing {}", file.display()))?;
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", &unit.instance]).map_err(|failure| {
        failure.next(format!(
            "read why: journalctl --user --unit '{}' --lines 20",
            unit.instance
        ))
    })?;
    output::line(format!(
        "{} is mounted, and will be at every login.",
        unit.shown
    ))
}

fn show(unit: &Unit) -> Outcome {
    let active = property(&unit.instance, "ActiveState")?;
    let enabled = property(&unit.instance, "UnitFileState")?;
    let text = property(&unit.instance, "StatusText")?;
    output::line(format!(
        "{}: {active}{}, {}",
        unit.shown,
        if text.is_empty() {
            String::new()
        } else {
            format!(" ({text})")
        },
        match enabled.as_str() {
            "enabled" => "mounted at login",
            _ => "not mounted at login",
        }
    ))
}

fn property(instance: &str, name: &str) -> Outcome<String> {
    let value = systemctl(&["show", "--property", name, "--value", instance])?;
    Ok(value.trim().to_owned())
}

/// Runs `systemctl --user` and returns what it printed.
fn systemctl(arguments: &[&str]) -> Outcome<String> {
    let what = format!("systemctl --user {}", arguments.join(" "));
    let output = Command::new("systemctl")
        .arg("--user")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::because(what.clone(), error).next(
                "this needs systemd; without it, start `onedrivefs mount MOUNTPOINT` by other means",
            )
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let why = errors
        .lines()
        .next()
        .unwrap_or("failed without saying why")
        .to_owned();
    let failure = Failure::new(what, why);
    if has_user_bus() {
        return Err(failure.next("read the journal: journalctl --user --lines 20"));
    }
    Err(failure.next(
        "there is no user session of systemd here; log in directly instead of through su or sudo, \
         or run `loginctl enable-linger` once",
    ))
}

/// Tells whether systemd runs a manager for this user.
fn has_user_bus() -> bool {
    std::env::var_os("XDG_RUNTIME_DIR")
        .is_some_and(|dir| Path::new(&dir).join("systemd/private").exists())
}

fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
