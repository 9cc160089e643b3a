//! Why a sign-in was refused, with what somebody has to do about it, and the consent of
//! administrators, which is the most common of those things.

use onedrivefs_graph::auth::{self, ConsentResult};
use onedrivefs_graph::{AuthConfig, Disposition, GraphError, SignIn};

use crate::account::AccountRecord;
use crate::config::Layer;
use crate::connect::{self, configured, explain_graph};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::AccountName;

/// Numbers of the identity platform that mean that somebody has to approve the application.
const CONSENT: &[u32] = &[
    65001, 65005, 90094, 90095, 900_941, 650_052, 650_056, 650_057,
];

/// Prints the address for an administrator.
pub(crate) fn print_url(config: &Layer, record: &AccountRecord) -> Outcome {
    let auth = consent_config(config, record)?;
    let url = auth::admin_consent_url(&auth).map_err(configured)?;
    output::line(url.as_str())?;
    output::note(
        "Send this address to an administrator. They sign in, accept, and end at an address with \
         admin_consent=True, perhaps on an empty page. Then run `onedrivefs login` again; what that \
         address says is told by `onedrivefs login --admin-consent-result ADDRESS`.",
    );
    Ok(())
}

/// The settings that the address depends on; no secret is needed for it.
fn consent_config(config: &Layer, record: &AccountRecord) -> Outcome<AuthConfig> {
    let endpoints = connect::endpoints(config, &record.cloud)?;
    Ok(AuthConfig {
        redirect_uri: record.redirect_uri.clone(),
        ..AuthConfig::new(record.client_id.as_str(), record.tenant.as_str(), endpoints)
    })
}

/// Tells what the address says at which an administrator's browser ended.
pub(crate) fn tell_result(name: &AccountName, address: &str) -> Outcome {
    match auth::consent_result(address) {
        Some(ConsentResult::Granted { tenant }) => {
            let tenant = tenant.map_or_else(String::new, |id| {
                format!(" in the tenant {}", printable(&id))
            });
            output::line(format!(
                "The administrator approved the application{tenant}."
            ))?;
            output::note(format!("Go on with `onedrivefs login --account {name}`."));
            Ok(())
        }
        Some(ConsentResult::Refused(error)) => Err(Failure::because("admin consent", error).next(
            "ask the administrator, with the address of `onedrivefs login --admin-consent-url`",
        )),
        None => Err(Failure::usage(
            "admin consent",
            "the address tells neither admin_consent=True nor an error",
        )
        .next("copy the whole address at which the administrator's browser ended, in quotes")),
    }
}

/// Tells whether somebody has to approve the application first.
pub(crate) fn is_missing(error: &GraphError) -> bool {
    matches!(error, GraphError::Login(login) if login.code.is_some_and(|code| CONSENT.contains(&code)))
}

/// The address for an administrator, in a sentence.
fn ask_the_administrator(auth: &AuthConfig) -> String {
    match auth::admin_consent_url(auth) {
        Ok(url) => format!("send an administrator this address: {url}"),
        Err(_) => {
            "send an administrator what `onedrivefs login --admin-consent-url` prints".to_owned()
        }
    }
}

/// An application whose token carries no permission.
pub(crate) fn nothing_granted(auth: &AuthConfig) -> Failure {
    Failure::new(
        "login",
        "the application is known, but nothing was granted to it (its token has no roles): only \
         delegated permissions were added, or an administrator has not consented to the application \
         permissions yet",
    )
    .next(format!(
        "add application permissions of Microsoft Graph (Files.ReadWrite.All) to the registration, \
         then {}",
        ask_the_administrator(auth)
    ))
}

/// Somebody who does not exist, or has no drive.
pub(crate) fn user_failure(what: &str, error: GraphError) -> Failure {
    if error.is_unprovisioned() {
        return Failure::because(what, error).next(
            "OneDrive is not provisioned for this person: give them a licence, and open OneDrive once \
             in a browser as them; setting it up can take hours",
        );
    }
    Failure::new(what, "there is no such user in this tenant")
        .next("check the name (user principal name) or id; `onedrivefs users` lists them")
}

/// Why somebody's drive cannot be opened.
pub(crate) fn explain_user(mailbox: &str, auth: &AuthConfig, error: GraphError) -> Failure {
    let what = format!("looking up the drive of {}", printable(mailbox));
    if error.is_not_found() || error.is_unprovisioned() {
        return user_failure(&what, error);
    }
    if error.status() == Some(403) {
        let next = format!(
            "the application needs the application permission Files.ReadWrite.All: {}",
            ask_the_administrator(auth)
        );
        return Failure::because(what, error).next(next);
    }
    explain_graph(&what, error)
}

/// An error of the sign-in itself, whose text says already what to do about most refusals.
pub(crate) fn explain_login(
    name: &AccountName,
    record: &AccountRecord,
    auth: &AuthConfig,
    error: GraphError,
) -> Failure {
    if matches!(error, GraphError::Config { .. }) {
        return Failure::usage("login", error).next(
            "`onedrivefs login --help` lists the settings; the manual has a page for each kind",
        );
    }
    let code = match &error {
        GraphError::Login(login) => login.code,
        _ => None,
    };
    if error.disposition() != Disposition::Reauth {
        return explain_graph("login", error);
    }
    let next = match code {
        _ if is_missing(&error) => format!(
            "either ask for approval on the sign-in page, or {}\nafterwards `onedrivefs login \
             --account {name}` goes on",
            ask_the_administrator(auth)
        ),
        Some(7_000_222) => {
            let when = record.secret_expires;
            let when = when.map_or_else(String::new, |date| format!(" (it was good until {date})"));
            format!(
                "make a new client secret{when}: portal, App registrations, the application, \
                 Certificates & secrets; put its value into a file, then `onedrivefs login --account \
                 {name} --client-secret-file FILE`"
            )
        }
        Some(7_000_215) => format!(
            "give the secret's value, not its id: `onedrivefs login --account {name} \
             --client-secret-file FILE`"
        ),
        Some(50011) => format!(
            "register exactly this redirect URI, or set --redirect-uri to the registered one: {}",
            auth.redirect_uri.as_deref().unwrap_or("http://localhost")
        ),
        Some(50194 | 9_001_023 | 90124 | 90002 | 90130 | 50059) if auth.sign_in == SignIn::App => {
            "set --tenant to the directory (tenant) id of the overview page".to_owned()
        }
        Some(50194) => {
            "onedrivefs login --tenant ID, with the directory (tenant) id of the overview \
                        page"
                .to_owned()
        }
        _ => format!(
            "`onedrivefs login --account {name}` starts again; `onedrivefs login --help` lists the \
             settings"
        ),
    };
    Failure::because("login", error).next(next)
}
