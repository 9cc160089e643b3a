//! Reading routes: drives, items, listings, delta, search. Addresses become a [`Target`] here, a
//! place in a drive that may or may not be taken.

use std::collections::HashMap;

use axum::body::Body;
use http::Response;
use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value, json};

use crate::access::{self, Role};
use crate::config::{DriveSpec, Knobs, SubfolderDelta};
use crate::delta_log::{self, DeltaOptions, Token};
use crate::drive::{Drive, Idx, Kind, ROOT, Tree};
use crate::error::{ApiError, ApiResult, empty, json_response, json_text};
use crate::identity::Caller;
use crate::item_json::{self, Drawn, STRICT, Show, View};
use crate::request::Req;
use crate::target::Target;
use crate::world::World;

/// Largest page of a listing.
const MAX_TOP: usize = 1_000;

/// Everything about the requester that shapes item JSON.
pub(crate) fn render<R>(
    world: &World,
    drive: &Drive,
    view: View,
    select: Option<&[String]>,
    draw: impl FnOnce(&Tree, &Show<'_>) -> R,
) -> R {
    let knobs = world.knobs.read().clone();
    // Targets of shortcuts live in other drives, whose locks must not be taken under this one's.
    let remotes = remotes(world, drive, &knobs);
    let web = format!("{}/web/{}", world.urls().content, drive.spec.id);
    let id = drive.spec.id.clone();
    let tree = drive.tree.lock();
    let show = Show {
        view,
        select,
        knobs: &knobs,
        download_url: &|idx| world.download_url(&id, idx, 0),
        remote: &|drive, item| remotes.get(&(drive.to_owned(), item.to_owned())).cloned(),
        web: &web,
    };
    draw(&tree, &show)
}

fn remotes(world: &World, drive: &Drive, knobs: &Knobs) -> HashMap<(String, String), Value> {
    let wanted: Vec<(String, String)> = drive.tree.lock().shortcut_targets();
    let find = |(drive, item): (String, String)| {
        let target = world.drive(&drive)?;
        let tree = target.tree.lock();
        let idx = tree
            .find_id(&item)
            .filter(|idx| tree.node(*idx).is_live())?;
        let value = item_json::remote_item(&tree, idx, knobs.personal_id_quirks);
        Some(((drive, item), value))
    };
    wanted.into_iter().filter_map(find).collect()
}

/// `GET` of one item.
pub(crate) fn get(world: &World, target: &Target, req: &Req) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    if let Some(tag) = req.header("if-none-match")
        && target.drive.tree.lock().tag_matches(idx, tag)
    {
        return Ok(empty(304));
    }
    let select = req.query.select();
    let mut item = render(
        world,
        &target.drive,
        View::Get,
        select.as_deref(),
        |tree, show| item_json::item(tree, idx, show),
    );
    if req
        .query
        .get("expand")
        .is_some_and(|e| e.contains("children"))
    {
        let knobs = world.knobs.read().clone();
        let children = render(world, &target.drive, View::Children, None, |tree, show| {
            let draw = |child| item_json::item(tree, child, show);
            list(tree, idx, None, knobs.children_page_size, false, draw)
                .map(|(items, _)| items)
                .unwrap_or_default()
        });
        item["children"] = json!(children);
    }
    item["@odata.context"] = json!(format!(
        "{}/v1.0/$metadata#driveItem/$entity",
        world.urls().api
    ));
    Ok(json_response(200, &item))
}

type Listed<T> = (Vec<T>, Option<String>);

fn list<T>(
    tree: &Tree,
    idx: Idx,
    after: Option<&str>,
    size: usize,
    shortcuts: bool,
    draw: impl Fn(Idx) -> T,
) -> ApiResult<Listed<T>> {
    use std::ops::Bound;
    let node = tree.node(idx);
    let Some(children) = node.children() else {
        return match node.kind {
            Kind::Package => Ok((Vec::new(), None)),
            _ => Err(ApiError::bad_request("Unable to list children of a file.")),
        };
    };
    let from: Bound<&str> = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut items = Vec::new();
    let mut last: Option<&str> = None;
    for (key, child) in children.range::<str, _>((from, Bound::Unbounded)) {
        if !shortcuts && matches!(tree.node(*child).kind, Kind::Shortcut(_)) {
            continue;
        }
        if items.len() >= size {
            return Ok((items, last.map(str::to_owned)));
        }
        items.push(draw(*child));
        last = Some(key);
    }
    Ok((items, None))
}

