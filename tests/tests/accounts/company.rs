//! An organisation whose people work together: a team with channels, a site with two libraries, and
//! drives of which parts are shared.

use onedrivefs_sim::{
    ChannelSpec, DriveHandle, DriveKind, DriveSpec, GroupSpec, SimConfig, SiteSpec,
};
use onedrivefs_tests::{Home, Service};

use crate::world;

/// The site's address.
pub(crate) const SITE: &str = "https://contoso.sharepoint.com/sites/plans";

/// The library that is the site's default one.
pub(crate) const LIBRARY: &str = "b!library";

/// The drive of the team.
pub(crate) const TEAM_DRIVE: &str = "b!team";

/// The id of the team.
pub(crate) const TEAM: &str = "aaaaaaaa-0000-0000-0000-000000000001";

/// Describes that organisation.
pub(crate) fn company(config: &mut SimConfig) {
    world::organisation(config);
    let library = |id: &str, name: &str, owner: &str| DriveSpec {
        id: id.into(),
        name: name.into(),
        owner: owner.into(),
        kind: DriveKind::DocumentLibrary,
        ..DriveSpec::default()
    };
    config.drives.extend([
        library(LIBRARY, "Documents", "site-1"),
        library("b!archive", "Archive", "site-1"),
        library(TEAM_DRIVE, "Documents", TEAM),
        library("b!private", "Documents", "site-2"),
    ]);
    config.sites = vec![SiteSpec {
        id: "contoso.sharepoint.com,1,2".into(),
        host: "contoso.sharepoint.com".into(),
        path: "/sites/plans".into(),
        name: "Plans".into(),
        drives: vec![LIBRARY.into(), "b!archive".into()],
        ..SiteSpec::default()
    }];
    let channel = |id: &str, name: &str, drive: &str| ChannelSpec {
        id: format!("19:{id}@thread.tacv2"),
        name: name.into(),
        drive: drive.into(),
        ..ChannelSpec::default()
    };
    config.groups = vec![GroupSpec {
        id: TEAM.into(),
        name: "Bridge builders".into(),
        members: vec!["ada".into()],
        team: true,
        channels: vec![
            channel("a", "General", ""),
            channel("b", "Site work", ""),
            channel("c", "Board", "b!private"),
        ],
    }];
}

/// That organisation, running.
pub(crate) fn start() -> Service {
    Service::with(company)
}

/// A drive of it.
pub(crate) fn drive(service: &Service, id: &str) -> DriveHandle {
    service.drive(id).expect("drive")
}

/// The drive of the person called Ben, of which Ada sees what he shares.
pub(crate) fn bens(service: &Service) -> DriveHandle {
    service.drives().remove(1)
}

/// Signs Ada in with some permissions.
pub(crate) fn log_in(home: &Home<'_>, scopes: &[&str]) {
    let mut arguments = vec!["login", "--device-code", "--client-id", "public"];
    for scope in scopes.iter().chain(&["offline_access", "User.Read"]) {
        arguments.extend(["--scope", scope]);
    }
    home.run(&arguments).ok();
}
