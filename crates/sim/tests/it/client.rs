//! A thin HTTP client with a token, nothing more.

use std::sync::Once;

use onedrivefs_sim::{DriveKind, SimConfig, Simulator};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

pub struct Client {
    pub sim: Simulator,
    pub http: reqwest::Client,
    pub token: String,
    pub drive: String,
}

pub fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

impl Client {
    pub async fn new(kind: DriveKind) -> Client {
        Client::with(SimConfig::with_kind(kind)).await
    }

    pub async fn with(config: SimConfig) -> Client {
        let sim = Simulator::start(config).await.unwrap();
        let token = sim.access_token();
        let drive = sim.default_drive().id().to_owned();
        Client {
            sim,
            http: http(),
            token,
            drive,
        }
    }

    pub fn url(&self, path: &str) -> String {
        if path.starts_with("http") {
            return path.to_owned();
        }
        match path.strip_prefix('~') {
            Some(rest) => format!("{}/drives/{}{rest}", self.sim.graph_url(), self.drive),
            None => format!("{}{path}", self.sim.graph_url()),
        }
    }

    /// A signed-in request; `~` stands for the drive.
    pub fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, self.url(path))
            .bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.call(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        answer(self.call(method, path).json(&body).send().await.unwrap()).await
    }

    pub async fn put(&self, path: &str, bytes: impl Into<reqwest::Body>) -> (u16, Value) {
        answer(
            self.call(Method::PUT, path)
                .body(bytes)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub async fn id(&self, path: &str) -> String {
        self.sim.default_drive().entry(path).unwrap().id
    }

    /// Follows all pages of a listing or delta; the items and the last answer.
    pub async fn pages(&self, first: &str) -> (Vec<Value>, Value) {
        let mut items = Vec::new();
        let mut url = self.url(first);
        loop {
            let (status, page) = self.get(&url).await;
            assert_eq!(status, 200, "{page}");
            items.extend(page["value"].as_array().unwrap().clone());
            match page["@odata.nextLink"].as_str() {
                Some(next) => url = next.to_owned(),
                None => return (items, page),
            }
        }
    }
}

pub async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

pub fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

pub fn inner(body: &Value) -> &str {
    body["error"]["innerError"]["code"]
        .as_str()
        .unwrap_or_default()
}

pub const KINDS: [DriveKind; 3] = [
    DriveKind::Personal,
    DriveKind::Business,
    DriveKind::DocumentLibrary,
];
