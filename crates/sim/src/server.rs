//! Listeners, connections and the way of one request: log, fault plan, route, fault plan again.
//! Connections are driven by hand rather than by a framework's server, because closing one without
//! an answer or refusing to accept is part of what is simulated.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::clock::http_date;
use crate::error::{ApiError, ApiResult, empty, html, json_response, raw};
use crate::faults::{BodyForm, FaultAction};
use crate::net::{Paced, Reach};
use crate::request::{Query, Req};
use crate::request_log::{Ending, Record};
use crate::route::{self, Route};
use crate::world::World;
use crate::{control, copy, dispatch, download, identity, push, uploads};

/// Which of the simulator's hosts a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Login and Graph.
    Api,
    /// Pre-authenticated URLs.
    Content,
    /// Scripting; never refused, never faulty.
    Control,
}

/// Binds one listener on loopback.
pub(crate) async fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(address, port)).await
}

/// Accepts connections until the task is dropped, following the reachability.
pub(crate) async fn run(world: Arc<World>, host: Host, listener: TcpListener) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let mut listener = Some(listener);
    let mut net = world.net.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let state = *net.borrow_and_update();
        if host != Host::Control && state.reach == Reach::Offline {
            // Without a listener the kernel refuses connections.
            listener = None;
            connections.abort_all();
            if net.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => match bind(address.ip(), address.port()).await {
                Ok(open) => open,
                Err(error) => {
                    tracing::warn!(%error, %address, "rebinding failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(world.clone(), host, stream, state.generation));
                }
            }
            Some(_) = connections.join_next() => {}
            changed = net.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        listener = Some(open);
    }
}

