//! Points in time, as nanoseconds since 1970 in UTC.
//!
//! One plain integer serves SQLite, the kernel and the service; conversions live at the borders.
//! Remote timestamps never order local events, so no clock is needed here beyond "now".

use std::fmt;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970-01-01T00:00:00Z; negative before. Reaches from 1677 to 2262.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps nanoseconds since 1970 in UTC.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970 in UTC.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// The wall clock of this machine.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Parses an RFC 3339 time; `None` when it is malformed or out of range.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = jiff::Timestamp::from_str(text).ok()?;
        i64::try_from(parsed.as_nanosecond()).ok().map(Self)
    }

    /// Formats the time for the service: RFC 3339 in UTC with milliseconds.
    ///
    /// The service keeps milliseconds on personal drives and whole seconds elsewhere, so finer
    /// digits would not come back.
    #[must_use]
    pub fn to_service(self) -> String {
        let (secs, nanos) = (self.seconds(), self.0.rem_euclid(NANOS_PER_SECOND));
        let millis = nanos / 1_000_000;
        jiff::Timestamp::from_second(secs).map_or_else(
            |_| "1970-01-01T00:00:00Z".to_owned(),
            |t| {
                let base = t.strftime("%Y-%m-%dT%H:%M:%S");
                if millis == 0 {
                    format!("{base}Z")
                } else {
                    format!("{base}.{millis:03}Z")
                }
            },
        )
    }

    /// Tells whether both times fall into the same second, the precision all drives keep.
    #[must_use]
    pub const fn same_second(self, other: Self) -> bool {
        self.seconds() == other.seconds()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)
            }
        };
        Self(nanos)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let magnitude = Duration::from_nanos(time.0.unsigned_abs());
        if time.0 >= 0 {
            Self::UNIX_EPOCH + magnitude
        } else {
            Self::UNIX_EPOCH - magnitude
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_service())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_times_round_trip_to_the_millisecond() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.047Z",
            "1969-12-31T23:59:59.5Z",
        ] {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(Timestamp::parse(&time.to_service()), Some(time), "{text}");
            assert_eq!(Timestamp::from(SystemTime::from(time)), time, "{text}");
        }
        assert_eq!(Timestamp::parse("0001-01-01T00:00:00Z"), None);
        assert_eq!(
            Timestamp::parse("2026-01-02T03:04:05.0766667Z")
                .unwrap()
                .as_nanos()
                % 1_000_000_000,
            76_666_700
        );
    }
}
