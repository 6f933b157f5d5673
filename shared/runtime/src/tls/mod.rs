//! Certificates of servers and clients.
//!
//! Responsible for loading PEM files into rustls, and for loading them again when they change, so
//! that short-lived certificates need no restart. Expired, unknown and malformed certificates are
//! refused by rustls, on both ends.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use crate::{config::TlsConfig, lifecycle::Shutdown, status::chain};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The certificate and its key do not go together, or are not supported.
    #[error("the certificate {} cannot be used", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificates of the authority cannot be used.
    #[error("the authority {} cannot be used: {message}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The machine has no list of authorities that it trusts.
    #[error("found no certificate authorities on this machine; name one (client setting ca)")]
    NoSystemAuthorities,
}

/// Chooses the cryptography of TLS for the process. `main` calls it first, tests as they like.
pub fn install_crypto_provider() {
    // Fails where one was chosen before, and that one is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The certificates in a PEM file.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Error::NotPem { path: path.to_owned(), what: "certificate" }),
    }
}

/// The authorities that this machine trusts.
pub(crate) fn system_authorities() -> Result<Vec<TrustAnchor<'static>>, Error> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(Error::NoSystemAuthorities);
    }
    Ok(store.roots)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The certificates of a server. Clones share them.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    config: TlsConfig,
    client_certificate_optional: bool,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Vec<Option<SystemTime>>>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.config).finish()
    }
}

impl ServerTls {
    /// Loads the files that `config` names; `None` where it names no certificate. Clients need a
    /// certificate if an authority for them is named, unless `client_certificate_optional`.
    pub fn load(
        config: &TlsConfig,
        client_certificate_optional: bool,
    ) -> Result<Option<Self>, Error> {
        let (Some(cert), Some(key)) = (&config.cert, &config.key) else { return Ok(None) };
        let seen = stamps(config);
        let current = server_config(cert, key, config, client_certificate_optional)?;
        Ok(Some(Self(Arc::new(Inner {
            config: config.clone(),
            client_certificate_optional,
            current: ArcSwap::from_pointee(current),
            seen: Mutex::new(seen),
        }))))
    }

    /// Does the handshake of a new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.current.load_full())
    }

    /// Loads the files again if one changed. Files that cannot be used are left aside and the
    /// certificates stay as they were.
    pub fn reload_if_changed(&self) -> Result<bool, Error> {
        let inner = &*self.0;
        let stamps = stamps(&inner.config);
        {
            let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps {
                return Ok(false);
            }
            *seen = stamps;
        }
        if let (Some(cert), Some(key)) = (&inner.config.cert, &inner.config.key) {
            let optional = inner.client_certificate_optional;
            let config = server_config(cert, key, &inner.config, optional)?;
            inner.current.store(Arc::new(config));
        }
        Ok(true)
    }

    /// Looks at the files every five seconds until shutdown.
    pub async fn watch(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match self.reload_if_changed() {
                Ok(true) => tracing::info!("certificates read"),
                Ok(false) => {}
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(error, "certificates not read; those from before are served");
                }
            }
        }
    }
}

fn stamps(config: &TlsConfig) -> Vec<Option<SystemTime>> {
    [&config.cert, &config.key, &config.client_ca]
        .into_iter()
        .map(|path| std::fs::metadata(path.as_ref()?).ok()?.modified().ok())
        .collect()
}

fn server_config(
    cert: &Path,
    key: &Path,
    config: &TlsConfig,
    client_certificate_optional: bool,
) -> Result<ServerConfig, Error> {
    let chain = certificates(cert)?;
    let pem = read(key)?;
    let private_key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| Error::NotPem { path: key.to_owned(), what: "private key" })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3");
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |message: String| Error::Authority { path: path.clone(), message };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if client_certificate_optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| wrong(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder
        .with_single_cert(chain, private_key)
        .map_err(|source| Error::Certificate { path: cert.to_owned(), source })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}
