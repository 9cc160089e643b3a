//! From what is remembered and configured about an account to a client of the service.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::SecretString;
use onedrivefs_graph::auth::{Reload, TokenSource, TokenStore};
use onedrivefs_graph::{
    AuthConfig, Cloud, Disposition, Endpoints, Feature, GraphClient, GraphError, HttpOptions,
    Reach, SignIn, default_scopes,
};

use crate::account::{self, AccountRecord, SignInKind};
use crate::config::Layer;
use crate::credentials::Proof;
use crate::failure::{Failure, Outcome};
use crate::paths::{AccountName, Dirs, disk_remedy};
use crate::secrets::Secrets;

/// Time for an answer that a person waits for; twice this with the repetition of a failed read.
const PERSON_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of the service for a cloud, as far as the configuration does not replace them.
pub(crate) fn endpoints(config: &Layer, cloud: &str) -> Outcome<Endpoints> {
    let cloud = if cloud.is_empty() { "global" } else { cloud };
    let cloud = Cloud::parse(cloud).map_err(configured)?;
    let graph = config.endpoints.graph.as_ref().map(url::Url::as_str);
    let login = config.endpoints.login.as_ref().map(url::Url::as_str);
    Endpoints::with_overrides(cloud, graph, login).map_err(configured)
}

/// Who waits for the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A person in front of a terminal, who would rather have an error.
    Person,
    /// A mount, which goes on trying behind the scenes.
    Daemon,
}

/// How connections are made.
pub(crate) fn http_options(config: &Layer, patience: Patience) -> HttpOptions {
    let mut options = HttpOptions {
        ca_bundle: config.ca_bundle.clone(),
        proxy: config.proxy.clone(),
        content_proxy: config.content_proxy.clone(),
        ..HttpOptions::default()
    };
    if patience == Patience::Person {
        options.connect_timeout = PERSON_TIMEOUT;
        options.answer_timeout = PERSON_TIMEOUT;
    }
    options
}

/// What was given just now and is not kept yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// The client secret.
    pub(crate) secret: Option<SecretString>,
    /// The passphrase of the private key.
    pub(crate) passphrase: Option<SecretString>,
}

/// What the identity platform is asked for an account.
pub(crate) fn auth_config(
    config: &Layer,
    record: &AccountRecord,
    secrets: &Secrets,
) -> Outcome<AuthConfig> {
    auth_config_with(config, record, secrets, Given::default())
}

/// The same at a sign-in.
pub(crate) fn auth_config_with(
    config: &Layer,
    record: &AccountRecord,
    secrets: &Secrets,
    given: Given,
) -> Outcome<AuthConfig> {
    let endpoints = endpoints(config, &record.cloud)?;
    let scopes = if record.scopes.is_empty() {
        default_scopes(Reach::default())
    } else {
        record.scopes.clone()
    };
    let mut auth = AuthConfig {
        scopes,
        redirect_uri: record.redirect_uri.clone(),
        login_hint: record
            .user
            .as_ref()
            .map(|user| user.principal.clone())
            .filter(|principal| !principal.is_empty()),
        sign_in: sign_in_of(record),
        ..AuthConfig::new(record.client_id.as_str(), record.tenant.as_str(), endpoints)
    };
    let proof = Proof::read(record, secrets, given)?;
    auth.client_secret = proof.secret;
    auth.certificate = proof.certificate;
    auth.check().map_err(configured)?;
    Ok(auth)
}

fn sign_in_of(record: &AccountRecord) -> SignIn {
    match record.sign_in {
        SignInKind::Person => SignIn::User,
        SignInKind::App => SignIn::App,
    }
}

/// A client that uses and renews the account's stored tokens. Makes no request.
pub(crate) fn client(
    dirs: &Dirs,
    config: &Layer,
    account: &AccountName,
    record: &AccountRecord,
    patience: Patience,
) -> Outcome<GraphClient> {
    let secrets = record.secrets(dirs, account);
    let auth = match auth_config(config, record, &secrets) {
        Err(_) if record.signed_out => return Err(account::not_signed_in(account)),
        // A mount comes up without a network, and so it does without the keyring.
        Err(failure) if patience == Patience::Daemon && record.keeps_in_keyring() => {
            tracing::warn!(
                why = failure.sentence(),
                "What was kept at login cannot be read yet"
            );
            let http = http_options(config, patience);
            let reload = reload(dirs, config, account);
            let tokens = TokenSource::later(sign_in_of(record), &http, secrets.tokens(), reload);
            let endpoints = endpoints(config, &record.cloud)?;
            return GraphClient::new(endpoints, http, tokens).map_err(configured);
        }
        other => other?,
    };
    let graph = with_store(&auth, http_options(config, patience), secrets.tokens())?;
    if record.sign_in == SignInKind::App
        || auth.client_secret.is_some()
        || auth.certificate.is_some()
    {
        graph.tokens().set_reload(reload(dirs, config, account));
    }
    Ok(graph)
}

