//! Signing in through a browser on this machine.
//!
//! The browser ends up at a listener on loopback with a code, which only whoever knows the PKCE
//! verifier can trade for a token. The random state ties the visit to our request: anything else
//! that knocks gets a page without content and changes nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use oauth2::{CsrfToken, PkceCodeChallenge};
use onedrivefs_core::{ExposeSecret as _, SecretString};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use super::endpoint::TokenEndpoint;
use super::error::{LoginError, LoginErrorKind};
use super::page::{self, Page};
use super::token::TokenSet;
use crate::config::{AuthConfig, HttpOptions, is_loopback};
use crate::error::GraphError;

/// Time a visitor has to send its request; browsers also open connections they never use.
const VISIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Visitors served at a time; more wait.
const VISITORS_MAX: usize = 32;

/// A sign-in through a browser that was begun.
#[derive(Debug)]
pub struct CodeFlow {
    endpoint: TokenEndpoint,
    authorize_url: Url,
    redirect: Url,
    state: SecretString,
    verifier: SecretString,
    listeners: Vec<StdListener>,
}

/// What a visit brought: the code, or why there is none.
type Outcome = Result<SecretString, LoginError>;

impl CodeFlow {
    /// Begins a sign-in: binds the listener and prepares the address for the browser. With a
    /// redirect URI that is not on loopback there is no listener, and only
    /// [`CodeFlow::finish_from_url`] can end it.
    ///
    /// # Errors
    /// The configuration is unusable, or the port of the redirect URI is taken.
    pub fn begin(http: &HttpOptions, config: &AuthConfig) -> Result<Self, GraphError> {
        let endpoint = TokenEndpoint::new(http, config)?;
        let (redirect, listeners) = bind(config.redirect_uri.as_deref())?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = CsrfToken::new_random();
        let mut authorize_url = config.login_url("authorize")?;
        let scopes = config.request_scopes().join(" ");
        {
            let mut query = authorize_url.query_pairs_mut();
            query
                .append_pair("client_id", config.client_id.trim())
                .append_pair("response_type", "code")
                .append_pair("response_mode", "query")
                .append_pair("redirect_uri", redirect.as_str())
                .append_pair("scope", &scopes)
                .append_pair("state", state.secret())
                .append_pair("code_challenge", challenge.as_str())
                .append_pair("code_challenge_method", "S256");
            match &config.login_hint {
                Some(hint) => query.append_pair("login_hint", hint),
                None => query.append_pair("prompt", "select_account"),
            };
        }
        Ok(Self {
            endpoint,
            authorize_url,
            redirect,
            state: state.secret().clone().into(),
            verifier: verifier.secret().clone().into(),
            listeners,
        })
    }

    /// The address to open in a browser.
    #[must_use]
    pub fn authorize_url(&self) -> &Url {
        &self.authorize_url
    }

    /// Where the browser will end up.
    #[must_use]
    pub fn redirect_uri(&self) -> &Url {
        &self.redirect
    }

    /// Tells whether [`CodeFlow::wait`] can end the sign-in.
    #[must_use]
    pub fn has_listener(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Waits until the browser comes back, and trades its code for a token. Dropping the future
    /// gives up.
    ///
    /// # Errors
    /// The person declines, or the identity platform refuses or gives no answer.
    pub async fn wait(&self) -> Result<TokenSet, GraphError> {
        if !self.has_listener() {
            return Err(GraphError::config(
                "nothing listens for the browser; paste the address it ended up at",
            ));
        }
        let code = self.visited().await?;
        let code = code?;
        self.redeem(&code).await
    }

    /// Ends the sign-in with the address the browser ended up at, pasted by the person.
    ///
    /// # Errors
    /// The address does not belong to this sign-in, or as [`CodeFlow::wait`].
    pub async fn finish_from_url(&self, pasted: &str) -> Result<TokenSet, GraphError> {
        let wrong = || {
            let text = "The pasted address does not belong to this sign-in. Paste the whole \
                        address the browser ended up at, or start again.";
            LoginError::new(LoginErrorKind::Refused, text)
        };
        let url = Url::parse(pasted.trim()).map_err(|_error| wrong())?;
        let parameters: Vec<_> = url.query_pairs().into_owned().collect();
        let code = self.judge(&parameters).ok_or_else(wrong)??;
        self.redeem(&code).await
    }

    /// Trades a code for a token.
    async fn redeem(&self, code: &SecretString) -> Result<TokenSet, GraphError> {
        let token = self
            .endpoint
            .redeem_code(code, &self.verifier, &self.redirect)
            .await?;
        tracing::info!("signed in through a browser");
        Ok(token)
    }

    /// Decides what the parameters of a redirect mean; `None` when they are not for us.
    fn judge(&self, parameters: &[(String, String)]) -> Option<Outcome> {
        let find = |key: &str| {
            let found = parameters.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str())
        };
        if find("state") != Some(self.state.expose_secret()) {
            return None;
        }
        if let Some(error) = find("error") {
            return Some(Err(LoginError::from_answer(
                error,
                find("error_description"),
            )));
        }
        let code = find("code").filter(|code| !code.is_empty())?;
        Some(Ok(SecretString::from(code)))
    }

