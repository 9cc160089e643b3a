//! Who goes first when many requests want to leave at the same time.
//!
//! Everything an account does shares one budget of requests and one line. A program that waits must
//! not queue behind ten thousand uploads, so every request belongs to a [`Lane`]. The number of
//! requests under way is limited, the lower a lane the sooner, so that places stay free for those
//! that somebody waits for; a place that becomes free goes to the highest lane that waits. Nobody
//! waits for ever: whoever has waited long enough is next, one at a time.
//!
//! The line is shared as well: an upload rests between two pieces while an interactive request is
//! under way, though never for long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Number of lanes.
pub(crate) const LANES: usize = 4;

/// Requests under way at which a lane has to wait, by lane. More than all workers of one mount
/// together have by default; what is left for programs is as much as its readers can have.
const ROOM: [usize; LANES] = [64, 48, 40, 32];

/// Time after which a request is next whatever its lane, unless another such one is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest rest of an upload before a piece of it.
const REST_MAX: Duration = Duration::from_millis(500);

/// Quiet time after which an upload goes on: programs read in bursts.
const QUIET: Duration = Duration::from_millis(50);

/// What a request is for, most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// A program will probably want it in a moment.
    ReadAhead,
    /// A change of this machine is sent.
    Upload,
    /// The rest: enumerations, rounds of changes, what is pinned.
    Background,
}

impl Lane {
    /// All lanes in order.
    pub(crate) const ALL: [Self; LANES] = [
        Self::Interactive,
        Self::ReadAhead,
        Self::Upload,
        Self::Background,
    ];

    /// Its place in the order.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The lane of the task at hand.
    pub(crate) fn current() -> Self {
        LANE.try_with(|lane| *lane).unwrap_or_default()
    }
}

tokio::task_local! {
    static LANE: Lane;
}

/// Does some work whose requests belong to a lane. Tasks that it spawns do not inherit that.
pub async fn in_lane<F: Future>(lane: Lane, work: F) -> F::Output {
    LANE.scope(lane, work).await
}

/// The gate through which requests leave.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Interactive requests under way.
    interactive: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    busy: usize,
    /// Whether one is under way that was next for having waited long.
    favoured: bool,
    waiting: [VecDeque<Waiter>; LANES],
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    go: oneshot::Sender<Permit>,
}

/// A request under way. Its place is free when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Option<Arc<Gate>>,
    lane: Lane,
    favoured: bool,
}

impl Gate {
    /// A gate with nobody at it.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            interactive: watch::Sender::new(0),
        })
    }

    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Self>, lane: Lane) -> Permit {
        let turn = {
            let mut state = self.state.lock();
            let waiting = &state.waiting[lane.index()];
            if waiting.is_empty() && state.busy < ROOM[lane.index()] {
                state.busy += 1;
                None
            } else {
                let (go, turn) = oneshot::channel();
                let since = Instant::now();
                state.waiting[lane.index()].push_back(Waiter { since, go });
                Some(turn)
            }
        };
        match turn {
            None => self.permit(lane, false),
            // The sender is dropped with the gate only, which this holds.
            Some(turn) => turn.await.unwrap_or_else(|_gone| self.permit(lane, false)),
        }
    }

    fn permit(self: &Arc<Self>, lane: Lane, favoured: bool) -> Permit {
        if lane == Lane::Interactive {
            self.interactive.send_modify(|count| *count += 1);
        }
        Permit {
            gate: Some(Arc::clone(self)),
            lane,
            favoured,
        }
    }

    /// Gives free places to those who wait.
    fn leave(self: &Arc<Self>, favoured: bool) {
        let mut state = self.state.lock();
        state.busy -= 1;
        state.favoured &= !favoured;
        while let Some((lane, waiter, favoured)) = state.next(Instant::now()) {
            state.busy += 1;
            state.favoured |= favoured;
            if let Err(mut refused) = waiter.go.send(self.permit(lane, favoured)) {
                // It went away while it waited.
                refused.gate = None;
                if lane == Lane::Interactive {
                    self.interactive.send_modify(|count| *count -= 1);
                }
                state.busy -= 1;
                state.favoured &= !favoured;
            }
        }
    }

    /// Lets an upload rest while an interactive request is under way, but not for long.
    pub(crate) async fn rest(&self) {
        let mut interactive = self.interactive.subscribe();
        if *interactive.borrow_and_update() == 0 {
            return;
        }
        let quiet = async {
            while interactive.wait_for(|count| *count == 0).await.is_ok() {
                let more = interactive.wait_for(|count| *count > 0);
                if tokio::time::timeout(QUIET, more).await.is_err() {
                    return;
                }
            }
        };
        let _either = tokio::time::timeout(REST_MAX, quiet).await;
    }
}

impl State {
    /// Takes the next one out who may go, and tells whether only because of how long it has waited.
    fn next(&mut self, now: Instant) -> Option<(Lane, Waiter, bool)> {
        if self.busy >= ROOM[0] {
            return None;
        }
        let first = |lane: &Lane| self.waiting[lane.index()].front().map(|first| first.since);
        let is_long = |since: Instant| now.duration_since(since) >= PATIENCE;
        let impatient = Lane::ALL
            .into_iter()
            .filter(|lane| !self.favoured && first(lane).is_some_and(is_long))
            .min_by_key(first);
        let free = |lane: &Lane| self.busy < ROOM[lane.index()] && first(lane).is_some();
        let lane = impatient.or_else(|| Lane::ALL.into_iter().find(free))?;
        let waiter = self.waiting[lane.index()].pop_front()?;
        Some((lane, waiter, impatient.is_some()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            if self.lane == Lane::Interactive {
                gate.interactive.send_modify(|count| *count -= 1);
            }
            gate.leave(self.favoured);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    /// Looks once whether something is done.
    async fn poll<F: Future + Unpin>(work: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *work).poll(context))).await
    }