/// Reads an account's application anew, so that its secret can be replaced while it is in use.
fn reload(dirs: &Dirs, config: &Layer, account: &AccountName) -> Reload {
    let (dirs, config, account) = (dirs.clone(), config.clone(), account.clone());
    Arc::new(move || {
        let read = || -> Outcome<Option<AuthConfig>> {
            let record = account::known(&dirs, &config, &account)?;
            let Some(record) = record.filter(|record| !record.signed_out) else {
                return Ok(None);
            };
            let secrets = record.secrets(&dirs, &account);
            auth_config(&config, &record, &secrets).map(Some)
        };
        read().map_err(|failure| failure.sentence())
    })
}

/// A client with the given tokens.
pub(crate) fn with_store(
    auth: &AuthConfig,
    http: HttpOptions,
    store: TokenStore,
) -> Outcome<GraphClient> {
    let tokens = TokenSource::new(auth, &http, store).map_err(configured)?;
    GraphClient::new(auth.endpoints.clone(), http, tokens).map_err(configured)
}

/// Tells whether a text has the form 8-4-4-4-12 in hexadecimal.
pub(crate) fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

/// An error of the graph crate that the configuration causes.
pub(crate) fn configured(error: GraphError) -> Failure {
    Failure::usage("configuration", error).next("correct the configuration or the environment")
}

/// Says what to do about an error of the service.
pub(crate) fn explain_graph(what: &str, error: GraphError) -> Failure {
    let advice = error.advice();
    let next = match error.disposition() {
        _ if let Some(advice) = advice => advice,
        _ if let GraphError::Io { source, .. } = &error => disk_remedy(source.kind()),
        Disposition::Reauth => "sign in again: `onedrivefs login`, with the same --account",
        Disposition::Offline => "check the network, then run `onedrivefs doctor`",
        Disposition::NotFound => "check the name or id; `onedrivefs drives` lists what there is",
        Disposition::RetryAfter(_) | Disposition::Retry => {
            "the service is busy; try again in a few minutes"
        }
        _ => "run `onedrivefs doctor`",
    };
    Failure::because(what, error).next(next)
}

/// Says what is missing for something, when the permissions that were granted do not cover it.
pub(crate) fn require(record: &AccountRecord, account: &AccountName, feature: Feature) -> Outcome {
    if record.permissions().allow(feature) {
        return Ok(());
    }
    let (what, flag) = match feature {
        Feature::ReadOwn | Feature::WriteOwn => ("files", ""),
        Feature::ReadOthers | Feature::WriteOthers => {
            ("drives of others, libraries and what is shared", "")
        }
        Feature::Sites => ("sites and their libraries", " --sites"),
        Feature::Users => ("the list of people", ""),
        Feature::Teams => ("teams and their channels", " --teams"),
    };
    let needed = feature.needs();
    let next = match record.sign_in {
        SignInKind::App => format!(
            "add the application permission {needed} to the registration, have an administrator \
             grant it, then run `onedrivefs login --account {account}`"
        ),
        SignInKind::Person if flag.is_empty() => format!(
            "onedrivefs login --account {account} --scope {needed} --scope User.Read --scope \
             offline_access"
        ),
        SignInKind::Person => format!("onedrivefs login --account {account}{flag}"),
    };
    Err(Failure::new(
        format!("account {account}"),
        format!(
            "the sign-in does not cover {what}: the permission {needed} was not granted (granted: {})",
            record.granted.join(", ")
        ),
    )
    .next(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_recognised() {
        assert!(is_guid("00000000-1111-2222-3333-444444444444"));
        for other in [
            "",
            "x",
            "00000000-1111-2222-3333-44444444444",
            "~Q8Abc-secret-value-x-y",
        ] {
            assert!(!is_guid(other), "{other}");
        }
    }

    #[test]
    fn endpoints_are_replaced_and_checked() {
        let config = Layer::from_option("endpoints.graph=http://127.0.0.1:9/v1.0").expect("option");
        let endpoints = endpoints(&config, "").expect("loopback");
        assert_eq!(endpoints.graph.as_str(), "http://127.0.0.1:9/v1.0");
        let plain = Layer::from_option("endpoints.graph=http://example.com/v1.0").expect("option");
        let refused = super::endpoints(&plain, "global").expect_err("plain http");
        assert_eq!(refused.code(), 2);
        assert!(super::endpoints(&Layer::default(), "moon").is_err());
    }
}
