//! What must never lose anything, as tables: one row per conflict and per fault, each with what
//! programs do here, what others do on the service, and the trees that both sides must have in the
//! end.
//!
//! All rows of a block share one mount. They work at the same time, each in a folder of its own,
//! which is quick and a harder test than one after the other.

mod conflicts;
mod feed;
mod lost;
mod reads;
mod sessions;
mod silence;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use onedrivefs_sim::{DriveHandle, DriveKind, FaultAction, FaultRule, Knobs, Reach};
use onedrivefs_tests::{Home, Mount, Service, wait};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::files;

/// Tries of `sync` until everything is sent: each of them makes waiting changes go at once.
const SYNCS: u32 = 60;

/// Seconds that one of those tries takes at most.
const SYNC_S: u64 = 1;

/// Requests that change something on the service.
pub(super) const CHANGING: &[&str] = &[
    "mkdir",
    "create_session",
    "upload_fragment",
    "put_content",
    "patch",
    "delete",
    "copy",
];

/// One case. The columns are in a small language; its words are separated by `;`.
///
/// | word | what is done |
/// |---|---|
/// | `a/b.txt=text` | the file is written anew; `@SIZE.SEED` is that many bytes of noise |
/// | `a/b.txt+=text` | something is appended to it |
/// | `a/` | the folder is made |
/// | `-a` | the file, or the folder with all in it, is deleted |
/// | `a > b` | it is renamed or moved |
/// | `a <> b` | the two swap their names |
/// | `~a=text` | saved by a temporary file that is renamed over it (here only) |
/// | `^a=text` | saved by way of a backup that is deleted in the end (here only) |
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Name of the case, and of the folder it happens in.
    pub name: &'static str,
    /// What both sides have at first.
    pub before: &'static str,
    /// What programs do here.
    pub here: &'static str,
    /// What others do on the service.
    pub there: &'static str,
    /// Every file with its content, and every folder that holds none, that both sides have in the
    /// end; `|` separates outcomes that are both right. Conflict copies are `name (conflict).ext`.
    pub after: &'static str,
    /// The outcome when ours was asked for first and theirs took effect before it, where that
    /// makes a difference: the service knows no order but that of the effects.
    asked: Option<&'static str>,
    /// A file and how many versions it has in the end.
    versions: Option<(&'static str, usize)>,
    /// What a file was named, and what the very same item is named in the end.
    same_item: Option<(&'static str, &'static str)>,
}

/// A case.
pub(super) const fn row(
    name: &'static str,
    before: &'static str,
    here: &'static str,
    there: &'static str,
    after: &'static str,
) -> Row {
    Row {
        name,
        before,
        here,
        there,
        after,
        asked: None,
        versions: None,
        same_item: None,
    }
}

impl Row {
    /// Names the outcome when ours is the last to take effect.
    pub(super) const fn ours_last(mut self, after: &'static str) -> Self {
        self.asked = Some(after);
        self
    }

    /// Whether all that is done here is to write content.
    pub(super) fn only_writes(&self) -> bool {
        let writes = |word| matches!(word, Word::Write(..) | Word::Append(..) | Word::Save(..));
        words(self.here).all(writes)
    }

    /// Expects a number of versions in the end.
    pub(super) const fn versions(mut self, path: &'static str, count: usize) -> Self {
        self.versions = Some((path, count));
        self
    }

    /// Expects that an item is still the same, perhaps under another name.
    pub(super) const fn same_item(mut self, before: &'static str, after: &'static str) -> Self {
        self.same_item = Some((before, after));
        self
    }
}

/// One word of the language.
enum Word<'a> {
    Write(&'a str, &'a str),
    Append(&'a str, &'a str),
    Save(&'a str, &'a str),
    Backup(&'a str, &'a str),
    Folder(&'a str),
    Delete(&'a str),
    Rename(&'a str, &'a str),
    Swap(&'a str, &'a str),
}

fn words(script: &str) -> impl Iterator<Item = Word<'_>> {
    let words = script.split(';').map(str::trim).filter(|w| !w.is_empty());
    words.map(|word| {
        let pair = |by| word.split_once(by);
        if let Some((a, b)) = pair(" <> ") {
            Word::Swap(a, b)
        } else if let Some((a, b)) = pair(" > ") {
            Word::Rename(a, b)
        } else if let Some(path) = word.strip_prefix('-') {
            Word::Delete(path)
        } else if let Some((path, text)) = pair("+=") {
            Word::Append(path, text)
        } else if let Some((path, text)) = pair("=") {
            match (path.strip_prefix('~'), path.strip_prefix('^')) {
                (Some(path), _) => Word::Save(path, text),
                (_, Some(path)) => Word::Backup(path, text),
                _ => Word::Write(path, text),
            }
        } else {
            Word::Folder(word.trim_end_matches('/'))
        }
    })
}

