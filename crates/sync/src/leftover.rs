//! Bodies that programs write to still through a mount whose daemon died.
//!
//! Where the kernel writes to a file by itself, or a program has it mapped, that goes on when the
//! daemon is gone. What is in the file when the next daemon starts is saved then. But nothing of it is
//! sent before the last of them has let go of it, and what they wrote meanwhile is saved once more.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_content::Body;
use onedrivefs_core::Timestamp;

use crate::Engine;
use crate::error::EngineError;
use crate::recover;
use crate::uploader::io_error;

/// How often it is asked whether somebody still writes.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// Waits until nobody writes any more to the bodies that somebody wrote to at the start.
    pub(crate) async fn run_leftovers(self: Arc<Self>) {
        let mut left = self.bodies.take_leftovers();
        while !left.is_empty() {
            left.retain(|body| {
                self.is_still_written(body).unwrap_or_else(|error| {
                    tracing::warn!(%error, "It is not known what a program wrote to a file.");
                    body.take_back();
                    false
                })
            });
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Tells whether somebody still writes to a body. If not, takes it back.
    fn is_still_written(&self, body: &Body) -> Result<bool, EngineError> {
        let id = body.id().0;
        let failed = |source| io_error(id, source);
        let Some(row) = self.store.read(|r| r.body(id))? else {
            // Other content took its place.
            return Ok(false);
        };
        // Who has it open in this mount saves it, too.
        let in_use = self.writers.lock().contains_key(&row.ino);
        if in_use || body.is_held().map_err(failed)? {
            return Ok(true);
        }
        let touched = body.catch_up().map_err(failed)?.is_some();
        self.store
            .write(|tx| match tx.body(id)?.filter(|row| row.dirty || touched) {
                Some(mut row) => recover::save_body(tx, &mut row, body, Timestamp::now()),
                None => Ok(()),
            })?;
        body.take_back();
        self.wake_uploader();
        Ok(false)
    }
}
