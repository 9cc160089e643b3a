//! What an item looks like depends on who asks and where: delta leaves things out that a GET
//! shows, business drives leave out what personal ones have, and tombstones keep little.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use crate::clock::Iso;
use crate::config::Knobs;
use crate::drive::{Extra, FileData, Idx, Kind, Node, ROOT, Tree};
use crate::quickxor;

/// Everything but the unreserved characters of a URL.
pub(crate) const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The same of a path, whose slashes stay.
const PATH: &AsciiSet = &STRICT.remove(b'/');

/// Where the item will be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Get,
    Children,
    Delta,
}

/// What a request wants to see.
pub(crate) struct Show<'a> {
    pub(crate) view: View,
    /// Field names of `$select`, in lower case.
    pub(crate) select: Option<&'a [String]>,
    pub(crate) knobs: &'a Knobs,
    /// Makes a pre-authenticated URL.
    pub(crate) download_url: &'a dyn Fn(Idx) -> String,
    /// Looks up the target of a shortcut.
    pub(crate) remote: &'a dyn Fn(&str, &str) -> Option<Value>,
    /// Web address under which items are shown.
    pub(crate) web: &'a str,
}

impl Show<'_> {
    fn wants(&self, field: &str) -> bool {
        self.select
            .is_none_or(|s| s.iter().any(|f| f.eq_ignore_ascii_case(field)))
    }
}

/// The JSON of a live item.
pub(crate) fn item(tree: &Tree, idx: Idx, show: &Show<'_>) -> Value {
    value_of(&Shown { tree, idx, show })
}

/// An item of a page as its JSON: a drive has a million of them.
pub(crate) struct Drawn {
    pub(crate) idx: Idx,
    pub(crate) text: String,
}

impl Drawn {
    /// A live item.
    pub(crate) fn item(tree: &Tree, idx: Idx, show: &Show<'_>) -> Self {
        let text = serde_json::to_string(&Shown { tree, idx, show });
        Self {
            idx,
            text: text.unwrap_or_default(),
        }
    }

    /// A page: what it says of itself, and the items.
    pub(crate) fn page(about: &Map<String, Value>, items: &[Drawn]) -> String {
        let length = items.iter().map(|item| item.text.len() + 1).sum::<usize>();
        let mut page = String::with_capacity(length + 1024);
        page.push('{');
        for (key, value) in about {
            page += &format!("{}:{value},", Value::from(key.as_str()));
        }
        page.push_str("\"value\":[");
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                page.push(',');
            }
            page.push_str(&item.text);
        }
        page.push_str("]}");
        page
    }
}

/// What can be written down as an object can be one.
fn value_of(shown: &impl Serialize) -> Value {
    serde_json::to_value(shown).unwrap_or_default()
}

/// A live item.
struct Shown<'a> {
    tree: &'a Tree,
    idx: Idx,
    show: &'a Show<'a>,
}

/// The fields of an item, of which those are written that were selected.
struct Fields<'a, M> {
    map: M,
    show: &'a Show<'a>,
}

impl<M: SerializeMap> Fields<'_, M> {
    fn put(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), M::Error> {
        // The id comes along with whatever was selected in delta.
        if self.show.wants(key) || self.show.view == View::Delta && key == "id" {
            self.map.serialize_entry(key, value)?;
        }
        Ok(())
    }
}

/// The times that clients set.
#[derive(Serialize)]
struct Times {
    #[serde(rename = "createdDateTime")]
    created: Iso,
    #[serde(rename = "lastModifiedDateTime")]
    modified: Iso,
}

