//! Byte ranges and their alignment to blocks.

use std::ops::Range;

/// A half-open range of byte offsets.
pub type ByteRange = Range<u64>;

/// Rounds `offset` down to a multiple of `block` (which must not be 0).
#[must_use]
pub const fn align_down(offset: u64, block: u64) -> u64 {
    offset - offset % block
}

/// Rounds `offset` up to a multiple of `block` (which must not be 0), saturating at the top.
#[must_use]
pub const fn align_up(offset: u64, block: u64) -> u64 {
    match offset % block {
        0 => offset,
        rest => offset.saturating_add(block - rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn alignment_brackets_the_offset(offset in 0..u64::MAX / 2, block in 1..u64::from(u32::MAX)) {
            let (low, high) = (align_down(offset, block), align_up(offset, block));
            prop_assert!(low <= offset && offset <= high);
            prop_assert!(low % block == 0 && high % block == 0 && high - low <= block);
        }
    }
}
