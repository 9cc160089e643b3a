//! The way to the service: names, proxies, certificates, clocks, and every host that a firewall has to
//! let through.

use onedrivefs_core::Timestamp;
use onedrivefs_graph::{Cloud, Endpoints, Silence, addresses, probe};
use serde::Serialize;
use url::Url;

use super::{Check, Verdict};
use crate::account::{self, AccountRecord};
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph};
use crate::failure::Outcome;
use crate::paths::Dirs;

/// Difference of clocks from which tokens and times go wrong, in seconds: the identity platform
/// tolerates five minutes.
const CLOCK_FAIL: u64 = 300;

/// Difference of clocks that shows in modification times, in seconds.
const CLOCK_WARN: u64 = 30;

/// Words in the names of those who issue the certificates of the service.
const ISSUERS: [&str; 4] = ["Microsoft", "DigiCert", "GlobalSign", "Entrust"];

/// A host that has to be reachable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Host {
    /// Its name; one that begins with `*.` stands for all below.
    pub(crate) name: String,
    /// What it is needed for.
    pub(crate) purpose: &'static str,
    /// Its address, where there is one to try.
    #[serde(skip)]
    pub(crate) url: Option<Url>,
}

/// Which proxy requests go through.
pub(super) fn proxy(config: &Layer) -> Check {
    let name = "proxy";
    if let Some(proxy) = &config.proxy {
        return Check::ok(
            name,
            format!("{}, from the configuration", without_secret(proxy)),
        );
    }
    let found = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .find_map(|variable| {
            let value = std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())?;
            Some((variable, value))
        });
    match found {
        None => Check::ok(name, "none"),
        Some((variable, value)) => {
            match Url::parse(&value).or_else(|_| Url::parse(&format!("http://{value}"))) {
                Ok(url) => {
                    let except = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy"));
                    let except = except
                        .map_or_else(|_| String::new(), |hosts| format!(", but not for {hosts}"));
                    Check::ok(
                        name,
                        format!("{}, from {variable}{except}", without_secret(&url)),
                    )
                }
                Err(error) => Check::fail(
                    name,
                    format!("{variable} is not a URL: {error}"),
                    "write for example http://proxy.example:3128",
                ),
            }
        }
    }
}

/// A URL without its credentials.
pub(crate) fn without_secret(url: &Url) -> String {
    let mut plain = url.clone();
    let hidden = !url.username().is_empty() || url.password().is_some();
    // A URL that cannot have credentials has none to remove.
    let _username = plain.set_username("");
    let _password = plain.set_password(None);
    let note = if hidden { " (with credentials)" } else { "" };
    format!("{}{note}", plain.as_str().trim_end_matches('/'))
}

/// Whether requests to a host go through a proxy, as far as the configuration tells.
fn has_proxy(config: &Layer) -> bool {
    config.proxy.is_some()
        || ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
            .iter()
            .any(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()))
}

/// Whether the two hosts of a cloud answer, and what time they think it is.
pub(super) async fn endpoints(config: &Layer, cloud: &str) -> Vec<Check> {
    let Endpoints { graph, login, .. } = match connect::endpoints(config, cloud) {
        Ok(endpoints) => endpoints,
        Err(failure) => return vec![Check::failure("endpoints", &failure)],
    };
    let mut checks = Vec::new();
    for (role, url) in [("sign-in", login), ("Graph", graph)] {
        checks.extend(host(config, &format!("{role} host"), &url).await);
    }
    checks
}

/// Everything about one host: its name, its answer, its certificate and its clock.
pub(super) async fn host(config: &Layer, name: &str, url: &Url) -> Vec<Check> {
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let mut checks = Vec::new();
    // Behind a proxy only that has to know the name.
    if !has_proxy(config) {
        match addresses(&host).await {
            Ok(found) if found.is_empty() => checks.push(no_name(&host, "it has no address")),
            Ok(found) => {
                let shown: Vec<String> = found.iter().take(4).map(ToString::to_string).collect();
                checks.push(Check::ok(format!("{name}: DNS"), shown.join(", ")));
            }
            Err(error) => {
                checks.push(no_name(&host, &error.to_string()));
                return checks;
            }
        }
    }
    match probe(url, &connect::http_options(config, Patience::Person)).await {
        Ok(answer) => {
            let detail = format!("{host} answers after {} ms", answer.took.as_millis());
            checks.push(Check::ok(name, detail));
            if answer.status == 407 {
                checks.push(Check::fail(
                    "proxy",
                    "the proxy asks for a name and a password",
                    "set proxy = \"http://NAME:PASSWORD@HOST:PORT\" in the configuration",
                ));
            }
            if let Some(issuer) = &answer.issuer {
                checks.push(certificate(&host, issuer));
            }
            checks.extend(answer.date.map(|date| clock(&host, date, Timestamp::now())));
        }
        Err(silence) => checks.push(no_answer(name, &host, silence)),
    }
    checks
}

fn no_name(host: &str, why: &str) -> Check {
    Check::fail(
        "DNS",
        format!("{host} is not found: {why}"),
        "check the network and its name server (`resolvectl query`); behind a proxy, set HTTPS_PROXY",
    )
}

