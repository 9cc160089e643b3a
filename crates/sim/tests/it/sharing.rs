//! What one person reaches of another's drive, of groups and of sites.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onedrivefs_sim::{
    ChannelSpec, DriveHandle, DriveKind, DriveSpec, GroupSpec, SharedList, SimConfig, SiteSpec,
    UserSpec,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, answer, code};

fn user(id: &str) -> UserSpec {
    UserSpec {
        id: id.into(),
        upn: format!("{id}@example.com"),
        name: format!("{id} Example"),
        ..UserSpec::default()
    }
}

fn drive(owner: &str, kind: DriveKind) -> DriveSpec {
    DriveSpec {
        owner: owner.into(),
        kind,
        ..DriveSpec::default()
    }
}

/// Ben, who asks, Ada, who owns, a team with a channel, and a site of Ada alone.
async fn people(kind: DriveKind) -> Client {
    let library = |id: &str, owner: &str| DriveSpec {
        id: id.into(),
        ..drive(owner, DriveKind::DocumentLibrary)
    };
    Client::with(SimConfig {
        users: vec![user("ben"), user("ada")],
        drives: vec![
            drive("ben", kind),
            drive("ada", kind),
            library("b!group", "group-1"),
            library("b!private", "group-1"),
            library("b!site", "site-1"),
        ],
        groups: vec![GroupSpec {
            id: "group-1".into(),
            name: "Builders".into(),
            members: vec!["ben".into()],
            team: true,
            channels: vec![
                ChannelSpec {
                    id: "19:a@thread.tacv2".into(),
                    name: "General".into(),
                    ..ChannelSpec::default()
                },
                ChannelSpec {
                    id: "19:b@thread.tacv2".into(),
                    name: "Plans".into(),
                    drive: "b!private".into(),
                    ..ChannelSpec::default()
                },
            ],
        }],
        sites: vec![SiteSpec {
            id: "host,1,2".into(),
            host: "host".into(),
            path: "/sites/ada".into(),
            name: "Ada's".into(),
            drives: vec!["b!site".into()],
            members: vec!["ada".into()],
        }],
        ..SimConfig::default()
    })
    .await
}

fn ada(c: &Client) -> DriveHandle {
    c.sim.drives().remove(1)
}

#[tokio::test]
async fn only_what_was_shared_is_reached() {
    for kind in [DriveKind::Personal, DriveKind::Business] {
        let c = people(kind).await;
        let theirs = ada(&c);
        let base = format!("/drives/{}", theirs.id());
        theirs.put("/secret/diary.txt", "x").unwrap();
        let diary = theirs.entry("/secret/diary.txt").unwrap().id;
        assert_eq!(c.get(&base).await.0, 403);
        assert_eq!(c.get(&format!("{base}/root/children")).await.0, 403);
        theirs.put("/docs/deep/a.txt", "x").unwrap();
        let docs = theirs.share("/docs", "ben", false).unwrap();
        let file = theirs.entry("/docs/deep/a.txt").unwrap().id;
        assert_eq!(c.get(&base).await.0, 200);
        assert_eq!(c.get(&format!("{base}/root/delta")).await.0, 403);
        let refused = c.get(&format!("{base}/items/{diary}")).await;
        assert_eq!((refused.0, code(&refused.1)), (403, "accessDenied"));
        for path in ["", "/children", "/delta"] {
            let url = format!("{base}/items/{docs}{path}");
            assert_eq!(c.get(&url).await.0, 200, "{url}");
        }
        let below = format!("{base}/items/{docs}:/deep/a.txt");
        assert_eq!(c.get(&below).await.1["id"], file.as_str());
        // Reading is not writing.
        let new = format!("{base}/items/{docs}:/new.txt:/content");
        assert_eq!(c.put(&new, "x").await.0, 403);
        let item = format!("{base}/items/{file}");
        let renamed = json!({"name": "b.txt"});
        assert_eq!(c.send(Method::PATCH, &item, renamed.clone()).await.0, 403);
        assert_eq!(c.send(Method::DELETE, &item, Value::Null).await.0, 403);
        theirs.share("/docs", "ben", true).unwrap();
        assert_eq!(c.put(&new, "x").await.0, 201);
        assert_eq!(c.send(Method::PATCH, &item, renamed).await.0, 200);
        // Out of what was shared there is no way.
        let root = theirs.entry("").unwrap().id;
        let out = json!({"parentReference": {"id": root}});
        assert_eq!(c.send(Method::PATCH, &item, out).await.0, 403);
        let copied = json!({
            "name": "c.txt", "parentReference": {"driveId": theirs.id(), "id": root},
        });
        let copy = format!("{item}/copy");
        assert_eq!(c.send(Method::POST, &copy, copied).await.0, 403);
        theirs.unshare("/docs", "ben").unwrap();
        assert_eq!(c.get(&item).await.0, 403);
        // An application reaches everything.
        let app = c.sim.app_token(true);
        let request = c.http.get(c.url(&format!("{base}/items/{diary}")));
        assert_eq!(
            answer(request.bearer_auth(app).send().await.unwrap())
                .await
                .0,
            200
        );
    }
}

