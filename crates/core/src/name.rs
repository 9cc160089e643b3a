//! Names: how the service compares them, which it refuses, and how refused ones are stored.
//!
//! A name that Linux accepts and the service refuses is stored under a reversible encoding: each
//! forbidden character becomes its full-width twin, as other Linux clients of this service do it,
//! so that files stay readable across clients. A name that already holds such a twin has it quoted
//! with U+201B. Reserved words, which have no forbidden character, get a lone U+201B.

use icu_casemap::CaseMapper;
use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;

use crate::DriveKind;

/// Longest name the service takes, in UTF-16 code units (the strictest reading of its limit).
pub const NAME_MAX_UTF16: usize = 255;

/// Quotes a character that would otherwise be read as an encoded one.
const QUOTE: char = '\u{201B}';

/// Distance from a printable ASCII character to its full-width twin.
const FULL_WIDTH: u32 = 0xFEE0;

/// First of the "symbol for" characters that stand for control characters.
const SYMBOLS: u32 = 0x2400;

/// Stands for a leading or trailing space.
const SYMBOL_SPACE: char = '\u{2420}';

/// Stands for DEL.
const SYMBOL_DEL: char = '\u{2421}';

/// Full-width full stop, for a trailing dot.
const FULL_STOP: char = '\u{FF0E}';

/// Full-width tilde, for a leading `~`.
const FULL_TILDE: char = '\u{FF5E}';

/// Printable characters that the service forbids anywhere in a name.
const FORBIDDEN: &[char] = &['"', '*', ':', '<', '>', '?', '\\', '|'];

/// Why a name cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty, `.`, `..`, or holds a slash or NUL.
    #[error("not a file name")]
    NotAName,
    /// The name is not UTF-8, which the service cannot express.
    #[error("the name is not valid UTF-8")]
    NotUtf8,
    /// The name is longer than 255 UTF-16 units once encoded.
    #[error("the name is longer than 255 characters")]
    TooLong,
}

/// The form under which two names are the same name: NFC with simple case folding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameKey(String);

impl NameKey {
    /// Folds a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        if name.bytes().all(|b| b.is_ascii()) {
            return Self(name.to_ascii_lowercase());
        }
        let mapper = CaseMapper::new();
        Self(name.nfc().map(|c| mapper.simple_fold(c)).nfc().collect())
    }

    /// The folded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that a name from a system call can be an entry of a folder.
///
/// # Errors
/// `NotAName` for empty, dot and slash names; `TooLong` when the service could not store it.
pub fn check_local(name: &str) -> Result<(), NameError> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(NameError::NotAName);
    }
    // Encoding makes at most two units of a byte.
    if name.len() <= NAME_MAX_UTF16 / 2 {
        return Ok(());
    }
    // 255 bytes is what every local file system allows; the service counts UTF-16 units.
    if encode(name).encode_utf16().count() > NAME_MAX_UTF16 {
        return Err(NameError::TooLong);
    }
    Ok(())
}

/// Tells whether the service takes the name as it is on a drive of this kind.
#[must_use]
pub fn is_accepted(name: &str, kind: DriveKind, in_root: bool) -> bool {
    let reserved_here =
        kind != DriveKind::Personal && in_root && name.eq_ignore_ascii_case("forms");
    !name.is_empty()
        && name != "."
        && name != ".."
        && !reserved_here
        && encode(name) == name
        && name.encode_utf16().count() <= NAME_MAX_UTF16
}

/// Encodes a local name for the service. Names that the service takes come out unchanged, except
/// those that hold a character this encoding itself uses.
#[must_use]
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let last = name.chars().count().saturating_sub(1);
    for (index, c) in name.chars().enumerate() {
        encode_char(c, index == 0, index == last, &mut out);
    }
    break_reserved(out)
}

