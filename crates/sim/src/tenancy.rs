//! Who may sign in where: the tenant in the address, the accounts that an application is registered
//! for, and what somebody with authority has agreed to.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::{Audience, ClientSpec, TenantSpec, UserSpec};
use crate::identity::{AadError, aad};
use crate::world::World;

/// The name that personal accounts have in place of a tenant.
const CONSUMERS: &str = "consumers";

/// The tenant of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// There are no tenants in this simulation.
    Anywhere,
    /// Organisations and personal accounts.
    Common,
    /// Organisations.
    Organizations,
    /// Personal accounts.
    Consumers,
    /// One organisation.
    Tenant(String),
}

/// Finds the tenant of an address and checks whether the application may be used there.
pub(crate) fn place(world: &World, segment: &str, client: &ClientSpec) -> Result<Place, AadError> {
    if client.disabled {
        let message = format!("Application '{}' is disabled.", client.id);
        return Err(aad("unauthorized_client", 7_000_112, &message));
    }
    if world.config.tenants.is_empty() {
        return Ok(Place::Anywhere);
    }
    let place = match segment.to_ascii_lowercase().as_str() {
        "common" => Place::Common,
        "organizations" => Place::Organizations,
        CONSUMERS => Place::Consumers,
        name => {
            let message = format!(
                "Tenant '{segment}' not found. Check to make sure you have the correct tenant ID."
            );
            let tenant = tenant(world, name);
            let tenant = tenant.ok_or_else(|| aad("invalid_request", 90_002, &message))?;
            Place::Tenant(tenant.id.clone())
        }
    };
    match (client.audience, &place) {
        (Audience::OneTenant, Place::Common | Place::Organizations | Place::Consumers) => {
            let message = format!(
                "Application '{}' is not configured as a multi-tenant application. Usage of the \
                 /common endpoint is not supported for such apps.",
                client.id
            );
            Err(aad("invalid_request", 50_194, &message))
        }
        (Audience::OneTenant, Place::Tenant(id)) if *id != client.tenant => {
            let message = format!(
                "Application with identifier '{}' was not found in the directory.",
                client.id
            );
            Err(AadError {
                status: 400,
                ..aad("unauthorized_client", 700_016, &message)
            })
        }
        (Audience::Organizations, Place::Consumers) => {
            let message = "Application is configured for use by Azure Active Directory users only. \
                           Please do not use the /consumers endpoint to serve this request.";
            Err(aad("invalid_request", 9_002_332, message))
        }
        (Audience::Personal, Place::Common | Place::Organizations | Place::Tenant(_)) => {
            let message = "Application is configured for use by Microsoft Account users only. \
                           Please use the /consumers endpoint to serve this request.";
            Err(aad("invalid_request", 9_002_331, message))
        }
        _ => Ok(place),
    }
}

fn tenant<'a>(world: &'a World, name: &str) -> Option<&'a TenantSpec> {
    world.config.tenants.iter().find(|tenant| {
        tenant.id.eq_ignore_ascii_case(name)
            || tenant
                .domains
                .iter()
                .any(|domain| domain.eq_ignore_ascii_case(name))
    })
}

/// Somebody who may sign in there: the one named, else the first.
pub(crate) fn person(
    world: &World,
    place: &Place,
    client: &ClientSpec,
    hint: Option<&str>,
) -> Result<UserSpec, AadError> {
    let users = &world.config.users;
    let named = hint.and_then(|h| users.iter().find(|u| u.upn.eq_ignore_ascii_case(h)));
    let fits = |user: &&UserSpec| match place {
        Place::Anywhere | Place::Common => true,
        Place::Organizations => user.tenant != CONSUMERS,
        Place::Consumers => user.tenant == CONSUMERS,
        Place::Tenant(id) => user.tenant == *id,
    };
    let user = named.or_else(|| users.iter().find(fits)).or(users.first());
    let user = user.ok_or_else(|| aad("login_required", 50_058, "Nobody can sign in here."))?;
    if !fits(&user) {
        let message = format!(
            "User account '{}' from identity provider does not exist in tenant and cannot access \
             the application in that tenant.",
            user.upn
        );
        return Err(aad("invalid_grant", 50_020, &message));
    }
    if user.disabled {
        return Err(aad(
            "invalid_grant",
            50_057,
            "The user account is disabled.",
        ));
    }
    let organization_only = matches!(
        client.audience,
        Audience::Organizations | Audience::OneTenant
    );
    if *place != Place::Anywhere && user.tenant == CONSUMERS && organization_only {
        // The sign-in of personal accounts answers without a number.
        let message = "The client does not exist or is not enabled for consumers. If you are the \
                       application developer, configure a new application.";
        return Err(aad("unauthorized_client", 0, message));
    }
    Ok(user.clone())
}

