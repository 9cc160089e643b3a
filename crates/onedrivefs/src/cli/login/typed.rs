//! What was typed or piped in at a sign-in.

use std::path::PathBuf;

use onedrivefs_core::{ExposeSecret as _, SecretString};
use onedrivefs_graph::AuthConfig;

use super::super::LoginArgs;
use crate::account::AccountRecord;
use crate::config::Layer;
use crate::connect::{self, Given};
use crate::credentials;
use crate::failure::Outcome;
use crate::paths::{AccountName, Dirs};
use crate::secrets::{self, is_stdin};

/// What was typed or piped in, and has to be kept.
#[derive(Default)]
pub(super) struct Typed {
    /// The client secret.
    pub(super) secret: Option<SecretString>,
    /// The passphrase of the private key.
    pub(super) passphrase: Option<SecretString>,
}

impl Typed {
    /// Reads what comes from a terminal or from standard input, and notes in the record that it does.
    pub(super) fn read(args: &LoginArgs, record: &mut AccountRecord) -> Outcome<Self> {
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
    pub(super) fn auth_config(
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
