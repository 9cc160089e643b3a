//! The simulator's own promises, checked over real HTTP without any of the client's code.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on should stop"
)]

mod client;
mod contract_delta;
mod contract_files;
mod contract_identity;
mod contract_tenants;
mod contract_uploads;
mod faults;
mod push;
mod scale;
mod sharing;
