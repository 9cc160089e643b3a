//! Consent of an administrator for everybody in an organisation.
//!
//! It is given in a browser, usually by somebody else than the person who uses this program: they get
//! an address, and afterwards can send back the address at which their browser ended.

use url::Url;

use super::error::LoginError;
use crate::config::AuthConfig;
use crate::error::{GraphError, clean};

/// What an administrator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsentResult {
    /// The application may be used in this tenant.
    Granted {
        /// The tenant's id, where told.
        tenant: Option<String>,
    },
    /// It may not, for this reason.
    Refused(LoginError),
}

/// The address that asks an administrator for consent.
///
/// # Errors
/// The configuration is unusable.
pub fn admin_consent_url(config: &AuthConfig) -> Result<Url, GraphError> {
    let mut url = config.tenant_url("adminconsent")?;
    let redirect = config.redirect_uri.as_deref().unwrap_or("http://localhost");
    url.query_pairs_mut()
        .append_pair("client_id", config.client_id.trim())
        .append_pair("redirect_uri", redirect);
    Ok(url)
}

/// Reads the address at which the administrator's browser ended; `None` when it is another one.
#[must_use]
pub fn consent_result(address: &str) -> Option<ConsentResult> {
    let address = address.trim();
    let url = Url::parse(address)
        .or_else(|_relative| {
            Url::parse(&format!(
                "http://localhost/?{}",
                address.trim_start_matches('?')
            ))
        })
        .ok()?;
    let find = |key: &str| {
        let found = url
            .query_pairs()
            .find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.into_owned())
    };
    if let Some(error) = find("error") {
        let told = find("error_description");
        return Some(ConsentResult::Refused(LoginError::from_answer(
            &error,
            told.as_deref(),
        )));
    }
    let granted = find("admin_consent")?.eq_ignore_ascii_case("true");
    granted.then(|| ConsentResult::Granted {
        tenant: find("tenant").map(|tenant| clean(&tenant)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cloud, Endpoints};

    #[test]
    fn al_13_the_address_has_both_values_encoded() {
        let endpoints = Endpoints::for_cloud(Cloud::Global).unwrap();
        let mut config = AuthConfig::new("id-1", "common", endpoints);
        config.redirect_uri = Some("https://entra.microsoft.com/TokenAuthorize".to_owned());
        assert_eq!(
            admin_consent_url(&config).unwrap().as_str(),
            "https://login.microsoftonline.com/common/adminconsent?client_id=id-1\
             &redirect_uri=https%3A%2F%2Fentra.microsoft.com%2FTokenAuthorize"
        );
    }

    #[test]
    fn al_14_the_final_address_is_understood() {
        let granted = "https://entra.microsoft.com/TokenAuthorize?admin_consent=True&tenant=0f-1#";
        let tenant = Some("0f-1".to_owned());
        assert_eq!(
            consent_result(granted),
            Some(ConsentResult::Granted {
                tenant: tenant.clone()
            })
        );
        let bare = "admin_consent=True&tenant=0f-1#";
        assert_eq!(
            consent_result(bare),
            Some(ConsentResult::Granted { tenant })
        );
        let refused = "http://localhost/?error=access_denied&error_description=AADSTS65004%3A+no";
        let Some(ConsentResult::Refused(error)) = consent_result(refused) else {
            panic!("not refused");
        };
        assert!(error.to_string().contains("declined"), "{error}");
        for other in ["", "nonsense", "http://localhost/?code=x&state=y"] {
            assert_eq!(consent_result(other), None, "{other}");
        }
    }
}
