//! The service's genuine host names over HTTPS, with a certificate of an authority of our own.

use std::net::SocketAddr;
use std::sync::Arc;

use onedrivefs_tests::Service;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Names of the login and the Graph host.
pub(crate) const API_HOSTS: [&str; 2] = ["graph.microsoft.com", "login.microsoftonline.com"];

/// A host of pre-authenticated addresses, as they look for companies.
pub(crate) const CONTENT_HOST: &str = "contoso-my.sharepoint.com";

/// Names of the hosts of national clouds, with those of the bytes of files.
const NATIONAL_HOSTS: [&str; 8] = [
    "login.microsoftonline.us",
    "graph.microsoft.us",
    "dod-graph.microsoft.us",
    "login.chinacloudapi.cn",
    "microsoftgraph.chinacloudapi.cn",
    "contoso-my.sharepoint.us",
    "contoso-my.sharepoint-mil.us",
    "contoso-my.sharepoint.cn",
];

/// Ends TLS in front of a simulator; where, and the authority's certificate.
pub(crate) fn serve(service: &Service, at: &str) -> (SocketAddr, String) {
    let authority_key = KeyPair::generate().expect("key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Corporate Inspection");
    let pem = authority.self_signed(&authority_key).expect("signed").pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("key");
    let names = API_HOSTS
        .iter()
        .chain([&CONTENT_HOST])
        .chain(&NATIONAL_HOSTS);
    let names: Vec<String> = names.map(|&name| name.to_owned()).collect();
    let params = CertificateParams::new(names).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let to = service.addresses();
    let listener = service
        .runtime()
        .block_on(TcpListener::bind(at))
        .expect("port");
    let address = listener.local_addr().expect("address");
    service.runtime().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                let name = client.get_ref().1.server_name();
                let target = if name.is_some_and(|name| name.contains(".sharepoint")) {
                    to[1]
                } else {
                    to[0]
                };
                if let Ok(mut server) = TcpStream::connect(target).await {
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    (address, pem)
}
