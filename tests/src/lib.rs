//! End-to-end tests of onedrivefs on real mounts.
//!
//! A file system is only as good as what programs see through the kernel. This library gives a
//! test everything it needs for that: a simulated service in the test's own process, a home
//! directory that nobody else uses, the built binary mounted in a process of its own, and a
//! watchdog, because a defect in a file system shows as a program that hangs for ever.
//!
//! The tests themselves are in `tests/it`; each is named after what a person would see.

pub mod bus;
pub mod disk;
pub mod drive;
pub mod home;
pub mod logind;
pub mod mount;
pub mod needs;
pub mod process;
pub mod secret_service;
pub mod service;
pub mod systemd;
pub mod tree;
pub mod wait;
mod watchdog;

pub use bus::Desktop;
pub use drive::Upload;
pub use home::{Home, Who};
pub use logind::Logind;
pub use mount::Mount;
pub use needs::Need;
pub use process::Ran;
pub use secret_service::Keyring;
pub use service::Service;
pub use systemd::Systemd;
