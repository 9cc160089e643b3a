//! The channel on which the service says that something in a drive has changed. It never says what.
//!
//! Graph hands out an address whose query is a credential, for a while. Behind it is a plain
//! WebSocket, opened through the same connections as downloads, hence with the same proxy and the
//! same certificates.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, DATE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode, Version};
use onedrivefs_core::{DriveId, ExposeSecret as _, SecretString, Timestamp};
use reqwest::{Response, Upgraded};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use crate::client::GraphClient;
use crate::config::Endpoints;
use crate::error::GraphError;
use crate::frames::{self, Frame};
use crate::http_client::{Traffic, host_of, transport_error};
use crate::lenient;
use crate::probe::parse_http_date;

/// Template under which the channel shows in logs and errors.
const ROUTE: &str = "push channel";

/// Time for each step of opening a channel once the WebSocket stands.
const STEP: Duration = Duration::from_secs(10);

/// Largest message that is taken, in bytes; events have a few hundred.
const MESSAGE_MAX: usize = 1 << 20;

/// How long an address is good for when the service does not say so, or something impossible.
const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// Longest life that is believed in.
const LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Where a socket tells about changes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WirePush {
    #[serde(deserialize_with = "lenient::text")]
    notification_url: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    expiration_date_time: Option<String>,
}

/// Where a socket tells that something in a drive changed.
#[derive(Clone, Debug)]
pub struct PushEndpoint {
    /// The address with its credential in the query: treat it like a password.
    url: SecretString,
    /// How long it is good for, from when it was handed out. Told by the service's own clock, so
    /// that ours may be wrong.
    pub life: Duration,
}

/// An open channel.
pub struct PushChannel {
    socket: WebSocketStream<Upgraded>,
    host: String,
    /// The channel is dead when nothing has come for so long.
    silence: Duration,
    heard: Instant,
}

impl std::fmt::Debug for PushChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushChannel")
            .field("host", &self.host)
            .field("silence", &self.silence)
            .finish_non_exhaustive()
    }
}

impl GraphClient {
    /// Asks for a socket that tells about changes of a drive. Only for people, not applications.
    ///
    /// # Errors
    /// As every request; unsupported or permanent where there is no push.
    pub async fn push_endpoint(&self, drive: &DriveId) -> Result<PushEndpoint, GraphError> {
        let drive = Endpoints::drive_path(drive)?;
        let path = format!("{drive}/root/subscriptions/socketIo");
        let route = "/drives/{drive}/root/subscriptions/socketIo";
        let answer = self.get(&path, route).await?;
        let push: WirePush = answer.json()?;
        let url = push.notification_url.filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| answer.malformed("a subscription without address"))?;
        self.endpoints.check_content_url(&url)?;
        Ok(PushEndpoint {
            url: SecretString::from(url),
            life: life(push.expiration_date_time.as_deref(), &answer.headers),
        })
    }

    /// Opens a channel and waits until events come through it. What happened before that has to be
    /// looked for.
    ///
    /// # Errors
    /// There was no answer, or what answered is no such channel. Nothing is repeated here.
    pub async fn push_channel(&self, endpoint: &PushEndpoint) -> Result<PushChannel, GraphError> {
        let url = socket_url(&self.endpoints, &endpoint.url)?;
        let key = generate_key();
        let request = self
            .http
            .for_url(&url, Traffic::Content)
            .get(url.clone())
            .version(Version::HTTP_11)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .send();
        let limit = self.http.options().idle_timeout;
        let response = match tokio::time::timeout(limit, request).await {
            Ok(sent) => sent.map_err(|error| transport_error(error, &url, ROUTE))?,
            Err(_elapsed) => {
                return Err(GraphError::Stalled {
                    host: host_of(&url),
                    route: ROUTE,
                    after: limit,
                });
            }
        };
        let socket = switch(response, &key, &url).await?;
        let mut channel = PushChannel {
            socket,
            host: host_of(&url),
            silence: STEP,
            heard: Instant::now(),
        };
        channel.join().await?;
        Ok(channel)
    }
}

impl PushChannel {
    /// Greets, and waits until the service has taken us in.
    async fn join(&mut self) -> Result<(), GraphError> {
        let silence = loop {
            match self.frame().await? {
                Frame::Open { silence } => break silence,
                Frame::Ended => return Err(self.ended("was refused")),
                _ => {}
            }
        };
        self.send(frames::JOIN_MAIN).await?;
        self.send(frames::JOIN).await?;
        let deadline = Instant::now() + STEP;
        loop {
            let frame = tokio::time::timeout_at(deadline, self.frame()).await;
            match frame.map_err(|_elapsed| self.ended("does not let us in"))?? {
                Frame::Joined | Frame::Event => break,
                Frame::Ended => return Err(self.ended("was refused")),
                _ => {}
            }
        }
        self.silence = silence;
        Ok(())
    }

