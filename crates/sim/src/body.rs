//! A test drive may hold files of any size while the simulator must stay small and quick to
//! start: small bodies live in memory, uploaded large ones in an unlinked temporary file, and
//! sample files are computed from a pattern whenever somebody reads them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::quickxor::QuickXor;

/// Bodies up to this size are kept in memory; larger uploads go to a temporary file.
pub(crate) const INLINE_LIMIT: u64 = 1 << 20;

/// Length of the pattern that generated bodies repeat. A prime, so that no two aligned blocks of
/// a file look alike and a block fetched from the wrong offset is noticed.
const PATTERN_LEN: usize = 65_521;

/// The content of one file version.
#[derive(Clone, Debug)]
pub enum FileBody {
    /// Bytes in memory.
    Inline(Bytes),
    /// Bytes in an unlinked temporary file.
    Spooled {
        /// The open file.
        file: Arc<File>,
        /// Length in bytes.
        size: u64,
    },
    /// A pattern that depends on the seed; costs nothing to hold.
    Generated {
        /// Selects the content.
        seed: u64,
        /// Length in bytes.
        size: u64,
    },
}

impl FileBody {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            FileBody::Inline(bytes) => bytes.len() as u64,
            FileBody::Spooled { size, .. } | FileBody::Generated { size, .. } => *size,
        }
    }

    /// Reads up to `len` bytes at `offset`; shorter only at the end.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = self.size().saturating_sub(offset);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        match self {
            FileBody::Inline(bytes) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                Ok(bytes.slice(start..start + len))
            }
            FileBody::Spooled { file, .. } => {
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            }
            FileBody::Generated { seed, .. } => Ok(generate(*seed, offset, len).into()),
        }
    }

    /// quickXorHash of the whole body.
    pub(crate) fn hash(&self) -> io::Result<[u8; 20]> {
        let mut hash = QuickXor::new();
        if let FileBody::Generated { seed, size } = self {
            let (repeats, rest) = (size / PATTERN_LEN as u64, size % PATTERN_LEN as u64);
            if repeats > 0 {
                hash.update_repeated(&generate(*seed, 0, PATTERN_LEN), repeats);
            }
            hash.update(&generate(*seed, 0, rest as usize));
            return Ok(hash.finish());
        }
        let mut offset = 0;
        while offset < self.size() {
            let chunk = self.read(offset, 1 << 20)?;
            hash.update(&chunk);
            offset += chunk.len() as u64;
        }
        Ok(hash.finish())
    }
}

impl From<&str> for FileBody {
    fn from(text: &str) -> Self {
        FileBody::Inline(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Vec<u8>> for FileBody {
    fn from(bytes: Vec<u8>) -> Self {
        FileBody::Inline(bytes.into())
    }
}

/// One step of splitmix64, the usual cheap mixer.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let words = (0..PATTERN_LEN.div_ceil(8) as u64).flat_map(|i| mix(i).to_le_bytes());
        words.take(PATTERN_LEN).collect()
    })
}

fn generate(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let pattern = pattern();
    let period = PATTERN_LEN as u64;
    let mut at = ((mix(seed) % period + offset % period) % period) as usize;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let take = (len - out.len()).min(PATTERN_LEN - at);
        out.extend_from_slice(&pattern[at..at + take]);
        at = (at + take) % PATTERN_LEN;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_hash_equals_hash_of_its_bytes() {
        for size in [0u64, 1, 65_521, 65_522, 1_000_003, 12_000_001] {
            let body = FileBody::Generated { seed: 7, size };
            let bytes = body.read(0, size as usize).unwrap();
            assert_eq!(body.hash().unwrap(), QuickXor::of(&bytes), "size {size}");
        }
    }

    #[test]
    fn generated_ranges_agree_with_the_whole() {
        let body = FileBody::Generated {
            seed: 3,
            size: 300_000,
        };
        let whole = body.read(0, 300_000).unwrap();
        assert_eq!(
            body.read(131_000, 70_000).unwrap(),
            whole.slice(131_000..201_000)
        );
        assert_eq!(body.read(299_999, 10).unwrap().len(), 1);
    }
}
