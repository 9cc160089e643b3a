//! Sharing: the list of what others shared, links, invitations and permissions.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};

use crate::access::{self, Role};
use crate::drive::{ROOT, Tree};
use crate::error::{ApiError, ApiResult, empty, json_response};
use crate::identity::Caller;
use crate::item_json;
use crate::items;
use crate::request::Req;
use crate::target::{self, Target};
use crate::world::World;

/// Where the service's list of shared items stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedList {
    /// As it always was.
    #[default]
    Full,
    /// Only names and ids, as since November 2025.
    Reduced,
    /// Only what was shared last, as people report since then.
    Latest,
    /// It answers, and names nothing.
    Empty,
    /// Ended.
    Gone,
}

/// `GET /me/drive/sharedWithMe`.
pub(crate) fn shared_with_me(world: &World, caller: &Caller) -> ApiResult<Response<Body>> {
    let user = caller.user.as_deref().ok_or_else(target::no_me)?;
    let knobs = world.knobs.read().clone();
    if knobs.shared_list == SharedList::Gone {
        return Err(ApiError::unsupported());
    }
    let mut all = Vec::new();
    for drive in world.all_drives() {
        if drive.spec.owner == user {
            continue;
        }
        let tree = drive.tree.lock();
        for idx in access::shared_tops(&tree, user) {
            let mut remote = item_json::remote_item(&tree, idx, knobs.personal_id_quirks);
            let (id, name) = (remote["id"].clone(), remote["name"].clone());
            if knobs.shared_list == SharedList::Reduced {
                for field in ["size", "fileSystemInfo", "shared"] {
                    remote.as_object_mut().map(|fields| fields.remove(field));
                }
            }
            all.push(json!({"id": id, "name": name, "remoteItem": remote}));
        }
    }
    match knobs.shared_list {
        SharedList::Empty => all.clear(),
        SharedList::Latest => all = all.pop().into_iter().collect(),
        SharedList::Full | SharedList::Reduced | SharedList::Gone => {}
    }
    Ok(json_response(200, &json!({"value": all})))
}

/// The item that an address shown in a browser leads to, and the link's kind and scope if it is one.
fn behind(world: &World, url: &str) -> Option<(Target, Option<(String, String)>)> {
    let content = world.urls().content;
    if let Some(rest) = url.strip_prefix(&format!("{content}/share/")) {
        let (key, item) = rest.split_once('/')?;
        let (kind, scope) = key.split_once('-')?;
        let item = item.replace('~', "!");
        for drive in world.all_drives() {
            let found = {
                let tree = drive.tree.lock();
                let live = tree.find_id(&item).filter(|idx| tree.node(*idx).is_live());
                live.filter(|idx| has_link(&tree, *idx, key))
            };
            if let Some(idx) = found {
                let link = (kind.to_owned(), scope.to_owned());
                return Some((Target::item(drive, idx), Some(link)));
            }
        }
        return None;
    }
    let rest = url.strip_prefix(&format!("{content}/web/"))?;
    let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
    let drive = world.drive(&crate::route::decode(id).ok()?)?;
    let path = crate::route::decode(path).ok()?;
    let idx = drive.tree.lock().lookup(&format!("/{path}"))?;
    Some((Target::item(drive, idx), None))
}

fn has_link(tree: &Tree, idx: crate::drive::Idx, key: &str) -> bool {
    let links = tree.node(idx).extra().map(|extra| extra.links.as_slice());
    links.unwrap_or_default().iter().any(|link| link == key)
}

