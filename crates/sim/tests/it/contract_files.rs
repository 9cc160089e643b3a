use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onedrivefs_sim::{DriveKind, FileBody, SimConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, KINDS, answer, code, http, inner};

#[tokio::test]
async fn addressing_forms_lead_to_the_same_item() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let id = drive.put("/My Folder/it's 100% (1).txt", "x").unwrap();
    let folder = c.id("/My Folder").await;
    let paths = [
        format!("~/items/{id}"),
        "~/root:/My%20Folder/it%27s%20100%25%20%281%29.txt".into(),
        "~/root:/my%20FOLDER/IT's%20100%25%20(1).txt:".into(),
        format!("~/items/{folder}:/it%27s%20100%25%20%281%29.txt"),
        format!("~/items/{folder}/children('it%27%27s%20100%25%20%281%29.txt')"),
        format!("~/items/{folder}/children('@a1')?@a1='it''s%20100%25%20(1).txt'"),
        "/me/drive/root:/My%20Folder/it%27s%20100%25%20%281%29.txt".into(),
        "/users/ada@example.com/drive/root:/My%20Folder%2Fit%27s%20100%25%20%281%29.txt".into(),
    ];
    for path in paths {
        let (status, item) = c.get(&path).await;
        assert_eq!(
            (status, item["id"].as_str()),
            (200, Some(id.as_str())),
            "{path} {item}"
        );
    }
    let (status, body) = c.get("~/root:/My%20Folder/nothing").await;
    assert_eq!((status, code(&body)), (404, "itemNotFound"));
    let page = c.call(Method::GET, "~/root:/a%0Ab").send().await.unwrap();
    assert_eq!(page.status(), 400);
    assert!(page.text().await.unwrap().starts_with("<!DOCTYPE"));
}

#[tokio::test]
async fn both_roots_and_drive_lists() {
    let c = Client::new(DriveKind::Business).await;
    let v2 = format!("{}/v2.0/drives/{}/root", c.sim.login_url(), c.drive);
    assert_eq!(c.get(&v2).await.0, 200);
    let (_, drives) = c.get("/me/drives").await;
    assert_eq!(drives["value"][0]["id"], c.drive.as_str());
    let (_, drive) = c.get("/me/drive").await;
    assert_eq!(drive["driveType"], "business");
    assert_eq!(drive["quota"]["state"], "normal");
    assert_eq!(c.get("/me").await.1["userPrincipalName"], "ada@example.com");
}

