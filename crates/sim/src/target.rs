//! From an address to a [`Target`]: a place in a drive that may or may not be taken.

use std::sync::Arc;

use crate::config::{DriveKind, SiteSpec};
use crate::drive::{Drive, FsTimes, Idx, ROOT, Tree};
use crate::error::{ApiError, ApiResult};
use crate::identity::Caller;
use crate::request::Req;
use crate::route::{Anchor, DriveRef, ItemPath};
use crate::world::World;

/// A place in a drive.
pub(crate) struct Target {
    pub(crate) drive: Arc<Drive>,
    /// The item, when there is one.
    pub(crate) found: Option<Idx>,
    /// Whether it was named by its id alone.
    pub(crate) by_id: bool,
    /// Where it is or would be created.
    place: Option<(Idx, String)>,
}

impl Target {
    /// A known item.
    pub(crate) fn item(drive: Arc<Drive>, idx: Idx) -> Self {
        Target {
            drive,
            found: Some(idx),
            by_id: true,
            place: None,
        }
    }

    pub(crate) fn require(&self) -> ApiResult<Idx> {
        self.found.ok_or_else(ApiError::not_found)
    }

    /// Parent and name under which something may be created.
    pub(crate) fn place(&self) -> ApiResult<(Idx, String)> {
        self.place.clone().ok_or_else(ApiError::not_found)
    }
}

/// Finds the drive that an address names.
pub(crate) fn drive(world: &World, caller: &Caller, name: &DriveRef) -> ApiResult<Arc<Drive>> {
    match name {
        DriveRef::Id(id) => world
            .drive(id)
            .ok_or_else(|| ApiError::new(404, "itemNotFound", "The drive could not be found.")),
        DriveRef::Me => {
            let user = caller.user.as_deref().ok_or_else(no_me)?;
            world.drives_of(user).into_iter().next().ok_or_else(|| {
                ApiError::new(404, "itemNotFound", "Unable to retrieve user's mysite URL.")
            })
        }
        DriveRef::User(name) => {
            let mut known = world.config.users.iter();
            let user = known.find(|u| u.id == *name || u.upn.eq_ignore_ascii_case(name));
            // Groups have drives, too, and are not listed as users.
            let id = user.map_or(name.as_str(), |u| &u.id);
            let drive = world.drives_of(id).into_iter().next();
            drive.ok_or_else(|| match user {
                Some(_) => ApiError::new(404, "ResourceNotFound", "User's mysite not found."),
                None => no_user(name),
            })
        }
        DriveRef::Site(name) => {
            let site = site(world, Some(name)).ok_or_else(ApiError::not_found)?;
            let first = site.drives.first().and_then(|id| world.drive(id));
            first.ok_or_else(ApiError::not_found)
        }
    }
}

pub(crate) fn no_user(name: &str) -> ApiError {
    let message = format!(
        "Resource '{name}' does not exist or one of its queried reference-property objects are not \
         present."
    );
    ApiError::new(404, "Request_ResourceNotFound", message)
}

pub(crate) fn no_me() -> ApiError {
    let message = "/me request is only valid with delegated authentication flow.";
    ApiError::new(400, "BadRequest", message)
}

pub(crate) fn site<'a>(world: &'a World, name: Option<&str>) -> Option<&'a SiteSpec> {
    let name = name.filter(|n| *n != "root");
    world.config.sites.iter().find(|site| match name {
        None => true,
        Some(name) => {
            site.id == name || site.host == name || format!("{}:{}", site.host, site.path) == name
        }
    })
}

/// Resolves an address inside a drive.
pub(crate) fn resolve(
    world: &World,
    drive: Arc<Drive>,
    path: &ItemPath,
    req: &Req,
) -> ApiResult<Target> {
    let mut steps = path.steps.clone();
    if let Some(alias) = &path.alias {
        match req.query.get(alias) {
            Some(value) => steps.push(crate::route::unquote(value)?),
            None => steps.push(alias.clone()),
        }
    }
    let created;
    let (found, place) = {
        let mut tree = drive.tree.lock();
        let (start, made) = anchor(world, &mut tree, &path.anchor)?;
        created = made;
        match steps.split_last() {
            None => (Some(start), None),
            Some((name, before)) => {
                let parent = tree.walk(start, before).ok_or_else(ApiError::not_found)?;
                let found = tree.child(parent, name);
                (found, Some((parent, name.clone())))
            }
        }
    };
    if created {
        world.announce(&drive);
    }
    Ok(Target {
        drive,
        found,
        by_id: steps.is_empty(),
        place,
    })
}

fn anchor(world: &World, tree: &mut Tree, anchor: &Anchor) -> ApiResult<(Idx, bool)> {
    match anchor {
        Anchor::Root => Ok((ROOT, false)),
        // A real id is required for the root as a parent, but addressing it works.
        Anchor::Id(id) if id == "root" => Ok((ROOT, false)),
        Anchor::Id(id) => {
            if tree.kind == DriveKind::Personal {
                check_drive_part(tree, id)?;
            }
            let found = tree.find_id(id).filter(|idx| tree.node(*idx).is_live());
            found
                .map(|idx| (idx, false))
                .ok_or_else(ApiError::not_found)
        }
        Anchor::Special(name) => special(world, tree, name),
    }
}

/// Personal ids carry their drive: mixing drives gives an error of its own.
fn check_drive_part(tree: &Tree, id: &str) -> ApiResult<()> {
    let plain = |id: &str| id.trim_start_matches('0').to_ascii_lowercase();
    match id.split_once('!') {
        Some((drive, _)) if plain(drive) != plain(&tree.drive_id) => {
            Err(ApiError::bad_request("ObjectHandle is Invalid").inner("invalidResourceId"))
        }
        _ => Ok(()),
    }
}

fn special(world: &World, tree: &mut Tree, name: &str) -> ApiResult<(Idx, bool)> {
    let lower = name.to_lowercase();
    let path: &[&str] = match lower.as_str() {
        "documents" => &["Documents"],
        "photos" => &["Pictures"],
        "cameraroll" => &["Pictures", "Camera Roll"],
        "music" => &["Music"],
        "desktop" => &["Desktop"],
        "approot" => &["Apps", "onedrivefs"],
        _ => return Err(ApiError::not_found()),
    };
    let known = (0..tree.nodes.len() as Idx).take(64).find(|i| {
        let node = tree.node(*i);
        node.is_live()
            && node
                .extra()
                .is_some_and(|e| e.special.as_deref() == Some(lower.as_str()))
    });
    if let Some(idx) = known {
        return Ok((idx, false));
    }
    let mut at = ROOT;
    let mut made = false;
    for part in path {
        at = match tree.child(at, part) {
            Some(found) => found,
            None => {
                made = true;
                tree.mkdir(at, part, FsTimes::default(), world.now())?
            }
        };
    }
    tree.node_mut(at).extra_mut().special = Some(lower);
    Ok((at, made))
}
