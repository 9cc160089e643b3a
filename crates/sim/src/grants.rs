//! The token endpoint: every grant with its checks, and what comes out of it.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{ClientSpec, DeviceOutcome};
use crate::error::json_response;
use crate::identity::{
    self, AadError, Device, Form, REFRESH_LIFE_MS, aad, client, mint_refresh, secret,
};
use crate::tenancy::{self, Place};
use crate::world::World;

type TokenAnswer = Result<Response<Body>, AadError>;

pub(crate) fn token(world: &World, tenant: &str, form: &Form) -> TokenAnswer {
    let grant = form.require("grant_type")?;
    let client = client(world, form.require("client_id")?)?;
    let place = tenancy::place(world, tenant, &client)?;
    if let Some(scripted) = &world.knobs.read().token_error {
        return Err(scripted_error(scripted));
    }
    if grant != "client_credentials" {
        check_client(world, tenant, form, &client)?;
    }
    match grant {
        "authorization_code" => code_grant(world, form, &client),
        "refresh_token" => refresh_grant(world, form, &client),
        "client_credentials" => client_grant(world, tenant, form, &client, &place),
        "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => {
            device_grant(world, form, &client, &place)
        }
        _ => Err(aad(
            "unsupported_grant_type",
            70_003,
            "The grant type is not supported.",
        )),
    }
}

/// An error as a knob spells it: a number, or a word and a number.
fn scripted_error(text: &str) -> AadError {
    let (word, number) = text.rsplit_once(' ').unwrap_or(("invalid_grant", text));
    let word = match word {
        "invalid_client" => "invalid_client",
        "unauthorized_client" => "unauthorized_client",
        "invalid_request" => "invalid_request",
        "interaction_required" => "interaction_required",
        "consent_required" => "consent_required",
        "invalid_scope" => "invalid_scope",
        "access_denied" => "access_denied",
        "temporarily_unavailable" => "temporarily_unavailable",
        _ => "invalid_grant",
    };
    aad(word, number.parse().unwrap_or(0), "Scripted by the test.")
}

/// Checks how an application proves itself while it acts for a person.
fn check_client(
    world: &World,
    tenant: &str,
    form: &Form,
    client: &ClientSpec,
) -> Result<(), AadError> {
    let secret = form.get("client_secret");
    let assertion = form.get("client_assertion");
    // Registrations unknown to us may well have a secret.
    if world.clients.read().is_empty() {
        return Ok(());
    }
    let confidential = client.secret.is_some()
        || !client.certificates.is_empty()
        || !client.thumbprints.is_empty();
    if !confidential && (secret.is_some() || assertion.is_some()) {
        let message = "Client is public so neither 'client_assertion' nor 'client_secret' \
                       should be presented.";
        return Err(aad("invalid_client", 700_025, message));
    }
    match (secret, assertion) {
        (_, Some(assertion)) => tenancy::check_assertion(world, tenant, client, assertion),
        (Some(secret), None) => check_secret(client, secret),
        (None, None) if confidential && !client.public => Err(no_proof()),
        (None, None) => Ok(()),
    }
}

fn no_proof() -> AadError {
    let message = "The request body must contain 'client_assertion' or 'client_secret'.";
    aad("invalid_client", 7_000_218, message)
}

fn check_secret(client: &ClientSpec, sent: &str) -> Result<(), AadError> {
    if client
        .secret
        .as_deref()
        .is_some_and(|secret| secret != sent)
    {
        let message = "Invalid client secret provided. Ensure the secret being sent in the request \
                       is the client secret value, not the client secret ID.";
        return Err(aad("invalid_client", 7_000_215, message));
    }
    if client.secret_expired {
        let message = format!(
            "The provided client secret keys for app '{}' are expired.",
            client.id
        );
        return Err(aad("invalid_client", 7_000_222, &message));
    }
    Ok(())
}