async fn connection(world: Arc<World>, host: Host, stream: TcpStream, generation: u64) {
    let _ = stream.set_nodelay(true);
    let speed = (host != Host::Control).then(|| world.speed.clone());
    let mut net = world.net.subscribe();
    let io = TokioIo::new(Paced::new(stream, speed));
    let serving = world.clone();
    let service = service_fn(move |request| {
        let world = serving.clone();
        async move { answer(&world, host, request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(io, service)
        .with_upgrades();
    let ended = async {
        // Every change of reachability ends the connections from before it.
        let _ = net.wait_for(|s| s.generation != generation).await;
    };
    tokio::select! {
        result = served => {
            if let Err(error) = result {
                tracing::trace!(%error, "connection ended");
            }
        }
        () = ended, if host != Host::Control => {}
    }
}

/// Pause between two looks whether a request is held any longer.
const HOLD_LOOK: Duration = Duration::from_millis(10);

/// The connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection dropped by the fault plan")
    }
}

impl std::error::Error for Dropped {}

async fn answer(
    world: &Arc<World>,
    host: Host,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let path = request.uri().path().to_owned();
    if host == Host::Control || path.starts_with("/_sim/") {
        return Ok(control::serve(world, request.map(Body::new)).await);
    }
    if world.net.borrow().reach == Reach::BlackHole {
        std::future::pending::<()>().await;
    }
    let latency = world.knobs.read().latency_ms;
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let call = classify(host, request.method(), &path);
    let record = log(world, host, &call, &request);
    let _ending = Ending(Arc::clone(&record));
    let target = request
        .uri()
        .path_and_query()
        .map_or(path.as_str(), |p| p.as_str())
        .to_owned();
    let actions = world
        .faults
        .decide(call.op, request.method().as_str(), &target);
    let mut fate = FaultAction::Pass;
    let mut late = Vec::new();
    for (rule, action) in actions {
        match action {
            FaultAction::Delay { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            FaultAction::Hold => held(world, rule).await,
            FaultAction::HoldAnswer => late.push(rule),
            FaultAction::DropBefore => return Err(Dropped),
            FaultAction::Stall => std::future::pending::<()>().await,
            action => {
                world.expire(&action);
                fate = action;
            }
        }
    }
    let response = match &fate {
        FaultAction::Status {
            after_effect: false,
            ..
        } => scripted(&fate),
        _ => {
            // On a task of its own: the service finishes what it has begun even if the client
            // goes away.
            let begun = effect(world.clone(), host, call, request, record.clone());
            let effect = tokio::spawn(begun).await.unwrap_or_else(|error| {
                tracing::error!(%error, "serving a request failed");
                empty(500)
            });
            for rule in late {
                held(world, rule).await;
            }
            match &fate {
                FaultAction::DropAfter => return Err(Dropped),
                FaultAction::Status { .. } => scripted(&fate),
                _ => effect,
            }
        }
    };
    record
        .status
        .store(response.status().as_u16(), Ordering::Relaxed);
    Ok(finish(world, response, &fate, record))
}

/// Waits until a rule is removed.
async fn held(world: &World, rule: u64) {
    while world.faults.has(rule) {
        tokio::time::sleep(HOLD_LOOK).await;
    }
}

/// What a request turned out to be.
struct Call {
    op: &'static str,
    kind: CallKind,
}

enum CallKind {
    Identity(String, &'static str),
    Graph(ApiResult<Route>, String),
    Download,
    Session,
    Monitor(String),
    Socket,
    Page,
    Unknown,
}

fn classify(host: Host, method: &Method, path: &str) -> Call {
    let call = |op, kind| Call { op, kind };
    if host == Host::Content {
        return match path {
            "/uploadSession" => {
                let op = match *method {
                    Method::PUT => "upload_fragment",
                    Method::DELETE => "upload_cancel",
                    Method::POST => "upload_commit",
                    _ => "upload_status",
                };
                call(op, CallKind::Session)
            }
            "/download.aspx" => call("download", CallKind::Download),
            "/socket.io/" => call("socket", CallKind::Socket),
            _ if path.starts_with("/web/") => call("page", CallKind::Page),
            _ => match path.strip_prefix("/monitor/") {
                Some(id) => call("monitor", CallKind::Monitor(id.to_owned())),
                None => call("unknown", CallKind::Unknown),
            },
        };
    }
    if let Some(rest) = dispatch::api_path(path) {
        let route = route::parse(rest);
        return call(
            dispatch::operation(method, &route),
            CallKind::Graph(route, rest.to_owned()),
        );
    }
    match identity::endpoint(path) {
        Some((tenant, endpoint)) => call(endpoint, CallKind::Identity(tenant.to_owned(), endpoint)),
        None => call("unknown", CallKind::Unknown),
    }
}

fn log(world: &World, host: Host, call: &Call, request: &Request<Incoming>) -> Arc<Record> {
    let text = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let number = world.log.number();
    world.log.push(Record {
        number,
        at_ms: world.now(),
        host: if host == Host::Api { "api" } else { "content" },
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        op: call.op,
        range: text("range").or_else(|| text("content-range")),
        if_match: text("if-match"),
        user_agent: text("user-agent"),
        authorization: request.headers().contains_key(header::AUTHORIZATION),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
        status: AtomicU16::new(0),
        ended: OnceLock::new(),
    })
}

/// Lets a request take its effect.
async fn effect(
    world: Arc<World>,
    host: Host,
    call: Call,
    request: Request<Incoming>,
    record: Arc<Record>,
) -> Response<Body> {
    let world = &world;
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let CallKind::Socket = call.kind {
        let connected = push::connect(world, parts, &query).await;
        return connected.unwrap_or_else(ApiError::into_response);
    }
    let counter = record.clone();
    let counted = Body::new(body).into_data_stream().inspect(move |chunk| {
        let length = chunk.as_ref().map_or(0, |c| c.len() as u64);
        counter.bytes_in.fetch_add(length, Ordering::Relaxed);
    });
    let path = match &call.kind {
        CallKind::Graph(_, path) => path.clone(),
        _ => parts.uri.path().to_owned(),
    };
    let req = Req {
        method: parts.method,
        path,
        query,
        headers: parts.headers,
        body: Body::from_stream(counted),
    };
    let result = match call.kind {
        CallKind::Identity(tenant, endpoint) => {
            identity::serve(world, &tenant, endpoint, req).await
        }
        CallKind::Graph(Ok(route), _) => dispatch::graph(world, call.op, route, req).await,
        CallKind::Graph(Err(error), _) => Err(error),
        CallKind::Download => download::serve(world, &req),
        CallKind::Session => uploads::serve(world, req).await,
        CallKind::Monitor(id) => copy::poll(world, &id),
        CallKind::Page => Ok(html(200, "Simulated page")),
        CallKind::Unknown | CallKind::Socket => Ok(html(404, "Not Found")),
    };
    let response = result.unwrap_or_else(ApiError::into_response);
    if host == Host::Api {
        with_bom(world, response).await
    } else {
        response
    }
}

/// Puts a byte order mark before JSON when the knob says so.
async fn with_bom(world: &World, response: Response<Body>) -> Response<Body> {
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if !json || !world.knobs.read().json_bom {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    let marked = [b"\xef\xbb\xbf".as_slice(), &bytes].concat();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, marked.len().into());
    Response::from_parts(parts, Body::from(marked))
}

/// The answer that a status rule prescribes.
fn scripted(action: &FaultAction) -> Response<Body> {
    let FaultAction::Status {
        status,
        code,
        inner,
        retry_after,
        form,
        body,
        ..
    } = action
    else {
        return empty(500);
    };
    let default = match status {
        400 => "invalidRequest",
        401 => "InvalidAuthenticationToken",
        403 => "accessDenied",
        404 => "itemNotFound",
        409 => "nameAlreadyExists",
        410 => "resyncRequired",
        412 => "resourceModified",
        423 => "resourceLocked",
        429 => "activityLimitReached",
        507 => "quotaLimitReached",
        502..=504 => "serviceNotAvailable",
        _ => "generalException",
    };
    let message = body.as_deref().unwrap_or("Scripted by the fault plan.");
    let mut error = ApiError::new(*status, code.as_deref().unwrap_or(default), message);
    error.inner.clone_from(inner);
    let mut response = match form {
        BodyForm::Json => json_response(*status, &error.body()),
        BodyForm::Html => html(*status, "Service Unavailable"),
        BodyForm::Empty => empty(*status),
        BodyForm::Raw => raw(*status, "application/json", message.as_bytes().to_vec()),
        BodyForm::Bom => {
            let text = format!("\u{feff}{}", error.body());
            raw(*status, "application/json", text.into_bytes())
        }
    };
    if let Some(value) = retry_after.as_deref().and_then(|v| v.parse().ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

/// Counts what goes out and spoils the body if that is its fate.
fn finish(
    world: &World,
    response: Response<Body>,
    fate: &FaultAction,
    record: Arc<Record>,
) -> Response<Body> {
    let plain = !matches!(
        fate,
        FaultAction::Truncate { .. } | FaultAction::Corrupt { .. } | FaultAction::StallBody { .. }
    );
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    if let Ok(date) = http_date(world.now()).parse() {
        parts.headers.insert(header::DATE, date);
    }
    if let FaultAction::Header { name, value } = fate
        && let Ok(name) = name.parse::<header::HeaderName>()
    {
        parts.headers.remove(&name);
        if let Some(value) = value.as_deref().and_then(|v| v.parse().ok()) {
            parts.headers.insert(name, value);
        }
    }
    tracing::trace!(
        op = record.op,
        status = parts.status.as_u16(),
        at = world.now(),
        "answered"
    );
    if !parts.headers.contains_key(header::CONTENT_LENGTH) && plain {
        // Answers without a declared length are the ones without a body.
        return Response::from_parts(parts, body);
    }
    if let Some(length) = parts.headers.remove(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    let fate = fate.clone();
    let mut sent = 0u64;
    let counted = body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        let before = sent;
        sent += chunk.len() as u64;
        record
            .bytes_out
            .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok::<_, io::Error>((before, chunk))
    });
    let spoiled = counted.map(move |item| {
        let (before, chunk) = item?;
        spoil(&fate, before, chunk)
    });
    // The error that ends a body early closes the connection; a held one stays open in silence.
    let stream = spoiled.flat_map(|item| {
        let (parts, hold) = match item {
            Ok(Spoiled::Whole(chunk)) => (vec![Ok(chunk)], false),
            Ok(Spoiled::Hold(chunk)) => (vec![Ok(chunk)], true),
            Ok(Spoiled::Cut(chunk)) => (vec![Ok(chunk), Err(io::Error::other(Dropped))], false),
            Err(error) => (vec![Err(error)], false),
        };
        let parts = futures_util::stream::iter(parts);
        if hold {
            parts.chain(futures_util::stream::pending()).boxed()
        } else {
            parts.boxed()
        }
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

enum Spoiled {
    Whole(Bytes),
    Cut(Bytes),
    Hold(Bytes),
}

fn spoil(fate: &FaultAction, before: u64, chunk: Bytes) -> io::Result<Spoiled> {
    let end = before + chunk.len() as u64;
    match *fate {
        FaultAction::Truncate { bytes } if bytes < end => {
            let keep = usize::try_from(bytes.saturating_sub(before)).unwrap_or(0);
            Ok(Spoiled::Cut(chunk.slice(..keep)))
        }
        FaultAction::StallBody { bytes } if bytes < end => {
            let keep = usize::try_from(bytes.saturating_sub(before)).unwrap_or(0);
            Ok(Spoiled::Hold(chunk.slice(..keep)))
        }
        FaultAction::Corrupt { offset } if (before..end).contains(&offset) => {
            let mut bytes = chunk.to_vec();
            let at = usize::try_from(offset - before).unwrap_or(0);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0xff;
            }
            Ok(Spoiled::Whole(bytes.into()))
        }
        _ => Ok(Spoiled::Whole(chunk)),
    }
}

/// The address that the API host binds.
pub(crate) const API_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
