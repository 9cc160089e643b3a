//! The nouns every other crate speaks: identifiers, items, names, times, hashes and byte ranges.
//!
//! Nothing here does I/O or knows about threads. Each identifier of the service has a type of its
//! own, so that an item that has not reached the service cannot be sent by mistake and two ids of
//! different kinds cannot be swapped.

pub mod hash;
pub mod id;
pub mod item;
pub mod kill_point;
pub mod local_only;
pub mod name;
pub mod range;
pub mod time;

pub use hash::{HashAccumulator, QuickXorHash};
pub use id::{CTag, DriveId, ETag, Ino, ItemId};
pub use item::{
    DriveKind, ItemKind, LinkTarget, Party, Provenance, Quota, RemoteItem, ShortcutTarget,
};
pub use kill_point::kill_point;
pub use name::{NameError, NameKey};
pub use range::{ByteRange, align_down, align_up};
pub use secrecy::{ExposeSecret, SecretString};
pub use time::Timestamp;