#[tokio::test]
async fn listings_page_with_skip_tokens_and_select() {
    for kind in KINDS {
        let c = Client::new(kind).await;
        let drive = c.sim.default_drive();
        for n in 0..25 {
            drive.put(&format!("/f/{n:02}.txt"), "x").unwrap();
        }
        let id = c.id("/f").await;
        let path = format!("~/items/{id}/children?$top=10&$select=id,name");
        let (items, _) = c.pages(&path).await;
        let names: Vec<&str> = items.iter().map(|i| i["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 25);
        assert!(names.is_sorted());
        assert_eq!(items[0].as_object().unwrap().len(), 2, "{}", items[0]);
        assert_eq!(
            c.get(&format!("~/items/{id}/children?$filter=x")).await.0,
            400
        );
    }
}

#[tokio::test]
async fn shapes_differ_by_kind() {
    for kind in KINDS {
        let c = Client::new(kind).await;
        let drive = c.sim.default_drive();
        drive
            .put_at("/d/a.txt", "hello world", Some(1_700_000_000_123))
            .unwrap();
        drive.put("/d/empty", "").unwrap();
        let (_, file) = c.get("~/root:/d/a.txt").await;
        let (_, folder) = c.get("~/root:/d").await;
        let (_, root) = c.get("~/root").await;
        assert_eq!(
            file["file"]["hashes"]["quickXorHash"],
            "aCgDG9jwBhDc4Q1yawMZAAAAAAA="
        );
        let mtime = file["fileSystemInfo"]["lastModifiedDateTime"]
            .as_str()
            .unwrap();
        assert!(root["parentReference"].get("id").is_none() && root["root"].is_object());
        assert_eq!(folder["size"], 11);
        assert_eq!(folder["folder"]["childCount"], 2);
        let (_, empty) = c.get("~/root:/d/empty").await;
        assert!(empty["file"].get("hashes").is_none());
        let id = file["id"].as_str().unwrap();
        if kind == DriveKind::Personal {
            assert_eq!(mtime, "2023-11-14T22:13:20.123Z");
            assert!(folder["cTag"].is_string());
            assert!(id.starts_with(&c.drive) && id.contains("!s"));
            assert_eq!(
                c.get(&format!("~/items/{}", id.to_lowercase())).await.0,
                200
            );
        } else {
            assert_eq!(mtime, "2023-11-14T22:13:20Z");
            assert!(folder.get("cTag").is_none());
            assert!(id.starts_with("01") && id.len() == 34);
            assert_eq!(
                c.get(&format!("~/items/{}", id.to_lowercase())).await.0,
                404
            );
        }
    }
}

#[tokio::test]
async fn names_are_checked_as_the_vectors_say() {
    let data: Value = serde_json::from_str(include_str!("../data/vectors.json")).unwrap();
    let business = Client::new(DriveKind::Business).await;
    let personal = Client::new(DriveKind::Personal).await;
    business.sim.default_drive().mkdir("/below").unwrap();
    for case in data["names"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let below = case["reason"].as_str().unwrap().contains("below the root");
        let clients: &[&Client] = match case["scope"].as_str().unwrap() {
            "business" => &[&business],
            "personal" => &[&personal],
            _ => &[&business, &personal],
        };
        for c in clients {
            let parent = if below {
                c.id("/below").await
            } else {
                c.id("").await
            };
            let body = json!({"name": name, "folder": {}});
            let path = format!("~/items/{parent}/children");
            let (status, answer) = c.send(Method::POST, &path, body).await;
            let expected = if case["valid"] == true { 201 } else { 400 };
            assert_eq!(status, expected, "{name:?} {answer}");
        }
    }
}

#[tokio::test]
async fn names_are_unique_in_any_spelling() {
    let c = Client::new(DriveKind::Business).await;
    let root = c.id("").await;
    let path = format!("~/items/{root}/children");
    let mkdir = |name: &str, conflict: &str| json!({"name": name, "folder": {}, "@microsoft.graph.conflictBehavior": conflict});
    let first = c.send(Method::POST, &path, mkdir("Café", "fail")).await;
    assert_eq!(first.0, 201);
    let (status, body) = c
        .send(Method::POST, &path, mkdir("CAFE\u{301}", "fail"))
        .await;
    assert_eq!((status, code(&body)), (409, "nameAlreadyExists"));
    let (status, body) = c.send(Method::POST, &path, mkdir("café", "replace")).await;
    assert_eq!((status, &body["id"]), (200, &first.1["id"]));
    let (status, body) = c.send(Method::POST, &path, mkdir("café", "rename")).await;
    assert_eq!((status, body["name"].as_str()), (201, Some("café 1")));
    // Replacing keeps the stored spelling.
    c.put("~/root:/Read.Me:/content", "one").await;
    let (status, item) = c.put("~/root:/READ.ME:/content", "two").await;
    assert_eq!((status, item["name"].as_str()), (200, Some("Read.Me")));
    assert_eq!(c.put("~/root:/ae.txt:/content", "1").await.0, 201);
    c.sim.set_knobs(|k| k.ae_rule = true);
    let body = mkdir("\u{e6}.TXT", "fail");
    assert_eq!(c.send(Method::POST, &path, body).await.0, 409);
}

#[tokio::test]
async fn downloads_redirect_to_expiring_urls_that_refuse_a_bearer() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let body = FileBody::Generated {
        seed: 5,
        size: 3_000_000,
    };
    let id = drive.put("/big.bin", body.clone()).unwrap();
    let path = format!("~/items/{id}/content");
    let redirect = c.call(Method::GET, &path).send().await.unwrap();
    assert_eq!(redirect.status(), 302);
    let url = redirect.headers()["location"].to_str().unwrap().to_owned();
    assert!(url.starts_with(&c.sim.content_url()));
    let with_token = c.call(Method::GET, &url).send().await.unwrap();
    assert_eq!(with_token.status(), 401);
    let whole = c.http.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_eq!(
        whole.bytes().await.unwrap(),
        body.read(0, 3_000_000).unwrap()
    );
    let part = c
        .http
        .get(&url)
        .header("range", "bytes=1000000-1999999")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(
        part.headers()["content-range"],
        "bytes 1000000-1999999/3000000"
    );
    assert_eq!(
        part.bytes().await.unwrap(),
        body.read(1_000_000, 1_000_000).unwrap()
    );
    let beyond = c
        .http
        .get(&url)
        .header("range", "bytes=3000000-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), 416);
    let (query, rest) = url.split_once('?').unwrap();
    let mut pairs: Vec<&str> = rest.split('&').collect();
    pairs.reverse();
    let reordered = format!("{query}?{}", pairs.join("&"));
    assert_eq!(c.http.get(reordered).send().await.unwrap().status(), 401);
    // A URL serves the newest content.
    drive.put("/big.bin", "new").unwrap();
    assert_eq!(
        c.http.get(&url).send().await.unwrap().text().await.unwrap(),
        "new"
    );
    c.sim.advance(std::time::Duration::from_secs(3_601));
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 401);
    let (_, item) = c
        .get(&format!(
            "~/items/{id}?$select=id,@microsoft.graph.downloadUrl"
        ))
        .await;
    let url = item["@microsoft.graph.downloadUrl"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 200);
    drive.delete("/big.bin").unwrap();
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn odd_downloads() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let file = drive.put("/a.bin", "hello world").unwrap();
    let note = drive.add_package("/Notebook").unwrap();
    let path = format!("~/items/{file}/content");
    assert_eq!(c.get(&format!("~/items/{note}/content")).await.0, 404);
    assert_eq!(c.get(&format!("~/items/{note}/children")).await.0, 200);
    drive.set_malware("/a.bin", true).unwrap();
    let refused = c.call(Method::GET, &path).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(refused.headers().contains_key("x-virus-infected"));
    drive.set_malware("/a.bin", false).unwrap();
    c.sim.set_knobs(|k| {
        k.content_direct = true;
        k.wrong_size = 5;
        k.ignore_range = true;
    });
    let direct = c
        .call(Method::GET, &path)
        .header("range", "bytes=3-5")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (direct.status().as_u16(), direct.content_length()),
        (200, Some(11))
    );
    assert_eq!(c.get("~/root:/a.bin").await.1["size"], 16);
}

