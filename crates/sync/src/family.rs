//! The engines of one mount: each serves a drive, or a folder of one, and some things they share.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::Engine;
use crate::waiters::Waiters;

/// What the engines of one mount share.
#[derive(Clone, Default)]
pub struct Family {
    waiters: Arc<Waiters>,
    members: Arc<Mutex<Vec<Weak<Engine>>>>,
}

impl Family {
    /// Requests of programs that wait for the service.
    pub(crate) fn waiters(&self) -> Arc<Waiters> {
        Arc::clone(&self.waiters)
    }

    /// One more engine.
    pub(crate) fn join(&self, engine: &Arc<Engine>) {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(engine));
    }

    /// The engines there are.
    pub(crate) fn members(&self) -> Vec<Arc<Engine>> {
        self.members
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("members", &self.members.lock().len())
            .finish_non_exhaustive()
    }
}
