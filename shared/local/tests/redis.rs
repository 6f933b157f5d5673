//! A private Redis server, for real.

use airfleet_local::Redis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends one command line on a new connection and returns the answer's line.
async fn ask(redis: &Redis, command: &str) -> std::io::Result<String> {
    let url = redis.url();
    let password = url.strip_prefix("redis://:").unwrap().split('@').next().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await?;
    let text = format!("AUTH {password}\r\n{command}\r\nQUIT\r\n");
    stream.write_all(text.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn keeps_its_port_and_its_data_over_a_stop() {
    let redis = Redis::start_new().await.unwrap();
    let url = redis.url();
    assert_eq!(ask(&redis, "RPUSH default one two").await.unwrap(), ":2");

    redis.stop().await;
    assert!(!redis.is_running().await);
    ask(&redis, "PING").await.expect_err("it is stopped");
    redis.start().await.unwrap();
    assert_eq!(redis.url(), url);
    assert_eq!(ask(&redis, "LLEN default").await.unwrap(), ":2");

    redis.kill().await;
    assert!(!redis.is_running().await);
    redis.start().await.unwrap();
    assert_eq!(ask(&redis, "PING").await.unwrap(), "+PONG");
}

#[tokio::test]
async fn asks_for_its_password() {
    let redis = Redis::start_new().await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
    stream.write_all(b"PING\r\nQUIT\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("-NOAUTH"), "{answer}");
}
