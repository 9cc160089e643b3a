//! The identity platform: sign-in pages that approve by themselves, tokens that expire, refresh
//! tokens that rotate, and errors with the numbers that real clients look at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, Response};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::clock::iso;
use crate::config::{ClientSpec, DriveKind};
use crate::error::{ApiError, ApiResult, html, json_response};
use crate::request::{Req, form_pairs};
use crate::world::World;
use crate::{clouds, grants, sign_in};

/// Authorization codes live this long.
pub(crate) const CODE_LIFE_MS: i64 = 600_000;
/// Refresh tokens die after this long without use.
pub(crate) const REFRESH_LIFE_MS: i64 = 90 * 86_400_000;

/// Who makes a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The signed-in user; absent for app-only tokens.
    pub(crate) user: Option<String>,
    /// The application; absent for tokens that were made without one.
    pub(crate) application: Option<String>,
    /// What it may do; empty means everything.
    pub(crate) permissions: Vec<String>,
}

pub(crate) struct Access {
    pub(crate) user: Option<String>,
    pub(crate) application: Option<String>,
    pub(crate) expires_ms: i64,
    pub(crate) roles: bool,
    pub(crate) permissions: Vec<String>,
}

pub(crate) struct Refresh {
    pub(crate) client: String,
    pub(crate) user: String,
    pub(crate) scope: String,
    pub(crate) used_ms: i64,
}

pub(crate) struct Code {
    pub(crate) client: String,
    pub(crate) user: String,
    pub(crate) scope: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Option<String>,
    pub(crate) expires_ms: i64,
    pub(crate) used: bool,
}

pub(crate) struct Device {
    pub(crate) client: String,
    pub(crate) scope: String,
    pub(crate) user_code: String,
    pub(crate) polls: u32,
    pub(crate) slow_downs: u32,
    pub(crate) expires_ms: i64,
    pub(crate) approved: bool,
    pub(crate) declined: bool,
}

/// All tokens and codes.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) access: HashMap<String, Access>,
    pub(crate) refresh: HashMap<String, Refresh>,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) devices: HashMap<String, Device>,
    /// Applications and the tenants whose administrator agreed to them.
    pub(crate) consents: HashSet<(String, String)>,
}

impl Identity {
    pub(crate) fn expire_access(&mut self) {
        for access in self.access.values_mut() {
            access.expires_ms = 0;
        }
    }

    pub(crate) fn revoke_refresh(&mut self) {
        self.refresh.clear();
    }

    /// Approves or declines the open device codes.
    pub(crate) fn answer_devices(&mut self, approve: bool) -> usize {
        for device in self.devices.values_mut() {
            device.approved |= approve;
            device.declined |= !approve;
        }
        self.devices.len()
    }

    pub(crate) fn refresh_count(&self) -> usize {
        self.refresh.len()
    }
}

/// A refusal in the identity platform's words.
pub(crate) struct AadError {
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    pub(crate) number: u32,
    pub(crate) message: String,
    /// What has to be proven, to be passed on to the sign-in page.
    pub(crate) claims: Option<String>,
}

pub(crate) fn aad(error: &'static str, number: u32, message: &str) -> AadError {
    let status = if matches!(error, "invalid_client" | "unauthorized_client") {
        401
    } else {
        400
    };
    AadError {
        status,
        error,
        number,
        message: message.to_owned(),
        claims: None,
    }
}

impl AadError {
    /// What is said about it.
    pub(crate) fn description(&self) -> String {
        match self.number {
            0 => self.message.clone(),
            number => format!("AADSTS{number}: {}", self.message),
        }
    }

