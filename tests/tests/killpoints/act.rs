//! What is done while the daemon may die: programs here, somebody else there, one step at a time.

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::Service;
use serde_json::Value;

use crate::tree::{File, Node};

/// A little more than one fragment of an upload, in bytes.
pub const LARGE: usize = 32 * 327_680 + 300_000;

/// Bytes told by a number.
#[derive(Clone, Copy, Debug)]
pub struct Body(pub u64, pub usize);

impl Body {
    /// The bytes: without a pattern, the same for the same number.
    pub fn make(self) -> Vec<u8> {
        let mut state = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let len = self.1;
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A new one for writing.
    Create,
    /// One that is there, for writing.
    Write,
    /// The same, and only that.
    Overwrite,
    /// The same, empty.
    Truncate,
    /// The same, at its end.
    Append,
}

/// What somebody else does on the service.
pub type Deed = fn(&DriveHandle);

/// The same where it is not about the drive that is mounted.
pub type ServiceDeed = fn(&Service);

/// What is waited for, going by what `status --json` says.
pub type Holds = fn(&Value, &Service) -> bool;

/// What a deed shows here, once it has arrived: paths, and what is there then.
pub type Effects = fn() -> Vec<(String, Option<Node>)>;

/// One step. Paths are relative to the mount.
#[derive(Clone, Copy)]
pub enum Act {
    Mkdir(&'static str),
    Rmdir(&'static str),
    Unlink(&'static str),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Open(u32, &'static str, How),
    Write(u32, usize, Body),
    Append(u32, Body),
    /// All of the file at a path, into a file that is open and empty.
    Copy(u32, &'static str),
    SetLen(u32, usize),
    Fsync(u32),
    Close(u32),
    Truncate(&'static str, usize),
    /// Offset and length of what is to be zeros.
    Zero(u32, usize, usize),
    /// The same, giving the space back.
    Punch(u32, usize, usize),
    /// Modification time in seconds.
    Times(&'static str, i64),
    /// Path and target.
    Link(&'static str, &'static str),
    /// Path, offset, length.
    Read(&'static str, u64, usize),
    /// Somebody else.
    There(&'static str, Deed, Effects),
    /// The same on any drive, and what the service is told to do.
    Elsewhere(&'static str, ServiceDeed, Effects),
    /// A command about a path, and what it shows here as soon as it is done.
    Command(&'static str, &'static str, Effects),
    /// Copies what is parked at a path out of the mount.
    Export(&'static str),
    Offline,
    Online,
    /// From here on fragments take their time.
    Slow,
    Swift,
    /// Waits until an upload session for this name has begun and nothing has arrived.
    Begun(&'static str),
    /// Waits until the service is making a copy of this name.
    Copying(&'static str),
    /// Waits until some bytes of the file of this name are on the service, and not all.
    Sent(&'static str),
    /// Waits until something holds.
    Until(&'static str, Holds),
    /// Waits until both sides are in step.
    Sync,
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mkdir(path) => write!(f, "mkdir {path}"),
            Self::Rmdir(path) => write!(f, "rmdir {path}"),
            Self::Unlink(path) => write!(f, "unlink {path}"),
            Self::Rename(from, to) => write!(f, "rename {from} to {to}"),
            Self::Exchange(a, b) => write!(f, "exchange {a} and {b}"),
            Self::Open(slot, path, how) => write!(f, "open {slot} = {path} ({how:?})"),
            Self::Write(slot, at, body) => write!(f, "write to {slot} at {at}: {body:?}"),
            Self::Append(slot, body) => write!(f, "append to {slot}: {body:?}"),
            Self::Copy(slot, from) => write!(f, "copy {from} into {slot}"),
            Self::SetLen(slot, len) => write!(f, "ftruncate {slot} to {len}"),
            Self::Fsync(slot) => write!(f, "fsync {slot}"),
            Self::Close(slot) => write!(f, "close {slot}"),
            Self::Truncate(path, len) => write!(f, "truncate {path} to {len}"),
            Self::Zero(slot, at, len) => write!(f, "zero {slot} at {at}: {len} bytes"),
            Self::Punch(slot, at, len) => write!(f, "punch {slot} at {at}: {len} bytes"),
            Self::Times(path, seconds) => write!(f, "utimens {path}: {seconds}"),
            Self::Link(path, target) => write!(f, "symlink {path} to {target}"),
            Self::Read(path, at, len) => write!(f, "read {path} at {at}: {len} bytes"),
            Self::There(what, ..) | Self::Elsewhere(what, ..) => write!(f, "elsewhere: {what}"),
            Self::Command(verb, path, _) => write!(f, "onedrivefs {verb} {path}"),
            Self::Export(path) => write!(f, "onedrivefs export {path}"),
            Self::Offline => write!(f, "offline"),
            Self::Online => write!(f, "online"),
            Self::Slow => write!(f, "fragments are slow"),
            Self::Swift => write!(f, "fragments are fast"),
            Self::Begun(name) => write!(f, "wait until {name} is about to be sent"),
            Self::Copying(name) => write!(f, "wait until {name} is being copied"),
            Self::Sent(name) => write!(f, "wait until {name} is being sent"),
            Self::Until(what, _) => write!(f, "wait until {what}"),
            Self::Sync => write!(f, "sync"),
        }
    }
}

/// A file that somebody else made.
pub fn elsewhere(body: Body) -> Node {
    let mut file = File::here(body.make());
    file.here = false;
    Node::File(file)
}

/// A file that was made here.
pub fn ours(body: Body) -> Node {
    Node::File(File::here(body.make()))
}

/// One effect.
pub fn at(path: &str, node: Option<Node>) -> (String, Option<Node>) {
    (path.to_owned(), node)
}

/// No effects.
pub fn nothing() -> Vec<(String, Option<Node>)> {
    Vec::new()
}

/// A new file, written and closed.
pub fn make(path: &'static str, body: Body) -> [Act; 3] {
    [
        Act::Open(1, path, How::Create),
        Act::Write(1, 0, body),
        Act::Close(1),
    ]
}

/// A file that is emptied and written anew.
pub fn rewrite(path: &'static str, body: Body) -> [Act; 3] {
    [
        Act::Open(1, path, How::Truncate),
        Act::Write(1, 0, body),
        Act::Close(1),
    ]
}
