//! `onedrivefs login`.
//!
//! Nothing is stored before the sign-in was proven by reading the drive: a token that cannot do
//! its work is an error now, not when the first file is saved.

mod finding;
mod typed;
mod ways;

use std::path::PathBuf;

use onedrivefs_graph::auth::{self, TokenSet, TokenStore};
use onedrivefs_graph::{AuthConfig, GraphClient, GraphError, Reach, SignIn, default_scopes};

use self::finding::{Finding, check_same_kind, check_same_person, own_drive, somebody};
use self::typed::Typed;
use self::ways::{Trouble, authorization_code, device_code};
use super::{LoginArgs, ProofArgs, consent, daemons};
use crate::account::{self, AccountRecord, DriveRecord, SignInKind, User};
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph, is_guid};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs, absolute, check_writable};
use crate::secrets::{self, Kept, is_stdin};

/// The application id baked in by whoever built this program.
const BUILT_IN_CLIENT_ID: Option<&str> = option_env!("ONEDRIVEFS_CLIENT_ID");

/// What to do without an application id.
const REGISTER: &str = "\
register an application, once, free of charge:
   1. open https://entra.microsoft.com, Applications, App registrations, New registration
   2. any name; supported account types: any organizational directory and personal accounts
   3. redirect URI: platform \"Public client/native\", http://localhost ; then Register
   4. Authentication: switch \"Allow public client flows\" on, Save
   5. API permissions, Microsoft Graph, Delegated: Files.ReadWrite.All, User.Read,
      offline_access; and Sites.Read.All for libraries of SharePoint sites,
      Team.ReadBasic.All and Channel.ReadBasic.All for files of teams
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
    if let Some(address) = &args.admin_consent_result {
        return consent::tell_result(&name, address);
    }
    if args.admin_consent_url {
        let known = AccountRecord::load(&dirs, &name)?.unwrap_or_default();
        let record = requested(&args, &config, &name, known)?;
        check_client_id(&record.client_id, &config)?;
        return consent::print_url(&config, &record);
    }
    let outcome = sign_in(&args, &dirs, &config, &name).await;
    if outcome.is_err() {
        // Succeeds only when the directory was made for nothing.
        drop(std::fs::remove_dir(dirs.account(&name)));
    }
    outcome
}

/// A sign-in that is under way.
struct Attempt<'a> {
    args: &'a LoginArgs,
    dirs: &'a Dirs,
    config: &'a Layer,
    name: &'a AccountName,
    known: Option<AccountRecord>,
}

async fn sign_in(args: &LoginArgs, dirs: &Dirs, config: &Layer, name: &AccountName) -> Outcome {
    let known = AccountRecord::load(dirs, name)?;
    let mut record = requested(args, config, name, known.clone().unwrap_or_default())?;
    check_client_id(&record.client_id, config)?;
    check_same_kind(name, known.as_ref(), &record)?;
    // Asked before the person goes through the sign-in for nothing.
    check_writable(&dirs.account(name))?;
    record.kept_in =
        secrets::choose_place(config, known.as_ref(), daemons::are_running(dirs, name)?)?;
    record.signed_out = false;
    let typed = Typed::read(args, &mut record)?;
    let auth = typed.auth_config(config, &record, dirs, name)?;
    let attempt = Attempt {
        args,
        dirs,
        config,
        name,
        known,
    };
    let tokens = match attempt.tokens(&auth).await {
        Ok(tokens) => tokens,
        Err(error) => return Err(attempt.failed(&record, &auth, error)),
    };
    record.granted = tokens.scope.clone();
    let finding = match record.sign_in {
        SignInKind::Person => attempt.prove_person(&auth, &mut record, &tokens).await?,
        SignInKind::App => attempt.prove_app(&auth, &mut record, &tokens).await?,
    };
    attempt.keep(&record, &typed, &tokens)?;
    finding.report(name, &record)?;
    daemons::announce_credentials(dirs, name).await
}

