//! Bodies of files on this machine: which bytes are here, and where they lie.
//!
//! A file of a drive is rarely here as a whole. Its *body* is a sparse file with a set of ranges
//! that are present; the rest comes from the service when somebody reads it. Bodies that the
//! service has as well lie in the content cache, which may be wiped at any time; bodies that it
//! has not are the *spool* and are nobody's to delete. Writing must go on while an upload reads a
//! consistent version, so a [`Snapshot`] keeps what a writer is about to overwrite.
//!
//! Nothing here knows about the network or about SQL: the caller stores [`Presence`] and says
//! which bytes are to be filled in.

mod body;
mod error;
mod fileops;
mod layout;
mod lease;
mod outside;
mod presence;
mod ranges;
mod relocate;
mod snapshot;
mod state;
mod store;
#[cfg(test)]
mod tests;

pub use body::{Body, Written, is_missing};
pub use error::ContentError;
pub use presence::{BodyId, Place, Presence};
pub use rangemap::RangeSet;
pub use snapshot::Snapshot;
pub use store::{Content, StoredBody};
