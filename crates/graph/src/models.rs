//! What goes into and comes out of the calls of the client, besides the items themselves.

use std::fmt;

use onedrivefs_core::{DriveId, DriveKind, ItemId, Quota, RemoteItem, SecretString, Timestamp};

/// The signed-in person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Identity in the directory.
    pub id: String,
    /// The name people see.
    pub display_name: Option<String>,
    /// The sign-in name, where there is one.
    pub user_principal_name: Option<String>,
}

/// A drive and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveInfo {
    /// Identity of the drive.
    pub id: DriveId,
    /// Which kind, hence which rules.
    pub kind: DriveKind,
    /// The name people see.
    pub name: String,
    /// Whose it is.
    pub owner: Option<String>,
    /// Where people see it in a browser.
    pub web_url: Option<String>,
    /// Its space; `None` where the service gives no believable figures.
    pub quota: Option<Quota>,
}

/// A site that has document libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteInfo {
    /// `host,siteGuid,webGuid`.
    pub id: String,
    /// The name people see.
    pub name: Option<String>,
    /// Where people see it in a browser.
    pub web_url: Option<String>,
}

/// Something in another drive that was shared, or to which there is a shortcut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedItem {
    /// The drive it is in.
    pub drive: DriveId,
    /// Its id there.
    pub item: ItemId,
    /// The name people see.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Identity of its group.
    pub id: String,
    /// The name people see.
    pub name: String,
}

/// A channel of a team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// The name people see.
    pub name: String,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPage {
    /// The items of this part, in the order of the service.
    pub items: Vec<RemoteItem>,
    /// The link to the next part, verbatim; `None` on the last one.
    pub next: Option<String>,
}

/// Where a run of changes begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaFrom {
    /// The current state of the whole drive.
    Start,
    /// The beginning of what concerns one folder: all that is in it.
    Folder(ItemId),
    /// Now: no items, only a delta link.
    Latest,
    /// A next or delta link from an earlier page, verbatim.
    Link(String),
}

/// What follows a page of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaNext {
    /// There are more pages at this next link.
    More(String),
    /// This was the last page; the delta link asks for later changes.
    Done(String),
}

/// A page of changes. Items repeat within a run and may precede their parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaPage {
    /// The changed items; within a run the last occurrence of an id counts.
    pub items: Vec<RemoteItem>,
    /// How to go on.
    pub next: DeltaNext,
}

/// What to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// New content for an existing item.
    Replace {
        /// The drive of the item.
        drive: DriveId,
        /// The item.
        item: ItemId,
    },
    /// A file by name in a folder.
    Create {
        /// The drive of the folder.
        drive: DriveId,
        /// The folder.
        parent: ItemId,
        /// The name, already acceptable to the service.
        name: String,
    },
}

/// What the service does when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuses with a conflict.
    #[default]
    Fail,
    /// Replaces what is there.
    Replace,
    /// Picks another name.
    Rename,
}

impl OnConflict {
    /// The service's own word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Replace => "replace",
            Self::Rename => "rename",
        }
    }
}

/// Under which circumstances a write may be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Only if the item still has this eTag or cTag (quotes included).
    pub if_match: Option<String>,
    /// Only if there is no such item yet.
    pub if_none_match_any: bool,
    /// What to do when the name is taken; without meaning for [`UploadTarget::Replace`].
    pub on_conflict: OnConflict,
}

/// What the service is told about a file when its upload begins; times are only settable here
/// without making another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadProps {
    /// Name of the file; must equal the one of the target.
    pub name: String,
    /// Size in bytes, so that a full drive refuses early.
    pub size: u64,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Modification time.
    pub modified: Option<Timestamp>,
}

/// An upload in progress at the service.
#[derive(Clone, Debug)]
pub struct UploadSession {
    /// Where fragments go. Whoever knows it can write: treat it like a password.
    pub url: SecretString,
    /// When the service forgets the session unless it is used.
    pub expires: Option<Timestamp>,
    /// Offset of the first byte the service lacks.
    pub next_offset: u64,
}

/// How far an upload came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// Offset of the first byte the service lacks.
    pub next_offset: u64,
    /// When the service forgets the session unless it is used.
    pub expires: Option<Timestamp>,
}

/// What a fragment led to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per fragment of megabytes, and a box would only get in the way"
)]
pub enum FragmentOutcome {
    /// Stored; the next fragment begins at `next_offset`.
    Continue {
        /// Offset of the first byte the service lacks.
        next_offset: u64,
        /// When the service forgets the session unless it is used.
        expires: Option<Timestamp>,
    },
    /// The file is complete. Some answers do not describe the item: look it up.
    Done(Option<RemoteItem>),
}

/// A change of an item's name, place or times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new folder, in the same drive.
    pub parent: Option<ItemId>,
    /// The new creation time.
    pub created: Option<Timestamp>,
    /// The new modification time.
    pub modified: Option<Timestamp>,
    /// Whether a file that has the name already disappears (files only).
    pub replace: bool,
}

/// Where to ask how a copy is going. Pre-authenticated: treat it like a password.
#[derive(Clone)]
pub struct CopyMonitor(pub SecretString);

impl fmt::Debug for CopyMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CopyMonitor([redacted])")
    }
}

/// How a copy is going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyStatus {
    /// Under way.
    Running {
        /// Progress in percent, where told.
        percent: Option<u8>,
    },
    /// Done.
    Completed {
        /// The copy, where told.
        item: Option<ItemId>,
    },
    /// Given up by the service.
    Failed {
        /// The service's code.
        code: String,
        /// The service's explanation.
        message: String,
    },
}

/// What a sharing link allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Reading.
    View,
    /// Writing too.
    Edit,
}

/// Whom a sharing link admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkScope {
    /// Everybody who has the link.
    Anonymous,
    /// Members of the organization (not on personal drives).
    Organization,
    /// Those who have access already or are invited.
    Users,
}

/// A sharing link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharingLink {
    /// The link to hand out.
    pub web_url: String,
    /// Identity of the permission behind it.
    pub permission_id: Option<String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// An older state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Identity within the item, such as `3.0`.
    pub id: String,
    /// Size in bytes.
    pub size: Option<u64>,
    /// When it was made.
    pub modified: Option<Timestamp>,
    /// Who made it.
    pub author: Option<String>,
}