#[tokio::test]
async fn rename_move_and_times() {
    for kind in KINDS {
        let c = Client::new(kind).await;
        let drive = c.sim.default_drive();
        let id = drive.put("/a/old.txt", "x").unwrap();
        drive.put("/b/taken.txt", "y").unwrap();
        let b = c.id("/b").await;
        let item = format!("~/items/{id}");
        let (_, before) = c.get(&item).await;
        let body = json!({"name": "new.txt", "parentReference": {"id": b}});
        let (status, after) = c.send(Method::PATCH, &item, body).await;
        assert_eq!((status, &after["id"]), (200, &before["id"]));
        assert_ne!(after["eTag"], before["eTag"]);
        assert_eq!(after["cTag"], before["cTag"]);
        assert!(drive.exists("/b/new.txt") && !drive.exists("/a/old.txt"));
        let (status, body) = c
            .send(Method::PATCH, &item, json!({"name": "TAKEN.txt"}))
            .await;
        assert_eq!((status, code(&body)), (409, "nameAlreadyExists"));
        let replace = json!({"name": "taken.txt", "@microsoft.graph.conflictBehavior": "replace"});
        assert_eq!(c.send(Method::PATCH, &item, replace).await.0, 200);
        assert_eq!(drive.read("/b/taken.txt").unwrap(), b"x");
        assert_eq!(
            c.send(Method::PATCH, &item, json!({"name": "Taken.TXT"}))
                .await
                .0,
            200
        );
        let root = json!({"parentReference": {"id": "root"}});
        assert_eq!(c.send(Method::PATCH, &item, root).await.0, 400);
        let into_itself = json!({"parentReference": {"id": b}});
        assert_eq!(
            c.send(Method::PATCH, &format!("~/items/{b}"), into_itself)
                .await
                .0,
            400
        );
        let times = json!({"fileSystemInfo": {"lastModifiedDateTime": "2020-01-02T03:04:05.678Z"}});
        let (_, item_now) = c.send(Method::PATCH, &item, times).await;
        let shown = item_now["fileSystemInfo"]["lastModifiedDateTime"]
            .as_str()
            .unwrap();
        let versions = drive.versions("/b/taken.txt").len();
        if kind == DriveKind::Personal {
            assert_eq!((shown, versions), ("2020-01-02T03:04:05.678Z", 1));
            assert_ne!(item_now["lastModifiedDateTime"], shown);
        } else {
            assert_eq!((shown, versions), ("2020-01-02T03:04:05Z", 2));
            assert_eq!(item_now["lastModifiedDateTime"], shown);
        }
        let stale = c
            .call(Method::PATCH, &item)
            .header("if-match", before["eTag"].as_str().unwrap());
        let (status, body) = answer(stale.json(&json!({"name": "n"})).send().await.unwrap()).await;
        assert_eq!((status, inner(&body)), (412, "entityTagDoesNotMatch"));
    }
}

