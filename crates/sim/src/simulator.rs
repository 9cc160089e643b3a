//! Starting and stopping, and the handle by which a test in the same process scripts the service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::clock::iso;
use crate::config::{ClientSpec, DriveSpec, Knobs, SimConfig};
use crate::faults::FaultPlan;
use crate::handle::DriveHandle;
use crate::identity;
use crate::net::{NetState, Reach};
use crate::request_log::RequestLog;
use crate::server::{self, API_ADDRESS, Host};
use crate::world::{Urls, World};

/// A running simulator. Dropping it stops it.
pub struct Simulator {
    pub(crate) world: Arc<World>,
    addresses: [SocketAddr; 2],
    tasks: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Binds the hosts on loopback and starts to serve.
    pub async fn start(config: SimConfig) -> io::Result<Simulator> {
        let content_address = config.content_address;
        if !content_address.is_loopback() {
            return Err(io::Error::other("the simulator serves on loopback only"));
        }
        let api = server::bind(API_ADDRESS, config.port).await?;
        let content = server::bind(content_address, config.content_port).await?;
        let control = server::bind(API_ADDRESS, config.control_port).await?;
        let addresses = [api.local_addr()?, content.local_addr()?];
        let (public_api, public_content) =
            (config.public_api.clone(), config.public_content.clone());
        let world = World::new(config);
        let url = |listener: &tokio::net::TcpListener| {
            listener
                .local_addr()
                .map(|address| format!("http://{address}"))
        };
        let urls = Urls {
            api: public_api.map_or_else(|| url(&api), Ok)?,
            content: public_content.map_or_else(|| url(&content), Ok)?,
            control: url(&control)?,
        };
        world.urls.get_or_init(|| urls);
        let hosts = [
            (Host::Api, api),
            (Host::Content, content),
            (Host::Control, control),
        ];
        let tasks = hosts
            .into_iter()
            .map(|(host, listener)| tokio::spawn(server::run(world.clone(), host, listener)))
            .collect();
        Ok(Simulator {
            world,
            addresses,
            tasks,
        })
    }

    /// Where the login and Graph host listens, and where the content host does.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Root of the file API.
    pub fn graph_url(&self) -> String {
        format!("{}/v1.0", self.world.urls().api)
    }

    /// Login host.
    pub fn login_url(&self) -> String {
        self.world.urls().api
    }

    /// Host of pre-authenticated URLs.
    pub fn content_url(&self) -> String {
        self.world.urls().content
    }

    /// Host of the control interface; paths begin with `/_sim/`.
    pub fn control_url(&self) -> String {
        self.world.urls().control
    }

