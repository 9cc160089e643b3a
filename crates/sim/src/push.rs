//! The push channel: a URL from Graph, then Engine.IO frames over a plain WebSocket that say no
//! more than "something has changed".

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::IntoResponse;
use http::Response;
use http::request::Parts;
use serde_json::json;

use crate::clock::iso;
use crate::drive::Drive;
use crate::error::{ApiError, ApiResult, json_response};
use crate::identity::Caller;
use crate::request::Query;
use crate::target::Target;
use crate::world::World;

/// Announced wait for a pong.
const PING_TIMEOUT_MS: u64 = 60_000;
/// The namespace that events arrive in.
const NAMESPACE: &str = "/notifications";

/// `GET …/subscriptions/socketIo`.
pub(crate) fn subscribe(
    world: &World,
    caller: &Caller,
    target: &Target,
) -> ApiResult<Response<Body>> {
    if caller.user.is_none() {
        let message = "Application permissions are not supported.";
        return Err(ApiError::new(403, "accessDenied", message));
    }
    target.require()?;
    let expires = world.now() + world.knobs.read().socket_ttl_s * 1000;
    let id = uuid::Uuid::new_v4().to_string();
    let drive =
        percent_encoding::utf8_percent_encode(&target.drive.spec.id, crate::item_json::STRICT);
    let url = format!(
        "{}/push/callback?token={id}&drive={drive}&expires={expires}&applicationId=sim",
        world.urls().content
    );
    let body = json!({"id": id, "notificationUrl": url, "expirationDateTime": iso(expires)});
    Ok(json_response(200, &body))
}

/// The WebSocket itself.
pub(crate) async fn connect(
    world: &Arc<World>,
    mut parts: Parts,
    query: &Query,
) -> ApiResult<Response<Body>> {
    let refused = || ApiError::new(401, "unauthenticated", "The channel token is not valid.");
    let drive = query
        .get("drive")
        .and_then(|id| world.drive(id))
        .ok_or_else(refused)?;
    let expires: i64 = query
        .get("expires")
        .and_then(|e| e.parse().ok())
        .ok_or_else(refused)?;
    if expires < world.now() || query.get("token").is_none() {
        return Err(refused());
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade =
        upgrade.map_err(|_| ApiError::bad_request("A WebSocket upgrade was expected."))?;
    let world = world.clone();
    Ok(upgrade
        .on_upgrade(move |socket| serve(world, drive, socket, expires))
        .into_response())
}

async fn serve(world: Arc<World>, drive: Arc<Drive>, mut socket: WebSocket, expires: i64) {
    let interval = world.knobs.read().socket_ping_ms;
    let open = json!({
        "sid": uuid::Uuid::new_v4().simple().to_string(),
        "upgrades": [],
        "pingInterval": interval,
        "pingTimeout": PING_TIMEOUT_MS,
        "maxPayload": 1_000_000,
    });
    if socket
        .send(Message::text(format!("0{open}")))
        .await
        .is_err()
    {
        return;
    }
    let mut closed = world.sockets.subscribe();
    let mut net = world.net.subscribe();
    let mut changes = drive.changed.subscribe();
    let mut ping = tokio::time::interval(Duration::from_millis(interval.max(1)));
    ping.tick().await;
    let mut joined = false;
    loop {
        let frame = tokio::select! {
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => reply(text.as_str(), &mut joined),
                Some(Ok(_)) => None,
                Some(Err(_)) | None => return,
            },
            _ = ping.tick() => {
                if expires < world.now() {
                    let _ = socket.send(Message::text("41")).await;
                    return;
                }
                Some("2".to_owned())
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                joined.then(|| event(&drive))
            }
            _ = closed.changed() => return,
            _ = net.changed() => return,
        };
        if let Some(frame) = frame
            && socket.send(Message::text(frame)).await.is_err()
        {
            return;
        }
    }
}

fn reply(frame: &str, joined: &mut bool) -> Option<String> {
    let sid = uuid::Uuid::new_v4().simple().to_string();
    let ack = json!({"sid": sid});
    if frame == "40" {
        return Some(format!("40{ack}"));
    }
    let rest = frame.strip_prefix("40")?.trim_end_matches(',');
    if rest == NAMESPACE {
        *joined = true;
        return Some(format!("40{NAMESPACE},{ack}"));
    }
    let error = json!({"message": "Invalid namespace"});
    Some(format!("44{rest},{error}"))
}

fn event(drive: &Drive) -> String {
    let payload = json!({
        "subscriptionId": uuid::Uuid::new_v4().to_string(),
        "resource": format!("/drives/{}/root", drive.spec.id),
        "changeType": "updated",
    });
    let event = json!(["notification", payload.to_string()]);
    format!("42{NAMESPACE},{event}")
}
