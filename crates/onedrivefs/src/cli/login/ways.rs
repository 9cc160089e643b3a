//! The ways in which a person gets through a sign-in.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use onedrivefs_graph::auth::{self, CodeFlow, TokenSet};
use onedrivefs_graph::{AuthConfig, GraphError, HttpOptions};

use crate::failure::{Explain, Failure, Outcome};
use crate::output::{self, printable};

/// Why there are no tokens.
pub(super) enum Trouble {
    /// Something on this machine, which is explained already.
    Here(Failure),
    /// The identity platform, or the way to it.
    There(GraphError),
}

impl From<GraphError> for Trouble {
    fn from(error: GraphError) -> Self {
        Self::There(error)
    }
}

/// Signs in with a code that is typed on another device.
pub(super) async fn device_code(
    http: &HttpOptions,
    auth: &AuthConfig,
) -> Result<TokenSet, GraphError> {
    auth::login_device_code(http, auth, |prompt| {
        output::note(format!(
            "Open {} on any device and type the code {}\nWaiting for you to finish there; the code \
             is good for {} minutes.",
            printable(&prompt.verification_uri),
            printable(&prompt.user_code),
            prompt.expires_in.as_secs().div_ceil(60),
        ));
    })
    .await
}

/// Signs in through a browser, here or elsewhere.
pub(super) async fn authorization_code(
    http: &HttpOptions,
    auth: &AuthConfig,
    paste: bool,
) -> Result<TokenSet, Trouble> {
    let flow = CodeFlow::begin(http, auth)?;
    let url = flow.authorize_url().to_string();
    output::note(format!(
        "To sign in, open this address in a browser:\n\n{url}\n"
    ));
    if paste || !flow.has_listener() {
        let pasted = ask_for_address(flow.redirect_text()).map_err(Trouble::Here)?;
        return Ok(flow.finish_from_url(&pasted).await?);
    }
    if open_browser(&url) {
        output::note("It should have opened by itself. Waiting for you to finish there.");
    } else {
        output::note(
            "Waiting for you to finish there. The browser must run on this machine; for another \
             one, use `onedrivefs login --device-code` or `onedrivefs login --paste`.",
        );
    }
    Ok(flow.wait().await?)
}

/// Reads the address the browser ended at, for redirect addresses that are not on this machine, and
/// browsers that are not.
fn ask_for_address(redirect: &str) -> Outcome<String> {
    let what = || "reading the address".to_owned();
    let mut err = io::stderr();
    write!(
        err,
        "Then paste the whole address the browser ends at; it begins with {redirect}, and the page \
         may be empty or an error: "
    )
    .and_then(|()| err.flush())
    .explain(what)?;
    let mut pasted = String::new();
    io::stdin().read_line(&mut pasted).explain(what)?;
    if pasted.trim().is_empty() {
        return Err(Failure::usage(
            "login",
            "no address was pasted, and the browser's answer cannot reach this machine",
        )
        .next("run this in a terminal, or use `--device-code`"));
    }
    Ok(pasted.trim().to_owned())
}

/// Opens the desktop's browser, if there is a desktop.
fn open_browser(url: &str) -> bool {
    let desktop = ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    desktop
        && Command::new("xdg-open")
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .is_ok()
}
