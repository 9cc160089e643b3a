//! The channel for announcements, against the simulator and against servers that are none.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Response;
use onedrivefs_graph::auth::TokenSource;
use onedrivefs_graph::{Cloud, Disposition, Endpoints, GraphClient, GraphError, HttpOptions};
use onedrivefs_sim::{DriveKind, SimConfig, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::Bench;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .unwrap()
}

async fn opened(bench: &Bench) -> onedrivefs_graph::PushChannel {
    let endpoint = bench.graph.push_endpoint(&bench.drive).await.unwrap();
    bench.graph.push_channel(&endpoint).await.unwrap()
}

#[tokio::test]
async fn changes_are_announced_on_every_kind_of_drive() {
    for kind in [
        DriveKind::Personal,
        DriveKind::Business,
        DriveKind::DocumentLibrary,
    ] {
        let bench = Bench::new(kind).await;
        let mut channel = opened(&bench).await;
        for number in 0..3 {
            let name = format!("/{number}");
            bench.remote().put(&name, "x").unwrap();
            soon(channel.event()).await.unwrap();
        }
        // In the other form that is seen in the wild, too.
        bench.sim.set_knobs(|k| k.socket_main_namespace = true);
        bench.remote().delete("/0").unwrap();
        soon(channel.event()).await.unwrap();
    }
}

#[tokio::test]
async fn pings_are_answered_and_their_absence_is_noticed() {
    let bench = Bench::new(DriveKind::Business).await;
    bench.sim.set_knobs(|k| {
        k.socket_ping_ms = 500;
        k.socket_pong_ms = 1500;
    });
    let mut channel = opened(&bench).await;
    // Longer than the service has patience with a client that answers nothing.
    let quiet = tokio::time::timeout(Duration::from_secs(4), channel.event());
    assert!(quiet.await.is_err(), "nothing was changed");
    bench.remote().put("/f", "x").unwrap();
    soon(channel.event()).await.unwrap();
    bench.sim.set_knobs(|k| k.socket_silent = true);
    let error = soon(channel.event()).await.unwrap_err();
    assert!(matches!(error, GraphError::Stalled { .. }), "{error}");
}

#[tokio::test]
async fn the_end_of_a_channel_and_of_its_address_are_errors() {
    let bench = Bench::new(DriveKind::Business).await;
    let endpoint = bench.graph.push_endpoint(&bench.drive).await.unwrap();
    // The clock of the service shows whole seconds.
    assert!(endpoint.life <= Duration::from_secs(3601));
    assert!(endpoint.life > Duration::from_secs(3500));
    let mut channel = bench.graph.push_channel(&endpoint).await.unwrap();
    bench.sim.close_sockets();
    let error = soon(channel.event()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    bench.sim.advance(Duration::from_secs(3601));
    let error = bench.graph.push_channel(&endpoint).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 401"), "{error}");
    // The service's clock counts, not ours.
    let endpoint = bench.graph.push_endpoint(&bench.drive).await.unwrap();
    // The clock of the service shows whole seconds.
    assert!(endpoint.life <= Duration::from_secs(3601));
}

#[tokio::test]
async fn applications_are_refused_for_good() {
    let sim = Simulator::start(SimConfig::with_kind(DriveKind::Business))
        .await
        .unwrap();
    let drive = onedrivefs_core::DriveId::new(sim.default_drive().id());
    let tokens = TokenSource::fixed(sim.app_token(true).into());
    let endpoints = crate::support::endpoints(&sim);
    let graph = GraphClient::new(endpoints, HttpOptions::default(), tokens).unwrap();
    let error = graph.push_endpoint(&drive).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Permanent, "{error}");
}

/// A service whose subscription leads to something that is no channel.
async fn odd(socket: fn() -> Response<Body>) -> GraphError {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let address = format!(r#"{{"notificationUrl":"{base}/x/callback?token=secret-token"}}"#);
    let router = Router::new()
        .route(
            "/v1.0/drives/b!d/root/subscriptions/socketIo",
            get(move || async move { address }),
        )
        .route("/socket.io/", get(move || async move { socket() }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let graph = format!("{base}/v1.0");
    let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), None).unwrap();
    let tokens = TokenSource::fixed("t".into());
    let graph = GraphClient::new(endpoints, HttpOptions::default(), tokens).unwrap();
    let drive = onedrivefs_core::DriveId::new("b!d");
    let endpoint = graph.push_endpoint(&drive).await.unwrap();
    assert!(!format!("{endpoint:?}").contains("secret-token"));
    soon(graph.push_channel(&endpoint)).await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_channel_is_named_without_its_address() {
    let switched = || {
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "of another key")
            .body(Body::empty())
            .unwrap()
    };
    for (socket, reason) in [
        (
            (|| Response::new(Body::from("<html>a portal</html>"))) as fn() -> Response<Body>,
            "HTTP 200",
        ),
        (
            || {
                let answer = Response::builder().status(403);
                answer.body(Body::empty()).unwrap()
            },
            "HTTP 403",
        ),
        (switched, "something else"),
    ] {
        let error = odd(socket).await;
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.disposition(), Disposition::Retry);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("secret-token"), "{shown}");
    }
}

/// Names that the machine does not know, so that whoever connects has asked the proxy.
const HOSTS: [&str; 2] = ["graph.example", "content.example"];

/// A proxy that knows where two hosts are and ends TLS for them; it is told which is which.
async fn proxy(config: rustls::ServerConfig, to: [std::net::SocketAddr; 2]) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let asked = String::from_utf8(head).unwrap();
                let host = HOSTS.iter().position(|host| {
                    asked.starts_with(&format!("CONNECT {host}:443 HTTP/1.1\r\n"))
                });
                let target = to[host.unwrap()];
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut client = acceptor.accept(stream).await.unwrap();
                let mut server = TcpStream::connect(target).await.unwrap();
                // Either side may close at any time.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    port
}

#[tokio::test]
async fn the_channel_goes_through_the_configured_proxy_and_trusts_the_configured_certificates() {
    let config = SimConfig {
        public_api: Some(format!("https://{}", HOSTS[0])),
        public_content: Some(format!("https://{}", HOSTS[1])),
        ..SimConfig::with_kind(DriveKind::Business)
    };
    let sim = Simulator::start(config).await.unwrap();
    let (server, authority) = crate::tls::certificates(HOSTS);
    let port = proxy(server, sim.addresses()).await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, authority).unwrap();
    let options = HttpOptions {
        proxy: Some(format!("http://127.0.0.1:{port}").parse().unwrap()),
        ca_bundle: Some(bundle),
        ..HttpOptions::default()
    };
    let graph = format!("https://{}/v1.0", HOSTS[0]);
    let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), None).unwrap();
    let tokens = TokenSource::fixed(sim.access_token().into());
    let graph = GraphClient::new(endpoints, options, tokens).unwrap();
    let drive = onedrivefs_core::DriveId::new(sim.default_drive().id());
    let endpoint = graph.push_endpoint(&drive).await.unwrap();
    let mut channel = graph.push_channel(&endpoint).await.unwrap();
    sim.default_drive().put("/f", "x").unwrap();
    soon(channel.event()).await.unwrap();
}
