//! Staying signed in.

use std::sync::Arc;
use std::time::Duration;

use onedrivefs_core::ExposeSecret as _;
use onedrivefs_graph::auth::{
    LoginErrorKind, TokenSource, TokenStore, client_credentials, login_device_code,
};
use onedrivefs_graph::{AuthConfig, Disposition, GraphClient, GraphError, HttpOptions, SignIn};
use onedrivefs_sim::{
    ClientSpec, DeviceOutcome, DriveKind, FaultAction, FaultRule, Reach, SimConfig, Simulator,
};

use crate::support::{Bench, auth_config, endpoints, source, stored_token, token_set};

async fn sim() -> Simulator {
    Simulator::start(SimConfig::default()).await.unwrap()
}

fn refresh_text(store: &TokenStore) -> String {
    let token = store.load().unwrap().unwrap();
    token.refresh_token.unwrap().expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_refused_requests_lead_to_one_renewal_which_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = TokenStore::file(folder.path().join("token.json"));
    let sim = sim().await;
    sim.set_knobs(|knobs| knobs.refresh_single_use = true);
    let tokens = stored_token(&sim, &store);
    let bench = Bench::with_tokens(sim, tokens).await;
    for _ in 0..3 {
        let before = refresh_text(&store);
        bench.sim.requests().clear();
        bench.sim.expire_tokens();
        let requests = (0..50).map(|_| bench.graph.item(&bench.drive, &bench.root));
        for result in futures_util::future::join_all(requests).await {
            result.unwrap();
        }
        assert_eq!(bench.sim.requests().count("token"), 1);
        assert_ne!(refresh_text(&store), before);
    }
}

#[tokio::test]
async fn a_restart_goes_on_with_the_stored_token() {
    let store = TokenStore::memory();
    let sim = sim().await;
    stored_token(&sim, &store);
    let again = source(&sim, &store);
    assert_eq!(
        again.access_token().await.unwrap().expose_secret(),
        store.load().unwrap().unwrap().access_token.expose_secret()
    );
    assert_eq!(sim.requests().count("token"), 0);
}

#[tokio::test]
async fn another_process_renews_for_us() {
    let folder = tempfile::tempdir().unwrap();
    let store = TokenStore::file(folder.path().join("token.json"));
    let sim = sim().await;
    sim.set_knobs(|knobs| knobs.refresh_single_use = true);
    let first = stored_token(&sim, &store);
    let second = source(&sim, &store);
    let old = first.access_token().await.unwrap();
    assert_eq!(
        second.access_token().await.unwrap().expose_secret(),
        old.expose_secret()
    );
    sim.expire_tokens();
    let new = first.refreshed(&old).await.unwrap();
    let same = second.refreshed(&old).await.unwrap();
    assert_eq!(new.expose_secret(), same.expose_secret());
    assert_eq!(sim.requests().count("token"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_at_once_do_not_lose_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let store = TokenStore::file(folder.path().join("token.json"));
    let sim = sim().await;
    sim.set_knobs(|knobs| knobs.refresh_single_use = true);
    let old = stored_token(&sim, &store).access_token().await.unwrap();
    sim.expire_tokens();
    let sources: Vec<_> = (0..8).map(|_| source(&sim, &store)).collect();
    let renewals = sources.iter().map(|source| source.refreshed(&old));
    for result in futures_util::future::join_all(renewals).await {
        result.unwrap();
    }
    assert_eq!(sim.requests().count("token"), 1);
}

#[tokio::test]
async fn a_dead_sign_in_is_said_once_and_healed_by_a_new_one() {
    let store = TokenStore::memory();
    let sim = sim().await;
    let tokens = stored_token(&sim, &store);
    let bench = Bench::with_tokens(sim, Arc::clone(&tokens)).await;
    bench.sim.revoke_refresh_tokens();
    bench.sim.expire_tokens();
    for _ in 0..5 {
        let error = bench
            .graph
            .item(&bench.drive, &bench.root)
            .await
            .unwrap_err();
        assert_eq!(error.disposition(), Disposition::Reauth);
        assert!(error.to_string().contains("ign in"), "{error}");
    }
    assert!(tokens.needs_login());
    assert_eq!(bench.sim.requests().count("token"), 1);
    // Somebody signs in with another process.
    store.save(&token_set(&bench.sim)).unwrap();
    let mut watch = tokens.watch_login();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while bench.graph.item(&bench.drive, &bench.root).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!tokens.needs_login() && !*watch.borrow_and_update());
}

/// A server that has not heard of a new token yet refuses that as well.
#[tokio::test]
async fn a_new_token_that_is_refused_for_a_moment_is_no_reason_to_sign_in() {
    let store = TokenStore::memory();
    let sim = sim().await;
    let tokens = stored_token(&sim, &store);
    let bench = Bench::with_tokens(sim, Arc::clone(&tokens)).await;
    let refused = FaultRule::on("item", FaultAction::status(401));
    let rule = bench.sim.faults().add(refused.clone().times(3));
    bench.graph.item(&bench.drive, &bench.root).await.unwrap();
    assert_eq!(bench.sim.faults().hits(rule), 3);
    assert_eq!(bench.sim.requests().count("token"), 3);
    assert!(!tokens.needs_login());
    // One that is refused every time is replaced as often as that, however many ask.
    bench.sim.faults().add(refused);
    for _ in 0..3 {
        let refused = bench.graph.item(&bench.drive, &bench.root).await;
        assert_eq!(refused.unwrap_err().disposition(), Disposition::Reauth);
    }
    assert!(tokens.needs_login());
    assert_eq!(bench.sim.requests().count("token"), 6);
}

#[tokio::test]
async fn trouble_keeps_the_token() {
    let store = TokenStore::memory();
    let sim = sim().await;
    let tokens = stored_token(&sim, &store);
    let old = tokens.access_token().await.unwrap();
    let before = refresh_text(&store);
    sim.faults()
        .add(FaultRule::on("token", FaultAction::status(503)).times(1));
    let error = tokens.refreshed(&old).await.unwrap_err();
    assert!(
        matches!(
            error.disposition(),
            Disposition::Retry | Disposition::RetryAfter(_)
        ),
        "{error}"
    );
    sim.set_reach(Reach::Offline);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let error = tokens.refreshed(&old).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Offline);
    assert!(!tokens.needs_login());
    assert_eq!(refresh_text(&store), before);
    // The token itself is still good for whoever was not refused.
    assert_eq!(
        tokens.access_token().await.unwrap().expose_secret(),
        old.expose_secret()
    );
    sim.set_reach(Reach::Online);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    tokens.refreshed(&old).await.unwrap();
    assert_ne!(refresh_text(&store), before);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_does_not_stop_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token.json");
    let store = TokenStore::file(&path);
    let sim = sim().await;
    let tokens = stored_token(&sim, &store);
    // A folder in place of the file makes every write and read of it fail, also for root.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    let bench = Bench::with_tokens(sim, tokens).await;
    for _ in 0..2 {
        bench.sim.expire_tokens();
        bench.graph.item(&bench.drive, &bench.root).await.unwrap();
    }
    assert_eq!(bench.sim.requests().count("token"), 2);
}

