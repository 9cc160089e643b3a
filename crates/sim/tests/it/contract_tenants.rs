//! Tenants, registrations and permissions.

use onedrivefs_sim::{Audience, ClientSpec, DriveSpec, SimConfig, TenantSpec, UserSpec};
use reqwest::Method;
use serde_json::Value;

use crate::client::{Client, answer};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";

fn user(id: &str, tenant: &str) -> UserSpec {
    UserSpec {
        id: id.into(),
        upn: format!("{id}@example.com"),
        name: id.into(),
        tenant: tenant.into(),
        ..UserSpec::default()
    }
}

/// Signs somebody in with a code; the answer of the token endpoint.
async fn sign_in(c: &Client, tenant: &str, client: &str, scope: &str) -> (u16, Value) {
    let post = |endpoint: &str, body: String| {
        let url = format!("{}/{tenant}/oauth2/v2.0/{endpoint}", c.sim.login_url());
        let request = c.http.post(url);
        let form = "application/x-www-form-urlencoded";
        request.header("content-type", form).body(body).send()
    };
    let scope = scope.replace(' ', "%20");
    let body = format!("client_id={client}&scope={scope}");
    let (status, device) = answer(post("devicecode", body).await.unwrap()).await;
    let Some(code) = device["device_code"].as_str() else {
        return (status, device);
    };
    let body = format!("client_id={client}&grant_type=device_code&device_code={code}");
    answer(post("token", body).await.unwrap()).await
}

#[tokio::test]
async fn a_token_does_what_it_was_granted_for_and_nothing_else() {
    let mut config = SimConfig {
        users: vec![user("ada", ""), user("ben", "")],
        drives: ["ada", "ben"]
            .map(|owner| DriveSpec {
                owner: owner.into(),
                ..DriveSpec::default()
            })
            .to_vec(),
        ..SimConfig::default()
    };
    config.knobs.device_polls = 0;
    let c = Client::with(config).await;
    let ben = c.sim.drives().remove(1);
    ben.mkdir("/shared").unwrap();
    ben.share("/shared", "ada", false).unwrap();
    let other = format!("/drives/{}", ben.id());
    let (own, people) = ("/me/drive".to_owned(), "/users".to_owned());
    for (scope, me, read, write, foreign, listed) in [
        ("User.Read", 200, 403, 403, 403, 403),
        ("Files.Read", 403, 200, 403, 403, 403),
        ("Files.ReadWrite", 403, 200, 201, 403, 403),
        ("Files.Read.All User.Read", 200, 200, 403, 200, 403),
        ("Files.ReadWrite.All", 403, 200, 201, 200, 403),
        ("User.ReadBasic.All", 200, 403, 403, 403, 200),
    ] {
        let (_, tokens) = sign_in(&c, "common", "app", scope).await;
        let token = tokens["access_token"].as_str().unwrap();
        assert_eq!(tokens["scope"], scope);
        let get = async |path: &str| {
            let url = format!("{}{path}", c.sim.graph_url());
            let sent = c.http.get(url).bearer_auth(token).send().await.unwrap();
            sent.status().as_u16()
        };
        let url = format!("{}/me/drive/root:/{scope}.txt:/content", c.sim.graph_url());
        let put = c.http.put(url).bearer_auth(token).body("x").send().await;
        let found = [
            get("/me").await,
            get(&own).await,
            put.unwrap().status().as_u16(),
            get(&other).await,
            get(&people).await,
        ];
        assert_eq!(found, [me, read, write, foreign, listed], "{scope}");
    }
}

