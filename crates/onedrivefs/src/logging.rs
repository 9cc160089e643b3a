//! Logs on standard error, in the form that suits whoever reads them: a person, a file or the
//! journal.

use std::backtrace::Backtrace;
use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How much is logged unless the environment says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// A command: its output says what happened.
    Command,
    /// A mount: starts, stops and everything that needs a person.
    Daemon,
}

impl Verbosity {
    fn directives(self) -> &'static str {
        match self {
            Self::Command => "error",
            Self::Daemon => {
                "warn,onedrivefs=info,onedrivefs_sync=info,onedrivefs_vfs=info,onedrivefs_fuse=info"
            }
        }
    }
}

/// Starts logging. `ONEDRIVEFS_LOG` wins over `RUST_LOG`; both take tracing's filter directives.
pub(crate) fn start(verbosity: Verbosity) {
    let directives = ["ONEDRIVEFS_LOG", "RUST_LOG"]
        .iter()
        .find_map(|variable| env::var(variable).ok().filter(|value| !value.is_empty()));
    let filter = match &directives {
        Some(directives) => EnvFilter::builder().parse_lossy(directives),
        None => EnvFilter::new(verbosity.directives()),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(directives.is_some());
    // The journal adds the time itself.
    let started = if env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
    if let Err(error) = started {
        crate::output::note(format!("onedrivefs: logging could not be started: {error}"));
    }
}

/// Makes a panic end the process after it was logged. What is on disk is consistent at every
/// moment; what is in memory after a panic may not be, and must not go on answering system calls.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(
            place = panic.location().map(tracing::field::display),
            backtrace = %Backtrace::capture(),
            "Stopped because of a defect in onedrivefs; please report it"
        );
        crate::output::note(format!(
            "onedrivefs: internal error: stopped at {}\nnext: mount again; nothing that was saved \
             is lost. Please report this line",
            panic
                .location()
                .map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
        ));
        std::process::abort();
    }));
}
