//! A service to call, nodes that serve it, and certificates.

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use airfleet_runtime::{
    config::{ClientConfig, ServerConfig, TlsConfig},
    lifecycle::{self, Shutdown},
    node::Node,
    request::ContextExt as _,
    server::Server,
    status::{Failure, Problem},
};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use sha2::Digest as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    server::{NamedService, ServerStreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A text, asked and answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

/// Answers by what it is asked:
/// - `who`: the caller and the request id;
/// - `panic`, `fault`: what they say;
/// - `wait`: when it is told to;
/// - `leader <address>`: that another one leads;
/// - anything else: the same.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    pub(crate) answer_now: Arc<Notify>,
    pub(crate) waiting: Arc<Notify>,
    pub(crate) leader: Arc<std::sync::Mutex<Option<String>>>,
}

impl Echo {
    async fn say(self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let principal = Arc::clone(request.principal()?);
        let id = request.context()?.id.clone();
        let text = request.into_inner().text;
        let leader = self.leader.lock().unwrap().clone();
        if let Some(leader) = leader {
            return Err(Failure::not_leader(Some(&leader)).into());
        }
        let text = match text.as_str() {
            "who" => format!("{} {} {id}", principal.subject, principal.role),
            "panic" => panic!("as asked"),
            "fault" => return Err(Failure::internal("the secret cause").into()),
            "wait" => {
                self.waiting.notify_one();
                self.answer_now.notified().await;
                "waited".to_owned()
            }
            other => other.to_owned(),
        };
        Ok(Response::new(Text { text }))
    }
}

type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

impl UnaryService<Text> for Echo {
    type Response = Text;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Text>, Status>> + Send>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin(self.clone().say(request))
    }
}

/// Sends the text once, then goes on for ever.
#[derive(Clone)]
struct Watch;

impl ServerStreamingService<Text> for Watch {
    type Response = Text;
    type ResponseStream = Texts;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Texts>, Status>> + Send>>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        Box::pin(async move {
            let first = tokio_stream::once(Ok(request.into_inner()));
            let texts = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
            Ok(Response::new(Box::pin(texts) as Texts))
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "airfleet.test.v1.Echo";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Text, Text>::default())
                .apply_max_message_size_config(Some(usize::MAX), None);
            Ok(match request.uri().path() {
                "/airfleet.test.v1.Echo/Say" => grpc.unary(echo, request).await,
                "/airfleet.test.v1.Echo/Watch" => grpc.server_streaming(Watch, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Calls [`Echo`].
#[derive(Clone, Debug)]
pub(crate) struct Client<T>(pub(crate) T);

impl<T> Client<T>
where
    T: tonic::client::GrpcService<Body> + Clone,
    T::Error: std::error::Error + Send + Sync + 'static,
    T::ResponseBody: tonic::transport::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::transport::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    pub(crate) async fn send(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let mut grpc = Grpc::new(self.0.clone());
        ready(&mut grpc).await?;
        let path = http::uri::PathAndQuery::from_static("/airfleet.test.v1.Echo/Say");
        grpc.unary(request, path, ProstCodec::<Text, Text>::default()).await
    }

    pub(crate) async fn say(&self, text: &str) -> Result<String, Status> {
        let request = Request::new(Text { text: text.to_owned() });
        let answered = tokio::time::timeout(PATIENCE, self.send(request)).await;
        Ok(answered.expect("an answer in time")?.into_inner().text)
    }

    pub(crate) async fn watch(&self, text: &str) -> Result<Streaming<Text>, Status> {
        let mut grpc = Grpc::new(self.0.clone());
        ready(&mut grpc).await?;
        let path = http::uri::PathAndQuery::from_static("/airfleet.test.v1.Echo/Watch");
        let request = Request::new(Text { text: text.to_owned() });
        let codec = ProstCodec::<Text, Text>::default();
        Ok(grpc.server_streaming(request, path, codec).await?.into_inner())
    }

    /// How a refused call looks to a client.
    pub(crate) async fn problem(&self, text: &str) -> Problem {
        Problem::from(self.say(text).await.expect_err("a refusal"))
    }
}

async fn ready<T>(grpc: &mut Grpc<T>) -> Result<(), Status>
where
    T: tonic::client::GrpcService<Body>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))
}

/// What `protoc` would say of [`Echo`].
fn descriptors() -> &'static [u8] {
    let method = |name: &str, streams: bool| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".airfleet.test.v1.Text".to_owned()),
        output_type: Some(".airfleet.test.v1.Text".to_owned()),
        server_streaming: Some(streams),
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("airfleet/test/v1/echo.proto".to_owned()),
        package: Some("airfleet.test.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("Text".to_owned()),
            field: vec![FieldDescriptorProto {
                name: Some("text".to_owned()),
                number: Some(1),
                label: Some(Label::Optional.into()),
                r#type: Some(Type::String.into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Echo".to_owned()),
            method: vec![method("Say", false), method("Watch", true)],
            ..Default::default()
        }],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec().leak()
}

