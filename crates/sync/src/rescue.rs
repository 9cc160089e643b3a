//! What happens to unsent content whose rows are lost, because the database was damaged, missing,
//! or not as new as the files.
//!
//! The damaged files and the spool are set aside in a directory of their own, a new database takes
//! their place, and the drive is listed anew. Then every unsent body is taken in as a new file, in a
//! new folder at the top of the mount, under the name and the folders that the damaged database
//! still tells. It is uploaded from there like anything else: nothing on the service is overwritten
//! by content whose base is not known any more, and nothing is lost. A body of which parts were
//! never on this machine is kept there, too, with a note of the parts that are; it stays on this
//! machine, for only a person can put the two together.
//!
//! Deletions and renames that had not been sent are forgotten: what the service has counts.
//!
//! Each step can be interrupted. A directory with nothing in it, not even a mark, is removed; one
//! with the mark [`MOVING`] is moved into on; one without [`README`] is taken in, in one transaction
//! that also notes that it was; what remains then is to remove the second names of the bodies, and to
//! forget the note.

mod adopt;
mod aside;

use std::path::{Path, PathBuf};

use onedrivefs_content::StoredBody;
use onedrivefs_core::kill_point;
use onedrivefs_store::Store;

use crate::bodies::Bodies;
use crate::config::EngineConfig;
use crate::error::EngineError;
use aside::Aside;

/// What a person is told about a rescue.
#[derive(Clone, Debug)]
pub struct Rescue {
    /// Where the damaged files are kept.
    pub kept: PathBuf,
    /// Whether it was the database that could not be used any more.
    pub database: bool,
    /// What was wrong.
    pub reason: String,
    /// The folder at the top of the mount that has the unsent content; `None` when there was none.
    pub folder: Option<String>,
    /// Files that were taken in.
    pub files: usize,
    /// Files among them of which only parts are on this machine.
    pub partial: usize,
    /// Why the content could not be taken in yet. It is tried again at the next start.
    pub failed: Option<String>,
}

/// Sets the database and the spool aside, for they cannot be trusted or do not belong together.
///
/// # Errors
/// Errors of the disk. Nothing is lost; it goes on at the next start.
pub(crate) fn set_state_aside(state_dir: &Path, reason: &str) -> Result<(), EngineError> {
    let aside = Aside::begin_damaged(state_dir, reason)?;
    tracing::error!(kept = %aside.dir().display(), reason, "The metadata database is set aside and built anew.");
    aside.move_state(state_dir)
}

/// Goes on with what an earlier start was interrupted in.
///
/// # Errors
/// As [`set_state_aside`].
pub(crate) fn finish_setting_aside(state_dir: &Path) -> Result<(), EngineError> {
    for aside in Aside::list(state_dir)? {
        if aside.is_moving() {
            aside.move_state(state_dir)?;
        } else {
            aside.remove_unused();
        }
    }
    Ok(())
}

/// Sets bodies aside that the database does not know.
///
/// # Errors
/// Errors of the disk; what was moved is taken in all the same.
pub(crate) fn set_strays_aside(
    state_dir: &Path,
    content: &onedrivefs_content::Content,
    strays: &[StoredBody],
) -> Result<(), EngineError> {
    let aside = Aside::begin_strays(state_dir)?;
    tracing::warn!(
        count = strays.len(),
        "The spool holds content that the database does not know."
    );
    for stray in strays {
        content.move_out(stray.id, &aside.spool_path(stray.id)?)?;
        kill_point("stray-set-aside");
    }
    Ok(())
}

/// Takes in what was set aside, and tells what there was. Failures are told, too: the mount works
/// without it, and the next start tries again.
pub(crate) fn take_in_all(config: &EngineConfig, store: &Store, bodies: &Bodies) -> Vec<Rescue> {
    let asides = match Aside::list(&config.state_dir) {
        Ok(asides) => asides,
        Err(error) => {
            tracing::error!(%error, "It cannot be told whether content was set aside.");
            return Vec::new();
        }
    };
    let mut rescues = Vec::new();
    for aside in asides.iter().filter(|aside| !aside.is_done()) {
        let rescue = match adopt::take_in(config, store, bodies, aside) {
            Ok(rescue) => rescue,
            Err(error) => {
                tracing::error!(kept = %aside.dir().display(), %error, "Content that was set aside could not be taken in yet.");
                Rescue {
                    kept: aside.dir().to_owned(),
                    database: aside.is_of_database(),
                    reason: aside.reason(),
                    folder: None,
                    files: 0,
                    partial: 0,
                    failed: Some(error.to_string()),
                }
            }
        };
        rescues.push(rescue);
    }
    rescues
}

/// Tells whether the spool of a state directory holds anything.
pub(crate) fn has_spool(state_dir: &Path) -> bool {
    !aside::bodies_below(&state_dir.join(aside::SPOOL)).is_empty()
}

#[cfg(test)]
mod tests {
    use onedrivefs_content::{Content, Place};
    use onedrivefs_core::{DriveId, DriveKind, Ino};

    use super::*;
    use crate::DriveIdentity;

    /// The clock was set back, or all of it happens within a second.
    #[test]
    fn content_is_taken_in_although_a_directory_of_that_name_was_taken_in_before() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
        let bodies = Bodies::new(Content::open(&spool, &cache).expect("folders"));
        let config = EngineConfig::new(
            dir.path().to_owned(),
            cache,
            DriveIdentity {
                id: DriveId::new("drive"),
                kind: DriveKind::Personal,
                name: String::new(),
            },
        );
        for kind in ["spool.unknown-", "meta.db.damaged-"] {
            let aside = dir.path().join(format!("{kind}2026-02-03-040506"));
            for body in ["first", "second"] {
                let below = aside.join("spool/00");
                std::fs::create_dir_all(&below).expect("directory");
                std::fs::write(below.join(format!("{:016x}", 0xff)), body).expect("body");
                let rescues = take_in_all(&config, &store, &bodies);
                assert_eq!(rescues.len(), 1);
                assert_eq!((&rescues[0].failed, rescues[0].files), (&None, 1), "{body}");
                // Somebody deletes what is not used any more.
                drop(std::fs::remove_dir_all(&aside));
            }
        }
        let made = store.read(|r| r.children(Ino::ROOT)).expect("listing");
        assert_eq!(made.len(), 4);
        assert_eq!(bodies.content().list(Place::Spool).expect("list").len(), 4);
    }
}
