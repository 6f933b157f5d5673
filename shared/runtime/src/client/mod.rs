//! Calls other nodes.
//!
//! Responsible for channels with TLS, credentials and trace context ([`Transport`]), for finding
//! the replica that leads ([`Replicas`]) and for pauses between attempts ([`Backoff`]).

mod backoff;
mod replicas;

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::Uri;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

pub use self::{
    backoff::Backoff,
    replicas::{Replicas, Retry},
};
use crate::{
    config::{ClientConfig, Secret},
    request, telemetry, tls,
};

/// How often a quiet connection is probed, and how long an answer may take. Agents sit behind
/// routers that forget quiet connections after a minute or more.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What generated clients are made of: `RouterServiceClient::new(transport)`. Clones share one
/// connection, which is made when it is first needed and again after it broke.
pub type Transport = InterceptedService<Channel, Credentials>;

/// Why another node cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No endpoint is configured.
    #[error("no endpoint to connect to; set at least one URL such as http://127.0.0.1:7402")]
    NoEndpoint,
    /// An endpoint is not a URL.
    #[error("the endpoint {endpoint:?} is not a URL such as http://127.0.0.1:7402")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
    },
    /// A certificate without its key or the other way round.
    #[error("cert and key belong together; set both or none")]
    HalfACertificate,
    /// Certificates cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[source] tls::Error),
    /// tonic does not take the settings.
    #[error("the endpoint {endpoint:?} cannot be used")]
    Transport {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The token cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token holds characters that cannot be sent.
    #[error("the bearer token holds characters that cannot be sent; it must be visible ASCII")]
    TokenCharacters,
    /// A token would be sent for everybody to read.
    #[error(
        "refusing to send a bearer token to {endpoint}, which is neither https nor loopback; use \
         https"
    )]
    TokenInTheClear {
        /// The endpoint.
        endpoint: String,
    },
}

/// Adds a bearer token, the id of the request at work, and the trace context. Clones share the
/// token.
#[derive(Clone, Debug)]
pub struct Credentials {
    file: Option<PathBuf>,
    header: Arc<ArcSwapOption<MetadataValue<Ascii>>>,
}

impl Credentials {
    /// The token that `config` holds or names, if any.
    pub fn load(config: &ClientConfig) -> Result<Self, Error> {
        let file = config.token.is_none().then(|| config.token_file.clone()).flatten();
        let header = match (&config.token, &file) {
            (Some(token), _) => Some(Arc::new(bearer(token)?)),
            (None, Some(path)) => Some(Arc::new(bearer(&read_token(path)?)?)),
            (None, None) => None,
        };
        Ok(Self { file, header: Arc::new(ArcSwapOption::from(header)) })
    }

    /// Reads the token file again. Whether there is another token now.
    pub fn reload(&self) -> Result<bool, Error> {
        let Some(path) = &self.file else { return Ok(false) };
        let header = bearer(&read_token(path)?)?;
        let changed = self.header.load().as_deref() != Some(&header);
        self.header.store(Some(Arc::new(header)));
        Ok(changed)
    }

    fn is_empty(&self) -> bool {
        self.header.load().is_none()
    }
}

fn read_token(path: &std::path::Path) -> Result<Secret, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Token { path: path.to_owned(), source })?;
    Ok(Secret::new(text.trim()))
}

fn bearer(token: &Secret) -> Result<MetadataValue<Ascii>, Error> {
    let mut header: MetadataValue<Ascii> =
        format!("Bearer {}", token.expose()).parse().map_err(|_| Error::TokenCharacters)?;
    header.set_sensitive(true);
    Ok(header)
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(header) = &*self.header.load() {
            metadata.insert("authorization", MetadataValue::clone(header));
        }
        if let Some(id) = request::current_id()
            && !metadata.contains_key(request::HEADER)
            && let Ok(id) = id.as_str().parse()
        {
            metadata.insert(request::HEADER, id);
        }
        telemetry::inject(metadata);
        Ok(request)
    }
}

/// Makes transports from one configuration.
#[derive(Clone, Debug)]
pub struct Connector {
    connect_timeout: Duration,
    tls: ClientTlsConfig,
    credentials: Credentials,
}

impl Connector {
    /// Loads certificates and tokens.
    pub fn new(config: &ClientConfig) -> Result<Self, Error> {
        Ok(Self {
            connect_timeout: config.connect_timeout,
            tls: tls_config(config)?,
            credentials: Credentials::load(config)?,
        })
    }

    /// The credentials that all transports share.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A transport to `endpoint`. Connects when it is first used.
    pub fn transport(&self, endpoint: &str) -> Result<Transport, Error> {
        let wrong = || Error::Endpoint { endpoint: endpoint.to_owned() };
        let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        if !is_tls && !self.credentials.is_empty() && !is_loopback(&uri) {
            return Err(Error::TokenInTheClear { endpoint: endpoint.to_owned() });
        }
        let failed = |source| Error::Transport { endpoint: endpoint.to_owned(), source };
        let mut settings = Endpoint::from(uri)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .user_agent(concat!("airfleet/", env!("CARGO_PKG_VERSION")))
            .map_err(failed)?;
        if is_tls {
            settings = settings.tls_config(self.tls.clone()).map_err(failed)?;
        }
        let channel = settings.connect_lazy();
        Ok(InterceptedService::new(channel, self.credentials.clone()))
    }
}

/// A transport to the first endpoint of `config`. Connects when it is first used.
pub fn connect(config: &ClientConfig) -> Result<Transport, Error> {
    let endpoint = config.endpoints.first().ok_or(Error::NoEndpoint)?;
    Connector::new(config)?.transport(endpoint)
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls_config(config: &ClientConfig) -> Result<ClientTlsConfig, Error> {
    let mut settings = ClientTlsConfig::new();
    let is_needed = config.endpoints.iter().any(|endpoint| endpoint.starts_with("https"));
    match &config.ca {
        Some(path) => {
            // Parsed here too, so that a wrong file is named.
            tls::certificates(path).map_err(Error::Tls)?;
            let pem = tls::read(path).map_err(Error::Tls)?;
            settings = settings.ca_certificate(Certificate::from_pem(pem));
        }
        None if is_needed => {
            settings = settings.trust_anchors(tls::system_authorities().map_err(Error::Tls)?);
        }
        None => {}
    }
    match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let cert = tls::read(cert).map_err(Error::Tls)?;
            let key = tls::read(key).map_err(Error::Tls)?;
            settings = settings.identity(Identity::from_pem(cert, key));
        }
        (None, None) => {}
        _ => return Err(Error::HalfACertificate),
    }
    Ok(settings)
}
