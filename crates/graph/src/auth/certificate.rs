//! Signing in with the certificate of an application instead of a secret.
//!
//! The identity platform knows the certificate; whoever has its private key signs a short-lived
//! statement, the client assertion, with it. The key itself never leaves this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use onedrivefs_core::{SecretString, Timestamp};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use serde_json::{Value, json};
use thiserror::Error;
use url::Url;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::{key, pem};

/// Largest PEM file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// How long an assertion is good, in seconds; the contract asks for five to ten minutes.
const ASSERTION_LIFE_S: i64 = 300;

/// Why a certificate or its key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file holds no certificate.
    #[error("the file holds no certificate in PEM format (a line \"-----BEGIN CERTIFICATE-----\")")]
    NoCertificate,
    /// The certificate cannot be understood.
    #[error("the certificate is damaged")]
    BadCertificate,
    /// The file holds no key.
    #[error("the file holds no private key in PEM format (a line \"-----BEGIN PRIVATE KEY-----\")")]
    NoKey,
    /// The key is of another kind.
    #[error("the private key is not an RSA key, which is the only kind Microsoft accepts here")]
    NotRsa,
    /// The key cannot be understood.
    #[error("the private key is damaged, or not an RSA key of 2048 to 4096 bits")]
    BadKey,
    /// The key is encrypted in an unknown way.
    #[error(
        "the private key is encrypted in a way that is not supported; `openssl pkcs8 -topk8 -v2 \
         aes-256-cbc` encrypts it anew"
    )]
    UnknownEncryption,
    /// The key is encrypted and there is no passphrase.
    #[error("the private key is encrypted and there is no passphrase for it")]
    NeedsPassphrase,
    /// The passphrase does not open the key.
    #[error("the passphrase of the private key is wrong")]
    WrongPassphrase,
    /// Certificate and key belong to different pairs.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The thumbprint that was set has no known form.
    #[error("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hexadecimal digits")]
    BadThumbprint,
}

/// A certificate without its key, as it is registered.
#[derive(Clone, Debug)]
pub struct PublicCertificate {
    der: Vec<u8>,
    public_key: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl PublicCertificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or holds none.
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        use secrecy::ExposeSecret as _;
        let sections = pem::sections(&read_file(path)?);
        let section = sections
            .iter()
            .find(|section| matches!(section.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE"))
            .ok_or(CertificateError::NoCertificate)?;
        let der = section.bytes.expose_secret().to_vec();
        let parsed = Certificate::from_der(&der).map_err(|_| CertificateError::BadCertificate)?;
        let tbs = &parsed.tbs_certificate;
        let seconds = |time: &x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
        };
        let key = tbs.subject_public_key_info.subject_public_key.as_bytes();
        Ok(Self {
            public_key: key.unwrap_or_default().to_vec(),
            not_before: seconds(&tbs.validity.not_before),
            not_after: seconds(&tbs.validity.not_after),
            der,
        })
    }

    /// SHA-1 over the certificate, which the portal calls its thumbprint.
    #[must_use]
    pub fn sha1(&self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der)
            .as_ref()
            .to_vec()
    }

    /// SHA-256 over the certificate.
    #[must_use]
    pub fn sha256(&self) -> Vec<u8> {
        digest(&SHA256, &self.der).as_ref().to_vec()
    }

    /// From when the certificate is good.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        Timestamp::from_nanos(self.not_before.saturating_mul(1_000_000_000))
    }

    /// Until when the certificate is good.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_nanos(self.not_after.saturating_mul(1_000_000_000))
    }

    /// The entry of `keyCredentials` in an application's manifest that registers it.
    #[must_use]
    pub fn key_credential(&self, key_id: &str) -> Value {
        json!({
            "customKeyIdentifier": STANDARD.encode(self.sha1()),
            "keyId": key_id,
            "type": "AsymmetricX509Cert",
            "usage": "Verify",
            "value": STANDARD.encode(&self.der),
        })
    }
}

/// How an assertion names the certificate it was signed for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thumbprint {
    /// `x5t`, with an RS256 signature.
    Sha1(Vec<u8>),
    /// `x5t#S256`, with a PS256 signature.
    Sha256(Vec<u8>),
}

/// A certificate with its private key.
pub struct ClientCertificate {
    public: PublicCertificate,
    key: KeyPair,
    thumbprint: Thumbprint,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads both from PEM files, which may be the same one. A thumbprint in hexadecimal replaces
    /// the computed one.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, the passphrase is missing or wrong, or the
    /// two do not belong together.
    pub fn read(
        certificate: &Path,
        key_file: &Path,
        passphrase: Option<&SecretString>,
        thumbprint: Option<&str>,
    ) -> Result<Self, CertificateError> {
        let public = PublicCertificate::read(certificate)?;
        let key = key::read(&pem::sections(&read_file(key_file)?), passphrase)?;
        if key.public().as_ref() != public.public_key.as_slice() {
            return Err(CertificateError::Mismatch);
        }
        let thumbprint = match thumbprint {
            None => Thumbprint::Sha256(public.sha256()),
            Some(text) => parse_thumbprint(text)?,
        };
        Ok(Self {
            public,
            key,
            thumbprint,
        })
    }

    /// The certificate.
    #[must_use]
    pub fn public(&self) -> &PublicCertificate {
        &self.public
    }

    /// A signed statement that this is the application, for one token endpoint.
    pub(super) fn assertion(&self, client_id: &str, audience: &Url) -> Option<SecretString> {
        let now = Timestamp::now().seconds();
        let (padding, mut header): (&dyn RsaEncoding, Value) = match &self.thumbprint {
            Thumbprint::Sha256(print) => (
                &RSA_PSS_SHA256,
                json!({"alg": "PS256", "x5t#S256": URL_SAFE_NO_PAD.encode(print)}),
            ),
            Thumbprint::Sha1(print) => (
                &RSA_PKCS1_SHA256,
                json!({"alg": "RS256", "x5t": URL_SAFE_NO_PAD.encode(print)}),
            ),
        };
        header["typ"] = json!("JWT");
        let claims = json!({
            "aud": audience.as_str(),
            "iss": client_id,
            "sub": client_id,
            "jti": uuid::Uuid::new_v4().to_string(),
            "nbf": now,
            "iat": now,
            "exp": now + ASSERTION_LIFE_S,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                padding,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Some(format!("{text}.{signature}").into())
    }
}

/// Tells whether the key in a PEM file needs a passphrase.
///
/// # Errors
/// The file cannot be read.
pub fn key_is_encrypted(path: &Path) -> Result<bool, CertificateError> {
    Ok(key::is_encrypted(&pem::sections(&read_file(path)?)))
}

/// A thumbprint as people copy it: with or without colons and spaces.
fn parse_thumbprint(text: &str) -> Result<Thumbprint, CertificateError> {
    let plain: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    match key::from_hex(&plain) {
        Some(bytes) if bytes.len() == 20 => Ok(Thumbprint::Sha1(bytes)),
        Some(bytes) if bytes.len() == 32 => Ok(Thumbprint::Sha256(bytes)),
        _ => Err(CertificateError::BadThumbprint),
    }
}

/// Reads a PEM file as text; bytes that are none become characters that match nothing.
fn read_file(path: &Path) -> Result<String, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX_BYTES {
        return Err(unreadable(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
