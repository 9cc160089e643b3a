//! Reading content, in ranges, from pre-authenticated addresses.
//!
//! The address comes with the item, lives for minutes and must be used without our token. What it
//! returns is checked against what was asked: a server may ignore the range and send everything,
//! send another range, or stop early, and none of that may reach a cache as content.

use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, LOCATION,
    RANGE,
};
use http::{HeaderMap, StatusCode};
use onedrivefs_core::{ByteRange, CTag, DriveId, ETag, ExposeSecret as _, ItemId, SecretString};
use reqwest::Response;
use url::Url;

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::{Disposition, GraphError, RequestKind};
use crate::http_client::{Overflow, Traffic, host_of, read_bounded, transport_error};
use crate::send::{Call, ERROR_MAX_BYTES};
use crate::throttle::Pass;
use crate::wire::WireItem;

/// Redirects followed from one content address to the next; real ones use none or one.
const REDIRECTS_MAX: usize = 5;

/// The template shown for downloads.
const ROUTE: &str = "download";

/// Where the content of an item can be read for the next few minutes.
#[derive(Clone, Debug)]
pub struct DownloadSource {
    /// The address; whoever knows it can read, so treat it like a password.
    pub url: SecretString,
    /// The item's eTag when the address was fetched. The address serves the newest content.
    pub etag: Option<ETag>,
    /// The item's cTag when the address was fetched.
    pub ctag: Option<CTag>,
    /// The item's size in metadata, which need not be the number of bytes served.
    pub size: Option<u64>,
    /// When the address was fetched.
    pub obtained: Instant,
    /// Whether the address is Graph itself, which sends content without a redirect; then the token
    /// has to go along.
    via_graph: bool,
}

impl DownloadSource {
    /// An address without anything known about the content.
    pub(crate) fn unlabelled(url: SecretString, via_graph: bool) -> Self {
        Self {
            url,
            etag: None,
            ctag: None,
            size: None,
            obtained: Instant::now(),
            via_graph,
        }
    }
}

/// The body of a download, limited to the range that was asked for.
#[derive(Debug)]
pub struct RangeBody {
    /// Size of the whole content in bytes, where the server told it.
    pub total: Option<u64>,
    /// The entity tag of the answer.
    tag: Option<String>,
    response: Option<Response>,
    host: String,
    url: Option<Url>,
    /// Bytes to drop before the range begins.
    skip: u64,
    /// Bytes still wanted.
    left: u64,
    /// Bytes the server announced within the range, if it did.
    expected: Option<u64>,
    got: u64,
    idle: Duration,
    /// Its place among the requests under way.
    pass: Option<Pass>,
}

impl RangeBody {
    /// A body without bytes.
    fn empty(total: Option<u64>) -> Self {
        Self {
            total,
            tag: None,
            response: None,
            host: String::new(),
            url: None,
            skip: 0,
            left: 0,
            expected: Some(0),
            got: 0,
            idle: Duration::ZERO,
            pass: None,
        }
    }

    /// How the content host labels this state of the content, where it does. Labels are only
    /// comparable with each other; some hosts use the item's eTag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// How many bytes will come, where the server told.
    #[must_use]
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The next bytes of the range; `None` at its end.
    ///
    /// # Errors
    /// The connection broke or was silent for too long, or the body ended early.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, GraphError> {
        while self.left > 0 {
            let Some(mut bytes) = self.receive().await? else {
                let short = self.expected.filter(|&expected| self.got < expected);
                self.left = 0;
                self.pass = None;
                return match short {
                    Some(expected) => Err(GraphError::Truncated {
                        expected,
                        got: self.got,
                    }),
                    None => Ok(None),
                };
            };
            let drop = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            bytes.advance(drop);
            self.skip -= drop as u64;
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if bytes.is_empty() {
                continue;
            }
            self.left -= bytes.len() as u64;
            self.got += bytes.len() as u64;
            return Ok(Some(bytes));
        }
        (self.response, self.pass) = (None, None);
        Ok(None)
    }

    /// Receives from the connection.
    async fn receive(&mut self) -> Result<Option<Bytes>, GraphError> {
        let Some(response) = self.response.as_mut() else {
            return Ok(None);
        };
        match tokio::time::timeout(self.idle, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(_))
                if self.expected.is_some_and(|expected| self.got < expected) && self.got > 0 =>
            {
                // The connection was closed before the announced end.
                Err(GraphError::Truncated {
                    expected: self.expected.unwrap_or_default(),
                    got: self.got,
                })
            }
            Ok(Err(error)) => match &self.url {
                Some(url) => Err(transport_error(error, url, ROUTE)),
                None => Err(GraphError::Truncated {
                    expected: 0,
                    got: self.got,
                }),
            },
            Err(_elapsed) => Err(GraphError::Stalled {
                host: self.host.clone(),
                route: ROUTE,
                after: self.idle,
            }),
        }
    }
}

