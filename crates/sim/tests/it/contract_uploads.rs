use onedrivefs_sim::{DriveKind, FileBody};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::client::{Client, answer, code, inner};

const UNIT: usize = 327_680;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

async fn session(c: &Client, path: &str, item: Value) -> (u16, Value) {
    c.send(
        Method::POST,
        &format!("{path}:/createUploadSession"),
        json!({"item": item}),
    )
    .await
}

async fn open(c: &Client, path: &str, item: Value) -> String {
    let (status, body) = session(c, path, item).await;
    assert_eq!(status, 200, "{body}");
    body["uploadUrl"].as_str().unwrap().to_owned()
}

async fn fragment(c: &Client, url: &str, bytes: &[u8], at: usize, total: usize) -> Response {
    let range = format!("bytes {at}-{}/{total}", at + bytes.len() - 1);
    let put = c.http.put(url).header("content-range", range);
    put.body(bytes.to_vec()).send().await.unwrap()
}

#[tokio::test]
async fn a_session_in_fragments_sets_times_and_hash() {
    let c = Client::new(DriveKind::Business).await;
    let data = pattern(3 * UNIT + 17);
    let times = json!({"fileSystemInfo": {"lastModifiedDateTime": "2021-05-06T07:08:09Z"},
                       "name": "new.bin", "fileSize": data.len()});
    let url = open(&c, "~/root:/new.bin", times).await;
    for start in [0, 2 * UNIT] {
        let end = (start + 2 * UNIT).min(data.len());
        let part = fragment(&c, &url, &data[start..end], start, data.len()).await;
        let (status, body) = answer(part).await;
        if start == 0 {
            assert_eq!(status, 202);
            assert_eq!(body["nextExpectedRanges"], json!([format!("{end}-")]));
            assert!(!c.sim.default_drive().exists("/new.bin"));
            assert_eq!(c.sim.sessions()[0]["received"], end);
            let (status, body) = answer(c.http.get(&url).send().await.unwrap()).await;
            assert_eq!(
                (status, &body["nextExpectedRanges"][0]),
                (200, &json!(format!("{end}-")))
            );
        } else {
            assert_eq!(status, 201);
            assert_eq!(
                body["fileSystemInfo"]["lastModifiedDateTime"],
                "2021-05-06T07:08:09Z"
            );
            assert_eq!(body["size"], data.len());
        }
    }
    assert_eq!(c.sim.default_drive().read("/new.bin").unwrap(), data);
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 404);
    // Replacing makes a version and keeps the id.
    let id = c.id("/new.bin").await;
    let path = format!("~/items/{id}/createUploadSession");
    let (_, made) = c.send(Method::POST, &path, json!({"item": {}})).await;
    let url = made["uploadUrl"].as_str().unwrap().to_owned();
    let (status, body) = answer(fragment(&c, &url, b"short", 0, 5).await).await;
    assert_eq!((status, body["id"].as_str()), (200, Some(id.as_str())));
    assert_eq!(c.sim.default_drive().versions("/new.bin").len(), 2);
}

#[tokio::test]
async fn large_uploads_are_spooled_and_hashed() {
    let c = Client::new(DriveKind::Personal).await;
    let data = pattern(10_485_760);
    let url = open(&c, "~/root:/ten.bin", json!({})).await;
    for start in (0..data.len()).step_by(16 * UNIT) {
        let end = (start + 16 * UNIT).min(data.len());
        let part = fragment(&c, &url, &data[start..end], start, data.len()).await;
        assert!(part.status().is_success());
    }
    let entry = c.sim.default_drive().entry("/ten.bin").unwrap();
    assert_eq!(entry.hash.as_deref(), Some("HzHa6uC4H1eGHsvneyLLI+WiCqw="));
    let body = c.sim.default_drive().body("/ten.bin").unwrap();
    assert!(matches!(body, FileBody::Spooled { .. }));
}