/// The bytes that a text in the table stands for.
pub(super) fn body(text: &str) -> Vec<u8> {
    let noise = text
        .strip_prefix('@')
        .and_then(|t| t.split_once('.'))
        .and_then(|(size, seed)| Some((size.parse().ok()?, seed.parse().ok()?)));
    match noise {
        Some((size, seed)) => files::noise(seed, size),
        None => text.as_bytes().to_vec(),
    }
}

/// Does something in the mount.
pub(super) fn do_here(dir: &Path, script: &str) {
    for word in words(script) {
        let at = |path: &str| dir.join(path);
        let done = match word {
            Word::Write(path, text) => fs::write(at(path), body(text)),
            Word::Append(path, text) => File::options()
                .append(true)
                .open(at(path))
                .and_then(|mut file| file.write_all(text.as_bytes())),
            Word::Save(path, text) => {
                let temporary = at(&format!("{path}.new"));
                fs::write(&temporary, body(text)).and_then(|()| fs::rename(temporary, at(path)))
            }
            Word::Backup(path, text) => {
                let backup = at(&format!("{path}.bak"));
                fs::rename(at(path), &backup)
                    .and_then(|()| fs::write(at(path), body(text)))
                    .and_then(|()| fs::remove_file(backup))
            }
            Word::Folder(path) => fs::create_dir_all(at(path)),
            Word::Delete(path) if at(path).is_dir() => fs::remove_dir_all(at(path)),
            Word::Delete(path) => fs::remove_file(at(path)),
            Word::Rename(from, to) => fs::rename(at(from), at(to)),
            Word::Swap(a, b) => renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE)
                .map_err(std::io::Error::from),
        };
        done.unwrap_or_else(|error| panic!("{}: {script}: {error}", dir.display()));
    }
}

/// Does something on the service as another client would, below a path that ends in a slash.
pub(super) fn do_there(drive: &DriveHandle, dir: &str, script: &str) {
    for word in words(script) {
        let at = |path: &str| format!("{dir}{path}");
        let done = match word {
            Word::Write(path, text) => drive.put(&at(path), body(text)).map(drop),
            Word::Append(path, text) => {
                let old = drive.read(&at(path)).unwrap_or_default();
                drive
                    .put(&at(path), [&old, text.as_bytes()].concat())
                    .map(drop)
            }
            Word::Folder(path) => drive.mkdir(&at(path)).map(drop),
            Word::Delete(path) => drive.delete(&at(path)),
            Word::Rename(from, to) => drive.rename(&at(from), &at(to)),
            Word::Swap(a, b) => drive
                .rename(&at(a), &at("swapping"))
                .and_then(|()| drive.rename(&at(b), &at(a)))
                .and_then(|()| drive.rename(&at("swapping"), &at(b))),
            Word::Save(..) | Word::Backup(..) => panic!("{script}: only programs here do that"),
        };
        done.unwrap_or_else(|error| panic!("{dir}: {script}: {error}"));
    }
}

/// The name or path of a conflict copy without what differs from machine to machine.
pub(super) fn plain(path: &str) -> String {
    let Some((stem, rest)) = path.split_once(" (conflict ") else {
        return path.to_owned();
    };
    let end = rest.split_once(')').map_or("", |(_, end)| end);
    format!("{stem} (conflict){}", plain(end))
}

/// A tree as sorted lines: folders end in a slash, files have their content.
type Lines = Vec<String>;

fn line(path: &str, bytes: &[u8]) -> String {
    let path = plain(path);
    if bytes.len() <= 200 {
        return format!("{path}={}", String::from_utf8_lossy(bytes));
    }
    let sum = bytes.iter().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    format!("{path}={} bytes {sum:x}", bytes.len())
}

fn expected(outcome: &str) -> Lines {
    let mut lines = Lines::new();
    for word in words(outcome) {
        let path = match word {
            Word::Write(path, text) => {
                lines.push(line(path, &body(text)));
                path
            }
            Word::Folder(path) => {
                lines.push(format!("{path}/"));
                path
            }
            _ => panic!("{outcome}: not a tree"),
        };
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        lines.extend(above.map(|folder| format!("{folder}/")));
    }
    lines.sort();
    lines.dedup_by(|a, b| a == b && a.ends_with('/'));
    lines
}

fn lines_here(dir: &Path) -> Lines {
    fn walk(dir: &Path, below: &str, lines: &mut Lines) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return lines.push(format!("{below}: {error}")),
        };
        for entry in entries {
            let entry = entry.expect("entry");
            let name = entry.file_name().into_string().expect("UTF-8");
            let path = format!("{below}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                lines.push(format!("{}/", plain(&path)));
                walk(&entry.path(), &format!("{path}/"), lines);
            } else {
                lines.push(match fs::read(entry.path()) {
                    Ok(bytes) => line(&path, &bytes),
                    Err(error) => format!("{path}: {error}"),
                });
            }
        }
    }
    let mut lines = Lines::new();
    walk(dir, "", &mut lines);
    lines.sort();
    lines
}

