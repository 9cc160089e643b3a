//! How far the kernel reads ahead for a program that goes through a file.
//!
//! For FUSE that is 128 KiB, which makes eight requests of a megabyte. A daemon cannot ask for more
//! when it mounts; root can set it afterwards. Everything works without.

use std::fs;

/// What is set, in KiB. More than this gains nothing.
const READ_AHEAD_KIB: u32 = 512;

/// Raises the read-ahead of a mount, where that is permitted.
pub(crate) fn raise(connection: u32) {
    let path = format!("/sys/class/bdi/0:{connection}/read_ahead_kb");
    if let Err(error) = raise_at(&path) {
        tracing::debug!(%error, "the kernel's read-ahead stays as it is");
    }
}

fn raise_at(path: &str) -> std::io::Result<()> {
    let now = fs::read_to_string(path)?.trim().parse::<u32>();
    if now.is_ok_and(|now| now < READ_AHEAD_KIB) {
        fs::write(path, READ_AHEAD_KIB.to_string())?;
    }
    Ok(())
}
