//! What the session of this machine offers: a service manager and a keyring.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Check;
use crate::config::{KeepMode, Layer};
use crate::keyring;

/// Longest wait for systemd.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether mounts can be made at login.
pub(super) async fn systemd() -> Check {
    let name = "systemd";
    let next = "without it `onedrivefs service` cannot mount at login; `onedrivefs mount` works";
    let mut command = Command::new("systemctl");
    command
        .args(["--user", "show-environment"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match tokio::time::timeout(SYSTEMD_TIMEOUT, command.status()).await {
        Ok(Ok(status)) if status.success() => Check::ok(name, "a user service manager runs"),
        Ok(Ok(_)) => Check::warn(name, "no user service manager answers", next),
        Ok(Err(_)) => Check::warn(name, "systemctl was not found", next),
        Err(_elapsed) => Check::warn(name, "the user service manager is silent", next),
    }
}

/// Where the next sign-in will be kept.
pub(super) async fn keyring(config: &Layer) -> Check {
    let name = "keyring";
    let mode = config.secrets.unwrap_or(KeepMode::Auto);
    let offered = tokio::task::spawn_blocking(keyring::is_offered).await;
    match (offered.unwrap_or(false), mode) {
        (_, KeepMode::File) => {
            Check::ok(name, "not used; the configuration says secrets = \"file\"")
        }
        (true, _) => Check::ok(name, "sign-ins are kept in the keyring of this session"),
        (false, KeepMode::Auto) => Check::ok(
            name,
            "none in this session; sign-ins are kept in files only you can read",
        ),
        (false, KeepMode::Keyring) => Check::fail(
            name,
            "the configuration wants one, and this session has none",
            "start a keyring (gnome-keyring, KWallet, KeePassXC), or set secrets = \"file\"",
        ),
    }
}
