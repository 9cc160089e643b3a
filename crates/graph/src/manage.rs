//! What people do with items beyond the file system: search, links, versions.

use http::Method;
use onedrivefs_core::{DriveId, ItemId, RemoteItem, SecretString, Timestamp};
use serde::Deserialize;
use serde_json::json;

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::download::DownloadSource;
use crate::error::GraphError;
use crate::lenient;
use crate::models::{LinkKind, LinkScope, SharingLink, Version};
use crate::route;
use crate::send::Call;
use crate::wire::{WireIdentitySet, WireItem};

/// A permission that is a link.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WirePermission {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    link: Option<WireLink>,
    #[serde(deserialize_with = "lenient::field")]
    roles: Option<Vec<String>>,
    #[serde(deserialize_with = "lenient::text")]
    expiration_date_time: Option<String>,
}

/// The address of a link.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireLink {
    #[serde(deserialize_with = "lenient::text")]
    web_url: Option<String>,
}

/// A version.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireVersion {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::count")]
    size: Option<u64>,
    #[serde(deserialize_with = "lenient::text")]
    last_modified_date_time: Option<String>,
    #[serde(deserialize_with = "lenient::field")]
    last_modified_by: Option<WireIdentitySet>,
}

impl GraphClient {
    /// Items by words in their name or content. The index of the service lags behind.
    ///
    /// # Errors
    /// As every request.
    pub async fn search(
        &self,
        drive: &DriveId,
        query: &str,
    ) -> Result<Vec<RemoteItem>, GraphError> {
        let drive = Endpoints::drive_path(drive)?;
        let path = format!("{drive}/root/search(q='{}')", route::quoted(query));
        let found = self
            .list::<WireItem>(&path, "/drives/{drive}/root/search")
            .await?;
        Ok(found.into_iter().filter_map(WireItem::into_item).collect())
    }

    /// Makes a sharing link, or returns the one there is.
    ///
    /// # Errors
    /// As every change; permanent when a policy forbids such links.
    pub async fn create_link(
        &self,
        drive: &DriveId,
        item: &ItemId,
        kind: LinkKind,
        scope: Option<LinkScope>,
        expires: Option<Timestamp>,
    ) -> Result<SharingLink, GraphError> {
        let path = format!("{}/createLink", Endpoints::item_path(drive, item)?);
        let url = self.endpoints.graph_url(&path)?;
        let mut body = json!({
            "type": match kind {
                LinkKind::View => "view",
                LinkKind::Edit => "edit",
            },
        });
        if let Some(scope) = scope {
            body["scope"] = match scope {
                LinkScope::Anonymous => "anonymous",
                LinkScope::Organization => "organization",
                LinkScope::Users => "users",
            }
            .into();
        }
        if let Some(expires) = expires {
            body["expirationDateTime"] = expires.to_service().into();
        }
        let route = "/drives/{drive}/items/{item}/createLink";
        let call = Call::change(Method::POST, url, route).json(&body)?;
        let answer = self.send(&call).await?;
        let permission: WirePermission = answer.json()?;
        let web_url = permission.link.and_then(|link| link.web_url);
        Ok(SharingLink {
            web_url: web_url.ok_or_else(|| answer.malformed("a link without address"))?,
            permission_id: permission.id,
            expires: permission
                .expiration_date_time
                .and_then(|time| Timestamp::parse(&time)),
        })
    }

    /// Tells whether all that was granted on an item, as far as it is shown, is to read it.
    ///
    /// # Errors
    /// As every request. Not everybody may ask.
    pub async fn is_read_only(&self, drive: &DriveId, item: &ItemId) -> Result<bool, GraphError> {
        let path = format!("{}/permissions", Endpoints::item_path(drive, item)?);
        let route = "/drives/{drive}/items/{item}/permissions";
        let granted = self.list::<WirePermission>(&path, route).await?;
        let roles = |permission: &WirePermission| permission.roles.clone().unwrap_or_default();
        let told: Vec<String> = granted.iter().flat_map(roles).collect();
        Ok(!told.is_empty() && told.iter().all(|role| role.eq_ignore_ascii_case("read")))
    }

    /// The versions of a file, newest first; the first is the current one.
    ///
    /// # Errors
    /// As every request.
    pub async fn versions(
        &self,
        drive: &DriveId,
        item: &ItemId,
    ) -> Result<Vec<Version>, GraphError> {
        let (drive, item) = self.content_of(drive, item);
        let path = format!("{}/versions", Endpoints::item_path(&drive, &item)?);
        let route = "/drives/{drive}/items/{item}/versions";
        let versions = self.list::<WireVersion>(&path, route).await?;
        let known = versions.into_iter().filter_map(|version| {
            Some(Version {
                id: version.id?,
                size: version.size,
                modified: version
                    .last_modified_date_time
                    .and_then(|time| Timestamp::parse(&time)),
                author: version
                    .last_modified_by
                    .and_then(WireIdentitySet::into_name),
            })
        });
        Ok(known.collect())
    }

    /// Makes an older version the current one, which adds a version.
    ///
    /// # Errors
    /// As every change.
    pub async fn restore_version(
        &self,
        drive: &DriveId,
        item: &ItemId,
        version: &str,
    ) -> Result<(), GraphError> {
        let version = route::query_value(version);
        let item = Endpoints::item_path(drive, item)?;
        let path = format!("{item}/versions/{version}/restoreVersion");
        let url = self.endpoints.graph_url(&path)?;
        let route = "/drives/{drive}/items/{item}/versions/{version}/restoreVersion";
        self.send(&Call::change(Method::POST, url, route)).await?;
        Ok(())
    }

    /// Fetches an address to read an older version from. The current version is read through the
    /// item itself.
    ///
    /// # Errors
    /// As every request.
    pub async fn version_source(
        &self,
        drive: &DriveId,
        item: &ItemId,
        version: &str,
    ) -> Result<DownloadSource, GraphError> {
        let version = route::query_value(version);
        let (drive, item) = self.content_of(drive, item);
        let item = Endpoints::item_path(&drive, &item)?;
        let (url, via_graph) = self
            .content_location(&format!("{item}/versions/{version}"))
            .await?;
        Ok(DownloadSource::unlabelled(
            SecretString::from(url),
            via_graph,
        ))
    }
}
