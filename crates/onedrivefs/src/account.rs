//! What is remembered about an account, so that its drives can be mounted again without asking
//! anybody, also without a network.
//!
//! Secrets are not here: tokens have a place of their own, and a client secret stays in the file its
//! owner keeps it in, unless it was typed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use jiff::civil::Date;
use onedrivefs_core::{DriveId, DriveKind, ItemId};
use onedrivefs_graph::Permissions;
use onedrivefs_sync::Oneself;
use serde::{Deserialize, Serialize};

use crate::config::Layer;
use crate::failure::{Explain, Failure, Outcome};
use crate::paths::{AccountName, Dirs, absolute, unreadable, write_private};
use crate::secrets::{Place, Secrets};

/// The record of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccountRecord {
    /// The application (client) id used to sign in.
    pub(crate) client_id: String,
    /// The tenant signed in to.
    pub(crate) tenant: String,
    /// Whether the tenant stood in the configuration, and is none once it does no longer.
    pub(crate) tenant_configured: bool,
    /// The cloud the account belongs to.
    pub(crate) cloud: String,
    /// The permissions asked for.
    pub(crate) scopes: Vec<String>,
    /// The registered redirect address, if it is not the usual one.
    pub(crate) redirect_uri: Option<String>,
    /// Whether a person signs in or the application itself.
    pub(crate) sign_in: SignInKind,
    /// Where the secret of a confidential application lies.
    pub(crate) client_secret_file: Option<PathBuf>,
    /// Whether its secret was typed or piped in, and is kept with the tokens.
    pub(crate) secret_kept: bool,
    /// The last day on which the secret is good, as far as told.
    pub(crate) secret_expires: Option<Date>,
    /// The certificate used instead of a secret.
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key, if that is in another file.
    pub(crate) key: Option<PathBuf>,
    /// Where the passphrase of the key lies.
    pub(crate) key_passphrase_file: Option<PathBuf>,
    /// Whether the passphrase was typed, and is kept with the tokens.
    pub(crate) passphrase_kept: bool,
    /// The thumbprint under which the certificate is registered, if not the computed one.
    pub(crate) thumbprint: Option<String>,
    /// Whose drive the application mounts when nobody is named.
    pub(crate) mailbox: Option<String>,
    /// Where tokens and typed secrets are kept.
    pub(crate) kept_in: Place,
    /// What was granted at the last sign-in; empty when unknown.
    pub(crate) granted: Vec<String>,
    /// Whether somebody signed out of an application, which could sign in again by itself.
    pub(crate) signed_out: bool,
    /// Who signed in.
    pub(crate) user: Option<User>,
    /// Drives seen so far.
    pub(crate) drives: Vec<DriveRecord>,
    /// What was found before by a name, a link or a path, in the words in which it was asked for.
    pub(crate) roots: BTreeMap<String, RootRecord>,
}

/// Who signs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SignInKind {
    /// A person.
    #[default]
    Person,
    /// The application itself.
    App,
}

/// A person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// Id in the directory.
    pub(crate) id: String,
    /// Name as people write it.
    pub(crate) name: String,
    /// Sign-in name.
    pub(crate) principal: String,
}

/// A drive that was seen once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DriveRecord {
    /// Its id.
    pub(crate) id: DriveId,
    /// Its kind.
    pub(crate) kind: DriveKind,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is the signed-in person's own drive.
    #[serde(default)]
    pub(crate) own: bool,
    /// The person it was found through, as named on the command line.
    #[serde(default)]
    pub(crate) mailbox: Option<String>,
    /// The site it was found through, as written on the command line.
    #[serde(default)]
    pub(crate) site: Option<String>,
    /// Whether it is the library mounted when only the site is named.
    #[serde(default)]
    pub(crate) site_default: bool,
}

/// What a mount begins at: a drive, or a folder of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootRecord {
    /// The drive.
    pub(crate) drive: DriveId,
    /// The folder, or the file, if it is not the drive's root.
    #[serde(default)]
    pub(crate) folder: Option<FolderRecord>,
    /// Whether it is a single file.
    #[serde(default)]
    pub(crate) is_file: bool,
}

