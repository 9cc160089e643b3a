//! Programs that list one folder after the other.

use std::collections::{BTreeMap, BTreeSet};

use onedrivefs_vfs::FileKind;

use crate::chaos::Random;
use crate::fixture::{Mount, settle};

/// Entries of a folder as the kernel gets them, and whether they are folders.
async fn list(m: &Mount, path: &str) -> Vec<(String, bool)> {
    let ino = m.ino(path);
    let fh = settle(m.vfs.opendir(ino)).await.expect("opened");
    let mut listed = Vec::new();
    let mut offset = 0;
    loop {
        let before = offset;
        let mut left = 7;
        let read = m.vfs.readdir(ino, fh, before, &mut |entry| {
            left -= 1;
            if left > 0 {
                listed.push((entry.name.to_owned(), entry.kind == FileKind::Directory));
                offset = entry.next_offset;
            }
            left == 0
        });
        if let Some(ahead) = read.expect("listing") {
            m.vfs.read_ahead(&ahead);
        }
        if offset == before {
            break;
        }
    }
    m.vfs.releasedir(fh);
    listed.retain(|(name, _)| name != "." && name != "..");
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_during_a_walk_is_listed_as_it_is() {
    const SEED: u64 = 0x0dd_ba11;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let m = Mount::new().await;
    let folders = ["a", "a/b", "a/b/c", "d", "d/e", "f"];
    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for folder in folders {
        m.mkdir(folder);
        expected.insert(folder, BTreeSet::new());
    }
    for round in 0..60 {
        list(&m, "").await;
        for folder in folders {
            if random.below(3) == 0 {
                let at = random.pick(&folders);
                let files = expected.get_mut(at).expect("known");
                match files.pop_first() {
                    Some(file) if random.below(2) == 0 => m.unlink(&format!("{at}/{file}")),
                    taken => {
                        files.extend(taken);
                        let file = format!("{round} {folder}").replace('/', " ");
                        m.write(&format!("{at}/{file}"), b"x").await;
                        files.insert(file);
                    }
                }
            }
            for again in 0..=random.below(2) {
                let listed = list(&m, folder).await.into_iter();
                let files: BTreeSet<_> = listed.filter(|e| !e.1).map(|e| e.0).collect();
                assert_eq!(files, expected[folder], "{folder}, {round}, {again}");
            }
        }
    }
}
