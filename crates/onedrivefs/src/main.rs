//! The `onedrivefs` command: what people and systemd see of the file system.
//!
//! Everything below reports errors in its own terms; here they become a sentence, a next step and
//! an exit code. This is the only crate that prints, reads the environment or knows where the home
//! directory is.

mod account;
mod all;
mod cli;
mod config;
mod connect;
mod control;
mod credentials;
mod daemon;
mod desktop;
mod doctor;
mod failure;
mod folders;
mod guard;
mod handler;
mod keyring;
#[cfg(debug_assertions)]
mod kill;
mod logging;
mod memory;
mod output;
mod paths;
mod places;
mod report;
mod root;
mod secrets;
mod sign_in;
mod size;
mod sleep;
mod status;
mod together;
mod tree;
mod unit;
mod unmounting;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    memory::limit();
    logging::abort_on_panic();
    #[cfg(debug_assertions)]
    kill::install();
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
