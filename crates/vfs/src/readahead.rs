//! Asking the disk for what a reader will want next.
//!
//! The kernel reads ahead for a program, but asks this daemon for small pieces and waits for some of
//! them before it asks for more. Read one by one from a disk, each of them costs the disk's latency.
//! A reader that goes through a file in order therefore finds the disk some way ahead of it.

use onedrivefs_core::ByteRange;
use parking_lot::Mutex;

/// How far ahead of a reader the disk works at most, in bytes.
const WINDOW_BYTES: u64 = 8 << 20;

/// How far ahead of a reader the disk works for each byte that was read in order: who looks at the
/// beginning of a file only is not to have much of it read.
const GROWTH: u64 = 4;

/// How much the disk is asked for at once, in bytes. Whoever asks finds the memory for it and is busy
/// for as long, and of more than the largest request of the disk the kernel drops the rest.
const STEP_BYTES: u64 = 512 << 10;

/// The smallest read that the kernel asks for when it takes a reader for one that goes through the
/// file, in bytes. Smaller ones come from readers that jump.
const STREAM_MIN_BYTES: u64 = 64 << 10;

/// How far from the last place a read may be and still belong to the same stream, in bytes: the
/// kernel asks for several pieces at once, and they are answered in any order.
const SLACK_BYTES: u64 = 2 << 20;

/// Follows the reads of one handle.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    stream: Mutex<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Where the reader began to read in order.
    began: u64,
    /// Where it is, as far as is known.
    at: u64,
    /// Up to where the disk was asked.
    asked: u64,
}

impl ReadAhead {
    /// Learns of a read. Returns what the disk should be asked for now.
    pub(crate) fn next(&self, read: ByteRange) -> Option<ByteRange> {
        let mut stream = self.stream.lock();
        let follows = read.start.abs_diff(stream.at) <= SLACK_BYTES;
        if !follows {
            *stream = Stream {
                began: read.start,
                at: read.end,
                asked: read.end,
            };
            return None;
        }
        stream.at = stream.at.max(read.end);
        if read.end - read.start < STREAM_MIN_BYTES {
            return None;
        }
        let window = WINDOW_BYTES.min((stream.at - stream.began) * GROWTH);
        let from = stream.asked.max(stream.at);
        let end = stream.at + window;
        if end < from + STEP_BYTES {
            return None;
        }
        stream.asked = from + STEP_BYTES;
        Some(from..stream.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 128 << 10;

    #[test]
    fn a_stream_finds_the_disk_ahead_of_it_and_nothing_is_asked_for_twice() {
        let ahead = ReadAhead::default();
        let mut asked = 0;
        // Pairs of pieces are answered in the wrong order.
        for pair in 0..1000 {
            for piece in [2 * pair + 1, 2 * pair] {
                let read = piece * PIECE..(piece + 1) * PIECE;
                if let Some(range) = ahead.next(read.clone()) {
                    assert!(asked == 0 || range.start == asked, "{range:?}");
                    assert!(range.start >= read.start && range.end > range.start);
                    asked = range.end;
                }
                assert!(asked >= read.end, "the disk is behind at {read:?}");
            }
        }
        assert!(asked <= 2000 * PIECE + WINDOW_BYTES);
    }

    #[test]
    fn little_is_asked_for_at_the_beginning() {
        let ahead = ReadAhead::default();
        let asked = ahead.next(0..PIECE).expect("some");
        assert_eq!(asked, PIECE..PIECE + STEP_BYTES);
    }

    #[test]
    fn the_disk_gets_as_far_ahead_as_it_may() {
        let ahead = ReadAhead::default();
        let ends = (0..200).map(|piece| {
            let asked = ahead.next(piece * PIECE..(piece + 1) * PIECE);
            asked.map_or(0, |asked| asked.end - (piece + 1) * PIECE)
        });
        let furthest = ends.max().expect("some");
        assert!(furthest > WINDOW_BYTES - STEP_BYTES, "{furthest}");
    }

    #[test]
    fn a_reader_that_jumps_asks_for_nothing() {
        let ahead = ReadAhead::default();
        for place in [5_u64, 900, 30, 400] {
            let start = place << 24;
            assert_eq!(ahead.next(start..start + PIECE), None);
        }
        let ahead = ReadAhead::default();
        for page in 0..100 {
            assert_eq!(ahead.next(page * 4096..(page + 1) * 4096), None);
        }
    }
}
