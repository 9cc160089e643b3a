//! Who is signed in, and which drives there are.

use onedrivefs_core::{DriveId, Quota};
use serde::Deserialize;

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::GraphError;
use crate::lenient;
use crate::models::{DriveInfo, Me, SiteInfo};
use crate::route;
use crate::send::{Answer, Call};
use crate::wire::{Element, WireDrive, WirePage};

/// Most pages of a list of drives or sites that are followed; more is nonsense or a loop.
const LIST_PAGES_MAX: usize = 100;

/// The signed-in person.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMe {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    display_name: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    user_principal_name: Option<String>,
}

/// A site.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSite {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    display_name: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    web_url: Option<String>,
}

impl GraphClient {
    /// Who is signed in.
    ///
    /// # Errors
    /// As every request; an application without a person gets a refusal.
    pub async fn me(&self) -> Result<Me, GraphError> {
        let answer = self.get("/me", "/me").await?;
        let me: WireMe = answer.json()?;
        Ok(Me {
            id: me.id.ok_or_else(|| answer.malformed("no id"))?,
            display_name: me.display_name,
            user_principal_name: me.user_principal_name,
        })
    }

    /// The default drive of the signed-in person.
    ///
    /// # Errors
    /// As every request.
    pub async fn my_drive(&self) -> Result<DriveInfo, GraphError> {
        self.drive_at("/me/drive", "/me/drive").await
    }

    /// The drives listed for the signed-in person. The list may lack the default drive and may
    /// hold drives that answer nothing.
    ///
    /// # Errors
    /// As every request.
    pub async fn drives(&self) -> Result<Vec<DriveInfo>, GraphError> {
        let drives = self.list::<WireDrive>("/me/drives", "/me/drives").await?;
        Ok(drives
            .into_iter()
            .filter_map(WireDrive::into_info)
            .collect())
    }

    /// A drive by its id.
    ///
    /// # Errors
    /// As every request.
    pub async fn drive(&self, drive: &DriveId) -> Result<DriveInfo, GraphError> {
        let path = Endpoints::drive_path(drive)?;
        self.drive_at(&path, "/drives/{drive}").await
    }

    /// The default drive of another person, by sign-in name or id.
    ///
    /// # Errors
    /// As every request.
    pub async fn user_drive(&self, user: &str) -> Result<DriveInfo, GraphError> {
        let path = format!("/users/{}/drive", route::query_value(user));
        self.drive_at(&path, "/users/{user}/drive").await
    }

    /// The people of the organisation.
    ///
    /// # Errors
    /// As every request.
    pub async fn users(&self) -> Result<Vec<Me>, GraphError> {
        let path = "/users?$select=id,displayName,userPrincipalName&$top=500";
        let users = self.list::<WireMe>(path, "/users").await?;
        let known = users.into_iter().filter_map(|user| {
            Some(Me {
                id: user.id?,
                display_name: user.display_name,
                user_principal_name: user.user_principal_name,
            })
        });
        Ok(known.collect())
    }

    /// The document libraries of a site, by its id or its address in a browser.
    ///
    /// # Errors
    /// As every request.
    pub async fn site_drives(&self, site: &str) -> Result<Vec<DriveInfo>, GraphError> {
        let path = format!("{}/drives", Endpoints::site_path(site)?);
        let drives = self
            .list::<WireDrive>(&path, "/sites/{site}/drives")
            .await?;
        Ok(drives
            .into_iter()
            .filter_map(WireDrive::into_info)
            .collect())
    }

    /// Sites by words in their name or description.
    ///
    /// # Errors
    /// As every request.
    pub async fn search_sites(&self, query: &str) -> Result<Vec<SiteInfo>, GraphError> {
        let path = format!("/sites?search={}", route::query_value(query));
        let sites = self.list::<WireSite>(&path, "/sites?search").await?;
        let known = sites.into_iter().filter_map(|site| {
            Some(SiteInfo {
                id: site.id?,
                name: site.display_name.or(site.name),
                web_url: site.web_url,
            })
        });
        Ok(known.collect())
    }

    /// The space of a drive; `None` where the service gives no believable figures.
    ///
    /// # Errors
    /// As every request.
    pub async fn quota(&self, drive: &DriveId) -> Result<Option<Quota>, GraphError> {
        let path = Endpoints::drive_path(drive)?;
        let answer = self.get(&path, "/drives/{drive}").await?;
        Ok(answer.json::<WireDrive>()?.into_quota())
    }

    /// Reads something of Graph.
    pub(crate) async fn get(&self, path: &str, route: &'static str) -> Result<Answer, GraphError> {
        self.send(&Call::get(self.endpoints.graph_url(path)?, route))
            .await
    }

    /// Reads one drive.
    pub(crate) async fn drive_at(
        &self,
        path: &str,
        route: &'static str,
    ) -> Result<DriveInfo, GraphError> {
        let answer = self.get(path, route).await?;
        let drive = answer.json::<WireDrive>()?.into_info();
        drive.ok_or_else(|| answer.malformed("a drive without id"))
    }

    /// Reads all pages of a short list.
    pub(crate) async fn list<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        route: &'static str,
    ) -> Result<Vec<T>, GraphError> {
        let mut url = self.endpoints.graph_url(path)?;
        let mut all = Vec::new();
        for _ in 0..LIST_PAGES_MAX {
            let answer = self.send(&Call::get(url, route)).await?;
            let page: WirePage<Element<T>> = answer.json()?;
            let value = page.value.ok_or_else(|| answer.malformed("no list"))?;
            all.extend(value.into_iter().filter_map(|element| element.0));
            let Some(next) = page.next_link else {
                return Ok(all);
            };
            url = self.endpoints.adopt_link(&next)?;
        }
        tracing::warn!(route, "stopped following a list that does not end");
        Ok(all)
    }
}
