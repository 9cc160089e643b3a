//! Expiry must be testable without waiting: every time the simulator looks at the time it asks
//! this clock, which a test can move.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Wall-clock time plus an offset that tests move.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset_ms: AtomicI64,
}

impl Clock {
    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() + self.offset_ms.load(Ordering::Relaxed)
    }

    /// Moves the simulated time forward.
    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.offset_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// Moves the simulated time back.
    pub(crate) fn set_back(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.offset_ms.fetch_sub(by, Ordering::Relaxed);
    }
}

/// Formats milliseconds since the epoch as ISO 8601 UTC, fraction only when there is one.
pub(crate) fn iso(ms: i64) -> String {
    Iso(ms).to_string()
}

/// Milliseconds since the epoch, written as an ISO 8601 instant.
#[derive(Clone, Copy)]
pub(crate) struct Iso(pub(crate) i64);

impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        jiff::Timestamp::from_millisecond(self.0)
            .unwrap_or_default()
            .fmt(f)
    }
}

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Formats milliseconds since the epoch for the `Date` header.
pub(crate) fn http_date(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Parses an ISO 8601 instant to milliseconds since the epoch.
pub(crate) fn parse_iso(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_round_trips_and_drops_empty_fractions() {
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(1_500), "1970-01-01T00:00:01.5Z");
        assert_eq!(parse_iso("1970-01-01T00:00:01.047Z"), Some(1_047));
        assert_eq!(parse_iso("yesterday"), None);
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
