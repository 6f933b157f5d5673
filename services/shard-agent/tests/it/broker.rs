//! Real brokers.

use std::time::Duration;

use airfleet_local::{RabbitMq, Redis};
use airfleet_shard_agent::broker::{Broker, Load, Options};
use base64::Engine as _;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use redis::AsyncCommands as _;

use crate::{LIMIT, eventually, url};

fn options(queues: &[&str], worker_window: Duration) -> Options {
    Options {
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        key_prefix: String::new(),
        worker_window,
        connect_timeout: LIMIT,
    }
}

async fn load_when(broker: &mut Broker, what: &str, wanted: impl Fn(&Load) -> bool) -> Load {
    let broker = std::cell::RefCell::new(broker);
    #[allow(clippy::await_holding_refcell_ref, reason = "asked one after the other")]
    eventually(what, async || broker.borrow_mut().load().await.ok().filter(|load| wanted(load)))
        .await
}

fn event(kind: &str, hostname: &str) -> Vec<u8> {
    serde_json::json!({
        "hostname": hostname, "utcoffset": 0, "pid": 7, "clock": 42, "freq": 2.0, "active": 1,
        "processed": 9, "loadavg": [0.1, 0.2, 0.3], "sw_ident": "py-celery", "sw_ver": "5.6.3",
        "sw_sys": "Linux", "timestamp": 1.0, "type": kind
    })
    .to_string()
    .into_bytes()
}

/// As kombu wraps it for Redis.
fn wrapped(body: &[u8]) -> String {
    serde_json::json!({
        "body": base64::engine::general_purpose::STANDARD.encode(body),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"hostname": "celery@host"},
        "properties": {
            "delivery_mode": 1,
            "delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "b0a2c2a2-0000-4000-8000-000000000000"
        }
    })
    .to_string()
}

