//! The daemon's end: orders out, results in.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use onedrivefs_fuse::{Errand, Herald};

use super::errand::Order;

/// Time for one errand. It waits for programs that work in the same directory, and who watches is
/// told of nothing else meanwhile.
const ERRAND_LIMIT: Duration = Duration::from_millis(500);

/// Errands in a row that may be late before no more are run.
const LATE_MAX: u32 = 3;

/// The pipe to the guard; its end is the sign that the daemon is gone.
#[derive(Debug)]
pub(super) struct Orders(Mutex<Option<ChildStdin>>);

impl Orders {
    pub(super) fn new(pipe: ChildStdin) -> Self {
        Self(Mutex::new(Some(pipe)))
    }

    /// Relieves the guard.
    pub(super) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn give(&self, order: &Order) -> io::Result<()> {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        // One call: an order is shorter than what a pipe takes at once.
        pipe.write_all(order.line()?.as_bytes())
    }
}

/// A herald in another process.
pub(super) struct Remote {
    orders: Arc<Orders>,
    thread: u32,
    gone: Arc<AtomicBool>,
    /// Number of an order, and the error number it came to.
    results: Receiver<(u64, i32)>,
    given: u64,
    late: u32,
}

impl Remote {
    /// Waits for the first word of the guard, and listens from then on.
    pub(super) fn listen(orders: Arc<Orders>, answers: ChildStdout) -> io::Result<Self> {
        let mut answers = BufReader::new(answers);
        let mut first = String::new();
        answers.read_line(&mut first)?;
        let thread = first.trim().parse().map_err(io::Error::other)?;
        let (told, results) = mpsc::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&gone);
        thread::Builder::new()
            .name("herald".to_owned())
            .spawn(move || {
                for line in answers.lines().map_while(Result::ok) {
                    let numbers = line.split_once(' ');
                    let numbers = numbers.and_then(|(n, e)| n.parse().ok().zip(e.parse().ok()));
                    let Some(result) = numbers else { break };
                    if told.send(result).is_err() {
                        break;
                    }
                }
                over.store(true, Ordering::Release);
            })?;
        Ok(Self {
            orders,
            thread,
            gone,
            results,
            given: 0,
            late: 0,
        })
    }
}

impl Herald for Remote {
    fn thread(&self) -> Option<u32> {
        (!self.gone.load(Ordering::Acquire)).then_some(self.thread)
    }

    fn run(&mut self, errand: &Errand) -> io::Result<()> {
        if self.late >= LATE_MAX {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.given += 1;
        self.orders.give(&Order::new(self.given, errand))?;
        let deadline = Instant::now() + ERRAND_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.results.recv_timeout(left) {
                Ok((number, error)) if number == self.given => {
                    self.late = 0;
                    return match error {
                        0 => Ok(()),
                        error => Err(io::Error::from_raw_os_error(error)),
                    };
                }
                // The result of one that was given up.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.late += 1;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
    }
}
