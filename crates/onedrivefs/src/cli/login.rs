//! `onedrivefs login`.
//!
//! Nothing is stored before the sign-in was proven by reading the drive: a token that cannot do
//! its work is an error now, not when the first file is saved.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use onedrivefs_core::{ExposeSecret as _, SecretString};
use onedrivefs_graph::auth::{self, CodeFlow, TokenSet, TokenStore};
use onedrivefs_graph::{
    AuthConfig, DriveInfo, GraphClient, GraphError, HttpOptions, Me, Reach, SignIn, default_scopes,
};

use super::{LoginArgs, ProofArgs, consent, daemons};
use crate::account::{self, AccountRecord, DriveRecord, SignInKind, User};
use crate::config::Layer;
use crate::connect::{self, Given, Patience, explain_graph, is_guid};
use crate::credentials::{self, Expiry};
use crate::failure::{Explain, Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::{AccountName, Dirs, absolute, check_writable};
use crate::secrets::{self, Kept, is_stdin};
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
   5. API permissions, Microsoft Graph, Delegated: Files.ReadWrite.All, User.Read,
      offline_access; and Sites.Read.All for libraries of SharePoint sites
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

/// What was typed or piped in, and has to be kept.
#[derive(Default)]
struct Typed {
    secret: Option<SecretString>,
    passphrase: Option<SecretString>,
}

impl Typed {
    /// Reads what comes from a terminal or from standard input, and notes in the record that it does.
    fn read(args: &LoginArgs, record: &mut AccountRecord) -> Outcome<Self> {
        let mut typed = Self::default();
        let proof = &args.proof;
        if proof.client_secret {
            typed.secret = Some(secrets::ask("client secret", "--client-secret-file")?);
        } else if let Some(path) = proof.client_secret_file.as_deref().filter(|p| is_stdin(p)) {
            typed.secret = Some(secrets::read_file(path, "client secret")?);
        }
        if let Some(secret) = &typed.secret {
            record.use_secret_file(PathBuf::new());
            record.client_secret_file = None;
            record.secret_kept = true;
            credentials::check_secret(secret.expose_secret());
        } else if let Some(path) = &record.client_secret_file {
            let secret = secrets::read_file(path, "client secret")?;
            credentials::check_secret(secret.expose_secret());
        }
        if let Some(path) = proof.key_passphrase_file.as_deref().filter(|p| is_stdin(p)) {
            typed.passphrase = Some(secrets::read_file(path, "passphrase")?);
        } else if record.needs_passphrase() {
            typed.passphrase = Some(secrets::ask(
                "passphrase of the private key",
                "--key-passphrase-file",
            )?);
        }
        if typed.passphrase.is_some() {
            record.key_passphrase_file = None;
            record.passphrase_kept = true;
        }
        Ok(typed)
    }

    /// The configuration of the sign-in, with what was typed in place of what is kept.
    fn auth_config(
        &self,
        config: &Layer,
        record: &AccountRecord,
        dirs: &Dirs,
        name: &AccountName,
    ) -> Outcome<AuthConfig> {
        let before = AccountRecord {
            user: None,
            ..record.clone()
        };
        let given = Given {
            secret: self.secret.clone(),
            passphrase: self.passphrase.clone(),
        };
        connect::auth_config_with(config, &before, &record.secrets(dirs, name), given)
    }
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
        authorization_code(&http, auth, self.args.paste).await
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

/// Why there are no tokens.
enum Trouble {
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

async fn device_code(http: &HttpOptions, auth: &AuthConfig) -> Result<TokenSet, GraphError> {
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

async fn authorization_code(
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

/// Keeps the changes that wait for one person from going out as another.
fn check_same_person(
    name: &AccountName,
    known: Option<&AccountRecord>,
    me: &Me,
    drive: Option<&DriveInfo>,
) -> Outcome {
    let Some(known) = known else {
        return Ok(());
    };
    let before = match &known.user {
        // Without the permission to ask for a name, somebody is known by their drive.
        Some(user) if is_drive_id(&user.id) || is_drive_id(&me.id) => {
            let now = drive.map(|drive| &drive.id);
            let own = known.own_drive().map(|drive| &drive.id);
            (own.is_some() && own != now).then(|| user.principal.clone())
        }
        Some(user) => (user.id != me.id).then(|| user.principal.clone()),
        None => None,
    };
    let Some(before) = before else {
        return Ok(());
    };
    Err(Failure::new(
        format!("account {name}"),
        format!(
            "belongs to {before}, but {} signed in",
            me.user_principal_name.as_deref().unwrap_or(&me.id)
        ),
    )
    .next(format!(
        "give the other person a name: `onedrivefs login --account OTHER`; or run `onedrivefs \
         logout --forget --account {name}` first"
    )))
}

/// Begins the ids of people who are known by their drive only.
const DRIVE_ID: &str = "drive ";

fn is_drive_id(id: &str) -> bool {
    id.starts_with(DRIVE_ID)
}

/// Somebody whose name may not be asked for.
fn somebody(drive: Option<&DriveInfo>) -> Me {
    Me {
        id: format!("{DRIVE_ID}{}", drive.map_or("", |drive| drive.id.as_str())),
        display_name: drive.and_then(|drive| drive.owner.clone()),
        user_principal_name: None,
    }
}

fn own_drive(drive: &DriveInfo) -> DriveRecord {
    DriveRecord {
        id: drive.id.clone(),
        kind: drive.kind,
        name: drive.name.clone(),
        own: true,
        mailbox: None,
        site: None,
        site_default: false,
    }
}

/// What a sign-in has shown.
struct Finding {
    drive: Option<DriveInfo>,
    /// What was asked for, of a person.
    asked: Vec<String>,
}

impl Finding {
    fn report(&self, name: &AccountName, record: &AccountRecord) -> Outcome {
        match record.sign_in {
            SignInKind::Person => self.about_person(name, record)?,
            SignInKind::App => about_app(name, record)?,
        }
        if let Some(drive) = &self.drive {
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
        }
        let expiry = Expiry::of(record).and_then(|expiry| expiry.warning(name.as_str()));
        if let Some(warning) = expiry {
            output::note(format!("warning: {warning}"));
        }
        match (record.sign_in, &self.drive) {
            (SignInKind::App, None) => output::note(
                "Mount somebody's drive with `onedrivefs mount --user UPN MOUNTPOINT`; `onedrivefs \
                 users` lists them.",
            ),
            (_, Some(_)) => output::note("Mount it with `onedrivefs mount MOUNTPOINT`."),
            (SignInKind::Person, None) => output::note(
                "This person has no drive that can be seen; sites may have: `onedrivefs drives --site \
                 NAME`.",
            ),
        }
        Ok(())
    }

    fn about_person(&self, name: &AccountName, record: &AccountRecord) -> Outcome {
        let user = record.user.clone().unwrap_or_default();
        output::line(format!(
            "Signed in as {} <{}>, kept as account {name}.",
            printable(&user.name),
            printable(&user.principal)
        ))?;
        let permissions = record.permissions();
        let missing = permissions.missing(&self.asked);
        if !missing.is_empty() {
            output::note(format!(
                "warning: not granted, though asked for: {}. What needs it does not work",
                printable(&missing.join(", "))
            ));
        }
        if permissions.read_only() {
            output::note("No permission to change anything was granted: mounts are read-only.");
        }
        Ok(())
    }
}

fn about_app(name: &AccountName, record: &AccountRecord) -> Outcome {
    output::line(format!(
        "Signed in as the application {} of {}, kept as account {name}.",
        printable(&record.client_id),
        printable(&record.tenant)
    ))?;
    output::line(format!(
        "Granted to it: {}.",
        printable(&match record.granted.as_slice() {
            [] => "not told".to_owned(),
            granted => granted.join(", "),
        })
    ))?;
    output::note(
        "warning: whoever has this secret or key can read the files of everybody the permissions \
         cover, usually the whole organization. Keep it closed, and consider Sites.Selected, which \
         covers named sites only.",
    );
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
        assert!(check_same_person(&name, Some(&known), &me("1"), None).is_ok());
        assert!(check_same_person(&name, None, &me("2"), None).is_ok());
        let refused = check_same_person(&name, Some(&known), &me("2"), None).expect_err("refused");
        assert!(refused.to_string().contains("b@example.com"), "{refused}");
    }
}