/// A node that serves [`Echo`].
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) node: Node,
    pub(crate) echo: Echo,
    pub(crate) stopped: JoinHandle<Result<(), lifecycle::Error>>,
}

impl Running {
    pub(crate) async fn start(config: &ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(config, listener)
    }

    pub(crate) fn start_on(config: &ServerConfig, listener: TcpListener) -> Self {
        airfleet_runtime::tls::install_crypto_provider();
        let node = Node::new("echo", Shutdown::new());
        let echo = Echo::default();
        let address = Server::new(config, &node)
            .descriptors(descriptors())
            .grpc(echo.clone())
            .serve(listener)
            .unwrap();
        let deadline = config.drain_deadline;
        let stopped = tokio::spawn(node.tasks.clone().run_until_stopped(deadline));
        Self { address, node, echo, stopped }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// A client without TLS or token.
    pub(crate) fn client(&self) -> Client<airfleet_runtime::client::Transport> {
        self.client_with(ClientConfig::default(), "http")
    }

    pub(crate) fn client_with(
        &self,
        config: ClientConfig,
        scheme: &str,
    ) -> Client<airfleet_runtime::client::Transport> {
        let config = ClientConfig { endpoints: vec![self.url(scheme)], ..config };
        Client(airfleet_runtime::client::connect(&config).unwrap())
    }

    /// Status, headers and body of a plain GET.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        self.exchange(request.as_bytes()).await
    }

    /// What a call over HTTP/1 gets; without trailers.
    pub(crate) async fn post(&self, method: &str, text: &str, headers: &str) -> String {
        let message = Text { text: text.to_owned() }.encode_to_vec();
        let mut request = format!(
            "POST /{}/{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/grpc\r\ncontent-length: {}\r\n{headers}\r\n",
            Echo::NAME,
            message.len() + 5,
        )
        .into_bytes();
        request.push(0);
        request.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        request.extend(message);
        self.exchange(&request).await
    }

    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
        read.expect("an answer in time").unwrap();
        text
    }

    /// The value of the metric that `line` begins.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.node.metrics.render().unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Stops it, gently.
    pub(crate) async fn stop(self) -> Result<(), lifecycle::Error> {
        self.node.shutdown().trigger();
        tokio::time::timeout(PATIENCE, self.stopped).await.expect("it stops in time").unwrap()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not reached: {what}"));
}

/// Certificates and tokens in a folder of their own.
pub(crate) struct Credentials {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    tokens: String,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let credentials = Self { dir, issuer: Issuer::new(params, key), tokens: String::new() };
        let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        credentials.sign("server", &server);
        credentials
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sign(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        std::fs::write(self.path(&format!("{name}.pem")), pem).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A client that shows a certificate with the URI name `uri`, valid until the end of `year`.
    pub(crate) fn client(&self, uri: &str, year: i32) -> ClientConfig {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        self.sign("client", &params);
        ClientConfig {
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
            ..self.anyone()
        }
    }

    /// A client that trusts the authority and has nothing to show.
    pub(crate) fn anyone(&self) -> ClientConfig {
        ClientConfig { ca: Some(self.path("ca.pem")), ..ClientConfig::default() }
    }

    /// Settings of a server with TLS.
    pub(crate) fn tls(&self) -> TlsConfig {
        TlsConfig {
            cert: Some(self.path("server.pem")),
            key: Some(self.path("server.key")),
            client_ca: None,
        }
    }

    /// Adds a token with the role and other settings in `rest`; the file of all of them.
    pub(crate) fn token(&mut self, token: &str, rest: &str) -> PathBuf {
        let hash = sha2::Sha256::digest(token).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let _ = write!(self.tokens, "[[token]]\nname = \"{token}\"\nsha256 = \"{hash}\"\n{rest}\n");
        let path = self.path("tokens.toml");
        std::fs::write(&path, &self.tokens).unwrap();
        path
    }
}
