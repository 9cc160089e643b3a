//! Earlier contents of a file.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::actor::ActorNo;
use crate::clock::iso;
use crate::error::{ApiError, ApiResult, empty, json_response, redirect};
use crate::request::Req;
use crate::target::Target;
use crate::world::World;

/// Everything below `…/versions`.
pub(crate) fn serve(
    world: &World,
    target: &Target,
    rest: &[&str],
    req: &Req,
) -> ApiResult<Response<Body>> {
    let idx = target.require()?;
    if target.drive.tree.lock().node(idx).file().is_none() {
        return Err(ApiError::bad_request("Only files have versions."));
    }
    let number = rest.first().map(|text| {
        let whole = text.strip_suffix(".0").unwrap_or(text);
        whole.parse::<u32>().map_err(|_| ApiError::not_found())
    });
    let number = number.transpose()?;
    match (req.method.as_str(), rest, number) {
        ("GET", [], _) => Ok(json_response(200, &json!({"value": list(target, idx)}))),
        ("GET", [_], Some(number)) => {
            let wanted = format!("{number}.0");
            let found = list(target, idx)
                .into_iter()
                .find(|v| v["id"] == wanted.as_str());
            Ok(json_response(200, &found.ok_or_else(ApiError::not_found)?))
        }
        ("GET", [_, "content"], Some(number)) => {
            let tree = target.drive.tree.lock();
            tree.version_body(idx, number)
                .ok_or_else(ApiError::not_found)?;
            drop(tree);
            Ok(redirect(
                302,
                &world.download_url(&target.drive.spec.id, idx, number),
            ))
        }
        ("POST", [_, "restoreVersion"], Some(number)) => {
            target
                .drive
                .tree
                .lock()
                .restore_version(idx, number, world.now())?;
            world.announce(&target.drive);
            Ok(empty(204))
        }
        ("DELETE", [_], Some(number)) => {
            let mut tree = target.drive.tree.lock();
            if !tree.is_business() {
                return Err(ApiError::unsupported());
            }
            tree.delete_version(idx, number)?;
            Ok(empty(204))
        }
        _ => Err(ApiError::new(
            405,
            "notSupported",
            "The operation is not supported here.",
        )),
    }
}

fn list(target: &Target, idx: crate::drive::Idx) -> Vec<Value> {
    let tree = target.drive.tree.lock();
    let node = tree.node(idx);
    let Some(file) = node.file() else {
        return Vec::new();
    };
    let one = |number: u32, size: u64, modified: i64, by: ActorNo| {
        json!({
            "id": format!("{number}.0"),
            "size": size,
            "lastModifiedDateTime": iso(modified),
            "lastModifiedBy": tree.actor_of(by),
        })
    };
    let mut versions = vec![one(
        file.version,
        node.size,
        node.modified,
        node.modified_by,
    )];
    let older = file.older.iter().rev();
    versions.extend(older.map(|v| one(v.number, v.body.size(), v.modified, v.modified_by)));
    versions
}
