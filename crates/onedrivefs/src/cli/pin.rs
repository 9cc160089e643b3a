//! `onedrivefs pin`, `unpin` and `evict`: what is kept on this machine and what is not.

use std::path::Path;
use std::time::Instant;

use onedrivefs_sync::{Freed, Kept, Pinned};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::sync::{QUIET_PERIOD, spinner};
use super::{EvictArgs, PinArgs, UnpinArgs, daemons};
use crate::control::registry::Running;
use crate::control::{Request, client};
use crate::failure::{Explain, Failure, Outcome};
use crate::output::{self, printable};
use crate::size::ByteSize;
use crate::status::{counted, to_fetch_text};

/// Keeps files and folders here.
pub(crate) async fn pin(args: &PinArgs) -> Outcome {
    let mut pinned = Vec::new();
    for path in &args.paths {
        let (daemon, inside) = find(path)?;
        let request = Request::Pin {
            path: inside.clone(),
        };
        let answer: Pinned = ask(&daemon, &request).await?;
        if !args.json && !args.wait {
            output::line(printable(&pinned_text(path, &answer)))?;
        }
        pinned.push((path, daemon, inside, answer));
    }
    let mut summary = Vec::new();
    for (path, daemon, inside, answer) in pinned {
        let kept = match args.wait {
            true => wait(&daemon, inside).await?,
            false => answer.kept,
        };
        if args.wait && !args.json {
            output::line(printable(&format!(
                "{}: pinned; {}",
                path.display(),
                text_of(&kept)
            )))?;
        }
        summary.push(json!({
            "path": path,
            "new": answer.new,
            "files": kept.files,
            "bytes": kept.bytes,
            "to_fetch": kept.to_fetch,
        }));
    }
    if args.json {
        output::json(&summary)?;
    }
    Ok(())
}

/// Waits until all of it is here.
async fn wait(daemon: &Running, inside: String) -> Outcome<Kept> {
    let bar = spinner();
    let started = Instant::now();
    let request = Request::AwaitPinned { path: inside };
    let answer = client::converse(daemon, &request, |progress| {
        if started.elapsed() >= QUIET_PERIOD {
            let mut message = to_fetch_text(progress.ops, progress.bytes);
            if let Some(why) = progress.obstacle {
                message.push_str(&format!("; tries again: {why}"));
            }
            bar.set_message(printable(&message));
            bar.tick();
        }
    })
    .await;
    bar.finish_and_clear();
    understood(answer?)
}

fn pinned_text(path: &Path, pinned: &Pinned) -> String {
    let how = if pinned.new {
        "pinned"
    } else {
        "pinned already"
    };
    let mut text = format!("{}: {how}; {}", path.display(), text_of(&pinned.kept));
    if pinned.kept.unlisted > 0 {
        text.push_str(", and what is in folders that are not listed yet");
    }
    if pinned.kept.to_fetch.files + pinned.kept.unlisted > 0 {
        text.push_str(match pinned.online {
            true => ", in the background",
            false => ", as soon as the service can be reached",
        });
    }
    text
}

fn text_of(kept: &Kept) -> String {
    format!(
        "{}, {}, {}",
        counted(kept.files, "file"),
        ByteSize(kept.bytes),
        to_fetch_text(kept.to_fetch.files, kept.to_fetch.bytes)
    )
}

/// No longer keeps files and folders here.
pub(crate) async fn unpin(args: &UnpinArgs) -> Outcome {
    let mut summary = Vec::new();
    for path in &args.paths {
        let (daemon, inside) = find(path)?;
        let still: Option<String> = ask(&daemon, &Request::Unpin { path: inside }).await?;
        if !args.json {
            let text = match &still {
                None => "unpinned; what is here stays until the cache needs the room".to_owned(),
                Some(folder) => format!("unpinned; it stays pinned with its folder /{folder}"),
            };
            output::line(printable(&format!("{}: {text}", path.display())))?;
        }
        let by = still.map(|folder| format!("/{folder}"));
        summary.push(json!({ "path": path, "pinned_by": by }));
    }
    if args.json {
        output::json(&summary)?;
    }
    Ok(())
}

/// Frees the space of files and folders.
pub(crate) async fn evict(args: &EvictArgs) -> Outcome {
    let mut summary = Vec::new();
    let mut staying = 0;
    for path in &args.paths {
        let (daemon, inside) = find(path)?;
        let freed: Freed = ask(&daemon, &Request::Evict { path: inside }).await?;
        staying += freed.staying;
        if args.json {
            let mut value = json!(freed);
            value["path"] = json!(path);
            summary.push(value);
            continue;
        }
        let (files, size) = (counted(freed.files, "file"), ByteSize(freed.bytes));
        let text = format!("{}: {size} freed ({files})", path.display());
        output::line(printable(&text))?;
        for stays in &freed.stays {
            let place = daemon.mountpoint.join(&stays.path);
            let number = match stays.files {
                1 => String::new(),
                files => format!(" ({})", counted(files, "file")),
            };
            let text = format!("  stays: {}{number}: {}", place.display(), stays.reason);
            output::note(printable(&text));
        }
    }
    if args.json {
        output::json(&summary)?;
    }
    match staying {
        0 => Ok(()),
        _ => Err(Failure::new(
            "evict",
            format!("the content of {} stays here", counted(staying, "file")),
        )
        .next(
            "`onedrivefs unpin` what is pinned, close what is open, and let `onedrivefs sync` send \
             what is not sent yet",
        )),
    }
}

/// The daemon that serves a path, and the path inside its mount.
fn find(path: &Path) -> Outcome<(Running, String)> {
    let (daemon, inside) = daemons::find(Some(path))?;
    Ok((daemon, inside.unwrap_or_default()))
}

async fn ask<T: DeserializeOwned>(daemon: &Running, request: &Request) -> Outcome<T> {
    understood(client::converse(daemon, request, |_| {}).await?)
}

fn understood<T: DeserializeOwned>(answer: Value) -> Outcome<T> {
    serde_json::from_value(answer).explain(|| "understanding the daemon's answer".to_owned())
}
