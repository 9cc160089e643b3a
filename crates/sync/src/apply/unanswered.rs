//! Items of the service that are what our own unanswered requests made.

use onedrivefs_core::{Ino, ItemId, NameKey, RemoteItem};
use onedrivefs_store::{BodyRow, Item, Kind, Ops, Reader, Remote, StoreError, Tx, Unanswered};

use super::place::{Place, base_at};
use super::{Applied, Applier};
use crate::journal;

impl Applier<'_> {
    /// An item that is unknown here, but is what an unanswered request made: it becomes the item of
    /// the inode that the request was sent for, under whatever name that has by now.
    pub(super) fn claim_unanswered(
        &mut self,
        kind: Kind,
        place: &Place,
        there: &RemoteItem,
    ) -> Result<Option<Applied>, StoreError> {
        let size = there.size.filter(|_| kind != Kind::Directory);
        for sent in self.tx.unanswered_at(place.parent, &place.remote_name)? {
            if sent.size.is_some() == (kind == Kind::Directory) {
                continue;
            }
            let Some(item) = self.tx.item(sent.ino)?.filter(|i| i.remote.is_none()) else {
                continue;
            };
            let followed = self.is_copy_followed(item.ino)?;
            let made = sent.made(size, there.hash) || self.is_copy_of_present(&item, there)?;
            if item.is_dir() != (kind == Kind::Directory) || !made && !followed {
                continue;
            }
            if followed || (self.facts.in_flight)(item.ino) {
                self.tx.defer(there)?;
                return Ok(Some(Applied::Deferred));
            }
            self.claim(item, place, there)?;
            return Ok(Some(Applied::Done));
        }
        if kind == Kind::File && self.may_be_renamed_since(there)? {
            self.tx.defer(there)?;
            return Ok(Some(Applied::Deferred));
        }
        Ok(None)
    }

    /// Tells whether an item may be what a request makes that is on its way, or a copy that the service
    /// is making, to which somebody has given another name or folder since. The answer, or the
    /// monitor, tells soon. An item that is taken for somebody else's until then stays one, and what was
    /// asked for is made twice.
    fn may_be_renamed_since(&self, there: &RemoteItem) -> Result<bool, StoreError> {
        let Some(size) = there.size.filter(|size| *size > 0) else {
            return Ok(false);
        };
        for sent in self.tx.unanswered_sized(size)? {
            let hashes = sent.hash.zip(there.hash);
            if hashes.is_none_or(|(sent, there)| sent == there)
                && ((self.facts.in_flight)(sent.ino) || self.is_copy_followed(sent.ino)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether the service makes a copy for an inode. What that is, its monitor tells: a copy
    /// has what the original has when it is made, not when it was asked for.
    pub(super) fn is_copy_followed(&self, ino: Ino) -> Result<bool, StoreError> {
        Ok(self.tx.journal(ino)?.is_some_and(|row| row.copy.is_some()))
    }

    /// Tells whether an item has what the original of a copy has by now, which is what a request to
    /// copy makes that took effect late.
    fn is_copy_of_present(&self, item: &Item, there: &RemoteItem) -> Result<bool, StoreError> {
        let body = item.body.map(|id| self.tx.body(id)).transpose()?.flatten();
        let Some(original) = body.as_ref().and_then(BodyRow::copy_of) else {
            return Ok(false);
        };
        let original = self.tx.item_by_id(original)?.and_then(|item| item.remote);
        Ok(original.is_some_and(|original| {
            original.hash.is_some()
                && there.hash == original.hash
                && there.size == Some(original.size)
        }))
    }

    fn claim(
        &mut self,
        mut item: Item,
        place: &Place,
        there: &RemoteItem,
    ) -> Result<(), StoreError> {
        item.remote = Some(Remote {
            author: Some(self.facts.oneself.judge_sent(there)),
            ..base_at(place, there, &item)
        });
        item.epoch = self.facts.epoch;
        self.tx.update_item(&item)?;
        self.tx.forget_unanswered(item.ino)?;
        let waiting = self.waiting(item.ino)?;
        if waiting.has(Ops::DELETE) {
            return Ok(());
        }
        let mut left = waiting.without(Ops::CREATE);
        if item.is_dir() {
            left = left.without(Ops::CONTENT);
        } else {
            // Whether it is the last content that was saved shows when that is sent.
            left = left.with(Ops::CONTENT).with(Ops::TIMES);
        }
        left = if journal::is_home(&item) {
            left.without(Ops::MOVE)
        } else {
            left.with(Ops::MOVE)
        };
        tracing::debug!(ino = %item.ino, "What an unanswered request had made was found.");
        self.set_waiting(item.ino, left)?;
        self.disown_session(item.ino)
    }

    /// Tells whether an item is where an unanswered request of this machine moved it.
    pub(super) fn is_our_move(&self, id: &ItemId, place: &Place) -> Result<bool, StoreError> {
        let name = NameKey::of(&place.remote_name);
        let moves = self.tx.unanswered_moves(id)?;
        let here =
            |sent: &Unanswered| sent.parent == place.parent && NameKey::of(&sent.name) == name;
        Ok(moves.iter().any(here))
    }

    /// Takes the place that an unanswered request gave an item: the one it has here by now is sent
    /// if it is another. Returns what waits for it.
    pub(super) fn claim_move(
        &mut self,
        item: &Item,
        remote: &Remote,
        waiting: Ops,
    ) -> Result<Ops, StoreError> {
        let mut moved = item.clone();
        moved.remote = Some(remote.clone());
        let left = if journal::is_home(&moved) {
            self.tx.forget_moves(&remote.id)?;
            waiting.without(Ops::MOVE)
        } else {
            waiting.with(Ops::MOVE)
        };
        self.set_waiting(item.ino, left)?;
        Ok(left)
    }

    /// Tells whether the content an item has on the service is what an unanswered request of this
    /// machine made of it.
    pub(super) fn is_our_content(&self, there: &RemoteItem) -> Result<bool, StoreError> {
        is_made_here(self.tx, there)
    }
}

/// Gives the body of an item another base: content that this machine made of the old one, by sending
/// an earlier save of the body. The bytes that are missing here are the same in both.
pub(crate) fn rebase_body(tx: &Tx<'_>, item: &Item, remote: &Remote) -> Result<(), StoreError> {
    let Some(mut row) = item.body.map(|id| tx.body(id)).transpose()?.flatten() else {
        return Ok(());
    };
    if row.base_item.as_ref() == Some(&remote.id) && row.ranges.is_some() {
        row.set_base(remote);
        tx.update_body(&row)?;
    }
    Ok(())
}

/// Tells whether the content of an item is what an unanswered request of this machine made of it.
pub(crate) fn is_made_here(r: &Reader<'_>, there: &RemoteItem) -> Result<bool, StoreError> {
    let sent = r.unanswered_for(&there.id)?;
    let made = |sent: &Unanswered| sent.made(there.size, there.hash);
    Ok(there.size.is_some() && sent.iter().any(made))
}
