//! The one path on which requests to Graph leave.
//!
//! Gate, bearer, request, classification, in this order. Reads are repeated here, within bounds;
//! a request that changes something is sent again only when the service said it did not even look
//! at it (an expired token).

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use crate::client::GraphClient;
use crate::error::{Disposition, GraphError, RequestKind, ServiceError};
use crate::http_client::{Overflow, Traffic, host_of, read_bounded, transport_error};
use crate::lenient;
use crate::throttle::{Pass, retry_after};

/// Largest JSON answer: a page of a thousand items is below 4 MiB.
pub(crate) const JSON_MAX_BYTES: usize = 64 << 20;

/// How much of an error's body is read.
pub(crate) const ERROR_MAX_BYTES: usize = 64 << 10;

/// How often a failed read is repeated.
const READ_RETRIES: u32 = 4;

/// How often a read is repeated that got no connection. Few, so that "offline" shows quickly; one
/// that ran into a timeout has waited long enough.
const OFFLINE_RETRIES: u32 = 1;

/// For how long reads are repeated before their failure is passed on.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// How often a request has its token replaced that the service refuses. A new one may be refused as
/// well, for a moment: by a server whose clock is behind, or that has not heard of it.
pub(crate) const REPLACEMENTS_MAX: u32 = 3;

/// First pause between attempts of a read; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// States wishes about the answer (RFC 7240).
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Asks for shortcuts to other drives, which are left out otherwise.
pub(crate) const SHORTCUTS: HeaderValue = HeaderValue::from_static("Include-Feature=AddToOneDrive");

/// Whether a failed request may be sent again without looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads.
    Safe,
    /// It changes something.
    Never,
}

/// A request to Graph.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// The template of the path, for logs and errors.
    pub(crate) route: &'static str,
    pub(crate) kind: RequestKind,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) repeat: Repeat,
}

impl Call {
    /// A read.
    pub(crate) fn get(url: Url, route: &'static str) -> Self {
        Self {
            method: Method::GET,
            url,
            route,
            kind: RequestKind::Resource,
            headers: HeaderMap::new(),
            body: None,
            repeat: Repeat::Safe,
        }
    }

    /// A change.
    pub(crate) fn change(method: Method, url: Url, route: &'static str) -> Self {
        Self {
            method,
            repeat: Repeat::Never,
            ..Self::get(url, route)
        }
    }

    /// Adds a JSON body.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self, GraphError> {
        let body = serde_json::to_vec(body).map_err(|error| GraphError::Malformed {
            route: self.route,
            reason: format!("the request cannot be written: {error}"),
            request_id: None,
        })?;
        self.body = Some(body.into());
        let json = HeaderValue::from_static("application/json");
        Ok(self.header(CONTENT_TYPE, json))
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds a tag as a header.
    pub(crate) fn tag(self, name: HeaderName, tag: &str) -> Result<Self, GraphError> {
        let value = HeaderValue::from_str(tag)
            .map_err(|_error| GraphError::config("a tag that is no header cannot be sent"))?;
        Ok(self.header(name, value))
    }

    /// Asks for shortcuts too.
    pub(crate) fn with_shortcuts(self) -> Self {
        self.header(PREFER, SHORTCUTS)
    }

    /// Says what the request addresses.
    pub(crate) fn kind(mut self, kind: RequestKind) -> Self {
        self.kind = kind;
        self
    }
}

/// An answer that is not an error; its body was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    route: &'static str,
}

impl Answer {
    /// Parses the body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, GraphError> {
        if !self.status.is_success() {
            return Err(self.malformed(format!("unexpected status {}", self.status.as_u16())));
        }
        lenient::parse(&self.body).map_err(|error| {
            // The position helps; the text around it might be a secret.
            self.malformed(format!(
                "no such JSON (line {}, column {}, {:?})",
                error.line(),
                error.column(),
                error.classify()
            ))
        })
    }

    /// The `Location` header.
    pub(crate) fn location(&self) -> Option<&str> {
        self.headers.get(http::header::LOCATION)?.to_str().ok()
    }

    /// Complains about the answer.
    pub(crate) fn malformed(&self, reason: impl Into<String>) -> GraphError {
        GraphError::Malformed {
            route: self.route,
            reason: reason.into(),
            request_id: request_id(&self.headers),
        }
    }
}

/// The number Microsoft's support asks for.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("request-id").or(headers.get("sprequestguid"))?;
    Some(crate::error::clean(id.to_str().ok()?))
}

/// A pause before another attempt.
fn pause_before(attempt: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << attempt.min(6))
        .mul_f64(rand::rng().random_range(0.5..=1.0))
}

