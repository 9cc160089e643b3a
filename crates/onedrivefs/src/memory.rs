//! How this process asks the system for memory.
//!
//! The kernel's requests are read into a buffer for each thread of each mount, of 16 MiB, of which most
//! is never touched. glibc gives such buffers back to the system as they are freed, until the first
//! one was: from then on it keeps what it is given back, and has to clear what it hands out again, so that
//! all of it is in use. A hundred mounts took 14 MiB each in this way. With fixed limits it does not.

#![allow(
    unsafe_code,
    reason = "the allocator's settings have no safe form in the libraries used"
)]

/// Blocks of at least this many bytes come from the system and go back there. Less than the buffers,
/// and more than what programs read and write at once.
#[cfg(target_env = "gnu")]
const OWN_BLOCK: i32 = 4 << 20;

/// Free bytes at the end of a heap that are kept for the next one who asks.
#[cfg(target_env = "gnu")]
const KEPT_FREE: i32 = 4 << 20;

/// Most heaps. Usually there are eight for each processor, each of which keeps free memory.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: usize = 8;

/// Sets limits for this process. To be called before there is a second thread.
#[cfg(target_env = "gnu")]
pub(crate) fn limit() {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let heaps = i32::try_from((2 * cpus).min(HEAPS_MAX)).unwrap_or(1);
    for (setting, value) in [
        (libc::M_MMAP_THRESHOLD, OWN_BLOCK),
        (libc::M_TRIM_THRESHOLD, KEPT_FREE),
        (libc::M_ARENA_MAX, heaps),
    ] {
        // SAFETY: the call takes two numbers, and no other thread allocates meanwhile.
        let taken = unsafe { libc::mallopt(setting, value) };
        // What it does not know stays as it is.
        let _unknown = taken == 0;
    }
}

/// Other allocators have limits of their own.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn limit() {}
