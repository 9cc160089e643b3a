//! The content host: pre-authenticated URLs that refuse an Authorization header, serve ranges and
//! run out.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::body::FileBody;
use crate::error::{ApiError, ApiResult};
use crate::item_json::mime;
use crate::request::Req;
use crate::world::World;

/// Bytes read from a body at a time.
const CHUNK: usize = 256 << 10;

/// `GET` of a download URL.
pub(crate) fn serve(world: &Arc<World>, req: &Req) -> ApiResult<Response<Body>> {
    if req.headers.contains_key("authorization") {
        let message = "Pre-authenticated URLs do not take an Authorization header.";
        return Err(ApiError::new(401, "unauthenticated", message));
    }
    let refused = |status| ApiError::new(status, "unauthenticated", "The URL is not valid.");
    let grant = world.grant(&req.query.raw).map_err(refused)?;
    let drive = world.drive(&grant.drive).ok_or_else(ApiError::not_found)?;
    let tree = drive.tree.lock();
    let known = (grant.idx as usize) < tree.nodes.len() && tree.node(grant.idx).is_live();
    if !known {
        return Err(ApiError::not_found());
    }
    let node = tree.node(grant.idx);
    let body = match grant.version {
        0 => node.file().map(|f| f.body.clone()),
        number => tree.version_body(grant.idx, number),
    };
    let body = body.ok_or_else(ApiError::not_found)?;
    let etag = tree.etag(grant.idx, node);
    let mut response = ranged(body, req, world.knobs.read().ignore_range);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(mime(&node.name)),
    );
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

enum Range {
    Whole,
    Part(u64, u64),
    Beyond,
}

fn parse_range(header: Option<&str>, size: u64) -> Range {
    let parse = || -> Option<(u64, u64)> {
        let spec = header?.trim().strip_prefix("bytes=")?;
        let (first, last) = spec.split_once('-')?;
        if first.is_empty() {
            let suffix: u64 = last.parse().ok()?;
            return Some((size.saturating_sub(suffix), size.saturating_sub(1)));
        }
        let first: u64 = first.parse().ok()?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            last.parse().ok()?
        };
        (first <= last).then_some((first, last))
    };
    match parse() {
        None => Range::Whole,
        Some((first, _)) if first >= size => Range::Beyond,
        Some((first, last)) => Range::Part(first, last.min(size - 1)),
    }
}

/// Answers with a body or the part of it that `Range` asks for.
pub(crate) fn ranged(body: FileBody, req: &Req, ignore_range: bool) -> Response<Body> {
    let size = body.size();
    let wanted = if ignore_range {
        None
    } else {
        req.header("range")
    };
    let (status, first, length) = match parse_range(wanted, size) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let head = req.method == http::Method::HEAD;
    let mut response = Response::new(if head || length == 0 {
        Body::empty()
    } else {
        stream(body, first, length)
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let range = match status {
        StatusCode::PARTIAL_CONTENT => format!("bytes {first}-{}/{size}", first + length - 1),
        StatusCode::RANGE_NOT_SATISFIABLE => format!("bytes */{size}"),
        _ => return response,
    };
    if let Ok(range) = HeaderValue::from_str(&range) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

fn stream(body: FileBody, first: u64, length: u64) -> Body {
    let chunks = futures_util::stream::unfold((body, first, length), |state| async move {
        let (body, at, left) = state;
        if left == 0 {
            return None;
        }
        let take = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let chunk = match body {
            FileBody::Spooled { .. } => {
                let own = body.clone();
                let read = tokio::task::spawn_blocking(move || own.read(at, take)).await;
                read.unwrap_or_else(|e| Err(std::io::Error::other(e)))
            }
            _ => body.read(at, take),
        };
        let took = chunk.as_ref().map_or(0, |c: &Bytes| c.len() as u64);
        let left = if took == 0 { 0 } else { left - took };
        Some((chunk, (body, at + took, left)))
    });
    Body::from_stream(chunks)
}
