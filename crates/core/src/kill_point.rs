//! Points at which a test can end the daemon as `kill -9` would: before and after every step that
//! leaves something on disk or on the service.
//!
//! Builds without debug assertions, which is every release, have none of it: [`kill_point`] is
//! empty there. What happens at a point is the program's business; this is only the wire to it.

#[cfg(debug_assertions)]
use std::panic::Location;
#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// Told of every pass: what is about to happen or just did, and the line of code.
#[cfg(debug_assertions)]
pub type Hook = Box<dyn Fn(&str, &Location<'_>) + Send + Sync>;

#[cfg(debug_assertions)]
static HOOK: OnceLock<Hook> = OnceLock::new();

/// Says who is told of every pass from here on. Only the first call counts.
#[cfg(debug_assertions)]
pub fn install(hook: Hook) {
    // A second one would be a mistake of a test program, which then sees no passes.
    let _ignored = HOOK.set(hook);
}

/// Passes a point. A caller that is `#[track_caller]` itself stands for its own caller.
#[cfg(debug_assertions)]
#[track_caller]
pub fn kill_point(name: &str) {
    if let Some(hook) = HOOK.get() {
        hook(name, Location::caller());
    }
}

/// Nothing, outside of debug builds.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn kill_point(_name: &str) {}
