//! Keeps the token of an account fresh for everybody who needs it.
//!
//! Any number of requests may find the token expired or refused at the same moment; exactly one
//! renewal follows, and its result, good or bad, serves all of them. A renewal runs to its end even
//! if whoever wanted it is gone, because the answer brings the next refresh token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_core::{SecretString, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::endpoint::TokenEndpoint;
use super::error::{LoginError, LoginErrorKind};
use super::store::{StoreLock, TokenStore};
use super::token::TokenSet;
use crate::config::{AuthConfig, HttpOptions, SignIn};
use crate::error::{GraphError, with_causes};
use crate::send::REPLACEMENTS_MAX;

/// After a failed renewal its failure stands for this long, so that a crowd of requests does not
/// become a crowd of renewals.
const FAILURE_STANDS: Duration = Duration::from_secs(1);

/// The same, while the present token still does: nobody should wait for the identity platform then.
const EARLY_FAILURE_STANDS: Duration = Duration::from_secs(30);

/// When as many replacements as one request may ask for were refused as well, there is no further one
/// for this long: the service then refuses the account or the application, and more tokens will not
/// help.
const REPLACEMENT_STANDS: Duration = Duration::from_secs(60);

/// A token for all requests of an account.
#[derive(Debug)]
pub struct TokenSource {
    shared: Arc<Shared>,
}

/// Reads the settings of the application anew: `None` when somebody signed out, `Err` says why it is
/// not possible. Blocks.
pub type Reload = Arc<dyn Fn() -> Result<Option<AuthConfig>, String> + Send + Sync>;

struct Shared {
    endpoint: Mutex<Option<Arc<TokenEndpoint>>>,
    sign_in: SignIn,
    http: HttpOptions,
    reload: Mutex<Option<Reload>>,
    store: Mutex<TokenStore>,
    state: Mutex<State>,
    /// Held across a renewal: this is the single flight.
    flight: tokio::sync::Mutex<()>,
    needs_login: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource")
            .field("sign_in", &self.sign_in)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    current: Option<TokenSet>,
    /// Whether the store was read once.
    loaded: bool,
    /// The last renewal failed like this.
    failure: Option<(Instant, LoginError)>,
    /// A token whose refresh token was refused for good.
    dead: Option<TokenSet>,
    /// The replacements for refused tokens of which nobody has seen one accepted.
    unproven: Option<Unproven>,
}

/// One replacement after the other for a token that was refused.
#[derive(Clone, Copy, Debug)]
struct Unproven {
    /// Since when there is the last one.
    since: Instant,
    count: u32,
}

/// Why a token is wanted.
#[derive(Clone, Debug)]
enum Want {
    /// For a request.
    Use,
    /// Because the service refused this one.
    InsteadOf(SecretString),
}

impl TokenSource {
    /// A source that renews its token and keeps it in a store.
    ///
    /// # Errors
    /// The configuration is unusable.
    pub fn new(
        config: &AuthConfig,
        http: &HttpOptions,
        store: TokenStore,
    ) -> Result<Arc<Self>, GraphError> {
        let endpoint = TokenEndpoint::new(http, config)?;
        let state = State::default();
        Ok(Self::build(
            Some(endpoint),
            config.sign_in,
            http,
            store,
            state,
        ))
    }

    /// A source whose application cannot be read yet, such as from a keyring that is locked: it is
    /// read when a token is wanted, and until it can be, that is trouble that passes.
    #[must_use]
    pub fn later(
        sign_in: SignIn,
        http: &HttpOptions,
        store: TokenStore,
        reload: Reload,
    ) -> Arc<Self> {
        let source = Self::build(None, sign_in, http, store, State::default());
        source.set_reload(reload);
        source
    }

    /// Has the settings of the application read anew before every renewal: its secret or its
    /// certificate may have been replaced since.
    pub fn set_reload(&self, reload: Reload) {
        *self.shared.reload.lock() = Some(reload);
    }

    /// A source with one token that cannot be renewed.
    #[must_use]
    pub fn fixed(access_token: SecretString) -> Arc<Self> {
        let now = Timestamp::now();
        let current = TokenSet {
            access_token,
            refresh_token: None,
            issued_at: now,
            expires_at: Timestamp::from_nanos(i64::MAX),
            scope: Vec::new(),
        };
        let state = State {
            current: Some(current),
            loaded: true,
            ..State::default()
        };
        let http = HttpOptions::default();
        Self::build(None, SignIn::User, &http, TokenStore::memory(), state)
    }

