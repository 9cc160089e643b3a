//! The JSON of the service, and its translation into the nouns of the program.

use onedrivefs_core::{
    CTag, DriveId, DriveKind, ETag, ItemId, ItemKind, Party, Provenance, QuickXorHash, Quota,
    RemoteItem, ShortcutTarget, Timestamp,
};
use serde::Deserialize;

use crate::lenient;
use crate::models::DriveInfo;

/// An item.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireItem {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    size: Option<u64>,
    #[serde(rename = "eTag", deserialize_with = "lenient::text")]
    etag: Option<String>,
    #[serde(rename = "cTag", deserialize_with = "lenient::text")]
    ctag: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    created_date_time: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    last_modified_date_time: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    file_system_info: Option<WireTimes>,
    #[serde(deserialize_with = "lenient::object")]
    file: Option<WireFile>,
    #[serde(deserialize_with = "lenient::present")]
    folder: bool,
    #[serde(deserialize_with = "lenient::present")]
    package: bool,
    #[serde(deserialize_with = "lenient::present")]
    root: bool,
    #[serde(deserialize_with = "lenient::present")]
    deleted: bool,
    #[serde(deserialize_with = "lenient::present")]
    malware: bool,
    #[serde(deserialize_with = "lenient::present")]
    shared: bool,
    #[serde(deserialize_with = "lenient::object")]
    created_by: Option<WireActors>,
    #[serde(deserialize_with = "lenient::object")]
    last_modified_by: Option<WireActors>,
    #[serde(deserialize_with = "lenient::object")]
    parent_reference: Option<WireParent>,
    #[serde(deserialize_with = "lenient::object")]
    remote_item: Option<WireRemote>,
    #[serde(deserialize_with = "lenient::text")]
    web_url: Option<String>,
    #[serde(
        rename = "@microsoft.graph.downloadUrl",
        deserialize_with = "lenient::text"
    )]
    pub(crate) download_url: Option<String>,
    #[serde(rename = "@content.downloadUrl", deserialize_with = "lenient::text")]
    pub(crate) content_download_url: Option<String>,
}

/// The times that clients set.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireTimes {
    #[serde(deserialize_with = "lenient::text")]
    created_date_time: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    last_modified_date_time: Option<String>,
}

/// The facet of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireFile {
    #[serde(deserialize_with = "lenient::object")]
    hashes: Option<WireHashes>,
}

/// Hashes of the content; only one kind is in general use.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireHashes {
    #[serde(deserialize_with = "lenient::text")]
    quick_xor_hash: Option<String>,
}

/// A reference to the folder of an item.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireParent {
    #[serde(deserialize_with = "lenient::text")]
    drive_id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    drive_type: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
}

/// What a shortcut leads to.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireRemote {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    size: Option<u64>,
    #[serde(deserialize_with = "lenient::present")]
    folder: bool,
    #[serde(deserialize_with = "lenient::present")]
    package: bool,
    #[serde(deserialize_with = "lenient::object")]
    file_system_info: Option<WireTimes>,
    #[serde(deserialize_with = "lenient::object")]
    parent_reference: Option<WireParent>,
}

impl WireRemote {
    /// Where the shortcut leads; `None` when the drive or the item is not told.
    fn target(&self) -> Option<ShortcutTarget> {
        let parent = self.parent_reference.as_ref()?;
        Some(ShortcutTarget {
            drive: DriveId::new(filled(parent.drive_id.as_deref())?),
            item: ItemId::new(filled(self.id.as_deref())?),
            is_folder: self.folder || self.package,
            kind: parent.drive_type.as_deref().and_then(DriveKind::parse),
            unanswered: false,
        })
    }
}

/// A text that is there and not empty.
fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A time, if it is one.
fn time(text: Option<&String>) -> Option<Timestamp> {
    text.and_then(|text| Timestamp::parse(text))
}

impl WireItem {
    /// The pre-authenticated address of the content, where given.
    pub(crate) fn download_url(&self) -> Option<&str> {
        filled(self.download_url.as_deref()).or(filled(self.content_download_url.as_deref()))
    }

    /// Decides what the item is; the first facet that matches wins.
    fn kind(&self) -> ItemKind {
        if let Some(remote) = &self.remote_item {
            return remote
                .target()
                .map_or(ItemKind::Unknown, ItemKind::Shortcut);
        }
        if self.root || self.folder {
            ItemKind::Folder
        } else if self.package {
            ItemKind::Package
        } else if self.file.is_some() {
            ItemKind::File
        } else {
            ItemKind::Unknown
        }
    }