#[tokio::test]
async fn delete_restore_and_locks() {
    let c = Client::new(DriveKind::Personal).await;
    let drive = c.sim.default_drive();
    drive.put("/d/a.txt", "12345").unwrap();
    let d = c.id("/d").await;
    let used = drive.used();
    drive.set_locked("/d/a.txt", true).unwrap();
    let a = c.id("/d/a.txt").await;
    let (status, body) = c
        .send(Method::PATCH, &format!("~/items/{a}"), json!({"name": "b"}))
        .await;
    assert_eq!((status, inner(&body)), (423, "resourceLocked"));
    assert_eq!(c.put(&format!("~/items/{a}/content"), "x").await.0, 423);
    drive.set_locked("/d/a.txt", false).unwrap();
    let item = format!("~/items/{d}");
    assert_eq!(
        c.call(Method::DELETE, &item).send().await.unwrap().status(),
        204
    );
    assert_eq!(
        c.call(Method::DELETE, &item).send().await.unwrap().status(),
        404
    );
    assert_eq!((drive.used(), drive.exists("/d/a.txt")), (0, false));
    let restored = c
        .send(Method::POST, &format!("{item}/restore"), json!({}))
        .await;
    assert_eq!(restored.0, 200, "{}", restored.1);
    assert_eq!(
        (drive.used(), drive.read("/d/a.txt").unwrap()),
        (used, b"12345".to_vec())
    );
}

