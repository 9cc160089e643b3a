//! Writing routes: what a client may change, under which conditions, and what it gets back.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::access::{self, Role};
use crate::body::FileBody;
use crate::clock::parse_iso;
use crate::config::DriveKind;
use crate::drive::{Conflict, Content, Drive, FsTimes, Idx, Kind, ROOT, Remote, Tree};
use crate::error::{ApiError, ApiResult, empty, json_response};
use crate::identity::Caller;
use crate::item_json::{self, View};
use crate::items;
use crate::request::Req;
use crate::spool::Spool;
use crate::target::Target;
use crate::uploads::{self, Goal};
use crate::world::World;

/// Largest body of a simple upload: 250 MB.
const MAX_PUT: u64 = 250_000_000;

/// The `@microsoft.graph.conflictBehavior` annotation.
const CONFLICT: &str = "@microsoft.graph.conflictBehavior";

/// An item as mutations return it.
pub(crate) fn show(world: &World, drive: &Drive, idx: Idx) -> Value {
    items::render(world, drive, View::Get, None, |tree, show| {
        item_json::item(tree, idx, show)
    })
}

pub(crate) fn announce(world: &World, drive: &Drive) {
    world.announce(drive);
}

/// The times in a request's `fileSystemInfo`.
pub(crate) fn fs_times(body: &Value) -> ApiResult<FsTimes> {
    let info = &body["fileSystemInfo"];
    let time = |key: &str| match info[key].as_str() {
        None => Ok(None),
        Some(text) => parse_iso(text).map(Some).ok_or_else(|| {
            ApiError::bad_request("The date is not valid.").inner("invalidParameterFormat")
        }),
    };
    Ok(FsTimes {
        created: time("createdDateTime")?,
        modified: time("lastModifiedDateTime")?,
    })
}

/// Whether the service may change such a file after taking it.
pub(crate) fn is_rewritten(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    let extension = extension.unwrap_or_default();
    matches!(
        extension.as_str(),
        "docx" | "xlsx" | "pptx" | "pdf" | "html" | "htm" | "aspx" | "jpg" | "jpeg"
    )
}

/// `If-Match` and `If-None-Match` of a writing request.
pub(crate) fn check_preconditions(tree: &Tree, found: Option<Idx>, req: &Req) -> ApiResult<()> {
    let refusal = || {
        if tree.classic {
            return ApiError::new(
                412,
                "notAllowed",
                "ETag does not match current item's value.",
            )
            .inner("entityTagDoesNotMatch");
        }
        ApiError::precondition()
    };
    if let Some(tag) = req.header("if-match")
        && !found.is_some_and(|idx| tree.tag_matches(idx, tag))
    {
        return Err(refusal());
    }
    if let Some(tag) = req.header("if-none-match")
        && found.is_some_and(|idx| tree.tag_matches(idx, tag))
    {
        return Err(refusal());
    }
    Ok(())
}

/// A finished upload.
pub(crate) struct Commit<'a> {
    pub(crate) goal: Goal,
    pub(crate) conflict: Conflict,
    pub(crate) times: FsTimes,
    pub(crate) body: FileBody,
    pub(crate) hash: [u8; 20],
    /// Tags that the target must still have.
    pub(crate) guards: &'a [Option<&'a str>],
}

/// Puts uploaded content in its place: the item and 200 or 201.
pub(crate) fn commit(world: &World, drive: &Drive, commit: Commit<'_>) -> ApiResult<(Idx, u16)> {
    let content = Content {
        body: commit.body,
        hash: Some(commit.hash),
        times: commit.times,
        now: world.now(),
    };
    let made = {
        let mut tree = drive.tree.lock();
        let found = match &commit.goal {
            Goal::Item(idx) if tree.node(*idx).is_live() => Some(*idx),
            Goal::Item(_) => return Err(ApiError::not_found()),
            Goal::Name(parent, _) if !tree.node(*parent).is_live() => {
                return Err(ApiError::not_found());
            }
            Goal::Name(parent, name) => tree.child(*parent, name),
        };
        for guard in commit.guards.iter().flatten() {
            if !found.is_some_and(|idx| tree.tag_matches(idx, guard)) {
                return Err(ApiError::precondition());
            }
        }
        match (found, commit.goal, commit.conflict) {
            (Some(idx), _, Conflict::Replace) | (Some(idx), Goal::Item(_), _) => {
                tree.replace(idx, content)?;
                (idx, 200)
            }
            (Some(_), _, Conflict::Fail) => return Err(ApiError::exists()),
            (Some(_), Goal::Name(parent, name), Conflict::Rename) => {
                let name = tree.free_name(parent, &name);
                (tree.add_file(parent, &name, content)?, 201)
            }
            (None, Goal::Name(parent, name), _) => (tree.add_file(parent, &name, content)?, 201),
            (None, Goal::Item(_), _) => return Err(ApiError::not_found()),
        }
    };
    world.announce(drive);
    Ok(made)
}

