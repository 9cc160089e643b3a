//! Who wrote what the service has. A symbolic link is a small file there, and whoever may write into
//! a folder could have it lead to any place of this machine: only links that were written by whoever
//! is signed in here are followed, all others are the files they are.
//!
//! The service tells who *changed* an item last, by which renaming counts as much as writing. So the
//! judgement is made when content is seen for the first time, is kept with the tags of that content,
//! and is not made anew while those say that it is the same.

use onedrivefs_core::{Party, Provenance, RemoteItem};
use onedrivefs_store::{Author, Remote};

/// Who is signed in, as the service names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oneself {
    /// Id of the person; absent for an application that signs in by itself, and where it was not
    /// told.
    pub person: Option<String>,
    /// Id of the application, where it signs in by itself.
    pub application: Option<String>,
    /// Whether the drive is the person's own, so that others change only what is shared with them.
    pub own_drive: bool,
}

impl Oneself {
    /// Tells whether somebody is whoever is signed in here.
    fn is(&self, party: &Party) -> bool {
        match (&party.user, &party.application) {
            (Some(user), _) => self.person.as_ref().is_some_and(|own| is_same(own, user)),
            (None, Some(id)) => {
                let own = self.application.as_ref();
                own.is_some_and(|own| own.eq_ignore_ascii_case(id))
            }
            (None, None) => false,
        }
    }

    /// Judges by a description alone: whoever made the item and whoever changed it last must be
    /// oneself. Where the service does not tell, what is in one's own drive and is not shared counts
    /// as one's own.
    fn judge_alone(&self, told: &Provenance) -> Author {
        let made = told.created_by.as_ref().map(|party| self.is(party));
        let changed = told.changed_by.as_ref().map(|party| self.is(party));
        match (made, changed) {
            (Some(false), _) | (_, Some(false)) => Author::Other,
            (_, Some(true)) => Author::Own,
            (_, None) if self.own_drive && !told.shared => Author::Own,
            (_, None) => Author::Other,
        }
    }

    /// Who wrote the content that this machine is known to have sent, as an answer describes it.
    pub(crate) fn judge_sent(&self, there: &RemoteItem) -> Author {
        match &there.provenance.changed_by {
            Some(party) if !self.is(party) => Author::Other,
            _ => Author::Own,
        }
    }

    /// Who wrote the content that a description shows, given the base.
    pub(crate) fn judge(&self, base: Option<&Remote>, there: &RemoteItem) -> Author {
        let alone = self.judge_alone(&there.provenance);
        let Some((base, before)) = base.and_then(|base| Some((base, base.author?))) else {
            return alone;
        };
        match (is_same_content(base, there), before) {
            (Some(true), Author::Other) => Author::Other,
            (Some(true), _) => Author::Own,
            (Some(false), _) => alone,
            // The same for all that is known. Whoever changed it may have renamed it only, or have
            // made content that looks the same.
            (None, Author::Other) => Author::Other,
            (None, before) if alone == Author::Own => before,
            // A description with the tag of the content decides.
            (None, _) if base.ctag.is_some() && there.ctag.is_none() => Author::Doubtful,
            (None, _) => Author::Other,
        }
    }
}

/// Tells whether a description is of the same content as the base; `None` where it cannot be told
/// for certain. The hash is no proof: it is easy to make other content that has it.
fn is_same_content(base: &Remote, there: &RemoteItem) -> Option<bool> {
    if let (Some(before), Some(now)) = (&base.ctag, &there.ctag) {
        return Some(before == now);
    }
    if base.etag.is_some() && base.etag == there.etag {
        return Some(true);
    }
    let other_size = there.size.is_some_and(|size| size != base.size);
    let other_hash = base.hash.zip(there.hash).is_some_and(|(a, b)| a != b);
    (other_size || other_hash).then_some(false)
}