    /// The hash of the content, unless it is a stand-in for "not known".
    fn hash(&self) -> Option<QuickXorHash> {
        let hashes = self.file.as_ref()?.hashes.as_ref()?;
        let hash = QuickXorHash::parse(hashes.quick_xor_hash.as_deref()?)?;
        (!hash.is_zero() || self.size == Some(0)).then_some(hash)
    }

    /// Translates the item; `None` when it has no id.
    pub(crate) fn into_item(self) -> Option<RemoteItem> {
        let id = ItemId::new(filled(self.id.as_deref())?);
        let kind = self.kind();
        let hash = self.hash();
        if kind == ItemKind::Unknown && !self.deleted {
            tracing::debug!(item = %id, "met an item that is neither file nor folder");
        }
        let remote = self.remote_item.as_ref();
        let own = self.file_system_info.as_ref();
        let times = own.or_else(|| remote?.file_system_info.as_ref());
        let parent = self.parent_reference.as_ref();
        Some(RemoteItem {
            parent: parent
                .and_then(|parent| filled(parent.id.as_deref()))
                .map(ItemId::new),
            drive: parent
                .and_then(|parent| filled(parent.drive_id.as_deref()))
                .map(DriveId::new),
            deleted: self.deleted,
            is_root: self.root,
            size: self.size.or_else(|| remote?.size),
            created: time(times.and_then(|times| times.created_date_time.as_ref()))
                .or_else(|| time(self.created_date_time.as_ref())),
            modified: time(times.and_then(|times| times.last_modified_date_time.as_ref()))
                .or_else(|| time(self.last_modified_date_time.as_ref())),
            hash,
            malware: self.malware,
            provenance: Provenance {
                created_by: self.created_by.and_then(WireActors::into_party),
                changed_by: self.last_modified_by.and_then(WireActors::into_party),
                shared: self.shared,
            },
            name: self
                .name
                .filter(|name| !name.is_empty())
                .or_else(|| self.remote_item.and_then(|remote| remote.name)),
            etag: self.etag.filter(|tag| !tag.is_empty()).map(ETag::new),
            ctag: self.ctag.filter(|tag| !tag.is_empty()).map(CTag::new),
            web_url: self.web_url,
            link: None,
            kind,
            id,
        })
    }
}

/// A part of a list of anything.
///
/// A missing list is kept apart from an empty one: an answer that is no list at all must not look
/// like a folder without children.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
pub(crate) struct WirePage<T> {
    #[serde(default)]
    pub(crate) value: Option<Vec<T>>,
    #[serde(
        rename = "@odata.nextLink",
        default,
        deserialize_with = "lenient::text"
    )]
    pub(crate) next_link: Option<String>,
    #[serde(
        rename = "@odata.deltaLink",
        default,
        deserialize_with = "lenient::text"
    )]
    pub(crate) delta_link: Option<String>,
}

/// An element of a list, absent when it is of another type than it should be.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
pub(crate) struct Element<T>(#[serde(deserialize_with = "lenient::object")] pub(crate) Option<T>);

/// Translates the items of a page, dropping those without an id.
pub(crate) fn into_items(page: Vec<Element<WireItem>>) -> Vec<RemoteItem> {
    page.into_iter()
        .filter_map(|element| element.0?.into_item())
        .collect()
}

/// A drive.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireDrive {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    drive_type: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    owner: Option<WireIdentitySet>,
    #[serde(deserialize_with = "lenient::text")]
    web_url: Option<String>,
    #[serde(deserialize_with = "lenient::object")]
    quota: Option<WireQuota>,
}

/// Who owns or made something.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireIdentitySet {
    #[serde(deserialize_with = "lenient::object")]
    user: Option<WireIdentity>,
    #[serde(deserialize_with = "lenient::object")]
    group: Option<WireIdentity>,
    #[serde(deserialize_with = "lenient::object")]
    application: Option<WireIdentity>,
}

/// A person, group or application.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireIdentity {
    #[serde(deserialize_with = "lenient::text")]
    display_name: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    email: Option<String>,
}

