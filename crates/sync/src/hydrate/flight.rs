//! All that is under way for one body: which ranges are being fetched, who waits, what failed.
//!
//! A range is fetched by one segment at a time. A waiter who needs bytes far behind a segment's
//! position, or in one that has not begun, takes the rest of it over, so that demand never queues
//! behind read-ahead.

use std::collections::BTreeMap;
use std::iter::once;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use onedrivefs_content::{Body, RangeSet};
use onedrivefs_core::{ByteRange, align_down, align_up};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::claim::{Claim, join_close};
use super::verify::Prefix;
use super::{Demand, HydrateError};

/// Distance in bytes from a segment's position at which a waiter fetches for itself instead of
/// waiting for the bytes between: what arrives in about the time a new request takes.
const TAKE_OVER_BYTES: u64 = 1024 * 1024;

/// Failures remembered for those who have not looked yet, which takes them microseconds.
const FAILURES_MAX: usize = 64;

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// Segments to run.
    pub(super) segments: Vec<u64>,
    /// Where it stopped because the owner has enough segments.
    pub(super) reached: Option<u64>,
}

/// A range that one task fetches.
struct Segment {
    /// The next byte to come.
    at: u64,
    /// Where it ends; others may bring that nearer.
    end: u64,
    demand: Demand,
    owner: Option<u64>,
    /// It has its permit.
    started: bool,
    abort: Option<AbortHandle>,
}

/// A failure that answers whoever waits for the range.
struct Failure {
    number: u64,
    range: ByteRange,
    error: HydrateError,
}

/// What happened to arrived bytes.
pub(super) enum Landed {
    /// They are in the body; the segment goes on.
    Stored,
    /// They are the last ones missing: to be verified before they are stored.
    Last {
        /// Where they belong.
        at: u64,
        /// The bytes.
        data: Bytes,
    },
    /// The segment is done.
    Over,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    next_segment: u64,
    users: usize,
    failures: Vec<Failure>,
    failure_count: u64,
    verifying: bool,
    /// The content came once with a wrong hash.
    corrupt_once: bool,
    verified: bool,
    unsaved_bytes: u64,
    unsaved_since: Option<Instant>,
    last_used: Option<Instant>,
}

/// All that is under way for one body.
pub(super) struct Flight {
    body: Arc<Body>,
    state: Mutex<State>,
    /// Counts bytes that arrived; a notice without more bytes means that something else changed.
    progress: watch::Sender<u64>,
    /// The hash so far. The lock is held by whoever is hashing.
    pub(super) prefix: Mutex<Prefix>,
    /// How far that hash reaches.
    pub(super) hashed: AtomicU64,
    /// Held while the presence is recorded, so that an older one never replaces a newer.
    pub(super) saving: tokio::sync::Mutex<()>,
    /// Notified when somebody wants the body to be let go of.
    pub(super) hurry: Notify,
}

impl Flight {
    /// Nothing is under way yet.
    pub(super) fn new(body: Arc<Body>) -> Self {
        Self {
            body,
            state: Mutex::default(),
            progress: watch::Sender::new(0),
            prefix: Mutex::default(),
            hashed: AtomicU64::new(0),
            saving: tokio::sync::Mutex::default(),
            hurry: Notify::new(),
        }
    }

    /// The body that is fetched.
    pub(super) fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// One more user.
    pub(super) fn join(&self) {
        let mut state = self.state.lock();
        state.users += 1;
        state.last_used = Some(Instant::now());
    }

