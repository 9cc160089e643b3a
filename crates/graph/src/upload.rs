//! Writing content: small bodies at once, everything else through an upload session.
//!
//! Only a session sets the modification time with the content. Its address is pre-authenticated
//! and must be used without our token. A fragment whose answer got lost may have been stored, so
//! nothing is repeated here: the caller asks for the status and goes on from there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use onedrivefs_core::{ByteRange, ExposeSecret as _, RemoteItem, SecretString};
use reqwest::Response;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use url::Url;

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::{GraphError, RequestKind};
use crate::http_client::{Overflow, Traffic, host_of, read_bounded, transport_error};
use crate::items::{item_if_told, item_of};
use crate::lanes::Lane;
use crate::lenient;
use crate::models::{
    Conditions, FragmentOutcome, OnConflict, UploadProps, UploadSession, UploadStatus, UploadTarget,
};
use crate::send::{Call, ERROR_MAX_BYTES};
use crate::throttle::Pass;
use crate::wire::{WireItem, WireSession};

/// Time the service gets to answer once it has the last byte of a fragment; the last fragment of a
/// large file makes it assemble the file first.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);

/// Largest answer to a fragment or a question about a session.
const SESSION_MAX_BYTES: usize = 1 << 20;

/// The template shown for requests to a session.
const ROUTE: &str = "upload session";

