//! The service's genuine host names over HTTPS, as everybody but a test uses them: nothing in the
//! configuration, certificates from the system's store.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use onedrivefs_tests::{Home, Need, Service, needs, process, tree, wait};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Names of the login and the Graph host.
const API_HOSTS: [&str; 2] = ["graph.microsoft.com", "login.microsoftonline.com"];

/// A host of pre-authenticated addresses, as they look for companies.
const CONTENT_HOST: &str = "contoso-my.sharepoint.com";

/// Loopback, at an address that other servers of a machine seldom use.
const ADDRESS: &str = "127.0.4.43";

/// An application id of the form that is checked against genuine hosts.
const CLIENT_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A certificate for all hosts from a new authority: the server's side, and the authority.
fn certificates() -> (ServerConfig, String) {
    let authority_key = KeyPair::generate().expect("key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).expect("signed").pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("key");
    let names = API_HOSTS.iter().chain([&CONTENT_HOST]);
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
    (config, pem)
}

/// Ends TLS in front of the simulator; the name that a client asks for decides where it goes.
async fn serve_tls(listener: TcpListener, config: ServerConfig, to: [SocketAddr; 2]) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut client) = acceptor.accept(stream).await else {
                return;
            };
            let name = client.get_ref().1.server_name();
            let target = if name == Some(CONTENT_HOST) {
                to[1]
            } else {
                to[0]
            };
            if let Ok(mut server) = TcpStream::connect(target).await {
                // Either side may close at any time.
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            }
        });
    }
}

/// What runs on a machine whose names and certificates are ours: everything is done in there, since
/// a mount of that machine is not seen outside.
const SCENARIO: &str = r#"
mount --bind "$W/hosts" /etc/hosts
mount --bind "$W/certs" /etc/ssl/certs
mkdir -p "$W/tree"
unset ONEDRIVEFS_GRAPH_URL ONEDRIVEFS_LOGIN_URL
"$BIN" login --device-code --client-id "$ID"
"$BIN" mount "$M" > "$W/daemon.log" 2>&1 &
for try in $(seq 200); do "$BIN" status "$M" > /dev/null 2>&1 && break; sleep 0.1; done
cp -r --preserve=timestamps "$M/there" "$W/tree/"
cp -r --preserve=timestamps "$W/here" "$M/here"
"$BIN" sync "$M" --timeout 60
cp -r --preserve=timestamps "$M/here" "$W/tree/"
for try in $(seq 100); do "$BIN" status --json "$M" > "$W/status.json" && grep -q '"push": *true' "$W/status.json" && break; sleep 0.1; done
"$BIN" unmount "$M"
wait
"#;

#[test]
fn genuine_host_names_work_over_https_with_certificates_of_the_system() {
    if !needs::met(&[Need::Fuse, Need::Namespaces]) {
        return;
    }
    let service = Service::with(|config| {
        config.public_api = Some(format!("https://{}", API_HOSTS[0]));
        config.public_content = Some(format!("https://{CONTENT_HOST}"));
        // Several pages, so that links are followed.
        config.knobs.delta_page_size = 3;
        config.knobs.children_page_size = 3;
    });
    let drive = service.default_drive();
    for number in 0..10 {
        let body = onedrivefs_sim::FileBody::Generated {
            seed: number,
            size: number * 700_000,
        };
        drive
            .put(&format!("/there/{number} ö"), body)
            .expect("file");
    }
    let listener = match service
        .runtime()
        .block_on(TcpListener::bind((ADDRESS, 443)))
    {
        Ok(listener) => listener,
        Err(error) => {
            assert!(!needs::met(&[Need::Unmet(
                format!("port 443: {error}").leak()
            )]));
            return;
        }
    };
    let (config, authority) = certificates();
    let serving = serve_tls(listener, config, service.addresses());
    service.runtime().spawn(serving);

    let home = Home::new(&service);
    let work = home.work();
    let hosts = API_HOSTS.iter().chain([&CONTENT_HOST]);
    let hosts: String = hosts.map(|host| format!("{ADDRESS} {host}\n")).collect();
    fs::write(work.join("hosts"), hosts).expect("hosts");
    fs::create_dir(work.join("certs")).expect("directory");
    fs::write(work.join("certs/ca-certificates.crt"), authority).expect("certificate");
    fs::create_dir(work.join("here")).expect("directory");
    crate::files::write(&work.join("here/large"), 12 << 20, 1);
    fs::write(work.join("here/small"), "small").expect("file");

    let mut command = home.program("unshare");
    command
        .args(["-m", "bash", "-euc", SCENARIO])
        .env("W", &work)
        .env("M", home.mountpoint())
        .env("BIN", home.binary())
        .env("ID", CLIENT_ID);
    let ran = process::run(command, wait::secs(120));
    let log = fs::read_to_string(work.join("daemon.log")).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}{}\n{log}", ran.out, ran.err);
    let status = fs::read_to_string(work.join("status.json")).expect("status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        status["push"], true,
        "changes are announced: {status}\n{log}"
    );
    let here = tree::of_directory(&work.join("tree"));
    assert_eq!(here.len(), 14);
    tree::assert_same(&here, &tree::of_drive(&drive));
    for secret in ["tempauth", "Bearer"] {
        assert!(!log.contains(secret), "{log}");
    }
    // The sign-in goes to Graph only.
    for record in service.requests().since(0) {
        assert!(
            !record.authorization || record.host == "api",
            "a token was sent to the content host: {record:?}"
        );
    }
}
