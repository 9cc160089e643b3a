//! The programs that judge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use onedrivefs_tests::{Home, needs};

/// A copy of a program where the home's owner can run it: it may have been built in a place that is
/// closed to others.
pub fn copy_for(home: &Home<'_>, name: &str) -> PathBuf {
    let found = needs::find_program(name).expect("program");
    let copy = home.path(name);
    fs::copy(found, &copy).expect("copy of the program");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("mode");
    copy
}
