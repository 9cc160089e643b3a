//! The files of a database: what they look like before SQLite is let at them.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// The names of the files of a database, whose path is that of the first: itself, its log, and the
/// index of the log.
pub const FILES: [&str; 3] = ["meta.db", "meta.db-wal", "meta.db-shm"];

/// The file that says that the database is damaged, beside it.
pub const DAMAGE_MARK: &str = "meta.db.damaged";

/// Bytes at the beginning of a log that describe it.
const LOG_HEADER: usize = 32;

/// First bytes of a log, whose last bit tells the byte order of its checksums.
const LOG_MAGIC: u32 = 0x377f_0682;

/// Longest reason that is read from a mark.
const REASON_MAX: u64 = 1000;

fn log_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn mark_path(database: &Path) -> PathBuf {
    database.with_file_name(DAMAGE_MARK)
}

/// Tells whether there is nothing in the database file.
pub(crate) fn is_blank(database: &Path) -> bool {
    match std::fs::metadata(database) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Tells whether the log holds anything: nobody closed the database in order.
pub(crate) fn has_log(database: &Path) -> bool {
    std::fs::metadata(log_path(database)).is_ok_and(|found| found.len() > 0)
}

/// Leaves a note for the next start that the database is damaged.
pub(crate) fn mark_damaged(database: &Path, reason: &str) {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let marked = options
        .open(mark_path(database))
        .and_then(|mut mark| mark.write_all(reason.as_bytes()));
    if let Err(error) = marked {
        // The next start will find the damage by itself, if not as soon.
        tracing::warn!(%error, "The damage could not be noted.");
    }
}

/// Looks for damage that SQLite would pass over in silence: an earlier note of damage, and a log
/// that is none, which SQLite takes for an empty one although all recent changes were in it.
///
/// # Errors
/// `Damaged`.
pub(crate) fn check(database: &Path) -> Result<(), StoreError> {
    if let Ok(mark) = File::open(mark_path(database)) {
        let mut reason = String::new();
        // Whatever it says, it is there.
        let _unreadable = mark.take(REASON_MAX).read_to_string(&mut reason);
        return Err(StoreError::Damaged { reason });
    }
    let mut header = [0; LOG_HEADER];
    let Ok(mut log) = File::open(log_path(database)) else {
        return Ok(());
    };
    match log.read_exact(&mut header) {
        Ok(()) if header == [0; LOG_HEADER] || is_log(&header) => Ok(()),
        Ok(()) => Err(StoreError::Damaged {
            reason: "its log is overwritten".to_owned(),
        }),
        // Too short for anything to be in it.
        Err(_) => Ok(()),
    }
}

/// Tells whether the first bytes of a log are in order.
pub(crate) fn is_log(header: &[u8; LOG_HEADER]) -> bool {
    let word = |at: usize| read_word(header, at, true);
    let magic = word(0);
    if magic & !1 != LOG_MAGIC {
        return false;
    }
    let big_endian = magic & 1 == 1;
    let (mut one, mut two) = (0_u32, 0_u32);
    for at in (0..24).step_by(8) {
        let value = |at| read_word(header, at, big_endian);
        one = one.wrapping_add(value(at)).wrapping_add(two);
        two = two.wrapping_add(value(at + 4)).wrapping_add(one);
    }
    (one, two) == (word(24), word(28))
}

fn read_word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = bytes[at..at + 4].try_into().unwrap_or_default();
    if big_endian {
        u32::from_be_bytes(word)
    } else {
        u32::from_le_bytes(word)
    }
}
