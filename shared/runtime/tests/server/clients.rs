//! Finding the replica that answers.

use std::{sync::Arc, time::Duration};

use airfleet_runtime::{
    client::{self, Replicas, Retry},
    config::{ClientConfig, Secret, ServerConfig},
    status::Problem,
};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::support::{Client, Credentials, PATIENCE, Running};

async fn say(replicas: &Replicas, retry: Retry, text: &str) -> Result<String, Status> {
    let call = replicas.call(retry, |transport| async { Client(transport).say(text).await });
    tokio::time::timeout(PATIENCE, call).await.expect("an answer in time")
}

fn replicas(endpoints: &[String]) -> Replicas {
    let endpoints = endpoints.to_vec();
    Replicas::new(&ClientConfig { endpoints, ..ClientConfig::default() }).unwrap()
}

#[tokio::test]
async fn a_follower_leads_to_the_leader() {
    let follower = Running::start(&ServerConfig::default()).await;
    let leader = Running::start(&ServerConfig::default()).await;
    *follower.echo.leader.lock().unwrap() = Some(leader.address.to_string());
    // The leader is not among those that were configured.
    let replicas = replicas(&[follower.url("http")]);
    assert_eq!(say(&replicas, Retry::NotLeader, "one").await.unwrap(), "one");
    assert_eq!(say(&replicas, Retry::NotLeader, "two").await.unwrap(), "two");
    assert_eq!(replicas.current_address(), format!("http://{}", leader.address));
    let asked = "airfleet_rpc_requests_total{code=\"UNAVAILABLE\",method=\"Say\",\
                 service=\"airfleet.test.v1.Echo\"}";
    assert!(follower.metric(asked) < 1.5, "the follower is asked once");

    // The leader goes away and the follower takes over.
    leader.stop().await.unwrap();
    *follower.echo.leader.lock().unwrap() = None;
    assert_eq!(say(&replicas, Retry::Idempotent, "three").await.unwrap(), "three");
    follower.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_is_away_is_passed_over() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let absent = format!("http://{}", away.local_addr().unwrap());
    drop(away);
    let running = Running::start(&ServerConfig::default()).await;
    let both = replicas(&[absent.clone(), running.url("http")]);
    // What may have been carried out is not repeated unless that does no harm.
    let status = say(&both, Retry::NotLeader, "once").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let both = replicas(&[absent.clone(), running.url("http")]);
    assert_eq!(say(&both, Retry::Idempotent, "again").await.unwrap(), "again");

    let status = say(&replicas(&[absent]), Retry::Idempotent, "never").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "attempts are bounded");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn leaders_that_point_at_each_other_are_not_followed_for_ever() {
    let one = Running::start(&ServerConfig::default()).await;
    let two = Running::start(&ServerConfig::default()).await;
    *one.echo.leader.lock().unwrap() = Some(two.address.to_string());
    *two.echo.leader.lock().unwrap() = Some(one.address.to_string());
    let status = say(&replicas(&[one.url("http")]), Retry::NotLeader, "x").await.unwrap_err();
    assert!(Problem::from(&status).is_not_leader());
    // A leader without TLS is not a leader for those who use it, and the other way round.
    *one.echo.leader.lock().unwrap() = Some(format!("https://{}", two.address));
    let replicas = replicas(&[one.url("http")]);
    say(&replicas, Retry::NotLeader, "x").await.unwrap_err();
    assert_eq!(replicas.current_address(), one.url("http"));
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again() {
    let mut credentials = Credentials::new();
    let tokens_file = Some(credentials.token("new", "role = \"viewer\""));
    let running = Running::start(&ServerConfig { tokens_file, ..ServerConfig::default() }).await;
    let path = credentials.path("token");
    std::fs::write(&path, "old\n").unwrap();
    let config = ClientConfig {
        endpoints: vec![running.url("http")],
        token_file: Some(path.clone()),
        ..ClientConfig::default()
    };
    let replicas = Replicas::new(&config).unwrap();
    let status = say(&replicas, Retry::Idempotent, "who").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    std::fs::write(&path, "new\n").unwrap();
    let who = say(&replicas, Retry::Idempotent, "who").await.unwrap();
    assert!(who.starts_with("token:new viewer"), "{who}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn tokens_are_not_sent_in_the_clear() {
    let config = ClientConfig {
        token: Some(Secret::new("secret")),
        connect_timeout: Duration::from_secs(1),
        ..ClientConfig::plain("http://router.example.test:7402")
    };
    let error = client::connect(&config).unwrap_err();
    assert!(matches!(error, client::Error::TokenInTheClear { .. }), "{error}");
    let wrong = ClientConfig::plain("router:7402");
    assert!(matches!(client::connect(&wrong), Err(client::Error::Endpoint { .. })));
    let none = ClientConfig::default();
    assert!(matches!(client::connect(&none), Err(client::Error::NoEndpoint)));
}

#[tokio::test]
async fn the_id_of_a_request_goes_along() {
    let running = Running::start(&ServerConfig::default()).await;
    let client = Arc::new(running.client());
    let mut header = http::HeaderValue::from_static("begun-elsewhere");
    header.set_sensitive(true);
    let id = airfleet_runtime::request::RequestId::from_header(&header).unwrap();
    let who = airfleet_runtime::request::within(id, client.say("who")).await.unwrap();
    assert_eq!(who, "anonymous admin begun-elsewhere");
    running.stop().await.unwrap();
}
