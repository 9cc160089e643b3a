//! Folding: how one more change of an inode combines with what already waits to be sent.
//!
//! Pure, so that the rule can be tested for every sequence of changes: what is sent in the end
//! depends only on where the item ends up, not on how it got there.

use onedrivefs_store::Ops;

/// A change that a program made to one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Created,
    /// Its body was saved.
    Saved,
    /// It has another name or folder.
    Moved {
        /// Whether it is back where the service has it.
        home: bool,
    },
    /// Its times were set.
    Touched,
    /// It was unlinked.
    Unlinked,
}

/// What the service may know of the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: no request for it was ever sent.
    Unknown,
    /// A request that creates it is on its way.
    InFlight,
    /// It has an id there.
    Known,
}

/// Combines what waits with one more change.
#[must_use]
pub fn fold(waiting: Ops, change: Change, standing: Standing) -> Ops {
    let known = standing == Standing::Known;
    match change {
        Change::Created => waiting.with(Ops::CREATE),
        Change::Saved => waiting.with(Ops::CONTENT),
        // The name is part of what creating it sends.
        Change::Moved { .. } if !known => waiting,
        Change::Moved { home: true } => waiting.without(Ops::MOVE),
        Change::Moved { home: false } => waiting.with(Ops::MOVE),
        Change::Touched => waiting.with(Ops::TIMES),
        // Never sent: nothing to undo. On its way: whether it arrived shows when the request ends.
        Change::Unlinked if standing == Standing::Unknown => Ops::NONE,
        Change::Unlinked => Ops::DELETE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = Change> {
        prop_oneof![
            Just(Change::Saved),
            any::<bool>().prop_map(|home| Change::Moved { home }),
            Just(Change::Touched),
        ]
    }

    proptest! {
        #[test]
        fn a_new_file_that_is_deleted_again_sends_nothing(changes in prop::collection::vec(any_change(), 0..20)) {
            let standing = Standing::Unknown;
            let mut ops = fold(Ops::NONE, Change::Created, standing);
            for change in changes {
                ops = fold(ops, change, standing);
                prop_assert!(ops.has(Ops::CREATE) && !ops.has(Ops::MOVE));
            }
            prop_assert!(fold(ops, Change::Unlinked, standing).is_empty());
        }

        #[test]
        fn only_the_end_of_a_chain_of_moves_counts(homes in prop::collection::vec(any::<bool>(), 1..20)) {
            let mut ops = Ops::NONE;
            for &home in &homes {
                ops = fold(ops, Change::Moved { home }, Standing::Known);
            }
            prop_assert_eq!(ops.has(Ops::MOVE), homes.last() == Some(&false));
        }

        #[test]
        fn deleting_a_known_item_is_only_a_delete(changes in prop::collection::vec(any_change(), 0..20)) {
            let ops = changes.into_iter().fold(Ops::NONE, |ops, c| fold(ops, c, Standing::Known));
            prop_assert_eq!(fold(ops, Change::Unlinked, Standing::Known), Ops::DELETE);
        }
    }
}
