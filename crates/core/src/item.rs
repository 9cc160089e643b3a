//! What the service tells about drives and items, free of its wire format.

use serde::{Deserialize, Serialize};

use crate::{CTag, DriveId, ETag, ItemId, QuickXorHash, Timestamp};

/// The three kinds of drive, which differ in ids, tags, precision and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriveKind {
    /// OneDrive of a person.
    Personal,
    /// OneDrive for Business.
    Business,
    /// A SharePoint document library.
    DocumentLibrary,
}

impl DriveKind {
    /// The kind that the service has a word for, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Personal, Self::Business, Self::DocumentLibrary];
        all.into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(word))
    }

    /// The service's own word for the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Business => "business",
            Self::DocumentLibrary => "documentLibrary",
        }
    }
}

/// Space on a drive in bytes. Absent where the service gives no believable figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// All space of the drive, in bytes.
    pub total: u64,
    /// Space in use, in bytes.
    pub used: u64,
}

/// Where a shortcut leads: an item of another drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutTarget {
    /// The drive that owns the item.
    pub drive: DriveId,
    /// The item in that drive.
    pub item: ItemId,
    /// Whether the item is a folder.
    pub is_folder: bool,
    /// The kind of that drive, where told.
    #[serde(default)]
    pub kind: Option<DriveKind>,
    /// Whether that drive was asked for the file and did not answer: what was known of the file holds.
    #[serde(default)]
    pub unanswered: bool,
}

/// The file of another drive that an item of this one stands for: its content is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTarget {
    /// The drive that owns the file.
    pub drive: DriveId,
    /// The file in that drive.
    pub item: ItemId,
    /// Whether it was shared for reading only.
    #[serde(default)]
    pub read_only: bool,
}

/// What an item is, by the first facet that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemKind {
    /// An ordinary file.
    File,
    /// A folder, or the root of the drive.
    Folder,
    /// A OneNote notebook or the like: listed like a folder, never downloadable.
    Package,
    /// A link to an item of another drive.
    Shortcut(ShortcutTarget),
    /// None of these; not shown.
    Unknown,
}

/// Who did something on the service: a person, an application, or a person by way of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Id of the person; absent where an application acted by itself.
    pub user: Option<String>,
    /// Id of the application.
    pub application: Option<String>,
}

/// Where an item comes from, as far as the service tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Who made it.
    pub created_by: Option<Party>,
    /// Who changed it last: its content, its name, or anything else of it.
    pub changed_by: Option<Party>,
    /// Whether it is shared with others.
    pub shared: bool,
}

impl Provenance {
    /// Tells whether nothing is told.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// One item as a listing, a delta page or an answer described it. Every field but the id may be
/// absent, because the service leaves out different ones in different answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteItem {
    /// Identity inside its drive.
    pub id: ItemId,
    /// The folder the item is in; absent for the root and some odd items.
    pub parent: Option<ItemId>,
    /// The drive of the parent, where given.
    pub drive: Option<DriveId>,
    /// The name as the service spells it; absent on some tombstones.
    pub name: Option<String>,
    /// What the item is.
    pub kind: ItemKind,
    /// Whether this is a tombstone.
    pub deleted: bool,
    /// Whether this is the root of its drive.
    pub is_root: bool,
    /// Size of the content in bytes. Not a promise of the number of bytes a download brings.
    pub size: Option<u64>,
    /// Tag of metadata and content.
    pub etag: Option<ETag>,
    /// Tag of the content.
    pub ctag: Option<CTag>,
    /// Creation time as clients set it.
    pub created: Option<Timestamp>,
    /// Modification time as clients set it.
    pub modified: Option<Timestamp>,
    /// Hash of the content; absent for empty, fresh or odd files.
    pub hash: Option<QuickXorHash>,
    /// Where people see the item in a browser.
    pub web_url: Option<String>,
    /// Whether the service flagged the content as malware, which blocks downloads.
    pub malware: bool,
    /// Who made and changed it.
    #[serde(default, skip_serializing_if = "Provenance::is_unknown")]
    pub provenance: Provenance,
    /// The file of another drive that it stands for. Tags, hash, size and times are those of that file
    /// then, and id, folder and name its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkTarget>,
}
