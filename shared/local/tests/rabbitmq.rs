//! A private RabbitMQ node, for real.

use airfleet_local::RabbitMq;

/// What the management API answers to `path`.
async fn ask(rabbitmq: &RabbitMq, method: reqwest::Method, path: &str) -> serde_json::Value {
    let url = format!("{}/api/{path}", rabbitmq.management_url().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .request(method, url)
        .json(&serde_json::json!({ "durable": true }))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let text = answer.text().await.unwrap();
    if text.is_empty() { serde_json::Value::Null } else { serde_json::from_str(&text).unwrap() }
}

#[tokio::test]
async fn keeps_durable_queues_over_a_stop_and_a_kill() {
    let rabbitmq = RabbitMq::options().management(true).start().await.unwrap();
    let url = rabbitmq.url();
    ask(&rabbitmq, reqwest::Method::PUT, "queues/%2f/default").await;

    rabbitmq.stop().await;
    assert!(!rabbitmq.is_running().await);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", rabbitmq.port())).await.is_err());
    rabbitmq.start().await.unwrap();
    assert_eq!(rabbitmq.url(), url);
    rabbitmq.kill().await;
    assert!(!rabbitmq.is_running().await);
    rabbitmq.start().await.unwrap();

    let queues = ask(&rabbitmq, reqwest::Method::GET, "queues/%2f?columns=name").await;
    assert_eq!(queues, serde_json::json!([{ "name": "default" }]));
}

#[tokio::test]
async fn two_nodes_do_not_see_each_other_and_leave_nothing_behind() {
    let (first, second) = tokio::join!(RabbitMq::start_new(), RabbitMq::start_new());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.port(), second.port());
    assert_eq!(first.management_url(), None);
    let log = first.log();
    drop((first, second));
    assert!(!log.exists());
}
