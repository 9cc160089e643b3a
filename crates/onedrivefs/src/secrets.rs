//! Where what grants access is kept: in the desktop's keyring, or in files that only their owner can
//! read.
//!
//! The place is chosen at login and remembered, because a daemon that starts before the desktop does
//! must not look in the wrong one.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onedrivefs_core::{ExposeSecret as _, SecretString};
use onedrivefs_graph::auth::{TokenStore, Vault};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

use crate::account::AccountRecord;
use crate::config::{KeepMode, Layer};
use crate::connect::explain_graph;
use crate::failure::{Explain, Failure, Outcome};
use crate::keyring::{self, KeyringItem};
use crate::output;
use crate::paths::{AccountName, Dirs, remove_file, write_private};

/// Largest file taken for a secret, in bytes; a secret has about 40.
const SECRET_SIZE_MAX: u64 = 4096;

/// What tokens are called in the keyring.
const SIGN_IN: &str = "sign-in";

/// Where an account's secrets are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// Files of mode 0600 in the account's state directory.
    #[default]
    File,
    /// The desktop's keyring.
    Keyring,
}

/// What is kept beside the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A client secret that was typed or piped in.
    ClientSecret,
    /// The passphrase of a private key.
    Passphrase,
}

impl Kept {
    fn kind(self) -> &'static str {
        match self {
            Self::ClientSecret => "client secret",
            Self::Passphrase => "passphrase",
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::ClientSecret => "client-secret",
            Self::Passphrase => "passphrase",
        }
    }
}

/// The secrets of one account.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    place: Place,
    account: AccountName,
    dir: PathBuf,
    token_file: PathBuf,
}

impl Secrets {
    /// Those of an account that keeps them in a place.
    pub(crate) fn at(place: Place, dirs: &Dirs, account: &AccountName) -> Self {
        Self {
            place,
            account: account.clone(),
            dir: dirs.account(account),
            token_file: dirs.token_file(account),
        }
    }

    fn item(&self, kind: &'static str) -> KeyringItem {
        let state = self.dir.display().to_string();
        KeyringItem::new(self.account.as_str(), &state, kind)
    }

    /// The tokens.
    pub(crate) fn tokens(&self) -> TokenStore {
        match self.place {
            Place::File => TokenStore::file(&self.token_file),
            Place::Keyring => TokenStore::vault(Arc::new(self.item(SIGN_IN)), &self.token_file),
        }
    }

    /// Tells whether there are tokens; `Err` when nobody can tell.
    pub(crate) fn has_tokens(&self) -> Outcome<bool> {
        if self.place == Place::File {
            return Ok(self.token_file.exists());
        }
        let loaded = self.tokens().load();
        loaded
            .map(|token| token.is_some())
            .map_err(|error| explain_graph("looking for the sign-in", error))
    }

    /// Reads something that was kept.
    pub(crate) fn load(&self, what: Kept) -> io::Result<Option<SecretString>> {
        match self.place {
            Place::Keyring => self.item(what.kind()).load(),
            Place::File => match fs::read_to_string(self.dir.join(what.file_name())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(|text| Some(text.into())),
            },
        }
    }

    /// Keeps something.
    pub(crate) fn save(&self, what: Kept, secret: &SecretString) -> Outcome {
        match self.place {
            Place::Keyring => self
                .item(what.kind())
                .for_person()
                .save(secret)
                .explain(|| format!("keeping the {} in the keyring", what.kind()))
                .map_err(|failure| failure.next(KEYRING_REMEDY)),
            Place::File => {
                let path = self.dir.join(what.file_name());
                write_private(&path, secret.expose_secret().as_bytes())
            }
        }
    }

    /// Removes everything from this place. What the keyring does not let go of is an error.
    pub(crate) fn clear(&self) -> Outcome {
        if self.place == Place::File {
            for what in [Kept::ClientSecret, Kept::Passphrase] {
                remove_file(&self.dir.join(what.file_name()))?;
            }
            return remove_file(&self.token_file);
        }
        for kind in [SIGN_IN, Kept::ClientSecret.kind(), Kept::Passphrase.kind()] {
            let item = self.item(kind).for_person();
            item.clear()
                .explain(|| format!("removing the {kind} from the keyring"))
                .map_err(|failure| failure.next(KEYRING_REMEDY))?;
        }
        Ok(())
    }
}

