//! Being told to slow down.

use std::time::{Duration, Instant};

use onedrivefs_graph::{Disposition, OnConflict};
use onedrivefs_sim::{DriveKind, FaultAction, FaultRule};

use crate::support::Bench;

#[tokio::test]
async fn one_refusal_holds_everybody_and_reads_go_on_afterwards() {
    let bench = Bench::new(DriveKind::Business).await;
    let refuse = FaultAction::retry_after(429, "1");
    bench
        .sim
        .faults()
        .add(FaultRule::on("item", refuse).times(1));
    let begun = Instant::now();
    bench.graph.item(&bench.drive, &bench.root).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(bench.sim.requests().count("item"), 2);
    assert!(bench.graph.throttled_until().is_none());

    let refuse = FaultAction::retry_after(503, "1.5");
    bench
        .sim
        .faults()
        .add(FaultRule::on("mkdir", refuse).times(1));
    let mut hold = bench.graph.throttle();
    hold.mark_unchanged();
    let begun = Instant::now();
    let error = bench
        .graph
        .create_folder(&bench.drive, &bench.root, "n", OnConflict::Fail)
        .await
        .unwrap_err();
    let Disposition::RetryAfter(wait) = error.disposition() else {
        panic!("{error}");
    };
    assert!(wait > Duration::from_secs(1) && wait <= Duration::from_millis(1500));
    assert_eq!(bench.sim.requests().count("mkdir"), 1);
    assert!(hold.has_changed().unwrap() && bench.graph.throttled_until().is_some());
    // Another request of the account waits too.
    bench.graph.quota(&bench.drive).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn refusals_without_a_time_are_survived() {
    let bench = Bench::new(DriveKind::Business).await;
    let refuse = FaultAction::status(503);
    bench
        .sim
        .faults()
        .add(FaultRule::on("item", refuse).times(1));
    let begun = Instant::now();
    bench.graph.item(&bench.drive, &bench.root).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(700));
}
