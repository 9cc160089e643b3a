//! What must never be written anywhere.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use onedrivefs_core::{ExposeSecret as _, RemoteItem, SecretString};
use onedrivefs_graph::auth::TokenStore;
use onedrivefs_graph::{Conditions, UploadProps, UploadTarget};
use onedrivefs_sim::{FaultAction, FaultRule, SimConfig, Simulator};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Bench, stored_token};

/// Collects everything that is logged.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Lets transfers fail in several ways; returns all that errors show, and the secret addresses.
async fn failing_transfers(bench: &Bench, item: &RemoteItem) -> (String, [SecretString; 2]) {
    let mut shown = String::new();
    let source = bench
        .graph
        .download_source(&bench.drive, &item.id)
        .await
        .unwrap();
    bench.sim.expire_urls();
    for fault in [
        None,
        Some(FaultAction::DropBefore),
        Some(FaultAction::status(500)),
    ] {
        bench.sim.faults().clear();
        if let Some(fault) = fault {
            bench.sim.faults().add(FaultRule::on("download", fault));
        }
        let error = bench.graph.fetch(&source, 0..7).await.unwrap_err();
        shown.push_str(&format!("{error} {error:?} {source:?}"));
    }
    let target = UploadTarget::Create {
        drive: bench.drive.clone(),
        parent: bench.root.clone(),
        name: "g".to_owned(),
    };
    let props = UploadProps {
        name: "g".to_owned(),
        size: 4,
        created: None,
        modified: None,
    };
    let conditions = Conditions::default();
    let session = bench
        .graph
        .create_upload_session(&target, &props, &conditions);
    let session = session.await.unwrap();
    bench
        .sim
        .faults()
        .add(FaultRule::on("upload_fragment", FaultAction::DropBefore));
    let body = stream::iter([Ok(Bytes::from_static(b"data"))]);
    let error = bench
        .graph
        .upload_fragment(&session.url, 0..4, 4, body)
        .await
        .unwrap_err();
    shown.push_str(&format!("{error} {error:?} {session:?} {:?}", bench.graph));
    (shown, [source.url, session.url])
}

/// Opens, loses and is refused a channel for announcements; returns all that this shows. Its address
/// is recognised by the word for its credential.
async fn failing_push(bench: &Bench) -> String {
    bench.sim.faults().clear();
    let endpoint = bench.graph.push_endpoint(&bench.drive).await.unwrap();
    let mut channel = bench.graph.push_channel(&endpoint).await.unwrap();
    let mut shown = format!("{endpoint:?} {channel:?}");
    bench.sim.close_sockets();
    let lost = channel.event().await.unwrap_err();
    shown.push_str(&format!("{lost} {lost:?}"));
    for fault in [FaultAction::DropBefore, FaultAction::status(401)] {
        bench.sim.faults().clear();
        bench.sim.faults().add(FaultRule::on("socket", fault));
        let error = bench.graph.push_channel(&endpoint).await.unwrap_err();
        shown.push_str(&format!("{error} {error:?}"));
    }
    shown
}

#[tokio::test]
async fn logs_and_errors_hold_no_token_and_no_address_with_one() {
    let captured = Captured::default();
    // For the whole process: what a scoped subscriber gets depends on the other tests' timing. The
    // simulator, which runs in this process too, may name what it serves.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace,onedrivefs_sim=off")
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let store = TokenStore::memory();
    let sim = Simulator::start(SimConfig::default()).await.unwrap();
    let tokens = stored_token(&sim, &store);
    let mut secrets = vec!["?token=".to_owned(), "&token=".to_owned()];
    let mut note = |token: &onedrivefs_graph::auth::TokenSet| {
        secrets.push(token.access_token.expose_secret().to_owned());
        secrets.extend(
            token
                .refresh_token
                .iter()
                .map(|t| t.expose_secret().to_owned()),
        );
    };
    note(&store.load().unwrap().unwrap());
    let bench = Bench::with_tokens(sim, tokens).await;
    bench.sim.expire_tokens();
    bench.remote().put("/f", "content").unwrap();
    let item = bench.child("f").await;
    note(&store.load().unwrap().unwrap());

    let (mut shown, urls) = failing_transfers(&bench, &item).await;
    shown.push_str(&failing_push(&bench).await);
    bench.sim.revoke_refresh_tokens();
    bench.sim.expire_tokens();
    let error = bench.graph.item(&bench.drive, &item.id).await.unwrap_err();
    shown.push_str(&format!("{error} {error:?}"));

    let logged = captured.0.lock().unwrap().clone();
    let logged = String::from_utf8_lossy(&logged);
    assert!(
        logged.contains("the service answered"),
        "nothing was captured"
    );
    for url in &urls {
        let url = url::Url::parse(url.expose_secret()).unwrap();
        secrets.push(url.as_str().to_owned());
        let query = url.query_pairs().map(|(_, value)| value.into_owned());
        secrets.extend(query.filter(|value| value.len() > 8));
        let segments = url.path_segments().unwrap().map(str::to_owned);
        secrets.extend(segments.filter(|segment| segment.len() > 20));
    }
    for secret in secrets {
        assert!(!shown.contains(&secret), "an error shows {secret}");
        for line in logged.lines() {
            assert!(!line.contains(&secret), "a log shows {secret}: {line}");
        }
    }
}
