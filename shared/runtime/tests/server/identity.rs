//! Who may call.

use airfleet_runtime::{
    config::{ClientConfig, Secret, ServerConfig},
    status::reason,
};
use tonic::Code;

use crate::support::{Credentials, Running};

fn with_token(config: ClientConfig, token: &str) -> ClientConfig {
    ClientConfig { token: Some(Secret::new(token)), ..config }
}

#[tokio::test]
async fn tokens_say_who_calls() {
    let mut credentials = Credentials::new();
    credentials.token("ops", "role = \"operator\"");
    credentials.token("past", "role = \"admin\"\nexpires = \"2020-01-01T00:00:00Z\"");
    let tokens = credentials.token("ci", "role = \"tenant\"\nnamespaces = [\"payments\"]");
    let config = ServerConfig {
        tls: credentials.tls(),
        tokens_file: Some(tokens),
        ..ServerConfig::default()
    };
    let running = Running::start(&config).await;
    let client = |config: ClientConfig| running.client_with(config, "https");

    let operator = client(with_token(credentials.anyone(), "ops"));
    for _ in 0..3 {
        assert!(operator.say("who").await.unwrap().starts_with("token:ops operator "));
    }
    let tenant = client(with_token(credentials.anyone(), "ci"));
    assert!(tenant.say("who").await.unwrap().starts_with("token:ci tenant "));

    for (config, expected) in [
        (credentials.anyone(), reason::CREDENTIALS_MISSING),
        (with_token(credentials.anyone(), "guessed"), reason::TOKEN_INVALID),
        (with_token(credentials.anyone(), "past"), reason::TOKEN_EXPIRED),
    ] {
        let problem = client(config).problem("who").await;
        assert_eq!((problem.code, problem.reason.as_str()), (Code::Unauthenticated, expected));
    }

    // Without TLS there is nobody to talk to.
    assert_eq!(running.client().problem("who").await.code, Code::Unavailable);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn probes_are_open_and_metrics_are_not() {
    let mut credentials = Credentials::new();
    let tokens = credentials.token("ops", "role = \"viewer\"");
    let mut config = ServerConfig { tokens_file: Some(tokens), ..ServerConfig::default() };
    let running = Running::start(&config).await;
    assert!(running.get("/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/readyz", "").await.starts_with("HTTP/1.1 200"));
    let refused = running.get("/metrics", "").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert!(refused.contains("\"reason\":\"CREDENTIALS_MISSING\""), "{refused}");
    let refused = running.get("/metrics", "authorization: Basic b3Bz\r\n").await;
    assert!(refused.contains("\"reason\":\"TOKEN_INVALID\""), "{refused}");
    let shown = running.get("/metrics", "authorization: bearer ops\r\n").await;
    assert!(shown.contains("airfleet_ready 1"), "{shown}");
    running.stop().await.unwrap();

    config.public_metrics = true;
    let running = Running::start(&config).await;
    assert!(running.get("/metrics", "").await.contains("airfleet_ready 1"));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn certificates_say_who_calls() {
    let credentials = Credentials::new();
    let mut config = ServerConfig { tls: credentials.tls(), ..ServerConfig::default() };
    config.tls.client_ca = Some(credentials.path("ca.pem"));
    let running = Running::start(&config).await;

    let agent = credentials.client("airfleet://shard/eu-1", 2090);
    let agent = running.client_with(agent, "https");
    assert!(agent.say("who").await.unwrap().starts_with("shard:eu-1 agent "));
    let user = credentials.client("airfleet://user/ops?role=operator", 2090);
    let user = running.client_with(user, "https");
    assert!(user.say("who").await.unwrap().starts_with("user:ops operator "));

    // Nobody that is known.
    let stranger = credentials.client("https://example.test", 2090);
    let problem = running.client_with(stranger, "https").problem("who").await;
    assert_eq!(problem.reason, reason::CERTIFICATE_UNKNOWN);
    // A token does not help where there are none, and is not overlooked either.
    let agent = with_token(credentials.client("airfleet://shard/eu-1", 2090), "guessed");
    let problem = running.client_with(agent, "https").problem("who").await;
    assert_eq!(problem.reason, reason::TOKEN_INVALID);

    // Refused in the handshake: expired, signed by somebody else, absent.
    let expired = credentials.client("airfleet://shard/eu-1", 2021);
    let other = ClientConfig {
        ca: Some(credentials.path("ca.pem")),
        ..Credentials::new().client("airfleet://shard/eu-1", 2090)
    };
    let other_dir = Credentials::new();
    let other = ClientConfig {
        cert: Some(other_dir.client("airfleet://shard/eu-1", 2090).cert.unwrap()),
        key: Some(other_dir.path("client.key")),
        ..other
    };
    for config in [expired, other, credentials.anyone()] {
        let problem = running.client_with(config, "https").problem("who").await;
        assert_eq!(problem.code, Code::Unavailable, "{problem}");
    }
    assert!(running.metric("airfleet_connections_total{outcome=\"failed\"}") >= 3.0);
    // All of which is nothing to those who are known.
    assert!(agent_still_works(&running, &credentials).await);
    running.stop().await.unwrap();
}

async fn agent_still_works(running: &Running, credentials: &Credentials) -> bool {
    let agent = credentials.client("airfleet://shard/eu-2", 2090);
    running.client_with(agent, "https").say("who").await.unwrap().starts_with("shard:eu-2 agent ")
}

#[tokio::test]
async fn a_certificate_or_a_token_will_do() {
    let mut credentials = Credentials::new();
    let tokens = credentials.token("join", "role = \"agent\"\nshard = \"eu-*\"");
    let mut config = ServerConfig {
        tls: credentials.tls(),
        tokens_file: Some(tokens),
        ..ServerConfig::default()
    };
    config.tls.client_ca = Some(credentials.path("ca.pem"));
    let running = Running::start(&config).await;

    let by_token = running.client_with(with_token(credentials.anyone(), "join"), "https");
    assert!(by_token.say("who").await.unwrap().starts_with("token:join agent "));
    let by_certificate = credentials.client("airfleet://shard/eu-1", 2090);
    let by_certificate = running.client_with(by_certificate, "https");
    assert!(by_certificate.say("who").await.unwrap().starts_with("shard:eu-1 agent "));
    let neither = running.client_with(credentials.anyone(), "https");
    assert_eq!(neither.problem("who").await.reason, reason::CREDENTIALS_MISSING);
    running.stop().await.unwrap();
}
