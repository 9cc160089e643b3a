//! Private keys of applications, in the forms that people have them in.

use aes::cipher::{BlockDecryptMut as _, KeyIvInit as _, block_padding::Pkcs7};
use md5::{Digest as _, Md5};
use pkcs8::EncryptedPrivateKeyInfo;
use ring::rsa::KeyPair;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::certificate::CertificateError;
use super::pem::Section;

/// Reads an RSA key out of the sections of a PEM file.
pub(super) fn read(
    sections: &[Section],
    passphrase: Option<&SecretString>,
) -> Result<KeyPair, CertificateError> {
    let is_key = |section: &&Section| section.label.ends_with("PRIVATE KEY");
    let section = sections
        .iter()
        .find(is_key)
        .ok_or(CertificateError::NoKey)?;
    let rejected = |_| CertificateError::BadKey;
    match section.label.as_str() {
        "PRIVATE KEY" => KeyPair::from_pkcs8(section.bytes.expose_secret()).map_err(rejected),
        "ENCRYPTED PRIVATE KEY" => {
            let passphrase = passphrase.ok_or(CertificateError::NeedsPassphrase)?;
            let info = EncryptedPrivateKeyInfo::try_from(section.bytes.expose_secret())
                .map_err(|_damaged| CertificateError::BadKey)?;
            let plain = info
                .decrypt(passphrase.expose_secret())
                .map_err(|error| match error {
                    pkcs8::Error::EncryptedPrivateKey(error) if is_unknown(&error) => {
                        CertificateError::UnknownEncryption
                    }
                    _ => CertificateError::WrongPassphrase,
                })?;
            // Whatever a wrong passphrase makes of the bytes seldom has the form of a key.
            KeyPair::from_pkcs8(plain.as_bytes())
                .map_err(|error| wrong_or_bad(error, plain.as_bytes()))
        }
        "RSA PRIVATE KEY" if section.header("Proc-Type").is_some() => {
            let passphrase = passphrase.ok_or(CertificateError::NeedsPassphrase)?;
            let plain = decrypt_traditional(section, passphrase)?;
            KeyPair::from_der(plain.expose_secret())
                .map_err(|error| wrong_or_bad(error, plain.expose_secret()))
        }
        "RSA PRIVATE KEY" => KeyPair::from_der(section.bytes.expose_secret()).map_err(rejected),
        _ => Err(CertificateError::NotRsa),
    }
}

/// Tells whether a key needs a passphrase.
pub(super) fn is_encrypted(sections: &[Section]) -> bool {
    sections.iter().any(|section| {
        section.label == "ENCRYPTED PRIVATE KEY"
            || (section.label.ends_with("PRIVATE KEY") && section.header("Proc-Type").is_some())
    })
}

/// A key that was decrypted to something of the right outer form and is no good was damaged before.
fn wrong_or_bad(_error: ring::error::KeyRejected, plain: &[u8]) -> CertificateError {
    const SEQUENCE: u8 = 0x30;
    const LONG_LENGTH: u8 = 0x82;
    if plain.starts_with(&[SEQUENCE, LONG_LENGTH]) {
        CertificateError::BadKey
    } else {
        CertificateError::WrongPassphrase
    }
}

/// Tells whether a key is encrypted in a way that is not supported, whatever the passphrase.
fn is_unknown(error: &pkcs8::pkcs5::Error) -> bool {
    matches!(
        error,
        pkcs8::pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs8::pkcs5::Error::NoPbes1CryptSupport
            | pkcs8::pkcs5::Error::AlgorithmParametersInvalid { .. }
    )
}

/// Decrypts what OpenSSL calls the traditional format: a cipher and its start value in a header, and
/// a key that MD5 makes of the passphrase.
fn decrypt_traditional(
    section: &Section,
    passphrase: &SecretString,
) -> Result<SecretSlice<u8>, CertificateError> {
    let (cipher, salt) = section
        .header("DEK-Info")
        .and_then(|info| info.split_once(','))
        .ok_or(CertificateError::BadKey)?;
    let iv = from_hex(salt.trim()).ok_or(CertificateError::BadKey)?;
    let key_len = match cipher {
        "AES-128-CBC" => 16,
        "AES-192-CBC" | "DES-EDE3-CBC" => 24,
        "AES-256-CBC" => 32,
        _ => return Err(CertificateError::UnknownEncryption),
    };
    let salt = iv.get(..8).ok_or(CertificateError::BadKey)?;
    let key = stretch(passphrase.expose_secret().as_bytes(), salt, key_len);
    let (key, bytes) = (key.expose_secret(), section.bytes.expose_secret());
    macro_rules! decrypt {
        ($cipher:ty) => {
            cbc::Decryptor::<$cipher>::new_from_slices(key, &iv)
                .map_err(|_length| CertificateError::BadKey)?
                .decrypt_padded_vec_mut::<Pkcs7>(bytes)
                .map_err(|_padding| CertificateError::WrongPassphrase)?
        };
    }
    let plain: Vec<u8> = match cipher {
        "AES-128-CBC" => decrypt!(aes::Aes128),
        "AES-192-CBC" => decrypt!(aes::Aes192),
        "AES-256-CBC" => decrypt!(aes::Aes256),
        _ => decrypt!(des::TdesEde3),
    };
    Ok(plain.into())
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn stretch(passphrase: &[u8], salt: &[u8], len: usize) -> SecretSlice<u8> {
    let mut key: Vec<u8> = Vec::new();
    let mut block: Vec<u8> = Vec::new();
    while key.len() < len {
        let digest = Md5::new()
            .chain_update(&block)
            .chain_update(passphrase)
            .chain_update(salt)
            .finalize();
        block = digest.to_vec();
        key.extend_from_slice(&block);
    }
    key.truncate(len);
    key.into()
}

/// Bytes written in hexadecimal.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let pair = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}