    /// One user less. Failures have been told to all who were waiting when nobody is left.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.users -= 1;
        state.last_used = Some(Instant::now());
        if state.users == 0 {
            state.failures.clear();
        }
    }

    /// Follows what happens.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Wakes everybody; `bytes` have arrived.
    pub(super) fn notify(&self, bytes: u64) {
        self.progress.send_modify(|count| *count += bytes);
    }

    /// How many failures there were.
    pub(super) fn failures_so_far(&self) -> u64 {
        self.state.lock().failure_count
    }

    /// A failure that concerns one of the ranges and came after the first `count`.
    pub(super) fn failure_since(&self, count: u64, ranges: &[ByteRange]) -> Option<HydrateError> {
        let state = self.state.lock();
        let concerns = |failure: &&Failure| {
            let overlaps = |range: &ByteRange| {
                range.start < failure.range.end && failure.range.start < range.end
            };
            failure.number >= count && ranges.iter().any(overlaps)
        };
        state
            .failures
            .iter()
            .find(concerns)
            .map(|failure| failure.error.clone())
    }

    /// Answers everybody and stops everything.
    pub(super) fn fail_everything(&self, error: &HydrateError) {
        let mut state = self.state.lock();
        for segment in state.segments.values_mut() {
            segment.stop();
        }
        state.fail(0..u64::MAX, error.clone());
        drop(state);
        self.notify(0);
    }

    /// Answers whoever waits for the body.
    pub(super) fn fail_body(&self, error: HydrateError) {
        self.state.lock().fail(0..u64::MAX, error);
        self.notify(0);
    }

    /// Answers whoever waits for what a segment did not bring. Nobody waits for read-ahead: who
    /// would have liked its bytes asks for them again. So do those whose own time is not over yet.
    pub(super) fn fail_segment(&self, id: u64, error: HydrateError) {
        let mut state = self.state.lock();
        let Some(segment) = state.segments.get_mut(&id) else {
            return;
        };
        let range = segment.at..segment.end;
        segment.end = segment.at;
        let told = range.is_empty() || matches!(error, HydrateError::TimedOut);
        if segment.demand.is_awaited() && !told {
            state.fail(range, error);
        }
    }

    /// Reserves what is missing and not under way, in whole blocks.
    pub(super) fn claim(
        &self,
        missing: &dyn Fn() -> Vec<ByteRange>,
        size: u64,
        claim: &Claim,
    ) -> Claimed {
        let mut state = self.state.lock();
        if state.verifying {
            return Claimed::default();
        }
        // Asked under the lock, so that what arrived a moment ago is not fetched again.
        let mut wanted = RangeSet::new();
        for range in missing() {
            let start = align_down(range.start, claim.block_bytes);
            let end = align_up(range.end, claim.block_bytes).min(size);
            let absent = self.body.missing(start..end);
            for part in absent
                .into_iter()
                .chain(once(range.start..range.end.min(size)))
            {
                if part.start < part.end {
                    wanted.insert(part);
                }
            }
        }
        // In this order: joined first, the bytes between two transfers that begin would count as
        // wanted as soon as they have arrived.
        state.settle_overlaps(&mut wanted, claim);
        let is_present = |gap| self.body.missing(gap).is_empty();
        let wanted = join_close(&wanted, claim.block_bytes, is_present);
        let mut claimed = Claimed::default();
        for range in wanted {
            let mut at = range.start;
            while at < range.end {
                if !state.may_claim(claim) {
                    claimed.reached = Some(at);
                    return claimed;
                }
                let end = range.end.min(at.saturating_add(claim.request_bytes));
                claimed.segments.push(state.add(at..end, claim));
                at = end;
            }
        }
        claimed
    }

    /// Says how to stop a segment's task.
    pub(super) fn set_abort(&self, id: u64, abort: AbortHandle) {
        let mut state = self.state.lock();
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.abort = Some(abort);
        }
    }

    /// What a segment still has to fetch.
    pub(super) fn remaining(&self, id: u64) -> Option<ByteRange> {
        let state = self.state.lock();
        let segment = state.segments.get(&id)?;
        (segment.at < segment.end).then_some(segment.at..segment.end)
    }

    /// Tells whether a segment is fetched only because it is pinned.
    pub(super) fn is_pin(&self, id: u64) -> bool {
        let state = self.state.lock();
        state
            .segments
            .get(&id)
            .is_some_and(|segment| segment.demand == Demand::Pin)
    }

    /// A segment has its permit.
    pub(super) fn set_started(&self, id: u64) {
        if let Some(segment) = self.state.lock().segments.get_mut(&id) {
            segment.started = true;
        }
    }

    /// A segment is done, for good or ill.
    pub(super) fn finish(&self, id: u64) {
        let mut state = self.state.lock();
        state.segments.remove(&id);
        state.last_used = Some(Instant::now());
        drop(state);
        self.notify(0);
    }

    /// Stops what is fetched ahead of a reader. Whoever waits for it asks for it again.
    pub(super) fn stop_readahead(&self, owner: u64) {
        self.stop_all(|segment| segment.owner == Some(owner));
    }

    /// Stops what is fetched because it is pinned. Whoever waits for it asks for it again.
    pub(super) fn stop_pin(&self) {
        self.stop_all(|segment| segment.demand == Demand::Pin);
    }

    fn stop_all(&self, which: impl Fn(&Segment) -> bool) {
        let mut state = self.state.lock();
        let segments = state.segments.values_mut();
        segments
            .filter(|segment| which(segment))
            .for_each(Segment::stop);
    }

    /// Takes bytes that arrived for a segment. With `verify`, those that would make the body whole
    /// are handed back instead.
    pub(super) fn land(
        &self,
        id: u64,
        mut data: Bytes,
        verify: bool,
    ) -> Result<Landed, HydrateError> {
        let mut state = self.state.lock();
        let Some(segment) = state.segments.get_mut(&id) else {
            return Ok(Landed::Over);
        };
        let room = usize::try_from(segment.end - segment.at).unwrap_or(usize::MAX);
        data.truncate(room);
        if data.is_empty() {
            return Ok(Landed::Over);
        }
        let at = segment.at;
        let range = at..at + data.len() as u64;
        if verify && self.body.is_pristine() && self.body.completes(&range) {
            state.verifying = true;
            return Ok(Landed::Last { at, data });
        }
        self.body.fill(at, &data)?;
        segment.at = range.end;
        state.note_arrived(data.len() as u64);
        drop(state);
        self.notify(data.len() as u64);
        Ok(Landed::Stored)
    }

    /// The verification that [`Landed::Last`] asked for is over, and `stored` bytes were accepted.
    /// The segment ends there: nothing is missing any more, or everything is.
    pub(super) fn end_verification(&self, id: u64, stored: Option<u64>, verified: bool) {
        let mut state = self.state.lock();
        state.verifying = false;
        state.verified = verified;
        if let Some(segment) = state.segments.get_mut(&id) {
            segment.end = segment.at;
        }
        if let Some(stored) = stored {
            state.note_arrived(stored);
            state.corrupt_once = false;
        }
        let stored = stored.unwrap_or(0);
        drop(state);
        self.notify(stored);
    }

    /// Tells whether the body is being verified, which takes its time.
    pub(super) fn is_verifying(&self) -> bool {
        self.state.lock().verifying
    }

    /// Notes that the content came with a wrong hash; tells whether that was the first time.
    pub(super) fn note_corrupt(&self) -> bool {
        let mut state = self.state.lock();
        state.unsaved_bytes = 0;
        state.unsaved_since = None;
        state.verified = false;
        state.corrupt_once = !state.corrupt_once;
        state.corrupt_once
    }

    /// Takes what has to be recorded: `None` for nothing, else whether the body was verified.
    pub(super) fn take_unsaved(&self) -> Option<bool> {
        let mut state = self.state.lock();
        state.unsaved_since.take()?;
        state.unsaved_bytes = 0;
        Some(state.verified)
    }

    /// Gives back what could not be recorded.
    pub(super) fn put_back_unsaved(&self) {
        self.state.lock().note_arrived(0);
    }

    /// Tells whether something has to be recorded.
    pub(super) fn has_unsaved(&self) -> bool {
        self.state.lock().unsaved_since.is_some()
    }

    /// Tells whether this many bytes, or bytes from this long ago, have to be recorded.
    pub(super) fn is_save_due(&self, bytes: u64, age: Duration) -> bool {
        let state = self.state.lock();
        let old = state
            .unsaved_since
            .is_some_and(|since| since.elapsed() >= age);
        old || (state.unsaved_bytes >= bytes)
    }

    /// Tells whether nothing is under way and nobody was here for some time.
    pub(super) fn is_resting(&self, time: Duration) -> bool {
        let state = self.state.lock();
        let idle = state.last_used.is_none_or(|last| last.elapsed() >= time);
        state.users == 0 && state.segments.is_empty() && idle
    }
}

