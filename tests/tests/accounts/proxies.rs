//! Proxies, with and without credentials, authorities of organisations, and IPv6: the genuine host
//! names in a network namespace of our own, where nothing else leads to them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use onedrivefs_tests::{Home, Need, Ran, Service, needs, process, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::tls::{self, API_HOSTS, CONTENT_HOST};

/// An application id of the form that is checked against genuine hosts.
pub(crate) const CLIENT_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// The password of the proxy.
const PASSWORD: &str = "proxy-pass.word_1";

/// A proxy that lets some hosts through, and what was asked of it.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<(String, u16)>>>,
}

/// Serves CONNECT for the hosts named; with credentials if any are wanted.
pub(crate) fn serve_proxy(
    service: &Service,
    allowed: &'static [&'static str],
    tls: SocketAddr,
    credentials: Option<&'static str>,
) -> Proxy {
    let listener = service
        .runtime()
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .expect("port");
    let port = listener.local_addr().expect("address").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    service.runtime().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
                    match client.read(&mut byte).await {
                        Ok(1) => head.push(byte[0]),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let host = target.split(':').next().unwrap_or_default().to_owned();
                let known = credentials.is_none_or(|wanted| {
                    head.lines().any(|line| {
                        line.to_ascii_lowercase()
                            .starts_with("proxy-authorization:")
                            && line.ends_with(wanted)
                    })
                });
                let status = match (known, allowed.contains(&host.as_str())) {
                    (false, _) => 407,
                    (true, false) => 403,
                    (true, true) => 200,
                };
                log.lock().expect("log").push((host, status));
                let line = format!("HTTP/1.1 {status} -\r\n\r\n");
                if client.write_all(line.as_bytes()).await.is_err() || status != 200 {
                    return;
                }
                if let Ok(mut server) = TcpStream::connect(tls).await {
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    Proxy { port, seen }
}

impl Proxy {
    /// The hosts that were asked for.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .seen
            .lock()
            .expect("log")
            .iter()
            .map(|(host, _)| host.clone())
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

/// The service behind TLS on its genuine names, which no name server of this test knows.
pub(crate) struct Net {
    pub(crate) service: Service,
    pub(crate) tls: SocketAddr,
    pub(crate) authority: String,
}

fn net() -> Net {
    let service = Service::with(|config| {
        config.public_api = Some(format!("https://{}", API_HOSTS[0]));
        config.public_content = Some(format!("https://{CONTENT_HOST}"));
    });
    let (tls, authority) = tls::serve(&service, "127.0.0.1:0");
    Net {
        service,
        tls,
        authority,
    }
}

/// Runs a command with the genuine names in force, where the test's authority is the organisation's.
pub(crate) fn run(home: &Home<'_>, script: &str, env: &[(&str, &str)]) -> Ran {
    let mut command = home.program("bash");
    command
        .args([
            "-uc",
            &format!("unset ONEDRIVEFS_GRAPH_URL ONEDRIVEFS_LOGIN_URL\n{script}"),
        ])
        .env("BIN", home.binary())
        .env("ID", CLIENT_ID)
        .env("M", home.mountpoint())
        .env("W", home.work());
    for (name, value) in env {
        command.env(name, value);
    }
    process::run(command, wait::secs(90))
}

const MOUNT: &str = r#"
"$BIN" login --device-code --client-id "$ID" || exit 9
"$BIN" mount "$M" > "$W/daemon.log" 2>&1 &
daemon=$!
for try in $(seq 200); do "$BIN" status "$M" > /dev/null 2>&1 && break; sleep 0.1; done
ls "$M" > "$W/list"
echo small > "$M/small.txt"
"$BIN" sync "$M" --timeout 30
cat /proc/$daemon/cmdline > "$W/cmdline"
cat "$M/large.bin" > "$W/copy" 2> "$W/error"
"$BIN" status --json "$M" > "$W/status.json"
"$BIN" status "$M"
"$BIN" unmount "$M"
wait $daemon
"#;

/// Puts the organisation's authority and a proxy into the configuration.
pub(crate) fn configure(home: &Home<'_>, net: &Net, more: &str) {
    let bundle = home.work().join("authority.pem");
    fs::write(&bundle, &net.authority).expect("certificate");
    home.configure(&format!("ca_bundle = \"{}\"\n{more}", bundle.display()));
}

#[test]
fn a_proxy_with_credentials_carries_everything_and_they_show_nowhere() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let net = net();
    let drive = net.service.default_drive();
    drive.put("/large.bin", vec![7_u8; 3 << 20]).expect("file");
    // The name is `ada`.
    let expected = "Basic YWRhOnByb3h5LXBhc3Mud29yZF8x";
    let all = &[
        "graph.microsoft.com",
        "login.microsoftonline.com",
        "contoso-my.sharepoint.com",
    ];
    let proxy = serve_proxy(&net.service, all, net.tls, Some(expected));
    for from_environment in [false, true] {
        let home = Home::new(&net.service);
        let url = format!("http://ada:{PASSWORD}@127.0.0.1:{}", proxy.port);
        let line = if from_environment {
            String::new()
        } else {
            format!("proxy = \"{url}\"\n")
        };
        configure(&home, &net, &line);
        let secret = home.path("config/onedrivefs/config.toml");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("mode");
        let mut env = vec![("ONEDRIVEFS_LOG", "trace")];
        if from_environment {
            env.push(("HTTPS_PROXY", url.as_str()));
        }
        let ran = run(&home, MOUNT, &env);
        let log = fs::read_to_string(home.work().join("daemon.log")).unwrap_or_default();
        assert_eq!(ran.code, Some(0), "{}{}\n{log}", ran.out, ran.err);
        assert_eq!(
            fs::read(home.work().join("copy")).expect("copy"),
            vec![7_u8; 3 << 20]
        );
        assert!(drive.exists("/small.txt"));
        assert_eq!(proxy.hosts().len(), 3, "{:?}", proxy.hosts());
        let doctor = run(&home, r#""$BIN" doctor; "$BIN" doctor --network"#, &env);
        let command = fs::read(home.work().join("cmdline")).expect("command line");
        let shown = [
            ran.out,
            ran.err,
            log,
            doctor.out.clone(),
            doctor.err,
            String::from_utf8_lossy(&command).into_owned(),
        ]
        .concat();
        for hidden in [PASSWORD, &expected["Basic ".len()..]] {
            assert!(
                !shown.contains(hidden),
                "credentials of the proxy are shown"
            );
        }
        assert!(doctor.out.contains("(with credentials)"), "{}", doctor.out);
        // Somebody else's certificate is noticed, which the test's authority is.
        assert!(
            doctor
                .out
                .contains("somebody may be looking into the connection"),
            "{}",
            doctor.out
        );
        drive.delete("/small.txt").expect("deleted");
    }
}

#[test]
fn cf_02_behind_an_allow_list_of_two_hosts_the_third_is_named() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let net = net();
    net.service
        .default_drive()
        .put("/large.bin", vec![7_u8; 1 << 20])
        .expect("file");
    let proxy = serve_proxy(
        &net.service,
        &["graph.microsoft.com", "login.microsoftonline.com"],
        net.tls,
        None,
    );
    let home = Home::new(&net.service);
    configure(
        &home,
        &net,
        &format!(
            "proxy = \"http://127.0.0.1:{}\"\nread_timeout = 3\n",
            proxy.port
        ),
    );
    let ran = run(&home, MOUNT, &[]);
    let log = fs::read_to_string(home.work().join("daemon.log")).unwrap_or_default();
    let list = fs::read_to_string(home.work().join("list")).unwrap_or_default();
    assert!(
        list.contains("large.bin"),
        "listing works: {}{}{log}",
        ran.out,
        ran.err
    );
    let named = format!("{}{}{log}", ran.out, ran.err);
    assert!(named.contains(CONTENT_HOST), "the host is named: {named}");
    // What fits into one request goes by way of Graph.
    let small = net.service.default_drive().read("/small.txt");
    assert_eq!(small.as_deref(), Some(&b"small\n"[..]), "{named}");
    assert_eq!(ran.code, Some(0), "{named}");
    let doctor = run(&home, r#""$BIN" doctor"#, &[]);
    assert!(
        doctor
            .out
            .contains(&format!("{CONTENT_HOST} must be allowed")),
        "{}",
        doctor.out
    );
}

/// Writes a file that is too large for one request, and looks at what comes of it for a while.
const LARGE: &str = r#"
"$BIN" login --device-code --client-id "$ID" || exit 9
"$BIN" mount --poll 1 "$M" > "$W/daemon.log" 2>&1 &
daemon=$!
for try in $(seq 200); do "$BIN" status "$M" > /dev/null 2>&1 && break; sleep 0.1; done
head -c 5000000 /dev/zero > "$M/huge.bin"
for try in $(seq 300); do
    "$BIN" status "$M" | grep contoso-my.sharepoint.com && break
    sleep 0.1
done
"$BIN" sync "$M" --timeout 5
"$BIN" status --json "$M" > "$W/status.json"
rm "$M/huge.bin"
"$BIN" sync "$M" --timeout 60 || exit 8
"$BIN" unmount "$M"
wait $daemon
"#;

#[test]
fn cf_02_a_large_file_waits_for_its_host_and_the_rest_of_the_drive_does_not() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let net = net();
    let proxy = serve_proxy(&net.service, &API_HOSTS, net.tls, None);
    let home = Home::new(&net.service);
    let line = format!("proxy = \"http://127.0.0.1:{}\"\n", proxy.port);
    configure(&home, &net, &line);
    let ran = run(&home, LARGE, &[]);
    let told = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(0), "{told}");
    assert!(ran.out.contains(CONTENT_HOST), "the host is named: {told}");
    let status = fs::read_to_string(home.work().join("status.json")).expect("status");
    assert!(status.contains("\"state\": \"online\""), "{status}");
    // It is tried again with growing pauses, and not as fast as the line goes.
    let sessions = net.service.requests().count("create_session");
    assert!((1..6).contains(&sessions), "{sessions} sessions");
    let refused = proxy.seen.lock().expect("log").len();
    assert!(refused < 60, "{refused} connections");
    assert!(!net.service.default_drive().exists("/huge.bin"));
}

#[test]
fn al_19_the_bytes_of_files_can_have_a_proxy_of_their_own() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let net = net();
    net.service
        .default_drive()
        .put("/large.bin", vec![7_u8; 1 << 20])
        .expect("file");
    let api = serve_proxy(&net.service, &API_HOSTS, net.tls, None);
    let content = serve_proxy(&net.service, &[CONTENT_HOST], net.tls, None);
    let home = Home::new(&net.service);
    let lines = format!(
        "proxy = \"http://127.0.0.1:{}\"\ncontent_proxy = \"http://127.0.0.1:{}\"\n",
        api.port, content.port
    );
    configure(&home, &net, &lines);
    let ran = run(&home, MOUNT, &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let copy = fs::read(home.work().join("copy")).expect("copy");
    assert_eq!(copy.len(), 1 << 20);
    assert_eq!(content.hosts(), [CONTENT_HOST]);
}

#[test]
fn a_proxy_without_its_password_is_explained() {
    let net = net();
    let proxy = serve_proxy(&net.service, &API_HOSTS, net.tls, Some("Basic nobody"));
    let home = Home::new(&net.service);
    configure(
        &home,
        &net,
        &format!("proxy = \"http://127.0.0.1:{}\"\n", proxy.port),
    );
    let ran = run(
        &home,
        r#""$BIN" login --device-code --client-id "$ID""#,
        &[],
    );
    ran.explained(1, "");
    let doctor = run(&home, r#""$BIN" doctor"#, &[]);
    assert!(doctor.out.contains("proxy"), "{}", doctor.out);
}

#[test]
fn an_inspected_connection_without_its_authority_is_explained() {
    let net = net();
    let proxy = serve_proxy(&net.service, &API_HOSTS, net.tls, None);
    let home = Home::new(&net.service);
    home.configure(&format!("proxy = \"http://127.0.0.1:{}\"\n", proxy.port));
    let doctor = run(&home, r#""$BIN" doctor"#, &[]);
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.out.contains("ca_bundle"), "{}", doctor.out);
    assert!(
        doctor
            .out
            .contains("certificate of CN=Corporate Inspection"),
        "{}",
        doctor.out
    );
}

#[test]
fn no_proxy_is_honoured_and_endpoints_may_be_ipv6() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let listener = match service.runtime().block_on(TcpListener::bind(("::1", 0))) {
        Ok(listener) => listener,
        Err(error) => {
            needs::cannot(&format!("IPv6: {error}"));
            return;
        }
    };
    let port = listener.local_addr().expect("address").port();
    let api = service.addresses()[0];
    service.runtime().spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(api).await {
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    let mut home = Home::new(&service);
    home.set_env("ONEDRIVEFS_GRAPH_URL", &format!("http://[::1]:{port}/v1.0"));
    home.set_env("ONEDRIVEFS_LOGIN_URL", &format!("http://[::1]:{port}"));
    // A proxy that is not there: whoever asked it would fail.
    home.set_env("HTTPS_PROXY", "http://127.0.0.1:9");
    home.set_env("HTTP_PROXY", "http://127.0.0.1:9");
    home.set_env("NO_PROXY", "::1,127.0.0.1");
    home.log_in();
    let drives = home.run(&["drives"]);
    assert_eq!(drives.code, Some(0), "{}", drives.err);
    let doctor = home.run(&["doctor"]);
    assert!(
        doctor.out.contains("ok    Graph host: ::1 answers"),
        "{}",
        doctor.out
    );
}
