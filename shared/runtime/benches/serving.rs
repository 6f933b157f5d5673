//! What the server costs a request, beside tonic's own server with nothing around it.
//!
//! The same handler, client and machine; rounds of both alternate, and the best round of each
//! counts, because whatever else the machine does only ever slows a round down. The processor time
//! of a request, client and server together, says the same with less noise. With the name of a peer
//! as argument, only that one runs, for a profiler to look at.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use airfleet_runtime::{
    client,
    config::{ClientConfig, Secret, ServerConfig},
    lifecycle::Shutdown,
    node::Node,
    server::Server,
};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    server::{NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(1500);
const PATH: &str = "/airfleet.bench.v1.Echo/Say";
/// SHA-256 of `token`.
const TOKEN_HASH: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

#[derive(Clone, PartialEq, Eq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone)]
struct Echo;

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl UnaryService<Text> for Echo {
    type Response = Text;
    type Future = Answering<Result<Response<Text>, Status>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "airfleet.bench.v1.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

/// Requests a second in one round, and processor time of one in microseconds.
async fn round(transports: &[client::Transport]) -> (f64, f64) {
    let busy_before = busy();
    let answered = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|n| {
            let mut grpc = Grpc::new(transports[n % transports.len()].clone());
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                while started.elapsed() < ROUND {
                    let request = Request::new(Text { text: "payments__daily_settlement".into() });
                    let codec = ProstCodec::<Text, Text>::default();
                    grpc.ready().await.expect("the server is there");
                    let path = PathAndQuery::from_static(PATH);
                    let answer: Response<Text> =
                        grpc.unary(request, path, codec).await.expect("the server answers");
                    assert!(!answer.get_ref().text.is_empty());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
    let answered = answered.load(Ordering::Relaxed) as f64;
    let busy = busy().saturating_sub(busy_before);
    (answered / started.elapsed().as_secs_f64(), busy.as_secs_f64() * 1e6 / answered)
}

/// Processor time of this process, as Linux counts it: in ticks of 10 ms.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, in parentheses, may hold spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(10 * ticks)
}

async fn bare() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(Echo).serve_with_incoming(incoming),
    );
    url
}

async fn stack(config: &ServerConfig, node: &Node) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = Server::new(config, node).grpc(Echo).serve(listener).expect("it serves");
    format!("http://{address}")
}

fn transports(url: &str, token: Option<&str>) -> Vec<client::Transport> {
    let config = ClientConfig { token: token.map(Secret::new), ..ClientConfig::plain(url) };
    (0..CONNECTIONS).map(|_| client::connect(&config).expect("the URL is one")).collect()
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let dir = tempfile::tempdir().expect("a folder can be made");
    let tokens_file = dir.path().join("tokens.toml");
    let entry = format!("[[token]]\nname = \"t\"\nsha256 = \"{TOKEN_HASH}\"\nrole = \"viewer\"\n");
    std::fs::write(&tokens_file, entry).expect("the file can be written");

    let node = Node::new("bench", Shutdown::new());
    let guarded = Node::new("bench", Shutdown::new());
    let with_tokens = ServerConfig { tokens_file: Some(tokens_file), ..ServerConfig::default() };
    let peers = [
        ("tonic", transports(&bare().await, None)),
        ("stack", transports(&stack(&ServerConfig::default(), &node).await, None)),
        ("stack with tokens", transports(&stack(&with_tokens, &guarded).await, Some("token"))),
    ];
    let only: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut best = [(0.0_f64, f64::INFINITY); 3];
    for _ in 0..rounds {
        for ((name, transports), best) in peers.iter().zip(&mut best) {
            if !(only.is_empty() || only.iter().any(|only| only == name)) {
                continue;
            }
            let (rate, cost) = round(transports).await;
            *best = (best.0.max(rate), best.1.min(cost));
        }
    }
    for ((name, _), (rate, cost)) in peers.iter().zip(best) {
        println!(
            "{name:<20} {rate:>7.0} requests/s ({:.3})  {cost:>6.1} us/request ({:.3})",
            rate / best[0].0,
            best[0].1 / cost,
        );
    }
}
