//! Server-side copies run in the background on the service: the caller gets the address of a
//! monitor on another host and polls it without signing in.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::access::{self, Role};
use crate::actor::{self, Actor};
use crate::changes;
use crate::drive::{Conflict, Content, Drive, FsTimes, Idx, Kind, ROOT, Tree};
use crate::error::{ApiError, ApiResult, empty, json_response, redirect};
use crate::identity::Caller;
use crate::request::Req;
use crate::target::Target;
use crate::world::World;

/// A running or finished copy.
pub(crate) struct Monitor {
    polls_left: u32,
    polls: u32,
    name: String,
    outcome: Outcome,
    /// The drive and id of the result.
    result: Option<(String, String)>,
}

enum Outcome {
    Pending(Box<Plan>),
    Done,
    Failed(ApiError),
}

struct Plan {
    from: Arc<Drive>,
    source: Idx,
    to: Arc<Drive>,
    parent: Idx,
    name: String,
    conflict: Conflict,
    by: Option<Actor>,
}

/// `POST …/copy`.
pub(crate) async fn start(
    world: &World,
    caller: &Caller,
    target: Target,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    let source = target.require()?;
    let body = req.json().await?;
    if source == ROOT {
        return Err(ApiError::bad_request("The root cannot be copied."));
    }
    let conflict = req.query.get("@microsoft.graph.conflictBehavior");
    let conflict = conflict.or(body["@microsoft.graph.conflictBehavior"].as_str());
    let conflict = Conflict::parse(conflict, Conflict::Fail)?;
    let reference = &body["parentReference"];
    let to = match reference["driveId"].as_str() {
        Some(id) => world.drive(id).ok_or_else(ApiError::not_found)?,
        None => target.drive.clone(),
    };
    let parent = {
        let tree = to.tree.lock();
        let id = reference["id"].as_str();
        let found = id
            .and_then(|id| tree.find_id(id))
            .filter(|p| tree.node(*p).is_live());
        match (id, found, target.found) {
            (Some(_), Some(parent), _) if tree.node(parent).is_folder() => parent,
            (None, _, Some(idx)) if Arc::ptr_eq(&to, &target.drive) => tree.node(idx).parent,
            _ => return Err(ApiError::not_found()),
        }
    };
    access::require(world, caller, &to, parent, Role::Write)?;
    let name = match body["name"].as_str() {
        Some(name) => name.to_owned(),
        None => target.drive.tree.lock().node(source).name.to_string(),
    };
    to.tree.lock().check_name(parent, &name)?;
    let plan = Plan {
        from: target.drive.clone(),
        source,
        to,
        parent,
        name,
        conflict,
        by: actor::current(),
    };
    let polls = world.knobs.read().copy_polls;
    let monitor = Monitor {
        polls_left: polls,
        polls,
        name: plan.name.clone(),
        outcome: Outcome::Pending(Box::new(plan)),
        result: None,
    };
    let id = uuid::Uuid::new_v4().to_string();
    world.monitors.lock().insert(id.clone(), monitor);
    let mut response = empty(202);
    let location = format!("{}/monitor/{id}", world.urls().content);
    if let Ok(location) = http::HeaderValue::from_str(&location) {
        response
            .headers_mut()
            .insert(http::header::LOCATION, location);
    }
    if polls == 0 {
        advance(world, &id);
    }
    Ok(response)
}

/// `GET` of a monitor.
pub(crate) fn poll(world: &World, id: &str) -> ApiResult<Response<Body>> {
    let (left, polls) = {
        let mut monitors = world.monitors.lock();
        let monitor = monitors.get_mut(id).ok_or_else(ApiError::not_found)?;
        let left = monitor.polls_left;
        monitor.polls_left = left.saturating_sub(1);
        (left, monitor.polls)
    };
    if left > 0 {
        let percent = f64::from(polls - left) / f64::from(polls) * 100.0;
        let body = json!({
            "operation": "itemCopy",
            "percentageComplete": percent,
            "status": "inProgress",
        });
        return Ok(json_response(202, &body));
    }
    advance(world, id);
    let monitors = world.monitors.lock();
    let monitor = monitors.get(id).ok_or_else(ApiError::not_found)?;
    Ok(report(world, monitor))
}

