//! Files of the service that are symbolic links here, and cease to be or become ones.

use onedrivefs_core::{Ino, RemoteItem};
use onedrivefs_store::{Author, Item, Kind, Ops, Role, StoreError};

use super::{Applier, is_aside, reclaim, shown_name};
use crate::change::KernelChange;
use crate::journal::{self, LINK_SUFFIX};
use crate::merge::content_changed;

/// Longest target of a symbolic link, which bounds the file that stores it (`PATH_MAX`).
const LINK_TARGET_MAX: u64 = 4096;

/// What an item of the service is here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// What it is to the kernel.
    pub(super) kind: Kind,
    /// What makes it special.
    pub(super) role: Role,
    /// Who wrote its content, where that matters.
    pub(super) author: Option<Author>,
}

impl Applier<'_> {
    /// Decides what an item is here, now that the service describes it in this way.
    pub(super) fn standing(
        &self,
        known: Option<&Item>,
        (kind, role): (Kind, Role),
        there: &RemoteItem,
        remote_name: &str,
    ) -> Result<Standing, StoreError> {
        let base = known.and_then(|item| item.remote.as_ref());
        let named = is_link_name(remote_name);
        // A drive has millions of other files.
        let judged =
            kind == Kind::File && (named || base.is_some_and(|base| base.author.is_some()));
        let author = match judged {
            false => None,
            true if base.is_some() && self.is_our_content(there)? => {
                Some(self.facts.oneself.judge_sent(there))
            }
            true => Some(self.facts.oneself.judge(base, there)),
        };
        let size = there.size.or_else(|| base.map(|base| base.size));
        let may_be_link = kind == Kind::File
            && role == Role::Ordinary
            && size.is_some_and(|size| size > 0 && size <= LINK_TARGET_MAX);
        let kind = match known {
            None if may_be_link && named && author == Some(Author::Own) => Kind::Symlink,
            None => kind,
            Some(item) if item.is_dir() => item.kind,
            Some(item) if item.kind == Kind::Symlink => {
                // A name that this machine gave it for a moment says nothing.
                let named = named || journal::is_swap_name(self.tx, remote_name)?;
                if may_be_link && named && author != Some(Author::Other) {
                    Kind::Symlink
                } else {
                    Kind::File
                }
            }
            // What a program made as a file under such a name stays one until it is written
            // elsewhere.
            Some(_) => {
                let changed = base.is_some_and(|base| content_changed(base, there));
                if may_be_link && named && changed && author == Some(Author::Own) {
                    Kind::Symlink
                } else {
                    Kind::File
                }
            }
        };
        Ok(Standing { kind, role, author })
    }

    /// Puts another inode in the place of one that is something else now. To the kernel an inode is
    /// what it is for good, and programs that have the old one open go on with it. One with content
    /// that the service does not have stays what it is.
    pub(super) fn take_kind(&mut self, old: Item, kind: Kind) -> Result<Item, StoreError> {
        if kind == old.kind
            || self.waiting(old.ino)?.has(Ops::CONTENT)
            || self.being_written(&old)?
        {
            return Ok(old);
        }
        let Some(name) = self.name_as(&old, kind)? else {
            return Ok(old);
        };
        let Some(base) = old.remote.clone() else {
            return Ok(old);
        };
        let row = self.tx.journal(old.ino)?;
        self.tx.delete_journal(old.ino)?;
        let mut gone = old.clone();
        self.drop_body(&mut gone)?;
        gone.parent = None;
        gone.remote = None;
        self.tx.update_item(&gone)?;
        if let Some(parent) = old.parent {
            self.changes.push(KernelChange::Deleted {
                parent,
                child: old.ino,
                name: old.name.clone(),
            });
        }
        let mut new = Item {
            ino: Ino(0),
            kind,
            size: base.size,
            mode: None,
            body: None,
            target: None,
            ..old.clone()
        };
        if let Some(parent) = old.parent.filter(|_| name != old.name) {
            new.name = self.free_place(Ino(0), parent, &name)?;
        }
        new.ino = self.tx.insert_item(&new)?;
        self.tx.move_pin(old.ino, new.ino)?;
        self.tx.pass_unanswered(&base.id, new.ino)?;
        self.tx.delete_item(old.ino)?;
        if let Some(mut row) = row {
            row.ino = new.ino;
            journal::disown_session(&mut row);
            self.tx.put_journal(&row)?;
        }
        if let Some(parent) = old.parent {
            let name = new.name.clone();
            self.changes.push(KernelChange::Entry { parent, name });
            self.changes.push(KernelChange::Attributes { ino: parent });
            self.changes.extend(reclaim(self.tx, parent, &old.name)?);
        }
        let path = self.tx.path(new.ino)?;
        tracing::info!(path, ?kind, "An item of the service is something else now.");
        Ok(new)
    }

    /// The name of an item here, if it were of another kind; `None` where there is no such name.
    fn name_as(&self, item: &Item, kind: Kind) -> Result<Option<String>, StoreError> {
        if is_aside(item) {
            // It is told its place next.
            return Ok(Some(item.name.clone()));
        }
        let nobody_named_it = journal::is_home(item) || journal::is_displaced(self.tx, item)?;
        if let Some(base) = item.remote.as_ref().filter(|_| nobody_named_it) {
            return Ok(Some(shown_name(&base.name, kind).to_owned()));
        }
        Ok(match kind {
            Kind::Symlink => (item.name.strip_suffix(LINK_SUFFIX))
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            _ => Some(journal::stored_name(item)),
        })
    }
}

/// Tells whether the service has a name for a symbolic link.
fn is_link_name(name: &str) -> bool {
    name.len() > LINK_SUFFIX.len() && name.ends_with(LINK_SUFFIX)
}
