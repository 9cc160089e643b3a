//! The process beside the daemon. It does two things that the daemon cannot do itself.
//!
//! **It ends the connection of a killed daemon that the kernel cannot let go of.** Telling the kernel
//! of a change in a folder waits until no program works in that folder. If such a program waits for
//! the daemon in turn and the daemon is killed in that moment, neither goes before the other: the
//! thread that tells keeps the device open, an open device promises an answer, and the program waits
//! for it for ever; no signal ends either of them. Only an end of the connection does, and only
//! another process can bring that about.
//!
//! The guard knows two things of the daemon. Its standard input is a pipe whose other end is open as
//! long as anything of the daemon holds files, the device among them. And the kernel signals it when
//! the thread that started it ends. A daemon that ends in any ordinary way, killed or not, closes the
//! pipe in the same moment.
//!
//! **It runs errands in the mount**, for programs that watch directories: see [`Herald`]. Orders come
//! over the same pipe, one a line, and their results go back over standard output.

mod errand;
mod herald;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use onedrivefs_fuse::Herald;
use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use self::errand::Errands;
use self::herald::{Orders, Remote};
use crate::failure::{Explain, Outcome};

/// The command that is the guard; not shown in the help.
const COMMAND: &str = "guard";

/// Time in which a killed daemon is gone unless it cannot go. Giving back its memory takes part of
/// it.
const DYING_TIME: Duration = Duration::from_secs(1);

/// A guard at its post; dropping it relieves it.
#[derive(Debug)]
pub(crate) struct Guard {
    orders: Arc<Orders>,
}

impl Guard {
    /// Posts a guard for a connection of this process, whose mount is at `mountpoint`.
    ///
    /// # Errors
    /// What the system says when no process can be started.
    pub(crate) fn post(connection: u32, mountpoint: &Path) -> io::Result<(Self, Box<dyn Herald>)> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("onedrivefs")
            .args([COMMAND, &connection.to_string()])
            .arg(mountpoint)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let (started, start) = mpsc::channel();
        // The kernel takes the end of the starting thread for the end of the daemon, so that thread
        // has to last: it stays to see the guard off.
        thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || {
                let mut guard = match command.spawn() {
                    Ok(guard) => guard,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let pipes = guard.stdin.take().zip(guard.stdout.take());
                drop(started.send(pipes.ok_or(io::ErrorKind::BrokenPipe.into())));
                drop(guard.wait());
            })?;
        let (orders, answers) = start.recv().map_err(io::Error::other)??;
        let orders = Arc::new(Orders::new(orders));
        let herald = Remote::listen(Arc::clone(&orders), answers)?;
        Ok((Self { orders }, Box::new(herald)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.orders.close();
    }
}

/// Guards a connection of the parent until that is gone.
///
/// # Errors
/// What the system says when the guard cannot be set up.
pub(crate) fn run(connection: u32, mountpoint: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .explain(|| "starting the guard".to_owned())?;
    runtime
        .block_on(guard(connection, mountpoint))
        .explain(|| "guarding the mount".to_owned())
}

async fn guard(connection: u32, mountpoint: &Path) -> io::Result<()> {
    // What ends all processes of a terminal or a service ends the daemon first.
    let _own_session = setsid();
    let _ignored = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    ];
    let mut dying = signal(SignalKind::user_defined1())?;
    set_parent_process_death_signal(Some(Signal::USR1))?;
    let pipe = io::stdin().as_fd().try_clone_to_owned()?;
    let pipe = Receiver::from_owned_fd(pipe)?;
    // On a thread of its own: an errand may have to wait for what the daemon waits for.
    let errands = Errands::start(connection, mountpoint)?;
    let gone = errands.take_orders(pipe);
    tokio::pin!(gone);
    tokio::select! {
        () = &mut gone => return Ok(()),
        _ = dying.recv() => {}
    }
    if tokio::time::timeout(DYING_TIME, gone).await.is_err() {
        onedrivefs_fuse::abort_connection(connection)?;
    }
    Ok(())
}
