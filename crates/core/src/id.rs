//! Identifiers: local inode numbers and the opaque strings of the service.
//!
//! The service spells personal drive ids inconsistently (letter case, a lost leading zero), also
//! inside item ids. Equality, hashing and ordering here use the normalised form, while
//! [`DriveId::as_str`] and [`ItemId::as_str`] keep a spelling that can be sent back.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// Number of hexadecimal digits of a personal drive id; shorter ones lost leading zeros.
const PERSONAL_DRIVE_ID_DIGITS: usize = 16;

/// A local inode number: stable for the life of the state, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of a mount; FUSE fixes this number.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells whether `id` has the shape of a personal drive id: up to sixteen hexadecimal digits.
fn is_personal_drive_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= PERSONAL_DRIVE_ID_DIGITS
        && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Pads a personal drive id with the leading zeros the service sometimes drops.
fn pad_personal(id: &str) -> String {
    format!("{id:0>PERSONAL_DRIVE_ID_DIGITS$}")
}

/// Identifies a drive. Personal ids compare without case and with their leading zeros restored.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct DriveId(String);

impl DriveId {
    /// Wraps an id as the service sent it, restoring the leading zeros of a personal one.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        if is_personal_drive_id(&id) && id.len() < PERSONAL_DRIVE_ID_DIGITS {
            return Self(pad_personal(&id));
        }
        Self(id)
    }

    /// The spelling to put into requests.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normalised form: equal for two spellings of one drive.
    #[must_use]
    pub fn key(&self) -> String {
        if is_personal_drive_id(&self.0) {
            self.0.to_ascii_lowercase()
        } else {
            self.0.clone()
        }
    }
}

/// Identifies an item inside its drive. The drive part of a personal id compares without case.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ItemId(String);

impl ItemId {
    /// Wraps an id as the service sent it.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The spelling to put into requests.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The normalised form: equal for two spellings of one item.
    #[must_use]
    pub fn key(&self) -> String {
        match self.0.split_once('!') {
            Some((drive, rest)) if is_personal_drive_id(drive) => {
                format!("{}!{rest}", pad_personal(drive).to_ascii_lowercase())
            }
            _ => self.0.clone(),
        }
    }
}

/// Implements comparison by normalised key, and the conversions serde needs.
macro_rules! keyed_id {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0 || self.key() == other.key()
            }
        }
        impl Eq for $name {}
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.key().hash(state);
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.key().cmp(&other.key())
            }
        }
        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self::new(id)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
keyed_id!(DriveId);
keyed_id!(ItemId);

/// Declares an opaque tag that is only compared for equality and sent back verbatim.
macro_rules! tag {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the tag with its quotes, as the service sent it.
            #[must_use]
            pub fn new(tag: impl Into<String>) -> Self {
                Self(tag.into())
            }

            /// The tag as sent, quotes included.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}
tag!(
    /// Changes with any change of an item, metadata or content.
    ETag
);
tag!(
    /// Changes with the content of an item only; absent in some answers.
    CTag
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_drive_ids_compare_without_case_and_leading_zero() {
        assert_eq!(
            DriveId::new("AB12CD34EF56789"),
            DriveId::new("0ab12cd34ef56789")
        );
        assert_ne!(DriveId::new("b!AbC"), DriveId::new("b!abc"));
        assert_eq!(DriveId::new("AB12CD34EF56789").as_str(), "0AB12CD34EF56789");
    }

    #[test]
    fn item_ids_fold_only_their_drive_part() {
        assert_eq!(
            ItemId::new("AB12CD34EF56789!sAbC"),
            ItemId::new("0ab12cd34ef56789!sAbC")
        );
        assert_ne!(
            ItemId::new("0ab12cd34ef56789!sABC"),
            ItemId::new("0ab12cd34ef56789!sabc")
        );
        assert_ne!(ItemId::new("01ABC"), ItemId::new("01abc"));
    }
}
