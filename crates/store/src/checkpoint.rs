//! Moving the log into the database file while nobody waits for it.
//!
//! SQLite does that by itself as part of the commit that makes the log long enough, with two syncs
//! of the disk in it: one program in a hundred would wait for what all of them wrote. Here a thread
//! of its own does it, on a connection of its own. Commits go on meanwhile; only if they outrun it by
//! far one of them does it as before, so that the log stays small.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

/// Pages of the log, 16 MiB of them, at which they are moved in the background. Small changes write the
/// same few pages again and again, and a page is moved once however often it is in the log: with SQLite's
/// own figure of 1000 a program that unpacks an archive would compete with what moves the log.
const BACKGROUND_PAGES: i32 = 4096;

/// Pages of the log, 64 MiB of them, at which the commit that reaches them waits for the move.
const MOST_PAGES: i32 = 16_384;

/// Niceness of the thread that moves the log.
const NICENESS: i32 = 10;

thread_local! {
    /// Pages of the log after the last commit of this thread.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The thread that moves the log, once it was needed.
#[derive(Default)]
pub(crate) struct Checkpoints {
    thread: Mutex<Option<Mover>>,
}

struct Mover {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Takes the matter over from SQLite for a connection that writes.
    pub(crate) fn take_over(conn: &Connection) {
        conn.wal_hook(Some(note_pages));
    }

    /// Called after each commit, by its thread and with its connection.
    pub(crate) fn after_commit(&self, conn: &Connection, path: &Path) {
        let pages = PAGES.take();
        if pages >= MOST_PAGES {
            move_log(conn);
        } else if pages >= BACKGROUND_PAGES {
            self.wake(path);
        }
    }

    /// Has the log moved soon.
    fn wake(&self, path: &Path) {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            match start(path) {
                Ok(mover) => *thread = Some(mover),
                Err(error) => {
                    tracing::warn!(%error, "The log of the database is moved by those who write.");
                    return;
                }
            }
        }
        if let Some(mover) = thread.as_ref() {
            // One that is awake already looks again.
            let _woken = mover.wake.try_send(());
        }
    }

    /// Waits for what is under way and ends the thread. The next commit that needs it starts another.
    pub(crate) fn stop(&self) {
        if let Some(Mover { wake, thread }) = self.thread.lock().take() {
            drop(wake);
            // It reports its troubles itself.
            let _ended = thread.join();
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What SQLite calls after each commit.
fn note_pages(_log: &Wal, pages: i32) -> rusqlite::Result<()> {
    PAGES.set(pages);
    Ok(())
}

fn start(path: &Path) -> io::Result<Mover> {
    let conn = connect(path).map_err(io::Error::other)?;
    let (wake, woken) = sync_channel(1);
    let thread = Builder::new()
        .name("checkpoint".to_owned())
        .spawn(move || run(&conn, &woken))?;
    Ok(Mover { wake, thread })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // The log is on stable storage before the database changes, and the database before the log is
    // written from its beginning.
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(conn)
}

fn run(conn: &Connection, woken: &Receiver<()>) {
    give_way();
    while woken.recv().is_ok() {
        move_log(conn);
    }
}

/// Leaves the processor to programs and to those who serve them: there is no hurry. Should the log grow
/// meanwhile, a commit moves it.
fn give_way() {
    // On Linux that is the thread that asks.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "The log of the database is moved with the usual priority.");
    }
}

/// Moves as much as nobody reads any more. What fails is tried again after the next commits; damage
/// shows to those who read it.
fn move_log(conn: &Connection) {
    let moved = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
    if let Err(error) = moved {
        tracing::debug!(%error, "The log of the database could not be moved into it.");
    }
}