/// Appends one character in encoded form.
fn encode_char(c: char, first: bool, last: bool, out: &mut String) {
    match c {
        ' ' if first || last => out.push(SYMBOL_SPACE),
        '~' if first => out.push(FULL_TILDE),
        '.' if last => out.push(FULL_STOP),
        SYMBOL_SPACE if first || last => out.extend([QUOTE, c]),
        FULL_TILDE if first => out.extend([QUOTE, c]),
        FULL_STOP if last => out.extend([QUOTE, c]),
        '\u{3000}' if first => out.extend([QUOTE, c]),
        QUOTE => out.extend([QUOTE, c]),
        '\u{7F}' => out.push(SYMBOL_DEL),
        SYMBOL_DEL => out.extend([QUOTE, c]),
        '\0'..='\u{1F}' => out.extend(char::from_u32(SYMBOLS + u32::from(c))),
        '\u{2401}'..='\u{241F}' => out.extend([QUOTE, c]),
        '\u{80}'..='\u{9F}' => encode_c1(c, out),
        '/' => out.extend(full_width(c)),
        _ if FORBIDDEN.contains(&c) => out.extend(full_width(c)),
        _ if is_full_width_twin(c) => out.extend([QUOTE, c]),
        _ => out.push(c),
    }
}

/// A C1 control has no symbol: it becomes the quote and its two digits in full width.
fn encode_c1(c: char, out: &mut String) {
    out.push(QUOTE);
    for digit in format!("{:02X}", u32::from(c)).chars() {
        out.extend(full_width(digit));
    }
}

/// The full-width twin of a printable ASCII character.
fn full_width(c: char) -> Option<char> {
    char::from_u32(u32::from(c) + FULL_WIDTH)
}

/// The ASCII character of a full-width twin.
fn half_width(c: char) -> Option<char> {
    u32::from(c)
        .checked_sub(FULL_WIDTH)
        .and_then(char::from_u32)
        .filter(char::is_ascii)
}

/// Tells whether the character is the full-width twin of a forbidden one. A slash is in no name, nor
/// is a NUL, so that their twins mean themselves.
fn is_full_width_twin(c: char) -> bool {
    half_width(c).is_some_and(|ascii| FORBIDDEN.contains(&ascii))
}

/// Puts a lone quote into names that the service reserves, so that they are ordinary ones.
fn break_reserved(name: String) -> String {
    let mut name = name;
    let stem_len = name.find('.').unwrap_or(name.len());
    if is_device(&name[..stem_len]) {
        name.insert(stem_len, QUOTE);
    } else if name.eq_ignore_ascii_case(".lock") || name.eq_ignore_ascii_case("desktop.ini") {
        name.push(QUOTE);
    }
    while let Some(at) = find_ignore_case(&name, "_vti_") {
        name.insert(at + 1, QUOTE);
    }
    while let Some(at) = find_entity(&name) {
        name.insert(at + 1, QUOTE);
    }
    name
}