fn lines_there(drive: &DriveHandle, dir: &str) -> Lines {
    let mut lines = Lines::new();
    for entry in drive.dump() {
        let Some(below) = entry.path.strip_prefix(dir) else {
            continue;
        };
        if entry.folder {
            lines.push(format!("{}/", plain(below)));
        } else {
            lines.push(line(below, &drive.read(&entry.path).unwrap_or_default()));
        }
    }
    lines.sort();
    lines
}

/// How the two sides come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// What others did arrives as changes before anything of ours is sent.
    ByDelta,
    /// Both worked for days without hearing of each other.
    AfterDays,
    /// Others work while our requests are on their way.
    WhileAsking,
    /// Others work while the bytes of our files are on their way.
    WhileSending,
}

/// A mount with the rows of a block in it.
pub(super) struct Bench<'s> {
    pub home: &'s Home<'s>,
    pub mount: Mount<'s>,
    pub drive: DriveHandle,
    /// What is told of a row that fails.
    pub case: String,
    /// Whether ours may take effect last.
    pub ours_last: bool,
}

/// A service with one drive.
pub(super) fn service(kind: DriveKind) -> Service {
    let service = Service::with(|config| config.drives[0].kind = kind);
    // What holds a name is let go of soon, so that a test need not wait for a quarter of an hour.
    service.set_knobs(|knobs| knobs.session_ttl_s = 4);
    service
}

impl<'s> Bench<'s> {
    /// Puts what the rows begin with on the drive and mounts it.
    pub(super) fn new(home: &'s Home<'s>, rows: &[Row], arguments: &[&str], case: String) -> Self {
        let drive = home.service.default_drive();
        for row in rows {
            drive.mkdir(&format!("/{}", row.name)).expect("folder");
            do_there(&drive, &format!("/{}/", row.name), row.before);
        }
        let mut all = vec!["--option", "parallel_uploads=64"];
        all.extend(arguments);
        let mount = home.mount_args(&all);
        mount.sync();
        for row in rows {
            // All content is here, also for those who work offline.
            lines_here(&mount.at(row.name));
        }
        Self {
            home,
            mount,
            drive,
            case,
            ours_last: false,
        }
    }

    /// The ids of the items that the rows ask about.
    pub(super) fn ids(&self, rows: &[Row]) -> Vec<Option<String>> {
        let id = |row: &Row| {
            let (before, _) = row.same_item?;
            Some(self.drive.entry(&format!("/{}/{before}", row.name))?.id)
        };
        rows.iter().map(id).collect()
    }

    /// Does the first column of every row.
    pub(super) fn here(&self, rows: &[Row]) {
        for row in rows {
            do_here(&self.mount.at(row.name), row.here);
        }
    }

    /// Does the second column of every row.
    pub(super) fn there(&self, rows: &[Row]) {
        for row in rows {
            do_there(&self.drive, &format!("/{}/", row.name), row.there);
        }
    }

    /// Lets both sides of all rows work and come together.
    pub(super) fn meet(&self, rows: &[Row], meeting: Meeting) {
        let service = self.home.service;
        match meeting {
            Meeting::ByDelta => {
                self.here(rows);
                self.there(rows);
            }
            Meeting::AfterDays => {
                service.set_reach(Reach::Offline);
                self.here(rows);
                self.there(rows);
                wait::until("noticing", wait::secs(30), || {
                    self.mount.status()["state"] == "offline"
                });
                service.set_reach(Reach::Online);
                wait::until("the service", wait::secs(60), || {
                    self.home.try_sync(SYNC_S);
                    self.mount.status()["state"] == "online"
                });
            }
            Meeting::WhileAsking => {
                self.hold(CHANGING, || self.here(rows), || self.there(rows));
            }
            Meeting::WhileSending => {
                let bytes = &["upload_fragment", "put_content"];
                self.hold(bytes, || self.here(rows), || self.there(rows));
            }
        }
    }

    /// Holds requests that `first` causes until `then` is done and its changes were fetched.
    pub(super) fn hold(&self, operations: &[&str], first: impl FnOnce(), then: impl FnOnce()) {
        let faults = self.home.service.faults();
        let gates: Vec<u64> = operations
            .iter()
            .map(|op| faults.add(FaultRule::on(op, FaultAction::Hold)))
            .collect();
        first();
        self.settle(&gates);
        then();
        // Changes of others arrive although our requests have no answer yet.
        self.home.try_sync(1);
        for gate in gates {
            faults.remove(gate);
        }
    }

