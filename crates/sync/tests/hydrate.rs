//! Fetching content over real HTTP: each block once, only what is needed, never wrong bytes.

#![expect(clippy::expect_used, reason = "helpers of tests fail tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onedrivefs_content::{Body, BodyId, Content, Place, Presence};
use onedrivefs_core::{ByteRange, DriveId, ItemId, QuickXorHash, SecretString};
use onedrivefs_graph::auth::TokenSource;
use onedrivefs_graph::{Cloud, Endpoints, GraphClient, HttpOptions};
use onedrivefs_sim::{DriveHandle, FaultAction, FaultRule, FileBody, Reach, SimConfig, Simulator};
use onedrivefs_sync::hydrate::{
    Demand, HydrateConfig, HydrateError, Hydrator, PresenceSink, Room, Source,
};
use parking_lot::Mutex;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// The simulator's name for requests of content.
const DOWNLOAD: &str = "download";

/// Remembers what it was told.
#[derive(Default)]
struct Sink {
    saves: Mutex<Vec<(BodyId, Presence, bool)>>,
    corrupt: Mutex<Vec<(BodyId, bool)>>,
    full: AtomicBool,
}

impl PresenceSink for Sink {
    fn save(&self, id: BodyId, presence: &Presence, verified: bool) {
        self.saves.lock().push((id, presence.clone(), verified));
    }

    fn corrupt(&self, id: BodyId, was_readable: bool) {
        self.corrupt.lock().push((id, was_readable));
    }

    fn make_room(&self, bytes: u64, _demand: Demand) -> Option<Room> {
        let full = self.full.load(Ordering::Relaxed);
        (!full).then(|| Room::promise(&Arc::default(), bytes))
    }
}

