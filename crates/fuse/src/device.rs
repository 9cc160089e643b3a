//! Mounts and obtains the open FUSE device: directly with the privilege, else by fusermount3.
//!
//! fuser can mount by itself, but then its destructor unmounts whatever is at the mountpoint by
//! that time, and its errors are texts. Mounting here leaves fuser the one thing it does well,
//! serving an open device, and keeps mounting and unmounting in one place.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{geteuid, getgid, getuid};

use crate::error::MountError;
use crate::fusermount;
use crate::mounts::FS_TYPE;

/// The FUSE device.
const DEVICE: &str = "/dev/fuse";

/// The part of the type after `fuse.`, which fusermount3 takes as an option.
const SUBTYPE: &str = "onedrivefs";

/// What to tell the kernel about the mount.
#[derive(Clone, Debug)]
pub(crate) struct MountRequest<'a> {
    /// An absolute path without links.
    pub(crate) path: &'a Path,
    /// The source that mount tables show.
    pub(crate) fs_name: &'a str,
    /// Whether the kernel refuses every change.
    pub(crate) read_only: bool,
    /// Whether users other than the mounting one are admitted.
    pub(crate) allow_other: bool,
}

/// Opens the FUSE device.
fn open() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Tells whether this process can open the FUSE device again, to give each thread its own.
pub(crate) fn can_open() -> bool {
    open().is_ok()
}

/// Mounts, and returns the device on which the kernel will send its requests.
pub(crate) fn connect(request: &MountRequest<'_>) -> Result<OwnedFd, MountError> {
    match open() {
        Ok(device) => match mount_directly(request, &device) {
            Ok(()) => Ok(device),
            Err(Errno::PERM) => fusermount::mount(request.path, &helper_options(request)),
            Err(error) => Err(MountError::system("mount on", request.path, error)),
        },
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Err(MountError::DeviceMissing),
        // The helper may be allowed what we are not.
        Err(Errno::ACCESS | Errno::PERM) if !geteuid().is_root() => {
            fusermount::mount(request.path, &helper_options(request))
        }
        Err(Errno::ACCESS | Errno::PERM) => Err(MountError::DeviceDenied),
        Err(error) => Err(MountError::system("open", Path::new(DEVICE), error)),
    }
}

/// Mounts by mount(2), which needs CAP_SYS_ADMIN.
fn mount_directly(request: &MountRequest<'_>, device: &OwnedFd) -> rustix::io::Result<()> {
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    flags.set(MountFlags::RDONLY, request.read_only);
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw(),
        if request.allow_other {
            ",allow_other"
        } else {
            ""
        },
    );
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let name = fs_name(request.fs_name);
    rustix::mount::mount(name, request.path, FS_TYPE, flags, data.as_c_str())
}

/// The same mount in the words of fusermount3.
fn helper_options(request: &MountRequest<'_>) -> String {
    let mut options = format!(
        "fsname={},subtype={SUBTYPE},default_permissions,nodev,nosuid",
        fs_name(request.fs_name)
    );
    if request.read_only {
        options.push_str(",ro");
    }
    if request.allow_other {
        options.push_str(",allow_other");
    }
    options
}

/// Makes a name safe for an option list and for line-based mount tables. It may hold the name of
/// a remote folder, and a comma in it would smuggle in an option.
fn fs_name(wanted: &str) -> String {
    let safe = |c: char| {
        if c.is_alphanumeric() || "-_.:@/+!".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = wanted.chars().map(safe).collect();
    if name.is_empty() {
        SUBTYPE.to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_smuggle_options() {
        assert_eq!(
            fs_name("onedrivefs:me@example.com"),
            "onedrivefs:me@example.com"
        );
        assert_eq!(fs_name("a,allow_other b\n\\"), "a_allow_other_b__");
        assert_eq!(fs_name(""), "onedrivefs");
        let request = MountRequest {
            path: Path::new("/mnt"),
            fs_name: "x,suid",
            read_only: true,
            allow_other: false,
        };
        assert_eq!(
            helper_options(&request),
            "fsname=x_suid,subtype=onedrivefs,default_permissions,nodev,nosuid,ro"
        );
    }
}
