//! The pages a browser would show: they approve by themselves, or refuse when scripted to, and go
//! back to the client only by redirect URIs that it may use.

use axum::body::Body;
use http::Response;
use percent_encoding::utf8_percent_encode;

use crate::config::ClientSpec;
use crate::error::{raw, redirect};
use crate::identity::{CODE_LIFE_MS, Code, Form, client, secret};
use crate::item_json::STRICT;
use crate::request::Req;
use crate::tenancy;
use crate::world::World;

/// Whether a redirect URI is acceptable: https or loopback, and registered up to the port.
fn redirect_allowed(client: &ClientSpec, uri: &str) -> bool {
    let (loopback, plain) = without_port(uri);
    if uri.starts_with("http://") && !loopback {
        return false;
    }
    if uri.ends_with("/common/oauth2/nativeclient") || client.redirect_uris.is_empty() {
        return loopback || uri.starts_with("https://") || uri.ends_with("nativeclient");
    }
    client
        .redirect_uris
        .iter()
        .any(|registered| without_port(registered).1 == plain)
}

/// Whether the URI is on loopback, and the URI without port and with a path.
fn without_port(uri: &str) -> (bool, String) {
    for host in ["http://localhost", "http://127.0.0.1"] {
        let Some(rest) = uri.strip_prefix(host) else {
            continue;
        };
        let digits = rest.strip_prefix(':').map_or(0, |port| {
            1 + port.bytes().take_while(u8::is_ascii_digit).count()
        });
        let path = &rest[digits..];
        if path.is_empty() || path.starts_with('/') {
            let path = if path.is_empty() { "/" } else { path };
            return (true, format!("{host}{path}"));
        }
    }
    (false, uri.to_owned())
}

pub(crate) fn authorize(world: &World, tenant: &str, form: &Form) -> Response<Body> {
    // Without a trustworthy redirect URI the page itself shows the error.
    let page = |message: &str| raw(400, "text/html; charset=utf-8", message.as_bytes().to_vec());
    let (Some(id), Some(uri)) = (form.get("client_id"), form.get("redirect_uri")) else {
        return page("AADSTS900144: The request must contain client_id and redirect_uri.");
    };
    let client = match client(world, id) {
        Ok(client) => client,
        Err(refusal) => return page(&format!("AADSTS{}: {}", refusal.number, refusal.message)),
    };
    if !redirect_allowed(&client, uri) {
        return page("AADSTS50011: The redirect URI does not match the ones configured.");
    }
    let place = match tenancy::place(world, tenant, &client) {
        Ok(place) => place,
        Err(refusal) => return page(&refusal.description()),
    };
    let state = form.get("state").unwrap_or_default();
    let back = |pairs: &[(&str, &str)]| {
        let join = if uri.contains('?') { '&' } else { '?' };
        let all = pairs.iter().copied().chain([("state", state)]);
        let query: Vec<String> = all
            .map(|(k, v)| format!("{k}={}", utf8_percent_encode(v, STRICT)))
            .collect();
        redirect(302, &format!("{uri}{join}{}", query.join("&")))
    };
    if let Some(error) = &world.knobs.read().authorize_error {
        let description = "AADSTS65004: User declined to consent to access the app.";
        return back(&[("error", error), ("error_description", description)]);
    }
    if form
        .get("response_type")
        .is_none_or(|t| !t.split(' ').any(|t| t == "code"))
    {
        return back(&[("error", "unsupported_response_type")]);
    }
    let challenge = form.get("code_challenge").map(str::to_owned);
    if challenge.is_some() && form.get("code_challenge_method") != Some("S256") {
        let description = "AADSTS501491: Invalid code challenge method.";
        return back(&[
            ("error", "invalid_request"),
            ("error_description", description),
        ]);
    }
    let allowed = tenancy::person(world, &place, &client, form.get("login_hint"))
        .and_then(|user| tenancy::consented(world, &user, &client).map(|()| user));
    let user = match allowed {
        Ok(user) => user.id,
        Err(refusal) => {
            let description = refusal.description();
            return back(&[
                ("error", refusal.error),
                ("error_description", &description),
            ]);
        }
    };
    let wanted = world.knobs.read().refresh_claims.clone();
    if wanted.is_some() && form.get("claims") == wanted.as_deref() {
        world.knobs.write().refresh_claims = None;
    }
    let code = format!("1.{}", secret());
    let entry = Code {
        client: id.to_owned(),
        user,
        scope: form.get("scope").unwrap_or_default().to_owned(),
        redirect_uri: uri.to_owned(),
        challenge,
        expires_ms: world.now() + CODE_LIFE_MS,
        used: false,
    };
    world.identity.lock().codes.insert(code.clone(), entry);
    back(&[("code", &code)])
}

/// The page on which an administrator agrees for everybody.
pub(crate) fn admin_consent(world: &World, tenant: &str, req: &Req) -> Response<Body> {
    let page = |message: &str| raw(400, "text/html; charset=utf-8", message.as_bytes().to_vec());
    let uri = req.query.get("redirect_uri").unwrap_or("http://localhost/");
    let client = match client(world, req.query.get("client_id").unwrap_or_default()) {
        Ok(client) => client,
        Err(refusal) => return page(&refusal.description()),
    };
    if !redirect_allowed(&client, uri) {
        return page("AADSTS50011: The redirect URI does not match the ones configured.");
    }
    let place = match tenancy::place(world, tenant, &client) {
        Ok(place) => place,
        Err(refusal) => return page(&refusal.description()),
    };
    let state = req.query.get("state").unwrap_or_default();
    let state = utf8_percent_encode(state, STRICT);
    if let Some(error) = &world.knobs.read().authorize_error {
        let description = "AADSTS65004: The administrator declined to consent.";
        let description = utf8_percent_encode(description, STRICT);
        let target = format!("{uri}?error={error}&error_description={description}&state={state}");
        return redirect(302, &target);
    }
    let tenant = tenancy::agree(world, &place, &client);
    redirect(
        302,
        &format!("{uri}?admin_consent=True&tenant={tenant}&state={state}#"),
    )
}