#[tokio::test]
async fn each_registration_is_good_for_its_accounts() {
    let client = |id: &str, audience| ClientSpec {
        id: id.into(),
        audience,
        tenant: TENANT.into(),
        ..ClientSpec::default()
    };
    let mut config = SimConfig {
        tenants: vec![TenantSpec {
            id: TENANT.into(),
            domains: vec!["example.com".into()],
            consent_by_admin: true,
            ..TenantSpec::default()
        }],
        users: vec![user("ada", TENANT), user("pat", "consumers")],
        clients: vec![
            client("all", Audience::Everybody),
            client("work", Audience::Organizations),
            client("one", Audience::OneTenant),
            client("home", Audience::Personal),
        ],
        ..SimConfig::default()
    };
    config.knobs.device_polls = 0;
    let c = Client::with(config).await;
    for (client, tenant, number) in [
        ("all", "nowhere.example", 90_002),
        ("one", "common", 50_194),
        ("work", "consumers", 9_002_332),
        ("home", "organizations", 9_002_331),
        ("none", "common", 700_016),
        ("all", "example.com", 90_094),
        ("all", "organizations", 90_094),
        ("all", "consumers", 0),
        ("home", "consumers", 0),
    ] {
        let (status, body) = sign_in(&c, tenant, client, "Files.Read").await;
        let found = body["error_codes"][0].as_u64().unwrap_or(0);
        assert_eq!(found, number, "{client} at {tenant}: {body}");
        assert_eq!(status == 200, number == 0, "{client} at {tenant}: {body}");
    }
    // An administrator agrees, for one application.
    let url = format!(
        "{}/example.com/adminConsent?client_id=all&redirect_uri=http%3A%2F%2Flocalhost",
        c.sim.login_url()
    );
    let sent = c.http.get(url).send().await.unwrap();
    let back = sent.headers()["location"].to_str().unwrap();
    assert!(
        back.contains("admin_consent=True") && back.contains(&format!("tenant={TENANT}")),
        "{back}"
    );
    assert_eq!(sign_in(&c, TENANT, "all", "Files.Read").await.0, 200);
    assert_eq!(sign_in(&c, TENANT, "work", "Files.Read").await.0, 400);
}

#[tokio::test]
async fn clouds_are_told_apart_by_the_host_that_is_asked() {
    let mut config = SimConfig {
        tenants: vec![TenantSpec {
            id: TENANT.into(),
            cloud: "china".into(),
            ..TenantSpec::default()
        }],
        users: vec![user("ada", TENANT)],
        drives: vec![DriveSpec {
            owner: "ada".into(),
            ..DriveSpec::default()
        }],
        ..SimConfig::default()
    };
    config.knobs.device_polls = 0;
    let c = Client::with(config).await;
    c.sim.default_drive().put("/a.txt", "a").unwrap();
    let get = async |host: &str, path: &str| {
        let request = c.call(Method::GET, path).header("host", host);
        answer(request.send().await.unwrap()).await
    };
    let (here, elsewhere) = ("microsoftgraph.chinacloudapi.cn", "graph.microsoft.com");
    assert_eq!(get(here, "/me/drive").await.0, 200);
    assert_eq!(get(elsewhere, "/me/drive").await.0, 401);
    // This one has no change feed, and no paths after a colon.
    assert_eq!(get(here, "/me/drive/root/delta").await.0, 400);
    assert_eq!(get(here, "/me/drive/root:/a.txt").await.0, 400);
    let key = "/me/drive/root/children('a.txt')";
    assert_eq!(get(here, key).await.1["name"], "a.txt");
    // Under its own name the simulator is every cloud.
    assert_eq!(c.get("/me/drive/root:/a.txt").await.0, 200);
    let sign_in = async |host: &str, scope: &str| {
        let url = format!("{}/{TENANT}/oauth2/v2.0/devicecode", c.sim.login_url());
        let form = "application/x-www-form-urlencoded";
        let request = c.http.post(url).header("content-type", form);
        let body = format!("client_id=x&scope={scope}");
        let sent = request.header("host", host).body(body).send().await;
        let (_, body) = answer(sent.unwrap()).await;
        body["error_codes"][0].as_u64().unwrap_or(0)
    };
    let own = "https%3A%2F%2Fmicrosoftgraph.chinacloudapi.cn%2FFiles.Read";
    assert_eq!(sign_in("login.chinacloudapi.cn", own).await, 0);
    assert_eq!(sign_in("login.microsoftonline.us", own).await, 90_038);
    let foreign = "https%3A%2F%2Fgraph.microsoft.us%2FFiles.Read";
    assert_eq!(sign_in("login.chinacloudapi.cn", foreign).await, 500_011);
}
