//! Signing in through a browser, which a plain HTTP client plays here.

use onedrivefs_graph::auth::{CodeFlow, LoginErrorKind};
use onedrivefs_graph::{AuthConfig, GraphError, HttpOptions};
use onedrivefs_sim::{SimConfig, Simulator};
use reqwest::{Client, redirect};
use url::Url;

use crate::support::auth_config;

fn browser() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap()
}

/// Opens the sign-in page and returns where it leads.
async fn approve(flow: &CodeFlow) -> Url {
    let answer = browser()
        .get(flow.authorize_url().clone())
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_redirection(), "{}", answer.status());
    let target = answer.headers()["location"].to_str().unwrap();
    Url::parse(target).unwrap()
}

#[tokio::test]
async fn a_browser_brings_a_token_past_all_distractions() {
    let sim = Simulator::start(SimConfig::default()).await.unwrap();
    let flow = CodeFlow::begin(&HttpOptions::default(), &auth_config(&sim)).unwrap();
    assert!(flow.has_listener());
    assert_eq!(flow.redirect_uri().host_str(), Some("localhost"));
    let visit = async {
        let own = flow.redirect_uri().clone();
        let port = own.port().unwrap();
        // A connection that is opened and never used, as browsers do.
        let _idle = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        let back = approve(&flow).await;
        let icon = browser()
            .get(own.join("/favicon.ico").unwrap())
            .send()
            .await
            .unwrap();
        assert_eq!(icon.status(), 404);
        let mut forged = own.clone();
        forged.set_query(Some("code=forged&state=guessed"));
        let forged = browser().get(forged).send().await.unwrap();
        assert_eq!(forged.status(), 404);
        let page = browser().get(back).send().await.unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("close this page"));
    };
    let (token, ()) = tokio::join!(flow.wait(), visit);
    assert!(token.unwrap().refresh_token.is_some());
}

#[tokio::test]
async fn a_refusal_in_the_browser_is_passed_on() {
    let sim = Simulator::start(SimConfig::default()).await.unwrap();
    sim.set_knobs(|knobs| knobs.authorize_error = Some("access_denied".to_owned()));
    let flow = CodeFlow::begin(&HttpOptions::default(), &auth_config(&sim)).unwrap();
    let visit = async {
        let back = approve(&flow).await;
        let page = browser().get(back).send().await.unwrap();
        assert!(page.text().await.unwrap().contains("Not signed in"));
    };
    let (token, ()) = tokio::join!(flow.wait(), visit);
    let Err(GraphError::Login(error)) = token else {
        panic!("a token in spite of the refusal");
    };
    assert_eq!(error.kind, LoginErrorKind::Declined);
}

#[tokio::test]
async fn the_final_address_can_be_pasted() {
    let sim = Simulator::start(SimConfig::default()).await.unwrap();
    let config = AuthConfig {
        redirect_uri: Some(format!("{}/common/oauth2/nativeclient", sim.login_url())),
        ..auth_config(&sim)
    };
    let config = AuthConfig {
        redirect_uri: config
            .redirect_uri
            .map(|uri| uri.replace("http://", "https://")),
        ..config
    };
    let flow = CodeFlow::begin(&HttpOptions::default(), &config).unwrap();
    assert!(!flow.has_listener());
    assert!(flow.wait().await.is_err());
    let back = approve(&flow).await;
    let wrong = flow
        .finish_from_url("https://example.com/?code=a&state=b")
        .await;
    assert!(wrong.is_err());
    let token = flow.finish_from_url(&format!("  {back}\n")).await.unwrap();
    assert!(token.refresh_token.is_some());
}
