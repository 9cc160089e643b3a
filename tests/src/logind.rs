//! Whoever puts a machine to sleep and asks programs first, on a system bus of its own.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zbus::Connection;
use zbus::zvariant;

use crate::bus::{Bus, UP_LIMIT};
use crate::service::Service;
use crate::wait;

const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// A lock that a program took.
struct Lock {
    asked: String,
    /// Ends when the program lets go of the other end.
    end: UnixStream,
}

impl Lock {
    fn is_held(&mut self) -> bool {
        matches!(self.end.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// A running one. Dropping it ends the bus.
pub struct Logind {
    runtime: tokio::runtime::Handle,
    connection: Connection,
    locks: Arc<Mutex<Vec<Lock>>>,
    _bus: Bus,
}

impl Logind {
    /// Starts one on the system bus that programs of a home with this runtime directory look for.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(service: &Service, runtime_dir: &Path) -> Self {
        let bus = Bus::start(&runtime_dir.join("system-bus"));
        let locks = Arc::default();
        let manager = Manager {
            locks: Arc::clone(&locks),
        };
        let serve = async {
            zbus::connection::Builder::address(bus.address.as_str())?
                .serve_at(OBJECT, manager)?
                .name("org.freedesktop.login1")?
                .build()
                .await
        };
        let runtime = service.runtime().handle().clone();
        let connection = runtime.block_on(async { tokio::time::timeout(UP_LIMIT, serve).await });
        Self {
            runtime,
            connection: connection.expect("in time").expect("on the bus"),
            locks,
            _bus: bus,
        }
    }

    /// Tells all programs that the machine is about to sleep, or awake.
    ///
    /// # Panics
    /// When the bus does not take it.
    pub fn prepare_for_sleep(&self, start: bool) {
        let signal = self.connection.emit_signal(
            None::<zbus::names::BusName<'_>>,
            OBJECT,
            MANAGER,
            "PrepareForSleep",
            &start,
        );
        self.runtime.block_on(signal).expect("signal");
    }

    /// What was asked for by those who hold a lock now.
    #[must_use]
    pub fn held(&self) -> Vec<String> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let held = locks.iter_mut().filter_map(|lock| {
            let held = lock.is_held();
            held.then(|| lock.asked.clone())
        });
        held.collect()
    }

    /// Waits until so many locks are held.
    ///
    /// # Panics
    /// When that does not come about.
    pub fn wait_for_locks(&self, count: usize, limit: Duration) {
        wait::until(&format!("{count} locks"), limit, || {
            self.held().len() == count
        });
    }
}

struct Manager {
    locks: Arc<Mutex<Vec<Lock>>>,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(
        &self,
        what: String,
        who: String,
        _why: String,
        mode: String,
    ) -> zbus::fdo::Result<zvariant::OwnedFd> {
        let failed = |error: std::io::Error| zbus::fdo::Error::Failed(error.to_string());
        let (end, given) = UnixStream::pair().map_err(failed)?;
        end.set_nonblocking(true).map_err(failed)?;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.push(Lock {
            asked: format!("{what} {who} {mode}"),
            end,
        });
        Ok(OwnedFd::from(given).into())
    }
}
