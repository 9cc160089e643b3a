//! What the routes need to know about a request, independent of the HTTP library, so that a batch
//! can make requests of its own.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// JSON and form bodies are refused beyond this many bytes.
const BODY_LIMIT: usize = 4 << 20;

/// A query string, raw and parsed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) raw: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(raw: &str) -> Self {
        Query {
            raw: raw.to_owned(),
            pairs: form_pairs(raw),
        }
    }

    /// A parameter by name, in any case and with or without its `$`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let plain = |text: &str| text.trim_start_matches('$').to_ascii_lowercase();
        let found = self.pairs.iter().find(|(key, _)| plain(key) == plain(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn select(&self) -> Option<Vec<String>> {
        let fields = self.get("select")?.split(',').map(|f| f.trim().to_owned());
        Some(fields.filter(|f| !f.is_empty()).collect())
    }

    pub(crate) fn number(&self, name: &str) -> ApiResult<Option<usize>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|n| *n > 0);
        number
            .map(Some)
            .ok_or_else(|| ApiError::bad_request("Invalid query option."))
    }
}

/// Decodes `application/x-www-form-urlencoded` pairs.
pub(crate) fn form_pairs(raw: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = raw.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// A request on its way to a route.
pub(crate) struct Req {
    pub(crate) method: Method,
    /// Raw path below the API version.
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Req {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Whether one of the `Prefer` headers contains a word, in any case.
    pub(crate) fn prefers(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let values = self
            .headers
            .get_all("prefer")
            .iter()
            .filter_map(|v| v.to_str().ok());
        values
            .into_iter()
            .any(|v| v.to_ascii_lowercase().contains(&word))
    }

    pub(crate) async fn bytes(&mut self) -> ApiResult<Bytes> {
        let body = std::mem::take(&mut self.body);
        axum::body::to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|_| ApiError::new(413, "requestTooLarge", "The body could not be read."))
    }

    /// The body as a JSON object; an absent one counts as empty.
    pub(crate) async fn json(&mut self) -> ApiResult<Value> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
            ApiError::new(400, "BadRequest", "Unable to read JSON request payload.")
        })?;
        if !value.is_object() {
            return Err(ApiError::new(
                400,
                "BadRequest",
                "The payload is not an object.",
            ));
        }
        Ok(value)
    }
}
