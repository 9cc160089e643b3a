//! Hears what a daemon tells systemd about itself.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait;

/// Longest wait for a report: daemons make one every few seconds.
const LIMIT: Duration = wait::secs(60);

/// The socket that a daemon reports to.
pub struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
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
        }
    }

    /// The variable that tells a daemon of it.
    #[must_use]
    pub fn variable(&self) -> (String, String) {
        let path = self.path.to_str().expect("UTF-8").to_owned();
        ("NOTIFY_SOCKET".to_owned(), path)
    }

    /// Waits until the daemon says in its status what is wanted.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, wanted: &str) -> String {
        wait::value(&format!("a report of {wanted:?}"), LIMIT, || {
            let mut buffer = [0_u8; 4096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let status = text.lines().find_map(|line| line.strip_prefix("STATUS="));
                if let Some(status) = status.filter(|status| status.contains(wanted)) {
                    return Some(status.to_owned());
                }
            }
            None
        })
    }
}