#[tokio::test]
async fn the_list_of_shared_items_holds_less_and_less() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    theirs.put("/docs/a.txt", "12345").unwrap();
    let id = theirs.share("/docs", "ben", false).unwrap();
    let (_, list) = c.get("/me/drive/sharedWithMe").await;
    let item = &list["value"][0];
    assert_eq!(
        (&item["name"], &item["remoteItem"]["id"]),
        (&json!("docs"), &json!(id))
    );
    assert_eq!(item["remoteItem"]["size"], 5);
    assert_eq!(
        item["remoteItem"]["parentReference"]["driveId"],
        theirs.id()
    );
    c.sim
        .set_knobs(|knobs| knobs.shared_list = SharedList::Reduced);
    let (_, list) = c.get("/me/drive/sharedWithMe").await;
    assert!(list["value"][0]["remoteItem"].get("size").is_none());
    assert_eq!(list["value"][0]["remoteItem"]["id"], id.as_str());
    c.sim
        .set_knobs(|knobs| knobs.shared_list = SharedList::Latest);
    theirs.put("/more/a.txt", "x").unwrap();
    theirs.share("/more", "ben", false).unwrap();
    let (_, list) = c.get("/me/drive/sharedWithMe").await;
    assert_eq!(list["value"].as_array().unwrap().len(), 1);
    c.sim
        .set_knobs(|knobs| knobs.shared_list = SharedList::Empty);
    let (status, list) = c.get("/me/drive/sharedWithMe").await;
    assert_eq!((status, &list["value"]), (200, &json!([])));
    c.sim
        .set_knobs(|knobs| knobs.shared_list = SharedList::Gone);
    assert_eq!(c.get("/me/drive/sharedWithMe").await.0, 501);
}

#[tokio::test]
async fn the_search_of_an_organisation_knows_what_was_shared_with_whom() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    for name in ["a", "b", "c"] {
        theirs.put(&format!("/{name}/x.txt"), "x").unwrap();
        theirs.share(&format!("/{name}"), "ben", false).unwrap();
    }
    theirs.put("/private/x.txt", "x").unwrap();
    let ask = |from: usize, text: &str| {
        json!({"requests": [{
            "entityTypes": ["driveItem"],
            "query": {"queryString": text},
            "from": from,
            "size": 2,
        }]})
    };
    let text = "SharedWithUsersOWSUSER:\"ben@example.com\"";
    let (status, first) = c.send(Method::POST, "/search/query", ask(0, text)).await;
    assert_eq!(status, 200);
    let container = &first["value"][0]["hitsContainers"][0];
    assert_eq!(
        (&container["total"], &container["moreResultsAvailable"]),
        (&json!(3), &json!(true))
    );
    let resource = &container["hits"][0]["resource"];
    assert_eq!(resource["parentReference"]["driveId"], theirs.id());
    assert!(resource.get("folder").is_none(), "the index does not tell");
    let (_, rest) = c.send(Method::POST, "/search/query", ask(2, text)).await;
    let container = &rest["value"][0]["hitsContainers"][0];
    assert_eq!(container["hits"].as_array().unwrap().len(), 1);
    assert_eq!(container["moreResultsAvailable"], false);
    // What one may not see is not found.
    let (_, none) = c
        .send(Method::POST, "/search/query", ask(0, "private"))
        .await;
    assert_eq!(none["value"][0]["hitsContainers"][0]["total"], 0);
    // Personal accounts have none, and an application would have to say in which region.
    let personal = people(DriveKind::Personal).await;
    let refused = personal.send(Method::POST, "/search/query", ask(0, text));
    assert_eq!(refused.await.0, 400);
    let url = c.url("/search/query");
    let request = c.http.post(url).bearer_auth(c.sim.app_token(true));
    let refused = answer(request.json(&ask(0, text)).send().await.unwrap()).await;
    assert_eq!(refused.0, 400);
}

#[tokio::test]
async fn a_shortcut_is_added_to_what_one_may_reach() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    let docs = theirs.mkdir("/docs").unwrap();
    let wish = json!({
        "name": "Ada's docs",
        "remoteItem": {"id": docs, "parentReference": {"driveId": theirs.id()}},
    });
    let (status, _) = c
        .send(Method::POST, "/me/drive/root/children", wish.clone())
        .await;
    assert_eq!(status, 403);
    theirs.share("/docs", "ben", false).unwrap();
    let (status, made) = c.send(Method::POST, "/me/drive/root/children", wish).await;
    assert_eq!((status, &made["remoteItem"]["id"]), (201, &json!(docs)));
    assert!(made.get("folder").is_none());
}

