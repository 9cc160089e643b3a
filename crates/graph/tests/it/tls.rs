//! Trust: certificates of the system, plus those of the configuration.

use std::sync::Arc;

use onedrivefs_graph::auth::TokenSource;
use onedrivefs_graph::{Cloud, Disposition, Endpoints, GraphClient, HttpOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

/// A certificate for some hosts from a new authority: the server's side, and the authority.
pub(crate) fn certificates<const N: usize>(hosts: [&str; N]) -> (ServerConfig, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(hosts.map(str::to_owned)).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (config, pem)
}

/// Serves one fixed answer over TLS with a certificate of a new authority; returns the port and
/// the authority's certificate.
async fn serve() -> (u16, String) {
    let (config, pem) = certificates(["localhost"]);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let body = r#"{"id":"b!d","driveType":"business"}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, pem)
}

#[tokio::test]
async fn configured_certificates_are_trusted_and_others_are_not() {
    let (port, pem) = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("ca.pem");
    let graph = format!("https://localhost:{port}/v1.0");
    let client = |bundle| {
        let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), None).unwrap();
        let options = HttpOptions {
            ca_bundle: bundle,
            ..HttpOptions::default()
        };
        GraphClient::new(endpoints, options, TokenSource::fixed("t".into()))
    };
    let untrusting = client(None).unwrap();
    let error = untrusting.my_drive().await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Offline);

    assert!(client(Some(bundle.clone())).is_err());
    std::fs::write(&bundle, "no certificate").unwrap();
    assert!(client(Some(bundle.clone())).is_err());

    std::fs::write(&bundle, pem).unwrap();
    let trusting = client(Some(bundle)).unwrap();
    assert_eq!(trusting.my_drive().await.unwrap().id.as_str(), "b!d");
}