impl Times {
    fn of(node: &Node) -> Self {
        Self {
            created: Iso(node.fs_created),
            modified: Iso(node.fs_modified),
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Shown { tree, idx, show } = *self;
        let node = tree.node(idx);
        let map = serializer.serialize_map(None)?;
        let mut out = Fields { map, show };
        let delta = show.view == View::Delta;
        out.put("id", &shown_id(tree, idx, show))?;
        out.put("name", &node.name)?;
        let size = if node.file().is_some() {
            node.size.saturating_add_signed(show.knobs.wrong_size)
        } else {
            node.size
        };
        out.put("size", &size)?;
        out.put("eTag", &tree.etag(idx, node))?;
        if !(delta && tree.is_business())
            && let Some(ctag) = tree.ctag(idx, node)
        {
            out.put("cTag", &ctag)?;
        }
        out.put("createdDateTime", &Iso(node.created))?;
        out.put("lastModifiedDateTime", &Iso(node.modified))?;
        out.put("fileSystemInfo", &Times::of(node))?;
        if !show.knobs.authors_missing {
            out.put("createdBy", tree.actor_of(node.created_by))?;
            out.put("lastModifiedBy", tree.actor_of(node.modified_by))?;
        }
        out.put("parentReference", &Reference { tree, idx, show })?;
        if show.wants("webUrl") {
            let path = tree.path_of(idx);
            let url = format!("{}{}", show.web, utf8_percent_encode(&path, PATH));
            out.put("webUrl", &url)?;
        }
        if idx == ROOT {
            out.put("root", &json!({}))?;
        }
        self.kind_facets(&mut out)?;
        if let Some(extra) = node.extra() {
            self.extra_facets(extra, &mut out)?;
        }
        out.map.end()
    }
}

fn shown_id(tree: &Tree, idx: Idx, show: &Show<'_>) -> String {
    let id = tree.id_of(idx);
    if has_quirks(tree, show) {
        return id.to_lowercase();
    }
    id
}

/// Whether ids are spelled in another way than elsewhere.
fn has_quirks(tree: &Tree, show: &Show<'_>) -> bool {
    show.knobs.personal_id_quirks && show.view == View::Delta && !tree.is_business()
}

/// Where an item is.
struct Reference<'a> {
    tree: &'a Tree,
    idx: Idx,
    show: &'a Show<'a>,
}

impl Serialize for Reference<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Reference { tree, idx, show } = *self;
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("driveType", tree.kind.as_str())?;
        if has_quirks(tree, show) {
            out.serialize_entry("driveId", &tree.drive_id.to_lowercase())?;
        } else {
            out.serialize_entry("driveId", &tree.drive_id)?;
        }
        if idx == ROOT {
            return out.end();
        }
        let parent = tree.node(idx).parent;
        out.serialize_entry("id", &shown_id(tree, parent, show))?;
        if show.view != View::Delta {
            out.serialize_entry("name", &tree.node(parent).name)?;
            let path = tree.path_of(parent);
            let path = utf8_percent_encode(&path, PATH);
            out.serialize_entry("path", &format!("/drives/{}/root:{path}", tree.drive_id))?;
        }
        out.end()
    }
}

/// The facet of a file.
#[derive(Serialize)]
struct FileFacet {
    #[serde(rename = "mimeType")]
    mime: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashes: Option<Hashes>,
}

#[derive(Serialize)]
struct Hashes {
    #[serde(rename = "quickXorHash")]
    quick_xor: String,
}

impl Shown<'_> {
    fn kind_facets<M: SerializeMap>(&self, out: &mut Fields<'_, M>) -> Result<(), M::Error> {
        let Shown { tree, idx, show } = *self;
        let node = tree.node(idx);
        match &node.kind {
            Kind::Folder(children) => out.put("folder", &json!({"childCount": children.len()})),
            Kind::Package => out.put("package", &json!({"type": "oneNote"})),
            Kind::File(file) => {
                if show.wants("file") {
                    out.put("file", &self.file_facet(file))?;
                }
                let told = show.view != View::Delta || show.select.is_some();
                if told && show.wants("@microsoft.graph.downloadUrl") {
                    let url = (show.download_url)(idx);
                    out.put("@microsoft.graph.downloadUrl", &url)?;
                }
                Ok(())
            }
            Kind::Shortcut(remote) => {
                let fallback =
                    || json!({"id": remote.item, "parentReference": {"driveId": remote.drive}});
                let facet = (show.remote)(&remote.drive, &remote.item).unwrap_or_else(fallback);
                out.put("remoteItem", &facet)
            }
        }
    }

    fn file_facet(&self, file: &FileData) -> FileFacet {
        let node = self.tree.node(self.idx);
        // The service has no hash for empty files.
        let hashed = node.size > 0 && !self.show.knobs.hash_missing;
        FileFacet {
            mime: mime(&node.name),
            hashes: hashed.then(|| Hashes {
                quick_xor: quickxor::to_base64(&file_hash(file)),
            }),
        }
    }

    fn extra_facets<M: SerializeMap>(
        &self,
        extra: &Extra,
        out: &mut Fields<'_, M>,
    ) -> Result<(), M::Error> {
        if !self.tree.is_business()
            && let Some(text) = &extra.description
        {
            out.put("description", text)?;
        }
        if let Some(name) = &extra.special {
            out.put("specialFolder", &json!({"name": name}))?;
        }
        if extra.malware {
            let facet = json!({"description": "Trojan:Simulated/Harmless"});
            out.put("malware", &facet)?;
        }
        if !extra.links.is_empty() || !extra.shares.is_empty() {
            out.put("shared", &json!({"scope": "users"}))?;
        }
        Ok(())
    }
}

