//! Drives, items, listings, changes.

use std::collections::BTreeSet;

use onedrivefs_core::{DriveId, ItemId, ItemKind, Timestamp};
use onedrivefs_graph::{
    CopyStatus, DeltaFrom, Disposition, ItemPatch, LinkKind, OnConflict, ResyncKind,
};
use onedrivefs_sim::{DriveKind, FaultAction, FaultRule};

use crate::support::Bench;

const KINDS: [DriveKind; 3] = [
    DriveKind::Personal,
    DriveKind::Business,
    DriveKind::DocumentLibrary,
];

#[tokio::test]
async fn a_drive_tells_its_kind_and_space() {
    for kind in KINDS {
        let bench = Bench::new(kind).await;
        let info = bench.graph.drive(&bench.drive).await.unwrap();
        assert_eq!(info.kind.as_str(), kind.as_str());
        let quota = bench.graph.quota(&bench.drive).await.unwrap().unwrap();
        assert_eq!(quota.total, 1 << 40);
        let me = bench.graph.me().await.unwrap();
        assert_eq!(me.user_principal_name.as_deref(), Some("ada@example.com"));
        let root = bench.graph.root(&bench.drive).await.unwrap();
        assert!(root.is_root && root.kind == ItemKind::Folder && root.parent.is_none());
        assert!(!bench.graph.drives().await.unwrap().is_empty());
        let own = bench.graph.user_drive("ada@example.com").await.unwrap();
        assert_eq!(own.id, bench.drive);
    }
}

#[tokio::test]
async fn awkward_names_survive_the_round_trip() {
    let bench = Bench::new(DriveKind::Business).await;
    for name in [
        "a b.txt",
        "100%.txt",
        "a%2Fb",
        "#1 (2) [3]+&,;=@!$'",
        "it's",
        "\u{fc}ml\u{e4}ut \u{1F600}",
        "a.b.c",
        ".hidden",
    ] {
        let made = bench
            .graph
            .create_folder(&bench.drive, &bench.root, name, OnConflict::Fail)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(made.name.as_deref(), Some(name));
        assert_eq!(bench.child(name).await.id, made.id, "{name}");
        let again = bench
            .graph
            .create_folder(&bench.drive, &bench.root, name, OnConflict::Fail)
            .await
            .unwrap_err();
        assert_eq!(again.disposition(), Disposition::Conflict);
    }
    let none = bench
        .graph
        .child_by_name(&bench.drive, &bench.root, "none")
        .await;
    assert!(none.unwrap().is_none());
}

