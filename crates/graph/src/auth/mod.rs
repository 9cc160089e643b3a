//! Signing in and staying signed in.
//!
//! Three ways lead to a token: a browser on this machine ([`CodeFlow`]), a code typed on another
//! device ([`login_device_code`]), and the secret of an application ([`client_credentials`]). A
//! [`TokenSource`] keeps the result fresh for all requests of an account, and a [`TokenStore`]
//! keeps it across restarts and shares it between processes.

mod advice;
mod certificate;
mod claims;
mod code;
mod consent;
mod device;
mod endpoint;
mod error;
mod key;
mod page;
mod pem;
mod source;
mod store;
mod token;

pub use advice::advice;
pub use certificate::{CertificateError, ClientCertificate, PublicCertificate, key_is_encrypted};
pub use claims::{Claims, claims};
pub use code::CodeFlow;
pub use consent::{ConsentResult, admin_consent_url, consent_result};
pub use device::{DevicePrompt, login_device_code};
pub use error::{LoginError, LoginErrorKind};
pub use source::{Reload, TokenSource};
pub use store::{TokenStore, Vault};
pub use token::TokenSet;

use crate::config::{AuthConfig, HttpOptions};
use crate::error::GraphError;

/// Asks for a token for the application itself, by its secret or its certificate.
///
/// # Errors
/// Either is missing or wrong, or the identity platform gives no answer.
pub async fn client_credentials(
    http: &HttpOptions,
    config: &AuthConfig,
) -> Result<TokenSet, GraphError> {
    let endpoint = endpoint::TokenEndpoint::new(http, config)?;
    Ok(endpoint.client_credentials().await?)
}