#[tokio::test]
async fn versions_keep_old_contents() {
    let c = Client::new(DriveKind::Business).await;
    for text in ["one", "two!", "three"] {
        c.put("~/root:/v.txt:/content", text).await;
    }
    let id = c.id("/v.txt").await;
    let (_, list) = c.get(&format!("~/items/{id}/versions")).await;
    let ids: Vec<&str> = list["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["3.0", "2.0", "1.0"]);
    let path = format!("~/items/{id}/versions/1.0/content");
    let redirect = c.call(Method::GET, &path).send().await.unwrap();
    let url = redirect.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(
        c.http.get(url).send().await.unwrap().text().await.unwrap(),
        "one"
    );
    let path = format!("~/items/{id}/versions/1.0/restoreVersion");
    assert_eq!(
        c.call(Method::POST, &path).send().await.unwrap().status(),
        204
    );
    assert_eq!(c.sim.default_drive().read("/v.txt").unwrap(), b"one");
    assert_eq!(c.sim.default_drive().versions("/v.txt").len(), 4);
}

#[tokio::test]
async fn copies_run_behind_a_monitor() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    drive.put("/src/deep/a.txt", "content").unwrap();
    let src = c.id("/src").await;
    let root = c.id("").await;
    let body = json!({"name": "dst", "parentReference": {"driveId": c.drive, "id": root}});
    let path = format!("~/items/{src}/copy");
    let started = c
        .call(Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(started.status(), 202);
    let monitor = started.headers()["location"].to_str().unwrap().to_owned();
    assert!(monitor.starts_with(&c.sim.content_url()));
    let (status, state) = answer(c.http.get(&monitor).send().await.unwrap()).await;
    assert_eq!(
        (status, state["status"].as_str()),
        (202, Some("inProgress"))
    );
    let (status, state) = answer(c.http.get(&monitor).send().await.unwrap()).await;
    assert_eq!((status, state["status"].as_str()), (200, Some("completed")));
    assert_eq!(
        state["resourceId"].as_str(),
        Some(c.id("/dst").await.as_str())
    );
    assert_eq!(drive.read("/dst/deep/a.txt").unwrap(), b"content");
    // The same again fails in the monitor, not in the request.
    let again = c
        .call(Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    let monitor = again.headers()["location"].to_str().unwrap().to_owned();
    c.http.get(&monitor).send().await.unwrap();
    let (status, state) = answer(c.http.get(&monitor).send().await.unwrap()).await;
    assert_eq!(
        (status, state["errorCode"].as_str()),
        (200, Some("nameAlreadyExists"))
    );
}

#[tokio::test]
async fn nothing_is_made_in_a_folder_that_was_deleted_meanwhile() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    drive.put("/a.txt", "content").unwrap();
    let source = c.id("/a.txt").await;
    // A copy takes a while.
    drive.mkdir("/copied into").unwrap();
    let folder = c.id("/copied into").await;
    let body = json!({"name": "b.txt", "parentReference": {"driveId": c.drive, "id": folder}});
    let copy = c.call(Method::POST, &format!("~/items/{source}/copy"));
    let started = copy.json(&body).send().await.unwrap();
    let monitor = started.headers()["location"].to_str().unwrap().to_owned();
    drive.delete("/copied into").unwrap();
    c.http.get(&monitor).send().await.unwrap();
    let (_, state) = answer(c.http.get(&monitor).send().await.unwrap()).await;
    assert_eq!(state["status"], "failed", "{state}");
    // So do the bodies of requests that make a folder or move something.
    for (method, op) in [(Method::POST, "mkdir"), (Method::PATCH, "patch")] {
        drive.mkdir("/folder").unwrap();
        let folder = c.id("/folder").await;
        let (path, body) = match op {
            "mkdir" => (
                format!("~/items/{folder}/children"),
                json!({"name": "new", "folder": {}}),
            ),
            _ => (
                format!("~/items/{folder}"),
                json!({"fileSystemInfo": {"lastModifiedDateTime": "2021-05-06T07:08:09Z"}}),
            ),
        };
        let (rest, slow) = tokio::sync::oneshot::channel::<Vec<u8>>();
        let slow = futures_util::stream::once(slow);
        let request = c
            .call(method, &path)
            .header("content-type", "application/json")
            .body(reqwest::Body::wrap_stream(slow));
        let sent = tokio::spawn(request.send());
        while c.sim.requests().count(op) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        drive.delete("/folder").unwrap();
        rest.send(serde_json::to_vec(&body).unwrap()).unwrap();
        assert_eq!(sent.await.unwrap().unwrap().status(), 404, "{op}");
    }
    assert_eq!(drive.dump().len(), 1, "{:?}", drive.dump());
    // Nor are there news of what does not exist.
    let (news, _) = c.pages("~/root/delta").await;
    let inside = |item: &&Value| item["name"] == "b.txt" || item["name"] == "new";
    assert_eq!(news.iter().filter(inside).count(), 0, "{news:?}");
}

#[tokio::test]
async fn shortcuts_show_only_on_request() {
    let c = Client::new(DriveKind::Business).await;
    let other = c.sim.add_drive(onedrivefs_sim::DriveSpec {
        owner: "somebody".into(),
        ..Default::default()
    });
    let target = other.mkdir("/Shared/Docs").unwrap();
    let link = c
        .sim
        .default_drive()
        .add_shortcut("/Docs of S", other.id(), &target)
        .unwrap();
    let (_, plain) = c.get("~/root/children").await;
    assert_eq!(plain["value"].as_array().unwrap().len(), 0);
    let feature = ("prefer", "Include-Feature=AddToOneDrive");
    let shown = c
        .call(Method::GET, "~/root/children")
        .header(feature.0, feature.1);
    let (_, shown) = answer(shown.send().await.unwrap()).await;
    let item = &shown["value"][0];
    assert_eq!(item["id"], link.as_str());
    assert!(item.get("folder").is_none());
    assert_eq!(item["remoteItem"]["id"], target.as_str());
    assert_eq!(item["remoteItem"]["parentReference"]["driveId"], other.id());
    let delta = c
        .call(Method::GET, "~/root/delta")
        .header(feature.0, feature.1);
    let (_, delta) = answer(delta.send().await.unwrap()).await;
    assert_eq!(delta["value"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn links_search_special_folders_and_batches() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    drive.put("/x/Report 2025.txt", "x").unwrap();
    let id = c.id("/x/Report 2025.txt").await;
    let link = json!({"type": "view", "scope": "organization"});
    let path = format!("~/items/{id}/createLink");
    assert_eq!(c.send(Method::POST, &path, link.clone()).await.0, 201);
    let (status, link) = c.send(Method::POST, &path, link).await;
    assert_eq!(status, 200);
    let encoded = URL_SAFE_NO_PAD.encode(link["link"]["webUrl"].as_str().unwrap());
    let (_, shared) = c.get(&format!("/shares/u!{encoded}/driveItem")).await;
    assert_eq!(shared["id"], id.as_str());
    let (_, hits) = c.get("~/root/search(q='report')").await;
    assert_eq!(hits["value"][0]["id"], id.as_str());
    let (_, folder) = c.get("~/special/approot").await;
    assert_eq!(folder["specialFolder"]["name"], "approot");
    let batch = json!({"requests": [
        {"id": "1", "method": "GET", "url": format!("/drives/{}/items/{id}", c.drive)},
        {"id": "2", "method": "PATCH", "url": format!("/drives/{}/items/{id}", c.drive),
         "headers": {"Content-Type": "application/json"}, "body": {"name": "r.txt"},
         "dependsOn": ["1"]},
        {"id": "3", "method": "GET", "url": "/drives/none/root"},
        {"id": "4", "method": "GET", "url": "/me", "dependsOn": ["3"]},
    ]});
    let (status, answers) = c.send(Method::POST, "/$batch", batch).await;
    assert_eq!(status, 200);
    let status_of = |id: &str| {
        let all = answers["responses"].as_array().unwrap();
        all.iter().find(|r| r["id"] == id).unwrap()["status"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(
        [
            status_of("1"),
            status_of("2"),
            status_of("3"),
            status_of("4")
        ],
        [200, 200, 404, 424]
    );
    assert!(drive.exists("/x/r.txt"));
}

#[tokio::test]
async fn personal_quirks_of_ids() {
    let mut config = SimConfig::with_kind(DriveKind::Personal);
    config.knobs.personal_id_quirks = true;
    let c = Client::with(config).await;
    c.sim.default_drive().put("/a", "x").unwrap();
    let (_, delta) = c.get("~/root/delta").await;
    let seen = delta["value"][1]["parentReference"]["driveId"]
        .as_str()
        .unwrap();
    assert!(seen != c.drive && seen.eq_ignore_ascii_case(&c.drive));
    let short = c.drive.trim_start_matches('0').to_lowercase();
    let (status, _) = c.get(&format!("/drives/{short}/root")).await;
    assert_eq!(status, 200);
    let (status, body) = c.get("~/items/00000000DEADBEEF!s1").await;
    assert_eq!((status, inner(&body)), (400, "invalidResourceId"));
}

#[tokio::test]
async fn app_only_tokens_have_no_me() {
    let c = Client::new(DriveKind::Business).await;
    let call = |path: &str, token: String| http().get(c.url(path)).bearer_auth(token).send();
    let app = || c.sim.app_token(true);
    assert_eq!(call("/me/drive", app()).await.unwrap().status(), 400);
    assert_eq!(call("~/root", app()).await.unwrap().status(), 200);
    assert_eq!(
        call("~/root/subscriptions/socketIo", app())
            .await
            .unwrap()
            .status(),
        403
    );
    let (status, body) = answer(call("~/root", c.sim.app_token(false)).await.unwrap()).await;
    assert_eq!(status, 401);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Either scp or roles")
    );
}

#[tokio::test]
async fn vaults_and_retention() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    drive.mkdir("/Vault").unwrap();
    drive.put("/held/a.txt", "x").unwrap();
    drive.set_vault("/Vault", true).unwrap();
    drive.set_held("/held", true).unwrap();
    let (status, body) = c.get("~/root:/Vault:/children").await;
    assert_eq!((status, inner(&body)), (400, "invalidResourceId"));
    let delete = |path: &str| c.call(Method::DELETE, path).send();
    assert_eq!(delete("~/root:/held").await.unwrap().status(), 403);
    assert_eq!(delete("~/root:/held/a.txt").await.unwrap().status(), 204);
    assert_eq!(delete("~/root:/held").await.unwrap().status(), 204);
}
