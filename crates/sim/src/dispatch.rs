//! From a parsed address to the route that serves it. Batches come back in here for each of their
//! parts.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Response};
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};

use crate::access::{self, Role};
use crate::actor::{self, Actor};
use crate::drive::Drive;
use crate::error::{ApiError, ApiResult, empty, json_response, redirect};
use crate::identity::{self, Caller};
use crate::item_json::STRICT;
use crate::request::Req;
use crate::route::{DriveRef, ItemPath, Route};
use crate::target::{self, Target};
use crate::world::World;
use crate::{
    batch, changes, clouds, copy, download, items, push, scopes, search, sharing, teams, throttle,
    uploads, versions,
};

/// Prefixes under which the file API is served. SharePoint's own root speaks the same language.
const ROOTS: [&str; 4] = ["/v1.0", "/v2.0", "/_api/v2.0", "/beta"];

/// The part of a raw path below the API version.
pub(crate) fn api_path(path: &str) -> Option<&str> {
    ROOTS.iter().find_map(|root| {
        path.strip_prefix(root)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The name under which a request is counted and faults are scripted.
pub(crate) fn operation(method: &Method, route: &ApiResult<Route>) -> &'static str {
    let Ok(route) = route else { return "invalid" };
    match route {
        Route::Batch => "batch",
        Route::User(_) | Route::Users => "user",
        Route::Group(_) | Route::Groups => "groups",
        Route::JoinedTeams | Route::Team(..) => "teams",
        Route::Drive(_) => "drive",
        Route::Drives(_) => "drives",
        Route::SharedWithMe => "shared_with_me",
        Route::Search(..) | Route::SearchQuery => "search",
        Route::Share(..) => "share",
        Route::Site(_) | Route::Sites => "site",
        Route::Subscriptions(_) => "subscription",
        Route::Item(_, _, tail) => item_operation(method, tail),
    }
}

fn item_operation(method: &Method, tail: &[String]) -> &'static str {
    let get = *method == Method::GET;
    match tail.first().map(String::as_str) {
        None if get => "item",
        None if *method == Method::PATCH => "patch",
        None if *method == Method::DELETE => "delete",
        None => "put_item",
        Some("children") if get => "children",
        Some("children") => "mkdir",
        Some("content") if get || *method == Method::HEAD => "content",
        Some("content") => "put_content",
        Some("createUploadSession") => "create_session",
        Some("delta") => "delta",
        Some("copy") => "copy",
        Some("createLink") => "create_link",
        Some("permissions" | "invite") => "permissions",
        Some("versions") => "versions",
        Some("thumbnails") => "thumbnails",
        Some("subscriptions") => "socketio",
        Some("permanentDelete") => "permanent_delete",
        Some("restore") => "restore",
        Some("checkout" | "checkin") => "checkout",
        Some(_) => "other",
    }
}

/// Serves a Graph request that has passed the fault plan.
pub(crate) async fn graph(
    world: &Arc<World>,
    op: &'static str,
    route: Route,
    req: Req,
) -> ApiResult<Response<Body>> {
    let caller = identity::caller(world, req.header("authorization"))?;
    let limit = world.knobs.read().ru_per_minute;
    let mut extra = Vec::new();
    if let Some(limit) = limit {
        let cost = throttle::cost(op, &req.query.raw);
        extra = world.throttle.lock().charge(cost, limit, world.now())?;
    }
    let by = Actor::of(world, &caller);
    let served = actor::serving(by, authorized(world, &caller, route, req));
    let mut response = served.await?;
    for (name, value) in extra {
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

async fn authorized(
    world: &Arc<World>,
    caller: &Caller,
    route: Route,
    req: Req,
) -> ApiResult<Response<Body>> {
    clouds::graph(world, caller, &route, &req)?;
    scopes::check(world, caller, &route, &req.method)?;
    match route {
        Route::Batch => batch::serve(world, req).await,
        Route::User(name) => user(world, caller, name.as_deref()),
        Route::Users => {
            let users = world.config.users.iter();
            let users: Vec<Value> = users.map(user_json).collect();
            Ok(json_response(200, &json!({"value": users})))
        }
        Route::Drive(name) => {
            let drive = target::drive(world, caller, &name)?;
            access::require_drive(world, caller, &drive)?;
            Ok(json_response(
                200,
                &items::drive_json(world, caller, &drive),
            ))
        }
        Route::Drives(name) => drives(world, caller, &name),
        Route::SharedWithMe => sharing::shared_with_me(world, caller),
        Route::Groups => Ok(teams::groups(world, &req)),
        Route::Group(id) => teams::group(world, &id),
        Route::JoinedTeams => teams::joined(world, caller),
        Route::Team(id, rest) => teams::team(world, caller, &id, &rest, &req),
        Route::Search(name, query) => {
            let drive = target::drive(world, caller, &name)?;
            access::require_drive(world, caller, &drive)?;
            Ok(items::search(world, caller, &drive, &query, &req))
        }
        Route::Item(name, path, tail) => {
            let drive = target::drive(world, caller, &name)?;
            item(world, caller, drive, &path, &tail, req).await
        }
        Route::Site(name) => {
            let site = target::site(world, name.as_deref()).ok_or_else(ApiError::not_found)?;
            teams::require_site(caller, site)?;
            Ok(json_response(200, &site_json(site)))
        }
        Route::Sites => search_sites(world, caller, &req),
        Route::Share(id, tail) => sharing::share(world, caller, &id, &tail, &req),
        Route::SearchQuery => search::query(world, caller, req).await,
        Route::Subscriptions(_) => Err(ApiError::unsupported()),
    }
}

/// `GET /sites?search=`: a page of the sites that somebody sees and whose names have the words.
fn search_sites(world: &World, caller: &Caller, req: &Req) -> ApiResult<Response<Body>> {
    let search = req.query.get("search").unwrap_or_default();
    let wanted = search.to_lowercase();
    let skip = req.query.number("skiptoken")?.unwrap_or(0);
    let size = world.knobs.read().sites_page_size.max(1);
    let hits: Vec<_> = (world.config.sites.iter())
        .filter(|s| teams::sees_site(caller, s))
        .filter(|s| wanted == "*" || s.name.to_lowercase().contains(&wanted))
        .collect();
    let page: Vec<_> = hits.iter().skip(skip).take(size).collect();
    let mut answer = json!({"value": page.iter().map(|s| site_json(s)).collect::<Vec<_>>()});
    if skip + size < hits.len() {
        let search = utf8_percent_encode(search, STRICT);
        answer["@odata.nextLink"] = json!(format!(
            "{}/v1.0/sites?search={search}&$skiptoken={}",
            world.urls().api,
            skip + size
        ));
    }
    Ok(json_response(200, &answer))
}

fn user(world: &World, caller: &Caller, name: Option<&str>) -> ApiResult<Response<Body>> {
    let wanted = match name {
        Some(name) => name,
        None => caller.user.as_deref().ok_or_else(target::no_me)?,
    };
    let user = world
        .config
        .users
        .iter()
        .find(|u| u.id == wanted || u.upn.eq_ignore_ascii_case(wanted));
    let user = user.ok_or_else(|| target::no_user(wanted))?;
    Ok(json_response(200, &user_json(user)))
}

fn user_json(user: &crate::config::UserSpec) -> Value {
    json!({
        "id": user.id,
        "userPrincipalName": user.upn,
        "mail": user.upn,
        "displayName": user.name,
    })
}

fn site_json(site: &crate::config::SiteSpec) -> Value {
    json!({
        "id": site.id,
        "name": site.path.rsplit('/').next(),
        "displayName": site.name,
        "webUrl": format!("https://{}{}", site.host, site.path),
        "siteCollection": {"hostname": site.host},
    })
}

fn drives(world: &World, caller: &Caller, name: &DriveRef) -> ApiResult<Response<Body>> {
    let found: Vec<Arc<Drive>> = match name {
        DriveRef::Me => world.drives_of(caller.user.as_deref().ok_or_else(target::no_me)?),
        DriveRef::Site(name) => {
            let site = target::site(world, Some(name)).ok_or_else(ApiError::not_found)?;
            teams::require_site(caller, site)?;
            site.drives
                .iter()
                .filter_map(|id| world.drive(id))
                .collect()
        }
        other => {
            let owner = target::drive(world, caller, other)?.spec.owner.clone();
            world.drives_of(&owner)
        }
    };
    let found = access::visible(world, caller, found)?;
    let found: Vec<Value> = found
        .iter()
        .map(|drive| items::drive_json(world, caller, drive))
        .collect();
    Ok(json_response(200, &json!({"value": found})))
}

async fn item(
    world: &Arc<World>,
    caller: &Caller,
    drive: Arc<Drive>,
    path: &ItemPath,
    tail: &[String],
    req: Req,
) -> ApiResult<Response<Body>> {
    let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
    // The only route that names an item which is not live.
    if let (["restore"], crate::route::Anchor::Id(id)) = (tail.as_slice(), &path.anchor) {
        if access::of_drive(world, caller, &drive) < Role::Write {
            return Err(access::denied());
        }
        return changes::restore(world, &drive, id, req).await;
    }
    access::require_drive(world, caller, &drive)?;
    let target = target::resolve(world, drive, path, &req)?;
    let method = req.method.clone();
    permitted(world, caller, &target, &method, &tail)?;
    match (method.as_str(), tail.as_slice()) {
        ("GET", []) => items::get(world, &target, &req),
        ("PATCH", []) => changes::patch(world, caller, target, req).await,
        ("DELETE", []) => changes::delete(world, &target, &req, false),
        ("PUT", []) => changes::put_item(world, target, req).await,
        ("GET", ["children"]) => items::children(world, caller, &target, &req),
        ("POST", ["children"]) => changes::mkdir(world, caller, target, req).await,
        ("GET" | "HEAD", ["content"]) => content(world, &target, &req),
        ("PUT", ["content"]) => changes::put_content(world, target, req).await,
        ("POST", ["createUploadSession"]) => uploads::create(world, target, req).await,
        ("GET", ["delta"]) => items::delta(world, caller, &target, None, &req),
        ("GET", ["delta", token]) => items::delta(world, caller, &target, Some(token), &req),
        ("POST", ["copy"]) => copy::start(world, caller, target, req).await,
        ("POST", ["createLink"]) => changes::create_link(world, target, req).await,
        ("POST", ["permanentDelete"]) => changes::delete(world, &target, &req, true),
        ("POST", ["checkout" | "checkin"]) => {
            target.require()?;
            Ok(empty(204))
        }
        (_, ["versions", rest @ ..]) => versions::serve(world, &target, rest, &req),
        (_, ["permissions", rest @ ..]) => sharing::permissions(world, &target, rest, &req),
        ("POST", ["invite"]) => sharing::invite(world, &target, req).await,
        ("GET", ["thumbnails", ..]) => Ok(json_response(200, &json!({"value": []}))),
        ("GET", ["subscriptions", "socketIo"]) => push::subscribe(world, caller, &target),
        _ => Err(ApiError::new(
            405,
            "notSupported",
            "The operation is not supported here.",
        )),
    }
}

/// Refuses what the caller may not do with an item, or in the folder in which it would be made.
fn permitted(
    world: &World,
    caller: &Caller,
    target: &Target,
    method: &Method,
    tail: &[&str],
) -> ApiResult<()> {
    let place = match target.found {
        Some(idx) => idx,
        None => target.place()?.0,
    };
    let reads = *method == Method::GET || *method == Method::HEAD || tail == ["copy"];
    // A channel is for a whole drive, and open to whoever reaches something in it.
    if tail.first() == Some(&"subscriptions") {
        return Ok(());
    }
    let role = if reads { Role::Read } else { Role::Write };
    access::require(world, caller, &target.drive, place, role)
}

fn content(world: &World, target: &Target, req: &Req) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let (body, malware) = {
        let tree = target.drive.tree.lock();
        let node = tree.node(idx);
        if let Some(tag) = req.header("if-none-match")
            && tree.tag_matches(idx, tag)
        {
            return Ok(empty(304));
        }
        let malware = node.extra().is_some_and(|e| e.malware);
        (node.file().map(|f| f.body.clone()), malware)
    };
    let body = body.ok_or_else(ApiError::not_found)?;
    if malware {
        return Err(
            ApiError::new(403, "malwareDetected", "The file is infected.")
                .header("x-virus-infected", "Trojan:Simulated/Harmless"),
        );
    }
    if world.knobs.read().content_direct {
        return Ok(download::ranged(body, req, world.knobs.read().ignore_range));
    }
    Ok(redirect(
        302,
        &world.download_url(&target.drive.spec.id, idx, 0),
    ))
}
