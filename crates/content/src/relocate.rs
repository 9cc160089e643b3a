//! Moves a body between cache and spool while it is in use.
//!
//! Inside one file system this is a rename. Across two the bytes are copied in rounds without the
//! lock, each round taking what changed during the one before, so that readers and writers wait
//! for the last, short round only. The old file goes when the new one is on stable storage.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use onedrivefs_core::kill_point;
use rangemap::RangeSet;

use crate::body::Shared;
use crate::layout::{self, remove_if_there};
use crate::{ContentError, Place, fileops, ranges};

/// What may be copied while everybody waits: about a millisecond's work.
const LAST_ROUND_BYTES: u64 = 1024 * 1024;
/// Rounds after which the rest is copied while everybody waits, so that a writer who is faster
/// than the copy cannot keep it from ending.
const ROUNDS_MAX: u32 = 4;

/// Whether files can be renamed between the two folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moves {
    /// They share a file system.
    Rename,
    /// They do not.
    Copy,
}

/// Moves a body; nothing happens when it is there already.
pub(crate) fn relocate(shared: &Shared, to: Place, moves: Moves) -> Result<(), ContentError> {
    let _moving = shared.moving.lock();
    if shared.state.read().place == to {
        return Ok(());
    }
    let target = shared.layout.path(to, shared.id);
    if moves == Moves::Rename {
        match rename(shared, to, &target) {
            Ok(true) => return Ok(()),
            // The file was removed under us: the open descriptor still has the bytes.
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            Err(error) => return Err(ContentError::new("moving a body to", &target, error)),
        }
    }
    let temp = shared.layout.temp_path(to, shared.id);
    let copied = copy(shared, to, &temp, &target);
    if copied.is_err() {
        shared.state.write().uncopied = None;
        // Best effort: what stays behind is cleared at the next start.
        let _left_behind = remove_if_there(&temp);
    }
    copied.map_err(|error| ContentError::new("copying a body to", &target, error))
}

/// Renames the body's file; `false` when its old name no longer leads to it.
fn rename(shared: &Shared, to: Place, target: &Path) -> io::Result<bool> {
    let mut state = shared.state.write();
    let source = shared.layout.path(to.other(), shared.id);
    if !leads_to(&source, &state.file)? {
        return Ok(false);
    }
    kill_point("before-body-move");
    match shared.layout.rename(&source, to, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    kill_point("body-moved");
    shared.layout.mark_unsynced(to.other(), &source);
    state.place = to;
    Ok(true)
}

/// Tells whether a path is a name of an open file.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let named = match fs::symlink_metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let open = file.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

/// Copies the body and switches to the copy.
fn copy(shared: &Shared, to: Place, temp: &Path, target: &Path) -> io::Result<()> {
    let copy = shared.layout.create_file(to, temp)?;
    kill_point("body-copy-begun");
    {
        let mut state = shared.state.write();
        let all = state.present.clone();
        state.uncopied = Some(all);
    }
    for _round in 0..ROUNDS_MAX {
        let (file, todo, size) = {
            let mut state = shared.state.write();
            let todo = state.uncopied.replace(RangeSet::new()).unwrap_or_default();
            if ranges::total(todo.iter()) <= LAST_ROUND_BYTES {
                state.uncopied = Some(todo);
                break;
            }
            (Arc::clone(&state.file), todo, state.size)
        };
        match copy_round(&file, &copy, &todo, size) {
            Ok(()) => copy.sync_data()?,
            // The body was cut meanwhile; what is left of this round is taken up again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let mut state = shared.state.write();
                todo.into_iter().for_each(|range| state.note_changed(range));
            }
            Err(error) => return Err(error),
        }
    }
    kill_point("body-copy-nearly-done");
    let old = switch(shared, to, copy, temp, target)?;
    if let Some(parent) = target.parent() {
        layout::sync_dir(parent)?;
    }
    let source = shared.layout.path(to.other(), shared.id);
    if leads_to(&source, &old)? {
        kill_point("before-body-original-remove");
        remove_if_there(&source)?;
        kill_point("body-original-removed");
        shared.layout.mark_unsynced(to.other(), &source);
    }
    Ok(())
}

/// Copies what is left and makes the copy the body's file, while everybody waits. Returns the old
/// file.
fn switch(
    shared: &Shared,
    to: Place,
    copy: File,
    temp: &Path,
    target: &Path,
) -> io::Result<Arc<File>> {
    let mut state = shared.state.write();
    let todo = state.uncopied.take().unwrap_or_default();
    copy_round(&state.file, &copy, &todo, state.size)?;
    copy.sync_all()?;
    kill_point("before-body-copy-name");
    shared.layout.rename(temp, to, target)?;
    kill_point("body-copy-named");
    state.place = to;
    Ok(std::mem::replace(&mut state.file, Arc::new(copy)))
}

/// Makes some ranges of the copy equal to the body's.
fn copy_round(from: &File, copy: &File, todo: &RangeSet<u64>, size: u64) -> io::Result<()> {
    copy.set_len(size)?;
    for range in ranges::clipped(todo, &(0..size)).iter() {
        fileops::punch(copy, range)?;
        fileops::copy(from, copy, range)?;
    }
    Ok(())
}