fn code_grant(world: &World, form: &Form, client: &ClientSpec) -> TokenAnswer {
    let dead = |number, message: &str| aad("invalid_grant", number, message);
    let mut identity = world.identity.lock();
    let code = identity.codes.get_mut(form.require("code")?);
    let code = code.ok_or_else(|| dead(9_002_313, "The code is not valid."))?;
    if code.used {
        return Err(dead(
            54_005,
            "OAuth2 Authorization code was already redeemed.",
        ));
    }
    if code.expires_ms < world.now() {
        return Err(dead(70_008, "The provided authorization code has expired."));
    }
    if code.client != client.id {
        return Err(dead(
            700_005,
            "The code was issued for another application.",
        ));
    }
    if form.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
        return Err(dead(
            50_011,
            "The redirect URI does not match the one of the code.",
        ));
    }
    if let Some(challenge) = &code.challenge {
        let verifier = form.get("code_verifier");
        let verifier = verifier.ok_or_else(|| {
            dead(
                50_147,
                "Proof Key for Code Exchange is required: code_verifier is missing.",
            )
        })?;
        let made = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        if !(43..=128).contains(&verifier.len()) || made != *challenge {
            let message = "The Code_Verifier does not match the code_challenge.";
            return Err(dead(501_481, message));
        }
    }
    code.used = true;
    let (user, scope) = (code.user.clone(), code.scope.clone());
    drop(identity);
    Ok(issue(world, client, Some(user), &scope, true))
}

fn refresh_grant(world: &World, form: &Form, client: &ClientSpec) -> TokenAnswer {
    let token = form.require("refresh_token")?;
    let knobs = world.knobs.read().clone();
    if let Some(number) = knobs.refresh_error {
        return Err(aad(
            "invalid_grant",
            number,
            "The refresh token is no longer valid.",
        ));
    }
    if let Some(claims) = knobs.refresh_claims.clone() {
        let message = "Due to a configuration change made by your administrator, you must use \
                       multi-factor authentication.";
        return Err(AadError {
            claims: Some(claims),
            ..aad("interaction_required", 50_076, message)
        });
    }
    let (user, scope) = {
        let mut identity = world.identity.lock();
        let now = world.now();
        let known = identity
            .refresh
            .get_mut(token)
            .filter(|r| r.client == client.id && now - r.used_ms < REFRESH_LIFE_MS);
        let refresh = known.ok_or_else(|| {
            aad(
                "invalid_grant",
                700_082,
                "The refresh token has expired due to inactivity.",
            )
        })?;
        refresh.used_ms = now;
        let found = (refresh.user.clone(), refresh.scope.clone());
        if knobs.refresh_single_use {
            identity.refresh.remove(token);
        }
        found
    };
    let scope = form.get("scope").map_or(scope, str::to_owned);
    Ok(issue(
        world,
        client,
        Some(user),
        &(scope + " offline_access"),
        true,
    ))
}

fn client_grant(
    world: &World,
    tenant: &str,
    form: &Form,
    client: &ClientSpec,
    place: &Place,
) -> TokenAnswer {
    let shared = matches!(tenant, "common" | "consumers" | "organizations");
    if shared && !matches!(place, Place::Tenant(_)) {
        let message = "The application needs a tenant for client credentials.";
        return Err(aad("invalid_request", 90_124, message));
    }
    if !form.require("scope")?.ends_with("/.default") {
        return Err(aad(
            "invalid_scope",
            70_011,
            "The scope must end with /.default.",
        ));
    }
    if let Some(assertion) = form.get("client_assertion") {
        tenancy::check_assertion(world, tenant, client, assertion)?;
    } else {
        check_secret(client, form.get("client_secret").ok_or_else(no_proof)?)?;
    }
    Ok(issue(world, client, None, "", false))
}

pub(crate) fn device_code(world: &World, tenant: &str, form: &Form) -> TokenAnswer {
    let client = client(world, form.require("client_id")?)?;
    tenancy::place(world, tenant, &client)?;
    if !client.public {
        let message = "The request body must contain 'client_assertion' or 'client_secret'.";
        return Err(aad("invalid_client", 7_000_218, message));
    }
    let knobs = world.knobs.read().clone();
    let code = secret();
    let user_code = format!("{:08X}", rand::random::<u32>());
    let device = Device {
        client: client.id,
        scope: form.get("scope").unwrap_or_default().to_owned(),
        user_code: user_code.clone(),
        polls: 0,
        slow_downs: 0,
        expires_ms: world.now() + knobs.device_ttl_s * 1000,
        approved: false,
        declined: knobs.device_outcome == DeviceOutcome::Decline,
    };
    world.identity.lock().devices.insert(code.clone(), device);
    let uri = "https://microsoft.com/devicelogin";
    let message = format!(
        "To sign in, use a web browser to open the page {uri} and enter the code {user_code} \
         to authenticate."
    );
    let body = json!({
        "device_code": code,
        "user_code": user_code,
        "verification_uri": uri,
        "expires_in": knobs.device_ttl_s,
        "interval": knobs.device_interval_s,
        "message": message,
    });
    Ok(json_response(200, &body))
}

