//! Checks a body against the hash that the service gave, before its last bytes can be read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use onedrivefs_content::Body;
use onedrivefs_core::{HashAccumulator, QuickXorHash};

use super::error::Trouble;
use super::flight::Flight;
use super::urls::{Link, trouble};
use super::{HydrateError, Inner, Source};

/// Bytes read from the body at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes that must have come in order before it is worth a thread's time to hash them.
const AHEAD_MIN_BYTES: u64 = 4 * 1024 * 1024;

/// The hash of a body's beginning, which grows while the body does, so that little is left to do
/// in the end for a body that arrived in order.
#[derive(Default)]
pub(super) struct Prefix {
    hash: HashAccumulator,
    upto: u64,
}

impl Prefix {
    /// Hashes on, up to the first byte that is missing.
    fn advance(&mut self, body: &Body) -> io::Result<()> {
        let size = body.size();
        let end = body.first_missing(self.upto).unwrap_or(size);
        self.hash_body(body, end)
    }

    /// Hashes the body on to an offset.
    fn hash_body(&mut self, body: &Body, end: u64) -> io::Result<()> {
        let mut buf = vec![0; CHUNK_BYTES];
        while self.upto < end {
            let len = usize::try_from(end - self.upto).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
            let read = body.read_at(self.upto, &mut buf[..len])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hash.update(&buf[..read]);
            self.upto += read as u64;
        }
        Ok(())
    }

    /// Hashes the rest of a body, in which bytes are missing that are at hand.
    fn complete(mut self, body: &Body, at: u64, data: &[u8]) -> io::Result<QuickXorHash> {
        self.hash_body(body, at)?;
        // Parts of it may have been there before.
        let skip = usize::try_from(self.upto - at)
            .unwrap_or(data.len())
            .min(data.len());
        self.hash.update(&data[skip..]);
        self.upto += (data.len() - skip) as u64;
        self.hash_body(body, body.size())?;
        Ok(self.hash.finish())
    }
}

/// What the check came to.
enum Verdict {
    /// The hash is the service's.
    Right,
    /// There is nothing to compare with.
    Unverifiable,
    /// The bytes are not the service's.
    Wrong,
}

/// The bytes that make a body whole.
pub(super) struct Last {
    /// The segment that brought them.
    pub(super) id: u64,
    /// Where they belong.
    pub(super) at: u64,
    /// The bytes.
    pub(super) data: Bytes,
}

impl Inner {
    /// Checks a body of which only `last` is missing, and stores that when all is well.
    pub(super) async fn verify(
        self: Arc<Self>,
        flight: Arc<Flight>,
        source: Arc<Source>,
        link: Arc<Link>,
        last: Last,
    ) -> Result<(), Trouble> {
        let verdict = self.check(&flight, &source, &link, &last).await;
        let outcome = match &verdict {
            Ok(Verdict::Right | Verdict::Unverifiable) => {
                let filled = flight.body().fill(last.at, &last.data);
                filled.map_err(|error| HydrateError::from(error).into())
            }
            Ok(Verdict::Wrong) => self.throw_away(&flight, &last).await,
            Err(Trouble::Final(HydrateError::Changed)) => {
                // Some of the bytes are of another version, and nobody knows which.
                let forgotten = self.forget(&flight).await;
                Err(forgotten.err().unwrap_or(HydrateError::Changed).into())
            }
            Err(Trouble::Final(error)) => Err(error.clone().into()),
            // The question could not be asked; the bytes come again and bring it up again.
            Err(_) => Ok(()),
        };
        if let Err(Trouble::Final(error)) = &outcome {
            flight.fail_body(error.clone());
        }
        let accepted = matches!(verdict, Ok(Verdict::Right | Verdict::Unverifiable));
        let stored = (accepted && outcome.is_ok()).then_some(last.data.len() as u64);
        let right = stored.is_some() && matches!(verdict, Ok(Verdict::Right));
        flight.end_verification(last.id, stored, right);
        if stored.is_some() {
            self.save(&flight).await;
        }
        outcome
    }

