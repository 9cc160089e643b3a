//! Items, listings and the change feed.

use onedrivefs_core::{DriveId, ItemId, RemoteItem};

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::{GraphError, RequestKind};
use crate::models::{DeltaFrom, DeltaNext, DeltaPage, ItemPage};
use crate::route;
use crate::send::{Answer, Call};
use crate::wire::{Element, WireItem, WirePage, into_items};

/// Items asked for per page of a listing: the most the service grants.
const PAGE_ITEMS: u32 = 1000;

/// Reads one item out of an answer.
pub(crate) fn item_of(answer: &Answer) -> Result<RemoteItem, GraphError> {
    let item = answer.json::<WireItem>()?.into_item();
    item.ok_or_else(|| answer.malformed("an item without id"))
}

/// Reads one item out of the answer to a change, which may describe it or not.
pub(crate) fn item_if_told(answer: &Answer) -> Option<RemoteItem> {
    let item = answer.json::<WireItem>().ok()?;
    item.into_item()
}

impl GraphClient {
    /// The root folder of a drive, with its real id.
    ///
    /// # Errors
    /// As every request.
    pub async fn root(&self, drive: &DriveId) -> Result<RemoteItem, GraphError> {
        let path = format!("{}/root", Endpoints::drive_path(drive)?);
        let mut root = item_of(&self.get(&path, "/drives/{drive}/root").await?)?;
        root.is_root = true;
        Ok(root)
    }

    /// A known folder such as `documents` or `approot`, which the service creates if need be.
    ///
    /// # Errors
    /// As every request.
    pub async fn special(&self, drive: &DriveId, name: &str) -> Result<RemoteItem, GraphError> {
        let name = route::query_value(name);
        let path = format!("{}/special/{name}", Endpoints::drive_path(drive)?);
        item_of(&self.get(&path, "/drives/{drive}/special/{name}").await?)
    }

    /// An item by its id. One that stands for a file of another drive is described as that file, with
    /// its own id, folder and name.
    ///
    /// # Errors
    /// As every request; not found when it does not exist.
    pub async fn item(&self, drive: &DriveId, item: &ItemId) -> Result<RemoteItem, GraphError> {
        if self.is_link_alone(drive, item) {
            return self.linked_file(drive, item).await;
        }
        let found = self.item_itself(drive, item).await?;
        self.with_link(drive, found).await
    }

    /// An item by its id, as it is.
    pub(crate) async fn item_itself(
        &self,
        drive: &DriveId,
        item: &ItemId,
    ) -> Result<RemoteItem, GraphError> {
        let url = self
            .endpoints
            .graph_url(&Endpoints::item_path(drive, item)?)?;
        let call = Call::get(url, "/drives/{drive}/items/{item}").with_shortcuts();
        item_of(&self.send(&call).await?)
    }

    /// A child of a folder by its name, in the service's spelling; `None` when there is none.
    ///
    /// # Errors
    /// As every request.
    pub async fn child_by_name(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
    ) -> Result<Option<RemoteItem>, GraphError> {
        let path = self.endpoints.child_path(drive, parent, name, "")?;
        let url = self.endpoints.graph_url(&path)?;
        let call = Call::get(url, "/drives/{drive}/items/{item}:/{name}").with_shortcuts();
        match self.send(&call).await {
            Ok(answer) => self.with_link(drive, item_of(&answer)?).await.map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A part of a folder's listing: the first, or the one a link leads to. Changes between the
    /// parts can hide or repeat items; merge by id.
    ///
    /// # Errors
    /// As every request.
    pub async fn children_page(
        &self,
        drive: &DriveId,
        item: &ItemId,
        next: Option<&str>,
    ) -> Result<ItemPage, GraphError> {
        let url = match next {
            Some(link) => self.endpoints.adopt_link(link)?,
            None => {
                let path = Endpoints::item_path(drive, item)?;
                let path = format!("{path}/children?$top={PAGE_ITEMS}");
                self.endpoints.graph_url(&path)?
            }
        };
        let call = Call::get(url, "/drives/{drive}/items/{item}/children").with_shortcuts();
        let answer = self.send(&call).await?;
        let page: WirePage<Element<WireItem>> = answer.json()?;
        let value = page
            .value
            .ok_or_else(|| answer.malformed("no list of items"))?;
        Ok(ItemPage {
            items: self.with_links(drive, into_items(value)).await,
            next: page.next_link.filter(|link| !link.is_empty()),
        })
    }

    /// A page of changes. Its items count only once the last page of the run has been read.
    ///
    /// # Errors
    /// As every request. A refused link asks for a resync; a drive or cloud without a change feed
    /// answers the first request with "unsupported".
    pub async fn delta_page(
        &self,
        drive: &DriveId,
        from: &DeltaFrom,
    ) -> Result<DeltaPage, GraphError> {
        let (url, kind) = match from {
            DeltaFrom::Link(link) => (self.endpoints.adopt_link(link)?, RequestKind::DeltaLink),
            DeltaFrom::Folder(folder) => {
                let path = format!("{}/delta", Endpoints::item_path(drive, folder)?);
                (self.endpoints.graph_url(&path)?, RequestKind::DeltaStart)
            }
            DeltaFrom::Start | DeltaFrom::Latest => {
                let query = match from {
                    DeltaFrom::Latest => "?token=latest",
                    _ => "",
                };
                let path = format!("{}/root/delta{query}", Endpoints::drive_path(drive)?);
                (self.endpoints.graph_url(&path)?, RequestKind::DeltaStart)
            }
        };
        let call = Call::get(url, "/drives/{drive}/root/delta")
            .with_shortcuts()
            .kind(kind);
        let answer = self.send(&call).await?;
        let page: WirePage<Element<WireItem>> = answer.json()?;
        let value = page
            .value
            .ok_or_else(|| answer.malformed("no list of items"))?;
        let filled = |link: Option<String>| link.filter(|link| !link.is_empty());
        let next = match (filled(page.next_link), filled(page.delta_link)) {
            (Some(next), _) => DeltaNext::More(next),
            (None, Some(done)) => DeltaNext::Done(done),
            (None, None) => return Err(answer.malformed("neither next nor delta link")),
        };
        Ok(DeltaPage {
            items: self.with_links(drive, into_items(value)).await,
            next,
        })
    }
}
