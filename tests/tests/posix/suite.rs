//! pjdfstest: every case of it.

use std::collections::BTreeMap;
use std::fs;

use onedrivefs_tests::{Home, Mount, Need, Service, Who, needs, process, wait};

use crate::tool;

/// What cannot hold, or cannot be tried, and why.
const EXPECTED: &str = include_str!("expected.txt");

/// What the suite is told of the file system and the machine. Both users exist on every Debian.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Held,
    Failed,
    Skipped,
}

/// A line of `expected.txt`: how a case is to end, and whether for root only.
struct Expected {
    end: End,
    root_only: bool,
}

/// Reads `expected.txt`: below a line `[failed: reason]` or `[skipped: reason]` the cases it is true
/// of.
fn expected() -> BTreeMap<&'static str, Expected> {
    let mut all = BTreeMap::new();
    let mut end = None;
    for line in EXPECTED.lines() {
        if let Some(section) = line.strip_prefix('[') {
            end = Some(match section.split(':').next() {
                Some("failed") => End::Failed,
                Some("skipped") => End::Skipped,
                other => panic!("no such section: {other:?}"),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, root_only) = match line.strip_suffix(" (root)") {
                Some(name) => (name, true),
                None => (line, false),
            };
            let end = end.expect("a section before the first case");
            let before = all.insert(name, Expected { end, root_only });
            assert!(before.is_none(), "{name} is listed twice");
        }
    }
    all
}

/// How each case ended, by its name, and the reason in the suite's words.
fn results(out: &str) -> BTreeMap<String, (End, String)> {
    let mut all = BTreeMap::new();
    let mut last = None;
    for line in plain(out).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let end = match words[..] {
            [_, "ok"] => End::Held,
            [_, "FAILED"] => End::Failed,
            [_, "skipped"] => End::Skipped,
            _ => {
                let reason = last.as_ref().and_then(|name| all.get_mut(name));
                if let Some((_, reason)) = reason.filter(|_| line.starts_with(['\t', ' '])) {
                    let reason: &mut String = reason;
                    reason.push_str(line.trim());
                    reason.push(' ');
                }
                continue;
            }
        };
        let name = words[0].to_owned();
        last = Some(name.clone());
        all.insert(name, (end, String::new()));
    }
    all
}

/// Text without what colours it.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

/// What the suite says of a case that it does not try as an ordinary user.
const NEEDS_ROOT: &[&str] = &["requires root", "doesn't have the CAP_SYS_ADMIN cap"];

/// Compares, and names every case that ended in another way than it should.
fn compare(results: &BTreeMap<String, (End, String)>, root: bool) {
    let mut expected = expected();
    let mut wrong = Vec::new();
    for (name, (end, reason)) in results {
        let listed = expected.remove(name.as_str());
        let should = match &listed {
            // The suite runs these for root only, whatever the file system can do.
            _ if !root && NEEDS_ROOT.iter().any(|words| reason.contains(words)) => End::Skipped,
            Some(listed) if root || !listed.root_only => listed.end,
            _ => End::Held,
        };
        if *end != should {
            wrong.push(format!("{name}: {end:?}, expected: {should:?}. {reason}"));
        }
    }
    let gone = expected
        .keys()
        .map(|name| format!("{name}: there is no such case"));
    wrong.extend(gone);
    assert!(
        wrong.is_empty(),
        "{} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn run(home: &Home<'_>, mount: &Mount<'_>, root: bool) {
    let configuration = home.path("pjdfstest.toml");
    fs::write(&configuration, CONFIGURATION).expect("configuration");
    let mut command = home.program(tool::copy_for(home, "pjdfstest"));
    command
        .env_remove("RUST_BACKTRACE")
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(mount.path())
        .arg("-s")
        .arg(home.work());
    let ran = process::run(command, wait::secs(170));
    let results = results(&ran.out);
    assert!(results.len() > 300, "{}\n{}", ran.out, ran.err);
    compare(&results, root);
    mount.sync();
    let left = home.sh(r#"ls -A "$M""#);
    assert_eq!(left, "", "the suite cleans up after itself");
    assert_eq!(home.service.default_drive().dump(), Vec::new());
}

#[test]
fn every_case_holds_for_root_that_can_hold() {
    if !needs::met(&[Need::Fuse, Need::Root, Need::Program("pjdfstest")]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    // The suite becomes one user or the other, who must be let in.
    let mount = home.mount_args(&["--allow-other"]);
    run(&home, &mount, true);
    mount.unmount();
}

#[test]
fn every_case_holds_for_an_ordinary_user_that_can_hold() {
    if !needs::met(&[Need::FuseForUsers, Need::Program("pjdfstest")]) {
        return;
    }
    let service = Service::start();
    let home = Home::of(&service, Who::Nobody);
    home.log_in();
    let mount = home.mount();
    run(&home, &mount, false);
    mount.unmount();
}
