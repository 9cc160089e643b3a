//! Addresses of the service: building them from ids and names, and judging those it sends.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use onedrivefs_core::{DriveId, ItemId};

use crate::GraphError;
use crate::config::{Cloud, Endpoints, is_loopback};
use crate::http_client::host_of;

/// What is escaped in a name: everything but letters, digits and `-._~`. More than the grammar of
/// URLs demands, because literal delimiters confuse the service's path syntax.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is escaped in an id; `!` and `,` are part of many and harmless.
const ID: &AsciiSet = &NAME.remove(b'!').remove(b',');

/// Escapes an id for use as a segment of a path.
fn id_segment(id: &str) -> Result<String, GraphError> {
    if matches!(id, "" | "." | "..") {
        return Err(GraphError::config(
            "an id that is no id cannot be addressed",
        ));
    }
    Ok(utf8_percent_encode(id, ID).to_string())
}

/// Escapes a name for use as a segment of a path.
fn name_segment(name: &str) -> Result<String, GraphError> {
    if matches!(name, "" | "." | "..") {
        return Err(GraphError::config(
            "a name that is no name cannot be addressed",
        ));
    }
    Ok(utf8_percent_encode(name, NAME).to_string())
}

/// Escapes a text for use inside the quotes of a function or key.
pub(crate) fn quoted(text: &str) -> String {
    utf8_percent_encode(&text.replace('\'', "''"), NAME).to_string()
}

/// Escapes a value of a query.
pub(crate) fn query_value(text: &str) -> String {
    utf8_percent_encode(text, NAME).to_string()
}

