//! Folders of somebody else's drive that shortcuts show, which come and go.

use std::fs;

use onedrivefs_sim::{DriveHandle, DriveSpec};
use onedrivefs_tests::{Home, Service};

use super::{Story, put_all, state_dir};
use crate::act::{Act, Body, at, make, ours};
use crate::tree::{self, Node, Tree};

pub const STORY: Story = Story {
    name: "lent",
    seed,
    acts,
    same: &[("own.txt", "own.txt")],
    // The file that is only here.
    conflicts: 1,
    there,
    check,
    ..Story::PLAIN
};

const PLANS: &[(&str, Body)] = &[("a.txt", Body(1, 1_000)), ("deep/b.txt", Body(2, 1_100))];
const DULL: &[(&str, Body)] = &[("c.txt", Body(3, 1_200))];
const STAYING: &[(&str, Body)] = &[("d.txt", Body(4, 1_300))];
const OWN: &[(&str, Body)] = &[("own.txt", Body(5, 1_400))];

const NEW: Body = Body(10, 2_000);
const ONLY_HERE: Body = Body(11, 2_100);

fn seed(service: &Service) -> Tree {
    let mut tree = put_all(&service.default_drive(), OWN);
    tree.extend(lend(service, "plans", "Plans", PLANS));
    tree.extend(lend(service, "dull", "Dull", DULL));
    tree.extend(lend(service, "staying", "Staying", STAYING));
    tree
}

/// Puts files into a folder of somebody else's drive, and a shortcut to it into the one that is
/// mounted. Returns what the mount shows of it.
pub fn lend(service: &Service, path: &str, folder: &str, files: &[(&str, Body)]) -> Tree {
    let theirs = theirs(service).unwrap_or_else(|| service.add_drive(DriveSpec::default()));
    let id = theirs.mkdir(folder).expect("folder");
    for (name, body) in files {
        let path = format!("{folder}/{name}");
        theirs.put(&path, body.make()).expect("file");
    }
    let shortcut = service.default_drive().add_shortcut(path, theirs.id(), &id);
    shortcut.expect("shortcut");
    let mut tree = below(&theirs, folder, path).expect("their drive");
    tree.insert(path.to_owned(), Node::Folder);
    tree
}

/// The drive that is somebody else's.
fn theirs(service: &Service) -> Option<DriveHandle> {
    let own = service.default_drive();
    let mut drives = service.drives().into_iter();
    drives.find(|drive| drive.id() != own.id())
}

/// What is below a folder of a drive, as if it were below another path.
fn below(drive: &DriveHandle, folder: &str, path: &str) -> Result<Tree, String> {
    let tree = tree::of_service(drive)?.into_iter();
    let inside = tree.filter_map(|(name, node)| {
        let rest = name.strip_prefix(folder)?.strip_prefix('/')?;
        Some((format!("{path}/{rest}"), node))
    });
    Ok(inside.collect())
}

/// What the service has: in place of shortcuts, which have the names of the folders that they lead
/// to but for the case, what they show.
pub fn there(service: &Service) -> Result<Tree, String> {
    let mut tree = tree::of_service(&service.default_drive())?;
    let Some(theirs) = theirs(service) else {
        return Ok(tree);
    };
    for folder in theirs.dump().iter().filter(|entry| entry.folder) {
        let name = folder.path.trim_start_matches('/');
        let path = name.to_lowercase();
        if tree.contains_key(&path) {
            tree.insert(path.clone(), Node::Folder);
            tree.extend(below(&theirs, name, &path)?);
        }
    }
    Ok(tree)
}

fn acts() -> Vec<Act> {
    let mut acts = vec![Act::Sync, Act::Read("plans/a.txt", 0, 1_000)];
    acts.extend(make("plans/new.txt", NEW));
    acts.push(Act::Mkdir("plans/made"));
    acts.extend(make("plans/only-here.part", ONLY_HERE));
    acts.extend([
        Act::Sync,
        Act::Read("dull/c.txt", 0, 1_000),
        // As `rm -r` does: only the shortcut is meant.
        Act::Unlink("dull/c.txt"),
        Act::Rmdir("dull"),
        Act::There(
            "a shortcut gone",
            |drive| drop(drive.delete("plans")),
            || {
                let names = [
                    "a.txt",
                    "deep",
                    "deep/b.txt",
                    "new.txt",
                    "made",
                    "only-here.part",
                ];
                let inside = names.map(|name| at(&format!("plans/{name}"), None));
                inside.into_iter().chain([at("plans", None)]).collect()
            },
        ),
        Act::Sync,
        Act::Until("both are cleared away", |status, _| {
            status["drives"]
                .as_array()
                .is_some_and(|all| all.len() == 1)
        }),
    ]);
    acts.extend(make("staying/new.txt", Body(12, 500)));
    acts.push(Act::Sync);
    acts
}

/// Their drive has what it had and what was made in it; what is only here is kept, once.
fn check(home: &Home<'_>) -> Result<(), String> {
    let theirs = theirs(home.service).ok_or("their drive is gone")?;
    let is = tree::of_service(&theirs)?;
    let file = |bytes: Body| ours(bytes);
    let mut wanted = Tree::from([
        ("Plans/made".to_owned(), Node::Folder),
        ("Plans/deep".to_owned(), Node::Folder),
        ("Plans/new.txt".to_owned(), file(NEW)),
        ("Staying/new.txt".to_owned(), file(Body(12, 500))),
    ]);
    for (folder, files) in [("Plans", PLANS), ("Dull", DULL), ("Staying", STAYING)] {
        wanted.insert(folder.to_owned(), Node::Folder);
        let files = files
            .iter()
            .map(|(name, body)| (format!("{folder}/{name}"), file(*body)));
        wanted.extend(files);
    }
    let unlike = tree::differences(&is, &wanted);
    if !unlike.is_empty() {
        return Err(format!("their drive differs:\n{}", unlike.join("\n")));
    }
    let state = state_dir(home);
    let entries = |name: &str| {
        fs::read_dir(state.join(name))
            .into_iter()
            .flatten()
            .flatten()
    };
    let kept: Vec<_> = entries("recovered")
        .map(|entry| fs::read(entry.path()).ok())
        .collect();
    if kept != [Some(ONLY_HERE.make())] {
        return Err(format!("{} files are kept, not the one", kept.len()));
    }
    match entries("followed").count() {
        1 => Ok(()),
        count => Err(format!("{count} states of folders of others, not the one")),
    }
}
