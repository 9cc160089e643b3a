//! What went wrong, told to a person: what was being done, why it failed and what to do next.
//!
//! Every command ends in one of three ways: 0, done; 1, it failed; 2, the command line or the
//! configuration must be changed first.

use std::fmt;

use crate::output::printable;

/// Exit code of a command that was understood and failed.
const EXIT_FAILED: u8 = 1;

/// Exit code of a command that cannot work until its arguments or the configuration are changed.
const EXIT_USAGE: u8 = 2;

/// The result of everything that can fail in front of a person.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// An error with its reason and its remedy.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: anyhow::Error,
    next: Option<String>,
    code: u8,
}

impl Failure {
    /// Something that was tried and failed, with the error that says why.
    pub(crate) fn because(what: impl Into<String>, why: impl Into<anyhow::Error>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            next: None,
            code: EXIT_FAILED,
        }
    }

    /// Something that failed for a reason that needs no further source.
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::because(what, anyhow::anyhow!("{why}"))
    }

    /// Something in the arguments or the configuration that must be changed first.
    pub(crate) fn usage(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self {
            code: EXIT_USAGE,
            ..Self::new(what, why)
        }
    }

    /// Adds what to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The exit code of the process.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The remedy, if one is known.
    pub(crate) fn remedy(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// What failed and why, in one line.
    pub(crate) fn sentence(&self) -> String {
        printable(&format!("{}: {}", self.what, self.reason()))
    }

    /// The chain of reasons, without repeating a source that its error already quotes.
    pub(crate) fn reason(&self) -> String {
        let mut text = String::new();
        for cause in self.why.chain() {
            let cause = cause.to_string();
            if text.contains(&cause) {
                continue;
            }
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "onedrivefs: {}", self.sentence())?;
        if let Some(next) = &self.next {
            write!(f, "\nnext: {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Turns any error into a [`Failure`] by saying what was being done.
pub(crate) trait Explain<T> {
    /// Says what was being done.
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> Explain<T> for Result<T, E> {
    fn explain(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::because(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_why_and_next() {
        let failure = Failure::usage("mount", "/x is not empty").next("choose another directory");
        assert_eq!(
            failure.to_string(),
            "onedrivefs: mount: /x is not empty\nnext: choose another directory"
        );
        assert_eq!(failure.code(), EXIT_USAGE);
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        let failure = Failure::new("drive", "named \u{1b}[2Jx");
        assert!(!failure.to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_source_that_is_quoted_already_is_not_repeated() {
        let source = std::io::Error::other("no space left");
        let error = anyhow::Error::new(source).context("writing: no space left");
        assert_eq!(
            Failure::because("x", error).reason(),
            "writing: no space left"
        );
    }
}
