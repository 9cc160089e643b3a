//! Why signing in failed, in words that say what to do.
//!
//! The identity platform numbers its reasons (AADSTS…). The OAuth error decides what the program
//! does; the number only picks the sentence for the person.

use std::time::Duration;

use thiserror::Error;

use super::advice::advice;
use crate::error::{Disposition, clean};

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginErrorKind {
    /// There is no usable token: somebody has to sign in (again).
    NeedsLogin,
    /// The person refused.
    Declined,
    /// The code was not used in time.
    Expired,
    /// The application, tenant or account does not allow it.
    Refused,
    /// The identity platform has trouble; the token is still good.
    Transient,
    /// The identity platform gave no answer; the token is still good.
    Offline,
}

/// Why there is no token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}{}", .code.map(|code| format!(" [AADSTS{code}]")).unwrap_or_default())]
pub struct LoginError {
    /// What kind of failure it is.
    pub kind: LoginErrorKind,
    /// Cause and next step, for people.
    pub message: String,
    /// The number of the identity platform, where there is one.
    pub code: Option<u32>,
    /// How long to wait, where told.
    pub retry_after: Option<Duration>,
    /// What a policy wants to see proven, to be passed on to the sign-in page.
    pub claims: Option<String>,
}

impl LoginError {
    /// A failure of our own wording.
    pub(crate) fn new(kind: LoginErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            retry_after: None,
            claims: None,
        }
    }

    /// Tells whether the token may still be good.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            LoginErrorKind::Transient | LoginErrorKind::Offline
        )
    }

    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match (self.kind, self.retry_after) {
            (LoginErrorKind::Offline, _) => Disposition::Offline,
            (LoginErrorKind::Transient, Some(wait)) => Disposition::RetryAfter(wait),
            (LoginErrorKind::Transient, None) => Disposition::Retry,
            _ => Disposition::Reauth,
        }
    }

    /// Translates an error answer of the identity platform.
    pub(crate) fn from_answer(error: &str, description: Option<&str>) -> Self {
        let description = description.unwrap_or_default();
        let code = aadsts_number(description);
        let transient_code = matches!(code, Some(90024 | 90033 | 90012 | 50033 | 50087));
        let approval = matches!(
            code,
            Some(65001 | 65005 | 90094 | 90095 | 900_941 | 650_052 | 650_056 | 650_057)
        );
        let personal =
            error == "unauthorized_client" && description.contains("not enabled for consumers");
        let kind = match error {
            // Somebody who may not consent is sent back as if they had refused.
            _ if approval => LoginErrorKind::Refused,
            "temporarily_unavailable" | "server_error" => LoginErrorKind::Transient,
            _ if transient_code => LoginErrorKind::Transient,
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                LoginErrorKind::NeedsLogin
            }
            "authorization_declined" | "access_denied" => LoginErrorKind::Declined,
            "expired_token" => LoginErrorKind::Expired,
            _ => LoginErrorKind::Refused,
        };
        // What the person did is told by the error; the number that comes along only says where.
        let told = match kind {
            LoginErrorKind::Declined | LoginErrorKind::Expired => None,
            _ if personal => Some(NOT_FOR_PERSONAL),
            _ => code.and_then(advice),
        };
        let message = told.map_or_else(|| own_words(kind, error, description), str::to_owned);
        Self {
            kind,
            message,
            code,
            retry_after: None,
            claims: None,
        }
    }
}

/// For the one refusal that has no number: a personal account at an application for work accounts.
const NOT_FOR_PERSONAL: &str = "The application is not registered for personal accounts. Set the \
                                tenant to \"organizations\" and sign in with a work or school \
                                account, or register the application for personal accounts too.";

/// A sentence for an error without a known number.
fn own_words(kind: LoginErrorKind, error: &str, description: &str) -> String {
    let told = description.lines().next().map(clean).unwrap_or_default();
    let told = if told.is_empty() { clean(error) } else { told };
    match kind {
        LoginErrorKind::Declined => {
            "The sign-in was declined. Start again and accept the request.".to_owned()
        }
        LoginErrorKind::Expired => {
            "The code expired before it was used. Start again to get a new one.".to_owned()
        }
        LoginErrorKind::NeedsLogin => format!("Sign in again: {told}"),
        LoginErrorKind::Transient => {
            format!("Microsoft's sign-in service has trouble; it is tried again later: {told}")
        }
        LoginErrorKind::Refused | LoginErrorKind::Offline => {
            format!("Microsoft refused the sign-in: {told}")
        }
    }
}

/// Finds the number in texts such as `AADSTS700082: The refresh token …`.
fn aadsts_number(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_decides_and_the_number_explains() {
        let error = LoginError::from_answer(
            "invalid_grant",
            Some("AADSTS700082: The refresh token has expired.\r\nTrace ID: x"),
        );
        assert_eq!(error.kind, LoginErrorKind::NeedsLogin);
        assert_eq!(error.code, Some(700_082));
        assert!(error.to_string().contains("Sign in again"));
        assert!(error.to_string().contains("AADSTS700082"));
        assert_eq!(error.disposition(), Disposition::Reauth);
        let trouble = LoginError::from_answer("temporarily_unavailable", None);
        assert!(trouble.is_transient());
        let trouble = LoginError::from_answer("invalid_grant", Some("AADSTS90033: busy"));
        assert_eq!(trouble.disposition(), Disposition::Retry);
        let odd = LoginError::from_answer("x", Some("AADSTS: none"));
        assert_eq!((odd.kind, odd.code), (LoginErrorKind::Refused, None));
    }
}
