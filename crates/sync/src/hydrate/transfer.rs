//! Fetches one segment: address, request, bytes, and what to do when one of them fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use onedrivefs_core::ByteRange;
use onedrivefs_graph::{GraphError, RangeBody};
use rand::Rng as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::Trouble;
use super::flight::{Flight, Landed};
use super::urls::{Link, trouble};
use super::verify::Last;
use super::{Demand, HydrateError, Inner, Room, Source};

/// First pause before another attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts: well inside the deadline of whoever waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Attempts to connect before there counts as no network: the second one is for a server that was
/// just restarted.
const CONNECT_ATTEMPTS: u32 = 2;
/// Addresses that are tried in place of a refused one: the first may be one that another transfer
/// fetched a while ago.
const RENEWALS_MAX: u32 = 2;
/// Age at which arrived bytes are recorded even if more keep coming.
const SAVE_AFTER: Duration = Duration::from_secs(30);

/// Time after which a disk that is still full is spoken of again.
const QUIET_FOR: Duration = Duration::from_secs(60);

/// Quiet time after which what is pinned goes on: programs read in bursts.
const QUIET: Duration = Duration::from_millis(100);

/// Takes a segment off its flight when its task ends, even by being aborted.
struct Finish {
    flight: Arc<Flight>,
    id: u64,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.flight.finish(self.id);
    }
}

/// Fetches a segment to its end.
pub(super) fn run(
    inner: Arc<Inner>,
    flight: Arc<Flight>,
    source: Arc<Source>,
    id: u64,
    demand: Demand,
) -> impl Future<Output = ()> + Send {
    // Made here: a task may be aborted before it takes its first step.
    let finish = Finish {
        flight: Arc::clone(&flight),
        id,
    };
    async move {
        let _finish = finish;
        run_to_its_end(&inner, &flight, &source, id, demand).await;
    }
}

async fn run_to_its_end(
    inner: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<Source>,
    id: u64,
    demand: Demand,
) {
    let _reading = demand.is_reading().then(|| Reading::begin(inner));
    let Ok(_permit) = inner.permits(demand).acquire().await else {
        return;
    };
    if demand == Demand::Pin {
        inner.rest_while_read().await;
    }
    flight.set_started(id);
    let fetched = match inner.make_room(flight, id, demand).await {
        Ok(room) => fetch_all(inner, flight, source, id, &room).await,
        Err(error) => Err(error),
    };
    if let Err(error) = fetched {
        tracing::debug!(body = %flight.body().id(), %error, "A transfer failed.");
        if matches!(error, HydrateError::NoSpace) {
            inner.note_full();
        }
        flight.fail_segment(id, error);
    } else if source.hash.is_some() {
        inner.hash_ahead(flight);
    }
}

/// Counts a transfer of bytes that a program reads.
struct Reading(Arc<Inner>);

impl Reading {
    fn begin(inner: &Arc<Inner>) -> Self {
        inner.reading.send_modify(|count| *count += 1);
        Self(Arc::clone(inner))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.send_modify(|count| *count -= 1);
    }
}

/// How much longer attempts make sense.
struct Patience {
    limit: Duration,
    deadline: Instant,
    attempts: u32,
    connects: u32,
    renewals: u32,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
            attempts: 0,
            connects: 0,
            renewals: 0,
        }
    }

    /// Decides what a failed attempt means: an error for good, or a pause before the next.
    fn judge(&mut self, trouble: Trouble) -> Result<Duration, HydrateError> {
        match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::UrlExpired(_) if self.renewals < RENEWALS_MAX => {
                self.renewals += 1;
                return Ok(Duration::ZERO);
            }
            Trouble::UrlExpired(error) => return Err(HydrateError::Refused(Arc::new(error))),
            Trouble::Unreachable => {
                self.connects += 1;
                if self.connects >= CONNECT_ATTEMPTS {
                    return Err(HydrateError::Offline);
                }
            }
            Trouble::Passing(error) => tracing::debug!(%error, "An attempt of a transfer failed."),
            Trouble::Silent => {
                tracing::debug!("An attempt of a transfer got no bytes for a while.");
            }
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.attempts.min(8))
            .min(LONGEST_PAUSE);
        let pause = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.attempts += 1;
        if Instant::now() + pause >= self.deadline {
            return Err(HydrateError::TimedOut);
        }
        Ok(pause)
    }
}

/// Fetches what a segment still has to, with as many attempts as its deadline allows.
async fn fetch_all(
    inner: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<Source>,
    id: u64,
    room: &Room,
) -> Result<(), HydrateError> {
    let limit = inner.config.first_byte_deadline;
    let mut patience = Patience::new(limit);
    while let Some(range) = flight.remaining(id) {
        let start = range.start;
        // Half of the time for one attempt leaves the other half for a second connection.
        let silence = limit / 2;
        let attempt = attempt(inner, flight, source, (id, room), range, silence).await;
        if flight.remaining(id).is_none_or(|left| left.start > start) {
            patience = Patience::new(patience.limit);
        }
        if let Err(trouble) = attempt {
            tokio::time::sleep(patience.judge(trouble)?).await;
        }
    }
    Ok(())
}