    fn build(
        endpoint: Option<TokenEndpoint>,
        sign_in: SignIn,
        http: &HttpOptions,
        store: TokenStore,
        state: State,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                endpoint: Mutex::new(endpoint.map(Arc::new)),
                sign_in,
                http: http.clone(),
                reload: Mutex::new(None),
                store: Mutex::new(store),
                state: Mutex::new(state),
                flight: tokio::sync::Mutex::new(()),
                needs_login: watch::Sender::new(false),
            }),
        })
    }

    /// A token that is good for the next minutes.
    ///
    /// # Errors
    /// Somebody has to sign in, or the identity platform has trouble.
    pub async fn access_token(&self) -> Result<SecretString, GraphError> {
        if let Some(token) = self.shared.state.lock().usable(&Want::Use) {
            return Ok(token);
        }
        self.renew(Want::Use).await
    }

    /// Another token after the service refused `old`. Whoever comes late gets the one that was
    /// fetched meanwhile.
    ///
    /// # Errors
    /// Somebody has to sign in, or the identity platform has trouble.
    pub async fn refreshed(&self, old: &SecretString) -> Result<SecretString, GraphError> {
        let want = Want::InsteadOf(old.clone());
        if let Some(token) = self.shared.state.lock().usable(&want) {
            return Ok(token);
        }
        self.renew(want).await
    }

    /// Notes that the service accepted a token.
    pub(crate) fn accepted(&self, token: &SecretString) {
        let mut state = self.shared.state.lock();
        let ours = |current: &TokenSet| current.is_access(token);
        if state.unproven.is_some() && state.current.as_ref().is_some_and(ours) {
            state.unproven = None;
        }
    }

    /// Tells whether somebody has to sign in.
    #[must_use]
    pub fn needs_login(&self) -> bool {
        *self.shared.needs_login.borrow()
    }

    /// Why somebody has to sign in, in a sentence.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let state = self.shared.state.lock();
        let (_, failure) = state.failure.as_ref()?;
        (!failure.is_transient()).then(|| failure.to_string())
    }

    /// Tells when somebody has to sign in, and when that has happened.
    #[must_use]
    pub fn watch_login(&self) -> watch::Receiver<bool> {
        self.shared.needs_login.subscribe()
    }

    /// What was granted with the present token; empty when unknown.
    #[must_use]
    pub fn granted_scopes(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        state
            .current
            .as_ref()
            .map(|token| token.scope.clone())
            .unwrap_or_default()
    }

    /// Takes a token from a sign-in and keeps it.
    ///
    /// # Errors
    /// The token cannot be stored; it is used all the same.
    pub fn adopt(&self, token: TokenSet) -> Result<(), GraphError> {
        self.shared.adopt(token.clone());
        self.shared.store().save(&token)
    }

    /// From now on the tokens are kept in another place, whose content is not read yet.
    pub fn set_store(&self, store: TokenStore) {
        *self.shared.store.lock() = store;
    }

    /// Takes over what the store has now: the token of a sign-in elsewhere on this machine, or
    /// none after somebody signed out.
    ///
    /// # Errors
    /// The store cannot be read; then nothing changes.
    pub fn reload(&self) -> Result<(), GraphError> {
        match self.shared.store().load()? {
            Some(token) => {
                self.shared.adopt(token);
            }
            None => {
                let mut state = self.shared.state.lock();
                *state = State {
                    loaded: true,
                    ..State::default()
                };
                drop(state);
                self.shared.needs_login.send_replace(true);
            }
        }
        Ok(())
    }

    /// Renews the token in a task of its own, so that it ends even if the caller does not wait.
    async fn renew(&self, want: Want) -> Result<SecretString, GraphError> {
        let shared = Arc::clone(&self.shared);
        let begun = Instant::now();
        let renewal = tokio::spawn(async move { shared.renew(want, begun).await });
        let result = renewal.await.unwrap_or_else(|_interrupted| {
            let text = "the renewal of the sign-in was interrupted";
            Err(LoginError::new(LoginErrorKind::Transient, text))
        });
        Ok(result?)
    }
}

impl State {
    /// How many replacements for refused tokens there were lately, of which nobody has seen one
    /// accepted.
    fn recent_replacements(&self) -> u32 {
        let recent = |unproven: &Unproven| unproven.since.elapsed() < REPLACEMENT_STANDS;
        self.unproven.filter(recent).map_or(0, |it| it.count)
    }

