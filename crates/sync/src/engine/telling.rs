//! What the kernel must forget, and who has to wait until it has.

use onedrivefs_core::Ino;

use super::{Engine, Foreseer, KernelListener, OpenFiles};
use crate::announce::{Announcement, Announcing};
use crate::change::KernelChange;

impl Engine {
    /// Says who is told what the kernel must forget.
    pub fn set_kernel_listener(&self, listener: KernelListener) {
        *self.listener.write() = Some(listener);
    }

    /// Says who learns before each commit what the kernel must forget after it.
    pub fn set_foreseer(&self, foreseer: Foreseer) {
        *self.foreseer.write() = Some(foreseer);
    }

    /// Says who knows what programs have open.
    pub fn set_open_files(&self, open_files: OpenFiles) {
        *self.open_files.write() = Some(open_files);
    }

    /// Tells whether a program has an inode open.
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        let open_files = self.open_files.read();
        open_files.as_ref().is_some_and(|is_open| is_open(ino))
    }

    /// Tells the kernel what it must forget. Must not be called inside a transaction.
    pub fn tell_kernel(&self, changes: Vec<KernelChange>) {
        self.announce(changes, None);
    }

    /// Tells the kernel what it must forget, and lets those go on who wait for that.
    pub(crate) fn announce(&self, changes: Vec<KernelChange>, announcing: Option<Announcing>) {
        if changes.is_empty() {
            return;
        }
        let lookups = self.unknown.enter(&changes);
        if let Some(listener) = self.listener.read().as_ref() {
            listener(Announcement {
                changes,
                _lookups: Some(lookups),
            });
        }
        // The kernel knows that the sizes it has are none any more.
        drop(announcing);
    }

    /// Tells whether the content of a file was replaced a moment ago and the kernel, which still
    /// has its old size, is about to be told. Asked after the row was read.
    #[must_use]
    pub fn is_unannounced(&self, ino: Ino) -> bool {
        self.unannounced.has(ino)
    }

    /// Waits until the kernel knows that the size it has of a file is none any more.
    pub async fn announced(&self, ino: Ino) {
        self.unannounced.wait(ino).await;
    }

    /// Tells whether the kernel may still get to know a file with the size of replaced content.
    #[must_use]
    pub fn is_unknown(&self, ino: Ino) -> bool {
        self.unannounced.has(ino) || self.unknown.has(ino)
    }

    /// Waits until the kernel can only know a file with the size it has now. It takes until the
    /// lookups end that are under way, so reads must not wait for it: the kernel's forgetting of
    /// pages waits for reads.
    pub async fn known(&self, ino: Ino) {
        self.unannounced.wait(ino).await;
        self.unknown.wait(ino).await;
    }

    /// Enters what the kernel has to be told of, before the commit that makes it true.
    pub(crate) fn announce_soon(&self, changes: &[KernelChange]) -> Announcing {
        if let Some(foresee) = self.foreseer.read().as_ref() {
            foresee(changes);
        }
        self.unannounced.enter(changes)
    }
}