/// Fetches a range that is not kept.
pub(super) async fn pass(
    inner: &Arc<Inner>,
    source: &Arc<Source>,
    range: ByteRange,
    demand: Demand,
) -> Result<BytesMut, HydrateError> {
    let _reading = Reading::begin(inner);
    let Ok(_permit) = inner.permits(demand).acquire().await else {
        return Err(HydrateError::ShuttingDown);
    };
    let limit = inner.config.first_byte_deadline;
    let mut patience = Patience::new(limit);
    let mut data = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    loop {
        let had = data.len();
        let left = range.start + had as u64..range.end;
        if left.is_empty() {
            return Ok(data);
        }
        let attempt = pass_attempt(inner, source, left, limit / 2, &mut data).await;
        if data.len() > had {
            patience = Patience::new(limit);
        }
        if let Err(trouble) = attempt {
            tokio::time::sleep(patience.judge(trouble)?).await;
        }
    }
}

/// Asks once for a range that is not kept.
async fn pass_attempt(
    inner: &Arc<Inner>,
    source: &Arc<Source>,
    range: ByteRange,
    silence: Duration,
    data: &mut BytesMut,
) -> Result<(), Trouble> {
    let link = inner.urls.link(&inner.graph, &inner.config, source);
    let link = within(silence, link).await?;
    let mut left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let (mut content, _link) = open(inner, source, link, &range, silence).await?;
    let mut came = false;
    while left > 0 {
        let next = async { content.chunk().await.map_err(trouble) };
        let Some(mut chunk) = within(silence, next).await? else {
            break;
        };
        chunk.truncate(left);
        left -= chunk.len();
        came |= !chunk.is_empty();
        data.extend_from_slice(&chunk);
    }
    if came {
        return Ok(());
    }
    Err(inner.judge_size(source, None).await)
}

/// Waits for a step of an attempt, for so long.
async fn within<T>(
    silence: Duration,
    step: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(silence, step).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Trouble::Silent),
    }
}

/// Asks once for a range and takes what comes.
async fn attempt(
    inner: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<Source>,
    (id, room): (u64, &Room),
    range: ByteRange,
    silence: Duration,
) -> Result<(), Trouble> {
    let link = within(
        silence,
        inner.urls.link(&inner.graph, &inner.config, source),
    )
    .await?;
    let (mut content, link) = open(inner, source, link, &range, silence).await?;
    let whole = is_small_whole(inner, flight, source, &range);
    let mut gathered = whole.then(BytesMut::new);
    let mut came = false;
    loop {
        let next = async { content.chunk().await.map_err(trouble) };
        let Some(data) = within(silence, next).await? else {
            break;
        };
        came = true;
        let count = data.len() as u64;
        if flight.is_pin(id) {
            inner.rest_while_read().await;
        }
        if let Some(gathered) = &mut gathered {
            gathered.extend_from_slice(&data);
            flight.notify(data.len() as u64);
        } else if take(inner, flight, source, &link, id, data).await? {
            return Ok(());
        } else {
            room.use_up(count);
        }
    }
    if !came {
        // The end of a content whose length the server did not tell.
        return Err(inner.judge_size(source, None).await);
    }
    if let Some(gathered) = gathered {
        take(inner, flight, source, &link, id, gathered.freeze()).await?;
    }
    Ok(())
}

/// Tells whether a range is all of a file of at most one block. Such a file is kept back until it
/// was verified, so that none of its bytes can be read before.
fn is_small_whole(inner: &Inner, flight: &Flight, source: &Source, range: &ByteRange) -> bool {
    source.hash.is_some()
        && source.size <= inner.config.block_bytes
        && *range == (0..source.size)
        && flight.body().completes(range)
}

/// Puts arrived bytes into the body. Tells whether the segment is done.
async fn take(
    inner: &Arc<Inner>,
    flight: &Arc<Flight>,
    source: &Arc<Source>,
    link: &Arc<Link>,
    id: u64,
    data: Bytes,
) -> Result<bool, Trouble> {
    match flight.land(id, data, source.hash.is_some())? {
        Landed::Over => Ok(true),
        Landed::Stored => {
            inner.save_if_due(flight, SAVE_AFTER);
            Ok(false)
        }
        Landed::Last { at, data } => {
            let verified = Arc::clone(inner).verify(
                Arc::clone(flight),
                Arc::clone(source),
                Arc::clone(link),
                Last { id, at, data },
            );
            // A task of its own: stopping this one must not leave the check half done.
            let verified = inner.handle.spawn(verified).await;
            verified.unwrap_or_else(|_| Err(HydrateError::ShuttingDown.into()))?;
            Ok(true)
        }
    }
}

