//! `onedrivefs unmount`.

use std::path::Path;
use std::time::{Duration, Instant};

use super::UnmountArgs;
use crate::control::registry::{self, Running};
use crate::control::{Request, client};
use crate::daemon::explain_mount;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::paths::{Dirs, absolute};

/// Time the daemon has to end after it unmounted; it has deadlines of its own below this.
const END_TIMEOUT: Duration = Duration::from_secs(45);

/// Pause between two looks whether the daemon has ended.
const END_POLL: Duration = Duration::from_millis(50);

/// Unmounts, through the daemon if one serves the mountpoint.
pub(crate) async fn run(args: &UnmountArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let mountpoint = absolute(&args.mountpoint)?;
    match daemon_at(&dirs, &mountpoint)? {
        Some(daemon) => {
            let answer = client::converse(&daemon, &Request::Unmount, |_| {}).await;
            // A quick daemon has ended before its answer left; its record goes last.
            if answer.is_err() && !registry::list(&dirs)?.contains(&daemon) {
                return Ok(());
            }
            answer?;
            wait_for_end(&dirs, &daemon).await
        }
        None => without_daemon(&mountpoint),
    }
}

/// The daemon mounted exactly there.
fn daemon_at(dirs: &Dirs, mountpoint: &Path) -> Outcome<Option<Running>> {
    let real = mountpoint
        .canonicalize()
        .unwrap_or_else(|_| mountpoint.to_owned());
    let running = registry::list(dirs)?;
    Ok(running
        .into_iter()
        .find(|daemon| daemon.mountpoint == mountpoint || daemon.mountpoint == real))
}

/// Returns once the state is free for the next daemon.
async fn wait_for_end(dirs: &Dirs, daemon: &Running) -> Outcome {
    let deadline = Instant::now() + END_TIMEOUT;
    while registry::list(dirs)?.contains(daemon) {
        if Instant::now() > deadline {
            return Err(Failure::new(
                daemon.mountpoint.display().to_string(),
                format!("process {} did not end in time", daemon.pid),
            )
            .next("what it holds is safe on disk; end that process"));
        }
        tokio::time::sleep(END_POLL).await;
    }
    Ok(())
}

/// Takes away what a killed daemon left behind.
fn without_daemon(mountpoint: &Path) -> Outcome {
    onedrivefs_fuse::unmount_path(mountpoint).map_err(|error| explain_mount("unmount", error))?;
    output::note(format!(
        "{} had no daemon any more; it is free again.",
        mountpoint.display()
    ));
    Ok(())
}
