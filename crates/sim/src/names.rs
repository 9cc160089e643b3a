//! The service refuses some names and takes others for equal; a client that believes otherwise
//! loses files. These are the service's rules, written down independently of any client.

use unicode_normalization::UnicodeNormalization;

use crate::config::DriveKind;

/// Longest name, in UTF-16 units.
const MAX_NAME_UTF16: usize = 255;
/// Longest path in business drives and libraries, in characters.
const MAX_PATH_BUSINESS: usize = 400;
/// Longest path in personal drives, in characters.
const MAX_PATH_PERSONAL: usize = 430;

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameError {
    /// The front end chokes on it and answers with an HTML page.
    Html,
    /// A character that no name may contain.
    Character,
    /// Leading or trailing space or dot, reserved word and the like.
    Reserved,
    /// Longer than a component may be.
    TooLong,
}

/// Applies the naming table to one path component.
pub(crate) fn check(name: &str, kind: DriveKind, at_root: bool) -> Result<(), NameError> {
    if name.chars().any(char::is_control) {
        return Err(NameError::Html);
    }
    if name.contains(['"', '*', ':', '<', '>', '?', '/', '\\', '|']) {
        return Err(NameError::Character);
    }
    if name.is_empty() || name.starts_with(' ') || name.ends_with([' ', '.']) {
        return Err(NameError::Reserved);
    }
    let business = kind != DriveKind::Personal;
    let lower = name.to_lowercase();
    let refused = is_reserved(&lower)
        || name.starts_with("~$")
        || lower.contains("_vti_")
        || has_numeric_entity(name)
        || (business && (name.starts_with('~') || name.starts_with('\u{3000}')))
        || (business && at_root && lower == "forms");
    if refused {
        return Err(NameError::Reserved);
    }
    if name.encode_utf16().count() > MAX_NAME_UTF16 {
        return Err(NameError::TooLong);
    }
    Ok(())
}

fn is_reserved(lower: &str) -> bool {
    if matches!(lower, ".lock" | "desktop.ini") {
        return true;
    }
    let base = lower.split('.').next().unwrap_or(lower);
    if matches!(base, "con" | "prn" | "aux" | "nul") {
        return true;
    }
    let digits = base
        .strip_prefix("com")
        .or_else(|| base.strip_prefix("lpt"));
    digits.is_some_and(|d| d.len() == 1 && d.bytes().all(|b| b.is_ascii_digit()))
}

fn has_numeric_entity(name: &str) -> bool {
    name.split("&#").skip(1).any(|rest| {
        rest.split_once(';').is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
    })
}

/// Whether a whole path (`/a/b/c`) is too long for this kind of drive.
pub(crate) fn path_too_long(path: &str, kind: DriveKind) -> bool {
    let limit = if kind == DriveKind::Personal {
        MAX_PATH_PERSONAL
    } else {
        MAX_PATH_BUSINESS
    };
    path.chars().count() > limit
}

/// The key under which two spellings of a name are the same name: NFC and simple case folding.
pub(crate) fn fold(name: &str, ae_rule: bool) -> String {
    let folded = name.nfc().map(fold_char).collect::<String>();
    if ae_rule {
        folded.replace('æ', "ae")
    } else {
        folded
    }
}

/// Simple (one to one) case folding; characters without a one-to-one partner stay themselves.
fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // Dotless i would fold onto i only by Turkish rules.
    if c == 'ı' {
        return c;
    }
    single(single(c, char::to_uppercase), char::to_lowercase)
}

fn single<I: Iterator<Item = char>>(c: char, map: fn(char) -> I) -> char {
    let mut mapped = map(c);
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_spellings_fold_alike() {
        assert_eq!(fold("README.md", false), fold("readme.MD", false));
        assert_eq!(fold("cafe\u{301}", false), fold("CAFÉ", false));
        assert_eq!(fold("\u{732A}", false), fold("\u{FA16}", false));
        assert_ne!(fold("İ", false), fold("i", false));
        assert_ne!(fold("ae", false), fold("æ", false));
        assert_eq!(fold("AE", true), fold("Æ", true));
    }

    #[test]
    fn vectors() {
        let data = include_str!("../tests/data/vectors.json");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        for case in data["names"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            let valid = case["valid"].as_bool().unwrap();
            let reason = case["reason"].as_str().unwrap();
            let at_root = !reason.contains("below the root");
            let kinds: &[DriveKind] = match case["scope"].as_str().unwrap() {
                "business" => &[DriveKind::Business, DriveKind::DocumentLibrary],
                "personal" => &[DriveKind::Personal],
                _ => &[
                    DriveKind::Personal,
                    DriveKind::Business,
                    DriveKind::DocumentLibrary,
                ],
            };
            for kind in kinds {
                assert_eq!(
                    check(name, *kind, at_root).is_ok(),
                    valid,
                    "{name:?} {reason}"
                );
            }
        }
    }
}
