//! Names of bodies, where they lie and which of their bytes are there.

use std::fmt;

use rangemap::RangeSet;

/// Identifies a body for the life of the state. Allocated by the caller, never reused: new content
/// from the service is a new body, so that open handles keep the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyId(pub u64);

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which of the two folders a body lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The service has these bytes too; losing them costs a download.
    Cache,
    /// The only copy of these bytes.
    Spool,
}

impl Place {
    /// The other folder.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Cache => Self::Spool,
            Self::Spool => Self::Cache,
        }
    }
}

/// Which bytes of a body are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of them.
    Complete,
    /// These ranges, which lie inside the body's size.
    Ranges(RangeSet<u64>),
}

impl Presence {
    /// What is present of a body that is not complete; `None` for one that is.
    #[must_use]
    pub fn into_ranges(self) -> Option<RangeSet<u64>> {
        match self {
            Self::Complete => None,
            Self::Ranges(ranges) => Some(ranges),
        }
    }
}

impl Presence {
    /// Nothing is here.
    #[must_use]
    pub fn empty() -> Self {
        Self::Ranges(RangeSet::new())
    }
}