/// Adds the conditions of a write to a request.
fn conditional(mut call: Call, conditions: &Conditions) -> Result<Call, GraphError> {
    if let Some(tag) = &conditions.if_match {
        call = call.tag(IF_MATCH, tag)?;
    }
    if conditions.if_none_match_any {
        call = call.header(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    Ok(call)
}

/// What to do when the name is taken. By its own item it always is, so that a replacement must not
/// fail over it.
fn behavior(target: &UploadTarget, conditions: &Conditions) -> OnConflict {
    match target {
        UploadTarget::Replace { .. } => OnConflict::Replace,
        UploadTarget::Create { .. } => conditions.on_conflict,
    }
}

impl GraphClient {
    /// The address of an action on the target of an upload.
    fn target_url(&self, target: &UploadTarget, action: &str) -> Result<Url, GraphError> {
        let path = match target {
            UploadTarget::Replace { drive, item } => {
                let (drive, item) = &self.content_of(drive, item);
                format!("{}{action}", Endpoints::item_path(drive, item)?)
            }
            UploadTarget::Create {
                drive,
                parent,
                name,
            } => self.endpoints.child_path(drive, parent, name, action)?,
        };
        self.endpoints.graph_url(&path)
    }

    /// Writes a small body in one request. The only way to write an empty file; cannot set times.
    ///
    /// # Errors
    /// As every change; conflict or changed when the conditions do not hold.
    pub async fn put_small(
        &self,
        target: &UploadTarget,
        body: Bytes,
        conditions: &Conditions,
    ) -> Result<RemoteItem, GraphError> {
        let mut url = self.target_url(target, "/content")?;
        let behavior = behavior(target, conditions).as_str();
        url.set_query(Some(&format!(
            "@microsoft.graph.conflictBehavior={behavior}"
        )));
        let mut call = Call::change(Method::PUT, url, "/drives/{drive}/items/{item}/content");
        call.body = Some(body);
        let binary = HeaderValue::from_static("application/octet-stream");
        call = conditional(call.header(CONTENT_TYPE, binary), conditions)?;
        let answer = self.send(&call).await?;
        let written = match item_if_told(&answer) {
            Some(item) => item,
            None => self.target_item(target).await?,
        };
        Ok(match target {
            UploadTarget::Replace { drive, item } => self.as_link(drive, item, written),
            UploadTarget::Create { .. } => written,
        })
    }

    /// Looks up what an upload wrote when its answer did not tell.
    async fn target_item(&self, target: &UploadTarget) -> Result<RemoteItem, GraphError> {
        let call = Call::get(self.target_url(target, "")?, "/drives/{drive}/items/{item}");
        item_of(&self.send(&call).await?)
    }

    /// Opens an upload session. Store its address before sending the first byte: it is the only
    /// way to resume, and on some drives an unfinished session blocks the name.
    ///
    /// # Errors
    /// As every change; conflict or changed when the conditions do not hold, quota when the drive
    /// has no room.
    pub async fn create_upload_session(
        &self,
        target: &UploadTarget,
        props: &UploadProps,
        conditions: &Conditions,
    ) -> Result<UploadSession, GraphError> {
        let url = self.target_url(target, "/createUploadSession")?;
        let mut item = Map::new();
        item.insert(
            "@microsoft.graph.conflictBehavior".to_owned(),
            behavior(target, conditions).as_str().into(),
        );
        // A name in the body of a replacement would be a rename.
        if let UploadTarget::Create { .. } = target {
            item.insert("name".to_owned(), props.name.clone().into());
        }
        item.insert("fileSize".to_owned(), props.size.into());
        let times = [
            ("createdDateTime", props.created),
            ("lastModifiedDateTime", props.modified),
        ];
        let times: Map<String, Value> = times
            .into_iter()
            .filter_map(|(key, time)| Some((key.to_owned(), time?.to_service().into())))
            .collect();
        if !times.is_empty() {
            item.insert("fileSystemInfo".to_owned(), times.into());
        }
        let route = "/drives/{drive}/items/{item}/createUploadSession";
        let call = Call::change(Method::POST, url, route).json(&json!({ "item": item }))?;
        let answer = self.send(&conditional(call, conditions)?).await?;
        let session: WireSession = answer.json()?;
        let url = session.upload_url.as_deref().unwrap_or_default();
        if url.is_empty() {
            return Err(answer.malformed("a session without address"));
        }
        self.endpoints.check_content_url(url)?;
        Ok(UploadSession {
            url: SecretString::from(url),
            expires: session.expires(),
            next_offset: session.next_offset().unwrap_or(0),
        })
    }

    /// Sends one fragment. All but the last must be a multiple of 320 KiB long, and they must come
    /// in order, one at a time.
    ///
    /// # Errors
    /// Session gone, range mismatch, conflict at the commit, quota; or no answer, after which the
    /// status tells whether the fragment was stored.
    pub async fn upload_fragment<S>(
        &self,
        url: &SecretString,
        range: ByteRange,
        total: u64,
        body: S,
    ) -> Result<FragmentOutcome, GraphError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        if range.start >= range.end || range.end > total {
            return Err(GraphError::config("a fragment must be a part of the file"));
        }
        let address = self.endpoints.check_content_url(url.expose_secret())?;
        let pass = self.throttle.pass().await;
        let gate = Arc::clone(self.throttle.gate());
        let rests = Lane::current() >= Lane::Upload;
        let body = body.then(move |piece| {
            let gate = Arc::clone(&gate);
            async move {
                if rests {
                    gate.rest().await;
                }
                piece
            }
        });
        let progress = Arc::new(Progress::new());
        let length = range.end - range.start;
        let body = FragmentBody {
            stream: Box::pin(body),
            left: length,
            progress: Arc::clone(&progress),
        };
        let request = self
            .http
            .for_url(&address, Traffic::Content)
            .put(address.clone())
            .header(
                CONTENT_RANGE,
                format!("bytes {}-{}/{total}", range.start, range.end - 1),
            )
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap(body));
        let idle = self.http.options().idle_timeout;
        let sent = tokio::select! {
            sent = request.send() => sent,
            after = progress.stalled(idle, length) => {
                return Err(GraphError::Stalled { host: host_of(&address), route: ROUTE, after });
            }
        };
        let response = sent.map_err(|error| transport_error(error, &address, ROUTE))?;
        let (status, body) = self.session_answer(response, &pass).await?;
        if matches!(status, StatusCode::OK | StatusCode::CREATED) {
            // Some services answer 200 to every fragment; a position tells that more is wanted.
            let position = lenient::parse::<WireSession>(&body).ok();
            let item = lenient::parse::<WireItem>(&body).ok();
            let item = item.and_then(WireItem::into_item);
            if item.is_some() || range.end >= total {
                return Ok(FragmentOutcome::Done(item));
            }
            return Ok(FragmentOutcome::Continue {
                next_offset: position
                    .as_ref()
                    .and_then(WireSession::next_offset)
                    .ok_or(GraphError::SessionUnclear)?,
                expires: position.as_ref().and_then(WireSession::expires),
            });
        }
        let session: WireSession = lenient::parse(&body).unwrap_or_default();
        Ok(FragmentOutcome::Continue {
            next_offset: session.next_offset().unwrap_or(range.end),
            expires: session.expires(),
        })
    }

    /// Asks a session how far it is.
    ///
    /// # Errors
    /// Session gone, or no answer.
    pub async fn upload_status(&self, url: &SecretString) -> Result<UploadStatus, GraphError> {
        let (_, body) = self.ask_session(Method::GET, url).await?;
        let session = lenient::parse::<WireSession>(&body);
        let session = session.unwrap_or_default();
        Ok(UploadStatus {
            next_offset: session.next_offset().ok_or(GraphError::SessionUnclear)?,
            expires: session.expires(),
        })
    }

    /// Gives up a session, which frees its name and its space. One that is gone already is fine.
    ///
    /// # Errors
    /// No answer, or a refusal other than "gone".
    pub async fn cancel_upload(&self, url: &SecretString) -> Result<(), GraphError> {
        match self.ask_session(Method::DELETE, url).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.status(), Some(404 | 410)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a request without a body to a session.
    async fn ask_session(
        &self,
        method: Method,
        url: &SecretString,
    ) -> Result<(StatusCode, Bytes), GraphError> {
        let address = self.endpoints.check_content_url(url.expose_secret())?;
        let pass = self.throttle.pass().await;
        let client = self.http.for_url(&address, Traffic::Content);
        let request = client.request(method, address.clone());
        let limit = self.http.options().answer_timeout;
        let exchange = async {
            let sent = request.send().await;
            let response = sent.map_err(|error| transport_error(error, &address, ROUTE))?;
            self.session_answer(response, &pass).await
        };
        let result = tokio::time::timeout(limit, exchange).await;
        result.unwrap_or_else(|_elapsed| {
            Err(GraphError::Stalled {
                host: host_of(&address),
                route: ROUTE,
                after: limit,
            })
        })
    }

    /// Reads the answer of a session, or turns it into an error.
    async fn session_answer(
        &self,
        response: Response,
        pass: &Pass,
    ) -> Result<(StatusCode, Bytes), GraphError> {
        let idle = self.http.options().idle_timeout;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            self.throttle.served(&headers);
            let refuse = Overflow::Refuse;
            let body = read_bounded(response, SESSION_MAX_BYTES, refuse, idle, ROUTE).await?;
            return Ok((status, body));
        }
        let body = read_bounded(response, ERROR_MAX_BYTES, Overflow::Cut, idle, ROUTE).await;
        let body = body.unwrap_or_default();
        Err(self.refusal(status, &headers, &body, RequestKind::Session, ROUTE, pass))
    }
}

