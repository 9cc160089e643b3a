//! Talking to the token endpoint.
//!
//! The OAuth library builds the requests and reads the answers; our own HTTP client carries them,
//! smooths out what the library is strict about (a byte order mark, a lifetime as text) and keeps
//! secrets out of every error.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, ClientSecret, DeviceAuthorizationUrl,
    EndpointNotSet, EndpointSet, ErrorResponseType, HttpRequest, HttpResponse, PkceCodeVerifier,
    RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardErrorResponse, TokenResponse as _,
    TokenUrl,
};
use onedrivefs_core::{ExposeSecret as _, SecretString, Timestamp};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::certificate::ClientCertificate;
use super::claims::claims;
use super::error::{LoginError, LoginErrorKind};
use super::token::TokenSet;
use crate::config::{AuthConfig, HttpOptions};
use crate::error::{GraphError, with_causes};
use crate::http_client::{HttpClients, Overflow, Traffic, read_bounded};
use crate::lenient;
use crate::throttle::retry_after;

/// Largest answer of the identity platform that is read; real ones are below 10 KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Life assumed for a token whose answer does not tell: short, because an early renewal is cheap.
const UNKNOWN_LIFE: Duration = Duration::from_secs(10 * 60);

/// Parameters of requests that must never show up in an error.
const SECRET_PARAMETERS: [&str; 6] = [
    "refresh_token",
    "client_secret",
    "client_assertion",
    "code",
    "code_verifier",
    "device_code",
];

/// Says what kind of statement a client assertion is (RFC 7523).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The OAuth client with the addresses that all flows use.
pub(super) type OauthClient =
    BasicClient<EndpointNotSet, EndpointSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The token endpoint of a tenant, for one application.
#[derive(Debug)]
pub(super) struct TokenEndpoint {
    pub(super) oauth: OauthClient,
    http: HttpClients,
    scopes: Vec<Scope>,
    client_id: String,
    token_url: Url,
    certificate: Option<Arc<ClientCertificate>>,
}

impl TokenEndpoint {
    /// Prepares the endpoint. Does not connect to anything.
    pub(super) fn new(http: &HttpOptions, config: &AuthConfig) -> Result<Self, GraphError> {
        if config.client_id.trim().is_empty() {
            return Err(GraphError::config("there is no client id; configure one"));
        }
        config.check()?;
        let token_url = config.login_url("token")?;
        let device_url = DeviceAuthorizationUrl::from_url(config.login_url("devicecode")?);
        let client_id = config.client_id.trim().to_owned();
        let mut oauth = BasicClient::new(ClientId::new(client_id.clone()))
            .set_token_uri(TokenUrl::from_url(token_url.clone()))
            .set_device_authorization_url(device_url)
            .set_auth_type(AuthType::RequestBody);
        if let Some(secret) = &config.client_secret {
            oauth = oauth.set_client_secret(ClientSecret::new(secret.expose_secret().into()));
        }
        Ok(Self {
            oauth,
            http: HttpClients::new(http)?,
            scopes: config
                .request_scopes()
                .into_iter()
                .map(Scope::new)
                .collect(),
            client_id,
            token_url,
            certificate: config.certificate.clone(),
        })
    }

    /// What proves the application beside its id and secret: nothing, or a signed statement.
    pub(super) fn proof(&self) -> Result<Vec<(&'static str, String)>, LoginError> {
        let Some(certificate) = &self.certificate else {
            return Ok(Vec::new());
        };
        let assertion = certificate.assertion(&self.client_id, &self.token_url);
        let assertion = assertion.ok_or_else(|| {
            let text = "Nothing could be signed with the private key of the certificate.";
            LoginError::new(LoginErrorKind::Refused, text)
        })?;
        Ok(vec![
            ("client_assertion_type", ASSERTION_TYPE.to_owned()),
            ("client_assertion", assertion.expose_secret().to_owned()),
        ])
    }

