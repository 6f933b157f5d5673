//! How a node stops.

use std::time::Duration;

use airfleet_runtime::{
    config::ServerConfig,
    lifecycle,
    status::{Problem, reason},
};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::support::{PATIENCE, Running, eventually};

#[tokio::test]
async fn the_first_stage_drains() {
    let running = Running::start(&ServerConfig::default()).await;
    let client = running.client();
    let mut stream = client.watch("first").await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().text, "first");
    let at_work = tokio::spawn({
        let client = client.clone();
        async move { client.say("wait").await }
    });
    running.echo.waiting.notified().await;

    running.node.shutdown().trigger();
    // Streams end with a reason to come back.
    let ended = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    let problem = Problem::from(ended.unwrap_err());
    assert_eq!((problem.code, problem.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    assert!(problem.retry_after.is_some());
    eventually("it is not ready", || !running.node.readiness.is_ready()).await;
    let closed = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it stops accepting");
    assert!(!running.stopped.is_finished(), "a request is still at work");

    // Requests that were begun are finished.
    running.echo.answer_now.notify_one();
    assert_eq!(at_work.await.unwrap().unwrap(), "waited");
    let stopped = tokio::time::timeout(PATIENCE, running.stopped).await.unwrap().unwrap();
    stopped.unwrap();
}

#[tokio::test]
async fn draining_has_a_deadline() {
    let drain_deadline = Duration::from_millis(50);
    let config = ServerConfig { drain_deadline, ..ServerConfig::default() };
    let running = Running::start(&config).await;
    let client = running.client();
    let at_work = tokio::spawn(async move { client.say("wait").await });
    running.echo.waiting.notified().await;
    let error = running.stop().await.unwrap_err();
    assert_eq!(error.to_string(), "stopped after 50ms with tasks still at work: server");
    assert!(at_work.await.unwrap().is_err());
}

#[tokio::test]
async fn the_second_stage_drops_everything() {
    let running = Running::start(&ServerConfig::default()).await;
    let client = running.client();
    let at_work = tokio::spawn(async move { client.say("wait").await });
    running.echo.waiting.notified().await;
    running.node.shutdown().trigger();
    eventually("it is not ready", || !running.node.readiness.is_ready()).await;
    running.node.shutdown().force();
    let stopped = tokio::time::timeout(PATIENCE, running.stopped).await.unwrap().unwrap();
    assert!(matches!(stopped, Err(lifecycle::Error::Forced)));
    assert!(at_work.await.unwrap().is_err());
}

#[tokio::test]
async fn a_stream_that_is_not_answered_yet_ends_too() {
    let running = Running::start(&ServerConfig::default()).await;
    // Reflection waits for the first message of its client.
    let mut client =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
            running.client().0,
        );
    let stream = tokio::spawn(async move {
        let answers = client.server_reflection_info(tokio_stream::pending()).await?;
        answers.into_inner().message().await
    });
    eventually("it is open", || running.metric("airfleet_rpc_streams_in_flight") > 0.5).await;
    running.stop().await.unwrap();
    let problem = Problem::from(stream.await.unwrap().unwrap_err());
    assert_eq!(problem.reason, reason::SHUTTING_DOWN);
}