/// Checks that somebody with authority has agreed to the application.
pub(crate) fn consented(
    world: &World,
    user: &UserSpec,
    client: &ClientSpec,
) -> Result<(), AadError> {
    let Some(tenant) = tenant(world, &user.tenant).filter(|tenant| tenant.consent_by_admin) else {
        return Ok(());
    };
    let agreed = (client.id.clone(), tenant.id.clone());
    if world.identity.lock().consents.contains(&agreed) {
        return Ok(());
    }
    let message = format!(
        "An administrator of {} has set a policy that prevents you from granting {} the \
         permissions it is requesting.",
        tenant.id, client.id
    );
    Err(aad("access_denied", 90_094, &message))
}

/// Notes an administrator's consent; the tenant it is for.
pub(crate) fn agree(world: &World, place: &Place, client: &ClientSpec) -> String {
    let tenant = match place {
        Place::Tenant(id) => id.clone(),
        _ => match world.config.tenants.first() {
            Some(tenant) => tenant.id.clone(),
            None => "common".to_owned(),
        },
    };
    let agreed = (client.id.clone(), tenant.clone());
    world.identity.lock().consents.insert(agreed);
    tenant
}

/// Checks everything of a client assertion.
pub(crate) fn check_assertion(
    world: &World,
    tenant: &str,
    client: &ClientSpec,
    jwt: &str,
) -> Result<(), AadError> {
    let bad = |message: &str| aad("invalid_client", 700_027, message);
    let part = |text: Option<&str>| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text?).ok()?).ok()
    };
    let mut parts = jwt.split('.');
    let (header, claims) = (part(parts.next()), part(parts.next()));
    let (Some(header), Some(claims), Some(_)) = (header, claims, parts.next()) else {
        return Err(aad("invalid_client", 50_027, "The assertion is not a JWT."));
    };
    if !matches!(header["alg"].as_str(), Some("PS256" | "RS256")) {
        return Err(bad("The algorithm of the assertion is not supported."));
    }
    let print = header["x5t#S256"].as_str().or(header["x5t"].as_str());
    let print = print.ok_or_else(|| bad("The assertion names no certificate."))?;
    if !client.thumbprints.is_empty() && !client.thumbprints.iter().any(|t| t == print) {
        return Err(bad("The certificate is not registered."));
    }
    if !client.certificates.is_empty() {
        let known = client
            .certificates
            .iter()
            .filter_map(|pem| Registered::read(pem));
        let found = known.into_iter().find(|known| known.is_named(print));
        let found = found.ok_or_else(|| {
            bad("Client assertion contains an invalid signature. The key was not found.")
        })?;
        if !found.has_signed(header["alg"].as_str(), jwt) {
            return Err(bad("Client assertion contains an invalid signature."));
        }
    }
    let audience = format!("{}/{tenant}/oauth2/v2.0/token", world.urls().api);
    if claims["aud"].as_str() != Some(&audience) {
        return Err(bad("The audience of the assertion is wrong."));
    }
    let own = |key: &str| claims[key].as_str() == Some(client.id.as_str());
    if !own("iss") || !own("sub") || !claims["jti"].is_string() {
        return Err(bad(
            "Issuer and subject of the assertion must be the client id.",
        ));
    }
    let now = world.now().div_euclid(1000);
    let expired = claims["exp"].as_i64().is_none_or(|exp| exp < now);
    if expired || claims["nbf"].as_i64().is_some_and(|nbf| nbf > now + 300) {
        return Err(aad(
            "invalid_client",
            700_024,
            "The assertion is not within its time range.",
        ));
    }
    Ok(())
}

/// A registered certificate.
struct Registered {
    der: Vec<u8>,
    key: Vec<u8>,
}

impl Registered {
    fn read(pem: &str) -> Option<Self> {
        let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        let base64: String = body.split_whitespace().collect();
        let der = STANDARD.decode(base64).ok()?;
        let parsed = Certificate::from_der(&der).ok()?;
        let key = parsed.tbs_certificate.subject_public_key_info;
        let key = key.subject_public_key.as_bytes()?.to_vec();
        Some(Self { der, key })
    }

    fn is_named(&self, print: &str) -> bool {
        [&SHA256, &SHA1_FOR_LEGACY_USE_ONLY]
            .iter()
            .any(|&algorithm| URL_SAFE_NO_PAD.encode(digest(algorithm, &self.der)) == print)
    }

    fn has_signed(&self, algorithm: Option<&str>, jwt: &str) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match algorithm {
            Some("PS256") => &RSA_PSS_2048_8192_SHA256,
            _ => &RSA_PKCS1_2048_8192_SHA256,
        };
        let Some((text, signature)) = jwt.rsplit_once('.') else {
            return false;
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            return false;
        };
        let key = UnparsedPublicKey::new(algorithm, &self.key);
        key.verify(text.as_bytes(), &signature).is_ok()
    }
}
