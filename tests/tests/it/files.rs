//! Files that tests write.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Length of the block that files repeat, in bytes: a prime near 1 MiB, so that no two aligned
/// parts of a file look alike.
const BLOCK_LEN: usize = 1_048_573;

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;

/// One GiB in bytes.
pub const GIB: u64 = 1 << 30;

/// Bytes without a pattern, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

/// Writes a file of noise.
pub fn write(path: &Path, size: u64, seed: u64) {
    let mut file = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let block = noise(seed, BLOCK_LEN);
    let mut left = size;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_LEN);
        file.write_all(&block[..count]).expect("written");
        left -= count as u64;
    }
}

/// Tells whether tests that can be long are to be.
pub fn is_long() -> bool {
    std::env::var_os("ONEDRIVEFS_TEST_LONG").is_some()
}