fn device_grant(world: &World, form: &Form, client: &ClientSpec, place: &Place) -> TokenAnswer {
    let code = form.require("device_code")?;
    let knobs = world.knobs.read().clone();
    let scope = {
        let mut identity = world.identity.lock();
        let device = identity
            .devices
            .get_mut(code)
            .filter(|d| d.client == client.id);
        let device =
            device.ok_or_else(|| aad("bad_verification_code", 70_019, "The code is not valid."))?;
        if device.slow_downs < knobs.device_slow_downs {
            device.slow_downs += 1;
            return Err(aad("slow_down", 70_016, "Polling too fast."));
        }
        let expired = device.expires_ms < world.now();
        device.polls += 1;
        let waited = device.polls > knobs.device_polls;
        tracing::debug!(user_code = %device.user_code, polls = device.polls, "device code polled");
        if waited && device.declined {
            return Err(aad("authorization_declined", 70_018, "The user declined."));
        }
        if expired || (waited && knobs.device_outcome == DeviceOutcome::Expire) {
            return Err(aad("expired_token", 70_020, "The code has expired."));
        }
        let auto = knobs.device_outcome == DeviceOutcome::Approve && waited;
        if !device.approved && !auto {
            let message = "OAuth 2.0 device flow error. Authorization is pending.";
            return Err(aad("authorization_pending", 70_016, message));
        }
        let scope = device.scope.clone();
        identity.devices.remove(code);
        scope
    };
    let user = tenancy::person(world, place, client, None)?;
    tenancy::consented(world, &user, client)?;
    Ok(issue(world, client, Some(user.id), &scope, true))
}

/// Hands out tokens.
fn issue(
    world: &World,
    client: &ClientSpec,
    user: Option<String>,
    scope: &str,
    delegated: bool,
) -> Response<Body> {
    let knobs = world.knobs.read().clone();
    let ttl = knobs.token_ttl_s;
    let roles = delegated || client.app_roles;
    let limited = |word: &&str| {
        let short = word.rsplit('/').next().unwrap_or_default();
        let granted = knobs.grant_only.as_ref();
        granted.is_none_or(|only| only.iter().any(|name| name.eq_ignore_ascii_case(short)))
    };
    let words: Vec<&str> = scope
        .split(' ')
        .filter(|w| !w.is_empty())
        .filter(limited)
        .collect();
    let oidc = ["offline_access", "openid", "profile", "email"];
    let granted: Vec<&str> = words
        .iter()
        .copied()
        .filter(|w| !oidc.contains(w))
        .collect();
    let permissions: Vec<String> = if delegated {
        let short = |word: &&str| word.rsplit('/').next().unwrap_or_default().to_owned();
        granted.iter().map(short).collect()
    } else if client.roles.is_empty() {
        // What the guides for such applications ask for.
        ["Files.ReadWrite.All", "Sites.Read.All", "User.Read.All"]
            .map(str::to_owned)
            .to_vec()
    } else {
        client.roles.clone()
    };
    let application = Some(client.id.clone());
    let access = identity::mint_for(world, user.clone(), application, roles, permissions);
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": ttl,
        "ext_expires_in": ttl,
        "access_token": access,
    });
    if delegated {
        body["scope"] = json!(granted.join(" "));
    }
    if let Some(user) = user {
        if words.contains(&"openid") {
            let claims = json!({"sub": user, "aud": client.id});
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            body["id_token"] = json!(format!(
                "{}.{}.",
                part(&json!({"alg": "none"})),
                part(&claims)
            ));
        }
        if words.contains(&"offline_access") {
            let refresh = mint_refresh(world, &user, &client.id, &granted.join(" "));
            body["refresh_token"] = json!(refresh);
        }
    }
    let mut response = json_response(200, &body);
    let no_store = http::HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(http::header::CACHE_CONTROL, no_store);
    response
}
