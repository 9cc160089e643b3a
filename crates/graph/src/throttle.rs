//! One hold for the whole account.
//!
//! The service counts throttled requests too, and blocks clients that keep asking. So one 429 or
//! 503 stops every request of the account until the time it named; where it names none, the pause
//! doubles from one second to two minutes, with jitter. When the budget runs low, requests are
//! spread over the rest of its period: first and furthest apart those that nobody waits for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lanes::{Gate, LANES, Lane, Permit};

/// First pause when the service names none.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause when the service names none.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Longest hold that is believed; a nonsensical figure must not stop the program for a year.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// Share of the budget below which requests are spread out, by lane: one in this many. The service
/// tells what is left when it is a fifth.
const LOW_BUDGET_SHARE: [f64; LANES] = [10.0, 8.0, 6.0, 5.0];

/// How much further apart the requests of each lane are then.
const SPREAD: [f64; LANES] = [1.0, 2.0, 3.0, 4.0];

/// Longest distance between two requests while the budget is low.
const LONGEST_SPACING: Duration = Duration::from_secs(2);

/// Most jitter added after a hold, so that waiting requests do not start all at once.
const RELEASE_JITTER_MS: u64 = 100;

/// What the gate knows.
#[derive(Debug, Default)]
struct State {
    /// Nothing is sent before this time.
    until: Option<Instant>,
    /// Counts holds, so that late answers to requests sent before one do not lengthen the pause.
    epoch: u64,
    /// Holds in a row without a named time and without a success between them.
    unnamed: u32,
    /// Distance between requests of each lane, and until when to keep it.
    spacing: [Option<(Duration, Instant)>; LANES],
    /// When the next spaced request of each lane may start.
    slot: [Option<Instant>; LANES],
}

/// The gate that every request passes.
#[derive(Debug)]
pub(crate) struct Throttle {
    state: Mutex<State>,
    hold: watch::Sender<Option<std::time::Instant>>,
    gate: Arc<Gate>,
}

/// Proof of having passed the gate. Others may wait for its place: it is kept for as long as the
/// request is under way.
#[derive(Debug)]
pub(crate) struct Pass {
    epoch: u64,
    _permit: Permit,
}

impl Throttle {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::default()),
            hold: watch::Sender::new(None),
            gate: Gate::new(),
        }
    }

    /// Where requests wait for each other.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Until when nothing is sent.
    pub(crate) fn until(&self) -> Option<std::time::Instant> {
        let until = self.state.lock().until?;
        (until > Instant::now()).then(|| until.into_std())
    }

    /// Tells about every new hold.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<std::time::Instant>> {
        self.hold.subscribe()
    }

    /// Waits until a request of the current lane may be sent.
    pub(crate) async fn pass(&self) -> Pass {
        let lane = Lane::current();
        let mut held = false;
        loop {
            while let Some(until) = self.wait_until(lane) {
                tokio::time::sleep_until(until).await;
                if !held {
                    held = true;
                    let jitter = rand::rng().random_range(0..=RELEASE_JITTER_MS);
                    tokio::time::sleep(Duration::from_millis(jitter)).await;
                }
            }
            let permit = self.gate.enter(lane).await;
            let state = self.state.lock();
            // A hold may have begun while others went first.
            if state.until.is_none_or(|until| until <= Instant::now()) {
                return Pass {
                    epoch: state.epoch,
                    _permit: permit,
                };
            }
        }
    }

    /// Until when a request of a lane has to wait at least; `None` when it may try to leave.
    fn wait_until(&self, lane: Lane) -> Option<Instant> {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.until {
            Some(until) if until > now => Some(until),
            _ => take_slot(&mut state, lane, now),
        }
    }

    /// Notes an answer that was not a refusal to serve.
    pub(crate) fn served(&self, headers: &HeaderMap) {
        let mut state = self.state.lock();
        state.unnamed = 0;
        if state.until.is_some_and(|until| until <= Instant::now()) {
            state.until = None;
            self.hold.send_replace(None);
        }
        for lane in Lane::ALL {
            if let Some((spacing, period)) = low_budget(headers, lane) {
                state.spacing[lane.index()] = Some((spacing, Instant::now() + period));
            }
        }
    }

    /// Notes a refusal to serve and returns how long everything waits now.
    pub(crate) fn refused(&self, pass: &Pass, headers: &HeaderMap) -> Duration {
        let named = retry_after(headers, SystemTime::now());
        let mut state = self.state.lock();
        let now = Instant::now();
        let fresh = pass.epoch == state.epoch;
        let wait = match named {
            Some(wait) => wait.max(reset_after(headers).unwrap_or_default()),
            None if !fresh => Duration::ZERO,
            None => {
                let pause = FIRST_PAUSE.saturating_mul(1 << state.unnamed.min(7));
                state.unnamed = state.unnamed.saturating_add(1);
                jittered(pause.min(LONGEST_PAUSE))
            }
        };
        if fresh {
            state.epoch += 1;
        }
        let until = now + wait.min(LONGEST_HOLD);
        if state.until.is_none_or(|old| until > old) {
            state.until = Some(until);
            self.hold.send_replace(Some(until.into_std()));
            tracing::info!(
                seconds = wait.as_secs_f32(),
                named = named.is_some(),
                "the service asked to slow down; held all requests"
            );
        }
        state
            .until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// Reserves the next slot while requests are spread out; `None` when the request may start now.
fn take_slot(state: &mut State, lane: Lane, now: Instant) -> Option<Instant> {
    let lane = lane.index();
    let (spacing, end) = state.spacing[lane]?;
    if now >= end {
        state.spacing[lane] = None;
        state.slot[lane] = None;
        return None;
    }
    match state.slot[lane] {
        Some(slot) if slot > now => Some(slot),
        _ => {
            state.slot[lane] = Some(now + spacing);
            None
        }
    }
}

/// A pause shortened by up to a quarter at random.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..=1.0))
}