    fn respond(self, now: i64) -> Response<Body> {
        let ids = [
            uuid::Uuid::new_v4().to_string(),
            uuid::Uuid::new_v4().to_string(),
        ];
        let stamp = iso(now.div_euclid(1000) * 1000).replace('T', " ");
        let description = format!(
            "{} Trace ID: {} Correlation ID: {} Timestamp: {stamp}",
            self.description(),
            ids[0],
            ids[1]
        );
        let numbers: Vec<u32> = Some(self.number).filter(|n| *n > 0).into_iter().collect();
        let mut body = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": numbers,
            "timestamp": stamp,
            "trace_id": ids[0],
            "correlation_id": ids[1],
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.number),
        });
        if let Some(claims) = self.claims {
            body["claims"] = json!(claims);
        }
        json_response(self.status, &body)
    }
}

/// The endpoint that a path below the login host names, with its tenant.
pub(crate) fn endpoint(path: &str) -> Option<(&str, &'static str)> {
    let (tenant, rest) = path.strip_prefix('/')?.split_once('/')?;
    let endpoint = match rest {
        "oauth2/v2.0/authorize" | "oauth2/authorize" => "authorize",
        "oauth2/v2.0/token" | "oauth2/token" => "token",
        "oauth2/v2.0/devicecode" => "devicecode",
        _ if rest.eq_ignore_ascii_case("adminconsent") => "adminconsent",
        "v2.0/adminconsent" => "adminconsent",
        "oauth2/nativeclient" => "nativeclient",
        "oauth2/v2.0/logout" => "logout",
        _ => return None,
    };
    Some((tenant, endpoint))
}

/// Serves the login host.
pub(crate) async fn serve(
    world: &Arc<World>,
    tenant: &str,
    endpoint: &str,
    mut req: Req,
) -> ApiResult<Response<Body>> {
    match endpoint {
        "authorize" => {
            let mut form = Form {
                pairs: form_pairs(&req.query.raw),
            };
            if req.method == Method::POST {
                let body = req.bytes().await?;
                form.pairs
                    .extend(form_pairs(&String::from_utf8_lossy(&body)));
            }
            if let Err(refusal) = clouds::sign_in(world, &req, tenant, &form) {
                return Ok(html(400, &refusal.description()));
            }
            Ok(sign_in::authorize(world, tenant, &form))
        }
        "adminconsent" => Ok(sign_in::admin_consent(world, tenant, &req)),
        "nativeclient" | "logout" => Ok(html(200, "You may close this window")),
        _ if req.method != Method::POST => {
            let refusal = aad(
                "invalid_request",
                900_561,
                "The endpoint only accepts POST.",
            );
            Ok(refusal.respond(world.now()))
        }
        _ => {
            let body = req.bytes().await?;
            let mut pairs = form_pairs(&String::from_utf8_lossy(&body));
            pairs.extend(
                req.header("authorization")
                    .and_then(basic_client)
                    .into_iter()
                    .flatten(),
            );
            let form = Form { pairs };
            let answer =
                clouds::sign_in(world, &req, tenant, &form).and_then(|()| match endpoint {
                    "devicecode" => grants::device_code(world, tenant, &form),
                    _ => grants::token(world, tenant, &form),
                });
            Ok(answer.unwrap_or_else(|refusal| refusal.respond(world.now())))
        }
    }
}

/// Client id and secret from an HTTP Basic header, which some OAuth libraries try first.
fn basic_client(header: &str) -> Option<[(String, String); 2]> {
    let bytes = STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some([
        ("client_id".into(), plain(id)),
        ("client_secret".into(), plain(secret)),
    ])
}

pub(crate) struct Form {
    pub(crate) pairs: Vec<(String, String)>,
}

impl Form {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    pub(crate) fn require(&self, name: &str) -> Result<&str, AadError> {
        self.get(name).ok_or_else(|| {
            let message = format!("The request body must contain the parameter '{name}'.");
            aad("invalid_request", 900_144, &message)
        })
    }
}

