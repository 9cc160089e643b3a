//! All state of one simulator, shared by its listeners, its routes and the scripts that steer it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::actor::Actor;
use crate::body::mix;
use crate::clock::Clock;
use crate::config::{ClientSpec, DriveKind, DriveSpec, Knobs, SimConfig};
use crate::copy::Monitor;
use crate::drive::{Drive, Idx, Tree};
use crate::faults::{FaultAction, FaultPlan};
use crate::identity::Identity;
use crate::ids;
use crate::net::{NetState, Reach, Speed};
use crate::request_log::RequestLog;
use crate::throttle::Bucket;
use crate::uploads::Sessions;

/// Addresses of the listeners.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    pub(crate) api: String,
    pub(crate) content: String,
    pub(crate) control: String,
}

pub(crate) struct World {
    pub(crate) config: SimConfig,
    pub(crate) clock: Clock,
    pub(crate) knobs: RwLock<Knobs>,
    pub(crate) drives: RwLock<Vec<Arc<Drive>>>,
    pub(crate) clients: RwLock<Vec<ClientSpec>>,
    pub(crate) identity: Mutex<Identity>,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) monitors: Mutex<HashMap<String, Monitor>>,
    pub(crate) faults: FaultPlan,
    pub(crate) log: RequestLog,
    pub(crate) throttle: Mutex<Bucket>,
    pub(crate) net: watch::Sender<NetState>,
    pub(crate) urls: OnceLock<Urls>,
    /// Raised to make all download URLs stale.
    pub(crate) url_epoch: AtomicU32,
    /// Raised to close all push channels.
    pub(crate) sockets: watch::Sender<u64>,
    /// How fast bytes go, also on open connections.
    pub(crate) speed: Arc<Speed>,
    key: u64,
}

/// What a download URL grants.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) drive: String,
    pub(crate) idx: Idx,
    /// A certain version, or 0 for the newest content.
    pub(crate) version: u32,
}

impl World {
    pub(crate) fn new(config: SimConfig) -> Arc<World> {
        let world = World {
            clock: Clock::default(),
            knobs: RwLock::new(config.knobs.clone()),
            drives: RwLock::new(Vec::new()),
            clients: RwLock::new(config.clients.clone()),
            identity: Mutex::new(Identity::default()),
            sessions: Mutex::new(Sessions::default()),
            monitors: Mutex::new(HashMap::new()),
            faults: FaultPlan::default(),
            log: RequestLog::default(),
            throttle: Mutex::new(Bucket::default()),
            net: watch::Sender::new(NetState::default()),
            urls: OnceLock::new(),
            url_epoch: AtomicU32::new(1),
            sockets: watch::Sender::new(0),
            speed: Arc::default(),
            key: rand::random(),
            config,
        };
        let knobs = &world.config.knobs;
        world.speed.set(knobs.bandwidth, knobs.line_bandwidth);
        for spec in &world.config.drives {
            world.add_drive(spec.clone());
        }
        Arc::new(world)
    }

    pub(crate) fn add_drive(&self, mut spec: DriveSpec) -> Arc<Drive> {
        let mut drives = self.drives.write();
        if spec.id.is_empty() {
            spec.id = ids::drive_id(spec.kind, drives.len());
        }
        let owner = Actor::person(self, &spec.owner);
        let tree = Tree::new(&spec, owner, ids::drive_key(&spec.id), self.now());
        let drive = Arc::new(Drive {
            spec,
            tree: Mutex::new(tree),
            changed: watch::Sender::new(0),
        });
        drives.push(drive.clone());
        drive
    }

