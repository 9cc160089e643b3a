//! Whether a host answers at all, for people who look for what is wrong with a set-up.

use std::net::IpAddr;
use std::time::Duration;

use onedrivefs_core::Timestamp;
use tokio::time::Instant;
use url::Url;

use crate::config::HttpOptions;
use crate::error::GraphError;
use crate::http_client::{HttpClients, host_of, transport_error};
use crate::witness::Witness;

/// Template under which a probe shows in logs and errors.
const ROUTE: &str = "a look whether it answers";

/// Longest wait for the addresses of a name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// What an answer tells, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// HTTP status.
    pub status: u16,
    /// The clock of the service.
    pub date: Option<Timestamp>,
    /// Time until the answer began.
    pub took: Duration,
    /// Who issued the certificate that the host showed; `None` without TLS.
    pub issuer: Option<String>,
}

/// Why there was no answer.
#[derive(Debug)]
pub struct Silence {
    /// The failure.
    pub error: GraphError,
    /// Who issued the certificate that was shown and perhaps not trusted.
    pub issuer: Option<String>,
}

/// Sends one request without credentials. Any answer is a success.
///
/// # Errors
/// The options are unusable, or there was no answer.
pub async fn probe(url: &Url, options: &HttpOptions) -> Result<Probe, Silence> {
    let unusable = |error| Silence {
        error,
        issuer: None,
    };
    let (witness, tls) = Witness::new(options).map_err(unusable)?;
    let client = HttpClients::watched(options, url, tls).map_err(unusable)?;
    let silence = |error| Silence {
        error,
        issuer: witness.issuer(),
    };
    let started = Instant::now();
    let request = client.get(url.clone()).send();
    let response = tokio::time::timeout(options.answer_timeout, request)
        .await
        .map_err(|_elapsed| {
            silence(GraphError::Stalled {
                host: host_of(url),
                route: ROUTE,
                after: options.answer_timeout,
            })
        })?
        .map_err(|error| silence(transport_error(error, url, ROUTE)))?;
    let date = response.headers().get(http::header::DATE);
    Ok(Probe {
        status: response.status().as_u16(),
        date: date.and_then(|date| parse_http_date(date.to_str().ok()?)),
        took: started.elapsed(),
        issuer: witness.issuer(),
    })
}

/// The addresses of a host, as this machine knows them.
///
/// # Errors
/// The name is not known, or nobody answers who knows names.
pub async fn addresses(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let lookup = tokio::net::lookup_host((host, 443));
    let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
    let found = found.map_err(|_elapsed| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let mut all: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Parses the `Date` header (RFC 9110, section 5.6.7).
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let nanos = i64::try_from(date.as_nanosecond()).ok()?;
    Some(Timestamp::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_understood() {
        let date = parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(date.seconds(), 784_111_777);
        assert!(parse_http_date("yesterday").is_none());
    }

    #[tokio::test]
    async fn nobody_at_home_is_an_error_without_a_hang() {
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        let silence = probe(&url, &HttpOptions::default()).await.unwrap_err();
        assert_eq!(silence.error.disposition(), crate::Disposition::Offline);
    }
}
