//! A body's file in the hands of the kernel, which reads it without asking, and lets programs map it.
//!
//! What is read that way comes from one file. So a body whose file was handed out keeps it, and is
//! changed in place. A file that programs may change by a mapping, or write to through the kernel, is
//! *lent*: nobody is told when they do, so it is not frozen meanwhile, and whoever lends it asks
//! afterwards whether it was changed, and before that whether it is mapped still.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use onedrivefs_core::Timestamp;
use rustix::fs::{Timespec, Timestamps};

use crate::{Body, fileops, lease, ranges};

/// The time of change that a file has while it is lent and nobody has changed it, in seconds. It is
/// long ago: a clock need not tell two moments apart for a change to show.
const UNTOUCHED_AT: i64 = 1;

/// File systems that note the time of a change that is made by a mapping, by the numbers that
/// `statfs(2)` gives: ext4, XFS, Btrfs, F2FS and bcachefs. That of files in memory does not.
const NOTES_MAPPED_CHANGES: [u64; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0xCA45_1A4E];

impl Body {
    /// The file, for the kernel to read. It stays the body's while somebody holds the body.
    ///
    /// # Errors
    /// What the system says; also where it would not tell whether a file is mapped, or was changed
    /// by a mapping.
    pub fn hand_out(&self) -> io::Result<File> {
        let mut state = self.shared.state.write();
        let file = reopened(&state.file, OpenOptions::new().read(true))?;
        let kind = rustix::fs::fstatfs(&file)?.f_type;
        if !u64::try_from(kind).is_ok_and(|kind| NOTES_MAPPED_CHANGES.contains(&kind)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        lease::is_open_for_writing(&file)?;
        state.handed_out = true;
        Ok(file)
    }

    /// Tells whether a file that was handed out is the body's now.
    ///
    /// # Errors
    /// What the system says.
    pub fn has_file(&self, file: &File) -> io::Result<bool> {
        let (own, other) = (self.shared.state.read().file.metadata()?, file.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Lets others change a complete body at any time, and add to it. A snapshot that is alive gets a copy
    /// of all of them first.
    ///
    /// # Errors
    /// What the system says.
    pub fn lend(&self) -> io::Result<()> {
        let mut state = self.shared.state.write();
        if state.lent == 0 {
            let all = 0..state.size;
            state.preserve(&self.shared.layout, &all)?;
            state.note_local_change(all);
            let time = Timespec {
                tv_sec: UNTOUCHED_AT,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::futimens(&state.file, &times)?;
        }
        state.lent += 1;
        Ok(())
    }

    /// Takes note of what others have added to a body that is lent. Returns what
    /// [`Body::touched_at`] does.
    ///
    /// # Errors
    /// What the system says.
    pub fn catch_up(&self) -> io::Result<Option<Timestamp>> {
        let mut state = self.shared.state.write();
        let metadata = state.file.metadata()?;
        let added = state.size..metadata.len();
        if state.lent > 0 && !added.is_empty() {
            ranges::insert(&mut state.present, added.clone());
            state.size = added.end;
            state.note_local_change(added);
        }
        last_change(&metadata)
    }

    /// When the body was changed last since it was lent, in whatever way; `None` if it was not.
    ///
    /// # Errors
    /// What the system says.
    pub fn touched_at(&self) -> io::Result<Option<Timestamp>> {
        last_change(&self.shared.state.read().file.metadata()?)
    }

    /// Tells whether others can change the body's file still. Those who have it open for writing can,
    /// and those who have it mapped, which goes on after they have closed it.
    ///
    /// # Errors
    /// What the system says. The body cannot be written to then until this was asked again.
    pub fn is_held(&self) -> io::Result<bool> {
        let mut state = self.shared.state.write();
        let reader = reopened(&state.file, OpenOptions::new().read(true))?;
        let stand_in = Arc::new(reader.try_clone()?);
        // The body's own descriptor is one for writing, and must not count.
        let own = std::mem::replace(&mut state.file, stand_in);
        let held = match Arc::try_unwrap(own) {
            Err(in_use) => {
                // By somebody who puts it on stable storage, most likely.
                state.file = in_use;
                return Ok(true);
            }
            Ok(own) => {
                drop(own);
                lease::is_open_for_writing(&reader)
            }
        };
        let own = reopened(&reader, OpenOptions::new().read(true).write(true))?;
        state.file = Arc::new(own);
        held
    }

    /// Called before anybody uses a body that a daemon left behind. Programs that write to it still,
    /// through the mount of that daemon, keep the file, which nobody else sees any more; the body goes
    /// on with a copy of what they have written by now.
    ///
    /// # Errors
    /// What the system says; the body goes on with the file.
    pub fn leave_to_others(&self) -> io::Result<()> {
        // Where the system does not tell, nobody was let write on in that way.
        if !self.is_held().unwrap_or(false) {
            return Ok(());
        }
        let shared = &self.shared;
        let mut state = shared.state.write();
        let temp = shared.layout.temp_path(state.place, shared.id);
        let copy = shared.layout.create_file(state.place, &temp)?;
        copy.set_len(state.size)?;
        for part in state.present.iter() {
            fileops::copy(&state.file, &copy, part)?;
        }
        copy.sync_data()?;
        let path = shared.layout.path(state.place, shared.id);
        shared.layout.rename(&temp, state.place, &path)?;
        state.file = Arc::new(copy);
        Ok(())
    }

    /// Ends what [`Body::lend`] began.
    pub fn take_back(&self) {
        let mut state = self.shared.state.write();
        state.lent = state.lent.saturating_sub(1);
    }
}

/// When a lent file was changed last, if it was.
fn last_change(metadata: &Metadata) -> io::Result<Option<Timestamp>> {
    let touched = (metadata.mtime(), metadata.mtime_nsec()) != (UNTOUCHED_AT, 0);
    Ok(touched.then_some(Timestamp::from(metadata.modified()?)))
}

/// Opens an open file anew, in another way, wherever it lies by now.
fn reopened(file: &File, options: &OpenOptions) -> io::Result<File> {
    options.open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
