//! Commands on a mount that has folders of other drives in it: each goes to the engine that a path
//! belongs to, or to all of them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use onedrivefs_sync::{
    Engine, EngineError, FollowedStatus, Freed, Parked, PathStatus, Pending, State, Status,
    SyncOutcome,
};
use onedrivefs_vfs::Forest;

/// Deletions that are held back which a status lists at most.
const HELD_MAX: usize = 1000;

/// The engine that a path belongs to, and the path there.
pub(crate) async fn route(
    forest: &Arc<Forest>,
    path: &str,
) -> Result<(Arc<Engine>, String), EngineError> {
    let (forest, path) = (Arc::clone(forest), path.to_owned());
    let routed = tokio::task::spawn_blocking(move || forest.route(&path)).await;
    routed.unwrap_or_else(|error| {
        Err(EngineError::NotServed {
            reason: error.to_string(),
        })
    })
}

/// The engines that a path concerns: all of them for the mount as a whole.
async fn concerned(
    forest: &Arc<Forest>,
    path: &str,
) -> Result<Vec<(Arc<Engine>, String)>, EngineError> {
    if path.trim_matches('/').is_empty() {
        let all = forest.engines().into_iter();
        return Ok(all.map(|engine| (engine, path.to_owned())).collect());
    }
    Ok(vec![route(forest, path).await?])
}

/// How everything is.
pub(crate) fn status(forest: &Arc<Forest>) -> Result<Status, EngineError> {
    let mut status = forest.main().engine().status()?;
    let engines = forest.engines();
    if forest.only_groups() {
        // Nobody asks about the root itself.
        let is = |state: State| match state {
            State::NeedsLogin => forest.needs_login(),
            _ => engines.iter().any(|engine| engine.state() == state),
        };
        let states = [State::NeedsLogin, State::Offline, State::Throttled];
        status.state = states
            .into_iter()
            .find(|&state| is(state))
            .unwrap_or(status.state);
    }
    for followed in forest.followed()? {
        let top = followed.top().to_owned();
        let mut entry = FollowedStatus {
            path: followed.path,
            left_path: followed.left_path,
            drive: followed.slot.drive.to_string(),
            item: followed.slot.item.to_string(),
            state: None,
            read_only: false,
            push: false,
            items: 0,
            pending: Pending::default(),
        };
        if let Some(engine) = followed.engine {
            let own = engine.status()?;
            entry.state = Some(own.state);
            entry.read_only = engine.is_read_only();
            entry.push = own.push;
            entry.items = own.items;
            entry.pending = own.pending;
            add(&mut status, own, &top);
        }
        status.drives.push(entry);
    }
    Ok(status)
}

/// Adds the figures and lists of a folder of another drive that is shown at a path.
fn add(status: &mut Status, own: Status, top: &str) {
    let below = |path: &mut String| *path = join(top, path);
    status.items += own.items;
    status.cache.bytes += own.cache.bytes;
    status.cache.pinned += own.cache.pinned;
    status.pending.ops += own.pending.ops;
    status.pending.bytes += own.pending.bytes;
    if status.state == State::Online && own.state == State::Throttled {
        status.state = State::Throttled;
    }
    let (mut transfers, mut conflicts, mut pins) = (own.transfers, own.conflicts, own.pins);
    transfers.iter_mut().for_each(|one| below(&mut one.path));
    status.transfers.append(&mut transfers);
    for conflict in &mut conflicts {
        below(&mut conflict.path);
        if !Path::new(&conflict.copy).is_absolute() {
            below(&mut conflict.copy);
        }
    }
    status.conflicts.append(&mut conflicts);
    pins.paths.iter_mut().for_each(below);
    pins.failing.iter_mut().for_each(|one| below(&mut one.path));
    status.pins.paths.append(&mut pins.paths);
    status.pins.failing.append(&mut pins.failing);
    status.pins.count += pins.count;
    status.pins.files += pins.files;
    status.pins.bytes += pins.bytes;
    status.pins.to_fetch.files += pins.to_fetch.files;
    status.pins.to_fetch.bytes += pins.to_fetch.bytes;
    status.pins.over_limit |= status.cache.pinned > status.cache.limit;
    let (mut parked, mut details) = (own.parked, own.details);
    parked.iter_mut().for_each(|one| below(&mut one.path));
    details
        .failing
        .iter_mut()
        .for_each(|one| below(&mut one.path));
    let (held_here, others_here) =
        split_held(std::mem::take(&mut status.parked), status.details.parked);
    let (held_there, others_there) = split_held(parked, details.parked);
    // Those that are held back come first.
    let held = held_here.into_iter().chain(held_there).take(HELD_MAX);
    status.parked = held.chain(others_here).chain(others_there).collect();
    status.details.parked += details.parked;
    status.details.held += details.held;
    if status.details.held_reason.is_empty() {
        status.details.held_reason = details.held_reason;
    }
    status.details.failing.append(&mut details.failing);
}