struct Fixture {
    sim: Simulator,
    drive: DriveHandle,
    graph: GraphClient,
    content: Content,
    hydrator: Hydrator,
    sink: Arc<Sink>,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(HydrateConfig {
            first_byte_deadline: Duration::from_secs(4),
            save_after_idle: Duration::from_millis(100),
            ..HydrateConfig::default()
        })
        .await
    }

    async fn with(config: HydrateConfig) -> Self {
        let sim = Simulator::start(SimConfig::default())
            .await
            .expect("simulator");
        let (graph_url, login_url) = (sim.graph_url(), sim.login_url());
        let endpoints =
            Endpoints::with_overrides(Cloud::Global, Some(&graph_url), Some(&login_url))
                .expect("endpoints");
        let token = TokenSource::fixed(SecretString::from(sim.access_token()));
        let graph = GraphClient::new(endpoints, HttpOptions::default(), token).expect("client");
        let dir = TempDir::new().expect("tempdir");
        let content =
            Content::open(&dir.path().join("spool"), &dir.path().join("cache")).expect("content");
        let sink = Arc::new(Sink::default());
        let handle = tokio::runtime::Handle::current();
        let own: Arc<dyn PresenceSink> = Arc::<Sink>::clone(&sink);
        Self {
            drive: sim.default_drive(),
            hydrator: Hydrator::new(graph.clone(), handle, config, own),
            sim,
            graph,
            content,
            sink,
            _dir: dir,
        }
    }

    /// Puts a file on the service and makes an empty body for it.
    async fn file(&self, body: impl Into<FileBody>) -> (Arc<Body>, Source) {
        let id = self.drive.put("/file.bin", body).expect("put");
        let source = self.source(&id).await;
        (self.body(1, source.size), source)
    }

    fn body(&self, id: u64, size: u64) -> Arc<Body> {
        self.content.create_sparse(BodyId(id), size).expect("body")
    }

    async fn source(&self, id: &str) -> Source {
        let drive = DriveId::new(self.drive.id());
        let item = self
            .graph
            .item(&drive, &ItemId::new(id))
            .await
            .expect("item");
        Source {
            drive,
            item: item.id,
            etag: item.etag,
            ctag: item.ctag,
            size: item.size.expect("size"),
            hash: item.hash,
        }
    }

    async fn ensure(
        &self,
        body: &Arc<Body>,
        source: &Source,
        range: ByteRange,
    ) -> Result<(), HydrateError> {
        self.hydrator
            .ensure(body, source, range, Demand::Foreground)
            .await
    }

    /// Lets something happen to all downloads, or to the next few.
    fn fault(&self, action: FaultAction, times: Option<u64>) {
        let rule = FaultRule::on(DOWNLOAD, action);
        self.sim.faults().add(match times {
            Some(times) => rule.times(times),
            None => rule,
        });
    }

    fn downloads(&self) -> usize {
        self.sim.requests().count(DOWNLOAD)
    }

    fn moved(&self) -> u64 {
        self.sim.requests().bytes_out(DOWNLOAD)
    }

    /// Waits until the last thing that was recorded is what is wanted.
    async fn saved(&self, want: impl Fn(&(BodyId, Presence, bool)) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.sink.saves.lock().last().is_some_and(&want) {
            assert!(
                Instant::now() < deadline,
                "saved: {:?}",
                self.sink.saves.lock()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn generated(size: u64) -> FileBody {
    FileBody::Generated { seed: 5, size }
}

fn expect_bytes(body: &Body, content: &FileBody, range: ByteRange) {
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(MIB) as usize;
        let mut buf = vec![0; len];
        assert_eq!(body.read_at(at, &mut buf).expect("read"), len, "at {at}");
        assert!(
            buf == content.read(at, len).expect("sim"),
            "bytes differ at {at}"
        );
        at += len as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_of_a_block_make_one_request() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(64 * MIB)).await;
    fixture.fault(FaultAction::Delay { ms: 100 }, None);
    let readers = (0..50_u64).map(|n| {
        let (hydrator, body, source) = (fixture.hydrator.clone(), body.clone(), source.clone());
        let at = 10 * MIB + n * 4096;
        tokio::spawn(async move {
            hydrator
                .ensure(&body, &source, at..at + 4096, Demand::Foreground)
                .await
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("join").expect("ensure");
    }
    assert_eq!(fixture.downloads(), 1);
    expect_bytes(&body, &generated(64 * MIB), 10 * MIB..10 * MIB + 50 * 4096);
    fixture
        .saved(|(_, presence, verified)| matches!(presence, Presence::Ranges(_)) && !verified)
        .await;
    assert_eq!(
        fixture.sink.saves.lock().len(),
        1,
        "recorded once, not per block"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_gets_the_whole_file_verified() {
    let fixture = Fixture::new().await;
    let size = 40 * MIB + 12_345;
    let (body, source) = fixture.file(generated(size)).await;
    assert!(source.hash.is_some());
    let mut at = 0;
    while at < size {
        let range = at..(at + 128 * 1024).min(size);
        fixture.hydrator.note_read(&body, &source, 1, range.clone());
        fixture
            .ensure(&body, &source, range.clone())
            .await
            .expect("ensure");
        at = range.end;
    }
    expect_bytes(&body, &generated(size), 0..size);
    fixture
        .saved(|saved| saved.1 == Presence::Complete && saved.2)
        .await;
    assert!(fixture.downloads() < 80, "{} requests", fixture.downloads());
    let moved = fixture.moved();
    assert!(moved < size + size / 10, "{moved} bytes for {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_passes_through_and_comes_once() {
    let fixture = Fixture::new().await;
    let size = 20 * MIB + 12_345;
    let content = generated(size);
    let (body, source) = fixture.file(content.clone()).await;
    fixture.ensure(&body, &source, 0..MIB).await.expect("room");
    let kept = fixture.moved();
    fixture.sink.full.store(true, Ordering::Relaxed);
    let error = fixture.ensure(&body, &source, MIB..2 * MIB).await;
    assert!(matches!(error, Err(HydrateError::NoSpace)), "{error:?}");
    assert!(fixture.hydrator.has_no_room());
    let mut at = 0;
    while at < size {
        let range = at..(at + 128 * 1024).min(size);
        let len = (range.end - range.start) as usize;
        let passed = fixture
            .hydrator
            .pass_through(&body, &source, range.clone())
            .await
            .expect("passed");
        assert!(
            passed == content.read(at, len).expect("sim"),
            "bytes differ at {at}"
        );
        at = range.end;
    }
    assert!(body.missing(0..MIB).is_empty());
    assert!(!body.has_any(MIB..size), "nothing was kept");
    assert_eq!(fixture.moved() - kept, size - MIB, "each byte came once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_place_of_what_has_no_room_costs_a_piece() {
    let fixture = Fixture::new().await;
    let size = 10 << 30;
    let (body, source) = fixture.file(generated(size)).await;
    for at in [size - 4096, 5 << 30] {
        let range = at..at + 4096;
        let passed = fixture.hydrator.pass_through(&body, &source, range).await;
        let bytes = generated(size).read(at, 4096).expect("sim");
        assert!(passed.expect("passed") == bytes, "at {at}");
    }
    assert!(fixture.moved() <= 2 * MIB, "{}", fixture.moved());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_huge_file_costs_a_block() {
    let fixture = Fixture::new().await;
    let size = 10 << 30;
    let (body, source) = fixture.file(generated(size)).await;
    for (fh, range) in [(1, size - 4096..size), (1, 5 << 30..(5 << 30) + 4096)] {
        fixture
            .hydrator
            .note_read(&body, &source, fh, range.clone());
        fixture
            .ensure(&body, &source, range.clone())
            .await
            .expect("ensure");
        expect_bytes(&body, &generated(size), range);
    }
    fixture.hydrator.cancel(1);
    assert!(fixture.moved() < 2 * MIB, "{}", fixture.moved());
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_does_not_wait_behind_read_ahead() {
    let fixture = Fixture::with(HydrateConfig {
        background_transfers: 1,
        ..HydrateConfig::default()
    })
    .await;
    let size = 64 * MIB;
    let (body, source) = fixture.file(generated(size)).await;
    fixture.sim.set_knobs(|knobs| knobs.bandwidth = MIB);
    for n in 0..16 {
        let range = n * 128 * 1024..(n + 1) * 128 * 1024;
        fixture.hydrator.note_read(&body, &source, 1, range);
    }
    let began = Instant::now();
    let far = 7 * MIB / 2..7 * MIB / 2 + 4096;
    fixture
        .ensure(&body, &source, far.clone())
        .await
        .expect("ensure");
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
    expect_bytes(&body, &generated(size), far);
    fixture.hydrator.cancel(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_dropped_and_failing_answers_are_repeated() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(3 * MIB)).await;
    for action in [
        FaultAction::Truncate { bytes: 1000 },
        FaultAction::DropBefore,
        FaultAction::status(500),
        FaultAction::Truncate { bytes: 2_500_000 },
    ] {
        fixture.fault(action, Some(1));
    }
    fixture
        .ensure(&body, &source, 0..3 * MIB)
        .await
        .expect("ensure");
    expect_bytes(&body, &generated(3 * MIB), 0..3 * MIB);
    assert!(fixture.sink.corrupt.lock().is_empty());
    assert_eq!(fixture.downloads(), 5);
    // What had arrived is not fetched again.
    let records = fixture.sim.requests().since(0);
    let last = records
        .iter()
        .rfind(|record| record.op == DOWNLOAD)
        .expect("one");
    let range = last.range.as_deref().expect("range");
    assert!(!range.starts_with("bytes=0-"), "{range}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_replaced_in_time() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture.fault(FaultAction::StallBody { bytes: 5000 }, Some(1));
    fixture
        .ensure(&body, &source, 0..MIB)
        .await
        .expect("ensure");
    expect_bytes(&body, &generated(MIB), 0..MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_times_out() {
    let fixture = Fixture::with(HydrateConfig {
        first_byte_deadline: Duration::from_secs(1),
        ..HydrateConfig::default()
    })
    .await;
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture.fault(FaultAction::Stall, None);
    let began = Instant::now();
    let error = fixture
        .ensure(&body, &source, 0..10)
        .await
        .expect_err("stalled");
    assert!(matches!(error, HydrateError::TimedOut), "{error:?}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    fixture.sim.faults().clear();
    fixture
        .ensure(&body, &source, 0..10)
        .await
        .expect("it recovers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_is_repaired_before_anybody_reads_it() {
    let fixture = Fixture::new().await;
    let size = 200 * 1024;
    let (body, source) = fixture.file(generated(size)).await;
    fixture.fault(FaultAction::Corrupt { offset: 77 }, Some(1));
    fixture
        .ensure(&body, &source, 0..10)
        .await
        .expect("repaired");
    expect_bytes(&body, &generated(size), 0..size);
    assert_eq!(*fixture.sink.corrupt.lock(), [(body.id(), false)]);
    fixture
        .saved(|saved| saved.1 == Presence::Complete && saved.2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corruption_of_a_larger_file_is_told_at_its_end() {
    let fixture = Fixture::new().await;
    let size = 3 * MIB;
    let (body, source) = fixture.file(generated(size)).await;
    fixture.fault(FaultAction::Corrupt { offset: 77 }, Some(1));
    let error = fixture
        .ensure(&body, &source, 0..size)
        .await
        .expect_err("corrupt");
    assert!(matches!(error, HydrateError::Corrupt), "{error:?}");
    assert_eq!(body.missing(0..u64::MAX), vec![0..size]);
    assert_eq!(*fixture.sink.corrupt.lock(), [(body.id(), true)]);
    assert_eq!(body.times_forgotten(), 1);
    fixture
        .ensure(&body, &source, 0..size)
        .await
        .expect("the next reader gets it whole");
    expect_bytes(&body, &generated(size), 0..size);
    fixture
        .saved(|saved| saved.1 == Presence::Complete && saved.2)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_corruption_is_an_error_and_leaves_nothing() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(100 * 1024)).await;
    fixture.fault(FaultAction::Corrupt { offset: 77 }, None);
    let error = fixture
        .ensure(&body, &source, 0..10)
        .await
        .expect_err("corrupt");
    assert!(matches!(error, HydrateError::Corrupt), "{error:?}");
    assert_eq!(body.missing(0..u64::MAX), vec![0..100 * 1024]);
    assert_eq!(fixture.downloads(), 2);
    fixture.sim.faults().clear();
    fixture
        .ensure(&body, &source, 0..10)
        .await
        .expect("it recovers");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_addresses_are_renewed_once() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(64 * MIB)).await;
    fixture.ensure(&body, &source, 0..10).await.expect("first");
    fixture.sim.expire_urls();
    fixture
        .ensure(&body, &source, 40 * MIB..40 * MIB + 10)
        .await
        .expect("renewed");
    expect_bytes(&body, &generated(64 * MIB), 40 * MIB..40 * MIB + 10);
    fixture.fault(FaultAction::status(403), None);
    let error = fixture.ensure(&body, &source, 20 * MIB..20 * MIB + 1).await;
    assert!(matches!(error, Err(HydrateError::Refused(_))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_is_told_and_never_mixed() {
    for new_size in [64 * MIB, 16 * MIB, 80 * MIB] {
        let fixture = Fixture::new().await;
        let (body, source) = fixture.file(generated(64 * MIB)).await;
        fixture.ensure(&body, &source, 0..10).await.expect("first");
        let other = FileBody::Generated {
            seed: 6,
            size: new_size,
        };
        fixture.drive.put("/file.bin", other).expect("replace");
        // The address is still good, and serves the new content.
        let error = fixture.ensure(&body, &source, 31 * MIB..31 * MIB + 1).await;
        assert!(
            matches!(error, Err(HydrateError::Changed)),
            "{new_size}: {error:?}"
        );
        assert_eq!(body.missing(31 * MIB..31 * MIB + 1).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_does_not_disturb_a_reader() {
    let fixture = Fixture::new().await;
    let (body, mut source) = fixture.file(generated(64 * MIB)).await;
    fixture.ensure(&body, &source, 0..10).await.expect("first");
    fixture
        .drive
        .rename("/file.bin", "/moved.bin")
        .expect("rename");
    fixture
        .ensure(&body, &source, 31 * MIB..31 * MIB + 1)
        .await
        .expect("by cTag");
    source.ctag = None;
    fixture
        .ensure(&body, &source, 50 * MIB..50 * MIB + 1)
        .await
        .expect("by hash");
    expect_bytes(&body, &generated(64 * MIB), 50 * MIB..50 * MIB + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_file_is_gone() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture.drive.delete("/file.bin").expect("delete");
    let error = fixture.ensure(&body, &source, 0..1).await;
    assert!(matches!(error, Err(HydrateError::Gone)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_works() {
    let fixture = Fixture::new().await;
    fixture.sim.set_knobs(|knobs| knobs.ignore_range = true);
    let (body, source) = fixture.file(generated(5 * MIB)).await;
    let range = 3 * MIB..3 * MIB + 4096;
    fixture
        .ensure(&body, &source, range.clone())
        .await
        .expect("ensure");
    expect_bytes(&body, &generated(5 * MIB), range);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_sent_by_graph_itself_works() {
    let fixture = Fixture::new().await;
    fixture.sim.set_knobs(|knobs| knobs.content_direct = true);
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture
        .ensure(&body, &source, 0..MIB)
        .await
        .expect("ensure");
    expect_bytes(&body, &generated(MIB), 0..MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_in_the_metadata_is_learnt() {
    for wrong_by in [-1000, 1000] {
        let fixture = Fixture::new().await;
        fixture.sim.set_knobs(|knobs| knobs.wrong_size = wrong_by);
        let real = 2 * MIB;
        let (body, source) = fixture.file(generated(real)).await;
        assert_ne!(source.size, real);
        let learnt = fixture
            .ensure(&body, &source, 0..1)
            .await
            .expect_err("differs");
        assert!(
            matches!(learnt, HydrateError::TrueSize(size) if size == real),
            "{learnt:?}"
        );
        let source = Source {
            size: real,
            hash: Some(QuickXorHash::of(b"x")),
            ..source
        };
        let body = fixture.body(2, real);
        fixture
            .ensure(&body, &source, 0..real)
            .await
            .expect("unverifiable, so accepted");
        expect_bytes(&body, &generated(real), 0..real);
        fixture
            .saved(|saved| saved.0 == BodyId(2) && !saved.2)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_offline_answers_at_once() {
    let fixture = Fixture::with(HydrateConfig::default()).await;
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture.fault(FaultAction::Stall, None);
    let (hydrator, own, pinned) = (fixture.hydrator.clone(), body.clone(), source.clone());
    let reader = tokio::spawn(async move {
        hydrator
            .ensure(&own, &pinned, 0..1, Demand::Foreground)
            .await
    });
    while fixture.downloads() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    fixture.hydrator.set_offline(true);
    let waiting = reader.await.expect("join");
    assert!(matches!(waiting, Err(HydrateError::Offline)), "{waiting:?}");
    let late = fixture.ensure(&body, &source, 0..1).await;
    assert!(matches!(late, Err(HydrateError::Offline)), "{late:?}");
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    fixture.sim.faults().clear();
    fixture.hydrator.set_offline(false);
    fixture
        .ensure(&body, &source, 0..1)
        .await
        .expect("online again");
}

/// On one thread, so that nothing runs between what is started and its being stopped.
#[tokio::test]
async fn a_transfer_that_is_stopped_before_it_runs_lets_go_of_its_body() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(16 * MIB)).await;
    for block in 0..4 {
        let read = block * MIB..(block + 1) * MIB;
        fixture.hydrator.note_read(&body, &source, 7, read);
    }
    assert!(Arc::strong_count(&body) > 1, "read-ahead was started");
    fixture.hydrator.cancel(7);
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&body) > 1 {
        assert!(Instant::now() < deadline, "{}", Arc::strong_count(&body));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.downloads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_service_is_offline() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(64 * MIB)).await;
    fixture.ensure(&body, &source, 0..1).await.expect("first");
    fixture.sim.set_reach(Reach::Offline);
    let error = fixture.ensure(&body, &source, 32 * MIB..32 * MIB + 1).await;
    assert!(matches!(error, Err(HydrateError::Offline)), "{error:?}");
    fixture.sim.set_reach(Reach::Online);
    fixture
        .ensure(&body, &source, 32 * MIB..32 * MIB + 1)
        .await
        .expect("online again");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_writes_win_and_snapshots_get_their_base() {
    let fixture = Fixture::new().await;
    let size = 2 * MIB;
    let (body, source) = fixture.file(generated(size)).await;
    fixture.content.promote(&body).expect("promote");
    assert_eq!(body.place(), Place::Spool);
    let snapshot = body.snapshot().expect("snapshot");
    body.write_at(MIB, b"written here").expect("write");
    fixture
        .hydrator
        .ensure_snapshot(&body, &snapshot, &source, 0..size, Demand::Upload)
        .await
        .expect("ensure");
    let mut seen = vec![0; size as usize];
    snapshot.read_at(0, &mut seen).expect("read");
    assert!(seen == generated(size).read(0, size as usize).expect("sim"));
    assert!(body.is_complete());
    let mut own = [0; 12];
    body.read_at(MIB, &mut own).expect("read");
    assert_eq!(&own, b"written here");
    assert!(fixture.sink.corrupt.lock().is_empty());
}

/// The next number of a simple generator; enough to spread reads over a file.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_flaky_service_read_the_right_bytes() {
    let fixture = Fixture::new().await;
    let size = 24 * MIB + 321;
    let (body, source) = fixture.file(generated(size)).await;
    for (seed, action) in [
        (1, FaultAction::Truncate { bytes: 700_000 }),
        (2, FaultAction::status(500)),
        (3, FaultAction::DropBefore),
        (4, FaultAction::ExpireUrls),
    ] {
        let rule = FaultRule {
            count: Some(6),
            probability: Some(0.1),
            seed,
            ..FaultRule::on(DOWNLOAD, action)
        };
        fixture.sim.faults().add(rule);
    }
    let readers = (0..8_u64).map(|fh| {
        let (hydrator, body, source) = (fixture.hydrator.clone(), body.clone(), source.clone());
        tokio::spawn(async move {
            let mut state = fh + 1;
            let mut at = 0;
            for round in 0..120 {
                if round % 12 == 0 {
                    at = next(&mut state) % size;
                }
                let range = at..(at + 1 + next(&mut state) % 300_000).min(size);
                hydrator.note_read(&body, &source, fh, range.clone());
                let read = hydrator.ensure(&body, &source, range.clone(), Demand::Foreground);
                read.await.expect("ensure");
                expect_bytes(&body, &generated(size), range.clone());
                at = range.end % size;
            }
            hydrator.cancel(fh);
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("reader");
    }
    fixture
        .ensure(&body, &source, 0..size)
        .await
        .expect("the rest");
    expect_bytes(&body, &generated(size), 0..size);
    fixture
        .saved(|saved| saved.1 == Presence::Complete && saved.2)
        .await;
    assert!(fixture.sink.corrupt.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_sign_in_is_told() {
    let fixture = Fixture::new().await;
    let (body, source) = fixture.file(generated(MIB)).await;
    fixture.sim.expire_tokens();
    let error = fixture.ensure(&body, &source, 0..1).await;
    assert!(matches!(error, Err(HydrateError::NeedsLogin)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_rests_while_somebody_reads() {
    let f = Fixture::with(HydrateConfig {
        pin_rest: Duration::from_secs(600),
        ..HydrateConfig::default()
    })
    .await;
    let noise = |seed| FileBody::Generated { seed, size: MIB };
    let put = |name: &str, seed| f.drive.put(name, noise(seed)).expect("put");
    let pinned = f.source(&put("/pinned", 1)).await;
    let read = f.source(&put("/read", 2)).await;
    let (kept, slow) = (f.body(1, pinned.size), f.body(2, read.size));
    // Somebody reads, and waits.
    let held = f
        .sim
        .faults()
        .add(FaultRule::on(DOWNLOAD, FaultAction::Hold).times(1));
    let (h, body, source) = (f.hydrator.clone(), Arc::clone(&slow), read.clone());
    let reader =
        tokio::spawn(async move { h.ensure(&body, &source, 0..1000, Demand::Foreground).await });
    while f.downloads() == 0 {
        tokio::task::yield_now().await;
    }
    let (h, body, source) = (f.hydrator.clone(), Arc::clone(&kept), pinned.clone());
    let pin = tokio::spawn(async move { h.ensure(&body, &source, 0..MIB, Demand::Pin).await });
    // Another one reads meanwhile, many times over what the pinned file would take.
    for number in 0..20 {
        let source = f.source(&put(&format!("/{number}"), 3 + number)).await;
        let body = f.body(10 + number, source.size);
        f.ensure(&body, &source, 0..MIB).await.expect("read");
    }
    assert_eq!(kept.missing(0..MIB), vec![0..MIB], "it did not rest");
    f.sim.faults().remove(held);
    reader.await.expect("task").expect("read");
    pin.await.expect("task").expect("fetched");
    assert!(kept.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_takes_over_what_is_fetched_for_a_pin() {
    let f = Fixture::with(HydrateConfig {
        pin_rest: Duration::from_secs(600),
        ..HydrateConfig::default()
    })
    .await;
    let (body, source) = f
        .file(FileBody::Generated {
            seed: 1,
            size: 8 * MIB,
        })
        .await;
    f.fault(FaultAction::Hold, Some(2));
    let (h, own, from) = (f.hydrator.clone(), Arc::clone(&body), source.clone());
    let pin = tokio::spawn(async move { h.ensure(&own, &from, 0..8 * MIB, Demand::Pin).await });
    while f.downloads() < 2 {
        tokio::task::yield_now().await;
    }
    // Both of its transfers hang, and the reader does not wait for them.
    let start = Instant::now();
    f.ensure(&body, &source, 0..MIB).await.expect("read");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    f.hydrator.stop_pin(body.id());
    f.sim.faults().clear();
    pin.await.expect("task").expect("asked for again");
    assert!(body.is_complete());
}
