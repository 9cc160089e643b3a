//! What can go wrong, and what each failure asks of the caller.
//!
//! The status of an answer decides first; then every error code from the outermost to the
//! innermost, without regard to case. Texts of the service are shown to people, cleaned of control
//! characters and of anything that could be a credential, and never decide anything.

use std::time::Duration;

use thiserror::Error;

use crate::auth::LoginError;

/// Longest text of the service that is kept, in characters; more would not help a reader.
const MESSAGE_MAX_CHARS: usize = 500;

/// Most nested error codes that are looked at; deeper nesting is nonsense.
const CODES_MAX: usize = 8;

/// Pause between two looks for a mounted folder that is gone: somebody may restore or share it again.
const FOLDER_PAUSE: Duration = Duration::from_secs(30);

/// What kind of resource a request addressed; the same status means different things for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// An item, a drive or anything else of Graph proper.
    Resource,
    /// A change feed from its beginning.
    DeltaStart,
    /// A change feed by a link of the service.
    DeltaLink,
    /// An upload session by its own URL.
    Session,
    /// A pre-authenticated download.
    Download,
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// No connection: name resolution, refusal, TLS.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke while in use.
    Broken,
}

/// How to begin anew after a change feed was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncKind {
    /// The service wins where the local copy was in sync.
    ApplyDifferences,
    /// Local items the service does not return are uploaded; differing ones are both kept.
    UploadDifferences,
}

/// What a failure asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Wait this long, then try again.
    RetryAfter(Duration),
    /// Try again with growing pauses; look first whether a mutation was applied.
    Retry,
    /// There was no answer at all.
    Offline,
    /// Somebody has to sign in again.
    Reauth,
    /// The item does not exist.
    NotFound,
    /// The name is taken.
    Conflict,
    /// The item changed meanwhile.
    Changed,
    /// The item is locked or checked out by somebody.
    Locked,
    /// The drive is full.
    QuotaFull,
    /// The upload session no longer exists; perhaps it was committed.
    SessionGone,
    /// The position or range does not fit; ask for the status and realign.
    RangeMismatch,
    /// The pre-authenticated URL expired; fetch a new one.
    UrlExpired,
    /// The change feed has to begin anew.
    Resync(ResyncKind),
    /// The drive or cloud lacks this feature.
    Unsupported,
    /// Trying again is of no use.
    Permanent,
}

/// A refusal in the service's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceError {
    /// HTTP status.
    pub status: u16,
    /// Error codes, outermost first, as sent.
    pub codes: Vec<String>,
    /// The explanation for people, cleaned.
    pub message: String,
    /// The number Microsoft's support asks for.
    pub request_id: Option<String>,
    /// How long to wait, where told.
    pub retry_after: Option<Duration>,
}

impl ServiceError {
    /// Tells whether any level of the answer has the code.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|own| own.eq_ignore_ascii_case(code))
    }

    /// Tells whether any level of the answer has any of the codes.
    fn has_any(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.has_code(code))
    }

    /// The most telling code, or the status when there is none.
    fn headline(&self) -> String {
        self.codes
            .iter()
            .find(|code| !code.is_empty())
            .map_or_else(|| format!("HTTP {}", self.status), Clone::clone)
    }

    /// Builds a refusal from what was read of its body, which may be anything.
    pub(crate) fn from_body(status: u16, request_id: Option<String>, body: &[u8]) -> Self {
        let mut error = Self {
            status,
            request_id,
            ..Self::default()
        };
        let body = crate::lenient::strip_bom(body);
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
            return error;
        };
        let mut level = value.get("error").unwrap_or(&value);
        if let Some(code) = level.as_str() {
            error.codes.push(clean(code));
        }
        for depth in 0..CODES_MAX {
            if let Some(code) = level.get("code").and_then(serde_json::Value::as_str) {
                error.codes.push(clean(code));
            }
            if depth == 0 {
                let text = level.get("message").and_then(serde_json::Value::as_str);
                error.message = clean(text.unwrap_or_default());
            }
            if error.request_id.is_none() {
                let id = level.get("request-id").and_then(serde_json::Value::as_str);
                error.request_id = id.map(clean);
            }
            let inner = level.get("innerError").or_else(|| level.get("innererror"));
            match inner {
                Some(inner) => level = inner,
                None => break,
            }
        }
        error
    }
}

