//! From what is remembered and configured about an account to a client of the service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use onedrivefs_core::SecretString;
use onedrivefs_graph::auth::{TokenSource, TokenStore};
use onedrivefs_graph::{
    AuthConfig, Cloud, Disposition, Endpoints, GraphClient, GraphError, HttpOptions, default_scopes,
};

use crate::account::AccountRecord;
use crate::config::Layer;
use crate::failure::{Explain, Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs, disk_remedy};

/// Time for an answer that a person waits for; twice this with the repetition of a failed read.
const PERSON_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest file taken for a client secret, in bytes; a secret has about 40.
const SECRET_SIZE_MAX: u64 = 4096;

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
        ..HttpOptions::default()
    };
    if patience == Patience::Person {
        options.connect_timeout = PERSON_TIMEOUT;
        options.answer_timeout = PERSON_TIMEOUT;
    }
    options
}

/// What the identity platform is asked for an account.
pub(crate) fn auth_config(config: &Layer, record: &AccountRecord) -> Outcome<AuthConfig> {
    let tenant = if record.tenant.is_empty() {
        "common"
    } else {
        &record.tenant
    };
    let endpoints = endpoints(config, &record.cloud)?;
    let scopes = if record.scopes.is_empty() {
        default_scopes(tenant, false)
    } else {
        record.scopes.clone()
    };
    let secret = record
        .client_secret_file
        .as_deref()
        .map(read_secret)
        .transpose()?;
    Ok(AuthConfig {
        scopes,
        client_secret: secret,
        redirect_uri: record.redirect_uri.clone(),
        login_hint: record
            .user
            .as_ref()
            .map(|user| user.principal.clone())
            .filter(|principal| !principal.is_empty()),
        ..AuthConfig::new(record.client_id.as_str(), tenant, endpoints)
    })
}

/// A client that uses and renews the account's stored tokens. Makes no request.
pub(crate) fn client(
    dirs: &Dirs,
    config: &Layer,
    account: &AccountName,
    record: &AccountRecord,
    patience: Patience,
) -> Outcome<GraphClient> {
    let auth = auth_config(config, record)?;
    let store = TokenStore::file(dirs.token_file(account));
    with_store(&auth, http_options(config, patience), store)
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

/// Reads a client secret, and warns when others can read it too.
fn read_secret(path: &Path) -> Outcome<SecretString> {
    let what = || format!("reading the client secret in {}", path.display());
    let metadata = fs::metadata(path).explain(what)?;
    if metadata.len() > SECRET_SIZE_MAX {
        return Err(Failure::usage(what(), "the file is too large for a secret"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        output::note(format!(
            "warning: {} can be read by others; run `chmod 600` on it",
            path.display()
        ));
    }
    let text = fs::read_to_string(path).explain(what)?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Failure::usage(what(), "the file is empty"));
    }
    if is_guid(secret) {
        output::note(
            "warning: the client secret looks like a secret's *id*; its *value* is needed, which \
             the portal shows only once",
        );
    }
    Ok(SecretString::from(secret))
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
fn configured(error: GraphError) -> Failure {
    Failure::usage("configuration", error).next("correct the configuration or the environment")
}

/// Says what to do about an error of the service.
pub(crate) fn explain_graph(what: &str, error: GraphError) -> Failure {
    let next = match error.disposition() {
        _ if let GraphError::Io { source, .. } = &error => disk_remedy(source.kind()),
        Disposition::Reauth => "sign in again: `onedrivefs login`, with the same --account",
        Disposition::Offline => "check the network, then run `onedrivefs doctor`",
        Disposition::NotFound => "check the name or id; `onedrivefs drives` lists what there is",
        Disposition::RetryAfter(_) | Disposition::Retry => {
            "the service is busy; try again in a few minutes"
        }
        _ if error.status() == Some(403) => {
            "the account or the application lacks a permission; an administrator may have to grant it"
        }
        _ => "run `onedrivefs doctor`",
    };
    Failure::because(what, error).next(next)
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

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        use onedrivefs_core::ExposeSecret;
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), "s3cr3t~value\n").expect("written");
        let secret = read_secret(file.path()).expect("read");
        assert_eq!(secret.expose_secret(), "s3cr3t~value");
        fs::write(file.path(), "\n").expect("written");
        assert!(read_secret(file.path()).is_err());
        assert!(read_secret(Path::new("/nonexistent/secret")).is_err());
    }
}
