//! What proves an application beside its id: a secret or a certificate, and until when it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use jiff::Zoned;
use jiff::civil::Date;
use onedrivefs_core::SecretString;
use onedrivefs_graph::auth::{
    CertificateError, ClientCertificate, PublicCertificate, key_is_encrypted,
};
use serde::Serialize;

use crate::account::AccountRecord;
use crate::connect::{Given, is_guid};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::secrets::{self, Kept, Secrets};

/// How long before its end a secret or certificate is warned about, in days.
const WARNING_DAYS: i32 = 30;

/// What proves an application.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    /// Its secret.
    pub(crate) secret: Option<SecretString>,
    /// Its certificate with the key.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

impl Proof {
    /// Reads what an account's application proves itself by.
    pub(crate) fn read(record: &AccountRecord, secrets: &Secrets, given: Given) -> Outcome<Self> {
        if let Some(certificate) = &record.certificate {
            let key = record.key.as_deref().unwrap_or(certificate);
            let passphrase = match given.passphrase {
                Some(given) => Some(given),
                None => passphrase(record, secrets)?,
            };
            let thumbprint = record.thumbprint.as_deref();
            let read = read_certificate(certificate, key, passphrase.as_ref(), thumbprint)?;
            return Ok(Self {
                secret: None,
                certificate: Some(Arc::new(read)),
            });
        }
        let secret = match &record.client_secret_file {
            _ if given.secret.is_some() => given.secret,
            Some(path) => Some(secrets::read_file(path, "client secret")?),
            None if record.secret_kept => Some(kept(secrets, Kept::ClientSecret)?),
            None => None,
        };
        Ok(Self {
            secret,
            certificate: None,
        })
    }
}

/// The passphrase of the private key, if there is one.
fn passphrase(record: &AccountRecord, secrets: &Secrets) -> Outcome<Option<SecretString>> {
    match &record.key_passphrase_file {
        Some(path) => secrets::read_file(path, "passphrase").map(Some),
        None if record.passphrase_kept => kept(secrets, Kept::Passphrase).map(Some),
        None => Ok(None),
    }
}

fn kept(secrets: &Secrets, what: Kept) -> Outcome<SecretString> {
    let remedy = "run `onedrivefs login` again with the same --account";
    let doing = "reading what was kept at login";
    match secrets.load(what) {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(Failure::new(doing, "it is not there any more").next(remedy)),
        Err(error) => Err(Failure::because(doing, error).next(secrets::KEYRING_REMEDY)),
    }
}

/// Warns about a text that is the id of a secret and not the secret.
pub(crate) fn check_secret(secret: &str) {
    if is_guid(secret) {
        output::note(
            "warning: the client secret looks like a secret's *id*; its *value* is needed, which \
             the portal shows only once",
        );
    }
}

impl AccountRecord {
    /// Tells whether the private key is encrypted and nobody has said by what.
    pub(crate) fn needs_passphrase(&self) -> bool {
        let key = self.key.as_ref().or(self.certificate.as_ref());
        key.is_some_and(|key| key_is_encrypted(key).unwrap_or(false))
            && self.key_passphrase_file.is_none()
            && !self.passphrase_kept
    }
}

/// Reads a certificate and its key, and refuses a key that lies open.
pub(crate) fn read_certificate(
    certificate: &Path,
    key: &Path,
    passphrase: Option<&SecretString>,
    thumbprint: Option<&str>,
) -> Outcome<ClientCertificate> {
    check_mode(key)?;
    ClientCertificate::read(certificate, key, passphrase, thumbprint)
        .map_err(|error| explain(certificate, key, error))
}

/// Refuses an unencrypted key that others can read: whoever copies it is the application.
fn check_mode(key: &Path) -> Outcome {
    let open = fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    if !open {
        return Ok(());
    }
    let place = key.display();
    if key_is_encrypted(key).unwrap_or(false) {
        output::note(format!(
            "warning: {place} can be read by others; run `chmod 600` on it"
        ));
        return Ok(());
    }
    Err(Failure::usage(
        format!("private key {place}"),
        "is not encrypted and can be read by others",
    )
    .next(format!("chmod 600 '{place}'")))
}