/// Makes a text of the service harmless: one line, bounded, without control characters and
/// without the query of any URL, where credentials live.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let shown = if word.contains("://") {
            word.split(['?', '#']).next().unwrap_or_default()
        } else {
            word
        };
        out.extend(shown.chars().take(MESSAGE_MAX_CHARS));
        if out.len() > MESSAGE_MAX_CHARS {
            return out.chars().take(MESSAGE_MAX_CHARS).collect();
        }
    }
    out
}

/// An error with its causes, which say more than "error sending request".
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Everything a call of this crate can fail with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The configuration cannot work.
    #[error("{reason}")]
    Config {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// There is no usable token.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The service gave no (complete) answer.
    #[error("no answer from {host} ({route})")]
    Transport {
        /// How it failed.
        kind: TransportKind,
        /// The host asked.
        host: String,
        /// The template of the request.
        route: &'static str,
        /// The cause, without the URL.
        source: reqwest::Error,
    },
    /// The service was silent for too long.
    #[error("{host} was silent for {seconds} s ({route})", seconds = .after.as_secs())]
    Stalled {
        /// The host asked.
        host: String,
        /// The template of the request.
        route: &'static str,
        /// How long the silence was.
        after: Duration,
    },
    /// The service refused.
    #[error("{}: {} ({route}, HTTP {}{})", .service.headline(), .service.message, .service.status,
        .service.request_id.as_deref().map(|id| format!(", request {id}")).unwrap_or_default())]
    Service {
        /// The refusal.
        service: Box<ServiceError>,
        /// What was addressed.
        kind: RequestKind,
        /// The template of the request.
        route: &'static str,
    },
    /// A pre-authenticated URL is no longer accepted.
    #[error("the download link expired (HTTP {status})")]
    UrlExpired {
        /// HTTP status.
        status: u16,
    },
    /// The wanted range lies outside of the content.
    #[error("the range is not in the content ({} bytes)", .total.map_or_else(|| "unknown".to_owned(), |n| n.to_string()))]
    RangeNotSatisfiable {
        /// Size of the content in bytes, where told.
        total: Option<u64>,
    },
    /// A body ended before all of it was there.
    #[error("the body ended after {got} of {expected} bytes")]
    Truncated {
        /// Bytes announced.
        expected: u64,
        /// Bytes received.
        got: u64,
    },
    /// The upload session does not say what it has.
    #[error("the upload session does not tell its position")]
    SessionUnclear,
    /// An answer cannot be understood.
    #[error("unusable answer to {route}: {reason}{}",
        .request_id.as_deref().map(|id| format!(" (request {id})")).unwrap_or_default())]
    Malformed {
        /// The template of the request.
        route: &'static str,
        /// What is wrong with it.
        reason: String,
        /// The number Microsoft's support asks for.
        request_id: Option<String>,
    },
    /// An answer is larger than is reasonable.
    #[error("the answer to {route} is larger than {limit} bytes")]
    TooLarge {
        /// The template of the request.
        route: &'static str,
        /// The bound, in bytes.
        limit: usize,
    },
    /// The service sent a link that would carry the token, or us, somewhere else.
    #[error("refused a link to {host}, which is not the configured service")]
    ForeignLink {
        /// Where the link leads.
        host: String,
    },
    /// The push channel ended, or is none.
    #[error("the push channel of {host} {how}")]
    Channel {
        /// The host asked.
        host: String,
        /// What became of it.
        how: String,
    },
    /// The item is not in the folder that is looked at in the place of a drive.
    #[error("it is not in the mounted folder any more")]
    Outside,
    /// The folder that is looked at in the place of a drive cannot be had.
    #[error("the mounted folder is gone on the service, or not shared any more")]
    FolderGone,
    /// A local file could not be used.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl GraphError {
    /// A configuration that cannot work.
    pub(crate) fn config(reason: impl Into<String>) -> Self {
        Self::Config {
            reason: reason.into(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Login(error) => error.disposition(),
            Self::Transport {
                kind: TransportKind::Broken,
                ..
            }
            | Self::Truncated { .. }
            | Self::Channel { .. }
            | Self::Malformed { .. } => Disposition::Retry,
            Self::Transport { .. } | Self::Stalled { .. } => Disposition::Offline,
            Self::Service { service, kind, .. } => classify(service, *kind),
            Self::Outside => Disposition::NotFound,
            Self::FolderGone => Disposition::RetryAfter(FOLDER_PAUSE),
            Self::UrlExpired { .. } => Disposition::UrlExpired,
            Self::RangeNotSatisfiable { .. } => Disposition::RangeMismatch,
            Self::SessionUnclear => Disposition::SessionGone,
            Self::Config { .. }
            | Self::TooLarge { .. }
            | Self::ForeignLink { .. }
            | Self::Io { .. } => Disposition::Permanent,
        }
    }

    /// Tells whether there was no connection, and that was known at once.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Transport {
                kind: TransportKind::Connect,
                ..
            }
        )
    }

    /// Tells whether the item does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.disposition() == Disposition::NotFound
    }

    /// The number Microsoft's support asks for.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Service { service, .. } => service.request_id.as_deref(),
            Self::Malformed { request_id, .. } => request_id.as_deref(),
            _ => None,
        }
    }

    /// The HTTP status, when there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Service { service, .. } => Some(service.status),
            Self::UrlExpired { status } => Some(*status),
            Self::RangeNotSatisfiable { .. } => Some(416),
            _ => None,
        }
    }

    /// Tells whether somebody has no drive yet. Such refusals have no code of their own.
    #[must_use]
    pub fn is_unprovisioned(&self) -> bool {
        self.service().is_some_and(|service| {
            service.message.to_ascii_lowercase().contains("mysite")
                || service.has_any(&["resourceBeingProvisioned", "provisioningNotAllowed"])
        })
    }

    /// What a person could do about a refusal whose own words do not say. Some refusals have no
    /// code of their own, so their text has to be recognised; nothing but this advice depends on
    /// it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        let service = self.service()?;
        if service.message.contains("scp or roles claim") {
            return Some(
                "The application's token carries no permissions. Add application permissions for \
                 Microsoft Graph to its registration, have an administrator consent, and sign in \
                 again.",
            );
        }
        if self.is_unprovisioned() {
            return Some(
                "This account has no OneDrive yet. Open OneDrive once in a browser; setting it up \
                 can take hours.",
            );
        }
        crate::advice::for_codes(service)
    }

    /// The service's own words, when it refused.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceError> {
        match self {
            Self::Service { service, .. } => Some(service),
            _ => None,
        }
    }

    /// Tells whether any level of the answer has the error code.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        self.service().is_some_and(|service| service.has_code(code))
    }
}

