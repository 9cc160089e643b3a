//! Where the service is and how to reach it: clouds, endpoints, proxies, certificates.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::{Host, Url};

use crate::GraphError;
use crate::auth::ClientCertificate;

/// Time to establish a connection. Longer waits only delay the verdict "offline".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence inside a body before the transfer counts as hung.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a whole answer of JSON, from sending the request to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The separate installations of the service. Accounts never cross from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The worldwide cloud, and the only one with personal accounts.
    #[default]
    Global,
    /// US government, GCC High.
    UsGovL4,
    /// US government, Department of Defense.
    UsGovL5,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// Every cloud in use.
    pub const ALL: [Self; 4] = [Self::Global, Self::UsGovL4, Self::UsGovL5, Self::China];

    /// Parses the name used in the configuration.
    ///
    /// # Errors
    /// Names no cloud, or the retired German one.
    pub fn parse(name: &str) -> Result<Self, GraphError> {
        match name.to_ascii_lowercase().as_str() {
            "global" | "public" | "worldwide" => Ok(Self::Global),
            "usgov" | "usgovl4" | "usgov-l4" | "gcchigh" => Ok(Self::UsGovL4),
            "usgovl5" | "usgov-l5" | "dod" => Ok(Self::UsGovL5),
            "china" | "cn" | "21vianet" => Ok(Self::China),
            "germany" | "de" => Err(GraphError::config(
                "the German cloud was closed by Microsoft; use \"global\"",
            )),
            other => Err(GraphError::config(format!(
                "unknown cloud \"{other}\"; use global, usgov-l4, usgov-l5 or china"
            ))),
        }
    }

    /// Host name of Microsoft Graph in this cloud.
    #[must_use]
    pub const fn graph_host(self) -> &'static str {
        match self {
            Self::Global => "graph.microsoft.com",
            Self::UsGovL4 => "graph.microsoft.us",
            Self::UsGovL5 => "dod-graph.microsoft.us",
            Self::China => "microsoftgraph.chinacloudapi.cn",
        }
    }

    /// Host name of the identity platform in this cloud.
    #[must_use]
    pub const fn login_host(self) -> &'static str {
        match self {
            Self::Global => "login.microsoftonline.com",
            Self::UsGovL4 | Self::UsGovL5 => "login.microsoftonline.us",
            Self::China => "login.chinacloudapi.cn",
        }
    }
}

/// The two addresses everything else derives from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Root of Graph including its version, without a slash at the end.
    pub graph: Url,
    /// Root of the identity platform.
    pub login: Url,
    /// The cloud whose rules and scope names apply.
    pub cloud: Cloud,
}

impl Endpoints {
    /// The genuine addresses of a cloud.
    ///
    /// # Errors
    /// None in practice; the addresses are constants.
    pub fn for_cloud(cloud: Cloud) -> Result<Self, GraphError> {
        Self::with_overrides(cloud, None, None)
    }

    /// The addresses of a cloud with either of them replaced.
    ///
    /// # Errors
    /// An override is no URL, has credentials, a query or a fragment, or uses plain http for a
    /// host that is not loopback.
    pub fn with_overrides(
        cloud: Cloud,
        graph: Option<&str>,
        login: Option<&str>,
    ) -> Result<Self, GraphError> {
        let genuine_graph = format!("https://{}/v1.0", cloud.graph_host());
        let genuine_login = format!("https://{}", cloud.login_host());
        Ok(Self {
            graph: check_endpoint("graph", graph.unwrap_or(&genuine_graph))?,
            login: check_endpoint("login", login.unwrap_or(&genuine_login))?,
            cloud,
        })
    }
}

/// Parses an endpoint and refuses what would send tokens in clear over a network.
fn check_endpoint(what: &str, text: &str) -> Result<Url, GraphError> {
    let trimmed = text.trim().trim_end_matches('/');
    let url = Url::parse(trimmed).map_err(|error| {
        GraphError::config(format!("the {what} endpoint is not a URL: {error}"))
    })?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain || url.host().is_none() {
        return Err(GraphError::config(format!(
            "the {what} endpoint must have a host and neither credentials, query nor fragment"
        )));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(GraphError::config(format!(
            "the {what} endpoint must use https (plain http is for loopback only)"
        ))),
    }
}

