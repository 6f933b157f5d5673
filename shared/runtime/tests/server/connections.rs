//! Connections that come to nothing.

use std::time::Duration;

use airfleet_runtime::config::{Limits, ServerConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Credentials, PATIENCE, Running, eventually};

const MANY: usize = 1000;

/// Opens connections and sends `bytes` on each, and no more.
async fn half_open(running: &Running, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        streams.push(stream);
    }
    streams
}

/// Waits until the node has closed all of them.
async fn all_closed(streams: Vec<TcpStream>) {
    let closing = async {
        for mut stream in streams {
            let mut rest = Vec::new();
            // Closed, or reset because it had sent something.
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    tokio::time::timeout(PATIENCE, closing).await.expect("the node closes them");
}

fn patient(max_handshakes: usize, handshake_timeout: Duration) -> ServerConfig {
    let limits = Limits { max_handshakes, handshake_timeout, ..Limits::default() };
    ServerConfig { limits, ..ServerConfig::default() }
}

#[tokio::test]
async fn a_thousand_half_open_connections_are_in_nobodys_way() {
    let running = Running::start(&patient(100, Duration::from_millis(500))).await;
    let before = running.client();
    before.say("before").await.unwrap();

    let streams = half_open(&running, b"PRI * HTTP").await;
    // One who was there, and one who comes after a thousand others that are still there.
    assert_eq!(before.say("among them").await.unwrap(), "among them");
    assert_eq!(running.client().say("new").await.unwrap(), "new");
    assert!(running.get("/healthz", "").await.starts_with("HTTP/1.1 200"));

    all_closed(streams).await;
    let outcome =
        |name: &str| running.metric(&format!("airfleet_connections_total{{outcome=\"{name}\"}}"));
    eventually("all are counted", || outcome("evicted") + outcome("timed_out") > 999.5).await;
    assert!(outcome("evicted") > 0.5);
    // A connection that has begun may be quiet as long as it likes.
    assert_eq!(before.say("after").await.unwrap(), "after");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn half_open_handshakes_are_in_nobodys_way() {
    let credentials = Credentials::new();
    let mut config = patient(100, Duration::from_millis(500));
    config.tls = credentials.tls();
    let running = Running::start(&config).await;
    let before = running.client_with(credentials.anyone(), "https");
    before.say("before").await.unwrap();

    // The head of a TLS record that never comes.
    let streams = half_open(&running, &[0x16, 0x03, 0x01, 0x02, 0x00]).await;
    assert_eq!(before.say("among them").await.unwrap(), "among them");
    let new = running.client_with(credentials.anyone(), "https");
    assert_eq!(new.say("new").await.unwrap(), "new");
    all_closed(streams).await;
    assert_eq!(before.say("after").await.unwrap(), "after");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn slow_and_malformed_requests_are_cut_off() {
    let running = Running::start(&patient(100, Duration::from_millis(200))).await;
    for bytes in [
        &b"GET /metrics HTTP/1.1\r\nhost: slow.example.test\r\nx-"[..],
        b"GET /metrics HTTP/1.1\r\nnonsense\x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand then no frame at all......................",
        b"\x00\x01\x02\x03",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("the node closes it");
    }
    assert_eq!(running.client().say("unharmed").await.unwrap(), "unharmed");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_and_come_back() {
    let limits = Limits { idle_timeout: Duration::from_millis(250), ..Limits::default() };
    let running = Running::start(&ServerConfig { limits, ..ServerConfig::default() }).await;
    let client = running.client();
    client.say("hello").await.unwrap();
    eventually("it is closed", || running.metric("airfleet_connections_open") < 0.5).await;
    assert_eq!(client.say("hello again").await.unwrap(), "hello again");
    running.stop().await.unwrap();
}
