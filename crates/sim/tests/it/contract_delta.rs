use std::collections::HashMap;

use onedrivefs_sim::{DriveKind, SubfolderDelta};
use serde_json::Value;

use crate::client::{Client, KINDS, code, inner};

fn link(page: &Value) -> String {
    page["@odata.deltaLink"].as_str().unwrap().to_owned()
}

fn names(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .map(|i| i["name"].as_str().unwrap_or("-"))
        .collect()
}

#[tokio::test]
async fn enumeration_then_changes() {
    for kind in KINDS {
        let c = Client::new(kind).await;
        let drive = c.sim.default_drive();
        c.sim.set_knobs(|k| k.delta_page_size = 3);
        for n in 0..8 {
            drive.put(&format!("/d/{n}.txt"), "x").unwrap();
        }
        let (items, last) = c.pages("~/root/delta").await;
        assert_eq!(items.len(), 10);
        assert!(
            items
                .iter()
                .all(|i| i["parentReference"].get("path").is_none())
        );
        assert_eq!(
            items.iter().any(|i| i.get("cTag").is_some()),
            kind == DriveKind::Personal
        );
        let (items, last) = c.pages(&link(&last)).await;
        assert_eq!(items.len(), 0);
        let gone = drive.entry("/d/3.txt").unwrap().id;
        drive.delete("/d/3.txt").unwrap();
        drive.rename("/d/4.txt", "/moved/four.txt").unwrap();
        drive.put("/d/3.txt", "again").unwrap();
        let (items, last) = c.pages(&link(&last)).await;
        let dead: Vec<&Value> = items
            .iter()
            .filter(|i| i.get("deleted").is_some())
            .collect();
        assert_eq!(
            (dead.len(), dead[0]["id"].as_str()),
            (1, Some(gone.as_str()))
        );
        if kind == DriveKind::Personal {
            assert!(dead[0].get("name").is_some() && dead[0].get("size").is_none());
        } else {
            assert!(dead[0].get("name").is_none() && dead[0]["size"] == 0);
        }
        let seen = names(&items);
        for name in ["root", "d", "moved", "four.txt", "3.txt"] {
            assert!(seen.contains(&name), "{name} in {seen:?}");
        }
        let (items, _) = c.pages(&link(&last)).await;
        assert_eq!(items.len(), 0);
    }
}

#[tokio::test]
async fn renaming_a_folder_reports_only_the_folder() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    drive.put("/a/b/c.txt", "x").unwrap();
    let (_, last) = c.pages("~/root/delta?token=latest").await;
    drive.rename("/a", "/z").unwrap();
    let (items, _) = c.pages(&link(&last)).await;
    assert_eq!(names(&items), ["root", "z"]);
}

#[tokio::test]
async fn deleted_folders_bring_descendants_only_by_knob() {
    for (knob, expected) in [(false, 1), (true, 3)] {
        let c = Client::new(DriveKind::Business).await;
        let drive = c.sim.default_drive();
        c.sim.set_knobs(|k| k.delta_descendant_tombstones = knob);
        drive.put("/a/b/c.txt", "x").unwrap();
        let (_, last) = c.pages("~/root/delta?token=latest").await;
        drive.delete("/a").unwrap();
        let (items, _) = c.pages(&link(&last)).await;
        let dead = items.iter().filter(|i| i.get("deleted").is_some()).count();
        assert_eq!(dead, expected);
        let (items, _) = c.pages("~/root/delta").await;
        assert_eq!(names(&items), ["root"]);
    }
}

#[tokio::test]
async fn changes_during_an_enumeration_are_not_lost() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    c.sim.set_knobs(|k| k.delta_page_size = 4);
    for n in 0..10 {
        drive.put(&format!("/{n}.txt"), "x").unwrap();
    }
    let (_, first) = c.get("~/root/delta").await;
    let early = first["value"][1]["id"].as_str().unwrap().to_owned();
    drive.delete("/0.txt").unwrap();
    drive.rename("/1.txt", "/one.txt").unwrap();
    let mut items: Vec<Value> = first["value"].as_array().unwrap().clone();
    let (rest, _) = c.pages(first["@odata.nextLink"].as_str().unwrap()).await;
    items.extend(rest);
    let mut latest: HashMap<String, Value> = HashMap::new();
    for item in items {
        latest.insert(item["id"].as_str().unwrap().to_owned(), item);
    }
    assert!(latest[&early].get("deleted").is_some());
    let live: Vec<Value> = latest
        .into_values()
        .filter(|i| i.get("deleted").is_none())
        .collect();
    let mut seen = names(&live);
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "2.txt", "3.txt", "4.txt", "5.txt", "6.txt", "7.txt", "8.txt", "9.txt", "one.txt",
            "root"
        ]
    );
}

