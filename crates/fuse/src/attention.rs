//! Staying awake for the next request for a moment.
//!
//! A program that looks at many files sends its next request a few microseconds after the answer to the
//! last one. To put the thread to sleep in between, and with it often the processor, and to wake both
//! again takes longer than most answers do. So whoever has answered a request that came soon after
//! another one looks for the next one itself for a moment, before it sleeps in the kernel.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// How long the next request is looked for. Programs need some ten microseconds between two calls.
const MOMENT: Duration = Duration::from_micros(50);

/// Answers that are further apart than this are single ones, after which most likely nothing follows.
const CLOSE_TOGETHER: Duration = Duration::from_micros(500);

/// Looks for requests between two of them.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Our end of the connection, once there is a mount, if there is a processor to spare.
    device: OnceLock<OwnedFd>,
    since: Instant,
    /// When the last answer was sent, in nanoseconds after `since`.
    answered: AtomicU64,
    /// Whether a thread is looking. One is enough: the others sleep and are woken as usual.
    looking: AtomicBool,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            device: OnceLock::new(),
            since: Instant::now(),
            answered: AtomicU64::new(0),
            looking: AtomicBool::new(false),
        }
    }
}

impl Attention {
    /// Says by which connection requests come. With a single processor nothing is looked for: the
    /// program needs it to send its next request.
    pub(crate) fn connect(&self, device: OwnedFd) {
        if thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
            // Only the first one counts; there is one mount.
            let _first = self.device.set(device);
        }
    }

    /// Called when an answer was sent, by the thread that will receive the next request.
    pub(crate) fn answered(&self) {
        let Some(device) = self.device.get() else {
            return;
        };
        let now = self.nanos();
        let apart = now.saturating_sub(self.answered.swap(now, Ordering::Relaxed));
        if u128::from(apart) > CLOSE_TOGETHER.as_nanos()
            || self.looking.swap(true, Ordering::Acquire)
        {
            return;
        }
        let until = u128::from(now) + MOMENT.as_nanos();
        while !has_request(device) && u128::from(self.nanos()) < until {
            // The program may be waiting for this very processor.
            thread::yield_now();
        }
        self.looking.store(false, Ordering::Release);
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Tells whether there is something to receive, which the end of the connection is, too.
fn has_request(device: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(device, PollFlags::IN)];
    !matches!(
        rustix::event::poll(&mut polled, Some(&Timespec::default())),
        Ok(0)
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn connected() -> (Attention, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let attention = Attention::default();
        let _first = attention.device.set(reader);
        (attention, writer)
    }

    #[test]
    fn a_look_ends_whatever_comes() {
        let (attention, writer) = connected();
        for _ in 0..3 {
            // Nothing comes.
            attention.answered();
        }
        rustix::io::write(&writer, b"request").expect("written");
        attention.answered();
        drop(writer);
        attention.answered();
        assert!(!attention.looking.load(Ordering::Relaxed));
    }

    #[test]
    fn one_thread_looks_and_the_others_sleep() {
        let (attention, _writer) = connected();
        attention.looking.store(true, Ordering::Relaxed);
        attention.answered();
        assert!(attention.looking.load(Ordering::Relaxed));
    }
}