impl GraphClient {
    /// Fetches an address to read an item's content from.
    ///
    /// Where the item's metadata has none, `/content` is asked and its redirect used. Should that
    /// answer with the content itself, `/content` becomes the address.
    ///
    /// # Errors
    /// As every request; not found for items without content.
    pub async fn download_source(
        &self,
        drive: &DriveId,
        item: &ItemId,
    ) -> Result<DownloadSource, GraphError> {
        let (drive, item) = self.content_of(drive, item);
        let path = Endpoints::item_path(&drive, &item)?;
        let answer = self.get(&path, "/drives/{drive}/items/{item}").await?;
        let wire: WireItem = answer.json()?;
        let url = wire.download_url().map(str::to_owned);
        let found = wire
            .into_item()
            .ok_or_else(|| answer.malformed("an item without id"))?;
        // The service refuses infected content there, and with its reason.
        let url = url.filter(|_| !found.malware);
        let (url, via_graph) = match url {
            Some(url) => (self.endpoints.check_content_url(&url)?.into(), false),
            None => self.content_location(&path).await?,
        };
        Ok(DownloadSource {
            etag: found.etag,
            ctag: found.ctag,
            size: found.size,
            ..DownloadSource::unlabelled(SecretString::from(url), via_graph)
        })
    }

