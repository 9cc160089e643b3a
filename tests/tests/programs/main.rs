//! Real programs on real mounts: what they do to files, and what the service has afterwards. How
//! programs save is tested in `it/saves.rs`, everyday commands in `it/basics.rs`.

mod calls;
mod copies;
mod databases;
mod holes;
mod many;
mod office;
mod open;
mod repositories;

use onedrivefs_tests::mount::{Mount, MountSpec};
use onedrivefs_tests::{Home, Need, Service, needs};

/// Longest time a mount may be there, in seconds.
const LIMIT_S: u64 = 400;

/// Runs a test on a mount of an empty drive, or of what `seed` puts there. The mount ends cleanly.
fn on_a_mount(
    programs: &[&'static str],
    seed: impl FnOnce(&Service),
    test: impl for<'h> FnOnce(&'h Home<'h>, Mount<'h>) -> Mount<'h>,
) {
    let mut needed = vec![Need::Fuse];
    needed.extend(programs.iter().map(|&program| Need::Program(program)));
    if !needs::met(&needed) {
        return;
    }
    let service = Service::start();
    seed(&service);
    let home = Home::signed_in(&service);
    // What these programs delete is meant to be; `it/brake.rs` has the rest.
    home.configure("hold_deletions = 0\nhold_share = 0\n");
    let mount = home.mount_with(MountSpec::lasting(LIMIT_S));
    let mount = test(&home, mount);
    mount.unmount();
}

/// Mounts again, with nothing of any file's content kept here: what programs read comes from the
/// service, what `stat` shows from the database.
fn mount_anew<'h>(home: &'h Home<'h>, mount: Mount<'h>) -> Mount<'h> {
    mount.sync();
    mount.unmount();
    home.sh(r#"rm -rf "$XDG_CACHE_HOME/onedrivefs""#);
    home.mount_with(MountSpec::lasting(LIMIT_S))
}