/// A folder that is mounted in the place of a drive's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderRecord {
    /// Its id.
    pub(crate) id: ItemId,
    /// The name it had when it was found.
    pub(crate) name: String,
}

impl AccountRecord {
    /// Reads the record; an account never signed in to has none.
    pub(crate) fn load(dirs: &Dirs, account: &AccountName) -> Outcome<Option<Self>> {
        let path = dirs.account_file(account);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| unreadable(&path, error))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::because(format!("reading {}", path.display()), error)
                .next(format!("run `onedrivefs login --account {account}` again"))
        })
    }

    /// Writes the record.
    pub(crate) fn save(&self, dirs: &Dirs, account: &AccountName) -> Outcome {
        let bytes = serde_json::to_vec_pretty(self).explain(|| "saving the account".to_owned())?;
        write_private(&dirs.account_file(account), &bytes)
    }

    /// Remembers a drive; what was known about it before and is not known now is kept.
    pub(crate) fn remember(&mut self, drive: DriveRecord) {
        if drive.own {
            self.drives.iter_mut().for_each(|known| known.own = false);
        }
        match self.drives.iter_mut().find(|known| known.id == drive.id) {
            Some(known) => {
                known.kind = drive.kind;
                known.name = drive.name;
                known.own |= drive.own;
                if drive.mailbox.is_some() {
                    known.mailbox = drive.mailbox;
                }
                if drive.site.is_some() {
                    known.site = drive.site;
                    known.site_default = drive.site_default;
                }
            }
            None => self.drives.push(drive),
        }
    }

    /// Who is signed in, as the service tells of whoever changes something on a drive.
    pub(crate) fn oneself(&self, drive: &DriveRecord) -> Oneself {
        match self.sign_in {
            SignInKind::App => Oneself {
                application: Some(self.client_id.clone()),
                ..Oneself::default()
            },
            SignInKind::Person => Oneself {
                person: self.user.as_ref().map(|user| user.id.clone()),
                own_drive: drive.own,
                ..Oneself::default()
            },
        }
    }

    /// The signed-in person's own drive.
    pub(crate) fn own_drive(&self) -> Option<&DriveRecord> {
        self.drives.iter().find(|drive| drive.own)
    }

    /// From now on the application proves itself by the secret in a file.
    pub(crate) fn use_secret_file(&mut self, path: PathBuf) {
        self.client_secret_file = Some(path);
        self.secret_kept = false;
        self.certificate = None;
        self.key = None;
    }

    /// From now on the application proves itself by a certificate.
    pub(crate) fn use_certificate(&mut self, path: PathBuf) {
        self.certificate = Some(path);
        self.client_secret_file = None;
        self.secret_kept = false;
        self.secret_expires = None;
    }

    /// What was granted.
    pub(crate) fn permissions(&self) -> Permissions {
        Permissions::new(&self.granted)
    }

    /// Tells whether the application proves itself by something in the keyring.
    pub(crate) fn keeps_in_keyring(&self) -> bool {
        self.kept_in == Place::Keyring && (self.secret_kept || self.passphrase_kept)
    }

    /// Where this account's secrets are.
    pub(crate) fn secrets(&self, dirs: &Dirs, account: &AccountName) -> Secrets {
        Secrets::at(self.kept_in, dirs, account)
    }

    /// Tells whether a sign-in is kept.
    pub(crate) fn is_signed_in(&self, dirs: &Dirs, account: &AccountName) -> Outcome<bool> {
        match self.sign_in {
            SignInKind::App => Ok(!self.signed_out),
            SignInKind::Person => self.secrets(dirs, account).has_tokens(),
        }
    }

    /// The drive of a person of the organisation.
    pub(crate) fn drive_of(&self, mailbox: &str) -> Option<&DriveRecord> {
        let named = |name: &String| name.eq_ignore_ascii_case(mailbox);
        self.drives
            .iter()
            .find(|drive| drive.mailbox.as_ref().is_some_and(named))
    }

    /// The drive of this id.
    pub(crate) fn drive(&self, id: &DriveId) -> Option<&DriveRecord> {
        self.drives.iter().find(|drive| drive.id == *id)
    }

    /// A library of a site, or its default one.
    pub(crate) fn library(&self, site: &str, library: Option<&str>) -> Option<&DriveRecord> {
        self.drives
            .iter()
            .filter(|drive| drive.site.as_deref() == Some(site))
            .find(|drive| match library {
                Some(name) => drive.name == name,
                None => drive.site_default,
            })
    }
}