/// `PUT …/content`.
pub(crate) async fn put_content(
    world: &World,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let conflict = Conflict::parse(req.query.get(CONFLICT), Conflict::Replace)?;
    let goal = {
        let tree = target.drive.tree.lock();
        check_preconditions(&tree, target.found, &req)?;
        match target.found {
            Some(idx) if target.by_id => Goal::Item(idx),
            _ => {
                let (parent, name) = target.place()?;
                Goal::Name(parent, name)
            }
        }
    };
    let length = req.header("content-length").and_then(|l| l.parse().ok());
    if length.is_some_and(|length: u64| length > MAX_PUT) {
        return Err(ApiError::new(
            413,
            "maxFileSizeExceeded",
            "The file is too large.",
        ));
    }
    let mut spool =
        Spool::new(length, world.config.spool_dir.as_deref()).map_err(|e| ApiError::io(&e))?;
    match length {
        Some(length) => spool.fill(std::mem::take(&mut req.body), length).await?,
        None => spool.drain(std::mem::take(&mut req.body), MAX_PUT).await?,
    }
    let name = match &goal {
        Goal::Item(idx) => target.drive.tree.lock().node(*idx).name.to_string(),
        Goal::Name(_, name) => name.clone(),
    };
    let business = target.drive.spec.kind != DriveKind::Personal;
    if business && world.knobs.read().office_rewrite && is_rewritten(&name) {
        spool
            .append(b"<!-- properties promoted by the library -->")
            .await?;
    }
    let (body, hash) = spool.body();
    // The state may have changed while the body came in; the tags are checked again.
    let guards = [req.header("if-match")];
    let create_only = req.header("if-none-match") == Some("*");
    let made = commit(
        world,
        &target.drive,
        Commit {
            goal,
            conflict: if create_only {
                Conflict::Fail
            } else {
                conflict
            },
            times: FsTimes::default(),
            body,
            hash,
            guards: &guards,
        },
    );
    let (idx, status) = match made {
        Err(error) if create_only && error.status == 409 => return Err(ApiError::precondition()),
        other => other?,
    };
    Ok(json_response(status, &show(world, &target.drive, idx)))
}

/// `POST …/children`.
pub(crate) async fn mkdir(
    world: &World,
    caller: &Caller,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let parent = target.require()?;
    let body = req.json().await?;
    if body["remoteItem"].is_object() {
        return add_shortcut(world, caller, &target, &body);
    }
    if !body["folder"].is_object() {
        let message = "Only folders can be created this way.";
        return Err(ApiError::bad_request(message));
    }
    let name = body["name"].as_str().unwrap_or("New Folder").to_owned();
    let conflict = Conflict::parse(body[CONFLICT].as_str(), Conflict::Fail)?;
    let times = fs_times(&body)?;
    let now = world.now();
    let (idx, status) = {
        let mut tree = target.drive.tree.lock();
        if !tree.node(parent).is_live() {
            return Err(ApiError::not_found());
        }
        match (tree.child(parent, &name), conflict) {
            (None, _) => (tree.mkdir(parent, &name, times, now)?, 201),
            (Some(found), Conflict::Replace) if tree.node(found).is_folder() => (found, 200),
            (Some(_), Conflict::Rename) => {
                let name = tree.free_name(parent, &name);
                (tree.mkdir(parent, &name, times, now)?, 201)
            }
            (Some(_), _) => return Err(ApiError::exists()),
        }
    };
    world.announce(&target.drive);
    Ok(json_response(status, &show(world, &target.drive, idx)))
}