#[tokio::test]
async fn redis_queues_and_workers_are_counted() {
    let server = Redis::start_new().await.unwrap();
    // Database 3: events of another one are not ours.
    let text = server.url().trim_end_matches("/0").to_owned() + "/3";
    let client = redis::Client::open(text.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (key, count) in [("default", 3), ("default\u{6}\u{16}6", 2), ("gpu", 4), ("other", 9)] {
        for _ in 0..count {
            let _: () = connection.rpush(key, "message").await.unwrap();
        }
    }
    let _: () = connection.hset("unacked", "tag", "message").await.unwrap();

    let mut broker =
        Broker::new(&url(text), &options(&["default", "gpu", "absent"], LIMIT)).unwrap();
    let first = load_when(&mut broker, "an answer", |_| true).await;
    assert_eq!(first, Load { queued_messages: 9, unacked_messages: Some(1), live_workers: None });

    let publish = async |channel: &str, message: String| {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let heard: i64 = connection.publish(channel, message).await.unwrap();
        heard
    };
    let beat = |name: &str| wrapped(&event("worker-heartbeat", name));
    eventually("a subscriber", async || {
        (publish("/3.celeryev/worker.heartbeat", beat("w1@a")).await > 0).then_some(())
    })
    .await;
    publish("/3.celeryev/worker.heartbeat", beat("w2@a")).await;
    publish("/0.celeryev/worker.heartbeat", beat("foreign@a")).await;
    load_when(&mut broker, "two workers", |load| load.live_workers == Some(2)).await;
    publish("/3.celeryev/worker.offline", wrapped(&event("worker-offline", "w1@a"))).await;
    load_when(&mut broker, "one worker", |load| load.live_workers == Some(1)).await;

    // The server goes away and comes back: so do both connections.
    server.stop().await;
    eventually("a failure", async || broker.load().await.err().map(drop)).await;
    server.start().await.unwrap();
    load_when(&mut broker, "an answer", |load| load.queued_messages == 9).await;
    eventually("a subscriber", async || {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let heard: i64 =
            connection.publish("/3.celeryev/worker.heartbeat", beat("w3@a")).await.ok()?;
        (heard > 0).then_some(())
    })
    .await;
    load_when(&mut broker, "two workers", |load| load.live_workers == Some(2)).await;
}

#[tokio::test]
async fn silence_on_redis_means_no_workers_only_after_a_while() {
    let server = Redis::start_new().await.unwrap();
    let window = Duration::from_secs(1);
    let mut broker = Broker::new(&url(server.url()), &options(&["default"], window)).unwrap();
    let first = load_when(&mut broker, "an answer", |_| true).await;
    assert_eq!(first.live_workers, None);
    load_when(&mut broker, "no workers", |load| load.live_workers == Some(0)).await;
}

#[tokio::test]
async fn keys_with_a_prefix_are_found() {
    let server = Redis::start_new().await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = connection.rpush("[team]default", "message").await.unwrap();
    let options = Options { key_prefix: "[team]".to_owned(), ..options(&["default"], LIMIT) };
    let mut broker = Broker::new(&url(server.url()), &options).unwrap();
    load_when(&mut broker, "the message", |load| load.queued_messages == 1).await;
    let message = wrapped(&event("worker-heartbeat", "w@a"));
    eventually("a subscriber", async || {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let heard: i64 =
            connection.publish("[team]/0.celeryev/worker.heartbeat", &message).await.unwrap();
        (heard > 0).then_some(())
    })
    .await;
    load_when(&mut broker, "the worker", |load| load.live_workers == Some(1)).await;
}

#[tokio::test]
async fn rabbitmq_queues_and_workers_are_counted() {
    let server = RabbitMq::start_new().await.unwrap();
    let mut broker =
        Broker::new(&url(server.url()), &options(&["default", "absent", "gpu"], LIMIT)).unwrap();
    // Nothing was ever declared there.
    let first = load_when(&mut broker, "an answer", |_| true).await;
    assert_eq!(first, Load::default());

    let connection =
        Connection::connect(&server.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    for (queue, count) in [("default", 3), ("gpu", 2), ("other", 5)] {
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
            .await
            .unwrap();
        for _ in 0..count {
            channel
                .basic_publish(
                    "".into(),
                    queue.into(),
                    BasicPublishOptions::default(),
                    b"message",
                    // Persistent, as those of tasks are.
                    BasicProperties::default().with_delivery_mode(2),
                )
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }
    let load = load_when(&mut broker, "five messages", |load| load.queued_messages == 5).await;
    assert_eq!((load.unacked_messages, load.live_workers), (None, None));

    // A worker arrives: it declares the exchange of events and tells of itself.
    channel
        .exchange_declare(
            "celeryev".into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions { durable: true, ..Default::default() },
            FieldTable::default(),
        )
        .await
        .unwrap();
    let beat = event("worker-heartbeat", "w1@a");
    let publish = async |routing_key: &str, body: &[u8]| {
        channel
            .basic_publish(
                "celeryev".into(),
                routing_key.into(),
                BasicPublishOptions::default(),
                body,
                BasicProperties::default().with_content_type("application/json".into()),
            )
            .await
            .unwrap()
            .await
            .unwrap();
    };
    let broker = &mut broker;
    eventually("the worker", async || {
        publish("worker.heartbeat", &beat).await;
        publish("task.started", &event("task-started", "other@a")).await;
        (broker.load().await.ok()?.live_workers == Some(1)).then_some(())
    })
    .await;
    publish("worker.heartbeat", &event("worker-heartbeat", "w2@a")).await;
    load_when(broker, "two workers", |load| load.live_workers == Some(2)).await;

    server.stop().await;
    eventually("a failure", async || broker.load().await.err().map(drop)).await;
    server.start().await.unwrap();
    load_when(broker, "five messages", |load| load.queued_messages == 5).await;
}

#[tokio::test]
async fn errors_of_brokers_hide_passwords() {
    let options = options(&["default"], LIMIT);
    for text in ["redis://:hunter2@127.0.0.1:9/0", "pyamqp://u:hunter2@127.0.0.1:9//"] {
        let mut broker = Broker::new(&url(text), &options).unwrap();
        let error = broker.load().await.unwrap_err();
        assert!(!format!("{error} {error:?} {broker:?}").contains("hunter2"), "{error:?}");
    }
    let unknown = Broker::new(&url("sqs://key:hunter2@"), &options).unwrap_err();
    assert!(unknown.is_unsupported());
    assert!(!unknown.to_string().contains("hunter2"), "{unknown}");
}
