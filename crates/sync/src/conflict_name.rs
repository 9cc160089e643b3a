//! Names of conflict copies.

use onedrivefs_core::name::NAME_MAX_UTF16;
use onedrivefs_core::{Ino, Timestamp};
use onedrivefs_store::{StoreError, Tx};

/// Longest extension that is kept at the end of a copy's name, in bytes. What is longer is not an
/// extension but a name with a dot in it.
const EXTENSION_MAX: usize = 16;

/// The name of the `n`th conflict copy of a file.
#[must_use]
pub fn conflict_name(name: &str, host: &str, date: &str, n: u32) -> String {
    let count = if n > 1 {
        format!(" {n}")
    } else {
        String::new()
    };
    marked_name(name, &format!(" (conflict {host} {date}{count})"))
}

/// A name with a mark before its extension, shortened to what the service takes.
#[must_use]
pub fn marked_name(name: &str, mark: &str) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= EXTENSION_MAX => name.split_at(at),
        _ => (name, ""),
    };
    let room = NAME_MAX_UTF16
        .saturating_sub(mark.encode_utf16().count() + extension.encode_utf16().count());
    let mut used = 0;
    let kept: String = stem
        .chars()
        .take_while(|c| {
            used += c.len_utf16();
            used <= room
        })
        .collect();
    format!("{kept}{mark}{extension}")
}

/// The first conflict name that is free in a directory.
///
/// # Errors
/// The store's errors.
pub fn free_conflict_name(
    tx: &Tx<'_>,
    parent: Ino,
    name: &str,
    host: &str,
    now: Timestamp,
) -> Result<String, StoreError> {
    let date = now.to_service();
    let date = date.split('T').next().unwrap_or_default();
    let mut n = 1;
    loop {
        let candidate = conflict_name(name, host, date, n);
        let taken = tx.child(parent, &candidate)?.is_some()
            || !tx.remote_children_named(parent, &candidate)?.is_empty();
        if !taken {
            return Ok(candidate);
        }
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_stays_at_the_end() {
        assert_eq!(
            conflict_name("thesis.odt", "ada", "2026-11-21", 1),
            "thesis (conflict ada 2026-11-21).odt"
        );
        assert_eq!(
            conflict_name(".bashrc", "ada", "2026-11-21", 2),
            ".bashrc (conflict ada 2026-11-21 2)"
        );
    }

    #[test]
    fn long_names_keep_within_the_limit() {
        let name = format!("{}.txt", "ö".repeat(300));
        let copy = conflict_name(&name, "ada", "2026-11-21", 12);
        assert!(copy.encode_utf16().count() <= NAME_MAX_UTF16 && copy.ends_with(").txt"));
    }
}
