//! PEM files, as far as keys and certificates need them.
//!
//! The certificate crates read PEM as RFC 7468 has it. Keys that OpenSSL encrypted the old way have
//! headers in front of their base64, which that format does not know, so the few lines are here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretSlice;

/// One `-----BEGIN …-----` section.
pub(super) struct Section {
    /// What stands behind BEGIN.
    pub(super) label: String,
    /// `Name: value` lines in front of the base64.
    pub(super) headers: Vec<(String, String)>,
    /// The bytes, which may be a private key.
    pub(super) bytes: SecretSlice<u8>,
}

impl Section {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// All sections of a file; what is between them, and sections that are damaged, is left out.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut all = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = marker(line, "BEGIN") else {
            continue;
        };
        let mut headers = Vec::new();
        let mut base64 = String::new();
        let mut whole = false;
        for line in lines.by_ref() {
            if marker(line, "END") == Some(label) {
                whole = true;
                break;
            }
            match line.split_once(':') {
                Some((name, value)) => {
                    headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                None => base64.push_str(line),
            }
        }
        if let (true, Ok(bytes)) = (whole, STANDARD.decode(&base64)) {
            all.push(Section {
                label: label.to_owned(),
                headers,
                bytes: bytes.into(),
            });
        }
    }
    all
}

/// The label of a line such as `-----BEGIN CERTIFICATE-----`.
fn marker<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let inner = line.strip_prefix("-----")?.strip_suffix("-----")?;
    inner.strip_prefix(word)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn sections_are_found_among_other_text() {
        let text = "Bag Attributes\n-----BEGIN A B-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: \
                    AES-256-CBC,00FF\n\nAQID\n-----END A B-----\r\nnoise\n-----BEGIN C-----\n!\n\
                    -----END C-----\n-----BEGIN D-----\nAQ==\n";
        let found = sections(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].label, "A B");
        assert_eq!(found[0].bytes.expose_secret(), [1, 2, 3]);
        assert_eq!(found[0].header("DEK-Info"), Some("AES-256-CBC,00FF"));
    }
}
