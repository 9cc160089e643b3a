//! Small disks of their own in place of directories, so that they can be filled.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::wait;

/// A small disk mounted over a directory. Needs root.
pub struct SmallDisk {
    path: PathBuf,
    image: Option<PathBuf>,
}

impl SmallDisk {
    /// A disk in memory.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn at(path: PathBuf, mib: u32) -> Self {
        let options = format!("size={mib}m,mode=700");
        let disk = Self { path, image: None };
        disk.mount(&["-t", "tmpfs", "-o", &options, "none"]);
        disk
    }

    /// A disk with a file system that becomes read-only when it meets an error.
    ///
    /// # Panics
    /// When it cannot be made or mounted.
    #[must_use]
    pub fn with_journal(path: PathBuf, image: PathBuf, mib: u32) -> Self {
        let file = File::create(&image).expect("image");
        file.set_len(u64::from(mib) << 20).expect("image");
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-E", "root_owner=0:0"]).arg(&image);
        process::run(make, wait::secs(30)).ok();
        let disk = Self {
            path,
            image: Some(image),
        };
        disk.mount_image();
        disk
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are free on it.
    ///
    /// # Panics
    /// When it does not tell.
    #[must_use]
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).expect("statvfs");
        stat.f_bavail * stat.f_frsize
    }

    fn mount(&self, arguments: &[&str]) {
        let mut command = Command::new("mount");
        command.args(arguments).arg(&self.path);
        process::run(command, wait::secs(10)).ok();
    }

    fn mount_image(&self) {
        let image = self.image.as_ref().and_then(|image| image.to_str());
        let options = ["-o", "loop,errors=remount-ro", image.expect("image")];
        self.mount(&options);
    }

    /// Lets nobody write any more. Nothing may be open for writing.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn make_read_only(&self) {
        self.mount(&["-o", "remount,ro"]);
    }

    /// Has the file system meet an error, whereupon it becomes read-only whoever uses it.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn break_down(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let here = format!(" {} ", self.path.display());
        let line = mounts.lines().find(|line| line.contains(&here));
        let device = line
            .and_then(|line| line.split(' ').next())
            .expect("device");
        let name = device.trim_start_matches("/dev/");
        let trigger = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        fs::write(trigger, "a test").expect("triggered");
    }

    /// Repairs what broke down, once nobody uses it.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn repair(&self) {
        let mut away = Command::new("umount");
        away.arg(&self.path);
        process::run(away, wait::secs(10)).ok();
        let mut check = Command::new("fsck.ext4");
        check.arg("-fy").arg(self.image.as_ref().expect("image"));
        process::run(check, wait::secs(30));
        self.mount_image();
    }

    /// Takes all the room there is. It comes back when the ballast is dropped.
    #[must_use]
    pub fn fill(&self) -> Ballast {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.path.join(format!("ballast {number}"));
        let ballast = Ballast { path };
        ballast.grow();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

/// A file that takes the room on a disk.
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Takes what became free meanwhile.
    ///
    /// # Panics
    /// When the file cannot be written for another reason than that the disk is full.
    pub fn grow(&self) {
        let mut options = File::options();
        let mut file = options
            .create(true)
            .append(true)
            .open(&self.path)
            .expect("ballast");
        for piece in [1 << 20, 4096, 512] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}
