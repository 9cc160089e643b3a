//! Memory for the bytes of a read.
//!
//! A read is answered on the thread that took it, and the next one comes at once. Memory that is
//! asked for and given back each time is filled with zeros each time, and what is larger than a
//! hundred kilobytes is mapped and unmapped as well: that costs more than the copying itself. So
//! each thread keeps what it used last.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use onedrivefs_content::Body;
use onedrivefs_core::ByteRange;

/// Most that a thread keeps, in bytes: the largest read the kernel asks for.
const KEPT_MAX: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes that a read came to.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Vec<u8>,
    len: usize,
    /// What the reader will want next, and the body that has it.
    ahead: Option<(Arc<Body>, ByteRange)>,
}

impl Buffer {
    /// Memory for a number of bytes. What is in it is of no meaning.
    pub(crate) fn of(len: usize) -> Self {
        let mut memory = KEPT.try_with(Cell::take).unwrap_or_default();
        if memory.len() < len {
            memory.resize(len, 0);
        }
        Self {
            memory,
            len,
            ahead: None,
        }
    }

    /// Leaves out what is behind the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Says what the reader will want next.
    pub(crate) fn followed_by(mut self, body: Arc<Body>, range: ByteRange) -> Self {
        self.ahead = Some((body, range));
        self
    }

    /// Called when the reader has its bytes: has the disk fetch what comes next. To find the memory
    /// for that takes a while, which the reader is not to wait for.
    pub fn read_ahead(self) {
        if let Some((body, range)) = &self.ahead {
            body.read_ahead(range);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(memory: Vec<u8>) -> Self {
        let len = memory.len();
        Self {
            memory,
            len,
            ahead: None,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.capacity() <= KEPT_MAX {
            // A thread that is ending keeps nothing.
            let _ended = KEPT.try_with(|kept| {
                let other = kept.take();
                kept.set(if other.len() > memory.len() {
                    other
                } else {
                    memory
                });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_shows_only_what_was_asked_for() {
        let mut first = Buffer::of(1000);
        first.fill(7);
        let place = first.as_ptr();
        drop(first);
        let mut second = Buffer::of(10);
        assert_eq!((second.as_ptr(), second.len()), (place, 10));
        second.truncate(4);
        assert_eq!(second.len(), 4);
        let other = Buffer::of(2000);
        assert_eq!(other.len(), 2000);
        drop(second);
        drop(other);
        assert_eq!(Buffer::of(3000).len(), 3000);
    }

    #[test]
    fn too_much_is_not_kept() {
        drop(Buffer::from(vec![1; 2 * KEPT_MAX]));
        assert!(KEPT.take().len() <= KEPT_MAX);
    }
}
