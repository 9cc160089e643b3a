use onedrivefs_sim::{ClientSpec, DeviceOutcome, SimConfig};
use serde_json::{Value, json};

use crate::client::{Client, answer, code};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn post(c: &Client, endpoint: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/common/oauth2/v2.0/{endpoint}", c.sim.login_url());
    let body: Vec<String> = form
        .iter()
        .map(|(k, v)| format!("{k}={}", escape(v)))
        .collect();
    let request = c
        .http
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded");
    answer(request.body(body.join("&")).send().await.unwrap()).await
}

fn escape(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

async fn location(c: &Client, query: &str) -> String {
    let url = format!("{}/common/oauth2/v2.0/authorize?{query}", c.sim.login_url());
    let response = c.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), 302, "{}", response.text().await.unwrap());
    response.headers()["location"].to_str().unwrap().to_owned()
}

fn param<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

const QUERY: &str = "client_id=app&response_type=code&redirect_uri=http%3A%2F%2Flocalhost%3A4321%2F\
                     &scope=Files.ReadWrite.All%20offline_access&state=s%26t";

#[tokio::test]
async fn authorization_code_with_pkce() {
    let c = Client::with(SimConfig::default()).await;
    let query = format!("{QUERY}&code_challenge={CHALLENGE}&code_challenge_method=S256");
    let back = location(&c, &query).await;
    assert!(back.starts_with("http://localhost:4321/?"));
    assert_eq!(param(&back, "state"), Some("s%26t"));
    let code = param(&back, "code").unwrap();
    let form = |verifier| {
        [
            ("client_id", "app"),
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", "http://localhost:4321/"),
            ("code_verifier", verifier),
        ]
    };
    let wrong = "x".repeat(43);
    let (status, body) = post(&c, "token", &form(&wrong)).await;
    assert_eq!((status, &body["error_codes"][0]), (400, &json!(501_481)));
    let (status, tokens) = post(&c, "token", &form(VERIFIER)).await;
    assert_eq!((status, tokens["expires_in"].as_i64()), (200, Some(3_899)));
    assert_eq!(tokens["scope"], "Files.ReadWrite.All");
    let (status, body) = post(&c, "token", &form(VERIFIER)).await;
    assert_eq!(
        (status, body["error"].as_str()),
        (400, Some("invalid_grant"))
    );
    let access = tokens["access_token"].as_str().unwrap();
    let me = c
        .http
        .get(c.url("/me/drive"))
        .bearer_auth(access)
        .send()
        .await
        .unwrap();
    assert_eq!(me.status(), 200);
    // Refreshing rotates, and the old token survives a crash in between.
    let first = tokens["refresh_token"].as_str().unwrap();
    let refresh = |token| {
        [
            ("client_id", "app"),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
        ]
    };
    let (status, again) = post(&c, "token", &refresh(first)).await;
    assert_eq!(status, 200);
    assert_ne!(again["refresh_token"], tokens["refresh_token"]);
    assert_eq!(post(&c, "token", &refresh(first)).await.0, 200);
    // Some libraries name themselves in a Basic header first.
    let url = format!("{}/common/oauth2/v2.0/token", c.sim.login_url());
    let body = format!("grant_type=refresh_token&refresh_token={first}");
    let basic = c
        .http
        .post(url)
        .basic_auth("app", Some("secret"))
        .body(body)
        .send();
    assert_eq!(basic.await.unwrap().status(), 200);
    c.sim.revoke_refresh_tokens();
    let (status, body) = post(&c, "token", &refresh(first)).await;
    assert_eq!(
        (status, body["error_codes"][0].as_u64()),
        (400, Some(700_082))
    );
}

