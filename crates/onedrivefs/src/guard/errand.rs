//! The guard's end: orders in, system calls in the mount, results out.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use onedrivefs_fuse::{Deed, Errand};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;

/// Longest order in bytes: more than the longest path.
const ORDER_MAX: usize = 64 << 10;

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// An errand with its number.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    number: u64,
    deed: Word,
    path: String,
}

/// A deed on its way between the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    File,
    Directory,
    Link,
    Remove,
    Touch,
}

impl Order {
    pub(super) fn new(number: u64, errand: &Errand) -> Self {
        let deed = match errand.deed {
            Deed::MakeFile => Word::File,
            Deed::MakeDirectory => Word::Directory,
            Deed::MakeLink => Word::Link,
            Deed::Remove => Word::Remove,
            Deed::Touch => Word::Touch,
        };
        Self {
            number,
            deed,
            path: errand.path.clone(),
        }
    }

    /// One line, with its end.
    pub(super) fn line(&self) -> io::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// Runs errands on a thread of its own.
pub(super) struct Errands {
    orders: Sender<Order>,
}

impl Errands {
    /// Starts the thread, which says its number first of all.
    pub(super) fn start(connection: u32, mountpoint: &Path) -> io::Result<Self> {
        let (orders, work) = mpsc::channel();
        let place = Place {
            connection,
            mountpoint: mountpoint.to_owned(),
        };
        thread::Builder::new()
            .name("errands".to_owned())
            .spawn(move || serve(&work, &place))?;
        Ok(Self { orders })
    }

    /// Takes orders until the pipe ends.
    pub(super) async fn take_orders(self, pipe: pipe::Receiver) {
        let mut waiting = Vec::new();
        loop {
            if pipe.readable().await.is_err() {
                return;
            }
            let mut some = [0; READ_BYTES];
            match pipe.try_read(&mut some) {
                Ok(0) => return,
                Ok(count) => waiting.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            while let Some(end) = waiting.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                let order = serde_json::from_slice::<Order>(&line);
                // Nobody listens any more when the thread has nobody to tell.
                drop(order.map(|order| self.orders.send(order)));
            }
            if waiting.len() > ORDER_MAX {
                return;
            }
        }
    }
}

fn serve(work: &Receiver<Order>, place: &Place) {
    let own = rustix::thread::gettid().as_raw_nonzero();
    let tell = |line: String| {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
    };
    if !tell(own.to_string()) {
        return;
    }
    for order in work {
        let done = place.run(&order);
        let error = done.map_or_else(Errno::raw_os_error, |()| 0);
        if !tell(format!("{} {error}", order.number)) {
            return;
        }
    }
}

/// The mount of the daemon.
struct Place {
    connection: u32,
    mountpoint: PathBuf,
}

impl Place {
    /// Runs one errand. Nothing in the mount stays open: that would keep it from being unmounted.
    fn run(&self, order: &Order) -> rustix::io::Result<()> {
        let root = self.root()?;
        let (folder, name) = match order.path.rsplit_once('/') {
            Some((folder, name)) => (folder, name),
            None => (".", order.path.as_str()),
        };
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat2(&root, folder, flags, Mode::empty(), inside)?;
        match order.deed {
            Word::File => {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&folder, name, FileType::RegularFile, mode, 0)
            }
            Word::Directory => rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700)),
            Word::Link => rustix::fs::symlinkat(".", &folder, name),
            Word::Remove => match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR),
                other => other,
            },
            Word::Touch => {
                let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
                let times = Timestamps {
                    last_access: time(UTIME_OMIT),
                    last_modification: time(UTIME_NOW),
                };
                rustix::fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// The root of the daemon's mount, and of no other that may have taken its place: as long as the
    /// daemon lives, the number of its connection is nobody else's.
    fn root(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.mountpoint, flags, Mode::empty())?;
        let device = rustix::fs::fstat(&root)?.st_dev;
        if rustix::fs::major(device) != 0 || rustix::fs::minor(device) != self.connection {
            return Err(Errno::XDEV);
        }
        let input: File = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_or_else(|_| Err(Errno::PIPE), |input| Ok(File::from(input)))?;
        let mut poll = [PollFd::new(&input, PollFlags::empty())];
        rustix::event::poll(&mut poll, Some(&Timespec::default()))?;
        if poll[0].revents().contains(PollFlags::HUP) {
            return Err(Errno::PIPE);
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_line_whatever_the_name() {
        let errand = Errand {
            deed: Deed::Remove,
            path: "a/new\nline \"quoted\" \u{7f}é".to_owned(),
        };
        let order = Order::new(7, &errand);
        let line = order.line().expect("line");
        assert_eq!(line.matches('\n').count(), 1);
        let back: Order = serde_json::from_str(&line).expect("order");
        assert_eq!(back, order);
    }
}