/// Takes a list of what waits for a person apart: what is held back, and the rest.
fn split_held(mut parked: Vec<Parked>, others: u64) -> (Vec<Parked>, Vec<Parked>) {
    let others = usize::try_from(others).unwrap_or(usize::MAX);
    let rest = parked.split_off(parked.len().saturating_sub(others));
    (parked, rest)
}

/// A path in a folder that is shown at another path.
fn join(top: &str, path: &str) -> String {
    match path.trim_start_matches('/') {
        "" => top.to_owned(),
        path if top.is_empty() => path.to_owned(),
        path => format!("{top}/{path}"),
    }
}

/// How one item is.
pub(crate) fn path_status(forest: &Arc<Forest>, path: &str) -> Result<PathStatus, EngineError> {
    let (engine, inside) = forest.route(path)?;
    let mut status = engine.path_status(&inside)?;
    if let Some(by) = &mut status.pinned_by {
        let full = forest.full_path(&engine, by);
        *by = format!("/{}", full.trim_start_matches('/'));
    }
    Ok(status)
}

/// Waits until this machine and the service agree, in the drive that a path is in or in all.
pub(crate) async fn sync(
    forest: &Arc<Forest>,
    path: Option<&str>,
    timeout: Option<Duration>,
    progress: impl Fn(&Pending, Option<&str>) + Send + Sync,
) -> Result<SyncOutcome, EngineError> {
    // What waits in folders that nobody has looked into since the start is to be sent as well.
    forest.look_after().await;
    let concerned = concerned(forest, path.unwrap_or_default()).await?;
    let waiting = Mutex::new(vec![Pending::default(); concerned.len()]);
    let syncing = concerned
        .iter()
        .enumerate()
        .map(|(index, (engine, inside))| {
            let (waiting, progress) = (&waiting, &progress);
            let tell = move |own: &Pending, obstacle: Option<&str>| {
                let mut all = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                all[index] = *own;
                progress(&sum(&all), obstacle);
            };
            async move {
                let inside = path.map(|_| inside.as_str());
                match engine.sync(inside, timeout, tell).await {
                    // Nothing waited there any more when it was cleared away.
                    Err(_) if !forest.is_served(engine) => Ok(SyncOutcome::Done),
                    // Nothing can be fetched from there, and nothing waits to be sent.
                    Err(_) if engine.is_denied() && engine.pending()?.ops == 0 => {
                        Ok(SyncOutcome::Done)
                    }
                    other => other,
                }
            }
        });
    let mut worst = SyncOutcome::Done;
    for outcome in join_all(syncing).await {
        worst = worse(worst, outcome?);
    }
    if forest.only_groups() && forest.needs_login() {
        // Perhaps nobody looked into any drive yet.
        worst = worse(worst, SyncOutcome::NeedsLogin);
    }
    Ok(worst)
}

fn sum(all: &[Pending]) -> Pending {
    all.iter().fold(Pending::default(), |sum, one| Pending {
        ops: sum.ops + one.ops,
        bytes: sum.bytes + one.bytes,
    })
}

