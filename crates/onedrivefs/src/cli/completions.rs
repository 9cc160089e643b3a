//! `onedrivefs completions` and the manual pages: both come from the definitions of the commands.

use std::io;

use clap::CommandFactory;

use super::{Cli, CompletionsArgs, ManArgs};
use crate::failure::{Explain, Outcome};
use crate::output;

/// Prints the completion script of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "onedrivefs", &mut script);
    output::raw(&String::from_utf8_lossy(&script))
}

/// Writes one manual page per command.
pub(crate) fn man(args: &ManArgs) -> Outcome {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(&args.dir)?;
        clap_mangen::generate_to(Cli::command(), &args.dir)
    };
    write().explain(|| format!("writing manual pages to {}", args.dir.display()))
}
