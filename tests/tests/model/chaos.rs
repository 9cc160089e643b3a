//! What goes wrong on the way to the service, and on the service.

use std::fs;
use std::path::Path;
use std::time::Duration;

use onedrivefs_sim::{BodyForm, FaultAction, FaultRule, Reach};
use onedrivefs_tests::Service;

use crate::counts;
use crate::rng::Rng;

/// Operations of the service that are hit by name.
const OPERATIONS: &[&str] = &[
    "delta",
    "children",
    "item",
    "create_session",
    "upload_fragment",
    "upload_status",
    "upload_cancel",
    "put_content",
    "patch",
    "delete",
    "mkdir",
    "content",
    "download",
    "token",
];

/// Operations whose answers are bodies of files. Only these are corrupted: for everything else
/// TLS stands.
const BODIES: &[&str] = &["content", "download"];

/// What lapses right before a request in the middle of which it hurts, and those requests.
const LAPSES: &[(FaultAction, &[&str])] = &[
    (
        FaultAction::ExpireTokens,
        &["patch", "mkdir", "delete", "create_session", "put_content"],
    ),
    (FaultAction::ExpireUrls, &["download"]),
    (
        FaultAction::ExpireSessions,
        &["upload_fragment", "upload_status"],
    ),
    (FaultAction::ExpireDelta, &["delta"]),
];

/// Outer and inner code with which the service declares a delta link void: "take what the service
/// has", "send what it does not have", the documentation's names of both, and no reason at all.
const GONE_CODES: &[(&str, &str)] = &[
    ("resyncRequired", "resyncApplyDifferences"),
    ("resyncRequired", "resyncUploadDifferences"),
    ("resyncChangesApplyDifferences", ""),
    ("resyncChangesUploadDifferences", ""),
    ("syncStateNotFound", ""),
];

/// Breaks things on a service.
pub struct Chaos<'s> {
    service: &'s Service,
    rng: Rng,
    reach: Reach,
    /// Whether bodies are corrupted on their way here.
    corrupts: bool,
    /// Whether connections may be waiting for an answer that never comes.
    stalled: bool,
}

impl<'s> Chaos<'s> {
    /// For a history. With `faults`, the service is also in one of its moods: how it cuts and
    /// orders its pages of changes, and how it says that a delta link is void.
    pub fn new(service: &'s Service, seed: u64, faults: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0xc4a0_5c4a_05c4_a05c);
        if faults {
            service.set_knobs(|knobs| {
                knobs.delta_page_size = *rng.pick(&[2, 5, 200]);
                knobs.delta_repeats = rng.percent(30);
                knobs.delta_child_first = rng.percent(30);
                knobs.delta_empty_page = rng.percent(30);
                knobs.delta_bare_tombstones = rng.percent(30);
                let (outer, inner) = rng.pick(GONE_CODES);
                knobs.delta_gone_code = (*outer).to_owned();
                knobs.delta_gone_inner = (*inner).to_owned();
            });
        }
        Self {
            service,
            rng,
            reach: Reach::Online,
            corrupts: corrupts(seed),
            stalled: false,
        }
    }

    /// Perhaps lets something go wrong.
    pub fn strike(&mut self) -> Option<String> {
        if self.reach != Reach::Online && self.rng.percent(40) {
            self.set_reach(Reach::Online);
            return Some("online again".into());
        }
        if !self.rng.percent(25) {
            return None;
        }
        let what = match self.rng.below(22) {
            0 => self.once("expired tokens", |s| s.expire_tokens()),
            1 => self.once("expired download URLs", |s| s.expire_urls()),
            2 => self.once("expired upload sessions", |s| s.expire_sessions()),
            3 => self.once("expired delta links", |s| s.expire_delta()),
            4 => {
                let reach = if self.rng.percent(60) {
                    Reach::Offline
                } else {
                    Reach::BlackHole
                };
                self.set_reach(reach);
                format!("{reach:?}")
            }
            5 => {
                let ms = self.rng.below(200);
                std::thread::sleep(Duration::from_millis(ms));
                "a pause".into()
            }
            6..=7 => self.add_lapse(),
            _ => self.add_rule(),
        };
        Some(what)
    }

    /// Lets things go wrong for a while in which programs do nothing and the daemon sends. Returns
    /// what did.
    pub fn while_sending(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..self.rng.below(12) {
            told.extend(self.strike());
            std::thread::sleep(Duration::from_millis(self.rng.below(200)));
        }
        told
    }

    fn once(&mut self, what: &str, act: fn(&Service)) -> String {
        act(self.service);
        counts::add(&format!("fault: {what}"), 1);
        what.to_owned()
    }

