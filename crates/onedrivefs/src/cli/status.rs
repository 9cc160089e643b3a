//! `onedrivefs status`.

use std::time::Duration;

use serde_json::Value;

use super::StatusArgs;
use super::daemons;
use crate::control::registry::Running;
use crate::control::{Request, client};
use crate::failure::Outcome;
use crate::output;
use crate::status::{render, render_path};

/// Pause between two looks with `--watch`.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Clears the terminal and goes to its upper left corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Shows the state of a mount or of one of its files.
pub(crate) async fn run(args: &StatusArgs) -> Outcome {
    let (daemon, inside) = daemons::find(args.path.as_deref())?;
    // A mountpoint stands for the whole mount.
    let inside = inside.filter(|path| path != "/");
    if !args.watch {
        let mut status = fetch(&daemon, inside.as_deref()).await?;
        if args.json {
            leave_out_details(&mut status);
        }
        return if args.json {
            output::json(&status)
        } else {
            output::raw(&shown(&daemon, inside.as_deref(), &status))
        };
    }
    let mut last = Value::Null;
    loop {
        let mut status = fetch(&daemon, inside.as_deref()).await?;
        if args.json {
            leave_out_details(&mut status);
        }
        if status != last {
            if args.json {
                output::json_line(&status)?;
            } else {
                let text = shown(&daemon, inside.as_deref(), &status);
                let clear = if output::is_terminal() { CLEAR } else { "" };
                output::raw(&format!("{clear}{text}"))?;
            }
            last = status;
        }
        tokio::time::sleep(WATCH_PERIOD).await;
    }
}

async fn fetch(daemon: &Running, inside: Option<&str>) -> Outcome<Value> {
    let request = match inside {
        None => Request::Status,
        Some(path) => Request::PathStatus {
            path: path.to_owned(),
        },
    };
    client::ask(daemon, &request).await
}

/// Takes out what is meant for people only: the form that scripts get is stable.
fn leave_out_details(status: &mut Value) {
    if let Some(fields) = status.as_object_mut() {
        fields.remove("details");
    }
}

fn shown(daemon: &Running, inside: Option<&str>, status: &Value) -> String {
    let mountpoint = daemon.mountpoint.display().to_string();
    match inside {
        None => render(&mountpoint, status),
        Some(path) => render_path(
            &format!("{}{path}", mountpoint.trim_end_matches('/')),
            status,
        ),
    }
}
