//! A desktop session: a message bus and a program on it that shows notifications.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zbus::Connection;
use zbus::zvariant::OwnedValue;

use crate::service::Service;
use crate::wait;

/// Where notifications are shown.
const OBJECT: &str = "/org/freedesktop/Notifications";

/// Time the bus has to come up.
pub(crate) const UP_LIMIT: Duration = Duration::from_secs(20);

/// A notification that was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What is shown in bold.
    pub summary: String,
    /// What is shown below it.
    pub body: String,
}

/// A running session. Dropping it ends the bus.
pub struct Desktop {
    _bus: Bus,
    shown: Arc<Mutex<Vec<Shown>>>,
    _connection: Connection,
}

impl Desktop {
    /// Starts a bus on the socket that programs with this runtime directory expect.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(service: &Service, runtime_dir: &Path) -> Self {
        let bus = Bus::start(&runtime_dir.join("bus"));
        let shown = Arc::default();
        let shower = Shower {
            shown: Arc::clone(&shown),
        };
        let serve = async {
            zbus::connection::Builder::address(bus.address.as_str())?
                .serve_at(OBJECT, shower)?
                .name("org.freedesktop.Notifications")?
                .build()
                .await
        };
        let connection = service
            .runtime()
            .block_on(async { tokio::time::timeout(UP_LIMIT, serve).await });
        let connection = connection.expect("in time").expect("on the bus");
        Self {
            _bus: bus,
            shown,
            _connection: connection,
        }
    }

    /// Everything shown so far.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let shown = self.shown.lock();
        shown.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a notification with this in its summary.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_for(&self, summary: &str) -> Shown {
        wait::value(summary, Duration::from_secs(90), || {
            let shown = self.shown();
            shown
                .into_iter()
                .find(|note| note.summary.contains(summary))
        })
    }
}

/// A message bus. Dropping it ends it, however a test ends.
pub(crate) struct Bus {
    daemon: Child,
    /// Where programs find it.
    pub(crate) address: String,
}

impl Bus {
    /// Starts one that listens on a socket.
    pub(crate) fn start(socket: &Path) -> Self {
        let address = format!("unix:path={}", socket.display());
        let config = socket.with_extension("conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
             <busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>"
        );
        fs::write(&config, text).expect("configuration of the bus");
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon");
        let bus = Self { daemon, address };
        wait::until("the bus", UP_LIMIT, || UnixStream::connect(socket).is_ok());
        bus
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// Shows notifications by remembering them.
struct Shower {
    shown: Arc<Mutex<Vec<Shown>>>,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Shower {
    fn get_capabilities(&self) -> Vec<String> {
        vec!["body".to_owned(), "body-markup".to_owned()]
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the specification of desktop notifications says so"
    )]
    fn notify(
        &self,
        _app_name: String,
        _replaces: u32,
        _icon: String,
        summary: String,
        body: String,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedValue>,
        _expires: i32,
    ) -> u32 {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push(Shown { summary, body });
        u32::try_from(shown.len()).unwrap_or(u32::MAX)
    }
}
