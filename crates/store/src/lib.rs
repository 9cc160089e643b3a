//! What onedrivefs knows, kept in SQLite: items, bodies, the journal and the delta cursor.
//!
//! This crate holds the only SQL of the project. It offers rows and transactions, and decides
//! nothing: what a change means is the business of the layers above. Reads run on a pool of
//! read-only connections; writes are closures that run one at a time on the single write
//! connection, so that a change and its journal row are always one transaction.

mod body;
mod checkpoint;
mod db;
mod error;
mod files;
mod item;
mod journal;
mod link;
mod listing;
mod pin;
mod salvage;
mod schema;
mod slot;
mod stage;
mod unanswered;
mod watch;
mod xattr;

pub use body::{BodyRow, Durable, Place, decode_ranges, encode_ranges};
pub use db::{Reader, Store, Tx};
pub use error::StoreError;
pub use files::{DAMAGE_MARK, FILES as DATABASE_FILES};
pub use item::{Author, Item, Kind, Remote, Role};
pub use journal::{JournalRow, Ops, RemoteCopy, Session};
pub use listing::{Figures, Visit};
pub use pin::{KeptBody, KeptItem};
pub use salvage::{Salvaged, SalvagedBody, SalvagedItem};
pub use slot::{Slot, SlotState, WhichFolder, has_work, which_folder};
pub use stage::ConflictRow;
pub use unanswered::Unanswered;
