//! The engines of one mount: each serves a drive, or a folder of one, and some things they share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::Engine;
use crate::waiters::Waiters;

/// What the engines of one mount share.
#[derive(Clone, Default)]
pub struct Family {
    waiters: Arc<Waiters>,
    members: Arc<Mutex<Vec<Weak<Engine>>>>,
    /// Whether engines may be about to join that have something to send.
    gathering: Arc<AtomicBool>,
}

impl Family {
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
