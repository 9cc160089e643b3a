//! Writing to the terminal without falling over closed pipes or hostile names.

use std::io::{self, IsTerminal, Write};
use std::process;

use serde::Serialize;

use crate::failure::{Explain, Outcome};

/// Prints one line; a reader that went away ends the process quietly, as it ends any filter.
pub(crate) fn line(text: impl AsRef<str>) -> Outcome {
    write_out(&format!("{}\n", text.as_ref()))
}

/// Prints text as it is.
pub(crate) fn raw(text: &str) -> Outcome {
    write_out(text)
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).explain(|| "printing JSON".to_owned())?;
    line(text)
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(value).explain(|| "printing JSON".to_owned())?;
    line(text)
}

fn write_out(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
        other => other.explain(|| "writing to standard output".to_owned()),
    }
}

/// Tells a person something that is not the command's result; nobody may be listening.
pub(crate) fn note(text: impl AsRef<str>) {
    // Nothing is left to tell that standard error is closed.
    drop(writeln!(io::stderr(), "{}", text.as_ref()));
}

/// Tells whether results are read by a person.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Replaces control and direction-changing characters, which names may contain and terminals obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                '\u{fffd}'
            }
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Sets rows in columns, with a heading.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .chain([heading[column].len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_a_terminal_would_obey() {
        assert_eq!(
            printable("a\u{1b}[31mb\nc\u{202e}d"),
            "a\u{fffd}[31mb c\u{fffd}d"
        );
        assert_eq!(printable("Übersicht 2026.txt"), "Übersicht 2026.txt");
    }

    #[test]
    fn columns_line_up() {
        let text = table(&["NAME", "KIND"], &[vec!["documents".into(), "x".into()]]);
        assert_eq!(text, "NAME       KIND\ndocuments  x\n");
    }
}
