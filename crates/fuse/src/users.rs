//! Who uses a mount, as far as /proc shows it without asking the mount anything.

use std::fs;
use std::path::Path;

/// A program that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, as it says itself.
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// Programs with open files, their working directory or their own file in a mount. Those of other
/// users cannot be seen, nor can mappings of files that were closed.
#[must_use]
pub fn users_of(mountpoint: &Path) -> Vec<User> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut users: Vec<_> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            uses(&process.path(), mountpoint).then(|| User {
                name: name_of(&process.path()),
                pid,
            })
        })
        .collect();
    users.sort_by_key(|user| user.pid);
    users
}

/// Tells whether a process uses a mount. The links say where something lies; they are not followed.
fn uses(process: &Path, mountpoint: &Path) -> bool {
    let leads_there = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(mountpoint));
    ["cwd", "root", "exe"]
        .iter()
        .any(|link| leads_there(&process.join(link)))
        || fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|open| leads_there(&open.path()))
}

fn name_of(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_and_nothing_else_make_a_user() {
        let dir = tempfile::tempdir().unwrap();
        let own = |users: Vec<User>| users.iter().any(|user| user.pid == std::process::id());
        assert!(!own(users_of(dir.path())));
        let open = fs::File::create(dir.path().join("file")).unwrap();
        let users = users_of(dir.path());
        assert!(users.iter().all(|user| !user.name.is_empty()), "{users:?}");
        assert!(own(users));
        // A name that only begins like that.
        let text = dir.path().to_str().unwrap().to_owned();
        assert!(!own(users_of(Path::new(&text[..text.len() - 1]))));
        drop(open);
        assert!(!own(users_of(dir.path())));
    }
}
