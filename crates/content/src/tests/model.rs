//! Random operations on a body and its snapshots, compared with plain vectors.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use rangemap::RangeSet;
use tempfile::TempDir;

use crate::{Body, BodyId, Content, Place, Snapshot, is_missing};

/// Largest size a model grows to, in bytes. Small, so that operations meet.
const MODEL_BYTES: u64 = 6_000;

#[derive(Clone, Debug)]
enum Op {
    Fill { at: u64, len: u64 },
    Write { at: u64, len: u64, byte: u8 },
    SetLen(u64),
    Punch { at: u64, len: u64 },
    Zero { at: u64, len: u64, keep: bool },
    Allocate { at: u64, len: u64, keep: bool },
    Snapshot,
    SnapshotFill { at: u64, len: u64 },
    DropSnapshot,
    Promote,
    Demote,
    WipeCache,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = || 0..MODEL_BYTES;
    let len = || prop_oneof![Just(0), Just(1), 1..200_u64, 1..MODEL_BYTES];
    let op = prop_oneof![
        4 => (at(), len()).prop_map(|(at, len)| Op::Fill { at, len }),
        6 => (at(), len(), 1..=255_u8).prop_map(|(at, len, byte)| Op::Write { at, len, byte }),
        3 => at().prop_map(Op::SetLen),
        2 => (at(), len()).prop_map(|(at, len)| Op::Punch { at, len }),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Op::Zero { at, len, keep }),
        1 => (at(), len(), any::<bool>())
            .prop_map(|(at, len, keep)| Op::Allocate { at, len, keep }),
        4 => Just(Op::Snapshot),
        4 => (at(), len()).prop_map(|(at, len)| Op::SnapshotFill { at, len }),
        2 => Just(Op::DropSnapshot),
        1 => Just(Op::Promote),
        1 => Just(Op::Demote),
        1 => Just(Op::WipeCache),
    ];
    vec(op, 1..60)
}

/// The byte the service has at an offset; never zero, so that a hole cannot pass for it.
fn base_byte(at: u64) -> u8 {
    (at % 250) as u8 + 1
}

/// A byte of the model: absent when it was never fetched.
type Bytes = Vec<Option<u8>>;

struct Model {
    body: Bytes,
    snapshot: Option<Bytes>,
}

impl Model {
    fn write(&mut self, at: u64, data: impl Iterator<Item = u8>) {
        for (index, byte) in data.enumerate() {
            let at = at as usize + index;
            if at >= self.body.len() {
                self.body.resize(at + 1, Some(0));
            }
            self.body[at] = Some(byte);
        }
    }

    fn fill(&mut self, at: u64, len: u64) {
        for at in at..at + len {
            let targets = [Some(&mut self.body), self.snapshot.as_mut()];
            for bytes in targets.into_iter().flatten() {
                if let Some(byte @ None) = bytes.get_mut(at as usize) {
                    *byte = Some(base_byte(at));
                }
            }
        }
    }

    fn grow(&mut self, end: u64) {
        if end as usize > self.body.len() {
            self.body.resize(end as usize, Some(0));
        }
    }

    fn zero(&mut self, at: u64, len: u64) {
        let end = self.body.len().min((at + len) as usize);
        if (at as usize) < end {
            self.body[at as usize..end].fill(Some(0));
        }
    }
}

fn base(at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(base_byte).collect()
}

struct Fixture {
    dir: TempDir,
    content: Content,
    body: Arc<Body>,
    snapshot: Option<Snapshot>,
    model: Model,
}

impl Fixture {
    fn new(size: u64, copying: bool) -> Self {
        let dir = TempDir::new().expect("tempdir");
        let content =
            Content::open(&dir.path().join("spool"), &dir.path().join("cache")).expect("open");
        let content = if copying { content.copying() } else { content };
        let body = content.create_sparse(BodyId(42), size).expect("create");
        let model = Model {
            body: vec![None; size as usize],
            snapshot: None,
        };
        Self {
            dir,
            content,
            body,
            snapshot: None,
            model,
        }
    }

