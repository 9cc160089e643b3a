//! What goes on in folders of other drives although nobody looks into them: changes that wait are
//! sent, and what nothing shows any more is cleared away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onedrivefs_store::{Slot, SlotState, StoreError};

use super::{Forest, left};
use crate::error::VfsError;
use crate::graft::{MAIN, split};
use crate::vfs::Vfs;

/// Pause between two looks while something waits in a folder that nothing shows any more.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The same while nothing does. What changes that asks for a look.
const LOOK_SELDOM: Duration = Duration::from_secs(300);

impl Forest {
    /// Looks after all folders, for as long as the mount lasts.
    pub async fn tend(self: Arc<Self>) {
        let forest = Arc::clone(&self);
        let taking = self
            .main
            .runtime
            .spawn_blocking(move || forest.take_in_strays());
        if let Ok(Err(error)) = taking.await {
            tracing::warn!(%error, "What earlier mounts left could not be taken in.");
        }
        loop {
            let pause = match self.look_after().await {
                true => LOOK_EVERY,
                false => LOOK_SELDOM,
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks after all folders once. Tells whether to do so again before anything asks for it.
    pub async fn look_after(self: &Arc<Self>) -> bool {
        let _one_at_a_time = self.looking.lock().await;
        match self.look_after_all().await {
            Ok(again) => {
                self.main.engine().config.family.end_gathering();
                again
            }
            Err(error) => {
                tracing::warn!(%error, "Folders of other drives could not be looked after.");
                true
            }
        }
    }

    async fn look_after_all(self: &Arc<Self>) -> Result<bool, VfsError> {
        let mut again = self.leave_lost()?;
        let own = &self.main.engine().config.drive.id;
        for slot in self.main.store().read(|r| r.slots())? {
            let kept = match slot.state {
                SlotState::Discarded => false,
                SlotState::Followed if slot.above.is_empty() && slot.drive == *own => continue,
                SlotState::Followed => {
                    again |= self.plant_if_needed(&slot).await;
                    true
                }
                SlotState::Left => {
                    let kept = self.plant_if_needed(&slot).await || !self.is_done(&slot).await?;
                    again |= kept;
                    kept
                }
            };
            if !kept && let Err(error) = self.clear(&slot).await {
                let slot = slot.number;
                tracing::warn!(slot, %error, "A folder of another drive could not be cleared away.");
                again = true;
            }
        }
        Ok(again)
    }

    /// Lets go of slots whose shortcuts were in others and are gone, or lead elsewhere. Tells whether
    /// there were any: the same may go for what is shown in them.
    fn leave_lost(&self) -> Result<bool, VfsError> {
        let mut any = false;
        let slots = self.main.store().read(|r| r.slots())?;
        let lives = |number| {
            let host = slots.iter().find(|slot| slot.number == number);
            host.is_some_and(|host| host.state == SlotState::Followed)
        };
        for slot in &slots {
            let Some(shortcut) = slot.ino else { continue };
            let (host, ino) = split(shortcut);
            if host == MAIN {
                continue;
            }
            let shown = self.planted.read().get(&host).cloned();
            let leads_there = match shown {
                _ if !lives(host) => false,
                // Nobody has looked since the start.
                None => true,
                Some(vfs) => {
                    let now = vfs.store().read(|r| match r.slot_of(ino)? {
                        Some(number) => r.slot(number),
                        None => Ok::<_, StoreError>(None),
                    })?;
                    now.is_some_and(|now| now.drive == slot.drive && now.item == slot.item)
                }
            };
            if !leads_there {
                self.main.store().write(|tx| tx.leave_slot(shortcut))?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Serves a folder in which something is to be done. Tells whether that is so.
    async fn plant_if_needed(self: &Arc<Self>, slot: &Slot) -> bool {
        let number = slot.number;
        // Nobody else changes what is in it: one look is enough until it is served.
        if self.planted.read().contains_key(&number) || self.idle.lock().contains(&number) {
            return false;
        }
        let (forest, slot) = (Arc::clone(self), slot.clone());
        let looked = self.main.runtime.spawn_blocking(move || {
            let nursery = forest.nursery.as_ref();
            if !nursery.is_some_and(|nursery| nursery.has_work(&slot)) {
                forest.idle.lock().insert(number);
                return Ok(false);
            }
            forest.plant(number).map(|_| true)
        });
        match looked.await {
            Ok(Ok(needed)) => needed,
            Ok(Err(error)) => {
                tracing::warn!(slot = number, %error, "A folder of another drive cannot be served.");
                true
            }
            Err(error) => {
                tracing::warn!(slot = number, %error, "Looking after a folder broke off.");
                true
            }
        }
    }

    /// Tells whether nothing waits in a folder that nothing shows any more. What cannot be sent from
    /// there is given to a person.
    async fn is_done(&self, slot: &Slot) -> Result<bool, VfsError> {
        let planted = self.planted.read().get(&slot.number).cloned();
        let Some(vfs) = planted else {
            return Ok(true);
        };
        let looking = self.main.runtime.spawn_blocking(move || {
            if vfs.is_used() {
                return Ok(false);
            }
            left::give_to_a_person(vfs.engine());
            Ok(vfs.store().read(|r| r.is_journal_empty())?)
        });
        looking.await.map_err(VfsError::io)?
    }

    /// Ends serving a folder and removes its state.
    async fn clear(self: &Arc<Self>, slot: &Slot) -> Result<(), VfsError> {
        let planted = self.planted.write().remove(&slot.number);
        if let Some(vfs) = planted {
            vfs.engine().stop_sending();
            vfs.engine().shutdown().await;
            if slot.state == SlotState::Left {
                self.take_over(slot, &vfs)?;
            }
        }
        let (forest, slot) = (Arc::clone(self), slot.clone());
        let cleared = self.main.runtime.spawn_blocking(move || {
            let _turn = forest.turn.lock();
            if forest.planted.read().contains_key(&slot.number) {
                // Somebody has looked into it meanwhile.
                return Err(VfsError::Busy);
            }
            if let Some(nursery) = &forest.nursery {
                nursery.clear(&slot)?;
            }
            forest
                .main
                .store()
                .write(|tx| tx.forget_slot(slot.number))?;
            tracing::info!(
                slot = slot.number,
                "A folder of another drive is not shown any more."
            );
            Ok(())
        });
        cleared.await.map_err(VfsError::io)?
    }

    /// Keeps what the service does not get of a folder that nothing shows any more. A program that was
    /// in it may have been quicker, and made something that is to be sent first.
    fn take_over(&self, slot: &Slot, left: &Arc<Vfs>) -> Result<(), VfsError> {
        let is_in_use = Arc::strong_count(left) > 1 || left.is_used();
        if is_in_use || !left.store().read(|r| r.is_journal_empty())? {
            return Err(VfsError::Busy);
        }
        self.main
            .engine()
            .take_over(left.engine(), slot.number)
            .map_err(VfsError::from)
    }

    /// Stops serving the folders of other drives. Nothing is planted from now on.
    pub async fn shutdown(&self) {
        self.ending.store(true, Ordering::Release);
        // Whoever is planting is done after this.
        drop(self.turn.lock());
        let mut stopping = tokio::task::JoinSet::new();
        for engine in self.planted_engines() {
            stopping.spawn(async move { engine.shutdown().await });
        }
        while stopping.join_next().await.is_some() {}
    }

    /// Waits until the database of any drive turns out to be damaged.
    pub async fn wait_damaged(&self) {
        loop {
            let another = self.another.notified();
            let mut engines = self.planted_engines();
            engines.push(Arc::clone(self.main.engine()));
            let damaged = engines.iter().map(|engine| Box::pin(engine.wait_damaged()));
            let any = async {
                let mut waiting: Vec<_> = damaged.collect();
                std::future::poll_fn(|context| {
                    let ended = waiting
                        .iter_mut()
                        .any(|one| one.as_mut().poll(context).is_ready());
                    if ended {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })
                .await;
            };
            tokio::select! {
                () = any => return,
                () = another => {}
            }
        }
    }
}
