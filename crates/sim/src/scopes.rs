//! What a token's permissions let it do. A token without a list may do everything.

use http::Method;

use crate::error::{ApiError, ApiResult};
use crate::identity::Caller;
use crate::route::{Anchor, DriveRef, Route};
use crate::world::World;

/// What has to be granted for a request, any of the names.
type Names = &'static [&'static str];

const PROFILE: Names = &[
    "User.Read",
    "User.ReadWrite",
    "User.Read.All",
    "User.ReadBasic.All",
    "User.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];
const USERS: Names = &[
    "User.Read.All",
    "User.ReadBasic.All",
    "User.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];
const READ_OWN: Names = &[
    "Files.Read",
    "Files.ReadWrite",
    "Files.Read.All",
    "Files.ReadWrite.All",
    "Files.Read.Selected",
    "Files.ReadWrite.Selected",
    "Sites.Read.All",
    "Sites.ReadWrite.All",
    "Sites.Manage.All",
    "Sites.FullControl.All",
];
const WRITE_OWN: Names = &[
    "Files.ReadWrite",
    "Files.ReadWrite.All",
    "Files.ReadWrite.Selected",
    "Sites.ReadWrite.All",
    "Sites.Manage.All",
    "Sites.FullControl.All",
];
const READ_ALL: Names = &[
    "Files.Read.All",
    "Files.ReadWrite.All",
    "Sites.Read.All",
    "Sites.ReadWrite.All",
    "Sites.Manage.All",
    "Sites.FullControl.All",
    "Sites.Selected",
];
const WRITE_ALL: Names = &[
    "Files.ReadWrite.All",
    "Sites.ReadWrite.All",
    "Sites.Manage.All",
    "Sites.FullControl.All",
    "Sites.Selected",
];
const SITES: Names = &[
    "Sites.Read.All",
    "Sites.ReadWrite.All",
    "Sites.Manage.All",
    "Sites.FullControl.All",
    "Sites.Selected",
];
const TEAMS: Names = &[
    "Team.ReadBasic.All",
    "TeamSettings.Read.All",
    "TeamSettings.ReadWrite.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];
const CHANNELS: Names = &[
    "Channel.ReadBasic.All",
    "ChannelSettings.Read.All",
    "ChannelSettings.ReadWrite.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];
const GROUPS: Names = &[
    "GroupMember.Read.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];
const APP_FOLDER: &str = "Files.ReadWrite.AppFolder";

/// Refuses what the permissions of the caller do not cover.
pub(crate) fn check(
    world: &World,
    caller: &Caller,
    route: &Route,
    method: &Method,
) -> ApiResult<()> {
    if caller.permissions.is_empty() {
        return Ok(());
    }
    let read = *method == Method::GET || *method == Method::HEAD;
    let has = |name: &str| {
        caller
            .permissions
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    };
    let files = |drive: &DriveRef, read: bool| match (is_own(world, caller, drive), read) {
        (true, true) => READ_OWN,
        (true, false) => WRITE_OWN,
        (false, true) => READ_ALL,
        (false, false) => WRITE_ALL,
    };
    let names = match route {
        Route::Batch | Route::Subscriptions(_) => return Ok(()),
        Route::User(None) => PROFILE,
        Route::User(Some(_)) | Route::Users => USERS,
        Route::Group(_) | Route::Groups => GROUPS,
        Route::JoinedTeams => TEAMS,
        Route::Team(_, rest) => match rest.last().map(String::as_str) {
            Some("filesFolder") => READ_ALL,
            Some("channels" | "allChannels") => CHANNELS,
            _ => TEAMS,
        },
        Route::Site(_) | Route::Sites => SITES,
        Route::Drive(drive) | Route::Drives(drive) | Route::Search(drive, _) => files(drive, true),
        Route::SharedWithMe | Route::Share(..) | Route::SearchQuery => READ_ALL,
        Route::Item(drive, path, _) => {
            let folder = matches!(&path.anchor, Anchor::Special(name) if name.eq_ignore_ascii_case("approot"));
            let by_id = matches!(&path.anchor, Anchor::Id(id) if id != "root");
            if has(APP_FOLDER) && is_own(world, caller, drive) && (folder || by_id) {
                return Ok(());
            }
            files(drive, read)
        }
    };
    if names.iter().any(|name| has(name)) {
        return Ok(());
    }
    Err(match route {
        Route::User(_)
        | Route::Users
        | Route::Group(_)
        | Route::Groups
        | Route::JoinedTeams
        | Route::Team(..) => ApiError::new(
            403,
            "Authorization_RequestDenied",
            "Insufficient privileges to complete the operation.",
        ),
        _ => ApiError::new(403, "accessDenied", "Access denied"),
    })
}

/// Whether a drive is the caller's.
fn is_own(world: &World, caller: &Caller, drive: &DriveRef) -> bool {
    let Some(user) = &caller.user else {
        return false;
    };
    match drive {
        DriveRef::Me => true,
        DriveRef::Id(id) => world
            .drive(id)
            .is_some_and(|drive| drive.spec.owner == *user),
        DriveRef::User(name) => {
            let known = world.config.users.iter().find(|u| u.id == *user);
            name == user || known.is_some_and(|u| u.upn.eq_ignore_ascii_case(name))
        }
        DriveRef::Site(_) => false,
    }
}