/// Wait assumed when the service throttles without saying for how long. The gate keeps its own,
/// growing figure; this one is what a caller that asks gets to see.
const DEFAULT_HOLD: Duration = Duration::from_secs(1);

/// Decides what a refusal asks for.
fn classify(error: &ServiceError, kind: RequestKind) -> Disposition {
    let transient_codes = ["cannotSnapshotTree", "resourceBeingProvisioned"];
    if matches!(error.status, 429 | 503 | 509) {
        return Disposition::RetryAfter(error.retry_after.unwrap_or(DEFAULT_HOLD));
    }
    if error.has_any(&transient_codes) {
        return Disposition::Retry;
    }
    let special = match kind {
        RequestKind::Resource => None,
        RequestKind::DeltaStart => classify_delta_start(error),
        RequestKind::DeltaLink => classify_delta_link(error),
        RequestKind::Session => classify_session(error),
        RequestKind::Download => classify_download(error),
    };
    special.unwrap_or_else(|| classify_resource(error))
}

/// A refused change feed from its beginning: some clouds have none.
fn classify_delta_start(error: &ServiceError) -> Option<Disposition> {
    match error.status {
        400 | 405 | 501 => Some(Disposition::Unsupported),
        410 => Some(resync(error)),
        _ => None,
    }
}

