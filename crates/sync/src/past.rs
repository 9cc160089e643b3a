//! Bytes of versions that are not the newest any more.
//!
//! A file that is a copy of another one may lack bytes, which come from the version that was copied.
//! If somebody replaces that before the copy was made on the service, the service still has it among
//! the older versions. It does not say which is which: the one with the right length and hash is. So
//! each that may be is read into a file without a name first, and nothing else gets into the body.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use onedrivefs_content::{Body, BodyId};
use onedrivefs_core::HashAccumulator;
use onedrivefs_graph::{Disposition, DownloadSource, GraphError};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::hydrate::{HydrateError, Source};

/// Bytes that are put into the body at a time.
const PIECE: usize = 1 << 20;

/// The bodies whose bytes are being looked for among older versions.
#[derive(Default)]
pub(crate) struct Past(Mutex<HashSet<BodyId>>);

/// Notes that a body is among them for as long as it lives.
struct Looking<'p>(&'p Past, BodyId);

impl Past {
    /// `None` when somebody does that already.
    fn begin(&self, id: BodyId) -> Option<Looking<'_>> {
        self.0.lock().insert(id).then(|| Looking(self, id))
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

impl Engine {
    /// Begins to bring what a body lacks of a version that is not the newest any more, unless
    /// somebody does so already.
    pub fn begin_past(self: &Arc<Self>, body: &Arc<Body>, source: &Source) {
        let (engine, body, source) = (Arc::clone(self), Arc::clone(body), source.clone());
        self.spawn(async move {
            let found = engine.fetch_past(&body, &source, HydrateError::Changed);
            if let Err(error) = found.await {
                tracing::debug!(%error, "What a copy was made from was not found.");
            }
        });
    }

    /// Brings what a body lacks of a version that is not the newest any more. Whatever is present by
    /// then stays.
    ///
    /// # Errors
    /// `otherwise` when there is no such version; `TimedOut` while somebody else looks for it; what
    /// looking for it fails with.
    pub(crate) async fn fetch_past(
        &self,
        body: &Arc<Body>,
        source: &Source,
        otherwise: HydrateError,
    ) -> Result<(), HydrateError> {
        let Some(_looking) = self.past.begin(body.id()) else {
            return Err(HydrateError::TimedOut);
        };
        match self.find_past(source).await? {
            Some(file) => fill(body, &file, source.size),
            None => Err(otherwise),
        }
    }

    /// The bytes of a version that is not the newest any more, in a file without a name. `None` when
    /// the service has none with this length and hash.
    ///
    /// # Errors
    /// What looking for it fails with.
    pub(crate) async fn find_past(&self, source: &Source) -> Result<Option<File>, HydrateError> {
        let Some(hash) = source.hash else {
            return Ok(None);
        };
        let versions = self.graph.versions(&source.drive, &source.item).await;
        // The first is the newest, which is another one.
        for version in versions.map_err(failed)?.into_iter().skip(1) {
            if version.size.is_some_and(|size| size != source.size) {
                continue;
            }
            let download = self
                .graph
                .version_source(&source.drive, &source.item, &version.id)
                .await
                .map_err(failed)?;
            let file = self.bodies.content().nameless_file();
            let file = file.map_err(|error| HydrateError::from(error.into_io()))?;
            let mut made = HashAccumulator::new();
            let length = self.read_past(&download, source.size, &file, &mut made);
            if length.await? == source.size && made.finish() == hash {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Reads a version into a file, up to a byte more than it may have. Returns its length.
    async fn read_past(
        &self,
        download: &DownloadSource,
        size: u64,
        file: &File,
        made: &mut HashAccumulator,
    ) -> Result<u64, HydrateError> {
        let content = self.graph.fetch(download, 0..size.saturating_add(1)).await;
        let mut content = content.map_err(failed)?;
        let mut at = 0;
        while let Some(data) = content.chunk().await.map_err(failed)? {
            made.update(&data);
            file.write_all_at(&data, at)?;
            at += data.len() as u64;
        }
        Ok(at)
    }
}

/// Puts the bytes of a file where a body lacks some.
fn fill(body: &Body, file: &File, size: u64) -> Result<(), HydrateError> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let got = file.read_at(&mut buffer, at)?;
        if got == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        body.fill(at, &buffer[..got])?;
        at += got as u64;
    }
    Ok(())
}

/// What a failed request means for whoever wants the bytes. Nothing is for good: the versions are
/// looked through again.
fn failed(error: GraphError) -> HydrateError {
    match error.disposition() {
        Disposition::Offline => HydrateError::Offline,
        Disposition::Reauth => HydrateError::NeedsLogin,
        Disposition::NotFound => HydrateError::Gone,
        Disposition::Permanent | Disposition::Unsupported => HydrateError::Refused(Arc::new(error)),
        _ => HydrateError::TimedOut,
    }
}