    /// Waits for the next event and answers pings meanwhile. May be dropped at any time: nothing
    /// that arrives is lost.
    ///
    /// # Errors
    /// The channel ended, or nothing came for so long that it is dead. It is of no use any more.
    pub async fn event(&mut self) -> Result<(), GraphError> {
        loop {
            match self.frame().await? {
                Frame::Event => return Ok(()),
                Frame::Ended => return Err(self.ended("was closed by the service")),
                _ => {}
            }
        }
    }

    /// The next frame; pings are answered.
    async fn frame(&mut self) -> Result<Frame, GraphError> {
        loop {
            let next = tokio::time::timeout_at(self.heard + self.silence, self.socket.next());
            let message = match next.await {
                Err(_elapsed) => {
                    return Err(GraphError::Stalled {
                        host: self.host.clone(),
                        route: ROUTE,
                        after: self.silence,
                    });
                }
                Ok(None | Some(Ok(Message::Close(_)))) => {
                    return Err(self.ended("was closed by the service"));
                }
                Ok(Some(Err(error))) => return Err(self.ended(&format!("broke: {error}"))),
                Ok(Some(Ok(message))) => message,
            };
            self.heard = Instant::now();
            // Pings of WebSocket itself are answered by its library.
            let Message::Text(text) = message else {
                continue;
            };
            let frame = frames::parse(&text);
            tracing::trace!(?frame, "push channel");
            if frame == Frame::Ping {
                self.send(frames::PONG).await?;
            }
            return Ok(frame);
        }
    }

    async fn send(&mut self, frame: &'static str) -> Result<(), GraphError> {
        let sent = tokio::time::timeout(STEP, self.socket.send(Message::text(frame))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.ended(&format!("broke: {error}"))),
            Err(_elapsed) => Err(self.ended("takes nothing any more")),
        }
    }

    fn ended(&self, how: &str) -> GraphError {
        GraphError::Channel {
            host: self.host.clone(),
            how: crate::error::clean(how),
        }
    }
}

/// The address of the socket: the host and the query of the address that was handed out.
fn socket_url(endpoints: &Endpoints, address: &SecretString) -> Result<Url, GraphError> {
    let mut url = endpoints.check_content_url(address.expose_secret())?;
    let query = url.query().unwrap_or_default();
    let query = format!("EIO=4&transport=websocket&{query}");
    url.set_path("/socket.io/");
    url.set_query(Some(&query));
    url.set_fragment(None);
    Ok(url)
}

/// Makes sure that the server agreed to speak WebSocket, and takes the connection over.
async fn switch(
    response: Response,
    key: &str,
    url: &Url,
) -> Result<WebSocketStream<Upgraded>, GraphError> {
    let refused = |how: String| GraphError::Channel {
        host: host_of(url),
        how,
    };
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(format!("was refused (HTTP {})", status.as_u16())));
    }
    let accept = derive_accept_key(key.as_bytes());
    if header(&response, &SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes()) {
        return Err(refused("is something else than was asked for".to_owned()));
    }
    let upgraded = response
        .upgrade()
        .await
        .map_err(|error| transport_error(error, url, ROUTE))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

fn header<'r>(response: &'r Response, name: &HeaderName) -> Option<&'r [u8]> {
    response.headers().get(name).map(HeaderValue::as_bytes)
}

/// How long an address is good for from now on.
fn life(expires: Option<&str>, headers: &HeaderMap) -> Duration {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(parse_http_date);
    let now = now.unwrap_or_else(Timestamp::now).as_nanos();
    let left = expires
        .and_then(Timestamp::parse)
        .and_then(|expires| u64::try_from(expires.as_nanos().checked_sub(now)?).ok())
        .filter(|left| *left > 0);
    left.map_or(USUAL_LIFE, Duration::from_nanos).min(LIFE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Cloud;

    #[test]
    fn the_socket_has_the_query_of_the_address_and_a_path_of_its_own() {
        let endpoints = Endpoints::for_cloud(Cloud::Global).unwrap();
        let of = |address: &str| socket_url(&endpoints, &SecretString::from(address));
        let url = of("https://h.svc.ms/x/callback?token=a%2Bb&applicationId=c#d").unwrap();
        assert_eq!(
            url.as_str(),
            "https://h.svc.ms/socket.io/?EIO=4&transport=websocket&token=a%2Bb&applicationId=c"
        );
        assert!(of("http://h.svc.ms/x?token=a").is_err(), "in clear");
        assert!(of("https://127.0.0.1/x?token=a").is_err());
    }

    #[test]
    fn the_life_of_an_address_is_told_by_the_clock_of_the_service() {
        let mut headers = HeaderMap::new();
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(DATE, date);
        let of = |expires| life(expires, &headers);
        assert_eq!(of(Some("1994-11-06T09:09:37Z")), Duration::from_secs(1200));
        assert_eq!(of(Some("1994-11-06T08:00:00Z")), USUAL_LIFE, "gone by");
        assert_eq!(of(Some("soon")), USUAL_LIFE);
        assert_eq!(of(None), USUAL_LIFE);
        assert_eq!(of(Some("2094-11-06T08:00:00Z")), LIFE_MAX);
    }
}
