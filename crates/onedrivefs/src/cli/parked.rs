//! `onedrivefs retry`, `export` and `discard`: changes that could not be sent.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::PathsArgs;
use super::daemons;
use crate::control::{Request, client};
use crate::failure::{Explain, Failure, Outcome};
use crate::output;
use crate::status::counted;

/// Most numbers tried to find a free name for an exported file.
const NAMES_MAX: u32 = 10_000;

/// Tries changes again.
pub(crate) async fn retry(args: &PathsArgs) -> Outcome {
    for path in &args.paths {
        let (daemon, inside) = daemons::find(Some(path))?;
        let request = Request::Retry {
            path: inside.unwrap_or_default(),
        };
        let count = client::converse(&daemon, &request, |_| {}).await?;
        let count = counted(count.as_u64().unwrap_or_default(), "change");
        output::line(format!("{}: {count} to be sent", path.display()))?;
    }
    Ok(())
}

/// Copies the local bodies into the current directory.
pub(crate) async fn export(args: &PathsArgs) -> Outcome {
    let here = std::env::current_dir().explain(|| "finding the current directory".to_owned())?;
    for path in &args.paths {
        let (daemon, inside) = daemons::find(Some(path))?;
        if here.starts_with(&daemon.mountpoint) {
            return Err(
                Failure::usage("export", "the current directory is in the mount itself")
                    .next("go to another directory first, for example `cd ~`"),
            );
        }
        let to = free_name(&here, path)?;
        let request = Request::Export {
            path: inside.unwrap_or_default(),
            to: to.to_str().map(str::to_owned).ok_or_else(|| {
                Failure::new(to.display().to_string(), "is not valid UTF-8")
                    .next("go to another directory first")
            })?,
        };
        client::converse(&daemon, &request, |_| {}).await?;
        output::line(format!("{} -> {}", path.display(), to.display()))?;
    }
    Ok(())
}

/// Gives changes up, after asking a person who is there to be asked.
pub(crate) async fn discard(args: &PathsArgs) -> Outcome {
    if io::stdin().is_terminal() && !confirmed(&args.paths)? {
        return Err(Failure::new("discard", "nothing was given up"));
    }
    for path in &args.paths {
        let (daemon, inside) = daemons::find(Some(path))?;
        let request = Request::Discard {
            path: inside.unwrap_or_default(),
        };
        let count = client::converse(&daemon, &request, |_| {}).await?;
        let count = counted(count.as_u64().unwrap_or_default(), "change");
        output::line(format!("{}: {count} given up", path.display()))?;
    }
    Ok(())
}

fn confirmed(paths: &[PathBuf]) -> Outcome<bool> {
    let what = || "asking".to_owned();
    let mut err = io::stderr();
    for path in paths {
        writeln!(err, "  {}", path.display()).explain(what)?;
    }
    write!(err, "Give up the local changes to these for good? [y/N] ").explain(what)?;
    err.flush().explain(what)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).explain(what)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A name in the directory that nothing has yet.
fn free_name(dir: &Path, path: &Path) -> Outcome<PathBuf> {
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name.as_ref(), String::new()),
    };
    (1..=NAMES_MAX)
        .map(|number| match number {
            1 => dir.join(name.as_ref()),
            _ => dir.join(format!("{stem} ({number}){extension}")),
        })
        .find(|candidate| candidate.symlink_metadata().is_err())
        .ok_or_else(|| {
            Failure::new(format!("exporting {name}"), "every name for it is taken")
                .next("go to another directory first")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_overwrites_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let name = |path: &str| {
            let free = free_name(dir.path(), Path::new(path)).expect("free");
            free.file_name()
                .and_then(|n| n.to_str())
                .map(str::to_owned)
                .expect("name")
        };
        assert_eq!(name("/m/a.tar.gz"), "a.tar.gz");
        for taken in ["a.tar.gz", ".profile", "plain"] {
            std::fs::write(dir.path().join(taken), b"").expect("written");
        }
        assert_eq!(name("/m/a.tar.gz"), "a.tar (2).gz");
        assert_eq!(name("/m/.profile"), ".profile (2)");
        assert_eq!(name("/m/plain"), "plain (2)");
    }
}
