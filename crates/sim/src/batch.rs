//! `$batch`: up to twenty requests in one, each with its own fate.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, json_response};
use crate::request::{Query, Req};
use crate::world::World;
use crate::{dispatch, route};

/// Most requests in one batch.
const MAX_REQUESTS: usize = 20;
/// Bodies of single answers are cut off here.
const BODY_LIMIT: usize = 4 << 20;

/// `POST /$batch`.
pub(crate) async fn serve(world: &Arc<World>, mut req: Req) -> ApiResult<Response<Body>> {
    let body = req.json().await?;
    let bad = |message: &str| ApiError::new(400, "BadRequest", message);
    let requests = body["requests"]
        .as_array()
        .ok_or_else(|| bad("requests is missing"))?;
    if requests.is_empty() || requests.len() > MAX_REQUESTS {
        return Err(bad(
            "Number of batch request steps exceeds the maximum value of 20.",
        ));
    }
    let ids: HashSet<&str> = requests.iter().filter_map(|r| r["id"].as_str()).collect();
    if ids.len() != requests.len() {
        return Err(bad("Request ids must be present and unique."));
    }
    let authorization = req.headers.get("authorization").cloned();
    let mut statuses: HashMap<String, u16> = HashMap::new();
    let mut responses = Vec::new();
    for request in requests {
        let id = request["id"].as_str().unwrap_or_default().to_owned();
        let failed = request["dependsOn"].as_array().is_some_and(|deps| {
            let status = |dep: &Value| statuses.get(dep.as_str().unwrap_or_default()).copied();
            deps.iter().any(|dep| status(dep).is_none_or(|s| s >= 400))
        });
        let answer = if failed {
            let error = ApiError::new(424, "failedDependency", "A dependency has failed.");
            json!({"id": id, "status": 424, "body": error.body()})
        } else {
            one(world, &id, request, authorization.clone()).await
        };
        statuses.insert(id, answer["status"].as_u64().unwrap_or(500) as u16);
        responses.push(answer);
    }
    // Order is not promised; make nobody rely on it.
    responses.reverse();
    Ok(json_response(200, &json!({"responses": responses})))
}

async fn one(
    world: &Arc<World>,
    id: &str,
    request: &Value,
    authorization: Option<HeaderValue>,
) -> Value {
    let result = run(world, request, authorization).await;
    let response = result.unwrap_or_else(ApiError::into_response);
    let status = response.status().as_u16();
    let headers: serde_json::Map<String, Value> = ["location", "retry-after", "content-type"]
        .iter()
        .filter_map(|name| {
            let value = response.headers().get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), json!(value)))
        })
        .collect();
    let bytes = axum::body::to_bytes(response.into_body(), BODY_LIMIT)
        .await
        .unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    json!({"id": id, "status": status, "headers": headers, "body": body})
}

async fn run(
    world: &Arc<World>,
    request: &Value,
    authorization: Option<HeaderValue>,
) -> ApiResult<Response<Body>> {
    let bad = |message: &str| ApiError::new(400, "BadRequest", message);
    let url = request["url"]
        .as_str()
        .ok_or_else(|| bad("url is missing"))?;
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let method = request["method"].as_str().unwrap_or("GET").to_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("bad method"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = value.as_str().map(HeaderValue::from_str);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            headers.insert(name, value);
        }
    }
    if let Some(value) = authorization {
        headers.insert("authorization", value);
    }
    let body = match &request["body"] {
        Value::Null => Body::empty(),
        _ if !headers.contains_key("content-type") => {
            return Err(bad("Content-Type is required with a body."));
        }
        body => Body::from(body.to_string()),
    };
    let parsed = route::parse(path);
    let op = dispatch::operation(&method, &parsed);
    let route = parsed?;
    if route == route::Route::Batch {
        return Err(bad("Batches cannot be nested."));
    }
    let query = Query::parse(query);
    let req = Req {
        method,
        path: path.to_owned(),
        query,
        headers,
        body,
    };
    Box::pin(dispatch::graph(world, op, route, req)).await
}