/// `GET …/children`.
pub(crate) fn children(
    world: &World,
    caller: &Caller,
    target: &Target,
    req: &Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let vault = |tree: &Tree| tree.node(idx).extra().is_some_and(|e| e.vault);
    if vault(&target.drive.tree.lock()) {
        return Err(ApiError::bad_request("ObjectHandle is Invalid").inner("invalidResourceId"));
    }
    if req.query.get("filter").is_some() {
        return Err(ApiError::new(
            400,
            "invalidQueryOption",
            "$filter is not supported here.",
        ));
    }
    let top = req.query.number("top")?;
    let size = top
        .unwrap_or(world.knobs.read().children_page_size)
        .clamp(1, MAX_TOP);
    let select = req.query.select();
    let after = req.query.get("skiptoken").map(decode_skip).transpose()?;
    let shortcuts = req.prefers("Include-Feature=AddToOneDrive");
    let order = req.query.get("orderby").map(str::to_owned);
    let (mut items, next) = render(
        world,
        &target.drive,
        View::Children,
        select.as_deref(),
        |tree, show| {
            let draw = |child| Drawn::item(tree, child, show);
            list(tree, idx, after.as_deref(), size, shortcuts, draw)
        },
    )?;
    keep_seen(caller, &target.drive, &mut items);
    if order.is_some_and(|o| o.to_lowercase().contains("name desc")) {
        items.reverse();
    }
    let mut about = Map::new();
    about.insert("@odata.count".to_owned(), json!(items.len()));
    if let Some(next) = next {
        let id = target.drive.tree.lock().id_of(idx);
        let mut link = format!(
            "{}/v1.0/drives/{}/items/{id}/children?$top={size}",
            world.urls().api,
            utf8_percent_encode(&target.drive.spec.id, STRICT),
        );
        if let Some(select) = req.query.get("select") {
            link += &format!("&$select={}", utf8_percent_encode(select, STRICT));
        }
        link += &format!("&$skiptoken={}", encode_skip(&next));
        about.insert("@odata.nextLink".to_owned(), json!(link));
    }
    Ok(json_text(200, Drawn::page(&about, &items)))
}

/// Leaves out what the caller does not see.
fn keep_seen(caller: &Caller, drive: &Drive, items: &mut Vec<Drawn>) {
    let Some(tops) = access::sight(caller, drive) else {
        return;
    };
    let tree = drive.tree.lock();
    items.retain(|item| access::sees(&tree, &tops, item.idx));
}

fn encode_skip(key: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key)
}

fn decode_skip(token: &str) -> ApiResult<String> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .ok();
    let text = bytes.and_then(|b| String::from_utf8(b).ok());
    text.ok_or_else(|| ApiError::bad_request("The skip token is not valid."))
}

/// `GET …/delta`.
pub(crate) fn delta(
    world: &World,
    caller: &Caller,
    target: &Target,
    token: Option<&str>,
    req: &Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    let knobs = world.knobs.read().clone();
    if knobs.delta_unsupported {
        let message = "Change tracking is not supported against a \
                       'microsoft.graph.driveItem' resource.";
        return Err(ApiError::bad_request(message));
    }
    let business = target.drive.spec.kind != crate::config::DriveKind::Personal;
    let off = knobs.subfolder_delta == SubfolderDelta::NotSupported && business;
    if idx != ROOT && off {
        return Err(ApiError::unsupported());
    }
    let id = target.drive.tree.lock().id_of(idx);
    let place = if idx == ROOT {
        "root".to_owned()
    } else {
        format!("items/{id}")
    };
    let drive_id = utf8_percent_encode(&target.drive.spec.id, STRICT).to_string();
    let base = format!("{}/v1.0/drives/{drive_id}/{place}/delta", world.urls().api);
    let now = world.now();
    let token = token.or_else(|| req.query.get("token"));
    let (token, latest) = start_token(target, idx, token, req, &knobs, now, &base)?;
    let options = DeltaOptions {
        shortcuts: req.prefers("Include-Feature=AddToOneDrive"),
        exclude_parents: req.header("deltaexcludeparent").is_some(),
    };
    let select: Option<Vec<String>> = (!token.select.is_empty()).then(|| {
        token
            .select
            .split(',')
            .map(|s| s.trim().to_owned())
            .collect()
    });
    let mut page = render(
        world,
        &target.drive,
        View::Delta,
        select.as_deref(),
        |tree, show| {
            if latest {
                return delta_log::Page {
                    items: Vec::new(),
                    token,
                    done: true,
                };
            }
            delta_log::page(tree, token, show, options, now)
        },
    );
    keep_seen(caller, &target.drive, &mut page.items);
    let encoded = page.token.encode();
    let link = if knobs.delta_function_links {
        format!("{base}(token='{encoded}')")
    } else {
        format!("{base}?token={encoded}")
    };
    let key = if page.done {
        "@odata.deltaLink"
    } else {
        "@odata.nextLink"
    };
    let context = format!("{}/v1.0/$metadata#Collection(driveItem)", world.urls().api);
    let mut about = Map::new();
    about.insert("@odata.context".to_owned(), json!(context));
    about.insert(key.to_owned(), json!(link));
    Ok(json_text(200, Drawn::page(&about, &page.items)))
}