    /// The present token, if it does for what is wanted.
    fn usable(&self, want: &Want) -> Option<SecretString> {
        let token = self.current.as_ref()?;
        let good = match want {
            Want::Use => token.is_fresh(Timestamp::now()),
            Want::InsteadOf(old) => !token.is_access(old) && token.is_alive(Timestamp::now()),
        };
        good.then(|| token.access_token.clone())
    }

    /// The present token if it can still be used although it could not be renewed.
    fn last_resort(&self, want: &Want) -> Option<SecretString> {
        let token = self.current.as_ref()?;
        let good = matches!(want, Want::Use) && token.is_alive(Timestamp::now());
        good.then(|| token.access_token.clone())
    }
}

impl Shared {
    fn store(&self) -> TokenStore {
        self.store.lock().clone()
    }

    /// Gets a token, renewing it if nobody did meanwhile.
    async fn renew(
        self: &Arc<Self>,
        want: Want,
        begun: Instant,
    ) -> Result<SecretString, LoginError> {
        let _flight = self.flight.lock().await;
        {
            let state = self.state.lock();
            if let Some(token) = state.usable(&want) {
                return Ok(token);
            }
            // A failure that happened while we waited, or just now, is ours too.
            let rest = state.last_resort(&want);
            let stands = match rest {
                Some(_) => EARLY_FAILURE_STANDS,
                None => FAILURE_STANDS,
            };
            if let Some((when, failure)) = &state.failure
                && (*when >= begun || when.elapsed() < stands)
            {
                return rest.ok_or_else(|| failure.clone());
            }
        }
        let result = self.renew_alone(want.clone()).await;
        let mut state = self.state.lock();
        match result {
            Ok(token) => {
                state.failure = None;
                state.dead = None;
                drop(state);
                self.needs_login.send_if_modified(std::mem::take);
                Ok(token)
            }
            Err(failure) => {
                let known = state
                    .failure
                    .as_ref()
                    .is_some_and(|(_, old)| *old == failure);
                state.failure = Some((Instant::now(), failure.clone()));
                let rest = state.last_resort(&want);
                drop(state);
                if !failure.is_transient() {
                    self.needs_login.send_replace(true);
                }
                if !known {
                    tracing::warn!(error = %failure, "could not renew the sign-in");
                }
                rest.ok_or(failure)
            }
        }
    }

    /// Renews the token, alone in this process and, by the lock, on this machine.
    async fn renew_alone(self: &Arc<Self>, want: Want) -> Result<SecretString, LoginError> {
        if self.endpoint.lock().is_none() && self.reload.lock().is_none() {
            let text = "The given token is no longer accepted and cannot be renewed.";
            return Err(LoginError::new(LoginErrorKind::NeedsLogin, text));
        }
        // The task waits here for a lock of another process, hence off the runtime's threads.
        let shared = Arc::clone(self);
        let locked = tokio::task::spawn_blocking(move || shared.lock_and_read());
        let interrupted = |_| {
            let text = "the renewal of the sign-in was interrupted";
            LoginError::new(LoginErrorKind::Transient, text)
        };
        let (_lock, endpoint) = locked.await.map_err(interrupted)?;
        let endpoint = endpoint?;
        let (refresh, current) = {
            let state = self.state.lock();
            if let Some(token) = state.usable(&want) {
                return Ok(token);
            }
            let current = state.current.clone();
            let refresh = current
                .as_ref()
                .and_then(|token| token.refresh_token.clone());
            if let (Some(dead), Some(current)) = (&state.dead, &current)
                && dead.same_refresh(current)
                && let Some((_, failure)) = &state.failure
            {
                return Err(failure.clone());
            }
            (refresh, current)
        };
        self.check_replacement(&want)?;
        if self.sign_in == SignIn::App {
            let token = endpoint.client_credentials().await?;
            self.keep(token.clone()).await;
            return Ok(self.replace(token, &want));
        }
        let Some(refresh) = refresh else {
            let text = "Nobody is signed in. Sign in first.";
            return Err(LoginError::new(LoginErrorKind::NeedsLogin, text));
        };
        match endpoint.refresh(&refresh).await {
            Ok(token) => {
                self.keep(token.clone()).await;
                tracing::debug!("renewed the sign-in");
                Ok(self.replace(token, &want))
            }
            Err(failure) => {
                if !failure.is_transient() {
                    self.state.lock().dead = current;
                }
                Err(failure)
            }
        }
    }

