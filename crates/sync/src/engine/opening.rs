//! The state of a drive: its directories, its lock, its database and its bodies.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use onedrivefs_content::Content;
use onedrivefs_core::kill_point;
use onedrivefs_store::Store;

use crate::bodies::Bodies;
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::reserve::Reserve;
use crate::{recover, rescue};

/// Folders that may have been made for the state of a drive: its own, the account's, the program's,
/// and the one that those are in.
const STATE_DEPTH: usize = 4;

/// As [`open_state`], with the help of the reserve where there is no room.
pub(super) fn open_state_in_any_room(
    config: &EngineConfig,
) -> Result<(Arc<Store>, Arc<Bodies>), EngineError> {
    match open_state(config) {
        Err(error) if error.is_local_disk() && Reserve::give_up_early(&config.state_dir) => {
            open_state(config)
        }
        opened => opened,
    }
}

/// Opens database and bodies, and makes them agree. A database that cannot be used is set aside,
/// with the spool that it does not explain any more, and a new one takes its place.
fn open_state(config: &EngineConfig) -> Result<(Arc<Store>, Arc<Bodies>), EngineError> {
    rescue::finish_setting_aside(&config.state_dir)?;
    match try_open_state(config) {
        Err(EngineError::Store(error)) if error.is_damage() => {
            rescue::set_state_aside(&config.state_dir, &error.to_string())?;
            try_open_state(config)
        }
        other => other,
    }
}

fn try_open_state(config: &EngineConfig) -> Result<(Arc<Store>, Arc<Bodies>), EngineError> {
    let database = config.state_dir.join("meta.db");
    let store = if rescue::has_spool(&config.state_dir) {
        Store::open_existing(&database)?
    } else {
        Store::open(&database)?
    };
    kill_point("database-open");
    let content = Content::open(
        &config.state_dir.join("spool"),
        &config.cache_dir.join("content"),
    )?;
    kill_point("content-open");
    let bodies = Bodies::new(content);
    recover::run(&store, &bodies, &config.state_dir)?;
    Ok((Arc::new(store), Arc::new(bodies)))
}

/// Creates a directory that only its owner can enter.
pub(super) fn make_private_dir(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| EngineError::State {
            path: path.to_owned(),
            source,
        })
}

/// Makes the names of a directory and of those above it survive a power cut. Which of them are new
/// is not known, and some may be somebody else's.
pub(super) fn sync_folders(path: &Path) {
    for folder in path.ancestors().take(STATE_DEPTH) {
        if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
            tracing::debug!(folder = %folder.display(), %error, "A folder could not be synced.");
        }
    }
}

/// Takes the lock of a state directory and writes this process into it.
pub(super) fn lock_state(state_dir: &Path) -> Result<File, EngineError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = state_dir.join("lock");
    let failed = |source| EngineError::State {
        path: path.clone(),
        source,
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            return Err(EngineError::AlreadyRunning {
                pid: text.trim().parse().unwrap_or(0),
            });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
