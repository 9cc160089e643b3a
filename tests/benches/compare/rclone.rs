//! rclone as the peer.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onedrivefs_tests::{Service, needs, process, wait};

/// A mount by rclone with its full cache, like people use it.
pub struct Rclone {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Rclone {
    /// Mounts the default drive.
    pub fn mount(service: &Service) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let drive = service.default_drive();
        let login = service.login_url();
        let config = format!(
            "[sim]\ntype = onedrive\nclient_id = rclone\nclient_secret = rclone\n\
             auth_url = {login}/common/oauth2/v2.0/authorize\n\
             token_url = {login}/common/oauth2/v2.0/token\n\
             tenant_url = {login}\ndrive_id = {}\ndrive_type = {}\ntoken = {}\n",
            drive.id(),
            drive.kind().as_str(),
            service.token_response("rclone"),
        );
        fs::write(dir.path().join("rclone.conf"), config).expect("configuration");
        fs::create_dir(dir.path().join("mnt")).expect("mountpoint");
        let mut made = Self { dir, child: None };
        made.start();
        made
    }

    fn start(&mut self) {
        let child = Command::new(needs::rclone().expect("rclone"))
            .env("HOME", self.dir.path())
            .arg("mount")
            .arg("--config")
            .arg(self.dir.path().join("rclone.conf"))
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .args(["--vfs-cache-mode", "full", "sim:"])
            .arg(self.at(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rclone");
        self.child = Some(child);
        wait::until("rclone's mount", wait::secs(20), || {
            onedrivefs_tests::mount::is_mounted(&self.dir.path().join("mnt"))
        });
    }

    /// A path on the mount.
    pub fn at(&self, below: &str) -> PathBuf {
        let mnt = self.dir.path().join("mnt");
        if below.is_empty() {
            mnt
        } else {
            mnt.join(below)
        }
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.at("")).status());
        if let Some(mut child) = self.child.take()
            && process::wait(&mut child, Duration::from_secs(20)).is_none()
        {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