impl Attempt<'_> {
    /// Gets tokens, in the way that was asked for.
    async fn tokens(&self, auth: &AuthConfig) -> Result<TokenSet, Trouble> {
        let http = connect::http_options(self.config, Patience::Person);
        if auth.sign_in == SignIn::App {
            return Ok(auth::client_credentials(&http, auth).await?);
        }
        if self.args.device_code {
            return Ok(device_code(&http, auth).await?);
        }
        let auth = AuthConfig {
            claims: self.wanted_claims().await,
            ..auth.clone()
        };
        authorization_code(&http, &auth, self.args.paste).await
    }

    /// What a policy wants to see proven, if that is why renewals of the last sign-in are refused; only
    /// such a refusal tells.
    async fn wanted_claims(&self) -> Option<String> {
        let known = self.known.as_ref();
        let known = known.filter(|known| known.user.is_some() && !known.signed_out)?;
        let patience = Patience::Person;
        let graph = connect::client(self.dirs, self.config, self.name, known, patience).ok()?;
        let renewed = match graph.tokens().access_token().await {
            // That one is still good says nothing of the next.
            Ok(token) => graph.tokens().refreshed(&token).await,
            refused => refused,
        };
        match renewed {
            Err(GraphError::Login(error)) => error.claims,
            _ => None,
        }
    }

    /// Explains why there are no tokens. What was set is remembered where somebody else has to
    /// approve first, so that the sign-in can be taken up with one word.
    fn failed(&self, record: &AccountRecord, auth: &AuthConfig, trouble: Trouble) -> Failure {
        let error = match trouble {
            Trouble::Here(failure) => return failure,
            Trouble::There(error) => error,
        };
        if consent::is_missing(&error) && self.known.is_none() {
            let waiting = AccountRecord {
                secret_kept: false,
                passphrase_kept: false,
                ..record.clone()
            };
            // Without it the settings have to be given again, which is all that is lost.
            if let Err(failure) = waiting.save(self.dirs, self.name) {
                output::note(failure.to_string());
            }
        }
        consent::explain_login(self.name, record, auth, error)
    }

    /// Proves that the tokens of a person open the drive. Somebody without a drive of their own may
    /// still have libraries to mount, which is said but no error.
    async fn prove_person(
        &self,
        auth: &AuthConfig,
        record: &mut AccountRecord,
        tokens: &TokenSet,
    ) -> Outcome<Finding> {
        let limited = tokens.refresh_token.is_none();
        if limited {
            output::note(
                "warning: the service gave no refresh token, so this sign-in, and every mount with \
                 it, ends within hours; the permission offline_access is missing. Add it to the \
                 registration and to the scopes, then sign in again",
            );
        }
        let graph = self.graph(auth, tokens)?;
        let drive = match graph.my_drive().await {
            Ok(drive) => Some(drive),
            Err(error) if error.is_not_found() => None,
            // A sign-in for an application's own folder, or for selected items, may not see it.
            Err(error) if error.status() == Some(403) && record.permissions().is_partial() => None,
            Err(error) => {
                let who = graph.me().await.ok();
                let who = who
                    .and_then(|me| me.user_principal_name)
                    .unwrap_or_default();
                let what = match who.as_str() {
                    "" => "signed in, but reading the drive failed".to_owned(),
                    who => format!("signed in as {who}, but reading the drive failed"),
                };
                return Err(explain_graph(&what, error));
            }
        };
        let me = match graph.me().await {
            Ok(me) => me,
            Err(error) if error.status() == Some(403) => somebody(drive.as_ref()),
            Err(error) => {
                return Err(explain_graph(
                    "signed in, but asking who you are failed",
                    error,
                ));
            }
        };
        check_same_person(self.name, self.known.as_ref(), &me, drive.as_ref())?;
        record.user = Some(User {
            id: me.id,
            name: me.display_name.unwrap_or_default(),
            principal: me.user_principal_name.unwrap_or_default(),
        });
        if let Some(drive) = &drive {
            record.remember(own_drive(drive));
        }
        let asked = auth.scopes.clone();
        Ok(Finding { drive, asked })
    }

    /// Proves that an application was granted something, and opens the drive of the person named.
    async fn prove_app(
        &self,
        auth: &AuthConfig,
        record: &mut AccountRecord,
        tokens: &TokenSet,
    ) -> Outcome<Finding> {
        let readable = auth::claims(&tokens.access_token);
        if readable.is_some_and(|claims| claims.roles.is_empty()) {
            return Err(consent::nothing_granted(auth));
        }
        let mut drive = None;
        if let Some(mailbox) = record.mailbox.clone() {
            let graph = self.graph(auth, tokens)?;
            let found = graph.user_drive(&mailbox).await;
            let found = found.map_err(|error| consent::explain_user(&mailbox, auth, error))?;
            record.remember(DriveRecord {
                own: false,
                mailbox: Some(mailbox),
                ..own_drive(&found)
            });
            drive = Some(found);
        }
        record.user = None;
        let asked = Vec::new();
        Ok(Finding { drive, asked })
    }

    fn graph(&self, auth: &AuthConfig, tokens: &TokenSet) -> Outcome<GraphClient> {
        let store = TokenStore::memory();
        store
            .save(tokens)
            .map_err(|error| explain_graph("using the sign-in", error))?;
        connect::with_store(
            auth,
            connect::http_options(self.config, Patience::Person),
            store,
        )
    }

    /// Keeps everything. The record comes last: it makes the account known.
    fn keep(&self, record: &AccountRecord, typed: &Typed, tokens: &TokenSet) -> Outcome {
        let secrets = record.secrets(self.dirs, self.name);
        if let Some(secret) = &typed.secret {
            secrets.save(Kept::ClientSecret, secret)?;
        }
        if let Some(passphrase) = &typed.passphrase {
            secrets.save(Kept::Passphrase, passphrase)?;
        }
        secrets
            .tokens()
            .save(tokens)
            .map_err(|error| explain_graph("keeping the sign-in", error))?;
        record.save(self.dirs, self.name)?;
        // What an earlier sign-in kept elsewhere must not lie around.
        if let Some(known) = &self.known
            && known.kept_in != record.kept_in
        {
            let elsewhere = known.secrets(self.dirs, self.name);
            if let Err(failure) = elsewhere.clear() {
                output::note(failure.to_string());
            }
        }
        Ok(())
    }
}

