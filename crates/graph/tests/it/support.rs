//! A simulator with a client signed in to it.

use std::sync::Arc;

use onedrivefs_core::{DriveId, ItemId, RemoteItem};
use onedrivefs_graph::auth::{TokenSource, TokenStore};
use onedrivefs_graph::{
    AuthConfig, Cloud, DeltaFrom, DeltaNext, Endpoints, GraphClient, HttpOptions,
};
use onedrivefs_sim::{DriveHandle, DriveKind, SimConfig, Simulator};

pub(crate) struct Bench {
    pub(crate) sim: Simulator,
    pub(crate) graph: GraphClient,
    pub(crate) drive: DriveId,
    pub(crate) root: ItemId,
}

pub(crate) fn endpoints(sim: &Simulator) -> Endpoints {
    let (graph, login) = (sim.graph_url(), sim.login_url());
    Endpoints::with_overrides(Cloud::Global, Some(&graph), Some(&login)).unwrap()
}

pub(crate) fn auth_config(sim: &Simulator) -> AuthConfig {
    AuthConfig::new("app-1", "common", endpoints(sim))
}

/// A token as a sign-in would leave it in the store.
pub(crate) fn stored_token(sim: &Simulator, store: &TokenStore) -> Arc<TokenSource> {
    let source = source(sim, store);
    source.adopt(token_set(sim)).unwrap();
    source
}

pub(crate) fn source(sim: &Simulator, store: &TokenStore) -> Arc<TokenSource> {
    TokenSource::new(&auth_config(sim), &HttpOptions::default(), store.clone()).unwrap()
}

pub(crate) fn token_set(sim: &Simulator) -> onedrivefs_graph::auth::TokenSet {
    let answer = sim.token_response("app-1");
    let now = onedrivefs_core::Timestamp::now();
    let life = answer["expires_in"].as_i64().unwrap() * 1_000_000_000;
    onedrivefs_graph::auth::TokenSet {
        access_token: answer["access_token"].as_str().unwrap().into(),
        refresh_token: Some(answer["refresh_token"].as_str().unwrap().into()),
        issued_at: now,
        expires_at: onedrivefs_core::Timestamp::from_nanos(now.as_nanos() + life),
        scope: Vec::new(),
    }
}

impl Bench {
    pub(crate) async fn new(kind: DriveKind) -> Self {
        let sim = Simulator::start(SimConfig::with_kind(kind)).await.unwrap();
        let tokens = TokenSource::fixed(sim.access_token().into());
        Self::with_tokens(sim, tokens).await
    }

    pub(crate) async fn with_tokens(sim: Simulator, tokens: Arc<TokenSource>) -> Self {
        let options = HttpOptions {
            idle_timeout: std::time::Duration::from_secs(2),
            ..HttpOptions::default()
        };
        let graph = GraphClient::new(endpoints(&sim), options, tokens).unwrap();
        let drive = graph.my_drive().await.unwrap().id;
        let root = graph.root(&drive).await.unwrap().id;
        sim.requests().clear();
        Self {
            sim,
            graph,
            drive,
            root,
        }
    }

    pub(crate) fn remote(&self) -> DriveHandle {
        self.sim.default_drive()
    }

    pub(crate) async fn child(&self, name: &str) -> RemoteItem {
        let found = self
            .graph
            .child_by_name(&self.drive, &self.root, name)
            .await;
        found.unwrap().unwrap()
    }

    /// All pages of a run of changes, and its delta link.
    pub(crate) async fn run(&self, mut from: DeltaFrom) -> (Vec<RemoteItem>, String) {
        let mut items = Vec::new();
        loop {
            let page = self.graph.delta_page(&self.drive, &from).await.unwrap();
            items.extend(page.items);
            match page.next {
                DeltaNext::More(link) => from = DeltaFrom::Link(link),
                DeltaNext::Done(link) => return (items, link),
            }
        }
    }
}

/// Compiles only for futures that can move between threads.
fn movable<T: Send>(_future: T) {}

#[tokio::test]
async fn futures_can_move_between_threads() {
    let bench = Bench::new(DriveKind::Business).await;
    let (graph, drive, root) = (&bench.graph, &bench.drive, &bench.root);
    movable(graph.item(drive, root));
    movable(graph.delta_page(drive, &DeltaFrom::Start));
    movable(graph.children_page(drive, root, None));
    movable(graph.download_source(drive, root));
    let url = onedrivefs_core::SecretString::from("x");
    let body = futures_util::stream::empty::<std::io::Result<bytes::Bytes>>();
    movable(graph.upload_fragment(&url, 0..1, 1, body));
    let options = HttpOptions::default();
    let config = auth_config(&bench.sim);
    movable(onedrivefs_graph::auth::login_device_code(
        &options,
        &config,
        |_| {},
    ));
    let flow = onedrivefs_graph::auth::CodeFlow::begin(&options, &config).unwrap();
    movable(flow.wait());
}
