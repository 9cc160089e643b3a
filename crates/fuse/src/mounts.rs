//! Answers "what is mounted there?" without touching the filesystem in question.
//!
//! `stat` on a mount asks its server, which may be dead, hung, or this very process before its
//! threads run. The kernel's mount table answers the same question without asking anybody.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// The kernel's table of the mounts this process can see.
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// The filesystem type of our mounts, in every mount table.
pub(crate) const FS_TYPE: &str = "fuse.onedrivefs";

/// Control directories of FUSE connections, named after the minor numbers of their mounts.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Time a server has to answer whether it lives; ours does so at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Longest chain of symbolic links that is followed to a mountpoint, as in the kernel.
const MAX_LINKS: usize = 40;

/// Major and minor number of a mounted filesystem; unique while the filesystem lives, even after
/// it has been detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device(u32, u32);

/// One line of the mount table.
#[derive(Clone, Debug)]
pub(crate) struct MountEntry {
    /// Number of the mount, reused after it is gone.
    pub(crate) id: u64,
    /// Number of the mount this one sits on.
    pub(crate) parent: u64,
    /// The filesystem.
    pub(crate) device: Device,
    /// Where it is mounted.
    pub(crate) path: PathBuf,
    /// `ext4`, `fuse.onedrivefs`, …
    pub(crate) fs_type: String,
    /// The source as the mounting program named it.
    pub(crate) source: String,
}

impl Device {
    /// The number of its connection.
    pub(crate) const fn connection(self) -> u32 {
        self.1
    }
}

impl MountEntry {
    /// Tells whether a program of ours made this mount.
    pub(crate) fn is_onedrivefs(&self) -> bool {
        self.fs_type == FS_TYPE
    }

    /// Tells whether the server of this FUSE mount is gone.
    ///
    /// `statfs` is the one call that the kernel never answers from its caches; with attributes
    /// cached for an hour, `stat` may succeed on a dead mount. A server that does not answer is
    /// not gone; whoever asks must not hang with it.
    pub(crate) fn is_dead(&self) -> bool {
        if !self.fs_type.starts_with("fuse") {
            return false;
        }
        let path = self.path.clone();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // Nobody listens any more after the limit.
            let _late = sender.send(rustix::fs::statfs(&path).map(drop));
        });
        matches!(
            receiver.recv_timeout(ANSWER_LIMIT),
            Ok(Err(Errno::NOTCONN | Errno::CONNABORTED))
        )
    }

    /// Ends the connection between the kernel and the server of this mount: all who wait for an
    /// answer get an error.
    pub(crate) fn abort(&self) -> io::Result<()> {
        abort_number(self.device.connection()).or_else(|error| {
            // Where that directory is not mounted, root has another way to the same end; the
            // mount stays, since it is in use.
            match rustix::mount::unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(Errno::BUSY) => Ok(()),
                Err(_) => Err(error),
            }
        })
    }
}

/// Ends the connection of this number, which must be that of a living mount of ours: numbers are
/// used again.
///
/// # Errors
/// What the system says when there is none, or this user may not.
pub fn abort_connection(number: u32) -> io::Result<()> {
    let entry = read()?
        .into_iter()
        .find(|entry| entry.is_onedrivefs() && entry.device.connection() == number);
    // One that is in use after it was taken out of the tree is in no table.
    entry.map_or_else(|| abort_number(number), |entry| entry.abort())
}

fn abort_number(number: u32) -> io::Result<()> {
    fs::write(format!("{CONNECTIONS}/{number}/abort"), "1")
}

/// Reads the mount table.
pub(crate) fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read(MOUNT_TABLE)?))
}

/// Finds the mount that is on top at `path`, which must be absolute and free of links.
pub(crate) fn topmost<'a>(table: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let here = |entry: &&MountEntry| entry.path == path;
    table.iter().rev().filter(here).find(|entry| {
        !table
            .iter()
            .filter(here)
            .any(|other| other.parent == entry.id && other.id != entry.id)
    })
}

