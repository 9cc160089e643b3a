//! What others shared with the person who is signed in.
//!
//! The service's list of that names less and less, until it ends. In an organisation the search knows
//! what is missing there; a personal account is left with its shortcuts, which come first in any case,
//! since they have the names that their owner gave them.

use onedrivefs_core::{DriveId, DriveKind};
use onedrivefs_graph::{GraphClient, GraphError, SharedItem};

use super::{first, own};
use crate::account::AccountRecord;
use crate::failure::Outcome;

/// What others shared, each once, and why the rest of it could not be had.
pub(crate) async fn shared_items(
    graph: &GraphClient,
    record: &AccountRecord,
) -> Outcome<(Vec<SharedItem>, Option<GraphError>)> {
    let own = match record.own_drive() {
        Some(own) => own.clone(),
        None => own(graph).await?,
    };
    let shortcuts = graph.shortcuts(&own.id).await;
    let mut known = shortcuts.map_err(first("looking for shortcuts in your drive"))?;
    let listed = graph.shared_with_me().await;
    let searched = match sign_in_name(record).filter(|_| own.kind != DriveKind::Personal) {
        Some(name) => Some(graph.search_shared(name).await),
        None => None,
    };
    let (found, missing) = match (listed, searched) {
        (Ok(listed), None) => (listed, None),
        (Err(error), None | Some(Err(_))) => (Vec::new(), Some(error)),
        (listed, Some(Ok(found))) => ([listed.unwrap_or_default(), found].concat(), None),
        (Ok(listed), Some(Err(error))) => {
            let missing = listed.is_empty().then_some(error);
            (listed, missing)
        }
    };
    add_new(&mut known, found, &own.id);
    Ok((known, missing))
}

/// The name under which the person signed in, where it is known.
fn sign_in_name(record: &AccountRecord) -> Option<&str> {
    let user = record.user.as_ref()?;
    Some(user.principal.as_str()).filter(|name| !name.is_empty())
}

/// Adds what is not known yet and is in another drive.
fn add_new(known: &mut Vec<SharedItem>, items: Vec<SharedItem>, own: &DriveId) {
    for item in items {
        let same = |it: &SharedItem| it.drive == item.drive && it.item == item.item;
        if item.drive != *own && !known.iter().any(same) {
            known.push(item);
        }
    }
}
