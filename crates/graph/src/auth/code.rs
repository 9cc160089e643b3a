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
    /// The same, to the byte as registered.
    redirect_text: String,
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
        let Bound {
            url: redirect,
            text: redirect_text,
            listeners,
        } = bind(config.redirect_uri.as_deref())?;
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
                .append_pair("redirect_uri", &redirect_text)
                .append_pair("scope", &scopes)
                .append_pair("state", state.secret())
                .append_pair("code_challenge", challenge.as_str())
                .append_pair("code_challenge_method", "S256");
            match &config.login_hint {
                Some(hint) => query.append_pair("login_hint", hint),
                None => query.append_pair("prompt", "select_account"),
            };
            if let Some(claims) = &config.claims {
                query.append_pair("claims", claims);
            }
        }
        Ok(Self {
            endpoint,
            authorize_url,
            redirect,
            redirect_text,
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

    /// The same as it is sent: to the byte as registered, but for the port.
    #[must_use]
    pub fn redirect_text(&self) -> &str {
        &self.redirect_text
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
        let wrong = |text: &str| LoginError::new(LoginErrorKind::Refused, text);
        let url = Url::parse(pasted.trim()).map_err(|_error| {
            wrong(
                "What was pasted is no address. Paste the whole address the browser ended up at, \
                 or start again.",
            )
        })?;
        if url.origin() != self.redirect.origin() || url.path() != self.redirect.path() {
            let (ended, registered) = (shown(&url), &self.redirect_text);
            return Err(wrong(&format!(
                "redirect URI mismatch: registered {registered}, but the browser ended up at {ended}. \
                 Set redirect_uri to what is registered, and paste the last address the browser \
                 showed."
            ))
            .into());
        }
        let parameters: Vec<_> = url.query_pairs().into_owned().collect();
        let code = self.judge(&parameters).ok_or_else(|| {
            wrong(
                "The pasted address does not belong to this sign-in. Paste the whole address the \
                 browser ended up at, or start again.",
            )
        })??;
        self.redeem(&code).await
    }

    /// Trades a code for a token.
    async fn redeem(&self, code: &SecretString) -> Result<TokenSet, GraphError> {
        let token = self
            .endpoint
            .redeem_code(code, &self.verifier, &self.redirect_text)
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

/// An address without what is secret in it.
fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    crate::error::clean(plain.as_str())
}

/// Where the browser comes back to.
struct Bound {
    url: Url,
    text: String,
    listeners: Vec<StdListener>,
}

/// Decides the redirect URI and binds its port on loopback, for both address families where
/// possible. The service ignores the port of a loopback redirect, so any free one will do.
fn bind(configured: Option<&str>) -> Result<Bound, GraphError> {
    let text = configured.unwrap_or("http://localhost/").trim();
    let mut url = Url::parse(text)
        .map_err(|error| GraphError::config(format!("the redirect URI is no URL: {error}")))?;
    if url.scheme() != "http" && url.scheme() != "https" {
        return Err(GraphError::config(
            "the redirect URI must begin with https://, or with http://localhost",
        ));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(GraphError::config(
            "the redirect URI uses plain http, which Microsoft accepts for http://localhost only; \
             register one with https, or http://localhost",
        ));
    }
    if url.scheme() == "https" {
        return Ok(Bound {
            url,
            text: text.to_owned(),
            listeners: Vec::new(),
        });
    }
    let wanted = url.port();
    let (v4, v6) = listen_twice(wanted);
    let failed = |source: std::io::Error| match wanted {
        Some(port) => GraphError::config(format!(
            "redirect URI mismatch: registered {text}, but port {port} cannot be listened on here \
             ({source}); free that port, or register http://localhost, for which any port does"
        )),
        None => GraphError::Io {
            what: "could not listen on loopback for the browser".to_owned(),
            source,
        },
    };
    let port = match (&v4, &v6) {
        (Ok(listener), _) | (Err(_), Ok(listener)) => listener.local_addr().map_err(failed)?.port(),
        (Err(_), Err(_)) => 0,
    };
    if url.set_port(Some(port)).is_err() {
        return Err(GraphError::config("the redirect URI cannot have a port"));
    }
    match (v4, v6) {
        (Err(error), Err(_)) => Err(failed(error)),
        (v4, v6) => Ok(Bound {
            text: match wanted {
                Some(_) => text.to_owned(),
                None => with_port(text, port),
            },
            url,
            listeners: v4.into_iter().chain(v6).collect(),
        }),
    }
}

/// Puts a port behind the host of an address that has none, and leaves every other byte alone.
fn with_port(text: &str, port: u16) -> String {
    let host = text.find("://").map_or(0, |at| at + 3);
    let (before, after) = text.split_at(host);
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (host, rest) = after.split_at(end);
    // The service adds the slash, too.
    let slash = if rest.is_empty() { "/" } else { "" };
    format!("{before}{host}:{port}{slash}{rest}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_changes_nothing_else() {
        for (text, with) in [
            ("http://localhost", "http://localhost:9/"),
            ("http://localhost/", "http://localhost:9/"),
            ("http://127.0.0.1/A/b/", "http://127.0.0.1:9/A/b/"),
            ("HTTP://LocalHost/a%2fb?x=1", "HTTP://LocalHost:9/a%2fb?x=1"),
        ] {
            assert_eq!(with_port(text, 9), with);
        }
    }

    #[test]
    fn redirects_that_cannot_work_are_refused() {
        for bad in ["nonsense", "ftp://localhost/", "http://own.host/x"] {
            assert!(bind(Some(bad)).is_err(), "{bad}");
        }
        let pasted = bind(Some("https://own.host/register_me/")).unwrap();
        assert_eq!(pasted.text, "https://own.host/register_me/");
        assert!(pasted.listeners.is_empty());
    }
}