#[tokio::test]
async fn authorize_errors_go_back_to_the_client() {
    let c = Client::with(SimConfig::default()).await;
    c.sim
        .set_knobs(|k| k.authorize_error = Some("access_denied".into()));
    let back = location(&c, QUERY).await;
    assert_eq!(param(&back, "error"), Some("access_denied"));
    let url = format!(
        "{}/common/oauth2/v2.0/authorize?{}",
        c.sim.login_url(),
        QUERY
    )
    .replace(
        "http%3A%2F%2Flocalhost%3A4321%2F",
        "http%3A%2F%2Fevil.example%2F",
    );
    assert_eq!(c.http.get(url).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn registered_clients_are_held_to_their_registration() {
    let config = SimConfig {
        clients: vec![
            ClientSpec {
                id: "app".into(),
                public: false,
                ..ClientSpec::default()
            },
            ClientSpec {
                id: "daemon".into(),
                secret: Some("s3".into()),
                app_roles: false,
                ..ClientSpec::default()
            },
        ],
        ..SimConfig::default()
    };
    let c = Client::with(config).await;
    let (status, body) = post(&c, "devicecode", &[("client_id", "nobody"), ("scope", "x")]).await;
    assert_eq!(
        (status, body["error_codes"][0].as_u64()),
        (400, Some(700_016))
    );
    let (_, body) = post(&c, "devicecode", &[("client_id", "app"), ("scope", "x")]).await;
    assert_eq!(body["error_codes"][0], 7_000_218);
    let back = location(&c, QUERY).await;
    assert!(param(&back, "code").is_some());
    let url = format!(
        "{}/common/oauth2/v2.0/authorize?{}",
        c.sim.login_url(),
        QUERY
    )
    .replace("%3A4321%2F", "%3A4321%2Fother");
    assert_eq!(c.http.get(url).send().await.unwrap().status(), 400);
    let app = |tenant: &str, secret: &str| {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", c.sim.login_url());
        let body = format!(
            "client_id=daemon&grant_type=client_credentials&client_secret={secret}\
             &scope=https%3A%2F%2Fgraph.microsoft.com%2F.default"
        );
        c.http.post(url).body(body).send()
    };
    let (status, _) = answer(app("common", "s3").await.unwrap()).await;
    assert_eq!(status, 400);
    let (status, body) = answer(app("contoso", "bad").await.unwrap()).await;
    assert_eq!(
        (status, body["error_codes"][0].as_u64()),
        (401, Some(7_000_215))
    );
    let (status, body) = answer(app("contoso", "s3").await.unwrap()).await;
    assert_eq!(status, 200);
    assert!(body.get("refresh_token").is_none());
    let token = body["access_token"].as_str().unwrap();
    let refused = c
        .http
        .get(c.url("~/root"))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
}

#[tokio::test]
async fn device_codes_walk_through_their_states() {
    let outcomes = [
        (DeviceOutcome::Approve, "tokens"),
        (DeviceOutcome::Decline, "authorization_declined"),
        (DeviceOutcome::Expire, "expired_token"),
    ];
    for (outcome, last) in outcomes {
        let c = Client::with(SimConfig::default()).await;
        c.sim.set_knobs(|k| {
            k.device_slow_downs = 1;
            k.device_polls = 1;
            k.device_outcome = outcome;
        });
        let scope = "Files.Read offline_access";
        let (_, made) = post(&c, "devicecode", &[("client_id", "app"), ("scope", scope)]).await;
        let device = made["device_code"].as_str().unwrap();
        assert!(made.get("verification_uri_complete").is_none());
        for expected in ["slow_down", "authorization_pending", last] {
            let grant = "urn:ietf:params:oauth:grant-type:device_code";
            let form = [
                ("client_id", "app"),
                ("grant_type", grant),
                ("device_code", device),
            ];
            let (status, body) = post(&c, "token", &form).await;
            let seen = body["error"].as_str().unwrap_or("tokens");
            assert_eq!(seen, expected);
            assert_eq!(status, if seen == "tokens" { 200 } else { 400 });
        }
    }
}

#[tokio::test]
async fn tokens_expire_at_graph() {
    let c = Client::with(SimConfig::default()).await;
    let (status, body) = answer(c.http.get(c.url("/me")).send().await.unwrap()).await;
    assert_eq!((status, code(&body)), (401, "InvalidAuthenticationToken"));
    c.sim.expire_tokens();
    let response = c.call(reqwest::Method::GET, "/me").send().await.unwrap();
    assert_eq!(response.status(), 401);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("expired_token"));
}
