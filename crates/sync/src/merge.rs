//! The pure part of three-way decisions: base, here, there.

use onedrivefs_core::RemoteItem;
use onedrivefs_store::{Ops, Remote};

/// Tells whether the service has other content than the base. Metadata changes do not count.
#[must_use]
pub fn content_changed(base: &Remote, there: &RemoteItem) -> bool {
    if let (Some(a), Some(b)) = (&base.ctag, &there.ctag)
        && a == b
    {
        return false;
    }
    if base.size == 0 && there.size == Some(0) {
        // Some drives send neither tag nor hash for these, and the time may have been set alone.
        return false;
    }
    let size_differs = there.size.is_some_and(|size| size != base.size);
    if let (Some(a), Some(b)) = (base.hash, there.hash) {
        return a != b || size_differs;
    }
    if size_differs {
        return true;
    }
    if there.etag.is_some() && there.etag == base.etag {
        return false;
    }
    if base.ctag.is_some() && there.ctag.is_some() {
        return true;
    }
    // Neither tag nor hash decides: some drives leave both out of change pages. A content update
    // sets the modification time.
    there
        .modified
        .is_some_and(|time| !time.same_second(base.mtime))
}

/// What is to happen with an item whose content may have changed on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentVerdict {
    /// The service's content did not change; what waits here goes on waiting.
    KeepOurs,
    /// Nothing waits here; the service's content is taken.
    TakeTheirs,
    /// Both have the same bytes: nothing needs to be sent.
    Adopt,
    /// Both changed: both are kept.
    KeepBoth,
}

/// Decides about content.
///
/// `same_bytes` tells whether the body here equals the service's, where that is known.
#[must_use]
pub fn decide_content(
    waiting: Ops,
    being_written: bool,
    changed_there: bool,
    same_bytes: Option<bool>,
) -> ContentVerdict {
    let changed_here = waiting.has(Ops::CONTENT) || being_written;
    match (changed_here, changed_there) {
        (_, false) => ContentVerdict::KeepOurs,
        (false, true) => ContentVerdict::TakeTheirs,
        (true, true) if same_bytes == Some(true) && !being_written => ContentVerdict::Adopt,
        (true, true) => ContentVerdict::KeepBoth,
    }
}

/// What is to happen with the name and folder of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceVerdict {
    /// It stays where it is here.
    KeepOurs,
    /// It goes where the service has it, and a rename that waits here is dropped.
    TakeTheirs,
}

/// Decides about the place: a rename there wins over one here.
#[must_use]
pub const fn decide_place(moved_there: bool) -> PlaceVerdict {
    if moved_there {
        PlaceVerdict::TakeTheirs
    } else {
        PlaceVerdict::KeepOurs
    }
}

#[cfg(test)]
mod tests {
    use onedrivefs_core::{CTag, ETag, Ino, ItemId, ItemKind, Provenance, QuickXorHash, Timestamp};

    use super::*;

    fn base() -> Remote {
        Remote {
            id: ItemId::new("1"),
            parent: Some(Ino::ROOT),
            name: "a".into(),
            etag: Some(ETag::new("e1")),
            ctag: Some(CTag::new("c1")),
            hash: Some(QuickXorHash::of(b"one")),
            size: 3,
            mtime: Timestamp::from_nanos(0),
            author: None,
        }
    }

    fn there() -> RemoteItem {
        RemoteItem {
            id: ItemId::new("1"),
            parent: None,
            drive: None,
            name: Some("a".into()),
            kind: ItemKind::File,
            deleted: false,
            is_root: false,
            size: Some(3),
            etag: Some(ETag::new("e2")),
            ctag: None,
            created: None,
            modified: Some(Timestamp::from_nanos(0)),
            hash: Some(QuickXorHash::of(b"one")),
            web_url: None,
            malware: false,
            provenance: Provenance::default(),
            link: None,
        }
    }

    /// The time of an empty file was set, and a page of changes has it with no tag of its content.
    #[test]
    fn an_empty_file_that_stays_empty_did_not_change() {
        let base = Remote {
            hash: None,
            size: 0,
            ..base()
        };
        let touched = RemoteItem {
            size: Some(0),
            hash: None,
            modified: Some(Timestamp::from_nanos(9_000_000_000)),
            ..there()
        };
        assert!(!content_changed(&base, &touched));
    }

    #[test]
    fn only_other_bytes_are_a_content_change() {
        assert!(!content_changed(&base(), &there()));
        assert!(!content_changed(
            &base(),
            &RemoteItem {
                ctag: Some(CTag::new("c1")),
                hash: None,
                ..there()
            }
        ));
        assert!(content_changed(
            &base(),
            &RemoteItem {
                hash: Some(QuickXorHash::of(b"two")),
                ..there()
            }
        ));
        assert!(content_changed(
            &base(),
            &RemoteItem {
                hash: None,
                size: Some(4),
                ..there()
            }
        ));
        assert!(content_changed(
            &base(),
            &RemoteItem {
                hash: None,
                ctag: Some(CTag::new("c2")),
                ..there()
            }
        ));
        let later = Some(Timestamp::from_nanos(5_000_000_000));
        assert!(content_changed(
            &base(),
            &RemoteItem {
                hash: None,
                modified: later,
                ..there()
            }
        ));
        assert!(!content_changed(
            &base(),
            &RemoteItem {
                hash: None,
                ..there()
            }
        ));
    }

    #[test]
    fn the_conflict_table_for_content() {
        use ContentVerdict::{Adopt, KeepBoth, KeepOurs, TakeTheirs};
        let saved = Ops::CONTENT;
        for (waiting, written, there, same, expected) in [
            (Ops::NONE, false, true, None, TakeTheirs),
            (Ops::MOVE, false, true, None, TakeTheirs),
            (saved, false, false, None, KeepOurs),
            (saved, false, true, Some(true), Adopt),
            (saved, false, true, Some(false), KeepBoth),
            (saved, false, true, None, KeepBoth),
            (Ops::NONE, true, true, Some(true), KeepBoth),
        ] {
            assert_eq!(decide_content(waiting, written, there, same), expected);
        }
    }
}
