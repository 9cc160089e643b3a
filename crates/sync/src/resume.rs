//! Following the machine into sleep and out of it.
//!
//! Before it sleeps, those are let go who wait for the service, if somebody says so in time. That it
//! slept is noticed here.
//!
//! Timers do not run meanwhile, and connections that ended look alive until something is sent over
//! them. The kernel cancels a timer that depends on the wall clock when that jumps, as it does after
//! a sleep, so nobody has to look at a clock again and again.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

use crate::engine::Engine;
use crate::hydrate::HydrateError;

/// Shortest pause between two jumps that are told apart: a clock may be set in small steps.
const PACE: Duration = Duration::from_secs(10);

/// A timer that is never due, and cancelled when the wall clock jumps.
struct Jumps {
    /// Not a pipe, but waited for and read like one.
    timer: Receiver,
}

impl Jumps {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer: OwnedFd = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timer = Receiver::from_owned_fd_unchecked(timer)?;
        Ok(Self { timer })
    }

    fn arm(&self) -> io::Result<()> {
        let never = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.timer.as_fd(), flags, &never)?;
        Ok(())
    }

    /// Waits for the next jump of the wall clock.
    async fn next(&self) -> io::Result<()> {
        self.arm()?;
        loop {
            self.timer.readable().await?;
            match self.timer.try_read(&mut [0; 8]) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::CANCELED) => {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                // The end of time.
                Ok(_) => self.arm()?,
            }
        }
    }
}

impl Engine {
    /// The machine is about to sleep. Everybody who waits for the service is let go, and so is
    /// everybody who comes until [`Engine::awake`]. Returns when all of them are answered.
    pub async fn fall_asleep(&self) {
        self.waiters.turn_away();
        // What is on its way would be found cut off afterwards, and waited for until that shows.
        self.hydrator.fail_all(&HydrateError::Offline);
        self.waiters.gone().await;
    }

    /// The machine is awake. What happened meanwhile was announced to nobody, so it is looked for.
    pub fn awake(&self) {
        self.waiters.admit();
        self.push.reopen();
        self.wake_freshness();
        self.look_wanted.notify_one();
        self.wake_uploader();
    }

    /// Looks at everything anew whenever the machine wakes from sleep.
    pub(crate) async fn run_resume(self: Arc<Self>) {
        if let Err(error) = self.follow_jumps().await {
            // It is noticed all the same, a while later.
            tracing::debug!(%error, "Whether the machine slept cannot be known.");
        }
    }

    async fn follow_jumps(&self) -> io::Result<()> {
        let jumps = Jumps::new()?;
        loop {
            jumps.next().await?;
            tracing::info!("The machine slept, or its clock was set.");
            self.awake();
            tokio::time::sleep(PACE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_noticed_while_no_clock_is_set() {
        let jumps = Jumps::new().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(200), jumps.next());
        assert!(quiet.await.is_err());
    }
}