    fn set_reach(&mut self, reach: Reach) {
        self.service.set_reach(reach);
        self.reach = reach;
        match reach {
            Reach::Online => {}
            Reach::Offline => counts::add("fault: offline", 1),
            Reach::BlackHole => counts::add("fault: black hole", 1),
        }
    }

    /// Lets something lapse right before a request that needs it.
    fn add_lapse(&mut self) -> String {
        let (action, ops) = self.rng.pick(LAPSES);
        let op = *self.rng.pick(ops);
        let skip = self.rng.below(4);
        let rule = FaultRule::on(op, action.clone()).after(skip).times(1);
        let told = format!("{op} {action:?}, after {skip}");
        self.service.faults().add(rule);
        told
    }

    fn add_rule(&mut self) -> String {
        let (action, bodies_only) = self.action();
        let op = if bodies_only {
            Some(*self.rng.pick(BODIES))
        } else if self.rng.percent(15) {
            None
        } else {
            Some(*self.rng.pick(OPERATIONS))
        };
        if matches!(action, FaultAction::Stall | FaultAction::StallBody { .. }) {
            self.stalled = true;
        }
        let rule = FaultRule {
            op: op.map(str::to_owned),
            skip: self.rng.below(3),
            count: Some(1 + self.rng.below(2)),
            action,
            ..FaultRule::default()
        };
        let told = format!("{op:?} {:?}", rule.action);
        self.service.faults().add(rule);
        told
    }

    fn action(&mut self) -> (FaultAction, bool) {
        let plain = |action| (action, false);
        match self.rng.below(13) {
            0 => plain(FaultAction::retry_after(429, "1")),
            1 => plain(FaultAction::status(429)),
            2..=3 => plain(self.server_error()),
            4 => plain(FaultAction::DropBefore),
            5..=7 => plain(FaultAction::DropAfter),
            8 => plain(FaultAction::Truncate {
                bytes: self.rng.below(600),
            }),
            9 if self.corrupts => (
                FaultAction::Corrupt {
                    offset: self.rng.below(2000),
                },
                true,
            ),
            10 => plain(FaultAction::Stall),
            11 => plain(FaultAction::StallBody {
                bytes: self.rng.below(600),
            }),
            _ => plain(FaultAction::Delay {
                ms: self.rng.below(300),
            }),
        }
    }

    fn server_error(&mut self) -> FaultAction {
        let status = *self.rng.pick(&[500, 502, 503, 504]);
        let effect = self.rng.percent(50);
        let html = self.rng.percent(30);
        match FaultAction::status(status) {
            FaultAction::Status {
                status,
                code,
                inner,
                retry_after,
                body,
                ..
            } => FaultAction::Status {
                status,
                code,
                inner,
                retry_after,
                form: if html { BodyForm::Html } else { BodyForm::Json },
                body,
                after_effect: effect,
            },
            other => other,
        }
    }

    /// Ends everything that goes wrong, and counts what did.
    pub fn end(&mut self) {
        for state in self.service.faults().list() {
            counts::add(
                &format!("fault: {}", name_of(&state.rule.action)),
                state.hits,
            );
        }
        self.service.faults().clear();
        if self.stalled || self.reach != Reach::Online {
            // Ends the connections on which nothing will ever come.
            self.service.set_reach(Reach::Offline);
            self.stalled = false;
        }
        self.service.set_reach(Reach::Online);
        self.reach = Reach::Online;
    }
}

fn name_of(action: &FaultAction) -> String {
    match action {
        FaultAction::Status {
            status,
            retry_after,
            after_effect,
            ..
        } => format!(
            "status {status}{}{}",
            if retry_after.is_some() {
                " with Retry-After"
            } else {
                ""
            },
            if *after_effect {
                " after taking effect"
            } else {
                ""
            }
        ),
        FaultAction::DropBefore => "dropped before taking effect".into(),
        FaultAction::DropAfter => "dropped after taking effect".into(),
        FaultAction::Truncate { .. } => "truncated".into(),
        FaultAction::Corrupt { .. } => "corrupted".into(),
        FaultAction::Stall | FaultAction::StallBody { .. } => "stalled".into(),
        FaultAction::Delay { .. } => "delayed".into(),
        other => format!("{other:?}"),
    }
}

/// Throws the content cache away, which may happen at any time.
pub fn wipe_cache(cache: &Path) {
    counts::add("caches wiped", 1);
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        // The daemon may be putting something there at the same moment.
        drop(fs::remove_dir_all(entry.path()));
    }
}

/// Tells whether the bodies of a history are corrupted on their way here. What was corrupted is
/// noticed by the hash of the whole file, which a file has no more once it was changed in place
/// while parts of it were missing; there, TLS stands alone.
pub fn corrupts(seed: u64) -> bool {
    seed.is_multiple_of(3)
}
