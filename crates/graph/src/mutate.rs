//! Changes of the tree: folders, renames, moves, times, deletion, copies.

use http::Method;
use http::header::{HeaderValue, IF_MATCH};
use onedrivefs_core::{DriveId, ExposeSecret as _, ItemId, RemoteItem, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::{GraphError, ServiceError, clean};
use crate::items::{item_if_told, item_of};
use crate::lenient;
use crate::models::{CopyMonitor, CopyStatus, ItemPatch, OnConflict};
use crate::send::{Answer, Call, PREFER};

/// How a copy is going, as the service tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireCopy {
    #[serde(deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    percentage_complete: Option<f64>,
    #[serde(deserialize_with = "lenient::text")]
    resource_id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    error_code: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    status_description: Option<String>,
}

impl GraphClient {
    /// Makes a folder.
    ///
    /// # Errors
    /// As every change; conflict when the name is taken (unless another behaviour was asked for).
    pub async fn create_folder(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
        on_conflict: OnConflict,
    ) -> Result<RemoteItem, GraphError> {
        let path = format!("{}/children", Endpoints::item_path(drive, parent)?);
        let url = self.endpoints.graph_url(&path)?;
        let body = json!({
            "name": name,
            "folder": {},
            "@microsoft.graph.conflictBehavior": on_conflict.as_str(),
        });
        let route = "/drives/{drive}/items/{item}/children";
        let answer = self
            .send(&Call::change(Method::POST, url, route).json(&body)?)
            .await?;
        if let Some(item) = item_if_told(&answer) {
            return Ok(item);
        }
        let made = self.child_by_name(drive, parent, name).await?;
        made.ok_or_else(|| answer.malformed("the new folder is not described and not there"))
    }

    /// Renames or moves an item, or sets its times. Check the parent in the answer: some services
    /// ignore a parent they do not like.
    ///
    /// # Errors
    /// As every change; changed when the tag does not match, conflict when the name is taken.
    pub async fn update_item(
        &self,
        drive: &DriveId,
        item: &ItemId,
        patch: &ItemPatch,
        if_match: Option<&str>,
    ) -> Result<RemoteItem, GraphError> {
        let linked = self.link(drive, item).is_some();
        let stays = patch.name.is_none() && patch.parent.is_none();
        // Of what stands for a file of another drive, the times are that file's, and so are the tags.
        let (to, tag) = match linked {
            true if stays => (self.content_of(drive, item), if_match),
            true => ((drive.clone(), item.clone()), None),
            false => ((drive.clone(), item.clone()), if_match),
        };
        let url = self
            .endpoints
            .graph_url(&Endpoints::item_path(&to.0, &to.1)?)?;
        let route = "/drives/{drive}/items/{item}";
        let mut call = Call::change(Method::PATCH, url, route).json(&patch_body(patch))?;
        if let Some(tag) = tag {
            call = call.tag(IF_MATCH, tag)?;
        }
        let answer = self.send(&call).await?;
        match item_if_told(&answer) {
            Some(told) if linked && stays => Ok(self.as_link(drive, item, told)),
            // What is at its end may be another file by now.
            Some(_) if linked => self.item(drive, item).await,
            Some(told) => Ok(told),
            None => self.item(drive, item).await,
        }
    }

