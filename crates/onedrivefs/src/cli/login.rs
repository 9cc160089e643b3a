//! `onedrivefs login`.
//!
//! Nothing is stored before the sign-in was proven by reading the drive: a token that cannot do
//! its work is an error now, not when the first file is saved.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use onedrivefs_graph::auth::{self, CodeFlow, TokenSet, TokenStore};
use onedrivefs_graph::{AuthConfig, Disposition, DriveInfo, GraphError, Me};

use super::{LoginArgs, daemons};
use crate::account::{AccountRecord, DriveRecord, User};
use crate::config::{AccountLayer, Layer};
use crate::connect::{self, Patience, explain_graph, is_guid};
use crate::failure::{Explain, Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::{AccountName, Dirs, absolute, check_writable};
use crate::size::ByteSize;

/// The application id baked in by whoever built this program.
const BUILT_IN_CLIENT_ID: Option<&str> = option_env!("ONEDRIVEFS_CLIENT_ID");

/// What to do without an application id.
const REGISTER: &str = "\
register an application, once, free of charge:
   1. open https://entra.microsoft.com, Applications, App registrations, New registration
   2. any name; supported account types: any organizational directory and personal accounts
   3. redirect URI: platform \"Public client/native\", http://localhost ; then Register
   4. Authentication: switch \"Allow public client flows\" on, Save
   5. API permissions, Microsoft Graph, Delegated: Files.ReadWrite.All, Sites.Read.All,
      User.Read, offline_access
   6. copy the \"Application (client) ID\" from the overview page
   7. onedrivefs login --client-id ID    (remembered for the account; it is not a secret)
   or put it where every login finds it: client_id = \"ID\" below [accounts.NAME] in
   config.toml, or the variable ONEDRIVEFS_CLIENT_ID";

/// Signs in, proves it and remembers it.
pub(crate) async fn run(args: LoginArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let name = args
        .account
        .account
        .clone()
        .or_else(|| config.account.clone())
        .unwrap_or_default();
    let outcome = sign_in(&args, &dirs, &config, &name).await;
    if outcome.is_err() {
        // Succeeds only when the directory was made for nothing.
        drop(std::fs::remove_dir(dirs.account(&name)));
    }
    outcome
}

async fn sign_in(args: &LoginArgs, dirs: &Dirs, config: &Layer, name: &AccountName) -> Outcome {
    let known = AccountRecord::load(dirs, name)?;
    let mut record = requested(args, config, name, known.clone().unwrap_or_default())?;
    check_client_id(&record.client_id, config)?;
    // Asked before the person goes through the sign-in for nothing.
    check_writable(&dirs.account(name))?;

    let auth = connect::auth_config(
        config,
        &AccountRecord {
            user: None,
            ..record.clone()
        },
    )?;
    let tokens = if args.device_code {
        device_code(config, &auth).await?
    } else {
        authorization_code(config, &auth).await?
    };
    if tokens.refresh_token.is_none() {
        output::note(
            "warning: the service gave no refresh token, so this sign-in ends within hours; the \
             permission offline_access is missing",
        );
    }
    let (me, drive) = verify(config, &auth, tokens.clone()).await?;
    check_same_person(name, known.as_ref(), &me)?;

    record.user = Some(User {
        id: me.id,
        name: me.display_name.unwrap_or_default(),
        principal: me.user_principal_name.unwrap_or_default(),
    });
    if let Some(drive) = &drive {
        record.remember(own_drive(drive));
    }
    TokenStore::file(dirs.token_file(name))
        .save(&tokens)
        .map_err(|error| explain_graph("keeping the sign-in", error))?;
    record.save(dirs, name)?;
    report(name, &record, drive.as_ref())?;
    daemons::announce_credentials(dirs, name).await
}

/// What was asked for: the command line over the configuration over what is remembered.
fn requested(
    args: &LoginArgs,
    config: &Layer,
    name: &AccountName,
    known: AccountRecord,
) -> Outcome<AccountRecord> {
    let configured = config
        .accounts
        .get(name.as_str())
        .cloned()
        .unwrap_or_default();
    let AccountLayer {
        client_id,
        tenant,
        cloud,
        client_secret_file,
        redirect_uri,
        scopes,
    } = configured;
    let text = |flag: &Option<String>, configured: Option<String>, known: String| {
        flag.clone().or(configured).unwrap_or(known)
    };
    let client_id = text(&args.client_id, client_id, known.client_id);
    let secret_file = args.client_secret_file.clone().or(client_secret_file);
    Ok(AccountRecord {
        client_id: or_else(client_id, BUILT_IN_CLIENT_ID.unwrap_or_default()),
        tenant: or_else(text(&args.tenant, tenant, known.tenant), "common"),
        cloud: or_else(text(&args.cloud, cloud, known.cloud), "global"),
        scopes: if args.scopes.is_empty() {
            scopes.unwrap_or(known.scopes)
        } else {
            args.scopes.clone()
        },
        redirect_uri: redirect_uri.or(known.redirect_uri),
        client_secret_file: match secret_file {
            Some(path) => Some(absolute(&path)?),
            None => known.client_secret_file,
        },
        user: known.user,
        drives: known.drives,
    })
}

/// What is left blank means the usual value.
fn or_else(text: String, usual: &str) -> String {
    if text.is_empty() {
        usual.to_owned()
    } else {
        text
    }
}

/// Refuses what cannot be an application id, before Microsoft does so less clearly.
fn check_client_id(client_id: &str, config: &Layer) -> Outcome {
    if client_id.is_empty() {
        return Err(Failure::usage(
            "login",
            "this build has no application (client) id of its own, so one of yours is needed",
        )
        .next(REGISTER));
    }
    // A server of one's own may name its applications as it likes.
    if config.endpoints.login.is_none() && !is_guid(client_id) {
        return Err(Failure::usage(
            "login",
            "the application (client) id must have the form 01234567-89ab-cdef-0123-456789abcdef",
        )
        .next("copy \"Application (client) ID\" from the registration's overview page"));
    }
    Ok(())
}

async fn device_code(config: &Layer, auth: &AuthConfig) -> Outcome<TokenSet> {
    let http = connect::http_options(config, Patience::Person);
    auth::login_device_code(&http, auth, |prompt| {
        output::note(format!(
            "Open {} on any device and type the code {}\nWaiting for you to finish there; the code \
             is good for {} minutes.",
            printable(&prompt.verification_uri),
            printable(&prompt.user_code),
            prompt.expires_in.as_secs().div_ceil(60),
        ));
    })
    .await
    .map_err(explain_login)
}

async fn authorization_code(config: &Layer, auth: &AuthConfig) -> Outcome<TokenSet> {
    let http = connect::http_options(config, Patience::Person);
    let flow = CodeFlow::begin(&http, auth).map_err(explain_login)?;
    let url = flow.authorize_url().to_string();
    output::note(format!(
        "To sign in, open this address in a browser:\n\n{url}\n"
    ));
    if !flow.has_listener() {
        let pasted = ask_for_address()?;
        return flow.finish_from_url(&pasted).await.map_err(explain_login);
    }
    if open_browser(&url) {
        output::note("It should have opened by itself. Waiting for you to finish there.");
    } else {
        output::note(
            "Waiting for you to finish there. The browser must run on this machine; for another \
             one, use `onedrivefs login --device-code`.",
        );
    }
    flow.wait().await.map_err(explain_login)
}

/// Reads the address the browser ended at, for redirect addresses that are not on this machine.
fn ask_for_address() -> Outcome<String> {
    let what = || "reading the address".to_owned();
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "login",
            "the registered redirect address is not on this machine, and no terminal is there to \
             paste the answer into",
        )
        .next("use `--device-code`, or run this in a terminal"));
    }
    let mut err = io::stderr();
    write!(err, "Then paste the address the browser ends at: ")
        .and_then(|()| err.flush())
        .explain(what)?;
    let mut pasted = String::new();
    io::stdin().read_line(&mut pasted).explain(what)?;
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

