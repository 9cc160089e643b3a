//! What somebody may reach: one's own drive, those of one's groups and sites, and what others shared.
//! An application reaches every drive.

use std::sync::Arc;

use crate::drive::{Drive, Idx, ROOT, Tree};
use crate::error::{ApiError, ApiResult};
use crate::identity::Caller;
use crate::world::World;

/// How far somebody's access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Nothing,
    Read,
    Write,
}

/// Somebody with whom an item was shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Id of the user.
    pub(crate) user: String,
    pub(crate) write: bool,
}

impl Share {
    fn role(&self) -> Role {
        if self.write { Role::Write } else { Role::Read }
    }
}

/// What the caller may do in a whole drive.
pub(crate) fn of_drive(world: &World, caller: &Caller, drive: &Drive) -> Role {
    let Some(user) = caller.user.as_deref() else {
        return Role::Write;
    };
    let owner = &drive.spec.owner;
    let config = &world.config;
    let member = |members: &[String]| {
        if members.iter().any(|member| member == user) {
            Role::Write
        } else {
            Role::Nothing
        }
    };
    if owner == user {
        return Role::Write;
    }
    if let Some(group) = config.groups.iter().find(|group| group.id == *owner) {
        return member(&group.members);
    }
    let library = |site: &&crate::config::SiteSpec| site.drives.contains(&drive.spec.id);
    match config.sites.iter().find(library) {
        Some(site) if !site.members.is_empty() => member(&site.members),
        _ if config.users.iter().any(|user| user.id == *owner) => Role::Nothing,
        _ => Role::Write,
    }
}

/// Stands for whoever asks with a permission that covers selected items only.
pub(crate) const SELECTED: &str = "selected";

/// Whether the caller's permissions cover selected items only.
fn is_choosy(caller: &Caller) -> bool {
    let selected = |name: &&String| {
        let name = name.to_ascii_lowercase();
        name.starts_with("files.") && name.ends_with(".selected")
    };
    let files = caller.permissions.iter().filter(|name| {
        let name = name.to_ascii_lowercase();
        name.starts_with("files.") || name.starts_with("sites.")
    });
    let (some, others) = files.fold((false, false), |(some, others), name| {
        let is = selected(&name);
        (some || is, others || !is)
    });
    some && !others
}

/// What a caller sees of a drive: all of it, or only these items, what is in them and what they
/// are in.
pub(crate) fn sight(caller: &Caller, drive: &Drive) -> Option<Vec<Idx>> {
    is_choosy(caller).then(|| shared_tops(&drive.tree.lock(), SELECTED))
}

/// Whether an item is among what is seen.
pub(crate) fn sees(tree: &Tree, tops: &[Idx], idx: Idx) -> bool {
    let related = |top: &Idx| tree.is_within(idx, *top) || tree.is_within(*top, idx);
    idx == ROOT || tops.iter().any(related)
}

/// What the caller may do with one item.
pub(crate) fn of_item(world: &World, caller: &Caller, drive: &Drive, idx: Idx) -> Role {
    if let Some(tops) = sight(caller, drive) {
        if of_drive(world, caller, drive) == Role::Nothing {
            return Role::Nothing;
        }
        let tree = drive.tree.lock();
        let seen = if sees(&tree, &tops, idx) {
            Role::Read
        } else {
            Role::Nothing
        };
        return seen.max(shared(&tree, SELECTED, idx));
    }
    let whole = of_drive(world, caller, drive);
    match caller.user.as_deref() {
        Some(user) if whole < Role::Write => whole.max(shared(&drive.tree.lock(), user, idx)),
        _ => whole,
    }
}

/// What was shared with a user of an item, by itself or with a folder above it.
fn shared(tree: &Tree, user: &str, idx: Idx) -> Role {
    let mut role = Role::Nothing;
    let mut at = idx;
    loop {
        let shares = tree.node(at).extra().map(|extra| extra.shares.as_slice());
        let own = shares.unwrap_or_default().iter();
        role = own
            .filter(|share| share.user == user)
            .map(Share::role)
            .fold(role, Role::max);
        if at == ROOT {
            return role;
        }
        at = tree.node(at).parent;
    }
}

/// Items of a drive that were shared with a user by themselves.
pub(crate) fn shared_tops(tree: &Tree, user: &str) -> Vec<Idx> {
    let with_user = |idx: &&Idx| {
        let node = tree.node(**idx);
        let shares = node.extra().map(|extra| extra.shares.as_slice());
        node.is_live() && shares.unwrap_or_default().iter().any(|s| s.user == user)
    };
    tree.shared.iter().filter(with_user).copied().collect()
}

/// Whether the caller reaches anything in a drive.
pub(crate) fn reaches(world: &World, caller: &Caller, drive: &Drive) -> bool {
    of_drive(world, caller, drive) > Role::Nothing
        || caller
            .user
            .as_deref()
            .is_some_and(|user| !shared_tops(&drive.tree.lock(), user).is_empty())
}

pub(crate) fn denied() -> ApiError {
    ApiError::new(403, "accessDenied", "Access denied")
}

/// Refuses what the caller may not do with an item.
pub(crate) fn require(
    world: &World,
    caller: &Caller,
    drive: &Drive,
    idx: Idx,
    role: Role,
) -> ApiResult<()> {
    if of_item(world, caller, drive, idx) >= role {
        Ok(())
    } else {
        Err(denied())
    }
}

/// Refuses drives in which the caller reaches nothing.
pub(crate) fn require_drive(world: &World, caller: &Caller, drive: &Drive) -> ApiResult<()> {
    if reaches(world, caller, drive) {
        Ok(())
    } else {
        Err(denied())
    }
}

/// Shares an item, or changes how it is shared.
pub(crate) fn share(tree: &mut Tree, idx: Idx, user: &str, write: bool, now: i64) {
    let shares = &mut tree.node_mut(idx).extra_mut().shares;
    shares.retain(|share| share.user != user);
    shares.push(Share {
        user: user.to_owned(),
        write,
    });
    if !tree.shared.contains(&idx) {
        tree.shared.push(idx);
    }
    tree.touch(idx, now);
}

/// Ends the sharing of an item with a user.
pub(crate) fn unshare(tree: &mut Tree, idx: Idx, user: &str, now: i64) {
    let shares = &mut tree.node_mut(idx).extra_mut().shares;
    shares.retain(|share| share.user != user);
    tree.touch(idx, now);
}

/// The drives of a list that the caller may see.
pub(crate) fn visible(
    world: &World,
    caller: &Caller,
    drives: Vec<Arc<Drive>>,
) -> ApiResult<Vec<Arc<Drive>>> {
    let some = !drives.is_empty();
    let mut drives = drives;
    drives.retain(|drive| of_drive(world, caller, drive) > Role::Nothing);
    if some && drives.is_empty() {
        return Err(denied());
    }
    Ok(drives)
}
