//! Programs here and people elsewhere change the same few files at random while requests fail at
//! random. In the end both sides must be the same, and nothing may be gone that nobody deleted or
//! replaced knowingly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_core::QuickXorHash;
use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_store::Ops;
use tokio::sync::Semaphore;

use crate::fixture::Mount;

const NAMES: &[&str] = &["a", "b", "c.txt", "d/a", "d/b", "e/a", "e/c.txt"];
const FOLDERS: &[&str] = &["d", "e"];
const FAULTS: &[&str] = &[
    "create_session",
    "upload_fragment",
    "put_content",
    "patch",
    "delete",
    "mkdir",
    "item",
    "delta",
    "children",
];
const STEPS: usize = 60;

/// Numbers that are the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

struct Chaos {
    m: Mount,
    random: Random,
    /// Everything that was ever saved anywhere.
    saved: BTreeMap<String, Vec<u8>>,
    /// What somebody replaced or deleted, having seen it.
    given_up: BTreeSet<String>,
    serial: u32,
    log: Vec<String>,
}

impl Chaos {
    /// Notes what happens, with the number of requests so far.
    fn say(&mut self, what: String) {
        let number = self.m.sim.requests().since(0).len();
        self.log.push(format!("[{number}] {what}"));
    }

    fn body(&mut self, whose: &str) -> Vec<u8> {
        self.serial += 1;
        let mut body = format!("{whose} {} ", self.serial).into_bytes();
        body.resize(body.len() + self.random.below(5000), b'x');
        let hash = QuickXorHash::of(&body).to_string();
        self.saved.insert(hash, body.clone());
        body
    }

    /// What a person here sees in a file, by its hash.
    async fn seen_here(&self, path: &str) -> Option<String> {
        let item = self.m.engine.item_at(path).ok()?;
        if item.is_dir() {
            return None;
        }
        let row = self
            .m
            .engine
            .store
            .read(|r| r.journal(item.ino))
            .expect("row");
        let ours = row.is_some_and(|r| r.ops.has(Ops::CONTENT) || r.ops.has(Ops::CREATE));
        if ours {
            return Some(QuickXorHash::of(&self.m.read(path).await).to_string());
        }
        item.remote?.hash.map(|hash| hash.to_string())
    }

    fn seen_there(&self, path: &str) -> Option<String> {
        let body = self.m.drive.read(&format!("/{path}"))?;
        Some(QuickXorHash::of(&body).to_string())
    }

    async fn give_up_here(&mut self, path: &str) {
        let seen = self.seen_here(path).await;
        self.say(format!(
            "  here {path} is {:?}",
            seen.as_ref().and_then(|h| self.label(h))
        ));
        self.given_up.extend(seen);
    }

    /// A round may have come between looking and replacing: what was replaced is the base of what
    /// is there now.
    fn give_up_base(&mut self, path: &str) {
        let item = self.m.engine.item_at(path).ok();
        let base = item.and_then(|item| item.remote?.hash);
        self.given_up.extend(base.map(|hash| hash.to_string()));
    }

    fn label(&self, hash: &str) -> Option<String> {
        let body = self.saved.get(hash)?;
        let text = String::from_utf8_lossy(body);
        Some(text.trim_end_matches('x').to_owned())
    }

    fn is_file_here(&self, path: &str) -> bool {
        self.m.engine.item_at(path).is_ok_and(|item| !item.is_dir())
    }