/// When bytes last moved, so that a hung upload can be told from a slow one.
#[derive(Debug)]
struct Progress {
    begun: Instant,
    /// Milliseconds after `begun` at which the connection last took bytes.
    last_ms: AtomicU64,
    /// Bytes taken so far.
    taken: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last_ms: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// Notes that the connection took bytes.
    fn moved(&self, bytes: u64) {
        let now = self.begun.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns once nothing has moved for too long; once everything was taken, the service gets
    /// its time for the answer.
    async fn stalled(&self, idle: Duration, length: u64) -> Duration {
        loop {
            let allowed = if self.taken.load(Ordering::Relaxed) >= length {
                COMMIT_TIMEOUT.max(idle)
            } else {
                idle
            };
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let deadline = self.begun + last + allowed;
            if Instant::now() >= deadline {
                return allowed;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// A body of exactly the announced length.
struct FragmentBody<S> {
    stream: Pin<Box<S>>,
    left: u64,
    progress: Arc<Progress>,
}

impl<S: Stream<Item = io::Result<Bytes>>> Body for FragmentBody<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = std::task::ready!(self.stream.as_mut().poll_next(context));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                let length = bytes.len() as u64;
                if length > self.left {
                    let long = "the fragment has more bytes than announced";
                    return Poll::Ready(Some(Err(io::Error::other(long))));
                }
                self.left -= length;
                self.progress.moved(length);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.left > 0 => {
                let short = "the fragment has fewer bytes than announced";
                Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, short)))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_headers() {
        let url = Url::parse("https://graph.example/v1.0/x").unwrap();
        let conditions = Conditions {
            if_match: Some("\"{GUID},2\"".to_owned()),
            if_none_match_any: true,
            ..Conditions::default()
        };
        let call = conditional(Call::change(Method::PUT, url, "x"), &conditions).unwrap();
        assert_eq!(call.headers[IF_NONE_MATCH], "*");
        assert_eq!(call.headers[IF_MATCH], "\"{GUID},2\"");
    }
}
