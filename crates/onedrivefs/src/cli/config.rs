//! `onedrivefs config`.

use super::{ConfigAction, ConfigArgs};
use crate::config::Layer;
use crate::failure::Outcome;
use crate::output;
use crate::paths::{Dirs, write_private};

/// What a new file holds: everything commented out, so that it says nothing by itself.
const TEMPLATE: &str = include_str!("config.toml");

/// Makes the configuration if there is none, or says where it is.
pub(crate) fn run(args: &ConfigArgs) -> Outcome {
    let file = Dirs::from_env()?.config_file;
    match args.action {
        ConfigAction::Path => output::line(file.display().to_string()),
        ConfigAction::Init if file.exists() => {
            // What is there is left alone, and looked at.
            Layer::from_file(&file)?;
            output::line(format!("{} is there already, and fine.", file.display()))
        }
        ConfigAction::Init => {
            write_private(&file, TEMPLATE.as_bytes())?;
            output::line(format!(
                "{} was made; all in it is commented out.",
                file.display()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap_13_a_new_configuration_says_nothing_and_shows_what_could_be_said() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("config.toml");
        write_private(&path, TEMPLATE.as_bytes()).expect("written");
        let layer = Layer::from_file(&path).expect("read");
        assert!(layer.mounts.is_empty() && layer.accounts.is_empty());
        let said = TEMPLATE.lines().filter(|line| !line.starts_with("##"));
        let said: Vec<&str> = said.map(|line| line.trim_start_matches("# ")).collect();
        write_private(&path, said.join("\n").as_bytes()).expect("written");
        let layer = Layer::from_file(&path).expect("read without the comments");
        assert_eq!((layer.mounts.len(), layer.accounts.len()), (2, 1));
    }
}
