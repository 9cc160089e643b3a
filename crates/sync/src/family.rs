//! The engines of one mount: each serves a drive, or a folder of one, and some things they share; and
//! those of one process.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::engine::Engine;
use crate::waiters::Waiters;

/// Tells those who follow any number of engines that something may be different in one of them.
#[derive(Clone, Default)]
pub struct Stir(Arc<Stirs>);

#[derive(Default)]
struct Stirs {
    journal: Notify,
    reach: Notify,
}

impl Stir {
    /// Waits until something may have been added to a journal since this was called.
    pub fn journal(&self) -> Notified<'_> {
        self.0.journal.notified()
    }

    /// Waits until the service came into reach since this was called, or went out of it.
    pub fn reach(&self) -> Notified<'_> {
        self.0.reach.notified()
    }

    /// Those who wait for anything look again.
    pub fn changed(&self) {
        self.journal_grew();
        self.reach_changed();
    }

    /// Something may have been added to a journal.
    pub(crate) fn journal_grew(&self) {
        self.0.journal.notify_waiters();
    }

    /// The service came into reach, or went out of it.
    pub(crate) fn reach_changed(&self) {
        self.0.reach.notify_waiters();
    }
}

/// Engines that are still there.
#[derive(Clone, Default)]
struct Members(Arc<Mutex<Vec<Weak<Engine>>>>);

impl Members {
    fn join(&self, engine: &Arc<Engine>) {
        let mut members = self.0.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(engine));
    }

    fn all(&self) -> Vec<Arc<Engine>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// What all engines of a process share: their content caches count for one limit.
#[derive(Clone, Default)]
pub struct Company {
    members: Members,
    /// Bytes added to any of the caches since the last look.
    grown: Arc<AtomicU64>,
    stir: Stir,
}

impl Company {
    /// Where to wait for something to happen.
    #[must_use]
    pub fn stir(&self) -> &Stir {
        &self.stir
    }

    /// The engines there are.
    pub(crate) fn members(&self) -> Vec<Arc<Engine>> {
        self.members.all()
    }

    /// Bytes added to any of the caches since the last look.
    pub(crate) fn grown(&self) -> &AtomicU64 {
        &self.grown
    }
}

/// What the engines of one mount share.
#[derive(Clone, Default)]
pub struct Family {
    waiters: Arc<Waiters>,
    members: Members,
    company: Company,
    /// Whether engines may be about to join that have something to send.
    gathering: Arc<AtomicBool>,
}

impl Family {
    /// One in a company.
    #[must_use]
    pub fn within(company: Company) -> Self {
        Self {
            company,
            ..Self::default()
        }
    }

    /// What it shares with others.
    #[must_use]
    pub fn company(&self) -> &Company {
        &self.company
    }

    /// Where to wait for something to happen.
    #[must_use]
    pub fn stir(&self) -> &Stir {
        &self.company.stir
    }

    /// Engines are about to join in which changes wait since an earlier daemon.
    pub fn begin_gathering(&self) {
        self.gathering.store(true, Ordering::Release);
    }

    /// Every engine in which something waits has joined.
    pub fn end_gathering(&self) {
        if self.gathering.swap(false, Ordering::AcqRel) {
            for member in self.members() {
                member.wake_uploader();
            }
        }
    }

    /// Tells whether it is not known yet what waits in other engines.
    pub(crate) fn is_gathering(&self) -> bool {
        self.gathering.load(Ordering::Acquire)
    }

    /// Requests of programs that wait for the service.
    pub(crate) fn waiters(&self) -> Arc<Waiters> {
        Arc::clone(&self.waiters)
    }

    /// One more engine.
    pub(crate) fn join(&self, engine: &Arc<Engine>) {
        self.members.join(engine);
        self.company.members.join(engine);
    }

    /// The engines there are.
    pub(crate) fn members(&self) -> Vec<Arc<Engine>> {
        self.members.all()
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("members", &self.members.0.lock().len())
            .finish_non_exhaustive()
    }
}
