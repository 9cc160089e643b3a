//! Names that never leave this machine: lock files, editor swap files, unfinished downloads.
//!
//! Such files live in the mount like any other, and are uploaded only once they are renamed to an
//! ordinary name.

/// The patterns in force unless the configuration gives others. `*` stands for any characters.
pub const DEFAULT_PATTERNS: &[&str] = &[
    ".~lock.*#",
    "~$*",
    "*.swp",
    "*.swo",
    "*.swx",
    "*.swpx",
    "4913",
    ".goutputstream-*",
    ".Trash-*",
    "*.part",
    "*.partial",
    "*.crdownload",
    ".nfs*",
    ".fuse_hidden*",
    ".#*",
    "#*#",
    ".directory.lock",
];

/// The set of patterns for names that are never uploaded.
#[derive(Clone, Debug)]
pub struct LocalOnly {
    patterns: Vec<String>,
}

impl LocalOnly {
    /// Uses these patterns instead of the default ones.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> Self {
        Self { patterns }
    }

    /// Tells whether a file of this name stays on this machine.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| glob_matches(pattern, name))
    }
}

impl Default for LocalOnly {
    fn default() -> Self {
        Self::new(DEFAULT_PATTERNS.iter().map(|&p| p.to_owned()).collect())
    }
}

/// Matches a pattern in which `*` stands for any characters, comparing ASCII without case.
fn glob_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to resume when the text after the last `*` stops matching.
    let mut resume: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            resume = Some((p + 1, n));
            p += 1;
        } else if pattern
            .get(p)
            .is_some_and(|c| c.eq_ignore_ascii_case(&name[n]))
        {
            p += 1;
            n += 1;
        } else if let Some((after_star, from)) = resume {
            resume = Some((after_star, from + 1));
            p = after_star;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_and_swap_files_stay_here() {
        let names = LocalOnly::default();
        for name in [
            ".~lock.thesis.odt#",
            "~$budget.xlsx",
            ".notes.txt.swp",
            ".goutputstream-X1Y2",
            "film.mkv.part",
            "4913",
        ] {
            assert!(names.matches(name), "{name}");
        }
        for name in [
            "thesis.odt",
            "swp",
            "part",
            "notes.txt~",
            "x.particle",
            "49130",
        ] {
            assert!(!names.matches(name), "{name}");
        }
    }
}