/// Says which host was not reached, and whether trust was the reason.
fn no_answer(name: &str, host: &str, silence: Silence) -> Check {
    let failure = explain_graph(name, silence.error);
    // A certificate that was trusted leads to an answer or to another failure.
    let untrusted = ["certificate", "UnknownIssuer"]
        .iter()
        .any(|word| failure.reason().contains(word));
    match silence.issuer.filter(|_| untrusted) {
        Some(issuer) => Check::fail(
            name,
            format!(
                "{host} shows a certificate of {issuer}, which is not trusted: somebody may be \
                     looking into the connection"
            ),
            "if that is your organization, put its certificate authority into a PEM file and set \
             ca_bundle to that; otherwise do not sign in from this network",
        ),
        None => Check::fail(
            name,
            failure.reason(),
            format!("check the network and the proxy; {host} must be allowed"),
        ),
    }
}

/// Whether the certificate is one of the service's own.
fn certificate(host: &str, issuer: &str) -> Check {
    let name = "TLS";
    if ISSUERS.iter().any(|known| issuer.contains(known)) {
        return Check::ok(name, format!("{host} shows a certificate of {issuer}"));
    }
    Check::warn(
        name,
        format!(
            "{host} shows a certificate of {issuer}: somebody may be looking into the connection"
        ),
        "fine if your organization does that; otherwise do not sign in from this network",
    )
}

fn clock(host: &str, theirs: Timestamp, ours: Timestamp) -> Check {
    let name = "clock";
    let skew = theirs.seconds().abs_diff(ours.seconds());
    let detail = format!("differs by {skew} s from the one of {host}");
    let next = "set the clock: `sudo timedatectl set-ntp true`";
    match skew {
        CLOCK_FAIL.. => Check::fail(name, detail, next),
        CLOCK_WARN.. => Check::warn(name, detail, next),
        _ => Check::ok(name, detail),
    }
}

/// Every host that accounts on this machine need; without accounts, those of the global cloud.
pub(crate) fn hosts(dirs: &Dirs, config: &Layer) -> Outcome<Vec<Host>> {
    let mut records: Vec<AccountRecord> = Vec::new();
    for name in account::all(dirs, config)? {
        records.extend(account::known(dirs, config, &name)?);
    }
    if records.is_empty() {
        records.push(AccountRecord::default());
    }
    let mut all: Vec<Host> = Vec::new();
    let mut add = |name: String, purpose, url| {
        if all.iter().all(|host| host.name != name) {
            all.push(Host { name, purpose, url });
        }
    };
    for record in &records {
        let endpoints = connect::endpoints(config, &record.cloud)?;
        for (url, purpose) in [
            (endpoints.login, "signing in"),
            (endpoints.graph, "folders, names and changes"),
        ] {
            add(
                url.host_str().unwrap_or_default().to_owned(),
                purpose,
                Some(url),
            );
        }
        for (name, purpose) in content_hosts(endpoints.cloud) {
            add((*name).to_owned(), purpose, None);
        }
    }
    Ok(all)
}

/// Where Graph sends for the bytes of files, which lists of hosts to allow tend to forget.
fn content_hosts(cloud: Cloud) -> &'static [(&'static str, &'static str)] {
    match cloud {
        Cloud::Global => &[
            (
                "*.sharepoint.com",
                "the bytes of files of organizations, and announcements",
            ),
            (
                "my.microsoftpersonalcontent.com",
                "the bytes of files of personal accounts",
            ),
            ("*.1drv.com", "the bytes of files of personal accounts"),
            ("*.svc.ms", "thumbnails and some downloads"),
        ],
        Cloud::UsGovL4 => &[("*.sharepoint.us", "the bytes of files, and announcements")],
        Cloud::UsGovL5 => &[(
            "*.sharepoint-mil.us",
            "the bytes of files, and announcements",
        )],
        Cloud::China => &[("*.sharepoint.cn", "the bytes of files, and announcements")],
    }
}

/// Tries the hosts that have an address.
pub(crate) async fn try_host(config: &Layer, host: &Host) -> Option<Check> {
    let url = host.url.as_ref()?;
    let checks = self::host(config, &host.name, url).await;
    let worst = checks
        .iter()
        .position(|check| check.verdict == Verdict::Fail);
    let own = checks.iter().position(|check| check.name == host.name);
    let at = worst.or(own)?;
    checks.into_iter().nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_a_little() {
        let at = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
        assert_eq!(clock("h", at(100), at(110)).verdict, Verdict::Ok);
        assert_eq!(clock("h", at(200), at(100)).verdict, Verdict::Warn);
        assert_eq!(clock("h", at(100), at(4_000)).verdict, Verdict::Fail);
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let url = Url::parse("http://ada:hush@proxy.example:3128").expect("URL");
        assert_eq!(
            without_secret(&url),
            "http://proxy.example:3128 (with credentials)"
        );
        let open = Url::parse("http://proxy.example:3128").expect("URL");
        assert_eq!(without_secret(&open), "http://proxy.example:3128");
    }

    #[test]
    fn a_certificate_of_somebody_else_is_noticed() {
        let own = certificate(
            "h",
            "CN=Microsoft Azure RSA TLS Issuing CA 03,O=Microsoft Corporation,C=US",
        );
        assert_eq!(own.verdict, Verdict::Ok);
        assert_eq!(
            certificate("h", "CN=Corporate Proxy").verdict,
            Verdict::Warn
        );
    }

    #[test]
    fn cf_03_the_content_hosts_are_among_those_to_allow() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let names: Vec<String> = hosts(&dirs, &Layer::default())
            .expect("hosts")
            .into_iter()
            .map(|host| host.name)
            .collect();
        for needed in [
            "login.microsoftonline.com",
            "graph.microsoft.com",
            "*.sharepoint.com",
            "my.microsoftpersonalcontent.com",
            "*.1drv.com",
        ] {
            assert!(
                names.iter().any(|name| name == needed),
                "{needed}: {names:?}"
            );
        }
    }
}
