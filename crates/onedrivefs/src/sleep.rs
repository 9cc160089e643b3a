//! Follows the machine into sleep and out of it, as logind tells it on the system bus.
//!
//! Programs that wait for the service cannot be frozen, and one that cannot be frozen keeps the
//! machine awake. So the machine is asked to wait until all of them are answered, which takes
//! milliseconds. Where there is no system bus, or no logind on it, nothing happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use onedrivefs_vfs::Forest;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zbus::proxy::SignalStream;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, Proxy};

/// The name, path and interface of logind.
const NAME: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// Longest wait for the bus and for logind.
const BUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for the answers to those who wait; logind itself waits for five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// How long the machine can be awake and about to sleep. If it did not by then, nobody will say that
/// it woke up. The clock of this does not run while the machine sleeps.
const DOZE_LIMIT: Duration = Duration::from_secs(60);

/// Begins to follow. Ends when the task is aborted.
pub(crate) fn start(forest: &Arc<Forest>) -> JoinHandle<()> {
    let forest = Arc::clone(forest);
    tokio::spawn(async move {
        let Err(error) = follow(&forest).await;
        tracing::debug!(%error, "Nobody tells when this machine sleeps.");
    })
}

/// Follows until nobody tells any more.
async fn follow(forest: &Forest) -> zbus::Result<Infallible> {
    let connecting = async {
        let connection = Connection::system().await?;
        let logind = Proxy::new(&connection, NAME, OBJECT, MANAGER).await?;
        // Before the lock: what is told from then on is heard.
        let signals = logind.receive_signal("PrepareForSleep").await?;
        Ok::<_, zbus::Error>((logind, signals))
    };
    let (logind, mut signals) = in_time(connecting).await?;
    loop {
        let lock = delay_sleep(&logind).await;
        while !next(&mut signals).await? {}
        tracing::info!("The machine is about to sleep.");
        let _doze = Doze(forest);
        let falling = async {
            for engine in forest.engines() {
                engine.fall_asleep().await;
            }
        };
        if timeout(ANSWER_LIMIT, falling).await.is_err() {
            tracing::warn!("Not everybody who waits could be answered before the machine sleeps.");
        }
        drop(lock);
        let awake = async {
            while next(&mut signals).await? {}
            Ok::<_, zbus::Error>(())
        };
        if let Ok(told) = timeout(DOZE_LIMIT, awake).await {
            told?;
        }
    }
}

/// From the moment the machine is about to sleep until it is awake, or nobody can tell.
struct Doze<'f>(&'f Forest);

impl Drop for Doze<'_> {
    fn drop(&mut self) {
        for engine in self.0.engines() {
            engine.awake();
        }
    }
}

/// What logind says next: whether the machine is about to sleep, or awake.
async fn next(signals: &mut SignalStream<'_>) -> zbus::Result<bool> {
    let signal = signals.next().await;
    let signal = signal.ok_or_else(|| zbus::Error::Failure("the bus is gone".to_owned()))?;
    signal.body().deserialize()
}

/// Has the machine wait before it sleeps, until what this returns is dropped.
async fn delay_sleep(logind: &Proxy<'_>) -> Option<OwnedFd> {
    let why = "Programs that wait for OneDrive are answered";
    let asked = ("sleep", "onedrivefs", why, "delay");
    in_time(logind.call("Inhibit", &asked))
        .await
        .inspect_err(|error| tracing::debug!(%error, "The machine will sleep without waiting."))
        .ok()
}

async fn in_time<T>(work: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    let done = timeout(BUS_TIMEOUT, work).await;
    done.unwrap_or_else(|_elapsed| Err(zbus::Error::Failure("no answer in time".to_owned())))
}
