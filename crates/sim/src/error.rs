//! Graph reports trouble as nested JSON, the identity platform as flat JSON, and the front end in
//! front of both as HTML. This is the one place that knows the shapes.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::clock;

/// A refusal as Graph words it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) inner: Option<String>,
    pub(crate) message: String,
    pub(crate) html: bool,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            code: code.into(),
            inner: None,
            message: message.into(),
            html: false,
            headers: Vec::new(),
        }
    }

    pub(crate) fn inner(mut self, code: &str) -> Self {
        self.inner = Some(code.into());
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(400, "invalidRequest", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "itemNotFound", "Item not found.")
    }

    pub(crate) fn exists() -> Self {
        Self::new(
            409,
            "nameAlreadyExists",
            "An item with the same name already exists.",
        )
    }

    pub(crate) fn precondition() -> Self {
        Self::new(
            412,
            "resourceModified",
            "ETag does not match current item's value.",
        )
        .inner("entityTagDoesNotMatch")
    }

    pub(crate) fn quota() -> Self {
        Self::new(
            507,
            "quotaLimitReached",
            "The user has exceeded their quota.",
        )
    }

    pub(crate) fn unsupported() -> Self {
        Self::new(501, "notSupported", "Operation is not supported.")
    }

    pub(crate) fn html() -> Self {
        let mut error = Self::new(400, "", "");
        error.html = true;
        error
    }

    pub(crate) fn io(error: &std::io::Error) -> Self {
        tracing::warn!(%error, "simulator storage failed");
        Self::new(
            500,
            "generalException",
            "General exception while processing.",
        )
    }

    pub(crate) fn body(&self) -> Value {
        let id = uuid::Uuid::new_v4().to_string();
        let mut inner = json!({
            "date": clock::iso(jiff::Timestamp::now().as_second() * 1000).trim_end_matches('Z'),
            "request-id": id,
            "client-request-id": id,
        });
        if let Some(code) = &self.inner {
            inner["code"] = json!(code);
        }
        json!({"error": {"code": self.code, "message": self.message, "innerError": inner}})
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = if self.html {
            html(self.status, "Bad Request - Invalid URL")
        } else {
            json_response(self.status, &self.body())
        };
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(*name, value);
            }
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: u16, body: &Value) -> Response<Body> {
    json_text(status, body.to_string())
}

/// A JSON answer that is written already.
pub(crate) fn json_text(status: u16, body: String) -> Response<Body> {
    let content_type = "application/json; odata.metadata=minimal";
    raw(status, content_type, body.into_bytes())
}

/// The page that the front end sends instead of JSON.
pub(crate) fn html(status: u16, title: &str) -> Response<Body> {
    let page = format!(
        "<!DOCTYPE HTML><HTML><HEAD><TITLE>{title}</TITLE></HEAD>\r\n\
         <BODY><h2>{title}</h2><hr><p>HTTP Error {status}.</p></BODY></HTML>\r\n"
    );
    raw(status, "text/html; charset=us-ascii", page.into_bytes())
}

/// An answer with any body.
pub(crate) fn raw(status: u16, content_type: &str, body: Vec<u8>) -> Response<Body> {
    let length = body.len();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert("request-id", request_id());
    response
}

/// An answer without a body.
pub(crate) fn empty(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert("request-id", request_id());
    response
}

/// A redirect.
pub(crate) fn redirect(status: u16, location: &str) -> Response<Body> {
    let mut response = empty(status);
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn request_id() -> HeaderValue {
    let id = uuid::Uuid::new_v4().to_string();
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"))
}
