//! Why signing in failed, in words that say what to do.
//!
//! The identity platform numbers its reasons (AADSTS…). The OAuth error decides what the program
//! does; the number only picks the sentence for the person.

use std::time::Duration;

use thiserror::Error;

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
}

impl LoginError {
    /// A failure of our own wording.
    pub(crate) fn new(kind: LoginErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            retry_after: None,
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
        let kind = match error {
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
            _ => code.and_then(advice),
        };
        let message = told.map_or_else(|| own_words(kind, error, description), str::to_owned);
        Self {
            kind,
            message,
            code,
            retry_after: None,
        }
    }
}

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

/// Cause and next step for a number of the identity platform.
#[must_use]
pub fn advice(code: u32) -> Option<&'static str> {
    Some(match code {
        50173 | 50132 | 50133 | 700_082 | 70008 | 70043 | 700_084 | 54005 | 50089 => {
            "The saved sign-in is no longer valid (too old, or the password or a policy changed). \
             Sign in again."
        }
        50072 | 50074 | 50076 | 50078 | 50079 | 50097 | 500_212 | 500_213 => {
            "The organization asks for another proof of identity. Sign in again interactively."
        }
        53000..=53003 | 530_032 | 530_035 => {
            "A policy of the organization forbids this sign-in, perhaps for this device or place. \
             Sign in again; if that is refused too, ask the administrator."
        }
        65004 => "The consent was declined. Sign in again and accept the permissions.",
        65001 | 90094 | 90095 | 650_052 | 650_056 | 650_057 | 65005 => {
            "The permissions of this application are not approved. Sign in again and consent, or \
             ask an administrator to approve the application."
        }
        50055 | 50144 => "The password expired. Change it in a browser, then sign in again.",
        50057 => "The account is disabled. Ask the administrator.",
        50105 => "The account is not assigned to this application. Ask the administrator.",
        50126 => "The user name or password is wrong. Sign in again.",
        50034 | 50020 | 51004 => {
            "The account does not exist in this tenant. Check the account and the tenant setting."
        }
        50059 | 90002 | 90072 | 700_005 | 90130 => {
            "The tenant is wrong for this account. Check the tenant setting."
        }
        50194 => {
            "The application belongs to one tenant only. Set the tenant to that one instead of \
             \"common\"."
        }
        9_002_332 => {
            "The application is for work accounts only. Set the tenant to \"organizations\" or to \
             your own."
        }
        9_001_023 | 90124 => {
            "This way of signing in does not work with \"common\" or \"consumers\" here. Set the \
             tenant to your own."
        }
        90038 => "The account lives in another cloud. Check the cloud setting.",
        700_016 | 70001 | 7_000_112 | 500_011 => {
            "The application is unknown or disabled in this tenant. Check the client id and the \
             tenant."
        }
        50011 => {
            "The redirect address is not registered. Add http://localhost as a \"Mobile and \
             desktop\" redirect to the application."
        }
        7_000_218 => {
            "The application does not allow public clients. Turn on \"Allow public client flows\" \
             in its registration, or configure a client secret."
        }
        700_025 => {
            "The application is a public client, which must not send a secret. Remove the client \
             secret from the configuration."
        }
        70002 | 7_000_215 | 7_000_222 => {
            "The client secret is wrong or expired. Create a new one in the registration of the \
             application."
        }
        700_027 | 500_133 => {
            "The certificate does not fit the application, or this machine's clock is wrong."
        }
        70011 => "A requested permission does not exist. Check the configured scopes.",
        50147 | 501_481 | 501_491 | 70003 | 70007 | 900_144 | 9_002_313 | 50196 => {
            "The sign-in request was not understood. Start again; if it persists, report it."
        }
        70016 => "The code has not been entered yet.",
        70018 => "The code that was entered is wrong. Start again.",
        70019 => "The code expired before it was used. Start again to get a new one.",
        90024 | 90033 | 90012 | 50033 | 50087 => {
            "Microsoft's sign-in service has trouble. It is tried again later."
        }
        _ => return None,
    })
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
