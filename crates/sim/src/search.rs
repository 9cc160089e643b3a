//! The search of an organisation, as far as a client of files uses it: `POST /search/query` for drive
//! items, with the terms that find what was shared with somebody.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::access::{self, Role};
use crate::clock;
use crate::drive::{Drive, Idx, Tree};
use crate::error::{ApiError, ApiResult, json_response};
use crate::identity::Caller;
use crate::request::Req;
use crate::world::World;

/// Hits in an answer unless another number is asked for.
const SIZE: usize = 25;

/// Most hits in an answer.
const SIZE_MAX: usize = 500;

/// Names the property that holds with whom something was shared.
const SHARED_WITH: &str = "sharedwithusersowsuser:";

/// What is looked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Terms {
    /// Somebody with whom it was shared, by sign-in name.
    shared_with: Option<String>,
    /// A part of its name.
    words: Option<String>,
}

impl Terms {
    /// Reads the few terms of the query language that are known here.
    fn parse(query: &str) -> Self {
        let query = query.trim();
        let unquoted = |text: &str| text.trim_matches('"').to_lowercase();
        let is_property = query.to_ascii_lowercase().starts_with(SHARED_WITH);
        match query.get(SHARED_WITH.len()..).filter(|_| is_property) {
            Some(user) => Self {
                shared_with: Some(unquoted(user)),
                words: None,
            },
            None => Self {
                shared_with: None,
                words: Some(unquoted(query)),
            },
        }
    }
}

/// `POST /search/query`.
pub(crate) async fn query(
    world: &World,
    caller: &Caller,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let body = req.json().await?;
    let user = caller.user.as_deref().ok_or_else(|| {
        ApiError::new(
            400,
            "BadRequest",
            "SearchRequest Invalid (Region is required when request with application permission.)",
        )
    })?;
    let own = world.drives_of(user);
    if own.iter().any(|drive| !drive.tree.lock().is_business()) {
        return Err(ApiError::new(
            400,
            "BadRequest",
            "This API is not supported for MSA accounts",
        ));
    }
    let requests = body["requests"].as_array().cloned().unwrap_or_default();
    let [request] = requests.as_slice() else {
        return Err(ApiError::new(400, "BadRequest", "SearchRequest Invalid"));
    };
    if request["entityTypes"] != json!(["driveItem"]) {
        return Err(ApiError::unsupported());
    }
    let text = request["query"]["queryString"].as_str().unwrap_or_default();
    let number = |key: &str, otherwise| {
        let number = request[key].as_u64();
        number.map_or(otherwise, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let (from, size) = (number("from", 0), number("size", SIZE).min(SIZE_MAX));
    let hits = hits(world, caller, &Terms::parse(text));
    let shown: Vec<Value> = hits.iter().skip(from).take(size).cloned().collect();
    let container = json!({
        "hits": shown,
        "total": hits.len(),
        "moreResultsAvailable": from.saturating_add(size) < hits.len(),
    });
    let answer = json!({"searchTerms": [], "hitsContainers": [container]});
    Ok(json_response(200, &json!({"value": [answer]})))
}

/// Everything that the caller may see and that is looked for.
fn hits(world: &World, caller: &Caller, terms: &Terms) -> Vec<Value> {
    let wanted = |upn: &String| {
        let mut users = world.config.users.iter();
        let found = users.find(|user| user.upn.eq_ignore_ascii_case(upn));
        found.map(|user| user.id.clone())
    };
    let shared_with = terms.shared_with.as_ref().map(wanted);
    let mut found = Vec::new();
    for drive in world.all_drives() {
        let candidates: Vec<Idx> = {
            let tree = drive.tree.lock();
            match &shared_with {
                Some(Some(user)) => access::shared_tops(&tree, user),
                Some(None) => Vec::new(),
                None => named(&tree, terms.words.as_deref().unwrap_or_default()),
            }
        };
        let open = candidates
            .into_iter()
            .filter(|idx| access::of_item(world, caller, &drive, *idx) > Role::Nothing);
        let open: Vec<Idx> = open.collect();
        found.extend(open.into_iter().map(|idx| hit(world, &drive, idx)));
    }
    found
}

/// Items by a part of their names.
fn named(tree: &Tree, words: &str) -> Vec<Idx> {
    let all = Idx::try_from(tree.nodes.len()).unwrap_or(Idx::MAX);
    let matches = |idx: &Idx| {
        let node = tree.node(*idx);
        node.is_live() && node.name.to_lowercase().contains(words)
    };
    (1..all).filter(matches).collect()
}

/// A hit: what the index knows of an item, which is not whether it is a folder.
fn hit(world: &World, drive: &Drive, idx: Idx) -> Value {
    let tree = drive.tree.lock();
    let node = tree.node(idx);
    let mut parent = json!({"driveId": tree.drive_id});
    parent["id"] = json!(tree.id_of(node.parent));
    json!({
        "hitId": tree.id_of(idx),
        "rank": 1,
        "summary": "",
        "resource": {
            "@odata.type": "#microsoft.graph.driveItem",
            "id": tree.id_of(idx),
            "name": node.name,
            "size": node.size,
            "webUrl": format!("{}/web/{}", world.urls().content, tree.drive_id),
            "fileSystemInfo": {
                "createdDateTime": clock::iso(node.fs_created),
                "lastModifiedDateTime": clock::iso(node.fs_modified),
            },
            "parentReference": parent,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_are_read() {
        let shared = Terms::parse("SharedWithUsersOWSUSER:\"Ada@example.com\"");
        assert_eq!(shared.shared_with.as_deref(), Some("ada@example.com"));
        let words = Terms::parse("Plan");
        assert_eq!(
            (words.shared_with, words.words.as_deref()),
            (None, Some("plan"))
        );
    }
}
