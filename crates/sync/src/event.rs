//! What a person is told without having asked.

use crate::engine::Engine;

/// Something that happened in the background and that a person wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change cannot be sent and waits for a person.
    Parked {
        /// Path in the mount.
        path: String,
        /// Why.
        reason: String,
    },
    /// Both sides changed a file; both versions were kept.
    ConflictCopy {
        /// Path in the mount of the service's version.
        path: String,
        /// Path in the mount of the version of this machine.
        copy: String,
    },
    /// So many files were deleted that a person is asked first.
    DeletionsHeld {
        /// Why.
        reason: String,
    },
}

/// Who is told of events. Must return at once.
pub type EventListener = Box<dyn Fn(Event) + Send + Sync>;

impl Engine {
    /// Says who is told of events.
    pub fn set_event_listener(&self, listener: EventListener) {
        *self.events.write() = Some(listener);
    }

    /// Tells whoever listens. Must not be called inside a transaction.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(listener) = self.events.read().as_ref() {
            listener(event);
        }
    }
}