/// Parses the mount table; lines of a shape not known are skipped.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// Parses `id parent major:minor root path options [tags…] - type source super-options`.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = Device(major.parse().ok()?, minor.parse().ok()?);
    let path = PathBuf::from(unescape(fields.nth(1)?));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = unescape(rest.next()?).to_string_lossy().into_owned();
    let source = rest.next().unwrap_or_default();
    let source = unescape(source).to_string_lossy().into_owned();
    Some(MountEntry {
        id,
        parent,
        device,
        path,
        fs_type,
        source,
    })
}

/// Parses a decimal number.
fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = escaped {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

/// Makes a path absolute and free of links, without asking a filesystem that is mounted there.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let table = read()?;
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return path.canonicalize();
        };
        let parent = parent.canonicalize()?;
        let candidate = parent.join(name);
        if topmost(&table, &candidate).is_some() {
            return Ok(candidate);
        }
        if !fs::symlink_metadata(&candidate)?.is_symlink() {
            return Ok(candidate);
        }
        path = parent.join(fs::read_link(&candidate)?);
    }
    Err(Errno::LOOP.into())
}

/// Tells whether `path` is a FUSE mount whose server is gone: "Transport endpoint is not
/// connected".
#[must_use]
pub fn is_stale(path: &Path) -> bool {
    let Ok(path) = resolve(path) else {
        return false;
    };
    read().is_ok_and(|table| topmost(&table, &path).is_some_and(MountEntry::is_dead))
}

/// Ends the connection of our mount at `path`, whose server was killed and cannot leave.
///
/// A killed daemon stays while one of its threads tells the kernel of a change in a folder in which
/// a program waits for an answer that will not come: the kernel lets neither go before the other,
/// and no signal ends either.
///
/// # Errors
/// When nothing of ours is mounted there, or this user may not.
pub fn abort(path: &Path) -> io::Result<()> {
    let path = resolve(path)?;
    let table = read()?;
    match topmost(&table, &path).filter(|entry| entry.is_onedrivefs()) {
        Some(entry) => entry.abort(),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 21 0:40 / /mnt/a\\040b\\134c rw,nosuid shared:7 master:2 - fuse.onedrivefs one\\040drive rw,user_id=0\n\
        31 30 0:41 / /mnt/a\\040b\\134c rw - tmpfs tmpfs rw\n\
        nonsense\n\
        32 21 0:42 / /mnt/plain rw - fuse.sshfs host: rw\n";

    #[test]
    fn reads_escapes_and_tags() {
        let table = parse(TABLE);
        assert_eq!(table.len(), 4);
        assert_eq!(table[1].path, Path::new("/mnt/a b\\c"));
        assert_eq!(table[1].source, "one drive");
        assert_eq!(table[1].device, Device(0, 40));
        assert!(table[1].is_onedrivefs());
        assert!(!table[3].is_onedrivefs());
    }

    #[test]
    fn the_upper_of_two_stacked_mounts_is_on_top_in_any_order() {
        let mut table = parse(TABLE);
        let path = Path::new("/mnt/a b\\c");
        assert_eq!(topmost(&table, path).unwrap().id, 31);
        table.reverse();
        assert_eq!(topmost(&table, path).unwrap().id, 31);
        assert!(topmost(&table, Path::new("/mnt")).is_none());
        assert_eq!(topmost(&table, Path::new("/")).unwrap().id, 21);
    }

    #[test]
    fn resolves_links_to_the_mountpoint() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real").canonicalize();
        assert!(real.is_err());
        fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        let expected = dir.path().canonicalize().unwrap().join("real");
        assert_eq!(resolve(&dir.path().join("link/")).unwrap(), expected);
        assert_eq!(resolve(&dir.path().join("real/../real")).unwrap(), expected);
        assert!(resolve(&dir.path().join("loop")).is_err());
        assert_eq!(resolve(Path::new("/proc")).unwrap(), Path::new("/proc"));
        assert!(!is_stale(&expected));
    }
}