    fn apply(&mut self, op: &Op) {
        let model = &mut self.model;
        match *op {
            Op::Fill { at, len } => {
                self.body.fill(at, &base(at, len)).expect("fill");
                model.fill(at, len);
            }
            Op::Write { at, len, byte } => {
                let before = self.body.presence();
                let written = self.body.write_at(at, &vec![byte; len as usize]);
                if !written.expect("write").presence_grew && !self.body.is_complete() {
                    assert_eq!(self.body.presence(), before);
                }
                if len > 0 {
                    model.grow(at);
                    model.write(at, std::iter::repeat_n(byte, len as usize));
                }
            }
            Op::SetLen(len) => {
                self.body.set_len(len).expect("set_len");
                model.body.resize(len as usize, Some(0));
            }
            Op::Punch { at, len } => {
                self.body.punch_hole(at, len).expect("punch");
                model.zero(at, len);
            }
            Op::Zero { at, len, keep } => {
                self.body.zero_range(at, len, keep).expect("zero");
                model.zero(at, len);
                if !keep {
                    model.grow(at + len);
                }
            }
            Op::Allocate { at, len, keep } => {
                self.body.allocate(at, len, keep).expect("allocate");
                if !keep {
                    model.grow(at + len);
                }
            }
            Op::Snapshot => self.take_snapshot(),
            Op::SnapshotFill { at, len } => {
                if let Some(snapshot) = &self.snapshot {
                    snapshot.fill(at, &base(at, len)).expect("fill");
                    model.fill(at, len);
                }
            }
            Op::DropSnapshot => {
                self.snapshot = None;
                model.snapshot = None;
            }
            Op::Promote => self.content.promote(&self.body).expect("promote"),
            Op::Demote => self.content.demote(&self.body).expect("demote"),
            Op::WipeCache => {
                // Absent when the wipe before was not followed by a new body.
                let _gone = std::fs::remove_dir_all(self.dir.path().join("cache"));
            }
        }
    }

    fn take_snapshot(&mut self) {
        assert_eq!(self.body.has_snapshot(), self.snapshot.is_some());
        let taken = self.body.snapshot();
        assert_eq!(taken.is_some(), self.snapshot.is_none());
        if taken.is_some() {
            assert!(!self.body.changed_since_snapshot());
            self.snapshot = taken;
            self.model.snapshot = Some(self.model.body.clone());
        }
    }

    fn check(&self) {
        let body = &self.body;
        assert_eq!(body.size(), self.model.body.len() as u64);
        compare(
            "body",
            &self.model.body,
            &body.missing(0..u64::MAX),
            |at, buf| body.read_at(at, buf),
        );
        if let (Some(snapshot), Some(model)) = (&self.snapshot, &self.model.snapshot) {
            assert_eq!(snapshot.size(), model.len() as u64);
            compare(
                "snapshot",
                model,
                &snapshot.missing(0..u64::MAX),
                |at, buf| snapshot.read_at(at, buf),
            );
            if self.model.body != *model {
                assert!(body.changed_since_snapshot() || model.contains(&None));
            }
        }
        self.check_seeks();
    }

    fn check_seeks(&self) {
        let size = self.body.size();
        let mut at = 0;
        while at < size {
            let data = self.body.seek_data(at).expect("seek");
            let end = data.unwrap_or(size);
            for at in at..end {
                assert_eq!(self.model.body[at as usize], Some(0), "hole at {at}");
            }
            let Some(data) = data else { break };
            let hole = self.body.seek_hole(data).expect("seek").expect("inside");
            assert!(data < hole && hole <= size, "{data} {hole} {size}");
            at = hole;
        }
        assert_eq!(self.body.seek_hole(size).expect("seek"), None);
    }
}

/// Reads everything that is there, and finds out that the rest is not.
fn compare(
    what: &str,
    model: &Bytes,
    missing: &[std::ops::Range<u64>],
    read: impl Fn(u64, &mut [u8]) -> std::io::Result<usize>,
) {
    let missing: RangeSet<u64> = missing.iter().cloned().collect();
    for (at, byte) in model.iter().enumerate() {
        assert_eq!(
            missing.contains(&(at as u64)),
            byte.is_none(),
            "{what} {at}"
        );
    }
    if !model.is_empty() {
        for there in missing.gaps(&(0..model.len() as u64)) {
            let mut buf = vec![0; (there.end - there.start) as usize];
            assert_eq!(read(there.start, &mut buf).expect("read"), buf.len());
            let expected: Vec<u8> = model[there.start as usize..there.end as usize]
                .iter()
                .map(|byte| byte.expect("present"))
                .collect();
            assert!(buf == expected, "{what} differs in {there:?}");
        }
    }
    for gap in missing.iter() {
        let error = read(gap.start, &mut [0]).expect_err("missing");
        assert!(is_missing(&error), "{what} {error}");
    }
    let mut rest = [0; 8];
    assert_eq!(read(model.len() as u64, &mut rest).expect("read"), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_body_behaves_like_a_vector(
        size in 0..MODEL_BYTES,
        copying in any::<bool>(),
        ops in ops(),
    ) {
        let mut fixture = Fixture::new(size, copying);
        for op in &ops {
            fixture.apply(op);
            fixture.check();
        }
    }
}

#[test]
fn place_follows_the_moves() {
    let fixture = Fixture::new(10, false);
    assert_eq!(fixture.body.place(), Place::Cache);
    fixture.content.promote(&fixture.body).expect("promote");
    assert_eq!(fixture.body.place(), Place::Spool);
}
