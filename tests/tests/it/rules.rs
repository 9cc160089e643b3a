//! The shape of the workspace: who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The crates in their order: each may use those of earlier lines, and none of its own line.
const CHAIN: &[&[&str]] = &[
    &["core"],
    &["graph", "store", "content"],
    &["sync"],
    &["vfs"],
    &["fuse"],
    &["onedrivefs"],
];

/// The simulator, which shares nothing with the client: a misunderstanding must not be able to
/// hide on both sides. Only these may use it.
const SIMULATOR: (&str, &[&str]) = ("sim", &["onedrivefs", "tests"]);

/// Libraries that only some crates may use, development dependencies included.
const CONFINED: &[(&str, &[&str])] = &[
    ("fuser", &["fuse", "tests"]),
    ("reqwest", &["graph", "sim", "tests"]),
    ("rusqlite", &["store"]),
    ("axum", &["sim", "graph"]),
];

/// Libraries that certain crates must not use outside their tests.
const BANNED: &[(&str, &[&str])] = &[
    ("core", &["tokio", "rustix", "libc", "reqwest"]),
    ("store", &["tokio"]),
    ("content", &["tokio"]),
    ("graph", &["axum"]),
    ("sim", &["reqwest"]),
];

#[derive(Default)]
struct Dependencies {
    normal: BTreeSet<String>,
    development: BTreeSet<String>,
}

fn workspace() -> BTreeMap<String, Dependencies> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("root");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let mut all = Dependencies::default();
            for dependency in package["dependencies"].as_array().expect("list") {
                let name = short(dependency["name"].as_str().expect("name"));
                if dependency["kind"] == "dev" {
                    all.development.insert(name);
                } else {
                    all.normal.insert(name);
                }
            }
            (short(package["name"].as_str().expect("name")), all)
        })
        .collect()
}

fn short(name: &str) -> String {
    name.strip_prefix("onedrivefs-").unwrap_or(name).to_owned()
}

#[test]
fn dependencies_between_the_crates_point_one_way() {
    let workspace = workspace();
    let mut before: BTreeSet<&str> = BTreeSet::new();
    let mut known = BTreeSet::from([SIMULATOR.0, "tests"]);
    for level in CHAIN {
        known.extend(*level);
    }
    let names: BTreeSet<&str> = workspace.keys().map(String::as_str).collect();
    assert_eq!(names, known, "every crate has its place in the chain");
    let used_by = |name: &str| -> BTreeSet<&str> {
        let used = workspace[name].normal.iter().map(String::as_str);
        used.filter(|used| known.contains(used)).collect()
    };
    for level in CHAIN {
        for name in *level {
            let mut used = used_by(name);
            if SIMULATOR.1.contains(name) {
                used.remove(SIMULATOR.0);
            }
            let wrong: Vec<&&str> = used.difference(&before).collect();
            assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
        }
        before.extend(*level);
    }
    assert_eq!(used_by(SIMULATOR.0), BTreeSet::new());
    assert_eq!(
        used_by("tests"),
        BTreeSet::from([SIMULATOR.0]),
        "the tests know the product from outside only"
    );
}

#[test]
fn libraries_stay_where_they_belong() {
    let workspace = workspace();
    for (library, allowed) in CONFINED {
        for (name, used) in &workspace {
            let uses = used.normal.contains(*library) || used.development.contains(*library);
            assert!(
                !uses || allowed.contains(&name.as_str()),
                "{name} must not use {library}"
            );
        }
    }
    for (name, banned) in BANNED {
        for library in *banned {
            let uses = workspace[*name].normal.contains(*library);
            assert!(!uses, "{name} must not use {library}");
        }
    }
}