/// Tells whether a stem is a device name of Windows.
fn is_device(stem: &str) -> bool {
    let upper = stem.to_ascii_uppercase();
    let numbered = |prefix: &str| {
        upper
            .strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

/// Finds an ASCII needle without case; the position is in bytes.
fn find_ignore_case(text: &str, needle: &str) -> Option<usize> {
    text.as_bytes()
        .windows(needle.len())
        .position(|w| w.eq_ignore_ascii_case(needle.as_bytes()))
}

/// Finds a numeric character entity (`&#38;`), which the service would decode.
fn find_entity(text: &str) -> Option<usize> {
    text.match_indices("&#").map(|(at, _)| at).find(|&at| {
        let rest = &text[at + 2..];
        let digits = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        digits > 0 && rest.as_bytes().get(digits) == Some(&b';')
    })
}

/// Decodes a name of the service. Names that no encoding produced come out unchanged, so that
/// decoding and encoding again always gives the service's name or the name is shown as it is.
#[must_use]
pub fn decode(name: &str) -> String {
    if name.is_ascii() {
        // Everything that stands for something else is beyond ASCII.
        return name.to_owned();
    }
    let decoded = decode_unchecked(name);
    let usable = !matches!(decoded.as_str(), "" | "." | "..") && !decoded.contains(['/', '\0']);
    if usable && encode(&decoded) == name {
        decoded
    } else {
        name.to_owned()
    }
}

/// Undoes the encoding without asking whether it was one.
fn decode_unchecked(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let (text, used) = if c == QUOTE {
            decode_quoted(&chars[at + 1..])
        } else {
            (Some(decode_char(c, at == 0, at + 1 == chars.len())), 0)
        };
        out.extend(text);
        at += used + 1;
    }
    out
}

/// Decodes one unquoted character by its place in the name.
fn decode_char(c: char, first: bool, last: bool) -> char {
    match c {
        SYMBOL_SPACE if first || last => ' ',
        FULL_TILDE if first => '~',
        FULL_STOP if last => '.',
        SYMBOL_DEL => '\u{7F}',
        '\u{2401}'..='\u{241F}' => char::from_u32(u32::from(c) - SYMBOLS).unwrap_or(c),
        _ if is_full_width_twin(c) => half_width(c).unwrap_or(c),
        _ => c,
    }
}

/// Decodes what follows a quote: the character meant and how many were used.
fn decode_quoted(rest: &[char]) -> (Option<char>, usize) {
    let hex = |i: usize| {
        rest.get(i)
            .copied()
            .and_then(half_width)
            .and_then(|d| d.to_digit(16))
    };
    if let (Some(high), Some(low)) = (hex(0), hex(1)) {
        return (char::from_u32(high * 16 + low), 2);
    }
    match rest.first() {
        Some(&c)
            if c == QUOTE
                || matches!(
                    c,
                    SYMBOL_SPACE | FULL_TILDE | FULL_STOP | SYMBOL_DEL | '\u{3000}'
                )
                || ('\u{2401}'..='\u{241F}').contains(&c)
                || is_full_width_twin(c) =>
        {
            (Some(c), 1)
        }
        // A lone quote only broke up a reserved word.
        _ => (None, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_are_sent_as_they_are() {
        for name in [
            "report.txt",
            "naïve café.txt",
            "日本語.txt",
            "🚀 launch.md",
            "100% done.txt",
            "C# notes.txt",
            "a+b=c.txt",
            "it's mine.txt",
            ".hidden",
            "trailing~",
            "COM10",
            "console.log",
            "vti_cnf",
            "AT&T.txt",
            "my.lock",
        ] {
            assert_eq!(encode(name), name);
            assert_eq!(decode(name), name);
        }
    }

    #[test]
    fn refused_names_become_their_full_width_twins() {
        for (local, remote) in [
            ("a:b", "a：b"),
            ("what?", "what？"),
            (" x ", "␠x␠"),
            ("end.", "end．"),
            ("~draft", "～draft"),
            ("a\nb", "a␊b"),
            ("a：b", "a‛：b"),
            ("it‛s", "it‛‛s"),
            ("CON.txt", "CON‛.txt"),
            (".lock", ".lock‛"),
            ("a_vti_b", "a_‛vti_b"),
            ("AT&#38;T", "AT&‛#38;T"),
            ("c1\u{85}", "c1‛８５"),
        ] {
            assert_eq!(encode(local), remote, "{local:?}");
            assert_eq!(decode(remote), local, "{remote:?}");
        }
    }

    #[test]
    fn hostile_names_cannot_become_paths() {
        for name in ["．", "．．", "a／b", "‛", "␀"] {
            let shown = decode(name);
            assert!(
                !shown.contains(['/', '\0']) && !matches!(shown.as_str(), "" | "." | ".."),
                "{name:?} → {shown:?}"
            );
        }
    }

    #[test]
    fn names_compare_as_the_service_does() {
        assert_eq!(NameKey::of("README"), NameKey::of("readme"));
        assert_eq!(NameKey::of("e\u{301}te\u{301}"), NameKey::of("ÉTÉ"));
        assert_ne!(NameKey::of("İ"), NameKey::of("i"));
    }

    fn any_local_name() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec![
            ' ', '.', '~', '$', ':', '：', '‛', '␠', '．', '～', '␀', '\n', '\u{7f}', '␡',
            '\u{85}', '８', '_', 'v', 't', 'i', 'C', 'O', 'N', '1', '&', '#', ';', '?', '？',
            '\u{3000}',
        ]);
        prop::collection::vec(prop_oneof![special, any::<char>()], 1..12)
            .prop_map(|chars| chars.into_iter().collect::<String>())
            .prop_filter("a file name", |n| {
                !n.contains(['/', '\0']) && n != "." && n != ".."
            })
    }

    proptest! {
        #[test]
        fn encoding_is_reversible(name in any_local_name()) {
            prop_assert_eq!(decode(&encode(&name)), name);
        }

        #[test]
        fn encoded_names_hold_nothing_forbidden(name in any_local_name()) {
            let sent = encode(&name);
            prop_assert!(!sent.contains(FORBIDDEN) && !sent.chars().any(char::is_control));
            prop_assert!(!sent.ends_with(['.', ' ']) && !sent.starts_with([' ', '~']));
        }

        #[test]
        fn folding_is_idempotent(name in any_local_name()) {
            let key = NameKey::of(&name);
            prop_assert_eq!(NameKey::of(key.as_str()), key);
        }
    }
}
