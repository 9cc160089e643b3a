//! Sites of which a tree shows too few: one that is not listed is found by its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use onedrivefs_graph::GraphError;
use onedrivefs_store::StoreError;
use onedrivefs_sync::EngineError;
use onedrivefs_vfs::{Further, Pending, VfsError};
use parking_lot::Mutex;
use url::Url;

use super::{GROUP, Looked, SITES, Tree, leaf, rows};
use crate::places::{self, Place};

/// Where the service keeps sites: below one of these, by name.
const KINDS: [&str; 2] = ["sites", "teams"];

/// Hosts of sites that are not all listed; none where all of them are.
#[derive(Clone, Default)]
pub(super) struct Hosts(Arc<Mutex<BTreeSet<String>>>);

impl Hosts {
    /// Learns from a look.
    pub(super) fn learn(&self, looked: &Looked) {
        let mut hosts = BTreeSet::new();
        if looked.cut.is_some() {
            let addresses = looked.sites.iter().filter_map(|site| Url::parse(site).ok());
            hosts.extend(addresses.filter_map(|url| url.host_str().map(str::to_owned)));
        }
        *self.0.lock() = hosts;
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

impl Tree {
    /// Looks for names in the folder of sites while not all of them are listed. Programs that look for
    /// hidden files of their own in every folder find none there.
    pub(crate) fn further(&self) -> Further {
        let tree = self.clone();
        let sites = format!("{GROUP}/{SITES}");
        Box::new(move |folder, name| {
            let here = folder.item_id().is_some_and(|id| id.as_str() == sites);
            let hosts = tree.hosts.all();
            if !here || hosts.is_empty() || name.starts_with('.') {
                return None;
            }
            let (tree, name) = (tree.clone(), name.to_owned());
            let looking: Pending<()> = Box::pin(async move {
                let limit = tree.engine.config.metadata_deadline;
                let found = tokio::time::timeout(limit, tree.find_site(&hosts, &name)).await;
                let found = found.map_err(|_elapsed| VfsError::TimedOut)?;
                let places = found.map_err(|error| VfsError::from(EngineError::from(error)))?;
                tree.show_too(places).map_err(VfsError::from)
            });
            Some(looking)
        })
    }

    /// The libraries of the site of a name.
    async fn find_site(&self, hosts: &[String], name: &str) -> Result<Vec<Place>, GraphError> {
        for host in hosts {
            for kind in KINDS {
                let Ok(mut address) = Url::parse(&format!("https://{host}")) else {
                    continue;
                };
                address.set_path(&format!("{kind}/{name}"));
                match self.graph.site_drives(address.as_str()).await {
                    Ok(drives) => return Ok(places::libraries(address.as_str(), drives)),
                    Err(error) if error.is_not_found() || error.status() == Some(403) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Vec::new())
    }

    /// Shows places beside those that are shown.
    fn show_too(&self, places: Vec<Place>) -> Result<(), StoreError> {
        let leaves: Vec<_> = places.into_iter().map(leaf).collect();
        let changes = (self.engine.store).write(|tx| rows::show(tx, &leaves, &[]))?;
        self.engine.tell_kernel(changes);
        Ok(())
    }
}
