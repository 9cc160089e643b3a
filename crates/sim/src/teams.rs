//! Groups, teams and their channels, as far as files are concerned.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::access;
use crate::config::{ChannelSpec, GroupSpec};
use crate::drive::FsTimes;
use crate::error::{ApiError, ApiResult, json_response};
use crate::identity::Caller;
use crate::items;
use crate::request::Req;
use crate::target::{self, Target};
use crate::world::World;

/// `GET /me/joinedTeams`.
pub(crate) fn joined(world: &World, caller: &Caller) -> ApiResult<Response<Body>> {
    let user = caller.user.as_ref().ok_or_else(target::no_me)?;
    let groups = world.config.groups.iter();
    let mine = groups.filter(|group| group.team && group.members.contains(user));
    let all: Vec<Value> = mine.map(group_json).collect();
    Ok(json_response(
        200,
        &json!({"@odata.count": all.len(), "value": all}),
    ))
}

/// `GET /groups`, all or those that are teams.
pub(crate) fn groups(world: &World, req: &Req) -> Response<Body> {
    let filter = req.query.get("filter").unwrap_or_default();
    let teams_only = filter.contains("resourceProvisioningOptions");
    let groups = world.config.groups.iter();
    let shown = groups.filter(|group| group.team || !teams_only);
    json_response(
        200,
        &json!({"value": shown.map(group_json).collect::<Vec<_>>()}),
    )
}

/// `GET /groups/{id}`.
pub(crate) fn group(world: &World, id: &str) -> ApiResult<Response<Body>> {
    let found = find(world, id).ok_or_else(|| target::no_user(id))?;
    Ok(json_response(200, &group_json(found)))
}

fn find<'w>(world: &'w World, id: &str) -> Option<&'w GroupSpec> {
    world.config.groups.iter().find(|group| group.id == id)
}

fn group_json(group: &GroupSpec) -> Value {
    json!({"id": group.id, "displayName": group.name, "description": ""})
}

/// Everything below `/teams/{id}`.
pub(crate) fn team(
    world: &World,
    caller: &Caller,
    id: &str,
    rest: &[String],
    req: &Req,
) -> ApiResult<Response<Body>> {
    let missing = || ApiError::new(404, "NotFound", "No team found with Group Id");
    let group = find(world, id)
        .filter(|group| group.team)
        .ok_or_else(missing)?;
    if let Some(user) = &caller.user
        && !group.members.contains(user)
    {
        return Err(ApiError::new(
            403,
            "Forbidden",
            "The user is not a member of the team.",
        ));
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match rest.as_slice() {
        [] => Ok(json_response(200, &group_json(group))),
        ["channels" | "allChannels"] => {
            let all: Vec<Value> = group.channels.iter().map(channel_json).collect();
            Ok(json_response(
                200,
                &json!({"@odata.count": all.len(), "value": all}),
            ))
        }
        ["channels", channel, "filesFolder"] => {
            let channels = group.channels.iter();
            let known = channels.clone().find(|known| known.id == *channel);
            files_folder(world, group, known.ok_or_else(missing)?, req)
        }
        _ => Err(ApiError::unsupported()),
    }
}

fn channel_json(channel: &ChannelSpec) -> Value {
    let kind = if channel.drive.is_empty() {
        "standard"
    } else {
        "private"
    };
    json!({"id": channel.id, "displayName": channel.name, "membershipType": kind})
}

/// The folder of a channel. The name it has there stays when the channel is renamed.
fn files_folder(
    world: &World,
    group: &GroupSpec,
    channel: &ChannelSpec,
    req: &Req,
) -> ApiResult<Response<Body>> {
    let drive = if channel.drive.is_empty() {
        world.drives_of(&group.id).into_iter().next()
    } else {
        world.drive(&channel.drive)
    };
    let drive = drive.ok_or_else(ApiError::not_found)?;
    let folder = if channel.folder.is_empty() {
        &channel.name
    } else {
        &channel.folder
    };
    let (idx, made) = {
        let mut tree = drive.tree.lock();
        match tree.child(crate::drive::ROOT, folder) {
            Some(found) => (found, false),
            None => {
                let now = world.now();
                let made = tree.mkdir(crate::drive::ROOT, folder, FsTimes::default(), now)?;
                (made, true)
            }
        }
    };
    if made {
        world.announce(&drive);
    }
    items::get(world, &Target::item(drive, idx), req)
}

/// Whether the caller may see a site.
pub(crate) fn sees_site(caller: &Caller, site: &crate::config::SiteSpec) -> bool {
    match &caller.user {
        Some(user) => site.members.is_empty() || site.members.contains(user),
        None => true,
    }
}

/// Refuses sites that the caller may not see.
pub(crate) fn require_site(caller: &Caller, site: &crate::config::SiteSpec) -> ApiResult<()> {
    if sees_site(caller, site) {
        Ok(())
    } else {
        Err(access::denied())
    }
}