impl Endpoints {
    /// An address below the root of Graph. The path is escaped already and begins with a slash.
    pub(crate) fn graph_url(&self, path: &str) -> Result<Url, GraphError> {
        let base = self.graph.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}{path}"))
            .map_err(|error| GraphError::config(format!("an unusable address: {error}")))
    }

    /// The path of a drive.
    pub(crate) fn drive_path(drive: &DriveId) -> Result<String, GraphError> {
        Ok(format!("/drives/{}", id_segment(drive.as_str())?))
    }

    /// The path of an item.
    pub(crate) fn item_path(drive: &DriveId, item: &ItemId) -> Result<String, GraphError> {
        let item = id_segment(item.as_str())?;
        Ok(format!("{}/items/{item}", Self::drive_path(drive)?))
    }

    /// The path of a child by name, with an action such as `/content`, or none.
    ///
    /// The Chinese cloud does not know the colon form.
    pub(crate) fn child_path(
        &self,
        drive: &DriveId,
        parent: &ItemId,
        name: &str,
        action: &str,
    ) -> Result<String, GraphError> {
        let parent = Self::item_path(drive, parent)?;
        let segment = name_segment(name)?;
        Ok(if self.cloud == Cloud::China {
            format!("{parent}/children('{}'){action}", quoted(name))
        } else if action.is_empty() {
            format!("{parent}:/{segment}")
        } else {
            format!("{parent}:/{segment}:{action}")
        })
    }

    /// The path of a site by its id or its address in a browser.
    pub(crate) fn site_path(site: &str) -> Result<String, GraphError> {
        let Ok(url) = Url::parse(site) else {
            return Ok(format!("/sites/{}", id_segment(site)?));
        };
        let host = url
            .host_str()
            .ok_or_else(|| GraphError::config("the site's address has no host"))?;
        let path = url.path().trim_matches('/');
        Ok(if path.is_empty() {
            format!("/sites/{host}")
        } else {
            format!("/sites/{host}:/{path}:")
        })
    }

    /// Tells whether an address belongs to the configured Graph, so that it may get the token.
    pub(crate) fn is_graph(&self, url: &Url) -> bool {
        url.origin() == self.graph.origin() && url.username().is_empty() && url.password().is_none()
    }

    /// Judges a link of the service to a further page: returns what to GET with the token.
    ///
    /// A link to the configured origin is used verbatim. An emulator reached through an override
    /// may answer with links of the genuine host, or of another name of loopback; those lead to
    /// the configured origin instead. Any other link would leak the token.
    ///
    /// # Errors
    /// The link is no URL or leads elsewhere.
    pub(crate) fn adopt_link(&self, link: &str) -> Result<Url, GraphError> {
        let foreign = |host: String| GraphError::ForeignLink { host };
        let url = match Url::parse(link) {
            Ok(url) => url,
            Err(url::ParseError::RelativeUrlWithoutBase) => self
                .graph
                .join(link)
                .map_err(|_error| foreign("an unreadable address".to_owned()))?,
            Err(_error) => return Err(foreign("an unreadable address".to_owned())),
        };
        if self.is_graph(&url) {
            return Ok(url);
        }
        let overridden = self.graph.host_str() != Some(self.cloud.graph_host());
        let genuine = url.scheme() == "https"
            && Cloud::ALL
                .iter()
                .any(|cloud| url.host_str() == Some(cloud.graph_host()));
        let other_loopback = is_loopback(&url) && is_loopback(&self.graph);
        if !(overridden && genuine || other_loopback) {
            return Err(foreign(host_of(&url)));
        }
        let own_root = self.graph.path().trim_end_matches('/');
        let rest = url
            .path()
            .strip_prefix(own_root)
            .filter(|rest| rest.starts_with('/'))
            .or_else(|| url.path().strip_prefix("/v1.0"))
            .unwrap_or(url.path());
        let query = url
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        self.graph_url(&format!("{rest}{query}"))
    }

    /// Judges a pre-authenticated address of the service. It never gets the token, so any host
    /// will do, but not in clear over a network, and not this machine's own services.
    ///
    /// # Errors
    /// The address is no URL, or uses plain http outside of a setup on loopback.
    pub(crate) fn check_content_url(&self, text: &str) -> Result<Url, GraphError> {
        let foreign = |host: String| GraphError::ForeignLink { host };
        let url = Url::parse(text).map_err(|_error| foreign("an unreadable address".to_owned()))?;
        let local = is_loopback(&self.graph);
        let fine = match url.scheme() {
            "https" => local || !is_loopback(&url),
            "http" => local && is_loopback(&url),
            _ => false,
        };
        if fine {
            Ok(url)
        } else {
            Err(foreign(host_of(&url)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(graph: Option<&str>) -> Endpoints {
        Endpoints::with_overrides(Cloud::Global, graph, None).unwrap()
    }

    #[test]
    fn names_are_escaped_segment_by_segment() {
        let own = endpoints(None);
        let (drive, parent) = (DriveId::new("b!x"), ItemId::new("01P"));
        for (name, expected) in [
            ("a b.txt", "a%20b.txt"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            ("#1+(2)", "%231%2B%282%29"),
            ("\u{e4}", "%C3%A4"),
        ] {
            let path = own.child_path(&drive, &parent, name, "/content").unwrap();
            assert_eq!(path, format!("/drives/b!x/items/01P:/{expected}:/content"));
            let url = own.graph_url(&path).unwrap();
            assert_eq!(url.path(), format!("/v1.0{path}"));
        }
        for name in ["", ".", ".."] {
            assert!(own.child_path(&drive, &parent, name, "").is_err());
        }
        assert!(Endpoints::item_path(&drive, &ItemId::new("..")).is_err());
        let china = Endpoints::for_cloud(Cloud::China).unwrap();
        let path = china.child_path(&drive, &parent, "it's", "").unwrap();
        assert_eq!(path, "/drives/b!x/items/01P/children('it%27%27s')");
    }

    #[test]
    fn links_lead_to_the_configured_origin_or_nowhere() {
        let genuine = endpoints(None);
        let link = "https://graph.microsoft.com/v1.0/drives/d/root/delta?token=a%20b&x='1'";
        assert_eq!(
            genuine.adopt_link(link).unwrap().host_str(),
            Some("graph.microsoft.com")
        );
        let local = endpoints(Some("http://127.0.0.1:9000/v1.0"));
        assert_eq!(
            local
                .adopt_link("https://graph.microsoft.com/v1.0/me/drive?token=x")
                .unwrap()
                .as_str(),
            "http://127.0.0.1:9000/v1.0/me/drive?token=x"
        );
        assert_eq!(
            local
                .adopt_link("http://localhost:9000/v1.0/me?x=1")
                .unwrap()
                .as_str(),
            "http://127.0.0.1:9000/v1.0/me?x=1"
        );
        let nested = endpoints(Some("http://127.0.0.1:9000/graph/v1.0"));
        assert_eq!(
            nested
                .adopt_link("https://graph.microsoft.com/v1.0/me?x=1")
                .unwrap()
                .as_str(),
            "http://127.0.0.1:9000/graph/v1.0/me?x=1"
        );
        for hostile in [
            "https://evil.example/v1.0/me",
            "http://graph.microsoft.com/v1.0/me",
            "https://graph.microsoft.com.evil.example/v1.0/me",
            "https://graph.microsoft.com:444/v1.0/me",
            "https://user@graph.microsoft.com/v1.0/me",
            "http://127.0.0.1:1/v1.0/me",
            "//evil.example/x",
            "file:///etc/passwd",
        ] {
            assert!(genuine.adopt_link(hostile).is_err(), "{hostile}");
        }
        assert!(local.adopt_link("https://evil.example/v1.0/me").is_err());
    }

    #[test]
    fn content_may_be_anywhere_but_in_clear() {
        let genuine = endpoints(None);
        assert!(
            genuine
                .check_content_url("https://x.files.1drv.com/a?b")
                .is_ok()
        );
        assert!(
            genuine
                .check_content_url("http://x.files.1drv.com/a?b")
                .is_err()
        );
        assert!(genuine.check_content_url("http://127.0.0.1:80/").is_err());
        assert!(genuine.check_content_url("https://localhost/").is_err());
        let local = endpoints(Some("http://127.0.0.1:9000/v1.0"));
        assert!(local.check_content_url("http://127.0.0.1:80/").is_ok());
        assert!(local.check_content_url("http://example.com/").is_err());
    }

    #[test]
    fn sites_are_addressed_by_id_or_address() {
        for (site, path) in [
            (
                "contoso.sharepoint.com,a,b",
                "/sites/contoso.sharepoint.com,a,b",
            ),
            (
                "https://contoso.sharepoint.com/sites/Team/",
                "/sites/contoso.sharepoint.com:/sites/Team:",
            ),
            (
                "https://contoso.sharepoint.com",
                "/sites/contoso.sharepoint.com",
            ),
        ] {
            assert_eq!(Endpoints::site_path(site).unwrap(), path);
        }
    }
}