/// Lists the accounts that were signed in to, in the order of their names.
pub(crate) fn list(dirs: &Dirs) -> Outcome<Vec<AccountName>> {
    let entries = match fs::read_dir(&dirs.state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| unreadable(&dirs.state, error))?,
    };
    let mut names: Vec<AccountName> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|name| dirs.account_file(name).exists())
        .collect();
    names.sort();
    Ok(names)
}

/// All accounts: those signed in to, and applications that need nobody to sign in.
pub(crate) fn all(dirs: &Dirs, config: &Layer) -> Outcome<Vec<AccountName>> {
    let mut names = list(dirs)?;
    let by_itself = config.accounts.iter();
    let by_itself = by_itself.filter(|(_, settings)| settings.app_only == Some(true));
    names.extend(by_itself.filter_map(|(name, _)| name.parse().ok()));
    names.sort();
    names.dedup();
    Ok(names)
}

/// Finds the account that is meant: the one named, the configured one, the one signed in to
/// without a name, or the only one there is.
pub(crate) fn choose(
    dirs: &Dirs,
    config: &Layer,
    named: Option<&AccountName>,
) -> Outcome<(AccountName, AccountRecord)> {
    let name = match named.or(config.account.as_ref()) {
        Some(name) => name.clone(),
        None => only_account(dirs, config)?,
    };
    match known(dirs, config, &name)? {
        Some(record) => Ok((name, record)),
        None => Err(not_signed_in(&name)),
    }
}

/// What is known about an account: what was remembered at its sign-in, or what the configuration says
/// about an application that signs in by itself and so needs nobody to do it.
pub(crate) fn known(
    dirs: &Dirs,
    config: &Layer,
    account: &AccountName,
) -> Outcome<Option<AccountRecord>> {
    if let Some(record) = AccountRecord::load(dirs, account)? {
        return Ok(Some(record));
    }
    let configured = config.accounts.get(account.as_str());
    let by_itself = configured.is_some_and(|settings| settings.app_only == Some(true));
    let record = || settings(config, account, AccountRecord::default());
    by_itself.then(record).transpose()
}

/// What the configuration says about an account, over what is remembered.
pub(crate) fn settings(
    config: &Layer,
    account: &AccountName,
    known: AccountRecord,
) -> Outcome<AccountRecord> {
    let layer = config.accounts.get(account.as_str());
    let layer = layer.cloned().unwrap_or_default();
    let file = |path: Option<PathBuf>| path.map(|path| absolute(&path)).transpose();
    let mut record = known;
    let text = |own: Option<String>, known: &mut String| {
        if let Some(own) = own {
            *known = own;
        }
    };
    if record.tenant_configured {
        record.tenant.clear();
    }
    record.tenant_configured = layer.tenant.is_some();
    text(layer.client_id, &mut record.client_id);
    text(layer.tenant, &mut record.tenant);
    text(layer.cloud, &mut record.cloud);
    if let Some(app_only) = layer.app_only {
        record.sign_in = if app_only {
            SignInKind::App
        } else {
            SignInKind::Person
        };
    }
    if let Some(path) = file(layer.client_secret_file)? {
        record.use_secret_file(path);
    }
    if let Some(path) = file(layer.certificate)? {
        record.use_certificate(path);
    }
    record.key = file(layer.key)?.or(record.key);
    if let Some(path) = file(layer.key_passphrase_file)? {
        record.key_passphrase_file = Some(path);
        record.passphrase_kept = false;
    }
    record.thumbprint = layer.thumbprint.or(record.thumbprint);
    record.secret_expires = layer.client_secret_expires.or(record.secret_expires);
    record.mailbox = layer.user.or(record.mailbox);
    record.redirect_uri = layer.redirect_uri.or(record.redirect_uri);
    record.scopes = layer.scopes.unwrap_or(record.scopes);
    Ok(record)
}