/// Adds a shortcut to an item of another drive.
fn add_shortcut(
    world: &World,
    caller: &Caller,
    target: &Target,
    body: &Value,
) -> ApiResult<Response<Body>> {
    let parent = target.require()?;
    let remote = &body["remoteItem"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let remote = Remote {
        drive: text(&remote["parentReference"]["driveId"]),
        item: text(&remote["id"]),
    };
    let drive = world.drive(&remote.drive).ok_or_else(ApiError::not_found)?;
    let (found, name) = {
        let tree = drive.tree.lock();
        let found = tree
            .find_id(&remote.item)
            .filter(|idx| tree.node(*idx).is_live());
        let found = found.ok_or_else(ApiError::not_found)?;
        (found, tree.node(found).name.to_string())
    };
    access::require(world, caller, &drive, found, Role::Read)?;
    let name = body["name"].as_str().map_or(name, str::to_owned);
    let conflict = Conflict::parse(body[CONFLICT].as_str(), Conflict::Fail)?;
    let now = world.now();
    let idx = {
        let mut tree = target.drive.tree.lock();
        let name = match (tree.child(parent, &name), conflict) {
            (None, _) => name,
            (Some(_), Conflict::Rename) => tree.free_name(parent, &name),
            (Some(_), _) => return Err(ApiError::exists()),
        };
        let kind = Kind::Shortcut(Box::new(remote));
        tree.insert(parent, &name, kind, FsTimes::default(), now)?
    };
    world.announce(&target.drive);
    Ok(json_response(201, &show(world, &target.drive, idx)))
}

/// `PATCH` of an item.
pub(crate) async fn patch(
    world: &World,
    caller: &Caller,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let body = req.json().await?;
    let knobs = world.knobs.read().clone();
    let times = fs_times(&body)?;
    for field in [
        "size",
        "file",
        "folder",
        "eTag",
        "cTag",
        "webUrl",
        "remoteItem",
    ] {
        if body.get(field).is_some() {
            let message = format!("The property {field} cannot be changed.");
            return Err(
                ApiError::new(400, "invalidRequest", message).inner("propertyNotUpdateable")
            );
        }
    }
    let parent = {
        let tree = target.drive.tree.lock();
        check_preconditions(&tree, Some(idx), &req)?;
        new_parent(world, &target.drive, &tree, idx, &body["parentReference"])?
    };
    if parent != target.drive.tree.lock().node(idx).parent {
        access::require(world, caller, &target.drive, parent, Role::Write)?;
    }
    {
        let mut tree = target.drive.tree.lock();
        if !tree.node(idx).is_live() {
            return Err(ApiError::not_found());
        }
        check_preconditions(&tree, Some(idx), &req)?;
        let now = world.now();
        let name = body["name"]
            .as_str()
            .map_or_else(|| tree.node(idx).name.to_string(), str::to_owned);
        if idx != ROOT && (parent != tree.node(idx).parent || *name != *tree.node(idx).name) {
            tree.check_unlocked(idx)?;
            relocate(&mut tree, idx, parent, &name, &body, now)?;
            if knobs.move_resets_mtime && times.modified.is_none() {
                let now = tree.stamp(now);
                tree.node_mut(idx).fs_modified = now;
            }
        }
        if times.created.is_some() || times.modified.is_some() {
            tree.check_unlocked(idx)?;
            tree.set_times(idx, times, now);
        }
        if let Some(text) = body["description"].as_str()
            && tree.kind == DriveKind::Personal
        {
            tree.node_mut(idx).extra_mut().description = Some(text.to_owned());
            tree.touch(idx, now);
        }
    }
    world.announce(&target.drive);
    if knobs.patch_no_content {
        return Ok(empty(204));
    }
    Ok(json_response(200, &show(world, &target.drive, idx)))
}

fn new_parent(
    world: &World,
    drive: &Arc<Drive>,
    tree: &Tree,
    idx: Idx,
    reference: &Value,
) -> ApiResult<Idx> {
    if let Some(id) = reference["driveId"].as_str()
        && !world
            .drive(id)
            .is_some_and(|found| Arc::ptr_eq(&found, drive))
    {
        return Err(ApiError::new(
            400,
            "notSupported",
            "Items cannot be moved between drives.",
        ));
    }
    let Some(id) = reference["id"].as_str() else {
        return match reference["path"].as_str() {
            Some(path) => {
                let (_, path) = path.split_once("root:").unwrap_or(("", ""));
                let path = crate::route::decode(path)?;
                let found = tree.lookup(&path);
                found.ok_or_else(ApiError::not_found)
            }
            None => Ok(tree.node(idx).parent),
        };
    };
    if id == "root" {
        return Err(ApiError::bad_request("The parent must be given by its id."));
    }
    let found = tree.find_id(id).filter(|p| tree.node(*p).is_live());
    found.ok_or_else(ApiError::not_found)
}

fn relocate(
    tree: &mut Tree,
    idx: Idx,
    parent: Idx,
    name: &str,
    body: &Value,
    now: i64,
) -> ApiResult<()> {
    let conflict = Conflict::parse(body[CONFLICT].as_str(), Conflict::Fail)?;
    let taken = tree.child(parent, name).filter(|found| *found != idx);
    let Some(old) = taken else {
        return tree.relocate(idx, parent, name, now);
    };
    match conflict {
        Conflict::Fail => Err(ApiError::exists()),
        Conflict::Rename => {
            let name = tree.free_name(parent, name);
            tree.relocate(idx, parent, &name, now)
        }
        Conflict::Replace => {
            if tree.node(old).is_folder() || tree.node(idx).is_folder() {
                return Err(ApiError::exists());
            }
            tree.check_unlocked(old)?;
            tree.check_name(parent, name)?;
            tree.delete(old, now, false)?;
            tree.relocate(idx, parent, name, now)
        }
    }
}

/// `DELETE` of an item.
pub(crate) fn delete(
    world: &World,
    target: &Target,
    req: &Req,
    permanent: bool,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let knobs = world.knobs.read().clone();
    {
        let mut tree = target.drive.tree.lock();
        if req.headers.contains_key("if-match") {
            if knobs.delete_if_match_fails {
                return Err(ApiError::precondition());
            }
            check_preconditions(&tree, Some(idx), req)?;
        }
        if permanent && !tree.is_business() {
            return Err(ApiError::unsupported());
        }
        let node = tree.node(idx);
        let filled = node.children().is_some_and(|c| !c.is_empty());
        if filled && node.extra().is_some_and(|e| e.held) {
            let message = "Request was cancelled by event received. If attempting to delete a \
                           non-empty folder, it's possible that it's on hold.";
            return Err(ApiError::new(403, "accessDenied", message));
        }
        tree.delete(idx, world.now(), knobs.delta_descendant_tombstones)?;
    }
    world.announce(&target.drive);
    Ok(empty(204))
}

/// `POST …/restore`.
pub(crate) async fn restore(
    world: &World,
    drive: &Arc<Drive>,
    id: &str,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    if drive.spec.kind != DriveKind::Personal {
        return Err(ApiError::unsupported());
    }
    let body = req.json().await?;
    let idx = {
        let mut tree = drive.tree.lock();
        let idx = tree.find_id(id).ok_or_else(ApiError::not_found)?;
        let parent = match body["parentReference"]["id"].as_str() {
            Some(id) => Some(tree.find_id(id).ok_or_else(ApiError::not_found)?),
            None => None,
        };
        tree.restore(idx, parent, body["name"].as_str(), world.now())?;
        idx
    };
    world.announce(drive);
    Ok(json_response(200, &show(world, drive, idx)))
}

/// `PUT` of an item whose body names a finished upload session: commits that session.
pub(crate) async fn put_item(
    world: &World,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let body = req.json().await?;
    let source = body["@microsoft.graph.sourceUrl"].as_str();
    let token = source.and_then(uploads::token_of_url).map(str::to_owned);
    let token = token.ok_or_else(|| ApiError::bad_request("A source URL is required."))?;
    let session = world
        .sessions
        .lock()
        .open
        .get(&token)
        .map(|e| e.session.clone());
    let session = session.ok_or_else(ApiError::not_found)?;
    let mut session = session.lock().await;
    let (parent, mut name) = target.place()?;
    if let Some(wanted) = body["name"].as_str() {
        name = wanted.to_owned();
    }
    session.goal = Goal::Name(parent, name);
    session.conflict = Conflict::parse(body[CONFLICT].as_str(), session.conflict)?;
    uploads::commit(world, &token, &mut session, None).await
}

/// `POST …/createLink`.
pub(crate) async fn create_link(
    world: &World,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let body = req.json().await?;
    let kind = body["type"].as_str().unwrap_or("view").to_owned();
    let scope = body["scope"].as_str().unwrap_or("anonymous").to_owned();
    let known = matches!(kind.as_str(), "view" | "edit" | "embed")
        && matches!(scope.as_str(), "anonymous" | "organization" | "users");
    let mut tree = target.drive.tree.lock();
    if !known || (scope == "organization" && !tree.is_business()) {
        return Err(ApiError::bad_request(
            "The link type or scope is not valid.",
        ));
    }
    let id = tree.id_of(idx);
    let key = format!("{kind}-{scope}");
    let links = &mut tree.node_mut(idx).extra_mut().links;
    let status = if links.contains(&key) { 200 } else { 201 };
    if status == 201 {
        links.push(key.clone());
    }
    drop(tree);
    let url = format!(
        "{}/share/{key}/{}",
        world.urls().content,
        id.replace('!', "~")
    );
    let mut answer = json!({
        "id": key,
        "roles": [if kind == "edit" { "write" } else { "read" }],
        "link": {"type": kind, "scope": scope, "webUrl": url},
    });
    if let Some(expires) = body.get("expirationDateTime") {
        answer["expirationDateTime"] = expires.clone();
    }
    Ok(json_response(status, &answer))
}