/// A refused link of a change feed: whatever the reason, a fresh enumeration heals it.
fn classify_delta_link(error: &ServiceError) -> Option<Disposition> {
    match error.status {
        400 | 404 | 410 => Some(resync(error)),
        _ => None,
    }
}

/// Which of the two ways to begin anew the service asks for.
fn resync(error: &ServiceError) -> Disposition {
    let upload = ["resyncUploadDifferences", "resyncChangesUploadDifferences"];
    Disposition::Resync(if error.has_any(&upload) {
        ResyncKind::UploadDifferences
    } else {
        ResyncKind::ApplyDifferences
    })
}

/// A refused request to an upload session.
fn classify_session(error: &ServiceError) -> Option<Disposition> {
    let misplaced = [
        "fragmentOutOfOrder",
        "fragmentOverlap",
        "fragmentLengthMismatch",
        "invalidRange",
        "maxFragmentLengthExceeded",
    ];
    match error.status {
        401 | 404 | 410 => Some(Disposition::SessionGone),
        403 if !error.has_any(&["quotaLimitReached", "insufficientStorage"]) => {
            Some(Disposition::SessionGone)
        }
        400 | 413 | 416 if error.has_any(&misplaced) => Some(Disposition::RangeMismatch),
        _ => None,
    }
}

/// A refused pre-authenticated download.
fn classify_download(error: &ServiceError) -> Option<Disposition> {
    match error.status {
        401 | 404 | 410 => Some(Disposition::UrlExpired),
        _ => None,
    }
}

