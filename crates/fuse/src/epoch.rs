//! Makes the kernel look up every name anew, at once.
//!
//! Forgetting a single name waits for the lock of its directory, which the kernel holds while it
//! waits for us, so it can only be done after the answer to a request: a program may use the name
//! in between. The kernel's epoch needs no lock. Raising it is for the rare moments in which a name
//! must not lead to where it did even for that long.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

/// `FUSE_NOTIFY_INC_EPOCH` of linux/fuse.h, since Linux 6.16; fuser 0.18 does not have it.
const RAISE_EPOCH: i32 = 8;

/// Bytes of a message that is nothing but its header: length, code, and no request it answers.
const HEADER_LEN: usize = 16;

/// What the kernel remembers of names, once there is a mount.
#[derive(Clone, Debug, Default)]
pub(crate) struct KernelNames {
    device: Arc<OnceLock<OwnedFd>>,
}

impl KernelNames {
    /// Says by which connection the kernel is reached.
    pub(crate) fn connect(&self, device: OwnedFd) {
        // Only the first one counts; there is one mount.
        let _first = self.device.set(device);
    }

    /// Makes the kernel ask for every name when it is used next. Never waits. Tells whether the
    /// kernel could do so.
    pub(crate) fn forget_all(&self) -> bool {
        let Some(device) = self.device.get() else {
            return false;
        };
        rustix::io::retry_on_intr(|| rustix::io::write(device, &message())).is_ok()
    }
}

/// The header of a notification, as linux/fuse.h lays it out.
fn message() -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let len = u32::try_from(HEADER_LEN).unwrap_or_default();
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..8].copy_from_slice(&RAISE_EPOCH.to_ne_bytes());
    bytes
}
