//! What may be done where a directory is of no drive, but only shows what is in several.
//!
//! Nothing is made, removed or renamed there. Programs save files all the same, and some do so by way
//! of another file beside it: such files can be made under the names that never leave this machine, in
//! directories that show files, and take the place of a file that is shown.

use onedrivefs_core::Ino;
use onedrivefs_store::{Item, Kind};

use crate::error::VfsError;
use crate::types::RenameMode;
use crate::vfs::Vfs;

impl Vfs {
    fn groups(&self) -> bool {
        self.engine.config.groups
    }

    /// Checks that something may be made in a directory under a name.
    pub(crate) fn check_making(
        &self,
        directory: Ino,
        name: &str,
        kind: Kind,
    ) -> Result<(), VfsError> {
        if !self.groups() || self.is_aside(directory, name)? && kind == Kind::File {
            return Ok(());
        }
        Err(VfsError::ReadOnly)
    }

    /// Tells whether a name in a directory is one for what programs need for a moment.
    fn is_aside(&self, directory: Ino, name: &str) -> Result<bool, VfsError> {
        let local_only = self.engine.config.local_only.matches(name);
        Ok(local_only && self.store().read(|r| r.holds_link(directory))?)
    }

    /// Checks that an entry may be removed.
    pub(crate) fn check_removing(&self, item: &Item) -> Result<(), VfsError> {
        if !self.groups() || item.remote.is_none() {
            return Ok(());
        }
        Err(VfsError::ReadOnly)
    }

    /// Checks that an entry may be renamed, perhaps over another one.
    pub(crate) fn check_renaming(
        &self,
        source: &Item,
        target: Option<&Item>,
        (directory, name): (Ino, &str),
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let allowed = match target {
            _ if !self.groups() => true,
            _ if source.remote.is_some() || mode == RenameMode::Exchange => false,
            Some(target) => target.remote.is_none() || self.engine.link_of(target).is_some(),
            None => self.is_aside(directory, name)?,
        };
        if !allowed {
            return Err(VfsError::ReadOnly);
        }
        let replaced = target.filter(|_| mode != RenameMode::Exchange);
        if replaced.is_some_and(|target| self.engine.is_read_only_link(target)) {
            // What takes its place would be sent to where nothing may be changed.
            return Err(VfsError::AccessDenied);
        }
        Ok(())
    }

    /// Checks that the content or the times of an item may be changed, or what else is kept of it.
    pub(crate) fn check_changing(&self, item: &Item) -> Result<(), VfsError> {
        self.check_writable()?;
        if self.groups() && item.is_dir() {
            return Err(VfsError::ReadOnly);
        }
        if self.engine.is_read_only_link(item) {
            return Err(VfsError::AccessDenied);
        }
        Ok(())
    }
}
