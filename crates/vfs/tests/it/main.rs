//! The file system over a real engine and a simulated service, without a kernel: what programs do
//! here while others do something there, and while requests fail at bad moments.

#![expect(clippy::expect_used, reason = "helpers of tests fail tests")]

mod chaos;
mod fixture;
mod heirs;
mod passthrough;
mod races;
mod saves;
mod waiting;
mod walks;