impl GraphClient {
    /// Sends a request and returns its answer, unless that is an error.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, GraphError> {
        let answer = self.send_if(call, &|| true).await?;
        answer.ok_or_else(|| GraphError::config("a request was not sent"))
    }

    /// Sends a request if it is still wanted when its turn has come: what was true when it was made
    /// may be true no longer. Returns its answer, or `None` if it was not sent.
    pub(crate) async fn send_if(
        &self,
        call: &Call,
        is_wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Answer>, GraphError> {
        let started = Instant::now();
        let (mut replaced, mut failures) = (0, 0);
        for attempt in 1_u32.. {
            let pass = self.throttle.pass().await;
            let token = self.tokens.access_token().await?;
            if !is_wanted() {
                return Ok(None);
            }
            let result = self.attempt(call, Some(&token), attempt, &pass).await;
            drop(pass);
            let status = result
                .as_ref()
                .map_or_else(GraphError::status, |_| Some(200));
            if status.is_some_and(|status| status != 401) {
                self.tokens.accepted(&token);
            }
            let error = match result {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            match error.disposition() {
                Disposition::Reauth if replaced < replacements_of(&error) => {
                    if replaced > 0 {
                        tokio::time::sleep(pause_before(replaced)).await;
                    }
                    replaced += 1;
                    self.tokens.refreshed(&token).await?;
                    continue;
                }
                Disposition::RetryAfter(_) if call.repeat == Repeat::Safe => continue,
                disposition => {
                    let bound = match disposition {
                        Disposition::Retry => READ_RETRIES,
                        Disposition::Reauth if is_transient_refusal(&error) => READ_RETRIES,
                        Disposition::Offline if error.is_unreachable() => OFFLINE_RETRIES,
                        _ => 0,
                    };
                    let again = call.repeat == Repeat::Safe
                        && failures < bound
                        && started.elapsed() < READ_PATIENCE;
                    if !again {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(pause_before(failures)).await;
            failures += 1;
        }
        Err(GraphError::config("more attempts than can be counted"))
    }

    /// Sends a request once, in a span of its own.
    async fn attempt(
        &self,
        call: &Call,
        token: Option<&SecretString>,
        attempt: u32,
        pass: &Pass,
    ) -> Result<Answer, GraphError> {
        let span = tracing::debug_span!(
            "request",
            method = %call.method,
            route = call.route,
            attempt,
            status = tracing::field::Empty,
            request_id = tracing::field::Empty,
        );
        self.attempt_inner(call, token, pass).instrument(span).await
    }

    /// Sends a request once.
    pub(crate) async fn attempt_inner(
        &self,
        call: &Call,
        token: Option<&SecretString>,
        pass: &Pass,
    ) -> Result<Answer, GraphError> {
        let limit = self.http.options().answer_timeout;
        let exchange = self.exchange(call, token, pass);
        let result = tokio::time::timeout(limit, exchange).await;
        let result = result.unwrap_or_else(|_elapsed| {
            Err(GraphError::Stalled {
                host: host_of(&call.url),
                route: call.route,
                after: limit,
            })
        });
        match &result {
            Ok(_) => tracing::debug!("the service answered"),
            Err(error) => tracing::debug!(%error, "the request failed"),
        }
        result
    }

    /// Sends a request and reads its answer.
    async fn exchange(
        &self,
        call: &Call,
        token: Option<&SecretString>,
        pass: &Pass,
    ) -> Result<Answer, GraphError> {
        let client = self.http.for_url(&call.url, Traffic::Api);
        let mut request = client
            .request(call.method.clone(), call.url.clone())
            .header(ACCEPT, "application/json")
            .header("client-request-id", uuid::Uuid::new_v4().to_string())
            .headers(call.headers.clone());
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, self.bearer(&call.url, token)?);
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        } else if call.method == Method::POST {
            request = request.body(Bytes::new());
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| transport_error(error, &call.url, call.route))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let span = tracing::Span::current();
        span.record("status", status.as_u16());
        if let Some(id) = request_id(&headers) {
            span.record("request_id", id);
        }
        let idle = self.http.options().idle_timeout;
        if status.is_client_error() || status.is_server_error() {
            let cut = Overflow::Cut;
            let body = read_bounded(response, ERROR_MAX_BYTES, cut, idle, call.route).await;
            let body = body.unwrap_or_default();
            return Err(self.refusal(status, &headers, &body, call.kind, call.route, pass));
        }
        self.throttle.served(&headers);
        let refuse = Overflow::Refuse;
        let body = read_bounded(response, JSON_MAX_BYTES, refuse, idle, call.route).await?;
        Ok(Answer {
            status,
            headers,
            body,
            route: call.route,
        })
    }

    /// The header that proves who asks; only for the configured Graph.
    pub(crate) fn bearer(
        &self,
        url: &Url,
        token: &SecretString,
    ) -> Result<HeaderValue, GraphError> {
        if !self.endpoints.is_graph(url) {
            return Err(GraphError::ForeignLink { host: host_of(url) });
        }
        let text = SecretString::from(format!("Bearer {}", token.expose_secret()));
        let mut value = HeaderValue::from_str(text.expose_secret())
            .map_err(|_error| GraphError::config("the access token is no header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Turns an error answer into our error and lets the gate know.
    pub(crate) fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        kind: RequestKind,
        route: &'static str,
        pass: &Pass,
    ) -> GraphError {
        let mut service = ServiceError::from_body(status.as_u16(), request_id(headers), body);
        service.retry_after = retry_after(headers, std::time::SystemTime::now());
        if matches!(status.as_u16(), 429 | 503 | 509) {
            service.retry_after = Some(self.throttle.refused(pass, headers));
        } else {
            self.throttle.served(headers);
        }
        if headers.contains_key("x-virus-infected") && !service.has_code("malwareDetected") {
            service.codes.push("malwareDetected".to_owned());
        }
        if service.message.is_empty() {
            let reason = status.canonical_reason().unwrap_or("no explanation");
            service.message = reason.to_owned();
        }
        GraphError::Service {
            service: Box::new(service),
            kind,
            route,
        }
    }
}

/// How often a token is replaced that was refused in this way.
fn replacements_of(error: &GraphError) -> u32 {
    match is_transient_refusal(error) {
        true => 1,
        false => REPLACEMENTS_MAX,
    }
}

/// Recognises a refusal of a good token that passes by itself: personal accounts get it while the
/// service cannot reach its own identity store. It has no code of its own.
fn is_transient_refusal(error: &GraphError) -> bool {
    error
        .service()
        .is_some_and(|service| service.message.contains("initialize RPS"))
}