/// Compares two ids of persons. Those of personal accounts are numbers that are written in several
/// ways.
fn is_same(a: &str, b: &str) -> bool {
    let plain = |id: &str| id.trim_start_matches('0').to_ascii_lowercase();
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use onedrivefs_core::{CTag, ETag, Ino, ItemId, ItemKind, QuickXorHash, Timestamp};

    use super::*;
    use Author::{Doubtful, Other, Own};

    fn ada() -> Oneself {
        Oneself {
            person: Some("0AB-ada".into()),
            ..Oneself::default()
        }
    }

    fn by(user: &str) -> Option<Party> {
        Some(Party {
            user: Some(user.into()),
            application: Some("any".into()),
        })
    }

    fn item(changed_by: &str) -> RemoteItem {
        RemoteItem {
            id: ItemId::new("1"),
            parent: None,
            drive: None,
            name: Some("l.rclonelink".into()),
            kind: ItemKind::File,
            deleted: false,
            is_root: false,
            size: Some(3),
            etag: Some(ETag::new("e2")),
            ctag: Some(CTag::new("c1")),
            created: None,
            modified: None,
            hash: Some(QuickXorHash::of(b"one")),
            web_url: None,
            malware: false,
            link: None,
            provenance: Provenance {
                created_by: by("ab-ADA"),
                changed_by: by(changed_by),
                shared: false,
            },
        }
    }

    fn base(author: Author) -> Remote {
        Remote {
            id: ItemId::new("1"),
            parent: Some(Ino::ROOT),
            name: "l.rclonelink".into(),
            etag: Some(ETag::new("e1")),
            ctag: Some(CTag::new("c1")),
            hash: Some(QuickXorHash::of(b"one")),
            size: 3,
            mtime: Timestamp::from_nanos(0),
            author: Some(author),
        }
    }

    #[test]
    fn what_is_seen_first_must_be_made_and_changed_by_oneself() {
        assert_eq!(ada().judge(None, &item("ab-ada")), Own);
        assert_eq!(ada().judge(None, &item("ben")), Other);
        let mut renamed = item("ab-ada");
        renamed.provenance.created_by = by("ben");
        assert_eq!(ada().judge(None, &renamed), Other);
        // Of an application that signs in by itself, only what it did by itself.
        let daemon = Oneself {
            application: Some("Any".into()),
            ..Oneself::default()
        };
        assert_eq!(daemon.judge(None, &item("ben")), Other);
        let own = Party {
            user: None,
            application: Some("any".into()),
        };
        let mut made = item("");
        made.provenance.created_by = Some(own.clone());
        made.provenance.changed_by = Some(own);
        assert_eq!(daemon.judge(None, &made), Own);
        assert_eq!(ada().judge(None, &made), Other);
    }

    #[test]
    fn where_nobody_is_told_only_ones_own_drive_is_trusted() {
        let mut silent = item("");
        silent.provenance = Provenance::default();
        assert_eq!(ada().judge(None, &silent), Other);
        let home = Oneself {
            own_drive: true,
            ..ada()
        };
        assert_eq!(home.judge(None, &silent), Own);
        silent.provenance.shared = true;
        assert_eq!(home.judge(None, &silent), Other);
    }

    #[test]
    fn a_judgement_stays_with_its_content() {
        // Somebody renamed our link, or we renamed somebody's.
        assert_eq!(ada().judge(Some(&base(Own)), &item("ben")), Own);
        assert_eq!(ada().judge(Some(&base(Other)), &item("ab-ada")), Other);
        let written = |by: &str| RemoteItem {
            ctag: Some(CTag::new("c2")),
            ..item(by)
        };
        assert_eq!(ada().judge(Some(&base(Own)), &written("ben")), Other);
        assert_eq!(ada().judge(Some(&base(Other)), &written("ab-ada")), Own);
    }

    #[test]
    fn without_the_tag_of_the_content_it_is_doubtful() {
        let page = |by: &str| RemoteItem {
            ctag: None,
            ..item(by)
        };
        assert_eq!(ada().judge(Some(&base(Own)), &page("ben")), Doubtful);
        assert_eq!(ada().judge(Some(&base(Own)), &page("ab-ada")), Own);
        // Nothing takes the doubt away but the tag.
        let doubtful = base(Doubtful);
        assert_eq!(ada().judge(Some(&doubtful), &page("ab-ada")), Doubtful);
        assert_eq!(ada().judge(Some(&doubtful), &item("ben")), Own);
        assert_eq!(ada().judge(Some(&base(Other)), &page("ab-ada")), Other);
        let bare = RemoteItem {
            hash: None,
            ..page("ben")
        };
        assert_eq!(ada().judge(Some(&base(Own)), &bare), Doubtful);
        let unknown = Remote {
            ctag: None,
            ..base(Own)
        };
        assert_eq!(ada().judge(Some(&unknown), &bare), Other);
        let longer = RemoteItem {
            size: Some(4),
            ..bare
        };
        assert_eq!(ada().judge(Some(&base(Own)), &longer), Other);
    }
}
