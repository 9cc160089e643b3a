//! What an item looks like depends on who asks and where: delta leaves things out that a GET
//! shows, business drives leave out what personal ones have, and tombstones keep little.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::clock::iso;
use crate::config::Knobs;
use crate::drive::{Extra, FileData, Idx, Kind, Node, ROOT, Tree};
use crate::quickxor;

/// Everything but the unreserved characters of a URL.
pub(crate) const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

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
    let node = tree.node(idx);
    let mut out = Map::new();
    let delta = show.view == View::Delta;
    put(&mut out, "id", json!(shown_id(tree, idx, show)));
    put(&mut out, "name", json!(node.name));
    let size = if node.file().is_some() {
        node.size.saturating_add_signed(show.knobs.wrong_size)
    } else {
        node.size
    };
    put(&mut out, "size", json!(size));
    put(&mut out, "eTag", json!(tree.etag(idx, node)));
    if let Some(ctag) = tree
        .ctag(idx, node)
        .filter(|_| !(delta && tree.is_business()))
    {
        put(&mut out, "cTag", json!(ctag));
    }
    put(&mut out, "createdDateTime", json!(iso(node.created)));
    put(&mut out, "lastModifiedDateTime", json!(iso(node.modified)));
    put(
        &mut out,
        "fileSystemInfo",
        json!({
            "createdDateTime": iso(node.fs_created),
            "lastModifiedDateTime": iso(node.fs_modified),
        }),
    );
    if !show.knobs.authors_missing {
        put(&mut out, "createdBy", tree.actor_json(node.created_by));
        put(
            &mut out,
            "lastModifiedBy",
            tree.actor_json(node.modified_by),
        );
    }
    put(
        &mut out,
        "parentReference",
        parent_reference(tree, idx, show),
    );
    if show.wants("webUrl") {
        let path = utf8_percent_encode(&tree.path_of(idx), STRICT).to_string();
        put(
            &mut out,
            "webUrl",
            json!(format!("{}{}", show.web, path.replace("%2F", "/"))),
        );
    }
    if idx == ROOT {
        put(&mut out, "root", json!({}));
    }
    kind_facets(tree, idx, show, &mut out);
    if let Some(extra) = node.extra() {
        extra_facets(tree, extra, &mut out);
    }
    if let Some(select) = show.select {
        // The id comes along with whatever was selected in delta.
        out.retain(|key, _| {
            (delta && key == "id") || select.iter().any(|f| f.eq_ignore_ascii_case(key))
        });
    }
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, key: &str, value: Value) {
    out.insert(key.to_owned(), value);
}

fn shown_id(tree: &Tree, idx: Idx, show: &Show<'_>) -> String {
    let id = tree.id_of(idx);
    if show.knobs.personal_id_quirks && show.view == View::Delta && !tree.is_business() {
        return id.to_lowercase();
    }
    id
}

fn parent_reference(tree: &Tree, idx: Idx, show: &Show<'_>) -> Value {
    let mut reference = json!({"driveType": tree.kind.as_str(), "driveId": tree.drive_id});
    if show.knobs.personal_id_quirks && show.view == View::Delta && !tree.is_business() {
        reference["driveId"] = json!(tree.drive_id.to_lowercase());
    }
    if idx == ROOT {
        return reference;
    }
    let parent = tree.node(idx).parent;
    reference["id"] = json!(shown_id(tree, parent, show));
    if show.view != View::Delta {
        reference["name"] = json!(tree.node(parent).name);
        let path = utf8_percent_encode(&tree.path_of(parent), STRICT).to_string();
        let path = path.replace("%2F", "/");
        reference["path"] = json!(format!("/drives/{}/root:{path}", tree.drive_id));
    }
    reference
}

fn kind_facets(tree: &Tree, idx: Idx, show: &Show<'_>, out: &mut Map<String, Value>) {
    let node = tree.node(idx);
    match &node.kind {
        Kind::Folder(children) => put(out, "folder", json!({"childCount": children.len()})),
        Kind::Package => put(out, "package", json!({"type": "oneNote"})),
        Kind::File(file) => {
            put(out, "file", file_facet(node, file, show));
            if show.wants("@microsoft.graph.downloadUrl") && show.view != View::Delta
                || show.select.is_some() && show.wants("@microsoft.graph.downloadUrl")
            {
                put(
                    out,
                    "@microsoft.graph.downloadUrl",
                    json!((show.download_url)(idx)),
                );
            }
        }
        Kind::Shortcut(remote) => {
            let fallback =
                || json!({"id": remote.item, "parentReference": {"driveId": remote.drive}});
            let facet = (show.remote)(&remote.drive, &remote.item).unwrap_or_else(fallback);
            put(out, "remoteItem", facet);
        }
    }
}

fn file_facet(node: &Node, file: &FileData, show: &Show<'_>) -> Value {
    let mut facet = json!({"mimeType": mime(&node.name)});
    // The service has no hash for empty files.
    if node.size > 0 && !show.knobs.hash_missing && show.wants("file") {
        let hash = file_hash(file);
        facet["hashes"] = json!({"quickXorHash": quickxor::to_base64(&hash)});
    }
    facet
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

fn extra_facets(tree: &Tree, extra: &Extra, out: &mut Map<String, Value>) {
    if let Some(text) = extra.description.as_ref().filter(|_| !tree.is_business()) {
        put(out, "description", json!(text));
    }
    if let Some(name) = &extra.special {
        put(out, "specialFolder", json!({"name": name}));
    }
    if extra.malware {
        put(
            out,
            "malware",
            json!({"description": "Trojan:Simulated/Harmless"}),
        );
    }
    if !extra.links.is_empty() || !extra.shares.is_empty() {
        put(out, "shared", json!({"scope": "users"}));
    }
}

/// What remains of a deleted item in delta.
pub(crate) fn tombstone(tree: &Tree, idx: Idx, show: &Show<'_>) -> Value {
    let node = tree.node(idx);
    let mut out = json!({"id": shown_id(tree, idx, show), "deleted": {"state": "deleted"}});
    if show.knobs.delta_bare_tombstones {
        return out;
    }
    out["parentReference"] = parent_reference(tree, idx, show);
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
        "fileSystemInfo": {
            "createdDateTime": iso(node.fs_created),
            "lastModifiedDateTime": iso(node.fs_modified),
        },
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