    /// What access is asked for.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        self.scopes.clone()
    }

    /// Renews a token.
    pub(super) async fn refresh(&self, refresh: &SecretString) -> Result<TokenSet, LoginError> {
        let refresh = RefreshToken::new(refresh.expose_secret().to_owned());
        let mut request = self.oauth.exchange_refresh_token(&refresh);
        for (name, value) in self.proof()? {
            request = request.add_extra_param(name, value);
        }
        let answer = request.request_async(self).await.map_err(login_error)?;
        let mut token = token_set(&answer);
        if token.refresh_token.is_none() {
            token.refresh_token = Some(refresh.secret().clone().into());
        }
        Ok(token)
    }

    /// Asks for a token for the application itself.
    pub(super) async fn client_credentials(&self) -> Result<TokenSet, LoginError> {
        let mut request = self.oauth.exchange_client_credentials();
        for (name, value) in self.proof()? {
            request = request.add_extra_param(name, value);
        }
        let answer = request
            .add_scopes(self.scopes())
            .request_async(self)
            .await
            .map_err(login_error)?;
        Ok(token_set(&answer))
    }

    /// Trades the code a browser brought for a token.
    pub(super) async fn redeem_code(
        &self,
        code: &SecretString,
        verifier: &SecretString,
        redirect: &str,
    ) -> Result<TokenSet, LoginError> {
        // By its text, which has to be the registered one to the byte.
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|_no_url| {
            LoginError::new(LoginErrorKind::Refused, "The redirect URI is no URL.")
        })?;
        let code = AuthorizationCode::new(code.expose_secret().to_owned());
        let mut request = self.oauth.exchange_code(code);
        for (name, value) in self.proof()? {
            request = request.add_extra_param(name, value);
        }
        let answer = request
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
            .set_redirect_uri(std::borrow::Cow::Owned(redirect))
            .request_async(self)
            .await
            .map_err(login_error)?;
        Ok(token_set(&answer))
    }

    /// Carries a request of the OAuth library over our own client.
    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, LoginError> {
        let offline = |why: String| {
            LoginError::new(
                LoginErrorKind::Offline,
                format!("Microsoft's sign-in service gave no answer: {why}"),
            )
        };
        let url = Url::parse(&request.uri().to_string())
            .map_err(|_error| LoginError::new(LoginErrorKind::Refused, "unusable login address"))?;
        let (parts, body) = request.into_parts();
        let secrets = secrets_of(&body);
        let client = self.http.for_url(&url, Traffic::Api);
        let sent = client
            .request(parts.method, url)
            .headers(parts.headers)
            .body(body)
            .send();
        let exchange = async {
            let response = sent
                .await
                .map_err(|error| offline(with_causes(&error.without_url())))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let idle = self.http.options().idle_timeout;
            let body = read_bounded(response, ANSWER_MAX_BYTES, Overflow::Refuse, idle, "login");
            let body = body.await.map_err(|error| offline(error.to_string()))?;
            if status.as_u16() == 429 || status.is_server_error() {
                let text = format!("Microsoft's sign-in service has trouble (HTTP {status}).");
                return Err(LoginError {
                    retry_after: retry_after(&headers, SystemTime::now()),
                    ..LoginError::new(LoginErrorKind::Transient, text)
                });
            }
            let smooth = smooth(&body, &secrets).ok_or_else(|| {
                let text = format!(
                    "The sign-in service sent something else than it should (HTTP {status}). \
                     Check the login address, the tenant and any proxy."
                );
                LoginError::new(LoginErrorKind::Transient, text)
            })?;
            let mut answer = HttpResponse::new(smooth);
            *answer.status_mut() = status;
            let json = http::HeaderValue::from_static("application/json");
            answer.headers_mut().insert(CONTENT_TYPE, json);
            Ok(answer)
        };
        let limit = self.http.options().answer_timeout;
        let result = tokio::time::timeout(limit, exchange).await;
        result.unwrap_or_else(|_elapsed| Err(offline(format!("silent for {} s", limit.as_secs()))))
    }
}

impl<'c> AsyncHttpClient<'c> for TokenEndpoint {
    type Error = LoginError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, LoginError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.carry(request))
    }
}

/// Longest claims that are passed on; they go into an address.
const CLAIMS_MAX_BYTES: usize = 4096;

/// The secrets in the body of a request.
fn secrets_of(body: &[u8]) -> Vec<SecretString> {
    /// Shorter values would blot out innocent words.
    const MIN_SECRET_BYTES: usize = 6;
    form_urlencoded::parse(body)
        .filter(|(key, value)| {
            SECRET_PARAMETERS.contains(&key.as_ref()) && value.len() >= MIN_SECRET_BYTES
        })
        .map(|(_, value)| SecretString::from(value.into_owned()))
        .collect()
}