    /// Changes the behaviour, and what is derived from it.
    pub(crate) fn set_knobs(&self, knobs: Knobs) {
        let ae_rule = knobs.ae_rule;
        self.speed.set(knobs.bandwidth, knobs.line_bandwidth);
        *self.knobs.write() = knobs;
        for drive in self.all_drives() {
            drive.tree.lock().set_ae_rule(ae_rule);
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn urls(&self) -> Urls {
        self.urls.get().cloned().unwrap_or_else(|| Urls {
            api: String::new(),
            content: String::new(),
            control: String::new(),
        })
    }

    /// All drives, without holding the list while their trees are locked.
    pub(crate) fn all_drives(&self) -> Vec<Arc<Drive>> {
        self.drives.read().clone()
    }

    /// Finds a drive by id; personal ids in any case and without leading zeros.
    pub(crate) fn drive(&self, id: &str) -> Option<Arc<Drive>> {
        let plain = |id: &str| id.trim_start_matches('0').to_ascii_lowercase();
        let drives = self.drives.read();
        let same = |drive: &&Arc<Drive>| match drive.spec.kind {
            DriveKind::Personal => plain(&drive.spec.id) == plain(id),
            _ => drive.spec.id == id,
        };
        drives.iter().find(same).cloned()
    }

    pub(crate) fn drives_of(&self, user: &str) -> Vec<Arc<Drive>> {
        self.drives
            .read()
            .iter()
            .filter(|d| d.spec.owner == user)
            .cloned()
            .collect()
    }

    /// Tells push channels that a drive has changed.
    pub(crate) fn announce(&self, drive: &Drive) {
        let seq = drive.tree.lock().seq;
        drive.changed.send_replace(seq);
    }

    /// A URL that needs no sign-in, as byte-for-byte valid as the service's.
    pub(crate) fn download_url(&self, drive: &str, idx: Idx, version: u32) -> String {
        let expires = self.now() + self.knobs.read().download_ttl_s * 1000;
        let epoch = self.url_epoch.load(Ordering::Relaxed);
        let text = format!("{epoch};{expires};{version};{idx};{drive}");
        let seal = self.seal(&text);
        let token = URL_SAFE_NO_PAD.encode(format!("{seal:016x};{text}"));
        let content = self.urls().content;
        format!("{content}/download.aspx?UniqueId={seal:016x}&Translate=false&tempauth=v1.{token}")
    }

    /// What a download URL's query grants now, or the status that refuses it.
    pub(crate) fn grant(&self, query: &str) -> Result<Grant, u16> {
        let (head, token) = query.split_once("&tempauth=v1.").ok_or(401u16)?;
        let plain = URL_SAFE_NO_PAD.decode(token).map_err(|_| 401u16)?;
        let plain = String::from_utf8(plain).map_err(|_| 401u16)?;
        let (seal, text) = plain.split_once(';').ok_or(401u16)?;
        let genuine = head == format!("UniqueId={seal}&Translate=false")
            && format!("{:016x}", self.seal(text)) == seal;
        if !genuine {
            return Err(401);
        }
        let mut parts = text.splitn(5, ';');
        let mut number = || {
            parts
                .next()
                .and_then(|p| p.parse::<i64>().ok())
                .unwrap_or(-1)
        };
        let (epoch, expires, version, idx) = (number(), number(), number(), number());
        let stale = epoch != i64::from(self.url_epoch.load(Ordering::Relaxed));
        if stale || expires < self.now() {
            return Err(401);
        }
        Ok(Grant {
            drive: parts.next().unwrap_or_default().to_owned(),
            idx: Idx::try_from(idx).map_err(|_| 404u16)?,
            version: u32::try_from(version).unwrap_or(0),
        })
    }

    /// The credential of a push channel.
    pub(crate) fn push_token(&self, drive: &str, expires: i64) -> String {
        let text = format!("{expires};{drive}");
        let seal = self.seal(&text);
        URL_SAFE_NO_PAD.encode(format!("{seal:016x};{text}"))
    }

    /// The drive that such a credential is for, and when it ends.
    pub(crate) fn push_grant(&self, token: &str) -> Option<(String, i64)> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (seal, text) = plain.split_once(';')?;
        let (expires, drive) = text.split_once(';')?;
        let genuine = format!("{:016x}", self.seal(text)) == seal;
        genuine.then_some((drive.to_owned(), expires.parse().ok()?))
    }

    /// Whether push channels say nothing.
    pub(crate) fn is_silent(&self) -> bool {
        self.knobs.read().socket_silent || self.net.borrow().reach == Reach::BlackHole
    }

    fn seal(&self, text: &str) -> u64 {
        text.bytes()
            .fold(self.key, |seal, byte| mix(seal ^ u64::from(byte)))
    }

    pub(crate) fn expire_urls(&self) {
        self.url_epoch.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn expire_delta(&self) {
        for drive in self.all_drives() {
            drive.tree.lock().epoch += 1;
        }
    }

    pub(crate) fn expire(&self, action: &FaultAction) {
        match action {
            FaultAction::ExpireTokens => self.identity.lock().expire_access(),
            FaultAction::ExpireUrls => self.expire_urls(),
            FaultAction::ExpireSessions => self.sessions.lock().expire_all(),
            FaultAction::ExpireDelta => self.expire_delta(),
            _ => {}
        }
    }
}
