use std::time::Instant;

use onedrivefs_sim::{DriveKind, FileBody, sample};

use crate::client::Client;

#[tokio::test]
async fn pages_cost_the_same_on_a_large_drive() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let start = Instant::now();
    sample::populate_many(&drive, 100_000).unwrap();
    println!("populated in {:?}", start.elapsed());
    let (_, latest) = c.pages("~/root/delta?token=latest").await;
    drive.put("/new.txt", "x").unwrap();
    let start = Instant::now();
    let (items, _) = c.pages(latest["@odata.deltaLink"].as_str().unwrap()).await;
    println!("one change in {:?}", start.elapsed());
    assert_eq!(items.len(), 2);
    let start = Instant::now();
    let (items, _) = c
        .pages("~/root/delta?$top=1000&$select=id,name,parentReference")
        .await;
    println!("{} items enumerated in {:?}", items.len(), start.elapsed());
    assert_eq!(items.len() as u64, drive.count());
}

#[tokio::test]
async fn huge_generated_files_cost_nothing() {
    let start = Instant::now();
    let c = Client::new(DriveKind::Personal).await;
    let drive = c.sim.default_drive();
    let body = FileBody::Generated {
        seed: 9,
        size: 100 << 30,
    };
    drive.put("/huge.bin", body.clone()).unwrap();
    let (_, item) = c.get("~/root:/huge.bin").await;
    assert_eq!(
        item["file"]["hashes"]["quickXorHash"]
            .as_str()
            .unwrap()
            .len(),
        28
    );
    let url = item["@microsoft.graph.downloadUrl"].as_str().unwrap();
    let part = c
        .http
        .get(url)
        .header("range", "bytes=-4096")
        .send()
        .await
        .unwrap();
    let expected = body.read((100 << 30) - 4_096, 4_096).unwrap();
    assert_eq!(part.bytes().await.unwrap(), expected);
    println!("all in {:?}", start.elapsed());
}

#[tokio::test]
async fn the_sample_is_complete_on_every_kind() {
    for kind in crate::client::KINDS {
        let c = Client::new(kind).await;
        let drive = c.sim.default_drive();
        sample::populate(&drive).unwrap();
        assert!(drive.count() > 30);
        assert!(
            drive
                .read("/Pictures/sea.png")
                .unwrap()
                .starts_with(b"\x89PNG")
        );
    }
}