/// `GET /shares/{id}/…`: a sharing link, or the address of an item, in its encoded form.
pub(crate) fn share(
    world: &World,
    caller: &Caller,
    id: &str,
    tail: &[String],
    req: &Req,
) -> ApiResult<Response<Body>> {
    let missing = || ApiError::new(404, "itemNotFound", "The sharing link no longer exists.");
    let encoded = id.strip_prefix("u!").ok_or_else(missing)?;
    let url = URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()
        .and_then(|url| String::from_utf8(url).ok());
    let (target, link) = behind(world, &url.ok_or_else(missing)?).ok_or_else(missing)?;
    let idx = target.require()?;
    if access::of_item(world, caller, &target.drive, idx) == Role::Nothing {
        redeem(world, caller, &target, link, req)?;
    }
    match tail.first().map(String::as_str) {
        Some("driveItem" | "root") => items::get(world, &target, req),
        _ => Ok(json_response(200, &json!({"id": id}))),
    }
}

/// Lets somebody in by a link: for good, for one request, or not at all.
fn redeem(
    world: &World,
    caller: &Caller,
    target: &Target,
    link: Option<(String, String)>,
    req: &Req,
) -> ApiResult<()> {
    let (kind, scope) = link.ok_or_else(access::denied)?;
    let user = caller.user.as_deref().ok_or_else(access::denied)?;
    let known = world.config.users.iter().find(|known| known.id == user);
    let outsider = known.is_some_and(|known| known.tenant == "consumers");
    let open = match scope.as_str() {
        "anonymous" => true,
        "organization" => !outsider,
        _ => false,
    };
    if !open {
        return Err(access::denied());
    }
    if req.prefers("redeemSharingLinkIfNecessary") {
        return Ok(());
    }
    if !req.prefers("redeemSharingLink") {
        return Err(access::denied());
    }
    let idx = target.require()?;
    let mut tree = target.drive.tree.lock();
    access::share(&mut tree, idx, user, kind == "edit", world.now());
    Ok(())
}

/// `POST …/invite`.
pub(crate) async fn invite(
    world: &World,
    target: &Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let body = req.json().await?;
    let roles = body["roles"].as_array().cloned().unwrap_or_default();
    let write = roles.iter().any(|role| role == "write" || role == "owner");
    let recipients = body["recipients"].as_array().cloned().unwrap_or_default();
    let mut tree = target.drive.tree.lock();
    if idx == ROOT && !tree.is_business() {
        return Err(ApiError::bad_request("The root cannot be shared."));
    }
    let mut made = Vec::new();
    for recipient in recipients {
        let email = recipient["email"].as_str().unwrap_or_default();
        let users = &world.config.users;
        let user = users
            .iter()
            .find(|user| user.upn.eq_ignore_ascii_case(email));
        let user = user.ok_or_else(|| ApiError::bad_request("The recipient is not known."))?;
        access::share(&mut tree, idx, &user.id, write, world.now());
        made.push(permission(world, &user.id, write));
    }
    drop(tree);
    world.announce(&target.drive);
    Ok(json_response(200, &json!({"value": made})))
}

/// Everything below `…/permissions`.
pub(crate) fn permissions(
    world: &World,
    target: &Target,
    rest: &[&str],
    req: &Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    match (req.method.as_str(), rest) {
        ("GET", []) => {
            let tree = target.drive.tree.lock();
            let shares = tree.node(idx).extra().map(|extra| extra.shares.clone());
            let shares = shares.unwrap_or_default();
            let all: Vec<Value> = shares
                .iter()
                .map(|share| permission(world, &share.user, share.write))
                .collect();
            Ok(json_response(200, &json!({"value": all})))
        }
        ("DELETE", [id]) => {
            let mut tree = target.drive.tree.lock();
            access::unshare(&mut tree, idx, id, world.now());
            drop(tree);
            world.announce(&target.drive);
            Ok(empty(204))
        }
        _ => Err(ApiError::unsupported()),
    }
}

fn permission(world: &World, user: &str, write: bool) -> Value {
    let known = world.config.users.iter().find(|known| known.id == user);
    json!({
        "id": user,
        "roles": [if write { "write" } else { "read" }],
        "grantedToV2": {"user": {"id": user, "displayName": known.map(|known| &known.name)}},
    })
}
