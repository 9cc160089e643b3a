//! Where things are, for those who are told of changes by their path.

use onedrivefs_core::Ino;

use crate::types::FileKind;
use crate::vfs::Vfs;

impl Vfs {
    /// What has exactly this name in a directory, as far as is known here. A database that fails
    /// tells nothing.
    #[must_use]
    pub fn kind_at(&self, parent: Ino, name: &str) -> Option<FileKind> {
        let item = self.store().read(|r| r.child(parent, name)).ok()??;
        (item.name == name).then(|| item.kind.into())
    }

    /// The directory and the name of something that has one.
    #[must_use]
    pub fn place_of(&self, ino: Ino) -> Option<(Ino, String)> {
        let item = self.store().read(|r| r.item(ino)).ok()??;
        Some((item.parent?, item.name.clone()))
    }

    /// The path of something from the root, without a slash at its beginning.
    #[must_use]
    pub fn path_of(&self, ino: Ino) -> Option<String> {
        self.store().read(|r| r.path(ino)).ok()
    }
}