    /// Moves an item and what it holds to the recycle bin. One that is gone already is fine.
    ///
    /// Some services answer "changed" to any tag here; re-reading and comparing before an
    /// unconditional deletion is the safer way there. No tag tells whether something was put into a
    /// folder, and a request may have to wait for its turn: `is_wanted` is asked right before it is
    /// sent. Tells whether it was.
    ///
    /// # Errors
    /// As every change.
    pub async fn delete_item(
        &self,
        drive: &DriveId,
        item: &ItemId,
        if_match: Option<&str>,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, GraphError> {
        let url = self
            .endpoints
            .graph_url(&Endpoints::item_path(drive, item)?)?;
        let mut call = Call::change(Method::DELETE, url, "/drives/{drive}/items/{item}");
        // The tags of what stands for a file of another drive are that file's.
        if let Some(tag) = if_match.filter(|_| self.link(drive, item).is_none()) {
            call = call.tag(IF_MATCH, tag)?;
        }
        match self.send_if(&call, is_wanted).await {
            Ok(answer) => Ok(answer.is_some()),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Starts a copy at the service, possibly into another drive. Personal drives do not take a
    /// wish for what happens when the name is taken; look at the name of what was made.
    ///
    /// # Errors
    /// As every change.
    pub async fn copy_item(
        &self,
        drive: &DriveId,
        item: &ItemId,
        to: &(DriveId, ItemId),
        name: &str,
        on_conflict: Option<OnConflict>,
    ) -> Result<CopyMonitor, GraphError> {
        let mut path = format!("{}/copy", Endpoints::item_path(drive, item)?);
        if let Some(behaviour) = on_conflict {
            path.push_str("?@microsoft.graph.conflictBehavior=");
            path.push_str(behaviour.as_str());
        }
        let url = self.endpoints.graph_url(&path)?;
        let body = json!({
            "name": name,
            "parentReference": { "driveId": to.0.as_str(), "id": to.1.as_str() },
        });
        let call = Call::change(Method::POST, url, "/drives/{drive}/items/{item}/copy")
            .json(&body)?
            .header(PREFER, HeaderValue::from_static("respond-async"));
        let answer = self.send(&call).await?;
        let monitor = answer
            .location()
            .ok_or_else(|| answer.malformed("a copy without monitor"))?;
        self.endpoints.check_content_url(monitor)?;
        Ok(CopyMonitor(SecretString::from(monitor)))
    }

    /// Asks how a copy is going.
    ///
    /// # Errors
    /// No answer, or a monitor that is gone.
    pub async fn copy_status(&self, monitor: &CopyMonitor) -> Result<CopyStatus, GraphError> {
        let url = self
            .endpoints
            .check_content_url(monitor.0.expose_secret())?;
        let call = Call::get(url, "copy monitor");
        let pass = self.throttle.pass().await;
        let asked = self.attempt_inner(&call, None, &pass).await;
        drop(pass);
        let answer = match asked {
            // A monitor of Graph itself may want to know who asks.
            Err(error) if error.status() == Some(401) && self.endpoints.is_graph(&call.url) => {
                self.send(&call).await?
            }
            result => result?,
        };
        if answer.status.is_redirection() {
            return Ok(CopyStatus::Completed {
                item: answer.location().and_then(item_id_of),
            });
        }
        Ok(copy_status_of(&answer.json()?, &answer))
    }

    /// Reads an item through its address below the root of Graph.
    pub(crate) async fn item_at(
        &self,
        path: &str,
        route: &'static str,
    ) -> Result<RemoteItem, GraphError> {
        item_of(&self.get(path, route).await?)
    }
}

/// The body of a change of an item.
fn patch_body(patch: &ItemPatch) -> Value {
    let mut body = Map::new();
    if let Some(name) = &patch.name {
        body.insert("name".to_owned(), name.clone().into());
    }
    if let Some(parent) = &patch.parent {
        body.insert(
            "parentReference".to_owned(),
            json!({ "id": parent.as_str() }),
        );
    }
    let times = [
        ("createdDateTime", patch.created),
        ("lastModifiedDateTime", patch.modified),
    ];
    let times: Map<String, Value> = times
        .into_iter()
        .filter_map(|(key, time)| Some((key.to_owned(), time?.to_service().into())))
        .collect();
    if !times.is_empty() {
        body.insert("fileSystemInfo".to_owned(), times.into());
    }
    if patch.replace {
        let key = "@microsoft.graph.conflictBehavior".to_owned();
        body.insert(key, OnConflict::Replace.as_str().into());
    }
    body.into()
}

/// The item an address such as `…/items/{id}` leads to.
fn item_id_of(location: &str) -> Option<ItemId> {
    let path = location.split(['?', '#']).next()?;
    let (_, rest) = path.rsplit_once("/items/")?;
    let id = rest.split('/').next()?;
    let id = percent_encoding::percent_decode_str(id)
        .decode_utf8()
        .ok()?;
    (!id.is_empty()).then(|| ItemId::new(id))
}

/// Translates the state of a copy. A failure comes with HTTP 200 and may or may not carry an error
/// like every other.
fn copy_status_of(copy: &WireCopy, answer: &Answer) -> CopyStatus {
    let status = copy.status.as_deref().unwrap_or_default();
    if status.eq_ignore_ascii_case("completed") {
        return CopyStatus::Completed {
            item: copy.resource_id.as_deref().map(ItemId::new),
        };
    }
    let failed = ["failed", "deleteFailed"]
        .iter()
        .any(|word| status.eq_ignore_ascii_case(word));
    if !failed {
        let percent = copy
            .percentage_complete
            .filter(|p| (0.0..=100.0).contains(p));
        return CopyStatus::Running {
            percent: percent.and_then(|percent| format!("{percent:.0}").parse().ok()),
        };
    }
    let error = ServiceError::from_body(200, None, &answer.body);
    CopyStatus::Failed {
        code: copy
            .error_code
            .as_deref()
            .map(clean)
            .or_else(|| error.codes.first().cloned())
            .unwrap_or_default(),
        message: if error.message.is_empty() {
            clean(copy.status_description.as_deref().unwrap_or_default())
        } else {
            error.message
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onedrivefs_core::Timestamp;

    #[test]
    fn a_patch_names_only_what_changes() {
        let patch = ItemPatch {
            name: Some("n".to_owned()),
            modified: Timestamp::parse("2026-01-01T00:00:00.5Z"),
            ..ItemPatch::default()
        };
        assert_eq!(
            patch_body(&patch),
            json!({"name": "n", "fileSystemInfo": {"lastModifiedDateTime": "2026-01-01T00:00:00.500Z"}})
        );
        let patch = ItemPatch {
            parent: Some(ItemId::new("P")),
            replace: true,
            ..ItemPatch::default()
        };
        assert_eq!(
            patch_body(&patch),
            json!({"parentReference": {"id": "P"}, "@microsoft.graph.conflictBehavior": "replace"})
        );
    }

    #[test]
    fn locations_name_their_item() {
        let id = item_id_of("https://graph.example/v1.0/drives/d/items/AB%21c?x=1");
        assert_eq!(id, Some(ItemId::new("AB!c")));
        assert_eq!(item_id_of("https://graph.example/v1.0/me"), None);
    }
}
