//! What systemd shows of this process: how many changes are still to be sent, how many wait for a
//! person, and what keeps them from going, over all drives.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_sync::{EngineError, Net, Pending, Stir};
use onedrivefs_vfs::Forest;
use sd_notify::NotifyState;

use crate::status::{counted, pending_text};

/// Pause between two reports.
const PERIOD: Duration = Duration::from_secs(5);

/// How the drives of one mount, or of several, are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gist {
    /// What is going to be sent.
    pending: Pending,
    /// Changes that wait for a person.
    stuck: u64,
    /// Whether somebody has to sign in again.
    needs_login: bool,
    /// Whether the service cannot be reached.
    offline: bool,
}

impl Gist {
    /// Of all drives of a mount.
    pub(crate) fn of(forest: &Forest) -> Result<Self, EngineError> {
        let mut gist = Self {
            needs_login: forest.needs_login(),
            ..Self::default()
        };
        for engine in forest.engines() {
            let (pending, stuck) = engine.outlook()?;
            gist.add(&Self {
                pending,
                stuck,
                needs_login: false,
                offline: engine.net.get() == Net::Offline,
            });
        }
        Ok(gist)
    }

    /// Adds that of others.
    pub(crate) fn add(&mut self, other: &Self) {
        self.pending.ops += other.pending.ops;
        self.pending.bytes += other.pending.bytes;
        self.stuck += other.stuck;
        self.needs_login |= other.needs_login;
        self.offline |= other.offline;
    }

    /// It in a line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "To send: {}",
            pending_text(self.pending.ops, self.pending.bytes)
        );
        if self.stuck > 0 {
            text += &format!("; waiting for you: {}", counted(self.stuck, "change"));
        }
        if self.needs_login {
            text += "; signed out, see `onedrivefs status`";
        } else if self.offline {
            text += "; offline";
        }
        text
    }

    /// Whether nothing of it changes unless something happens.
    const fn is_quiet(&self) -> bool {
        self.pending.ops == 0 && self.stuck == 0
    }
}

/// Goes on telling systemd, if it started us, for as long as this runs. `None` for what cannot be
/// read now.
pub(crate) async fn go_on(
    stir: Stir,
    gist: impl Fn() -> Option<Gist> + Send + Sync + 'static,
    line: impl Fn(&Gist) -> String,
) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let gist = Arc::new(gist);
    let mut last = String::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let (journal, reach) = (stir.journal(), stir.reach());
        let gist = Arc::clone(&gist);
        // It is read from a database for each drive.
        let read = tokio::task::spawn_blocking(move || gist());
        let Ok(Some(gist)) = read.await else { continue };
        let status = line(&gist);
        if status != last {
            tell(&[NotifyState::Status(&status)]);
            last = status;
        }
        if gist.is_quiet() {
            tokio::select! {
                () = journal => {}
                () = reach => {}
            }
        }
    }
}

/// Tells systemd, if it started us.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "Could not tell systemd about the state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_waits_and_for_what() {
        let mut gist = Gist::default();
        assert_eq!(gist.text(), "To send: nothing");
        assert!(gist.is_quiet());
        let other = Gist {
            pending: Pending {
                ops: 2,
                bytes: 2048,
            },
            stuck: 1,
            needs_login: false,
            offline: true,
        };
        gist.add(&other);
        assert_eq!(
            gist.text(),
            "To send: 2 changes, 2.0 KiB; waiting for you: 1 change; offline"
        );
        gist.needs_login = true;
        gist.add(&other);
        assert!(gist.text().starts_with("To send: 4 changes, 4.0 KiB; "));
        assert!(gist.text().contains("2 changes; signed out"));
        assert!(!gist.is_quiet());
    }
}
