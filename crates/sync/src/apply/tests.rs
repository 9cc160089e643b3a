//! Random changes on a model of the service, arriving as delta pages in any order, must give the
//! same tree here.

use std::collections::{BTreeMap, BTreeSet};

use onedrivefs_core::{CTag, ETag, Ino, ItemId, ItemKind, Provenance, RemoteItem, Timestamp};
use onedrivefs_store::{Store, StoreError};
use proptest::prelude::*;

use super::kept_tests::NOBODY;
use super::{Applied, Applier, Facts};

/// An item of the model.
#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    name: String,
    folder: bool,
    version: u32,
}

/// The service: items by number, 0 being the root.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u32, Node>,
    next: u32,
    changed: BTreeSet<u32>,
}

#[derive(Clone, Debug)]
enum Op {
    Create {
        parent: usize,
        name: usize,
        folder: bool,
    },
    Move {
        node: usize,
        parent: usize,
        name: usize,
    },
    Swap {
        a: usize,
        b: usize,
    },
    Change {
        node: usize,
    },
    Delete {
        node: usize,
    },
    Round {
        seed: u64,
    },
}

const NAMES: &[&str] = &["a", "b", "C", "d.txt", "é"];

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..64_usize, 0..NAMES.len(), any::<bool>()).prop_map(|(parent, name, folder)| Op::Create { parent, name, folder }),
        4 => (0..64_usize, 0..64_usize, 0..NAMES.len()).prop_map(|(node, parent, name)| Op::Move { node, parent, name }),
        2 => (0..64_usize, 0..64_usize).prop_map(|(a, b)| Op::Swap { a, b }),
        1 => (0..64_usize).prop_map(|node| Op::Change { node }),
        2 => (0..64_usize).prop_map(|node| Op::Delete { node }),
        2 => any::<u64>().prop_map(|seed| Op::Round { seed }),
    ]
}

impl Model {
    fn pick(&self, index: usize, folders: bool) -> Option<u32> {
        let mut fit: Vec<u32> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.folder || !folders)
            .map(|(&id, _)| id)
            .collect();
        if folders {
            fit.push(0);
        }
        (!fit.is_empty()).then(|| fit[index % fit.len()])
    }

    fn is_free(&self, parent: u32, name: &str) -> bool {
        !self
            .nodes
            .values()
            .any(|n| n.parent == parent && n.name == name)
    }

    fn is_inside(&self, mut at: u32, ancestor: u32) -> bool {
        while at != 0 {
            if at == ancestor {
                return true;
            }
            at = self.nodes[&at].parent;
        }
        false
    }

    fn touch(&mut self, id: u32) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.version += 1;
        }
        self.changed.insert(id);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Create {
                parent,
                name,
                folder,
            } => {
                let parent = self.pick(parent, true).unwrap_or(0);
                if self.is_free(parent, NAMES[name]) {
                    self.next += 1;
                    let node = Node {
                        parent,
                        name: NAMES[name].into(),
                        folder,
                        version: 0,
                    };
                    self.nodes.insert(self.next, node);
                    self.touch(self.next);
                }
            }
            Op::Move { node, parent, name } => {
                let (Some(id), Some(parent)) = (self.pick(node, false), self.pick(parent, true))
                else {
                    return;
                };
                if self.is_free(parent, NAMES[name]) && !self.is_inside(parent, id) {
                    let node = self.nodes.get_mut(&id).unwrap();
                    (node.parent, node.name) = (parent, NAMES[name].into());
                    self.touch(id);
                }
            }
            Op::Swap { a, b } => {
                let (Some(a), Some(b)) = (self.pick(a, false), self.pick(b, false)) else {
                    return;
                };
                if self.is_inside(a, b) || self.is_inside(b, a) {
                    return;
                }
                let (at_a, at_b) = (self.nodes[&a].clone(), self.nodes[&b].clone());
                for (id, at) in [(a, at_b), (b, at_a)] {
                    let node = self.nodes.get_mut(&id).unwrap();
                    (node.parent, node.name) = (at.parent, at.name);
                    self.touch(id);
                }
            }
            Op::Change { node } => {
                if let Some(id) = self.pick(node, false) {
                    self.touch(id);
                }
            }
            Op::Delete { node } => {
                let Some(id) = self.pick(node, false) else {
                    return;
                };
                let gone: Vec<u32> = self
                    .nodes
                    .keys()
                    .copied()
                    .filter(|&n| self.is_inside(n, id))
                    .collect();
                for id in gone {
                    self.nodes.remove(&id);
                    self.changed.insert(id);
                }
            }
            Op::Round { .. } => {}
        }
    }

    fn describe(&self, id: u32) -> RemoteItem {
        let node = self.nodes.get(&id);
        let item_id = |n: u32| ItemId::new(format!("ID{n}"));
        RemoteItem {
            id: item_id(id),
            parent: node.map(|n| item_id(n.parent)),
            drive: None,
            name: node.map(|n| n.name.clone()),
            kind: if node.is_some_and(|n| n.folder) {
                ItemKind::Folder
            } else {
                ItemKind::File
            },
            deleted: id != 0 && node.is_none(),
            is_root: id == 0,
            size: Some(u64::from(node.map_or(0, |n| n.version))),
            etag: Some(ETag::new(format!(
                "e{id}-{}",
                node.map_or(0, |n| n.version)
            ))),
            ctag: node.map(|n| CTag::new(format!("c{id}-{}", n.version))),
            created: None,
            modified: Some(Timestamp::from_nanos(0)),
            hash: None,
            web_url: None,
            malware: false,
            provenance: Provenance::default(),
            link: None,
        }
    }

    /// The page of a round: what changed, in an order that the seed decides.
    fn page(&mut self, seed: u64) -> Vec<RemoteItem> {
        let mut ids: Vec<u32> = std::mem::take(&mut self.changed).into_iter().collect();
        ids.sort_by_key(|id| (u64::from(*id) + 1).wrapping_mul(seed | 1).rotate_left(17));
        ids.into_iter().map(|id| self.describe(id)).collect()
    }

    fn tree(&self) -> BTreeSet<(String, bool, u64)> {
        self.nodes
            .iter()
            .map(|(&id, node)| {
                (
                    self.path(id),
                    node.folder,
                    if node.folder {
                        0
                    } else {
                        u64::from(node.version)
                    },
                )
            })
            .collect()
    }

    fn path(&self, id: u32) -> String {
        let node = &self.nodes[&id];
        if node.parent == 0 {
            node.name.clone()
        } else {
            format!("{}/{}", self.path(node.parent), node.name)
        }
    }
}