pub(crate) fn client(world: &World, id: &str) -> Result<ClientSpec, AadError> {
    let clients = world.clients.read();
    if clients.is_empty() {
        let any = ClientSpec {
            id: id.to_owned(),
            redirect_uris: Vec::new(),
            ..Default::default()
        };
        return Ok(any);
    }
    clients.iter().find(|c| c.id == id).cloned().ok_or_else(|| {
        let message = format!("Application with identifier '{id}' was not found in the directory.");
        AadError {
            status: 400,
            ..aad("unauthorized_client", 700_016, &message)
        }
    })
}

pub(crate) fn secret() -> String {
    let bytes: [u8; 48] = rand::random();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Makes an access token without any sign-in.
pub(crate) fn mint(world: &World, user: Option<String>, roles: bool) -> String {
    mint_for(world, user, None, roles, Vec::new())
}

/// Makes an access token for some permissions. Tokens of organisations can be read, those of
/// personal accounts cannot.
pub(crate) fn mint_for(
    world: &World,
    user: Option<String>,
    application: Option<String>,
    roles: bool,
    permissions: Vec<String>,
) -> String {
    let expires_ms = world.now() + world.knobs.read().token_ttl_s * 1000;
    let account = user
        .as_ref()
        .and_then(|user| world.config.users.iter().find(|u| u.id == *user));
    let personal = match account {
        Some(account) if !world.config.tenants.is_empty() => account.tenant == "consumers",
        Some(account) => {
            let drives = world.drives_of(&account.id);
            let kind = drives.first().map(|drive| drive.spec.kind);
            kind.is_none_or(|kind| kind == DriveKind::Personal)
        }
        None => false,
    };
    let token = if personal {
        format!("Ew{}", secret())
    } else {
        let tenant = account.map_or("", |account| account.tenant.as_str());
        let mut claims = json!({
            "aud": "https://graph.microsoft.com",
            "exp": expires_ms / 1000,
            "tid": tenant,
        });
        match &user {
            Some(_) => claims["scp"] = json!(permissions.join(" ")),
            None if roles => claims["roles"] = json!(permissions),
            None => {}
        }
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = json!({"typ": "JWT", "alg": "RS256"});
        format!(
            "{}.{}.{}",
            part(header.to_string()),
            part(claims.to_string()),
            secret()
        )
    };
    let access = Access {
        user,
        application,
        expires_ms,
        roles,
        permissions,
    };
    world.identity.lock().access.insert(token.clone(), access);
    token
}

/// Makes a refresh token without any sign-in.
pub(crate) fn mint_refresh(world: &World, user: &str, client: &str, scope: &str) -> String {
    let token = format!("1.{}", secret());
    let entry = Refresh {
        client: client.to_owned(),
        user: user.to_owned(),
        scope: scope.to_owned(),
        used_ms: world.now(),
    };
    world.identity.lock().refresh.insert(token.clone(), entry);
    token
}

/// Who sent a Graph request.
pub(crate) fn caller(world: &World, authorization: Option<&str>) -> ApiResult<Caller> {
    let refused = |message: &str, detail: &str| {
        let challenge = format!(
            "Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\"{detail}",
            world.urls().api
        );
        ApiError::new(401, "InvalidAuthenticationToken", message)
            .header("www-authenticate", challenge)
    };
    let token = authorization.and_then(|a| {
        let (scheme, token) = a.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let token = token.ok_or_else(|| refused("Access token is empty.", ""))?;
    let identity = world.identity.lock();
    let access = identity.access.get(token);
    let access = access.ok_or_else(|| refused("IDX14100: JWT is not well formed.", ""))?;
    if access.expires_ms <= world.now() {
        let detail = ", error=\"invalid_token\", error_description=\"expired_token\"";
        return Err(refused(
            "Lifetime validation failed, the token is expired.",
            detail,
        ));
    }
    if !access.roles {
        let message = "Either scp or roles claim need to be present in the token.";
        return Err(ApiError::new(401, "unauthenticated", message));
    }
    Ok(Caller {
        user: access.user.clone(),
        application: access.application.clone(),
        permissions: access.permissions.clone(),
    })
}
