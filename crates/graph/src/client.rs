//! The handle through which everything talks to Graph.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::auth::TokenSource;
use crate::config::{Endpoints, HttpOptions};
use crate::error::GraphError;
use crate::http_client::{HttpClients, host_of};
use crate::links::Links;
use crate::throttle::Throttle;

/// A client of Graph for one account. Clones share connections, token and hold.
#[derive(Clone)]
pub struct GraphClient {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) http: Arc<HttpClients>,
    pub(crate) tokens: Arc<TokenSource>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) links: Arc<Links>,
}

impl std::fmt::Debug for GraphClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphClient")
            .field("graph", &self.endpoints.graph.as_str())
            .finish_non_exhaustive()
    }
}

impl GraphClient {
    /// Prepares a client. Does not connect to anything.
    ///
    /// # Errors
    /// The additional certificates or the proxy are unusable.
    pub fn new(
        endpoints: Endpoints,
        http: HttpOptions,
        tokens: Arc<TokenSource>,
    ) -> Result<Self, GraphError> {
        Ok(Self {
            endpoints: Arc::new(endpoints),
            http: Arc::new(HttpClients::new(&http)?),
            tokens,
            throttle: Arc::new(Throttle::new()),
            links: Arc::default(),
        })
    }

    /// Tells whether an error is that no connection was had to a host of content, which is another than
    /// Graph's: a firewall may let one through and not the other.
    #[must_use]
    pub fn is_elsewhere(&self, error: &GraphError) -> bool {
        match error {
            GraphError::Transport { host, source, .. } => {
                source.is_connect() && *host != host_of(&self.endpoints.graph)
            }
            _ => false,
        }
    }

    /// Until when every request waits because the service asked for it.
    #[must_use]
    pub fn throttled_until(&self) -> Option<Instant> {
        self.throttle.until()
    }

    /// Tells about every new hold: until when, or `None` once requests are served again.
    #[must_use]
    pub fn throttle(&self) -> watch::Receiver<Option<Instant>> {
        self.throttle.watch()
    }

    /// Where the tokens come from.
    #[must_use]
    pub fn tokens(&self) -> &Arc<TokenSource> {
        &self.tokens
    }

    /// The addresses in use.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }
}
