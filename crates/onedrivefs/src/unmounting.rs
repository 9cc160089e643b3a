//! Unmounting on request, unless programs use the mount. Those that only wait for the service are
//! told that it will not come, for nobody else can free them, and get a moment to let go.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_fuse::{MountError, User};
use onedrivefs_sync::{Engine, Waiters};

use crate::output::printable;
use crate::status::counted;

/// Time that programs have to close what they wanted to read from.
const GRACE: Duration = Duration::from_secs(2);

/// Time that uses have which end by themselves: a process that is just being started holds what its
/// parent has open until it runs its program.
const MOMENT: Duration = Duration::from_millis(500);

/// Pause between two attempts within that.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Programs that are named; of more there is a number.
const NAMED_MAX: usize = 5;

/// Takes a mount out of the tree; the daemon sees it go and ends.
pub(crate) async fn unmount(engine: &Arc<Engine>, mountpoint: &Path) -> Result<(), MountError> {
    let mut tried = attempt(mountpoint).await;
    let mut end = Instant::now() + MOMENT;
    let mut closed = None;
    while is_busy(&tried) && Instant::now() < end {
        if closed.is_none() && engine.waiters.is_anybody_here() {
            closed = Some(Closed::new(&engine.waiters));
            end = Instant::now() + GRACE;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        tried = attempt(mountpoint).await;
    }
    tried
}

/// Says who uses a mount, as far as that can be seen.
pub(crate) async fn users_text(mountpoint: &Path) -> String {
    let mountpoint = mountpoint.to_owned();
    let looked = tokio::task::spawn_blocking(move || onedrivefs_fuse::users_of(&mountpoint));
    named(&looked.await.unwrap_or_default())
}

fn named(users: &[User]) -> String {
    let name = |user: &User| format!("{} ({})", printable(&user.name), user.pid);
    let mut names: Vec<_> = users.iter().take(NAMED_MAX).map(name).collect();
    if users.len() > NAMED_MAX {
        names.push(counted((users.len() - NAMED_MAX) as u64, "more program"));
    }
    names.join(", ")
}

/// While it exists nobody waits for the service.
struct Closed<'w>(&'w Waiters);

impl<'w> Closed<'w> {
    fn new(waiters: &'w Waiters) -> Self {
        waiters.turn_away();
        Self(waiters)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.admit();
    }
}

const fn is_busy(tried: &Result<(), MountError>) -> bool {
    matches!(tried, Err(MountError::Busy { .. }))
}

async fn attempt(mountpoint: &Path) -> Result<(), MountError> {
    let path: PathBuf = mountpoint.to_owned();
    let tried = tokio::task::spawn_blocking(move || onedrivefs_fuse::unmount_path(&path)).await;
    tried.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(MountError::Session { source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_programs_are_named_and_the_rest_counted() {
        let users: Vec<_> = (1..=7)
            .map(|pid| User {
                name: format!("p\u{1b}{pid}"),
                pid,
            })
            .collect();
        let text = named(&users);
        assert!(text.starts_with("p\u{fffd}1 (1), "), "{text}");
        assert!(text.ends_with("p\u{fffd}5 (5), 2 more programs"), "{text}");
        assert_eq!(named(&[]), "");
    }
}