    /// Stops serving and closes all connections.
    pub async fn shutdown(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            let _ = task.await;
        }
    }

    /// The first drive.
    pub fn default_drive(&self) -> DriveHandle {
        let drives = self.world.drives.read();
        match drives.first() {
            Some(drive) => DriveHandle::new(self.world.clone(), drive.clone()),
            None => {
                drop(drives);
                let drive = self.world.add_drive(DriveSpec::default());
                DriveHandle::new(self.world.clone(), drive)
            }
        }
    }

    /// A drive by id.
    pub fn drive(&self, id: &str) -> Option<DriveHandle> {
        Some(DriveHandle::new(self.world.clone(), self.world.drive(id)?))
    }

    /// All drives.
    pub fn drives(&self) -> Vec<DriveHandle> {
        let drives = self.world.drives.read();
        drives
            .iter()
            .map(|d| DriveHandle::new(self.world.clone(), d.clone()))
            .collect()
    }

    /// Adds a drive while running.
    pub fn add_drive(&self, spec: DriveSpec) -> DriveHandle {
        let drive = self.world.add_drive(spec);
        DriveHandle::new(self.world.clone(), drive)
    }

    /// An access token of the first user, without any sign-in.
    pub fn access_token(&self) -> String {
        let user = self.world.config.users.first().map(|u| u.id.clone());
        identity::mint(&self.world, user, true)
    }

    /// An access token of a certain user.
    pub fn access_token_of(&self, user: &str) -> String {
        identity::mint(&self.world, Some(user.to_owned()), true)
    }

    /// An app-only access token, with or without granted application permissions.
    pub fn app_token(&self, roles: bool) -> String {
        identity::mint(&self.world, None, roles)
    }

    /// Tokens of the first user as the token endpoint would return them.
    pub fn token_response(&self, client_id: &str) -> Value {
        let user = self
            .world
            .config
            .users
            .first()
            .map_or("user-1", |u| u.id.as_str());
        let scope = "Files.ReadWrite.All";
        let refresh = identity::mint_refresh(&self.world, user, client_id, scope);
        let ttl = self.world.knobs.read().token_ttl_s;
        json!({
            "token_type": "Bearer",
            "scope": scope,
            "expires_in": ttl,
            "access_token": self.access_token_of(user),
            "refresh_token": refresh,
            "expiry": iso(self.world.now() + ttl * 1000),
        })
    }

    /// The rules that spoil requests.
    pub fn faults(&self) -> &FaultPlan {
        &self.world.faults
    }

    /// What was asked of the service.
    pub fn requests(&self) -> &RequestLog {
        &self.world.log
    }

    /// The behaviour in force.
    pub fn knobs(&self) -> Knobs {
        self.world.knobs.read().clone()
    }

    /// Changes the behaviour.
    pub fn set_knobs(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = self.knobs();
        change(&mut knobs);
        self.world.set_knobs(knobs);
    }

    /// Changes an app registration.
    pub fn set_client(&self, id: &str, change: impl FnOnce(&mut ClientSpec)) {
        let mut clients = self.world.clients.write();
        if let Some(client) = clients.iter_mut().find(|client| client.id == id) {
            change(client);
        }
    }

    /// Takes the API and content hosts off the network, or puts them back.
    pub fn set_reach(&self, reach: Reach) {
        set_reach(&self.world, reach);
    }

    /// Moves the service's clock back.
    pub fn set_back(&self, by: Duration) {
        self.world.clock.set_back(by);
    }

    /// Moves the service's clock forward.
    pub fn advance(&self, by: Duration) {
        self.world.clock.advance(by);
    }

    /// Lets all access tokens expire.
    pub fn expire_tokens(&self) {
        self.world.identity.lock().expire_access();
    }

    /// Revokes all refresh tokens.
    pub fn revoke_refresh_tokens(&self) {
        self.world.identity.lock().revoke_refresh();
    }

    /// Approves or declines all open device codes; how many there were.
    pub fn answer_device_codes(&self, approve: bool) -> usize {
        self.world.identity.lock().answer_devices(approve)
    }

    /// Lets all download URLs expire.
    pub fn expire_urls(&self) {
        self.world.url_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends all upload sessions.
    pub fn expire_sessions(&self) {
        self.world.sessions.lock().expire_all();
    }

    /// Makes all delta links stale.
    pub fn expire_delta(&self) {
        self.world.expire_delta();
    }

    /// Closes all push channels.
    pub fn close_sockets(&self) {
        self.world.sockets.send_modify(|n| *n += 1);
    }

    /// Open upload sessions with the bytes that have arrived.
    pub fn sessions(&self) -> Value {
        sessions(&self.world)
    }

    /// The monitors of copies, with the names that are made and whether they are.
    pub fn monitors(&self) -> Value {
        crate::copy::list(&self.world)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub(crate) fn set_reach(world: &World, reach: Reach) {
    world.net.send_modify(|state| {
        *state = NetState {
            reach,
            generation: state.generation + 1,
        };
    });
}

pub(crate) fn sessions(world: &World) -> Value {
    let sessions = world.sessions.lock();
    let rows = sessions.open.values().map(|entry| {
        json!({
            "drive": entry.drive_id,
            "parent": entry.parent,
            "name": entry.name,
            "received": entry.received,
            "total": entry.total,
            "expires": iso(entry.expires_ms),
        })
    });
    Value::Array(rows.collect())
}
