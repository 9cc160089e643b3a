//! `onedrivefs sync`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::SyncArgs;
use super::daemons;
use crate::control::{Request, client};
use crate::failure::Outcome;
use crate::output::printable;
use crate::status::pending_text;

/// Work shorter than this shows no progress, so that quick commands do not flicker.
pub(super) const QUIET_PERIOD: Duration = Duration::from_secs(1);

/// Waits until everything is sent and fresh.
pub(crate) async fn run(args: &SyncArgs) -> Outcome {
    let (daemon, inside) = daemons::find(args.path.as_deref())?;
    let request = Request::Sync {
        path: inside.filter(|path| path != "/"),
        timeout_s: args.timeout,
    };
    let bar = spinner();
    let started = std::time::Instant::now();
    let answer = client::converse(&daemon, &request, |progress| {
        if started.elapsed() >= QUIET_PERIOD {
            let mut message = format!("to send: {}", pending_text(progress.ops, progress.bytes));
            if let Some(why) = progress.obstacle {
                message.push_str(&format!("; waits for {why}"));
            }
            bar.set_message(printable(&message));
            bar.tick();
        }
    })
    .await;
    bar.finish_and_clear();
    answer.map(drop)
}

/// A spinner for terminals; in a pipe it prints nothing.
pub(super) fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar
}
