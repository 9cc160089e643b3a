//! Shows the state of a mount to people. Scripts get the daemon's JSON as it is.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::output::printable;
use crate::size::ByteSize;

/// What `status` reads from the daemon's answer. Everything may be absent, so that a newer command
/// understands an older daemon.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct View {
    state: String,
    drive: DriveView,
    items: u64,
    last_delta: Option<String>,
    push: bool,
    quota: QuotaView,
    cache: CacheView,
    pending: PendingView,
    pins: PinsView,
    transfers: Vec<TransferView>,
    parked: Vec<ParkedView>,
    conflicts: Vec<ConflictView>,
    drives: Vec<FollowedView>,
    details: DetailsView,
    sign_in: SignInView,
    /// What else a person is to know.
    note: Option<String>,
    /// Why there is no mount, where one was to be.
    error: Option<String>,
    /// What to do about that.
    next: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SignInView {
    warning: Option<String>,
    problem: Option<String>,
    announcements: Option<bool>,
    login: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DetailsView {
    held: u64,
    held_reason: String,
    failing: Vec<FailingView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct FailingView {
    path: String,
    op: String,
    error: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DriveView {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    folder_gone: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct QuotaView {
    total: u64,
    used: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CacheView {
    bytes: u64,
    limit: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PendingView {
    ops: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PinsView {
    paths: Vec<String>,
    count: u64,
    files: u64,
    bytes: u64,
    to_fetch: ToFetchView,
    over_limit: bool,
    failing: Vec<PinTroubleView>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ToFetchView {
    files: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PinTroubleView {
    path: String,
    error: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TransferView {
    path: String,
    direction: String,
    done: u64,
    total: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ParkedView {
    path: String,
    op: String,
    error: String,
    since: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ConflictView {
    path: String,
    copy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct FollowedView {
    path: Option<String>,
    left_path: Option<String>,
    state: Option<String>,
    read_only: bool,
    pending: PendingView,
}

/// The state of a file or folder.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathView {
    status: String,
    id: Option<String>,
    size: u64,
    cached_bytes: u64,
    pinned: Option<String>,
    pinned_by: Option<String>,
    to_fetch: Option<ToFetchView>,
}

/// Deletions that are held back which a daemon lists at most.
const HELD_LISTED_MAX: usize = 1000;

/// Longest list shown to a person; the rest is counted.
const LIST_MAX: usize = 20;

/// The state of a mount, for people.
pub(crate) fn render(mountpoint: &str, status: &Value) -> String {
    let Ok(view) = View::deserialize(status) else {
        return format!("{mountpoint}: the daemon's answer is of another version; use --json\n");
    };
    if let Some(error) = &view.error {
        let mut lines = vec![
            format!("{mountpoint}  (not mounted)"),
            format!("  problem    {}", printable(error)),
        ];
        if let Some(next) = &view.next {
            lines.push(format!("             next: {}", printable(next)));
        }
        lines.push("             it is tried again by itself".to_owned());
        return joined(&lines);
    }
    let mut lines = vec![
        format!("{}  ({}, {})", mountpoint, view.drive.name, view.drive.kind),
        format!("  state      {}", describe_state(&view)),
    ];
    if view.drive.folder_gone {
        lines.push(
            "  folder     gone on the service, or not shared any more: what is here stays, and goes \
             on by itself once it is back; next: restore it from the recycle bin, or have it shared \
             again; a folder that is made anew at the path of `mount --folder` is taken as well"
                .to_owned(),
        );
    }
    if let Some(problem) = &view.sign_in.problem {
        lines.push(format!("             {}", printable(problem)));
    }
    if let Some(note) = &view.note {
        lines.push(format!("  note       {}", printable(note)));
    }
    lines.push(format!("  items      {}", view.items));
    lines.push(format!("  updated    {}", updated(&view)));
    if let Some(warning) = &view.sign_in.warning {
        lines.push(format!("  warning    {}", printable(warning)));
    }
    // Zero where the service gives no believable figures.
    if view.quota.total > 0 {
        let (used, total) = (ByteSize(view.quota.used), ByteSize(view.quota.total));
        lines.push(format!("  drive      {used} of {total} used"));
    }
    lines.push(format!(
        "  cache      {} of {}",
        ByteSize(view.cache.bytes),
        ByteSize(view.cache.limit)
    ));
    lines.push(format!(
        "  to send    {}",
        pending_text(view.pending.ops, view.pending.bytes)
    ));
    let full = |path: &str| {
        format!(
            "{}/{}",
            mountpoint.trim_end_matches('/'),
            path.trim_start_matches('/')
        )
    };
    list(&mut lines, &view.drives, |folder| {
        let place = folder.path.as_deref().or(folder.left_path.as_deref());
        folder_line(folder, place.map(full))
    });
    what_is_pinned(&mut lines, &view, full);
    list(&mut lines, &view.transfers, |transfer| {
        transfer_line(transfer, &full(&transfer.path))
    });
    what_waits(&mut lines, &view, mountpoint, full);
    list(&mut lines, &view.conflicts, |conflict| {
        format!(
            "  conflict   {}: your version is kept as {}",
            full(&conflict.path),
            if Path::new(&conflict.copy).is_absolute() {
                conflict.copy.clone()
            } else {
                full(&conflict.copy)
            }
        )
    });
    joined(&lines)
}

/// The line of a transfer.
fn transfer_line(transfer: &TransferView, place: &str) -> String {
    let percent = match transfer.total {
        0 => 0,
        total => u128::from(transfer.done) * 100 / u128::from(total),
    };
    let total = ByteSize(transfer.total);
    let direction = match transfer.direction.as_str() {
        "up" => "sending",
        "down" => "fetching",
        other => other,
    };
    format!("  {direction:<9}  {place} {percent}% of {total}")
}

/// The line of a folder of another drive, or of a drive in a tree.
fn folder_line(folder: &FollowedView, place: Option<String>) -> String {
    let place = place.unwrap_or_else(|| "a folder that is not shown any more".to_owned());
    format!("  shared     {place}: {}", folder_text(folder))
}

/// How a folder of another drive is doing.
fn folder_text(folder: &FollowedView) -> String {
    let state = match folder.state.as_deref() {
        None => "not looked into yet",
        Some("no-access") => "the service does not let this account see it",
        Some("enumerating") => "first listing under way",
        Some("needs-login") => "signed out",
        Some(other) => other,
    };
    let mut text = match folder.path {
        Some(_) => state.to_owned(),
        // Its changes are still sent, or wait for a person.
        None => format!("nothing shows it any more, {state}"),
    };
    if folder.read_only {
        text += ", for reading only";
    }
    if folder.pending.ops > 0 {
        let (ops, bytes) = (folder.pending.ops, folder.pending.bytes);
        text += &format!(", to send: {}", pending_text(ops, bytes));
    }
    text
}

/// What is pinned, what of it is not here yet, and why.
fn what_is_pinned(lines: &mut Vec<String>, view: &View, full: impl Fn(&str) -> String) {
    let pins = &view.pins;
    if pins.count == 0 {
        return;
    }
    lines.push(format!(
        "  pinned     {}, {}, {}",
        counted(pins.files, "file"),
        ByteSize(pins.bytes),
        to_fetch_text(pins.to_fetch.files, pins.to_fetch.bytes)
    ));
    list(lines, &pins.paths, |path| {
        format!("             {}", full(path))
    });
    if pins.over_limit {
        lines.push(format!(
            "             more than the cache may hold ({}): nothing else is kept for long; raise \
             cache_size, or unpin something",
            ByteSize(view.cache.limit)
        ));
    }
    list(lines, &pins.failing, |failing| {
        format!(
            "  retrying   fetch {}: {}",
            full(&failing.path),
            failing.error
        )
    });
}

/// What of pinned content is not here, in words.
pub(crate) fn to_fetch_text(files: u64, bytes: u64) -> String {
    match files {
        0 => "all here".to_owned(),
        _ => format!("{} to fetch ({})", counted(files, "file"), ByteSize(bytes)),
    }
}

/// What fails and is tried again, and what waits for a person.
fn what_waits(
    lines: &mut Vec<String>,
    view: &View,
    mountpoint: &str,
    full: impl Fn(&str) -> String,
) {
    list(lines, &view.details.failing, |failing| {
        format!(
            "  retrying   {} {}: {}",
            failing.op,
            full(&failing.path),
            failing.error
        )
    });
    let held = view.details.held;
    if held > 0 {
        lines.push(format!(
            "  held back  {}, since {}: {}",
            counted(held, "deletion"),
            view.details.held_reason,
            held_next(mountpoint)
        ));
    }
    // Those that are held back come first in the list.
    let held = usize::try_from(held)
        .unwrap_or(usize::MAX)
        .min(view.parked.len());
    let held = held.min(HELD_LISTED_MAX);
    let parked = &view.parked[held..];
    list(lines, parked, |parked| {
        format!(
            "  parked     {} {}: {} (since {})",
            parked.op,
            full(&parked.path),
            parked.error,
            parked.since
        )
    });
    if !parked.is_empty() {
        lines.push(
            "             next: `onedrivefs retry PATH`, `export PATH` to save the local body, \
             `discard PATH` to give it up"
                .to_owned(),
        );
    }
}

fn list<T>(lines: &mut Vec<String>, entries: &[T], show: impl Fn(&T) -> String) {
    lines.extend(entries.iter().take(LIST_MAX).map(show));
    if let Some(more @ 1..) = entries.len().checked_sub(LIST_MAX) {
        lines.push(format!("             and {more} more; --json shows all"));
    }
}

fn describe_state(view: &View) -> String {
    let text = match view.state.as_str() {
        "online" => "online",
        "offline" => "offline: what is cached can be read, changes are kept and sent later",
        "throttled" => "throttled: the service asked for a pause, it goes on by itself",
        "no-access" => "the service does not let this account see it; what is here stays",
        "needs-login" => {
            let command = match view.sign_in.login.as_str() {
                "" => "onedrivefs login",
                command => command,
            };
            return format!("signed out: run `{command}`; changes are kept meanwhile");
        }
        "enumerating" => "first listing under way; folders appear as they are opened",
        other => other,
    };
    text.to_owned()
}

fn updated(view: &View) -> String {
    let how = match (view.push, view.sign_in.announcements) {
        (true, _) => "push",
        (false, Some(false)) => "polling: an application gets no announcements",
        (false, _) => "polling",
    };
    match &view.last_delta {
        Some(when) => format!("{when} ({how})"),
        None => format!("not yet ({how})"),
    }
}

/// A number of things, in words: `1 change`, `12,345 changes`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let plural = if number == 1 { "" } else { "s" };
    format!("{text} {thing}{plural}")
}

/// What to do about deletions that are held back.
pub(crate) fn held_next(mountpoint: &str) -> String {
    format!(
        "`onedrivefs retry {mountpoint}` sends them, `onedrivefs discard {mountpoint}` brings the \
         files back"
    )
}

/// What still has to be sent, in words.
pub(crate) fn pending_text(ops: u64, bytes: u64) -> String {
    match ops {
        0 => "nothing".to_owned(),
        1 => format!("1 change, {}", ByteSize(bytes)),
        _ => format!("{ops} changes, {}", ByteSize(bytes)),
    }
}

/// The state of one file or folder, for people.
pub(crate) fn render_path(path: &str, status: &Value) -> String {
    let Ok(view) = PathView::deserialize(status) else {
        return format!("{path}: the daemon's answer is of another version; use --json\n");
    };
    let meaning = match view.status.as_str() {
        "cloud" => "on the service only; reading it fetches it",
        "partial" => "partly here",
        "cached" => "here and on the service",
        "pinned" => "kept here, and on the service",
        "pending" => "changed here, waiting to be sent",
        "uploading" => "being sent",
        "parked" => "could not be sent; `onedrivefs status` says why",
        "local-only" => "stays on this machine because of its name",
        _ => "",
    };
    let mut lines = vec![
        path.to_owned(),
        format!("  status     {} ({meaning})", view.status),
        format!(
            "  size       {}, {} here",
            ByteSize(view.size),
            ByteSize(view.cached_bytes)
        ),
    ];
    if let Some(by) = &view.pinned_by {
        let left = view.to_fetch.unwrap_or_default();
        let left = to_fetch_text(left.files, left.bytes);
        lines.push(match view.pinned.as_deref() == Some("self") {
            true => format!("  pinned     by itself; {left}"),
            false => format!("  pinned     with its folder {by}; {left}"),
        });
    }
    if let Some(id) = view.id {
        lines.push(format!("  id         {id}"));
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("{}\n", printable(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_full_status_is_shown() {
        let status = json!({
            "state": "throttled",
            "drive": {"id": "b!x", "type": "business", "name": "OneDrive"},
            "items": 1234,
            "last_delta": "2026-11-21T07:00:00Z",
            "push": false,
            "quota": {"total": 1_u64 << 40, "used": 1 << 30, "pending": 0},
            "cache": {"bytes": 1 << 20, "limit": 10_u64 << 30, "pinned": 0},
            "pending": {"ops": 2, "bytes": 2048},
            "transfers": [{"path": "big.iso", "direction": "up", "done": 25, "total": 100}],
            "parked": [{"path": "/a\u{1b}b", "op": "upload", "error": "quota is used up",
                        "since": "2026-11-21T06:00:00Z"}],
            "conflicts": [{"path": "n.txt", "copy": "n (conflict).txt", "when": "x"},
                          {"path": "cut", "copy": "/home/ada/.state/recovered/1-cut", "when": "x"}],
        });
        assert_eq!(
            render("/home/ada/OneDrive", &status),
            "/home/ada/OneDrive  (OneDrive, business)\n\
             \x20 state      throttled: the service asked for a pause, it goes on by itself\n\
             \x20 items      1234\n\
             \x20 updated    2026-11-21T07:00:00Z (polling)\n\
             \x20 drive      1.0 GiB of 1.0 TiB used\n\
             \x20 cache      1.0 MiB of 10.0 GiB\n\
             \x20 to send    2 changes, 2.0 KiB\n\
             \x20 sending    /home/ada/OneDrive/big.iso 25% of 100 B\n\
             \x20 parked     upload /home/ada/OneDrive/a\u{fffd}b: quota is used up (since 2026-11-21T06:00:00Z)\n\
             \x20            next: `onedrivefs retry PATH`, `export PATH` to save the local body, \
             `discard PATH` to give it up\n\
             \x20 conflict   /home/ada/OneDrive/n.txt: your version is kept as /home/ada/OneDrive/n (conflict).txt\n\
             \x20 conflict   /home/ada/OneDrive/cut: your version is kept as /home/ada/.state/recovered/1-cut\n"
        );
    }

    #[test]
    fn what_is_pinned_is_told_with_what_is_missing() {
        let text = render(
            "/m",
            &json!({
                "cache": {"bytes": 5, "limit": 2048},
                "pins": {
                    "paths": ["Travel"], "count": 1, "files": 1200, "bytes": 4096,
                    "to_fetch": {"files": 2, "bytes": 1024}, "over_limit": true,
                    "failing": [{"path": "Travel/a", "error": "locked"}],
                },
            }),
        );
        assert!(
            text.contains("  pinned     1,200 files, 4.0 KiB, 2 files to fetch (1.0 KiB)\n             /m/Travel\n"),
            "{text}"
        );
        assert!(
            text.contains("more than the cache may hold (2.0 KiB)"),
            "{text}"
        );
        assert!(
            text.contains("  retrying   fetch /m/Travel/a: locked\n"),
            "{text}"
        );
        let of = |pinned: &str| {
            let status = json!({"status": "pinned", "pinned": pinned, "pinned_by": "/a",
                                "to_fetch": {"files": 0, "bytes": 0}});
            render_path("/m/a/a", &status)
        };
        assert!(of("self").contains("pinned     by itself; all here"));
        assert!(of("folder").contains("pinned     with its folder /a; all here"));
    }

    #[test]
    fn an_empty_answer_is_no_defect() {
        let text = render("/m", &json!({}));
        assert!(text.contains("to send    nothing"), "{text}");
        assert!(text.contains("not yet (polling)"), "{text}");
        assert!(render("/m", &json!([1])).contains("--json"));
        assert!(render_path("/m/a", &json!({"status": "cloud"})).contains("on the service only"));
    }

    #[test]
    fn held_deletions_are_a_number_and_what_fails_is_named() {
        let parked: Vec<Value> = (0..1001)
            .map(|n| json!({"path": format!("/{n}")}))
            .collect();
        let text = render(
            "/m",
            &json!({
                "parked": parked,
                "details": {
                    "held": 12_345,
                    "held_reason": "more than 1000 were made within a minute",
                    "failing": [{"path": "a", "op": "upload", "error": "locked"}],
                },
            }),
        );
        assert!(
            text.contains("held back  12,345 deletions, since more than 1000"),
            "{text}"
        );
        assert!(text.contains("onedrivefs discard /m"), "{text}");
        assert!(text.contains("retrying   upload /m/a: locked"), "{text}");
        // The daemon lists a thousand of them before what else is parked.
        assert!(
            !text.contains("/m/999:") && text.contains("/m/1000:"),
            "{text}"
        );
        assert_eq!(counted(1, "change"), "1 change");
        assert_eq!(counted(1_234_567, "change"), "1,234,567 changes");
    }

    #[test]
    fn long_lists_are_cut_for_people() {
        let parked: Vec<Value> = (0..30).map(|n| json!({"path": format!("/{n}")})).collect();
        let text = render("/m", &json!({ "parked": parked }));
        assert!(text.contains("and 10 more"), "{text}");
    }
}