/// What two drives together came to.
fn worse(a: SyncOutcome, b: SyncOutcome) -> SyncOutcome {
    use SyncOutcome::{Done, NeedsLogin, Offline, Parked, TimedOut};
    match (a, b) {
        (NeedsLogin, _) | (_, NeedsLogin) => NeedsLogin,
        (Offline, _) | (_, Offline) => Offline,
        (
            TimedOut {
                pending: here,
                obstacle,
            },
            TimedOut {
                pending: there,
                obstacle: other,
            },
        ) => TimedOut {
            pending: sum(&[here, there]),
            obstacle: obstacle.or(other),
        },
        (timed_out @ TimedOut { .. }, _) | (_, timed_out @ TimedOut { .. }) => timed_out,
        (
            Parked { parked, held },
            Parked {
                parked: others,
                held: other_held,
            },
        ) => Parked {
            parked: parked + others,
            held: held + other_held,
        },
        (parked @ Parked { .. }, _) | (_, parked @ Parked { .. }) => parked,
        (Done, Done) => Done,
    }
}

/// Frees the space that the content of something takes.
pub(crate) async fn evict(forest: &Arc<Forest>, path: &str) -> Result<Freed, EngineError> {
    let mut all = Freed::default();
    for (engine, inside) in concerned(forest, path).await? {
        let mut freed = engine.evict(&inside).await?;
        for stays in &mut freed.stays {
            stays.path = forest.full_path(&engine, &stays.path);
        }
        all.files += freed.files;
        all.bytes += freed.bytes;
        all.stays.append(&mut freed.stays);
        all.staying += freed.staying;
    }
    Ok(all)
}

/// Tries what waits for a person again.
pub(crate) async fn retry(forest: &Arc<Forest>, path: &str) -> Result<u64, EngineError> {
    let mut tried = Vec::new();
    for (engine, inside) in concerned(forest, path).await? {
        tried.push(engine.retry(&inside).await);
    }
    total(tried)
}

/// Gives up what waits for a person.
pub(crate) async fn discard(forest: &Arc<Forest>, path: &str) -> Result<u64, EngineError> {
    let mut tried = Vec::new();
    for (engine, inside) in concerned(forest, path).await? {
        tried.push(engine.discard(&inside).await);
    }
    // What nothing shows any more goes with the last change in it.
    forest.look_after().await;
    total(tried)
}

/// The sum of what was done. That there was nothing to do is an error only if it was so everywhere.
fn total(tried: Vec<Result<u64, EngineError>>) -> Result<u64, EngineError> {
    let mut sum = None;
    let mut nothing = None;
    for one in tried {
        match one {
            Ok(count) => *sum.get_or_insert(0) += count,
            Err(error @ EngineError::NotParked { .. }) => nothing = nothing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match (sum, nothing) {
        (Some(sum), _) => Ok(sum),
        (None, Some(nothing)) => Err(nothing),
        (None, None) => Ok(0),
    }
}

/// Copies the content of something that waits for a person.
pub(crate) async fn export(
    forest: &Arc<Forest>,
    path: &str,
    to: &Path,
) -> Result<u64, EngineError> {
    let (engine, inside) = route(forest, path).await?;
    engine.export(&inside, to).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_drives_are_as_well_as_the_worse_of_them() {
        let parked = |parked, held| SyncOutcome::Parked { parked, held };
        assert_eq!(
            worse(SyncOutcome::Done, SyncOutcome::Done),
            SyncOutcome::Done
        );
        assert_eq!(worse(parked(1, 2), parked(3, 4)), parked(4, 6));
        assert_eq!(worse(SyncOutcome::Done, parked(1, 0)), parked(1, 0));
        assert_eq!(
            worse(parked(1, 0), SyncOutcome::Offline),
            SyncOutcome::Offline
        );
    }

    #[test]
    fn paths_are_below_the_folder_that_is_shown() {
        assert_eq!(join("Folder/Theirs", "/a/b"), "Folder/Theirs/a/b");
        assert_eq!(join("Folder/Theirs", "/"), "Folder/Theirs");
        assert_eq!(join("", "a"), "a");
    }
}