impl WireIdentitySet {
    /// The name people know the owner by.
    pub(crate) fn into_name(self) -> Option<String> {
        let identity = self.user.or(self.group).or(self.application)?;
        identity.display_name.or(identity.email)
    }
}

/// Who made or changed an item.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireActors {
    #[serde(deserialize_with = "lenient::object")]
    user: Option<WireActor>,
    #[serde(deserialize_with = "lenient::object")]
    application: Option<WireActor>,
}

/// A person or application. Its names are left alone: they come with every item of a drive.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireActor {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
}

impl WireActors {
    /// Whom it names by id; `None` when it names nobody.
    fn into_party(self) -> Option<Party> {
        let id = |of: Option<WireActor>| of?.id.filter(|id| !id.is_empty());
        let party = Party {
            user: id(self.user),
            application: id(self.application),
        };
        (party != Party::default()).then_some(party)
    }
}

/// The space of a drive.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireQuota {
    #[serde(deserialize_with = "lenient::count")]
    total: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    used: Option<u64>,
    #[serde(deserialize_with = "lenient::count")]
    remaining: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    state: Option<String>,
}

impl WireQuota {
    /// Figures that can be believed. The service also sends zeros, or nothing left on a drive that
    /// takes writes, where it means that it does not know.
    fn into_quota(self) -> Option<Quota> {
        let total = self.total.filter(|&total| total > 0)?;
        let exceeded = self
            .state
            .as_deref()
            .is_some_and(|state| state.eq_ignore_ascii_case("exceeded"));
        let used = match (self.used, self.remaining) {
            (Some(used), Some(0)) if used < total && !exceeded => return None,
            (Some(used), _) => used,
            (None, Some(remaining)) => total.checked_sub(remaining)?,
            (None, None) => return None,
        };
        Some(Quota { total, used })
    }
}

impl WireDrive {
    /// The space of the drive, where told.
    pub(crate) fn into_quota(self) -> Option<Quota> {
        self.quota.and_then(WireQuota::into_quota)
    }

    /// Translates the drive; `None` when it has no id.
    pub(crate) fn into_info(self) -> Option<DriveInfo> {
        let id = DriveId::new(filled(self.id.as_deref())?);
        let kind = match self.drive_type.as_deref().and_then(DriveKind::parse) {
            Some(kind) => kind,
            _ if id.as_str().starts_with("b!") => DriveKind::Business,
            _ => DriveKind::Personal,
        };
        Some(DriveInfo {
            kind,
            name: filled(self.name.as_deref())
                .unwrap_or("OneDrive")
                .to_owned(),
            owner: self.owner.and_then(WireIdentitySet::into_name),
            web_url: self.web_url,
            quota: self.quota.and_then(WireQuota::into_quota),
            id,
        })
    }
}

/// An upload session or its status.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WireSession {
    #[serde(deserialize_with = "lenient::text")]
    pub(crate) upload_url: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    expiration_date_time: Option<String>,
    #[serde(deserialize_with = "lenient::list")]
    next_expected_ranges: Vec<String>,
}

