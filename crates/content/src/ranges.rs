//! Set arithmetic on byte ranges.

use onedrivefs_core::ByteRange;
use rangemap::RangeSet;

/// Adds a range; an empty one adds nothing.
pub(crate) fn insert(set: &mut RangeSet<u64>, range: ByteRange) {
    if range.start < range.end {
        set.insert(range);
    }
}

/// Takes a range out; an empty one takes nothing.
pub(crate) fn remove(set: &mut RangeSet<u64>, range: ByteRange) {
    if range.start < range.end {
        set.remove(range);
    }
}

/// The common part of two ranges, which may be empty.
pub(crate) fn overlap(a: &ByteRange, b: &ByteRange) -> ByteRange {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The parts of `range` that are in the set, in order.
pub(crate) fn inside(set: &RangeSet<u64>, range: &ByteRange) -> Vec<ByteRange> {
    if range.start >= range.end {
        return Vec::new();
    }
    set.overlapping(range).map(|r| overlap(r, range)).collect()
}

/// The parts of `range` that are not in the set, in order.
pub(crate) fn outside(set: &RangeSet<u64>, range: &ByteRange) -> Vec<ByteRange> {
    if range.start >= range.end {
        return Vec::new();
    }
    set.gaps(range).collect()
}

/// The set cut to `range`.
pub(crate) fn clipped(set: &RangeSet<u64>, range: &ByteRange) -> RangeSet<u64> {
    inside(set, range).into_iter().collect()
}

/// Number of bytes in some ranges that do not overlap.
pub(crate) fn total<'a>(ranges: impl IntoIterator<Item = &'a ByteRange>) -> u64 {
    ranges.into_iter().map(|r| r.end - r.start).sum()
}
