//! The steps of a story as system calls, commands and deeds of others.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use onedrivefs_sim::{FaultAction, FaultRule, Reach};
use onedrivefs_tests::process;
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use serde_json::Value;

use crate::act::{Act, Holds, How};
use crate::rig::Rig;
use crate::sys;

/// Longest time until both sides are in step.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// Time after which a file that is not being sent may have been sent already.
const SENT_LIMIT: Duration = Duration::from_secs(1);

/// How long a fragment takes while they are slow, in milliseconds.
const FRAGMENT_MS: u64 = 300;

/// What commands say that find done what they were to do.
const NOTHING_TO_DO: [&str; 2] = ["nothing is parked", "is not pinned"];

const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

impl Rig<'_> {
    pub fn try_act(&mut self, act: &Act) -> io::Result<()> {
        let root = self.root();
        let at = |path: &str| root.join(path);
        match act {
            Act::Mkdir(path) => fs::create_dir(at(path))?,
            Act::Rmdir(path) => fs::remove_dir(at(path))?,
            Act::Unlink(path) => fs::remove_file(at(path))?,
            Act::Rename(from, to) => fs::rename(at(from), at(to))?,
            Act::Exchange(a, b) => {
                renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE)?;
            }
            Act::Open(slot, path, how) => {
                let mut options = OpenOptions::new();
                match how {
                    How::Create => options.write(true).create_new(true),
                    How::Write => options.read(true).write(true),
                    How::Overwrite => options.write(true),
                    How::Truncate => options.write(true).truncate(true),
                    How::Append => options.append(true),
                };
                let file = options.open(at(path))?;
                self.open.insert(*slot, file);
            }
            Act::Write(slot, offset, body) => {
                if let Some(file) = self.file(*slot)? {
                    file.write_all_at(&body.make(), *offset as u64)?;
                }
            }
            Act::Append(slot, body) => {
                if let Some(mut file) = self.file(*slot)? {
                    file.write_all(&body.make())?;
                }
            }
            Act::Copy(slot, from) => {
                if let Some(file) = self.file(*slot)? {
                    sys::copy(&at(from), file)?;
                }
            }
            Act::SetLen(slot, len) => {
                if let Some(file) = self.file(*slot)? {
                    file.set_len(*len as u64)?;
                }
            }
            Act::Zero(slot, offset, len) => self.fallocate(*slot, ZERO, *offset, *len)?,
            Act::Punch(slot, offset, len) => self.fallocate(*slot, PUNCH, *offset, *len)?,
            Act::Fsync(slot) => {
                if let Some(file) = self.file(*slot)? {
                    file.sync_all()?;
                }
            }
            Act::Close(slot) => {
                if let Some(file) = self.open.remove(slot) {
                    sys::close(file)?;
                }
            }
            Act::Truncate(path, len) => sys::truncate(&at(path), *len as u64)?,
            Act::Times(path, seconds) => set_time(&at(path), *seconds)?,
            Act::Link(path, target) => symlink(target, at(path))?,
            Act::Read(path, offset, len) => {
                File::open(at(path))?.read_exact_at(&mut vec![0; *len], *offset)?;
            }
            Act::There(_, deed, _) => deed(&self.drive),
            Act::Elsewhere(_, deed, _) => deed(self.home.service),
            Act::Command(verb, path, _) => self.command(verb, path)?,
            Act::Export(path) => self.export(path)?,
            Act::Offline => self.home.service.set_reach(Reach::Offline),
            Act::Online => self.home.service.set_reach(Reach::Online),
            Act::Slow => {
                let slow = FaultAction::Delay { ms: FRAGMENT_MS };
                let rule = FaultRule::on("upload_fragment", slow);
                self.home.service.faults().add(rule);
                self.home.service.set_knobs(|knobs| knobs.copy_polls = 3);
            }
            Act::Swift => {
                self.home.service.faults().clear();
                self.home.service.set_knobs(|knobs| knobs.copy_polls = 1);
            }
            Act::Begun(name) => self.wait_on_its_way(name, |rig, name| rig.is_sent(name, false))?,
            Act::Sent(name) => self.wait_on_its_way(name, |rig, name| rig.is_sent(name, true))?,
            Act::Copying(name) => self.wait_on_its_way(name, Self::is_copied)?,
            Act::Until(what, holds) => self.wait_until(what, *holds)?,
            Act::Sync => self.sync()?,
        }
        Ok(())
    }

    /// An open file; none if it was unlinked and died with its daemon.
    fn file(&self, slot: u32) -> io::Result<Option<&File>> {
        match self.open.get(&slot) {
            Some(file) => Ok(Some(file)),
            None if self
                .model
                .slots
                .get(&slot)
                .is_some_and(|s| s.path.is_none()) =>
            {
                Ok(None)
            }
            None => Err(io::Error::other("not open")),
        }
    }

    fn fallocate(&self, slot: u32, how: FallocateFlags, at: usize, len: usize) -> io::Result<()> {
        match self.file(slot)? {
            Some(file) => Ok(fallocate(file, how, at as u64, len as u64)?),
            None => Ok(()),
        }
    }

    /// Tells whether an upload session for a name has begun, and whether bytes have arrived.
    fn is_sent(&self, name: &str, partly: bool) -> bool {
        let sessions = self.home.service.sessions();
        let mut rows = sessions.as_array().into_iter().flatten();
        rows.any(|row| row["name"] == name && (row["received"] != 0) == partly)
    }

    /// Tells whether the service is making a copy of a name.
    fn is_copied(&self, name: &str) -> bool {
        let monitors = self.home.service.monitors();
        let mut rows = monitors.as_array().into_iter().flatten();
        rows.any(|row| row["name"] == name && row["done"] == false)
    }

    /// Waits until a file is on its way, or was.
    fn wait_on_its_way(
        &mut self,
        name: &str,
        is_on_its_way: fn(&Self, &str) -> bool,
    ) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < SYNC_LIMIT {
            if is_on_its_way(self, name) {
                return Ok(());
            }
            if self.has_died() {
                return Err(io::Error::other("the daemon is dead"));
            }
            let idle = || {
                self.status()
                    .is_some_and(|told| told["pending"]["ops"] == 0)
            };
            if start.elapsed() > SENT_LIMIT && idle() {
                // A daemon died when it was nearly done, and the next one was quick.
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("it is not being sent"))
    }

    /// Runs a command about a path. One during which a daemon died may have done what it was to do:
    /// then there is nothing left for its successor.
    fn command(&self, verb: &str, path: &str) -> io::Result<()> {
        let path = self.root().join(path);
        let mut command = self.home.command(&[verb]);
        command.arg(path).current_dir(self.home.work());
        let ran = process::run(command, SYNC_LIMIT);
        match ran.code {
            Some(0) => Ok(()),
            Some(1) if self.is_again && NOTHING_TO_DO.iter().any(|one| ran.err.contains(one)) => {
                Ok(())
            }
            _ => Err(io::Error::other(format!("{}{}", ran.out, ran.err))),
        }
    }

    /// Exports something, unless the daemon that died over it had done so.
    fn export(&self, path: &str) -> io::Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        if self.is_again && self.home.work().join(name).exists() {
            return Ok(());
        }
        self.command("export", path)
    }

    fn wait_until(&mut self, what: &str, holds: Holds) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < SYNC_LIMIT {
            let status = self.status();
            if status.is_some_and(|status| holds(&status, self.home.service)) {
                return Ok(());
            }
            if self.has_died() {
                return Err(io::Error::other("the daemon is dead"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.status();
        Err(io::Error::other(format!("never {what}: {status:?}")))
    }

    /// What the daemon tells of itself, unless it is dead.
    pub fn status(&self) -> Option<Value> {
        let root = self.root();
        let ran = self.home.run(&["status", "--json", root.to_str()?]);
        serde_json::from_str(&ran.out).ok()
    }

    fn sync(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let ran = self.home.try_sync(20);
            if ran.code == Some(0) {
                return Ok(());
            }
            if self.has_died() {
                return Err(io::Error::other("the daemon is dead"));
            }
            if start.elapsed() > SYNC_LIMIT {
                let told = format!("never in step: {}{}", ran.out, ran.err);
                return Err(io::Error::other(told));
            }
        }
    }
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        rustix::fs::AtFlags::empty(),
    )?)
}