    /// Refuses to replace a token that is the last of several replacements of a moment ago.
    fn check_replacement(&self, want: &Want) -> Result<(), LoginError> {
        let state = self.state.lock();
        let is_last = state.recent_replacements() >= REPLACEMENTS_MAX;
        match (want, &state.current) {
            (Want::InsteadOf(old), Some(current)) if is_last && current.is_access(old) => {
                let text = "The service refuses even new tokens. Check that the account and the \
                            application have access, then sign in again.";
                Err(LoginError::new(LoginErrorKind::Refused, text))
            }
            _ => Ok(()),
        }
    }

    /// Makes a renewed token the present one and remembers whether it has to prove itself.
    fn replace(&self, token: TokenSet, want: &Want) -> SecretString {
        let earlier = self.state.lock().recent_replacements();
        let access = self.adopt(token);
        if matches!(want, Want::InsteadOf(_)) {
            self.state.lock().unproven = Some(Unproven {
                since: Instant::now(),
                count: earlier + 1,
            });
        }
        access
    }

    /// Waits for other processes, and reads what they stored and what the application is now.
    fn lock_and_read(&self) -> (StoreLock, Result<Arc<TokenEndpoint>, LoginError>) {
        let lock = self.store().lock();
        match self.store().load() {
            Ok(Some(stored)) => {
                let mut state = self.state.lock();
                let newer = state.current.as_ref().is_none_or(|own| {
                    stored.issued_at > own.issued_at && !stored.is_access(&own.access_token)
                });
                if newer || !state.loaded {
                    state.current = Some(stored);
                }
                state.loaded = true;
            }
            Ok(None) => {}
            // A keyring that is locked will be unlocked: nothing is lost, and nobody has to sign in.
            Err(error) if self.store().is_vault() && self.state.lock().current.is_none() => {
                let text = format!("{}. Unlock it; it is tried again.", with_causes(&error));
                return (lock, Err(LoginError::new(LoginErrorKind::Transient, text)));
            }
            Err(error) => tracing::warn!(
                error = with_causes(&error),
                "could not use the saved sign-in"
            ),
        }
        (lock, self.present_endpoint())
    }

    /// The token endpoint for what the application is now. While its settings cannot be read, the
    /// last ones stand: a secret that is just being replaced must not end a sign-in.
    fn present_endpoint(&self) -> Result<Arc<TokenEndpoint>, LoginError> {
        let reload = self.reload.lock().clone();
        let fresh = reload.map(|reload| match reload() {
            Ok(Some(config)) => {
                let endpoint = TokenEndpoint::new(&self.http, &config);
                endpoint.map(Some).map_err(|error| with_causes(&error))
            }
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        });
        match fresh {
            Some(Ok(Some(endpoint))) => *self.endpoint.lock() = Some(Arc::new(endpoint)),
            Some(Ok(None)) => {
                let text = "Nobody is signed in. Sign in first.";
                return Err(LoginError::new(LoginErrorKind::NeedsLogin, text));
            }
            Some(Err(why)) if self.endpoint.lock().is_none() => {
                return Err(LoginError::new(LoginErrorKind::Transient, why));
            }
            Some(Err(why)) => tracing::warn!(
                why,
                "could not read the settings of the application; went on with the last ones"
            ),
            None => {}
        }
        self.endpoint.lock().clone().ok_or_else(|| {
            let text = "The given token is no longer accepted and cannot be renewed.";
            LoginError::new(LoginErrorKind::NeedsLogin, text)
        })
    }

    /// Stores a renewed token. A failure costs a new sign-in after a restart, not the present work.
    async fn keep(self: &Arc<Self>, token: TokenSet) {
        let shared = Arc::clone(self);
        let saved = tokio::task::spawn_blocking(move || shared.store().save(&token)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "could not save the renewed sign-in; it is lost at a restart");
        }
    }

    /// Makes a token the present one.
    fn adopt(&self, token: TokenSet) -> SecretString {
        let access = token.access_token.clone();
        let mut state = self.state.lock();
        state.current = Some(token);
        state.loaded = true;
        state.failure = None;
        state.dead = None;
        state.unproven = None;
        drop(state);
        self.needs_login.send_if_modified(std::mem::take);
        access
    }
}