fn report(world: &World, monitor: &Monitor) -> Response<Body> {
    let mut body = json!({"operation": "itemCopy", "percentageComplete": 100.0});
    match (&monitor.outcome, &monitor.result) {
        (Outcome::Failed(error), _) => {
            body["status"] = json!("failed");
            body["errorCode"] = json!(error.code);
            body["error"] = json!({"code": error.code, "message": error.message});
        }
        (_, Some((drive, item))) => {
            if world.knobs.read().copy_monitor_redirects {
                let url = format!("{}/v1.0/drives/{drive}/items/{item}", world.urls().api);
                return redirect(303, &url);
            }
            body["status"] = json!("completed");
            body["resourceId"] = json!(item);
        }
        _ => body["status"] = json!("inProgress"),
    }
    json_response(200, &body)
}

/// Carries a pending copy out.
fn advance(world: &World, id: &str) {
    let plan = {
        let mut monitors = world.monitors.lock();
        let Some(monitor) = monitors.get_mut(id) else {
            return;
        };
        match std::mem::replace(&mut monitor.outcome, Outcome::Done) {
            Outcome::Pending(plan) => plan,
            other => {
                monitor.outcome = other;
                return;
            }
        }
    };
    let outcome = if world.knobs.read().copy_fails {
        Err(ApiError::new(
            500,
            "generalException",
            "The copy has failed.",
        ))
    } else {
        actor::acting(plan.by.as_ref(), || carry_out(world, &plan))
    };
    let mut monitors = world.monitors.lock();
    let Some(monitor) = monitors.get_mut(id) else {
        return;
    };
    match outcome {
        Ok(item) => monitor.result = Some((plan.to.spec.id.clone(), item)),
        Err(error) => monitor.outcome = Outcome::Failed(error),
    }
}

enum Shape {
    File(crate::body::FileBody, Option<[u8; 20]>),
    Folder(Vec<(String, Shape)>),
}

fn shape(tree: &Tree, idx: Idx) -> Option<Shape> {
    let node = tree.node(idx);
    match &node.kind {
        Kind::File(file) => Some(Shape::File(file.body.clone(), file.hash.get().copied())),
        Kind::Folder(children) => {
            let inside = children.values().filter_map(|child| {
                Some((tree.node(*child).name.to_string(), shape(tree, *child)?))
            });
            Some(Shape::Folder(inside.collect()))
        }
        Kind::Package | Kind::Shortcut(_) => None,
    }
}

fn carry_out(world: &World, plan: &Plan) -> ApiResult<String> {
    let shape = {
        let tree = plan.from.tree.lock();
        if !tree.node(plan.source).is_live() {
            return Err(ApiError::not_found());
        }
        shape(&tree, plan.source).ok_or_else(ApiError::unsupported)?
    };
    let now = world.now();
    let id = {
        let mut tree = plan.to.tree.lock();
        let name = match (tree.child(plan.parent, &plan.name), plan.conflict) {
            (None, _) => plan.name.clone(),
            (Some(_), Conflict::Fail) => return Err(ApiError::exists()),
            (Some(_), Conflict::Rename) => tree.free_name(plan.parent, &plan.name),
            (Some(old), Conflict::Replace) => {
                tree.delete(old, now, false)?;
                plan.name.clone()
            }
        };
        let idx = build(&mut tree, plan.parent, &name, shape, now)?;
        tree.id_of(idx)
    };
    changes::announce(world, &plan.to);
    Ok(id)
}

fn build(tree: &mut Tree, parent: Idx, name: &str, shape: Shape, now: i64) -> ApiResult<Idx> {
    match shape {
        Shape::File(body, hash) => {
            let times = FsTimes::default();
            tree.add_file(
                parent,
                name,
                Content {
                    body,
                    hash,
                    times,
                    now,
                },
            )
        }
        Shape::Folder(inside) => {
            let folder = tree.mkdir(parent, name, FsTimes::default(), now)?;
            for (name, shape) in inside {
                build(tree, folder, &name, shape, now)?;
            }
            Ok(folder)
        }
    }
}

/// Monitors as the control interface shows them.
pub(crate) fn list(world: &World) -> Value {
    let monitors = world.monitors.lock();
    let rows = monitors.iter().map(|(id, monitor)| {
        let done = !matches!(monitor.outcome, Outcome::Pending(_));
        json!({"id": id, "name": monitor.name, "done": done})
    });
    rows.collect()
}