/// What was asked for: the command line over the configuration over what is remembered.
fn requested(
    args: &LoginArgs,
    config: &Layer,
    name: &AccountName,
    known: AccountRecord,
) -> Outcome<AccountRecord> {
    let mut record = account::settings(config, name, known)?;
    let text = |flag: &Option<String>, known: &mut String| {
        if let Some(flag) = flag {
            flag.clone_into(known);
        }
    };
    text(&args.client_id, &mut record.client_id);
    text(&args.tenant, &mut record.tenant);
    record.tenant_configured &= args.tenant.is_none();
    text(&args.cloud, &mut record.cloud);
    record.client_id = or_else(record.client_id, BUILT_IN_CLIENT_ID.unwrap_or_default());
    record.tenant = or_else(record.tenant, "common");
    record.cloud = or_else(record.cloud, "global");
    record.redirect_uri = args.redirect_uri.clone().or(record.redirect_uri);
    if args.app_only || args.user.is_some() {
        record.sign_in = SignInKind::App;
    } else if args.device_code || args.paste {
        record.sign_in = SignInKind::Person;
    }
    record.mailbox = args.user.clone().or(record.mailbox);
    let reach = Reach {
        read_only: args.read_only,
        sites: args.sites,
        teams: args.teams,
    };
    if !args.scopes.is_empty() {
        record.scopes.clone_from(&args.scopes);
    } else if reach != Reach::default() {
        record.scopes = default_scopes(reach);
    }
    proof(&args.proof, &mut record)?;
    Ok(record)
}

/// What the command line says about the application's proof.
fn proof(args: &ProofArgs, record: &mut AccountRecord) -> Outcome {
    let named = |path: &Option<PathBuf>| {
        let path = path.as_deref().filter(|path| !is_stdin(path));
        path.map(absolute).transpose()
    };
    if let Some(path) = named(&args.client_secret_file)? {
        record.use_secret_file(path);
        record.secret_expires = None;
    }
    if args.client_secret || args.client_secret_file.is_some() {
        record.secret_expires = None;
    }
    if let Some(path) = named(&args.certificate)? {
        record.use_certificate(path);
        record.key = named(&args.key)?;
        record.thumbprint.clone_from(&args.thumbprint);
        record.key_passphrase_file = named(&args.key_passphrase_file)?;
        record.passphrase_kept = false;
    }
    record.secret_expires = args.secret_expires.or(record.secret_expires);
    Ok(())
}

/// What is left blank means the usual value.
fn or_else(text: String, usual: &str) -> String {
    if text.trim().is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AccountLayer;
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
}
