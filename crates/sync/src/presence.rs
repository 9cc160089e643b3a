//! Tells the database which bytes a download brought.

use std::sync::Arc;

use onedrivefs_content::{BodyId, Presence};
use onedrivefs_core::Timestamp;
use onedrivefs_store::Store;

use crate::bodies::Bodies;
use crate::change::KernelChange;
use crate::engine::SharedListener;
use crate::evict::Evictor;
use crate::hydrate::{Demand, PresenceSink, Room};

/// Writes presence into the database.
pub struct PresenceToStore {
    store: Arc<Store>,
    listener: SharedListener,
    evictor: Arc<Evictor>,
}

impl PresenceToStore {
    /// Writes into this database, and lets the kernel forget what turned out wrong.
    #[must_use]
    pub(crate) fn new(store: Arc<Store>, listener: SharedListener, evictor: Arc<Evictor>) -> Self {
        Self {
            store,
            listener,
            evictor,
        }
    }
}

impl PresenceSink for PresenceToStore {
    fn make_room(&self, bytes: u64, demand: Demand) -> Option<Room> {
        self.evictor.make_room(bytes, demand)
    }

    fn save(&self, id: BodyId, presence: &Presence, _verified: bool) {
        let saved = Bodies::save_presence(&self.store, id, presence)
            .and_then(|()| self.store.write(|tx| tx.touch_body(id.0, Timestamp::now())));
        if let Err(error) = saved {
            // Costs a download after a restart, nothing else.
            tracing::warn!(body = id.0, %error, "Downloaded ranges could not be noted.");
        }
    }

    fn corrupt(&self, id: BodyId, was_readable: bool) {
        tracing::warn!(
            body = id.0,
            "A downloaded body did not match its hash and was discarded."
        );
        if let Err(error) = Bodies::save_presence(&self.store, id, &Presence::empty()) {
            tracing::warn!(body = id.0, %error, "A discarded body could not be noted.");
        }
        if !was_readable {
            return;
        }
        // The kernel may have pages of it, which must not outlive the bytes.
        match self.store.read(|r| r.body(id.0)) {
            Ok(Some(row)) => {
                if let Some(listener) = self.listener.read().as_ref() {
                    listener(vec![KernelChange::Content { ino: row.ino }].into());
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(body = id.0, %error, "The owner of a discarded body is not known.");
            }
        }
    }
}
