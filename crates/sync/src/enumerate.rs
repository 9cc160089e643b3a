//! Listing a folder on demand, for somebody who looks into it before the enumeration got there.

use std::sync::Arc;
use std::time::Instant;

use onedrivefs_core::Ino;
use onedrivefs_graph::GraphError;
use tokio::sync::watch;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::hydrate::HydrateError;
use crate::net_state::Net;

/// The listing of a folder, shared by all who want it.
#[derive(Default)]
pub(crate) struct Listing {
    /// Held by whoever lists.
    gate: tokio::sync::Mutex<()>,
    /// Pages that came so far.
    pages: watch::Sender<u64>,
}

impl Engine {
    /// Follows the pages of a listing that is about to be asked for, or under way.
    pub fn pages_of(&self, ino: Ino) -> watch::Receiver<u64> {
        self.listing(ino).pages.subscribe()
    }

    fn listing(&self, ino: Ino) -> Arc<Listing> {
        Arc::clone(self.listings.lock().entry(ino).or_default())
    }

    /// Makes the children of a directory known. Callers put their own deadline around it; the
    /// listing goes on for the next one who asks. Concurrent callers share one listing. It ends
    /// when there is no network, and when nobody is to wait any more.
    ///
    /// # Errors
    /// Errors of the service and the database.
    pub async fn list_children(self: &Arc<Self>, ino: Ino) -> Result<(), EngineError> {
        let listing = self.listing(ino);
        let listed = {
            let _turn = listing.gate.lock().await;
            self.while_reachable(self.list_unless_known(ino, &listing))
                .await
        };
        self.listings.lock().remove(&ino);
        if let Err(EngineError::Graph(error)) = &listed {
            self.net.learn_error(error);
        }
        if ino == Ino::ROOT {
            self.learn_access(listed.as_ref().err());
        }
        listed
    }

    /// Asks the service how an item is now.
    ///
    /// # Errors
    /// The service's; "gone" for an item that it does not have.
    pub async fn look_at(&self, ino: Ino) -> Result<(), EngineError> {
        let looked = self.while_reachable(self.look_again(ino, None)).await;
        match looked {
            Err(EngineError::Graph(error)) if error.is_not_found() => {
                self.wake_freshness();
                Err(HydrateError::Gone.into())
            }
            Err(EngineError::Graph(error)) => {
                self.net.learn_error(&error);
                Err(error.into())
            }
            looked => looked,
        }
    }

    /// Does what needs the service, for as long as it can be had.
    async fn while_reachable<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let turn = self.waiters.turn();
        let mut net = self.net.watch();
        tokio::select! {
            biased;
            done = work => done,
            () = turn.cancelled() => Err(HydrateError::Offline.into()),
            _ = net.wait_for(|&net| net == Net::Offline) => Err(HydrateError::Offline.into()),
        }
    }

    async fn list_unless_known(&self, ino: Ino, listing: &Listing) -> Result<(), EngineError> {
        self.learn_root().await?;
        let Some(item) = self.store.item(ino)?.filter(|item| !item.children_known) else {
            return Ok(());
        };
        let Some(id) = item.item_id() else {
            return Ok(());
        };
        let mut next: Option<String> = None;
        loop {
            let asked = Instant::now();
            let page = self
                .graph
                .children_page(&self.config.drive.id, id, next.as_deref())
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) if is_unreadable(&error) => {
                    let path = self.path_of(ino)?;
                    tracing::info!(path, %error, "A folder that the service does not open is shown empty.");
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let mut items = page.items;
            for item in &mut items {
                // A listing says by itself which folder it lists.
                item.parent = Some(id.clone());
            }
            self.apply_now(&items, None, asked)?;
            listing.pages.send_modify(|pages| *pages += 1);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        self.store.write(|tx| {
            if let Some(mut item) = tx.item(ino)? {
                item.children_known = true;
                tx.update_item(&item)?;
            }
            Ok(())
        })
    }
}

/// Tells whether the service refuses to open this very folder, as it does for the Personal Vault.
pub(crate) fn is_unreadable(error: &GraphError) -> bool {
    error.status() == Some(400) && error.has_code("invalidResourceId")
}
