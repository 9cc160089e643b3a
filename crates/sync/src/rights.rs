//! What this account may do in a folder that others share, as far as the service tells, and engines
//! that are about to go with such a folder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onedrivefs_core::ItemId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::uploader::UnsentSizes;

/// Key of the metadata table that is set while what is served was shared for reading only.
pub(crate) const META_READ_ONLY: &str = "read_only";

/// How often it is asked whether that is still so.
const RIGHTS_EVERY: Duration = Duration::from_secs(3600);

/// What others let this account do, and what that means for what is sent.
pub(crate) struct Standing {
    /// When something was last deleted here.
    pub(crate) last_deletion: Mutex<std::time::Instant>,
    /// Whether nothing is to be sent any more: the state is about to be thrown away.
    pub(crate) stopped_sending: AtomicBool,
    /// Whether the service does not let us see the folder that is served.
    pub(crate) denied: AtomicBool,
    /// Whether what is served was shared for reading only.
    shared_read_only: AtomicBool,
    /// Sizes of new files that the service does not have, and when they were looked up.
    pub(crate) unsent_sizes: Mutex<Option<UnsentSizes>>,
}

impl Standing {
    /// As it was known last.
    pub(crate) fn new(read_only: bool) -> Self {
        Self {
            last_deletion: Mutex::new(std::time::Instant::now()),
            stopped_sending: AtomicBool::new(false),
            denied: AtomicBool::new(false),
            shared_read_only: AtomicBool::new(read_only),
            unsent_sizes: Mutex::default(),
        }
    }
}

impl Engine {
    /// The id of the folder that everything is in.
    pub(crate) fn top_folder(&self) -> ItemId {
        let folder = self.mounted_folder();
        folder.unwrap_or_else(|| ItemId::new("root"))
    }

    /// Learns from an answer, or the lack of one, whether the folder that is served can be seen.
    pub(crate) fn learn_access(&self, error: Option<&EngineError>) {
        if self.mounted_folder().is_none() {
            return;
        }
        let denied = match error {
            None => false,
            Some(EngineError::Graph(error)) if error.is_not_found() => true,
            Some(error) if error.is_denied() => true,
            Some(_) => return,
        };
        if self.standing.denied.swap(denied, Ordering::Relaxed) != denied && denied {
            tracing::info!(drive = %self.config.drive.id, "A folder cannot be seen.");
        }
    }

    /// Whether the service does not let this account see what is served.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.standing.denied.load(Ordering::Relaxed)
    }

    /// Whether nothing may be changed in what is served, because it was shared for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.config.read_only || self.standing.shared_read_only.load(Ordering::Relaxed)
    }

    /// Asks whether the folder that is served was shared for reading only. Where the service does not
    /// tell, changes are tried.
    pub(crate) async fn learn_rights(&self) -> Result<(), EngineError> {
        let Some(folder) = self.mounted_folder() else {
            return Ok(());
        };
        let drive = &self.config.drive.id;
        let read_only = match self.graph.is_read_only(drive, &folder).await {
            Ok(read_only) => read_only,
            Err(error) => {
                tracing::debug!(%error, "The service does not tell what may be done in a folder.");
                return Ok(());
            }
        };
        if self
            .standing
            .shared_read_only
            .swap(read_only, Ordering::Relaxed)
            != read_only
        {
            let mark = read_only.then_some("1");
            self.store.write(|tx| tx.set_meta(META_READ_ONLY, mark))?;
        }
        Ok(())
    }

    /// Asks again after a while.
    pub(crate) async fn refresh_old_rights(&self, asked: &mut Option<Instant>) {
        if asked.is_some_and(|asked| asked.elapsed() < RIGHTS_EVERY) {
            return;
        }
        *asked = Some(Instant::now());
        if let Err(error) = self.learn_rights().await {
            tracing::warn!(%error, "What may be done in a folder could not be noted.");
        }
    }

    /// Sends nothing any more: the state is about to be thrown away.
    pub fn stop_sending(&self) {
        self.standing.stopped_sending.store(true, Ordering::Release);
    }

    /// Goes on sending after all.
    pub fn go_on_sending(&self) {
        self.standing
            .stopped_sending
            .store(false, Ordering::Release);
        self.wake_uploader();
    }
}
