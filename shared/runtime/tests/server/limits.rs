//! What is past a limit is refused with a reason, and costs nobody else anything.

use airfleet_runtime::{
    config::{ClientConfig, Limits, Secret, ServerConfig},
    status::{Problem, reason},
};
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::support::{Credentials, Running, eventually};

fn limited(limits: Limits) -> ServerConfig {
    ServerConfig { limits, ..ServerConfig::default() }
}

#[tokio::test]
async fn an_oversized_message_is_refused_by_its_first_bytes() {
    let config = limited(Limits { max_message_bytes: 10_000, ..Limits::default() });
    let running = Running::start(&config).await;
    let client = running.client();
    let largest = "x".repeat(9_990);
    assert_eq!(client.say(&largest).await.unwrap(), largest);

    let problem = client.problem(&"x".repeat(3_000_000)).await;
    assert_eq!(problem.code, Code::ResourceExhausted);
    assert_eq!(problem.reason, reason::MESSAGE_TOO_LARGE);
    assert_eq!(problem.message, "request: a message of 3000005 bytes is larger than 10000 bytes");
    assert!(!problem.is_transient());
    assert_eq!(client.say("still here").await.unwrap(), "still here");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn each_principal_has_a_rate_of_its_own() {
    let mut credentials = Credentials::new();
    credentials.token("hasty", "role = \"viewer\"");
    let tokens = credentials.token("calm", "role = \"viewer\"");
    let mut config = limited(Limits { requests_per_second: 5, ..Limits::default() });
    config.tokens_file = Some(tokens);
    let running = Running::start(&config).await;
    let client = |token: &str| {
        let token = Some(Secret::new(token));
        running.client_with(ClientConfig { token, ..ClientConfig::default() }, "http")
    };
    // The rate is the principal's, not the connection's.
    let (one, two) = (client("hasty"), client("hasty"));
    let mut refused = None;
    for n in 0..100 {
        let client = if n % 2 == 0 { &one } else { &two };
        if let Err(status) = client.say("again").await {
            refused = Some((n, Problem::from(status)));
            break;
        }
    }
    let (after, problem) = refused.expect("a hundred requests are past five a second");
    assert!(after >= 5, "{after}");
    assert_eq!((problem.code, problem.reason.as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    assert_eq!(problem.message, "principal:token:hasty: more than 5 requests a second");
    assert!(problem.retry_after.is_some() && problem.is_transient());
    assert_eq!(client("calm").say("hello").await.unwrap(), "hello");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn work_past_the_limit_is_shed() {
    let limits = Limits { max_in_flight: 2, max_streams: 1, ..Limits::default() };
    let running = Running::start(&limited(limits)).await;
    let client = running.client();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.say("wait").await })
        })
        .collect();
    eventually("two are at work", || running.metric("airfleet_rpc_requests_in_flight") > 1.5).await;
    let problem = client.problem("one more").await;
    assert_eq!((problem.code, problem.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(problem.retry_after.is_some());

    // Streams are counted apart.
    let mut stream = client.watch("first").await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().text, "first");
    let problem = Problem::from(client.watch("second").await.unwrap_err());
    assert_eq!(problem.reason, reason::TOO_MANY_STREAMS);
    drop(stream);
    eventually("the stream is gone", || running.metric("airfleet_rpc_streams_in_flight") < 0.5)
        .await;
    client.watch("third").await.unwrap();

    for task in waiting {
        running.echo.answer_now.notify_one();
        assert_eq!(task.await.unwrap().unwrap(), "waited");
    }
    assert_eq!(client.say("room again").await.unwrap(), "room again");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn connections_past_the_limit_are_closed() {
    let running =
        Running::start(&limited(Limits { max_connections: 1, ..Limits::default() })).await;
    let client = running.client();
    client.say("mine").await.unwrap();
    assert_eq!(running.client().problem("no room").await.code, Code::Unavailable);
    assert!(running.metric("airfleet_connections_total{outcome=\"refused\"}") > 0.5);
    assert_eq!(client.say("still mine").await.unwrap(), "still mine");
    running.stop().await.unwrap();
}
