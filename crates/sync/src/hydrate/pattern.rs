//! What a reader's past says about its future.
//!
//! Read-ahead is twice what the reader has read in one go, so it never costs more than twice what
//! was of use; a jump ends it. The kernel splits reads and sends the parts at the same time, so
//! parts that are a little out of order still count as one run.

use onedrivefs_core::{ByteRange, align_up};

use super::HydrateConfig;

/// Distance in bytes up to which reads count as neighbours: four of the kernel's requests, where it
/// reads ahead as far as it can be told to.
const NEIGHBOUR_BYTES: u64 = 2 * 1024 * 1024;
/// Length in bytes of a run before anything is fetched ahead: what a program reads to find out a
/// file's type stays below.
const RUN_MIN_BYTES: u64 = 256 * 1024;

/// What one reader did lately.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    /// Where its run of neighbouring reads began.
    start: u64,
    /// How far it came.
    next: u64,
    /// How far was fetched ahead of it.
    ahead: u64,
}

/// What follows from a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Enough is under way, or nothing can be said.
    Nothing,
    /// The reader jumped.
    Stop,
    /// This range will be wanted.
    Ahead {
        /// What to fetch.
        range: ByteRange,
        /// In requests of this many bytes.
        request: u64,
    },
}

impl Pattern {
    /// Takes a read into account.
    pub(super) fn observe(&mut self, range: &ByteRange, size: u64, config: &HydrateConfig) -> Plan {
        let low = self.next.saturating_sub(NEIGHBOUR_BYTES);
        let high = self.next.saturating_add(NEIGHBOUR_BYTES);
        if self.next == 0 || range.start < low.max(self.start) || range.start > high {
            let had_ahead = self.ahead > self.next;
            *self = Self {
                start: range.start,
                next: range.end,
                ahead: range.end,
            };
            return if had_ahead { Plan::Stop } else { Plan::Nothing };
        }
        self.next = self.next.max(range.end);
        self.ahead = self.ahead.max(self.next);
        let run = self.next - self.start;
        if run < RUN_MIN_BYTES {
            return Plan::Nothing;
        }
        let window = run.saturating_mul(2).min(config.max_readahead_bytes);
        let end = self.next.saturating_add(window);
        let end = align_up(end, config.block_bytes).min(size);
        // Topped up when half is used, so that requests stay long.
        if self.ahead >= size || self.ahead - self.next > window / 2 {
            return Plan::Nothing;
        }
        let share = window / config.connections_per_stream.max(1) as u64;
        let request = align_up(share.max(1), config.block_bytes).min(config.max_request_bytes);
        Plan::Ahead {
            range: self.ahead..end.max(self.ahead),
            request,
        }
    }

    /// Tells how far the last plan could be carried out.
    pub(super) fn reached(&mut self, end: u64) {
        self.ahead = end.max(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 10 << 30;
    const READ: u64 = 128 * 1024;

    /// Lets a reader go through a list of offsets and adds up what would be fetched ahead.
    fn fetched(offsets: impl Iterator<Item = u64>) -> u64 {
        let config = HydrateConfig::default();
        let mut pattern = Pattern::default();
        let mut total = 0;
        for offset in offsets {
            let plan = pattern.observe(&(offset..offset + READ), SIZE, &config);
            if let Plan::Ahead { range, .. } = plan {
                total += range.end - range.start;
                pattern.reached(range.end);
            }
        }
        total
    }

    #[test]
    fn a_straight_reader_gets_far_ahead() {
        let config = HydrateConfig::default();
        let read = 64 << 20;
        let ahead = fetched((0..read / READ).map(|n| n * READ));
        assert!(ahead > read, "{ahead}");
        assert!(
            ahead <= read + config.max_readahead_bytes + config.block_bytes,
            "{ahead}"
        );
    }

    #[test]
    fn reads_out_of_order_are_one_run() {
        let swapped = |n: u64| (n ^ 1) * READ;
        assert!(fetched((0..256).map(swapped)) > 32 << 20);
    }

    #[test]
    fn a_jumping_reader_gets_nothing() {
        assert_eq!(
            fetched((0..1000).map(|n| (n * 7_919 % 1000) * (9 << 20))),
            0
        );
        assert_eq!(fetched([0, SIZE - READ].into_iter()), 0);
    }

    #[test]
    fn a_jump_stops_what_is_under_way() {
        let config = HydrateConfig::default();
        let mut pattern = Pattern::default();
        for n in 0..8 {
            if let Plan::Ahead { range, .. } =
                pattern.observe(&(n * READ..(n + 1) * READ), SIZE, &config)
            {
                pattern.reached(range.end);
            }
        }
        let far = SIZE / 2;
        assert_eq!(
            pattern.observe(&(far..far + READ), SIZE, &config),
            Plan::Stop
        );
    }

    #[test]
    fn the_end_of_the_file_ends_it() {
        let config = HydrateConfig::default();
        let mut pattern = Pattern::default();
        let size = 4 * READ + 17;
        for n in 0..4 {
            let plan = pattern.observe(&(n * READ..(n + 1) * READ), size, &config);
            if let Plan::Ahead { range, .. } = plan {
                assert!(range.end <= size);
                pattern.reached(range.end);
            }
        }
        let last = pattern.observe(&(4 * READ..size), size, &config);
        assert_eq!(last, Plan::Nothing);
    }
}
