use std::time::Duration;

use onedrivefs_sim::DriveKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;

/// Just enough of a WebSocket client for short text frames.
struct Socket {
    stream: TcpStream,
}

impl Socket {
    async fn connect(url: &str) -> Socket {
        let (host, path) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Socket { stream }
    }

    /// The next text frame; nothing when the connection has ended.
    async fn next(&mut self) -> Option<String> {
        let first = self.stream.read_u8().await.ok()?;
        let mut length = u64::from(self.stream.read_u8().await.ok()?);
        if length == 126 {
            length = u64::from(self.stream.read_u16().await.ok()?);
        }
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        (first & 0x0f == 1).then(|| String::from_utf8(payload).unwrap())
    }

    async fn send(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.unwrap();
    }
}

/// The address of the socket behind a notification URL.
fn socket_url(notification_url: &str) -> String {
    let (base, query) = notification_url.split_once('?').unwrap();
    let host = base.split('/').take(3).collect::<Vec<_>>().join("/");
    format!("{host}/socket.io/?EIO=4&transport=websocket&{query}")
}

/// A channel that has joined the namespace of events.
async fn joined(c: &Client) -> Socket {
    let (status, made) = c.get("~/root/subscriptions/socketIo").await;
    assert_eq!(status, 200);
    let url = socket_url(made["notificationUrl"].as_str().unwrap());
    let mut socket = Socket::connect(&url).await;
    assert!(socket.next().await.unwrap().starts_with("0{"));
    socket.send("40").await;
    assert!(socket.next().await.unwrap().starts_with("40{"));
    socket.send("40/notifications").await;
    let ack = socket.next().await.unwrap();
    assert!(ack.starts_with("40/notifications,{"), "{ack}");
    socket
}

/// Waits for something that must not take long.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what)
        .await
        .unwrap()
}

#[tokio::test]
async fn changes_are_pushed_to_those_who_joined() {
    let c = Client::new(DriveKind::Business).await;
    c.sim.set_knobs(|k| k.socket_ping_ms = 60);
    let (status, made) = c.get("~/root/subscriptions/socketIo").await;
    assert_eq!(status, 200);
    let url = socket_url(made["notificationUrl"].as_str().unwrap());
    let mut socket = Socket::connect(&url).await;
    assert!(socket.next().await.unwrap().starts_with("0{"));
    socket.send("40").await;
    assert!(socket.next().await.unwrap().starts_with("40{"));
    socket.send("40/notifications,").await;
    let mut seen_ping = false;
    let mut joined = false;
    let mut changed = false;
    let story = async {
        while !(seen_ping && changed) {
            let frame = socket.next().await.unwrap();
            if frame == "2" {
                seen_ping = true;
                socket.send("3").await;
            } else if frame.starts_with("40/notifications,{") && !joined {
                joined = true;
                c.sim.default_drive().put("/new.txt", "x").unwrap();
            } else if frame.starts_with("42/notifications,[\"notification\",\"{") {
                changed = true;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), story)
        .await
        .unwrap();
    c.sim.close_sockets();
    let ended = async { while socket.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
    c.sim.advance(Duration::from_secs(3_601));
    let late = c.http.get(&url).send().await.unwrap();
    assert_eq!(late.status(), 401);
}

#[tokio::test]
async fn only_the_socket_behind_a_genuine_address_is_opened() {
    let c = Client::new(DriveKind::Business).await;
    let (_, made) = c.get("~/root/subscriptions/socketIo").await;
    let address = made["notificationUrl"].as_str().unwrap();
    let socket = socket_url(address);
    for (url, status) in [
        (address.to_owned(), 404),
        (socket.replace("EIO=4", "EIO=3"), 400),
        (socket.replace("websocket", "polling"), 400),
        (socket.replace("token=", "token=A"), 401),
        (socket.replace("token=", "other="), 401),
    ] {
        let answer = c.http.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), status, "{url}");
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut_off() {
    let c = Client::new(DriveKind::Personal).await;
    c.sim.set_knobs(|k| {
        k.socket_ping_ms = 50;
        k.socket_pong_ms = 300;
    });
    let mut socket = joined(&c).await;
    soon(async { while socket.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn an_expired_channel_is_closed() {
    let c = Client::new(DriveKind::Business).await;
    let mut socket = joined(&c).await;
    c.sim.advance(Duration::from_secs(3_601));
    c.sim.default_drive().put("/new.txt", "x").unwrap();
    assert_eq!(soon(socket.next()).await.as_deref(), Some("41"));
    assert_eq!(soon(socket.next()).await, None);
}

#[tokio::test]
async fn scripts_make_channels_silent_short_lived_and_plain() {
    let c = Client::new(DriveKind::Business).await;
    c.sim.set_knobs(|k| k.socket_main_namespace = true);
    let drive = c.sim.default_drive();
    let mut socket = joined(&c).await;
    drive.put("/new.txt", "x").unwrap();
    let event = soon(socket.next()).await.unwrap();
    assert!(event.starts_with("42[\"notification\","), "{event}");

    c.sim.set_knobs(|k| k.socket_silent = true);
    drive.put("/unsaid.txt", "x").unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(300), socket.next());
    assert!(silence.await.is_err());

    c.sim.set_knobs(|k| {
        k.socket_silent = false;
        k.socket_life_ms = Some(100);
    });
    let mut short = joined(&c).await;
    soon(async { while short.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn applications_get_no_channel() {
    let c = Client::new(DriveKind::Business).await;
    let drive = c.sim.default_drive();
    let drive = drive.id();
    let url = format!(
        "{}/drives/{drive}/root/subscriptions/socketIo",
        c.sim.graph_url()
    );
    let asked = c.http.get(&url).bearer_auth(c.sim.app_token(true));
    assert_eq!(asked.send().await.unwrap().status(), 403);
}
