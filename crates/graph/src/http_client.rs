//! The connections: one set of options, three clients for the three classes of hosts.
//!
//! Graph and the identity platform speak HTTP/2 over few connections. Content hosts get HTTP/1.1,
//! because several independent streams of bytes are faster and more robust there. Loopback never
//! goes through a proxy. No client follows redirects or adds headers by itself, so that the bearer
//! token cannot travel along.

use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy, Response, redirect};
use url::Url;

use crate::config::{HttpOptions, is_loopback};
use crate::{GraphError, TransportKind};

/// Idle connections kept per content host; about as many as transfers run at a time.
const CONTENT_IDLE_CONNECTIONS: usize = 8;

/// How long an idle connection is kept: below the minute after which middle boxes forget it.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Interval of TCP keep-alive probes, which notice a dead peer during long answers.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Interval of pings on a busy HTTP/2 connection. After a suspend or a change of network the old
/// connection is dead without knowing it, and every request would wait for it.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// Time for the answer to such a ping.
const HTTP2_PING_ANSWER: Duration = Duration::from_secs(10);

/// What kind of traffic a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Small answers: Graph and the identity platform.
    Api,
    /// File content.
    Content,
}

/// The clients and the options they were made from.
#[derive(Clone, Debug)]
pub(crate) struct HttpClients {
    api: Client,
    content: Client,
    loopback: Client,
    options: HttpOptions,
}

/// Makes the one cryptography provider known to the TLS library, once per process.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that the program installed one already, which is as good.
        let _already = rustls::crypto::ring::default_provider().install_default();
    });
}

impl HttpClients {
    /// Prepares the clients. Does not connect to anything.
    ///
    /// # Errors
    /// The additional certificates cannot be read, or the proxy is unusable.
    pub(crate) fn new(options: &HttpOptions) -> Result<Self, GraphError> {
        install_crypto_provider();
        let extra = read_bundle(options)?;
        let api = build(options, &extra, |builder| builder)?;
        let for_content = HttpOptions {
            proxy: options.content_proxy.clone().or(options.proxy.clone()),
            ..options.clone()
        };
        let content = build(&for_content, &extra, |builder| {
            builder
                .http1_only()
                .pool_max_idle_per_host(CONTENT_IDLE_CONNECTIONS)
        })?;
        let loopback = build(options, &extra, |builder| builder.no_proxy())?;
        Ok(Self {
            api,
            content,
            loopback,
            options: options.clone(),
        })
    }

    /// A client for one look at a host, watched by a witness.
    pub(crate) fn watched(
        options: &HttpOptions,
        url: &Url,
        tls: rustls::ClientConfig,
    ) -> Result<Client, GraphError> {
        install_crypto_provider();
        build(options, &[], |builder| {
            let builder = builder.tls_backend_preconfigured(tls.clone());
            if is_loopback(url) {
                builder.no_proxy()
            } else {
                builder
            }
        })
    }

    /// The client to use for a URL.
    pub(crate) fn for_url(&self, url: &Url, traffic: Traffic) -> &Client {
        match traffic {
            _ if is_loopback(url) => &self.loopback,
            Traffic::Api => &self.api,
            Traffic::Content => &self.content,
        }
    }

    /// What the clients were made from.
    pub(crate) fn options(&self) -> &HttpOptions {
        &self.options
    }
}

/// Reads the additional certificates.
fn read_bundle(options: &HttpOptions) -> Result<Vec<Certificate>, GraphError> {
    let Some(path) = &options.ca_bundle else {
        return Ok(Vec::new());
    };
    let pem = std::fs::read(path).map_err(|source| GraphError::Io {
        what: format!("could not read the certificates in {}", path.display()),
        source,
    })?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    if certificates.is_empty() {
        return Err(GraphError::config(format!(
            "{} holds no certificate in PEM format",
            path.display()
        )));
    }
    Ok(certificates)
}

/// Builds one client.
fn build(
    options: &HttpOptions,
    extra: &[Certificate],
    adjust: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, GraphError> {
    let base = || -> Result<ClientBuilder, GraphError> {
        let mut builder = Client::builder()
            .user_agent(&options.user_agent)
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .tcp_keepalive(TCP_KEEPALIVE)
            .tcp_user_timeout(options.idle_timeout)
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING_ANSWER)
            .pool_idle_timeout(POOL_IDLE);
        if let Some(proxy) = &options.proxy {
            let proxy = Proxy::all(proxy.clone()).map_err(|error| {
                let error = error.without_url();
                GraphError::config(format!("the proxy is unusable: {error}"))
            })?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_env()));
        }
        Ok(adjust(builder))
    };
    let trusted = base()?.tls_certs_merge(extra.iter().cloned()).build();
    trusted.or_else(|error| {
        // A machine without any certificate store can still reach an endpoint on loopback.
        tracing::warn!(%error, "could not load the system's certificates; https will not work");
        let bare = base()?.tls_certs_only(extra.iter().cloned()).build();
        bare.map_err(|error| GraphError::config(format!("no HTTP client: {error}")))
    })
}

/// Turns a failure of the HTTP library into ours, without the URL, which may be a secret.
pub(crate) fn transport_error(error: reqwest::Error, url: &Url, route: &'static str) -> GraphError {
    let kind = if error.is_timeout() {
        TransportKind::Timeout
    } else if error.is_connect() {
        TransportKind::Connect
    } else {
        TransportKind::Broken
    };
    GraphError::Transport {
        kind,
        host: host_of(url),
        route,
        source: error.without_url(),
    }
}

/// The host of a URL, which is all of it that may be shown.
pub(crate) fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or("unknown host").to_owned()
}

/// What to do with a body that is larger than the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// Fail: half of the answer would be misleading.
    Refuse,
    /// Keep the beginning: enough to learn the error code.
    Cut,
}

/// Reads a body up to a bound, with a bound on silence between its parts.
pub(crate) async fn read_bounded(
    mut response: Response,
    limit: usize,
    overflow: Overflow,
    idle: Duration,
    route: &'static str,
) -> Result<Bytes, GraphError> {
    let url = response.url().clone();
    let mut body = BytesMut::new();
    loop {
        let next = tokio::time::timeout(idle, response.chunk());
        let chunk = match next.await {
            Err(_elapsed) => {
                return Err(GraphError::Stalled {
                    host: host_of(&url),
                    route,
                    after: idle,
                });
            }
            Ok(chunk) => chunk.map_err(|error| transport_error(error, &url, route))?,
        };
        let Some(chunk) = chunk else {
            return Ok(body.freeze());
        };
        let room = limit - body.len();
        if chunk.len() > room {
            if overflow == Overflow::Refuse {
                return Err(GraphError::TooLarge { route, limit });
            }
            body.extend_from_slice(&chunk[..room]);
            return Ok(body.freeze());
        }
        body.extend_from_slice(&chunk);
    }
}
