//! Signing in with a code that is typed on another device.

use std::time::Duration;

use oauth2::{DeviceAuthorizationResponse, ExtraDeviceAuthorizationFields};
use serde::{Deserialize, Serialize};

use super::endpoint::{TokenEndpoint, login_error, token_set};
use super::token::TokenSet;
use crate::config::{AuthConfig, HttpOptions};
use crate::error::{GraphError, clean};

/// What to show to the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePrompt {
    /// The address to open on any device.
    pub verification_uri: String,
    /// The code to type there.
    pub user_code: String,
    /// Both in a sentence, in the words of the service.
    pub message: String,
    /// For how long the code is good.
    pub expires_in: Duration,
}

/// The sentence Microsoft adds to the standard answer.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Message {
    #[serde(default)]
    message: Option<String>,
}

impl ExtraDeviceAuthorizationFields for Message {}

/// Signs in with a device code. Calls `on_prompt` once, then waits for the person; dropping the
/// future gives up.
///
/// # Errors
/// The person declines or is too late, the application does not allow it, or the identity
/// platform gives no answer.
pub async fn login_device_code(
    http: &HttpOptions,
    config: &AuthConfig,
    mut on_prompt: impl FnMut(&DevicePrompt),
) -> Result<TokenSet, GraphError> {
    let endpoint = TokenEndpoint::new(http, config)?;
    let details: DeviceAuthorizationResponse<Message> = endpoint
        .oauth
        .exchange_device_code()
        .add_scopes(endpoint.scopes())
        .request_async(&endpoint)
        .await
        .map_err(login_error)?;
    let verification_uri = clean(details.verification_uri().as_str());
    let user_code = clean(details.user_code().secret());
    let told = details.extra_fields().message.as_deref().map(clean);
    on_prompt(&DevicePrompt {
        message: told.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            format!("To sign in, open {verification_uri} and enter the code {user_code}.")
        }),
        verification_uri,
        user_code,
        expires_in: details.expires_in(),
    });
    let mut request = endpoint.oauth.exchange_device_access_token(&details);
    for (name, value) in endpoint.proof()? {
        request = request.add_extra_param(name, value);
    }
    let answer = request
        .request_async(&endpoint, tokio::time::sleep, None)
        .await
        .map_err(login_error)?;
    tracing::info!("signed in with a device code");
    Ok(token_set(&answer))
}
