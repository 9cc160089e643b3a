//! Tests of the client over real HTTP: against the simulator, and against small servers that
//! answer in ways no simulator of a working service should.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod auth;
mod browser;
mod items;
mod odd;
mod push;
mod secrets;
mod support;
mod throttle;
mod tls;
mod transfer;
