//! Upload sessions: fragments in order, in multiples of 320 KiB, into a spool that becomes the
//! file's body when the last one has arrived. Nothing is visible before that.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Response};
use serde_json::{Value, json};

use crate::actor::{self, Actor};
use crate::changes::{self, Commit};
use crate::clock::iso;
use crate::drive::{Conflict, Drive, FsTimes, Idx};
use crate::error::{ApiError, ApiResult, empty, json_response};
use crate::request::Req;
use crate::spool::{Spool, length_mismatch};
use crate::target::Target;
use crate::world::World;

/// All fragments but the last are multiples of this many bytes.
const FRAGMENT_UNIT: u64 = 327_680;
/// Fragments must be shorter than this.
const MAX_FRAGMENT: u64 = 60 << 20;
/// Largest file: 250 GiB.
const MAX_FILE: u64 = 250 << 30;
/// The token inside a session URL ends after this long, whatever is sent.
const URL_LIFE_MS: i64 = 24 * 3_600_000;

/// What a session will do when its last byte has arrived.
pub(crate) struct Session {
    pub(crate) drive: Arc<Drive>,
    pub(crate) goal: Goal,
    pub(crate) conflict: Conflict,
    pub(crate) times: FsTimes,
    /// The tag the target had when the session was made with `If-Match`.
    guard: Option<String>,
    declared: Option<u64>,
    total: Option<u64>,
    spool: Option<Spool>,
    deferred: bool,
    not_found_once: bool,
    created_ms: i64,
    /// Who began it: fragments come without a sign-in.
    by: Option<Actor>,
}

/// Where the content goes.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    Item(Idx),
    Name(Idx, String),
}

/// What the table knows of a session without locking it.
pub(crate) struct Entry {
    pub(crate) drive_id: String,
    pub(crate) parent: Idx,
    pub(crate) name: String,
    pub(crate) expires_ms: i64,
    pub(crate) received: u64,
    pub(crate) total: Option<u64>,
    pub(crate) session: Arc<tokio::sync::Mutex<Session>>,
}

/// Open sessions by the secret in their URL.
#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) open: HashMap<String, Entry>,
}

impl Sessions {
    pub(crate) fn expire_all(&mut self) {
        self.open.clear();
    }

    fn holds(&self, drive: &str, parent: Idx, folded: &str, now: i64, ae: bool) -> bool {
        self.open.values().any(|e| {
            e.drive_id == drive
                && e.parent == parent
                && e.expires_ms > now
                && crate::names::fold(&e.name, ae) == folded
        })
    }
}

/// `POST …/createUploadSession`.
pub(crate) async fn create(
    world: &World,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let body = req.json().await?;
    let item = body.get("item").cloned().unwrap_or_else(|| json!({}));
    let declared = item.get("fileSize").and_then(Value::as_u64);
    if declared == Some(0) {
        return Err(ApiError::bad_request(
            "Zero-length files cannot use upload sessions.",
        ));
    }
    if declared.is_some_and(|size| size > MAX_FILE) {
        return Err(ApiError::new(
            413,
            "maxFileSizeExceeded",
            "The file is too large.",
        ));
    }
    let conflict = item
        .get("@microsoft.graph.conflictBehavior")
        .and_then(Value::as_str);
    let conflict = Conflict::parse(conflict, Conflict::Replace)?;
    let times = changes::fs_times(&item)?;
    let wanted = item.get("name").and_then(Value::as_str);
    let place = check_target(world, &target, &req, conflict, wanted)?;
    if declared.is_some_and(|size| size > target.drive.tree.lock().remaining()) {
        return Err(ApiError::quota());
    }
    let knobs = world.knobs.read().clone();
    let now = world.now();
    let session = Session {
        drive: target.drive.clone(),
        goal: place.goal,
        conflict,
        times,
        guard: target.found.and(req.header("if-match").map(str::to_owned)),
        declared,
        total: None,
        spool: None,
        deferred: body
            .get("deferCommit")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        not_found_once: knobs.session_404_once,
        created_ms: now,
        by: actor::current(),
    };
    let token = uuid::Uuid::new_v4().simple().to_string();
    let expires_ms = now + knobs.session_ttl_s * 1000;
    let entry = Entry {
        drive_id: target.drive.spec.id.clone(),
        parent: place.parent,
        name: place.name,
        expires_ms,
        received: 0,
        total: declared,
        session: Arc::new(tokio::sync::Mutex::new(session)),
    };
    world.sessions.lock().open.insert(token.clone(), entry);
    let api = world.urls().api;
    let answer = json!({
        "@odata.context": format!("{api}/v1.0/$metadata#microsoft.graph.uploadSession"),
        "uploadUrl": session_url(world, &token),
        "expirationDateTime": iso(expires_ms),
        "nextExpectedRanges": ["0-"],
    });
    Ok(json_response(200, &answer))
}