    /// Compares the hash.
    async fn check(
        &self,
        flight: &Arc<Flight>,
        source: &Source,
        link: &Link,
        last: &Last,
    ) -> Result<Verdict, Trouble> {
        let Some(expected) = source.hash else {
            return Ok(Verdict::Unverifiable);
        };
        let (own, at, data) = (Arc::clone(flight), last.at, last.data.clone());
        let hash = move || {
            // Taken out: what it covers is in the body only if this check ends well.
            let prefix = std::mem::take(&mut *own.prefix.lock());
            own.hashed.store(0, Ordering::Relaxed);
            prefix.complete(own.body(), at, &data)
        };
        let hash = match self.handle.spawn_blocking(hash).await {
            Ok(hash) => hash.map_err(HydrateError::from)?,
            Err(_shutdown) => return Err(HydrateError::ShuttingDown.into()),
        };
        if hash == expected {
            return Ok(Verdict::Right);
        }
        if link.download.size.is_some_and(|size| size != source.size) {
            // The service itself does not send what its metadata describes.
            return Ok(Verdict::Unverifiable);
        }
        if !flight.body().is_pristine() {
            return Ok(Verdict::Unverifiable);
        }
        self.ask_again(source, hash).await
    }

    /// The hash differs: perhaps the service knows a better one by now, or another version.
    async fn ask_again(&self, source: &Source, hash: QuickXorHash) -> Result<Verdict, Trouble> {
        let item = self
            .graph
            .item(&source.drive, &source.item)
            .await
            .map_err(trouble)?;
        let known = item.hash.filter(|known| !known.is_zero());
        if known == Some(hash) {
            return Ok(Verdict::Right);
        }
        let changed = match (&source.ctag, &item.ctag) {
            (Some(pinned), Some(now)) => pinned != now,
            _ => known.is_some() && known != source.hash,
        };
        if changed {
            return Err(HydrateError::Changed.into());
        }
        Ok(match known {
            None => Verdict::Unverifiable,
            Some(_) => Verdict::Wrong,
        })
    }

    /// Forgets bytes that are not the service's. When nobody can have read any of them they may
    /// come once more; otherwise whoever waits must know, because what it read before was wrong.
    async fn throw_away(&self, flight: &Arc<Flight>, last: &Last) -> Result<(), Trouble> {
        let whole = last.at == 0 && last.data.len() as u64 == flight.body().size();
        let again = flight.note_corrupt() && whole;
        let id = flight.body().id();
        tracing::warn!(body = %id, again, "Content arrived with a wrong hash and was dropped.");
        self.forget(flight).await?;
        if again {
            return Ok(());
        }
        Err(HydrateError::Corrupt.into())
    }

    /// Forgets the body's bytes.
    async fn forget(&self, flight: &Arc<Flight>) -> Result<(), HydrateError> {
        let (sink, own) = (Arc::clone(&self.sink), Arc::clone(flight));
        let forget = move || {
            let mut prefix = own.prefix.lock();
            *prefix = Prefix::default();
            own.hashed.store(0, Ordering::Relaxed);
            let before = own.body().times_forgotten();
            let _changed_here = own.body().forget_downloaded();
            drop(prefix);
            let was_readable = own.body().times_forgotten() != before;
            sink.corrupt(own.body().id(), was_readable);
        };
        let forgotten = self.handle.spawn_blocking(forget).await;
        forgotten.map_err(|_shutdown| HydrateError::ShuttingDown)
    }

    /// Hashes what came in order so far, on a thread that may block.
    pub(super) fn hash_ahead(&self, flight: &Arc<Flight>) {
        let (body, hashed) = (flight.body(), flight.hashed.load(Ordering::Relaxed));
        let ready = body.first_missing(hashed).unwrap_or(hashed);
        if !body.is_pristine() || ready < hashed + AHEAD_MIN_BYTES {
            return;
        }
        let own = Arc::clone(flight);
        self.handle.spawn_blocking(move || {
            let Some(mut prefix) = own.prefix.try_lock() else {
                return;
            };
            if let Err(error) = prefix.advance(own.body()) {
                // The bytes went away under us; the next hash begins anew.
                tracing::debug!(body = %own.body().id(), %error, "Could not hash ahead.");
                *prefix = Prefix::default();
            }
            own.hashed.store(prefix.upto, Ordering::Relaxed);
        });
    }
}
