//! Clients of OneDrive cannot be tested against OneDrive: it is slow, throttled, needs an account
//! and never fails when it should. This crate plays the service instead — the identity platform
//! and Graph's file API, over real HTTP on loopback — with the service's own rules and quirks, and
//! with faults, offline times and foreign changes on demand.
//!
//! It shares no code with the client: a misunderstanding must not be able to hide on both sides.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use onedrivefs_sim::{SimConfig, Simulator};
//!
//! let sim = Simulator::start(SimConfig::default()).await?;
//! let drive = sim.default_drive();
//! drive.put("/Documents/hello.txt", "hello world").map_err(std::io::Error::other)?;
//! println!("{} {}", sim.graph_url(), sim.access_token());
//! # Ok(()) }
//! ```
//!
//! Everything that can be scripted from Rust can also be scripted over HTTP below `/_sim/` (see
//! [`control_help`]), on a port of its own that stays reachable while the service plays dead.

mod access;
mod actor;
mod batch;
mod body;
mod changes;
mod clock;
mod clouds;
mod config;
mod control;
mod copy;
mod delta_log;
mod dispatch;
mod download;
mod drive;
mod error;
mod faults;
mod grants;
mod handle;
mod identity;
mod ids;
mod item_json;
mod items;
mod mutate;
mod names;
mod net;
mod png;
mod push;
mod quickxor;
mod request;
mod request_log;
mod route;
pub mod sample;
mod scopes;
mod search;
mod server;
mod sharing;
mod sign_in;
mod simulator;
mod spool;
mod target;
mod teams;
mod tenancy;
mod throttle;
mod uploads;
mod versions;
mod world;

pub use body::FileBody;
pub use config::{
    Audience, ChannelSpec, ClientSpec, DeviceOutcome, DriveKind, DriveSpec, GroupSpec, Knobs,
    SimConfig, SiteSpec, SubfolderDelta, TenantSpec, UserSpec,
};
pub use control::control_help;
pub use faults::{BodyForm, FaultAction, FaultPlan, FaultRule, FaultState};
pub use handle::{DriveHandle, Entry, SimError, VersionEntry};
pub use net::Reach;
pub use request_log::{Record, RequestLog};
pub use sharing::SharedList;
pub use simulator::Simulator;
