//! What others share, and where teams keep their files.

use http::HeaderValue;
use onedrivefs_core::{DriveId, ItemId, ItemKind, RemoteItem, name};
use serde::Deserialize;

use crate::client::GraphClient;
use crate::error::GraphError;
use crate::items::item_of;
use crate::lenient;
use crate::models::{Channel, DriveInfo, SharedItem, Team};
use crate::route;
use crate::send::{Call, PREFER};
use crate::wire::WireItem;

/// Lets the signed-in person in for good, if the link does that at all.
const REDEEM: HeaderValue = HeaderValue::from_static("redeemSharingLink");

/// Teams among the groups.
const ARE_TEAMS: &str = "resourceProvisioningOptions/Any(x:x eq 'Team')";

/// A team or a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireNamed {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    display_name: Option<String>,
}

impl WireNamed {
    fn known(self) -> Option<(String, String)> {
        let id = self.id.filter(|id| !id.is_empty())?;
        let name = self.display_name.unwrap_or_else(|| id.clone());
        Some((id, name))
    }
}

/// What a link to an item of another drive leads to.
fn shared(item: RemoteItem) -> Option<SharedItem> {
    let (drive, target, is_folder) = match (item.kind, item.link) {
        (ItemKind::Shortcut(target), _) => (target.drive, target.item, target.is_folder),
        (_, Some(link)) => (link.drive, link.item, false),
        _ => return None,
    };
    Some(SharedItem {
        drive,
        item: target,
        name: item.name?,
        is_folder,
    })
}

impl GraphClient {
    /// What others shared with the signed-in person, as far as the service still lists it. The list
    /// is being given up by Microsoft.
    ///
    /// # Errors
    /// As every request.
    pub async fn shared_with_me(&self) -> Result<Vec<SharedItem>, GraphError> {
        let path = "/me/drive/sharedWithMe?allowexternal=true";
        let items = self
            .list::<WireItem>(path, "/me/drive/sharedWithMe")
            .await?;
        let items = items.into_iter().filter_map(WireItem::into_item);
        Ok(items.filter_map(shared).collect())
    }

    /// What others share and has a shortcut in the root of a drive.
    ///
    /// # Errors
    /// As every request.
    pub async fn shortcuts(&self, drive: &DriveId) -> Result<Vec<SharedItem>, GraphError> {
        let root = self.root(drive).await?;
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self.children_page(drive, &root.id, next.as_deref()).await?;
            found.extend(page.items.into_iter().filter_map(shared));
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The item behind a sharing link, or behind its own address in a browser. A link that lets the
    /// signed-in person in does so from now on.
    ///
    /// # Errors
    /// As every request.
    pub async fn shared_item(&self, link: &str) -> Result<RemoteItem, GraphError> {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(link);
        let path = format!("/shares/u!{encoded}/driveItem");
        let url = self.endpoints.graph_url(&path)?;
        let call = Call::get(url, "/shares/{share}/driveItem").header(PREFER, REDEEM);
        item_of(&self.send(&call).await?)
    }

    /// A known folder of the signed-in person's drive, such as `approot`.
    ///
    /// # Errors
    /// As every request.
    pub async fn my_special(&self, name: &str) -> Result<RemoteItem, GraphError> {
        let path = format!("/me/drive/special/{}", route::query_value(name));
        self.item_at(&path, "/me/drive/special/{name}").await
    }

    /// The teams that the signed-in person is a member of.
    ///
    /// # Errors
    /// As every request.
    pub async fn joined_teams(&self) -> Result<Vec<Team>, GraphError> {
        self.teams_at("/me/joinedTeams", "/me/joinedTeams").await
    }

    /// All teams of the organisation, which an application may list.
    ///
    /// # Errors
    /// As every request.
    pub async fn all_teams(&self) -> Result<Vec<Team>, GraphError> {
        let filter = route::query_value(ARE_TEAMS);
        let path = format!("/groups?$filter={filter}&$select=id,displayName");
        self.teams_at(&path, "/groups").await
    }

    async fn teams_at(&self, path: &str, route: &'static str) -> Result<Vec<Team>, GraphError> {
        let teams = self.list::<WireNamed>(path, route).await?;
        let known = teams.into_iter().filter_map(WireNamed::known);
        Ok(known.map(|(id, name)| Team { id, name }).collect())
    }

    /// The channels of a team.
    ///
    /// # Errors
    /// As every request.
    pub async fn channels(&self, team: &str) -> Result<Vec<Channel>, GraphError> {
        let path = format!("/teams/{}/channels", route::query_value(team));
        let channels = self
            .list::<WireNamed>(&path, "/teams/{team}/channels")
            .await?;
        let known = channels.into_iter().filter_map(WireNamed::known);
        Ok(known.map(|(id, name)| Channel { id, name }).collect())
    }

    /// The folder in which a channel keeps its files. Private and shared channels have it in a drive
    /// of their own.
    ///
    /// # Errors
    /// As every request.
    pub async fn channel_folder(
        &self,
        team: &str,
        channel: &str,
    ) -> Result<RemoteItem, GraphError> {
        let (team, channel) = (route::query_value(team), route::query_value(channel));
        let path = format!("/teams/{team}/channels/{channel}/filesFolder");
        self.item_at(&path, "/teams/{team}/channels/{channel}/filesFolder")
            .await
    }

    /// The default drive of a group, which is where its team keeps the files of ordinary channels.
    ///
    /// # Errors
    /// As every request.
    pub async fn group_drive(&self, group: &str) -> Result<DriveInfo, GraphError> {
        let path = format!("/groups/{}/drive", route::query_value(group));
        self.drive_at(&path, "/groups/{group}/drive").await
    }

    /// The item at a path below a folder, with the drive it is in: shortcuts on the way are followed.
    /// `None` when there is nothing.
    ///
    /// # Errors
    /// As every request.
    pub async fn item_at_path(
        &self,
        drive: &DriveId,
        folder: &ItemId,
        path: &str,
    ) -> Result<Option<(DriveId, RemoteItem)>, GraphError> {
        let mut at = (drive.clone(), folder.clone());
        let mut found = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let (drive, parent) = &at;
            let child = self
                .child_by_name(drive, parent, &name::encode(part))
                .await?;
            let Some(child) = child else {
                return Ok(None);
            };
            let (drive, item) = match (&child.kind, &child.link) {
                (ItemKind::Shortcut(target), _) => {
                    let item = self.item(&target.drive, &target.item).await?;
                    (target.drive.clone(), item)
                }
                (_, Some(link)) => {
                    let item = self.item(&link.drive, &link.item).await?;
                    (link.drive.clone(), item)
                }
                _ => (drive.clone(), child),
            };
            at = (drive.clone(), item.id.clone());
            found = Some((drive, item));
        }
        match found {
            Some(found) => Ok(Some(found)),
            None => {
                let item = self.item(drive, folder).await?;
                Ok(Some((drive.clone(), item)))
            }
        }
    }
}
