//! Runs fusermount3, the setuid helper through which ordinary users mount and unmount.
//!
//! The helper opens /dev/fuse as root, mounts it and hands the open device back over a socket
//! whose number it takes from an environment variable. The socket is given as its standard input,
//! so that no other descriptor of this process is ever inherited by a child.

use std::env;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::MountError;

/// Names of the helper, the current one first.
const NAMES: [&str; 2] = ["fusermount3", "fusermount"];

/// Where the helper may be when `PATH` lacks it, as it does for system accounts.
const FALLBACK_DIRS: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// Environment variable that names another helper; libfuse's convention on NixOS and the like.
const OVERRIDE: &str = "FUSERMOUNT_PATH";

/// Environment variable that tells the helper which descriptor to send the device over.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// How long the helper may take. It makes a handful of system calls; only a stuck filesystem on
/// the way to the mountpoint can hold it up.
const HELPER_LIMIT: Duration = Duration::from_secs(20);

/// How often a running helper is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Finds the helper.
fn find() -> Result<PathBuf, MountError> {
    if let Some(path) = env::var_os(OVERRIDE) {
        return Some(PathBuf::from(path))
            .filter(|path| path.is_file())
            .ok_or(MountError::HelperMissing);
    }
    let search = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&search)
        .filter(|dir| dir.is_absolute())
        .chain(FALLBACK_DIRS.iter().map(PathBuf::from))
        .collect();
    NAMES
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
        .ok_or(MountError::HelperMissing)
}

/// Prepares a run of the helper with untranslated messages.
fn command() -> Result<Command, MountError> {
    let mut command = Command::new(find()?);
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Starts the helper.
fn start(mut command: Command, path: &Path) -> Result<Child, MountError> {
    command
        .spawn()
        .map_err(|error| MountError::system("run fusermount3 for", path, error))
}

/// Waits for the helper; kills it when it is late. Returns what it said.
fn finish(mut child: Child, path: &Path) -> Result<(ExitStatus, String), MountError> {
    let give_up = Instant::now() + HELPER_LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < give_up => thread::sleep(POLL_INTERVAL),
            Ok(None) => {
                // Its exit status is of no interest any more; the wait only reaps it.
                drop(child.kill().and_then(|()| child.wait()));
                return Err(MountError::HelperStuck {
                    path: path.to_owned(),
                    limit: HELPER_LIMIT,
                });
            }
            Err(error) => return Err(MountError::system("wait for fusermount3 on", path, error)),
        }
    };
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        // An unreadable message is no reason to hide the exit status.
        drop(stderr.read_to_end(&mut said));
    }
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Mounts at `path` and returns the open FUSE device.
pub(crate) fn mount(path: &Path, options: &str) -> Result<OwnedFd, MountError> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| MountError::system("open a socket for", path, error))?;
    ours.set_read_timeout(Some(HELPER_LIMIT))
        .map_err(|error| MountError::system("set up a socket for", path, error))?;
    let mut command = command()?;
    command
        .stdin(OwnedFd::from(theirs))
        .env(SOCKET_VARIABLE, "0")
        .args(["-o", options, "--"])
        .arg(path);
    // `start` drops the command, and with it our copy of the helper's end of the socket: without
    // that, a helper that fails would leave us waiting instead of reading the end of the stream.
    let child = start(command, path)?;
    let device = receive_device(&ours);
    let (status, said) = finish(child, path)?;
    match device {
        Some(device) if status.success() => Ok(device),
        _ => Err(refusal(&said, path)),
    }
}

/// Unmounts at `path`: at once, or lazily when it is in use.
pub(crate) fn unmount(path: &Path, lazily: bool) -> Result<(), MountError> {
    let mut command = command()?;
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    command.arg("--").arg(path);
    let (status, said) = finish(start(command, path)?, path)?;
    if status.success() {
        return Ok(());
    }
    Err(refusal(&said, path))
}

/// Takes the device out of the helper's message; `None` when there was none.
fn receive_device(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    received.ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Turns the helper's message into an error that names the next step.
fn refusal(said: &str, path: &Path) -> MountError {
    let path = path.to_owned();
    if said.contains("user_allow_other") {
        MountError::AllowOtherDenied
    } else if said.contains("modprobe fuse") || said.contains("device not found") {
        MountError::DeviceMissing
    } else if said.contains("failed to open /dev/fuse") {
        MountError::DeviceDenied
    } else if said.contains("no write access to mountpoint")
        || said.contains("not owned by user")
        || said.contains("access mountpoint") && said.contains("Permission denied")
    {
        MountError::NoAccess { path }
    } else if said.contains("resource busy") {
        MountError::Busy { path }
    } else {
        MountError::Refused {
            path,
            reason: said.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_errors_with_a_next_step() {
        let path = Path::new("/mnt/x");
        type Expected = fn(&MountError) -> bool;
        let cases: [(&str, Expected); 6] = [
            (
                "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
                |error| matches!(error, MountError::AllowOtherDenied),
            ),
            (
                "fusermount3: fuse device not found, try 'modprobe fuse' first",
                |error| matches!(error, MountError::DeviceMissing),
            ),
            (
                "fusermount3: failed to open /dev/fuse: Permission denied",
                |error| matches!(error, MountError::DeviceDenied),
            ),
            (
                "fusermount3: user has no write access to mountpoint /mnt/x",
                |error| matches!(error, MountError::NoAccess { .. }),
            ),
            (
                "fusermount3: failed to unmount /mnt/x: Device or resource busy",
                |error| matches!(error, MountError::Busy { .. }),
            ),
            (
                "fusermount3: mount failed: Operation not permitted",
                |error| matches!(error, MountError::Refused { reason, .. } if reason.contains("Operation")),
            ),
        ];
        for (said, expected) in cases {
            let error = refusal(said, path);
            assert!(expected(&error), "{said} became {error:?}");
        }
        assert!(
            MountError::HelperMissing
                .to_string()
                .contains("package fuse3")
        );
    }
}