/// Says which file is meant and what to do.
pub(crate) fn explain(certificate: &Path, key: &Path, error: CertificateError) -> Failure {
    let about_certificate = matches!(
        error,
        CertificateError::NoCertificate | CertificateError::BadCertificate
    );
    let path = if about_certificate { certificate } else { key };
    let next = match &error {
        CertificateError::WrongPassphrase => {
            "check the passphrase file, or leave it out to be asked"
        }
        CertificateError::NeedsPassphrase => {
            "name a file that only you can read: --key-passphrase-file FILE; on a terminal you are \
             asked"
        }
        CertificateError::Mismatch => "name the key that the certificate was made with",
        CertificateError::NoCertificate | CertificateError::NoKey => {
            "a .pfx or .p12 file is turned into PEM by `openssl pkcs12 -in FILE -out both.pem`"
        }
        CertificateError::Unreadable { .. } => {
            "check the path, the owner and the mode of that file"
        }
        CertificateError::BadThumbprint => "copy the thumbprint from the portal, or leave it out",
        _ => {
            "make another pair: `openssl req -x509 -newkey rsa:4096 -keyout key.pem -out cert.pem`"
        }
    };
    let what = if about_certificate {
        "certificate"
    } else {
        "private key"
    };
    let failure = match error {
        error @ CertificateError::Unreadable { .. } => Failure::because(what, error),
        error => Failure::usage(format!("{what} {}", path.display()), error),
    };
    failure.next(next)
}

/// Until when an application can prove itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Expiry {
    /// `client secret` or `certificate`.
    pub(crate) what: &'static str,
    /// The last day.
    pub(crate) date: Date,
    /// Days until then; negative afterwards.
    pub(crate) days: i32,
}

impl Expiry {
    /// What is known about an account's application.
    pub(crate) fn of(record: &AccountRecord) -> Option<Self> {
        let (what, date) = match &record.certificate {
            Some(path) => ("certificate", certificate_end(path)?),
            None => ("client secret", record.secret_expires?),
        };
        Some(Self::at(what, date, Zoned::now().date()))
    }

    fn at(what: &'static str, date: Date, today: Date) -> Self {
        let days = (date - today).get_days();
        Self { what, date, days }
    }

    /// A sentence when it is near.
    pub(crate) fn warning(&self, account: &str) -> Option<String> {
        let Self { what, date, days } = self;
        let flag = match *what {
            "certificate" => "--certificate",
            _ => "--client-secret-file",
        };
        let when = match days {
            ..0 => format!("expired on {date}"),
            0 => "expires today".to_owned(),
            1 => format!("expires tomorrow, on {date}"),
            2..=WARNING_DAYS => format!("expires in {days} days, on {date}"),
            _ => return None,
        };
        Some(format!(
            "The {what} of the application of the account {account} {when}. Register a new one, then \
             run: onedrivefs login --account {account} {flag} FILE (mounts go on meanwhile)"
        ))
    }
}

fn certificate_end(path: &Path) -> Option<Date> {
    let read = PublicCertificate::read(path).ok()?;
    let end = jiff::Timestamp::from_second(read.not_after().seconds()).ok()?;
    Some(end.to_zoned(jiff::tz::TimeZone::UTC).date())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn ap_06_an_end_is_warned_about_thirty_days_ahead() {
        let today = date(2026, 11, 26);
        let text = |day: Date| Expiry::at("client secret", day, today).warning("work");
        assert_eq!(text(date(2026, 12, 27)), None);
        for (day, says) in [
            (date(2026, 12, 26), "expires in 30 days, on 2026-12-26"),
            (date(2026, 11, 27), "tomorrow"),
            (date(2026, 11, 26), "today"),
            (date(2026, 11, 25), "expired on 2026-11-25"),
        ] {
            let text = text(day).expect("warned");
            assert!(text.contains(says), "{text}");
            assert!(
                text.contains("onedrivefs login --account work --client-secret-file"),
                "{text}"
            );
        }
        let far = Expiry::at("certificate", date(2099, 1, 1), today);
        assert_eq!(far.warning("work"), None);
    }
}