/// What to do when the keyring refuses.
pub(crate) const KEYRING_REMEDY: &str = "unlock the keyring, or set secrets = \"file\" in the \
                                         configuration and sign in again";

/// Decides where the secrets of a sign-in go. While something is mounted they stay where they are: a
/// daemon of the system may not reach the keyring of this session.
pub(crate) fn choose_place(
    config: &Layer,
    known: Option<&AccountRecord>,
    mounted: bool,
) -> Outcome<Place> {
    match config.secrets.unwrap_or(KeepMode::Auto) {
        KeepMode::File => Ok(Place::File),
        KeepMode::Auto if mounted && let Some(known) = known => Ok(known.kept_in),
        KeepMode::Auto if keyring::is_offered() => Ok(Place::Keyring),
        KeepMode::Auto => Ok(Place::File),
        KeepMode::Keyring if keyring::is_offered() => Ok(Place::Keyring),
        KeepMode::Keyring => Err(Failure::new(
            "keeping the sign-in",
            "the configuration wants the keyring, and this session has none",
        )
        .next("start a keyring (gnome-keyring, KWallet, KeePassXC), or set secrets = \"file\"")),
    }
}

/// Reads a secret from a file, or from standard input when it is called `-`, and warns when others
/// can read the file too.
pub(crate) fn read_file(path: &Path, what: &str) -> Outcome<SecretString> {
    let doing = || match is_stdin(path) {
        true => format!("reading the {what} from standard input"),
        false => format!("reading the {what} in {}", path.display()),
    };
    let mut text = String::new();
    if is_stdin(path) {
        let stdin = io::stdin().lock();
        let mut limited = stdin.take(SECRET_SIZE_MAX);
        limited.read_line(&mut text).explain(doing)?;
    } else {
        let remedy = "check the path, the owner and the mode of that file";
        let next = |failure: Failure| failure.next(remedy);
        let metadata = fs::metadata(path).explain(doing).map_err(next)?;
        if metadata.len() > SECRET_SIZE_MAX {
            return Err(
                Failure::usage(doing(), "the file is too large for a secret")
                    .next("put nothing but the secret into it"),
            );
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            output::note(format!(
                "warning: {} can be read by others; run `chmod 600` on it",
                path.display()
            ));
        }
        text = fs::read_to_string(path).explain(doing).map_err(next)?;
    }
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Failure::usage(doing(), "there is nothing in it")
            .next(format!("put the {what} there, on one line")));
    }
    Ok(SecretString::from(secret))
}

/// Tells whether a path stands for standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Asks a person for a secret, without showing what is typed.
pub(crate) fn ask(what: &str, flag: &str) -> Outcome<SecretString> {
    let doing = || format!("asking for the {what}");
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::usage(doing(), "there is no terminal to type it on").next(format!(
                "put it into a file that only you can read: {flag} FILE"
            )),
        );
    }
    let mut err = io::stderr();
    write!(err, "{what}: ")
        .and_then(|()| err.flush())
        .explain(doing)?;
    let shown = tcgetattr(&stdin).explain(doing)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).explain(doing)?;
    let mut text = String::new();
    let read = stdin.lock().take(SECRET_SIZE_MAX).read_line(&mut text);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    output::note("");
    read.explain(doing)?;
    restored.explain(doing)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Failure::usage(doing(), "nothing was typed").next("start again"));
    }
    Ok(SecretString::from(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), "s3cr3t~value\n").expect("written");
        let secret = read_file(file.path(), "client secret").expect("read");
        assert_eq!(secret.expose_secret(), "s3cr3t~value");
        fs::write(file.path(), "\n").expect("written");
        assert!(read_file(file.path(), "client secret").is_err());
        assert!(read_file(Path::new("/nonexistent/secret"), "client secret").is_err());
    }

    #[test]
    fn what_is_kept_in_files_is_private() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let secrets = Secrets::at(Place::File, &dirs, &AccountName::default());
        assert!(secrets.load(Kept::ClientSecret).expect("read").is_none());
        secrets
            .save(Kept::ClientSecret, &"hush".into())
            .expect("kept");
        let kept = secrets
            .load(Kept::ClientSecret)
            .expect("read")
            .expect("there");
        assert_eq!(kept.expose_secret(), "hush");
        let path = dirs.account(&AccountName::default()).join("client-secret");
        let mode = fs::metadata(path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        secrets.clear().expect("removed");
        assert!(secrets.load(Kept::ClientSecret).expect("read").is_none());
    }
}