impl WireSession {
    /// When the service forgets the session.
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        time(self.expiration_date_time.as_ref())
    }

    /// Offset of the first byte the service lacks, where told.
    pub(crate) fn next_offset(&self) -> Option<u64> {
        let starts = self.next_expected_ranges.iter().filter_map(|range| {
            let start = range.split('-').next()?.trim();
            start.parse::<u64>().ok()
        });
        starts.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: &str) -> RemoteItem {
        let wire: WireItem = serde_json::from_str(json).unwrap();
        wire.into_item().unwrap()
    }

    #[test]
    fn facets_decide_in_order() {
        for (json, kind, deleted) in [
            (
                r#"{"id":"1","deleted":{},"folder":{}}"#,
                ItemKind::Folder,
                true,
            ),
            (r#"{"id":"1","root":{}}"#, ItemKind::Folder, false),
            (
                r#"{"id":"1","folder":{},"file":{}}"#,
                ItemKind::Folder,
                false,
            ),
            (
                r#"{"id":"1","package":{"type":"oneNote"}}"#,
                ItemKind::Package,
                false,
            ),
            (r#"{"id":"1","file":{}}"#, ItemKind::File, false),
            (r#"{"id":"1","bundle":{}}"#, ItemKind::Unknown, false),
            (
                r#"{"id":"1","remoteItem":{"id":"2"}}"#,
                ItemKind::Unknown,
                false,
            ),
        ] {
            let item = item(json);
            assert_eq!((item.kind, item.deleted), (kind, deleted), "{json}");
        }
    }

    #[test]
    fn shortcuts_carry_their_target_and_own_name() {
        let found = item(
            r#"{"id":"01MINE","name":"Team","size":0,
                "parentReference":{"driveId":"b!mine","id":"01ROOT"},
                "remoteItem":{"id":"01THEIRS","name":"Docs","folder":{"childCount":3},
                "parentReference":{"driveId":"b!theirs"},
                "fileSystemInfo":{"lastModifiedDateTime":"2026-01-01T00:00:00Z"}}}"#,
        );
        let ItemKind::Shortcut(target) = &found.kind else {
            panic!("{found:?}");
        };
        assert_eq!(target.drive, DriveId::new("b!theirs"));
        assert_eq!(target.item, ItemId::new("01THEIRS"));
        assert!(target.is_folder);
        assert_eq!(found.name.as_deref(), Some("Team"));
        assert_eq!(found.modified, Timestamp::parse("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn a_zero_hash_is_no_hash_unless_the_file_is_empty() {
        let zero = QuickXorHash::of(b"").to_string();
        let with = |size: &str| {
            item(&format!(
                r#"{{"id":"1","size":{size},"file":{{"hashes":{{"quickXorHash":"{zero}"}}}}}}"#
            ))
        };
        assert!(with("7").hash.is_none());
        assert!(with("null").hash.is_none());
        assert!(with("0").hash.is_some());
    }

    #[test]
    fn client_times_win_over_server_times() {
        let both = item(
            r#"{"id":"1","lastModifiedDateTime":"2026-01-05T00:00:00Z",
                "fileSystemInfo":{"lastModifiedDateTime":"2026-01-01T00:00:00Z"}}"#,
        );
        assert_eq!(both.modified, Timestamp::parse("2026-01-01T00:00:00Z"));
        let broken = item(
            r#"{"id":"1","lastModifiedDateTime":"2026-01-05T00:00:00Z",
                "fileSystemInfo":{"lastModifiedDateTime":"0001-01-01T00:00:00Z"}}"#,
        );
        assert_eq!(broken.modified, Timestamp::parse("2026-01-05T00:00:00Z"));
    }

    #[test]
    fn odd_quotas_are_unknown() {
        let quota = |json: &str| {
            serde_json::from_str::<WireQuota>(json)
                .unwrap()
                .into_quota()
        };
        assert_eq!(
            quota(r#"{"total":"100","used":40,"remaining":"60"}"#),
            Some(Quota {
                total: 100,
                used: 40
            })
        );
        assert_eq!(quota(r#"{"total":0,"used":0,"remaining":0}"#), None);
        assert_eq!(quota(r#"{"total":100,"used":40,"remaining":0}"#), None);
        assert_eq!(
            quota(r#"{"total":100,"used":40,"remaining":-5}"#),
            Some(Quota {
                total: 100,
                used: 40
            })
        );
        assert_eq!(
            quota(r#"{"total":100,"used":120,"remaining":0,"state":"exceeded"}"#),
            Some(Quota {
                total: 100,
                used: 120
            })
        );
        assert_eq!(quota("{}"), None);
    }

    #[test]
    fn one_odd_element_does_not_cost_the_page() {
        let json = r#"{"value":[{"id":"1","file":{}},7,{"name":"no id"},null,{"id":5,"size":{}}],
            "@odata.nextLink":"n"}"#;
        let page: WirePage<Element<WireItem>> = serde_json::from_str(json).unwrap();
        assert_eq!(page.next_link.as_deref(), Some("n"));
        let items = into_items(page.value.unwrap());
        assert_eq!(items.len(), 2);
    }

    #[test]
    fn positions_come_from_the_first_missing_range() {
        let session = |json: &str| serde_json::from_str::<WireSession>(json).unwrap();
        assert_eq!(
            session(r#"{"nextExpectedRanges":["5-9","20-"]}"#).next_offset(),
            Some(5)
        );
        assert_eq!(session(r#"{"nextExpectedRanges":[]}"#).next_offset(), None);
        assert_eq!(
            session(r#"{"nextExpectedRanges":"0-"}"#).next_offset(),
            None
        );
        assert_eq!(session(r"{}").next_offset(), None);
    }
}
