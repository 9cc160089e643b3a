//! Servers that answer in ways the client must survive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream;
use onedrivefs_core::{DriveId, ItemId};
use onedrivefs_graph::auth::{TokenSet, TokenSource, TokenStore};
use onedrivefs_graph::{
    AuthConfig, Cloud, DeltaFrom, DeltaNext, Disposition, Endpoints, GraphClient, GraphError,
    HttpOptions,
};

/// Serves every request with one function and returns a client and the port.
async fn server<F>(answer: F) -> (GraphClient, u16)
where
    F: Fn(Request) -> Response + Clone + Send + Sync + 'static,
{
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().fallback(any(move |request: Request| {
        let response = answer(request);
        async move { response }
    }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let graph = format!("http://127.0.0.1:{port}/v1.0");
    let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), None).unwrap();
    let tokens = TokenSource::fixed("the-bearer-token".into());
    let client = GraphClient::new(endpoints, HttpOptions::default(), tokens).unwrap();
    (client, port)
}

fn ids() -> (DriveId, ItemId) {
    (DriveId::new("b!d"), ItemId::new("01I"))
}

fn with_location(status: StatusCode, location: &str) -> Response {
    (status, [("location", location.to_owned())]).into_response()
}

#[tokio::test]
async fn pages_of_the_wrong_kind_are_errors_not_empty_folders() {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "<html>maintenance</html>",
        r#"{"value":null}"#,
        r#"{"value":{}}"#,
        r#"{"value":[]"#,
    ] {
        let (graph, _) = server(move |_| body.into_response()).await;
        let (drive, item) = ids();
        let page = graph.children_page(&drive, &item, None).await;
        assert!(
            matches!(page, Err(GraphError::Malformed { .. })),
            "{body}: {page:?}"
        );
        let page = graph.delta_page(&drive, &DeltaFrom::Start).await;
        assert!(
            matches!(page, Err(GraphError::Malformed { .. })),
            "{body}: {page:?}"
        );
    }
    let (graph, _) = server(|_| r#"{"value":[]}"#.into_response()).await;
    let (drive, item) = ids();
    assert!(
        graph
            .children_page(&drive, &item, None)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    // A change feed must say how to go on. What an outage sends instead passes with it.
    let page = graph.delta_page(&drive, &DeltaFrom::Start).await;
    assert_eq!(page.unwrap_err().disposition(), Disposition::Retry);
}

#[tokio::test]
async fn error_bodies_of_every_shape_and_size_are_classified() {
    let huge = Bytes::from(vec![b'x'; 8 << 20]);
    for (status, body, expected) in [
        (
            400,
            Bytes::from_static(b"<html>Bad Request</html>"),
            Disposition::Permanent,
        ),
        (404, Bytes::new(), Disposition::NotFound),
        (
            423,
            Bytes::from_static(b"\xEF\xBB\xBF{\"error\":{\"code\":\"notAllowed\"}}"),
            Disposition::Locked,
        ),
        (403, huge, Disposition::Permanent),
        (
            507,
            Bytes::from_static(b"{\"error\":{}}"),
            Disposition::QuotaFull,
        ),
    ] {
        let (graph, _) =
            server(move |_| (StatusCode::from_u16(status).unwrap(), body.clone()).into_response())
                .await;
        let (drive, item) = ids();
        let error = graph.item(&drive, &item).await.unwrap_err();
        assert_eq!(error.disposition(), expected, "{status}");
        assert!(error.to_string().len() < 2000);
    }
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let (graph, _) = server(|_| {
        let piece = Bytes::from(vec![b' '; 1 << 20]);
        let endless = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        Body::from_stream(endless).into_response()
    })
    .await;
    let (drive, item) = ids();
    let error = graph.item(&drive, &item).await.unwrap_err();
    assert!(matches!(error, GraphError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn links_elsewhere_never_get_the_token() {
    for link in [
        "https://evil.example/v1.0/next",
        "http://192.0.2.1/v1.0/next",
        "//192.0.2.1/next",
    ] {
        let (graph, _) = server(move |_| {
            format!(r#"{{"value":[],"@odata.nextLink":"{link}"}}"#).into_response()
        })
        .await;
        let (drive, item) = ids();
        let page = graph.children_page(&drive, &item, None).await.unwrap();
        let error = graph
            .children_page(&drive, &item, page.next.as_deref())
            .await
            .unwrap_err();
        assert!(matches!(error, GraphError::ForeignLink { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_emulator_may_send_links_of_the_genuine_host() {
    let (graph, _) = server(|request| {
        let authorized = request.headers().contains_key("authorization");
        let prefer = request
            .headers()
            .get("prefer")
            .map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(prefer.as_deref(), Some("Include-Feature=AddToOneDrive"));
        match request.uri().query() {
            Some("token=two") if authorized => {
                r#"{"value":[{"id":"2","file":{}}],"@odata.deltaLink":"x"}"#.into_response()
            }
            _ => r#"{"value":[{"id":"1","folder":{}}],"@odata.nextLink":
                "https://graph.microsoft.com/v1.0/drives/b!d/root/delta?token=two"}"#
                .into_response(),
        }
    })
    .await;
    let (drive, _) = ids();
    let page = graph.delta_page(&drive, &DeltaFrom::Start).await.unwrap();
    let DeltaNext::More(link) = page.next else {
        panic!("{page:?}");
    };
    let page = graph
        .delta_page(&drive, &DeltaFrom::Link(link))
        .await
        .unwrap();
    assert_eq!(page.next, DeltaNext::Done("x".to_owned()));
    assert_eq!(page.items[0].id, ItemId::new("2"));
}

#[tokio::test]
async fn a_redirected_request_does_not_carry_the_token_along() {
    let leaks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&leaks);
    let (_, other) = server(move |request| {
        if request.headers().contains_key("authorization") {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        "content".into_response()
    })
    .await;
    let (graph, _) = server(move |request| {
        let target = format!("http://localhost:{other}/secret?tempauth=x");
        match request.uri().path() {
            path if path.ends_with("/content") => with_location(StatusCode::FOUND, &target),
            _ => r#"{"id":"01I","file":{},"size":7}"#.into_response(),
        }
    })
    .await;
    let (drive, item) = ids();
    let source = graph.download_source(&drive, &item).await.unwrap();
    assert!(!format!("{source:?}").contains("tempauth"));
    let mut body = graph.fetch(&source, 0..7).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "content");
    assert_eq!(leaks.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn content_without_a_redirect_is_read_from_graph_itself() {
    let (graph, _) = server(|request| {
        if !request.headers().contains_key("authorization") {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        match request.uri().path() {
            path if path.ends_with("/content") => "whole content".into_response(),
            _ => r#"{"id":"01I","file":{},"size":13}"#.into_response(),
        }
    })
    .await;
    let (drive, item) = ids();
    let source = graph.download_source(&drive, &item).await.unwrap();
    let mut body = graph.fetch(&source, 6..13).await.unwrap();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "content");
    assert!(body.chunk().await.unwrap().is_none());
}

/// Asks for bytes 10 to 19 of 100 from a server with this answer.
async fn partial(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: &'static str,
) -> Result<Vec<u8>, GraphError> {
    let mut map = HeaderMap::new();
    for &(name, value) in headers {
        map.insert(name, value.parse().unwrap());
    }
    let (graph, _) = server(move |request| {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        if request.uri().path() == "/download" {
            let status = StatusCode::from_u16(status).unwrap();
            return (status, map.clone(), body).into_response();
        }
        format!(
            r#"{{"id":"01I","file":{{}},"@microsoft.graph.downloadUrl":"http://{host}/download"}}"#
        )
        .into_response()
    })
    .await;
    let (drive, item) = ids();
    let source = graph.download_source(&drive, &item).await?;
    let mut body = graph.fetch(&source, 10..20).await?;
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn partial_answers_are_checked_against_what_was_asked() {
    let text = "0123456789abcdefghijklmnopqrstuvwxyz";
    let good = [("content-range", "bytes 10-19/36")];
    assert_eq!(
        partial(206, &good, "abcdefghij").await.unwrap(),
        b"abcdefghij"
    );
    // More than asked is cut, an earlier beginning is skipped.
    assert_eq!(
        partial(206, &good, "abcdefghijKLM").await.unwrap(),
        b"abcdefghij"
    );
    let early = [("content-range", "bytes 5-35/36")];
    assert_eq!(
        partial(206, &early, &text[5..]).await.unwrap(),
        b"abcdefghij"
    );
    assert_eq!(partial(200, &[], text).await.unwrap(), b"abcdefghij");
    let end = [("content-range", "bytes 10-12/13")];
    assert_eq!(partial(206, &end, "abc").await.unwrap(), b"abc");
    for (status, headers, body) in [
        (206, &[][..], "abcdefghij"),
        (206, &[("content-range", "bytes 11-20/36")], "bcdefghijk"),
        (206, &[("content-range", "bytes 0-9/36")], "0123456789"),
        (206, &[("content-range", "rubbish")], "abcdefghij"),
        (206, &[("content-range", "bytes 10-19/36")], "abc"),
        (302, &[("location", "http://192.0.2.1/x")], ""),
        (302, &[], ""),
    ] {
        let error = partial(status, headers, body).await.unwrap_err();
        assert!(
            matches!(
                error,
                GraphError::Malformed { .. }
                    | GraphError::Truncated { .. }
                    | GraphError::ForeignLink { .. }
            ),
            "{status} {headers:?}: {error:?}"
        );
    }
    for status in [401, 403, 404, 410] {
        let error = partial(status, &[], "").await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::UrlExpired, "{status}");
    }
    let outside = [("content-range", "bytes */5")];
    let error = partial(416, &outside, "").await.unwrap_err();
    assert!(matches!(
        error,
        GraphError::RangeNotSatisfiable { total: Some(5) }
    ));
}

#[tokio::test]
async fn a_service_that_refuses_every_token_is_not_asked_for_ever() {
    let login = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&login);
    let (_, port) = server(move |request| {
        if request.uri().path().ends_with("/token") {
            let n = counter.fetch_add(1, Ordering::SeqCst);
            return format!(
                r#"{{"access_token":"a{n}","expires_in":3600,"refresh_token":"r{n}"}}"#
            )
            .into_response();
        }
        StatusCode::UNAUTHORIZED.into_response()
    })
    .await;
    let base = format!("http://127.0.0.1:{port}");
    let graph = format!("{base}/v1.0");
    let endpoints = Endpoints::with_overrides(Cloud::Global, Some(&graph), Some(&base)).unwrap();
    let config = AuthConfig::new("app", "common", endpoints.clone());
    let options = HttpOptions::default();
    let store = TokenStore::memory();
    let tokens = TokenSource::new(&config, &options, store).unwrap();
    let now = onedrivefs_core::Timestamp::now();
    let later = onedrivefs_core::Timestamp::from_nanos(now.as_nanos() + 3_600_000_000_000);
    tokens
        .adopt(TokenSet {
            access_token: "first".into(),
            refresh_token: Some("refresh".into()),
            issued_at: now,
            expires_at: later,
            scope: Vec::new(),
        })
        .unwrap();
    let graph = GraphClient::new(endpoints, options, tokens).unwrap();
    for _ in 0..20 {
        let error = graph.my_drive().await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Reauth);
    }
    assert_eq!(login.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn nobody_answering_is_offline() {
    let endpoints =
        Endpoints::with_overrides(Cloud::Global, Some("http://127.0.0.1:1/v1.0"), None).unwrap();
    let tokens = TokenSource::fixed("t".into());
    let graph = GraphClient::new(endpoints, HttpOptions::default(), tokens).unwrap();
    let error = graph.my_drive().await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Offline);
    assert!(error.to_string().contains("127.0.0.1"));
}
