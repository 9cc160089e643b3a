//! Scripting over HTTP, for tests that run the simulator or the client in another process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, empty, json_response, raw};
use crate::faults::FaultRule;
use crate::handle::{DriveHandle, SimError, body_from_json};
use crate::net::Reach;
use crate::request::{Query, Req};
use crate::simulator::{sessions, set_reach};
use crate::world::World;
use crate::{copy, identity, sample};

const HELP: &str = "\
Control interface of the simulator. Bodies and answers are JSON. DRIVE is a drive id or `default`.

GET    /_sim/                                   this text
GET    /_sim/urls                               addresses of the hosts
GET    /_sim/knobs        PATCH /_sim/knobs     behaviour; PATCH takes the changed ones
GET    /_sim/faults       POST /_sim/faults     rules; POST takes one and answers its id
DELETE /_sim/faults       DELETE /_sim/faults/ID
PUT    /_sim/reach        {\"reach\": \"online|offline|black_hole\"}
POST   /_sim/expire       {\"what\": [\"tokens\",\"refresh\",\"urls\",\"sessions\",\"delta\",\"sockets\"]}; all by default
POST   /_sim/advance      {\"seconds\": N}        moves the clock
POST   /_sim/devices      {\"approve\": true}     answers open device codes
POST   /_sim/token        {\"user\": \"…\"}         tokens without sign-in; {\"app\": true, \"roles\": true}
GET    /_sim/requests?after=N                   request log
DELETE /_sim/requests
GET    /_sim/counters                           per operation: requests, bytes, statuses
GET    /_sim/sessions                           open upload sessions with their offsets
GET    /_sim/monitors                           copy monitors
GET    /_sim/drives       POST /_sim/drives     drives; POST adds one
GET    /_sim/drives/DRIVE/tree                  path, id, size, hash, mtime, tags of everything
GET    /_sim/drives/DRIVE/entry?path=P          one of them, 404 if absent
GET    /_sim/drives/DRIVE/content?path=P        bytes; &version=N.0 for an older version
GET    /_sim/drives/DRIVE/versions?path=P
POST   /_sim/drives/DRIVE/put                   {\"path\", \"text\"|\"base64\"|\"size\"+\"seed\", \"mtime_ms\"?}
PUT    /_sim/drives/DRIVE/content?path=P        the same with raw bytes
POST   /_sim/drives/DRIVE/mkdir                 {\"path\"}
POST   /_sim/drives/DRIVE/rename                {\"from\", \"to\"}
POST   /_sim/drives/DRIVE/delete                {\"path\"}
POST   /_sim/drives/DRIVE/mtime                 {\"path\", \"mtime_ms\"}
POST   /_sim/drives/DRIVE/lock                  {\"path\", \"locked\"}
POST   /_sim/drives/DRIVE/malware               {\"path\", \"malware\"}
POST   /_sim/drives/DRIVE/vault                 {\"path\", \"vault\"}
POST   /_sim/drives/DRIVE/hold                  {\"path\", \"held\"}
POST   /_sim/drives/DRIVE/package               {\"path\"}
POST   /_sim/drives/DRIVE/shortcut              {\"path\", \"drive\", \"item\"}
POST   /_sim/drives/DRIVE/share                 {\"path\", \"user\", \"write\"?}; unshare {\"path\", \"user\"}
POST   /_sim/drives/DRIVE/quota                 {\"bytes\"}
POST   /_sim/drives/DRIVE/seed                  {\"items\": [{\"path\", \"folder\"|\"text\"|\"size\"…}]}
POST   /_sim/drives/DRIVE/sample                {\"files\": N?}
POST   /_sim/drives/DRIVE/expire                makes this drive's delta links stale

A fault rule: {\"op\"?, \"method\"?, \"path\"? (with *), \"skip\", \"count\"?, \"each\" (count each address
by itself), \"probability\"?, \"seed\", \"action\": {\"kind\": …}} with the kinds pass, status (status, code?, inner?, retry_after?,
form: json|html|bom|empty|raw, body?, after_effect), delay (ms), hold (until the rule is removed),
drop_before, drop_after, truncate (bytes), corrupt (offset), stall, stall_body (bytes), header
(name, value?), expire_tokens, expire_urls, expire_sessions, expire_delta.

Operations: authorize token devicecode adminconsent | user drive drives item children delta search
content create_session put_content put_item patch delete permanent_delete mkdir copy create_link
versions permissions thumbnails socketio restore share shared_with_me site groups teams batch | download upload_fragment
upload_status upload_cancel upload_commit monitor socket.
";

/// The endpoints of the control interface, as text.
pub fn control_help() -> &'static str {
    HELP
}

/// Largest raw body that `content` takes.
const BODY_LIMIT: usize = 1 << 30;

pub(crate) async fn serve(world: &Arc<World>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let req = Req {
        method: parts.method,
        path,
        query,
        headers: parts.headers,
        body,
    };
    route(world, req)
        .await
        .unwrap_or_else(ApiError::into_response)
}

fn ok(value: &Value) -> ApiResult<Response<Body>> {
    Ok(json_response(200, value))
}

async fn route(world: &Arc<World>, mut req: Req) -> ApiResult<Response<Body>> {
    let path = req.path.clone();
    let rest = path
        .strip_prefix("/_sim/")
        .ok_or_else(ApiError::not_found)?;
    let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty()).collect();
    if let ["drives", id, action] = parts.as_slice() {
        return drive(world, id, action, req).await;
    }
    if parts.as_slice() == ["drives"] {
        return drives(world, req).await;
    }
    let method = req.method.clone();
    match (method.as_str(), parts.as_slice()) {
        ("GET", []) => Ok(raw(
            200,
            "text/plain; charset=utf-8",
            HELP.as_bytes().to_vec(),
        )),
        ("GET", ["urls"]) => {
            let urls = world.urls();
            ok(&json!({
                "graph": format!("{}/v1.0", urls.api),
                "login": urls.api,
                "content": urls.content,
                "control": urls.control,
            }))
        }
        ("GET", ["knobs"]) => ok(&json!(*world.knobs.read())),
        ("PATCH" | "POST", ["knobs"]) => {
            set_knobs(world, &req.json().await?)?;
            ok(&json!(*world.knobs.read()))
        }
        (_, ["faults", ..]) => faults(world, &parts, req).await,
        ("PUT" | "POST", ["reach"]) => {
            let body = req.json().await?;
            let reach: Reach = parse(&body["reach"])?;
            set_reach(world, reach);
            Ok(empty(204))
        }
        ("POST", ["expire"]) => {
            expire(world, &req.json().await?["what"]);
            Ok(empty(204))
        }
        ("POST", ["advance"]) => {
            let seconds = req.json().await?["seconds"]
                .as_f64()
                .unwrap_or(0.0)
                .max(0.0);
            world.clock.advance(Duration::from_secs_f64(seconds));
            Ok(empty(204))
        }
        ("POST", ["devices"]) => {
            let approve = req.json().await?["approve"].as_bool().unwrap_or(true);
            let codes = world.identity.lock().answer_devices(approve);
            ok(&json!({"codes": codes}))
        }
        ("POST", ["token"]) => ok(&token(world, &req.json().await?)),
        ("GET", ["requests"]) => {
            let after = req
                .query
                .get("after")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            let records: Vec<Value> = world.log.since(after).iter().map(|r| r.to_json()).collect();
            ok(&json!(records))
        }
        ("DELETE", ["requests"]) => {
            world.log.clear();
            Ok(empty(204))
        }
        ("GET", ["counters"]) => ok(&world.log.counters()),
        ("GET", ["sessions"]) => ok(&sessions(world)),
        ("GET", ["monitors"]) => ok(&copy::list(world)),
        _ => Err(ApiError::not_found()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> ApiResult<T> {
    serde_json::from_value(value.clone()).map_err(|e| ApiError::bad_request(&e.to_string()))
}

fn set_knobs(world: &World, changes: &Value) -> ApiResult<()> {
    let mut all = json!(*world.knobs.read());
    for (key, value) in changes.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let knobs: crate::config::Knobs = parse(&all)?;
    world.set_knobs(knobs);
    Ok(())
}

async fn faults(world: &World, parts: &[&str], mut req: Req) -> ApiResult<Response<Body>> {
    let method = req.method.clone();
    match (method.as_str(), parts) {
        ("GET", ["faults"]) => ok(&json!(world.faults.list())),
        ("POST", ["faults"]) => {
            let rule: FaultRule = parse(&req.json().await?)?;
            ok(&json!({"id": world.faults.add(rule)}))
        }
        ("DELETE", ["faults"]) => {
            world.faults.clear();
            Ok(empty(204))
        }
        ("DELETE", ["faults", id]) => {
            world.faults.remove(id.parse().unwrap_or(0));
            Ok(empty(204))
        }
        _ => Err(ApiError::not_found()),
    }
}

fn expire(world: &World, what: &Value) {
    let named: Option<Vec<&str>> = what
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect());
    let wanted = |word: &str| named.as_ref().is_none_or(|list| list.contains(&word));
    if wanted("tokens") {
        world.identity.lock().expire_access();
    }
    // Revoking sign-ins goes further than expiry, so it has to be named.
    if named.as_ref().is_some_and(|list| list.contains(&"refresh")) {
        world.identity.lock().revoke_refresh();
    }
    if wanted("urls") {
        world.url_epoch.fetch_add(1, Ordering::Relaxed);
    }
    if wanted("sessions") {
        world.sessions.lock().expire_all();
    }
    if wanted("delta") {
        world.expire_delta();
    }
    if wanted("sockets") {
        world.sockets.send_modify(|n| *n += 1);
    }
}

fn token(world: &World, body: &Value) -> Value {
    let ttl = world.knobs.read().token_ttl_s;
    if body["app"].as_bool() == Some(true) {
        let roles = body["roles"].as_bool().unwrap_or(true);
        let access = identity::mint(world, None, roles);
        return json!({"access_token": access, "expires_in": ttl});
    }
    let first = world
        .config
        .users
        .first()
        .map_or("user-1", |u| u.id.as_str());
    let user = body["user"].as_str().unwrap_or(first);
    let client = body["client_id"].as_str().unwrap_or("onedrivefs");
    let scope = body["scope"].as_str().unwrap_or("Files.ReadWrite.All");
    json!({
        "access_token": identity::mint(world, Some(user.to_owned()), true),
        "refresh_token": identity::mint_refresh(world, user, client, scope),
        "expires_in": ttl,
        "scope": scope,
        "refresh_tokens": world.identity.lock().refresh_count(),
    })
}

async fn drives(world: &Arc<World>, mut req: Req) -> ApiResult<Response<Body>> {
    if req.method == Method::POST {
        let drive = world.add_drive(parse(&req.json().await?)?);
        return ok(&json!({"id": drive.spec.id}));
    }
    let drives = world.all_drives();
    let rows = drives.iter().map(|drive| {
        let tree = drive.tree.lock();
        json!({
            "id": drive.spec.id,
            "kind": drive.spec.kind,
            "name": drive.spec.name,
            "owner": drive.spec.owner,
            "items": tree.live,
            "used": tree.used,
            "quota": tree.quota,
            "changes": tree.seq,
        })
    });
    ok(&Value::Array(rows.collect()))
}

async fn drive(
    world: &Arc<World>,
    id: &str,
    action: &str,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let id = crate::route::decode(id)?;
    let found = match id.as_str() {
        "default" => world.drives.read().first().cloned(),
        id => world.drive(id),
    };
    let handle = DriveHandle::new(world.clone(), found.ok_or_else(ApiError::not_found)?);
    if req.method == Method::PUT && action == "content" {
        let path = req.query.get("path").unwrap_or_default().to_owned();
        let body = axum::body::to_bytes(std::mem::take(&mut req.body), BODY_LIMIT).await;
        let body = body.map_err(|_| ApiError::bad_request("The body could not be read."))?;
        let id = handle
            .put(&path, crate::body::FileBody::Inline(body))
            .map_err(back)?;
        return ok(&json!({"id": id}));
    }
    if req.method == Method::GET {
        return read_drive(&handle, action, &req);
    }
    let body = req.json().await?;
    write_drive(&handle, action, &body).map(|value| json_response(200, &value))
}

fn back(error: SimError) -> ApiError {
    ApiError::new(error.status, &error.code, error.to_string())
}

fn read_drive(handle: &DriveHandle, action: &str, req: &Req) -> ApiResult<Response<Body>> {
    let path = req.query.get("path").unwrap_or_default();
    match action {
        "tree" => ok(&handle.dump_json()),
        "entry" => {
            let entry = handle.entry(path).ok_or_else(ApiError::not_found)?;
            ok(&json!(entry))
        }
        "versions" => ok(&json!(handle.versions(path))),
        "content" => {
            let body = match req.query.get("version") {
                Some(version) => handle.version_body(path, version),
                None => handle.body(path),
            };
            let body = body.ok_or_else(ApiError::not_found)?;
            Ok(crate::download::ranged(body, req, false))
        }
        _ => Err(ApiError::not_found()),
    }
}

fn write_drive(handle: &DriveHandle, action: &str, body: &Value) -> ApiResult<Value> {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    let flag = |key: &str| body[key].as_bool().unwrap_or(true);
    let path = text("path");
    let id = |id: String| json!({"id": id});
    let done = |()| json!({});
    let result = match action {
        "put" => {
            let content = body_from_json(body)?;
            handle
                .put_at(path, content, body["mtime_ms"].as_i64())
                .map(id)
        }
        "mkdir" => handle.mkdir(path).map(id),
        "rename" => handle.rename(text("from"), text("to")).map(done),
        "delete" => handle.delete(path).map(done),
        "mtime" => handle
            .set_mtime(path, body["mtime_ms"].as_i64().unwrap_or(0))
            .map(done),
        "lock" => handle.set_locked(path, flag("locked")).map(done),
        "malware" => handle.set_malware(path, flag("malware")).map(done),
        "vault" => handle.set_vault(path, flag("vault")).map(done),
        "hold" => handle.set_held(path, flag("held")).map(done),
        "package" => handle.add_package(path).map(id),
        "shortcut" => handle
            .add_shortcut(path, text("drive"), text("item"))
            .map(id),
        "share" => handle
            .share(path, text("user"), body["write"].as_bool().unwrap_or(false))
            .map(id),
        "unshare" => handle.unshare(path, text("user")).map(done),
        "quota" => {
            handle.set_quota(body["bytes"].as_u64().unwrap_or(u64::MAX));
            Ok(json!({}))
        }
        "seed" => {
            let items = body["items"].as_array().cloned().unwrap_or_default();
            handle.seed(&items).map(|count| json!({"items": count}))
        }
        "sample" => match body["files"].as_u64() {
            Some(files) => sample::populate_many(handle, files).map(done),
            None => sample::populate(handle).map(done),
        },
        "expire" => {
            handle.expire_delta();
            Ok(json!({}))
        }
        _ => return Err(ApiError::not_found()),
    };
    result.map_err(back)
}