/// Applies a page the way a round does.
fn apply_round(store: &Store, page: &[RemoteItem]) {
    store
        .write(|tx| {
            let facts = Facts {
                now: Timestamp::from_nanos(1),
                host: "host",
                oneself: &NOBODY,
                epoch: 1,
                children_come_along: true,
                prefer_confirmed: false,
                creating: false,
                in_flight: &|_| false,
                bodies: None,
            };
            let mut applier = Applier::new(tx, facts);
            tx.stage(page)?;
            loop {
                let mut progress = false;
                for (_, item) in tx.staged(0, 10_000)? {
                    if !item.deleted && applier.apply(&item)? == Applied::Done {
                        tx.unstage_item(&item.id)?;
                        progress = true;
                    }
                }
                if !progress {
                    break;
                }
            }
            for (_, item) in tx.staged(0, 10_000)? {
                assert!(item.deleted, "an item was left over: {item:?}");
                applier.apply(&item)?;
            }
            tx.clear_stage()
        })
        .unwrap();
}

fn tree_here(store: &Store) -> BTreeSet<(String, bool, u64)> {
    store
        .read(|r| {
            let mut found = BTreeSet::new();
            let mut folders = vec![Ino::ROOT];
            while let Some(folder) = folders.pop() {
                for item in r.children(folder)? {
                    found.insert((r.path(item.ino)?, item.is_dir(), item.size));
                    if item.is_dir() {
                        folders.push(item.ino);
                    }
                }
            }
            Ok::<_, StoreError>(found)
        })
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn pages_in_any_order_give_the_tree_of_the_service(ops in prop::collection::vec(any_op(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("meta.db")).unwrap();
        let mut model = Model::default();
        apply_round(&store, &[model.describe(0)]);
        for op in ops.iter().chain([&Op::Round { seed: 7 }]) {
            model.run(op);
            if let Op::Round { seed } = op {
                let page = model.page(*seed);
                apply_round(&store, &page);
                // The same page again changes nothing.
                apply_round(&store, &page);
                prop_assert_eq!(tree_here(&store), model.tree());
            }
        }
    }
}
