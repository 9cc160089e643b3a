//! Looking for what others shared in the search of an organisation, which is to take the place of the
//! list that Microsoft gives up.
//!
//! The search answers from an index: what is in it may be gone, and whether something is a folder it
//! does not always tell. So what it finds is asked for before it counts. Personal accounts have no
//! such search.

use futures_util::{StreamExt as _, TryStreamExt as _};
use http::Method;
use onedrivefs_core::{DriveId, ItemKind, RemoteItem};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::GraphClient;
use crate::error::GraphError;
use crate::lenient;
use crate::models::SharedItem;
use crate::send::{Call, Repeat};
use crate::wire::WireItem;

/// Hits asked for at once.
const PAGE: usize = 100;

/// Most hits that are looked at: each may cost a request.
const HITS_MAX: usize = 500;

/// Hits that are looked at at a time.
const LOOKS: usize = 8;

/// An answer to a search.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireAnswers {
    #[serde(deserialize_with = "lenient::list")]
    value: Vec<WireAnswer>,
}

/// The answer to one of the requests.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireAnswer {
    #[serde(deserialize_with = "lenient::list")]
    hits_containers: Vec<WireHits>,
}

/// Some of what was found.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireHits {
    #[serde(deserialize_with = "lenient::list")]
    hits: Vec<WireHit>,
    #[serde(deserialize_with = "lenient::field")]
    more_results_available: Option<bool>,
}

/// One that was found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireHit {
    #[serde(deserialize_with = "lenient::field")]
    resource: Option<WireItem>,
}

/// A part of what was found.
#[derive(Debug, Default)]
struct Page {
    items: Vec<RemoteItem>,
    /// How many there were, with those that cannot be used.
    hits: usize,
    /// Whether there are more.
    more: bool,
}

/// What is asked for: the property of the index that holds with whom an item was shared.
fn shared_with(principal: &str, from: usize) -> Value {
    // A quote would end the name, and no sign-in name has one.
    let principal = principal.replace('"', "");
    json!({"requests": [{
        "entityTypes": ["driveItem"],
        "query": {"queryString": format!("SharedWithUsersOWSUSER:\"{principal}\"")},
        "from": from,
        "size": PAGE,
    }]})
}

impl GraphClient {
    /// What others shared with somebody, by sign-in name, and what of it the caller may see, as far as
    /// the search of the organisation knows of it.
    ///
    /// # Errors
    /// As every request; personal accounts and applications get a refusal.
    pub async fn search_shared(&self, principal: &str) -> Result<Vec<SharedItem>, GraphError> {
        let mut found: Vec<SharedItem> = Vec::new();
        let mut from = 0;
        loop {
            let page = self.search_page(&shared_with(principal, from)).await?;
            from += page.hits;
            let looks = page.items.into_iter().map(|hit| self.look_at(hit));
            let looks: Vec<Option<SharedItem>> = futures_util::stream::iter(looks)
                .buffered(LOOKS)
                .try_collect()
                .await?;
            found.extend(looks.into_iter().flatten());
            if page.hits == 0 || !page.more || from >= HITS_MAX {
                return Ok(found);
            }
        }
    }

    async fn search_page(&self, body: &Value) -> Result<Page, GraphError> {
        let url = self.endpoints.graph_url("/search/query")?;
        let call = Call::change(Method::POST, url, "/search/query").json(body)?;
        // It changes nothing.
        let call = Call {
            repeat: Repeat::Safe,
            ..call
        };
        let answers: WireAnswers = self.send(&call).await?.json()?;
        let containers = answers.value.into_iter().flat_map(|it| it.hits_containers);
        let mut page = Page::default();
        for container in containers {
            page.more |= container.more_results_available == Some(true);
            page.hits += container.hits.len();
            let hits = container.hits.into_iter();
            page.items
                .extend(hits.filter_map(|hit| hit.resource?.into_item()));
        }
        Ok(page)
    }

    /// What a hit is; `None` when it is not there any more.
    async fn look_at(&self, hit: RemoteItem) -> Result<Option<SharedItem>, GraphError> {
        let Some(drive) = hit.drive.clone() else {
            return Ok(None);
        };
        if let ItemKind::File | ItemKind::Folder = hit.kind {
            return Ok(shared_item(drive, hit));
        }
        match self.item(&drive, &hit.id).await {
            Ok(item) => Ok(shared_item(drive, item)),
            Err(error) if error.is_not_found() || error.status() == Some(403) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn shared_item(drive: DriveId, item: RemoteItem) -> Option<SharedItem> {
    Some(SharedItem {
        drive,
        is_folder: item.kind == ItemKind::Folder,
        item: item.id,
        name: item.name?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let body = shared_with("a\" OR \"b@example.com", 100);
        let request = &body["requests"][0];
        assert_eq!(
            request["query"]["queryString"],
            "SharedWithUsersOWSUSER:\"a OR b@example.com\""
        );
        assert_eq!(request["from"], 100);
    }
}
