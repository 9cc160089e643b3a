//! Addresses of content, and whether what they lead to is still the pinned version.
//!
//! An address serves whatever is newest. So an address is taken together with the item's tags and
//! is good only while those are the pinned ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use onedrivefs_core::{CTag, DriveId, ETag, ItemId};
use onedrivefs_graph::{DownloadSource, GraphClient, GraphError};
use parking_lot::Mutex;

use super::error::Trouble;
use super::{HydrateConfig, HydrateError, Source};

/// Addresses kept: more than files that are read at the same time.
const KEPT: usize = 512;

/// One version of one item.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Version {
    drive: DriveId,
    item: ItemId,
    etag: Option<ETag>,
    ctag: Option<CTag>,
}

impl Version {
    fn of(source: &Source) -> Self {
        Self {
            drive: source.drive.clone(),
            item: source.item.clone(),
            etag: source.etag.clone(),
            ctag: source.ctag.clone(),
        }
    }
}

/// An address that led to the pinned version when it was fetched.
pub(super) struct Link {
    pub(super) download: DownloadSource,
    /// The label that the content host put on its first answer.
    label: Mutex<Option<String>>,
}

/// The place of one address; the lock is held while it is being fetched, which makes that a
/// single flight. Only the network is waited for under it.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Link>>>>;

/// The addresses in use.
pub(super) struct Urls {
    slots: Mutex<LruCache<Version, Slot>>,
    /// The content host labels its answers with the item's eTag, as far as is known.
    labels_are_etags: AtomicBool,
}

impl Default for Urls {
    fn default() -> Self {
        let kept = std::num::NonZeroUsize::new(KEPT).unwrap_or(std::num::NonZeroUsize::MIN);
        Self {
            slots: Mutex::new(LruCache::sparse(kept)),
            labels_are_etags: AtomicBool::new(true),
        }
    }
}

impl Urls {
    /// An address of the pinned version.
    pub(super) async fn link(
        &self,
        graph: &GraphClient,
        config: &HydrateConfig,
        source: &Source,
    ) -> Result<Arc<Link>, Trouble> {
        let slot = self.slot(source);
        // Held across the request on purpose: others wait for this address instead of asking too.
        let mut slot = slot.lock().await;
        if let Some(link) = slot.as_ref()
            && link.download.obtained.elapsed() < config.url_lifetime
        {
            return Ok(Arc::clone(link));
        }
        let fetched = graph.download_source(&source.drive, &source.item).await;
        let download = fetched.map_err(trouble)?;
        if !same_version(graph, source, &download).await? {
            *slot = None;
            return Err(HydrateError::Changed.into());
        }
        let link = Arc::new(Link {
            download,
            label: Mutex::default(),
        });
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    fn slot(&self, source: &Source) -> Slot {
        let mut slots = self.slots.lock();
        Arc::clone(slots.get_or_insert(Version::of(source), Slot::default))
    }

    /// Forgets an address, unless another took its place already.
    pub(super) async fn discard(&self, source: &Source, link: &Arc<Link>) {
        let slot = self.slot(source);
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, link)) {
            *slot = None;
        }
    }

    /// Forgets whatever address there is: an answer showed that the version may have changed, and
    /// another transfer may have fetched the address before that.
    pub(super) async fn discard_any(&self, source: &Source) {
        *self.slot(source).lock().await = None;
    }

    /// Compares the label of an answer with what is known. Tells whether the version has to be
    /// compared again before the bytes can be used.
    pub(super) fn is_suspicious(&self, link: &Link, label: Option<&str>) -> bool {
        let Some(label) = label else {
            return false;
        };
        let mut known = link.label.lock();
        if let Some(known) = known.as_ref() {
            return known != label;
        }
        let etag = link.download.etag.as_ref().map(ETag::as_str);
        let differs = etag.is_some_and(|etag| etag != label);
        if differs && self.labels_are_etags.load(Ordering::Relaxed) {
            return true;
        }
        *known = Some(label.to_owned());
        false
    }

    /// Notes that a label differs from the eTag although the version is the pinned one.
    pub(super) fn note_foreign_label(&self, before: &Link, after: &Link) {
        if before.download.etag == after.download.etag {
            self.labels_are_etags.store(false, Ordering::Relaxed);
        }
    }
}

/// Tells whether the item is still at the pinned version. The cTag decides; where there is none,
/// an equal eTag does, and a different one may come from a rename, which the hash tells.
async fn same_version(
    graph: &GraphClient,
    source: &Source,
    download: &DownloadSource,
) -> Result<bool, Trouble> {
    if let (Some(pinned), Some(now)) = (&source.ctag, &download.ctag) {
        return Ok(pinned == now);
    }
    let (Some(pinned), Some(now)) = (&source.etag, &download.etag) else {
        return Ok(true);
    };
    if pinned == now {
        return Ok(true);
    }
    let Some(hash) = source.hash else {
        return Ok(false);
    };
    let item = graph
        .item(&source.drive, &source.item)
        .await
        .map_err(trouble)?;
    Ok(item.hash == Some(hash))
}

/// Sorts a failure by what may be done about it.
pub(super) fn trouble(error: GraphError) -> Trouble {
    use onedrivefs_graph::{Disposition, TransportKind};
    if let GraphError::Transport {
        kind: TransportKind::Connect,
        ..
    } = error
    {
        return Trouble::Unreachable;
    }
    match error.disposition() {
        Disposition::UrlExpired => Trouble::UrlExpired(error),
        Disposition::Reauth => HydrateError::NeedsLogin.into(),
        Disposition::NotFound => HydrateError::Gone.into(),
        Disposition::Changed => HydrateError::Changed.into(),
        Disposition::Offline
        | Disposition::Retry
        | Disposition::RetryAfter(_)
        | Disposition::Locked => Trouble::Passing(error),
        _ => Trouble::Final(HydrateError::Refused(Arc::new(error))),
    }
}