/// Proves that the tokens open the drive. A person without a drive of their own may still have
/// libraries to mount, which is said but no error.
async fn verify(
    config: &Layer,
    auth: &AuthConfig,
    tokens: TokenSet,
) -> Outcome<(Me, Option<DriveInfo>)> {
    let store = TokenStore::memory();
    store
        .save(&tokens)
        .map_err(|error| explain_graph("using the sign-in", error))?;
    let graph = connect::with_store(auth, connect::http_options(config, Patience::Person), store)?;
    let me = graph
        .me()
        .await
        .map_err(|error| explain_graph("signed in, but asking who you are failed", error))?;
    let who = me
        .user_principal_name
        .clone()
        .unwrap_or_else(|| me.id.clone());
    match graph.my_drive().await {
        Ok(drive) => Ok((me, Some(drive))),
        Err(error) if error.is_not_found() => Ok((me, None)),
        Err(error) => {
            let what = format!("signed in as {who}, but reading the drive failed");
            Err(explain_graph(&what, error))
        }
    }
}

/// Keeps the changes that wait for one person from going out as another.
fn check_same_person(name: &AccountName, known: Option<&AccountRecord>, me: &Me) -> Outcome {
    let before = known.and_then(|record| record.user.as_ref());
    match before {
        Some(user) if user.id != me.id => Err(Failure::new(
            format!("account {name}"),
            format!(
                "belongs to {}, but {} signed in",
                user.principal,
                me.user_principal_name.as_deref().unwrap_or(&me.id)
            ),
        )
        .next(format!(
            "give the other person a name: `onedrivefs login --account OTHER`; or run `onedrivefs \
             logout --forget --account {name}` first"
        ))),
        _ => Ok(()),
    }
}

