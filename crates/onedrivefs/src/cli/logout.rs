//! `onedrivefs logout`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use onedrivefs_store::Store;

use super::{LogoutArgs, daemons};
use crate::account::{self, SignInKind};
use crate::config::Layer;
use crate::control::registry;
use crate::failure::{Explain, Failure, Outcome};
use crate::output;
use crate::paths::{AccountName, Dirs, unreadable};

/// Removes the tokens of an account, and with `--forget` everything else about it.
pub(crate) async fn run(args: &LogoutArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let (name, mut record) = account::choose(&dirs, &config, args.account.account.as_ref())?;
    if args.forget {
        check_forgettable(&dirs, &name)?;
    }
    record.secrets(&dirs, &name).clear()?;
    if !args.forget {
        if record.sign_in == SignInKind::App {
            record.signed_out = true;
        }
        record.secret_kept = false;
        record.passphrase_kept = false;
        record.save(&dirs, &name)?;
        daemons::announce_credentials(&dirs, &name).await?;
        return output::line(format!(
            "Signed out of {name}. Changes not sent yet are kept and go out after the next login."
        ));
    }
    for dir in [dirs.account_cache(&name), dirs.account(&name)] {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("removing {}", dir.display()))?;
            }
            _ => {}
        }
    }
    output::line(format!(
        "Signed out of {name}; nothing about it is left on this machine."
    ))
}

/// Refuses while a mount runs or changes wait that exist nowhere else.
fn check_forgettable(dirs: &Dirs, name: &AccountName) -> Outcome {
    let what = format!("forgetting {name}");
    if let Some(daemon) = registry::list(dirs)?
        .iter()
        .find(|daemon| daemon.account == *name)
    {
        let mountpoint = daemon.mountpoint.display();
        return Err(Failure::new(what, format!("it is mounted at {mountpoint}"))
            .next(format!("run `onedrivefs unmount {mountpoint}` first")));
    }
    for drive in subdirectories(&dirs.account(name))? {
        if holds_unsent(&drive)? {
            let drive = drive.display();
            return Err(
                Failure::new(what, format!("{drive} holds changes that are nowhere else")).next(
                    format!(
                        "mount once more and run `onedrivefs sync`; to give them up, remove {drive}"
                    ),
                ),
            );
        }
    }
    Ok(())
}

/// Whether a drive's state has changes that wait to be sent, or bodies of files that never are.
fn holds_unsent(drive: &Path) -> Outcome<bool> {
    if holds_file(&drive.join("spool"))? {
        return Ok(true);
    }
    let database = drive.join("meta.db");
    if !database.exists() {
        return Ok(false);
    }
    let waiting = Store::open(&database).and_then(|store| store.read(|reader| reader.pending()));
    let (ops, _) = waiting.explain(|| format!("reading {}", database.display()))?;
    Ok(ops > 0)
}

/// Whether a directory has a file, at whatever depth.
fn holds_file(dir: &Path) -> Outcome<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| unreadable(dir, error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        if !path.is_dir() || holds_file(&path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn subdirectories(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| unreadable(dir, error))?;
    Ok(entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_is_not_forgotten() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dirs = Dirs::below(root.path(), root.path().join("run"));
        let name = AccountName::default();
        let spool = dirs.account(&name).join("b!x/spool/01");
        fs::create_dir_all(&spool).expect("spool");
        check_forgettable(&dirs, &name).expect("empty spool");
        fs::write(spool.join("body"), b"precious").expect("body");
        let refused = check_forgettable(&dirs, &name).expect_err("refused");
        assert!(refused.to_string().contains("nowhere else"), "{refused}");
    }
}