/// Makes an answer digestible for the OAuth library; `None` when it is no JSON object.
fn smooth(body: &[u8], secrets: &[SecretString]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(lenient::strip_bom(body)).ok()?;
    let object = value.as_object_mut()?;
    for key in ["expires_in", "interval"] {
        let Some(found) = object.get(key) else {
            continue;
        };
        let number = match found {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => object.insert(key.to_owned(), number.into()),
            None => object.remove(key),
        };
    }
    if object.contains_key("access_token") {
        object.insert("token_type".to_owned(), "Bearer".into());
        object.retain(|_, value| !value.is_null());
    }
    if let Some(error) = object.get("error").and_then(Value::as_str) {
        let told = object.get("error_description").and_then(Value::as_str);
        let mut told = told.unwrap_or_default().to_owned();
        let number = object
            .get("error_codes")
            .and_then(|codes| codes.get(0)?.as_u64());
        if let Some(number) = number.filter(|_| !told.contains("AADSTS")) {
            told = format!("AADSTS{number}: {told}");
        }
        for secret in secrets {
            told = told.replace(secret.expose_secret(), "[redacted]");
        }
        let claims = object.get("claims").and_then(Value::as_str);
        let claims = claims.filter(|claims| claims.len() <= CLAIMS_MAX_BYTES);
        // The library has no place for them; where it leads for help nobody asks.
        let plain = serde_json::json!({
            "error": error,
            "error_description": told,
            "error_uri": claims,
        });
        return serde_json::to_vec(&plain).ok();
    }
    serde_json::to_vec(&value).ok()
}

/// Translates a failure of the OAuth library.
pub(super) fn login_error<T>(
    error: RequestTokenError<LoginError, StandardErrorResponse<T>>,
) -> LoginError
where
    T: ErrorResponseType + AsRef<str> + std::fmt::Display + 'static,
{
    match error {
        RequestTokenError::ServerResponse(answer) => LoginError {
            claims: answer.error_uri().cloned(),
            ..LoginError::from_answer(
                answer.error().as_ref(),
                answer.error_description().map(String::as_str),
            )
        },
        RequestTokenError::Request(error) => error,
        // These carry the body, which may hold tokens: say only that it was no good.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => LoginError::new(
            LoginErrorKind::Transient,
            "The sign-in service sent an answer that cannot be understood.",
        ),
    }
}

/// Translates an answer with a token.
pub(super) fn token_set(answer: &BasicTokenResponse) -> TokenSet {
    let issued_at = Timestamp::now();
    let life = answer.expires_in().unwrap_or(UNKNOWN_LIFE);
    let life = i64::try_from(life.as_nanos()).unwrap_or(i64::MAX);
    let access_token: SecretString = answer.access_token().secret().clone().into();
    let told = answer.scopes().map(Vec::as_slice).unwrap_or_default();
    let mut scope: Vec<String> = told.iter().map(|scope| scope.to_string()).collect();
    if scope.is_empty()
        && let Some(claims) = claims(&access_token)
    {
        scope = [claims.roles, claims.scopes].concat();
    }
    TokenSet {
        access_token,
        refresh_token: answer
            .refresh_token()
            .map(|token| token.secret().clone().into()),
        issued_at,
        expires_at: Timestamp::from_nanos(issued_at.as_nanos().saturating_add(life)),
        scope,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_made_digestible() {
        let body = b"\xEF\xBB\xBF{\"access_token\":\"a\",\"expires_in\":\"3599\",\"scope\":null}";
        let value: Value = serde_json::from_slice(&smooth(body, &[]).unwrap()).unwrap();
        assert_eq!(value["expires_in"], 3599);
        assert_eq!(value["token_type"], "Bearer");
        assert!(smooth(b"<html>", &[]).is_none());
    }

    #[test]
    fn errors_never_repeat_a_secret() {
        let secrets = secrets_of(b"grant_type=refresh_token&refresh_token=hush%2Fhush&client_id=x");
        let body = br#"{"error":"invalid_grant","error_description":"bad hush/hush","error_codes":[700082]}"#;
        let text = String::from_utf8(smooth(body, &secrets).unwrap()).unwrap();
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("AADSTS700082"), "{text}");
    }
}