/// Reads one header as a number.
fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// Seconds as a duration, bounded.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, LONGEST_HOLD.as_secs_f64()))
}

/// When the budget is renewed.
fn reset_after(headers: &HeaderMap) -> Option<Duration> {
    number(headers, "ratelimit-reset").map(seconds)
}

/// The distance to keep between requests of a lane and for how long, when the budget runs low.
fn low_budget(headers: &HeaderMap, lane: Lane) -> Option<(Duration, Duration)> {
    let limit = number(headers, "ratelimit-limit")?;
    let remaining = number(headers, "ratelimit-remaining")?;
    let reset = reset_after(headers)?;
    if remaining * LOW_BUDGET_SHARE[lane.index()] > limit {
        return None;
    }
    let spacing = reset.div_f64(remaining.max(0.0) + 1.0).min(LONGEST_SPACING);
    Some((spacing.mul_f64(SPREAD[lane.index()]), reset))
}

/// How long the service asks to wait: seconds, with or without decimals, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if let Some(value) = number(headers, "retry-after") {
        return Some(seconds(value));
    }
    let text = headers.get("retry-after")?.to_str().ok()?;
    let when = parse_date(text)?;
    // The service's own clock, where it tells, spares us from a wrong local one.
    let own = headers.get("date").and_then(|date| date.to_str().ok());
    let now = own.and_then(parse_date).unwrap_or(now);
    let wait = when.duration_since(now).unwrap_or_default();
    Some(wait.min(LONGEST_HOLD))
}

/// Parses a date of HTTP.
fn parse_date(text: &str) -> Option<SystemTime> {
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(SystemTime::from(date.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::in_lane;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, http::HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn every_form_of_retry_after_is_read() {
        let now = parse_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        for (value, expected) in [
            ("7", Some(7_000)),
            (" 0 ", Some(0)),
            ("1.5", Some(1_500)),
            ("Wed, 21 Oct 2026 07:28:09 GMT", Some(9_000)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("99999999999999999999", Some(3_600_000)),
            ("-3", None),
            ("NaN", None),
            ("soon", None),
        ] {
            let wait = retry_after(&headers(&[("retry-after", value)]), now);
            assert_eq!(wait, expected.map(Duration::from_millis), "{value}");
        }
        let with_date = headers(&[
            ("retry-after", "Wed, 21 Oct 2026 07:28:09 GMT"),
            ("date", "Wed, 21 Oct 2026 07:28:04 GMT"),
        ]);
        assert_eq!(retry_after(&with_date, now), Some(Duration::from_secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_everybody_until_its_end() {
        let gate = Throttle::new();
        let pass = gate.pass().await;
        let before = Instant::now();
        assert_eq!(
            gate.refused(&pass, &headers(&[("retry-after", "5")])),
            Duration::from_secs(5)
        );
        assert!(gate.until().is_some());
        gate.pass().await;
        assert!(before.elapsed() >= Duration::from_secs(5));
        gate.served(&HeaderMap::new());
        assert!(gate.until().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn unnamed_pauses_double_once_per_hold() {
        let gate = Throttle::new();
        let none = HeaderMap::new();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            let pass = gate.pass().await;
            let wait = gate.refused(&pass, &none);
            // A second answer to a request sent before the hold changes nothing.
            assert_eq!(gate.refused(&pass, &none), wait);
            assert!(
                wait > last.mul_f64(0.74) && wait <= LONGEST_PAUSE,
                "{wait:?}"
            );
            last = wait;
        }
        assert!(last > Duration::from_secs(60), "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_budget_spreads_requests() {
        let gate = Throttle::new();
        gate.served(&headers(&[
            ("ratelimit-limit", "1250"),
            ("ratelimit-remaining", "9"),
            ("ratelimit-reset", "10"),
        ]));
        let before = Instant::now();
        for _ in 0..4 {
            gate.pass().await;
        }
        assert!(
            before.elapsed() >= Duration::from_secs(3),
            "{:?}",
            before.elapsed()
        );
        let plenty = headers(&[
            ("ratelimit-limit", "1250"),
            ("ratelimit-remaining", "200"),
            ("ratelimit-reset", "10"),
        ]);
        assert!(low_budget(&plenty, Lane::Interactive).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_low_budget_is_left_to_those_who_wait() {
        let gate = Throttle::new();
        let left = headers(&[
            ("ratelimit-limit", "1250"),
            ("ratelimit-remaining", "200"),
            ("ratelimit-reset", "600"),
        ]);
        gate.served(&left);
        let before = Instant::now();
        for _ in 0..4 {
            in_lane(Lane::Interactive, gate.pass()).await;
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        for _ in 0..4 {
            in_lane(Lane::Background, gate.pass()).await;
        }
        assert!(before.elapsed() >= Duration::from_secs(9));
        let distance = |lane| low_budget(&left, lane).map(|(distance, _)| distance);
        assert!(distance(Lane::Upload) < distance(Lane::Background));
    }
}
