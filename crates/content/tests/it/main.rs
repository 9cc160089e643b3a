//! The public face of the content cache and the spool.

#![expect(clippy::expect_used, reason = "helpers of tests fail tests")]

mod disk;
