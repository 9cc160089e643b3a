//! What can be wrong below HTTP: no listener, a peer that swallows everything, a slow line. The
//! stream wrapper paces bytes; the listeners follow [`NetState`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

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

/// A connection whose speed is limited in each direction.
pub(crate) struct Paced {
    stream: TcpStream,
    bytes_per_second: Option<Arc<AtomicU64>>,
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

    fn spend(&mut self, bytes: usize, rate: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let start = self
            .free_at
            .map_or_else(Instant::now, |at| at.max(Instant::now()));
        self.free_at = Some(start + cost);
    }
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, bytes_per_second: Option<Arc<AtomicU64>>) -> Self {
        Paced {
            stream,
            bytes_per_second,
            read: Pace::default(),
            write: Pace::default(),
        }
    }

    /// Bytes per second now; 0 means unlimited.
    fn rate(&self) -> u64 {
        self.bytes_per_second
            .as_ref()
            .map_or(0, |rate| rate.load(Ordering::Relaxed))
    }
}

fn slice(rate: u64) -> usize {
    usize::try_from((rate / SLICES_PER_SECOND).max(1)).unwrap_or(usize::MAX)
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rate = self.rate();
        if rate == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        if !self.read.ready(cx) {
            return Poll::Pending;
        }
        let limit = slice(rate).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(limit));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        if let Poll::Ready(Ok(())) = polled {
            buf.advance(count);
            self.read.spend(count, rate);
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
        let rate = self.rate();
        if rate == 0 {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if !self.write.ready(cx) {
            return Poll::Pending;
        }
        let limit = slice(rate).min(bytes.len());
        let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes[..limit]);
        if let Poll::Ready(Ok(count)) = polled {
            self.write.spend(count, rate);
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