    /// Waits until no more requests come to the gates.
    fn settle(&self, gates: &[u64]) {
        let faults = self.home.service.faults();
        let held = || gates.iter().map(|gate| faults.hits(*gate)).sum::<u64>();
        let mut last = (0, std::time::Instant::now());
        wait::until("requests on their way", wait::secs(30), || {
            let now = held();
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            now > 0 && last.1.elapsed() > Duration::from_millis(700)
        });
    }

    /// Waits until everything is sent and fresh. The faults of a test may make that take several
    /// tries; none of them may be final.
    pub(super) fn come_to_rest(&self) {
        let mut last = None;
        for _ in 0..SYNCS {
            let ran = self.home.try_sync(SYNC_S);
            if ran.code == Some(0) {
                // What the last round brought may be sent back in another form.
                self.mount.sync();
                return;
            }
            last = Some(ran);
        }
        panic!(
            "{}: not everything was sent: {last:?}\n{}",
            self.case,
            self.mount.status()
        );
    }

    /// Compares both sides of every row with what is expected, and says all that is wrong. `ids`
    /// are those from [`Bench::ids`].
    pub(super) fn check(&self, rows: &[Row], ids: &[Option<String>]) {
        let mut wrong = Vec::new();
        for (row, id) in rows.iter().zip(ids) {
            let here = lines_here(&self.mount.at(row.name));
            let there = lines_there(&self.drive, &format!("/{}/", row.name));
            let mut outcomes: Vec<&str> = row.after.split(" | ").collect();
            outcomes.extend(row.asked.filter(|_| self.ours_last));
            let right = outcomes.iter().any(|after| expected(after) == there);
            if here != there || !right {
                wrong.push(format!(
                    "{}: {}\n  expected {:?}\n  here     {here:?}\n  there    {there:?}",
                    self.case,
                    row.name,
                    outcomes.join(" | ")
                ));
            }
            let asked = row.asked.is_some_and(|after| expected(after) == there);
            if !asked {
                wrong.extend(self.wrong_item(row, id.as_deref()));
            }
        }
        let status = self.mount.status();
        if status["parked"].as_array().is_none_or(|p| !p.is_empty())
            || status["pending"]["ops"] != 0
        {
            wrong.push(format!("{}: not all was sent: {status}", self.case));
        }
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    }

    fn wrong_item(&self, row: &Row, id: Option<&str>) -> Vec<String> {
        let entry = |path: &str| self.drive.entry(&format!("/{}/{path}", row.name));
        let mut wrong = Vec::new();
        if let Some((path, count)) = row.versions {
            let versions = entry(path).map_or(0, |entry| entry.versions);
            if versions != count {
                wrong.push(format!(
                    "{}: {}: {versions} versions of {path} instead of {count}",
                    self.case, row.name
                ));
            }
        }
        if let (Some((_, path)), Some(id)) = (row.same_item, id)
            && entry(path).is_none_or(|entry| entry.id != id)
        {
            wrong.push(format!(
                "{}: {}: {path} is another item",
                self.case, row.name
            ));
        }
        wrong
    }
}

/// Lets both sides of all rows work, and expects what the rows say.
pub(super) fn run(rows: &[Row], kind: DriveKind, meeting: Meeting) {
    run_with(rows, kind, meeting, |_| {});
}

/// The same with a service that has habits of its own.
pub(super) fn run_with(
    rows: &[Row],
    kind: DriveKind,
    meeting: Meeting,
    habits: impl FnOnce(&mut Knobs),
) {
    let service = service(kind);
    service.set_knobs(habits);
    run_on(&service, rows, meeting, format!("{kind:?}, {meeting:?}"));
}

/// The same on a service that has begun.
pub(super) fn run_on(service: &Service, rows: &[Row], meeting: Meeting, case: String) {
    let home = Home::signed_in(service);
    let (poll, delay) = match meeting {
        Meeting::ByDelta => ("1", "upload_delay=3000"),
        Meeting::AfterDays => ("1", "upload_delay=4000"),
        Meeting::WhileAsking | Meeting::WhileSending => ("3600", "upload_delay=1500"),
    };
    let arguments = ["--poll", poll, "--option", delay];
    let mut bench = Bench::new(&home, rows, &arguments, case);
    bench.ours_last = matches!(meeting, Meeting::WhileAsking | Meeting::WhileSending);
    let ids = bench.ids(rows);
    bench.meet(rows, meeting);
    if meeting == Meeting::ByDelta {
        let last = bench.mount.status()["last_delta"].clone();
        wait::until("a round of changes", wait::secs(20), || {
            bench.mount.status()["last_delta"] != last
        });
    }
    bench.come_to_rest();
    bench.check(rows, &ids);
    bench.mount.unmount();
}
