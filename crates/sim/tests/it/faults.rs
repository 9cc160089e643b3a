use std::time::Duration;

use futures_util::StreamExt;
use onedrivefs_sim::{BodyForm, DriveKind, FaultAction, FaultRule, FileBody, Reach, SimConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, answer, code};

/// Long enough for anything on loopback, short enough to wait for a stall.
const PATIENCE: Duration = Duration::from_millis(300);

async fn client() -> Client {
    let c = Client::new(DriveKind::Business).await;
    c.sim.default_drive().put("/a.txt", "hello world").unwrap();
    c
}

async fn download_url(c: &Client) -> String {
    let redirect = c
        .call(Method::GET, "~/root:/a.txt:/content")
        .send()
        .await
        .unwrap();
    redirect.headers()["location"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn statuses_come_in_every_form() {
    let c = client().await;
    let rule = |form| FaultAction::Status {
        status: 503,
        code: None,
        inner: None,
        retry_after: Some("1.5".into()),
        form,
        body: None,
        after_effect: false,
    };
    for (form, starts) in [
        (BodyForm::Json, "{\"error\""),
        (BodyForm::Bom, "\u{feff}{"),
        (BodyForm::Html, "<!DOCTYPE"),
        (BodyForm::Empty, ""),
    ] {
        c.sim
            .faults()
            .add(FaultRule::on("item", rule(form)).times(1));
        let response = c.call(Method::GET, "~/root:/a.txt").send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1.5");
        assert!(
            response
                .bytes()
                .await
                .unwrap()
                .starts_with(starts.as_bytes())
        );
        assert_eq!(c.get("~/root:/a.txt").await.0, 200);
    }
}

#[tokio::test]
async fn drops_before_and_after_the_effect() {
    let c = client().await;
    let drive = c.sim.default_drive();
    let put = |name: &str| {
        c.call(Method::PUT, &format!("~/root:/{name}:/content"))
            .body("x")
            .send()
    };
    c.sim
        .faults()
        .add(FaultRule::on("put_content", FaultAction::DropBefore).times(1));
    assert!(put("before").await.is_err());
    assert!(!drive.exists("/before"));
    c.sim
        .faults()
        .add(FaultRule::on("put_content", FaultAction::DropAfter).times(1));
    assert!(put("after").await.is_err());
    assert!(drive.exists("/after"));
    let late = FaultAction::Status {
        status: 504,
        code: None,
        inner: None,
        retry_after: None,
        form: BodyForm::Json,
        body: None,
        after_effect: true,
    };
    c.sim
        .faults()
        .add(FaultRule::on("put_content", late).times(1));
    assert_eq!(put("late").await.unwrap().status(), 504);
    assert!(drive.exists("/late"));
}

#[tokio::test]
async fn bodies_are_truncated_corrupted_and_stalled() {
    let c = client().await;
    let body = FileBody::Generated {
        seed: 1,
        size: 1_000_000,
    };
    c.sim.default_drive().put("/a.txt", body.clone()).unwrap();
    let good = body.read(0, 1_000_000).unwrap();
    let url = download_url(&c).await;
    let rule = |action| FaultRule::on("download", action).times(1);
    c.sim
        .faults()
        .add(rule(FaultAction::Truncate { bytes: 700_001 }));
    let mut stream = c.http.get(&url).send().await.unwrap().bytes_stream();
    let mut got = 0;
    let failed = loop {
        match stream.next().await {
            Some(Ok(chunk)) => got += chunk.len(),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(failed && got <= 700_001);
    c.sim
        .faults()
        .add(rule(FaultAction::Corrupt { offset: 500_000 }));
    let bytes = c
        .http
        .get(&url)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(bytes.len(), good.len());
    assert_eq!(bytes[500_000], good[500_000] ^ 0xff);
    assert_eq!(bytes[..500_000], good[..500_000]);
    c.sim
        .faults()
        .add(rule(FaultAction::StallBody { bytes: 10 }));
    let response = c.http.get(&url).send().await.unwrap();
    assert!(
        tokio::time::timeout(PATIENCE, response.bytes())
            .await
            .is_err()
    );
    c.sim.faults().add(rule(FaultAction::Stall));
    assert!(
        tokio::time::timeout(PATIENCE, c.http.get(&url).send())
            .await
            .is_err()
    );
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn expiries_can_hit_in_the_middle() {
    let c = client().await;
    let url = download_url(&c).await;
    c.sim.faults().add(
        FaultRule::on("download", FaultAction::ExpireUrls)
            .after(1)
            .times(1),
    );
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 200);
    assert_eq!(c.http.get(&url).send().await.unwrap().status(), 401);
    c.sim
        .faults()
        .add(FaultRule::on("delta", FaultAction::ExpireTokens).times(1));
    let (status, body) = c.get("~/root/delta").await;
    assert_eq!((status, code(&body)), (401, "InvalidAuthenticationToken"));
}

#[tokio::test]
async fn offline_and_black_hole() {
    let c = client().await;
    assert_eq!(c.get("~/root").await.0, 200);
    c.sim.set_reach(Reach::Offline);
    // The listener goes away a moment after the switch.
    let refused = async {
        loop {
            match c.call(Method::GET, "~/root").send().await {
                Err(error) if error.is_connect() => break,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), refused)
        .await
        .unwrap();
    // The control host stays.
    let help = c
        .http
        .get(format!("{}/_sim/", c.sim.control_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(help.status(), 200);
    let reach = format!("{}/_sim/reach", c.sim.control_url());
    c.http
        .put(&reach)
        .json(&json!({"reach": "black_hole"}))
        .send()
        .await
        .unwrap();
    let swallowed = async {
        loop {
            let call = c.call(Method::GET, "~/root").send();
            match tokio::time::timeout(PATIENCE, call).await {
                Err(_) => break,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), swallowed)
        .await
        .unwrap();
    c.http
        .put(&reach)
        .json(&json!({"reach": "online"}))
        .send()
        .await
        .unwrap();
    let back = async {
        while c.call(Method::GET, "~/root").send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), back)
        .await
        .unwrap();
}

#[tokio::test]
async fn throttling_by_resource_units() {
    let c = client().await;
    c.sim.set_knobs(|k| k.ru_per_minute = Some(10));
    let mut seen = Vec::new();
    let mut warned = false;
    for _ in 0..12 {
        let response = c.call(Method::GET, "~/root").send().await.unwrap();
        warned |= response.headers().contains_key("ratelimit-remaining");
        seen.push(response.status().as_u16());
        if response.status() == 429 {
            assert!(response.headers().contains_key("retry-after"));
        }
    }
    // A minute may end in the middle; then more pass.
    assert!(warned && seen[..10].iter().all(|s| *s == 200));
    c.sim.advance(Duration::from_secs(60));
    let c = Client {
        token: c.sim.access_token(),
        ..c
    };
    assert_eq!(c.get("~/root").await.0, 200);
}

#[tokio::test]
async fn bandwidth_and_latency_are_felt() {
    let mut config = SimConfig::default();
    config.knobs.bandwidth = 1_000_000;
    config.knobs.latency_ms = 30;
    let c = Client::with(config).await;
    let body = FileBody::Generated {
        seed: 1,
        size: 300_000,
    };
    c.sim.default_drive().put("/a.txt", body).unwrap();
    let url = download_url(&c).await;
    let start = std::time::Instant::now();
    let bytes = c
        .http
        .get(&url)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(bytes.len(), 300_000);
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn everything_is_scriptable_over_http() {
    let c = client().await;
    let control = c.sim.control_url();
    let url = |path: &str| format!("{control}/_sim/{path}");
    let post = async |path: &str, body: Value| {
        answer(c.http.post(url(path)).json(&body).send().await.unwrap()).await
    };
    let get = async |path: &str| answer(c.http.get(url(path)).send().await.unwrap()).await;
    let rule = json!({"op": "item", "count": 1, "action": {"kind": "status", "status": 429,
                      "retry_after": "0"}});
    let (status, added) = post("faults", rule).await;
    assert_eq!((status, added["id"].as_u64()), (200, Some(1)));
    assert_eq!(c.get("~/root").await.0, 429);
    assert_eq!(get("faults").await.1[0]["hits"], 1);
    assert_eq!(
        c.http.delete(url("faults")).send().await.unwrap().status(),
        204
    );
    let bad = post(
        "faults",
        json!({"op": "item", "action": {"kind": "nonsense"}}),
    )
    .await;
    assert_eq!(bad.0, 400);
    let put = json!({"path": "/x/y.txt", "text": "hi", "mtime_ms": 0});
    assert_eq!(post("drives/default/put", put).await.0, 200);
    assert_eq!(
        post(
            "drives/default/rename",
            json!({"from": "/x/y.txt", "to": "/z.txt"})
        )
        .await
        .0,
        200
    );
    let (_, entry) = get("drives/default/entry?path=/z.txt").await;
    assert_eq!(
        (entry["size"].as_u64(), entry["mtime"].as_str()),
        (Some(2), Some("1970-01-01T00:00:00Z"))
    );
    let raw = c
        .http
        .put(url("drives/default/content?path=%2Fraw.bin"))
        .body(vec![7u8; 10]);
    assert_eq!(raw.send().await.unwrap().status(), 200);
    let bytes = c
        .http
        .get(url("drives/default/content?path=%2Fraw.bin"))
        .send()
        .await
        .unwrap();
    assert_eq!(bytes.bytes().await.unwrap(), vec![7u8; 10]);
    let paths: Vec<String> = get("drives/default/tree")
        .await
        .1
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths, ["/a.txt", "/raw.bin", "/x", "/z.txt"]);
}

#[tokio::test]
async fn knobs_tokens_and_logs_over_http() {
    let c = client().await;
    let control = c.sim.control_url();
    let url = |path: &str| format!("{control}/_sim/{path}");
    let post = async |path: &str, body: Value| {
        answer(c.http.post(url(path)).json(&body).send().await.unwrap()).await
    };
    let get = async |path: &str| answer(c.http.get(url(path)).send().await.unwrap()).await;
    let knobs = c
        .http
        .patch(url("knobs"))
        .json(&json!({"delta_page_size": 7}))
        .send()
        .await
        .unwrap();
    assert_eq!(knobs.status(), 200);
    assert_eq!(c.sim.knobs().delta_page_size, 7);
    let bad = c
        .http
        .patch(url("knobs"))
        .json(&json!({"no_such_knob": 7}))
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
    let (_, token) = post("token", json!({})).await;
    let token = token["access_token"].as_str().unwrap();
    let root = c
        .http
        .get(c.url("~/root"))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(root.status(), 200);
    let (_, log) = get("requests").await;
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["op"], &last["status"], &last["authorization"]),
        (&json!("item"), &json!(200), &json!(true))
    );
    assert!(last["bytes_out"].as_u64().unwrap() > 100);
    assert_eq!(get("counters").await.1["item"]["statuses"]["200"], 1);
    assert_eq!(post("expire", json!({})).await.0, 204);
    assert_eq!(c.get("~/root").await.0, 401);
    assert_eq!(post("drives/default/sample", json!({})).await.0, 200);
    assert_eq!(
        get("drives/default/entry?path=/Videos/holiday-2025.mp4")
            .await
            .1["size"],
        1_u64 << 30
    );
}

#[tokio::test]
async fn held_requests_go_on_when_the_rule_is_removed() {
    let c = client().await;
    let drive = c.sim.default_drive();
    let gate = c
        .sim
        .faults()
        .add(FaultRule::on("put_content", FaultAction::Hold));
    let put = c
        .call(Method::PUT, "~/root:/held:/content")
        .body("x")
        .send();
    let put = tokio::spawn(put);
    while c.sim.faults().hits(gate) == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(PATIENCE).await;
    assert!(!put.is_finished() && !drive.exists("/held"));
    c.sim.faults().remove(gate);
    assert_eq!(put.await.unwrap().unwrap().status(), 201);
    assert!(drive.exists("/held"));
}

#[tokio::test]
async fn headers_lie_on_demand() {
    let c = client().await;
    let url = download_url(&c).await;
    let lie = FaultAction::Header {
        name: "content-range".into(),
        value: Some("bytes 3-4/11".into()),
    };
    c.sim.faults().add(FaultRule::on("download", lie).times(1));
    let get = || c.http.get(&url).header("range", "bytes=0-1").send();
    let answer = get().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 3-4/11");
    let honest = get().await.unwrap();
    assert_eq!(honest.headers()["content-range"], "bytes 0-1/11");
}