/// A refusal by Graph proper.
fn classify_resource(error: &ServiceError) -> Disposition {
    if error.has_any(&["quotaLimitReached", "insufficientStorage"]) {
        return Disposition::QuotaFull;
    }
    match error.status {
        401 => Disposition::Reauth,
        402 | 507 => Disposition::QuotaFull,
        404 => Disposition::NotFound,
        405 | 406 | 411 | 415 | 501 => Disposition::Unsupported,
        409 if error.has_code("resourceModified") => Disposition::Changed,
        409 if error.has_code("childItemCountExceeded") => Disposition::Permanent,
        409 => Disposition::Conflict,
        410 if error.has_any(&["resyncRequired", "syncStateNotFound"]) => resync(error),
        410 => Disposition::NotFound,
        412 => Disposition::Changed,
        416 => Disposition::RangeMismatch,
        423 => Disposition::Locked,
        408 | 425 | 500 | 502 | 504 | 505..=506 | 508 | 510..=599 => Disposition::Retry,
        _ if error.has_code("nameAlreadyExists") => Disposition::Conflict,
        _ => Disposition::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, codes: &[&str], kind: RequestKind) -> Disposition {
        let service = ServiceError {
            status,
            codes: codes.iter().map(|&code| code.to_owned()).collect(),
            ..ServiceError::default()
        };
        classify(&service, kind)
    }

    #[test]
    fn each_status_asks_for_its_own_reaction() {
        use Disposition as D;
        use RequestKind::{DeltaLink, DeltaStart, Download, Resource, Session};
        let apply = D::Resync(ResyncKind::ApplyDifferences);
        let upload = D::Resync(ResyncKind::UploadDifferences);
        for (status, codes, kind, expected) in [
            (400, &[][..], Resource, D::Permanent),
            (401, &[], Resource, D::Reauth),
            (402, &[], Resource, D::QuotaFull),
            (507, &[], Session, D::QuotaFull),
            (403, &["accessDenied"], Resource, D::Permanent),
            (
                403,
                &["accessDenied", "quotaLimitReached"],
                Resource,
                D::QuotaFull,
            ),
            (404, &["itemNotFound"], Resource, D::NotFound),
            (405, &[], Resource, D::Unsupported),
            (409, &["nameAlreadyExists"], Resource, D::Conflict),
            (409, &["ResourceModified"], Resource, D::Changed),
            (409, &["nameAlreadyExists"], Session, D::Conflict),
            (412, &["notAllowed"], Resource, D::Changed),
            (413, &["maxFileSizeExceeded"], Resource, D::Permanent),
            (416, &[], Session, D::RangeMismatch),
            (
                400,
                &["invalidRequest", "fragmentOutOfOrder"],
                Session,
                D::RangeMismatch,
            ),
            (
                413,
                &["maxFragmentLengthExceeded"],
                Session,
                D::RangeMismatch,
            ),
            (423, &["accessDenied"], Resource, D::Locked),
            (423, &[], Session, D::Locked),
            (500, &["generalException"], Resource, D::Retry),
            (504, &[], Session, D::Retry),
            (404, &[], Session, D::SessionGone),
            (401, &[], Session, D::SessionGone),
            (410, &[], Session, D::SessionGone),
            (404, &[], DeltaLink, apply),
            (400, &[], DeltaLink, apply),
            (
                410,
                &["resyncRequired", "resyncApplyDifferences"],
                DeltaLink,
                apply,
            ),
            (
                410,
                &["resyncRequired", "resyncUploadDifferences"],
                DeltaLink,
                upload,
            ),
            (410, &["resyncChangesUploadDifferences"], DeltaLink, upload),
            (410, &["syncStateNotFound"], DeltaLink, apply),
            (404, &["cannotSnapshotTree"], DeltaLink, D::Retry),
            (400, &["invalidRequest"], DeltaStart, D::Unsupported),
            (501, &["notSupported"], DeltaStart, D::Unsupported),
            (501, &["notSupported"], DeltaLink, D::Unsupported),
            (404, &[], DeltaStart, D::NotFound),
            (404, &[], Download, D::UrlExpired),
            (403, &["malwareDetected"], Download, D::Permanent),
        ] {
            assert_eq!(
                error(status, codes, kind),
                expected,
                "{status} {codes:?} {kind:?}"
            );
        }
    }

    #[test]
    fn bodies_of_every_shape_are_read() {
        let nested = br#"{"error":{"code":"a","message":"m","innererror":{"code":"b","request-id":"r","innerError":{"code":"c"}}}}"#;
        let mut with_bom = b"\xEF\xBB\xBF".to_vec();
        with_bom.extend_from_slice(nested);
        let parsed = ServiceError::from_body(400, None, &with_bom);
        assert_eq!(parsed.codes, ["a", "b", "c"]);
        assert_eq!(parsed.request_id.as_deref(), Some("r"));
        for odd in [
            &b"<html>no</html>"[..],
            b"",
            b"[]",
            b"{\"error\":null}",
            b"{\"error\":\"x\"}",
        ] {
            assert_eq!(ServiceError::from_body(502, None, odd).status, 502);
        }
    }

    #[test]
    fn texts_lose_control_characters_and_queries() {
        let text = "see\u{1b}[31m https://host/path?tempauth=secret&x\nnow";
        let shown = clean(text);
        assert_eq!(shown, "see [31m https://host/path now");
        assert!(clean(&"x".repeat(100_000)).len() <= MESSAGE_MAX_CHARS);
    }
}