#[tokio::test]
async fn links_let_in_for_one_request_or_for_good() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    theirs.put("/docs/a.txt", "x").unwrap();
    let id = theirs.entry("/docs").unwrap().id;
    let token = c.sim.access_token_of("ada");
    let link = async |scope: &str| {
        let url = c.url(&format!("/drives/{}/items/{id}/createLink", theirs.id()));
        let body = json!({"type": "edit", "scope": scope});
        let request = c.http.post(url).bearer_auth(&token).json(&body);
        let (_, made) = answer(request.send().await.unwrap()).await;
        let address = made["link"]["webUrl"].as_str().unwrap().to_owned();
        format!("/shares/u!{}/driveItem", URL_SAFE_NO_PAD.encode(address))
    };
    let (people_only, everybody) = (link("users").await, link("anonymous").await);
    let open = async |path: &str, prefer: &str| {
        let request = c.call(Method::GET, path).header("prefer", prefer);
        answer(request.send().await.unwrap()).await
    };
    assert_eq!(open(&people_only, "redeemSharingLink").await.0, 403);
    assert_eq!(c.get(&everybody).await.0, 403);
    let item = format!("/drives/{}/items/{id}", theirs.id());
    let once = open(&everybody, "redeemSharingLinkIfNecessary").await;
    assert_eq!((once.0, &once.1["id"]), (200, &json!(id)));
    assert_eq!(c.get(&item).await.0, 403);
    assert_eq!(open(&everybody, "redeemSharingLink").await.0, 200);
    assert_eq!(c.get(&item).await.0, 200);
    assert_eq!(
        c.put(&format!("{item}:/new.txt:/content"), "x").await.0,
        201
    );
}

#[tokio::test]
async fn somebody_is_invited_and_put_out_again() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    let id = theirs.mkdir("/docs").unwrap();
    let item = c.url(&format!("/drives/{}/items/{id}", theirs.id()));
    let token = c.sim.access_token_of("ada");
    let wish = json!({"recipients": [{"email": "ben@example.com"}], "roles": ["read"]});
    let request = c
        .http
        .post(format!("{item}/invite"))
        .bearer_auth(&token)
        .json(&wish);
    let (status, made) = answer(request.send().await.unwrap()).await;
    assert_eq!(
        (status, &made["value"][0]["roles"]),
        (200, &json!(["read"]))
    );
    assert_eq!(c.get(&item).await.0, 200);
    let id = made["value"][0]["id"].as_str().unwrap();
    let request = c
        .http
        .delete(format!("{item}/permissions/{id}"))
        .bearer_auth(&token);
    assert_eq!(answer(request.send().await.unwrap()).await.0, 204);
    assert_eq!(c.get(&item).await.0, 403);
}

#[tokio::test]
async fn teams_and_groups_have_files_for_their_members() {
    let c = people(DriveKind::Business).await;
    let (_, teams) = c.get("/me/joinedTeams").await;
    assert_eq!(teams["value"][0]["displayName"], "Builders");
    let (_, channels) = c.get("/teams/group-1/channels").await;
    assert_eq!(channels["value"][1]["displayName"], "Plans");
    assert_eq!(c.get("/groups/group-1/drive").await.1["id"], "b!group");
    for (channel, drive) in [
        ("19:a@thread.tacv2", "b!group"),
        ("19:b@thread.tacv2", "b!private"),
    ] {
        let path = format!("/teams/group-1/channels/{channel}/filesFolder");
        let (status, folder) = c.get(&path.replace('@', "%40")).await;
        assert_eq!(status, 200, "{folder}");
        assert_eq!(folder["parentReference"]["driveId"], drive);
    }
    assert_eq!(c.get("/drives/b!private/root/children").await.0, 200);
    let token = c.sim.access_token_of("ada");
    for (path, status) in [
        ("/me/joinedTeams", 200),
        ("/teams/group-1/channels", 403),
        ("/drives/b!group/root/children", 403),
        ("/groups/group-1/drive", 403),
        ("/sites/host:/sites/ada:/drives", 200),
    ] {
        let request = c.http.get(c.url(path)).bearer_auth(&token);
        assert_eq!(
            answer(request.send().await.unwrap()).await.0,
            status,
            "{path}"
        );
    }
    assert_eq!(c.get("/sites/host:/sites/ada:/drives").await.0, 403);
    assert_eq!(c.get("/sites?search=ada").await.1["value"], json!([]));
}

#[tokio::test]
async fn the_feed_of_a_folder_tells_of_nothing_above_it() {
    let c = people(DriveKind::Business).await;
    let theirs = ada(&c);
    theirs.put("/docs/deep/a.txt", "x").unwrap();
    let docs = theirs.share("/docs", "ben", false).unwrap();
    let feed = format!("/drives/{}/items/{docs}/delta", theirs.id());
    let (_, last) = c.pages(&feed).await;
    theirs.put("/docs/deep/b.txt", "x").unwrap();
    theirs.put("/else/c.txt", "x").unwrap();
    let (items, _) = c.pages(last["@odata.deltaLink"].as_str().unwrap()).await;
    let names: Vec<&str> = items
        .iter()
        .filter_map(|item| item["name"].as_str())
        .collect();
    assert_eq!(names, ["docs", "deep", "b.txt"]);
}
