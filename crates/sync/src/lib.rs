//! When and in which order things happen between the state on this machine and the service.
//!
//! [`Engine`] owns one drive: it fetches rounds of changes and applies them ([`apply`], with the
//! pure decisions in [`merge`]), sends what the journal holds (the uploader, with the pure rule for
//! folding in [`fold`]), downloads the ranges that readers ask for ([`hydrate`]) and keeps the
//! content cache within its limits.

mod announce;
pub mod apply;
mod authorship;
pub mod bodies;
mod brake;
mod change;
mod config;
mod conflict_name;
mod delta;
mod durable;
mod engine;
mod enumerate;
mod error;
mod event;
mod evict;
mod export;
mod family;
pub mod fold;
mod free;
mod freshness;
pub mod hydrate;
pub mod journal;
mod links;
pub mod merge;
mod net_state;
mod parked;
mod past;
mod pins;
mod power;
mod presence;
mod push;
mod recent;
mod recover;
mod rescue;
mod reserve;
mod resume;
mod rights;
mod scope;
mod status;
mod take_over;
mod transfers;
mod uploader;
mod wait;
mod waiters;
mod walk;

pub use announce::Announcement;
pub use authorship::Oneself;
pub use brake::{BrakeLimits, Held, SHARE_MIN};
pub use change::KernelChange;
pub use config::{DriveIdentity, EngineConfig};
pub use engine::{Engine, Foreseer, KernelListener, OpenFiles};
pub use error::EngineError;
pub use event::{Event, EventListener};
pub use family::{Company, Family, Stir};
pub use free::{Freed, Stays};
pub use net_state::{Net, NetState};
pub use pins::{Kept, PinOutcome, PinTrouble, Pinned, PinnedBy, PinsStatus, ToFetch};
pub use rescue::Rescue;
pub use status::{
    CacheStatus, Conflict, Details, DriveStatus, Failing, FileState, FollowedStatus, Parked,
    PathStatus, Pending, QuotaStatus, State, Status, TransferStatus,
};
pub use uploader::{heir_of, source_of};
pub use wait::SyncOutcome;
pub use waiters::{Waiter, Waiters};
