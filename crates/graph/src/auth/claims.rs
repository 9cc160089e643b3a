//! What an access token of an organisation says about itself.
//!
//! Tokens are opaque to clients and nothing is decided by what stands in one: requests are sent and
//! the service judges. But an answer to an application does not list what was granted, and a person
//! who looks for what is wrong with a registration needs exactly that list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onedrivefs_core::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// What is granted, for showing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Permissions of the application itself.
    pub roles: Vec<String>,
    /// Permissions on behalf of a person.
    pub scopes: Vec<String>,
    /// The tenant's id.
    pub tenant: Option<String>,
    /// The application's name in the directory.
    pub application: Option<String>,
}

/// Reads the claims; `None` for a token that is no JWT, such as all of personal accounts.
#[must_use]
pub fn claims(token: &SecretString) -> Option<Claims> {
    let part = token.expose_secret().split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let text = |key: &str| value.get(key)?.as_str().map(crate::error::clean);
    let roles = value.get("roles").and_then(Value::as_array);
    let roles = roles.into_iter().flatten().filter_map(Value::as_str);
    Some(Claims {
        roles: roles.map(crate::error::clean).collect(),
        scopes: text("scp")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        tenant: text("tid"),
        application: text("app_displayname"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_that_are_readable_are_read() {
        let body = r#"{"roles":["Files.Read.All"],"scp":"a b","tid":"t"}"#;
        let token = format!("x.{}.y", URL_SAFE_NO_PAD.encode(body));
        let found = claims(&token.into()).unwrap();
        assert_eq!(found.roles, ["Files.Read.All"]);
        assert_eq!(found.scopes, ["a", "b"]);
        for opaque in ["", "EwB4", "a.b.c", "a.e30x.c"] {
            assert_eq!(claims(&opaque.to_owned().into()), None, "{opaque}");
        }
    }
}
