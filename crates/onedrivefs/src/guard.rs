//! Ends the connection of a killed daemon that the kernel cannot let go of.
//!
//! Telling the kernel of a change in a folder waits until no program works in that folder. If such
//! a program waits for the daemon in turn and the daemon is killed in that moment, neither goes
//! before the other: the thread that tells keeps the device open, an open device promises an
//! answer, and the program waits for it for ever; no signal ends either of them. Only an end of the
//! connection does, and only another process can bring that about. So every mount has a guard: the
//! same program once more, asleep until the daemon dies.
//!
//! It knows two things of the daemon. Its standard input is a pipe whose other end is open as long
//! as anything of the daemon holds files, the device among them. And the kernel signals it when the
//! thread that started it ends. A daemon that ends in any ordinary way, killed or not, closes the
//! pipe in the same moment.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Explain, Outcome};

/// The command that is the guard; not shown in the help.
const COMMAND: &str = "guard";

/// Time in which a killed daemon is gone unless it cannot go. Giving back its memory takes part of
/// it.
const DYING_TIME: Duration = Duration::from_secs(1);

/// A guard at its post; dropping it relieves it.
#[derive(Debug)]
pub(crate) struct Guard {
    _alive: ChildStdin,
}

impl Guard {
    /// Posts a guard for a connection of this process.
    ///
    /// # Errors
    /// What the system says when no process can be started.
    pub(crate) fn post(connection: u32) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("onedrivefs")
            .args([COMMAND, &connection.to_string()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
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
                let alive = guard.stdin.take().ok_or(io::ErrorKind::BrokenPipe.into());
                drop(started.send(alive));
                drop(guard.wait());
            })?;
        let alive = start.recv().map_err(io::Error::other)??;
        Ok(Self { _alive: alive })
    }
}

/// Guards a connection of the parent until that is gone.
///
/// # Errors
/// What the system says when the guard cannot be set up.
pub(crate) fn run(connection: u32) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .explain(|| "starting the guard".to_owned())?;
    runtime
        .block_on(guard(connection))
        .explain(|| "guarding the mount".to_owned())
}

async fn guard(connection: u32) -> io::Result<()> {
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
    let gone = async {
        // Nothing is ever written to it: it is ready to be read when it has ended.
        let _end = pipe.readable().await;
    };
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