    /// Asks `/content` where the content is. Returns the address and whether it is Graph itself.
    pub(crate) async fn content_location(
        &self,
        item_path: &str,
    ) -> Result<(String, bool), GraphError> {
        let url = self.endpoints.graph_url(&format!("{item_path}/content"))?;
        let call = Call::get(url.clone(), "/drives/{drive}/items/{item}/content");
        // One byte is enough should the content come at once.
        let call = call.header(RANGE, HeaderValue::from_static("bytes=0-0"));
        match self.send(&call).await {
            Ok(answer) if answer.status.is_redirection() => {
                let target = answer
                    .location()
                    .ok_or_else(|| answer.malformed("a redirect without target"))?;
                let target = self.endpoints.check_content_url(target)?;
                Ok((target.into(), false))
            }
            Ok(_) | Err(GraphError::TooLarge { .. }) => Ok((url.into(), true)),
            // An empty file has no first byte.
            Err(error) if error.disposition() == Disposition::RangeMismatch => {
                Ok((url.into(), true))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a range of content. A range that reaches beyond the end brings what there is; use
    /// `u64::MAX` as the end to read all the rest.
    ///
    /// # Errors
    /// The address expired, the range begins beyond the end, or the server did not answer. Nothing
    /// is repeated here.
    pub async fn fetch(
        &self,
        source: &DownloadSource,
        range: ByteRange,
    ) -> Result<RangeBody, GraphError> {
        if range.start >= range.end {
            return Ok(RangeBody::empty(None));
        }
        let mut url = self
            .endpoints
            .check_content_url(source.url.expose_secret())?;
        let pass = self.throttle.pass().await;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.request_range(source, &url, &range).await?;
            if !response.status().is_redirection() {
                return self.judge(response, url, range, pass).await;
            }
            let target = response.headers().get(LOCATION);
            let target = target.and_then(|target| target.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            let target = target.ok_or_else(|| malformed("a redirect without target"))?;
            url = self.endpoints.check_content_url(target.as_str())?;
        }
        Err(malformed("too many redirects"))
    }

    /// Sends the request for a range.
    async fn request_range(
        &self,
        source: &DownloadSource,
        url: &Url,
        range: &ByteRange,
    ) -> Result<Response, GraphError> {
        let wanted = match range.end {
            u64::MAX => format!("bytes={}-", range.start),
            end => format!("bytes={}-{}", range.start, end - 1),
        };
        let client = self.http.for_url(url, Traffic::Content);
        let mut request = client
            .get(url.clone())
            .header(RANGE, wanted)
            .header(ACCEPT_ENCODING, "identity");
        if source.via_graph && self.endpoints.is_graph(url) {
            let token = self.tokens.access_token().await?;
            request = request.header(AUTHORIZATION, self.bearer(url, &token)?);
        }
        let limit = self.http.options().answer_timeout;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(sent) => sent.map_err(|error| transport_error(error, url, ROUTE)),
            Err(_elapsed) => Err(GraphError::Stalled {
                host: host_of(url),
                route: ROUTE,
                after: limit,
            }),
        }
    }

    /// Decides what an answer to a request for a range is worth.
    async fn judge(
        &self,
        response: Response,
        url: Url,
        range: ByteRange,
        pass: Pass,
    ) -> Result<RangeBody, GraphError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let idle = self.http.options().idle_timeout;
        let wanted = range.end - range.start;
        let mut body = RangeBody {
            total: None,
            tag: entity_tag(&headers),
            host: host_of(&url),
            url: Some(url),
            response: None,
            skip: 0,
            left: wanted,
            expected: None,
            got: 0,
            idle,
            pass: None,
        };
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let Some((first, last, total)) = content_range(&headers) else {
                    return Err(malformed("a partial answer that does not say which part"));
                };
                if first > range.start || last < range.start {
                    return Err(malformed("another range than asked for"));
                }
                body.total = total;
                body.skip = range.start - first;
                body.expected = Some((last + 1 - range.start).min(wanted));
            }
            StatusCode::OK => {
                body.total = content_length(&headers);
                body.skip = range.start;
                if let Some(total) = body.total {
                    if total <= range.start && range.start > 0 {
                        return Err(GraphError::RangeNotSatisfiable { total: Some(total) });
                    }
                    body.expected = Some((total - range.start).min(wanted));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
                let total = total.and_then(|text| text.strip_prefix("bytes */")?.parse().ok());
                if total == Some(0) && range.start == 0 {
                    return Ok(RangeBody::empty(total));
                }
                return Err(GraphError::RangeNotSatisfiable { total });
            }
            _ => {
                return Err(self
                    .refused_download(response, status, &headers, &pass)
                    .await);
            }
        }
        body.left = body.expected.unwrap_or(wanted);
        body.response = Some(response);
        body.pass = Some(pass);
        Ok(body)
    }

    /// Turns a refused download into an error.
    async fn refused_download(
        &self,
        response: Response,
        status: StatusCode,
        headers: &HeaderMap,
        pass: &Pass,
    ) -> GraphError {
        let idle = self.http.options().idle_timeout;
        let read = read_bounded(response, ERROR_MAX_BYTES, Overflow::Cut, idle, ROUTE);
        let body = read.await.unwrap_or_default();
        let error = self.refusal(status, headers, &body, RequestKind::Download, ROUTE, pass);
        let expired = matches!(status.as_u16(), 401 | 403 | 404 | 410);
        let malware = ["malwareDetected", "virusSuspicious"]
            .iter()
            .any(|code| error.has_code(code));
        if expired && !malware {
            return GraphError::UrlExpired {
                status: status.as_u16(),
            };
        }
        error
    }
}

/// Complains about an answer to a download.
fn malformed(reason: &str) -> GraphError {
    GraphError::Malformed {
        route: ROUTE,
        reason: reason.to_owned(),
        request_id: None,
    }
}

/// The entity tag of an answer.
fn entity_tag(headers: &HeaderMap) -> Option<String> {
    headers.get(ETAG)?.to_str().ok().map(str::to_owned)
}

/// The announced length of a body.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first and last offset of a partial answer, and the size of the whole where told.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u64>().ok()?);
    let sane = first <= last && last < u64::MAX;
    sane.then_some((first, last, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        for (text, expected) in [
            ("bytes 0-4/10", Some((0, 4, Some(10)))),
            ("bytes 5-9/*", Some((5, 9, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("items 0-1/2", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(text).unwrap());
            assert_eq!(content_range(&headers), expected, "{text}");
        }
    }
}