#[tokio::test]
async fn fragments_must_follow_the_rules() {
    let c = Client::new(DriveKind::Business).await;
    let data = pattern(2 * UNIT);
    let total = data.len();
    let url = open(&c, "~/root:/f.bin", json!({})).await;
    let with_token = c
        .call(Method::PUT, &url)
        .header("content-range", "bytes 0-0/1")
        .body("x");
    assert_eq!(with_token.send().await.unwrap().status(), 401);
    assert_eq!(c.get(&url).await.0, 200);
    c.sim.set_knobs(|k| k.session_status_strict = true);
    assert_eq!(c.get(&url).await.0, 401);
    let (status, _) = answer(fragment(&c, &url, &data[..UNIT - 1], 0, total).await).await;
    assert_eq!(status, 400);
    let (status, body) = answer(fragment(&c, &url, &data[UNIT..], UNIT, total).await).await;
    assert_eq!((status, inner(&body)), (400, "fragmentOutOfOrder"));
    assert_eq!(
        fragment(&c, &url, &data[..UNIT], 0, total).await.status(),
        202
    );
    let (status, body) = answer(fragment(&c, &url, &data[..UNIT], 0, total).await).await;
    assert_eq!((status, code(&body)), (416, "invalidRange"));
    let (status, _) = answer(fragment(&c, &url, &data[UNIT..], UNIT, total + 1).await).await;
    assert_eq!(status, 400);
    let wrong = c.http.put(&url).header(
        "content-range",
        format!("bytes {UNIT}-{}/{total}", total - 1),
    );
    let (status, body) = answer(wrong.body("short").send().await.unwrap()).await;
    assert_eq!((status, inner(&body)), (400, "fragmentLengthMismatch"));
    assert_eq!(
        fragment(&c, &url, &data[UNIT..], UNIT, total)
            .await
            .status(),
        201
    );
    assert_eq!(
        session(&c, "~/root:/zero", json!({"fileSize": 0})).await.0,
        400
    );
    assert_eq!(session(&c, "~/root:/a", json!({"name": "b"})).await.0, 400);
    let huge = json!({"fileSize": 300_000_000_000_u64});
    assert_eq!(session(&c, "~/root:/huge", huge).await.0, 413);
}

#[tokio::test]
async fn sessions_expire_cancel_and_hold_names() {
    let c = Client::new(DriveKind::Business).await;
    let url = open(&c, "~/root:/a.bin", json!({})).await;
    let (status, body) = session(&c, "~/root:/A.BIN", json!({})).await;
    assert_eq!((status, code(&body)), (409, "nameAlreadyExists"));
    assert_eq!(c.http.delete(&url).send().await.unwrap().status(), 204);
    let url = open(&c, "~/root:/a.bin", json!({})).await;
    c.sim.advance(std::time::Duration::from_secs(901));
    assert_eq!(fragment(&c, &url, b"x", 0, 1).await.status(), 404);
    let url = open(&c, "~/root:/a.bin", json!({})).await;
    assert_eq!(fragment(&c, &url, b"x", 0, 1).await.status(), 201);
    let personal = Client::new(DriveKind::Personal).await;
    open(&personal, "~/root:/a.bin", json!({})).await;
    open(&personal, "~/root:/a.bin", json!({})).await;
}

#[tokio::test]
async fn preconditions_and_conflicts_of_sessions() {
    let c = Client::new(DriveKind::Personal).await;
    let drive = c.sim.default_drive();
    drive.put("/a.txt", "one").unwrap();
    let tag = drive.entry("/a.txt").unwrap().etag;
    let fail = json!({"@microsoft.graph.conflictBehavior": "fail"});
    assert_eq!(session(&c, "~/root:/a.txt", fail.clone()).await.0, 409);
    let guarded = |tag: String| {
        c.call(Method::POST, "~/root:/a.txt:/createUploadSession")
            .header("if-match", tag)
            .json(&json!({"item": {}}))
            .send()
    };
    assert_eq!(guarded("\"{stale}\"".into()).await.unwrap().status(), 412);
    let (status, body) = answer(guarded(tag).await.unwrap()).await;
    assert_eq!(status, 200);
    drive.put("/a.txt", "foreign").unwrap();
    let url = body["uploadUrl"].as_str().unwrap();
    let (status, body) = answer(fragment(&c, url, b"mine", 0, 4).await).await;
    assert_eq!((status, code(&body)), (412, "resourceModified"));
    assert_eq!(drive.read("/a.txt").unwrap(), b"foreign");
    // Somebody takes the name while the upload runs.
    let url = open(&c, "~/root:/b.txt", fail).await;
    drive.put("/b.txt", "theirs").unwrap();
    let (status, body) = answer(fragment(&c, &url, b"mine", 0, 4).await).await;
    assert_eq!((status, code(&body)), (409, "nameAlreadyExists"));
    // The bytes are still there and can be committed under another name.
    let root = c.id("").await;
    let body = json!({"name": "b 1.txt", "@microsoft.graph.sourceUrl": url});
    let (status, item) = c
        .send(Method::PUT, &format!("~/items/{root}:/b%201.txt"), body)
        .await;
    assert_eq!(
        (status, item["name"].as_str()),
        (201, Some("b 1.txt")),
        "{item}"
    );
    assert_eq!(drive.read("/b 1.txt").unwrap(), b"mine");
    let rename = json!({"@microsoft.graph.conflictBehavior": "rename"});
    let url = open(&c, "~/root:/b.txt", rename).await;
    let (status, item) = answer(fragment(&c, &url, b"mine", 0, 4).await).await;
    assert_eq!((status, item["name"].as_str()), (201, Some("b 2.txt")));
}

