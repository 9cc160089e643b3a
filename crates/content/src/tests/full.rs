//! A disk that is full.

use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;

use rangemap::RangeSet;

use crate::layout::Layout;
use crate::{Body, BodyId, ContentError, Place};

/// A body on the device that is always full.
fn full_body(dir: &tempfile::TempDir, size: u64) -> Body {
    let layout = Layout::open(&dir.path().join("spool"), &dir.path().join("cache")).expect("open");
    let device = OpenOptions::new().read(true).write(true).open("/dev/full");
    let file = device.expect("/dev/full");
    Body::new(
        Arc::new(layout),
        BodyId(1),
        file,
        Place::Cache,
        size,
        RangeSet::new(),
    )
}

#[test]
fn writes_and_fills_say_so_and_change_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let body = full_body(&dir, 100);
    let error = body.fill(0, b"downloaded").expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let error = body.write_at(95, b"longer than it was").expect_err("full");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(body.size(), 100);
    assert_eq!(body.missing(0..200), vec![0..100]);
    assert!(body.is_pristine());
    assert!(ContentError::new("writing", dir.path(), error).is_no_space());
}
