//! Spellings of names that the kernel remembers.
//!
//! Names compare without case here, but the kernel's cache of entries compares bytes. A name that
//! was found under another spelling is therefore not to be remembered at all, and names that were
//! answered as absent are noted, so that every spelling of them can be forgotten when one of them
//! comes into being.

use std::num::NonZeroUsize;

use lru::LruCache;
use onedrivefs_core::{Ino, NameKey};
use onedrivefs_sync::KernelChange;
use parking_lot::Mutex;

/// Absent names that are noted. The kernel forgets them by itself after a minute.
const NOTED: NonZeroUsize = NonZeroUsize::new(8 * 1024).unwrap();

/// Names that were answered as absent.
pub(crate) struct AbsentNames {
    noted: Mutex<LruCache<(Ino, NameKey), Vec<String>>>,
}

impl AbsentNames {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            noted: Mutex::new(LruCache::new(NOTED)),
        }
    }

    /// Notes a name that the kernel was told is absent.
    pub(crate) fn note(&self, parent: Ino, name: &str) {
        let mut noted = self.noted.lock();
        let spellings = noted.get_or_insert_mut((parent, NameKey::of(name)), Vec::new);
        if !spellings.iter().any(|known| known == name) {
            spellings.push(name.to_owned());
        }
    }

    /// A name came into being: the other spellings under which it was absent.
    pub(crate) fn take_others(&self, parent: Ino, name: &str) -> Vec<KernelChange> {
        let spellings = self.noted.lock().pop(&(parent, NameKey::of(name)));
        spellings
            .unwrap_or_default()
            .into_iter()
            .filter(|spelling| spelling != name)
            .map(|name| KernelChange::Entry { parent, name })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_of_a_new_name_are_forgotten_once() {
        let names = AbsentNames::new();
        for name in ["readme", "README", "readme", "other"] {
            names.note(Ino::ROOT, name);
        }
        let expected = KernelChange::Entry {
            parent: Ino::ROOT,
            name: "readme".into(),
        };
        assert_eq!(names.take_others(Ino::ROOT, "README"), [expected]);
        assert!(names.take_others(Ino::ROOT, "README").is_empty());
    }
}
