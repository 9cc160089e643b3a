//! The page that a browser shows at the end of a sign-in, and the little HTTP around it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

/// Longest head of a request that is read; the redirect carries a code of about 2 KiB.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// What the browser is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The sign-in went through.
    Done,
    /// The sign-in was refused or declined.
    Failed,
    /// The request belongs to no sign-in of ours.
    Stray,
}

/// Reads the request line of a browser; `None` when it is no GET.
pub(super) async fn read_target(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 || head.len() + count > HEAD_MAX_BYTES {
            return Ok(None);
        }
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    Ok(match (words.next(), words.next()) {
        (Some("GET"), Some(target)) if target.starts_with('/') => Some(target.to_owned()),
        _ => None,
    })
}

/// The parameters of a redirect that belongs to `redirect`; `None` for anything else a browser
/// asks for, such as an icon.
pub(super) fn redirect_parameters(redirect: &Url, target: &str) -> Option<Vec<(String, String)>> {
    let url = redirect.join(target).ok()?;
    let same = url.path() == redirect.path() && url.origin() == redirect.origin();
    let parameters: Vec<_> = url.query_pairs().into_owned().collect();
    let relevant = parameters
        .iter()
        .any(|(key, _)| key == "code" || key == "error" || key == "state");
    (same && relevant).then_some(parameters)
}

/// Answers the browser.
pub(super) async fn answer(stream: &mut TcpStream, page: Page) -> std::io::Result<()> {
    let (status, title, text) = match page {
        Page::Done => (
            "200 OK",
            "Signed in",
            "The sign-in is complete. You can close this page and return to the terminal.",
        ),
        Page::Failed => (
            "200 OK",
            "Not signed in",
            "The sign-in was not completed. The terminal says why; you can close this page.",
        ),
        Page::Stray => (
            "404 Not Found",
            "Nothing here",
            "There is nothing at this address.",
        ),
    };
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>body{{font-family:sans-serif;max-width:32em;margin:15vh auto;padding:0 1em}}\
         </style></head><body><h1>{title}</h1><p>{text}</p></body></html>"
    );
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redirects_of_ours_count() {
        let redirect = Url::parse("http://localhost:1234/").unwrap();
        assert!(redirect_parameters(&redirect, "/?code=a&state=b").is_some());
        for stray in [
            "/favicon.ico",
            "/",
            "/other?code=a&state=b",
            "//evil/?code=a&state=b",
        ] {
            assert!(redirect_parameters(&redirect, stray).is_none(), "{stray}");
        }
    }
}
