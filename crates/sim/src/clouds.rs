//! National clouds, which are told apart by the host that is asked: each knows its own organisations
//! only, and tokens of one are worth nothing in another. Under any other name the simulator is all of
//! them at once.

use crate::config::TenantSpec;
use crate::error::{ApiError, ApiResult};
use crate::identity::{AadError, Caller, Form, aad};
use crate::request::Req;
use crate::route::Route;
use crate::world::World;

/// A cloud: its name, the host where people sign in, and the one of Graph.
struct Cloud {
    name: &'static str,
    login: &'static str,
    graph: &'static str,
}

const CLOUDS: [Cloud; 4] = [
    Cloud {
        name: GLOBAL,
        login: "login.microsoftonline.com",
        graph: "graph.microsoft.com",
    },
    Cloud {
        name: "usgov-l4",
        login: "login.microsoftonline.us",
        graph: "graph.microsoft.us",
    },
    Cloud {
        name: "usgov-l5",
        login: "login.microsoftonline.us",
        graph: "dod-graph.microsoft.us",
    },
    Cloud {
        name: CHINA,
        login: "login.chinacloudapi.cn",
        graph: "microsoftgraph.chinacloudapi.cn",
    },
];

const GLOBAL: &str = "global";

const CHINA: &str = "china";

/// The host that a request names, without its port.
fn host(req: &Req) -> &str {
    let host = req.header("host").unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

/// Where an organisation lives.
fn home(tenant: &TenantSpec) -> &str {
    if tenant.cloud.is_empty() {
        GLOBAL
    } else {
        &tenant.cloud
    }
}

/// Refuses a sign-in at the host of a cloud in which the tenant does not live, or for the Graph of
/// another one.
pub(crate) fn sign_in(world: &World, req: &Req, tenant: &str, form: &Form) -> Result<(), AadError> {
    let here: Vec<&Cloud> = CLOUDS.iter().filter(|it| it.login == host(req)).collect();
    if here.is_empty() {
        return Ok(());
    }
    let known = world.config.tenants.iter().find(|known| {
        let mut names = std::iter::once(&known.id).chain(&known.domains);
        names.any(|name| name.eq_ignore_ascii_case(tenant))
    });
    if let Some(known) = known.filter(|known| here.iter().all(|it| it.name != home(known))) {
        let message = format!(
            "The specified tenant '{tenant}' belongs to the National Cloud '{}'. Current cloud instance \
             '{}' does not federate with it.",
            home(known),
            host(req)
        );
        return Err(aad("invalid_request", 90_038, &message));
    }
    let resources = form.get("scope").unwrap_or_default().split(' ');
    for resource in resources.filter_map(|scope| scope.strip_prefix("https://")) {
        let name = resource.split('/').next().unwrap_or_default();
        if here.iter().all(|it| it.graph != name) {
            let message = format!(
                "The resource principal named https://{name} was not found in the tenant named {tenant}."
            );
            return Err(aad("invalid_resource", 500_011, &message));
        }
    }
    Ok(())
}

/// Refuses a token from another cloud, and what the cloud that is asked does not have.
pub(crate) fn graph(world: &World, caller: &Caller, route: &Route, req: &Req) -> ApiResult<()> {
    let Some(here) = CLOUDS.iter().find(|it| it.graph == host(req)) else {
        return Ok(());
    };
    let foreign = tenant_of(world, caller).is_some_and(|tenant| home(tenant) != here.name);
    if foreign {
        return Err(ApiError::new(
            401,
            "InvalidAuthenticationToken",
            "Access token validation failure. Invalid audience.",
        ));
    }
    let Route::Item(_, _, tail) = route else {
        return Ok(());
    };
    if here.name == CHINA && tail.first().is_some_and(|word| word == "delta") {
        return Err(ApiError::new(
            400,
            "invalidRequest",
            "Change tracking is not supported on this resource.",
        ));
    }
    if here.name == CHINA && req.path.contains(":/") {
        return Err(ApiError::bad_request(
            "The request is malformed or incorrect.",
        ));
    }
    Ok(())
}

/// The organisation that a token was given out in.
fn tenant_of<'a>(world: &'a World, caller: &Caller) -> Option<&'a TenantSpec> {
    let config = &world.config;
    let by_user = caller.user.as_ref().and_then(|id| {
        let user = config.users.iter().find(|user| user.id == *id)?;
        Some(user.tenant.clone())
    });
    let by_application = caller.application.as_ref().and_then(|id| {
        let client = config.clients.iter().find(|client| client.id == *id)?;
        Some(client.tenant.clone())
    });
    let id = by_user.or(by_application)?;
    config.tenants.iter().find(|tenant| tenant.id == id)
}
