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
use crate::net::Reach;
use crate::request::Query;
use crate::target::Target;
use crate::world::World;

/// Pause between two looks whether a channel may speak again.
const SILENCE_LOOK: Duration = Duration::from_millis(10);

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
    let url = format!(
        "{}/push/callback?token={}&applicationId=sim",
        world.urls().content,
        world.push_token(&target.drive.spec.id, expires),
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
    if query.get("EIO") != Some("4") {
        return Err(ApiError::bad_request("Unsupported protocol version"));
    }
    if query.get("transport") != Some("websocket") {
        return Err(ApiError::bad_request("Transport unknown"));
    }
    let grant = query.get("token").and_then(|token| world.push_grant(token));
    let granted = grant.and_then(|(drive, expires)| Some((world.drive(&drive)?, expires)));
    let (drive, expires) = granted
        .filter(|(_, expires)| *expires >= world.now())
        .ok_or_else(|| ApiError::new(401, "unauthenticated", "The channel token is not valid."))?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade =
        upgrade.map_err(|_| ApiError::bad_request("A WebSocket upgrade was expected."))?;
    let world = world.clone();
    Ok(upgrade
        .on_upgrade(move |socket| serve(world, drive, socket, expires))
        .into_response())
}

async fn serve(world: Arc<World>, drive: Arc<Drive>, mut socket: WebSocket, expires: i64) {
    let lost = lost(&world);
    let life = world.knobs.read().socket_life_ms;
    let life = life.map_or(Duration::MAX, Duration::from_millis);
    tokio::select! {
        () = talk(&world, &drive, &mut socket, expires) => {}
        () = lost => {}
        () = tokio::time::sleep(life) => {}
    }
}

/// Waits until the connection is cut: by a script, or with the network. In a black hole it falls
/// silent instead, and is cut by what follows.
async fn lost(world: &World) {
    let mut closed = world.sockets.subscribe();
    let mut net = world.net.subscribe();
    tokio::select! {
        _ = closed.changed() => {}
        _ = net.changed() => {
            let _ = net.wait_for(|state| state.reach != Reach::BlackHole).await;
        }
    }
}

/// Speaks with a client until either side has had enough.
async fn talk(world: &World, drive: &Drive, socket: &mut WebSocket, expires: i64) {
    let (interval, timeout) = {
        let knobs = world.knobs.read();
        (knobs.socket_ping_ms.max(1), knobs.socket_pong_ms)
    };
    let open = json!({
        "sid": uuid::Uuid::new_v4().simple().to_string(),
        "upgrades": [],
        "pingInterval": interval,
        "pingTimeout": timeout,
        "maxPayload": 1_000_000,
    });
    if socket
        .send(Message::text(format!("0{open}")))
        .await
        .is_err()
    {
        return;
    }
    let mut changes = drive.changed.subscribe();
    let mut ping = tokio::time::interval(Duration::from_millis(interval));
    ping.tick().await;
    let mut heard = tokio::time::Instant::now();
    let patience = Duration::from_millis(interval.saturating_add(timeout));
    let mut joined = false;
    loop {
        let frame = tokio::select! {
            received = socket.recv() => {
                heard = tokio::time::Instant::now();
                match received {
                    Some(Ok(Message::Text(text))) => reply(text.as_str(), &mut joined),
                    Some(Ok(_)) => None,
                    Some(Err(_)) | None => return,
                }
            }
            _ = ping.tick() => Some("2".to_owned()),
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                joined.then(|| event(drive, world.knobs.read().socket_main_namespace))
            }
            // A client that answers no ping is gone.
            () = tokio::time::sleep_until(heard + patience) => return,
        };
        while world.is_silent() {
            tokio::time::sleep(SILENCE_LOOK).await;
        }
        if expires < world.now() {
            let _ = socket.send(Message::text("41")).await;
            return;
        }
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

fn event(drive: &Drive, main_namespace: bool) -> String {
    let payload = json!({
        "subscriptionId": uuid::Uuid::new_v4().to_string(),
        "resource": format!("/drives/{}/root", drive.spec.id),
        "changeType": "updated",
    });
    let event = json!(["notification", payload.to_string()]);
    if main_namespace {
        return format!("42{event}");
    }
    format!("42{NAMESPACE},{event}")
}