#[tokio::test]
async fn a_listing_comes_in_pages_with_shortcuts() {
    let bench = Bench::new(DriveKind::Business).await;
    let other = bench.sim.add_drive(onedrivefs_sim::DriveSpec::default());
    let folder = other.mkdir("/Theirs").unwrap();
    bench
        .remote()
        .add_shortcut("/Link", other.id(), &folder)
        .unwrap();
    for n in 0..1100 {
        bench.remote().put(&format!("/f{n}"), "x").unwrap();
    }
    let (mut names, mut next, mut pages, mut target) = (BTreeSet::new(), None, 0, None);
    loop {
        let page = bench
            .graph
            .children_page(&bench.drive, &bench.root, next.as_deref())
            .await
            .unwrap();
        pages += 1;
        for item in page.items {
            if let ItemKind::Shortcut(found) = &item.kind {
                target = Some(found.clone());
            }
            names.insert(item.name.unwrap());
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 1101);
    assert!(pages > 1);
    let target = target.unwrap();
    assert_eq!(target.drive, DriveId::new(other.id()));
    assert_eq!(target.item, ItemId::new(folder));
    assert!(target.is_folder);
}

#[tokio::test]
async fn changes_arrive_page_by_page_and_then_as_a_difference() {
    for kind in KINDS {
        let bench = Bench::new(kind).await;
        bench.sim.set_knobs(|knobs| {
            knobs.delta_page_size = 3;
            knobs.delta_repeats = true;
            knobs.delta_empty_page = true;
            knobs.delta_function_links = true;
            knobs.json_bom = true;
        });
        for n in 0..10 {
            bench.remote().put(&format!("/d/f{n}"), "x").unwrap();
        }
        let (items, link) = bench.run(DeltaFrom::Start).await;
        let ids: BTreeSet<_> = items.iter().map(|item| item.id.clone()).collect();
        assert_eq!(ids.len(), 12, "{kind:?}");
        bench.remote().delete("/d/f3").unwrap();
        bench.remote().put("/new", "y").unwrap();
        let (items, link) = bench.run(DeltaFrom::Link(link)).await;
        let gone: BTreeSet<_> = items.iter().filter(|i| i.deleted).map(|i| &i.id).collect();
        assert_eq!(gone.len(), 1);
        assert!(items.iter().any(|item| item.name.as_deref() == Some("new")));
        let (_, latest) = bench.run(DeltaFrom::Latest).await;
        assert!(!latest.is_empty());
        bench.sim.set_knobs(|knobs| {
            knobs.delta_gone_inner = "resyncUploadDifferences".into();
        });
        bench.sim.expire_delta();
        let from = DeltaFrom::Link(link);
        let error = bench
            .graph
            .delta_page(&bench.drive, &from)
            .await
            .unwrap_err();
        assert_eq!(
            error.disposition(),
            Disposition::Resync(ResyncKind::UploadDifferences)
        );
    }
}

#[tokio::test]
async fn a_cloud_without_a_change_feed_is_recognised() {
    let bench = Bench::new(DriveKind::Business).await;
    bench.sim.set_knobs(|knobs| knobs.delta_unsupported = true);
    for from in [DeltaFrom::Start, DeltaFrom::Latest] {
        let error = bench
            .graph
            .delta_page(&bench.drive, &from)
            .await
            .unwrap_err();
        assert_eq!(error.disposition(), Disposition::Unsupported);
    }
}

#[tokio::test]
async fn items_are_renamed_moved_dated_and_deleted() {
    for no_content in [false, true] {
        let bench = Bench::new(DriveKind::Business).await;
        bench
            .sim
            .set_knobs(|knobs| knobs.patch_no_content = no_content);
        bench.remote().put("/a", "one").unwrap();
        bench.remote().put("/b", "two").unwrap();
        let folder = ItemId::new(bench.remote().mkdir("/dir").unwrap());
        let item = bench.child("a").await;
        let modified = Timestamp::parse("2020-02-03T04:05:06Z").unwrap();
        let patch = ItemPatch {
            name: Some("c".to_owned()),
            parent: Some(folder.clone()),
            modified: Some(modified),
            ..ItemPatch::default()
        };
        let etag = item.etag.as_ref().map(|tag| tag.as_str().to_owned());
        let moved = bench
            .graph
            .update_item(&bench.drive, &item.id, &patch, etag.as_deref())
            .await
            .unwrap();
        assert_eq!(moved.id, item.id);
        assert_eq!(moved.name.as_deref(), Some("c"));
        assert_eq!(moved.parent.as_ref(), Some(&folder));
        assert_eq!(moved.modified, Some(modified));
        let stale = bench
            .graph
            .update_item(&bench.drive, &item.id, &patch, etag.as_deref())
            .await
            .unwrap_err();
        assert_eq!(stale.disposition(), Disposition::Changed);
        let taken = ItemPatch {
            name: Some("b".to_owned()),
            parent: Some(bench.root.clone()),
            ..ItemPatch::default()
        };
        let update = bench
            .graph
            .update_item(&bench.drive, &item.id, &taken, None);
        assert_eq!(
            update.await.unwrap_err().disposition(),
            Disposition::Conflict
        );
        let over = ItemPatch {
            replace: true,
            ..taken
        };
        let update = bench.graph.update_item(&bench.drive, &item.id, &over, None);
        update.await.unwrap();
        assert_eq!(bench.remote().read("/b").unwrap(), b"one");
        for _ in 0..2 {
            bench
                .graph
                .delete_item(&bench.drive, &item.id, None, &|| true)
                .await
                .unwrap();
        }
        let gone = bench.graph.item(&bench.drive, &item.id).await.unwrap_err();
        assert!(gone.is_not_found() && gone.request_id().is_some(), "{gone}");
    }
}

#[tokio::test]
async fn copies_are_followed_to_their_end() {
    for (redirects, fails) in [(false, false), (true, false), (false, true)] {
        let bench = Bench::new(DriveKind::Business).await;
        bench.sim.set_knobs(|knobs| {
            knobs.copy_monitor_redirects = redirects;
            knobs.copy_fails = fails;
        });
        bench.remote().put("/a", "one").unwrap();
        let item = bench.child("a").await;
        let to = (bench.drive.clone(), bench.root.clone());
        let monitor = bench
            .graph
            .copy_item(&bench.drive, &item.id, &to, "b", Some(OnConflict::Fail))
            .await
            .unwrap();
        let mut polls = 0;
        let last = loop {
            polls += 1;
            match bench.graph.copy_status(&monitor).await.unwrap() {
                CopyStatus::Running { .. } => assert!(polls < 10),
                last => break last,
            }
        };
        match last {
            CopyStatus::Completed { item } => {
                assert!(!fails);
                assert_eq!(item, Some(bench.child("b").await.id));
            }
            other => assert!(fails, "{other:?}"),
        }
    }
}

#[tokio::test]
async fn versions_links_and_search_work() {
    let bench = Bench::new(DriveKind::Business).await;
    bench.remote().put("/report.txt", "one").unwrap();
    bench.remote().put("/report.txt", "three").unwrap();
    let item = bench.child("report.txt").await;
    let versions = bench.graph.versions(&bench.drive, &item.id).await.unwrap();
    assert_eq!(versions.len(), 2);
    let old = &versions[1];
    let source = bench
        .graph
        .version_source(&bench.drive, &item.id, &old.id)
        .await
        .unwrap();
    let mut body = bench.graph.fetch(&source, 0..u64::MAX).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "one");
    bench
        .graph
        .restore_version(&bench.drive, &item.id, &old.id)
        .await
        .unwrap();
    assert_eq!(bench.remote().read("/report.txt").unwrap(), b"one");
    let link = bench
        .graph
        .create_link(&bench.drive, &item.id, LinkKind::View, None, None)
        .await
        .unwrap();
    assert!(link.web_url.contains("://"));
    let found = bench.graph.search(&bench.drive, "report").await.unwrap();
    assert!(found.iter().any(|found| found.id == item.id));
    let push = bench.graph.push_endpoint(&bench.drive).await;
    push.unwrap();
}

#[tokio::test]
async fn reads_are_repeated_and_changes_are_not() {
    let bench = Bench::new(DriveKind::Business).await;
    for fault in [
        FaultAction::status(500),
        FaultAction::status(502),
        FaultAction::DropBefore,
    ] {
        bench.sim.faults().clear();
        bench
            .sim
            .faults()
            .add(FaultRule::on("item", fault.clone()).times(1));
        bench
            .graph
            .item(&bench.drive, &bench.root)
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        bench
            .sim
            .faults()
            .add(FaultRule::on("mkdir", fault.clone()).times(1));
        bench.sim.requests().clear();
        let result = bench
            .graph
            .create_folder(&bench.drive, &bench.root, "n", OnConflict::Fail)
            .await;
        assert_eq!(result.unwrap_err().disposition(), Disposition::Retry);
        assert_eq!(bench.sim.requests().count("mkdir"), 1);
    }
}
