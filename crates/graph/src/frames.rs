//! The frames of the push channel: Engine.IO 4 around Socket.IO, as texts over a WebSocket. Only
//! what a listener needs of them.

use std::time::Duration;

use serde::Deserialize;

/// The namespace that events come in.
pub(crate) const NAMESPACE: &str = "/notifications";

/// Joins the main namespace.
pub(crate) const JOIN_MAIN: &str = "40";

/// Joins the namespace that events come in. Without it none comes.
pub(crate) const JOIN: &str = "40/notifications";

/// Answers a ping.
pub(crate) const PONG: &str = "3";

/// Longest silence that is believed in, whatever the service announces.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Shortest one: a network may take that long to deliver a ping.
const SILENCE_MIN: Duration = Duration::from_secs(2);

/// What a frame means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The channel is open. It is dead when nothing has come for so long.
    Open {
        /// The interval of the service's pings and the time they may take.
        silence: Duration,
    },
    /// Asks for [`PONG`].
    Ping,
    /// The namespace of events was joined.
    Joined,
    /// Something changed.
    Event,
    /// The service takes its leave, or refuses a namespace.
    Ended,
    /// Nothing that a listener cares for.
    Other,
}

/// What the service announces when it opens a channel, in milliseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opening {
    ping_interval: u64,
    ping_timeout: u64,
}

/// Reads a frame. Everything that is not understood is [`Frame::Other`].
pub(crate) fn parse(text: &str) -> Frame {
    let mut chars = text.chars();
    match chars.next() {
        Some('0') => {
            opening(chars.as_str()).map_or(Frame::Other, |silence| Frame::Open { silence })
        }
        Some('1') => Frame::Ended,
        Some('2') => Frame::Ping,
        Some('4') => message(chars.as_str()),
        _ => Frame::Other,
    }
}

fn opening(json: &str) -> Option<Duration> {
    let opening: Opening = serde_json::from_str(json).ok()?;
    let silence = opening.ping_interval.saturating_add(opening.ping_timeout);
    Some(Duration::from_millis(silence).clamp(SILENCE_MIN, SILENCE_MAX))
}

/// Reads what an Engine.IO message holds: the kind, the namespace unless it is the main one, and a
/// payload that nobody needs.
fn message(text: &str) -> Frame {
    let mut chars = text.chars();
    let kind = chars.next();
    let namespace = chars.as_str().split([',', '{', '[']).next();
    match kind {
        Some('0') if namespace == Some(NAMESPACE) => Frame::Joined,
        // Disconnected, or not let in; whichever namespace it was, there is nothing to wait for.
        Some('1' | '4') => Frame::Ended,
        Some('2' | '5') => Frame::Event,
        _ => Frame::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_are_understood() {
        let silence = Duration::from_secs(85);
        for (text, expected) in [
            (
                r#"0{"sid":"x","pingInterval":25000,"pingTimeout":60000}"#,
                Frame::Open { silence },
            ),
            ("0{}", Frame::Other),
            ("0", Frame::Other),
            ("1", Frame::Ended),
            ("2", Frame::Ping),
            ("2probe", Frame::Ping),
            ("3", Frame::Other),
            (r#"40{"sid":"x"}"#, Frame::Other),
            (r#"40/notifications,{"sid":"x"}"#, Frame::Joined),
            ("40/notifications", Frame::Joined),
            ("40/other,{}", Frame::Other),
            ("41", Frame::Ended),
            ("41/notifications,", Frame::Ended),
            (r#"44{"message":"no"}"#, Frame::Ended),
            (r#"44/notifications,{"message":"no"}"#, Frame::Ended),
            (r#"42/notifications,["notification","{}"]"#, Frame::Event),
            (r#"42["notification","{}"]"#, Frame::Event),
            (r#"451-["notification"]"#, Frame::Event),
            ("43/notifications,1[]", Frame::Other),
            ("6", Frame::Other),
            ("", Frame::Other),
            ("4", Frame::Other),
            ("€", Frame::Other),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn announced_times_are_bounded() {
        let of = |interval: u64, timeout: u64| {
            parse(&format!(
                r#"0{{"pingInterval":{interval},"pingTimeout":{timeout}}}"#
            ))
        };
        let silence = SILENCE_MAX;
        assert_eq!(of(u64::MAX, u64::MAX), Frame::Open { silence });
        let silence = SILENCE_MIN;
        assert_eq!(of(0, 0), Frame::Open { silence });
    }

    proptest! {
        #[test]
        fn any_text_is_a_frame(text in "[0-6]{0,3}[/a-z,{}\\[\\]\"0-9€]{0,40}") {
            parse(&text);
        }
    }
}
