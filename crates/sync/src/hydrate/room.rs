//! Space on the disk that was promised to transfers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Space for what one transfer brings. What does not come is free again when this is dropped.
#[derive(Debug)]
pub struct Room {
    /// What all transfers together were promised and have not used yet, in bytes.
    promised: Arc<AtomicU64>,
    /// What is left of this one's.
    left: AtomicU64,
}

impl Room {
    /// Promises bytes.
    #[must_use]
    pub fn promise(promised: &Arc<AtomicU64>, bytes: u64) -> Self {
        promised.fetch_add(bytes, Ordering::AcqRel);
        Self {
            promised: Arc::clone(promised),
            left: AtomicU64::new(bytes),
        }
    }

    /// Notes that bytes are on the disk by now.
    pub(super) fn use_up(&self, bytes: u64) {
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let order = Ordering::AcqRel;
        if let Ok(left) = self.left.fetch_update(order, Ordering::Acquire, take) {
            self.promised.fetch_sub(left.min(bytes), order);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let left = *self.left.get_mut();
        self.promised.fetch_sub(left, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_will_not_come_is_promised_no_more() {
        let promised = Arc::default();
        let room = Room::promise(&promised, 100);
        let other = Room::promise(&promised, 10);
        room.use_up(30);
        assert_eq!(promised.load(Ordering::Acquire), 80);
        drop(room);
        assert_eq!(promised.load(Ordering::Acquire), 10);
        other.use_up(20);
        drop(other);
        assert_eq!(promised.load(Ordering::Acquire), 0);
    }
}
