//! What is done once at start: making database and files agree after a daemon was killed.
//!
//! Nothing is guessed. The database says what was acknowledged, and bodies it knows as being written
//! are complete up to the last acknowledged write. Files it does not know are leftovers in the
//! content cache; in the spool they are, unless it says that they were to be removed, unsent content
//! whose row got lost, and are given back to their owner ([`rescue`](crate::rescue)).

use std::collections::HashSet;
use std::path::Path;

use onedrivefs_content::{Body, Place, StoredBody};
use onedrivefs_core::{Timestamp, kill_point};
use onedrivefs_store::{BodyRow, Item, Ops, Store, StoreError, Tx};

use crate::bodies::Bodies;
use crate::error::EngineError;
use crate::fold::Change;
use crate::{journal, power, rescue};

/// Repairs the state. Running it again changes nothing.
///
/// # Errors
/// Errors of the disk and the database.
pub fn run(store: &Store, bodies: &Bodies, state_dir: &Path) -> Result<(), EngineError> {
    kill_point("recovery-begun");
    let was_cut = power::was_cut(store)?;
    if was_cut {
        power::undo_uncertain(store, bodies, state_dir)?;
    }
    save_open_bodies(store, bodies)?;
    kill_point("open-bodies-saved");
    remove_orphans(store, bodies)?;
    kill_point("orphans-removed");
    remove_unknown(store, bodies, state_dir, was_cut)?;
    power::note_in_use(store);
    Ok(())
}

/// Bodies that were open for writing when the daemon was killed: every acknowledged write is in
/// the file, so that what the file holds now is what a local disk would hold.
fn save_open_bodies(store: &Store, bodies: &Bodies) -> Result<(), EngineError> {
    let now = Timestamp::now();
    for mut row in store.read(|r| r.dirty_bodies())? {
        let body = match bodies.open(&row) {
            Ok(Some(body)) => body,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(body = row.id, %error, "An unsent body could not be opened; it was left as it is.");
                continue;
            }
        };
        if let Err(error) = body.leave_to_others() {
            tracing::error!(body = row.id, %error, "A program may go on writing to an unsent body, through a mount whose daemon died.");
        }
        store.write(|tx| save_body(tx, &mut row, &body, now))?;
    }
    Ok(())
}

/// Records the body of a file that was open for writing.
fn save_body(
    tx: &Tx<'_>,
    row: &mut BodyRow,
    body: &Body,
    now: Timestamp,
) -> Result<(), EngineError> {
    let item = tx.item(row.ino)?;
    let Some(mut item) = item.filter(|item| item.body == Some(row.id)) else {
        Bodies::record_save(tx, row, body)?;
        return Ok(());
    };
    let was_saved_empty = row.generation > 0 && row.size == 0;
    if body.size() == 0 && !was_saved_empty && keep_last_save(tx, &mut item, row.previous)? {
        let path = tx.path(item.ino)?;
        tracing::warn!(
            path,
            "A file was emptied and never written; its last save was kept."
        );
        row.previous = None;
        tx.update_body(row)?;
        tx.delete_body(row.id)?;
        return Ok(tx.update_item(&item)?);
    }
    // The files of those that are not needed go with the others that nobody knows.
    Bodies::record_save(tx, row, body)?;
    item.size = row.size;
    item.mtime = now;
    tx.update_item(&item)?;
    if item.parent.is_some() {
        journal::record(tx, &item, Change::Saved, false, now)?;
    }
    Ok(())
}

