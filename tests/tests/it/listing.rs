//! Listings of large folders that change meanwhile: what is there all the time is listed once, with
//! the attributes that it has by then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use onedrivefs_sim::FileBody;
use onedrivefs_tests::{Home, Need, Service, needs};
use rustix::fs::Dir;

/// Entries of the folder: many times what the kernel takes at once.
const MANY: usize = 3000;

fn name(number: usize) -> String {
    format!("file {number:04}")
}

fn small(number: usize) -> (String, FileBody, i64) {
    (name(number), FileBody::from("x"), 1_700_000_000_000)
}

/// Opens a directory for reading, with what the standard library cannot.
fn open(path: &Path) -> Dir {
    Dir::new(File::open(path).expect("folder")).expect("directory")
}

/// The next entry: its name, and the place after it.
fn next(directory: &mut Dir) -> Option<(String, i64)> {
    let entry = directory.read()?.expect("entry");
    let name = entry.file_name().to_str().expect("name").to_owned();
    Some((name, entry.offset()))
}

/// Counts the names that follow.
fn rest(directory: &mut Dir, seen: &mut BTreeMap<String, usize>) {
    while let Some((name, _)) = next(directory) {
        *seen.entry(name).or_default() += 1;
    }
}

#[test]
fn a_folder_that_changes_while_it_is_listed() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put_all("/many", (0..MANY).map(small)).expect("files");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let at = |name: &str| mount.at("many").join(name);

    let mut directory = open(&mount.at("many"));
    let mut seen = BTreeMap::new();
    let (first, _) = next(&mut directory).expect("entry");
    seen.insert(first, 1);
    // Some are saved the way editors do, one with a backup, some are renamed, some removed.
    for number in (0..MANY).step_by(100) {
        fs::write(at("saving"), "saved").expect("written");
        fs::rename(at("saving"), at(&name(number))).expect("saved");
        fs::rename(at(&name(number + 1)), at(&format!("renamed {number}"))).expect("renamed");
        fs::remove_file(at(&name(number + 2))).expect("removed");
        fs::rename(at(&name(number + 3)), at(&format!("{}~", name(number + 3)))).expect("backup");
        fs::write(at(&name(number + 3)), "saved anew").expect("saved");
        fs::write(at(&name(number + 4)), "longer").expect("written");
    }
    rest(&mut directory, &mut seen);
    for number in 0..MANY {
        let name = name(number);
        let count = seen.get(&name).copied().unwrap_or(0);
        match number % 100 {
            1 => {
                let renamed = format!("renamed {}", number - 1);
                let both = count + seen.get(&renamed).copied().unwrap_or(0);
                assert!((1..=2).contains(&both), "{name}: {count}, {both}");
            }
            2 => assert!(count <= 1, "{name}: {count}"),
            _ => assert_eq!(count, 1, "{name}"),
        }
    }
    for number in (0..MANY).step_by(100) {
        let size = |number| fs::metadata(at(&name(number))).expect("there").len();
        assert_eq!(
            [size(number), size(number + 3), size(number + 4)],
            [5, 10, 6]
        );
    }
    // From the beginning, all is as it is now.
    directory.rewind();
    let mut again = BTreeMap::new();
    rest(&mut directory, &mut again);
    let now = fs::read_dir(mount.at("many")).expect("folder").count();
    assert_eq!(again.len(), now + 2, "with itself and the one above");
    assert!(again.values().all(|count| *count == 1));
    drop(directory);
    mount.sync();
    mount.unmount();
}

#[test]
fn a_place_in_a_listing_stays_where_it_is() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put_all("/many", (0..MANY).map(small)).expect("files");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let mut directory = open(&mount.at("many"));
    let mut order = Vec::new();
    let mut places = vec![0];
    while let Some((name, place)) = next(&mut directory) {
        order.push(name);
        places.push(place);
    }
    assert_eq!(order.len(), MANY + 2);
    fs::remove_file(mount.at("many").join(&order[MANY / 2])).expect("removed");
    fs::write(mount.at("many/new"), "new").expect("written");
    // The beginning last: it is a new listing.
    for index in [MANY, 1, MANY - 1, 700, 2, MANY / 2 + 1, 0] {
        directory.seek(places[index]).expect("seek");
        let found = next(&mut directory).map(|(name, _)| name);
        assert_eq!(found.as_ref(), Some(&order[index]), "at {index}");
    }
    drop(directory);
    mount.unmount();
}