#[tokio::test]
async fn tokens_about_to_end_are_renewed_before_use() {
    let store = TokenStore::memory();
    let sim = sim().await;
    sim.set_knobs(|knobs| knobs.token_ttl_s = 3600);
    let mut token = token_set(&sim);
    token.issued_at =
        onedrivefs_core::Timestamp::from_nanos(token.issued_at.as_nanos() - 3_400 * 1_000_000_000);
    token.expires_at =
        onedrivefs_core::Timestamp::from_nanos(token.expires_at.as_nanos() - 3_400 * 1_000_000_000);
    store.save(&token).unwrap();
    let tokens = source(&sim, &store);
    let got = tokens.access_token().await.unwrap();
    assert_ne!(got.expose_secret(), token.access_token.expose_secret());
    assert_eq!(sim.requests().count("token"), 1);
}

#[tokio::test]
async fn a_device_code_leads_to_a_token() {
    let sim = sim().await;
    sim.set_knobs(|knobs| {
        knobs.device_interval_s = 0;
        knobs.device_polls = 3;
    });
    let mut prompts = Vec::new();
    let token = login_device_code(&HttpOptions::default(), &auth_config(&sim), |prompt| {
        prompts.push(prompt.clone());
    })
    .await
    .unwrap();
    assert_eq!(prompts.len(), 1);
    assert!(prompts[0].message.contains(&prompts[0].user_code));
    assert!(token.refresh_token.is_some());
    let store = TokenStore::memory();
    let tokens = source(&sim, &store);
    tokens.adopt(token).unwrap();
    let graph = GraphClient::new(endpoints(&sim), HttpOptions::default(), tokens).unwrap();
    graph.me().await.unwrap();
}

#[tokio::test]
async fn declined_and_expired_device_codes_say_so() {
    for (outcome, kind) in [
        (DeviceOutcome::Decline, LoginErrorKind::Declined),
        (DeviceOutcome::Expire, LoginErrorKind::Expired),
    ] {
        let sim = sim().await;
        sim.set_knobs(|knobs| {
            knobs.device_interval_s = 0;
            knobs.device_polls = 1;
            knobs.device_outcome = outcome;
            knobs.device_ttl_s = 1;
        });
        let error = login_device_code(&HttpOptions::default(), &auth_config(&sim), |_| {})
            .await
            .unwrap_err();
        let GraphError::Login(login) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(login.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn an_application_signs_in_by_its_secret() {
    let config = SimConfig {
        clients: vec![ClientSpec {
            id: "app-1".to_owned(),
            secret: Some("the-secret-of-app-1".to_owned()),
            ..ClientSpec::default()
        }],
        ..SimConfig::with_kind(DriveKind::Business)
    };
    let sim = Simulator::start(config).await.unwrap();
    let app = AuthConfig {
        sign_in: SignIn::App,
        client_secret: Some("the-secret-of-app-1".into()),
        tenant: "example.com".to_owned(),
        ..auth_config(&sim)
    };
    let options = HttpOptions::default();
    let tokens = TokenSource::new(&app, &options, TokenStore::memory()).unwrap();
    let graph = GraphClient::new(endpoints(&sim), options.clone(), tokens).unwrap();
    graph.user_drive("ada@example.com").await.unwrap();
    sim.expire_tokens();
    graph.user_drive("ada@example.com").await.unwrap();
    let wrong = AuthConfig {
        client_secret: Some("not-the-secret".into()),
        ..app.clone()
    };
    let error = client_credentials(&options, &wrong).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("not-the-secret"));
    assert_eq!(error.disposition(), Disposition::Reauth);
    let none = AuthConfig {
        client_secret: None,
        ..app
    };
    assert!(TokenSource::new(&none, &options, TokenStore::memory()).is_err());
}