impl State {
    /// Records a failure.
    fn fail(&mut self, range: ByteRange, error: HydrateError) {
        let number = self.failure_count;
        self.failure_count += 1;
        if self.failures.len() >= FAILURES_MAX {
            self.failures.remove(0);
        }
        if self.users > 0 {
            self.failures.push(Failure {
                number,
                range,
                error,
            });
        }
    }

    /// Counts bytes that will have to be recorded.
    fn note_arrived(&mut self, bytes: u64) {
        self.unsaved_bytes += bytes;
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Takes what is under way out of what is wanted, or takes it over.
    fn settle_overlaps(&mut self, wanted: &mut RangeSet<u64>, claim: &Claim) {
        for segment in self.segments.values_mut() {
            let live = segment.at..segment.end;
            if live.is_empty() {
                continue;
            }
            let Some(first) = wanted
                .overlapping(&live)
                .next()
                .map(|r| r.start.max(live.start))
            else {
                continue;
            };
            // What is pinned may rest for the sake of the very reader who waits here.
            let idle = match segment.demand {
                Demand::Pin => true,
                Demand::ReadAhead => !segment.started,
                Demand::Foreground | Demand::Upload => false,
            };
            let far = first > live.start.saturating_add(TAKE_OVER_BYTES);
            if claim.demand.is_urgent() && (idle || far) {
                segment.end = first;
                if segment.at >= segment.end {
                    segment.stop();
                }
                wanted.insert(first..live.end);
            } else {
                wanted.remove(live);
            }
        }
    }

    /// Tells whether one more segment may be started.
    fn may_claim(&self, claim: &Claim) -> bool {
        if claim.segments_max == usize::MAX {
            return true;
        }
        let live =
            |s: &&Segment| s.owner == claim.owner && s.demand == claim.demand && s.at < s.end;
        let own = self.segments.values().filter(live);
        own.count() < claim.segments_max
    }

    /// Adds a segment.
    fn add(&mut self, range: ByteRange, claim: &Claim) -> u64 {
        let id = self.next_segment;
        self.next_segment += 1;
        self.segments.insert(
            id,
            Segment {
                at: range.start,
                end: range.end,
                demand: claim.demand,
                owner: claim.owner,
                started: false,
                abort: None,
            },
        );
        id
    }
}

impl Segment {
    /// Ends it where it is.
    fn stop(&mut self) {
        self.end = self.at;
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }
}
