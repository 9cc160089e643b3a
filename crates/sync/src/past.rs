//! Versions that are not the newest any more.
//!
//! An upload may be replaced by somebody before its answer is made: then it is the last of them.
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
use onedrivefs_graph::{Disposition, GraphError};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::hydrate::{HydrateError, Source};

/// How many versions are looked at for what arrived a moment ago.
const JUST_NOW: usize = 3;

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
        for version in self.past_versions(source).await? {
            let file = self.bodies.content().nameless_file();
            let file = file.map_err(|error| HydrateError::from(error.into_io()))?;
            let write = |at: u64, data: &[u8]| Ok(file.write_all_at(data, at)?);
            if self.is_version(source, &version, write).await? {
                return fill(body, &file, source.size);
            }
        }
        Err(otherwise)
    }

    /// Tells whether the service has this content as one of the last versions before the newest one.
    ///
    /// # Errors
    /// What looking for it fails with.
    pub(crate) async fn is_past(&self, source: &Source) -> Result<bool, HydrateError> {
        let versions = self.past_versions(source).await?;
        for version in versions.iter().take(JUST_NOW) {
            if self.is_version(source, version, |_, _| Ok(())).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The versions before the newest one that may be the one that is looked for, newest first.
    async fn past_versions(&self, source: &Source) -> Result<Vec<String>, HydrateError> {
        let versions = self.graph.versions(&source.drive, &source.item).await;
        let past = versions.map_err(failed)?.into_iter().skip(1);
        let as_long = past.filter(|past| past.size.is_none_or(|size| size == source.size));
        Ok(as_long.map(|past| past.id).collect())
    }

    /// Reads a version, up to a byte more than it may have, and hands its bytes on with where they
    /// belong. Tells whether it is the one that is looked for.
    async fn is_version(
        &self,
        source: &Source,
        version: &str,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), HydrateError>,
    ) -> Result<bool, HydrateError> {
        let Some(hash) = source.hash else {
            return Ok(false);
        };
        let download = self
            .graph
            .version_source(&source.drive, &source.item, version)
            .await
            .map_err(failed)?;
        let wanted = 0..source.size.saturating_add(1);
        let mut content = self.graph.fetch(&download, wanted).await.map_err(failed)?;
        let mut made = HashAccumulator::new();
        let mut at = 0;
        while let Some(data) = content.chunk().await.map_err(failed)? {
            made.update(&data);
            take(at, &data)?;
            at += data.len() as u64;
        }
        Ok(at == source.size && made.finish() == hash)
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