/// A program had emptied a file to write it anew, and nothing came of it. Its last save, here or
/// on the service, stays: the alternative would replace a file by nothing. Tells whether there is
/// one.
fn keep_last_save(tx: &Tx<'_>, item: &mut Item, previous: Option<u64>) -> Result<bool, StoreError> {
    if let Some(saved) = previous.map(|id| tx.body(id)).transpose()?.flatten() {
        Bodies::give_back(tx, item, saved)?;
        return Ok(true);
    }
    let unsent = tx
        .journal(item.ino)?
        .is_some_and(|row| row.ops.has(Ops::CONTENT));
    match &item.remote {
        Some(remote) if remote.size > 0 && !unsent => {
            item.body = None;
            item.size = remote.size;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Items and bodies that nothing refers to, such as unlinked files that were still open, and files
/// without a row.
fn remove_orphans(store: &Store, bodies: &Bodies) -> Result<(), EngineError> {
    let unowned = store.write(|tx| {
        for item in tx.orphans()? {
            if tx
                .journal(item.ino)?
                .is_none_or(|row| !row.ops.has(Ops::DELETE))
            {
                tx.delete_item(item.ino)?;
            }
        }
        let unowned = tx.unowned_bodies()?;
        for row in &unowned {
            tx.delete_body(row.id)?;
        }
        Ok::<_, EngineError>(unowned)
    })?;
    bodies.remove_files(&unowned);
    // A row that a power cut could bring back must not find its file gone.
    store.sync()?;
    bodies.bury(store);
    kill_point("unowned-bodies-removed");
    Ok(())
}

/// Files without a row. After a power cut those in the spool are leftovers like any other: their
/// rows were in commits that are not there any more, and `fsync` acknowledged nothing of them.
fn remove_unknown(
    store: &Store,
    bodies: &Bodies,
    state_dir: &Path,
    was_cut: bool,
) -> Result<(), EngineError> {
    let content = bodies.content();
    let unknown = |place| -> Result<Vec<StoredBody>, EngineError> {
        let mut unknown = content.list(place)?;
        let known = store.read(|r| {
            let mut known = HashSet::new();
            for stored in &unknown {
                if r.body(stored.id.0)?.is_some() {
                    known.insert(stored.id);
                }
            }
            Ok::<_, StoreError>(known)
        })?;
        unknown.retain(|stored| !known.contains(&stored.id));
        Ok(unknown)
    };
    let removed: HashSet<u64> = store.read(|r| r.removed_bodies())?.into_iter().collect();
    let (leftovers, strays): (Vec<_>, Vec<_>) =
        unknown(Place::Spool)?.into_iter().partition(|stored| {
            // One with another name is being taken in, and will be again.
            stored.len == 0
                || stored.provisional
                || stored.links > 1
                || was_cut
                || removed.contains(&stored.id.0)
        });
    for stored in leftovers {
        content.remove(Place::Spool, stored.id)?;
    }
    for stored in unknown(Place::Cache)? {
        content.remove(Place::Cache, stored.id)?;
    }
    for place in [Place::Spool, Place::Cache] {
        // Their numbers may be given out again: to rows of commits that a power cut undid.
        content.sync_dir(place)?;
    }
    if !removed.is_empty() {
        let forgotten = store.write(|tx| {
            removed
                .iter()
                .try_for_each(|&id| tx.forget_removed_body(id))
        });
        match forgotten {
            // It can wait: what is remembered too long costs nothing.
            Err::<(), StoreError>(error) if error.is_disk_full() => {}
            forgotten => forgotten?,
        }
    }
    if !strays.is_empty() {
        rescue::set_strays_aside(state_dir, content, &strays)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use onedrivefs_content::{BodyId, Content};
    use onedrivefs_core::Ino;
    use onedrivefs_store::{Durable, Kind};

    use super::*;
    use crate::bodies::BodyError;

    /// A daemon that is killed between the write and the note of which bytes it made present.
    #[test]
    fn what_was_written_past_the_end_of_a_partial_body_is_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let open = || {
            let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
            Bodies::new(Content::open(&spool, &cache).expect("folders"))
        };
        let now = Timestamp::now();
        let row = store
            .write(|tx| {
                let mut item = Item::new(Kind::File, Ino::ROOT, "partial", now);
                item.size = 1000;
                item.ino = tx.insert_item(&item)?;
                let bodies = open();
                let (row, body) = bodies.create_empty(tx, item.ino, None, now)?;
                item.body = Some(row.id);
                tx.update_item(&item)?;
                let row = BodyRow {
                    size: 1000,
                    ranges: Some(std::iter::once(0..100).collect()),
                    ..row
                };
                tx.update_body(&row)?;
                body.set_len(1000)?;
                body.write_at(1000, b"more")?;
                Ok::<_, Failed>(row)
            })
            .expect("state");
        run(&store, &open(), dir.path()).expect("recovery");
        let saved = store.read(|r| r.body(row.id)).expect("row").expect("row");
        assert_eq!((saved.size, saved.dirty), (1004, false));
        let ranges = saved.ranges.as_ref().expect("still partial");
        assert!(ranges.contains(&50) && !ranges.contains(&500));
        assert!(ranges.contains(&1000) && ranges.contains(&1003));
        let body = open().open(&saved).expect("opened").expect("there");
        assert_eq!(body.id(), BodyId(row.id));
        let mut bytes = [0; 4];
        body.read_at(1000, &mut bytes).expect("present");
        assert_eq!(&bytes, b"more");

        // Killed once more when only its file had been moved: it is still not the service's content,
        // which would be fetched again in its place if what arrives does not fit.
        let sent = open();
        let body = sent.open(&saved).expect("opened").expect("there");
        sent.content().demote(&body).expect("moved");
        let body = open().open(&saved).expect("opened").expect("there");
        assert_eq!(body.place(), Place::Cache);
        assert!(!body.is_pristine() && !body.forget_downloaded());
        body.read_at(1000, &mut bytes).expect("present");
    }

    /// A daemon that is killed before the copy it made is in the database.
    #[test]
    fn a_copy_that_was_never_recorded_is_not_taken_for_lost_content() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
        let open = || Bodies::new(Content::open(&spool, &cache).expect("folders"));
        let bodies = open();
        let copied = |from: u64, to: u64| {
            let body = bodies.content().create(Place::Spool, BodyId(from));
            let body = body.expect("body");
            body.write_at(0, b"content").expect("written");
            let copy = bodies.content().duplicate(&body, BodyId(to), 1000);
            copy.expect("copied").expect("small enough")
        };
        let strays = || {
            let entries = std::fs::read_dir(dir.path()).expect("state").flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| name.starts_with("spool.")).count()
        };
        let mut row = None;
        let item = store.write(|tx| {
            let mut item = Item::new(Kind::File, Ino::ROOT, "file", Timestamp::now());
            item.ino = tx.insert_item(&item)?;
            let made = bodies.create_empty(tx, item.ino, None, Timestamp::now())?;
            item.body = Some(made.0.id);
            tx.update_item(&item)?;
            row = Some(made.0);
            Ok::<_, Failed>(item)
        });
        assert!(item.expect("state").body.is_some());
        let original = row.expect("row").id;
        drop(copied(original, original + 1));
        run(&store, &open(), dir.path()).expect("recovery");
        assert_eq!(
            (
                strays(),
                bodies.content().list(Place::Spool).expect("list").len()
            ),
            (0, 1)
        );
        // One that was recorded, in a database that an older one replaced, is somebody's.
        copied(original, original + 2).confirm().expect("confirmed");
        run(&store, &open(), dir.path()).expect("recovery");
        assert_eq!(strays(), 1);
    }

    /// A program replaced a file and emptied the new one, and the daemon is killed before it wrote
    /// anything. The deletion of the old file is sent after that.
    #[test]
    fn a_save_that_is_kept_does_not_go_with_the_file_that_it_was_made_for() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let open = || {
            let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
            Bodies::new(Content::open(&spool, &cache).expect("folders"))
        };
        let now = Timestamp::now();
        let bodies = open();
        let file = |tx: &Tx<'_>, previous| {
            let mut item = Item::new(Kind::File, Ino::ROOT, "file", now);
            item.ino = tx.insert_item(&item)?;
            let (row, body) = bodies.create_empty(tx, item.ino, previous, now)?;
            item.body = Some(row.id);
            tx.update_item(&item)?;
            Ok::<_, Failed>((item, row, body))
        };
        let (former, now_there) = store
            .write(|tx| {
                let (mut former, mut row, body) = file(tx, None)?;
                body.write_at(0, b"saved")?;
                Bodies::record_save(tx, &mut row, &body)?;
                former.parent = None;
                former.size = row.size;
                tx.update_item(&former)?;
                journal::set_ops(tx, former.ino, Ops::DELETE, now)?;
                let (item, ..) = file(tx, Some(row.id))?;
                Ok::<_, Failed>((former.ino, item.ino))
            })
            .expect("state");
        drop(bodies);
        run(&store, &open(), dir.path()).expect("recovery");
        store
            .write(|tx| {
                // As it goes when its deletion was sent.
                let gone = tx.item(former)?.expect("item");
                if let Some(body) = gone.body {
                    tx.delete_body(body)?;
                }
                tx.delete_journal(former)?;
                tx.delete_item(former)
            })
            .expect("forgotten");
        run(&store, &open(), dir.path()).expect("recovery");
        let item = store.item(now_there).expect("state").expect("item");
        let body = item.body.expect("body");
        let row = store.read(|r| r.body(body)).expect("state").expect("row");
        assert_eq!((item.size, row.ino), (5, now_there));
        let body = open().open(&row).expect("opened").expect("there");
        let mut bytes = [0; 5];
        body.read_at(0, &mut bytes).expect("present");
        assert_eq!(&bytes, b"saved");
    }

    /// A body was moved to the cache when its upload was answered, and a power cut undid what was
    /// noted of that. What it was to be replaced by is not certain, so it is the file's again.
    #[test]
    fn a_save_that_a_power_cut_brings_back_is_in_the_spool() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::open(&dir.path().join("meta.db")).expect("database");
        let open = || {
            let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
            Bodies::new(Content::open(&spool, &cache).expect("folders"))
        };
        let now = Timestamp::now();
        let bodies = open();
        let (ino, saved) = store
            .write(|tx| {
                let mut item = Item::new(Kind::File, Ino::ROOT, "file", now);
                item.ino = tx.insert_item(&item)?;
                let (mut row, body) = bodies.create_empty(tx, item.ino, None, now)?;
                body.write_at(0, b"saved")?;
                Bodies::record_save(tx, &mut row, &body)?;
                row.durable = Some(Durable {
                    generation: row.generation,
                    size: row.size,
                    ranges: None,
                });
                tx.update_body(&row)?;
                bodies.content().demote(&body)?;
                let (next, _) = bodies.create_empty(tx, item.ino, Some(row.id), now)?;
                item.body = Some(next.id);
                tx.update_item(&item)?;
                Ok::<_, Failed>((item.ino, row.id))
            })
            .expect("state");
        drop(bodies);
        let bodies = open();
        power::undo_uncertain(&store, &bodies, dir.path()).expect("undone");
        let item = store.item(ino).expect("state").expect("item");
        assert_eq!((item.body, item.size), (Some(saved), 5));
        let spooled = bodies.content().list(Place::Spool).expect("list");
        assert!(spooled.iter().any(|stored| stored.id == BodyId(saved)));
    }

    /// What setting the state up can fail with.
    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error(transparent)]
        Store(#[from] StoreError),
        #[error(transparent)]
        Body(#[from] BodyError),
        #[error(transparent)]
        File(#[from] std::io::Error),
        #[error(transparent)]
        Content(#[from] onedrivefs_content::ContentError),
    }
}