fn start_token(
    target: &Target,
    folder: Idx,
    token: Option<&str>,
    req: &Req,
    knobs: &Knobs,
    now: i64,
    fresh: &str,
) -> ApiResult<(Token, bool)> {
    let tree = target.drive.tree.lock();
    let new = |from: u64, full: bool| -> ApiResult<Token> {
        Ok(Token {
            epoch: tree.epoch,
            from,
            start: if full { tree.seq } else { from },
            full,
            primed: false,
            folder,
            issued_ms: now,
            top: req.query.number("top")?.unwrap_or(0).min(MAX_TOP),
            select: req.query.get("select").unwrap_or_default().to_owned(),
        })
    };
    match token {
        None | Some("") => Ok((new(0, true)?, false)),
        Some("latest") => Ok((new(tree.seq, false)?, true)),
        Some(text) => {
            if let Some(token) = Token::decode(text) {
                delta_log::check(&tree, &token, knobs, now, fresh)?;
                if token.folder != folder {
                    return Err(ApiError::bad_request("The token is for another folder."));
                }
                return Ok((token, false));
            }
            match crate::clock::parse_iso(text) {
                Some(since) if tree.is_business() => {
                    Ok((new(delta_log::since(&tree, since), false)?, false))
                }
                _ => Err(ApiError::bad_request("The token is not valid.")),
            }
        }
    }
}

/// `GET …/search(q='…')`.
pub(crate) fn search(
    world: &World,
    caller: &Caller,
    drive: &Drive,
    query: &str,
    req: &Req,
) -> Response<Body> {
    let reached = |idx: &Idx| access::of_item(world, caller, drive, *idx) > Role::Nothing;
    let whole = access::of_drive(world, caller, drive) > Role::Nothing;
    let all = drive.tree.lock().nodes.len() as Idx;
    let open: Vec<Idx> = (1..all).filter(|idx| whole || reached(idx)).collect();
    let wanted = query.to_lowercase();
    let select = req.query.select();
    let items: Vec<Value> = render(
        world,
        drive,
        View::Children,
        select.as_deref(),
        |tree, show| {
            let hit = |idx: &Idx| {
                let node = tree.node(*idx);
                node.is_live() && node.name.to_lowercase().contains(&wanted)
            };
            let hits = open.iter().copied().filter(hit).take(MAX_TOP);
            hits.map(|idx| item_json::item(tree, idx, show)).collect()
        },
    );
    json_response(200, &json!({"value": items}))
}

/// A drive as JSON.
pub(crate) fn drive_json(world: &World, caller: &Caller, drive: &Drive) -> Value {
    let whole = access::of_drive(world, caller, drive) > Role::Nothing;
    let tree = drive.tree.lock();
    let DriveSpec {
        id,
        name,
        owner,
        quota,
        ..
    } = &drive.spec;
    let quota = tree.quota.max(u64::from(*quota == 0));
    let remaining = tree.remaining();
    let state = match remaining.saturating_mul(100) / quota.max(1) {
        _ if remaining == 0 => "exceeded",
        0 => "critical",
        1..10 => "nearing",
        _ => "normal",
    };
    let user = world.config.users.iter().find(|u| u.id == *owner);
    let group = world.config.groups.iter().find(|g| g.id == *owner);
    let owner = match user {
        None if let Some(group) = group => {
            json!({"group": {"id": owner, "displayName": group.name}})
        }
        Some(user) => json!({"user": {"id": user.id, "displayName": user.name, "email": user.upn}}),
        None => json!({"group": {"id": owner, "displayName": name}}),
    };
    let mut out = json!({
        "id": id,
        "driveType": tree.kind.as_str(),
        "name": name,
        "owner": owner,
        "webUrl": format!("{}/web/{id}", world.urls().content),
        "quota": {
            "total": quota,
            "used": tree.used,
            "remaining": remaining,
            "deleted": tree.bin,
            "state": state,
        },
    });
    if tree.is_business() {
        out["quota"]["fileCount"] = json!(tree.live);
    }
    // Of somebody else's drive the space is not told.
    let untold = !whole && !tree.is_business();
    if !whole && tree.is_business() {
        out["quota"] =
            json!({"total": 0, "used": 0, "remaining": 0, "deleted": 0, "state": "normal"});
    }
    if (world.knobs.read().quota_missing || untold)
        && let Some(fields) = out.as_object_mut()
    {
        fields.remove("quota");
    }
    out
}
