//! Extended attributes: `user.*` is kept on this machine, `user.onedrive.*` tells what the service
//! knows and what is kept here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use onedrivefs_core::Ino;
use onedrivefs_sync::PinnedBy;

use crate::error::VfsError;
use crate::vfs::Vfs;

/// Attributes that this file system provides.
const OWN_PREFIX: &[u8] = b"user.onedrive.";

/// Names of the attributes that this file system provides.
const OWN: &[&str] = &["id", "status", "pinned", "weburl", "hash", "etag"];

/// Largest value, in bytes, the limit the kernel has.
const VALUE_MAX: usize = 64 * 1024;

impl Vfs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `NoAttribute`, `NotFound`.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>, VfsError> {
        let name = name.as_bytes();
        if let Some(own) = name.strip_prefix(OWN_PREFIX) {
            return self
                .own_attribute(ino, own)?
                .map(String::into_bytes)
                .ok_or(VfsError::NoAttribute);
        }
        self.store()
            .read(|r| r.xattr(ino, name))?
            .ok_or(VfsError::NoAttribute)
    }

    /// What the service knows of an item.
    fn own_attribute(&self, ino: Ino, name: &[u8]) -> Result<Option<String>, VfsError> {
        let item = self.item(ino)?;
        let remote = item.remote.as_ref();
        Ok(match name {
            b"id" => remote.map(|r| r.id.to_string()),
            b"weburl" => item.web_url.clone(),
            b"hash" => remote.and_then(|r| r.hash).map(|hash| hash.to_string()),
            b"etag" => remote
                .and_then(|r| r.etag.as_ref())
                .map(|tag| tag.as_str().to_owned()),
            b"pinned" => {
                let by = self.store().read(|r| r.pin_of(ino))?;
                by.map(|by| PinnedBy::of(ino, by).word().to_owned())
            }
            b"status" => Some(self.engine.file_state(&item)?.word().to_owned()),
            _ => None,
        })
    }

    /// The names of all attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let mut list = Vec::new();
        for own in OWN {
            if self.own_attribute(ino, own.as_bytes())?.is_some() {
                list.extend_from_slice(OWN_PREFIX);
                list.extend_from_slice(own.as_bytes());
                list.push(0);
            }
        }
        for name in self.store().read(|r| r.xattr_names(ino))? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    /// Sets an attribute. `create` wants it new, `replace` wants it to be there.
    ///
    /// # Errors
    /// `NotPermitted` for the attributes this file system provides; `Exists`, `NoAttribute`.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &OsStr,
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), VfsError> {
        self.check_writable()?;
        if self.engine.config.groups {
            let item = self.item(ino)?;
            self.check_changing(&item)?;
        }
        let name = name.as_bytes();
        if name.starts_with(OWN_PREFIX) {
            return Err(VfsError::NotPermitted);
        }
        if value.len() > VALUE_MAX {
            return Err(VfsError::NoSpace);
        }
        self.store().write(|tx| {
            if tx.item(ino)?.is_none() {
                return Err(VfsError::NotFound);
            }
            match tx.xattr(ino, name)?.is_some() {
                true if create => return Err(VfsError::Exists),
                false if replace => return Err(VfsError::NoAttribute),
                _ => {}
            }
            Ok(tx.set_xattr(ino, name, value)?)
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// `NotPermitted` for the attributes this file system provides; `NoAttribute`.
    pub fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<(), VfsError> {
        self.check_writable()?;
        if self.engine.config.groups {
            let item = self.item(ino)?;
            self.check_changing(&item)?;
        }
        let name = name.as_bytes();
        if name.starts_with(OWN_PREFIX) {
            return Err(VfsError::NotPermitted);
        }
        let removed = self
            .store()
            .write(|tx| Ok::<_, VfsError>(tx.remove_xattr(ino, name)?))?;
        if removed {
            Ok(())
        } else {
            Err(VfsError::NoAttribute)
        }
    }
}
