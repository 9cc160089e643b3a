//! How large fragments are.
//!
//! Fragments are sent one after the other, and each waits for an answer: on a quick line the waiting
//! is what limits an upload of small ones. A daemon that is killed sends the fragment again that was
//! under way. So fragments grow until the line needs about a second for one.

use std::time::Duration;

/// What fragments but the last must be a multiple of, in bytes (contract, section 8).
const UNIT: u64 = 327_680;

/// The first fragment, in bytes: the 10 MiB that the service advises. None is smaller.
pub(super) const FIRST: u64 = 32 * UNIT;

/// The largest, in bytes: the service takes less than 60 MiB.
const LARGEST: u64 = 191 * UNIT;

/// How long the line is to need for one.
const TARGET: Duration = Duration::from_secs(1);

/// The size of the next fragment of one upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct FragmentSize(u64);

impl FragmentSize {
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// Its size in bytes.
    pub(super) const fn bytes(self) -> u64 {
        self.0
    }

    /// Takes note of how long one took, from its first byte to the answer.
    pub(super) fn note(&mut self, bytes: u64, took: Duration) {
        let nanos = took.as_nanos().max(1);
        let wanted = u128::from(bytes) * TARGET.as_nanos() / nanos;
        let wanted = u64::try_from(wanted).unwrap_or(LARGEST) / UNIT * UNIT;
        // One quick answer may be luck.
        self.0 = wanted.clamp(FIRST, LARGEST).min(self.0 * 2 / UNIT * UNIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_grow_with_the_line_and_shrink_again() {
        let mut size = FragmentSize::new();
        assert_eq!(size.bytes(), FIRST);
        let second = Duration::from_secs(1);
        // 25 MB/s.
        for _ in 0..3 {
            size.note(size.bytes(), second.mul_f64(size.bytes() as f64 / 25e6));
        }
        assert_eq!(size.bytes(), 25_000_000 / UNIT * UNIT);
        // A thousand times that.
        for _ in 0..3 {
            size.note(size.bytes(), second.mul_f64(size.bytes() as f64 / 25e9));
            assert_eq!(size.bytes() % UNIT, 0);
        }
        assert_eq!(size.bytes(), LARGEST);
        size.note(size.bytes(), second * 1000);
        assert_eq!(size.bytes(), FIRST);
        size.note(0, Duration::ZERO);
        assert_eq!(size.bytes(), FIRST);
    }
}
