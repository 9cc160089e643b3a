//! quickXorHash, kept apart from the client's implementation so that one mistake cannot hide in
//! both. The input is folded into 160 lanes first (positions repeat every 160 bytes), which makes
//! it cheap to stream and lets a periodic body be hashed in closed form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Input positions repeat after this many bytes (11 and 160 are coprime).
const LANES: usize = 160;

/// Running hash of a byte stream.
#[derive(Clone)]
pub(crate) struct QuickXor {
    lanes: [u8; LANES],
    length: u64,
}

impl QuickXor {
    pub(crate) fn new() -> Self {
        QuickXor {
            lanes: [0; LANES],
            length: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let start = (self.length % LANES as u64) as usize;
        let (head, rest) = bytes.split_at(bytes.len().min(LANES - start));
        xor_into(&mut self.lanes[start..], head);
        for block in rest.chunks(LANES) {
            xor_into(&mut self.lanes, block);
        }
        self.length += bytes.len() as u64;
    }

    /// Appends `repeats` copies of `unit` in time independent of `repeats`.
    pub(crate) fn update_repeated(&mut self, unit: &[u8], repeats: u64) {
        let mut one = QuickXor::new();
        one.update(unit);
        // After LANES copies every byte of the unit has met every lane equally often, and after
        // twice as many all of it has cancelled.
        let start = self.length % LANES as u64;
        for copy in 0..repeats % (2 * LANES as u64) {
            let shift = (start + copy * (unit.len() as u64 % LANES as u64)) % LANES as u64;
            for (lane, byte) in one.lanes.iter().enumerate() {
                self.lanes[(lane + shift as usize) % LANES] ^= byte;
            }
        }
        self.length += unit.len() as u64 * repeats;
    }

    pub(crate) fn finish(&self) -> [u8; 20] {
        let mut out = [0u8; 20];
        for (lane, &byte) in self.lanes.iter().enumerate() {
            let bit = lane * 11 % 160;
            let wide = u16::from(byte) << (bit % 8);
            out[bit / 8] ^= (wide & 0xff) as u8;
            // The register is 160 bits: what runs over the end goes on at bit 0.
            out[(bit / 8 + 1) % 20] ^= (wide >> 8) as u8;
        }
        for (byte, len) in out[12..].iter_mut().zip(self.length.to_le_bytes()) {
            *byte ^= len;
        }
        out
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> [u8; 20] {
        let mut hash = QuickXor::new();
        hash.update(bytes);
        hash.finish()
    }
}

/// XORs word by word, because unoptimised builds hash gigabytes in tests.
fn xor_into(lanes: &mut [u8], bytes: &[u8]) {
    let length = lanes.len().min(bytes.len());
    let (lane_words, lane_rest) = lanes[..length].as_chunks_mut::<16>();
    let (words, rest) = bytes[..length].as_chunks::<16>();
    for (lane, word) in lane_words.iter_mut().zip(words) {
        *lane = (u128::from_ne_bytes(*lane) ^ u128::from_ne_bytes(*word)).to_ne_bytes();
    }
    for (lane, byte) in lane_rest.iter_mut().zip(rest) {
        *lane ^= byte;
    }
}

/// The form the service shows: base64 with padding.
pub(crate) fn to_base64(hash: &[u8; 20]) -> String {
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(
            to_base64(&QuickXor::of(b"")),
            "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
        );
        assert_eq!(
            to_base64(&QuickXor::of(b"hello world")),
            "aCgDG9jwBhDc4Q1yawMZAAAAAAA="
        );
        let long: Vec<u8> = (0..327_680u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(
            to_base64(&QuickXor::of(&long)),
            "dVxjLVlWbbPTEZb19aiSkx+BLpI="
        );
    }

    #[test]
    fn repeated_equals_streamed() {
        let unit: Vec<u8> = (0..997u32).map(|i| (i * 7 % 253) as u8).collect();
        for repeats in [0u64, 1, 2, 159, 160, 161, 320, 321, 700] {
            let mut slow = QuickXor::new();
            slow.update(b"prefix");
            let mut fast = slow.clone();
            for _ in 0..repeats {
                slow.update(&unit);
            }
            fast.update_repeated(&unit, repeats);
            fast.update(b"tail");
            slow.update(b"tail");
            assert_eq!(fast.finish(), slow.finish(), "{repeats} repeats");
        }
    }
}