/// Where a session leads.
struct Place {
    parent: Idx,
    name: String,
    goal: Goal,
}

fn check_target(
    world: &World,
    target: &Target,
    req: &Req,
    conflict: Conflict,
    wanted: Option<&str>,
) -> ApiResult<Place> {
    let tree = target.drive.tree.lock();
    let place = match target.found {
        Some(idx) if target.by_id => {
            let node = tree.node(idx);
            Place {
                parent: node.parent,
                name: node.name.to_string(),
                goal: Goal::Item(idx),
            }
        }
        _ => {
            let (parent, name) = target.place()?;
            Place {
                parent,
                name: name.clone(),
                goal: Goal::Name(parent, name),
            }
        }
    };
    changes::check_preconditions(&tree, target.found, req)?;
    if let Some(found) = target.found {
        tree.check_unlocked(found)?;
        if tree.node(found).file().is_none() || conflict == Conflict::Fail {
            return Err(ApiError::exists());
        }
    } else {
        tree.check_name(place.parent, &place.name)?;
    }
    if wanted.is_some_and(|wanted| !target.by_id && wanted != place.name) {
        return Err(ApiError::bad_request("The name does not match the path."));
    }
    let held = world.sessions.lock().holds(
        &target.drive.spec.id,
        place.parent,
        &tree.fold(&place.name),
        world.now(),
        tree.ae_rule,
    );
    if tree.is_business() && held {
        return Err(ApiError::exists());
    }
    Ok(place)
}

fn session_url(world: &World, token: &str) -> String {
    format!(
        "{}/uploadSession?guid='{token}'&overwrite=True&tempauth=v1.{token}",
        world.urls().content
    )
}

/// The secret of a session URL.
pub(crate) fn token_of_url(url: &str) -> Option<&str> {
    url.split_once("tempauth=v1.").map(|(_, token)| token)
}

fn gone() -> ApiError {
    ApiError::new(404, "itemNotFound", "The upload session was not found")
        .inner("uploadSessionNotFound")
}

fn find(world: &World, query: &str) -> ApiResult<(String, Arc<tokio::sync::Mutex<Session>>)> {
    let token = token_of_url(query).ok_or_else(gone)?.to_owned();
    let mut sessions = world.sessions.lock();
    let now = world.now();
    let entry = sessions.open.get(&token).ok_or_else(gone)?;
    if entry.expires_ms <= now {
        sessions.open.remove(&token);
        return Err(gone());
    }
    let session = entry.session.clone();
    Ok((token, session))
}

/// Everything that is sent to a session URL.
pub(crate) async fn serve(world: &World, req: Req) -> ApiResult<Response<Body>> {
    // The service documents the refusal for PUT; rclone asks for the status with its token.
    let lenient = req.method == Method::GET && !world.knobs.read().session_status_strict;
    if req.headers.contains_key("authorization") && !lenient {
        let message = "Pre-authenticated URLs do not take an Authorization header.";
        return Err(ApiError::new(401, "unauthenticated", message));
    }
    let (token, session) = find(world, &req.query.raw)?;
    let mut session = session.lock().await;
    if world.now() - session.created_ms > URL_LIFE_MS {
        return Err(ApiError::new(
            401,
            "unauthenticated",
            "The token in the URL has ended.",
        ));
    }
    match req.method {
        Method::PUT => fragment(world, &token, &mut session, req).await,
        Method::GET => {
            let received = session.spool.as_ref().map_or(0, |s| s.len);
            Ok(json_response(200, &status(world, &token, received)))
        }
        Method::DELETE => {
            world.sessions.lock().open.remove(&token);
            Ok(empty(204))
        }
        Method::POST if session.deferred => commit(world, &token, &mut session, None).await,
        _ => Err(ApiError::new(
            405,
            "notAllowed",
            "The method is not allowed.",
        )),
    }
}

fn status(world: &World, token: &str, received: u64) -> Value {
    let mut sessions = world.sessions.lock();
    let expires_ms = world.now() + world.knobs.read().session_ttl_s * 1000;
    if let Some(entry) = sessions.open.get_mut(token) {
        entry.expires_ms = entry.expires_ms.max(expires_ms);
        entry.received = received;
    }
    json!({
        "expirationDateTime": iso(expires_ms),
        "nextExpectedRanges": [format!("{received}-")],
    })
}

