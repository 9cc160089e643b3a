//! Downloads and uploads.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use onedrivefs_core::{QuickXorHash, SecretString, Timestamp};
use onedrivefs_graph::{
    Conditions, Disposition, DownloadSource, FragmentOutcome, GraphError, Lane, OnConflict,
    UploadProps, UploadSession, UploadTarget, in_lane,
};
use onedrivefs_sim::{DriveKind, FaultAction, FaultRule, FileBody};

use crate::support::Bench;

const FRAGMENT: u64 = 327_680;

async fn read(
    bench: &Bench,
    source: &DownloadSource,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, GraphError> {
    let mut body = bench.graph.fetch(source, range).await?;
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn with_file(size: u64) -> (Bench, Vec<u8>, DownloadSource) {
    let bench = Bench::new(DriveKind::Business).await;
    bench
        .remote()
        .put("/f", FileBody::Generated { seed: 7, size })
        .unwrap();
    let whole = bench.remote().read("/f").unwrap();
    let item = bench.child("f").await;
    let source = bench
        .graph
        .download_source(&bench.drive, &item.id)
        .await
        .unwrap();
    (bench, whole, source)
}

#[tokio::test]
async fn ranges_are_exact_whatever_the_server_does() {
    for (ignore_range, direct) in [(false, false), (true, false), (false, true), (true, true)] {
        let (bench, whole, source) = with_file(100_000).await;
        bench.sim.set_knobs(|knobs| {
            knobs.ignore_range = ignore_range;
            knobs.content_direct = direct;
        });
        assert_eq!(source.size, Some(100_000));
        assert!(source.etag.is_some() && source.ctag.is_some());
        for range in [0..1, 0..100_000, 5..6, 99_999..100_000, 40_000..60_000] {
            let (start, end) = (range.start as usize, range.end as usize);
            assert_eq!(
                read(&bench, &source, range).await.unwrap(),
                whole[start..end]
            );
        }
        assert_eq!(
            read(&bench, &source, 90_000..200_000).await.unwrap(),
            whole[90_000..]
        );
        assert_eq!(
            read(&bench, &source, 90_000..u64::MAX).await.unwrap(),
            whole[90_000..]
        );
        assert!(read(&bench, &source, 5..5).await.unwrap().is_empty());
        let beyond = read(&bench, &source, 100_000..100_001).await.unwrap_err();
        assert_eq!(beyond.disposition(), Disposition::RangeMismatch);
        assert!(matches!(
            beyond,
            GraphError::RangeNotSatisfiable {
                total: Some(100_000)
            }
        ));
    }
}

#[tokio::test]
async fn the_token_stays_with_graph() {
    let (bench, _, source) = with_file(10).await;
    read(&bench, &source, 0..10).await.unwrap();
    upload(&bench, "new", 10).await.unwrap();
    let records = bench.sim.requests().since(0);
    let content: Vec<_> = records.iter().filter(|r| r.host == "content").collect();
    assert!(content.len() >= 2);
    assert!(content.iter().all(|record| !record.authorization));
}

#[tokio::test]
async fn expired_addresses_and_malware_are_told_apart() {
    let (bench, _, source) = with_file(10).await;
    bench.sim.expire_urls();
    let error = read(&bench, &source, 0..10).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::UrlExpired);
    bench.remote().set_malware("/f", true).unwrap();
    let item = bench.child("f").await;
    assert!(item.malware);
    let result = match bench.graph.download_source(&bench.drive, &item.id).await {
        Ok(source) => read(&bench, &source, 0..10).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert_eq!(result.unwrap_err().disposition(), Disposition::Permanent);
}

#[tokio::test]
async fn bodies_that_end_early_or_hang_are_errors() {
    let (bench, _, source) = with_file(1_000_000).await;
    let truncate = FaultAction::Truncate { bytes: 1000 };
    bench
        .sim
        .faults()
        .add(FaultRule::on("download", truncate).times(1));
    let error = read(&bench, &source, 0..1_000_000).await.unwrap_err();
    assert!(
        matches!(
            error.disposition(),
            Disposition::Retry | Disposition::Offline
        ),
        "{error:?}"
    );
    let stall = FaultAction::StallBody { bytes: 1000 };
    bench
        .sim
        .faults()
        .add(FaultRule::on("download", stall).times(1));
    let error = read(&bench, &source, 0..1_000_000).await.unwrap_err();
    assert!(matches!(error, GraphError::Stalled { .. }), "{error:?}");
}

fn target(bench: &Bench, name: &str) -> UploadTarget {
    UploadTarget::Create {
        drive: bench.drive.clone(),
        parent: bench.root.clone(),
        name: name.to_owned(),
    }
}

fn body_of(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

fn pieces(
    bytes: &[u8],
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Sync + use<> {
    let parts: Vec<_> = bytes
        .chunks(70_000)
        .map(|part| Ok(Bytes::copy_from_slice(part)))
        .collect();
    stream::iter(parts)
}

async fn open(bench: &Bench, name: &str, size: u64) -> Result<UploadSession, GraphError> {
    let props = UploadProps {
        name: name.to_owned(),
        size,
        created: None,
        modified: Timestamp::parse("2021-02-03T04:05:06Z"),
    };
    let conditions = Conditions::default();
    bench
        .graph
        .create_upload_session(&target(bench, name), &props, &conditions)
        .await
}

async fn upload(
    bench: &Bench,
    name: &str,
    size: u64,
) -> Result<Option<onedrivefs_core::RemoteItem>, GraphError> {
    let session = open(bench, name, size).await?;
    let whole = body_of(size);
    let mut offset = session.next_offset;
    loop {
        let end = (offset + FRAGMENT).min(size);
        let piece = pieces(&whole[offset as usize..end as usize]);
        let outcome = bench
            .graph
            .upload_fragment(&session.url, offset..end, size, piece)
            .await?;
        match outcome {
            FragmentOutcome::Continue { next_offset, .. } => offset = next_offset,
            FragmentOutcome::Done(item) => return Ok(item),
        }
    }
}

#[tokio::test]
async fn an_upload_arrives_whole_with_its_time() {
    for empty_body in [false, true] {
        let bench = Bench::new(DriveKind::Business).await;
        bench
            .sim
            .set_knobs(|knobs| knobs.empty_commit_body = empty_body);
        let size = 2 * FRAGMENT + 12_345;
        let done = upload(&bench, "f.bin", size).await.unwrap();
        assert_eq!(done.is_none(), empty_body);
        let item = bench.child("f.bin").await;
        assert_eq!(item.hash, Some(QuickXorHash::of(&body_of(size))));
        assert_eq!(item.modified, Timestamp::parse("2021-02-03T04:05:06Z"));
        assert_eq!(bench.remote().read("/f.bin").unwrap(), body_of(size));
    }
}

#[tokio::test]
async fn an_upload_rests_while_somebody_waits_for_something_else() {
    let bench = Bench::new(DriveKind::Business).await;
    let session = open(&bench, "f", FRAGMENT).await.unwrap();
    let hold = bench
        .sim
        .faults()
        .add(FaultRule::on("item", FaultAction::Hold));
    let (graph, drive, root) = (bench.graph.clone(), bench.drive.clone(), bench.root.clone());
    let read = tokio::spawn(async move { graph.item(&drive, &root).await });
    while bench.sim.requests().count("item") == 0 {
        tokio::task::yield_now().await;
    }
    let whole = body_of(FRAGMENT);
    let sent = bench
        .graph
        .upload_fragment(&session.url, 0..FRAGMENT, FRAGMENT, pieces(&whole));
    let begun = Instant::now();
    in_lane(Lane::Upload, sent).await.unwrap();
    // Not for ever: the read is still waiting.
    assert!(begun.elapsed() >= Duration::from_millis(500));
    bench.sim.faults().remove(hold);
    read.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_can_be_asked_and_given_up() {
    let bench = Bench::new(DriveKind::Business).await;
    let size = 3 * FRAGMENT;
    let session = open(&bench, "f", size).await.unwrap();
    let whole = body_of(size);
    let first = pieces(&whole[..FRAGMENT as usize]);
    let drop_after = FaultAction::DropAfter;
    bench
        .sim
        .faults()
        .add(FaultRule::on("upload_fragment", drop_after).times(1));
    let lost = bench
        .graph
        .upload_fragment(&session.url, 0..FRAGMENT, size, first)
        .await
        .unwrap_err();
    assert_eq!(lost.disposition(), Disposition::Retry);
    let status = bench.graph.upload_status(&session.url).await.unwrap();
    assert_eq!(status.next_offset, FRAGMENT);
    let again = pieces(&whole[..FRAGMENT as usize]);
    let misplaced = bench
        .graph
        .upload_fragment(&session.url, 0..FRAGMENT, size, again)
        .await
        .unwrap_err();
    assert_eq!(misplaced.disposition(), Disposition::RangeMismatch);
    for _ in 0..2 {
        bench.graph.cancel_upload(&session.url).await.unwrap();
    }
    let gone = bench.graph.upload_status(&session.url).await.unwrap_err();
    assert_eq!(gone.disposition(), Disposition::SessionGone);
}

#[tokio::test]
async fn a_fragment_of_the_wrong_length_is_never_committed() {
    let bench = Bench::new(DriveKind::Business).await;
    let session = open(&bench, "f", 100).await.unwrap();
    for wrong in [50_u64, 150] {
        let piece = pieces(&body_of(wrong));
        bench
            .graph
            .upload_fragment(&session.url, 0..100, 100, piece)
            .await
            .unwrap_err();
        assert!(!bench.remote().exists("/f"));
    }
}

#[tokio::test]
async fn small_bodies_respect_their_conditions() {
    let bench = Bench::new(DriveKind::Business).await;
    let target = target(&bench, "empty file");
    let new_only = Conditions {
        if_none_match_any: true,
        on_conflict: OnConflict::Fail,
        ..Conditions::default()
    };
    let put = bench
        .graph
        .put_small(&target, Bytes::new(), &new_only)
        .await;
    let item = put.unwrap();
    assert_eq!(item.size, Some(0));
    let again = bench
        .graph
        .put_small(&target, Bytes::new(), &new_only)
        .await;
    let disposition = again.unwrap_err().disposition();
    assert!(matches!(
        disposition,
        Disposition::Changed | Disposition::Conflict
    ));
    let replace = UploadTarget::Replace {
        drive: bench.drive.clone(),
        item: item.id.clone(),
    };
    let stale = Conditions {
        if_match: Some("\"{00000000-0000-0000-0000-000000000000},9\"".to_owned()),
        ..Conditions::default()
    };
    let put = bench
        .graph
        .put_small(&replace, Bytes::from_static(b"x"), &stale)
        .await;
    assert_eq!(put.unwrap_err().disposition(), Disposition::Changed);
    let right = Conditions {
        if_match: item.etag.map(|tag| tag.as_str().to_owned()),
        ..Conditions::default()
    };
    let put = bench
        .graph
        .put_small(&replace, Bytes::from_static(b"x"), &right)
        .await;
    assert_eq!(put.unwrap().id, item.id);
    assert_eq!(bench.remote().read("/empty file").unwrap(), b"x");
}

#[tokio::test]
async fn a_full_drive_and_a_lock_are_told_apart() {
    let bench = Bench::new(DriveKind::Business).await;
    bench.remote().put("/locked", "x").unwrap();
    bench.remote().set_locked("/locked", true).unwrap();
    let locked = upload(&bench, "locked", 10).await;
    let replace = Conditions {
        on_conflict: OnConflict::Replace,
        ..Conditions::default()
    };
    let put = bench
        .graph
        .put_small(
            &target(&bench, "locked"),
            Bytes::from_static(b"y"),
            &replace,
        )
        .await;
    assert_eq!(put.unwrap_err().disposition(), Disposition::Locked);
    assert!(locked.is_err());
    bench.remote().set_quota(10);
    let full = open(&bench, "big", 1000).await.unwrap_err();
    assert_eq!(full.disposition(), Disposition::QuotaFull);
}

#[tokio::test]
async fn addresses_elsewhere_in_clear_are_refused() {
    let bench = Bench::new(DriveKind::Business).await;
    let url = SecretString::from("http://192.0.2.1/upload");
    let error = bench.graph.upload_status(&url).await.unwrap_err();
    assert!(matches!(error, GraphError::ForeignLink { .. }), "{error}");
}
