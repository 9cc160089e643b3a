//! Finding the daemon a command is about.

use std::path::Path;

use crate::control::Request;
use crate::control::client;
use crate::control::registry::{self, Running};
use crate::failure::Outcome;
use crate::output;
use crate::paths::{AccountName, Dirs};

/// The daemon that serves a path, or the only one, and the path inside its mount. The demo keeps
/// its record in the ordinary runtime directory, so that commands work on it as on any mount.
pub(crate) fn find(path: Option<&Path>) -> Outcome<(Running, Option<String>)> {
    registry::find(&Dirs::from_env()?, path)
}

/// Tells whether something of an account is mounted.
pub(crate) fn are_running(dirs: &Dirs, account: &AccountName) -> Outcome<bool> {
    let running = registry::list(dirs)?;
    Ok(running.iter().any(|daemon| daemon.account == *account))
}

/// Tells the running daemons of an account that somebody signed in or out.
pub(crate) async fn announce_credentials(dirs: &Dirs, account: &AccountName) -> Outcome {
    for daemon in registry::list(dirs)? {
        if daemon.account != *account {
            continue;
        }
        if let Err(failure) = client::ask(&daemon, &Request::CredentialsChanged).await {
            output::note(format!("{failure}"));
        }
    }
    Ok(())
}