fn parse_range(header: Option<&str>) -> Option<(u64, u64, u64)> {
    let (range, total) = header?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let numbers = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (numbers.0 <= numbers.1 && numbers.1 < numbers.2).then_some(numbers)
}

async fn fragment(
    world: &World,
    token: &str,
    session: &mut Session,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    if std::mem::take(&mut session.not_found_once) {
        return Err(gone());
    }
    let range = parse_range(req.header("content-range"));
    let invalid = || ApiError::bad_request("Invalid Content-Range header.").inner("invalidRange");
    let (first, last, total) = range.ok_or_else(invalid)?;
    let length = last - first + 1;
    check_fragment(session, &req, (first, last, total))?;
    if session.spool.is_none() {
        if total > session.drive.tree.lock().remaining() {
            return Err(ApiError::quota());
        }
        let spool = Spool::new(Some(total), world.config.spool_dir.as_deref());
        session.spool = Some(spool.map_err(|e| ApiError::io(&e))?);
        session.total = Some(total);
    }
    let Some(spool) = session.spool.as_mut() else {
        return Err(gone());
    };
    // A commit that failed leaves all bytes in place; its last fragment may be sent again.
    spool.fill(std::mem::take(&mut req.body), length).await?;
    let received = spool.len;
    let answer = status(world, token, received);
    if let Some(entry) = world.sessions.lock().open.get_mut(token) {
        entry.total = Some(total);
    }
    if received < total || session.deferred {
        return Ok(json_response(202, &answer));
    }
    let if_match = req.header("if-match").map(str::to_owned);
    commit(world, token, session, if_match.as_deref()).await
}

fn check_fragment(
    session: &Session,
    req: &Req,
    (first, last, total): (u64, u64, u64),
) -> ApiResult<()> {
    let length = last - first + 1;
    let received = session.spool.as_ref().map_or(0, |s| s.len);
    let sent = req
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok());
    if sent.is_some_and(|sent| sent != length) {
        return Err(length_mismatch());
    }
    if length >= MAX_FRAGMENT {
        let message = "The fragment is too large.";
        return Err(ApiError::new(413, "maxFragmentLengthExceeded", message));
    }
    if session
        .total
        .or(session.declared)
        .is_some_and(|known| known != total)
    {
        return Err(ApiError::bad_request("The total size has changed.").inner("invalidRange"));
    }
    if first < received {
        let message = "Some or all of the range was already received.";
        return Err(ApiError::new(416, "invalidRange", message).inner("fragmentOverlap"));
    }
    if first > received {
        let message = "The fragment is out of order.";
        return Err(ApiError::bad_request(message).inner("fragmentOutOfOrder"));
    }
    if last + 1 < total && length % FRAGMENT_UNIT != 0 {
        let message = "Fragments must be multiples of 320 KiB.";
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

/// What the service puts into Office files when it takes them over.
const PROMOTED: &[u8] = b"<!-- properties promoted by the library -->";

pub(crate) async fn commit(
    world: &World,
    token: &str,
    session: &mut Session,
    if_match: Option<&str>,
) -> ApiResult<Response<Body>> {
    let Some(spool) = session.spool.as_mut() else {
        return Err(gone());
    };
    if session.total != Some(spool.len) {
        return Err(ApiError::new(
            400,
            "uploadSessionIncomplete",
            "Bytes are missing.",
        ));
    }
    let name = {
        let tree = session.drive.tree.lock();
        match &session.goal {
            Goal::Item(idx) => tree.node(*idx).name.to_string(),
            Goal::Name(_, name) => name.clone(),
        }
    };
    let rewrite = world.knobs.read().office_rewrite && session.drive.tree.lock().is_business();
    if rewrite && changes::is_rewritten(&name) {
        spool.append(PROMOTED).await?;
    }
    let (body, hash) = spool.body();
    let guards = [session.guard.as_deref(), if_match];
    let commit = Commit {
        goal: session.goal.clone(),
        conflict: session.conflict,
        times: session.times,
        body,
        hash,
        guards: &guards,
    };
    let made = actor::acting(session.by.as_ref(), || {
        changes::commit(world, &session.drive, commit)
    });
    if made.is_err() && rewrite {
        // The spool holds more than the client sent now; it has to start again.
        world.sessions.lock().open.remove(token);
    }
    let (idx, status) = made?;
    world.sessions.lock().open.remove(token);
    if world.knobs.read().empty_commit_body {
        return Ok(empty(status));
    }
    Ok(json_response(
        status,
        &changes::show(world, &session.drive, idx),
    ))
}
