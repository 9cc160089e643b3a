//! Bodies whose rows are not in the database yet.

use std::fs;

use crate::layout::Layout;
use crate::{BodyId, Content, Place};

#[test]
fn what_is_not_known_yet_is_told_from_what_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (spool, cache) = (dir.path().join("spool"), dir.path().join("cache"));
    let content = Content::open(&spool, &cache).expect("open");
    content
        .create_provisional(BodyId(1), b"made")
        .expect("created");
    let source = dir.path().join("source");
    fs::write(&source, b"taken in").expect("source");
    let layout = Layout::open(&spool, &cache).expect("open");
    let path = layout.path(Place::Spool, BodyId(2));
    layout
        .copy_provisionally(&source, Place::Spool, &path)
        .expect("copied");
    let listed = || {
        let mut stored = content.list(Place::Spool).expect("listed");
        stored.sort_by_key(|one| one.id);
        let told = stored
            .iter()
            .map(|one| (one.id, one.len, one.links, one.provisional));
        told.collect::<Vec<_>>()
    };
    assert_eq!(listed(), [(BodyId(1), 4, 1, true), (BodyId(2), 8, 1, true)]);
    for id in [BodyId(1), BodyId(2)] {
        content.confirm(id).expect("confirmed");
    }
    assert_eq!(
        listed(),
        [(BodyId(1), 4, 1, false), (BodyId(2), 8, 1, false)]
    );
    assert_eq!(fs::read(&path).expect("read"), b"taken in");
}