    /// Fills the gate as far as a lane may.
    async fn fill(gate: &Arc<Gate>, lane: Lane) -> Vec<Permit> {
        let mut permits = Vec::new();
        while gate.state.lock().busy < ROOM[lane.index()] {
            permits.push(gate.enter(lane).await);
        }
        permits
    }

    /// Lets requests queue in this order, and returns the order in which they may leave.
    async fn order(gate: &Arc<Gate>, held: Vec<Permit>, queue: &[Lane]) -> Vec<Lane> {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for (number, &lane) in queue.iter().enumerate() {
            let (entered, told) = (Arc::clone(gate), told.clone());
            tokio::spawn(async move {
                let permit = entered.enter(lane).await;
                told.send(lane).expect("heard");
                drop(permit);
            });
            // Queued before the next one comes.
            let queued = || {
                gate.state
                    .lock()
                    .waiting
                    .iter()
                    .map(VecDeque::len)
                    .sum::<usize>()
            };
            while queued() <= number {
                tokio::task::yield_now().await;
            }
        }
        drop((held, told));
        let mut order = Vec::new();
        while let Some(lane) = heard.recv().await {
            order.push(lane);
        }
        order
    }

    #[tokio::test]
    async fn a_place_that_becomes_free_goes_to_the_most_urgent() {
        let gate = Gate::new();
        let mut held = fill(&gate, Lane::Interactive).await;
        // All but one of them stay, so that one goes at a time.
        let last = held.split_off(held.len() - 1);
        let room = ROOM[Lane::Background.index()];
        let stay = held.split_off(room - 1);
        let queue = [
            Lane::Background,
            Lane::Upload,
            Lane::ReadAhead,
            Lane::Interactive,
        ];
        drop(stay);
        // Below the room of every lane nobody queues; at it, the order counts.
        let mut fillers = fill(&gate, Lane::Interactive).await;
        fillers.extend(last);
        fillers.extend(held);
        let order = order(&gate, fillers, &queue).await;
        assert_eq!(
            order,
            [
                Lane::Interactive,
                Lane::ReadAhead,
                Lane::Upload,
                Lane::Background
            ]
        );
    }

    #[tokio::test]
    async fn ten_thousand_uploads_leave_places_for_those_who_wait() {
        let gate = Gate::new();
        let uploads = fill(&gate, Lane::Upload).await;
        let mut queued = Vec::new();
        for _ in 0..10_000 {
            let gate = Arc::clone(&gate);
            queued.push(tokio::spawn(async move { gate.enter(Lane::Upload).await }));
        }
        while gate.state.lock().waiting[Lane::Upload.index()].len() < queued.len() {
            tokio::task::yield_now().await;
        }
        // Without waiting for anything: the first poll is enough.
        let free = ROOM[0] - ROOM[Lane::Upload.index()];
        for _ in 0..free {
            let mut enter = Box::pin(gate.enter(Lane::Interactive));
            let permit = poll(&mut enter).await;
            assert!(permit.is_ready());
            // What it held is free again, and no upload takes it.
            drop(permit);
            assert_eq!(gate.state.lock().busy, ROOM[Lane::Upload.index()]);
        }
        drop(uploads);
        for upload in queued {
            drop(upload.await.expect("every upload gets its turn"));
        }
        assert_eq!(gate.state.lock().busy, 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let gate = Gate::new();
        let held = fill(&gate, Lane::Interactive).await;
        let mut waiting = Box::pin(gate.enter(Lane::Interactive));
        assert!(poll(&mut waiting).await.is_pending());
        drop(waiting);
        // One that was given its place and never heard of it.
        let mut given = Box::pin(gate.enter(Lane::Interactive));
        assert!(poll(&mut given).await.is_pending());
        drop(held);
        drop(given);
        assert_eq!(gate.state.lock().busy, 0);
        assert_eq!(*gate.interactive.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_nobody_gets_everything_for_that() {
        let gate = Gate::new();
        let mut held = fill(&gate, Lane::Interactive).await;
        let mut background: Vec<_> = (0..3)
            .map(|_| Box::pin(gate.enter(Lane::Background)))
            .collect();
        for waiting in &mut background {
            assert!(poll(waiting).await.is_pending());
        }
        held.pop();
        assert!(poll(&mut background[0]).await.is_pending());
        tokio::time::advance(PATIENCE).await;
        held.truncate(held.len() - 5);
        let first = poll(&mut background[0]).await;
        assert!(first.is_ready());
        assert!(poll(&mut background[1]).await.is_pending());
        // There is room for whoever is in a hurry.
        let mut hurry = Box::pin(gate.enter(Lane::Interactive));
        assert!(poll(&mut hurry).await.is_ready());
        drop(first);
        assert!(poll(&mut background[1]).await.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_rests_while_somebody_waits_but_not_for_long() {
        let gate = Gate::new();
        let begun = Instant::now();
        gate.rest().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let interactive = gate.enter(Lane::Interactive).await;
        gate.rest().await;
        assert!(begun.elapsed() >= REST_MAX);
        drop(interactive);
        let begun = Instant::now();
        gate.rest().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