/// Sends the request, and makes sure that the answer is of the pinned version.
async fn open(
    inner: &Arc<Inner>,
    source: &Arc<Source>,
    mut link: Arc<Link>,
    range: &ByteRange,
    silence: Duration,
) -> Result<(RangeBody, Arc<Link>), Trouble> {
    let mut compared = false;
    loop {
        let fetch = async {
            let fetched = inner.graph.fetch(&link.download, range.clone()).await;
            Ok::<_, Trouble>(fetched)
        };
        let content = match within(silence, fetch).await? {
            Ok(content) => content,
            Err(GraphError::RangeNotSatisfiable { total }) => {
                return Err(inner.judge_size(source, total).await);
            }
            Err(error) => {
                let trouble = trouble(error);
                if matches!(trouble, Trouble::UrlExpired(_)) {
                    inner.urls.discard(source, &link).await;
                }
                return Err(trouble);
            }
        };
        if content.total.is_some_and(|total| total != source.size) {
            return Err(inner.judge_size(source, content.total).await);
        }
        if compared || !inner.urls.is_suspicious(&link, content.tag()) {
            return Ok((content, link));
        }
        // The label is new: the content may be, too. The answer at hand is dropped, because only
        // what is asked for after the comparison is known to be of the pinned version.
        drop(content);
        compared = true;
        inner.urls.discard(source, &link).await;
        let fresh = inner.urls.link(&inner.graph, &inner.config, source);
        let fresh = within(silence, fresh).await?;
        inner.urls.note_foreign_label(&link, &fresh);
        link = fresh;
    }
}

impl Inner {
    /// Finds out why the content has another length than expected: another version, or metadata
    /// that never was right.
    async fn judge_size(&self, source: &Source, total: Option<u64>) -> Trouble {
        self.urls.discard_any(source).await;
        if let Err(trouble) = self.urls.link(&self.graph, &self.config, source).await {
            return trouble;
        }
        match total {
            Some(total) if total != source.size => HydrateError::TrueSize(total).into(),
            // The service ends early without saying where.
            _ => HydrateError::Changed.into(),
        }
    }

    /// Waits while programs read, but not for ever.
    async fn rest_while_read(&self) {
        let mut reading = self.reading.subscribe();
        if *reading.borrow_and_update() == 0 {
            return;
        }
        let quiet = async {
            while reading.wait_for(|count| *count == 0).await.is_ok() {
                let more = reading.wait_for(|count| *count > 0);
                if tokio::time::timeout(QUIET, more).await.is_err() {
                    return;
                }
            }
        };
        let _either = tokio::time::timeout(self.config.pin_rest, quiet).await;
    }

    /// What limits the transfers of a kind.
    fn permits(&self, demand: Demand) -> &Semaphore {
        match demand {
            Demand::Foreground => &self.foreground,
            Demand::ReadAhead | Demand::Upload => &self.background,
            Demand::Pin => &self.pins,
        }
    }

    /// Has room made for what a segment will bring.
    async fn make_room(
        &self,
        flight: &Arc<Flight>,
        id: u64,
        demand: Demand,
    ) -> Result<Room, HydrateError> {
        let bytes = flight
            .remaining(id)
            .map_or(0, |range| range.end - range.start);
        let sink = Arc::clone(&self.sink);
        let make = move || sink.make_room(bytes, demand);
        match self.handle.spawn_blocking(make).await {
            Ok(room) => room.ok_or(HydrateError::NoSpace),
            Err(_shutdown) => Err(HydrateError::ShuttingDown),
        }
    }

    /// Notes that there was no room for what came.
    fn note_full(&self) {
        let before = self.full_at.lock().replace(Instant::now());
        if before.is_none_or(|at| at.elapsed() > QUIET_FOR) {
            tracing::warn!(
                "The disk of the content cache is full, but for what is to stay free \
                 (`free_space`). What is read is fetched again each time; make room there."
            );
        }
    }

    /// Records what is present when enough has arrived.
    fn save_if_due(self: &Arc<Self>, flight: &Arc<Flight>, age: Duration) {
        let due = flight.is_save_due(self.config.save_after_bytes, age);
        if due || flight.body().is_complete() {
            let (inner, flight) = (Arc::clone(self), Arc::clone(flight));
            self.handle.spawn(async move { inner.save(&flight).await });
        }
    }

    /// Records what is present.
    pub(super) async fn save(&self, flight: &Arc<Flight>) {
        let _saving = flight.saving.lock().await;
        let Some(verified) = flight.take_unsaved() else {
            return;
        };
        let (sink, body) = (Arc::clone(&self.sink), Arc::clone(flight.body()));
        let save = move || {
            // In this order: what arrives meanwhile is not covered by the sync.
            let presence = body.presence();
            let synced = body.sync_data();
            if synced.is_ok() {
                sink.save(body.id(), &presence, verified);
            }
            synced
        };
        let saved = self.handle.spawn_blocking(save).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(body = %flight.body().id(), %error, "Downloaded content could not be put on disk.");
            flight.put_back_unsaved();
        }
    }
}
