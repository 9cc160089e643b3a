//! Taking pages in.

use std::collections::HashSet;
use std::time::Instant;

use onedrivefs_core::RemoteItem;
use onedrivefs_store::{StoreError, Tx};

use super::{META_ENUMERATING, META_NEXT_LINK, META_STAGED_LINK};
use crate::apply::{Applied, Applier};
use crate::engine::{Engine, FIRST_EPOCH};
use crate::error::EngineError;

impl Engine {
    /// Takes a page in, together with the link to go on from. It is staged until the round is whole.
    ///
    /// Not so what a drive that was never enumerated tells of what exists, while nothing here waits to
    /// be sent: of that there is nothing yet that it could contradict, and a million items would be
    /// written down, and struck out again, only to be read once. What a later page says differently
    /// of an item is asked for again.
    pub(super) fn take_page(
        &self,
        items: Vec<RemoteItem>,
        whole: bool,
        key: &str,
        link: &str,
    ) -> Result<(), EngineError> {
        let began = *self.round_began.lock();
        let in_flight = |ino| self.is_in_flight(ino) || self.recent.since(ino, began);
        let mut facts = self.facts(&in_flight, self.epoch()?);
        facts.prefer_confirmed = whole;
        let first = whole && facts.epoch == FIRST_EPOCH;
        let outcome = self.store.write(|tx| {
            let mut applier = Applier::new(tx, facts);
            if first && tx.is_journal_empty()? {
                let (gone, there): (Vec<_>, Vec<_>) = last_of_each(items)
                    .into_iter()
                    .partition(|item| item.deleted);
                tx.stage(&gone)?;
                for item in there {
                    if self.apply_in_round(tx, &mut applier, &item, began)? {
                        tx.unstage_item(&item.id)?;
                    } else {
                        tx.stage(&[item])?;
                    }
                }
            } else {
                tx.stage(&items)?;
            }
            if whole {
                tx.set_meta(META_ENUMERATING, Some("1"))?;
            }
            if key == META_STAGED_LINK {
                tx.set_meta(META_NEXT_LINK, None)?;
            }
            tx.set_meta(key, Some(link))?;
            Ok::<_, EngineError>(self.outcome(applier)?)
        })?;
        self.note_news(&outcome);
        self.after_apply(outcome);
        Ok(())
    }

    /// Applies an item that exists. `false` when there is no folder yet to put it into.
    pub(super) fn apply_in_round(
        &self,
        tx: &Tx<'_>,
        applier: &mut Applier<'_>,
        item: &RemoteItem,
        began: Instant,
    ) -> Result<bool, StoreError> {
        if self.recent.deleted_since(&item.id, began) {
            return Ok(true);
        }
        if self.is_being_made(tx, item)? {
            tx.defer(item)?;
            return Ok(true);
        }
        Ok(applier.apply(item)? != Applied::Orphan)
    }
}

/// The last occurrence of each item of a page, which is the one that counts, in their order.
fn last_of_each(items: Vec<RemoteItem>) -> Vec<RemoteItem> {
    let mut seen = HashSet::new();
    let mut last: Vec<RemoteItem> = items
        .into_iter()
        .rev()
        .filter(|item| seen.insert(item.id.key()))
        .collect();
    last.reverse();
    last
}
