//! What every node answers.

use airfleet_runtime::{
    config::ServerConfig,
    lifecycle::Shutdown,
    node::Node,
    server::{self, Server},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::support::{Running, Text, eventually};

#[tokio::test]
async fn requests_have_ids_and_are_counted() {
    let running = Running::start(&ServerConfig::default()).await;
    let client = running.client();

    let mut request = Request::new(Text { text: "who".into() });
    request.metadata_mut().insert("x-request-id", "from-the-caller".parse().unwrap());
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "from-the-caller");
    assert_eq!(answer.into_inner().text, "anonymous admin from-the-caller");

    let answer = client.send(Request::new(Text { text: "who".into() })).await.unwrap();
    assert!(!answer.metadata().contains_key("x-request-id"), "nobody asked for it");
    let first = answer.into_inner().text;
    let second = client.say("who").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(first.len(), "anonymous admin ".len() + 24, "{first}");

    let problem = client.problem("fault").await;
    assert_eq!(problem.code, Code::Internal);
    let id = problem.request_id.clone().unwrap();
    assert!(problem.message.ends_with(&format!("under request id {id}")), "{problem}");
    assert!(!format!("{problem:?}").contains("secret cause"));

    let text = running.get("/metrics", "").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    for line in [
        "airfleet_rpc_requests_total{code=\"OK\",method=\"Say\",service=\"airfleet.test.v1.Echo\"} 3\n",
        "airfleet_rpc_requests_total{code=\"INTERNAL\",method=\"Say\",service=\"airfleet.test.v1.Echo\"} 1\n",
        "airfleet_rpc_duration_seconds_count{method=\"Say\",service=\"airfleet.test.v1.Echo\"} 4\n",
        "airfleet_ready 1\n",
        "airfleet_connections_open 2\n",
        "airfleet_build_info{service=\"echo\",version=\"",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn readiness_is_told_over_http_and_grpc() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let running = Running::start(&ServerConfig::default()).await;
    let table = running.node.readiness.condition("table");
    assert!(running.get("/healthz", "").await.ends_with("\r\n\r\nalive\n"));
    let text = running.get("/readyz", "").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.ends_with("\r\n\r\ntable: not reached yet\n"), "{text}");

    let mut health = HealthClient::new(running.client().0);
    let request = HealthCheckRequest { service: "airfleet.test.v1.Echo".into() };
    let mut states = health.watch(request).await.unwrap().into_inner();
    // It may be told of what was before the condition.
    while states.next().await.unwrap().unwrap().status() as i32 != 2 {}
    table.met();
    assert_eq!(states.next().await.unwrap().unwrap().status() as i32, 1);
    let whole = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(whole.status() as i32, 1);
    assert!(running.get("/readyz", "").await.ends_with("ready\n"));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_paths_get_a_clear_answer() {
    let running = Running::start(&ServerConfig::default()).await;
    let text = running.get("/no/such/path", "").await;
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
    assert!(text.contains("\"reason\":\"NOT_FOUND\""), "{text}");
    let text = running.get("/no.such.Service/Method", "content-type: application/grpc\r\n").await;
    assert!(text.contains("grpc-status: 12\r\n"), "{text}");
    assert!(text.contains("no%20method%20/no.such.Service/Method"), "{text}");
    let series =
        "airfleet_rpc_requests_total{code=\"NOT_FOUND\",method=\"other\",service=\"other\"}";
    assert!((running.metric(series) - 1.0).abs() < f64::EPSILON);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_is_one_callers_problem() {
    let running = Running::start(&ServerConfig::default()).await;
    let client = running.client();
    let problem = client.problem("panic").await;
    assert_eq!((problem.code, problem.reason.as_str()), (Code::Internal, "INTERNAL"));
    assert_eq!(client.say("still here").await.unwrap(), "still here");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_work() {
    let running = Running::start(&ServerConfig::default()).await;
    // Not with tonic's client, which would give up by itself at the same time.
    let answer = running.post("Say", "wait", "grpc-timeout: 50m\r\n").await;
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
    let waiting = "airfleet_rpc_requests_in_flight";
    eventually("nothing is at work", || running.metric(waiting) < 0.5).await;
    running.stop().await.unwrap();
}

macro_rules! listed_services {
    ($running:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new($running.client().0);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = answers.into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}");
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn both_reflections_list_what_is_served() {
    let running = Running::start(&ServerConfig::default()).await;
    for names in [listed_services!(running, v1), listed_services!(running, v1alpha)] {
        assert!(names.contains(&"airfleet.test.v1.Echo".to_owned()), "{names:?}");
        assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn strangers_are_kept_out_unless_it_is_said() {
    let open = ServerConfig { listen: "0.0.0.0:0".parse().unwrap(), ..ServerConfig::default() };
    let error = server::bind(&open).await.unwrap_err().to_string();
    assert!(error.contains("refusing to listen on 0.0.0.0:0"), "{error}");

    // Also where the listener is handed in and the settings say something else.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let node = Node::new("echo", Shutdown::new());
    let served = Server::new(&ServerConfig::default(), &node).serve(listener);
    assert!(matches!(served, Err(server::Error::Exposure(_))));

    let insecure = ServerConfig { insecure: true, ..open };
    let listener = server::bind(&insecure).await.unwrap();
    Server::new(&insecure, &Node::new("echo", Shutdown::new())).serve(listener).unwrap();
}
