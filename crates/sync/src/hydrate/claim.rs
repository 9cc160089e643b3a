//! On whose behalf ranges are fetched, and in what portions.

use onedrivefs_content::RangeSet;
use onedrivefs_core::ByteRange;

use super::{Demand, HydrateConfig};

/// What may be started for missing ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) demand: Demand,
    /// The reader it is fetched ahead of.
    pub(super) owner: Option<u64>,
    /// Longest range of one request, in bytes.
    pub(super) request_bytes: u64,
    /// Unit of requests, in bytes.
    pub(super) block_bytes: u64,
    /// Segments that the owner, or what is pinned, may have at a time.
    pub(super) segments_max: usize,
}

impl Claim {
    /// For somebody who waits.
    pub(super) fn awaited(demand: Demand, config: &HydrateConfig) -> Self {
        Self {
            demand,
            owner: None,
            request_bytes: config.max_request_bytes.max(config.block_bytes),
            block_bytes: config.block_bytes,
            // A pinned file may be huge, and nobody waits for its end.
            segments_max: match demand {
                Demand::Pin => config.connections_per_stream,
                _ => usize::MAX,
            },
        }
    }

    /// For the future of a reader.
    pub(super) fn ahead(owner: u64, request_bytes: u64, config: &HydrateConfig) -> Self {
        Self {
            demand: Demand::ReadAhead,
            owner: Some(owner),
            request_bytes: request_bytes.max(config.block_bytes),
            block_bytes: config.block_bytes,
            segments_max: config.connections_per_stream,
        }
    }
}

/// Joins ranges with less than a block of present bytes between them: a request costs more than
/// fetching those again. What is between them and under way is left alone.
pub(super) fn join_close(
    ranges: &RangeSet<u64>,
    block_bytes: u64,
    is_present: impl Fn(ByteRange) -> bool,
) -> RangeSet<u64> {
    let mut joined = ranges.clone();
    let mut end = None;
    for range in ranges.iter() {
        let close = |end: &u64| range.start - end < block_bytes && is_present(*end..range.start);
        if let Some(end) = end.filter(close) {
            joined.insert(end..range.end);
        }
        end = Some(range.end);
    }
    joined
}