fn only_account(dirs: &Dirs, config: &Layer) -> Outcome<AccountName> {
    let mut accounts = all(dirs, config)?;
    let unnamed = AccountName::default();
    match accounts.len() {
        0 => Ok(unnamed),
        _ if accounts.contains(&unnamed) => Ok(unnamed),
        1 => Ok(accounts.remove(0)),
        _ => {
            let names: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
            Err(Failure::usage(
                "choosing an account",
                format!("there are several: {}", names.join(", ")),
            )
            .next("name one with --account, or set `account` in the configuration"))
        }
    }
}

/// There is an account of this name, or none, and nobody is signed in to it.
pub(crate) fn not_signed_in(name: &AccountName) -> Failure {
    let command = if *name == AccountName::default() {
        "onedrivefs login".to_owned()
    } else {
        format!("onedrivefs login --account {name}")
    };
    Failure::new(format!("account {name}"), "nobody is signed in").next(format!(
        "run `{command}`; to try without an account: `onedrivefs demo ~/OneDrive-demo`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(id: &str, name: &str) -> DriveRecord {
        DriveRecord {
            id: DriveId::new(id),
            kind: DriveKind::Business,
            name: name.to_owned(),
            own: false,
            mailbox: None,
            site: None,
            site_default: false,
        }
    }

    #[test]
    fn a_record_survives_the_disk() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let name: AccountName = "work".parse().expect("valid");
        assert_eq!(AccountRecord::load(&dirs, &name).expect("absent"), None);
        let mut record = AccountRecord {
            client_id: "id".into(),
            ..AccountRecord::default()
        };
        record.remember(DriveRecord {
            own: true,
            ..drive("b!1", "OneDrive")
        });
        record.save(&dirs, &name).expect("saved");
        assert_eq!(
            AccountRecord::load(&dirs, &name).expect("read"),
            Some(record)
        );
        assert_eq!(list(&dirs).expect("listed"), vec![name.clone()]);
        let (chosen, _) = choose(&dirs, &Layer::default(), None).expect("the only one");
        assert_eq!(chosen, name);
    }

    #[test]
    fn choosing_among_none_and_several_is_explained() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let none = choose(&dirs, &Layer::default(), None).expect_err("none");
        assert!(
            none.to_string().contains("next: run `onedrivefs login`"),
            "{none}"
        );
        for name in ["a", "b"] {
            let name = name.parse().expect("valid");
            AccountRecord::default().save(&dirs, &name).expect("saved");
        }
        let several = choose(&dirs, &Layer::default(), None).expect_err("several");
        assert!(several.to_string().contains("a, b"), "{several}");
    }

    #[test]
    fn drives_are_remembered_once() {
        let mut record = AccountRecord::default();
        record.remember(DriveRecord {
            own: true,
            ..drive("b!1", "OneDrive")
        });
        record.remember(drive("b!1", "Renamed"));
        record.remember(DriveRecord {
            site: Some("https://x/sites/t".into()),
            site_default: true,
            ..drive("b!2", "Documents")
        });
        assert_eq!(record.drives.len(), 2);
        assert_eq!(record.own_drive().map(|d| d.name.as_str()), Some("Renamed"));
        assert!(record.library("https://x/sites/t", None).is_some());
        assert!(record.library("https://x/sites/t", Some("Other")).is_none());
    }
}