#[tokio::test]
async fn awkward_page_knobs_keep_the_last_word_right() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    c.sim.set_knobs(|k| {
        k.delta_page_size = 5;
        k.delta_repeats = true;
        k.delta_child_first = true;
        k.delta_empty_page = true;
        k.delta_function_links = true;
    });
    for n in 0..9 {
        drive.put(&format!("/d/{n}.txt"), "x").unwrap();
    }
    let (_, first) = c.get("~/root/delta").await;
    assert_eq!(first["value"].as_array().unwrap().len(), 0);
    assert!(
        first["@odata.nextLink"]
            .as_str()
            .unwrap()
            .contains("delta(token='")
    );
    let (items, _) = c.pages("~/root/delta").await;
    let at = |name: &str| names(&items).iter().position(|n| *n == name).unwrap();
    assert!(at("0.txt") < at("d"));
    assert!(names(&items).iter().any(|n| n.starts_with("outdated ")));
    let latest: HashMap<&str, &Value> = items
        .iter()
        .map(|i| (i["id"].as_str().unwrap(), i))
        .collect();
    assert!(
        latest
            .values()
            .all(|i| !i["name"].as_str().unwrap().starts_with("outdated"))
    );
    assert_eq!(latest.len(), 11);
}

#[tokio::test]
async fn gone_links_answer_410_with_both_codes() {
    let c = Client::new(DriveKind::Business).await;
    let (_, last) = c.pages("~/root/delta").await;
    c.sim.expire_delta();
    let response = c
        .call(reqwest::Method::GET, &link(&last))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 410);
    let fresh = response.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (code(&body), inner(&body)),
        ("resyncRequired", "resyncApplyDifferences")
    );
    assert_eq!(c.get(&fresh).await.0, 200);
    c.sim
        .set_knobs(|k| k.delta_gone_inner = "resyncUploadDifferences".into());
    let (status, body) = c.get(&link(&last)).await;
    assert_eq!((status, inner(&body)), (410, "resyncUploadDifferences"));
    let (_, last) = c.pages("~/root/delta").await;
    c.sim.advance(std::time::Duration::from_secs(31 * 86_400));
    let c = Client {
        token: c.sim.access_token(),
        ..c
    };
    assert_eq!(c.get(&link(&last)).await.0, 410);
    c.sim.set_knobs(|k| k.delta_unsupported = true);
    assert_eq!(c.get("~/root/delta").await.0, 400);
}

#[tokio::test]
async fn folder_delta_sees_moves_across_its_border() {
    let c = Client::new(DriveKind::Personal).await;
    let drive = c.sim.default_drive();
    drive.put("/in/a.txt", "x").unwrap();
    drive.put("/out/b/c.txt", "x").unwrap();
    let folder = drive.entry("/in").unwrap().id;
    let (items, last) = c.pages(&format!("~/items/{folder}/delta")).await;
    assert_eq!(names(&items), ["in", "a.txt"]);
    drive.rename("/in/a.txt", "/out/a.txt").unwrap();
    drive.rename("/out/b", "/in/b").unwrap();
    let (items, _) = c.pages(&link(&last)).await;
    let dead: Vec<&Value> = items
        .iter()
        .filter(|i| i.get("deleted").is_some())
        .collect();
    assert_eq!(dead.len(), 1);
    assert!(names(&items).contains(&"c.txt"));
    let c = Client::new(DriveKind::Business).await;
    let folder = c.sim.default_drive().mkdir("/f").unwrap();
    c.sim
        .set_knobs(|k| k.subfolder_delta = SubfolderDelta::NotSupported);
    assert_eq!(c.get(&format!("~/items/{folder}/delta")).await.0, 501);
}

#[tokio::test]
async fn selection_is_baked_into_links_and_dates_work_for_business() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let (_, last) = c.pages("~/root/delta?$select=name&token=latest").await;
    drive.put("/a.txt", "x").unwrap();
    let (items, _) = c.pages(&link(&last)).await;
    assert_eq!(items.last().unwrap().as_object().unwrap().len(), 2);
    let (items, _) = c.pages("~/root/delta?token=2000-01-01T00%3A00%3A00Z").await;
    assert!(names(&items).contains(&"a.txt"));
    let c = Client::new(DriveKind::Personal).await;
    assert_eq!(
        c.get("~/root/delta?token=2000-01-01T00%3A00%3A00Z").await.0,
        400
    );
}
