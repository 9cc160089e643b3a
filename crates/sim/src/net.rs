//! What can be wrong below HTTP: no listener, a peer that swallows everything, a slow line. The
//! stream wrapper paces bytes; the listeners follow [`NetState`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Reachability of the API and content hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Everything works.
    #[default]
    Online,
    /// Connections are refused and existing ones closed.
    Offline,
    /// Connections are accepted and nothing is ever answered.
    BlackHole,
}

/// Reachability with a generation: every change ends all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetState {
    pub(crate) reach: Reach,
    pub(crate) generation: u64,
}

/// Slices a second of a paced connection is cut into.
const SLICES_PER_SECOND: u64 = 50;

/// How fast bytes go, shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    /// Bytes per second of each connection, in each direction; 0 means unlimited.
    connection: AtomicU64,
    /// The same for all connections together.
    line: AtomicU64,
    /// When the line is free again, towards the service and back.
    up: Mutex<Option<Instant>>,
    down: Mutex<Option<Instant>>,
}

impl Speed {
    /// Sets the limits, also for open connections.
    pub(crate) fn set(&self, connection: u64, line: u64) {
        self.connection.store(connection, Ordering::Relaxed);
        self.line.store(line, Ordering::Relaxed);
    }

    /// Bytes that may go at once; `None` when nothing is limited.
    fn slice(&self) -> Option<usize> {
        let (connection, line) = self.limits();
        let rate = [connection, line]
            .into_iter()
            .filter(|rate| *rate > 0)
            .min()?;
        Some(usize::try_from((rate / SLICES_PER_SECOND).max(1)).unwrap_or(usize::MAX))
    }

    fn limits(&self) -> (u64, u64) {
        (
            self.connection.load(Ordering::Relaxed),
            self.line.load(Ordering::Relaxed),
        )
    }

    /// When the connection may go on after so many bytes.
    fn spend(&self, bytes: usize, last: Option<Instant>, line: &Mutex<Option<Instant>>) -> Instant {
        let now = Instant::now();
        let after = |since: Option<Instant>, rate: u64| {
            let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
            since.map_or(now, |at| at.max(now)) + cost
        };
        let (own, all) = self.limits();
        let own = if own > 0 { after(last, own) } else { now };
        if all == 0 {
            return own;
        }
        let mut free_at = line.lock();
        let next = after(*free_at, all);
        *free_at = Some(next);
        own.max(next)
    }
}

/// A connection whose speed is limited in each direction.
pub(crate) struct Paced {
    stream: TcpStream,
    speed: Option<Arc<Speed>>,
    read: Pace,
    write: Pace,
}

#[derive(Default)]
struct Pace {
    wait: Option<Pin<Box<Sleep>>>,
    free_at: Option<Instant>,
}

impl Pace {
    fn ready(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.free_at.filter(|at| *at > Instant::now()) else {
            self.wait = None;
            return true;
        };
        let wait = self
            .wait
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if wait.as_mut().poll(cx).is_ready() {
            self.wait = None;
            return true;
        }
        false
    }
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, speed: Option<Arc<Speed>>) -> Self {
        Paced {
            stream,
            speed,
            read: Pace::default(),
            write: Pace::default(),
        }
    }

    /// The limits that count now, with the bytes that may go at once.
    fn limit(&self) -> Option<(Arc<Speed>, usize)> {
        let speed = self.speed.as_ref()?;
        Some((Arc::clone(speed), speed.slice()?))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some((speed, slice)) = self.limit() else {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        };
        if !self.read.ready(cx) {
            return Poll::Pending;
        }
        let limit = slice.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        if let Poll::Ready(Ok(())) = polled {
            buf.advance(count);
            self.read.free_at = Some(speed.spend(count, self.read.free_at, &speed.up));
        }
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some((speed, slice)) = self.limit() else {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        };
        if !self.write.ready(cx) {
            return Poll::Pending;
        }
        let limit = slice.min(bytes.len());
        let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes[..limit]);
        if let Poll::Ready(Ok(count)) = polled {
            self.write.free_at = Some(speed.spend(count, self.write.free_at, &speed.down));
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
