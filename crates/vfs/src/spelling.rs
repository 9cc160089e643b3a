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

/// Spellings by the name that they are spellings of.
type Spellings = Mutex<LruCache<(Ino, NameKey), Vec<String>>>;

/// Names that were answered as absent, or that the kernel is being told to forget.
pub(crate) struct AbsentNames {
    noted: Spellings,
    /// Those that the kernel was told of last. It learns of that a moment later, and until then the
    /// spelling of what is gone leads to what is gone.
    told: Spellings,
}

impl AbsentNames {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            noted: Mutex::new(LruCache::sparse(NOTED)),
            told: Mutex::new(LruCache::sparse(NOTED)),
        }
    }

    /// Notes a name that the kernel was told is absent.
    pub(crate) fn note(&self, parent: Ino, name: &str) {
        add(&self.noted, parent, name);
    }

    /// Notes a name that the kernel is being told to forget.
    pub(crate) fn note_told(&self, parent: Ino, name: &str) {
        add(&self.told, parent, name);
    }

    /// Notes all names of which the kernel is about to be told. Done before the commit that takes
    /// them away: whoever makes one anew does so after it, and may do so before the kernel is told.
    pub(crate) fn note_all_told(&self, changes: &[KernelChange]) {
        for change in changes {
            if let KernelChange::Entry { parent, name }
            | KernelChange::Deleted { parent, name, .. } = change
            {
                self.note_told(*parent, name);
            }
        }
    }

    /// A name came into being: the other spellings under which it was absent.
    pub(crate) fn take_others(&self, parent: Ino, name: &str) -> Vec<KernelChange> {
        let key = (parent, NameKey::of(name));
        let absent = self.noted.lock().pop(&key).unwrap_or_default();
        let told = self.told.lock().pop(&key).unwrap_or_default();
        let mut spellings = absent;
        spellings.extend(told);
        spellings.sort_unstable();
        spellings.dedup();
        spellings
            .into_iter()
            .filter(|spelling| spelling != name)
            .map(|name| KernelChange::Entry { parent, name })
            .collect()
    }
}

fn add(spellings: &Spellings, parent: Ino, name: &str) {
    let mut noted = spellings.lock();
    let spellings = noted.get_or_insert_mut((parent, NameKey::of(name)), Vec::new);
    if !spellings.iter().any(|known| known == name) {
        spellings.push(name.to_owned());
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
    /// Somebody else removed a file, and a program makes one under another spelling before the kernel
    /// has forgotten the first: who asks for that must not be told that there is none.
    #[test]
    fn the_spelling_of_what_has_just_gone_is_forgotten_with_the_first_new_one() {
        let names = AbsentNames::new();
        names.note_told(Ino::ROOT, "README");
        names.note(Ino::ROOT, "README");
        let expected = KernelChange::Entry {
            parent: Ino::ROOT,
            name: "README".into(),
        };
        assert_eq!(names.take_others(Ino::ROOT, "readme"), [expected]);
        assert!(names.take_others(Ino::ROOT, "readme").is_empty());
    }
}