/// Tells whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// How connections are made, the same for Graph, the identity platform and content hosts.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// A PEM file of certificates trusted in addition to those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// A proxy for everything but loopback; without it the environment decides.
    pub proxy: Option<Url>,
    /// A proxy for the bytes of files, instead of that one.
    pub content_proxy: Option<Url>,
    /// What the service sees as our name; traffic named by its pattern is preferred.
    pub user_agent: String,
    /// Time to establish a connection.
    pub connect_timeout: Duration,
    /// Longest silence inside a body.
    pub idle_timeout: Duration,
    /// Time for a whole JSON answer.
    pub answer_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            ca_bundle: None,
            proxy: None,
            content_proxy: None,
            user_agent: concat!("ISV|onedrivefs|onedrivefs/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

/// On whose behalf tokens are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignIn {
    /// A person signed in; refresh tokens keep the session.
    #[default]
    User,
    /// The application itself, by its secret or certificate; there is no `/me` and nothing to
    /// refresh.
    App,
}

/// Which application asks which identity platform for what.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The application (client) id of the registration.
    pub client_id: String,
    /// `common`, `organizations`, `consumers`, a tenant id or a domain.
    pub tenant: String,
    /// Addresses; only the login one receives these values.
    pub endpoints: Endpoints,
    /// What access to ask for. Short names are qualified with the Graph host outside the global
    /// cloud.
    pub scopes: Vec<String>,
    /// The secret of a confidential application. A public client must not send one.
    pub client_secret: Option<SecretString>,
    /// The certificate of a confidential application, which is used instead of a secret.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// A fixed redirect URI as registered; by default a free loopback port is used.
    pub redirect_uri: Option<String>,
    /// Whether a person or the application signs in.
    pub sign_in: SignIn,
    /// The account to preselect on the sign-in page.
    pub login_hint: Option<String>,
    /// What a policy wants to see proven, as an earlier refusal said.
    pub claims: Option<String>,
}

impl AuthConfig {
    /// A public client asking for read and write access on behalf of a person.
    #[must_use]
    pub fn new(
        client_id: impl Into<String>,
        tenant: impl Into<String>,
        endpoints: Endpoints,
    ) -> Self {
        let tenant = tenant.into();
        Self {
            client_id: client_id.into(),
            scopes: default_scopes(Reach::default()),
            tenant,
            endpoints,
            client_secret: None,
            certificate: None,
            redirect_uri: None,
            sign_in: SignIn::User,
            login_hint: None,
            claims: None,
        }
    }

    /// The scopes as they go into requests.
    pub(crate) fn request_scopes(&self) -> Vec<String> {
        let resource = format!("https://{}/", self.endpoints.cloud.graph_host());
        if self.sign_in == SignIn::App {
            return vec![format!("{resource}.default")];
        }
        let qualify = |scope: &String| {
            let bare = scope.contains("://")
                || self.endpoints.cloud == Cloud::Global
                || matches!(
                    scope.as_str(),
                    "offline_access" | "openid" | "profile" | "email"
                );
            if bare {
                scope.clone()
            } else {
                format!("{resource}{scope}")
            }
        };
        self.scopes.iter().map(qualify).collect()
    }

    /// One of the OAuth endpoints of the identity platform for the tenant.
    pub(crate) fn login_url(&self, leaf: &str) -> Result<Url, GraphError> {
        self.tenant_url(&format!("oauth2/v2.0/{leaf}"))
    }

    /// An address of the identity platform below the tenant.
    pub(crate) fn tenant_url(&self, path: &str) -> Result<Url, GraphError> {
        let tenant = self.tenant.trim();
        let tenant = if tenant.is_empty() { "common" } else { tenant };
        let tenant_ok = tenant
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if !tenant_ok || tenant.starts_with('.') {
            return Err(GraphError::config(
                "the tenant must be common, organizations, consumers, a tenant id or a domain",
            ));
        }
        let base = self.endpoints.login.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{tenant}/{path}"))
            .map_err(|error| GraphError::config(format!("the login endpoint is unusable: {error}")))
    }