fn own_drive(drive: &DriveInfo) -> DriveRecord {
    DriveRecord {
        id: drive.id.clone(),
        kind: drive.kind,
        name: drive.name.clone(),
        own: true,
        site: None,
        site_default: false,
    }
}

fn report(name: &AccountName, record: &AccountRecord, drive: Option<&DriveInfo>) -> Outcome {
    let user = record.user.clone().unwrap_or_default();
    output::line(format!(
        "Signed in as {} <{}>, kept as account {name}.",
        printable(&user.name),
        printable(&user.principal)
    ))?;
    let Some(drive) = drive else {
        output::note("This person has no drive; sites may have: `onedrivefs drives --site NAME`.");
        return Ok(());
    };
    let space = drive.quota.map_or_else(String::new, |quota| {
        format!(
            ", {} of {} used",
            ByteSize(quota.used),
            ByteSize(quota.total)
        )
    });
    output::line(format!(
        "Drive: {} ({}){space}.",
        printable(&drive.name),
        drive.kind.as_str()
    ))?;
    output::note("Mount it with `onedrivefs mount MOUNTPOINT`.");
    Ok(())
}

/// An error of the sign-in itself, whose text says already what to do about a refusal.
fn explain_login(error: GraphError) -> Failure {
    match error.disposition() {
        Disposition::Reauth => Failure::because("login", error)
            .next("`onedrivefs login` starts again; `onedrivefs login --help` lists the settings"),
        _ => explain_graph("login", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn login_args(line: &str) -> LoginArgs {
        let cli = super::super::Cli::try_parse_from(line.split(' ')).expect("valid");
        match cli.command {
            super::super::Command::Login(args) => args,
            other => panic!("{other:?} is not login"),
        }
    }

    #[test]
    fn without_an_id_registering_is_explained() {
        let refused = check_client_id("", &Layer::default()).expect_err("no id");
        assert_eq!(refused.code(), 2);
        let text = refused.to_string();
        for needed in [
            "http://localhost",
            "public client flows",
            "offline_access",
            "client_id",
        ] {
            assert!(text.contains(needed), "{needed}: {text}");
        }
        assert!(text.lines().count() <= 14, "{text}");
        assert!(check_client_id("my app", &Layer::default()).is_err());
        let own = Layer::from_option("endpoints.login=http://127.0.0.1:1").expect("option");
        assert!(check_client_id("my-app", &own).is_ok());
    }

    #[test]
    fn flags_win_over_the_file_which_wins_over_memory() {
        let mut config = Layer::default();
        config.accounts.insert(
            "default".to_owned(),
            AccountLayer {
                tenant: Some("configured".into()),
                cloud: Some("china".into()),
                ..AccountLayer::default()
            },
        );
        let known = AccountRecord {
            client_id: "remembered".into(),
            tenant: "remembered".into(),
            ..AccountRecord::default()
        };
        let args = login_args("onedrivefs login --tenant flag");
        let record = requested(&args, &config, &AccountName::default(), known).expect("record");
        assert_eq!(record.tenant, "flag");
        assert_eq!(record.cloud, "china");
        if std::env::var_os("ONEDRIVEFS_CLIENT_ID").is_none() {
            assert_eq!(record.client_id, "remembered");
        }
    }

    #[test]
    fn another_person_does_not_take_an_account_over() {
        let me = |id: &str| Me {
            id: id.to_owned(),
            display_name: None,
            user_principal_name: Some("b@example.com".into()),
        };
        let known = AccountRecord {
            user: Some(User {
                id: "1".into(),
                ..User::default()
            }),
            ..AccountRecord::default()
        };
        let name = AccountName::default();
        assert!(check_same_person(&name, Some(&known), &me("1")).is_ok());
        assert!(check_same_person(&name, None, &me("2")).is_ok());
        let refused = check_same_person(&name, Some(&known), &me("2")).expect_err("refused");
        assert!(refused.to_string().contains("b@example.com"), "{refused}");
    }
}
