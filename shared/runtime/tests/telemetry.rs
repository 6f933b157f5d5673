//! Logs and traces of a process, seen from outside: a child serves one traced request, the parent
//! reads its log and is the collector.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use airfleet_runtime::{
    config::{LogFormat, ServerConfig, TelemetryConfig},
    lifecycle::Shutdown,
    node::Node,
    server::Server,
    status::Failure,
    telemetry,
};
use axum::{
    body::Bytes,
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const COLLECTOR: &str = "AIRFLEET_TEST_COLLECTOR";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PATIENCE: Duration = Duration::from_secs(30);

/// The child. Does nothing unless the parent started it.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(endpoint) = std::env::var(COLLECTOR) else { return };
    let config = TelemetryConfig {
        log_format: LogFormat::Json,
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    let telemetry = telemetry::init(&config, "airfleet-child").unwrap();
    assert!(matches!(telemetry::init(&config, "child"), Err(telemetry::Error::Twice(_))));
    let node = Node::new("child", Shutdown::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Server::new(&ServerConfig::default(), &node)
        .http(
            "/fault",
            get(|| async {
                let _ = Failure::internal("the table is gone").into_status();
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .serve(listener)
        .unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /fault HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: abc-1\r\n\
         traceparent: 00-{TRACE_ID}-b7ad6b7169203331-01\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    telemetry.flush().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_and_traces_reach_the_collector() {
    let exported = Arc::new(Mutex::new(Vec::<u8>::new()));
    let kept = Arc::clone(&exported);
    let collect = move |body: Bytes| async move {
        kept.lock().unwrap().extend_from_slice(&body);
        let headers =
            [(CONTENT_TYPE, "application/grpc"), (HeaderName::from_static("grpc-status"), "0")];
        // An empty message.
        (headers, vec![0_u8; 5])
    };
    let node = Node::new("collector", Shutdown::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Server::new(&ServerConfig::default(), &node)
        .http("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(collect))
        .serve(listener)
        .unwrap();

    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(COLLECTOR, format!("http://{address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");

    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let serving = lines.iter().find(|line| line["message"] == "serving").expect(&log);
    assert_eq!((&serving["service"], &serving["level"]), (&"child".into(), &"INFO".into()));
    let fault = lines.iter().find(|line| line["message"] == "internal error").expect(&log);
    assert_eq!(fault["request_id"], "abc-1");
    assert_eq!(fault["error"], "the table is gone");

    let exported = exported.lock().unwrap();
    let holds = |part: &[u8]| exported.windows(part.len()).any(|window| window == part);
    let trace_id: Vec<u8> = (0..TRACE_ID.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&TRACE_ID[at..at + 2], 16).unwrap())
        .collect();
    assert!(holds(&trace_id), "the caller's trace is continued");
    assert!(holds(b"/fault"), "the span has the name of the path");
    assert!(holds(b"airfleet-child"), "the service is named");
    assert!(holds(b"abc-1"), "the span has the id of the request");
}
