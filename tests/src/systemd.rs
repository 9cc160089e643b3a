//! Hears what a daemon tells systemd about itself.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::wait;

/// Longest wait for a report: daemons make one every few seconds.
const LIMIT: Duration = wait::secs(60);

/// The socket that a daemon reports to.
pub struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    /// What it said last.
    last: Mutex<String>,
}

impl Systemd {
    /// Listens at a path.
    ///
    /// # Panics
    /// When that is not possible.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("socket");
        socket.set_nonblocking(true).expect("mode");
        Self {
            socket,
            path: path.to_owned(),
            last: Mutex::default(),
        }
    }

    /// The variable that tells a daemon of it.
    #[must_use]
    pub fn variable(&self) -> (String, String) {
        let path = self.path.to_str().expect("UTF-8").to_owned();
        ("NOTIFY_SOCKET".to_owned(), path)
    }

    /// Waits until the daemon says in its status what is wanted, unless that is what it said last.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, wanted: &str) -> String {
        wait::value(&format!("a report of {wanted:?}"), LIMIT, || {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let mut buffer = [0_u8; 4096];
            // Not said again while nothing changes.
            while !last.contains(wanted) {
                let length = self.socket.recv(&mut buffer).ok()?;
                let text = String::from_utf8_lossy(&buffer[..length]);
                let status = text.lines().find_map(|line| line.strip_prefix("STATUS="));
                if let Some(status) = status {
                    status.clone_into(&mut last);
                }
            }
            Some(last.clone())
        })
    }
}