#[tokio::test]
async fn deferred_commits_wait_for_a_post() {
    let c = Client::new(DriveKind::Business).await;
    let body = json!({"item": {}, "deferCommit": true});
    let (_, made) = c
        .send(Method::POST, "~/root:/d.txt:/createUploadSession", body)
        .await;
    let url = made["uploadUrl"].as_str().unwrap();
    assert_eq!(fragment(&c, url, b"held", 0, 4).await.status(), 202);
    assert!(!c.sim.default_drive().exists("/d.txt"));
    let post = c
        .http
        .post(url)
        .header("content-length", 0)
        .send()
        .await
        .unwrap();
    assert_eq!(post.status(), 201);
    assert_eq!(c.sim.default_drive().read("/d.txt").unwrap(), b"held");
}

#[tokio::test]
async fn quota_is_checked_early_and_late() {
    let c = Client::new(DriveKind::Business).await;
    c.sim.default_drive().set_quota(1_000);
    let (status, body) = session(&c, "~/root:/a", json!({"fileSize": 1_001})).await;
    assert_eq!((status, code(&body)), (507, "quotaLimitReached"));
    let url = open(&c, "~/root:/a", json!({})).await;
    assert_eq!(
        fragment(&c, &url, &pattern(1_001), 0, 1_001).await.status(),
        507
    );
    let (status, body) = c.put("~/root:/b:/content", pattern(1_001)).await;
    assert_eq!((status, code(&body)), (507, "quotaLimitReached"));
    assert_eq!(c.put("~/root:/b:/content", pattern(950)).await.0, 201);
    assert_eq!(c.get("~").await.1["quota"]["state"], "nearing");
}

#[tokio::test]
async fn simple_uploads_and_their_preconditions() {
    let c = Client::new(DriveKind::Business).await;
    let (status, item) = c.put("~/root:/a.txt:/content", "").await;
    assert_eq!((status, item["size"].as_u64()), (201, Some(0)));
    let put = |tag: (&'static str, String)| {
        c.call(Method::PUT, "~/root:/a.txt:/content")
            .header(tag.0, tag.1)
            .body("x")
            .send()
    };
    assert_eq!(
        put(("if-none-match", "*".into())).await.unwrap().status(),
        412
    );
    let ctag = item["cTag"].as_str().unwrap().to_owned();
    assert_eq!(put(("if-match", ctag.clone())).await.unwrap().status(), 200);
    assert_eq!(put(("if-match", ctag)).await.unwrap().status(), 412);
    let fail = "~/root:/a.txt:/content?@microsoft.graph.conflictBehavior=fail";
    assert_eq!(c.put(fail, "x").await.0, 409);
    let rename = "~/root:/a.txt:/content?@microsoft.graph.conflictBehavior=rename";
    assert_eq!(c.put(rename, "x").await.1["name"], "a 1.txt");
    assert_eq!(c.put("~/root:/no/such/a.txt:/content", "x").await.0, 404);
}

#[tokio::test]
async fn upload_knobs() {
    let c = Client::new(DriveKind::DocumentLibrary).await;
    let drive = c.sim.default_drive();
    c.sim.set_knobs(|k| {
        k.office_rewrite = true;
        k.session_404_once = true;
        k.empty_commit_body = true;
    });
    let url = open(&c, "~/root:/a.docx", json!({})).await;
    assert_eq!(fragment(&c, &url, b"text", 0, 4).await.status(), 404);
    let done = fragment(&c, &url, b"text", 0, 4).await;
    assert_eq!(done.status(), 201);
    assert_eq!(done.text().await.unwrap(), "");
    let stored = drive.read("/a.docx").unwrap();
    assert!(stored.starts_with(b"text") && stored.len() > 4);
    let (_, item) = c.put("~/root:/b.bin:/content", "text").await;
    assert_eq!(item["size"], 4);
}

#[tokio::test]
async fn a_fragment_that_breaks_off_counts_for_nothing() {
    use tokio::io::AsyncWriteExt;
    let c = Client::new(DriveKind::Business).await;
    let data = pattern(8 * UNIT);
    let url = open(&c, "~/root:/cut.bin", json!({})).await;
    assert_eq!(
        fragment(&c, &url, &data[..4 * UNIT], 0, data.len())
            .await
            .status(),
        202
    );
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\
         Content-Range: bytes {}-{}/{}\r\n\r\n",
        4 * UNIT,
        4 * UNIT,
        data.len() - 1,
        data.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&data[..UNIT]).await.unwrap();
    drop(stream);
    let (_, state) = answer(c.http.get(&url).send().await.unwrap()).await;
    assert_eq!(state["nextExpectedRanges"][0], format!("{}-", 4 * UNIT));
    let last = fragment(&c, &url, &data[4 * UNIT..], 4 * UNIT, data.len()).await;
    assert_eq!(last.status(), 201);
    assert_eq!(c.sim.default_drive().read("/cut.bin").unwrap(), data);
}