/// quickXorHash of the current content, computed at most once.
pub(crate) fn file_hash(file: &FileData) -> [u8; 20] {
    *file.hash.get_or_init(|| {
        file.body.hash().unwrap_or_else(|error| {
            tracing::warn!(%error, "hashing a spooled body failed");
            [0; 20]
        })
    })
}

/// What remains of a deleted item in delta.
pub(crate) fn tombstone(tree: &Tree, idx: Idx, show: &Show<'_>) -> Value {
    let node = tree.node(idx);
    let mut out = json!({"id": shown_id(tree, idx, show), "deleted": {"state": "deleted"}});
    if show.knobs.delta_bare_tombstones {
        return out;
    }
    out["parentReference"] = value_of(&Reference { tree, idx, show });
    let facet = match &node.kind {
        Kind::Folder(_) => ("folder", json!({"childCount": 0})),
        Kind::Package => ("package", json!({"type": "oneNote"})),
        Kind::Shortcut(_) => ("remoteItem", json!({})),
        Kind::File(_) => (
            "file",
            json!({"hashes": {"quickXorHash": quickxor::to_base64(&[0; 20])}}),
        ),
    };
    out[facet.0] = facet.1;
    if tree.is_business() {
        out["size"] = json!(0);
        out["lastModifiedDateTime"] = json!("0001-01-01T00:00:00Z");
    } else {
        out["name"] = json!(node.name);
    }
    out
}

/// The inside of a shortcut: the target as its own drive knows it.
pub(crate) fn remote_item(tree: &Tree, idx: Idx, quirks: bool) -> Value {
    let node = tree.node(idx);
    let drive = if quirks && !tree.is_business() {
        tree.drive_id.trim_start_matches('0').to_lowercase()
    } else {
        tree.drive_id.clone()
    };
    let mut out = json!({
        "id": tree.id_of(idx),
        "name": node.name,
        "size": node.size,
        "fileSystemInfo": Times::of(node),
        "parentReference": {"driveId": drive, "driveType": tree.kind.as_str()},
        "shared": {"scope": "users"},
    });
    if idx != ROOT {
        out["parentReference"]["id"] = json!(tree.id_of(node.parent));
    }
    match &node.kind {
        Kind::Folder(children) => out["folder"] = json!({"childCount": children.len()}),
        Kind::File(_) => out["file"] = json!({"mimeType": mime(&node.name)}),
        Kind::Package => out["package"] = json!({"type": "oneNote"}),
        Kind::Shortcut(_) => {}
    }
    out
}

/// The media type by extension.
pub(crate) fn mime(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    match extension.as_deref() {
        Some("txt" | "md" | "log") => "text/plain",
        Some("csv") => "text/csv",
        Some("html" | "htm") => "text/html",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("mp4") => "video/mp4",
        Some("json") => "application/json",
        Some("zip") => "application/zip",
        Some("one") => "application/msonenote",
        Some("docx") => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        Some("xlsx") => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => "application/octet-stream",
    }
}