    /// Refuses combinations that the identity platform would refuse less clearly.
    ///
    /// # Errors
    /// The combination cannot work; the text says why.
    pub fn check(&self) -> Result<(), GraphError> {
        let cloud = self.endpoints.cloud;
        let tenant = self.tenant.trim().to_ascii_lowercase();
        let shared = matches!(
            tenant.as_str(),
            "" | "common" | "organizations" | "consumers"
        );
        if self.sign_in == SignIn::App && shared {
            let named = if tenant.is_empty() { "common" } else { &tenant };
            return Err(GraphError::config(format!(
                "an application that signs in by itself belongs to one tenant, so \"{named}\" \
                 cannot work: set the tenant to the directory (tenant) id of the overview page, or \
                 to a domain of it"
            )));
        }
        if cloud != Cloud::Global && tenant == "consumers" {
            return Err(GraphError::config(
                "personal accounts (\"consumers\") exist in the global cloud only: leave the cloud \
                 out, or set the tenant to \"organizations\" or to your own",
            ));
        }
        if self.client_secret.is_some() && self.certificate.is_some() {
            return Err(GraphError::config(
                "there are both a client secret and a certificate: configure one of them",
            ));
        }
        if self.sign_in == SignIn::App && self.client_secret.is_none() && self.certificate.is_none()
        {
            return Err(GraphError::config(
                "signing in as an application needs a client secret or a certificate",
            ));
        }
        self.tenant_url("").map(drop)
    }
}

/// How far the access goes that a person is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Nothing is going to be changed.
    pub read_only: bool,
    /// Libraries of sites are looked for, which administrators often have to approve.
    pub sites: bool,
    /// Teams and their channels are looked for.
    pub teams: bool,
}

/// What a person is asked to consent to: the least that the reach needs.
#[must_use]
pub fn default_scopes(reach: Reach) -> Vec<String> {
    let files = if reach.read_only {
        "Files.Read.All"
    } else {
        "Files.ReadWrite.All"
    };
    let sites = reach.sites.then_some("Sites.Read.All");
    let teams: &[&str] = if reach.teams {
        &["Team.ReadBasic.All", "Channel.ReadBasic.All"]
    } else {
        &[]
    };
    [files]
        .into_iter()
        .chain(sites)
        .chain(teams.iter().copied())
        .chain(["User.Read", "offline_access"])
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in [
            "http://127.0.0.1:8080/v1.0",
            "http://[::1]:1/v1.0/",
            "http://localhost/v1.0",
            "https://graph.example/v1.0",
        ] {
            assert!(check_endpoint("graph", good).is_ok(), "{good}");
        }
        for bad in [
            "http://graph.example/v1.0",
            "http://127.0.0.1.example/v1.0",
            "ftp://localhost/",
            "https://user@graph.example/",
            "https://graph.example/?x=1",
            "nonsense",
        ] {
            assert!(check_endpoint("graph", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_follow_the_cloud() {
        let endpoints = Endpoints::for_cloud(Cloud::China).unwrap();
        let config = AuthConfig::new("id", "example.cn", endpoints);
        let scopes = config.request_scopes();
        assert_eq!(
            scopes[0],
            "https://microsoftgraph.chinacloudapi.cn/Files.ReadWrite.All"
        );
        assert!(scopes.contains(&"offline_access".to_owned()));
        let least = ["Files.ReadWrite.All", "User.Read", "offline_access"];
        assert_eq!(default_scopes(Reach::default()), least);
        let wide = default_scopes(Reach {
            read_only: true,
            sites: true,
            teams: false,
        });
        assert_eq!(wide[..2], ["Files.Read.All", "Sites.Read.All"]);
        assert!(Cloud::parse("germany").is_err());
    }

    #[test]
    fn a_tenant_cannot_change_the_login_path() {
        let endpoints = Endpoints::for_cloud(Cloud::Global).unwrap();
        for bad in ["a/../b", "x?y", "..", "a#b"] {
            let config = AuthConfig::new("id", bad, endpoints.clone());
            assert!(config.login_url("token").is_err(), "{bad}");
        }
    }
}