    async fn step_here(&mut self) {
        let (path, other) = (self.random.pick(NAMES), self.random.pick(NAMES));
        let folder_of = |p: &str| p.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        for path in [path, other] {
            if let Some(folder) = folder_of(path)
                && self.m.engine.item_at(&folder).is_err()
            {
                self.say(format!("here mkdir {folder}"));
                self.m.mkdir(&folder);
            }
        }
        match self.random.below(10) {
            0..=3 => {
                let body = self.body("ours");
                self.log
                    .push(format!("here write {path} ours {}", self.serial));
                self.give_up_here(path).await;
                self.m.write(path, &body).await;
                self.give_up_base(path);
            }
            4 | 5 => {
                let body = self.body("ours");
                let temp = format!("{path}.tmp");
                self.log
                    .push(format!("here save {path} ours {} by rename", self.serial));
                self.m.write(&temp, &body).await;
                let pause = self.random.below(60) as u64;
                tokio::time::sleep(Duration::from_millis(pause)).await;
                self.give_up_here(path).await;
                self.m.rename(&temp, path);
                self.give_up_base(path);
            }
            6 | 7 if path != other && self.is_file_here(path) => {
                self.say(format!("here rename {path} {other}"));
                self.give_up_here(other).await;
                // Somebody elsewhere may have deleted it this very moment.
                if self.is_file_here(path) {
                    self.m.rename(path, other);
                }
            }
            8 if self.is_file_here(path) => {
                self.say(format!("here unlink {path}"));
                self.give_up_here(path).await;
                if self.is_file_here(path) {
                    self.m.unlink(path);
                }
            }
            _ => {
                self.m.engine.wake_freshness();
            }
        }
    }

    fn step_there(&mut self) {
        let (path, other) = (self.random.pick(NAMES), self.random.pick(NAMES));
        let (at, to) = (format!("/{path}"), format!("/{other}"));
        match self.random.below(10) {
            0..=3 => {
                let body = self.body("theirs");
                self.log
                    .push(format!("there put {path} theirs {}", self.serial));
                self.given_up.extend(self.seen_there(path));
                self.m.drive.put(&at, body).expect("put");
            }
            4 | 5 if self.m.drive.exists(&at) && !self.m.drive.exists(&to) => {
                let parent = to.rsplit_once('/').map_or("", |(folder, _)| folder);
                if !parent.is_empty() && !self.m.drive.exists(parent) {
                    self.m.drive.mkdir(parent).expect("mkdir");
                }
                self.say(format!("there rename {path} {other}"));
                self.m.drive.rename(&at, &to).expect("rename");
            }
            6 if self.m.drive.exists(&at) => {
                self.say(format!("there delete {path}"));
                self.given_up.extend(self.seen_there(path));
                self.m.drive.delete(&at).expect("delete");
            }
            7 => {
                let folder = self.random.pick(FOLDERS);
                let at = format!("/{folder}");
                if self.m.drive.exists(&at) && self.random.below(3) == 0 {
                    self.say(format!("there delete {folder}"));
                    for name in self.m.there() {
                        if name.starts_with(&format!("{at}/")) {
                            let seen = self.seen_there(&name[1..]);
                            self.given_up.extend(seen);
                        }
                    }
                    self.m.drive.delete(&at).expect("delete");
                }
            }
            _ => {}
        }
    }

    fn misfortune(&mut self) {
        let op = self.random.pick(FAULTS);
        let action = match self.random.below(5) {
            0 => FaultAction::DropBefore,
            1 => FaultAction::DropAfter,
            2 => FaultAction::status(500),
            3 => FaultAction::retry_after(429, "0"),
            _ => FaultAction::Delay { ms: 80 },
        };
        self.say(format!("fault {op} {action:?}"));
        self.m.sim.faults().add(FaultRule::on(op, action).times(1));
    }