    /// Serves visitors until one brings an outcome.
    async fn visited(&self) -> Result<Outcome, GraphError> {
        let failed = |source| GraphError::Io {
            what: "could not wait for the browser".to_owned(),
            source,
        };
        let (streams, mut incoming) = mpsc::channel(VISITORS_MAX);
        let mut acceptors = JoinSet::new();
        for listener in &self.listeners {
            let listener = listener.try_clone().map_err(failed)?;
            let listener = TcpListener::from_std(listener).map_err(failed)?;
            acceptors.spawn(accept(listener, streams.clone()));
        }
        drop(streams);
        let mut visits = JoinSet::new();
        loop {
            tokio::select! {
                stream = incoming.recv(), if visits.len() < VISITORS_MAX => match stream {
                    Some(stream) => {
                        visits.spawn(read_visit(stream, self.redirect.clone()));
                    }
                    None => return Err(failed(std::io::Error::other("the listener closed"))),
                },
                Some(visit) = visits.join_next() => {
                    if let Ok(Some((mut stream, parameters))) = visit {
                        let outcome = parameters.and_then(|found| self.judge(&found));
                        let page = match &outcome {
                            Some(Ok(_)) => Page::Done,
                            Some(Err(_)) => Page::Failed,
                            None => Page::Stray,
                        };
                        let answered = page::answer(&mut stream, page);
                        let _sent = tokio::time::timeout(VISIT_TIMEOUT, answered).await;
                        if let Some(outcome) = outcome {
                            return Ok(outcome);
                        }
                    }
                }
            }
        }
    }
}

/// A visitor, and what its request says if it is a redirect.
type Visit = Option<(TcpStream, Option<Vec<(String, String)>>)>;

/// Reads what a visitor wants.
async fn read_visit(mut stream: TcpStream, redirect: Url) -> Visit {
    let target = tokio::time::timeout(VISIT_TIMEOUT, page::read_target(&mut stream));
    let target = target.await.ok()?.ok()??;
    Some((stream, page::redirect_parameters(&redirect, &target)))
}

/// Hands on visitors from this machine.
async fn accept(listener: TcpListener, streams: mpsc::Sender<TcpStream>) {
    /// Pause after a failed accept, which may be due to exhausted descriptors.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if peer.ip().to_canonical().is_loopback() => {
                if streams.send(stream).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "could not accept a visitor");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Decides the redirect URI and binds its port on loopback, for both address families where
/// possible. The service ignores the port of a loopback redirect, so any free one will do.
fn bind(configured: Option<&str>) -> Result<(Url, Vec<StdListener>), GraphError> {
    let text = configured.unwrap_or("http://localhost/");
    let mut redirect = Url::parse(text)
        .map_err(|error| GraphError::config(format!("the redirect URI is no URL: {error}")))?;
    if redirect.scheme() != "http" || !is_loopback(&redirect) {
        return Ok((redirect, Vec::new()));
    }
    let failed = |source| GraphError::Io {
        what: "could not listen on loopback for the browser".to_owned(),
        source,
    };
    let (v4, v6) = listen_twice(redirect.port());
    let port = match (&v4, &v6) {
        (Ok(listener), _) | (Err(_), Ok(listener)) => listener.local_addr().map_err(failed)?.port(),
        (Err(_), Err(_)) => 0,
    };
    if redirect.set_port(Some(port)).is_err() {
        return Err(GraphError::config("the redirect URI cannot have a port"));
    }
    match (v4, v6) {
        (Err(error), Err(_)) => Err(failed(error)),
        (v4, v6) => Ok((redirect, v4.into_iter().chain(v6).collect())),
    }
}

/// Binds a port for both address families. A browser may try either, so a free port is one that is
/// free in both.
fn listen_twice(
    wanted: Option<u16>,
) -> (std::io::Result<StdListener>, std::io::Result<StdListener>) {
    /// Ports tried before one that is taken in one family is put up with.
    const ATTEMPTS: u32 = 10;
    let mut attempt = 1;
    loop {
        let v4 = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.unwrap_or(0))));
        let port = v4.as_ref().ok().and_then(|v4| v4.local_addr().ok());
        let port = port.map_or(wanted.unwrap_or(0), |address| address.port());
        let v6 = listen(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        let taken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
        let again = wanted.is_none() && v6.as_ref().is_err_and(taken) && attempt < ATTEMPTS;
        if !again {
            return (v4, v6);
        }
        attempt += 1;
    }
}

/// Binds one listener.
fn listen(address: SocketAddr) -> std::io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
