//! A token with what is known about it, and its form on disk.

use std::time::Duration;

use onedrivefs_core::{ExposeSecret as _, SecretString, Timestamp};
use serde::{Deserialize, Serialize};

/// Tokens are renewed this long before their end, so that no request carries one that expires on
/// its way; short-lived ones at four fifths of their life.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// What an answer of the identity platform grants.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// Proves the right to use Graph. Opaque: never parsed.
    pub access_token: SecretString,
    /// Gets the next access token; absent for applications.
    pub refresh_token: Option<SecretString>,
    /// When the access token was issued, by our clock.
    pub issued_at: Timestamp,
    /// When the access token ends, by our clock.
    pub expires_at: Timestamp,
    /// What was granted; empty when the answer did not tell.
    pub scope: Vec<String>,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredToken {
    access_token: String,
    refresh_token: Option<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default)]
    scope: Vec<String>,
}

impl From<&TokenSet> for StoredToken {
    fn from(token: &TokenSet) -> Self {
        let refresh = token.refresh_token.as_ref();
        Self {
            access_token: token.access_token.expose_secret().to_owned(),
            refresh_token: refresh.map(|token| token.expose_secret().to_owned()),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            scope: token.scope.clone(),
        }
    }
}

impl From<StoredToken> for TokenSet {
    fn from(stored: StoredToken) -> Self {
        Self {
            access_token: stored.access_token.into(),
            refresh_token: stored.refresh_token.map(SecretString::from),
            issued_at: stored.issued_at,
            expires_at: stored.expires_at,
            scope: stored.scope,
        }
    }
}

impl TokenSet {
    /// Tells whether the access token has not ended yet.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Tells whether the access token need not be renewed yet. One issued in the future means that
    /// the clock was set back: its end cannot be trusted.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        let life = self.expires_at.as_nanos() - self.issued_at.as_nanos();
        let early = i64::try_from(EARLY.as_nanos()).unwrap_or(i64::MAX);
        let early = early.min(life / 5).max(0);
        let skew = early.max(1_000_000_000);
        let from = self.issued_at.as_nanos().saturating_sub(skew);
        let until = self.expires_at.as_nanos().saturating_sub(early);
        (from..until).contains(&now.as_nanos())
    }

    /// Tells whether the access token is this one.
    pub(super) fn is_access(&self, token: &SecretString) -> bool {
        self.access_token.expose_secret() == token.expose_secret()
    }

    /// Tells whether both would be renewed with the same refresh token.
    pub(super) fn same_refresh(&self, other: &Self) -> bool {
        let text = |token: &Self| {
            let refresh = token.refresh_token.as_ref();
            refresh.map(|token| token.expose_secret().to_owned())
        };
        text(self) == text(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life_s: i64) -> TokenSet {
        let issued_at = Timestamp::from_nanos(1_000_000_000_000_000_000);
        TokenSet {
            access_token: "access-secret".to_owned().into(),
            refresh_token: Some("refresh-secret".to_owned().into()),
            issued_at,
            expires_at: Timestamp::from_nanos(issued_at.as_nanos() + life_s * 1_000_000_000),
            scope: Vec::new(),
        }
    }

    #[test]
    fn tokens_are_renewed_before_their_end() {
        let token = token(3600);
        let at = |s: i64| Timestamp::from_nanos(token.issued_at.as_nanos() + s * 1_000_000_000);
        assert!(token.is_fresh(at(0)) && token.is_fresh(at(3299)));
        assert!(!token.is_fresh(at(3301)) && token.is_alive(at(3301)));
        assert!(!token.is_alive(at(3600)));
        assert!(!token.is_fresh(at(-100_000)));
    }

    #[test]
    fn short_lived_tokens_are_usable_at_all() {
        let token = token(60);
        let at = |s: i64| Timestamp::from_nanos(token.issued_at.as_nanos() + s * 1_000_000_000);
        assert!(token.is_fresh(at(47)) && !token.is_fresh(at(49)));
    }

    #[test]
    fn debug_output_has_no_secret() {
        let shown = format!("{:?}", token(1));
        assert!(
            !shown.contains("secret\"") && !shown.contains("access-secret"),
            "{shown}"
        );
        assert!(!shown.contains("refresh-secret"), "{shown}");
    }
}
