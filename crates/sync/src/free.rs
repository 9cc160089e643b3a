//! Freeing the space of files that a person names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_content::BodyId;
use onedrivefs_core::Ino;
use onedrivefs_store::{KeptItem, Ops, Reader, StoreError};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;

/// How long a body that no program has open may still be in use, by an upload that ends or by what
/// was read a moment ago.
const IN_USE: Duration = Duration::from_secs(5);

/// How long a file may count as open that a program has just closed: the kernel says so a moment later.
const CLOSING: Duration = Duration::from_millis(500);

/// Pause between two looks whether it still is.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Files named at most that stay; the rest is counted.
const NAMED_MAX: usize = 1000;

/// What freeing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Files whose content is no longer on this machine.
    pub files: u64,
    /// Bytes that they took on the disk.
    pub bytes: u64,
    /// What stays, at most a thousand entries.
    pub stays: Vec<Stays>,
    /// Files that stay.
    pub staying: u64,
}

/// Something whose content stays on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    /// Path in the mount: of a file, or of what pins it.
    pub path: String,
    /// Why.
    pub reason: String,
    /// How many files that concerns.
    pub files: u64,
}

/// Why the content of one file stays.
enum Obstacle {
    LocalOnly,
    Unsent,
    /// By this inode.
    Pinned(Ino),
    Open,
}

impl Engine {
    /// Frees the space that the content at or below a path takes on this machine. What the service
    /// does not have, what programs have open and what is pinned stays, and is named.
    ///
    /// # Errors
    /// `NoSuchPath`; errors of the disk and the database.
    pub async fn evict(self: &Arc<Self>, path: &str) -> Result<Freed, EngineError> {
        let top = self.item_at(path)?;
        let engine = Arc::clone(self);
        let evict = move || engine.evict_below(top.ino);
        let evicted = self.handle.spawn_blocking(evict).await;
        evicted.map_err(|error| EngineError::State {
            path: self.config.state_dir.clone(),
            source: std::io::Error::other(error),
        })?
    }

    fn evict_below(&self, top: Ino) -> Result<Freed, EngineError> {
        let sizes = self.evictor.sizes_on_disk()?;
        let mut items = Vec::new();
        self.store.read(|r| {
            r.each_below(top, |item| {
                if item.body.is_some() {
                    items.push(item);
                }
            })
        })?;
        let mut freed = Freed::default();
        let mut stays: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        let start = Instant::now();
        while !items.is_empty() {
            let mut in_use = Vec::new();
            for item in items {
                match self
                    .store
                    .read(|r| obstacle(r, &item, |ino| self.is_open(ino)))?
                {
                    Some(Obstacle::Open) if start.elapsed() < CLOSING => in_use.push(item),
                    Some(obstacle) => {
                        *stays.entry(self.name(item.ino, &obstacle)?).or_default() += 1;
                        freed.staying += 1;
                    }
                    None => match self.evict_one(&item, &sizes)? {
                        Some(bytes) => {
                            // Nothing of a body may be here.
                            freed.files += u64::from(bytes > 0);
                            freed.bytes += bytes;
                        }
                        None => in_use.push(item),
                    },
                }
            }
            if start.elapsed() >= IN_USE {
                for item in &in_use {
                    let path = self.path_of(item.ino)?;
                    *stays.entry((path, "it is in use")).or_default() += 1;
                    freed.staying += 1;
                }
                break;
            }
            if !in_use.is_empty() {
                std::thread::sleep(LOOK_EVERY);
            }
            items = in_use;
        }
        self.evictor.bury();
        freed.stays = stays
            .into_iter()
            .take(NAMED_MAX)
            .map(|((path, reason), files)| Stays {
                path,
                reason: reason.to_owned(),
                files,
            })
            .collect();
        // There may be room now for what is pinned.
        self.pins.room_was_made();
        Ok(freed)
    }

    /// Evicts the body of one item; `None` when it is in use.
    fn evict_one(
        &self,
        item: &KeptItem,
        sizes: &HashMap<u64, u64>,
    ) -> Result<Option<u64>, EngineError> {
        let Some(kept) = item.body else {
            return Ok(Some(0));
        };
        // What was read a moment ago is let go of.
        self.hydrator.let_go(BodyId(kept.id));
        let Some(row) = self.store.read(|r| r.body(kept.id))? else {
            // Somebody else was quicker.
            return Ok(Some(0));
        };
        let gone = self.evictor.evict_recorded(&row)?;
        Ok(gone.then(|| sizes.get(&kept.id).copied().unwrap_or(0)))
    }

    /// What is named when something stays, and why it does.
    fn name(&self, ino: Ino, obstacle: &Obstacle) -> Result<(String, &'static str), EngineError> {
        let (ino, reason) = match obstacle {
            Obstacle::LocalOnly => (ino, "it stays on this machine because of its name"),
            Obstacle::Unsent => (ino, "it is not sent yet"),
            Obstacle::Open => (ino, "a program has it open"),
            Obstacle::Pinned(by) => (*by, "it is pinned"),
        };
        Ok((self.path_of(ino)?, reason))
    }
}

/// Why the content of a file must stay, if it must.
fn obstacle(
    r: &Reader<'_>,
    item: &KeptItem,
    is_open: impl Fn(Ino) -> bool,
) -> Result<Option<Obstacle>, StoreError> {
    let Some(row) = item.body.map(|body| r.body(body.id)).transpose()?.flatten() else {
        return Ok(None);
    };
    let unsent = |ops: Ops| ops.has(Ops::CREATE) || ops.has(Ops::CONTENT);
    if r.item(item.ino)?.is_some_and(|item| item.local_only) {
        return Ok(Some(Obstacle::LocalOnly));
    }
    if row.dirty || r.journal(item.ino)?.is_some_and(|row| unsent(row.ops)) {
        return Ok(Some(Obstacle::Unsent));
    }
    if let Some(by) = r.pin_of(item.ino)? {
        return Ok(Some(Obstacle::Pinned(by)));
    }
    Ok(is_open(item.ino).then_some(Obstacle::Open))
}