    async fn tree_here(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let ino = self.m.ino(&folder);
            let children = self.m.engine.store.read(|r| r.children(ino));
            for child in children.expect("children") {
                let path = format!("{folder}/{}", child.name);
                if child.is_dir() {
                    found.insert(path.clone(), None);
                    folders.push(path);
                } else {
                    let body = self.m.read(&path).await;
                    found.insert(path, Some(body));
                }
            }
        }
        found
    }

    /// The files that once had a content.
    fn replaced_in(&self, hash: &str) -> Vec<String> {
        let had = |path: &String| {
            self.m.drive.versions(path).iter().any(|version| {
                let body = self.m.drive.version_body(path, &version.id);
                let body = body.and_then(|body| body.read(0, 10_000).ok());
                body.is_some_and(|body| QuickXorHash::of(&body).to_string() == hash)
            })
        };
        self.m.there().into_iter().filter(had).collect()
    }

    /// All requests that changed something.
    fn requests(&self) -> String {
        let mut lines = String::new();
        for r in self.m.sim.requests().since(0) {
            if r.method != "GET" {
                let status = r.status.load(Ordering::Relaxed);
                let line = format!(
                    "{} {} {} {:?} {status}\n",
                    r.number, r.op, r.path, r.if_match
                );
                lines.push_str(&line);
            }
        }
        lines
    }

    async fn check(&self, seed: u64) {
        let here = self.tree_here().await;
        let there: BTreeMap<_, _> = self
            .m
            .there()
            .into_iter()
            .map(|path| {
                let body = self.m.drive.read(&path);
                (path, body)
            })
            .collect();
        let brief = |tree: &BTreeMap<String, Option<Vec<u8>>>| -> Vec<String> {
            let text = |b: &Vec<u8>| String::from_utf8_lossy(b).trim_end_matches('x').to_owned();
            tree.iter()
                .map(|(path, body)| format!("{path}: {:?}", body.as_ref().map(text)))
                .collect()
        };
        let log = self.log.join("\n");
        assert_eq!(brief(&here), brief(&there), "seed {seed}\n{log}");
        let alive: BTreeSet<String> = there
            .values()
            .flatten()
            .map(|body| QuickXorHash::of(body).to_string())
            .collect();
        for hash in self.saved.keys() {
            assert!(
                alive.contains(hash) || self.given_up.contains(hash),
                "seed {seed}: {:?} is lost; {:?}; there is {:#?}\n{log}\n{}",
                self.label(hash),
                self.replaced_in(hash),
                brief(&there),
                self.requests(),
            );
        }
        let status = self.m.engine.status().expect("status");
        assert!(
            status.parked.is_empty(),
            "seed {seed}: {:?}\n{log}",
            status.parked
        );
    }
}

async fn run(seed: u64) {
    let mut chaos = Chaos {
        m: Mount::new().await,
        random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        saved: BTreeMap::new(),
        given_up: BTreeSet::new(),
        serial: 0,
        log: Vec::new(),
    };
    for _ in 0..STEPS {
        match chaos.random.below(8) {
            0..=3 => chaos.step_here().await,
            4 | 5 => chaos.step_there(),
            6 => chaos.misfortune(),
            _ => chaos.m.engine.wake_freshness(),
        }
        let pause = chaos.random.below(70) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    chaos.m.sim.faults().clear();
    // A session whose address was lost holds its name for a quarter of an hour.
    chaos.m.sim.expire_sessions();
    chaos.m.sync().await;
    chaos.m.sync().await;
    chaos.check(seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_agree_in_the_end_and_nothing_is_lost() {
    let seeds = match std::env::var("CHAOS_SEED") {
        Ok(seed) => {
            let (first, last) = seed.split_once('-').unwrap_or((&seed, &seed));
            first.parse().expect("a number")..last.parse::<u64>().expect("a number") + 1
        }
        Err(_) => 1..17,
    };
    // More at a time would only make requests wait for each other.
    let turns = Arc::new(Semaphore::new(16));
    let begin = |seed| {
        let turns = Arc::clone(&turns);
        tokio::spawn(async move {
            let _turn = turns.acquire().await;
            run(seed).await;
        })
    };
    let runs: Vec<_> = seeds.map(begin).collect();
    let mut failed = Vec::new();
    for (index, run) in runs.into_iter().enumerate() {
        if run.await.is_err() {
            failed.push(index);
        }
    }
    assert!(failed.is_empty(), "the runs {failed:?} failed");
}
